//! Groups of pictures (rtp-media-spec, section 20): a group begins with a picture at which
//! decoding can start and runs, in decoding order, to the next one. [`GopTracker`] follows one
//! video track: lengths, open or closed, structure, statistics, and when the last access point
//! came. Called by `stream` for each video unit; keeps no unit and no byte of it.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use mirror_base::{Instant, Position};

use crate::{AccessUnit, FrameKind};

/// Pictures of a group whose place in its structure is kept.
pub const MAX_STRUCTURE: usize = 300;
/// Lengths of the last groups that are kept.
pub const LAST_GOPS: usize = 8;
/// Times of key frames further apart, in 90 kHz ticks, are not of one time base: ten minutes.
const MAX_LENGTH: i64 = 10 * 60 * 90_000;

/// One group of pictures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gop {
    /// Counted from 1 over the life of the stream.
    pub number: u64,
    /// What it begins with.
    pub key: FrameKind,
    /// Where its first byte lies.
    pub first: Position,
    /// Pictures.
    pub frames: u32,
    /// Of these, intra pictures, the first one included.
    pub i_frames: u32,
    /// Of these, P pictures.
    pub p_frames: u32,
    /// Of these, B pictures.
    pub b_frames: u32,
    /// Of these, damaged ones.
    pub damaged: u32,
    /// Bytes of elementary stream.
    pub bytes: u64,
    /// Pictures of it refer to the group before (leading pictures that are no RADL).
    pub open: bool,
    /// Decoding time of its first picture (presentation time where there is none), 90 kHz.
    pub start: Option<i64>,
    /// From there to the first picture of the next group, 90 kHz ticks; of the group at hand: so
    /// far. `None` when the times tell nothing.
    pub duration: Option<u64>,
    /// When its first datagram reached the host.
    pub began: Instant,
}

/// Least, greatest and sum of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The least; 0 without values.
    pub min: u64,
    /// The greatest; 0 without values.
    pub max: u64,
}

impl Spread {
    const fn add(&mut self, value: u64) {
        if self.count == 0 || value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// The mean; 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.sum as f64 / self.count as f64
    }
}

/// What all complete groups of a track were like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GopStatistics {
    /// Groups begun.
    pub begun: u64,
    /// Complete groups that were open.
    pub open: u64,
    /// Complete groups that were closed.
    pub closed: u64,
    /// Pictures of complete groups.
    pub frames: Spread,
    /// Bytes of complete groups.
    pub bytes: Spread,
    /// Durations of complete groups, 90 kHz ticks.
    pub duration: Spread,
    /// Pictures of the last complete groups, newest last; those that are 0 are not there yet.
    pub last_frames: [u32; LAST_GOPS],
}

/// Place in display order, and what is there.
#[derive(Clone, Copy, Debug)]
struct Picture {
    order: i64,
    letter: u8,
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct GopTracker {
    current: Option<Gop>,
    last: Option<Gop>,
    statistics: GopStatistics,
    /// Pictures of the group at hand, decoding order; the first [`MAX_STRUCTURE`] of them.
    pictures: Vec<Picture>,
    /// Structure of the last complete group, display order.
    structure: Vec<u8>,
    last_access_point: Option<Instant>,
    last_unit: Option<Instant>,
    /// Whether all pictures of the group at hand tell their place in display order.
    ordered: bool,
}

const fn letter(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Idr | FrameKind::Cra | FrameKind::I => b'I',
        FrameKind::P => b'P',
        FrameKind::B => b'B',
        FrameKind::Other => b'?',
    }
}

impl GopTracker {
    /// One that has seen nothing.
    pub fn new() -> Self {
        GopTracker {
            pictures: Vec::with_capacity(MAX_STRUCTURE),
            structure: Vec::with_capacity(MAX_STRUCTURE),
            ..GopTracker::default()
        }
    }

    /// Takes a video unit in, in decoding order. Returns the group that it ends, if any.
    pub fn take(&mut self, unit: &AccessUnit) -> Option<Gop> {
        self.last_unit = Some(unit.first_arrival);
        // Gradual refresh has no key frames, but points at which decoding can begin.
        if unit.kind.is_key() || unit.recovery.is_some() {
            self.last_access_point = Some(unit.first_arrival);
        }
        let ended = if unit.kind.is_key() {
            self.begin(unit)
        } else {
            None
        };
        if let Some(gop) = &mut self.current {
            count(gop, unit);
            self.place(unit);
        }
        ended
    }

    fn begin(&mut self, unit: &AccessUnit) -> Option<Gop> {
        let start = unit.dts.or(unit.pts);
        let mut ended = self.current.take();
        if let Some(gop) = &mut ended {
            gop.duration = span(gop.start, start);
            self.complete(gop);
        }
        self.statistics.begun += 1;
        self.current = Some(Gop {
            number: self.statistics.begun,
            key: unit.kind,
            first: unit.first,
            frames: 0,
            i_frames: 0,
            p_frames: 0,
            b_frames: 0,
            damaged: 0,
            bytes: 0,
            open: false,
            start,
            duration: None,
            began: unit.first_arrival,
        });
        self.pictures.clear();
        self.ordered = true;
        ended
    }

    fn complete(&mut self, gop: &Gop) {
        let statistics = &mut self.statistics;
        if gop.open {
            statistics.open += 1;
        } else {
            statistics.closed += 1;
        }
        statistics.frames.add(u64::from(gop.frames));
        statistics.bytes.add(gop.bytes);
        if let Some(duration) = gop.duration {
            statistics.duration.add(duration);
        }
        statistics.last_frames.rotate_left(1);
        if let Some(last) = statistics.last_frames.last_mut() {
            *last = gop.frames;
        }
        self.last = Some(*gop);
        if self.ordered {
            // Stable: what has no order of its own stays as it came.
            self.pictures.sort_by_key(|picture| picture.order);
        }
        self.structure.clear();
        self.structure
            .extend(self.pictures.iter().map(|picture| picture.letter));
    }

    fn place(&mut self, unit: &AccessUnit) {
        if self.pictures.len() >= MAX_STRUCTURE {
            return;
        }
        let order = match (unit.order, unit.pts) {
            (Some(order), _) => Some((i64::from(order.epoch) << 33) + i64::from(order.count)),
            (None, pts) => pts,
        };
        self.ordered &= order.is_some();
        self.pictures.push(Picture {
            order: order.unwrap_or(0),
            letter: letter(unit.kind),
        });
    }

    /// Nothing continues what was: the group at hand is given up, and counts in no statistics
    /// of lengths.
    pub fn restart(&mut self, now: Instant) {
        self.current = None;
        self.pictures.clear();
        self.last_access_point = None;
        self.last_unit = self.last_unit.map(|_| now);
    }

    /// The group at hand.
    pub const fn current(&self) -> Option<&Gop> {
        self.current.as_ref()
    }

    /// The last complete group.
    pub const fn last(&self) -> Option<&Gop> {
        self.last.as_ref()
    }

    /// Statistics of complete groups.
    pub const fn statistics(&self) -> &GopStatistics {
        &self.statistics
    }

    /// Structure of the last complete group in display order, as far as its pictures tell it:
    /// "IBBPBBP". At most [`MAX_STRUCTURE`] letters.
    pub fn structure(&self) -> &str {
        core::str::from_utf8(&self.structure).unwrap_or_default()
    }

    /// When the first datagram of the last picture came at which decoding can begin.
    pub const fn last_access_point(&self) -> Option<Instant> {
        self.last_access_point
    }
}

fn count(gop: &mut Gop, unit: &AccessUnit) {
    gop.frames = gop.frames.saturating_add(1);
    gop.bytes += u64::from(unit.bytes);
    match unit.kind {
        FrameKind::Idr | FrameKind::Cra | FrameKind::I => gop.i_frames += 1,
        FrameKind::P => gop.p_frames += 1,
        FrameKind::B => gop.b_frames += 1,
        FrameKind::Other => {}
    }
    // What only cannot be decoded after a late start came whole.
    gop.damaged += u32::from(unit.damaged && !unit.undecodable);
    gop.open |= unit.leading;
    if gop.frames > 1
        && let Some(so_far) = span(gop.start, unit.dts.or(unit.pts))
    {
        gop.duration = Some(gop.duration.unwrap_or(0).max(so_far));
    }
}

fn span(from: Option<i64>, to: Option<i64>) -> Option<u64> {
    let span = to?.checked_sub(from?)?;
    (0..=MAX_LENGTH)
        .contains(&span)
        .then_some(span.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DisplayOrder;

    /// A unit of a coded video at 25 Hz: its letter, its place in display order, `n`-th in
    /// decoding order.
    fn unit(kind: FrameKind, n: i64, count: i32) -> AccessUnit {
        AccessUnit {
            kind,
            order: Some(DisplayOrder { epoch: 1, count }),
            bytes: 1000,
            pts: Some(i64::from(count) * 3600 + 7200),
            dts: Some(n * 3600),
            first_arrival: Instant::from_millis(n.unsigned_abs() * 40),
            ..AccessUnit::default()
        }
    }

    #[test]
    fn a_gop_runs_from_key_frame_to_key_frame_and_shows_its_structure_in_display_order() {
        use FrameKind::{B, Idr, P};
        let mut gops = GopTracker::new();
        // Leftovers before the first key frame belong to no group.
        assert_eq!(gops.take(&unit(P, 0, -1)), None);
        assert!(gops.current().is_none());
        let mut n = 1;
        for round in 0..3 {
            let base = round * 7;
            let pattern = [(Idr, 0), (P, 3), (B, 1), (B, 2), (P, 6), (B, 4), (B, 5)];
            for (kind, place) in pattern {
                let ended = gops.take(&unit(kind, n, base + place));
                assert_eq!(ended.is_some(), kind == Idr && round > 0);
                n += 1;
            }
        }
        let last = gops.last().unwrap();
        assert_eq!((last.number, last.frames, last.bytes), (2, 7, 7000));
        assert_eq!((last.i_frames, last.p_frames, last.b_frames), (1, 2, 4));
        assert_eq!((last.open, last.duration), (false, Some(7 * 3600)));
        assert_eq!(gops.structure(), "IBBPBBP");
        let statistics = gops.statistics();
        assert_eq!((statistics.begun, statistics.closed), (3, 2));
        assert_eq!((statistics.frames.min, statistics.frames.max), (7, 7));
        assert_eq!(statistics.last_frames[6..], [7, 7]);
        assert_eq!(gops.current().unwrap().duration, Some(6 * 3600));
        assert_eq!(
            gops.last_access_point(),
            Some(Instant::from_millis(15 * 40))
        );
    }

    #[test]
    fn a_gop_with_leading_pictures_is_open_and_they_are_shown_before_its_key_frame() {
        use FrameKind::{B, Cra, P};
        let mut gops = GopTracker::new();
        gops.take(&unit(Cra, 0, 0));
        gops.take(&unit(P, 1, 3));
        for (n, count) in [(2, 1), (3, 2)] {
            gops.take(&unit(B, n, count));
        }
        gops.take(&unit(Cra, 4, 6));
        for (n, count) in [(5, 4), (6, 5)] {
            let mut leading = unit(B, n, count);
            leading.leading = true;
            gops.take(&leading);
        }
        assert!(gops.current().unwrap().open);
        gops.take(&unit(Cra, 7, 9));
        assert_eq!(gops.structure(), "BBI");
        assert_eq!((gops.statistics().open, gops.statistics().closed), (1, 1));
    }

    #[test]
    fn a_cut_gop_counts_in_no_lengths_and_a_jump_of_times_is_no_duration() {
        let mut gops = GopTracker::new();
        gops.take(&unit(FrameKind::Idr, 0, 0));
        gops.restart(Instant::from_millis(500));
        assert!(gops.last_access_point().is_none());
        gops.take(&unit(FrameKind::Idr, 1, 1));
        assert_eq!(gops.statistics().frames.count, 0);
        let ended = gops.take(&unit(FrameKind::Idr, 1 << 40, 2)).unwrap();
        assert_eq!((ended.frames, ended.duration), (1, None));
        let ended = gops.take(&unit(FrameKind::Idr, 0, 3)).unwrap();
        assert_eq!(ended.duration, None);
    }

    #[test]
    fn an_endless_gop_takes_no_more_memory() {
        let mut gops = GopTracker::new();
        gops.take(&unit(FrameKind::Idr, 0, 0));
        let capacity = gops.pictures.capacity();
        for n in 1..10_000 {
            gops.take(&unit(FrameKind::P, n, n as i32));
        }
        assert_eq!(gops.pictures.capacity(), capacity);
        gops.take(&unit(FrameKind::Idr, 10_000, 10_000));
        assert_eq!(gops.structure().len(), MAX_STRUCTURE);
        assert_eq!(gops.last().unwrap().frames, 10_000);
    }

    #[test]
    fn gradual_refresh_has_access_points_without_key_frames() {
        let mut gops = GopTracker::new();
        let mut refresh = unit(FrameKind::P, 5, 5);
        refresh.recovery = Some(10);
        gops.take(&refresh);
        assert_eq!(gops.last_access_point(), Some(Instant::from_millis(200)));
        assert_eq!(gops.statistics().begun, 0);
    }
}
