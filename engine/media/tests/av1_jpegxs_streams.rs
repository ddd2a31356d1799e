//! AV1 and JPEG XS in transport streams, held against their facts and the files that they were
//! made from: every carriage of AV1 that is about, loss of every packet, pieces of any size.

mod common;

use common::{Bench, Writer, facts, vector};
use mirror_media::{AccessUnit, Codec, FrameKind, Limits};
use serde_json::Value;

const AV1_PID: u16 = 0x101;
const JXS_PID: u16 = 0x110;

/// Transport stream, the elementary stream in it, and how many temporal units of it.
const AV1: [(&str, &str, usize); 3] = [
    ("ts_av1_pes_per_tu.ts", "av1_aom_altref.obu", 30),
    ("ts_av1_draft_no_td.ts", "av1_aom_rt_tiles.obu", 30),
    ("ts_av1_draft_td_pes_per_frame.ts", "av1_svt.obu", 40),
];
const JXS: [(&str, &str); 2] = [
    ("ts_jpegxs_422_8b.ts", "jxs_422_8b.jxs"),
    ("ts_jpegxs_422_10b.ts", "jxs_422_10b.jxs"),
];

fn numbers(value: &Value) -> Vec<i64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect()
}

fn stream_of(bench: &Bench, units: &[AccessUnit]) -> Vec<u8> {
    units.iter().flat_map(|u| bench.bytes_of(u)).collect()
}

#[test]
fn temporal_units_of_every_carriage_are_those_of_the_file() {
    for (name, source, count) in AV1 {
        let file = vector(name);
        let elementary = vector(source);
        let facts = facts(name);
        let source_facts: Value = common::facts(source);
        let keys = numbers(&source_facts["key_temporal_units"]);
        for payload in [1316, 188, 1000, 100] {
            let bench = Bench::run(&file, payload);
            let units = bench.units_of(AV1_PID);
            assert_eq!(units.len(), count, "{name} {payload}");
            for (n, unit) in units.iter().enumerate() {
                assert!(!unit.damaged && !unit.undecodable, "{name} {n} {unit:?}");
                let key = keys.contains(&(n as i64));
                let kind = if key { FrameKind::Idr } else { FrameKind::P };
                assert_eq!(unit.kind, kind, "{name} {n}");
                assert_eq!(
                    bench.bytes_of(unit).len(),
                    unit.bytes as usize,
                    "{name} {n}"
                );
                assert!(!unit.dts_derived);
            }
            assert!(stream_of(&bench, &units) == elementary, "{name} {payload}");
            // Shown frames' times; those of the first PES packet of each unit to decode.
            let pes = &facts["pes"]["0x101"];
            let shown: Vec<i64> = units.iter().map(|u| u.pts.unwrap()).collect();
            let decoded: Vec<i64> = units.iter().map(|u| u.dts.unwrap()).collect();
            let all = numbers(&pes["pts"]);
            if all.len() == count {
                assert_eq!((shown, decoded), (all, numbers(&pes["dts"])), "{name}");
            } else {
                // Hidden frames have a PTS only, the moment of their decoding.
                let expected: Vec<i64> = (0..count as i64).map(|n| 97_200 + 3600 * n).collect();
                assert_eq!(shown, expected, "{name}");
                assert!(
                    decoded.is_sorted()
                        && decoded
                            .iter()
                            .all(|d| all.contains(d) || numbers(&pes["dts"]).contains(d))
                );
            }
            let track = &bench.pipeline.tracks()[bench.track(AV1_PID)];
            let size = (u64::from(track.width), u64::from(track.height));
            assert_eq!(track.codec, Codec::Av1);
            assert_eq!(size.0, source_facts["width"].as_u64().unwrap());
            assert_eq!(size.1, source_facts["height"].as_u64().unwrap());
            assert_eq!(
                (track.profile, track.bit_depth, track.chroma_format),
                ("Main", 8, 1)
            );
            let header = bench.pipeline.parameter_sets(units[0].track);
            assert_eq!(header, &elementary[2..2 + header.len()]);
            assert_eq!(header.len(), 13);
        }
    }
}

#[test]
fn a_unit_is_complete_with_its_last_packet() {
    for (name, _, _) in AV1 {
        let bench = Bench::run(&vector(name), 188);
        for unit in bench.units_of(AV1_PID) {
            assert_eq!(unit.completed_by, unit.last_arrival, "{name}");
        }
    }
    for (name, _) in JXS {
        let bench = Bench::run(&vector(name), 188);
        for unit in bench.units_of(JXS_PID) {
            assert_eq!(unit.completed_by, unit.last_arrival, "{name}");
        }
    }
}

/// The stream with one packet after another left out: units must be those of the whole stream,
/// or be damaged.
fn lose_each_packet(name: &str, pid: u16, most_damaged: usize) {
    let file = vector(name);
    let whole = Bench::run(&file, 188);
    let originals: Vec<(AccessUnit, Vec<u8>)> = whole
        .units_of(pid)
        .iter()
        .map(|u| (*u, whole.bytes_of(u)))
        .collect();
    for lost in 3..file.len() / 188 {
        let at = lost * 188;
        let of = u16::from_be_bytes([file[at + 1] & 0x1F, file[at + 2]]);
        if of != pid {
            continue;
        }
        let mut bench = Bench::new(Limits::default());
        for (n, packet) in file.chunks(188).enumerate() {
            bench.push((n != lost).then_some(packet), u32::from(n == lost + 1));
        }
        bench.pipeline.finish();
        bench.drain();
        let units = bench.units_of(pid);
        // A unit that lay in the packet whole is gone; one that lost its beginning may be
        // joined to the one before.
        assert!(units.len() + 1 >= originals.len(), "{name} {lost}");
        let mut damaged = 0;
        for unit in &units {
            if unit.damaged && !unit.undecodable {
                damaged += 1;
                continue;
            }
            let (_, bytes) = originals
                .iter()
                .find(|(u, _)| u.pts == unit.pts)
                .unwrap_or_else(|| panic!("{name} {lost}: a unit of that time"));
            assert!(bench.bytes_of(unit) == *bytes, "{name} {lost}");
        }
        assert!(damaged <= most_damaged, "{name} {lost}: {damaged}");
        assert!(
            damaged > 0 || units.len() < originals.len(),
            "{name} {lost}"
        );
    }
}

#[test]
fn a_lost_packet_damages_the_units_that_it_may_have_touched() {
    for (name, _, _) in AV1 {
        lose_each_packet(name, AV1_PID, 2);
    }
    for (name, _) in JXS {
        lose_each_packet(name, JXS_PID, 1);
    }
}

#[test]
fn pictures_are_those_of_the_file_without_their_boxes() {
    for (name, source) in JXS {
        let file = vector(name);
        let elementary = vector(source);
        let facts = facts(name);
        for payload in [1316, 188, 1000, 100] {
            let bench = Bench::run(&file, payload);
            let units = bench.units_of(JXS_PID);
            let pts: Vec<i64> = units.iter().map(|u| u.pts.unwrap()).collect();
            assert_eq!(pts, numbers(&facts["pes"]["0x110"]["pts"]), "{name}");
            for unit in &units {
                assert!(!unit.damaged && unit.discardable, "{name}");
                assert_eq!(unit.kind, FrameKind::Idr);
                assert_eq!(bench.bytes_of(unit).len(), unit.bytes as usize, "{name}");
            }
            assert!(stream_of(&bench, &units) == elementary, "{name} {payload}");
            let track = &bench.pipeline.tracks()[bench.track(JXS_PID)];
            assert_eq!(
                (track.codec, track.width, track.height),
                (Codec::JpegXs, 192, 96)
            );
            assert_eq!((track.frame_rate, track.interlaced), ((25, 1), false));
            let depth = if source.contains("10b") { 10 } else { 8 };
            assert_eq!((track.bit_depth, track.chroma_format), (depth, 2));
            assert_eq!((track.colour.primaries, track.colour.transfer), (1, 1));
        }
    }
}

/// A program with one stream of private data, registered as AV1 or not.
fn av1_stream(registered: bool) -> Writer {
    let mut writer = Writer::default();
    writer.section(0, &common::pat(0, &[(1, 0x1000)]));
    let mut pmt = common::pmt(1, 0, &[(0x06, AV1_PID)]);
    if registered {
        let at = pmt.len() - 4;
        pmt.truncate(at);
        pmt[at - 1] = 6;
        pmt.extend(b"\x05\x04AV01");
        pmt[2] = (pmt.len() - 3 + 4) as u8;
        let crc = common::crc32(&pmt);
        pmt.extend(crc);
    }
    writer.section(0x1000, &pmt);
    writer
}

/// The temporal units of a file.
fn temporal_units(source: &str) -> Vec<Vec<u8>> {
    let file = vector(source);
    let sizes: Vec<usize> = common::facts(source)["tu"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tu| tu["size"].as_u64().unwrap() as usize)
        .collect();
    let mut rest = &file[..];
    sizes
        .into_iter()
        .map(|size| {
            let (unit, after) = rest.split_at(size);
            rest = after;
            unit.to_vec()
        })
        .collect()
}

#[test]
fn obus_without_start_codes_are_read_by_their_sizes() {
    for (_, source, count) in AV1 {
        for (bounded, registered) in [(true, true), (false, true), (true, false)] {
            let mut writer = av1_stream(registered);
            for (n, unit) in (0..).zip(temporal_units(source)) {
                writer.pes(AV1_PID, 90_000 + 3600 * n, bounded, &unit);
            }
            let bench = Bench::run(&writer.bytes, 1316);
            let units = bench.units_of(AV1_PID);
            assert_eq!(units.len(), count, "{source} {bounded} {registered}");
            assert!(units.iter().all(|u| !u.damaged), "{source}");
            assert!(stream_of(&bench, &units) == vector(source), "{source}");
        }
    }
}

#[test]
fn several_units_in_a_pes_packet_are_told_apart() {
    let units = temporal_units("av1_aom_altref.obu");
    let mut writer = av1_stream(true);
    for (n, pair) in (0..).zip(units.chunks(3)) {
        writer.pes(AV1_PID, 90_000 + 10_800 * n, true, &pair.concat());
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let found = bench.units_of(AV1_PID);
    assert_eq!(found.len(), 30);
    assert!(found.iter().all(|u| !u.damaged));
    assert!(stream_of(&bench, &found) == vector("av1_aom_altref.obu"));
    // Only the first one of a PES packet has a time.
    let timed: Vec<bool> = found.iter().map(|u| u.pts.is_some()).collect();
    assert_eq!(timed[..6], [true, false, false, true, false, false]);
}

#[test]
fn a_stream_joined_in_its_midst_is_undecodable_up_to_its_next_key_frame() {
    for (name, source, count) in AV1 {
        let file = vector(name);
        let key = numbers(&common::facts(source)["key_temporal_units"])[1] as usize;
        // Behind the first unit's packets; tables come again.
        let start = common::facts(name)["random_access_packets"]["0x101"][1]
            .as_u64()
            .unwrap() as usize;
        let from = (start / 2..)
            .find(|&n| file[n * 188 + 1] & 0x5F == 0x40 && file[n * 188 + 2] == 0)
            .unwrap();
        let bench = Bench::run(&file[from * 188..], 188);
        let units = bench.units_of(AV1_PID);
        let first = units.iter().position(|u| u.kind == FrameKind::Idr).unwrap();
        assert_eq!(units.len() - first, count - key, "{name}");
        for (n, unit) in units.iter().enumerate() {
            assert_eq!(unit.damaged, n < first, "{name} {n} {unit:?}");
        }
        assert!(first > 1 && units[1].undecodable, "{name}");
    }
}

#[test]
fn hostile_sizes_and_headers_end_with_their_pes_packet() {
    let units = temporal_units("av1_aom_altref.obu");
    for bad in [
        // obu_size beyond the PES packet, beyond 32 bits, beyond 8 bytes; the forbidden bit;
        // nothing but zeros, nothing at all.
        &[0x12, 0, 0x32, 0xFF, 0x7F, 1, 2, 3][..],
        &[0x12, 0, 0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1],
        &[
            0x12, 0, 0x32, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
        ],
        &[0x12, 0, 0x92, 2, 1, 1],
        &[0, 0, 1, 0x12, 0, 0, 0, 1, 0x32, 0xFF, 0x7F, 1],
        &[0, 0, 1, 0x32, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1],
        &[0, 0, 1, 0, 0, 1, 0, 0, 1],
        &[0; 70_000],
        &[],
    ] {
        let mut writer = av1_stream(true);
        writer.pes(AV1_PID, 90_000, true, &units[0]);
        writer.pes(AV1_PID, 93_600, bad.len() < 60_000, bad);
        writer.pes(AV1_PID, 97_200, true, &units[15]);
        let bench = Bench::run(&writer.bytes, 1316);
        let found = bench.units_of(AV1_PID);
        let keys: Vec<&AccessUnit> = found.iter().filter(|u| u.kind.is_key()).collect();
        assert_eq!(keys.len(), 2, "{bad:?}");
        assert!(keys.iter().all(|u| !u.damaged), "{bad:?}");
        assert!(found.len() <= 3, "{bad:?}");
        for unit in &found {
            bench.bytes_of(unit);
        }
    }
}

#[test]
fn units_larger_than_the_limit_are_closed_and_counted() {
    let limits = Limits {
        max_frame_size: 1000,
        ..Limits::default()
    };
    for (name, pid) in [
        ("ts_av1_pes_per_tu.ts", AV1_PID),
        ("ts_jpegxs_422_8b.ts", JXS_PID),
    ] {
        let mut bench = Bench::new(limits.clone());
        for chunk in vector(name).chunks(188) {
            bench.push(Some(chunk), 0);
        }
        bench.pipeline.finish();
        bench.drain();
        let units = bench.units_of(pid);
        assert!(units.iter().all(|u| u.damaged || u.bytes <= 1000), "{name}");
        assert!(units.iter().all(|u| u.bytes <= 1000 + 188), "{name}");
        let exceeded = bench
            .pipeline
            .counters()
            .discards
            .get(mirror_base::Discard::LimitExceeded);
        assert!(exceeded >= 2, "{name}: {exceeded}");
    }
}

#[test]
fn hostile_picture_headers_damage_their_picture_only() {
    let file = vector("ts_jpegxs_422_8b.ts");
    // The first PES packet's codestream: its header lies in packet 2.
    let soc = file
        .windows(4)
        .position(|w| w == [0xFF, 0x10, 0xFF, 0x50])
        .unwrap();
    let box_start = soc - 30;
    for (at, bytes) in [
        (soc + 12, &[0, 0, 0, 1][..]),
        (soc + 12, &[0, 0, 0x1A, 0xFF]),
        (soc + 12, &[0xFF; 4]),
        (soc + 20, &[0, 0, 0, 0]),
        (soc, &[0xFF, 0xD8]),
        (box_start, &[0; 4]),
        (box_start, &[0xFF; 4]),
        (box_start + 4, &[0; 4]),
    ] {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let bench = Bench::run(&file, 1316);
        let damaged: Vec<bool> = bench.units_of(JXS_PID).iter().map(|u| u.damaged).collect();
        assert_eq!(
            damaged,
            [true, false, false, false, false, false],
            "{at} {bytes:?}"
        );
        let track = &bench.pipeline.tracks()[bench.track(JXS_PID)];
        assert_eq!((track.width, track.height), (192, 96));
    }
}

/// A program with one JPEG XS stream.
fn jxs_stream() -> Writer {
    let mut writer = Writer::default();
    writer.tables(&[(0x32, JXS_PID)]);
    writer
}

/// The box of MPEG-TS before the codestreams of a picture.
fn jxes(frat: u32) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 30];
    out.extend(b"jxes\0\0\0\x02");
    out.extend(frat.to_be_bytes());
    // schar, profile, level, BT.2020 PQ, a time code.
    out.extend([0x80, 0x70, 0, 0, 0, 0, 9, 16, 9, 0x80, 10, 20, 30, 12]);
    out
}

#[test]
fn two_fields_in_a_pes_packet_are_one_picture() {
    let file = vector("jxs_422_8b.jxs");
    for bounded in [true, false] {
        let mut writer = jxs_stream();
        for (n, fields) in (0..).zip(file.chunks(2 * 6912)) {
            // Top field first, 60/1.001 fields a second.
            let picture = [jxes(0x4200_001E), fields.to_vec()].concat();
            writer.pes(JXS_PID, 90_000 + 3003 * n, bounded, &picture);
        }
        let bench = Bench::run(&writer.bytes, 1316);
        let units = bench.units_of(JXS_PID);
        assert_eq!(units.len(), 3, "{bounded}");
        assert!(units.iter().all(|u| !u.damaged && u.bytes == 2 * 6912));
        assert!(stream_of(&bench, &units) == file);
        let track = &bench.pipeline.tracks()[bench.track(JXS_PID)];
        assert_eq!((track.width, track.height), (192, 192));
        assert_eq!((track.frame_rate, track.interlaced), ((30_000, 1001), true));
        assert_eq!(track.colour.transfer, 16);
        assert_eq!(track.side.timecode, Some([10, 20, 30, 12]));
        // Neither waits for its successor.
        assert!(units.iter().all(|u| u.completed_by == u.last_arrival));
    }
}

#[test]
fn pictures_without_a_length_end_with_their_pes_packet() {
    let mut file = vector("jxs_422_8b.jxs");
    let mut writer = jxs_stream();
    for (n, picture) in (0..).zip(file.chunks_mut(6912)) {
        picture[12..16].fill(0);
        writer.pes(
            JXS_PID,
            90_000 + 3600 * n,
            n % 2 == 0,
            &[jxes(0x0100_0019), picture.to_vec()].concat(),
        );
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let units = bench.units_of(JXS_PID);
    assert!(units.iter().all(|u| !u.damaged));
    assert!(stream_of(&bench, &units) == file);
}

/// `data` in PES packets of the greatest length, of which only the first has a time.
fn long_pes(writer: &mut Writer, pid: u16, pts: u64, data: &[u8]) {
    for (n, part) in data.chunks(65_520).enumerate() {
        if n == 0 {
            writer.pes(pid, pts, true, part);
            continue;
        }
        let mut pes = vec![0, 0, 1, 0xBD, 0, 0, 0x80, 0, 0];
        pes.extend(part);
        let length = u16::try_from(pes.len() - 6).unwrap();
        pes[4..6].copy_from_slice(&length.to_be_bytes());
        let mut at = 0;
        while at < pes.len() {
            at += writer.packet(pid, at == 0, &pes[at..]);
        }
    }
}

#[test]
fn pictures_longer_than_a_pes_packet_go_on_in_the_next() {
    // A codestream of 200,000 bytes, its header that of a real one.
    let mut picture = vector("jxs_422_8b.jxs")[..6910].to_vec();
    picture.resize(199_998, 0x5A);
    picture.extend([0xFF, 0x11]);
    picture[12..16].copy_from_slice(&200_000_u32.to_be_bytes());
    let mut writer = jxs_stream();
    for n in 0..3 {
        let data = [jxes(0x0100_0019), picture.clone()].concat();
        long_pes(&mut writer, JXS_PID, 90_000 + 3600 * n, &data);
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let units = bench.units_of(JXS_PID);
    assert_eq!(units.len(), 3);
    assert!(units.iter().all(|u| !u.damaged && u.bytes == 200_000));
    assert!(bench.bytes_of(&units[1]) == picture);
    // AV1: a temporal unit with that much in its frame OBU, with start codes and without.
    let key = temporal_units("av1_aom_altref.obu").remove(0);
    let (head, frame) = key.split_at(15);
    let mut payload = frame[3..].to_vec();
    payload.resize(150_000, 0x5A);
    let mut obu = vec![0x32, 0xF0, 0x93, 0x09];
    obu.extend(&payload);
    let unit = [head, &obu].concat();
    let (delimiter, sequence) = head.split_at(2);
    let escaped = escape(sequence);
    let coded = [
        &[0, 0, 1],
        delimiter,
        &[0, 0, 1],
        &escaped,
        &[0, 0, 1],
        &escape(&obu),
    ]
    .concat();
    for data in [&unit, &coded] {
        let mut writer = av1_stream(true);
        for n in 0..3 {
            long_pes(&mut writer, AV1_PID, 90_000 + 3600 * n, data);
        }
        let bench = Bench::run(&writer.bytes, 1316);
        let units = bench.units_of(AV1_PID);
        assert_eq!(units.len(), 3);
        for found in &units {
            assert!(!found.damaged && found.kind == FrameKind::Idr, "{found:?}");
            assert!(bench.bytes_of(found) == unit);
        }
    }
}

fn escape(obu: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut zeros = 0;
    for &byte in obu {
        if zeros == 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[test]
fn start_codes_and_escapes_are_found_wherever_packets_are_cut() {
    // Start codes of four bytes and OBUs without sizes, in PES packets without length, behind
    // stuffing of so many bytes that every alignment comes.
    let units = temporal_units("av1_svt.obu");
    for lead in 0..120 {
        let padding = [&[0x7A, lead as u8 + 1][..], &vec![0; lead], &[0x80]].concat();
        let mut writer = av1_stream(true);
        let mut expected = Vec::new();
        for (n, unit) in (0..).zip(units.iter().take(4)) {
            let mut data = vec![0, 0, 0, 1, 0x12, 0, 0, 0, 0, 1];
            data.extend(escape(&padding));
            expected.extend([&[0x12, 0][..], &padding].concat());
            let mut rest = &unit[2..];
            while let Some(obu) = mirror_media::codec::av1::Obu::read(rest) {
                data.extend([0, 0, 0, 1]);
                data.extend(escape(&[&[rest[0] & !2], obu.payload].concat()));
                expected.extend(&rest[..obu.bytes]);
                rest = &rest[obu.bytes..];
            }
            writer.pes(AV1_PID, 90_000 + 3600 * n, false, &data);
        }
        let bench = Bench::run(&writer.bytes, 1316);
        let found = bench.units_of(AV1_PID);
        assert_eq!(found.len(), 4, "{lead}");
        assert!(found.iter().all(|u| !u.damaged), "{lead}");
        for unit in &found {
            assert_eq!(bench.bytes_of(unit).len(), unit.bytes as usize, "{lead}");
        }
        assert!(stream_of(&bench, &found) == expected, "{lead}");
    }
}
