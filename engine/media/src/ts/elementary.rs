//! PES packets of elementary streams on their way to units (ISO 13818-1, 2.4.3.6): where one
//! begins and ends, whose timestamps are whose, what a stream's bits show of its codec, and what
//! loss does to it. Called by [`super::demux`] for every packet but those of the fast path.

use mirror_base::{Discard, Instant};

use super::demux::{Body, Damage, Demux, PidState, emit};
use super::heads;
use super::pes::{PesHeader, Stage, Step};
use super::place::Place;
use super::{Header, RANDOM_ACCESS};
use crate::{Codec, Track, Units};

/// PES packets that are looked at to tell a codec from its bits.
const LOOKS: u8 = 64;

impl Demux {
    /// A packet of a PES stream that is not simply more of the current PES packet.
    pub(super) fn pes_packet(
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
                other.ended = header.is_stuffed();
                let oversized = other.is_oversized();
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
    pub(super) fn video_end(&mut self, index: usize, stuffed: bool, arrival: Instant) {
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
        if state.identity.looks >= LOOKS || self.limits.units == Units::PesPackets {
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
        let Some((found, certain)) = heads::codec_of(data) else {
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
        let certain = certain || identity.votes >= 3;
        if identity.votes >= 3 || codec == Codec::Unknown {
            self.recode(index, found, certain, arrival);
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
                let damaged = match damage {
                    Damage::IfUnfinished => other.pes.is_unfinished(),
                    Damage::UnlessEnded => !other.is_complete(),
                    Damage::Certain => true,
                };
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
}
