//! What control knows: every stream's last snapshot, also of those that ended a while ago, and
//! each shard's. The control thread writes it as events come; the HTTP side reads it. The lock
//! is held for short looks only: snapshots are shared, not copied.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mirror_base::{Instant, ShardId, StreamId};
use mirror_stream::report::{
    EndReason, Mode, PipelineState, Protocol, PublishRequest, ShardSnapshot, Status,
    StreamSnapshot, StreamStats,
};
use serde_json::{Map, Value, json};

use crate::caller::CallerView;
use crate::config::value_show_version;
use crate::health::{self, Health, Incidents};
use crate::media_stats;
use crate::record::{Context, Record};

/// Ended streams that stay visible at the most, whatever `terminated_ttl` says: a storm of
/// short sessions must not fill the memory.
const MAX_ENDED: usize = 1000;
/// A shard whose last snapshot is older is not well.
pub(crate) const SHARD_STALE: Duration = Duration::from_secs(4);
/// Where a stream is. Only a configured caller's is anywhere else than on a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// A shard has it.
    Shard,
    /// A shard was told to call for it.
    Called,
    /// It is known, and nothing is being done for it now: it holds no claim and no place.
    Standby,
}

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) snapshot: Arc<StreamSnapshot>,
    /// SRT figures of the same session one snapshot earlier.
    pub(crate) srt_before: Option<Box<mirror_srt::Statistics>>,
    /// The shard that has it, or was told to call for it.
    pub(crate) shard: Option<ShardId>,
    pub(crate) core: Option<u32>,
    pub(crate) presence: Presence,
    pub(crate) status: Status,
    pub(crate) updated_at: Instant,
    pub(crate) seen_at: Instant,
    pub(crate) ended_at: Option<Instant>,
    pub(crate) last_heartbeat: Option<Instant>,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Map<String, Value>,
    /// How the stream is configured, where it is.
    pub(crate) config: Map<String, Value>,
    pub(crate) last_error: Option<String>,
    pub(crate) error_count: u64,
    pub(crate) end_reason: Option<EndReason>,
    /// Snapshots of its shard in which the stream was missing.
    pub(crate) missing: u8,
    /// What makes it unhealthy for a while.
    pub(crate) incidents: Incidents,
    /// Splice commands that were logged.
    pub(crate) splices_seen: u64,
    pub(crate) known_health: Health,
}

impl Entry {
    /// Whether the stream is gone, and only its record remains.
    pub(crate) fn is_over(&self) -> bool {
        self.status == Status::Terminated
            || (self.status == Status::Error && self.ended_at.is_some())
    }

    /// Health and its reasons.
    pub(crate) fn health(&self) -> (Health, Vec<&'static str>) {
        health::of(self)
    }
}

/// A shard's last snapshot.
#[derive(Clone, Debug)]
pub(crate) struct ShardEntry {
    pub(crate) snapshot: Arc<ShardSnapshot>,
    pub(crate) received_at: Instant,
    /// Share of a core since the snapshot before, percent.
    pub(crate) cpu_percent: f64,
    pub(crate) stopped: bool,
}

/// Sums over streams that are visible no longer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) packets_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) packets_lost: u64,
    pub(crate) packets_dropped: u64,
    pub(crate) packets_retransmitted: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, stats: &StreamStats) {
        self.packets_received += stats.packets_received;
        self.bytes_received += stats.bytes_received;
        self.packets_lost += stats.packets_lost;
        self.packets_dropped += stats.packets_dropped;
        self.packets_retransmitted += stats.packets_retransmitted;
    }
}

/// The process itself, once a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessUsage {
    /// Percent of one core.
    pub(crate) cpu_percent: f64,
    /// User and system time so far, seconds.
    pub(crate) cpu_seconds: f64,
    /// Resident bytes.
    pub(crate) memory: u64,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) streams: HashMap<StreamId, Entry>,
    pub(crate) shards: Vec<Option<ShardEntry>>,
    pub(crate) retired: Totals,
    pub(crate) process: ProcessUsage,
    pub(crate) context: Context,
    pub(crate) draining: bool,
    pub(crate) refusals: Refusals,
    /// The configured callers, as they are shown.
    pub(crate) callers: BTreeMap<StreamId, CallerView>,
}

/// Refused publishers by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) conflict: u64,
    pub(crate) overload: u64,
    pub(crate) forbidden: u64,
    pub(crate) down: u64,
    pub(crate) bad_secret: u64,
    pub(crate) unsecure: u64,
    pub(crate) crypto: u64,
    pub(crate) malformed: u64,
    pub(crate) internal: u64,
}

/// What a snapshot changed, for events.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Streams that were not known.
    pub(crate) created: Vec<StreamId>,
    /// Streams whose record differs in more than figures, and whether their health does.
    pub(crate) updated: Vec<(StreamId, bool)>,
    /// Streams that their shard no longer has, without having said so.
    pub(crate) vanished: Vec<StreamId>,
}

pub(crate) type SharedState = Arc<Mutex<State>>;

/// Locks; a panic elsewhere does not take the state away.
pub(crate) fn lock(state: &SharedState) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn new(shards: usize, context: Context) -> Self {
        State {
            streams: HashMap::new(),
            shards: vec![None; shards],
            retired: Totals::default(),
            process: ProcessUsage::default(),
            context,
            draining: false,
            refusals: Refusals::default(),
            callers: BTreeMap::new(),
        }
    }

    /// Streams that are not over.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&StreamId, &Entry)> {
        self.streams.iter().filter(|(_, entry)| !entry.is_over())
    }

    /// Those of them that a shard has or was told to call for.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&StreamId, &Entry)> {
        self.live()
            .filter(|(_, entry)| entry.presence != Presence::Standby)
    }

    /// Whether the stream is known and not over.
    pub(crate) fn is_live(&self, id: &StreamId) -> bool {
        self.streams.get(id).is_some_and(|entry| !entry.is_over())
    }

    /// Whether the stream lives on a shard other than `shard`, whose word on it is an old one.
    pub(crate) fn lives_elsewhere(&self, id: &StreamId, shard: ShardId) -> bool {
        self.streams.get(id).is_some_and(|entry| {
            let there = entry.presence == Presence::Shard && !entry.is_over();
            there && entry.shard != Some(shard)
        })
    }

    /// Live streams that came from `ip`, `except` left out.
    pub(crate) fn live_from(&self, ip: IpAddr, except: &StreamId) -> usize {
        let ip = ip.to_canonical();
        self.live()
            .filter(|(_, entry)| entry.snapshot.mode == Mode::Listener)
            .filter(|(id, entry)| *id != except && entry.snapshot.peer.ip().to_canonical() == ip)
            .count()
    }

    pub(crate) fn record(&self, id: &StreamId, clock: &crate::clock::WallClock) -> Option<Record> {
        self.streams
            .get(id)
            .map(|entry| Record::of(entry, &self.context, clock))
    }

    /// A session was accepted. Returns whether the stream is new.
    pub(crate) fn started(
        &mut self,
        now: Instant,
        shard: ShardId,
        request: &PublishRequest,
        tags: Vec<String>,
    ) -> bool {
        let core = self.core_of(shard);
        let metadata = metadata(request);
        match self.streams.get_mut(&request.stream_id) {
            Some(entry) if !entry.is_over() => {
                let mut snapshot = (*entry.snapshot).clone();
                snapshot.peer = request.peer;
                snapshot.mode = request.mode;
                snapshot.started_at = now;
                snapshot.encryption = unknown_encryption(request.protocol);
                snapshot.status = Status::Connecting;
                entry.snapshot = Arc::new(snapshot);
                entry.shard = Some(shard);
                entry.core = core;
                entry.presence = Presence::Shard;
                entry.status = Status::Connecting;
                entry.updated_at = now;
                entry.seen_at = now;
                entry.end_reason = None;
                entry.ended_at = None;
                entry.tags = tags;
                entry.metadata = metadata;
                entry.missing = 0;
                false
            }
            _ => {
                self.retire(&request.stream_id.clone());
                let snapshot = Arc::new(first_snapshot(now, request));
                let mut entry = Entry::new(now, snapshot, shard, core);
                entry.tags = tags;
                entry.metadata = metadata;
                self.streams.insert(request.stream_id.clone(), entry);
                true
            }
        }
    }

    /// A configured RTP session is open: its stream is pending. Returns whether it is new.
    pub(crate) fn waiting(
        &mut self,
        now: Instant,
        shard: ShardId,
        request: &PublishRequest,
    ) -> bool {
        let mut tags = request.tags.clone();
        tags.sort();
        tags.dedup();
        let created = self.started(now, shard, request, tags);
        if let Some(entry) = self.streams.get_mut(&request.stream_id) {
            let mut snapshot = (*entry.snapshot).clone();
            snapshot.status = Status::Pending;
            snapshot.state = PipelineState::Initializing;
            snapshot.stats.sessions = 0;
            entry.snapshot = Arc::new(snapshot);
            entry.status = Status::Pending;
        }
        created
    }

    /// A status changed; returns the one before, if it differed. A stream that is over stays so:
    /// an operator's order may come upon a stream whose end was taken in meanwhile.
    pub(crate) fn changed(
        &mut self,
        now: Instant,
        id: &StreamId,
        status: Status,
    ) -> Option<Status> {
        let entry = self.streams.get_mut(id).filter(|e| !e.is_over())?;
        let before = std::mem::replace(&mut entry.status, status);
        entry.updated_at = now;
        if status == Status::Error && before != Status::Error {
            entry.error_count += 1;
        }
        if status == Status::Terminated && entry.ended_at.is_none() {
            entry.ended_at = Some(now);
        }
        (before != status).then_some(before)
    }

    /// A session ended. Returns whether that concerns a record: that of a source which was
    /// turned away, and never had one, makes none, and a stream that lives on another shard has
    /// not ended.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        shard: ShardId,
        reason: EndReason,
        status: Status,
        last: Box<StreamSnapshot>,
    ) -> bool {
        let turned_away = reason == EndReason::Refused && !self.is_live(&last.stream_id);
        if turned_away || self.lives_elsewhere(&last.stream_id, shard) {
            return false;
        }
        let core = self.core_of(shard);
        let id = last.stream_id.clone();
        let last: Arc<StreamSnapshot> = Arc::from(last);
        let entry = self
            .streams
            .entry(id)
            .or_insert_with(|| Entry::new(now, last.clone(), shard, core));
        entry.absorb(now, last);
        entry.status = status;
        entry.updated_at = now;
        entry.end_reason = Some(reason);
        if matches!(status, Status::Terminated | Status::Error) {
            entry.ended_at = Some(now);
        }
        if matches!(
            reason,
            EndReason::PeerError | EndReason::InternalError | EndReason::IdleTimeout
        ) {
            entry.error_count += 1;
            entry.last_error = Some(reason.name().to_owned());
        }
        true
    }

    /// A shard's snapshot of once a second.
    pub(crate) fn snapshot(&mut self, now: Instant, snapshot: Box<ShardSnapshot>) -> Changes {
        let mut changes = Changes::default();
        let shard = snapshot.shard;
        let mut snapshot = *snapshot;
        let streams = std::mem::take(&mut snapshot.streams);
        for stream in streams {
            self.stream_snapshot(now, shard, snapshot.core, stream, &mut changes);
        }
        let at = snapshot.at;
        for (id, entry) in &mut self.streams {
            // A session that began after the snapshot was taken cannot be in it.
            if entry.shard != Some(shard)
                || entry.presence != Presence::Shard
                || entry.is_over()
                || entry.seen_at == now
                || entry.updated_at >= at
            {
                continue;
            }
            entry.missing = entry.missing.saturating_add(1);
            if entry.missing >= 3 {
                entry.status = Status::Terminated;
                entry.ended_at = Some(now);
                entry.updated_at = now;
                changes.vanished.push(id.clone());
            }
        }
        let Some(slot) = self.shards.get_mut(shard.index()) else {
            return changes;
        };
        let cpu_percent = slot.as_ref().map_or(0.0, |old| {
            let cpu = snapshot.cpu_ns.saturating_sub(old.snapshot.cpu_ns) as f64;
            let wall = at.saturating_since(old.snapshot.at).as_nanos() as f64;
            if wall > 0.0 {
                cpu / wall * 100.0
            } else {
                old.cpu_percent
            }
        });
        *slot = Some(ShardEntry {
            snapshot: Arc::new(snapshot),
            received_at: now,
            cpu_percent,
            stopped: false,
        });
        changes
    }

    fn stream_snapshot(
        &mut self,
        now: Instant,
        shard: ShardId,
        core: Option<u32>,
        stream: StreamSnapshot,
        changes: &mut Changes,
    ) {
        let id = stream.stream_id.clone();
        let stream = Arc::new(stream);
        match self.streams.get_mut(&id) {
            Some(entry) if !entry.is_over() => {
                // Snapshots and events share one channel: a stream of another shard is an old view.
                if entry.shard != Some(shard) || entry.presence != Presence::Shard {
                    return;
                }
                let old = entry.snapshot.clone();
                let status = entry.status;
                entry.core = core;
                entry.status = stream.status;
                entry.absorb(now, stream.clone());
                entry.splices_seen = media_stats::log_splices(entry, entry.splices_seen, now);
                let health = entry.health().0;
                let healthy = std::mem::replace(&mut entry.known_health, health) == health;
                let same = status == stream.status
                    && media_stats::same_tracks(&old.tracks, &stream.tracks)
                    && old.container == stream.container
                    && old.peer == stream.peer
                    && old.state == stream.state;
                if !same || !healthy {
                    entry.updated_at = now;
                    changes.updated.push((id, !healthy));
                }
            }
            // Its end is known already; or it came back and its start got lost on the way.
            Some(entry) if entry.ended_at.is_some_and(|at| stream.started_at <= at) => {}
            _ => {
                let gone = matches!(stream.status, Status::Terminated);
                if gone {
                    return;
                }
                self.retire(&id);
                let mut entry = Entry::new(now, stream.clone(), shard, core);
                entry.status = stream.status;
                self.streams.insert(id.clone(), entry);
                changes.created.push(id);
            }
        }
    }

    /// Forgets ended streams whose time is over; returns their ids.
    pub(crate) fn expire(&mut self, now: Instant, ttl: Duration) -> Vec<StreamId> {
        let mut ended: Vec<(Instant, StreamId)> = self
            .streams
            .iter()
            .filter(|(_, entry)| entry.is_over())
            .filter_map(|(id, entry)| Some((entry.ended_at?, id.clone())))
            .collect();
        ended.sort();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        let gone: Vec<StreamId> = ended
            .into_iter()
            .enumerate()
            .filter(|(i, (at, _))| *i < surplus || now.saturating_since(*at) >= ttl)
            .map(|(_, (_, id))| id)
            .collect();
        for id in &gone {
            self.retire(id);
        }
        gone
    }

    fn retire(&mut self, id: &StreamId) {
        if let Some(entry) = self.streams.remove(id) {
            self.retired.add(&entry.snapshot.stats);
        }
    }

    /// A configured caller's stream is known, and nothing is done for it. What is there already
    /// stays.
    pub(crate) fn stand_by(&mut self, now: Instant, stream_id: &StreamId, tags: Vec<String>) {
        if self.streams.contains_key(stream_id) {
            return;
        }
        let snapshot = Arc::new(StreamSnapshot {
            status: Status::Pending,
            state: PipelineState::Initializing,
            ..first_snapshot(now, &caller_request(stream_id, NOWHERE))
        });
        let mut entry = Entry::new(now, snapshot, ShardId(0), None);
        entry.shard = None;
        entry.presence = Presence::Standby;
        entry.tags = tags;
        self.streams.insert(stream_id.clone(), entry);
    }

    /// A shard is told to call for a stream. The record of one in its grace period stays as it is.
    pub(crate) fn called(
        &mut self,
        now: Instant,
        stream_id: &StreamId,
        shard: ShardId,
        peer: SocketAddr,
        tags: Vec<String>,
    ) {
        let core = self.core_of(shard);
        let old = self.streams.get(stream_id).filter(|e| !e.is_over());
        if old.is_some_and(|e| e.presence == Presence::Shard) {
            return;
        }
        let history = old.map(|e| (e.last_error.clone(), e.error_count, e.last_heartbeat));
        let created_at = old.map(|e| e.snapshot.created_at);
        self.retire(stream_id);
        let mut snapshot = first_snapshot(now, &caller_request(stream_id, peer));
        snapshot.created_at = created_at.unwrap_or(now);
        let mut entry = Entry::new(now, Arc::new(snapshot), shard, core);
        entry.presence = Presence::Called;
        entry.tags = tags;
        if let Some((last_error, error_count, last_heartbeat)) = history {
            entry.last_error = last_error;
            entry.error_count = error_count;
            entry.last_heartbeat = last_heartbeat;
        }
        self.streams.insert(stream_id.clone(), entry);
    }

    /// A caller's attempt came to nothing. Returns whether its record has changed: one on a
    /// shard (in its grace period) or one that is over does not.
    pub(crate) fn not_called(
        &mut self,
        now: Instant,
        stream_id: &StreamId,
        status: Status,
        error: &str,
    ) -> bool {
        let found = self.streams.get_mut(stream_id);
        let Some(entry) = found.filter(|e| !e.is_over() && e.presence != Presence::Shard) else {
            return false;
        };
        entry.presence = Presence::Standby;
        entry.shard = None;
        entry.core = None;
        entry.status = status;
        entry.updated_at = now;
        entry.last_error = Some(error.to_owned());
        entry.error_count += 1;
        true
    }

    fn core_of(&self, shard: ShardId) -> Option<u32> {
        self.shards.get(shard.index())?.as_ref()?.snapshot.core
    }

    /// All packets of the process's life.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.retired;
        for entry in self.streams.values() {
            totals.add(&entry.snapshot.stats);
        }
        totals
    }

    /// Datagrams that kernels dropped for lack of buffer, all sockets together.
    pub(crate) fn kernel_drops(&self) -> u64 {
        self.shards
            .iter()
            .flatten()
            .flat_map(|s| &s.snapshot.sockets)
            .map(|socket| socket.kernel_drops)
            .sum()
    }
}

impl Entry {
    fn new(now: Instant, snapshot: Arc<StreamSnapshot>, shard: ShardId, core: Option<u32>) -> Self {
        Entry {
            status: snapshot.status,
            snapshot,
            srt_before: None,
            shard: Some(shard),
            core,
            presence: Presence::Shard,
            updated_at: now,
            seen_at: now,
            ended_at: None,
            last_heartbeat: None,
            tags: Vec::new(),
            metadata: Map::new(),
            config: Map::new(),
            last_error: None,
            error_count: 0,
            end_reason: None,
            missing: 0,
            incidents: Incidents::default(),
            splices_seen: 0,
            known_health: Health::Unknown,
        }
    }

    fn absorb(&mut self, now: Instant, snapshot: Arc<StreamSnapshot>) {
        self.incidents.note(now, &self.snapshot, &snapshot);
        let same_session = self.snapshot.started_at == snapshot.started_at;
        self.srt_before = self.snapshot.srt.clone().filter(|before| {
            let later = |srt: &mirror_srt::Statistics| srt.time_ms >= before.time_ms;
            same_session && snapshot.srt.as_deref().is_some_and(later)
        });
        self.snapshot = snapshot;
        self.seen_at = now;
        self.missing = 0;
    }
}

fn metadata(request: &PublishRequest) -> Map<String, Value> {
    let mut map = Map::new();
    if !request.srt_stream_id.is_empty() {
        map.insert("srt_stream_id".to_owned(), json!(request.srt_stream_id));
    }
    if let Some(user) = &request.user {
        map.insert("user".to_owned(), json!(user));
    }
    if request.peer_version != 0 {
        map.insert(
            "srt_version".to_owned(),
            json!(value_show_version(request.peer_version)),
        );
    }
    map
}

/// The address of a caller's peer before it is known.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// A caller's stream as if it asked to be let in.
fn caller_request(stream_id: &StreamId, peer: SocketAddr) -> PublishRequest {
    PublishRequest {
        stream_id: stream_id.clone(),
        protocol: Protocol::Srt,
        mode: Mode::Caller,
        peer,
        srt_stream_id: String::new(),
        user: None,
        tags: Vec::new(),
        peer_version: 0,
        latency: Duration::ZERO,
        key_material: None,
        configured: false,
    }
}

/// What is said of a session's encryption before its first snapshot says it: nothing of SRT's.
const fn unknown_encryption(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Srt => "",
        Protocol::Rtp => "none",
    }
}

/// What is known of a stream before its first snapshot.
fn first_snapshot(now: Instant, request: &PublishRequest) -> StreamSnapshot {
    let latency_ms = u32::try_from(request.latency.as_millis()).unwrap_or(u32::MAX);
    StreamSnapshot {
        stream_id: request.stream_id.clone(),
        protocol: request.protocol,
        mode: request.mode,
        peer: request.peer,
        status: Status::Connecting,
        state: PipelineState::Connecting,
        previous_state: PipelineState::Initializing,
        transitions: Vec::new(),
        created_at: now,
        started_at: now,
        last_packet_at: None,
        tracks: Vec::new(),
        container: None,
        figures: Box::default(),
        srt: None,
        rtp: Vec::new(),
        encryption: unknown_encryption(request.protocol),
        stats: StreamStats {
            latency_ms,
            sessions: 1,
            ..StreamStats::default()
        },
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
