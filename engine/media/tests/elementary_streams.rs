//! H.264 and HEVC elementary streams of several encoders, wrapped into MPEG-TS in several ways:
//! access units, frame types, key frames, parameter sets and bytes against their facts.

mod common;

use common::{Bench, VIDEO_PID, Writer, facts, kind_letter, vector};
use mirror_media::FrameKind;

const H264: [&str; 10] = [
    "h264_b2_closed",
    "h264_b3pyr_opengop",
    "h264_baseline",
    "h264_high422_10bit",
    "h264_interlaced_mbaff",
    "h264_intra_refresh",
    "h264_ipp_aud",
    "h264_multislice4",
    "h264_ntsc_hdronce",
    "h264_startcode_mix",
];
const H265: [&str; 8] = [
    "hevc_b3_closed",
    "hevc_b3_opengop_cra",
    "hevc_hrd",
    "hevc_interlaced_fields",
    "hevc_ipp_aud",
    "hevc_main10",
    "hevc_slices3",
    "hevc_temporal_layers",
];

/// How an elementary stream is cut into PES packets.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// One unbounded PES packet for each access unit.
    Unbounded,
    /// One bounded PES packet for each access unit.
    Bounded,
    /// Without regard to access units.
    Every(usize),
}

struct Case {
    file: String,
    stream_type: u8,
}

fn cases() -> impl Iterator<Item = Case> {
    let h264 = H264.iter().map(|n| Case {
        file: format!("{n}.h264"),
        stream_type: 0x1B,
    });
    let h265 = H265.iter().map(|n| Case {
        file: format!("{n}.h265"),
        stream_type: 0x24,
    });
    h264.chain(h265)
}

fn wrap(case: &Case, cut: Cut) -> Vec<u8> {
    let es = vector(&case.file);
    let mut writer = Writer::default();
    writer.tables(&[(case.stream_type, VIDEO_PID)]);
    match cut {
        Cut::Every(size) => {
            for (n, piece) in es.chunks(size).enumerate() {
                writer.pes(VIDEO_PID, n as u64 * 3600, false, piece);
            }
        }
        Cut::Bounded | Cut::Unbounded => {
            let facts = facts(&case.file);
            let units = facts["au"].as_array().unwrap();
            let starts: Vec<usize> = units
                .iter()
                .map(|u| u["offset"].as_u64().unwrap() as usize)
                .collect();
            for (n, &start) in starts.iter().enumerate() {
                let end = starts.get(n + 1).copied().unwrap_or(es.len());
                writer.pes(
                    VIDEO_PID,
                    n as u64 * 3600,
                    matches!(cut, Cut::Bounded),
                    &es[start..end],
                );
            }
        }
    }
    writer.bytes
}

fn key_units(facts: &serde_json::Value) -> Vec<usize> {
    let list = |name: &str| facts[name].as_array().cloned().unwrap_or_default();
    let mut keys: Vec<usize> = list("idr_access_units")
        .iter()
        .map(|v| v.as_u64().unwrap() as usize)
        .collect();
    keys.extend(
        list("irap_access_units")
            .iter()
            .map(|v| v[0].as_u64().unwrap() as usize),
    );
    let recovery = list("recovery_point_sei");
    keys.extend(
        recovery
            .iter()
            .filter(|v| v[1] == 0)
            .map(|v| v[0].as_u64().unwrap() as usize),
    );
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn check(case: &Case, cut: Cut, payload: usize) {
    let what = format!("{} {cut:?} in payloads of {payload}", case.file);
    let facts = facts(&case.file);
    let es = vector(&case.file);
    let bench = Bench::run(&wrap(case, cut), payload);
    let units = bench.units_of(VIDEO_PID);
    let types: String = units.iter().map(|u| kind_letter(u.kind)).collect();
    assert_eq!(
        types,
        facts["frame_types_decode_order"].as_str().unwrap(),
        "{what}"
    );
    assert_eq!(
        units.len() as u64,
        facts["access_units"].as_u64().unwrap(),
        "{what}"
    );
    let keys: Vec<usize> = (0..units.len())
        .filter(|&n| units[n].kind.is_key())
        .collect();
    assert_eq!(keys, key_units(&facts), "{what}");
    let mut whole = Vec::new();
    for (n, unit) in units.iter().enumerate() {
        assert!(!unit.damaged, "{what}: unit {n}");
        // Zero bytes before a start code may go with either unit (Annex B, trailing_zero_8bits).
        let offset = facts["au"][n]["offset"].as_u64().unwrap() as usize;
        let apart = &es[offset.min(whole.len())..offset.max(whole.len())];
        assert!(
            apart.iter().all(|&b| b == 0),
            "{what}: unit {n} at {}, not {offset}",
            whole.len()
        );
        let bytes = bench.bytes_of(unit);
        assert_eq!(bytes.len(), unit.bytes as usize, "{what}: unit {n}");
        whole.extend(bytes);
        if !matches!(cut, Cut::Every(_)) {
            assert_eq!(unit.pts, Some(n as i64 * 3600), "{what}: unit {n}");
        }
    }
    assert!(whole == es, "{what}: bytes differ");
    let track = &bench.pipeline.tracks()[bench.track(VIDEO_PID)];
    let number = |name: &str| facts[name].as_u64().unwrap() as u32;
    assert_eq!(
        (track.width, track.height),
        (number("width"), number("height")),
        "{what}"
    );
    assert_eq!(u32::from(track.bit_depth), number("bit_depth"), "{what}");
    assert_eq!(
        u32::from(track.chroma_format),
        number("chroma_format_idc"),
        "{what}"
    );
    assert_eq!(u32::from(track.level), number("level_idc"), "{what}");
    let rate = format!("{}/{}", track.frame_rate.0, track.frame_rate.1);
    assert_eq!(rate, facts["r_frame_rate"].as_str().unwrap(), "{what}");
    let interlaced = facts["interlaced_flags"]
        .as_array()
        .unwrap()
        .iter()
        .any(|f| f[0] == 1);
    assert_eq!(track.interlaced, interlaced, "{what}");
    assert!(!track.profile.is_empty(), "{what}");
}

#[test]
fn units_types_keys_and_bytes_are_those_of_the_stream_in_unbounded_pes() {
    for case in cases() {
        check(&case, Cut::Unbounded, 1316);
    }
}

#[test]
fn units_types_keys_and_bytes_are_those_of_the_stream_in_bounded_pes() {
    for case in cases() {
        check(&case, Cut::Bounded, 1316);
    }
}

#[test]
fn unit_boundaries_need_no_help_from_pes_boundaries() {
    for case in cases() {
        // 170 bytes and a header of 14 fill a packet: no stuffing, and codes straddle everywhere.
        for size in [170, 1000, 10_000] {
            check(&case, Cut::Every(size), 1316);
        }
    }
}

#[test]
fn payloads_that_are_not_whole_packets_give_the_same_units() {
    for case in cases() {
        for payload in [188, 900, 1000, 1456] {
            check(&case, Cut::Unbounded, payload);
        }
    }
}

#[test]
fn discardable_units_are_those_that_nothing_refers_to() {
    let case = Case {
        file: "h264_b3pyr_opengop.h264".to_owned(),
        stream_type: 0x1B,
    };
    let bench = Bench::run(&wrap(&case, Cut::Unbounded), 1316);
    let units = bench.units_of(VIDEO_PID);
    assert!(
        units
            .iter()
            .all(|u| !u.discardable || u.kind == FrameKind::B)
    );
    // Of each three B pictures of the pyramid one is referred to.
    let discardable = units.iter().filter(|u| u.discardable).count();
    let b = units.iter().filter(|u| u.kind == FrameKind::B).count();
    assert!(discardable > 0 && discardable < b);
}

#[test]
fn an_end_that_the_source_shows_completes_a_unit_at_once() {
    let case = Case {
        file: "h264_ipp_aud.h264".to_owned(),
        stream_type: 0x1B,
    };
    for cut in [Cut::Bounded, Cut::Unbounded] {
        let bench = Bench::run(&wrap(&case, cut), 188);
        let units = bench.units_of(VIDEO_PID);
        let late = units
            .iter()
            .filter(|u| u.completed_by > u.last_arrival)
            .count();
        assert!(
            late <= 10,
            "{cut:?}: {late} of {} waited for their successor",
            units.len()
        );
    }
}
