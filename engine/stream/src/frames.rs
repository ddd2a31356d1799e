//! Counts access units by kind, and measures the frame rate of the track that stands for video
//! from its presentation times.

use std::collections::VecDeque;

use mirror_media::{AccessUnit, FrameKind};

use crate::report::StreamStats;

const PTS_KEPT: usize = 64;
/// Entries at each end of the sorted times that may miss a neighbour because of reordering.
const PTS_MARGIN: usize = 6;
/// Presentation times further apart, in 90 kHz ticks, are not of one timeline: 5 s.
const MAX_PTS_STEP: u64 = 450_000;

/// What a unit is a unit of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The track that stands for video.
    MainVideo,
    /// Other video.
    Video,
    /// Audio.
    Audio,
    /// Anything else.
    Other,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Last presentation times of the track that is measured, decoding order.
    pts: VecDeque<i64>,
    /// That track.
    track: Option<u16>,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Frames {
            pts: VecDeque::with_capacity(PTS_KEPT),
            track: None,
        }
    }

    /// Counts `unit`.
    pub(crate) fn count(&mut self, unit: &AccessUnit, kind: Kind, stats: &mut StreamStats) {
        stats.frames_assembled += 1;
        stats.frames_damaged += u64::from(unit.damaged);
        stats.frames_undecodable += u64::from(unit.undecodable);
        stats.frames_references_missing += u64::from(unit.references_missing);
        match kind {
            Kind::Audio => stats.audio_frames += 1,
            Kind::Other => {}
            Kind::Video | Kind::MainVideo => {
                stats.video_frames += 1;
                match unit.kind {
                    FrameKind::Idr | FrameKind::Cra => stats.key_frames += 1,
                    FrameKind::I | FrameKind::P => stats.p_frames += 1,
                    FrameKind::B => stats.b_frames += 1,
                    FrameKind::Other => {}
                }
            }
        }
        if kind == Kind::MainVideo {
            self.measure(unit);
        }
    }

    /// Takes the time of a unit of the track that is measured.
    fn measure(&mut self, unit: &AccessUnit) {
        if self.track != Some(unit.track) {
            self.track = Some(unit.track);
            self.pts.clear();
        }
        let Some(pts) = unit.pts else { return };
        if self
            .pts
            .back()
            .is_some_and(|last| last.abs_diff(pts) > MAX_PTS_STEP)
        {
            self.pts.clear();
        }
        if self.pts.len() == PTS_KEPT {
            self.pts.pop_front();
        }
        self.pts.push_back(pts);
    }

    /// Frames a second × 1000 from presentation times, 0 until enough are known.
    ///
    /// Decoding order shuffles presentation times, so the last ones are sorted and the ends,
    /// where neighbours may still be missing, are left out.
    pub(crate) fn measured_rate_milli(&self) -> u32 {
        if self.pts.len() < 2 * PTS_MARGIN + 4 {
            return 0;
        }
        let mut sorted: Vec<i64> = self.pts.iter().copied().collect();
        sorted.sort_unstable();
        let first = sorted[PTS_MARGIN];
        let last = sorted[sorted.len() - 1 - PTS_MARGIN];
        let intervals = (sorted.len() - 1 - 2 * PTS_MARGIN) as i128;
        let ticks = i128::from(last) - i128::from(first);
        if ticks <= 0 {
            return 0;
        }
        u32::try_from(intervals * 90_000_000 / ticks).unwrap_or(0)
    }

    /// A break in time: what was measured before says nothing about what follows.
    pub(crate) fn discontinuity(&mut self) {
        self.pts.clear();
        self.track = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rate_is_measured_through_b_frame_reordering() {
        let mut frames = Frames::new();
        let mut stats = StreamStats::default();
        // IBBP in decoding order at 29.97: 3003 ticks a frame
        for gop in 0..30i64 {
            for (place, kind) in [(3, FrameKind::P), (1, FrameKind::B), (2, FrameKind::B)] {
                let unit = AccessUnit {
                    pts: Some((gop * 3 + place) * 3_003),
                    kind,
                    ..AccessUnit::default()
                };
                frames.count(&unit, Kind::MainVideo, &mut stats);
            }
        }
        let rate = frames.measured_rate_milli();
        assert!(rate.abs_diff(29_970) <= 1, "{rate}");
        assert_eq!(
            (stats.p_frames, stats.b_frames, stats.video_frames),
            (30, 60, 90)
        );
    }

    /// So many units of `track`, `step` ticks apart from `start` on.
    fn feed(frames: &mut Frames, track: u16, start: i64, step: i64, units: i64) {
        for n in 0..units {
            let unit = AccessUnit {
                track,
                pts: Some(start + n * step),
                ..AccessUnit::default()
            };
            frames.count(&unit, Kind::MainVideo, &mut StreamStats::default());
        }
    }

    #[test]
    fn frame_rate_is_measured_afresh_of_another_track() {
        let mut frames = Frames::new();
        feed(&mut frames, 3, 0, 3_600, 64);
        assert_eq!(frames.measured_rate_milli(), 25_000);
        feed(&mut frames, 5, 100_000, 1_800, 64);
        assert_eq!(frames.measured_rate_milli(), 50_000);
    }

    #[test]
    fn frame_rate_is_measured_afresh_after_a_jump_of_the_times() {
        for jump in [90_000_000, -90_000_000] {
            let mut frames = Frames::new();
            feed(&mut frames, 0, 0, 3_600, 64);
            feed(&mut frames, 0, jump, 3_600, 8);
            assert_eq!(frames.measured_rate_milli(), 0);
            feed(&mut frames, 0, jump + 8 * 3_600, 3_600, 8);
            assert_eq!(frames.measured_rate_milli(), 25_000);
        }
    }
}
