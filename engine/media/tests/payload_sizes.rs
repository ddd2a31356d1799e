//! How many TS packets a payload holds changes nothing: streams with losses, with other PIDs among
//! the packets and with start codes wherever they can lie, packet by packet, in the usual sevens,
//! which have a way of their own, and in payloads that cut packets.
#![allow(missing_docs)]

mod common;

use common::{Bench, VIDEO_PID, Writer};
use mirror_base::Position;
use mirror_media::{AccessUnit, Limits, Units};

/// A unit without what depends on payloads: its ends as offsets in the file, no arrivals.
type Told = (AccessUnit, usize, usize);

struct Run {
    units: Vec<Told>,
    counters: String,
}

fn read(bytes: &[u8], limits: &Limits, size: usize) -> Run {
    let mut bench = Bench::new(limits.clone());
    for payload in bytes.chunks(size) {
        bench.push(Some(payload), 0);
    }
    bench.pipeline.finish();
    bench.drain();
    let offset = |at: Position| at.slot as usize * size + usize::from(at.offset);
    let told = |unit: &AccessUnit| {
        let bare = AccessUnit {
            first: Position::default(),
            end: Position::default(),
            first_arrival: mirror_base::Instant::ZERO,
            last_arrival: mirror_base::Instant::ZERO,
            completed_by: mirror_base::Instant::ZERO,
            ..*unit
        };
        (bare, offset(unit.first), offset(unit.end))
    };
    Run {
        units: bench.units.iter().map(told).collect(),
        counters: format!("{:?}", bench.pipeline.counters()),
    }
}

fn check(name: &str, bytes: &[u8], limits: &Limits) -> Run {
    let single = read(bytes, limits, 188);
    for size in [2 * 188, 5 * 188, 6 * 188, 7 * 188, 1000, 1269] {
        let other = read(bytes, limits, size);
        assert_eq!(single.units, other.units, "{name}, payloads of {size}");
        assert_eq!(
            single.counters, other.counters,
            "{name}, payloads of {size}"
        );
    }
    single
}

/// Slices of bytes of which every fourth is 0 and every fourth 1, as far as no start code comes
/// of it but those that begin NAL units, which therefore lie anywhere in packets.
/// And how long the units are, those of the other PID among them.
fn crowded(units: u64, length: usize, bounded: bool) -> (Vec<u8>, Vec<usize>) {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID), (0x06, 0x101)]);
    let mut noise = 7_u64;
    let mut lengths = Vec::new();
    for n in 0..units {
        let mut es = vec![0, 0, 0, 1, 0x09, 0x10];
        for slice in 0..5 {
            es.extend(if slice % 2 == 0 {
                [0, 0, 1].as_slice()
            } else {
                &[0, 0, 0, 1]
            });
            // first_mb_in_slice 0 or 1.
            let kind = if n == 0 { 0x65 } else { 0x41 };
            es.extend([kind, if slice == 0 { 0x88 } else { 0x48 }]);
            noise = noise.wrapping_mul(6_364_136_223_846_793_005) + 1;
            let end = es.len() + length + (noise >> 33) as usize % 400;
            while es.len() < end {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005) + 1;
                let byte =
                    [0, 1, 2, 3, (noise >> 50) as u8, 0x55, 0, 1][(noise >> 60) as usize % 8];
                let escaped = byte < 4 && es.ends_with(&[0, 0]);
                es.push(if escaped { 0x80 } else { byte });
            }
            es.push(0x80);
        }
        writer.pes(VIDEO_PID, n * 3600, bounded, &es);
        lengths.push(es.len());
        if n % 3 == 0 {
            writer.pes(0x101, n * 3600, true, &es[..length]);
            lengths.push(length);
        }
    }
    (writer.bytes, lengths)
}

#[test]
fn start_codes_are_found_wherever_they_lie_in_payloads_of_any_size() {
    for bounded in [false, true] {
        let (bytes, mut expected) = crowded(40, 1_300, bounded);
        let run = check("crowded", &bytes, &Limits::default());
        let mut lengths: Vec<_> = run.units.iter().map(|u| u.0.bytes as usize).collect();
        lengths.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lengths, expected);
    }
}

#[test]
fn units_that_grow_too_large_are_cut_alike() {
    let limits = Limits {
        max_frame_size: 9_000,
        ..Limits::default()
    };
    let (bytes, _) = crowded(12, 4_000, false);
    let run = check("too large", &bytes, &limits);
    assert!(run.units.iter().any(|(unit, ..)| unit.bytes < 9_400));
}

#[test]
fn files_are_read_alike_in_payloads_of_any_size() {
    for name in [
        "ts_h264ipp_aac.ts",
        "ts_h264b3_opengop_aac.ts",
        "ts_hevc_b3_aac.ts",
        "ts_mpeg2_mp2.ts",
        "ts_av1_draft_no_td.ts",
        "ts_av1_pes_per_tu.ts",
        "ts_jpegxs_422_8b.ts",
        "ts_h264_klv_sync_async.ts",
        "ts_two_programs.ts",
        "h264_multislice4.ts",
        "tr290_1.4_lost_packet.ts",
        "tr290_1.4_triple_packet.ts",
        "tr290_2.1_transport_error_indicator.ts",
    ] {
        for units in [Units::AccessUnits, Units::PesPackets] {
            let limits = Limits {
                units,
                ..Limits::default()
            };
            let run = check(name, &common::vector(name), &limits);
            assert!(!run.units.is_empty(), "{name}");
        }
    }
}
