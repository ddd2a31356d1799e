//! Field pictures of H.264 (PAFF): the two fields of a frame are one unit, however the
//! multiplexer cuts them, and a field without its other is one of its own.

mod common;

use common::bits::Bits;
use common::{Bench, VIDEO_PID, Writer};
use mirror_media::{FieldOrder, FrameKind};

fn parameter_sets() -> Vec<u8> {
    parameter_sets_with(|sps| sps.u(1, 0))
}

fn parameter_sets_with(vui: impl FnOnce(&mut Bits) -> &mut Bits) -> Vec<u8> {
    let mut sps = Bits::default();
    sps.u(8, 77)
        .u(8, 0)
        .u(8, 30)
        .ue(0)
        .ue(0)
        .ue(0)
        .ue(4)
        .ue(2)
        .u(1, 0);
    // 352 × 2 · 144, fields allowed, no MBAFF, no crop
    sps.ue(21).ue(8).u(1, 0).u(1, 0).u(1, 1).u(1, 0);
    vui(&mut sps);
    let mut pps = Bits::default();
    pps.ue(0)
        .ue(0)
        .u(2, 0)
        .ue(0)
        .ue(0)
        .ue(0)
        .u(3, 0)
        .ue(0)
        .ue(0)
        .ue(0)
        .u(3, 0);
    [sps.nal(0x67), pps.nal(0x68)].concat()
}

/// A field's slice. `kind` is slice_type.
fn field(idr: bool, reference: bool, kind: u32, frame_num: u32, bottom: bool, poc: u32) -> Vec<u8> {
    let mut slice = Bits::default();
    slice
        .ue(0)
        .ue(kind)
        .ue(0)
        .u(4, frame_num % 16)
        .u(1, 1)
        .u(1, u32::from(bottom));
    if idr {
        slice.ue(0);
    }
    slice.u(8, poc % 256);
    for _ in 0..200 {
        slice.u(8, 0xA5);
    }
    slice.nal(u8::from(reference) << 5 | if idr { 5 } else { 1 })
}

const AUD: [u8; 5] = [0, 0, 1, 0x09, 0xF0];
const I: u32 = 7;
const P: u32 = 5;
const B: u32 = 6;

/// Ten frames, I P B B P B B …, each of two fields.
fn frames() -> Vec<[Vec<u8>; 2]> {
    let kinds = [I, P, B, B, P, B, B, P, B, B];
    let mut frame_num = 0;
    (0..10_u32)
        .map(|n| {
            let kind = kinds[n as usize];
            let reference = kind != B;
            let poc = n * 2;
            let pair = [
                field(n == 0, reference, kind, frame_num, false, poc),
                field(
                    false,
                    reference,
                    if kind == I { P } else { kind },
                    frame_num,
                    true,
                    poc + 1,
                ),
            ];
            frame_num += u32::from(reference);
            pair
        })
        .collect()
}

fn check(writer: &Writer) {
    let bench = Bench::run(&writer.bytes, 1316);
    let units = bench.units_of(VIDEO_PID);
    let kinds: Vec<FrameKind> = units.iter().map(|u| u.kind).collect();
    use FrameKind::{B, Idr, P};
    assert_eq!(kinds, [Idr, P, B, B, P, B, B, P, B, B]);
    assert!(units.iter().all(|u| !u.damaged));
    for (n, unit) in units.iter().enumerate() {
        assert_eq!(
            unit.pts,
            Some(n as i64 * 3600),
            "the first field's time is the frame's"
        );
        assert_eq!(unit.discardable, unit.kind == B);
        let count = unit.order.map(|o| o.count);
        assert_eq!(count, Some(2 * n as i32), "the earlier field's");
    }
    let track = &bench.pipeline.tracks()[0];
    assert!(track.interlaced);
    assert_eq!(
        (track.width, track.height, track.profile),
        (352, 288, "Main")
    );
}

#[test]
fn two_fields_in_one_pes_packet_are_one_unit() {
    for aud in [&AUD[..], &[]] {
        let mut writer = Writer::default();
        writer.tables(&[(0x1B, VIDEO_PID)]);
        for (n, [first, second]) in frames().into_iter().enumerate() {
            let sets = if n == 0 { parameter_sets() } else { Vec::new() };
            let data = [aud, &sets, &first, aud, &second].concat();
            writer.pes(VIDEO_PID, n as u64 * 3600, n % 2 == 0, &data);
        }
        check(&writer);
    }
}

#[test]
fn two_fields_in_pes_packets_of_their_own_are_one_unit() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    for (n, [first, second]) in frames().into_iter().enumerate() {
        let sets = if n == 0 { parameter_sets() } else { Vec::new() };
        writer.pes(
            VIDEO_PID,
            n as u64 * 3600,
            false,
            &[&AUD[..], &sets, &first].concat(),
        );
        writer.pes(
            VIDEO_PID,
            n as u64 * 3600 + 1800,
            false,
            &[&AUD[..], &second].concat(),
        );
    }
    check(&writer);
}

/// Recovery point, `recovery_frame_cnt` 0 (D.1.8).
const RECOVERY_POINT: [u8; 8] = [0, 0, 1, 0x06, 0x06, 0x01, 0xC4, 0x80];

#[test]
fn an_intra_field_with_a_recovery_point_makes_its_frame_a_key_frame() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    let kinds = [I, P, B, I, P];
    for (n, kind) in kinds.into_iter().enumerate() {
        let n = n as u32;
        let second = if kind == I { P } else { kind };
        let head = match (n, kind) {
            (0, _) => [&AUD[..], &parameter_sets(), &RECOVERY_POINT].concat(),
            (_, I) => [&AUD[..], &RECOVERY_POINT].concat(),
            _ => AUD.to_vec(),
        };
        let frame_num = n - u32::from(n > 2);
        let first = field(false, kind != B, kind, frame_num, false, n * 2);
        let second = field(false, kind != B, second, frame_num, true, n * 2 + 1);
        let data = [&head[..], &first, &AUD, &second].concat();
        writer.pes(VIDEO_PID, u64::from(n) * 3600, false, &data);
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let units = bench.units_of(VIDEO_PID);
    let keys: Vec<bool> = units.iter().map(|u| u.kind.is_key()).collect();
    assert_eq!(keys, [true, false, false, true, false]);
    assert!(units.iter().all(|u| !u.damaged));
}

#[test]
fn a_field_without_its_other_is_a_unit_of_its_own() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    let all = [
        [
            &AUD[..],
            &parameter_sets(),
            &field(true, true, I, 0, false, 0),
        ]
        .concat(),
        // Same parity: not its other.
        [&AUD[..], &field(false, true, P, 1, false, 4)].concat(),
        [&AUD[..], &field(false, true, P, 1, true, 5)].concat(),
        [&AUD[..], &field(false, true, P, 2, true, 8)].concat(),
    ];
    for (n, data) in all.iter().enumerate() {
        writer.pes(VIDEO_PID, n as u64 * 1800, false, data);
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let units = bench.units_of(VIDEO_PID);
    let times: Vec<Option<i64>> = units.iter().map(|u| u.pts).collect();
    assert_eq!(times, [Some(0), Some(1800), Some(5400)]);
    let whole: Vec<u8> = units.iter().flat_map(|u| bench.bytes_of(u)).collect();
    assert!(whole == all.concat());
}

#[test]
fn two_fields_that_both_call_themselves_idr_are_one_unit() {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    for n in 0..4_u32 {
        let first = field(n % 2 == 0, true, I, n % 2, false, n % 2 * 2);
        let second = field(n % 2 == 0, true, I, n % 2, true, n % 2 * 2 + 1);
        let data = [&AUD[..], &parameter_sets(), &first, &second].concat();
        writer.pes(VIDEO_PID, u64::from(n) * 3600, false, &data);
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let units = bench.units_of(VIDEO_PID);
    assert_eq!(units.len(), 4);
    assert!(units.iter().all(|u| !u.damaged && u.kind.is_key()));
    assert!(units.is_sorted_by_key(|u| u.order));
    assert_eq!(units[0].kind, FrameKind::Idr);
}

/// What is shown of a stream of whole frames without MBAFF, whose picture timing messages say
/// `pic_struct` and nothing of how they were scanned.
fn shown(pic_structs: &[u32]) -> (bool, Option<FieldOrder>) {
    let mut writer = Writer::default();
    writer.tables(&[(0x1B, VIDEO_PID)]);
    // Of the VUI nothing but pic_struct_present_flag.
    let sets = parameter_sets_with(|sps| sps.u(1, 1).u(7, 0).u(1, 1).u(1, 0));
    for (n, &pic_struct) in pic_structs.iter().enumerate() {
        let mut timing = Bits::default();
        // D.1.3: no time stamps; a frame of two fields has two flags for them, of three three.
        timing.u(8, 1).u(8, 1).u(4, pic_struct).u(4, 0).u(8, 0x80);
        let mut slice = Bits::default();
        let kind = if n == 0 { I } else { P };
        slice.ue(0).ue(kind).ue(0).u(4, n as u32 % 16).u(1, 0);
        if n == 0 {
            slice.ue(0);
        }
        slice.u(8, n as u32 * 2);
        for _ in 0..200 {
            slice.u(8, 0xA5);
        }
        let sets = if n == 0 { &sets[..] } else { &[] };
        let slice = slice.nal(1 << 5 | if n == 0 { 5 } else { 1 });
        let data = [&AUD[..], sets, &timing.nal(6), &slice].concat();
        writer.pes(VIDEO_PID, n as u64 * 3600, n == 0, &data);
    }
    let bench = Bench::run(&writer.bytes, 1316);
    let track = &bench.pipeline.tracks()[0];
    (track.interlaced, track.field_order)
}

#[test]
fn frames_that_are_shown_as_two_fields_are_interlaced_unless_others_say_that_it_is_film() {
    assert_eq!(shown(&[3; 8]), (true, Some(FieldOrder::TopFirst)));
    assert_eq!(shown(&[4; 8]), (true, Some(FieldOrder::BottomFirst)));
    // 3:2 pulldown, joined anywhere.
    assert_eq!(shown(&[5, 4, 6, 3, 5, 4, 6, 3]), (false, None));
    assert_eq!(shown(&[4, 6, 3, 5, 4, 6, 3, 5]), (false, None));
}
