//! Captures: the input is a list of IP packets, each with a time and its length before it, which
//! `inspect` is given as a capture. So it reaches everything that looks at traffic from outside:
//! fragments, SRT conversations, RTP sources and their repair, RTCP, transport streams.

use mirror_inspect::{Options, inspect};

/// Raw IP.
const LINK: u32 = 101;
/// Packets of one input.
const MAX_PACKETS: usize = 400;

/// The packets as a capture file.
fn file(mut data: &[u8]) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let mut file = words(&[0xA1B2_C3D4, 0x0004_0002, 0, 0, 65_535, LINK]);
    let mut at_us = 0_u64;
    for _ in 0..MAX_PACKETS {
        let Some((&[high, low], rest)) = data.split_first_chunk::<2>() else {
            break;
        };
        // Five bits of time, doubling from 30 µs on, so that every time limit is in reach.
        let length = usize::from(u16::from_be_bytes([high, low]) & 0x7FF);
        at_us += 15_u64 << (high >> 3);
        let (packet, rest) = rest.split_at(length.min(rest.len()));
        data = rest;
        let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
        let length = packet.len() as u32;
        file.extend(words(&[seconds as u32, micros as u32, length, length]));
        file.extend(packet);
    }
    file
}

/// A capture of the packets.
pub fn run(data: &[u8]) {
    let bytes = file(data);
    let options = Options {
        passphrase: Some("correct-horse-01".to_owned()),
        units: true,
        packets: true,
        ..Options::default()
    };
    let report = inspect("x.pcap", &bytes, &options).expect("it is a capture");
    let capture = report.capture.expect("it is a capture");
    assert!(capture.packets <= MAX_PACKETS as u64);
    let fragments = capture.fragments;
    let ended = fragments.assembled + fragments.incomplete + fragments.malformed;
    assert!(ended <= fragments.fragments, "{fragments:?}");
    assert!(capture.datagrams <= capture.packets);
    for connection in &report.srt {
        let counts = connection.packets.iter().flat_map(|side| side.values());
        assert!(counts.sum::<u64>() <= capture.datagrams);
        for direction in &connection.directions {
            let wire = direction.wire.clone().unwrap_or_default();
            let listed = wire.missing_ranges.iter();
            let listed = listed.map(|(a, b)| u64::from(b.wrapping_sub(*a) & 0x7FFF_FFFF) + 1);
            assert!(listed.sum::<u64>() <= wire.missing);
        }
    }
    for source in &report.rtp {
        assert!(source.distinct <= source.packets, "{source:?}");
        assert!(source.shape.markers <= capture.datagrams);
        assert!(source.shape.distinct_timestamps <= capture.datagrams);
    }
    let units = report
        .tracks
        .iter()
        .filter_map(|track| track.units.as_ref());
    for unit in units.flat_map(|units| &units.list) {
        assert!(unit.slices.unwrap_or(0) as usize <= unit.nal_types.len());
        assert_eq!(unit.obu_types.len(), unit.obu_bytes.len());
    }
    assert!(report.json().is_object());
}
