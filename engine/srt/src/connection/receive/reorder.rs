//! Reorder tolerance (LOSSMAXTTL, spec section 11.2): a gap is not reported until so many more
//! packets have come, because it may only be a packet that was overtaken. The tolerance follows
//! what is seen: it grows to the distance of reordered packets, and shrinks while none come or
//! while they come early. Called by the receiver when a gap is found, filled or due; packets that
//! come in order cost nothing here: what is due by counting them is due at a number of the count
//! that the receiver keeps anyway.

use crate::connection::loss::Range;

/// In-order packets after which the tolerance shrinks.
const ORDERLY: u32 = 50;
/// Reordered packets in a row that came early, after which it shrinks.
const EARLY: u32 = 10;
/// A packet is early when its gap had more packets left than this.
const EARLY_LEFT: u32 = 2;
/// Gaps that wait; one more is reported at once.
const MAX_WAITING: usize = 64;

/// A gap that is not reported yet, until the count of packets reaches `due`.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    gap: Range,
    due: u64,
}

/// See the module's page. `count` is the number of packets received so far.
#[derive(Debug)]
pub(super) struct Reorder {
    most: u32,
    tolerance: u32,
    /// Largest distance seen.
    distance: u32,
    waiting: Vec<Waiting>,
    /// The count when packets last came out of order, or the tolerance last shrank.
    orderly_since: u64,
    early: u32,
}

impl Reorder {
    /// `most`: LOSSMAXTTL, packets.
    pub(super) const fn new(most: u32) -> Self {
        Reorder {
            most,
            tolerance: most,
            distance: 0,
            waiting: Vec::new(),
            orderly_since: 0,
            early: 0,
        }
    }

    /// A gap was found by the packet that is number `count`. `false`: it is to be reported now.
    pub(super) fn found(&mut self, gap: Range, count: u64) -> bool {
        if self.tolerance == 0 || self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.waiting.push(Waiting {
            gap,
            due: count + u64::from(self.tolerance),
        });
        true
    }

    /// The packet `index` has come behind later ones, `distance` numbers behind the highest;
    /// `original`: it is no retransmission.
    pub(super) fn filled(&mut self, index: u64, distance: u32, original: bool, count: u64) {
        let left = self.take(index, count);
        if !original {
            return;
        }
        self.distance = self.distance.max(distance);
        if self.most == 0 {
            return;
        }
        self.orderly_since = count;
        if distance > self.tolerance {
            self.tolerance = distance.min(self.most);
            self.early = 0;
        } else if left > EARLY_LEFT {
            self.early += 1;
            if self.early >= EARLY {
                self.early = 0;
                self.tolerance -= 1;
            }
        }
    }

    /// How many packets the gap around `index` would still have waited. A gap that is closed
    /// makes room for another.
    fn take(&mut self, index: u64, count: u64) -> u32 {
        let around = |w: &Waiting| w.gap.first <= index && index <= w.gap.last;
        let Some(at) = self.waiting.iter().position(around) else {
            return 0;
        };
        let Some(waiting) = self.waiting.get_mut(at) else {
            return 0;
        };
        let left = waiting.due.saturating_sub(count);
        let gap = &mut waiting.gap;
        if gap.first == gap.last {
            self.waiting.remove(at);
        } else if index == gap.first {
            gap.first += 1;
        } else if index == gap.last {
            gap.last -= 1;
        }
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// The next gap that has waited long enough.
    pub(super) fn next_due(&mut self, count: u64) -> Option<Range> {
        let at = self.waiting.iter().position(|w| w.due <= count)?;
        Some(self.waiting.remove(at).gap)
    }

    /// Lets the tolerance shrink after a run of packets in order.
    pub(super) const fn settle(&mut self, count: u64) {
        if self.tolerance > 0 && count >= self.orderly_since + ORDERLY as u64 {
            self.tolerance -= 1;
            self.orderly_since = count;
        }
    }

    /// The count at which `next_due` or `settle` has something to do.
    pub(super) fn attention(&self) -> u64 {
        let settle = if self.tolerance > 0 {
            self.orderly_since + u64::from(ORDERLY)
        } else {
            u64::MAX
        };
        let due = self.waiting.iter().map(|w| w.due).min();
        due.unwrap_or(u64::MAX).min(settle)
    }

    /// Nothing is reported any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Present tolerance, packets.
    pub(super) const fn tolerance(&self) -> u32 {
        self.tolerance
    }

    /// Largest distance seen, packets.
    pub(super) const fn distance(&self) -> u32 {
        self.distance
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GAP: Range = Range { first: 5, last: 6 };

    #[test]
    fn a_gap_waits_for_as_many_packets_as_are_tolerated() {
        let mut reorder = Reorder::new(3);
        assert!(reorder.found(GAP, 10));
        assert_eq!(reorder.attention(), 13);
        assert_eq!(reorder.next_due(12), None);
        assert_eq!(reorder.next_due(13), Some(GAP));
        assert_eq!(reorder.next_due(13), None);
        assert!(!Reorder::new(0).found(GAP, 10), "reported at once");
    }

    #[test]
    fn the_tolerance_grows_with_the_distance_up_to_its_limit_and_shrinks_in_good_order() {
        let mut reorder = Reorder::new(8);
        for count in 1..=400 {
            reorder.settle(count);
        }
        assert_eq!(reorder.tolerance(), 0);
        reorder.filled(5, 3, false, 401);
        assert_eq!(reorder.tolerance(), 0, "a retransmission tells nothing");
        reorder.filled(5, 3, true, 401);
        assert_eq!(reorder.tolerance(), 3);
        reorder.filled(5, 30, true, 402);
        assert_eq!((reorder.tolerance(), reorder.distance()), (8, 30));
        for count in 403..=452 {
            reorder.settle(count);
        }
        assert_eq!(reorder.tolerance(), 7);
    }

    #[test]
    fn packets_that_come_early_make_the_tolerance_shrink() {
        let mut reorder = Reorder::new(8);
        for i in 0..10_u64 {
            let gap = Range {
                first: i * 10,
                last: i * 10,
            };
            assert!(reorder.found(gap, i * 10));
            reorder.filled(i * 10, 1, true, i * 10 + 1);
        }
        assert_eq!(reorder.tolerance(), 7);
    }

    #[test]
    fn gaps_that_are_closed_do_not_wait() {
        let mut reorder = Reorder::new(1000);
        // Each second packet is overtaken by the one behind it.
        for i in 0..500_u64 {
            let gap = Range {
                first: i * 2,
                last: i * 2,
            };
            assert!(reorder.found(gap, i * 2 + 1), "{i}");
            reorder.filled(i * 2, 1, true, i * 2 + 2);
        }
        for (from_the_front, fills) in [(true, [5, 6, 7]), (false, [7, 6, 5])] {
            assert!(reorder.found(Range { first: 5, last: 7 }, 10));
            for index in fills {
                assert_eq!(reorder.waiting.len(), 1, "{from_the_front}");
                reorder.filled(index, 1, false, 11);
            }
            assert_eq!(
                reorder.attention(),
                reorder.orderly_since + u64::from(ORDERLY)
            );
        }
    }

    #[test]
    fn gaps_that_wait_are_bounded() {
        let mut reorder = Reorder::new(1000);
        let taken = (0..1000).filter(|&i| {
            let gap = Range { first: i, last: i };
            reorder.found(gap, i)
        });
        assert_eq!(taken.count(), MAX_WAITING);
    }
}
