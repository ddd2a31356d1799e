//! The last groups of pictures of a stream, as places in its rings (design, D2): units of all
//! tracks from the first key frame kept on, so that outputs find where decoding can start.
//! Bounded by groups, pictures, bytes and age; whole groups go first. The rings are not grown for
//! it (a ring that is larger than the cache is cold memory to each packet): what they overwrote
//! goes here too, and the figures tell what part of a group they hold.

use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::Instant;
use mirror_media::AccessUnit;

/// `[gop]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GopConfig {
    /// Groups kept, the one at hand included.
    pub keep: usize,
    /// The operator has asked for so many: that they cannot be kept is worth saying.
    pub keep_is_set: bool,
    /// Pictures kept.
    pub max_frames: usize,
    /// Bytes of elementary streams kept.
    pub max_bytes: usize,
    /// Age of what is kept.
    pub max_age: Duration,
    /// So long without a picture at which decoding can begin is too long.
    pub keyframe_timeout: Duration,
}

impl Default for GopConfig {
    fn default() -> Self {
        GopConfig {
            keep: 3,
            keep_is_set: false,
            max_frames: 300,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(10),
            keyframe_timeout: Duration::from_secs(10),
        }
    }
}

/// Units of all tracks for each picture that may be kept: audio has more of them than video.
const UNITS_PER_FRAME: usize = 8;

impl GopConfig {
    /// Bytes that one stream's cache may come to take: places of units, not what they hold,
    /// which lies in the ring.
    pub const fn most_bytes(&self) -> usize {
        let units = self.max_frames.saturating_mul(UNITS_PER_FRAME);
        units.saturating_mul(size_of::<AccessUnit>())
    }
}

/// What the cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheFigures {
    /// Groups, the one at hand included.
    pub gops: usize,
    /// Pictures.
    pub frames: usize,
    /// Units of all tracks.
    pub units: usize,
    /// Bytes of elementary streams.
    pub bytes: u64,
    /// When the first datagram of the oldest unit came.
    pub since: Option<Instant>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct GopCache {
    config: GopConfig,
    units: VecDeque<AccessUnit>,
    /// Number of the front unit; units are numbered as they come.
    first: u64,
    /// Numbers of the units at which groups begin.
    starts: VecDeque<u64>,
    /// Pictures among the units, one track's.
    frames: usize,
    bytes: u64,
    main: Option<u16>,
}

impl GopCache {
    pub(crate) fn new(config: GopConfig) -> Self {
        GopCache {
            config,
            units: VecDeque::new(),
            first: 0,
            starts: VecDeque::new(),
            frames: 0,
            bytes: 0,
            main: None,
        }
    }

    /// Takes a unit in. `main`: the video track whose key frames begin groups, if there is one;
    /// `oldest`: the lowest slot of the front unit's lane that may still be read.
    pub(crate) fn push(
        &mut self,
        unit: &AccessUnit,
        main: Option<u16>,
        oldest: impl Fn(u64) -> u64,
    ) {
        if self.config.max_frames == 0 || self.config.keep == 0 {
            return;
        }
        if self.main != main {
            self.follow(main);
        }
        let is_main = main == Some(unit.track);
        if is_main && unit.kind.is_key() {
            if self.starts.is_empty() {
                // Nothing before can be decoded any more.
                self.drop_to(self.first + self.units.len() as u64);
            }
            self.starts.push_back(self.first + self.units.len() as u64);
        }
        self.frames += usize::from(is_main);
        self.bytes += u64::from(unit.bytes);
        self.units.push_back(*unit);
        while self.starts.len() > self.config.keep {
            self.drop_group();
        }
        while self.is_over(unit.first_arrival) || self.is_overwritten(&oldest) {
            self.drop_group();
        }
    }

    /// Another track's key frames begin groups from now on.
    #[cold]
    fn follow(&mut self, main: Option<u16>) {
        self.main = main;
        self.starts.clear();
        self.frames = self
            .units
            .iter()
            .filter(|unit| Some(unit.track) == main)
            .count();
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(front) = self.units.front() else {
            return false;
        };
        self.frames > self.config.max_frames
            || self.units.len() > self.config.max_frames.saturating_mul(UNITS_PER_FRAME)
            || self.bytes > self.config.max_bytes as u64
            || now.saturating_since(front.first_arrival) > self.config.max_age
    }

    fn is_overwritten(&self, oldest: &impl Fn(u64) -> u64) -> bool {
        let front = self.units.front().map(|unit| unit.first.slot);
        front.is_some_and(|slot| slot < oldest(slot))
    }

    /// The oldest group goes; where there is but one, or none, its oldest unit.
    fn drop_group(&mut self) {
        let next = match self.starts.get(1) {
            Some(&next) => next,
            None => self.first + 1,
        };
        self.drop_to(next);
    }

    fn drop_to(&mut self, number: u64) {
        while self.first < number
            && let Some(unit) = self.units.pop_front()
        {
            self.first += 1;
            self.frames -= usize::from(self.main == Some(unit.track));
            self.bytes -= u64::from(unit.bytes);
        }
        while self.starts.front().is_some_and(|&at| at < self.first) {
            self.starts.pop_front();
        }
    }

    /// Nothing continues what was: outputs must not begin before it. What is there stays
    /// readable.
    pub(crate) fn cut(&mut self) {
        self.drop_to(self.first + self.units.len() as u64);
    }

    /// The units, decoding order. The first is a key frame where there is one.
    pub(crate) fn units(&self) -> impl DoubleEndedIterator<Item = &AccessUnit> {
        self.units.iter()
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        CacheFigures {
            gops: self.starts.len(),
            frames: self.frames,
            units: self.units.len(),
            bytes: self.bytes,
            since: self.units.front().map(|unit| unit.first_arrival),
        }
    }
}

#[cfg(test)]
mod tests {
    use mirror_base::Position;
    use mirror_media::FrameKind;

    use super::*;

    /// Feeds a picture every 40 ms, a key frame every `gop`, with two audio units to each.
    fn feed(cache: &mut GopCache, frames: std::ops::Range<u64>, gop: u64, oldest: u64) {
        for n in frames {
            let kind = if gop > 0 && n % gop == 0 {
                FrameKind::Idr
            } else {
                FrameKind::P
            };
            for track in [0, 1, 1] {
                let unit = AccessUnit {
                    track,
                    kind: if track == 0 { kind } else { FrameKind::Other },
                    bytes: 1000,
                    first: Position {
                        slot: n * 3,
                        offset: 0,
                    },
                    first_arrival: Instant::from_millis(n * 40),
                    ..AccessUnit::default()
                };
                cache.push(&unit, Some(0), |_| oldest);
            }
        }
    }

    fn config() -> GopConfig {
        GopConfig {
            max_age: Duration::from_secs(100),
            ..GopConfig::default()
        }
    }

    fn starts_with_key(cache: &GopCache) -> bool {
        cache.units().next().is_some_and(|unit| unit.kind.is_key())
    }

    #[test]
    fn the_last_three_groups_are_kept_with_the_audio_between_them() {
        let mut cache = GopCache::new(config());
        // Units before the first key frame go with it.
        feed(&mut cache, 20..25, 25, 0);
        assert_eq!(cache.figures().frames, 5);
        feed(&mut cache, 25..110, 25, 0);
        let figures = cache.figures();
        assert_eq!((figures.gops, figures.frames), (3, 60));
        assert_eq!((figures.units, figures.bytes), (180, 180_000));
        assert_eq!(figures.since, Some(Instant::from_millis(50 * 40)));
        assert!(starts_with_key(&cache));
    }

    #[test]
    fn every_bound_holds_and_whole_groups_go_first() {
        let bounds: [(GopConfig, usize); 3] = [
            (
                GopConfig {
                    max_frames: 40,
                    ..config()
                },
                40,
            ),
            (
                GopConfig {
                    max_bytes: 120_000,
                    ..config()
                },
                40,
            ),
            (
                GopConfig {
                    max_age: Duration::from_millis(1600),
                    ..config()
                },
                41,
            ),
        ];
        for (config, most) in bounds {
            let mut cache = GopCache::new(config);
            for n in 0..200 {
                feed(&mut cache, n..n + 1, 25, 0);
                assert!(cache.figures().frames <= most, "{:?}", cache.figures());
                assert!(starts_with_key(&cache));
            }
        }
    }

    #[test]
    fn a_group_without_end_loses_its_beginning_and_is_no_place_to_start() {
        let mut cache = GopCache::new(config());
        feed(&mut cache, 0..5000, 1_000_000, 0);
        let figures = cache.figures();
        assert_eq!((figures.frames, figures.gops), (300, 0));
        assert!(!starts_with_key(&cache));
        feed(&mut cache, 5000..5001, 1, 0);
        assert_eq!((cache.figures().frames, cache.figures().gops), (1, 1));
    }

    #[test]
    fn without_video_the_last_units_are_kept() {
        let mut cache = GopCache::new(config());
        for n in 0..10_000u64 {
            let unit = AccessUnit {
                first_arrival: Instant::from_millis(n),
                ..AccessUnit::default()
            };
            cache.push(&unit, None, |_| 0);
        }
        assert_eq!(cache.figures().units, 300 * UNITS_PER_FRAME);
    }

    #[test]
    fn what_the_ring_has_overwritten_is_forgotten() {
        let mut cache = GopCache::new(config());
        feed(&mut cache, 0..60, 25, 0);
        assert_eq!(cache.figures().gops, 3);
        // The ring lost the first few pictures: their group goes.
        feed(&mut cache, 60..61, 25, 12);
        assert_eq!(cache.figures().gops, 2);
        assert!(starts_with_key(&cache));
        cache.cut();
        assert_eq!(cache.figures(), CacheFigures::default());
    }
}
