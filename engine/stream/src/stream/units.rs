//! What a stream does with its access units: counts and measures them, and follows from them how
//! the pipeline fares.

use mirror_base::Instant;
use mirror_media::{AccessUnit, Codec, Units};

use super::{PendingUnit, Stream};
use crate::figures::Figures;
use crate::frames::Kind;
use crate::lane::lane_of;
use crate::report::PipelineState;
use crate::timeline::Taken;

impl Stream {
    /// Takes the units that a packet completed. `broken_at`: what lies at this slot or behind it
    /// does not continue what came before.
    pub(super) fn drain_units(
        &mut self,
        now: Instant,
        lane: usize,
        timing: PendingUnit,
        mut broken_at: Option<u64>,
    ) -> usize {
        let mut completed = 0;
        while let Some(unit) = self.lanes.poll_unit(lane) {
            completed += 1;
            if self.pending.len() < self.pending.capacity() {
                self.pending.push(timing);
            }
            if broken_at.is_some_and(|slot| unit.first.slot >= slot) {
                broken_at = None;
                self.discontinuity(now, lane);
            }
            self.take_unit(now, &unit);
        }
        if broken_at.is_some() {
            self.discontinuity(now, lane);
        }
        completed
    }

    /// Units that no delivery completed (timeout, end of session): counted, not timed.
    pub(super) fn drain_untimed(&mut self, now: Instant) {
        for lane in 0..self.lanes.count() {
            while let Some(unit) = self.lanes.poll_unit(lane) {
                self.take_unit(now, &unit);
            }
        }
    }

    #[cold]
    fn discontinuity(&mut self, now: Instant, lane: usize) {
        self.frames.discontinuity();
        self.timeline.discontinuity(now, lane);
        // A session begins with one.
        self.recovery.resyncs += u64::from(self.last_unit_at.is_some());
    }

    fn take_unit(&mut self, now: Instant, unit: &AccessUnit) {
        let lane = lane_of(unit.first.slot);
        let lanes = &self.lanes;
        let track = lanes.tracks().get(usize::from(unit.track));
        let (Some(track), Some(from)) = (track, lanes.get(lane)) else {
            // More tracks than are shown.
            return self.frames.count(unit, Kind::Other, &mut self.stats);
        };
        let codec = track.codec;
        let oldest = |slot| lanes.of(slot).map_or(0, |lane| lane.ring.oldest());
        let origin = from.origin(lane);
        let taken = self.timeline.take(now, unit, track, &origin, oldest);
        if self.timeline.wants_reference(now) {
            let pcr = from.pipeline.as_ref().and_then(|p| p.clocks().next());
            self.timeline.reference(now, pcr.map(|(_, pcr)| pcr));
            self.keep_gops(false);
        }
        if taken.begins_gop {
            self.keep_gops(true);
        }
        let kind = match codec {
            _ if taken.is_main_video => Kind::MainVideo,
            _ if codec.is_video() => Kind::Video,
            _ if codec.is_audio() => Kind::Audio,
            _ => Kind::Other,
        };
        self.frames.count(unit, kind, &mut self.stats);
        self.last_unit_at = Some(now);
        self.follow(now, unit, codec.is_video(), taken);
        if codec == Codec::Scte35 {
            while let Some(splice) = self.lanes.poll_splice(lane) {
                self.timeline.splice(now, splice);
            }
        }
    }

    /// The rings are to hold the groups of pictures that are kept.
    fn keep_gops(&mut self, begins: bool) {
        if begins {
            self.lanes.begin_gop();
        }
        let gop = &self.config.gop;
        let most = gop.max_bytes.saturating_add(gop.max_bytes / 4);
        let going_on = self.timeline.cached().gops > 0;
        self.lanes.want_gops(gop.keep, most, going_on);
    }

    /// How the pipeline fares after a unit. What came whole and only cannot be decoded by who
    /// began late is no damage.
    fn follow(&mut self, now: Instant, unit: &AccessUnit, video: bool, taken: Taken) {
        let damaged = unit.damaged && !unit.undecodable;
        self.recovery.resyncs += u64::from(taken.jumped);
        if taken.is_main_video && (unit.kind.is_key() || unit.recovery.is_some()) {
            self.key_frame_missing = false;
        }
        match self.state {
            PipelineState::Streaming if video && damaged => {
                self.recovery.damages += 1;
                self.transition(now, PipelineState::Recovering, "video frame damaged");
            }
            PipelineState::Recovering if video && !unit.damaged => {
                let reason = match unit.kind.is_key() {
                    true => "key frame received",
                    // Nobody looks for key frames.
                    false if self.hands_on_pes() => "video unit received",
                    false => return,
                };
                self.recovery.recoveries += 1;
                self.recovery.recovered_at = Some(now);
                self.transition(now, PipelineState::Streaming, reason);
            }
            PipelineState::Buffering if !unit.damaged => {
                self.transition(now, PipelineState::Streaming, "first frame complete");
            }
            _ => {}
        }
    }

    /// Whether the units are PES packets of which nothing is read: they have no kinds.
    fn hands_on_pes(&self) -> bool {
        self.config.limits.units == Units::PesPackets
            && self.pipelines().any(|p| p.container() == Some("mpegts"))
    }

    /// Whether decoding waits for a key frame, which the sender may be asked for.
    pub fn wants_key_frame(&self) -> bool {
        match self.state {
            _ if self.hands_on_pes() => false,
            PipelineState::Recovering => true,
            // Joined in the middle: no unit is whole before a key frame comes.
            PipelineState::Buffering | PipelineState::Streaming => {
                self.key_frame_missing
                    || (self.stats.key_frames == 0 && self.stats.video_frames > 0)
            }
            _ => false,
        }
    }

    /// 90 kHz ticks to be added to the times of the units of track `track` to have them on the
    /// one clock of the stream, which goes on through wraps and jumps; audio's correction
    /// (`[sync]`) is in it. `None` before its first unit.
    pub fn stream_offset(&self, track: u16) -> Option<i64> {
        self.timeline.stream_offset(track)
    }

    /// The units of the last groups of pictures by place, decoding order: all tracks, from the
    /// first key frame that is kept on.
    pub fn units(&self) -> impl DoubleEndedIterator<Item = &AccessUnit> {
        self.timeline.units()
    }

    /// What its units tell.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = self.timeline.figures(self.figures_at);
        let gop = &mut figures.gop;
        for lane in self.lanes.iter() {
            let history = lane.history_bytes(self.config.ring_bytes);
            gop.ring_bytes += lane.gop_bytes as u64;
            gop.group_bytes += lane.group_bytes as u64;
            gop.history_bytes += history as u64;
            gop.is_short |= lane.group_bytes > history;
        }
        gop.keep_is_set = self.config.gop.keep_is_set;
        figures.gop.key_frame_missing &= !self.paused && self.is_active();
        figures.last_unit_at = self.last_unit_at;
        figures.recovery = self.recovery;
        let losses: u64 = self.pipelines().map(|p| p.counters().sync_losses).sum();
        figures.recovery.resyncs += losses;
        for (number, lane) in self.lanes.iter().enumerate() {
            let Some(report) = lane.pipeline.as_ref().and_then(|p| p.tr101290()) else {
                continue;
            };
            match &mut figures.tr101290 {
                Some(sum) => sum.add(report),
                None => figures.tr101290 = Some(report.clone()),
            }
            if self.lanes.count() > 1 {
                figures.tr101290_of.push((number, report.clone()));
            }
        }
        figures
    }
}
