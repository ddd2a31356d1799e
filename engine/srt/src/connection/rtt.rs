//! Round-trip time: the smoothing of spec section 10.4, and the window that matches ACKACKs to
//! the ACKs they confirm.

use core::time::Duration;
use mirror_base::Instant;

use crate::statistics::Statistics;

/// Spec section 10.4: before any sample.
const INITIAL_US: u32 = 100_000;
const INITIAL_VAR_US: u32 = 50_000;
/// No sample is longer: an ACKACK that late says nothing of the path.
const MAX_SAMPLE_US: u64 = 10_000_000;
/// The recent samples are those of this period and of the one before.
const PERIOD: Duration = Duration::from_secs(1);
/// ACKs remembered (spec section 20).
const WINDOW: usize = 1024;

/// Smoothed round-trip time and its variance, µs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    pub(crate) smoothed_us: u32,
    pub(crate) variance_us: u32,
    /// The first sample that was measured here (the drift tracer's reference).
    pub(crate) first_us: Option<u32>,
    /// Whether anything was measured, here or by the peer.
    is_known: bool,
    all: Spread,
    /// Of the period that runs, and of the one before it.
    periods: [Spread; 2],
    period_end: Instant,
}

/// Least, mean and most of some samples.
#[derive(Clone, Copy, Debug)]
struct Spread {
    least_us: u32,
    most_us: u32,
    sum_us: u64,
    samples: u64,
}

impl Spread {
    const fn new() -> Self {
        Spread {
            least_us: u32::MAX,
            most_us: 0,
            sum_us: 0,
            samples: 0,
        }
    }

    fn note(&mut self, x: u32) {
        self.least_us = self.least_us.min(x);
        self.most_us = self.most_us.max(x);
        self.sum_us = self.sum_us.saturating_add(x.into());
        self.samples += 1;
    }

    fn and(self, other: Spread) -> Spread {
        Spread {
            least_us: self.least_us.min(other.least_us),
            most_us: self.most_us.max(other.most_us),
            sum_us: self.sum_us.saturating_add(other.sum_us),
            samples: self.samples + other.samples,
        }
    }

    /// Least, mean and most; zeros without samples.
    fn figures(&self) -> (u32, u32, u32) {
        let mean = self.sum_us.checked_div(self.samples);
        mean.map_or((0, 0, 0), |mean| {
            let mean = u32::try_from(mean).unwrap_or(u32::MAX);
            (self.least_us, mean, self.most_us)
        })
    }
}

impl Rtt {
    pub(crate) const fn new() -> Self {
        Rtt {
            smoothed_us: INITIAL_US,
            variance_us: INITIAL_VAR_US,
            first_us: None,
            is_known: false,
            all: Spread::new(),
            periods: [Spread::new(); 2],
            period_end: Instant::ZERO,
        }
    }

    /// Takes a sample that was measured here.
    pub(crate) fn sample(&mut self, now: Instant, sample_us: u64) -> u32 {
        let x = u32::try_from(sample_us.min(MAX_SAMPLE_US)).unwrap_or(u32::MAX);
        self.note(now, x);
        self.first_us.get_or_insert(x);
        if self.is_known {
            self.smooth(x);
        } else {
            self.smoothed_us = x;
            self.variance_us = x / 2;
            self.is_known = true;
        }
        x
    }

    /// Integer arithmetic as libsrt's, the variance first.
    const fn smooth(&mut self, x: u32) {
        self.variance_us = (3 * self.variance_us + self.smoothed_us.abs_diff(x)) / 4;
        self.smoothed_us = (7 * self.smoothed_us + x) / 8;
    }

    /// What the peer measured (spec section 10.3), within the bounds of a sample: taken over by a
    /// side that only sends, else one more sample; never the drift tracer's reference, which is
    /// measured here.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        rtt_us: u32,
        variance_us: u32,
        only_sending: bool,
    ) {
        // libsrt ignores the peer's initial values.
        if (rtt_us, variance_us) == (INITIAL_US, INITIAL_VAR_US) {
            return;
        }
        let x = rtt_us.min(MAX_SAMPLE_US as u32);
        if self.is_known && !only_sending {
            self.smooth(x);
        } else {
            self.smoothed_us = x;
            self.variance_us = variance_us.min(MAX_SAMPLE_US as u32);
            self.is_known = true;
        }
        self.note(now, x);
    }

    fn note(&mut self, now: Instant, x: u32) {
        if now >= self.period_end {
            let [present, _] = self.periods;
            // Without samples for longer than a period there is none before this one.
            let followed = now < self.period_end + PERIOD;
            self.periods = [
                Spread::new(),
                if followed { present } else { Spread::new() },
            ];
            self.period_end = now + PERIOD;
        }
        self.all.note(x);
        let [present, _] = &mut self.periods;
        present.note(x);
    }

    /// Figures of the moment.
    pub(crate) fn fill(&self, stats: &mut Statistics) {
        stats.rtt_us = self.smoothed_us;
        stats.rtt_var_us = self.variance_us;
        let (least, mean, most) = self.all.figures();
        (stats.rtt_min_us, stats.rtt_avg_us, stats.rtt_max_us) = (least, mean, most);
        let [present, before] = self.periods;
        let (least, mean, most) = present.and(before).figures();
        stats.rtt_recent_min_us = least;
        stats.rtt_recent_avg_us = mean;
        stats.rtt_recent_max_us = most;
    }

    /// SRTT + 4·RTTVar: when an answer is overdue.
    pub(crate) fn timeout(&self) -> Duration {
        let us = u64::from(self.smoothed_us) + 4 * u64::from(self.variance_us);
        Duration::from_micros(us)
    }

    /// Spec section 11.3: the time between two NAKs of the whole list. While no round trip was
    /// measured, the initial values make it 150 ms; then it is `unmeasured` at the most.
    pub(crate) fn nak_interval(&self, least: Duration, unmeasured: Duration) -> Duration {
        let interval = self.timeout() / 2;
        if self.is_known {
            interval.max(least)
        } else {
            interval.min(unmeasured).max(least)
        }
    }

    /// Spec section 11.5: a packet (re)sent less than SRTT − 4·RTTVar ago may still be on its way.
    pub(crate) fn resend_guard(&self) -> Duration {
        let spread = u64::from(self.variance_us) * 4;
        Duration::from_micros(u64::from(self.smoothed_us).saturating_sub(spread))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct AckRecord {
    number: u32,
    /// Index up to which everything was acknowledged.
    position: u64,
    sent: Instant,
}

/// The last 1024 ACKs.
#[derive(Debug)]
pub(crate) struct AckWindow {
    records: Box<[AckRecord]>,
    last: u32,
}

/// What an ACKACK told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The ACK was sent then, and acknowledged everything before this index.
    Found(Instant, u64),
    /// Too old, or confirmed before.
    Forgotten,
    /// Never sent.
    Unknown,
}

impl AckWindow {
    pub(crate) fn new() -> Self {
        AckWindow {
            records: vec![AckRecord::default(); WINDOW].into_boxed_slice(),
            last: 0,
        }
    }

    /// Notes an ACK that leaves now; returns its number: 1, 2, 3 …
    pub(crate) fn record(&mut self, position: u64, sent: Instant) -> u32 {
        self.last = self.last.wrapping_add(1).max(1);
        let number = self.last;
        if let Some(record) = self.records.get_mut(number as usize % WINDOW) {
            *record = AckRecord {
                number,
                position,
                sent,
            };
        }
        number
    }

    /// Takes the ACK with `number` out of the window.
    pub(crate) fn confirm(&mut self, number: u32) -> Confirmation {
        // Numbers wrap, after a year and more of ACKs.
        let ahead = number.wrapping_sub(self.last).cast_signed() > 0;
        if number == 0 || ahead {
            return Confirmation::Unknown;
        }
        match self.records.get_mut(number as usize % WINDOW) {
            Some(record) if record.number == number => {
                record.number = 0;
                Confirmation::Found(record.sent, record.position)
            }
            _ => Confirmation::Forgotten,
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::test_support::vectors;

    #[test]
    fn smoothing_follows_the_vectors() {
        let v = vectors("srt_ack.json");
        let mut rtt = Rtt::new();
        for row in v["rtt_smoothing"]["rows"].as_array().unwrap() {
            rtt.sample(Instant::ZERO, row[0].as_u64().unwrap());
            assert_eq!(u64::from(rtt.smoothed_us), row[1].as_u64().unwrap());
            assert_eq!(u64::from(rtt.variance_us), row[2].as_u64().unwrap());
        }
    }

    #[test]
    fn what_the_peer_has_not_measured_is_no_sample_and_never_the_drift_tracers_reference() {
        let mut rtt = Rtt::new();
        let at = Instant::ZERO;
        for only_sending in [true, false] {
            rtt.learn(at, INITIAL_US, INITIAL_VAR_US, only_sending);
            assert_eq!((rtt.first_us, rtt.is_known), (None, false));
        }
        rtt.learn(at, 24_000, 1_000, false);
        assert_eq!((rtt.smoothed_us, rtt.variance_us), (24_000, 1_000));
        rtt.sample(at, 32_000);
        assert_eq!((rtt.smoothed_us, rtt.first_us), (25_000, Some(32_000)));
        rtt.learn(at, 33_000, 1_000, false);
        assert_eq!((rtt.smoothed_us, rtt.first_us), (26_000, Some(32_000)));
    }

    #[test]
    fn an_ackack_confirms_its_ack_once_and_unknown_numbers_are_told_apart() {
        let mut window = AckWindow::new();
        let at = Instant::from_millis(5);
        let first = window.record(7, at);
        assert_eq!(first, 1);
        assert_eq!(window.confirm(1), Confirmation::Found(at, 7));
        assert_eq!(window.confirm(1), Confirmation::Forgotten);
        assert_eq!(window.confirm(2), Confirmation::Unknown);
        assert_eq!(window.confirm(0), Confirmation::Unknown);
        for i in 0..2000 {
            window.record(i, at);
        }
        assert_eq!(window.confirm(3), Confirmation::Forgotten);
        assert_eq!(window.confirm(2001), Confirmation::Found(at, 1999));
    }

    #[test]
    fn ack_numbers_wrap_without_using_0() {
        let mut window = AckWindow::new();
        window.last = u32::MAX - 1;
        let at = Instant::from_millis(5);
        let numbers: Vec<u32> = (0..3).map(|i| window.record(i, at)).collect();
        assert_eq!(numbers, [u32::MAX, 1, 2]);
        assert_eq!(window.confirm(u32::MAX), Confirmation::Found(at, 0));
        assert_eq!(window.confirm(2), Confirmation::Found(at, 2));
        assert_eq!(window.confirm(3), Confirmation::Unknown);
    }

    #[test]
    fn recent_round_trips_are_those_of_the_last_two_seconds() {
        let mut rtt = Rtt::new();
        let figures = |rtt: &Rtt| {
            let mut stats = Statistics::default();
            rtt.fill(&mut stats);
            let all = (stats.rtt_min_us, stats.rtt_avg_us, stats.rtt_max_us);
            let recent = (
                stats.rtt_recent_min_us,
                stats.rtt_recent_avg_us,
                stats.rtt_recent_max_us,
            );
            (all, recent)
        };
        assert_eq!(figures(&rtt), ((0, 0, 0), (0, 0, 0)));
        for second in 0..6 {
            for i in 0..10 {
                let at = Instant::from_millis(10_000 + second * 1000 + i * 100);
                rtt.sample(at, 1000 * (second + 1));
            }
        }
        assert_eq!(figures(&rtt), ((1000, 3500, 6000), (5000, 5500, 6000)));
        rtt.sample(Instant::from_millis(60_000), 9000);
        assert_eq!(figures(&rtt).1, (9000, 9000, 9000), "after a pause");
    }
}
