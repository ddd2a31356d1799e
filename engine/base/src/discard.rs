//! Why a datagram, or a part of one, was not used.

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $name:ident = $label:literal, )+) => {
        /// Why a datagram (or a packet or unit inside it) was discarded. Each reason is a
        /// counter and, by [`Discard::label`], the `error_type` label of a metric.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Discard { $( $(#[doc = $doc])+ $name, )+ }

        impl Discard {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Discard] = &[ $( Discard::$name, )+ ];

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $( Discard::$name => $label, )+ }
            }
        }
    };
}

reasons! {
    /// Shorter than the smallest header of its protocol.
    Runt = "runt",
    /// Longer than a slot, or cut off by the receive buffer.
    TooLong = "too_long",
    /// No session has this socket ID or SSRC.
    UnknownSession = "unknown_session",
    /// The session exists, but the datagram came from another address.
    ForeignSource = "foreign_source",
    /// Belongs to another shard and could not be handed over.
    ForeignShard = "foreign_shard",
    /// A control packet whose control information field is too short or inconsistent.
    MalformedControl = "malformed_control",
    /// A control type that is not known.
    UnknownControl = "unknown_control",
    /// A handshake packet that breaks the format.
    MalformedHandshake = "malformed_handshake",
    /// A handshake with a cookie that we did not issue, or an old one.
    BadCookie = "bad_cookie",
    /// More handshakes than `handshakes_per_second`, or no room for one more half-open one.
    HandshakeLimit = "handshake_limit",
    /// A handshake whose answer is still being worked out.
    HandshakePending = "handshake_pending",
    /// A data packet with forbidden flags.
    MalformedData = "malformed_data",
    /// Already received.
    Duplicate = "duplicate",
    /// Arrived after its place had been delivered or skipped.
    Belated = "belated",
    /// Beyond the receive window.
    BeyondWindow = "beyond_window",
    /// No free slot or chunk.
    NoBuffer = "no_buffer",
    /// Could not be decrypted.
    Undecryptable = "undecryptable",
    /// An ACK, NAK or ACKACK for something that was never sent.
    Implausible = "implausible",
    /// The session is closed.
    Closed = "closed",
    /// RTP version is not 2.
    RtpVersion = "rtp_version",
    /// RTP CSRC list, extension or padding run past the packet.
    RtpOverrun = "rtp_overrun",
    /// The source is on probation, or its sequence jumped (RFC 3550, A.1).
    RtpProbation = "rtp_probation",
    /// RTCP that fails the checks of RFC 3550, A.2.
    MalformedRtcp = "malformed_rtcp",
    /// No room for one more session.
    SessionLimit = "session_limit",
    /// The payload type has no meaning here.
    UnknownPayloadType = "unknown_payload_type",
    /// An RTP payload that breaks its payload format.
    MalformedPayload = "malformed_payload",
    /// A fragment without its start, or after a gap.
    OrphanFragment = "orphan_fragment",
    /// A payload in which no MPEG-TS packet was found.
    NoTsSync = "no_ts_sync",
    /// A TS packet with the transport error indicator, or a broken adaptation field.
    MalformedTs = "malformed_ts",
    /// A section with a wrong CRC or length.
    MalformedPsi = "malformed_psi",
    /// A PES packet that breaks the format.
    MalformedPes = "malformed_pes",
    /// A bit stream that breaks its codec's syntax.
    MalformedBitstream = "malformed_bitstream",
    /// Larger than the configured limit.
    LimitExceeded = "limit_exceeded",
    /// The session is paused by the operator.
    Paused = "paused",
    /// A payload form that is known, but not supported (interleaved modes, other codecs).
    UnsupportedPayload = "unsupported_payload",
    /// An RTP datagram longer than `rtp.max_packet_size`.
    OverMaxPacketSize = "over_max_packet_size",
}

/// A counter for each [`Discard`] reason.
#[derive(Clone, Debug)]
pub struct DiscardCounts([u64; Discard::ALL.len()]);

impl Default for DiscardCounts {
    fn default() -> Self {
        DiscardCounts([0; Discard::ALL.len()])
    }
}

impl DiscardCounts {
    /// Counts one.
    pub const fn count(&mut self, reason: Discard) {
        self.0[reason as usize] += 1;
    }

    /// How often `reason` was counted.
    pub const fn get(&self, reason: Discard) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that were counted at least once.
    pub fn nonzero(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL
            .iter()
            .map(|&r| (r, self.get(r)))
            .filter(|&(_, n)| n > 0)
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &DiscardCounts) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a += b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_reasons_index_their_counters() {
        let labels: std::collections::BTreeSet<_> =
            Discard::ALL.iter().map(|d| d.label()).collect();
        assert_eq!(labels.len(), Discard::ALL.len());
        let mut counts = DiscardCounts::default();
        for &reason in Discard::ALL {
            counts.count(reason);
        }
        assert_eq!(counts.total(), Discard::ALL.len() as u64);
        assert!(counts.nonzero().all(|(_, n)| n == 1));
    }
}
