//! Logging: text or JSON lines on standard error, with a level that a reload can change.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// Changes the level of a running engine.
#[derive(Debug)]
pub(crate) struct LogLevel(reload::Handle<LevelFilter, Registry>);

impl LogLevel {
    /// From now on `level`.
    pub(crate) fn set(&self, level: LevelFilter) {
        if let Err(error) = self.0.modify(|l| *l = level) {
            tracing::warn!(%error, "log level was not changed");
        }
    }
}

/// Starts logging; once a process.
pub(crate) fn start(level: LevelFilter, json: bool) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()?;
    Ok(LogLevel(handle))
}
