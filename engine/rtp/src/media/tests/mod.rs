//! Configured sessions in virtual time: a sender, lossy paths with delays, and the session.

mod control;
mod hold;
mod hostile;
mod recovery;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::rtcp::feedback::NackPair;

pub(super) const SSRC: u32 = 0xABCD;
pub(super) const RTX_SSRC: u32 = 0x1234;
pub(super) const PT: u8 = 96;
pub(super) const RTX_PT: u8 = 97;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The same numbers each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Packet `n` of the sender: 1 ms apart, of lengths that differ.
pub(super) fn packet(ssrc: u32, n: u64, first: u16) -> Vec<u8> {
    let mut p = vec![0x80, PT | u8::from(n % 10 == 9) << 7];
    p.extend_from_slice(&first.wrapping_add(n as u16).to_be_bytes());
    p.extend_from_slice(&(n as u32 / 10 * 900).to_be_bytes());
    p.extend_from_slice(&ssrc.to_be_bytes());
    let length = 100 + n as usize * 7 % 40;
    p.extend((0..length).map(|i| (n as usize * 31 + i * 7) as u8));
    p
}

pub(super) fn sequence_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// Repeats `original` as RFC 4588 says.
pub(super) fn retransmission(original: &[u8], number: u16) -> Vec<u8> {
    let mut p = original[..12].to_vec();
    p[1] = p[1] & 0x80 | RTX_PT;
    p[2..4].copy_from_slice(&number.to_be_bytes());
    p[8..12].copy_from_slice(&RTX_SSRC.to_be_bytes());
    p.extend_from_slice(&original[2..4]);
    p.extend_from_slice(&original[12..]);
    p
}

/// A FEC packet of ST 2022-1 over `packets`, `offset` apart.
pub(super) fn protection(packets: &[&[u8]], offset: u8, is_row: bool) -> Vec<u8> {
    let length = packets.iter().map(|p| p.len() - 12).max().unwrap();
    let mut body = vec![0; length];
    let (mut flags, mut marker_and_type, mut time, mut lengths) = (0, 0, [0u8; 4], 0u16);
    for p in packets {
        flags ^= p[0] & 0x3F;
        marker_and_type ^= p[1];
        lengths ^= (p.len() - 12) as u16;
        time.iter_mut().zip(&p[4..8]).for_each(|(t, b)| *t ^= b);
        body.iter_mut().zip(&p[12..]).for_each(|(t, b)| *t ^= b);
    }
    let mut out = vec![0x80 | flags, marker_and_type & 0x80 | 96, 0, 0];
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&packets[0][2..4]);
    out.extend_from_slice(&lengths.to_be_bytes());
    out.extend_from_slice(&[0x80 | marker_and_type & 0x7F, 0, 0, 0]);
    out.extend_from_slice(&time);
    out.extend_from_slice(&[u8::from(is_row) << 6, offset, packets.len() as u8, 0]);
    out.extend_from_slice(&body);
    out
}

/// A sender report, CNAME and, if it leaves, BYE.
pub(super) fn sender_report(ssrc: u32, ntp: u64, rtp: u32, leaves: bool) -> Vec<u8> {
    let mut out = vec![0x80, 200, 0, 6];
    for word in [ssrc, (ntp >> 32) as u32, ntp as u32, rtp, 8, 9] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    let mut rest = Vec::new();
    rtcp::write::write_report(ssrc, &[], b"cam@studio", &mut rest);
    out.extend_from_slice(&rest[8..]);
    if leaves {
        rtcp::write::write_bye(ssrc, &mut out);
    }
    out
}

pub(super) fn config() -> MediaConfig {
    MediaConfig {
        payload_types: vec![PayloadType {
            number: PT,
            clock_rate: 90_000,
        }],
        jitter_buffer: ms(200),
        seed: 7,
        ..MediaConfig::default()
    }
}

pub(super) fn with_feedback(feedback: Feedback) -> MediaConfig {
    MediaConfig {
        rtx: vec![RtxType {
            number: RTX_PT,
            apt: PT,
        }],
        feedback,
        rtcp: Some(RtcpConfig {
            cname: "engine@here".into(),
            ..RtcpConfig::default()
        }),
        ..config()
    }
}

#[derive(Clone, Debug)]
enum Came {
    Rtp(Origin, Vec<u8>),
    Rtcp(u8, SocketAddr, Vec<u8>),
}

/// What was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) packet: Vec<u8>,
    pub(super) lost_before: u32,
    pub(super) discontinuity: bool,
    pub(super) at: Instant,
}

/// What was sent.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) at: Instant,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct World {
    pub(super) media: Media,
    pub(super) ring: SlotRing,
    pub(super) now: Instant,
    coming: BTreeMap<(Instant, u64), Came>,
    count: u64,
    pub(super) out: Vec<Out>,
    pub(super) said: Vec<Said>,
    pub(super) events: Vec<MediaEvent>,
    /// Results that were errors.
    pub(super) refused: Vec<Discard>,
    /// The sender: what it sent, its answer to a request for `packet` (how late; `None`:
    /// lost), and whether it repeats plainly.
    pub(super) sent: BTreeMap<u16, Vec<u8>>,
    pub(super) answer: Option<Box<dyn FnMut() -> Option<Duration>>>,
    pub(super) answers_plainly: bool,
    rtx_number: u16,
}

impl World {
    pub(super) fn new(config: MediaConfig) -> Self {
        let now = Instant::from_millis(1_000);
        World {
            media: Media::new(now, config, 0),
            ring: SlotRing::with_owned_chunks(128),
            now,
            coming: BTreeMap::new(),
            count: 0,
            out: Vec::new(),
            said: Vec::new(),
            events: Vec::new(),
            refused: Vec::new(),
            sent: BTreeMap::new(),
            answer: None,
            answers_plainly: false,
            rtx_number: 0,
        }
    }

    fn schedule(&mut self, at: Instant, came: Came) {
        self.count += 1;
        self.coming.insert((at, self.count), came);
    }

    pub(super) fn rtp_on(&mut self, after: Duration, leg: u8, role: Role, bytes: &[u8]) {
        let from = addr(["192.0.2.1:5004", "198.51.100.1:5004"][usize::from(leg)]);
        let origin = Origin { leg, role, from };
        self.schedule(self.now + after, Came::Rtp(origin, bytes.to_vec()));
    }

    pub(super) fn rtp(&mut self, after: Duration, bytes: &[u8]) {
        self.rtp_on(after, 0, Role::Media, bytes);
    }

    pub(super) fn rtp_from(&mut self, after: Duration, from: &str, bytes: &[u8]) {
        let origin = Origin {
            leg: 0,
            role: Role::Media,
            from: addr(from),
        };
        self.schedule(self.now + after, Came::Rtp(origin, bytes.to_vec()));
    }

    pub(super) fn rtcp(&mut self, after: Duration, from: &str, bytes: &[u8]) {
        self.schedule(self.now + after, Came::Rtcp(0, addr(from), bytes.to_vec()));
    }

    /// Packets `range`, one each millisecond, but those for which `lost`.
    pub(super) fn play(
        &mut self,
        ssrc: u32,
        range: core::ops::Range<u64>,
        first: u16,
        lost: impl Fn(u64) -> bool,
    ) {
        let start = range.start;
        for n in range {
            let p = packet(ssrc, n, first);
            self.sent.insert(sequence_of(&p), p.clone());
            if !lost(n) {
                self.rtp(ms(n - start), &p);
            }
        }
    }

    /// Lets everything come, and `time` pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let coming = self.coming.keys().next().map(|k| k.0);
            let due = self.media.poll_timeout();
            assert!(
                due.is_none_or(|due| due > self.now),
                "no progress at {:?}",
                self.now
            );
            let next = coming.into_iter().chain(due).min();
            let Some(next) = next.filter(|at| *at <= end) else {
                break;
            };
            self.now = next.max(self.now);
            let first = self.coming.keys().next().copied().filter(|k| k.0 <= next);
            match first.and_then(|key| self.coming.remove(&key)) {
                Some(came) => self.take(came),
                None => self.media.handle_timeout(self.now),
            }
        }
        self.now = end;
        self.drain();
    }

    fn take(&mut self, came: Came) {
        let now = self.now;
        let result = match came {
            Came::Rtp(origin, bytes) => {
                self.media
                    .handle_rtp(now, now, &origin, &bytes, &mut self.ring)
            }
            Came::Rtcp(leg, from, bytes) => self.media.handle_rtcp(now, now, leg, from, &bytes),
        };
        self.refused.extend(result.err());
        // Deadlines that passed are looked at after each datagram, too.
        if self.media.poll_timeout().is_some_and(|due| due <= now) {
            self.media.handle_timeout(now);
        }
    }

    pub(super) fn drain(&mut self) {
        while let Some(d) = self.media.poll_delivery(self.now, &self.ring) {
            assert!(d.due <= self.now && d.due >= d.arrival);
            self.out.push(Out {
                packet: self.ring.get_packet(d.slot).unwrap().to_vec(),
                lost_before: d.lost_before,
                discontinuity: d.discontinuity,
                at: self.now,
            });
        }
        assert!(self.media.release_index() <= self.media.delivery_index());
        self.ring.release_before(self.media.release_index());
        let mut buffer = [0; 1500];
        while let Some(t) = self.media.poll_transmit(self.now, &mut buffer) {
            self.said.push(Said {
                at: self.now,
                to: t.to,
                bytes: buffer[..t.length].to_vec(),
            });
            self.answer_requests(&buffer[..t.length]);
        }
        while let Some(event) = self.media.poll_event() {
            self.events.push(event);
        }
    }

    fn answer_requests(&mut self, compound: &[u8]) {
        let Some(mut answer) = self.answer.take() else {
            return;
        };
        let packets: Vec<_> = rtcp::parse(compound).unwrap().collect();
        for sequence in packets
            .iter()
            .flat_map(|p| p.nacks())
            .flat_map(NackPair::sequences)
        {
            let Some(original) = self.sent.get(&sequence).cloned() else {
                continue;
            };
            if let Some(after) = answer() {
                self.rtx_number = self.rtx_number.wrapping_add(1);
                let repeated = if self.answers_plainly {
                    original
                } else {
                    retransmission(&original, self.rtx_number)
                };
                self.rtp(after, &repeated);
            }
        }
        self.answer = Some(answer);
    }

    pub(super) fn sequences(&self) -> Vec<u16> {
        self.out.iter().map(|o| sequence_of(&o.packet)).collect()
    }

    /// Every packet that was delivered is one that was sent, byte for byte, in order, once.
    pub(super) fn assert_genuine(&self) {
        let mut seen = BTreeSet::new();
        for out in &self.out {
            let sequence = sequence_of(&out.packet);
            assert_eq!(Some(&out.packet), self.sent.get(&sequence), "{sequence}");
            assert!(seen.insert(sequence), "{sequence} twice");
        }
    }

    pub(super) fn compounds(&self) -> impl Iterator<Item = rtcp::Packet<'_>> {
        self.said
            .iter()
            .flat_map(|s| rtcp::parse(&s.bytes).unwrap())
    }
}
