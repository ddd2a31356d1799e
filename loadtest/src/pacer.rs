//! When which sender's turn is. The senders are divided into groups; each group has one turn a
//! burst period, and the groups' turns are evenly spread over it. In its turn a sender sends what
//! has become due since its last one: at 50 Mb/s and 1 ms four or five packets, which leave in
//! one segmented send. After a stall of the generator's core it catches up at twice the rate, as
//! a sender behind a line does, and not with everything at once. Pure arithmetic: time comes in,
//! time goes out.

use std::time::Duration;

/// The schedule of all turns.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    burst_ns: u64,
    groups: u64,
}

/// One turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Whose.
    pub group: usize,
    /// When, in ns after the start.
    pub at_ns: u64,
}

impl Pacer {
    /// At most this many turns a burst period: each costs a wake-up.
    pub const MAX_GROUPS: usize = 8;

    /// A schedule for `senders` senders.
    pub fn new(burst: Duration, senders: usize) -> Self {
        let burst_ns = u64::try_from(burst.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1_000);
        Pacer {
            burst_ns,
            groups: senders.clamp(1, Self::MAX_GROUPS) as u64,
        }
    }

    /// Groups in all. Sender `i` is in group `i % groups`.
    pub fn groups(&self) -> usize {
        self.groups as usize
    }

    /// Turn `n`, counted over all groups.
    pub fn turn(&self, n: u64) -> Turn {
        let (round, group) = (n / self.groups, n % self.groups);
        Turn {
            group: group as usize,
            at_ns: round * self.burst_ns + group * self.burst_ns / self.groups,
        }
    }

    /// Where group `group`'s content starts, so that its packets are due at its turns.
    pub fn phase_ns(&self, group: usize) -> u64 {
        group as u64 * self.burst_ns / self.groups
    }

    /// Until when a sender's content may leave that was sent until `sent_ns` and is due until
    /// `due_ns`: no more in a turn than two periods hold.
    pub fn catch_up(&self, sent_ns: u64, due_ns: u64) -> u64 {
        due_ns.min(sent_ns + 2 * self.burst_ns)
    }

    /// The first turn that is not before `at_ns`: after a stall the missed turns are skipped, and
    /// what they would have sent leaves in the next ones ([`Pacer::catch_up`]).
    pub fn first_turn_at(&self, at_ns: u64) -> u64 {
        let mut n = at_ns / self.burst_ns * self.groups;
        while self.turn(n).at_ns < at_ns {
            n += 1;
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_evenly_spread_over_the_burst_period() {
        let pacer = Pacer::new(Duration::from_millis(1), 25);
        assert_eq!(pacer.groups(), 8);
        for n in 0..64 {
            let turn = pacer.turn(n);
            assert_eq!(turn.group as u64, n % 8);
            assert_eq!(turn.at_ns, n * 125_000);
        }
    }

    #[test]
    fn a_stall_skips_turns_but_no_group_for_more_than_one_period() {
        let pacer = Pacer::new(Duration::from_millis(1), 3);
        assert_eq!(pacer.first_turn_at(0), 0);
        assert_eq!(pacer.first_turn_at(1), 1);
        let n = pacer.first_turn_at(10_500_000);
        assert_eq!(
            pacer.turn(n),
            Turn {
                group: 2,
                at_ns: 10_666_666
            }
        );
    }

    #[test]
    fn what_a_stall_held_up_leaves_at_twice_the_rate() {
        let pacer = Pacer::new(Duration::from_millis(1), 8);
        // in time: what is due
        assert_eq!(pacer.catch_up(5_000_000, 6_000_000), 6_000_000);
        // 100 ms late: as many turns later everything is sent
        let (mut sent, mut due, mut turns) = (5_000_000, 105_000_000, 0);
        while sent + 1_000_000 < due {
            let until = pacer.catch_up(sent, due);
            assert!(until - sent <= 2_000_000);
            (sent, due, turns) = (until, due + 1_000_000, turns + 1);
        }
        assert!((99..=101).contains(&turns), "{turns}");
    }

    #[test]
    fn packets_per_turn_add_up_to_the_rate_in_virtual_time() {
        // 50 Mb/s: a datagram each 210.56 µs, sent in turns of 1 ms
        let pacer = Pacer::new(Duration::from_millis(1), 1);
        let due = |n: u64| n * 1316 * 8 * 20;
        let (mut sent, mut biggest) = (0, 0);
        for turn in 0..10_000 {
            let now = pacer.turn(turn).at_ns;
            let before = sent;
            while due(sent) <= now {
                sent += 1;
            }
            biggest = biggest.max(sent - before);
        }
        assert_eq!(sent, 9_999_000_000 / 210_560 + 1);
        assert_eq!(biggest, 5);
    }
}
