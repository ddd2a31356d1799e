//! Configured RTP sessions (`[[rtp.sessions]]`): sockets of their own outside the groups of the
//! shared ports, one or more media, each a lane of the stream with its repair and its second
//! path. A session lives as long as the shard does, or until the operator ends it; sources come
//! and go within it. While there is none its stream is pending.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mirror_base::{Discard, Instant, SlotRing};
use mirror_media::Format;
use mirror_rtp::media::{MediaEvent, Origin, Role as MediaRole};
use mirror_rtp::{Media, is_rtcp};
use mirror_stream::latency::ShardLatency;
use mirror_stream::plan::{MediaPlan, PortPlan, Purpose, SessionPlan};
use mirror_stream::report::{
    EndReason, Event, Mode, Protocol, PublishRequest, Reservation, Status,
};
use mirror_stream::{MediaReport, SessionStatistics, Stream};
use mirror_uring::{ChunkPool, Datagram, Peer};

use crate::arena::Key;
use crate::driver::{Clock, Driver};
use crate::session::{Proto, Served, Session, deliver, earliest, end_of_rtp};
use crate::shard::{Core, NOBODY, Role};
use crate::streams::{FIRST_CHUNKS, StreamEntry};

/// RTCP datagrams that one medium may send in one go.
const TRANSMITS_AT_ONCE: usize = 8;

/// What one socket of a session is for.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) session: Key,
    lane: u8,
    leg: u8,
    purpose: Purpose,
    /// From whom, where not everybody may send here.
    sources: Vec<IpAddr>,
    /// Who was let in last: most datagrams come from there.
    admitted: Option<Peer>,
}

/// A configured session.
#[derive(Debug)]
pub(crate) struct Configured {
    plan: SessionPlan,
    lanes: Vec<Lane>,
    /// A source is there, and the stream has a session because of it.
    live: bool,
}

/// One medium of a session.
#[derive(Debug)]
struct Lane {
    media: Media,
    /// Sockets that RTCP leaves from, and our addresses there that the sender uses.
    rtcp: [(usize, Option<IpAddr>); 2],
    /// A source is there.
    valid: bool,
    /// Where its RTP comes from.
    host: Option<IpAddr>,
    /// When the report came that its sender's clock was last taken from.
    clock_at: Option<Instant>,
}

/// Where an RTCP datagram goes: socket, destination, our address.
pub(crate) type Outlet<'a> = &'a mut dyn FnMut(usize, SocketAddr, Option<IpAddr>, &[u8]);

/// What serving a session takes besides the session and its stream.
pub(crate) struct Means<'a, C> {
    /// The present moment.
    pub(crate) now: Instant,
    /// For the moment that a unit is complete.
    pub(crate) clock: &'a C,
    /// Of the shard.
    pub(crate) latency: &'a mut ShardLatency,
    /// Where one datagram is written.
    pub(crate) out: &'a mut [u8],
}

impl Configured {
    /// When it wants to be called again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self
            .lanes
            .iter()
            .filter_map(|lane| lane.media.poll_timeout());
        due.min()
    }

    /// Ends it; the senders are told.
    pub(crate) fn close(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            lane.media.close(now);
        }
    }

    /// Its figures: they grow as long as it lives.
    pub(crate) fn statistics(&self) -> SessionStatistics {
        let lanes = self.lanes.iter().zip(&self.plan.media);
        let reports = lanes.map(|(lane, plan)| lane.report(plan));
        SessionStatistics::Media(reports.collect())
    }

    /// Closed, and everything is delivered and sent.
    fn is_drained(&self) -> bool {
        self.lanes.iter().all(|lane| lane.media.is_drained())
    }

    /// Lets time pass for it and its stream.
    fn serve<C: Clock>(
        &mut self,
        stream: &mut Stream,
        peer: SocketAddr,
        means: &mut Means<'_, C>,
        send: Outlet<'_>,
    ) -> Outcome {
        let now = means.now;
        let mut outcome = Outcome::default();
        let wants_key_frame = stream.wants_key_frame();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if lane.media.poll_timeout().is_some_and(|due| due <= now) {
                lane.media.handle_timeout(now);
            }
            if wants_key_frame && lane.valid {
                lane.media.request_key_frame(now);
            }
            lane.take_events(&mut outcome);
            if lane.valid && !self.live {
                self.live = true;
                outcome.began = true;
                let formats: Vec<Format> =
                    self.plan.media.iter().map(|plan| plan.format(0)).collect();
                stream.begin_source(now, peer, &formats);
            }
            if let Some(ssrc) = lane.media.ssrc().filter(|_| lane.valid) {
                stream.set_source(at, ssrc);
            }
            outcome.served.more |= lane.deliver(at, stream, means);
            stream.set_patience(at, lane.media.jitter_buffer());
            lane.transmit(now, means.out, send);
        }
        self.follow_clocks(stream);
        let valid = self.lanes.iter().any(|lane| lane.valid);
        if self.live && !valid {
            self.live = false;
            outcome.ended = Some(outcome.reason.unwrap_or(EndReason::IdleTimeout));
        }
        outcome
    }

    /// Puts the lanes on the clock of their sender: the first one's, and those of the same CNAME.
    fn follow_clocks(&mut self, stream: &mut Stream) {
        let news = |lane: &Lane| lane.media.clock().map(|map| map.arrival) != lane.clock_at;
        if !self.lanes.iter().any(news) {
            return;
        }
        for at in 0..self.lanes.len() {
            let (Some(first), Some(lane)) = (self.lanes.first(), self.lanes.get(at)) else {
                return;
            };
            let Some(map) = lane.media.clock() else {
                continue;
            };
            if at == 0 || lane.shares_clock_with(first) {
                stream.set_sender_clock(at, map.ntp, map.rtp_timestamp, map.clock_rate);
            }
            if let Some(lane) = self.lanes.get_mut(at) {
                lane.clock_at = Some(map.arrival);
            }
        }
    }

    /// Hands over what is still held, and says goodbye: the session ends now.
    pub(crate) fn flush<C: Clock>(
        &mut self,
        stream: &mut Stream,
        later: Instant,
        means: &mut Means<'_, C>,
        send: Outlet<'_>,
    ) {
        let now = core::mem::replace(&mut means.now, later);
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            lane.deliver(at, stream, means);
            lane.transmit(now, means.out, send);
        }
    }
}

impl Lane {
    /// Whether both come from one sender. Some senders give no CNAME: then those of one host
    /// that were told to belong together do.
    fn shares_clock_with(&self, other: &Lane) -> bool {
        let named = |lane: &Lane| lane.media.cname().is_some();
        let nameless = !named(self) && !named(other);
        self.media.shares_clock_with(&other.media)
            || (nameless && self.host.is_some() && self.host == other.host)
    }

    fn report(&self, plan: &MediaPlan) -> MediaReport {
        let cname = self.media.cname();
        MediaReport {
            ssrc: self.media.ssrc().filter(|_| self.valid),
            legs: plan.rtp.legs,
            cname: cname.map(|name| String::from_utf8_lossy(name).into_owned()),
            clock: self.media.clock(),
            statistics: self.media.statistics(),
        }
    }

    fn take_events(&mut self, outcome: &mut Outcome) {
        while let Some(event) = self.media.poll_event() {
            match event {
                MediaEvent::SourceValid { .. } | MediaEvent::SourceChanged { .. } => {
                    self.valid = true;
                }
                MediaEvent::SourceEnded(reason) => {
                    self.valid = false;
                    self.clock_at = None;
                    outcome.reason = Some(end_of_rtp(reason));
                }
                MediaEvent::SourceRestarted => {}
                MediaEvent::LegDown(_) | MediaEvent::LegUp(_) => outcome.served.changed = true,
            }
        }
    }

    fn deliver<C: Clock>(
        &mut self,
        at: usize,
        stream: &mut Stream,
        means: &mut Means<'_, C>,
    ) -> bool {
        let (media, now) = (&mut self.media, means.now);
        let more = deliver(stream, now, means.clock, means.latency, |stream| {
            media.poll_delivery(now, stream.lane_ring(at)?)
        });
        stream.release_before(media.release_index());
        more
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8], send: Outlet<'_>) {
        for _ in 0..TRANSMITS_AT_ONCE {
            let Some(transmit) = self.media.poll_transmit(now, out) else {
                return;
            };
            let leg = self.rtcp.get(usize::from(transmit.leg));
            if let (Some(&(socket, local)), Some(bytes)) = (leg, out.get(..transmit.length)) {
                send(socket, transmit.to, local, bytes);
            }
        }
    }
}

/// What came of serving a configured session.
#[derive(Debug, Default)]
struct Outcome {
    served: Served,
    /// The first source is there.
    began: bool,
    /// The last source is gone.
    ended: Option<EndReason>,
    reason: Option<EndReason>,
}

impl<C: Clock> Core<C> {
    /// Opens the sockets of a session and begins to wait for its media.
    ///
    /// # Errors
    /// Why it cannot be, for people. Nothing of it stays.
    pub(crate) fn open_session<D: Driver>(
        &mut self,
        plan: SessionPlan,
        driver: &mut D,
    ) -> Result<(), String> {
        if self.draining.is_some() {
            return Err("the engine is stopping".to_owned());
        }
        let id = plan.stream_id.clone();
        if self.by_id.contains_key(&id) {
            return Err(format!("{id} is live already"));
        }
        match self.directory.reserve_here(self.now, &id, self.id) {
            Reservation::Owner(owner) if owner == self.id => {}
            Reservation::Owner(owner) => return Err(format!("{id} is live on shard {owner}")),
            Reservation::Full => return Err("there are max_streams streams".to_owned()),
            Reservation::Blocked => {
                return Err(format!("{id} was ended by the operator (stream.block_for)"));
            }
        }
        let mut sockets = Vec::new();
        for port in plan.ports() {
            match driver.open_port(port, &self.config.sockets) {
                Ok(socket) => sockets.push(socket),
                Err(why) => {
                    self.give_sockets_back(&sockets, driver);
                    self.directory.release(&id, self.id);
                    return Err(why);
                }
            }
        }
        match self.insert_configured(plan, &sockets) {
            Some(request) => {
                self.directory.confirm(&id, self.id);
                self.events.must(Event::Waiting {
                    shard: self.id,
                    request,
                });
                Ok(())
            }
            None => {
                self.give_sockets_back(&sockets, driver);
                self.directory.release(&id, self.id);
                Err("there is no memory or no place for one more session".to_owned())
            }
        }
    }

    fn give_sockets_back<D: Driver>(&mut self, sockets: &[usize], driver: &mut D) {
        for &socket in sockets {
            driver.close_socket(socket);
        }
    }

    fn insert_configured(
        &mut self,
        plan: SessionPlan,
        sockets: &[usize],
    ) -> Option<PublishRequest> {
        let request = PublishRequest {
            stream_id: plan.stream_id.clone(),
            protocol: Protocol::Rtp,
            mode: Mode::Listener,
            peer: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            srt_stream_id: String::new(),
            user: None,
            tags: plan.tags.clone(),
            peer_version: 0,
            latency: core::time::Duration::ZERO,
            key_material: None,
            configured: true,
        };
        let now = self.now;
        let stream = self.open_stream(request.clone(), true)?;
        let entry = self.streams.get_mut(stream)?;
        entry.stream.set_lanes(plan.media.len());
        for lane in 1..plan.media.len() {
            entry.grow_lane(lane, FIRST_CHUNKS, &mut self.pool);
        }
        entry
            .stream
            .set_status(now, Status::Pending, "waits for media");
        entry.stream.take_changed();
        let rings: Vec<u64> = (0..plan.media.len())
            .filter_map(|lane| entry.stream.lane_ring(lane).map(SlotRing::next_index))
            .collect();
        let lanes = plan.media.iter().zip(rings).enumerate();
        let lanes = lanes
            .map(|(at, (media, next))| self.lane(media, at, next, &plan, sockets))
            .collect();
        let session = Session {
            socket: sockets.first().copied().unwrap_or(0),
            peer: request.peer.into(),
            ..Session::new(
                Proto::Configured(Box::new(Configured {
                    lanes,
                    plan: plan.clone(),
                    live: false,
                })),
                stream,
                now,
            )
        };
        let Ok(key) = self.sessions.insert(session) else {
            self.remove_stream(stream);
            return None;
        };
        self.configured += 1;
        if let Some(entry) = self.streams.get_mut(stream) {
            entry.session = Some(key);
        }
        let lanes = plan.media.iter().enumerate();
        let ports = lanes.flat_map(|(lane, media)| media.ports.iter().map(move |p| (lane, p)));
        for ((lane, port), &socket) in ports.zip(sockets) {
            self.take_port(socket, Port::new(key, lane as u8, port));
        }
        self.touch(key);
        Some(request)
    }

    fn lane(
        &mut self,
        media: &MediaPlan,
        at: usize,
        next_index: u64,
        plan: &SessionPlan,
        sockets: &[usize],
    ) -> Lane {
        let mut config = media.rtp.clone();
        config.seed = self.random();
        if let Some(rtcp) = &mut config.rtcp {
            rtcp.cname.clone_from(&self.config.cname);
        }
        let before: usize = plan.media.iter().take(at).map(|m| m.ports.len()).sum();
        let socket_of = |leg: u8| {
            let find = |purpose| {
                let own = |port: &PortPlan| port.leg == leg && port.purpose == purpose;
                let place = media.ports.iter().position(own)?;
                sockets.get(before + place).copied()
            };
            find(Purpose::Rtcp).or_else(|| find(Purpose::Rtp))
        };
        let first = socket_of(0).unwrap_or(0);
        Lane {
            media: Media::new(self.now, config, next_index),
            // The second path may be a second SSRC on the first one's ports (RFC 7198).
            rtcp: [first, socket_of(1).unwrap_or(first)].map(|socket| (socket, None)),
            valid: false,
            host: None,
            clock_at: None,
        }
    }

    /// Socket `index` is a session's from now on.
    fn take_port(&mut self, index: usize, port: Port) {
        self.give_role(index, Role::Session);
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        if let Some(place) = self.ports.get_mut(index) {
            *place = Some(port);
        }
    }

    /// What socket `index` is for from now on.
    pub(crate) fn give_role(&mut self, index: usize, role: Role) {
        if self.roles.len() <= index {
            self.roles.resize(index + 1, Role::Closed);
        }
        if let Some(place) = self.roles.get_mut(index) {
            *place = role;
        }
    }

    /// The session of `key` is gone: its sockets are closed with the end of the turn.
    pub(crate) fn leave_ports(&mut self, key: Key) {
        self.configured = self.configured.saturating_sub(1);
        for (index, place) in self.ports.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|port| port.session == key) {
                *place = None;
                if let Some(role) = self.roles.get_mut(index) {
                    *role = Role::Closed;
                }
                self.leaving.push(index);
            }
        }
    }

    /// Closes the sockets of sessions that are gone; what they had to say has left.
    pub(crate) fn close_left<D: Driver>(&mut self, driver: &mut D) {
        for socket in core::mem::take(&mut self.leaving) {
            driver.close_socket(socket);
        }
    }

    /// A datagram on a socket of a configured session.
    #[inline(never)]
    pub(crate) fn handle_configured(&mut self, datagram: &Datagram<'_>) {
        let now = self.now;
        let Some(Some(port)) = self.ports.get_mut(datagram.socket) else {
            return self.discards.count(Discard::UnknownSession);
        };
        let key = port.session;
        let Some(session) = self.sessions.get_mut(key) else {
            return self.discards.count(Discard::UnknownSession);
        };
        let Some(entry) = self.streams.get_mut(session.stream) else {
            return self.discards.count(Discard::UnknownSession);
        };
        let Proto::Configured(own) = &mut session.proto else {
            return self.discards.count(Discard::UnknownSession);
        };
        let from = datagram.origin.peer();
        if port.admitted != Some(from) {
            if !port.admits(from.ip()) || !own.plan.admits(from.ip()) {
                return entry.stream.count_discard(Discard::ForeignSource);
            }
            port.admitted = Some(from);
        }
        let Some(lane) = own.lanes.get_mut(usize::from(port.lane)) else {
            return self.discards.count(Discard::UnknownSession);
        };
        let role = port.purpose.role().filter(|_| !is_rtcp(datagram.payload));
        self.handling = key.index();
        #[cfg(test)]
        assert!(!session.poisons_datagrams, "the test poisoned this session");
        let outcome = match role {
            Some(role) => {
                let origin = Origin {
                    leg: port.leg,
                    role,
                    from: from.addr(),
                };
                let at = usize::from(port.lane);
                let fits = entry.fit(at, datagram.payload.len(), &self.config, &mut self.pool);
                entry.ensure_lane_room(at, &mut self.pool);
                let ring = entry
                    .stream
                    .lane_ring_mut(at)
                    .ok_or(Discard::UnknownSession);
                fits.and(ring).and_then(|ring| {
                    let media = &mut lane.media;
                    media.handle_rtp(now, datagram.arrival, &origin, datagram.payload, ring)
                })
            }
            None => {
                let (leg, from) = (port.leg, from.addr());
                lane.media
                    .handle_rtcp(now, datagram.arrival, leg, from, datagram.payload)
            }
        };
        self.handling = NOBODY;
        match outcome {
            Ok(()) => {
                session.last_heard = now;
                if port.purpose == Purpose::Rtp {
                    session.peer = from;
                    lane.host = Some(from.ip());
                }
                if let Some(rtcp) = lane.rtcp.get_mut(usize::from(port.leg)) {
                    rtcp.1 = datagram.origin.local().ip();
                }
            }
            // FEC that nothing needed: as it should be.
            Err(Discard::Belated) if role.is_some_and(|role| role != MediaRole::Media) => {}
            Err(reason) => entry.stream.count_discard(reason),
        }
        if !core::mem::replace(&mut session.touched, true) {
            self.list_touched(key);
        }
    }

    /// Lets time pass for the configured session of `key`.
    pub(crate) fn serve_configured<D: Driver>(&mut self, key: Key, driver: &mut D) {
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
        session.touched = false;
        let (Some(entry), Proto::Configured(own)) =
            (streams.get_mut(session.stream), &mut session.proto)
        else {
            return;
        };
        let peer = session.peer.addr();
        #[cfg(test)]
        let poisoned = session.poisoned;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            assert!(!poisoned, "the test poisoned this session");
            let stream = &mut entry.stream;
            let send: Outlet<'_> = &mut |socket, to, local, bytes| {
                driver.send(socket, to, local, bytes);
            };
            let mut means = Means {
                now: *now,
                clock,
                latency,
                out: scratch,
            };
            let outcome = own.serve(stream, peer, &mut means, send);
            if stream.poll_timeout().is_some_and(|due| due <= *now) {
                stream.handle_timeout(*now);
            }
            (outcome, stream.take_changed(), stream.poll_timeout())
        }));
        let Ok((outcome, changed, media_due)) = outcome else {
            return self.session_panicked(key);
        };
        entry.grow_filling_lanes(pool);
        let drained = session.end.is_some() && own.is_drained();
        let next = earliest(own.poll_timeout(), media_due);
        let stream = session.stream;
        if outcome.served.more {
            self.touch(key);
        }
        self.arm(key, next);
        if outcome.began {
            self.source_came(stream, peer);
        }
        if changed || outcome.served.changed {
            self.report_change(stream);
        }
        if drained {
            return self.end_session(key);
        }
        if let Some(reason) = outcome.ended {
            self.source_went(key, stream, reason);
        }
    }

    /// The first source of a configured session is there.
    fn source_came(&mut self, stream: Key, peer: SocketAddr) {
        let Some(entry) = self.streams.get_mut(stream) else {
            return;
        };
        let resumed = entry.grace_until.take().is_some();
        entry.request.peer = peer;
        let request = entry.request.clone();
        self.counters.accepted += 1;
        self.events.must(Event::Started {
            shard: self.id,
            stream_id: request.stream_id.clone(),
            request,
            resumed,
        });
    }

    /// The last source of a configured session is gone; another is waited for, first as the
    /// stream's publisher that returns, then as a new one.
    fn source_went(&mut self, key: Key, stream: Key, reason: EndReason) {
        let (now, grace) = (self.now, self.config.reconnect_grace);
        let (Some(session), Some(entry)) = (self.sessions.get(key), self.streams.get_mut(stream))
        else {
            return;
        };
        let status = if grace.is_zero() {
            Status::Pending
        } else {
            Status::Reconnecting
        };
        entry.grace_until = (!grace.is_zero()).then(|| now + grace);
        entry.last_end = reason;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let statistics = session.proto.statistics(now);
            entry.stream.set_session_statistics(now, statistics);
            entry.stream.end_source(now, reason, status);
            entry.stream.take_changed();
        }));
        if outcome.is_err() {
            return self.session_panicked(key);
        }
        self.report_end(stream, reason, status);
    }

    /// What needs no precision for a configured session: whether its grace period is over, and
    /// whether anything but packets comes of what it receives.
    pub(crate) fn look_after(&mut self, key: Key, stream: Key) {
        let (now, timeout) = (self.now, self.config.stream_timeout);
        let (Some(session), Some(entry)) = (self.sessions.get(key), self.streams.get_mut(stream))
        else {
            return;
        };
        let Proto::Configured(own) = &session.proto else {
            return;
        };
        let before = entry.stream.status();
        if entry.grace_until.is_some_and(|at| at <= now) {
            entry.grace_until = None;
            entry
                .stream
                .set_status(now, Status::Pending, "waits for media");
        } else if own.live && entry.stream.is_stalled(now, timeout) {
            entry
                .stream
                .set_status(now, Status::Error, "no complete frame");
        } else if own.live && before == Status::Error {
            entry.stream.set_status(now, Status::Active, "frames again");
        }
        if entry.stream.status() != before {
            entry.stream.take_changed();
            self.report_change(stream);
        }
    }
}

impl Port {
    fn new(session: Key, lane: u8, plan: &PortPlan) -> Self {
        Port {
            session,
            lane,
            leg: plan.leg,
            purpose: plan.purpose,
            sources: plan.sources.clone(),
            admitted: None,
        }
    }

    fn admits(&self, ip: IpAddr) -> bool {
        self.sources.is_empty()
            || self
                .sources
                .iter()
                .any(|s| s.to_canonical() == ip.to_canonical())
    }
}

impl StreamEntry {
    /// Gives the ring of lane `lane` up to `chunks` chunks, as far as the pool goes.
    fn grow_lane(&mut self, lane: usize, chunks: usize, pool: &mut ChunkPool) {
        let Some(ring) = self.stream.lane_ring_mut(lane) else {
            return;
        };
        for _ in 0..chunks {
            let Some(chunk) = pool.take() else { break };
            ring.add_chunk(chunk);
        }
    }

    /// Gives the ring of lane `lane` memory before its next packet, if it is about to run full.
    #[inline]
    fn ensure_lane_room(&mut self, lane: usize, pool: &mut ChunkPool) {
        if self.stream.lane_ring(lane).is_some_and(SlotRing::is_low) {
            let wanted = self.stream.lane_chunks_wanted(lane);
            self.grow_lane(lane, wanted, pool);
        }
    }

    /// Gives memory to the lanes whose rings have used nearly all that they have.
    fn grow_filling_lanes(&mut self, pool: &mut ChunkPool) {
        for lane in 0..self.stream.lanes() {
            if self
                .stream
                .lane_ring(lane)
                .is_some_and(crate::streams::is_filling)
            {
                let wanted = self.stream.lane_chunks_wanted(lane);
                self.grow_lane(lane, wanted, pool);
            }
        }
    }
}
