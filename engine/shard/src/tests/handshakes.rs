//! Handshakes that wait for control: slow answers, late ones, none, and floods of them.

use core::time::Duration;

use mirror_base::{Discard, ShardId};
use mirror_srt::{CloseReason, RejectionCode, Security};
use mirror_stream::report::{Command, Event, PublishRequest};

use super::world::{World, addr, config};

/// The publishers that control was asked about: ticket, shard, what they want.
fn asked(world: &World) -> Vec<(ShardId, u64, PublishRequest)> {
    let of = |e: &Event| match e {
        Event::Authorise {
            shard,
            ticket,
            request,
        } => Some((*shard, *ticket, request.clone())),
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

fn answer(world: &World, (shard, ticket): (ShardId, u64), decision: Result<Security, u32>) {
    let decision = decision.map(Box::new);
    let command = Command::Authorised { ticket, decision };
    world.mailboxes.send(shard, command).unwrap();
}

fn pending(world: &World) -> usize {
    world.shards.iter().map(|s| s.core.pending.len()).sum()
}

#[test]
fn an_answer_just_before_the_callers_patience_ends_is_in_time() {
    let mut world = World::new(config(2));
    world.policy = |_| None;
    let caller = world.call("live/a");
    world.run(Duration::from_millis(2_900));
    let asked = asked(&world);
    assert_eq!(asked.len(), 1, "a dozen repeats asked no second time");
    let repeats: u64 = world
        .snapshot()
        .iter()
        .map(|s| s.counters.discards.get(Discard::HandshakePending))
        .sum();
    assert!((10..=12).contains(&repeats), "{repeats}");
    answer(&world, (asked[0].0, asked[0].1), Ok(Security::clear()));
    world.callers[caller].to_send = 100;
    world.run(Duration::from_millis(400));
    assert!(world.callers[caller].connected);
    let snapshots = world.snapshot();
    let stream = snapshots.iter().flat_map(|s| &s.streams).next().unwrap();
    assert_eq!(stream.stats.packets_unique, 100);
}

#[test]
fn an_answer_that_comes_too_late_opens_nothing() {
    let mut world = World::new(config(1));
    world.policy = |_| None;
    let caller = world.call("live/a");
    world.run(Duration::from_millis(3_300));
    assert_eq!(
        world.callers[caller].closed,
        Some(CloseReason::ConnectTimeout)
    );
    let (shard, ticket, _) = asked(&world)[0];
    answer(&world, (shard, ticket), Ok(Security::clear()));
    answer(&world, (shard, ticket), Err(1401));
    answer(&world, (shard, 4_711), Ok(Security::clear()));
    world.run(Duration::from_millis(100));
    assert!(world.started("live/a").is_empty());
    assert_eq!(world.shards[0].core.sessions.len(), 0);
    assert_eq!((pending(&world), world.directory.len()), (0, 0));
}

#[test]
fn a_storm_of_refused_publishers_costs_others_nothing_and_leaves_nothing() {
    let mut world = World::new(config(2));
    world.policy = |request| match request.stream_id.as_str() {
        "live/good" => Some(Ok(Security::clear())),
        _ => Some(Err(RejectionCode::BADSECRET.0)),
    };
    let good = world.call_and_wait("live/good");
    world.callers[good].to_send = 2_000;
    for n in 0..2_000 {
        world.call(&format!("live/secret{}", n % 5));
        world.step();
        assert!(pending(&world) <= 16, "answered as they come");
    }
    world.run(Duration::from_millis(500));
    let refused = (1..=2_000)
        .filter(|&n| world.rejection(n) == Some(RejectionCode::BADSECRET.0))
        .count();
    assert_eq!(refused, 2_000);
    let snapshots = world.snapshot();
    let streams: Vec<_> = snapshots.iter().flat_map(|s| &s.streams).collect();
    assert_eq!(streams.len(), 1);
    assert_eq!(streams[0].stats.packets_unique, 2_000);
    assert_eq!(streams[0].stats.packets_dropped, 0);
    assert_eq!((pending(&world), world.directory.len()), (0, 1));
    // One stream's memory, and nothing else is taken.
    let taken: u64 = snapshots.iter().map(|s| s.pool_chunks - s.pool_free).sum();
    let slots = streams[0].stats.ring_capacity_slots;
    assert_eq!(taken, slots / mirror_base::ring::CHUNK_SLOTS as u64);
}

#[test]
fn half_open_handshakes_are_bounded_in_all_and_for_each_host() {
    let mut options = config(1);
    options.srt.as_mut().unwrap().handshakes_per_second = 20_000;
    let mut world = World::new(options);
    world.policy = |_| None;
    // One host with 700 callers, then many with one each.
    for n in 0..1_500_u32 {
        let caller = world.call(&format!("live/{}", n % 7));
        let host = if n < 700 { 1 } else { n as u16 % 200 + 2 };
        let address = format!("198.51.100.{host}:{}", 10_000 + n);
        world.callers[caller].local = addr(&address);
        if n % 10 == 0 {
            world.step();
        }
        if n == 699 {
            world.run(Duration::from_millis(20));
            assert_eq!(pending(&world), 512);
        }
    }
    world.run(Duration::from_millis(20));
    assert_eq!(pending(&world), 1_024);
    let counters = &world.snapshot()[0].counters;
    assert!(counters.discards.get(Discard::HandshakeLimit) >= 476);
    // Everybody goes away; what waits expires and leaves room.
    for caller in &mut world.callers {
        caller.dead = true;
    }
    world.run(Duration::from_millis(3_300));
    assert_eq!((pending(&world), world.directory.len()), (0, 0));
    world.policy = |_| Some(Ok(Security::clear()));
    let late = world.call_and_wait("live/late");
    assert!(world.callers[late].connected);
}

#[test]
fn an_oversized_handshake_is_not_looked_at() {
    let world = &mut World::new(config(1));
    let mut bytes = vec![0_u8; 9_000];
    bytes[0] = 0x80;
    world.send_to_shard(0, addr("203.0.113.1:9"), addr(super::world::SRT), &bytes);
    world.run(Duration::from_millis(5));
    let counters = &world.snapshot()[0].counters;
    assert_eq!(counters.discards.get(Discard::TooLong), 1);
}

#[test]
fn a_refused_conclusion_that_comes_again_gets_its_answer_without_asking_control_again() {
    let mut world = World::new(config(2));
    world.policy = |_| None;
    let caller = world.call("live/a");
    while asked(&world).is_empty() {
        world.step();
    }
    let (shard, ticket, _) = asked(&world)[0];
    answer(&world, (shard, ticket), Err(RejectionCode::BADSECRET.0));
    while pending(&world) > 0 {
        world.step();
        world.lose_replies();
    }
    world.run(Duration::from_millis(100));
    assert_eq!(world.rejection(caller), None, "the answer was lost");
    world.run(Duration::from_millis(400));
    assert_eq!(world.rejection(caller), Some(RejectionCode::BADSECRET.0));
    assert_eq!(asked(&world).len(), 1);
    assert_eq!((pending(&world), world.directory.len()), (0, 0));
    // Not for ever: a new attempt is judged anew, and the memory of old ones is bounded.
    world.policy = |_| Some(Ok(Security::clear()));
    world.call_and_wait("live/a");
    assert_eq!(asked(&world).len(), 2);
}

/// A caller's request: its induction, or its conclusion with the cookie that it was given.
fn request(socket_id: u32, cookie: Option<u32>) -> Vec<u8> {
    let mut words = vec![0x8000_0000, 0, 0, 0];
    match cookie {
        None => words.extend([4, 2, 1000, 1500, 8192, 1, socket_id, 0]),
        Some(cookie) => words.extend([5, 5, 1000, 1500, 8192, u32::MAX, socket_id, cookie]),
    }
    words.extend([0; 4]);
    if cookie.is_some() {
        words.extend([1 << 16 | 3, 0x0001_0501, 0xBF, 120 << 16]);
        words.extend([5 << 16 | 1, u32::from_le_bytes(*b"evil")]);
    }
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[test]
fn one_host_that_floods_handshakes_does_not_keep_out_others() {
    let mut world = World::new(config(1));
    world.policy = |request| match request.stream_id.as_str() {
        "live/good" => Some(Ok(Security::clear())),
        _ => Some(Err(RejectionCode::FORBIDDEN.0)),
    };
    let (flood, srt) = (addr("198.51.100.66:6000"), addr(super::world::SRT));
    world.send_to_engine(flood, srt, &request(1, None));
    world.run(Duration::from_millis(10));
    let (_, _, answer) = &world.to_others[0];
    let cookie = u32::from_be_bytes(answer[44..48].try_into().unwrap());
    let mut good = None;
    for ms in 0..1_500_u32 {
        // Ten times as many conclusions as are looked at, and more inductions than that.
        for n in 0..20 {
            let conclusion = request(1 + ms * 20 + n, Some(cookie));
            world.send_to_engine(flood, srt, &conclusion);
        }
        for _ in 0..40 {
            world.send_to_engine(flood, srt, &request(1, None));
        }
        world.step();
        if ms == 700 {
            good = Some(world.call("live/good"));
        }
    }
    assert!(world.callers[good.unwrap()].connected);
    let counters = &world.snapshot()[0].counters;
    assert!((2_500..4_500).contains(&counters.rejected));
    assert!(counters.discards.get(Discard::HandshakeLimit) > 50_000);
}
