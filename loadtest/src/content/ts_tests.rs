//! Tests of [`super`]: a demultiplexer of the tests' own, and the engine's.

use std::collections::HashMap;

use super::*;
use crate::content::VideoCodec;

fn shape(codec: VideoCodec, bitrate_bps: u64, audio: bool) -> TsShape {
    let video = VideoShape {
        codec,
        width: 640,
        height: 360,
        fps_num: 30,
        fps_den: 1,
        gop: 30,
        b_frames: 2,
    };
    TsShape {
        video,
        bitrate_bps,
        audio,
    }
}

fn loops(shape: TsShape, seconds: u64) -> Vec<[u8; DATAGRAM]> {
    let template = Arc::new(TsTemplate::new(shape).unwrap());
    let mut stream = TsStream::new(template);
    let mut out = Vec::new();
    while stream.next_due_ns() < seconds * 1_000_000_000 {
        let mut datagram = [0; DATAGRAM];
        stream.next(9, &mut datagram);
        out.push(datagram);
    }
    out
}

#[test]
fn continuity_counters_go_on_over_every_loop() {
    for audio in [false, true] {
        let mut last: HashMap<u16, u8> = HashMap::new();
        for datagram in loops(shape(VideoCodec::H264, 3_000_000, audio), 12) {
            for p in datagram.chunks_exact(TS_PACKET) {
                assert_eq!(p[0], 0x47);
                let pid = u16::from_be_bytes([p[1] & 0x1F, p[2]]);
                if pid == NULL_PID {
                    continue;
                }
                let counter = p[3] & 0x0F;
                if let Some(before) = last.insert(pid, counter) {
                    assert_eq!(counter, (before + 1) % 16, "pid {pid:#x}");
                }
            }
        }
        assert_eq!(last.len(), 3 + usize::from(audio));
    }
}

#[test]
fn bit_rate_is_exact_over_many_loops() {
    let bitrate = 5_000_000;
    let template = Arc::new(TsTemplate::new(shape(VideoCodec::H264, bitrate, false)).unwrap());
    let mut stream = TsStream::new(template);
    let mut out = [0; DATAGRAM];
    for _ in 0..20_000 {
        stream.next(0, &mut out);
    }
    let seconds = stream.next_due_ns() as f64 / 1e9;
    let bits = 20_000.0 * DATAGRAM as f64 * 8.0;
    assert!((bits / seconds / bitrate as f64 - 1.0).abs() < 1e-6);
    // and the media keeps step with it: loops done = seconds of content (one GOP a second)
    assert_eq!(stream.loops, (seconds - 1e-6) as u64);
}

#[test]
fn each_pcr_is_the_time_of_its_byte_and_comes_every_40_ms() {
    let bitrate = 3_000_000u64;
    let (mut last, mut position) = (None, 0u64);
    for datagram in loops(shape(VideoCodec::H265, bitrate, false), 5) {
        for p in datagram.chunks_exact(TS_PACKET) {
            if p[3] & 0x20 != 0 && p[4] > 0 && p[5] & 0x10 != 0 {
                let word = u64::from_be_bytes([0, 0, p[6], p[7], p[8], p[9], p[10], p[11]]);
                let pcr = (word >> 15) * 300 + (word & 0x1FF);
                let want = (position + 10) * 8 * 27_000_000 / bitrate;
                assert!(pcr.abs_diff(want) <= 1, "{pcr} {want}");
                if let Some(before) = last.replace(pcr) {
                    assert!(pcr - before < 27_000 * 40);
                }
            }
            position += TS_PACKET as u64;
        }
    }
    assert!(last.is_some());
}

#[test]
fn every_datagram_carries_its_stamp() {
    for (i, datagram) in loops(shape(VideoCodec::H264, 3_000_000, true), 3)
        .iter()
        .enumerate()
    {
        let want = Stamp {
            sent_unix_us: 9,
            number: i as u64,
        };
        assert_eq!(Stamp::find(datagram), Some(want), "datagram {i}");
    }
}

#[test]
fn a_rate_too_low_for_the_picture_is_an_error() {
    let mut low = shape(VideoCodec::H264, 50_000, false);
    low.video.width = 1920;
    low.video.height = 1080;
    assert!(matches!(TsTemplate::new(low), Err(ShapeError::RateTooLow)));
    let mut odd = shape(VideoCodec::H264, 5_000_000, false);
    odd.video.fps_num = 24_000;
    odd.video.fps_den = 1_001;
    assert!(matches!(TsTemplate::new(odd), Err(ShapeError::FrameRate)));
}
