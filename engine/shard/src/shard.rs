//! The loop of one shard (design, sections 2 and 6, D1): reap, route, serve sessions, let
//! timers fire, read mail, send, sleep. Called by the executor in [`crate::launch()`], and by the
//! tests with a virtual network below.

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use hashbrown::HashMap;
use mirror_base::discard::DiscardCounts;
use mirror_base::{Discard, Instant, ShardId, StreamId};
use mirror_stream::latency::ShardLatency;
use mirror_stream::report::{Event, ShardCounters, SharedDirectory};
use mirror_uring::{ChunkPool, Datagram, Sink};

use crate::arena::{Arena, Key};
use crate::call::Calls;
use crate::candidates::Candidates;
use crate::config::ShardsConfig;
use crate::configured::Port;
use crate::door::{Door, Rate};
use crate::driver::{Clock, Driver};
use crate::handshake::{Pending, Refused};
use crate::ids::SocketIds;
use crate::mailbox::{EventSink, Mail, Mailboxes};
use crate::outbox::Outbox;
use crate::session::{RequestKey, Session};
use crate::streams::StreamEntry;
use crate::wheel::{Token, Wheel};

/// Between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two rounds of what needs no precision: grace periods, stalls, pending handshakes.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(100);
/// With so much time gone since the kernel was asked, timers would judge by what was known then.
const AWAY: Duration = Duration::from_millis(5);
/// Times that it is asked again in one turn.
const LOOKS: usize = 4;
/// RTP sources that a shard opens in a second, and at once.
const SOURCES_PER_SECOND: u32 = 1000;
/// Configured RTP sessions that may be added at run time.
const MORE_SESSIONS: usize = 256;
/// Bytes of the buffer that protocols write one datagram into.
const SCRATCH: usize = 2048;

pub(crate) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// [`Core::handling`] when no session's code runs.
pub(crate) const NOBODY: u32 = u32::MAX;

/// Takes what the driver hands over.
impl<C: Clock> Sink for Core<C> {
    #[inline(always)]
    fn take(&mut self, datagram: Datagram<'_>) {
        self.handle(datagram);
    }

    #[inline(always)]
    fn take_usual(&mut self, datagram: Datagram<'_>, left: &mut bool) {
        self.try_usual(datagram, left);
    }

    #[inline(always)]
    fn take_unusual(&mut self, datagram: Datagram<'_>) {
        self.handle_unusual(&{ datagram });
    }
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Srt,
    Rtp,
    Rtcp,
    /// Calls leave from it: opened with the first one.
    Call,
    /// A rendezvous': opened and closed with it.
    Rendezvous,
    /// A configured RTP session's.
    Session,
    /// Nobody's any more.
    Closed,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Role::Srt => "srt",
            Role::Rtp => "rtp",
            Role::Rtcp => "rtcp",
            Role::Call => "srt_call",
            Role::Rendezvous => "srt_rendezvous",
            Role::Session => "rtp_session",
            Role::Closed => "closed",
        }
    }

    /// The sockets of every shard, in this order.
    pub(crate) fn of(config: &ShardsConfig) -> Vec<Role> {
        let srt = config.srt.iter().map(|_| Role::Srt);
        let rtp = config.rtp.iter().flat_map(|_| [Role::Rtp, Role::Rtcp]);
        srt.chain(rtp).collect()
    }
}

/// What a shard is made of besides its driver.
#[derive(Debug)]
pub struct ShardParts {
    /// Which shard.
    pub id: ShardId,
    /// Configuration of all shards.
    pub config: Arc<ShardsConfig>,
    /// The stream directory.
    pub directory: SharedDirectory,
    /// All mailboxes.
    pub mailboxes: Mailboxes,
    /// This shard's.
    pub(crate) mail: Receiver<Mail>,
    /// Where events go.
    pub events: Sender<Event>,
    /// Packet memory.
    pub pool: ChunkPool,
}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Go on.
    Running,
    /// Drained: the shard has ended.
    Finished,
}

/// Drain in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draining {
    pub(crate) deadline: Instant,
}

/// Everything of a shard but its driver.
pub(crate) struct Core<C> {
    pub(crate) clock: C,
    pub(crate) now: Instant,
    /// Datagrams until the clock is read again.
    pub(crate) id: ShardId,
    pub(crate) config: Arc<ShardsConfig>,
    pub(crate) roles: Vec<Role>,
    pub(crate) directory: SharedDirectory,
    pub(crate) mailboxes: Mailboxes,
    mail: Receiver<Mail>,
    pub(crate) events: EventSink,
    pub(crate) pool: ChunkPool,
    pub(crate) sessions: Arena<Session>,
    pub(crate) streams: Arena<StreamEntry>,
    pub(crate) by_id: Map<StreamId, Key>,
    pub(crate) by_ssrc: Map<u32, Key>,
    pub(crate) by_request: Map<RequestKey, Key>,
    /// By socket: what it is for, where it is a configured session's.
    pub(crate) ports: Vec<Option<Port>>,
    /// Sockets to be closed with the end of the turn.
    pub(crate) leaving: Vec<usize>,
    /// How many configured sessions there are.
    pub(crate) configured: usize,
    random: u64,
    pub(crate) ids: SocketIds,
    pub(crate) handshaker: Option<mirror_srt::Handshaker>,
    pub(crate) inductions: Door,
    /// RTP sources that may be opened: a session costs some 10 µs to set up.
    pub(crate) opened_sources: Rate,
    pub(crate) conclusions: Door,
    pub(crate) pending: Pending,
    /// What control refused a moment ago.
    pub(crate) refused: Refused,
    pub(crate) calls: Calls,
    pub(crate) candidates: Candidates,
    /// RTP sessions that are not validated, oldest first; some may have been since.
    pub(crate) unproven: std::collections::VecDeque<Key>,
    pub(crate) wheel: Wheel,
    /// Tokens whose time has come, and how many of them were looked at.
    pub(crate) due: Vec<Token>,
    pub(crate) fired: usize,
    touched: Vec<Key>,
    serving: Vec<Key>,
    pub(crate) outbox: Outbox,
    pub(crate) scratch: Box<[u8]>,
    pub(crate) counters: ShardCounters,
    pub(crate) discards: DiscardCounts,
    pub(crate) latency: ShardLatency,
    next_snapshot: Instant,
    next_housekeeping: Instant,
    pub(crate) draining: Option<Draining>,
    /// The place of the session whose code runs now, or [`NOBODY`].
    pub(crate) handling: u32,
}

impl<C> core::fmt::Debug for Core<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Core")
            .field("id", &self.id)
            .field("sessions", &self.sessions.len())
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

/// One shard over its driver.
#[derive(Debug)]
pub struct Shard<D: Driver> {
    pub(crate) driver: D,
    pub(crate) core: Core<D::Clock>,
}

impl<D: Driver> Shard<D> {
    /// A shard that is ready for its first turn.
    pub fn new(driver: D, parts: ShardParts) -> Self {
        let core = Core::new(driver.clock(), parts);
        Shard { driver, core }
    }

    /// Opens the configured RTP sessions that are this shard's ([`ShardsConfig::sessions_of`]).
    ///
    /// # Errors
    /// The first that cannot be opened, and why.
    pub fn open_sessions(&mut self) -> Result<(), (StreamId, String)> {
        let config = self.core.config.clone();
        for plan in config.sessions_of(self.core.id) {
            let opened = self.core.open_session(plan.clone(), &mut self.driver);
            opened.map_err(|why| (plan.stream_id.clone(), why))?;
        }
        Ok(())
    }

    /// One turn of the loop: everything that is there and due, then sleep until there is more,
    /// at most until `limit`.
    pub fn turn(&mut self, limit: Instant) -> Turn {
        if self.work() == Turn::Finished {
            return Turn::Finished;
        }
        let until = self.core.next_deadline().min(limit);
        self.driver.wait(until, self.core.holds_all());
        Turn::Running
    }

    /// The first half of a turn: everything but the sleep.
    pub(crate) fn work(&mut self) -> Turn {
        let Shard { driver, core } = self;
        core.read_clock();
        let looked_at = core.now;
        core.reap(driver);
        core.read_clock();
        if core.now.saturating_since(looked_at) >= AWAY {
            core.look_again(driver);
        }
        if driver.take_woken() {
            core.read_mail(driver);
        }
        core.outbox.empty_into(driver);
        core.serve_touched(driver);
        core.fire_timers(driver);
        if core.now >= core.next_housekeeping {
            core.next_housekeeping = core.now + HOUSEKEEPING_INTERVAL;
            core.keep_house(driver);
        }
        if core.now >= core.next_snapshot {
            core.next_snapshot = core.now + SNAPSHOT_INTERVAL;
            // A wake-up that got lost must not leave mail lying for ever.
            core.read_mail(driver);
            core.guarded(|core| core.send_snapshot(driver));
        }
        core.outbox.empty_into(driver);
        core.events.retry();
        driver.flush();
        if !core.leaving.is_empty() {
            core.close_left(driver);
        }
        core.finish_drain(driver)
    }

    /// Whether this shard has nothing but its snapshots to do: the executor may let it sleep
    /// for long.
    pub fn is_idle(&self) -> bool {
        self.core.is_quiet()
    }
}

impl<C: Clock> Core<C> {
    fn new(clock: C, parts: ShardParts) -> Self {
        let ShardParts {
            id,
            config,
            directory,
            mailboxes,
            mail,
            events,
            pool,
        } = parts;
        let now = clock.now();
        let connections = config
            .srt
            .as_ref()
            .map_or(0, |s| s.max_connections as usize);
        let rtp_sessions = config.rtp.as_ref().map_or(0, |r| r.max_sessions as usize);
        let configured = config.rtp_sessions.len() + MORE_SESSIONS;
        let capacity = connections + rtp_sessions + configured;
        let per_second = config
            .srt
            .as_ref()
            .map_or(1, |s| s.handshakes_per_second.max(1));
        let random = config.seed ^ (u64::from(id.0) << 48);
        let handshaker = config
            .srt
            .as_ref()
            .map(|s| mirror_srt::Handshaker::new(s.connection.clone(), config.cookie_key));
        Core {
            now,
            clock,
            roles: Role::of(&config),
            ids: SocketIds::new(id, mailboxes.len(), capacity, config.seed),
            // A stream outlives its session by the grace period.
            streams: Arena::new(capacity + config.max_streams as usize),
            sessions: Arena::new(capacity),
            handshaker,
            inductions: Door::new(per_second.saturating_mul(8), now),
            opened_sources: Rate::new(SOURCES_PER_SECOND, now),
            conclusions: Door::new(per_second, now),
            id,
            config,
            directory,
            mailboxes,
            mail,
            events: EventSink::new(events),
            pool,
            by_id: Map::default(),
            by_ssrc: Map::default(),
            by_request: Map::default(),
            ports: Vec::new(),
            leaving: Vec::new(),
            configured: 0,
            random,
            pending: Pending::default(),
            refused: Refused::default(),
            calls: Calls::default(),
            candidates: Candidates::new(),
            unproven: std::collections::VecDeque::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            fired: 0,
            touched: Vec::new(),
            serving: Vec::new(),
            outbox: Outbox::default(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            counters: ShardCounters::default(),
            discards: DiscardCounts::default(),
            latency: ShardLatency::default(),
            next_snapshot: now + SNAPSHOT_INTERVAL,
            next_housekeeping: now,
            draining: None,
            handling: NOBODY,
        }
    }

    /// Takes everything that has arrived. One boundary for all sessions: a broken invariant ends
    /// the one whose code was running, and the others' datagrams come in another go.
    #[inline(always)]
    fn reap<D: Driver>(&mut self, driver: &mut D) {
        loop {
            let reaped = catch_unwind(AssertUnwindSafe(|| {
                driver.reap(self);
            }));
            let Err(panic) = reaped else { return };
            match self.take_handled() {
                Some(key) => self.session_panicked(key),
                None => resume_unwind(panic),
            }
        }
    }

    /// A thread that was held up since it asked the kernel (a busy host gave the core to others)
    /// asks once more before timers fire: what arrived meanwhile must not be given up as late
    /// while it lies in the socket.
    #[cold]
    #[inline(never)]
    fn look_again<D: Driver>(&mut self, driver: &mut D) {
        for _ in 0..LOOKS {
            let looked_at = self.now;
            self.reap(driver);
            self.read_clock();
            if self.now.saturating_since(looked_at) < AWAY {
                return;
            }
        }
    }

    /// A random number, from the seed of the operating system.
    pub(crate) const fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The session whose code ran when it panicked.
    #[cold]
    pub(crate) fn take_handled(&mut self) -> Option<Key> {
        let index = core::mem::replace(&mut self.handling, NOBODY);
        self.sessions.at_mut(index).map(|(key, _)| key)
    }

    /// Reads the clock now.
    #[inline]
    pub(crate) fn read_clock(&mut self) {
        self.now = self.clock.now();
    }

    /// Counts a datagram that belongs to no stream.
    #[inline]
    pub(crate) const fn discard(&mut self, reason: Discard) {
        self.discards.count(reason);
    }

    /// Puts a session on this turn's list.
    #[inline]
    pub(crate) fn touch(&mut self, key: Key) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.touched
        {
            session.touched = true;
            self.touched.push(key);
        }
    }

    /// Puts the session at `key` on the list; the caller has set its flag.
    #[inline]
    pub(crate) fn list_touched(&mut self, key: Key) {
        self.touched.push(key);
    }

    fn serve_touched<D: Driver>(&mut self, driver: &mut D) {
        // Sessions that stop at a bound list themselves again for the next turn.
        core::mem::swap(&mut self.touched, &mut self.serving);
        for at in 0..self.serving.len() {
            let key = self.serving[at];
            self.serve_one(key, driver);
        }
        self.serving.clear();
    }

    /// Arms the timer of the session at `key`.
    #[inline]
    pub(crate) fn arm(&mut self, key: Key, at: Option<Instant>) {
        if let Some(at) = at {
            self.wheel.arm(key.index(), at);
        }
    }

    /// The session at `key` is gone.
    pub(crate) fn disarm(&mut self, key: Key) {
        self.wheel.disarm(key.index());
    }

    fn read_mail<D: Driver>(&mut self, driver: &mut D) {
        // No more than a full box: a flood of mail must not starve reception (D15).
        for _ in 0..4096 {
            let Ok(mail) = self.mail.try_recv() else {
                return;
            };
            match mail {
                Mail::Command(command) => self.guarded(|core| core.command(command, driver)),
                Mail::Conclusion(conclusion) => {
                    self.guarded(|core| core.conclude_here(*conclusion));
                }
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.streams.len() == 0
            && self.sessions.len() == 0
            && self.pending.is_empty()
            && self.draining.is_none()
            && !self.events.waits()
    }

    /// Whether all that comes is held back until a tick of the wheel: SRT's packets are, by TSBPD,
    /// and are taken no later for being taken in by the tick. RTP is handed on as it comes.
    fn holds_all(&self) -> bool {
        self.by_ssrc.is_empty() && self.configured == 0
    }

    fn next_deadline(&self) -> Instant {
        if !self.touched.is_empty() {
            return self.now;
        }
        let mut next = self.next_snapshot;
        if !self.is_quiet() {
            next = next.min(self.next_housekeeping);
        }
        if let Some(timer) = self.wheel.next() {
            next = next.min(timer);
        }
        if let Some(draining) = &self.draining {
            next = next.min(draining.deadline.max(self.now));
        }
        next
    }
}
