//! Programs and their elementary streams (ISO 13818-1, 2.4.4.3 and 2.4.4.8): what a PAT or PMT
//! changes in the demultiplexer. Sections are compared by their CRC, so that a restarted encoder
//! which begins with the same version number again is noticed; a repeated one costs its CRC.

use mirror_base::{Discard, Instant};
use smallvec::SmallVec;

use super::Header;
use super::coded::Coded;
use super::demux::{
    Body, Damage, Demux, MAX_PIDS, MAX_PROGRAMS, MAX_SPLICES, PidState, Program, emit,
};
use super::frames::{Framed, is_framed};
use super::pcr::ProgramClock;
use super::place::Place;
use super::psi::{Broken, Section, StreamEntry};
use super::splice::{self, Refusal, Splice};
use super::streams::{Other, SpliceStream, Video};
use crate::assembler::Assembler;
use crate::codec::jpegxs::VideoSupport;
use crate::{AccessUnit, Codec, Track, Units};

/// Sections, not PES (table 2-34: private sections, DSM-CC).
const fn is_sections(stream_type: u8) -> bool {
    matches!(stream_type, 0x05 | 0x0A..=0x0D | 0x14)
}

impl Demux {
    pub(super) fn psi(&mut self, index: usize, starts: bool, data: &[u8], arrival: Instant) {
        if let Some(monitor) = &mut self.monitor {
            monitor.now = monitor.now.max(arrival);
        }
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let pid = state.pid;
        // The sections are taken out while tables change under their content.
        let (mut sections, si) = match core::mem::replace(&mut state.body, Body::Unused) {
            Body::Psi(sections) => (sections, false),
            Body::Si(sections) => (sections, true),
            _ => return,
        };
        let good = sections.push(data, starts, |bytes, _| {
            self.section(index, si, bytes, arrival)
        });
        if !good {
            self.counters.discards.count(Discard::MalformedPsi);
        }
        if let Some(state) = self.pids.get_mut(index).filter(|s| s.pid == pid) {
            state.body = if si {
                Body::Si(sections)
            } else {
                Body::Psi(sections)
            };
        }
    }

    /// A section of PAT, PMT or, if `si`, of a table that is measured only.
    fn section(&mut self, index: usize, si: bool, bytes: &[u8], arrival: Instant) {
        let pid = self.pids.get(index).map_or(0x1FFF, |s| s.pid);
        let parsed = Section::parse(bytes);
        if let Some(monitor) = &mut self.monitor {
            monitor.section(index, pid, !si && pid != 0, bytes, &parsed);
        }
        if si {
            return;
        }
        match (pid, parsed) {
            (0, Ok(section)) if section.table == 0 && section.current => {
                self.program_association(&section, arrival);
            }
            (0, Ok(section)) if section.table == 0 => {}
            (0, _) | (_, Err(Broken::Crc)) => self.counters.discards.count(Discard::MalformedPsi),
            (_, Ok(section)) if section.table == 2 && section.current => {
                self.program_map(pid, &section, arrival);
            }
            // PMT PIDs may carry private sections, too.
            _ => {}
        }
    }

    /// A packet of a splice PID (SCTE 35).
    pub(super) fn splice_packet(
        &mut self,
        index: usize,
        header: Header,
        data: &[u8],
        place: &Place,
        arrival: Instant,
    ) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let program = usize::from(state.program);
        let Body::Splice(mut stream) = core::mem::replace(&mut state.body, Body::Unused) else {
            return;
        };
        let lead = header.payload;
        let at = |offset: usize| {
            let k = lead + offset;
            (place.at(k), u8::try_from(k).unwrap_or(u8::MAX), arrival)
        };
        let mut sections = core::mem::take(&mut stream.sections);
        let good = sections.push(data, header.starts_unit(), |bytes, span| {
            let begin = span.begin.map_or(stream.begin, at);
            let unit = AccessUnit {
                track: stream.track,
                first: begin.0,
                lead: begin.1,
                end: at(span.end).0,
                bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                first_arrival: begin.2,
                last_arrival: arrival,
                completed_by: arrival,
                ..AccessUnit::default()
            };
            self.splice_section(&mut stream, program, bytes, unit);
        });
        if !good {
            self.counters.discards.count(Discard::MalformedPsi);
        }
        if let Some(offset) = sections.unfinished_from() {
            stream.begin = at(offset);
        }
        stream.sections = sections;
        if let Some(state) = self.pids.get_mut(index) {
            state.body = Body::Splice(stream);
        }
    }

    fn splice_section(
        &mut self,
        stream: &mut SpliceStream,
        program: usize,
        bytes: &[u8],
        mut unit: AccessUnit,
    ) {
        let clock = self.programs.get(program).and_then(Option::as_ref);
        let received = clock.and_then(|p| p.clock.now());
        (unit.pts, unit.dts) = (received, received);
        let section = match splice::parse(bytes) {
            Ok(section) => Some(section),
            Err(Refusal::Encrypted) => {
                self.counters.discards.count(Discard::Undecryptable);
                None
            }
            Err(Refusal::Malformed) => {
                return self.counters.discards.count(Discard::MalformedPsi);
            }
        };
        let crc = bytes.last_chunk().copied().map_or(0, u32::from_be_bytes);
        if let Some(section) = section.filter(|_| stream.is_new(crc)) {
            if self.splices.len() >= MAX_SPLICES {
                self.splices.pop_front();
            }
            let near = |raw| clock.map_or(0, |p| p.clock.times.near(raw));
            self.splices.push_back(Splice {
                track: stream.track,
                command: section.command,
                pts: section.pts.map(near),
                received,
                segmentation: section.segmentation,
            });
        }
        emit(&mut self.ready, &mut self.counters, unit);
    }

    pub(super) fn program_association(&mut self, section: &Section<'_>, arrival: Instant) {
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
            self.add_program(number, pmt_pid, section.number, arrival);
        }
    }

    pub(super) fn add_program(&mut self, number: u16, pmt_pid: u16, section: u8, arrival: Instant) {
        let place = self
            .programs
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.programs.len());
        if place >= MAX_PROGRAMS {
            return self.counters.discards.count(Discard::LimitExceeded);
        }
        self.give_way(pmt_pid);
        let listed = match self.state_of(pmt_pid) {
            Some(state) => matches!(state.body, Body::Psi(_)),
            None => self.list(pmt_pid, place, Codec::Unknown, Body::Psi(Box::default())),
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
            clock: ProgramClock::new(arrival),
        };
        match self.programs.get_mut(place) {
            Some(free) => *free = Some(program),
            None => self.programs.push(Some(program)),
        }
    }

    pub(super) fn remove_program(&mut self, place: usize, arrival: Instant) {
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

    pub(super) fn program_map(&mut self, pid: u16, section: &Section<'_>, arrival: Instant) {
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
        if program.pcr_pid != pcr_pid {
            program.clock.moved(arrival);
        }
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
            self.give_way(pcr_pid);
            let kept = before.contains(&pcr_pid);
            let free = self.state_of(pcr_pid).is_none();
            if kept || (free && self.list(pcr_pid, place, Codec::Unknown, Body::Unused)) {
                pids.push(pcr_pid);
            }
        }
        if let Some(monitor) = &mut self.monitor {
            for &pid in &pids {
                let index = self.table.get(usize::from(pid)).copied().unwrap_or(0);
                monitor.named(usize::from(index));
            }
        }
        if let Some(Some(program)) = self.programs.get_mut(place) {
            program.pids = pids;
        }
        self.tracks_version += 1;
    }

    /// Makes a PMT's entry a stream, or keeps it as it is. `false` if it cannot be followed.
    pub(super) fn place_stream(
        &mut self,
        place: usize,
        number: u16,
        entry: &StreamEntry,
        mine: bool,
        arrival: Instant,
    ) -> bool {
        self.give_way(entry.pid);
        if let Some(state) = self.state_of(entry.pid) {
            if !mine {
                // Another program's, a PSI PID: first come, first served.
                return false;
            }
            // By what the table says: the bits may have told otherwise since.
            let same = state.identity.declared == entry.codec;
            let track = state
                .track()
                .and_then(|t| self.tracks.get_mut(usize::from(t)));
            if let Some(track) = track.filter(|t| same && t.stream_type == entry.stream_type) {
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
        let body = self.body_for(entry.codec, entry.stream_type, index, entry.jpeg_xs);
        if !self.list(entry.pid, place, entry.codec, body) {
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

    /// What reads a stream of that codec.
    fn body_for(
        &self,
        codec: Codec,
        stream_type: u8,
        track: u16,
        jpeg_xs: Option<VideoSupport>,
    ) -> Body {
        let whole = || Body::Other(Box::new(Other::new(track, self.limits.max_frame_size)));
        let in_sections = codec == Codec::Scte35 || is_sections(stream_type);
        if self.limits.units == Units::PesPackets && !in_sections {
            return whole();
        }
        if let Some(asm) = Assembler::new(codec, track, &self.limits, false) {
            return Body::Video(Box::new(Video::new(asm, track)));
        }
        if let Some(coded) = Coded::new(codec, track, &self.limits, jpeg_xs) {
            return Body::Coded(Box::new(coded));
        }
        match codec {
            Codec::Scte35 => Body::Splice(Box::new(SpliceStream::new(track))),
            _ if is_sections(stream_type) => Body::Unused,
            codec if is_framed(codec) => {
                // Metadata in PES packets lies in access unit cells (2.12.4).
                let in_cells = codec == Codec::Klv && stream_type == 0x15;
                let most = self.limits.max_frame_size;
                Body::Framed(Box::new(Framed::new(codec, track, most, in_cells)))
            }
            _ => whole(),
        }
    }

    /// The bits of a stream show another codec than is known: it is read as that from here on.
    /// If that is not `certain`, frames count only once another one has followed.
    #[cold]
    pub(super) fn recode(&mut self, index: usize, codec: Codec, certain: bool, arrival: Instant) {
        let Some(number) = self.pids.get(index).and_then(PidState::track) else {
            return;
        };
        let Some(track) = self.tracks.get(usize::from(number)) else {
            return;
        };
        let track = Track {
            id: track.id,
            program: track.program,
            stream_type: track.stream_type,
            codec,
            language: track.language,
            ..Track::default()
        };
        let pes = self.pids.get_mut(index).and_then(|s| s.body.pes().copied());
        self.close(index, arrival, Damage::IfUnfinished);
        let mut body = self.body_for(codec, track.stream_type, number, None);
        if let Body::Framed(framed) = &mut body {
            framed.cautious = !certain;
        }
        if let Some(state) = self.pids.get_mut(index) {
            // The PES packet goes on: its payload is the first that is read so.
            if let (Some(new), Some(old)) = (body.pes(), pes) {
                *new = old;
            }
            state.body = body;
            state.identity.votes = 0;
        }
        if let Some(place) = self.tracks.get_mut(usize::from(number)) {
            *place = track;
        }
        self.tracks_version += 1;
    }

    /// A PID that was only measured is wanted for something else.
    fn give_way(&mut self, pid: u16) {
        let index = self.table.get(usize::from(pid)).copied().unwrap_or(0);
        let state = self.pids.get(usize::from(index));
        if state.is_some_and(|s| matches!(s.body, Body::Si(_))) {
            self.release(pid, index);
        }
    }

    /// The index for a stream on `pid`: the one it had, a new one, or that of a stream gone.
    pub(super) fn track_for(&self, pid: u16) -> Option<u16> {
        let same = self.tracks.iter().position(|t| t.id == u32::from(pid));
        let new = || (self.tracks.len() < self.limits.max_tracks).then_some(self.tracks.len());
        let gone = || self.tracks.iter().position(|t| t.gone);
        u16::try_from(same.or_else(new).or_else(gone)?).ok()
    }

    pub(super) fn state_of(&self, pid: u16) -> Option<&PidState> {
        let index = usize::from(*self.table.get(usize::from(pid))?);
        self.pids.get(index).filter(|_| index > 0)
    }

    pub(super) fn list(&mut self, pid: u16, program: usize, codec: Codec, body: Body) -> bool {
        let program = u8::try_from(program).unwrap_or(u8::MAX);
        let state = PidState::new(pid, program, codec, body);
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
        if let Some(monitor) = &mut self.monitor {
            monitor.listed(usize::from(index));
        }
        true
    }

    /// Ends an elementary stream: its last unit is closed, its track is gone.
    pub(super) fn unlist(&mut self, pid: u16, arrival: Instant) {
        let index = self.table.get(usize::from(pid)).copied().unwrap_or(0);
        let Some(state) = self.pids.get(usize::from(index)).filter(|_| index > 0) else {
            return;
        };
        if matches!(state.body, Body::Psi(_) | Body::Si(_)) {
            return;
        }
        // By its PID: streams of sections have a track, but no state that names it.
        let listed = |t: &&mut Track| t.id == u32::from(pid) && !t.gone;
        if let Some(track) = self.tracks.iter_mut().find(listed) {
            track.gone = true;
            self.tracks_version += 1;
        }
        self.close(usize::from(index), arrival, Damage::IfUnfinished);
        self.release(pid, index);
        // Another program may name the PID, too: its table is read again when it next comes.
        for program in self.programs.iter_mut().flatten() {
            program.map_crc = None;
        }
    }

    pub(super) fn release(&mut self, pid: u16, index: u8) {
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
}
