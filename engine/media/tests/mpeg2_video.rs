//! MPEG-2 video: what an encoder's stream says by ffprobe's word, and what no encoder at hand
//! makes: field pictures, missing slices, captions.

mod common;

use common::{Bench, VIDEO_PID, Writer, facts, kind_letter, vector};
use mirror_media::files::annexb::{self, AnnexB, FileUnit};
use mirror_media::{Codec, FrameKind, Limits};
use serde_json::json;

fn read(bytes: &[u8], codec: Codec, size: usize) -> (Vec<FileUnit>, AnnexB) {
    let mut reader = AnnexB::new(codec, &Limits::default()).unwrap();
    let mut units = Vec::new();
    for piece in bytes.chunks(size) {
        reader.push(piece);
        units.extend(core::iter::from_fn(|| reader.poll_unit()));
    }
    reader.finish();
    units.extend(core::iter::from_fn(|| reader.poll_unit()));
    (units, reader)
}

#[test]
fn streams_are_what_ffprobe_says() {
    for name in ["ffprobe_mpeg2_interlaced.m2v", "ffprobe_hevc_hdr10.h265"] {
        let facts = facts(name);
        let bytes = vector(name);
        let codec = annexb::detect(&bytes).unwrap();
        for size in [1, 3, 100, 1 << 20] {
            let (mut units, reader) = read(&bytes, codec, size);
            assert!(units.iter().all(|u| !u.unit.damaged), "{name}");
            let sum: u64 = units.iter().map(|u| u64::from(u.unit.bytes)).sum();
            assert_eq!(sum, bytes.len() as u64, "{name}");
            units.sort_by_key(|u| u.unit.order);
            let types: String = units.iter().map(|u| kind_letter(u.unit.kind)).collect();
            assert_eq!(facts["frame_types_display_order"], types, "{name}");
            let keys: Vec<usize> = (0..units.len())
                .filter(|&n| units[n].unit.kind.is_key())
                .collect();
            assert_eq!(facts["key_frames_display"], json!(keys), "{name}");
            let track = reader.track();
            assert_eq!(facts["width"], track.width);
            assert_eq!(facts["height"], track.height);
            assert_eq!(facts["profile"], track.profile);
            assert_eq!(facts["level"], track.level);
            assert_eq!(facts["bit_depth"], track.bit_depth);
            assert_eq!(facts["interlaced"], track.interlaced);
            assert_eq!(facts["reorder_depth"], track.reorder_depth);
            let (n, d) = track.frame_rate;
            assert_eq!(facts["r_frame_rate"], format!("{n}/{d}"));
            let colour = [
                track.colour.primaries,
                track.colour.transfer,
                track.colour.matrix,
            ];
            assert_eq!(facts["colour"], json!(colour));
        }
    }
}

#[test]
fn mastering_display_and_content_light_are_what_ffprobe_says() {
    let bytes = vector("ffprobe_hevc_hdr10.h265");
    let track = read(&bytes, Codec::H265, 1000).1.track();
    let mastering = track.side.mastering.unwrap();
    let facts = facts("ffprobe_hevc_hdr10.h265");
    let side = &facts["side_data"][0];
    let [g, b, r] = mastering.primaries;
    let white = mastering.white_point;
    for (name, value) in [
        ("green_x", g[0]),
        ("green_y", g[1]),
        ("blue_x", b[0]),
        ("blue_y", b[1]),
        ("red_x", r[0]),
        ("red_y", r[1]),
        ("white_point_x", white[0]),
        ("white_point_y", white[1]),
    ] {
        assert_eq!(side[name], format!("{value}/50000"), "{name}");
    }
    assert_eq!(
        side["max_luminance"],
        format!("{}/10000", mastering.max_luminance)
    );
    assert_eq!(
        side["min_luminance"],
        format!("{}/10000", mastering.min_luminance)
    );
    let light = track.side.light.unwrap();
    assert_eq!(facts["side_data"][1]["max_content"], light.max);
    assert_eq!(facts["side_data"][1]["max_average"], light.max_average);
}

#[test]
fn a_transport_stream_s_types_keys_and_order_are_those_of_its_facts() {
    let bench = Bench::run(&vector("ts_mpeg2_mp2.ts"), 1316);
    let units = bench.units_of(VIDEO_PID);
    let facts = facts("ts_mpeg2_mp2.ts");
    let expected: Vec<(i64, i64, bool)> = facts["video_packets"]["0x100"]["pts_dts_key"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v[0].as_i64().unwrap(), v[1].as_i64().unwrap(), v[2] == 1))
        .collect();
    let mine: Vec<(i64, i64, bool)> = units
        .iter()
        .map(|u| (u.pts.unwrap(), u.dts.unwrap(), u.kind.is_key()))
        .collect();
    assert_eq!(mine, expected);
    let mut by_time = units.clone();
    by_time.sort_by_key(|u| u.pts);
    assert!(
        by_time.is_sorted_by_key(|u| u.order),
        "order is that of time"
    );
    let b = units.iter().filter(|u| u.kind == FrameKind::B);
    assert!(b.clone().count() > 20 && b.clone().all(|u| u.discardable));
    let track = &bench.pipeline.tracks()[bench.track(VIDEO_PID)];
    assert_eq!(
        (track.width, track.height, track.profile),
        (176, 144, "Main")
    );
    assert_eq!((track.frame_rate, track.reorder_depth), ((25, 1), 1));
}

const I: u8 = 1;
const P: u8 = 2;
const B: u8 = 3;
const TOP: u8 = 1;
const BOTTOM: u8 = 2;
const FRAME: u8 = 3;

/// 64 × 64, 25 a second, Main profile at Main level; interlaced: 4 rows of macroblocks.
fn sequence() -> Vec<u8> {
    let mut es = vec![
        0, 0, 1, 0xB3, 0x04, 0x00, 0x40, 0x13, 0xFF, 0xFF, 0xE0, 0x18,
    ];
    es.extend([0, 0, 1, 0xB5, 0x14, 0x82, 0x00, 0x01, 0x00, 0x00]);
    es
}

fn group(closed: bool) -> Vec<u8> {
    // 01:02:03, 4 pictures.
    let bits = 1_u32 << 26 | 2 << 20 | 1 << 19 | 3 << 13 | 4 << 7 | u32::from(closed) << 6;
    let mut es = vec![0, 0, 1, 0xB8];
    es.extend(bits.to_be_bytes());
    es
}

fn picture(kind: u8, reference: u16, structure: u8, rows: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut es = vec![0, 0, 1, 0x00];
    let bits = u32::from(reference) << 22 | u32::from(kind) << 19 | 0xFFFF << 3;
    es.extend(bits.to_be_bytes());
    es.extend([0, 0, 1, 0xB5, 0x8F, 0xFF, 0xF0 | structure, 0x80, 0x80]);
    for row in rows {
        es.extend([0, 0, 1, row, 0x13, 0x37, 0x55, 0xAA, 0x11]);
    }
    es
}

fn units(es: &[u8]) -> Vec<FileUnit> {
    read(es, Codec::Mpeg2Video, 7).0
}

#[test]
fn two_field_pictures_are_one_unit() {
    let es = [
        sequence(),
        group(true),
        picture(I, 0, TOP, 1..=2),
        picture(P, 0, BOTTOM, 1..=2),
        picture(P, 1, TOP, 1..=2),
        picture(P, 1, BOTTOM, 1..=2),
        picture(P, 2, FRAME, 1..=4),
    ]
    .concat();
    let units = units(&es);
    let kinds: Vec<FrameKind> = units.iter().map(|u| u.unit.kind).collect();
    assert_eq!(kinds, [FrameKind::Idr, FrameKind::P, FrameKind::P]);
    assert!(units.iter().all(|u| !u.unit.damaged));
    let counts: Vec<i32> = units.iter().map(|u| u.unit.order.unwrap().count).collect();
    assert_eq!(counts, [0, 1, 2]);
}

#[test]
fn a_field_without_its_other_is_a_unit_of_its_own() {
    let es = [
        sequence(),
        group(true),
        picture(I, 0, TOP, 1..=2),
        picture(P, 1, TOP, 1..=2),
        picture(P, 1, BOTTOM, 1..=2),
    ]
    .concat();
    let counts: Vec<usize> = units(&es).iter().map(|u| u.nal_types.len()).collect();
    assert_eq!(counts, [7, 8]);
}

#[test]
fn missing_slices_damage_their_picture_wherever_they_lie() {
    for missing in 1..=4_u8 {
        let es = [
            sequence(),
            group(true),
            picture(I, 0, FRAME, 1..=4),
            picture(P, 1, FRAME, (1..=4).filter(|&row| row != missing)),
            picture(P, 2, FRAME, 1..=4),
        ]
        .concat();
        let damaged: Vec<bool> = units(&es).iter().map(|u| u.unit.damaged).collect();
        assert_eq!(damaged, [false, true, false], "row {missing}");
    }
    // Several slices in a row are as good.
    let es = [
        sequence(),
        group(true),
        picture(I, 0, FRAME, [1, 1, 2, 3, 3, 3, 4]),
    ]
    .concat();
    assert!(!units(&es)[0].unit.damaged);
}

#[test]
fn an_open_group_s_leading_pictures_are_not_decodable_where_decoding_begins() {
    let group_of = |closed| {
        [
            sequence(),
            group(closed),
            picture(I, 2, FRAME, 1..=4),
            picture(B, 0, FRAME, 1..=4),
            picture(B, 1, FRAME, 1..=4),
            picture(P, 3, FRAME, 1..=4),
        ]
        .concat()
    };
    let es = [group_of(false), group_of(false)].concat();
    let units = units(&es);
    let leading: Vec<bool> = units.iter().map(|u| u.unit.leading).collect();
    assert_eq!(
        leading,
        [false, true, true, false, false, true, true, false]
    );
    let undecodable: Vec<bool> = units.iter().map(|u| u.unit.undecodable).collect();
    assert_eq!(
        undecodable,
        [false, true, true, false, false, false, false, false]
    );
    let kinds: Vec<FrameKind> = units.iter().map(|u| u.unit.kind).collect();
    assert_eq!((kinds[0], kinds[4]), (FrameKind::Cra, FrameKind::Cra));
}

#[test]
fn captions_and_time_codes_are_seen() {
    let captions = [
        0, 0, 1, 0xB2, b'G', b'A', b'9', b'4', 3, 0x41, 0xFF, 0xFC, 0x94, 0x20, 0xFF,
    ];
    let mut first = picture(I, 0, FRAME, []);
    first.extend(captions);
    for row in 1..=4 {
        first.extend([0, 0, 1, row, 0x13, 0x37]);
    }
    let es = [sequence(), group(true), first, picture(P, 1, FRAME, 1..=4)].concat();
    let (units, reader) = read(&es, Codec::Mpeg2Video, 5);
    assert_eq!(units.len(), 2);
    let side = reader.track().side;
    assert!(side.cea608 && !side.cea708);
    assert_eq!(side.timecode, Some([1, 2, 3, 4]));
}

#[test]
fn units_come_out_of_pes_packets_of_any_cut() {
    let bytes = vector("ffprobe_mpeg2_interlaced.m2v");
    let expected: Vec<(FrameKind, u32)> = units(&bytes)
        .iter()
        .map(|u| (u.unit.kind, u.unit.bytes))
        .collect();
    for size in [170, 999, 5000] {
        let mut writer = Writer::default();
        writer.tables(&[(0x02, VIDEO_PID)]);
        for (n, piece) in bytes.chunks(size).enumerate() {
            writer.pes(VIDEO_PID, n as u64 * 3003, n % 2 == 0, piece);
        }
        let bench = Bench::run(&writer.bytes, 1316);
        let units = bench.units_of(VIDEO_PID);
        let mine: Vec<(FrameKind, u32)> = units.iter().map(|u| (u.kind, u.bytes)).collect();
        assert_eq!(mine.len(), expected.len(), "{size}");
        assert!(
            mine.iter().map(|u| u.0).eq(expected.iter().map(|u| u.0)),
            "{size}"
        );
        let whole: Vec<u8> = units.iter().flat_map(|u| bench.bytes_of(u)).collect();
        assert!(whole == bytes, "{size}");
    }
}
