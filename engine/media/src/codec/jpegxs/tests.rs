//! Headers and boxes of real codestreams, and lies.

use super::*;

const EIGHT: &[u8] = include_bytes!("../../../../../tests/vectors/media/jxs_422_8b.jxs");
const TEN: &[u8] = include_bytes!("../../../../../tests/vectors/media/jxs_422_10b.jxs");

fn header(bytes: &[u8]) -> Header {
    match Header::parse(bytes) {
        Parsed::Header(header) => header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn picture_headers_tell_size_depth_sampling_and_slices() {
    let h = header(EIGHT);
    assert_eq!((h.codestream_bytes, h.profile, h.level), (6912, 0, 0));
    assert_eq!((h.width, h.height, h.components), (192, 96, 3));
    assert_eq!((h.bit_depth, h.chroma_format, h.rgb), (8, 2, false));
    assert_eq!((h.slice_height, h.vertical_decompositions), (4, 2));
    assert_eq!((h.slices(), h.first_slice), (6, Some(110)));
    let h = header(TEN);
    assert_eq!((h.bit_depth, h.slice_height, h.slices()), (10, 16, 3));
    assert_eq!(h.profile_name(), "Unrestricted");
    assert!(ends_codestream(&TEN[..9216]) && !ends_codestream(&TEN[..9215]));
    assert!(!ends_codestream(&[0x11]));
}

#[test]
fn a_header_that_comes_in_pieces_is_known_with_its_component_table() {
    let table = TEN.windows(2).position(|w| w == [0xFF, 0x13]).unwrap();
    for cut in 0..200 {
        match Header::parse(&TEN[..cut]) {
            Parsed::More => assert!(cut < table + 10, "{cut}"),
            Parsed::Header(h) => assert_eq!(h.first_slice.is_some(), cut >= 100, "{cut}"),
            Parsed::Bad => panic!("{cut}"),
        }
    }
}

#[test]
fn boxes_are_walked_in_any_order_and_passed_over_when_unknown() {
    let jpvi = "00000016 6a707669 00000002 42000078 8090 0a141e0c";
    let jpvs = format!("0000002a 6a707673 {jpvi} 0000000c 6a78706c 3540 1080");
    let colr = "00000012 636f6c72 05 00 00 0009 0010 0009 80";
    let other = "0000000c 66726565 00000000";
    let bytes = |text: &str| crate::tests::hex(&text.replace(' ', ""));
    for text in [
        format!("{jpvs} {colr} ff10"),
        format!("{other} {colr} {other} {jpvs} ff10"),
    ] {
        let bytes = bytes(&text);
        let Boxes::Codestream(at, support) = boxes(&bytes) else {
            panic!("a codestream")
        };
        assert_eq!(at, bytes.len() - 2);
        assert_eq!(support.frame_rate, (120_000, 1001));
        assert!(support.interlaced && !support.bottom_first);
        assert_eq!(support.timecode, Some([10, 20, 30, 12]));
        let colour = support.colour.unwrap();
        assert_eq!(
            (colour.primaries, colour.transfer, colour.matrix),
            (9, 16, 9)
        );
        assert!(colour.full_range);
        for cut in 0..bytes.len() - 1 {
            assert_eq!(boxes(&bytes[..cut]), Boxes::More, "{cut}");
        }
    }
    // That of MPEG-TS.
    let jxes = bytes("0000001e 6a786573 00000002 01000019 8090 0000 0000 01010100 00000000 ff10");
    let Boxes::Codestream(30, support) = boxes(&jxes) else {
        panic!("a codestream")
    };
    assert_eq!((support.frame_rate, support.timecode), ((25, 1), None));
    // No boxes at all.
    assert!(matches!(boxes(TEN), Boxes::Codestream(0, _)));
}

#[test]
fn hostile_boxes_are_refused_or_passed_over() {
    let bytes = |text: &str| crate::tests::hex(&text.replace(' ', ""));
    for text in [
        "00000000 6a707673 ff10",
        "00000007 6a707673 ff10",
        "ffffffff 6a707673 ff10",
        "00001000 6a707673 ff10",
        "00000008 00000001 ff10",
    ] {
        assert_eq!(boxes(&bytes(text)), Boxes::Bad, "{text}");
    }
    for text in [
        // A child of no length, of one beyond its parent; a colour box of another method.
        "00000010 6a707673 00000000 6a707669 ff10",
        "00000010 6a707673 ffffffff 6a707669 ff10",
        "0000000c 636f6c72 01000000 ff10",
        "00000008 6a786573 ff10",
    ] {
        let b = bytes(text);
        let Boxes::Codestream(at, support) = boxes(&b) else {
            panic!("{text}")
        };
        assert_eq!((at, support), (b.len() - 2, VideoSupport::default()));
    }
}

#[test]
fn the_descriptor_tells_rate_colour_and_mastering_display() {
    let plain = crate::tests::hex("0000c00060000000020100001980900000000000000001020101010000");
    let support = VideoSupport::from_descriptor(&plain).unwrap();
    assert_eq!((support.frame_rate, support.bitrate_mbps), ((25, 1), 2));
    assert_eq!(support.colour.unwrap().primaries, 1);
    assert_eq!(support.mastering, None);
    // One writer leaves out the last byte.
    let short = VideoSupport::from_descriptor(&plain[..plain.len() - 1]).unwrap();
    assert_eq!(short, support);
    let mut long = plain.clone();
    *long.last_mut().unwrap() = 0x40;
    for value in [8500_u16, 39_850, 6550, 2300, 35_400, 14_600, 15_635, 16_450] {
        long.extend(value.to_be_bytes());
    }
    long.extend(10_000_000_u32.to_be_bytes());
    long.extend(50_u32.to_be_bytes());
    long.extend([0x03, 0xE8, 0, 0x64]);
    let support = VideoSupport::from_descriptor(&long).unwrap();
    let mastering = support.mastering.unwrap();
    assert_eq!(mastering.primaries[2], [35_400, 14_600]);
    assert_eq!(
        (mastering.max_luminance, mastering.min_luminance),
        (10_000_000, 50)
    );
    assert_eq!(support.light.unwrap().max_average, 100);
    for cut in 0..plain.len() - 2 {
        assert_eq!(VideoSupport::from_descriptor(&plain[..cut]), None, "{cut}");
    }
    assert_eq!(
        VideoSupport::from_descriptor(&[1; 40]),
        None,
        "another version"
    );
}

#[test]
fn profiles_and_levels_have_their_names() {
    for (profile, name) in [
        (0x1500, "Light 422.10"),
        (0x3540, "Main 422.10"),
        (0x4A40, "High 444.12"),
        (0x6EC0, "MLS.12"),
        (0x1234, ""),
    ] {
        let header = Header {
            profile,
            ..Header::default()
        };
        assert_eq!(header.profile_name(), name);
    }
    assert_eq!((level_name(0x24), level_name(1)), ("4k-2", ""));
}

#[test]
fn hostile_picture_headers_are_refused() {
    let start = TEN.windows(2).position(|w| w == [0xFF, 0x12]).unwrap();
    let body = start + 4;
    let table = TEN.windows(2).position(|w| w == [0xFF, 0x13]).unwrap();
    for (at, bytes) in [
        // Lengths 0, 1, and that of a marker segment too short.
        (start + 2, &[0, 0][..]),
        (start + 2, &[0, 1]),
        (start + 2, &[0, 10]),
        // Width, height, slice height, components: 0; and too many of them.
        (body + 8, &[0, 0]),
        (body + 10, &[0, 0]),
        (body + 14, &[0, 0]),
        (body + 16, &[0]),
        (body + 16, &[200]),
        // No such number of decompositions.
        (body + 22, &[0x57]),
        // Depth 0 and 17, odd sampling; the table twice; a slice before the table.
        (table + 4, &[0]),
        (table + 4, &[17]),
        (table + 5, &[0x12]),
        (table + 7, &[0x33]),
        (start, &[0xFF, 0x13]),
        (start, &[0xFF, 0x20]),
        // No marker, and one that ends the codestream.
        (start, &[0, 0]),
        (start, &[0xFF, 0x11]),
    ] {
        let mut lie = TEN[..300].to_vec();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(Header::parse(&lie), Parsed::Bad, "{at} {bytes:?}");
        assert_eq!(Facts::default().take(&lie), None);
    }
    assert_eq!(Header::parse(b"\xFF\xD8\xFF\xE0"), Parsed::Bad);
}

#[test]
fn every_altered_byte_of_a_head_is_survived() {
    for at in 0..110 {
        for flip in [1, 2, 0x10, 0x80, 0xFF] {
            let mut head = EIGHT[..HEAD].to_vec();
            head[at] ^= flip;
            let mut facts = Facts::default();
            if let Some((_, header)) = facts.take(&head) {
                assert!(header.slices() > 0);
            }
        }
    }
}
