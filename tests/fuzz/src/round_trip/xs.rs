//! JPEG XS (RFC 9134): codestream mode, and slice mode in order or out of it.

use mirror_media::PayloadFormat;
use mirror_media::files::jxs::{Picture, Pictures};

use super::source::JPEG_XS;
use super::{Choices, Receiver, Sent, assert_same};

/// SEP of the header segment in slice mode.
const HEADER_SEGMENT: usize = 0x7FF;

/// Pictures.
pub(super) fn jpegxs(choices: &mut Choices<'_>) {
    let file = *choices.pick(&JPEG_XS);
    let pictures: Vec<_> = Pictures::new(file)
        .map(|picture| picture.expect("a good file"))
        .take(choices.between(1, 4))
        .collect();
    let mtu = *choices.pick(&[1_400, 1_000, 300]);
    let slices = choices.flip();
    let first = choices.u32();
    let mut sent = Vec::new();
    for (n, picture) in (0_u32..).zip(&pictures) {
        let mut payloads = if slices {
            slice_mode(picture, n, mtu, choices)
        } else {
            let units = [(0, picture.bytes)];
            packetise(&units, 1 << 31, n, mtu, choices)
        };
        let count = payloads.len();
        for (k, payload) in payloads.drain(..).enumerate() {
            sent.push(Sent {
                payload,
                timestamp: first.wrapping_add(n * 3_600),
                marker: k + 1 == count,
            });
        }
    }
    let came = Receiver::rtp(PayloadFormat::Jxsv, 90_000).all(&sent);
    assert_same(&came, pictures.iter().map(|p| p.bytes), &(mtu, slices));
}

/// The header segment, then the slices, which need not come in their order (T = 0).
fn slice_mode(
    picture: &Picture<'_>,
    n: u32,
    mtu: usize,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    let units = segments(picture);
    let sequential = choices.flip();
    let flags = u32::from(sequential) << 31 | 1 << 30;
    let mut payloads = packetise(&units[..1], flags, n, mtu, choices);
    let mut by_slice: Vec<Vec<Vec<u8>>> = units[1..]
        .iter()
        .map(|unit| packetise(&[*unit], flags, n, mtu, choices))
        .collect();
    if !sequential {
        choices.disorder(&mut by_slice, 3);
    }
    payloads.extend(by_slice.into_iter().flatten());
    payloads
}

/// The header segment and the slices, with their SEP.
fn segments<'a>(picture: &Picture<'a>) -> Vec<(usize, &'a [u8])> {
    let bytes = picture.bytes;
    let mut at = picture.header.first_slice.expect("a header with slices");
    let mut units = vec![(HEADER_SEGMENT, &bytes[..at])];
    for slice in 0..picture.header.slices() as usize {
        // SLH, its length, the slice's number.
        let next = [0xFF, 0x20, 0, 4, 0, slice as u8 + 1];
        let rest = &bytes[at..];
        let end = rest.windows(6).position(|w| w == next);
        let end = end.unwrap_or(rest.len());
        units.push((slice, &rest[..end]));
        at += end;
    }
    assert_eq!(at, bytes.len(), "the slices are all of it");
    units
}

/// Each unit in packets that count from 0, the last one with L. `flags`: T and K.
fn packetise(
    units: &[(usize, &[u8])],
    flags: u32,
    frame: u32,
    mtu: usize,
    choices: &mut Choices<'_>,
) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (separate, unit) in units {
        let mut rest = *unit;
        let mut number = 0;
        while !rest.is_empty() {
            let most = rest.len().min(mtu - 4);
            let size = if choices.once_in(4) {
                choices.between(1, most)
            } else {
                most
            };
            let (now, after) = rest.split_at(size);
            // In codestream mode P carries into SEP.
            let counters = if flags & 1 << 30 != 0 {
                (*separate as u32) << 11 | number
            } else {
                number
            };
            let last = u32::from(after.is_empty()) << 29;
            let word = flags | last | (frame & 31) << 22 | counters;
            out.push([&word.to_be_bytes(), now].concat());
            number += 1;
            rest = after;
        }
    }
    out
}
