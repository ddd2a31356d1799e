//! Feeds a pipeline with a synthetic transport stream of 50 Mb/s (H.264 of 25 frames a second,
//! four slices each, AAC, clock references, tables, in payloads of seven packets), measured by
//! TR 101 290, for counting instructions:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*measured_push*' demux_cost 1
//! ```
//!
//! Divide the instructions by the packets that it prints. `scan` as second argument runs only
//! memchr's search for start codes over the same payloads, `off` switches the measuring off,
//! `pes` hands on PES packets as they are.

use mirror_base::Instant;
use mirror_media::ts::psi::crc32;
use mirror_media::{Format, Limits, Packet, Pipeline, Units};

const VIDEO: u16 = 0x100;
const AUDIO: u16 = 0x101;

/// Writes TS packets.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    counters: std::collections::BTreeMap<u16, u8>,
}

impl Writer {
    /// `data` in packets of `pid`, the last one stuffed; the first one with a clock reference of
    /// `pcr` ticks of 90 kHz.
    fn packets(&mut self, pid: u16, data: &[u8], pcr: Option<u64>) {
        let mut at = 0;
        while at < data.len() {
            let counter = self.counters.entry(pid).or_insert(15);
            *counter = (*counter + 1) & 15;
            let mut field = Vec::new();
            if let Some(pcr) = pcr.filter(|_| at == 0) {
                field.push(0x10);
                field.extend(((pcr >> 1) as u32).to_be_bytes());
                field.extend([(pcr << 7) as u8 | 0x7E, 0]);
            }
            let room = 184 - field.len() - usize::from(!field.is_empty());
            let take = room.min(data.len() - at);
            let stuffing = room - take;
            if stuffing > 1 && field.is_empty() {
                field.push(0);
                field.resize(stuffing - 1, 0xFF);
            } else {
                field.resize(field.len() + stuffing, 0xFF);
            }
            let has_field = !field.is_empty() || stuffing > 0;
            let start = u8::from(at == 0) << 6;
            self.bytes
                .extend([0x47, start | (pid >> 8) as u8, pid as u8]);
            self.bytes
                .push(if has_field { 0x30 } else { 0x10 } | *counter);
            if has_field {
                self.bytes.push(field.len() as u8);
                self.bytes.extend(&field);
            }
            self.bytes.extend(&data[at..at + take]);
            at += take;
        }
    }

    fn section(&mut self, pid: u16, body: &[u8]) {
        let mut section = vec![0];
        section.extend(body);
        section.extend(crc32(body).to_be_bytes());
        section.resize(184, 0xFF);
        self.packets(pid, &section, None);
    }

    fn pes(&mut self, pid: u16, id: u8, pts: u64, data: &[u8], pcr: Option<u64>) {
        let mut pes = vec![0, 0, 1, id, 0, 0, 0x80, 0x80, 5];
        pes.extend([
            0x21 | (pts >> 29) as u8 & 0x0E,
            (pts >> 22) as u8,
            1 | (pts >> 14) as u8 & 0xFE,
            (pts >> 7) as u8,
            1 | (pts << 1) as u8 & 0xFE,
        ]);
        pes.extend(data);
        if id != 0xE0 {
            let length = (pes.len() - 6) as u16;
            pes[4..6].copy_from_slice(&length.to_be_bytes());
        }
        self.packets(pid, &pes, pcr);
    }
}

fn frame(n: u32, noise: &mut u64) -> Vec<u8> {
    let mut es = vec![0, 0, 0, 1, 0x09, 0xF0];
    if n == 0 {
        // 176 × 144, High, 25 frames a second, and its PPS.
        es.extend([0, 0, 0, 1, 0x67, 0x42, 0xC0, 0x0C, 0xDA, 0x0B, 0x13, 0x90]);
        es.extend([0, 0, 0, 1, 0x68, 0xCE, 0x3C, 0x80]);
    }
    for _ in 0..4 {
        es.extend([
            0,
            0,
            1,
            if n == 0 { 0x65 } else { 0x41 },
            0x9A,
            0x10 + n as u8,
        ]);
        for _ in 0..62_000 {
            *noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // As a coder writes it: no two zero bytes in a row.
            let byte = (*noise >> 56) as u8;
            es.push(if byte == 0 && es.last() == Some(&0) {
                0x80
            } else {
                byte
            });
        }
    }
    es
}

/// Two frames of AAC (ADTS, 48 kHz, 341 bytes).
fn audio(noise: &mut u64) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..2 {
        data.extend([0xFF, 0xF1, 0x4C, 0x80, 0x2A, 0xBF, 0xFC]);
        for _ in 7..341 {
            *noise = noise.wrapping_mul(6_364_136_223_846_793_005) + 1;
            data.push((*noise >> 56) as u8);
        }
    }
    data
}

fn stream(frames: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut noise = 1;
    for n in 0..frames {
        if n % 2 == 0 {
            writer.section(0, &[0, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0]);
            let map = [
                2, 0xB0, 23, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0, 0x1B, 0xE1, 0, 0xF0, 0, 0x0F,
                0xE1, 1, 0xF0, 0,
            ];
            writer.section(0x1000, &map);
        }
        let pts = u64::from(n) * 3600;
        let video = frame(n, &mut noise);
        writer.pes(VIDEO, 0xE0, pts + 9000, &video, Some(pts));
        writer.pes(AUDIO, 0xC0, pts + 9000, &audio(&mut noise), None);
    }
    writer.bytes
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let loops: u32 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1);
    let bytes = stream(10 * loops);
    let what = arguments.next();
    if what.as_deref() == Some("scan") {
        return scan(&bytes);
    }
    let limits = Limits {
        tr101290: what.as_deref() != Some("off"),
        units: match what.as_deref() {
            Some("pes") => Units::PesPackets,
            _ => Units::AccessUnits,
        },
        ..Limits::default()
    };
    let mut pipeline = Pipeline::new(Format::MpegTs, limits);
    let (mut units, mut packets) = (0, 0);
    for (n, payload) in bytes.chunks(1316).enumerate() {
        packets += payload.len() / 188;
        let packet = Packet {
            slot: n as u64,
            arrival: Instant::from_micros(1_000_000 + n as u64 * 206),
            lost_before: 0,
            discontinuity: false,
            timestamp: 0,
            marker: false,
            payload_type: 0,
            payload,
        };
        measured_push(&mut pipeline, packet);
        units += core::iter::from_fn(|| pipeline.poll_unit()).count();
    }
    println!(
        "packets {packets} units {units} tracks {}",
        pipeline.tracks().len()
    );
    for indicator in pipeline.tr101290().iter().flat_map(|t| &t.indicators) {
        if indicator.count > 0 {
            println!("{indicator:?}");
        }
    }
}

/// What callgrind counts.
#[inline(never)]
fn measured_push(pipeline: &mut Pipeline, packet: Packet<'_>) {
    pipeline.push(packet);
}

#[inline(never)]
fn scan(bytes: &[u8]) {
    let finder = memchr::memmem::Finder::new(&[0, 0, 1]);
    let mut found = 0;
    for packet in bytes.chunks_exact(188) {
        let mut data = &packet[4..];
        while let Some(at) = finder.find(data) {
            found += 1;
            data = &data[at + 3..];
        }
    }
    println!("start codes {found} packets {}", bytes.len() / 188);
}
