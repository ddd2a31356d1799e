//! The command line: what is asked for, and what the exit code says of it: 0 everything as
//! expected, 1 something failed or an expectation does not hold, 2 wrong use or scenario.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::scenario::Scenario;
use crate::{bench, flood, run, units};

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
    Bench(BenchArgs),
    /// Send bad datagrams at a steady rate
    #[command(hide = true)]
    Flood(FloodArgs),
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
    /// Only these rows, comma-separated (the floors are always measured)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
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
            let settings = bench::Settings {
                rounds: args.rounds as usize,
                seconds: args.seconds,
                streams: args.streams as usize,
                bitrate_bps: args.rate,
                only: args.only,
                engine: args.engine,
                shard_core: args.shard_core,
                generator_core: args.generator_core,
                json: args.json,
            };
            if let Some(fault) = settings.fault() {
                return Err(Failure::Use(fault));
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
    fn a_bad_scenario_is_wrong_use_and_an_absent_engine_a_failure() {
        let dir = std::env::temp_dir().join(format!("mirror-loadtest-cli-{}", std::process::id()));
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
