//! RTCP compounds (RFC 3550, 6; RFC 3611; RFC 4585; RFC 5104): what is written is what is read.

use mirror_rtp::rtcp::feedback::NackPair;
use mirror_rtp::rtcp::{self, Packet, ReportBlock, SenderInfo};

use super::Choices;

/// A packet of a compound.
#[derive(Debug)]
enum Written {
    Sender(SenderInfo, Vec<ReportBlock>),
    Receiver(u32, Vec<ReportBlock>),
    /// SSRC and CNAME of each chunk, and whether other items stand around it.
    Description(Vec<(u32, Vec<u8>, bool)>),
    Bye(Vec<u32>, Option<Vec<u8>>),
    Nack(u32, u32, Vec<NackPair>),
    PictureLoss(u32, u32),
    FullIntra(u32, Vec<(u32, u8)>),
    /// SSRC, middle of the last reference time, delay.
    Delays(u32, Vec<(u32, u32, u32)>),
}

/// A report first, then anything.
pub(super) fn compound(choices: &mut Choices<'_>) {
    let count = choices.between(0, 6);
    let kind = choices.below(2);
    let mut all = vec![written(kind, choices)];
    for _ in 0..count {
        let kind = choices.below(8);
        all.push(written(kind, choices));
    }
    let mut bytes = Vec::new();
    for (n, packet) in all.iter().enumerate() {
        let start = bytes.len();
        packet.write(&mut bytes);
        // Padding, in the last one only (RFC 3550, 6.4.1).
        if n + 1 == all.len() && choices.once_in(3) {
            let padding = 4 * choices.between(1, 8);
            bytes.resize(bytes.len() + padding - 1, 0);
            bytes.push(padding as u8);
            bytes[start] |= 0x20;
        }
        let words = (bytes.len() - start) / 4 - 1;
        bytes[start + 2..start + 4].copy_from_slice(&(words as u16).to_be_bytes());
    }
    let read: Vec<Packet<'_>> = rtcp::parse(&bytes).expect("a good compound").collect();
    assert_eq!(read.len(), all.len(), "{all:?}");
    assert_eq!(rtcp::sender_ssrc(&bytes), read[0].ssrc());
    for (read, written) in read.iter().zip(&all) {
        written.compare(read);
    }
}

fn block(choices: &mut Choices<'_>) -> ReportBlock {
    ReportBlock {
        ssrc: choices.u32(),
        fraction_lost: choices.byte(),
        // 24 bits, signed.
        cumulative_lost: (choices.u32() << 8).cast_signed() >> 8,
        extended_highest_sequence: choices.u32(),
        jitter: choices.u32(),
        last_sr: choices.u32(),
        delay_since_last_sr: choices.u32(),
    }
}

fn several<T>(
    choices: &mut Choices<'_>,
    (from, to): (usize, usize),
    mut one: impl FnMut(&mut Choices<'_>) -> T,
) -> Vec<T> {
    let count = choices.between(from, to);
    (0..count).map(|_| one(choices)).collect()
}

fn text(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    let length = choices.below(256);
    choices.filling(&mut text, length);
    text
}

fn written(kind: usize, choices: &mut Choices<'_>) -> Written {
    let ssrc = choices.u32();
    match kind {
        0 => {
            let info = SenderInfo {
                ssrc,
                ntp: u64::from(choices.u32()) << 32 | u64::from(choices.u32()),
                rtp_timestamp: choices.u32(),
                packets: choices.u32(),
                octets: choices.u32(),
            };
            Written::Sender(info, several(choices, (0, 31), block))
        }
        1 => Written::Receiver(ssrc, several(choices, (0, 31), block)),
        2 => {
            let mut next = ssrc;
            let chunk = |c: &mut Choices<'_>| {
                next = next.wrapping_add(1);
                (next, text(c), c.flip())
            };
            Written::Description(several(choices, (0, 5), chunk))
        }
        3 => Written::Bye(
            several(choices, (1, 31), |c| c.u32()),
            choices.flip().then(|| text(choices)),
        ),
        4 => {
            let pair = |c: &mut Choices<'_>| NackPair {
                packet_id: c.u16(),
                following: c.u16(),
            };
            Written::Nack(ssrc, choices.u32(), several(choices, (1, 60), pair))
        }
        5 => Written::PictureLoss(ssrc, choices.u32()),
        6 => {
            let entry = |c: &mut Choices<'_>| (c.u32(), c.byte());
            Written::FullIntra(ssrc, several(choices, (1, 9), entry))
        }
        _ => {
            let mut next = ssrc;
            let entry = |c: &mut Choices<'_>| {
                next = next.wrapping_add(1);
                (next, c.u32(), c.u32())
            };
            Written::Delays(ssrc, several(choices, (1, 9), entry))
        }
    }
}

fn words(words: &[u32], out: &mut Vec<u8>) {
    for word in words {
        out.extend(word.to_be_bytes());
    }
}

fn blocks(blocks: &[ReportBlock], out: &mut Vec<u8>) {
    for b in blocks {
        let lost = b.cumulative_lost.cast_unsigned() & 0xFF_FFFF;
        let loss = u32::from(b.fraction_lost) << 24 | lost;
        let rest = [b.jitter, b.last_sr, b.delay_since_last_sr];
        words(&[b.ssrc, loss, b.extended_highest_sequence], out);
        words(&rest, out);
    }
}

impl Written {
    /// All but the length.
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut head = |count: usize, packet_type: u8, first: &[u32]| {
            out.extend([0x80 | count as u8, packet_type, 0, 0]);
            words(first, out);
        };
        match self {
            Written::Sender(info, reports) => {
                let ntp = [(info.ntp >> 32) as u32, info.ntp as u32];
                head(reports.len(), 200, &[info.ssrc, ntp[0], ntp[1]]);
                words(&[info.rtp_timestamp, info.packets, info.octets], out);
                blocks(reports, out);
            }
            Written::Receiver(ssrc, reports) => {
                head(reports.len(), 201, &[*ssrc]);
                blocks(reports, out);
            }
            Written::Description(chunks) => {
                head(chunks.len(), 202, &[]);
                for (ssrc, cname, others) in chunks {
                    words(&[*ssrc], out);
                    if *others {
                        out.extend(b"\x02\x03abc\x06\x00");
                    }
                    out.extend([1, cname.len() as u8]);
                    out.extend(cname);
                    out.push(0);
                    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
                }
            }
            Written::Bye(ssrcs, reason) => {
                head(ssrcs.len(), 203, ssrcs);
                if let Some(reason) = reason {
                    out.push(reason.len() as u8);
                    out.extend(reason);
                    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
                }
            }
            Written::Nack(ssrc, source, pairs) => {
                head(1, 205, &[*ssrc, *source]);
                for pair in pairs {
                    out.extend(pair.packet_id.to_be_bytes());
                    out.extend(pair.following.to_be_bytes());
                }
            }
            Written::PictureLoss(ssrc, source) => head(1, 206, &[*ssrc, *source]),
            Written::FullIntra(ssrc, entries) => {
                head(4, 206, &[*ssrc, 0]);
                for (source, number) in entries {
                    words(&[*source, u32::from(*number) << 24], out);
                }
            }
            Written::Delays(ssrc, entries) => {
                head(0, 207, &[*ssrc]);
                out.extend([5, 0]);
                out.extend((entries.len() as u16 * 3).to_be_bytes());
                for (source, last, delay) in entries {
                    words(&[*source, *last, *delay], out);
                }
            }
        }
    }

    fn compare(&self, read: &Packet<'_>) {
        match self {
            Written::Sender(info, reports) => {
                assert_eq!(read.sender_info(), Some(*info));
                assert!(read.report_blocks().eq(reports.iter().copied()), "{self:?}");
            }
            Written::Receiver(ssrc, reports) => {
                assert_eq!(read.ssrc(), Some(*ssrc));
                assert!(read.report_blocks().eq(reports.iter().copied()), "{self:?}");
            }
            Written::Description(chunks) => {
                assert!(read.described().eq(chunks.iter().map(|c| c.0)), "{self:?}");
                for (ssrc, cname, _) in chunks {
                    assert_eq!(read.cname(*ssrc), Some(cname.as_slice()), "{self:?}");
                }
            }
            Written::Bye(ssrcs, reason) => {
                assert!(read.leaving().eq(ssrcs.iter().copied()), "{self:?}");
                assert_eq!(read.leaving_reason(), reason.as_deref(), "{self:?}");
            }
            Written::Nack(ssrc, source, pairs) => {
                let from = (read.ssrc(), read.feedback_source());
                assert_eq!(from, (Some(*ssrc), Some(*source)));
                assert!(read.nacks().eq(pairs.iter().copied()), "{self:?}");
            }
            Written::PictureLoss(ssrc, source) => {
                let from = (read.ssrc(), read.feedback_source());
                assert_eq!(from, (Some(*ssrc), Some(*source)));
                assert!(read.is_picture_loss());
            }
            Written::FullIntra(ssrc, entries) => {
                assert_eq!(read.ssrc(), Some(*ssrc));
                let requests = read.full_intra_requests();
                assert!(requests.eq(entries.iter().copied()), "{self:?}");
            }
            Written::Delays(ssrc, entries) => {
                assert_eq!(read.ssrc(), Some(*ssrc));
                for (source, last, delay) in entries {
                    let told = read.receiver_delay(*source);
                    assert_eq!(told, Some((*last, *delay)), "{self:?}");
                }
            }
        }
    }
}
