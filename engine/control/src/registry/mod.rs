//! The registry: which streams exist, told to the world (product contract, sections 2 and 5).
//! Behind the trait stand an embedded backend, which knows this process only, and Redis. None
//! of the trait's functions waits: ingest is never touched by a registry that is dead, hung or
//! late. Called by the control thread only.

mod embedded;
mod redis;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crossbeam_channel::Sender;
use mirror_base::StreamId;
use serde_json::Value;

use crate::config::{Backend, Config};

pub(crate) use embedded::Embedded;
pub(crate) use redis::RedisRegistry;

/// Answers to claims, and conflicts found later, on their way to the control thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The id is ours.
    Granted { ticket: u64 },
    /// Another instance has the id.
    Held { ticket: u64, by: String },
    /// Could not be asked; the id is ours until the registry says otherwise (D14).
    Provisional { ticket: u64 },
    /// Another instance held the id earlier: our session has to go (D14).
    Lost { stream_id: StreamId, to: String },
}

/// A claim's immediate outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The id is ours.
    Granted,
    /// A [`Notice`] with the ticket follows.
    Pending,
    /// The registry cannot be asked now: ours until it says otherwise.
    Provisional,
}

/// One change, to be written at once where the registry can, else merged with later ones.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) stream_id: StreamId,
    /// The record, or `None` to remove it.
    pub(crate) record: Option<Value>,
    /// Whether the stream counts as live (holds its claim, is in the active set).
    pub(crate) live: bool,
    /// When the stream came into being, µs since 1970: the earlier claim wins.
    pub(crate) created_us: i64,
    /// How long the record lives unless it is refreshed.
    pub(crate) ttl: Duration,
    /// What happened, for subscribers.
    pub(crate) event: Option<EventRecord>,
}

/// An event as subscribers see it (product contract, section 5).
#[derive(Clone, Debug)]
pub(crate) struct EventRecord {
    /// "stream.created" and so on.
    pub(crate) kind: &'static str,
    /// RFC 3339.
    pub(crate) timestamp: String,
    pub(crate) data: Value,
    pub(crate) seq: u64,
}

/// How the registry does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// "embedded" or "redis".
    pub(crate) backend: &'static str,
    pub(crate) usable: bool,
    pub(crate) last_error: Option<String>,
    /// Streams whose last state is not written yet.
    pub(crate) pending: usize,
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    pub(crate) events_published: u64,
    pub(crate) events_dropped: u64,
    pub(crate) reconnects: u64,
    /// Time spent in operations, µs.
    pub(crate) busy_us: u64,
}

/// What control asks of a registry. Nothing here blocks.
pub(crate) trait Registry: Send + Sync + std::fmt::Debug {
    /// Claims an id for this instance.
    fn claim(&self, ticket: u64, stream_id: &StreamId, created_us: i64) -> Claim;
    /// Gives up a claim whose stream never started.
    fn abandon(&self, stream_id: &StreamId);
    /// Notes a stream's state, and an event.
    fn write(&self, write: Write);
    /// How it does.
    fn health(&self) -> Health;
    /// Writes what is pending, for `within` at most, and ends.
    fn shutdown(&self, within: Duration);
}

/// The configured backend. Notices go to `notices`.
pub(crate) fn open(config: &Config, notices: Sender<Notice>) -> std::io::Result<Box<dyn Registry>> {
    Ok(match config.registry.backend {
        Backend::Embedded => Box::new(Embedded::default()),
        Backend::Redis => Box::new(RedisRegistry::start(config, notices)?),
    })
}
