//! What networks do to datagrams, sans-IO: loss (independent, in bursts, every n-th, in
//! outages), reordering, duplication, corruption, delay, jitter and a bottleneck with a queue.
//! The load generator puts it before its sockets, its relay between two programs, the simulation
//! between its hosts.
//!
//! One [`Netem`] is one direction of one path. All randomness comes from its seed: the same
//! pushes give the same datagrams at the same times. What is on its way is bounded by
//! [`MAX_IN_FLIGHT`].

mod config;

use core::cmp::Ordering;
use core::time::Duration;
use std::collections::BinaryHeap;

use mirror_base::Instant;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

pub use config::{BurstLoss, Config, Outage, RateLimit, Statistics};

/// Datagrams that may be on their way in one direction; what comes beyond is lost.
pub const MAX_IN_FLIGHT: usize = 1 << 17;

/// The longest that a datagram waits to be overtaken where no other time is set.
pub const HOLD_LIMIT: Duration = Duration::from_millis(200);

/// Datagrams that may wait to be overtaken at once.
const MAX_HELD: usize = 256;

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

/// A datagram that waits to be overtaken.
#[derive(Debug)]
struct Held {
    /// How many have yet to pass it.
    remaining: u32,
    /// It arrives then in any case.
    deadline: Instant,
    copies: u32,
    datagram: Vec<u8>,
}

/// One direction of a path. See the crate's page.
#[derive(Debug)]
pub struct Netem {
    config: Config,
    rng: ChaCha8Rng,
    path_is_bad: bool,
    /// When the first datagram was sent: outages count from there.
    begin: Option<Instant>,
    /// When the bottleneck will have sent everything.
    link_free: Instant,
    /// The latest arrival so far of a datagram that was not held back.
    last_arrival: Instant,
    in_flight: BinaryHeap<InFlight>,
    held: Vec<Held>,
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
            begin: None,
            link_free: Instant::ZERO,
            last_arrival: Instant::ZERO,
            in_flight: BinaryHeap::new(),
            held: Vec::new(),
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
        if self.is_lost(now) {
            self.statistics.lost += 1;
            return;
        }
        if self.in_flight() >= MAX_IN_FLIGHT {
            self.statistics.overflowed += 1;
            return;
        }
        let Some(sent) = self.pass_bottleneck(now, datagram.len()) else {
            self.statistics.overflowed += 1;
            return;
        };
        self.corrupt(&mut datagram);
        let jitter = self.below(nanos(self.config.jitter));
        let mut at = sent + self.config.delay + Duration::from_nanos(jitter);
        let reordered = self.happens(self.config.reorder);
        let copies = 1 + u32::from(self.happens(self.config.duplicate));
        self.statistics.duplicated += u64::from(copies - 1);
        self.statistics.reordered += u64::from(reordered);
        if reordered && self.config.reorder_packets > 0 && self.held.len() < MAX_HELD {
            self.hold(at, copies, datagram);
        } else if reordered {
            at += self.config.reorder_delay;
            self.launch(at, copies, datagram);
        } else {
            at = at.max(self.last_arrival);
            self.last_arrival = at;
            self.launch(at, copies, datagram);
            self.overtake(at);
        }
        let most = &mut self.statistics.most_in_flight;
        *most = (*most).max((self.in_flight.len() + self.held.len()) as u64);
    }

    /// The next datagram that has arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.let_go(now);
        if self.in_flight.peek()?.at > now {
            return None;
        }
        self.statistics.delivered += 1;
        self.in_flight.pop().map(|f| f.datagram)
    }

    /// When the next datagram arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let held = self.held.iter().map(|h| h.deadline).min();
        let flying = self.in_flight.peek().map(|f| f.at);
        match (held, flying) {
            (Some(held), Some(flying)) => Some(held.min(flying)),
            (held, flying) => held.or(flying),
        }
    }

    /// Datagrams on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() + self.held.len()
    }

    /// What happened so far.
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    fn launch(&mut self, at: Instant, copies: u32, datagram: Vec<u8>) {
        for _ in 1..copies {
            self.launch_one(at, datagram.clone());
        }
        self.launch_one(at, datagram);
    }

    fn launch_one(&mut self, at: Instant, datagram: Vec<u8>) {
        self.order += 1;
        self.in_flight.push(InFlight {
            at,
            order: self.order,
            datagram,
        });
    }

    fn hold(&mut self, at: Instant, copies: u32, datagram: Vec<u8>) {
        let limit = match self.config.reorder_delay {
            Duration::ZERO => HOLD_LIMIT,
            limit => limit,
        };
        self.held.push(Held {
            remaining: self.config.reorder_packets,
            deadline: at + limit,
            copies,
            datagram,
        });
    }

    /// A datagram that arrives at `at` has passed those that are held back.
    fn overtake(&mut self, at: Instant) {
        let mut i = 0;
        while let Some(held) = self.held.get_mut(i) {
            held.remaining = held.remaining.saturating_sub(1);
            if held.remaining == 0 {
                let held = self.held.remove(i);
                self.launch(at, held.copies, held.datagram);
            } else {
                i += 1;
            }
        }
    }

    /// Nobody overtook these in time.
    fn let_go(&mut self, now: Instant) {
        while let Some(i) = self.held.iter().position(|h| h.deadline <= now) {
            let held = self.held.remove(i);
            self.launch(held.deadline, held.copies, held.datagram);
        }
    }

    fn corrupt(&mut self, datagram: &mut [u8]) {
        if self.happens(self.config.corrupt) && !datagram.is_empty() {
            let bit = self.below(datagram.len() as u64 * 8);
            if let Some(byte) = datagram.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
            self.statistics.corrupted += 1;
        }
    }

    fn is_lost(&mut self, now: Instant) -> bool {
        let begin = *self.begin.get_or_insert(now);
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
        if let Some(n) = self.config.drop_every {
            lost |= self.statistics.pushed.is_multiple_of(u64::from(n.get()));
        }
        if let Some(outage) = self.config.outage {
            lost |= outage.covers(now.saturating_since(begin));
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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
