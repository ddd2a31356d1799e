//! Facts of SRT connections and RTP sources.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use mirror_srt::RejectionCode;
use serde_json::{Map, Value, json};

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The handshake came to its end.
    Connected,
    /// It was rejected; before SRT 1.3 without a code.
    Rejected(Option<RejectionCode>),
    /// No answer.
    Timeout,
}

/// One SRT connection.
#[derive(Clone, Debug)]
pub struct SrtFacts {
    /// The caller's address; of a rendezvous, that of who spoke first.
    pub caller: SocketAddr,
    /// The listener's.
    pub listener: SocketAddr,
    /// Both ends called.
    pub is_rendezvous: bool,
    /// The caller's SRT version, 0x00MMmmpp.
    pub version: Option<u32>,
    /// The listener's.
    pub listener_version: Option<u32>,
    /// Stream ID, passwords in it hidden.
    pub stream_id: Option<String>,
    /// Latency of what the caller sends, and of what the listener sends.
    pub latency_ms: [Option<u16>; 2],
    /// "none", "aes-ctr-128", "aes-gcm-256", ...
    pub encryption: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The group that it is a member of.
    pub group_id: Option<u32>,
    /// From the caller, and from the listener.
    pub directions: [DirectionFacts; 2],
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct DirectionFacts {
    /// Data packets, each once.
    pub data_packets: u64,
    /// Data packets that were sent again.
    pub retransmitted: u64,
    /// Gaps, before any repair.
    pub lost: u64,
    /// What a receiver with the agreed latency gives up.
    pub dropped: u64,
    /// What comes after it was given up.
    pub belated: u64,
    /// Data packets that came again.
    pub duplicates: u64,
    /// Packets of the packet filter.
    pub fec_packets: u64,
    /// ACKs that the receiver sent.
    pub acks: u64,
    /// NAKs that the receiver sent.
    pub naks: u64,
    /// Keys that followed the first one.
    pub key_refreshes: u64,
    /// Encrypted packets without a key that fits.
    pub undecryptable: u64,
    /// Whether the passphrase opened the first key; `None` where none was given or nothing is
    /// encrypted.
    pub key_opened: Option<bool>,
    /// Bytes of the payloads that a receiver delivers.
    pub payload_bytes: u64,
    /// Their hash, in sequence order; encrypted ones without a key as they are on the wire.
    pub payload_sha256: String,
}

fn version(version: Option<u32>) -> Option<String> {
    let v = version?;
    Some(format!("{}.{}.{}", v >> 16 & 0xFF, v >> 8 & 0xFF, v & 0xFF))
}

impl SrtFacts {
    pub(super) fn json(&self) -> Value {
        let code = match self.outcome {
            Outcome::Rejected(code) => code,
            Outcome::Connected | Outcome::Timeout => None,
        };
        let outcome = match self.outcome {
            Outcome::Connected => "connected",
            Outcome::Rejected(_) => "rejected",
            Outcome::Timeout => "timeout",
        };
        let [forth, back] = &self.directions;
        let [latency, latency_back] = self.latency_ms;
        json!({
            "caller": self.caller.to_string(),
            "listener": self.listener.to_string(),
            "rendezvous": self.is_rendezvous,
            "version": version(self.version),
            "listener_version": version(self.listener_version),
            "stream_id": self.stream_id,
            "latency_ms": latency,
            "encryption": self.encryption,
            "outcome": outcome,
            "rejection_code": code.map(|c| c.0),
            "rejection_name": code.and_then(RejectionCode::name),
            "group_id": self.group_id,
            "caller_to_listener": forth.json(latency),
            "listener_to_caller": back.json(latency_back),
        })
    }
}

impl DirectionFacts {
    fn json(&self, latency_ms: Option<u16>) -> Value {
        json!({
            "latency_ms": latency_ms,
            "data_packets": self.data_packets,
            "retransmitted": self.retransmitted,
            "lost": self.lost,
            "dropped": self.dropped,
            "belated": self.belated,
            "duplicates": self.duplicates,
            "fec_packets": self.fec_packets,
            "fec_rebuilt": 0,
            "acks": self.acks,
            "naks": self.naks,
            "key_refreshes": self.key_refreshes,
            "undecryptable": self.undecryptable,
            "key_opened": self.key_opened,
            "payload_bytes": self.payload_bytes,
            "payload_sha256": self.payload_sha256,
        })
    }
}

/// Packets that were given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// By retransmission (RFC 4588).
    pub rtx: u64,
    /// By FEC (SMPTE ST 2022-1).
    pub fec: u64,
    /// By a second path (SMPTE ST 2022-7).
    pub second_path: u64,
}

/// What came of a source with all its repairs.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Packets, each once.
    pub distinct: u64,
    /// Packets that nothing gave back.
    pub lost: u64,
    /// Units.
    pub access_units: u64,
    /// Of these, damaged ones.
    pub damaged: u64,
    /// Bytes of RTP payload.
    pub payload_bytes: u64,
    /// Bytes of elementary stream (or of MPEG-TS).
    pub elementary_bytes: u64,
    /// Their hash.
    pub payload_sha256: String,
}

/// One RTP source.
#[derive(Clone, Debug)]
pub struct RtpFacts {
    /// Destination.
    pub to: SocketAddr,
    /// SSRC.
    pub ssrc: u32,
    /// Payload type of its first packet.
    pub payload_type: u8,
    /// What it carries: a codec, "MP2T", or what it repairs by.
    pub codec: &'static str,
    /// Packets.
    pub packets: u64,
    /// Packets, each once.
    pub distinct: u64,
    /// Packets that never came, or too late.
    pub lost: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets that came after a successor.
    pub reordered: u64,
    /// Packets far from the expected numbering (RFC 3550, A.1).
    pub rejected: u64,
    /// What other sources gave back.
    pub recovered: Recovered,
    /// Number of the first packet.
    pub first_sequence: u16,
    /// Number of the last packet in order.
    pub last_sequence: u16,
    /// Interarrival jitter at the end (RFC 3550, A.8), µs.
    pub jitter_us: u32,
    /// RTCP packets that speak of it, by type.
    pub rtcp: BTreeMap<&'static str, u64>,
    /// Units.
    pub access_units: u64,
    /// Bytes of RTP payload.
    pub payload_bytes: u64,
    /// Bytes of elementary stream (or of MPEG-TS).
    pub elementary_bytes: u64,
    /// Their hash.
    pub payload_sha256: String,
    /// With what other sources gave back.
    pub merged: Option<Merged>,
}

impl RtpFacts {
    pub(super) fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("address", json!(self.to.ip().to_string()));
        put("port", json!(self.to.port()));
        put("ssrc", json!(self.ssrc));
        put("payload_type", json!(self.payload_type));
        put("codec", json!(self.codec));
        put("packets", json!(self.packets));
        put("distinct", json!(self.distinct));
        put("lost", json!(self.lost));
        put("duplicates", json!(self.duplicates));
        put("reordered", json!(self.reordered));
        put("rejected", json!(self.rejected));
        let recovered = &self.recovered;
        put(
            "recovered",
            json!({
                "rtx": recovered.rtx,
                "fec": recovered.fec,
                "2022-7": recovered.second_path,
            }),
        );
        put("first_sequence", json!(self.first_sequence));
        put("last_sequence", json!(self.last_sequence));
        put("jitter_ms", json!(f64::from(self.jitter_us) / 1000.0));
        put("rtcp", json!(self.rtcp));
        put("access_units", json!(self.access_units));
        put("payload_bytes", json!(self.payload_bytes));
        put("elementary_bytes", json!(self.elementary_bytes));
        put("payload_sha256", json!(self.payload_sha256));
        if let Some(merged) = &self.merged {
            put(
                "merged",
                json!({
                    "distinct": merged.distinct,
                    "lost": merged.lost,
                    "access_units": merged.access_units,
                    "damaged": merged.damaged,
                    "payload_bytes": merged.payload_bytes,
                    "elementary_bytes": merged.elementary_bytes,
                    "payload_sha256": merged.payload_sha256,
                }),
            );
        }
        Value::Object(map)
    }
}
