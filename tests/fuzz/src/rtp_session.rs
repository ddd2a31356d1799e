//! RTP sessions driven by a sequence of operations: a sender whose packets come, are lost, come
//! twice, on two paths, repaired by retransmission (RFC 4588) or FEC (SMPTE ST 2022-1), with
//! RTCP; and whatever else the input says. What was sent is what is delivered, in order, unless
//! the input forges packets.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use mirror_base::{Instant, SlotRing};
use mirror_rtp::media::{
    FecLimits, Feedback, MediaEvent, Origin, PayloadType, Role, RtcpConfig, RtxType,
};
use mirror_rtp::{Config, Header, Media, MediaConfig, Reporting, Session};

use crate::media_harness::Reader;

const SSRC: u32 = 0xABCD;
const RTX_SSRC: u32 = 0x1234;
const PT: u8 = 96;
const RTX_PT: u8 = 97;
/// Most operations of one input.
const MAX_OPERATIONS: usize = 400;
/// Most datagrams that may be written at once.
const MAX_BURST: usize = 64;

/// A configured session, or one without.
pub fn run(data: &[u8]) {
    let mut input = Reader(data);
    let Some(choice) = input.byte() else {
        return;
    };
    if choice & 1 == 0 {
        configured(choice, &mut input);
    } else {
        announced_by_nothing(&mut input);
    }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 5_004))
}

/// Packet `n` of the sender.
fn packet(n: u16) -> Vec<u8> {
    let mut p = vec![0x80, PT | u8::from(n % 10 == 9) << 7];
    p.extend(n.to_be_bytes());
    p.extend((u32::from(n) / 10 * 900).to_be_bytes());
    p.extend(SSRC.to_be_bytes());
    p.resize(12 + 20 + usize::from(n) * 7 % 40, n as u8);
    p
}

fn retransmission(original: u16, number: u16) -> Vec<u8> {
    let original = packet(original);
    let mut p = original[..12].to_vec();
    p[1] = p[1] & 0x80 | RTX_PT;
    p[2..4].copy_from_slice(&number.to_be_bytes());
    p[8..12].copy_from_slice(&RTX_SSRC.to_be_bytes());
    p.extend(&original[2..4]);
    p.extend(&original[12..]);
    p
}

/// FEC over `count` packets from `base`, `offset` apart.
fn protection(base: u16, offset: u8, count: u8) -> Vec<u8> {
    let members: Vec<_> = (0..u16::from(count))
        .map(|k| packet(base.wrapping_add(k * u16::from(offset))))
        .collect();
    let longest = members.iter().map(|p| p.len() - 12).max().unwrap_or(0);
    let mut body = vec![0; longest];
    let (mut flags, mut kind, mut time, mut lengths) = (0, 0, [0_u8; 4], 0_u16);
    for p in &members {
        flags ^= p[0] & 0x3F;
        kind ^= p[1];
        lengths ^= (p.len() - 12) as u16;
        time.iter_mut().zip(&p[4..8]).for_each(|(t, b)| *t ^= b);
        body.iter_mut().zip(&p[12..]).for_each(|(t, b)| *t ^= b);
    }
    let mut out = vec![0x80 | flags, kind & 0x80 | 96, 0, 0];
    out.extend([0; 8]);
    out.extend(base.to_be_bytes());
    out.extend(lengths.to_be_bytes());
    out.extend([0x80 | kind & 0x7F, 0, 0, 0]);
    out.extend(time);
    out.extend([u8::from(offset == 1) << 6, offset, count, 0]);
    out.extend(body);
    out
}

/// A sender report with CNAME, and BYE.
fn sender_report(ntp: u64, rtp: u32, leaves: bool) -> Vec<u8> {
    let mut out = vec![0x80, 200, 0, 6];
    for word in [SSRC, (ntp >> 32) as u32, ntp as u32, rtp, 8, 9] {
        out.extend(word.to_be_bytes());
    }
    out.extend([0x81, 202, 0, 3]);
    out.extend(SSRC.to_be_bytes());
    out.extend(b"\x01\x04a@b.\0\0");
    if leaves {
        out.extend([0x81, 203, 0, 1]);
        out.extend(SSRC.to_be_bytes());
    }
    out
}

/// The limits and switches that `choice` says.
fn config(choice: u8) -> MediaConfig {
    let feedback = Feedback {
        nack: choice & 2 != 0,
        pli: choice & 4 != 0,
        fir: choice & 4 == 0,
        reduced_size: choice & 8 != 0,
        ..Feedback::default()
    };
    MediaConfig {
        payload_types: vec![PayloadType {
            number: PT,
            clock_rate: 90_000,
        }],
        rtx: vec![RtxType {
            number: RTX_PT,
            apt: PT,
        }],
        feedback,
        fec: (choice & 16 != 0).then(FecLimits::default),
        legs: 1 + (choice >> 5 & 1),
        jitter_buffer: Duration::from_millis(100),
        rtcp: (choice & 64 == 0).then(|| RtcpConfig {
            cname: "engine@here".into(),
            ..RtcpConfig::default()
        }),
        session_timeout: Duration::from_secs(2),
        seed: u64::from(choice),
        ..MediaConfig::default()
    }
}

struct World {
    media: Media,
    ring: SlotRing,
    now: Instant,
    /// Nothing was forged.
    honest: bool,
    last_slot: Option<u64>,
    /// The numbers that were delivered since the source began, if honest.
    seen: BTreeMap<u16, u64>,
    events: u64,
}

fn configured(choice: u8, input: &mut Reader<'_>) {
    let now = Instant::from_millis(1_000);
    let mut world = World {
        media: Media::new(now, config(choice), 0),
        ring: SlotRing::with_owned_chunks(64),
        now,
        honest: true,
        last_slot: None,
        seen: BTreeMap::new(),
        events: 0,
    };
    let mut next = 0_u16;
    for _ in 0..MAX_OPERATIONS {
        if world.step(input, &mut next).is_none() {
            break;
        }
    }
    world.media.close(world.now);
    for _ in 0..60 {
        world.advance(Duration::from_secs(60));
    }
    assert!(world.media.is_drained(), "{:?}", world.media);
}

impl World {
    fn step(&mut self, input: &mut Reader<'_>, next: &mut u16) -> Option<()> {
        let (operation, argument) = (input.byte()?, input.byte()?);
        let leg = operation >> 7;
        match operation & 15 {
            // The sender's next packets, but some of them.
            0..=3 => {
                for n in 0..=argument >> 4 {
                    if operation & 3 == 0 || n % 4 != operation & 3 {
                        self.rtp(leg, Role::Media, &packet(*next));
                    }
                    // They count to 60 000 at the most: each number stands for one packet.
                    *next = (*next + 1).min(60_000);
                    self.advance(Duration::from_micros(u64::from(argument & 15) * 100));
                }
            }
            4 => self.rtp(
                leg,
                Role::Media,
                &packet(next.saturating_sub(argument.into())),
            ),
            5 => {
                let number = u16::from(input.byte()?);
                let original = next.saturating_sub(argument.into());
                self.rtp(leg, Role::Media, &retransmission(original, number));
            }
            6 => {
                let (offset, count) = (1 + operation % 8, 1 + (operation >> 4) % 8);
                let base = next.saturating_sub(argument.into());
                let fec = protection(base, offset, count);
                let role = [Role::FecColumn, Role::FecRow][usize::from(offset == 1)];
                self.rtp(leg, role, &fec);
            }
            7 => {
                let ntp = u64::from(argument) << 40 | self.now.as_nanos();
                self.rtcp(leg, &sender_report(ntp, u32::from(*next) * 90, false));
            }
            8 => self.advance(Duration::from_millis(u64::from(argument) * 4)),
            9 => {
                let _ = self.media.request_key_frame(self.now);
                self.drain();
            }
            _ => return self.forge(operation, argument, input, next),
        }
        Some(())
    }

    /// What no honest sender does: nothing that comes out need be genuine from here on.
    fn forge(
        &mut self,
        operation: u8,
        argument: u8,
        input: &mut Reader<'_>,
        next: &mut u16,
    ) -> Option<()> {
        self.honest = false;
        let leg = operation >> 7;
        match operation & 15 {
            10 => {
                let (at, bits) = (input.byte()?, input.byte()?);
                let mut bytes = match argument & 3 {
                    0 => packet(*next),
                    1 => retransmission(next.saturating_sub(3), argument.into()),
                    2 => protection(next.saturating_sub(10), 1 + argument % 5, 1 + argument % 7),
                    _ => sender_report(0, 0, argument & 4 != 0),
                };
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= bits;
                match argument >> 3 & 3 {
                    0 => self.rtp(leg, Role::FecColumn, &bytes),
                    1 => self.rtp(leg, Role::FecRow, &bytes),
                    2 => self.rtp(leg, Role::Media, &bytes),
                    _ => self.rtcp(leg, &bytes),
                }
            }
            11 => {
                let bytes = input.take(argument.into());
                let role = [Role::Media, Role::FecRow, Role::FecColumn, Role::Media];
                self.rtp(leg, role[usize::from(operation >> 4 & 3)], bytes);
            }
            12 => {
                let bytes = input.take(argument.into());
                self.rtcp(leg, bytes);
            }
            // A jump in the numbers, another SSRC.
            13 => {
                *next = next.wrapping_add(u16::from(argument) << 6);
            }
            14 => {
                let mut other = packet(*next);
                other[11] = argument & 3;
                *next = next.wrapping_add(1);
                self.rtp(leg, Role::Media, &other);
            }
            _ => {
                self.rtcp(leg, &sender_report(1 << 40, 0, argument & 1 == 1));
            }
        }
        Some(())
    }

    fn rtp(&mut self, leg: u8, role: Role, bytes: &[u8]) {
        let origin = Origin {
            leg,
            role,
            from: address(1 + leg),
        };
        let now = self.now;
        // What is discarded is counted.
        let _ = self
            .media
            .handle_rtp(now, now, &origin, bytes, &mut self.ring);
        self.advance(Duration::ZERO);
    }

    fn rtcp(&mut self, leg: u8, bytes: &[u8]) {
        let now = self.now;
        let _ = self
            .media
            .handle_rtcp(now, now, leg, address(1 + leg), bytes);
        self.advance(Duration::ZERO);
    }

    /// Lets time pass from deadline to deadline.
    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        for _ in 0..20_000 {
            let Some(due) = self.media.poll_timeout().filter(|at| *at <= end) else {
                self.now = end;
                self.drain();
                return;
            };
            self.now = due.max(self.now);
            self.media.handle_timeout(self.now);
            self.drain();
            let left = self.media.poll_timeout();
            assert!(left.is_none_or(|at| at > self.now), "no progress");
        }
        panic!("timers fire without end");
    }

    fn drain(&mut self) {
        while let Some(d) = self.media.poll_delivery(self.now, &self.ring) {
            assert!(d.due <= self.now && d.due >= d.arrival);
            assert!(self.last_slot < Some(d.slot), "in order, each once");
            self.last_slot = Some(d.slot);
            let bytes = self.ring.get_packet(d.slot).expect("it can be read");
            if self.honest {
                let number = u16::from_be_bytes([bytes[2], bytes[3]]);
                assert_eq!(bytes, packet(number), "nobody sent this");
                assert_eq!(self.seen.insert(number, d.slot), None, "{number} twice");
            }
        }
        let (release, delivery) = (self.media.release_index(), self.media.delivery_index());
        assert!(release <= delivery);
        self.ring.release_before(release);
        let mut out = [0; 1_500];
        let mut written = 0;
        while let Some(t) = self.media.poll_transmit(self.now, &mut out) {
            written += 1;
            assert!(written <= MAX_BURST, "it writes without end");
            let packets = mirror_rtp::rtcp::parse(&out[..t.length]).expect("our own RTCP");
            assert!(packets.count() >= 1);
        }
        while let Some(event) = self.media.poll_event() {
            self.events += 1;
            if let MediaEvent::SourceEnded(_) = event {
                // Whoever was silent for so long begins another life, with whatever numbers.
                self.seen.clear();
            }
            if let MediaEvent::LegDown(leg) | MediaEvent::LegUp(leg) = event {
                assert!(leg < 2);
            }
        }
        let s = self.media.statistics();
        assert!(s.source.packets_held <= 3_000, "{s:?}");
    }
}

/// A source on the shared port.
fn announced_by_nothing(input: &mut Reader<'_>) -> Option<()> {
    let mut now = Instant::from_millis(1_000);
    let mut ring = SlotRing::with_owned_chunks(16);
    let mut session = Session::new(now, SSRC, &Config::default(), 0);
    session.enable_reports(
        now,
        Reporting {
            ssrc: 7,
            cname: "engine@here".into(),
            bandwidth_bps: 1_000_000,
            seed: 1,
        },
    );
    let (mut next, mut last) = (u16::from(input.byte()?) << 8, None);
    for _ in 0..MAX_OPERATIONS {
        let (Some(operation), Some(argument)) = (input.byte(), input.byte()) else {
            break;
        };
        let bytes = match operation & 7 {
            0..=2 => packet(next),
            3 => packet(next.wrapping_sub(argument.into())),
            4 => packet(next.wrapping_add(u16::from(argument) << (operation >> 4))),
            5 => input.take(argument.into()).to_vec(),
            _ => sender_report(now.as_nanos(), u32::from(next), argument == 1),
        };
        next = next.wrapping_add(u16::from(operation & 7 < 3));
        if operation & 8 != 0 {
            now += Duration::from_micros(u64::from(argument) * 500);
        }
        // Both kinds of door for what is of neither kind.
        if let Ok(header) = Header::parse(&bytes)
            && operation & 7 < 6
        {
            let _ = session.handle_rtp(now, now, &header, &bytes, &mut ring);
        } else {
            let _ = session.handle_rtcp(now, now, &bytes);
        }
        settle(&mut session, &mut ring, now, &mut last);
    }
    session.close(now);
    for _ in 0..100 {
        now += Duration::from_secs(10);
        settle(&mut session, &mut ring, now, &mut last);
    }
    assert!(session.is_drained(), "{session:?}");
    Some(())
}

fn settle(session: &mut Session, ring: &mut SlotRing, now: Instant, last: &mut Option<u64>) {
    let mut out = [0; 1_500];
    for round in 0.. {
        assert!(round < 100, "timers fire without end");
        while let Some(d) = session.poll_delivery(now, ring) {
            assert!(*last < Some(d.slot), "in order, each once");
            *last = Some(d.slot);
            assert!(ring.get_packet(d.slot).is_some(), "it can be read");
        }
        ring.release_before(session.delivery_index());
        while session.poll_event().is_some() {}
        if let Some(length) = session.poll_transmit_rtcp(now, &mut out) {
            assert!(
                mirror_rtp::rtcp::parse(&out[..length]).is_ok(),
                "our own RTCP"
            );
        }
        if session.poll_timeout().is_none_or(|at| at > now) {
            break;
        }
        session.handle_timeout(now);
    }
    let s = session.statistics();
    assert!(
        s.packets_held <= 3_000 && s.packets_unique <= s.packets_received,
        "{s:?}"
    );
}
