//! Figures of a configured session. All counters only grow, over every source that it had.

use super::HoldFigures;
use crate::{Statistics, rtcp};

/// RTCP packets received, by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtcpCounts {
    /// Sender reports.
    pub sr: u64,
    /// Receiver reports.
    pub rr: u64,
    /// Source descriptions.
    pub sdes: u64,
    /// Goodbyes.
    pub bye: u64,
    /// Application-defined.
    pub app: u64,
    /// Transport-layer feedback.
    pub rtpfb: u64,
    /// Payload-specific feedback.
    pub psfb: u64,
    /// Extended reports.
    pub xr: u64,
    /// Of other types.
    pub other: u64,
}

impl RtcpCounts {
    pub(super) const fn count(&mut self, packet_type: u8) {
        let counter = match packet_type {
            rtcp::SENDER_REPORT => &mut self.sr,
            rtcp::RECEIVER_REPORT => &mut self.rr,
            rtcp::SOURCE_DESCRIPTION => &mut self.sdes,
            rtcp::BYE => &mut self.bye,
            rtcp::APPLICATION => &mut self.app,
            rtcp::TRANSPORT_FEEDBACK => &mut self.rtpfb,
            rtcp::PAYLOAD_FEEDBACK => &mut self.psfb,
            rtcp::EXTENDED_REPORT => &mut self.xr,
            _ => &mut self.other,
        };
        *counter += 1;
    }
}

/// One path (SMPTE ST 2022-7) of a configured session; the only one where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegStatistics {
    /// Packets of the source that came on it.
    pub packets_received: u64,
    /// Packets that came on it first, so that they were used.
    pub packets_used: u64,
    /// Numbers that never came on it in time. Of two paths' it is known a little later, when
    /// 128 more have come.
    pub packets_lost: u64,
    /// Came after their place had been given up or delivered without them.
    pub packets_late: u64,
    /// Refused: they are not what the other path brought under their number.
    pub packets_foreign: u64,
    /// How much later than the other path it brings packets, in µs, smoothed; negative:
    /// earlier. 0 while there is no other.
    pub skew_us: i64,
    /// It brings packets as long as the other one does ([`super::LEG_TIMEOUT`]).
    pub is_up: bool,
}

/// Figures of a configured session.
#[derive(Clone, Copy, Debug, Default)]
pub struct MediaStatistics {
    /// What came of the media packets; `packets_lost` counts gaps before any repair,
    /// `packets_dropped` what was never repaired.
    pub source: Statistics,
    /// Packets given back by retransmission (RFC 4588, or a plain repetition after a NACK).
    pub recovered_rtx: u64,
    /// Packets given back by SMPTE ST 2022-1.
    pub recovered_fec: u64,
    /// Packets missing on one path and given by the other (SMPTE ST 2022-7).
    pub recovered_2022_7: u64,
    /// Retransmission packets received.
    pub rtx_received: u64,
    /// Of them, not needed any more, or of unknown origin.
    pub rtx_useless: u64,
    /// FEC packets received.
    pub fec_received: u64,
    /// Of them, refused: malformed, or beyond the limits.
    pub fec_refused: u64,
    /// NACK messages sent.
    pub nacks_sent: u64,
    /// Packets asked for by them, repetitions included.
    pub packets_nacked: u64,
    /// Picture loss indications sent.
    pub plis_sent: u64,
    /// Full intra requests sent.
    pub firs_sent: u64,
    /// RTCP packets received.
    pub rtcp: RtcpCounts,
    /// Compound RTCP packets received.
    pub rtcp_received: u64,
    /// Compound RTCP packets sent.
    pub rtcp_sent: u64,
    /// Round-trip time to the sender in µs, from requests and their answers; 0: not known.
    pub rtt_us: u32,
    /// Members of the session, ourselves included.
    pub members: u32,
    /// Times that another source took over.
    pub source_changes: u64,
    /// Packets of sources that are not ours.
    pub packets_foreign: u64,
    /// Times that our SSRC met itself elsewhere and was changed (RFC 3550, 8.2).
    pub collisions: u64,
    /// Packets of our own that came back (RFC 3550, 8.2).
    pub loops: u64,
    /// How long a gap is waited for, and why.
    pub hold: HoldFigures,
    /// Each path.
    pub legs: [LegStatistics; 2],
}
