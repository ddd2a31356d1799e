//! PES packets as units: each is one, with its times and its bytes as they came, whatever it
//! holds; loss shows, and TR 101 290 is measured as ever.
#![allow(missing_docs)]

mod common;

use common::{Bench, VIDEO_PID, Writer};
use mirror_media::ts::pes::timestamp;
use mirror_media::{AccessUnit, Codec, FrameKind, Limits, Units};

fn limits() -> Limits {
    Limits {
        units: Units::PesPackets,
        ..Limits::default()
    }
}

fn run(bytes: &[u8], limits: Limits, size: usize) -> Bench {
    let mut bench = Bench::new(limits);
    for payload in bytes.chunks(size) {
        bench.push(Some(payload), 0);
    }
    bench.pipeline.finish();
    bench.drain();
    bench
}

/// The PES packets of `pid`, found the plain way: raw PTS and DTS, payload.
fn packets_of(bytes: &[u8], pid: u16) -> Vec<(Option<u64>, Option<u64>, Vec<u8>)> {
    let mut whole: Vec<Vec<u8>> = Vec::new();
    for packet in bytes.chunks_exact(188) {
        let of = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        if of != pid || packet[3] & 0x10 == 0 {
            continue;
        }
        let field = if packet[3] & 0x20 != 0 {
            1 + usize::from(packet[4])
        } else {
            0
        };
        if packet[1] & 0x40 != 0 {
            whole.push(Vec::new());
        }
        if let Some(last) = whole.last_mut() {
            last.extend(&packet[4 + field..]);
        }
    }
    let read = |pes: Vec<u8>| {
        let time = |at: usize| timestamp(pes[at..at + 5].try_into().unwrap());
        let pts = (pes[7] & 0x80 != 0).then(|| time(9)).flatten();
        let dts = (pes[7] & 0x40 != 0).then(|| time(14)).flatten().or(pts);
        let length = usize::from(u16::from_be_bytes([pes[4], pes[5]]));
        let end = if length > 0 { 6 + length } else { pes.len() };
        (pts, dts, pes[9 + usize::from(pes[8])..end].to_vec())
    };
    whole.into_iter().map(read).collect()
}

#[test]
fn each_pes_packet_is_a_unit_with_its_times_and_its_bytes() {
    for name in [
        "ts_h264ipp_aac.ts",
        "ts_hevc_b3_aac.ts",
        "ts_mpeg2_mp2.ts",
        "ts_av1_draft_no_td.ts",
        "ts_jpegxs_422_8b.ts",
        "ts_h264_klv_sync_async.ts",
        "ts_two_programs.ts",
    ] {
        let bytes = common::vector(name);
        for size in [188, 1316] {
            let bench = run(&bytes, limits(), size);
            assert!(
                bench.pipeline.tracks().len() > 1
                    || name.contains("av1")
                    || name.contains("jpegxs")
            );
            for track in bench.pipeline.tracks() {
                let pid = track.id as u16;
                let (expected, units) = (packets_of(&bytes, pid), bench.units_of(pid));
                assert_ne!(track.codec, Codec::Unknown);
                assert!(!units.is_empty() && (track.width, track.sample_rate) == (0, 0));
                assert_eq!(units.len(), expected.len(), "{name}, PID {pid}");
                for (unit, (pts, dts, payload)) in units.iter().zip(&expected) {
                    assert_eq!(common::modulo(unit.pts), *pts);
                    assert_eq!(common::modulo(unit.dts), *dts);
                    assert_eq!(&bench.bytes_of(unit), payload, "{name}, PID {pid}");
                    assert_eq!(unit.bytes as usize, payload.len());
                    assert!(!unit.damaged && unit.kind == FrameKind::Other);
                }
            }
        }
    }
}

#[test]
fn sections_are_units_as_ever() {
    let bytes = common::vector("ts_h264_scte35.ts");
    let splices = |limits| {
        let mut bench = run(&bytes, limits, 1316);
        core::iter::from_fn(move || bench.pipeline.poll_splice()).count()
    };
    assert!(splices(limits()) > 0);
    assert_eq!(splices(limits()), splices(Limits::default()));
}

#[test]
fn loss_damages_the_pes_packets_that_it_hits_and_no_other() {
    let bytes = common::vector("ts_h264ipp_aac.ts");
    let whole = run(&bytes, limits(), 1316).units_of(VIDEO_PID);
    let mut damaged = 0;
    for gone in 2..bytes.len() / 1316 {
        let mut bench = Bench::new(limits());
        for (n, payload) in bytes.chunks(1316).enumerate() {
            bench.push(
                Some(payload).filter(|_| n != gone),
                u32::from(n == gone + 1),
            );
        }
        bench.pipeline.finish();
        bench.drain();
        let units = bench.units_of(VIDEO_PID);
        let good: Vec<_> = units.iter().filter(|u| !u.damaged).collect();
        damaged += units.len() - good.len();
        assert!(units.len() - good.len() <= 1, "without {gone}");
        for unit in &good {
            let same = |w: &&AccessUnit| (w.pts, w.bytes) == (unit.pts, unit.bytes);
            assert!(whole.iter().any(|w| same(&w)), "without {gone}: {unit:?}");
        }
        // What lies in seven packets.
        assert!(good.len() + 7 >= whole.len(), "without {gone}");
    }
    assert!(damaged > 20, "{damaged}");
}

#[test]
fn what_nobody_continues_is_damaged_unless_stuffing_or_its_length_showed_the_end() {
    let closed = |bounded: bool, bytes: usize, cut: usize| {
        let mut writer = Writer::default();
        writer.tables(&[(0x1B, VIDEO_PID)]);
        writer.pes(VIDEO_PID, 3600, bounded, &vec![0x55; bytes]);
        let end = writer.bytes.len() - cut * 188;
        let mut bench = Bench::new(limits());
        for payload in writer.bytes[..end].chunks(1316) {
            bench.push(Some(payload), 0);
        }
        if let Some(due) = bench.pipeline.poll_timeout() {
            assert_eq!(due, bench.now + Limits::default().assembly_timeout);
            bench.pipeline.handle_timeout(due);
            bench.now = due;
            bench.drain();
        }
        bench.units.iter().map(|u| u.damaged).collect::<Vec<_>>()
    };
    // 14 bytes of header; twenty packets, the last one not full.
    let some = 20 * 184 - 50;
    assert_eq!(closed(false, some, 0), [false]);
    assert_eq!(closed(false, some, 1), [true]);
    assert_eq!(closed(false, some, 8), [true]);
    assert_eq!(closed(true, some, 0), [false]);
    assert_eq!(closed(true, some, 1), [true]);
    // No stuffing: who knows.
    assert_eq!(closed(false, 20 * 184 - 14, 0), [true]);
    assert_eq!(closed(true, 20 * 184 - 14, 0), [false]);
}

#[test]
fn pes_packets_that_grow_too_large_are_cut() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    writer.pes(VIDEO_PID, 0, false, &vec![0x55; 400_000]);
    writer.pes(VIDEO_PID, 3600, false, &[0x55; 1_000]);
    let bench = run(
        &writer.bytes,
        Limits {
            max_frame_size: 100_000,
            ..limits()
        },
        1316,
    );
    let of = |damaged| bench.units.iter().filter(move |u| u.damaged == damaged);
    assert!(of(true).all(|u| u.bytes > 100_000 && u.bytes <= 100_000 + 184));
    assert_eq!((of(true).count(), of(false).count()), (1, 1));
}

#[test]
fn tr_101_290_counts_the_same() {
    for entry in std::fs::read_dir(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/media"
    ))
    .unwrap()
    {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("tr290_") || !name.ends_with(".ts") {
            continue;
        }
        let bytes = common::vector(&name);
        let of = |limits| {
            run(&bytes, limits, 1316)
                .pipeline
                .tr101290()
                .unwrap()
                .clone()
        };
        assert_eq!(of(limits()), of(Limits::default()), "{name}");
    }
}
