//! Where a file is cut into pieces changes nothing: streams of NAL units that are cut short,
//! full of zero bytes and larger than the limits, read as a whole and in pieces of each size.

use mirror_media::files::annexb::{self, AnnexB, FileUnit};
use mirror_media::{Codec, Limits};

const CODECS: [Codec; 3] = [Codec::H264, Codec::H265, Codec::Mpeg2Video];

type Told = (Vec<FileUnit>, Vec<u8>, [u64; 256], u64);

fn read(codec: Codec, limits: &Limits, data: &[u8], size: usize) -> Told {
    let mut reader = AnnexB::new(codec, limits).unwrap();
    let mut units = Vec::new();
    for piece in data.chunks(size) {
        reader.push(piece);
        units.extend(core::iter::from_fn(|| reader.poll_unit()));
    }
    reader.finish();
    units.extend(core::iter::from_fn(|| reader.poll_unit()));
    let malformed = reader.assembler().counters().malformed;
    let sets = reader.parameter_sets().to_vec();
    (units, sets, *reader.nal_types(), malformed)
}

fn check(codec: Codec, limits: &Limits, data: &[u8]) -> Told {
    let whole = read(codec, limits, data, data.len());
    for size in 1..=64.min(data.len()) {
        let pieces = read(codec, limits, data, size);
        assert_eq!(whole, pieces, "{codec:?} in pieces of {size}: {data:02x?}");
    }
    for FileUnit { unit, offset, .. } in &whole.0 {
        let end = annexb::offset_of(unit.end);
        assert_eq!(u64::from(unit.bytes), end - offset, "{unit:?}");
    }
    whole
}

fn limit(max_frame_size: usize) -> Limits {
    Limits {
        max_frame_size,
        ..Limits::default()
    }
}

/// A deterministic generator (splitmix64).
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) % bound) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64)]
    }
}

/// NAL units and start codes of a real stream.
fn vector(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/media");
    std::fs::read(format!("{folder}/{name}")).unwrap()
}

#[test]
fn a_header_of_one_byte_before_a_four_byte_start_code_stays_one_byte() {
    // HEVC's header is of two bytes: the zero byte of the next code must not become its second.
    let data = [
        [0, 0, 0, 1, 0x40, 1, 2].as_slice(),
        &[0, 0, 0, 1, 0x02],
        &[0, 0, 0, 1, 0x26, 1, 0x80, 9, 9, 9],
        &[0, 0, 0, 1, 0x02],
        &[0, 0, 0, 1, 0x02, 1, 0xC0, 9, 9, 9],
    ]
    .concat();
    check(Codec::H265, &limit(1 << 20), &data);
}

#[test]
fn zero_bytes_go_with_the_same_unit_however_they_are_cut() {
    for codec in CODECS {
        for zeros in 0..9 {
            for header in [0x00, 0x02, 0x09, 0x26, 0x41, 0x65, 0xB3] {
                let mut data = vec![0; zeros];
                for _ in 0..3 {
                    data.extend([0, 0, 1, header]);
                    data.resize(data.len() + zeros, 0);
                    data.extend([0, 0, 1, header, 1, 0x80]);
                    data.resize(data.len() + zeros, 0);
                }
                check(codec, &limit(1 << 20), &data);
            }
        }
    }
}

#[test]
fn a_unit_larger_than_the_limit_ends_at_the_same_byte_however_it_is_cut() {
    for (codec, name) in [
        (Codec::H264, "h264_b3pyr_opengop.h264"),
        (Codec::H265, "hevc_b3_opengop_cra.h265"),
    ] {
        let data = vector(name);
        let data = &data[..data.len().min(6_000)];
        let (units, ..) = check(codec, &limit(300), data);
        let largest = units.iter().map(|u| u.unit.bytes).max();
        // What may be the next unit's is not held against this one: 96 bytes of a slice.
        assert!((301..=400).contains(&largest.unwrap()), "{largest:?}");
        assert!(units.iter().all(|u| u.unit.bytes <= 300 || u.unit.damaged));
    }
}

#[test]
fn a_unit_within_the_limit_is_whole_however_large_the_next_one_is() {
    let slice = |header: u8, size: usize| {
        let mut nal = vec![0, 0, 0, 1, header, 0x88];
        nal.resize(4 + size, 0x55);
        nal
    };
    // first_mb_in_slice 0 (0x88…): each slice begins a picture, of which only the second is too
    // large; its head is complete 98 bytes behind its code.
    let data = [slice(0x65, 280), slice(0x65, 500), slice(0x65, 280)].concat();
    let (units, ..) = check(Codec::H264, &limit(300), &data);
    let sizes: Vec<u32> = units.iter().map(|u| u.unit.bytes).collect();
    assert_eq!(sizes[0], 284, "{sizes:?}");
}

#[test]
fn noise_with_many_start_codes_reads_the_same_however_it_is_cut() {
    let mut noise = Noise(1);
    for round in 0..600 {
        let codec = CODECS[round % 3];
        let mut data = Vec::new();
        for _ in 0..noise.below(40) {
            match noise.below(8) {
                0..=2 => data.extend([0, 0, 1]),
                3 => data.push(0),
                4 => data.resize(data.len() + noise.below(6), 0),
                5 => {
                    let headers = [
                        0x00, 0x01, 0x02, 0x06, 0x09, 0x0E, 0x26, 0x2A, 0x40, 0x41, 0x42, 0x44,
                        0x46, 0x4E, 0x65, 0x67, 0x68, 0xB2, 0xB3, 0xB5, 0xB8,
                    ];
                    data.extend([0, 0, 1, *noise.pick(&headers)]);
                }
                6 => data.extend((0..noise.below(12)).map(|_| noise.below(256) as u8)),
                _ => data.resize(data.len() + noise.below(150), 0x80 | noise.below(128) as u8),
            }
        }
        let limits = limit(*noise.pick(&[40, 100, 300, 1 << 20]));
        check(codec, &limits, &[data, vec![1]].concat());
    }
}
