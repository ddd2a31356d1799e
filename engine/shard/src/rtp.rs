//! RTP sources without configuration: a source that has shown two packets gets a session, and
//! a validated session (RFC 3550, A.1) becomes a stream. Both steps are bounded.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, StreamId};
use mirror_media::{Format, PayloadFormat, PayloadHint};
use mirror_rtp::{Header, Reporting};
use mirror_stream::report::{EndReason, Mode, Protocol, PublishRequest, Reservation};
use mirror_uring::Datagram;

use crate::arena::Key;
use crate::driver::Clock;
use crate::session::{Proto, RtcpExit, Session};
use crate::shard::{Core, Role};

/// Sessions on probation at the same time.
const MAX_UNPROVEN: usize = 32;
/// How long a session may stay on probation.
const PROBATION: Duration = Duration::from_secs(2);
/// Of a source that is not described: RTCP takes 5 % of it at the most.
const BANDWIDTH_BPS: u64 = 1_000_000;
/// A source that was refused is not looked at again for so long.
const REFUSED_FOR: Duration = Duration::from_secs(1);

impl<C: Clock> Core<C> {
    /// A packet of a source that has no session.
    #[cold]
    pub(crate) fn unknown_source(&mut self, header: &Header, datagram: &Datagram<'_>) {
        // The kernel may misplace what came while the port's group was being made, and GRO joins
        // sources of one address: a source must not get a second session on a wrong shard.
        if self.ids.is_steered_elsewhere(header.ssrc) && self.config.sockets.steering {
            return self.foreign();
        }
        let peer = datagram.origin.peer().addr();
        let first = self
            .candidates
            .offer(datagram.arrival, peer, header, datagram.payload);
        let Some(first) = first else {
            return self.discard(Discard::RtpProbation);
        };
        if !self.opened_sources.take(self.now) {
            return self.discard(Discard::RtpProbation);
        }
        let key = match self.open_source(header, datagram) {
            Ok(key) => key,
            Err(reason) => {
                self.refuse_source(header.ssrc, peer);
                return self.discard(reason);
            }
        };
        self.candidates.forget(header.ssrc, peer);
        if let Ok(first_header) = Header::parse(&first.datagram) {
            let earlier = Datagram {
                socket: datagram.socket,
                origin: datagram.origin,
                arrival: first.arrival,
                age_ns: datagram.age_ns,
                payload: &first.datagram,
                truncated: false,
            };
            self.rtp_packet(key, &first_header, &earlier);
        }
        self.rtp_packet(key, header, datagram);
    }

    fn open_source(&mut self, header: &Header, datagram: &Datagram<'_>) -> Result<Key, Discard> {
        if self.draining.is_some() {
            return Err(Discard::Closed);
        }
        let config = self.config.clone();
        let Some(rtp) = config.rtp.as_ref() else {
            return Err(Discard::UnknownSession);
        };
        if self.by_ssrc.len() >= rtp.max_sessions as usize && !self.evict_unproven() {
            return Err(Discard::SessionLimit);
        }
        let stream_id = StreamId::for_ssrc(header.ssrc);
        let request = PublishRequest {
            stream_id: stream_id.clone(),
            protocol: Protocol::Rtp,
            mode: Mode::Listener,
            peer: datagram.origin.peer().addr(),
            srt_stream_id: String::new(),
            user: None,
            tags: Vec::new(),
            peer_version: 0,
            latency: Duration::ZERO,
            key_material: None,
            configured: false,
        };
        let existing = self.by_id.get(&stream_id);
        if let Some(entry) = existing.and_then(|&key| self.streams.get(key))
            && (entry.session.is_some() || entry.request.protocol != Protocol::Rtp)
        {
            // Somebody publishes under this name, by SRT for example.
            return Err(Discard::ForeignSource);
        }
        let resumed = existing.is_some();
        let Some(stream) = self.open_stream(request.clone(), false) else {
            return Err(Discard::SessionLimit);
        };
        let key = self.insert_source(header, datagram, stream, rtp, &request, resumed);
        match key {
            Some(key) => Ok(key),
            None => {
                self.abandon_stream(stream, resumed);
                Err(Discard::SessionLimit)
            }
        }
    }

    fn insert_source(
        &mut self,
        header: &Header,
        datagram: &Datagram<'_>,
        stream: Key,
        rtp: &crate::config::RtpConfig,
        request: &PublishRequest,
        resumed: bool,
    ) -> Option<Key> {
        let hint = rtp
            .payload_types
            .get(usize::from(header.payload_type))
            .and_then(Option::as_ref);
        let fixed = PayloadFormat::from_static_type(header.payload_type);
        let (media_hint, clock_rate) = match (fixed, hint) {
            (Some((format, clock_rate, channels)), _) => {
                let mut hint = PayloadHint::from(format);
                hint.parameters.channels = channels;
                (Some(hint), clock_rate)
            }
            (None, Some(known)) => (Some(known.hint.clone()), known.clock_rate),
            (None, None) => (None, 0),
        };
        let next_index = self.streams.get(stream)?.stream.ring().next_index();
        let mut options = rtp.session.clone();
        options.clock_rate = if clock_rate == 0 { 90_000 } else { clock_rate };
        let source = mirror_rtp::Session::new(self.now, header.ssrc, &options, next_index);
        let rtcp_socket = self.roles.iter().position(|role| *role == Role::Rtcp);
        let session = Session {
            peer: datagram.origin.peer(),
            socket: datagram.socket,
            local: datagram.origin.local().ip(),
            ssrc: Some(header.ssrc),
            rtcp: RtcpExit {
                socket: rtcp_socket.unwrap_or(datagram.socket) as u32,
                heard: None,
            },
            ..Session::new(Proto::Rtp(Box::new(source)), stream, self.now)
        };
        let key = self.sessions.insert(session).ok()?;
        self.by_ssrc.insert(header.ssrc, key);
        let format = Format::Rtp {
            hint: media_hint,
            clock_rate,
            ssrc: header.ssrc,
        };
        self.begin_session(stream, key, request, format, resumed);
        if self.unproven.len() >= MAX_UNPROVEN {
            self.evict_unproven();
        }
        self.unproven.push_back(key);
        Some(key)
    }

    fn refuse_source(&mut self, ssrc: u32, peer: SocketAddr) {
        self.candidates.refuse(ssrc, peer, self.now + REFUSED_FOR);
    }

    /// A source is validated: now it is a stream, if the directory has room for one. Not
    /// earlier: whoever can send two datagrams could fill the directory otherwise.
    pub(crate) fn source_validated(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let (stream, ssrc, peer) = (session.stream, session.ssrc, session.peer);
        let Some(entry) = self.streams.get(stream) else {
            return;
        };
        if entry.announced {
            return;
        }
        let id = entry.request.stream_id.clone();
        // The kernel steers by SSRC: the packets come here whatever the directory would like.
        let reason = match self.directory.reserve_here(self.now, &id, self.id) {
            Reservation::Owner(owner) if owner == self.id => {
                self.report_on(key);
                return self.announce(stream);
            }
            // The name is taken on another shard.
            Reservation::Owner(_) => Discard::ForeignSource,
            Reservation::Full => Discard::SessionLimit,
            Reservation::Blocked => Discard::Closed,
        };
        self.discard(reason);
        self.end_session(key);
        if let Some(ssrc) = ssrc {
            self.refuse_source(ssrc, peer.addr());
        }
    }

    /// The source of `key` gets receiver reports from now on. Not earlier: whoever can forge an
    /// address would have us write to it.
    fn report_on(&mut self, key: Key) {
        let config = self.config.clone();
        if config.rtp.as_ref().is_none_or(|rtp| !rtp.rtcp) {
            return;
        }
        let (ssrc, seed, now) = (self.random() as u32, self.random(), self.now);
        if let Some(session) = self.sessions.get_mut(key)
            && let Proto::Rtp(source) = &mut session.proto
        {
            source.enable_reports(
                now,
                Reporting {
                    ssrc,
                    cname: config.cname.clone(),
                    bandwidth_bps: BANDWIDTH_BPS,
                    seed,
                },
            );
        }
    }

    /// Whether the session of `key` is still on probation.
    fn is_unproven(&self, key: Key) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        // A valid source that was not served yet is no longer on probation.
        let valid = matches!(&session.proto, Proto::Rtp(source) if source.is_valid());
        let entry = self.streams.get(session.stream);
        !valid && entry.is_some_and(|entry| !entry.announced)
    }

    /// Ends the oldest session on probation; `false` when there is none.
    fn evict_unproven(&mut self) -> bool {
        while let Some(key) = self.unproven.pop_front() {
            if self.is_unproven(key) {
                self.end_session(key);
                return true;
            }
        }
        false
    }

    /// Ends sessions that stay on probation for too long.
    pub(crate) fn expire_unproven(&mut self) {
        let mut kept = core::mem::take(&mut self.unproven);
        kept.retain(|&key| {
            if !self.is_unproven(key) {
                return false;
            }
            let silent = self
                .sessions
                .get(key)
                .is_some_and(|s| s.silence(self.now) >= PROBATION);
            if silent && let Some(session) = self.sessions.get_mut(key) {
                session.end = Some(EndReason::Refused);
                self.end_session(key);
            }
            !silent
        });
        self.unproven = kept;
    }
}
