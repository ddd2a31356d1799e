//! The generated content, looked at by the engine's own demultiplexer: every frame that was sent
//! comes out, of the right kind, at the right time.

use std::sync::Arc;

use mirror_base::Instant;
use mirror_loadtest::content::rtp::{HEADER, RtpShape, RtpStream, RtpTemplate};
use mirror_loadtest::content::ts::{DATAGRAM, TsShape, TsStream, TsTemplate, Units};
use mirror_loadtest::content::{VideoCodec, VideoShape};
use mirror_media::{AccessUnit, Codec, Format, FrameKind, Limits, Packet, PayloadFormat, Pipeline};

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
