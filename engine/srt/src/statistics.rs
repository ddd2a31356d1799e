//! Figures of a connection (spec section 23). Counters only grow; rates and times are the
//! values of the moment. Byte counters are payload + 44 bytes of headers a packet, as libsrt's.

/// Figures of a connection since it began; libsrt's meanings (spec section 23).
///
/// Of the received packets: `pkt_recv = pkt_recv_unique + pkt_rcv_duplicate + pkt_rcv_belated +
/// pkt_rcv_undecrypt + pkt_rcv_refused`, and `pkt_recv_unique = pkt_delivered + pkt_rcv_buf`
/// (unless someone else empties slots).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Data packets received: originals, retransmissions, duplicates, belated ones.
    pub pkt_recv: u64,
    /// First copies accepted into the buffer.
    pub pkt_recv_unique: u64,
    /// Payload + 44 bytes each of `pkt_recv_unique`.
    pub byte_recv_unique: u64,
    /// Sum of the sequence gaps when they were detected, before any repair.
    pub pkt_rcv_loss: u64,
    /// Packets marked as retransmitted.
    pub pkt_rcv_retrans: u64,
    /// Given up: skipped by too-late drop or drop request, and undecryptable ones.
    pub pkt_rcv_drop: u64,
    /// Arrived after being delivered or skipped.
    pub pkt_rcv_belated: u64,
    /// Arrived while a copy was still held.
    pub pkt_rcv_duplicate: u64,
    /// Could not be decrypted.
    pub pkt_rcv_undecrypt: u64,
    /// Originals that arrived behind a later packet.
    pub pkt_rcv_reordered: u64,
    /// Refused: beyond the window, no buffer, malformed; not acknowledged.
    pub pkt_rcv_refused: u64,
    /// Released in order.
    pub pkt_delivered: u64,
    /// Full ACKs sent.
    pub pkt_sent_ack: u64,
    /// Light ACKs sent.
    pub pkt_sent_light_ack: u64,
    /// NAKs sent.
    pub pkt_sent_nak: u64,
    /// ACKACKs received.
    pub pkt_recv_ackack: u64,
    /// Smoothed round-trip time, µs.
    pub rtt_us: u32,
    /// Its variance, µs.
    pub rtt_var_us: u32,
    /// Link capacity, packets a second: the receiver's own estimate, or the peer's when sending.
    pub link_capacity_pps: u32,
    /// Packets received a second.
    pub recv_rate_pps: u32,
    /// Bytes received a second.
    pub recv_rate_bytes: u32,
    /// Packets held now.
    pub pkt_rcv_buf: u64,
    /// Present drift of the peer's clock, µs.
    pub drift_us: i64,
    /// Data packets put on the wire: originals and retransmissions.
    pub pkt_sent: u64,
    /// Originals put on the wire.
    pub pkt_sent_unique: u64,
    /// Payload + 44 bytes each of `pkt_sent_unique`.
    pub byte_sent_unique: u64,
    /// Retransmissions.
    pub pkt_retrans: u64,
    /// Packets that entered the retransmission list.
    pub pkt_snd_loss: u64,
    /// Dropped as too late to send.
    pub pkt_snd_drop: u64,
    /// ACKs received, light ones included.
    pub pkt_recv_ack: u64,
    /// NAKs received.
    pub pkt_recv_nak: u64,
    /// Sent and not yet acknowledged.
    pub pkt_flight_size: u32,
    /// Held by the sender: not acknowledged, or not yet sent.
    pub pkt_snd_buf: u32,
}

impl Statistics {
    /// Payload bytes of `pkt_recv_unique`, without headers.
    pub const fn payload_bytes_received(&self) -> u64 {
        self.byte_recv_unique
            .saturating_sub(self.pkt_recv_unique * crate::config::HEADERS_LEN)
    }
}
