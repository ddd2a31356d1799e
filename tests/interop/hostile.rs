//! Bad input at full speed while a stream runs. A million datagrams a port with
//! `MIRROR_FLOOD_DATAGRAMS=1000000` (scripts/flood); fewer in the ordinary suite.

use mirror_tests::engine::{Engine, number};
use mirror_tests::media;
use mirror_tests::process::run;
use mirror_tests::{Alone, release_binary, seconds};
use serde_json::Value;

const RATE: u64 = 100_000;

fn datagrams() -> u64 {
    std::env::var("MIRROR_FLOOD_DATAGRAMS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(150_000)
}

/// The sum of all numbers called `key`, wherever they stand.
fn sum(value: &Value, key: &str) -> f64 {
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(k, v)| {
                if k == key {
                    v.as_f64().unwrap_or(0.0)
                } else {
                    sum(v, key)
                }
            })
            .sum(),
        Value::Array(list) => list.iter().map(|v| sum(v, key)).sum(),
        _ => 0.0,
    }
}

/// The sum of all samples of a metric whose name contains `part`.
fn metric(engine: &Engine, part: &str) -> f64 {
    let text = engine
        .request("GET", "/metrics")
        .map(|r| r.body)
        .unwrap_or_default();
    text.lines()
        .filter(|l| {
            !l.starts_with('#') && l.split(['{', ' ']).next().is_some_and(|n| n.contains(part))
        })
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn flood(test: &Alone, port: u16, kind: &str, seed: u64) {
    let count = datagrams();
    let (target, rate, count_text, seed) = (
        format!("udp://127.0.0.1:{port}"),
        RATE.to_string(),
        count.to_string(),
        seed.to_string(),
    );
    let words = [
        "flood",
        "--target",
        &target,
        "--kind",
        kind,
        "--rate",
        &rate,
        "--count",
        &count_text,
        "--seed",
        &seed,
    ];
    let limit = seconds(30 + count / RATE * 4);
    let (code, said) = run(
        test.folder(),
        "flood",
        release_binary("mirror-loadtest"),
        &words,
        limit,
    );
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_stream_survives_floods_of_bad_datagrams_on_every_port() {
    let test = Alone::begin("flood");
    let mut engine = Engine::start(&test, &[]);
    let file = media::clip_h264(&test);
    let _sender = media::loop_file(&test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_stream("live/cam1", "frames", seconds(10), |s| {
        s["resolution"] == "640x360"
    });
    // Once through, so that everything that grows on first use has grown.
    flood(&test, engine.ports.srt, "random", 1);
    let resident = engine.process.resident_bytes();
    let discarded = metric(&engine, "discard");
    let lines = engine.process.output().lines().count();
    let mut seed = 2;
    for port in [engine.ports.srt, engine.ports.rtp, engine.ports.rtp + 1] {
        for kind in ["random", "truncated", "mutated"] {
            flood(&test, port, kind, seed);
            seed += 1;
        }
    }
    assert!(
        engine.process.ended().is_none(),
        "{}",
        engine.process.tail()
    );
    std::thread::sleep(seconds(2));
    let grown = metric(&engine, "discard") - discarded;
    let sent = datagrams() as f64 * 9.0;
    assert!(grown > sent * 0.2, "counters rise: {grown} of {sent}");
    let lines = engine.process.output().lines().count() - lines;
    assert!(lines < 500, "{lines} log lines");
    let (before, after) = (resident / 1024, engine.process.resident_bytes() / 1024);
    assert!(
        after < before + before / 10 + 32 * 1024,
        "resident memory {before} → {after} KiB"
    );

    let record = engine.stream("live/cam1").expect("the stream has a record");
    assert_eq!(record["status"], "active", "{record:#}");
    let kernel = sum(&engine.get("/api/v1/shards"), "kernel_drops");
    println!(
        "{sent} bad datagrams sent, {grown} discards counted, {kernel} dropped by the kernel; \
         {lines} log lines; resident memory {before} -> {after} KiB; stream: {} packets received",
        record["stats"]["packets_received"]
    );
    let stats = engine.stats("live/cam1");
    let lost = number(&stats, "packets_lost");
    assert!(
        lost <= kernel,
        "{lost} packets lost, {kernel} dropped by the kernel\n{stats:#}"
    );
    assert!(number(&stats, "packets_dropped") <= kernel, "{stats:#}");
}
