//! What a publisher is told of room (SRT flow window) while its ring is still growing.

use core::time::Duration;

use super::world::{World, addr, config};

/// Sends `packets` at once and gives them to the network, as far as the window lets them go.
fn burst(world: &mut World, caller: usize, packets: usize) -> usize {
    let now = world.now();
    let (local, mut datagrams) = {
        let caller = &mut world.callers[caller];
        let mut payload = [0xFF; 1316];
        payload.chunks_mut(188).for_each(|ts| ts[0] = 0x47);
        for _ in 0..packets {
            caller.connection.send(now, &payload).unwrap();
        }
        let (mut out, mut datagrams) = ([0; 1500], Vec::new());
        while let Some(len) = caller.connection.poll_transmit(now, &mut out) {
            datagrams.push(out[..len].to_vec());
        }
        (caller.local, datagrams)
    };
    datagrams.retain(|datagram| datagram[0] & 0x80 == 0);
    for datagram in &datagrams {
        world.send_to_engine(local, addr(super::world::SRT), datagram);
    }
    datagrams.len()
}

#[test]
fn a_young_stream_takes_a_burst_that_its_ring_has_yet_to_grow_for() {
    let mut options = config(1);
    options.pool_bytes_per_shard = 512 << 20;
    let mut world = World::new(options);
    let caller = world.call_and_wait("live/x");
    // Slow enough that the ring stays small; every ACK tells the window.
    world.callers[caller].to_send = 40;
    world.run(Duration::from_millis(60));
    // The engine is held up, or the sender was: 600 ms of 50 Mb/s come at once.
    assert_eq!(burst(&mut world, caller, 2_800), 2_800);
    world.run(Duration::from_millis(400));
    let stats = world.callers[caller].connection.statistics();
    assert_eq!((stats.pkt_snd_drop, stats.pkt_retrans), (0, 0));
    let shard = world.snapshot().remove(0);
    assert_eq!(shard.streams[0].stats.packets_received, 2_840);
    assert_eq!(shard.streams[0].stats.packets_dropped, 0);
    // Payload alone: no headers.
    assert_eq!(shard.streams[0].stats.bytes_received, 2_840 * 1_316);
}

#[test]
fn the_window_does_not_promise_memory_that_is_not_there() {
    let mut options = config(1);
    options.pool_bytes_per_shard = 16 * mirror_base::ring::CHUNK_BYTES;
    let mut world = World::new(options);
    let caller = world.call_and_wait("live/x");
    world.callers[caller].to_send = 40;
    world.run(Duration::from_millis(60));
    let sent = burst(&mut world, caller, 2_800);
    assert!(sent <= 16 * 32, "{sent} packets for 512 slots");
    // What did not fit at once comes as the ring is released: nothing is lost.
    world.run(Duration::from_millis(800));
    let shard = world.snapshot().remove(0);
    assert_eq!(shard.streams[0].stats.packets_lost, 0);
    assert!(shard.streams[0].stats.packets_received > sent as u64 + 40);
}
