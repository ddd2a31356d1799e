//! `mirror-ingest`: the engine's binary. Parses and validates, probes the host, pins, runs and
//! drains. Exit codes: 0 fine, 1 the thing failed, 2 wrong use or configuration.

mod budget;
mod check;
mod cli;
mod inspect;
mod log;
mod placement;
mod run;
mod setup;
mod signals;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nothing can be done if even the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let outcome = match cli.command {
        cli::Command::Run(options) => run::run(&options),
        cli::Command::Config(options) => setup::print_config(&options),
        cli::Command::Check(options) => setup::check(&options),
        cli::Command::Inspect(options) => inspect::run(&options),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("mirror-ingest: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ends badly, and with which exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1: the thing failed; 2: wrong use, configuration or host.
    pub(crate) code: u8,
    /// For people.
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// Wrong use, configuration or host.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            code: 2,
            error: error.into(),
        }
    }

    /// The thing failed while it ran.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            code: 1,
            error: error.into(),
        }
    }
}
