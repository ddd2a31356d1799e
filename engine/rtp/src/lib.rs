//! RTP and RTCP, sans-IO: RFC 3550.

// DOOR: signatures other rooms are written against.

use mirror_base::{Delivery, Discard, Instant, SlotRing};

/// Options of a session.
#[derive(Clone, Debug)]
pub struct Config {
    /// Reorder window in packets.
    pub reorder_packets: u16,
    /// How long a gap is waited for.
    pub jitter_buffer: core::time::Duration,
    /// The session ends when nothing is heard for so long.
    pub session_timeout: core::time::Duration,
    /// RTP clock rate in Hz, for jitter (90 000 until the payload says otherwise).
    pub clock_rate: u32,
}

/// A validated RTP header (RFC 3550, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// Offset of the payload.
    pub payload_offset: u16,
    /// End of the payload (padding cut).
    pub payload_end: u16,
}

impl Header {
    /// Checks and parses.
    pub fn parse(datagram: &[u8]) -> Result<Header, Discard> { let _ = datagram; todo!() }
}

/// Whether a datagram on an RTP port is RTCP (RFC 5761: second byte 192–223).
pub fn is_rtcp(datagram: &[u8]) -> bool { datagram.get(1).is_some_and(|b| (192..=223).contains(b)) }

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason { Bye, Timeout, Local }

/// What happened to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Probation passed: the source is valid.
    Validated,
    /// The sender restarted its numbering.
    Restarted,
    /// It is over; `is_drained` says when everything held is delivered.
    Closed(CloseReason),
}

/// Figures of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    pub packets_received: u64,
    pub packets_unique: u64,
    pub payload_bytes: u64,
    /// Gaps seen, before any repair by reordering.
    pub packets_lost: u64,
    /// Never came in time.
    pub packets_dropped: u64,
    pub packets_duplicate: u64,
    pub packets_reordered: u64,
    pub packets_late: u64,
    pub packets_held: u64,
    /// RFC 3550 A.8, in clock units.
    pub jitter: u32,
    pub jitter_us: u32,
    pub sender_reports: u64,
    pub restarts: u64,
}

/// One RTP source (SSRC).
#[derive(Debug)]
pub struct Session { _p: () }

impl Session {
    /// Slot indexes begin at `next_index`.
    pub fn new(now: Instant, ssrc: u32, config: &Config, next_index: u64) -> Self { let _ = (now, ssrc, config, next_index); todo!() }
    /// An RTP datagram whose header is `header`. The whole datagram goes into a slot: meta
    /// `timestamp` = RTP timestamp, `flags` = byte 1 (marker and payload type).
    pub fn handle_rtp(&mut self, now: Instant, arrival: Instant, header: &Header, datagram: &[u8], ring: &mut SlotRing) -> Result<(), Discard> { let _ = (now, arrival, header, datagram, ring); todo!() }
    /// A compound RTCP datagram that names this source.
    pub fn handle_rtcp(&mut self, now: Instant, arrival: Instant, datagram: &[u8]) -> Result<(), Discard> { let _ = (now, arrival, datagram); todo!() }
    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) { let _ = now; todo!() }
    /// The next packet in order, or after its gap was given up.
    pub fn poll_delivery(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> { let _ = (now, ring); todo!() }
    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> { todo!() }
    /// When `handle_timeout` or a delivery is due next.
    pub fn poll_timeout(&self) -> Option<Instant> { todo!() }
    /// Ends it.
    pub fn close(&mut self, now: Instant) { let _ = now; todo!() }
    /// Closed and nothing left to deliver.
    pub fn is_drained(&self) -> bool { todo!() }
    /// Everything before it is delivered or given up.
    pub fn delivery_index(&self) -> u64 { todo!() }
    /// The SSRC.
    pub fn ssrc(&self) -> u32 { todo!() }
    /// The clock rate, once the payload is known.
    pub fn set_clock_rate(&mut self, hz: u32) { let _ = hz; todo!() }
    /// Figures.
    pub fn statistics(&self) -> Statistics { todo!() }
}
