//! Measurements of ETSI TR 101 290, 5.2.1 (first priority) and 5.2.2 (second priority).

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

/// All indicators of one transport stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tr101290 {
    /// In the order of [`INDICATORS`].
    pub indicators: [Indicator; 12],
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
}
