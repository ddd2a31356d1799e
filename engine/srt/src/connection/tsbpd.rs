//! Timestamp-based packet delivery: the peer's clock as ours sees it (spec section 12).

use core::time::Duration;
use mirror_base::Instant;

/// Spec section 12.3: the period before and after a wrap in which it is decided.
const WRAP_US: u32 = 30_000_000;
const TURN_US: i64 = 1 << 32;
/// Spec section 12.4.
const DRIFT_SPAN: u32 = 1000;
const MAX_DRIFT_US: i64 = 5000;
/// A sample beyond this is no drift: it is kept out.
const DRIFT_SAMPLE_LIMIT_US: i64 = 10_000_000;
/// How exactly a turn must lie between the peer's clock and ours to be one that was missed.
const TURN_LIMIT_US: i64 = 2_000_000;
/// A present timestamp lies at most so far ahead of the peer's clock, and so far behind it in
/// addition to the latency (spec section 13: a sender keeps packets for a second and 20 ms).
const PRESENT_AHEAD_US: i64 = 500_000;
const PRESENT_BEHIND_US: i64 = 1_500_000;
/// Spec section 22: nothing is held longer after its arrival than latency + this.
const CLAMP_US: i64 = 5_000_000;
/// Our clock does not reach this in a century.
const ANCHOR_LIMIT_NS: i64 = 1 << 62;

/// Maps the peer's timestamps to our clock.
#[derive(Debug)]
pub(crate) struct TimeBase {
    /// Tbase: our clock, µs, when the peer's timestamp was 0 (this turn).
    base_us: i64,
    delay_us: i64,
    drift_us: i64,
    /// Tbase + delay + drift, ns: what a packet costs should not be three conversions.
    anchor_ns: i64,
    /// At most [`ANCHOR_LIMIT_NS`].
    limit_ns: u64,
    wrapping: bool,
    /// [`TimeBase::straight`] is some.
    is_straight: bool,
    /// Timestamps up to this one are not worth a look.
    quiet_until: u32,
    drift_sum_us: i64,
    drift_samples: u32,
}

impl TimeBase {
    /// `arrival` and `timestamp` of the packet with HSREQ or HSRSP (spec section 12.1).
    pub(crate) fn new(arrival: Instant, timestamp: u32, delay: Duration) -> Self {
        let delay_us = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        let limit_us = delay_us.saturating_add(CLAMP_US).unsigned_abs();
        let mut time = TimeBase {
            base_us: micros(arrival) - i64::from(timestamp),
            delay_us,
            drift_us: 0,
            anchor_ns: 0,
            limit_ns: limit_us
                .saturating_mul(1_000)
                .min(ANCHOR_LIMIT_NS.unsigned_abs()),
            is_straight: false,
            // The handshake may come just before a wrap, and the first data behind it.
            wrapping: timestamp > u32::MAX - WRAP_US,
            quiet_until: Self::quiet(timestamp > u32::MAX - WRAP_US),
            drift_sum_us: 0,
            drift_samples: 0,
        };
        time.set_anchor();
        time
    }

    /// The latency.
    pub(crate) const fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_us.unsigned_abs())
    }

    /// Base, delay or drift has changed.
    const fn set_anchor(&mut self) {
        let anchor = self
            .base_us
            .saturating_add(self.delay_us)
            .saturating_add(self.drift_us)
            .saturating_mul(1_000);
        // A timestamp and the turn add less than 2^44 ns to it, and must not overflow.
        self.anchor_ns = if anchor > ANCHOR_LIMIT_NS {
            ANCHOR_LIMIT_NS
        } else {
            anchor
        };
        self.set_straight();
    }

    const fn set_straight(&mut self) {
        self.is_straight = !self.wrapping && self.anchor_ns >= 0;
    }

    /// A data packet with this timestamp has been received: follows the wrap.
    #[inline]
    pub(crate) fn observe(&mut self, timestamp: u32, arrival: Instant) {
        if self.has_to_observe(timestamp) {
            self.follow_wrap(timestamp, arrival);
        }
    }

    /// Whether [`TimeBase::observe`] may have something to do; 0 never changes anything.
    #[inline]
    pub(crate) const fn has_to_observe(&self, timestamp: u32) -> bool {
        timestamp > self.quiet_until
    }

    const fn set_wrapping(&mut self, wrapping: bool) {
        self.wrapping = wrapping;
        self.quiet_until = Self::quiet(wrapping);
        self.set_straight();
    }

    const fn quiet(wrapping: bool) -> u32 {
        if wrapping { 0 } else { u32::MAX - WRAP_US }
    }

    #[cold]
    fn follow_wrap(&mut self, timestamp: u32, arrival: Instant) {
        if self.wrapping {
            if (WRAP_US..=2 * WRAP_US).contains(&timestamp) {
                self.base_us = self.base_us.saturating_add(TURN_US);
                self.set_wrapping(false);
                self.set_anchor();
            }
        } else if micros(arrival).saturating_sub(self.base_us) > TURN_US / 2 {
            // Believed only when our own clock says that the turn nears its end: a forged
            // timestamp must not shift the base (spec section 22).
            self.set_wrapping(true);
        }
    }

    /// What the turn that the wrap began adds to a timestamp, µs.
    #[inline]
    const fn carry_us(&self, timestamp: u32) -> i64 {
        if self.wrapping {
            Self::carry_over(timestamp)
        } else {
            0
        }
    }

    #[cold]
    const fn carry_over(timestamp: u32) -> i64 {
        if timestamp <= 2 * WRAP_US { TURN_US } else { 0 }
    }

    /// The peer's moment `timestamp` on our clock, before delay and drift, µs.
    fn local_us(&self, timestamp: u32) -> i64 {
        self.base_us + self.carry_us(timestamp) + i64::from(timestamp)
    }

    /// When the packet is due: T = Tbase + ts + delay + drift, clamped to latency + 5 s after
    /// its arrival.
    #[inline]
    pub(crate) fn due(&self, timestamp: u32, arrival: Instant) -> Instant {
        let since_us = self.carry_us(timestamp) + i64::from(timestamp);
        let due = (self.anchor_ns + since_us * 1_000).max(0);
        let clamp = arrival.as_nanos().saturating_add(self.limit_ns);
        Instant::from_nanos(due.unsigned_abs().min(clamp))
    }

    /// [`TimeBase::due`] of a run of packets, as long as nothing else happens; `None` around a
    /// turn of the peer's clock, where each packet has to be looked at.
    #[inline]
    pub(crate) const fn straight(&self) -> Option<Straight> {
        if !self.is_straight {
            return None;
        }
        Some(Straight {
            anchor_ns: self.anchor_ns.cast_unsigned(),
            limit_ns: self.limit_ns,
        })
    }

    /// Whether `timestamp` is about the peer's present time, whatever turn its clock is in: a
    /// packet may be a retransmission, or have waited at the sender for as long as that keeps any,
    /// which is for ever if it `keeps_all`.
    pub(crate) fn is_present(&self, timestamp: u32, arrival: Instant, keeps_all: bool) -> bool {
        let age = micros(arrival)
            .saturating_sub(self.base_us)
            .saturating_sub(i64::from(timestamp))
            .saturating_sub(self.drift_us);
        // Into half a turn around 0.
        let age = (age + TURN_US / 2).rem_euclid(TURN_US) - TURN_US / 2;
        let oldest = if keeps_all {
            TURN_US / 2
        } else {
            self.delay_us + PRESENT_BEHIND_US
        };
        (-PRESENT_AHEAD_US..=oldest).contains(&age)
    }

    /// A control packet with `timestamp` arrived: when it lies a whole turn beside our clock, data
    /// paused over the wrap and nobody followed it (spec section 12.3 looks at data only). True
    /// when the due times of all packets have changed.
    pub(crate) fn follow_turn(&mut self, arrival: Instant, timestamp: u32) -> bool {
        let beside = micros(arrival) - self.local_us(timestamp);
        // Forward only, and only when our own clock says that the turn is over: a forged
        // timestamp must not shift the base (spec section 22).
        if (beside - TURN_US).abs() > TURN_LIMIT_US {
            return false;
        }
        self.base_us += TURN_US;
        self.set_wrapping(false);
        self.set_anchor();
        true
    }

    /// A packet with `timestamp` arrived; `excess_rtt_us` is (rtt − first RTT) / 2. True when
    /// the due times of all packets have changed.
    pub(crate) fn sample_drift(
        &mut self,
        arrival: Instant,
        timestamp: u32,
        excess_rtt_us: i64,
    ) -> bool {
        let sample = micros(arrival) - self.local_us(timestamp) - excess_rtt_us;
        if sample.abs() > DRIFT_SAMPLE_LIMIT_US {
            return self.follow_turn(arrival, timestamp);
        }
        self.trace(sample)
    }

    fn trace(&mut self, sample_us: i64) -> bool {
        self.drift_sum_us += sample_us;
        self.drift_samples += 1;
        if self.drift_samples < DRIFT_SPAN {
            return false;
        }
        let mean = self.drift_sum_us / i64::from(DRIFT_SPAN);
        self.drift_sum_us = 0;
        self.drift_samples = 0;
        let shift = if mean.abs() > MAX_DRIFT_US {
            MAX_DRIFT_US * mean.signum()
        } else {
            0
        };
        self.base_us += shift;
        self.drift_us = mean - shift;
        self.set_anchor();
        true
    }

    /// The present drift, µs.
    pub(crate) const fn drift_us(&self) -> i64 {
        self.drift_us
    }
}

/// See [`TimeBase::straight`].
#[derive(Clone, Copy)]
pub(crate) struct Straight {
    anchor_ns: u64,
    limit_ns: u64,
}

impl Straight {
    #[inline]
    pub(crate) const fn due(self, timestamp: u32, arrival: Instant) -> Instant {
        // Anchor and limit are at most 2^62: nothing wraps in centuries.
        let due = self.anchor_ns.wrapping_add(timestamp as u64 * 1_000);
        let clamp = arrival.as_nanos().wrapping_add(self.limit_ns);
        Instant::from_nanos(if due < clamp { due } else { clamp })
    }
}

fn micros(at: Instant) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::test_support::vectors;

    fn base() -> TimeBase {
        TimeBase::new(
            Instant::from_micros(1_000_000),
            0,
            Duration::from_millis(120),
        )
    }

    #[test]
    fn delivery_times_follow_the_vectors_over_the_wrap() {
        let v = vectors("srt_tsbpd.json");
        let mut time = base();
        for row in v["rows"].as_array().unwrap() {
            let ts = u32::try_from(row["ts"].as_u64().unwrap()).unwrap();
            let due = row["deliver_at_us"].as_u64().unwrap();
            let arrival = Instant::from_micros(due - 119_000);
            time.observe(ts, arrival);
            assert_eq!(time.wrapping, row["wrap_mode"].as_bool().unwrap(), "{row}");
            assert_eq!(time.base_us, row["base"].as_i64().unwrap(), "{row}");
            assert_eq!(time.due(ts, arrival).as_micros(), due, "{row}");
            let straight = time.straight().map(|s| s.due(ts, arrival).as_micros());
            assert_eq!(straight, (!time.wrapping).then_some(due), "{row}");
        }
    }

    #[test]
    fn drift_follows_the_vectors() {
        let v = vectors("srt_tsbpd.json");
        for row in v["drift_tracer"].as_array().unwrap() {
            let mut time = base();
            let sample = row["constant_sample_us"].as_i64().unwrap();
            let changes = (0..1000).filter(|_| time.trace(sample)).count();
            assert_eq!(changes, 1);
            assert_eq!(
                time.drift_us(),
                row["after_1000_samples_drift_us"].as_i64().unwrap()
            );
            assert_eq!(
                time.base_us - 1_000_000,
                row["base_shift_us"].as_i64().unwrap()
            );
        }
    }

    #[test]
    fn a_wrap_during_a_pause_of_the_data_is_followed_by_control_packets() {
        let turn = 1_u64 << 32;
        let mut time = base();
        // Data stopped a minute before the wrap, and comes again a minute behind it.
        let (timestamp, sent) = (60_000_000_u32, 1_000_000 + turn + 60_000_000);
        let arrival = Instant::from_micros(sent);
        assert!(time.follow_turn(arrival, timestamp));
        assert!(!time.follow_turn(arrival, timestamp), "once");
        let data = timestamp + 1_000;
        time.observe(data, arrival);
        assert_eq!(time.due(data, arrival).as_micros(), sent + 1_000 + 120_000);
        // Or only the end of the wrap was missed.
        let mut time = base();
        let before = u32::MAX - 10_000_000;
        time.observe(before, Instant::from_micros(1_000_000 + u64::from(before)));
        assert!(time.wrapping);
        assert!(time.follow_turn(arrival + Duration::from_secs(40), timestamp + 40_000_000));
        assert!(!time.wrapping);
    }

    #[test]
    fn a_wrap_between_handshake_and_first_data_is_followed() {
        let handshake = Instant::from_micros(1_000_000);
        let mut time = TimeBase::new(handshake, u32::MAX - 499_999, Duration::from_millis(120));
        let arrival = handshake + Duration::from_micros(700_000);
        time.observe(200_000, arrival);
        assert_eq!(
            time.due(200_000, arrival),
            arrival + Duration::from_millis(120)
        );
    }

    #[test]
    fn a_timestamp_that_is_neither_near_nor_a_turn_away_moves_nothing() {
        let mut time = base();
        for timestamp in [1 << 31, u32::MAX, 500_000_000] {
            assert!(!time.follow_turn(Instant::from_micros(2_000_000), timestamp));
        }
    }

    #[test]
    fn a_present_timestamp_is_told_from_others_in_any_turn() {
        let time = base();
        for turn in 0..3 {
            let now = (turn << 32) + 1_000_000 + 50_000_000;
            let arrival = Instant::from_micros(now);
            assert!(time.is_present(50_000_000, arrival, false), "turn {turn}");
            assert!(time.is_present(49_000_000, arrival, false));
            assert!(time.is_present(50_400_000, arrival, false));
            assert!(!time.is_present(48_000_000, arrival, false));
            assert!(
                time.is_present(48_000_000, arrival, true),
                "as old as it may be"
            );
            assert!(!time.is_present(51_000_000, arrival, true));
            assert!(!time.is_present(51_000_000, arrival, false));
            assert!(!time.is_present(50_000_000 + (1 << 31), arrival, false));
        }
    }

    #[test]
    fn a_timestamp_far_ahead_is_clamped_and_cannot_start_a_wrap() {
        let mut time = base();
        let arrival = Instant::from_micros(2_000_000);
        time.observe(u32::MAX, arrival);
        assert!(!time.wrapping);
        assert_eq!(
            time.due(u32::MAX, arrival).as_micros(),
            2_000_000 + 120_000 + 5_000_000
        );
        time.observe(WRAP_US + 1, arrival);
        assert_eq!(time.base_us, 1_000_000);
    }
}
