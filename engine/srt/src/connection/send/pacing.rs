//! LiveCC (spec section 15): the time between two departures, from the bandwidth that is set or
//! from the rate at which payloads are submitted. Called by the sender for each payload that is
//! submitted and each packet that leaves; costs nothing where no bandwidth is set.

use core::time::Duration;

use mirror_base::Instant;

use crate::config::{Config, HEADERS_LEN, InputBandwidth};

/// Unused pacing credit at the most: a sender that was held up for longer does not burst.
const CREDIT: Duration = Duration::from_millis(20);
/// Bytes a second that congestion warnings leave at the least.
const LEAST_BANDWIDTH: u64 = 10_000;
/// Congestion warnings that count between two ACKs: 1.125^16 is 6.6.
const MAX_WARNINGS: u32 = 16;
/// Periods of the measurement of the input rate; the first one also ends with so many packets.
const FIRST_PERIOD: Duration = Duration::from_millis(500);
const FIRST_PERIOD_PACKETS: u64 = 2000;
const PERIOD: Duration = Duration::from_secs(1);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Pacer {
    max: u64,
    input: InputBandwidth,
    /// Per cent of the input's bandwidth, 100 and more.
    percent: u64,
    /// Bytes a second at present; 0 unlimited.
    bandwidth: u64,
    /// Running average of payload sizes, 1/128 bytes.
    average_payload: u64,
    next_send: Instant,
    warnings: u32,

    measured_from: Option<Instant>,
    bytes: u64,
    packets: u64,
    /// Bytes a second submitted; `None` until the first period has passed.
    rate: Option<u64>,
}

impl Pacer {
    pub(super) fn new(config: &Config, payload_size: u64) -> Self {
        let mut pacer = Pacer {
            max: config.max_bandwidth,
            input: config.input_bandwidth,
            percent: 100 + u64::from(config.overhead_percent.clamp(5, 100)),
            bandwidth: 0,
            average_payload: payload_size * 128,
            next_send: Instant::ZERO,
            warnings: 0,
            measured_from: None,
            bytes: 0,
            packets: 0,
            rate: None,
        };
        pacer.work_out();
        pacer
    }

    /// The table of spec section 15.
    fn work_out(&mut self) {
        let with_overhead = |rate: u64| rate.saturating_mul(self.percent) / 100;
        self.bandwidth = match self.input {
            _ if self.max > 0 => self.max,
            InputBandwidth::Unlimited => 0,
            InputBandwidth::Fixed(rate) => with_overhead(rate),
            // Until the rate is known nothing is held up.
            InputBandwidth::Measured { least } => {
                self.rate.map_or(0, |rate| with_overhead(rate.max(least)))
            }
        };
    }

    /// A payload of `len` bytes was submitted.
    #[inline]
    pub(super) fn submitted(&mut self, now: Instant, len: usize) {
        self.bytes += len as u64 + HEADERS_LEN;
        self.packets += 1;
        let period = if self.rate.is_some() {
            PERIOD
        } else {
            FIRST_PERIOD
        };
        let from = *self.measured_from.get_or_insert(now);
        let enough = self.rate.is_none() && self.packets >= FIRST_PERIOD_PACKETS;
        if now >= from + period || enough {
            self.measure(now, from, period);
        }
    }

    #[cold]
    fn measure(&mut self, now: Instant, from: Instant, period: Duration) {
        let elapsed = now.micros_since(from);
        // A pause says nothing of the rate at which the input comes when it comes.
        if elapsed > 0 && now < from + 2 * period {
            self.rate = Some(self.bytes.saturating_mul(1_000_000) / elapsed);
            self.work_out();
        }
        self.measured_from = Some(now);
        self.bytes = 0;
        self.packets = 0;
    }

    /// Congestion warning (spec section 1.2): the interval grows by an eighth, until the next ACK.
    pub(super) fn slow_down(&mut self) {
        self.warnings = (self.warnings + 1).min(MAX_WARNINGS);
    }

    /// An ACK: the interval is worked out afresh.
    pub(super) const fn acknowledged(&mut self) {
        self.warnings = 0;
    }

    #[inline]
    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.bandwidth == 0 || now >= self.next_send
    }

    /// When the next packet may leave.
    #[inline]
    pub(super) const fn next_send(&self) -> Instant {
        self.next_send
    }

    /// A packet with `len` bytes of payload leaves.
    #[inline]
    pub(super) fn sent(&mut self, now: Instant, len: u64) {
        // average = (127·average + len) / 128, in 1/128 bytes
        self.average_payload = self.average_payload - self.average_payload / 128 + len;
        if self.bandwidth > 0 {
            let from = self.next_send.max(now.saturating_sub(CREDIT));
            self.next_send = from + self.interval();
        }
    }

    /// Time between two departures; zero when nothing is paced.
    pub(super) fn interval(&self) -> Duration {
        if self.bandwidth == 0 {
            return Duration::ZERO;
        }
        let bytes = self.average_payload / 128 + HEADERS_LEN;
        let mut bandwidth = self.bandwidth;
        for _ in 0..self.warnings {
            bandwidth = bandwidth.saturating_mul(8) / 9;
        }
        let least = LEAST_BANDWIDTH.min(self.bandwidth);
        Duration::from_nanos(1_000_000_000 * bytes / bandwidth.max(least).max(1))
    }

    /// Bytes a second at present; 0 unlimited.
    pub(super) const fn bandwidth(&self) -> u64 {
        self.bandwidth
    }

    /// Bytes a second submitted; 0 until measured.
    pub(super) fn input_rate(&self) -> u64 {
        self.rate.unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pacer(config: &Config) -> Pacer {
        Pacer::new(config, 1316)
    }

    #[test]
    fn the_bandwidth_follows_the_table() {
        let with = |max_bandwidth, input_bandwidth| {
            let config = Config {
                max_bandwidth,
                input_bandwidth,
                ..Config::default()
            };
            pacer(&config).bandwidth()
        };
        assert_eq!(with(0, InputBandwidth::Unlimited), 0);
        assert_eq!(with(500_000, InputBandwidth::Fixed(1)), 500_000);
        assert_eq!(with(0, InputBandwidth::Fixed(1_000_000)), 1_250_000);
        assert_eq!(with(0, InputBandwidth::Measured { least: 9 }), 0);
        let config = Config {
            input_bandwidth: InputBandwidth::Fixed(1_000_000),
            overhead_percent: 1,
            ..Config::default()
        };
        assert_eq!(pacer(&config).bandwidth(), 1_050_000, "5 % at the least");
    }

    #[test]
    fn the_input_rate_is_measured_and_pauses_do_not_count() {
        let config = Config {
            input_bandwidth: InputBandwidth::Measured { least: 0 },
            ..Config::default()
        };
        let mut pacer = pacer(&config);
        let at = |pacer: &mut Pacer, from: u64| {
            for ms in 0..3000 {
                pacer.submitted(Instant::from_millis(from + ms), 956);
            }
        };
        at(&mut pacer, 1_000);
        assert!((999_000..=1_001_000).contains(&pacer.input_rate()));
        assert!((1_248_000..=1_252_000).contains(&pacer.bandwidth()));
        at(&mut pacer, 60_000);
        assert!((999_000..=1_001_000).contains(&pacer.input_rate()));
    }

    #[test]
    fn congestion_warnings_stretch_the_interval_until_the_next_ack() {
        let config = Config {
            max_bandwidth: 1_360_000,
            ..Config::default()
        };
        let mut pacer = pacer(&config);
        assert_eq!(pacer.interval(), Duration::from_millis(1));
        pacer.slow_down();
        assert_eq!(pacer.interval().as_micros(), 1125);
        for _ in 0..1000 {
            pacer.slow_down();
        }
        assert!((6..8).contains(&pacer.interval().as_millis()));
        pacer.acknowledged();
        assert_eq!(pacer.interval(), Duration::from_millis(1));
    }
}
