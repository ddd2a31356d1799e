//! How long gaps are waited for where nobody has set it.

use super::*;

fn following() -> MediaConfig {
    MediaConfig {
        jitter_buffer: ms(50),
        max_jitter_buffer: ms(2_000),
        ..config()
    }
}

fn hold(w: &World) -> HoldFigures {
    w.media.statistics().hold
}

/// A loss every hundred packets.
fn losses(range: core::ops::Range<u64>) -> BTreeSet<u64> {
    range.filter(|n| n % 100 == 50).collect()
}

/// `count` packets, one every 4 ms, with column FEC that is spread over the following matrix.
fn play_slowly(w: &mut World, count: u64, lost: &BTreeSet<u64>, columns: u64, rows: u64) {
    let packets: Vec<_> = (0..count).map(|n| packet(SSRC, n, 0)).collect();
    for n in (0..count).filter(|n| !lost.contains(n)) {
        w.rtp(ms(4 * n), &packets[n as usize]);
    }
    let size = columns * rows;
    for base in (0..count).step_by(size as usize) {
        for c in 0..columns {
            let members: Vec<&[u8]> = (0..rows)
                .map(|r| &packets[(base + r * columns + c) as usize][..])
                .collect();
            let fec = protection(&members, columns as u8, false);
            w.rtp_on(ms(4 * (base + size + c * rows)), 0, Role::FecColumn, &fec);
        }
    }
}

#[test]
fn gaps_wait_for_the_fec_of_a_slow_stream_once_its_matrix_was_seen() {
    // 250 packets a second (2.6 Mb/s), 10 by 5: FEC comes up to 400 ms late.
    let mut config = following();
    config.fec = Some(FecLimits::default());
    let mut w = World::new(config.clone());
    play_slowly(&mut w, 4_000, &losses(500..3_900), 10, 5);
    w.run(ms(17_000));
    let figures = hold(&w);
    assert_eq!(figures.cause, HoldCause::Fec);
    assert!(
        (ms(380)..ms(600)).contains(&figures.jitter_buffer),
        "{figures:?}"
    );
    assert!(!figures.is_too_short());
    assert_eq!(w.media.statistics().source.packets_dropped, 0);
    assert_eq!(w.media.statistics().recovered_fec, 34);

    // What is set stays, and says that it is too short.
    config.max_jitter_buffer = Duration::ZERO;
    let mut w = World::new(config);
    play_slowly(&mut w, 4_000, &losses(500..3_900), 10, 5);
    w.run(ms(17_000));
    let figures = hold(&w);
    assert_eq!((figures.jitter_buffer, figures.follows), (ms(50), false));
    assert!(
        figures.is_too_short() && figures.needed > ms(380),
        "{figures:?}"
    );
    assert!(w.media.statistics().source.packets_dropped > 20);
}

#[test]
fn gaps_wait_for_the_slower_path_of_class_c() {
    let mut config = following();
    config.legs = 2;
    let mut w = World::new(config);
    for n in 0..6_000 {
        let p = packet(SSRC, n, 0);
        // The fast path loses every hundredth.
        if n < 1_500 || n % 100 != 50 {
            w.rtp_on(ms(n), 0, Role::Media, &p);
        }
        w.rtp_on(ms(n + 440), 1, Role::Media, &p);
    }
    w.run(ms(8_000));
    let figures = hold(&w);
    assert_eq!(figures.cause, HoldCause::Paths);
    assert!(
        (ms(550)..ms(600)).contains(&figures.jitter_buffer),
        "{figures:?}"
    );
    let s = w.media.statistics();
    // The last one is counted when 128 more have come.
    assert_eq!((s.source.packets_dropped, s.recovered_2022_7), (0, 44));
}

#[test]
fn gaps_wait_for_answers_to_requests_and_as_long_as_these_take() {
    let feedback = Feedback {
        nack: true,
        ..Feedback::default()
    };
    let config = MediaConfig {
        jitter_buffer: ms(50),
        max_jitter_buffer: ms(2_000),
        ..with_feedback(feedback)
    };
    let mut w = World::new(config.clone());
    w.answer = Some(Box::new(|| Some(ms(150))));
    let lost = losses(500..5_900);
    w.play(SSRC, 0..6_000, 0, |n| lost.contains(&n));
    w.run(ms(7_000));
    let figures = hold(&w);
    assert_eq!(figures.cause, HoldCause::Retransmission);
    assert!(
        (ms(600)..ms(700)).contains(&figures.jitter_buffer),
        "{figures:?}"
    );
    assert_eq!(w.media.statistics().source.packets_dropped, 0);

    // It is bounded, and says so.
    let mut w = World::new(MediaConfig {
        max_jitter_buffer: ms(250),
        ..config
    });
    w.answer = Some(Box::new(|| Some(ms(150))));
    w.play(SSRC, 0..6_000, 0, |n| lost.contains(&n));
    w.run(ms(7_000));
    assert_eq!(hold(&w).jitter_buffer, ms(250));
    assert!(hold(&w).is_too_short());
}

#[test]
fn without_repair_gaps_wait_no_longer_than_set() {
    let mut w = World::new(following());
    w.play(SSRC, 0..2_000, 0, |n| n == 700);
    w.run(ms(3_000));
    let figures = hold(&w);
    assert_eq!(
        (figures.jitter_buffer, figures.needed),
        (ms(50), Duration::ZERO)
    );
    assert_eq!(figures.cause, HoldCause::Configured);
    let given_up = w.out.iter().find(|o| o.lost_before > 0).unwrap();
    assert_eq!(given_up.at, Instant::from_millis(1_000 + 701 + 50));
}
