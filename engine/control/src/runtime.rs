//! The control thread: takes the shards' events in, decides who may publish, keeps the state
//! that the HTTP side shows, and tells the registry. It may be slow and may lose Redis; a shard
//! never waits for it longer than its own handshake timeout.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select, tick};
use mirror_base::{Instant, ShardId, StreamId};
use mirror_stream::report::{
    Command, EndReason, Event, Mode, Protocol, PublishRequest, ShardSnapshot, Status,
};
use serde_json::{Value, json};

use crate::authorise::{Deriving, Pending};
use crate::caller::{Callers, Resolved};
use crate::clock::{self, WallClock};
use crate::config::Config;
use crate::directory::Directory;
use crate::keys::{Answer, KeyDesk};
use crate::registry::{EventRecord, Notice, Registry, Write};
use crate::state::{Entry, Presence, SharedState, lock};
use crate::{Mailboxes, ShardStopped, process};

/// How exactly claims' deadlines are kept.
const DEADLINE_STEP: Duration = Duration::from_millis(20);
/// How exactly callers' deadlines are kept: an error of ours there makes no busy loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);
/// A claim whose stream did not start within this time is given up.
const ABANDON_AFTER: Duration = Duration::from_secs(5);
/// Log lines of refusals a second.
const REFUSALS_LOGGED: u32 = 5;
/// Log lines a second of streams that start and end.
const STARTS_AND_ENDS_LOGGED: u32 = 50;

/// What the control thread works with.
pub(crate) struct Runtime {
    pub(crate) config: Arc<Config>,
    pub(crate) state: SharedState,
    pub(crate) directory: Arc<Directory>,
    pub(crate) mailboxes: Arc<dyn Mailboxes>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) stopped: Sender<ShardStopped>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) pending: HashMap<u64, Pending>,
    pub(crate) deriving: HashMap<u64, Deriving>,
    pub(crate) keys: KeyDesk,
    pub(crate) callers: Callers,
    pub(crate) next_ticket: u64,
    pub(crate) next_seq: u64,
    pub(crate) next_heartbeat: Instant,
    /// Connections that the registry had made when it was looked at last.
    pub(crate) connections: u64,
    pub(crate) usage: process::Meter,
    pub(crate) refusal_log: LogLimit,
    pub(crate) stream_log: LogLimit,
    /// Claims granted, whose streams have not started yet.
    pub(crate) granted: HashMap<StreamId, Instant>,
    /// Publishers told to come in, or waiting for their claim, whose streams have not started
    /// yet: where they come from, and until when that is believed. They count for
    /// `max_streams_per_source`; kept only where that is set.
    pub(crate) admitted: HashMap<StreamId, (IpAddr, Instant)>,
    pub(crate) _notices: Sender<Notice>,
    /// Something to read means: look at `stop`.
    pub(crate) wake: Receiver<()>,
}

/// What threads of control's own have done.
#[derive(Debug)]
pub(crate) enum Work {
    /// Keys.
    Keys(Answer),
    /// A caller's host name.
    Resolved(Resolved),
}

/// Lets a few log lines a second through and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    left: u32,
    held_back: u64,
}

impl Runtime {
    pub(crate) fn run(
        mut self,
        events: &Receiver<Event>,
        notices: &Receiver<Notice>,
        work: &Receiver<Work>,
    ) {
        let seconds = tick(Duration::from_secs(1));
        // Without shards left, time and registry still go on until the daemon ends us.
        let silence = never();
        let mut events_or_silence = events;
        self.next_heartbeat = clock::now() + self.config.registry.heartbeat_interval;
        self.each_second(clock::now());
        while !self.stop.load(Ordering::Relaxed) {
            // Publishers who wait for a claim make us look at their deadlines, callers at theirs.
            let claims = (!self.pending.is_empty()).then_some(DEADLINE_STEP);
            let calls = self.callers.next(clock::now());
            let deadline = match claims.into_iter().chain(calls).min() {
                Some(wait) => after(wait.max(SHORTEST_WAIT)),
                None => never(),
            };
            select! {
                recv(events_or_silence) -> event => match event {
                    Ok(event) => self.event_guarded(event),
                    Err(_) => events_or_silence = &silence,
                },
                recv(notices) -> notice => if let Ok(notice) = notice { self.notice(notice) },
                recv(work) -> done => match done {
                    Ok(Work::Keys(answer)) => self.keys_answer(clock::now(), answer),
                    Ok(Work::Resolved(resolved)) => self.resolved(clock::now(), resolved),
                    Err(_) => {}
                },
                recv(seconds) -> _ => self.each_second(clock::now()),
                recv(self.wake) -> _ => {}
                recv(deadline) -> _ => {}
            }
            self.claim_deadlines(clock::now());
            self.callers_turn(clock::now());
        }
        // What the shards said last, then nobody is left to speak for the streams.
        for event in events.try_iter().take(100_000) {
            self.event_guarded(event);
        }
        self.deregister(clock::now());
    }

    /// The engine ends: its streams are gone.
    fn deregister(&mut self, now: Instant) {
        let streams: Vec<(StreamId, Presence)> = lock(&self.state)
            .live()
            .map(|(id, entry)| (id.clone(), entry.presence))
            .collect();
        for (id, presence) in streams {
            if presence == Presence::Standby {
                // No claim, perhaps another instance's stream: only our record goes.
                self.forget(id);
                continue;
            }
            lock(&self.state).changed(now, &id, Status::Terminated);
            self.publish(
                now,
                &id,
                "stream.terminated",
                json!({ "reason": EndReason::Drain.name() }),
            );
        }
    }

    /// Takes a record out of the registry.
    fn forget(&self, stream_id: StreamId) {
        self.registry.write(Write {
            stream_id,
            record: None,
            live: false,
            created_us: 0,
            ttl: Duration::ZERO,
            event: None,
        });
    }

    /// A broken invariant of ours costs one event, not the control of the engine.
    fn event_guarded(&mut self, event: Event) {
        let handled = catch_unwind(AssertUnwindSafe(|| self.event(clock::now(), event)));
        if handled.is_err() {
            tracing::error!("an event met an error of ours and was left out");
        }
    }

    fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Authorise {
                shard,
                ticket,
                request,
            } => self.authorise(now, shard, ticket, request),
            Event::Waiting { shard, request } => self.waiting(now, shard, &request),
            Event::Started {
                shard,
                stream_id,
                request,
                resumed,
            } => {
                self.started(now, shard, &stream_id, &request, resumed);
            }
            Event::Changed {
                shard,
                stream_id,
                status,
            } => {
                let before = {
                    let mut state = lock(&self.state);
                    if state.lives_elsewhere(&stream_id, shard) {
                        return;
                    }
                    state.changed(now, &stream_id, status)
                };
                if let Some(before) = before {
                    self.publish(now, &stream_id, status_event(before, status), json!({}));
                }
            }
            Event::Ended {
                shard,
                stream_id,
                reason,
                status,
                last,
            } => {
                if !lock(&self.state).ended(now, shard, reason, status, last) {
                    return;
                }
                if self.stream_log.admit() {
                    tracing::info!(stream = %stream_id, reason = reason.name(), status = status.name(), "stream ended");
                }
                let kind = status_event(Status::Active, status);
                self.publish(now, &stream_id, kind, json!({ "reason": reason.name() }));
                self.caller_ended(now, &stream_id, reason, status);
            }
            Event::CallKeys {
                shard,
                ticket,
                question,
                ..
            } => self.call_keys(shard, ticket, question),
            Event::CallFailed {
                ticket,
                failure,
                detail,
                ..
            } => self.call_failed(now, ticket, failure, detail.as_deref()),
            Event::Snapshot(snapshot) => self.snapshot(now, snapshot),
            Event::Stopped { shard, error } => {
                if let Some(error) = &error {
                    tracing::error!(%shard, error, "shard failed");
                }
                if let Some(Some(entry)) = lock(&self.state).shards.get_mut(shard.index()) {
                    entry.stopped = true;
                }
                let _ = self.stopped.try_send(ShardStopped { shard, error });
            }
        }
    }

    fn snapshot(&mut self, now: Instant, mut snapshot: Box<ShardSnapshot>) {
        let changes = {
            let mut state = lock(&self.state);
            // What is blocked and not known as live was turned away, and its shard is about to
            // learn of it: no record for it.
            snapshot.streams.retain(|s| {
                state.is_live(&s.stream_id) || !self.directory.is_blocked(now, &s.stream_id)
            });
            state.snapshot(now, snapshot)
        };
        for id in changes.created {
            self.publish(now, &id, "stream.created", json!({}));
        }
        for (id, health) in changes.updated {
            let kind = if health {
                "health.changed"
            } else {
                "stream.updated"
            };
            self.publish(now, &id, kind, json!({}));
        }
        for id in changes.vanished {
            if self.stream_log.admit() {
                tracing::info!(stream = %id, "stream is gone from its shard");
            }
            self.publish(
                now,
                &id,
                "stream.terminated",
                json!({ "reason": "vanished" }),
            );
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Granted { ticket } | Notice::Provisional { ticket } => {
                self.claim_granted(ticket);
                self.caller_claimed(clock::now(), ticket);
            }
            Notice::Held { ticket, by } => {
                self.claim_held(ticket, &by);
                self.caller_held(clock::now(), ticket, &by);
            }
            Notice::Lost { stream_id, to } => self.lost(clock::now(), stream_id, &to),
        }
    }

    /// Another instance had the stream first: ours ends (D14).
    fn lost(&mut self, now: Instant, stream_id: StreamId, to: &str) {
        let live = lock(&self.state)
            .streams
            .get(&stream_id)
            .filter(|e| !e.is_over())
            .and_then(|e| Some((e.shard?, e.snapshot.protocol)));
        let Some((shard, protocol)) = live else {
            return;
        };
        tracing::warn!(stream = %stream_id, instance = to, "another instance had the stream first: ending ours");
        // An SRT publisher who calls again meets the claim. RTP asks for none: its next packets
        // would begin the stream anew, and the two instances would go on ending each other's.
        if protocol == Protocol::Rtp {
            self.directory
                .block(&stream_id, now + self.config.stream.block_for);
        }
        let _ = self.mailboxes.send(
            shard,
            Command::Terminate {
                stream_id,
                reason: EndReason::TakenOver,
            },
        );
    }

    /// A configured RTP session is open, and nothing comes yet.
    fn waiting(&mut self, now: Instant, shard: ShardId, request: &PublishRequest) {
        let id = &request.stream_id;
        let created = lock(&self.state).waiting(now, shard, request);
        tracing::info!(stream = %id, %shard, "RTP session waits for its media");
        if created {
            self.publish(now, id, "stream.created", json!({}));
        }
    }

    fn started(
        &mut self,
        now: Instant,
        shard: ShardId,
        id: &StreamId,
        request: &PublishRequest,
        resumed: bool,
    ) {
        let mut tags = request.tags.clone();
        let ip = request.peer.ip();
        for rule in self
            .config
            .publishers
            .iter()
            .filter(|rule| rule.admits(id, ip))
            .take(1)
        {
            tags.extend(rule.tags.iter().cloned());
        }
        self.granted.remove(id);
        self.admitted.remove(id);
        // RTP has no handshake that could wait for an answer: whom the rules do not admit is
        // shown the door here.
        if request.protocol == Protocol::Rtp
            && !request.configured
            && !resumed
            && let Err((code, why)) = self.rules(now, &request.stream_id, request.peer.ip())
        {
            self.count_refusal(request, code, why);
            self.directory.block(id, now + self.config.stream.block_for);
            let stream_id = id.clone();
            let _ = self.mailboxes.send(
                shard,
                Command::Terminate {
                    stream_id,
                    reason: EndReason::Refused,
                },
            );
            return;
        }
        if request.mode == Mode::Caller {
            tags = self.caller_started(now, id);
        }
        tags.sort();
        tags.dedup();
        let created = lock(&self.state).started(now, shard, request, tags);
        self.callers.describe(&self.state, id);
        if self.stream_log.admit() {
            tracing::info!(stream = %id, peer = %request.peer, protocol = request.protocol.name(), %shard, resumed, "stream started");
        }
        if created {
            self.publish(now, id, "stream.created", json!({}));
        }
        self.publish(now, id, "stream.started", json!({ "resumed": resumed }));
    }

    /// Tells the registry a stream's state, and subscribers what happened.
    pub(crate) fn publish(
        &mut self,
        now: Instant,
        id: &StreamId,
        kind: &'static str,
        mut data: Value,
    ) {
        let clock = WallClock::read();
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut state = lock(&self.state);
        let Some(entry) = state.streams.get_mut(id) else {
            return;
        };
        if let Some(map) = data.as_object_mut() {
            map.insert("status".to_owned(), json!(entry.status.name()));
            if kind == "health.changed" {
                let (health, reasons) = entry.health();
                map.insert("health".to_owned(), json!(health.name()));
                map.insert("reasons".to_owned(), json!(reasons));
            }
        }
        let event = EventRecord {
            kind,
            timestamp: clock.rfc3339(now),
            data,
            seq,
        };
        let (over, created_us) = beat(entry, now, &clock);
        let live = !over && entry.presence != Presence::Standby;
        let record = state.record(id, &clock).map(|r| r.to_json());
        drop(state);
        self.registry.write(Write {
            stream_id: id.clone(),
            record,
            live,
            created_us,
            ttl: if over {
                self.config.registry.terminated_ttl
            } else {
                self.config.registry.ttl
            },
            event: Some(event),
        });
    }

    fn each_second(&mut self, now: Instant) {
        let held_back = self.refusal_log.refill(REFUSALS_LOGGED);
        if held_back > 0 {
            tracing::warn!(held_back, "more publishers were refused");
        }
        let held_back = self.stream_log.refill(STARTS_AND_ENDS_LOGGED);
        if held_back > 0 {
            tracing::info!(held_back, "more streams started or ended");
        }
        let usage = self.usage.read(now);
        let gone = {
            let mut state = lock(&self.state);
            state.process = usage;
            state.expire(now, self.config.registry.terminated_ttl)
        };
        for stream_id in gone {
            self.callers.stand_by(now, &self.state, &stream_id);
            self.forget(stream_id);
        }
        self.abandon_claims(now);
        self.admitted.retain(|_, (_, until)| *until > now);
        // A registry that has just come (back) may have lost everything: it is told all at once.
        let connections = self.registry.health().reconnects;
        let came_back = std::mem::replace(&mut self.connections, connections) != connections;
        if came_back || now >= self.next_heartbeat {
            self.next_heartbeat = now + self.config.registry.heartbeat_interval;
            self.heartbeat(now);
        }
    }

    /// Gives up claims whose handshakes came to nothing, so that other instances may have them.
    fn abandon_claims(&mut self, now: Instant) {
        if self.granted.is_empty() {
            return;
        }
        let registry = &self.registry;
        let state = lock(&self.state);
        self.granted.retain(|id, at| {
            let waiting = now.saturating_since(*at) < ABANDON_AFTER;
            if !waiting && state.streams.get(id).is_none_or(Entry::is_over) {
                registry.abandon(id);
            }
            waiting
        });
    }

    fn heartbeat(&mut self, now: Instant) {
        let clock = WallClock::read();
        // A caller that stands by writes its record when something happens: a claim it has not.
        let ids: Vec<StreamId> = lock(&self.state)
            .present()
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            // One short lock each: the HTTP side gets its turn between.
            let mut state = lock(&self.state);
            let Some(entry) = state.streams.get_mut(&id) else {
                continue;
            };
            let (over, created_us) = beat(entry, now, &clock);
            let record = state.record(&id, &clock).map(|r| r.to_json());
            drop(state);
            if !over {
                let ttl = self.config.registry.ttl;
                self.registry.write(Write {
                    stream_id: id,
                    record,
                    live: true,
                    created_us,
                    ttl,
                    event: None,
                });
            }
        }
    }
}

/// Marks a stream's record as refreshed; whether it is over, and its birth in µs since 1970.
fn beat(entry: &mut Entry, now: Instant, clock: &WallClock) -> (bool, i64) {
    entry.last_heartbeat = Some(now);
    (
        entry.is_over(),
        clock.unix_micros(entry.snapshot.created_at),
    )
}

/// The event that a change of status is to subscribers.
fn status_event(before: Status, after: Status) -> &'static str {
    match (before, after) {
        (_, Status::Paused) => "stream.paused",
        (Status::Paused, Status::Active) => "stream.resumed",
        (_, Status::Reconnecting) => "stream.reconnecting",
        (_, Status::Terminated) => "stream.terminated",
        (_, Status::Error) => "stream.error",
        _ => "stream.updated",
    }
}

impl LogLimit {
    pub(crate) fn admit(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return true;
        }
        self.held_back += 1;
        false
    }

    /// A new second with `lines`; returns how many were held back in the one before.
    fn refill(&mut self, lines: u32) -> u64 {
        self.left = lines;
        std::mem::take(&mut self.held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::LogLimit;

    #[test]
    fn log_lines_are_limited_and_the_rest_is_counted() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.refill(3), 0);
        assert_eq!((0..10).filter(|_| limit.admit()).count(), 3);
        assert_eq!(limit.refill(3), 7);
        assert!(limit.admit());
    }
}
