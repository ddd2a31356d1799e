//! A sender's clock: RTP timestamps mapped to its wall clock by its sender reports (RFC 3550,
//! 6.4.1), and how fast that clock runs against ours. Streams of one CNAME share the wall
//! clock, so that audio and video can be aligned by it; its epoch may be any.

use core::time::Duration;

use mirror_base::Instant;

use crate::rtcp::SenderInfo;

/// Reports this far apart at least give a rate.
const MIN_BASELINE: Duration = Duration::from_secs(2);
/// A step of the sender's clock against ours that is no drift: it was set.
const MAX_STEP_NANOS: u64 = 500_000_000;
/// No oscillator is so wrong: such a rate is not believed.
const MAX_PPM: f64 = 5_000.0;
/// How much a new rate counts against what is known.
const RATE_GAIN: f64 = 0.25;

/// The sender's mapping of RTP timestamps to its wall clock.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ClockMap {
    /// NTP time of the last sender report: seconds since 1900 and their fraction, 32 bits each.
    pub ntp: u64,
    /// The RTP timestamp of that moment.
    pub rtp_timestamp: u32,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// When that report reached us.
    pub arrival: Instant,
    /// How much faster the sender's wall clock runs than ours, in parts per million.
    pub drift_ppm: f64,
    /// How much faster its RTP clock runs than its wall clock, in parts per million.
    pub media_ppm: f64,
}

/// Nanoseconds of an NTP time, since its epoch.
pub const fn ntp_nanos(ntp: u64) -> u64 {
    (ntp >> 32) * 1_000_000_000 + (((ntp & 0xFFFF_FFFF) * 1_000_000_000) >> 32)
}

/// Nanoseconds from `earlier` to `later`, across the wrap of NTP's seconds (in 2036).
fn ntp_difference_nanos(later: u64, earlier: u64) -> i64 {
    let distance = i128::from(later.wrapping_sub(earlier).cast_signed());
    i64::try_from((distance * 1_000_000_000) >> 32).unwrap_or(i64::MAX)
}

impl ClockMap {
    /// The sender's wall clock at `timestamp`, in nanoseconds since its epoch. `timestamp` lies
    /// within 2^31 units of the last report.
    pub fn wall_nanos(&self, timestamp: u32) -> u64 {
        let units = i64::from(timestamp.wrapping_sub(self.rtp_timestamp).cast_signed());
        let nanos = i128::from(units) * 1_000_000_000 / i128::from(self.clock_rate.max(1));
        let nanos = i64::try_from(nanos).unwrap_or(0);
        ntp_nanos(self.ntp).saturating_add_signed(nanos)
    }

    /// How much later the moment of `timestamp` is than that of `other_timestamp` in `other`,
    /// in nanoseconds, by the wall clock that both share.
    pub fn nanos_after(&self, timestamp: u32, other: &ClockMap, other_timestamp: u32) -> i64 {
        let (a, b) = (
            self.wall_nanos(timestamp),
            other.wall_nanos(other_timestamp),
        );
        a.wrapping_sub(b).cast_signed()
    }
}

/// Follows the sender's reports.
#[derive(Clone, Debug)]
pub(crate) struct SenderClock {
    clock_rate: u32,
    map: Option<ClockMap>,
    /// Where the present baseline begins: NTP, RTP time unwrapped from there, arrival.
    origin: Option<(u64, Instant)>,
    units: i64,
    measured: bool,
}

impl SenderClock {
    pub(crate) const fn new(clock_rate: u32) -> Self {
        SenderClock {
            clock_rate,
            map: None,
            origin: None,
            units: 0,
            measured: false,
        }
    }

    /// The clock rate is now known to be `hz`: the last report still holds, the rates do not.
    pub(crate) fn set_clock_rate(&mut self, hz: u32) {
        if hz == 0 || hz == self.clock_rate {
            return;
        }
        let last = self.map;
        *self = SenderClock::new(hz);
        self.map = last.map(|map| ClockMap {
            clock_rate: hz,
            drift_ppm: 0.0,
            media_ppm: 0.0,
            ..map
        });
        if let Some(map) = self.map {
            self.restart(&map);
        }
    }

    pub(crate) const fn map(&self) -> Option<ClockMap> {
        self.map
    }

    /// A report that reached us at `arrival`. One with the NTP time 0 says that the sender has
    /// no wall clock (RFC 3550, 6.4.1).
    pub(crate) fn update(&mut self, arrival: Instant, info: &SenderInfo) {
        if info.ntp == 0 {
            return;
        }
        let mut next = ClockMap {
            ntp: info.ntp,
            rtp_timestamp: info.rtp_timestamp,
            clock_rate: self.clock_rate,
            arrival,
            drift_ppm: 0.0,
            media_ppm: 0.0,
        };
        if let Some(last) = self.map {
            // An older report that was overtaken tells nothing new.
            if ntp_difference_nanos(next.ntp, last.ntp) <= 0 && arrival <= last.arrival {
                return;
            }
            next.drift_ppm = last.drift_ppm;
            next.media_ppm = last.media_ppm;
            if self.is_step(&last, &next) {
                self.restart(&next);
                next.drift_ppm = 0.0;
                next.media_ppm = 0.0;
            } else {
                let step = next.rtp_timestamp.wrapping_sub(last.rtp_timestamp);
                self.units += i64::from(step.cast_signed());
                self.measure(&mut next);
            }
        } else {
            self.restart(&next);
        }
        self.map = Some(next);
    }

    /// Whether the sender's wall or RTP clock was set between the two reports.
    fn is_step(&self, last: &ClockMap, next: &ClockMap) -> bool {
        let wall = ntp_difference_nanos(next.ntp, last.ntp);
        let ours = next.arrival.saturating_since(last.arrival).as_nanos();
        let ours = i64::try_from(ours).unwrap_or(i64::MAX);
        let units = next.rtp_timestamp.wrapping_sub(last.rtp_timestamp);
        let media = i64::from(units.cast_signed()).saturating_mul(1_000_000)
            / i64::from(self.clock_rate.max(1))
            * 1_000;
        // 1 % covers what long intervals drift.
        let allowed = MAX_STEP_NANOS.saturating_add(ours.unsigned_abs() / 100);
        wall.abs_diff(ours) > allowed || media.abs_diff(wall) > allowed
    }

    fn restart(&mut self, first: &ClockMap) {
        self.origin = Some((first.ntp, first.arrival));
        self.units = 0;
        self.measured = false;
    }

    /// Rates over the whole baseline: what jitters is the arrival of single reports.
    fn measure(&mut self, next: &mut ClockMap) {
        let Some((ntp, arrival)) = self.origin else {
            return;
        };
        let ours = next.arrival.saturating_since(arrival);
        if ours < MIN_BASELINE {
            return;
        }
        let wall = ntp_difference_nanos(next.ntp, ntp) as f64;
        let media = self.units as f64 * 1e9 / f64::from(self.clock_rate.max(1));
        let drift = (wall / ours.as_nanos() as f64 - 1.0) * 1e6;
        let media = (media / wall.max(1.0) - 1.0) * 1e6;
        if drift.abs() > MAX_PPM || media.abs() > MAX_PPM {
            return;
        }
        let gain = if self.measured { RATE_GAIN } else { 1.0 };
        next.drift_ppm += (drift - next.drift_ppm) * gain;
        next.media_ppm += (media - next.media_ppm) * gain;
        self.measured = true;
        // The baseline is renewed now and then, so that a rate that changes is followed.
        if ours > Duration::from_secs(600) {
            self.origin = Some((next.ntp, next.arrival));
            self.units = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ntp_ms: u64, rtp: u32) -> SenderInfo {
        SenderInfo {
            ssrc: 1,
            ntp: ((ntp_ms / 1000) << 32) + (((ntp_ms % 1000) << 32) / 1000),
            rtp_timestamp: rtp,
            packets: 0,
            octets: 0,
        }
    }

    #[test]
    fn timestamps_are_mapped_to_the_senders_wall_clock_across_their_wrap() {
        let mut clock = SenderClock::new(90_000);
        clock.update(Instant::ZERO, &report(3_000_000_000_500, u32::MAX - 44_999));
        let map = clock.map().unwrap();
        let close = |a: u64, b: u64| assert!(a.abs_diff(b) <= 1, "{a} {b}");
        close(map.wall_nanos(u32::MAX - 44_999), 3_000_000_000_500_000_000);
        close(map.wall_nanos(45_000), 3_000_000_001_500_000_000);
        close(
            map.wall_nanos(u32::MAX - 134_999),
            2_999_999_999_500_000_000,
        );
    }

    #[test]
    fn two_media_of_one_sender_are_aligned_by_its_wall_clock() {
        let (mut video, mut audio) = (SenderClock::new(90_000), SenderClock::new(48_000));
        video.update(Instant::ZERO, &report(10_000, 0));
        audio.update(Instant::from_millis(7), &report(12_000, 96_000));
        let (video, audio) = (video.map().unwrap(), audio.map().unwrap());
        assert!(video.nanos_after(180_000, &audio, 96_000).abs() <= 1);
        assert!((audio.nanos_after(96_480, &video, 180_000) - 10_000_000).abs() <= 1);
    }

    #[test]
    fn drift_against_our_clock_and_of_the_media_clock_is_measured_in_ppm() {
        let mut clock = SenderClock::new(90_000);
        for i in 0..30u64 {
            // Ours: i · 5 s; theirs 40 ppm faster; RTP another 100 ppm faster.
            let wall = 5.0 * i as f64 * 1.000_04;
            let mut info = report(0, (wall * 90_000.0 * 1.000_1) as u32);
            info.ntp = (1_000u64 << 32) + (wall * 4_294_967_296.0) as u64;
            clock.update(Instant::from_millis(5_000 * i + i % 3), &info);
        }
        let map = clock.map().unwrap();
        assert!((map.drift_ppm - 40.0).abs() < 20.0, "{}", map.drift_ppm);
        assert!((map.media_ppm - 100.0).abs() < 1.0, "{}", map.media_ppm);
    }

    #[test]
    fn a_clock_that_is_set_is_followed_at_once_and_is_no_drift() {
        let mut clock = SenderClock::new(90_000);
        for i in 0..4u64 {
            let jump = if i > 1 { 3_600_000 } else { 0 };
            clock.update(
                Instant::from_millis(i * 5_000),
                &report(1_000_000 + i * 5_000 + jump, (i * 450_000) as u32),
            );
        }
        let map = clock.map().unwrap();
        assert!(map.drift_ppm.abs() < 0.01);
        assert!(map.wall_nanos(1_350_000).abs_diff(4_615_000_000_000) <= 1);
    }

    #[test]
    fn a_clock_rate_that_is_learned_late_keeps_the_last_report() {
        let mut clock = SenderClock::new(90_000);
        clock.update(Instant::ZERO, &report(5_000, 48_000));
        clock.set_clock_rate(48_000);
        let map = clock.map().unwrap();
        assert_eq!(map.wall_nanos(96_000), 6_000_000_000);
    }

    #[test]
    fn hostile_reports_overflow_nothing() {
        let mut clock = SenderClock::new(1);
        let mut x = 7u64;
        for i in 0..10_000u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let info = SenderInfo {
                ssrc: 1,
                ntp: x,
                rtp_timestamp: (x >> 20) as u32,
                packets: 0,
                octets: 0,
            };
            clock.update(Instant::from_nanos(i * (x >> 40)), &info);
            let map = clock.map().unwrap();
            let _ = map.wall_nanos(x as u32);
            assert!(map.drift_ppm.abs() <= MAX_PPM && map.media_ppm.abs() <= MAX_PPM);
        }
        clock.update(Instant::FAR_FUTURE, &report(0, 0));
    }
}
