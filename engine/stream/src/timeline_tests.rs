//! Streams in virtual time: units of several tracks, their clocks, groups and what is missing.

use core::time::Duration;

use mirror_base::Position;
use mirror_media::av_sync::SyncStatus;

use super::*;

const VIDEO: u16 = 0;
const AUDIO: u16 = 1;
/// Audio comes 3 ms behind its picture: over a jump our clock goes on from what came last.
const AUDIO_LAG: i64 = 270;

struct World {
    timeline: Timeline,
    tracks: Vec<Track>,
    slot: u64,
    origin: Origin,
}

impl World {
    fn new(stream_type: u8) -> Self {
        let track = |id, codec, sample_rate| Track {
            id,
            program: u16::from(stream_type > 0),
            stream_type,
            codec,
            sample_rate,
            ..Track::default()
        };
        World {
            timeline: Timeline::new(GopConfig::default(), AvSyncConfig::default()),
            tracks: vec![track(256, Codec::H264, 0), track(257, Codec::Aac, 48_000)],
            slot: 0,
            origin: Origin {
                lane: 0,
                clock_rate: 0,
                sender: None,
            },
        }
    }

    fn unit(&mut self, track: u16, kind: FrameKind, dts: i64, at_us: u64) -> Taken {
        let now = Instant::from_micros(at_us);
        self.slot += 1;
        let unit = AccessUnit {
            track,
            kind,
            bytes: 1000,
            pts: Some(dts),
            dts: Some(dts),
            first: Position {
                slot: self.slot,
                offset: 0,
            },
            first_arrival: now,
            last_arrival: now,
            completed_by: now,
            ..AccessUnit::default()
        };
        let at = usize::from(track);
        self.timeline
            .take(now, &unit, &self.tracks[at], &self.origin, |_| 0)
    }

    /// Both tracks from second `from` to `to` of virtual time, their times as `time` makes them
    /// of ticks: a key frame every two seconds unless `keyless`.
    fn play(&mut self, from: u64, to: u64, keyless: bool, time: impl Fn(u16, i64) -> i64) {
        for n in from * 25..to * 25 {
            let at = n * 40_000;
            let kind = if n % 50 == 0 && !keyless {
                FrameKind::Idr
            } else {
                FrameKind::P
            };
            let ticks = n as i64 * 3600;
            self.unit(VIDEO, kind, time(VIDEO, ticks), at);
            // Two audio frames to each picture.
            for half in 0..2 {
                let ticks = ticks + half * 1800;
                let at = at + half.unsigned_abs() * 20_000 + 3_000;
                self.unit(AUDIO, FrameKind::Other, time(AUDIO, ticks), at);
            }
        }
    }

    fn figures(&self, second: u64) -> Figures {
        self.timeline.figures(Instant::from_millis(second * 1000))
    }
}

#[test]
fn a_wrap_changes_nothing_but_its_count() {
    let mut world = World::new(0x1B);
    // 30 s before the 33-bit wrap.
    world.play(0, 60, false, |_, ticks| (1 << 33) - 30 * 90_000 + ticks);
    let figures = world.figures(60);
    for track in &figures.tracks {
        assert_eq!((track.wraps, track.jumps, track.errors), (1, 0, 0));
    }
    assert_eq!(figures.gop.statistics.begun, 30);
    assert_eq!(figures.gop.statistics.duration.max, 180_000);
    assert_eq!(figures.gop.cache.gops, 3);
    assert_eq!(figures.sync.status, SyncStatus::Synced);
    assert_eq!(figures.tracks[0].rate_milli, 25_000);
    assert_eq!(figures.tracks[1].rate_milli, 50_000);
    let ppm = figures.sync.source_drift_ppm.unwrap();
    assert!(ppm.abs() < 1.0, "{ppm}");
}

#[test]
fn a_new_time_base_continues_the_streams_clock() {
    let mut world = World::new(0x1B);
    let base = |_, ticks| 5_000_000_000 + ticks;
    world.play(0, 20, false, base);
    let before = 20 * 90_000 - 3600 + 5_000_000_000;
    // The encoder began anew.
    world.play(20, 40, false, |_, ticks| ticks - 20 * 90_000);
    let figures = world.figures(40);
    assert_eq!([figures.tracks[0].jumps, figures.tracks[1].jumps], [1, 1]);
    assert_eq!(
        figures.tracks[0].clock_offset,
        figures.tracks[1].clock_offset
    );
    let last = figures.tracks[0].last_dts.unwrap() + figures.tracks[0].clock_offset.unwrap();
    assert!((last - before - 20 * 90_000).abs() <= AUDIO_LAG);
    assert_eq!(figures.sync.status, SyncStatus::Synced);
}

#[test]
fn another_codec_on_the_same_pid_counts_on() {
    let mut world = World::new(0x1B);
    world.play(0, 10, false, |_, ticks| ticks);
    world.tracks[0].codec = Codec::H265;
    world.tracks[0].stream_type = 0x24;
    world.play(10, 20, false, |_, ticks| ticks);
    let figures = world.figures(20);
    assert_eq!(figures.tracks[0].units, 500);
    assert_eq!(figures.tracks[0].jumps, 0);
    assert_eq!(figures.gop.statistics.begun, 10);
    // Another stream in the track's place does not.
    world.tracks[0].id = 300;
    world.play(20, 21, false, |_, ticks| ticks);
    assert_eq!(world.figures(21).tracks[0].units, 25);
}

#[test]
fn a_restarted_rtp_source_is_no_jump_and_cuts_the_gop() {
    let mut world = World::new(0);
    world.origin.clock_rate = 90_000;
    world.play(0, 11, false, |_, ticks| (1 << 32) - 90_000 + ticks);
    let before = world.figures(11);
    assert_eq!((before.tracks[0].wraps, before.tracks[0].jumps), (1, 0));
    // Another SSRC: its timestamps begin anywhere.
    world
        .timeline
        .discontinuity(Instant::from_millis(11_000), 0);
    assert_eq!(world.figures(11).gop.cache.gops, 0);
    world.play(12, 20, false, |_, ticks| ticks + 77_000_000);
    let after = world.figures(20);
    assert_eq!((after.tracks[0].wraps, after.tracks[0].jumps), (1, 0));
    // The cut group is in no statistics of lengths; numbers go on.
    assert_eq!(after.gop.statistics.begun, 10);
    assert_eq!(after.gop.statistics.frames.min, 50);
    let stream = |f: &Figures| f.tracks[0].last_dts.unwrap() + f.tracks[0].clock_offset.unwrap();
    // Through the second of silence, by our clock.
    assert!((stream(&after) - stream(&before) - 9 * 90_000).abs() <= AUDIO_LAG);
}

#[test]
fn audio_that_drifts_is_measured_and_its_times_are_corrected() {
    let mut world = World::new(0x1B);
    // 120 ms over a minute.
    let drifting = |track, ticks: i64| match track {
        AUDIO => ticks + (ticks - 10 * 90_000).clamp(0, 60 * 90_000) * 120 / 60_000,
        _ => ticks,
    };
    world.play(0, 120, false, drifting);
    let sync = world.figures(120).sync;
    assert!(
        (sync.figures.current_us - 120_000).abs() < 3_000,
        "{sync:?}"
    );
    assert_eq!((sync.status, sync.excessive), (SyncStatus::Synced, false));
    assert_eq!((sync.video, sync.audio), (Some(VIDEO), Some(AUDIO)));
    let corrected = world.timeline.stream_offset(AUDIO).unwrap();
    assert!(corrected < -7_000, "{corrected}");
    assert_eq!(world.timeline.stream_offset(VIDEO), Some(0));
}

#[test]
fn a_missing_key_frame_shows_after_its_timeout_and_is_forgotten_with_the_next() {
    let mut world = World::new(0x1B);
    world.play(0, 2, false, |_, ticks| ticks);
    for second in 2..30 {
        world.play(second, second + 1, true, |_, ticks| ticks);
        let now = Instant::from_millis((second + 1) * 1000);
        assert_eq!(world.timeline.key_frame_missing(now), second + 1 > 10);
    }
    // What does not come misses nothing.
    let later = Instant::ZERO + Duration::from_secs(60);
    assert!(!world.timeline.key_frame_missing(later));
    world.play(30, 31, false, |_, ticks| ticks);
    assert!(
        !world
            .timeline
            .key_frame_missing(Instant::from_millis(31_000))
    );
}

#[test]
fn of_two_videos_the_first_is_measured_until_it_stops() {
    let mut world = World::new(0x1B);
    world.tracks[1].codec = Codec::H265;
    world.play(0, 4, false, |_, ticks| ticks);
    assert_eq!(world.figures(4).sync.video, Some(VIDEO));
    for n in 0..100u64 {
        let at = 4_000_000 + n * 40_000;
        world.unit(AUDIO, FrameKind::Idr, at as i64 * 9 / 100, at);
    }
    let figures = world.figures(8);
    assert_eq!(figures.sync.video, Some(AUDIO));
    assert!(figures.gop.statistics.begun > 30);
}

#[test]
fn repeated_splices_are_one() {
    let mut world = World::new(0x1B);
    let splice = |event| Splice {
        track: 2,
        command: SpliceCommand::Insert {
            event,
            out: true,
            cancel: false,
            duration: None,
        },
        pts: Some(90_000),
        received: None,
        segmentation: None,
    };
    let null = Splice {
        command: SpliceCommand::Null,
        ..splice(0)
    };
    for event in 0..40 {
        for _ in 0..3 {
            world.timeline.splice(Instant::ZERO, splice(event));
            world.timeline.splice(Instant::ZERO, null);
        }
    }
    let figures = world.figures(0);
    assert_eq!(figures.splices_total, 40);
    assert_eq!(figures.splices.len(), LAST_SPLICES);
    assert!(figures.splices.iter().all(|record| record.repeats == 2));
}
