//! The control side of the engine: configuration, stream directory, registry, HTTP API and
//! metrics. It may be slow, may block, may lose Redis: a shard never waits for it. It knows the
//! shards by the commands, events and snapshots of [`mirror_stream::report`] only; the daemon
//! wires both together:
//!
//! 1. [`Config::load`](config::Config::load) and [`Pinning::load`](config::Pinning::load);
//! 2. a [`Directory`], which the shards get as `Arc<dyn StreamDirectory>`;
//! 3. [`Control::start`] with the shards' mailboxes and the receiving end of their events;
//! 4. at the end [`ControlHandle::drain`], then [`ControlHandle::shutdown`].

mod api;
#[cfg(test)]
mod auth_tests;
mod authorise;
mod caller;
mod clock;
pub mod config;
mod directory;
mod health;
mod keys;
mod media_stats;
mod metrics;
mod process;
mod record;
mod registry;
mod rtp_stats;
mod runtime;
#[cfg(test)]
mod runtime_tests;
mod srt_stats;
mod state;
#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use mirror_base::ShardId;
use mirror_stream::report::{Command, Event};

pub use clock::now;
pub use config::{Config, ConfigErrors, Pinning, PinningSource, Sources};
pub use directory::{Directory, RESERVATION_TTL};

use api::{Api, ApiCounters, Service};
use caller::Callers;
use keys::KeyDesk;
use record::Context;
use registry::Registry;
use state::{SharedState, State, lock};

/// A command could not be given to a shard: it is gone, or its mailbox is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shard {0} takes no commands")]
pub struct Undeliverable(pub ShardId);

/// The shards' mailboxes, as the daemon implements them. Must not block.
pub trait Mailboxes: Send + Sync + std::fmt::Debug {
    /// How many shards there are.
    fn shards(&self) -> usize;
    /// Gives a shard a command and wakes it.
    fn send(&self, shard: ShardId, command: Command) -> Result<(), Undeliverable>;
}

/// Why control could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP address cannot be bound.
    #[error("api.listen = \"{address}\": {error}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// The system's answer.
        error: std::io::Error,
    },
    /// A thread could not be started, or the like.
    #[error("control cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// What a shard needs at the most from its deadline to its last event.
const SHARD_ENDS_WITHIN: Duration = Duration::from_millis(250);

/// A shard that ended.
#[derive(Clone, Debug)]
pub struct ShardStopped {
    /// Which.
    pub shard: ShardId,
    /// What went wrong, if anything.
    pub error: Option<String>,
}

/// The control side, to be started.
#[derive(Debug)]
pub struct Control;

/// The running control side.
#[derive(Debug)]
pub struct ControlHandle {
    mailboxes: Arc<dyn Mailboxes>,
    state: SharedState,
    registry: Arc<dyn Registry>,
    stop: Arc<AtomicBool>,
    wake: Sender<()>,
    stopped: Receiver<ShardStopped>,
    api: Option<Api>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the control thread, the registry and the HTTP API. Threads are not pinned: they
    /// inherit the affinity of the caller, which the daemon sets to the control cores first.
    pub fn start(
        config: Arc<Config>,
        mailboxes: Arc<dyn Mailboxes>,
        events: Receiver<Event>,
        directory: Arc<Directory>,
    ) -> Result<ControlHandle, StartError> {
        let shards = mailboxes.shards();
        let context = Context {
            instance: config.instance.clone(),
            ttl_seconds: config.registry.ttl.as_secs_f64(),
        };
        let state: SharedState = Arc::new(Mutex::new(State::new(shards, context)));
        let (notice_sender, notices) = crossbeam_channel::unbounded();
        let registry: Arc<dyn Registry> =
            Arc::from(registry::open(&config, notice_sender.clone())?);
        let (work_sender, work) = crossbeam_channel::unbounded();
        let keys = KeyDesk::start(work_sender.clone())?;
        let now = clock::now();
        let callers = Callers::new(now, &config.srt.callers, work_sender);
        for caller in &config.srt.callers {
            callers.stand_by(now, &state, &caller.id);
        }
        let service = Arc::new(Service {
            keys: keys.counters(),
            config: config.clone(),
            state: state.clone(),
            directory: directory.clone(),
            mailboxes: mailboxes.clone(),
            registry: registry.clone(),
            started: clock::now(),
            counters: ApiCounters::default(),
            asking: AtomicUsize::new(0),
            rendered: Mutex::new(None),
        });
        let address = config.api.listen;
        let api = Api::start(service).map_err(|error| StartError::Listen { address, error })?;
        tracing::info!(address = %api.address(), "HTTP API");
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = bounded(1);
        let (stopped_sender, stopped) = bounded(shards.max(1) * 2);
        let runtime = runtime::Runtime {
            config,
            state: state.clone(),
            directory,
            mailboxes: mailboxes.clone(),
            registry: registry.clone(),
            stopped: stopped_sender,
            stop: stop.clone(),
            pending: HashMap::new(),
            deriving: HashMap::new(),
            keys,
            callers,
            next_ticket: 1,
            next_seq: 1,
            next_heartbeat: clock::now(),
            connections: 0,
            usage: process::Meter::default(),
            refusal_log: runtime::LogLimit::default(),
            stream_log: runtime::LogLimit::default(),
            granted: HashMap::new(),
            admitted: HashMap::new(),
            // The channel of notices must not close while the embedded backend has no sender.
            _notices: notice_sender,
            wake: woken,
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || runtime.run(&events, &notices, &work))?;
        Ok(ControlHandle {
            mailboxes,
            state,
            registry,
            stop,
            wake,
            stopped,
            api: Some(api),
            thread: Some(thread),
        })
    }
}

impl ControlHandle {
    /// Where the HTTP API listens.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api.as_ref().map(Api::address)
    }

    /// Shards that ended, in order: during a drain, or because they failed.
    pub fn stopped(&self) -> &Receiver<ShardStopped> {
        &self.stopped
    }

    /// Tells every shard to drain and waits until all have ended, `within` at most. Publishers
    /// are refused and `/readyz` says so meanwhile. Returns the shards that ended in time: those
    /// that still hold packets end them by force a little earlier.
    pub fn drain(&self, within: Duration) -> Vec<ShardStopped> {
        lock(&self.state).draining = true;
        let deadline = std::time::Instant::now() + within.max(SHARD_ENDS_WITHIN * 2);
        let within = within.saturating_sub(SHARD_ENDS_WITHIN);
        let mut waiting = 0;
        for shard in 0..self.mailboxes.shards() {
            let shard = ShardId(u16::try_from(shard).unwrap_or(u16::MAX));
            if self
                .mailboxes
                .send(shard, Command::Drain { within })
                .is_ok()
            {
                waiting += 1;
            }
        }
        let mut ended = Vec::new();
        while ended.len() < waiting {
            match self.stopped.recv_deadline(deadline) {
                Ok(stopped) => ended.push(stopped),
                Err(_) => break,
            }
        }
        ended
    }

    /// Ends control: streams that are left are deregistered, what is pending is written for
    /// `within` at most, and all threads end.
    pub fn shutdown(mut self, within: Duration) {
        self.end(within);
    }

    fn end(&mut self, within: Duration) {
        if let Some(api) = self.api.take() {
            api.stop();
        }
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.registry.shutdown(within);
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(Duration::from_millis(500));
        }
    }
}
