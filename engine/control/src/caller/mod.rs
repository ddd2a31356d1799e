//! The streams that the engine fetches itself (`[[srt.callers]]`). For each one [`machine`]
//! says when to call; this module carries a call out, step by step and never waiting: claim the
//! stream in the registry (so that of several engines with one configuration one fetches it),
//! look the host up, derive keys, find the shard, tell it to call. The rest is heard from the
//! shard. Driven by the control thread.

mod machine;
mod meeting;
mod resolver;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crossbeam_channel::Sender;
use mirror_base::{Instant, ShardId, StreamId};
use mirror_srt::{CallerSecurity, Passphrase};
use mirror_stream::report::{
    CallFailure, CallRequest, Command, EndReason, Reservation, Status, StreamDirectory,
};
use serde_json::{Map, Value, json};

use crate::authorise::CLAIM_TIMEOUT;
use crate::clock::WallClock;
use crate::config::{CallerConfig, Host, show_duration};
use crate::keys::{self, CallerJob};
use crate::registry::Claim;
use crate::runtime::{Runtime, Work};
use crate::state::{Presence, SharedState, lock};

use machine::{ATTEMPT_TIMEOUT, Blame, MEETING_TIMEOUT, Machine};
pub(crate) use machine::{Breaker, Phase};
use meeting::failure_text;
pub(crate) use resolver::Resolved;
use resolver::Resolver;

/// A look-up that takes longer is a failure.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller that is to wait is looked at so often, to see whether its stream was blocked.
const LOOK_FOR_BLOCKS: Duration = Duration::from_secs(1);
/// At the start the registry gets so long to become usable, so that of several engines that
/// start together only one calls; and it is looked at so often meanwhile.
const REGISTRY_START: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(50));

/// All configured callers.
#[derive(Debug)]
pub(crate) struct Callers {
    list: Vec<Caller>,
    index: HashMap<StreamId, usize>,
    resolver: Resolver,
    /// State of the generator behind the jitter.
    chance: u64,
    next_look: Instant,
    /// Until when the registry may become usable; `None`: it is, or it had its time.
    registry_until: Option<Instant>,
}

#[derive(Debug)]
struct Caller {
    config: CallerConfig,
    machine: Machine,
    /// Names the present attempt; 0 before the first.
    ticket: u64,
    /// When the present step (claim, look-up) has had its time.
    step_until: Option<Instant>,
    /// Whether the claim of the present attempt was not refused.
    claimed: bool,
    /// Which of the peer's addresses is called next.
    turn: usize,
    peer: Option<SocketAddr>,
    /// Rendezvous: what the present call is bound to.
    local: Option<SocketAddr>,
    /// Which shard makes the present call.
    shard: Option<ShardId>,
    last_error: Option<String>,
    last_error_at: Option<Instant>,
    connected_at: Option<Instant>,
    /// Stopped by the operator.
    stopped: bool,
    /// Whether subscribers know of the stream.
    announced: bool,
}

/// A caller as the API shows it.
#[derive(Clone, Debug)]
pub(crate) struct CallerView {
    pub(crate) url: String,
    pub(crate) rendezvous: bool,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) encrypted: bool,
    pub(crate) phase: Phase,
    pub(crate) breaker: Breaker,
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
    pub(crate) failures_in_a_row: u32,
    pub(crate) connections: u64,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_error_at: Option<Instant>,
    pub(crate) next_attempt_at: Option<Instant>,
    pub(crate) connected_at: Option<Instant>,
    pub(crate) stopped: bool,
}

impl CallerView {
    /// As `GET /api/v1/callers` shows it.
    pub(crate) fn to_json(&self, id: &StreamId, clock: &WallClock) -> Value {
        let time = |at: Option<Instant>| at.map(|at| clock.rfc3339(at));
        json!({
            "id": id.as_str(),
            "url": self.url,
            "mode": if self.rendezvous { "rendezvous" } else { "caller" },
            "local": self.local.map(|l| l.to_string()),
            "encrypted": self.encrypted,
            "state": self.phase.name(),
            "stopped_by_operator": self.stopped,
            "breaker": self.breaker.name(),
            "attempts": self.attempts,
            "connections": self.connections,
            "failures": self.failures,
            "failures_in_a_row": self.failures_in_a_row,
            "peer": self.peer.map(|p| p.to_string()),
            "last_error": self.last_error,
            "last_error_at": time(self.last_error_at),
            "next_attempt_at": time(self.next_attempt_at),
            "connected_at": time(self.connected_at),
        })
    }
}

impl Callers {
    /// The callers of the configuration, due at `now`; `work` takes looked-up names.
    pub(crate) fn new(now: Instant, configs: &[CallerConfig], work: Sender<Work>) -> Callers {
        let list: Vec<Caller> = configs.iter().map(|c| Caller::new(now, c)).collect();
        let index = list
            .iter()
            .enumerate()
            .map(|(i, caller)| (caller.config.id.clone(), i))
            .collect();
        let seed = keys::seed().map_or(now.as_nanos(), |seed| {
            seed.iter()
                .take(8)
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        });
        Callers {
            list,
            index,
            resolver: Resolver::new(work),
            chance: seed,
            next_look: now,
            registry_until: Some(now + REGISTRY_START.0),
        }
    }

    /// Whether the id belongs to a caller.
    pub(crate) fn has(&self, id: &StreamId) -> bool {
        self.index.contains_key(id)
    }

    /// How long until a caller wants to be looked at.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let waits = self.list.iter().flat_map(|caller| {
            let step = caller.step_until;
            caller.machine.next().into_iter().chain(step)
        });
        waits.min().map(|at| at.saturating_since(now))
    }

    fn find(&self, id: &StreamId) -> Option<usize> {
        self.index.get(id).copied()
    }

    fn of_ticket(&self, ticket: u64) -> Option<usize> {
        self.list.iter().position(|c| c.ticket == ticket)
    }

    /// splitmix64.
    fn chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Makes the stream's record, if there is none, and shows the caller.
    pub(crate) fn stand_by(&self, now: Instant, state: &SharedState, id: &StreamId) {
        let Some(caller) = self.find(id).and_then(|i| self.list.get(i)) else {
            return;
        };
        lock(state).stand_by(now, id, caller.config.tags.clone());
        self.describe(state, id);
    }

    /// Puts the caller's configuration on its stream's record, and its state beside it.
    pub(crate) fn describe(&self, state: &SharedState, id: &StreamId) {
        let Some(caller) = self.find(id).and_then(|i| self.list.get(i)) else {
            return;
        };
        let mut state = lock(state);
        if let Some(entry) = state.streams.get_mut(id) {
            entry.config = caller.describe();
        }
        state.callers.insert(id.clone(), caller.view());
    }
}

impl Caller {
    fn new(now: Instant, config: &CallerConfig) -> Caller {
        Caller {
            machine: Machine::new(
                now,
                config.backoff,
                config.circuit_breaker,
                match config.url.rendezvous {
                    Some(_) => MEETING_TIMEOUT,
                    None => ATTEMPT_TIMEOUT,
                },
            ),
            config: config.clone(),
            ticket: 0,
            step_until: None,
            claimed: false,
            turn: 0,
            peer: None,
            local: None,
            shard: None,
            last_error: None,
            last_error_at: None,
            connected_at: None,
            stopped: false,
            announced: false,
        }
    }

    fn view(&self) -> CallerView {
        CallerView {
            url: self.config.url.shown().to_owned(),
            rendezvous: self.config.url.rendezvous.is_some(),
            local: self.local,
            encrypted: self.config.passphrase.is_some(),
            phase: self.machine.phase(),
            breaker: self.machine.breaker(),
            attempts: self.machine.attempts,
            failures: self.machine.failures,
            failures_in_a_row: self.machine.failures_in_a_row(),
            connections: self.machine.connections,
            peer: self.peer,
            last_error: self.last_error.clone(),
            last_error_at: self.last_error_at,
            next_attempt_at: self.machine.next_attempt(),
            connected_at: self.connected_at,
            stopped: self.stopped,
        }
    }

    /// The record's `config`.
    fn describe(&self) -> Map<String, Value> {
        let config = &self.config;
        let mut map = Map::new();
        map.insert("url".to_owned(), json!(config.url.shown()));
        map.insert("encrypted".to_owned(), json!(config.passphrase.is_some()));
        let backoff = &config.backoff;
        map.insert(
            "backoff".to_owned(),
            json!({
                "initial": show_duration(backoff.initial),
                "max": show_duration(backoff.max),
                "jitter": backoff.jitter,
            }),
        );
        let breaker = &config.circuit_breaker;
        map.insert(
            "circuit_breaker".to_owned(),
            json!({
                "failures": breaker.failures,
                "reset_after": show_duration(breaker.reset_after),
            }),
        );
        map
    }
}

impl Runtime {
    /// Looks at every caller that wants it.
    pub(crate) fn callers_turn(&mut self, now: Instant) {
        if self.callers.list.is_empty() {
            return;
        }
        if lock(&self.state).draining {
            // No call any more; shards cancel what they have begun.
            self.callers.list.clear();
            self.callers.index.clear();
            for caller in lock(&self.state).callers.values_mut() {
                caller.phase = Phase::Idle;
                caller.next_attempt_at = None;
                caller.connected_at = None;
            }
            return;
        }
        let look = now >= self.callers.next_look;
        if look {
            self.callers.next_look = now + LOOK_FOR_BLOCKS;
        }
        if let Some(until) = self.callers.registry_until {
            if now < until && !self.registry.health().usable {
                for caller in &mut self.callers.list {
                    caller.machine.postpone(now + REGISTRY_START.1);
                }
                return;
            }
            self.callers.registry_until = None;
        }
        for i in 0..self.callers.list.len() {
            self.caller_turn(now, i, look);
        }
    }

    fn caller_turn(&mut self, now: Instant, i: usize, look: bool) {
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        let proved = caller.machine.prove(now).then(|| caller.config.id.clone());
        let waiting = caller.machine.next_attempt().is_some();
        let due = caller.machine.due(now);
        if waiting && (due || (look && !caller.stopped)) {
            let id = caller.config.id.clone();
            let until = self.directory.blocked_until(now, &id);
            if let Some(until) = until.or_else(|| self.told_to_end(&id).then_some(now)) {
                return self.caller_stopped(now, i, until);
            }
        }
        // The breaker is closed and failures are forgotten: that is shown.
        if let Some(id) = proved {
            self.callers.describe(&self.state, &id);
        }
        if due {
            return self.begin_call(now, i);
        }
        let Some(caller) = self.callers.list.get(i) else {
            return;
        };
        let late = caller.step_until.is_some_and(|at| at <= now);
        match caller.machine.phase() {
            // The registry does not answer: ours until it says otherwise (D14).
            Phase::Claiming if late => self.resolve(now, i),
            Phase::Resolving if late => {
                let why = "the host name was not looked up within 5 s".to_owned();
                self.caller_failed(now, i, Blame::Peer, why);
            }
            _ if caller.machine.overdue(now) => {
                let why = "the shard did not answer".to_owned();
                self.caller_failed(now, i, Blame::Ours, why);
            }
            _ => {}
        }
    }

    /// Whether the operator has ended a stream that no shard has: its block may be over before
    /// it is looked at.
    fn told_to_end(&self, id: &StreamId) -> bool {
        let state = lock(&self.state);
        let entry = state.streams.get(id);
        entry.is_some_and(|e| e.status == Status::Terminating && e.presence == Presence::Standby)
    }

    fn begin_call(&mut self, now: Instant, i: usize) {
        let ticket = self.new_ticket();
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        caller.ticket = ticket;
        caller.stopped = false;
        caller.claimed = false;
        caller.machine.begin(now);
        caller.step_until = Some(now + CLAIM_TIMEOUT);
        let id = caller.config.id.clone();
        // The same moment as on the record, by which it is settled who was first.
        let created = lock(&self.state)
            .streams
            .get(&id)
            .filter(|e| !e.is_over())
            .map_or(now, |e| e.snapshot.created_at);
        let created_us = WallClock::read().unix_micros(created);
        match self.registry.claim(ticket, &id, created_us) {
            Claim::Granted | Claim::Provisional => self.resolve(now, i),
            Claim::Pending => self.callers.describe(&self.state, &id),
        }
    }

    /// The registry granted a claim, or could not be asked.
    pub(crate) fn caller_claimed(&mut self, now: Instant, ticket: u64) {
        if let Some(i) = self.callers.of_ticket(ticket)
            && self.phase_of(i) == Some(Phase::Claiming)
        {
            self.resolve(now, i);
        }
    }

    /// Another instance fetches the stream: asked again at the pace of failures.
    pub(crate) fn caller_held(&mut self, now: Instant, ticket: u64, by: &str) {
        if let Some(i) = self.callers.of_ticket(ticket)
            && self.phase_of(i) == Some(Phase::Claiming)
        {
            self.caller_failed(now, i, Blame::Ours, format!("held by instance {by}"));
        }
    }

    fn phase_of(&self, i: usize) -> Option<Phase> {
        self.callers.list.get(i).map(|c| c.machine.phase())
    }

    fn resolve(&mut self, now: Instant, i: usize) {
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        caller.claimed = true;
        caller.machine.step(Phase::Resolving);
        let port = caller.config.url.port;
        match &caller.config.url.host {
            Host::Address(ip) => {
                let peer = SocketAddr::new(*ip, port);
                self.derive(now, i, peer);
            }
            Host::Name(name) => {
                caller.step_until = Some(now + RESOLVE_TIMEOUT);
                let asked = self.callers.resolver.ask(caller.ticket, name, port);
                let id = caller.config.id.clone();
                match asked {
                    Ok(()) => self.callers.describe(&self.state, &id),
                    Err(why) => self.caller_failed(now, i, Blame::Ours, why),
                }
            }
        }
    }

    /// A host name was looked up.
    pub(crate) fn resolved(&mut self, now: Instant, resolved: Resolved) {
        let Some(i) = self.callers.of_ticket(resolved.ticket) else {
            return;
        };
        let Some(caller) = self
            .callers
            .list
            .get(i)
            .filter(|c| c.machine.phase() == Phase::Resolving)
        else {
            return;
        };
        match resolved.addresses {
            Ok(addresses) => {
                let end = caller.config.url.rendezvous;
                let reached = |peer: &SocketAddr| end.is_none_or(|end| end.reaches(peer.ip()));
                let addresses: Vec<_> = addresses.into_iter().filter(reached).collect();
                // A peer that did not answer may do so at another of its addresses.
                let turn = caller.turn.checked_rem(addresses.len()).unwrap_or(0);
                match addresses.get(turn) {
                    Some(peer) => self.derive(now, i, *peer),
                    None => {
                        let why = "the host has no address that adapter reaches".to_owned();
                        self.caller_failed(now, i, Blame::Peer, why);
                    }
                }
            }
            Err(why) => self.caller_failed(now, i, Blame::Peer, why),
        }
    }

    fn derive(&mut self, now: Instant, i: usize, peer: SocketAddr) {
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        caller.machine.step(Phase::Calling);
        caller.step_until = None;
        caller.peer = Some(peer);
        let end = caller.config.url.rendezvous;
        caller.local = end.map(|end| end.towards(peer.ip()));
        let Some(secret) = &caller.config.passphrase else {
            return self.call(now, i, None);
        };
        match Passphrase::new(secret.reveal()) {
            Ok(passphrase) => {
                self.keys.caller(CallerJob {
                    ticket: caller.ticket,
                    passphrase,
                    key_length: caller.config.key_length,
                    cipher: caller.config.cipher,
                    require: caller.config.require,
                });
            }
            Err(error) => self.caller_failed(now, i, Blame::Ours, error.to_string()),
        }
    }

    /// The keys of a call are derived.
    pub(crate) fn caller_keys(
        &mut self,
        now: Instant,
        ticket: u64,
        security: Option<Box<CallerSecurity>>,
    ) {
        let Some(i) = self.callers.of_ticket(ticket) else {
            return;
        };
        if self.phase_of(i) != Some(Phase::Calling) {
            return;
        }
        match security {
            Some(security) => self.call(now, i, Some(*security)),
            None => {
                let why = "no keys could be made".to_owned();
                self.caller_failed(now, i, Blame::Ours, why);
            }
        }
    }

    fn call(&mut self, now: Instant, i: usize, security: Option<CallerSecurity>) {
        let Some(caller) = self.callers.list.get(i) else {
            return;
        };
        let (id, tags) = (caller.config.id.clone(), caller.config.tags.clone());
        let Some(peer) = caller.peer else {
            return;
        };
        // A stream in its grace period is found where it lives.
        let shard = match self.directory.reserve_call(now, &id) {
            Reservation::Owner(shard) => shard,
            Reservation::Full => {
                let why = "max_streams reached".to_owned();
                return self.caller_failed(now, i, Blame::Ours, why);
            }
            Reservation::Blocked => {
                let until = self.directory.blocked_until(now, &id);
                return self.caller_stopped(now, i, until.unwrap_or(now));
            }
        };
        let request = CallRequest {
            ticket: caller.ticket,
            stream_id: id.clone(),
            peer,
            srt_stream_id: caller.config.url.stream_id.clone(),
            latency: caller.config.url.latency,
            security,
            tags,
            rendezvous: caller.local,
        };
        if let Some(caller) = self.callers.list.get_mut(i) {
            caller.shard = Some(shard);
        }
        // Who ends the stream from now on ends the call.
        self.show_call(now, i);
        let told = self.mailboxes.send(shard, Command::Call(Box::new(request)));
        if told.is_err() {
            self.directory.release(&id, shard);
            let why = format!("shard {shard} takes no commands");
            self.caller_failed(now, i, Blame::Ours, why);
        }
    }

    /// Puts the present call on the stream's record.
    fn show_call(&mut self, now: Instant, i: usize) {
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        let (Some(shard), Some(peer)) = (caller.shard, caller.peer) else {
            return;
        };
        let known = std::mem::replace(&mut caller.announced, true);
        let (id, tags) = (caller.config.id.clone(), caller.config.tags.clone());
        lock(&self.state).called(now, &id, shard, peer, tags);
        self.callers.describe(&self.state, &id);
        let kind = if known {
            "stream.updated"
        } else {
            "stream.created"
        };
        self.publish(now, &id, kind, json!({ "caller": Phase::Calling.name() }));
    }

    /// A shard could not bring the stream.
    pub(crate) fn call_failed(
        &mut self,
        now: Instant,
        ticket: u64,
        failure: CallFailure,
        detail: Option<&str>,
    ) {
        let Some(i) = self.callers.of_ticket(ticket) else {
            return;
        };
        let Some(caller) = self
            .callers
            .list
            .get_mut(i)
            .filter(|c| c.machine.phase() == Phase::Calling)
        else {
            return;
        };
        let by_peer = [CallFailure::Timeout, CallFailure::Unconcluded];
        if by_peer.contains(&failure) || matches!(failure, CallFailure::Rejected(_)) {
            caller.turn = caller.turn.wrapping_add(1);
        }
        let (blame, why) = failure_text(failure, detail, caller.peer);
        let id = caller.config.id.clone();
        if failure == CallFailure::Cancelled
            && let Some(until) = self.directory.blocked_until(now, &id)
        {
            return self.caller_stopped(now, i, until);
        }
        self.caller_failed(now, i, blame, why);
    }

    fn caller_failed(&mut self, now: Instant, i: usize, blame: Blame, why: String) {
        let chance = self.callers.chance();
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        caller.machine.failed(now, blame, chance);
        let id = caller.config.id.clone();
        let open = caller.machine.phase() == Phase::Open;
        let claimed = std::mem::take(&mut caller.claimed);
        caller.step_until = None;
        // What stands by while another instance fetches the stream is told of that once.
        let news = claimed || caller.last_error.as_deref() != Some(&why);
        if news && self.stream_log.admit() {
            let wait = caller.machine.next_attempt();
            let wait = wait.map_or(0, |at| at.saturating_since(now).as_millis());
            tracing::warn!(
                stream = %id,
                url = caller.config.url.shown(),
                breaker = caller.machine.breaker().name(),
                next_call_ms = wait,
                "call failed: {why}"
            );
        }
        caller.last_error = Some(why.clone());
        caller.last_error_at = Some(now);
        self.give_place_back(&id);
        let status = if open { Status::Error } else { Status::Pending };
        let changed = lock(&self.state).not_called(now, &id, status, &why);
        self.callers.stand_by(now, &self.state, &id);
        self.callers.describe(&self.state, &id);
        // Written as not live, which gives the claim up as well: another instance may have more
        // success. What another instance holds is not written to.
        if changed && claimed {
            let kind = if open {
                "stream.error"
            } else {
                "stream.updated"
            };
            self.publish(now, &id, kind, json!({ "reason": why }));
        } else if claimed {
            self.give_claim_back(&id);
        }
    }

    /// A claim that brought no stream and has no record to be written that would end it: that of
    /// a stream that is over.
    fn give_claim_back(&self, id: &StreamId) {
        if !lock(&self.state).is_live(id) {
            self.registry.abandon(id);
        }
    }

    /// A reservation that brought no stream.
    fn give_place_back(&self, id: &StreamId) {
        let called = lock(&self.state)
            .streams
            .get(id)
            .filter(|e| e.presence == Presence::Called)
            .and_then(|e| e.shard);
        if let Some(shard) = called {
            self.directory.release(id, shard);
        }
    }

    /// The operator ended the stream: no call until `until`.
    fn caller_stopped(&mut self, now: Instant, i: usize, until: Instant) {
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        caller.machine.stop(until);
        caller.step_until = None;
        caller.connected_at = None;
        caller.stopped = true;
        caller.announced = false;
        let claimed = std::mem::take(&mut caller.claimed);
        let id = caller.config.id.clone();
        tracing::info!(stream = %id, "caller stopped by the operator");
        self.give_place_back(&id);
        let ended = {
            let mut state = lock(&self.state);
            let off_shard = state
                .streams
                .get(&id)
                .is_some_and(|e| !e.is_over() && e.presence != Presence::Shard);
            if off_shard {
                state.not_called(now, &id, Status::Terminating, "stopped by the operator");
                state.changed(now, &id, Status::Terminated);
            }
            off_shard
        };
        self.callers.describe(&self.state, &id);
        if ended {
            let reason = EndReason::Operator.name();
            self.publish(now, &id, "stream.terminated", json!({ "reason": reason }));
        } else if claimed {
            self.give_claim_back(&id);
        }
    }

    /// A call was answered; returns the stream's tags.
    pub(crate) fn caller_started(&mut self, now: Instant, id: &StreamId) -> Vec<String> {
        let found = self.callers.find(id);
        let Some(caller) = found.and_then(|i| self.callers.list.get_mut(i)) else {
            return Vec::new();
        };
        caller.machine.connected(now);
        caller.step_until = None;
        caller.last_error = None;
        caller.last_error_at = None;
        caller.connected_at = Some(now);
        caller.stopped = false;
        caller.announced = true;
        caller.config.tags.clone()
    }

    /// A caller's session ended.
    pub(crate) fn caller_ended(
        &mut self,
        now: Instant,
        id: &StreamId,
        reason: EndReason,
        status: Status,
    ) {
        let Some(i) = self.callers.find(id) else {
            return;
        };
        let over = matches!(status, Status::Terminated | Status::Error);
        if let Some(caller) = self.callers.list.get_mut(i).filter(|_| over) {
            caller.announced = false;
        }
        if self.phase_of(i) != Some(Phase::Connected) {
            // The grace period is over, or an end of long ago.
            self.callers.describe(&self.state, id);
            if over {
                self.still_meeting(now, i);
            }
            return;
        }
        if let Some(until) = self.directory.blocked_until(now, id) {
            return self.caller_stopped(now, i, until);
        }
        let chance = self.callers.chance();
        let Some(caller) = self.callers.list.get_mut(i) else {
            return;
        };
        let blame = match reason {
            EndReason::PeerClosed | EndReason::IdleTimeout | EndReason::PeerError => Blame::Peer,
            _ => Blame::Ours,
        };
        caller.machine.ended(now, blame, chance);
        caller.connected_at = None;
        caller.last_error = Some(format!("the session ended: {}", reason.name()));
        caller.last_error_at = Some(now);
        tracing::debug!(stream = %id, status = status.name(), "caller's session ended");
        self.callers.describe(&self.state, id);
    }
}
