//! Numbers of a sequence that never came, as stretches: bounded, however the numbers jump.

use std::collections::BTreeMap;

/// Stretches that are followed; the oldest are then only counted.
const MAX_STRETCHES: usize = 4096;
/// A jump that is further is a new beginning, not a loss.
const MAX_JUMP: u64 = 1 << 20;

/// Where a number lies among those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The first one of all.
    Only,
    /// Below all others.
    Lowest,
    /// Above all others.
    Highest,
    /// Among them.
    Between,
}

/// See the module's page. Numbers are unwrapped ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps {
    /// Lowest and highest number.
    ends: Option<(u64, u64)>,
    /// What is missing between them: first and last of each stretch.
    open: BTreeMap<u64, u64>,
    forgotten: u64,
}

impl Gaps {
    /// One more number.
    pub(crate) fn see(&mut self, number: u64) -> Place {
        let Some((lowest, highest)) = self.ends else {
            self.ends = Some((number, number));
            return Place::Only;
        };
        if number > highest {
            self.miss(highest + 1, number);
            self.ends = Some((lowest, number));
            Place::Highest
        } else if number < lowest {
            self.miss(number + 1, lowest);
            self.ends = Some((number, highest));
            Place::Lowest
        } else {
            self.fill(number);
            Place::Between
        }
    }

    /// Numbers from `from` to before `to` did not come.
    fn miss(&mut self, from: u64, to: u64) {
        if from < to && to - from <= MAX_JUMP {
            self.put(from, to - 1);
        }
    }

    fn put(&mut self, from: u64, to: u64) {
        self.open.insert(from, to);
        if self.open.len() > MAX_STRETCHES
            && let Some((from, to)) = self.open.pop_first()
        {
            self.forgotten += to - from + 1;
        }
    }

    fn fill(&mut self, number: u64) {
        let below = self.open.range(..=number).next_back();
        let Some((from, to)) = below.map(|(f, t)| (*f, *t)).filter(|(_, to)| *to >= number) else {
            return;
        };
        self.open.remove(&from);
        if from < number {
            self.put(from, number - 1);
        }
        if number < to {
            self.put(number + 1, to);
        }
    }

    /// How many are missing.
    pub(crate) fn count(&self) -> u64 {
        let listed: u64 = self.open.iter().map(|(from, to)| to - from + 1).sum();
        listed + self.forgotten
    }

    /// The stretches in order: first and last number.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = (u64, u64)> {
        self.open.iter().map(|(from, to)| (*from, *to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[u64]) -> Gaps {
        let mut gaps = Gaps::default();
        for number in numbers {
            gaps.see(*number);
        }
        gaps
    }

    #[test]
    fn what_comes_late_is_not_missing() {
        let gaps = of(&[10, 12, 20, 15, 11, 12]);
        let found: Vec<_> = gaps.stretches().collect();
        assert_eq!(found, [(13, 14), (16, 19)]);
        assert_eq!(gaps.count(), 6);
        let gaps = of(&[10, 7, 8, 9]);
        assert_eq!(gaps.count(), 0);
        assert_eq!(of(&[10, 7]).stretches().collect::<Vec<_>>(), [(8, 9)]);
    }

    #[test]
    fn places_are_told() {
        let mut gaps = Gaps::default();
        let places = [5, 7, 3, 4, 7].map(|n| gaps.see(n));
        use Place::{Between, Highest, Lowest, Only};
        assert_eq!(places, [Only, Highest, Lowest, Between, Between]);
    }

    #[test]
    fn a_great_jump_is_no_loss_and_stretches_are_bounded() {
        assert_eq!(of(&[1, 1 << 40]).count(), 0);
        let mut gaps = Gaps::default();
        for n in 0..20_000 {
            gaps.see(2 * n);
        }
        assert_eq!(gaps.stretches().count(), MAX_STRETCHES);
        assert_eq!(gaps.count(), 19_999);
    }
}
