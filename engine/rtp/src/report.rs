//! Receiver reports: what they say of a source (RFC 3550, 6.4.2, A.3), and for a session of
//! one source, which is seen as one of two members, when they are sent.

use mirror_base::Instant;

use crate::rtcp::ReportBlock;
use crate::rtcp::write::{write_bye, write_report};
use crate::schedule::{Due, Population, Rules, Schedule};
use crate::session::SenderReport;

/// The source and ourselves.
const PAIR: Population = Population {
    members: 2,
    senders: 1,
};

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

/// What was reported last on a source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastReport {
    expected: u32,
    received: u32,
}

impl LastReport {
    /// A.3: the block that is due, with the fraction lost since the last one.
    pub(crate) fn block(&mut self, now: Instant, figures: &Figures) -> ReportBlock {
        let expected = figures
            .extended_highest_sequence
            .wrapping_sub(figures.base_sequence)
            .wrapping_add(1);
        let lost = i64::from(expected) - i64::from(figures.received);
        let fraction_lost = fraction_lost(
            expected.wrapping_sub(self.expected),
            figures.received.wrapping_sub(self.received),
        );
        self.expected = expected;
        self.received = figures.received;
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

/// Reports on one source, and the BYE when its session ends.
#[derive(Debug)]
pub(crate) struct ReportTimer {
    reporting: Reporting,
    schedule: Schedule,
    last: LastReport,
}

impl ReportTimer {
    pub(crate) fn new(now: Instant, reporting: Reporting) -> Self {
        // RR with one block, SDES with CNAME.
        let first_bytes = 44 + reporting.cname.len() as u64;
        let rules = Rules::for_bandwidth(reporting.bandwidth_bps);
        ReportTimer {
            schedule: Schedule::new(now, rules, first_bytes, reporting.seed),
            reporting,
            last: LastReport::default(),
        }
    }

    pub(crate) fn due(&self) -> Instant {
        self.schedule.due()
    }

    /// We leave: a BYE is due at once, unless nothing was ever sent (6.3.7).
    pub(crate) fn leave(&mut self, now: Instant) {
        self.schedule.leave(now, 0, PAIR);
    }

    /// Whether a BYE is due.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.schedule.is_leaving()
    }

    pub(crate) const fn count_received(&mut self, bytes: usize) {
        self.schedule.count(bytes);
    }

    /// Appends the report that is due, if one is, and returns its length.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        figures: Option<&Figures>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let due = self.schedule.poll(now, PAIR);
        if due == Due::Nothing {
            return None;
        }
        let start = out.len();
        let block = figures.map(|f| self.last.block(now, f));
        let cname = self.reporting.cname.as_bytes();
        write_report(self.reporting.ssrc, block.as_slice(), cname, out);
        if due == Due::Bye {
            write_bye(self.reporting.ssrc, out);
            self.schedule.left();
        } else {
            self.schedule.sent_report(now, out.len() - start, PAIR);
        }
        Some(out.len() - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp;

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
    fn who_never_sent_a_report_sends_no_bye() {
        let mut out = Vec::new();
        let mut timer = ReportTimer::new(Instant::ZERO, reporting());
        timer.leave(Instant::ZERO);
        assert_eq!(timer.poll(Instant::from_millis(1), None, &mut out), None);

        let mut timer = ReportTimer::new(Instant::ZERO, reporting());
        while timer.poll(timer.due(), None, &mut out).is_none() {}
        out.clear();
        timer.leave(timer.due());
        assert!(timer.is_leaving());
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
