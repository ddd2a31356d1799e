//! The programs that stand at the other end: how each is told to send, and libsrt's own receiver,
//! which takes the engine's place where it is the measure.

use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};

use serde_json::Value;

use super::Peer;
use super::feed::{CHUNK, Feed};
use super::material::{BITS_PER_SECOND, Material, REMUX};
use crate::media::QUIET;
use crate::process::Process;

/// Who calls whom, and where, on loopback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It calls this port.
    Calls(u16),
    /// It listens on this port.
    Listens(u16),
    /// Both call: it from this port of 127.0.0.2 ([`MEETS_FROM`]), towards the same port of
    /// 127.0.0.1. ffmpeg cannot: it binds to the peer's address.
    Meets(u16),
}

/// Where a program is bound that meets the engine by rendezvous.
pub const MEETS_FROM: &str = "127.0.0.2";

/// A passphrase and a key's length in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The passphrase.
    pub passphrase: String,
    /// 16, 24 or 32.
    pub key_bytes: usize,
}

/// A sender to be.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Which program.
    pub peer: Peer,
    /// Who calls.
    pub role: Role,
    /// The stream ID that it presents when it calls.
    pub stream_id: String,
    /// Latency, ms.
    pub latency_ms: u32,
    /// Encryption.
    pub secret: Option<Secret>,
    /// Change the key every 300 packets.
    pub refresh: bool,
    /// Go on without the encryption asked for (ENFORCEDENCRYPTION off); GStreamer cannot.
    pub lenient: bool,
}

/// A running sender.
#[derive(Debug)]
pub struct Running {
    /// The program.
    pub process: Process,
    pipe: Option<ChildStdin>,
    feed: Option<Feed>,
    /// srt-live-transmit sends on what is left in its buffers when its input ends; the others
    /// would end.
    keep_open: bool,
    says_when_connected: bool,
}

/// `name=value` pairs of an SRT URI.
fn uri(role: Role, pairs: &[(&str, String)]) -> String {
    let (mode, port) = match role {
        Role::Calls(port) => ("caller", port),
        Role::Listens(port) => ("listener", port),
        Role::Meets(port) => ("rendezvous", port),
    };
    let mut uri = format!("srt://127.0.0.1:{port}?mode={mode}");
    for (name, value) in pairs {
        uri.push_str(&format!("&{name}={value}"));
    }
    uri
}

impl Sender {
    /// Starts the program. What it is fed comes with [`Running::feed`]; ffmpeg reads the file.
    pub fn start(&self, folder: &Path, name: &str, material: &Material) -> Running {
        let (process, pipe) = match self.peer {
            Peer::Ffmpeg => {
                let command = self.ffmpeg(material);
                (Process::start_command(folder, name, command), None)
            }
            Peer::SrtLiveTransmit => {
                let mut command = Command::new("srt-live-transmit");
                command.arg(format!("-chunk:{CHUNK}"));
                command.args(["-loglevel:warn", "file://con", &self.tool_uri(1)]);
                let (process, pipe) = Process::start_writable(folder, name, command);
                (process, Some(pipe))
            }
            Peer::Gstreamer => {
                let (process, pipe) = Process::start_writable(folder, name, self.gstreamer());
                (process, Some(pipe))
            }
        };
        Running {
            process,
            pipe,
            feed: None,
            keep_open: self.peer == Peer::Gstreamer,
            says_when_connected: self.peer == Peer::SrtLiveTransmit,
        }
    }

    /// The URI for programs that hand options to libsrt by name; `unit`: ticks of their latency
    /// in a millisecond.
    fn tool_uri(&self, unit: u32) -> String {
        let mut pairs = vec![("latency", (self.latency_ms * unit).to_string())];
        if matches!(self.role, Role::Calls(_)) && !self.stream_id.is_empty() {
            pairs.push(("streamid", self.stream_id.clone()));
        }
        if matches!(self.role, Role::Meets(_)) {
            pairs.push(("adapter", MEETS_FROM.to_owned()));
        }
        if let Some(secret) = &self.secret {
            pairs.push(("passphrase", secret.passphrase.clone()));
            pairs.push(("pbkeylen", secret.key_bytes.to_string()));
        }
        if self.lenient {
            let name = match self.peer {
                Peer::Ffmpeg => "enforced_encryption",
                _ => "enforcedencryption",
            };
            pairs.push((name, "0".to_owned()));
        }
        if self.refresh {
            pairs.push(("kmrefreshrate", "300".to_owned()));
            pairs.push(("kmpreannounce", "100".to_owned()));
        }
        uri(self.role, &pairs)
    }

    fn ffmpeg(&self, material: &Material) -> Command {
        let mut command = Command::new("ffmpeg");
        command.args(QUIET).args(["-re", "-i"]).arg(&material.file);
        command.args(REMUX);
        // its latency is in microseconds
        command.arg(format!("{}&pkt_size={CHUNK}", self.tool_uri(1000)));
        command
    }

    fn gstreamer(&self) -> Command {
        let mut command = Command::new("gst-launch-1.0");
        // libsrt's own words on what went wrong
        command.env("GST_DEBUG", "srtlib:4");
        command.args(["-q", "fdsrc", "fd=0"]);
        command.arg(format!("blocksize={CHUNK}"));
        command.args(["do-timestamp=true", "!", "srtsink", "sync=false"]);
        command.arg("wait-for-connection=true");
        let mut pairs = Vec::new();
        if let Role::Meets(port) = self.role {
            pairs.push(("localaddress", MEETS_FROM.to_owned()));
            pairs.push(("localport", port.to_string()));
        }
        command.arg(format!("uri={}", uri(self.role, &pairs)));
        command.arg(format!("latency={}", self.latency_ms));
        if matches!(self.role, Role::Calls(_)) && !self.stream_id.is_empty() {
            command.arg(format!("streamid={}", self.stream_id));
        }
        if let Some(secret) = &self.secret {
            command.arg(format!("passphrase={}", secret.passphrase));
            command.arg(format!("pbkeylen={}", secret.key_bytes));
        }
        command
    }
}

impl Running {
    /// Whether the program has what it needs to send. srt-live-transmit throws its input away
    /// until it is connected, and says when it is; the others wait by themselves.
    pub fn is_connected(&self) -> bool {
        let log = self.process.output();
        !self.says_when_connected
            || log.contains("SRT target connected")
            || log.contains("Accepted SRT target connection")
    }

    /// Begins with the media, where the program is fed; once.
    pub fn feed(&mut self, material: &Material) {
        if let Some(pipe) = self.pipe.take() {
            let bytes = material.fed.clone();
            self.feed = Some(Feed::start(pipe, bytes, BITS_PER_SECOND, self.keep_open));
        }
    }

    /// Whether everything that will be fed was fed.
    pub fn is_fed(&self) -> bool {
        self.feed.as_ref().is_some_and(Feed::is_done)
    }
}

/// srt-live-transmit as a receiver.
#[derive(Debug)]
pub struct LibsrtReceiver {
    /// The program.
    pub process: Process,
    statistics: PathBuf,
}

impl LibsrtReceiver {
    /// Starts one; what it receives goes to nowhere, its figures to a file.
    pub fn start(
        folder: &Path,
        name: &str,
        role: Role,
        latency_ms: u32,
        secret: Option<&Secret>,
    ) -> Self {
        let statistics = folder.join(format!("{name}.json"));
        let mut pairs = vec![("latency", latency_ms.to_string())];
        if let Some(secret) = secret {
            pairs.push(("passphrase", secret.passphrase.clone()));
        }
        let mut command = Command::new("srt-live-transmit");
        command.args(["-loglevel:error", "-s:50", "-pf:json", "-f"]);
        command.arg(format!("-statsout:{}", statistics.display()));
        command.args([&uri(role, &pairs), "file://con"]);
        LibsrtReceiver {
            process: Process::start_command(folder, name, command),
            statistics,
        }
    }

    /// Packets that came and packets that never did, so far.
    pub fn figures(&self) -> Option<(u64, u64)> {
        let text = std::fs::read_to_string(&self.statistics).ok()?;
        // the last line may be half written
        let last = text
            .lines()
            .rev()
            .find_map(|line| serde_json::from_str::<Value>(line).ok())?;
        let of = |key: &str| last["recv"][key].as_u64();
        Some((of("packetsUnique")?, of("packetsDropped")?))
    }
}
