//! A stream fed with a real transport stream in virtual time, as a session would.

use super::*;
use crate::report::Mode;
use mirror_base::{Chunk, SlotMeta};
use mirror_media::Units;

const CLIP: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/media/ts_h264_aac_cbr600k.ts"
);

/// Sends the clip at its 600 kb/s in payloads of `payload_bytes`, each held for `hold`, with
/// timers on time; then the session ends.
fn play(payload_bytes: usize, hold: Duration) -> (StreamStats, ShardLatency) {
    let id = StreamId::new("live/test").unwrap();
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let start = Instant::from_millis(1_000);
    let config = StreamConfig::default();
    let mut stream = Stream::new(start, id, Protocol::Srt, Mode::Listener, peer, config);
    let mut slot = stream.begin_session(start, peer, Format::MpegTs);
    for _ in 0..64 {
        stream.ring_mut().add_chunk(Chunk::owned());
    }
    let mut latency = ShardLatency::default();
    let clip = std::fs::read(CLIP).unwrap();
    let mut now = start + hold;
    for (n, payload) in clip.chunks(payload_bytes).enumerate() {
        let sent = Duration::from_micros((n * payload_bytes * 8 * 10 / 6) as u64);
        let arrival = start + sent;
        let due = arrival + hold;
        // Timers that are due before the packet is.
        while let Some(at) = stream.poll_timeout().filter(|&at| at <= due) {
            stream.handle_timeout(at);
        }
        now = due;
        let meta = SlotMeta::new(arrival, 0, 0).handled_at(arrival.offset_micros(40));
        stream.ring_mut().insert(slot, payload, meta).unwrap();
        let delivery = Delivery {
            slot,
            arrival,
            handled_after_ns: meta.handled_after_ns,
            due,
            lost_before: 0,
            discontinuity: n == 0,
        };
        let released = now;
        if stream.deliver(now, &delivery) > 0 {
            stream.units_completed(released, now.offset_micros(5), &mut latency);
        }
        slot += 1;
        stream.release_before(slot);
    }
    stream.end_session(now, EndReason::PeerClosed, Status::Terminated);
    (stream.snapshot().stats, latency)
}

#[test]
fn a_long_hold_neither_damages_units_nor_hides_their_latency() {
    let (at_once, _) = play(1316, Duration::ZERO);
    for hold in [
        Duration::from_millis(120),
        Duration::from_millis(500),
        Duration::from_secs(8),
    ] {
        let (held, latency) = play(1316, hold);
        assert_eq!(held.frames_damaged, 0, "{hold:?}");
        assert_eq!(
            (held.video_frames, held.key_frames, held.audio_frames),
            (
                at_once.video_frames,
                at_once.key_frames,
                at_once.audio_frames
            ),
            "{hold:?}"
        );
        // All but those that the session's end completes.
        assert!(
            latency.total.count() + 4 >= held.frames_assembled,
            "{hold:?}"
        );
    }
}

#[test]
fn payloads_that_cut_ts_packets_give_the_same_units() {
    let (whole, _) = play(1316, Duration::ZERO);
    for bytes in [1456, 1000, 188, 187] {
        let (cut, _) = play(bytes, Duration::from_millis(120));
        assert_eq!(cut.frames_damaged, 0, "{bytes}");
        assert_eq!(
            (
                cut.video_frames,
                cut.key_frames,
                cut.audio_frames,
                cut.ts_packets
            ),
            (
                whole.video_frames,
                whole.key_frames,
                whole.audio_frames,
                whole.ts_packets
            ),
            "{bytes}"
        );
    }
}

#[test]
fn the_payload_digest_is_of_the_session_and_there_only_when_asked_for() {
    let id = StreamId::new("live/test").unwrap();
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let now = Instant::from_millis(1_000);
    for payload_hash in [false, true] {
        let config = StreamConfig {
            payload_hash,
            ..StreamConfig::default()
        };
        let protocol = Protocol::Srt;
        let mut stream = Stream::new(now, id.clone(), protocol, Mode::Listener, peer, config);
        for session in 0..2 {
            let slot = stream.begin_session(now, peer, Format::MpegTs);
            stream.ring_mut().add_chunk(Chunk::owned());
            let payload = [session; 1316];
            let meta = SlotMeta::new(now, 0, 0);
            stream.ring_mut().insert(slot, &payload, meta).unwrap();
            let delivery = Delivery {
                slot,
                arrival: now,
                handled_after_ns: 0,
                due: now,
                lost_before: 3,
                discontinuity: true,
            };
            stream.deliver(now, &delivery);
            let figures = stream.snapshot().stats.payload;
            assert_eq!(figures.is_some(), payload_hash);
            if let Some(figures) = figures {
                assert_eq!(
                    (figures.bytes, figures.packets, figures.missing),
                    (1316, 1, 3)
                );
                let mut alone = crate::payload::PayloadDigest::default();
                alone.update(&payload, 3);
                assert_eq!(figures, alone.figures());
            }
            stream.end_session(now, EndReason::PeerClosed, Status::Reconnecting);
        }
    }
}

/// The clip's first `count` datagrams, a gap of `gap`, and the others at once.
fn play_with_a_gap(count: usize, gap: Duration, patience: Duration) -> StreamStats {
    let id = StreamId::new("live/gap").unwrap();
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let mut now = Instant::from_millis(1_000);
    let config = StreamConfig::default();
    let mut stream = Stream::new(now, id, Protocol::Rtp, Mode::Listener, peer, config);
    let mut slot = stream.begin_session(now, peer, Format::MpegTs);
    stream.set_patience(0, patience);
    for _ in 0..64 {
        stream.ring_mut().add_chunk(Chunk::owned());
    }
    let clip = std::fs::read(CLIP).unwrap();
    for (n, payload) in clip.chunks(1316).enumerate() {
        let arrival = now;
        if n == count {
            // What came behind the gap waited for what fills it.
            now += gap;
        }
        while let Some(at) = stream.poll_timeout().filter(|&at| at <= now) {
            stream.handle_timeout(at);
        }
        let meta = SlotMeta::new(arrival, 0, 0);
        stream.ring_mut().insert(slot, payload, meta).unwrap();
        let delivery = Delivery {
            slot,
            arrival,
            handled_after_ns: 0,
            due: now,
            lost_before: 0,
            discontinuity: n == 0,
        };
        stream.deliver(now, &delivery);
        slot += 1;
        stream.release_before(slot);
        now += Duration::from_millis(1);
    }
    stream.end_session(now, EndReason::PeerClosed, Status::Terminated);
    stream.snapshot().stats
}

#[test]
fn a_unit_waits_for_the_repair_of_a_gap_longer_than_the_assembly_timeout() {
    let (gap, patience) = (Duration::from_millis(900), Duration::from_secs(1));
    let whole = play_with_a_gap(0, Duration::ZERO, patience);
    let mut given_up = 0;
    for count in 60..70 {
        let repaired = play_with_a_gap(count, gap, patience);
        assert_eq!(repaired.frames_damaged, 0, "after {count}");
        assert_eq!(repaired.frames_assembled, whole.frames_assembled);
        given_up += play_with_a_gap(count, gap, Duration::ZERO).frames_damaged;
    }
    assert!(
        given_up > 0,
        "where nobody repairs anything units are given up"
    );
}

#[test]
fn a_stream_joined_in_the_middle_wants_a_key_frame() {
    let id = StreamId::new("live/middle").unwrap();
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let start = Instant::from_millis(1_000);
    let config = StreamConfig::default();
    let mut stream = Stream::new(start, id, Protocol::Rtp, Mode::Listener, peer, config);
    let format = Format::Rtp {
        hint: crate::plan::PayloadPlan::parse(96, "H264")
            .ok()
            .map(|plan| plan.hint),
        clock_rate: 90_000,
        ssrc: 7,
    };
    let slots = stream.begin_session(start, peer, format)..;
    stream.ring_mut().add_chunk(Chunk::owned());
    assert!(!stream.wants_key_frame(), "nothing came yet");
    for (n, slot) in (0..3u8).zip(slots) {
        let arrival = start + Duration::from_millis(u64::from(n) * 33);
        // A P slice of a picture whose parameter sets nobody has seen.
        let payload = [0x41, 0x9A, 0x24, 0x6C, 0x41, 0x4F, 0x3A, 0x80];
        let meta = SlotMeta::new(arrival, u32::from(n) * 3_000, 0x80 | 96);
        stream.ring_mut().insert(slot, &payload, meta).unwrap();
        let delivery = Delivery {
            slot,
            arrival,
            handled_after_ns: 0,
            due: arrival,
            lost_before: 0,
            discontinuity: n == 0,
        };
        stream.deliver(arrival, &delivery);
    }
    assert!(stream.wants_key_frame());
}

#[test]
fn a_stream_of_pes_packets_recovers_from_loss_without_a_key_frame() {
    let id = StreamId::new("live/pes").unwrap();
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let mut now = Instant::from_millis(1_000);
    let mut config = StreamConfig::default();
    config.limits.units = Units::PesPackets;
    let mut stream = Stream::new(now, id, Protocol::Srt, Mode::Listener, peer, config);
    let slots = stream.begin_session(now, peer, Format::MpegTs)..;
    for _ in 0..64 {
        stream.ring_mut().add_chunk(Chunk::owned());
    }
    let clip = std::fs::read(CLIP).unwrap();
    let mut recovering = 0;
    for ((n, payload), slot) in clip.chunks(1316).enumerate().zip(slots) {
        now += Duration::from_millis(2);
        let lost = (60..64).contains(&n);
        if lost {
            continue;
        }
        let meta = SlotMeta::new(now, 0, 0);
        stream.ring_mut().insert(slot, payload, meta).unwrap();
        stream.deliver(
            now,
            &Delivery {
                slot,
                arrival: now,
                handled_after_ns: 0,
                due: now,
                lost_before: if n == 64 { 4 } else { 0 },
                discontinuity: n == 0,
            },
        );
        assert!(!stream.wants_key_frame());
        recovering += usize::from(stream.snapshot().state == PipelineState::Recovering);
    }
    assert!(recovering > 0, "the loss shows");
    let snapshot = stream.snapshot();
    assert_eq!(snapshot.state, PipelineState::Streaming);
    assert!(!snapshot.figures.gop.key_frame_missing);
    let stats = snapshot.stats;
    assert!(stats.video_frames > 20 && stats.audio_frames > 0);
    assert_eq!((stats.key_frames, stats.frames_undecodable), (0, 0));
    assert!((1..=4).contains(&stats.frames_damaged));
}
