//! Receiver reports: what they say (RFC 3550, 6.4.2, A.3) and when they are sent (6.2, 6.3,
//! A.7). A session is seen as one of two members, its sender and ourselves.

use core::time::Duration;

use mirror_base::Instant;

use crate::rtcp::{self, ReportBlock};
use crate::session::SenderReport;

/// RFC 3550, 6.2: the least interval between reports; half of it before the first one.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of the IPv4 and UDP headers, which 6.2 counts too.
const LOWER_LAYER_BYTES: u64 = 28;

/// How a session reports on its source.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// Our own SSRC: must differ from every source's.
    pub ssrc: u32,
    /// Our CNAME, at most 255 bytes.
    pub cname: String,
    /// Session bandwidth in bits a second, of which RTCP takes 5 %.
    pub bandwidth_bps: u64,
    /// Seeds the intervals' randomisation.
    pub seed: u64,
}

/// What a report block is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) ssrc: u32,
    pub(crate) extended_highest_sequence: u32,
    pub(crate) base_sequence: u32,
    pub(crate) received: u32,
    pub(crate) jitter: u32,
    pub(crate) sender_report: Option<SenderReport>,
}

#[derive(Debug)]
pub(crate) struct ReportTimer {
    reporting: Reporting,
    random: u64,
    /// When the last report was sent, `tp` in 6.3.
    previous: Instant,
    /// When the next one is looked at, `tn` in 6.3.
    next: Instant,
    /// Average size of compounds sent and received.
    average_bytes: u64,
    sent_any: bool,
    leaving: bool,
    expected_prior: u32,
    received_prior: u32,
}

impl ReportTimer {
    pub(crate) fn new(now: Instant, reporting: Reporting) -> Self {
        let mut timer = ReportTimer {
            random: reporting.seed,
            previous: now,
            next: now,
            // RR with one block, SDES with CNAME.
            average_bytes: 44 + reporting.cname.len() as u64 + LOWER_LAYER_BYTES,
            reporting,
            sent_any: false,
            leaving: false,
            expected_prior: 0,
            received_prior: 0,
        };
        timer.next = now + timer.interval();
        timer
    }

    pub(crate) fn due(&self) -> Instant {
        self.next
    }

    /// We leave: a BYE is due at once, unless nothing was ever sent (6.3.7).
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(crate) fn count_received(&mut self, bytes: usize) {
        self.count(bytes as u64);
    }

    fn count(&mut self, bytes: u64) {
        // 6.3.3: avg = size / 16 + 15 · avg / 16.
        self.average_bytes = (bytes + LOWER_LAYER_BYTES + 15 * self.average_bytes) / 16;
    }

    /// 6.3.1: the randomised interval.
    fn interval(&mut self) -> Duration {
        let least = if self.sent_any {
            MIN_INTERVAL
        } else {
            MIN_INTERVAL / 2
        };
        // Two members, one of them a sender: more than a quarter, so all share alike.
        let bytes_per_s = (self.reporting.bandwidth_bps / 8 / 20).max(1);
        let share = Duration::from_nanos(
            (2 * self.average_bytes).saturating_mul(1_000_000_000) / bytes_per_s,
        );
        // splitmix64
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let uniform = 0.5 + (z >> 40) as f64 / f64::from(1u32 << 24);
        // 1.21828 = e − 3/2 makes up for reconsideration.
        least
            .max(share)
            .min(Duration::from_secs(3600))
            .mul_f64(uniform / 1.21828)
    }

    /// Appends the report that is due, if one is.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        figures: Option<&Figures>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        if self.leaving {
            self.next = Instant::FAR_FUTURE;
            if !core::mem::take(&mut self.sent_any) {
                return None;
            }
            let length = self.write(now, figures, out);
            rtcp::write_bye(self.reporting.ssrc, out);
            return Some(length + 8);
        }
        if now < self.next {
            return None;
        }
        // 6.3.6, "reconsideration": the interval is drawn anew before it is acted upon.
        let reconsidered = self.previous + self.interval();
        if reconsidered > now {
            self.next = reconsidered;
            return None;
        }
        let length = self.write(now, figures, out);
        self.count(length as u64);
        self.sent_any = true;
        self.previous = now;
        self.next = now + self.interval();
        Some(length)
    }

    fn write(&mut self, now: Instant, figures: Option<&Figures>, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let block = figures.map(|f| self.block(now, f));
        rtcp::write_report(
            self.reporting.ssrc,
            block.as_ref(),
            self.reporting.cname.as_bytes(),
            out,
        );
        out.len() - start
    }

    fn block(&mut self, now: Instant, figures: &Figures) -> ReportBlock {
        // A.3
        let expected = figures
            .extended_highest_sequence
            .wrapping_sub(figures.base_sequence)
            .wrapping_add(1);
        let lost = i64::from(expected) - i64::from(figures.received);
        let fraction_lost = fraction_lost(
            expected.wrapping_sub(self.expected_prior),
            figures.received.wrapping_sub(self.received_prior),
        );
        self.expected_prior = expected;
        self.received_prior = figures.received;
        let (last_sr, delay_since_last_sr) = figures.sender_report.map_or((0, 0), |report| {
            let delay = now.saturating_since(report.arrival).as_nanos() * 65_536 / 1_000_000_000;
            (
                (report.info.ntp >> 16) as u32,
                u32::try_from(delay).unwrap_or(u32::MAX),
            )
        });
        ReportBlock {
            ssrc: figures.ssrc,
            fraction_lost,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7F_FFFF) as i32,
            extended_highest_sequence: figures.extended_highest_sequence,
            jitter: figures.jitter,
            last_sr,
            delay_since_last_sr,
        }
    }
}

/// A.3: the share of the interval's packets that were lost, in 1/256.
fn fraction_lost(expected: u32, received: u32) -> u8 {
    let lost = i64::from(expected.cast_signed()) - i64::from(received.cast_signed());
    if expected == 0 || lost <= 0 {
        return 0;
    }
    u8::try_from((lost << 8) / i64::from(expected)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fraction_lost_follows_the_published_rows() {
        // vectors/rtp_rtcp.json "fraction_lost"; 256 does not fit the field.
        for (expected, received, fraction) in [
            (100, 100, 0),
            (100, 90, 25),
            (50, 0, 255),
            (10, 12, 0),
            (0, 0, 0),
            (3, 2, 85),
        ] {
            assert_eq!(fraction_lost(expected, received), fraction);
        }
    }

    fn reporting() -> Reporting {
        Reporting {
            ssrc: 1,
            cname: "engine@host".into(),
            bandwidth_bps: 1_000_000,
            seed: 3,
        }
    }

    #[test]
    fn reports_are_spaced_as_rfc_3550_says() {
        let mut timer = ReportTimer::new(Instant::ZERO, reporting());
        let (mut last, mut sent) = (Instant::ZERO, 0u32);
        let mut out = Vec::new();
        while sent < 200 {
            let now = timer.due();
            out.clear();
            if timer.poll(now, None, &mut out).is_none() {
                continue;
            }
            let least = if sent == 0 { 1_250_000 } else { 2_500_000 };
            let spacing = now.micros_since(last) as f64 * 1.21828;
            assert!(spacing >= f64::from(least) && spacing <= f64::from(least) * 3.01);
            (last, sent) = (now, sent + 1);
        }
        // On average five seconds, within the randomness of 200 draws.
        let mean = last.as_micros() as f64 / 200.0;
        assert!((4_500_000.0..5_500_000.0).contains(&mean), "{mean}");
    }

    #[test]
    fn who_never_sent_a_report_sends_no_bye() {
        let mut out = Vec::new();
        let mut timer = ReportTimer::new(Instant::ZERO, reporting());
        timer.leave();
        assert_eq!(timer.poll(Instant::from_millis(1), None, &mut out), None);

        let mut timer = ReportTimer::new(Instant::ZERO, reporting());
        while timer.poll(timer.due(), None, &mut out).is_none() {}
        out.clear();
        timer.leave();
        let length = timer.poll(timer.due(), None, &mut out);
        assert_eq!(length, Some(out.len()));
        let bye = rtcp::parse(&out)
            .expect("valid")
            .last()
            .expect("three packets");
        assert_eq!(bye.leaving().collect::<Vec<_>>(), [1]);
        assert_eq!(timer.poll(Instant::FAR_FUTURE, None, &mut out), None);
    }
}
