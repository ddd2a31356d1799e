//! Captures of SRT.

use std::collections::{BTreeMap, BTreeSet};

use mirror_inspect::Options;
use serde_json::{Value, json};

use crate::check::{
    Case, Check, all_lists, check_capture, compare_all, files, folder, found, sha256,
};
use crate::said;

const FOLDER: &str = "srt";

/// A direction, by the path that the facts name it with.
fn direction<'a>(ours: &'a Value, path: &str) -> &'a Value {
    let (from, to) = path.split_once('>').expect("a path");
    for connection in ours["srt"].as_array().expect("connections") {
        if connection["caller"] == from && connection["listener"] == to {
            return &connection["caller_to_listener"];
        }
        if connection["listener"] == from && connection["caller"] == to {
            return &connection["listener_to_caller"];
        }
    }
    &Value::Null
}

/// Media files that captures carry.
struct Media {
    /// Their hashes and names.
    names: BTreeMap<String, String>,
    /// What `inspect` finds in transport streams.
    found: BTreeMap<String, Value>,
}

impl Media {
    fn new() -> Self {
        let (mut names, mut all) = (BTreeMap::new(), BTreeMap::new());
        for name in files("media", |n| n.starts_with("ts_") && !n.ends_with(".json")) {
            let bytes = std::fs::read(folder("media").join(&name)).expect("readable");
            names.insert(sha256(&bytes), name.clone());
            let found = found("media", &name, &all_lists());
            all.insert(name, found);
        }
        Media { names, found: all }
    }
}

/// Where the payload is a whole media file, its streams are those of the file: every unit, its
/// times and type, none damaged by the way that it took.
fn check_tracks(check: &Check, name: &str, facts: &Value, ours: &Value, media: &Media) {
    let connections = ours["srt"].as_array().expect("connections");
    for (path, flow) in facts["flows"].as_object().into_iter().flatten() {
        let Some(file) = flow["payload_is_file"]
            .as_str()
            .filter(|f| f.ends_with(".ts"))
        else {
            continue;
        };
        let (from, to) = path.split_once('>').expect("a path");
        let is_its = |c: &Value| {
            c["caller"] == from && c["listener"] == to || c["caller"] == to && c["listener"] == from
        };
        let Some(index) = connections.iter().position(is_its) else {
            continue;
        };
        let plain = &media.found[file];
        let of_file = |track: &Value| {
            let mut track = track.clone();
            track.as_object_mut().expect("a track").remove("srt");
            track
        };
        let tracks = ours["tracks"].as_array().expect("tracks").iter();
        let tracks: Vec<Value> = tracks.filter(|t| t["srt"] == index).map(of_file).collect();
        for (ours, theirs) in tracks
            .iter()
            .zip(plain["tracks"].as_array().expect("tracks"))
        {
            // Its sender pauses for 1.3 s inside the last AAC frame, which is given up.
            let is_cut =
                (name.starts_with("srt80") || name.starts_with("srt81")) && ours["pid"] == 257;
            let changed = ["bytes", "damaged", "last_pts", "units"];
            for (fact, theirs) in theirs.as_object().expect("a track") {
                if is_cut && changed.contains(&fact.as_str()) {
                    continue;
                }
                let what = format!("{path} {} {fact}", ours["pid"]);
                check.fact(name, &what, ours[fact].clone(), theirs.clone());
            }
        }
        let count = plain["tracks"].as_array().map(Vec::len);
        check.fact(name, &format!("{path} tracks"), tracks.len(), count);
    }
}

/// A number in the text of an extension block, and the block's text.
fn block<'a>(facts: &'a Value, name: &str) -> Option<&'a str> {
    let handshakes = facts["handshakes"].as_array()?;
    let blocks = handshakes
        .iter()
        .filter_map(|h| h["exts"].as_array())
        .flatten();
    blocks
        .filter_map(Value::as_str)
        .find(|b| b.starts_with(name))
}

fn number(block: &str, key: &str) -> Option<u64> {
    let (_, rest) = block.split_once(key)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Data packets as they are on the wire.
fn check_wire(check: &Check, name: &str, what: &str, flow: &Value, found: &Value) {
    for (our, their) in [
        ("first_sequence", "first_seq"),
        ("last_sequence", "last_seq"),
        ("first_timestamp_us", "first_ts"),
        ("last_timestamp_us", "last_ts"),
        ("first_message", "first_msgno"),
        ("last_message", "last_msgno"),
    ] {
        let what = format!("{what}{our}");
        check.fact(name, &what, found[our].clone(), flow[their].clone());
    }
    for (our, their, names) in [
        ("keys", "kk", ["clear", "even", "odd", "both"]),
        (
            "message_positions",
            "pp",
            ["middle", "last", "first", "alone"],
        ),
    ] {
        let counts = names.iter().enumerate();
        let counts = counts.map(|(n, name)| (n.to_string(), found[our][*name].clone()));
        let counts: serde_json::Map<String, Value> = counts.filter(|(_, n)| *n != 0).collect();
        check.fact(name, &format!("{what}{our}"), counts, flow[their].clone());
    }
    let first = found["first_sequence"].as_u64().unwrap_or(0);
    let ranges = found["missing"]["ranges"].as_array().into_iter().flatten();
    let behind = |n: &Value| (n.as_u64().expect("a number") + (1 << 31) - first) % (1 << 31);
    let missing = ranges.flat_map(|r| behind(&r[0])..=behind(&r[1]));
    let missing: Vec<u64> = missing.collect();
    let theirs = flow["missing_seq_offsets_from_first"].as_array().cloned();
    let theirs = theirs.unwrap_or_default();
    let count = found["missing"]["count"].clone();
    check.fact(name, &format!("{what}missing"), count, theirs.len());
    check.fact(name, &format!("{what}missing numbers"), missing, theirs);
}

fn check_flows(check: &Check, name: &str, facts: &Value, ours: &Value, media: &Media) {
    for (n, (path, flow)) in facts["flows"].as_object().into_iter().flatten().enumerate() {
        let found = direction(ours, path);
        let what = |fact: &str| match n {
            0 => fact.to_owned(),
            n => format!("{n} {fact}"),
        };
        for (our, their) in [
            ("data_packets", "distinct"),
            ("retransmitted", "retransmitted"),
            ("fec_packets", "fec_packets"),
            ("payload_bytes", "payload_bytes"),
            ("payload_sha256", "payload_sha256"),
        ] {
            check.fact(name, &what(our), found[our].clone(), flow[their].clone());
        }
        check_wire(check, name, &what(""), flow, found);
        let file = media
            .names
            .get(found["payload_sha256"].as_str().unwrap_or_default());
        let theirs = flow["payload_is_file"].clone();
        check.fact(name, &what("payload_is_file"), json!(file), theirs);
        if let Some(whole) = flow["payload_is_prefix_of"].as_str() {
            let bytes = std::fs::read(folder("media").join(whole)).expect("a media file");
            let length = found["payload_bytes"].as_u64().expect("a length") as usize;
            let ours = found["payload_sha256"].clone();
            check.fact(name, &what("prefix"), ours, sha256(&bytes[..length]));
        }
        let again =
            flow["data_packets"].as_u64().unwrap_or(0) - flow["distinct"].as_u64().unwrap_or(0);
        check.fact(
            name,
            &what("duplicates"),
            found["duplicates"].clone(),
            again,
        );
        let missing = &flow["missing_seq_offsets_from_first"];
        let missing = missing.as_array().map_or(0, Vec::len);
        check.fact(name, &what("dropped"), found["dropped"].clone(), missing);
        let keys = flow["kk"].as_object().expect("keys");
        let encrypted: u64 = keys
            .iter()
            .filter(|(k, _)| *k != "0")
            .filter_map(|(_, n)| n.as_u64())
            .sum();
        let unread = if facts["passphrase"].is_string() {
            0
        } else {
            encrypted
        };
        check.fact(
            name,
            &what("undecryptable"),
            found["undecryptable"].clone(),
            unread,
        );
        // Before SRT 1.3 the first key comes in a packet of its own as well.
        let messages = facts["ext_control_messages"]
            .as_array()
            .into_iter()
            .flatten();
        let requests = messages
            .filter(|m| m["sub"] == "KMREQ")
            .map(|m| m["cif"].to_string());
        let is_old = facts["handshakes"]
            .as_array()
            .is_some_and(|h| h.iter().any(|h| h["rt"] == "CONCLUSION" && h["ver"] == 4));
        let refreshed = requests
            .collect::<BTreeSet<_>>()
            .len()
            .saturating_sub(usize::from(is_old));
        check.fact(
            name,
            &what("key_refreshes"),
            found["key_refreshes"].clone(),
            refreshed,
        );
    }
}

fn check_handshake(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let connection = &ours["srt"][0];
    let rejected = facts["rejection_code"].as_u64();
    check.fact(
        name,
        "rejection_code",
        connection["rejection_code"].clone(),
        rejected,
    );
    let has_data = facts["flows"].as_object().is_some_and(|f| !f.is_empty());
    let outcome = match rejected {
        Some(_) => "rejected",
        None if has_data => "connected",
        None => "timeout",
    };
    check.fact(name, "outcome", connection["outcome"].clone(), outcome);
    let stream_id =
        block(facts, "SID(").map(|b| b.trim_start_matches("SID(\"").trim_end_matches("\")"));
    check.fact(
        name,
        "stream_id",
        connection["stream_id"].clone(),
        stream_id,
    );
    let answer = block(facts, "HSRSP");
    let latency = |key| answer.and_then(|b| number(b, key));
    if answer.is_some() {
        let forth = latency("rcv=");
        check.fact(name, "latency_ms", connection["latency_ms"].clone(), forth);
        let back = connection["listener_to_caller"]["latency_ms"].clone();
        check.fact(name, "latency back", back, latency("snd="));
    }
    let key = &facts["km_messages"][0];
    let encryption = match key["cipher"].as_str() {
        Some(cipher) => {
            let bits = 8 * key["klen"].as_u64().expect("a length");
            format!("{}-{bits}", cipher.to_ascii_lowercase())
        }
        None => "none".to_owned(),
    };
    check.fact(
        name,
        "encryption",
        connection["encryption"].clone(),
        encryption,
    );
    // Before SRT 1.3 in a packet of its own.
    let messages = facts["ext_control_messages"]
        .as_array()
        .into_iter()
        .flatten();
    let mut greetings = messages.filter(|m| m["sub"] == "HSREQ");
    let old = greetings.next().and_then(|m| m["cif"].as_str()?.get(2..8));
    let block = block(facts, "HSREQ").and_then(|b| b.split_once("ver=0x")?.1.get(..6));
    let version = block.or(old).and_then(|hex| {
        let v = u32::from_str_radix(hex, 16).ok()?;
        Some(format!("{}.{}.{}", v >> 16, v >> 8 & 0xFF, v & 0xFF))
    });
    check.fact(name, "version", connection["version"].clone(), version);
}

#[test]
fn srt_captures_have_the_handshakes_packets_and_payloads_of_their_facts() {
    let names = files(FOLDER, |n| n.ends_with(".pcap"));
    assert_eq!(names.len(), 87);
    let media = Media::new();
    let options = |_: &str, facts: &Value| Options {
        passphrase: facts["passphrase"].as_str().map(str::to_owned),
        ..all_lists()
    };
    compare_all("srt", FOLDER, &names, options, &|check, case, facts| {
        let Case { name, ours, .. } = case;
        case.check(check, facts);
        check.fact(name, "kind", ours["kind"].clone(), "pcap");
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
        check.fact(name, "unknown", ours["unknown_datagrams"].clone(), 0);
        check_capture(check, name, facts, ours);
        check_handshake(check, name, facts, ours);
        said::check(check, name, facts, ours);
        check_flows(check, name, facts, ours, &media);
        check_tracks(check, name, facts, ours, &media);
        let form = match facts["gcm_variant"].as_str() {
            Some("1.5.4 and later (12-byte IV, network-order AAD)") => json!("since 1.5.4"),
            Some("up to 1.5.3 (16-byte-style IV, little-endian AAD)") => json!("before 1.5.4"),
            Some(other) => json!(other),
            None => Value::Null,
        };
        let found = match ours["srt"][0]["encryption"].as_str() {
            Some(mode) if mode.contains("gcm") && facts["gcm_variant"].is_string() => {
                ours["srt"][0]["gcm_form"].clone()
            }
            _ => Value::Null,
        };
        check.fact(name, "gcm_variant", found, form);
    });
}
