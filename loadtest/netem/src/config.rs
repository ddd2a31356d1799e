//! What a path may do to datagrams, as plain figures. Read by [`crate::Netem`]; filled in by the
//! load generator's options and by the simulation's seeds.

use core::num::NonZeroU32;
use core::time::Duration;

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

/// Times in which nothing passes: what is sent then is lost, what is on its way still arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the first one begins, after the path's first datagram.
    pub after: Duration,
    /// How long each lasts.
    pub length: Duration,
    /// From one's beginning to the next one's; `None`: there is only one.
    pub every: Option<Duration>,
}

impl Outage {
    /// Whether nothing passes at `elapsed` after the path's first datagram.
    pub fn covers(&self, elapsed: Duration) -> bool {
        let Some(since) = elapsed.checked_sub(self.after) else {
            return false;
        };
        let into = match self.every {
            Some(every) if !every.is_zero() => {
                Duration::from_nanos((since.as_nanos() % every.as_nanos()) as u64)
            }
            _ => since,
        };
        into < self.length
    }
}

/// What the path does. The default does nothing. Probabilities are 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Config {
    /// Each datagram is lost with this probability.
    pub loss: f64,
    /// Bursts of loss, besides.
    pub burst_loss: Option<BurstLoss>,
    /// Every n-th datagram is lost, besides: no chance in it.
    pub drop_every: Option<NonZeroU32>,
    /// Nothing passes now and then, besides.
    pub outage: Option<Outage>,
    /// Each datagram is held back with this probability: by [`Config::reorder_packets`], else by
    /// [`Config::reorder_delay`].
    pub reorder: f64,
    /// How much later a reordered datagram arrives; with `reorder_packets`, the longest that it
    /// waits for its successors (0: [`crate::HOLD_LIMIT`]).
    pub reorder_delay: Duration,
    /// A reordered datagram arrives after so many that were sent later; 0: `reorder_delay`
    /// decides.
    pub reorder_packets: u32,
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

impl Config {
    /// Whether the path does nothing at all.
    pub fn is_clean(&self) -> bool {
        *self == Config::default()
    }
}

/// What happened to the datagrams. At any time `pushed + duplicated` is `lost + overflowed +
/// delivered` and what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pushed.
    pub pushed: u64,
    /// Lost by chance, by count or in an outage.
    pub lost: u64,
    /// Lost as the bottleneck's queue, or the path, was full.
    pub overflowed: u64,
    /// Held back.
    pub reordered: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Changed.
    pub corrupted: u64,
    /// Handed out by [`crate::Netem::poll`], duplicates included.
    pub delivered: u64,
    /// The most that were on their way at once.
    pub most_in_flight: u64,
}
