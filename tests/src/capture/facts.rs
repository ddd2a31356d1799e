//! Facts of a capture, in the shape of the JSON files beside the captures: counts of packets,
//! handshakes, flows of data, acknowledgements, loss reports.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::pcap::{Capture, Frame};
use super::wire::{self, Data, Handshake, Kind, Packet, handshake_type};
use super::{hex, sha256};

/// Distance from `a` to `b` in 31-bit numbers.
pub fn distance(a: u32, b: u32) -> i32 {
    ((b.wrapping_sub(a) << 1) as i32) >> 1
}

/// What the facts call a packet.
pub fn name(packet: &Packet) -> String {
    match &packet.kind {
        Kind::Data(data) if data.message == 0 => "DATA-FEC".into(),
        Kind::Data(data) if data.retransmitted => "DATA-REXMIT".into(),
        Kind::Data(_) => "DATA".into(),
        Kind::Handshake(_) => "HANDSHAKE".into(),
        Kind::Keepalive => "KEEPALIVE".into(),
        Kind::Ack(words) => match words.len() {
            1 => "ACK-light".into(),
            4 => "ACK-small".into(),
            _ => "ACK-full".into(),
        },
        Kind::Nak(_) => "NAK".into(),
        Kind::Shutdown => "SHUTDOWN".into(),
        Kind::AckAck => "ACKACK".into(),
        Kind::DropRequest(..) => "DROPREQ".into(),
        Kind::Extension(subtype, _) => format!("EXT-{}", extension_name(*subtype)),
        Kind::Other(kind) => format!("CONTROL-{kind}"),
    }
}

fn extension_name(subtype: u16) -> &'static str {
    match subtype {
        1 => "HSREQ",
        2 => "HSRSP",
        3 => "KMREQ",
        4 => "KMRSP",
        _ => "UNKNOWN",
    }
}

fn seconds(frame: &Frame) -> Value {
    json!(frame.at_us as f64 / 1e6)
}

fn path(frame: &Frame) -> String {
    format!("{}>{}", frame.from, frame.to)
}

fn handshake(frame: &Frame, packet: &Packet, handshake: &Handshake) -> Value {
    let kind = match handshake.kind {
        handshake_type::INDUCTION => json!("INDUCTION"),
        handshake_type::CONCLUSION => json!("CONCLUSION"),
        handshake_type::AGREEMENT => json!("AGREEMENT"),
        handshake_type::WAVEAHAND => json!("WAVEAHAND"),
        other => json!(other),
    };
    json!({
        "info": packet.info,
        "ts": packet.timestamp,
        "dst": format!("{:08x}", packet.destination),
        "ciflen": handshake.len,
        "ver": handshake.version,
        "enc": handshake.encryption,
        "ext": format!("0x{:04x}", handshake.extension),
        "isn": handshake.initial,
        "mss": handshake.mss,
        "window": handshake.window,
        "rt": kind,
        "sid": format!("{:08x}", handshake.socket_id),
        "cookie": format!("{:08x}", handshake.cookie),
        "peerip": hex(&handshake.peer_ip),
        "exts": handshake.describe_blocks(),
        "t": seconds(frame),
        "path": path(frame),
        "frame": frame.number,
    })
}

#[derive(Default)]
struct Flow {
    packets: Vec<(u32, Data)>,
    filter_packets: Vec<Data>,
}

impl Flow {
    fn facts(&self) -> Option<Value> {
        let lowest = |a: &u32, b: &u32| distance(*b, *a).cmp(&0);
        let sequences = || self.packets.iter().map(|(_, d)| d.sequence);
        let first = sequences().min_by(lowest)?;
        let distinct: BTreeMap<i32, &(u32, Data)> = self
            .packets
            .iter()
            .rev()
            .map(|p| (distance(first, p.1.sequence), p))
            .collect();
        let (last, (last_ts, highest)) = distinct.last_key_value()?;
        // The message numbers are those of the packets first and last on the wire.
        let ((_, first_data), (_, last_data)) = (self.packets.first()?, self.packets.last()?);
        let data = || self.packets.iter().map(|(_, d)| d);
        let payload: Vec<u8> = distinct
            .values()
            .flat_map(|(_, d)| d.payload.iter().copied())
            .collect();
        let missing: Vec<i32> = (0..*last).filter(|i| !distinct.contains_key(i)).collect();
        let mut facts = json!({
            "data_packets": self.packets.len(),
            "retransmitted": self.packets.iter().filter(|(_, d)| d.retransmitted).count(),
            "fec_packets": self.filter_packets.len(),
            "kk": tally(data().chain(&self.filter_packets).map(|d| d.key)),
            "pp": tally(data().map(|d| d.position)),
            "first_seq": first,
            "last_seq": highest.sequence,
            "distinct": distinct.len(),
            "first_msgno": first_data.message,
            "last_msgno": last_data.message,
            "first_ts": distinct.get(&0)?.0,
            "last_ts": last_ts,
            "payload_bytes": payload.len(),
            "payload_sha256": sha256(&payload),
        });
        if !missing.is_empty() {
            facts["missing_seq_offsets_from_first"] = json!(missing);
        }
        Some(facts)
    }
}

fn tally(values: impl Iterator<Item = u8>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value.to_string()).or_default() += 1;
    }
    counts
}

/// Everything that can be said of a capture without a passphrase. Payloads are taken as they
/// are on the wire.
pub fn of(capture: &Capture) -> Value {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut flows: BTreeMap<String, Flow> = BTreeMap::new();
    let mut acks: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let [mut handshakes, mut naks, mut shutdowns, mut extensions] = [const { Vec::new() }; 4];
    for frame in &capture.frames {
        let Some(packet) = wire::parse(&frame.datagram) else {
            continue;
        };
        *counts.entry(name(&packet)).or_default() += 1;
        match &packet.kind {
            Kind::Data(data) => {
                let flow = flows.entry(path(frame)).or_default();
                if data.message == 0 {
                    flow.filter_packets.push(data.clone());
                } else {
                    flow.packets.push((packet.timestamp, data.clone()));
                }
            }
            Kind::Handshake(h) => handshakes.push(handshake(frame, &packet, h)),
            Kind::Ack(words) => acks
                .entry(path(frame))
                .or_default()
                .push(json!({"t": seconds(frame), "no": packet.info, "fields": words})),
            Kind::Nak(words) => {
                let word = |w: &u32| match w >> 31 {
                    0 => json!(w),
                    _ => json!(format!("{w:08x}")),
                };
                let words: Vec<Value> = words.iter().map(word).collect();
                naks.push(json!({"t": seconds(frame), "flow": path(frame), "words": words}));
            }
            Kind::Shutdown => shutdowns.push(json!({"t": seconds(frame), "flow": path(frame)})),
            Kind::Extension(subtype, content) => extensions.push(json!({
                "t": seconds(frame),
                "flow": path(frame),
                "sub": extension_name(*subtype),
                "cif": hex(content),
            })),
            _ => {}
        }
    }
    let flows: Map<String, Value> = flows
        .into_iter()
        .filter_map(|(path, flow)| Some((path, flow.facts()?)))
        .collect();
    let acks: Map<String, Value> = acks
        .into_iter()
        .map(|(path, all)| {
            let is_full = |ack: &&Value| ack["fields"].as_array().is_some_and(|f| f.len() == 7);
            let mut full = all.iter().filter(is_full);
            let first = full.next();
            let last = full.next_back().or(first);
            let facts = json!({"first": first, "last": last, "n": all.len()});
            (path, facts)
        })
        .collect();
    json!({
        "packets": capture.packets,
        "duration_s": capture.duration_us as f64 / 1e6,
        "counts": counts,
        "handshakes": handshakes,
        "flows": flows,
        "acks": acks,
        "nak_count": naks.len(),
        "naks": naks,
        "shutdowns": shutdowns,
        "ext_control_messages": extensions,
    })
}
