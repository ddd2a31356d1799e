//! The demultiplexer (ISO 13818-1, 2.4): from TS packets to the access units of every
//! elementary stream of every program. The path of a packet of a known PID is a table lookup,
//! the continuity check and, for H.264 and HEVC, the search for start codes; everything rarer
//! is in functions of its own. Nothing is allocated but when programs change.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant};
use smallvec::SmallVec;

use super::pes::{Clock33, Stage, Step};
use super::place::Place;
use super::psi::Sections;
use super::streams::{Other, Video};
use super::{DISCONTINUITY, Header, PACKET, PCR, RANDOM_ACCESS};
use crate::{AccessUnit, Counters, Limits, Track};

/// transport_priority, which means nothing here.
const PRIORITY: u32 = 0x0020_0000;
const PIDS: usize = 8192;
const NULL_PID: usize = 0x1FFF;
/// No continuity counter yet.
pub(super) const NO_CONTINUITY: u8 = 0xFF;
/// Programs that are followed; a PAT may list more.
pub(super) const MAX_PROGRAMS: usize = 32;
/// Entries of the PID table: PAT, PMTs, PCR PIDs and elementary streams.
pub(super) const MAX_PIDS: usize = 200;
/// Units that wait to be polled.
const MAX_READY: usize = 1024;

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
    pub(super) clock: Clock33,
    pub(super) pcr: Option<Pcr>,
}

/// A program clock reference (2.4.3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pcr {
    /// In 27 MHz ticks, wrapping at 2^33 · 300.
    pub ticks: u64,
    /// When its datagram reached the host.
    pub arrival: Instant,
}

/// What is known of a PID.
#[derive(Debug)]
pub(super) struct PidState {
    pub(super) pid: u16,
    pub(super) continuity: u8,
    /// The first four bytes of a packet with nothing but payload, without its counter.
    pub(super) plain: u32,
    /// Place of its program in the table.
    pub(super) program: u8,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    /// PCR only, or a stream that there is no track for.
    Unused,
    Psi(Box<Sections>),
    Video(Box<Video>),
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
    pub(super) limits: Limits,
    pub(super) counters: Counters,
}

impl Demux {
    /// A fresh one.
    pub fn new(limits: Limits) -> Self {
        let mut demux = Demux {
            table: Box::new([0; PIDS]),
            // Place 0 stands for every PID that is not listed.
            pids: vec![PidState::new(0x1FFF, 0, Body::Unused)],
            free: Vec::new(),
            programs: Vec::new(),
            pat: SmallVec::new(),
            tracks: Vec::new(),
            tracks_version: 0,
            ready: VecDeque::with_capacity(64),
            limits,
            counters: Counters::default(),
        };
        demux.list(0, 0, Body::Psi(Box::default()));
        demux
    }

    /// One packet, whose sync byte is right.
    #[inline]
    pub fn packet(&mut self, packet: &[u8; PACKET], place: &Place, arrival: Instant) {
        let bits = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
        let pid = (bits >> 8) as usize & (PIDS - 1);
        let index = usize::from(self.table.get(pid).copied().unwrap_or(0));
        // The packet that nearly all are: more of a video PES packet, in order, nothing else.
        if let Some(state) = self.pids.get_mut(index)
            && let Body::Video(video) = &mut state.body
            && bits & !PRIORITY == state.plain | u32::from(state.continuity.wrapping_add(1) & 0xF)
            && video.plain(packet, place, arrival)
        {
            state.continuity = (bits & 0xF) as u8;
            return;
        }
        self.any_packet(index, packet, place, arrival);
    }

    /// Any packet but those that [`Demux::packet`] has dealt with.
    #[inline(never)]
    fn any_packet(&mut self, index: usize, packet: &[u8; PACKET], place: &Place, arrival: Instant) {
        let header = Header::read(packet);
        if index == 0 {
            self.counters.null_packets += u64::from(header.pid() == NULL_PID);
            return;
        }
        let unusual = header.is_odd() || header.flags & (DISCONTINUITY | PCR) != 0;
        if unusual && !self.odd(index, header, packet, arrival) {
            return;
        }
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let continuity = header.continuity();
        if continuity != state.continuity.wrapping_add(1) & 0xF
            && !jump(state, continuity, &mut self.counters)
        {
            return;
        }
        state.continuity = continuity;
        let Some(data) = packet.get(header.payload..) else {
            self.counters.discards.count(Discard::MalformedTs);
            return;
        };
        match &mut state.body {
            Body::Video(video) => {
                let starts = header.starts_unit() || header.flags & RANDOM_ACCESS != 0;
                if starts || video.pes.stage != Stage::Payload || video.ended {
                    return self.video_start(index, header, data, place, arrival);
                }
                video.payload(data, place, header.payload, arrival);
                if header.is_stuffed() || video.asm.has_unit() {
                    self.video_end(index, header.is_stuffed(), arrival);
                }
            }
            Body::Other(_) => self.other(index, header, data, place, arrival),
            Body::Psi(_) => self.psi(index, header.starts_unit(), data, arrival),
            Body::Unused => {}
        }
    }

    /// Transport errors, scrambling, PCR, discontinuity, packets without payload. Whether the
    /// payload is to be used.
    #[cold]
    fn odd(
        &mut self,
        index: usize,
        header: Header,
        packet: &[u8; PACKET],
        arrival: Instant,
    ) -> bool {
        let Some(state) = self.pids.get_mut(index) else {
            return false;
        };
        let continuity = header.continuity();
        if header.has_error() {
            self.counters.discards.count(Discard::MalformedTs);
            let expected = continuity == state.continuity.wrapping_add(1) & 0xF;
            state.continuity = if expected { continuity } else { NO_CONTINUITY };
            state.damage();
            return false;
        }
        if header.flags & DISCONTINUITY != 0 {
            state.continuity = NO_CONTINUITY;
        }
        if header.flags & PCR != 0 {
            self.note_pcr(packet, header.pid(), arrival);
        }
        let Some(state) = self.pids.get_mut(index) else {
            return false;
        };
        if !header.has_payload() {
            if header.payload == 4 || header.payload > PACKET {
                self.counters.discards.count(Discard::MalformedTs);
            }
            return false;
        }
        if header.is_scrambled() {
            self.counters.discards.count(Discard::Undecryptable);
            state.continuity = continuity;
            state.damage();
            if let Some(track) = state.track()
                && let Some(track) = self.tracks.get_mut(usize::from(track))
                && !track.scrambled
            {
                track.scrambled = true;
                self.tracks_version += 1;
            }
            return false;
        }
        true
    }

    fn note_pcr(&mut self, packet: &[u8; PACKET], pid: usize, arrival: Instant) {
        let [_, _, _, _, length, _, b0, b1, b2, b3, b4, b5, ..] = *packet;
        if length < 7 {
            self.counters.discards.count(Discard::MalformedTs);
            return;
        }
        let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
        let ticks = base * 300 + (u64::from(b4 & 1) << 8 | u64::from(b5));
        for program in self.programs.iter_mut().flatten() {
            if usize::from(program.pcr_pid) == pid {
                program.pcr = Some(Pcr { ticks, arrival });
            }
        }
    }

    /// A video packet that is not simply more of the current PES packet.
    fn video_start(
        &mut self,
        index: usize,
        header: Header,
        mut data: &[u8],
        place: &Place,
        arrival: Instant,
    ) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let Body::Video(video) = &mut state.body else {
            return;
        };
        let mut lead = header.payload;
        if header.starts_unit() {
            if video.pes.is_unfinished() {
                self.counters.discards.count(Discard::MalformedPes);
                video.asm.damage();
            }
            video.ended = false;
            video.pes.start();
        } else if video.ended {
            video.ended = false;
            video.asm.not_the_end();
        }
        if header.flags & RANDOM_ACCESS != 0 {
            video.asm.random_access();
        }
        if video.pes.stage == Stage::Header {
            match video.pes.header(data) {
                Step::More => return,
                Step::Bad => {
                    self.counters.discards.count(Discard::MalformedPes);
                    video.asm.damage();
                    return;
                }
                Step::Payload(skip, pes) => {
                    data = data.get(skip..).unwrap_or_default();
                    lead += skip;
                    video.open_pes(data, arrival);
                    let program = self
                        .programs
                        .get_mut(usize::from(state.program))
                        .and_then(Option::as_mut);
                    let (pts, dts) = program.map_or((None, None), |p| p.clock.unwrap(&pes));
                    video.asm.set_timestamps(pts, dts);
                    if pes.scrambled {
                        self.counters.discards.count(Discard::Undecryptable);
                        video.asm.damage();
                        video.pes.end();
                    }
                }
            }
        }
        if video.pes.stage == Stage::Payload {
            video.payload(data, place, lead, arrival);
            self.video_end(index, header.is_stuffed(), arrival);
        }
    }

    /// Takes the units that a video packet completed.
    fn video_end(&mut self, index: usize, stuffed: bool, arrival: Instant) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let Body::Video(video) = &mut state.body else {
            return;
        };
        video.asm.oversize_end(video.scanner.position());
        if stuffed && video.pes.stage == Stage::Payload && !video.pes.is_bounded() {
            // 2.4.3.5 allows stuffing anywhere, but a PES packet's end hardly does without:
            // believed once it has been right several times in a row.
            video
                .asm
                .likely_end_of_unit(video.scanner.position(), arrival);
            video.ended = true;
        }
        self.collect(index);
    }

    fn collect(&mut self, index: usize) {
        let Some(PidState {
            body: Body::Video(video),
            ..
        }) = self.pids.get_mut(index)
        else {
            return;
        };
        while let Some(unit) = video.asm.poll_unit() {
            emit(&mut self.ready, &mut self.counters, unit);
        }
        let seen = *video.asm.counters();
        for _ in video.seen.malformed..seen.malformed {
            self.counters.discards.count(Discard::MalformedBitstream);
        }
        for _ in video.seen.oversized..seen.oversized {
            self.counters.discards.count(Discard::LimitExceeded);
        }
        video.seen = seen;
        let (version, info) = video.asm.info();
        if version != video.info_version {
            video.info_version = version;
            if let Some(track) = self.tracks.get_mut(usize::from(video.track)) {
                track.set_video(info);
                self.tracks_version += 1;
            }
        }
    }

    /// A packet of a stream whose units are its PES packets.
    fn other(
        &mut self,
        index: usize,
        header: Header,
        mut data: &[u8],
        place: &Place,
        arrival: Instant,
    ) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let Body::Other(other) = &mut state.body else {
            return;
        };
        let mut lead = header.payload;
        if header.starts_unit() {
            let cut = other.pes.is_unfinished();
            if let Some(unit) = other.close(arrival, cut) {
                emit(&mut self.ready, &mut self.counters, unit);
            }
            other.pes.start();
        }
        if other.pes.stage == Stage::Header {
            match other.pes.header(data) {
                Step::More => return,
                Step::Bad => return self.counters.discards.count(Discard::MalformedPes),
                Step::Payload(skip, pes) => {
                    data = data.get(skip..).unwrap_or_default();
                    lead += skip;
                    if pes.scrambled {
                        self.counters.discards.count(Discard::Undecryptable);
                        return other.pes.end();
                    }
                    let program = self
                        .programs
                        .get_mut(usize::from(state.program))
                        .and_then(Option::as_mut);
                    let (pts, dts) = program.map_or((None, None), |p| p.clock.unwrap(&pes));
                    other.open(place.at(lead), lead, pts, dts, arrival);
                    if let Some(track) = self.tracks.get_mut(usize::from(other.track))
                        && track.set_audio(data)
                    {
                        self.tracks_version += 1;
                    }
                }
            }
        }
        if other.pes.stage != Stage::Payload {
            return;
        }
        let (body, last) = other.pes.body(data);
        other.take(body, place.at(lead + body.len()), arrival);
        let oversized = other.unit.bytes as usize > self.limits.max_frame_size;
        if oversized {
            self.counters.discards.count(Discard::LimitExceeded);
        }
        if (last || oversized)
            && let Some(unit) = other.close(arrival, oversized)
        {
            emit(&mut self.ready, &mut self.counters, unit);
        }
    }

    /// Closes what a PID has in the making.
    pub(super) fn close(&mut self, index: usize, now: Instant, damage: Damage) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        match &mut state.body {
            Body::Video(video) => {
                let damaged = match damage {
                    Damage::IfUnfinished => video.pes.is_unfinished(),
                    Damage::UnlessEnded => video.pes.is_unfinished() || !video.is_complete(),
                    Damage::Certain => true,
                };
                video.asm.nal_end(video.scanner.position(), now);
                video.asm.close(now, damaged);
                self.collect(index);
            }
            Body::Other(other) => {
                let damaged = damage == Damage::Certain || other.pes.is_unfinished();
                if let Some(unit) = other.close(now, damaged) {
                    emit(&mut self.ready, &mut self.counters, unit);
                }
            }
            Body::Psi(_) | Body::Unused => {}
        }
    }

    /// Datagrams were lost, so many that continuity counters may have come round.
    pub fn lost(&mut self) {
        for state in &mut self.pids {
            state.damage();
            state.continuity = NO_CONTINUITY;
        }
    }

    /// The stream starts afresh: what is in the making is closed as damaged.
    pub fn restart(&mut self, now: Instant) {
        for index in 0..self.pids.len() {
            self.close(index, now, Damage::Certain);
            if let Some(state) = self.pids.get_mut(index) {
                state.continuity = NO_CONTINUITY;
                match &mut state.body {
                    Body::Video(video) => {
                        video.pes.end();
                        video.scanner.restart();
                        video.asm.restart(now);
                    }
                    Body::Other(other) => other.pes.end(),
                    Body::Psi(sections) => sections.restart(),
                    Body::Unused => {}
                }
            }
        }
        for program in self.programs.iter_mut().flatten() {
            program.clock = Clock33::default();
            program.pcr = None;
        }
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
            Body::Video(video) if video.track == index => Some(&video.asm),
            _ => None,
        });
        of_track.map_or(&[], |asm| asm.parameter_sets())
    }

    /// What TR 101 290 measures; `None` when it is switched off.
    pub const fn tr101290(&self) -> Option<&super::tr101290::Tr101290> {
        None
    }

    /// The next splice command.
    pub const fn poll_splice(&mut self) -> Option<super::splice::Splice> {
        None
    }

    /// Figures, to add to.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The newest clock reference of each program that has one: program number and PCR.
    pub fn clocks(&self) -> impl Iterator<Item = (u16, Pcr)> + '_ {
        self.programs
            .iter()
            .flatten()
            .filter_map(|p| Some((p.number, p.pcr?)))
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

/// A continuity counter that is not the next one (2.4.3.3). Whether the packet is used.
#[cold]
fn jump(state: &mut PidState, continuity: u8, counters: &mut Counters) -> bool {
    /// Marks that a duplicate was seen.
    const DUPLICATED: u8 = 0x10;
    if state.continuity == NO_CONTINUITY {
        return true;
    }
    if state.continuity & 0xF == continuity {
        // Sent twice is legal; more often is an error, but still nothing new.
        counters.continuity_errors += u64::from(state.continuity & DUPLICATED != 0);
        state.continuity |= DUPLICATED;
        return false;
    }
    counters.continuity_errors += 1;
    state.damage();
    true
}

fn emit(ready: &mut VecDeque<AccessUnit>, counters: &mut Counters, unit: AccessUnit) {
    if ready.len() >= MAX_READY {
        ready.pop_front();
        counters.units_dropped += 1;
    }
    ready.push_back(unit);
}
