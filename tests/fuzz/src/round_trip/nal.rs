//! H.264 (RFC 6184) and HEVC (RFC 7798): single NAL unit packets, aggregates and fragments, with
//! and without decoding order numbers.

use mirror_media::{Codec, FormatParameters, PayloadFormat, PayloadHint};

use super::source::{choose, display_times};
use super::{Choices, Receiver, Sent, assert_same};

/// RFC 6184, non-interleaved mode.
pub(super) fn h264(choices: &mut Choices<'_>) {
    stream(Codec::H264, PayloadFormat::H264, choices);
}

/// RFC 7798.
pub(super) fn h265(choices: &mut Choices<'_>) {
    stream(Codec::H265, PayloadFormat::H265, choices);
}

/// How a stream is packetised.
#[derive(Debug)]
struct Packetiser {
    codec: Codec,
    /// Bytes of a payload, at most.
    mtu: usize,
    /// HEVC: payloads carry decoding order numbers (DONL, DOND).
    numbered: bool,
    /// The next NAL unit's number.
    number: u16,
    /// One packet in so many is an aggregate, if it can be.
    aggregates: usize,
    /// Fragments are as long as they can be.
    full: bool,
}

fn stream(codec: Codec, format: PayloadFormat, choices: &mut Choices<'_>) {
    let pictures = choose(codec, choices);
    let mut packetiser = Packetiser {
        codec,
        mtu: *choices.pick(&[1_400, 1_200, 600, 250, 100]),
        numbered: codec == Codec::H265 && choices.once_in(3),
        number: choices.u16(),
        aggregates: *choices.pick(&[1, 2, 1_000]),
        full: choices.flip(),
    };
    let markers = !choices.once_in(5);
    let first = choices.u32();
    let times = display_times(&pictures);
    let mut sent = Vec::new();
    for (picture, time) in pictures.iter().zip(&times) {
        let payloads = packetiser.picture(&picture.nals, choices);
        let count = payloads.len();
        for (n, payload) in payloads.into_iter().enumerate() {
            assert!(payload.len() <= packetiser.mtu);
            sent.push(Sent {
                payload,
                timestamp: first.wrapping_add(*time),
                marker: markers && n + 1 == count,
            });
        }
    }
    let parameters = FormatParameters {
        packetization_mode: 1,
        max_don_diff: packetiser.numbered.then_some(1),
        depack_buf_nalus: packetiser.numbered.then_some(1),
        ..FormatParameters::default()
    };
    let receiver = Receiver::rtp(PayloadHint { format, parameters }, 90_000);
    let came = receiver.all(&sent);
    let bytes: Vec<Vec<u8>> = pictures.iter().map(super::source::Picture::bytes).collect();
    assert_same(&came, bytes.iter().map(Vec::as_slice), &packetiser);
    let base = came.first().and_then(|(u, _)| u.pts).unwrap_or(0) - i64::from(times[0]);
    for ((unit, _), (picture, time)) in came.iter().zip(pictures.iter().zip(&times)) {
        assert_eq!(unit.kind, picture.unit.kind, "{packetiser:?}");
        assert_eq!(unit.pts, Some(base + i64::from(*time)), "{packetiser:?}");
        assert_eq!(unit.temporal_id, picture.unit.temporal_id);
        assert_eq!(unit.discardable, picture.unit.discardable);
    }
}

impl Packetiser {
    fn header_bytes(&self) -> usize {
        if self.codec == Codec::H264 { 1 } else { 2 }
    }

    /// The payloads of a picture.
    fn picture(&mut self, nals: &[Vec<u8>], choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut rest = nals;
        while let Some((nal, after)) = rest.split_first() {
            let together = self.how_many_fit(rest);
            if together > 1 && choices.once_in(self.aggregates) {
                let (some, after) = rest.split_at(choices.between(2, together));
                out.push(self.aggregate(some));
                rest = after;
                continue;
            }
            let donl = 2 * usize::from(self.numbered);
            let fits = nal.len() + donl <= self.mtu;
            if fits && (nal.len() < 8 || !choices.once_in(6)) {
                out.push(self.single(nal));
            } else {
                self.fragments(nal, choices, &mut out);
            }
            rest = after;
        }
        out
    }

    /// How many of the next NAL units fit into one aggregate.
    fn how_many_fit(&self, nals: &[Vec<u8>]) -> usize {
        let mut bytes = self.header_bytes() + usize::from(self.numbered);
        nals.iter()
            .take(8)
            .take_while(|nal| {
                bytes += 2 + nal.len() + usize::from(self.numbered);
                bytes <= self.mtu
            })
            .count()
    }

    fn next_number(&mut self) -> u16 {
        let number = self.number;
        self.number = number.wrapping_add(1);
        number
    }

    /// RFC 6184, 5.6; RFC 7798, 4.4.1: behind the header a DONL.
    fn single(&mut self, nal: &[u8]) -> Vec<u8> {
        if !self.numbered {
            return nal.to_vec();
        }
        let mut out = nal[..2].to_vec();
        out.extend(self.next_number().to_be_bytes());
        out.extend(&nal[2..]);
        out
    }

    /// STAP-A (RFC 6184, 5.7.1), AP (RFC 7798, 4.4.2).
    fn aggregate(&mut self, nals: &[Vec<u8>]) -> Vec<u8> {
        let mut out = if self.codec == Codec::H264 {
            let importance = nals.iter().map(|n| n[0] & 0x60).max().unwrap_or(0);
            vec![importance | 24]
        } else {
            let lowest = nals.iter().map(|n| n[1] & 7).min().unwrap_or(1);
            vec![48 << 1, lowest]
        };
        for (n, nal) in nals.iter().enumerate() {
            if self.numbered {
                let number = self.next_number();
                match n {
                    0 => out.extend(number.to_be_bytes()),
                    // DOND: one less than the difference.
                    _ => out.push(0),
                }
            }
            out.extend((nal.len() as u16).to_be_bytes());
            out.extend(nal);
        }
        out
    }

    /// FU-A (RFC 6184, 5.8), FU (RFC 7798, 4.4.3): at least two.
    fn fragments(&mut self, nal: &[u8], choices: &mut Choices<'_>, out: &mut Vec<Vec<u8>>) {
        let head = self.header_bytes();
        let (indicator, kind) = match self.codec {
            Codec::H264 => (vec![nal[0] & 0xE0 | 28], nal[0] & 0x1F),
            _ => (vec![nal[0] & 0x81 | 49 << 1, nal[1]], nal[0] >> 1 & 0x3F),
        };
        let mut rest = &nal[head..];
        let mut first = true;
        while !rest.is_empty() {
            let donl = first && self.numbered;
            let room = self.mtu - head - 1 - 2 * usize::from(donl);
            // The first is never all of it.
            let most = room.min(rest.len() - usize::from(first));
            let size = if self.full {
                most
            } else {
                choices.between(most.div_ceil(3), most)
            };
            let (now, after) = rest.split_at(size);
            let mut payload = indicator.clone();
            payload.push(kind | u8::from(first) << 7 | u8::from(after.is_empty()) << 6);
            if donl {
                payload.extend(self.next_number().to_be_bytes());
            }
            payload.extend(now);
            out.push(payload);
            (rest, first) = (after, false);
        }
    }
}
