//! What a stream measures of its access units as they come: each track's clock and rates, groups
//! of pictures, audio against video, the source's clock against ours. A few comparisons and
//! additions a unit, no allocation but for a track's first unit. The stream owns one and feeds
//! it; [`Timeline::figures`] is what goes up to control.

use mirror_base::Instant;
use mirror_media::av_sync::{AvSync, AvSyncConfig};
use mirror_media::clock::{DriftMeter, Step, StreamClock, TrackClock, WRAP_TS, wrap_rtp};
use mirror_media::gop::GopTracker;
use mirror_media::ts::Pcr;
use mirror_media::{AccessUnit, Codec, FrameKind, Splice, SpliceCommand, Track};
use std::collections::VecDeque;

use crate::figures::{Figures, GopReport, LAST_SPLICES, SpliceRecord, SyncReport, TrackFigures};
use crate::gop_cache::{CacheFigures, GopCache, GopConfig};
use crate::rate::RateMeter;

/// Tracks that are measured.
const MAX_TRACKS: usize = 256;
/// Units of other tracks of its kind in a row until another track stands for its kind.
const MAX_SILENCE: u32 = 64;
/// Clock references are looked at so often.
const PCR_INTERVAL_US: i64 = 100_000;
/// After how many ticks of 27 MHz clock references wrap.
const PCR_WRAP: i64 = (1 << 33) * 300;
/// A track that brought nothing for so long has no rate.
const SILENT_US: u64 = 5_000_000;

/// Where a unit comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Its lane.
    pub(crate) lane: usize,
    /// RTP: the media clock's rate in Hz, 0 where nothing says it.
    pub(crate) clock_rate: u32,
    /// Ticks from its times to its sender's clock, where told.
    pub(crate) sender: Option<i64>,
}

/// What one track's units told.
#[derive(Clone, Debug)]
struct TrackState {
    /// PID or SSRC, and codec: another one's units count afresh.
    identity: (u32, Codec),
    lane: usize,
    domain: u64,
    clock: TrackClock,
    units: u64,
    damaged: u64,
    bytes: u64,
    byte_rate: RateMeter,
    unit_rate: RateMeter,
    last_at: Instant,
}

impl TrackState {
    fn new(track: &Track, origin: &Origin, now: Instant) -> Self {
        // PSI has given it a stream type, or it is a payload of RTP itself.
        let in_ts = track.stream_type != 0;
        let program = if in_ts {
            u64::from(track.program)
        } else {
            1 << 31
        };
        let rate = match origin.clock_rate {
            0 if track.codec.is_audio() => track.sample_rate,
            rate => rate,
        };
        TrackState {
            identity: (track.id, track.codec),
            lane: origin.lane,
            domain: (origin.lane as u64) << 32 | program,
            clock: TrackClock::new(if in_ts {
                WRAP_TS
            } else {
                wrap_rtp(if rate == 0 { 90_000 } else { rate })
            }),
            units: 0,
            damaged: 0,
            bytes: 0,
            byte_rate: RateMeter::default(),
            unit_rate: RateMeter::default(),
            last_at: now,
        }
    }

    #[inline]
    fn count(&mut self, unit: &AccessUnit, now: Instant) {
        self.units += 1;
        self.damaged += u64::from(unit.damaged && !unit.undecodable);
        self.bytes += u64::from(unit.bytes);
        self.byte_rate.sample(now, self.bytes);
        self.unit_rate.sample(now, self.units * 1000);
        self.last_at = now;
    }

    fn figures(&self, offset: Option<i64>, now: Instant) -> TrackFigures {
        let silent = now.micros_since(self.last_at) > SILENT_US;
        let rate = |meter: &RateMeter| if silent { 0 } else { meter.per_second() };
        TrackFigures {
            units: self.units,
            damaged: self.damaged,
            bytes: self.bytes,
            bitrate_bps: rate(&self.byte_rate).saturating_mul(8),
            rate_milli: rate(&self.unit_rate),
            last_pts: self.clock.last_pts,
            last_dts: self.clock.last_dts,
            wraps: self.clock.wraps,
            jumps: self.clock.jumps,
            errors: self.clock.errors,
            clock_offset: offset,
        }
    }
}

/// The track that stands for its kind: the first one, until it falls silent.
#[derive(Clone, Copy, Debug, Default)]
struct MainTrack {
    track: Option<u16>,
    silence: u32,
}

impl MainTrack {
    /// Whether `track` is it; `Err`: it is from now on.
    #[inline]
    fn is(&mut self, track: u16) -> Result<bool, ()> {
        if self.track == Some(track) {
            self.silence = 0;
            return Ok(true);
        }
        self.silence += 1;
        if self.track.is_some() && self.silence <= MAX_SILENCE {
            return Ok(false);
        }
        *self = MainTrack {
            track: Some(track),
            silence: 0,
        };
        Err(())
    }
}

/// The source's clock references, made continuous.
#[derive(Debug, Default)]
struct References {
    last: Option<Pcr>,
    /// In 27 MHz ticks.
    ticks: i64,
    due: Option<Instant>,
}

/// What is to be done about a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Taken {
    /// It begins a group of pictures.
    pub(crate) begins_gop: bool,
    /// It is of the main video track.
    pub(crate) is_main_video: bool,
    /// The main track's times jumped.
    pub(crate) jumped: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Timeline {
    config: GopConfig,
    tracks: Vec<Option<TrackState>>,
    video: MainTrack,
    audio: MainTrack,
    gop: GopTracker,
    cache: GopCache,
    clock: StreamClock,
    sync: AvSync,
    drift: DriftMeter,
    references: References,
    /// First unit of the main video track since it was joined, and its last.
    video_since: Option<Instant>,
    video_at: Option<Instant>,
    /// When the last picture was complete at which decoding can begin.
    access_at: Option<Instant>,
    /// A picture told its type.
    typed: bool,
    splices: VecDeque<SpliceRecord>,
    splices_total: u64,
    klv_units: u64,
}

impl Timeline {
    pub(crate) fn new(gop: GopConfig, sync: AvSyncConfig) -> Self {
        Timeline {
            config: gop,
            tracks: Vec::new(),
            video: MainTrack::default(),
            audio: MainTrack::default(),
            gop: GopTracker::new(),
            cache: GopCache::new(gop),
            clock: StreamClock::new(),
            sync: AvSync::new(sync),
            drift: DriftMeter::default(),
            references: References::default(),
            video_since: None,
            video_at: None,
            access_at: None,
            typed: false,
            splices: VecDeque::new(),
            splices_total: 0,
            klv_units: 0,
        }
    }

    /// Takes a unit of `track` in that was complete at `now`. `oldest`: the lowest readable slot
    /// of the lane that a slot belongs to.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        unit: &AccessUnit,
        track: &Track,
        origin: &Origin,
        oldest: impl Fn(u64) -> u64,
    ) -> Taken {
        let mut taken = Taken::default();
        let (video, audio) = (track.codec.is_video(), track.codec.is_audio());
        if video {
            taken.is_main_video = self.is_main_video(now, unit.track);
        }
        let is_main_audio = audio && self.is_main_audio(unit.track);
        if let Some((step, time)) = self.time(now, unit, track, origin) {
            let is_main = taken.is_main_video || is_main_audio;
            if is_main {
                if matches!(step, Step::Jumped(_)) {
                    taken.jumped = taken.is_main_video || self.video.track.is_none();
                    self.sync.restart();
                    self.drift_by_units(|meter| meter.restart());
                }
                self.sync.take(is_main_audio, time, unit.first_arrival);
            }
            if taken.is_main_video || (is_main_audio && self.video.track.is_none()) {
                let micros = time.saturating_mul(100) / 9;
                self.drift_by_units(|meter| meter.sample(micros, unit.last_arrival));
            }
        }
        if taken.is_main_video {
            taken.begins_gop = unit.kind.is_key();
            self.typed |= unit.kind != FrameKind::Other;
            self.video_since.get_or_insert(now);
            self.video_at = Some(now);
            if unit.kind.is_key() || unit.recovery.is_some() {
                self.access_at = Some(now);
            }
            self.gop.take(unit);
        }
        self.klv_units += u64::from(track.codec == Codec::Klv);
        self.cache.push(unit, self.video.track, oldest);
        taken
    }

    /// Counts the unit for its track. What its time is to the one before, and its decoding time
    /// on the stream's clock.
    fn time(
        &mut self,
        now: Instant,
        unit: &AccessUnit,
        track: &Track,
        origin: &Origin,
    ) -> Option<(Step, i64)> {
        let at = usize::from(unit.track);
        let known = self.tracks.get(at).and_then(Option::as_ref);
        if known.is_none_or(|state| state.identity != (track.id, track.codec)) {
            self.meet(at, track, origin, now)?;
        }
        let state = self.tracks.get_mut(at)?.as_mut()?;
        state.count(unit, now);
        let step = state.clock.take(unit);
        let time = unit.dts.or(unit.pts)?;
        let key = (at, state.domain);
        let sender = origin.sender;
        let time = self.clock.take(key, time, step, sender, unit.first_arrival);
        Some((step, time))
    }

    #[cold]
    fn meet(&mut self, at: usize, track: &Track, origin: &Origin, now: Instant) -> Option<()> {
        if at >= MAX_TRACKS {
            return None;
        }
        if self.tracks.len() <= at {
            self.tracks.resize_with(at + 1, || None);
        }
        let place = self.tracks.get_mut(at)?;
        let mut state = TrackState::new(track, origin, now);
        if let Some(old) = place.take() {
            // Its place is another's now, or its codec is: what was counted of a stream counts on.
            if old.identity.0 == track.id {
                state.units = old.units;
                state.damaged = old.damaged;
                state.bytes = old.bytes;
                let clock = old.clock;
                state.clock.wraps = clock.wraps;
                state.clock.jumps = clock.jumps;
                state.clock.errors = clock.errors;
            }
        }
        *place = Some(state);
        Some(())
    }

    fn is_main_video(&mut self, now: Instant, track: u16) -> bool {
        self.video.is(track).unwrap_or_else(|()| {
            self.gop.restart(now);
            self.sync.restart();
            self.drift_by_units(DriftMeter::restart);
            self.video_since = None;
            self.typed = false;
            true
        })
    }

    fn is_main_audio(&mut self, track: u16) -> bool {
        self.audio.is(track).unwrap_or_else(|()| {
            self.sync.restart();
            true
        })
    }

    /// The drift is measured by units where there are no clock references.
    fn drift_by_units(&mut self, with: impl FnOnce(&mut DriftMeter)) {
        if self.references.last.is_none() {
            with(&mut self.drift);
        }
    }

    /// Whether it is time for [`Timeline::reference`].
    #[inline]
    pub(crate) fn wants_reference(&self, now: Instant) -> bool {
        self.references.due.is_none_or(|due| due <= now)
    }

    /// The newest clock reference of the stream, if it has any.
    pub(crate) fn reference(&mut self, now: Instant, pcr: Option<Pcr>) {
        self.references.due = Some(now.offset_micros(PCR_INTERVAL_US));
        let Some(pcr) = pcr else { return };
        match self.references.last.replace(pcr) {
            Some(last) if last.epoch == pcr.epoch => {
                let forward = pcr.ticks.cast_signed() - last.ticks.cast_signed();
                self.references.ticks += forward.rem_euclid(PCR_WRAP);
            }
            _ => {
                self.references.ticks = pcr.ticks.cast_signed();
                self.drift.restart();
            }
        }
        self.drift.sample(self.references.ticks / 27, pcr.arrival);
    }

    /// What lane `lane` brings from now on does not continue what it brought.
    pub(crate) fn discontinuity(&mut self, now: Instant, lane: usize) {
        for state in self.tracks.iter_mut().flatten() {
            if state.lane == lane {
                state.clock.restart();
                state.byte_rate.reset();
                state.unit_rate.reset();
            }
        }
        self.clock.restart(|domain| domain >> 32 == lane as u64);
        self.sync.restart();
        let main = self
            .video
            .track
            .and_then(|at| self.tracks.get(usize::from(at)));
        let is_main = main.is_none_or(|state| state.as_ref().is_none_or(|s| s.lane == lane));
        if is_main {
            self.gop.restart(now);
            self.cache.cut();
            self.drift.restart();
            self.references.last = None;
            self.video_since = None;
        }
    }

    pub(crate) fn splice(&mut self, now: Instant, splice: Splice) {
        if splice.command == SpliceCommand::Null {
            return;
        }
        let same = |record: &&mut SpliceRecord| {
            let old = &record.splice;
            (old.track, old.command, old.pts, old.segmentation)
                == (
                    splice.track,
                    splice.command,
                    splice.pts,
                    splice.segmentation,
                )
        };
        if let Some(record) = self.splices.iter_mut().find(same) {
            record.repeats = record.repeats.saturating_add(1);
            return;
        }
        if self.splices.len() == LAST_SPLICES {
            self.splices.pop_front();
        }
        self.splices_total += 1;
        self.splices.push_back(SpliceRecord {
            number: self.splices_total,
            at: now,
            repeats: 0,
            splice,
        });
    }

    /// Whether video comes, and no picture at which decoding could begin has for
    /// `gop.keyframe_timeout`.
    pub(crate) fn key_frame_missing(&self, now: Instant) -> bool {
        let Some(since) = self.video_since.filter(|_| self.typed) else {
            return false;
        };
        let comes = self
            .video_at
            .is_some_and(|at| now.saturating_since(at) < self.config.keyframe_timeout);
        let since = self.access_at.map_or(since, |at| at.max(since));
        comes && now.saturating_since(since) > self.config.keyframe_timeout
    }

    /// Groups begun.
    pub(crate) fn gops(&self) -> u64 {
        self.gop.statistics().begun
    }

    /// What the cache holds.
    pub(crate) fn cached(&self) -> CacheFigures {
        self.cache.figures()
    }

    /// The session has ended: nothing has a rate.
    pub(crate) fn silence(&mut self) {
        for state in self.tracks.iter_mut().flatten() {
            state.byte_rate.reset();
            state.unit_rate.reset();
        }
    }

    pub(crate) fn units(&self) -> impl DoubleEndedIterator<Item = &AccessUnit> {
        self.cache.units()
    }

    /// Ticks to be added to the times of `track` to have them on the stream's clock, audio's
    /// correction included.
    pub(crate) fn stream_offset(&self, track: u16) -> Option<i64> {
        let offset = self.clock.offset(usize::from(track))?;
        let correction = if self.audio.track == Some(track) {
            self.sync.correction()
        } else {
            0
        };
        Some(offset + correction)
    }

    /// Everything but what the pipelines measure.
    pub(crate) fn figures(&self, now: Instant) -> Figures {
        let tracks = self.tracks.iter().enumerate().map(|(at, state)| {
            let offset = self.clock.offset(at);
            let figures = state.as_ref().map(|state| state.figures(offset, now));
            figures.unwrap_or_default()
        });
        Figures {
            tracks: tracks.collect(),
            sync: SyncReport {
                status: self.sync.status(),
                figures: *self.sync.figures(),
                excessive: self.sync.is_excessive(),
                video: self.video.track,
                audio: self.audio.track,
                source_drift_ppm: self.drift.ppm(),
            },
            gop: GopReport {
                statistics: *self.gop.statistics(),
                current: self.gop.current().copied(),
                last: self.gop.last().copied(),
                structure: self.gop.structure().to_owned(),
                key_frame_missing: self.key_frame_missing(now),
                last_access_point: self.gop.last_access_point(),
                cache: self.cache.figures(),
                ..GopReport::default()
            },
            splices: self.splices.iter().copied().collect(),
            splices_total: self.splices_total,
            klv_units: self.klv_units,
            ..Figures::default()
        }
    }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
