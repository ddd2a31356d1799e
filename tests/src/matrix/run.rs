//! Plays cells: a batch at a time, with one engine for the batch, and for each cell a relay and a
//! peer (and a second pair with libsrt's receiver, where that is the measure).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::feed::CHUNK;
use super::material::{Material, sha256};
use super::peer::{LibsrtReceiver, Role, Running, Secret, Sender};
use super::report::{Outcome, allowed};
use super::{Cell, Direction, Encryption, Measure, PASSPHRASE, Peer};
use crate::engine::{Engine, Ports, number};
use crate::process::Process;
use crate::{Alone, poll, release_binary, seconds};

/// Seconds of media that a sender is fed at the most.
const FED_SECONDS: usize = 6;
/// What of it is enough: about four seconds. The stream goes on meanwhile, as a live one does: a
/// packet that is lost after the last one is missed by nobody.
const ENOUGH_BYTES: u64 = 1_450_000;
/// A cell ends by then, whatever it came to.
const LIMIT: Duration = Duration::from_secs(25);

/// A UDP port that is free now, from outside the range that the kernel hands out by itself.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 97).unwrap_or(0) * 100;
    (0..10_000)
        .map(|_| 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000)
        .find(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok())
        .expect("a UDP port is free")
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// Its process.
    pub process: Process,
    /// Where its clients call.
    pub port: u16,
}

impl Relay {
    /// Starts one towards `to`.
    ///
    /// # Panics
    /// If it does not say where it listens within ten seconds.
    pub fn start(test: &Alone, name: &str, to: u16, seed: u64, options: &[&str]) -> Self {
        let mut command = Command::new(release_binary("mirror-loadtest"));
        command.args(["relay", "--listen", "127.0.0.1:0"]);
        command.args(["--to", &format!("127.0.0.1:{to}")]);
        command.args(["--seed", &seed.to_string()]).args(options);
        let process = Process::start_command(test.folder(), name, command);
        let port = poll(seconds(10), || {
            let line: Value = serde_json::from_str(process.output().lines().next()?).ok()?;
            line["listen"].as_str()?.rsplit_once(':')?.1.parse().ok()
        });
        let port = port.unwrap_or_else(|| panic!("no relay: {}", process.tail()));
        Relay { process, port }
    }

    /// Ends it; what it says it did.
    pub fn finish(mut self) -> Value {
        self.process.signal(Signal::TERM);
        self.process.wait(seconds(5));
        let output = self.process.output();
        let last = output.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or(Value::Null)
    }
}

/// Where cells are played.
#[derive(Debug)]
pub struct Bench<'a> {
    test: &'a Alone,
    material: Material,
    digests: HashMap<(bool, u64), String>,
    batches: usize,
}

/// A cell while it is played.
struct Playing {
    cell: Cell,
    name: String,
    begun: Instant,
    fed_at: Option<Instant>,
    sender: Option<Running>,
    /// Where a peer that listens does so.
    port: u16,
    relay: Relay,
    restarts: u32,
    /// Its record when enough had come.
    came: Option<Value>,
    reference: Option<Reference>,
    outcome: Option<Outcome>,
}

/// The same with libsrt's receiver in the engine's place.
struct Reference {
    sender: Option<Running>,
    receiver: Option<LibsrtReceiver>,
    /// Where the relay leads.
    to: u16,
    relay: Relay,
}

impl Reference {
    /// Packets that came to libsrt's receiver and packets that never did.
    fn figures(&self) -> Option<(u64, u64)> {
        self.receiver.as_ref().and_then(LibsrtReceiver::figures)
    }

    /// Whether as much of the stream has passed as is judged.
    fn is_done(&self) -> bool {
        let passed = self.figures().map_or(0, |(came, missing)| came + missing);
        passed * CHUNK as u64 >= ENOUGH_BYTES
    }
}

impl<'a> Bench<'a> {
    /// Prepares the material.
    pub fn new(test: &'a Alone) -> Self {
        Bench {
            test,
            material: Material::prepare(test, FED_SECONDS),
            digests: HashMap::new(),
            batches: 0,
        }
    }

    /// Plays `cells`, `at_once` at a time; what fails among others is played again alone.
    /// `done` hears of each outcome.
    pub fn play(
        &mut self,
        cells: &[Cell],
        at_once: usize,
        mut done: impl FnMut(&Outcome),
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for batch in cells.chunks(at_once.max(1)) {
            for mut outcome in self.batch(batch) {
                if !outcome.is_good() && batch.len() > 1 {
                    eprintln!(
                        "{}: {}; again, alone",
                        outcome.cell.name(),
                        outcome.faults.join("; ")
                    );
                    outcome = self.batch(&[outcome.cell]).remove(0);
                    outcome.again = true;
                }
                done(&outcome);
                outcomes.push(outcome);
            }
        }
        outcomes
    }

    /// Plays cells at the same time.
    fn batch(&mut self, cells: &[Cell]) -> Vec<Outcome> {
        self.batches += 1;
        let ports = Ports::free();
        let mut playing: Vec<_> = cells.iter().map(|c| self.prepare(*c, ports.srt)).collect();
        let config = self.test.write(
            &format!("batch{}.toml", self.batches),
            &configuration(&playing),
        );
        let config = config.display().to_string();
        let name = format!("engine{}", self.batches);
        let engine = Engine::start_on(self.test, &name, ports, &[], &["--config", &config]);
        for cell in &mut playing {
            self.call(cell);
        }
        let begun = Instant::now();
        while playing.iter().any(|p| p.outcome.is_none()) {
            std::thread::sleep(Duration::from_millis(150));
            let over = begun.elapsed() > LIMIT;
            let streams = engine.streams();
            for cell in &mut playing {
                self.step(cell, &streams, over);
            }
        }
        playing
            .into_iter()
            .filter_map(|cell| {
                // what it did stands in its log
                cell.relay.finish();
                cell.outcome
            })
            .collect()
    }

    /// Starts a cell's relay, and its peer if that listens.
    fn prepare(&self, cell: Cell, engine_port: u16) -> Playing {
        let name = cell.name();
        let options = cell.line.options(cell.direction);
        let relay_to =
            |to: u16, name: &str| Relay::start(self.test, name, to, cell.seed(), &options);
        let listening = |name: &str| {
            let port = free_port();
            let sender = sender_of(&cell, Role::Listens(port));
            (sender.start(self.test.folder(), name, &self.material), port)
        };
        let (sender, port) = match cell.direction {
            Direction::PeerCalls => (None, engine_port),
            Direction::EngineCalls => {
                let (sender, port) = listening(&format!("{name}.peer"));
                (Some(sender), port)
            }
        };
        let relay = relay_to(port, &format!("{name}.relay"));
        let reference = (cell.measure() == Measure::LikeLibsrt).then(|| {
            let (sender, to) = match cell.direction {
                Direction::PeerCalls => (None, free_port()),
                Direction::EngineCalls => {
                    let (sender, port) = listening(&format!("{name}.peer2"));
                    (Some(sender), port)
                }
            };
            Reference {
                sender,
                receiver: None,
                to,
                relay: relay_to(to, &format!("{name}.relay2")),
            }
        });
        Playing {
            cell,
            name,
            begun: Instant::now(),
            fed_at: None,
            sender,
            port,
            relay,
            restarts: 0,
            came: None,
            reference,
            outcome: None,
        }
    }

    /// Starts whoever calls.
    fn call(&self, playing: &mut Playing) {
        let (cell, folder) = (playing.cell, self.test.folder());
        let calling = |relay: &Relay, name: &str| {
            let sender = sender_of(&cell, Role::Calls(relay.port));
            sender.start(folder, &format!("{}.{name}", cell.name()), &self.material)
        };
        if let Some(reference) = &mut playing.reference {
            let role = match cell.direction {
                Direction::PeerCalls => Role::Listens(reference.to),
                Direction::EngineCalls => Role::Calls(reference.relay.port),
            };
            let (name, secret) = (format!("{}.libsrt", playing.name), secret(&cell));
            let latency = cell.latency_ms;
            let receiver = LibsrtReceiver::start(folder, &name, role, latency, secret.as_ref());
            reference.receiver = Some(receiver);
            if reference.sender.is_none() {
                // ffmpeg calls only once
                std::thread::sleep(Duration::from_millis(100));
                reference.sender = Some(calling(&reference.relay, "peer2"));
            }
        }
        if playing.sender.is_none() {
            playing.sender = Some(calling(&playing.relay, "peer"));
        }
        playing.begun = Instant::now();
    }

    /// Looks what a cell has come to.
    fn step(&mut self, playing: &mut Playing, streams: &[Value], over: bool) {
        if playing.outcome.is_some() {
            return;
        }
        let is_it = |s: &&Value| s["id"] == *playing.name && s["stats"]["payload"].is_object();
        let record = streams.iter().find(is_it);
        self.start_again(playing, record.is_some());
        let ready = |s: &Running| s.is_connected();
        let reference = playing.reference.as_ref();
        let reference_ready = reference.is_none_or(|r| r.sender.as_ref().is_some_and(ready));
        let all_ready = reference_ready && playing.sender.as_ref().is_some_and(ready);
        if record.is_some() && all_ready && playing.fed_at.is_none() {
            // both at once: they share the machine's moods
            playing.fed_at = Some(Instant::now());
            let reference = playing.reference.as_mut().and_then(|r| r.sender.as_mut());
            for sender in playing.sender.iter_mut().chain(reference) {
                sender.feed(&self.material);
            }
        }
        let payload = |key: &str| record.and_then(|r| r["stats"]["payload"][key].as_u64());
        let came = payload("bytes").unwrap_or(0);
        let missing = payload("missing").unwrap_or(0);
        let passed = came + missing * CHUNK as u64;
        if passed >= ENOUGH_BYTES && playing.came.is_none() {
            playing.came = record.cloned();
        }
        let reference = playing.reference.as_ref();
        let done = playing.came.is_some() && reference.is_none_or(Reference::is_done);
        let gone = playing
            .sender
            .as_mut()
            .is_some_and(|s| s.process.ended().is_some());
        let hopeless = gone && record.is_none() && playing.begun.elapsed() > seconds(5);
        if done || over || hopeless {
            let came = playing.came.take();
            playing.outcome = Some(self.judge(playing, came.as_ref().or(record)));
        }
    }

    /// ffmpeg tries once: it ends when its call fails, and it closes its listener when it has
    /// accepted. If the answer to a conclusion is lost, libsrt's listener does not repeat it, and
    /// then no caller, libsrt's neither, ever gets in. It is started again.
    fn start_again(&self, playing: &mut Playing, connected: bool) {
        let listens = playing.cell.direction == Direction::EngineCalls;
        if playing.cell.peer != Peer::Ffmpeg {
            return;
        }
        let late = playing.begun.elapsed() > seconds(4) * (playing.restarts + 1);
        let start = |role: Role, name: &str| {
            let name = format!("{}.{name}-{}", playing.name, playing.restarts + 1);
            sender_of(&playing.cell, role).start(self.test.folder(), &name, &self.material)
        };
        if let Some(reference) = playing.reference.as_mut().filter(|r| r.figures().is_none()) {
            let sender = reference.sender.as_mut();
            let gone = sender.is_some_and(|s| s.process.ended().is_some());
            if gone || (listens && late) {
                let role = if listens {
                    Role::Listens(reference.to)
                } else {
                    Role::Calls(reference.relay.port)
                };
                // it must have let go of its port
                reference.sender = None;
                reference.sender = Some(start(role, "peer2"));
            }
        }
        if listens && late && !connected {
            playing.sender = None;
            playing.sender = Some(start(Role::Listens(playing.port), "peer"));
        }
        playing.restarts += u32::from(late);
    }

    fn judge(&mut self, playing: &mut Playing, record: Option<&Value>) -> Outcome {
        let mut outcome = Outcome::of(playing.cell);
        outcome.seconds = playing.begun.elapsed().as_secs_f64();
        let tail = |p: &mut Option<Running>| p.as_ref().map_or(String::new(), |s| s.process.tail());
        let Some(record) = record else {
            let fault = format!("no stream\n{}", tail(&mut playing.sender));
            outcome.faults.push(fault);
            return outcome;
        };
        let stats = &record["stats"];
        let count = |key: &str| number(stats, key) as u64;
        let payload = &stats["payload"];
        outcome.bytes = payload["bytes"].as_u64().unwrap_or(0);
        outcome.missing = payload["missing"].as_u64().unwrap_or(0);
        outcome.lost = count("packets_lost");
        outcome.retransmitted = count("packets_retransmitted");
        outcome.rtt_ms = number(stats, "rtt_ms");
        outcome.key_refreshes = count("key_refreshes");
        let undecryptable = count("packets_undecryptable");
        let mut fault = |text: String| outcome.faults.push(text);
        if undecryptable > 0 {
            fault(format!("{undecryptable} packets could not be decrypted"));
        }
        let latency = record["config"]["latency_ms"].as_u64();
        if latency.is_some_and(|ms| ms != u64::from(playing.cell.latency_ms)) {
            fault(format!("latency {latency:?} ms"));
        }
        let expected = encryption_name(playing.cell.encryption);
        if let Some(shown) = record["encryption"].as_str().filter(|s| *s != expected) {
            fault(format!("encryption {shown}"));
        }
        // libsrt looks at its key only when an ACK comes: what it sends at once beyond the
        // refresh changes no key at all, also towards another libsrt.
        if playing.cell.refreshes_keys() && count("key_refreshes") == 0 {
            fault(format!("{} key refreshes", count("key_refreshes")));
        }
        if count("sessions") != 1 {
            fault(format!("{} sessions", count("sessions")));
        }
        if outcome.bytes + outcome.missing * (CHUNK as u64) < ENOUGH_BYTES {
            let text = format!("{} bytes of {ENOUGH_BYTES} only", outcome.bytes);
            outcome.faults.push(text);
        }
        match playing.cell.measure() {
            Measure::Whole => self.judge_whole(playing, payload, &mut outcome),
            Measure::LikeLibsrt => judge_like_libsrt(playing, &mut outcome),
        }
        outcome
    }

    fn judge_whole(&mut self, playing: &Playing, payload: &Value, outcome: &mut Outcome) {
        if outcome.missing > 0 {
            outcome.faults.push(format!("{} missing", outcome.missing));
        }
        let remuxed = playing.cell.peer == Peer::Ffmpeg;
        let digest = self.digest(remuxed, outcome.bytes);
        if outcome.missing == 0 && digest.as_deref() != payload["sha256"].as_str() {
            outcome.faults.push("the bytes differ".into());
        }
    }

    /// SHA-256 of the first `bytes` of what is sent; `None` if that is not so much.
    fn digest(&mut self, remuxed: bool, bytes: u64) -> Option<String> {
        let sent = self.material.sent(remuxed);
        let first = sent.get(..usize::try_from(bytes).ok()?)?;
        let known = self.digests.entry((remuxed, bytes));
        Some(known.or_insert_with(|| sha256(first)).clone())
    }
}

fn judge_like_libsrt(playing: &Playing, outcome: &mut Outcome) {
    let receiver = playing.reference.as_ref().and_then(|r| r.receiver.as_ref());
    let reference = playing.reference.as_ref();
    let Some((came, missing)) = reference.and_then(Reference::figures) else {
        let log = receiver.map(|r| r.process.tail());
        let text = format!("no figures of libsrt's receiver: {log:?}");
        outcome.faults.push(text);
        return;
    };
    outcome.libsrt_missing = Some(missing);
    if came * (CHUNK as u64) < ENOUGH_BYTES / 2 {
        outcome
            .faults
            .push(format!("libsrt received {came} packets only"));
    }
    if outcome.missing > allowed(missing) {
        let text = format!("{} missing, with libsrt {missing}", outcome.missing);
        outcome.faults.push(text);
    }
}

fn sender_of(cell: &Cell, role: Role) -> Sender {
    Sender {
        peer: cell.peer,
        role,
        stream_id: cell.name(),
        latency_ms: cell.latency_ms,
        secret: secret(cell),
        refresh: cell.refreshes_keys(),
        lenient: false,
    }
}

fn secret(cell: &Cell) -> Option<Secret> {
    match cell.encryption {
        Encryption::Clear => None,
        Encryption::Aes(key_bytes) => Some(Secret {
            passphrase: PASSPHRASE.to_owned(),
            key_bytes,
        }),
    }
}

/// As the engine names it.
fn encryption_name(encryption: Encryption) -> String {
    match encryption {
        Encryption::Clear => "none".to_owned(),
        Encryption::Aes(bytes) => format!("aes-ctr-{}", bytes * 8),
    }
}

/// The engine's configuration for a batch.
fn configuration(playing: &[Playing]) -> String {
    let mut text = format!(
        "max_streams = {}\n[srt]\nlatency = \"20ms\"\n[diagnostics]\npayload_hash = true\n\
         [buffer]\npool_streams = {}\n",
        playing.len() + 4,
        playing.len() + 2
    );
    for Playing {
        cell, name, relay, ..
    } in playing
    {
        let secret = match cell.encryption {
            Encryption::Clear => String::new(),
            Encryption::Aes(_) => format!("passphrase = \"{PASSPHRASE}\"\n"),
        };
        // writing to a String does not fail
        let _ = match cell.direction {
            Direction::PeerCalls => write!(text, "[[publishers]]\nid = \"{name}\"\n{secret}"),
            Direction::EngineCalls => {
                let key_length = match cell.encryption {
                    Encryption::Clear => String::new(),
                    Encryption::Aes(bytes) => format!("key_length = {bytes}\n"),
                };
                write!(
                    text,
                    "[[srt.callers]]\nid = \"{name}\"\n\
                     url = \"srt://127.0.0.1:{}?latency={}&streamid={name}\"\n\
                     {secret}{key_length}backoff = {{ initial = \"200ms\", max = \"1s\" }}\n",
                    relay.port, cell.latency_ms
                )
            }
        };
    }
    text
}
