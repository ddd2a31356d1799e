//! One SRT peer: established by the handshake, then receiver and sender until it ends (spec
//! sections 5 to 15). The shard feeds it datagrams and time and drains it after each mutation.
//!
//! The receiving half is `receive`, the sending half `send`; `incoming` takes datagrams, `outgoing`
//! writes them. Here are the connection itself, its beginning and its end: handshake done,
//! keepalive, idle timeout, shutdown.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

mod event;
mod incoming;
mod keys;
mod loss;
mod meeting;
mod outgoing;
mod rates;
mod rebind;
mod receive;
mod rtt;
mod send;
mod tsbpd;

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Delivery, Instant, PacketSequenceNumber, SlotRing};

use crate::config::Config;
use crate::crypto::{CallerSecurity, Refresh, Security, Terms};
use crate::handshake::ConnectRequest;
use crate::handshake::caller::{Agreed, Caller};
use crate::handshake::flags;
use crate::handshake::rendezvous::Rendezvous;
use crate::packet::timestamp;
use crate::reject::RejectionCode;
use crate::statistics::Statistics;
pub use event::{CloseReason, Event, SendError};
use keys::Keys;
pub use keys::Proof;
use receive::{DeliveryMode, Receiver};
pub use receive::{is_plain, may_be_usual};
use rtt::Rtt;
pub use send::Batch;
use send::{SendTerms, Sender};
use tsbpd::TimeBase;

/// Spec section 14.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(1);
/// A peer that has nothing to send says so as often as we do: it is not gone before its keepalive
/// can have come.
const LEAST_IDLE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// ACKs whose ACKACK is not written yet.
const MAX_ACKACKS: usize = 16;
/// Headers of IPv4 and UDP, which the MSS counts.
const IP_UDP_LEN: u32 = 28;

#[derive(Debug)]
enum Phase {
    Calling(Box<Caller>),
    Meeting(Box<Rendezvous>),
    Established,
    Closed,
}

/// Control packets waiting to be written, besides those of the receiver.
#[derive(Debug, Default)]
struct Pending {
    response: bool,
    shutdown: bool,
    keepalive: bool,
    /// Rendezvous: the response is an AGREEMENT, which a repeated conclusion asks for again.
    repeats_agreement: bool,
    ackacks: [u32; MAX_ACKACKS],
    ackack_count: usize,
}

impl Pending {
    const fn any(&self) -> bool {
        self.response || self.shutdown || self.keepalive || self.ackack_count > 0
    }
}

/// One SRT peer.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    receiver: Receiver,
    sender: Sender,
    rtt: Rtt,
    stats: Statistics,
    pending: Pending,
    peer_socket_id: u32,
    peer_version: u32,
    socket_id: u32,
    peer: SocketAddr,
    /// Apart: hardly ever looked at.
    elsewhere: Box<rebind::Elsewhere>,
    start: Instant,
    last_heard: Instant,
    last_sent: Instant,
    /// Lower bound of the next keepalive or idle timeout: looked at when it comes.
    housekeeping: Instant,
    latency: Duration,
    peer_latency: Duration,
    response: Box<[u8]>,
    keys: Keys,
    connected_event: bool,
    closed_event: Option<CloseReason>,
    next_index: u64,
    /// Whole IP packet that was agreed.
    mss: u32,
    /// A NAK fits into one packet of the agreed MSS; bytes of UDP payload.
    nak_limit: usize,
    config: Config,
}

impl Connection {
    /// Listener side: accepts. The response waits in `poll_transmit`. Slot indexes of received
    /// packets begin at `next_index` (the ring's `end`).
    ///
    /// # Errors
    /// The code to reject with, when `config` cannot serve the request.
    pub fn accept(
        now: Instant,
        request: &ConnectRequest,
        socket_id: u32,
        config: &Config,
        next_index: u64,
        security: Security,
    ) -> Result<Self, RejectionCode> {
        request.check(config)?;
        let latencies = request.latencies(config);
        let agreed = Agreed {
            peer_socket_id: request.peer_socket_id,
            peer_version: request.version,
            mss: request.mss.min(u32::from(config.mss)),
            flow_window: request.flow_window,
            flags: request.flags,
            receive_latency: latencies.receive,
            peer_latency: latencies.peer,
            initial_sequence: request.initial_sequence,
            timestamp: request.timestamp,
        };
        let terms = security.into_terms();
        let mut out = [0; 256];
        let len = request.write_response(socket_id, latencies, config, &terms, &mut out);
        let mut connection = Self::new(
            now,
            request.peer,
            socket_id,
            request.initial_sequence,
            config,
            next_index,
        );
        connection.response = out.get(..len).unwrap_or(&[]).into();
        connection.pending.response = true;
        connection.establish(now, request.arrival, &agreed, terms);
        Ok(connection)
    }

    /// Caller side. `socket_id` non-zero, bits 30 and 31 clear; `initial_sequence` random.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is what only the caller of this knows"
    )]
    pub fn connect(
        now: Instant,
        peer: SocketAddr,
        socket_id: u32,
        initial_sequence: PacketSequenceNumber,
        srt_stream_id: &str,
        config: &Config,
        next_index: u64,
        security: Option<CallerSecurity>,
    ) -> Self {
        let initial = meeting::allowed(initial_sequence);
        let mut connection = Self::new(now, peer, socket_id, initial, config, next_index);
        let caller = Caller::new(
            now,
            peer,
            socket_id,
            initial,
            srt_stream_id,
            config,
            security,
        );
        connection.phase = Phase::Calling(Box::new(caller));
        connection
    }

    /// Caller, rendezvous: slot indexes of received packets begin at `next_index` (the ring's
    /// `end`), which may have moved since the connection was made. Without effect once the
    /// handshake is done.
    pub fn begin_at(&mut self, next_index: u64) {
        let pending = matches!(self.phase, Phase::Calling(_) | Phase::Meeting(_));
        if next_index == self.next_index || !pending {
            return;
        }
        let initial = self.receiver.seq_of(self.next_index);
        let time = TimeBase::new(self.start, 0, self.config.latency);
        let mode = DeliveryMode {
            timed: true,
            drop_too_late: true,
        };
        let window = self.config.window();
        self.receiver = Receiver::new(
            self.start,
            initial,
            next_index,
            time,
            mode,
            window,
            self.config.loss_max_ttl,
        );
        self.next_index = next_index;
    }

    fn new(
        now: Instant,
        peer: SocketAddr,
        socket_id: u32,
        initial: PacketSequenceNumber,
        config: &Config,
        next_index: u64,
    ) -> Self {
        let time = TimeBase::new(now, 0, config.latency);
        let mode = DeliveryMode {
            timed: true,
            drop_too_late: true,
        };
        Connection {
            phase: Phase::Established,
            receiver: Receiver::new(
                now,
                initial,
                next_index,
                time,
                mode,
                config.window(),
                config.loss_max_ttl,
            ),
            sender: Sender::new(initial, config),
            rtt: Rtt::new(),
            stats: Statistics::default(),
            pending: Pending::default(),
            peer_socket_id: 0,
            peer_version: 0,
            socket_id,
            peer,
            elsewhere: Box::default(),
            start: now,
            last_heard: now,
            last_sent: now,
            housekeeping: now + KEEPALIVE_AFTER,
            latency: config.latency,
            peer_latency: config.peer_latency,
            response: Box::default(),
            keys: Keys::none(),
            connected_event: false,
            closed_event: None,
            next_index,
            mss: u32::from(config.mss),
            nak_limit: 1472,
            config: config.clone(),
        }
    }

    /// The handshake is done; `arrival` and the agreed timestamp anchor the peer's clock.
    fn establish(&mut self, now: Instant, arrival: Instant, agreed: &Agreed, terms: Terms) {
        let has = |flag: u32| agreed.flags & flag != 0;
        let time = TimeBase::new(arrival, agreed.timestamp, agreed.receive_latency);
        // Spec section 4.1: TSBPD needs our RCV and the peer's SND flag; ours are all set.
        let mode = DeliveryMode {
            timed: has(flags::TSBPDSND),
            drop_too_late: has(flags::TLPKTDROP),
        };
        self.receiver = Receiver::new(
            arrival,
            agreed.initial_sequence,
            self.next_index,
            time,
            mode,
            self.config.window(),
            self.config.loss_max_ttl,
        );
        let send_terms = SendTerms {
            mss: agreed.mss.min(u32::from(self.config.mss)),
            peer_window: agreed.flow_window,
            peer_latency: agreed.peer_latency,
            drop_too_late: has(flags::TLPKTDROP),
            peer_repeats_naks: has(flags::PERIODICNAK),
        };
        self.mss = send_terms.mss;
        self.nak_limit = send_terms.mss.saturating_sub(IP_UDP_LEN).clamp(64, 1472) as usize;
        self.sender.agree(now, &send_terms);
        self.keys = Keys::begin(
            terms,
            Refresh::new(&self.config),
            agreed.peer_socket_id,
            &mut self.receiver,
            &mut self.sender,
            send_terms.mss,
        );
        self.peer_socket_id = agreed.peer_socket_id;
        self.peer_version = agreed.peer_version;
        self.latency = agreed.receive_latency;
        self.peer_latency = agreed.peer_latency;
        self.phase = Phase::Established;
    }

    /// `poll_timeout` has come. Before that it does nothing.
    #[inline]
    pub fn handle_timeout(&mut self, now: Instant, ring: &mut SlotRing) {
        match &self.phase {
            Phase::Closed => {}
            Phase::Calling(caller) => {
                if caller.has_given_up(now) {
                    self.end(CloseReason::ConnectTimeout);
                }
            }
            Phase::Meeting(rendezvous) => {
                if let Some(reason) = rendezvous.verdict(now) {
                    self.end(reason);
                }
            }
            Phase::Established => {
                self.receiver.handle_timeout(now, &self.rtt, ring);
                self.sender.handle_timeout(now, &self.rtt, &mut self.stats);
                if now >= self.housekeeping {
                    self.keep_house(now);
                }
            }
        }
    }

    /// Keepalive and idle timeout (spec section 14).
    #[inline(never)]
    fn keep_house(&mut self, now: Instant) {
        let idle_at = self.last_heard + self.config.peer_idle_timeout.max(LEAST_IDLE_TIMEOUT);
        if now >= idle_at {
            // libsrt tells the peer, in case it still hears us.
            self.pending.shutdown = true;
            self.end(CloseReason::IdleTimeout);
            return;
        }
        let mut keepalive_at = self.last_sent + KEEPALIVE_AFTER;
        if now >= keepalive_at {
            self.pending.keepalive = true;
            keepalive_at = now + KEEPALIVE_AFTER;
        }
        self.housekeeping = idle_at.min(keepalive_at);
    }

    /// The next packet in order whose time has come.
    #[inline]
    pub fn poll_delivery(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> {
        self.receiver.deliver(now, ring, &mut self.stats)
    }

    /// The next packets in order whose time has come, what [`Connection::poll_delivery`] would tell
    /// one by one, until there were `enough`; a chunk of the ring more at the most. Returns how many
    /// there were.
    #[inline(always)]
    pub fn deliver_each(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        enough: usize,
        each: impl FnMut(&Delivery),
    ) -> usize {
        self.receiver
            .deliver_each(now, ring, &mut self.stats, enough, each)
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.connected_event) {
            return Some(Event::Connected);
        }
        self.closed_event.take().map(Event::Closed)
    }

    /// When `handle_timeout` (or a delivery, or a paced transmission) is due next.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = match &self.phase {
            Phase::Established => self.quiet_until().min(self.receiver.delivery_due()),
            Phase::Calling(caller) => caller.deadline(),
            Phase::Meeting(rendezvous) => rendezvous.deadline(),
            Phase::Closed => self.receiver.delivery_due(),
        };
        (due != Instant::FAR_FUTURE).then_some(due)
    }

    /// Until then there is nothing to do but to deliver, as long as only data come for which
    /// [`Connection::needs_look`] says no; the clock's start where nothing of that sort is known.
    /// Passing a gap may bring it down to [`Connection::feedback_due`].
    #[inline]
    pub fn quiet_until(&self) -> Instant {
        if !matches!(self.phase, Phase::Established) {
            return Instant::ZERO;
        }
        self.receiver
            .feedback_due()
            .min(self.sender.deadline(&self.rtt))
            .min(self.keys.due)
            .min(self.housekeeping)
    }

    /// When an ACK or a NAK is due.
    #[inline]
    pub fn feedback_due(&self) -> Instant {
        self.receiver.feedback_due()
    }

    /// When the next delivery is due, if nothing else happens before.
    #[inline]
    pub const fn delivery_due(&self) -> Instant {
        self.receiver.delivery_due()
    }

    /// Whether one of the deadlines may have come nearer since this was asked last.
    /// Most data packets only fill a slot behind others, and need no look at any deadline.
    #[inline]
    pub const fn needs_look(&mut self) -> bool {
        core::mem::replace(&mut self.receiver.moved, false)
    }

    /// Whether there is something to do with what was handled so far that cannot wait: to transmit
    /// or to report something. Deliveries that are due can, for as long as the precision of
    /// their release allows ([`Connection::poll_timeout`]).
    #[inline]
    pub fn is_pressing(&self, now: Instant) -> bool {
        self.pending.any()
            || self.receiver.has_to_transmit()
            || self.keys.has_reply()
            || self.sender.can_send()
            || self.connected_event
            || self.closed_event.is_some()
            || self.quiet_until() <= now
    }

    /// Sender: takes one message of at most `payload_size` bytes; an empty one is not sent.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn send(&mut self, now: Instant, payload: &[u8]) -> Result<(), SendError> {
        if !matches!(self.phase, Phase::Established) {
            return Err(SendError::NotConnected);
        }
        if payload.len() > self.sender.payload_size() {
            return Err(SendError::TooLong);
        }
        if payload.is_empty() {
            return Ok(());
        }
        let clock = timestamp(now, self.start);
        if self.sender.push(now, clock, payload, &mut self.stats) {
            self.step_keys(now);
            Ok(())
        } else {
            Err(SendError::BufferFull)
        }
    }

    /// Ends it: queues SHUTDOWN.
    pub fn close(&mut self, now: Instant) {
        let _ = now;
        if matches!(self.phase, Phase::Established) {
            self.pending.shutdown = true;
        }
        self.end(CloseReason::Local);
    }

    fn end(&mut self, reason: CloseReason) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.closed_event = Some(reason);
            self.pending.response = false;
            self.pending.ackack_count = 0;
            self.receiver.stop();
        }
    }

    /// Closed and nothing left to deliver or transmit.
    pub fn is_drained(&self) -> bool {
        matches!(self.phase, Phase::Closed) && !self.pending.shutdown && self.receiver.is_empty()
    }

    /// Everything before it is delivered or skipped: the ring may release it.
    #[inline]
    pub fn delivery_index(&self) -> u64 {
        self.receiver.delivery_index()
    }

    /// Whether everything sent was acknowledged or dropped: a caller that wants to end without
    /// losing its last packets waits for this before `close`.
    pub fn is_sent(&self) -> bool {
        self.sender.is_empty()
    }

    /// Our socket ID.
    pub fn socket_id(&self) -> u32 {
        self.socket_id
    }

    /// The peer's socket ID; 0 until the handshake is done.
    pub fn peer_socket_id(&self) -> u32 {
        self.peer_socket_id
    }

    /// SRT version that the peer announced, 0x00MMmmpp; 0 until the handshake is done.
    pub fn peer_version(&self) -> u32 {
        self.peer_version
    }

    /// The peer's address: the one it began with, until [`Connection::try_rebind`] follows it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Negotiated receive latency.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Negotiated latency of the peer as receiver.
    pub fn peer_latency(&self) -> Duration {
        self.peer_latency
    }

    /// When anything was last heard of the peer.
    pub fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Figures, as of when something was last heard or sent.
    pub fn statistics(&self) -> Statistics {
        self.statistics_at(self.last_heard.max(self.last_sent))
    }

    /// Figures as of `now`.
    pub fn statistics_at(&self, now: Instant) -> Statistics {
        let mut stats = self.stats;
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.receiver.fill_counts(&mut stats);
        stats.add_up();
        stats.time_ms = now.micros_since(self.start) / 1000;
        stats.byte_mss = self.mss;
        stats.rcv_latency_ms = ms(self.latency);
        stats.snd_latency_ms = ms(self.peer_latency);
        self.rtt.fill(&mut stats);
        self.receiver
            .fill(self.last_heard, self.latency, &mut stats);
        self.sender.fill(now, &mut stats);
        self.fill_key_figures(&mut stats);
        stats
    }
}

#[cfg(test)]
mod meetings;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod robustness;
#[cfg(all(test, feature = "crypto"))]
mod secured;
#[cfg(test)]
mod sending;
#[cfg(test)]
mod tests;
