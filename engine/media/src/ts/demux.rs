//! The demultiplexer (ISO 13818-1, 2.4): from TS packets to the access units of every
//! elementary stream of every program. The path of a packet of a known PID is a table lookup,
//! the continuity check and, for H.264 and HEVC, the search for start codes; everything rarer
//! is in functions of its own ([`super::unusual`], [`super::programs`], [`super::monitor`]).
//! Nothing is allocated but when programs change.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant};
use smallvec::SmallVec;

use super::coded::Coded;
use super::frames::Framed;
use super::heads;
use super::monitor::Monitor;
use super::pcr::{Pcr, ProgramClock};
use super::pes::{Pes, PesHeader, Stage, Step};
use super::place::Place;
use super::psi::Sections;
use super::splice::Splice;
use super::streams::{Other, SpliceStream, Video};
use super::tr101290::Tr101290;
use super::{DISCONTINUITY, Header, PACKET, PCR, RANDOM_ACCESS};
use crate::{AccessUnit, Codec, Counters, Limits, Track};

/// transport_priority, which means nothing here.
const PRIORITY: u32 = 0x0020_0000;
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
/// PES packets that are looked at to tell a codec from its bits.
const LOOKS: u8 = 64;

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
    /// The first four bytes of a packet with nothing but payload, without its counter.
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
    /// Packets of the stream so far, and those before the payload at hand.
    position: u64,
    pub(super) base: u64,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
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
            position: 0,
            base: 0,
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

    /// A payload of `count` whole packets comes, by [`Demux::packet`].
    #[inline]
    pub fn payload(&mut self, count: u64, arrival: Instant) {
        self.base = self.position;
        self.position += count;
        self.counters.ts_packets += count;
        if arrival >= self.next_check {
            self.check_gaps(arrival);
        }
    }

    /// One packet of a payload that is no whole packets; `skipped` wrong ones stood before it.
    pub fn single(&mut self, packet: &[u8; PACKET], place: &Place, arrival: Instant, skipped: u64) {
        self.payload(1, arrival);
        self.base = (self.base + skipped).wrapping_sub(place.number());
        self.packet(packet, place, arrival);
    }

    /// What the framer could not use.
    #[cold]
    pub fn framing(&mut self, lost: super::framer::Lost, arrival: Instant) {
        self.position += lost.sync_errors;
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
            state.tail = tail(packet);
            return;
        }
        self.any_packet(index, packet, place, arrival);
    }

    /// Any packet but those that [`Demux::packet`] has dealt with.
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

    /// A packet of a PES stream that is not simply more of the current PES packet.
    fn pes_packet(
        &mut self,
        index: usize,
        header: Header,
        mut data: &[u8],
        place: &Place,
        arrival: Instant,
    ) {
        if header.starts_unit() {
            self.begin_pes(index, arrival);
        }
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        if let Body::Video(video) = &mut state.body {
            if !header.starts_unit() && video.ended {
                video.asm.not_the_end();
            }
            video.ended = false;
            if header.flags & RANDOM_ACCESS != 0 {
                video.asm.random_access();
            }
        }
        let mut lead = header.payload;
        let Some(pes) = state.body.pes() else { return };
        if pes.stage == Stage::Header {
            match pes.header(data) {
                Step::More => return,
                Step::Bad => {
                    self.counters.discards.count(Discard::MalformedPes);
                    if let Body::Video(video) = &mut state.body {
                        video.asm.damage();
                    }
                    return;
                }
                Step::Payload(skip, facts) => {
                    data = data.get(skip..).unwrap_or_default();
                    lead += skip;
                    if !self.open_pes(index, &facts, data, place, lead, arrival) {
                        return;
                    }
                }
            }
        }
        self.feed(index, header, data, place, lead, arrival);
    }

    /// A PES packet begins; the one before ends, whole or not.
    fn begin_pes(&mut self, index: usize, arrival: Instant) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let cut = state.body.pes().is_some_and(|pes| pes.is_unfinished());
        if cut {
            self.counters.discards.count(Discard::MalformedPes);
        }
        let (ready, counters) = (&mut self.ready, &mut self.counters);
        match &mut state.body {
            Body::Video(video) if cut => video.asm.damage(),
            Body::Framed(framed) if cut => framed.lose(&mut |unit| emit(ready, counters, unit)),
            Body::Coded(coded) => {
                if cut {
                    coded.damage();
                }
                coded.end_pes(arrival);
            }
            Body::Other(other) => {
                if let Some(unit) = other.close(arrival, cut) {
                    emit(ready, counters, unit);
                }
            }
            _ => {}
        }
        if let Some(pes) = state.body.pes() {
            pes.start();
        }
        self.collect_coded(index);
    }

    /// The header of a PES packet is complete, `data` follows it. Whether it is to be read.
    fn open_pes(
        &mut self,
        index: usize,
        facts: &PesHeader,
        data: &[u8],
        place: &Place,
        lead: usize,
        arrival: Instant,
    ) -> bool {
        if facts.scrambled {
            self.pes_scrambled(index);
            return false;
        }
        self.identify(index, data, arrival);
        let Some(state) = self.pids.get_mut(index) else {
            return false;
        };
        let (pid, track) = (state.pid, state.track());
        let program = self
            .programs
            .get_mut(usize::from(state.program))
            .and_then(Option::as_mut);
        let mut times = (None, None);
        if let Some(program) = program {
            times = program.clock.times.unwrap(facts);
            let clock = program.clock.ticks;
            if let (Some(monitor), Some(_)) = (&mut self.monitor, times.0)
                && track
                    .and_then(|t| self.tracks.get(usize::from(t)))
                    .is_some_and(|t| t.codec.is_video() || t.codec.is_audio())
            {
                monitor.pts(index, pid, clock);
            }
            if times.0.is_none() && matches!(state.body, Body::Framed(_)) {
                // Asynchronous KLV has no times: that of its arrival on the program's clock.
                let is_klv = |t: &Track| t.codec == Codec::Klv;
                let track = track.and_then(|t| self.tracks.get(usize::from(t)));
                let now = program.clock.now().filter(|_| track.is_some_and(is_klv));
                times = (now, now);
            }
        }
        let (ready, counters) = (&mut self.ready, &mut self.counters);
        match &mut state.body {
            Body::Video(video) => {
                video.open_pes(data, arrival);
                video.asm.set_timestamps(times.0, times.1);
            }
            Body::Framed(framed) => {
                framed.open_pes(data, times, &mut |unit| emit(ready, counters, unit));
            }
            Body::Coded(coded) => coded.open_pes(times, arrival),
            Body::Other(other) => other.open(place.at(lead), lead, times.0, times.1, arrival),
            _ => {}
        }
        true
    }

    /// Bytes of a PES packet's payload.
    fn feed(
        &mut self,
        index: usize,
        header: Header,
        data: &[u8],
        place: &Place,
        lead: usize,
        arrival: Instant,
    ) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let (ready, counters) = (&mut self.ready, &mut self.counters);
        match &mut state.body {
            Body::Video(video) if video.pes.stage == Stage::Payload => {
                video.payload(data, place, lead, arrival);
                self.video_end(index, header.is_stuffed(), arrival);
            }
            Body::Framed(framed) if framed.pes.stage == Stage::Payload => {
                let (body, last) = framed.pes.body(data);
                let before = framed.malformed;
                framed.feed(body, last, place, lead, arrival, &mut |unit| {
                    emit(ready, counters, unit);
                });
                if last {
                    framed.pes.end();
                }
                for _ in before..framed.malformed {
                    counters.discards.count(Discard::MalformedBitstream);
                }
                let (version, info) = framed.info;
                if version != framed.shown
                    && let Some(track) = self.tracks.get_mut(usize::from(framed.track))
                {
                    framed.shown = version;
                    track.set_audio(&info);
                    self.tracks_version += 1;
                }
            }
            Body::Coded(coded) if coded.pes.stage == Stage::Payload => {
                let (body, last) = coded.pes.body(data);
                let likely = header.is_stuffed() && !coded.pes.is_bounded();
                coded.feed(body, last, likely, place, lead, arrival);
                if last {
                    coded.pes.end();
                }
                self.collect_coded(index);
            }
            Body::Other(other) if other.pes.stage == Stage::Payload => {
                let (body, last) = other.pes.body(data);
                other.take(body, place.at(lead + body.len()), arrival);
                let oversized = other.unit.bytes as usize > self.limits.max_frame_size;
                if oversized {
                    counters.discards.count(Discard::LimitExceeded);
                }
                if (last || oversized)
                    && let Some(unit) = other.close(arrival, oversized)
                {
                    emit(ready, counters, unit);
                }
            }
            _ => {}
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

    pub(super) fn collect(&mut self, index: usize) {
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

    /// Takes the units that a packet of AV1 or JPEG XS completed.
    pub(super) fn collect_coded(&mut self, index: usize) {
        let Some(PidState {
            body: Body::Coded(coded),
            ..
        }) = self.pids.get_mut(index)
        else {
            return;
        };
        while let Some(unit) = coded.poll_unit() {
            emit(&mut self.ready, &mut self.counters, unit);
        }
        let wrong = coded.take_wrong();
        for _ in 0..wrong.malformed {
            self.counters.discards.count(Discard::MalformedBitstream);
        }
        for _ in 0..wrong.oversized {
            self.counters.discards.count(Discard::LimitExceeded);
        }
        if let Some(track) = self.tracks.get_mut(usize::from(coded.track))
            && coded.describe(track)
        {
            self.tracks_version += 1;
        }
    }

    /// Looks at the first bytes of a PES packet for what the stream is coded in: descriptors may
    /// be missing, and stream types wrong.
    fn identify(&mut self, index: usize, data: &[u8], arrival: Instant) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        if state.identity.looks >= LOOKS {
            return;
        }
        let Some(codec) = state
            .track()
            .and_then(|t| self.tracks.get(usize::from(t)))
            .map(|t| t.codec)
        else {
            return;
        };
        let identity = &mut state.identity;
        identity.looks += 1;
        let Some(found) = heads::codec_of(data) else {
            return;
        };
        if found == codec {
            identity.looks = LOOKS;
            return;
        }
        identity.votes = if identity.rival == found {
            identity.votes + 1
        } else {
            1
        };
        identity.rival = found;
        let enough = if codec == Codec::Unknown { 1 } else { 3 };
        if identity.votes >= enough {
            self.recode(index, found, arrival);
        }
    }

    /// Closes what a PID has in the making.
    pub(super) fn close(&mut self, index: usize, now: Instant, damage: Damage) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let (ready, counters) = (&mut self.ready, &mut self.counters);
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
            Body::Framed(framed) => framed.close(&mut |unit| emit(ready, counters, unit)),
            Body::Coded(coded) => {
                let ended = damage == Damage::IfUnfinished || coded.pes.stage == Stage::Outside;
                let certain = damage == Damage::Certain || coded.pes.is_unfinished();
                coded.close(now, ended, certain);
                self.collect_coded(index);
            }
            Body::Other(other) => {
                let damaged = damage == Damage::Certain || other.pes.is_unfinished();
                if let Some(unit) = other.close(now, damaged) {
                    emit(ready, counters, unit);
                }
            }
            Body::Psi(_) | Body::Si(_) | Body::Splice(_) | Body::Unused => {}
        }
    }

    /// Bytes of a PID were lost.
    pub(super) fn damage(&mut self, index: usize) {
        let Some(state) = self.pids.get_mut(index) else {
            return;
        };
        let (ready, counters) = (&mut self.ready, &mut self.counters);
        state.damage(&mut |unit| emit(ready, counters, unit));
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
