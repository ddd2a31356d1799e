//! Datagrams that nobody in his right mind would send: no panic, no leak, no harm to others.

use core::time::Duration;

use mirror_stream::report::Status;

use super::world::{RTCP, RTP, SRT, World, addr, config};

fn generator(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |n| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    }
}

/// A datagram that begins like something real and goes wrong somewhere.
fn nonsense(random: &mut impl FnMut(u64) -> u64, ids: &[u32]) -> Vec<u8> {
    let len = random(1_500) as usize;
    let mut bytes: Vec<u8> = (0..len).map(|_| random(256) as u8).collect();
    let control = [0x80, random(10) as u8, random(256) as u8, random(256) as u8];
    let handshake = [0x80, 0, 0, 0];
    let rtp = [
        0x80,
        [33, 96, 200, 201, 203][random(5) as usize],
        0,
        random(256) as u8,
    ];
    let heads = [
        control,
        handshake,
        rtp,
        [random(128) as u8, 0, 0, random(256) as u8],
    ];
    let head = heads[random(4) as usize];
    let n = len.min(4);
    bytes[..n].copy_from_slice(&head[..n]);
    if len >= 16 && random(3) > 0 {
        let id = [0, ids[random(ids.len() as u64) as usize]][random(2) as usize];
        bytes[12..16].copy_from_slice(&id.to_be_bytes());
    }
    if len >= 24 && random(4) == 0 {
        bytes[16..24].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0, 1]);
    }
    bytes
}

#[test]
fn a_flood_of_nonsense_leaves_a_running_stream_untouched_and_memory_flat() {
    let mut options = config(2);
    options.sockets.timestamps = true;
    let mut world = World::new(options);
    let caller = world.call_and_wait("live/a");
    world.callers[caller].to_send = 1_000;
    let ids = vec![socket_id(&world)];
    let mut random = generator(0xBAD_5EED);
    for _ in 0..1_000 {
        for _ in 0..100 {
            let bytes = nonsense(&mut random, &ids);
            let to = [SRT, RTP, RTCP][random(3) as usize];
            let from = addr(&format!(
                "203.0.113.{}:{}",
                random(250),
                1_000 + random(60_000)
            ));
            world.send_to_engine(from, addr(to), &bytes);
        }
        world.step();
    }
    world.run(Duration::from_millis(300));
    let snapshots = world.snapshot();
    let streams: Vec<_> = snapshots.iter().flat_map(|s| &s.streams).collect();
    assert_eq!(streams.len(), 1);
    assert_eq!(streams[0].stats.packets_unique, 1_000);
    assert_eq!(
        (streams[0].stats.packets_dropped, streams[0].status),
        (0, Status::Active)
    );
    assert!(snapshots.iter().all(|s| s.counters.session_panics == 0));
    let discarded: u64 = snapshots.iter().map(|s| s.counters.discards.total()).sum();
    assert!(discarded > 50_000, "{discarded}");
    world.run(Duration::from_millis(3_000));
    let sessions: usize = world.shards.iter().map(|s| s.core.sessions.len()).sum();
    assert_eq!(sessions, 1);
}

#[test]
fn a_peer_that_goes_mad_ends_at_worst_itself() {
    let mut random = generator(0x0DD_BA11);
    for _ in 0..20 {
        let mut world = World::new(config(1));
        let mad = world.call_and_wait("live/mad");
        let good = world.call_and_wait("live/good");
        let ids: Vec<_> = world.shards[0]
            .core
            .sessions
            .iter()
            .map(|(_, s)| s.socket_id)
            .collect();
        let peers: Vec<_> = world.shards[0]
            .core
            .sessions
            .iter()
            .map(|(_, s)| s.peer.addr())
            .collect();
        world.callers[good].to_send = 200;
        world.callers[mad].to_send = 200;
        for _ in 0..200 {
            for _ in 0..20 {
                let bytes = nonsense(&mut random, &ids[..1]);
                world.send_to_engine(peers[0], addr(SRT), &bytes);
            }
            world.step();
        }
        world.run(Duration::from_millis(300));
        let snapshots = world.snapshot();
        assert_eq!(snapshots[0].counters.session_panics, 0);
        let stream = snapshots[0]
            .streams
            .iter()
            .find(|s| s.stream_id.as_str() == "live/good");
        assert_eq!(stream.unwrap().stats.packets_unique, 200);
    }
}

fn socket_id(world: &World) -> u32 {
    let mut sessions = world.shards.iter().flat_map(|s| s.core.sessions.iter());
    sessions.next().unwrap().1.socket_id
}
