//! What frames tell, over the API: groups of pictures, clocks, audio against video, tracks.

use mirror_tests::engine::{Engine, encode, number};
use mirror_tests::process::Process;
use mirror_tests::{Alone, media, seconds, wait_for};
use serde_json::Value;

/// A file of `video` with `audio`, sent over and over.
fn send(test: &Alone, engine: &Engine, name: &str, make: &str) -> Process {
    let make: Vec<&str> = make.split_whitespace().collect();
    let file = media::clip(test, name, &make);
    media::loop_file(test, "send", &file, "mpegts", &engine.srt_url("live/cam1"))
}

fn about(engine: &Engine, what: &str) -> Value {
    engine.get(&format!("/api/v1/streams/{}/{what}", encode("live/cam1")))
}

#[test]
fn h264_with_aac_shows_closed_gops_and_stays_in_sync() {
    let test = Alone::begin("timeline-h264");
    let engine = Engine::start(&test, &[]);
    let make = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=20 -f lavfi -i \
                sine=frequency=440:sample_rate=48000:duration=20 -c:v libx264 -preset ultrafast \
                -bf 2 -g 25 -sc_threshold 0 -b:v 1M -c:a aac -b:a 96k -f mpegts";
    let _sender = send(&test, &engine, "timeline-h264-20s.ts", make);
    engine.wait_stream("live/cam1", "a picture's size", seconds(20), |s| {
        s["resolution"] == "640x360"
    });
    wait_for("complete GOPs", seconds(20), || {
        number(&about(&engine, "buffer"), "count") > 4.0
    });
    wait_for("drift samples", seconds(20), || {
        number(&about(&engine, "sync"), "sample_count") > 3.0
    });
    let sync = about(&engine, "sync");
    assert_eq!(sync["status"], "synced", "{sync:#}");
    assert!(number(&sync["drift"], "current").abs() < 40.0, "{sync:#}");
    for kind in ["video", "audio"] {
        assert!(number(&sync[kind], "packet_count") > 50.0, "{sync:#}");
        assert!(number(&sync[kind], "last_pts") > 0.0, "{sync:#}");
        assert_eq!(sync[kind]["error_count"], 0, "{sync:#}");
    }
    let buffer = about(&engine, "buffer");
    let gop = &buffer["gop"];
    assert_eq!(gop["open"], 0, "{buffer:#}");
    assert_eq!(gop["max_size"], 25, "{buffer:#}");
    assert_eq!(gop["avg_duration_ms"], 1000.0, "{buffer:#}");
    let structure = gop["structure"].as_str().expect("a structure");
    assert!(
        structure.starts_with("IBBP") && structure.len() == 25,
        "{structure}"
    );
    assert_eq!(buffer["gop_buffer"]["gops"], 3, "{buffer:#}");
    assert!(number(&buffer["gop_buffer"], "frames") > 50.0);
    let video = engine.get("/api/v1/streams/stats/video");
    assert_eq!(video["streams"][0]["avg_gop_size"], 25.0, "{video:#}");
    let recovery = about(&engine, "recovery");
    assert_eq!(recovery["state"], "normal", "{recovery:#}");
    assert_eq!(recovery["is_healthy"], true, "{recovery:#}");
    let stats = engine.stats("live/cam1");
    assert_eq!(stats["tr101290"]["1.1"]["count"], 0, "{stats:#}");
}

#[test]
fn pes_packets_as_units_keep_clocks_and_health_without_key_frames() {
    let test = Alone::begin("timeline-pes");
    let settings = ["frame.units=pes", "gop.keyframe_timeout=2s"];
    let engine = Engine::start(&test, &settings);
    let make = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=20 -f lavfi -i \
                sine=frequency=440:sample_rate=48000:duration=20 -c:v libx264 -preset ultrafast \
                -bf 2 -g 25 -sc_threshold 0 -b:v 1M -c:a aac -b:a 96k -f mpegts";
    let _sender = send(&test, &engine, "timeline-h264-20s.ts", make);
    let record = engine.wait_stream("live/cam1", "two tracks", seconds(20), |s| {
        s["tracks"].as_array().is_some_and(|t| t.len() == 2)
    });
    assert_eq!(record["tracks"][0]["codec"], "H264", "{record:#}");
    wait_for("drift samples", seconds(20), || {
        number(&about(&engine, "sync"), "sample_count") > 3.0
    });
    let sync = about(&engine, "sync");
    assert_eq!(sync["status"], "synced", "{sync:#}");
    assert!(number(&sync["video"], "packet_count") > 50.0, "{sync:#}");
    // Longer than the time for a key frame.
    std::thread::sleep(seconds(3));
    let recovery = about(&engine, "recovery");
    assert_eq!(recovery["state"], "normal", "{recovery:#}");
    assert_eq!(recovery["is_healthy"], true, "{recovery:#}");
    let buffer = about(&engine, "buffer");
    assert_eq!(buffer["gop"]["key_frame_missing"], false, "{buffer:#}");
    let stats = engine.stats("live/cam1");
    assert_eq!(stats["tr101290"]["1.1"]["count"], 0, "{stats:#}");
}

#[test]
fn hevc_with_b_pyramids_and_two_audio_tracks_shows_all_its_tracks() {
    let test = Alone::begin("timeline-hevc");
    let engine = Engine::start(&test, &[]);
    let make = "-f lavfi -i testsrc2=size=640x360:rate=25:duration=12 -f lavfi -i \
                sine=frequency=440:sample_rate=48000:duration=12 -f lavfi -i \
                sine=frequency=880:sample_rate=48000:duration=12 -map 0 -map 1 -map 2 \
                -metadata:s:a:0 language=deu -metadata:s:a:1 language=eng -c:v libx265 \
                -preset ultrafast -b:v 1M -x265-params \
                log-level=error:keyint=25:min-keyint=1:bframes=3:b-pyramid=1:open-gop=1:scenecut=0 \
                -c:a aac -b:a 96k -f mpegts";
    let _sender = send(&test, &engine, "timeline-hevc-open-12s.ts", make);
    let record = engine.wait_stream("live/cam1", "three tracks", seconds(20), |s| {
        s["tracks"].as_array().is_some_and(|t| t.len() == 3) && s["resolution"] == "640x360"
    });
    wait_for("complete GOPs", seconds(20), || {
        number(&about(&engine, "buffer"), "count") > 4.0
    });
    let languages: Vec<&str> = record["tracks"]
        .as_array()
        .expect("tracks")
        .iter()
        .filter_map(|t| t["language"].as_str())
        .collect();
    assert_eq!(languages, ["deu", "eng"], "{record:#}");
    let gop = &about(&engine, "buffer")["gop"];
    // Each begins with a CRA picture, but no picture leads it: nothing reaches over the boundary.
    assert_eq!(gop["open"], 0, "{gop:#}");
    assert!(number(gop, "closed") >= 3.0, "{gop:#}");
    assert!(
        gop["structure"]
            .as_str()
            .expect("a structure")
            .contains('B')
    );
    let record = engine.stream("live/cam1").expect("it is live");
    let video = &record["tracks"][0];
    assert!(number(video, "reorder_depth") >= 2.0, "{video:#}");
    assert_eq!(video["tier"], "Main", "{video:#}");
    assert!(number(video, "bitrate") > 100_000.0, "{video:#}");
    let rate = number(&record["tracks"][1], "measured_rate");
    assert!(rate > 1.0, "{record:#}");
}
