//! MPEG-TS: video, audio and KLV multiplexed in packets of 188, 192 or 204 bytes, cut into
//! datagrams anywhere, through the demultiplexer.

use mirror_media::codec::av1::{Obu, obu};
use mirror_media::files::jxs::Pictures;
use mirror_media::files::obu::{Framing, TemporalUnits};
use mirror_media::{Codec, Format, FrameKind};

use super::source::{AV1, JPEG_XS, Picture, choose, display_times};
use super::{Choices, Receiver, Sent, assert_same, sound};
use crate::ts_writer::{PIDS, Writer};

/// Of [`crate::ts_writer::STREAMS`].
mod stream {
    pub(super) const H264: u8 = 0;
    pub(super) const HEVC: u8 = 1;
    pub(super) const ADTS: u8 = 3;
    pub(super) const MPEG_AUDIO: u8 = 5;
    pub(super) const AC3: u8 = 6;
    pub(super) const EAC3: u8 = 7;
    pub(super) const AV1: u8 = 8;
    pub(super) const OPUS: u8 = 9;
    pub(super) const KLV: u8 = 12;
    pub(super) const JPEG_XS: u8 = 15;
}

/// 90 kHz ticks before the first picture.
const START: u64 = 900_000;

/// What is multiplexed.
#[derive(Debug)]
struct Shape {
    kinds: Vec<u8>,
    stride: usize,
    bounded: bool,
    aligned: bool,
    /// Audio frames begin in one PES packet and end in the next.
    straddles: bool,
}

/// A unit of the video track.
struct VideoUnit {
    payload: Vec<u8>,
    /// As it comes out.
    bytes: Vec<u8>,
    time: u32,
    kind: Option<FrameKind>,
}

/// A video track and up to two others.
pub(super) fn mpeg_ts(choices: &mut Choices<'_>) {
    use stream::{AC3, ADTS, AV1, EAC3, H264, HEVC, JPEG_XS, KLV, MPEG_AUDIO, OPUS};
    let mut kinds = vec![*choices.pick(&[H264, HEVC, H264, HEVC, AV1, JPEG_XS])];
    for _ in 0..choices.below(3) {
        kinds.push(*choices.pick(&[ADTS, MPEG_AUDIO, AC3, EAC3, OPUS, KLV]));
    }
    let shape = Shape {
        kinds,
        stride: *choices.pick(&[188, 188, 188, 192, 204]),
        bounded: choices.flip(),
        aligned: choices.flip(),
        straddles: choices.flip(),
    };
    let video = match shape.kinds[0] {
        H264 => coded(&choose(Codec::H264, choices)),
        HEVC => coded(&choose(Codec::H265, choices)),
        AV1 => av1(choices),
        _ => jpeg_xs(choices),
    };
    let others: Vec<Vec<Vec<u8>>> = shape.kinds[1..]
        .iter()
        .map(|kind| frames(*kind, choices))
        .collect();
    let mut writer = Writer::default();
    writer.tables(&shape.kinds);
    let tables = core::mem::take(&mut writer.bytes);
    let mut tracks = vec![video_packets(&mut writer, &video, &shape, choices)];
    for (track, frames) in (1..).zip(&others) {
        tracks.push(other_packets(&mut writer, track, &shape, frames, choices));
    }
    let stream = [tables, merge(&tracks, choices)].concat();
    let stream = on_grid(&stream, shape.stride);
    let mut receiver = Receiver::new(Format::MpegTs);
    for payload in datagrams(&stream, &shape, choices) {
        receiver.push(&Sent {
            payload,
            timestamp: 0,
            marker: false,
        });
    }
    let (tracks, pipeline) = receiver.finish();
    assert_eq!(pipeline.counters().continuity_errors, 0, "{shape:?}");
    assert_eq!(tracks.len(), shape.kinds.len(), "{shape:?}");
    assert_same(&tracks[0], video.iter().map(|u| u.bytes.as_slice()), &shape);
    for ((came, _), sent) in tracks[0].iter().zip(&video) {
        assert!(sent.kind.is_none_or(|k| k == came.kind), "{shape:?}");
        assert_eq!(came.pts, Some((START + u64::from(sent.time)) as i64));
    }
    for (came, frames) in tracks[1..].iter().zip(&others) {
        assert_same(came, frames.iter().map(Vec::as_slice), &shape);
    }
}

/// H.264 and HEVC: Annex B.
fn coded(pictures: &[Picture]) -> Vec<VideoUnit> {
    let unit = |(picture, time): (&Picture, u32)| VideoUnit {
        payload: picture.bytes(),
        bytes: picture.bytes(),
        time,
        kind: Some(picture.unit.kind),
    };
    let times = display_times(pictures);
    pictures.iter().zip(times).map(unit).collect()
}

/// AV1: OBUs as in files, or with start codes and emulation prevention.
fn av1(choices: &mut Choices<'_>) -> Vec<VideoUnit> {
    let file = *choices.pick(&AV1);
    let start_codes = choices.flip();
    let count = choices.between(1, 14);
    let units = TemporalUnits::new(file, Framing::LowOverhead).take(count);
    let unit = |(time, unit): (u32, mirror_media::files::obu::TemporalUnit<'_>)| {
        let mut payload = Vec::new();
        for obu in unit.obus().map(|o| o.expect("a good file")) {
            let kept = obu.header.kind != obu::DELIMITER || choices.flip();
            if start_codes && kept {
                with_start_code(&obu, &mut payload);
            }
        }
        VideoUnit {
            payload: if start_codes {
                payload
            } else {
                unit.bytes.to_vec()
            },
            bytes: unit.bytes.to_vec(),
            time: time * 3_600,
            kind: None,
        }
    };
    (0..)
        .zip(units.map(|u| u.expect("a good file")))
        .map(unit)
        .collect()
}

fn with_start_code(obu: &Obu<'_>, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    if obu.header.kind == obu::DELIMITER {
        bytes.extend([obu::DELIMITER << 3 | 2, 0]);
    } else {
        obu.write(&mut bytes);
    }
    out.extend([0, 0, 1]);
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        out.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
}

/// JPEG XS: a box of 38 bytes, then the codestream (ISO 13818-1, 2.17).
fn jpeg_xs(choices: &mut Choices<'_>) -> Vec<VideoUnit> {
    let file = *choices.pick(&JPEG_XS);
    let count = choices.between(1, 4);
    let unit = |(time, picture): (u32, mirror_media::files::jxs::Picture<'_>)| {
        let mut payload = 38_u32.to_be_bytes().to_vec();
        payload.extend(b"jxes");
        payload.resize(38, 0);
        payload.extend(picture.bytes);
        VideoUnit {
            payload,
            bytes: picture.bytes.to_vec(),
            time: time * 3_600,
            kind: Some(FrameKind::Idr),
        }
    };
    let pictures = Pictures::new(file).map(|p| p.expect("a good file"));
    (0..).zip(pictures.take(count)).map(unit).collect()
}

/// Frames of audio, KLV units.
fn frames(kind: u8, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let rate = 1 + choices.below(13);
    let count = choices.between(2, 30);
    let frame = |choices: &mut Choices<'_>| match kind {
        stream::ADTS => adts(choices),
        stream::EAC3 => eac3(choices),
        stream::OPUS => opus(choices),
        stream::KLV => klv(choices),
        kind => sound::frame(kind == stream::MPEG_AUDIO, rate, choices),
    };
    (0..count).map(|_| frame(choices)).collect()
}

/// AAC-LC, 48 kHz, stereo, without CRC (ISO 13818-7, 6.2).
fn adts(choices: &mut Choices<'_>) -> Vec<u8> {
    let longest = *choices.pick(&[30, 300, 1_500]);
    let size = choices.between(9, longest);
    let mut frame = vec![
        0xFF,
        0xF1,
        0x4C,
        0x80 | (size >> 11) as u8,
        (size >> 3) as u8,
        (size << 5) as u8 | 0x1F,
        0xFC,
    ];
    choices.filling(&mut frame, size - 7);
    frame
}

/// An independent substream of six blocks, 48 kHz, 2/0 (ETSI TS 102 366, E.1.2).
fn eac3(choices: &mut Choices<'_>) -> Vec<u8> {
    let longest = *choices.pick(&[20, 200, 1_000]);
    let words = choices.between(8, longest);
    let size = words - 1;
    let mut frame = vec![0x0B, 0x77, (size >> 8) as u8, size as u8, 0x34, 16 << 3];
    choices.filling(&mut frame, 2 * words - 6);
    frame
}

/// 20 ms of CELT in one frame.
fn opus(choices: &mut Choices<'_>) -> Vec<u8> {
    let longest = *choices.pick(&[20, 254, 255, 1_200]);
    let mut packet = vec![0xFC];
    let size = choices.between(1, longest);
    choices.filling(&mut packet, size);
    packet
}

/// A universal key, a BER length, a value (SMPTE 336).
pub(super) fn klv(choices: &mut Choices<'_>) -> Vec<u8> {
    let size = choices.between(1, 600);
    let mut unit = vec![6, 0x0E, 0x2B, 0x34, 2, 0x0B, 1, 1];
    unit.extend([0x0E, 1, 3, 1, 1, 0, 0, 0]);
    match size {
        0..128 => unit.push(size as u8),
        _ => unit.extend([0x82, (size >> 8) as u8, size as u8]),
    }
    choices.filling(&mut unit, size);
    unit
}

/// A PES packet for each unit.
fn video_packets(
    writer: &mut Writer,
    units: &[VideoUnit],
    shape: &Shape,
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let id = match shape.kinds[0] {
        stream::AV1 | stream::JPEG_XS => 0xBD,
        _ => 0xE0,
    };
    for unit in units {
        let pts = START + u64::from(unit.time);
        writer.pes(PIDS[0], id, pts, shape.bounded, &unit.payload);
        if choices.once_in(4) {
            // Nothing but an adaptation field.
            writer.packet(PIDS[0], false, &[0], &[]);
        }
    }
    core::mem::take(&mut writer.bytes)
}

/// PES packets of some frames each, the last of which may end in the next packet.
fn other_packets(
    writer: &mut Writer,
    track: usize,
    shape: &Shape,
    frames: &[Vec<u8>],
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let kind = shape.kinds[track];
    let (id, ticks, most) = match kind {
        stream::ADTS => (0xC0, 1_920, 6),
        stream::MPEG_AUDIO => (0xC0, 2_160, 6),
        stream::OPUS => (0xBD, 1_800, 6),
        stream::KLV => (0xBD, 3_000, 1),
        _ => (0xBD, 2_880, 6),
    };
    let straddles = shape.straddles && !matches!(kind, stream::OPUS | stream::KLV);
    let (mut at, mut tail) = (0, Vec::new());
    while at < frames.len() {
        let count = choices.between(1, most).min(frames.len() - at);
        let pts = START + at as u64 * ticks;
        let mut data = core::mem::take(&mut tail);
        for frame in &frames[at..at + count] {
            if kind == stream::OPUS {
                // Its control header (Opus in MPEG-TS, 4.3).
                data.extend([0x7F, 0xE0]);
                data.resize(data.len() + frame.len() / 255, 0xFF);
                data.push((frame.len() % 255) as u8);
            }
            data.extend(frame);
        }
        at += count;
        // In each packet a frame begins.
        if straddles && at + 1 < frames.len() {
            let (head, rest) = frames[at].split_at(choices.below(frames[at].len()));
            if !head.is_empty() {
                data.extend(head);
                tail = rest.to_vec();
                at += 1;
            }
        }
        writer.pes(PIDS[track], id, pts, true, &data);
    }
    core::mem::take(&mut writer.bytes)
}

/// The tracks' packets, each track's in their order.
fn merge(tracks: &[Vec<u8>], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut queues: Vec<_> = tracks.iter().map(|bytes| bytes.chunks(188)).collect();
    let mut out = Vec::new();
    while !queues.is_empty() {
        let at = choices.below(queues.len());
        let run = choices.between(1, 12);
        out.extend(queues[at].by_ref().take(run).flatten());
        if queues[at].len() == 0 {
            drop(queues.remove(at));
        }
    }
    out
}

/// 192: four bytes before each packet; 204: sixteen behind it.
fn on_grid(packets: &[u8], stride: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, packet) in (0_u32..).zip(packets.chunks(188)) {
        if stride == 192 {
            out.extend((n & 0x3FFF_FFFF).to_be_bytes());
        }
        out.extend(packet);
        if stride == 204 {
            out.extend([0xA5; 16]);
        }
    }
    out
}

/// Whole packets, or pieces of any size, but no two in a row that are shorter than a packet: one
/// that lies in more than five payloads is given up. Nor is the first one shorter: a few bytes of
/// an arrival time alone count as a payload without packets.
fn datagrams(stream: &[u8], shape: &Shape, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let (mut rest, mut least) = (stream, shape.stride);
    while !rest.is_empty() {
        let size = if shape.aligned {
            shape.stride * choices.between(1, 7)
        } else {
            choices.between(least, 1_472)
        };
        least = if size < shape.stride { shape.stride } else { 1 };
        let (now, after) = rest.split_at(size.min(rest.len()));
        out.push(now.to_vec());
        rest = after;
    }
    out
}
