//! Helpers: a small TS writer, and a pipeline fed from a slot ring.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations
)]

pub mod bits;

use mirror_base::ring::SlotMeta;
use mirror_base::{Instant, SlotRing};
use mirror_media::{AccessUnit, Format, FrameKind, Limits, Packet, Pipeline};
use serde_json::Value;

pub const VIDEO_PID: u16 = 0x100;

pub fn vector(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../../tests/vectors/media/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub fn facts(name: &str) -> Value {
    serde_json::from_slice(&vector(&format!("{name}.json"))).unwrap()
}

pub fn kind_letter(kind: FrameKind) -> char {
    match kind {
        FrameKind::Idr | FrameKind::Cra | FrameKind::I => 'I',
        FrameKind::P => 'P',
        FrameKind::B => 'B',
        FrameKind::Other => '?',
    }
}

/// A pipeline, the ring that it reads, and the units it made.
pub struct Bench {
    pub ring: SlotRing,
    pub pipeline: Pipeline,
    pub units: Vec<AccessUnit>,
    pub now: Instant,
    next: u64,
}

impl Bench {
    pub fn new(limits: Limits) -> Self {
        Bench {
            ring: SlotRing::with_owned_chunks(64),
            pipeline: Pipeline::new(Format::MpegTs, limits),
            units: Vec::new(),
            now: Instant::from_millis(1),
            next: 0,
        }
    }

    /// One datagram, a millisecond after the last; `None`: it was lost.
    pub fn push(&mut self, payload: Option<&[u8]>, lost_before: u32) {
        self.deliver(payload, lost_before, false);
    }

    /// The first datagram of another session of the same stream.
    pub fn push_afresh(&mut self, payload: &[u8]) {
        self.deliver(Some(payload), 0, true);
    }

    fn deliver(&mut self, payload: Option<&[u8]>, lost_before: u32, discontinuity: bool) {
        self.now += core::time::Duration::from_millis(1);
        let slot = self.next;
        self.next += 1;
        let Some(payload) = payload else { return };
        self.ring.release_before(slot.saturating_sub(1800));
        self.ring
            .insert(slot, payload, SlotMeta::new(self.now, 0, 0))
            .unwrap();
        let packet = Packet {
            slot,
            arrival: self.now,
            lost_before,
            discontinuity,
            timestamp: 0,
            marker: false,
            payload_type: 0,
            payload: self.ring.get(slot).unwrap().payload,
        };
        self.pipeline.push(packet);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(unit) = self.pipeline.poll_unit() {
            assert!(unit.first <= unit.end);
            assert!(unit.first_arrival <= unit.last_arrival);
            assert!(unit.last_arrival <= unit.completed_by);
            self.units.push(unit);
        }
    }

    pub fn run(bytes: &[u8], payload: usize) -> Self {
        let mut bench = Bench::new(Limits::default());
        for chunk in bytes.chunks(payload) {
            bench.push(Some(chunk), 0);
        }
        bench.pipeline.finish();
        bench.drain();
        bench
    }

    pub fn track(&self, pid: u16) -> usize {
        self.pipeline
            .tracks()
            .iter()
            .position(|t| t.id == u32::from(pid))
            .expect("a track of that PID")
    }

    pub fn units_of(&self, pid: u16) -> Vec<AccessUnit> {
        let track = self.track(pid);
        self.units
            .iter()
            .filter(|u| usize::from(u.track) == track)
            .copied()
            .collect()
    }

    pub fn bytes_of(&self, unit: &AccessUnit) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(
            self.pipeline.extract(unit, &self.ring, &mut out),
            "{unit:?}"
        );
        out
    }

    pub fn types(&self, pid: u16) -> String {
        self.units_of(pid)
            .iter()
            .map(|u| kind_letter(u.kind))
            .collect()
    }
}

pub fn crc32(bytes: &[u8]) -> [u8; 4] {
    mirror_media::ts::psi::crc32(bytes).to_be_bytes()
}

fn section(mut head: Vec<u8>) -> Vec<u8> {
    let length = head.len() - 3 + 4;
    head[1] = 0xB0 | (length >> 8) as u8;
    head[2] = length as u8;
    let crc = crc32(&head);
    head.extend(crc);
    head
}

pub fn pat(version: u8, programs: &[(u16, u16)]) -> Vec<u8> {
    let mut s = vec![0, 0, 0, 0, 1, 0xC1 | version << 1, 0, 0];
    for (number, pid) in programs {
        s.extend(number.to_be_bytes());
        s.extend((0xE000 | pid).to_be_bytes());
    }
    section(s)
}

pub fn pmt(number: u16, version: u8, streams: &[(u8, u16)]) -> Vec<u8> {
    let mut s = vec![2, 0, 0];
    s.extend(number.to_be_bytes());
    s.extend([0xC1 | version << 1, 0, 0]);
    s.extend((0xE000 | streams.first().map_or(0x1FFF, |s| s.1)).to_be_bytes());
    s.extend([0xF0, 0]);
    for (kind, pid) in streams {
        s.push(*kind);
        s.extend((0xE000 | pid).to_be_bytes());
        s.extend([0xF0, 0]);
    }
    section(s)
}

/// Writes TS packets.
#[derive(Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
    counters: std::collections::HashMap<u16, u8>,
}

impl Writer {
    /// One packet with as much of `data` as fits; returns how much.
    pub fn packet(&mut self, pid: u16, start: bool, data: &[u8]) -> usize {
        let counter = self.counters.entry(pid).or_insert(15);
        *counter = (*counter + 1) % 16;
        let take = data.len().min(184);
        let stuffing = 184 - take;
        let control = if stuffing > 0 { 0x30 } else { 0x10 };
        self.bytes.extend([
            0x47,
            u8::from(start) << 6 | (pid >> 8) as u8,
            pid as u8,
            control | *counter,
        ]);
        if stuffing > 0 {
            self.bytes.push((stuffing - 1) as u8);
            if stuffing > 1 {
                self.bytes.push(0);
                self.bytes.extend(vec![0xFF; stuffing - 2]);
            }
        }
        self.bytes.extend(&data[..take]);
        take
    }

    pub fn section(&mut self, pid: u16, section: &[u8]) {
        let mut data = vec![0];
        data.extend(section);
        data.resize(data.len().next_multiple_of(184), 0xFF);
        let mut start = true;
        for chunk in data.chunks(184) {
            self.packet(pid, start, chunk);
            start = false;
        }
    }

    pub fn tables(&mut self, streams: &[(u8, u16)]) {
        self.section(0, &pat(0, &[(1, 0x1000)]));
        self.section(0x1000, &pmt(1, 0, streams));
    }

    pub fn pes(&mut self, pid: u16, pts: u64, bounded: bool, data: &[u8]) {
        let mut pes = vec![0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5];
        pes.extend([
            0x21 | (pts >> 29) as u8 & 0x0E,
            (pts >> 22) as u8,
            1 | (pts >> 14) as u8 & 0xFE,
            (pts >> 7) as u8,
            1 | (pts << 1) as u8 & 0xFE,
        ]);
        pes.extend(data);
        if bounded {
            let length = u16::try_from(pes.len() - 6).unwrap();
            pes[4..6].copy_from_slice(&length.to_be_bytes());
        }
        let mut at = 0;
        while at < pes.len() {
            at += self.packet(pid, at == 0, &pes[at..]);
        }
    }
}

pub fn pid_of(text: &Value) -> u16 {
    u16::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

pub fn modulo(time: Option<i64>) -> Option<u64> {
    time.map(|t| t.rem_euclid(1 << 33) as u64)
}

/// The bytes of `pid`, found the plain way.
pub fn elementary_stream(bytes: &[u8], pid: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = None;
    for packet in bytes.chunks_exact(188) {
        let of = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        if of != pid || packet[3] & 0x10 == 0 || last == Some(packet[3] & 15) {
            continue;
        }
        last = Some(packet[3] & 15);
        let mut data = &packet[if packet[3] & 0x20 != 0 {
            5 + usize::from(packet[4])
        } else {
            4
        }..];
        if packet[1] & 0x40 != 0 {
            data = &data[9 + usize::from(data[8])..];
        }
        out.extend(data);
    }
    out
}
