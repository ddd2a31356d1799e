//! JPEG XS captures, held against their facts and their source files, and packets whose
//! counters or headers lie.

use mirror_base::Discard;

use super::super::jpegxs::begins_picture;
use super::*;

const FILES: [(&str, &str); 3] = [
    ("rtp60_syn_jxs_codestream_mode", "jxs_422_8b.jxs"),
    ("rtp61_syn_jxs_slice_mode", "jxs_422_10b.jxs"),
    ("rtp62_syn_jxs_interlaced_fields", "jxs_422_8b.jxs"),
];

fn media(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../../tests/vectors/media/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

fn jxs(packets: &[Sent]) -> Run {
    run(Some(Codec::JpegXs), packets)
}

const MALFORMED: Taken = Taken::Discarded(Discard::MalformedPayload);

#[test]
fn pictures_agree_with_their_facts_and_their_source() {
    for (name, source) in FILES {
        let facts = &json(name)["streams"][0];
        let packets = sent(name);
        let headers: Vec<String> = packets.iter().map(|p| hex(&p.payload[..4])).collect();
        let expected = facts["payload_headers"].as_array().unwrap();
        assert!(headers.iter().zip(expected).all(|(h, e)| e == h.as_str()));
        let r = jxs(&packets);
        assert!(r.taken.iter().all(|t| *t == Taken::Done), "{name}");
        assert_eq!(r.units.len() as u64, facts["markers"].as_u64().unwrap());
        let source_facts: Value =
            serde_json::from_slice(&media(&format!("{source}.json"))).unwrap();
        let interlaced = name.contains("interlaced");
        for (n, unit) in r.units.iter().enumerate() {
            assert!(!unit.damaged, "{name} {n}");
            assert_eq!((unit.kind, unit.discardable), (FrameKind::Idr, true));
            let from = facts["first_ts"].as_i64().unwrap();
            assert_eq!(unit.pts, Some(from + 3600 * n as i64), "{name}");
            assert_eq!(unit.completed_by, unit.last_arrival);
            let codestream = source_facts["codestream_bytes"][n].as_u64().unwrap();
            let fields = 1 + u64::from(interlaced);
            assert_eq!(u64::from(unit.bytes), codestream * fields, "{name} {n}");
        }
        assert!(r.extract_all() == media(source), "{name}");
        let track = &r.input.tracks()[0];
        assert_eq!((track.codec, track.width), (Codec::JpegXs, 192));
        assert_eq!(track.height, if interlaced { 192 } else { 96 }, "{name}");
        let depth = if name.contains("slice") { 10 } else { 8 };
        assert_eq!((track.bit_depth, track.chroma_format), (depth, 2));
        assert_eq!((track.frame_rate, track.interlaced), ((25, 1), interlaced));
        assert_eq!((track.profile, track.level), ("Unrestricted", 0));
        assert_eq!(r.input.container(), Some("JPEGXS"));
    }
}

#[test]
fn every_lost_packet_damages_its_picture_and_no_other() {
    for (name, source) in FILES {
        let packets = sent(name);
        let original = media(source);
        for lost in 0..packets.len() {
            let mut fewer = packets.clone();
            let gone = fewer.remove(lost);
            let r = jxs(&fewer);
            let all = jxs(&packets);
            assert_eq!(r.units.len(), all.units.len(), "{name} {lost}");
            let mut at = 0;
            for (unit, whole) in r.units.iter().zip(&all.units) {
                let hit = whole.pts.map(|p| p as u32) == Some(gone.timestamp);
                assert_eq!(unit.damaged, hit, "{name} {lost}");
                let mut bytes = Vec::new();
                assert!(r.input.extract(unit, &r.ring, &mut bytes));
                let end = at + whole.bytes as usize;
                assert_eq!(!hit, bytes == original[at..end], "{name} {lost}");
                assert!(bytes.len() <= end - at);
                at = end;
            }
        }
    }
}

#[test]
fn slices_sent_in_another_order_are_put_into_theirs() {
    let mut packets = sent("rtp61_syn_jxs_slice_mode");
    // 13 packets a picture: the header, then three slices of four.
    for picture in packets.chunks_mut(13) {
        picture[1..].rotate_left(4);
        picture[5..9].reverse();
        for (n, p) in picture.iter_mut().enumerate() {
            p.payload[0] &= 0x7F;
            p.marker = n == 12;
        }
    }
    let first = packets[0].sequence;
    (0..)
        .zip(&mut packets)
        .for_each(|(n, p)| p.sequence = first + n);
    let r = jxs(&packets);
    assert!(r.taken.iter().all(|t| *t == Taken::Done), "{:?}", r.taken);
    assert!(r.units.iter().all(|u| !u.damaged));
    assert!(r.extract_all() == media("jxs_422_10b.jxs"));
}

#[test]
fn a_marker_between_fields_or_none_at_all_does_not_matter() {
    for (name, source) in FILES {
        let mut packets = sent(name);
        packets
            .iter_mut()
            .for_each(|p| p.marker = p.payload[0] & 0x78 == 0x30);
        let r = jxs(&packets);
        assert!(r.units.iter().all(|u| !u.damaged), "{name}");
        assert!(r.extract_all() == media(source), "{name}");
    }
}

#[test]
fn without_a_hint_the_first_picture_header_tells_what_it_is() {
    for (name, source) in FILES {
        let packets = sent(name);
        let r = run(None, &packets);
        assert!(r.units.iter().all(|u| !u.damaged), "{name}");
        assert!(media(source).ends_with(&r.extract_all()), "{name}");
        assert!(begins_picture(&packets[0].payload) || name.contains("slice"));
    }
}

#[test]
fn hostile_counters_that_jump_repeat_or_change_their_kind_damage_the_picture() {
    let packets = sent("rtp60_syn_jxs_codestream_mode");
    let lie = |at: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packets = packets.clone();
        change(&mut packets[at].payload);
        let r = jxs(&packets);
        let damaged: Vec<bool> = r.units.iter().map(|u| u.damaged).collect();
        assert_eq!(damaged, [true, false, false, false, false, false]);
        r.taken[at]
    };
    // P repeats, and jumps.
    assert_eq!(lie(3, &|p| p[3] = 2), MALFORMED);
    lie(3, &|p| p[3] = 9);
    // SEP jumps to the end of its range.
    lie(3, &|p| (p[1], p[2]) = (p[1] | 0x3F, 0xF8));
    // L in the midst.
    lie(3, &|p| p[0] |= 0x20);
    // Slice mode, another frame number, a field.
    assert_eq!(lie(3, &|p| p[0] |= 0x40), MALFORMED);
    assert_eq!(lie(3, &|p| p[1] ^= 0x40), MALFORMED);
    assert_eq!(lie(3, &|p| p[0] |= 0x10), MALFORMED);
    // I is reserved; the header alone; less than it.
    assert_eq!(lie(3, &|p| p[0] |= 0x08), MALFORMED);
    assert_eq!(lie(3, &|p| p.truncate(4)), MALFORMED);
    assert_eq!(lie(3, &|p| p.truncate(3)), MALFORMED);
}

#[test]
fn hostile_slice_numbers_are_bounded() {
    let mut packets = sent("rtp61_syn_jxs_slice_mode");
    packets.truncate(13);
    // Slice 0x7FE: as far as SEP goes.
    let p = &mut packets[5].payload;
    (p[1], p[2]) = (p[1] | 0x3F, 0xF0);
    let r = jxs(&packets);
    assert_eq!(r.units.len(), 1);
    assert!(r.units[0].damaged);
}

#[test]
fn hostile_picture_headers_damage_the_picture_and_describe_no_track() {
    let mut packets = sent("rtp60_syn_jxs_codestream_mode");
    packets.truncate(8);
    let soc = packets[0]
        .payload
        .windows(4)
        .position(|w| w == [0xFF, 0x10, 0xFF, 0x50])
        .unwrap();
    let pih = soc + 8 + 4;
    // Lcod, width 0, height 0, slice height 0, no components, a length of 0, more decompositions
    // than there are.
    for (at, bytes, known) in [
        (pih, &[0, 0, 0x1A, 0xFF][..], true),
        (pih, &[0xFF; 4], true),
        (pih + 8, &[0, 0], false),
        (pih + 10, &[0, 0], false),
        (pih + 14, &[0, 0], false),
        (pih + 16, &[0], false),
        (pih - 2, &[0, 0], false),
        (pih - 2, &[0xFF, 0xFF], false),
        (pih + 22, &[0x5F], false),
    ] {
        let mut packets = packets.clone();
        packets[0].payload[at..at + bytes.len()].copy_from_slice(bytes);
        let r = jxs(&packets);
        assert_eq!(r.units.len(), 1, "{at}");
        assert!(r.units[0].damaged, "{at}");
        assert_eq!(r.input.tracks()[0].width > 0, known, "{at}");
    }
}

#[test]
fn an_end_marker_that_is_cut_over_two_packets_is_seen() {
    for (name, source) in &FILES[..2] {
        let mut packets = Vec::new();
        for mut p in sent(name) {
            if !p.marker {
                packets.push(p);
                continue;
            }
            let mut last = p.clone();
            let byte = p.payload.pop().unwrap();
            // Without L; the other one's number is the next.
            p.payload[0] &= !0x20;
            p.marker = false;
            last.payload.truncate(4);
            let header = u32::from_be_bytes(last.payload[..].try_into().unwrap()) + 1;
            last.payload = header.to_be_bytes().to_vec();
            last.payload.push(byte);
            packets.extend([p, last]);
        }
        let first = packets[0].sequence;
        (0..)
            .zip(&mut packets)
            .for_each(|(n, p)| p.sequence = first.wrapping_add(n));
        let r = jxs(&packets);
        assert!(r.units.iter().all(|u| !u.damaged), "{name}");
        assert!(r.extract_all() == media(source), "{name}");
    }
}

#[test]
fn an_endless_picture_is_bounded() {
    let mut r = Run::new(None);
    r.input = RtpInput::new(
        Some(PayloadHint::from(PayloadFormat::Jxsv)),
        90_000,
        SSRC,
        Limits {
            max_frame_size: 4000,
            ..Limits::default()
        },
    );
    let packets = sent("rtp60_syn_jxs_codestream_mode");
    packets.iter().for_each(|p| r.push(p));
    let r = r.finish();
    assert_eq!(r.units.len(), 6);
    assert!(r.units.iter().all(|u| u.damaged && u.bytes <= 6000));
}

#[test]
fn every_short_payload_is_survived() {
    let mut r = Run::new(Some(Codec::JpegXs));
    let mut p = sent("rtp60_syn_jxs_codestream_mode").remove(0);
    for a in 0..=255_u8 {
        for b in 0..=255_u8 {
            for tail in [&[][..], &[0], &[0, 0, 0xFF, 0x10], &[0xFF; 5]] {
                p.payload = [&[a, b], tail].concat();
                p.sequence = p.sequence.wrapping_add(1);
                p.timestamp += u32::from(b & 1);
                r.ring.release_before(r.slot.saturating_sub(200));
                r.push(&p);
            }
        }
    }
}

#[test]
fn a_stream_that_goes_on_as_h264_or_hevc_is_followed() {
    for (name, codec) in [
        ("rtp01_ffmpeg_h264_ipp", Codec::H264),
        ("rtp03_ffmpeg_hevc_b3", Codec::H265),
    ] {
        let mut packets = sent("rtp60_syn_jxs_codestream_mode");
        let (payload_type, mut last) = (112, packets[47].clone());
        for _ in 0..6 {
            let more = sent(name);
            let from = (last.sequence, last.timestamp, more[0].clone());
            packets.extend(more.into_iter().map(|mut p| {
                p.payload_type = payload_type;
                p.sequence = from
                    .0
                    .wrapping_add(1)
                    .wrapping_add(p.sequence.wrapping_sub(from.2.sequence));
                p.timestamp = from
                    .1
                    .wrapping_add(3600)
                    .wrapping_add(p.timestamp.wrapping_sub(from.2.timestamp));
                p
            }));
            last = packets.last().unwrap().clone();
        }
        let r = jxs(&packets);
        let tracks: Vec<Codec> = r.input.tracks().iter().map(|t| t.codec).collect();
        assert_eq!(tracks, [Codec::JpegXs, codec], "{name}");
        assert!(
            r.units
                .iter()
                .filter(|u| u.track == 1 && !u.damaged)
                .count()
                > 60,
            "{name}"
        );
    }
}
