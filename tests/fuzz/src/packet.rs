//! The packet parser (spec section 1): the input is a datagram, as it is, for an established
//! connection on either side that has already sent and received something.

use core::time::Duration;

use crate::harness::{CALLER, IDS, LISTENER, Pair};

/// One datagram to each side.
pub fn run(data: &[u8]) {
    let _ = mirror_srt::destination_socket_id(data);
    let mut pair = Pair::new(0x7FFF_FFF0);
    for number in 0..20_u8 {
        pair.send(CALLER, &[number; 32]);
        pair.send(LISTENER, &[number; 32]);
    }
    // Every third is lost, so that there is something to repair.
    for number in 0..40 {
        if number % 3 == 0 {
            pair.sides[CALLER].wire.pop_front();
            pair.sides[LISTENER].wire.pop_front();
        }
        pair.pass(CALLER);
        pair.pass(LISTENER);
    }
    for side in [CALLER, LISTENER] {
        pair.arrive(side, data);
        // The same for whom it is addressed to: routing has seen to that.
        if let Some(before) = data.get(..12) {
            let mut datagram = before.to_vec();
            datagram.extend(IDS[side].to_be_bytes());
            datagram.extend(data.get(16..).unwrap_or(&[]));
            pair.arrive(side, &datagram);
        }
    }
    for _ in 0..20 {
        pair.advance(Duration::from_millis(10));
        pair.pass(CALLER);
        pair.pass(LISTENER);
    }
    pair.finish();
}
