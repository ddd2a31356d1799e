//! What was said in a capture of SRT, in the words of the facts: handshakes with their blocks,
//! acknowledgements, loss reports, keys.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::check::Check;

/// One of the things that a connection said, and the connection.
type Said<'a> = (&'a Value, &'a Value);

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("a number: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

/// The lists of that name of all connections, in the order of their packets.
fn all<'a>(ours: &'a Value, of: impl Fn(&'a Value) -> Vec<&'a Value>) -> Vec<Said<'a>> {
    let connections = list(&ours["srt"]);
    let each = |connection| {
        of(connection)
            .into_iter()
            .map(move |said| (said, connection))
    };
    let mut all: Vec<Said<'_>> = connections.flat_map(each).collect();
    all.sort_by_key(|(said, _)| number(&said["packet"]));
    all
}

/// From whom to whom.
fn path((said, connection): Said<'_>) -> String {
    let (caller, listener) = (text(&connection["caller"]), text(&connection["listener"]));
    match text(&said["from"]) {
        "caller" => format!("{caller}>{listener}"),
        _ => format!("{listener}>{caller}"),
    }
}

fn hex32(value: &Value) -> String {
    format!("{:08x}", number(value))
}

/// An address as the field has it: groups of four bytes reversed.
fn peer_ip(shown: &str) -> String {
    let mut field = [0; 16];
    match shown.parse().expect("an address") {
        IpAddr::V4(v4) => field[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => field = v6.octets(),
    }
    field.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    field.iter().map(|b| format!("{b:02x}")).collect()
}

/// "1.5.1" as a number.
fn version(shown: &Value) -> u32 {
    text(shown).split('.').fold(0, |all, part| {
        all << 8 | part.parse::<u32>().expect("a number")
    })
}

/// The KK field.
fn kk(keys: &str) -> u8 {
    match keys {
        "even" => 1,
        "odd" => 2,
        "both" => 3,
        other => panic!("{other}"),
    }
}

/// The bytes of a KM message, or of the status in its place (spec section 16.2 and 16.5).
fn key_message(block: &Value) -> String {
    if block["status"].is_string() {
        let states = [
            "unsecured",
            "securing",
            "secured",
            "nosecret",
            "badsecret",
            "badcryptomode",
        ];
        let state = states.iter().position(|s| block["status"] == *s);
        return format!("{:02x}000000", state.expect("a state"));
    }
    let (cipher, auth) = match text(&block["cipher"]) {
        "aes-ctr" => (2, 0),
        _ => (4, 1),
    };
    let (kk, words) = (kk(text(&block["keys"])), number(&block["key_bytes"]) / 4);
    let (salt, wrapped) = (text(&block["salt"]), text(&block["wrapped"]));
    format!("122029{kk:02x}00000000{cipher:02x}{auth:02x}0200000004{words:02x}{salt}{wrapped}")
}

/// The words of HSREQ and HSRSP.
fn greeting(block: &Value) -> [u32; 3] {
    let latency = number(&block["receive_ms"]) << 16 | number(&block["send_ms"]);
    [
        version(&block["version"]),
        number(&block["flags"]) as u32,
        latency as u32,
    ]
}

fn block(block: &Value) -> String {
    let name = text(&block["type"]);
    match name {
        "HSREQ" | "HSRSP" => {
            let [version, flags, _] = greeting(block);
            let (receive, send) = (&block["receive_ms"], &block["send_ms"]);
            format!("{name}(ver=0x{version:06x},flags=0x{flags:02x},rcv={receive},snd={send})")
        }
        "KMREQ" | "KMRSP" => format!("{name}({})", key_message(block)),
        "GROUP" => format!(
            "GROUP(id={},type={},flags={},weight={})",
            hex32(&block["id"]),
            block["kind"],
            block["flags"],
            block["weight"]
        ),
        _ => format!("{name}(\"{}\")", text(&block["text"])),
    }
}

/// A handshake as the facts have it.
fn handshake(said: Said<'_>) -> Value {
    let h = said.0;
    let kind = match text(&h["type"]) {
        "rejection" => h["type_code"].clone(),
        name => json!(name),
    };
    let blocks: Vec<String> = list(&h["blocks"]).map(block).collect();
    json!({
        "info": h["information"],
        "ts": h["timestamp_us"],
        "dst": hex32(&h["destination"]),
        "ciflen": h["bytes"],
        "ver": h["version"],
        "enc": h["encryption"],
        "ext": format!("0x{:04x}", number(&h["extension"])),
        "isn": h["initial_sequence"],
        "mss": h["mss"],
        "window": h["flow_window"],
        "rt": kind,
        "sid": hex32(&h["socket_id"]),
        "cookie": hex32(&h["cookie"]),
        "peerip": peer_ip(text(&h["peer_ip"])),
        "exts": blocks,
        "t": h["at_s"],
        "path": path(said),
        "frame": h["packet"],
    })
}

/// A handshake as tshark decodes it.
fn by_tshark(h: &Value) -> Value {
    let mut seen = json!({
        "frame.number": h["packet"].to_string(),
        "srt.hs.version": h["version"].to_string(),
        "srt.hs.isn": h["initial_sequence"].to_string(),
        "srt.hs.mtu": h["mss"].to_string(),
        "srt.hs.flow_window": h["flow_window"].to_string(),
        "srt.hs.reqtype": (number(&h["type_code"]) as u32).cast_signed().to_string(),
        "srt.hs.id": format!("0x{}", hex32(&h["socket_id"])),
        "srt.hs.cookie": format!("0x{}", hex32(&h["cookie"])),
        "srt.hs.peerip": h["peer_ip"],
    });
    if h["version"] != 4 {
        seen["srt.hs.encfield"] = json!(format!("0x{:04x}", number(&h["encryption"])));
        seen["srt.hs.extfield"] = json!(format!("0x{:04x}", number(&h["extension"])));
    }
    for block in list(&h["blocks"]) {
        match text(&block["type"]) {
            "HSREQ" | "HSRSP" => put_greeting(&mut seen, block),
            "SID" => seen["srt.hs.sid"] = block["text"].clone(),
            // It marks that there are blocks which it does not know.
            "FILTER" | "GROUP" => seen["srt.hs.ext.type"] = json!("1"),
            _ => {}
        }
    }
    seen
}

fn put_greeting(seen: &mut Value, block: &Value) {
    // Two fields of one name: the handshake's version, and SRT's.
    let version = format!("0x{:08x}", version(&block["version"]));
    let both = match seen["srt.hs.version"].as_str() {
        Some(first) => format!("{first},{version}"),
        None => version,
    };
    seen["srt.hs.version"] = json!(both);
    let flags = number(&block["flags"]);
    seen["srt.hs.srtflags"] = json!(format!("0x{flags:08x}"));
    seen["srt.hs.agent_latency"] = json!(block["send_ms"].to_string());
    seen["srt.hs.peer_latency"] = json!(block["receive_ms"].to_string());
}

fn check_handshakes(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let found = all(ours, |c| list(&c["handshakes"]).collect());
    let theirs: Vec<&Value> = list(&facts["handshakes"]).collect();
    check.fact(name, "handshakes", found.len(), theirs.len());
    for (n, (found, theirs)) in found.iter().zip(theirs).enumerate() {
        let found = handshake(*found);
        for (key, theirs) in theirs.as_object().expect("a handshake") {
            let what = format!("handshake {n} {key}");
            check.fact(name, &what, found[key].clone(), theirs.clone());
        }
    }
    let rejected = found.iter().find(|(h, _)| h["type"] == "rejection");
    let code = rejected.map_or(Value::Null, |(h, _)| h["type_code"].clone());
    let theirs = facts["rejection_wire_reqtype"].clone();
    check.fact(name, "rejection on the wire", code, theirs);
}

/// The second decoder's view of the same handshakes.
fn check_tshark(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let found = all(ours, |c| {
        let both = list(&c["handshakes"]).chain(list(&c["extensions"]));
        both.collect()
    });
    let mut agrees = true;
    for seen in list(&facts["tshark_handshake_fields"]) {
        let frame: u64 = text(&seen["frame.number"]).parse().expect("a number");
        let ours = found.iter().find(|(h, _)| h["packet"] == frame);
        let ours = match ours {
            Some((h, _)) if h["type_code"].is_u64() => by_tshark(h),
            Some((extension, _)) => {
                let mut seen = json!({"frame.number": frame.to_string()});
                put_greeting(&mut seen, extension);
                seen
            }
            // What an ICMP message quotes: the datagram before it.
            None => {
                let before = found
                    .iter()
                    .rev()
                    .find(|(h, _)| number(&h["packet"]) < frame);
                let (before, _) = before.expect("a handshake before");
                let mut quoted = by_tshark(before);
                quoted["frame.number"] = json!(frame.to_string());
                quoted
            }
        };
        for (key, theirs) in seen.as_object().expect("fields") {
            let what = format!("tshark {frame} {key}");
            check.fact(name, &what, ours[key].clone(), theirs.clone());
            agrees &= &ours[key] == theirs;
        }
    }
    check.fact(
        name,
        "tshark agrees",
        agrees,
        facts["tshark_agrees"].clone(),
    );
}

/// An ACK as the facts have it.
fn ack(ack: &Value) -> Value {
    let words = [
        "sequence",
        "rtt_us",
        "rtt_var_us",
        "available_packets",
        "receive_rate_pps",
        "link_capacity_pps",
        "receive_rate_bytes",
    ];
    let fields: Vec<&Value> = words
        .iter()
        .map(|w| &ack[*w])
        .filter(|w| !w.is_null())
        .collect();
    json!({"t": ack["at_s"], "no": ack["number"], "fields": fields})
}

/// The words of a loss list: a stretch is its first number with bit 31 set, and its last.
fn loss_words(nak: &Value) -> Vec<Value> {
    let mut words = Vec::new();
    for range in list(&nak["ranges"]) {
        let (first, last) = (number(&range[0]), number(&range[1]));
        if first == last {
            words.push(json!(first));
        } else {
            words.extend([json!(format!("{:08x}", first | 1 << 31)), json!(last)]);
        }
    }
    words
}

const DIRECTIONS: [&str; 2] = ["caller_to_listener", "listener_to_caller"];

fn check_answers(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let mut acks = 0;
    for connection in list(&ours["srt"]) {
        for direction in DIRECTIONS.map(|d| &connection[d]) {
            let (first, last) = (&direction["first_ack"], &direction["last_ack"]);
            if direction["acks"] == 0 {
                continue;
            }
            acks += 1;
            let listed: Vec<&Value> = list(&direction["ack_list"]).collect();
            let path = path((listed[0], connection));
            let theirs = &facts["acks"][&path];
            let count = theirs["n"].clone();
            let what = format!("acks {path}");
            check.fact(name, &what, direction["acks"].clone(), count.clone());
            check.fact(name, &format!("{what} listed"), listed.len(), count);
            for (end, ours) in [("first", first), ("last", last)] {
                let what = format!("{what} {end}");
                check.fact(name, &what, ack(ours), theirs[end].clone());
                assert!(listed.contains(&ours), "{name} {what}: it is listed");
            }
        }
    }
    let theirs = facts["acks"].as_object().map_or(0, serde_json::Map::len);
    check.fact(name, "directions with ACKs", acks, theirs);
    let naks = all(ours, |c| {
        let lists = DIRECTIONS.iter().flat_map(|d| list(&c[*d]["nak_list"]));
        lists.collect()
    });
    let shown = |said: &Said<'_>| json!({"t": said.0["at_s"], "flow": path(*said), "words": loss_words(said.0)});
    let shown: Vec<Value> = naks.iter().map(shown).collect();
    let theirs = facts["naks"].as_array().cloned().unwrap_or_default();
    check.fact(name, "naks", shown, theirs);
    let count = facts["nak_count"].as_u64().unwrap_or(0);
    check.fact(name, "nak_count", naks.len(), count);
}

/// Keys in handshakes and in packets of their own, each once, and what came in packets of their
/// own.
fn check_keys(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let extensions = all(ours, |c| list(&c["extensions"]).collect());
    let shown = |said: &Said<'_>| {
        let kind = text(&said.0["type"]);
        let content = match kind {
            "HSREQ" | "HSRSP" => greeting(said.0).map(|w| format!("{w:08x}")).concat(),
            _ => key_message(said.0),
        };
        json!({"t": said.0["at_s"], "flow": path(*said), "sub": kind, "cif": content})
    };
    let shown: Vec<Value> = extensions.iter().map(shown).collect();
    let theirs = facts["ext_control_messages"].as_array().cloned();
    check.fact(name, "extensions", shown, theirs.unwrap_or_default());
    let handshakes = all(ours, |c| list(&c["handshakes"]).collect());
    let mut all: Vec<(&Value, &Value)> = extensions
        .iter()
        .map(|(said, _)| (&said["packet"], *said))
        .collect();
    for (said, _) in handshakes {
        all.extend(list(&said["blocks"]).map(|block| (&said["packet"], block)));
    }
    all.sort_by_key(|(packet, _)| number(packet));
    let mut keys: Vec<Value> = Vec::new();
    for (_, block) in all.iter().filter(|(_, b)| b["wrapped"].is_string()) {
        let cipher = text(&block["cipher"]).to_ascii_uppercase();
        let key = json!({
            "kk": kk(text(&block["keys"])),
            "cipher": cipher,
            "auth": u8::from(cipher == "AES-GCM"),
            "salt": block["salt"],
            "klen": block["key_bytes"],
            "wrapped": block["wrapped"],
        });
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let theirs = facts["km_messages"].as_array().cloned().unwrap_or_default();
    check.fact(name, "keys", keys, theirs);
}

/// Packets by type, of all connections.
fn check_counts(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for connection in list(&ours["srt"]) {
        for from in ["packets_from_caller", "packets_from_listener"] {
            for (kind, count) in connection[from].as_object().expect("counts") {
                *counts.entry(kind).or_default() += number(count);
            }
        }
    }
    check.fact(name, "counts", json!(counts), facts["counts"].clone());
    let shutdowns = all(ours, |c| list(&c["shutdowns"]).collect());
    let shown = |said: &Said<'_>| json!({"t": said.0["at_s"], "flow": path(*said)});
    let shown: Vec<Value> = shutdowns.iter().map(shown).collect();
    let theirs = facts["shutdowns"].as_array().cloned().unwrap_or_default();
    check.fact(name, "shutdowns", shown, theirs);
}

/// Everything that was said besides data.
pub(crate) fn check(check: &Check, name: &str, facts: &Value, ours: &Value) {
    check_handshakes(check, name, facts, ours);
    check_tshark(check, name, facts, ours);
    check_answers(check, name, facts, ours);
    check_keys(check, name, facts, ours);
    check_counts(check, name, facts, ours);
}
