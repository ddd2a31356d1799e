//! 5 % loss with and without each recovery, and what each does at its edges.

use super::*;

const PACKETS: u64 = 10_000;

/// One packet in twenty, chosen by dice.
fn losses(seed: u64) -> BTreeSet<u64> {
    let mut dice = Dice(seed);
    (2..PACKETS - 1).filter(|_| dice.roll(20) == 0).collect()
}

fn figures(w: &World) -> (u64, u64, u64) {
    let s = w.media.statistics().source;
    (s.packets_lost, s.packets_dropped, s.packets_unique)
}

#[test]
fn without_recovery_what_is_lost_stays_lost_and_nothing_else() {
    let lost = losses(3);
    let mut w = World::new(config());
    w.play(SSRC, 0..PACKETS, 60_000, |n| lost.contains(&n));
    w.run(ms(PACKETS + 500));
    w.assert_genuine();
    let count = lost.len() as u64;
    assert!((400..600).contains(&count));
    assert_eq!(figures(&w), (count, count, PACKETS - count));
    let told: u64 = w.out.iter().map(|o| u64::from(o.lost_before)).sum();
    assert_eq!(told, count);
    // Nobody waits longer than the jitter buffer.
    assert_eq!(w.media.statistics().legs[0].packets_lost, count);
}

#[test]
fn retransmission_gives_back_all_of_five_percent_though_it_loses_as_much() {
    let lost = losses(5);
    let feedback = Feedback {
        nack: true,
        ..Feedback::default()
    };
    let mut w = World::new(with_feedback(feedback));
    let mut dice = Dice(17);
    w.answer = Some(Box::new(move || (dice.roll(20) > 0).then_some(ms(30))));
    w.play(SSRC, 0..PACKETS, 60_000, |n| lost.contains(&n));
    w.run(ms(PACKETS + 500));
    w.assert_genuine();
    let count = lost.len() as u64;
    assert_eq!(figures(&w), (count, 0, PACKETS));
    let s = w.media.statistics();
    assert_eq!(s.recovered_rtx, count);
    assert!(s.nacks_sent > 0 && s.packets_nacked >= count);
    // Not much more is asked for than is lost twice, and late answers are few.
    assert!(s.packets_nacked < count * 5 / 4, "{}", s.packets_nacked);
    assert!((30_000..45_000).contains(&s.rtt_us), "{}", s.rtt_us);
    assert!(w.out.iter().all(|o| o.lost_before == 0));
}

#[test]
fn a_sender_that_repeats_packets_plainly_is_served_as_well() {
    let lost = losses(5);
    let feedback = Feedback {
        nack: true,
        reduced_size: true,
        ..Feedback::default()
    };
    let mut w = World::new(with_feedback(feedback));
    w.answers_plainly = true;
    w.answer = Some(Box::new(|| Some(ms(25))));
    w.play(SSRC, 0..PACKETS, 0, |n| lost.contains(&n));
    w.run(ms(PACKETS + 500));
    w.assert_genuine();
    let count = lost.len() as u64;
    assert_eq!(figures(&w), (count, 0, PACKETS));
    assert_eq!(w.media.statistics().recovered_rtx, count);
    // Reduced size: feedback without a report before it.
    assert!(
        w.said
            .iter()
            .any(|s| s.bytes[1] == rtcp::TRANSPORT_FEEDBACK)
    );
}

#[test]
fn a_request_whose_answer_would_come_too_late_is_not_repeated() {
    let feedback = Feedback {
        nack: true,
        ..Feedback::default()
    };
    let mut w = World::new(with_feedback(feedback));
    w.answer = Some(Box::new(|| Some(ms(300))));
    w.play(SSRC, 0..1000, 0, |n| n == 500);
    w.run(ms(2000));
    let s = w.media.statistics();
    assert_eq!((s.source.packets_dropped, s.recovered_rtx), (1, 0));
    assert!(s.packets_nacked <= 5 && s.packets_nacked > 0);
    assert_eq!(s.rtx_useless, s.rtx_received);
    let last = w.said.iter().rfind(|s| {
        rtcp::parse(&s.bytes)
            .unwrap()
            .any(|p| p.nacks().count() > 0)
    });
    // The gap is seen at 501 and given up at 701.
    assert!(last.unwrap().at <= Instant::from_millis(1_000 + 701));
}

#[test]
fn retransmissions_with_the_sources_own_ssrc_are_taken_too() {
    let mut w = World::new(with_feedback(Feedback::default()));
    w.play(SSRC, 0..20, 0, |n| n == 10);
    let mut p = retransmission(&packet(SSRC, 10, 0), 1);
    p[8..12].copy_from_slice(&SSRC.to_be_bytes());
    w.rtp(ms(30), &p);
    w.run(ms(300));
    w.assert_genuine();
    assert_eq!(w.out.len(), 20);
    assert_eq!(w.media.statistics().recovered_rtx, 1);
}

#[test]
fn retransmissions_of_another_source_are_refused() {
    let mut config = with_feedback(Feedback::default());
    config.rtx_ssrcs = vec![(SSRC + 1, RTX_SSRC)];
    let mut w = World::new(config);
    w.play(SSRC, 0..20, 0, |n| n == 10);
    w.rtp(ms(30), &retransmission(&packet(SSRC, 10, 0), 1));
    w.run(ms(300));
    assert_eq!(w.out.len(), 19);
    assert_eq!(w.refused, [Discard::ForeignSource]);

    // Learned by what it repeats first; another one then is a stranger.
    let mut w = World::new(with_feedback(Feedback::default()));
    w.play(SSRC, 0..20, 0, |n| n == 10 || n == 12);
    w.rtp(ms(30), &retransmission(&packet(SSRC, 10, 0), 1));
    let mut other = retransmission(&packet(SSRC, 12, 0), 1);
    other[8..12].copy_from_slice(&77u32.to_be_bytes());
    w.rtp(ms(31), &other);
    w.run(ms(300));
    assert_eq!(w.out.len(), 19);
    assert_eq!(w.refused, [Discard::ForeignSource]);
}

/// What can be rebuilt of `lost` in a matrix code, by the rules alone.
fn residue(lost: &BTreeSet<u64>, columns: u64, rows: u64, with_rows: bool) -> BTreeSet<u64> {
    let mut lost = lost.clone();
    let size = columns * rows;
    loop {
        let before = lost.len();
        for matrix in 0..PACKETS / size {
            let base = matrix * size;
            let mut groups: Vec<Vec<u64>> = (0..columns)
                .map(|c| (0..rows).map(|r| base + r * columns + c).collect())
                .collect();
            if with_rows {
                groups.extend(
                    (0..rows).map(|r| (0..columns).map(|c| base + r * columns + c).collect()),
                );
            }
            for group in groups {
                let missing: Vec<_> = group.iter().filter(|n| lost.contains(n)).collect();
                if let [one] = missing[..] {
                    lost.remove(&one.clone());
                }
            }
        }
        if lost.len() == before {
            return lost;
        }
    }
}

fn play_with_fec(w: &mut World, lost: &BTreeSet<u64>, columns: u64, rows: u64, with_rows: bool) {
    let size = columns * rows;
    let packets: Vec<_> = (0..PACKETS).map(|n| packet(SSRC, n, 65_000)).collect();
    w.play(SSRC, 0..PACKETS, 65_000, |n| lost.contains(&n));
    for base in (0..PACKETS).step_by(size as usize) {
        for c in 0..columns {
            let members: Vec<&[u8]> = (0..rows)
                .map(|r| &packets[(base + r * columns + c) as usize][..])
                .collect();
            let fec = protection(&members, columns as u8, false);
            // Spread over the following matrix.
            w.rtp_on(ms(base + size + c * rows), 0, Role::FecColumn, &fec);
        }
        for r in (0..rows).filter(|_| with_rows) {
            let members: Vec<&[u8]> = (0..columns)
                .map(|c| &packets[(base + r * columns + c) as usize][..])
                .collect();
            let fec = protection(&members, 1, true);
            w.rtp_on(ms(base + (r + 1) * columns), 0, Role::FecRow, &fec);
        }
    }
}

#[test]
fn fec_gives_back_exactly_what_its_matrices_can() {
    for (columns, rows, with_rows) in [(5, 5, true), (5, 5, false), (10, 10, true), (20, 5, false)]
    {
        let lost = losses(columns * 7 + rows);
        let stays = residue(&lost, columns, rows, with_rows);
        let mut w = World::new(MediaConfig {
            fec: Some(FecLimits::default()),
            jitter_buffer: ms(400),
            ..config()
        });
        play_with_fec(&mut w, &lost, columns, rows, with_rows);
        w.run(ms(PACKETS + 1000));
        w.assert_genuine();
        let (count, residue) = (lost.len() as u64, stays.len() as u64);
        assert_eq!(
            figures(&w),
            (count, residue, PACKETS - residue),
            "{columns} × {rows}, rows {with_rows}"
        );
        let s = w.media.statistics();
        assert_eq!((s.recovered_fec, s.fec_refused), (count - residue, 0));
        assert!(residue < count / if with_rows { 8 } else { 2 }, "{residue}");
    }
}

#[test]
fn fec_that_comes_too_late_is_no_use_and_no_harm() {
    let lost = losses(9);
    let mut w = World::new(MediaConfig {
        fec: Some(FecLimits::default()),
        jitter_buffer: ms(10),
        ..config()
    });
    play_with_fec(&mut w, &lost, 10, 10, false);
    w.run(ms(PACKETS + 1000));
    w.assert_genuine();
    let (count, dropped, unique) = figures(&w);
    assert_eq!(count, lost.len() as u64);
    assert_eq!(unique + dropped, PACKETS);
    assert!(dropped > count * 4 / 5);
}

#[test]
fn fec_read_before_the_packets_that_it_protects_makes_no_loss() {
    let mut w = World::new(MediaConfig {
        fec: Some(FecLimits::default()),
        ..config()
    });
    let packets: Vec<_> = (0..100).map(|n| packet(SSRC, n, 0)).collect();
    w.play(SSRC, 0..100, 0, |_| false);
    for base in (0..100).step_by(5) {
        let members: Vec<&[u8]> = (base..base + 5).map(|n| &packets[n][..]).collect();
        // One packet too soon.
        let at = Duration::from_micros(base as u64 * 1000 + 3_500);
        w.rtp_on(at, 0, Role::FecRow, &protection(&members, 1, true));
    }
    w.run(ms(500));
    assert_eq!(figures(&w), (0, 0, 100));
    assert_eq!(w.media.statistics().recovered_fec, 0);
}

#[test]
fn two_paths_lose_only_what_both_lose() {
    let (first, second) = (losses(21), losses(22));
    let both = first.intersection(&second).count() as u64;
    let either = (first.len() + second.len()) as u64;
    for skew in [0, 12, 150] {
        let mut w = World::new(MediaConfig {
            legs: 2,
            ..config()
        });
        for n in 0..PACKETS {
            let p = packet(SSRC, n, 60_000);
            w.sent.insert(sequence_of(&p), p.clone());
            if !first.contains(&n) {
                w.rtp_on(ms(n), 0, Role::Media, &p);
            }
            if !second.contains(&n) {
                w.rtp_on(ms(n + skew), 1, Role::Media, &p);
            }
        }
        w.run(ms(PACKETS + 1000));
        w.assert_genuine();
        assert!(both > 5);
        let (_, dropped, unique) = figures(&w);
        assert_eq!((dropped, unique), (both, PACKETS - both), "skew {skew}");
        w.media.close(w.now);
        w.drain();
        let s = w.media.statistics();
        assert_eq!(s.recovered_2022_7, either - 2 * both);
        let lost = s.legs.map(|leg| leg.packets_lost);
        assert_eq!(lost, [first.len() as u64, second.len() as u64]);
        assert_eq!(s.source.packets_duplicate, 0);
        assert_eq!(s.source.packets_reordered, 0);
        let skew = skew as i64 * 1000;
        assert!(
            (s.legs[1].skew_us - skew).abs() < 100 + skew / 100,
            "{:?}",
            s.legs
        );
        assert_eq!(s.legs[0].skew_us, -s.legs[1].skew_us);
        assert!(w.refused.is_empty());
    }
}

#[test]
fn one_path_may_fail_and_come_back_without_a_loss() {
    let mut w = World::new(MediaConfig {
        legs: 2,
        ..config()
    });
    for n in 0..20_000u64 {
        let p = packet(SSRC, n, 0);
        w.sent.insert(sequence_of(&p), p.clone());
        if !(3_000..12_000).contains(&n) {
            w.rtp_on(ms(n), 0, Role::Media, &p);
        }
        if !(14_000..14_500).contains(&n) {
            w.rtp_on(ms(n + 20), 1, Role::Media, &p);
        }
    }
    w.run(ms(21_000));
    w.assert_genuine();
    assert_eq!(w.out.len(), 20_000);
    assert_eq!(
        w.events,
        [
            MediaEvent::SourceValid { ssrc: SSRC },
            MediaEvent::LegDown(0),
            MediaEvent::LegUp(0)
        ]
    );
    let s = w.media.statistics();
    assert_eq!(s.legs.map(|leg| leg.packets_lost), [9_000, 500]);
    assert!(s.legs[0].is_up && s.legs[1].is_up);
}

#[test]
fn what_a_path_brings_under_a_used_number_must_be_the_same() {
    let mut w = World::new(MediaConfig {
        legs: 2,
        ..config()
    });
    for n in 0..100 {
        let p = packet(SSRC, n, 0);
        w.sent.insert(sequence_of(&p), p.clone());
        w.rtp_on(ms(n), 0, Role::Media, &p);
        let mut other = p.clone();
        match n % 3 {
            0 => other[5] ^= 1,
            1 => other[1] ^= 0x80,
            _ => other.truncate(50),
        }
        w.rtp_on(ms(n + 3), 1, Role::Media, &other);
    }
    w.run(ms(500));
    w.assert_genuine();
    assert_eq!(w.out.len(), 100);
    assert!(w.media.statistics().legs[1].packets_foreign >= 96);
}

#[test]
fn all_recoveries_together_lose_nothing_and_count_each_packet_once() {
    let (first, second) = (losses(31), losses(32));
    let feedback = Feedback {
        nack: true,
        ..Feedback::default()
    };
    let mut w = World::new(MediaConfig {
        legs: 2,
        fec: Some(FecLimits::default()),
        jitter_buffer: ms(400),
        ..with_feedback(feedback)
    });
    w.answer = Some(Box::new(|| Some(ms(60))));
    let both: BTreeSet<u64> = first.intersection(&second).copied().collect();
    play_with_fec(&mut w, &first, 10, 10, true);
    for n in (0..PACKETS).filter(|n| !second.contains(n)) {
        w.rtp_on(ms(n + 30), 1, Role::Media, &packet(SSRC, n, 65_000));
    }
    w.run(ms(PACKETS + 1000));
    w.assert_genuine();
    assert_eq!(w.out.len() as u64, PACKETS);
    let s = w.media.statistics();
    assert_eq!(s.source.packets_dropped, 0);
    assert!(s.recovered_fec > 0 && s.recovered_2022_7 > 0);
    assert_eq!(s.source.packets_unique, PACKETS);
    // What the second path brings is not asked for.
    assert!(
        s.packets_nacked < 3 * both.len() as u64 + 20,
        "{}",
        s.packets_nacked
    );
}

#[test]
fn repairs_hold_nothing_up_longer_than_the_jitter_buffer() {
    // Ten are lost in a row, each second one is given back late.
    let mut w = World::new(with_feedback(Feedback::default()));
    w.play(SSRC, 0..100, 0, |n| (40..50).contains(&n));
    for (i, n) in (41..50).step_by(2).enumerate() {
        let p = retransmission(&packet(SSRC, n, 0), i as u16);
        w.rtp(ms(50 + 190), &p);
    }
    w.run(ms(2000));
    assert_eq!(w.out.len(), 95);
    // The gap is seen at 50 and over at 250.
    let latest = w.out.iter().map(|o| o.at).max().unwrap();
    assert_eq!(latest, Instant::from_millis(1_000 + 250));
}

#[test]
fn the_ring_keeps_what_fec_may_need() {
    let mut w = World::new(MediaConfig {
        fec: Some(FecLimits::default()),
        ..config()
    });
    play_with_fec(&mut w, &BTreeSet::new(), 5, 4, true);
    w.run(ms(5_000));
    let media = &w.media;
    assert_eq!(media.delivery_index() - media.release_index(), 2 * 20);
}

#[test]
fn two_ssrcs_that_bring_the_same_packets_are_two_paths() {
    let (first, second) = (losses(41), losses(42));
    let both = first.intersection(&second).count() as u64;
    let mut w = World::new(MediaConfig {
        legs: 2,
        duplicate_ssrcs: vec![(SSRC, SSRC + 1)],
        ..config()
    });
    for n in 0..PACKETS {
        let p = packet(SSRC, n, 60_000);
        if !first.contains(&n) {
            w.rtp(ms(n), &p);
        }
        if !second.contains(&n) {
            w.rtp(ms(n + 40), &packet(SSRC + 1, n, 60_000));
        }
    }
    w.run(ms(PACKETS + 1000));
    let (_, dropped, unique) = figures(&w);
    assert_eq!((dropped, unique), (both, PACKETS - both));
    assert_eq!(w.events, [MediaEvent::SourceValid { ssrc: SSRC }]);
}

#[test]
fn fec_on_the_media_port_is_told_by_its_payload_type() {
    let mut w = World::new(MediaConfig {
        fec: Some(FecLimits::default()),
        fec_payload_types: vec![100],
        ..config()
    });
    w.play(SSRC, 0..100, 0, |n| n == 50);
    let packets: Vec<_> = (48..53).map(|n| packet(SSRC, n, 0)).collect();
    let members: Vec<&[u8]> = packets.iter().map(|p| &p[..]).collect();
    let mut fec = protection(&members, 1, true);
    fec[1] = fec[1] & 0x80 | 100;
    w.rtp(ms(70), &fec);
    w.run(ms(500));
    w.assert_genuine();
    assert_eq!(w.out.len(), 100);
}

/// Packet `n` with some of what a header can have: CSRCs, an extension, padding.
fn adorned(n: u64) -> Vec<u8> {
    let mut p = packet(SSRC, n, 500);
    let payload = p.split_off(12);
    if n % 3 == 1 {
        p[0] |= 2;
        p.extend_from_slice(&[0, 0, 0, 77, 0, 0, 0, n as u8]);
    }
    if n % 4 == 2 {
        p[0] |= 0x10;
        p.extend_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, n as u8, 0, 0]);
    }
    p.extend_from_slice(&payload);
    if n % 5 < 3 {
        let padding = [4, 1, 200][n as usize % 5];
        p[0] |= 0x20;
        p.resize(p.len() + padding - 1, 0xAA);
        p.push(padding as u8);
    }
    p
}

#[test]
fn fec_rebuilds_packets_with_padding_extension_and_contributors_and_those_beside_them() {
    let packets: Vec<_> = (0..100).map(adorned).collect();
    // Each packet of a row in turn, whatever it and its neighbours bear.
    for lost in 20..40_u64 {
        let mut w = World::new(MediaConfig {
            fec: Some(FecLimits::default()),
            ..config()
        });
        for n in (0..100).filter(|n| *n != lost) {
            w.rtp(ms(n), &packets[n as usize]);
        }
        for row in 0..10_u64 {
            let members: Vec<&[u8]> = (0..10)
                .map(|i| &packets[(row * 10 + i) as usize][..])
                .collect();
            w.rtp_on(
                ms(row * 10 + 12),
                0,
                Role::FecRow,
                &protection(&members, 1, true),
            );
        }
        w.run(ms(500));
        assert_eq!(w.media.statistics().recovered_fec, 1, "{lost}");
        assert_eq!(w.out.len(), 100);
        let slot = w
            .out
            .iter()
            .position(|o| sequence_of(&o.packet) == 500 + lost as u16);
        let rebuilt = w.ring.get_datagram(slot.unwrap() as u64).unwrap();
        assert_eq!(rebuilt, packets[lost as usize], "{lost}");
    }
}

/// Packet `n` of a row of ten, as long as `length` says, with `padding` bytes of zeros and a count.
fn padded(n: u64, length: usize, padding: u8) -> Vec<u8> {
    let mut p = packet(SSRC, n, 500);
    p.truncate(12);
    p.extend((0..length).map(|i| 1 + (n as usize * 31 + i * 7) as u8 % 250));
    if padding > 0 {
        p[0] |= 0x20;
        p.resize(p.len() + usize::from(padding) - 1, 0);
        p.push(padding);
    }
    p
}

/// `original` as RFC 4588 repeats it: without its padding.
fn bare_retransmission(original: &[u8]) -> Vec<u8> {
    let mut bare = original.to_vec();
    if bare[0] & 0x20 != 0 {
        bare.truncate(bare.len() - usize::from(original[original.len() - 1]));
        bare[0] &= !0x20;
    }
    retransmission(&bare, 0)
}

/// The payload that is put together of packet 44 when 42 was repeated and 44 never came.
fn rebuilt_beside_a_repetition(row: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut w = World::new(MediaConfig {
        fec: Some(FecLimits::default()),
        ..with_feedback(Feedback::default())
    });
    for n in (0..60_u64).filter(|n| ![42, 44].contains(n)) {
        match n {
            40..50 => w.rtp(ms(n), &row[n as usize - 40]),
            _ => w.rtp(ms(n), &packet(SSRC, n, 500)),
        }
    }
    w.rtp(ms(52), &bare_retransmission(&row[2]));
    let members: Vec<&[u8]> = row.iter().map(|p| &p[..]).collect();
    w.rtp_on(ms(55), 0, Role::FecRow, &protection(&members, 1, true));
    w.run(ms(500));
    assert_eq!(w.media.statistics().recovered_rtx, 1);
    let rebuilt = w.out.iter().find(|o| sequence_of(&o.packet) == 544);
    rebuilt.map(|o| o.packet[12..].to_vec())
}

#[test]
fn fec_rebuilds_what_stands_beside_a_padded_packet_that_was_repeated_without_its_padding() {
    // The longest of the row, the shortest, as long as the others (with its padding or without).
    for (length, padding) in [(300, 4), (60, 4), (100, 8), (96, 4), (20, 80), (7, 91)] {
        let row = |n| match n {
            42 => padded(n, length, padding),
            _ => padded(n, 100, 0),
        };
        let row: Vec<_> = (40..50).map(row).collect();
        let rebuilt = rebuilt_beside_a_repetition(&row).unwrap_or_default();
        assert_eq!(rebuilt, row[4][12..], "{length} {padding}");
    }
    // Padded is the lost one, not the repeated one, or neither.
    for (length, padding) in [(100, 4), (90, 10), (100, 0)] {
        let row = |n| match n {
            44 => padded(n, length, padding),
            _ => padded(n, 100, 0),
        };
        let row: Vec<_> = (40..50).map(row).collect();
        let rebuilt = rebuilt_beside_a_repetition(&row).unwrap_or_default();
        assert_eq!(rebuilt, row[4][12..12 + length], "{length} {padding}");
    }
}

#[test]
fn a_packet_is_not_rebuilt_where_the_padding_beside_it_could_be_another() {
    // It ends with zeros: it is as good a packet if it ends before them.
    let mut row: Vec<_> = (40..50).map(|n| padded(n, 100, 0)).collect();
    row[2] = padded(42, 60, 4);
    row[4][12 + 60..].fill(0);
    assert_eq!(rebuilt_beside_a_repetition(&row), None);
}
