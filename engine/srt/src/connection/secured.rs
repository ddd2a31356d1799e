//! Two connections with encryption in virtual time: every cipher and key length, the outcomes of
//! spec section 8, refreshed keys under loss and in both directions, and hostile packets.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use super::pair::{CLEAN, LISTENER, Pair, Path, Policy};
use super::*;
use mirror_base::Discard;

use crate::crypto::{CipherPolicy, KeyLength, KmState};
use crate::packet::{Control, Header, Writer};
use crate::test_support::Random;
use crate::{Passphrase, RejectionCode};

const LENGTHS: [KeyLength; 3] = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text).unwrap()
}

fn caller(text: &str, length: Option<KeyLength>, gcm: bool, require: bool) -> CallerSecurity {
    let cipher = if gcm {
        CipherPolicy::Gcm
    } else {
        CipherPolicy::Auto
    };
    CallerSecurity::new(&passphrase(text), length, cipher, require, [8; 32])
}

fn listener(text: Option<&str>, require: bool) -> Policy {
    Policy {
        passphrase: text.map(passphrase),
        require,
        cipher: CipherPolicy::Auto,
    }
}

fn secured(path: Path, initial: u32, config: Config, length: KeyLength, gcm: bool) -> Pair {
    let caller = caller("correct horse", Some(length), gcm, true);
    let policy = listener(Some("correct horse"), true);
    let mut pair = Pair::with_security(3, path, initial, config, Some(caller), policy);
    pair.connect();
    pair
}

fn encrypted_data(pair: &Pair) -> Vec<&Vec<u8>> {
    pair.wire
        .values()
        .map(|(_, datagram)| datagram)
        .filter(|d| d[0] & 0x80 == 0)
        .collect()
}

#[test]
fn every_cipher_and_key_length_delivers_what_was_sent() {
    for (gcm, name) in [(false, "ctr"), (true, "gcm")] {
        for length in LENGTHS {
            let mut pair = secured(CLEAN, 1000, Config::default(), length, gcm);
            let name = format!("aes-{name}-{}", length.bytes() * 8);
            assert_eq!(pair.caller.encryption(), name);
            assert_eq!(pair.listener.as_ref().unwrap().encryption(), name);
            let payload = [0x47; 1316];
            pair.caller.send(pair.now, &payload).unwrap();
            pair.drain();
            let wire = encrypted_data(&pair);
            assert_eq!(wire.len(), 1);
            assert_eq!(wire[0].len(), 16 + 1316 + if gcm { 16 } else { 0 });
            assert_eq!(wire[0][4] >> 3 & 3, 1, "the even key");
            assert!(!wire[0].windows(8).any(|w| w == [0x47; 8]));
            let sent = pair.send(300);
            pair.run(Duration::from_millis(300));
            assert_eq!(pair.got[0], payload);
            assert_eq!(pair.got[1..], sent[..]);
            pair.add_up();
            let stats = pair.received();
            assert_eq!(
                (stats.rcv_km_state, stats.snd_km_state),
                (KmState::Secured, KmState::Secured)
            );
            assert_eq!(stats.pkt_rcv_undecrypt, 0);
            let bytes: u64 = pair.got.iter().map(|p| p.len() as u64).sum();
            assert_eq!(stats.payload_bytes_received(), bytes);
        }
    }
}

#[test]
fn the_largest_payload_is_shorter_with_gcm() {
    let config = Config {
        payload_size: 1456,
        ..Config::default()
    };
    for (gcm, largest) in [(false, 1456), (true, 1440)] {
        let mut pair = secured(CLEAN, 1, config.clone(), KeyLength::Aes128, gcm);
        let payload = vec![1; largest + 1];
        assert_eq!(
            pair.caller.send(pair.now, &payload),
            Err(SendError::TooLong)
        );
        pair.caller.send(pair.now, &payload[1..]).unwrap();
        pair.run(Duration::from_millis(200));
        assert_eq!(pair.got[0], payload[1..]);
    }
}

#[test]
fn outcomes_with_and_without_require_are_those_of_the_table() {
    // (caller, listener, code where it is required, states of caller and listener otherwise,
    // what arrives otherwise)
    let right = "correct horse";
    let cases = [
        (
            None,
            None,
            None,
            KmState::Unsecured,
            KmState::Unsecured,
            true,
        ),
        (
            Some(right),
            Some(right),
            None,
            KmState::Secured,
            KmState::Secured,
            true,
        ),
        (
            Some("wrong horse"),
            Some(right),
            Some(RejectionCode::BADSECRET),
            KmState::BadSecret,
            KmState::BadSecret,
            false,
        ),
        (
            None,
            Some(right),
            Some(RejectionCode::UNSECURE),
            KmState::Unsecured,
            KmState::Unsecured,
            true,
        ),
        (
            Some(right),
            None,
            Some(RejectionCode::UNSECURE),
            KmState::NoSecret,
            KmState::NoSecret,
            false,
        ),
    ];
    for gcm in [false, true] {
        for require in [true, false] {
            for (calls, listens, code, at_caller, at_listener, arrives) in cases {
                let security = calls.map(|text| caller(text, None, gcm, require));
                let policy = listener(listens, require);
                let mut pair =
                    Pair::with_security(1, CLEAN, 10, Config::default(), security, policy);
                if let (Some(code), true) = (code, require) {
                    pair.run(Duration::from_millis(100));
                    assert_eq!(pair.rejected, Some(code));
                    assert_eq!(pair.events, [Event::Closed(CloseReason::Rejected(code))]);
                    continue;
                }
                pair.connect();
                assert_eq!(pair.caller.statistics().rcv_km_state, at_caller);
                assert_eq!(pair.received().rcv_km_state, at_listener);
                let sent = pair.send(200);
                pair.run(Duration::from_millis(300));
                pair.add_up();
                let stats = pair.received();
                if arrives {
                    assert_eq!(pair.got, sent);
                } else {
                    assert!(pair.got.is_empty());
                    assert_eq!(stats.pkt_rcv_undecrypt, 200);
                    let bytes: u64 = sent.iter().map(|p| p.len() as u64).sum();
                    let tags = if gcm { 200 * 16 } else { 0 };
                    assert_eq!(stats.byte_rcv_undecrypt, bytes + tags);
                }
                // Acknowledged in any case (spec section 16.7).
                assert!(pair.caller.is_sent());
                assert_eq!(pair.caller.statistics().pkt_retrans, 0);
            }
        }
    }
}

#[test]
fn a_caller_that_insists_leaves_a_listener_that_does_not() {
    let wrong = [
        (Some("correct horse"), RejectionCode::BADSECRET),
        (None, RejectionCode::UNSECURE),
    ];
    for (listens, code) in wrong {
        let security = Some(caller("wrong horse", None, false, true));
        let policy = listener(listens, false);
        let mut pair = Pair::with_security(1, CLEAN, 10, Config::default(), security, policy);
        pair.run(Duration::from_millis(200));
        // The listener had made the connection: the caller's SHUTDOWN ended it.
        assert_eq!(
            pair.events,
            [
                Event::Closed(CloseReason::Rejected(code)),
                Event::Closed(CloseReason::PeerShutdown)
            ]
        );
        assert!(pair.caller.is_drained());
    }
    let ctr_only = Policy {
        passphrase: Some(passphrase("correct horse")),
        require: false,
        cipher: CipherPolicy::Ctr,
    };
    let security = Some(caller("correct horse", None, true, true));
    let mut pair = Pair::with_security(1, CLEAN, 10, Config::default(), security, ctr_only);
    pair.run(Duration::from_millis(200));
    let crypto = CloseReason::Rejected(RejectionCode::CRYPTO);
    assert_eq!(pair.events[0], Event::Closed(crypto));
}

#[test]
fn a_caller_without_a_key_length_adopts_the_advertised_one() {
    let config = Config {
        advertised_key_length: Some(KeyLength::Aes192),
        ..Config::default()
    };
    let security = Some(caller("correct horse", None, false, true));
    let policy = listener(Some("correct horse"), true);
    let mut pair = Pair::with_security(1, CLEAN, 10, config, security, policy);
    pair.connect();
    assert_eq!(pair.caller.encryption(), "aes-ctr-192");
}

const LOSSY: Path = Path {
    delay_us: 10_000,
    jitter_us: 3_000,
    loss_per_mille: 50,
    duplicates_per_mille: 30,
};

fn refreshing(refresh_packets: u32, announce_packets: u32) -> Config {
    Config {
        latency: Duration::from_millis(600),
        refresh_packets,
        announce_packets,
        ..Config::default()
    }
}

#[test]
fn keys_are_refreshed_under_loss_and_nothing_is_lost() {
    for gcm in [false, true] {
        for length in LENGTHS {
            // The numbers wrap on the way.
            let config = refreshing(200, 60);
            let mut pair = secured(LOSSY, 0x7FFF_FFFF - 700, config, length, gcm);
            let mut sent = pair.send(3000);
            pair.path = CLEAN;
            sent.extend(pair.send(100));
            pair.run(Duration::from_secs(2));
            assert!(pair.got == sent, "{gcm} {length:?} {}", pair.got.len());
            pair.add_up();
            let (snd, rcv) = (pair.caller.statistics(), pair.received());
            // A refresh waits for its confirmation, so there may be fewer than 3100 / 200.
            assert!(
                (10..=15).contains(&snd.km_refreshes),
                "{}",
                snd.km_refreshes
            );
            assert!(rcv.km_refreshes >= snd.km_refreshes);
            assert_eq!(rcv.pkt_rcv_drop, 0);
            assert_eq!(rcv.pkt_rcv_undecrypt, 0);
        }
    }
}

#[test]
fn a_new_key_is_not_used_before_the_peer_has_it() {
    let mut pair = secured(CLEAN, 5, refreshing(100, 20), KeyLength::Aes128, false);
    let mut sent = pair.send(70);
    // No KMREQ gets through.
    let mut announcements = 0;
    for i in 0..400 {
        sent.extend(pair.send(1));
        let requests: Vec<_> = pair
            .wire
            .iter()
            .filter(|(_, (_, d))| d[..4] == [0xFF, 0xFF, 0, 3])
            .map(|(key, _)| *key)
            .collect();
        if i < 300 {
            announcements += requests.len();
            requests.iter().for_each(|key| drop(pair.wire.remove(key)));
        }
    }
    assert!((10..=14).contains(&announcements), "{announcements}");
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.got, sent);
    assert_eq!(pair.caller.statistics().km_refreshes, 1);
}

#[test]
fn a_key_is_not_replaced_while_packets_under_it_may_come_again() {
    let mut pair = secured(CLEAN, 5, refreshing(40, 10), KeyLength::Aes128, false);
    let mut sent = pair.send(35);
    // The 37th packet under the first key gets lost again and again.
    for _ in 0..150 {
        sent.extend(pair.send(1));
        pair.wire
            .retain(|_, (_, datagram)| datagram[..4] != (5 + 36_u32).to_be_bytes());
    }
    assert_eq!(pair.caller.statistics().km_refreshes, 1);
    pair.run(Duration::from_secs(2));
    assert_eq!(pair.got, sent, "decrypted under the right key at last");
    sent.extend(pair.send(100));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.got, sent);
    assert!(pair.caller.statistics().km_refreshes >= 3);
}

#[test]
fn packets_that_overtake_their_keys_announcement_come_again() {
    let mut pair = secured(CLEAN, 5, refreshing(100, 20), KeyLength::Aes256, false);
    let mut sent = pair.send(40);
    pair.run(Duration::from_millis(20));
    // Only data passes for a while, encrypted by a sender that does not wait.
    pair.caller.sender.keys_mut().unwrap().step(pair.now);
    let message = {
        let next = pair.caller.sender.keys_mut().unwrap();
        next.announcement.as_ref().unwrap().message
    };
    assert!(
        pair.caller
            .sender
            .keys_mut()
            .unwrap()
            .confirm(message.as_bytes())
    );
    pair.caller.sender.keys_mut().unwrap().step(pair.now);
    sent.extend(pair.send(30));
    let stats = pair.received();
    assert_eq!(stats.pkt_recv_unique, 40);
    assert!(stats.pkt_rcv_undecrypt >= 15, "{}", stats.pkt_rcv_undecrypt);
    // Now the announcement comes.
    let request = extension(&pair, 3, message.as_bytes());
    assert_eq!(pair.inject(&request), Ok(()));
    sent.extend(pair.send(30));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.got, sent);
    assert_eq!(pair.lost, 0);
    pair.add_up();
}

/// A control packet of type 0x7FFF to the listener.
fn extension(pair: &Pair, subtype: u32, content: &[u8]) -> Vec<u8> {
    let header = Header {
        word0: Control::Extension.word0() | subtype,
        word1: 0,
        timestamp: pair.clock(),
        destination: LISTENER,
    };
    let mut out = [0; 1500];
    let mut writer = Writer::packet(&mut out, header);
    writer.bytes(content);
    let len = writer.finish();
    out[..len].to_vec()
}

fn answer(pair: &mut Pair) -> Option<Vec<u8>> {
    let mut out = [0; 1500];
    let listener = pair.listener.as_mut().unwrap();
    while let Some(len) = listener.poll_transmit(pair.now, &mut out) {
        if out[..4] == [0xFF, 0xFF, 0, 4] {
            return Some(out[16..len].to_vec());
        }
    }
    None
}

#[test]
fn a_repeated_kmreq_is_answered_each_time_alike() {
    let mut pair = secured(CLEAN, 5, Config::default(), KeyLength::Aes128, false);
    pair.caller.sender.keys_mut().unwrap().step(pair.now);
    let message = {
        let keys = pair.caller.sender.keys_mut().unwrap();
        keys.announcement.as_ref().unwrap().message
    };
    let request = extension(&pair, 3, message.as_bytes());
    for _ in 0..3 {
        assert_eq!(pair.inject(&request), Ok(()));
        assert_eq!(answer(&mut pair).as_deref(), Some(message.as_bytes()));
    }
    assert_eq!(pair.received().km_refreshes, 1);
}

#[test]
fn a_kmreq_that_was_held_up_brings_no_replaced_key_back() {
    let mut pair = secured(CLEAN, 5, refreshing(100, 30), KeyLength::Aes128, false);
    let mut sent = Vec::new();
    let mut requests: Vec<Vec<u8>> = Vec::new();
    while requests.len() < 3 {
        sent.extend(pair.send(1));
        for (_, datagram) in pair.wire.values() {
            if datagram[..4] == [0xFF, 0xFF, 0, 3] && requests.last() != Some(datagram) {
                requests.push(datagram.clone());
            }
        }
    }
    sent.extend(pair.send(40));
    for old in &requests[..2] {
        assert_eq!(pair.inject(old), Ok(()));
        assert_eq!(answer(&mut pair).unwrap(), old[16..]);
    }
    sent.extend(pair.send(300));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.got, sent);
}

#[test]
fn a_key_that_was_left_long_ago_decrypts_nothing_any_more() {
    let mut pair = secured(CLEAN, 5, refreshing(100, 30), KeyLength::Aes128, false);
    let sent = pair.send(150);
    pair.run(Duration::from_millis(700));
    assert_eq!(pair.caller.statistics().km_refreshes, 1);
    // Late, but not too late: as a retransmission may come.
    let late = pair.data(155, 1 << 27);
    assert_eq!(pair.inject(&late), Ok(()));
    let odd = pair.data(156, 1 << 28);
    assert_eq!(pair.inject(&odd), Ok(()));
    pair.now += Duration::from_secs(4);
    let late = pair.data(157, 1 << 27);
    assert_eq!(pair.inject(&late), Ok(()));
    let odd = pair.data(158, 1 << 28);
    assert_eq!(pair.inject(&odd), Ok(()));
    // The peer has renewed the even key by now, and the announcement was lost.
    pair.now += Duration::from_secs(40);
    let stale = pair.data(159, 1 << 27);
    assert_eq!(pair.inject(&stale), Err(Discard::Undecryptable));
    let odd = pair.data(159, 1 << 28);
    assert_eq!(pair.inject(&odd), Ok(()));
    assert_eq!(pair.got[..150], sent[..]);
}

#[test]
fn a_late_packet_before_a_long_pause_ends_no_key() {
    let mut pair = secured(CLEAN, 5, refreshing(100, 30), KeyLength::Aes128, false);
    pair.send(150);
    pair.run(Duration::from_millis(700));
    assert_eq!(pair.caller.statistics().km_refreshes, 1);
    // The last packet before the pause is one that was sent again, under the former key.
    let late = pair.data(155, 1 << 27);
    assert_eq!(pair.inject(&late), Ok(()));
    let odd = pair.data(156, 1 << 28);
    assert_eq!(pair.inject(&odd), Ok(()));
    let late = pair.data(157, 1 << 27);
    assert_eq!(pair.inject(&late), Ok(()));
    pair.now += Duration::from_secs(40);
    let odd = pair.data(158, 1 << 28);
    assert_eq!(pair.inject(&odd), Ok(()));
}

#[test]
fn a_packet_forged_under_the_next_key_does_not_end_that() {
    let mut pair = secured(CLEAN, 5, refreshing(300, 140), KeyLength::Aes128, false);
    pair.send(200);
    pair.run(Duration::from_millis(700));
    assert_eq!(pair.caller.statistics().km_refreshes, 0);
    // The odd key was announced, and is used by someone else before the peer does.
    let forged = pair.data(205, 1 << 28);
    assert_eq!(pair.inject(&forged), Ok(()));
    let present = pair.data(206, 1 << 27);
    assert_eq!(pair.inject(&present), Ok(()));
    pair.now += Duration::from_secs(40);
    let next = pair.data(207, 1 << 28);
    assert_eq!(pair.inject(&next), Ok(()));
}

#[test]
fn hostile_kmreqs_change_nothing_and_are_not_answered() {
    for require in [true, false] {
        let security = Some(caller("correct horse", None, false, require));
        let policy = listener(Some("correct horse"), require);
        let mut pair = Pair::with_security(1, CLEAN, 10, Config::default(), security, policy);
        pair.connect();
        pair.caller.sender.keys_mut().unwrap().step(pair.now);
        let keys = pair.caller.sender.keys_mut().unwrap();
        let good = keys
            .announcement
            .as_ref()
            .unwrap()
            .message
            .as_bytes()
            .to_vec();
        let mut hostile: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
        hostile.push(vec![0x12; 1400]);
        for (at, value) in [(1, 0x21), (3, 0), (15, 6), (14, 0xFF), (8, 4), (8, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            hostile.push(bad);
        }
        for bad in &hostile {
            let request = extension(&pair, 3, bad);
            assert_eq!(pair.inject(&request), Err(Discard::MalformedControl));
            assert_eq!(answer(&mut pair), None);
        }
        // Well-formed, but not wrapped with our key, or with another salt.
        for at in [good.len() - 1, 20] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let request = extension(&pair, 3, &bad);
            assert_eq!(pair.inject(&request), Err(Discard::Undecryptable));
            // Spec section 16.6: one that insists does not answer.
            let expected = (!require).then(|| vec![4, 0, 0, 0]);
            assert_eq!(answer(&mut pair), expected);
        }
        let noise = extension(&pair, 4, &[7; 56]);
        assert_eq!(pair.inject(&noise), Err(Discard::MalformedControl));
        let sent = pair.send(100);
        pair.run(Duration::from_millis(300));
        assert_eq!(pair.got, sent);
    }
}

#[test]
fn mutated_key_messages_neither_break_nor_mislead_a_connection() {
    let mut pair = secured(CLEAN, 5, refreshing(100, 30), KeyLength::Aes192, false);
    let mut random = Random(11);
    let (mut sent, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        sent.extend(pair.send(1));
        let messages = pair
            .wire
            .values()
            .filter(|(_, d)| d[..3] == [0xFF, 0xFF, 0]);
        seen.extend(messages.map(|(_, d)| d[16..].to_vec()));
        let Some(last) = seen.last() else { continue };
        for _ in 0..20 {
            let mut bad = last.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bad.len() as u64) as usize;
                bad[at] ^= 1 << random.below(8);
            }
            bad.truncate(1 + random.below(2 * bad.len() as u64) as usize);
            if bad.len() < 4 || !seen.contains(&bad) {
                let packet = extension(&pair, 3 + random.below(2) as u32, &bad);
                let _ = pair.inject(&packet);
            }
        }
    }
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.got, sent);
    assert!(pair.caller.statistics().km_refreshes >= 3);
}

#[test]
fn forged_and_clear_packets_neither_take_a_place_nor_move_anything() {
    for gcm in [true, false] {
        let mut pair = secured(CLEAN, 1000, Config::default(), KeyLength::Aes128, gcm);
        let mut sent = pair.send(20);
        pair.run(Duration::from_millis(50));
        let before = pair.received();
        // Clear ones, and such under a key that does not exist, for the next number, ahead of
        // it, and beyond the window; with AES-GCM also under the key that does.
        let kinds: &[u32] = if gcm {
            &[0, 1 << 28, 1 << 27]
        } else {
            &[0, 1 << 28]
        };
        let mut count = 0;
        for kk in kinds {
            for number in [
                1020,
                1021,
                1500,
                1000 + 30_000,
                1000 + 30_001,
                1000 + 30_002,
            ] {
                let forged = pair.data(number, *kk);
                assert!(pair.inject(&forged).is_err());
                count += 1;
            }
        }
        let after = pair.received();
        assert_eq!(after.pkt_recv_unique, before.pkt_recv_unique);
        assert_eq!(after.pkt_rcv_loss, 0);
        let undecrypt = after.pkt_rcv_undecrypt - before.pkt_rcv_undecrypt;
        assert_eq!(
            undecrypt + after.pkt_rcv_refused - before.pkt_rcv_refused,
            count
        );
        assert!(undecrypt >= count / 2);
        sent.extend(pair.send(50));
        pair.run(Duration::from_millis(300));
        assert_eq!(pair.got, sent);
        assert_eq!(pair.caller.statistics().pkt_retrans, 0);
        pair.add_up();
    }
}

#[test]
fn damaged_packets_of_gcm_are_asked_for_again() {
    let config = Config {
        latency: Duration::from_millis(300),
        ..Config::default()
    };
    let mut pair = secured(CLEAN, 1000, config, KeyLength::Aes128, true);
    let mut sent = Vec::new();
    for i in 0..300u32 {
        sent.extend(pair.send(1));
        if i % 10 == 3 {
            let last = pair.wire.iter_mut().rfind(|(_, (_, d))| d[0] & 0x80 == 0);
            let (_, (_, datagram)) = last.unwrap();
            let at = datagram.len() - 30;
            datagram[at] ^= 0x10;
        }
    }
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.got, sent);
    let stats = pair.received();
    assert_eq!(stats.pkt_rcv_undecrypt, 30);
    assert_eq!(stats.pkt_rcv_drop, 0);
    pair.add_up();
}

#[test]
fn both_directions_refresh_on_their_own() {
    for gcm in [false, true] {
        let config = refreshing(150, 40);
        let mut pair = secured(CLEAN, 77, config, KeyLength::Aes128, gcm);
        pair.none = SlotRing::with_owned_chunks(100);
        let (mut sent, mut returned, mut came_back) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..1000u32 {
            // The listener sends as well, at half the pace.
            if i % 2 == 0 {
                let payload = i.to_le_bytes().repeat(40);
                let now = pair.now;
                pair.listener.as_mut().unwrap().send(now, &payload).unwrap();
                returned.push(payload);
            }
            sent.extend(pair.send(1));
        }
        pair.run(Duration::from_secs(1));
        while let Some(delivery) = pair.caller.poll_delivery(pair.now, &pair.none) {
            came_back.push(pair.none.get(delivery.slot).unwrap().payload.to_vec());
        }
        assert_eq!(pair.got, sent);
        assert_eq!(came_back, returned);
        let (caller, listener) = (pair.caller.statistics(), pair.received());
        // Sent keys and received ones of either side.
        assert_eq!(caller.km_refreshes, listener.km_refreshes);
        assert!(caller.km_refreshes >= 6 + 3, "{}", caller.km_refreshes);
        assert_eq!(caller.pkt_rcv_undecrypt + listener.pkt_rcv_undecrypt, 0);
    }
}

#[test]
fn a_datagram_from_elsewhere_proves_the_peer_by_what_it_decrypts_to() {
    for gcm in [false, true] {
        let mut pair = secured(CLEAN, 77, Config::default(), KeyLength::Aes256, gcm);
        let mut packet = [0x55; 1316];
        packet.chunks_mut(188).for_each(|p| p[0] = 0x47);
        pair.caller.send(pair.now, &packet).unwrap();
        pair.drain();
        let datagram = encrypted_data(&pair)[0].clone();
        let good = if gcm {
            Proof::Authentic
        } else {
            Proof::Decrypts
        };
        let listener = pair.listener.as_ref().unwrap();
        assert_eq!(listener.proves_peer(&datagram), good);
        let clear = pair.data(77, 0);
        assert_eq!(listener.proves_peer(&clear), Proof::None);
        // Any change of the header, or of what is encrypted, ends it.
        for at in [3, 12, 15, 17] {
            let mut bad = datagram.clone();
            bad[at] ^= 1;
            let proof = listener.proves_peer(&bad);
            assert!(proof == Proof::None || (at == 17 && !gcm), "{at}");
        }
        for len in 0..40 {
            assert_eq!(listener.proves_peer(&datagram[..len]), Proof::None);
        }
        pair.run(Duration::from_millis(200));
        assert_eq!(pair.got, [packet.to_vec()]);
        // A clear connection cannot tell.
        let clear = super::pair::connected(Config::default());
        let datagram = clear.data(1000, 0);
        assert_eq!(
            clear.listener.as_ref().unwrap().proves_peer(&datagram),
            Proof::None
        );
    }
}

#[test]
fn a_peer_that_moves_is_followed_by_what_its_keys_encrypted_and_nobody_else() {
    for gcm in [false, true] {
        let mut pair = secured(CLEAN, 77, Config::default(), KeyLength::Aes128, gcm);
        let mut packet = [0x55; 1316];
        packet.chunks_mut(188).for_each(|p| p[0] = 0x47);
        pair.run(Duration::from_millis(300));
        pair.caller.send(pair.now, &packet).unwrap();
        let mut out = [0; 1500];
        let len = pair.caller.poll_transmit(pair.now, &mut out).unwrap();
        let genuine = out[..len].to_vec();
        let (now, from) = (pair.now, "203.0.113.9:1".parse().unwrap());
        let forged = [
            pair.data(77, 0),
            pair.data(77, 1 << 27),
            [&genuine[..16], &[0x47; 1316][..]].concat(),
        ];
        let listener = pair.listener.as_mut().unwrap();
        for datagram in forged {
            assert!(!listener.try_rebind(now, now, from, &datagram));
        }
        assert!(listener.try_rebind(now, now, from, &genuine));
        assert_eq!(pair.inject(&genuine), Ok(()));
        // A copy of what has been received proves nothing.
        pair.now += Duration::from_secs(1);
        let now = pair.now;
        let listener = pair.listener.as_mut().unwrap();
        let elsewhere = "203.0.113.10:1".parse().unwrap();
        assert!(!listener.try_rebind(now, now, elsewhere, &genuine));
    }
}

#[test]
fn a_key_that_is_to_be_announced_leaves_before_a_batch_of_data() {
    let config = Config {
        refresh_packets: 100,
        announce_packets: 40,
        ..Config::default()
    };
    let mut pair = secured(CLEAN, 77, config, KeyLength::Aes128, false);
    let mut out = vec![0; 65_000];
    let mut announced = 0;
    for _ in 0..90 {
        pair.caller.send(pair.now, &[0x47; 188]).unwrap();
        let run = pair.caller.poll_transmit_batch(pair.now, &mut out, 64);
        let (header, _) = Header::parse(&out[..run.unwrap().len]).unwrap();
        announced += u32::from(header.is_control());
    }
    assert_eq!(announced, 1);
}

#[test]
fn a_connection_shows_no_key_in_debug() {
    let pair = secured(CLEAN, 77, Config::default(), KeyLength::Aes256, true);
    let shown = format!("{:?} {:?}", pair.caller, pair.listener);
    assert!(shown.contains("Secret(..)") && shown.contains("GcmKey(..)"));
    assert!(!shown.contains("correct horse"));
}

#[test]
fn retransmissions_are_the_same_ciphertext() {
    let mut pair = secured(CLEAN, 77, Config::default(), KeyLength::Aes128, true);
    pair.caller.send(pair.now, &[1; 500]).unwrap();
    pair.drain();
    let first = encrypted_data(&pair)[0].clone();
    pair.wire.clear();
    for _ in 0..3 {
        pair.send(1);
    }
    let mut again = None;
    for _ in 0..400 {
        pair.tick();
        again = again.or_else(|| {
            encrypted_data(&pair)
                .into_iter()
                .find(|d| d[..4] == first[..4])
                .cloned()
        });
    }
    let mut again = again.unwrap();
    assert_eq!(again[4] & 4, 4, "marked as retransmitted");
    again[4] &= !4;
    assert_eq!(again, first);
}
