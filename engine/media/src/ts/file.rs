//! Plays a transport stream that lies in a file: payloads of seven packets, each with the moment
//! at which it would have come, told by the clock references in the file itself. Used by
//! `mirror-ingest inspect`; the times that TR 101 290 measures are then times of the file.
//!
//! The clock is that of the first PID with references; where it falls silent (a programme that
//! moves to other PIDs), another PID takes over. Between references time goes by bytes, and so it
//! does over a jump of the references.

use mirror_base::Instant;

use super::framer::{Framer, When};
use super::pcr::difference;
use super::place::Place;
use super::{DISCONTINUITY, Header, PACKET, PCR};

/// Bytes of a payload: seven packets, as they travel over a network.
pub const PAYLOAD: usize = 7 * PACKET;
/// The moment of the first byte, so that there is time before it.
const START_NS: f64 = 1e9;
/// References further apart are of two time bases.
const JUMP: i64 = 27_000_000;
/// Another PID takes over when its references have covered so many ticks (150 ms) since the last
/// one of the clock's PID.
const SILENCE: i64 = 4_050_000;
/// References of another PID that are kept until then.
const MAX_OTHERS: usize = 256;
/// Nanoseconds for a byte where the file does not tell: 8 Mb/s.
const UNKNOWN_RATE: f64 = 1_000.0;

/// A piece of the file.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// Its number, from 0 on.
    pub slot: u64,
    /// When its last byte would have come.
    pub arrival: Instant,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// See the module's page. An iterator over the payloads of a file that lies in memory.
#[derive(Debug)]
pub struct FilePlayer<'a> {
    bytes: &'a [u8],
    timeline: Timeline,
    at: usize,
    slot: u64,
}

/// The moments of a file's bytes.
#[derive(Debug)]
pub struct Timeline {
    /// Offset of a reference and its moment in nanoseconds; both rise.
    points: Vec<(u64, f64)>,
    /// The first point behind the offset at hand.
    next: usize,
}

/// Makes a [`Timeline`] of a file that is read piece by piece.
#[derive(Debug)]
pub struct TimelineScan {
    scan: Scan,
    framer: Framer,
    slot: u64,
}

/// Follows the references through the file.
#[derive(Debug)]
struct Scan {
    pid: u16,
    last: Option<(u64, u64)>,
    now: f64,
    /// Nanoseconds for a byte, between the last two references.
    rate: Option<f64>,
    points: Vec<(u64, f64)>,
    /// References of another PID since the last one of the clock's: offset, ticks, flagged.
    other: u16,
    others: Vec<(u64, u64, bool)>,
}

impl Scan {
    fn place(&mut self, packet: &[u8; PACKET], place: &Place) {
        let at = place.at(0);
        self.packet(packet, at.slot * PAYLOAD as u64 + u64::from(at.offset));
    }

    fn packet(&mut self, packet: &[u8; PACKET], offset: u64) {
        let header = Header::read(packet);
        if header.flags & PCR == 0 || header.has_error() || packet.get(4).is_none_or(|&l| l < 7) {
            return;
        }
        let [_, _, _, _, _, _, b0, b1, b2, b3, b4, b5, ..] = *packet;
        let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
        let ticks = base * 300 + (u64::from(b4 & 1) << 8 | u64::from(b5));
        let pid = (header.pid() & 0x1FFF) as u16;
        let flagged = header.flags & DISCONTINUITY != 0;
        if self.last.is_none() {
            self.pid = pid;
        }
        if pid == self.pid {
            self.others.clear();
            return self.reference(offset, ticks, flagged);
        }
        if pid != self.other || self.others.len() >= MAX_OTHERS {
            self.other = pid;
            self.others.clear();
        }
        self.others.push((offset, ticks, flagged));
        let covered = self.others.first().map_or(0, |f| difference(f.1, ticks));
        if covered > SILENCE {
            self.pid = pid;
            for (n, (offset, ticks, flagged)) in
                core::mem::take(&mut self.others).into_iter().enumerate()
            {
                self.reference(offset, ticks, flagged || n == 0);
            }
        }
    }

    fn reference(&mut self, offset: u64, ticks: u64, flagged: bool) {
        if let Some((before, last)) = self.last {
            let bytes = offset.saturating_sub(before) as f64;
            let step = difference(last, ticks);
            if flagged || !(0..=JUMP).contains(&step) {
                self.now += bytes * self.rate.unwrap_or(UNKNOWN_RATE);
            } else {
                let span = step as f64 * 1_000.0 / 27.0;
                self.now += span;
                if bytes > 0.0 && span > 0.0 {
                    self.rate = Some(span / bytes);
                }
            }
        } else {
            self.now = START_NS;
        }
        self.last = Some((offset, ticks));
        self.points.push((offset, self.now));
    }
}

impl Default for TimelineScan {
    fn default() -> Self {
        TimelineScan {
            scan: Scan {
                pid: 0x1FFF,
                last: None,
                now: START_NS,
                rate: None,
                points: Vec::new(),
                other: 0x1FFF,
                others: Vec::new(),
            },
            framer: Framer::default(),
            slot: 0,
        }
    }
}

impl TimelineScan {
    /// The next piece: [`PAYLOAD`] bytes, fewer only at the file's end. Its packets have 188, 192
    /// or 204 bytes.
    pub fn push(&mut self, payload: &[u8]) {
        let (scan, slot) = (&mut self.scan, self.slot);
        self.slot += 1;
        let each = |packet: &[u8; PACKET], place: &Place, _: When| scan.place(packet, place);
        self.framer.push(slot, payload, 0, Instant::ZERO, each);
    }

    /// The file has ended.
    pub fn finish(mut self) -> Timeline {
        let scan = &mut self.scan;
        self.framer
            .finish(|packet, place, _| scan.place(packet, place));
        Timeline {
            points: self.scan.points,
            next: 0,
        }
    }
}

impl<'a> FilePlayer<'a> {
    /// Reads the references of `bytes`, a whole file of packets of 188, 192 or 204 bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut scan = TimelineScan::default();
        for payload in bytes.chunks(PAYLOAD) {
            scan.push(payload);
        }
        FilePlayer {
            bytes,
            timeline: scan.finish(),
            at: 0,
            slot: 0,
        }
    }
}

impl Timeline {
    /// The moment of the byte at `offset`; offsets must rise from call to call.
    pub fn moment(&mut self, offset: u64) -> Instant {
        while self.points.get(self.next).is_some_and(|p| p.0 < offset) {
            self.next += 1;
        }
        let line = match (self.next, self.points.as_slice()) {
            (_, []) => None,
            (_, [one]) => Some((*one, *one)),
            (0, [first, second, ..]) => Some((*first, *second)),
            (n, points) => {
                let end = n.min(points.len() - 1);
                points.get(end - 1).copied().zip(points.get(end).copied())
            }
        };
        let nanos = match line {
            None => START_NS + offset as f64 * UNKNOWN_RATE,
            Some((a, b)) => {
                let rate = if b.0 > a.0 {
                    (b.1 - a.1) / (b.0 - a.0) as f64
                } else {
                    UNKNOWN_RATE
                };
                a.1 + (offset as f64 - a.0 as f64) * rate
            }
        };
        Instant::from_nanos(nanos.max(0.0) as u64)
    }
}

impl<'a> Iterator for FilePlayer<'a> {
    type Item = Payload<'a>;

    fn next(&mut self) -> Option<Payload<'a>> {
        let rest = self.bytes.get(self.at..).filter(|r| !r.is_empty())?;
        let bytes = rest.get(..PAYLOAD).unwrap_or(rest);
        self.at += bytes.len();
        let slot = self.slot;
        self.slot += 1;
        Some(Payload {
            slot,
            arrival: self.timeline.moment(self.at as u64),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_pcr(pid: u16, ms: u64, flags: u8) -> [u8; PACKET] {
        let mut p = [0xFF; PACKET];
        let base = ms * 90;
        p[..6].copy_from_slice(&[0x47, (pid >> 8) as u8, pid as u8, 0x20, 183, 0x10 | flags]);
        p[6..10].copy_from_slice(&((base >> 1) as u32).to_be_bytes());
        p[10..12].copy_from_slice(&[(base << 7) as u8 | 0x7E, 0]);
        p
    }

    fn times(packets: &[[u8; PACKET]]) -> Vec<u64> {
        let bytes = packets.concat();
        let payloads = FilePlayer::new(&bytes);
        payloads.map(|p| p.arrival.as_micros() / 1_000).collect()
    }

    #[test]
    fn payloads_come_when_the_references_say() {
        // A reference every seventh packet, 40 ms apart; a jump, flagged, in the middle.
        let mut packets = Vec::new();
        let mut null = [0xFF; PACKET];
        null[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
        for n in 0..10_u64 {
            let jump = if n >= 5 { 50_000 } else { 0 };
            let flag = if n == 5 { 0x80 } else { 0 };
            packets.push(with_pcr(0x100, 1_000 + n * 40 + jump, flag));
            packets.extend([null; 6]);
        }
        let times = times(&packets);
        let expected: Vec<u64> = (1..=10).map(|n| 1_000 + n * 40).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn a_file_without_references_plays_all_the_same() {
        let mut null = [0xFF; PACKET];
        null[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
        let times = times(&[null; 70]);
        assert_eq!(times.len(), 10);
        assert!(times.is_sorted_by(|a, b| a < b));
        assert!(FilePlayer::new(&[]).next().is_none());
    }
}
