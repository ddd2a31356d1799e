//! The paths of a configured session (SMPTE ST 2022-7): what came on each, what it lacked, and
//! how far it lags behind the other. Where there is one path only, its figures alone.

use core::net::SocketAddr;

use mirror_base::Instant;

use super::{LEG_TIMEOUT, LegStatistics};

/// Numbers that a path remembers: what 450 ms (class C) of 9000 packets a second bring.
const WINDOW: u64 = 4096;
/// Numbers behind the newest that may still come, before they count as lost on the path.
const SETTLE: u64 = 128;

/// Which of the last [`WINDOW`] slots a path has brought.
#[derive(Clone, Debug)]
struct Window {
    /// One past the highest.
    end: u64,
    bits: Box<[u64]>,
}

impl Window {
    fn new(start: u64) -> Self {
        Window {
            end: start,
            bits: vec![0; (WINDOW / 64) as usize].into_boxed_slice(),
        }
    }

    fn word(&mut self, index: u64) -> Option<&mut u64> {
        self.bits.get_mut((index % WINDOW / 64) as usize)
    }

    /// `false`: it was there already, or is older than the window.
    fn insert(&mut self, index: u64) -> bool {
        if index + WINDOW < self.end {
            return false;
        }
        if index >= self.end {
            let first = self.end.max((index + 1).saturating_sub(WINDOW));
            for i in first..=index {
                if let Some(word) = self.word(i) {
                    *word &= !(1 << (i % 64));
                }
            }
            self.end = index + 1;
        }
        let Some(word) = self.word(index) else {
            return false;
        };
        let bit = 1 << (index % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// What is older than the window counts as there.
    fn contains(&self, index: u64) -> bool {
        if index >= self.end {
            return false;
        }
        let word = self.bits.get((index % WINDOW / 64) as usize);
        index + WINDOW < self.end || word.is_some_and(|w| w >> (index % 64) & 1 == 1)
    }
}

/// One path.
#[derive(Debug)]
pub(super) struct Leg {
    /// Where the source sends from on this path.
    pub(super) from: Option<SocketAddr>,
    /// When it was heard last, on this path and from this address.
    pub(super) heard: Instant,
    pub(super) statistics: LegStatistics,
    window: Option<Window>,
    /// Slots before are counted.
    settled: u64,
    /// Smoothed, in 1/16 µs.
    skew: i64,
}

impl Leg {
    pub(super) fn new(now: Instant) -> Self {
        Leg {
            from: None,
            heard: now,
            statistics: LegStatistics::default(),
            window: None,
            settled: 0,
            skew: 0,
        }
    }
}

/// What a packet is on its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Noted {
    /// It had not come on this path before.
    pub(super) is_new: bool,
    /// The other path has brought it.
    pub(super) other_has: bool,
    /// The other path has gone past it.
    pub(super) other_passed: bool,
}

/// All paths.
#[derive(Debug)]
pub(super) struct Legs {
    pub(super) legs: [Leg; 2],
    is_two: bool,
    recovered: u64,
}

impl Legs {
    pub(super) fn new(now: Instant, count: u8) -> Self {
        Legs {
            legs: [Leg::new(now), Leg::new(now)],
            is_two: count > 1,
            recovered: 0,
        }
    }

    pub(super) const fn is_two(&self) -> bool {
        self.is_two
    }

    /// Packets missing on one path and given by the other.
    pub(super) const fn recovered(&self) -> u64 {
        self.recovered
    }

    /// The path that `leg` names; the first if there is one only.
    pub(super) fn get_mut(&mut self, leg: u8) -> &mut Leg {
        let [first, second] = &mut self.legs;
        if self.is_two && leg > 0 {
            second
        } else {
            first
        }
    }

    fn pair(&mut self, leg: u8) -> (&mut Leg, &mut Leg) {
        let [first, second] = &mut self.legs;
        if self.is_two && leg > 0 {
            (second, first)
        } else {
            (first, second)
        }
    }

    /// Whether `leg`, which was heard just now, comes up by that, or shows the other one down.
    #[inline]
    pub(super) fn is_changed(&self, leg: u8) -> bool {
        let [first, second] = &self.legs;
        let (this, other) = if leg > 0 {
            (second, first)
        } else {
            (first, second)
        };
        let late = this.heard.saturating_since(other.heard) >= LEG_TIMEOUT;
        self.is_two && (!this.statistics.is_up || (late && other.statistics.is_up))
    }

    /// A source is taken: its packets are counted from now on.
    pub(super) fn restart(&mut self, now: Instant) {
        self.finish();
        for leg in &mut self.legs {
            leg.from = None;
            leg.heard = now;
            leg.window = None;
            leg.statistics.is_up = true;
        }
    }

    /// Counts what is not counted yet: the numbering is over.
    pub(super) fn finish(&mut self) {
        if self.is_two {
            self.settle(0, 0);
            self.settle(1, 0);
        }
    }

    /// `leg` brings slot `index` (two paths only).
    pub(super) fn note(&mut self, leg: u8, index: u64) -> Noted {
        let end = self.get_mut(leg).window.as_ref().map(|w| w.end);
        if end.is_some_and(|end| index > end + WINDOW - 2 * SETTLE) {
            // An outage: what came before it is counted while it is known.
            self.settle(leg, 0);
        }
        let (this, other) = self.pair(leg);
        if this.window.is_none() {
            this.settled = index;
        }
        let window = this.window.get_or_insert_with(|| Window::new(index));
        let noted = Noted {
            is_new: window.insert(index),
            other_has: other.window.as_ref().is_some_and(|w| w.contains(index)),
            other_passed: other.window.as_ref().is_some_and(|w| index < w.end),
        };
        this.statistics.packets_received += 1;
        let given =
            noted.is_new && other.window.is_some() && index < other.settled && !noted.other_has;
        self.recovered += u64::from(given);
        self.settle(leg, SETTLE);
        noted
    }

    /// Counts the numbers that will not come on `leg` any more: those `behind` its newest.
    fn settle(&mut self, leg: u8, behind: u64) {
        let (this, other) = self.pair(leg);
        let Some(window) = &this.window else { return };
        let end = window.end.saturating_sub(behind);
        // What lies before the window is an outage.
        let known = end.saturating_sub(WINDOW - SETTLE);
        this.statistics.packets_lost += known.saturating_sub(this.settled);
        let mut recovered = 0;
        for index in this.settled.max(known)..end {
            if !window.contains(index) {
                this.statistics.packets_lost += 1;
                let other_has = other.window.as_ref().is_some_and(|w| w.contains(index));
                recovered += u64::from(other_has);
            }
        }
        this.settled = this.settled.max(end);
        self.recovered += recovered;
    }

    /// A copy came on `leg` at `arrival`, after the first one at `first`.
    pub(super) fn note_skew(&mut self, leg: u8, arrival: Instant, first: Instant) {
        let micros = arrival.micros_diff(first).clamp(-10_000_000, 10_000_000);
        let (this, other) = self.pair(leg);
        this.skew += micros - this.skew / 16;
        if this.skew / 16 == 0 && micros != 0 {
            this.skew = micros * 16;
        }
        other.skew = -this.skew;
        this.statistics.skew_us = this.skew / 16;
        other.statistics.skew_us = -this.skew / 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_tells_what_came_even_far_behind() {
        let mut window = Window::new(10);
        assert!(window.insert(10) && window.insert(5000) && !window.insert(5000));
        assert!(!window.contains(4999) && window.contains(5000) && !window.contains(5001));
        assert!(window.insert(1000) && window.contains(1000));
        // Older than the window: taken as there.
        assert!(window.contains(10) && window.contains(900) && !window.insert(11));
        assert!(window.insert(1_000_000));
        assert!(!window.contains(999_999) && window.contains(5000));
    }

    #[test]
    fn what_one_path_lacks_and_the_other_brings_is_recovered_whoever_is_first() {
        for lag in [0usize, 50, 1000] {
            let mut legs = Legs::new(Instant::ZERO, 2);
            legs.restart(Instant::ZERO);
            for i in 0..3000 + lag as u64 {
                if i < 3000 && i % 100 != 7 {
                    legs.note(0, i);
                }
                if let Some(late) = i.checked_sub(lag as u64)
                    && late % 100 != 50
                    && late % 1000 != 7
                {
                    legs.note(1, late);
                }
            }
            legs.finish();
            let [a, b] = [legs.legs[0].statistics, legs.legs[1].statistics];
            assert_eq!((a.packets_lost, b.packets_lost), (30, 33), "{lag}");
            // 3 of the 30 are missing on both.
            assert_eq!(legs.recovered(), 27 + 30, "{lag}");
        }
    }

    #[test]
    fn an_outage_of_a_path_is_counted_whole() {
        let mut legs = Legs::new(Instant::ZERO, 2);
        legs.restart(Instant::ZERO);
        for i in 0..40_000u64 {
            legs.note(0, i);
            if !(10_000..30_000).contains(&i) {
                legs.note(1, i);
            }
        }
        legs.finish();
        assert_eq!(legs.legs[1].statistics.packets_lost, 20_000);
        assert_eq!(legs.legs[0].statistics.packets_lost, 0);
        // Only what is remembered is known to have come by the other path.
        assert!(legs.recovered() <= 20_000 && legs.recovered() >= WINDOW - SETTLE);
    }
}
