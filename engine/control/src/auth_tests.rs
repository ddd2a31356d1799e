//! Who is let in with which passphrase, through the control thread with a fake shard and real
//! keys (spec section 8, "encryption outcomes").

use std::time::Duration;

use mirror_base::ShardId;
use mirror_stream::report::{Command, Event, PublishRequest, StreamDirectory};

use crate::testing::{Engine, key_material, request};

const OURS: &str = "correct horse battery";

fn encrypted(id: &str, passphrase: &str) -> PublishRequest {
    PublishRequest {
        key_material: Some(key_material(passphrase)),
        ..request(id)
    }
}

fn engine(passphrase: bool, more: &str) -> Engine {
    let line = format!("passphrase = \"{OURS}\"\n");
    let line = if passphrase { line.as_str() } else { "" };
    Engine::with_config(&format!("[srt.encryption]\n{line}{more}"), &[])
}

#[test]
fn encryption_outcomes_are_those_of_the_table() {
    for (ours, theirs, enforced, lenient) in [
        (false, None, Ok(()), Ok(())),
        (true, Some(OURS), Ok(()), Ok(())),
        (true, Some("another passphrase"), Err(10), Ok(())),
        (true, None, Err(11), Ok(())),
        (false, Some(OURS), Err(11), Ok(())),
    ] {
        for (require, expected) in [(true, enforced), (false, lenient)] {
            let engine = engine(ours, &format!("require = {require}\n"));
            let asked = match theirs {
                Some(passphrase) => encrypted("a", passphrase),
                None => request("a"),
            };
            assert_eq!(
                engine.authorise(asked),
                expected,
                "ours {ours}, theirs {theirs:?}, require {require}"
            );
            engine.stop();
        }
    }
}

#[test]
fn refusals_are_counted_by_reason_and_shown_without_secrets() {
    let engine = engine(true, "cipher = \"gcm\"\n");
    assert_eq!(engine.authorise(encrypted("a", OURS)), Err(17));
    assert_eq!(engine.authorise(request("a")), Err(11));
    let mut malformed = request("a");
    malformed.key_material = Some(vec![0; 10]);
    assert_eq!(engine.authorise(malformed), Err(4));
    engine.stop();
    let engine = self::engine(true, "");
    assert_eq!(
        engine.authorise(encrypted("a", "wrong wrong wrong")),
        Err(10)
    );
    let text = engine.get("/metrics").1;
    for line in [
        "publishers_refused_total{reason=\"bad_secret\"} 1",
        "publishers_refused_total{reason=\"unsecure\"} 0",
        "keys_derived_total 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    engine.stop();
}

#[test]
fn each_publisher_has_its_own_passphrase() {
    let text = format!(
        "[srt.encryption]\npassphrase = \"{OURS}\"\n\
         [[publishers]]\nid = \"live/*\"\npassphrase = \"the one for live\"\n\
         [[publishers]]\nid = \"*\"\n"
    );
    let engine = Engine::with_config(&text, &[]);
    assert_eq!(
        engine.authorise(encrypted("live/a", "the one for live")),
        Ok(())
    );
    assert_eq!(engine.authorise(encrypted("live/b", OURS)), Err(10));
    assert_eq!(engine.authorise(encrypted("vod/a", OURS)), Ok(()));
    assert_eq!(
        engine.authorise(encrypted("vod/b", "the one for live")),
        Err(10)
    );
    engine.stop();
}

#[test]
fn clear_publishers_do_not_wait_for_the_worker() {
    let engine = engine(false, "");
    assert_eq!(engine.authorise(request("a")), Ok(()));
    assert!(engine.get("/metrics").1.contains("keys_derived_total 0"));
    engine.stop();
}

#[test]
fn storm_of_wrong_passphrases_leaves_honest_publishers_their_turn() {
    let engine = engine(true, "");
    let wrong = encrypted("storm", "wrong wrong wrong");
    // From a hundred addresses, each with as many handshakes as its queue takes and more.
    for round in 0..40_u64 {
        for source in 0..100_u8 {
            let mut request = wrong.clone();
            request.peer = ([198, 51, 100, source], 4000 + round as u16).into();
            engine.send(Event::Authorise {
                shard: ShardId(1),
                ticket: 1_000_000 + round * 100 + u64::from(source),
                request,
            });
        }
    }
    let began = std::time::Instant::now();
    let honest = encrypted("honest", OURS);
    assert_eq!(engine.authorise(honest), Ok(()));
    assert!(began.elapsed() < Duration::from_millis(2000));
    let metric = |name: &str| -> f64 {
        let text = engine.get("/metrics").1;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|n| n.parse().ok()).unwrap_or(0.0)
    };
    // What could not wait was refused, and the time spent is within its share.
    assert!(
        engine
            .get("/metrics")
            .1
            .contains("publishers_refused_total{reason=\"overload\"} 3")
    );
    let spent = metric("keys_cpu_seconds_total");
    let allowed = 0.25 + 0.25 * began.elapsed().as_secs_f64() + 0.05;
    assert!(spent <= allowed, "{spent} s of {allowed} s");
    engine.stop();
}

#[test]
fn wrong_passphrase_takes_no_claim_and_no_place() {
    let set = [
        "registry.max_streams_per_source=1",
        "srt.encryption.passphrase=correct horse battery",
    ];
    let engine = Engine::with_config("", &set);
    let operations = || {
        let text = engine.get("/metrics").1;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("registry_operations_total "));
        line.and_then(|n| n.parse::<u64>().ok()).unwrap()
    };
    let before = operations();
    assert_eq!(
        engine.authorise(encrypted("a", "wrong wrong wrong")),
        Err(10)
    );
    std::thread::sleep(Duration::from_millis(600)); // metrics are cached for half a second
    assert_eq!(operations(), before);
    assert_eq!(
        engine.authorise(encrypted("b", OURS)),
        Ok(()),
        "the first one does not count for max_streams_per_source"
    );
    assert_eq!(engine.authorise(encrypted("c", OURS)), Err(1402));
    engine.stop();
}

#[test]
fn publisher_that_waits_for_its_keys_meets_a_drain() {
    let engine = engine(true, "");
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| engine.handle().drain(Duration::from_secs(5)));
        engine.command(|c| matches!(c, Command::Drain { .. }));
        assert_eq!(engine.authorise(encrypted("a", OURS)), Err(1503));
        for shard in [0, 1] {
            engine.send(Event::Stopped {
                shard: ShardId(shard),
                error: None,
            });
        }
        drain.join().unwrap();
    });
    engine.stop();
}

#[test]
fn publisher_may_go_on_from_where_it_would_be_let_in_with_the_same_passphrase() {
    let text = format!(
        "[srt.encryption]\npassphrase = \"{OURS}\"\n\
         [[publishers]]\nid = \"live/*\"\nsources = [\"10.0.0.0/8\"]\n\
         [[publishers]]\nid = \"live/*\"\nsources = [\"192.0.2.0/24\"]\n\
         passphrase = \"the one for live\"\n\
         [[publishers]]\nid = \"*\"\nsources = [\"198.51.100.0/24\"]\n"
    );
    let engine = Engine::with_config(&text, &[]);
    let may_move = |id: &str, from: &str, to: &str| {
        let id = mirror_base::StreamId::new(id).unwrap();
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        engine.directory.may_move(&id, from, to)
    };
    for (id, from, to, expected) in [
        ("live/a", "10.1.1.1", "10.2.2.2", true),
        ("live/a", "10.1.1.1", "::ffff:10.2.2.2", true),
        ("live/a", "10.1.1.1", "198.51.100.7", true),
        ("live/a", "10.1.1.1", "192.0.2.7", false),
        ("live/a", "192.0.2.7", "10.1.1.1", false),
        ("live/a", "192.0.2.7", "192.0.2.8", true),
        ("live/a", "10.1.1.1", "203.0.113.9", false),
        ("vod/a", "198.51.100.7", "10.1.1.1", false),
    ] {
        assert_eq!(may_move(id, from, to), expected, "{id} {from} {to}");
    }
    engine.stop();
    let engine = self::engine(true, "");
    let id = mirror_base::StreamId::new("a").unwrap();
    let (from, to) = ([10, 1, 1, 1].into(), [203, 0, 113, 9].into());
    assert!(engine.directory.may_move(&id, from, to), "no rules");
    engine.stop();
}
