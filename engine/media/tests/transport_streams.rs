//! Transport streams of several multiplexers against their facts: tracks, access units, times,
//! key frames, tables that change, splices, loss.

mod common;

use common::{
    Bench, VIDEO_PID, Writer, elementary_stream, facts, modulo, pat, pid_of, pmt, vector,
};
use mirror_media::{AccessUnit, Codec, Limits, Track};
use serde_json::Value;

const FILES: [&str; 13] = [
    "h264_multislice4.ts",
    "ts_h264_2997_eac3.ts",
    "ts_h264_aac_cbr600k.ts",
    "ts_h264_aac_wrap33.ts",
    "ts_h264_cea608_708.ts",
    "ts_h264_interlaced_mp2.ts",
    "ts_h264_klv_sync_async.ts",
    "ts_h264_scte35.ts",
    "ts_h264b2_ac3.ts",
    "ts_h264b3_opengop_aac.ts",
    "ts_h264ipp_aac.ts",
    "ts_hevc_b3_aac.ts",
    "ts_hevc_opengop_opus.ts",
];

fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::H265 => "hevc",
        Codec::Mpeg2Video => "mpeg2video",
        Codec::Aac => "aac",
        Codec::AacLatm => "aac_latm",
        Codec::Ac3 => "ac3",
        Codec::Eac3 => "eac3",
        Codec::Opus => "opus",
        Codec::MpegAudio => "mp2",
        Codec::Scte35 => "scte_35",
        Codec::Klv => "klv",
        _ => "other",
    }
}

/// The types in output order, by PTS.
fn display_order(units: &[AccessUnit]) -> String {
    let mut sorted = units.to_vec();
    sorted.sort_by_key(|u| u.pts);
    sorted.iter().map(|u| common::kind_letter(u.kind)).collect()
}

fn check_streams(name: &str, bench: &Bench, facts: &Value) {
    for stream in facts["ffprobe_streams"].as_array().unwrap() {
        let pid = pid_of(&stream["id"]);
        let track = &bench.pipeline.tracks()[bench.track(pid)];
        assert_eq!(
            codec_name(track.codec),
            stream["codec_name"].as_str().unwrap(),
            "{name} {pid:#x}"
        );
        if let Some(width) = stream["width"].as_u64() {
            assert_eq!(u64::from(track.width), width, "{name} {pid:#x}");
            assert_eq!(
                u64::from(track.height),
                stream["height"].as_u64().unwrap(),
                "{name} {pid:#x}"
            );
            let rate = format!("{}/{}", track.frame_rate.0, track.frame_rate.1);
            assert_eq!(
                rate,
                stream["r_frame_rate"].as_str().unwrap(),
                "{name} {pid:#x}"
            );
        }
        if let Some(rate) = stream["sample_rate"].as_str().filter(|r| *r != "0") {
            assert_eq!(track.sample_rate.to_string(), rate, "{name} {pid:#x}");
            assert_eq!(
                u64::from(track.channels),
                stream["channels"].as_u64().unwrap(),
                "{name} {pid:#x}"
            );
        }
    }
    for (pid, packets) in facts["video_packets"].as_object().unwrap() {
        let pid = pid_of(&Value::from(pid.as_str()));
        let units = bench.units_of(pid);
        let expected = packets["pts_dts_key"].as_array().unwrap();
        assert_eq!(units.len(), expected.len(), "{name} {pid:#x}");
        for (n, (unit, expected)) in units.iter().zip(expected).enumerate() {
            assert!(!unit.damaged, "{name} {pid:#x}: unit {n}");
            assert_eq!(
                modulo(unit.pts),
                modulo(expected[0].as_i64()),
                "{name} {pid:#x}: PTS of unit {n}"
            );
            assert_eq!(
                modulo(unit.dts),
                modulo(expected[1].as_i64()),
                "{name} {pid:#x}: DTS of unit {n}"
            );
            assert_eq!(
                unit.kind.is_key(),
                expected[2] == 1,
                "{name} {pid:#x}: key of unit {n}"
            );
        }
        let types = packets["frame_types_display_order"].as_str().unwrap();
        // That file's times rise in decoding order, against its pictures' order counts.
        if name != "h264_multislice4.ts" {
            assert_eq!(display_order(&units), types, "{name} {pid:#x}");
        }
    }
}

#[test]
fn tracks_units_times_and_keys_are_those_of_the_file() {
    for name in FILES.into_iter().chain(["ts_two_programs.ts"]) {
        let bytes = vector(name);
        let facts = facts(name);
        for payload in [1316, 188, 1000] {
            let bench = Bench::run(&bytes, payload);
            check_streams(name, &bench, &facts);
            let counters = bench.pipeline.counters();
            assert_eq!(
                counters.ts_packets,
                facts["packets"].as_u64().unwrap(),
                "{name}"
            );
            assert_eq!(
                counters.null_packets,
                facts["null_packets"].as_u64().unwrap(),
                "{name}"
            );
            assert_eq!(counters.continuity_errors, 0, "{name}");
            assert_eq!(
                counters.discards.total(),
                0,
                "{name}: {:?}",
                counters.discards
            );
            assert_eq!(counters.units_damaged, 0, "{name}");
            assert_eq!(bench.pipeline.container(), Some("mpegts"));
        }
    }
}

#[test]
fn extracted_units_make_up_the_elementary_stream() {
    for name in FILES
        .into_iter()
        .chain(["ts_two_programs.ts", "tr290_1.4_legal_duplicate.ts"])
    {
        let bytes = vector(name);
        for payload in [1316, 376, 1000, 100] {
            let bench = Bench::run(&bytes, payload);
            // Sections, metadata cells and Opus control headers are unwrapped.
            let bare = |t: &&Track| {
                !matches!(t.codec, Codec::Scte35 | Codec::Opus) && t.stream_type != 0x15
            };
            for track in bench.pipeline.tracks().iter().filter(bare) {
                let pid = track.id as u16;
                let whole: Vec<u8> = bench
                    .units_of(pid)
                    .iter()
                    .flat_map(|u| bench.bytes_of(u))
                    .collect();
                assert!(
                    whole == elementary_stream(&bytes, pid),
                    "{name} {pid:#x} in payloads of {payload}"
                );
            }
        }
    }
}

#[test]
fn times_go_on_over_the_33_bit_wrap() {
    let bench = Bench::run(&vector("ts_h264_aac_wrap33.ts"), 1316);
    let units = bench.units_of(VIDEO_PID);
    let wrapped = units.last().unwrap().dts.unwrap();
    assert!(wrapped > 1 << 33, "{wrapped}");
    assert!(
        units
            .windows(2)
            .all(|w| w[1].dts.unwrap() - w[0].dts.unwrap() == 3600)
    );
}

#[test]
fn a_program_that_moves_to_another_pid_is_followed() {
    let name = "ts_splice_newtimebase_pmt_change.ts";
    let bench = Bench::run(&vector(name), 1316);
    check_streams(name, &bench, &facts(name));
    assert!(bench.pipeline.tracks()[bench.track(0x100)].gone);
    assert!(!bench.pipeline.tracks()[bench.track(0x200)].gone);
}

#[test]
fn a_stream_of_sections_is_gone_when_its_program_no_longer_lists_it() {
    for kind in [0x86, 0x05, 0x0B] {
        let mut writer = Writer::default();
        writer.tables(&[(0x1B, VIDEO_PID), (kind, 0x101)]);
        let mut bench = Bench::run(&writer.bytes, 188);
        let gone = |bench: &Bench| bench.pipeline.tracks()[bench.track(0x101)].gone;
        assert!(!gone(&bench), "{kind:#x}");
        writer.bytes.clear();
        writer.section(0x1000, &pmt(1, 1, &[(0x1B, VIDEO_PID)]));
        bench.push(Some(&writer.bytes), 0);
        assert!(gone(&bench), "{kind:#x}");
        assert!(!bench.pipeline.tracks()[bench.track(VIDEO_PID)].gone);
        // Listed anew it takes its place again.
        writer.bytes.clear();
        writer.section(0x1000, &pmt(1, 2, &[(0x1B, VIDEO_PID), (kind, 0x101)]));
        bench.push(Some(&writer.bytes), 0);
        assert!(!gone(&bench), "{kind:#x}");
        assert_eq!(bench.pipeline.tracks().len(), 2);
    }
}

#[test]
fn a_track_is_scrambled_until_a_whole_unit_comes_in_the_clear() {
    let source = Bench::run(&vector("ts_h264ipp_aac.ts"), 1316);
    let units = source.units_of(VIDEO_PID);
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    let mut bench = Bench::new(Limits::default());
    let mut seen = Vec::new();
    for (n, unit) in units.iter().take(8).enumerate() {
        writer.pes(VIDEO_PID, n as u64 * 3600, false, &source.bytes_of(unit));
        let mut bytes = std::mem::take(&mut writer.bytes);
        if n == 2 || n == 3 {
            bytes
                .iter_mut()
                .skip(3)
                .step_by(188)
                .for_each(|b| *b |= 0x80);
        }
        for packet in bytes.chunks(188) {
            bench.push(Some(packet), 0);
        }
        seen.push(bench.pipeline.tracks()[0].scrambled);
    }
    // A unit is known to be whole when the next one has begun.
    assert_eq!(seen[..5], [false, false, true, true, true]);
    assert!(!seen[7], "{seen:?}");
}

#[test]
fn a_flagged_jump_of_the_continuity_counter_is_no_error() {
    let name = "ts_splice_same_pid_cc_jump_flagged.ts";
    let bench = Bench::run(&vector(name), 1316);
    assert_eq!(bench.pipeline.counters().continuity_errors, 0);
    assert_eq!(bench.units_of(VIDEO_PID).len(), 49);
}

#[test]
fn tables_of_many_shapes_are_read() {
    let name = "ts_psi_shapes.ts";
    let bench = Bench::run(&vector(name), 1316);
    let facts = facts(name);
    for stream in facts["ffprobe_streams"].as_array().unwrap() {
        let pid = pid_of(&stream["id"]);
        let track = &bench.pipeline.tracks()[bench.track(pid)];
        let subtitles = stream["codec_name"] == "dvb_subtitle";
        assert_eq!(subtitles, track.codec == Codec::DvbSubtitles, "{pid:#x}");
        assert_ne!(track.codec, Codec::Unknown, "{pid:#x}");
    }
    assert_eq!(bench.units_of(VIDEO_PID).len(), 25);
}

#[test]
fn the_grid_is_found_behind_false_sync_bytes() {
    let name = "ts_unaligned_start_false_sync.ts";
    let bench = Bench::run(&vector(name), 1316);
    let packets = facts(name)["packets"].as_u64().unwrap();
    assert!(bench.pipeline.counters().ts_packets >= packets - 1);
    check_streams(name, &bench, &facts(name));
}

#[test]
fn every_listed_stream_type_is_recognised() {
    for (name, codec) in [
        ("ts_mpeg2_mp2.ts", Codec::Mpeg2Video),
        ("ts_aac_latm_only.ts", Codec::AacLatm),
        ("ts_jpegxs_422_8b.ts", Codec::JpegXs),
    ] {
        let bench = Bench::run(&vector(name), 1316);
        assert!(
            bench.pipeline.tracks().iter().any(|t| t.codec == codec),
            "{name}"
        );
        assert!(!bench.units.is_empty(), "{name}");
    }
    let bench = Bench::run(&vector("ts_hevc_opengop_opus.ts"), 1316);
    assert!(bench.pipeline.clocks().next().is_some());
}

#[test]
fn a_duplicate_packet_is_used_once_and_a_lost_one_damages_its_unit() {
    let bench = Bench::run(&vector("tr290_1.4_legal_duplicate.ts"), 1316);
    assert_eq!(
        (
            bench.pipeline.counters().continuity_errors,
            bench.pipeline.counters().units_damaged
        ),
        (0, 0)
    );
    let bench = Bench::run(&vector("tr290_1.4_lost_packet.ts"), 1316);
    // The lost packet held the whole of a small picture.
    assert_eq!(
        (
            bench.pipeline.counters().continuity_errors,
            bench.units_of(VIDEO_PID).len()
        ),
        (1, 39)
    );
}

/// Runs `bytes` without the datagrams of `lost`.
fn run_with_loss(bytes: &[u8], lost: impl Fn(usize) -> bool) -> Bench {
    let mut bench = Bench::new(Limits::default());
    let mut missing = 0;
    for (n, chunk) in bytes.chunks(1316).enumerate() {
        if lost(n) {
            bench.push(None, 0);
            missing += 1;
        } else {
            bench.push(Some(chunk), missing);
            missing = 0;
        }
    }
    bench.pipeline.finish();
    bench.drain();
    bench
}

#[test]
fn a_pid_that_two_programs_name_goes_on_when_one_of_them_goes() {
    let mut writer = Writer::default();
    writer.section(0, &pat(0, &[(1, 0x1000), (2, 0x1001)]));
    writer.section(0x1000, &pmt(1, 0, &[(0x06, 0x100), (0x06, 0x101)]));
    writer.section(0x1001, &pmt(2, 0, &[(0x06, 0x101), (0x06, 0x102)]));
    writer.pes(0x101, 90_000, true, &[0x20; 50]);
    // The first program goes; the second one's table comes again as it was.
    writer.section(0, &pat(1, &[(2, 0x1001)]));
    writer.section(0x1001, &pmt(2, 0, &[(0x06, 0x101), (0x06, 0x102)]));
    writer.pes(0x101, 93_600, true, &[0x20; 50]);
    let bench = Bench::run(&writer.bytes, 1316);
    let tracks = bench.pipeline.tracks();
    assert_eq!(bench.units_of(0x101).len(), 2);
    let track = &tracks[bench.track(0x101)];
    assert!(!track.gone && track.program == 2, "{track:?}");
    assert!(tracks[bench.track(0x100)].gone);
}

#[test]
fn loss_damages_exactly_the_units_whose_bytes_were_in_it() {
    let bytes = vector("h264_multislice4.ts");
    let whole = Bench::run(&bytes, 1316);
    let good: Vec<Vec<u8>> = whole
        .units_of(VIDEO_PID)
        .iter()
        .map(|u| whole.bytes_of(u))
        .collect();
    let datagrams = bytes.len().div_ceil(1316);
    // The first datagram holds the tables.
    for run in [1, 2, 3, 5] {
        for at in 1..datagrams - run {
            let bench = run_with_loss(&bytes, |n| (at..at + run).contains(&n));
            for unit in bench.units_of(VIDEO_PID) {
                let mut out = Vec::new();
                assert!(bench.pipeline.extract(&unit, &bench.ring, &mut out));
                if !unit.damaged || unit.undecodable {
                    assert!(
                        good.contains(&out),
                        "an undamaged unit is whole ({run} lost at {at})"
                    );
                }
            }
            let undamaged = bench
                .units_of(VIDEO_PID)
                .iter()
                .filter(|u| !u.damaged || u.undecodable)
                .count();
            // Seven packets hold at most a handful of these small units.
            assert!(
                undamaged + 16 * run > good.len(),
                "{undamaged} whole units, {run} lost at {at}"
            );
        }
    }
}

#[test]
fn an_unbounded_pes_packet_is_cut_at_the_limit() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID), (0x06, 0x101)]);
    let mut unit = vec![0, 0, 0, 1, 0x09, 0x10, 0, 0, 1, 0x65, 0x88];
    unit.resize(400_000, 0x55);
    writer.pes(VIDEO_PID, 0, false, &unit);
    writer.pes(0x101, 0, false, &unit);
    writer.pes(
        VIDEO_PID,
        3600,
        false,
        &[0, 0, 0, 1, 0x09, 0x10, 0, 0, 1, 0x65, 0x88, 1],
    );
    let mut bench = Bench::new(Limits {
        max_frame_size: 100_000,
        ..Limits::default()
    });
    for chunk in writer.bytes.chunks(1316) {
        bench.push(Some(chunk), 0);
    }
    bench.pipeline.finish();
    bench.drain();
    let units = bench.units_of(VIDEO_PID);
    assert_eq!(units.len(), 2);
    assert!(
        units[0].damaged && units[0].bytes > 100_000 && units[0].bytes < 102_000,
        "{:?}",
        units[0]
    );
    assert_eq!(bench.bytes_of(&units[0]), unit[..units[0].bytes as usize]);
    let other = bench.units_of(0x101);
    assert!(other[0].damaged && other[0].bytes < 102_000);
    use mirror_base::Discard;
    assert_eq!(
        bench
            .pipeline
            .counters()
            .discards
            .get(Discard::LimitExceeded),
        2
    );
}

#[test]
fn tables_that_change_all_the_time_stay_bounded() {
    let mut writer = Writer::default();
    writer.section(0, &pat(0, &[(1, 0x1000)]));
    for n in 0..2000_u16 {
        let streams: Vec<(u8, u16)> = (0..40)
            .map(|k| (0x1B, 0x20 + (n % 100 * 37 + k * 3) % 0x0F00))
            .collect();
        writer.section(0x1000, &pmt(1, (n % 32) as u8, &streams));
        if n % 16 == 0 {
            let programs: Vec<(u16, u16)> =
                (0..60).map(|k| (k + n, 0x1000 + (k + n) % 0x800)).collect();
            writer.section(0, &pat((n % 32) as u8, &programs));
            writer.section(0, &pat((n % 32) as u8, &[(1, 0x1000)]));
        }
    }
    let bench = Bench::run(&writer.bytes, 1316);
    assert!(bench.pipeline.tracks().len() <= Limits::default().max_tracks);
    let mut again = Writer::default();
    again.tables(&[(0x1B, VIDEO_PID)]);
    let mut bench = bench;
    bench.push(Some(&again.bytes), 0);
    assert!(
        bench
            .pipeline
            .tracks()
            .iter()
            .any(|t| t.id == u32::from(VIDEO_PID) && !t.gone)
    );
}

#[test]
fn empty_and_cut_parameter_sets_are_counted_and_survived() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID), (0x24, 0x200)]);
    for kind in 0..32_u8 {
        for length in 0..4 {
            let mut nal = vec![0, 0, 1, 0x60 | kind];
            nal.extend(vec![0xFF; length]);
            writer.pes(VIDEO_PID, 0, false, &nal);
        }
    }
    for kind in 0..64_u8 {
        for length in 0..4 {
            let mut nal = vec![0, 0, 1, kind << 1, 1];
            nal.extend(vec![0; length]);
            writer.pes(0x200, 0, false, &nal[..nal.len() - usize::from(kind == 5)]);
        }
    }
    let bench = Bench::run(&writer.bytes, 1316);
    assert!(
        bench
            .pipeline
            .counters()
            .discards
            .get(mirror_base::Discard::MalformedBitstream)
            > 4
    );
}

#[test]
fn mutated_streams_neither_panic_nor_grow() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    for name in [
        "ts_hevc_b3_aac.ts",
        "ts_h264_interlaced_mp2.ts",
        "ts_two_programs.ts",
        "ts_psi_shapes.ts",
        "ts_h264_scte35.ts",
        "ts_h264_klv_sync_async.ts",
        "ts_aac_frames_straddle_pes.ts",
        "ts_aac_latm_only.ts",
        "ts_hevc_opengop_opus.ts",
        "ts_h264_2997_eac3.ts",
        "ts_204_byte_packets.ts",
        "ts_192_byte_timestamped.m2ts",
        "tr290_1.1_sync_loss.ts",
    ] {
        let good = vector(name);
        for round in 0..40 {
            let mut bytes = good.clone();
            for _ in 0..1 + random(200) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = random(256) as u8,
                    2 if round % 2 == 0 => {
                        drop(bytes.drain(at..(at + random(40)).min(good.len() - 9000).max(at)))
                    }
                    _ => bytes[(at / 188 * 188 + random(12)).min(at)] = random(256) as u8,
                }
            }
            let mut bench = Bench::new(Limits {
                max_frame_size: 20_000,
                ..Limits::default()
            });
            for chunk in bytes.chunks(1 + random(1456)) {
                let lost = if random(50) == 0 { random(5) as u32 } else { 0 };
                bench.push(Some(chunk), lost);
                if random(20) == 0 {
                    let now = bench.now;
                    bench.pipeline.handle_timeout(
                        now + core::time::Duration::from_millis(random(400) as u64),
                    );
                    bench
                        .units
                        .extend(core::iter::from_fn(|| bench.pipeline.poll_unit()));
                }
            }
            bench.pipeline.finish();
            bench
                .units
                .extend(core::iter::from_fn(|| bench.pipeline.poll_unit()));
            let mut out = Vec::new();
            for unit in &bench.units {
                assert!(unit.bytes < 22_000);
                bench.pipeline.extract(unit, &bench.ring, &mut out);
                out.clear();
            }
        }
    }
}

#[test]
fn noise_gives_nothing() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..400_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let bench = Bench::run(&noise, 1316);
    assert!(bench.units.is_empty());
    assert!(
        bench
            .pipeline
            .counters()
            .discards
            .get(mirror_base::Discard::NoTsSync)
            > 200
    );
}

#[test]
fn a_unit_that_stalls_is_closed_at_the_timeout() {
    let bytes = vector("ts_h264ipp_aac.ts");
    let mut bench = Bench::new(Limits::default());
    for chunk in bytes.chunks(1316).take(4) {
        bench.push(Some(chunk), 0);
    }
    let due = bench
        .pipeline
        .poll_timeout()
        .expect("a unit is in the making");
    bench.pipeline.handle_timeout(due);
    bench.now = due;
    let before = bench.units.len();
    bench.drain();
    assert!(bench.units.len() > before);
    assert!(bench.units.last().unwrap().damaged);
    assert_eq!(bench.pipeline.poll_timeout(), None);
}

/// `nals` with a prefix NAL unit (type 14) before each slice, without delimiters.
fn with_slice_prefixes(nals: &[u8]) -> Vec<u8> {
    let starts: Vec<usize> = (0..nals.len().saturating_sub(3))
        .filter(|&i| nals[i..i + 3] == [0, 0, 1])
        .collect();
    let mut out = Vec::new();
    for (n, &start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(nals.len());
        match nals[start + 3] & 0x1F {
            9 => continue,
            1 | 5 => out.extend([0, 0, 1, 0x6E, 0x40, 0x80, 0x07]),
            _ => {}
        }
        out.extend(&nals[start..end]);
    }
    out
}

#[test]
fn prefix_nal_units_before_slices_do_not_split_pictures() {
    let source = Bench::run(&vector("h264_multislice4.ts"), 1316);
    let units = source.units_of(VIDEO_PID);
    let frames: Vec<Vec<u8>> = units
        .iter()
        .map(|u| with_slice_prefixes(&source.bytes_of(u)))
        .collect();
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    for (n, frame) in frames.iter().enumerate() {
        writer.pes(VIDEO_PID, n as u64 * 3600, false, frame);
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let found = bench.units_of(VIDEO_PID);
    assert_eq!(found.len(), units.len());
    for (n, unit) in found.iter().enumerate() {
        assert!(
            !unit.damaged && unit.kind == units[n].kind,
            "unit {n}: {unit:?}"
        );
        assert!(bench.bytes_of(unit) == frames[n], "unit {n}");
        assert_eq!(unit.pts, Some(n as i64 * 3600), "unit {n}");
    }
    // The ends of PES packets prove right all the same.
    let last = found[found.len() - 2];
    assert_eq!(last.completed_by, last.last_arrival);
}

/// Each frame in a PES packet of its own that says its length, a quarter of a second after the last.
fn slow(frames: &[Vec<u8>]) -> Bench {
    let mut bench = Bench::new(Limits::default());
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    for (n, frame) in frames.iter().enumerate() {
        writer.pes(VIDEO_PID, n as u64 * 22_500, true, frame);
        for chunk in std::mem::take(&mut writer.bytes).chunks(1316) {
            bench.push(Some(chunk), 0);
        }
        let next = bench.now + core::time::Duration::from_millis(250);
        if let Some(due) = bench.pipeline.poll_timeout().filter(|due| *due <= next) {
            bench.pipeline.handle_timeout(due);
            bench.drain();
        }
        bench.now = next;
    }
    bench
}

#[test]
fn slow_streams_are_whole_and_their_ends_are_believed_after_a_while() {
    let source = Bench::run(&vector("ts_h264ipp_aac.ts"), 1316);
    let units = source.units_of(VIDEO_PID);
    let frames: Vec<Vec<u8>> = units.iter().map(|u| source.bytes_of(u)).collect();
    let slow = slow(&frames);
    let units = slow.units_of(VIDEO_PID);
    assert_eq!(units.len(), frames.len());
    for (n, (unit, frame)) in units.iter().zip(&frames).enumerate() {
        assert!(!unit.damaged, "unit {n}");
        assert!(slow.bytes_of(unit) == *frame, "unit {n}");
        // The first ones wait for the time limit.
        assert_eq!(
            n < 8,
            unit.completed_by > unit.last_arrival,
            "unit {n}: {unit:?}"
        );
    }
}

#[test]
fn another_session_of_the_stream_brings_its_own_tracks() {
    let mut bench = Bench::new(Limits::default());
    let (first, second) = (vector("ts_h264b2_ac3.ts"), vector("ts_hevc_b3_aac.ts"));
    // The first session breaks off in the midst of a packet.
    for chunk in first[..40_000].chunks(1316) {
        bench.push(Some(chunk), 0);
    }
    let before = bench.units_of(VIDEO_PID).len();
    for (n, chunk) in second.chunks(1316).enumerate() {
        if n == 0 {
            bench.push_afresh(chunk);
        } else {
            bench.push(Some(chunk), 0);
        }
    }
    bench.pipeline.finish();
    bench.drain();
    let tracks = bench.pipeline.tracks();
    assert_eq!(
        tracks.iter().map(|t| t.codec).collect::<Vec<_>>(),
        [Codec::H265, Codec::Aac]
    );
    let units = bench.units_of(VIDEO_PID);
    assert!(
        (50..=51).contains(&(units.len() - before)),
        "{} more units",
        units.len() - before
    );
    assert!(units[units.len() - 50..].iter().all(|u| !u.damaged));
    assert_eq!(bench.pipeline.counters().continuity_errors, 0);
}

#[test]
fn times_of_one_program_are_comparable_from_its_first_unit_on() {
    let bench = Bench::run(&vector("ts_h264_aac_wrap33.ts"), 1316);
    let (video, audio) = (bench.units_of(0x100), bench.units_of(0x101));
    let apart = video[0].pts.unwrap() - audio[0].pts.unwrap();
    assert!(apart.abs() < 90_000, "{apart}");
    let apart = video.last().unwrap().pts.unwrap() - audio.last().unwrap().pts.unwrap();
    assert!(apart.abs() < 90_000, "{apart}");
}
