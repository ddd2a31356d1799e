//! The demultiplexer (ISO 13818-1, 2.4): from TS packets to the access units of every
//! elementary stream of every program. The path of a packet of a known PID is a table lookup,
//! the continuity check and, for H.264 and HEVC, the search for start codes; everything rarer
//! is in functions of its own. Nothing is allocated but when programs change.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant, Position};
use smallvec::SmallVec;

use super::pes::{Clock33, Pes, Stage, Step};
use super::place::Place;
use super::psi::{Section, Sections, StreamEntry};
use super::start_codes::StartCodes;
use super::{DISCONTINUITY, Header, PACKET, PCR, RANDOM_ACCESS};
use crate::assembler::Assembler;
use crate::codec::audio;
use crate::{AccessUnit, Codec, Counters, FrameKind, Limits, Track};

const PIDS: usize = 8192;
const NULL_PID: usize = 0x1FFF;
/// No continuity counter yet.
const NO_CONTINUITY: u8 = 0xFF;
/// Programs that are followed; a PAT may list more.
const MAX_PROGRAMS: usize = 32;
/// Entries of the PID table: PAT, PMTs, PCR PIDs and elementary streams.
const MAX_PIDS: usize = 200;
/// Units that wait to be polled.
const MAX_READY: usize = 1024;

/// A program of the PAT.
#[derive(Debug)]
struct Program {
    number: u16,
    pmt_pid: u16,
    /// The PAT section that names it.
    section: u8,
    /// The PMT section in force.
    map_crc: Option<u32>,
    pcr_pid: u16,
    pids: SmallVec<[u16; 8]>,
    clock: Clock33,
    pcr: Option<Pcr>,
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
struct PidState {
    pid: u16,
    continuity: u8,
    /// Place of its program in the table.
    program: u8,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// PCR only, or a stream that there is no track for.
    Unused,
    Psi(Box<Sections>),
    Video(Box<Video>),
    Other(Box<Other>),
}

/// An H.264 or HEVC stream.
#[derive(Debug)]
struct Video {
    pes: Pes,
    /// The PES packet's last TS packet was seen, by its stuffing.
    ended: bool,
    scanner: StartCodes,
    asm: Assembler,
    track: u16,
    info_version: u32,
    seen: crate::assembler::AssemblerCounters,
}

/// Any other stream: one unit per PES packet.
#[derive(Debug)]
struct Other {
    pes: Pes,
    codec: Codec,
    track: u16,
    open: bool,
    unit: AccessUnit,
}

/// See the module's page.
#[derive(Debug)]
pub struct Demux {
    table: Box<[u8; PIDS]>,
    pids: Vec<PidState>,
    free: Vec<u8>,
    programs: Vec<Option<Program>>,
    pat: SmallVec<[(u8, u32); 4]>,
    tracks: Vec<Track>,
    tracks_version: u32,
    ready: VecDeque<AccessUnit>,
    limits: Limits,
    counters: Counters,
}

impl Demux {
    /// A fresh one.
    pub fn new(limits: Limits) -> Self {
        let mut demux = Demux {
            table: Box::new([0; PIDS]),
            // Place 0 stands for every PID that is not listed.
            pids: vec![PidState {
                pid: 0x1FFF,
                continuity: NO_CONTINUITY,
                program: 0,
                body: Body::Unused,
            }],
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
        let header = Header::read(packet);
        let index = usize::from(self.table[header.pid() & (PIDS - 1)]);
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

    fn psi(&mut self, index: usize, starts: bool, data: &[u8], arrival: Instant) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let pid = state.pid;
        // The sections are taken out while tables change under their content.
        let Body::Psi(mut sections) = core::mem::replace(&mut state.body, Body::Unused) else {
            return;
        };
        if !sections.push(data, starts, |bytes| self.section(pid, bytes, arrival)) {
            self.counters.discards.count(Discard::MalformedPsi);
        }
        if let Some(state) = self.pids.get_mut(index).filter(|s| s.pid == pid) {
            state.body = Body::Psi(sections);
        }
    }

    fn section(&mut self, pid: u16, bytes: &[u8], arrival: Instant) {
        let Some(section) = Section::parse(bytes) else {
            return self.counters.discards.count(Discard::MalformedPsi);
        };
        match (pid, section.table) {
            _ if !section.current => {}
            (0, 0) => self.program_association(&section, arrival),
            (0, _) => self.counters.discards.count(Discard::MalformedPsi),
            (_, 2) => self.program_map(pid, &section, arrival),
            _ => {}
        }
    }

    fn program_association(&mut self, section: &Section<'_>, arrival: Instant) {
        let known = self
            .pat
            .iter()
            .position(|&(number, _)| number == section.number);
        if let Some(entry) = known.and_then(|at| self.pat.get_mut(at)) {
            if entry.1 == section.crc {
                return;
            }
            entry.1 = section.crc;
        } else if self.pat.len() < 16 {
            self.pat.push((section.number, section.crc));
        } else {
            return self.counters.discards.count(Discard::LimitExceeded);
        }
        self.pat.retain(|&mut (number, _)| number <= section.last);
        for place in 0..self.programs.len() {
            let Some(Some(program)) = self.programs.get(place) else {
                continue;
            };
            let listed = section
                .programs()
                .any(|p| p == (program.number, program.pmt_pid));
            if program.section > section.last || (program.section == section.number && !listed) {
                self.remove_program(place, arrival);
            }
        }
        for (number, pmt_pid) in section.programs() {
            let same = |p: &Program| p.number == number && p.pmt_pid == pmt_pid;
            if self.programs.iter().flatten().any(same) || matches!(pmt_pid, 0 | 0x1FFF) {
                continue;
            }
            self.add_program(number, pmt_pid, section.number);
        }
    }

    fn add_program(&mut self, number: u16, pmt_pid: u16, section: u8) {
        let place = self
            .programs
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.programs.len());
        if place >= MAX_PROGRAMS {
            return self.counters.discards.count(Discard::LimitExceeded);
        }
        let listed = match self.state_of(pmt_pid) {
            Some(state) => matches!(state.body, Body::Psi(_)),
            None => self.list(pmt_pid, place, Body::Psi(Box::default())),
        };
        if !listed {
            return self.counters.discards.count(Discard::MalformedPsi);
        }
        let program = Program {
            number,
            pmt_pid,
            section,
            map_crc: None,
            pcr_pid: 0x1FFF,
            pids: SmallVec::new(),
            clock: Clock33::default(),
            pcr: None,
        };
        match self.programs.get_mut(place) {
            Some(free) => *free = Some(program),
            None => self.programs.push(Some(program)),
        }
    }

    fn remove_program(&mut self, place: usize, arrival: Instant) {
        let Some(program) = self.programs.get_mut(place).and_then(Option::take) else {
            return;
        };
        for &pid in &program.pids {
            self.unlist(pid, arrival);
        }
        if !self
            .programs
            .iter()
            .flatten()
            .any(|p| p.pmt_pid == program.pmt_pid)
        {
            let index = self
                .table
                .get(usize::from(program.pmt_pid))
                .copied()
                .unwrap_or(0);
            self.release(program.pmt_pid, index);
        }
    }

    fn program_map(&mut self, pid: u16, section: &Section<'_>, arrival: Instant) {
        let is_it = |p: &Option<Program>| {
            p.as_ref()
                .is_some_and(|p| p.number == section.extension && p.pmt_pid == pid)
        };
        let Some(place) = self.programs.iter().position(is_it) else {
            return;
        };
        let Some(Some(program)) = self.programs.get_mut(place) else {
            return;
        };
        if program.map_crc == Some(section.crc) {
            return;
        }
        let Some((pcr_pid, streams)) = section.program_map() else {
            return self.counters.discards.count(Discard::MalformedPsi);
        };
        program.map_crc = Some(section.crc);
        program.pcr_pid = pcr_pid;
        let number = program.number;
        let before = core::mem::take(&mut program.pids);
        for &old in &before {
            if old != pcr_pid && !streams.into_iter().any(|s| s.pid == old) {
                self.unlist(old, arrival);
            }
        }
        let mut pids = SmallVec::new();
        for entry in streams.take(MAX_PIDS) {
            let mine = before.contains(&entry.pid);
            if !pids.contains(&entry.pid) && self.place_stream(place, number, &entry, mine, arrival)
            {
                pids.push(entry.pid);
            }
        }
        if pcr_pid != 0x1FFF && !pids.contains(&pcr_pid) {
            let kept = before.contains(&pcr_pid);
            if kept || (self.state_of(pcr_pid).is_none() && self.list(pcr_pid, place, Body::Unused))
            {
                pids.push(pcr_pid);
            }
        }
        if let Some(Some(program)) = self.programs.get_mut(place) {
            program.pids = pids;
        }
        self.tracks_version += 1;
    }

    /// Makes a PMT's entry a stream, or keeps it as it is. `false` if it cannot be followed.
    fn place_stream(
        &mut self,
        place: usize,
        number: u16,
        entry: &StreamEntry,
        mine: bool,
        arrival: Instant,
    ) -> bool {
        if let Some(state) = self.state_of(entry.pid) {
            if !mine {
                // Another program's, a PSI PID: first come, first served.
                return false;
            }
            let track = state
                .track()
                .and_then(|t| self.tracks.get_mut(usize::from(t)));
            if let Some(track) =
                track.filter(|t| t.stream_type == entry.stream_type && t.codec == entry.codec)
            {
                track.language = entry.language;
                return true;
            }
            self.unlist(entry.pid, arrival);
        }
        if matches!(entry.pid, 0..16 | 0x1FFF) {
            return false;
        }
        let Some(index) = self.track_for(entry.pid) else {
            self.counters.discards.count(Discard::LimitExceeded);
            return false;
        };
        let body = match (
            Assembler::new(entry.codec, index, &self.limits, false),
            entry.codec,
        ) {
            (Some(asm), _) => Body::Video(Box::new(Video::new(asm, index))),
            // Sections, not PES.
            (None, Codec::Scte35) => Body::Unused,
            (None, codec) => Body::Other(Box::new(Other::new(codec, index))),
        };
        if !self.list(entry.pid, place, body) {
            self.counters.discards.count(Discard::LimitExceeded);
            return false;
        }
        let track = Track {
            id: u32::from(entry.pid),
            program: number,
            stream_type: entry.stream_type,
            codec: entry.codec,
            language: entry.language,
            channels: entry.channels,
            sample_rate: if entry.codec == Codec::Opus {
                48_000
            } else {
                0
            },
            ..Track::default()
        };
        match self.tracks.get_mut(usize::from(index)) {
            Some(old) => *old = track,
            None => self.tracks.push(track),
        }
        true
    }

    /// The index for a stream on `pid`: the one it had, a new one, or that of a stream gone.
    fn track_for(&self, pid: u16) -> Option<u16> {
        let same = self.tracks.iter().position(|t| t.id == u32::from(pid));
        let new = || (self.tracks.len() < self.limits.max_tracks).then_some(self.tracks.len());
        let gone = || self.tracks.iter().position(|t| t.gone);
        u16::try_from(same.or_else(new).or_else(gone)?).ok()
    }

    fn state_of(&self, pid: u16) -> Option<&PidState> {
        let index = usize::from(*self.table.get(usize::from(pid))?);
        self.pids.get(index).filter(|_| index > 0)
    }

    fn list(&mut self, pid: u16, program: usize, body: Body) -> bool {
        let program = u8::try_from(program).unwrap_or(u8::MAX);
        let state = PidState {
            pid,
            continuity: NO_CONTINUITY,
            program,
            body,
        };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.pids.get_mut(usize::from(index)) {
                    *place = state;
                }
                index
            }
            None if self.pids.len() < MAX_PIDS => {
                self.pids.push(state);
                (self.pids.len() - 1) as u8
            }
            None => return false,
        };
        if let Some(entry) = self.table.get_mut(usize::from(pid)) {
            *entry = index;
        }
        true
    }

    /// Ends an elementary stream: its last unit is closed, its track is gone.
    fn unlist(&mut self, pid: u16, arrival: Instant) {
        let index = self.table.get(usize::from(pid)).copied().unwrap_or(0);
        let Some(state) = self.pids.get(usize::from(index)).filter(|_| index > 0) else {
            return;
        };
        if matches!(state.body, Body::Psi(_)) {
            return;
        }
        if let Some(track) = state
            .track()
            .and_then(|t| self.tracks.get_mut(usize::from(t)))
        {
            track.gone = true;
            self.tracks_version += 1;
        }
        self.close(usize::from(index), arrival, Damage::IfUnfinished);
        self.release(pid, index);
    }

    fn release(&mut self, pid: u16, index: u8) {
        if index == 0 {
            return;
        }
        if let Some(state) = self.pids.get_mut(usize::from(index)) {
            state.body = Body::Unused;
            state.pid = 0x1FFF;
        }
        if let Some(entry) = self.table.get_mut(usize::from(pid)) {
            *entry = 0;
        }
        self.free.push(index);
    }

    /// Closes what a PID has in the making.
    fn close(&mut self, index: usize, now: Instant, damage: Damage) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        match &mut state.body {
            Body::Video(video) => {
                let damaged = match damage {
                    Damage::IfUnfinished => video.pes.is_unfinished(),
                    Damage::UnlessEnded => video.pes.is_unfinished() || !video.ended,
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
        self.ready.pop_front()
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
enum Damage {
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
    counters.units += 1;
    counters.units_damaged += u64::from(unit.damaged);
    if ready.len() >= MAX_READY {
        ready.pop_front();
        counters.units_dropped += 1;
    }
    ready.push_back(unit);
}

impl PidState {
    /// Bytes of it were lost.
    fn damage(&mut self) {
        match &mut self.body {
            Body::Video(video) => {
                video.scanner.restart();
                video.asm.damage();
                video.ended = false;
                // A length that counts bytes which never came says nothing.
                if video.pes.stage == Stage::Header || video.pes.is_bounded() {
                    video.pes.lose();
                }
            }
            Body::Other(other) => {
                other.unit.damaged = true;
                if other.pes.stage == Stage::Header {
                    other.pes.end();
                } else {
                    other.pes.lose();
                }
            }
            Body::Psi(sections) => sections.restart(),
            Body::Unused => {}
        }
    }

    fn track(&self) -> Option<u16> {
        match &self.body {
            Body::Video(video) => Some(video.track),
            Body::Other(other) => Some(other.track),
            Body::Psi(_) | Body::Unused => None,
        }
    }

    fn waiting_since(&self) -> Option<Instant> {
        match &self.body {
            Body::Video(video) => video.asm.waiting_since(),
            Body::Other(other) => other.open.then_some(other.unit.last_arrival),
            Body::Psi(_) | Body::Unused => None,
        }
    }
}

impl Video {
    fn new(asm: Assembler, track: u16) -> Self {
        Video {
            pes: Pes::default(),
            ended: false,
            scanner: StartCodes::default(),
            asm,
            track,
            info_version: 0,
            seen: crate::assembler::AssemblerCounters::default(),
        }
    }

    /// A PES packet's payload begins with `data`.
    fn open_pes(&mut self, data: &[u8], arrival: Instant) {
        // What begins with a start code continues nothing; else the NAL unit spans PES packets.
        if matches!(data, [0, 0, 0 | 1, ..]) {
            self.asm.nal_end(self.scanner.position(), arrival);
            self.scanner.restart();
        }
    }

    #[inline]
    fn payload(&mut self, data: &[u8], place: &Place, lead: usize, arrival: Instant) {
        let (body, last) = self.pes.body(data);
        self.scanner.feed(&mut self.asm, body, place, lead, arrival);
        if last {
            self.pes.end();
            self.asm
                .likely_end_of_unit(self.scanner.position(), arrival);
        }
    }
}

impl Other {
    fn new(codec: Codec, track: u16) -> Self {
        Other {
            pes: Pes::default(),
            codec,
            track,
            open: false,
            unit: AccessUnit::default(),
        }
    }

    fn open(
        &mut self,
        at: Position,
        lead: usize,
        pts: Option<i64>,
        dts: Option<i64>,
        arrival: Instant,
    ) {
        self.open = true;
        // Each JPEG XS frame stands alone.
        let kind = if self.codec == Codec::JpegXs {
            FrameKind::Idr
        } else {
            FrameKind::Other
        };
        self.unit = AccessUnit {
            track: self.track,
            kind,
            first: at,
            lead: u8::try_from(lead).unwrap_or(u8::MAX),
            end: at,
            pts,
            dts,
            first_arrival: arrival,
            last_arrival: arrival,
            ..AccessUnit::default()
        };
    }

    fn take(&mut self, body: &[u8], end: Position, arrival: Instant) {
        if !body.is_empty() {
            self.unit.bytes = self.unit.bytes.saturating_add(body.len() as u32);
            self.unit.end = end;
            self.unit.last_arrival = arrival;
        }
    }

    fn close(&mut self, completed_by: Instant, damaged: bool) -> Option<AccessUnit> {
        self.pes.end();
        if !core::mem::take(&mut self.open) || self.unit.bytes == 0 {
            return None;
        }
        self.unit.damaged |= damaged;
        self.unit.completed_by = completed_by;
        Some(self.unit)
    }
}

impl Track {
    /// What the first bytes of a PES packet tell of an audio stream. Whether that is new.
    fn set_audio(&mut self, data: &[u8]) -> bool {
        let found = match self.codec {
            Codec::Aac => find_audio(data, self.sample_rate > 0, audio::adts),
            Codec::MpegAudio => find_audio(data, self.sample_rate > 0, audio::mpeg_audio),
            Codec::Ac3 | Codec::Eac3 => find_audio(data, self.sample_rate > 0, audio::ac3),
            _ => None,
        };
        let Some(info) = found else { return false };
        let new = (info.sample_rate, info.channels, info.profile);
        let changed = new != (self.sample_rate, self.channels, self.profile);
        (self.sample_rate, self.channels, self.profile) = new;
        changed
    }
}

/// A frame header in `data`: at its beginning, or, while nothing is known, anywhere, if the
/// next frame is where it says or outside `data`.
fn find_audio(
    data: &[u8],
    known: bool,
    parse: fn(&[u8]) -> Option<audio::AudioInfo>,
) -> Option<audio::AudioInfo> {
    let range = if known { 1 } else { data.len() };
    (0..range).find_map(|at| {
        let info = parse(data.get(at..)?)?;
        let next = data.get(at + info.frame_bytes..).unwrap_or_default();
        (next.len() < 8 || parse(next).is_some()).then_some(info)
    })
}
