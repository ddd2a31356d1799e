//! The pieces of H.264 and HEVC payloads.

use super::*;

/// Bytes with the rebuilt header, begins, ends.
type Taken = Result<(Vec<u8>, bool, bool), Discard>;

fn all(codec: Codec, payload: &[u8]) -> Vec<Taken> {
    pieces(Form::plain(codec), payload)
        .map(|p| p.map(|p| ([p.header(), p.bytes].concat(), p.begins, p.ends)))
        .collect()
}

fn whole(bytes: &[u8]) -> Taken {
    Ok((bytes.to_vec(), true, true))
}

#[test]
fn h264_aggregates_are_taken_apart_and_overruns_refused() {
    let stap = [0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 2, 3];
    assert_eq!(
        all(Codec::H264, &stap),
        [whole(&[0x67, 1]), whole(&[0x68, 2, 3])]
    );
    let offsets: Vec<_> = pieces(Form::plain(Codec::H264), &stap)
        .map(|p| p.map(|p| (p.offset, p.end())).unwrap())
        .collect();
    assert_eq!(offsets, [(3, 5), (7, 10)]);
    let overrun = [0x78, 0, 2, 0x67, 1, 0, 4, 0x68, 2, 3];
    assert_eq!(
        all(Codec::H264, &overrun)[1],
        Err(Discard::MalformedPayload)
    );
    assert_eq!(
        all(Codec::H264, &[0x78, 0, 0])[0],
        Err(Discard::MalformedPayload)
    );
    assert_eq!(
        all(Codec::H264, &[0x78, 0])[0],
        Err(Discard::MalformedPayload)
    );
    assert!(all(Codec::H264, &[0x78]).is_empty());
}

#[test]
fn h264_fragments_carry_the_rebuilt_header_on_the_first_only() {
    assert_eq!(
        all(Codec::H264, &[0x7C, 0x85, 9]),
        [Ok((vec![0x65, 9], true, false))]
    );
    assert_eq!(
        all(Codec::H264, &[0x7C, 0x05, 8]),
        [Ok((vec![8], false, false))]
    );
    assert_eq!(
        all(Codec::H264, &[0x7C, 0x45, 7]),
        [Ok((vec![7], false, true))]
    );
    assert_eq!(
        all(Codec::H264, &[0x7C, 0x85]),
        [Err(Discard::MalformedPayload)]
    );
    assert_eq!(all(Codec::H264, &[0x7C]), [Err(Discard::MalformedPayload)]);
}

#[test]
fn h264_reserved_types_are_malformed() {
    for kind in [0, 30, 31] {
        assert_eq!(
            all(Codec::H264, &[kind, 1, 2]),
            [Err(Discard::MalformedPayload)]
        );
    }
}

#[test]
fn h264_interleaved_forms_carry_decoding_order_numbers_and_times() {
    let of = |payload: &[u8]| -> Vec<_> {
        pieces(Form::plain(Codec::H264), payload)
            .map(|p| p.map(|p| (p.bytes.to_vec(), p.don, p.time_offset)))
            .collect()
    };
    let unit = |bytes: &[u8], don, time| Ok((bytes.to_vec(), Some(don), time));
    let stap_b = [0x79, 0xFF, 0xFF, 0, 2, 0x67, 1, 0, 2, 0x68, 2];
    assert_eq!(
        of(&stap_b),
        [unit(&[0x67, 1], 65535, 0), unit(&[0x68, 2], 0, 0)]
    );
    let mtap16 = [
        0x7A, 0xFF, 0xFE, 0, 2, 3, 1, 0, 0x41, 9, 0, 1, 0, 0, 0, 0x41,
    ];
    assert_eq!(
        of(&mtap16),
        [unit(&[0x41, 9], 1, 256), unit(&[0x41], 65534, 0)]
    );
    let mtap24 = [0x7B, 0, 4, 0, 2, 1, 1, 0, 0, 0x41, 9];
    assert_eq!(of(&mtap24), [unit(&[0x41, 9], 5, 65536)]);
    let fu_b = [0x7D, 0x85, 0, 7, 1, 2];
    assert_eq!(of(&fu_b), [unit(&[1, 2], 7, 0)]);
    for cut in [&stap_b[..2], &mtap16[..7], &mtap24[..9], &fu_b[..4]] {
        assert_eq!(of(cut), [Err(Discard::MalformedPayload)], "{cut:?}");
    }
}

#[test]
fn nested_aggregates_and_fragments_in_aggregates_are_malformed() {
    for inner in [24, 25, 26, 27, 28, 29, 0, 31] {
        let stap = [0x78, 0, 2, 0x67, 1, 0, 4, 0x60 | inner, 0, 1, 0x41];
        let taken = all(Codec::H264, &stap);
        assert_eq!(taken, [whole(&[0x67, 1]), Err(Discard::MalformedPayload)]);
    }
    for inner in [48, 49, 50, 63] {
        let ap = [0x60, 1, 0, 3, inner << 1, 1, 0x80];
        assert_eq!(all(Codec::H265, &ap), [Err(Discard::MalformedPayload)]);
    }
}

#[test]
fn h265_decoding_order_numbers_are_no_part_of_the_unit() {
    let of = |payload: &[u8]| -> Vec<_> {
        let form = Form {
            codec: Codec::H265,
            don: true,
        };
        pieces(form, payload)
            .map(|p| p.map(|p| ([p.header(), p.bytes].concat(), p.don)))
            .collect()
    };
    let unit = |bytes: &[u8], don| Ok((bytes.to_vec(), don));
    assert_eq!(of(&[2, 1, 0, 9, 7, 8]), [unit(&[2, 1, 7, 8], Some(9))]);
    let ap = [0x60, 1, 0xFF, 0xFF, 0, 3, 0x40, 1, 5, 2, 0, 2, 0x42, 1];
    assert_eq!(
        of(&ap),
        [unit(&[0x40, 1, 5], Some(65535)), unit(&[0x42, 1], Some(2))]
    );
    assert_eq!(
        of(&[0x62, 1, 0x93, 0, 4, 7]),
        [unit(&[0x26, 1, 7], Some(4))]
    );
    assert_eq!(of(&[0x62, 1, 0x53, 7]), [unit(&[7], None)]);
    let paci = [0x64, 1, 19 << 1, 1 << 4, 0xA, 0, 4, 7, 8];
    assert_eq!(of(&paci), [unit(&[0x26, 1, 7, 8], Some(4))]);
    for cut in [&[2, 1, 0][..], &[0x60, 1, 0], &[0x62, 1, 0x93, 0]] {
        assert_eq!(of(cut), [Err(Discard::MalformedPayload)], "{cut:?}");
    }
}

#[test]
fn start_codes_inside_a_payload_split_it() {
    let camera = [0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 4];
    let units = [whole(&[0x67, 1, 2]), whole(&[0x68, 3]), whole(&[0x65, 4])];
    assert_eq!(all(Codec::H264, &camera), units);
    assert_eq!(
        all(Codec::H264, &[0, 0, 0, 1, 0x65, 4]),
        [whole(&[0x65, 4])]
    );
    assert_eq!(
        all(Codec::H265, &[0, 0, 0, 1, 0x26, 1, 4]),
        [whole(&[0x26, 1, 4])]
    );
}

#[test]
fn h265_aggregates_fragments_and_paci_are_taken_apart() {
    let ap = [0x60, 1, 0, 3, 0x40, 1, 5, 0, 2, 0x42, 1];
    assert_eq!(
        all(Codec::H265, &ap),
        [whole(&[0x40, 1, 5]), whole(&[0x42, 1])]
    );
    let start = [0x62, 1, 0x93, 7];
    assert_eq!(
        all(Codec::H265, &start),
        [Ok((vec![0x26, 1, 7], true, false))]
    );
    assert_eq!(
        all(Codec::H265, &[0x62, 1, 0x53, 7]),
        [Ok((vec![7], false, true))]
    );
    // PACI: cType 19, PHSsize 3, then the contained payload without its header.
    let paci = [0x64, 1, 19 << 1, 3 << 4, 0xA, 0xB, 0xC, 7, 8];
    assert_eq!(all(Codec::H265, &paci), [whole(&[0x26, 1, 7, 8])]);
    let truncated = [0x64, 1, 19 << 1, 3 << 4, 0xA];
    assert_eq!(
        all(Codec::H265, &truncated),
        [Err(Discard::MalformedPayload)]
    );
    let nested = [0x64, 1, 50 << 1, 0, 1];
    assert_eq!(all(Codec::H265, &nested), [Err(Discard::MalformedPayload)]);
    assert_eq!(all(Codec::H265, &[0x62]), [Err(Discard::MalformedPayload)]);
    assert!(all(Codec::H265, &[]).is_empty());
}

#[test]
fn every_short_payload_is_survived() {
    for a in 0..=255u8 {
        for b in 0..=255u8 {
            for tail in [&[][..], &[0], &[0, 0, 1], &[0, 1, 0, 9], &[0xFF; 5]] {
                let payload = [&[a, b], tail].concat();
                for (codec, don) in [
                    (Codec::H264, false),
                    (Codec::H265, false),
                    (Codec::H265, true),
                ] {
                    for piece in pieces(Form { codec, don }, &payload).flatten() {
                        assert!(usize::from(piece.end()) <= payload.len());
                    }
                }
            }
        }
    }
}
