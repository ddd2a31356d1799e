//! What leaves a sender: runs of equal datagrams, pacing, drops.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use super::pair::{CLEAN, Pair, Path, TICK, connected};
use super::*;
use crate::config::InputBandwidth;
use crate::packet::{Control, Header};

/// Submits payloads of these lengths and takes one batch.
fn batch(lengths: &[usize], max: usize, room: usize) -> (Option<Batch>, Vec<u8>, Pair) {
    let mut pair = connected(Config::default());
    for &len in lengths {
        pair.caller.send(pair.now, &vec![len as u8; len]).unwrap();
    }
    let mut out = vec![0; room];
    let batch = pair.caller.poll_transmit_batch(pair.now, &mut out, max);
    (batch, out, pair)
}

#[test]
fn equal_packets_leave_in_one_batch_and_a_shorter_one_ends_it() {
    let (run, out, mut pair) = batch(&[100, 100, 100, 60, 100], 64, 65_000);
    let run = run.unwrap();
    assert_eq!(
        run,
        Batch {
            len: 3 * 116 + 76,
            segment_size: 116
        }
    );
    assert_eq!(run.segments(), 4);
    for (i, datagram) in out[..run.len].chunks(run.segment_size).enumerate() {
        let (header, payload) = Header::parse(datagram).unwrap();
        assert_eq!(header.word0, 1000 + i as u32);
        assert_eq!(payload.len(), [100, 100, 100, 60][i]);
    }
    let mut out = vec![0; 1500];
    let rest = pair.caller.poll_transmit_batch(pair.now, &mut out, 64);
    assert_eq!(rest.unwrap().segments(), 1);
    assert_eq!(
        pair.caller.poll_transmit_batch(pair.now, &mut out, 64),
        None
    );
    let stats = pair.caller.statistics();
    assert_eq!((stats.pkt_sent, stats.byte_sent), (5, 460 + 5 * 44));
}

#[test]
fn a_longer_packet_waits_for_the_next_batch() {
    let (run, _, mut pair) = batch(&[100, 200], 64, 65_000);
    assert_eq!(run.unwrap().segments(), 1);
    let mut out = vec![0; 1500];
    let next = pair.caller.poll_transmit_batch(pair.now, &mut out, 64);
    assert_eq!(next.unwrap().len, 216);
}

#[test]
fn a_batch_keeps_to_the_room_and_the_number_it_is_given() {
    let (run, ..) = batch(&[1000; 10], 3, 65_000);
    assert_eq!(run.unwrap().segments(), 3);
    let (run, ..) = batch(&[1000; 10], 64, 4000);
    assert_eq!(run.unwrap().segments(), 3);
    let (run, ..) = batch(&[1316; 60], 64, 65_507);
    assert_eq!(run.unwrap().segments(), 49);
}

#[test]
fn control_packets_leave_alone_and_first() {
    let (_, _, mut pair) = batch(&[], 64, 1500);
    for _ in 0..3 {
        pair.caller.send(pair.now, &[1; 100]).unwrap();
    }
    pair.caller.pending.keepalive = true;
    let mut out = vec![0; 65_000];
    let first = pair.caller.poll_transmit_batch(pair.now, &mut out, 64);
    assert_eq!(first.unwrap().segments(), 1);
    assert!(Header::parse(&out).unwrap().0.is_control());
    let second = pair.caller.poll_transmit_batch(pair.now, &mut out, 64);
    assert_eq!(second.unwrap().segments(), 3);
}

#[test]
fn pacing_ends_a_batch_and_a_probe_pair_stays_together() {
    let mut pair = connected(Config {
        max_bandwidth: 1_360_000,
        ..Config::default()
    });
    // Uses up what a sender may send at once.
    let mut out = vec![0; 65_000];
    let mut runs = Vec::new();
    for _ in 0..200 {
        pair.caller.send(pair.now, &[0; 1316]).unwrap();
    }
    for _ in 0..400 {
        while let Some(run) = pair.caller.poll_transmit_batch(pair.now, &mut out, 64) {
            let (header, _) = Header::parse(&out).unwrap();
            runs.push((header.word0, run.segments()));
        }
        pair.now += Duration::from_millis(1);
    }
    assert!(runs[0].1 > 10, "credit: {runs:?}");
    for (first, segments) in &runs[1..] {
        let expected = if first & 15 == 0 { 2 } else { 1 };
        assert_eq!(*segments, expected, "{first}");
    }
    assert_eq!(pair.caller.statistics().snd_period_ns / 1000, 1000);
}

#[test]
fn the_rate_that_is_submitted_paces_with_its_overhead() {
    let mut pair = connected(Config {
        input_bandwidth: InputBandwidth::Measured { least: 0 },
        ..Config::default()
    });
    for _ in 0..600 {
        pair.caller.send(pair.now, &[0; 956]).unwrap();
        pair.tick();
        pair.tick();
    }
    let stats = pair.caller.statistics();
    assert!((990_000..1_010_000).contains(&stats.snd_input_rate));
    assert_eq!(stats.max_bandwidth, stats.snd_input_rate * 125 / 100);
    assert!(stats.snd_duration_us > 500_000 && stats.time_ms >= 600);
}

#[test]
fn a_sender_that_drops_nothing_fills_its_buffer() {
    for (delay, dropped) in [
        (None, false),
        (Some(Duration::from_secs(3)), false),
        (Some(Duration::ZERO), true),
    ] {
        let mut pair = connected(Config {
            send_drop_delay: delay,
            ..Config::default()
        });
        pair.path.loss_per_mille = 1000;
        for _ in 0..100 {
            pair.caller.send(pair.now, &[0; 100]).unwrap();
        }
        pair.run(Duration::from_millis(1500));
        let stats = pair.caller.statistics();
        assert_eq!(stats.pkt_snd_drop == 100, dropped, "{delay:?}");
        assert_eq!(stats.byte_snd_drop, stats.pkt_snd_drop * 144);
        assert_eq!(stats.byte_snd_buf, if dropped { 0 } else { 10_000 });
    }
}

#[test]
fn message_numbers_wrap_to_1() {
    let mut pair = connected(Config::default());
    pair.caller.sender.skip_messages(0x03FF_FFFF);
    let mut out = [0; 1500];
    let mut numbers = Vec::new();
    for _ in 0..3 {
        pair.caller.send(pair.now, b"x").unwrap();
        pair.caller.poll_transmit(pair.now, &mut out).unwrap();
        let (header, _) = Header::parse(&out).unwrap();
        numbers.push(header.word1 & 0x03FF_FFFF);
    }
    assert_eq!(numbers, [0x03FF_FFFF, 1, 2]);
}

#[test]
fn a_nak_that_crosses_its_retransmission_is_answered_once() {
    let mut pair = connected(Config::default());
    pair.send(1500);
    pair.run(Duration::from_millis(50));
    pair.path.loss_per_mille = 1000;
    pair.caller.send(pair.now, b"lost").unwrap();
    let mut out = [0; 1500];
    pair.caller.poll_transmit(pair.now, &mut out).unwrap();
    let nak = pair.control(Control::Nak, 0, &[2500]);
    let mut resent = 0;
    // Two NAKs at once after a round trip: the second one cannot know of the retransmission.
    pair.now += Duration::from_millis(40);
    for _ in 0..2 {
        let now = pair.now;
        pair.caller
            .handle_datagram(now, now, &nak, &mut pair.none)
            .unwrap();
        while let Some(len) = pair.caller.poll_transmit(now, &mut out) {
            let (header, _) = Header::parse(&out[..len]).unwrap();
            resent += u32::from(!header.is_control());
        }
    }
    assert_eq!(resent, 1);
}

#[test]
fn the_last_packet_of_all_is_sent_again_when_no_ack_comes() {
    let mut pair = connected(Config::default());
    let sent = pair.send(200);
    pair.run(Duration::from_millis(200));
    pair.path.loss_per_mille = 1000;
    pair.send(1);
    pair.run(Duration::from_millis(10));
    pair.path.loss_per_mille = 0;
    pair.run(Duration::from_millis(300));
    assert_eq!(pair.got.len(), sent.len() + 1);
    let stats = pair.caller.statistics();
    assert_eq!((stats.pkt_retrans, stats.pkt_snd_loss), (1, 1));
}

#[test]
fn a_path_without_loss_is_never_sent_anything_twice() {
    for (delay_us, jitter_us) in [(500, 0), (20_000, 0), (10_000, 9_000)] {
        let path = Path {
            delay_us,
            jitter_us,
            ..CLEAN
        };
        let config = Config {
            latency: Duration::from_millis(400),
            ..Config::default()
        };
        let mut pair = Pair::new(1, path, 1000, config);
        pair.connect();
        pair.send(200);
        for i in 0..100 {
            pair.send(1);
            pair.run(Duration::from_millis(i));
        }
        // What overtook another was asked for.
        let reordered = pair.received().pkt_rcv_reordered;
        let repeated = pair.caller.statistics().pkt_retrans;
        assert!(repeated <= reordered, "{delay_us} {jitter_us}: {repeated}");
        assert!(jitter_us > 0 || reordered == 0);
    }
}

#[test]
fn losses_are_repaired_although_not_a_single_nak_arrives() {
    let mut pair = connected(Config {
        latency: Duration::from_millis(900),
        ..Config::default()
    });
    let mut sent = Vec::new();
    for i in 0..1500 {
        pair.path.loss_per_mille = if i % 100 == 7 { 1000 } else { 0 };
        sent.extend(pair.send(1));
        pair.wire
            .retain(|_, (_, datagram)| datagram[..2] != [0x80, 3]);
    }
    pair.path.loss_per_mille = 0;
    for _ in 0..2500 {
        pair.tick();
        pair.wire
            .retain(|_, (_, datagram)| datagram[..2] != [0x80, 3]);
    }
    assert!(pair.got == sent);
    assert!(pair.received().pkt_rcv_loss >= 15);
}

#[test]
fn a_window_that_opens_again_unheard_stops_nobody_for_ever() {
    let mut pair = connected(Config::default());
    let sent = pair.send(20);
    pair.run(Duration::from_millis(200));
    assert_eq!(pair.got.len(), 20);
    // The peer's buffer is full for a moment; what it says when it has room again is lost, and
    // since it receives nothing it says nothing more.
    let ack = pair.control(Control::Ack, 4711, &[1020, 10_000, 1_000, 0]);
    let now = pair.now;
    pair.caller
        .handle_datagram(now, now, &ack, &mut pair.none)
        .unwrap();
    for i in 0..10_u8 {
        pair.caller.send(pair.now, &[i; 100]).unwrap();
    }
    pair.run(Duration::from_millis(100));
    assert!(pair.got.len() == 20, "it keeps to the window");
    pair.run(Duration::from_millis(700));
    assert_eq!(pair.got.len(), sent.len() + 10);
    assert_eq!(pair.caller.statistics().pkt_snd_drop, 0);
}

#[test]
fn a_window_that_stays_closed_is_asked_seldom() {
    let mut pair = connected(Config {
        send_drop_delay: None,
        ..Config::default()
    });
    pair.send(20);
    pair.run(Duration::from_millis(200));
    let mut out = [0; 1500];
    let mut asked = 0;
    for number in 5_000..15_000 {
        // The peer takes what comes, and has no room for more.
        let ack = pair.control(Control::Ack, number, &[1020 + asked, 10_000, 1_000, 0]);
        pair.now += TICK;
        let now = pair.now;
        let caller = &mut pair.caller;
        caller
            .handle_datagram(now, now, &ack, &mut pair.none)
            .unwrap();
        if number < 5_200 {
            caller.send(now, &[1; 100]).unwrap();
        }
        caller.handle_timeout(now, &mut pair.none);
        while let Some(len) = caller.poll_transmit(now, &mut out) {
            let (header, _) = Header::parse(&out[..len]).unwrap();
            asked += u32::from(!header.is_control());
        }
    }
    assert!((10..=110).contains(&asked), "{asked} in 5 s");
}
