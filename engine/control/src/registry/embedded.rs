//! The registry of an engine that stands alone: the control thread's own state is the registry,
//! so every claim is granted (the stream directory already keeps ids apart within the process)
//! and there is nothing to write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mirror_base::StreamId;

use super::{Claim, Health, Registry, Write};

/// This process only.
#[derive(Debug, Default)]
pub(crate) struct Embedded {
    operations: AtomicU64,
    events: AtomicU64,
}

impl Registry for Embedded {
    fn claim(&self, _ticket: u64, _stream_id: &StreamId, _created_us: i64) -> Claim {
        self.operations.fetch_add(1, Ordering::Relaxed);
        Claim::Granted
    }

    fn abandon(&self, _stream_id: &StreamId) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, write: Write) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        if write.event.is_some() {
            self.events.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn health(&self) -> Health {
        Health {
            backend: "embedded",
            usable: true,
            operations: self.operations.load(Ordering::Relaxed),
            events_published: self.events.load(Ordering::Relaxed),
            ..Health::default()
        }
    }

    fn shutdown(&self, _within: Duration) {}
}
