//! Who may publish, as the control thread decides it.

use mirror_base::ShardId;
use mirror_stream::report::{Command, EndReason, Event, Protocol, Status};

use crate::testing::{Engine, Options, request, scratch, stream, until};

fn with_rules(text: &str, set: &[&str]) -> Engine {
    let file = scratch("rules").join(format!("{}.toml", set.len()));
    std::fs::write(&file, text).unwrap();
    let set = set.iter().map(|s| (*s).to_owned()).collect();
    Engine::start(Options {
        set,
        file: Some(file),
        ..Options::default()
    })
}

#[test]
fn publisher_rules_admit_tag_and_refuse() {
    let engine = with_rules(
        "[[publishers]]\nid = \"live/*\"\nsources = [\"192.0.2.0/24\"]\ntags = [\"studio\"]\n",
        &[],
    );
    engine.publish("live/cam1");
    assert_eq!(engine.authorise(request("vod/cam1")), Err(1403));
    let mut elsewhere = request("live/cam2");
    elsewhere.peer = "198.51.100.1:9".parse().unwrap();
    assert_eq!(engine.authorise(elsewhere), Err(1403));
    until(|| {
        engine
            .get("/api/v1/streams?tag=studio")
            .1
            .contains("live/cam1")
    });
    engine.stop();
}

#[test]
fn rtp_source_that_no_rule_admits_is_ended_and_blocked() {
    let engine = with_rules(
        "[[publishers]]\nid = \"live/*\"\n",
        &["stream.block_for=1m"],
    );
    let mut rtp = request("rtp_00000001");
    rtp.protocol = Protocol::Rtp;
    let stream_id = rtp.stream_id.clone();
    engine.send(Event::Started {
        shard: ShardId(1),
        stream_id: stream_id.clone(),
        request: rtp,
        resumed: false,
    });
    match engine.command(|c| matches!(c, Command::Terminate { .. })) {
        Command::Terminate {
            stream_id: ended,
            reason,
        } => {
            assert_eq!((ended, reason), (stream_id.clone(), EndReason::Refused));
        }
        other => panic!("{other:?}"),
    }
    assert!(engine.directory.is_blocked(crate::now(), &stream_id));
    // Neither a snapshot taken meanwhile nor its end makes a record of it.
    let mut seen = stream("rtp_00000001");
    seen.protocol = Protocol::Rtp;
    engine.snapshot(1, vec![seen]);
    engine.end("rtp_00000001", EndReason::Refused, Status::Terminated);
    engine.publish("live/other");
    until(|| engine.get("/api/v1/streams/live%2Fother").0 == 200);
    assert_eq!(engine.get("/api/v1/streams/rtp_00000001").0, 404);
    engine.stop();
}

#[test]
fn limits_of_the_engine_and_of_one_source_are_1402() {
    let engine = Engine::start(Options {
        max_streams: 2,
        ..Options::default()
    });
    engine.publish("a");
    engine.publish("b");
    assert_eq!(engine.authorise(request("c")), Err(1402));
    assert_eq!(
        engine.authorise(request("a")),
        Ok(()),
        "the shard judges a second publisher"
    );
    engine.end("a", EndReason::PeerClosed, Status::Reconnecting);
    assert_eq!(
        engine.authorise(request("c")),
        Err(1402),
        "a stream in its grace period counts"
    );
    engine.end("a", EndReason::IdleTimeout, Status::Terminated);
    assert_eq!(engine.authorise(request("c")), Ok(()));
    engine.stop();

    let set = vec!["registry.max_streams_per_source=1".to_owned()];
    let engine = Engine::start(Options {
        set,
        ..Options::default()
    });
    engine.publish("a");
    assert_eq!(engine.authorise(request("b")), Err(1402));
    let mut elsewhere = request("b");
    elsewhere.peer = "198.51.100.1:9".parse().unwrap();
    assert_eq!(engine.authorise(elsewhere), Ok(()));
    engine.stop();
}

#[test]
fn limit_of_one_source_holds_in_a_burst() {
    let engine = Engine::start(Options {
        set: vec!["registry.max_streams_per_source=2".to_owned()],
        ..Options::default()
    });
    // All are asked for before the first has started.
    let answers: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|id| engine.authorise(request(id)))
        .collect();
    assert_eq!(answers, [Ok(()), Ok(()), Err(1402), Err(1402)]);
    assert_eq!(engine.authorise(request("a")), Ok(()), "a repeat");
    engine.publish("a");
    engine.publish("b");
    assert_eq!(engine.authorise(request("c")), Err(1402));
    engine.end("a", EndReason::PeerClosed, Status::Terminated);
    assert_eq!(engine.authorise(request("c")), Ok(()));
    engine.stop();
}

#[test]
fn stream_live_on_another_shard_is_a_conflict() {
    let engine = Engine::start(Options::default());
    engine.snapshot(1, vec![stream("a")]);
    until(|| engine.get("/api/v1/streams/a").0 == 200);
    assert_eq!(engine.authorise(request("a")), Err(1409));
    engine.stop();
}

#[test]
fn word_of_a_shard_that_does_not_have_the_stream_changes_nothing() {
    let engine = Engine::start(Options::default());
    engine.publish("a");
    engine.send(Event::Changed {
        shard: ShardId(1),
        stream_id: request("a").stream_id,
        status: Status::Paused,
    });
    engine.send(Event::Ended {
        shard: ShardId(1),
        stream_id: request("a").stream_id,
        reason: EndReason::PeerClosed,
        status: Status::Terminated,
        last: Box::new(stream("a")),
    });
    engine.publish("b");
    until(|| engine.get("/api/v1/streams/b").0 == 200);
    let (_, body) = engine.get("/api/v1/streams/a");
    assert!(body.contains("\"status\":\"connecting\""), "{body}");
    engine.stop();
}

#[test]
fn drain_refuses_newcomers_and_returns_when_all_shards_have_ended() {
    let engine = Engine::start(Options::default());
    engine.publish("a");
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| engine.handle().drain(std::time::Duration::from_secs(5)));
        engine.command(|c| matches!(c, Command::Drain { .. }));
        until(|| engine.get("/readyz").1.contains("draining"));
        assert_eq!(engine.authorise(request("b")), Err(1503));
        for shard in [0, 1] {
            engine.send(Event::Stopped {
                shard: ShardId(shard),
                error: None,
            });
        }
        assert_eq!(drain.join().unwrap().len(), 2);
    });
    assert!(began.elapsed() < std::time::Duration::from_secs(4));
    engine.stop();
}

#[test]
fn many_ended_streams_are_bounded_and_still_counted() {
    let engine = Engine::start(Options {
        set: vec!["registry.terminated_ttl=1h".to_owned()],
        ..Options::default()
    });
    for i in 0..1500 {
        engine.end(&format!("s{i}"), EndReason::PeerClosed, Status::Terminated);
    }
    until(|| {
        let body: serde_json::Value = serde_json::from_str(&engine.get("/api/v1/stats").1).unwrap();
        body["total_streams"] == 1000 && body["packets_received"] == 1_500_000
    });
    engine.stop();
}
