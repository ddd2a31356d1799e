//! A running `mirror-ingest` on free loopback ports.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::http::{self, Response};
use crate::process::Process;
use crate::{Alone, poll, release_binary, seconds, target_dir};

/// Free loopback ports for one engine.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// SRT.
    pub srt: u16,
    /// RTP; RTCP is the next one.
    pub rtp: u16,
    /// HTTP.
    pub api: u16,
}

impl Ports {
    /// Ports that are free now.
    ///
    /// # Panics
    /// If none can be found.
    pub fn free() -> Self {
        let udp = |port| UdpSocket::bind(("127.0.0.1", port)).ok();
        let rtp = (0..100)
            .find_map(|_| {
                let first = udp(0)?;
                let port = first.local_addr().ok()?.port();
                // RFC 3550, 11: RTP on an even port, RTCP on the next.
                (port % 2 == 0 && port < 65_000 && udp(port + 1).is_some()).then_some(port)
            })
            .expect("two neighbouring UDP ports are free");
        let srt = udp(0)
            .and_then(|s| s.local_addr().ok())
            .expect("a UDP port is free")
            .port();
        let api = TcpListener::bind("127.0.0.1:0")
            .and_then(|s| s.local_addr())
            .expect("a TCP port is free");
        Ports {
            srt,
            rtp,
            api: api.port(),
        }
    }

    /// The command line that makes an engine use them.
    pub fn arguments(&self) -> Vec<OsString> {
        [
            format!("srt.listen=127.0.0.1:{}", self.srt),
            format!("rtp.listen=127.0.0.1:{}", self.rtp),
            format!("rtp.rtcp_listen=127.0.0.1:{}", self.rtp + 1),
            format!("api.listen=127.0.0.1:{}", self.api),
        ]
        .into_iter()
        .flat_map(|pair| ["--set".into(), pair.into()])
        .collect()
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    /// The process.
    pub process: Process,
    /// Its ports.
    pub ports: Ports,
}

impl Engine {
    /// Starts one with `settings` (`key=value`) and waits until it is ready.
    ///
    /// # Panics
    /// If it is not ready within 20 seconds.
    pub fn start(test: &Alone, settings: &[&str]) -> Self {
        Self::start_with(test, settings, &[])
    }

    /// The same with further arguments of `mirror-ingest run`.
    ///
    /// # Panics
    /// If it is not ready within 20 seconds.
    pub fn start_with(test: &Alone, settings: &[&str], arguments: &[&str]) -> Self {
        Self::start_on(test, "engine", Ports::free(), settings, arguments)
    }

    /// The same on given ports, under a name of its own.
    ///
    /// # Panics
    /// If it is not ready within 20 seconds.
    pub fn start_on(
        test: &Alone,
        name: &str,
        ports: Ports,
        settings: &[&str],
        arguments: &[&str],
    ) -> Self {
        let mut engine = Self::launch_on(test, name, ports, settings, arguments);
        let ready = poll(seconds(20), || {
            let ended = engine.process.ended();
            assert!(
                ended.is_none(),
                "the engine ended with {ended:?}\n{}",
                engine.process.tail()
            );
            engine.request("GET", "/readyz").filter(|r| r.status == 200)
        });
        assert!(
            ready.is_some(),
            "the engine is not ready\n{}",
            engine.process.tail()
        );
        engine
    }

    /// Starts one on free ports and does not wait.
    pub fn launch(test: &Alone, name: &str, settings: &[&str], arguments: &[&str]) -> Self {
        Self::launch_on(test, name, Ports::free(), settings, arguments)
    }

    fn launch_on(
        test: &Alone,
        name: &str,
        ports: Ports,
        settings: &[&str],
        arguments: &[&str],
    ) -> Self {
        // What an engine leaves that is killed lies in the target folder, where the next one
        // tidies up.
        let runtime = target_dir().join("run");
        std::fs::create_dir_all(&runtime).expect("the target folder is writable");
        let mut command = Command::new(Self::binary());
        command.env("RUNTIME_DIRECTORY", runtime);
        command.arg("run").args(ports.arguments());
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.args(arguments);
        Engine {
            process: Process::start_command(test.folder(), name, command),
            ports,
        }
    }

    /// The release binary.
    pub fn binary() -> PathBuf {
        release_binary("mirror-ingest")
    }

    /// Where an SRT publisher of `id` sends.
    pub fn srt_url(&self, id: &str) -> String {
        format!("srt://127.0.0.1:{}?streamid={id}", self.ports.srt)
    }

    /// Where an RTP sender sends (RTCP goes to the next port).
    pub fn rtp_url(&self) -> String {
        format!("rtp://127.0.0.1:{}", self.ports.rtp)
    }

    /// Base URL of the API.
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.api)
    }

    /// One request; `None` when there is no answer.
    pub fn request(&self, method: &str, path: &str) -> Option<Response> {
        http::request(
            SocketAddr::from(([127, 0, 0, 1], self.ports.api)),
            method,
            path,
        )
        .ok()
    }

    /// POST of JSON; `None` when there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Option<Response> {
        let server = SocketAddr::from(([127, 0, 0, 1], self.ports.api));
        http::send(server, "POST", path, &body.to_string()).ok()
    }

    /// GET of a path that must answer 200 with JSON.
    ///
    /// # Panics
    /// If it does not.
    pub fn get(&self, path: &str) -> Value {
        let response = self.request("GET", path);
        match response {
            Some(r) if r.status == 200 && r.json() != Value::Null => r.json(),
            other => panic!("GET {path}: {other:?}\n{}", self.process.tail()),
        }
    }

    /// The record of a stream, if there is one.
    pub fn stream(&self, id: &str) -> Option<Value> {
        let path = format!("/api/v1/streams/{}", encode(id));
        self.request("GET", &path)
            .filter(|r| r.status == 200)
            .map(|r| r.json())
    }

    /// All records.
    pub fn streams(&self) -> Vec<Value> {
        self.get("/api/v1/streams")["streams"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// All figures of a stream.
    pub fn stats(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/streams/{}/stats", encode(id)))
    }

    /// Waits until the record of `id` is as `wanted`, and returns it.
    ///
    /// # Panics
    /// After `within`, with the record as it is.
    pub fn wait_stream(
        &self,
        id: &str,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        poll(within, || self.stream(id).filter(|s| wanted(s))).unwrap_or_else(|| {
            let now = self
                .stream(id)
                .map_or("no record".into(), |s| format!("{s:#}"));
            panic!(
                "{id} not within {within:?}: {what}\n{now}\n{}",
                self.process.tail()
            )
        })
    }

    /// Waits for a status.
    ///
    /// # Panics
    /// After `within`.
    pub fn wait_status(&self, id: &str, status: &str, within: Duration) -> Value {
        self.wait_stream(id, status, within, |s| s["status"] == status)
    }

    /// SIGTERM, and the exit status.
    ///
    /// # Panics
    /// If it still runs after `within`.
    pub fn drain(&mut self, within: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(within)
    }
}

/// Percent-encodes an id for a URL.
pub fn encode(id: &str) -> String {
    id.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// The number called `key`, at the top or in the first object below that has one.
pub fn find(value: &Value, key: &str) -> Option<f64> {
    let object = value.as_object()?;
    object
        .get(key)
        .and_then(Value::as_f64)
        .or_else(|| object.values().find_map(|inner| find(inner, key)))
}

/// The same where there must be one.
///
/// # Panics
/// If there is none.
pub fn number(value: &Value, key: &str) -> f64 {
    find(value, key).unwrap_or_else(|| panic!("no number called {key} in {value:#}"))
}
