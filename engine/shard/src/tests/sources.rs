//! RTP sources: probation, churn, limits, silence.

use core::time::Duration;

use mirror_base::Discard;
use mirror_stream::report::{EndReason, Status};

use super::world::{RTP, World, addr};

fn config(shards: usize) -> crate::ShardsConfig {
    crate::ShardsConfig {
        srt: None,
        ..super::world::config(shards)
    }
}

pub(super) fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![0x80, 33];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((u32::from(sequence) * 90).to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes.resize(12 + 7 * 188, 0xFF);
    bytes[12..].chunks_mut(188).for_each(|ts| ts[0] = 0x47);
    bytes
}

#[test]
fn a_source_becomes_a_stream_once_it_is_validated_and_nothing_of_it_is_lost() {
    let mut world = World::new(config(2));
    let from = addr("192.0.2.7:4000");
    world.send_to_engine(from, addr(RTP), &packet(0xABCD, 65_530));
    world.run(Duration::from_millis(50));
    assert!(
        world.started("rtp_0000abcd").is_empty(),
        "one packet proves nothing"
    );
    for n in 1..100_u16 {
        world.send_to_engine(from, addr(RTP), &packet(0xABCD, 65_530_u16.wrapping_add(n)));
        world.step();
    }
    world.run(Duration::from_millis(20));
    let started = world.started("rtp_0000abcd");
    assert_eq!(started.len(), 1);
    assert_eq!(usize::from(started[0].0.0), 0xABCD % 2);
    let snapshots = world.snapshot();
    let stream = snapshots.iter().flat_map(|s| &s.streams).next().unwrap();
    assert_eq!(stream.stats.packets_unique, 100);
    assert_eq!(
        (stream.stats.packets_lost, stream.stats.packets_dropped),
        (0, 0)
    );
}

#[test]
fn ten_thousand_new_sources_a_second_stay_bounded_and_disturb_nobody() {
    let mut world = World::new(config(1));
    let mut state = 0x5EED_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u32
    };
    let from = addr("192.0.2.7:4000");
    for n in 0..2_000_u32 {
        world.send_to_engine(from, addr(RTP), &packet(7, n as u16));
        for _ in 0..4 {
            world.send_to_engine(
                addr("203.0.113.1:9"),
                addr(RTP),
                &packet(random(), random() as u16),
            );
        }
        // And two that do follow each other: a forger who knows RFC 3550, A.1.
        let ssrc = random();
        for sequence in [1, 3, 5] {
            world.send_to_engine(addr("203.0.113.2:9"), addr(RTP), &packet(ssrc, sequence));
        }
        world.step();
        assert!(world.shards[0].core.sessions.len() <= 64);
        assert!(world.shards[0].core.streams.len() <= 66);
    }
    world.run(Duration::from_millis(5));
    let snapshot = &world.snapshot()[0];
    let stream = snapshot
        .streams
        .iter()
        .find(|s| s.stream_id.as_str() == "rtp_00000007")
        .unwrap();
    assert_eq!(stream.stats.packets_unique, 2_000);
    assert_eq!(stream.stats.packets_dropped, 0);
    assert_eq!(snapshot.streams.len(), 1, "nothing unproven is shown");
    assert!(snapshot.counters.discards.get(Discard::RtpProbation) > 7_000);
    world.run(Duration::from_millis(2_500));
    assert_eq!(
        world.shards[0].core.sessions.len(),
        1,
        "only the real source is left"
    );
    assert_eq!(world.directory.len(), 1);
}

#[test]
fn sources_beyond_the_limit_are_refused() {
    let mut options = config(1);
    options.rtp.as_mut().unwrap().max_sessions = 3;
    let mut world = World::new(options);
    for n in 0..200_u16 {
        for ssrc in 1..=5 {
            world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &packet(ssrc, n));
        }
        world.step();
    }
    world.run(Duration::from_millis(20));
    let snapshot = &world.snapshot()[0];
    assert_eq!(snapshot.streams.len(), 3);
    assert!(snapshot.counters.discards.get(Discard::SessionLimit) > 0);
    assert!(
        snapshot
            .streams
            .iter()
            .all(|s| s.stats.packets_unique == 200)
    );
}

#[test]
fn what_the_directory_refuses_costs_no_session_and_forgers_do_not_fill_it() {
    let mut world = World::new(config(1));
    *world.directory.limit.lock().unwrap() = Some(1);
    for ssrc in 100..200 {
        for sequence in [1, 3] {
            world.send_to_engine(addr("203.0.113.2:9"), addr(RTP), &packet(ssrc, sequence));
        }
    }
    world.run(Duration::from_millis(10));
    assert_eq!(world.directory.len(), 0, "nobody is validated");
    for n in 0..100 {
        for ssrc in [7, 8] {
            world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &packet(ssrc, n));
        }
        world.step();
    }
    world.run(Duration::from_millis(10));
    let snapshot = &world.snapshot()[0];
    assert_eq!(snapshot.streams.len(), 1);
    assert_eq!(snapshot.streams[0].stats.packets_unique, 100);
    assert_eq!(
        snapshot.counters.discards.get(Discard::SessionLimit),
        1,
        "and left alone"
    );
}

#[test]
fn a_silent_source_is_waited_for_and_may_return() {
    let mut world = World::new(config(1));
    let send = |world: &mut World, from: &str, range: core::ops::Range<u16>| {
        for n in range {
            world.send_to_engine(addr(from), addr(RTP), &packet(9, n));
            world.step();
        }
    };
    send(&mut world, "192.0.2.7:4000", 0..50);
    world.run(Duration::from_millis(11_000));
    let ended = world.ended("rtp_00000009");
    assert_eq!(ended, [(EndReason::IdleTimeout, Status::Reconnecting)]);
    send(&mut world, "192.0.2.7:4444", 500..550);
    world.run(Duration::from_millis(100));
    assert_eq!(world.started("rtp_00000009").len(), 2);
    assert!(world.started("rtp_00000009")[1].1, "resumed");
    assert_eq!(world.snapshot()[0].streams[0].stats.packets_unique, 100);
    world.run(Duration::from_millis(16_500));
    let last = *world.ended("rtp_00000009").last().unwrap();
    assert_eq!(last, (EndReason::IdleTimeout, Status::Terminated));
}

#[test]
fn a_source_may_change_its_port_after_silence_but_nobody_else_may_speak_for_it() {
    let mut world = World::new(config(1));
    for n in 0..50 {
        world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &packet(9, n));
        world.send_to_engine(addr("192.0.2.8:4000"), addr(RTP), &packet(9, n + 1_000));
        world.step();
    }
    world.run(Duration::from_millis(600));
    for n in 50..100 {
        world.send_to_engine(addr("192.0.2.7:4001"), addr(RTP), &packet(9, n));
        world.send_to_engine(addr("192.0.2.8:4000"), addr(RTP), &packet(9, n + 1_000));
        world.step();
    }
    world.run(Duration::from_millis(20));
    let snapshot = &world.snapshot()[0];
    let stats = &snapshot.streams[0].stats;
    assert_eq!(stats.packets_unique, 100);
    assert!(stats.discards.get(Discard::ForeignSource) >= 95);
}

#[test]
fn forty_sources_that_begin_in_one_turn_all_become_streams() {
    let mut options = config(1);
    options.pool_bytes_per_shard = 64 << 20;
    let mut world = World::new(options);
    for sequence in 0..60 {
        for ssrc in 1..=40_u32 {
            let from = std::net::SocketAddr::from(([192, 0, 2, 7], 4_000 + ssrc as u16));
            world.send_to_engine(from, addr(RTP), &packet(ssrc, sequence));
        }
        if sequence >= 8 {
            world.step();
        }
    }
    world.run(Duration::from_millis(20));
    let snapshot = &world.snapshot()[0];
    assert_eq!(snapshot.streams.len(), 40);
    assert!(
        snapshot
            .streams
            .iter()
            .all(|s| s.stats.packets_unique == 60 && s.stats.sessions == 1)
    );
}

#[test]
fn a_source_does_not_join_a_stream_of_its_name_that_another_publisher_brings() {
    let mut world = World::new(super::world::config(1));
    let caller = world.call_and_wait("rtp_0000abcd");
    world.callers[caller].to_send = 200;
    for n in 0..200_u16 {
        world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &packet(0xABCD, n));
        world.step();
    }
    world.run(Duration::from_millis(200));
    let snapshot = &world.snapshot()[0];
    assert_eq!(snapshot.streams.len(), 1);
    assert_eq!(snapshot.streams[0].stats.packets_unique, 200);
    assert_eq!(snapshot.streams[0].stats.packets_duplicate, 0);
    assert!(snapshot.counters.discards.get(Discard::ForeignSource) > 0);
    assert_eq!(world.shards[0].core.sessions.len(), 1);
}

#[test]
fn packets_that_the_kernel_misplaced_open_no_second_session() {
    let mut world = World::new(config(2));
    let from = addr("192.0.2.7:4000");
    // As steered while the port's group was being made: to the wrong shard.
    for sequence in 0..3 {
        world.send_to_shard(0, from, addr(RTP), &packet(0xABCD, sequence));
    }
    for sequence in 3..50 {
        world.send_to_engine(from, addr(RTP), &packet(0xABCD, sequence));
        world.step();
    }
    world.run(Duration::from_millis(20));
    let started = world.started("rtp_0000abcd");
    assert_eq!(started.len(), 1);
    assert_eq!(usize::from(started[0].0.0), 0xABCD % 2);
    assert_eq!(world.snapshot()[0].counters.foreign_datagrams, 3);
}

#[test]
fn what_arrived_while_the_thread_had_no_core_is_not_given_up_as_late() {
    let mut world = World::new(config(1));
    let send = |world: &World, sequence: u16| {
        world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &packet(9, sequence));
    };
    for n in (0..100).chain([101]) {
        send(&world, n);
        world.step();
    }
    world.run(Duration::from_millis(10));
    // It comes 20 ms late, within the jitter buffer of 50 ms: the thread has just looked.
    send(&world, 100);
    world.shards[0].driver.stall = Duration::from_millis(300);
    world.step();
    world.run(Duration::from_millis(20));
    let stats = world.snapshot()[0].streams[0].stats.clone();
    assert_eq!((stats.packets_unique, stats.packets_dropped), (102, 0));
}
