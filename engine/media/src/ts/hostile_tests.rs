//! Streams that mean harm: what they may cost is bounded, and what is good behind them works.

use core::time::Duration;

use mirror_base::{Discard, Instant};

use super::demux::{MAX_PIDS, MAX_PROGRAMS, MAX_SPLICES};
use super::psi::{MAX_PRIVATE, crc32};
use super::{Demux, PACKET};
use crate::{Codec, Limits};

/// Bytes that one call makes of packets.
struct Sender {
    demux: Demux,
    counters: Vec<u8>,
    now: Instant,
    slot: u64,
    most_ready: usize,
}

impl Sender {
    fn new() -> Self {
        Sender {
            demux: Demux::new(Limits::default()),
            counters: vec![15; 8192],
            now: Instant::from_millis(1),
            slot: 0,
            most_ready: 0,
        }
    }

    fn raw(&mut self, packet: [u8; PACKET]) {
        self.now += Duration::from_micros(200);
        self.slot += 1;
        self.demux.payload(&[packet], 0, self.slot, self.now);
        self.most_ready = self.most_ready.max(self.demux.ready.len());
    }

    /// A packet of payload alone, filled up with `fill`.
    fn packet(&mut self, pid: u16, start: bool, data: &[u8], fill: u8) {
        let counter = &mut self.counters[usize::from(pid)];
        *counter = (*counter + 1) % 16;
        let mut packet = [fill; PACKET];
        packet[..4].copy_from_slice(&[
            0x47,
            u8::from(start) << 6 | (pid >> 8) as u8,
            pid as u8,
            0x10 | *counter,
        ]);
        packet[4..4 + data.len()].copy_from_slice(data);
        self.raw(packet);
    }

    fn section(&mut self, pid: u16, mut section: Vec<u8>) {
        let length = section.len() - 3 + 4;
        section[1] = 0xB0 | (length >> 8) as u8;
        section[2] = length as u8;
        let crc = crc32(&section).to_be_bytes();
        section.extend(crc);
        section.insert(0, 0);
        for (n, chunk) in section.chunks(184).enumerate() {
            self.packet(pid, n == 0, chunk, 0xFF);
        }
    }

    fn pat(&mut self, version: u8, programs: impl Iterator<Item = (u16, u16)>) {
        let mut s = vec![0, 0, 0, 0, 1, 0xC1 | (version % 32) << 1, 0, 0];
        for (number, pid) in programs {
            s.extend(number.to_be_bytes());
            s.extend((0xE000 | pid).to_be_bytes());
        }
        self.section(0, s);
    }

    fn pmt(&mut self, pid: u16, number: u16, version: u8, streams: &[(u8, u16)]) {
        let mut s = vec![2, 0, 0];
        s.extend(number.to_be_bytes());
        s.extend([0xC1 | (version % 32) << 1, 0, 0]);
        s.extend((0xE000 | streams.first().map_or(0x1FFF, |s| s.1)).to_be_bytes());
        s.extend([0xF0, 0]);
        for (kind, pid) in streams {
            s.push(*kind);
            s.extend((0xE000 | pid).to_be_bytes());
            s.extend([0xF0, 0]);
        }
        self.section(pid, s);
    }

    fn discards(&self, reason: Discard) -> u64 {
        self.demux.counters().discards.get(reason)
    }

    /// Everything stays within its bounds, and an honest program is read all the same.
    fn check(mut self) {
        let limits = Limits::default();
        assert!(self.demux.pids.len() <= MAX_PIDS);
        assert!(self.demux.programs.len() <= MAX_PROGRAMS);
        assert!(self.demux.tracks.len() <= limits.max_tracks);
        assert!(self.demux.splices.len() <= MAX_SPLICES);
        assert!(self.demux.pat.len() <= 16);
        assert!(self.most_ready <= 1024);
        while self.demux.poll_unit().is_some() {}
        self.pat(30, [(7, 0x1F00)].into_iter());
        self.pmt(0x1F00, 7, 29, &[(0x06, 0x1E00)]);
        let pes = [0, 0, 1, 0xBD, 0, 8, 0x80, 0, 0, 1, 2, 3, 4, 5];
        self.packet(0x1E00, true, &pes, 0xFF);
        let unit = self.demux.poll_unit().expect("the honest program's unit");
        assert_eq!(self.demux.tracks[usize::from(unit.track)].id, 0x1E00);
        assert_eq!(unit.bytes, 5);
    }
}

#[test]
fn sections_of_length_0_and_4095_are_refused_on_every_kind_of_pid() {
    let mut sender = Sender::new();
    sender.pat(0, [(1, 0x1000)].into_iter());
    sender.pmt(0x1000, 1, 0, &[(0x86, 0x200), (0x1B, 0x100)]);
    for _ in 0..200 {
        for pid in [0, 1, 0x10, 0x11, 0x12, 0x14, 0x1000, 0x200] {
            for table in [0, 2, 0xFC] {
                for length in [[0xB0, 0], [0xBF, 0xFF], [0, 0], [0x0F, 0xFF]] {
                    sender.packet(pid, true, &[0, table, length[0], length[1]], 0);
                    // What claims to be the rest of it.
                    sender.packet(pid, false, &[], 0);
                }
            }
        }
    }
    assert!(sender.discards(Discard::MalformedPsi) > 1000);
    assert_eq!(sender.demux.tracks.len(), 2);
    sender.check();
}

#[test]
fn a_section_that_never_ends_holds_no_more_than_the_longest_one() {
    let mut sender = Sender::new();
    sender.pat(0, [(1, 0x1000)].into_iter());
    sender.pmt(0x1000, 1, 0, &[(0x86, 0x200)]);
    for n in 0..5_000 {
        // 4093 bytes announced; a pointer into nowhere now and then.
        let head = [if n % 7 == 0 { 183 } else { 0 }, 0xFC, 0x3F, 0xFD];
        sender.packet(0x200, n % 50 == 0, &head, 0x11);
    }
    let held = |body: &super::demux::Body| match body {
        super::demux::Body::Splice(splice) => splice.sections.held(),
        super::demux::Body::Psi(sections) | super::demux::Body::Si(sections) => sections.held(),
        _ => 0,
    };
    assert!(
        sender
            .demux
            .pids
            .iter()
            .all(|p| held(&p.body) <= MAX_PRIVATE)
    );
    sender.check();
}

#[test]
fn pmts_and_pats_that_change_with_every_packet_are_followed_within_bounds() {
    let mut sender = Sender::new();
    sender.pat(0, [(1, 0x1000)].into_iter());
    for n in 0..3_000_u16 {
        let kinds = [0x1B, 0x24, 0x0F, 0x06, 0x86, 0x15, 0x32, 0x02];
        let streams: Vec<(u8, u16)> = (0..30)
            .map(|k| {
                let kind = kinds[usize::from((n + k) % 8)];
                (kind, 0x20 + (n % 100 * 37 + k * 3) % 0x0F00)
            })
            .collect();
        sender.pmt(0x1000, 1, n as u8, &streams);
        if n % 16 == 0 {
            let many = (0..40).map(|k| (k + n, 0x1000 + (k + n) % 0x0800));
            sender.pat(n as u8, many);
            sender.pat(n as u8, [(1, 0x1000)].into_iter());
        }
    }
    assert!(sender.discards(Discard::LimitExceeded) > 0);
    sender.check();
}

#[test]
fn pes_packets_without_an_end_are_cut_at_the_largest_unit() {
    let mut sender = Sender::new();
    sender.pat(0, [(1, 0x1000)].into_iter());
    let kinds = [0x1B, 0x24, 0x02, 0x06, 0x0F, 0x15, 0x32];
    let streams: Vec<(u8, u16)> = (0..).zip(kinds).map(|(n, k)| (k, 0x100 + n)).collect();
    sender.pmt(0x1000, 1, 0, &streams);
    let pes = [0, 0, 1, 0xE0, 0, 0, 0x80, 0, 0];
    for (_, pid) in &streams {
        sender.packet(*pid, true, &pes, 0x55);
    }
    // Twice the limit for each.
    for _ in 0..2 * Limits::default().max_frame_size / 184 {
        for (_, pid) in &streams {
            sender.packet(*pid, false, &[], 0x55);
        }
        while let Some(unit) = sender.demux.poll_unit() {
            assert!(unit.bytes as usize <= Limits::default().max_frame_size + PACKET);
        }
    }
    sender.check();
}

#[test]
fn clock_references_that_run_in_circles_are_counted_and_cost_nothing_else() {
    let mut sender = Sender::new();
    sender.pat(0, [(1, 0x1000), (2, 0x1001)].into_iter());
    sender.pmt(0x1000, 1, 0, &[(0x1B, 0x100)]);
    sender.pmt(0x1001, 2, 0, &[(0x1B, 0x101)]);
    for n in 0..50_000_u32 {
        let mut packet = [0xFF; PACKET];
        // Lengths that leave no room for the reference, too.
        let length = if n % 10 == 0 { (n % 7) as u8 } else { 183 };
        packet[..6].copy_from_slice(&[0x47, 1, (n % 2) as u8, 0x20, length, 0x10]);
        packet[6..10].copy_from_slice(&(n % 3 * 0x4000_0000).to_be_bytes());
        sender.raw(packet);
    }
    let report = sender.demux.tr101290().unwrap();
    assert!(
        report.pcr_discontinuity > 20_000,
        "{}",
        report.pcr_discontinuity
    );
    assert!(sender.discards(Discard::MalformedTs) > 1_000);
    sender.check();
}

#[test]
fn packets_of_all_pids_with_all_flags_are_passed_over() {
    let mut sender = Sender::new();
    let mut state = 1_u64;
    for n in 0..100_000_u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(n);
        let mut packet = [(state >> 33) as u8; PACKET];
        packet[..8].copy_from_slice(&state.to_be_bytes());
        packet[0] = 0x47;
        sender.raw(packet);
    }
    assert_eq!(sender.demux.counters().ts_packets, 100_000);
    assert!(sender.demux.tr101290().unwrap().first_priority() > 0);
    assert_eq!(sender.demux.tracks.len(), 0);
    sender.check();
}

#[test]
fn a_pmt_may_not_take_the_pids_of_tables_and_of_other_programs() {
    let mut sender = Sender::new();
    sender.pat(
        0,
        [(1, 0x1000), (2, 0x1001), (3, 0), (4, 0x1FFF)].into_iter(),
    );
    sender.pmt(
        0x1000,
        1,
        0,
        &[(0x1B, 0x100), (0x1B, 0), (0x0F, 0x1001), (0x0F, 0x1FFF)],
    );
    sender.pmt(0x1001, 2, 0, &[(0x24, 0x100), (0x0F, 0x102), (0x0F, 0x102)]);
    let tracks: Vec<_> = sender
        .demux
        .tracks
        .iter()
        .map(|t| (t.id, t.codec))
        .collect();
    assert_eq!(tracks, [(0x100, Codec::H264), (0x102, Codec::Aac)]);
    // A stream on a PID of the service information is a stream.
    sender.pmt(0x1001, 2, 1, &[(0x0F, 0x11)]);
    assert_eq!(sender.demux.tracks.last().map(|t| t.id), Some(0x11));
    sender.check();
}

#[test]
fn splice_sections_that_flood_are_bounded_and_told_once_each() {
    let mut sender = Sender::new();
    sender.pat(0, [(1, 0x1000)].into_iter());
    sender.pmt(0x1000, 1, 0, &[(0x86, 0x200)]);
    for n in 0..5_000_u32 {
        let mut s = vec![0xFC, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xF0, 5, 0x05];
        s.extend((n / 2).to_be_bytes());
        s.extend([0xFF, 0, 0]);
        let length = s.len() - 3 + 4;
        s[2] = length as u8;
        let crc = crc32(&s).to_be_bytes();
        s.extend(crc);
        s.insert(0, 0);
        sender.packet(0x200, true, &s, 0xFF);
        while sender.demux.poll_unit().is_some() {}
    }
    assert_eq!(sender.demux.splices.len(), MAX_SPLICES);
    assert_eq!(sender.demux.counters().discards.total(), 0);
    let events: Vec<_> = core::iter::from_fn(|| sender.demux.poll_splice()).collect();
    assert!(events.windows(2).all(|w| w[0].command != w[1].command));
    sender.check();
}
