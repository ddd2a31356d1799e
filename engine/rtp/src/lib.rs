//! RTP and RTCP, sans-IO: RFC 3550 (header, source validation, reordering, loss and jitter,
//! RTCP), RFC 5761 (both on one port).
//!
//! Two kinds of session: a [`Session`] is a source that sends to the shared port without being
//! announced; a [`Media`] is an m-line of a configured session, with ports of its own, where
//! loss is also repaired (RFC 4585, RFC 4588, SMPTE ST 2022-1 and ST 2022-7).
//!
//! The shard parses a datagram's [`Header`], looks the SSRC up and hands the datagram to its
//! [`Session`], which copies it into the stream's slot ring and releases the packets in order.
//! After each call that changes something, drain `poll_delivery` and `poll_event`, then ask
//! `poll_timeout`.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

// DOOR: signatures other rooms are written against.

mod clock;
mod fec;
mod header;
mod jitter;
pub mod media;
mod members;
mod nack;
mod report;
pub mod rtcp;
mod schedule;
pub mod sdp;
mod session;

pub use clock::{ClockMap, ntp_nanos};
pub use header::{
    Extension, Extensions, Header, contributors, extensions, header_extension, is_rtcp,
};
pub use media::{Media, MediaConfig};
pub use report::Reporting;
pub use session::{SenderReport, Session};

use core::time::Duration;

/// Options of a session.
#[derive(Clone, Debug)]
pub struct Config {
    /// Reorder window in packets.
    pub reorder_packets: u16,
    /// How long a gap is waited for.
    pub jitter_buffer: Duration,
    /// The session ends when nothing is heard for so long.
    pub session_timeout: Duration,
    /// RTP clock rate in Hz, for jitter (90 000 until the payload says otherwise).
    pub clock_rate: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            reorder_packets: 100,
            jitter_buffer: Duration::from_millis(50),
            session_timeout: Duration::from_secs(10),
            clock_rate: 90_000,
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The sender said so (RTCP BYE).
    Bye,
    /// Nothing was heard for [`Config::session_timeout`].
    Timeout,
    /// [`Session::close`].
    Local,
}

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

/// Figures of a session. All counters only grow, but for the gauges `packets_held`, `jitter`
/// and `jitter_us`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Packets that were accepted, duplicates and late ones included.
    pub packets_received: u64,
    /// Packets that were kept, each sequence number once.
    pub packets_unique: u64,
    /// Payload bytes of the unique packets.
    pub payload_bytes: u64,
    /// Gaps seen, before any repair by reordering, in packets.
    pub packets_lost: u64,
    /// Never came in time.
    pub packets_dropped: u64,
    /// Came again.
    pub packets_duplicate: u64,
    /// Came in time, but after a successor.
    pub packets_reordered: u64,
    /// Came after their gap was given up.
    pub packets_late: u64,
    /// Held now, waiting behind a gap.
    pub packets_held: u64,
    /// Rejected: on probation, or far from the expected numbering (RFC 3550, A.1).
    pub packets_rejected: u64,
    /// RFC 3550 A.8, in clock units.
    pub jitter: u32,
    /// The same in microseconds.
    pub jitter_us: u32,
    /// Sender reports.
    pub sender_reports: u64,
    /// Compound RTCP packets that named this source.
    pub rtcp_received: u64,
    /// Compound RTCP packets that were sent for this source.
    pub rtcp_sent: u64,
    /// Times the sender restarted its numbering.
    pub restarts: u64,
}

impl Statistics {
    /// Adds another source's figures: counters are summed up, gauges are the newer one's.
    fn add(&mut self, newer: &Statistics) {
        let older = *self;
        *self = Statistics {
            packets_received: older.packets_received + newer.packets_received,
            packets_unique: older.packets_unique + newer.packets_unique,
            payload_bytes: older.payload_bytes + newer.payload_bytes,
            packets_lost: older.packets_lost + newer.packets_lost,
            packets_dropped: older.packets_dropped + newer.packets_dropped,
            packets_duplicate: older.packets_duplicate + newer.packets_duplicate,
            packets_reordered: older.packets_reordered + newer.packets_reordered,
            packets_late: older.packets_late + newer.packets_late,
            packets_held: newer.packets_held,
            packets_rejected: older.packets_rejected + newer.packets_rejected,
            jitter: newer.jitter,
            jitter_us: newer.jitter_us,
            sender_reports: older.sender_reports + newer.sender_reports,
            rtcp_received: older.rtcp_received + newer.rtcp_received,
            rtcp_sent: older.rtcp_sent + newer.rtcp_sent,
            restarts: older.restarts + newer.restarts,
        };
    }
}
