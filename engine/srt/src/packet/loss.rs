//! The loss list of a NAK on the wire (spec section 11.1): a single number is a word with bit 31
//! clear, a range two words, the first with bit 31 set, both ends inclusive.

use mirror_base::PacketSequenceNumber;

use super::{CONTROL_BIT, Writer, take_u32};

/// Ranges of a loss list's CIF. After an error it ends.
pub(crate) struct LossRanges<'a> {
    cif: &'a [u8],
}

/// A list that is no whole number of words, lacks a range's end, or has an end before its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedLossList;

impl<'a> LossRanges<'a> {
    pub(crate) const fn new(cif: &'a [u8]) -> Self {
        LossRanges { cif }
    }

    fn range(&mut self) -> Option<(PacketSequenceNumber, PacketSequenceNumber)> {
        let word = take_u32(&mut self.cif)?;
        let first = PacketSequenceNumber::new(word);
        if word & CONTROL_BIT == 0 {
            return Some((first, first));
        }
        let last = take_u32(&mut self.cif)?;
        if last & CONTROL_BIT != 0 {
            return None;
        }
        let last = PacketSequenceNumber::new(last);
        if last.is_before(first) {
            None
        } else {
            Some((first, last))
        }
    }
}

impl Iterator for LossRanges<'_> {
    type Item = Result<(PacketSequenceNumber, PacketSequenceNumber), MalformedLossList>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cif.is_empty() {
            return None;
        }
        let range = self.range();
        if range.is_none() {
            self.cif = &[];
        }
        Some(range.ok_or(MalformedLossList))
    }
}

/// Appends one range; `false`, and nothing is written, when it would go beyond `limit` bytes.
pub(crate) fn write_range(
    writer: &mut Writer<'_>,
    limit: usize,
    first: PacketSequenceNumber,
    last: PacketSequenceNumber,
) -> bool {
    if first == last {
        if writer.words_left(limit) < 1 {
            return false;
        }
        writer.u32(first.get());
    } else {
        if writer.words_left(limit) < 2 {
            return false;
        }
        writer.u32(first.get() | CONTROL_BIT);
        writer.u32(last.get());
    }
    true
}
