//! Transport streams: packets, tracks, units, times, TR 101 290, splices, KLV.

use mirror_inspect::Options;
use serde_json::{Value, json};

use crate::check::{Check, expected, files, found};

const FOLDER: &str = "media";
const TS_CLOCK: i64 = 1 << 33;

fn pid(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a PID")
}

fn codec(name: &str) -> &str {
    match name {
        "h264" => "H264",
        "hevc" => "H265",
        "mpeg2video" => "MPEG2",
        "aac" => "AAC",
        "aac_latm" => "AAC_LATM",
        "ac3" => "AC3",
        "eac3" => "EAC3",
        "opus" => "OPUS",
        "mp2" => "MPEG_AUDIO",
        "scte_35" => "SCTE35",
        "klv" => "KLV",
        other => other,
    }
}

fn track(ours: &Value, pid: u64) -> &Value {
    let tracks = ours["tracks"].as_array().expect("tracks");
    tracks
        .iter()
        .find(|t| t["pid"] == pid)
        .unwrap_or(&Value::Null)
}

fn check_streams(check: &Check, name: &str, facts: &Value, ours: &Value) {
    for stream in facts["ffprobe_streams"].as_array().into_iter().flatten() {
        let Some(codec_name) = stream["codec_name"].as_str() else {
            continue;
        };
        let id = stream["id"].as_str().expect("a PID");
        let found = track(ours, pid(id));
        let what = |fact: &str| format!("{id} {fact}");
        // What ffprobe has no name for is told by its tag.
        let expected = match stream["codec_tag_string"].as_str() {
            Some("AV01") => "AV1",
            _ if name.contains("jpegxs") => "JPEGXS",
            _ => codec(codec_name),
        };
        check.fact(name, &what("codec"), found["codec"].clone(), expected);
        for fact in ["width", "height", "channels"] {
            if let Some(value) = stream[fact].as_u64().filter(|v| *v > 0) {
                check.fact(name, &what(fact), found[fact].clone(), value);
            }
        }
        if stream["width"].is_u64() {
            let rate = stream["r_frame_rate"].clone();
            check.fact(
                name,
                &what("rate"),
                found["frame_rate_fraction"].clone(),
                rate,
            );
        }
        let rate = stream["sample_rate"]
            .as_str()
            .and_then(|r| r.parse::<u64>().ok());
        if let Some(rate) = rate.filter(|r| *r > 0) {
            check.fact(
                name,
                &what("sample_rate"),
                found["sample_rate"].clone(),
                rate,
            );
        }
        let frames = stream["nb_read_frames"]
            .as_str()
            .or(stream["nb_read_packets"].as_str());
        if let Some(frames) = frames.and_then(|f| f.parse::<u64>().ok()) {
            check.fact(
                name,
                &what("access_units"),
                found["access_units"].clone(),
                frames,
            );
        }
    }
}

fn check_video(check: &Check, name: &str, facts: &Value, ours: &Value) {
    let Some(all) = facts["video_packets"].as_object() else {
        return;
    };
    for (id, video) in all {
        let found = track(ours, pid(id));
        let what = |fact: &str| format!("{id} {fact}");
        let units = video["pts_dts_key"].as_array().expect("units");
        check.fact(
            name,
            &what("units"),
            found["access_units"].clone(),
            units.len(),
        );
        let time = |unit: Option<&Value>| unit.and_then(|u| u[0].as_i64());
        let wire = |t: Option<i64>| t.map(|t| t.rem_euclid(TS_CLOCK));
        let ends = [wire(time(units.first())), wire(time(units.last()))];
        check.fact(
            name,
            &what("first_pts"),
            found["first_pts"].clone(),
            ends[0],
        );
        check.fact(name, &what("last_pts"), found["last_pts"].clone(), ends[1]);
        let keys: Vec<usize> = (0..units.len()).filter(|&n| units[n][2] == 1).collect();
        check.fact(name, &what("key_frames"), found["key_frames"].clone(), keys);
        // As many of each type, whatever the order.
        let sorted = |value: &Value| {
            let mut letters: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            letters.sort_unstable();
            letters.into_iter().collect::<String>()
        };
        let theirs = sorted(&video["frame_types_display_order"]);
        check.fact(name, &what("types"), sorted(&found["frame_types"]), theirs);
        check.fact(name, &what("damaged"), found["damaged"].clone(), 0);
    }
}

/// Splice commands and KLV units.
fn check_data(check: &Check, name: &str, facts: &Value, ours: &Value) {
    if let Some(list) = facts["scte35"].as_array() {
        let sections = list.iter().filter_map(|s| s["sections_hex"].as_array());
        let sections: usize = sections.map(Vec::len).sum();
        check.fact(
            name,
            "scte35 sections",
            track(ours, 0x1F4)["access_units"].clone(),
            sections,
        );
        let commands: Vec<&str> = ours["scte35"]
            .as_array()
            .expect("commands")
            .iter()
            .filter_map(|c| c["command"].as_str())
            .collect();
        let sections = list
            .iter()
            .filter_map(|s| s["sections_hex"].as_array())
            .flatten();
        // splice_command_type is the fourteenth byte.
        let types = sections.map(|hex| match &hex.as_str().expect("hex")[26..28] {
            "00" => "splice_null",
            "05" => "splice_insert",
            "06" => "time_signal",
            "ff" => "private_command",
            other => panic!("{other}"),
        });
        let types: Vec<&str> = types.collect();
        check.fact(name, "scte35 commands", json!(commands), json!(types));
    }
    let klv: Vec<Value> = facts["ffprobe_streams"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|s| s["codec_name"] == "klv")
        .map(|s| {
            let units = s["nb_read_packets"]
                .as_str()
                .and_then(|n| n.parse::<u64>().ok());
            json!({"id": pid(s["id"].as_str().expect("a PID")), "units": units})
        })
        .collect();
    check.fact(name, "klv", ours["klv"].clone(), klv);
}

/// What the facts call the faults of a file: indicators that count, by number.
fn faults(facts: &Value) -> Vec<String> {
    let check = facts["expected_check"]["check"]
        .as_str()
        .unwrap_or_default();
    let mut numbers: Vec<String> = check
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .filter(|w| w.len() == 3 && (w.starts_with("1.") || w.starts_with("2.")))
        .map(str::to_owned)
        .collect();
    if facts["continuity_errors"].is_array() {
        numbers.push("1.4".to_owned());
    }
    numbers.sort();
    numbers.dedup();
    numbers
}

#[test]
fn transport_streams_have_the_packets_tracks_units_and_faults_of_their_facts() {
    let check = Check::new("ts");
    let names = files(FOLDER, |n| n.ends_with(".ts") || n.ends_with(".m2ts"));
    assert!(names.len() >= 48, "{}", names.len());
    for name in names {
        let name = name.as_str();
        let (facts, ours) = (
            expected(FOLDER, name),
            found(FOLDER, name, &Options::default()),
        );
        check.fact(name, "kind", ours["kind"].clone(), "mpegts");
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
        for fact in ["packets", "null_packets"] {
            if facts[fact].is_u64() {
                check.fact(
                    name,
                    fact,
                    ours["transport"][fact].clone(),
                    facts[fact].clone(),
                );
            }
        }
        check_streams(&check, name, &facts, &ours);
        check_video(&check, name, &facts, &ours);
        for (id, pes) in facts["pes"].as_object().into_iter().flatten() {
            let found = track(&ours, pid(id));
            check.fact(
                name,
                &format!("{id} first_pts"),
                found["first_pts"].clone(),
                pes["first_pts"].clone(),
            );
        }
        check_data(&check, name, &facts, &ours);
        let indicators = ours["tr101290"].as_object().expect("indicators");
        let fired: Vec<&String> = indicators
            .iter()
            .filter(|(_, i)| i["count"].as_u64() > Some(0))
            .map(|(number, _)| number)
            .collect();
        check.fact(name, "tr101290", json!(fired), json!(faults(&facts)));
    }
    check.finish();
}
