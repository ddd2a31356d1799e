//! SRT handshakes (design, section 3): from a conclusion to the shard that owns its stream, to
//! control for authorisation, and back to an accepted connection or a rejection.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::{Discard, Instant, StreamId};
use mirror_media::Format;
use mirror_srt::{
    ConnectRequest, Connection, HandshakeAction, RejectionCode, Security, StreamIdFields,
};
use mirror_stream::report::{EndReason, Event, Mode, Protocol, PublishRequest, Reservation};
use mirror_uring::Datagram;

use crate::arena::Key;
use crate::driver::{Clock, Driver};
use crate::mailbox::{Conclusion, Mail};
use crate::session::{Proto, RequestKey, Session};
use crate::shard::{Core, Map, Role};

/// A session that was silent for so long gives way to a newcomer with the same credentials
/// (product contract, section 2).
pub(crate) const SUPERSEDE_AFTER: Duration = Duration::from_millis(500);
/// Half-open handshakes of one shard.
const MAX_PENDING: usize = 1024;
/// And of one host: its cookie proves the address, so whoever floods with wrong passphrases
/// leaves room for others.
const MAX_PENDING_PER_HOST: u32 = 512;
/// No handshake is longer than a packet of the largest MSS (spec section 20): what a waiting
/// conclusion keeps of it is bounded by this.
const MAX_HANDSHAKE: usize = 1500;
/// How long a handshake waits for control; libsrt's callers give up after as long.
const PENDING_LIFETIME: Duration = Duration::from_secs(3);
/// Refusals that are remembered by one shard.
const MAX_REFUSED: usize = 1024;
/// Bytes of the SRT stream ID that are shown.
const SHOWN_STREAM_ID: usize = 512;

/// A conclusion that waits for control's answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    conclusion: Conclusion,
    expires: Instant,
}

/// Half-open handshakes by ticket.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    by_ticket: Map<u64, Waiting>,
    tickets: Map<RequestKey, u64>,
    per_host: Map<IpAddr, u32>,
    next_ticket: u64,
}

impl Pending {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.by_ticket.len()
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty()
    }

    fn insert(&mut self, conclusion: Conclusion, expires: Instant) -> u64 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        *self
            .per_host
            .entry(conclusion.request.peer.ip())
            .or_default() += 1;
        self.tickets.insert(conclusion.request.key(), ticket);
        self.by_ticket.insert(
            ticket,
            Waiting {
                conclusion,
                expires,
            },
        );
        ticket
    }

    fn take(&mut self, ticket: u64) -> Option<Conclusion> {
        let conclusion = self.by_ticket.remove(&ticket)?.conclusion;
        self.tickets.remove(&conclusion.request.key());
        let host = conclusion.request.peer.ip();
        if let Some(count) = self.per_host.get_mut(&host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_host.remove(&host);
            }
        }
        Some(conclusion)
    }

    /// Whether one more of `host` may wait.
    fn has_room_for(&self, host: IpAddr) -> bool {
        self.by_ticket.len() < MAX_PENDING
            && self
                .per_host
                .get(&host)
                .is_none_or(|&count| count < MAX_PENDING_PER_HOST)
    }

    /// Whether one is to bring `stream_id`.
    pub(crate) fn wants(&self, stream_id: &StreamId) -> bool {
        self.by_ticket
            .values()
            .any(|w| w.conclusion.stream_id == *stream_id)
    }

    fn expired(&self, now: Instant) -> Vec<u64> {
        self.by_ticket
            .iter()
            .filter(|(_, w)| w.expires <= now)
            .map(|(&ticket, _)| ticket)
            .collect()
    }

    fn tickets(&self) -> Vec<u64> {
        self.by_ticket.keys().copied().collect()
    }
}

/// What control refused lately. libsrt repeats a refused conclusion, with its key message, each
/// 10 ms until its own timeout: the repeats get the same answer, and nobody derives a key again.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    codes: Map<RequestKey, RejectionCode>,
    /// In the order of their ends.
    order: VecDeque<(Instant, RequestKey)>,
}

impl Refused {
    fn insert(&mut self, now: Instant, key: RequestKey, code: RejectionCode) {
        self.forget(now);
        if self.order.len() >= MAX_REFUSED
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.codes.remove(&oldest);
        }
        if self.codes.insert(key, code).is_none() {
            self.order.push_back((now + PENDING_LIFETIME, key));
        }
    }

    fn get(&mut self, now: Instant, key: &RequestKey) -> Option<RejectionCode> {
        self.forget(now);
        self.codes.get(key).copied()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, key)) = self.order.front()
            && *until <= now
        {
            self.codes.remove(key);
            self.order.pop_front();
        }
    }
}

impl<C: Clock> Core<C> {
    /// A datagram with destination socket ID 0.
    pub(crate) fn handshake(&mut self, datagram: &Datagram<'_>) {
        let now = self.now;
        if self.roles.get(datagram.socket) == Some(&Role::Rendezvous) {
            return self.greeting(datagram);
        }
        let listens = self.roles.get(datagram.socket) == Some(&Role::Srt);
        let Some(handshaker) = self.handshaker.as_mut().filter(|_| listens) else {
            return self.discard(Discard::UnknownSession);
        };
        if datagram.payload.len() > MAX_HANDSHAKE {
            return self.discard(Discard::TooLong);
        }
        let host = datagram.origin.peer().ip();
        let action = handshaker.handle_datagram(
            datagram.arrival,
            datagram.origin.peer().addr(),
            datagram.payload,
            &mut self.scratch,
        );
        match action {
            // The handshaker is cheap, but a spoofed flood must not buy replies without end.
            Ok(HandshakeAction::Reply(_)) if !self.inductions.admits(now, host) => {
                self.discard(Discard::HandshakeLimit);
            }
            Ok(HandshakeAction::Reply(len)) => {
                self.counters.inductions += 1;
                let len = len.min(self.scratch.len());
                self.outbox.push(
                    datagram.socket,
                    datagram.origin.peer().addr(),
                    datagram.origin.local().ip(),
                    &self.scratch[..len],
                );
                let handshaker = self.handshaker.as_mut();
                if let Some(len) = handshaker.and_then(|h| h.further_reply(now, &mut self.scratch))
                {
                    self.outbox.push(
                        datagram.socket,
                        datagram.origin.peer().addr(),
                        datagram.origin.local().ip(),
                        &self.scratch[..len],
                    );
                }
            }
            Ok(HandshakeAction::Conclude(request)) => {
                if self.conclusions.admits(now, host) {
                    self.conclude(request, datagram.socket, datagram.origin.local().ip());
                } else {
                    self.discard(Discard::HandshakeLimit);
                }
            }
            Err(reason) => self.discard(reason),
        }
    }

    /// A good conclusion: finds the shard that owns its stream.
    fn conclude(&mut self, request: Box<ConnectRequest>, socket: usize, local: Option<IpAddr>) {
        if self.draining.is_some() {
            return self.reject(&request, socket, local, RejectionCode::CLOSE);
        }
        let wish = match self.wish(&request) {
            Ok(wish) => wish,
            Err(code) => return self.reject(&request, socket, local, code),
        };
        let (stream_id, user, tags) = wish;
        match self.directory.reserve(self.now, &stream_id, self.id) {
            Reservation::Owner(owner) => {
                let conclusion = Conclusion {
                    request,
                    stream_id,
                    user,
                    tags,
                    socket,
                    local,
                };
                if owner == self.id {
                    return self.conclude_here(conclusion);
                }
                match self
                    .mailboxes
                    .post(owner, Mail::Conclusion(Box::new(conclusion)))
                {
                    Ok(()) => self.counters.handshakes_forwarded += 1,
                    // The peer repeats its conclusion; by then there is room, or it gives up.
                    Err(_) => self.discard(Discard::HandshakeLimit),
                }
            }
            Reservation::Full => self.reject(&request, socket, local, RejectionCode::OVERLOAD),
            Reservation::Blocked => self.reject(&request, socket, local, RejectionCode::FORBIDDEN),
        }
    }

    /// What the stream ID asks for (product contract, section 2; spec section 19).
    fn wish(
        &self,
        request: &ConnectRequest,
    ) -> Result<(StreamId, Option<String>, Vec<String>), RejectionCode> {
        let Some(raw) = request
            .srt_stream_id
            .as_deref()
            .filter(|raw| !raw.is_empty())
        else {
            let peer = request.peer;
            let id = self
                .directory
                .default_stream(peer.ip(), peer.port())
                .ok_or(RejectionCode::BAD_REQUEST)?;
            return Ok((id, None, Vec::new()));
        };
        let fields = StreamIdFields::parse(raw);
        let default_publish = self.config.srt.as_ref().is_some_and(|s| s.default_publish);
        match fields.mode.as_deref() {
            Some("publish") => {}
            None if default_publish => {}
            // "request", "bidirectional", anything else: nothing that this engine does.
            _ => return Err(RejectionCode::BAD_MODE),
        }
        let id = StreamId::new(&fields.resource).map_err(|_| RejectionCode::BAD_REQUEST)?;
        let tags = fields
            .others
            .into_iter()
            .map(|(key, value)| mirror_srt::shown_field(&key, &value))
            .collect();
        Ok((id, fields.user, tags))
    }

    fn reject(
        &mut self,
        request: &ConnectRequest,
        socket: usize,
        local: Option<IpAddr>,
        code: RejectionCode,
    ) {
        self.counters.rejected += 1;
        let len = request
            .reject(self.now, code, &mut self.scratch)
            .min(self.scratch.len());
        self.outbox
            .push(socket, request.peer, local, &self.scratch[..len]);
    }

    /// A conclusion for a stream of this shard.
    pub(crate) fn conclude_here(&mut self, conclusion: Conclusion) {
        let key = conclusion.request.key();
        if let Some(&session) = self.by_request.get(&key) {
            return self.repeat_conclusion(session);
        }
        if self.pending.tickets.contains_key(&key) {
            return self.discard(Discard::HandshakePending);
        }
        if let Some(code) = self.refused.get(self.now, &key) {
            return self.refuse(&conclusion, code);
        }
        if let Err(code) = self.may_publish(&conclusion) {
            return self.refuse(&conclusion, code);
        }
        if !self.pending.has_room_for(conclusion.request.peer.ip()) {
            return self.discard(Discard::HandshakeLimit);
        }
        let mut request = self.publish_request(&conclusion);
        // Only for control's decision: the stream does not keep it.
        request.key_material = conclusion.request.key_material.clone();
        let ticket = self.pending.insert(conclusion, self.now + PENDING_LIFETIME);
        let event = Event::Authorise {
            shard: self.id,
            ticket,
            request,
        };
        if !self.events.must(event)
            && let Some(conclusion) = self.pending.take(ticket)
        {
            self.refuse(&conclusion, RejectionCode::OVERLOAD);
        }
    }

    fn repeat_conclusion(&mut self, session: Key) {
        let now = self.now;
        if let Some(Session {
            proto: Proto::Srt(connection),
            ..
        }) = self.sessions.get_mut(session)
        {
            connection.handle_repeated_conclusion(now);
            self.touch(session);
        }
    }

    /// Whether the stream may have this publisher: room, and no conflict.
    fn may_publish(&self, conclusion: &Conclusion) -> Result<(), RejectionCode> {
        if self.draining.is_some() {
            return Err(RejectionCode::CLOSE);
        }
        match self.live_session(&conclusion.stream_id) {
            None if self.has_room_for_connection() => Ok(()),
            None => Err(RejectionCode::OVERLOAD),
            Some(_) if self.gives_way(&conclusion.stream_id, conclusion.user.as_deref()) => Ok(()),
            Some(_) => Err(RejectionCode::CONFLICT),
        }
    }

    /// Whether one more SRT connection is within `max_connections`. Calls count from their
    /// beginning.
    pub(crate) fn has_room_for_connection(&self) -> bool {
        let limit = self.config.srt.as_ref().map_or(0, |s| s.max_connections);
        // Every session that is no RTP source is an SRT connection.
        let others = self.by_ssrc.len() + self.configured;
        let connections = self.sessions.len().saturating_sub(others);
        connections < limit as usize
    }

    /// The session that brings `id` now, if any.
    fn live_session(&self, id: &StreamId) -> Option<&Session> {
        let entry = self.streams.get(*self.by_id.get(id)?)?;
        self.sessions.get(entry.session?)
    }

    /// Whether a publisher called `user` may take `id` over from the session that brings it now
    /// (product contract, section 2). Nobody brings it: yes.
    pub(crate) fn gives_way(&self, id: &StreamId, user: Option<&str>) -> bool {
        let Some(session) = self.live_session(id) else {
            return true;
        };
        if matches!(session.proto, Proto::Configured(_)) {
            // Who configured it wants that source and no other.
            return false;
        }
        let silent = session.silence(self.now) >= SUPERSEDE_AFTER;
        let entry = self.streams.get(session.stream);
        let same_credentials = entry.is_some_and(|e| e.request.user.as_deref() == user);
        // A session that is over and only delivers what it holds does not stand in the way.
        let over = session.end.is_some();
        over || self.config.takeover || (silent && same_credentials)
    }

    /// Rejects, and gives the reservation back unless something else of this shard needs it.
    fn refuse(&mut self, conclusion: &Conclusion, code: RejectionCode) {
        self.reject(
            &conclusion.request,
            conclusion.socket,
            conclusion.local,
            code,
        );
        self.give_back(&conclusion.stream_id);
    }

    fn publish_request(&self, conclusion: &Conclusion) -> PublishRequest {
        let request = &conclusion.request;
        let latency = self.config.srt.as_ref().map_or(Duration::ZERO, |s| {
            request.negotiated_latency(&s.connection)
        });
        PublishRequest {
            stream_id: conclusion.stream_id.clone(),
            protocol: Protocol::Srt,
            mode: Mode::Listener,
            peer: request.peer,
            srt_stream_id: printable(request.srt_stream_id.as_deref().unwrap_or_default()),
            user: conclusion.user.clone(),
            tags: conclusion.tags.clone(),
            peer_version: request.version,
            latency,
            key_material: None,
            configured: false,
        }
    }

    /// Control's answer.
    pub(crate) fn authorised<D: Driver>(
        &mut self,
        ticket: u64,
        decision: Result<Box<Security>, u32>,
        driver: &mut D,
    ) {
        // Late answers name a ticket that has expired: the peer has given up.
        let Some(conclusion) = self.pending.take(ticket) else {
            return;
        };
        let decision = decision.map_err(RejectionCode);
        if let Err(code) = &decision {
            let key = conclusion.request.key();
            self.refused.insert(self.now, key, *code);
        }
        // Another publisher may have been faster while this one waited.
        let decision =
            decision.and_then(|security| self.may_publish(&conclusion).map(|()| security));
        let accepted = decision.and_then(|security| self.accept(&conclusion, *security, driver));
        if let Err(code) = accepted {
            self.refuse(&conclusion, code);
        }
    }

    fn accept<D: Driver>(
        &mut self,
        conclusion: &Conclusion,
        security: Security,
        driver: &mut D,
    ) -> Result<(), RejectionCode> {
        let now = self.now;
        let config = self.config.clone();
        let srt = config.srt.as_ref().ok_or(RejectionCode::OVERLOAD)?;
        if !self.directory.admit(&conclusion.stream_id, self.id) {
            return Err(RejectionCode::OVERLOAD);
        }
        let publish = self.publish_request(conclusion);
        if let Some(&stream) = self.by_id.get(&conclusion.stream_id) {
            self.supersede(stream, driver);
        }
        // Looked up again: what was there may have ended for good just now.
        let resumed = self.by_id.contains_key(&conclusion.stream_id);
        let stream = self
            .open_stream(publish.clone(), true)
            .ok_or(RejectionCode::OVERLOAD)?;
        let entry = self
            .streams
            .get_mut(stream)
            .ok_or(RejectionCode::OVERLOAD)?;
        let next_index = entry.stream.ring().next_index();
        let Some(place) = self.sessions.next_key() else {
            self.abandon_stream(stream, resumed);
            return Err(RejectionCode::OVERLOAD);
        };
        let socket_id = self.ids.issue(place.index());
        let request = &conclusion.request;
        let connection = Connection::accept(
            now,
            request,
            socket_id,
            &srt.connection,
            next_index,
            security,
        );
        let connection = match connection {
            Ok(connection) => connection,
            Err(code) => {
                self.abandon_stream(stream, resumed);
                return Err(code);
            }
        };
        let session = Session {
            socket_id,
            peer: request.peer.into(),
            socket: conclusion.socket,
            local: conclusion.local,
            request: Some(request.key()),
            ..Session::new(Proto::Srt(Box::new(connection)), stream, now)
        };
        let Ok(key) = self.sessions.insert(session) else {
            self.abandon_stream(stream, resumed);
            return Err(RejectionCode::OVERLOAD);
        };
        self.by_request.insert(request.key(), key);
        self.begin_session(stream, key, &publish, Format::MpegTs, resumed);
        self.counters.accepted += 1;
        Ok(())
    }

    /// A newcomer takes the place of the session that `stream` has, if any.
    fn supersede<D: Driver>(&mut self, stream: Key, driver: &mut D) {
        let Some(old) = self.streams.get(stream).and_then(|entry| entry.session) else {
            return;
        };
        self.close_now(old, EndReason::TakenOver, driver);
    }

    /// Handshakes that control did not answer in time: forgotten, the peer gave up as well.
    pub(crate) fn expire_pending(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        for ticket in self.pending.expired(self.now) {
            if let Some(conclusion) = self.pending.take(ticket) {
                self.refuse(&conclusion, RejectionCode::OVERLOAD);
            }
        }
    }

    /// The engine stops: everybody who waits is told.
    pub(crate) fn refuse_pending(&mut self) {
        for ticket in self.pending.tickets() {
            if let Some(conclusion) = self.pending.take(ticket) {
                self.refuse(&conclusion, RejectionCode::CLOSE);
            }
        }
    }
}

/// The stream ID as people may see it.
pub(crate) fn printable(raw: &[u8]) -> String {
    mirror_srt::shown_stream_id(raw, SHOWN_STREAM_ID)
}
