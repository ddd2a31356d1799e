//! `mirror-loadtest bench`: what the engine needs for a packet, against what the kernel's socket
//! interface needs at the least, under the same paced traffic in the same run. Rows are measured
//! one after the other, in an order that rotates from round to round; each figure is the median
//! over the rounds, and each ratio the median of ratios within a round. Receivers run on one
//! core, the generator and everything else on another.
//!
//! - `floor-raw`: datagrams counted and nothing else, with the engine's socket options: the
//!   cheaper of the engine's own reactor and of a napping `recvmmsg` loop that shares no code
//!   with it ([`floor`]).
//! - `floor-copy`: the same and one copy into arenas of the engine's size.
//! - `srt-…`, `rtp-…`: the engine ([`contender`]) with its shipped defaults.
//!   `srt-loss1-recv` loses one packet of a hundred before the wire and repairs it.
//! - `srt-live-transmit`: libsrt's tool, one process a stream, writing to /dev/null.

pub mod capacity;
pub mod contender;
pub mod floor;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mirror_srt::{KeyLength, Passphrase};

use crate::content::rtp::{RtpShape, RtpStream, RtpTemplate};
use crate::content::ts::{TsShape, TsStream, TsTemplate};
use crate::content::{VideoCodec, VideoShape};
use crate::generator::{self, Generator};
use crate::report::sender_error;
use crate::sender::{Content, Losses, Sender, SrtCall, SrtSecurity, Transport};
use contender::{Contender, Line, Running, Traffic};

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rounds.
    pub rounds: usize,
    /// Seconds of each measurement.
    pub seconds: u64,
    /// Streams.
    pub streams: usize,
    /// Bits a second of each.
    pub bitrate_bps: u64,
    /// Between two turns of a sender, which sends what became due since the last one.
    pub burst: Duration,
    /// Rows besides the floors; empty: all.
    pub only: Vec<String>,
    /// The engine's binary.
    pub engine: Option<PathBuf>,
    /// Core of the receivers.
    pub shard_core: usize,
    /// Core of everything else.
    pub generator_core: usize,
    /// The engine joins datagrams (UDP_GRO).
    pub gro: bool,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
}

impl Settings {
    /// What is wrong with them, for people.
    pub fn fault(&self) -> Option<String> {
        let known: Vec<&str> = Contender::ALL.iter().map(|c| c.name()).collect();
        if let Some(name) = self.only.iter().find(|n| !known.contains(&n.as_str())) {
            return Some(format!(
                "--only {name}: no such row; there are {}",
                known.join(", ")
            ));
        }
        let cores = crate::process::cores();
        if self.shard_core == self.generator_core
            || self.shard_core.max(self.generator_core) >= cores
        {
            return Some(format!(
                "bench needs two cores: receivers on {}, generator on {}, but this process may use {cores}",
                self.shard_core, self.generator_core
            ));
        }
        None
    }

    fn wants(&self, contender: Contender) -> bool {
        contender.is_floor()
            || self.only.is_empty()
            || self.only.iter().any(|n| n == contender.name())
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// CPU of the receiving thread(s), ns.
    pub cpu_ns: f64,
    /// CPU of the receiver's whole process(es), ns.
    pub whole_cpu_ns: f64,
    /// Media packets received in the window.
    pub packets: f64,
    /// Their payload bytes.
    pub bytes: f64,
    /// Packets sent and never received, over the whole time.
    pub lost: u64,
    /// CPU of the generator's thread, percent of a core.
    pub generator_cpu: f64,
    /// Median and 99th percentile of what the engine adds, µs.
    pub latency_us: Option<(f64, f64)>,
}

impl Sample {
    fn ns_per_packet(&self) -> f64 {
        self.cpu_ns / self.packets.max(1.0)
    }
}

/// Measures everything and prints the result; `Ok(true)`: every row could be measured.
pub fn run(settings: &Settings) -> Result<bool> {
    let mut contenders: Vec<Contender> = Contender::ALL
        .into_iter()
        .filter(|c| settings.wants(*c))
        .collect();
    let engine = contender::engine_binary(settings.engine.clone());
    if contenders.iter().any(|c| c.is_engine()) && engine.is_none() {
        bail!(
            "no mirror-ingest beside this program: build it (cargo build --release -p mirror-daemon), or name it with --engine"
        );
    }
    if !contender::live_transmit_installed() {
        contenders.retain(|c| *c != Contender::LiveTransmit);
        eprintln!("srt-live-transmit is not installed: its row is left out");
    }
    let traffic = Templates::new(settings)?;
    let mut results: Vec<(Contender, Vec<Sample>)> =
        contenders.iter().map(|c| (*c, Vec::new())).collect();
    let mut complete = true;
    for round in 0..settings.rounds {
        for i in 0..contenders.len() {
            let at = (i + round) % contenders.len();
            let contender = contenders[at];
            let own = contender.settings(settings);
            let other = (own.bitrate_bps != settings.bitrate_bps)
                .then(|| Templates::new(&own))
                .transpose()?;
            let traffic = other.as_ref().unwrap_or(&traffic);
            match measure(contender, &own, engine.as_deref(), traffic) {
                Ok(sample) => {
                    eprintln!(
                        "round {} {:<22} {:>7.0} ns/packet, {} lost, generator {:.0} %",
                        round + 1,
                        contender.name(),
                        sample.ns_per_packet(),
                        sample.lost,
                        sample.generator_cpu
                    );
                    results[at].1.push(sample);
                }
                Err(error) => {
                    eprintln!(
                        "round {} {:<22} failed: {error:#}",
                        round + 1,
                        contender.name()
                    );
                    complete = false;
                }
            }
        }
    }
    let rows = table::rows(&results);
    println!("{}", table::terminal(&rows, settings));
    if let Some(path) = &settings.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(complete)
}

/// The contents that rows need, each made once.
struct Templates {
    ts: Arc<TsTemplate>,
    h264: Arc<RtpTemplate>,
    h265: Arc<RtpTemplate>,
}

impl Templates {
    fn new(settings: &Settings) -> Result<Self> {
        let video = |codec| VideoShape {
            codec,
            width: 1920,
            height: 1080,
            fps_num: 30,
            fps_den: 1,
            gop: 60,
            b_frames: 2,
        };
        let bitrate_bps = settings.bitrate_bps;
        let native = |codec| {
            RtpTemplate::new(RtpShape {
                video: video(codec),
                bitrate_bps,
            })
            .map(Arc::new)
        };
        Ok(Templates {
            ts: Arc::new(TsTemplate::new(TsShape {
                video: video(VideoCodec::H264),
                bitrate_bps,
                audio: false,
            })?),
            h264: native(VideoCodec::H264)?,
            h265: native(VideoCodec::H265)?,
        })
    }

    /// Opens the senders of a row.
    fn senders(
        &self,
        traffic: Traffic,
        ports: &[u16],
        streams: usize,
        now: mirror_base::Instant,
    ) -> std::io::Result<Vec<Sender>> {
        let config = mirror_srt::Config::default();
        (0..streams)
            .map(|i| {
                let port = ports.get(i).or(ports.first()).copied().unwrap_or(0);
                let target = ([127, 0, 0, 1], port).into();
                let number = 0x0BE0_0000 | (i as u32 + 1);
                let ts = || TsStream::new(Arc::clone(&self.ts));
                let native = |t: &Arc<RtpTemplate>| {
                    Content::Rtp(RtpStream::new(Arc::clone(t), number, 0, 0))
                };
                let rtp = Transport::Rtp {
                    ssrc: number,
                    first_sequence: 0,
                };
                match traffic {
                    Traffic::Shaped => Sender::plain(
                        target,
                        Content::Ts(ts()),
                        Transport::Shaped { id: i as u32 },
                    ),
                    Traffic::Srt(line) => {
                        let security = security(line);
                        let id = format!("bench/{}", i + 1);
                        let call = SrtCall {
                            socket_id: number,
                            initial_sequence: number,
                            stream_id: &id,
                            config: &config,
                            security: security.as_ref(),
                        };
                        let mut sender = Sender::srt(now, target, ts(), &call)?;
                        if let Line::Lossy(permille) = line {
                            sender.lose(Losses::new(permille, number.into()));
                        }
                        Ok(sender)
                    }
                    Traffic::RtpMpegTs => Sender::plain(target, Content::Ts(ts()), rtp),
                    Traffic::RtpH264 => Sender::plain(target, native(&self.h264), rtp),
                    Traffic::RtpH265 => Sender::plain(target, native(&self.h265), rtp),
                }
            })
            .collect()
    }

    fn clone_refs(&self) -> Templates {
        Templates {
            ts: Arc::clone(&self.ts),
            h264: Arc::clone(&self.h264),
            h265: Arc::clone(&self.h265),
        }
    }
}

/// How a line is encrypted.
fn security(line: Line) -> Option<SrtSecurity> {
    let Line::Sealed(cipher) = line else {
        return None;
    };
    Some(SrtSecurity {
        passphrase: Passphrase::new(contender::PASSPHRASE).ok()?,
        key_length: Some(KeyLength::Aes128),
        cipher,
    })
}

/// How long traffic runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(1_500);

fn measure(
    contender: Contender,
    settings: &Settings,
    engine: Option<&std::path::Path>,
    templates: &Templates,
) -> Result<Sample> {
    let mut running = contender.start(settings, engine)?;
    let (templates, ports, traffic, streams) = (
        templates.clone_refs(),
        running.ports(),
        contender.traffic(),
        settings.streams,
    );
    let make = move |now| templates.senders(traffic, &ports, streams, now);
    let generator = Generator::start(make, settings.burst, Some(settings.generator_core))?;
    let progress = generator::await_connected(&generator, Duration::from_secs(10))
        .context("senders did not connect in 10 s")?;
    if let Some(error) = progress.senders.iter().find_map(|s| sender_error(s.phase)) {
        bail!("a sender failed: {error}");
    }
    generator.send();
    std::thread::sleep(WARM_UP);
    running.reset_latency();
    let before = Reading::take(&mut running, &generator)?;
    let start = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(settings.seconds));
    let wall_ns = start.elapsed().as_nanos() as f64;
    let after = Reading::take(&mut running, &generator)?;
    let latency_us = running.latency();
    generator.hold();
    std::thread::sleep(Duration::from_millis(2_500));
    // asked before the sessions end: what a stream's end does to its record is not our subject
    let counted = running.received();
    let facts = running.loss_facts();
    let last = generator.stop();
    if let Some(error) = last.senders.iter().find_map(|s| sender_error(s.phase)) {
        bail!("a sender failed meanwhile: {error}");
    }
    let sent = last.packets();
    let received = counted.unwrap_or_else(|| {
        let missing = last
            .senders
            .iter()
            .map(|s| s.dropped + s.unacknowledged)
            .sum();
        sent.saturating_sub(missing)
    });
    running.stop();
    if let (true, Some(facts)) = (received < sent, facts) {
        let given_up: u64 = last.senders.iter().map(|s| s.dropped).sum();
        let again: u64 = last.senders.iter().map(|s| s.retransmitted).sum();
        eprintln!(
            "  {sent} sent ({given_up} given up, {again} sent again, latest turn {:.1} ms late), {received} received: {facts}",
            last.latest_turn_ns as f64 / 1e6
        );
    }
    let share = received as f64 / sent.max(1) as f64;
    let packets = match (before.received, after.received) {
        (Some(a), Some(b)) => (b - a) as f64,
        // the engine's own figures are a second old: what was sent in the window, less the loss
        _ => (after.sent - before.sent) as f64 * share.min(1.0),
    };
    let bytes_per_packet = last.payload_bytes() as f64 / sent.max(1) as f64;
    Ok(Sample {
        cpu_ns: (after.cpu.0 - before.cpu.0) as f64,
        whole_cpu_ns: (after.cpu.1 - before.cpu.1) as f64,
        packets,
        bytes: packets * bytes_per_packet,
        lost: sent.saturating_sub(received),
        generator_cpu: (after.generator_cpu_ns - before.generator_cpu_ns) as f64 / wall_ns * 100.0,
        latency_us,
    })
}

/// CPU and counts at one moment.
struct Reading {
    cpu: (u64, u64),
    sent: u64,
    received: Option<u64>,
    generator_cpu_ns: u64,
}

impl Reading {
    fn take(running: &mut Running, generator: &Generator) -> Result<Self> {
        let received = running.received_now()?;
        Ok(Reading {
            cpu: running.cpu_ns(),
            sent: generator.packets(),
            received,
            generator_cpu_ns: generator.progress().cpu_ns,
        })
    }
}

/// The median; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match (values.get(n / 2), n.is_multiple_of(2) && n > 0) {
        (Some(upper), true) => (values.get(n / 2 - 1).unwrap_or(upper) + upper) / 2.0,
        (Some(middle), false) => *middle,
        (None, _) => 0.0,
    }
}
