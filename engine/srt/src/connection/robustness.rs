//! Named tests of the rules that protect a connection (spec section 22), and random datagrams.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use super::pair::{CALLER, CLEAN, Pair, address, connected};
use super::*;
use crate::packet::Control;
use crate::test_support::{Random, capture};
use crate::{HandshakeAction, Handshaker};
use mirror_base::Discard;

#[test]
fn runts_and_short_control_packets_are_discarded() {
    let mut pair = connected(Config::default());
    for len in 0..16 {
        assert_eq!(pair.inject(&vec![0x80; len]), Err(Discard::Runt));
    }
    for (control, words) in [
        (Control::Ack, 0),
        (Control::Nak, 0),
        (Control::DropRequest, 0),
        (Control::DropRequest, 1),
    ] {
        let packet = pair.control(control, 0, &vec![5; words]);
        assert_eq!(
            pair.inject(&packet),
            Err(Discard::MalformedControl),
            "{control:?}"
        );
    }
    let unknown = pair.control(Control::Unknown, 0, &[]);
    assert_eq!(pair.inject(&unknown), Err(Discard::UnknownControl));
    for control in [Control::Keepalive, Control::PeerError, Control::Extension] {
        let packet = pair.control(control, 0, &[]);
        assert_eq!(pair.inject(&packet), Ok(()));
    }
}

#[test]
fn acks_and_naks_of_what_was_never_sent_are_implausible() {
    let mut pair = connected(Config::default());
    let listener = pair.listener.as_mut().unwrap();
    for _ in 0..10 {
        listener.send(pair.now, b"to the caller").unwrap();
    }
    pair.tick();
    let ahead = pair.control(Control::Ack, 1, &[1011, 0, 0, 8000]);
    assert_eq!(pair.inject(&ahead), Err(Discard::Implausible));
    let behind = pair.control(Control::Ack, 1, &[999]);
    assert_eq!(pair.inject(&behind), Err(Discard::Implausible));
    for list in [
        vec![1010],
        vec![0x8000_0000 | 1005, 1010],
        vec![0x8000_0000 | 1000, 0x3FFF_0000],
    ] {
        let nak = pair.control(Control::Nak, 0, &list);
        assert_eq!(pair.inject(&nak), Err(Discard::Implausible), "{list:?}");
    }
    let cut = pair.control(Control::Nak, 0, &[1003, 0x8000_0000 | 1004]);
    assert_eq!(pair.inject(&cut), Err(Discard::MalformedControl));
    let listener = pair.listener.as_ref().unwrap();
    assert_eq!(
        listener.statistics().pkt_snd_loss,
        0,
        "nothing of a bad list is used"
    );
    let ackack = pair.control(Control::AckAck, 4711, &[0]);
    assert_eq!(pair.inject(&ackack), Err(Discard::Implausible));
    let good = pair.control(Control::Nak, 0, &[1003, 0x8000_0000 | 1005, 1006]);
    assert_eq!(pair.inject(&good), Ok(()));
    assert_eq!(pair.received().pkt_snd_loss, 3);
}

#[test]
fn a_stale_nak_is_answered_with_a_drop_request() {
    let mut pair = connected(Config::default());
    for _ in 0..10 {
        pair.listener
            .as_mut()
            .unwrap()
            .send(pair.now, b"x")
            .unwrap();
    }
    pair.tick();
    let ack = pair.control(Control::Ack, 1, &[1008, 0, 0, 8000]);
    pair.inject(&ack).unwrap();
    let nak = pair.control(Control::Nak, 0, &[0x8000_0000 | 1005, 1008]);
    pair.inject(&nak).unwrap();
    let listener = pair.listener.as_mut().unwrap();
    let mut out = [0; 1500];
    let mut seen = Vec::new();
    while let Some(len) = listener.poll_transmit(pair.now, &mut out) {
        seen.push(out[..len].to_vec());
    }
    let drop = seen.iter().find(|d| d[..2] == [0x80, 7]).unwrap();
    assert_eq!(drop[16..], [0, 0, 3, 0xED, 0, 0, 3, 0xEF]);
}

#[test]
fn a_gap_beyond_the_window_is_refused_and_not_acknowledged() {
    let mut pair = connected(Config::default());
    let first = pair.data(1000, 0);
    pair.inject(&first).unwrap();
    let far = pair.data(1000 + 30_000, 0);
    assert_eq!(pair.inject(&far), Err(Discard::BeyondWindow));
    let half = pair.data(0x4000_0000, 0);
    assert_eq!(pair.inject(&half), Err(Discard::BeyondWindow));
    let stats = pair.received();
    assert_eq!((stats.pkt_rcv_loss, stats.pkt_rcv_refused), (0, 2));
    pair.add_up();
}

#[test]
fn a_run_beyond_the_window_is_followed_when_nothing_is_held() {
    let mut pair = connected(Config::default());
    let first = pair.data(1000, 0);
    pair.inject(&first).unwrap();
    pair.run(Duration::from_millis(200));
    let results: Vec<_> = (0..3)
        .map(|i| {
            let packet = pair.data(500_000 + i, 0);
            pair.inject(&packet)
        })
        .collect();
    assert_eq!(results, [Err(Discard::BeyondWindow), Ok(()), Ok(())]);
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.got.len(), 3);
    assert_eq!(pair.lost, 500_001 - 1001);
    pair.add_up();
}

#[test]
fn packets_that_cannot_be_decrypted_are_acknowledged_and_skipped() {
    let mut pair = connected(Config::default());
    for (sequence, flags) in [(1000, 0), (1001, 1 << 27), (1002, 0)] {
        let packet = pair.data(sequence, flags);
        let expected = if flags == 0 {
            Ok(())
        } else {
            Err(Discard::Undecryptable)
        };
        assert_eq!(pair.inject(&packet), expected);
    }
    let both = pair.data(1003, 3 << 27);
    assert_eq!(pair.inject(&both), Err(Discard::MalformedData));
    pair.run(Duration::from_millis(200));
    assert_eq!((pair.got.len(), pair.lost), (2, 1));
    let stats = pair.received();
    assert_eq!(
        (
            stats.pkt_rcv_undecrypt,
            stats.pkt_rcv_drop,
            stats.pkt_sent_nak
        ),
        (1, 1, 0)
    );
    pair.add_up();
}

#[test]
fn message_number_0_is_data_like_any_other_where_no_filter_was_agreed() {
    let mut pair = connected(Config::default());
    // In order, ahead and into the gap.
    for sequence in [1000, 1002, 1001] {
        let mut packet = pair.data(sequence, 0);
        packet[4..8].copy_from_slice(&(0b11_u32 << 30).to_be_bytes());
        assert_eq!(pair.inject(&packet), Ok(()));
    }
    pair.run(Duration::from_millis(200));
    assert_eq!((pair.got.len(), pair.lost), (3, 0));
    pair.add_up();
}

#[test]
fn a_drop_request_ends_the_asking_and_moves_the_acknowledgement() {
    let mut pair = connected(Config {
        latency: Duration::from_millis(500),
        ..Config::default()
    });
    for sequence in [1000, 1010] {
        let packet = pair.data(sequence, 0);
        pair.inject(&packet).unwrap();
    }
    let beyond = pair.control(Control::DropRequest, 0, &[1001, 0x2000_0000]);
    assert_eq!(pair.inject(&beyond), Err(Discard::Implausible));
    let backwards = pair.control(Control::DropRequest, 0, &[1009, 1001]);
    assert_eq!(pair.inject(&backwards), Err(Discard::MalformedControl));
    let good = pair.control(Control::DropRequest, 0, &[1001, 1009]);
    assert_eq!(pair.inject(&good), Ok(()));
    let receiver = &pair.listener.as_ref().unwrap().receiver;
    assert_eq!(receiver.light_ack_sequence().get(), 1011);
    pair.run(Duration::from_millis(600));
    assert_eq!((pair.got.len(), pair.lost), (2, 9));
    // One that reaches beyond everything received: the jump is no loss.
    let jump = pair.control(Control::DropRequest, 0, &[1011, 1020]);
    pair.inject(&jump).unwrap();
    let next = pair.data(1021, 0);
    pair.inject(&next).unwrap();
    pair.run(Duration::from_millis(600));
    assert_eq!(
        (pair.got.len(), pair.lost, pair.received().pkt_rcv_loss),
        (3, 19, 9)
    );
    pair.add_up();
}

#[test]
fn drop_requests_and_undecryptable_packets_cannot_move_beyond_two_windows() {
    let mut pair = connected(Config {
        latency: Duration::from_secs(2),
        ..Config::default()
    });
    let first = pair.data(1000, 0);
    pair.inject(&first).unwrap();
    let mut next = 1001;
    let mut refused = 0;
    for i in 0..100 {
        let packet = if i % 2 == 0 {
            pair.control(Control::DropRequest, 0, &[next, next + 20_000])
        } else {
            pair.data(next + 20_000, 1 << 27)
        };
        match pair.inject(&packet) {
            Ok(()) | Err(Discard::Undecryptable) => next += 20_001,
            Err(Discard::Implausible | Discard::BeyondWindow) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        next <= 1001 + 2 * 25_600 && refused == 98,
        "{next} {refused}"
    );
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.got.len(), 1);
    pair.add_up();
}

#[test]
fn a_forged_timestamp_holds_nothing_longer_than_the_clamp() {
    let mut pair = connected(Config::default());
    let mut packet = pair.data(1000, 0);
    packet[8..12].copy_from_slice(&0xF000_0000_u32.to_be_bytes());
    pair.inject(&packet).unwrap();
    pair.run(Duration::from_millis(5_200));
    assert_eq!(pair.got.len(), 1);
}

#[test]
fn alternating_losses_fill_a_bounded_list() {
    let mut pair = connected(Config::default());
    for i in 0..4700 {
        let packet = pair.data(1000 + 2 * i, 0);
        let _ = pair.inject(&packet);
    }
    let mut out = [0; 1500];
    let listener = pair.listener.as_mut().unwrap();
    while let Some(len) = listener.poll_transmit(pair.now, &mut out) {
        assert!(len <= 1472);
    }
    pair.add_up();
}

#[test]
fn random_and_mutated_datagrams_never_panic_and_counters_add_up() {
    for seed in 1..=8 {
        let mut pair = Pair::new(seed, CLEAN, 0x7FFF_FF00, Config::default());
        pair.connect();
        let mut random = Random(seed * 77);
        let mut samples: Vec<Vec<u8>> = capture("srt30_loss_nak_rexmit_rcvleg")
            .into_iter()
            .map(|f| f.datagram)
            .collect();
        samples.push(pair.control(Control::DropRequest, 0, &[0x7FFF_FF01, 0x7FFF_FF09]));
        for _ in 0..12_000 {
            let mut datagram = samples[random.below(samples.len() as u64) as usize].clone();
            if datagram[0] < 0x80 && random.per_mille(900) {
                // Data near the expected numbers goes deep.
                let near = 0x7FFF_FF00u32.wrapping_add(random.below(4000) as u32) & 0x7FFF_FFFF;
                datagram[..4].copy_from_slice(&near.to_be_bytes());
            }
            if datagram[0..2] == [0x80, 5] && random.per_mille(995) {
                continue;
            }
            for _ in 0..random.below(4) {
                let at = random.below(datagram.len() as u64) as usize;
                datagram[at] ^= 1 << random.below(8);
            }
            if random.per_mille(50) {
                datagram.truncate(random.below(datagram.len() as u64) as usize);
            }
            if random.per_mille(20) {
                let len = random.below(1500) as usize;
                datagram = random.bytes(len);
            }
            if random.per_mille(500) {
                let _ = pair.inject(&datagram);
            } else {
                let _ = pair
                    .caller
                    .handle_datagram(pair.now, pair.now, &datagram, &mut pair.none);
                let _ = pair.caller.send(pair.now, b"on");
            }
            if random.per_mille(300) {
                pair.tick();
            }
        }
        pair.run(Duration::from_secs(8));
        pair.add_up();
        assert_eq!(pair.received().pkt_rcv_buf, 0, "seed {seed}");
    }
}

/// One control packet of a peer that wants the worst, about numbers near `base`.
fn hostile(pair: &Pair, random: &mut Random, base: u32) -> Vec<u8> {
    let near = |random: &mut Random| base.wrapping_add(random.below(6000) as u32) & 0x7FFF_FFFF;
    let few = |random: &mut Random| [0, 1, 2, 40, u32::MAX][random.below(5) as usize];
    let (first, more) = (near(random), random.below(8) as u32);
    match random.below(9) {
        0 => {
            let words = [first, few(random), few(random), few(random), 9, 9];
            pair.control(Control::Ack, random.below(9) as u32, &words)
        }
        1 => pair.control(Control::Ack, 0, &[first]),
        2..=3 => {
            // Each second packet of many.
            let words: Vec<u32> = (0..300).map(|i| first.wrapping_add(2 * i)).collect();
            let words: Vec<u32> = words.iter().map(|word| word & 0x7FFF_FFFF).collect();
            pair.control(Control::Nak, 0, &words)
        }
        4 => pair.control(
            Control::Nak,
            0,
            &[first | 1 << 31, (first + more) & 0x7FFF_FFFF],
        ),
        5 => pair.control(
            Control::DropRequest,
            0,
            &[first, (first + more) & 0x7FFF_FFFF],
        ),
        6 => pair.control(Control::CongestionWarning, 0, &[0]),
        7 => pair.control(Control::AckAck, random.below(300) as u32, &[0]),
        _ => pair.control(Control::Keepalive, 0, &[0]),
    }
}

#[test]
fn whatever_a_peer_sends_no_timer_spins_and_figures_add_up() {
    for seed in 1..=40 {
        let mut random = Random(seed * 131);
        let config = Config {
            max_bandwidth: [0, 20_000, 400_000][random.below(3) as usize],
            loss_max_ttl: [0, 3, 200][random.below(3) as usize],
            latency: Duration::from_millis([0, 20, 120, 900][random.below(4) as usize]),
            send_drop_delay: [None, Some(Duration::ZERO)][random.below(2) as usize],
            ..Config::default()
        };
        let base = 0x7FFF_FC00;
        let mut pair = Pair::new(seed, CLEAN, base, config);
        pair.connect();
        let naks = random.below(2) == 0;
        pair.caller.sender.repeats_naks(naks);
        for _ in 0..4000 {
            let packet = if random.per_mille(600) {
                let ahead = [1, 40, 3000, 30_000][random.below(4) as usize];
                let at = base.wrapping_add(pair.slots as u32 + random.below(ahead) as u32);
                let mut packet = pair.data(at & 0x7FFF_FFFF, (random.below(40) as u32 / 39) << 27);
                packet[4] |= (random.below(2) as u8) << 2;
                packet
            } else {
                hostile(&pair, &mut random, base)
            };
            let (now, none) = (pair.now, &mut pair.none);
            if random.per_mille(500) {
                let _ = pair.caller.handle_datagram(now, now, &packet, none);
            } else {
                let _ = pair.inject(&packet);
            }
            for _ in 0..random.below(4) {
                let _ = pair.caller.send(pair.now, b"on");
            }
            if random.per_mille(400) {
                pair.tick();
            }
            if random.per_mille(2) {
                pair.run(Duration::from_millis(random.below(1500)));
            }
        }
        pair.run(Duration::from_secs(8));
        let stats = pair.received();
        assert_eq!(
            stats.pkt_recv_unique,
            stats.pkt_delivered + stats.pkt_rcv_buf
        );
        assert_eq!(stats.pkt_rcv_buf, 0, "seed {seed}");
    }
}

/// A caller's request as it leaves, and a listener that has never heard of it.
fn caller_and_listener() -> (Connection, Handshaker, Instant) {
    let now = Instant::from_millis(700_000);
    let config = Config::default();
    let initial = PacketSequenceNumber::new(1000);
    let caller = Connection::connect(now, address(), CALLER, initial, "a", &config, 0, None);
    (caller, Handshaker::new(config, [9; 16]), now)
}

#[test]
fn an_induction_leaves_nothing_behind() {
    let (mut caller, mut handshaker, now) = caller_and_listener();
    let mut out = [0; 1500];
    let len = caller.poll_transmit(now, &mut out).unwrap();
    let induction = out[..len].to_vec();
    let before = format!("{handshaker:?}");
    for port in 1..2000 {
        let peer = SocketAddr::new(address().ip(), port);
        let answer = handshaker.handle_datagram(now, peer, &induction, &mut out);
        // Nor is the answer longer than the question: a spoofed one amplifies nothing.
        assert!(matches!(answer, Ok(HandshakeAction::Reply(n)) if n <= len));
    }
    assert_eq!(format!("{handshaker:?}"), before);
}

#[test]
fn a_conclusion_with_a_bad_cookie_is_dropped_before_its_blocks_are_looked_at() {
    let (mut caller, mut handshaker, now) = caller_and_listener();
    let mut out = [0; 1500];
    let len = caller.poll_transmit(now, &mut out).unwrap();
    let mut conclusion = out[..len].to_vec();
    conclusion[16..20].copy_from_slice(&5_u32.to_be_bytes());
    conclusion[36..40].fill(0xFF);
    conclusion[44..48].copy_from_slice(&0xBAD_u32.to_be_bytes());
    // A block that runs past the end would be answered with ROGUE.
    conclusion.extend([0, 5, 0xFF, 0xFF]);
    let answer = handshaker.handle_datagram(now, address(), &conclusion, &mut out);
    assert!(matches!(answer, Err(Discard::BadCookie)));
}

#[test]
fn a_handshake_longer_than_a_packet_is_dropped() {
    let (mut caller, mut handshaker, now) = caller_and_listener();
    let mut out = [0; 1500];
    let len = caller.poll_transmit(now, &mut out).unwrap();
    let mut long = out[..len].to_vec();
    long.resize(1501, 0);
    let answer = handshaker.handle_datagram(now, address(), &long, &mut out);
    assert!(matches!(answer, Err(Discard::TooLong)));
}

#[test]
fn data_and_control_before_the_handshake_is_complete_do_nothing() {
    let mut pair = Pair::new(1, CLEAN, 1000, Config::default());
    let mut datagrams = vec![pair.data(1000, 0)];
    for control in [
        Control::Ack,
        Control::Nak,
        Control::AckAck,
        Control::Keepalive,
    ] {
        datagrams.push(pair.control(control, 1, &[1000]));
    }
    for datagram in datagrams {
        let answer = pair
            .caller
            .handle_datagram(pair.now, pair.now, &datagram, &mut pair.none);
        assert_eq!(answer, Err(Discard::HandshakePending));
    }
    pair.connect();
}

#[test]
fn an_ack_from_the_past_takes_nothing_back() {
    let mut pair = connected(Config::default());
    let listener = pair.listener.as_mut().unwrap();
    for _ in 0..10 {
        listener.send(pair.now, b"x").unwrap();
    }
    pair.tick();
    for (sequence, available) in [(1008, 8000), (1003, 1)] {
        let ack = pair.control(Control::Ack, 1, &[sequence, 10_000, 1_000, available]);
        assert_eq!(pair.inject(&ack), Ok(()));
    }
    let stats = pair.received();
    assert_eq!((stats.pkt_snd_buf, stats.pkt_flow_window), (2, 8000));
}

#[test]
fn extreme_values_of_an_ack_are_bounded() {
    let mut pair = connected(Config::default());
    pair.listener
        .as_mut()
        .unwrap()
        .send(pair.now, b"x")
        .unwrap();
    pair.tick();
    let extreme = pair.control(
        Control::Ack,
        1,
        &[1001, u32::MAX, u32::MAX, u32::MAX, 0, u32::MAX],
    );
    assert_eq!(pair.inject(&extreme), Ok(()));
    let stats = pair.received();
    assert!(stats.pkt_flow_window <= 1 << 20 && stats.rtt_us <= 10_000_000);
    // Which does not put off repairs for ever.
    pair.run(Duration::from_millis(50));
}

#[test]
fn a_duplicate_counts_and_changes_nothing() {
    let mut pair = connected(Config::default());
    let packet = pair.data(1000, 0);
    assert_eq!(pair.inject(&packet), Ok(()));
    assert_eq!(pair.inject(&packet), Err(Discard::Duplicate));
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.inject(&packet), Err(Discard::Belated));
    let stats = pair.received();
    assert_eq!((stats.pkt_rcv_duplicate, stats.pkt_rcv_belated), (1, 1));
    assert_eq!(pair.got.len(), 1);
    pair.add_up();
}

#[test]
fn a_flood_of_acks_is_confirmed_within_bounds() {
    let mut pair = connected(Config::default());
    pair.listener
        .as_mut()
        .unwrap()
        .send(pair.now, b"x")
        .unwrap();
    pair.tick();
    for number in 1..10_000 {
        let ack = pair.control(Control::Ack, number, &[1001, 10_000, 1_000, 8000]);
        assert_eq!(pair.inject(&ack), Ok(()));
    }
    let mut out = [0; 1500];
    let mut answers = 0;
    while pair
        .listener
        .as_mut()
        .unwrap()
        .poll_transmit(pair.now, &mut out)
        .is_some()
    {
        answers += 1;
    }
    assert!(answers <= MAX_ACKACKS, "{answers}");
}
