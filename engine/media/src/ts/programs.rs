//! Programs and their elementary streams (ISO 13818-1, 2.4.4.3 and 2.4.4.8): what a PAT or PMT
//! changes in the demultiplexer. Sections are compared by their CRC, so that a restarted encoder
//! which begins with the same version number again is noticed; a repeated one costs its CRC.

use mirror_base::{Discard, Instant};
use smallvec::SmallVec;

use super::demux::{Body, Damage, Demux, MAX_PIDS, MAX_PROGRAMS, PidState, Program};
use super::pes::Clock33;
use super::psi::{Section, StreamEntry};
use super::streams::{Other, Video};
use crate::assembler::Assembler;
use crate::{Codec, Track};

impl Demux {
    pub(super) fn psi(&mut self, index: usize, starts: bool, data: &[u8], arrival: Instant) {
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

    pub(super) fn section(&mut self, pid: u16, bytes: &[u8], arrival: Instant) {
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
            self.add_program(number, pmt_pid, section.number);
        }
    }

    pub(super) fn add_program(&mut self, number: u16, pmt_pid: u16, section: u8) {
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
    pub(super) fn place_stream(
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
            // Sections, not PES (table 2-34: private sections, DSM-CC).
            _ if matches!(entry.stream_type, 0x05 | 0x0A..=0x0D | 0x14) => Body::Unused,
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

    pub(super) fn list(&mut self, pid: u16, program: usize, body: Body) -> bool {
        let program = u8::try_from(program).unwrap_or(u8::MAX);
        let state = PidState::new(pid, program, body);
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
    pub(super) fn unlist(&mut self, pid: u16, arrival: Instant) {
        let index = self.table.get(usize::from(pid)).copied().unwrap_or(0);
        let Some(state) = self.pids.get(usize::from(index)).filter(|_| index > 0) else {
            return;
        };
        if matches!(state.body, Body::Psi(_)) {
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
