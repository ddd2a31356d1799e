//! From configuration to running shards (design, section 3 and D1): binds every socket in bind
//! order, starts one pinned thread a shard, and on each runs the loop as the one hot task of a
//! glommio executor, which gets a turn for its other tasks now and then.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use mirror_base::{Instant, ShardId, StreamId};
use mirror_stream::report::{Command, Event, SharedDirectory};
use mirror_uring::{
    BindError, ChunkPool, Headroom, Reactor, SetupError, Steering, UdpSocket, bind_group,
};

use crate::config::ShardsConfig;
use crate::driver::{Clock, MonotonicClock};
use crate::mailbox::{Busy, Mail, Mailboxes};
use crate::shard::{Role, Shard, ShardParts, Turn};

/// The executor's other tasks get a turn so often while datagrams flow (D1).
const YIELD_BUSY: Duration = Duration::from_millis(10);
/// And so often while the shard has no stream: nothing waits for such a turn.
const YIELD_IDLE: Duration = Duration::from_secs(1);
/// glommio's buffers for file I/O, bytes: recordings are small writes; its default of 10 MiB a
/// shard would be locked for nothing.
const EXECUTOR_MEMORY: usize = 1 << 20;
/// A shard that does not report in this time after its start has hung in the kernel.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the shards could not be started, and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The core map is empty.
    #[error("no shard is configured")]
    NoShards,
    /// Neither SRT nor RTP is enabled.
    #[error("neither SRT nor RTP is enabled: nothing to listen on")]
    NothingToDo,
    /// The host cannot run the rings.
    #[error(transparent)]
    Host(#[from] SetupError),
    /// A socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A shard's core cannot be had.
    #[error(
        "shard {shard} cannot be pinned to core {core}: {reason}; choose one of the cores {allowed} in the core map, or start the engine with `--pinning auto`"
    )]
    Pin {
        /// Which shard.
        shard: ShardId,
        /// The core it was to have.
        core: u32,
        /// Why not.
        reason: String,
        /// Cores that this process may use.
        allowed: String,
    },
    /// The executor could not be set up.
    #[error(
        "shard {shard}: the executor cannot be set up: {reason}; if it is the memlock limit: `ulimit -l unlimited`, or `LimitMEMLOCK=infinity` in the service unit"
    )]
    Executor {
        /// Which shard.
        shard: ShardId,
        /// What glommio said.
        reason: String,
    },
    /// The ring could not be set up.
    #[error("shard {shard}: {source}")]
    Ring {
        /// Which shard.
        shard: ShardId,
        /// Why.
        source: SetupError,
    },
    /// Packet memory could not be had.
    #[error(
        "shard {shard}: {bytes} bytes of packet memory cannot be had: {source}; lower `memory.total`, or reserve huge pages with `sysctl vm.nr_hugepages`"
    )]
    Memory {
        /// Which shard.
        shard: ShardId,
        /// How much was asked for.
        bytes: usize,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The scheduling class is refused.
    #[error(
        "shard {shard} cannot have the policy fifo {priority}: {reason}; it needs CAP_SYS_NICE (`setcap cap_sys_nice+ep` on the binary) or `LimitRTPRIO={priority}` in the service unit"
    )]
    Policy {
        /// Which shard.
        shard: ShardId,
        /// What was asked for.
        priority: u8,
        /// What the kernel said.
        reason: std::io::Error,
    },
    /// A configured RTP session cannot be opened.
    #[error("the RTP session {stream_id} cannot be opened: {reason}")]
    Session {
        /// Which.
        stream_id: StreamId,
        /// What the host refused.
        reason: String,
    },
    /// A thread could not be started, or died while starting.
    #[error("shard {shard}: {reason}")]
    Thread {
        /// Which shard.
        shard: ShardId,
        /// What happened.
        reason: String,
    },
}

/// A bound socket, as the operator may want to know it.
#[derive(Clone, Copy, Debug)]
pub struct BoundSocket {
    /// Whose.
    pub shard: ShardId,
    /// "srt", "rtp" or "rtcp".
    pub role: &'static str,
    /// Where.
    pub local: SocketAddr,
    /// Receive buffer granted, bytes.
    pub receive_buffer: usize,
    /// The host has no IPv6: bound to IPv4 instead of what was asked for.
    pub ipv4_only: bool,
}

/// The running shards.
#[derive(Debug)]
pub struct Shards {
    mailboxes: Mailboxes,
    threads: Vec<JoinHandle<()>>,
    sockets: Vec<BoundSocket>,
}

impl Shards {
    /// Hands `command` to `shard`.
    ///
    /// # Errors
    /// [`Busy`] when its mailbox is full or it has ended.
    pub fn send(&self, shard: ShardId, command: Command) -> Result<(), Busy> {
        self.mailboxes.send(shard, command)
    }

    /// Number of shards.
    pub fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Whether there is no shard.
    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
    }

    /// A handle for other threads.
    pub fn mailboxes(&self) -> Mailboxes {
        self.mailboxes.clone()
    }

    /// What is bound, in bind order by role.
    pub fn sockets(&self) -> &[BoundSocket] {
        &self.sockets
    }

    /// Waits until every shard has ended (after [`Command::Drain`]).
    pub fn join(self) {
        for thread in self.threads {
            // A shard that panicked has said so in its last event.
            let _ = thread.join();
        }
    }
}

/// Binds, starts and pins the shards. When this returns they receive.
///
/// # Errors
/// [`LaunchError`]: nothing runs and nothing stays bound.
pub fn launch(
    config: ShardsConfig,
    directory: SharedDirectory,
    events: Sender<Event>,
) -> Result<Shards, LaunchError> {
    let count = config.shards.len();
    if count == 0 {
        return Err(LaunchError::NoShards);
    }
    if config.srt.is_none() && config.rtp.is_none() {
        return Err(LaunchError::NothingToDo);
    }
    mirror_uring::probe_for(count, &config.reactor)?;
    let (per_shard, sockets) = bind_all(&config)?;
    let (mailboxes, mails) = Mailboxes::new(count);
    let set_aside = config.pool_bytes_per_shard.saturating_mul(count);
    let headroom = Headroom::new(config.pool_bytes_total.saturating_sub(set_aside));
    let config = Arc::new(config);
    let mut starts = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    let mut failure = None;
    for (index, (sockets, mail)) in per_shard.into_iter().zip(mails).enumerate() {
        let id = ShardId(index as u16);
        let (report, reported) = crossbeam_channel::bounded(1);
        let (go, started) = crossbeam_channel::bounded::<()>(1);
        let seat = Seat {
            id,
            config: config.clone(),
            directory: directory.clone(),
            mailboxes: mailboxes.clone(),
            mail,
            events: events.clone(),
            sockets,
            headroom: headroom.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{id}"))
            .spawn(move || seat.run(&report, &started));
        match thread {
            Ok(thread) => threads.push(thread),
            Err(e) => {
                failure = Some(LaunchError::Thread {
                    shard: id,
                    reason: e.to_string(),
                });
                break;
            }
        }
        starts.push((id, reported, go));
    }
    for (shard, reported, _) in &starts {
        let result = reported.recv_timeout(START_TIMEOUT).unwrap_or_else(|_| {
            let reason = "the thread ended or hung while it was starting".to_owned();
            Err(LaunchError::Thread {
                shard: *shard,
                reason,
            })
        });
        if let Err(error) = result {
            failure.get_or_insert(error);
        }
    }
    if let Some(error) = failure {
        // Threads whose `go` is dropped end by themselves, and with them their sockets close.
        drop(starts);
        for thread in threads {
            let _ = thread.join();
        }
        return Err(error);
    }
    for (_, _, go) in &starts {
        let _ = go.send(());
    }
    Ok(Shards {
        mailboxes,
        threads,
        sockets,
    })
}

/// Binds every group; returns the sockets of each shard, in the order of [`Role::of`].
fn bind_all(config: &ShardsConfig) -> Result<(Vec<Vec<UdpSocket>>, Vec<BoundSocket>), BindError> {
    let count = config.shards.len();
    let mut per_shard: Vec<Vec<UdpSocket>> = (0..count).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for role in Role::of(config) {
        let (listen, steering) = match role {
            Role::Srt => (config.srt.as_ref().map(|s| s.listen), Steering::Srt),
            Role::Rtp => (config.rtp.as_ref().map(|r| r.listen), Steering::Rtp),
            Role::Rtcp => (config.rtp.as_ref().map(|r| r.rtcp_listen), Steering::Rtcp),
            // Opened by the shard itself, when they are first needed.
            Role::Call | Role::Rendezvous | Role::Session | Role::Closed => (None, Steering::Srt),
        };
        let Some(listen) = listen else { continue };
        let (sockets, ipv4_only) = bind_group(listen, count, steering, &config.sockets)?;
        for (index, socket) in sockets.into_iter().enumerate() {
            bound.push(BoundSocket {
                shard: ShardId(index as u16),
                role: role.name(),
                local: socket.local_addr(),
                receive_buffer: socket.granted_receive_buffer(),
                ipv4_only,
            });
            if let Some(mine) = per_shard.get_mut(index) {
                mine.push(socket);
            }
        }
    }
    Ok((per_shard, bound))
}

/// What a shard's thread takes with it.
struct Seat {
    id: ShardId,
    config: Arc<ShardsConfig>,
    directory: SharedDirectory,
    mailboxes: Mailboxes,
    mail: Receiver<Mail>,
    events: Sender<Event>,
    sockets: Vec<UdpSocket>,
    /// What all shards may take beyond their pools.
    headroom: Headroom,
}

impl Seat {
    fn run(self, report: &Sender<Result<(), LaunchError>>, started: &Receiver<()>) {
        let (id, events) = (self.id, self.events.clone());
        match self.set_up() {
            Ok((executor, shard)) => {
                let _ = report.send(Ok(()));
                // The sender is dropped when another shard could not start.
                if started.recv().is_err() {
                    return;
                }
                let run = std::panic::AssertUnwindSafe(|| executor.run(run_loop(shard)));
                if std::panic::catch_unwind(run).is_err() {
                    let error = Some("a broken invariant outside of any session".to_owned());
                    let _ = events
                        .send_timeout(Event::Stopped { shard: id, error }, Duration::from_secs(1));
                }
            }
            Err(error) => {
                let _ = report.send(Err(error));
            }
        }
    }

    fn set_up(self) -> Result<(LocalExecutor, Shard<Reactor>), LaunchError> {
        let shard = self.id;
        let executor = executor(shard, self.config.shards[shard.index()].core)?;
        // Memory is touched on the shard's own core: it lies on that core's NUMA node.
        let bytes = self.config.pool_bytes_per_shard;
        let mut pool = ChunkPool::new(bytes, self.config.huge_pages).map_err(|source| {
            LaunchError::Memory {
                shard,
                bytes,
                source,
            }
        })?;
        pool.grow_from(self.headroom);
        if let Some(priority) = self.config.policy {
            mirror_uring::run_as_fifo(priority).map_err(|reason| LaunchError::Policy {
                shard,
                priority,
                reason,
            })?;
        }
        let mut options = self.config.reactor.clone();
        let sessions = self.config.sessions_of(shard);
        options.spare_sockets += sessions.map(|plan| plan.ports().count()).sum::<usize>();
        let reactor = Reactor::new(options, self.sockets)
            .map_err(|source| LaunchError::Ring { shard, source })?;
        let waker = reactor.waker();
        self.mailboxes
            .set_wake(shard, Box::new(move || waker.wake()));
        let parts = ShardParts {
            id: shard,
            config: self.config,
            directory: self.directory,
            mailboxes: self.mailboxes,
            mail: self.mail,
            events: self.events,
            pool,
        };
        let mut shard_loop = Shard::new(reactor, parts);
        shard_loop
            .open_sessions()
            .map_err(|(stream_id, reason)| LaunchError::Session { stream_id, reason })?;
        Ok((executor, shard_loop))
    }
}

/// The executor of this thread, pinned where a core is given.
fn executor(shard: ShardId, core: Option<u32>) -> Result<LocalExecutor, LaunchError> {
    let placement = match core {
        None => Placement::Unbound,
        Some(core) => {
            let allowed = allowed_cores();
            if !allowed.contains(&core) {
                return Err(LaunchError::Pin {
                    shard,
                    core,
                    reason: "this process may not run there".to_owned(),
                    allowed: listed(&allowed),
                });
            }
            Placement::Fixed(core as usize)
        }
    };
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{shard}"))
        .io_memory(EXECUTOR_MEMORY)
        .make()
        .map_err(|e| LaunchError::Executor {
            shard,
            reason: e.to_string(),
        })
}

/// Cores that the kernel lets this process use.
fn allowed_cores() -> Vec<u32> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .map(|core| core as u32)
        .collect()
}

fn listed(cores: &[u32]) -> String {
    let names: Vec<String> = cores.iter().map(u32::to_string).collect();
    names.join(", ")
}

/// The hot task.
async fn run_loop(mut shard: Shard<Reactor>) {
    // The first timer of an executor is late, because it registers a membarrier: let it be this
    // one, that nobody waits for (glommio 0.9).
    glommio::timer::sleep(Duration::from_millis(1)).await;
    let clock = MonotonicClock;
    let mut last_yield = clock.now();
    loop {
        let quantum = if shard.is_idle() {
            YIELD_IDLE
        } else {
            YIELD_BUSY
        };
        let limit: Instant = last_yield + quantum;
        if shard.turn(limit) == Turn::Finished {
            return;
        }
        let now = clock.now();
        if now >= limit {
            glommio::executor().yield_now().await;
            last_yield = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_does_not_exist_is_refused_with_the_ones_that_do() {
        let error = executor(ShardId(3), Some(4_000)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("shard 3") && text.contains("core 4000"),
            "{text}"
        );
        assert!(text.contains(&allowed_cores()[0].to_string()), "{text}");
    }
}
