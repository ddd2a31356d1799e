//! MPEG-TS syntax as the multiplexer writes it: packets and adaptation fields, PES headers,
//! program tables with their CRC, clock fields (ISO 13818-1). Called by [`super::ts`] when a
//! template is made, and for the fields that are patched per packet.

use super::VideoCodec;
use super::stamp::STAMP_BYTES;
use super::ts::{AUDIO_PID, TS_PACKET, TsShape, VIDEO_PID};

/// Where the program map table is.
pub(super) const PMT_PID: u16 = 0x1000;
/// Null packets (2.4.3.3).
pub(super) const NULL_PID: u16 = 0x1FFF;
const PTS_MASK: u64 = (1 << 33) - 1;

/// PES packet of one access unit, its time stamps zero (ISO 13818-1, 2.4.3.6).
pub(super) fn video_pes(nals: &[Vec<u8>], with_dts: bool) -> Vec<u8> {
    let bytes: usize = nals.iter().map(|n| n.len() + 4).sum();
    let mut pes = Vec::with_capacity(bytes + 19);
    // unbounded, data aligned
    pes.extend_from_slice(&[0, 0, 1, 0xE0, 0, 0, 0x84]);
    let (flags, header) = if with_dts { (0xC0, 10) } else { (0x80, 5) };
    pes.extend_from_slice(&[flags, header]);
    pes.resize(pes.len() + usize::from(header), 0);
    for nal in nals {
        pes.extend_from_slice(&[0, 0, 0, 1]);
        pes.extend_from_slice(nal);
    }
    pes
}

/// What an adaptation field holds besides stuffing (2.4.3.4).
#[derive(Clone, Copy, Default)]
pub(super) struct Adaptation {
    pub(super) pcr: bool,
    pub(super) random_access: bool,
    pub(super) stamp: bool,
}

/// The four bytes before everything (2.4.3.2). `control`: adaptation_field_control.
pub(super) fn ts_header(pid: u16, start: bool, control: u8, counter: u64) -> [u8; 4] {
    let [high, low] = pid.to_be_bytes();
    [
        0x47,
        high & 0x1F | u8::from(start) << 6,
        low,
        control << 4 | (counter % 16) as u8,
    ]
}

/// One TS packet with the beginning of `data`; returns it, the bytes taken and the offset of its
/// payload.
pub(super) fn packet(
    pid: u16,
    start: bool,
    counter: u64,
    fields: Adaptation,
    data: &[u8],
) -> ([u8; TS_PACKET], usize, u16) {
    let mut field = Vec::with_capacity(184);
    if fields.pcr || fields.random_access || fields.stamp {
        let flags = u8::from(fields.random_access) << 6
            | u8::from(fields.pcr) << 4
            | u8::from(fields.stamp) << 1;
        field.extend_from_slice(&[0, flags]);
        if fields.pcr {
            field.extend_from_slice(&[0; 6]);
        }
        if fields.stamp {
            field.push(STAMP_BYTES as u8);
            field.extend_from_slice(&[0; STAMP_BYTES]);
        }
    }
    let room = 184 - field.len();
    let taken = data.len().min(room);
    let stuffing = room - taken;
    if stuffing > 0 && field.is_empty() {
        field.push(0);
        if stuffing > 1 {
            field.push(0);
        }
    }
    field.resize(184 - taken, 0xFF);
    if !field.is_empty() {
        field[0] = u8::try_from(field.len() - 1).unwrap_or(0);
    }
    let mut out = [0; TS_PACKET];
    let control = if field.is_empty() { 1 } else { 3 };
    out[..4].copy_from_slice(&ts_header(pid, start, control, counter));
    out[4..4 + field.len()].copy_from_slice(&field);
    out[4 + field.len()..].copy_from_slice(&data[..taken]);
    (out, taken, u16::try_from(4 + field.len()).unwrap_or(0))
}

/// A PSI section with its CRC (2.4.4.1).
fn section(table_id: u8, extension: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(5 + body.len() + 4).unwrap_or(0);
    let mut out = vec![table_id];
    out.extend_from_slice(&(0xB000 | length).to_be_bytes());
    out.extend_from_slice(&extension.to_be_bytes());
    out.extend_from_slice(&[0xC1, 0, 0]); // version 0, current, section 0 of 0
    out.extend_from_slice(body);
    let crc = crc32(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// Program association: program 1.
pub(super) fn pat() -> Vec<u8> {
    let [high, low] = PMT_PID.to_be_bytes();
    section(0, 1, &[0, 1, 0xE0 | high, low])
}

/// Program map: the video, and the audio if there is one.
pub(super) fn pmt(shape: &TsShape) -> Vec<u8> {
    let [high, low] = VIDEO_PID.to_be_bytes();
    let stream_type = match shape.video.codec {
        VideoCodec::H264 => 0x1B,
        VideoCodec::H265 => 0x24,
    };
    let mut body = vec![
        0xE0 | high,
        low,
        0xF0,
        0,
        stream_type,
        0xE0 | high,
        low,
        0xF0,
        0,
    ];
    if shape.audio {
        let [high, low] = AUDIO_PID.to_be_bytes();
        body.extend_from_slice(&[0x0F, 0xE0 | high, low, 0xF0, 0]);
    }
    section(2, 1, &body)
}

/// CRC-32 of ISO 13818-1, annex A.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |c, _| {
            if c >> 31 == 1 {
                c << 1 ^ 0x04C1_1DB7
            } else {
                c << 1
            }
        })
    })
}

/// program_clock_reference of a 27 MHz count (2.4.3.5).
pub(super) fn pcr_bytes(ticks: u128) -> [u8; 6] {
    let base = (ticks / 300) as u64 & PTS_MASK;
    let extension = (ticks % 300) as u64;
    let word = base << 15 | 0x3F << 9 | extension;
    let [_, _, bytes @ ..] = word.to_be_bytes();
    bytes
}

/// PTS or DTS with its marker bits (2.4.3.7).
pub(super) fn pts_bytes(marker: u8, ticks: u64) -> [u8; 5] {
    let t = ticks & PTS_MASK;
    let byte = |shift: u32| (t >> shift & 0xFF) as u8;
    [
        (marker << 4) | ((t >> 30 & 7) as u8 * 2) | 1,
        byte(22),
        ((t >> 15 & 0x7F) as u8 * 2) | 1,
        byte(7),
        ((t & 0x7F) as u8 * 2) | 1,
    ]
}
