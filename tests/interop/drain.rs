//! SIGTERM and SIGINT.

use std::time::Instant;

use mirror_tests::engine::Engine;
use mirror_tests::media;
use mirror_tests::{Alone, seconds};
use rustix::process::Signal;

#[test]
fn sigterm_tells_the_peers_and_ends_with_0_within_the_shutdown_timeout() {
    let test = Alone::begin("drain");
    let mut engine = Engine::start(&test, &["shutdown_timeout=5s"]);
    let file = media::clip_h264(&test);
    let mut srt = media::loop_file(&test, "srt", &file, "mpegts", &engine.srt_url("live/cam1"));
    let _rtp = media::loop_file(&test, "rtp", &file, "rtp_mpegts", &engine.rtp_url());
    engine.wait_status("live/cam1", "active", seconds(10));
    let begin = Instant::now();
    let status = engine.drain(seconds(10));
    assert_eq!(status.code(), Some(0), "{}", engine.process.tail());
    assert!(begin.elapsed() < seconds(6), "{:?}", begin.elapsed());
    // Told by SHUTDOWN: it ends well before libsrt's own idle timeout of five seconds.
    assert!(
        !srt.wait(seconds(3)).success(),
        "the SRT sender lost its connection"
    );
}

#[test]
fn a_drain_that_cannot_wait_for_the_hold_still_ends_in_time_with_0() {
    let test = Alone::begin("drain-hold");
    let mut engine = Engine::start(&test, &["shutdown_timeout=2s", "srt.latency=6s"]);
    let file = media::clip_h264(&test);
    let _srt = media::loop_file(&test, "srt", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_stream("live/cam1", "packets", seconds(10), |s| {
        s["stats"]["packets_received"].as_u64() > Some(100)
    });
    let begin = Instant::now();
    let status = engine.drain(seconds(10));
    assert_eq!(status.code(), Some(0), "{}", engine.process.tail());
    assert!(begin.elapsed() < seconds(3), "{:?}", begin.elapsed());
}

#[test]
fn an_idle_engine_drains_at_once_also_on_sigint() {
    let test = Alone::begin("drain-idle");
    let mut engine = Engine::start(&test, &[]);
    engine.process.signal(Signal::INT);
    assert_eq!(
        engine.process.wait(seconds(3)).code(),
        Some(0),
        "{}",
        engine.process.tail()
    );
}

#[test]
fn the_ports_are_free_after_the_engine_ended() {
    let test = Alone::begin("restart");
    let mut engine = Engine::start(&test, &[]);
    let ports = engine.ports;
    assert_eq!(engine.drain(seconds(10)).code(), Some(0));
    let arguments: Vec<String> = ports
        .arguments()
        .into_iter()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = Engine::launch(&test, "second", &[], &arguments);
    let second = Engine { ports, ..second };
    mirror_tests::wait_for(
        "the second engine is ready on the same ports",
        seconds(15),
        || {
            second
                .request("GET", "/readyz")
                .is_some_and(|r| r.status == 200)
        },
    );
}
