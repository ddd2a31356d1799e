//! SRT between two of our connections, in the clear and under keys that are refreshed: data
//! packets get lost or overtake each other, and acknowledgements get lost. What is sent is
//! delivered, in order.

use core::time::Duration;

use mirror_srt::{CipherPolicy, KeyLength};

use super::Choices;
use crate::harness::Pair;

/// A control packet of the type ACK begins so.
const ACK: [u8; 2] = [0x80, 2];

/// Payloads of any size, one each millisecond.
pub(super) fn srt(choices: &mut Choices<'_>) {
    // Near the wrap of the numbers, or anywhere.
    let initial = if choices.flip() {
        0x7FFF_FF00 + u32::from(choices.byte())
    } else {
        choices.u32()
    };
    let mut pair = if choices.once_in(3) {
        Pair::new(initial)
    } else {
        let cipher = *choices.pick(&[CipherPolicy::Ctr, CipherPolicy::Gcm]);
        let keys = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];
        Pair::secured(initial, cipher, *choices.pick(&keys))
    };
    let from = choices.below(2);
    pair.sides[1 - from].kept = Some(Vec::new());
    let loss = *choices.pick(&[3, 10, 1_000]);
    let count = choices.between(1, 250);
    let mut sent = Vec::new();
    for n in 0..count + 300 {
        if n < count {
            let mut payload = Vec::new();
            let size = choices.between(1, 1_316);
            choices.filling(&mut payload, size);
            pair.send(from, &payload);
            sent.push(payload);
        }
        // What is lost at the end shows by nothing but time, which there is little of.
        let losses = n + 8 < count;
        pass(&mut pair, from, losses.then_some(loss), choices);
        pass(&mut pair, 1 - from, losses.then_some(4), choices);
        pair.advance(Duration::from_millis(1));
    }
    let came = pair.sides[1 - from].kept.take().unwrap_or_default();
    assert_eq!(came.len(), sent.len(), "1 in {loss} lost");
    assert!(came == sent, "1 in {loss} lost");
    assert_eq!(pair.sides[1 - from].missing, 0);
    pair.finish();
}

/// What `from` has written comes, but for one in `loss` of the data packets that are sent for the
/// first time, and of the acknowledgements.
fn pass(pair: &mut Pair, from: usize, loss: Option<usize>, choices: &mut Choices<'_>) {
    for _ in 0..pair.sides[from].wire.len() {
        let wire = &mut pair.sides[from].wire;
        let Some(head) = wire.front().and_then(|d| d.first_chunk::<5>()) else {
            return;
        };
        let is_data = head[0] & 0x80 == 0;
        let is_repeated = head[4] & 4 != 0;
        let may_be_lost = (is_data && !is_repeated) || head[..2] == ACK;
        let lost = may_be_lost && loss.is_some_and(|n| choices.once_in(n));
        let overtaken = is_data && loss.is_some() && choices.once_in(16);
        if lost {
            wire.pop_front();
        } else if overtaken {
            wire.rotate_left(1);
        } else {
            pair.pass(from);
        }
    }
}
