//! Streams of a shard: they come into being with their first session, outlive it by the grace
//! period, and give their memory back when they are gone. Control hears of each step.

use core::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mirror_base::{Instant, SlotRing, StreamId};
use mirror_media::Format;
use mirror_stream::Stream;
use mirror_stream::report::{
    EndReason, Event, PipelineState, Protocol, PublishRequest, Status, StreamSnapshot, StreamStats,
};
use mirror_uring::ChunkPool;

use crate::arena::Key;
use crate::configured::{Means, Outlet};
use crate::driver::{Clock, Driver};
use crate::session::{Proto, Session};
use crate::shard::Core;

/// Chunks that a new ring starts with: 256 slots.
pub(crate) const FIRST_CHUNKS: usize = 8;
/// A ring with so few slots never used gets memory, if it is to have more at all.
const FILLING_SLOTS: u64 = 128;
/// A stream is promised this part of the memory that is left: several may burst at once.
const PROMISED_PART: usize = 4;
/// A closing session's held packets are released as if so much time had passed: more than any
/// TSBPD latency.
const PAST_ALL_HOLDS: core::time::Duration = core::time::Duration::from_secs(60);

/// One stream.
#[derive(Debug)]
pub(crate) struct StreamEntry {
    /// Ring, pipeline, status and figures.
    pub(crate) stream: Stream,
    /// The session that brings it now.
    pub(crate) session: Option<Key>,
    /// Everything known of its present or last publisher.
    pub(crate) request: PublishRequest,
    /// Control knows of it; an RTP source must be validated first.
    pub(crate) announced: bool,
    /// Waiting for its publisher until then.
    pub(crate) grace_until: Option<Instant>,
    /// Why its last session ended.
    pub(crate) last_end: EndReason,
}

/// Where a closing session's last words go.
struct Exit {
    socket: usize,
    peer: SocketAddr,
    local: Option<IpAddr>,
}

impl StreamEntry {
    /// Whether the ring has used nearly all the memory that it has: a slow stream, or one that
    /// just began, gets no more before that.
    #[inline]
    pub(crate) fn is_filling(&self) -> bool {
        is_filling(self.stream.ring())
    }

    /// Gives the ring up to `chunks` chunks, as far as the pool goes.
    pub(crate) fn grow(&mut self, chunks: usize, pool: &mut ChunkPool) {
        for _ in 0..chunks {
            let Some(chunk) = pool.take() else { break };
            self.stream.add_chunk(chunk);
        }
        self.promise(pool);
    }

    /// Tells the ring what it may still be given: what its sender is told of room (SRT flow
    /// window) must not depend on how far the ring has grown yet.
    pub(crate) fn promise(&mut self, pool: &ChunkPool) {
        self.stream
            .promise_chunks(pool.obtainable() / PROMISED_PART);
    }
}

/// See [`StreamEntry::is_filling`].
#[inline]
pub(crate) fn is_filling(ring: &SlotRing) -> bool {
    let used = ring.end().saturating_sub(ring.oldest());
    used + FILLING_SLOTS >= ring.capacity_slots() as u64
}

impl<C: Clock> Core<C> {
    /// The stream that `request` wants: the existing one, or a new one with memory. `None` when
    /// there is no room.
    pub(crate) fn open_stream(&mut self, request: PublishRequest, announced: bool) -> Option<Key> {
        if let Some(&key) = self.by_id.get(&request.stream_id) {
            return Some(key);
        }
        let id = request.stream_id.clone();
        let stream = Stream::new(
            self.now,
            id.clone(),
            request.protocol,
            request.mode,
            request.peer,
            self.config.stream.clone(),
        );
        let mut entry = StreamEntry {
            stream,
            session: None,
            request,
            announced,
            grace_until: None,
            last_end: EndReason::Refused,
        };
        entry.grow(FIRST_CHUNKS, &mut self.pool);
        if entry.stream.ring().capacity_slots() == 0 {
            return None;
        }
        match self.streams.insert(entry) {
            Ok(key) => {
                self.by_id.insert(id, key);
                Some(key)
            }
            Err(entry) => {
                self.take_memory_back(entry.stream);
                None
            }
        }
    }

    /// A stream that got no session after all; `existed`: it was there before.
    pub(crate) fn abandon_stream(&mut self, stream: Key, existed: bool) {
        if !existed {
            self.remove_stream(stream);
        }
    }

    /// `session` brings `stream` from now on.
    pub(crate) fn begin_session(
        &mut self,
        stream: Key,
        session: Key,
        request: &PublishRequest,
        format: Format,
        resumed: bool,
    ) {
        let now = self.now;
        let rtp = self.config.rtp.as_ref();
        let patience = rtp
            .filter(|_| request.protocol == Protocol::Rtp)
            .map_or(core::time::Duration::ZERO, |rtp| rtp.session.jitter_buffer);
        if let Some(entry) = self.streams.get_mut(stream) {
            entry.stream.begin_session(now, request.peer, format);
            entry.stream.set_patience(0, patience);
            let proto = self.sessions.get(session).map(|s| &s.proto);
            let encryption = proto.map_or("none", Proto::encryption);
            entry.stream.describe_session(request.mode, encryption);
            entry.session = Some(session);
            entry.request = request.clone();
            entry.grace_until = None;
            if entry.announced {
                self.directory.confirm(&request.stream_id, self.id);
                self.events.must(Event::Started {
                    shard: self.id,
                    stream_id: request.stream_id.clone(),
                    request: request.clone(),
                    resumed,
                });
            }
        }
        self.touch(session);
    }

    /// An RTP source is validated: now it is a stream.
    pub(crate) fn announce(&mut self, stream: Key) {
        let Some(entry) = self.streams.get_mut(stream) else {
            return;
        };
        if core::mem::replace(&mut entry.announced, true) {
            return;
        }
        let request = entry.request.clone();
        self.directory.confirm(&request.stream_id, self.id);
        self.counters.accepted += 1;
        self.events.must(Event::Started {
            shard: self.id,
            stream_id: request.stream_id.clone(),
            request,
            resumed: false,
        });
    }

    /// Status or tracks changed.
    pub(crate) fn report_change(&mut self, stream: Key) {
        let Some(entry) = self.streams.get(stream) else {
            return;
        };
        let stream_id = entry.stream.id().clone();
        let status = entry.stream.status();
        self.events.may(Event::Changed {
            shard: self.id,
            stream_id,
            status,
        });
    }

    /// The session has delivered everything: it ends for the reason that it carries.
    pub(crate) fn end_session(&mut self, key: Key) {
        let Some(session) = self.take_session(key) else {
            return;
        };
        let now = self.now;
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return;
        };
        entry.session = None;
        if !entry.announced {
            return self.remove_stream(session.stream);
        }
        let reason = session.end.unwrap_or(EndReason::Operator);
        let status = status_after(
            reason,
            session.failed,
            self.config.reconnect_grace.is_zero(),
        );
        entry.last_end = reason;
        let grace = self.config.reconnect_grace;
        entry.grace_until = (status == Status::Reconnecting).then(|| now + grace);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            entry
                .stream
                .set_session_statistics(now, session.proto.statistics(now));
            entry.stream.end_session(now, reason, status);
            entry.stream.take_changed();
        }));
        if outcome.is_err() {
            self.counters.session_panics += 1;
            return self.fail_stream(session.stream);
        }
        self.report_end(session.stream, reason, status);
        if status != Status::Reconnecting {
            self.remove_stream(session.stream);
        }
    }

    /// Takes a session out of all tables.
    fn take_session(&mut self, key: Key) -> Option<Session> {
        let session = self.sessions.remove(key)?;
        self.disarm(key);
        if let Some(request) = &session.request {
            self.by_request.remove(request);
        }
        if let Some(ssrc) = session.ssrc {
            self.by_ssrc.remove(&ssrc);
        }
        if let Some(call) = &session.call {
            self.call_ended(call);
        }
        self.leave_meeting(session.socket);
        if matches!(session.proto, Proto::Configured(_)) {
            self.leave_ports(key);
        }
        Some(session)
    }

    pub(crate) fn report_end(&mut self, stream: Key, reason: EndReason, status: Status) {
        let Some(entry) = self.streams.get(stream) else {
            return;
        };
        let last = catch_unwind(AssertUnwindSafe(|| entry.stream.snapshot()));
        let mut last = last.unwrap_or_else(|_| bare_snapshot(&entry.request, self.now));
        last.status = status;
        self.events.must(Event::Ended {
            shard: self.id,
            stream_id: entry.request.stream_id.clone(),
            reason,
            status,
            last: Box::new(last),
        });
    }

    /// Ends a session at once: the peer is told, what it holds is delivered now.
    pub(crate) fn close_now<D: Driver>(&mut self, key: Key, reason: EndReason, driver: &mut D) {
        self.close_with(key, reason, &mut |exit, bytes| {
            driver.send(exit.socket, exit.peer, exit.local, bytes);
        });
    }

    /// The same while the driver is busy handing datagrams over: what the peer is told leaves
    /// with the end of the turn.
    pub(crate) fn close_later(&mut self, key: Key, reason: EndReason) {
        let mut outbox = core::mem::take(&mut self.outbox);
        self.close_with(key, reason, &mut |exit, bytes| {
            outbox.push(exit.socket, exit.peer, exit.local, bytes);
        });
        self.outbox = outbox;
    }

    fn close_with(&mut self, key: Key, reason: EndReason, send: &mut dyn FnMut(&Exit, &[u8])) {
        let Core {
            sessions,
            streams,
            clock,
            latency,
            scratch,
            now,
            ..
        } = self;
        let now = *now;
        let Some(session) = sessions.get_mut(key) else {
            return;
        };
        session.end.get_or_insert(reason);
        let Some(entry) = streams.get_mut(session.stream) else {
            return;
        };
        let (socket, peer, local) = session.exit();
        let exit = Exit {
            socket,
            peer,
            local,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            session.proto.close(now);
            let later = now + PAST_ALL_HOLDS;
            if let Proto::Configured(own) = &mut session.proto {
                let stream = &mut entry.stream;
                let send: Outlet<'_> = &mut |socket, peer, local, bytes| {
                    let exit = Exit {
                        socket,
                        peer,
                        local,
                    };
                    send(&exit, bytes);
                };
                let mut means = Means {
                    now,
                    clock,
                    latency,
                    out: scratch,
                };
                return own.flush(stream, later, &mut means, send);
            }
            // As many as the ring can hold: bounded without a figure of its own.
            for _ in 0..entry.stream.ring().capacity_slots() {
                let ring = entry.stream.ring();
                let delivery = match &mut session.proto {
                    Proto::Srt(connection) => connection.poll_delivery(later, ring),
                    Proto::Rtp(source) => source.poll_delivery(later, ring),
                    Proto::Configured(_) => None,
                };
                let Some(delivery) = delivery else { break };
                if entry.stream.deliver(now, &delivery) > 0 {
                    entry.stream.units_completed(now, now, latency);
                }
            }
            for _ in 0..16 {
                let len = match &mut session.proto {
                    Proto::Srt(connection) => connection.poll_transmit(now, scratch),
                    Proto::Rtp(source) => source.poll_transmit_rtcp(now, scratch),
                    Proto::Configured(_) => None,
                };
                let Some(len) = len else { break };
                send(&exit, scratch.get(..len).unwrap_or_default());
            }
        }));
        match outcome {
            Ok(()) => self.end_session(key),
            Err(_) => self.session_panicked(key),
        }
    }

    /// A broken invariant in a session's code: the session and its stream die, the neighbours
    /// live (design, section 5).
    #[cold]
    pub(crate) fn session_panicked(&mut self, key: Key) {
        self.counters.session_panics += 1;
        let Some(session) = self.take_session(key) else {
            return;
        };
        let stream = session.stream;
        // Its state is not to be trusted, not even its drop.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(session)));
        self.fail_stream(stream);
    }

    fn fail_stream(&mut self, stream: Key) {
        let Some(entry) = self.streams.get_mut(stream) else {
            return;
        };
        entry.session = None;
        if entry.announced {
            self.report_end(stream, EndReason::InternalError, Status::Error);
        }
        self.remove_stream(stream);
    }

    /// The stream is gone: memory and id are free again.
    pub(crate) fn remove_stream(&mut self, key: Key) {
        let Some(entry) = self.streams.remove(key) else {
            return;
        };
        let id: StreamId = entry.request.stream_id.clone();
        self.by_id.remove(&id);
        if entry.announced {
            self.directory.release(&id, self.id);
        }
        self.take_memory_back(entry.stream);
    }

    fn take_memory_back(&mut self, mut stream: Stream) {
        let (pool, latency, now) = (&mut self.pool, &mut self.latency, self.now);
        // Chunks of a stream that cannot be taken apart are lost, not the shard.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            stream.settle_latency(now, latency);
            for chunk in stream.into_chunks() {
                pool.put(chunk);
            }
        }));
    }

    /// A stream without a session ends for good.
    pub(crate) fn terminate_waiting(&mut self, stream: Key, reason: EndReason) {
        let now = self.now;
        if let Some(entry) = self.streams.get_mut(stream) {
            entry
                .stream
                .set_status(now, Status::Terminated, reason.name());
            if entry.announced {
                self.report_end(stream, reason, Status::Terminated);
            }
            self.remove_stream(stream);
        }
    }

    /// What needs no precision, ten times a second: grace periods, stalled sessions, handshakes
    /// and RTP sources that wait too long.
    pub(crate) fn keep_house<D: Driver>(&mut self, driver: &mut D) {
        self.expire_pending();
        self.expire_unproven();
        self.forget_lost_calls();
        // What the pool can still give changes with every stream.
        self.streams.for_each_mut(|entry| entry.promise(&self.pool));
        let now = self.now;
        let timeout = self.config.stream_timeout;
        let mut over = Vec::new();
        let mut stalled = Vec::new();
        let mut configured = Vec::new();
        for (key, entry) in self.streams.iter() {
            match entry.session {
                None if entry.grace_until.is_none_or(|at| at <= now) => {
                    over.push((key, entry.last_end))
                }
                None => {}
                Some(session) if entry.request.configured => configured.push((session, key)),
                // Nothing can come before the session's latency is over.
                Some(session) => {
                    let hold = self.sessions.get(session).map(|s| s.proto.latency());
                    if entry
                        .stream
                        .is_stalled(now, timeout + hold.unwrap_or_default())
                    {
                        stalled.push(session);
                    }
                }
            }
        }
        for (key, reason) in over {
            self.terminate_waiting(key, reason);
        }
        for (session, stream) in configured {
            self.look_after(session, stream);
        }
        for key in stalled {
            if let Some(session) = self.sessions.get_mut(key) {
                session.failed = true;
                self.close_now(key, EndReason::IdleTimeout, driver);
            }
        }
    }
}

/// What a stream is after a session that ended for `reason`.
pub(crate) const fn status_after(reason: EndReason, failed: bool, no_grace: bool) -> Status {
    match reason {
        EndReason::InternalError => Status::Error,
        _ if failed => Status::Error,
        EndReason::Operator | EndReason::Drain | EndReason::Refused => Status::Terminated,
        _ if no_grace => Status::Terminated,
        EndReason::PeerClosed
        | EndReason::IdleTimeout
        | EndReason::TakenOver
        | EndReason::PeerError => Status::Reconnecting,
    }
}

/// The snapshot of a stream that cannot tell of itself any more.
fn bare_snapshot(request: &PublishRequest, now: Instant) -> StreamSnapshot {
    StreamSnapshot {
        stream_id: request.stream_id.clone(),
        protocol: request.protocol,
        mode: request.mode,
        peer: request.peer,
        status: Status::Error,
        state: PipelineState::Stopping,
        previous_state: PipelineState::Stopping,
        transitions: Vec::new(),
        created_at: now,
        started_at: now,
        last_packet_at: None,
        tracks: Vec::new(),
        container: None,
        figures: Box::default(),
        srt: None,
        rtp: Vec::new(),
        encryption: "none",
        stats: StreamStats::default(),
    }
}
