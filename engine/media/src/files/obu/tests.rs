//! Files against their facts, and files that lie.

use serde_json::Value;

use super::*;
use crate::files::{ivf, jxs};

fn vector(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../../tests/vectors/media/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

fn facts(name: &str) -> Value {
    serde_json::from_slice(&vector(&format!("{name}.json"))).unwrap()
}

const FILES: [&str; 3] = ["av1_aom_altref.obu", "av1_aom_rt_tiles.obu", "av1_svt.obu"];

/// The same temporal units, with lengths as Annex B has them: a frame unit for each frame.
fn annex_b(low_overhead: &[u8]) -> Vec<u8> {
    use crate::codec::av1::push_leb128;
    let with_length = |bytes: &[u8]| {
        let mut out = Vec::new();
        push_leb128(bytes.len() as u32, &mut out);
        out.extend_from_slice(bytes);
        out
    };
    let mut out = Vec::new();
    for unit in TemporalUnits::new(low_overhead, Framing::LowOverhead) {
        let mut frame_units = Vec::new();
        let mut frame_unit = Vec::new();
        for obu in unit.unwrap().obus() {
            let obu = obu.unwrap();
            // Without a size of its own.
            let mut bytes = vec![obu.header.kind << 3];
            bytes.extend_from_slice(obu.payload);
            frame_unit.extend(with_length(&bytes));
            if matches!(obu.header.kind, obu::FRAME | obu::FRAME_HEADER) {
                frame_units.extend(with_length(&frame_unit));
                frame_unit.clear();
            }
        }
        out.extend(with_length(&frame_units));
    }
    out
}

fn assert_facts(name: &str, units: &[UnitFacts], facts: &Value) {
    assert_eq!(
        units.len() as u64,
        facts["temporal_units"].as_u64().unwrap()
    );
    for (n, (unit, fact)) in units
        .iter()
        .zip(facts["tu"].as_array().unwrap())
        .enumerate()
    {
        assert!(!unit.malformed, "{name} {n}");
        let types: Vec<u64> = unit.obu_types.iter().map(|t| u64::from(*t)).collect();
        assert_eq!(Value::from(types), fact["obu_types"], "{name} {n}");
        let frames: Vec<String> = unit.frames.iter().map(ToString::to_string).collect();
        assert_eq!(Value::from(frames), fact["frames"], "{name} {n}");
    }
    let keys: Vec<u64> = (0..)
        .zip(units)
        .filter(|(_, u)| u.is_key())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(Value::from(keys), facts["key_temporal_units"], "{name}");
    let all = || units.iter().flat_map(|u| &u.frames);
    let existing = all().filter(|f| f.existing.is_some()).count();
    let hidden = all().filter(|f| !f.shown).count();
    assert_eq!(existing as u64, facts["show_existing"].as_u64().unwrap());
    assert_eq!(hidden as u64, facts["hidden_frames"].as_u64().unwrap());
    let coded = all().count() - existing;
    assert_eq!(coded as u64, facts["coded_frames"].as_u64().unwrap());
}

#[test]
fn temporal_units_are_those_of_the_facts_in_either_framing() {
    for name in FILES {
        let file = vector(name);
        let facts = facts(name);
        assert_eq!(detect(&file), Some(Framing::LowOverhead));
        let mut reader = Reader::default();
        let mut at = 0;
        let units: Vec<UnitFacts> = TemporalUnits::new(&file, Framing::LowOverhead)
            .map(|unit| {
                let unit = unit.unwrap();
                assert_eq!(unit.offset, at);
                at += unit.bytes.len();
                reader.unit(&unit)
            })
            .collect();
        assert_facts(name, &units, &facts);
        for (unit, fact) in
            TemporalUnits::new(&file, Framing::LowOverhead).zip(facts["tu"].as_array().unwrap())
        {
            assert_eq!(
                unit.unwrap().bytes.len() as u64,
                fact["size"].as_u64().unwrap()
            );
        }
        let track = reader.track();
        assert_eq!(u64::from(track.width), facts["width"].as_u64().unwrap());
        assert_eq!(u64::from(track.height), facts["height"].as_u64().unwrap());
        let delimited = annex_b(&file);
        assert_eq!(detect(&delimited), Some(Framing::AnnexB), "{name}");
        let mut reader = Reader::default();
        let units: Vec<UnitFacts> = TemporalUnits::new(&delimited, Framing::AnnexB)
            .map(|unit| reader.unit(&unit.unwrap()))
            .collect();
        assert_facts(name, &units, &facts);
    }
}

#[test]
fn ivf_frames_are_those_of_the_facts() {
    for name in ["av1_aom_altref.ivf", "av1_svt.ivf"] {
        let file = vector(name);
        let facts = facts(name);
        let header = ivf::Header::parse(&file).unwrap();
        let expected = &facts["header"];
        assert_eq!(
            expected["fourcc"],
            core::str::from_utf8(&header.fourcc).unwrap()
        );
        assert_eq!(expected["width"], header.width);
        assert_eq!(expected["height"], header.height);
        assert_eq!(
            (&expected["rate"], &expected["scale"]),
            (&header.rate.into(), &header.scale.into())
        );
        let frames: Vec<ivf::Frame<'_>> = ivf::Frames::new(&file, &header)
            .map(Result::unwrap)
            .collect();
        assert_eq!(expected_len(&facts["ivf_frames"]), frames.len());
        let sizes: Vec<usize> = frames.iter().map(|f| f.data.len()).collect();
        let pts: Vec<u64> = frames.iter().map(|f| f.pts).collect();
        assert_eq!(Value::from(sizes), facts["frame_sizes"]);
        assert_eq!(Value::from(pts), facts["pts"]);
        let mut reader = Reader::default();
        let units: Vec<UnitFacts> = frames
            .iter()
            .map(|f| reader.unit(&TemporalUnit::alone(f.data, f.offset)))
            .collect();
        assert_facts(
            name,
            &units,
            &super::tests::facts(&name.replace("ivf", "obu")),
        );
    }
}

fn expected_len(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

#[test]
fn jpeg_xs_pictures_are_those_of_the_facts() {
    for name in ["jxs_422_10b.jxs", "jxs_422_8b.jxs"] {
        let file = vector(name);
        let facts = facts(name);
        assert!(jxs::detect(&file));
        let mut pictures = jxs::Pictures::new(&file);
        let found: Vec<jxs::Picture<'_>> = pictures.by_ref().map(Result::unwrap).collect();
        assert_eq!(expected_len(&facts["codestreams"]), found.len());
        let sizes: Vec<usize> = found.iter().map(|p| p.bytes.len()).collect();
        assert_eq!(Value::from(sizes), facts["codestream_bytes"]);
        let slices: Vec<u32> = found.iter().map(|p| p.header.slices()).collect();
        assert_eq!(Value::from(slices), facts["slices_per_picture"]);
        for p in &found {
            assert!(p.ended);
            let h = p.header;
            for (key, value) in [
                ("Ppih", u64::from(h.profile)),
                ("Plev", h.level.into()),
                ("width", h.width.into()),
                ("height", h.height.into()),
                ("Cw", h.precinct_width.into()),
                ("slice_height_Hsl", h.slice_height.into()),
                ("components", h.components.into()),
            ] {
                assert_eq!(facts[key].as_u64(), Some(value), "{name} {key}");
            }
        }
        let track = pictures.track();
        assert_eq!(
            (track.width, track.height, track.chroma_format),
            (192, 96, 2)
        );
    }
}

#[test]
fn codestreams_without_their_length_end_at_the_next_one() {
    let mut file = vector("jxs_422_8b.jxs");
    for n in 0..6 {
        let at = n * 6912 + 12;
        file[at..at + 4].fill(0);
    }
    let sizes: Vec<usize> = jxs::Pictures::new(&file)
        .map(|p| p.unwrap().bytes.len())
        .collect();
    assert_eq!(sizes, [6912; 6]);
}

#[test]
fn codestreams_in_boxes_are_found() {
    let stream = &vector("jxs_422_8b.jxs")[..6912];
    let mut file = crate::tests::hex("0000000c4a58532020870d0a0000000866726565");
    file.truncate(20);
    file.extend((8 + 6912_u32).to_be_bytes());
    file.extend(b"jxsc");
    file.extend(stream);
    assert!(jxs::detect(&file));
    let found: Vec<_> = jxs::Pictures::new(&file).map(Result::unwrap).collect();
    assert_eq!(
        (found.len(), found[0].offset, found[0].bytes),
        (1, 28, stream)
    );
}

#[test]
fn hostile_files_end_with_an_error_at_its_place() {
    // An OBU's size beyond the file; a length of a unit beyond it; one that never ends.
    let lie = [0x12, 0, 0x32, 0x7F, 1];
    let errors: Vec<_> = TemporalUnits::new(&lie, Framing::LowOverhead).collect();
    assert!(matches!(errors[..], [Err(Malformed { offset: 2 })]));
    for bytes in [&[5, 1, 2][..], &[0xFF; 9], &[0x80, 0x80]] {
        let errors: Vec<_> = TemporalUnits::new(bytes, Framing::AnnexB).collect();
        assert!(matches!(errors[..], [Err(Malformed { offset: 0 })]));
    }
    // A frame unit beyond its temporal unit, an OBU beyond its frame unit, one of no length.
    for bytes in [&[3, 9, 1, 0x10][..], &[3, 2, 9, 0x10], &[2, 1, 0]] {
        let unit = TemporalUnits::new(bytes, Framing::AnnexB)
            .next()
            .unwrap()
            .unwrap();
        assert!(unit.obus().any(|o| o.is_err()), "{bytes:?}");
        assert!(Reader::default().unit(&unit).malformed);
    }
    assert_eq!(detect(&[]), None);
    assert_eq!(detect(&[0; 64]), None);
    assert_eq!(detect(&[0xFF; 64]), None);
    // IVF.
    let file = vector("av1_svt.ivf");
    let header = ivf::Header::parse(&file).unwrap();
    for cut in [33, 40, 50, file.len() - 1] {
        let last = ivf::Frames::new(&file[..cut], &header).last();
        assert!(last.is_some_and(|l| l.is_err()), "{cut}");
    }
    for cut in 0..32 {
        assert!(ivf::Header::parse(&file[..cut]).is_none() || cut >= 28);
    }
    let mut short = file.clone();
    short[6] = 8;
    assert_eq!(ivf::Header::parse(&short), None);
    // JPEG XS: Lcod beyond the file, within the headers; boxes that turn in a circle.
    let file = vector("jxs_422_8b.jxs");
    for lcod in [[0xFF; 4], [0, 0, 0, 1], [0, 0, 0, 110]] {
        let mut lie = file.clone();
        lie[12..16].copy_from_slice(&lcod);
        let found: Vec<_> = jxs::Pictures::new(&lie).collect();
        assert_eq!(found, [Err(Malformed { offset: 0 })], "{lcod:?}");
    }
    for bytes in [
        &b"\0\0\0\x08free\0\0\0\0free"[..],
        b"\0\0\0\x01free",
        &[0; 100],
        b"\0\0\0\x02free",
    ] {
        assert!(!jxs::detect(bytes));
        assert!(jxs::Pictures::new(bytes).all(|p| p.is_err()));
    }
}

#[test]
fn every_altered_byte_of_a_file_is_survived() {
    let file = &vector("av1_aom_altref.obu")[..2700];
    for at in 0..file.len() {
        let mut lie = file.to_vec();
        lie[at] ^= 0xFF;
        for framing in [Framing::LowOverhead, Framing::AnnexB] {
            let mut reader = Reader::default();
            let units = TemporalUnits::new(&lie, framing).flatten();
            assert!(
                units
                    .map(|u| reader.unit(&u).obu_types.len())
                    .sum::<usize>()
                    <= lie.len()
            );
        }
    }
}
