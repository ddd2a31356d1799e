//! Callers through the control thread, with a fake shard.

use std::time::Duration;

use mirror_base::{Instant, PacketSequenceNumber, ShardId, SlotRing};
use mirror_srt::{
    CallerSecurity, Cipher, CipherPolicy, Connection, KeyLength, KeyQuestion, Passphrase,
    RejectionCode,
};
use mirror_stream::report::{
    CallFailure, Command, EndReason, Event, Reservation, Status, StreamDirectory,
};
use serde_json::Value;

use crate::testing::{Engine, request, stream};

const FAST: &str = "backoff = { initial = \"100ms\", max = \"200ms\" }\ncircuit_breaker = { failures = 3, reset_after = \"300ms\" }\n";

fn config(more: &str) -> String {
    format!(
        "[[srt.callers]]\nid = \"remote/a\"\nurl = \"srt://192.0.2.1:9000?streamid=%23!::r=x&latency=250\"\n\
         tags = [\"far\"]\n{FAST}{more}"
    )
}

fn caller(engine: &Engine) -> Value {
    let all = engine.json("/api/v1/callers");
    assert_eq!(all["count"], 1);
    all["callers"][0].clone()
}

fn record(engine: &Engine) -> Value {
    engine.json("/api/v1/streams/remote%2Fa")
}

#[test]
fn configured_stream_is_called_and_shown() {
    let engine = Engine::with_config(&config(""), &[]);
    let call = engine.call();
    assert_eq!(call.stream_id.as_str(), "remote/a");
    assert_eq!(call.peer, "192.0.2.1:9000".parse().unwrap());
    assert_eq!(call.srt_stream_id, "#!::r=x");
    assert_eq!(call.latency, Some(Duration::from_millis(250)));
    assert!(call.security.is_none());
    engine.until(|| caller(&engine)["state"] == "calling");
    let before = record(&engine);
    assert_eq!(before["status"], "connecting");
    assert_eq!(before["mode"], "caller");
    assert_eq!(before["started_at"], Value::Null);
    assert_eq!(before["config"]["backoff"]["initial"], "100ms");
    engine.call_answered(&call, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    let mut seen = stream("remote/a");
    seen.mode = mirror_stream::report::Mode::Caller;
    seen.encryption = "aes-ctr-256";
    engine.snapshot(0, vec![seen]);
    engine.until(|| record(&engine)["status"] == "active");
    let record = record(&engine);
    assert_eq!(record["mode"], "caller");
    assert_eq!(record["encryption"], "aes-ctr-256");
    assert_eq!(record["tags"], serde_json::json!(["far"]));
    assert_eq!(
        record["config"]["url"],
        "srt://192.0.2.1:9000?streamid=%23!::r=x&latency=250"
    );
    assert!(record["started_at"].is_string());
    let metrics = engine.get("/metrics").1;
    for line in [
        "srt_caller_state{stream_id=\"remote/a\",state=\"connected\"} 1",
        "srt_caller_connections_total{stream_id=\"remote/a\"} 1",
        "srt_caller_breaker_open{stream_id=\"remote/a\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    engine.stop();
}

#[test]
fn failures_open_the_breaker_and_a_probe_is_made() {
    let engine = Engine::with_config(&config(""), &[]);
    for i in 0..3 {
        let call = engine.call();
        let failure = if i == 0 {
            CallFailure::Timeout
        } else {
            CallFailure::Rejected(1403)
        };
        engine.call_failed(&call, failure);
        let n = i + 1;
        engine.until(|| caller(&engine)["failures"] == n);
    }
    // The probe comes by itself, after reset_after.
    let probe = engine.call();
    engine.until(|| caller(&engine)["state"] == "calling");
    let shown = caller(&engine);
    assert_eq!(shown["breaker"], "half_open");
    assert_eq!(
        shown["last_error"],
        "192.0.2.1:9000: rejected with FORBIDDEN (1403)"
    );
    engine.call_failed(&probe, CallFailure::Timeout);
    engine.until(|| caller(&engine)["breaker"] == "open");
    let shown = caller(&engine);
    assert!(shown["next_attempt_at"].is_string() && shown["last_error_at"].is_string());
    let record = record(&engine);
    assert_eq!(record["status"], "error");
    assert_eq!(record["state"]["health"], "critical");
    assert_eq!(
        record["state"]["last_error"],
        "no answer from 192.0.2.1:9000"
    );
    assert_eq!(record["shard"], Value::Null);
    engine.stop();
}

#[test]
fn stream_in_its_grace_period_is_called_back_on_its_shard() {
    let engine = Engine::with_config(&config(""), &[]);
    let call = engine.call();
    engine.call_answered(&call, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    engine.end("remote/a", EndReason::PeerClosed, Status::Reconnecting);
    let again = engine.call();
    assert!(again.ticket != call.ticket);
    engine.until(|| record(&engine)["status"] == "reconnecting");
    assert_eq!(engine.directory.shard_of(&call.stream_id), Some(ShardId(0)));
    // The call fails while the stream waits: its place and its record stay.
    engine.call_failed(&again, CallFailure::Timeout);
    engine.until(|| caller(&engine)["failures"] == 2);
    assert_eq!(record(&engine)["status"], "reconnecting");
    assert_eq!(engine.directory.shard_of(&call.stream_id), Some(ShardId(0)));
    let third = engine.call();
    engine.call_answered(&third, true);
    engine.until(|| caller(&engine)["state"] == "connected");
    assert_eq!(caller(&engine)["connections"], 2);
    engine.stop();
}

#[test]
fn stream_that_ended_is_called_anew() {
    let engine = Engine::with_config(&config(""), &[]);
    let call = engine.call();
    engine.call_answered(&call, false);
    engine.end("remote/a", EndReason::PeerClosed, Status::Reconnecting);
    let second = engine.call();
    engine.directory.release(&call.stream_id, ShardId(0));
    engine.end("remote/a", EndReason::PeerClosed, Status::Terminated);
    engine.call_failed(&second, CallFailure::Timeout);
    engine.until(|| record(&engine)["status"] == "terminated");
    let third = engine.call();
    engine.until(|| record(&engine)["status"] == "connecting");
    engine.call_answered(&third, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    engine.stop();
}

#[test]
fn deleted_stream_is_not_called_for_block_for() {
    let engine = Engine::with_config(&config(""), &["stream.block_for=1500ms"]);
    let call = engine.call();
    engine.call_answered(&call, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    let began = std::time::Instant::now();
    assert_eq!(engine.delete("/api/v1/streams/remote%2Fa"), 202);
    engine.command(|c| matches!(c, Command::Terminate { .. }));
    engine.directory.release(&call.stream_id, ShardId(0));
    engine.end("remote/a", EndReason::Operator, Status::Terminated);
    engine.until(|| caller(&engine)["stopped_by_operator"] == true);
    assert_eq!(caller(&engine)["state"], "idle");
    engine.call();
    assert!(began.elapsed() >= Duration::from_millis(1400));
    engine.stop();
}

#[test]
fn deleted_stream_that_waits_for_its_next_call_is_not_called() {
    let slow = config("").replace("100ms", "30s").replace("200ms", "30s");
    let engine = Engine::with_config(&slow, &["stream.block_for=1h"]);
    let call = engine.call();
    engine.call_failed(&call, CallFailure::Timeout);
    engine.until(|| caller(&engine)["state"] == "backoff");
    assert_eq!(record(&engine)["status"], "pending");
    assert_eq!(engine.delete("/api/v1/streams/remote%2Fa"), 202);
    engine.until(|| caller(&engine)["stopped_by_operator"] == true);
    assert_eq!(record(&engine)["status"], "terminated");
    // While the shard calls, it is told to stop.
    let engine2 = Engine::with_config(&config(""), &["stream.block_for=1h"]);
    let call = engine2.call();
    assert_eq!(engine2.delete("/api/v1/streams/remote%2Fa"), 202);
    engine2.command(|c| matches!(c, Command::Terminate { .. }));
    engine2.call_failed(&call, CallFailure::Cancelled);
    engine2.until(|| caller(&engine2)["stopped_by_operator"] == true);
    assert_eq!(engine2.directory.shard_of(&call.stream_id), None);
    engine.stop();
    engine2.stop();
}

#[test]
fn deleted_stream_is_ended_and_called_again_though_nothing_blocks_it() {
    let slow = config("").replace("100ms", "30s").replace("200ms", "30s");
    let engine = Engine::with_config(&slow, &["stream.block_for=0s"]);
    let call = engine.call();
    engine.call_failed(&call, CallFailure::Timeout);
    engine.until(|| caller(&engine)["state"] == "backoff");
    assert_eq!(engine.delete("/api/v1/streams/remote%2Fa"), 202);
    engine.call();
    engine.until(|| record(&engine)["status"] == "connecting");
    engine.stop();
}

#[test]
fn id_of_a_caller_is_nobody_elses() {
    let engine = Engine::with_config(&config(""), &[]);
    engine.call();
    assert_eq!(engine.authorise(request("remote/a")), Err(1409));
    assert_eq!(engine.authorise(request("remote/b")), Ok(()));
    engine.stop();
}

#[test]
fn caller_waits_for_room() {
    let engine = Engine::with_config(&config(""), &["max_streams=1"]);
    // The fake shard's call is the one stream; another one finds no room.
    let call = engine.call();
    let other = request("other").stream_id;
    let reserved = engine.directory.reserve(crate::now(), &other, ShardId(1));
    assert_eq!(reserved, Reservation::Full);
    engine.directory.release(&call.stream_id, ShardId(0));
    engine.directory.confirm(&other, ShardId(1));
    engine.call_failed(&call, CallFailure::NoRoom);
    engine.until(|| caller(&engine)["last_error"] == "max_streams reached");
    // However often: that is not the peer's fault.
    engine.until(|| caller(&engine)["failures"].as_u64().unwrap() > 4);
    assert_eq!(caller(&engine)["breaker"], "closed");
    engine.directory.release(&other, ShardId(1));
    engine.call();
    engine.stop();
}

#[test]
fn drain_ends_all_calling() {
    let engine = Engine::with_config(&config(""), &[]);
    let call = engine.call();
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| engine.handle().drain(Duration::from_secs(5)));
        engine.command(|c| matches!(c, Command::Drain { .. }));
        engine.command(|c| matches!(c, Command::Drain { .. }));
        engine.call_failed(&call, CallFailure::Cancelled);
        assert!(
            engine.silent(Duration::from_millis(400)),
            "no call any more"
        );
        for shard in [0, 1] {
            engine.send(mirror_stream::report::Event::Stopped {
                shard: ShardId(shard),
                error: None,
            });
        }
        engine.until(|| caller(&engine)["state"] == "idle");
        assert_eq!(caller(&engine)["next_attempt_at"], Value::Null);
        assert_eq!(drain.join().unwrap().len(), 2);
    });
    engine.stop();
}

#[test]
fn host_name_is_looked_up_and_keys_are_derived() {
    let text = format!(
        "[[srt.callers]]\nid = \"remote/a\"\nurl = \"srt://localhost:9000?passphrase=0123456789ab\"\n{FAST}"
    );
    let engine = Engine::with_config(&text, &[]);
    let call = engine.call();
    assert!(call.peer.ip().is_loopback() && call.peer.port() == 9000);
    assert!(call.security.is_some());
    let shown = caller(&engine);
    assert_eq!(shown["encrypted"], true);
    assert_eq!(shown["url"], "srt://localhost:9000?passphrase=***");
    for path in [
        "/api/v1/callers",
        "/api/v1/config",
        "/api/v1/streams",
        "/metrics",
    ] {
        assert!(!engine.get(path).1.contains("0123456789ab"), "{path}");
    }
    engine.until(|| engine.get("/metrics").1.contains("keys_derived_total 1"));
    engine.stop();
}

#[test]
fn pending_record_is_there_before_the_first_call_is_answered() {
    let engine = Engine::with_config(&config(""), &[]);
    // Whatever the moment: there is a record from the beginning.
    let first = record(&engine);
    assert_eq!(first["mode"], "caller");
    assert_eq!(engine.json("/api/v1/streams")["total"], 1);
    let call = engine.call();
    // Snapshots of the shard do not have it yet, and do not end it.
    for _ in 0..5 {
        engine.snapshot(0, Vec::new());
    }
    engine.call_answered(&call, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    assert_ne!(record(&engine)["status"], "terminated");
    engine.stop();
}

const MEETING: &str = "[[srt.callers]]\nid = \"remote/a\"\npassphrase = \"rendezvous-key-1\"\n\
    url = \"srt://192.0.2.1:9000?mode=rendezvous&localport=9100&adapter=192.0.2.9\"\n";

#[test]
fn rendezvous_is_ordered_from_its_port_and_shown() {
    let engine = Engine::with_config(&format!("{MEETING}{FAST}"), &[]);
    let call = engine.call();
    let local = "192.0.2.9:9100".parse().unwrap();
    assert_eq!(call.rendezvous, Some(local));
    assert_eq!(call.peer, "192.0.2.1:9000".parse().unwrap());
    assert!(call.security.is_some());
    engine.until(|| caller(&engine)["state"] == "calling");
    let shown = caller(&engine);
    assert_eq!(shown["mode"], "rendezvous");
    assert_eq!(shown["local"], "192.0.2.9:9100");
    engine.call_failed(&call, CallFailure::Unconcluded);
    engine.until(|| caller(&engine)["failures"] == 1);
    let why = caller(&engine)["last_error"].to_string();
    assert!(
        why.contains("192.0.2.1:9000 greets") && why.contains("passphrase"),
        "{why}"
    );
    let config = record(&engine)["config"].to_string();
    assert!(!config.contains("rendezvous-key-1"));
    engine.stop();
}

#[test]
fn record_of_a_rendezvous_that_goes_on_begins_anew_when_the_grace_period_ends() {
    let engine = Engine::with_config(&format!("{MEETING}{FAST}"), &[]);
    let call = engine.call();
    engine.call_answered(&call, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    engine.end("remote/a", EndReason::PeerClosed, Status::Reconnecting);
    let second = engine.call();
    engine.until(|| caller(&engine)["state"] == "calling");
    assert_eq!(record(&engine)["status"], "reconnecting");
    engine.directory.release(&call.stream_id, ShardId(0));
    engine.end("remote/a", EndReason::PeerClosed, Status::Terminated);
    engine.until(|| record(&engine)["status"] == "connecting");
    assert_eq!(record(&engine)["ended_at"], Value::Null);
    engine.call_answered(&second, false);
    engine.until(|| caller(&engine)["state"] == "connected");
    engine.stop();
}

#[test]
fn port_that_cannot_be_had_is_told_and_does_not_speak_against_the_peer() {
    let engine = Engine::with_config(&format!("{MEETING}{FAST}"), &[]);
    for n in 1..=4 {
        let call = engine.call();
        let why = "192.0.2.9:9100 is in use by another process";
        engine.call_failed_as(&call, CallFailure::NoPort, Some(why));
        engine.until(|| caller(&engine)["failures"] == n);
    }
    let shown = caller(&engine);
    assert_eq!(shown["breaker"], "closed", "three failures would open it");
    assert_eq!(
        shown["last_error"],
        "no port for the rendezvous: 192.0.2.9:9100 is in use by another process"
    );
    engine.stop();
}

#[test]
fn keys_that_the_peer_asks_for_are_decided_by_the_callers_passphrase() {
    let engine = Engine::with_config(&format!("{MEETING}{FAST}"), &[]);
    let call = engine.call();
    let material = |passphrase: &str| {
        let passphrase = Passphrase::new(passphrase).unwrap();
        let keys = CallerSecurity::new(&passphrase, None, CipherPolicy::Auto, true, [3; 32]);
        key_request(keys)
    };
    let mut decided = Vec::new();
    for (number, key_material) in [
        (1, Some(material("rendezvous-key-1"))),
        (2, Some(material("rendezvous-key-2"))),
        (3, None),
        (4, Some(vec![1; 8])),
    ] {
        engine.send(Event::CallKeys {
            shard: ShardId(1),
            stream_id: call.stream_id.clone(),
            ticket: call.ticket,
            question: KeyQuestion {
                number,
                key_material,
                peer_version: 0x0001_0501,
            },
        });
        match engine.command(|c| matches!(c, Command::CallKeys { .. })) {
            Command::CallKeys {
                stream_id,
                ticket,
                number: answered,
                decision,
            } => {
                assert_eq!((&stream_id, ticket), (&call.stream_id, call.ticket));
                assert_eq!(answered, number);
                decided.push(decision.map(|keys| keys.agreed()));
            }
            other => panic!("{other:?}"),
        }
    }
    let aes = Some((Cipher::Ctr, KeyLength::Aes128));
    let code = |code: RejectionCode| Err(code.0);
    let expected = [
        Ok(aes),
        code(RejectionCode::BADSECRET),
        code(RejectionCode::UNSECURE),
        code(RejectionCode::ROGUE),
    ];
    assert_eq!(decided, expected);
    // Of a call that is no more nothing is decided.
    engine.call_failed(&call, CallFailure::Timeout);
    engine.until(|| caller(&engine)["failures"] == 1);
    engine.stop();
}

/// The KMREQ of an end of a rendezvous that asks.
fn key_request(keys: CallerSecurity) -> Vec<u8> {
    let peer = "192.0.2.1:9000".parse().unwrap();
    let (now, config) = (Instant::from_millis(1000), mirror_srt::Config::default());
    let first = PacketSequenceNumber::new(1);
    // Its cookie wins against the other's, whose greeting it hears.
    let mut ring = SlotRing::new();
    let mut other = Connection::rendezvous(now, peer, 7, first, 1, "", &config, 0, None);
    let mut asks = Connection::rendezvous(now, peer, 8, first, 2, "", &config, 0, Some(keys));
    let mut out = [0; 1500];
    let len = other.poll_transmit(now, &mut out).unwrap();
    asks.handle_datagram(now, now, &out[..len], &mut ring)
        .unwrap();
    let len = asks.poll_transmit(now, &mut out).unwrap();
    // Behind header, handshake and HSREQ stands the block.
    let blocks = &out[16 + 48 + 16..len];
    assert_eq!(blocks[..2], [0, 3]);
    blocks[4..].to_vec()
}
