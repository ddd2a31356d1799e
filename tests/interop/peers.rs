//! What goes wrong between the engine and the programs that speak SRT through libsrt, each way
//! round: passphrases that do not fit, peers that die and come back, addresses that change.

use mirror_tests::engine::{Engine, Ports, number};
use mirror_tests::matrix::material::Material;
use mirror_tests::matrix::peer::{Role, Running, Secret, Sender};
use mirror_tests::matrix::run::free_port;
use mirror_tests::matrix::{Bench, Cell, Direction, Encryption, Line, Outcome, Peer, table};
use mirror_tests::process::run;
use mirror_tests::{Alone, release_binary, seconds, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const PEERS: [(Peer, &str); 3] = [
    (Peer::SrtLiveTransmit, "slt"),
    (Peer::Ffmpeg, "ffmpeg"),
    (Peer::Gstreamer, "gst"),
];
const RIGHT: Option<&str> = Some("the-right-passphrase");
const WRONG: Option<&str> = Some("another-passphrase");
/// What libsrt says of SRT_REJ_BADSECRET and SRT_REJ_UNSECURE.
const BAD_SECRET: &str = "Incorrect passphrase";
const UNSECURE: &str = "Password required or unexpected";

fn secret(passphrase: Option<&str>) -> Option<Secret> {
    passphrase.map(|passphrase| Secret {
        passphrase: passphrase.to_owned(),
        key_bytes: 16,
    })
}

fn sender(peer: Peer, role: Role, id: &str, passphrase: Option<&str>) -> Sender {
    Sender {
        peer,
        role,
        stream_id: id.to_owned(),
        latency_ms: 120,
        secret: secret(passphrase),
        refresh: false,
        lenient: false,
    }
}

/// An engine with `config`, on ports of its own.
fn engine(test: &Alone, ports: Ports, config: &str) -> Engine {
    let text = format!(
        "max_streams = 40\n[diagnostics]\npayload_hash = true\n[buffer]\npool_streams = 12\n\
         [stream]\nreconnect_grace = \"20s\"\n{config}"
    );
    let file = test.write("engine.toml", &text).display().to_string();
    Engine::start_on(test, "engine", ports, &[], &["--config", &file])
}

fn payload(engine: &Engine, id: &str) -> Value {
    engine
        .stream(id)
        .map_or(Value::Null, |s| s["stats"]["payload"].clone())
}

fn delivered(engine: &Engine, id: &str) -> u64 {
    payload(engine, id)["bytes"].as_u64().unwrap_or(0)
}

fn file_name(id: &str) -> String {
    id.replace('/', "-")
}

/// Feeds a sender once it is connected.
fn feed_connected(sender: &mut Running, material: &Material) {
    wait_for("the sender is connected", seconds(10), || {
        sender.is_connected()
    });
    sender.feed(material);
}

#[test]
fn callers_whose_passphrase_does_not_fit_are_refused_with_the_reason() {
    let test = Alone::begin("passphrases-callers");
    let material = Material::prepare(&test, 4);
    let ports = Ports::free();
    let rules = "[[publishers]]\nid = \"open/*\"\n\
                 [[publishers]]\nid = \"*\"\npassphrase = \"the-right-passphrase\"\n";
    let engine = engine(&test, ports, rules);
    let mut refused = Vec::new();
    let mut let_in = Vec::new();
    for (peer, name) in PEERS {
        for (place, passphrase, reason) in [
            ("wrong", WRONG, Some(BAD_SECRET)),
            ("missing", None, Some(UNSECURE)),
            ("open", RIGHT, Some(UNSECURE)),
            ("right", RIGHT, None),
        ] {
            let id = format!("{place}/{name}");
            let sender = sender(peer, Role::Calls(ports.srt), &id, passphrase);
            let mut running = sender.start(test.folder(), &file_name(&id), &material);
            match reason {
                Some(reason) => {
                    if peer == Peer::Gstreamer {
                        // it does not call before it has something to send
                        running.feed(&material);
                    }
                    wait_for(&format!("{id}: {reason}"), seconds(10), || {
                        running.process.output().contains(reason)
                    });
                    refused.push(id);
                }
                None => let_in.push((id, peer, running)),
            }
        }
    }
    for (id, peer, running) in &mut let_in {
        feed_connected(running, &material);
        wait_for(&format!("{id} delivers"), seconds(10), || {
            delivered(&engine, id) > 500_000
        });
        assert!(material.begins_with(*peer, &payload(&engine, id)), "{id}");
        let record = engine.stream(id).unwrap_or_default();
        assert_eq!(record["encryption"], "aes-ctr-128", "{record:#}");
    }
    for id in refused {
        assert!(engine.stream(&id).is_none(), "{id} has a stream");
    }
}

#[test]
fn without_require_callers_are_let_in_and_what_cannot_be_decrypted_is_counted() {
    let test = Alone::begin("passphrases-lenient");
    let material = Material::prepare(&test, 4);
    let ports = Ports::free();
    let rules = "[srt.encryption]\nrequire = false\n\
                 [[publishers]]\nid = \"open/*\"\n\
                 [[publishers]]\nid = \"*\"\npassphrase = \"the-right-passphrase\"\n";
    let engine = engine(&test, ports, rules);
    let mut all = Vec::new();
    // GStreamer has no property for it
    for (peer, name) in &PEERS[..2] {
        for (place, passphrase) in [("wrong", WRONG), ("missing", None), ("open", RIGHT)] {
            let id = format!("{place}/{name}");
            let mut sender = sender(*peer, Role::Calls(ports.srt), &id, passphrase);
            sender.lenient = true;
            let running = sender.start(test.folder(), &file_name(&id), &material);
            all.push((id, *peer, running));
        }
    }
    for (_, _, running) in &mut all {
        feed_connected(running, &material);
    }
    for (id, peer, running) in &all {
        let undecryptable = || {
            engine
                .stream(id)
                .map_or(0.0, |s| number(&s["stats"], "packets_undecryptable"))
        };
        if id.starts_with("missing") {
            wait_for(&format!("{id} delivers"), seconds(10), || {
                delivered(&engine, id) > 500_000
            });
            assert!(material.begins_with(*peer, &payload(&engine, id)), "{id}");
            assert_eq!(undecryptable(), 0.0);
        } else {
            wait_for(
                &format!("{id} is undecryptable {}", running.process.tail()),
                seconds(10),
                || undecryptable() > 100.0,
            );
            assert_eq!(delivered(&engine, id), 0, "{id}");
        }
    }
}

/// A `[[srt.callers]]` table.
fn caller(id: &str, port: u16, passphrase: Option<&str>) -> String {
    let passphrase = passphrase.map_or(String::new(), |p| format!("passphrase = \"{p}\"\n"));
    format!(
        "[[srt.callers]]\nid = \"{id}\"\nurl = \"srt://127.0.0.1:{port}?latency=120\"\n{passphrase}\
         backoff = {{ initial = \"200ms\", max = \"500ms\" }}\n\
         circuit_breaker = {{ failures = 1000, reset_after = \"1s\" }}\n"
    )
}

#[test]
fn listeners_whose_passphrase_does_not_fit_are_named_with_the_reason() {
    let test = Alone::begin("passphrases-listeners");
    let material = Material::prepare(&test, 4);
    let mut config = String::new();
    let mut all = Vec::new();
    for (peer, name) in PEERS {
        for (place, theirs, ours, reason) in [
            ("wrong", RIGHT, WRONG, Some("BADSECRET")),
            ("missing", RIGHT, None, Some("UNSECURE")),
            ("open", None, RIGHT, Some("UNSECURE")),
            ("right", RIGHT, RIGHT, None),
        ] {
            let (id, port) = (format!("{place}/{name}"), free_port());
            let sender = sender(peer, Role::Listens(port), &id, theirs);
            let mut running = sender.start(test.folder(), &file_name(&id), &material);
            if peer == Peer::Gstreamer {
                // it does not listen before it has something to send
                running.feed(&material);
            }
            config += &caller(&id, port, ours);
            all.push((id, peer, reason, running));
        }
    }
    let engine = engine(&test, Ports::free(), &config);
    let last_error = |id: &str| {
        let callers = engine.get("/api/v1/callers");
        let list = callers["callers"].as_array().cloned().unwrap_or_default();
        let one = list.into_iter().find(|c| c["id"] == *id);
        one.map_or(String::new(), |c| c["last_error"].to_string())
    };
    for (id, peer, reason, running) in &mut all {
        match reason {
            Some(reason) => {
                let what = format!("{id}: {reason}");
                wait_for(&what, seconds(10), || last_error(id).contains(*reason));
                assert_eq!(delivered(&engine, id), 0, "{id}");
            }
            None => {
                feed_connected(running, &material);
                wait_for(&format!("{id} delivers"), seconds(10), || {
                    delivered(&engine, id) > 500_000
                });
                assert!(material.begins_with(*peer, &payload(&engine, id)), "{id}");
            }
        }
    }
}

/// Sends with every peer, kills them all in mid-stream, starts them again, and holds what the
/// second sessions bring against what was sent.
fn killed_and_back(test: &Alone, direction: Direction) {
    let material = Material::prepare(test, 6);
    let ports = Ports::free();
    let mut config = "[srt]\npeer_idle_timeout = \"1s\"\n".to_owned();
    let mut senders = Vec::new();
    for (peer, name) in PEERS {
        let id = format!("back/{name}");
        let role = match direction {
            Direction::PeerCalls => Role::Calls(ports.srt),
            Direction::EngineCalls => {
                let port = free_port();
                config += &caller(&id, port, RIGHT);
                Role::Listens(port)
            }
        };
        senders.push((id.clone(), sender(peer, role, &id, RIGHT)));
    }
    if direction == Direction::PeerCalls {
        config += "[srt.encryption]\npassphrase = \"the-right-passphrase\"\n";
    }
    let engine = engine(test, ports, &config);
    for session in 1..=2u32 {
        let mut running = Vec::new();
        for (id, sender) in &senders {
            let name = format!("{}-{session}", file_name(id));
            let mut one = sender.start(test.folder(), &name, &material);
            if sender.peer == Peer::Gstreamer {
                one.feed(&material);
            }
            running.push(one);
        }
        for one in &mut running {
            feed_connected(one, &material);
        }
        for (id, sender) in &senders {
            wait_for(&format!("{id}: session {session}"), seconds(12), || {
                let record = engine.stream(id).unwrap_or_default();
                record["stats"]["sessions"] == session && delivered(&engine, id) > 400_000
            });
            let figures = payload(&engine, id);
            assert!(
                material.begins_with(sender.peer, &figures),
                "{id}: {figures}"
            );
        }
        for one in &running {
            one.process.signal(Signal::KILL);
        }
        for (id, _) in &senders {
            engine.wait_status(id, "reconnecting", seconds(8));
        }
    }
}

#[test]
fn callers_that_are_killed_come_back_to_the_same_stream() {
    killed_and_back(&Alone::begin("killed-callers"), Direction::PeerCalls);
}

#[test]
fn listeners_that_are_killed_are_called_again() {
    killed_and_back(&Alone::begin("killed-listeners"), Direction::EngineCalls);
}

#[test]
fn callers_whose_address_changes_in_mid_stream_lose_nothing() {
    let test = Alone::begin("rebind");
    let cells: Vec<Cell> = PEERS
        .iter()
        .flat_map(|(peer, _)| {
            [Encryption::Clear, Encryption::Aes(16)].map(|encryption| Cell {
                peer: *peer,
                direction: Direction::PeerCalls,
                encryption,
                latency_ms: 120,
                line: Line::Rebind,
            })
        })
        .collect();
    let outcomes = Bench::new(&test).play(&cells, cells.len(), |_| {});
    assert!(
        outcomes.iter().all(Outcome::is_good),
        "{}",
        table(&outcomes)
    );
    for cell in cells {
        let log = test.folder().join(format!("{}.relay.log", cell.name()));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let last: Value =
            serde_json::from_str(text.lines().last().unwrap_or("")).unwrap_or_default();
        assert!(
            last["rebinds"].as_u64() >= Some(3),
            "{}: {text}",
            cell.name()
        );
    }
}

#[test]
fn the_load_generator_calling_and_called_encrypts_over_a_bad_line_and_loses_nothing() {
    let test = Alone::begin("loadtest-lines");
    let ports = Ports::free();
    let port = free_port();
    let mut config = caller("load/called", port, RIGHT);
    config += "[srt.encryption]\npassphrase = \"the-right-passphrase\"\n";
    let engine = engine(&test, ports, &config);
    let common = "protocol = \"srt\"\nbitrate = \"5Mb\"\nlatency = \"400ms\"\n\
                  passphrase = \"the-right-passphrase\"\nkey_length = 32\n";
    let scenario = format!(
        "duration = \"5s\"\n[target]\nsrt_port = {}\n\
         [impairment]\nloss = \"2%\"\ndelay = \"20ms\"\njitter = \"5ms\"\n\
         [[senders]]\nid = \"load/calls\"\n{common}\
         [[senders]]\nid = \"load/called\"\nmode = \"listener\"\nlisten = \"127.0.0.1:{port}\"\n{common}\
         [expect]\ndropped = 0\nmissing = 0\nmissing_frames = 1\n",
        ports.srt
    );
    let scenario = test.write("scenario.toml", &scenario).display().to_string();
    let url = engine.api_url();
    let (code, said) = run(
        test.folder(),
        "loadtest",
        release_binary("mirror-loadtest"),
        &["run", &scenario, "--target", &url],
        seconds(60),
    );
    assert_eq!(code, Some(0), "{said}\n{}", engine.process.tail());
    for id in ["load/calls", "load/called"] {
        let record = engine.stream(id).unwrap_or_default();
        assert_eq!(record["encryption"], "aes-ctr-256", "{record:#}");
        assert!(number(&record["stats"], "packets_retransmitted") > 10.0);
    }
}
