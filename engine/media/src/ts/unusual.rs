//! Packets out of the ordinary: transport errors, discontinuities, clock references, scrambled
//! ones, those without payload and those of PIDs that no program names (ISO 13818-1, 2.4.3.3 to
//! 2.4.3.5); and losses that the transport tells of.

use core::time::Duration;

use mirror_base::{Discard, Instant};

use super::demux::{Body, Damage, Demux, NO_CONTINUITY, UNSEEN};
use super::pcr::{Limit, Packets};
use super::place::Place;
use super::tr101290::Check;
use super::{DISCONTINUITY, Header, PACKET, PCR};

impl Demux {
    /// Transport errors, PCR, discontinuity, packets without payload. Whether the payload is to
    /// be looked at.
    #[cold]
    pub(super) fn odd(
        &mut self,
        index: usize,
        header: Header,
        packet: &[u8; PACKET],
        place: &Place,
        arrival: Instant,
    ) -> bool {
        if let Some(monitor) = &mut self.monitor {
            monitor.now = monitor.now.max(arrival);
        }
        let Some(state) = self.pids.get_mut(index) else {
            return false;
        };
        state.continuity &= !UNSEEN;
        if header.has_error() {
            self.transport_error(index, header);
            return false;
        }
        if header.flags & DISCONTINUITY != 0 {
            state.continuity = NO_CONTINUITY;
        }
        if header.flags & PCR != 0 {
            self.note_pcr(packet, header, place, arrival);
        }
        if !header.has_payload() {
            if header.payload == 4 || header.payload > PACKET {
                self.counters.discards.count(Discard::MalformedTs);
            }
            return false;
        }
        true
    }

    /// What the packet says cannot be trusted; its PID and counter only if they are what was
    /// expected.
    fn transport_error(&mut self, index: usize, header: Header) {
        self.counters.discards.count(Discard::MalformedTs);
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let continuity = header.continuity();
        let last = state.continuity;
        let expected = last & NO_CONTINUITY == 0 && continuity == last.wrapping_add(1) & 0xF;
        state.continuity = if expected { continuity } else { NO_CONTINUITY };
        let pid = state.pid;
        self.damage(index);
        if let Some(monitor) = &mut self.monitor {
            monitor.count(Check::Transport, pid);
        }
    }

    /// A packet of a PID that is not listed: counted and measured.
    #[cold]
    pub(super) fn unlisted(&mut self, header: Header, arrival: Instant) {
        let pid = (header.pid() & 0x1FFF) as u16;
        let Some(monitor) = &mut self.monitor else {
            return;
        };
        monitor.now = monitor.now.max(arrival);
        if header.has_error() {
            self.counters.discards.count(Discard::MalformedTs);
            monitor.count(Check::Transport, pid);
            return;
        }
        if !header.has_payload() {
            return;
        }
        let flagged = header.flags & DISCONTINUITY != 0;
        if !monitor.unlisted(pid, header.continuity(), flagged) {
            self.counters.continuity_errors += 1;
        }
        if header.is_scrambled()
            && let Some(monitor) = &mut self.monitor
        {
            monitor.scrambled(pid, false);
        }
    }

    pub(super) fn continuity_error(&mut self, index: usize, arrival: Instant) {
        self.counters.continuity_errors += 1;
        let pid = self.pids.get(index).map_or(0x1FFF, |s| s.pid);
        if let Some(monitor) = &mut self.monitor {
            monitor.now = monitor.now.max(arrival);
            monitor.count(Check::Continuity, pid);
        }
    }

    /// A scrambled packet in order.
    #[cold]
    pub(super) fn scrambled(&mut self, index: usize, arrival: Instant) {
        self.counters.discards.count(Discard::Undecryptable);
        self.damage(index);
        self.mark_scrambled(index);
        let Some(state) = self.pids.get(index) else {
            return;
        };
        if let Some(monitor) = &mut self.monitor {
            monitor.now = monitor.now.max(arrival);
            let is_pmt = state.pid != 0 && matches!(state.body, Body::Psi(_));
            monitor.scrambled(state.pid, is_pmt);
        }
    }

    /// A PES packet whose payload is scrambled.
    #[cold]
    pub(super) fn pes_scrambled(&mut self, index: usize) {
        self.counters.discards.count(Discard::Undecryptable);
        self.mark_scrambled(index);
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        match &mut state.body {
            Body::Video(video) => video.asm.damage(),
            Body::Coded(coded) => coded.damage(),
            _ => {}
        }
        if let Some(pes) = state.body.pes() {
            pes.end();
        }
    }

    fn mark_scrambled(&mut self, index: usize) {
        if let Some(track) = self.pids.get(index).and_then(|s| s.track())
            && let Some(track) = self.tracks.get_mut(usize::from(track))
            && !track.scrambled
        {
            track.scrambled = true;
            self.tracks_version += 1;
        }
    }

    /// 2.4.3.5: program_clock_reference.
    fn note_pcr(&mut self, packet: &[u8; PACKET], header: Header, place: &Place, arrival: Instant) {
        let [_, _, _, _, length, _, b0, b1, b2, b3, b4, b5, ..] = *packet;
        if length < 7 {
            self.counters.discards.count(Discard::MalformedTs);
            return;
        }
        let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
        let ticks = base * 300 + (u64::from(b4 & 1) << 8 | u64::from(b5));
        let flagged = header.flags & DISCONTINUITY != 0;
        let behind = Packets {
            all: self.number(place),
            null: self.counters.null_packets,
        };
        let limit = self
            .monitor
            .as_ref()
            .map_or(Duration::ZERO, |m| m.limits.pcr);
        for at in 0..self.programs.len() {
            let Some(Some(program)) = self.programs.get_mut(at) else {
                continue;
            };
            if usize::from(program.pcr_pid) != header.pid() {
                continue;
            }
            let (clock, pid) = (&mut program.clock, program.pcr_pid);
            let overdue = clock.overdue;
            let step = clock.reference(ticks, arrival, behind, flagged, Limit(limit));
            let Some(monitor) = &mut self.monitor else {
                continue;
            };
            monitor.report.pcr_repetition += u64::from(step.late);
            monitor.report.pcr_discontinuity += u64::from(step.discontinuity);
            // A wait that has been counted as too long is not counted again at its end.
            if step.late || (step.discontinuity && !overdue) {
                monitor.count(Check::Pcr, pid);
            }
            if step.inexact {
                monitor.count(Check::PcrAccuracy, pid);
            }
            self.check_times(at);
        }
    }

    /// Packets were lost, so that their number says nothing of the time.
    pub(super) fn lose_position(&mut self) {
        for program in self.programs.iter_mut().flatten() {
            program.clock.lose_position();
        }
    }

    /// A datagram or two were lost: continuity counters will show of which PIDs.
    pub fn lost_some(&mut self) {
        self.lose_position();
    }

    /// Datagrams were lost, so many that continuity counters may have come round: every stream
    /// has lost something. (The counters are kept; most of them show it, as 1.4 asks for.)
    pub fn lost(&mut self) {
        self.lose_position();
        for index in 0..self.pids.len() {
            self.damage(index);
        }
    }

    /// The stream starts afresh: what is in the making is closed as damaged.
    pub fn restart(&mut self, now: Instant) {
        for index in 0..self.pids.len() {
            self.close(index, now, Damage::Certain);
            self.damage(index);
            if let Some(state) = self.pids.get_mut(index) {
                state.continuity = NO_CONTINUITY;
                match &mut state.body {
                    Body::Video(video) => {
                        video.pes.end();
                        video.scanner.restart();
                        video.asm.restart(now);
                    }
                    Body::Coded(coded) => {
                        coded.pes.end();
                        coded.restart(now);
                    }
                    Body::Psi(sections) | Body::Si(sections) => sections.restart(),
                    Body::Splice(splice) => splice.restart(),
                    body => {
                        if let Some(pes) = body.pes() {
                            pes.end();
                        }
                    }
                }
            }
            self.collect(index);
            self.collect_coded(index);
        }
        for program in self.programs.iter_mut().flatten() {
            program.clock.restart(now);
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.restart();
            self.next_check = Instant::ZERO;
        }
    }
}
