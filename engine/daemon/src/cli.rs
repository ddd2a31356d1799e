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
    /// Run files through the engine's cores, in the files' own time, and print what it would have
    /// seen.
    #[command(after_help = "\
Files: captures (pcap, pcapng) of SRT, RTP and MPEG-TS over UDP; MPEG-TS (packets of 188, 192 or\n\
204 bytes); H.264, HEVC and MPEG-2 video with start codes (Annex B); AV1 (OBU, IVF); JPEG XS; KLV.\n\
The content tells the kind, not the name. Files are read piece by piece, whatever their size.\n\
Exit codes: 0 all files were read, 1 a file could not be read or breaks its format, 2 wrong use.\n\
With --json one object is printed for each file, a line each.")]
    Inspect(InspectOptions),
}

/// What to look into.
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectOptions {
    /// Files to look into; "-" is standard input (what a pipe brings is kept on disk meanwhile).
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Passphrase of encrypted SRT connections, 10 to 79 characters.
    #[arg(long, value_name = "P")]
    pub(crate) passphrase: Option<String>,
    /// Session description (SDP) of RTP in captures: names payload types that their bits do not
    /// tell (AAC, PCM, Opus, KLV).
    #[arg(long, value_name = "FILE")]
    pub(crate) sdp: Option<PathBuf>,
    /// Print JSON, one object a line for each file.
    #[arg(long)]
    pub(crate) json: bool,
    /// With --json: list every unit (times, type, bytes) of every track.
    #[arg(long, requires = "json")]
    pub(crate) units: bool,
    /// With --json: list packets: RTP, RTCP, ACKs and NAKs of SRT, the contents of PSI sections.
    #[arg(long, requires = "json")]
    pub(crate) packets: bool,
    /// How long a PID may be missing before TR 101 290 counts it (1.6, which leaves it to the
    /// user).
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) pid_timeout: u64,
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
