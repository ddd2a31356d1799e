//! Facts about the grid.

use super::*;

fn packets(count: usize) -> impl Iterator<Item = [u8; PACKET]> {
    (0..count).map(|n| {
        let mut p = [n as u8; PACKET];
        p[0] = SYNC;
        p[3] = 0x10;
        p
    })
}

fn stream(count: usize) -> Vec<u8> {
    packets(count).flatten().collect()
}

fn wide(count: usize, before: usize, behind: usize) -> Vec<u8> {
    packets(count)
        .flat_map(|p| [vec![0; before], p.to_vec(), vec![0xA5; behind]].concat())
        .collect()
}

fn add(all: &mut Lost, lost: Lost) {
    all.payloads += lost.payloads;
    all.packets += lost.packets;
    all.sync_errors += lost.sync_errors;
    all.sync_losses += lost.sync_losses;
}

/// The second bytes of the packets that are found, each byte of them being where its place says.
fn frame_with(framer: &mut Framer, payloads: &[&[u8]]) -> (Vec<u8>, Lost) {
    let mut seen = Vec::new();
    let mut all = Lost::default();
    let mut check = |p: &[u8; PACKET], place: &Place, _: When| {
        for (k, &byte) in p.iter().enumerate() {
            let at = place.at(k);
            assert_eq!(payloads[at.slot as usize][at.offset as usize], byte);
        }
        seen.push(p[1]);
    };
    for (slot, payload) in payloads.iter().enumerate() {
        let arrival = Instant::from_millis(slot as u64);
        add(
            &mut all,
            framer.push(slot as u64, payload, 0, arrival, &mut check),
        );
        assert!(framer.held.len() < 4 * 204 + 1 + payload.len());
    }
    add(&mut all, framer.finish(&mut check));
    (seen, all)
}

fn frame(payloads: &[&[u8]]) -> (Vec<u8>, Lost) {
    frame_with(&mut Framer::default(), payloads)
}

#[test]
fn payloads_of_any_size_are_reframed() {
    let bytes = stream(40);
    for size in [
        188,
        376,
        1316,
        900,
        189,
        187 * 2,
        1000,
        1456,
        187,
        100,
        63,
        48,
        47,
    ] {
        let payloads: Vec<&[u8]> = bytes.chunks(size).collect();
        let (seen, lost) = frame(&payloads);
        assert_eq!(seen, (0..40).collect::<Vec<u8>>(), "payloads of {size}");
        assert_eq!(lost, Lost::default(), "payloads of {size}");
    }
}

#[test]
fn packets_with_parity_or_a_time_stamp_are_known_by_their_distance() {
    for (bytes, stride) in [(wide(40, 0, 16), 204), (wide(40, 4, 0), 192)] {
        for size in [stride * 7, stride, 1316, 1000, 376, 188, 100] {
            let mut framer = Framer::default();
            let payloads: Vec<&[u8]> = bytes.chunks(size).collect();
            let mut seen = Vec::new();
            for (slot, payload) in payloads.iter().enumerate() {
                framer.push(slot as u64, payload, 0, Instant::ZERO, |p, _, _| {
                    seen.push(p[1])
                });
            }
            assert_eq!(framer.stride(), stride, "payloads of {size}");
            framer.finish(|p, _, _| seen.push(p[1]));
            assert_eq!(seen, (0..40).collect::<Vec<u8>>(), "{stride} in {size}");
            let (again, lost) = frame(&payloads);
            assert_eq!((again, lost.packets), (seen, 0), "{stride} in {size}");
        }
        assert_eq!(packet_size(&bytes[..stride * 7]), Some(stride));
    }
    assert_eq!(packet_size(&stream(7)), Some(188));
    assert_eq!(packet_size(&stream(1)), None);
    assert_eq!(packet_size(&[0; 1316]), None);
}

#[test]
fn the_grid_is_found_again_after_garbage() {
    let mut bytes = stream(7);
    bytes.splice(376..376, [0xAA; 50]);
    let (seen, lost) = frame(&[&bytes[..1316], &bytes[1316..]]);
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(
        (lost.packets, lost.sync_losses, lost.sync_errors),
        (1, 1, 0)
    );
}

#[test]
fn no_packet_is_lost_behind_garbage_of_any_length_at_any_place() {
    let good = stream(30);
    for length in [1, 4, 47, 100, 187, 189, 500, 1316, 5000] {
        for size in [188, 1316, 1000, 400] {
            let mut bytes = good.clone();
            let at = 10 * PACKET;
            bytes.splice(at..at, vec![0x55; length]);
            let payloads: Vec<&[u8]> = bytes.chunks(size).collect();
            let (seen, lost) = frame(&payloads);
            assert_eq!(
                seen,
                (0..30).collect::<Vec<u8>>(),
                "{length} in payloads of {size}"
            );
            // Garbage as long as packets cannot be told from packets with wrong sync bytes.
            let packets = if length % PACKET == 0 {
                length / PACKET
            } else {
                0
            };
            let errors = (lost.sync_losses, lost.sync_errors);
            assert_eq!(errors, (1, packets as u64), "{length}, {size}");
        }
    }
}

#[test]
fn one_wrong_sync_byte_costs_one_packet_and_two_lose_the_grid() {
    let good = stream(14);
    for size in [1316, 1000, 188] {
        let mut bytes = good.clone();
        bytes[188 * 3] = 0;
        let (seen, lost) = frame(&bytes.chunks(size).collect::<Vec<_>>());
        assert_eq!(seen, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "{size}");
        assert_eq!((lost.packets, lost.payloads), (1, 0), "{size}");
        assert_eq!((lost.sync_errors, lost.sync_losses), (1, 0), "{size}");
        bytes[188 * 4] = 0;
        bytes[188 * 5] = 0;
        let (seen, lost) = frame(&bytes.chunks(size).collect::<Vec<_>>());
        assert_eq!(seen, [0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13], "{size}");
        assert_eq!((lost.sync_errors, lost.sync_losses), (3, 1), "{size}");
    }
    assert_eq!(frame(&[&[0x47; 3][..], &[0; 1400]]).0, [0_u8; 0]);
}

#[test]
fn false_sync_bytes_do_not_make_a_grid() {
    let mut bytes = vec![0x11; 150];
    for at in [10, 60, 130] {
        bytes[at] = SYNC;
    }
    bytes.extend(stream(30));
    for size in [1316, 1000, 188, 40] {
        let payloads: Vec<&[u8]> = bytes.chunks(size).collect();
        if size > 47 {
            assert_eq!(frame(&payloads).0, (0..30).collect::<Vec<u8>>(), "{size}");
        }
    }
}

#[test]
fn a_payload_cut_short_does_not_shift_the_ones_behind_it() {
    let bytes = stream(21);
    let (seen, lost) = frame(&[&bytes[..1316], &bytes[1316..2400], &bytes[2632..]]);
    let whole: Vec<u8> = (0..12).chain(14..21).collect();
    assert_eq!(seen, whole);
    assert_eq!((lost.packets, lost.sync_losses), (1, 0));
    // Something that is no TS at all among the others.
    let (seen, lost) = frame(&[&bytes[..1316], &[0; 100], &bytes[1316..]]);
    assert_eq!(seen, (0..21).collect::<Vec<u8>>());
    assert_eq!((lost.packets, lost.sync_losses), (1, 0));
}

#[test]
fn after_a_loss_payloads_that_are_no_whole_packets_are_read_again_at_once() {
    let bytes = stream(60);
    let payloads: Vec<&[u8]> = bytes.chunks(1000).collect();
    let mut framer = Framer::default();
    let mut seen = Vec::new();
    for (slot, payload) in payloads.iter().enumerate() {
        if slot == 4 {
            framer.restart();
            continue;
        }
        let lost = framer.push(slot as u64, payload, 0, Instant::ZERO, |p, _, _| {
            seen.push(p[1])
        });
        assert_eq!(lost.sync_losses, 0);
    }
    // The payload held the ends of packets 21 to 26.
    let missing: Vec<u8> = (0..60).filter(|n| !seen.contains(n)).collect();
    assert_eq!(missing, [21, 22, 23, 24, 25, 26]);
}
