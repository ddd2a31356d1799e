//! How streams end, come back and are ended.

use mirror_tests::engine::{Engine, encode, number};
use mirror_tests::media;
use mirror_tests::{Alone, seconds, wait_for};
use rustix::process::Signal;

#[test]
fn a_terminated_ffmpeg_ends_its_stream_after_the_grace_period() {
    let test = Alone::begin("sigterm-ffmpeg");
    let engine = Engine::start(&test, &["stream.reconnect_grace=1s"]);
    let file = media::clip_h264(&test);
    let mut sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_status("live/cam1", "active", seconds(10));
    sender.signal(Signal::TERM);
    sender.wait(seconds(10));
    let record = engine.wait_status("live/cam1", "terminated", seconds(6));
    assert!(record["ended_at"].is_string(), "{record:#}");
    assert!(
        number(&record["stats"], "packets_received") > 0.0,
        "its figures stay: {record:#}"
    );
}

#[test]
fn a_killed_ffmpeg_is_waited_for_and_then_ends_its_stream() {
    let test = Alone::begin("sigkill-ffmpeg");
    let settings = ["stream.reconnect_grace=2s", "srt.peer_idle_timeout=1s"];
    let engine = Engine::start(&test, &settings);
    let file = media::clip_h264(&test);
    let mut sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_status("live/cam1", "active", seconds(10));
    sender.signal(Signal::KILL);
    sender.wait(seconds(5));
    engine.wait_status("live/cam1", "reconnecting", seconds(4));
    engine.wait_status("live/cam1", "terminated", seconds(6));
}

#[test]
fn a_returning_publisher_takes_up_the_same_record() {
    let test = Alone::begin("return");
    let settings = ["stream.reconnect_grace=15s", "srt.peer_idle_timeout=2s"];
    let engine = Engine::start(&test, &settings);
    let file = media::clip_h264(&test);
    let url = engine.srt_url("live/cam1");
    let mut first = media::loop_file(&test, "first", &file, "mpegts", &url);
    let before = engine.wait_stream("live/cam1", "frames", seconds(10), |s| {
        s["status"] == "active" && s["resolution"] == "640x360"
    });
    first.signal(Signal::KILL);
    first.wait(seconds(5));
    engine.wait_status("live/cam1", "reconnecting", seconds(6));
    let frames = number(&engine.stats("live/cam1"), "video_frames");
    let _second = media::loop_file(&test, "second", &file, "mpegts", &url);
    let after = engine.wait_status("live/cam1", "active", seconds(10));
    assert_eq!(before["created_at"], after["created_at"], "the same record");
    assert_eq!(before["shard"], after["shard"], "the same shard");
    wait_for("its frames are counted on", seconds(10), || {
        number(&engine.stats("live/cam1"), "video_frames") > frames + 30.0
    });
    assert_eq!(engine.streams().len(), 1);
}

#[test]
fn a_killed_encoder_may_come_back_before_its_old_session_timed_out() {
    let test = Alone::begin("supersede");
    let engine = Engine::start(
        &test,
        &["srt.peer_idle_timeout=20s", "stream.reconnect_grace=20s"],
    );
    let file = media::clip_h264(&test);
    let url = engine.srt_url("live/cam1");
    let mut first = media::loop_file(&test, "first", &file, "mpegts", &url);
    engine.wait_status("live/cam1", "active", seconds(10));
    first.signal(Signal::KILL);
    first.wait(seconds(5));
    std::thread::sleep(seconds(1));
    let received = number(&engine.stats("live/cam1"), "packets_received");
    let _second = media::loop_file(&test, "second", &file, "mpegts", &url);
    wait_for("the new session's packets arrive", seconds(8), || {
        number(&engine.stats("live/cam1"), "packets_received") > received + 50.0
    });
}

#[test]
fn a_second_publisher_of_a_live_id_is_refused_and_the_first_goes_on() {
    let test = Alone::begin("conflict");
    let engine = Engine::start(&test, &[]);
    let file = media::clip_h264(&test);
    let url = engine.srt_url("live/cam1");
    let mut first = media::loop_file(&test, "first", &file, "mpegts", &url);
    let record = engine.wait_status("live/cam1", "active", seconds(10));
    let mut second = media::loop_file(&test, "second", &file, "mpegts", &url);
    assert!(!second.wait(seconds(10)).success(), "the second is refused");
    assert!(first.ended().is_none(), "the first goes on");
    let after = engine.wait_status("live/cam1", "active", seconds(2));
    assert_eq!(record["source_addr"], after["source_addr"]);
}

#[test]
fn a_publisher_without_a_stream_id_is_refused() {
    let test = Alone::begin("no-stream-id");
    let engine = Engine::start(&test, &[]);
    let url = format!("srt://127.0.0.1:{}", engine.ports.srt);
    let mut sender = media::loop_file(&test, "send", &media::clip_h264(&test), "mpegts", &url);
    assert!(!sender.wait(seconds(10)).success());
    assert!(engine.streams().is_empty());
}

#[test]
fn deleting_a_stream_tells_the_peer_and_keeps_it_out_for_a_while() {
    let test = Alone::begin("delete");
    let engine = Engine::start(&test, &["stream.block_for=60s"]);
    let file = media::clip_h264(&test);
    let url = engine.srt_url("live/cam1");
    let mut sender = media::loop_file(&test, "send", &file, "mpegts", &url);
    engine.wait_status("live/cam1", "active", seconds(10));
    let path = format!("/api/v1/streams/{}", encode("live/cam1"));
    let answer = engine.request("DELETE", &path).expect("DELETE is answered");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    // Told by SHUTDOWN: it ends well before libsrt's own idle timeout of five seconds.
    assert!(
        !sender.wait(seconds(4)).success(),
        "the sender lost its connection"
    );
    engine.wait_stream("live/cam1", "terminated", seconds(5), |s| {
        s["status"] == "terminated"
    });
    let mut again = media::loop_file(&test, "again", &file, "mpegts", &url);
    assert!(
        !again.wait(seconds(10)).success(),
        "it is not admitted again"
    );
    let unknown = engine
        .request("DELETE", "/api/v1/streams/live%2Fnone")
        .expect("DELETE is answered");
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert!(unknown.json()["message"].is_string(), "{unknown:?}");
}

#[test]
fn an_rtp_stream_that_falls_silent_ends() {
    let test = Alone::begin("rtp-silence");
    let engine = Engine::start(
        &test,
        &["rtp.session_timeout=1s", "stream.reconnect_grace=1s"],
    );
    let file = media::clip_h264(&test);
    let mut sender = media::loop_file(&test, "send", &file, "rtp_mpegts", &engine.rtp_url());
    wait_for("the stream is active", seconds(10), || {
        engine.streams().iter().any(|s| s["status"] == "active")
    });
    sender.signal(Signal::KILL);
    sender.wait(seconds(5));
    wait_for("it is terminated", seconds(8), || {
        engine.streams().iter().all(|s| s["status"] == "terminated")
    });
}
