//! Key material (spec section 16): the input is a KM message, in a conclusion for a listener, and
//! in flight as KMREQ and as KMRSP for an established connection.

use core::time::Duration;

use mirror_srt::{CipherPolicy, ListenerPolicy, Passphrase, Security};

use crate::harness::{CALLER, IDS, LISTENER, Pair, control, packet};

/// One KM message.
pub fn run(data: &[u8]) {
    let passphrase = Passphrase::new("as good as any").expect("a passphrase");
    for cipher in [CipherPolicy::Auto, CipherPolicy::Gcm] {
        for (passphrase, require) in [(Some(&passphrase), true), (None, false)] {
            let policy = ListenerPolicy {
                passphrase,
                require,
                cipher,
            };
            for version in [0x0001_0400, 0x0001_0504] {
                if let Ok(security) = Security::negotiate(Some(data), version, &policy, [1; 32]) {
                    let _ = security.agreed();
                }
            }
        }
    }
    let mut pair = Pair::new(5);
    for side in [CALLER, LISTENER] {
        for subtype in [3, 4] {
            let message = packet(control(0x7FFF, subtype), 0, 0, IDS[side], data);
            pair.arrive(side, &message);
            pair.send(1 - side, &[1; 40]);
            pair.advance(Duration::from_millis(10));
        }
    }
    pair.finish();
}
