//! Datagrams longer than a slot: jumbo frames, what IP fragmented, and what is too long.

use core::time::Duration;

use mirror_base::Discard;

use super::sources::packet;
use super::world::{RTP, World, addr};

/// A TS packet of `bytes`, seven TS packets and an extension included.
fn long(ssrc: u32, sequence: u16, bytes: usize) -> Vec<u8> {
    let mut datagram = packet(ssrc, sequence);
    let payload = datagram.split_off(12);
    datagram[0] |= 0x10;
    let words = (bytes - 12 - 4 - payload.len()) / 4;
    datagram.extend([0xAB, 0xCD]);
    datagram.extend((words as u16).to_be_bytes());
    datagram.resize(16 + words * 4, 0x11);
    datagram.extend(payload);
    assert_eq!(datagram.len(), bytes);
    datagram
}

fn world(max_packet_size: usize) -> World {
    let mut options = super::world::config(1);
    options.rtp.as_mut().unwrap().max_packet_size = max_packet_size;
    World::new(options)
}

/// Sends 600 packets of SSRC 7, one a turn: from the 100th on every third one has `bytes`.
fn feed(world: &mut World, bytes: usize) {
    for n in 0..600_u16 {
        let is_long = n >= 100 && n % 3 == 0;
        let datagram = if is_long {
            long(7, n, bytes)
        } else {
            packet(7, n)
        };
        world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &datagram);
        world.step();
    }
    world.run(Duration::from_millis(200));
}

#[test]
fn a_stream_takes_jumbo_datagrams_from_the_first_one_on_and_loses_nothing() {
    for bytes in [2_316, 8_900, 12_288] {
        let mut world = world(12_288);
        feed(&mut world, bytes);
        let snapshot = &world.snapshot()[0];
        let stats = &snapshot.streams[0].stats;
        assert_eq!((stats.packets_unique, stats.packets_dropped), (600, 0));
        assert_eq!(stats.discards.total(), 0, "{:?}", stats.discards);
        assert!(stats.ring_slot_bytes >= bytes as u64);
        assert!(stats.ring_slot_bytes < 2 * bytes as u64);
    }
}

#[test]
fn a_source_whose_first_datagrams_are_long_is_taken_from_its_first_one_on() {
    let mut world = world(9_000);
    for n in 0..100_u16 {
        let datagram = long(7, n, 8_900);
        world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &datagram);
        world.step();
    }
    world.run(Duration::from_millis(200));
    let stats = world.snapshot()[0].streams[0].stats.clone();
    assert_eq!((stats.packets_unique, stats.packets_dropped), (100, 0));
}

#[test]
fn what_is_longer_than_allowed_is_counted_at_its_stream_and_the_rest_goes_on() {
    let mut world = world(mirror_base::ring::SLOT_BYTES);
    feed(&mut world, 2_316);
    let snapshot = &world.snapshot()[0];
    let stats = &snapshot.streams[0].stats;
    let long = (100..600).filter(|n| n % 3 == 0).count() as u64;
    assert_eq!(stats.discards.get(Discard::OverMaxPacketSize), long);
    assert_eq!(stats.packets_unique, 600 - long);
    assert_eq!(stats.ring_slot_bytes, mirror_base::ring::SLOT_BYTES as u64);
}

#[test]
fn what_the_receive_buffer_cut_off_is_counted_at_the_stream_of_its_source() {
    let mut world = world(mirror_base::ring::SLOT_BYTES);
    feed(&mut world, 1_400);
    world.shards[0].driver.buffer = 1_856;
    for n in 600..610_u16 {
        let from = addr("192.0.2.7:4000");
        world.send_to_engine(from, addr(RTP), &long(7, n, 8_900));
        // Nobody's, and a stranger's.
        world.send_to_engine(from, addr(RTP), &long(8, n, 8_900));
        world.send_to_engine(addr("192.0.2.8:4"), addr(RTP), &long(7, n, 8_900));
        world.step();
    }
    let snapshot = &world.snapshot()[0];
    let of_stream = &snapshot.streams[0].stats.discards;
    assert_eq!(of_stream.get(Discard::OverMaxPacketSize), 10);
    let of_nobody = &snapshot.counters.discards;
    assert_eq!(of_nobody.get(Discard::OverMaxPacketSize), 20);
}

#[test]
fn without_memory_for_longer_slots_the_packet_is_refused_and_the_stream_goes_on() {
    let mut options = super::world::config(1);
    options.rtp.as_mut().unwrap().max_packet_size = 9_000;
    options.pool_bytes_per_shard = 8 * mirror_base::ring::CHUNK_BYTES;
    options.pool_bytes_total = options.pool_bytes_per_shard;
    let mut world = World::new(options);
    for n in 0..300_u16 {
        let from = addr("192.0.2.7:4000");
        world.send_to_engine(from, addr(RTP), &packet(7, n));
        world.step();
    }
    // A burst that is not released yet fills what there is.
    for n in (302..420_u16).chain([600]) {
        let from = addr("192.0.2.7:4000");
        let datagram = if n == 600 {
            long(7, 420, 8_900)
        } else {
            packet(7, n)
        };
        world.send_to_engine(from, addr(RTP), &datagram);
    }
    world.step();
    let stats = world.snapshot()[0].streams[0].stats.clone();
    assert_eq!(
        stats.discards.get(Discard::NoBuffer),
        1,
        "{:?}",
        stats.discards
    );
    world.run(Duration::from_millis(200));
    let stats = world.snapshot()[0].streams[0].stats.clone();
    assert_eq!(stats.packets_unique, 300 + 118);
}
