//! Calls (product contract, section 2; spec sections 5.1 to 5.6): control orders one, the shard
//! asks the listener from a socket of its own, and the answer becomes a session like any other. So
//! does a rendezvous, what is different about it is in [`crate::meet`].
//!
//! A call that is not answered yet is a session without a stream: it costs a place among the
//! connections and no packet memory. Its packets find it by socket ID, as a listener's do; the
//! hot path notices the missing stream and comes here. The listener may send media right behind
//! its response, so the stream is there before the next datagram is looked at.

use core::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mirror_base::{Discard, SlotRing, StreamId};
use mirror_media::Format;
use mirror_srt::{CloseReason, Connection, RejectionCode};
use mirror_stream::report::{
    CallFailure, CallRequest, EndReason, Event, Mode, Protocol, PublishRequest, Reservation, Status,
};
use mirror_uring::Datagram;

use crate::arena::Key;
use crate::driver::{Clock, Driver};
use crate::handshake::printable;
use crate::session::{Proto, Session};
use crate::shard::{Core, Map, Role};
use crate::streams::status_after;

/// Calls of one shard that wait for an answer at the same time.
const MAX_CALLS: usize = 256;
/// Datagrams that one call may send in one go: a request, and a SHUTDOWN after a bad answer.
const TRANSMITS_AT_ONCE: usize = 4;
/// Bytes of an SRT stream ID (spec section 4.3).
const MAX_STREAM_ID: usize = 512;

/// What a call is to bring.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ticket: u64,
    pub(crate) stream_id: StreamId,
    srt_stream_id: String,
    tags: Vec<String>,
    /// It comes to nothing, for this reason, as soon as what it has to say is sent.
    failure: Option<CallFailure>,
}

/// A call that could not begin.
#[derive(Debug)]
pub(crate) struct Unmade {
    pub(crate) failure: CallFailure,
    /// What the host said.
    pub(crate) detail: Option<String>,
}

impl From<CallFailure> for Unmade {
    fn from(failure: CallFailure) -> Self {
        Unmade {
            failure,
            detail: None,
        }
    }
}

/// The calls of a shard that wait for an answer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) by_stream: Map<StreamId, Key>,
    /// The socket that they leave from.
    socket: Option<usize>,
    /// Whose socket it is: rendezvous, until the peers have met.
    pub(crate) meetings: Map<usize, Key>,
    /// What an unanswered connection would receive into: it has no room, and nothing is.
    ring: SlotRing,
}

impl Calls {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.by_stream.len()
    }

    /// Whether one is to bring `id`.
    pub(crate) fn wants(&self, id: &StreamId) -> bool {
        self.by_stream.contains_key(id)
    }
}

impl<C: Clock> Core<C> {
    /// Control orders a call.
    pub(crate) fn call<D: Driver>(&mut self, request: CallRequest, driver: &mut D) {
        let (ticket, stream_id) = (request.ticket, request.stream_id.clone());
        if let Err(unmade) = self.begin_call(request, driver) {
            self.report_failed_call(ticket, &stream_id, unmade);
        }
    }

    fn begin_call<D: Driver>(
        &mut self,
        request: CallRequest,
        driver: &mut D,
    ) -> Result<(), Unmade> {
        self.may_call(&request)?;
        let config = self.config.clone();
        let srt = config.srt.as_ref().ok_or(CallFailure::NoRoom)?;
        self.claim(&request.stream_id)?;
        let place = self.sessions.next_key().ok_or(CallFailure::NoRoom)?;
        let socket = match request.rendezvous {
            Some(address) => self.meeting_socket(address, place, driver)?,
            None => self.callers_socket(driver).ok_or(CallFailure::NoRoom)?,
        };
        let socket_id = self.ids.issue(place.index());
        let mut options = srt.connection.clone();
        options.latency = request.latency.unwrap_or(options.latency);
        // As the kernel will show it when it answers.
        let peer = match request.peer.ip().to_canonical() {
            v4 if v4.is_ipv4() => SocketAddr::new(v4, request.peer.port()),
            _ => request.peer,
        };
        let (now, initial) = (self.now, self.ids.sequence());
        let (text, security) = (&request.srt_stream_id, request.security);
        let connection = match request.rendezvous {
            Some(local) => {
                let name = request.stream_id.as_str();
                // libsrt remembers who won for as long as its own attempt lasts.
                let cookie = self
                    .handshaker
                    .as_ref()
                    .map_or(1, |h| h.rendezvous_cookie(local, peer, name));
                Connection::rendezvous(
                    now, peer, socket_id, initial, cookie, text, &options, 0, security,
                )
            }
            None => Connection::connect(now, peer, socket_id, initial, text, &options, 0, security),
        };
        let call = Call {
            ticket: request.ticket,
            stream_id: request.stream_id.clone(),
            srt_stream_id: request.srt_stream_id,
            tags: request.tags,
            failure: None,
        };
        let session = Session {
            socket_id,
            peer: peer.into(),
            socket,
            // The kernel chooses by its routes, until the answer shows which.
            local: None,
            call: Some(Box::new(call)),
            ..Session::new(Proto::Srt(Box::new(connection)), Key::NONE, self.now)
        };
        let Ok(key) = self.sessions.insert(session) else {
            self.leave_meeting(socket);
            return Err(CallFailure::NoRoom.into());
        };
        self.calls.by_stream.insert(request.stream_id, key);
        self.counters.calls += 1;
        self.touch(key);
        Ok(())
    }

    /// What keeps a call from being made, before anything is done for it.
    fn may_call(&self, request: &CallRequest) -> Result<(), CallFailure> {
        if self.draining.is_some() {
            return Err(CallFailure::Cancelled);
        }
        let id = &request.stream_id;
        if self.calls.wants(id) || !self.gives_way(id, None) {
            return Err(CallFailure::Conflict);
        }
        if request.srt_stream_id.len() > MAX_STREAM_ID {
            return Err(CallFailure::Rejected(RejectionCode::BAD_REQUEST.0));
        }
        if self.calls.len() >= MAX_CALLS || !self.has_room_for_connection() {
            return Err(CallFailure::NoRoom);
        }
        Ok(())
    }

    /// The socket that calls leave from; opened with the first call.
    fn callers_socket<D: Driver>(&mut self, driver: &mut D) -> Option<usize> {
        if self.calls.socket.is_none() {
            let index = driver.open_callers(&self.config.sockets).ok()?;
            self.give_role(index, Role::Call);
            self.calls.socket = Some(index);
        }
        self.calls.socket
    }

    /// Holds `id` for this shard.
    fn claim(&self, id: &StreamId) -> Result<(), CallFailure> {
        match self.directory.reserve_here(self.now, id, self.id) {
            Reservation::Owner(owner) if owner == self.id => Ok(()),
            Reservation::Owner(_) => Err(CallFailure::Conflict),
            Reservation::Full => Err(CallFailure::NoRoom),
            Reservation::Blocked => Err(CallFailure::Cancelled),
        }
    }

    /// Gives the reservation of `id` back unless something of this shard needs it.
    pub(crate) fn give_back(&self, id: &StreamId) {
        let needed = self.by_id.contains_key(id) || self.pending.wants(id) || self.calls.wants(id);
        if !needed {
            self.directory.release(id, self.id);
        }
    }

    fn report_failed_call(&mut self, ticket: u64, id: &StreamId, unmade: Unmade) {
        let Unmade { failure, detail } = unmade;
        self.counters.calls_failed += 1;
        // A reservation of another shard is not ours to give back.
        if failure != CallFailure::Conflict {
            self.give_back(id);
        }
        self.events.must(Event::CallFailed {
            shard: self.id,
            ticket,
            stream_id: id.clone(),
            failure,
            detail,
        });
    }

    /// A session that was to be a call is gone, whatever the way.
    pub(crate) fn call_ended(&mut self, call: &Call) {
        self.calls.by_stream.remove(&call.stream_id);
        // Without a reason of its own it died of a broken invariant.
        let internal = CallFailure::Rejected(RejectionCode::IPE.0);
        let failure = call.failure.unwrap_or(internal);
        self.report_failed_call(call.ticket, &call.stream_id, failure.into());
    }

    /// A datagram for a session without a stream: the answer of whom we call, or meet.
    #[cold]
    pub(crate) fn answer_to_call(&mut self, key: Key, datagram: &Datagram<'_>) {
        let begin = self
            .sessions
            .get(key)
            .and_then(|session| session.call.as_ref())
            .map(|call| self.index_after_takeover(&call.stream_id));
        let (now, Some(session), Some(begin)) = (self.now, self.sessions.get_mut(key), begin)
        else {
            return self.discards.count(Discard::UnknownSession);
        };
        // Whoever answers must be who was called: nothing else proves an answer.
        if !datagram.origin.is_from(session.peer) || session.socket != datagram.socket {
            return self.discards.count(Discard::ForeignSource);
        }
        let Proto::Srt(connection) = &mut session.proto else {
            return;
        };
        session.local = datagram.origin.local().ip();
        let ring = &mut self.calls.ring;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            connection.begin_at(begin);
            let result = connection.handle_datagram(now, datagram.arrival, datagram.payload, ring);
            (result, connection.poll_event())
        }));
        match outcome {
            Ok((result, event)) => {
                if let Err(reason) = result {
                    self.discards.count(reason);
                }
                match event {
                    Some(mirror_srt::Event::Connected) => {
                        self.call_answered(key);
                        self.met(datagram);
                    }
                    Some(mirror_srt::Event::Closed(reason)) => self.fail_call(key, reason),
                    None => self.ask_for_keys(key),
                }
                self.touch(key);
            }
            Err(_) => self.session_panicked(key),
        }
    }

    fn fail_call(&mut self, key: Key, reason: CloseReason) {
        let failure = match reason {
            CloseReason::ConnectTimeout | CloseReason::IdleTimeout => CallFailure::Timeout,
            CloseReason::Rejected(code) => CallFailure::Rejected(code.0),
            CloseReason::Unconcluded => CallFailure::Unconcluded,
            // libsrt closes a caller so when it has nothing more to tell (spec section 7).
            CloseReason::PeerShutdown => CallFailure::Rejected(RejectionCode::CLOSE.0),
            CloseReason::Protocol => CallFailure::Rejected(RejectionCode::ROGUE.0),
            CloseReason::Local => CallFailure::Cancelled,
        };
        self.set_failure(key, failure);
    }

    fn set_failure(&mut self, key: Key, failure: CallFailure) {
        if let Some(call) = self.sessions.get_mut(key).and_then(|s| s.call.as_mut()) {
            call.failure.get_or_insert(failure);
        }
    }

    /// Where the packets of a new session of `id` begin, when whatever stands in its way has
    /// gone: in the ring that is there, or in a new one.
    fn index_after_takeover(&self, id: &StreamId) -> u64 {
        let entry = self.by_id.get(id).and_then(|&key| self.streams.get(key));
        let Some(entry) = entry else { return 0 };
        let session = entry.session.and_then(|key| self.sessions.get(key));
        let stays = session.is_none_or(|session| {
            let reason = session.end.unwrap_or(EndReason::TakenOver);
            let no_grace = self.config.reconnect_grace.is_zero();
            status_after(reason, session.failed, no_grace) == Status::Reconnecting
        });
        if stays {
            entry.stream.ring().next_index()
        } else {
            0
        }
    }

    /// The listener accepted: the call becomes a session with a stream.
    fn call_answered(&mut self, key: Key) {
        let Some(call) = self.sessions.get_mut(key).and_then(|s| s.call.take()) else {
            return;
        };
        let outcome = match call.failure {
            None => self.attach_call(key, &call),
            Some(failure) => Err(failure),
        };
        match outcome {
            Ok(()) => {
                self.calls.by_stream.remove(&call.stream_id);
                self.counters.accepted += 1;
            }
            Err(failure) => self.turn_down(key, call, failure),
        }
    }

    /// The answer came, but there is no use for it any more: the listener is told.
    fn turn_down(&mut self, key: Key, mut call: Box<Call>, failure: CallFailure) {
        call.failure.get_or_insert(failure);
        let now = self.now;
        if let Some(session) = self.sessions.get_mut(key) {
            session.proto.close(now);
            session.call = Some(call);
        }
        self.touch(key);
    }

    fn attach_call(&mut self, key: Key, call: &Call) -> Result<(), CallFailure> {
        if self.draining.is_some() {
            return Err(CallFailure::Cancelled);
        }
        // Somebody else may have been faster.
        self.claim(&call.stream_id)?;
        if !self.gives_way(&call.stream_id, None) {
            return Err(CallFailure::Conflict);
        }
        let old = self.by_id.get(&call.stream_id);
        let old = old.and_then(|&stream| self.streams.get(stream)?.session);
        if let Some(old) = old {
            self.close_later(old, EndReason::TakenOver);
        }
        let session = self.sessions.get(key).ok_or(CallFailure::NoRoom)?;
        let Proto::Srt(connection) = &session.proto else {
            return Err(CallFailure::NoRoom);
        };
        let publish = PublishRequest {
            stream_id: call.stream_id.clone(),
            protocol: Protocol::Srt,
            mode: Mode::Caller,
            peer: session.peer.addr(),
            srt_stream_id: printable(call.srt_stream_id.as_bytes()),
            user: None,
            tags: call.tags.clone(),
            peer_version: connection.peer_version(),
            latency: connection.latency(),
            key_material: None,
            configured: false,
        };
        let begins_at = connection.delivery_index();
        let resumed = self.by_id.contains_key(&call.stream_id);
        let stream = self
            .open_stream(publish.clone(), true)
            .ok_or(CallFailure::NoRoom)?;
        let fits = self
            .streams
            .get(stream)
            .is_some_and(|entry| entry.stream.ring().next_index() == begins_at);
        if !fits {
            debug_assert!(fits, "the ring moved while the answer was handled");
            self.abandon_stream(stream, resumed);
            return Err(CallFailure::NoRoom);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.stream = stream;
        }
        self.begin_session(stream, key, &publish, Format::MpegTs, resumed);
        Ok(())
    }

    /// Time passed for a session without a stream: a call, or one that lost its stream and
    /// serves nobody.
    #[cold]
    pub(crate) fn serve_unattached<D: Driver>(&mut self, key: Key, driver: &mut D) {
        let Core {
            sessions,
            calls,
            scratch,
            now,
            ..
        } = self;
        let now = *now;
        let Some(session) = sessions.get_mut(key) else {
            return;
        };
        session.touched = false;
        let (Proto::Srt(connection), Some(call)) = (&mut session.proto, &session.call) else {
            return self.end_session(key);
        };
        let stream_id = call.stream_id.clone();
        let (socket, peer, local) = (session.socket, session.peer.addr(), session.local);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now, &mut calls.ring);
            }
            for _ in 0..TRANSMITS_AT_ONCE {
                let Some(len) = connection.poll_transmit(now, scratch) else {
                    break;
                };
                driver.send(socket, peer, local, scratch.get(..len).unwrap_or_default());
            }
            (connection.poll_event(), connection.poll_timeout())
        }));
        let Ok((event, next)) = outcome else {
            return self.session_panicked(key);
        };
        if let Some(mirror_srt::Event::Closed(reason)) = event {
            self.fail_call(key, reason);
        }
        let call = self.sessions.get(key).and_then(|s| s.call.as_ref());
        if call.is_some_and(|call| call.failure.is_some()) {
            return self.end_session(key);
        }
        // A reservation lasts for seconds only; one that is lost is found out by the answer.
        let _ = self.claim(&stream_id);
        self.arm(key, next);
    }

    /// Forgets calls whose session is gone or serves something else: an error of ours between
    /// the answer and the stream must not keep the id from being called for ever.
    pub(crate) fn forget_lost_calls(&mut self) {
        let Core {
            calls, sessions, ..
        } = self;
        calls
            .by_stream
            .retain(|_, key| sessions.get(*key).is_some_and(|s| s.call.is_some()));
    }

    /// Ends the call that is to bring `id`, if there is one.
    pub(crate) fn cancel_call(&mut self, id: &StreamId) {
        if let Some(&key) = self.calls.by_stream.get(id) {
            self.set_failure(key, CallFailure::Cancelled);
            self.end_session(key);
        }
    }

    /// The engine stops.
    pub(crate) fn cancel_calls(&mut self) {
        let ids: Vec<StreamId> = self.calls.by_stream.keys().cloned().collect();
        for id in ids {
            self.cancel_call(&id);
        }
    }
}
