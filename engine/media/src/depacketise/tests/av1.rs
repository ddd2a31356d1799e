//! AV1 captures of a public packetiser, held against their facts and their source files, and
//! payloads that break the format.

use mirror_base::Discard;

use super::super::av1::{begins_sequence, elements, is_plausible};
use super::*;

const FILES: [(&str, &str); 3] = [
    ("rtp50_av1_svt_1200", "av1_svt.obu"),
    ("rtp51_av1_aom_altref_mtu300", "av1_aom_altref.obu"),
    ("rtp52_av1_aom_rt_tiles_mtu250", "av1_aom_rt_tiles.obu"),
];

fn media(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../../tests/vectors/media/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

fn media_facts(name: &str) -> Value {
    serde_json::from_slice(&media(&format!("{name}.json"))).unwrap()
}

fn av1(packets: &[Sent]) -> Run {
    run(Some(Codec::Av1), packets)
}

#[test]
fn temporal_units_agree_with_their_facts_and_their_source() {
    for (name, source) in FILES {
        let facts = &json(name)["streams"][0];
        let source_facts = media_facts(source);
        let r = av1(&sent(name));
        assert!(r.taken.iter().all(|t| *t == Taken::Done), "{name}");
        let units = facts["temporal_units"].as_array().unwrap();
        assert_eq!(r.units.len(), units.len(), "{name}");
        let mut without_delimiters = Vec::new();
        for (n, (unit, fact)) in r.units.iter().zip(units).enumerate() {
            assert!(!unit.damaged && !unit.undecodable, "{name} {n} {unit:?}");
            let pts = unit.pts.unwrap() & 0xFFFF_FFFF;
            assert_eq!(Some(pts), fact[0].as_i64(), "{name} {n}");
            assert_eq!((unit.dts, unit.dts_derived), (unit.pts, true));
            assert_eq!(unit.completed_by, unit.last_arrival);
            let mut bytes = Vec::new();
            assert!(r.input.extract(unit, &r.ring, &mut bytes));
            assert_eq!(bytes.len(), unit.bytes as usize, "{name} {n}");
            without_delimiters.extend_from_slice(&bytes[2..]);
            let keys = source_facts["key_temporal_units"].as_array().unwrap();
            let key = keys.iter().any(|k| k.as_u64() == Some(n as u64));
            let kind = if key { FrameKind::Idr } else { FrameKind::P };
            assert_eq!(unit.kind, kind, "{name} {n}");
            // Not referred to: what shows an old frame again, and none that refreshes a slot.
            let shows_old = source_facts["tu"][n]["frames"][0]
                .as_str()
                .is_some_and(|f| f.starts_with("show_existing"));
            assert!(!shows_old || unit.discardable, "{name} {n}");
        }
        let digest = hex(&sha256::digest(&without_delimiters));
        assert_eq!(facts["obu_stream_no_td_sha256"], digest.as_str(), "{name}");
        assert!(r.extract_all() == media(source), "{name}");
        let track = &r.input.tracks()[0];
        assert_eq!((track.codec, track.id), (Codec::Av1, SSRC));
        let size = (u64::from(track.width), u64::from(track.height));
        let expected = (&source_facts["width"], &source_facts["height"]);
        assert_eq!(
            size,
            (expected.0.as_u64().unwrap(), expected.1.as_u64().unwrap())
        );
        let shape = (track.profile, track.bit_depth, track.chroma_format);
        assert_eq!(shape, ("Main", 8, 1), "{name}");
        assert_eq!((track.temporal_layers, track.enhancement_layers), (1, 0));
        assert_eq!(r.input.container(), Some("AV1"));
    }
}

#[test]
fn every_lost_packet_damages_its_unit_and_no_frame_that_came_whole_is_called_damaged() {
    for (name, _) in FILES {
        let packets = sent(name);
        let whole = av1(&packets);
        for lost in 1..packets.len() {
            let mut fewer = packets.clone();
            let gone = fewer.remove(lost);
            let r = av1(&fewer);
            let of = |run: &Run, pts| run.units.iter().filter(|u| u.pts == pts).count();
            let hit = |unit: &&AccessUnit| unit.pts.map(|p| p as u32) == Some(gone.timestamp);
            let hit = whole.units.iter().find(hit).unwrap();
            for unit in &r.units {
                assert_eq!(of(&r, unit.pts), 1, "{name} {lost}");
                let same = whole.units.iter().find(|w| w.pts == unit.pts).unwrap();
                if unit.pts == hit.pts {
                    assert!(unit.damaged && !unit.undecodable, "{name} {lost}");
                } else {
                    // Whole, if of no use where the first key frame is not.
                    assert_eq!(unit.damaged, unit.undecodable, "{name} {lost} {unit:?}");
                    let after_key = hit.pts > whole.units[0].pts;
                    assert!(!(unit.damaged && after_key), "{name} {lost}");
                    assert_eq!((unit.kind, unit.bytes), (same.kind, same.bytes));
                }
                let mut bytes = Vec::new();
                assert!(r.input.extract(unit, &r.ring, &mut bytes));
                assert!(bytes.len() <= same.bytes as usize);
            }
            let single = packets
                .iter()
                .filter(|p| p.timestamp == gone.timestamp)
                .count()
                == 1;
            assert_eq!(
                r.units.len(),
                whole.units.len() - usize::from(single),
                "{name} {lost}"
            );
        }
    }
}

#[test]
fn a_stream_joined_in_its_midst_is_undecodable_up_to_the_next_key_frame() {
    for (name, source) in FILES {
        let packets = sent(name);
        let timestamp = packets[0].timestamp;
        let later: Vec<_> = packets
            .into_iter()
            .filter(|p| p.timestamp != timestamp)
            .collect();
        let r = av1(&later);
        let key = media_facts(source)["key_temporal_units"][1]
            .as_u64()
            .unwrap() as usize;
        assert_eq!(r.units.len() + 1, 2 * key, "{name}");
        for (n, unit) in r.units.iter().enumerate() {
            assert_eq!(unit.damaged, n + 1 < key, "{name} {n}");
            assert!(!unit.damaged || !unit.kind.is_key());
        }
        assert!(r.units[1].undecodable, "{name}");
    }
}

#[test]
fn units_end_at_a_new_timestamp_when_no_marker_is_ever_set_or_when_every_packet_has_one() {
    for (name, source) in FILES {
        for marker in [false, true] {
            let mut packets = sent(name);
            packets.iter_mut().for_each(|p| p.marker = marker);
            let r = av1(&packets);
            if !marker {
                assert!(r.units.iter().all(|u| !u.damaged), "{name}");
                assert!(r.extract_all() == media(source), "{name}");
            }
            // The first false end may cost a unit its wholeness.
            let units = json(name)["streams"][0]["temporal_units"]
                .as_array()
                .unwrap()
                .len();
            assert!((units..units + 2).contains(&r.units.len()), "{name}");
        }
    }
}

#[test]
fn without_a_hint_the_first_sequence_header_tells_what_it_is() {
    for (name, source) in FILES {
        let r = run(None, &sent(name));
        assert!(r.extract_all() == media(source), "{name}");
    }
    let packets = sent("rtp50_av1_svt_1200");
    assert!(begins_sequence(&packets[0].payload));
    assert!(!begins_sequence(&packets[1].payload));
    assert!(packets.iter().all(|p| is_plausible(&p.payload)));
}

/// Payloads one after another, all of one timestamp; what became of each, and the units.
fn feed(payloads: &[&[u8]]) -> (Vec<Taken>, Vec<AccessUnit>) {
    let packets: Vec<Sent> = (0..)
        .zip(payloads)
        .map(|(n, payload)| Sent {
            sequence: n,
            timestamp: 1,
            marker: usize::from(n) + 1 == payloads.len(),
            payload_type: 96,
            payload: payload.to_vec(),
        })
        .collect();
    let r = av1(&packets);
    (r.taken, r.units)
}

const MALFORMED: Taken = Taken::Discarded(Discard::MalformedPayload);
const BROKEN: Taken = Taken::Discarded(Discard::MalformedBitstream);
const ORPHAN: Taken = Taken::Discarded(Discard::OrphanFragment);

#[test]
fn hostile_leb128_overruns_are_refused() {
    // An element's length: 9 bytes long, more than 32 bits, cut off.
    for length in [
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F][..],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        &[0xFF],
    ] {
        let payload = [&[0x00], length, &[0x30, 0x10, 0]].concat();
        assert_eq!(feed(&[&payload]).0, [MALFORMED], "{length:?}");
    }
    // The OBU's own size, whole in one element: all but the last run past 32 bits or 8 bytes.
    for size in [
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F][..],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
    ] {
        let payload = [&[0x10, 0x32], size, &[0x10, 0]].concat();
        assert_eq!(feed(&[&payload]).0, [BROKEN], "{size:?}");
    }
}

#[test]
fn hostile_element_counts_and_lengths_are_refused() {
    for payload in [
        // W says 2 or 3, one element is there.
        &[0x20, 0x02, 0x30, 0x10][..],
        &[0x30, 0x01, 0x30, 0x01, 0x30],
        // Beyond the payload.
        &[0x00, 0x05, 0x30, 0x10],
        &[0x20, 0x7F, 0x30, 0x10],
        // Of no length, with and without W.
        &[0x00, 0x00, 0x01, 0x30],
        &[0x20, 0x00, 0x30],
        &[0x10],
        &[0x00],
    ] {
        assert!(feed(&[payload]).0.contains(&MALFORMED), "{payload:?}");
        assert!(!is_plausible(payload), "{payload:?}");
    }
    // An empty payload is no error.
    assert_eq!(feed(&[&[]]).0, [Taken::Done]);
}

#[test]
fn hostile_fragments_without_beginning_or_end_are_left_out() {
    // Z without a fragment; Y, then Z = 0.
    assert_eq!(feed(&[&[0x90, 1, 2, 3]]).0, [ORPHAN]);
    let packets = sent("rtp50_av1_svt_1200");
    let (taken, units) = feed(&[&packets[0].payload, &[0x10, 0x78, 1]]);
    assert_eq!(taken, [Taken::Done; 2]);
    assert!(units.iter().all(|u| u.damaged));
    // The forbidden bit.
    assert_eq!(feed(&[&[0x10, 0xB0, 1, 2]]).0, [BROKEN]);
}

#[test]
fn an_endless_obu_is_bounded() {
    let mut r = Run::new(Some(Codec::Av1));
    r.input = RtpInput::new(
        Some(PayloadHint::from(PayloadFormat::Av1)),
        90_000,
        SSRC,
        Limits {
            max_frame_size: 4000,
            ..Limits::default()
        },
    );
    let first = sent("rtp50_av1_svt_1200").remove(0);
    let mut more = Sent {
        payload: vec![0xD0; 1001],
        ..first.clone()
    };
    r.push(&first);
    for _ in 0..100 {
        more.sequence += 1;
        r.push(&more);
    }
    let r = r.finish();
    let exceeded = Taken::Discarded(Discard::LimitExceeded);
    assert_eq!(r.taken.iter().filter(|t| **t == exceeded).count(), 1);
    assert!(r.units.iter().all(|u| u.damaged && u.bytes <= 4000));
}

#[test]
fn every_short_payload_is_survived() {
    let mut r = Run::new(Some(Codec::Av1));
    let mut p = sent("rtp50_av1_svt_1200").remove(0);
    for a in 0..=255_u8 {
        for b in 0..=255_u8 {
            for tail in [&[][..], &[0x0A], &[0x81, 0, 9], &[0xFF; 5]] {
                p.payload = [&[a, b], tail].concat();
                p.sequence = p.sequence.wrapping_add(1);
                p.timestamp += u32::from(b & 1);
                for element in elements(&p.payload).flatten() {
                    let end = usize::from(element.offset) + element.bytes.len();
                    assert!(end <= p.payload.len() && !element.bytes.is_empty());
                }
                r.ring.release_before(r.slot.saturating_sub(200));
                r.push(&p);
            }
        }
    }
}
