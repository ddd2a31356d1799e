//! The loss list of a NAK (spec sections 11.1 and 11.4): the input is its content, for a sender
//! that has a hundred packets in flight and some already dropped.

use core::time::Duration;

use crate::harness::{CALLER, IDS, Pair, control, packet};

/// One NAK, twice.
pub fn run(data: &[u8]) {
    let Some((&begin, list)) = data.split_first() else {
        return;
    };
    // Numbers begin near the wrap or far from it, and the list may be given relative to them.
    let initial = if begin & 1 == 0 { 0x7FFF_FFC0 } else { 1_000 };
    let mut pair = Pair::new(initial);
    for number in 0..100_u8 {
        pair.send(CALLER, &[number; 20]);
        pair.sides[CALLER].wire.clear();
    }
    if begin & 2 != 0 {
        // What is older than a second is dropped: the peer is told so when it asks.
        pair.advance(Duration::from_millis(1_100));
        pair.send(CALLER, &[1; 20]);
    }
    let relative: Vec<u8> = list
        .chunks_exact(4)
        .filter_map(|w| w.first_chunk::<4>())
        .map(|w| u32::from_be_bytes(*w))
        .flat_map(|w| (w & 1 << 31 | pair.initial.plus(w & 0xFF).get()).to_be_bytes())
        .collect();
    let list = if begin & 4 == 0 { list } else { &relative };
    let nak = packet(control(3, 0), 0, 0, IDS[CALLER], list);
    for _ in 0..2 {
        pair.sides[CALLER].wire.clear();
        let before = pair.sides[CALLER].connection.statistics();
        pair.arrive(CALLER, &nak);
        let after = pair.sides[CALLER].connection.statistics();
        assert!(
            after.pkt_retrans - before.pkt_retrans <= 101,
            "each packet once"
        );
        assert!(
            pair.sides[CALLER].wire.len() <= 101 + 32,
            "and few drop requests"
        );
        pair.advance(Duration::from_millis(300));
    }
    pair.finish();
}
