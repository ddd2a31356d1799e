//! Rendezvous with libsrt's srt-live-transmit and with GStreamer: both call, and the engine
//! receives.

use std::net::UdpSocket;

use mirror_tests::engine::{Engine, Ports};
use mirror_tests::matrix::Peer;
use mirror_tests::matrix::material::Material;
use mirror_tests::matrix::peer::{MEETS_FROM, Role, Running, Secret, Sender};
use mirror_tests::matrix::run::free_port;
use mirror_tests::{Alone, seconds, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const SECRET: &str = "the-right-passphrase";
const WRONG: &str = "another-passphrase";

/// A `[[srt.callers]]` table.
fn caller(id: &str, port: u16, passphrase: Option<&str>) -> String {
    let passphrase = passphrase.map_or(String::new(), |p| format!("passphrase = \"{p}\"\n"));
    format!(
        "[[srt.callers]]\nid = \"{id}\"\n\
         url = \"srt://{MEETS_FROM}:{port}?mode=rendezvous&adapter=127.0.0.1&latency=200\"\n\
         {passphrase}backoff = {{ initial = \"200ms\", max = \"500ms\" }}\n\
         circuit_breaker = {{ failures = 1000, reset_after = \"1s\" }}\n"
    )
}

fn engine(test: &Alone, callers: &str) -> Engine {
    let text = format!(
        "[diagnostics]\npayload_hash = true\n[buffer]\npool_streams = 8\n\
         [stream]\nreconnect_grace = \"30s\"\n[srt]\npeer_idle_timeout = \"3s\"\n{callers}"
    );
    let file = test.write("rendezvous.toml", &text).display().to_string();
    Engine::start_on(test, "engine", Ports::free(), &[], &["--config", &file])
}

fn sender(port: u16, passphrase: Option<&str>, key_bytes: usize) -> Sender {
    sender_of(Peer::SrtLiveTransmit, port, passphrase, key_bytes)
}

fn sender_of(peer: Peer, port: u16, passphrase: Option<&str>, key_bytes: usize) -> Sender {
    Sender {
        peer,
        role: Role::Meets(port),
        stream_id: String::new(),
        latency_ms: 200,
        secret: passphrase.map(|passphrase| Secret {
            passphrase: passphrase.to_owned(),
            key_bytes,
        }),
        refresh: false,
        lenient: false,
    }
}

fn shown(engine: &Engine, id: &str) -> Value {
    let callers = engine.get("/api/v1/callers");
    let list = callers["callers"].as_array().cloned().unwrap_or_default();
    list.into_iter()
        .find(|c| c["id"] == *id)
        .unwrap_or_default()
}

fn payload(engine: &Engine, id: &str) -> Value {
    let stream = engine.stream(id);
    stream.map_or(Value::Null, |s| s["stats"]["payload"].clone())
}

/// Feeds a sender that has met the engine, and holds what came against what was sent.
fn delivers(engine: &Engine, id: &str, sender: &mut Running, material: &Material) {
    wait_for(&format!("{id} is connected"), seconds(20), || {
        sender.is_connected()
    });
    sender.feed(material);
    wait_for(&format!("{id} delivers"), seconds(12), || {
        payload(engine, id)["bytes"].as_u64().unwrap_or(0) > 500_000
    });
    let figures = payload(engine, id);
    assert!(
        material.begins_with(Peer::SrtLiveTransmit, &figures),
        "{id}: {figures} {}",
        sender.process.tail()
    );
}

#[test]
fn clear_and_encrypted_streams_come_byte_for_byte_whoever_begins() {
    let test = Alone::begin("rendezvous");
    let material = Material::prepare(&test, 5);
    let cells = [
        ("clear", Peer::SrtLiveTransmit, None, 16, "none"),
        (
            "aes128",
            Peer::SrtLiveTransmit,
            Some(SECRET),
            16,
            "aes-ctr-128",
        ),
        (
            "aes256",
            Peer::SrtLiveTransmit,
            Some(SECRET),
            32,
            "aes-ctr-256",
        ),
        ("gst-clear", Peer::Gstreamer, None, 16, "none"),
        (
            "gst-aes128",
            Peer::Gstreamer,
            Some(SECRET),
            16,
            "aes-ctr-128",
        ),
    ];
    let mut all = Vec::new();
    let mut config = String::new();
    for engine_first in [false, true] {
        for (name, peer, passphrase, key_bytes, encryption) in cells {
            let id = format!("{name}/{engine_first}");
            let port = free_port();
            config += &caller(&id, port, passphrase);
            let sender = sender_of(peer, port, passphrase, key_bytes);
            all.push((id, engine_first, port, sender, encryption));
        }
    }
    let start = |all: &[(String, bool, u16, Sender, &str)], which: bool| -> Vec<(usize, Running)> {
        let mut started = Vec::new();
        for (at, (id, engine_first, _, sender, _)) in all.iter().enumerate() {
            if *engine_first == which {
                let name = id.replace('/', "-");
                started.push((at, sender.start(test.folder(), &name, &material)));
            }
        }
        started
    };
    let mut running = start(&all, false);
    let engine = engine(&test, &config);
    for (id, engine_first, port, ..) in &all {
        if *engine_first {
            wait_for(&format!("{id} is called"), seconds(10), || {
                shown(&engine, id)["state"] == "calling"
            });
            let shown = shown(&engine, id);
            assert_eq!(shown["mode"], "rendezvous");
            assert_eq!(shown["local"], format!("127.0.0.1:{port}"));
        }
    }
    running.extend(start(&all, true));
    for (at, sender) in &mut running {
        let (id, _, _, _, encryption) = &all[*at];
        delivers(&engine, id, sender, &material);
        let record = engine.stream(id).unwrap_or_default();
        // The initiator's length counts, and ours is 16 unless the peer's greeting says another.
        assert_eq!(record["encryption"], *encryption, "{record:#}");
        assert_eq!(record["mode"], "caller");
        assert_eq!(shown(&engine, id)["state"], "connected");
    }
    assert!(!engine.process.output().contains(SECRET));
}

#[test]
fn another_passphrase_is_told_to_the_operator() {
    let test = Alone::begin("rendezvous-passphrases");
    let material = Material::prepare(&test, 4);
    let port = free_port();
    let engine = engine(&test, &caller("met/wrong", port, Some(SECRET)));
    let _peer = sender(port, Some(WRONG), 16).start(test.folder(), "wrong", &material);
    wait_for("a reason that names the passphrase", seconds(45), || {
        let why = shown(&engine, "met/wrong")["last_error"].to_string();
        why.contains("BADSECRET") || why.contains("passphrase")
    });
    let shown = shown(&engine, "met/wrong");
    assert!(shown["failures"].as_u64() >= Some(1), "{shown:#}");
    assert_eq!(shown["connections"], 0);
    assert_eq!(
        payload(&engine, "met/wrong")["bytes"].as_u64().unwrap_or(0),
        0
    );
}

#[test]
fn a_peer_that_is_killed_and_started_again_is_met_again() {
    let test = Alone::begin("rendezvous-killed");
    let material = Material::prepare(&test, 5);
    let port = free_port();
    let engine = engine(&test, &caller("met/back", port, Some(SECRET)));
    for session in 1..=2u32 {
        let name = format!("back-{session}");
        let mut one = sender(port, Some(SECRET), 16).start(test.folder(), &name, &material);
        delivers(&engine, "met/back", &mut one, &material);
        wait_for("the session is counted", seconds(5), || {
            let record = engine.stream("met/back").unwrap_or_default();
            record["stats"]["sessions"] == session
        });
        one.process.signal(Signal::KILL);
        engine.wait_status("met/back", "reconnecting", seconds(8));
    }
    assert_eq!(shown(&engine, "met/back")["connections"], 2);
}

#[test]
fn a_port_that_is_taken_is_named_and_used_when_it_is_free() {
    let test = Alone::begin("rendezvous-port");
    let material = Material::prepare(&test, 4);
    let port = free_port();
    let taken = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let engine = engine(&test, &caller("met/port", port, None));
    let place = format!("127.0.0.1:{port} is in use");
    wait_for("the reason is shown", seconds(10), || {
        let shown = shown(&engine, "met/port");
        shown["last_error"].to_string().contains(&place) && shown["failures"].as_u64() >= Some(3)
    });
    assert_eq!(shown(&engine, "met/port")["breaker"], "closed");
    drop(taken);
    let mut peer = sender(port, None, 16).start(test.folder(), "port", &material);
    delivers(&engine, "met/port", &mut peer, &material);
    let sockets = engine.get("/api/v1/shards").to_string();
    assert!(sockets.contains("srt_rendezvous"), "{sockets}");
    let deleted = engine.request("DELETE", "/api/v1/streams/met%2Fport");
    assert_eq!(deleted.unwrap().status, 202);
    wait_for("the port is given back", seconds(5), || {
        UdpSocket::bind(("127.0.0.1", port)).is_ok()
    });
}
