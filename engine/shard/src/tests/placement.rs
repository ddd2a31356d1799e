//! Who lives where: steering, spreading, forwarding, storms of connects.

use core::time::Duration;

use mirror_base::{Discard, ShardId};

use super::world::{World, addr, config};

#[test]
fn sessions_spread_evenly_and_every_datagram_is_handled_on_its_shard() {
    let mut world = World::new(config(3));
    let callers: Vec<_> = (0..60)
        .map(|n| world.call(&format!("live/cam{n}")))
        .collect();
    world.run(Duration::from_millis(500));
    for &caller in &callers {
        assert!(world.callers[caller].connected, "caller {caller}");
        world.callers[caller].to_send = 200;
    }
    world.run(Duration::from_millis(800));
    let snapshots = world.snapshot();
    let mut seen = 0;
    for snapshot in &snapshots {
        assert_eq!(snapshot.streams.len(), 20, "on {:?}", snapshot.shard);
        assert_eq!(snapshot.counters.foreign_datagrams, 0);
        assert_eq!(snapshot.counters.discards.get(Discard::UnknownSession), 0);
        for stream in &snapshot.streams {
            seen += 1;
            let stats = &stream.stats;
            assert_eq!(stats.packets_unique, 200, "{}", stream.stream_id);
            assert_eq!((stats.packets_lost, stats.packets_dropped), (0, 0));
            assert_eq!(stats.latency_ms, 120);
            let owner = world.directory.owner(stream.stream_id.as_str());
            assert_eq!(owner, Some(snapshot.shard));
        }
    }
    assert_eq!(seen, 60);
    let forwarded: u64 = snapshots
        .iter()
        .map(|s| s.counters.handshakes_forwarded)
        .sum();
    assert!(
        forwarded > 0,
        "some conclusions must have come to another shard"
    );
}

#[test]
fn hundreds_of_connects_in_the_same_millisecond_all_get_through() {
    let mut options = config(2);
    options.pool_bytes_per_shard = 128 << 20;
    let mut world = World::new(options);
    for n in 0..400 {
        world.call(&format!("storm/{n}"));
    }
    world.run(Duration::from_secs(3));
    let connected = world.callers.iter().filter(|c| c.connected).count();
    assert_eq!(connected, 400);
    let snapshots = world.snapshot();
    assert_eq!(
        snapshots.iter().map(|s| s.streams.len()).sum::<usize>(),
        400
    );
    assert!(snapshots.iter().all(|s| s.handshakes_pending == 0));
    assert!(snapshots.iter().all(|s| s.streams.len() == 200));
}

#[test]
fn a_returning_publisher_lands_on_its_shard_and_goes_on_with_its_stream() {
    let mut world = World::new(config(4));
    let mut shards = Vec::new();
    for round in 0..6 {
        let caller = world.call_and_wait("live/back");
        assert!(world.callers[caller].connected, "round {round}");
        world.callers[caller].to_send = 50;
        world.run(Duration::from_millis(300));
        let now = world.now();
        world.callers[caller].connection.close(now);
        world.run(Duration::from_millis(300));
        shards.push(*world.started("live/back").last().unwrap());
    }
    assert!(!shards[0].1 && shards[1..].iter().all(|&(_, resumed)| resumed));
    assert!(shards.iter().all(|&(shard, _)| shard == shards[0].0));
    let snapshots = world.snapshot();
    let stream = snapshots.iter().flat_map(|s| &s.streams).next().unwrap();
    assert_eq!(stream.stats.packets_unique, 300);
    assert_eq!(stream.stats.sessions, 6);
}

#[test]
fn datagrams_of_strangers_reach_no_session() {
    let mut world = World::new(config(2));
    let caller = world.call_and_wait("live/a");
    world.callers[caller].to_send = 100;
    let shard = world.directory.owner("live/a").unwrap();
    let id = world.shards[shard.index()]
        .core
        .sessions
        .iter()
        .next()
        .unwrap()
        .1
        .socket_id;
    let mut forged = [0u8; 1332];
    forged[12..16].copy_from_slice(&id.to_be_bytes());
    for n in 0..50 {
        world.send_to_engine(addr("203.0.113.9:9"), addr(super::world::SRT), &forged);
        // An ID of the same shard that names nobody, and a runt.
        let other = id ^ (0x0010_0000 * 2);
        forged[12..16].copy_from_slice(&other.to_be_bytes());
        world.send_to_engine(addr("203.0.113.9:9"), addr(super::world::SRT), &forged);
        forged[12..16].copy_from_slice(&id.to_be_bytes());
        world.send_to_engine(
            addr("203.0.113.9:9"),
            addr(super::world::SRT),
            &forged[..n % 16],
        );
        world.step();
    }
    world.run(Duration::from_millis(200));
    let snapshots = world.snapshot();
    let own = &snapshots[shard.index()];
    assert_eq!(
        own.streams[0].stats.discards.get(Discard::ForeignSource),
        50
    );
    assert_eq!(own.streams[0].stats.packets_unique, 100);
    let all = |reason| {
        snapshots
            .iter()
            .map(|s| s.counters.discards.get(reason))
            .sum::<u64>()
    };
    assert_eq!(all(Discard::UnknownSession), 50);
    assert_eq!(all(Discard::Runt), 50);
}

#[test]
fn an_id_of_another_shard_is_counted_and_harms_nobody() {
    let mut world = World::new(config(2));
    let datagram = {
        let mut bytes = [0u8; 64];
        bytes[12..16].copy_from_slice(&0x0000_1001_u32.to_be_bytes());
        bytes
    };
    let arrival = world.now();
    // As a GRO super-packet would bring it: steered by another datagram's header.
    let envelope = mirror_uring::Envelope::new(addr("192.0.2.1:1"), None);
    world.shards[0].core.handle(mirror_uring::Datagram {
        socket: 0,
        origin: envelope.origin(),
        arrival,
        age_ns: 0,
        payload: &datagram,
        truncated: false,
    });
    let snapshots = world.snapshot();
    assert_eq!(snapshots[0].counters.foreign_datagrams, 1);
    assert_eq!(snapshots[0].shard, ShardId(0));
}

#[test]
fn a_shard_without_streams_sleeps_until_its_snapshot() {
    let mut world = World::new(config(1));
    world.run(Duration::from_millis(1_500));
    let slept = world.shards[0].driver.slept_until;
    let pause = slept.saturating_since(world.now());
    assert!(
        pause > Duration::from_millis(400) && pause <= Duration::from_secs(1),
        "{pause:?}"
    );
    assert!(world.shards[0].is_idle());
}

#[test]
fn a_shard_hurries_only_for_what_is_not_held_by_tsbpd() {
    let mut world = World::new(config(1));
    let caller = world.call("live/cam");
    world.run(Duration::from_millis(500));
    world.callers[caller].to_send = 400;
    world.run(Duration::from_millis(20));
    assert!(world.shards[0].driver.slept_held);

    for sequence in 1..5 {
        let packet = super::sources::packet(0xABCD, sequence);
        world.send_to_engine(addr("192.0.2.7:4000"), addr(super::world::RTP), &packet);
        world.step();
    }
    assert_eq!(world.started("rtp_0000abcd").len(), 1);
    world.run(Duration::from_millis(5));
    assert!(!world.shards[0].driver.slept_held, "RTP has no hold");
}
