//! Which source is taken, and what happens when another comes.

use super::*;

const OTHER: u32 = 0xBEEF;

#[test]
fn packets_of_probation_are_delivered_in_order_when_the_source_is_proven() {
    let mut w = World::new(config());
    for (i, n) in [10, 13, 12, 14, 15, 11].into_iter().enumerate() {
        let p = packet(SSRC, n, 0);
        w.sent.insert(sequence_of(&p), p.clone());
        w.rtp(ms(i as u64), &p);
    }
    w.run(ms(100));
    w.assert_genuine();
    assert_eq!(w.sequences(), [10, 11, 12, 13, 14, 15]);
    assert_eq!(w.events, [MediaEvent::SourceValid { ssrc: SSRC }]);
    assert_eq!(w.media.ssrc(), Some(SSRC));
}

#[test]
fn a_restart_with_a_new_ssrc_loses_nothing_and_is_a_discontinuity() {
    for pause in [0, 20, 2_000] {
        let mut w = World::new(config());
        w.play(SSRC, 0..500, 1000, |_| false);
        w.run(ms(500 + pause));
        w.play(OTHER, 0..500, 40_000, |_| false);
        w.run(ms(1_000));
        w.assert_genuine();
        assert_eq!(w.out.len(), 1000, "pause {pause}");
        assert_eq!(w.out.iter().filter(|o| o.discontinuity).count(), 1);
        assert!(w.out[500].discontinuity);
        assert_eq!(
            w.events,
            [
                MediaEvent::SourceValid { ssrc: SSRC },
                MediaEvent::SourceChanged { ssrc: OTHER }
            ]
        );
        let s = w.media.statistics();
        assert_eq!((s.source_changes, s.packets_foreign), (1, 0));
        assert_eq!((s.source.packets_unique, s.source.packets_lost), (1000, 0));
        // Held until the old one was surely silent, and no longer.
        let held = w.out[500]
            .at
            .saturating_since(Instant::from_millis(1_500 + pause));
        assert!(held <= ms(110), "{held:?}");
    }
}

#[test]
fn what_waits_behind_a_gap_is_delivered_before_the_next_source() {
    let mut w = World::new(config());
    w.play(SSRC, 0..500, 1000, |n| n == 490);
    w.run(ms(500));
    w.play(OTHER, 0..500, 40_000, |_| false);
    w.run(ms(1_000));
    w.assert_genuine();
    assert_eq!(w.out.len(), 999);
    assert_eq!(w.out[490].lost_before, 1);
    assert!(w.out[499].discontinuity && sequence_of(&w.out[499].packet) == 40_000);
}

#[test]
fn a_fast_restart_fills_what_is_kept_and_is_taken_then() {
    // 10 000 packets a second: 512 come in 51 ms.
    let mut w = World::new(config());
    w.play(SSRC, 0..100, 0, |_| false);
    w.run(ms(100));
    for n in 0..2000u64 {
        let p = packet(OTHER, n, 7);
        w.sent.insert(sequence_of(&p), p.clone());
        w.rtp(Duration::from_micros(n * 100), &p);
    }
    w.run(ms(500));
    assert_eq!(w.out.len(), 2100);
    assert_eq!(w.media.statistics().packets_foreign, 0);
}

#[test]
fn an_interloper_on_the_same_port_takes_nothing_over() {
    let mut w = World::new(config());
    w.play(SSRC, 0..3000, 0, |_| false);
    for n in 0..3000u64 {
        w.rtp(Duration::from_micros(n * 1000 + 500), &packet(OTHER, n, 9));
    }
    w.run(ms(3_100));
    w.assert_genuine();
    assert_eq!(w.out.len(), 3000);
    assert_eq!(w.events, [MediaEvent::SourceValid { ssrc: SSRC }]);
    assert!(w.media.statistics().packets_foreign > 2000);
}

#[test]
fn slow_sources_are_not_taken_for_silent_ones() {
    // Five packets a second; somebody else sends in the pauses.
    let mut w = World::new(config());
    for n in 0..50u64 {
        w.rtp(ms(n * 200), &packet(SSRC, n, 0));
        for i in (0..5).filter(|_| n > 3) {
            w.rtp(ms(n * 200 + 100 + i), &packet(OTHER, n * 5 + i, 0));
        }
    }
    w.run(ms(11_000));
    let taken = w
        .out
        .iter()
        .filter(|o| o.packet[8..12] == SSRC.to_be_bytes());
    assert_eq!(taken.count(), 50);
    assert_eq!(w.media.ssrc(), Some(SSRC));
}

#[test]
fn only_the_ssrcs_that_are_named_are_taken() {
    let mut w = World::new(MediaConfig {
        ssrcs: vec![OTHER],
        ..config()
    });
    w.play(SSRC, 0..50, 0, |_| false);
    w.run(ms(60));
    assert_eq!(w.out.len(), 0);
    w.play(OTHER, 0..50, 0, |_| false);
    w.run(ms(60));
    assert_eq!(w.out.len(), 50);
    assert_eq!(w.media.statistics().packets_foreign, 50);
    assert_eq!(w.refused, [Discard::ForeignSource; 50]);
}

#[test]
fn payload_types_that_are_not_named_are_refused() {
    let mut w = World::new(config());
    let mut p = packet(SSRC, 0, 0);
    p[1] = 98;
    w.rtp(ms(1), &p);
    w.run(ms(5));
    assert_eq!(w.refused, [Discard::UnknownPayloadType]);
}

#[test]
fn a_source_that_says_bye_is_over_and_may_come_back() {
    let mut w = World::new(config());
    w.play(SSRC, 0..50, 0, |n| n == 48);
    w.run(ms(50));
    w.rtcp(
        ms(0),
        "192.0.2.1:5005",
        &sender_report(SSRC, 5 << 32, 0, true),
    );
    // Overtaken by its own BYE.
    w.rtp(ms(1), &packet(SSRC, 48, 0));
    w.run(ms(300));
    assert_eq!(w.out.len(), 50);
    let ended = MediaEvent::SourceEnded(CloseReason::Bye);
    assert_eq!(w.events, [MediaEvent::SourceValid { ssrc: SSRC }, ended]);
    assert!(w.media.ssrc().is_none() && w.media.poll_timeout().is_none());
    // Late packets of what ended wake nobody.
    w.play(SSRC, 48..50, 0, |_| false);
    w.run(ms(10));
    assert_eq!(w.refused, [Discard::Belated; 2]);
    w.play(SSRC, 0..50, 30_000, |_| false);
    w.run(ms(100));
    assert_eq!(w.out.len(), 100);
    assert!(w.out[50].discontinuity);
    assert_eq!(
        w.events.last(),
        Some(&MediaEvent::SourceValid { ssrc: SSRC })
    );
}

#[test]
fn silence_ends_a_source_and_the_next_one_is_waited_for() {
    let mut w = World::new(config());
    w.play(SSRC, 0..50, 0, |_| false);
    w.run(ms(10_040));
    assert_eq!(w.events.len(), 1);
    w.run(ms(20));
    let ended = MediaEvent::SourceEnded(CloseReason::Timeout);
    assert_eq!(w.events.last(), Some(&ended));
    w.play(OTHER, 0..50, 500, |_| false);
    w.run(ms(60));
    assert_eq!(
        w.events.last(),
        Some(&MediaEvent::SourceValid { ssrc: OTHER })
    );
    assert_eq!(w.out.len(), 100);
}

#[test]
fn a_restart_of_the_numbering_loses_nothing() {
    let mut w = World::new(config());
    w.play(SSRC, 0..500, 1000, |_| false);
    w.run(ms(500));
    for n in 0..500u64 {
        let mut p = packet(SSRC, n, 40_000);
        p[4] ^= 0x55;
        w.sent.insert(sequence_of(&p), p.clone());
        w.rtp(ms(n), &p);
    }
    w.run(ms(600));
    w.assert_genuine();
    assert_eq!(w.out.len(), 1000);
    assert!(w.out[500].discontinuity);
    assert_eq!(w.events.last(), Some(&MediaEvent::SourceRestarted));
    assert_eq!(w.media.statistics().source.restarts, 1);
}

/// Two paths, the second 30 ms behind; after 500 packets the sender restarts.
fn two_paths(ssrc: u32, first: u16) -> World {
    let mut w = World::new(MediaConfig {
        legs: 2,
        ..config()
    });
    for n in 0..1000u64 {
        let p = match n {
            ..500 => packet(SSRC, n, 1000),
            _ => packet(ssrc, n - 500, first),
        };
        w.sent.insert(sequence_of(&p), p.clone());
        if n % 50 != 3 {
            w.rtp_on(ms(n), 0, Role::Media, &p);
        }
        if n % 50 != 4 {
            w.rtp_on(ms(n + 30), 1, Role::Media, &p);
        }
    }
    w.run(ms(1_500));
    w
}

#[test]
fn a_restart_on_two_paths_is_followed_when_both_agree() {
    for (ssrc, first) in [(OTHER, 1200), (SSRC, 40_000), (OTHER, 40_000)] {
        let w = two_paths(ssrc, first);
        let sequences: Vec<_> = w.sequences();
        let expected: Vec<u16> = (0..500)
            .map(|n| 1000 + n)
            .chain((0..500).map(|n| first + n))
            .collect();
        assert_eq!(sequences, expected, "{ssrc:x} {first}");
        assert!(w.out[500].discontinuity);
        let s = w.media.statistics();
        assert_eq!(s.source.packets_dropped, 0);
        let changed = match ssrc {
            SSRC => MediaEvent::SourceRestarted,
            _ => MediaEvent::SourceChanged { ssrc },
        };
        assert_eq!(w.events[1..], [changed]);
    }
}

#[test]
fn one_path_with_a_numbering_of_its_own_disturbs_nothing() {
    let mut w = World::new(MediaConfig {
        legs: 2,
        ..config()
    });
    for n in 0..3000u64 {
        let p = packet(SSRC, n, 0);
        w.sent.insert(sequence_of(&p), p.clone());
        w.rtp_on(ms(n), 0, Role::Media, &p);
        w.rtp_on(ms(n), 1, Role::Media, &packet(SSRC, n, 20_000));
    }
    w.run(ms(3_500));
    w.assert_genuine();
    assert_eq!(w.out.len(), 3000);
    assert_eq!(w.events[0], MediaEvent::SourceValid { ssrc: SSRC });
    assert!(
        w.events[1..]
            .iter()
            .all(|e| matches!(e, MediaEvent::LegDown(1)))
    );
}

#[test]
fn the_same_ssrc_from_another_address_is_believed_when_the_first_is_silent() {
    let mut w = World::new(config());
    w.play(SSRC, 0..100, 0, |_| false);
    w.rtp_from(ms(50), "203.0.113.9:5004", &packet(SSRC, 60, 0));
    w.run(ms(100));
    assert_eq!(w.refused, [Discard::ForeignSource]);
    assert_eq!(w.out.len(), 100);
    // It moved.
    w.rtp_from(ms(600), "203.0.113.9:5004", &packet(SSRC, 100, 0));
    w.run(ms(700));
    assert_eq!(w.out.len(), 101);
}

#[test]
fn an_outage_of_eight_thousand_packets_is_loss() {
    let mut w = World::new(config());
    // Timestamps go on with time: 90 a packet.
    let p = |n: u64| {
        let mut p = packet(SSRC, n, 0);
        p[4..8].copy_from_slice(&(n as u32 * 90).to_be_bytes());
        p
    };
    for n in (0..100).chain(8_100..8_200) {
        w.rtp(ms(n), &p(n));
    }
    w.run(ms(9_000));
    w.run(ms(2_000));
    let told: u32 = w.out.iter().map(|o| o.lost_before).sum();
    assert_eq!((w.out.len(), told), (200, 8_000));
    assert_eq!(w.media.statistics().source.restarts, 0);
}
