//! Files of H.264, HEVC, AV1, JPEG XS and KLV.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::check::{Case, Check, all_lists, compare_all, expected, files};

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

/// A column of the list of units.
fn column(track: &Value, key: &str) -> Vec<Value> {
    let units = track["units"].as_array().expect("units").iter();
    units.map(|unit| unit[key].clone()).collect()
}

/// The standards' profiles by number (H.264 A.2, HEVC A.3).
fn profile(kind: &str, facts: &Value) -> &'static str {
    match (kind, facts["profile_idc"].as_u64()) {
        ("h264", Some(66)) => "Constrained Baseline",
        ("h264", Some(77)) => "Main",
        ("h264", Some(100)) => "High",
        ("h264", Some(110)) => "High 10",
        ("h264", Some(122)) => "High 4:2:2",
        ("h265", Some(1)) => "Main",
        ("h265", Some(2)) => "Main 10",
        other => panic!("{other:?}"),
    }
}

/// The order in which pictures are shown.
fn check_order(check: &Check, name: &str, facts: &Value, track: &Value) {
    let units = facts["au"].as_array().expect("units");
    let theirs = |key: &str| -> Vec<Value> { units.iter().map(|u| u[key].clone()).collect() };
    // Picture order counts, and the places in display order that follow from them.
    let orders = column(track, "display_order");
    let pocs: Vec<Value> = orders.iter().map(|order| order[1].clone()).collect();
    check.fact(name, "poc", pocs, theirs("poc"));
    let place = |n: &usize| (orders[*n][0].as_i64(), orders[*n][1].as_i64());
    let mut shown: Vec<usize> = (0..orders.len()).collect();
    shown.sort_by_key(place);
    let mut index = vec![0; orders.len()];
    for (at, n) in shown.iter().enumerate() {
        index[*n] = at;
    }
    check.fact(name, "display_index", index, theirs("display_index"));
    let letters: Vec<char> = track["frame_types"]
        .as_str()
        .expect("types")
        .chars()
        .collect();
    let in_order: String = shown.iter().filter_map(|n| letters.get(*n)).collect();
    let shown_types = facts["frame_types_display_order"].clone();
    check.fact(name, "types as shown", in_order, shown_types);
    let keys: Vec<usize> = (0..shown.len())
        .filter(|at| {
            track["key_frames"]
                .as_array()
                .expect("keys")
                .contains(&json!(shown[*at]))
        })
        .collect();
    // ffprobe calls intra pictures with any recovery point keys.
    let theirs = facts["ffprobe_key_frames_display"].clone();
    check.fact(name, "keys as shown", keys, theirs);
}

/// Types and slices of every unit.
fn check_nals(check: &Check, name: &str, facts: &Value, track: &Value) {
    let units = facts["au"].as_array().expect("units");
    let theirs = |key: &str| -> Vec<Value> { units.iter().map(|u| u[key].clone()).collect() };
    check.fact(name, "nals", column(track, "nal_types"), theirs("nals"));
    let slices = column(track, "slices");
    check.fact(name, "slices", slices.clone(), theirs("slices"));
    let letters = track["frame_types"].as_str().expect("types").chars();
    let letters: Vec<Value> = letters.map(|c| json!(c.to_string())).collect();
    check.fact(name, "letters", letters, theirs("type"));
    let numbers: BTreeSet<u64> = slices.iter().filter_map(Value::as_u64).collect();
    if facts["entropy_slices_per_au"].is_array() {
        let theirs = facts["entropy_slices_per_au"].clone();
        check.fact(name, "slices of a unit", json!(numbers), theirs);
    }
    if facts["vcl_nal_types"].is_array() {
        let first = |types: &Value| {
            let mut types = types.as_array().into_iter().flatten();
            types.find(|t| t.as_u64() < Some(32)).cloned()
        };
        let first: Vec<Option<Value>> = column(track, "nal_types").iter().map(first).collect();
        let theirs = facts["vcl_nal_types"].clone();
        check.fact(name, "vcl types", json!(first), theirs);
    }
}

/// Progressive or interlaced, and which field comes first: ffprobe's flags of the frames.
fn check_scan(check: &Check, name: &str, facts: &Value, track: &Value) {
    let interlaced = track["interlaced"] == true;
    let first = |top: bool| json!([u8::from(interlaced), u8::from(top)]);
    let flags = match name.starts_with("hevc_interlaced") {
        // It takes fields for frames.
        true => json!([first(false), first(true)]),
        false => json!([first(track["field_order"] == "top_first")]),
    };
    check.fact(name, "interlaced", flags, facts["interlaced_flags"].clone());
    if facts["frame_mbs_only"].is_u64() {
        let ours = u8::from(!interlaced);
        check.fact(
            name,
            "frame_mbs_only",
            ours,
            facts["frame_mbs_only"].clone(),
        );
    }
    let agree = track["frame_types"] == facts["frame_types_decode_order"];
    check.fact(
        name,
        "ffprobe agrees",
        agree,
        facts["ffprobe_types_agree"].clone(),
    );
}

/// Facts that are told unit by unit.
fn check_units(check: &Check, case: &Case, facts: &Value, track: &Value) {
    let name = case.name.as_str();
    let types = track["unit_types"].clone();
    check.fact(
        name,
        "types of NAL units",
        types,
        facts["nal_type_counts"].clone(),
    );
    let all = column(track, "nal_units")
        .iter()
        .filter_map(Value::as_u64)
        .sum::<u64>();
    check.fact(name, "NAL units", all, facts["nal_units"].clone());
    check.fact(
        name,
        "ffprobe",
        track["access_units"].clone(),
        facts["ffprobe_frames"].clone(),
    );
    let units = facts["au"].as_array().expect("units");
    let theirs = |key: &str| -> Vec<Value> { units.iter().map(|u| u[key].clone()).collect() };
    // Zero bytes behind a NAL unit are its own (B.1.1, trailing_zero_8bits): the facts give them to
    // the unit that follows.
    let zeros = |offset: usize| {
        let before = case.bytes[..offset].iter().rev();
        before.take_while(|b| **b == 0).count()
    };
    let offsets = column(track, "offset").into_iter();
    let offsets = offsets.filter_map(|o| o.as_u64()).map(|o| o as usize);
    let offsets: Vec<usize> = offsets.map(|o| o - zeros(o)).collect();
    check.fact(name, "offsets", offsets.clone(), theirs("offset"));
    let nals = units
        .iter()
        .map(|u| json!(u["nals"].as_array().map(Vec::len)));
    let nals: Vec<Value> = nals.collect();
    check.fact(name, "nal units", column(track, "nal_units"), nals);
    let sizes = column(track, "bytes").into_iter();
    let sizes: usize = sizes
        .filter_map(|size| size.as_u64())
        .map(|s| s as usize)
        .sum();
    check.fact(name, "sizes", sizes, case.bytes.len());
    check_order(check, name, facts, track);
    check_nals(check, name, facts, track);
    check_access(check, name, facts, track);
}

/// Points at which decoding can start.
fn check_access(check: &Check, name: &str, facts: &Value, track: &Value) {
    let recovery: Vec<Value> = column(track, "recovery")
        .into_iter()
        .enumerate()
        .filter(|(_, frames)| !frames.is_null())
        .map(|(n, frames)| json!([n, frames]))
        .collect();
    let theirs = facts["recovery_point_sei"].as_array().cloned();
    check.fact(name, "recovery", recovery, theirs.unwrap_or_default());
    if facts["temporal_ids"].is_array() {
        let ours = column(track, "temporal_id");
        check.fact(name, "temporal_ids", ours, facts["temporal_ids"].clone());
    }
    let random = column(track, "type").into_iter().enumerate();
    let of = |wanted: &'static str| {
        let all = random.clone().filter(move |(_, kind)| *kind == wanted);
        all.map(|(n, _)| n).collect::<Vec<_>>()
    };
    let irap = |is: fn(u64) -> bool| -> Option<Vec<Value>> {
        let all = facts["irap_access_units"].as_array()?.iter();
        let wanted = all.filter(|v| v[1].as_u64().is_some_and(is));
        Some(wanted.map(|v| v[0].clone()).collect())
    };
    let idr = irap(|kind| kind == 19 || kind == 20);
    let idr = idr.unwrap_or_else(|| facts["idr_access_units"].as_array().cloned().expect("keys"));
    check.fact(name, "IDR", of("IDR"), idr);
    if let Some(cra) = irap(|kind| matches!(kind, 16..=18 | 21)) {
        check.fact(name, "CRA", of("CRA"), cra);
    }
}

#[test]
fn h264_and_hevc_files_have_the_units_types_keys_and_formats_of_their_facts() {
    let names = files(FOLDER, |n| {
        (n.starts_with("h264_") || n.starts_with("hevc_"))
            && (n.ends_with(".h264") || n.ends_with(".h265"))
    });
    assert_eq!(names.len(), 18);
    let options = |_: &str, _: &Value| all_lists();
    compare_all("annexb", FOLDER, &names, options, &|check, case, facts| {
        let Case { name, ours, .. } = case;
        case.check(check, facts);
        let kind = if name.ends_with("264") {
            "h264"
        } else {
            "h265"
        };
        let shown = match ours["kind"].as_str() {
            Some("h264") => "H264 Annex B elementary stream",
            Some("h265") => "HEVC Annex B elementary stream",
            _ => "?",
        };
        check.fact(name, "kind", shown, facts["kind"].clone());
        check.fact(name, "tracks", ours["tracks"].as_array().map(Vec::len), 1);
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
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
            check.fact(name, our, track[our].clone(), facts[their].clone());
        }
        let chroma = match facts["chroma_format_idc"].as_u64() {
            Some(2) => "4:2:2",
            _ => "4:2:0",
        };
        check.fact(name, "chroma", track["chroma"].clone(), chroma);
        check_scan(check, name, facts, track);
        let keys = key_units(facts);
        check.fact(name, "gops", track["gops"]["count"].clone(), keys.len());
        check.fact(name, "key_frames", track["key_frames"].clone(), keys);
        check.fact(name, "damaged", track["damaged"].clone(), 0);
        if let Some(depth) = facts["max_num_reorder"].as_u64() {
            check.fact(name, "reorder_depth", track["reorder_depth"].clone(), depth);
        }
        let open = name.contains("opengop");
        let opened = track["gops"]["open"].as_u64().unwrap_or(0) > 0;
        check.fact(name, "open", opened, open);
        let named = profile(kind, facts);
        check.fact(name, "profile", track["profile"].clone(), named);
        check_units(check, case, facts, track);
    });
}

/// Frames of IVF: sizes and times.
fn check_ivf(check: &Check, name: &str, facts: &Value, track: &Value) {
    let bytes: u64 = numbers(&facts["frame_sizes"]).iter().sum();
    check.fact(name, "bytes", track["bytes"].clone(), bytes);
    let ticks = 90_000 * facts["header"]["scale"].as_u64().expect("scale")
        / facts["header"]["rate"].as_u64().expect("rate");
    let pts = numbers(&facts["pts"]);
    let times: Vec<u64> = pts.iter().map(|t| t * ticks).collect();
    check.fact(
        name,
        "first_pts",
        track["first_pts"].clone(),
        times.first().copied(),
    );
    check.fact(
        name,
        "last_pts",
        track["last_pts"].clone(),
        times.last().copied(),
    );
    check.fact(name, "pts", column(track, "pts"), times);
    let sizes = facts["frame_sizes"].clone();
    check.fact(name, "sizes", column(track, "bytes"), sizes);
    let header = &facts["header"];
    assert_eq!(header["fourcc"], "AV01");
    for fact in ["width", "height"] {
        check.fact(name, fact, track[fact].clone(), header[fact].clone());
    }
}

#[test]
fn av1_files_have_the_temporal_units_and_keys_of_their_facts() {
    let names = files(FOLDER, |n| n.ends_with(".obu") || n.ends_with(".ivf"));
    let of_bits = |name: &str| expected(FOLDER, &name.replace(".ivf", ".obu"));
    let bits: Vec<Value> = names.iter().map(|n| of_bits(n)).collect();
    let options = |_: &str, _: &Value| all_lists();
    compare_all("av1", FOLDER, &names, options, &|check, case, facts| {
        let Case { name, ours, .. } = case;
        case.check(check, facts);
        // What IVF holds is told beside the same frames without it.
        let bits = match facts["ivf_frames"].is_null() {
            true => facts,
            false => &bits[names.iter().position(|n| n == name).expect("listed")],
        };
        let shown = match (ours["kind"].as_str(), case.file.ends_with(".ivf")) {
            (Some("av1"), true) => "AV1 in IVF",
            (Some("av1"), false) => "AV1 low-overhead OBU stream",
            _ => "?",
        };
        check.fact(name, "kind", shown, facts["kind"].clone());
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
        let track = &ours["tracks"][0];
        let units = bits["temporal_units"].clone();
        check.fact(name, "access_units", track["access_units"].clone(), units);
        check.fact(name, "damaged", track["damaged"].clone(), 0);
        let keys = bits["key_temporal_units"].clone();
        check.fact(name, "key_frames", track["key_frames"].clone(), keys);
        check.fact(name, "width", track["width"].clone(), bits["width"].clone());
        check.fact(
            name,
            "height",
            track["height"].clone(),
            bits["height"].clone(),
        );
        check.fact(name, "chroma", track["chroma"].clone(), "4:2:0");
        check.fact(name, "bit_depth", track["bit_depth"].clone(), 8);
        assert_eq!(bits["pix_fmt"], "yuv420p");
        for (our, their) in [
            ("coded_frames", "coded_frames"),
            ("hidden_frames", "hidden_frames"),
            ("shown_again", "show_existing"),
        ] {
            check.fact(name, our, track[our].clone(), bits[their].clone());
        }
        let types = bits["tu"]
            .as_array()
            .expect("units")
            .iter()
            .map(|u| u["obu_types"].clone());
        if facts["ivf_frames"].is_null() {
            let types: Vec<Value> = types.collect();
            check.fact(name, "obu_types", column(track, "obu_types"), types);
            let tu = bits["tu"].as_array().expect("units").iter();
            let frames: Vec<Value> = tu.map(|u| u["frames"].clone()).collect();
            check.fact(name, "frames", column(track, "frames"), frames);
        }
        let tu = bits["tu"].as_array().expect("units");
        let sizes: u64 = tu.iter().filter_map(|u| u["size"].as_u64()).sum();
        if let Some(frames) = facts["ivf_frames"].as_u64() {
            check.fact(name, "ivf_frames", track["access_units"].clone(), frames);
            check_ivf(check, name, facts, track);
        } else {
            check.fact(
                name,
                "bytes",
                track["bytes"].clone(),
                facts["bytes"].clone(),
            );
            check.fact(name, "sum of sizes", track["bytes"].clone(), sizes);
            let sizes: Vec<Value> = tu.iter().map(|u| u["size"].clone()).collect();
            check.fact(name, "sizes", column(track, "bytes"), sizes);
        }
    });
}

#[test]
fn jpeg_xs_files_have_the_codestreams_of_their_facts() {
    let names = files(FOLDER, |n| n.ends_with(".jxs"));
    let options = |_: &str, _: &Value| all_lists();
    compare_all("jxs", FOLDER, &names, options, &|check, case, facts| {
        let Case { name, ours, .. } = case;
        case.check(check, facts);
        let track = &ours["tracks"][0];
        let sizes = facts["codestream_bytes"].clone();
        check.fact(name, "sizes", column(track, "bytes"), sizes);
        // The level is the upper byte of Plev.
        let level = facts["Plev"]
            .as_u64()
            .map(|level| level >> 8)
            .filter(|l| *l > 0);
        check.fact(name, "level", track["level"].clone(), level);
        let shown = match ours["kind"].as_str() {
            Some("jpegxs") => "JPEG XS codestreams back to back",
            _ => "?",
        };
        check.fact(name, "kind", shown, facts["kind"].clone());
        check.fact(name, "errors", ours["errors"].clone(), json!([]));
        let streams = facts["codestreams"].clone();
        check.fact(name, "access_units", track["access_units"].clone(), streams);
        let bytes: u64 = numbers(&facts["codestream_bytes"]).iter().sum();
        check.fact(name, "bytes", track["bytes"].clone(), bytes);
        check.fact(
            name,
            "width",
            track["width"].clone(),
            facts["width"].clone(),
        );
        check.fact(
            name,
            "height",
            track["height"].clone(),
            facts["height"].clone(),
        );
        for (our, their) in [
            ("profile_code", "Ppih"),
            ("level_code", "Plev"),
            ("precinct_width", "Cw"),
            ("slice_height", "slice_height_Hsl"),
            ("components", "components"),
        ] {
            let ours = track["jpegxs"][our].clone();
            check.fact(name, our, ours, facts[their].clone());
        }
        let slices = facts["slices_per_picture"].clone();
        check.fact(name, "slices", column(track, "slices"), slices);
        let depth = if name.contains("10b") { 10 } else { 8 };
        check.fact(name, "bit_depth", track["bit_depth"].clone(), depth);
        check.fact(name, "chroma", track["chroma"].clone(), "4:2:2");
    });
}

#[test]
fn the_klv_file_has_ten_units() {
    let names = ["klv_packets.bin".to_owned()];
    let options = |_: &str, _: &Value| all_lists();
    compare_all("klv", FOLDER, &names, options, &|check, case, facts| {
        let Case { name, ours, .. } = case;
        case.check(check, facts);
        let kind = if ours["kind"] == "klv" { "other" } else { "?" };
        check.fact(name, "kind", kind, facts["kind"].clone());
        let units = json!([{"id": 0, "units": 10}]);
        check.fact(name, "units", ours["klv"].clone(), units);
        let bytes = ours["tracks"][0]["bytes"].clone();
        check.fact(name, "bytes", bytes, facts["bytes"].clone());
    });
}
