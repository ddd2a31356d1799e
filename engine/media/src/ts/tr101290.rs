//! Measurements of ETSI TR 101 290, 5.2.1 (first priority) and 5.2.2 (second priority): what is
//! measured, and the limits. [`super::monitor`] measures.
//!
//! Two clocks tell the time. What must recur in a stream (1.3, 1.5, 1.6, the wait for a PCR) is
//! measured by the arrival of its packets: live the moment the datagram reached the host, in a
//! file the time that its own references give ([`super::file`]). References and timestamps (2.3b,
//! 2.4, 2.5) are measured by the program's own clock, so that the network's jitter does not
//! count: 2.3a counts where both say that a PCR came late. A gap counts once, when it passes the
//! limit. While nothing at all comes nothing counts: gaps are measured from where it goes on, for
//! what the network holds up is no error of the multiplexer.

use core::time::Duration;

use mirror_base::Instant;

/// One of the standard's indicators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Indicator {
    /// The standard's number: "1.1" ... "2.6".
    pub number: &'static str,
    /// The standard's name: "TS_sync_loss" ...
    pub name: &'static str,
    /// Errors so far.
    pub count: u64,
    /// PID of the last one, where it has one.
    pub pid: Option<u16>,
    /// When the last one was seen.
    pub last: Option<Instant>,
}

/// Number and name of each indicator, first priority first.
pub const INDICATORS: [(&str, &str); 12] = [
    ("1.1", "TS_sync_loss"),
    ("1.2", "Sync_byte_error"),
    ("1.3", "PAT_error"),
    ("1.4", "Continuity_count_error"),
    ("1.5", "PMT_error"),
    ("1.6", "PID_error"),
    ("2.1", "Transport_error"),
    ("2.2", "CRC_error"),
    ("2.3", "PCR_error"),
    ("2.4", "PCR_accuracy_error"),
    ("2.5", "PTS_error"),
    ("2.6", "CAT_error"),
];

/// A place in [`INDICATORS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// 1.1: two or more wrong sync bytes in a row.
    SyncLoss,
    /// 1.2: a sync byte other than 0x47.
    SyncByte,
    /// 1.3: no PAT for too long, another table on its PID, or it is scrambled.
    Pat,
    /// 1.4: a continuity counter that is not the next one.
    Continuity,
    /// 1.5: no PMT for too long, or it is scrambled.
    Pmt,
    /// 1.6: nothing on a PID that a PMT names.
    Pid,
    /// 2.1: transport_error_indicator.
    Transport,
    /// 2.2: a table's CRC.
    Crc,
    /// 2.3: a PCR too late (2.3a), or an unannounced jump of them (2.3b).
    Pcr,
    /// 2.4: a PCR more than 500 ns from where the constant rate puts it.
    PcrAccuracy,
    /// 2.5: no PTS for too long.
    Pts,
    /// 2.6: scrambled packets without a CAT, or another table on its PID.
    Cat,
}

/// What counts as too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tr101290Limits {
    /// 1.3: between sections of the PAT.
    pub pat: Duration,
    /// 1.5: between sections of a PMT PID.
    pub pmt: Duration,
    /// 1.6: without a packet on an audio, video or PCR PID of a PMT.
    pub pid: Duration,
    /// 2.3: between clock references. (40 ms in older editions of the standard.)
    pub pcr: Duration,
    /// 2.5: between presentation times of an audio or video stream.
    pub pts: Duration,
}

impl Default for Tr101290Limits {
    fn default() -> Self {
        Tr101290Limits {
            pat: Duration::from_millis(500),
            pmt: Duration::from_millis(500),
            pid: Duration::from_secs(5),
            pcr: Duration::from_millis(100),
            pts: Duration::from_millis(700),
        }
    }
}

/// All indicators of one transport stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tr101290 {
    /// In the order of [`INDICATORS`].
    pub indicators: [Indicator; 12],
    /// Of 2.3, those that came too late: PCR_repetition_error (2.3a).
    pub pcr_repetition: u64,
    /// Of 2.3, unannounced jumps: PCR_discontinuity_indicator_error (2.3b). One reference may be
    /// both.
    pub pcr_discontinuity: u64,
}

impl Default for Tr101290 {
    fn default() -> Self {
        Tr101290 {
            indicators: INDICATORS.map(|(number, name)| Indicator {
                number,
                name,
                count: 0,
                pid: None,
                last: None,
            }),
            pcr_repetition: 0,
            pcr_discontinuity: 0,
        }
    }
}

impl Tr101290 {
    /// Errors of the first priority (5.2.1): the stream may not be decodable.
    pub fn first_priority(&self) -> u64 {
        let first = self.indicators.iter().filter(|i| i.number.starts_with('1'));
        first.map(|i| i.count).sum()
    }

    /// Errors of the second priority (5.2.2).
    pub fn second_priority(&self) -> u64 {
        let second = self.indicators.iter().filter(|i| i.number.starts_with('2'));
        second.map(|i| i.count).sum()
    }

    /// The indicator of `check`.
    pub fn get(&self, check: Check) -> &Indicator {
        let [first, ..] = &self.indicators;
        self.indicators.get(check as usize).unwrap_or(first)
    }

    /// Adds what was measured of another transport stream. (TS that come beside each other in
    /// one stream.)
    pub fn add(&mut self, other: &Tr101290) {
        for (sum, of) in self.indicators.iter_mut().zip(&other.indicators) {
            sum.count += of.count;
            if of.last > sum.last {
                (sum.last, sum.pid) = (of.last, of.pid);
            }
        }
        self.pcr_repetition += other.pcr_repetition;
        self.pcr_discontinuity += other.pcr_discontinuity;
    }

    pub(super) fn count(&mut self, check: Check, errors: u64, pid: Option<u16>, now: Instant) {
        if let Some(indicator) = self.indicators.get_mut(check as usize) {
            indicator.count += errors;
            indicator.pid = pid.or(indicator.pid);
            indicator.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_streams_the_counts_are_added_and_the_last_error_is_shown() {
        let mut both = Tr101290::default();
        both.count(Check::Crc, 1, Some(0x100), Instant::from_millis(5));
        both.count(Check::Pat, 1, None, Instant::from_millis(9));
        let mut other = Tr101290::default();
        other.count(Check::Crc, 2, Some(0x200), Instant::from_millis(7));
        other.pcr_repetition = 3;
        both.add(&other);
        let crc = both.get(Check::Crc);
        assert_eq!((crc.count, crc.pid), (3, Some(0x200)));
        assert_eq!(crc.last, Some(Instant::from_millis(7)));
        assert_eq!(both.get(Check::Pat).count, 1);
        assert_eq!(both.pcr_repetition, 3);
    }

    #[test]
    fn checks_stand_in_the_order_of_the_indicators() {
        let mut report = Tr101290::default();
        report.count(Check::Cat, 1, Some(5), Instant::ZERO);
        report.count(Check::SyncLoss, 2, None, Instant::ZERO);
        assert_eq!(report.get(Check::Cat).number, "2.6");
        assert_eq!(report.get(Check::Cat).pid, Some(5));
        assert_eq!((report.first_priority(), report.second_priority()), (2, 1));
    }
}
