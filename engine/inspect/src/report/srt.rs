//! Facts of SRT connections.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use mirror_srt::observe::{
    Block, Greeting, KeyMessage, ObservedAck, ObservedHandshake, ObservedNak, Stage, blocks,
};
use mirror_srt::{Cipher, RejectionCode, printable, shown_stream_id};
use serde_json::{Map, Value, json};

use super::listed::{Listed, hex, seconds};

/// Longest text of a block that is shown.
const MAX_TEXT: usize = 512;

/// When something was said, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoken {
    /// Number of the packet in the capture, from 1 on.
    pub packet: u64,
    /// Since the capture's first packet, µs.
    pub at_us: u64,
    /// By the caller.
    pub from_caller: bool,
}

/// A handshake.
#[derive(Clone, Debug)]
pub struct HandshakeFacts {
    /// When and by whom.
    pub spoken: Spoken,
    /// The sender's clock, µs.
    pub timestamp: u32,
    /// Destination socket ID.
    pub destination: u32,
    /// Type-specific information of the header.
    pub information: u32,
    /// What it says.
    pub handshake: ObservedHandshake,
}

/// HSREQ, HSRSP, KMREQ or KMRSP in a packet of its own.
#[derive(Clone, Debug)]
pub struct ExtensionFacts {
    /// When and by whom.
    pub spoken: Spoken,
    /// What it says.
    pub block: Block,
}

/// An ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckFacts {
    /// When.
    pub spoken: Spoken,
    /// Its number, that an ACKACK repeats; 0 of those that ask for none.
    pub number: u32,
    /// What it says.
    pub ack: ObservedAck,
}

/// A NAK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NakFacts {
    /// When.
    pub spoken: Spoken,
    /// What it says.
    pub nak: ObservedNak,
}

/// Data packets of a direction, as they are on the wire: retransmissions are among them, packets
/// of the packet filter are not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WireFacts {
    /// The lowest sequence number, and the highest.
    pub sequences: (u32, u32),
    /// The sender's clock in the packets that have them first, µs.
    pub timestamps: (u32, u32),
    /// Message numbers of the first packet and of the last one.
    pub messages: (u32, u32),
    /// In the clear, with the even key, with the odd one, with both flags; the packet filter's
    /// as well.
    pub keys: [u64; 4],
    /// Between others in a message, its last one, its first one, alone.
    pub positions: [u64; 4],
    /// Numbers in between that never came.
    pub missing: u64,
    /// The first stretches of them.
    pub missing_ranges: Vec<(u32, u32)>,
}

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
    /// The variant of AES-GCM is that of SRT 1.5.4 and later; `None`: no AES-GCM, or not known.
    pub gcm_since_154: Option<bool>,
    /// The group that it is a member of.
    pub group_id: Option<u32>,
    /// Packets by type, from the caller and from the listener.
    pub packets: [BTreeMap<&'static str, u64>; 2],
    /// Handshakes, the first ones.
    pub handshakes: Vec<HandshakeFacts>,
    /// What was said in packets of its own that else is said in the handshake, the first ones.
    pub extensions: Vec<ExtensionFacts>,
    /// Goodbyes, the first ones.
    pub shutdowns: Vec<Spoken>,
    /// From the caller, and from the listener.
    pub directions: [DirectionFacts; 2],
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
pub struct DirectionFacts {
    /// Its data packets as they are on the wire.
    pub wire: Option<WireFacts>,
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
    /// The first full ACK and the last one.
    pub first_ack: Option<AckFacts>,
    /// The last full ACK.
    pub last_ack: Option<AckFacts>,
    /// All of them, if that was asked for.
    pub ack_list: Option<Listed<AckFacts>>,
    /// All NAKs, likewise.
    pub nak_list: Option<Listed<NakFacts>>,
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
        let gcm = self.gcm_since_154;
        let gcm = gcm.map(|since| if since { "since 1.5.4" } else { "before 1.5.4" });
        let [from_caller, from_listener] = &self.packets;
        let list = |values: &mut dyn Iterator<Item = Value>| Value::Array(values.collect());
        object(|put| {
            put("caller", json!(self.caller.to_string()));
            put("listener", json!(self.listener.to_string()));
            put("rendezvous", json!(self.is_rendezvous));
            put("version", json!(version(self.version)));
            put("listener_version", json!(version(self.listener_version)));
            put("stream_id", json!(self.stream_id));
            put("latency_ms", json!(latency));
            put("encryption", json!(self.encryption));
            put("gcm_form", json!(gcm));
            put("outcome", json!(outcome));
            put("rejection_code", json!(code.map(|c| c.0)));
            put("rejection_name", json!(code.and_then(RejectionCode::name)));
            put("group_id", json!(self.group_id));
            put("packets_from_caller", json!(from_caller));
            put("packets_from_listener", json!(from_listener));
            put(
                "handshakes",
                list(&mut self.handshakes.iter().map(HandshakeFacts::json)),
            );
            put(
                "extensions",
                list(&mut self.extensions.iter().map(ExtensionFacts::json)),
            );
            let shutdown = |spoken: &Spoken| object(|mut put| spoken.put(&mut put));
            put("shutdowns", list(&mut self.shutdowns.iter().map(shutdown)));
            put("caller_to_listener", forth.json(latency));
            put("listener_to_caller", back.json(latency_back));
        })
    }
}

impl DirectionFacts {
    fn json(&self, latency_ms: Option<u16>) -> Value {
        object(|mut put| {
            put("latency_ms", json!(latency_ms));
            put("data_packets", json!(self.data_packets));
            put("retransmitted", json!(self.retransmitted));
            put("lost", json!(self.lost));
            put("dropped", json!(self.dropped));
            put("belated", json!(self.belated));
            put("duplicates", json!(self.duplicates));
            put("fec_packets", json!(self.fec_packets));
            put("fec_rebuilt", json!(0));
            put("acks", json!(self.acks));
            put("naks", json!(self.naks));
            put("key_refreshes", json!(self.key_refreshes));
            put("undecryptable", json!(self.undecryptable));
            put("key_opened", json!(self.key_opened));
            put("payload_bytes", json!(self.payload_bytes));
            put("payload_sha256", json!(self.payload_sha256));
            if let Some(wire) = &self.wire {
                wire.put(&mut put);
            }
            put(
                "first_ack",
                json!(self.first_ack.as_ref().map(AckFacts::json)),
            );
            put(
                "last_ack",
                json!(self.last_ack.as_ref().map(AckFacts::json)),
            );
            if let Some(list) = &self.ack_list {
                list.put("ack_list", AckFacts::json, &mut put);
            }
            if let Some(list) = &self.nak_list {
                list.put("nak_list", NakFacts::json, &mut put);
            }
        })
    }
}

impl Spoken {
    fn put(self, put: &mut impl FnMut(&str, Value)) {
        put("packet", json!(self.packet));
        put("at_s", json!(seconds(self.at_us)));
        put(
            "from",
            json!(if self.from_caller {
                "caller"
            } else {
                "listener"
            }),
        );
    }
}

/// An object that `fill` fills.
fn object(fill: impl FnOnce(&mut dyn FnMut(&str, Value))) -> Value {
    let mut map = Map::new();
    fill(&mut |key, value| {
        map.insert(key.to_owned(), value);
    });
    Value::Object(map)
}

impl HandshakeFacts {
    fn json(&self) -> Value {
        let h = &self.handshake;
        let attached = match h.stage {
            // Behind other handshakes there is nothing to read.
            Stage::Conclusion | Stage::Rendezvous => &h.attached[..],
            _ => &[],
        };
        let code = match h.stage {
            Stage::Rejected(code) => Some(code),
            _ => None,
        };
        object(|mut put| {
            self.spoken.put(&mut put);
            put("type", json!(h.type_name()));
            put("type_code", json!(h.handshake_type));
            if let Some(code) = code {
                put("rejection_code", json!(code.0));
                put("rejection_name", json!(code.name()));
            }
            put("version", json!(h.version));
            put("timestamp_us", json!(self.timestamp));
            put("destination", json!(self.destination));
            put("information", json!(self.information));
            put("encryption", json!(h.encryption));
            put("extension", json!(h.extension));
            put("initial_sequence", json!(h.initial_sequence));
            put("mss", json!(h.mss));
            put("flow_window", json!(h.flow_window));
            put("socket_id", json!(h.socket_id));
            put("cookie", json!(h.cookie));
            put("peer_ip", json!(h.peer_ip.to_string()));
            put("bytes", json!(h.bytes));
            put("blocks", blocks(attached).map(|b| block(&b)).collect());
        })
    }
}

fn greeting(name: &str, greeting: &Greeting) -> Value {
    json!({
        "type": name,
        "version": version(Some(greeting.version)),
        "flags": greeting.flags,
        "receive_ms": greeting.receive_ms,
        "send_ms": greeting.send_ms,
    })
}

fn key_message(name: &str, message: &KeyMessage) -> Value {
    match message {
        KeyMessage::Keys(keys) => json!({
            "type": name,
            "keys": match keys.kk {
                1 => "even",
                2 => "odd",
                _ => "both",
            },
            "cipher": match keys.cipher {
                Cipher::Ctr => "aes-ctr",
                Cipher::Gcm => "aes-gcm",
            },
            "key_bytes": keys.length.bytes(),
            "salt": hex(&keys.salt),
            "wrapped": hex(&keys.wrapped),
        }),
        KeyMessage::Status(state) => json!({"type": name, "status": state.name()}),
        KeyMessage::Malformed(bytes) => json!({"type": name, "malformed_bytes": bytes}),
    }
}

fn block(block: &Block) -> Value {
    let text = |name: &str, raw: &[u8]| json!({"type": name, "text": printable(raw, MAX_TEXT)});
    match block {
        Block::Request(words) => greeting("HSREQ", words),
        Block::Response(words) => greeting("HSRSP", words),
        Block::KeyRequest(message) => key_message("KMREQ", message),
        Block::KeyResponse(message) => key_message("KMRSP", message),
        // There may be a password in it.
        Block::StreamId(raw) => json!({"type": "SID", "text": shown_stream_id(raw, MAX_TEXT)}),
        Block::Congestion(raw) => text("CONGESTION", raw),
        Block::Filter(raw) => text("FILTER", raw),
        Block::Group {
            id,
            kind,
            flags,
            weight,
        } => json!({
            "type": "GROUP",
            "id": id,
            "kind": kind,
            "flags": flags,
            "weight": weight,
        }),
        Block::Other(kind, bytes) => json!({"type": kind, "bytes": bytes}),
    }
}

impl ExtensionFacts {
    fn json(&self) -> Value {
        let mut facts = block(&self.block);
        if let Value::Object(map) = &mut facts {
            self.spoken.put(&mut |key, value| {
                map.insert(key.to_owned(), value);
            });
        }
        facts
    }
}

impl AckFacts {
    fn json(&self) -> Value {
        let ack = &self.ack;
        object(|mut put| {
            self.spoken.put(&mut put);
            put("number", json!(self.number));
            put("sequence", json!(ack.sequence));
            for (key, value) in [
                ("rtt_us", ack.rtt_us),
                ("rtt_var_us", ack.rtt_var_us),
                ("available_packets", ack.available),
                ("receive_rate_pps", ack.rate_pps),
                ("link_capacity_pps", ack.capacity_pps),
                ("receive_rate_bytes", ack.rate_bytes),
            ] {
                if let Some(value) = value {
                    put(key, json!(value));
                }
            }
        })
    }
}

impl NakFacts {
    fn json(&self) -> Value {
        object(|mut put| {
            self.spoken.put(&mut put);
            put("ranges", json!(self.nak.ranges));
            if self.nak.is_malformed {
                put("malformed", json!(true));
            }
        })
    }
}

impl WireFacts {
    fn put(&self, put: &mut impl FnMut(&str, Value)) {
        put("first_sequence", json!(self.sequences.0));
        put("last_sequence", json!(self.sequences.1));
        put("first_timestamp_us", json!(self.timestamps.0));
        put("last_timestamp_us", json!(self.timestamps.1));
        put("first_message", json!(self.messages.0));
        put("last_message", json!(self.messages.1));
        let [clear, even, odd, both] = self.keys;
        let keys = json!({"clear": clear, "even": even, "odd": odd, "both": both});
        put("keys", keys);
        let [middle, last, first, alone] = self.positions;
        let places = json!({"alone": alone, "first": first, "middle": middle, "last": last});
        put("message_positions", places);
        let missing = json!({"count": self.missing, "ranges": self.missing_ranges});
        put("missing", missing);
    }
}
