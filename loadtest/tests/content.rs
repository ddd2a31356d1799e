//! The generated content, looked at by the engine's own demultiplexer: every frame that was sent
//! comes out, of the right kind, at the right time.

use std::sync::Arc;

use mirror_base::Instant;
use mirror_loadtest::content::rtp::{HEADER, RtpShape, RtpStream, RtpTemplate};
use mirror_loadtest::content::ts::{DATAGRAM, TsShape, TsStream, TsTemplate, Units};
use mirror_loadtest::content::{VideoCodec, VideoShape};
use mirror_media::{AccessUnit, Codec, Format, FrameKind, Limits, Packet, PayloadFormat, Pipeline};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestRunner};

fn video(codec: VideoCodec) -> VideoShape {
    VideoShape {
        codec,
        width: 1280,
        height: 720,
        fps_num: 30,
        fps_den: 1,
        gop: 30,
        b_frames: 2,
    }
}

fn packet(slot: u64, due_ns: u64, payload: &[u8]) -> Packet<'_> {
    Packet {
        slot,
        arrival: Instant::from_nanos(due_ns),
        lost_before: 0,
        discontinuity: false,
        timestamp: 0,
        marker: false,
        payload_type: 0,
        payload,
    }
}

/// What five seconds of units must look like; `sent`: what the sender says.
fn check(units: &[AccessUnit], sent: Units, ticks_known: bool) {
    // the last one may wait for what follows it, which never comes
    let count = units.len() as u64;
    assert!(
        count == sent.frames || count + 1 == sent.frames,
        "{count} of {}",
        sent.frames
    );
    assert!(units.iter().all(|u| !u.damaged));
    let keys = units.iter().filter(|u| u.kind == FrameKind::Idr).count() as u64;
    assert_eq!(keys, sent.key_frames);
    for (i, unit) in units.iter().enumerate() {
        // IDR, then P B B; the GOP's last P has one B frame before it
        let want = match i % 30 {
            0 => FrameKind::Idr,
            n if n % 3 == 1 => FrameKind::P,
            _ => FrameKind::B,
        };
        assert_eq!(unit.kind, want, "unit {i}");
    }
    if ticks_known {
        let mut pts: Vec<i64> = units.iter().filter_map(|u| u.pts).collect();
        assert_eq!(pts.len(), units.len());
        pts.sort_unstable();
        // up to the GOP that is not complete
        for pair in pts[..units.len() / 30 * 30].windows(2) {
            assert_eq!(pair[1] - pair[0], 3_000);
        }
    }
}

#[test]
fn mpeg_ts_comes_out_of_the_demultiplexer_as_it_was_planned() {
    for codec in [VideoCodec::H264, VideoCodec::H265] {
        let shape = TsShape {
            video: video(codec),
            bitrate_bps: 4_000_000,
            audio: true,
        };
        let mut stream = TsStream::new(Arc::new(TsTemplate::new(shape).unwrap()));
        let mut pipeline = Pipeline::new(Format::MpegTs, Limits::default());
        let (mut units, mut audio, mut datagram) = (Vec::new(), 0u64, [0; DATAGRAM]);
        while stream.next_due_ns() < 5_000_000_000 {
            let (slot, due) = (stream.number(), stream.next_due_ns());
            stream.next(due / 1_000, &mut datagram);
            pipeline.push(packet(slot, due, &datagram));
            while let Some(unit) = pipeline.poll_unit() {
                if pipeline.tracks()[usize::from(unit.track)].codec.is_video() {
                    units.push(unit);
                } else {
                    audio += 1;
                }
            }
        }
        check(&units, stream.units(), true);
        // 46.875 AAC frames a second
        assert!((230..=235).contains(&audio), "{audio} audio frames");
        assert_eq!(pipeline.counters().continuity_errors, 0);
        let track = pipeline
            .tracks()
            .iter()
            .find(|t| t.codec.is_video())
            .unwrap();
        let want = if codec == VideoCodec::H264 {
            Codec::H264
        } else {
            Codec::H265
        };
        assert_eq!((track.codec, track.width, track.height), (want, 1280, 720));
    }
}

#[test]
fn native_rtp_comes_out_of_the_depacketiser_as_it_was_planned() {
    for (codec, want) in [
        (VideoCodec::H264, Codec::H264),
        (VideoCodec::H265, Codec::H265),
    ] {
        let shape = RtpShape {
            video: video(codec),
            bitrate_bps: 4_000_000,
        };
        let mut stream = RtpStream::new(Arc::new(RtpTemplate::new(shape).unwrap()), 7, 0, 0);
        let format = Format::Rtp {
            hint: PayloadFormat::of_codec(want).map(Into::into),
            clock_rate: 90_000,
            ssrc: 7,
        };
        let mut pipeline = Pipeline::new(format, Limits::default());
        let (mut units, mut out, mut slot) = (Vec::new(), [0; 2_048], 0);
        while stream.next_due_ns() < 5_000_000_000 {
            let due = stream.next_due_ns();
            let (length, _) = stream.next(due / 1_000, &mut out);
            let mut packet = packet(slot, due, &out[HEADER..length]);
            packet.timestamp = u32::from_be_bytes([out[4], out[5], out[6], out[7]]);
            packet.marker = out[1] & 0x80 != 0;
            packet.payload_type = out[1] & 0x7F;
            pipeline.push(packet);
            slot += 1;
            units.extend(std::iter::from_fn(|| pipeline.poll_unit()));
        }
        check(&units, stream.units(), true);
        let track = &pipeline.tracks()[0];
        assert_eq!((track.codec, track.width, track.height), (want, 1280, 720));
    }
}

/// Shapes that an operator may ask for.
fn shapes() -> impl Strategy<Value = (VideoShape, u64, bool)> {
    let codec = prop_oneof![Just(VideoCodec::H264), Just(VideoCodec::H265)];
    let size = prop_oneof![Just((320, 180)), Just((640, 360)), Just((1280, 720))];
    let rate = prop_oneof![
        Just((25, 1)),
        Just((30, 1)),
        Just((50, 1)),
        Just((30_000, 1_001))
    ];
    let gop = (1_u32..=60, 0_u32..=3);
    (
        codec,
        size,
        rate,
        gop,
        800_000_u64..6_000_000,
        any::<bool>(),
    )
        .prop_map(
            |(codec, (width, height), (fps_num, fps_den), (gop, b_frames), bitrate, audio)| {
                let video = VideoShape {
                    codec,
                    width,
                    height,
                    fps_num,
                    fps_den,
                    gop,
                    b_frames,
                };
                (video, bitrate, audio)
            },
        )
}

fn play(cases: u32, check: impl Fn(VideoShape, u64, bool)) {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(13_818),
        ..Config::default()
    });
    let outcome = runner.run(&shapes(), |(video, bitrate, audio)| {
        check(video, bitrate, audio);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// As [`check`], for whatever shape.
fn check_counts(units: &[AccessUnit], sent: Units, video: &VideoShape) {
    let count = units.len() as u64;
    let waits = sent.frames - count;
    assert!(waits <= 1, "{count} of {sent:?}");
    assert!(units.iter().all(|u| !u.damaged), "{video:?}");
    for (n, unit) in units.iter().enumerate() {
        let key = (n as u32).is_multiple_of(video.gop);
        assert_eq!(unit.kind == FrameKind::Idr, key, "unit {n} of {video:?}");
        assert!(video.b_frames > 0 || unit.kind != FrameKind::B);
    }
}

#[test]
fn mpeg_ts_of_any_shape_comes_out_of_the_demultiplexer() {
    play(40, |video, bitrate_bps, audio| {
        let shape = TsShape {
            video,
            bitrate_bps,
            audio,
        };
        let Ok(template) = TsTemplate::new(shape) else {
            return;
        };
        let mut stream = TsStream::new(Arc::new(template));
        let mut pipeline = Pipeline::new(Format::MpegTs, Limits::default());
        let (mut units, mut datagram) = (Vec::new(), [0; DATAGRAM]);
        while stream.next_due_ns() < 1_500_000_000 {
            let (slot, due) = (stream.number(), stream.next_due_ns());
            stream.next(due / 1_000, &mut datagram);
            pipeline.push(packet(slot, due, &datagram));
            while let Some(unit) = pipeline.poll_unit() {
                let codec = pipeline.tracks()[usize::from(unit.track)].codec;
                assert!(codec.is_video() || !unit.damaged);
                units.extend(codec.is_video().then_some(unit));
            }
        }
        check_counts(&units, stream.units(), &video);
        let c = pipeline.counters();
        assert_eq!((c.continuity_errors, c.sync_losses), (0, 0));
        let told = pipeline.tr101290().expect("it is measured");
        let errors = (told.first_priority(), told.second_priority());
        assert_eq!(errors, (0, 0), "{told:?} of {shape:?}");
    });
}

#[test]
fn native_rtp_of_any_shape_comes_out_of_the_depacketiser() {
    play(40, |video, bitrate_bps, _| {
        let Ok(template) = RtpTemplate::new(RtpShape { video, bitrate_bps }) else {
            return;
        };
        let codec = match video.codec {
            VideoCodec::H264 => Codec::H264,
            VideoCodec::H265 => Codec::H265,
        };
        let mut stream = RtpStream::new(Arc::new(template), 7, 65_500, u32::MAX - 9_000);
        let format = Format::Rtp {
            hint: PayloadFormat::of_codec(codec).map(Into::into),
            clock_rate: 90_000,
            ssrc: 7,
        };
        let mut pipeline = Pipeline::new(format, Limits::default());
        let (mut units, mut out, mut slot) = (Vec::new(), [0; 2_048], 0);
        while stream.next_due_ns() < 1_500_000_000 {
            let due = stream.next_due_ns();
            let (length, _) = stream.next(due / 1_000, &mut out);
            let mut packet = packet(slot, due, &out[HEADER..length]);
            packet.timestamp = u32::from_be_bytes([out[4], out[5], out[6], out[7]]);
            packet.marker = out[1] & 0x80 != 0;
            packet.payload_type = out[1] & 0x7F;
            pipeline.push(packet);
            slot += 1;
            units.extend(std::iter::from_fn(|| pipeline.poll_unit()));
        }
        check_counts(&units, stream.units(), &video);
    });
}
