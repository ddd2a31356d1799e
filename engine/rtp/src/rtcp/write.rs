//! RTCP as a receiver writes it: reports with CNAME, feedback, BYE. Each function appends one
//! packet of a compound to `out`.

use super::{BYE, CNAME, EXTENDED_REPORT, RECEIVER_REPORT, ReportBlock, SOURCE_DESCRIPTION};

/// A report has at most so many blocks (five bits).
const MAX_BLOCKS: usize = 31;
/// Block of an extended report: receiver reference time (RFC 3611, 4.4).
const RECEIVER_REFERENCE_TIME: u8 = 4;

/// The first word of a packet whose body has `words` words.
pub(crate) fn put_header(count: u8, packet_type: u8, words: usize, out: &mut Vec<u8>) {
    let words = u16::try_from(words).unwrap_or(u16::MAX);
    out.extend_from_slice(&[0x80 | count & 0x1F, packet_type]);
    out.extend_from_slice(&words.to_be_bytes());
}

pub(crate) fn put_u32(word: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&word.to_be_bytes());
}

/// A receiver report of `own_ssrc` (at most 31 blocks), and its CNAME.
pub(crate) fn write_report(own_ssrc: u32, blocks: &[ReportBlock], cname: &[u8], out: &mut Vec<u8>) {
    let blocks = blocks.get(..blocks.len().min(MAX_BLOCKS)).unwrap_or(blocks);
    let count = blocks.len();
    put_header(count as u8, RECEIVER_REPORT, 1 + 6 * count, out);
    put_u32(own_ssrc, out);
    for block in blocks {
        let lost = block
            .cumulative_lost
            .clamp(-0x80_0000, 0x7F_FFFF)
            .cast_unsigned();
        let loss = u32::from(block.fraction_lost) << 24 | lost & 0xFF_FFFF;
        for word in [
            block.ssrc,
            loss,
            block.extended_highest_sequence,
            block.jitter,
            block.last_sr,
            block.delay_since_last_sr,
        ] {
            put_u32(word, out);
        }
    }
    let cname = cname.get(..cname.len().min(255)).unwrap_or_default();
    // SSRC, item type and length, text, at least one zero, filled to a word.
    let chunk = (4 + 2 + cname.len() + 1).next_multiple_of(4);
    let start = out.len();
    put_header(1, SOURCE_DESCRIPTION, chunk / 4, out);
    put_u32(own_ssrc, out);
    out.extend_from_slice(&[CNAME, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(start + 4 + chunk, 0);
}

/// A BYE of `own_ssrc`.
pub(crate) fn write_bye(own_ssrc: u32, out: &mut Vec<u8>) {
    put_header(1, BYE, 1, out);
    put_u32(own_ssrc, out);
}

/// Our reference time, which a sender answers with the delay since (RFC 3611, 4.4).
pub(crate) fn write_reference_time(own_ssrc: u32, ntp: u64, out: &mut Vec<u8>) {
    put_header(0, EXTENDED_REPORT, 4, out);
    put_u32(own_ssrc, out);
    out.extend_from_slice(&[RECEIVER_REFERENCE_TIME, 0, 0, 2]);
    out.extend_from_slice(&ntp.to_be_bytes());
}
