//! One session of a shard: a protocol's state machine with the addresses it lives on, and the
//! one place where its code runs behind `catch_unwind` when time passes ([`serve`]).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use mirror_base::{Instant, PacketSequenceNumber};
use mirror_stream::latency::ShardLatency;
use mirror_stream::report::EndReason;
use mirror_stream::{MediaReport, SessionStatistics, Stream};
use mirror_uring::{Name, Peer};

use crate::arena::Key;
use crate::call::Call;
use crate::configured::Configured;
use crate::driver::Clock;

/// Packets that one session may release in one go: what is left comes next turn, after the
/// others had theirs.
const DELIVERIES_AT_ONCE: usize = 4096;
/// Datagrams that one session may send in one go.
const TRANSMITS_AT_ONCE: usize = 256;

/// Identifies a conclusion and its repeats (spec section 5.5).
pub(crate) type RequestKey = (SocketAddr, u32, PacketSequenceNumber);

/// The protocol's state machine.
#[derive(Debug)]
pub(crate) enum Proto {
    /// An SRT peer.
    Srt(Box<mirror_srt::Connection>),
    /// An RTP source.
    Rtp(Box<mirror_rtp::Session>),
    /// A configured RTP session.
    Configured(Box<Configured>),
}

impl Proto {
    /// When it wants to be called again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Proto::Srt(connection) => connection.poll_timeout(),
            Proto::Rtp(session) => session.poll_timeout(),
            Proto::Configured(session) => session.poll_timeout(),
        }
    }

    /// Ends it; the peer is told.
    pub(crate) fn close(&mut self, now: Instant) {
        match self {
            Proto::Srt(connection) => connection.close(now),
            Proto::Rtp(session) => session.close(now),
            Proto::Configured(session) => session.close(now),
        }
    }

    /// Its figures.
    pub(crate) fn statistics(&self, now: Instant) -> SessionStatistics {
        match self {
            Proto::Srt(connection) => {
                SessionStatistics::Srt(Box::new(connection.statistics_at(now)))
            }
            Proto::Rtp(session) => SessionStatistics::Rtp(Box::new(MediaReport::of(session))),
            Proto::Configured(session) => session.statistics(),
        }
    }

    /// Name of its encryption.
    pub(crate) fn encryption(&self) -> &'static str {
        match self {
            Proto::Srt(connection) => connection.encryption(),
            Proto::Rtp(_) | Proto::Configured(_) => "none",
        }
    }

    /// Negotiated latency; zero where there is none.
    pub(crate) fn latency(&self) -> Duration {
        match self {
            Proto::Srt(connection) => connection.latency(),
            Proto::Rtp(_) | Proto::Configured(_) => Duration::ZERO,
        }
    }
}

/// Where the RTCP of a source on the shared port goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RtcpExit {
    /// Our RTCP socket.
    pub(crate) socket: u32,
    /// Where its own RTCP came in, from whom, and our address there.
    pub(crate) heard: Option<(u32, SocketAddr, Option<IpAddr>)>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) proto: Proto,
    /// The stream that it brings.
    pub(crate) stream: Key,
    /// SRT socket ID; 0 for RTP.
    pub(crate) socket_id: u32,
    /// The peer.
    pub(crate) peer: Peer,
    /// SRT: how the kernel wrote the peer down, once a datagram of it has come.
    pub(crate) name: Name,
    /// The socket it lives on.
    pub(crate) socket: usize,
    /// Our address that the peer uses.
    pub(crate) local: Option<IpAddr>,
    /// When an RTP sender was last heard; SRT's [`Proto::Srt`] knows for itself.
    pub(crate) last_heard: Instant,
    /// It is in this turn's list of sessions to serve.
    pub(crate) touched: bool,
    /// Until then its timer does nothing but deliver ([`release`]); the clock's start: it does
    /// all there is to do.
    pub(crate) quiet_until: Instant,
    /// It is a call that is not answered yet, and has no stream.
    pub(crate) call: Option<Box<Call>>,
    /// SRT: the conclusion that it came from.
    pub(crate) request: Option<RequestKey>,
    /// RTP: its SSRC.
    pub(crate) ssrc: Option<u32>,
    /// RTP: where RTCP goes.
    pub(crate) rtcp: RtcpExit,
    /// It is over, for this reason, as soon as everything held is delivered.
    pub(crate) end: Option<EndReason>,
    /// The stream has a fault of its own: it will not be waited for.
    pub(crate) failed: bool,
    #[cfg(test)]
    pub(crate) poisoned: bool,
    #[cfg(test)]
    pub(crate) poisons_datagrams: bool,
    #[cfg(test)]
    pub(crate) poisons_usual: bool,
}

impl Session {
    /// One that brings `stream`, without any address yet.
    pub(crate) fn new(proto: Proto, stream: Key, now: Instant) -> Self {
        Session {
            proto,
            stream,
            socket_id: 0,
            peer: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0).into(),
            name: Name::NOBODY,
            socket: 0,
            local: None,
            last_heard: now,
            touched: false,
            quiet_until: Instant::ZERO,
            call: None,
            request: None,
            ssrc: None,
            rtcp: RtcpExit::default(),
            end: None,
            failed: false,
            #[cfg(test)]
            poisoned: false,
            #[cfg(test)]
            poisons_datagrams: false,
            #[cfg(test)]
            poisons_usual: false,
        }
    }

    /// Where what it says goes: socket, peer, our address.
    pub(crate) fn exit(&self) -> (usize, SocketAddr, Option<IpAddr>) {
        let peer = self.peer.addr();
        if !matches!(self.proto, Proto::Rtp(_)) {
            return (self.socket, peer, self.local);
        }
        match self.rtcp.heard {
            Some((socket, from, local)) => (socket as usize, from, local),
            // RFC 3550, 11: the next port.
            None => {
                let next = SocketAddr::new(peer.ip(), peer.port().saturating_add(1));
                (self.rtcp.socket as usize, next, self.local)
            }
        }
    }

    /// How long nothing was heard of the peer.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        let heard = match &self.proto {
            Proto::Srt(connection) => connection.last_heard(),
            Proto::Rtp(_) | Proto::Configured(_) => self.last_heard,
        };
        now.saturating_since(heard)
    }
}

/// What came of serving a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    /// When to serve it again.
    pub(crate) next: Option<Instant>,
    /// It stopped at a bound: serve it again next turn.
    pub(crate) more: bool,
    /// RTP: probation is passed.
    pub(crate) validated: bool,
    /// Closed, and everything is delivered and sent.
    pub(crate) drained: bool,
    /// Status or tracks of the stream changed.
    pub(crate) changed: bool,
}

pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Lets time pass for a session and its stream: timeouts, deliveries, transmissions, events.
pub(crate) fn serve<C: Clock>(
    session: &mut Session,
    stream: &mut Stream,
    now: Instant,
    clock: &C,
    latency: &mut ShardLatency,
    out: &mut [u8],
    send: &mut impl FnMut(&[u8]),
) -> Served {
    #[cfg(test)]
    assert!(!session.poisoned, "the test poisoned this session");
    let mut served = Served::default();
    let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
    match &mut session.proto {
        Proto::Srt(connection) => {
            // It looks at its deadlines itself.
            connection.handle_timeout(now, stream.ring_mut());
            served.more |= release(connection, stream, now, clock, latency);
            served.more |= transmit(out, send, |out| connection.poll_transmit(now, out));
            while let Some(event) = connection.poll_event() {
                if let mirror_srt::Event::Closed(reason) = event {
                    session.end.get_or_insert(end_of_srt(reason));
                }
            }
            served.drained = connection.is_drained();
            // All deadlines are looked at below.
            connection.needs_look();
            session.quiet_until = connection.quiet_until();
        }
        Proto::Rtp(source) => {
            let due = is_due(source.poll_timeout());
            if due {
                source.handle_timeout(now);
            }
            served.more |= deliver(stream, now, clock, latency, |stream| {
                source.poll_delivery(now, stream.ring())
            });
            stream.release_before(source.delivery_index());
            while let Some(event) = source.poll_event() {
                match event {
                    mirror_rtp::Event::Validated => served.validated = true,
                    mirror_rtp::Event::Closed(reason) => {
                        session.end.get_or_insert(end_of_rtp(reason));
                    }
                    _ => {}
                }
            }
            if due || source.is_closed() {
                transmit(out, send, |out| source.poll_transmit_rtcp(now, out));
            }
            served.drained = source.is_drained();
        }
        // Served by `serve_configured`.
        Proto::Configured(_) => {}
    }
    served.drained &= session.end.is_some();
    served.next = session.proto.poll_timeout();
    // Who looks at no payload has no clock of its own.
    if !stream.only_counts() {
        if is_due(stream.poll_timeout()) {
            stream.handle_timeout(now);
        }
        served.next = earliest(served.next, stream.poll_timeout());
    }
    served.changed = stream.take_changed();
    served
}

/// Hands what an SRT connection releases to the stream; `true` when there may be more.
#[inline(never)]
pub(crate) fn release<C: Clock>(
    connection: &mut mirror_srt::Connection,
    stream: &mut Stream,
    now: Instant,
    clock: &C,
    latency: &mut ShardLatency,
) -> bool {
    if stream.only_counts() {
        return count(connection, stream, now);
    }
    let more = deliver(stream, now, clock, latency, |stream| {
        connection.poll_delivery(now, stream.ring())
    });
    stream.release_before(connection.delivery_index());
    more
}

/// The same for a stream that looks at no payload ([`Stream::only_counts`]).
#[inline(never)]
pub(crate) fn count(
    connection: &mut mirror_srt::Connection,
    stream: &mut Stream,
    now: Instant,
) -> bool {
    let taken = {
        let (ring, count) = stream.counting();
        connection.deliver_each(now, ring, DELIVERIES_AT_ONCE, count)
    };
    if taken > 0 {
        stream.delivered(now);
    }
    stream.release_before(connection.delivery_index());
    taken >= DELIVERIES_AT_ONCE
}

/// Hands released packets to the stream; `true` when there may be more.
#[inline]
pub(crate) fn deliver<C: Clock>(
    stream: &mut Stream,
    now: Instant,
    clock: &C,
    latency: &mut ShardLatency,
    mut poll: impl FnMut(&Stream) -> Option<mirror_base::Delivery>,
) -> bool {
    for _ in 0..DELIVERIES_AT_ONCE {
        let Some(delivery) = poll(stream) else {
            return false;
        };
        // A packet that was held is in no cache any more: the next one is fetched while this one
        // is read.
        if let Some(next) = stream.ring().get(delivery.slot + 1) {
            mirror_uring::prefetch(next.payload);
        }
        if stream.deliver(now, &delivery) > 0 {
            stream.units_completed(now, clock.now(), latency);
        }
    }
    true
}

/// Sends what is due; `true` when there may be more.
#[inline]
fn transmit(
    out: &mut [u8],
    send: &mut impl FnMut(&[u8]),
    mut poll: impl FnMut(&mut [u8]) -> Option<usize>,
) -> bool {
    for _ in 0..TRANSMITS_AT_ONCE {
        let Some(len) = poll(out) else { return false };
        if let Some(bytes) = out.get(..len) {
            send(bytes);
        }
    }
    true
}

const fn end_of_srt(reason: mirror_srt::CloseReason) -> EndReason {
    match reason {
        mirror_srt::CloseReason::PeerShutdown => EndReason::PeerClosed,
        mirror_srt::CloseReason::IdleTimeout => EndReason::IdleTimeout,
        mirror_srt::CloseReason::Local => EndReason::Operator,
        mirror_srt::CloseReason::ConnectTimeout
        | mirror_srt::CloseReason::Unconcluded
        | mirror_srt::CloseReason::Rejected(_) => EndReason::Refused,
        mirror_srt::CloseReason::Protocol => EndReason::PeerError,
    }
}

pub(crate) const fn end_of_rtp(reason: mirror_rtp::CloseReason) -> EndReason {
    match reason {
        mirror_rtp::CloseReason::Bye => EndReason::PeerClosed,
        mirror_rtp::CloseReason::Timeout => EndReason::IdleTimeout,
        mirror_rtp::CloseReason::Local => EndReason::Operator,
    }
}
