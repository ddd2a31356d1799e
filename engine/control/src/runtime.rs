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
    Command, EndReason, Event, Protocol, PublishRequest, ShardSnapshot, Status,
};
use serde_json::{Value, json};

use crate::clock::{self, WallClock};
use crate::config::Config;
use crate::directory::{Directory, RESERVATION_TTL};
use crate::registry::{Claim, EventRecord, Notice, Registry, Write};
use crate::state::{Entry, SharedState, lock};
use crate::{Mailboxes, ShardStopped, process};

/// A handshake waits for the registry's claim so long at the most (D14).
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_millis(250);
/// How exactly claims' deadlines are kept.
const DEADLINE_STEP: Duration = Duration::from_millis(20);
/// Publishers waiting for a claim at the same time; more are let in provisionally.
const MAX_PENDING: usize = 4096;
/// A claim whose stream did not start within this time is given up.
const ABANDON_AFTER: Duration = Duration::from_secs(5);
/// Log lines of refusals a second.
const REFUSALS_LOGGED: u32 = 5;
/// Log lines a second of streams that start and end.
const STARTS_AND_ENDS_LOGGED: u32 = 50;

/// SRT rejection codes of the application (SRT access control, section "Rejection codes").
pub(crate) mod rejection {
    pub(crate) const OVERLOAD: u32 = 1402;
    pub(crate) const FORBIDDEN: u32 = 1403;
    pub(crate) const CONFLICT: u32 = 1409;
    pub(crate) const DOWN: u32 = 1503;
}

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

/// A publisher whose claim is being asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    shard: ShardId,
    ticket: u64,
    request: PublishRequest,
    deadline: Instant,
}

/// Lets a few log lines a second through and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    left: u32,
    held_back: u64,
}

impl Runtime {
    pub(crate) fn run(mut self, events: &Receiver<Event>, notices: &Receiver<Notice>) {
        let seconds = tick(Duration::from_secs(1));
        // Without shards left, time and registry still go on until the daemon ends us.
        let silence = never();
        let mut events_or_silence = events;
        self.next_heartbeat = clock::now() + self.config.registry.heartbeat_interval;
        self.each_second(clock::now());
        while !self.stop.load(Ordering::Relaxed) {
            // Publishers who wait for a claim make us look at their deadlines.
            let deadline = if self.pending.is_empty() {
                never()
            } else {
                after(DEADLINE_STEP)
            };
            select! {
                recv(events_or_silence) -> event => match event {
                    Ok(event) => self.event_guarded(event),
                    Err(_) => events_or_silence = &silence,
                },
                recv(notices) -> notice => if let Ok(notice) = notice { self.notice(notice) },
                recv(seconds) -> _ => self.each_second(clock::now()),
                recv(self.wake) -> _ => {}
                recv(deadline) -> _ => {}
            }
            self.claim_deadlines(clock::now());
        }
        // What the shards said last, then nobody is left to speak for the streams.
        for event in events.try_iter().take(100_000) {
            self.event_guarded(event);
        }
        self.deregister(clock::now());
    }

    /// The engine ends: its streams are gone.
    fn deregister(&mut self, now: Instant) {
        let ids: Vec<StreamId> = lock(&self.state).live().map(|(id, _)| id.clone()).collect();
        for id in ids {
            lock(&self.state).changed(now, &id, Status::Terminated);
            self.publish(
                now,
                &id,
                "stream.terminated",
                json!({ "reason": EndReason::Drain.name() }),
            );
        }
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
            }
            // Nothing orders calls yet.
            Event::CallFailed { .. } => {}
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

    fn authorise(&mut self, now: Instant, shard: ShardId, ticket: u64, request: PublishRequest) {
        if let Err((code, why)) = self.judge(now, shard, &request) {
            self.refuse(shard, ticket, &request, code, why);
            return;
        }
        if self.config.registry.max_streams_per_source > 0 {
            let place = (request.peer.ip(), now + RESERVATION_TTL);
            self.admitted.insert(request.stream_id.clone(), place);
        }
        let created_us = WallClock::read().unix_micros(now);
        let own = self.next_ticket;
        self.next_ticket += 1;
        let claim = if self.pending.len() < MAX_PENDING {
            self.registry.claim(own, &request.stream_id, created_us)
        } else {
            Claim::Provisional
        };
        match claim {
            Claim::Granted | Claim::Provisional => self.answer(shard, ticket, Ok(())),
            Claim::Pending => {
                let deadline = now + CLAIM_TIMEOUT;
                self.pending.insert(
                    own,
                    Pending {
                        shard,
                        ticket,
                        request,
                        deadline,
                    },
                );
            }
        }
    }

    /// What this process alone can decide.
    fn judge(
        &self,
        now: Instant,
        shard: ShardId,
        request: &PublishRequest,
    ) -> Result<(), (u32, &'static str)> {
        let id = &request.stream_id;
        if self.directory.is_blocked(now, id) {
            return Err((
                rejection::FORBIDDEN,
                "terminated by the operator a moment ago",
            ));
        }
        self.rules(now, id, request.peer.ip())?;
        let state = lock(&self.state);
        if state.draining {
            return Err((rejection::DOWN, "the engine is draining"));
        }
        // Two publishers on one shard are the shard's to judge: it knows which one is silent.
        if state.lives_elsewhere(id, shard) {
            return Err((rejection::CONFLICT, "live on another shard"));
        }
        if state.live().filter(|(other, _)| *other != id).count() >= self.config.max_streams {
            return Err((rejection::OVERLOAD, "max_streams reached"));
        }
        Ok(())
    }

    /// What the configuration says of the publisher, whatever the protocol.
    fn rules(&self, now: Instant, id: &StreamId, ip: IpAddr) -> Result<(), (u32, &'static str)> {
        let rules = &self.config.publishers;
        if !rules.is_empty() && !rules.iter().any(|rule| rule.admits(id, ip)) {
            return Err((rejection::FORBIDDEN, "no publisher rule fits"));
        }
        let limit = self.config.registry.max_streams_per_source;
        if limit > 0 && self.streams_from(now, ip, id) >= limit {
            return Err((rejection::OVERLOAD, "max_streams_per_source reached"));
        }
        Ok(())
    }

    /// Streams of `ip`, live or let in a moment ago, `except` left out.
    fn streams_from(&self, now: Instant, ip: IpAddr, except: &StreamId) -> usize {
        let state = lock(&self.state);
        let coming = self.admitted.iter().filter(|(id, (from, until))| {
            *id != except
                && from.to_canonical() == ip.to_canonical()
                && *until > now
                && !state.is_live(id)
        });
        state.live_from(ip, except) + coming.count()
    }

    fn refuse(
        &mut self,
        shard: ShardId,
        ticket: u64,
        request: &PublishRequest,
        code: u32,
        why: &str,
    ) {
        self.count_refusal(request, code, why);
        self.answer(shard, ticket, Err(code));
    }

    fn count_refusal(&mut self, request: &PublishRequest, code: u32, why: &str) {
        {
            let refusals = &mut lock(&self.state).refusals;
            match code {
                rejection::CONFLICT => refusals.conflict += 1,
                rejection::OVERLOAD => refusals.overload += 1,
                rejection::DOWN => refusals.down += 1,
                _ => refusals.forbidden += 1,
            }
        }
        if self.refusal_log.admit() {
            tracing::warn!(stream = %request.stream_id, peer = %request.peer, code, why, "publisher refused");
        }
    }

    fn answer(&self, shard: ShardId, ticket: u64, decision: Result<(), u32>) {
        let decision = decision.map(|()| Box::new(mirror_srt::Security::clear()));
        // A shard that is gone needs no answer.
        let _ = self
            .mailboxes
            .send(shard, Command::Authorised { ticket, decision });
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Granted { ticket } | Notice::Provisional { ticket } => {
                if let Some(p) = self.pending.remove(&ticket) {
                    self.answer(p.shard, p.ticket, Ok(()));
                    self.granted.insert(p.request.stream_id, clock::now());
                }
            }
            // A ticket that is gone: the answer came too late, and the stream was let in
            // provisionally. The next write of its record settles who was first.
            Notice::Held { ticket, by } => {
                if let Some(p) = self.pending.remove(&ticket) {
                    self.admitted.remove(&p.request.stream_id);
                    let why = format!("held by instance {by}");
                    self.refuse(p.shard, p.ticket, &p.request, rejection::CONFLICT, &why);
                }
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
            .map(|e| (e.shard, e.snapshot.protocol));
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

    fn claim_deadlines(&mut self, now: Instant) {
        if self.pending.is_empty() {
            return;
        }
        let late: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.deadline <= now)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in late {
            if let Some(p) = self.pending.remove(&ticket) {
                self.answer(p.shard, p.ticket, Ok(()));
            }
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
        tags.sort();
        tags.dedup();
        self.granted.remove(id);
        self.admitted.remove(id);
        // RTP has no handshake that could wait for an answer: whom the rules do not admit is
        // shown the door here.
        if request.protocol == Protocol::Rtp
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
        let created = lock(&self.state).started(now, shard, request, tags);
        if self.stream_log.admit() {
            tracing::info!(stream = %id, peer = %request.peer, protocol = request.protocol.name(), %shard, resumed, "stream started");
        }
        if created {
            self.publish(now, id, "stream.created", json!({}));
        }
        self.publish(now, id, "stream.started", json!({ "resumed": resumed }));
    }

    /// Tells the registry a stream's state, and subscribers what happened.
    fn publish(&mut self, now: Instant, id: &StreamId, kind: &'static str, mut data: Value) {
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
        let record = state.record(id, &clock).map(|r| r.to_json());
        drop(state);
        self.registry.write(Write {
            stream_id: id.clone(),
            record,
            live: !over,
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
            self.registry.write(Write {
                stream_id,
                record: None,
                live: false,
                created_us: 0,
                ttl: Duration::ZERO,
                event: None,
            });
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
        let ids: Vec<StreamId> = lock(&self.state).live().map(|(id, _)| id.clone()).collect();
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
    fn admit(&mut self) -> bool {
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
