//! Display order against decoding order: how deep pictures are reordered, and the decoding
//! times that follow from presentation times where the source gives none.
//!
//! With a reorder depth of R, the decoding time of the n-th picture is the (n − R)-th smallest
//! presentation time: the pictures come out one by one in display order, R later than they went
//! in. Of the times up to the n-th picture that is the (R + 1)-th largest, so that the largest
//! few are all that is kept.

use crate::DisplayOrder;

/// Most pictures that may be reordered (H.264 A.3.1, HEVC A.4.2: 16 frames of buffer).
const MAX_DEPTH: usize = 16;
/// Presentation times further apart, in 90 kHz ticks, are not of one timeline: 10 s.
const MAX_STEP: u64 = 900_000;

/// The largest values seen, in falling order.
#[derive(Clone, Copy, Debug)]
struct Largest {
    values: [i64; MAX_DEPTH + 1],
    len: usize,
}

impl Default for Largest {
    fn default() -> Self {
        Largest {
            values: [i64::MIN; MAX_DEPTH + 1],
            len: 0,
        }
    }
}

impl Largest {
    /// Takes a value in; returns how many are larger, at most all that are kept.
    fn insert(&mut self, value: i64) -> usize {
        let rank = self.kept().take_while(|&v| v > value).count();
        if let Some(tail) = self.values.get_mut(rank..).filter(|t| !t.is_empty()) {
            tail.rotate_right(1);
            if let Some(place) = tail.first_mut() {
                *place = value;
            }
        }
        self.len = (self.len + 1).min(self.values.len());
        rank.min(MAX_DEPTH)
    }

    fn kept(&self) -> impl Iterator<Item = i64> + '_ {
        self.values.iter().take(self.len).copied()
    }

    fn at(&self, rank: usize) -> Option<i64> {
        self.kept().nth(rank)
    }

    fn least(&self) -> Option<i64> {
        self.kept().last()
    }
}

/// The deepest reordering seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    epoch: u32,
    counts: Largest,
    depth: u8,
    any: bool,
}

impl Observed {
    /// Takes a picture in, in decoding order. Whether the depth grew, or is known for the first
    /// time.
    pub(super) fn take(&mut self, order: DisplayOrder) -> bool {
        if self.epoch != order.epoch {
            self.epoch = order.epoch;
            self.counts = Largest::default();
        }
        let rank = self.counts.insert(i64::from(order.count)) as u8;
        let grown = rank > self.depth || !self.any;
        self.any = true;
        self.depth = self.depth.max(rank);
        grown
    }

    /// The depth, once a picture was seen.
    pub(super) fn depth(&self) -> Option<u8> {
        self.any.then_some(self.depth)
    }
}

/// What the decoding time of a picture is derived from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    pub(super) pts: i64,
    /// Nothing that follows it precedes it in display order.
    pub(super) closed: bool,
    /// The reorder depth that the stream promises, if it does.
    pub(super) promised: Option<u8>,
    /// Duration of a frame in 90 kHz ticks.
    pub(super) duration: Option<i64>,
}

/// Decoding times from presentation times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deriver {
    times: Largest,
    newest: Option<i64>,
    last: Option<i64>,
    /// The deepest inversion of presentation times seen.
    depth: usize,
    /// The run began with a picture that is the first in display order too.
    closed: bool,
}

impl Deriver {
    /// What follows is of another timeline.
    pub(super) fn restart(&mut self) {
        if self.newest.is_none() {
            return;
        }
        *self = Deriver {
            depth: self.depth,
            ..Deriver::default()
        };
    }

    /// The decoding time of the next picture in decoding order: never later than its
    /// presentation time, and later than that of the picture before. `None` where there is no
    /// such time, as when the depth turns out to be larger than was known.
    pub(super) fn next(&mut self, picture: Timed) -> Option<i64> {
        let Timed {
            pts,
            closed,
            promised,
            duration,
        } = picture;
        if self.newest.is_some_and(|n| n.abs_diff(pts) > MAX_STEP) {
            self.restart();
        }
        self.newest = Some(pts);
        if self.times.len == 0 {
            self.closed = closed;
        }
        self.depth = self.depth.max(self.times.insert(pts));
        let depth = promised.map_or(self.depth, usize::from).min(MAX_DEPTH);
        let derived = match self.times.at(depth) {
            Some(time) => time,
            // The first of a run: as far before the first one shown as pictures wait.
            None if self.closed => {
                let missing = i64::try_from(depth + 1 - self.times.len).ok()?;
                self.times
                    .least()?
                    .checked_sub(missing.checked_mul(duration?)?)?
            }
            None => return None,
        };
        if derived > pts || self.last.is_some_and(|last| derived <= last) {
            return None;
        }
        self.last = Some(derived);
        Some(derived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derive(pts: &[i64], promised: Option<u8>) -> Vec<Option<i64>> {
        let mut deriver = Deriver::default();
        pts.iter()
            .enumerate()
            .map(|(n, &pts)| {
                deriver.next(Timed {
                    pts,
                    closed: n == 0,
                    promised,
                    duration: Some(1),
                })
            })
            .collect()
    }

    #[test]
    fn decoding_times_are_the_presentation_times_in_order_that_much_earlier() {
        // I P B B, and a pyramid.
        let pts = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8];
        let expected: Vec<Option<i64>> = (0..10).map(|n| Some(n - 1)).collect();
        assert_eq!(derive(&pts, Some(1)), expected);
        let pts = [0, 4, 2, 1, 3, 8, 6, 5, 7, 12, 10, 9, 11];
        let expected: Vec<Option<i64>> = (0..13).map(|n| Some(n - 2)).collect();
        assert_eq!(derive(&pts, Some(2)), expected);
        let pts: Vec<i64> = (0..20).collect();
        let expected: Vec<Option<i64>> = (0..20).map(Some).collect();
        assert_eq!(derive(&pts, Some(0)), expected);
    }

    #[test]
    fn a_depth_that_nobody_promised_is_learned_from_the_first_inversion() {
        let pts = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8];
        let times = derive(&pts, None);
        assert_eq!(times[..2], [Some(0), Some(3)]);
        assert_eq!(times[5..], [Some(4), Some(5), Some(6), Some(7), Some(8)]);
        for (n, time) in times.iter().enumerate() {
            assert!(time.is_none_or(|t| t <= pts[n]));
        }
    }

    #[test]
    fn the_times_derived_are_those_that_transport_streams_say() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/media");
        let (mut files, mut reordered) = (0, 0);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if !name.ends_with(".ts.json") || name.contains("splice") || name.contains("tr290") {
                continue;
            }
            let facts: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let Some(video) = facts["video_packets"].as_object() else {
                continue;
            };
            for packets in video.values().filter_map(|v| v["pts_dts_key"].as_array()) {
                let times: Vec<(i64, i64)> = packets
                    .iter()
                    .filter_map(|p| Some((p[0].as_i64()?, p[1].as_i64()?)))
                    .collect();
                let Some(duration) = times.windows(2).map(|w| w[1].1 - w[0].1).min() else {
                    continue;
                };
                // What the sequence parameter set promises is how far the first is put back.
                let depth = (times[0].0 - times[0].1) / duration;
                let mut deriver = Deriver::default();
                for (n, &(pts, dts)) in times.iter().enumerate() {
                    let derived = deriver.next(Timed {
                        pts,
                        closed: n == 0,
                        promised: u8::try_from(depth).ok(),
                        duration: Some(duration),
                    });
                    assert_eq!(derived, Some(dts), "{name}: {n}");
                }
                files += 1;
                reordered += usize::from(depth > 0);
            }
        }
        assert!(files >= 9 && reordered >= 4, "{files} {reordered}");
    }

    #[test]
    fn a_jump_in_time_begins_another_run() {
        let mut deriver = Deriver::default();
        let mut next = |pts, closed| {
            deriver.next(Timed {
                pts,
                closed,
                promised: Some(1),
                duration: Some(3600),
            })
        };
        assert_eq!(next(0, true), Some(-3600));
        assert_eq!(next(3600, false), Some(0));
        assert_eq!(next(90_000_000, true), Some(89_996_400));
        assert_eq!(next(3600, false), None, "not known where it stands");
        assert_eq!(next(7200, false), Some(3600));
    }

    #[test]
    fn hostile_times_neither_overflow_nor_go_back() {
        let mut deriver = Deriver::default();
        let mut last = i64::MIN;
        for n in 0..10_000_i64 {
            let pts = match n % 7 {
                0 => i64::MAX - n,
                1 => i64::MIN + n,
                _ => n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed()) >> (n % 60),
            };
            let time = deriver.next(Timed {
                pts,
                closed: n % 2 == 0,
                promised: (n % 3 == 0).then_some(200),
                duration: Some(i64::MAX),
            });
            if deriver.last.is_none() {
                last = i64::MIN;
            }
            if let Some(time) = time {
                assert!(time <= pts && (time > last || deriver.times.len == 1));
                last = time;
            }
        }
    }

    #[test]
    fn the_depth_seen_is_that_of_the_pyramid() {
        let mut observed = Observed::default();
        let at = |count| DisplayOrder { epoch: 0, count };
        assert_eq!(observed.depth(), None);
        for count in [0, 8, 4, 2, 6, 16, 12, 10, 14] {
            observed.take(at(count));
        }
        assert_eq!(observed.depth(), Some(2));
        // An IDR picture follows nothing.
        observed.take(DisplayOrder { epoch: 1, count: 0 });
        assert_eq!(observed.depth(), Some(2));
    }
}
