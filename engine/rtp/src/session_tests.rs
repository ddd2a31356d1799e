//! Sessions in virtual time, by hand-made packets.

use core::time::Duration;

use super::*;

const SSRC: u32 = 0xABCD;

struct Bench {
    session: Session,
    ring: SlotRing,
    now: Instant,
    /// Sequence numbers as delivered, with what was lost before each.
    out: Vec<(u16, u32, bool)>,
    last: Option<Delivery>,
}

fn packet(sequence: u16) -> Vec<u8> {
    let mut p = vec![0x80, 96];
    p.extend_from_slice(&sequence.to_be_bytes());
    p.extend_from_slice(&(u32::from(sequence) * 3600).to_be_bytes());
    p.extend_from_slice(&SSRC.to_be_bytes());
    p.extend_from_slice(&sequence.to_be_bytes());
    p
}

impl Bench {
    fn new(config: &Config) -> Self {
        Bench {
            session: Session::new(Instant::ZERO, SSRC, config, 0),
            ring: SlotRing::with_owned_chunks(16),
            now: Instant::ZERO,
            out: Vec::new(),
            last: None,
        }
    }

    fn push(&mut self, sequence: u16) -> Result<(), Discard> {
        let p = packet(sequence);
        let header = Header::parse(&p).unwrap();
        let r = self
            .session
            .handle_rtp(self.now, self.now, &header, &p, &mut self.ring);
        self.drain();
        r
    }

    fn drain(&mut self) {
        while let Some(d) = self.session.poll_delivery(self.now, &self.ring) {
            let payload = self.ring.get(d.slot).unwrap().payload;
            let sequence = u16::from_be_bytes([payload[0], payload[1]]);
            self.out.push((sequence, d.lost_before, d.discontinuity));
            self.last = Some(d);
        }
        self.ring.release_before(self.session.delivery_index());
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.session.handle_timeout(self.now);
        self.drain();
    }

    fn sequences(&self) -> Vec<u16> {
        self.out.iter().map(|o| o.0).collect()
    }
}

fn running(first: u16) -> Bench {
    let mut b = Bench::new(&Config::default());
    b.push(first).unwrap();
    b.push(first.wrapping_add(1)).unwrap();
    assert_eq!(b.session.poll_event(), Some(Event::Validated));
    b
}

#[test]
fn packets_of_probation_are_kept_and_released_when_the_source_is_valid() {
    let mut b = Bench::new(&Config::default());
    assert_eq!(b.push(10), Ok(()));
    assert_eq!(b.push(13), Ok(()));
    assert_eq!((b.session.poll_event(), b.out.len()), (None, 0));
    assert_eq!(b.push(13), Err(Discard::Duplicate));
    assert_eq!(b.push(14), Ok(()));
    assert_eq!(b.session.poll_event(), Some(Event::Validated));
    // What is missing between them may still come, as in any gap.
    assert_eq!(b.out, [(10, 0, false)]);
    b.push(12).unwrap();
    b.wait(50);
    assert_eq!(b.out[1..], [(12, 1, false), (13, 0, false), (14, 0, false)]);
    assert_eq!(b.session.statistics().packets_unique, 4);
}

#[test]
fn probation_keeps_a_bounded_number_of_packets() {
    let mut b = Bench::new(&Config::default());
    for i in 0..1000u16 {
        let _ = b.push(i.wrapping_mul(7919));
    }
    assert!(b.session.held.len() <= MAX_HELD && b.out.is_empty());
    assert_eq!(
        b.session.statistics().packets_rejected,
        1000 - MAX_HELD as u64
    );
}

#[test]
fn a_gap_is_waited_for_as_long_as_the_jitter_buffer_and_no_longer() {
    let mut b = running(100);
    b.push(103).unwrap();
    let due = b.now + Duration::from_millis(50);
    assert_eq!(b.session.poll_timeout(), Some(due));
    b.wait(49);
    assert_eq!(b.sequences(), [100, 101]);
    b.wait(1);
    assert_eq!(b.out.last(), Some(&(103, 1, false)));
    assert_eq!(b.last.unwrap().due, due);
    let s = b.session.statistics();
    assert_eq!(
        (s.packets_lost, s.packets_dropped, s.packets_held),
        (1, 1, 0)
    );
    // Too late now, and not taken for a duplicate.
    assert_eq!(b.push(102), Err(Discard::Belated));
    assert_eq!(b.push(101), Err(Discard::Duplicate));
    let s = b.session.statistics();
    assert_eq!((s.packets_late, s.packets_duplicate), (1, 1));
}

#[test]
fn reordered_packets_leave_in_order_and_are_due_when_the_gap_closed() {
    let mut b = running(65_534);
    b.push(2).unwrap();
    b.push(1).unwrap();
    b.now += Duration::from_millis(7);
    b.push(0).unwrap();
    assert_eq!(b.sequences(), [65_534, 65_535, 0, 1, 2]);
    assert_eq!(b.last.unwrap().due, b.now);
    let s = b.session.statistics();
    assert_eq!(
        (s.packets_lost, s.packets_reordered, s.packets_dropped),
        (2, 2, 0)
    );
}

#[test]
fn a_gap_inside_a_gap_is_found_after_the_first_is_repaired() {
    let mut b = running(0);
    b.push(6).unwrap();
    b.push(4).unwrap();
    b.push(3).unwrap();
    b.push(2).unwrap();
    assert_eq!(b.sequences(), [0, 1, 2, 3, 4]);
    b.wait(50);
    assert_eq!(b.out.last(), Some(&(6, 1, false)));
}

#[test]
fn a_full_reorder_window_is_not_waited_for() {
    let config = Config {
        reorder_packets: 4,
        ..Config::default()
    };
    let mut b = Bench::new(&config);
    for s in [0, 1, 3, 4, 5] {
        b.push(s).unwrap();
    }
    assert_eq!(b.sequences(), [0, 1]);
    b.push(6).unwrap();
    assert_eq!(b.sequences(), [0, 1, 3, 4, 5, 6]);
}

#[test]
fn a_gap_wider_than_the_window_is_given_up_at_once() {
    let mut b = running(0);
    b.push(2_500).unwrap();
    assert_eq!(b.out.last(), Some(&(2_500, 2_498, false)));
    assert_eq!(b.session.statistics().packets_dropped, 2_498);
    assert_eq!(b.push(2_499), Err(Discard::Belated));
    b.push(2_502).unwrap();
    b.push(2_501).unwrap();
    assert_eq!(b.sequences(), [0, 1, 2_500, 2_501, 2_502]);
}

#[test]
fn two_packets_in_sequence_after_a_jump_are_a_restart_that_loses_nothing() {
    let mut b = running(0);
    b.push(3).unwrap();
    assert_eq!(b.push(20_000), Ok(()));
    assert_eq!(b.sequences(), [0, 1]);
    assert_eq!(b.push(20_001), Ok(()));
    assert_eq!(b.session.poll_event(), Some(Event::Restarted));
    let expected = [(3, 1, false), (20_000, 0, true), (20_001, 0, false)];
    assert_eq!(b.out[2..], expected);
    assert_eq!(b.session.statistics().restarts, 1);
    // Before the new numbering.
    assert_eq!(b.push(19_990), Err(Discard::Belated));
}

#[test]
fn an_outage_over_which_the_timestamps_go_on_is_loss_and_no_restart() {
    // 30 packets a frame of 40 ms; the outage spans 3 999 of them and the number's wrap.
    for first in [0u16, 63_000] {
        let mut b = Bench::new(&Config::default());
        let mut push = |n: u32, ms: u64| {
            let mut p = packet(first.wrapping_add(n as u16));
            p[4..8].copy_from_slice(
                &(u32::MAX - 9_000)
                    .wrapping_add(n / 30 * 3_600)
                    .to_be_bytes(),
            );
            let header = Header::parse(&p).unwrap();
            b.now = Instant::from_millis(1_000 + ms);
            let pushed = b.session.handle_rtp(b.now, b.now, &header, &p, &mut b.ring);
            b.drain();
            pushed
        };
        for n in 0..3 {
            push(n, 0).unwrap();
        }
        for n in 4_002..4_005 {
            push(n, 5_320).unwrap();
        }
        let expected = [(4_002, 3_999, false), (4_003, 0, false), (4_004, 0, false)];
        let expected = expected.map(|(n, lost, d)| (first.wrapping_add(n), lost, d));
        assert_eq!(b.out[3..], expected);
        let s = b.session.statistics();
        assert_eq!(
            (s.packets_received, s.packets_unique, s.restarts),
            (6, 6, 0)
        );
        assert_eq!((s.packets_lost, s.packets_dropped), (3_999, 3_999));
        assert_eq!(s.jitter_us, 0);
        assert_eq!(b.session.poll_event(), Some(Event::Validated));
        assert_eq!(b.session.poll_event(), None);
        // The numbering is still the same: what overtook no one is late.
        assert_eq!(b.push(first.wrapping_add(4_001)), Err(Discard::Belated));
        b.push(first.wrapping_add(4_005)).unwrap();
    }
}

#[test]
fn a_lone_stray_changes_nothing() {
    let mut b = running(0);
    b.push(30_000).unwrap();
    b.push(2).unwrap();
    assert_eq!(b.push(40_000), Err(Discard::RtpProbation));
    b.push(3).unwrap();
    assert_eq!(b.sequences(), [0, 1, 2, 3]);
    assert_eq!(
        (b.session.poll_event(), b.session.statistics().restarts),
        (None, 0)
    );
}

#[test]
fn packets_without_room_are_given_up_and_the_session_goes_on() {
    let mut b = running(0);
    let mut none = SlotRing::new();
    core::mem::swap(&mut none, &mut b.ring);
    assert_eq!(b.push(2), Err(Discard::NoBuffer));
    core::mem::swap(&mut none, &mut b.ring);
    b.push(3).unwrap();
    assert_eq!(b.out.last(), Some(&(3, 1, false)));
}

#[test]
fn silence_ends_the_session_and_releases_what_is_held() {
    let mut b = running(0);
    b.push(5).unwrap();
    b.session.handle_timeout(Instant::from_millis(9_999));
    assert_eq!(b.session.poll_event(), None);
    b.session.handle_timeout(Instant::from_millis(10_000));
    assert_eq!(
        b.session.poll_event(),
        Some(Event::Closed(CloseReason::Timeout))
    );
    assert!(!b.session.is_drained());
    b.drain();
    assert_eq!(b.out.last(), Some(&(5, 3, false)));
    assert!(b.session.is_drained() && b.session.poll_timeout().is_none());
    assert_eq!(b.push(6), Err(Discard::Closed));
}

fn goodbye(ssrc: u32) -> Vec<u8> {
    let mut out = Vec::new();
    rtcp::write::write_report(ssrc, &[], b"cam", &mut out);
    rtcp::write::write_bye(ssrc, &mut out);
    out
}

#[test]
fn bye_waits_for_packets_that_it_overtook() {
    let mut b = running(0);
    b.session.handle_rtcp(b.now, b.now, &goodbye(SSRC)).unwrap();
    assert_eq!(b.session.cname(), Some(&b"cam"[..]));
    b.push(2).unwrap();
    b.wait(49);
    assert_eq!(b.session.poll_event(), None);
    b.wait(1);
    assert_eq!(
        b.session.poll_event(),
        Some(Event::Closed(CloseReason::Bye))
    );
    assert_eq!(b.sequences(), [0, 1, 2]);
    assert!(b.session.is_drained());
}

#[test]
fn rtcp_of_another_source_is_not_ours() {
    let mut b = running(0);
    let r = b.session.handle_rtcp(b.now, b.now, &goodbye(SSRC + 1));
    assert_eq!(r, Err(Discard::UnknownSession));
    b.wait(1_000);
    assert_eq!(b.session.poll_event(), None);
}

#[test]
fn a_session_on_a_used_ring_begins_with_a_discontinuity() {
    let mut b = Bench::new(&Config::default());
    b.ring.continue_at(77);
    b.session = Session::new(Instant::ZERO, SSRC, &Config::default(), 77);
    b.push(9).unwrap();
    b.push(10).unwrap();
    assert_eq!(b.out, [(9, 0, true), (10, 0, false)]);
    assert_eq!(b.session.delivery_index(), 79);
}

#[test]
fn a_million_hostile_packets_neither_panic_nor_hold_more_than_the_window() {
    let mut b = running(0);
    let mut x = 1u64;
    for _ in 0..200_000 {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Now near the last number, now anywhere.
        let sequence = if x >> 63 == 0 {
            b.session
                .max_sequence
                .wrapping_add((x >> 40) as u16 % 256)
                .wrapping_sub(120)
        } else {
            (x >> 33) as u16
        };
        let _ = b.push(sequence);
        b.now += Duration::from_micros(10);
        assert!(b.session.end - b.session.next <= 100);
        assert!(b.session.held.len() <= MAX_HELD);
    }
    let s = b.session.statistics();
    assert_eq!(s.packets_unique, b.out.len() as u64 + s.packets_held);
}

#[test]
fn a_report_says_what_was_received_and_answers_the_sender_report() {
    let mut b = running(65_534);
    b.push(1).unwrap();
    b.wait(60);
    let mut report = vec![0x80, 200, 0, 6];
    for word in [SSRC, 0xAAAA_BBBB, 0xCCCC_DDDD, 7, 8, 9] {
        report.extend_from_slice(&word.to_be_bytes());
    }
    b.session.handle_rtcp(b.now, b.now, &report).unwrap();
    let kept = b.session.sender_report().unwrap();
    assert_eq!(
        (kept.info.ntp, kept.info.rtp_timestamp),
        (0xAAAA_BBBB_CCCC_DDDD, 7)
    );
    assert_eq!(b.session.statistics().sender_reports, 1);
    let clock = b.session.clock().unwrap();
    assert_eq!(
        clock.wall_nanos(90_007),
        clock.wall_nanos(7) + 1_000_000_000
    );

    let reporting = Reporting {
        ssrc: 1,
        cname: "me".into(),
        bandwidth_bps: 1_000_000,
        seed: 9,
    };
    b.session.enable_reports(b.now, reporting);
    let heard = b.now;
    let mut out = [0; 512];
    let length = loop {
        match b.session.poll_transmit_rtcp(b.now, &mut out) {
            Some(length) => break length,
            None => b.now = b.session.poll_timeout().unwrap(),
        }
    };
    let block = rtcp::parse(&out[..length])
        .unwrap()
        .next()
        .unwrap()
        .report_blocks()
        .next()
        .unwrap();
    assert_eq!(
        (block.ssrc, block.extended_highest_sequence),
        (SSRC, 0x0001_0001)
    );
    assert_eq!((block.cumulative_lost, block.fraction_lost), (1, 64));
    assert_eq!(block.last_sr, 0xBBBB_CCCC);
    let delay = (b.now - heard).as_secs_f64() * 65_536.0;
    assert!((f64::from(block.delay_since_last_sr) - delay).abs() < 2.0);
}
