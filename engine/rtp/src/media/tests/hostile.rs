//! What a peer must not be able to do: exhaust, confuse or crash a configured session.

use super::*;

fn everything() -> MediaConfig {
    let feedback = Feedback {
        nack: true,
        pli: true,
        fir: true,
        reduced_size: true,
        ..Feedback::default()
    };
    MediaConfig {
        fec: Some(FecLimits::default()),
        ..with_feedback(feedback)
    }
}

#[test]
fn ten_thousand_ssrcs_a_second_neither_hide_the_source_nor_take_memory() {
    let mut w = World::new(config());
    w.play(SSRC, 0..3_000, 0, |_| false);
    for i in 0..30_000u64 {
        let at = Duration::from_micros(i * 100 + 50);
        w.rtp_from(at, "203.0.113.5:1000", &packet(0x10_0000 + i as u32, i, 0));
    }
    w.run(ms(3_200));
    w.assert_genuine();
    assert_eq!(w.out.len(), 3_000);
    assert!(w.media.candidates.kept() <= 64);
    assert!(w.media.statistics().packets_foreign > 29_900);
    // A real restart amid the noise is still found.
    for n in 0..1000u64 {
        let p = packet(0xBEEF, n, 30_000);
        w.sent.insert(sequence_of(&p), p.clone());
        w.rtp(ms(n), &p);
    }
    for i in 0..10_000u64 {
        let at = Duration::from_micros(i * 100 + 50);
        w.rtp_from(at, "203.0.113.5:1000", &packet(0x20_0000 + i as u32, i, 0));
    }
    w.run(ms(1_200));
    assert_eq!(w.out.len(), 4_000);
}

#[test]
fn fec_headers_that_lie_are_refused() {
    let mut w = World::new(everything());
    w.play(SSRC, 0..100, 0, |n| n == 50);
    let packets: Vec<_> = (48..53).map(|n| packet(SSRC, n, 0)).collect();
    let members: Vec<&[u8]> = packets.iter().map(|p| &p[..]).collect();
    let good = protection(&members, 1, true);
    let lies: [(&[(usize, u8)], Discard); 12] = [
        (&[(16, 0)], Discard::MalformedPayload),         // E = 0
        (&[(17, 1)], Discard::MalformedPayload),         // a mask
        (&[(24, 0xC0)], Discard::MalformedPayload),      // X
        (&[(24, 0x48)], Discard::MalformedPayload),      // not XOR
        (&[(24, 0x41)], Discard::MalformedPayload),      // index
        (&[(25, 0)], Discard::MalformedPayload),         // offset 0
        (&[(26, 0)], Discard::MalformedPayload),         // nothing protected
        (&[(25, 3)], Discard::MalformedPayload),         // a row with gaps
        (&[(26, 200)], Discard::LimitExceeded),          // 200 columns
        (&[(24, 0), (25, 200)], Discard::LimitExceeded), // the same in columns
        (&[(12, 0x40)], Discard::BeyondWindow),          // far ahead
        (&[(0, 0x00)], Discard::RtpVersion),
    ];
    for (changes, reason) in lies {
        let mut lie = good.clone();
        for (at, byte) in changes {
            lie[*at] = *byte;
        }
        w.refused.clear();
        w.rtp_on(ms(60), 0, Role::FecRow, &lie);
        let mut trial = Media::new(w.now, everything(), 0);
        core::mem::swap(&mut trial, &mut w.media);
        let mut ring = SlotRing::with_owned_chunks(16);
        for n in (0..60).filter(|n| *n != 50) {
            let origin = Origin {
                leg: 0,
                role: Role::Media,
                from: addr("192.0.2.1:5004"),
            };
            let _ = w
                .media
                .handle_rtp(w.now, w.now, &origin, &packet(SSRC, n, 0), &mut ring);
        }
        let origin = Origin {
            leg: 0,
            role: Role::FecRow,
            from: addr("192.0.2.1:5008"),
        };
        let result = w.media.handle_rtp(w.now, w.now, &origin, &lie, &mut ring);
        assert_eq!(result, Err(reason), "{changes:?}");
        assert_eq!(w.media.statistics().recovered_fec, 0);
        for cut in 0..lie.len().min(40) {
            let _ = w
                .media
                .handle_rtp(w.now, w.now, &origin, &lie[..cut], &mut ring);
        }
        core::mem::swap(&mut trial, &mut w.media);
    }
}

#[test]
fn fec_whose_length_or_content_does_not_add_up_rebuilds_nothing() {
    let packets: Vec<_> = (48..53).map(|n| packet(SSRC, n, 0)).collect();
    let members: Vec<&[u8]> = packets.iter().map(|p| &p[..]).collect();
    let good = protection(&members, 1, true);
    // Lengths: longer than the payload, shorter than what is left; a payload type of nobody.
    for (at, flip) in [(14, 0xFF), (15, 0x7F), (15, 0x08), (16, 0x01)] {
        let mut lie = good.clone();
        lie[at] ^= flip;
        let mut w = World::new(everything());
        w.play(SSRC, 0..100, 0, |n| n == 50);
        w.rtp_on(ms(70), 0, Role::FecRow, &lie);
        w.run(ms(500));
        w.assert_genuine();
        assert_eq!(w.out.len(), 99);
        assert_eq!(w.media.statistics().recovered_fec, 0, "{at}");
    }
    let mut w = World::new(everything());
    w.play(SSRC, 0..100, 0, |n| n == 50);
    w.rtp_on(ms(70), 0, Role::FecRow, &good);
    w.run(ms(500));
    w.assert_genuine();
    assert_eq!(w.media.statistics().recovered_fec, 1);
}

#[test]
fn padded_packets_and_those_beside_them_are_rebuilt_as_they_were_sent() {
    let mut packets: Vec<_> = (48..53).map(|n| packet(SSRC, n, 0)).collect();
    packets[1][0] |= 0x20;
    packets[1].extend_from_slice(&[0, 0, 0, 4]);
    let members: Vec<&[u8]> = packets.iter().map(|p| &p[..]).collect();
    let fec = protection(&members, 1, true);
    for missing in [1, 2] {
        let mut w = World::new(everything());
        for n in 0..100 {
            let p = match n {
                48..53 => packets[n as usize - 48].clone(),
                _ => packet(SSRC, n, 0),
            };
            if n != 48 + missing {
                w.rtp(ms(n), &p);
            }
        }
        w.rtp_on(ms(70), 0, Role::FecRow, &fec);
        w.run(ms(500));
        let rebuilt = w
            .out
            .iter()
            .find(|o| u64::from(sequence_of(&o.packet)) == 48 + missing);
        match missing {
            // The padded one itself: its padding is protected as it was sent.
            1 => assert_eq!(rebuilt.unwrap().packet, packets[1][..packets[1].len() - 4]),
            _ => assert_eq!(rebuilt.unwrap().packet, packets[2]),
        }
    }
}

#[test]
fn random_datagrams_on_every_port_are_survived_and_bounded() {
    let mut dice = Dice(0x1234_5678_9ABC_DEF1);
    for legs in [1, 2] {
        let mut w = World::new(MediaConfig {
            legs,
            ..everything()
        });
        w.answer = Some(Box::new(|| Some(ms(5))));
        for round in 0..60_000u64 {
            let mut bytes = match dice.roll(8) {
                0..3 => packet(SSRC, round, 0),
                3 => packet(dice.roll(5) as u32, dice.roll(70_000), 0),
                4 => retransmission(&packet(SSRC, round.saturating_sub(dice.roll(50)), 0), 0),
                5 => {
                    let base = round.saturating_sub(dice.roll(40));
                    let step = 1 + dice.roll(6);
                    let members: Vec<_> = (0..1 + dice.roll(6))
                        .map(|i| packet(SSRC, base + i * step, 0))
                        .collect();
                    let members: Vec<&[u8]> = members.iter().map(|p| &p[..]).collect();
                    protection(&members, step as u8, step == 1)
                }
                _ => sender_report(SSRC, dice.roll(u64::MAX), round as u32, false),
            };
            for _ in 0..dice.roll(3) {
                let at = dice.roll(bytes.len() as u64) as usize;
                bytes[at.min(40)] ^= 1 << dice.roll(8);
            }
            bytes.truncate(bytes.len() - dice.roll(8).min(2) as usize * dice.roll(20) as usize);
            let leg = dice.roll(2) as u8;
            let is_rtcp = bytes.get(1).is_some_and(|b| (192..=223).contains(b));
            let after = Duration::from_micros(dice.roll(2_000));
            if is_rtcp {
                w.rtcp(after, "192.0.2.1:5005", &bytes);
            } else {
                let roles = [Role::Media, Role::Media, Role::FecColumn, Role::FecRow];
                w.rtp_on(after, leg, roles[dice.roll(4) as usize], &bytes);
            }
            if dice.roll(50) == 0 {
                w.media.request_key_frame(w.now);
            }
            w.run(Duration::from_micros(dice.roll(1_500)));
            w.said.clear();
            w.out.clear();
            w.refused.clear();
            let s = w.media.statistics();
            assert!(w.media.candidates.kept() <= 600);
            assert!(w.media.events.len() <= MAX_EVENTS);
            assert!(s.source.packets_held <= 3000);
        }
        w.media.close(w.now);
        // In a crowd the BYE waits for its turn.
        w.run(Duration::from_secs(3600));
        assert!(w.media.is_drained());
    }
}

#[test]
fn a_flood_of_losses_takes_bounded_feedback() {
    let mut w = World::new(everything());
    // Every second packet is lost for ten seconds.
    w.play(SSRC, 0..10_000, 0, |n| n % 2 == 1);
    w.run(ms(10_500));
    let bytes: usize = w.said.iter().map(|s| s.bytes.len() + 28).sum();
    // 5 % of 10 Mb/s for 10.5 s.
    assert!(bytes < 656_000, "{bytes}");
    assert!(w.said.iter().all(|s| s.bytes.len() <= 1200));
}

#[test]
fn a_ring_without_room_is_survived() {
    let mut w = World::new(everything());
    w.ring = SlotRing::new();
    w.play(SSRC, 0..500, 0, |n| n % 20 == 3);
    w.run(ms(250));
    assert!(w.refused.contains(&Discard::NoBuffer) && w.out.is_empty());
    w.ring = {
        let mut ring = SlotRing::with_owned_chunks(32);
        ring.release_before(w.media.delivery_index());
        ring
    };
    w.run(ms(800));
    w.assert_genuine();
    assert!(w.out.len() > 200);
}
