//! Formats of which a timestamp is a unit: KLV, VP8, VP9, ancillary data; and MPEG video.

use super::*;

#[test]
fn klv_units_agree_with_their_facts() {
    let name = "rtp67_syn_klv";
    let packets = sent(name);
    for hint in [None, Some(Codec::Klv)] {
        let r = run(hint, &packets);
        let facts = &json(name)["streams"][0];
        assert_eq!(r.units.len() as u64, facts["markers"].as_u64().unwrap());
        let digest = hex(&sha256::digest(&r.extract_all()));
        assert_eq!(facts["payload_sha256"], digest.as_str());
        assert!(r.units.iter().all(|u| u.bytes == 64 && !u.damaged));
        let first = facts["first_ts"].as_i64().unwrap();
        let times = r.units.iter().map(|u| u.pts.unwrap());
        assert!(times.eq((0..10).map(|n| first + 9000 * n)));
        assert_eq!(r.input.tracks()[0].codec, Codec::Klv);
        assert_eq!(r.input.container(), Some("KLV"));
    }
}

#[test]
fn klv_without_markers_ends_with_its_timestamp_and_lost_parts_damage_it() {
    let mut packets = sent("rtp67_syn_klv");
    packets.iter_mut().for_each(|p| p.marker = false);
    let r = run(Some(Codec::Klv), &packets);
    assert_eq!(r.units.iter().filter(|u| !u.damaged).count(), 10);
    for lost in 2..8 {
        let mut fewer = packets.clone();
        fewer.remove(lost);
        let r = run(Some(Codec::Klv), &fewer);
        let damaged: Vec<_> = r.units.iter().filter(|u| u.damaged).collect();
        assert!(damaged.len() == 1, "{lost}: {}", damaged.len());
    }
}

/// A VP8 packet: descriptor with a 7-bit picture id and a temporal layer, then `media`.
fn vp8(start: bool, discardable: bool, id: u8, layer: u8, media: &[u8]) -> Vec<u8> {
    let first = 0x80 | u8::from(start) << 4 | u8::from(discardable) << 5;
    [&[first, 0xA0, id, layer << 6][..], media].concat()
}

#[test]
fn vp8_pictures_are_known_and_passed_on() {
    let key = [0x50, 0, 0, 0x9D, 1, 0x2A, 0x80, 0x02, 0x68, 0x01, 7, 7];
    let inter = [0x51, 1, 2, 3];
    let mut sent = packets(
        100,
        &[
            (0, &vp8(true, false, 1, 0, &key)),
            (0, &vp8(false, false, 1, 0, &[1, 2, 3])),
            (3000, &vp8(true, true, 2, 1, &inter)),
            (6000, &vp8(true, false, 3, 0, &inter)),
        ],
    );
    sent[0].marker = false;
    for hint in [None, Some(Codec::Vp8)] {
        let r = run(hint, &sent);
        let kinds: Vec<_> = r.units.iter().map(|u| u.kind).collect();
        assert_eq!(kinds, [FrameKind::Idr, FrameKind::P, FrameKind::P]);
        let layers: Vec<_> = r
            .units
            .iter()
            .map(|u| (u.temporal_id, u.discardable))
            .collect();
        assert_eq!(layers, [(0, false), (1, true), (0, false)]);
        assert!(r.units.iter().all(|u| !u.damaged));
        let all = [&key[..], &[1, 2, 3], &inter, &inter].concat();
        assert_eq!(r.extract_all(), all);
        let track = &r.input.tracks()[0];
        assert_eq!(
            (track.codec, track.width, track.height),
            (Codec::Vp8, 640, 360)
        );
        assert_eq!(track.temporal_layers, 2);
    }
    // Without its first packet a picture is damaged.
    let r = run(Some(Codec::Vp8), &sent[1..]);
    let damaged: Vec<_> = r.units.iter().map(|u| u.damaged).collect();
    assert_eq!(damaged, [true, false, false]);
}

#[test]
fn vp9_layers_of_a_timestamp_are_one_unit() {
    let bits = format!(
        "10000010{:024b}0010{:016b}{:016b}00000",
        0x49_8342, 1279, 719
    );
    let key: Vec<u8> = (0..bits.len() / 8)
        .map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap())
        .collect();
    let inter = [0b1000_0110, 1, 2];
    // I, L, B, E; picture id, layer indexes, TL0PICIDX.
    let packet = |predicted: bool, id: u8, spatial: u8, media: &[u8]| {
        let first = 0xAC | u8::from(predicted) << 6;
        [&[first, id, spatial << 1, 0][..], media].concat()
    };
    let mut sent = packets(
        100,
        &[
            (0, &packet(false, 1, 0, &key)),
            (0, &packet(false, 1, 1, &inter)),
            (3000, &packet(true, 2, 0, &inter)),
        ],
    );
    sent[0].marker = false;
    for hint in [None, Some(Codec::Vp9)] {
        let r = run(hint, &sent);
        let kinds: Vec<_> = r.units.iter().map(|u| u.kind).collect();
        assert_eq!(kinds, [FrameKind::Idr, FrameKind::P]);
        let track = &r.input.tracks()[0];
        assert_eq!((track.width, track.height), (1280, 720));
        assert_eq!((track.enhancement_layers, track.bit_depth), (1, 8));
        assert_eq!(r.extract_all(), [&key[..], &inter, &inter].concat());
    }
}

#[test]
fn ancillary_data_is_known_by_its_header() {
    // One packet of 12 bytes, field 1.
    let data = [0x40, 0x21, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let payload = [&[0, 0, 0, 12, 1, 0x80, 0, 0][..], &data].concat();
    let empty = [0, 0, 0, 0, 0, 0, 0, 0];
    let sent = packets(
        100,
        &[
            (0, &payload),
            (1501, &empty),
            (3003, &payload),
            (4504, &payload),
        ],
    );
    for hint in [None, Some(Codec::Ancillary)] {
        let r = run(hint, &sent);
        assert_eq!((r.units.len(), r.extract_all()), (3, data.repeat(3)));
        assert_eq!(r.input.tracks()[0].codec, Codec::Ancillary);
    }
}

/// Pictures of an MPEG-2 elementary stream as RFC 2250 packs them, a slice a packet.
fn mpeg_video() -> (Vec<Sent>, Vec<u8>) {
    let sequence = [
        0, 0, 1, 0xB3, 0x0B, 0x00, 0x30, 0x13, 0xFF, 0xFF, 0xE0, 0x18, // 176 × 48, 25 Hz
        0, 0, 1, 0xB5, 0x14, 0x8A, 0, 1, 0, 0, // main profile, progressive
    ];
    let group = [0, 0, 1, 0xB8, 0, 8, 0, 0x40];
    let picture = |n: u8, kind: u8| {
        vec![
            0,
            0,
            1,
            0,
            n >> 2,
            n << 6 | kind << 3,
            0xFF,
            0xF8, // picture_header
            0,
            0,
            1,
            0xB5,
            0x8F,
            0xFF,
            0xF3,
            0x41,
            0x80, // picture coding extension: frame
        ]
    };
    let (mut sent, mut stream) = (Vec::new(), Vec::new());
    for (n, kind) in [(0u8, 1u8), (1, 2), (2, 2), (0, 1), (1, 2)]
        .into_iter()
        .enumerate()
    {
        for slice in 1..=3u8 {
            let mut media = Vec::new();
            if slice == 1 {
                if kind.1 == 1 {
                    media.extend(sequence);
                    media.extend(group);
                }
                media.extend(picture(kind.0, kind.1));
            }
            media.extend([0, 0, 1, slice, 0x22, 0x33, 0x44, n as u8 + 1]);
            stream.extend(&media);
            let header = [0, kind.0, 0x18 | u8::from(slice == 1) << 5, kind.1 << 3];
            sent.push(Sent {
                sequence: sent.len() as u16,
                timestamp: 3600 * n as u32,
                marker: slice == 3,
                payload_type: 32,
                payload: [&header[..], &media].concat(),
            });
        }
    }
    (sent, stream)
}

#[test]
fn mpeg_video_is_assembled_from_its_slices() {
    let (sent, stream) = mpeg_video();
    for payload_type in [32, 100] {
        let mut sent = sent.clone();
        sent.iter_mut().for_each(|p| p.payload_type = payload_type);
        let r = run(None, &sent);
        assert_eq!(r.units.len(), 5, "{payload_type}");
        assert!(r.units.iter().all(|u| !u.damaged), "{:?}", r.units);
        assert!(r.units[0].kind.is_key() && r.units[3].kind.is_key());
        assert_eq!(r.units[1].kind, FrameKind::P);
        let times: Vec<_> = r.units.iter().map(|u| u.pts.unwrap()).collect();
        assert_eq!(times, [0, 3600, 7200, 10800, 14400]);
        assert_eq!(r.extract_all(), stream);
        let track = &r.input.tracks()[0];
        assert_eq!(
            (track.codec, track.width, track.height),
            (Codec::Mpeg2Video, 176, 48)
        );
        // A lost slice damages its picture.
        sent.remove(4);
        let r = run(None, &sent);
        let damaged: Vec<_> = r.units.iter().map(|u| u.damaged).collect();
        assert_eq!(damaged, [false, true, false, false, false]);
    }
}

/// Captures of FFmpeg 5.1 and GStreamer 1.22, and what the files that they sent consist of.
#[test]
fn units_of_other_senders_are_those_of_the_files_they_sent() {
    for (name, format) in [
        ("rtp80_ffmpeg_vp8", PayloadFormat::Vp8),
        ("rtp81_ffmpeg_vp9", PayloadFormat::Vp9),
        ("rtp82_ffmpeg_mpeg2video", PayloadFormat::Mpv),
        ("rtp83_ffmpeg_mp2", PayloadFormat::Mpa),
        ("rtp85_ffmpeg_mp3", PayloadFormat::Mpa),
        ("rtp86_gst_vp8", PayloadFormat::Vp8),
        ("rtp87_gst_vp9", PayloadFormat::Vp9),
        ("rtp88_gst_mpeg2video", PayloadFormat::Mpv),
        ("rtp89_gst_mp2", PayloadFormat::Mpa),
        ("rtp90_gst_ac3_5_1_fragmented", PayloadFormat::Ac3),
    ] {
        let facts = json(name);
        let list = |key: &str| -> Vec<i64> {
            let all = facts[key].as_array().unwrap();
            all.iter().map(|n| n.as_i64().unwrap()).collect()
        };
        for hint in [None, Some(PayloadHint::from(format))] {
            let mut r = Run::hinted(hint, 0);
            sent(name).iter().for_each(|p| r.push(p));
            let r = r.finish();
            assert!(
                r.taken.iter().all(|t| *t == Taken::Done),
                "{name} {:?} {:?}",
                r.taken,
                r.input.detector
            );
            let sizes: Vec<_> = r.units.iter().map(|u| i64::from(u.bytes)).collect();
            assert_eq!(sizes, list("sizes"), "{name}");
            assert!(r.units.iter().all(|u| !u.damaged), "{name}");
            let digest = hex(&sha256::digest(&r.extract_all()));
            assert_eq!(facts["es_sha256"], digest.as_str(), "{name}");
            let keys = (0..).zip(&r.units).filter(|(_, u)| u.kind.is_key());
            assert_eq!(
                keys.map(|k| k.0).collect::<Vec<_>>(),
                list("key_units"),
                "{name}"
            );
            let track = &r.input.tracks()[0];
            assert_eq!(track.codec, format.codec(), "{name}");
            if format.codec().is_video() {
                assert_eq!((track.width, track.height), (176, 144), "{name}");
            } else {
                let rate = if name.contains("mp3") { 44_100 } else { 48_000 };
                let channels = if format == PayloadFormat::Ac3 { 6 } else { 1 };
                assert_eq!(
                    (track.sample_rate, track.channels),
                    (rate, channels),
                    "{name}"
                );
            }
            let first = r.units[0].pts.unwrap();
            for (unit, time) in r.units.iter().zip(list("times_90khz")) {
                let off = unit.pts.unwrap() - first - time;
                assert!(off.abs() <= 1, "{name} {off}");
            }
        }
    }
}
