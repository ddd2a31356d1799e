//! The Redis backend against a real redis-server, and against none, a dead one and a hung one.

use std::net::TcpListener;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use mirror_base::ShardId;
use mirror_stream::report::{
    CallFailure, Command, EndReason, Event, Protocol, Status, StreamDirectory,
};
use redis::Commands;
use serde_json::Value;

use crate::testing::{Engine, Options, request, scratch, stream, until};

/// A redis-server of the test's own, on a free loopback port.
struct Server {
    port: u16,
    child: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

impl Server {
    fn start() -> Server {
        let mut server = Server {
            port: free_port(),
            child: None,
        };
        server.run();
        server
    }

    fn run(&mut self) {
        let child = Process::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--dir", &scratch("redis").display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs redis-server (Debian package redis-server)");
        self.child = Some(child);
        until(|| self.client().get_connection().is_ok());
        let ended = self
            .child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten());
        assert!(
            ended.is_none(),
            "redis-server ended: was port {} taken meanwhile?",
            self.port
        );
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap()
    }

    fn connection(&self) -> redis::Connection {
        self.client().get_connection().unwrap()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn options(&self) -> Options {
        options(self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn options(port: u16) -> Options {
    let set = [
        "registry.backend=redis".to_owned(),
        format!("registry.redis.url=redis://127.0.0.1:{port}"),
        "registry.heartbeat_interval=300ms".to_owned(),
        "registry.heartbeat_timeout=2s".to_owned(),
        "registry.ttl=3s".to_owned(),
        "registry.terminated_ttl=1s".to_owned(),
        "registry.redis.read_timeout=300ms".to_owned(),
        "registry.redis.connect_timeout=300ms".to_owned(),
    ];
    Options {
        set: set.into(),
        ..Options::default()
    }
}

fn ready(engine: &Engine) -> bool {
    engine.snapshot(0, Vec::new());
    engine.snapshot(1, Vec::new());
    engine.get("/readyz").0 == 200
}

fn record(connection: &mut redis::Connection, id: &str) -> Option<Value> {
    let text: Option<String> = connection.get(format!("mirror:stream:{id}")).unwrap();
    text.map(|t| serde_json::from_str(&t).unwrap())
}

fn members(connection: &mut redis::Connection, set: &str) -> Vec<String> {
    let mut members: Vec<String> = connection.smembers(format!("mirror:{set}")).unwrap();
    members.sort();
    members
}

#[test]
fn record_has_ttl_indexes_and_events_and_goes_in_the_end() {
    let server = Server::start();
    let engine = Engine::start(server.options());
    until(|| ready(&engine));
    let mut subscriber = server.connection();
    subscriber
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut pubsub = subscriber.as_pubsub();
    pubsub.subscribe("mirror:events").unwrap();
    engine.publish("live/cam1");
    engine.snapshot(0, vec![stream("live/cam1")]);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let event: String = pubsub.get_message().unwrap().get_payload().unwrap();
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["stream_id"], "live/cam1");
        assert_eq!(event["source"], "test-1");
        assert_eq!(event["version"], 1);
        assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
        kinds.push(event["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["stream.created", "stream.started"]);

    let mut c = server.connection();
    until(|| record(&mut c_of(&server), "live/cam1").is_some_and(|r| r["status"] == "active"));
    let found = record(&mut c, "live/cam1").unwrap();
    assert_eq!(found["codec"], "H264");
    assert_eq!(found["instance"], "test-1");
    assert_eq!(found["source_addr"], "192.0.2.7:4000");
    let ttl: i64 = c.pttl("mirror:stream:live/cam1").unwrap();
    assert!((1..=3000).contains(&ttl), "{ttl}");
    for set in [
        "streams:active",
        "streams:status:active",
        "streams:type:srt",
        "streams:protocol:srt",
        "streams:codec:H264",
        "streams:instance:test-1",
        "streams:source:192.0.2.7",
        "streams:tag:studio=1",
    ] {
        assert_eq!(members(&mut c, set), ["live/cam1"], "{set}");
    }
    assert!(
        members(&mut c, "streams:status:connecting").is_empty(),
        "old indexes are left"
    );
    // The heartbeat keeps it beyond its TTL, as long as the shard reports it.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_secs(1));
        engine.snapshot(0, vec![stream("live/cam1")]);
    }
    assert!(record(&mut c, "live/cam1").is_some());
    engine.end("live/cam1", EndReason::PeerClosed, Status::Terminated);
    until(|| members(&mut c_of(&server), "streams:active").is_empty());
    assert_eq!(record(&mut c, "live/cam1").unwrap()["status"], "terminated");
    until(|| record(&mut c_of(&server), "live/cam1").is_none());
    until(|| members(&mut c_of(&server), "streams:status:terminated").is_empty());
    engine.stop();
}

fn c_of(server: &Server) -> redis::Connection {
    server.connection()
}

#[test]
fn killed_redis_touches_nothing_and_is_caught_up_when_it_returns() {
    let mut server = Server::start();
    let engine = Engine::start(server.options());
    until(|| ready(&engine));
    engine.publish("live/before");
    until(|| record(&mut c_of(&server), "live/before").is_some());
    server.kill();
    until(|| {
        let (status, body) = engine.get("/readyz");
        status == 503 && body.contains("registry (redis) is not usable")
    });
    assert!(
        engine
            .get("/metrics")
            .1
            .contains("registry_up{backend=\"redis\"} 0")
    );
    let begin = Instant::now();
    engine.publish("live/during");
    assert!(
        begin.elapsed() < Duration::from_millis(700),
        "{:?}",
        begin.elapsed()
    );
    engine.end("live/before", EndReason::PeerClosed, Status::Reconnecting);
    until(|| engine.get("/api/v1/streams/live%2Fduring").0 == 200);
    server.run();
    until(|| record(&mut c_of(&server), "live/during").is_some());
    until(|| {
        record(&mut c_of(&server), "live/before").is_some_and(|r| r["status"] == "reconnecting")
    });
    assert_eq!(
        members(&mut c_of(&server), "streams:active"),
        ["live/before", "live/during"]
    );
    until(|| {
        engine
            .get("/metrics")
            .1
            .contains("registry_pending_writes 0")
    });
    engine.stop();
    assert!(
        members(&mut c_of(&server), "streams:active").is_empty(),
        "an engine that ends deregisters"
    );
}

#[test]
fn hung_redis_blocks_nothing() {
    // Accepts (by its backlog) and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let engine = Engine::start(options(hung.local_addr().unwrap().port()));
    for i in 0..10 {
        let begin = Instant::now();
        engine.publish(&format!("live/{i}"));
        assert!(
            begin.elapsed() < Duration::from_millis(700),
            "{:?}",
            begin.elapsed()
        );
    }
    until(|| engine.get("/api/v1/streams/live%2F9").0 == 200);
    let (status, body) = engine.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("registry (redis) is not usable"), "{body}");
    let begin = Instant::now();
    engine.stop();
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn redis_that_hangs_while_a_claim_waits_costs_250_ms() {
    let server = Server::start();
    let mut slow = server.options();
    slow.set.push("registry.redis.read_timeout=5s".to_owned());
    let engine = Engine::start(slow);
    until(|| ready(&engine));
    let mut c = server.connection();
    redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(2000)
        .query::<()>(&mut c)
        .unwrap();
    let begin = Instant::now();
    assert_eq!(engine.authorise(request("live/cam1")), Ok(()));
    let took = begin.elapsed();
    assert!((200..700).contains(&took.as_millis()), "{took:?}");
    engine.stop();
}

#[test]
fn claim_of_another_instance_is_a_conflict_and_the_earlier_wins() {
    let server = Server::start();
    let engine = Engine::start(server.options());
    until(|| ready(&engine));
    let mut c = server.connection();
    let claim = r#"{"instance":"other","created":"1000"}"#;
    let _: () = c.set("mirror:claim:live/theirs", claim).unwrap();
    assert_eq!(engine.authorise(request("live/theirs")), Err(1409));
    assert!(
        engine
            .get("/metrics")
            .1
            .contains("publishers_refused_total{reason=\"conflict\"} 1")
    );
    // Ours is live; another instance turns out to have had it earlier.
    engine.publish("live/ours");
    until(|| record(&mut c_of(&server), "live/ours").is_some());
    let _: () = c.set("mirror:claim:live/ours", claim).unwrap();
    match engine.command(|c| matches!(c, Command::Terminate { .. })) {
        Command::Terminate { stream_id, reason } => {
            assert_eq!(
                (stream_id.as_str(), reason),
                ("live/ours", EndReason::TakenOver)
            );
        }
        other => panic!("{other:?}"),
    }
    // A later claim than ours is overwritten.
    engine.publish("live/kept");
    let late = r#"{"instance":"other","created":"9999999999999999"}"#;
    let _: () = c.set("mirror:claim:live/kept", late).unwrap();
    until(|| {
        let claim: String = c_of(&server).get("mirror:claim:live/kept").unwrap();
        claim.contains("test-1")
    });
    engine.stop();
}

#[test]
fn rtp_source_of_a_stream_that_another_instance_has_is_not_begun_anew() {
    let server = Server::start();
    let engine = Engine::start(server.options());
    until(|| ready(&engine));
    let mut c = server.connection();
    let claim = r#"{"instance":"other","created":"1000"}"#;
    let _: () = c.set("mirror:claim:rtp_00000001", claim).unwrap();
    let mut rtp = request("rtp_00000001");
    rtp.protocol = Protocol::Rtp;
    let id = rtp.stream_id.clone();
    engine.send(Event::Started {
        shard: ShardId(0),
        stream_id: id.clone(),
        request: rtp,
        resumed: false,
    });
    engine.command(
        |c| matches!(c, Command::Terminate { reason, .. } if *reason == EndReason::TakenOver),
    );
    assert!(engine.directory.is_blocked(crate::now(), &id));
    engine.stop();
}

#[test]
fn a_claim_that_fails_takes_no_event_of_another_stream_with_it() {
    let server = Server::start();
    let mut patient = server.options();
    patient
        .set
        .push("registry.redis.read_timeout=5s".to_owned());
    let engine = Engine::start(patient);
    until(|| ready(&engine));
    let mut c = server.connection();
    // Not a string: asking for this claim is an error.
    let _: () = c.lpush("mirror:claim:live/broken", "x").unwrap();
    let mut subscriber = server.connection();
    subscriber
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    let mut pubsub = subscriber.as_pubsub();
    pubsub.subscribe("mirror:stream:live/cam1:events").unwrap();
    // While the server rests, the claim and the write come together in one round.
    redis::cmd("CLIENT")
        .arg("PAUSE")
        .arg(1500)
        .query::<()>(&mut c)
        .unwrap();
    assert_eq!(engine.authorise(request("live/first")), Ok(()));
    assert_eq!(engine.authorise(request("live/broken")), Ok(()));
    let cam = request("live/cam1");
    engine.send(Event::Started {
        shard: ShardId(0),
        stream_id: cam.stream_id.clone(),
        request: cam,
        resumed: false,
    });
    for kind in ["stream.created", "stream.started"] {
        let event: String = pubsub.get_message().unwrap().get_payload().unwrap();
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["type"], kind);
    }
    engine.stop();
}

#[test]
fn password_comes_from_its_file_and_a_wrong_one_is_told() {
    let port = free_port();
    let child = Process::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--requirepass", "s3cret"])
        .stdout(Stdio::null())
        .spawn()
        .expect("this test needs redis-server (Debian package redis-server)");
    let _server = Server {
        port,
        child: Some(child),
    };
    let file = scratch("password").join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let with_file = || {
        let mut options = options(port);
        options
            .set
            .push(format!("registry.redis.password_file={}", file.display()));
        options
    };
    let engine = Engine::start(with_file());
    until(|| engine.get("/readyz").1.to_lowercase().contains("password"));
    engine.publish("live/cam1");
    engine.stop();
    std::fs::write(&file, "s3cret\n").unwrap();
    let engine = Engine::start(with_file());
    until(|| ready(&engine));
    engine.stop();
    let _ = std::fs::remove_file(&file);
}

#[test]
fn of_two_engines_with_one_caller_one_calls_and_the_other_takes_over() {
    let server = Server::start();
    let config = "[[srt.callers]]\nid = \"remote/a\"\nurl = \"srt://192.0.2.1:9000?passphrase=0123456789ab\"\n\
                  backoff = { initial = \"100ms\", max = \"200ms\" }\n";
    let set: Vec<String> = server.options().set;
    let start = |instance: &str| {
        let mut set = set.clone();
        set.push(format!("instance={instance}"));
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        Engine::with_config(config, &set)
    };
    let mut subscriber = server.connection();
    subscriber
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut pubsub = subscriber.as_pubsub();
    pubsub.subscribe("mirror:events").unwrap();
    let first = start("one");
    let call = first.call();
    let event: String = pubsub.get_message().unwrap().get_payload().unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["type"], "stream.created");
    let second = start("two");
    let caller = |engine: &Engine| engine.json("/api/v1/callers")["callers"][0].clone();
    until(|| caller(&second)["last_error"] == "held by instance one");
    first.call_answered(&call, false);
    until(|| record(&mut c_of(&server), "remote/a").is_some_and(|r| r["instance"] == "one"));
    // It goes on asking at the pace of failures, and no breaker opens for that.
    until(|| caller(&second)["failures"].as_u64().unwrap() > 6);
    assert_eq!(caller(&second)["breaker"], "closed");
    assert_eq!(
        second.json("/api/v1/streams/remote%2Fa")["status"],
        "pending"
    );
    assert!(second.silent(Duration::from_millis(1)), "it has not called");
    let mut c = server.connection();
    let found = record(&mut c, "remote/a").unwrap();
    assert_eq!(
        (&found["instance"], &found["mode"]),
        (&"one".into(), &"caller".into())
    );
    assert!(!found.to_string().contains("0123456789ab"));
    // The operator stops the first one: its claim is free when its stream has ended.
    assert_eq!(first.delete("/api/v1/streams/remote%2Fa"), 202);
    first.end("remote/a", EndReason::Operator, Status::Terminated);
    let taken = second.call();
    second.call_answered(&taken, false);
    until(|| record(&mut c_of(&server), "remote/a").is_some_and(|r| r["instance"] == "two"));
    assert_eq!(caller(&first)["state"], "idle");
    first.stop();
    second.stop();
}

#[test]
fn caller_whose_stream_is_over_keeps_no_claim_when_its_call_fails() {
    let server = Server::start();
    let config = "[[srt.callers]]\nid = \"remote/a\"\nurl = \"srt://192.0.2.1:9000\"\n\
                  backoff = { initial = \"1m\", max = \"1m\" }\n";
    let mut set: Vec<String> = server.options().set;
    set.push("max_streams=1".to_owned());
    set.push("stream.block_for=3s".to_owned());
    set.push("registry.terminated_ttl=1m".to_owned());
    // A claim that is kept would be seen for longer than this test waits.
    set.push("registry.ttl=2m".to_owned());
    set.push("registry.heartbeat_timeout=1m".to_owned());
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let engine = Engine::with_config(config, &set);
    let call = engine.call();
    // The one place is another stream's from now on.
    let other = request("other").stream_id;
    engine.directory.release(&call.stream_id, ShardId(0));
    engine.directory.confirm(&other, ShardId(1));
    engine.call_failed(&call, CallFailure::Timeout);
    let caller = || engine.json("/api/v1/callers")["callers"][0].clone();
    until(|| caller()["state"] == "backoff");
    assert_eq!(engine.delete("/api/v1/streams/remote%2Fa"), 202);
    until(|| caller()["stopped_by_operator"] == true);
    until(|| caller()["failures"] == 2);
    assert_eq!(caller()["last_error"], "max_streams reached");
    assert_eq!(
        engine.json("/api/v1/streams/remote%2Fa")["status"],
        "terminated"
    );
    let mut c = server.connection();
    until(|| {
        !c_of(&server)
            .exists::<_, bool>("mirror:claim:remote/a")
            .unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(!c.exists::<_, bool>("mirror:claim:remote/a").unwrap());
    engine.stop();
}
