//! A bounded, sorted list of ranges of missing packets. The receiver keeps what it misses, the
//! sender what it has to retransmit. Packets are named by index, which does not wrap; the wire
//! form is `packet::loss`. Not touched while packets come in order.

use std::collections::VecDeque;

/// Ranges in a list at most: what one hostile pattern of losses can cost (spec section 22).
const MAX_RANGES: usize = 4096;

/// Inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    const fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

/// See the module's page. Ranges are disjoint, sorted and not adjacent.
#[derive(Debug, Default)]
pub(crate) struct LossList {
    ranges: VecDeque<Range>,
}

impl LossList {
    pub(crate) const fn new() -> Self {
        LossList {
            ranges: VecDeque::new(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether one more range cannot be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.ranges.len() >= MAX_RANGES
    }

    /// The lowest missing index.
    #[inline]
    pub(crate) fn first(&self) -> Option<u64> {
        self.ranges.front().map(|r| r.first)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.ranges.iter().copied()
    }

    /// The parts of `first..=last` that are in the list.
    pub(crate) fn within(&self, first: u64, last: u64) -> impl Iterator<Item = Range> + '_ {
        let from = self.ranges.partition_point(|r| r.last < first);
        self.ranges
            .iter()
            .skip(from)
            .take_while(move |r| r.first <= last)
            .map(move |r| Range {
                first: r.first.max(first),
                last: r.last.min(last),
            })
    }

    /// Adds `first..=last`, merging; returns how many indexes are new. Nothing is added when
    /// the list is full.
    pub(crate) fn insert(&mut self, first: u64, last: u64) -> u64 {
        if last < first {
            return 0;
        }
        // Most gaps are new ones behind all others.
        let behind = self.ranges.back();
        if behind.is_none_or(|range| range.last.saturating_add(1) < first) {
            if self.is_full() {
                return 0;
            }
            self.ranges.push_back(Range { first, last });
            return last - first + 1;
        }
        let from = self
            .ranges
            .partition_point(|r| r.last.saturating_add(1) < first);
        let mut merged = Range { first, last };
        let mut known = 0;
        let mut until = from;
        while let Some(&range) = self.ranges.get(until) {
            if range.first > last.saturating_add(1) {
                break;
            }
            merged.first = merged.first.min(range.first);
            merged.last = merged.last.max(range.last);
            known += range.count();
            until += 1;
        }
        if until == from {
            if self.is_full() {
                return 0;
            }
            self.ranges.insert(from, merged);
        } else {
            if let Some(range) = self.ranges.get_mut(from) {
                *range = merged;
            }
            self.ranges.drain(from + 1..until);
        }
        merged.count() - known
    }

    /// Removes one index; whether it was there. A split may exceed the bound: it happens only
    /// for a packet that found its place in the ring, and the ring is bounded.
    pub(crate) fn remove(&mut self, index: u64) -> bool {
        let alone = Range {
            first: index,
            last: index,
        };
        // What is repaired is most often the oldest.
        if self.ranges.front() == Some(&alone) {
            self.ranges.pop_front();
            return true;
        }
        let at = self.ranges.partition_point(|r| r.last < index);
        let Some(range) = self.ranges.get_mut(at) else {
            return false;
        };
        if index < range.first {
            return false;
        }
        let old = *range;
        if old.first == old.last {
            self.ranges.remove(at);
        } else if index == old.first {
            range.first += 1;
        } else {
            range.last = index - 1;
            if index < old.last {
                self.ranges.insert(
                    at + 1,
                    Range {
                        first: index + 1,
                        last: old.last,
                    },
                );
            }
        }
        true
    }

    /// Removes everything below `index`; returns how many that were.
    pub(crate) fn remove_before(&mut self, index: u64) -> u64 {
        let mut removed = 0;
        while let Some(range) = self.ranges.front_mut() {
            if range.last < index {
                removed += range.count();
                self.ranges.pop_front();
            } else {
                if range.first < index {
                    removed += index - range.first;
                    range.first = index;
                }
                break;
            }
        }
        removed
    }

    /// Removes `first..=last`. A full list leaves a range as it is that would have to be split.
    pub(crate) fn remove_range(&mut self, first: u64, last: u64) {
        let mut from = self.ranges.partition_point(|r| r.last < first);
        let until = self.ranges.partition_point(|r| r.first <= last);
        if from >= until {
            return;
        }
        let after = self
            .ranges
            .get(until - 1)
            .filter(|range| range.last > last)
            .map(|range| Range {
                first: last + 1,
                last: range.last,
            });
        let would_split_full = self.is_full() && from + 1 == until && after.is_some();
        if let Some(range) = self.ranges.get_mut(from)
            && range.first < first
        {
            if would_split_full {
                return;
            }
            range.last = first - 1;
            from += 1;
        }
        self.ranges.drain(from..until);
        if let Some(after) = after {
            self.ranges.insert(from, after);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_follows_a_set_under_random_operations() {
        let mut state = 7u64;
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut list = LossList::new();
        let mut set = BTreeSet::new();
        let mut floor = 0;
        for _ in 0..50_000 {
            let first = floor + random(300);
            let last = first + random(8);
            match random(6) {
                0..=1 => {
                    let added = (first..=last).filter(|&i| set.insert(i)).count() as u64;
                    assert_eq!(list.insert(first, last), added);
                }
                2..=3 => assert_eq!(list.remove(first), set.remove(&first)),
                4 => {
                    list.remove_range(first, last);
                    set.retain(|i| !(first..=last).contains(i));
                }
                _ => {
                    floor += random(10);
                    let before = set.len();
                    set = set.split_off(&floor);
                    assert_eq!(list.remove_before(floor), (before - set.len()) as u64);
                }
            }
            assert_eq!(list.first(), set.first().copied());
            let all: Vec<u64> = list.iter().flat_map(|r| r.first..=r.last).collect();
            assert!(all.iter().eq(set.iter()), "{all:?} {set:?}");
            let ranges: Vec<Range> = list.iter().collect();
            assert!(ranges.windows(2).all(|w| w[0].last + 1 < w[1].first));
            let part: Vec<u64> = list
                .within(first, last)
                .flat_map(|r| r.first..=r.last)
                .collect();
            assert!(part.iter().eq(set.range(first..=last)));
        }
    }

    #[test]
    fn a_full_list_gives_up_whole_ranges_but_splits_none() {
        let mut list = LossList::new();
        for i in 0..MAX_RANGES as u64 {
            list.insert(i * 10, i * 10 + 4);
        }
        list.remove_range(12, 12);
        assert_eq!(list.within(10, 19).count(), 1, "not split");
        list.remove_range(12, 32);
        let left: Vec<Range> = list.within(10, 39).collect();
        let range = |first, last| Range { first, last };
        assert_eq!(left, [range(10, 11), range(33, 34)]);
        list.remove_range(5, 4);
        list.remove_range(0, u64::MAX);
        assert!(list.is_empty());
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let mut list = LossList::new();
        for i in 0..10_000 {
            list.insert(i * 2, i * 2);
        }
        assert_eq!(list.iter().count(), MAX_RANGES);
        let mut list = LossList::new();
        list.insert(0, 100_000);
        for i in 0..10_000 {
            list.remove_range(i * 2 + 1, i * 2 + 1);
        }
        assert!(list.iter().count() <= MAX_RANGES);
    }
}
