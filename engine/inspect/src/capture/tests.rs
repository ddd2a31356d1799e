use super::link::{Seen, datagram};
use super::*;

const ETHERNET: [u8; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0];

/// UDP from 127.0.0.1:7 to 127.0.0.2:9 with two bytes.
fn ipv4() -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend([127, 0, 0, 1, 127, 0, 0, 2, 0, 7, 0, 9, 0, 10, 0, 0]);
    ip.extend([0xAA, 0xBB]);
    ip
}

fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
    ip.extend([0; 15]);
    ip.push(1);
    ip.extend([0; 15]);
    ip.push(2);
    ip.extend(rest);
    ip
}

fn pcap(magic: u32, link: u32, swapped: bool, packets: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let word = |w: u32| {
        if swapped {
            w.to_be_bytes()
        } else {
            w.to_le_bytes()
        }
    };
    let mut bytes: Vec<u8> = [magic, 0x0004_0002, 0, 0, 65_535, link]
        .iter()
        .flat_map(|w| word(*w))
        .collect();
    for (seconds, fraction, packet) in packets {
        let len = packet.len() as u32;
        for w in [*seconds, *fraction, len, len] {
            bytes.extend(word(w));
        }
        bytes.extend(packet);
    }
    bytes
}

fn block(kind: u32, body: &[u8], swapped: bool) -> Vec<u8> {
    let word = |w: u32| {
        if swapped {
            w.to_be_bytes()
        } else {
            w.to_le_bytes()
        }
    };
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let total = body.len() as u32 + 12;
    let mut block = word(kind).to_vec();
    block.extend(word(total));
    block.extend(body);
    block.extend(word(total));
    block
}

type Read = (u64, u64, u32, Vec<u8>);

fn all(file: &[u8]) -> Result<Vec<Read>, String> {
    let mut reader = Reader::new(&file)?;
    let mut found = Vec::new();
    while let Some(r) = reader.read()? {
        found.push((r.number, r.at_ns, r.link, r.bytes.to_vec()));
    }
    Ok(found)
}

#[test]
fn packets_of_pcap_come_with_their_time_in_either_byte_order() {
    for swapped in [false, true] {
        for (magic, unit) in [(PCAP_MICROS, 1000), (PCAP_NANOS, 1)] {
            let packets = [(5, 250, vec![1]), (6, 500, vec![2, 3]), (6, 100, vec![])];
            let found = all(&pcap(magic, 1, swapped, &packets)).unwrap();
            let times: Vec<u64> = found.iter().map(|f| f.1).collect();
            let second = 1_000_000_000 + 250 * unit;
            // Time does not go back.
            assert_eq!(times, [0, second, second]);
            assert_eq!((found[1].0, found[1].2), (2, 1));
            assert_eq!(found[1].3, [2, 3]);
        }
    }
}

#[test]
fn packets_of_pcapng_come_with_the_link_type_and_clock_of_their_interface() {
    for swapped in [false, true] {
        let word = |w: u32| {
            if swapped {
                w.to_be_bytes()
            } else {
                w.to_le_bytes()
            }
        };
        let half = |w: u16| {
            if swapped {
                w.to_be_bytes()
            } else {
                w.to_le_bytes()
            }
        };
        let mut file = block(
            SECTION,
            &[&word(BYTE_ORDER)[..], &[0; 12]].concat(),
            swapped,
        );
        let plain = [&half(1)[..], &[0; 6]].concat();
        let resolution = [&half(9)[..], &half(1), &[9, 0, 0, 0]].concat();
        let nanos = [&half(113)[..], &[0; 6], &resolution].concat();
        file.extend(block(INTERFACE, &plain, swapped));
        file.extend(block(INTERFACE, &nanos, swapped));
        let packet = |interface: u32, time: u32, data: &[u8]| {
            let len = data.len() as u32;
            let words = [interface, 0, time, len, len].map(word).concat();
            [&words[..], data].concat()
        };
        file.extend(block(ENHANCED_PACKET, &packet(0, 10, &[1]), swapped));
        file.extend(block(0x0BAD, &[1, 2, 3, 4], swapped));
        file.extend(block(
            ENHANCED_PACKET,
            &packet(1, 12_000, &[2, 3, 4, 5, 6]),
            swapped,
        ));
        let simple = [&word(2)[..], &[7, 8]].concat();
        file.extend(block(SIMPLE_PACKET, &simple, swapped));
        let found = all(&file).unwrap();
        assert_eq!(
            found,
            [
                (1, 0, 1, vec![1]),
                (2, 2_000, 113, vec![2, 3, 4, 5, 6]),
                (3, 2_000, 1, vec![7, 8])
            ]
        );
    }
}

#[test]
fn cut_and_foreign_files_are_refused() {
    let whole = pcap(PCAP_MICROS, 1, false, &[(1, 0, vec![0; 60])]);
    for cut in 0..whole.len() {
        let read = all(&whole[..cut]);
        assert_eq!(read.is_ok(), cut == 24, "{cut}");
    }
    assert!(all(b"RIFF").is_err());
    let huge = [&whole[..32], &[0xFF; 8]].concat();
    assert!(all(&huge).is_err());
    let mut file = block(
        SECTION,
        &[&BYTE_ORDER.to_le_bytes()[..], &[0; 12]].concat(),
        false,
    );
    for length in [0_u32, 8, 13, 0xFFFF_FFF0] {
        let bad = [6_u32, length, 0].map(u32::to_le_bytes).concat();
        assert!(all(&[file.clone(), bad].concat()).is_err(), "{length}");
    }
    // A packet of an interface that was never described.
    file.extend(block(ENHANCED_PACKET, &[0; 20], false));
    assert_eq!(all(&file).unwrap(), []);
}

#[test]
fn udp_is_found_behind_every_link_header() {
    let ip = ipv4();
    let vlan = [
        &ETHERNET[..12],
        &[0x88, 0xA8, 0, 1, 0x81, 0, 0, 2, 8, 0],
        &ip,
    ]
    .concat();
    let cooked = [&[0; 14][..], &[8, 0], &ip].concat();
    let cooked2 = [&[8, 0][..], &[0; 18], &ip].concat();
    let null = [&2_u32.to_le_bytes()[..], &ip].concat();
    let padded = [&ETHERNET[..], &ip, &[0; 16]].concat();
    let cases = [
        (1, padded),
        (1, vlan),
        (113, cooked),
        (276, cooked2),
        (101, ip.clone()),
        (228, ip.clone()),
        (0, null),
    ];
    for (link, frame) in cases {
        let Seen::Datagram(found) = datagram(link, &frame) else {
            panic!("link type {link}");
        };
        assert_eq!(found.from, "127.0.0.1:7".parse().unwrap());
        assert_eq!(found.to, "127.0.0.2:9".parse().unwrap());
        assert_eq!(found.payload, [0xAA, 0xBB]);
    }
}

#[test]
fn udp_is_found_behind_extension_headers_of_ipv6() {
    let udp = [0, 7, 0, 9, 0, 10, 0, 0, 0xAA, 0xBB];
    let options = [
        &[44, 0, 0, 0, 0, 0, 0, 0][..],
        &[17, 0, 0, 0, 0, 0, 0, 1],
        &udp,
    ]
    .concat();
    for packet in [ipv6(17, &udp), ipv6(0, &options)] {
        let Seen::Datagram(found) = datagram(229, &packet) else {
            panic!("no datagram");
        };
        assert_eq!(found.from, "[::1]:7".parse().unwrap());
        assert_eq!(found.payload, [0xAA, 0xBB]);
    }
    let fragment = [&[17, 0, 0, 9, 0, 0, 0, 1][..], &udp].concat();
    assert!(matches!(
        datagram(229, &ipv6(44, &fragment)),
        Seen::Fragment(f) if f.offset == 8 && f.more && f.id == 1 && f.bytes == udp
    ));
}

#[test]
fn fragments_and_cut_packets_are_told_from_others() {
    let mut ip = ipv4();
    ip[6] = 0x20;
    ip[5] = 77;
    assert!(matches!(
        datagram(101, &ip),
        Seen::Fragment(f) if f.offset == 0 && f.more && f.id == 77 && f.bytes.len() == 10
    ));
    ip[6] = 0;
    for cut in 0..ip.len() {
        assert_ne!(cut > 25, datagram(101, &ip[..cut]) == Seen::Other, "{cut}");
    }
    ip[9] = 6;
    assert_eq!(datagram(101, &ip), Seen::Other);
    assert_eq!(datagram(9999, &ip), Seen::Other);
}
