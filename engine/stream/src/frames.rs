//! Counts access units by kind, measures the frame rate, and keeps the last units by place so
//! that outputs can find a key frame. GOP rules follow rtp-media-spec section 20 as far as the
//! counters need: a GOP begins at a key frame.

use std::collections::VecDeque;

use mirror_media::{AccessUnit, FrameKind};

use crate::report::StreamStats;

const PTS_KEPT: usize = 64;
/// Entries at each end of the sorted times that may miss a neighbour because of reordering.
const PTS_MARGIN: usize = 6;
/// Presentation times further apart, in 90 kHz ticks, are not of one timeline: 5 s.
const MAX_PTS_STEP: u64 = 450_000;
/// Units of other video tracks in a row until the rate is measured of another one: the first
/// is gone, or has stopped.
const MAX_SILENCE: usize = PTS_KEPT;

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Last presentation times of the track that is measured, decoding order.
    pts: VecDeque<i64>,
    /// The video track that is measured.
    track: Option<u16>,
    /// Units of other video tracks since its last one.
    silence: usize,
    /// Last access units of all tracks, decoding order.
    units: VecDeque<AccessUnit>,
    max_units: usize,
}

impl Frames {
    pub(crate) fn new(max_units: usize) -> Self {
        Frames {
            pts: VecDeque::with_capacity(PTS_KEPT),
            track: None,
            silence: 0,
            units: VecDeque::with_capacity(max_units.min(1024)),
            max_units,
        }
    }

    /// Counts `unit`, of a video track or not.
    pub(crate) fn count(
        &mut self,
        unit: &AccessUnit,
        is_video: bool,
        is_audio: bool,
        stats: &mut StreamStats,
    ) {
        stats.frames_assembled += 1;
        if unit.damaged {
            stats.frames_damaged += 1;
        }
        if is_audio {
            stats.audio_frames += 1;
        }
        if is_video {
            stats.video_frames += 1;
            match unit.kind {
                FrameKind::Idr | FrameKind::Cra => {
                    stats.key_frames += 1;
                    stats.gops += 1;
                }
                FrameKind::I | FrameKind::P => stats.p_frames += 1,
                FrameKind::B => stats.b_frames += 1,
                FrameKind::Other => {}
            }
            self.measure(unit);
        }
        if self.max_units > 0 {
            if self.units.len() == self.max_units {
                self.units.pop_front();
            }
            self.units.push_back(*unit);
        }
    }

    /// Takes a video unit's time, if it is of the one track that is measured.
    fn measure(&mut self, unit: &AccessUnit) {
        if self.track != Some(unit.track) {
            self.silence += 1;
            if self.track.is_some() && self.silence <= MAX_SILENCE {
                return;
            }
            self.track = Some(unit.track);
            self.pts.clear();
        }
        self.silence = 0;
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

    /// The last access units, decoding order.
    pub(crate) fn units(&self) -> impl DoubleEndedIterator<Item = &AccessUnit> {
        self.units.iter()
    }

    /// A break in time: what was measured before says nothing about what follows.
    pub(crate) fn discontinuity(&mut self) {
        self.pts.clear();
        self.track = None;
        self.silence = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rate_is_measured_through_b_frame_reordering() {
        let mut frames = Frames::new(4);
        let mut stats = StreamStats::default();
        // IBBP in decoding order at 29.97: 3003 ticks a frame
        for gop in 0..30i64 {
            for (place, kind) in [(3, FrameKind::P), (1, FrameKind::B), (2, FrameKind::B)] {
                let unit = AccessUnit {
                    pts: Some((gop * 3 + place) * 3_003),
                    kind,
                    ..AccessUnit::default()
                };
                frames.count(&unit, true, false, &mut stats);
            }
        }
        let rate = frames.measured_rate_milli();
        assert!(rate.abs_diff(29_970) <= 1, "{rate}");
        assert_eq!(
            (stats.p_frames, stats.b_frames, stats.video_frames),
            (30, 60, 90)
        );
        assert_eq!(frames.units().count(), 4);
    }

    /// So many units of `track`, `step` ticks apart from `start` on.
    fn feed(frames: &mut Frames, track: u16, start: i64, step: i64, units: i64) {
        for n in 0..units {
            let unit = AccessUnit {
                track,
                pts: Some(start + n * step),
                ..AccessUnit::default()
            };
            frames.count(&unit, true, false, &mut StreamStats::default());
        }
    }

    #[test]
    fn frame_rate_is_that_of_one_track_of_several() {
        let mut frames = Frames::new(0);
        for n in 0..100 {
            feed(&mut frames, 3, n * 3_600, 0, 1);
            feed(&mut frames, 5, 7_000_000 + n * 3_600, 1_800, 2);
        }
        assert_eq!(frames.measured_rate_milli(), 25_000);
        // It is gone: the other one is measured after a while.
        feed(&mut frames, 5, 8_000_000, 1_800, 100);
        assert_eq!(frames.measured_rate_milli(), 50_000);
    }

    #[test]
    fn frame_rate_is_measured_afresh_after_a_jump_of_the_times() {
        for jump in [90_000_000, -90_000_000] {
            let mut frames = Frames::new(0);
            feed(&mut frames, 0, 0, 3_600, 64);
            feed(&mut frames, 0, jump, 3_600, 8);
            assert_eq!(frames.measured_rate_milli(), 0);
            feed(&mut frames, 0, jump + 8 * 3_600, 3_600, 8);
            assert_eq!(frames.measured_rate_milli(), 25_000);
        }
    }
}
