//! RTCP (RFC 3550, 6; RFC 4585 headers): checking and walking a compound packet, and writing
//! the ones that a receiver sends. The session reads sender reports, CNAME and BYE; the shard
//! uses [`sender_ssrc`] to find the session.

use mirror_base::Discard;

/// Sender report.
pub const SENDER_REPORT: u8 = 200;
/// Receiver report.
pub const RECEIVER_REPORT: u8 = 201;
/// Source description.
pub const SOURCE_DESCRIPTION: u8 = 202;
/// Goodbye.
pub const BYE: u8 = 203;
/// Transport-layer feedback (RFC 4585).
pub const TRANSPORT_FEEDBACK: u8 = 205;
/// Payload-specific feedback (RFC 4585).
pub const PAYLOAD_FEEDBACK: u8 = 206;

/// SDES item: the canonical name.
const CNAME: u8 = 1;

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
/// (or feedback alone: RFC 5506).
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
            SENDER_REPORT | RECEIVER_REPORT | TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
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
    pub fn report_blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
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

    /// The SSRCs that leave, if this is a BYE.
    pub fn leaving(&self) -> impl Iterator<Item = u32> + 'a {
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
        if self.packet_type != SOURCE_DESCRIPTION {
            return None;
        }
        let mut body = self.body;
        for _ in 0..self.count {
            let chunk_ssrc = take_u32(&mut body)?;
            let mut cname = None;
            let mut used = 4;
            loop {
                let (&item, rest) = body.split_first()?;
                used += 1;
                body = rest;
                if item == 0 {
                    break;
                }
                let (&len, rest) = body.split_first()?;
                let (text, rest) = rest.split_at_checked(usize::from(len))?;
                used += 1 + text.len();
                body = rest;
                if item == CNAME {
                    cname = Some(text);
                }
            }
            // Each chunk is filled with zeros up to a word.
            let fill = used.next_multiple_of(4) - used;
            body = body.get(fill..)?;
            if chunk_ssrc == ssrc && cname.is_some() {
                return cname;
            }
        }
        None
    }
}

/// Appends a receiver report of `own_ssrc` with at most one block, and its CNAME.
pub(crate) fn write_report(
    own_ssrc: u32,
    block: Option<&ReportBlock>,
    cname: &[u8],
    out: &mut Vec<u8>,
) {
    let words: u16 = if block.is_some() { 7 } else { 1 };
    out.extend_from_slice(&[0x80 | u8::from(block.is_some()), RECEIVER_REPORT]);
    out.extend_from_slice(&words.to_be_bytes());
    out.extend_from_slice(&own_ssrc.to_be_bytes());
    if let Some(block) = block {
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
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
    let cname = cname.get(..cname.len().min(255)).unwrap_or_default();
    // SSRC, item type and length, text, at least one zero, filled to a word.
    let chunk = (4 + 2 + cname.len() + 1).next_multiple_of(4);
    let start = out.len();
    out.extend_from_slice(&[0x81, SOURCE_DESCRIPTION]);
    out.extend_from_slice(&((chunk / 4) as u16).to_be_bytes());
    out.extend_from_slice(&own_ssrc.to_be_bytes());
    out.extend_from_slice(&[CNAME, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(start + 4 + chunk, 0);
}

/// Appends a BYE of `own_ssrc`.
pub(crate) fn write_bye(own_ssrc: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x81, BYE, 0, 1]);
    out.extend_from_slice(&own_ssrc.to_be_bytes());
}

#[cfg(test)]
mod tests {
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
            write_report(5, Some(&block), cname, &mut out);
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
        write_report(5, None, b"someone", &mut good);
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

    fn walk(packets: Packets<'_>) -> usize {
        packets
            .map(|p| {
                p.report_blocks().count()
                    + p.leaving().count()
                    + usize::from(p.cname(5).is_some())
                    + usize::from(p.sender_info().is_some())
            })
            .sum()
    }

    #[test]
    fn a_compound_must_begin_with_a_report_and_end_with_the_datagram() {
        let mut bye = Vec::new();
        write_bye(5, &mut bye);
        assert_eq!(parse(&bye).err(), Some(Discard::MalformedRtcp));
        let mut report = Vec::new();
        write_report(5, None, b"", &mut report);
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
