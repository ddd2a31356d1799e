//! `mirror-ingest run`: probes, launches, waits and drains.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};
use mirror_base::ShardId;
use mirror_control::config::LogFormat;
use mirror_control::{Config, Control, ControlHandle, Directory, Undeliverable};
use mirror_shard::Shards;
use mirror_stream::report::Command;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Failure;
use crate::budget::Budget;
use crate::cli::ConfigOptions;
use crate::log::{self, LogLevel};
use crate::setup::{self, Settings};
use crate::signals::{self, Request};

/// Events of the shards that may wait for control; beyond, the shards keep them.
const EVENTS: usize = 8192;
/// What control needs at the end for its last records, of `shutdown_timeout`.
const LAST_RECORDS: Duration = Duration::from_secs(1);
/// Exit code of a second signal.
const AT_ONCE: i32 = 1;

/// The shards' mailboxes as control knows them.
#[derive(Debug)]
struct Mailboxes(mirror_shard::Mailboxes);

impl mirror_control::Mailboxes for Mailboxes {
    fn shards(&self) -> usize {
        self.0.len()
    }

    fn send(&self, shard: ShardId, command: Command) -> Result<(), Undeliverable> {
        self.0
            .send(shard, command)
            .map_err(|busy| Undeliverable(busy.0))
    }
}

/// Runs the engine until a signal or the last shard ends it.
pub(crate) fn run(options: &ConfigOptions) -> Result<ExitCode, Failure> {
    let settings = setup::load(options)?;
    let json = settings.config.log.format == LogFormat::Json;
    let level = log::start(settings.config.log.level.filter(), json).map_err(Failure::failed)?;
    let requests = signals::listen().map_err(Failure::failed)?;
    for warning in settings
        .config
        .warnings
        .iter()
        .chain(&settings.pinning.warnings)
    {
        tracing::warn!("{warning}");
    }
    let budget = Budget::of(&settings);
    tracing::info!("memory: {budget}");
    if let Some(warning) = budget
        .against_host()
        .map_err(|refusal| Failure::usage(anyhow::anyhow!(refusal)))?
    {
        tracing::warn!("{warning}");
    }
    if settings.pinning.mlock {
        lock_memory()?;
    }
    let engine = start(settings)?;
    let outcome = engine.supervise(options, &requests, &level);
    engine.end(outcome, requests)
}

/// What runs.
struct Engine {
    config: Arc<Config>,
    shards: Shards,
    control: ControlHandle,
}

/// Why it is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// As it was asked to.
    Asked,
    /// A shard has ended by itself.
    ShardFailed,
}

fn start(settings: Settings) -> Result<Engine, Failure> {
    let shards_config = settings.shards()?;
    let Settings { config, pinning } = settings;
    let config = Arc::new(config);
    let directory = Arc::new(Directory::of(&config, pinning.shards.len()));
    let (events, received) = bounded(EVENTS);
    let shards =
        mirror_shard::launch(shards_config, directory.clone(), events).map_err(Failure::usage)?;
    for socket in shards.sockets() {
        tracing::info!(
            shard = %socket.shard,
            address = %socket.local,
            receive_buffer = socket.receive_buffer,
            "{} socket{}",
            socket.role,
            if socket.ipv4_only { ", IPv4 only: this host has no IPv6" } else { "" }
        );
    }
    warn_of_small_buffers(&shards, pinning.sockets.receive_buffer);
    // Threads that are started from here on inherit the cores of control; the shards have theirs.
    pin_control(&pinning.control_cores)?;
    let mailboxes = Arc::new(Mailboxes(shards.mailboxes()));
    let control =
        Control::start(config.clone(), mailboxes, received, directory).map_err(Failure::usage)?;
    tracing::info!(
        shards = shards.len(),
        api = control.api_address().map(tracing::field::display),
        "ready: version {}",
        env!("CARGO_PKG_VERSION")
    );
    Ok(Engine {
        config,
        shards,
        control,
    })
}

/// What the kernel did not grant is lost datagrams later: said once, with what mends it.
fn warn_of_small_buffers(shards: &Shards, wanted: u64) {
    let granted = shards
        .sockets()
        .iter()
        .map(|s| s.receive_buffer as u64)
        .min();
    // The kernel reports twice what was asked for.
    if let Some(granted) = granted.filter(|granted| *granted < wanted * 2) {
        tracing::warn!(
            granted = granted / 2,
            wanted,
            "receive buffers are smaller than asked for: sysctl -w net.core.rmem_max={wanted}, or \
             give the engine CAP_NET_ADMIN"
        );
    }
}

fn pin_control(cores: &[u32]) -> Result<(), Failure> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core as usize);
    }
    sched_setaffinity(None, &set).map_err(|error| {
        Failure::usage(anyhow::anyhow!(
            "control cannot be pinned to cores {cores:?}: {error}"
        ))
    })
}

/// `scheduling.mlock`.
fn lock_memory() -> Result<(), Failure> {
    use rustix::mm::{MlockAllFlags, mlockall};
    // Pages are locked as they come into use: what is only reserved (a gigabyte, by the allocator)
    // must not be made resident. Packet memory is touched at the start anyway.
    let what = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(what).map_err(|error| {
        Failure::usage(anyhow::anyhow!(
            "scheduling.mlock: memory cannot be locked: {error}; raise the memlock limit \
             (`ulimit -l unlimited`, or `LimitMEMLOCK=infinity` in the service unit)"
        ))
    })
}

impl Engine {
    /// Waits for a reason to end.
    fn supervise(
        &self,
        options: &ConfigOptions,
        requests: &Receiver<Request>,
        level: &LogLevel,
    ) -> Outcome {
        loop {
            select! {
                recv(requests) -> request => match request {
                    Ok(Request::Reload) => self.reload(options, level),
                    Ok(Request::Stop) | Err(_) => return Outcome::Asked,
                },
                recv(self.control.stopped()) -> stopped => {
                    // A member of the port's group is gone: the kernel steers sessions of other
                    // shards wrongly from now on (D4). A new start is sooner whole than this.
                    if let Ok(stopped) = stopped {
                        tracing::error!(
                            shard = %stopped.shard,
                            error = stopped.error,
                            "a shard has ended: the engine ends, to be started again"
                        );
                    }
                    return Outcome::ShardFailed;
                },
            }
        }
    }

    /// SIGHUP: the log's level is taken over, of everything else is said that it needs a restart.
    fn reload(&self, options: &ConfigOptions, level: &LogLevel) {
        let new = match setup::load_config(options) {
            Ok(new) => new,
            Err(errors) => {
                tracing::error!("the configuration stays as it was:\n{errors}");
                return;
            }
        };
        level.set(new.log.level.filter());
        let (mut before, after) = (self.config.to_json(), new.to_json());
        if let (Some(log), Some(new_log)) = (before.get_mut("log"), after.get("log")) {
            log["level"] = new_log["level"].clone();
        }
        let mut changed: Vec<&str> = before
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| after.get(key.as_str()) != Some(value))
            .map(|(key, _)| key.as_str())
            .collect();
        if !self.config.same_secrets(&new) {
            changed.push("secrets");
        }
        tracing::info!(level = ?new.log.level, "configuration read again");
        if !changed.is_empty() {
            tracing::warn!(
                sections = changed.join(", "),
                "changes that take effect at the next start"
            );
        }
    }

    /// Drains within `shutdown_timeout`.
    fn end(self, outcome: Outcome, requests: Receiver<Request>) -> Result<ExitCode, Failure> {
        exit_at_once_on_a_second_signal(requests)?;
        let within = self.config.shutdown_timeout;
        let deadline = Instant::now() + within;
        tracing::info!("draining for {} ms at the most", within.as_millis());
        let drain = within.saturating_sub(LAST_RECORDS.min(within / 4));
        let ended = self.control.drain(drain).len();
        let rest = deadline.saturating_duration_since(Instant::now());
        self.control.shutdown(rest.min(LAST_RECORDS));
        let all = self.shards.len();
        let failed_before = usize::from(outcome == Outcome::ShardFailed);
        if ended + failed_before < all {
            return Err(Failure::failed(anyhow::anyhow!(
                "{} of {all} shards did not end in {} ms",
                all - ended - failed_before,
                drain.as_millis()
            )));
        }
        self.shards.join();
        match outcome {
            Outcome::Asked => {
                tracing::info!("drained");
                Ok(ExitCode::SUCCESS)
            }
            Outcome::ShardFailed => Ok(ExitCode::FAILURE),
        }
    }
}

fn exit_at_once_on_a_second_signal(requests: Receiver<Request>) -> Result<(), Failure> {
    thread::Builder::new()
        .name("second-signal".into())
        .spawn(move || {
            while let Ok(request) = requests.recv() {
                if request == Request::Stop {
                    tracing::warn!("a second signal: ending at once");
                    std::process::exit(AT_ONCE);
                }
            }
        })
        .map(drop)
        .map_err(Failure::failed)
}
