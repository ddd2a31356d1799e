//! RTCP (RFC 3550, 6): checking and walking a compound packet. Feedback messages are in
//! [`feedback`], what a receiver sends in `write`. Sessions read sender reports, CNAME and BYE;
//! the shard uses [`sender_ssrc`] to find the session.

pub mod feedback;
pub(crate) mod write;

use mirror_base::Discard;

/// Sender report.
pub const SENDER_REPORT: u8 = 200;
/// Receiver report.
pub const RECEIVER_REPORT: u8 = 201;
/// Source description.
pub const SOURCE_DESCRIPTION: u8 = 202;
/// Goodbye.
pub const BYE: u8 = 203;
/// Application-defined.
pub const APPLICATION: u8 = 204;
/// Transport-layer feedback (RFC 4585).
pub const TRANSPORT_FEEDBACK: u8 = 205;
/// Payload-specific feedback (RFC 4585).
pub const PAYLOAD_FEEDBACK: u8 = 206;
/// Extended report (RFC 3611).
pub const EXTENDED_REPORT: u8 = 207;

/// SDES item: the canonical name.
const CNAME: u8 = 1;
/// Block of an extended report: DLRR (RFC 3611, 4.5).
const DELAY_SINCE_LAST_RR: u8 = 5;

/// The SSRC that sent the first packet of a compound (bytes 4–7): what RTCP is steered by.
pub fn sender_ssrc(datagram: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*datagram.get(4..)?.first_chunk()?))
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The header's five-bit count, or feedback message type.
    pub count: u8,
    /// Packet type.
    pub packet_type: u8,
    /// What follows the four header bytes, padding cut.
    pub body: &'a [u8],
}

/// The packets of a compound that passed [`parse`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

/// Checks a whole compound (RFC 3550, A.2): version 2 and a known-to-be-RTCP type throughout,
/// lengths that sum up to the datagram, padding only in the last packet, and a report first
/// (or, in reduced-size RTCP, what RFC 5506 lets travel alone).
///
/// # Errors
/// [`Discard::Runt`] or [`Discard::MalformedRtcp`].
pub fn parse(datagram: &[u8]) -> Result<Packets<'_>, Discard> {
    if datagram.len() < 4 {
        return Err(Discard::Runt);
    }
    let first_is_fit = datagram.get(1).is_some_and(|t| {
        matches!(
            *t,
            SENDER_REPORT
                | RECEIVER_REPORT
                | APPLICATION
                | TRANSPORT_FEEDBACK
                | PAYLOAD_FEEDBACK
                | EXTENDED_REPORT
        )
    });
    let mut rest = datagram;
    let mut whole = first_is_fit;
    while whole && !rest.is_empty() {
        match split(rest) {
            Some((_, after)) => {
                let padded = rest.first().is_some_and(|b| b & 0x20 != 0);
                whole = !padded || after.is_empty();
                rest = after;
            }
            None => whole = false,
        }
    }
    if whole {
        Ok(Packets { rest: datagram })
    } else {
        Err(Discard::MalformedRtcp)
    }
}

/// The first packet of `bytes` and what follows it.
fn split(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (&[b0, packet_type, l0, l1], after) = bytes.split_first_chunk::<4>()?;
    if b0 >> 6 != 2 || !(192..=223).contains(&packet_type) {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([l0, l1])) * 4;
    let (mut body, rest) = after.split_at_checked(length)?;
    if b0 & 0x20 != 0 {
        let padding = usize::from(*body.last()?);
        if padding == 0 || !padding.is_multiple_of(4) {
            return None;
        }
        body = body.get(..body.len().checked_sub(padding)?)?;
    }
    Some((
        Packet {
            count: b0 & 0x1F,
            packet_type,
            body,
        },
        rest,
    ))
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let (packet, rest) = split(self.rest)?;
        self.rest = rest;
        Some(packet)
    }
}

/// What a sender report says of the sender (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Its SSRC.
    pub ssrc: u32,
    /// NTP time: seconds since 1900 and their fraction, 32 bits each. The epoch may be any.
    pub ntp: u64,
    /// The RTP timestamp of that moment.
    pub rtp_timestamp: u32,
    /// Packets it has sent.
    pub packets: u32,
    /// Payload bytes it has sent.
    pub octets: u32,
}

/// A report block (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source that is reported on.
    pub ssrc: u32,
    /// Fraction lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all, 24 bits signed.
    pub cumulative_lost: i32,
    /// Extended highest sequence number.
    pub extended_highest_sequence: u32,
    /// Interarrival jitter in clock units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report.
    pub last_sr: u32,
    /// Delay since that report in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// Cuts a big-endian 32-bit word off the front.
pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*word))
}

impl<'a> Packet<'a> {
    /// The sender's part of a sender report.
    pub fn sender_info(&self) -> Option<SenderInfo> {
        if self.packet_type != SENDER_REPORT {
            return None;
        }
        let mut body = self.body;
        let ssrc = take_u32(&mut body)?;
        let ntp = u64::from(take_u32(&mut body)?) << 32 | u64::from(take_u32(&mut body)?);
        Some(SenderInfo {
            ssrc,
            ntp,
            rtp_timestamp: take_u32(&mut body)?,
            packets: take_u32(&mut body)?,
            octets: take_u32(&mut body)?,
        })
    }

    /// The report blocks of a sender or receiver report.
    pub fn report_blocks(&self) -> impl Iterator<Item = ReportBlock> + use<'a> {
        let skip = match self.packet_type {
            SENDER_REPORT => Some(24),
            RECEIVER_REPORT => Some(4),
            _ => None,
        };
        let blocks = skip.and_then(|n| self.body.get(n..)).unwrap_or_default();
        blocks
            .chunks_exact(24)
            .take(usize::from(self.count))
            .filter_map(|mut block| {
                let ssrc = take_u32(&mut block)?;
                let loss = take_u32(&mut block)?;
                Some(ReportBlock {
                    ssrc,
                    fraction_lost: (loss >> 24) as u8,
                    // Sign-extends the lower 24 bits.
                    cumulative_lost: (loss << 8).cast_signed() >> 8,
                    extended_highest_sequence: take_u32(&mut block)?,
                    jitter: take_u32(&mut block)?,
                    last_sr: take_u32(&mut block)?,
                    delay_since_last_sr: take_u32(&mut block)?,
                })
            })
    }

    /// Who sent this packet: every type but BYE and SDES begins so.
    pub fn ssrc(&self) -> Option<u32> {
        match self.packet_type {
            SOURCE_DESCRIPTION | BYE => None,
            _ => Some(u32::from_be_bytes(*self.body.first_chunk()?)),
        }
    }

    /// The chunks of a source description; none follow one that breaks the format.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut left = match self.packet_type {
            SOURCE_DESCRIPTION => self.count,
            _ => 0,
        };
        let mut body = self.body;
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let chunk = Chunk::take(&mut body);
            if chunk.is_none() {
                left = 0;
            }
            chunk
        })
    }

    /// The SSRCs that a source description speaks of.
    pub fn described(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.chunks().map(|chunk| chunk.ssrc)
    }

    /// The reason that a BYE gives.
    pub fn leaving_reason(&self) -> Option<&'a [u8]> {
        if self.packet_type != BYE {
            return None;
        }
        let rest = self.body.get(usize::from(self.count) * 4..)?;
        let (&length, text) = rest.split_first()?;
        text.get(..usize::from(length))
    }

    /// Delays that an extended report's DLRR block (RFC 3611, 4.5) gives for `ssrc`: the middle
    /// 32 bits of the reference time that it received, and the delay since, in 1/65536 s.
    pub fn receiver_delay(&self, ssrc: u32) -> Option<(u32, u32)> {
        if self.packet_type != EXTENDED_REPORT {
            return None;
        }
        let mut body = self.body.get(4..)?;
        loop {
            let (&[block, _, l0, l1], rest) = body.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            let (content, rest) = rest.split_at_checked(length)?;
            body = rest;
            if block != DELAY_SINCE_LAST_RR {
                continue;
            }
            for mut entry in content.chunks_exact(12) {
                if take_u32(&mut entry)? == ssrc {
                    return Some((take_u32(&mut entry)?, take_u32(&mut entry)?));
                }
            }
        }
    }

    /// The SSRCs that leave, if this is a BYE.
    pub fn leaving(&self) -> impl Iterator<Item = u32> + use<'a> {
        let body = if self.packet_type == BYE {
            self.body
        } else {
            &[]
        };
        let ssrcs = body.as_chunks::<4>().0.iter().take(usize::from(self.count));
        ssrcs.map(|word| u32::from_be_bytes(*word))
    }

    /// The CNAME of `ssrc`, if this is a source description that has it (RFC 3550, 6.5).
    pub fn cname(&self, ssrc: u32) -> Option<&'a [u8]> {
        let mut chunks = self.chunks().filter(|chunk| chunk.ssrc == ssrc);
        chunks.find_map(|chunk| {
            let names = chunk.items().filter(|(kind, _)| *kind == CNAME);
            names.last().map(|(_, name)| name)
        })
    }
}

/// What a source description says of one source (RFC 3550, 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The source.
    pub ssrc: u32,
    /// Its items, well-formed.
    items: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Type and text of each item: 1 CNAME, 2 NAME, 3 EMAIL, 4 PHONE, 5 LOC, 6 TOOL, 7 NOTE,
    /// 8 PRIV.
    pub fn items(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.items;
        core::iter::from_fn(move || {
            let (&[kind, length], after) = rest.split_first_chunk::<2>()?;
            let (text, after) = after.split_at_checked(usize::from(length))?;
            rest = after;
            Some((kind, text))
        })
    }

    /// Cuts a chunk off the front.
    fn take(body: &mut &'a [u8]) -> Option<Self> {
        let ssrc = take_u32(body)?;
        let all = *body;
        let mut bytes = 0;
        // The items end with a zero byte.
        while *all.get(bytes)? != 0 {
            let length = usize::from(*all.get(bytes + 1)?);
            bytes += 2 + length;
        }
        let items = all.get(..bytes)?;
        // Each chunk is filled with zeros up to a word.
        *body = all.get((bytes + 1).next_multiple_of(4)..)?;
        Some(Chunk { ssrc, items })
    }
}

/// Round-trip time in 1/65536 s from what a report says of our own (RFC 3550, 6.4.1): `now`
/// and `last` are middle 32 bits of NTP times. `None` when nothing of ours had been received,
/// or the sum cannot be.
pub fn round_trip(now: u32, last: u32, delay: u32) -> Option<u32> {
    let spent = now.wrapping_sub(last).wrapping_sub(delay);
    (last != 0 && spent.cast_signed() >= 0).then_some(spent)
}

#[cfg(test)]
mod tests {
    use super::write::{write_bye, write_report};
    use super::*;

    #[test]
    fn what_is_written_parses_back() {
        let block = ReportBlock {
            ssrc: 7,
            fraction_lost: 25,
            cumulative_lost: -3,
            extended_highest_sequence: 0x0001_0005,
            jitter: 9,
            last_sr: 10,
            delay_since_last_sr: 11,
        };
        for len in 0..9 {
            let cname = &b"cname@host"[..len];
            let mut out = Vec::new();
            write_report(5, &[block], cname, &mut out);
            write_bye(5, &mut out);
            assert_eq!(out.len() % 4, 0);
            let packets: Vec<_> = parse(&out).unwrap().collect();
            assert_eq!(packets.len(), 3);
            assert_eq!(packets[0].report_blocks().collect::<Vec<_>>(), [block]);
            assert_eq!(packets[1].cname(5), Some(cname));
            assert_eq!(packets[1].cname(6), None);
            assert_eq!(packets[2].leaving().collect::<Vec<_>>(), [5]);
            assert_eq!(sender_ssrc(&out), Some(5));
        }
    }

    #[test]
    fn every_truncation_and_flip_of_a_compound_is_survived() {
        let mut good = Vec::new();
        write_report(5, &[], b"someone", &mut good);
        write_bye(5, &mut good);
        for cut in 0..good.len() {
            let _ = parse(&good[..cut]).map(walk);
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = parse(&bad).map(walk);
            }
        }
    }

    #[test]
    fn every_chunk_of_a_source_description_is_read() {
        let mut bytes = vec![0x80, RECEIVER_REPORT, 0, 1, 0, 0, 0, 9];
        bytes.extend([0x83, SOURCE_DESCRIPTION, 0, 8, 0, 0, 0, 7]);
        bytes.extend([1, 2, b'a', b'b', 6, 3, b'g', b's', b't', 0, 0, 0]);
        // Nothing is said of this one; the next one has an empty item.
        bytes.extend([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9, 7, 0, 0, 0]);
        let sdes = parse(&bytes).unwrap().nth(1).unwrap();
        let found: Vec<_> = sdes
            .chunks()
            .map(|chunk| (chunk.ssrc, chunk.items().collect::<Vec<_>>()))
            .collect();
        let first = vec![(1, &b"ab"[..]), (6, &b"gst"[..])];
        assert_eq!(found, [(7, first), (8, vec![]), (9, vec![(7, &b""[..])])]);
        assert_eq!(sdes.cname(7), Some(&b"ab"[..]));
    }

    fn walk(packets: Packets<'_>) -> usize {
        packets
            .map(|p| {
                p.report_blocks().count()
                    + p.leaving().count()
                    + p.described().count()
                    + p.nacks().count()
                    + p.full_intra_requests().count()
                    + usize::from(p.receiver_delay(5).is_some())
                    + usize::from(p.leaving_reason().is_some())
                    + usize::from(p.cname(5).is_some())
                    + usize::from(p.sender_info().is_some())
            })
            .sum()
    }

    #[test]
    fn round_trip_times_follow_the_published_rows() {
        // vectors/rtp_rtcp.json "rtt_from_rr"
        assert_eq!(
            round_trip(0xb710_8000, 0xb705_2000, 0x0005_4000),
            Some(0x0006_2000)
        );
        assert_eq!(
            round_trip(0x0001_0000, 0xffff_0000, 0x0001_0000),
            Some(0x0001_0000)
        );
        assert_eq!(round_trip(5, 0, 1), None);
        assert_eq!(round_trip(5, 4, 2), None);
    }

    #[test]
    fn a_reason_to_leave_and_the_delays_of_an_extended_report_are_read() {
        let mut bytes = Vec::new();
        write_report(9, &[], b"x", &mut bytes);
        bytes.extend_from_slice(&[
            0x81, BYE, 0, 3, 0, 0, 0, 9, 4, b'd', b'o', b'n', b'e', 0, 0, 0,
        ]);
        let bye = parse(&bytes).unwrap().last().unwrap();
        assert_eq!(bye.leaving_reason(), Some(&b"done"[..]));
        assert_eq!(bye.leaving().collect::<Vec<_>>(), [9]);
        let sdes = parse(&bytes).unwrap().nth(1).unwrap();
        assert_eq!(sdes.described().collect::<Vec<_>>(), [9]);
        let items = |chunk: Chunk<'_>| chunk.items().map(|(k, t)| (k, t.to_vec())).collect();
        let items: Vec<Vec<(u8, Vec<u8>)>> = sdes.chunks().map(items).collect();
        assert_eq!(items, [[(CNAME, b"x".to_vec())]]);

        let mut xr = vec![0x80, EXTENDED_REPORT, 0, 8, 0, 0, 0, 9];
        xr.extend_from_slice(&[4, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        xr.extend_from_slice(&[5, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 4]);
        let xr = parse(&xr).unwrap().next().unwrap();
        assert_eq!(xr.receiver_delay(7), Some((3, 4)));
        assert_eq!(xr.receiver_delay(8), None);
    }

    #[test]
    fn a_compound_must_begin_with_a_report_and_end_with_the_datagram() {
        let mut bye = Vec::new();
        write_bye(5, &mut bye);
        assert_eq!(parse(&bye).err(), Some(Discard::MalformedRtcp));
        let mut report = Vec::new();
        write_report(5, &[], b"", &mut report);
        report.push(0);
        assert_eq!(parse(&report).err(), Some(Discard::MalformedRtcp));
        assert_eq!(parse(&[0x80, 200]).err(), Some(Discard::Runt));
        // Padding anywhere but in the last packet.
        let mut padded = vec![0xA0, RECEIVER_REPORT, 0, 2, 0, 0, 0, 5, 0, 0, 0, 4];
        assert_eq!(parse(&padded).unwrap().next().unwrap().body.len(), 4);
        padded.extend_from_slice(&bye);
        assert_eq!(parse(&padded).err(), Some(Discard::MalformedRtcp));
    }
}
