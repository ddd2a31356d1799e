//! Facts of RTP sources, and of RTCP.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use mirror_rtp::rtcp::{self, ReportBlock};
use mirror_rtp::{Header, contributors, header_extension};
use mirror_srt::printable;
use serde_json::{Map, Value, json};

use super::listed::{Listed, hex, seconds};

/// Longest text of RTCP that is shown.
const MAX_TEXT: usize = 255;
/// Bytes of a payload that are shown.
const HEAD: usize = 16;

/// Packets as a receiver releases them, each once and in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShapeFacts {
    /// Number of the first packet.
    pub first_sequence: u16,
    /// Number of the last packet in order.
    pub last_sequence: u16,
    /// Timestamp of the first packet, as it is on the wire.
    pub first_timestamp: u32,
    /// Of the last one.
    pub last_timestamp: u32,
    /// Packets with the marker bit.
    pub markers: u64,
    /// Different timestamps.
    pub distinct_timestamps: u64,
    /// Numbers in between that did not come, the first ones.
    pub missing: Vec<u16>,
}

impl ShapeFacts {
    fn put(&self, put: &mut impl FnMut(&str, Value)) {
        put("first_sequence", json!(self.first_sequence));
        put("last_sequence", json!(self.last_sequence));
        put("first_timestamp", json!(self.first_timestamp));
        put("last_timestamp", json!(self.last_timestamp));
        put("markers", json!(self.markers));
        put("distinct_timestamps", json!(self.distinct_timestamps));
        put("missing_sequences", json!(self.missing));
    }
}

/// An RTP packet, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtpPacketFacts {
    /// Its number in the capture, from 1 on.
    pub packet: u64,
    /// Since the capture's first packet, µs.
    pub at_us: u64,
    /// Its header.
    pub header: Header,
    /// Contributing sources.
    pub contributors: Vec<u32>,
    /// Header extension: profile and content.
    pub extension: Option<(u16, Vec<u8>)>,
    /// What its payload begins with.
    pub begins: Vec<u8>,
}

impl RtpPacketFacts {
    pub(crate) fn new(packet: u64, at_us: u64, header: &Header, datagram: &[u8]) -> Self {
        let payload = usize::from(header.payload_offset)..usize::from(header.payload_end);
        let payload = datagram.get(payload).unwrap_or_default();
        let extension = header_extension(datagram);
        RtpPacketFacts {
            packet,
            at_us,
            header: *header,
            contributors: contributors(datagram).collect(),
            extension: extension.map(|(profile, bytes)| (profile, bytes.to_vec())),
            begins: payload.get(..HEAD).unwrap_or(payload).to_vec(),
        }
    }

    /// Bytes that it holds beside its fields.
    pub(crate) fn bytes(&self) -> usize {
        let extension = self.extension.as_ref().map_or(0, |(_, bytes)| bytes.len());
        extension + 4 * self.contributors.len() + self.begins.len()
    }

    fn json(&self) -> Value {
        let header = &self.header;
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("packet", json!(self.packet));
        put("at_s", json!(seconds(self.at_us)));
        put("sequence", json!(header.sequence));
        put("timestamp", json!(header.timestamp));
        put("marker", json!(header.marker));
        put("payload_type", json!(header.payload_type));
        put("payload_bytes", json!(header.payload_len()));
        put("payload_begins", json!(hex(&self.begins)));
        if !self.contributors.is_empty() {
            put("csrc", json!(self.contributors));
        }
        if let Some((profile, bytes)) = &self.extension {
            let extension = json!({"profile": profile, "content": hex(bytes)});
            put("extension", extension);
        }
        Value::Object(map)
    }
}

/// An RTCP packet; those of a compound are apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtcpFacts {
    /// The datagram's number in the capture, from 1 on.
    pub packet: u64,
    /// Since the capture's first packet, µs.
    pub at_us: u64,
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// The header's five-bit count, or feedback message type.
    pub count: u8,
    /// Packet type.
    pub packet_type: u8,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// What the standards call an RTCP packet.
pub(crate) fn rtcp_name(packet: &rtcp::Packet<'_>) -> &'static str {
    match packet.packet_type {
        200 => "SR",
        201 => "RR",
        202 => "SDES",
        203 => "BYE",
        204 => "APP",
        205 if packet.nacks().next().is_some() => "NACK",
        206 if packet.is_picture_loss() => "PLI",
        206 if packet.full_intra_requests().next().is_some() => "FIR",
        207 => "XR",
        _ => "other",
    }
}

/// SDES items (RFC 3550, 6.5).
fn item_name(kind: u8) -> Value {
    let names = [
        "CNAME", "NAME", "EMAIL", "PHONE", "LOC", "TOOL", "NOTE", "PRIV",
    ];
    let name = usize::from(kind).checked_sub(1).and_then(|n| names.get(n));
    name.map_or(json!(kind), |name| json!(name))
}

fn report_block(block: ReportBlock) -> Value {
    json!({
        "ssrc": block.ssrc,
        "fraction_lost": block.fraction_lost,
        "cumulative_lost": block.cumulative_lost,
        "highest_sequence": block.extended_highest_sequence,
        "jitter": block.jitter,
        "last_sr": block.last_sr,
        "delay_since_last_sr": block.delay_since_last_sr,
    })
}

impl RtcpFacts {
    pub(super) fn json(&self) -> Value {
        let packet = rtcp::Packet {
            count: self.count,
            packet_type: self.packet_type,
            body: &self.body,
        };
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("packet", json!(self.packet));
        put("at_s", json!(seconds(self.at_us)));
        put("from", json!(self.from.to_string()));
        put("to", json!(self.to.to_string()));
        put("type", json!(rtcp_name(&packet)));
        if let Some(ssrc) = packet.ssrc() {
            put("ssrc", json!(ssrc));
        }
        if let Some(info) = packet.sender_info() {
            let ntp = format!("{:08x}.{:08x}", info.ntp >> 32, info.ntp & 0xFFFF_FFFF);
            put("ntp", json!(ntp));
            put("rtp_timestamp", json!(info.rtp_timestamp));
            put("packets", json!(info.packets));
            put("octets", json!(info.octets));
        }
        match self.packet_type {
            rtcp::SENDER_REPORT | rtcp::RECEIVER_REPORT => {
                put(
                    "reports",
                    packet.report_blocks().map(report_block).collect(),
                );
            }
            rtcp::SOURCE_DESCRIPTION => {
                let item = |(kind, text): (u8, &[u8])| json!({"type": item_name(kind), "text": printable(text, MAX_TEXT)});
                let chunk = |chunk: rtcp::Chunk<'_>| {
                    let items: Vec<Value> = chunk.items().map(item).collect();
                    json!({"ssrc": chunk.ssrc, "items": items})
                };
                put("chunks", packet.chunks().map(chunk).collect());
            }
            rtcp::BYE => {
                put("ssrcs", packet.leaving().collect());
                let reason = packet.leaving_reason();
                put(
                    "reason",
                    json!(reason.map(|text| printable(text, MAX_TEXT))),
                );
            }
            rtcp::TRANSPORT_FEEDBACK | rtcp::PAYLOAD_FEEDBACK => {
                self.put_feedback(&packet, &mut put);
            }
            _ => put("bytes", json!(self.body.len())),
        }
        Value::Object(map)
    }

    fn put_feedback(&self, packet: &rtcp::Packet<'_>, put: &mut impl FnMut(&str, Value)) {
        put("media_ssrc", json!(packet.feedback_source()));
        put("format", json!(self.count));
        let nacks = packet
            .nacks()
            .map(|pair| json!({"sequence": pair.packet_id, "following": pair.following}));
        let nacks: Vec<Value> = nacks.collect();
        if !nacks.is_empty() {
            put("lost", json!(nacks));
        }
        let requests = packet.full_intra_requests();
        let requests: Vec<Value> = requests
            .map(|(ssrc, number)| json!({"ssrc": ssrc, "number": number}))
            .collect();
        if !requests.is_empty() {
            put("requests", json!(requests));
        }
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
    /// Its packets.
    pub shape: ShapeFacts,
    /// NAL units or OBUs by type.
    pub unit_types: BTreeMap<u8, u64>,
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
    /// See [`RtpFacts::bare_sha256`].
    pub bare_sha256: Option<String>,
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
    /// Its packets.
    pub shape: ShapeFacts,
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
    /// H.264, HEVC and AV1, if packets are listed: the same without what senders repeat and leave
    /// out at will, parameter sets and temporal delimiters.
    pub bare_sha256: Option<String>,
    /// Its packets as they came, if that was asked for.
    pub packets_listed: Option<Listed<RtpPacketFacts>>,
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
        self.shape.put(&mut put);
        put("jitter_ms", json!(f64::from(self.jitter_us) / 1000.0));
        put("rtcp", json!(self.rtcp));
        put("access_units", json!(self.access_units));
        put("payload_bytes", json!(self.payload_bytes));
        put("elementary_bytes", json!(self.elementary_bytes));
        put("payload_sha256", json!(self.payload_sha256));
        if let Some(hash) = &self.bare_sha256 {
            put("bare_sha256", json!(hash));
        }
        if let Some(merged) = &self.merged {
            put("merged", merged.json());
        }
        if let Some(list) = &self.packets_listed {
            list.put("packet_list", RtpPacketFacts::json, &mut put);
        }
        Value::Object(map)
    }
}

impl Merged {
    fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("distinct", json!(self.distinct));
        put("lost", json!(self.lost));
        self.shape.put(&mut put);
        put("unit_types", json!(self.unit_types));
        put("access_units", json!(self.access_units));
        put("damaged", json!(self.damaged));
        put("payload_bytes", json!(self.payload_bytes));
        put("elementary_bytes", json!(self.elementary_bytes));
        put("payload_sha256", json!(self.payload_sha256));
        if let Some(hash) = &self.bare_sha256 {
            put("bare_sha256", json!(hash));
        }
        Value::Object(map)
    }
}
