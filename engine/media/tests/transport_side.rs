//! What transport streams carry beside pictures and sound, packets of other sizes, streams that
//! say wrongly what they are, and times over days.

mod common;

use core::time::Duration;

use common::{Bench, VIDEO_PID, Writer, crc32, facts, pat, vector};
use mirror_base::ring::SlotMeta;
use mirror_base::{Instant, SlotRing};
use mirror_media::{AccessUnit, Codec, Format, Limits, Packet, Pipeline, Splice, SpliceCommand};

fn splices(bench: &mut Bench) -> Vec<Splice> {
    core::iter::from_fn(|| bench.pipeline.poll_splice()).collect()
}

#[test]
fn splice_sections_are_units_and_their_commands_have_times() {
    let facts = facts("ts_h264_scte35.ts");
    let mut sections = Vec::new();
    for entry in facts["scte35"].as_array().unwrap() {
        let before = entry["before_au"].as_i64().unwrap();
        for hex in entry["sections_hex"].as_array().unwrap() {
            sections.push((before, hex.as_str().unwrap().to_owned()));
        }
    }
    for payload in [1316, 188, 1000, 100] {
        let mut bench = Bench::run(&vector("ts_h264_scte35.ts"), payload);
        let units = bench.units_of(0x1F4);
        assert_eq!(units.len(), 8);
        for (unit, (before, hex)) in units.iter().zip(&sections) {
            let bytes = bench.bytes_of(unit);
            let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!((&text, unit.bytes as usize), (hex, bytes.len()));
            // The program's clock at that place: its reference stands before each picture.
            assert_eq!(unit.pts, Some(81_000 + 3600 * (before - 1)), "{hex}");
            assert!(!unit.damaged);
        }
        let splices = splices(&mut bench);
        let insert = |event, out, cancel, duration| SpliceCommand::Insert {
            event,
            out,
            cancel,
            duration,
        };
        let found: Vec<_> = splices.iter().map(|s| (s.command, s.pts)).collect();
        assert_eq!(
            found,
            [
                (SpliceCommand::Null, None),
                (
                    insert(0x4800_008F, true, false, Some(45_000)),
                    Some(198_000)
                ),
                (SpliceCommand::TimeSignal, Some(234_000)),
                (insert(0x4800_0090, false, false, None), None),
                (SpliceCommand::TimeSignal, None),
                (insert(0x4800_0091, false, true, None), None),
                // 216,400 and the section's adjustment of 50,000.
                (
                    insert(0x4800_0092, true, false, Some(27_000)),
                    Some(266_400)
                ),
                (SpliceCommand::Other(0xFF), None),
            ]
        );
        let track = bench.track(0x1F4) as u16;
        assert!(
            splices
                .iter()
                .all(|s| s.track == track && s.received.is_some())
        );
        let start = splices[2].segmentation.unwrap();
        assert_eq!((start.event, start.kind), (0x4800_010A, 0x30));
        assert_eq!(start.duration, Some(2_700_000));
    }
}

#[test]
fn a_splice_command_that_is_repeated_is_one_command() {
    let text = "fc302500000000000000fff014054800008f7feffe00030570fe0000afc80c0d01020000aa35eed1";
    let section: Vec<u8> = (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let mut writer = Writer::default();
    writer.tables(&[(0x86, 0x200)]);
    for _ in 0..3 {
        writer.section(0x200, &section);
    }
    let mut broken = section;
    broken[20] ^= 1;
    writer.section(0x200, &broken);
    let mut bench = Bench::run(&writer.bytes, 1316);
    assert_eq!(bench.units_of(0x200).len(), 3);
    assert_eq!(splices(&mut bench).len(), 1);
    let discards = &bench.pipeline.counters().discards;
    assert_eq!(discards.get(mirror_base::Discard::MalformedPsi), 1);
}

#[test]
fn klv_units_have_times_with_and_without_access_unit_cells() {
    let name = "ts_h264_klv_sync_async.ts";
    let packets = vector("klv_packets.bin");
    let pes = facts(name);
    let times: Vec<i64> = pes["pes"]["0x1f1"]["pts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect();
    for payload in [1316, 188, 1000, 100] {
        let bench = Bench::run(&vector(name), payload);
        for pid in [0x1F1, 0x1F2] {
            let units = bench.units_of(pid);
            assert_eq!(units.len(), 10, "{pid:#x} in {payload}");
            let whole: Vec<u8> = units.iter().flat_map(|u| bench.bytes_of(u)).collect();
            assert!(whole == packets, "{pid:#x} in {payload}");
            for (n, unit) in units.iter().enumerate() {
                let pts = unit.pts.unwrap();
                assert!(!unit.damaged && unit.bytes == 64);
                // Without a time of its own a unit has that of its arrival, half a second before
                // the pictures that come with it.
                let late = times[n] - pts;
                let expected = if pid == 0x1F1 { 0..=0 } else { 9_000..=30_000 };
                assert!(expected.contains(&late), "{pid:#x} {n}: {late}");
            }
        }
    }
}

/// A KLV unit with `n` bytes of value.
fn klv(n: u8) -> Vec<u8> {
    let mut unit = vec![
        6, 0x0E, 0x2B, 0x34, 2, 0x0B, 1, 1, 0x0E, 1, 3, 1, 1, 0, 0, 0,
    ];
    unit.extend([0x81, n]);
    unit.extend((0..n).map(|b| b ^ n));
    unit
}

/// A PMT with one stream and its descriptors.
fn map_of(kind: u8, pid: u16, descriptors: &[u8]) -> Vec<u8> {
    let mut s = vec![2, 0xB0, 0, 0, 1, 0xC1, 0, 0, 0xFF, 0xFF, 0xF0, 0, kind];
    s.extend((0xE000 | pid).to_be_bytes());
    s.extend([0xF0, descriptors.len() as u8]);
    s.extend(descriptors);
    s[2] = (s.len() - 3 + 4) as u8;
    let crc = crc32(&s);
    s.extend(crc);
    s
}

#[test]
fn subtitles_and_teletext_are_named_and_passed_on_by_pes_packets() {
    // Data that begins as another codec's might.
    let page = [0x10, 0x02, 0x2C, 0x0B, 0x77, 0x55, 0x15].repeat(30);
    for (descriptor, codec, name, language) in [
        (
            &b"\x59\x08fra\x10\0\x01\0\x01"[..],
            Codec::DvbSubtitles,
            "DVB_SUBTITLES",
            *b"fra",
        ),
        (b"\x56\x05deu\x09\0", Codec::Teletext, "TELETEXT", *b"deu"),
    ] {
        let mut writer = Writer::default();
        writer.section(0, &pat(0, &[(1, 0x1000)]));
        writer.section(0x1000, &map_of(0x06, 0x1F1, descriptor));
        for n in 0..5 {
            writer.pes(0x1F1, 90_000 + n * 3600, true, &page);
        }
        let bench = Bench::run(&writer.bytes, 1316);
        let track = &bench.pipeline.tracks()[0];
        assert_eq!((track.codec, track.language), (codec, language));
        assert_eq!(track.codec.name(), name);
        assert!(!codec.is_video() && !codec.is_audio());
        let units = bench.units_of(0x1F1);
        assert_eq!(units.len(), 5, "{name}");
        assert!(units.iter().all(|u| !u.damaged && u.bytes == 210));
        assert_eq!(units[4].pts, Some(90_000 + 4 * 3600));
    }
}

#[test]
fn a_klv_unit_may_lie_in_several_cells_and_several_units_in_one() {
    const METADATA: &[u8] = b"\x26\x09\x01\x00\xFFKLVA\x00\x0F";
    let cell = |flags: u8, data: &[u8]| {
        let mut cell = vec![0, 0, flags];
        cell.extend((data.len() as u16).to_be_bytes());
        cell.extend(data);
        cell
    };
    let (a, b, c) = (klv(200), klv(30), klv(40));
    let mut writer = Writer::default();
    writer.section(0, &pat(0, &[(1, 0x1000)]));
    writer.section(0x1000, &map_of(0x15, 0x1F1, METADATA));
    let first = [cell(0x80, &a[..70]), cell(0, &a[70..100])].concat();
    writer.pes(0x1F1, 90_000, true, &first);
    writer.pes(0x1F1, 93_600, true, &cell(0x40, &a[100..]));
    writer.pes(
        0x1F1,
        97_200,
        true,
        &cell(0xC0, &[b.clone(), c.clone()].concat()),
    );
    // One that ends before its end, and a whole one behind it.
    writer.pes(0x1F1, 100_800, true, &cell(0x80, &a[..90]));
    writer.pes(0x1F1, 104_400, true, &cell(0xC0, &b));
    for payload in [1316, 188, 70] {
        let bench = Bench::run(&writer.bytes, payload);
        let units = bench.units_of(0x1F1);
        let facts: Vec<_> = units.iter().map(|u| (u.pts, u.damaged)).collect();
        assert_eq!(
            facts,
            [
                (Some(90_000), false),
                (Some(97_200), false),
                (Some(97_200), false),
                (Some(100_800), true),
                (Some(104_400), false),
            ]
        );
        for (unit, whole) in units.iter().zip([&a, &b, &c, &a[..90].to_vec(), &b]) {
            assert_eq!(bench.bytes_of(unit), *whole);
            assert_eq!(unit.bytes as usize, whole.len());
        }
    }
}

/// Bytes and time of each unit.
fn contents(bench: &Bench, pid: u16) -> Vec<(Vec<u8>, Option<i64>)> {
    let units = bench.units_of(pid);
    units.iter().map(|u| (bench.bytes_of(u), u.pts)).collect()
}

#[test]
fn packets_of_204_and_192_bytes_hold_the_same_units_in_payloads_of_any_size() {
    // Both files are the first 300 packets of that one.
    let plain = Bench::run(&vector("ts_h264_aac_cbr600k.ts")[..300 * 188], 1316);
    for (name, sizes) in [
        ("ts_204_byte_packets.ts", [1428, 204, 1316, 1000, 90]),
        ("ts_192_byte_timestamped.m2ts", [1344, 192, 1316, 1000, 90]),
    ] {
        for size in sizes {
            let bench = Bench::run(&vector(name), size);
            for pid in [0x100, 0x101] {
                let same = contents(&bench, pid) == contents(&plain, pid);
                assert!(same, "{name} {pid:#x} in {size}");
            }
            let counters = bench.pipeline.counters();
            assert_eq!(counters.ts_packets, 300, "{name} in {size}");
            assert_eq!(counters.discards.total(), 0, "{name} in {size}");
            assert_eq!(counters.continuity_errors, 0, "{name} in {size}");
        }
    }
}

/// Feeds RTP payloads of type `payload_type`; the units' bytes.
fn over_rtp(bytes: &[u8], size: usize, payload_type: u8) -> (Pipeline, SlotRing, Vec<AccessUnit>) {
    let format = Format::Rtp {
        hint: None,
        clock_rate: 90_000,
        ssrc: 1,
    };
    let mut pipeline = Pipeline::new(format, Limits::default());
    let mut ring = SlotRing::with_owned_chunks(64);
    let mut units = Vec::new();
    for (slot, chunk) in (0..).zip(bytes.chunks(size)) {
        let arrival = Instant::from_millis(slot + 1);
        ring.insert(slot, chunk, SlotMeta::new(arrival, 0, 0))
            .unwrap();
        pipeline.push(Packet {
            slot,
            arrival,
            lost_before: 0,
            discontinuity: false,
            timestamp: slot as u32 * 90,
            marker: false,
            payload_type,
            payload: ring.get(slot).unwrap().payload,
        });
        units.extend(core::iter::from_fn(|| pipeline.poll_unit()));
    }
    pipeline.finish();
    units.extend(core::iter::from_fn(|| pipeline.poll_unit()));
    (pipeline, ring, units)
}

#[test]
fn rtp_carries_packets_of_204_bytes_and_pieces_of_packets_too() {
    let plain = Bench::run(&vector("ts_h264_aac_cbr600k.ts")[..300 * 188], 1316);
    let short = vector("ts_h264_aac_cbr600k.ts")[..300 * 188].to_vec();
    let wide = vector("ts_204_byte_packets.ts");
    for (bytes, size, payload_type) in [
        (&short, 1316, 96),
        (&wide, 1428, 96),
        (&wide, 1224, 33),
        (&short, 1000, 33),
        (&short, 1316, 33),
    ] {
        let (pipeline, ring, units) = over_rtp(bytes, size, payload_type);
        assert_eq!(pipeline.container(), Some("mpegts"), "{size}");
        let expected = plain.units_of(VIDEO_PID);
        let video = pipeline
            .tracks()
            .iter()
            .position(|t| t.id == 0x100)
            .unwrap();
        let found: Vec<_> = units
            .iter()
            .filter(|u| usize::from(u.track) == video)
            .collect();
        assert_eq!(found.len(), expected.len(), "payloads of {size}");
        for (unit, expected) in found.iter().zip(&expected) {
            let mut out = Vec::new();
            assert!(pipeline.extract(unit, &ring, &mut out));
            assert!(out == plain.bytes_of(expected), "payloads of {size}");
        }
    }
}

#[test]
fn what_a_stream_is_shows_in_its_bits_where_its_table_says_nothing_or_wrongly() {
    for (name, pid, codec, kinds) in [
        ("ts_h264ipp_aac.ts", 0x100, Codec::H264, &[0x06, 0x24][..]),
        ("ts_hevc_b3_aac.ts", 0x100, Codec::H265, &[0x06, 0x1B]),
        ("ts_h264ipp_aac.ts", 0x101, Codec::Aac, &[0x06, 0x11, 0x81]),
        ("ts_aac_latm_only.ts", 0x100, Codec::AacLatm, &[0x06, 0x0F]),
        ("ts_h264b2_ac3.ts", 0x101, Codec::Ac3, &[0x06, 0x87, 0x0F]),
        ("ts_h264_2997_eac3.ts", 0x101, Codec::Eac3, &[0x06, 0x81]),
        (
            "ts_h264_interlaced_mp2.ts",
            0x101,
            Codec::MpegAudio,
            &[0x06, 0x0F],
        ),
        ("ts_h264_klv_sync_async.ts", 0x1F2, Codec::Klv, &[0x06]),
    ] {
        let source = Bench::run(&vector(name), 1316);
        let units = contents(&source, pid);
        for &kind in kinds {
            let mut writer = Writer::default();
            writer.tables(&[(kind, 0x300)]);
            // Five frames to a PES packet, as multiplexers write audio.
            let together = if codec.is_audio() { 5 } else { 1 };
            for (n, chunk) in units.chunks(together).enumerate() {
                let data: Vec<u8> = chunk.iter().flat_map(|u| u.0.clone()).collect();
                writer.pes(0x300, 90_000 + n as u64 * 3600, !codec.is_video(), &data);
            }
            let bench = Bench::run(&writer.bytes, 1316);
            let track = &bench.pipeline.tracks()[bench.track(0x300)];
            assert_eq!(track.codec, codec, "{name} as {kind:#x}");
            let found = contents(&bench, 0x300);
            let missing = if kind == 0x06 { 0 } else { 2 * together };
            let whole = units[missing..]
                .iter()
                .zip(&found[found.len() + missing - units.len()..]);
            for (n, (before, after)) in whole.enumerate() {
                assert!(before.0 == after.0, "{name} as {kind:#x}: unit {n}");
            }
        }
    }
}

/// A picture with nothing but a slice header's beginning in it.
const PICTURE: [u8; 12] = [0, 0, 0, 1, 0x09, 0xF0, 0, 0, 1, 0x65, 0x88, 0x80];

#[test]
fn times_go_on_over_60_hours_and_three_wraps() {
    let mut bench = Bench::new(Limits::default());
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID), (0x06, 0x101)]);
    bench.push(Some(&writer.bytes), 0);
    let first = (1_u64 << 33) - 90_000 * 3600;
    let seconds = 60 * 3600;
    let mut seen = (0, 0);
    for n in 0..seconds {
        writer.bytes.clear();
        let pts = (first + n * 90_000) % (1 << 33);
        writer.pes(VIDEO_PID, pts, false, &PICTURE);
        // Sound that stands half a second before the pictures.
        let sound = (pts + (1 << 33) - 45_000) % (1 << 33);
        writer.pes(0x101, sound, true, &[0x20; 40]);
        bench.now += Duration::from_secs(1);
        let bytes = std::mem::take(&mut writer.bytes);
        bench.push(Some(&bytes), 0);
        for unit in std::mem::take(&mut bench.units) {
            let (count, offset) = match unit.track {
                0 => (&mut seen.0, 0),
                _ => (&mut seen.1, 45_000),
            };
            let expected = (first + *count * 90_000).cast_signed() - offset;
            assert_eq!(unit.pts, Some(expected), "track {}", unit.track);
            *count += 1;
        }
    }
    assert_eq!(seen, (seconds, seconds));
    let last = (first + seconds * 90_000).cast_signed();
    assert_eq!(last.div_euclid(1 << 33), 3);
}

#[test]
fn a_jump_is_no_wrap() {
    let times = |starts: &[u64]| -> Vec<i64> {
        let mut writer = Writer::default();
        writer.tables(&[(0x06, 0x101)]);
        for start in starts {
            for n in 0..3 {
                writer.pes(0x101, (start + n * 3600) % (1 << 33), true, &[0x20; 40]);
            }
        }
        let bench = Bench::run(&writer.bytes, 1316);
        bench.units.iter().map(|u| u.pts.unwrap()).collect()
    };
    // An encoder that begins anew an hour before the wrap would have come.
    let late = (1 << 33) - 90_000 * 3600;
    let from = |t: i64| [t, t + 3600, t + 7200];
    let expected = [from(late as i64), from(0)].concat();
    assert_eq!(times(&[late, 0]), expected);
    // Another time base, and back; then over the wrap.
    let wrap = (1 << 33) - 3600;
    let expected = [from(90_000), from(5_000_000_000), from(90_000)].concat();
    assert_eq!(times(&[90_000, 5_000_000_000, 90_000]), expected);
    assert_eq!(times(&[wrap]), from(wrap as i64));
}

#[test]
fn splices_to_a_new_time_base_keep_every_unit_and_its_time() {
    for (name, second) in [
        ("ts_splice_newtimebase_pmt_change.ts", 0x200),
        ("ts_splice_same_pid_cc_jump_flagged.ts", 0x100),
    ] {
        let bench = Bench::run(&vector(name), 1316);
        let mut units = bench.units_of(0x100);
        if second != 0x100 {
            units.extend(bench.units_of(second));
        }
        assert_eq!(units.len(), 49, "{name}");
        assert!(units.iter().all(|u| !u.damaged), "{name}");
        let dts: Vec<i64> = units.iter().map(|u| u.dts.unwrap()).collect();
        assert_eq!((dts[0], dts[24]), (90_000, 90_000 + 24 * 3600), "{name}");
        assert_eq!(dts[25], 5_000_000_000, "{name}: as it is sent");
        assert_eq!(bench.pipeline.counters().continuity_errors, 0, "{name}");
        let clock = bench.pipeline.clocks().next().unwrap().1;
        assert_eq!(clock.epoch, 1, "{name}: one new time base");
    }
}
