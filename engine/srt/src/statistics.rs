//! Figures of a connection (spec section 23). Counters only grow; rates and times are the
//! values of the moment. Byte counters are payload + 44 bytes of headers a packet, as libsrt's.
//!
//! Filled by a connection's receiver and sender, read by the stream's snapshots. What can be
//! worked out from other figures is, when somebody asks ([`Connection::statistics`]): a packet
//! that comes in order costs two additions here.
//!
//! [`Connection::statistics`]: crate::Connection::statistics

use crate::config::HEADERS_LEN;
use crate::crypto::KmState;

/// Figures of a connection since it began; libsrt's meanings (spec section 23).
///
/// Of the received packets: `pkt_recv = pkt_recv_unique + pkt_rcv_duplicate + pkt_rcv_belated +
/// pkt_rcv_undecrypt + pkt_rcv_refused`, and `pkt_recv_unique = pkt_delivered + pkt_rcv_buf`
/// (unless someone else empties slots).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Data packets received: originals, retransmissions, duplicates, belated ones.
    pub pkt_recv: u64,
    /// Payload + 44 bytes each of `pkt_recv`.
    pub byte_recv: u64,
    /// First copies accepted into the buffer.
    pub pkt_recv_unique: u64,
    /// Payload + 44 bytes each of `pkt_recv_unique`.
    pub byte_recv_unique: u64,
    /// Sum of the sequence gaps when they were detected, before any repair.
    pub pkt_rcv_loss: u64,
    /// `pkt_rcv_loss` at the mean size of a packet, since lost ones have none.
    pub byte_rcv_loss: u64,
    /// Packets marked as retransmitted.
    pub pkt_rcv_retrans: u64,
    /// Given up: skipped by too-late drop or drop request, and undecryptable ones.
    pub pkt_rcv_drop: u64,
    /// `pkt_rcv_drop` at the mean size of a packet.
    pub byte_rcv_drop: u64,
    /// Arrived after being delivered or skipped.
    pub pkt_rcv_belated: u64,
    /// Payload + 44 bytes each of `pkt_rcv_belated`.
    pub byte_rcv_belated: u64,
    /// How late belated packets are, µs: a smoothed mean.
    pub rcv_belated_us: u64,
    /// Arrived while a copy was still held.
    pub pkt_rcv_duplicate: u64,
    /// Payload + 44 bytes each of `pkt_rcv_duplicate`.
    pub byte_rcv_duplicate: u64,
    /// Could not be decrypted, or came in the clear on an encrypted connection.
    pub pkt_rcv_undecrypt: u64,
    /// Payload bytes of `pkt_rcv_undecrypt`, without headers.
    pub byte_rcv_undecrypt: u64,
    /// Originals that arrived behind a later packet.
    pub pkt_rcv_reordered: u64,
    /// Refused: beyond the window, no buffer, malformed; not acknowledged.
    pub pkt_rcv_refused: u64,
    /// Payload + 44 bytes each of `pkt_rcv_refused`.
    pub byte_rcv_refused: u64,
    /// Released in order.
    pub pkt_delivered: u64,
    /// Slots that someone else emptied before they were released.
    pub pkt_rcv_emptied: u64,
    /// The largest distance, in packets, between an original and where it belonged.
    pub pkt_reorder_distance: u32,
    /// Packets that a gap may wait for before it is reported (spec section 11.2).
    pub pkt_reorder_tolerance: u32,
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
    /// Shortest sample of the round-trip time, µs; 0 before the first one.
    pub rtt_min_us: u32,
    /// Mean of the samples, µs.
    pub rtt_avg_us: u32,
    /// Longest sample, µs.
    pub rtt_max_us: u32,
    /// Shortest sample of the last one to two seconds, µs; 0 when there was none.
    pub rtt_recent_min_us: u32,
    /// Mean of the samples of the last one to two seconds, µs.
    pub rtt_recent_avg_us: u32,
    /// Longest sample of the last one to two seconds, µs.
    pub rtt_recent_max_us: u32,
    /// Link capacity, packets a second: the receiver's own estimate, or the peer's when sending.
    pub link_capacity_pps: u32,
    /// Packets received a second.
    pub recv_rate_pps: u32,
    /// Bytes received a second.
    pub recv_rate_bytes: u32,
    /// Packets held now.
    pub pkt_rcv_buf: u64,
    /// Time between the oldest packet held and the newest, µs.
    pub rcv_buf_us: u64,
    /// Free packets that the last ACK announced.
    pub pkt_rcv_available: u32,
    /// Our receive latency, ms.
    pub rcv_latency_ms: u32,
    /// The peer's receive latency, ms.
    pub snd_latency_ms: u32,
    /// Present drift of the peer's clock, µs.
    pub drift_us: i64,
    /// Times that the peer's address changed.
    pub peer_moves: u64,
    /// Data packets put on the wire: originals and retransmissions.
    pub pkt_sent: u64,
    /// Payload + 44 bytes each of `pkt_sent`.
    pub byte_sent: u64,
    /// Originals put on the wire.
    pub pkt_sent_unique: u64,
    /// Payload + 44 bytes each of `pkt_sent_unique`.
    pub byte_sent_unique: u64,
    /// Retransmissions.
    pub pkt_retrans: u64,
    /// Payload + 44 bytes each of `pkt_retrans`.
    pub byte_retrans: u64,
    /// Packets that entered the retransmission list.
    pub pkt_snd_loss: u64,
    /// Dropped as too late to send.
    pub pkt_snd_drop: u64,
    /// Payload + 44 bytes each of `pkt_snd_drop`.
    pub byte_snd_drop: u64,
    /// ACKs received, light ones included.
    pub pkt_recv_ack: u64,
    /// NAKs received.
    pub pkt_recv_nak: u64,
    /// Time with data that was not yet sent or acknowledged, µs.
    pub snd_duration_us: u64,
    /// Sent and not yet acknowledged.
    pub pkt_flight_size: u32,
    /// Packets the peer has room for.
    pub pkt_flow_window: u32,
    /// Held by the sender: not acknowledged, or not yet sent.
    pub pkt_snd_buf: u32,
    /// Payload bytes held by the sender.
    pub byte_snd_buf: u64,
    /// Time between the oldest packet that the sender holds and the newest, µs.
    pub snd_buf_us: u64,
    /// Packets that the send buffer still takes.
    pub pkt_snd_available: u32,
    /// Time between two departures that pacing asks for, ns; 0 when nothing is paced.
    pub snd_period_ns: u64,
    /// Bytes a second that pacing allows at present; 0 unlimited.
    pub max_bandwidth: u64,
    /// Bytes a second that were given to the sender, payload + 44 a packet.
    pub snd_input_rate: u64,
    /// Whole IP packet that was agreed.
    pub byte_mss: u32,
    /// Time since the connection began, ms.
    pub time_ms: u64,
    /// Key exchange for what we send (SRTO_SNDKMSTATE).
    pub snd_km_state: KmState,
    /// Key exchange for what we receive (SRTO_RCVKMSTATE).
    pub rcv_km_state: KmState,
    /// Keys that took the place of another: ours, and those that the peer announced.
    pub km_refreshes: u64,
}

/// Whether a figure only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldKind {
    /// Only grows: of two readings the difference is the interval's figure.
    Counter,
    /// The value of the moment.
    Gauge,
}

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Megabits (10^6) a second.
    MegabitsPerSecond,
    /// Plain number.
    Count,
}

impl Unit {
    /// The unit's name.
    pub const fn label(self) -> &'static str {
        match self {
            Unit::Packets => "packets",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "us",
            Unit::MegabitsPerSecond => "mbps",
            Unit::Count => "count",
        }
    }
}

/// A figure's value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Real(f64),
}

impl Value {
    /// As a floating-point number.
    pub const fn as_f64(self) -> f64 {
        match self {
            Value::Whole(value) => value as f64,
            Value::Real(value) => value,
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Whole(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

/// One figure under libsrt's name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Field {
    /// libsrt's name in snake case; those of counters end in `_total`.
    pub name: &'static str,
    /// Since the connection began, or now.
    pub value: Value,
    /// Whether it only grows.
    pub kind: FieldKind,
    /// What it counts.
    pub unit: Unit,
    /// What it means, for people.
    pub help: &'static str,
}

impl Field {
    /// The name of the same figure for an interval: libsrt's, without `_total`.
    pub fn interval_name(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

macro_rules! fields {
    ($stats:ident; $( $name:literal $kind:ident $unit:ident = $value:expr, $help:literal; )+) => {
        impl Statistics {
            /// Number of [`Statistics::fields`].
            pub const FIELDS: usize = [$($name),+].len();

            /// Every figure under libsrt's name, always in the same order. Counters that
            /// libsrt lacks, and those which only it could have, follow its way of naming or
            /// are left out (packet filter, groups, file mode).
            pub fn fields(&self) -> [Field; Statistics::FIELDS] {
                let $stats = self;
                [ $( Field {
                    name: $name,
                    value: Value::from($value),
                    kind: FieldKind::$kind,
                    unit: Unit::$unit,
                    help: $help,
                } ),+ ]
            }
        }
    };
}

fields! { s;
    "ms_time_stamp" Gauge Milliseconds = s.time_ms, "time since the connection began";
    "pkt_sent_total" Counter Packets = s.pkt_sent, "data packets sent, retransmissions included";
    "byte_sent_total" Counter Bytes = s.byte_sent, "bytes sent, retransmissions and headers included";
    "pkt_sent_unique_total" Counter Packets = s.pkt_sent_unique, "original data packets sent";
    "byte_sent_unique_total" Counter Bytes = s.byte_sent_unique, "bytes of original packets sent";
    "pkt_retrans_total" Counter Packets = s.pkt_retrans, "retransmissions sent";
    "byte_retrans_total" Counter Bytes = s.byte_retrans, "bytes of retransmissions sent";
    "pkt_snd_loss_total" Counter Packets = s.pkt_snd_loss, "packets that were to be retransmitted";
    "pkt_snd_drop_total" Counter Packets = s.pkt_snd_drop, "packets dropped as too late to send";
    "byte_snd_drop_total" Counter Bytes = s.byte_snd_drop, "bytes dropped as too late to send";
    "pkt_recv_ack_total" Counter Packets = s.pkt_recv_ack, "ACKs received";
    "pkt_recv_nak_total" Counter Packets = s.pkt_recv_nak, "NAKs received";
    "us_snd_duration_total" Counter Microseconds = s.snd_duration_us, "time with data not yet sent or acknowledged";
    "pkt_recv_total" Counter Packets = s.pkt_recv, "data packets received, repetitions included";
    "byte_recv_total" Counter Bytes = s.byte_recv, "bytes received, repetitions and headers included";
    "pkt_recv_unique_total" Counter Packets = s.pkt_recv_unique, "first copies accepted into the buffer";
    "byte_recv_unique_total" Counter Bytes = s.byte_recv_unique, "bytes of first copies";
    "pkt_rcv_loss_total" Counter Packets = s.pkt_rcv_loss, "packets missing when the gap was found";
    "byte_rcv_loss_total" Counter Bytes = s.byte_rcv_loss, "bytes missing, at the mean packet size";
    "pkt_rcv_retrans_total" Counter Packets = s.pkt_rcv_retrans, "packets marked as retransmitted";
    "pkt_rcv_drop_total" Counter Packets = s.pkt_rcv_drop, "packets given up";
    "byte_rcv_drop_total" Counter Bytes = s.byte_rcv_drop, "bytes given up, at the mean packet size";
    "pkt_rcv_belated_total" Counter Packets = s.pkt_rcv_belated, "packets that came after their time";
    "byte_rcv_belated_total" Counter Bytes = s.byte_rcv_belated, "bytes that came after their time";
    "pkt_rcv_duplicate_total" Counter Packets = s.pkt_rcv_duplicate, "packets that came while a copy was held";
    "pkt_rcv_reordered_total" Counter Packets = s.pkt_rcv_reordered, "originals that came behind a later packet";
    "pkt_rcv_refused_total" Counter Packets = s.pkt_rcv_refused, "packets refused and not acknowledged";
    "pkt_rcv_undecrypt_total" Counter Packets = s.pkt_rcv_undecrypt, "packets that could not be decrypted";
    "byte_rcv_undecrypt_total" Counter Bytes = s.byte_rcv_undecrypt, "payload bytes that could not be decrypted";
    "pkt_sent_ack_total" Counter Packets = s.pkt_sent_ack, "full ACKs sent";
    "pkt_sent_light_ack_total" Counter Packets = s.pkt_sent_light_ack, "light ACKs sent";
    "pkt_sent_nak_total" Counter Packets = s.pkt_sent_nak, "NAKs sent";
    "pkt_recv_ackack_total" Counter Packets = s.pkt_recv_ackack, "ACKACKs received";
    "peer_moves_total" Counter Count = s.peer_moves, "changes of the peer's address";
    "pkt_rcv_avg_belated_time" Gauge Milliseconds = s.rcv_belated_us as f64 / 1e3, "mean lateness of belated packets";
    "pkt_reorder_distance" Gauge Packets = s.pkt_reorder_distance, "largest reordering seen";
    "pkt_reorder_tolerance" Gauge Packets = s.pkt_reorder_tolerance, "packets that a gap waits for before its NAK";
    "ms_rtt" Gauge Milliseconds = f64::from(s.rtt_us) / 1e3, "smoothed round-trip time";
    "ms_rtt_var" Gauge Milliseconds = f64::from(s.rtt_var_us) / 1e3, "variance of the round-trip time";
    "ms_rtt_min" Gauge Milliseconds = f64::from(s.rtt_min_us) / 1e3, "shortest round-trip time";
    "ms_rtt_avg" Gauge Milliseconds = f64::from(s.rtt_avg_us) / 1e3, "mean round-trip time";
    "ms_rtt_max" Gauge Milliseconds = f64::from(s.rtt_max_us) / 1e3, "longest round-trip time";
    "ms_rtt_recent_min" Gauge Milliseconds = f64::from(s.rtt_recent_min_us) / 1e3, "shortest round-trip time of the last one to two seconds";
    "ms_rtt_recent_avg" Gauge Milliseconds = f64::from(s.rtt_recent_avg_us) / 1e3, "mean round-trip time of the last one to two seconds";
    "ms_rtt_recent_max" Gauge Milliseconds = f64::from(s.rtt_recent_max_us) / 1e3, "longest round-trip time of the last one to two seconds";
    "mbps_bandwidth" Gauge MegabitsPerSecond = s.link_mbps(), "estimated capacity of the link";
    "mbps_send_rate" Gauge MegabitsPerSecond = mbps(s.snd_input_rate), "rate of what is given to the sender";
    "mbps_recv_rate" Gauge MegabitsPerSecond = mbps(s.recv_rate_bytes.into()), "rate of arrival";
    "mbps_max_bw" Gauge MegabitsPerSecond = mbps(s.max_bandwidth), "rate that pacing allows, 0 unlimited";
    "us_pkt_snd_period" Gauge Microseconds = s.snd_period_ns as f64 / 1e3, "time between departures";
    "pkt_flow_window" Gauge Packets = s.pkt_flow_window, "packets the peer has room for";
    "pkt_congestion_window" Gauge Packets = s.pkt_flow_window, "in live mode the flow window";
    "pkt_flight_size" Gauge Packets = s.pkt_flight_size, "sent and not yet acknowledged";
    "pkt_snd_buf" Gauge Packets = s.pkt_snd_buf, "packets held by the sender";
    "byte_snd_buf" Gauge Bytes = s.byte_snd_buf, "payload bytes held by the sender";
    "ms_snd_buf" Gauge Milliseconds = s.snd_buf_us as f64 / 1e3, "time span of what the sender holds";
    "byte_avail_snd_buf" Gauge Bytes = u64::from(s.pkt_snd_available) * u64::from(s.byte_mss), "free send buffer";
    "pkt_rcv_buf" Gauge Packets = s.pkt_rcv_buf, "packets held by the receiver";
    "byte_rcv_buf" Gauge Bytes = s.pkt_rcv_buf * s.mean_packet().saturating_sub(HEADERS_LEN), "payload bytes held, at the mean size";
    "ms_rcv_buf" Gauge Milliseconds = s.rcv_buf_us as f64 / 1e3, "time span of what the receiver holds";
    "byte_avail_rcv_buf" Gauge Bytes = u64::from(s.pkt_rcv_available) * u64::from(s.byte_mss), "free receive buffer as announced";
    "ms_rcv_tsb_pd_delay" Gauge Milliseconds = s.rcv_latency_ms, "our receive latency";
    "ms_snd_tsb_pd_delay" Gauge Milliseconds = s.snd_latency_ms, "the peer's receive latency";
    "us_drift" Gauge Microseconds = s.drift_us, "drift of the peer's clock";
    "byte_mss" Gauge Bytes = s.byte_mss, "whole IP packet that was agreed";
}

fn mbps(bytes_a_second: u64) -> f64 {
    bytes_a_second as f64 * 8.0 / 1e6
}

impl Statistics {
    /// Payload bytes of `pkt_recv_unique`, without headers.
    pub const fn payload_bytes_received(&self) -> u64 {
        self.byte_recv_unique
            .saturating_sub(self.pkt_recv_unique * HEADERS_LEN)
    }

    /// Mean size of a received packet, headers included; what a lost one is taken to have had.
    pub(crate) const fn mean_packet(&self) -> u64 {
        match self.byte_recv_unique.checked_div(self.pkt_recv_unique) {
            Some(mean) => mean,
            None => 0,
        }
    }

    /// Link capacity × (payload + 44) · 8.
    fn link_mbps(&self) -> f64 {
        let sent = self.byte_sent_unique.checked_div(self.pkt_sent_unique);
        let size = match self.mean_packet() {
            0 => sent.unwrap_or(0),
            size => size,
        };
        mbps(u64::from(self.link_capacity_pps) * size)
    }

    /// Works out the sums of what is counted apart.
    pub(crate) const fn add_up(&mut self) {
        self.pkt_recv = self.pkt_recv_unique
            + self.pkt_rcv_duplicate
            + self.pkt_rcv_belated
            + self.pkt_rcv_undecrypt
            + self.pkt_rcv_refused;
        self.byte_recv = self.byte_recv_unique
            + self.byte_rcv_duplicate
            + self.byte_rcv_belated
            + self.byte_rcv_undecrypt
            + self.pkt_rcv_undecrypt * HEADERS_LEN
            + self.byte_rcv_refused;
        self.pkt_rcv_buf = self
            .pkt_recv_unique
            .saturating_sub(self.pkt_delivered + self.pkt_rcv_emptied);
        self.pkt_sent = self.pkt_sent_unique + self.pkt_retrans;
        self.byte_sent = self.byte_sent_unique + self.byte_retrans;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_has_a_name_of_its_own_and_counters_are_totals() {
        let fields = Statistics::default().fields();
        let names: BTreeSet<&str> = fields.iter().map(|f| f.name).collect();
        assert_eq!(names.len(), Statistics::FIELDS);
        for field in fields {
            let total = field.name.ends_with("_total");
            assert_eq!(field.kind == FieldKind::Counter, total, "{}", field.name);
            assert!(!field.interval_name().ends_with("_total"));
            assert!(matches!(field.value, Value::Whole(0)) || field.value == Value::Real(0.0));
        }
    }

    #[test]
    fn values_come_in_libsrts_units() {
        let stats = Statistics {
            rtt_us: 12_500,
            recv_rate_bytes: 1_000_000,
            link_capacity_pps: 1000,
            pkt_recv_unique: 10,
            byte_recv_unique: 10 * 1360,
            pkt_delivered: 8,
            ..Statistics::default()
        };
        let value = |name: &str| {
            let fields = stats.fields();
            fields.iter().find(|f| f.name == name).unwrap().value
        };
        assert_eq!(value("ms_rtt"), Value::Real(12.5));
        assert_eq!(value("mbps_recv_rate"), Value::Real(8.0));
        assert_eq!(value("mbps_bandwidth"), Value::Real(10.88));
        assert_eq!(value("byte_recv_unique_total"), Value::Whole(13_600));
        assert_eq!(stats.payload_bytes_received(), 13_160);
    }
}
