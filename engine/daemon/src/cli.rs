//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Mirror Ingest: live SRT and RTP ingest on pinned shards.
#[derive(Debug, Parser)]
#[command(
    name = "mirror-ingest",
    version,
    about,
    after_help = "\
Exit codes: 0 fine, 1 the thing failed, 2 wrong use or configuration.\n\
Without --config the embedded defaults are used: SRT on [::]:30000, RTP on [::]:5004 (RTCP 5005),\n\
the HTTP API on http://127.0.0.1:8080."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine. SIGTERM and SIGINT drain; a second one exits at once.
    Run(ConfigOptions),
    /// Validate the configuration and print what is in force.
    Config(PrintOptions),
    /// Look at the host against the core map: ok, warn or fail, with the command that mends it.
    Check(PrintOptions),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigOptions {
    /// Configuration file (TOML). Default: the embedded defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Core map (TOML), or "auto" to fit whatever cores there are.
    #[arg(long, value_name = "FILE|auto")]
    pub(crate) pinning: Option<String>,
    /// Overrides one key, e.g. --set srt.latency=80ms. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Configuration and form of output.
#[derive(Debug, Clone, Args)]
pub(crate) struct PrintOptions {
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
