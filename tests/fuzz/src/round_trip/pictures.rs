//! Video of which packets of one timestamp are a picture: MPEG-1/2 video (RFC 2250), VP8 (RFC 7741)
//! and VP9 (RFC 9628), with all that their headers may hold, cut as the input chooses.

use std::sync::OnceLock;

use mirror_media::files::annexb::{self, AnnexB};
use mirror_media::{AccessUnit, Codec, FrameKind, Limits, PayloadFormat};

use super::{Came, Choices, Receiver, Sent, assert_same};

/// Of a slice of MPEG video so many bytes stay as they were.
const SLICE_HEAD: usize = 12;

/// A picture of MPEG video: what begins with each of its start codes.
struct MpvPicture {
    parts: Vec<Vec<u8>>,
    unit: AccessUnit,
}

/// The vector's pictures, taken apart once.
fn mpv_pictures() -> &'static [MpvPicture] {
    static PICTURES: OnceLock<Vec<MpvPicture>> = OnceLock::new();
    PICTURES.get_or_init(|| {
        let file = include_bytes!("../../../vectors/media/ffprobe_mpeg2_interlaced.m2v");
        let mut reader = AnnexB::new(Codec::Mpeg2Video, &Limits::default()).expect("start codes");
        reader.push(file);
        reader.finish();
        let units = core::iter::from_fn(|| reader.poll_unit());
        let picture = |read: annexb::FileUnit| {
            let end = annexb::offset_of(read.unit.end) as usize;
            MpvPicture {
                parts: at_start_codes(&file[read.offset as usize..end]),
                unit: read.unit,
            }
        };
        let all: Vec<MpvPicture> = units.map(picture).collect();
        assert!(all.len() > 10 && all.iter().all(|p| !p.unit.damaged));
        all
    })
}

/// Zeros before the first are nobody's.
fn at_start_codes(bytes: &[u8]) -> Vec<Vec<u8>> {
    let is_code = |at: &usize| bytes[*at..].starts_with(&[0, 0, 1]);
    let mut starts: Vec<usize> = (0..bytes.len()).filter(is_code).collect();
    starts.push(bytes.len());
    starts
        .windows(2)
        .map(|w| bytes[w[0]..w[1]].to_vec())
        .collect()
}

fn is_mpv_slice(part: &[u8]) -> bool {
    (1..=0xAF).contains(&part[3])
}

/// MPEG-2 video: RFC 2250, 3.
pub(super) fn mpv(choices: &mut Choices<'_>) {
    let pictures = mpv_pictures();
    let count = choices.between(1, pictures.len());
    let mtu = *choices.pick(&[1_400, 700, 200, 60]);
    let (markers, extension) = (!choices.once_in(5), choices.once_in(3));
    let first = choices.u32();
    let (mut sent, mut bytes) = (Vec::new(), Vec::new());
    // From the beginning: a sequence header tells what follows.
    for picture in &pictures[..count] {
        let mut parts = picture.parts.clone();
        for slice in parts.iter_mut().filter(|part| is_mpv_slice(part)) {
            if choices.once_in(3) {
                let size = choices.between(SLICE_HEAD, 2_000);
                slice.truncate(size);
                let more = size - slice.len();
                choices.filling(slice, more);
            }
        }
        let place = picture.unit.order.expect("a temporal reference");
        let timestamp = first.wrapping_add(display_place(pictures, place) * 3_600);
        let payloads = mpv_payloads(&parts, picture.unit.kind, mtu, extension, choices);
        let last = payloads.len() - 1;
        for (n, payload) in payloads.into_iter().enumerate() {
            assert!(payload.len() <= mtu);
            sent.push(Sent {
                payload,
                timestamp,
                marker: markers && n == last,
            });
        }
        bytes.push(parts.concat());
    }
    let what = (count, mtu, markers, extension);
    let came = Receiver::rtp(PayloadFormat::Mpv, 90_000).all(&sent);
    assert_same(&came, bytes.iter().map(Vec::as_slice), &what);
    for ((unit, _), picture) in came.iter().zip(pictures) {
        assert_eq!(unit.kind, picture.unit.kind, "{what:?}");
        assert_eq!(unit.discardable, picture.unit.discardable, "{what:?}");
    }
    assert_times(&came, &sent);
}

fn display_place(pictures: &[MpvPicture], order: mirror_media::DisplayOrder) -> u32 {
    let before = pictures.iter().filter(|p| p.unit.order < Some(order));
    before.count() as u32
}

/// 3.1: headers stand at a payload's beginning, slices whole behind them or cut over several.
fn mpv_payloads(
    parts: &[Vec<u8>],
    kind: FrameKind,
    mtu: usize,
    extension: bool,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    let picture_type: u8 = match kind {
        FrameKind::P => 2,
        FrameKind::B => 3,
        _ => 1,
    };
    let has_sequence = parts.iter().any(|part| part[3] == 0xB3);
    // 3.4: T, temporal reference, S with the sequence header, B and E, picture type.
    let header = |sequence: bool, begins: bool, ends: bool| {
        let flags = u8::from(sequence) << 5 | u8::from(begins) << 4 | u8::from(ends) << 3;
        let mut header = vec![u8::from(extension) << 2, 0, flags | picture_type, 0];
        if extension {
            header.extend([0x40, 0, 0, 0]);
        }
        header
    };
    let room = mtu - header(false, false, false).len();
    let mut out = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    let mut is_first = true;
    let mut close = |open: &mut Vec<u8>, begins: bool, ends: bool| {
        if !open.is_empty() {
            let sequence = has_sequence && core::mem::take(&mut is_first);
            out.push([header(sequence, begins, ends), core::mem::take(open)].concat());
        }
    };
    for part in parts {
        if open.len() + part.len() > room || choices.once_in(8) {
            close(&mut open, true, true);
        }
        let mut rest = &part[..];
        while rest.len() > room {
            // No start code is cut.
            let (now, after) = rest.split_at(choices.between(room.div_ceil(2), room));
            open.extend(now);
            close(&mut open, rest.len() == part.len(), false);
            rest = after;
        }
        open.extend(rest);
        if rest.len() < part.len() {
            close(&mut open, false, true);
        }
    }
    close(&mut open, true, true);
    out
}

/// Units have the times of their packets, from the first on.
fn assert_times(came: &[Came], sent: &[Sent]) {
    let mut stamps: Vec<u32> = sent.iter().map(|s| s.timestamp).collect();
    stamps.dedup();
    let base = came.first().and_then(|(u, _)| u.pts).unwrap_or(0);
    for ((unit, _), stamp) in came.iter().zip(&stamps) {
        let after = stamp.wrapping_sub(stamps[0]).cast_signed();
        assert_eq!(unit.pts, Some(base + i64::from(after)));
    }
}

/// What is known of a picture of VP8 or VP9 that was sent.
struct Known {
    bytes: Vec<u8>,
    kind: FrameKind,
    discardable: bool,
    temporal_id: u8,
}

/// How the descriptors of a stream are written.
#[derive(Debug)]
struct Descriptors {
    mtu: usize,
    /// Picture numbers of 7 (1) or 15 bits (2 bytes); 0: none.
    number_bytes: usize,
    number: u16,
    temporal: bool,
    /// VP8: key frame indexes.
    key_index: bool,
    /// VP9: in flexible mode, layers of each picture.
    flexible: bool,
    layers: u8,
}

impl Descriptors {
    fn choose(choices: &mut Choices<'_>) -> Self {
        Descriptors {
            mtu: *choices.pick(&[1_400, 600, 100, 40]),
            number_bytes: choices.below(3),
            number: choices.u16(),
            temporal: choices.flip(),
            key_index: choices.flip(),
            flexible: choices.flip(),
            layers: choices.between(1, 3) as u8,
        }
    }

    fn put_number(&self, out: &mut Vec<u8>) {
        match self.number_bytes {
            1 => out.push(self.number as u8 & 0x7F),
            2 => out.extend((self.number | 0x8000).to_be_bytes()),
            _ => {}
        }
    }
}

fn check(came: &[Came], known: &[Known], sent: &[Sent], what: &Descriptors) {
    assert_same(came, known.iter().map(|k| &k.bytes[..]), what);
    for ((unit, _), known) in came.iter().zip(known) {
        assert_eq!(unit.kind, known.kind, "{what:?}");
        assert_eq!(unit.discardable, known.discardable, "{what:?}");
        assert_eq!(unit.temporal_id, known.temporal_id, "{what:?}");
    }
    assert_times(came, sent);
}

/// VP8: RFC 7741, 4.
pub(super) fn vp8(choices: &mut Choices<'_>) {
    let mut how = Descriptors::choose(choices);
    let (width, height) = (choices.between(1, 4_000), choices.between(1, 4_000));
    let mut time = choices.u32();
    let (mut sent, mut known) = (Vec::new(), Vec::new());
    for n in 0..choices.between(1, 10) {
        let is_key = n == 0 || choices.once_in(6);
        let discardable = !is_key && choices.flip();
        let temporal_id = if how.temporal && !is_key {
            choices.below(4) as u8
        } else {
            0
        };
        let partitions = vp8_partitions(is_key, width, height, choices);
        let fixed = u8::from(discardable) << 5;
        let payloads = vp8_payloads(&partitions, fixed, temporal_id, &how, choices);
        let last = payloads.len() - 1;
        sent.extend(payloads.into_iter().enumerate().map(|(n, payload)| Sent {
            payload,
            timestamp: time,
            marker: n == last,
        }));
        known.push(Known {
            bytes: partitions.concat(),
            kind: if is_key { FrameKind::Idr } else { FrameKind::P },
            discardable,
            temporal_id,
        });
        how.number = how.number.wrapping_add(1);
        time = time.wrapping_add(3_000);
    }
    let came = Receiver::rtp(PayloadFormat::Vp8, 90_000).all(&sent);
    check(&came, &known, &sent, &how);
}

/// RFC 6386, 9.1: a frame tag, a key frame's start code and size, the rest of the first partition,
/// and others.
fn vp8_partitions(
    is_key: bool,
    width: usize,
    height: usize,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    let body = choices.between(1, 3_000);
    let mut first = vec![0x10 | u8::from(!is_key), 0, 0];
    if is_key {
        first.extend([0x9D, 0x01, 0x2A]);
        first.extend((width as u16).to_le_bytes());
        first.extend((height as u16).to_le_bytes());
    }
    choices.filling(&mut first, body);
    let mut out = vec![first];
    for _ in 0..choices.below(9) {
        let (mut partition, size) = (Vec::new(), choices.between(1, 900));
        choices.filling(&mut partition, size);
        out.push(partition);
    }
    out
}

fn vp8_payloads(
    partitions: &[Vec<u8>],
    fixed: u8,
    temporal_id: u8,
    how: &Descriptors,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    // 4.2: X, R, N, S, R and PID; I, L, T and K.
    let flags = u8::from(how.number_bytes > 0) << 7
        | u8::from(how.temporal) << 6
        | u8::from(how.temporal) << 5
        | u8::from(how.key_index) << 4;
    let descriptor = |begins: bool, partition: usize| {
        let first = fixed | u8::from(flags > 0) << 7 | u8::from(begins) << 4;
        let mut out = vec![first | partition.min(7) as u8];
        if flags > 0 {
            out.push(flags);
            how.put_number(&mut out);
            if how.temporal {
                out.push(how.number as u8);
            }
            if how.temporal || how.key_index {
                out.push(temporal_id << 6 | 0x05);
            }
        }
        out
    };
    // 4.4: a payload ends where a partition does, or partitions are not looked at.
    let whole = [partitions.concat()];
    let pieces = if choices.flip() { partitions } else { &whole };
    let room = how.mtu - descriptor(true, 0).len();
    let mut out = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let most = room.min(rest.len());
            // What begins a picture tells its size.
            let least = if rest.len() == piece.len() {
                most.min(10)
            } else {
                1
            };
            let (now, after) = rest.split_at(choices.between(least.max(most / 2), most));
            out.push([&descriptor(rest.len() == piece.len(), number), now].concat());
            rest = after;
        }
    }
    out
}

/// VP9: RFC 9628, 4.
pub(super) fn vp9(choices: &mut Choices<'_>) {
    let mut how = Descriptors::choose(choices);
    // 4.2: what predicts from where is told by picture numbers.
    if how.flexible {
        how.number_bytes = how.number_bytes.max(1);
    }
    let (width, height) = (choices.between(1, 4_000), choices.between(1, 4_000));
    let mut time = choices.u32();
    let (mut sent, mut known) = (Vec::new(), Vec::new());
    for n in 0..choices.between(1, 10) {
        let is_key = n == 0 || choices.once_in(6);
        let temporal_id = if how.temporal && !is_key {
            choices.below(8) as u8
        } else {
            0
        };
        let mut bytes = Vec::new();
        for layer in 0..how.layers {
            let frame = vp9_frame(is_key && layer == 0, width, height, choices);
            let is_last = layer + 1 == how.layers;
            let place = (is_key, temporal_id, layer);
            let payloads = vp9_payloads(&frame, place, (width, height), &how, choices);
            let last = payloads.len() - 1;
            sent.extend(payloads.into_iter().enumerate().map(|(n, payload)| Sent {
                payload,
                timestamp: time,
                marker: is_last && n == last,
            }));
            bytes.extend(frame);
        }
        known.push(Known {
            bytes,
            kind: if is_key { FrameKind::Idr } else { FrameKind::P },
            discardable: false,
            temporal_id,
        });
        how.number = how.number.wrapping_add(1);
        time = time.wrapping_add(3_000);
    }
    let came = Receiver::rtp(PayloadFormat::Vp9, 90_000).all(&sent);
    check(&came, &known, &sent, &how);
}

/// VP9's uncompressed_header (6.2 of its specification) of profile 0, as far as it is read.
fn vp9_frame(is_key: bool, width: usize, height: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut out = vec![0x80 | u8::from(!is_key) << 2 | 0x02];
    if is_key {
        out.extend([0x49, 0x83, 0x42]);
        // Colour space 1, narrow range, and the sizes behind these four bits.
        let sizes = (width as u64 - 1) << 16 | (height as u64 - 1);
        out.extend_from_slice(&(0b0010 << 36 | sizes << 4).to_be_bytes()[3..]);
    }
    let body = choices.between(1, 2_500);
    choices.filling(&mut out, body);
    out
}

fn vp9_payloads(
    frame: &[u8],
    (is_key, temporal_id, layer): (bool, u8, u8),
    (width, height): (usize, usize),
    how: &Descriptors,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    let layered = how.temporal || how.layers > 1;
    let predicted = !is_key;
    let structure = is_key && layer == 0 && how.layers > 1;
    // 4.2: I, P, L, F, B, E, V, Z.
    let descriptor = |begins: bool, ends: bool| {
        let has_structure = structure && begins;
        let mut out = vec![
            u8::from(how.number_bytes > 0) << 7
                | u8::from(predicted) << 6
                | u8::from(layered) << 5
                | u8::from(how.flexible) << 4
                | u8::from(begins) << 3
                | u8::from(ends) << 2
                | u8::from(has_structure) << 1
                | u8::from(layer + 1 == how.layers),
        ];
        how.put_number(&mut out);
        if layered {
            out.push(temporal_id << 5 | layer << 1 | u8::from(layer > 0));
            if !how.flexible {
                out.push(how.number as u8);
            }
        }
        if how.flexible && predicted {
            out.extend([1 << 1 | 1, 2 << 1]);
        }
        if has_structure {
            // 4.2.1: sizes of all layers, and a group of one picture with one reference.
            out.push((how.layers - 1) << 5 | 0x18);
            for _ in 0..how.layers {
                out.extend((width as u16).to_be_bytes());
                out.extend((height as u16).to_be_bytes());
            }
            out.extend([1, 0x04, 1]);
        }
        out
    };
    let room = how.mtu
        - descriptor(true, true)
            .len()
            .max(descriptor(false, true).len());
    let mut out = Vec::new();
    let mut rest = frame;
    while !rest.is_empty() {
        let most = room.min(rest.len());
        let begins = rest.len() == frame.len();
        let least = if begins { most.min(10) } else { 1 };
        let (now, after) = rest.split_at(choices.between(least.max(most / 2), most));
        out.push([&descriptor(begins, after.is_empty()), now].concat());
        rest = after;
    }
    out
}
