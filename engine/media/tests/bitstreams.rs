//! Every fact of the H.264 and HEVC elementary streams in `tests/vectors/media`: their bytes go
//! through the Annex B reader whole and cut into pieces, and units, types, order, recovery
//! points, layers and parameter sets must be those that the facts say.

mod common;

use common::{facts, kind_letter, vector};
use mirror_media::files::annexb::{self, AnnexB, FileUnit};
use mirror_media::{Codec, FieldOrder, FrameKind, Limits, Track};
use serde_json::{Value, json};

fn files() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/media");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".h264") || n.ends_with(".h265"))
        .filter(|n| n.starts_with("h264_") || n.starts_with("hevc_"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 18);
    names
}

struct Read {
    units: Vec<FileUnit>,
    reader: AnnexB,
}

/// Reads `bytes` in pieces of the sizes that `size` gives.
fn read(bytes: &[u8], codec: Codec, mut size: impl FnMut() -> usize) -> Read {
    let mut reader = AnnexB::new(codec, &Limits::default()).unwrap();
    let mut units = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(size().clamp(1, rest.len()));
        reader.push(piece);
        units.extend(core::iter::from_fn(|| reader.poll_unit()));
        rest = after;
    }
    reader.finish();
    units.extend(core::iter::from_fn(|| reader.poll_unit()));
    Read { units, reader }
}

fn profile_idc(track: &Track) -> u64 {
    match track.profile {
        "Baseline" | "Constrained Baseline" => 66,
        "High" => 100,
        "High 4:2:2" => 122,
        "Main" => 1,
        "Main 10" => 2,
        other => panic!("{other}"),
    }
}

/// Place in display order of each unit.
fn display_indexes(units: &[FileUnit]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&n| units[n].unit.order.unwrap());
    let mut places = vec![0; units.len()];
    for (place, n) in order.into_iter().enumerate() {
        places[n] = place;
    }
    places
}

fn check_units(what: &str, bytes: &[u8], facts: &Value, read: &Read) {
    let units = &read.units;
    assert_eq!(facts["access_units"], units.len(), "{what}");
    let nal_units: usize = units.iter().map(|u| u.nal_types.len()).sum();
    assert_eq!(facts["nal_units"], nal_units, "{what}");
    let types: String = units.iter().map(|u| kind_letter(u.unit.kind)).collect();
    assert_eq!(facts["frame_types_decode_order"], types, "{what}");
    let places = display_indexes(units);
    let mut displayed = vec!['?'; units.len()];
    for (n, &place) in places.iter().enumerate() {
        displayed[place] = kind_letter(units[n].unit.kind);
    }
    let displayed: String = displayed.into_iter().collect();
    assert_eq!(facts["frame_types_display_order"], displayed, "{what}");
    let mut end = 0;
    for (n, (unit, fact)) in units
        .iter()
        .zip(facts["au"].as_array().unwrap())
        .enumerate()
    {
        let what = format!("{what}: unit {n}");
        assert!(!unit.unit.damaged, "{what}");
        assert_eq!(unit.offset, end, "{what} begins where the one before ends");
        // Zero bytes before a start code may go with either unit (trailing_zero_8bits).
        let offset = fact["offset"].as_u64().unwrap();
        let apart = &bytes[offset.min(end) as usize..offset.max(end) as usize];
        assert!(
            apart.iter().all(|&b| b == 0),
            "{what}: at {end}, not {offset}"
        );
        end = annexb::offset_of(unit.unit.end);
        assert_eq!(u64::from(unit.unit.bytes), end - unit.offset, "{what}");
        let types = serde_json::json!(unit.nal_types);
        assert_eq!(fact["nals"], types, "{what}");
        assert_eq!(
            fact["type"],
            kind_letter(unit.unit.kind).to_string(),
            "{what}"
        );
        assert_eq!(fact["poc"], unit.unit.order.unwrap().count, "{what}");
        assert_eq!(fact["display_index"], places[n], "{what}");
    }
    assert_eq!(end, bytes.len() as u64, "{what}");
}

fn check_entries(what: &str, facts: &Value, units: &[FileUnit]) {
    let indexes = |of: &dyn Fn(&FileUnit) -> bool| -> Vec<usize> {
        (0..units.len()).filter(|&n| of(&units[n])).collect()
    };
    let idr = indexes(&|u| u.unit.kind == FrameKind::Idr);
    let listed = facts["idr_access_units"].as_array().unwrap();
    let hevc = facts.get("irap_access_units");
    if let Some(irap) = hevc {
        let expected: Vec<usize> = irap
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v[0].as_u64().unwrap() as usize)
            .collect();
        assert_eq!(indexes(&|u| u.unit.kind.is_key()), expected, "{what}");
    }
    assert_eq!(json!(idr), json!(listed), "{what}");
    let recovery: Vec<(usize, u16)> = (0..units.len())
        .filter_map(|n| Some((n, units[n].unit.recovery?)))
        .collect();
    let expected = facts
        .get("recovery_point_sei")
        .cloned()
        .unwrap_or(json!([]));
    assert_eq!(json!(recovery), expected, "{what}");
    // A recovery point that is right at once is a key frame.
    for (n, count) in recovery {
        assert_eq!(units[n].unit.kind == FrameKind::Cra, count == 0, "{what}");
    }
    let mut keys = indexes(&|u| u.unit.kind.is_key());
    let places = display_indexes(units);
    keys.iter_mut().for_each(|n| *n = places[*n]);
    assert_eq!(json!(keys), facts["ffprobe_key_frames_display"], "{what}");
}

fn check_layers(what: &str, facts: &Value, units: &[FileUnit]) {
    if let Some(ids) = facts.get("temporal_ids") {
        let mine: Vec<u8> = units.iter().map(|u| u.unit.temporal_id).collect();
        assert_eq!(json!(mine), *ids, "{what}");
    }
    let Some(types) = facts.get("vcl_nal_types").and_then(Value::as_array) else {
        return;
    };
    let highest = units.iter().map(|u| u.unit.temporal_id).max().unwrap();
    for (n, (unit, nal_type)) in units.iter().zip(types).enumerate() {
        let nal_type = nal_type.as_u64().unwrap();
        let rasl = matches!(nal_type, 8 | 9);
        assert_eq!(unit.unit.leading, rasl, "{what}: unit {n}");
        let non_reference = nal_type < 15 && nal_type % 2 == 0;
        assert_eq!(
            unit.unit.discardable,
            non_reference && unit.unit.temporal_id == highest,
            "{what}: unit {n}"
        );
    }
}

fn check_track(what: &str, facts: &Value, read: &Read) {
    let track = read.reader.track();
    assert_eq!(facts["width"], track.width, "{what}");
    assert_eq!(facts["height"], track.height, "{what}");
    assert_eq!(facts["profile_idc"], profile_idc(&track), "{what}");
    assert_eq!(facts["level_idc"], track.level, "{what}");
    assert!(!track.high_tier, "{what}");
    assert_eq!(facts["bit_depth"], track.bit_depth, "{what}");
    assert_eq!(facts["chroma_format_idc"], track.chroma_format, "{what}");
    let (n, d) = track.frame_rate;
    assert_eq!(facts["r_frame_rate"], format!("{n}/{d}"), "{what}");
    let interlaced = facts["interlaced_flags"].as_array().unwrap();
    assert_eq!(
        interlaced.iter().any(|f| f[0] == 1),
        track.interlaced,
        "{what}"
    );
    if let Some(depth) = facts.get("max_num_reorder") {
        assert_eq!(*depth, track.reorder_depth, "{what}");
    }
    let recovers = facts.get("recovery_point_sei").is_some();
    let sei = facts["nal_type_counts"]
        .get("6")
        .or(facts["nal_type_counts"].get("39"));
    assert!(
        track.side.recovery_point == recovers || sei.is_none(),
        "{what}"
    );
    let layers = read.units.iter().map(|u| u.unit.temporal_id).max().unwrap() + 1;
    assert_eq!(track.temporal_layers, layers, "{what}");
    assert_eq!(track.enhancement_layers, 0, "{what}");
    let counted: serde_json::Map<String, Value> = (0..256)
        .map(|n| (n, read.reader.nal_types()[n]))
        .filter(|&(_, count)| count > 0)
        .map(|(n, count)| (n.to_string(), json!(count)))
        .collect();
    assert_eq!(Value::Object(counted), facts["nal_type_counts"], "{what}");
}

/// The depth that the order of the units shows is the one that the stream promises, or less.
fn check_reordering(what: &str, read: &Read) {
    let units = &read.units;
    let depth = (0..units.len())
        .map(|n| {
            let later = |m: &usize| units[*m].unit.order > units[n].unit.order;
            (0..n).filter(later).count()
        })
        .max()
        .unwrap();
    let promised = usize::from(read.reader.track().reorder_depth);
    assert!(depth <= promised, "{what}: {depth} of {promised}");
}

fn check(name: &str, cut: &str, size: impl FnMut() -> usize) {
    let what = format!("{name} {cut}");
    let bytes = vector(name);
    let facts = facts(name);
    let codec = annexb::detect(&bytes).unwrap();
    assert_eq!(codec == Codec::H265, name.ends_with("h265"), "{what}");
    let read = read(&bytes, codec, size);
    check_units(&what, &bytes, &facts, &read);
    check_entries(&what, &facts, &read.units);
    check_layers(&what, &facts, &read.units);
    check_track(&what, &facts, &read);
    check_reordering(&what, &read);
}

#[test]
fn every_fact_of_every_stream_is_told_by_its_bytes() {
    for name in files() {
        check(&name, "whole", || usize::MAX);
    }
}

#[test]
fn pieces_of_any_size_tell_the_same() {
    let mut state = 1_u64;
    for name in files() {
        for size in [1, 2, 3, 5, 188] {
            check(&name, &format!("in pieces of {size}"), || size);
        }
        for round in 0..4 {
            check(&name, &format!("in random pieces, {round}"), || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as usize % 700
            });
        }
    }
}

#[test]
fn parameter_sets_for_who_joins_late_are_those_of_the_stream() {
    for name in files() {
        let bytes = vector(&name);
        let codec = annexb::detect(&bytes).unwrap();
        let read = read(&bytes, codec, || usize::MAX);
        let kinds = |data: &[u8]| -> Vec<Vec<u8>> {
            annexb::nal_units(data)
                .filter(|nal| match codec {
                    Codec::H264 => matches!(nal[0] & 0x1F, 7 | 8),
                    _ => matches!(nal[0] >> 1, 32..=34),
                })
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut expected = kinds(&bytes);
        let mut seen = std::collections::BTreeSet::new();
        expected.retain(|set| seen.insert(set.clone()));
        let mine = read.reader.parameter_sets();
        assert_eq!(kinds(mine), expected, "{name}");
        assert!(mine.starts_with(&[0, 0, 0, 1]), "{name}");
        let sum: usize = expected.iter().map(|s| s.len() + 4).sum();
        assert_eq!(mine.len(), sum, "{name}");
    }
}

#[test]
fn a_stream_joined_anywhere_starts_with_what_is_decodable() {
    for name in files() {
        let bytes = vector(&name);
        let codec = annexb::detect(&bytes).unwrap();
        let all = read(&bytes, codec, || usize::MAX).units;
        for skipped in [1, 2, 7, 11, 21] {
            let from = all[skipped].offset as usize;
            let units = read(&bytes[from..], codec, || usize::MAX).units;
            let right = |n: usize| {
                let unit = &all[skipped + n].unit;
                unit.kind.is_key() || unit.recovery == Some(0)
            };
            let refreshed = (0..units.len())
                .find_map(|n| Some(n + usize::from(all[skipped + n].unit.recovery?)));
            let key = (0..units.len()).find(|&n| right(n));
            let begin = match (key, refreshed) {
                (Some(key), Some(refreshed)) => key.min(refreshed),
                (key, refreshed) => key.or(refreshed).unwrap_or(units.len()),
            };
            for (n, unit) in units.iter().enumerate() {
                // Those of the key frame that decoding began with, not of a later one.
                let leading = unit.unit.leading
                    && n > begin
                    && !units[begin + 1..n].iter().any(|u| u.unit.kind.is_key());
                let expected = n < begin || leading;
                assert_eq!(
                    unit.unit.undecodable, expected,
                    "{name} from unit {skipped}: {n} of {begin}"
                );
                assert_eq!(unit.unit.damaged, expected, "{name}");
            }
        }
    }
}

#[test]
fn interlaced_streams_say_which_field_is_first() {
    for (name, codec) in [
        ("h264_interlaced_mbaff.h264", Codec::H264),
        ("hevc_interlaced_fields.h265", Codec::H265),
        ("ffprobe_mpeg2_interlaced.m2v", Codec::Mpeg2Video),
    ] {
        let track = read(&vector(name), codec, || 1000).reader.track();
        assert!(track.interlaced, "{name}");
        assert_eq!(track.field_order, Some(FieldOrder::TopFirst), "{name}");
    }
    let name = "h264_b2_closed.h264";
    let track = read(&vector(name), Codec::H264, || 1000).reader.track();
    assert!(!track.interlaced && track.field_order.is_none());
}
