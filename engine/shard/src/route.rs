//! From a datagram to its session (design, section 2, steps 2 and 3): the hot path.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mirror_base::{Ahead, Discard, Instant, SLOT_BYTES};
use mirror_rtp::Header;
use mirror_stream::report::Mode;
use mirror_uring::{Datagram, Peer};

use crate::arena::Key;
use crate::driver::{Clock, Driver};
use crate::session::{Proto, Session, serve};
use crate::shard::{Core, NOBODY, Role};
use crate::streams::StreamEntry;
use mirror_uring::ChunkPool;

impl<C: Clock> Core<C> {
    /// Runs `work` that sets a session up or orders it about: a broken invariant there ends
    /// this one errand, not the shard. A stream that is left without a session goes with the
    /// next round of housekeeping.
    pub(crate) fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            match self.take_handled() {
                Some(key) => self.session_panicked(key),
                None => self.counters.session_panics += 1,
            }
        }
    }

    /// Takes one datagram.
    #[inline(always)]
    pub(crate) fn handle(&mut self, datagram: Datagram<'_>) {
        if !self.handle_usual(datagram) {
            self.handle_unusual(&{ datagram });
        }
    }

    /// Takes the usual datagram, which most are: the next data packet of an SRT session, from where
    /// its packets come. It fills its slot and makes nothing due: nobody has to be served.
    /// `false`: it is another one, for [`Core::handle_any`], and nothing happened that this would
    /// not do.
    #[inline(always)]
    pub(crate) fn handle_usual(&mut self, datagram: Datagram<'_>) -> bool {
        let mut left = false;
        self.try_usual(datagram, &mut left);
        !left
    }

    /// [`Core::handle_usual`] that says by `left` that it is another one.
    #[inline(always)]
    pub(crate) fn try_usual(&mut self, datagram: Datagram<'_>, left: &mut bool) {
        match self.take_plain(datagram) {
            Usual::Taken => {}
            Usual::Sealed(index) => {
                let at = SealedAt::new(index, datagram.age_ns);
                self.handle_sealed(at, datagram.arrival, datagram.payload, left);
            }
            Usual::Another => *left = true,
        }
    }

    /// The usual datagram in the clear, or whose session it is if it is encrypted.
    ///
    /// The datagram comes by value: what nobody points to stays in registers. Questions are asked
    /// in the order that leaves the fewest answers to be kept.
    #[inline(always)]
    fn take_plain(&mut self, datagram: Datagram<'_>) -> Usual {
        // draft-sharabayko-srt-01, 3: the destination socket ID is the header's last word.
        let Some(&[a, b, c, d]) = datagram.payload.get(12..16) else {
            return Usual::Another;
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        let index = self.ids.place(id);
        let Some(session) = self.sessions.value_at_mut(index) else {
            return Usual::Another;
        };
        let Proto::Srt(connection) = &mut session.proto else {
            return Usual::Another;
        };
        // Its socket is one of SRT's, and an ID is never 0.
        if session.socket_id != id
            || session.socket != datagram.socket
            || datagram.truncated
            || !datagram.origin.is_named(&session.name)
        {
            return Usual::Another;
        }
        #[cfg(test)]
        if session.poisons_datagrams {
            return Usual::Another;
        }
        if !mirror_srt::is_plain(datagram.payload) {
            return match mirror_srt::may_be_usual(datagram.payload) {
                true => Usual::Sealed(index),
                false => Usual::Another,
            };
        }
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return Usual::Another;
        };
        let blame = Blame {
            handling: &mut self.handling,
            index,
        };
        #[cfg(test)]
        assert!(!session.poisons_usual, "the test poisoned this session");
        let ring = entry.stream.ring_mut();
        let (arrival, age_ns) = (datagram.arrival, datagram.age_ns);
        let taken = connection.take_plain(arrival, age_ns, datagram.payload, ring, Fetch);
        blame.lift();
        if taken { Usual::Taken } else { Usual::Another }
    }

    /// What [`Core::handle_usual`] left, most often because the chunk that it writes to is full.
    #[inline(never)]
    pub(crate) fn handle_unusual(&mut self, datagram: &Datagram<'_>) {
        // The driver has read its clock since the turn began.
        let taken_at = datagram.arrival.as_nanos() + u64::from(datagram.age_ns);
        self.now = self.now.max(Instant::from_nanos(taken_at));
        // Nothing of RTP's begins like a data packet of SRT.
        if !mirror_srt::may_be_usual(datagram.payload) || !self.take_into_next_chunk(datagram) {
            self.handle_any(datagram);
        }
    }

    /// Takes a usual datagram of the SRT session whose chunk is full: opens the one behind it.
    fn take_into_next_chunk(&mut self, datagram: &Datagram<'_>) -> bool {
        let Some(&[a, b, c, d]) = datagram.payload.get(12..16) else {
            return false;
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        let index = self.ids.place(id);
        let Some(session) = self.sessions.value_at_mut(index) else {
            return false;
        };
        let Proto::Srt(connection) = &mut session.proto else {
            return false;
        };
        // A stranger's datagram moves nothing, not even this.
        if session.socket_id != id
            || session.socket != datagram.socket
            || datagram.truncated
            || !datagram.origin.is_named(&session.name)
        {
            return false;
        }
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return false;
        };
        if !entry.stream.ring().open_is_full() {
            return false;
        }
        #[cfg(test)]
        if session.poisons_datagrams || session.poisons_usual {
            return self.handle_usual(*datagram);
        }
        self.handling = index;
        ensure_room(entry, &mut self.pool);
        let ring = entry.stream.ring_mut();
        if !ring.open_next() {
            self.handling = NOBODY;
            return false;
        }
        let (arrival, age_ns) = (datagram.arrival, datagram.age_ns);
        let is_plain = mirror_srt::is_plain(datagram.payload);
        let taken =
            is_plain && connection.take_plain(arrival, age_ns, datagram.payload, ring, Fetch);
        self.handling = NOBODY;
        taken || (!is_plain && self.handle_usual(*datagram))
    }

    /// As [`Core::try_usual`], for an encrypted packet. With so few arguments that it need not be
    /// returned from to where it is called.
    #[inline(never)]
    fn handle_sealed(&mut self, at: SealedAt, arrival: Instant, payload: &[u8], left: &mut bool) {
        if !self.take_sealed(at, arrival, payload) {
            *left = true;
        }
    }

    #[inline(always)]
    fn take_sealed(&mut self, at: SealedAt, arrival: Instant, payload: &[u8]) -> bool {
        let Some(session) = self.sessions.value_at_mut(at.index()) else {
            return false;
        };
        let Proto::Srt(connection) = &mut session.proto else {
            return false;
        };
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return false;
        };
        self.handling = at.index();
        let ring = entry.stream.ring_mut();
        if let Some(slot) = ring.behind_next() {
            mirror_uring::prefetch_all(slot);
        }
        let taken = connection.take_sealed(arrival, at.age_ns(), payload, ring);
        self.handling = NOBODY;
        taken
    }

    /// Takes any datagram.
    #[inline(never)]
    pub(crate) fn handle_any(&mut self, datagram: &Datagram<'_>) {
        if datagram.truncated {
            return self.cut_off(datagram);
        }
        match self.roles.get(datagram.socket) {
            Some(Role::Srt | Role::Call | Role::Rendezvous) => self.handle_srt(datagram),
            role => self.handle_other(role.copied(), datagram),
        }
    }

    #[inline(never)]
    fn handle_other(&mut self, role: Option<Role>, datagram: &Datagram<'_>) {
        match role {
            Some(Role::Rtp) => self.handle_rtp(datagram),
            Some(Role::Rtcp) => self.handle_rtcp(datagram),
            Some(Role::Session) => self.handle_configured(datagram),
            Some(Role::Srt | Role::Call | Role::Rendezvous | Role::Closed) | None => {
                self.discard(Discard::UnknownSession)
            }
        }
    }

    fn handle_srt(&mut self, datagram: &Datagram<'_>) {
        let Some(&[a, b, c, d]) = datagram.payload.get(12..16) else {
            return self.discard(Discard::Runt);
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        let index = self.ids.place(id);
        let Some((key, session)) = self.sessions.at_mut(index) else {
            return self.no_session(id, datagram);
        };
        let Proto::Srt(connection) = &mut session.proto else {
            return self.no_session(id, datagram);
        };
        // An ID is never 0.
        if session.socket_id != id {
            return self.no_session(id, datagram);
        }
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return self.call_heard(key, datagram);
        };
        if !datagram.origin.is_named(&session.name) {
            if !datagram.origin.is_from(session.peer) {
                return self.came_from_elsewhere(key, datagram);
            }
            session.name = datagram.origin.name();
        }
        // The usual datagrams go where there is room already: a ring opens a chunk on this way.
        ensure_room(entry, &mut self.pool);
        let now = self.now;
        self.handling = index;
        #[cfg(test)]
        assert!(!session.poisons_datagrams, "the test poisoned this session");
        let ring = entry.stream.ring_mut();
        // The short ways were tried, and left it.
        let outcome = connection.handle_any(now, datagram.arrival, datagram.payload, ring);
        self.handling = NOBODY;
        if let Err(reason) = outcome {
            entry.stream.count_discard(reason);
        }
        // Most packets only fill a slot: they are due when their time has come, not now.
        if session.touched || !connection.needs_look() {
            return;
        }
        if connection.is_pressing(now) {
            session.touched = true;
            self.list_touched(key);
        } else if let Some(at) = connection.poll_timeout() {
            // What is due for delivery meanwhile leaves with the tick, as all packets do.
            session.quiet_until = connection.quiet_until();
            self.wheel.arm(index, at);
        }
    }

    /// A handshake, or a datagram for a session that does not live here.
    #[cold]
    #[inline(never)]
    fn no_session(&mut self, id: u32, datagram: &Datagram<'_>) {
        if id == 0 {
            self.guarded(|core| core.handshake(datagram));
        } else if self.ids.locate(id).is_none() {
            self.foreign();
        } else {
            self.discard(Discard::UnknownSession);
        }
    }

    /// A datagram for a call that was not answered yet.
    #[cold]
    #[inline(never)]
    fn call_heard(&mut self, key: Key, datagram: &Datagram<'_>) {
        self.guarded(|core| core.answer_to_call(key, datagram));
    }

    /// A datagram for a session that does not come from its peer's address: the peer behind
    /// another mapping of its NAT, if it proves that and would have been let in from there; a
    /// stranger else, who changes nothing.
    ///
    /// It only gets here where the kernel steers by socket ID. By the hash of the addresses
    /// (steering off) a moved peer's packets reach another shard, which passes no packet on and
    /// counts them as foreign: such a peer is lost after the idle timeout.
    #[cold]
    #[inline(never)]
    fn came_from_elsewhere(&mut self, key: Key, datagram: &Datagram<'_>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let stream = session.stream;
        let Some(entry) = self.streams.get_mut(stream) else {
            return;
        };
        let Proto::Srt(connection) = &mut session.proto else {
            return;
        };
        let (from, socket) = (datagram.origin.peer().addr(), datagram.socket);
        let request = &entry.request;
        let allowed = request.mode != Mode::Listener
            || self
                .directory
                .may_move(&request.stream_id, request.peer.ip(), from.ip());
        self.handling = key.index();
        let proven = allowed
            && socket == session.socket
            && connection.try_rebind(now, datagram.arrival, from, datagram.payload);
        self.handling = NOBODY;
        if !proven {
            return entry.stream.count_discard(Discard::ForeignSource);
        }
        session.peer = datagram.origin.peer();
        session.name = datagram.origin.name();
        session.local = datagram.origin.local().ip();
        entry.request.peer = from;
        entry.stream.move_peer(from);
        let announced = entry.announced;
        self.counters.peer_moves += 1;
        if announced {
            self.report_change(stream);
        }
        self.handle_srt(datagram);
    }

    #[cold]
    pub(crate) fn foreign(&mut self) {
        self.counters.foreign_datagrams += 1;
        self.discard(Discard::ForeignShard);
    }

    #[inline(never)]
    fn handle_rtp(&mut self, datagram: &Datagram<'_>) {
        if mirror_rtp::is_rtcp(datagram.payload) {
            return self.handle_rtcp(datagram);
        }
        let header = match Header::parse(datagram.payload) {
            Ok(header) => header,
            Err(reason) => return self.discard(reason),
        };
        match self.by_ssrc.get(&header.ssrc) {
            Some(&key) => self.rtp_packet(key, &header, datagram),
            None => self.guarded(|core| core.unknown_source(&header, datagram)),
        }
    }

    /// A packet of a source that has a session.
    #[inline]
    pub(crate) fn rtp_packet(&mut self, key: Key, header: &Header, datagram: &Datagram<'_>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return self.discards.count(Discard::UnknownSession);
        };
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return self.discards.count(Discard::UnknownSession);
        };
        let now = self.now;
        if !datagram.origin.is_from(session.peer)
            && !session.may_move_to(datagram.origin.peer(), now)
        {
            return entry.stream.count_discard(Discard::ForeignSource);
        }
        let Proto::Rtp(source) = &mut session.proto else {
            return self.discards.count(Discard::UnknownSession);
        };
        if datagram.payload.len() > entry.stream.ring().slot_bytes()
            && let Err(reason) = entry.fit(0, datagram.payload.len(), &self.config, &mut self.pool)
        {
            return entry.stream.count_discard(reason);
        }
        ensure_room(entry, &mut self.pool);
        let list = !core::mem::replace(&mut session.touched, true);
        self.handling = key.index();
        let ring = entry.stream.ring_mut();
        if let Some(slot) = ring.behind_next() {
            mirror_uring::prefetch_all(slot);
        }
        let outcome = source.handle_rtp(now, datagram.arrival, header, datagram.payload, ring);
        self.handling = NOBODY;
        match outcome {
            Ok(()) => {
                session.last_heard = now;
                if !datagram.origin.is_from(session.peer) {
                    session.peer = datagram.origin.peer();
                }
            }
            Err(reason) => entry.stream.count_discard(reason),
        }
        if list {
            self.list_touched(key);
        }
    }

    fn handle_rtcp(&mut self, datagram: &Datagram<'_>) {
        // RFC 3550, 6.4.1: every compound begins with a report, whose second word is the
        // sender's SSRC.
        let Some(&[a, b, c, d]) = datagram.payload.get(4..8) else {
            return self.discard(Discard::Runt);
        };
        let Some(&key) = self.by_ssrc.get(&u32::from_be_bytes([a, b, c, d])) else {
            return self.discard(Discard::UnknownSession);
        };
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return;
        };
        // RTCP comes from a port of its own; the host must be the source's.
        if session.peer.ip() != datagram.origin.peer().ip() {
            return entry.stream.count_discard(Discard::ForeignSource);
        }
        let Proto::Rtp(source) = &mut session.proto else {
            return;
        };
        self.handling = key.index();
        let outcome = source.handle_rtcp(now, datagram.arrival, datagram.payload);
        if let Some(map) = source.clock() {
            entry
                .stream
                .set_sender_clock(0, map.ntp, map.rtp_timestamp, map.clock_rate);
        }
        self.handling = NOBODY;
        match outcome {
            Ok(()) => {
                let local = datagram.origin.local().ip();
                let from = datagram.origin.peer().addr();
                session.rtcp.heard = Some((datagram.socket as u32, from, local));
                self.touch(key);
            }
            Err(reason) => entry.stream.count_discard(reason),
        }
    }

    /// Lets time pass for the session of `key`: what it delivers goes to its stream, what it
    /// wants to send to the driver.
    pub(crate) fn serve_one<D: Driver>(&mut self, key: Key, driver: &mut D) {
        let Core {
            sessions,
            streams,
            clock,
            latency,
            scratch,
            pool,
            now,
            ..
        } = self;
        let Some(session) = sessions.get_mut(key) else {
            return;
        };
        if matches!(session.proto, Proto::Configured(_)) {
            return self.serve_configured(key, driver);
        }
        session.touched = false;
        let Some(entry) = streams.get_mut(session.stream) else {
            return self.serve_unattached(key, driver);
        };
        let (socket, peer, local) = session.exit();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            serve(
                session,
                &mut entry.stream,
                *now,
                clock,
                latency,
                scratch,
                &mut |bytes| {
                    driver.send(socket, peer, local, bytes);
                },
            )
        }));
        let Ok(served) = outcome else {
            return self.session_panicked(key);
        };
        if entry.announced && entry.is_filling() {
            let wanted = entry.stream.chunks_wanted();
            if wanted > 0 {
                entry.grow(wanted, pool);
            }
        }
        let changed = served.changed && entry.announced;
        let stream = session.stream;
        if served.more {
            self.touch(key);
        }
        self.arm(key, served.next);
        if served.validated {
            self.source_validated(key);
        }
        if changed {
            self.report_change(stream);
        }
        if served.drained {
            self.end_session(key);
        }
    }
}

/// What became of a datagram that may be a usual one.
enum Usual {
    Taken,
    /// An encrypted packet of the session at this index.
    Sealed(u32),
    Another,
}

/// The index of a session, and the age in ns of its packet: one argument.
#[derive(Clone, Copy)]
struct SealedAt(u64);

impl SealedAt {
    #[inline(always)]
    const fn new(index: u32, age_ns: u32) -> Self {
        SealedAt((index as u64) << u32::BITS | age_ns as u64)
    }

    const fn index(self) -> u32 {
        (self.0 >> u32::BITS) as u32
    }

    const fn age_ns(self) -> u32 {
        self.0 as u32
    }
}

/// Says whose code ran when it is dropped by a panic: what [`Core::handling`] is set to before, and
/// back again after, where a packet may cost two stores. This costs the usual packet nothing.
struct Blame<'a> {
    handling: &'a mut u32,
    index: u32,
}

impl Blame<'_> {
    /// It went well.
    #[inline(always)]
    fn lift(self) {
        core::mem::forget(self);
    }
}

impl Drop for Blame<'_> {
    #[cold]
    fn drop(&mut self) {
        *self.handling = self.index;
    }
}

/// A slot is fetched before it is written.
struct Fetch;

impl Ahead for Fetch {
    #[inline(always)]
    fn behind(self, slot: &[u8; SLOT_BYTES]) {
        mirror_uring::prefetch_behind(slot);
    }
}

/// Gives a ring that is about to run full memory before the next packet, not after the turn.
#[inline(always)]
fn ensure_room(entry: &mut StreamEntry, pool: &mut ChunkPool) {
    if entry.stream.ring().is_low() {
        make_room(entry, pool);
    }
}

#[cold]
fn make_room(entry: &mut StreamEntry, pool: &mut ChunkPool) {
    let wanted = entry.stream.chunks_wanted();
    entry.grow(wanted, pool);
}

impl Session {
    /// Whether packets of this SSRC from another address are the same source: its host sends
    /// from a new port after it had fallen silent (an encoder that was restarted).
    fn may_move_to(&self, peer: Peer, now: Instant) -> bool {
        self.peer.ip() == peer.ip() && self.silence(now) >= crate::handshake::SUPERSEDE_AFTER
    }
}
