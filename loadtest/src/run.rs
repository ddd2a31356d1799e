//! `mirror-loadtest run`: a scenario from the first handshake to the verdict.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::api::{self, Api};
use crate::content::Noise;
use crate::content::rtp::{RtpShape, RtpStream, RtpTemplate};
use crate::content::ts::{TsShape, TsStream, TsTemplate};
use crate::generator::{self, Generator, Progress};
use crate::impairment::Impairment;
use crate::report::{
    EngineReport, GeneratorReport, Received, Report, Sent, StreamReport, sender_error,
};
use crate::scenario::{Protocol, Scenario, SenderGroup};
use crate::sender::{Content, Sender, SrtCall, Transport};
use crate::units::show_bitrate;
use crate::{html, process};

/// What the command line says besides the scenario.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The API's URL; `None`: the engine is not asked.
    pub target: Option<String>,
    /// Bearer token for the API.
    pub token: Option<String>,
    /// Overrides the scenario's duration.
    pub seconds: Option<u64>,
    /// Overrides the scenario's core.
    pub core: Option<usize>,
    /// The engine's process, when it runs on this host.
    pub pid: Option<u32>,
    /// Where the JSON report goes.
    pub json: Option<PathBuf>,
    /// Where the page goes.
    pub html: Option<PathBuf>,
}

/// Runs it; `Ok(true)`: every expectation holds.
pub fn run(mut scenario: Scenario, options: &Options) -> Result<bool> {
    if let Some(seconds) = options.seconds {
        scenario.duration = Duration::from_secs(seconds);
    }
    let api = options
        .target
        .as_deref()
        .map(|url| Api::new(url, options.token.clone()))
        .transpose()?;
    let engine = api.map(|api| Engine::find(api, options.pid)).transpose()?;
    let host = match (&scenario.host, &engine) {
        (Some(host), _) => host.clone(),
        (None, Some(engine)) => engine.api.host().to_owned(),
        (None, None) => "127.0.0.1".to_owned(),
    };
    let targets = Targets {
        srt: resolve(&host, scenario.srt_port)?,
        rtp: resolve(&host, scenario.rtp_port)?,
    };
    let plans = plan(&scenario)?;
    if let Some(engine) = &engine {
        engine.await_vacant(&plans)?;
    }
    let to_make = plans.clone();
    let core = options.core.or(scenario.core);
    let impairment = scenario.impairment;
    let generator = Generator::start(
        move |now| open(&to_make, &targets, &impairment, now),
        scenario.burst,
        core,
    )
    .context("cannot open the senders")?;
    // who is called waits for the caller's next attempt
    let called = scenario.senders.iter().any(|g| g.listen.is_some());
    let patience = Duration::from_secs(if called { 60 } else { 10 });
    let connected = generator::await_connected(&generator, patience);
    let failed = connected
        .as_ref()
        .is_none_or(|p| p.senders.iter().any(|s| sender_error(s.phase).is_some()));
    let mut measured = Measured::default();
    if !failed {
        measured = send(&scenario, &generator, engine.as_ref());
        settle(&plans, &generator, engine.as_ref());
    }
    let received = engine
        .as_ref()
        .map(|e| plans.iter().map(|p| e.stream(&p.id)).collect::<Vec<_>>());
    let last = generator.progress();
    let mut report = assemble(&scenario, &plans, &last, received, &measured);
    if let Some(engine) = &engine {
        report.engine = engine.report(&measured, last.packets());
    }
    drop(generator);
    report.judge(&scenario.expect, engine.is_some());
    write_out(&report, options)?;
    Ok(report.ok)
}

fn write_out(report: &Report, options: &Options) -> Result<()> {
    println!("{}", report.table());
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(report)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.html {
        std::fs::write(path, html::page(report)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct Targets {
    srt: SocketAddr,
    rtp: SocketAddr,
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut found = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("host {host}"))?;
    found
        .next()
        .ok_or_else(|| anyhow!("host {host} has no address"))
}

/// One sender to be.
#[derive(Clone, Debug)]
struct Plan {
    id: String,
    group: SenderGroup,
    content: Template,
    /// SSRC, or SRT socket ID.
    number: u32,
    first_sequence: u32,
    /// SRT: where it waits to be called.
    listen: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
enum Template {
    Ts(Arc<TsTemplate>),
    Rtp(Arc<RtpTemplate>),
}

/// Makes the contents, each shape once, and numbers the senders.
fn plan(scenario: &Scenario) -> Result<Vec<Plan>> {
    let mut ts: HashMap<TsShape, Arc<TsTemplate>> = HashMap::new();
    let mut rtp: HashMap<RtpShape, Arc<RtpTemplate>> = HashMap::new();
    // numbers that differ from run to run: the engine may still remember the last one's SSRCs
    let mut noise = Noise::new(process::unix_us() ^ u64::from(std::process::id()) << 40);
    let mut plans = Vec::new();
    for group in &scenario.senders {
        let content = match group.protocol {
            Protocol::Srt | Protocol::RtpMpegTs => {
                let shape = TsShape {
                    video: group.video,
                    bitrate_bps: group.bitrate_bps,
                    audio: group.audio,
                };
                let known = ts.get(&shape).cloned();
                let template = known.map_or_else(|| TsTemplate::new(shape).map(Arc::new), Ok)?;
                Template::Ts(Arc::clone(ts.entry(shape).or_insert(template)))
            }
            Protocol::RtpNative => {
                let shape = RtpShape {
                    video: group.video,
                    bitrate_bps: group.bitrate_bps,
                };
                let known = rtp.get(&shape).cloned();
                let template = known.map_or_else(|| RtpTemplate::new(shape).map(Arc::new), Ok)?;
                Template::Rtp(Arc::clone(rtp.entry(shape).or_insert(template)))
            }
        };
        for n in 1..=group.count {
            // SRT: bits 30 and 31 clear and not 0; a sender's index keeps them apart
            let number = (noise.next_u64() as u32 & 0x3FFF_0000) | (plans.len() as u32 + 1);
            let id = match group.protocol {
                Protocol::Srt => group.id.replace("{n}", &n.to_string()),
                _ => format!("rtp_{number:08x}"),
            };
            let first_sequence = noise.next_u64() as u32;
            plans.push(Plan {
                id,
                group: group.clone(),
                content: content.clone(),
                number,
                first_sequence,
                listen: group.listen.map(|first| {
                    // validated: there is a port for each
                    let port = usize::from(first.port()) + n - 1;
                    SocketAddr::new(first.ip(), u16::try_from(port).unwrap_or(u16::MAX))
                }),
            });
        }
    }
    Ok(plans)
}

fn open(
    plans: &[Plan],
    targets: &Targets,
    impairment: &Impairment,
    now: mirror_base::Instant,
) -> std::io::Result<Vec<Sender>> {
    plans
        .iter()
        .enumerate()
        .map(|(i, plan)| {
            let mut sender = open_one(plan, targets, now)?;
            // each line its own course, all from one seed
            sender.impair(&Impairment {
                seed: impairment.seed.wrapping_add(i as u64),
                ..*impairment
            });
            Ok(sender)
        })
        .collect()
}

fn open_one(plan: &Plan, targets: &Targets, now: mirror_base::Instant) -> std::io::Result<Sender> {
    let first_sequence = plan.first_sequence as u16;
    match (&plan.content, plan.group.protocol) {
        (Template::Ts(t), Protocol::Srt) => {
            let config = mirror_srt::Config {
                latency: plan.group.latency,
                peer_latency: plan.group.latency,
                ..Default::default()
            };
            let content = TsStream::new(Arc::clone(t));
            let security = plan.group.security.as_ref();
            if let Some(local) = plan.listen {
                return Sender::listening(local, content, plan.number, &config, security);
            }
            let call = SrtCall {
                socket_id: plan.number,
                initial_sequence: plan.first_sequence,
                stream_id: &plan.id,
                config: &config,
                security,
            };
            Sender::srt(now, targets.srt, content, &call)
        }
        (Template::Ts(t), _) => {
            let transport = Transport::Rtp {
                ssrc: plan.number,
                first_sequence,
            };
            Sender::plain(
                targets.rtp,
                Content::Ts(TsStream::new(Arc::clone(t))),
                transport,
            )
        }
        (Template::Rtp(t), _) => {
            let stream = RtpStream::new(
                Arc::clone(t),
                plan.number,
                first_sequence,
                plan.first_sequence,
            );
            let transport = Transport::Rtp {
                ssrc: plan.number,
                first_sequence,
            };
            Sender::plain(targets.rtp, Content::Rtp(stream), transport)
        }
    }
}

/// What was seen while media was sent.
#[derive(Debug, Default)]
struct Measured {
    seconds: f64,
    generator_cpu: f64,
    cpu_reported: Vec<f64>,
    /// CPU of the engine's process and of its pinned threads over the window, percent.
    cpu_proc: Option<(f64, f64)>,
    /// The shards' own CPU figures, percent, summed.
    shard_loads: Vec<f64>,
    /// ns of the process over the window, and packets in it.
    cpu_window: Option<(u64, u64)>,
    bitrates: HashMap<String, f64>,
}

/// Sends for the scenario's duration, and samples the engine meanwhile.
fn send(scenario: &Scenario, generator: &Generator, engine: Option<&Engine>) -> Measured {
    let mut measured = Measured::default();
    let bar = progress_bar(scenario);
    generator.send();
    let start = Instant::now();
    let end = start + scenario.duration;
    // the first second is warming up, unless there is no other
    let settle = Duration::from_secs(1).min(scenario.duration / 4);
    std::thread::sleep(settle);
    let before = Window::open(generator, engine);
    let mut next = start + settle + Duration::from_secs(1);
    while next + Duration::from_millis(300) < end {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += Duration::from_secs(1);
        measured
            .cpu_reported
            .extend(engine.and_then(Engine::cpu_usage));
        measured
            .shard_loads
            .extend(engine.and_then(Engine::shard_load));
        show_progress(&bar, start, generator, &before);
    }
    if let Some(engine) = engine {
        measured.bitrates = engine.bitrates();
    }
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    before.close(generator, engine, &mut measured);
    generator.hold();
    measured.seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    measured
}

fn progress_bar(scenario: &Scenario) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(scenario.duration.as_secs());
    // the template is a constant of ours: if it were wrong the default one would do
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(scenario.name.clone());
    bar
}

fn show_progress(bar: &ProgressBar, start: Instant, generator: &Generator, window: &Window) {
    let progress = generator.progress();
    let seconds = window.at.elapsed().as_secs_f64();
    let packets = generator.packets() - window.packets;
    let bits = (progress.payload_bytes().saturating_sub(window.bytes)) as f64 * 8.0;
    let again: u64 = progress.senders.iter().map(|s| s.retransmitted).sum();
    bar.set_position(start.elapsed().as_secs());
    bar.set_message(format!(
        "{:.0} packets/s, {}, {again} sent again",
        packets as f64 / seconds,
        show_bitrate(bits / seconds)
    ));
}

/// The beginning of the window over which CPU is measured.
#[derive(Debug)]
struct Window {
    at: Instant,
    packets: u64,
    bytes: u64,
    generator_cpu_ns: u64,
    threads: Vec<process::ThreadCpu>,
}

impl Window {
    fn open(generator: &Generator, engine: Option<&Engine>) -> Self {
        let progress = generator.progress();
        let threads = engine
            .and_then(|e| e.pid)
            .map(process::threads)
            .unwrap_or_default();
        Window {
            at: Instant::now(),
            packets: generator.packets(),
            bytes: progress.payload_bytes(),
            generator_cpu_ns: progress.cpu_ns,
            threads,
        }
    }

    fn close(self, generator: &Generator, engine: Option<&Engine>, measured: &mut Measured) {
        let threads = engine
            .and_then(|e| e.pid)
            .map(process::threads)
            .unwrap_or_default();
        let wall = self.at.elapsed().as_secs_f64();
        let packets = generator.packets() - self.packets;
        let progress = generator.progress();
        measured.generator_cpu =
            progress.cpu_ns.saturating_sub(self.generator_cpu_ns) as f64 / wall / 1e7;
        if threads.is_empty() {
            return;
        }
        let (mut all, mut pinned) = (0, 0);
        for thread in &threads {
            let before = self
                .threads
                .iter()
                .find(|t| t.tid == thread.tid)
                .map_or(0, |t| t.cpu_ns);
            let used = thread.cpu_ns.saturating_sub(before);
            all += used;
            if is_shard(thread) {
                pinned += used;
            }
        }
        measured.cpu_proc = Some((all as f64 / wall / 1e7, pinned as f64 / wall / 1e7));
        measured.cpu_window = Some((all, packets));
    }
}

/// A shard's thread: pinned to one core, and named so where the map leaves a core to others too.
fn is_shard(thread: &process::ThreadCpu) -> bool {
    thread.name.contains("shard")
}

/// Waits until the senders are acknowledged and the engine's counts stand still.
fn settle(plans: &[Plan], generator: &Generator, engine: Option<&Engine>) {
    let start = Instant::now();
    let latency = plans
        .iter()
        .map(|p| p.group.latency)
        .max()
        .unwrap_or_default();
    while start.elapsed() < Duration::from_secs(5) + latency {
        std::thread::sleep(Duration::from_millis(100));
        if generator
            .progress()
            .senders
            .iter()
            .all(|s| s.unacknowledged == 0)
            && start.elapsed() > latency
        {
            break;
        }
    }
    let Some(engine) = engine else { return };
    // the engine's figures are those of its last snapshot, once a second
    let (mut last, mut still) = (None, 0);
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(600));
        let now = engine.received_packets(plans);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if still >= 3 {
            break;
        }
    }
}

fn assemble(
    scenario: &Scenario,
    plans: &[Plan],
    last: &Progress,
    received: Option<Vec<Option<Value>>>,
    measured: &Measured,
) -> Report {
    let streams = plans.iter().enumerate().map(|(i, plan)| {
        let stats = last.senders.get(i).copied().unwrap_or_default();
        let bitrate = measured.bitrates.get(&plan.id).copied();
        let value = received
            .as_ref()
            .and_then(|r| r.get(i))
            .and_then(Option::as_ref);
        StreamReport {
            id: plan.id.clone(),
            protocol: if plan.group.protocol == Protocol::Srt {
                "srt"
            } else {
                "rtp"
            },
            error: sender_error(stats.phase),
            sent: Sent::from_stats(&stats, scenario.duration.as_secs_f64()),
            received: value.map(|v| Received::from_json(v, bitrate)),
        }
    });
    Report {
        name: scenario.name.clone(),
        seconds: measured.seconds,
        streams: streams.collect(),
        engine: EngineReport::default(),
        generator: GeneratorReport {
            cpu: measured.generator_cpu,
            latest_turn_ms: last.latest_turn_ns as f64 / 1e6,
        },
        ok: false,
        failures: Vec::new(),
    }
}

/// The engine behind its API.
#[derive(Debug)]
struct Engine {
    api: Api,
    pid: Option<u32>,
    drops_before: u64,
}

impl Engine {
    fn find(api: Api, pid: Option<u32>) -> Result<Self> {
        let stats = api
            .get("/api/v1/stats")
            .context("the engine cannot be asked (--no-api does without)")?;
        let local = resolve(api.host(), 1).is_ok_and(|a| a.ip().is_loopback());
        let reported = api::count(&stats, "pid").and_then(|n| u32::try_from(n).ok());
        let pid = pid.or_else(|| {
            local
                .then(|| reported.or_else(|| process::find_process("mirror-ingest")))
                .flatten()
        });
        let drops_before = kernel_drops(&stats);
        Ok(Engine {
            api,
            pid,
            drops_before,
        })
    }

    /// Waits for the streams of an earlier run to go: a stream that comes back within the
    /// engine's grace period goes on counting where it stopped, and counts against its limit.
    fn await_vacant(&self, plans: &[Plan]) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let stats = self.api.get("/api/v1/stats")?;
            let by_status = stats.get("streams_by_status").cloned().unwrap_or_default();
            let leaving = ["reconnecting", "terminating"]
                .iter()
                .filter_map(|s| api::count(&by_status, s))
                .sum::<u64>();
            let live = |p: &&Plan| {
                let status = self
                    .stream(&p.id)
                    .and_then(|v| Some(v.get("status")?.as_str()?.to_owned()));
                // pending: the engine is about to call it
                let vacant = ["terminated", "error", "pending"];
                status.is_some_and(|s| !vacant.contains(&s.as_str()))
            };
            let taken = plans.iter().find(live);
            match taken {
                None if leaving == 0 => return Ok(()),
                Some(plan) if Instant::now() >= end => {
                    return Err(anyhow!("stream {} is in use at the engine", plan.id));
                }
                None if Instant::now() >= end => return Ok(()),
                _ => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    fn stream(&self, id: &str) -> Option<Value> {
        let path = format!("/api/v1/streams/{}", api::encode(id));
        self.api
            .get(&format!("{path}/stats"))
            .or_else(|_| self.api.get(&path))
            .ok()
    }

    fn received_packets(&self, plans: &[Plan]) -> Option<u64> {
        let all = plans.iter().map(|p| {
            self.stream(&p.id)
                .and_then(|v| api::count(&v, "packets_received"))
        });
        all.sum()
    }

    fn cpu_usage(&self) -> Option<f64> {
        api::number(&self.api.get("/api/v1/stats").ok()?, "cpu_usage")
    }

    /// What the shards say of their CPU over their last second, percent of a core, summed.
    fn shard_load(&self) -> Option<f64> {
        let answer = self.api.get("/api/v1/shards").ok()?;
        answer
            .get("shards")?
            .as_array()?
            .iter()
            .map(|s| api::number(s, "load"))
            .sum()
    }

    fn bitrates(&self) -> HashMap<String, f64> {
        let Ok(answer) = self.api.get("/api/v1/streams?limit=10000") else {
            return HashMap::new();
        };
        let streams = answer
            .get("streams")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let entry = |s: &Value| {
            Some((
                s.get("id")?.as_str()?.to_owned(),
                api::number(s, "bitrate")?,
            ))
        };
        streams.iter().filter_map(entry).collect()
    }

    fn report(&self, measured: &Measured, packets: u64) -> EngineReport {
        let drops = self
            .api
            .get("/api/v1/stats")
            .map_or(0, |s| kernel_drops(&s));
        let mean =
            |list: &[f64]| (!list.is_empty()).then(|| list.iter().sum::<f64>() / list.len() as f64);
        let per_packet = |(ns, in_window): (u64, u64)| {
            (packets > 0 && in_window > 0).then(|| ns as f64 / in_window as f64)
        };
        EngineReport {
            kernel_drops: drops.saturating_sub(self.drops_before),
            cpu_reported: mean(&measured.cpu_reported),
            cpu_shards_reported: mean(&measured.shard_loads),
            cpu_proc: measured.cpu_proc.map(|c| c.0),
            cpu_proc_shards: measured.cpu_proc.map(|c| c.1),
            cpu_ns_per_packet: measured.cpu_window.and_then(per_packet),
            memory_bytes: self.pid.and_then(process::resident_bytes),
        }
    }
}

fn kernel_drops(stats: &Value) -> u64 {
    api::count(stats, "kernel_drops").unwrap_or_else(|| api::sum(stats, "kernel_drops") as u64)
}
