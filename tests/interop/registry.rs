//! The registry in Redis, and that ingest never waits for it.

use std::time::Instant;

use mirror_tests::engine::{Engine, find, number};
use mirror_tests::media;
use mirror_tests::redis::Redis;
use mirror_tests::{Alone, seconds, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const RECORD: &str = "mirror:stream:live/cam1";

fn start(test: &Alone, redis: &Redis) -> Engine {
    let redis = redis.settings();
    let times = [
        "registry.heartbeat_interval=500ms",
        "registry.heartbeat_timeout=3s",
        "registry.ttl=20s",
    ];
    let settings: Vec<&str> = redis.iter().map(String::as_str).chain(times).collect();
    Engine::start(test, &settings)
}

/// The stream goes on: packets keep coming and none is lost.
fn assert_untouched(engine: &Engine, id: &str, for_seconds: u64) {
    let before = number(&engine.stats(id), "packets_received");
    std::thread::sleep(seconds(for_seconds));
    let stats = engine.stats(id);
    let rate = (number(&stats, "packets_received") - before) / for_seconds as f64;
    // 2 Mb/s in packets of 1316 bytes are 190 a second.
    assert!(rate > 100.0, "{rate} packets a second\n{stats:#}");
    assert_eq!(number(&stats, "packets_dropped"), 0.0, "{stats:#}");
    assert_eq!(engine.stream(id).expect("a record")["status"], "active");
}

#[test]
fn a_stream_has_its_record_in_redis_with_a_ttl_and_leaves_the_active_set_at_its_end() {
    let test = Alone::begin("redis-record");
    let redis = Redis::start(&test);
    let settings = redis.settings();
    let settings = [
        settings[0].as_str(),
        &settings[1],
        "registry.ttl=20s",
        "registry.heartbeat_interval=500ms",
        "registry.heartbeat_timeout=3s",
        "stream.reconnect_grace=1s",
    ];
    let engine = Engine::start(&test, &settings);
    let file = media::clip_h264(&test);
    let mut sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_status("live/cam1", "active", seconds(10));
    wait_for("the record shows an active stream", seconds(5), || {
        let record: Value = redis
            .get(RECORD)
            .and_then(|r| serde_json::from_str(&r).ok())
            .unwrap_or_default();
        record["id"] == "live/cam1" && record["status"] == "active" && record["protocol"] == "srt"
    });
    let ttl = redis.integer(&["TTL", RECORD]).expect("a TTL");
    assert!((1..=20).contains(&ttl), "{ttl}");
    assert_eq!(
        redis.integer(&["SISMEMBER", "mirror:streams:active", "live/cam1"]),
        Some(1)
    );
    // The heartbeat keeps it fresh.
    std::thread::sleep(seconds(3));
    assert!(
        redis.integer(&["TTL", RECORD]).is_some_and(|t| t >= 17),
        "the heartbeat refreshes the TTL"
    );
    sender.signal(Signal::TERM);
    sender.wait(seconds(10));
    engine.wait_status("live/cam1", "terminated", seconds(8));
    wait_for("it left the active set", seconds(5), || {
        redis.integer(&["SISMEMBER", "mirror:streams:active", "live/cam1"]) == Some(0)
    });
}

#[test]
fn ingest_is_untouched_when_redis_dies_and_the_record_comes_back_with_it() {
    let test = Alone::begin("redis-dies");
    let mut redis = Redis::start(&test);
    let engine = start(&test, &redis);
    let file = media::clip_h264(&test);
    let _sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_status("live/cam1", "active", seconds(10));
    wait_for("the record is in Redis", seconds(5), || {
        redis.get(RECORD).is_some()
    });
    redis.process.signal(Signal::KILL);
    redis.process.wait(seconds(5));
    assert_untouched(&engine, "live/cam1", 4);
    wait_for("/readyz says that the registry is gone", seconds(5), || {
        engine
            .request("GET", "/readyz")
            .is_some_and(|r| r.status != 200 && r.body.to_lowercase().contains("redis"))
    });
    // A new publisher is let in without Redis, and soon.
    let begin = Instant::now();
    let _other = media::loop_file(
        &test,
        "other",
        &file,
        "mpegts",
        &engine.srt_url("live/cam2"),
    );
    engine.wait_status("live/cam2", "active", seconds(6));
    assert!(begin.elapsed() < seconds(6));
    let redis = Redis::start_on(&test, redis.port());
    wait_for("both records are back", seconds(15), || {
        redis.get(RECORD).is_some() && redis.get("mirror:stream:live/cam2").is_some()
    });
    wait_for("/readyz is content again", seconds(5), || {
        engine
            .request("GET", "/readyz")
            .is_some_and(|r| r.status == 200)
    });
}

#[test]
fn ingest_is_untouched_when_redis_hangs() {
    let test = Alone::begin("redis-hangs");
    let redis = Redis::start(&test);
    let engine = start(&test, &redis);
    let file = media::clip_h264(&test);
    let _sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_status("live/cam1", "active", seconds(10));
    redis.process.signal(Signal::STOP);
    assert_untouched(&engine, "live/cam1", 4);
    let _other = media::loop_file(
        &test,
        "other",
        &file,
        "mpegts",
        &engine.srt_url("live/cam2"),
    );
    engine.wait_status("live/cam2", "active", seconds(6));
    // The API answers from what the engine itself knows.
    let begin = Instant::now();
    assert_eq!(engine.streams().len(), 2);
    assert!(begin.elapsed() < seconds(1), "{:?}", begin.elapsed());
    redis.process.signal(Signal::CONT);
    wait_for("both records are in Redis", seconds(15), || {
        redis.get(RECORD).is_some() && redis.get("mirror:stream:live/cam2").is_some()
    });
}

#[test]
fn an_engine_starts_and_ingests_without_the_redis_that_it_was_told_of() {
    let test = Alone::begin("redis-absent");
    let nobody = mirror_tests::engine::Ports::free().api;
    let url = format!("registry.redis.url=redis://127.0.0.1:{nobody}");
    let engine = Engine::launch(&test, "engine", &["registry.backend=redis", &url], &[]);
    wait_for("it is alive", seconds(20), || {
        engine
            .request("GET", "/healthz")
            .is_some_and(|r| r.status == 200)
    });
    let file = media::clip_h264(&test);
    let _sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_status("live/cam1", "active", seconds(10));
    assert!(find(&engine.stats("live/cam1"), "packets_received").is_some());
}
