//! Streams that the engine fetches from ffmpeg as a listener, and publishers with passphrases
//! of their own.

use std::net::UdpSocket;

use mirror_tests::engine::{Engine, number};
use mirror_tests::media;
use mirror_tests::{Alone, seconds, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const SECRET: &str = "remote-horse-battery";

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn caller(engine: &Engine) -> Value {
    engine.get("/api/v1/callers")["callers"][0].clone()
}

#[test]
fn a_fetched_stream_is_called_back_when_its_source_returns_and_left_alone_when_deleted() {
    let test = Alone::begin("caller");
    let port = free_port();
    let text = format!(
        "[[srt.callers]]\nid = \"remote/cam1\"\n\
         url = \"srt://127.0.0.1:{port}?streamid=cam1&latency=200&passphrase={SECRET}\"\n\
         backoff = {{ initial = \"500ms\", max = \"1s\" }}\n\
         circuit_breaker = {{ failures = 100 }}\n"
    );
    let config = test.write("callers.toml", &text);
    let settings = ["stream.reconnect_grace=20s", "srt.peer_idle_timeout=1s"];
    let arguments = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_with(&test, &settings, &arguments);
    // Nobody is there yet: the record is, and the reason.
    wait_for("a call has failed", seconds(10), || {
        caller(&engine)["last_error"].is_string()
    });
    assert_eq!(engine.stream("remote/cam1").unwrap()["mode"], "caller");
    let file = media::clip_h264(&test);
    let url = format!("srt://127.0.0.1:{port}?mode=listener&passphrase={SECRET}&pbkeylen=32");
    let mut source = media::loop_file(&test, "source", &file, "mpegts", &url);
    let before = engine.wait_stream("remote/cam1", "frames", seconds(15), |s| {
        s["encryption"] != Value::Null && s["resolution"] == "640x360"
    });
    assert_eq!(before["encryption"], "aes-ctr-256");
    assert_eq!(before["config"]["latency_ms"], 200);
    assert_eq!(caller(&engine)["state"], "connected");
    source.signal(Signal::KILL);
    source.wait(seconds(5));
    engine.wait_status("remote/cam1", "reconnecting", seconds(6));
    let frames = number(&engine.stats("remote/cam1"), "video_frames");
    let _again = media::loop_file(&test, "again", &file, "mpegts", &url);
    let after = engine.wait_status("remote/cam1", "active", seconds(15));
    assert_eq!(before["shard"], after["shard"]);
    assert_eq!(caller(&engine)["connections"], 2);
    wait_for("its frames are counted on", seconds(10), || {
        number(&engine.stats("remote/cam1"), "video_frames") > frames + 30.0
    });
    let stats = engine.stats("remote/cam1");
    assert!(number(&stats["srt"], "ms_rtt_max") > 0.0, "{stats:#}");
    let shown = engine.request("DELETE", "/api/v1/streams/remote%2Fcam1");
    assert_eq!(shown.unwrap().status, 202);
    engine.wait_status("remote/cam1", "terminated", seconds(5));
    wait_for("it is not called", seconds(5), || {
        let caller = caller(&engine);
        caller["stopped_by_operator"] == true && caller["state"] == "idle"
    });
    for path in ["/api/v1/callers", "/api/v1/config", "/api/v1/streams"] {
        let body = engine.get(path).to_string();
        assert!(!body.contains(SECRET), "{path}: {body}");
    }
    assert!(!engine.process.output().contains(SECRET));
}

#[test]
fn each_publisher_needs_the_passphrase_of_its_rule() {
    let test = Alone::begin("passphrases");
    let text = "[srt.encryption]\npassphrase = \"common-horse-battery\"\n\
                [[publishers]]\nid = \"studio/*\"\npassphrase = \"studio-horse-battery\"\n\
                [[publishers]]\nid = \"*\"\n";
    let config = test.write("publishers.toml", text);
    let arguments = ["--config", config.to_str().unwrap()];
    let engine = Engine::start_with(&test, &[], &arguments);
    let file = media::clip_h264(&test);
    let url = |id: &str, passphrase: &str, bytes: u32| {
        let url = engine.srt_url(id);
        format!("{url}&passphrase={passphrase}&pbkeylen={bytes}")
    };
    let send = |name: &str, url: &str| media::loop_file(&test, name, &file, "mpegts", url);
    let _studio = send("studio", &url("studio/a", "studio-horse-battery", 24));
    let _other = send("other", &url("other", "common-horse-battery", 16));
    for (id, encryption) in [("studio/a", "aes-ctr-192"), ("other", "aes-ctr-128")] {
        engine.wait_stream(id, encryption, seconds(10), |s| {
            s["status"] == "active" && s["encryption"] == encryption
        });
    }
    for (name, url) in [
        ("wrong", url("studio/b", "common-horse-battery", 16)),
        ("clear", engine.srt_url("studio/c")),
    ] {
        let status = send(name, &url).wait(seconds(10));
        assert!(!status.success(), "{name}");
    }
    assert!(engine.stream("studio/b").is_none() && engine.stream("studio/c").is_none());
    let metrics = engine.request("GET", "/metrics").unwrap();
    for line in [
        "publishers_refused_total{reason=\"bad_secret\"} 1",
        "publishers_refused_total{reason=\"unsecure\"} 1",
    ] {
        assert!(metrics.body.contains(line), "{line}");
    }
}
