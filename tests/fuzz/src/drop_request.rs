//! DROPREQ (spec section 11.6): the input is a list of ranges, for a receiver with gaps. Data
//! keeps coming between them.

use core::time::Duration;

use crate::harness::{IDS, LISTENER, Pair, control, packet};

/// A list of drop requests.
pub fn run(data: &[u8]) {
    let Some((&begin, rest)) = data.split_first() else {
        return;
    };
    let initial = if begin & 1 == 0 { 0x7FFF_FFC0 } else { 1_000 };
    let mut pair = Pair::new(initial);
    let sent = |pair: &mut Pair, number: u32| {
        let word0 = pair.initial.plus(number).get();
        let word1 = 0b11 << 30 | (number + 1);
        let datagram = packet(
            word0,
            word1,
            number * 500,
            IDS[LISTENER],
            &[number as u8; 20],
        );
        pair.arrive(LISTENER, &datagram);
    };
    for number in (0..60).filter(|n| n % 7 != 3 && n % 11 != 5) {
        sent(&mut pair, number);
    }
    for (step, words) in rest.chunks_exact(8).take(64).enumerate() {
        let mut cif = words.to_vec();
        if begin & 2 != 0 {
            // Relative to the first number: such ranges are near the window.
            for word in cif.chunks_exact_mut(4) {
                let offset = i32::from(word[2].cast_signed()) * 8 + i32::from(word[3]);
                let number = pair.initial.plus(offset.cast_unsigned());
                word.copy_from_slice(&number.get().to_be_bytes());
            }
        }
        let message = step as u32;
        let request = packet(control(7, 0), message, 0, IDS[LISTENER], &cif);
        pair.arrive(LISTENER, &request);
        sent(&mut pair, 60 + step as u32);
        if step % 4 == 3 {
            pair.advance(Duration::from_millis(15));
        }
    }
    pair.finish();
}
