//! The command line: what is asked for, and what the exit code says of it: 0 everything as
//! expected, 1 something failed or an expectation does not hold, 2 wrong use or scenario.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::scenario::Scenario;
use crate::{bench, flood, impairment, relay, run, units};

/// Exit code of wrong use.
const WRONG_USE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "mirror-loadtest",
    version,
    about = "Load generator and benchmark for mirror-ingest"
)]
#[command(
    after_help = "Exit codes: 0 as expected, 1 failed or not as expected, 2 wrong use or scenario."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a scenario's streams and compare what was sent with what the engine received
    Run(RunArgs),
    /// Measure the engine's CPU per packet against raw sockets, in one interleaved run
    Bench(Box<BenchArgs>),
    /// Send bad datagrams at a steady rate
    #[command(hide = true)]
    Flood(FloodArgs),
    /// Pass datagrams between two programs, with loss, delay and whatever else a line does
    Relay(Box<RelayArgs>),
    /// The receiver behind the floor rows of bench
    #[command(hide = true)]
    FloorReceiver(bench::floor::ReceiverArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Scenario file (TOML)
    scenario: PathBuf,
    /// The engine's HTTP API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    target: String,
    /// File with the API's bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Do not ask the engine: only what the senders know is reported and judged
    #[arg(long)]
    no_api: bool,
    /// Send for so long instead of the scenario's duration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    seconds: Option<u64>,
    /// Pin the generator's thread to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// The engine's process on this host, where it cannot be found by its name
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a web page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Rounds; the order of the rows rotates, the result is the median
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds measured for each row in each round
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Streams
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
    streams: u32,
    /// Bit rate of each stream
    #[arg(long, value_name = "RATE", default_value = "50Mb", value_parser = parse_rate)]
    rate: u64,
    /// Microseconds between two turns of a sender, which sends what became due since the last one
    /// (in one segmented send, and UDP_GRO joins no more than that)
    #[arg(long, value_name = "US", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=20_000))]
    burst: u64,
    /// Only these rows, comma-separated (the floors are always measured)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Instead of rows: how many streams one shard carries without loss, in steps of --streams
    #[arg(long)]
    capacity: bool,
    /// The engine's binary; default: mirror-ingest beside this one
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Core of the receivers (the engine's shard)
    #[arg(long, default_value_t = 1)]
    shard_core: usize,
    /// Core of the generator and the engine's control side
    #[arg(long, default_value_t = 0)]
    generator_core: usize,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct FloodArgs {
    /// Where to: udp://host:port
    #[arg(long, value_name = "URL")]
    target: String,
    /// What: random bytes, valid packets cut short, or valid packets with bits changed
    #[arg(long, value_enum)]
    kind: flood::Kind,
    /// Datagrams a second
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// Datagrams in all
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// The same seed gives the same datagrams
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Allow targets other than this host's loopback
    #[arg(long)]
    i_know_what_i_do: bool,
}

/// Options that name an impairment apply to both directions.
#[derive(Debug, Args)]
struct RelayArgs {
    /// Where clients send to; port 0: any free one (printed at the start)
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Where it goes
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// The same seed gives the same course
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Loss of each datagram, like 5%
    #[arg(long, value_name = "SHARE")]
    loss: Option<String>,
    /// Bursts of loss: probability that one begins, that it ends, and loss in it (100%), per
    /// datagram; bursts last 1/LEAVE datagrams
    #[arg(long, value_name = "ENTER,LEAVE[,LOSS]")]
    burst: Option<String>,
    /// Lose every N-th datagram
    #[arg(long, value_name = "N")]
    drop_every: Option<String>,
    /// Lose everything for a time, like 2s+300ms or 2s+300ms/10s
    #[arg(long, value_name = "AFTER+LENGTH[/EVERY]")]
    outage: Option<String>,
    /// Hold this share of the datagrams back
    #[arg(long, value_name = "SHARE")]
    reorder: Option<String>,
    /// Until so many later ones have passed
    #[arg(long, value_name = "N")]
    reorder_packets: Option<String>,
    /// For so long (with --reorder-packets: at most)
    #[arg(long, value_name = "TIME")]
    reorder_delay: Option<String>,
    /// Send this share of the datagrams twice
    #[arg(long, value_name = "SHARE")]
    duplicate: Option<String>,
    /// Flip a bit in this share of the datagrams
    #[arg(long, value_name = "SHARE")]
    corrupt: Option<String>,
    /// Delay, like 50ms
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
    /// Random delay besides, from 0 to this; keeps the order
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// A bottleneck, bits a second
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// Its queue, bytes (256KiB)
    #[arg(long, value_name = "SIZE")]
    queue: Option<String>,
    /// An impairment from the clients to the target only, like loss=5%; overrules the common one
    #[arg(long, value_name = "WORD=VALUE")]
    forward: Vec<String>,
    /// The same for the way back
    #[arg(long, value_name = "WORD=VALUE")]
    backward: Vec<String>,
    /// Change a client's outgoing port so long after its first datagram, and again each EVERY
    #[arg(long, value_name = "AFTER[/EVERY]")]
    rebind: Option<String>,
    /// End after so long; default: at SIGTERM or SIGINT
    #[arg(long = "for", value_name = "TIME")]
    run_for: Option<String>,
}

impl RelayArgs {
    fn settings(&self) -> Result<relay::Settings, String> {
        let common = [
            ("loss", &self.loss),
            ("burst", &self.burst),
            ("drop-every", &self.drop_every),
            ("outage", &self.outage),
            ("reorder", &self.reorder),
            ("reorder-packets", &self.reorder_packets),
            ("reorder-delay", &self.reorder_delay),
            ("duplicate", &self.duplicate),
            ("corrupt", &self.corrupt),
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("rate", &self.rate),
            ("queue", &self.queue),
        ];
        let mut both = mirror_netem::Config::default();
        for (word, value) in common {
            if let Some(value) = value {
                impairment::set(&mut both, word, value)
                    .map_err(|allowed| format!("--{word} {value}: {allowed}"))?;
            }
        }
        let direction = |option: &str, pairs: &[String]| {
            let mut config = both;
            for pair in pairs {
                let set = pair.split_once('=').ok_or("must be WORD=VALUE".to_owned());
                set.and_then(|(word, value)| impairment::set(&mut config, word, value))
                    .map_err(|allowed| format!("--{option} {pair}: {allowed}"))?;
            }
            Ok::<_, String>(config)
        };
        let time = |option: &str, text: &str| {
            let value = units::duration(text).filter(|d| !d.is_zero());
            value.ok_or_else(|| format!("--{option} {text}: must be a duration like 2s"))
        };
        let (rebind, rebind_every) = match &self.rebind {
            None => (None, None),
            Some(text) => match text.split_once('/') {
                None => (Some(time("rebind", text)?), None),
                Some((after, every)) => {
                    (Some(time("rebind", after)?), Some(time("rebind", every)?))
                }
            },
        };
        Ok(relay::Settings {
            listen: self.listen,
            to: self.to,
            impairment: impairment::Impairment {
                forward: direction("forward", &self.forward)?,
                backward: direction("backward", &self.backward)?,
                seed: self.seed,
            },
            rebind,
            rebind_every,
            run_for: self
                .run_for
                .as_deref()
                .map(|t| time("for", t))
                .transpose()?,
        })
    }
}

/// Prints where it listens as one line of JSON, and at its end what it did as another.
fn run_relay(args: &RelayArgs) -> Result<bool, Failure> {
    let settings = args.settings().map_err(Failure::Use)?;
    let listen = settings.listen;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(anyhow::Error::from)?;
    }
    let relay =
        relay::Relay::open(settings).with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", serde_json::json!({ "listen": relay.listen() }));
    let report = relay.run(&stop).map_err(anyhow::Error::from)?;
    println!(
        "{}",
        serde_json::to_string(&report).map_err(anyhow::Error::from)?
    );
    Ok(true)
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = units::bitrate(text).filter(|r| (100_000..=2_000_000_000).contains(r));
    rate.ok_or_else(|| "must be bits a second like 50Mb, from 100kb to 2Gb".to_owned())
}

/// Runs the command line; the exit code is the answer.
pub fn main() -> ExitCode {
    // clap ends the process with 2 for wrong use, 0 for --help
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::Use(text)) => {
            eprintln!("{text}");
            ExitCode::from(WRONG_USE)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("mirror-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    Use(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Failed(error)
    }
}

fn dispatch(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Run(args) => run_scenario(args),
        Command::Bench(args) => {
            let args = *args;
            let settings = bench::Settings {
                rounds: args.rounds as usize,
                seconds: args.seconds,
                streams: args.streams as usize,
                bitrate_bps: args.rate,
                burst: Duration::from_micros(args.burst),
                only: args.only,
                engine: args.engine,
                shard_core: args.shard_core,
                generator_core: args.generator_core,
                gro: false,
                json: args.json,
            };
            if let Some(fault) = settings.fault() {
                return Err(Failure::Use(fault));
            }
            if args.capacity {
                return Ok(bench::capacity::run(&settings)?);
            }
            Ok(bench::run(&settings)?)
        }
        Command::Flood(args) => {
            let target =
                flood::target(&args.target, args.i_know_what_i_do).map_err(Failure::Use)?;
            let sent = flood::run(target, args.kind, args.rate, args.count, args.seed)
                .map_err(anyhow::Error::from)?;
            println!("{sent}");
            Ok(true)
        }
        Command::Relay(args) => run_relay(&args),
        Command::FloorReceiver(args) => {
            bench::floor::receive(&args)?;
            Ok(true)
        }
    }
}

fn run_scenario(args: RunArgs) -> Result<bool, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|e| Failure::Use(format!("{}: {e}", path.display())))
    };
    let text = read(&args.scenario)?;
    let scenario = Scenario::parse(&args.scenario.display().to_string(), &text)
        .map_err(|e| Failure::Use(e.to_string()))?;
    let token = args
        .token_file
        .as_ref()
        .map(read)
        .transpose()?
        .map(|t| t.trim().to_owned());
    if !args.no_api
        && let Err(error) = crate::api::Api::new(&args.target, None)
    {
        return Err(Failure::Use(format!("--target {error:#}")));
    }
    let options = run::Options {
        target: (!args.no_api).then_some(args.target),
        token,
        seconds: args.seconds,
        core: args.core,
        pid: args.pid,
        json: args.json,
        html: args.html,
    };
    Ok(run::run(scenario, &options)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_relays_options_apply_to_both_directions_unless_one_is_named() {
        let parse = |more: &[&str]| {
            let base = [
                "x",
                "relay",
                "--listen",
                "127.0.0.1:0",
                "--to",
                "127.0.0.1:9",
            ];
            let cli = Cli::try_parse_from(base.iter().chain(more)).unwrap();
            let Command::Relay(args) = cli.command else {
                panic!("not relay")
            };
            args.settings()
        };
        let s = parse(&["--loss", "5%", "--backward", "loss=1%", "--rebind", "2s/3s"]).unwrap();
        let loss = (s.impairment.forward.loss, s.impairment.backward.loss);
        assert_eq!(loss, (0.05, 0.01));
        assert_eq!(s.rebind_every, Some(std::time::Duration::from_secs(3)));
        for wrong in [["--loss", "6"], ["--forward", "loss"], ["--for", "x"]] {
            let error = parse(&wrong).unwrap_err();
            assert!(
                error.starts_with(wrong[0]) && error.contains("must be"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bad_scenario_is_wrong_use_and_an_absent_engine_a_failure() {
        // <target>/<profile>/deps/<test binary>: what a killed run leaves is the next one's.
        let target = std::env::current_exe().unwrap();
        let dir = target
            .ancestors()
            .nth(3)
            .unwrap()
            .join("tmp/mirror-loadtest-cli");
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("bad.toml");
        std::fs::write(&file, "duration = \"10\"\n").unwrap();
        let outcome = |args: &[&str]| dispatch(Cli::try_parse_from(args).unwrap().command);
        let bad = file.to_string_lossy().into_owned();
        let Err(Failure::Use(text)) = outcome(&["x", "run", &bad]) else {
            panic!("not wrong use")
        };
        assert_eq!(text.lines().count(), 2, "{text}");
        let good = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../configs/loadtest/smoke.toml"
        );
        // port 1 on loopback: nothing answers there
        let absent = outcome(&["x", "run", good, "--target", "http://127.0.0.1:1"]);
        assert!(matches!(absent, Err(Failure::Failed(_))));
        assert!(matches!(
            outcome(&["x", "run", good, "--target", "ftp://x"]),
            Err(Failure::Use(_))
        ));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
