//! What is lost on the way and can be given back is given back: by FEC (SMPTE ST 2022-1), by
//! retransmission (RFC 4585, RFC 4588) and by a second path (SMPTE ST 2022-7). All that can be
//! had is delivered, byte for byte, in order, each packet once.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mirror_base::{Instant, SlotRing};
use mirror_rtp::media::{FecLimits, Feedback, Origin, PayloadType, Role, RtcpConfig, RtxType};
use mirror_rtp::{Media, MediaConfig, rtcp};

use super::Choices;

const SSRC: u32 = 0xABCD;
const RTX_SSRC: u32 = 0x1234;
const PT: u8 = 96;
const RTX_PT: u8 = 97;
/// Packets before and behind those of which some are lost: they prove the source, and show what
/// is missing at the end.
const MARGIN: usize = 8;
/// From packet to packet.
const SPACING: Duration = Duration::from_micros(200);

/// Packets as a sender may write them, with header extensions and CSRC lists.
fn packets(count: usize, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let first = choices.u16();
    let time = choices.u32();
    let longest = *choices.pick(&[60, 400, 1_400]);
    let packet = |n: usize, choices: &mut Choices<'_>| {
        let (contributors, extended) = (choices.below(12) / 9, choices.once_in(4));
        let marker = u8::from(choices.flip()) << 7;
        let mut p = vec![0x80 | contributors as u8, marker | PT];
        p.extend(first.wrapping_add(n as u16).to_be_bytes());
        p.extend(time.wrapping_add(n as u32 * 18).to_be_bytes());
        p.extend(SSRC.to_be_bytes());
        p.resize(p.len() + 4 * contributors, 0x77);
        if extended {
            p[0] |= 0x10;
            p.extend([0xBE, 0xDE, 0, 1, 0x10, n as u8, 0, 0]);
        }
        let size = choices.between(1, longest);
        choices.filling(&mut p, size);
        p
    };
    (0..count).map(|n| packet(n, choices)).collect()
}

fn config() -> MediaConfig {
    MediaConfig {
        payload_types: vec![PayloadType {
            number: PT,
            clock_rate: 90_000,
        }],
        jitter_buffer: Duration::from_secs(2),
        session_timeout: Duration::from_secs(60),
        seed: 7,
        ..MediaConfig::default()
    }
}

struct World {
    media: Media,
    ring: SlotRing,
    now: Instant,
    /// What was delivered.
    out: Vec<Vec<u8>>,
    /// Datagrams on their way: when they come, by which path, in which role.
    coming: BTreeMap<(Instant, u64), (u8, Role, Vec<u8>)>,
    order: u64,
    /// What the receiver wrote.
    said: VecDeque<Vec<u8>>,
}

impl World {
    fn new(config: MediaConfig) -> Self {
        let now = Instant::from_millis(1_000);
        World {
            media: Media::new(now, config, 0),
            ring: SlotRing::with_owned_chunks(256),
            now,
            out: Vec::new(),
            coming: BTreeMap::new(),
            order: 0,
            said: VecDeque::new(),
        }
    }

    fn send(&mut self, after: Duration, leg: u8, role: Role, bytes: Vec<u8>) {
        self.order += 1;
        let at = self.now + after;
        self.coming.insert((at, self.order), (leg, role, bytes));
    }

    /// Datagrams come and timers fire for so long.
    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrives = self.coming.keys().next().map(|(at, _)| *at);
            let due = self.media.poll_timeout();
            let next = arrives.into_iter().chain(due).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if arrives.is_some_and(|at| at <= self.now) {
                let (_, (leg, role, bytes)) = self.coming.pop_first().expect("one that arrives");
                let from = SocketAddr::from(([192, 0, 2, 1 + leg], 5_004));
                let origin = Origin { leg, role, from };
                let now = self.now;
                // A copy, or FEC that nobody needs, is refused.
                let _ = self
                    .media
                    .handle_rtp(now, now, &origin, &bytes, &mut self.ring);
            } else {
                self.media.handle_timeout(self.now);
            }
            self.drain();
        }
        self.now = end;
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(d) = self.media.poll_delivery(self.now, &self.ring) {
            let bytes = self.ring.get_packet(d.slot).expect("it can be read");
            self.out.push(bytes.to_vec());
        }
        self.ring.release_before(self.media.release_index());
        let mut out = [0; 1_500];
        while let Some(t) = self.media.poll_transmit(self.now, &mut out) {
            self.said.push_back(out[..t.length].to_vec());
        }
        while self.media.poll_event().is_some() {}
    }

    /// The numbers asked for since the last time.
    fn asked(&mut self) -> Vec<u16> {
        let mut numbers = Vec::new();
        for datagram in self.said.drain(..) {
            for packet in rtcp::parse(&datagram).expect("our own RTCP") {
                numbers.extend(packet.nacks().flat_map(|pair| pair.sequences()));
            }
        }
        numbers
    }

    /// What was delivered is `sent`, but for those `missing`.
    fn check(&self, sent: &[Vec<u8>], missing: &BTreeSet<usize>, what: &dyn core::fmt::Debug) {
        let wanted = (0..sent.len()).filter(|n| !missing.contains(n));
        let wanted: Vec<usize> = wanted.collect();
        assert_eq!(self.out.len(), wanted.len(), "{what:?}");
        for (came, n) in self.out.iter().zip(wanted) {
            assert!(*came == sent[n], "packet {n} of {what:?}");
        }
    }
}

/// FEC over some packets, `offset` apart (ST 2022-1, 6).
fn protection(packets: &[&[u8]], offset: usize, is_row: bool) -> Vec<u8> {
    let length = packets.iter().map(|p| p.len() - 12).max().unwrap_or(0);
    let mut body = vec![0; length];
    let (mut flags, mut kind, mut time, mut lengths) = (0, 0, [0_u8; 4], 0_u16);
    for p in packets {
        flags ^= p[0] & 0x3F;
        kind ^= p[1];
        lengths ^= (p.len() - 12) as u16;
        time.iter_mut().zip(&p[4..8]).for_each(|(t, b)| *t ^= b);
        body.iter_mut().zip(&p[12..]).for_each(|(t, b)| *t ^= b);
    }
    let mut out = vec![0x80 | flags, kind & 0x80 | 96, 0, 0];
    out.extend([0; 8]);
    out.extend(&packets[0][2..4]);
    out.extend(lengths.to_be_bytes());
    out.extend([0x80 | kind & 0x7F, 0, 0, 0]);
    out.extend(time);
    let count = packets.len() as u8;
    out.extend([u8::from(is_row) << 6, offset as u8, count, 0]);
    out.extend(body);
    out
}

/// A matrix of columns and, perhaps, rows.
#[derive(Debug)]
struct Matrix {
    columns: usize,
    rows: usize,
    with_rows: bool,
    count: usize,
}

impl Matrix {
    /// The packets of each FEC packet of matrix `m`.
    fn groups(&self, m: usize) -> Vec<(bool, Vec<usize>)> {
        let first = MARGIN + m * self.columns * self.rows;
        let mut out = Vec::new();
        if self.with_rows {
            for r in 0..self.rows {
                let start = first + r * self.columns;
                out.push((true, (start..start + self.columns).collect()));
            }
        }
        for c in 0..self.columns {
            let packets = (0..self.rows).map(|r| first + c + r * self.columns);
            out.push((false, packets.collect()));
        }
        out
    }
}

/// Media and FEC get lost; what can be computed is delivered, and nothing else.
pub(super) fn fec(choices: &mut Choices<'_>) {
    let matrix = Matrix {
        columns: choices.between(1, 10),
        rows: choices.between(2, 10),
        with_rows: choices.flip(),
        count: choices.between(1, 3),
    };
    let size = matrix.columns * matrix.rows;
    let total = 2 * MARGIN + matrix.count * size;
    let sent = packets(total, choices);
    let mut missing = BTreeSet::new();
    let mut kept = Vec::new();
    let (loss, fec_loss) = (*choices.pick(&[4, 10, 30]), *choices.pick(&[5, 1_000]));
    for m in 0..matrix.count {
        for n in 0..size {
            if choices.once_in(loss) {
                missing.insert(MARGIN + m * size + n);
            }
        }
        for group in matrix.groups(m) {
            if !choices.once_in(fec_loss) {
                kept.push((m, group));
            }
        }
    }
    let mut world = World::new(MediaConfig {
        fec: Some(FecLimits::default()),
        ..config()
    });
    for (n, packet) in sent.iter().enumerate() {
        if !missing.contains(&n) {
            let at = SPACING * n as u32;
            world.send(at, 0, Role::Media, packet.clone());
        }
    }
    for (k, (m, (is_row, group))) in kept.iter().enumerate() {
        let of: Vec<&[u8]> = group.iter().map(|n| sent[*n].as_slice()).collect();
        let offset = if *is_row { 1 } else { matrix.columns };
        let role = [Role::FecColumn, Role::FecRow][usize::from(*is_row)];
        // Behind its last packet, or spread over what follows; not behind the end of all.
        let last = group.last().expect("no group is empty") + 1;
        let spread = choices.between(last, MARGIN + (m + 1) * size + MARGIN - 1);
        let at = SPACING * spread as u32 + Duration::from_micros(k as u64 % 50);
        world.send(at, 0, role, protection(&of, offset, *is_row));
    }
    world.advance(Duration::from_secs(4));
    let lost = missing.len();
    // What one FEC packet lacks alone can be had, until there is no such packet.
    while let Some(n) = kept.iter().find_map(|(_, (_, group))| {
        let mut lacking = group.iter().filter(|n| missing.contains(n));
        let first = lacking.next().copied();
        first.filter(|_| lacking.next().is_none())
    }) {
        missing.remove(&n);
    }
    world.check(&sent, &missing, &(&matrix, lost, &missing));
    let rebuilt = world.media.statistics().recovered_fec;
    assert_eq!(rebuilt as usize, lost - missing.len(), "{matrix:?}");
}

/// Media and retransmissions get lost, but no packet for ever: all are delivered.
pub(super) fn rtx(choices: &mut Choices<'_>) {
    let count = choices.between(1, 200);
    let sent = packets(count + 2 * MARGIN, choices);
    let first = u16::from_be_bytes([sent[0][2], sent[0][3]]);
    let loss = *choices.pick(&[2, 5, 20]);
    let plain = choices.once_in(4);
    let mut world = World::new(MediaConfig {
        rtx: vec![RtxType {
            number: RTX_PT,
            apt: PT,
        }],
        feedback: Feedback {
            nack: true,
            reduced_size: choices.flip(),
            ..Feedback::default()
        },
        rtcp: Some(RtcpConfig {
            cname: "engine@here".into(),
            ..RtcpConfig::default()
        }),
        ..config()
    });
    for (n, packet) in sent.iter().enumerate() {
        let inside = (MARGIN..MARGIN + count).contains(&n);
        if !(inside && choices.once_in(loss)) {
            world.send(SPACING * n as u32, 0, Role::Media, packet.clone());
        }
    }
    let mut lost_again = BTreeSet::new();
    let mut number = choices.u16();
    for _ in 0..2_000 {
        world.advance(Duration::from_millis(1));
        for asked in world.asked() {
            let n = usize::from(asked.wrapping_sub(first));
            // One answer in four is lost; no packet's twice.
            if choices.once_in(4) && lost_again.insert(n) {
                continue;
            }
            let original = sent.get(n).expect("nothing else is asked for");
            let answer = if plain {
                original.clone()
            } else {
                number = number.wrapping_add(1);
                retransmission(original, number)
            };
            let delay = Duration::from_millis(choices.between(1, 20) as u64);
            world.send(delay, 0, Role::Media, answer);
        }
    }
    world.advance(Duration::from_secs(2));
    world.check(&sent, &BTreeSet::new(), &(count, loss, plain));
}

/// RFC 4588, 4: the original's number before its payload.
fn retransmission(original: &[u8], number: u16) -> Vec<u8> {
    let header = mirror_rtp::Header::parse(original).expect("a good packet");
    let (head, payload) = original.split_at(header.payload_offset.into());
    let mut p = head.to_vec();
    p[1] = p[1] & 0x80 | RTX_PT;
    p[2..4].copy_from_slice(&number.to_be_bytes());
    p[8..12].copy_from_slice(&RTX_SSRC.to_be_bytes());
    p.extend(&original[2..4]);
    p.extend(payload);
    p
}

/// Each packet comes on one path or both, one path later than the other: all are delivered.
pub(super) fn two_paths(choices: &mut Choices<'_>) {
    let count = choices.between(1, 300);
    let sent = packets(count + 2 * MARGIN, choices);
    let later = choices.below(2) as u8;
    let skew = Duration::from_micros(choices.below(50_000) as u64);
    let mut world = World::new(MediaConfig {
        legs: 2,
        ..config()
    });
    for (n, packet) in sent.iter().enumerate() {
        let inside = (MARGIN..MARGIN + count).contains(&n);
        let paths = if inside { choices.below(5) } else { 2 };
        for leg in [0, 1] {
            // 0 and 1: on the other one only.
            if paths != usize::from(leg) {
                let delay = if leg == later { skew } else { Duration::ZERO };
                let at = SPACING * n as u32 + delay;
                world.send(at, leg, Role::Media, packet.clone());
            }
        }
    }
    world.advance(Duration::from_secs(4));
    world.check(&sent, &BTreeSet::new(), &(count, later, skew));
}
