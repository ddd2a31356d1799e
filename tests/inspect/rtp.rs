//! Captures of RTP.

use mirror_inspect::Options;
use mirror_media::{FormatParameters, PayloadFormat, PayloadHint};
use serde_json::{Map, Value, json};

use crate::check::{Check, expected, files, found};

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
        ..Options::default()
    }
}

fn source<'a>(ours: &'a Value, stream: &Value) -> &'a Value {
    let all = ours["rtp"].as_array().expect("sources");
    let is = |s: &&Value| s["port"] == stream["dst_port"] && s["ssrc"] == stream["ssrc"];
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
        ("payload_type", "pt"),
        ("packets", "packets"),
        ("distinct", "distinct"),
        ("first_sequence", "first_seq"),
        ("last_sequence", "last_seq"),
        ("payload_bytes", "payload_bytes"),
    ] {
        let fact = what(n, our);
        check.fact(name, &fact, found[our].clone(), stream[their].clone());
    }
    let duplicates = stream["duplicates"].as_u64().unwrap_or(0);
    let fact = what(n, "duplicates");
    check.fact(name, &fact, found["duplicates"].clone(), duplicates);
    let missing = stream["missing_seq"].as_array().map_or(0, Vec::len);
    check.fact(name, &what(n, "lost"), found["lost"].clone(), missing);
}

/// Units and bytes of one source.
fn check_payload(check: &Check, name: &str, n: usize, stream: &Value, found: &Value) {
    let units = &stream["access_units"];
    let temporal = stream["temporal_units"].as_array().map(Vec::len);
    if let Some(units) = units.as_u64().or(temporal.map(|n| n as u64)) {
        let fact = what(n, "access_units");
        check.fact(name, &fact, found["access_units"].clone(), units);
    }
    // The facts' hash of AV1 leaves temporal delimiters out, the file that was sent has them.
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
}

/// What two paths come to together.
fn check_merged(check: &Check, name: &str, merge: &Value, merged: &Value) {
    let original = &merge["original_stream"];
    let both = merge["unrecoverable_seq"].as_array();
    let missing = both.expect("numbers").len() as u64;
    check.fact(name, "merged lost", merged["lost"].clone(), missing);
    let sent = original["distinct"].as_u64().expect("packets");
    let distinct = merged["distinct"].clone();
    check.fact(name, "merged distinct", distinct, sent - missing);
    if missing == 0 {
        let (hash, _) = payload(original).expect("a hash");
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
    let check = Check::new("rtp");
    // Those from 80 on are of payload formats alone, with facts of their own kind.
    let names = files(FOLDER, |n| n.ends_with(".pcap") && n < "rtp7");
    assert_eq!(names.len(), 46);
    for name in names {
        let name = name.trim_end_matches(".pcap");
        let (facts, options) = (expected(FOLDER, name), signalled(name));
        let ours = found(FOLDER, &format!("{name}.pcap"), &options);
        check.fact(name, "kind", ours["kind"].clone(), "pcap");
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
        let streams = facts["streams"].as_array().expect("streams");
        let sources = ours["rtp"].as_array().map(Vec::len);
        check.fact(name, "sources", sources, streams.len());
        let malformed = facts["unparsable_or_wrong_version"].as_u64().unwrap_or(0);
        let refused = ["malformed_rtp", "unknown_datagrams"].map(|k| ours[k].as_u64());
        let refused: u64 = refused.into_iter().flatten().sum();
        check.fact(name, "malformed", refused, malformed);
        check.fact(name, "rtcp", rtcp(&ours), facts["rtcp_counts"].clone());
        for (n, stream) in streams.iter().enumerate() {
            let found = source(&ours, stream);
            check_packets(&check, name, n, stream, found);
            check_payload(&check, name, n, stream, found);
        }
        let first = &ours["rtp"][0];
        let recovered = first["recovered"].clone();
        check.fact(name, "recovered", recovered, repaired(&facts, name));
        if facts["merge_expected"].is_object() {
            check_merged(&check, name, &facts["merge_expected"], &first["merged"]);
        }
    }
    check.finish();
}
