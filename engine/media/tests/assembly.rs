//! Access units from streams that lack something, change in the middle, or mean harm.

mod common;

use common::bits::Bits;
use common::{Bench, VIDEO_PID, vector};
use mirror_media::files::annexb::{AnnexB, FileUnit, nal_units};
use mirror_media::{Codec, Damaged, FrameKind, Limits};

fn read(bytes: &[u8], codec: Codec) -> (Vec<FileUnit>, AnnexB) {
    let mut reader = AnnexB::new(codec, &Limits::default()).unwrap();
    let mut units = Vec::new();
    for piece in bytes.chunks(1000) {
        reader.push(piece);
        units.extend(core::iter::from_fn(|| reader.poll_unit()));
    }
    reader.finish();
    units.extend(core::iter::from_fn(|| reader.poll_unit()));
    (units, reader)
}

fn join<N: AsRef<[u8]>>(nals: impl IntoIterator<Item = N>) -> Vec<u8> {
    let mut out = Vec::new();
    for nal in nals {
        out.extend([0, 0, 0, 1]);
        out.extend(nal.as_ref());
    }
    out
}

fn slices(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(nal[0] & 0x1F, 1 | 5),
        _ => nal[0] >> 1 < 32,
    }
}

const MULTISLICE: [(&str, Codec, usize); 2] = [
    ("h264_multislice4.h264", Codec::H264, 4),
    ("hevc_slices3.h265", Codec::H265, 3),
];

#[test]
fn a_picture_without_its_first_slice_is_damaged_and_no_other() {
    for (name, codec, per_picture) in MULTISLICE {
        let bytes = vector(name);
        let whole = read(&bytes, codec).0.len();
        for picture in [1, 3, 10, 24, 29] {
            let mut slice = 0;
            let kept = nal_units(&bytes).filter(|nal| {
                slice += usize::from(slices(codec, nal));
                !slices(codec, nal) || slice != picture * per_picture + 1
            });
            let (units, _) = read(&join(kept), codec);
            assert_eq!(units.len(), whole, "{name} {picture}");
            for (n, unit) in units.iter().enumerate() {
                assert_eq!(unit.unit.damaged, n == picture, "{name} {picture}: {n}");
            }
        }
    }
}

#[test]
fn slices_that_do_not_rise_damage_their_picture() {
    for (name, codec, per_picture) in MULTISLICE {
        let bytes = vector(name);
        let mut nals: Vec<&[u8]> = nal_units(&bytes).collect();
        let places: Vec<usize> = (0..nals.len())
            .filter(|&n| slices(codec, nals[n]))
            .collect();
        // The last two of picture 5.
        let last = 6 * per_picture - 1;
        nals.swap(places[last], places[last - 1]);
        let (units, _) = read(&join(nals), codec);
        let damaged: Vec<usize> = (0..units.len())
            .filter(|&n| units[n].unit.damaged)
            .collect();
        assert_eq!(damaged, [5], "{name}");
    }
}

#[test]
fn layers_above_the_base_stay_in_their_units_and_are_counted() {
    let bytes = vector("hevc_b3_closed.h265");
    let whole = read(&bytes, Codec::H265).0;
    // A VPS extension's worth of sets and a slice of layer 1, and a slice of layer 2.
    let layers: [&[u8]; 3] = [
        &[0x42, 0x09, 1, 2, 3],
        &[0x02, 0x09, 0x80, 9],
        &[0x02, 0x11, 0x80],
    ];
    let mut nals: Vec<&[u8]> = Vec::new();
    for nal in nal_units(&bytes) {
        nals.push(nal);
        if slices(Codec::H265, nal) {
            nals.extend(layers);
        }
    }
    let (units, reader) = read(&join(nals), Codec::H265);
    assert_eq!(units.len(), whole.len());
    assert!(units.iter().all(|u| !u.unit.damaged));
    assert_eq!(reader.track().enhancement_layers, 2);
    assert_eq!(reader.track().width, 176, "the base layer's");

    let bytes = vector("h264_b2_closed.h264");
    let whole = read(&bytes, Codec::H264).0;
    let mut nals: Vec<&[u8]> = Vec::new();
    for nal in nal_units(&bytes) {
        if slices(Codec::H264, nal) {
            // SVC: temporal_id 1; a slice of dependency_id 1.
            nals.push(&[0x0E, 0x80, 0x00, 0x20]);
            nals.push(nal);
            nals.push(&[0x14, 0x80, 0x10, 0x20, 0x88, 1]);
        } else {
            nals.push(nal);
        }
    }
    let (units, reader) = read(&join(nals), Codec::H264);
    assert_eq!(units.len(), whole.len());
    assert!(
        units
            .iter()
            .all(|u| !u.unit.damaged && u.unit.temporal_id == 1)
    );
    let track = reader.track();
    assert_eq!((track.enhancement_layers, track.temporal_layers), (1, 2));
}

#[test]
fn another_resolution_in_mid_stream_is_told_with_its_sets() {
    let first = vector("hevc_b3_closed.h265");
    let second = vector("hevc_slices3.h265");
    let mut reader = AnnexB::new(Codec::H265, &Limits::default()).unwrap();
    reader.push(&first);
    let units = core::iter::from_fn(|| reader.poll_unit()).count();
    let (version, info) = reader.assembler().info();
    assert_eq!((info.width, info.height), (176, 144));
    let sets = reader.parameter_sets().to_vec();
    reader.push(&second);
    reader.finish();
    let more = core::iter::from_fn(|| reader.poll_unit());
    let more: Vec<FileUnit> = more.collect();
    assert_eq!(units + more.len(), 80);
    assert!(more.iter().all(|u| !u.unit.damaged));
    let (after, info) = reader.assembler().info();
    assert_eq!((info.width, info.height), (320, 288));
    assert_ne!(version, after);
    assert_ne!(reader.parameter_sets(), sets);
    let alone = read(&second, Codec::H265).1;
    assert_eq!(reader.parameter_sets(), alone.parameter_sets());
}

#[test]
fn leading_pictures_behind_an_end_of_sequence_are_not_decodable() {
    let bytes = vector("hevc_b3_opengop_cra.h265");
    let units = read(&bytes, Codec::H265).0;
    // Unit 9 is a CRA picture; three RASL pictures follow.
    let cut = units[9].offset as usize;
    let ended = [&bytes[..cut], &[0, 0, 1, 0x48, 0x01], &bytes[cut..]].concat();
    let (again, _) = read(&ended, Codec::H265);
    assert_eq!(again.len(), units.len());
    let lost: Vec<usize> = (0..again.len())
        .filter(|&n| again[n].unit.undecodable)
        .collect();
    assert_eq!(lost, [10, 11, 12]);
    assert!(again[9].unit.order > again[8].unit.order);
    assert!(again[9].unit.order.unwrap().epoch > again[8].unit.order.unwrap().epoch);
}

/// 176 × 144, picture order count of the given type, no VUI.
fn h264_sets(poc_type: u32) -> Vec<u8> {
    let mut sps = Bits::default();
    sps.u(8, 77).u(8, 0).u(8, 30).ue(0).ue(0).ue(poc_type);
    if poc_type == 0 {
        sps.ue(4);
    }
    sps.ue(2).u(1, 0).ue(10).ue(8);
    sps.u(1, 1).u(1, 1).u(1, 0).u(1, 0);
    let mut pps = Bits::default();
    pps.ue(0).ue(0).u(2, 0).ue(0).ue(0).ue(0).u(3, 0);
    pps.ue(0).ue(0).ue(0).u(3, 0);
    [sps.nal(0x67), pps.nal(0x68)].concat()
}

#[test]
fn intra_pictures_that_all_carry_the_same_numbers_are_units_of_their_own() {
    let mut es = h264_sets(0);
    for _ in 0..10 {
        let mut slice = Bits::default();
        slice.ue(0).ue(7).ue(0).u(4, 0).ue(0).u(8, 0);
        for _ in 0..100 {
            slice.u(8, 0xA5);
        }
        es.extend(slice.nal(0x65));
    }
    let (units, _) = read(&es, Codec::H264);
    assert_eq!(units.len(), 10);
    assert!(
        units
            .iter()
            .all(|u| u.unit.kind == FrameKind::Idr && !u.unit.damaged)
    );
    assert!(units.is_sorted_by_key(|u| u.unit.order));
}

#[test]
fn operation_5_orders_what_follows_behind_what_was() {
    let slice = |kind: u32, frame_num: u32, lsb: u32, marking: &[u32]| {
        let mut slice = Bits::default();
        slice.ue(0).ue(kind).ue(0).u(4, frame_num).u(8, lsb);
        // P: no override, no reordering; then the marking.
        slice.u(1, 0).u(1, 0);
        slice.u(1, u32::from(!marking.is_empty()));
        for &operation in marking {
            slice.ue(operation);
        }
        for _ in 0..20 {
            slice.u(8, 0xA5);
        }
        slice.nal(0x61)
    };
    let mut idr = Bits::default();
    idr.ue(0)
        .ue(7)
        .ue(0)
        .u(4, 0)
        .ue(0)
        .u(8, 0)
        .u(2, 0)
        .u(32, 0xA5A5_A5A5);
    let es = [
        h264_sets(0),
        idr.nal(0x65),
        slice(5, 1, 40, &[]),
        slice(5, 2, 60, &[1, 0, 5, 0]),
        slice(5, 1, 4, &[]),
    ]
    .concat();
    let (units, _) = read(&es, Codec::H264);
    let orders: Vec<(u32, i32)> = units
        .iter()
        .map(|u| u.unit.order.map(|o| (o.epoch, o.count)).unwrap())
        .collect();
    let first = orders[0].0;
    assert_eq!(
        orders,
        [(first, 0), (first, 40), (first + 1, 0), (first + 1, 4)]
    );
}

#[test]
fn damaged_units_are_left_out_on_demand_and_counted() {
    let bytes = vector("h264_multislice4.ts");
    let run = |damaged| {
        let mut bench = Bench::new(Limits {
            damaged,
            ..Limits::default()
        });
        for (n, chunk) in bytes.chunks(1316).enumerate() {
            match n {
                // The first key frame, and something in the middle.
                1 | 20 => bench.push(None, 0),
                2 | 21 => bench.push(Some(chunk), 1),
                _ => bench.push(Some(chunk), 0),
            }
        }
        bench.pipeline.finish();
        bench.drain();
        bench
    };
    let marked = run(Damaged::Deliver);
    let dropped = run(Damaged::Drop);
    let bad = marked.units.iter().filter(|u| u.damaged).count();
    let undecodable = marked.units.iter().filter(|u| u.undecodable).count();
    assert!(bad > undecodable && undecodable > 10);
    let first_whole = marked.units.iter().find(|u| !u.damaged).unwrap();
    assert!(first_whole.kind.is_key());
    let good: Vec<_> = marked.units.iter().filter(|u| !u.damaged).collect();
    assert!(
        dropped
            .units
            .iter()
            .map(|u| u.first)
            .eq(good.iter().map(|u| u.first))
    );
    let counters = marked.pipeline.counters();
    assert_eq!(counters.units_damaged, bad as u64);
    assert_eq!(counters.units_undecodable, undecodable as u64);
    assert_eq!(counters.units_left_out, 0);
    let counters = dropped.pipeline.counters();
    assert_eq!(
        (counters.units_left_out, counters.units_damaged),
        (bad as u64, 0)
    );
    assert_eq!(counters.units, good.len() as u64);
}

#[test]
fn parameter_sets_come_out_of_a_transport_stream() {
    for (ts, es) in [
        ("h264_multislice4.ts", "h264_multislice4.h264"),
        ("ts_hevc_b3_aac.ts", ""),
    ] {
        let bench = Bench::run(&vector(ts), 1316);
        let track = bench.track(VIDEO_PID) as u16;
        let sets = bench.pipeline.parameter_sets(track);
        assert!(sets.starts_with(&[0, 0, 0, 1]), "{ts}");
        assert!(bench.pipeline.parameter_sets(99).is_empty());
        if !es.is_empty() {
            assert_eq!(sets, read(&vector(es), Codec::H264).1.parameter_sets());
        }
        // Whoever joins late reads the track by them alone.
        let key = bench.units.iter().rfind(|u| u.kind.is_key()).unwrap();
        let mut late = sets.to_vec();
        late.extend(bench.bytes_of(key));
        let codec = mirror_media::files::annexb::detect(sets).unwrap();
        let (units, reader) = read(&late, codec);
        assert!(units[0].unit.kind.is_key() && !units[0].unit.damaged);
        let shown = &bench.pipeline.tracks()[usize::from(track)];
        assert_eq!(reader.track().width, shown.width);
        assert_eq!(reader.track().profile, shown.profile);
    }
}

#[test]
fn captions_are_seen_in_a_transport_stream() {
    let bench = Bench::run(&vector("ts_h264_cea608_708.ts"), 1316);
    let track = &bench.pipeline.tracks()[bench.track(VIDEO_PID)];
    assert!(track.side.cea608 && track.side.cea708);
    let bench = Bench::run(&vector("h264_multislice4.ts"), 1316);
    let track = &bench.pipeline.tracks()[bench.track(VIDEO_PID)];
    assert!(!track.side.cea608 && !track.side.cea708);
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize
    }
}

#[test]
fn mutated_streams_neither_panic_nor_grow() {
    let mut noise = Noise(7);
    for (name, codec) in [
        ("h264_b3pyr_opengop.h264", Codec::H264),
        ("h264_interlaced_mbaff.h264", Codec::H264),
        ("h264_intra_refresh.h264", Codec::H264),
        ("hevc_hrd.h265", Codec::H265),
        ("hevc_temporal_layers.h265", Codec::H265),
        ("ffprobe_hevc_hdr10.h265", Codec::H265),
        ("ffprobe_mpeg2_interlaced.m2v", Codec::Mpeg2Video),
    ] {
        let bytes = vector(name);
        for round in 0..60 {
            let mut broken = bytes.clone();
            for _ in 0..=round {
                let at = noise.next() % broken.len();
                match noise.next() % 3 {
                    0 => broken[at] ^= 1 << (noise.next() % 8),
                    1 => broken[at] = noise.next() as u8,
                    _ => {
                        let end = (at + noise.next() % 50).min(broken.len());
                        broken.drain(at..end);
                    }
                }
            }
            // Another codec's bytes are no reason to fall over either.
            for codec in [codec, Codec::H264, Codec::H265, Codec::Mpeg2Video] {
                let (units, reader) = read(&broken, codec);
                let sum: u64 = units.iter().map(|u| u64::from(u.unit.bytes)).sum();
                assert!(sum <= broken.len() as u64 + 8, "{name}");
                assert!(units.iter().all(|u| u.unit.first <= u.unit.end));
                assert!(reader.parameter_sets().len() <= 128 << 10);
            }
        }
    }
}

#[test]
fn parameter_sets_of_noise_are_read_in_bounded_time() {
    let mut noise = Noise(3);
    for (codec, headers) in [
        (Codec::H264, [&[0x67][..], &[0x68], &[0x06], &[0x65]]),
        (
            Codec::H265,
            [&[0x42, 1][..], &[0x44, 1], &[0x4E, 1], &[0x26, 1]],
        ),
        (Codec::Mpeg2Video, [&[0xB3][..], &[0xB5], &[0xB8], &[0x00]]),
    ] {
        let mut reader = AnnexB::new(codec, &Limits::default()).unwrap();
        for round in 0..20_000 {
            let mut nal = vec![0, 0, 1];
            nal.extend(headers[noise.next() % 4]);
            if codec == Codec::H264 && noise.next().is_multiple_of(2) {
                // A profile with everything in it.
                nal.extend([[100, 122, 244, 118][noise.next() % 4], 0, 40]);
            }
            // From sparse (long Exp-Golomb codes) to dense (short ones).
            let size = noise.next() % 200;
            let ones = round % 5;
            nal.extend((0..size).map(|_| {
                let byte = noise.next() as u8;
                match ones {
                    0 => byte & noise.next() as u8 & noise.next() as u8,
                    1 => byte | noise.next() as u8 | noise.next() as u8,
                    2 => 0xFF,
                    _ => byte,
                }
            }));
            reader.push(&nal);
            while reader.poll_unit().is_some() {}
        }
        let track = reader.track();
        assert!(track.width <= 1 << 17 && track.height <= 1 << 18);
    }
}

#[test]
fn empty_and_cut_parameter_sets_leave_the_good_ones_in_force() {
    for (name, codec) in [
        ("h264_ntsc_hdronce.h264", Codec::H264),
        ("hevc_ipp_aud.h265", Codec::H265),
    ] {
        let bytes = vector(name);
        let (units, reader) = read(&bytes, codec);
        let sets = reader.parameter_sets().to_vec();
        let bad: [&[u8]; 6] = match codec {
            Codec::H264 => [
                &[0x67],
                &[0x68],
                &[0x67, 100, 0],
                &[0x68, 0x00],
                &[],
                &[0x06],
            ],
            _ => [
                &[0x40, 1],
                &[0x42, 1],
                &[0x44, 1],
                &[0x42, 1, 1],
                &[0x42],
                &[0x4E, 1],
            ],
        };
        let mut nals: Vec<&[u8]> = nal_units(&bytes).collect();
        let first = (0..nals.len()).find(|&n| slices(codec, nals[n])).unwrap();
        for nal in bad {
            nals.insert(first, nal);
        }
        let (again, reader) = read(&join(nals), codec);
        assert_eq!(again.len(), units.len(), "{name}");
        assert!(again.iter().all(|u| !u.unit.damaged), "{name}");
        assert_eq!(reader.parameter_sets(), sets, "{name}");
        assert!(reader.assembler().counters().malformed > 0, "{name}");
    }
}
