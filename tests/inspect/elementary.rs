//! Files of H.264, HEVC, AV1, JPEG XS and KLV.

use mirror_inspect::Options;
use serde_json::{Value, json};

use crate::check::{Check, expected, files, found};

const FOLDER: &str = "media";

fn numbers(value: &Value) -> Vec<u64> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_u64).collect()
}

/// Units at which decoding can start: IDR, CRA and BLA, and recovery points that are exact at
/// once.
fn key_units(facts: &Value) -> Vec<u64> {
    let mut keys = numbers(&facts["idr_access_units"]);
    let list = |name: &str| facts[name].as_array().cloned().unwrap_or_default();
    keys.extend(
        list("irap_access_units")
            .iter()
            .filter_map(|v| v[0].as_u64()),
    );
    let exact = list("recovery_point_sei");
    keys.extend(
        exact
            .iter()
            .filter(|v| v[1] == 0)
            .filter_map(|v| v[0].as_u64()),
    );
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[test]
fn h264_and_hevc_files_have_the_units_types_keys_and_formats_of_their_facts() {
    let check = Check::new("annexb");
    let names = files(FOLDER, |n| {
        (n.starts_with("h264_") || n.starts_with("hevc_"))
            && (n.ends_with(".h264") || n.ends_with(".h265"))
    });
    assert_eq!(names.len(), 18);
    for name in names {
        let (facts, ours) = (
            expected(FOLDER, &name),
            found(FOLDER, &name, &Options::default()),
        );
        let kind = if name.ends_with("264") {
            "h264"
        } else {
            "h265"
        };
        check.fact(&name, "kind", ours["kind"].clone(), kind);
        check.fact(&name, "tracks", ours["tracks"].as_array().map(Vec::len), 1);
        check.fact(&name, "errors", ours["errors"].clone(), json!([]));
        let track = &ours["tracks"][0];
        for (our, their) in [
            ("access_units", "access_units"),
            ("frame_types", "frame_types_decode_order"),
            ("width", "width"),
            ("height", "height"),
            ("level", "level_idc"),
            ("bit_depth", "bit_depth"),
            ("frame_rate_fraction", "r_frame_rate"),
            ("bytes", "bytes"),
        ] {
            check.fact(&name, our, track[our].clone(), facts[their].clone());
        }
        let chroma = match facts["chroma_format_idc"].as_u64() {
            Some(2) => "4:2:2",
            _ => "4:2:0",
        };
        check.fact(&name, "chroma", track["chroma"].clone(), chroma);
        let flags = facts["interlaced_flags"].as_array().expect("flags");
        let interlaced = flags.iter().any(|f| f[0] == 1);
        check.fact(&name, "interlaced", track["interlaced"].clone(), interlaced);
        let keys = key_units(&facts);
        check.fact(&name, "gops", track["gops"]["count"].clone(), keys.len());
        check.fact(&name, "key_frames", track["key_frames"].clone(), keys);
        check.fact(&name, "damaged", track["damaged"].clone(), 0);
        if let Some(depth) = facts["max_num_reorder"].as_u64() {
            check.fact(
                &name,
                "reorder_depth",
                track["reorder_depth"].clone(),
                depth,
            );
        }
        let open = name.contains("opengop");
        let opened = track["gops"]["open"].as_u64().unwrap_or(0) > 0;
        check.fact(&name, "open", opened, open);
        check.fact(&name, "profile", track["profile"].is_string(), true);
    }
    check.finish();
}

#[test]
fn av1_files_have_the_temporal_units_and_keys_of_their_facts() {
    let check = Check::new("av1");
    for name in files(FOLDER, |n| n.ends_with(".obu") || n.ends_with(".ivf")) {
        let (facts, ours) = (
            expected(FOLDER, &name),
            found(FOLDER, &name, &Options::default()),
        );
        let obu = name.replace(".ivf", ".obu");
        let bits = expected(FOLDER, &obu);
        check.fact(&name, "kind", ours["kind"].clone(), "av1");
        check.fact(&name, "errors", ours["errors"].clone(), json!([]));
        let track = &ours["tracks"][0];
        let units = bits["temporal_units"].clone();
        check.fact(&name, "access_units", track["access_units"].clone(), units);
        check.fact(&name, "damaged", track["damaged"].clone(), 0);
        let keys = bits["key_temporal_units"].clone();
        check.fact(&name, "key_frames", track["key_frames"].clone(), keys);
        check.fact(
            &name,
            "width",
            track["width"].clone(),
            bits["width"].clone(),
        );
        check.fact(
            &name,
            "height",
            track["height"].clone(),
            bits["height"].clone(),
        );
        check.fact(&name, "chroma", track["chroma"].clone(), "4:2:0");
        let tu = bits["tu"].as_array().expect("units");
        let sizes: u64 = tu.iter().filter_map(|u| u["size"].as_u64()).sum();
        if let Some(frames) = facts["ivf_frames"].as_u64() {
            check.fact(&name, "ivf_frames", track["access_units"].clone(), frames);
            let bytes: u64 = numbers(&facts["frame_sizes"]).iter().sum();
            check.fact(&name, "bytes", track["bytes"].clone(), bytes);
            let ticks = 90_000 * facts["header"]["scale"].as_u64().expect("scale")
                / facts["header"]["rate"].as_u64().expect("rate");
            let pts = numbers(&facts["pts"]);
            let ends = [pts.first(), pts.last()].map(|p| p.expect("times") * ticks);
            check.fact(&name, "first_pts", track["first_pts"].clone(), ends[0]);
            check.fact(&name, "last_pts", track["last_pts"].clone(), ends[1]);
        } else {
            check.fact(
                &name,
                "bytes",
                track["bytes"].clone(),
                facts["bytes"].clone(),
            );
            check.fact(&name, "sum of sizes", track["bytes"].clone(), sizes);
        }
    }
    check.finish();
}

#[test]
fn jpeg_xs_files_have_the_codestreams_of_their_facts() {
    let check = Check::new("jxs");
    for name in files(FOLDER, |n| n.ends_with(".jxs")) {
        let (facts, ours) = (
            expected(FOLDER, &name),
            found(FOLDER, &name, &Options::default()),
        );
        let track = &ours["tracks"][0];
        check.fact(&name, "kind", ours["kind"].clone(), "jpegxs");
        check.fact(&name, "errors", ours["errors"].clone(), json!([]));
        let streams = facts["codestreams"].clone();
        check.fact(
            &name,
            "access_units",
            track["access_units"].clone(),
            streams,
        );
        let bytes: u64 = numbers(&facts["codestream_bytes"]).iter().sum();
        check.fact(&name, "bytes", track["bytes"].clone(), bytes);
        check.fact(
            &name,
            "width",
            track["width"].clone(),
            facts["width"].clone(),
        );
        check.fact(
            &name,
            "height",
            track["height"].clone(),
            facts["height"].clone(),
        );
        let depth = if name.contains("10b") { 10 } else { 8 };
        check.fact(&name, "bit_depth", track["bit_depth"].clone(), depth);
        check.fact(&name, "chroma", track["chroma"].clone(), "4:2:2");
    }
    check.finish();
}

#[test]
fn the_klv_file_has_ten_units() {
    let name = "klv_packets.bin";
    let ours = found(FOLDER, name, &Options::default());
    assert_eq!(ours["kind"], "klv");
    assert_eq!(ours["klv"], json!([{"id": 0, "units": 10}]));
    assert_eq!(ours["tracks"][0]["bytes"], expected(FOLDER, name)["bytes"]);
}
