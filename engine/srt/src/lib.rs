//! SRT in live mode, sans-IO: draft-sharabayko-srt-01, and libsrt where the two differ.
//!
//! [`Handshaker`] answers inductions without state and turns a conclusion into a
//! [`ConnectRequest`]; [`Connection`] is one peer, as receiver and as sender. Both take
//! datagrams and the time, and are drained after each mutation: `poll_transmit`,
//! `poll_delivery`, `poll_event`, `poll_timeout`.

// DOOR: signatures other rooms are written against. The owner of this room splits them into
// modules and fills them in.

use core::net::SocketAddr;
use core::time::Duration;
use mirror_base::{Delivery, Discard, Instant, PacketSequenceNumber, SlotRing};

/// Options of a connection; libsrt's names and defaults (spec section 20).
#[derive(Clone, Debug)]
pub struct Config {
    /// Our receive latency (RCVLATENCY), before negotiation.
    pub latency: Duration,
    /// The least latency we ask of the peer (PEERLATENCY).
    pub peer_latency: Duration,
    /// Clamps the latency that a peer may demand of us.
    pub max_latency: Duration,
    /// Whole IP packet.
    pub mss: u16,
    /// Flow window we announce, packets (FC).
    pub flow_window: u32,
    /// Payload of one packet when sending.
    pub payload_size: u16,
    /// Connection is broken when nothing is heard for so long.
    pub peer_idle_timeout: Duration,
    /// A caller gives up after so long.
    pub connect_timeout: Duration,
    /// Peers below this SRT version are rejected (0x00MMmmpp).
    pub min_version: u32,
    /// Sender: packets held for retransmission.
    pub send_buffer_packets: u32,
    /// Sender: MAXBW in bytes a second; 0 unlimited.
    pub max_bandwidth: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            latency: Duration::from_millis(120),
            peer_latency: Duration::ZERO,
            max_latency: Duration::from_secs(8),
            mss: 1500,
            flow_window: 25_600,
            payload_size: 1316,
            peer_idle_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            min_version: 0x0001_0000,
            send_buffer_packets: 8192,
            max_bandwidth: 0,
        }
    }
}

/// SRT rejection code as the spec's section 8 numbers it; on the wire 1000 is added.
/// Constants for all names of section 8, e.g. `RejectionCode::CONFLICT` = 1409.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RejectionCode(pub u32);

/// The stateless half of a listener: inductions, cookies, parsing of conclusions.
/// All shards of a process share the cookie key, so that any can check any cookie.
#[derive(Debug)]
pub struct Handshaker { _p: () }

/// What to do after a handshake datagram to socket ID 0.
#[derive(Debug)]
pub enum HandshakeAction {
    /// Send `out[..len]` back to where it came from (induction answered, or rejected).
    Reply(usize),
    /// A conclusion with a good cookie: find its owner, authorise it, then accept or reject.
    Conclude(Box<ConnectRequest>),
}

impl Handshaker {
    /// `cookie_key`: the process's secret.
    pub fn new(config: Config, cookie_key: [u8; 16]) -> Self { let _ = (config, cookie_key); todo!() }
    /// A datagram with destination socket ID 0. `out` has at least 1500 bytes.
    pub fn handle_datagram(&mut self, now: Instant, peer: SocketAddr, datagram: &[u8], out: &mut [u8]) -> Result<HandshakeAction, Discard> { let _ = (now, peer, datagram, out); todo!() }
}

/// A parsed, plausible conclusion. Owned data only: it may cross to the owning shard.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Where it came from.
    pub peer: SocketAddr,
    /// When it reached the host: the peer's clock is anchored to it (12.1).
    pub arrival: Instant,
    /// The caller's socket ID.
    pub peer_socket_id: u32,
    /// Its initial sequence number.
    pub initial_sequence: PacketSequenceNumber,
    /// SRT version it announced.
    pub version: u32,
    /// HSREQ flags.
    pub flags: u32,
    /// The stream ID string as received (after un-reversing), not yet validated; `None` if absent.
    pub srt_stream_id: Option<Vec<u8>>,
    // the owner adds: latency words, mss, flow window, timestamp, cookie, km, group, ...
}

impl ConnectRequest {
    /// Identifies repeats of the same conclusion (5.5, step 3).
    pub fn key(&self) -> (SocketAddr, u32, PacketSequenceNumber) { (self.peer, self.peer_socket_id, self.initial_sequence) }
    /// Writes the rejection; returns its length.
    pub fn reject(&self, now: Instant, code: RejectionCode, out: &mut [u8]) -> usize { let _ = (now, code, out); todo!() }
    /// Receive latency that would be negotiated with `config`.
    pub fn negotiated_latency(&self, config: &Config) -> Duration { let _ = config; todo!() }
}

/// Parsed `#!::` / plain / `publish:` stream ID (spec section 19).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamIdFields {
    /// `r`, or the whole plain string.
    pub resource: String,
    /// `m`: "request", "publish", "bidirectional"; `None` when not said.
    pub mode: Option<String>,
    /// `u`.
    pub user: Option<String>,
    /// `s`.
    pub session: Option<String>,
    /// `h`.
    pub host: Option<String>,
    /// Other keys, in order.
    pub others: Vec<(String, String)>,
}

impl StreamIdFields {
    /// Lenient decoding in the order of spec section 19; never fails, never panics.
    pub fn parse(raw: &[u8]) -> Self { let _ = raw; todo!() }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// SHUTDOWN received.
    PeerShutdown,
    /// Nothing heard for `peer_idle_timeout`.
    IdleTimeout,
    /// `close()` was called.
    Local,
    /// Caller: no answer within `connect_timeout`.
    ConnectTimeout,
    /// Caller: rejected by the listener.
    Rejected(RejectionCode),
    /// The peer broke the protocol.
    Protocol,
}

/// What happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Caller: the handshake is done.
    Connected,
    /// It is over. Deliveries that TSBPD still holds keep coming until `is_drained()`.
    Closed(CloseReason),
}

/// Figures of a connection since it began; libsrt's meanings (spec section 23).
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    pub pkt_recv: u64,
    pub pkt_recv_unique: u64,
    pub byte_recv_unique: u64,
    pub pkt_rcv_loss: u64,
    pub pkt_rcv_retrans: u64,
    pub pkt_rcv_drop: u64,
    pub pkt_rcv_belated: u64,
    pub pkt_rcv_duplicate: u64,
    pub pkt_rcv_undecrypt: u64,
    pub pkt_rcv_reordered: u64,
    pub pkt_sent_ack: u64,
    pub pkt_sent_light_ack: u64,
    pub pkt_sent_nak: u64,
    pub pkt_recv_ackack: u64,
    pub rtt_us: u32,
    pub rtt_var_us: u32,
    pub link_capacity_pps: u32,
    pub recv_rate_pps: u32,
    pub recv_rate_bytes: u32,
    pub pkt_rcv_buf: u64,
    pub drift_us: i64,
    pub pkt_sent: u64,
    pub pkt_sent_unique: u64,
    pub byte_sent_unique: u64,
    pub pkt_retrans: u64,
    pub pkt_snd_loss: u64,
    pub pkt_snd_drop: u64,
    pub pkt_recv_ack: u64,
    pub pkt_recv_nak: u64,
    pub pkt_flight_size: u32,
    pub pkt_snd_buf: u32,
}

/// `send` refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError { NotConnected, TooLong, BufferFull }

/// One SRT peer.
#[derive(Debug)]
pub struct Connection { _p: () }

impl Connection {
    /// Listener side: accepts. The response waits in `poll_transmit`. Slot indexes of received
    /// packets begin at `next_index` (the ring's `end`).
    pub fn accept(now: Instant, request: &ConnectRequest, socket_id: u32, config: &Config, next_index: u64) -> Result<Self, RejectionCode> { let _ = (now, request, socket_id, config, next_index); todo!() }
    /// Caller side. `socket_id` non-zero, bits 30 and 31 clear; `initial_sequence` random.
    pub fn connect(now: Instant, peer: SocketAddr, socket_id: u32, initial_sequence: PacketSequenceNumber, srt_stream_id: &str, config: &Config, next_index: u64) -> Self { let _ = (now, peer, socket_id, initial_sequence, srt_stream_id, config, next_index); todo!() }
    /// A datagram for our socket ID from the peer's address (the caller of this checks both).
    pub fn handle_datagram(&mut self, now: Instant, arrival: Instant, datagram: &[u8], ring: &mut SlotRing) -> Result<(), Discard> { let _ = (now, arrival, datagram, ring); todo!() }
    /// Listener side: the same conclusion came again; queues the same response.
    pub fn handle_repeated_conclusion(&mut self, now: Instant) { let _ = now; todo!() }
    /// `poll_timeout` has come.
    pub fn handle_timeout(&mut self, now: Instant, ring: &mut SlotRing) { let _ = (now, ring); todo!() }
    /// Writes one due datagram to `out` (≥ 1500 bytes); `None` when nothing is due.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> { let _ = (now, out); todo!() }
    /// The next packet in order whose time has come.
    pub fn poll_delivery(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> { let _ = (now, ring); todo!() }
    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> { todo!() }
    /// When `handle_timeout` (or a delivery, or a paced transmission) is due next.
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    /// Sender: takes one message of at most `payload_size` bytes.
    pub fn send(&mut self, now: Instant, payload: &[u8]) -> Result<(), SendError> { let _ = (now, payload); todo!() }
    /// Ends it: queues SHUTDOWN.
    pub fn close(&mut self, now: Instant) { let _ = now; todo!() }
    /// Closed and nothing left to deliver or transmit.
    pub fn is_drained(&self) -> bool { todo!() }
    /// Everything before it is delivered or skipped: the ring may release it.
    pub fn delivery_index(&self) -> u64 { todo!() }
    /// Our socket ID.
    pub fn socket_id(&self) -> u32 { todo!() }
    /// The peer's address.
    pub fn peer(&self) -> SocketAddr { todo!() }
    /// Negotiated receive latency.
    pub fn latency(&self) -> Duration { todo!() }
    /// Figures.
    pub fn statistics(&self) -> Statistics { todo!() }
}
