//! OBU syntax against real streams, hand-made headers and lies.

use super::*;
use crate::tests::bits;
use crate::{ContentLight, MasteringDisplay};

/// Up to the operating points of a plain sequence header of profile 0.
const PLAIN_HEAD: &str = "3:0 1:0 1:0 1:0 1:0 5:0 12:0 5:8 1:0";
/// 1920 × 1080, no frame ids, tools, order hints of 7 bits.
const SIZE_AND_TOOLS: &str = "4:10 4:10 11:1919 11:1079 1:0 3:0 4:0 1:1 2:3 1:1 1:1 3:6 3:0";

fn sequence(head: &str, rest: &str) -> Sequence {
    let payload = bits(&format!("{head} {rest} 1:1"));
    let sequence = Sequence::parse_exact(&payload).expect("a sequence header");
    for cut in 0..payload.len() {
        // Neither panics nor passes for whole.
        assert_eq!(Sequence::parse_exact(&payload[..cut]), None, "{cut}");
    }
    sequence
}

#[test]
fn leb128_follows_the_vectors_and_refuses_overruns() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!(
        "../../../../../tests/vectors/ts_and_bitstream.json"
    ))
    .unwrap();
    for v in vectors["leb128"].as_array().unwrap() {
        let bytes = crate::tests::hex(v["hex"].as_str().unwrap());
        let value = v["value"].as_u64().unwrap() as u32;
        assert_eq!(leb128(&bytes), Leb128::Value(value, bytes.len()));
        let mut out = Vec::new();
        push_leb128(value, &mut out);
        assert_eq!(out.len() as u32, leb128_len(value));
        assert_eq!(leb128(&out), Leb128::Value(value, out.len()));
        for cut in 0..bytes.len() {
            assert_eq!(leb128(&bytes[..cut]), Leb128::More);
        }
    }
    assert_eq!(leb128(&[0x80; 8]), Leb128::Bad);
    assert_eq!(leb128(&[0xFF; 100]), Leb128::Bad);
    assert_eq!(leb128(&[0x80; 7]), Leb128::More);
    assert_eq!(leb128(&[0x80, 0x80, 0x80, 0x80, 0x10]), Leb128::Bad);
}

#[test]
fn sequence_headers_tell_size_depth_sampling_colour_and_levels() {
    let s = sequence(
        PLAIN_HEAD,
        &format!("{SIZE_AND_TOOLS} 1:0 1:0 1:0 1:0 2:0 1:0 1:0"),
    );
    let info = s.info;
    assert_eq!(
        (info.profile, info.level, info.high_tier),
        ("Main", 8, false)
    );
    assert_eq!(
        (info.width, info.height, info.frame_rate),
        (1920, 1080, (0, 0))
    );
    assert_eq!(
        (info.bit_depth, info.chroma_format, info.film_grain),
        (8, 1, false)
    );
    assert_eq!(
        (s.order_hint_bits, s.temporal_layers(), s.spatial_layers()),
        (7, 1, 1)
    );
    // 10 bits, BT.2020 PQ, full range, film grain.
    let s = sequence(
        PLAIN_HEAD,
        &format!("{SIZE_AND_TOOLS} 1:1 1:0 1:1 8:9 8:16 8:9 1:1 2:2 1:0 1:1"),
    );
    let colour = s.info.colour;
    assert_eq!(
        (colour.primaries, colour.transfer, colour.matrix),
        (9, 16, 9)
    );
    assert!(colour.full_range && s.info.film_grain);
    assert_eq!(s.info.bit_depth, 10);
    // Monochrome.
    let s = sequence(PLAIN_HEAD, &format!("{SIZE_AND_TOOLS} 1:0 1:1 1:0 1:0 1:0"));
    assert_eq!(s.info.chroma_format, 0);
    // sRGB.
    let srgb = "3:1 1:0 1:0 1:0 1:0 5:0 12:0 5:8 1:0";
    let s = sequence(
        srgb,
        &format!("{SIZE_AND_TOOLS} 1:0 1:1 8:1 8:13 8:0 1:0 1:0"),
    );
    assert_eq!((s.info.profile, s.info.chroma_format), ("High", 3));
    // Professional: 12 bits 4:2:2, 10 bits 4:2:2.
    let professional = "3:2 1:0 1:0 1:0 1:0 5:0 12:0 5:8 1:0";
    let s = sequence(
        professional,
        &format!("{SIZE_AND_TOOLS} 1:1 1:1 1:0 1:0 1:0 1:1 1:0 1:0 1:0"),
    );
    assert_eq!((s.info.bit_depth, s.info.chroma_format), (12, 2));
    let s = sequence(
        professional,
        &format!("{SIZE_AND_TOOLS} 1:1 1:0 1:0 1:0 1:0 1:0 1:0"),
    );
    assert_eq!((s.info.bit_depth, s.info.chroma_format), (10, 2));
    assert_eq!(s.info.profile, "Professional");
}

#[test]
fn timing_operating_points_and_decoder_models_are_read_through() {
    // 30000/1001, each picture one tick; a decoder model; two operating points, L2T2.
    let head = "3:0 1:0 1:0 \
        1:1 32:1001 32:30000 1:1 1:1 1:1 5:9 32:1 5:10 5:11 \
        1:1 5:1 \
        12:771 5:13 1:1 1:1 10:5 10:6 1:0 1:1 4:3 \
        12:257 5:4 1:0 1:0";
    let s = sequence(
        head,
        &format!("{SIZE_AND_TOOLS} 1:0 1:0 1:0 1:0 2:0 1:0 1:0"),
    );
    assert_eq!(s.info.frame_rate, (30_000, 1001));
    assert_eq!((s.info.level, s.info.high_tier), (13, true));
    let points: Vec<_> = s
        .operating_points()
        .iter()
        .map(|p| (p.idc, p.level))
        .collect();
    assert_eq!(points, [(0x303, 13), (0x101, 4)]);
    assert_eq!((s.temporal_layers(), s.spatial_layers()), (2, 2));
    // Without equal_picture_interval it says no rate.
    let s = sequence(
        "3:0 1:0 1:0 1:1 32:1 32:50 1:0 1:0 1:1 5:0 12:0 5:5 1:1 4:2",
        &format!("{SIZE_AND_TOOLS} 1:0 1:0 1:0 1:0 2:0 1:0 1:0"),
    );
    assert_eq!(s.info.frame_rate, (0, 0));
}

#[test]
fn reduced_still_picture_headers_are_read() {
    let s = sequence(
        "3:0 1:1 1:1 5:4",
        "4:7 4:7 8:63 8:63 3:0 3:0 1:0 1:0 1:0 1:0 2:0 1:0 1:0",
    );
    assert!(s.reduced_still && s.still_picture);
    assert_eq!((s.info.width, s.info.height), (64, 64));
    let mut state = State::default();
    assert_eq!(
        state.take(
            &kind(obu::SEQUENCE),
            &bits("3:0 1:1 1:1 5:4 4:7 4:7 8:63 8:63 3:0 3:0 1:0 1:0 1:0 1:0 2:0 1:0 1:0 1:1")
        ),
        Told::Sequence
    );
    let Told::Frame(frame) = state.take(&kind(obu::FRAME), &[0]) else {
        panic!("a frame")
    };
    assert_eq!(
        (frame.kind, frame.shown, frame.refresh),
        (FrameType::Key, true, 0xFF)
    );
    // Reduced, but no still picture.
    assert_eq!(Sequence::parse(&bits("3:0 1:0 1:1 5:4 32:0 32:0")), None);
}

fn kind(kind: u8) -> ObuHeader {
    ObuHeader {
        kind,
        ..ObuHeader::default()
    }
}

/// A stream of [`PLAIN_HEAD`] and [`SIZE_AND_TOOLS`].
fn plain_state() -> State {
    let mut state = State::default();
    let payload = bits(&format!(
        "{PLAIN_HEAD} {SIZE_AND_TOOLS} 1:0 1:0 1:0 1:0 2:0 1:0 1:0 1:1"
    ));
    assert_eq!(state.take(&kind(obu::SEQUENCE), &payload), Told::Sequence);
    state
}

fn frame(state: &mut State, text: &str) -> Frame {
    match state.take(&kind(obu::FRAME), &bits(text)) {
        Told::Frame(frame) => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frame_headers_tell_type_showing_and_slots() {
    let mut state = plain_state();
    // Shown key frame: screen content allowed, force_integer_mv 0, no override.
    let key = frame(&mut state, "1:0 2:0 1:1 1:0 1:1 1:0 1:0 7:5 32:0");
    assert_eq!(
        (key.kind, key.shown, key.refresh),
        (FrameType::Key, true, 0xFF)
    );
    assert!(key.error_resilient && key.screen_content && !key.showable);
    assert_eq!(key.order_hint, 5);
    assert!(state.info().unwrap().screen_content);
    // Hidden, showable, inter, kept in slot 3.
    let inter = frame(
        &mut state,
        "1:0 2:1 1:0 1:1 1:0 1:0 1:0 1:0 7:9 3:0 8:8 32:0",
    );
    assert_eq!(
        (inter.kind, inter.shown, inter.refresh),
        (FrameType::Inter, false, 8)
    );
    assert!(inter.showable && !inter.error_resilient);
    // Error resilient: no primary_ref_frame.
    let inter = frame(&mut state, "1:0 2:1 1:1 1:1 1:0 1:0 1:0 7:9 8:64 32:0");
    assert_eq!((inter.refresh, inter.error_resilient), (64, true));
    let intra = frame(&mut state, "1:0 2:2 1:1 1:0 1:0 1:0 1:0 7:9 8:2 32:0");
    assert_eq!((intra.kind, intra.refresh), (FrameType::IntraOnly, 2));
    // It shall not refresh all.
    let all = bits("1:0 2:2 1:1 1:0 1:0 1:0 1:0 7:9 8:255 32:0");
    assert_eq!(state.take(&kind(obu::FRAME), &all), Told::Malformed);
    // Switch: no override flag, refreshes all.
    let switch = frame(&mut state, "1:0 2:3 1:1 1:0 1:0 7:9 32:0");
    assert_eq!((switch.kind, switch.refresh), (FrameType::Switch, 0xFF));
}

#[test]
fn an_existing_key_frame_that_is_shown_refreshes_every_slot() {
    let mut state = plain_state();
    frame(&mut state, "1:0 2:0 1:0 1:1 1:0 1:0 1:0 1:0 7:9 8:4 32:0");
    frame(
        &mut state,
        "1:0 2:1 1:0 1:1 1:0 1:0 1:0 1:0 7:9 3:0 8:8 32:0",
    );
    let inter = frame(&mut state, "1:1 3:3 4:0");
    assert_eq!(
        (inter.kind, inter.existing, inter.refresh),
        (FrameType::Inter, Some(3), 0)
    );
    let key = frame(&mut state, "1:1 3:2 4:0");
    assert_eq!(
        (key.kind, key.existing, key.refresh),
        (FrameType::Key, Some(2), 0xFF)
    );
    assert_eq!(frame(&mut state, "1:1 3:3 4:0").kind, FrameType::Key);
    state.forget_slots();
    assert_eq!(frame(&mut state, "1:1 3:3 4:0").kind, FrameType::Inter);
}

#[test]
fn frames_before_a_sequence_header_and_cut_ones_are_malformed() {
    let whole = bits("1:0 2:1 1:0 1:1 1:0 1:0 1:0 1:0 7:9 3:0 8:8");
    assert_eq!(
        State::default().take(&kind(obu::FRAME), &whole),
        Told::Malformed
    );
    for cut in 0..whole.len() {
        assert_eq!(
            plain_state().take(&kind(obu::FRAME), &whole[..cut]),
            Told::Malformed
        );
    }
}

#[test]
fn metadata_comes_in_our_units() {
    let mut state = plain_state();
    let version = state.version();
    let mut take = |bytes: &[u8]| state.take(&kind(obu::METADATA), bytes);
    take(&[1, 3, 232, 0, 100]);
    // BT.2020 and D65 in 0.16, 1000 cd/m² in 24.8, 0.0001 in 18.14 (1.6384 rounds to 2).
    let mut mastering = vec![2];
    for value in [
        46_399_u16, 19_136, 11_141, 52_232, 8_585, 3_015, 20_493, 21_561,
    ] {
        mastering.extend(value.to_be_bytes());
    }
    mastering.extend((1000_u32 << 8).to_be_bytes());
    mastering.extend(2_u32.to_be_bytes());
    take(&mastering);
    // Captions: one CEA-608 pair, one CEA-708 packet start, one invalid triplet.
    take(b"\x04\xB5\0\x31GA94\x03\x43\xFF\xFC\x94\x2C\xFF\x02\x21\xF8\x12\x34\xFF");
    // 10:20:30:12, then only its seconds.
    take(&[&[5][..], &bits("5:0 1:1 1:0 1:0 9:12 6:30 6:20 5:10 5:0")].concat());
    let side = *state.side();
    assert_eq!(
        side.light,
        Some(ContentLight {
            max: 1000,
            max_average: 100
        })
    );
    assert_eq!(
        side.mastering,
        Some(MasteringDisplay {
            primaries: [[8500, 39_850], [6550, 2300], [35_400, 14_600]],
            white_point: [15_635, 16_450],
            max_luminance: 10_000_000,
            min_luminance: 1,
        })
    );
    assert!(side.cea608 && side.cea708);
    assert_eq!(side.timecode, Some([10, 20, 30, 12]));
    assert!(state.version() > version);
}

#[test]
fn scalability_metadata_tells_layers() {
    for (mode, layers) in [(1, (3, 1)), (4, (3, 2)), (17, (3, 3)), (23, (5, 4))] {
        let mut state = plain_state();
        state.take(&kind(obu::METADATA), &[3, mode]);
        assert_eq!((state.temporal_layers(), state.spatial_layers()), layers);
    }
    // A structure: two spatial layers, a group of two pictures in two temporal ones.
    let mut state = plain_state();
    let structure = bits(
        "8:3 8:14 2:1 1:1 1:0 1:1 3:0 16:640 16:360 16:1280 16:720 8:2 3:0 2:0 3:1 8:1 3:1 2:0 3:0",
    );
    state.take(&kind(obu::METADATA), &structure);
    assert_eq!((state.temporal_layers(), state.spatial_layers()), (2, 2));
    let info = state.info().unwrap();
    assert_eq!((info.temporal_layers, info.enhancement_layers), (2, 1));
}

#[test]
fn hostile_metadata_is_of_no_effect() {
    for bytes in [
        &[][..],
        &[0x80; 9],
        &[1, 2, 3],
        &[2; 10],
        &[3, 14, 0xFF],
        &[3, 14, 0x3F, 0xFF, 0xFF, 0xFF],
        &[4],
        b"\x04\xB5\0\x31GA94\x03\x5F\xFF\xFC",
        &[5, 4, 0xFF, 0xFF, 0xFF, 0xFF],
        &[99, 1],
    ] {
        let mut state = plain_state();
        let before = *state.side();
        assert_eq!(
            state.take(&kind(obu::METADATA), bytes),
            Told::Nothing,
            "{bytes:?}"
        );
        assert_eq!(*state.side(), before);
    }
}

#[test]
fn every_truncated_or_altered_header_of_a_real_stream_is_survived() {
    let stream = include_bytes!("../../../../../tests/vectors/media/av1_aom_altref.obu");
    let mut rest = &stream[..];
    let mut state = State::default();
    while let Some(obu) = Obu::read(rest) {
        for at in 0..obu.payload.len().min(24) {
            for flip in [1, 0x10, 0x80, 0xFF] {
                let mut payload = obu.payload[..obu.payload.len().min(64)].to_vec();
                payload[at] ^= flip;
                state.clone().take(&obu.header, &payload);
                state.clone().take(&obu.header, &payload[..at]);
            }
        }
        let told = state.take(&obu.header, obu.payload);
        assert!(told != Told::Malformed);
        rest = &rest[obu.bytes..];
    }
    assert!(rest.is_empty());
}
