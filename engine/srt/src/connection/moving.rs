//! The peer's address changes, and others claim that it did.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::pair::{LISTENER, Pair, Path, TICK, address, connected};
use super::*;
use crate::packet::Control;
use crate::test_support::Random;
use mirror_base::Discard;

fn elsewhere(port: u16) -> SocketAddr {
    SocketAddr::new("203.0.113.9".parse().unwrap(), port)
}

/// A pair whose caller has sent 100 packets and then been silent for `silence_ms`.
fn paused(silence_ms: u64) -> Pair {
    let mut pair = connected(Config::default());
    pair.send(100);
    pair.run(Duration::from_millis(15));
    let listener = pair.listener.as_ref().unwrap();
    pair.now = pair.now.max(listener.last_heard()) + Duration::from_millis(silence_ms);
    pair
}

fn claims(pair: &mut Pair, from: SocketAddr, datagram: &[u8]) -> bool {
    let now = pair.now;
    let listener = pair.listener.as_mut().unwrap();
    listener.try_rebind(now, now, from, datagram)
}

#[test]
fn the_next_packet_from_a_new_address_is_followed_once_the_old_one_is_silent() {
    let mut pair = paused(250);
    let next = pair.data(1100, 0);
    assert!(claims(&mut pair, elsewhere(1), &next));
    assert_eq!(pair.listener.as_ref().unwrap().peer(), elsewhere(1));
    assert_eq!(pair.inject(&next), Ok(()));
    assert_eq!(pair.received().peer_moves, 1);
}

#[test]
fn after_a_short_silence_several_proofs_in_a_row_are_needed() {
    let mut pair = paused(30);
    let packets: Vec<_> = (0..4).map(|i| pair.data(1100 + i, 0)).collect();
    assert!(!claims(&mut pair, elsewhere(1), &packets[0]));
    assert!(!claims(&mut pair, elsewhere(1), &packets[0]), "the same");
    assert!(!claims(&mut pair, elsewhere(1), &packets[1]));
    assert!(!claims(&mut pair, elsewhere(2), &packets[2]), "another");
    assert!(!claims(&mut pair, elsewhere(1), &packets[0]));
    assert!(!claims(&mut pair, elsewhere(1), &packets[1]));
    assert!(claims(&mut pair, elsewhere(1), &packets[2]));
}

#[test]
fn two_packets_by_turns_are_not_three_proofs() {
    let mut pair = paused(30);
    for i in 0..20 {
        let copy = pair.data(1100 + i % 2, 0);
        assert!(!claims(&mut pair, elsewhere(1), &copy), "{i}");
    }
    let third = pair.data(1102, 0);
    assert!(claims(&mut pair, elsewhere(1), &third));
}

#[test]
fn silence_is_measured_on_the_wire_and_not_by_when_we_come_to_it() {
    let mut pair = paused(1);
    // We are held up for a second; a copy stands in the queue before what it was copied from.
    let arrival = pair.now;
    let copies: Vec<_> = (0..5).map(|i| pair.data(1100 + i, 0)).collect();
    pair.now += Duration::from_secs(1);
    let now = pair.now;
    let listener = pair.listener.as_mut().unwrap();
    for copy in &copies {
        assert!(!listener.try_rebind(now, arrival, elsewhere(1), copy));
    }
}

#[test]
fn a_session_that_is_alive_cannot_be_taken_over() {
    let mut pair = connected(Config::default());
    for i in 0..400 {
        pair.send(1);
        let forged = pair.data(1001 + i + 20, 0);
        assert!(!claims(&mut pair, elsewhere(1), &forged));
    }
    // A packet of the old address between them undoes the proofs so far.
    let mut pair = paused(30);
    for i in 0..2 {
        let forged = pair.data(1100 + i, 0);
        assert!(!claims(&mut pair, elsewhere(1), &forged));
    }
    let genuine = pair.data(1100, 0);
    pair.inject(&genuine).unwrap();
    pair.now += Duration::from_millis(30);
    let forged = pair.data(1102, 0);
    assert!(!claims(&mut pair, elsewhere(1), &forged));
}

#[test]
fn control_packets_from_elsewhere_prove_nothing() {
    let mut pair = paused(3000);
    for (control, word1, words) in [
        (Control::Shutdown, 0, vec![0]),
        (Control::Ack, 1, vec![1000, 1, 1, 8000]),
        (Control::Nak, 0, vec![1000]),
        (Control::AckAck, 1, vec![0]),
        (Control::Keepalive, 0, vec![0]),
        (Control::DropRequest, 0, vec![1100, 1200]),
        (Control::Handshake, 0, vec![5; 12]),
        (Control::Extension, 0, vec![0; 3]),
        (Control::CongestionWarning, 0, vec![0]),
        (Control::PeerError, 4000, vec![0]),
    ] {
        let packet = pair.control(control, word1, &words);
        assert!(!claims(&mut pair, elsewhere(1), &packet), "{control:?}");
    }
}

#[test]
fn data_that_does_not_continue_the_stream_proves_nothing() {
    let mut pair = paused(3000);
    let refused = |pair: &mut Pair, datagram: &[u8], what: &str| {
        assert!(!claims(pair, elsewhere(1), datagram), "{what}");
    };
    let old = pair.data(1050, 0);
    refused(&mut pair, &old, "delivered long ago");
    let far = pair.data(1100 + 25_600, 0);
    refused(&mut pair, &far, "beyond the window");
    let encrypted = pair.data(1100, 1 << 27);
    refused(&mut pair, &encrypted, "encryption was not agreed");
    let both = pair.data(1100, 3 << 27);
    refused(&mut pair, &both, "no data packet has both keys");
    for shift in [-4_000_000_i32, 2_000_000, i32::MIN] {
        let mut packet = pair.data(1100, 0);
        let clock = pair.clock().wrapping_add_signed(shift);
        packet[8..12].copy_from_slice(&clock.to_be_bytes());
        refused(&mut pair, &packet, "not the peer's time");
    }
    let mut other = pair.data(1100, 0);
    other[12..16].copy_from_slice(&(LISTENER + 1).to_be_bytes());
    refused(&mut pair, &other, "another socket's");
    refused(&mut pair, &[0; 15], "runt");
    // Nor does anything once the connection is over.
    let shutdown = pair.control(Control::Shutdown, 0, &[0]);
    pair.inject(&shutdown).unwrap();
    let next = pair.data(1100, 0);
    refused(&mut pair, &next, "closed");
    assert_eq!(pair.inject(&next), Err(Discard::Closed));
    assert_eq!(pair.received().peer_moves, 0);
}

#[test]
fn a_nat_that_changes_its_mapping_costs_no_packet() {
    for seed in 1..=10 {
        let path = Path {
            delay_us: 10_000,
            jitter_us: 3_000,
            loss_per_mille: 20,
            duplicates_per_mille: 10,
        };
        let config = Config {
            latency: Duration::from_millis(400),
            ..Config::default()
        };
        let mut pair = Pair::new(seed, path, 1000, config);
        pair.connect();
        let mut sent = Vec::new();
        for port in 1..=4 {
            sent.extend(pair.send(600));
            pair.caller_address = elsewhere(port);
        }
        sent.extend(pair.send(600));
        pair.path.loss_per_mille = 0;
        pair.run(Duration::from_secs(1));
        assert!(pair.got == sent, "seed {seed}");
        let stats = pair.received();
        assert_eq!((stats.peer_moves, stats.pkt_rcv_drop), (4, 0));
        assert_eq!(pair.listener.as_ref().unwrap().peer(), elsewhere(4));
        pair.add_up();
    }
}

#[test]
fn a_peer_that_sends_little_is_followed_too() {
    let mut pair = connected(Config::default());
    for i in 0..20 {
        if i == 10 {
            pair.caller_address = elsewhere(1);
        }
        pair.send(1);
        pair.run(Duration::from_millis(300));
    }
    assert_eq!(pair.got.len(), 20);
    assert_eq!(pair.received().peer_moves, 1);
}

/// A pair with a second of latency whose caller has sent 20 packets, of which 1005 and 1006 are
/// missing, and then nothing new any more; and the two retransmissions, as the caller sends them.
fn with_a_gap(mut pair: Pair) -> (Pair, Vec<Vec<u8>>) {
    let mut out = [0; 1500];
    let mut again = Vec::new();
    for sequence in 1000..1020_u32 {
        let mut packet = [0x55; 1316];
        packet.chunks_mut(188).for_each(|p| p[0] = 0x47);
        pair.caller.send(pair.now, &packet).unwrap();
        let len = pair.caller.poll_transmit(pair.now, &mut out).unwrap();
        if matches!(sequence, 1005 | 1006) {
            out[4] |= 4;
            again.push(out[..len].to_vec());
        } else {
            pair.inject(&out[..len]).unwrap();
        }
        pair.now += TICK;
    }
    (pair, again)
}

fn long_latency() -> Config {
    Config {
        latency: Duration::from_secs(1),
        ..Config::default()
    }
}

#[cfg(feature = "crypto")]
fn encrypted(cipher: crate::CipherPolicy) -> Pair {
    let passphrase = crate::Passphrase::new("behind another door").unwrap();
    let length = Some(crate::KeyLength::Aes128);
    let caller = CallerSecurity::new(&passphrase, length, cipher, true, [3; 32]);
    let policy = super::pair::Policy {
        passphrase: Some(passphrase),
        require: true,
        cipher,
    };
    let clean = super::pair::CLEAN;
    let mut pair = Pair::with_security(1, clean, 1000, long_latency(), Some(caller), policy);
    pair.connect();
    pair
}

/// Clear, AES-CTR and AES-GCM.
fn each_cipher() -> Vec<(Pair, Vec<Vec<u8>>)> {
    let mut pairs = vec![with_a_gap(connected(long_latency()))];
    #[cfg(feature = "crypto")]
    for cipher in [crate::CipherPolicy::Ctr, crate::CipherPolicy::Gcm] {
        pairs.push(with_a_gap(encrypted(cipher)));
    }
    pairs
}

#[test]
fn a_retransmission_of_what_is_missing_proves_as_much_as_a_new_packet() {
    for (mut pair, again) in each_cipher() {
        pair.now += Duration::from_millis(150);
        assert!(claims(&mut pair, elsewhere(1), &again[0]));
        assert_eq!(pair.inject(&again[0]), Ok(()));
        // What has come by now is missing no more, neither from here nor from elsewhere.
        pair.now += Duration::from_millis(150);
        assert!(!claims(&mut pair, elsewhere(2), &again[0]));
        assert!(claims(&mut pair, elsewhere(2), &again[1]));
    }
}

#[test]
fn a_peer_of_whom_only_a_few_retransmissions_come_and_then_a_keepalive_is_followed() {
    // Right behind the last packet from the old address, or somewhat later.
    for silence_ms in [0, 5, 40] {
        for (mut pair, again) in each_cipher() {
            pair.now += Duration::from_millis(silence_ms);
            for packet in &again {
                assert!(!claims(&mut pair, elsewhere(1), packet), "too early");
            }
            // Its source has paused: nothing but this comes any more.
            pair.now += Duration::from_secs(1);
            let keepalive = pair.control(Control::Keepalive, 0, &[0]);
            assert!(!claims(&mut pair, elsewhere(2), &keepalive), "who is that?");
            assert!(claims(&mut pair, elsewhere(1), &keepalive));
            assert_eq!(pair.inject(&keepalive), Ok(()));
            assert_eq!(pair.received().peer_moves, 1);
        }
    }
}

#[test]
fn a_keepalive_moves_nothing_without_a_proof_or_while_the_old_address_lives() {
    for (mut pair, again) in each_cipher() {
        let keepalive = pair.control(Control::Keepalive, 0, &[0]);
        // A copy of what was received is no proof, a second later either.
        let mut copy = again[0].clone();
        copy[..4].copy_from_slice(&1004_u32.to_be_bytes());
        pair.now += Duration::from_millis(40);
        assert!(!claims(&mut pair, elsewhere(1), &copy));
        pair.now += Duration::from_millis(60);
        assert!(!claims(&mut pair, elsewhere(1), &keepalive));
        // Nor is a control packet that comes too early behind a proof.
        let mut other = pair;
        other.now += Duration::from_millis(1);
        assert!(other.inject(&keepalive).is_ok(), "the old address is heard");
        assert!(!claims(&mut other, elsewhere(1), &again[0]));
        other.now += Duration::from_millis(60);
        assert!(!claims(&mut other, elsewhere(1), &keepalive));
        // The old address is heard once more: the proof was a copy.
        assert!(other.inject(&keepalive).is_ok());
        other.now += Duration::from_secs(1);
        let keepalive = other.control(Control::Keepalive, 0, &[0]);
        assert!(!claims(&mut other, elsewhere(1), &keepalive));
        assert_eq!(other.received().peer_moves, 0);
    }
}

#[test]
fn what_a_peer_keeps_for_ever_proves_it_however_old_it_is() {
    // Without too-late drop a gap is waited for, and asked for, until it is closed.
    let mut pair = connected(long_latency());
    pair.listener.as_mut().unwrap().receiver.never_drops();
    let (mut pair, again) = with_a_gap(pair);
    pair.now += Duration::from_secs(4);
    let mut ahead = again[0].clone();
    ahead[8..12].copy_from_slice(&(pair.clock() + 2_000_000).to_be_bytes());
    assert!(!claims(&mut pair, elsewhere(1), &ahead), "not sent yet");
    assert!(claims(&mut pair, elsewhere(1), &again[0]));
    assert_eq!(pair.inject(&again[0]), Ok(()));
}

/// Someone sees all that the caller sends, also what is lost on its way, and says it again from
/// elsewhere, `behind` the genuine packet, and some of it once more much later.
fn with_an_echo(seed: u64, behind: (u64, u64)) -> Pair {
    let mut random = Random(seed * 31);
    let path = Path {
        delay_us: 5_000,
        jitter_us: [0, 3_000][seed as usize % 2],
        loss_per_mille: [0, 20, 50][seed as usize % 3],
        duplicates_per_mille: 5,
    };
    let mut pair = Pair::new(seed, path, 0x7FFF_FF00, long_latency());
    pair.connect();
    pair.tapped = Some(Vec::new());
    let mut echoes: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut count = 0;
    let mut sent = Vec::new();
    for step in 0..3_000 + random.below(500) {
        // Bursts as of pictures, and pauses as of a source.
        if step % 40 < 8 && step % 1_000 < 600 {
            sent.extend(pair.send(1));
        } else {
            pair.tick();
        }
        let now = pair.now;
        for datagram in core::mem::take(pair.tapped.as_mut().unwrap()) {
            let late = Duration::from_micros(behind.0 + random.below(behind.1 - behind.0));
            echoes.insert((now + late, count), datagram.clone());
            count += 1;
            if random.below(20) == 0 {
                let at = now + Duration::from_millis(random.below(900));
                echoes.insert((at, count), datagram);
                count += 1;
            }
        }
        while let Some(entry) = echoes.first_entry().filter(|e| e.key().0 <= now) {
            let (_, datagram) = entry.remove_entry();
            let listener = pair.listener.as_mut().unwrap();
            let from = elsewhere(1);
            if listener.peer() == from || listener.try_rebind(now, now, from, &datagram) {
                let _ = listener.handle_datagram(now, now, &datagram, &mut pair.ring);
            }
            pair.drain();
        }
    }
    pair.tapped = None;
    pair.path.loss_per_mille = 0;
    for _ in 0..100 {
        sent.extend(pair.send(1));
    }
    pair.run(Duration::from_millis(2_500));
    assert!(pair.got == sent, "seed {seed}");
    let peer = pair.listener.as_ref().unwrap().peer();
    assert_eq!(peer, address(), "seed {seed}");
    pair
}

#[test]
fn who_repeats_what_it_sees_costs_nothing() {
    for seed in 1..=60 {
        // Later than it comes; and sooner, which takes the session over for a moment.
        for behind in [(6_000, 30_000), (1_000, 4_000)] {
            let pair = with_an_echo(seed, behind);
            let moves = pair.received().peer_moves;
            assert!(moves <= 6, "seed {seed}: {moves}");
            assert_eq!(pair.caller.statistics().pkt_snd_drop, 0, "seed {seed}");
        }
    }
}

#[test]
fn a_nat_that_wavers_is_followed_each_time() {
    let mut pair = connected(long_latency());
    let mut sent = pair.send(200);
    for round in 0..6 {
        // To another port and back; what was not acknowledged there comes again from here.
        pair.caller_address.set_port([6_000, 5_000][round % 2]);
        pair.path.loss_per_mille = 100;
        sent.extend(pair.send(150));
        pair.path.loss_per_mille = 0;
        sent.extend(pair.send(250));
    }
    pair.run(Duration::from_millis(1_500));
    assert!(pair.got == sent);
    assert_eq!(pair.received().pkt_rcv_drop, 0);
    assert_eq!(pair.received().peer_moves, 6);
}

#[test]
fn repetitions_from_the_port_that_was_left_do_not_make_its_host_distrusted() {
    let mut pair = paused(250);
    let next: Vec<_> = (0..9).map(|i| pair.data(1100 + i, 0)).collect();
    let mut other = address();
    other.set_port(6_000);
    for packet in &next[..6] {
        assert!(
            pair.listener.as_ref().unwrap().peer() == other || claims(&mut pair, other, packet)
        );
        pair.inject(packet).unwrap();
    }
    // Three of them come again from the port before: back there.
    assert!(!claims(&mut pair, address(), &next[3]));
    assert!(!claims(&mut pair, address(), &next[4]));
    assert!(claims(&mut pair, address(), &next[5]));
    // And on again, after as short a silence as ever.
    pair.now += Duration::from_millis(110);
    assert!(claims(&mut pair, other, &next[6]));
    assert_eq!(pair.received().peer_moves, 3);
}

/// A world of its own: path, latency, tolerance, pacing and first number drawn from the seed.
fn world(random: &mut Random, seed: u64) -> Pair {
    let delay_us = 300 + random.below(30_000);
    let jitter_us = random.below(3) * random.below(delay_us / 2 + 1);
    let path = Path {
        delay_us,
        jitter_us,
        loss_per_mille: [0, 10, 50, 100][random.below(4) as usize],
        duplicates_per_mille: random.below(30),
    };
    let round_trip_us = 2 * (delay_us + jitter_us);
    let config = Config {
        latency: Duration::from_micros(round_trip_us * 8 + 200_000),
        loss_max_ttl: [0, 0, 5, 50][random.below(4) as usize],
        max_bandwidth: [0, 0, 4_000_000][random.below(3) as usize],
        connect_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let initial = 0x7FFF_FFFF - random.below(3000) as u32;
    Pair::new(seed, path, initial, config)
}

#[test]
fn bursts_pauses_moves_and_losses_cost_nothing_that_the_latency_could_save() {
    for seed in 1..=60 {
        let mut random = Random(seed * 7919 + 1);
        let mut pair = world(&mut random, seed);
        pair.connect();
        let mut sent = Vec::new();
        for part in 1..=4 {
            sent.extend(pair.send(100 + random.below(500) as u32));
            if random.below(3) == 0 {
                pair.caller_address = elsewhere(part);
            }
            if random.below(3) == 0 {
                pair.run(Duration::from_millis(random.below(700)));
            }
        }
        pair.run(pair.config.latency + Duration::from_millis(1500));
        pair.add_up();
        assert!(pair.got == sent, "seed {seed}");
        assert!(pair.caller.is_sent(), "seed {seed}");
        pair.caller.close(pair.now);
        pair.run(Duration::from_secs(7));
        let listener = pair.listener.as_ref().unwrap();
        assert!(listener.is_drained(), "seed {seed}");
    }
}
