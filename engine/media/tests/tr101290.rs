//! Files with one fault each, measured by TR 101 290 in their own time.

mod common;

use core::time::Duration;

use common::{Bench, facts, vector};
use mirror_media::ts::file::FilePlayer;
use mirror_media::{Format, Limits, Packet, Pipeline, Tr101290};

fn measure(name: &str, limits: Limits) -> Tr101290 {
    let bytes = vector(name);
    let mut pipeline = Pipeline::new(Format::MpegTs, limits);
    for payload in FilePlayer::new(&bytes) {
        pipeline.push(Packet {
            slot: payload.slot,
            arrival: payload.arrival,
            lost_before: 0,
            discontinuity: false,
            timestamp: 0,
            marker: false,
            payload_type: 0,
            payload: payload.bytes,
        });
        while pipeline.poll_unit().is_some() {}
    }
    pipeline.finish();
    pipeline.tr101290().expect("it is switched on").clone()
}

/// The indicators that fired: number, count and the last one's PID.
fn fired(report: &Tr101290) -> Vec<(&'static str, u64, Option<u16>)> {
    let fired = report.indicators.iter().filter(|i| i.count > 0);
    fired.map(|i| (i.number, i.count, i.pid)).collect()
}

type Expected<'a> = &'a [(&'a str, u64, Option<u16>)];

/// What the facts of each file say ("expected_check", and "continuity_errors" where taking
/// tables away has left gaps in their counters).
const FAULTS: [(&str, Expected<'_>); 20] = [
    (
        "tr290_1.1_five_bad_sync_bytes.ts",
        &[("1.1", 1, None), ("1.2", 5, None), ("1.4", 2, Some(0x1000))],
    ),
    ("tr290_1.1_sync_loss.ts", &[("1.1", 1, None)]),
    ("tr290_1.2_one_bad_sync_byte.ts", &[("1.2", 1, None)]),
    (
        "tr290_1.3_pat_gap_700ms.ts",
        &[("1.3", 1, Some(0)), ("1.4", 1, Some(0))],
    ),
    (
        "tr290_1.3_pat_scrambled.ts",
        &[("1.3", 1, Some(0)), ("2.6", 1, Some(0))],
    ),
    (
        "tr290_1.3_wrong_table_id_on_pid0.ts",
        &[("1.3", 1, Some(0)), ("2.2", 1, Some(0))],
    ),
    ("tr290_1.4_legal_duplicate.ts", &[]),
    ("tr290_1.4_lost_packet.ts", &[("1.4", 1, Some(0x100))]),
    ("tr290_1.4_swapped_packets.ts", &[("1.4", 3, Some(0x100))]),
    ("tr290_1.4_triple_packet.ts", &[("1.4", 1, Some(0x100))]),
    (
        "tr290_1.5_pmt_gap_700ms.ts",
        &[("1.4", 1, Some(0x1000)), ("1.5", 1, Some(0x1000))],
    ),
    ("tr290_1.6_audio_pid_missing.ts", &[("1.6", 1, Some(0x101))]),
    (
        "tr290_2.1_transport_error_indicator.ts",
        &[("2.1", 2, Some(0x100))],
    ),
    ("tr290_2.2_pmt_crc_error.ts", &[("2.2", 1, Some(0x1000))]),
    ("tr290_2.3_pcr_gap.ts", &[("2.3", 1, Some(0x100))]),
    (
        "tr290_2.3_pcr_jump_no_indicator.ts",
        &[("2.3", 1, Some(0x100))],
    ),
    // As many references as the file's facts list as moved.
    ("tr290_2.4_pcr_accuracy.ts", &[("2.4", 28, Some(0x100))]),
    ("tr290_2.5_pts_missing.ts", &[("2.5", 1, Some(0x100))]),
    (
        "tr290_2.6_scrambled_without_cat.ts",
        &[("2.6", 1, Some(0x100))],
    ),
    (
        "tr290_2.6_wrong_table_id_on_pid1.ts",
        &[("2.6", 1, Some(1))],
    ),
];

fn limits(name: &str) -> Limits {
    let mut limits = Limits::default();
    if name.contains("1.6") {
        // The file lasts 1.6 s.
        limits.tr101290_limits.pid = Duration::from_secs(1);
    }
    limits
}

#[test]
fn each_fault_is_counted_under_its_number_and_nothing_else_is() {
    for (name, expected) in FAULTS {
        let report = measure(name, limits(name));
        assert_eq!(fired(&report), expected, "{name}");
        let check = facts(name)["expected_check"]["check"].to_string();
        let named =
            |number: &str| check.contains(number) || facts(name)["continuity_errors"].is_array();
        assert!(expected.iter().all(|e| named(e.0)), "{name}: {check}");
    }
    let accuracy = facts("tr290_2.4_pcr_accuracy.ts");
    let moved = accuracy["expected_check"]["jitter_27mhz_ticks_by_packet"].as_object();
    assert_eq!(moved.unwrap().len(), 28);
}

#[test]
fn late_references_are_told_from_jumps() {
    for (name, counts) in [
        ("tr290_2.3_pcr_gap.ts", (1, 1)),
        ("tr290_2.3_pcr_jump_no_indicator.ts", (0, 1)),
        ("ts_pcr_jump_with_discontinuity_indicator.ts", (0, 0)),
    ] {
        let report = measure(name, Limits::default());
        let found = (report.pcr_repetition, report.pcr_discontinuity);
        assert_eq!(found, counts, "{name}");
    }
}

#[test]
fn streams_without_a_fault_have_none() {
    for name in [
        "h264_multislice4.ts",
        "ts_192_byte_timestamped.m2ts",
        "ts_204_byte_packets.ts",
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
        "ts_jpegxs_422_8b.ts",
        "ts_mpeg2_mp2.ts",
        "ts_pcr_jump_with_discontinuity_indicator.ts",
        "ts_psi_shapes.ts",
        "ts_splice_newtimebase_pmt_change.ts",
        "ts_splice_same_pid_cc_jump_flagged.ts",
        "ts_two_programs.ts",
        "ts_unaligned_start_false_sync.ts",
    ] {
        let report = measure(name, Limits::default());
        assert_eq!(fired(&report), [], "{name}");
    }
}

#[test]
fn references_a_quarter_of_a_second_apart_are_an_error_of_the_multiplexer() {
    let report = measure("ts_aac_latm_only.ts", Limits::default());
    assert_eq!(fired(&report), [("2.3", 7, Some(0x100))]);
    let mut limits = Limits::default();
    limits.tr101290_limits.pcr = Duration::from_millis(300);
    assert_eq!(fired(&measure("ts_aac_latm_only.ts", limits)), []);
}

#[test]
fn switched_off_nothing_is_measured() {
    let bytes = vector("tr290_1.4_lost_packet.ts");
    let limits = Limits {
        tr101290: false,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    for chunk in bytes.chunks(1316) {
        bench.push(Some(chunk), 0);
    }
    assert!(bench.pipeline.tr101290().is_none());
    assert_eq!(bench.pipeline.counters().continuity_errors, 1);
}

/// The base file, live: each datagram at its time and what `delay` adds, in microseconds.
fn live(delay: impl Fn(u64) -> u64) -> Tr101290 {
    let bytes = vector("ts_h264_aac_cbr600k.ts");
    let mut bench = Bench::new(Limits::default());
    for payload in FilePlayer::new(&bytes) {
        let arrival = payload.arrival + Duration::from_micros(delay(payload.slot));
        let sooner = arrival.saturating_sub(Duration::from_millis(1));
        bench.now = bench.now.max(sooner);
        bench.push(Some(payload.bytes), 0);
    }
    bench.pipeline.tr101290().unwrap().clone()
}

#[test]
fn jitter_of_the_network_is_no_error_of_the_stream() {
    assert_eq!(fired(&live(|n| n * 7919 % 50_000)), []);
    // Nothing for a while, then all of it at once.
    let burst = |n: u64| {
        if (30..47).contains(&n) {
            (47 - n) * 17_500
        } else {
            0
        }
    };
    assert_eq!(fired(&live(burst)), []);
    let burst = |n: u64| {
        if (10..70).contains(&n) {
            (70 - n) * 17_500
        } else {
            0
        }
    };
    assert_eq!(fired(&live(burst)), []);
}

#[test]
fn a_stream_that_the_network_held_up_has_no_gaps() {
    let report = live(|n| if n >= 40 { 20_000_000 } else { 0 });
    assert_eq!(fired(&report), []);
}

#[test]
fn lost_datagrams_count_as_discontinuities_and_as_nothing_else() {
    let bytes = vector("ts_h264_aac_cbr600k.ts");
    let mut bench = Bench::new(Limits::default());
    let mut lost = 0;
    for payload in FilePlayer::new(&bytes) {
        bench.now = payload.arrival.saturating_sub(Duration::from_millis(1));
        // One, and later four in a row: 70 ms.
        if payload.slot == 20 || (40..44).contains(&payload.slot) {
            bench.push(None, 0);
            lost += 1;
        } else {
            bench.push(Some(payload.bytes), lost);
            lost = 0;
        }
    }
    let report = bench.pipeline.tr101290().unwrap();
    let numbers: Vec<_> = fired(report).iter().map(|f| f.0).collect();
    assert_eq!(numbers, ["1.4"], "{:?}", fired(report));
    assert!(
        (3..=8).contains(&report.first_priority()),
        "{:?}",
        fired(report)
    );
}

#[test]
fn what_never_comes_is_counted_once() {
    // Tables, then nothing of them and no references: pictures alone.
    let bytes = vector("ts_h264_aac_cbr600k.ts");
    let mut limits = Limits::default();
    limits.tr101290_limits.pid = Duration::from_secs(2);
    let mut bench = Bench::new(limits);
    let mut counter = 0;
    for round in 0..30 {
        let keep = |p: &&[u8]| {
            let pid = u16::from_be_bytes([p[1] & 0x1F, p[2]]);
            round == 0 || (pid == 0x100 && p[3] & 0x20 == 0)
        };
        for packet in bytes.chunks(188).filter(keep) {
            let mut packet = packet.to_vec();
            if packet[1] & 0x1F == 1 && packet[2] == 0 && packet[3] & 0x10 != 0 {
                counter = (counter + 1) % 16;
                packet[3] = packet[3] & 0xF0 | counter;
            }
            bench.push(Some(&packet), 0);
        }
    }
    let report = bench.pipeline.tr101290().unwrap();
    let numbers: Vec<_> = fired(report).iter().map(|f| (f.0, f.1)).collect();
    // (Times are measured by the clock that stands still.)
    assert_eq!(numbers, [("1.3", 1), ("1.5", 1), ("1.6", 1), ("2.3", 1)]);
}

#[test]
fn another_session_starts_its_measurements_afresh() {
    let bytes = vector("ts_h264_aac_cbr600k.ts");
    let mut bench = Bench::new(Limits::default());
    for round in 0..3 {
        for (n, payload) in FilePlayer::new(&bytes).enumerate() {
            let offset = Duration::from_secs(round * 60);
            bench.now = (payload.arrival + offset).saturating_sub(Duration::from_millis(1));
            if n == 0 && round > 0 {
                bench.push_afresh(payload.bytes);
            } else {
                bench.push(Some(payload.bytes), 0);
            }
        }
    }
    assert_eq!(fired(bench.pipeline.tr101290().unwrap()), []);
}
