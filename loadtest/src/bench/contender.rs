//! Who is measured: the floors, the engine in its variants, srt-live-transmit. Each is started
//! afresh for each measurement and ended after it.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Settings;
use mirror_srt::CipherPolicy;

use super::floor::{Floor, Way};
use crate::api::{self, Api};
use crate::process;

/// A row to be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    /// Datagrams counted by the engine's reactor.
    RawReactor,
    /// Datagrams counted by a napping recvmmsg loop.
    RawRecvmmsg,
    /// The reactor and a copy.
    CopyReactor,
    /// recvmmsg and a copy.
    CopyRecvmmsg,
    /// The engine up to the stream's ring.
    SrtRecv,
    /// The same, encrypted with AES-128 in CTR mode.
    SrtCtr,
    /// The same, encrypted with AES-128 in GCM.
    SrtGcm,
    /// The same, in the clear, with one packet of a hundred lost and repaired.
    SrtLoss,
    /// The same, in the clear, as one stream of 1 Gb/s.
    SrtGigabit,
    /// The engine's whole pipeline.
    SrtFrames,
    /// MPEG-TS in RTP.
    RtpMpegTs,
    /// H.264 in RTP.
    RtpH264,
    /// HEVC in RTP.
    RtpH265,
    /// libsrt's tool.
    LiveTransmit,
}

/// What a row is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// SRT data packets without ARQ.
    Shaped,
    /// SRT.
    Srt(Line),
    /// MPEG-TS in RTP.
    RtpMpegTs,
    /// H.264 in RTP.
    RtpH264,
    /// HEVC in RTP.
    RtpH265,
}

/// How SRT goes over the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// In the clear.
    Clear,
    /// AES-128 in this mode.
    Sealed(CipherPolicy),
    /// In the clear, with so many of a thousand packets lost.
    Lossy(u64),
}

/// What encrypted rows agree on.
pub const PASSPHRASE: &str = "the price of a packet";

impl Contender {
    /// All, in the order of the first round.
    pub const ALL: [Contender; 14] = [
        Contender::RawReactor,
        Contender::RawRecvmmsg,
        Contender::CopyReactor,
        Contender::CopyRecvmmsg,
        Contender::SrtRecv,
        Contender::SrtCtr,
        Contender::SrtGcm,
        Contender::SrtLoss,
        Contender::SrtGigabit,
        Contender::SrtFrames,
        Contender::RtpMpegTs,
        Contender::RtpH264,
        Contender::RtpH265,
        Contender::LiveTransmit,
    ];
    /// The ways to floor-raw.
    pub const RAW_FLOORS: [Contender; 2] = [Contender::RawReactor, Contender::RawRecvmmsg];
    /// The ways to floor-copy.
    pub const COPY_FLOORS: [Contender; 2] = [Contender::CopyReactor, Contender::CopyRecvmmsg];

    /// Its row's name.
    pub const fn name(self) -> &'static str {
        match self {
            Contender::RawReactor => "raw-reactor",
            Contender::RawRecvmmsg => "raw-recvmmsg",
            Contender::CopyReactor => "copy-reactor",
            Contender::CopyRecvmmsg => "copy-recvmmsg",
            Contender::SrtRecv => "srt-clear-recv",
            Contender::SrtCtr => "srt-aes128-recv",
            Contender::SrtGcm => "srt-gcm128-recv",
            Contender::SrtLoss => "srt-loss1-recv",
            Contender::SrtGigabit => "srt-1gbps-recv",
            Contender::SrtFrames => "srt-clear-frames",
            Contender::RtpMpegTs => "rtp-mp2t-frames",
            Contender::RtpH264 => "rtp-h264-frames",
            Contender::RtpH265 => "rtp-h265-frames",
            Contender::LiveTransmit => "srt-live-transmit",
        }
    }

    /// Whether it is a way to a floor.
    pub const fn is_floor(self) -> bool {
        matches!(
            self,
            Contender::RawReactor
                | Contender::RawRecvmmsg
                | Contender::CopyReactor
                | Contender::CopyRecvmmsg
        )
    }

    /// Whether it is the engine.
    pub const fn is_engine(self) -> bool {
        !self.is_floor() && !matches!(self, Contender::LiveTransmit)
    }

    /// The settings with which it is measured.
    pub fn settings(self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        if self == Contender::SrtGigabit {
            (settings.streams, settings.bitrate_bps) = (1, 1_000_000_000);
        }
        settings
    }

    /// Whether it stops at the stream's ring.
    const fn is_reception(self) -> bool {
        matches!(
            self,
            Contender::SrtRecv
                | Contender::SrtCtr
                | Contender::SrtGcm
                | Contender::SrtLoss
                | Contender::SrtGigabit
        )
    }

    /// What it is sent.
    pub const fn traffic(self) -> Traffic {
        match self {
            Contender::RawReactor
            | Contender::RawRecvmmsg
            | Contender::CopyReactor
            | Contender::CopyRecvmmsg => Traffic::Shaped,
            Contender::SrtRecv
            | Contender::SrtGigabit
            | Contender::SrtFrames
            | Contender::LiveTransmit => Traffic::Srt(Line::Clear),
            Contender::SrtCtr => Traffic::Srt(Line::Sealed(CipherPolicy::Ctr)),
            Contender::SrtGcm => Traffic::Srt(Line::Sealed(CipherPolicy::Gcm)),
            Contender::SrtLoss => Traffic::Srt(Line::Lossy(10)),
            Contender::RtpMpegTs => Traffic::RtpMpegTs,
            Contender::RtpH264 => Traffic::RtpH264,
            Contender::RtpH265 => Traffic::RtpH265,
        }
    }

    /// Starts it, ready to receive.
    pub fn start(self, settings: &Settings, engine: Option<&Path>) -> Result<Running> {
        // 120 ms of the stream and a ring of 4 MiB: what the engine's defaults give each stream
        let arena = usize::try_from(settings.bitrate_bps / 8 * 120 / 1000)? + (4 << 20);
        let floor = |way, arenas| {
            Floor::start(
                way,
                arenas,
                if arenas > 0 { arena } else { 0 },
                settings.shard_core,
            )
            .map(Running::Floor)
        };
        match self {
            Contender::RawReactor => floor(Way::Reactor, 0),
            Contender::RawRecvmmsg => floor(Way::Recvmmsg, 0),
            Contender::CopyReactor => floor(Way::Reactor, settings.streams),
            Contender::CopyRecvmmsg => floor(Way::Recvmmsg, settings.streams),
            Contender::LiveTransmit => LiveTransmit::start(settings).map(Running::LiveTransmit),
            _ => {
                let engine = engine.ok_or_else(|| anyhow!("no engine"))?;
                Engine::start(self, settings, engine).map(Running::Engine)
            }
        }
    }
}

/// A started contender.
#[derive(Debug)]
pub enum Running {
    /// A floor's receiver.
    Floor(Floor),
    /// The engine.
    Engine(Engine),
    /// One srt-live-transmit a stream.
    LiveTransmit(LiveTransmit),
}

impl Running {
    /// Where it listens: one port, or one for each stream.
    pub fn ports(&self) -> Vec<u16> {
        match self {
            Running::Floor(floor) => vec![floor.port()],
            Running::Engine(engine) => vec![engine.port],
            Running::LiveTransmit(tools) => tools.ports.clone(),
        }
    }

    /// CPU so far, ns: of the receiving threads, and of the whole process(es).
    pub fn cpu_ns(&self) -> (u64, u64) {
        match self {
            Running::Floor(floor) => floor.cpu_ns(),
            Running::Engine(engine) => engine.cpu_ns(),
            Running::LiveTransmit(tools) => tools.cpu_ns(),
        }
    }

    /// Packets received until this moment, where that can be known.
    pub fn received_now(&mut self) -> Result<Option<u64>> {
        match self {
            Running::Floor(floor) => floor.packets().map(Some),
            _ => Ok(None),
        }
    }

    /// Packets received in all, some seconds after the last.
    pub fn received(&mut self) -> Option<u64> {
        match self {
            Running::Floor(floor) => floor.packets().ok(),
            Running::Engine(engine) => engine.received(),
            Running::LiveTransmit(_) => None,
        }
    }

    /// What the engine says of losses, for people.
    pub fn loss_facts(&self) -> Option<String> {
        let Running::Engine(engine) = self else {
            return None;
        };
        let stats = engine.api.get("/api/v1/stats").ok()?;
        let count = |key| api::count(&stats, key).unwrap_or(0);
        let list = engine.api.get("/api/v1/streams?limit=10000").ok()?;
        let streams = list.get("streams")?.as_array()?;
        let lost = |s: &Value| api::count(s, "packets_lost").unwrap_or(0);
        let losers: Vec<u64> = streams.iter().map(lost).filter(|n| *n > 0).collect();
        Some(format!(
            "kernel drops {}, lost before repair {}, never repaired {}, on {} of {} streams, most {}",
            count("kernel_drops"),
            count("packets_lost"),
            count("packets_dropped"),
            losers.len(),
            streams.len(),
            losers.iter().max().unwrap_or(&0)
        ))
    }

    /// Forgets latencies so far.
    pub fn reset_latency(&self) {
        if let Running::Engine(engine) = self {
            // if it cannot, the figures hold the start too
            let _ = engine.api.get("/api/v1/latency?reset=true");
        }
    }

    /// p50 and p99 of what the engine adds, µs.
    pub fn latency(&self) -> Option<(f64, f64)> {
        let Running::Engine(engine) = self else {
            return None;
        };
        let answer = engine.api.get("/api/v1/latency").ok()?;
        let total = answer
            .get("merged")
            .unwrap_or(&answer)
            .get("total")?
            .clone();
        Some((api::number(&total, "p50")?, api::number(&total, "p99")?))
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self);
    }
}

/// The engine, as `mirror-ingest run` starts it, on ports of its own.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    api: Api,
    port: u16,
    shard_core: usize,
    pinning: PathBuf,
    log: PathBuf,
}

/// The engine's binary: the given one, or the one beside this program.
pub fn engine_binary(given: Option<PathBuf>) -> Option<PathBuf> {
    let beside = || {
        Some(
            std::env::current_exe()
                .ok()?
                .with_file_name("mirror-ingest"),
        )
    };
    given.or_else(beside).filter(|path| path.is_file())
}

/// Free UDP ports, different ones.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let sockets = (0..count)
        .map(|_| UdpSocket::bind("[::]:0"))
        .collect::<std::io::Result<Vec<_>>>()?;
    sockets.iter().map(|s| Ok(s.local_addr()?.port())).collect()
}

impl Engine {
    fn start(contender: Contender, settings: &Settings, binary: &Path) -> Result<Self> {
        let ports = free_ports(3)?;
        let api_port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let (srt, rtp, rtcp) = (ports[0], ports[1], ports[2]);
        let pinning =
            std::env::temp_dir().join(format!("mirror-bench-{}-pinning.toml", std::process::id()));
        let map = format!(
            "[control]\ncores = [{}]\n\n[ring]\ngro = {}\n\n[[shard]]\ncore = {}\n",
            settings.generator_core, settings.gro, settings.shard_core
        );
        std::fs::write(&pinning, map).with_context(|| pinning.display().to_string())?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--pinning").arg(&pinning);
        let mut sets = vec![
            format!("srt.listen=[::]:{srt}"),
            format!("rtp.listen=[::]:{rtp}"),
            format!("rtp.rtcp_listen=[::]:{rtcp}"),
            format!("api.listen=127.0.0.1:{api_port}"),
            format!("max_streams={}", settings.streams.max(25)),
            // Set aside and touched before, as on a host that is set up for so many.
            format!("buffer.pool_streams={}", settings.streams.max(30)),
        ];
        if contender.is_reception() {
            sets.push("stream.media=false".to_owned());
        }
        if let Traffic::Srt(Line::Sealed(_)) = contender.traffic() {
            sets.push(format!("srt.encryption.passphrase={PASSPHRASE}"));
        }
        for set in sets {
            command.arg("--set").arg(set);
        }
        let log = pinning.with_extension("log");
        let log_file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file);
        let child = command
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let port = match contender.traffic() {
            Traffic::Srt(_) => srt,
            _ => rtp,
        };
        let api = Api::new(&format!("http://127.0.0.1:{api_port}"), None)?;
        let mut engine = Engine {
            child,
            api,
            port,
            shard_core: settings.shard_core,
            pinning,
            log,
        };
        engine.await_ready()?;
        Ok(engine)
    }

    fn await_ready(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                bail!("the engine ended with {status}: {}", last.join(" | "));
            }
            if self.api.get("/readyz").is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the engine was not ready within 15 s")
    }

    fn cpu_ns(&self) -> (u64, u64) {
        let threads = process::threads(self.child.id());
        let core = self.shard_core.to_string();
        let shard = threads
            .iter()
            .filter(|t| t.allowed == core)
            .map(|t| t.cpu_ns)
            .sum();
        (shard, threads.iter().map(|t| t.cpu_ns).sum())
    }

    fn received(&self) -> Option<u64> {
        let answer = self.api.get("/api/v1/streams?limit=10000").ok()?;
        let streams = answer.get("streams")?.as_array()?;
        let received = |s: &Value| {
            let again = api::count(s, "packets_retransmitted").unwrap_or(0);
            api::count(s, "packets_unique")
                .or_else(|| Some(api::count(s, "packets_received")?.saturating_sub(again)))
        };
        streams.iter().map(received).sum()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // it holds nothing that draining would save
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.pinning);
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Whether srt-live-transmit can be started.
pub fn live_transmit_installed() -> bool {
    let quiet = Command::new("srt-live-transmit")
        .arg("-version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok()
}

/// One `srt-live-transmit srt://:PORT?mode=listener file://con > /dev/null` for each stream.
#[derive(Debug)]
pub struct LiveTransmit {
    children: Vec<Child>,
    ports: Vec<u16>,
}

impl LiveTransmit {
    fn start(settings: &Settings) -> Result<Self> {
        let ports = free_ports(settings.streams)?;
        let mut tools = LiveTransmit {
            children: Vec::new(),
            ports,
        };
        let ports = tools.ports.clone();
        // children inherit the core of the thread that starts them
        let core = settings.shard_core;
        let spawned = std::thread::spawn(move || -> Result<Vec<Child>> {
            process::pin(core)?;
            let spawn = |port: &u16| {
                let source = format!("srt://:{port}?mode=listener&latency=120");
                let mut command = Command::new("srt-live-transmit");
                command.args([
                    "-q",
                    "-loglevel:error",
                    "-chunk:1316",
                    &source,
                    "file://con",
                ]);
                Ok(command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?)
            };
            ports.iter().map(spawn).collect()
        });
        tools.children = spawned
            .join()
            .map_err(|_| anyhow!("the starting thread ended"))??;
        std::thread::sleep(Duration::from_millis(500));
        Ok(tools)
    }

    fn cpu_ns(&self) -> (u64, u64) {
        let all = self
            .children
            .iter()
            .map(|c| process::process_cpu_ns(c.id()))
            .sum();
        (all, all)
    }
}

impl Drop for LiveTransmit {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
