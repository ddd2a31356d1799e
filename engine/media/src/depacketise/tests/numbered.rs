//! NAL units with decoding order numbers: the interleaved mode of H.264, HEVC with DONL.

use super::*;

/// NAL unit types and sizes of Annex B with four-byte start codes.
fn nals(bytes: &[u8]) -> Vec<(u8, usize)> {
    let starts: Vec<usize> = memchr::memmem::find_iter(bytes, &[0, 0, 0, 1]).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let of = |(at, end): (usize, usize)| (bytes[at + 4] & 0x1F, end - at - 4);
    starts.iter().copied().zip(ends).map(of).collect()
}

/// What the vectors say, in decoding order: number, timestamp, type, size.
fn expected() -> Vec<(i64, i64, u8, usize)> {
    let vectors = json("rtp_payloads");
    let rows = vectors["interleaved_h264_rtp63_in_transmission_order"]
        .as_array()
        .unwrap();
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let of = |key: &str| row[key].as_i64().unwrap();
            let don = (of("don") as u16).cast_signed();
            let kind = of("nal_type") as u8;
            (i64::from(don), of("rtp_ts"), kind, of("size") as usize)
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn interleaved_h264_comes_out_in_decoding_order_with_its_times() {
    let name = "rtp63_syn_h264_stapb_mtap_fub";
    let expected = expected();
    let hinted = |fmtp: &str| run_as(PayloadFormat::H264, fmtp, 90_000, &sent(name));
    for r in [
        run(None, &sent(name)),
        hinted("packetization-mode=2"),
        hinted("packetization-mode=2;sprop-interleaving-depth=4;sprop-max-don-diff=8"),
    ] {
        assert!(r.taken.iter().all(|t| *t == Taken::Done));
        let mut at = 0;
        for unit in &r.units {
            let mut bytes = Vec::new();
            assert!(r.input.extract(unit, &r.ring, &mut bytes));
            assert_eq!(bytes.len(), unit.bytes as usize);
            for (kind, size) in nals(&bytes) {
                let (_, timestamp, want, bytes) = expected[at];
                assert_eq!((kind, size), (want, bytes), "{at}");
                assert_eq!(unit.pts, Some(timestamp), "{at}");
                at += 1;
            }
            assert!(!unit.damaged || unit.undecodable, "{unit:?}");
            assert!(unit.first < unit.end && unit.first_arrival <= unit.last_arrival);
        }
        assert_eq!((at, r.units.len()), (expected.len(), 10));
        assert_eq!(r.units[0].kind, FrameKind::Idr);
        assert!(r.units.iter().all(|u| !u.damaged));
    }
}

#[test]
fn hevc_with_decoding_order_numbers_agrees_with_its_facts() {
    let name = "rtp64_syn_hevc_donl_dond";
    // Announced, and found out by the first packet.
    for fmtp in [
        "sprop-max-don-diff=2",
        "sprop-max-don-diff=2;sprop-depack-buf-nalus=5",
    ] {
        let r = run_as(PayloadFormat::H265, fmtp, 90_000, &sent(name));
        let r = assert_facts_of(name, Codec::H265, r);
        assert!(r.units.iter().all(|u| !u.damaged));
    }
    for hint in [None, Some(Codec::H265)] {
        let r = assert_facts_of(name, Codec::H265, run(hint, &sent(name)));
        assert!(r.units.iter().all(|u| !u.damaged));
    }
}

#[test]
fn a_lost_packet_of_interleaved_units_damages_what_it_hits() {
    let name = "rtp63_syn_h264_stapb_mtap_fub";
    let packets = sent(name);
    for lost in 0..packets.len() {
        let mut fewer = packets.clone();
        fewer.remove(lost);
        let r = run(Some(Codec::H264), &fewer);
        let mut out = Vec::new();
        for unit in &r.units {
            r.input.extract(unit, &r.ring, &mut out);
        }
        // Of the first and the last packet's units nothing tells that they were there.
        if lost > 0 && lost + 1 < packets.len() {
            assert!(r.units.iter().any(|u| u.damaged), "{lost}");
        }
        assert!(r.units.len() <= 11);
    }
}

#[test]
fn numbers_that_go_astray_neither_stop_the_stream_nor_grow_it() {
    let original = sent("rtp63_syn_h264_stapb_mtap_fub");
    let mut x = 5u64;
    let mut random = move |bound: usize| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 33) as usize % bound
    };
    let mut r = Run::new(Some(Codec::H264));
    for n in 0..3000u16 {
        let mut p = original[random(original.len())].clone();
        p.sequence = n;
        p.timestamp = p.timestamp.wrapping_add(u32::from(n) * 900);
        for _ in 0..random(3) {
            let at = random(p.payload.len().min(40));
            p.payload[at] = random(256) as u8;
        }
        r.push(&p);
    }
    let due = r.input.poll_timeout();
    r.input.handle_timeout(due.unwrap_or(Instant::ZERO));
    r.drain();
    assert!(r.input.poll_timeout().is_none());
    assert!(r.units.len() > 100, "{}", r.units.len());
}

#[test]
fn units_that_wait_for_a_number_that_never_comes_go_after_a_while() {
    let mut packets = sent("rtp63_syn_h264_stapb_mtap_fub");
    // 65534, 65535 and 0 are in this one.
    packets.remove(5);
    let mut r = Run::new(Some(Codec::H264));
    packets[..5].iter().for_each(|p| r.push(p));
    let before = r.units.len();
    let due = r.input.poll_timeout().unwrap();
    r.input.handle_timeout(due);
    r.drain();
    assert!(r.units.len() > before);
    assert!(r.input.poll_timeout().is_none());
}
