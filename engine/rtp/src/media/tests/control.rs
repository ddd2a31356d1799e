//! RTCP in and out: reports, addresses, clocks, requests, collisions, leaving.

use super::*;

fn requests() -> Feedback {
    Feedback {
        nack: true,
        pli: true,
        fir: true,
        ..Feedback::default()
    }
}

#[test]
fn reports_tell_the_sender_what_came_and_go_where_its_rtcp_comes_from() {
    let mut w = World::new(MediaConfig {
        feedback: Feedback::default(),
        ..with_feedback(Feedback::default())
    });
    w.play(SSRC, 0..20_000, 60_000, |n| n % 10 == 5);
    w.rtcp(
        ms(100),
        "192.0.2.1:6001",
        &sender_report(SSRC, 0xAAAA_BBBB_CCCC_DDDD, 0, false),
    );
    w.run(ms(20_000));
    assert!((4..25).contains(&w.said.len()), "{}", w.said.len());
    for said in &w.said {
        assert_eq!(said.to, addr("192.0.2.1:6001"));
        let packets: Vec<_> = rtcp::parse(&said.bytes).unwrap().collect();
        let block = packets[0].report_blocks().next().unwrap();
        assert_eq!((block.ssrc, block.last_sr), (SSRC, 0xBBBB_CCCC));
        assert!(
            (20..32).contains(&block.fraction_lost),
            "{}",
            block.fraction_lost
        );
        let own = packets[0].ssrc().unwrap();
        assert_eq!(packets[1].cname(own), Some(&b"engine@here"[..]));
    }
    let last = w
        .compounds()
        .filter(|p| p.packet_type == 201)
        .last()
        .unwrap();
    let block = last.report_blocks().next().unwrap();
    // Wrapped once; a tenth is lost.
    assert!(block.extended_highest_sequence > 0x1_0000);
    let expected = block.extended_highest_sequence - 60_000 + 1;
    assert_eq!(block.cumulative_lost as u32, (expected + 4) / 10);
    assert_eq!(w.media.statistics().rtcp_sent, w.said.len() as u64);
}

#[test]
fn before_any_rtcp_came_reports_go_one_port_beyond_the_rtp() {
    for (mux, port) in [(false, 5005), (true, 5004)] {
        let mut config = with_feedback(Feedback::default());
        config.rtcp.as_mut().unwrap().mux = mux;
        let mut w = World::new(config);
        w.play(SSRC, 0..8_000, 0, |_| false);
        w.run(ms(8_000));
        assert!(!w.said.is_empty());
        assert!(
            w.said
                .iter()
                .all(|s| s.to == addr(&format!("192.0.2.1:{port}")))
        );
    }
}

#[test]
fn reports_cannot_be_pointed_at_another_host() {
    let mut w = World::new(with_feedback(requests()));
    w.play(SSRC, 0..8_000, 0, |n| n == 300);
    w.rtcp(
        ms(10),
        "203.0.113.77:99",
        &sender_report(SSRC, 1 << 40, 0, false),
    );
    w.run(ms(8_000));
    assert!(!w.said.is_empty());
    assert!(w.said.iter().all(|s| s.to == addr("192.0.2.1:5005")));
}

#[test]
fn the_senders_clock_and_name_are_known_also_from_a_report_before_its_media() {
    let mut w = World::new(config());
    let ntp = 3_900_000_000u64 << 32;
    w.rtcp(
        ms(0),
        "192.0.2.1:5005",
        &sender_report(SSRC, ntp, 900, false),
    );
    w.run(ms(1));
    w.play(SSRC, 0..10, 0, |_| false);
    w.run(ms(20));
    let clock = w.media.clock().unwrap();
    let second = clock.wall_nanos(90_900) - clock.wall_nanos(900);
    assert_eq!(clock.wall_nanos(900), 3_900_000_000_000_000_000);
    assert!(second.abs_diff(1_000_000_000) < 2);
    assert_eq!(w.media.cname(), Some(&b"cam@studio"[..]));

    let mut audio = World::new(config());
    audio.play(9, 0..10, 0, |_| false);
    audio.run(ms(20));
    assert!(!w.media.shares_clock_with(&audio.media));
    audio.rtcp(ms(0), "192.0.2.1:5007", &sender_report(9, ntp, 0, false));
    audio.run(ms(1));
    assert!(w.media.shares_clock_with(&audio.media));
    let audio_clock = audio.media.clock().unwrap();
    assert_eq!(clock.nanos_after(900 + 9_000, &audio_clock, 0), 100_000_000);
}

#[test]
fn a_key_frame_is_asked_for_at_most_twice_a_second() {
    let mut w = World::new(with_feedback(requests()));
    assert!(!w.media.request_key_frame(w.now), "there is nobody to ask");
    w.play(SSRC, 0..3_000, 0, |_| false);
    w.run(ms(10));
    for _ in 0..290 {
        assert!(w.media.request_key_frame(w.now));
        w.run(ms(10));
    }
    let at: Vec<_> = w
        .said
        .iter()
        .filter(|s| rtcp::parse(&s.bytes).unwrap().any(|p| p.is_picture_loss()))
        .map(|s| s.at)
        .collect();
    assert!((5..=6).contains(&at.len()), "{at:?}");
    assert!(
        at.windows(2)
            .all(|w| w[1].saturating_since(w[0]) >= ms(500))
    );
    let pli = w.compounds().find(|p| p.is_picture_loss()).unwrap();
    assert_eq!(pli.feedback_source(), Some(SSRC));
    // The first goes at once.
    assert!(at[0] <= Instant::from_millis(1_011));
    assert_eq!(w.media.statistics().plis_sent, at.len() as u64);
}

#[test]
fn a_full_intra_request_keeps_its_number_when_it_is_repeated() {
    let mut w = World::new(with_feedback(Feedback {
        fir: true,
        ..Feedback::default()
    }));
    w.play(SSRC, 0..3_000, 0, |_| false);
    w.run(ms(10));
    for _ in 0..40 {
        w.media.request_key_frame(w.now);
        w.run(ms(50));
    }
    let numbers: Vec<_> = w
        .compounds()
        .flat_map(|p| p.full_intra_requests())
        .collect();
    assert_eq!(numbers, [(SSRC, 1), (SSRC, 1), (SSRC, 2), (SSRC, 2)]);
    assert_eq!(w.media.statistics().firs_sent, 4);
}

#[test]
fn a_sender_that_takes_no_feedback_is_asked_for_nothing() {
    let mut w = World::new(with_feedback(Feedback::default()));
    w.play(SSRC, 0..9_000, 0, |n| n % 20 == 7);
    w.run(ms(100));
    assert!(!w.media.request_key_frame(w.now));
    w.run(ms(9_000));
    assert!(!w.said.is_empty());
    assert!(w.compounds().all(|p| p.packet_type < 204));
}

#[test]
fn a_session_that_lets_receivers_say_nothing_is_obeyed() {
    let mut config = with_feedback(requests());
    config.rtcp.as_mut().unwrap().shares_bps = Some((800, 0));
    let mut w = World::new(config);
    w.play(SSRC, 0..9_000, 0, |n| n % 20 == 7);
    w.run(ms(9_000));
    w.media.close(w.now);
    w.drain();
    assert!(w.said.is_empty() && w.media.is_drained());
}

#[test]
fn a_bye_is_the_last_word_if_anything_was_said() {
    let mut w = World::new(with_feedback(requests()));
    w.play(SSRC, 0..10, 0, |_| false);
    w.run(ms(20));
    w.media.close(w.now);
    w.drain();
    assert!(w.said.is_empty() && w.media.is_drained());
    assert_eq!(w.media.poll_timeout(), None);

    let mut w = World::new(with_feedback(requests()));
    w.play(SSRC, 0..9_000, 0, |n| n == 8_990);
    w.run(ms(9_000));
    w.media.close(w.now);
    assert!(!w.media.is_drained());
    w.drain();
    let own = w.said.last().map(|s| rtcp::sender_ssrc(&s.bytes).unwrap());
    let bye = w.compounds().last().unwrap();
    assert_eq!(bye.leaving().next(), own);
    assert!(w.media.is_drained() && w.media.poll_timeout().is_none());
    // What waited behind the gap is delivered.
    assert_eq!(w.out.len(), 8_999);
    let refused = w.media.handle_rtcp(
        w.now,
        w.now,
        0,
        addr("192.0.2.1:1"),
        &[0x80, 201, 0, 1, 0, 0, 0, 1],
    );
    assert_eq!(refused, Err(Discard::Closed));
}

#[test]
fn a_collision_changes_our_ssrc_and_a_loop_does_not() {
    let mut w = World::new(with_feedback(requests()));
    w.play(SSRC, 0..9_000, 0, |_| false);
    w.run(ms(3_000));
    let own = rtcp::sender_ssrc(&w.said[0].bytes).unwrap();
    // Somebody else reports under our SSRC.
    let mut theirs = Vec::new();
    rtcp::write::write_report(own, &[], b"other", &mut theirs);
    w.rtcp(ms(0), "192.0.2.99:5005", &theirs);
    w.said.clear();
    w.run(ms(3_000));
    let bye = w.compounds().find(|p| p.packet_type == rtcp::BYE).unwrap();
    assert_eq!(bye.leaving().collect::<Vec<_>>(), [own]);
    let new = rtcp::sender_ssrc(&w.said.last().unwrap().bytes).unwrap();
    assert_ne!(new, own);
    // The same address brings our own packets back.
    let mut ours = Vec::new();
    rtcp::write::write_report(new, &[], b"engine@here", &mut ours);
    w.rtcp(ms(0), "192.0.2.99:5005", &ours);
    w.rtp_from(ms(1), "192.0.2.99:5005", &packet(new, 0, 0));
    w.run(ms(2_000));
    let s = w.media.statistics();
    assert_eq!((s.collisions, s.loops), (1, 2));
    assert_eq!(rtcp::sender_ssrc(&w.said.last().unwrap().bytes), Some(new));
}

#[test]
fn members_are_counted_contributors_and_other_receivers_too() {
    let mut config = with_feedback(Feedback::default());
    config.rtcp.as_mut().unwrap().multicast = true;
    let mut w = World::new(config);
    for n in 0..100 {
        let mut p = packet(SSRC, n, 0);
        p[0] |= 2;
        p.splice(12..12, [0, 0, 0, 1, 0, 0, 0, 2]);
        w.rtp(ms(n), &p);
    }
    for i in 0..50u32 {
        let mut rr = Vec::new();
        rtcp::write::write_report(1000 + i, &[], b"r", &mut rr);
        w.rtcp(ms(10), "192.0.2.50:5005", &rr);
    }
    w.run(ms(200));
    assert_eq!(w.media.statistics().members, 1 + 2 + 50);
    let mut bye = Vec::new();
    rtcp::write::write_report(1000, &[], b"r", &mut bye);
    rtcp::write::write_bye(1000, &mut bye);
    w.rtcp(ms(0), "192.0.2.50:5005", &bye);
    w.run(ms(1));
    assert_eq!(w.media.statistics().members, 1 + 2 + 49);
    // Silent ones are forgotten.
    w.play(SSRC, 100..60_100, 0, |_| false);
    w.run(ms(60_100));
    assert!(w.media.statistics().members <= 3);
}

#[test]
fn the_round_trip_time_is_asked_for_where_the_sender_answers() {
    let mut config = with_feedback(requests());
    config.rtcp.as_mut().unwrap().receiver_rtt = true;
    let mut w = World::new(config);
    w.play(SSRC, 0..5_000, 0, |_| false);
    let asked = loop {
        w.run(ms(1));
        let xr = w.compounds().find(|p| p.packet_type == 207);
        if let Some(xr) = xr {
            break xr.body.to_vec();
        }
    };
    let own = u32::from_be_bytes(asked[..4].try_into().unwrap());
    let ntp = u64::from_be_bytes(asked[8..16].try_into().unwrap());
    let mut answer = vec![0x80, 207, 0, 5];
    answer.extend_from_slice(&SSRC.to_be_bytes());
    answer.extend_from_slice(&[5, 0, 0, 3]);
    for word in [own, (ntp >> 16) as u32, 65_536 / 4] {
        answer.extend_from_slice(&word.to_be_bytes());
    }
    w.rtcp(ms(290), "192.0.2.1:5005", &answer);
    w.run(ms(400));
    let rtt = w.media.statistics().rtt_us;
    assert!(rtt.abs_diff(40_000) < 1_200, "{rtt}");
}

#[test]
fn two_paths_are_both_reported_to() {
    let mut w = World::new(MediaConfig {
        legs: 2,
        ..with_feedback(Feedback::default())
    });
    for n in 0..9_000 {
        let p = packet(SSRC, n, 0);
        w.rtp_on(ms(n), 0, Role::Media, &p);
        w.rtp_on(ms(n + 5), 1, Role::Media, &p);
    }
    w.run(ms(9_000));
    let to: BTreeSet<_> = w.said.iter().map(|s| s.to).collect();
    assert_eq!(
        to,
        [addr("192.0.2.1:5005"), addr("198.51.100.1:5005")].into()
    );
}
