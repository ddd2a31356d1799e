//! MPEG-TS: video and audio multiplexed in packets of 188, 192 or 204 bytes, cut into datagrams
//! anywhere, through the demultiplexer.

use mirror_media::{Codec, Format};

use super::source::{Picture, choose, display_times};
use super::{Choices, Receiver, Sent, assert_same, sound};
use crate::ts_writer::{PIDS, Writer};

/// Of [`crate::ts_writer::STREAMS`].
const H264: u8 = 0;
const HEVC: u8 = 1;
const ADTS: u8 = 3;
const MPEG_AUDIO: u8 = 5;
const AC3: u8 = 6;
/// 90 kHz ticks before the first picture.
const START: u64 = 900_000;

/// What is multiplexed.
#[derive(Debug)]
struct Shape {
    kinds: Vec<u8>,
    stride: usize,
    bounded: bool,
    aligned: bool,
}

/// A video track and up to two of audio.
pub(super) fn mpeg_ts(choices: &mut Choices<'_>) {
    let codec = *choices.pick(&[Codec::H264, Codec::H265]);
    let mut kinds = vec![if codec == Codec::H264 { H264 } else { HEVC }];
    for _ in 0..choices.below(3) {
        kinds.push(*choices.pick(&[ADTS, MPEG_AUDIO, AC3]));
    }
    let shape = Shape {
        kinds,
        stride: *choices.pick(&[188, 188, 188, 192, 204]),
        bounded: choices.flip(),
        aligned: choices.flip(),
    };
    let pictures = choose(codec, choices);
    let sounds: Vec<Vec<Vec<u8>>> = shape.kinds[1..]
        .iter()
        .map(|kind| audio(*kind, choices))
        .collect();
    let mut writer = Writer::default();
    writer.tables(&shape.kinds);
    let tables = core::mem::take(&mut writer.bytes);
    let mut tracks = vec![video_packets(&mut writer, &pictures, &shape, choices)];
    for (track, frames) in (1..).zip(&sounds) {
        tracks.push(audio_packets(&mut writer, track, &shape, frames, choices));
    }
    let mut stream = tables;
    stream.extend(merge(tracks, choices));
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
    let c = pipeline.counters();
    assert_eq!(c.continuity_errors, 0, "{shape:?}");
    assert_eq!(tracks.len(), shape.kinds.len(), "{shape:?}");
    let bytes: Vec<Vec<u8>> = pictures.iter().map(Picture::bytes).collect();
    assert_same(&tracks[0], bytes.iter().map(Vec::as_slice), &shape);
    let times = display_times(&pictures);
    for ((unit, _), (picture, time)) in tracks[0].iter().zip(pictures.iter().zip(times)) {
        assert_eq!(unit.kind, picture.unit.kind, "{shape:?}");
        assert_eq!(unit.pts, Some((START + u64::from(time)) as i64));
    }
    for (came, frames) in tracks[1..].iter().zip(&sounds) {
        assert_same(came, frames.iter().map(Vec::as_slice), &shape);
    }
}

fn audio(kind: u8, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let rate = 1 + choices.below(13);
    let count = choices.between(2, 30);
    let frame = |choices: &mut Choices<'_>| match kind {
        ADTS => adts(choices),
        kind => sound::frame(kind == MPEG_AUDIO, rate, choices),
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

/// A PES packet for each picture.
fn video_packets(
    writer: &mut Writer,
    pictures: &[Picture],
    shape: &Shape,
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    for (picture, time) in pictures.iter().zip(display_times(pictures)) {
        let pts = START + u64::from(time);
        writer.pes(PIDS[0], 0xE0, pts, shape.bounded, &picture.bytes());
        if choices.once_in(4) {
            // Nothing but an adaptation field.
            writer.packet(PIDS[0], false, &[0], &[]);
        }
    }
    core::mem::take(&mut writer.bytes)
}

/// PES packets of some frames each.
fn audio_packets(
    writer: &mut Writer,
    track: usize,
    shape: &Shape,
    frames: &[Vec<u8>],
    choices: &mut Choices<'_>,
) -> Vec<u8> {
    let (id, ticks) = match shape.kinds[track] {
        ADTS => (0xC0, 1_920),
        MPEG_AUDIO => (0xC0, 2_160),
        _ => (0xBD, 2_880),
    };
    let mut at = 0;
    while at < frames.len() {
        let count = choices.between(1, 6).min(frames.len() - at);
        let data: Vec<u8> = frames[at..at + count].concat();
        let pts = START + at as u64 * ticks;
        writer.pes(PIDS[track], id, pts, true, &data);
        at += count;
    }
    core::mem::take(&mut writer.bytes)
}

/// The tracks' packets, each track's in their order.
fn merge(tracks: Vec<Vec<u8>>, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut queues: Vec<_> = tracks.iter().map(|bytes| bytes.chunks(188)).collect();
    let mut out = Vec::new();
    while !queues.is_empty() {
        let at = choices.below(queues.len());
        let run = choices.between(1, 12);
        for _ in 0..run {
            match queues[at].next() {
                Some(packet) => out.extend(packet),
                None => {
                    drop(queues.remove(at));
                    break;
                }
            }
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

/// Whole packets, or pieces of any size.
fn datagrams(stream: &[u8], shape: &Shape, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let size = if shape.aligned {
            shape.stride * choices.between(1, 7)
        } else {
            choices.between(1, 1_472)
        };
        let (now, after) = rest.split_at(size.min(rest.len()));
        out.push(now.to_vec());
        rest = after;
    }
    out
}
