//! What networks do to datagrams, sans-IO: loss (independent and in bursts), reordering,
//! duplication, corruption, delay, jitter and a bottleneck with a queue. The load generator
//! puts it before its sockets, the simulation between its hosts.
//!
//! One [`Netem`] is one direction of one path. All randomness comes from its seed: the same
//! pushes give the same datagrams at the same times.

use core::cmp::Ordering;
use core::time::Duration;
use std::collections::BinaryHeap;

use mirror_base::Instant;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Bursts of loss after Gilbert and Elliott: a path that is good or bad, and changes between
/// the two with each datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurstLoss {
    /// Probability that a good path turns bad, per datagram.
    pub enter: f64,
    /// Probability that a bad path turns good, per datagram: bursts last 1/`leave` datagrams.
    pub leave: f64,
    /// Loss while the path is bad.
    pub loss: f64,
}

/// A bottleneck: datagrams leave one after the other at this rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Bits a second, headers of lower layers not counted.
    pub bits_per_second: u64,
    /// Bytes that may wait; what does not fit is lost.
    pub queue_bytes: u64,
}

/// What the path does. The default does nothing. Probabilities are 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Config {
    /// Each datagram is lost with this probability.
    pub loss: f64,
    /// Bursts of loss, besides.
    pub burst_loss: Option<BurstLoss>,
    /// Each datagram is held back by [`Config::reorder_delay`] with this probability.
    pub reorder: f64,
    /// How much later a reordered datagram arrives.
    pub reorder_delay: Duration,
    /// Each datagram arrives twice with this probability.
    pub duplicate: f64,
    /// One bit of a datagram is flipped with this probability.
    pub corrupt: f64,
    /// One-way delay.
    pub delay: Duration,
    /// Added to the delay: uniform from 0 to this. Never reorders by itself.
    pub jitter: Duration,
    /// The bottleneck, before the delay.
    pub rate_limit: Option<RateLimit>,
}

/// What happened to the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pushed.
    pub pushed: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost as the bottleneck's queue was full.
    pub overflowed: u64,
    /// Held back.
    pub reordered: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Changed.
    pub corrupted: u64,
    /// Handed out by [`Netem::poll`], duplicates included.
    pub delivered: u64,
}

#[derive(Debug)]
struct InFlight {
    at: Instant,
    order: u64,
    datagram: Vec<u8>,
}

impl InFlight {
    const fn key(&self) -> (Instant, u64) {
        (self.at, self.order)
    }
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    /// The earliest is the greatest: [`BinaryHeap`] gives it out first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// One direction of a path. See the crate's page.
#[derive(Debug)]
pub struct Netem {
    config: Config,
    rng: ChaCha8Rng,
    path_is_bad: bool,
    /// When the bottleneck will have sent everything.
    link_free: Instant,
    /// The latest arrival so far of a datagram that was not held back.
    last_arrival: Instant,
    in_flight: BinaryHeap<InFlight>,
    order: u64,
    statistics: Statistics,
}

impl Netem {
    /// A path that does what `config` says, by the randomness of `seed`.
    pub fn new(config: Config, seed: u64) -> Self {
        Netem {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            path_is_bad: false,
            link_free: Instant::ZERO,
            last_arrival: Instant::ZERO,
            in_flight: BinaryHeap::new(),
            order: 0,
            statistics: Statistics::default(),
        }
    }

    /// Changes what the path does; what is on its way stays so.
    pub const fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// A datagram is sent at `now`.
    pub fn push(&mut self, now: Instant, mut datagram: Vec<u8>) {
        self.statistics.pushed += 1;
        if self.is_lost() {
            self.statistics.lost += 1;
            return;
        }
        let Some(sent) = self.pass_bottleneck(now, datagram.len()) else {
            self.statistics.overflowed += 1;
            return;
        };
        if self.happens(self.config.corrupt) && !datagram.is_empty() {
            let bit = self.below(datagram.len() as u64 * 8);
            if let Some(byte) = datagram.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
            self.statistics.corrupted += 1;
        }
        let jitter = self.below(u64::try_from(self.config.jitter.as_nanos()).unwrap_or(u64::MAX));
        let mut at = sent + self.config.delay + Duration::from_nanos(jitter);
        if self.happens(self.config.reorder) {
            self.statistics.reordered += 1;
            at += self.config.reorder_delay;
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
        }
        if self.happens(self.config.duplicate) {
            self.statistics.duplicated += 1;
            self.launch(at, datagram.clone());
        }
        self.launch(at, datagram);
    }

    /// The next datagram that has arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.in_flight.peek()?.at > now {
            return None;
        }
        self.statistics.delivered += 1;
        self.in_flight.pop().map(|f| f.datagram)
    }

    /// When the next datagram arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.peek().map(|f| f.at)
    }

    /// Datagrams on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What happened so far.
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    fn launch(&mut self, at: Instant, datagram: Vec<u8>) {
        self.order += 1;
        self.in_flight.push(InFlight {
            at,
            order: self.order,
            datagram,
        });
    }

    fn is_lost(&mut self) -> bool {
        let mut lost = self.happens(self.config.loss);
        if let Some(burst) = self.config.burst_loss {
            let change = if self.path_is_bad {
                burst.leave
            } else {
                burst.enter
            };
            self.path_is_bad ^= self.happens(change);
            lost |= self.path_is_bad && self.happens(burst.loss);
        }
        lost
    }

    /// When the bottleneck has sent the datagram's last bit; `None` if its queue is full.
    fn pass_bottleneck(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(limit) = self.config.rate_limit else {
            return Some(now);
        };
        let rate = u128::from(limit.bits_per_second.max(1));
        let backlog = self.link_free.saturating_since(now);
        let waiting = backlog.as_nanos() * rate / 8 / 1_000_000_000;
        if waiting + bytes as u128 > u128::from(limit.queue_bytes) {
            return None;
        }
        let nanos = bytes as u128 * 8 * 1_000_000_000 / rate;
        self.link_free = self.link_free.max(now)
            + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(self.link_free)
    }

    /// True with probability `p`. Draws only where there is a question, so that a switched-off
    /// impairment does not change the others' course.
    fn happens(&mut self, p: f64) -> bool {
        p > 0.0 && ((self.rng.next_u64() >> 11) as f64) < p * (1u64 << 53) as f64
    }

    /// Uniform in 0…`bound` − 1; 0 for a bound of 0.
    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        ((u128::from(self.rng.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` numbered datagrams of `size` bytes, one each millisecond, and returns
    /// what arrives and when (in µs).
    fn run(config: Config, seed: u64, count: u32, size: usize) -> (Vec<(u64, u32)>, Statistics) {
        let mut net = Netem::new(config, seed);
        for i in 0..count {
            let mut datagram = vec![0; size];
            datagram[..4].copy_from_slice(&i.to_be_bytes());
            net.push(Instant::from_millis(u64::from(i)), datagram);
        }
        let mut out = Vec::new();
        while let Some(at) = net.poll_timeout() {
            assert!(at == Instant::ZERO || net.poll(at.offset_micros(-1)).is_none());
            while let Some(d) = net.poll(at) {
                out.push((at.as_micros(), u32::from_be_bytes([d[0], d[1], d[2], d[3]])));
            }
        }
        (out, net.statistics())
    }

    #[test]
    fn a_path_without_impairment_passes_everything_at_once_and_in_order() {
        let (out, statistics) = run(Config::default(), 1, 100, 100);
        let expected: Vec<_> = (0..100).map(|i| (u64::from(i) * 1000, i)).collect();
        assert_eq!(out, expected);
        assert_eq!(
            statistics,
            Statistics {
                pushed: 100,
                delivered: 100,
                ..Statistics::default()
            }
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_course_and_another_seed_another() {
        let config = Config {
            loss: 0.1,
            burst_loss: Some(BurstLoss {
                enter: 0.01,
                leave: 0.3,
                loss: 0.9,
            }),
            reorder: 0.05,
            reorder_delay: Duration::from_millis(5),
            duplicate: 0.02,
            corrupt: 0.01,
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(3),
            rate_limit: Some(RateLimit {
                bits_per_second: 2_000_000,
                queue_bytes: 10_000,
            }),
        };
        assert_eq!(run(config, 7, 5_000, 200), run(config, 7, 5_000, 200));
        assert_ne!(run(config, 7, 5_000, 200).0, run(config, 8, 5_000, 200).0);
    }

    #[test]
    fn loss_has_the_rate_that_was_asked_for() {
        let (out, statistics) = run(
            Config {
                loss: 0.1,
                ..Config::default()
            },
            3,
            100_000,
            4,
        );
        assert_eq!(out.len() as u64 + statistics.lost, 100_000);
        assert!(
            (9_500..10_500).contains(&statistics.lost),
            "{}",
            statistics.lost
        );
    }

    #[test]
    fn bursts_lose_datagrams_in_a_row() {
        let burst_loss = Some(BurstLoss {
            enter: 0.01,
            leave: 0.1,
            loss: 1.0,
        });
        let (out, statistics) = run(
            Config {
                burst_loss,
                ..Config::default()
            },
            3,
            100_000,
            4,
        );
        let bursts = out.windows(2).filter(|w| w[1].1 - w[0].1 > 1).count() as f64;
        let mean = statistics.lost as f64 / bursts;
        assert!(
            (8.5..11.5).contains(&mean),
            "a burst lasts ten datagrams, not {mean}"
        );
    }

    #[test]
    fn jitter_delays_within_its_bound_and_keeps_the_order() {
        let config = Config {
            delay: Duration::from_millis(30),
            jitter: Duration::from_millis(10),
            ..Config::default()
        };
        let (out, _) = run(config, 5, 10_000, 4);
        assert!(out.windows(2).all(|w| w[0].1 + 1 == w[1].1));
        for (at, i) in out {
            let delay = at - u64::from(i) * 1000;
            assert!((30_000..40_000).contains(&delay), "{delay}");
        }
    }

    #[test]
    fn reordered_datagrams_come_later_than_their_successors() {
        let config = Config {
            reorder: 0.1,
            reorder_delay: Duration::from_micros(2_500),
            ..Config::default()
        };
        let (out, statistics) = run(config, 5, 10_000, 4);
        let late = out.windows(2).filter(|w| w[1].1 < w[0].1).count() as u64;
        assert_eq!(out.len(), 10_000);
        assert!((900..1_100).contains(&statistics.reordered) && late > 800);
    }

    #[test]
    fn duplicates_and_corruption_are_counted_as_they_happen() {
        let config = Config {
            duplicate: 0.2,
            corrupt: 0.2,
            ..Config::default()
        };
        let mut net = Netem::new(config, 9);
        for _ in 0..1_000 {
            net.push(Instant::ZERO, vec![0; 50]);
        }
        net.push(Instant::ZERO, Vec::new());
        let (mut all, mut bits) = (0, 0);
        while let Some(d) = net.poll(Instant::ZERO) {
            all += 1;
            bits += d.iter().map(|b| b.count_ones()).sum::<u32>();
        }
        let s = net.statistics();
        assert_eq!(all, 1_001 + s.duplicated);
        assert!((150..250).contains(&s.duplicated) && (150..250).contains(&s.corrupted));
        assert!(u64::from(bits) >= s.corrupted);
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_what_its_queue_cannot_hold() {
        let limit = RateLimit {
            bits_per_second: 8_000_000,
            queue_bytes: 5_000,
        };
        let config = Config {
            rate_limit: Some(limit),
            ..Config::default()
        };
        let mut net = Netem::new(config, 1);
        for _ in 0..10 {
            net.push(Instant::ZERO, vec![0; 1_000]);
        }
        assert_eq!((net.statistics().overflowed, net.in_flight()), (5, 5));
        let mut times = Vec::new();
        while let Some(at) = net.poll_timeout() {
            net.poll(at);
            times.push(at.as_micros());
        }
        assert_eq!(times, [1_000, 2_000, 3_000, 4_000, 5_000]);
    }
}
