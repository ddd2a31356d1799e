//! The demultiplexer (ISO 13818-1, 2.4): from TS packets to the access units of every
//! elementary stream of every program. The path of a packet of a known PID is a table lookup,
//! the continuity check and, for H.264 and HEVC, the search for start codes; everything rarer
//! is in functions of its own ([`super::unusual`], [`super::elementary`], [`super::programs`], [`super::monitor`]).
//! Nothing is allocated but when programs change.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant};
use smallvec::SmallVec;

use super::coded::Coded;
use super::frames::Framed;
use super::monitor::Monitor;
use super::pcr::{Pcr, ProgramClock};
use super::pes::{Pes, Stage};
use super::place::Place;
use super::psi::Sections;
use super::splice::Splice;
use super::streams::{Batch, Expected, Other, SpliceStream, Usual, Video};
use super::tr101290::Tr101290;
use super::{DISCONTINUITY, Header, PACKET, PCR, RANDOM_ACCESS, USUAL};
use crate::{AccessUnit, Codec, Counters, Limits, Track};

const SYNC: u8 = 0x47;
const PIDS: usize = 8192;
const NULL_PID: usize = 0x1FFF;
/// No continuity counter yet.
pub(super) const NO_CONTINUITY: u8 = 0x80;
/// Mark in a continuity counter: no packet since it was set.
pub(super) const UNSEEN: u8 = 0x20;
/// Mark in a continuity counter: the packet came twice.
const DUPLICATED: u8 = 0x10;
/// Programs that are followed; a PAT may list more.
pub(super) const MAX_PROGRAMS: usize = 32;
/// Entries of the PID table: PAT, PMTs, PCR PIDs and elementary streams.
pub(super) const MAX_PIDS: usize = 200;
/// Units that wait to be polled.
const MAX_READY: usize = 1024;
/// Splice commands that wait to be polled.
pub(super) const MAX_SPLICES: usize = 64;

/// A program of the PAT.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) number: u16,
    pub(super) pmt_pid: u16,
    /// The PAT section that names it.
    pub(super) section: u8,
    /// The PMT section in force.
    pub(super) map_crc: Option<u32>,
    pub(super) pcr_pid: u16,
    pub(super) pids: SmallVec<[u16; 8]>,
    pub(super) clock: ProgramClock,
}

/// What is known of a PID.
#[derive(Debug)]
pub(super) struct PidState {
    pub(super) pid: u16,
    pub(super) continuity: u8,
    /// Place of its program in the table.
    pub(super) program: u8,
    /// The first four bytes of a packet with nothing but payload, without its counter, as they
    /// lie in memory (little-endian).
    pub(super) plain: u32,
    /// The last eight bytes of the newest packet: tells a duplicate from another one.
    pub(super) tail: u64,
    pub(super) identity: Identity,
    pub(super) body: Body,
}

/// How far a codec is certain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    /// What the PMT names.
    pub(super) declared: Codec,
    /// What the bits showed instead, how often in a row.
    pub(super) rival: Codec,
    pub(super) votes: u8,
    /// PES packets looked at; `LOOKS`: enough.
    pub(super) looks: u8,
}

#[derive(Debug)]
pub(super) enum Body {
    /// PCR only, or a stream that there is no track for.
    Unused,
    /// PAT and PMTs.
    Psi(Box<Sections>),
    /// Tables that are measured only.
    Si(Box<Sections>),
    Splice(Box<SpliceStream>),
    Video(Box<Video>),
    Framed(Box<Framed>),
    Coded(Box<Coded>),
    Other(Box<Other>),
}

/// See the module's page.
#[derive(Debug)]
pub struct Demux {
    pub(super) table: Box<[u8; PIDS]>,
    pub(super) pids: Vec<PidState>,
    pub(super) free: Vec<u8>,
    pub(super) programs: Vec<Option<Program>>,
    pub(super) pat: SmallVec<[(u8, u32); 4]>,
    pub(super) tracks: Vec<Track>,
    pub(super) tracks_version: u32,
    pub(super) ready: VecDeque<AccessUnit>,
    pub(super) splices: VecDeque<Splice>,
    pub(super) monitor: Option<Box<Monitor>>,
    /// When [`Demux::check_gaps`] is due.
    pub(super) next_check: Instant,
    /// Packets of the stream that are not among those counted: with wrong sync bytes.
    wrong: u64,
    /// What makes the number of the packet at hand right where its place does not.
    adjust: u64,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
}

impl PidState {
    #[inline]
    const fn expected(&self) -> Expected {
        Expected {
            plain: self.plain,
            continuity: self.continuity,
        }
    }

    /// So many packets came in order; `last` is the last of them.
    #[inline]
    fn passed(&mut self, run: usize, last: &[u8; PACKET]) {
        self.continuity = self.continuity.wrapping_add(run as u8) & 0xF;
        self.tail = tail(last);
    }
}

/// The last bytes of a packet.
#[inline]
fn tail(packet: &[u8; PACKET]) -> u64 {
    packet.last_chunk().copied().map_or(0, u64::from_le_bytes)
}

impl Demux {
    /// A fresh one.
    pub fn new(limits: Limits) -> Self {
        let monitored = limits.tr101290;
        let mut demux = Demux {
            table: Box::new([0; PIDS]),
            // Place 0 stands for every PID that is not listed.
            pids: vec![PidState::new(0x1FFF, 0, Codec::Unknown, Body::Unused)],
            free: Vec::new(),
            programs: Vec::new(),
            pat: SmallVec::new(),
            tracks: Vec::new(),
            tracks_version: 0,
            ready: VecDeque::with_capacity(64),
            splices: VecDeque::new(),
            monitor: monitored.then(|| Box::new(Monitor::new(limits.tr101290_limits))),
            next_check: Instant::ZERO,
            wrong: 0,
            adjust: 0,
            limits,
            counters: Counters::default(),
        };
        demux.list(0, 0, Codec::Unknown, Body::Psi(Box::default()));
        if monitored {
            for pid in super::monitor::SI_PIDS {
                demux.list(
                    pid,
                    0,
                    Codec::Unknown,
                    Body::Si(Box::new(Sections::private())),
                );
            }
        }
        demux
    }

    /// What nearly every payload is: as many packets as a datagram takes, all of them more of one
    /// PES packet. Returns how many of them were taken; if not all, [`Demux::payload`] is to go
    /// on there.
    #[inline(always)]
    pub(crate) fn usual(
        &mut self,
        packets: &[[u8; PACKET]; USUAL],
        slot: u64,
        arrival: Instant,
    ) -> usize {
        if arrival >= self.next_check {
            return 0;
        }
        let [first, .., last] = packets;
        let index = self.place_of(first);
        let Some(state) = self.pids.get_mut(index) else {
            return 0;
        };
        let expected = state.expected();
        let all = Usual {
            packets,
            slot,
            arrival,
        };
        let run = match &mut state.body {
            Body::Video(video) => video.run_usual(&all, expected),
            Body::Other(other) => other.run_usual(&all, expected),
            _ => 0,
        };
        if run == USUAL {
            state.passed(USUAL, last);
            self.counters.ts_packets += USUAL as u64;
        } else if let Some(last) = run.checked_sub(1).and_then(|last| packets.get(last)) {
            state.passed(run, last);
        }
        run
    }

    /// A payload of whole packets, the first `taken` of which [`Demux::usual`] has taken; returns
    /// how many were taken: up to the first one with a wrong sync byte.
    pub(crate) fn payload(
        &mut self,
        packets: &[[u8; PACKET]],
        mut taken: usize,
        slot: u64,
        arrival: Instant,
    ) -> usize {
        if arrival >= self.next_check {
            self.check_gaps(arrival);
        }
        while let Some(rest @ [packet, ..]) = packets.get(taken..)
            && packet[0] == SYNC
        {
            let run = self.run(&Batch {
                packets: rest,
                before: taken,
                slot,
                arrival,
            });
            taken += run;
            if run == 0 {
                let place = Place::whole(slot, (taken * PACKET) as u16);
                self.any_packet(self.place_of(packet), packet, &place, arrival);
                taken += 1;
            }
        }
        self.counters.ts_packets += taken as u64;
        taken
    }

    /// What nearly all packets are: more of a video PES packet, in order, nothing else. How many
    /// of those at the beginning of `some` were, and are dealt with.
    #[inline]
    fn run(&mut self, some: &Batch<'_>) -> usize {
        let Some(first) = some.packets.first() else {
            return 0;
        };
        let index = self.place_of(first);
        let Some(state) = self.pids.get_mut(index) else {
            return 0;
        };
        let expected = state.expected();
        let run = match &mut state.body {
            Body::Video(video) => video.run(some, expected),
            Body::Coded(coded) => coded.run(some, expected),
            Body::Other(other) => other.run(some, expected),
            _ => 0,
        };
        if let Some(last) = run.checked_sub(1).and_then(|last| some.packets.get(last)) {
            state.passed(run, last);
        }
        run
    }

    /// One packet of a payload that is no whole packets; `skipped` wrong ones stood before it.
    pub fn single(&mut self, packet: &[u8; PACKET], place: &Place, arrival: Instant, skipped: u64) {
        if arrival >= self.next_check {
            self.check_gaps(arrival);
        }
        self.adjust = skipped.wrapping_sub(place.number());
        let index = self.place_of(packet);
        self.any_packet(index, packet, place, arrival);
        self.adjust = 0;
        self.counters.ts_packets += 1;
    }

    /// Which packet of the stream it is that lies at `place`.
    pub(super) fn number(&self, place: &Place) -> u64 {
        let before = self.counters.ts_packets + self.wrong;
        before
            .wrapping_add(place.number())
            .wrapping_add(self.adjust)
    }

    /// Where in the table of PIDs that of `packet` stands; 0 for one that is not listed.
    #[inline]
    fn place_of(&self, packet: &[u8; PACKET]) -> usize {
        let pid = usize::from(u16::from_be_bytes([packet[1], packet[2]])) & (PIDS - 1);
        usize::from(self.table.get(pid).copied().unwrap_or(0))
    }

    /// What the framer could not use.
    #[cold]
    pub fn framing(&mut self, lost: super::framer::Lost, arrival: Instant) {
        self.wrong += lost.sync_errors;
        for _ in 0..lost.payloads {
            self.counters.discards.count(Discard::NoTsSync);
        }
        for _ in 0..lost.packets {
            self.counters.discards.count(Discard::MalformedTs);
        }
        self.counters.sync_losses += lost.sync_losses;
        if lost.sync_losses > 0 {
            self.lose_position();
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.now = monitor.now.max(arrival);
            monitor.framing(lost.sync_errors, lost.sync_losses);
        }
    }

    /// Any packet but those that [`Video::run`] has dealt with; its sync byte is right.
    #[inline(never)]
    fn any_packet(&mut self, index: usize, packet: &[u8; PACKET], place: &Place, arrival: Instant) {
        let header = Header::read(packet);
        if index == 0 {
            if header.pid() == NULL_PID {
                self.counters.null_packets += 1;
                return;
            }
            return self.unlisted(header, arrival);
        }
        let odd = header.is_odd() || header.flags & (DISCONTINUITY | PCR) != 0;
        if odd && !self.odd(index, header, packet, place, arrival) {
            return;
        }
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let continuity = header.continuity();
        if continuity != state.continuity.wrapping_add(1) & 0xF
            && !self.jump(index, continuity, tail(packet), arrival)
        {
            return;
        }
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        state.continuity = continuity;
        state.tail = tail(packet);
        if odd && header.is_scrambled() {
            return self.scrambled(index, arrival);
        }
        let Some(data) = packet.get(header.payload..) else {
            self.counters.discards.count(Discard::MalformedTs);
            return;
        };
        match &mut state.body {
            Body::Video(video) => {
                let starts = header.starts_unit() || header.flags & RANDOM_ACCESS != 0;
                if starts || video.pes.stage != Stage::Payload || video.ended {
                    return self.pes_packet(index, header, data, place, arrival);
                }
                video.payload(data, place, header.payload, arrival);
                if header.is_stuffed() || video.asm.has_unit() {
                    self.video_end(index, header.is_stuffed(), arrival);
                }
            }
            Body::Framed(_) | Body::Coded(_) | Body::Other(_) => {
                self.pes_packet(index, header, data, place, arrival);
            }
            Body::Psi(_) | Body::Si(_) => self.psi(index, header.starts_unit(), data, arrival),
            Body::Splice(_) => self.splice_packet(index, header, data, place, arrival),
            Body::Unused => {}
        }
    }

    /// A continuity counter that is not the next one (2.4.3.3). Whether the packet is used.
    #[cold]
    fn jump(&mut self, index: usize, continuity: u8, tail: u64, arrival: Instant) -> bool {
        let Some(state) = self.pids.get_mut(index) else {
            return false;
        };
        let last = state.continuity;
        if last & NO_CONTINUITY != 0 {
            return true;
        }
        if last & 0xF == continuity && state.tail == tail {
            // Sent twice is legal; more often is an error, but still nothing new.
            state.continuity = last & !UNSEEN | DUPLICATED;
            if last & DUPLICATED != 0 {
                self.continuity_error(index, arrival);
            }
            return false;
        }
        self.continuity_error(index, arrival);
        self.lose_position();
        self.damage(index);
        true
    }

    /// Closes units that got nothing for the assembly timeout.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.pids.len() {
            let since = self.pids.get(index).and_then(PidState::waiting_since);
            if since.is_some_and(|s| s + self.limits.assembly_timeout <= now) {
                self.close(index, now, Damage::UnlessEnded);
            }
        }
    }

    /// When [`Demux::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.pids.iter().filter_map(PidState::waiting_since).min()?;
        Some(oldest + self.limits.assembly_timeout)
    }

    /// The stream has ended.
    pub fn finish(&mut self) {
        for index in 0..self.pids.len() {
            if let Some(since) = self.pids.get(index).and_then(PidState::waiting_since) {
                self.close(index, since, Damage::IfUnfinished);
            }
        }
    }

    /// The next complete unit.
    #[inline]
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        let unit = self.ready.pop_front()?;
        // What came whole came in the clear; a damaged one may be the rest of a scrambled one.
        if !unit.damaged
            && let Some(track) = self.tracks.get_mut(usize::from(unit.track))
            && track.scrambled
        {
            track.scrambled = false;
            self.tracks_version += 1;
        }
        Some(unit)
    }

    /// The elementary streams.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Grows with each change of the tracks.
    pub const fn tracks_version(&self) -> u32 {
        self.tracks_version
    }

    /// Figures.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// See [`crate::Pipeline::parameter_sets`].
    pub fn parameter_sets(&self, index: u16) -> &[u8] {
        let of_track = self.pids.iter().find_map(|state| match &state.body {
            Body::Video(video) if video.track == index => Some(video.asm.parameter_sets()),
            Body::Coded(coded) if coded.track == index => Some(coded.parameter_sets()),
            _ => None,
        });
        of_track.unwrap_or_default()
    }

    /// Figures, to add to.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// What TR 101 290 measures; `None` when it is switched off.
    pub fn tr101290(&self) -> Option<&Tr101290> {
        self.monitor.as_ref().map(|monitor| &monitor.report)
    }

    /// The next splice command.
    pub fn poll_splice(&mut self) -> Option<Splice> {
        self.splices.pop_front()
    }

    /// The newest clock reference of each program that has one: program number and PCR.
    pub fn clocks(&self) -> impl Iterator<Item = (u16, Pcr)> + '_ {
        self.programs
            .iter()
            .flatten()
            .filter_map(|p| Some((p.number, p.clock.last?)))
    }
}

/// When a unit that is closed counts as damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Damage {
    /// If its PES packet announced more bytes.
    IfUnfinished,
    /// Also if nothing shows that its PES packet has ended.
    UnlessEnded,
    /// In any case.
    Certain,
}

impl Body {
    pub(super) fn pes(&mut self) -> Option<&mut Pes> {
        match self {
            Body::Video(video) => Some(&mut video.pes),
            Body::Framed(framed) => Some(&mut framed.pes),
            Body::Coded(coded) => Some(&mut coded.pes),
            Body::Other(other) => Some(&mut other.pes),
            Body::Psi(_) | Body::Si(_) | Body::Splice(_) | Body::Unused => None,
        }
    }
}

pub(super) fn emit(ready: &mut VecDeque<AccessUnit>, counters: &mut Counters, unit: AccessUnit) {
    if ready.len() >= MAX_READY {
        ready.pop_front();
        counters.units_dropped += 1;
    }
    ready.push_back(unit);
}
