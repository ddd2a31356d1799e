//! The API over real TCP, with mailboxes and events in the place of shards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mirror_stream::report::{Command, EndReason, Reservation, Status, StreamDirectory};
use serde_json::Value;

use crate::testing::{Engine, Options, request, snapshot_of, stream};

/// One request as raw bytes; everything that comes back.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn call(engine: &Engine, method: &str, path: &str) -> (u16, String) {
    let answer = raw(
        engine.address(),
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    );
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let body = answer
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body)
        .to_owned();
    (status, body)
}

fn get(engine: &Engine, path: &str) -> Value {
    let (status, body) = call(engine, "GET", path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn streams_are_listed_with_the_contracts_fields() {
    let engine = Engine::start(Options::default());
    engine.publish("live/cam1");
    engine.publish("live/cam2");
    engine.snapshot(0, vec![stream("live/cam1"), stream("live/cam2")]);
    engine.until(|| get(&engine, "/api/v1/streams?status=active")["count"] == 2);
    let list = get(
        &engine,
        "/api/v1/streams?codec=h264&type=srt&protocol=srt&limit=1&offset=1",
    );
    assert_eq!(list["total"], 2);
    assert_eq!(list["count"], 1);
    assert_eq!(list["streams"][0]["id"], "live/cam2");
    assert_eq!(get(&engine, "/api/v1/streams?codec=H265")["count"], 0);
    assert_eq!(
        get(&engine, "/api/v1/streams?source_addr=192.0.2.7")["count"],
        2
    );
    assert_eq!(
        get(&engine, "/api/v1/streams?source_addr=192.0.2.7:1")["count"],
        0
    );
    let record = get(&engine, "/api/v1/streams/live%2Fcam1");
    for field in [
        "id",
        "name",
        "type",
        "protocol",
        "mode",
        "codec",
        "video_codec",
        "audio_codec",
        "resolution",
        "frame_rate",
        "bitrate",
        "source_addr",
        "source_port",
        "status",
        "state",
        "created_at",
        "updated_at",
        "started_at",
        "ended_at",
        "last_heartbeat",
        "instance",
        "shard",
        "core",
        "tags",
        "metadata",
        "config",
        "ttl",
        "tracks",
        "stats",
    ] {
        assert!(record.get(field).is_some(), "{field}");
    }
    assert_eq!(record["resolution"], "1280x720");
    assert_eq!(record["codec"], "H264");
    assert_eq!(record["frame_rate"], 30.0);
    assert_eq!(record["source_addr"], "192.0.2.7:4000");
    assert_eq!(record["ended_at"], Value::Null);
    assert_eq!(record["audio_codec"], Value::Null);
    assert_eq!(record["state"]["current"], "streaming");
    assert_eq!(record["state"]["health"], "healthy");
    assert!(record["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(record["stats"]["packets_received"], 1000);
    let stats = get(&engine, "/api/v1/streams/live%2Fcam1/stats");
    assert_eq!(stats["rtt_ms"], 12.5);
    let all = get(&engine, "/api/v1/stats");
    assert_eq!(all["active_streams"], 2);
    assert_eq!(all["packets_received"], 2000);
    assert_eq!(all["kernel_drops"], 3);
    assert!(all["memory_usage"].as_u64().unwrap() > 0);
    let shards = get(&engine, "/api/v1/shards");
    assert_eq!(shards["shards"][0]["sockets"][0]["kernel_drops"], 3);
    assert_eq!(shards["shards"][0]["sessions"], 2);
    assert_eq!(get(&engine, "/api/v1/config")["srt"]["latency"], "120ms");
    engine.stop();
}

#[test]
fn errors_have_the_right_status_and_shape() {
    let engine = Engine::start(Options::default());
    for (method, path, status) in [
        ("GET", "/api/v1/streams/nobody", 404),
        ("GET", "/api/v1/streams/a%2", 400),
        ("GET", "/api/v1/streams/%20", 400),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/streams?limit=0", 400),
        ("GET", "/api/v1/streams?colour=red", 400),
        ("GET", "/api/v1/latency?format=xml", 400),
        ("POST", "/api/v1/shards", 405),
        ("DELETE", "/api/v1/stats", 405),
        ("DELETE", "/api/v1/streams/nobody", 404),
    ] {
        let (got, body) = call(&engine, method, path);
        assert_eq!(got, status, "{method} {path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(
            body["error"].is_string() && body["message"].is_string() && body["time"].is_string()
        );
    }
    let (status, body) = call(&engine, "HEAD", "/api/v1/stats");
    assert_eq!((status, body.as_str()), (200, ""));
    let answer = raw(
        engine.address(),
        b"OPTIONS /api/v1/streams/x HTTP/1.1\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 204") && answer.contains("Allow: GET, HEAD, DELETE, OPTIONS"),
        "{answer}"
    );
    let answer = raw(engine.address(), b"\x16\x03\x01 TLS?\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let fine = raw(engine.address(), b"GET /healthz HTTP/1.1\r\n\r\n");
    assert!(
        fine.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"),
        "{fine}"
    );
    let old = raw(engine.address(), b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.contains("200 OK") && !old.contains("chunked"), "{old}");
    engine.stop();
}

#[test]
fn delete_terminates_blocks_and_answers_202() {
    let engine = Engine::start(Options::default());
    engine.publish("live/cam1");
    engine.until(|| call(&engine, "GET", "/api/v1/streams/live%2Fcam1").0 == 200);
    assert_eq!(
        call(&engine, "DELETE", "/api/v1/streams/live%2Fcam1").0,
        202
    );
    let sent = engine.command(|c| matches!(c, Command::Terminate { .. }));
    match sent {
        Command::Terminate { stream_id, reason } => {
            assert_eq!(
                (stream_id.as_str(), reason),
                ("live/cam1", EndReason::Operator)
            );
        }
        other => panic!("{other:?}"),
    }
    let again = request("live/cam1");
    let asked = engine
        .directory
        .reserve(crate::now(), &again.stream_id, mirror_base::ShardId(0));
    assert_eq!(asked, Reservation::Blocked);
    assert_eq!(engine.authorise(again), Err(1403));
    engine.end("live/cam1", EndReason::Operator, Status::Terminated);
    engine.until(|| get(&engine, "/api/v1/streams/live%2Fcam1")["status"] == "terminated");
    let record = get(&engine, "/api/v1/streams/live%2Fcam1");
    assert_eq!(record["state"]["end_reason"], "operator");
    assert!(record["ended_at"].is_string());
    assert_eq!(
        call(&engine, "DELETE", "/api/v1/streams/live%2Fcam1").0,
        404
    );
    engine.stop();
}

#[test]
fn latency_is_merged_and_a_stuck_shard_costs_a_second_not_more() {
    let engine = Engine::start(Options {
        answer_latency: true,
        ..Options::default()
    });
    engine.publish("live/cam1");
    engine.until(|| call(&engine, "GET", "/api/v1/streams/live%2Fcam1").0 == 200);
    let all = get(&engine, "/api/v1/latency");
    assert_eq!(all["merged"]["total"]["count"], 3);
    assert_eq!(all["merged"]["total"]["max"], 300);
    assert_eq!(all["merged"]["hold"]["max"], Value::Null);
    assert_eq!(all["shards"][0]["shard"], 0);
    assert_eq!(
        get(&engine, "/api/v1/streams/live%2Fcam1/latency?reset=true")["receive"]["p50"],
        7
    );
    let (_, hgrm) = call(&engine, "GET", "/api/v1/latency?format=hgrm");
    assert!(
        hgrm.contains("Percentile") && hgrm.contains("#[Max     =      300.000"),
        "{hgrm}"
    );
    let (_, v2) = call(&engine, "GET", "/api/v1/latency?format=v2");
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, v2.trim()).unwrap();
    let read: hdrhistogram::Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .unwrap();
    assert_eq!((read.len(), read.max()), (3, 300));
    let (status, said) = call(&engine, "GET", "/api/v1/latency?format=xml");
    assert!(status == 400 && said.contains("v2"), "{said}");
    engine.stop();

    let engine = Engine::start(Options::default());
    let begin = Instant::now();
    assert_eq!(call(&engine, "GET", "/api/v1/latency").0, 503);
    assert!(
        begin.elapsed() < Duration::from_millis(1800),
        "{:?}",
        begin.elapsed()
    );
    // Many such requests leave workers for the others.
    let address = engine.address();
    let waiting: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || raw(address, b"GET /api/v1/latency HTTP/1.1\r\n\r\n")))
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    assert_eq!(call(&engine, "GET", "/healthz").0, 200);
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
    for thread in waiting {
        assert!(thread.join().unwrap().starts_with("HTTP/1.1 503"));
    }
    engine.stop();
}

#[test]
fn token_is_needed_where_one_is_configured() {
    let engine = Engine::start(Options {
        token: Some("s3cret"),
        ..Options::default()
    });
    assert_eq!(call(&engine, "GET", "/healthz").0, 200);
    for path in ["/api/v1/streams", "/metrics", "/nowhere"] {
        assert_eq!(call(&engine, "GET", path).0, 401, "{path}");
    }
    let ask = |authorization: &str| {
        raw(
            engine.address(),
            format!("GET /api/v1/stats HTTP/1.1\r\nAuthorization: {authorization}\r\n\r\n")
                .as_bytes(),
        )
    };
    assert!(ask("Bearer wrong").starts_with("HTTP/1.1 401"));
    assert!(ask("Basic s3cret").starts_with("HTTP/1.1 401"));
    assert!(ask("bearer s3cret").starts_with("HTTP/1.1 200"));
    engine.stop();
}

#[test]
fn slow_and_silent_clients_block_nobody() {
    let engine = Engine::start(Options {
        max_connections: 64,
        ..Options::default()
    });
    let mut slow = TcpStream::connect(engine.address()).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nX-").unwrap();
    // More silent clients than there is room for.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.extend(TcpStream::connect(engine.address()));
    }
    std::thread::sleep(Duration::from_millis(1200));
    for i in 0..20 {
        let _ = slow.write_all(b"a");
        assert_eq!(call(&engine, "GET", "/healthz").0, 200, "request {i}");
    }
    drop(silent);
    engine.stop();
}

#[test]
fn unfinished_head_is_ended_after_5_s_and_a_long_one_at_8_kib() {
    let engine = Engine::start(Options::default());
    let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
    long.resize(9000, b'a');
    assert!(raw(engine.address(), &long).starts_with("HTTP/1.1 431"));
    let begin = Instant::now();
    let answer = raw(engine.address(), b"GET / HTTP/1.1\r\nX: ");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let took = begin.elapsed();
    assert!((4..8).contains(&took.as_secs()), "{took:?}");
    engine.stop();
}

#[test]
fn answered_client_that_stays_is_no_timeout() {
    let engine = Engine::start(Options::default());
    let mut client = TcpStream::connect(engine.address()).unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // It is closed a second after its answer.
    std::thread::sleep(Duration::from_millis(1300));
    let metrics = call(&engine, "GET", "/metrics").1;
    assert!(metrics.contains("api_timeouts_total 0\n"), "{metrics}");
    drop(client);
    engine.stop();
}

#[test]
fn readiness_says_what_is_missing() {
    let engine = Engine::start(Options::default());
    let (status, body) = call(&engine, "GET", "/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("shard 0 has not reported yet"), "{body}");
    engine.snapshot(0, Vec::new());
    engine.snapshot(1, Vec::new());
    engine.until(|| call(&engine, "GET", "/readyz").0 == 200);
    engine.stop();
}

#[test]
fn metrics_follow_the_streams() {
    let engine = Engine::start(Options {
        answer_latency: true,
        ..Options::default()
    });
    engine.publish("live/cam1");
    engine.snapshot(0, vec![stream("live/cam1")]);
    let metrics = || call(&engine, "GET", "/metrics").1;
    engine.until(|| {
        metrics().contains(
            "stream_ingestion_packets_total{stream_id=\"live/cam1\",protocol=\"srt\"} 1000",
        )
    });
    let text = metrics();
    for line in [
        "stream_ingestion_active_total{protocol=\"srt\"} 1",
        "# HELP stream_ingestion_bitrate Payload rate of about the last second, in bits per second",
        "# TYPE shard_cpu_seconds_total counter",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE registry_operation_seconds_total counter",
        "# TYPE api_request_seconds_total counter",
        "shard_sessions{shard=\"0\"} 1",
        "frames_total{stream_id=\"live/cam1\",type=\"key\"} 5",
        "registry_up{backend=\"embedded\"} 1",
        "ingest_latency_seconds{shard=\"0\",stage=\"total\",quantile=\"1\"} 0.0003",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let described = |name: &str| text.contains(&format!("# HELP {name} "));
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(described(name), "{name} has no HELP");
    }
    engine.end("live/cam1", EndReason::PeerClosed, Status::Terminated);
    engine.until(|| !metrics().contains("live/cam1"));
    assert!(metrics().contains("ingest_packets_total 1000"));
    engine.stop();
}

#[test]
fn answers_larger_than_any_socket_buffer_arrive_whole() {
    let engine = Engine::start(Options {
        max_streams: 3000,
        ..Options::default()
    });
    let streams = (0..3000).map(|i| stream(&format!("bulk/{i:04}"))).collect();
    engine.snapshot(0, streams);
    engine.until(|| get(&engine, "/api/v1/stats")["total_streams"] == 3000);
    let list = get(&engine, "/api/v1/streams?limit=3000");
    assert_eq!(list["streams"].as_array().unwrap().len(), 3000);
    assert!(
        get(&engine, "/api/v1/streams?sort_by=id&sort_order=desc")["streams"][0]["id"]
            == "bulk/2999"
    );
    engine.stop();
}

#[test]
fn tiny_http_that_died_is_started_anew() {
    let engine = Engine::start(Options::default());
    let socket = engine.handle().api.as_ref().unwrap().inner_socket();
    std::fs::remove_file(&socket).unwrap();
    // The first request meets the loss; one soon after is served by a new server.
    engine.until(|| call(&engine, "GET", "/healthz").0 == 200);
    assert_ne!(engine.handle().api.as_ref().unwrap().inner_socket(), socket);
    assert!(
        call(&engine, "GET", "/metrics")
            .1
            .contains("api_server_restarts_total 1")
    );
    engine.stop();
}

#[test]
fn too_many_clients_for_the_descriptors_are_told_at_the_start() {
    use super::descriptor_warning;
    assert_eq!(descriptor_warning(256, Some(1024)), None);
    assert_eq!(descriptor_warning(4096, None), None);
    let warning = descriptor_warning(4096, Some(1024)).unwrap();
    assert!(warning.contains("api.max_connections = 4096") && warning.contains("1024"));
}

#[test]
fn a_snapshot_without_a_stream_ends_it_in_the_end() {
    let engine = Engine::start(Options::default());
    engine.publish("live/cam1");
    engine.until(|| call(&engine, "GET", "/api/v1/streams/live%2Fcam1").0 == 200);
    for _ in 0..3 {
        engine.send(snapshot_of(0, Vec::new()));
    }
    engine.until(|| get(&engine, "/api/v1/streams/live%2Fcam1")["status"] == "terminated");
    engine.stop();
}

#[test]
fn sync_buffer_recovery_and_video_statistics_have_their_shape() {
    let engine = Engine::start(Options::default());
    engine.publish("live/cam1");
    let mut snapshot = stream("live/cam1");
    snapshot.figures.tracks = vec![mirror_stream::figures::TrackFigures {
        units: 250,
        wraps: 1,
        last_pts: Some(90_000),
        bitrate_bps: 4_000_000,
        ..Default::default()
    }];
    snapshot.figures.sync.video = Some(0);
    snapshot.figures.gop.statistics.begun = 5;
    snapshot.figures.gop.structure = "IBBP".to_owned();
    snapshot.figures.tr101290 = Some(mirror_media::Tr101290::default());
    engine.snapshot(0, vec![snapshot]);
    engine.until(|| get(&engine, "/api/v1/streams?status=active")["count"] == 1);
    let sync = get(&engine, "/api/v1/streams/live%2Fcam1/sync");
    assert_eq!(sync["status"], "unknown");
    assert_eq!(sync["video"]["packet_count"], 250);
    assert_eq!(sync["video"]["wrap_count"], 1);
    assert!(sync["audio"].is_null());
    for key in ["current", "max", "min", "avg", "sample_count"] {
        assert!(sync["drift"][key].is_number(), "{key}: {sync:#}");
    }
    let buffer = get(&engine, "/api/v1/streams/live%2Fcam1/buffer");
    for key in [
        "capacity",
        "used",
        "available",
        "frames_assembled",
        "pressure",
    ] {
        assert!(buffer[key].is_number(), "{key}: {buffer:#}");
    }
    assert_eq!(buffer["gop"]["structure"], "IBBP");
    assert_eq!(buffer["gop_buffer"]["keep"], 3);
    let video = get(&engine, "/api/v1/streams/stats/video");
    assert_eq!(video["streams"][0]["id"], "live/cam1");
    assert_eq!(video["streams"][0]["gop_count"], 5);
    let recovery = get(&engine, "/api/v1/streams/live%2Fcam1/recovery");
    assert_eq!(recovery["state"], "normal");
    assert_eq!(recovery["is_healthy"], true);
    let stats = get(&engine, "/api/v1/streams/live%2Fcam1/stats");
    assert_eq!(stats["tr101290"]["1.1"]["name"], "TS_sync_loss");
    assert_eq!(stats["splices"], serde_json::json!([]));
    let record = get(&engine, "/api/v1/streams/live%2Fcam1");
    assert_eq!(record["tracks"][0]["bitrate"], 4_000_000);
    assert_eq!(record["tracks"][0]["colour"]["transfer"], 2);
    let (_, metrics) = engine.get("/metrics");
    let errors = "ts_tr101290_errors_total{stream_id=\"live/cam1\",indicator=\"1.1\"} 0";
    assert!(metrics.contains(errors), "{metrics}");
    assert!(metrics.contains("gop_buffer_gops{stream_id=\"live/cam1\"}"));
    assert_eq!(engine.get("/api/v1/streams/nobody/sync").0, 404);
    engine.stop();
}
