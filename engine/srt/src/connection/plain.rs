//! The short way of the usual packet and the long one of all others come to the same, and so do
//! packets released one by one and in runs.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use super::pair::{Pair, Path, Policy};
use super::*;

fn same_both_ways(seed: u64, security: impl Fn() -> Option<(CallerSecurity, Policy)>) {
    let run = |never_plain: bool| {
        let path = Path {
            delay_us: 10_000,
            jitter_us: [0, 1_500, 4_000][seed as usize % 3],
            loss_per_mille: [0, 2, 30, 100][seed as usize % 4],
            duplicates_per_mille: seed * 3,
        };
        let config = Config {
            loss_max_ttl: [0, 3, 40][seed as usize % 3],
            ..Config::default()
        };
        let (security, policy) = match security() {
            Some((security, policy)) => (Some(security), policy),
            None => (None, Policy::clear()),
        };
        // Numbers wrap.
        let initial = PacketSequenceNumber::MAX - 1_000;
        let mut pair = Pair::with_security(seed, path, initial, config, security, policy);
        pair.connect();
        pair.listener.as_mut().unwrap().receiver.never_plain = never_plain;
        pair.takes_runs = !never_plain;
        pair.send(1500);
        pair.run(Duration::from_millis(60));
        pair.send(1500);
        pair.run(Duration::from_secs(2));
        pair.send(20);
        pair.run(Duration::from_secs(1));
        pair.add_up();
        assert!(pair.got.len() > 2_500, "{}", pair.got.len());
        let caller = pair.caller.statistics();
        let released = (pair.got, pair.deliveries, pair.lost);
        (
            released,
            pair.listener.unwrap().statistics(),
            caller,
            pair.count,
        )
    };
    let (short, long) = (run(false), run(true));
    assert!(short == long, "{:?} {:?}", short.1, long.1);
}

#[test]
fn clear_packets_are_taken_alike_on_both_ways() {
    for seed in 1..=12 {
        same_both_ways(seed, || None);
    }
}

#[cfg(feature = "crypto")]
fn encrypted(cipher: crate::CipherPolicy) -> (CallerSecurity, Policy) {
    let passphrase = crate::Passphrase::new("one way or the other").unwrap();
    let length = Some(crate::KeyLength::Aes128);
    let caller = CallerSecurity::new(&passphrase, length, cipher, true, [3; 32]);
    let policy = Policy {
        passphrase: Some(passphrase),
        require: true,
        cipher,
    };
    (caller, policy)
}

#[cfg(feature = "crypto")]
#[test]
fn encrypted_packets_are_taken_alike_on_both_ways() {
    for seed in 1..=12 {
        let cipher = [crate::CipherPolicy::Ctr, crate::CipherPolicy::Gcm][seed as usize % 2];
        same_both_ways(seed, || Some(encrypted(cipher)));
    }
}

#[cfg(feature = "crypto")]
#[test]
fn no_packet_in_the_clear_takes_the_short_way_of_an_encrypted_connection() {
    use super::pair::CLEAN;
    use mirror_base::Discard;
    for cipher in [crate::CipherPolicy::Ctr, crate::CipherPolicy::Gcm] {
        let (security, policy) = encrypted(cipher);
        let config = Config::default();
        let mut pair = Pair::with_security(1, CLEAN, 1000, config, Some(security), policy);
        pair.connect();
        let sent = pair.send(100);
        pair.run(Duration::from_millis(6));
        let next = pair.data(1100, 0);
        assert_eq!(pair.inject(&next), Err(Discard::Undecryptable));
        // Some other key, that was not announced.
        let next = pair.data(1100, 2 << 27);
        assert_eq!(pair.inject(&next), Err(Discard::Undecryptable));
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.got, sent);
        assert_eq!(pair.received().pkt_rcv_undecrypt, 2);
    }
}
