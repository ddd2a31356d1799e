//! Captures of RTP.

use mirror_inspect::Options;
use mirror_media::{FormatParameters, PayloadFormat, PayloadHint};
use serde_json::{Map, Value, json};

use crate::check::{Case, Check, all_lists, check_capture, compare_all, expected, files, sha256};

const FOLDER: &str = "rtp";

/// What the signalling of a capture said, where the bits cannot tell.
fn signalled(name: &str) -> Options {
    let named = |number: u8, format: PayloadFormat, rate: u32, fmtp: &str| {
        let parameters = FormatParameters::parse(format, fmtp).expect("parameters");
        (number, PayloadHint { format, parameters }, rate)
    };
    let aac = "mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1188";
    let payload_types = match &name[..5] {
        "rtp04" | "rtp31" => vec![named(97, PayloadFormat::Mpeg4Generic, 48_000, aac)],
        "rtp69" => vec![named(97, PayloadFormat::Mpeg4Generic, 48_000, aac)],
        "rtp05" | "rtp34" => vec![named(97, PayloadFormat::Opus, 48_000, "")],
        "rtp06" => vec![named(97, PayloadFormat::L16, 48_000, "")],
        "rtp33" => vec![named(97, PayloadFormat::L24, 48_000, "")],
        "rtp30" => vec![named(97, PayloadFormat::Ac3, 48_000, "")],
        "rtp32" => vec![named(97, PayloadFormat::Mp4aLatm, 48_000, "")],
        "rtp63" => vec![named(
            96,
            PayloadFormat::H264,
            90_000,
            "packetization-mode=2;sprop-interleaving-depth=4",
        )],
        "rtp64" => vec![named(
            98,
            PayloadFormat::H265,
            90_000,
            "sprop-max-don-diff=2",
        )],
        "rtp65" => vec![named(98, PayloadFormat::H265, 90_000, "")],
        "rtp67" => vec![named(98, PayloadFormat::Smpte336m, 90_000, "")],
        _ => Vec::new(),
    };
    Options {
        payload_types,
        ..all_lists()
    }
}

fn source<'a>(ours: &'a Value, stream: &Value) -> &'a Value {
    let all = ours["rtp"].as_array().expect("sources");
    let is = |s: &&Value| s["port"] == stream["dst_port"] && s["ssrc"] == stream["ssrc"];
    all.iter().find(is).unwrap_or(&Value::Null)
}

/// The elementary stream of a source.
fn track<'a>(ours: &'a Value, stream: &Value) -> &'a Value {
    let all = ours["tracks"].as_array().expect("tracks");
    let is = |t: &&Value| t["port"] == stream["dst_port"] && t["ssrc"] == stream["ssrc"];
    all.iter().find(is).unwrap_or(&Value::Null)
}

/// RTCP packets of all sources and of none.
fn rtcp(ours: &Value) -> Value {
    let sources = ours["rtp"].as_array().expect("sources").iter();
    let mut sum = Map::new();
    for counts in sources.map(|s| &s["rtcp"]).chain([&ours["rtcp"]]) {
        for (name, count) in counts.as_object().expect("counts") {
            let before = sum.get(name).and_then(Value::as_u64).unwrap_or(0);
            sum.insert(
                name.clone(),
                json!(before + count.as_u64().expect("a count")),
            );
        }
    }
    Value::Object(sum)
}

/// The hash and length of what a stream carries, where the facts have them.
fn payload(stream: &Value) -> Option<(Value, Value)> {
    for (hash, bytes) in [
        ("ts_sha256", "ts_bytes"),
        ("annexb_4byte_startcode_sha256", "annexb_bytes"),
        ("raw_aac_sha256_in_ts_order", ""),
        ("pcm_be_sha256", "payload_bytes"),
        ("payload_sha256", "payload_bytes"),
    ] {
        if stream[hash].is_string() {
            return Some((stream[hash].clone(), stream[bytes].clone()));
        }
    }
    None
}

/// Packets that were given back: all retransmissions fit, and of two paths each gives what the
/// other lost, where not both lost it.
fn repaired(facts: &Value, name: &str) -> Value {
    let streams = facts["streams"].as_array().expect("streams");
    let missing = |s: &Value| s["missing_seq"].as_array().map_or(0, Vec::len);
    let rtx = match name.contains("rtx") && missing(&streams[0]) > 0 {
        true => streams[1]["distinct"].clone(),
        false => json!(0),
    };
    let second = match facts["merge_expected"]["unrecoverable_seq"].as_array() {
        Some(both) => streams.iter().map(missing).sum::<usize>() - 2 * both.len(),
        None => 0,
    };
    json!({"rtx": rtx, "fec": 0, "2022-7": second})
}

/// Packets, numbers and losses of one source.
fn check_packets(check: &Check, name: &str, n: usize, stream: &Value, found: &Value) {
    for (our, their) in [
        ("port", "dst_port"),
        ("ssrc", "ssrc"),
        ("payload_type", "pt"),
        ("packets", "packets"),
        ("distinct", "distinct"),
        ("first_sequence", "first_seq"),
        ("last_sequence", "last_seq"),
        ("first_timestamp", "first_ts"),
        ("last_timestamp", "last_ts"),
        ("markers", "markers"),
        ("distinct_timestamps", "distinct_timestamps"),
        ("payload_bytes", "payload_bytes"),
    ] {
        let fact = what(n, our);
        check.fact(name, &fact, found[our].clone(), stream[their].clone());
    }
    let duplicates = stream["duplicates"].as_u64().unwrap_or(0);
    let fact = what(n, "duplicates");
    check.fact(name, &fact, found["duplicates"].clone(), duplicates);
    let missing = stream["missing_seq"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    check.fact(name, &what(n, "lost"), found["lost"].clone(), missing.len());
    let numbers = found["missing_sequences"].clone();
    check.fact(name, &what(n, "missing"), numbers, missing);
}

/// The packets one by one, where the facts have them so.
fn check_list(check: &Check, name: &str, n: usize, stream: &Value, found: &Value) {
    let list = found["packet_list"].as_array().expect("packets");
    check.fact(
        name,
        &what(n, "listed"),
        list.len(),
        stream["packets"].clone(),
    );
    let column = |key: &str| list.iter().map(|p| p[key].clone()).collect::<Vec<_>>();
    if let Some(sizes) = stream["packet_sizes"].as_array() {
        let ours = column("payload_bytes");
        check.fact(name, &what(n, "packet_sizes"), ours, sizes.clone());
    }
    for (key, digits) in [("fec_headers", 32), ("payload_headers", 8)] {
        if let Some(heads) = stream[key].as_array() {
            let head = |begins: &Value| json!(begins.as_str().expect("hex")[..digits]);
            // The facts have the first ones.
            let ours = column("payload_begins");
            let ours: Vec<Value> = ours.iter().map(head).take(heads.len()).collect();
            check.fact(name, &what(n, key), ours, heads.clone());
        }
    }
    for theirs in stream["parsed"].as_array().into_iter().flatten() {
        let packet = list.iter().find(|p| p["sequence"] == theirs["seq"]);
        let what = what(n, &format!("packet {}", theirs["seq"]));
        let Some(packet) = packet else {
            check.fact(name, &what, Value::Null, theirs.clone());
            continue;
        };
        let extension = &packet["extension"];
        let extension = extension["content"].as_str().map(|content| {
            let profile = extension["profile"].as_u64().expect("a number");
            json!([format!("0x{profile:04x}"), content])
        });
        let ours = json!({
            "seq": packet["sequence"],
            "ts": packet["timestamp"],
            "m": u8::from(packet["marker"] == true),
            "csrc": packet["csrc"].as_array().cloned().unwrap_or_default(),
            "ext": extension,
            "payload_len": packet["payload_bytes"],
        });
        check.fact(name, &what, ours, theirs.clone());
    }
}

/// Bytes of an OBU without its size (leb128: seven bits a byte).
fn without_size(obu: &Value) -> u64 {
    let bytes = obu.as_u64().expect("a size");
    let fits = |lead: &u64| (bytes - 1 - lead) >> (7 * lead) == 0;
    bytes - (1..).find(fits).expect("a length")
}

/// The units one by one: time, types of their NAL units or OBUs, bytes.
fn check_units(check: &Check, name: &str, n: usize, stream: &Value, track: &Value) {
    let units = track["units"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let all = |of: &dyn Fn(&Value) -> Value| units.iter().map(of).collect::<Vec<_>>();
    if let Some(theirs) = stream["au"].as_array() {
        // Without start codes.
        let number = |u: &Value, key: &str| u[key].as_u64().unwrap_or(0);
        let bytes = |u: &Value| number(u, "bytes") - 4 * number(u, "nal_units");
        let ours = all(&|u| json!([u["rtp_timestamp"], u["nal_types"], bytes(u)]));
        check.fact(name, &what(n, "au"), ours, theirs.clone());
        let nals = units
            .iter()
            .filter_map(|u| u["nal_units"].as_u64())
            .sum::<u64>();
        check.fact(
            name,
            &what(n, "nal_units"),
            nals,
            stream["nal_units"].clone(),
        );
        let types = match &track["unit_types"] {
            Value::Null => json!({}),
            types => types.clone(),
        };
        let theirs = match &stream["nal_type_counts"] {
            Value::Null => json!({}),
            types => types.clone(),
        };
        check.fact(name, &what(n, "nal types"), types, theirs);
    }
    if let Some(theirs) = stream["temporal_units"].as_array() {
        // Without temporal delimiters, and without the sizes that OBUs have in a file.
        let ours = all(&|u| {
            let list = |key: &str| u[key].as_array().cloned().expect("a list").into_iter();
            let obus = list("obu_types").zip(list("obu_bytes"));
            let obus = obus.filter(|(kind, _)| *kind != 2);
            let (types, sizes): (Vec<Value>, Vec<Value>) = obus.unzip();
            let bytes: u64 = sizes.iter().map(without_size).sum();
            json!([u["rtp_timestamp"], types, bytes])
        });
        check.fact(name, &what(n, "temporal_units"), ours, theirs.clone());
    }
    let list = |key: &str| stream[key].as_array();
    if let (Some(times), Some(sizes)) = (list("au_rtp_ts"), list("au_sizes")) {
        // The facts have them as they were sent, we as they are decoded.
        let mut theirs: Vec<(&Value, &Value)> = times.iter().zip(sizes).collect();
        theirs.sort_by_key(|(time, _)| time.as_u64());
        let ours = all(&|u| json!([u["rtp_timestamp"], u["bytes"]]));
        check.fact(name, &what(n, "audio frames"), ours, json!(theirs));
    }
}

/// Units and bytes of one source.
fn check_payload(check: &Check, name: &str, n: usize, stream: &Value, found: &Value) {
    let units = &stream["access_units"];
    let temporal = stream["temporal_units"].as_array().map(Vec::len);
    if let Some(units) = units.as_u64().or(temporal.map(|n| n as u64)) {
        let fact = what(n, "access_units");
        check.fact(name, &fact, found["access_units"].clone(), units);
    }
    // Beside the facts: the file that was sent has temporal delimiters.
    let sent = match &name[..5] {
        "rtp50" => Some("av1_svt.obu"),
        "rtp51" => Some("av1_aom_altref.obu"),
        "rtp52" => Some("av1_aom_rt_tiles.obu"),
        _ => None,
    };
    let ours = found["payload_sha256"].clone();
    if let Some(sent) = sent {
        let hash = expected("media", sent)["sha256"].clone();
        check.fact(name, "payload_sha256", ours, hash);
    } else if let Some((hash, bytes)) = payload(stream) {
        check.fact(name, &what(n, "payload_sha256"), ours, hash);
        if bytes.is_u64() {
            let fact = what(n, "elementary_bytes");
            check.fact(name, &fact, found["elementary_bytes"].clone(), bytes);
        }
    }
    for key in ["sha256_without_parameter_sets", "obu_stream_no_td_sha256"] {
        if let Some(hash) = stream[key].as_str() {
            let ours = match found["bare_sha256"].as_str() {
                Some(hash) => hash.to_owned(),
                None => sha256(b""),
            };
            check.fact(name, &what(n, "bare_sha256"), ours, hash);
        }
    }
}

/// RTCP, packet by packet.
fn check_rtcp(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let list = ours["rtcp_packets"].as_array().expect("RTCP");
    let theirs = facts["rtcp"].as_array().expect("RTCP");
    check.fact(name, "RTCP packets", list.len(), theirs.len());
    for (n, (packet, theirs)) in list.iter().zip(theirs).enumerate() {
        let packet = rtcp_packet(packet);
        for (key, theirs) in theirs.as_object().expect("a packet") {
            let what = format!("RTCP {n} {key}");
            check.fact(name, &what, packet[key].clone(), theirs.clone());
        }
    }
}

/// An RTCP packet in the words of the facts.
fn rtcp_packet(packet: &Value) -> Value {
    let list = |key: &str| packet[key].as_array().cloned().unwrap_or_default();
    let to = packet["to"].as_str().and_then(|to| to.rsplit_once(':'));
    let port: u16 = to.and_then(|(_, port)| port.parse().ok()).expect("a port");
    let block = |block: &Value| {
        json!({
            "ssrc": block["ssrc"],
            "frac": block["fraction_lost"],
            "lost": block["cumulative_lost"],
            "ehsn": block["highest_sequence"],
            "jit": block["jitter"],
            "lsr": block["last_sr"],
            "dlsr": block["delay_since_last_sr"],
        })
    };
    let chunk = |chunk: &Value| {
        let items = chunk["items"].as_array().expect("items").iter();
        let kinds = ["CNAME", "NAME", "EMAIL", "PHONE", "LOC", "TOOL", "NOTE"];
        let items = items.map(|item| {
            let kind = kinds.iter().position(|k| item["type"] == *k);
            json!([kind.expect("an item") + 1, item["text"]])
        });
        json!([chunk["ssrc"], items.collect::<Vec<_>>()])
    };
    let lost = list("lost").into_iter();
    let lost = lost.map(|pair| json!([pair["sequence"], pair["following"]]));
    let requests = list("requests").into_iter();
    let requests = requests.map(|request| json!([request["ssrc"], request["number"]]));
    json!({
        "t": packet["at_s"],
        "port": port,
        "type": packet["type"],
        "ssrc": packet["ssrc"],
        "ntp": packet["ntp"],
        "rtp": packet["rtp_timestamp"],
        "pkts": packet["packets"],
        "octets": packet["octets"],
        "rb": list("reports").iter().map(block).collect::<Vec<_>>(),
        "chunks": list("chunks").iter().map(chunk).collect::<Vec<_>>(),
        "ssrcs": packet["ssrcs"],
        "reason": packet["reason"],
        "media": packet["media_ssrc"],
        "fci": lost.chain(requests).collect::<Vec<_>>(),
    })
}

/// What two paths come to together.
fn check_merged(check: &Check, name: &str, facts: &Value, first: &Value) {
    let merge = &facts["merge_expected"];
    let (original, merged) = (&merge["original_stream"], &first["merged"]);
    let both = merge["unrecoverable_seq"].as_array().expect("numbers");
    let missing = both.len() as u64;
    check.fact(name, "merged lost", merged["lost"].clone(), missing);
    let numbers = merged["missing_sequences"].clone();
    check.fact(name, "merged missing", numbers, both.clone());
    let sent = original["distinct"].as_u64().expect("packets");
    let distinct = merged["distinct"].clone();
    check.fact(name, "merged distinct", distinct, sent - missing);
    let count = merged["distinct"].as_u64().expect("packets") + missing;
    check.fact(name, "merged packets", count, original["packets"].clone());
    let paths = facts["streams"].as_array().expect("streams").iter();
    let ends = paths.map(|s| json!([s["first_seq"], s["last_seq"]]));
    let theirs = merge["first_and_last_seq_of_paths"].clone();
    check.fact(name, "paths", ends.collect::<Vec<_>>(), theirs);
    for (ours, our, their) in [
        (first, "ssrc", "ssrc"),
        (first, "payload_type", "pt"),
        (merged, "first_sequence", "first_seq"),
        (merged, "last_sequence", "last_seq"),
        (merged, "first_timestamp", "first_ts"),
        (merged, "last_timestamp", "last_ts"),
        (merged, "markers", "markers"),
        (merged, "distinct_timestamps", "distinct_timestamps"),
        (merged, "payload_bytes", "payload_bytes"),
        (merged, "access_units", "access_units"),
        (merged, "unit_types", "nal_type_counts"),
        (merged, "bare_sha256", "sha256_without_parameter_sets"),
        (merged, "elementary_bytes", "annexb_bytes"),
        (merged, "elementary_bytes", "ts_bytes"),
    ] {
        if !original[their].is_null() {
            let fact = format!("merged {our}");
            check.fact(name, &fact, ours[our].clone(), original[their].clone());
        }
    }
    if let Some(nals) = original["nal_units"].as_u64() {
        let types = merged["unit_types"].as_object().expect("types").values();
        let ours = types.filter_map(Value::as_u64).sum::<u64>();
        check.fact(name, "merged nal_units", ours, nals);
    }
    if let Some((hash, _)) = payload(original) {
        let ours = merged["payload_sha256"].clone();
        check.fact(name, "merged payload_sha256", ours, hash);
    }
}

/// A fact of the source at index `n`.
fn what(n: usize, fact: &str) -> String {
    match n {
        0 => fact.to_owned(),
        n => format!("{n} {fact}"),
    }
}

#[test]
fn rtp_captures_have_the_packets_units_and_payloads_of_their_facts() {
    // Those from 80 on are of payload formats alone, with facts of their own kind.
    let names = files(FOLDER, |n| n.ends_with(".pcap") && n < "rtp7");
    assert_eq!(names.len(), 46);
    let options = |name: &str, _: &Value| signalled(name);
    compare_all("rtp", FOLDER, &names, options, &|check, case, facts| {
        let Case { name, ours, .. } = case;
        case.check(check, facts);
        check.fact(name, "kind", ours["kind"].clone(), "pcap");
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
        let streams = facts["streams"].as_array().expect("streams");
        let sources = ours["rtp"].as_array().map(Vec::len);
        check.fact(name, "sources", sources, streams.len());
        let malformed = facts["unparsable_or_wrong_version"].as_u64().unwrap_or(0);
        let refused = ["malformed_rtp", "unknown_datagrams"].map(|k| ours[k].as_u64());
        let refused: u64 = refused.into_iter().flatten().sum();
        check.fact(name, "malformed", refused, malformed);
        check_capture(check, name, facts, ours);
        check.fact(name, "rtcp", rtcp(ours), facts["rtcp_counts"].clone());
        check_rtcp(check, name, facts, ours);
        for (n, stream) in streams.iter().enumerate() {
            let found = source(ours, stream);
            check_packets(check, name, n, stream, found);
            check_list(check, name, n, stream, found);
            check_payload(check, name, n, stream, found);
            check_units(check, name, n, stream, track(ours, stream));
        }
        let first = &ours["rtp"][0];
        let recovered = first["recovered"].clone();
        check.fact(name, "recovered", recovered, repaired(facts, name));
        if facts["merge_expected"].is_object() {
            check_merged(check, name, facts, first);
        }
    });
}
