//! Which packets are missing and when to ask for them (RFC 4585 generic NACK, RFC 4588). A gap
//! is asked for when it has outlasted reordering, again after a round-trip time each, and no
//! more once an answer would come too late.

use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::Instant;

use crate::rtcp::feedback::{NackPair, push_sequence};

/// Packets that are asked for at the same time.
const MAX_MISSING: usize = 512;
/// Times that one packet is asked for.
const MAX_TRIES: u8 = 10;
/// Pairs of one NACK: 68 bytes of lost packets, at 5 % loss a thousand packets.
const MAX_PAIRS: usize = 64;
/// An answer never comes sooner than this after the last request, for all we know.
const MIN_REPEAT: Duration = Duration::from_millis(10);
/// A gap of reordering is closed within this, if it was never seen to take longer.
const MIN_DELAY: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug)]
struct Missing {
    index: u64,
    sequence: u16,
    /// When it is asked for next, when it was last and at first, and how often.
    at: Instant,
    asked: Instant,
    first: Instant,
    tries: u8,
    /// When its gap is given up.
    deadline: Instant,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct NackTracker {
    /// By index.
    missing: VecDeque<Missing>,
    /// Earliest `at` of all.
    due: Instant,
    hold: Duration,
    delay: Duration,
    /// Smoothed; `None` before the first answer.
    rtt: Option<Duration>,
}

impl NackTracker {
    /// Gaps are held open for `hold`.
    pub(crate) fn new(hold: Duration) -> Self {
        NackTracker {
            missing: VecDeque::new(),
            due: Instant::FAR_FUTURE,
            hold,
            delay: MIN_DELAY.min(hold / 4),
            rtt: None,
        }
    }

    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// How long a gap is left alone before it is asked for.
    pub(crate) const fn delay(&self) -> Duration {
        self.delay
    }

    /// From now on gaps are held open for `hold`.
    pub(crate) const fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    /// Somebody measured the round-trip time otherwise.
    pub(crate) fn learn_rtt(&mut self, sample: Duration) {
        let sample = sample.min(Duration::from_secs(10));
        self.rtt = Some(match self.rtt {
            // As TCP does (RFC 6298): a factor of 1/8.
            Some(rtt) => rtt * 7 / 8 + sample / 8,
            None => sample,
        });
    }

    /// A packet came `late` behind its successors without being asked for: gaps last longer
    /// than was thought.
    pub(crate) fn learn_reordering(&mut self, late: Duration) {
        self.delay = self.delay.max((late * 3 / 2).min(self.hold / 4));
    }

    /// How long a gap is left alone, if not because of reordering then of the second path.
    pub(crate) fn set_least_delay(&mut self, delay: Duration) {
        self.delay = self.delay.max(delay.min(self.hold / 2));
    }

    /// Slots from `first` to before `end` that are not filled are missing since `seen`; `end`
    /// has `sequence`.
    pub(crate) fn gap(
        &mut self,
        seen: Instant,
        first: u64,
        end: u64,
        sequence: u16,
        is_filled: impl Fn(u64) -> bool,
    ) {
        let first = first.max(end.saturating_sub(MAX_MISSING as u64));
        let at = seen + self.delay;
        for index in (first..end).filter(|i| !is_filled(*i)) {
            if self.missing.len() >= MAX_MISSING {
                // The oldest is the next to be given up.
                self.missing.pop_front();
            }
            self.missing.push_back(Missing {
                index,
                sequence: sequence.wrapping_sub((end - index) as u16),
                at,
                asked: seen,
                first: seen,
                tries: 0,
                deadline: seen + self.hold,
            });
            self.due = self.due.min(at);
        }
    }

    /// Slot `index` was given back otherwise.
    pub(crate) fn forget(&mut self, index: u64) {
        if let Ok(at) = self.missing.binary_search_by_key(&index, |m| m.index) {
            self.missing.remove(at);
        }
    }

    /// Another numbering begins: nothing of the last one is wanted.
    pub(crate) fn clear(&mut self) {
        self.missing.clear();
        self.due = Instant::FAR_FUTURE;
    }

    /// Slot `index` is filled at `now`. `true`: it had been asked for.
    pub(crate) fn filled(&mut self, now: Instant, index: u64) -> bool {
        let Ok(at) = self.missing.binary_search_by_key(&index, |m| m.index) else {
            return false;
        };
        let Some(found) = self.missing.remove(at) else {
            return false;
        };
        if self.missing.is_empty() {
            self.due = Instant::FAR_FUTURE;
        }
        match found.tries {
            0 => {
                // It was not asked for yet: since then it is known to be missing.
                self.learn_reordering(now.saturating_since(found.asked));
            }
            1 => self.learn_rtt(now.saturating_since(found.asked)),
            // Karn: an answer to a repeated request says nothing, but that it came to the first
            // one at the latest. Where more is not known, that keeps requests apart, so that later
            // answers say more.
            _ if self.rtt.is_none() => self.learn_rtt(now.saturating_since(found.first)),
            _ => {}
        }
        found.tries > 0
    }

    /// When [`NackTracker::collect`] has something to ask for.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Puts what is to be asked for at `now` into `pairs`. Everything before `next` is
    /// delivered or given up.
    pub(crate) fn collect(&mut self, now: Instant, next: u64, pairs: &mut Vec<NackPair>) -> u64 {
        let answer = self.rtt.unwrap_or_default();
        let repeat = match self.rtt {
            Some(rtt) => (rtt * 3 / 2).max(MIN_REPEAT),
            None => (self.hold / 4).max(MIN_REPEAT),
        };
        self.missing
            .retain(|m| m.index >= next && m.tries < MAX_TRIES && now <= m.deadline);
        let mut asked = 0;
        self.due = Instant::FAR_FUTURE;
        for missing in &mut self.missing {
            if missing.at <= now {
                // The first request always goes: the round-trip time may have shrunk.
                if missing.tries > 0 && now + answer > missing.deadline {
                    missing.at = Instant::FAR_FUTURE;
                    continue;
                }
                if push_sequence(pairs, missing.sequence, MAX_PAIRS) {
                    if missing.tries == 0 {
                        missing.first = now;
                    }
                    missing.tries += 1;
                    missing.asked = now;
                    missing.at = now + repeat;
                    asked += 1;
                }
            }
            self.due = self.due.min(missing.at);
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn ask(nack: &mut NackTracker, ms: u64, next: u64) -> Vec<u16> {
        let mut pairs = Vec::new();
        nack.collect(at(ms), next, &mut pairs);
        pairs.into_iter().flat_map(NackPair::sequences).collect()
    }

    #[test]
    fn a_gap_is_asked_for_after_reordering_and_again_each_round_trip_until_it_is_too_late() {
        let mut nack = NackTracker::new(Duration::from_millis(200));
        nack.learn_rtt(Duration::from_millis(30));
        nack.gap(at(1000), 5, 8, 2, |_| false);
        assert_eq!(nack.due(), at(1002));
        assert!(ask(&mut nack, 1001, 0).is_empty());
        assert_eq!(ask(&mut nack, 1002, 0), [65_535, 0, 1]);
        assert_eq!(nack.due(), at(1047));
        assert!(nack.filled(at(1030), 6));
        assert!(ask(&mut nack, 1046, 0).is_empty());
        assert_eq!(ask(&mut nack, 1050, 0), [65_535, 1]);
        // Given up meanwhile: nothing before slot 6 is waited for.
        assert_eq!(ask(&mut nack, 1100, 6), [1]);
        assert_eq!(ask(&mut nack, 1150, 6), [1]);
        // An answer would come after 1200.
        assert!(ask(&mut nack, 1195, 6).is_empty());
        assert!(nack.due() > at(10_000));
    }

    #[test]
    fn the_round_trip_time_is_learned_from_first_answers_only() {
        let mut nack = NackTracker::new(Duration::from_millis(400));
        nack.gap(at(0), 0, 2, 2, |_| false);
        assert_eq!(ask(&mut nack, 2, 0), [0, 1]);
        nack.filled(at(42), 0);
        assert_eq!(nack.rtt(), Some(Duration::from_millis(40)));
        assert_eq!(ask(&mut nack, 102, 0), [1]);
        nack.filled(at(103), 1);
        assert_eq!(nack.rtt(), Some(Duration::from_millis(40)));
    }

    #[test]
    fn reordering_that_was_seen_delays_the_first_request() {
        let mut nack = NackTracker::new(Duration::from_millis(80));
        nack.gap(at(0), 0, 1, 1, |_| false);
        assert!(!nack.filled(at(10), 0));
        nack.gap(at(100), 9, 10, 10, |_| false);
        assert_eq!(nack.due(), at(115));
        nack.filled(at(170), 9);
        nack.gap(at(200), 19, 20, 20, |_| false);
        assert_eq!(nack.due(), at(220));
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let mut nack = NackTracker::new(Duration::from_secs(1));
        for i in 0..100u64 {
            nack.gap(at(i), i * 3000, i * 3000 + 2999, 0, |_| false);
            assert!(nack.missing.len() <= MAX_MISSING);
        }
        let asked = ask(&mut nack, 200, 0);
        assert!(asked.len() <= MAX_PAIRS * 17);
        nack.clear();
        assert!(ask(&mut nack, 300, 0).is_empty());
    }
}
