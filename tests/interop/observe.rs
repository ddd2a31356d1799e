//! What an operator can see: latency, metrics, totals, errors; and the load generator's verdict.

use mirror_tests::engine::{Engine, encode, number};
use mirror_tests::media;
use mirror_tests::process::{Process, run};
use mirror_tests::{Alone, release_binary, root, seconds, wait_for};
use serde_json::Value;

fn running(test: &Alone, settings: &[&str]) -> (Engine, Process) {
    let engine = Engine::start(test, settings);
    let file = media::clip_h264(test);
    let sender = media::loop_file(test, "send", &file, "mpegts", &engine.srt_url("live/cam1"));
    engine.wait_stream("live/cam1", "frames", seconds(10), |s| {
        s["resolution"] == "640x360"
    });
    (engine, sender)
}

/// The histogram of a stage, wherever it stands in the answer.
fn stage<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object
            .get(name)
            .filter(|v| v["count"].is_number())
            .or_else(|| object.values().find_map(|v| stage(v, name))),
        Value::Array(list) => list.iter().find_map(|v| stage(v, name)),
        _ => None,
    }
}

#[test]
fn latency_histograms_fill_and_the_hold_is_srt_s_latency() {
    let test = Alone::begin("latency");
    let (engine, _sender) = running(&test, &["srt.latency=200ms"]);
    std::thread::sleep(seconds(3));
    let path = format!("/api/v1/streams/{}/latency", encode("live/cam1"));
    for path in [path.as_str(), "/api/v1/latency"] {
        let latency = engine.get(path);
        for name in ["receive", "hold", "assemble", "total"] {
            let histogram =
                stage(&latency, name).unwrap_or_else(|| panic!("no {name} in {latency:#}"));
            assert!(number(histogram, "count") > 50.0, "{name}: {histogram:#}");
            let figures =
                ["min", "p50", "p90", "p99", "p999", "p9999", "max"].map(|k| number(histogram, k));
            assert!(figures.is_sorted(), "{name}: {histogram:#}");
        }
        let hold = number(stage(&latency, "hold").expect("hold"), "p50");
        assert!(
            (150_000.0..=260_000.0).contains(&hold),
            "hold {hold} µs for 200 ms"
        );
        let total = number(stage(&latency, "total").expect("total"), "p50");
        assert!(
            total < 50_000.0,
            "the engine adds {total} µs, the hold not counted"
        );
    }
    let reset = engine.get("/api/v1/latency?reset=true");
    assert!(stage(&reset, "receive").is_some());
}

#[test]
fn metrics_are_prometheus_text_with_help_and_the_stream_s_series() {
    let test = Alone::begin("metrics");
    let (engine, _sender) = running(&test, &[]);
    wait_for("the stream has series", seconds(5), || {
        engine
            .request("GET", "/metrics")
            .is_some_and(|r| r.body.contains("stream_id=\"live/cam1\""))
    });
    let text = engine.request("GET", "/metrics").expect("metrics").body;
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (series, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("no value: {line}"));
        assert!(value.parse::<f64>().is_ok(), "not a number: {line}");
        let name = series.split('{').next().unwrap_or("");
        assert!(
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'),
            "{line}"
        );
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'),
            "{line}"
        );
        assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
    }
    for family in [
        "stream_ingestion_active_total",
        "stream_ingestion_bytes_total",
        "stream_ingestion_packets_total",
        "stream_ingestion_bitrate",
    ] {
        assert!(
            text.contains(&format!("# HELP {family} ")),
            "no HELP for {family}\n{text}"
        );
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "no TYPE for {family}"
        );
    }
    assert!(
        text.lines()
            .any(|l| l.starts_with("ingest_latency_seconds")),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|l| l.starts_with("shard_") && l.contains("shard=\"0\"")),
        "{text}"
    );
}

#[test]
fn totals_and_shards_agree_with_the_streams() {
    let test = Alone::begin("totals");
    let (engine, _sender) = running(&test, &[]);
    std::thread::sleep(seconds(2));
    let stats = engine.get("/api/v1/stats");
    assert_eq!(number(&stats, "active_streams"), 1.0, "{stats:#}");
    assert_eq!(number(&stats, "kernel_drops"), 0.0, "{stats:#}");
    assert!(number(&stats, "memory_usage") > 1e6, "{stats:#}");
    assert!(number(&stats, "uptime") >= 1.0, "{stats:#}");
    let shards = engine.get("/api/v1/shards");
    let text = shards.to_string();
    assert!(
        text.contains("core") && text.contains("kernel_drops"),
        "{shards:#}"
    );
    let shard = number(&engine.stream("live/cam1").expect("a record"), "shard");
    assert!(shard >= 0.0);
}

#[test]
fn errors_are_json_with_the_right_status() {
    let test = Alone::begin("api-errors");
    let engine = Engine::start(&test, &[]);
    for (method, path, status) in [
        ("GET", "/api/v1/streams/live%2Fnone", 404),
        ("GET", "/api/v1/streams/live%2Fnone/stats", 404),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/streams", 405),
        ("GET", "/api/v1/streams?limit=many", 400),
    ] {
        let response = engine
            .request(method, path)
            .unwrap_or_else(|| panic!("{method} {path}: no answer"));
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        assert!(
            response.json()["error"].is_string() && response.json()["message"].is_string(),
            "{response:?}"
        );
    }
    assert_eq!(
        engine.request("GET", "/healthz").map(|r| r.status),
        Some(200)
    );
    assert_eq!(number(&engine.get("/api/v1/streams"), "count"), 0.0);
}

#[test]
fn an_idle_engine_rests() {
    let test = Alone::begin("idle");
    let engine = Engine::start(&test, &[]);
    std::thread::sleep(seconds(2));
    let before = engine.process.cpu_time();
    std::thread::sleep(seconds(5));
    let used = (engine.process.cpu_time() - before).as_secs_f64() / 5.0;
    // The promise is 1 % of a core a shard; a machine under test gets some room.
    assert!(used < 0.03, "{:.1} % of a core", used * 100.0);
}

#[test]
fn the_smoke_scenario_of_the_load_generator_holds() {
    let test = Alone::begin("smoke");
    let engine = Engine::start(&test, &[]);
    let shipped = root().join("configs/loadtest/smoke.toml");
    let shipped = std::fs::read_to_string(shipped).expect("the scenario is in the repository");
    // The same on this engine's ports.
    let (srt, rtp) = (engine.ports.srt, engine.ports.rtp);
    let target = format!("{shipped}\n[target]\nsrt_port = {srt}\nrtp_port = {rtp}\n");
    let scenario = test.write("smoke.toml", &target).display().to_string();
    let report = test.folder().join("smoke.json").display().to_string();
    let (url, pid) = (engine.api_url(), engine.process.id().to_string());
    let words = [
        "run", &scenario, "--target", &url, "--pid", &pid, "--json", &report,
    ];
    let (code, said) = run(
        test.folder(),
        "smoke",
        release_binary("mirror-loadtest"),
        &words,
        seconds(60),
    );
    assert_eq!(code, Some(0), "{said}\n{}", engine.process.tail());
    let report = std::fs::read_to_string(report).expect("the report was written");
    assert!(serde_json::from_str::<Value>(&report).is_ok(), "{report}");
}
