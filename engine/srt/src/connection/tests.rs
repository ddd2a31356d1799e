//! Two connections over a virtual network, and named tests of the rules that protect one
//! (spec section 22).

use super::pair::{CALLER, CLEAN, LISTENER, Pair, Path, TICK};
use super::*;
use crate::test_support::{Random, capture, sha256, vectors};

fn connected(config: Config) -> Pair {
    let mut pair = Pair::new(1, CLEAN, 1000, config);
    pair.connect();
    pair
}

#[test]
fn a_clean_path_delivers_everything_at_its_time_and_confirms_it() {
    let mut pair = connected(Config::default());
    let sent = pair.send(2000);
    pair.run(Duration::from_millis(300));
    assert_eq!(pair.got, sent);
    let stats = pair.received();
    assert_eq!(
        (stats.pkt_rcv_loss, stats.pkt_sent_nak, stats.pkt_rcv_drop),
        (0, 0, 0)
    );
    // One full ACK each 10 ms while data arrives.
    assert!(
        (98..=104).contains(&stats.pkt_sent_ack),
        "{}",
        stats.pkt_sent_ack
    );
    assert_eq!(stats.pkt_recv_ackack, stats.pkt_sent_ack);
    assert!((10_000..10_600).contains(&stats.rtt_us), "{}", stats.rtt_us);
    assert!(
        (1900..=2100).contains(&stats.recv_rate_pps),
        "{}",
        stats.recv_rate_pps
    );
    assert!(pair.caller.is_sent());
    let stats = pair.caller.statistics();
    assert_eq!(
        (stats.pkt_sent, stats.pkt_retrans, stats.pkt_snd_buf),
        (2000, 0, 0)
    );
    assert!((10_000..10_600).contains(&stats.rtt_us), "{}", stats.rtt_us);
    pair.add_up();
}

#[test]
fn a_lossy_reordering_doubling_path_delivers_everything_in_order() {
    for seed in 1..=12 {
        let path = Path {
            delay_us: 10_000,
            jitter_us: 3_000,
            loss_per_mille: 50,
            duplicates_per_mille: 30,
        };
        let config = Config {
            latency: Duration::from_millis(400),
            ..Config::default()
        };
        // The numbers wrap on the way.
        let mut pair = Pair::new(seed, path, 0x7FFF_FFFF - 500, config);
        pair.connect();
        let mut sent = pair.send(1500);
        pair.path = CLEAN;
        sent.extend(pair.send(200));
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.got.len(), sent.len(), "seed {seed}");
        assert!(pair.got == sent, "seed {seed}");
        pair.add_up();
        let stats = pair.received();
        assert!(stats.pkt_rcv_loss >= 40 && stats.pkt_rcv_reordered > 0);
        assert_eq!(stats.pkt_rcv_drop, 0);
        assert!(pair.caller.is_sent());
        pair.caller.close(pair.now);
        pair.run(Duration::from_millis(100));
        assert!(
            pair.events
                .contains(&Event::Closed(CloseReason::PeerShutdown)),
            "seed {seed}"
        );
        assert!(pair.caller.is_drained() && pair.listener.as_ref().unwrap().is_drained());
    }
}

#[test]
fn a_hopeless_path_costs_packets_but_neither_order_nor_the_connection() {
    let path = Path {
        delay_us: 30_000,
        jitter_us: 40_000,
        loss_per_mille: 300,
        duplicates_per_mille: 50,
    };
    let mut pair = Pair::new(
        5,
        path,
        7,
        Config {
            connect_timeout: Duration::from_secs(30),
            ..Config::default()
        },
    );
    pair.connect();
    let sent = pair.send(3000);
    pair.run(Duration::from_secs(2));
    pair.add_up();
    let stats = pair.received();
    assert!(stats.pkt_rcv_drop > 0);
    assert_eq!(
        stats.pkt_rcv_drop,
        pair.lost + u64::from(pair.listener.as_ref().unwrap().receiver.pending())
    );
    assert!(pair.got.len() as u64 + stats.pkt_rcv_drop <= sent.len() as u64);
    assert!(pair.got.len() > 2000);
    let numbers: Vec<u32> = pair
        .got
        .iter()
        .map(|p| u32::from_be_bytes(p[..4].try_into().unwrap()))
        .collect();
    assert!(numbers.is_sorted());
}

#[test]
fn data_that_overtakes_everything_is_accepted() {
    let mut pair = Pair::new(1, CLEAN, 1000, Config::default());
    while pair.listener.is_none() {
        pair.tick();
    }
    // The conclusion response has not arrived; a peer may send all the same.
    let first = pair.data(1000, 0);
    assert_eq!(pair.inject(&first), Ok(()));
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.got, [b"payload".to_vec()]);
}

#[test]
fn a_caller_repeats_its_requests_and_gives_up_at_its_timeout() {
    let path = Path {
        loss_per_mille: 1000,
        ..CLEAN
    };
    let mut pair = Pair::new(1, path, 1, Config::default());
    let start = pair.now;
    let mut requests = 0;
    while pair.events.is_empty() {
        pair.now += TICK;
        let mut out = [0; 1500];
        requests += u32::from(pair.caller.poll_transmit(pair.now, &mut out).is_some());
        if pair
            .caller
            .poll_timeout()
            .is_some_and(|due| due <= pair.now)
        {
            pair.caller.handle_timeout(pair.now, &mut pair.none);
        }
        pair.events.extend(pair.caller.poll_event());
    }
    assert_eq!(pair.events, [Event::Closed(CloseReason::ConnectTimeout)]);
    assert_eq!(pair.now - start, Duration::from_secs(3));
    assert_eq!(requests, 12);
    assert!(pair.caller.is_drained() && pair.caller.poll_timeout().is_none());
    assert_eq!(
        pair.caller.send(pair.now, b"x"),
        Err(SendError::NotConnected)
    );
}

#[test]
fn what_tsbpd_holds_is_delivered_after_a_shutdown() {
    let mut pair = connected(Config::default());
    let sent = pair.send(100);
    pair.caller.close(pair.now);
    pair.run(Duration::from_millis(20));
    let listener = pair.listener.as_ref().unwrap();
    assert!(
        pair.events
            .contains(&Event::Closed(CloseReason::PeerShutdown))
    );
    assert!(!listener.is_drained() && listener.statistics().pkt_rcv_buf > 0);
    let late = pair.data(1100, 0);
    assert_eq!(pair.inject(&late), Err(Discard::Closed));
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.got, sent);
    assert!(pair.listener.as_ref().unwrap().is_drained());
}

#[test]
fn an_idle_pair_stays_alive_by_keepalives() {
    let mut pair = connected(Config::default());
    pair.run(Duration::from_secs(12));
    assert_eq!(pair.events, [Event::Connected]);
}

#[test]
fn the_peers_clock_is_followed_over_the_wrap_of_timestamps() {
    let mut pair = connected(Config::default());
    // An encoder that has been up for 71 minutes when it connects: its clock wraps soon.
    let early = Duration::from_micros(u64::from(u32::MAX) - 1_000_000);
    pair.caller.start = pair.caller.start.saturating_sub(Duration::ZERO);
    let listener = pair.listener.as_mut().unwrap();
    let offset = early.as_micros() as u32;
    listener.receiver.time = TimeBase::new(pair.now, offset, Duration::from_millis(120));
    for i in 0..3000u32 {
        let ts = offset.wrapping_add(i * 1000);
        let at = pair.now + Duration::from_millis(u64::from(i));
        let header = Header {
            word0: 1000 + i,
            word1: super::pair::POSITION,
            timestamp: ts,
            destination: LISTENER,
        };
        let mut out = [0; 64];
        let mut writer = Writer::packet(&mut out, header);
        writer.u32(i);
        let len = writer.finish();
        let listener = pair.listener.as_mut().unwrap();
        listener
            .handle_datagram(at, at, &out[..len], &mut pair.ring)
            .unwrap();
        let mut due = Vec::new();
        while let Some(delivery) = listener.poll_delivery(at, &pair.ring) {
            due.push(at.micros_since(delivery.due));
        }
        pair.ring.release_before(listener.delivery_index());
        assert_eq!(due.len(), usize::from(i >= 120), "packet {i}");
        assert!(due.iter().all(|late| *late < 1000), "packet {i}: {due:?}");
    }
}

#[test]
fn a_gap_is_reported_at_once_and_again_while_it_lasts() {
    let mut pair = connected(Config {
        latency: Duration::from_millis(500),
        ..Config::default()
    });
    for sequence in [1000, 1001, 1005] {
        let packet = pair.data(sequence, 0);
        pair.inject(&packet).unwrap();
    }
    let mut out = [0; 1500];
    let listener = pair.listener.as_mut().unwrap();
    let len = listener.poll_transmit(pair.now, &mut out).unwrap();
    assert_eq!(out[..4], [0x80, 3, 0, 0]);
    assert_eq!(out[16..len], [0x80, 0, 3, 0xEA, 0, 0, 3, 0xEC]);
    assert_eq!(listener.poll_transmit(pair.now, &mut out), None);
    pair.run(Duration::from_millis(450));
    assert!(pair.received().pkt_sent_nak >= 3);
}

#[test]
fn new_gaps_do_not_put_off_the_repetition_of_old_ones() {
    let mut pair = connected(Config {
        latency: Duration::from_millis(500),
        ..Config::default()
    });
    // Each packet opens a gap, faster than the interval of periodic NAKs; nothing is repaired.
    let mut longest = 0;
    for i in 0..800 {
        let packet = pair.data(1001 + 2 * i, 0);
        pair.inject(&packet).unwrap();
        pair.tick();
        let naks = pair.wire.values().filter(|(_, d)| d[..2] == [0x80, 3]);
        longest = naks.map(|(_, d)| d.len()).max().unwrap_or(0).max(longest);
    }
    assert!(longest > 1000, "{longest}: the whole list was repeated");
}

#[test]
fn a_gap_that_closed_before_its_nak_left_is_not_reported() {
    let mut pair = connected(Config::default());
    for sequence in [1000, 1002, 1001] {
        let packet = pair.data(sequence, 0);
        pair.inject(&packet).unwrap();
    }
    let mut out = [0; 1500];
    let listener = pair.listener.as_mut().unwrap();
    assert_eq!(listener.poll_transmit(pair.now, &mut out), None);
    assert_eq!(listener.statistics().pkt_rcv_reordered, 1);
}

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
fn what_the_ring_cannot_hold_is_not_acknowledged_and_comes_again() {
    let config = Config {
        latency: Duration::from_secs(2),
        ..Config::default()
    };
    let mut pair = connected(config);
    pair.ring = SlotRing::with_owned_chunks(4);
    let sent = pair.send(600);
    let stats = pair.received();
    assert!(stats.pkt_rcv_buf <= 128 && stats.pkt_recv_unique <= 128);
    // Memory is given while everything can still be sent again.
    for _ in 0..30 {
        pair.ring.add_chunk(mirror_base::Chunk::owned());
    }
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.got, sent);
    pair.add_up();
}

#[test]
fn a_closed_window_opens_again() {
    let config = Config {
        latency: Duration::from_millis(50),
        ..Config::default()
    };
    let mut pair = connected(config);
    pair.ring = SlotRing::with_owned_chunks(3);
    let sent = pair.send(1000);
    pair.run(Duration::from_secs(1));
    // 64 slots and a hold of 50 ms do not carry 2000 packets a second; nothing hangs.
    let before = pair.got.len();
    assert!(before > 400 && before <= sent.len());
    pair.send(1);
    pair.run(Duration::from_millis(300));
    assert_eq!(pair.got.len(), before + 1);
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
fn packets_of_a_filter_that_was_not_agreed_are_refused() {
    let mut pair = connected(Config::default());
    let mut packet = pair.data(1000, 0);
    packet[7] = 0;
    assert_eq!(pair.inject(&packet), Err(Discard::MalformedData));
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
fn the_sender_drops_what_is_too_late_and_keeps_the_flow_window() {
    let mut pair = connected(Config::default());
    pair.path = Path {
        loss_per_mille: 1000,
        ..CLEAN
    };
    let mut taken = 0;
    for _ in 0..8 {
        for _ in 0..2000 {
            taken += u32::from(pair.caller.send(pair.now, &[7; 100]).is_ok());
        }
        pair.run(Duration::from_millis(300));
    }
    let stats = pair.caller.statistics();
    assert!(stats.pkt_snd_drop > 0);
    assert!(stats.pkt_snd_buf <= 8192 && taken > 8192);
    assert_eq!(
        u64::from(stats.pkt_snd_buf) + stats.pkt_snd_drop,
        u64::from(taken)
    );
}

#[test]
fn packets_in_flight_stay_within_the_peers_window() {
    let config = Config {
        flow_window: 40,
        ..Config::default()
    };
    let mut pair = connected(config);
    for i in 0..200u8 {
        pair.caller.send(pair.now, &[i; 10]).unwrap();
    }
    pair.drain();
    assert_eq!(pair.caller.statistics().pkt_flight_size, 40);
    pair.run(Duration::from_millis(500));
    assert_eq!(pair.got.len(), 200);
}

#[test]
fn max_bandwidth_paces_and_probe_pairs_leave_together() {
    let config = Config {
        max_bandwidth: 1_000_000,
        ..Config::default()
    };
    let mut pair = connected(config);
    let start = pair.now;
    for _ in 0..600 {
        pair.caller.send(pair.now, &[0; 1316]).unwrap();
    }
    let mut out = [0; 1500];
    let mut last_probe = None;
    let mut sent = 0;
    while sent < 500 {
        pair.tick();
        let now = pair.now;
        while let Some(len) = pair.caller.poll_transmit(now, &mut out) {
            assert!(len <= 1500);
        }
        sent = pair.caller.statistics().pkt_sent_unique;
        last_probe = last_probe.or(Some(now));
    }
    let rate = 500.0 * 1360.0 / (pair.now - start).as_secs_f64();
    assert!((950_000.0..1_060_000.0).contains(&rate), "{rate}");
}

#[test]
fn a_peer_without_periodic_naks_gets_blind_retransmissions() {
    let mut pair = connected(Config::default());
    pair.caller.sender.agree(
        pair.now,
        &SendTerms {
            mss: 1500,
            peer_window: 8000,
            peer_latency: Duration::from_millis(120),
            drop_too_late: true,
            peer_repeats_naks: false,
        },
    );
    pair.path.loss_per_mille = 1000;
    pair.send(1);
    pair.run(Duration::from_millis(30));
    pair.path.loss_per_mille = 0;
    pair.run(Duration::from_millis(900));
    assert_eq!(
        pair.got.len(),
        1,
        "the last packet of all was lost and no NAK could tell"
    );
}

#[test]
fn payloads_beyond_what_was_agreed_are_refused() {
    let mut pair = connected(Config::default());
    assert_eq!(
        pair.caller.send(pair.now, &[0; 1317]),
        Err(SendError::TooLong)
    );
    for _ in 0..8192 {
        pair.caller.send(pair.now, &[0; 10]).unwrap();
    }
    assert_eq!(
        pair.caller.send(pair.now, &[0; 10]),
        Err(SendError::BufferFull)
    );
}

#[test]
fn our_caller_receives_from_libsrts_listener() {
    let name = "srt02_clear_listener_sends";
    let frames = capture(name);
    let listener = frames
        .iter()
        .find(|f| f.from != frames[0].from)
        .unwrap()
        .from;
    let initial = u32::from_be_bytes(frames[0].datagram[24..28].try_into().unwrap());
    let start = Instant::from_millis(5000);
    let config = Config {
        latency: Duration::from_millis(100),
        ..Config::default()
    };
    let initial = PacketSequenceNumber::new(initial);
    let mut connection = Connection::connect(start, listener, CALLER, initial, "", &config, 0);
    let mut ring = SlotRing::with_owned_chunks(20);
    let (mut payload, mut out, mut events) = (Vec::new(), [0; 1500], Vec::new());
    let mut drain = |connection: &mut Connection, now: Instant, ring: &mut SlotRing| {
        while connection.poll_transmit(now, &mut out).is_some() {}
        while let Some(delivery) = connection.poll_delivery(now, ring) {
            payload.extend_from_slice(ring.get(delivery.slot).unwrap().payload);
        }
        events.extend(connection.poll_event());
    };
    for frame in frames.iter().filter(|f| f.from == listener) {
        let now = start + Duration::from_micros(frame.at_us);
        let mut datagram = frame.datagram.clone();
        datagram[12..16].copy_from_slice(&CALLER.to_be_bytes());
        drain(&mut connection, now, &mut ring);
        let _ = connection.handle_datagram(now, now, &datagram, &mut ring);
        connection.handle_timeout(now, &mut ring);
        drain(&mut connection, now, &mut ring);
    }
    let end = start + Duration::from_secs(60);
    connection.close(end);
    drain(&mut connection, end, &mut ring);
    let flow = vectors("srt_captures.json")[name]["flows"].clone();
    let flow = flow.as_object().unwrap().values().next().unwrap().clone();
    assert_eq!(sha256(&payload), flow["payload_sha256"].as_str().unwrap());
    assert_eq!(connection.latency().as_millis(), 250);
    assert_eq!(events.first(), Some(&Event::Connected));
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
