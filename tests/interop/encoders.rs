//! Real encoders push real streams, and the facts that the API shows are right.

use std::time::Duration;

use mirror_tests::engine::{Engine, number};
use mirror_tests::media::{self, Counts, LIVE_SOURCE};
use mirror_tests::process::Process;
use mirror_tests::{Alone, seconds, wait_for};
use serde_json::Value;

/// H.264 as in the README, at a constant 2 Mb/s so that the bit rate is known.
const H264_CBR: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-bf",
    "2",
    "-g",
    "60",
    "-b:v",
    "2M",
    "-minrate",
    "2M",
    "-maxrate",
    "2M",
    "-bufsize",
    "400k",
    "-x264-params",
    "nal-hrd=cbr:force-cfr=1",
];

const MUX_RATE: f64 = 2_600_000.0;

fn near(value: f64, expected: f64, tolerance: f64) -> bool {
    (value - expected).abs() <= expected * tolerance
}

/// The means of the bit rates that the records show, read once a second.
fn mean_bitrates(engine: &Engine, ids: &[String], times: u32) -> Vec<f64> {
    let mut sums = vec![0.0; ids.len()];
    for _ in 0..times {
        std::thread::sleep(Duration::from_secs(1));
        for (sum, id) in sums.iter_mut().zip(ids) {
            *sum += engine.stream(id).map_or(0.0, |s| number(&s, "bitrate"));
        }
    }
    sums.into_iter().map(|sum| sum / f64::from(times)).collect()
}

fn assert_no_loss(record: &Value) {
    for key in ["packets_lost", "packets_dropped"] {
        assert!(
            number(&record["stats"], key) == 0.0,
            "{key} is not 0: {record:#}"
        );
    }
}

fn assert_video(record: &Value, codec: &str) {
    assert_eq!(record["status"], "active", "{record:#}");
    assert_eq!(record["video_codec"], codec, "{record:#}");
    assert_eq!(record["resolution"], "1280x720", "{record:#}");
    assert!(
        near(number(record, "frame_rate"), 30.0, 0.01),
        "frame rate: {record:#}"
    );
}

fn ready(record: &Value) -> bool {
    record["status"] == "active"
        && record["resolution"] == "1280x720"
        && record["frame_rate"]
            .as_f64()
            .is_some_and(|r| near(r, 30.0, 0.01))
}

#[test]
fn srt_rtp_mpegts_and_rtp_h264_from_ffmpeg_are_shown_with_right_facts_and_no_loss() {
    let test = Alone::begin("three-encoders");
    let engine = Engine::start(&test, &[]);
    let mux_rate = MUX_RATE.to_string();
    let mux_option = format!("muxrate={mux_rate}");
    let srt_url = engine.srt_url("live/cam1");
    let rtp_url = engine.rtp_url();
    let start = |name: &str, tail: &[&str]| {
        media::ffmpeg(&test, name, &[LIVE_SOURCE, H264_CBR, tail].concat())
    };
    let _srt = start("srt", &["-muxrate", &mux_rate, "-f", "mpegts", &srt_url]);
    let _mp2t = start(
        "rtp-mpegts",
        &[
            "-mpegts_muxer_options",
            &mux_option,
            "-f",
            "rtp_mpegts",
            &rtp_url,
        ],
    );
    let _h264 = start("rtp-h264", &["-f", "rtp", &rtp_url]);

    wait_for(
        "three streams are active with all facts",
        seconds(20),
        || {
            let streams = engine.streams();
            streams.len() == 3 && streams.iter().all(ready)
        },
    );
    let streams = engine.streams();
    let ids: Vec<String> = streams
        .iter()
        .filter_map(|s| s["id"].as_str().map(str::to_owned))
        .collect();
    // Encoders start in a burst; three GOPs of 2 s are averaged after it.
    std::thread::sleep(seconds(2));
    let rates = mean_bitrates(&engine, &ids, 6);
    for (id, rate) in ids.iter().zip(rates) {
        let record = engine.stream(id).expect("the stream has a record");
        assert_video(&record, "H264");
        assert_no_loss(&record);
        // Payload bits: the TS as muxed, or the elementary stream with its RTP payload headers.
        let is_h264 = record["protocol"] == "rtp" && record["container"] != "mpegts";
        let expected = if is_h264 { 2_000_000.0 } else { MUX_RATE };
        assert!(
            near(rate, expected, 0.05),
            "{id}: {rate} b/s, expected {expected}\n{record:#}"
        );
        assert!(number(&engine.stats(id), "key_frames") >= 3.0);
        assert!(
            number(&engine.stats(id), "b_frames") > 0.0,
            "B frames are told apart"
        );
    }
    assert!(ids.iter().any(|id| id == "live/cam1"));
    assert_eq!(ids.iter().filter(|id| is_rtp_id(id)).count(), 2, "{ids:?}");
    assert_eq!(number(&engine.get("/api/v1/stats"), "active_streams"), 3.0);
}

/// `rtp_` and eight hex digits.
fn is_rtp_id(id: &str) -> bool {
    id.strip_prefix("rtp_")
        .is_some_and(|ssrc| ssrc.len() == 8 && ssrc.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[test]
fn hevc_from_ffmpeg_over_srt_is_shown_with_right_facts() {
    let test = Alone::begin("hevc");
    let engine = Engine::start(&test, &[]);
    let url = engine.srt_url("live/hevc");
    let codec = [
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-g",
        "60",
        "-b:v",
        "1500k",
        "-x265-params",
        "log-level=error:bframes=2:pools=1:frame-threads=1",
        "-f",
        "mpegts",
        &url,
    ];
    let _ffmpeg = media::ffmpeg(&test, "srt", &[LIVE_SOURCE, &codec[..]].concat());
    let record = engine.wait_stream("live/hevc", "all facts", seconds(25), ready);
    assert!(
        ["H265", "HEVC"].iter().any(|c| record["video_codec"] == *c),
        "{record:#}"
    );
    assert_no_loss(&record);
}

/// The whole of `file` has arrived: frame and key-frame counts are ffprobe's.
fn assert_whole(engine: &Engine, id: &str, expected: Counts) {
    let counts = |stats: &Value| Counts {
        frames: number(stats, "video_frames") as u64,
        key_frames: number(stats, "key_frames") as u64,
    };
    engine.wait_stream(id, "the session ended", seconds(15), |s| {
        s["status"] != "active"
    });
    let stats = engine.stats(id);
    assert_eq!(counts(&stats), expected, "{stats:#}");
    for key in ["packets_dropped", "frames_damaged", "continuity_errors"] {
        assert_eq!(number(&stats, key), 0.0, "{key}: {stats:#}");
    }
}

fn finish(mut sender: Process) {
    let status = sender.wait(seconds(25));
    assert!(status.success(), "{status}\n{}", sender.tail());
}

#[test]
fn a_file_from_ffmpeg_over_srt_arrives_frame_for_frame() {
    let test = Alone::begin("file-ffmpeg");
    let engine = Engine::start(&test, &[]);
    for (id, file) in [
        ("file/h264", media::clip_h264(&test)),
        ("file/h265", media::clip_h265(&test)),
    ] {
        finish(media::send_file(&test, "send", &file, &engine.srt_url(id)));
        assert_whole(&engine, id, media::probe(&test, &file));
    }
}

#[test]
fn a_file_from_srt_live_transmit_arrives_frame_for_frame() {
    let test = Alone::begin("file-slt");
    let engine = Engine::start(&test, &[]);
    let file = media::clip_h264(&test);
    let url = format!("{}&mode=caller", engine.srt_url("file/slt"));
    // Its payloads are 1456 bytes by default, so that TS packets lie across them.
    let words = ["-loglevel:error", "file://con", &url];
    let (mut sender, mut feeder) = media::pipe_file(
        &test,
        "srt-live-transmit",
        &file,
        "srt-live-transmit",
        &words,
    );
    assert!(feeder.wait(seconds(20)).success(), "{}", feeder.tail());
    // It does not end at the end of its input.
    std::thread::sleep(seconds(1));
    sender.signal(rustix::process::Signal::INT);
    sender.wait(seconds(10));
    assert_whole(&engine, "file/slt", media::probe(&test, &file));
}

#[test]
fn a_file_from_gstreamer_srtsink_arrives_frame_for_frame() {
    let test = Alone::begin("file-gst");
    let engine = Engine::start(&test, &[]);
    let file = media::clip_h264(&test);
    let (location, uri) = (
        format!("location={}", file.display()),
        format!("uri={}", engine.srt_url("file/gst")),
    );
    let pipeline = [
        "-q",
        "filesrc",
        &location,
        "!",
        "tsparse",
        "set-timestamps=true",
        "alignment=7",
        "!",
        "srtsink",
        &uri,
        "wait-for-connection=true",
        "sync=true",
    ];
    finish(Process::start(
        test.folder(),
        "gst-launch",
        "gst-launch-1.0",
        &pipeline,
    ));
    assert_whole(&engine, "file/gst", media::probe(&test, &file));
}

#[test]
fn an_encoder_in_gstreamer_is_understood() {
    let test = Alone::begin("gst-encoder");
    let engine = Engine::start(&test, &[]);
    let uri = format!("uri={}", engine.srt_url("live/gst"));
    let pipeline = "-q videotestsrc is-live=true num-buffers=150 ! video/x-raw,width=1280,height=720,framerate=30/1 \
                    ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=30 bitrate=2000 option-string=scenecut=0 \
                    ! h264parse ! mpegtsmux alignment=7 ! srtsink wait-for-connection=true";
    let args: Vec<&str> = pipeline.split_whitespace().chain([uri.as_str()]).collect();
    let sender = Process::start(test.folder(), "gst-launch", "gst-launch-1.0", &args);
    let record = engine.wait_stream("live/gst", "all facts", seconds(15), ready);
    assert_video(&record, "H264");
    assert_no_loss(&record);
    finish(sender);
    assert_whole(
        &engine,
        "live/gst",
        Counts {
            frames: 150,
            key_frames: 5,
        },
    );
}
