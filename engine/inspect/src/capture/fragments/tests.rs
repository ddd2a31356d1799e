use super::*;

const LINK_RAW: u32 = 101;
const UDP: u8 = 17;
const SECOND: u64 = 1_000_000_000;

/// A UDP datagram from port 7 to port 9 with so many bytes, each its place.
fn udp(bytes: usize) -> Vec<u8> {
    let mut udp = vec![0, 7, 0, 9];
    udp.extend(((bytes + 8) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend((0..bytes).map(|n| (n % 251) as u8));
    udp
}

/// A piece of `whole`, as IPv4 carries it.
fn v4(id: u16, whole: &[u8], from: usize, to: usize, more: bool) -> Vec<u8> {
    let piece = &whole[from..to];
    let place = (from / 8) as u16 | u16::from(more) << 13;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + piece.len() as u16).to_be_bytes());
    ip.extend(id.to_be_bytes());
    ip.extend(place.to_be_bytes());
    ip.extend([64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    ip.extend(piece);
    ip
}

/// A piece of `whole`, as IPv6 carries it, which begins with the header `next`.
fn v6(id: u32, next: u8, whole: &[u8], from: usize, to: usize, more: bool) -> Vec<u8> {
    let piece = &whole[from..to];
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((8 + piece.len() as u16).to_be_bytes());
    ip.extend([44, 64]);
    ip.extend([[0; 15].as_slice(), &[1], &[0; 15], &[2]].concat());
    ip.extend([next, 0]);
    ip.extend((from as u16 | u16::from(more)).to_be_bytes());
    ip.extend(id.to_be_bytes());
    ip.extend(piece);
    ip
}

/// The payload of the datagram that a packet completes.
fn take(reassembly: &mut Reassembly, at_ns: u64, bytes: &[u8]) -> Option<Vec<u8>> {
    let record = Record {
        number: 1,
        at_ns,
        link: LINK_RAW,
        bytes,
    };
    match reassembly.datagram(&record) {
        Seen::Datagram(datagram) => {
            assert_eq!((datagram.from.port(), datagram.to.port()), (7, 9));
            Some(datagram.payload.to_vec())
        }
        _ => None,
    }
}

#[test]
fn pieces_in_any_order_and_among_others_become_their_datagrams() {
    let whole = udp(4000);
    let parts = [(0, 1480), (1480, 2960), (2960, whole.len())];
    for order in [
        [0, 1, 2],
        [2, 1, 0],
        [1, 2, 0],
        [2, 0, 1],
        [0, 2, 1],
        [1, 0, 2],
    ] {
        let mut reassembly = Reassembly::default();
        let mut done = Vec::new();
        for n in order {
            let (from, to) = parts[n];
            let more = to < whole.len();
            for packet in [
                v4(5, &whole, from, to, more),
                v4(6, &whole, from, to, more),
                v6(5, UDP, &whole, from, to, more),
            ] {
                done.extend(take(&mut reassembly, 0, &packet));
            }
        }
        assert_eq!(done, vec![whole[8..].to_vec(); 3], "{order:?}");
        let counts = reassembly.counts();
        assert_eq!((counts.fragments, counts.assembled), (9, 3));
        assert_eq!((counts.incomplete, counts.malformed), (0, 0));
        assert_eq!((reassembly.held, reassembly.partial.len()), (0, 0));
    }
}

#[test]
fn extension_headers_may_lie_in_the_part_that_was_divided() {
    let whole = [&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp(40)].concat();
    let mut reassembly = Reassembly::default();
    // Only the first piece says what it begins with.
    assert_eq!(
        take(&mut reassembly, 0, &v6(1, 99, &whole, 16, 56, false)),
        None
    );
    let first = v6(1, 60, &whole, 0, 16, true);
    let done = take(&mut reassembly, 0, &first);
    assert_eq!(done, Some(whole[16..].to_vec()));
}

#[test]
fn a_piece_that_came_twice_is_taken_once() {
    let whole = udp(2000);
    let mut reassembly = Reassembly::default();
    let (first, last) = (
        v4(1, &whole, 0, 1480, true),
        v4(1, &whole, 1480, 2008, false),
    );
    assert_eq!(take(&mut reassembly, 0, &first), None);
    assert_eq!(take(&mut reassembly, 0, &first), None);
    assert_eq!(take(&mut reassembly, 0, &last), Some(whole[8..].to_vec()));
}

#[test]
fn pieces_that_overlap_or_do_not_fit_give_the_packet_up() {
    let whole = udp(2000);
    let other: Vec<u8> = whole.iter().map(|b| b ^ 1).collect();
    let first = v4(1, &whole, 0, 1480, true);
    let last = v4(1, &whole, 1480, 2008, false);
    let bad = [
        ("overlap", v4(1, &whole, 1472, 2008, false)),
        ("other bytes", v4(1, &other, 0, 1480, true)),
        ("no multiple of eight", v4(1, &whole, 1480, 1490, true)),
        ("an end before what came", v4(1, &whole, 8, 800, false)),
        ("nothing", v4(1, &whole, 1480, 1480, true)),
        (
            "beyond what a packet holds",
            v4(1, &[0; 65_600], 65_528, 65_600, false),
        ),
    ];
    for (what, bad) in bad {
        let mut reassembly = Reassembly::default();
        for packet in [&first, &bad, &last, &first] {
            assert_eq!(take(&mut reassembly, 0, packet), None, "{what}");
        }
        let counts = reassembly.counts();
        assert_eq!((counts.malformed, counts.incomplete), (1, 0), "{what}");
        assert_eq!(reassembly.held, 0, "{what}");
        // Its number is free again once its time is over.
        let later = 31 * SECOND;
        assert_eq!(take(&mut reassembly, later, &first), None);
        assert!(take(&mut reassembly, later, &last).is_some(), "{what}");
    }
    // Two ends.
    let mut reassembly = Reassembly::default();
    for packet in [&last, &v4(1, &[0; 3000], 2008, 2100, false), &first] {
        assert_eq!(take(&mut reassembly, 0, packet), None);
    }
    assert_eq!(reassembly.counts().malformed, 1);
}

#[test]
fn pieces_wait_half_a_minute_in_ipv4_and_a_whole_one_in_ipv6() {
    let whole = udp(2000);
    for (wait, is_v4) in [(30, true), (60, false)] {
        let piece = |from, to, more| match is_v4 {
            true => v4(1, &whole, from, to, more),
            false => v6(1, UDP, &whole, from, to, more),
        };
        let (first, last) = (piece(0, 1480, true), piece(1480, 2008, false));
        for (after, is_done) in [(wait * SECOND - 1, true), (wait * SECOND, false)] {
            let mut reassembly = Reassembly::default();
            assert_eq!(take(&mut reassembly, 0, &first), None);
            let done = take(&mut reassembly, after, &last);
            assert_eq!(done.is_some(), is_done, "{wait}");
            // The first piece's packet, and the one that the last piece begins.
            let incomplete = if is_done { 0 } else { 2 };
            assert_eq!(reassembly.counts().incomplete, incomplete, "{wait}");
        }
    }
}

#[test]
fn a_flood_of_first_pieces_is_bounded_and_takes_the_oldest_ones_place() {
    let whole = udp(60_000);
    let mut reassembly = Reassembly::default();
    for id in 0..5000 {
        assert_eq!(take(&mut reassembly, 0, &v4(id, &whole, 0, 8, true)), None);
        assert!(reassembly.partial.len() <= MAX_PACKETS);
    }
    // Pieces that lie far behind take the memory of what is before them.
    for id in 5000..6000 {
        let far = v4(id, &whole, 59_992, 60_000, true);
        assert_eq!(take(&mut reassembly, 0, &far), None);
        assert!(reassembly.held <= MAX_HELD);
        let held: usize = reassembly.partial.iter().map(|p| p.bytes.len()).sum();
        assert_eq!(held, reassembly.held);
    }
    let counts = reassembly.counts();
    assert_eq!((counts.fragments, counts.incomplete), (6000, 6000));
    // The youngest ones are still there.
    assert_eq!(
        take(&mut reassembly, 0, &v4(5999, &whole, 0, 59_992, true)),
        None
    );
    let last = v4(5999, &whole, 60_000, 60_008, false);
    assert_eq!(take(&mut reassembly, 0, &last), Some(whole[8..].to_vec()));
}

#[test]
fn a_piece_that_was_not_captured_to_its_end_is_none() {
    let whole = udp(2000);
    let packet = v4(1, &whole, 0, 1480, true);
    let cut = link::datagram(LINK_RAW, &packet[..700]);
    assert_eq!(cut, Seen::Cut);
    let packet = v6(1, UDP, &whole, 0, 1480, true);
    assert_eq!(link::datagram(LINK_RAW, &packet[..700]), Seen::Cut);
}
