//! Key material (spec section 16). Behind two bytes that choose cipher and key length the input is
//! a KM message: in a conclusion for a listener, in flight as KMREQ and KMRSP for connections
//! with and without keys, and as changes to the genuine ones of a refresh. Whoever does not know
//! the passphrase changes nothing by them: everything sent is decrypted.

use core::time::Duration;

use mirror_srt::{CipherPolicy, KeyLength, ListenerPolicy, Security};

use crate::harness::{CALLER, IDS, LISTENER, Pair, control, packet, passphrase};

/// KMREQ and KMRSP.
const SUBTYPES: [u16; 2] = [3, 4];

/// One KM message.
pub fn run(data: &[u8]) {
    let &[choice, _, ref message @ ..] = data else {
        return;
    };
    negotiate(message);
    let mut pair = match choice % 4 {
        0 => Pair::new(5),
        1 => Pair::secured(5, CipherPolicy::Ctr, KeyLength::Aes128),
        2 => Pair::secured(5, CipherPolicy::Gcm, KeyLength::Aes128),
        _ => Pair::secured(0x7FFF_FFF0, CipherPolicy::Ctr, KeyLength::Aes256),
    };
    for side in &mut pair.sides {
        side.only = Some(0x47);
    }
    for step in 0..100_u32 {
        if step == 10 || step == 70 {
            forge(&mut pair, message);
        }
        for side in [CALLER, LISTENER] {
            pair.send(side, &[0x47; 188]);
            exchange(&mut pair, side, message);
        }
        pair.advance(Duration::from_millis(2));
    }
    for side in &pair.sides {
        let s = side.connection.statistics();
        assert_eq!((s.pkt_recv_unique, s.pkt_rcv_undecrypt), (100, 0), "{s:?}");
    }
    pair.finish();
}

fn negotiate(message: &[u8]) {
    let passphrase = passphrase();
    for cipher in [CipherPolicy::Auto, CipherPolicy::Gcm] {
        for (passphrase, require) in [(Some(&passphrase), true), (None, false)] {
            let policy = ListenerPolicy {
                passphrase,
                require,
                cipher,
            };
            let version = 0x0001_0503 + u32::from(require);
            if let Ok(security) = Security::negotiate(Some(message), version, &policy, [1; 32]) {
                assert!(security.agreed().is_none() || passphrase.is_some());
            }
        }
    }
}

fn forge(pair: &mut Pair, message: &[u8]) {
    for side in [CALLER, LISTENER] {
        for subtype in SUBTYPES {
            let forged = packet(control(0x7FFF, subtype), 0, 0, IDS[side], message);
            pair.arrive(side, &forged);
        }
    }
}

/// Everything that `from` has written arrives; before key material comes a changed copy of it.
fn exchange(pair: &mut Pair, from: usize, changes: &[u8]) {
    while let Some(datagram) = pair.sides[from].wire.front() {
        let genuine = SUBTYPES
            .iter()
            .any(|s| datagram.starts_with(&control(0x7FFF, *s).to_be_bytes()));
        // A copy without changes would be the genuine one.
        if genuine && changes.iter().any(|b| *b != 0) {
            let mut changed = datagram.clone();
            for (byte, change) in changed[16..].iter_mut().zip(changes) {
                *byte ^= change;
            }
            pair.arrive(1 - from, &changed);
        }
        pair.pass(from);
    }
}
