//! Pictures that an encoder or a gateway left out, where no transport shows it: what refers to
//! them says so, and nothing else does.

mod common;

use common::vector;
use mirror_media::files::annexb::{AnnexB, FileUnit};
use mirror_media::{Codec, Limits};

/// The elementary streams of H.264 and HEVC, with what they are coded in.
fn files() -> Vec<(String, Codec)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/media");
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> = names
        .filter_map(|name| {
            let codec = match name.rsplit_once('.')?.1 {
                "h264" => Codec::H264,
                "h265" => Codec::H265,
                _ => return None,
            };
            Some((name, codec))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 18);
    found
}

fn read(bytes: &[u8], codec: Codec) -> Vec<FileUnit> {
    let mut reader = AnnexB::new(codec, &Limits::default()).unwrap();
    let mut units = Vec::new();
    for piece in bytes.chunks(1_000) {
        reader.push(piece);
        units.extend(core::iter::from_fn(|| reader.poll_unit()));
    }
    reader.finish();
    units.extend(core::iter::from_fn(|| reader.poll_unit()));
    units
}

#[test]
fn streams_that_lack_nothing_say_nothing() {
    for (name, codec) in files() {
        let units = read(&vector(&name), codec);
        assert!(!units.is_empty());
        for (n, file_unit) in units.iter().enumerate() {
            assert!(!file_unit.unit.references_missing, "{name}: unit {n}");
        }
    }
}

#[test]
fn of_each_picture_that_was_left_out_those_tell_that_refer_to_it() {
    let (mut told, mut referred) = (0, 0);
    for (name, codec) in files() {
        let bytes = vector(&name);
        let units = read(&bytes, codec);
        let ends: Vec<usize> = units
            .iter()
            .scan(0, |end, u| {
                *end += u.unit.bytes as usize;
                Some(*end)
            })
            .collect();
        // Not the first ones: decoding begins there.
        for left_out in (1..units.len() - 1).filter(|n| n % 3 == 1) {
            let gone = &units[left_out].unit;
            if gone.kind.is_key() || units[..=left_out].iter().any(|u| u.unit.undecodable) {
                continue;
            }
            let mut rest = bytes[..ends[left_out - 1]].to_vec();
            rest.extend_from_slice(&bytes[ends[left_out]..]);
            let found = read(&rest, codec);
            let lacking: Vec<usize> = (0..found.len())
                .filter(|n| found[*n].unit.references_missing)
                .collect();
            let what = format!("{name} without {left_out} {:?}: {lacking:?}", gone.kind);
            assert!(lacking.iter().all(|n| *n >= left_out), "{what}");
            let key = (left_out..found.len()).find(|n| found[*n].unit.kind.is_key());
            // Leading pictures of an open group come behind its key frame.
            let closed = key.filter(|k| !found[k + 1..].iter().any(|u| u.unit.leading));
            assert!(
                closed.is_none_or(|k| lacking.iter().all(|n| *n < k)),
                "{what}"
            );
            if gone.discardable {
                assert!(lacking.is_empty(), "{what}");
            } else if key != Some(left_out) {
                referred += 1;
                told += usize::from(!lacking.is_empty());
            }
        }
    }
    // A reference picture may be the last that anything refers to.
    assert!(
        referred > 100 && told * 10 >= referred * 9,
        "{told} of {referred}"
    );
}
