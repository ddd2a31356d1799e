//! The whole way: datagrams of a real transport stream in, access units counted and timed.

use core::time::Duration;

use mirror_base::{ShardId, StreamId};
use mirror_media::Codec;
use mirror_stream::report::{Command, Event, StreamSnapshot};

use super::world::{RTP, World, addr, config};

/// 50 pictures of H.264 and AAC, 25 frames a second: 2 s.
const TS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/media/ts_h264ipp_aac.ts"
));
const PICTURES: u64 = 50;

fn media_config() -> crate::ShardsConfig {
    let mut config = config(2);
    config.stream.media = true;
    config
}

fn last_snapshot(world: &World, id: &str) -> Box<StreamSnapshot> {
    let found = world.log.iter().rev().find_map(|event| match event {
        Event::Ended {
            stream_id, last, ..
        } if stream_id.as_str() == id => Some(last.clone()),
        _ => None,
    });
    found.expect("the stream has ended")
}

fn check(last: &StreamSnapshot) {
    assert_eq!(last.codec(), Codec::H264);
    assert_eq!(last.container, Some("mpegts"));
    assert_eq!(last.stats.video_frames, PICTURES);
    assert_eq!(last.stats.frames_damaged, 0);
    assert_eq!(last.stats.ts_packets, 279);
    assert!(last.stats.key_frames >= 1 && last.stats.audio_frames > 0);
    let video = last.video().unwrap();
    assert!(video.width > 0 && video.height > 0);
    assert!(last.audio().is_some());
}

#[test]
fn every_picture_sent_over_srt_is_counted_and_timed() {
    let mut world = World::new(media_config());
    let caller = world.call_and_wait("live/ts");
    for payload in TS.chunks(7 * 188) {
        let now = world.now();
        world.callers[caller].connection.send(now, payload).unwrap();
        world.run(Duration::from_millis(40));
    }
    world.run(Duration::from_millis(200));
    let shard = world.started("live/ts")[0].0;
    let (reply, receiver) = crossbeam_channel::bounded(1);
    let stream_id = Some(StreamId::new("live/ts").unwrap());
    let command = Command::Latency {
        stream_id,
        reset: false,
        reply,
    };
    world.mailboxes.send(shard, command).unwrap();
    world.step();
    let set = receiver.try_recv().unwrap().unwrap();
    assert!(set.total.len() >= PICTURES, "{}", set.total.len());
    // Virtual time: what is left is the wheel's tick.
    assert!(set.total.max() < 3_000, "{} µs", set.total.max());
    let now = world.now();
    world.callers[caller].connection.close(now);
    world.run(Duration::from_millis(300));
    check(&last_snapshot(&world, "live/ts"));
}

#[test]
fn a_shutdown_with_packets_in_the_hold_loses_none_of_them() {
    let mut world = World::new(media_config());
    let caller = world.call_and_wait("live/ts");
    for payload in TS.chunks(7 * 188) {
        let now = world.now();
        world.callers[caller].connection.send(now, payload).unwrap();
        world.step();
    }
    world.run(Duration::from_millis(10));
    let now = world.now();
    world.callers[caller].connection.close(now);
    world.run(Duration::from_millis(300));
    check(&last_snapshot(&world, "live/ts"));
}

#[test]
fn every_picture_sent_over_rtp_is_counted() {
    let mut world = World::new(media_config());
    for (sequence, payload) in TS.chunks(7 * 188).enumerate() {
        let mut bytes = vec![0x80, 33];
        bytes.extend((sequence as u16).to_be_bytes());
        bytes.extend((sequence as u32 * 3_600).to_be_bytes());
        bytes.extend(0x77_u32.to_be_bytes());
        bytes.extend_from_slice(payload);
        world.send_to_engine(addr("192.0.2.7:4000"), addr(RTP), &bytes);
        world.run(Duration::from_millis(40));
    }
    let shard = ShardId(1);
    assert_eq!(world.started("rtp_00000077"), [(shard, false)]);
    world.run(Duration::from_millis(11_000));
    check(&last_snapshot(&world, "rtp_00000077"));
}
