//! What becomes of sessions and streams: refusals, conflicts, silence, faults, the end.

use core::time::Duration;

use mirror_base::{ShardId, StreamId};
use mirror_srt::{CloseReason, Security};
use mirror_stream::report::{Command, EndReason, Event, Status};

use super::world::{World, config};

#[test]
fn wishes_that_cannot_be_met_are_refused_with_their_code() {
    let mut world = World::new(config(2));
    *world.directory.blocked.lock().unwrap() = vec![StreamId::new("live/blocked").unwrap()];
    world.policy = |request| match request.stream_id.as_str() {
        "live/forbidden" => Some(Err(1401)),
        _ => Some(Ok(Security::clear())),
    };
    let cases = [
        ("", 1400),
        ("no good id", 1400),
        ("#!::r=live/x,m=request", 1405),
        ("#!::r=live/x,m=bidirectional", 1405),
        ("live/blocked", 1403),
        ("live/forbidden", 1401),
    ];
    for (stream_id, code) in cases {
        let caller = world.call_and_wait(stream_id);
        assert_eq!(world.rejection(caller), Some(code), "{stream_id:?}");
    }
    world.run(Duration::from_millis(10));
    assert_eq!(world.directory.len(), 0, "reservations were given back");
    *world.directory.limit.lock().unwrap() = Some(0);
    let caller = world.call_and_wait("live/one-too-many");
    assert_eq!(world.rejection(caller), Some(1402));
}

#[test]
fn a_publisher_is_shown_with_everything_it_said() {
    let mut world = World::new(config(1));
    let caller = world.call_and_wait("#!::r=live/x,m=publish,u=ann,venue=hall 3");
    assert!(world.callers[caller].connected);
    let request = world.log.iter().find_map(|e| match e {
        Event::Started { request, .. } => Some(request.clone()),
        _ => None,
    });
    let request = request.unwrap();
    assert_eq!(request.stream_id.as_str(), "live/x");
    assert_eq!(request.user.as_deref(), Some("ann"));
    assert_eq!(request.tags, ["venue=hall 3"]);
    assert_eq!(request.latency, Duration::from_millis(120));
    assert!(request.srt_stream_id.starts_with("#!::r=live/x"));
}

#[test]
fn a_caller_without_a_stream_id_gets_the_default_stream() {
    let mut world = World::new(config(1));
    *world.directory.default.lock().unwrap() = Some(StreamId::new("live/default").unwrap());
    let caller = world.call_and_wait("");
    assert!(world.callers[caller].connected);
    assert_eq!(world.started("live/default").len(), 1);
}

#[test]
fn a_handshake_that_control_never_answers_expires() {
    let mut world = World::new(config(2));
    world.policy = |_| None;
    world.call("live/waits");
    world.run(Duration::from_millis(500));
    let pending: u64 = world.snapshot().iter().map(|s| s.handshakes_pending).sum();
    assert_eq!(pending, 1, "repeats of the conclusion are one handshake");
    world.callers[0].dead = true;
    world.run(Duration::from_millis(3_200));
    let pending: u64 = world.snapshot().iter().map(|s| s.handshakes_pending).sum();
    assert_eq!(pending, 0);
    assert_eq!(world.directory.len(), 0);
}

#[test]
fn a_repeated_conclusion_gets_the_same_answer_and_no_second_session() {
    let mut world = World::new(config(3));
    let caller = world.call("live/a");
    while world.started("live/a").is_empty() {
        world.step();
    }
    world.lose_replies();
    world.run(Duration::from_millis(100));
    assert!(!world.callers[caller].connected, "the answer was lost");
    world.run(Duration::from_millis(400));
    assert!(world.callers[caller].connected);
    let snapshots = world.snapshot();
    assert_eq!(
        snapshots.iter().map(|s| s.counters.accepted).sum::<u64>(),
        1
    );
    assert_eq!(world.started("live/a").len(), 1);
    world.callers[caller].to_send = 50;
    world.run(Duration::from_millis(300));
    let snapshots = world.snapshot();
    let stream = snapshots.iter().flat_map(|s| &s.streams).next().unwrap();
    assert_eq!(stream.stats.packets_unique, 50);
}

#[test]
fn a_second_publisher_of_a_live_stream_is_refused() {
    let mut world = World::new(config(2));
    let first = world.call_and_wait("live/a");
    world.callers[first].to_send = 3_000;
    world.run(Duration::from_millis(200));
    let second = world.call_and_wait("live/a");
    assert_eq!(world.rejection(second), Some(1409));
    assert!(world.callers[first].closed.is_none());
    world.run(Duration::from_millis(500));
    assert!(world.ended("live/a").is_empty());
}

#[test]
fn twins_that_call_at_once_end_as_one_stream() {
    let mut world = World::new(config(3));
    let twins: Vec<_> = (0..4).map(|_| world.call("live/twin")).collect();
    world.run(Duration::from_millis(400));
    let connected = twins
        .iter()
        .filter(|&&t| world.callers[t].connected)
        .count();
    let refused = twins
        .iter()
        .filter(|&&t| world.rejection(t) == Some(1409))
        .count();
    assert_eq!((connected, refused), (1, 3));
}

#[test]
fn a_takeover_is_possible_where_it_is_configured() {
    let mut options = config(2);
    options.takeover = true;
    let mut world = World::new(options);
    let first = world.call_and_wait("live/a");
    world.callers[first].to_send = 10_000;
    world.run(Duration::from_millis(200));
    let second = world.call_and_wait("live/a");
    assert!(world.callers[second].connected);
    world.run(Duration::from_millis(50));
    assert_eq!(world.callers[first].closed, Some(CloseReason::PeerShutdown));
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::TakenOver, Status::Reconnecting)]
    );
    assert!(world.started("live/a")[1].1, "the stream goes on");
}

#[test]
fn a_silent_session_gives_way_to_the_same_user_after_half_a_second() {
    let mut world = World::new(config(2));
    let first = world.call_and_wait("#!::r=live/a,u=ann,m=publish");
    world.callers[first].to_send = 100;
    world.run(Duration::from_millis(200));
    world.callers[first].dead = true;
    world.run(Duration::from_millis(100));
    let early = world.call_and_wait("#!::r=live/a,u=ann,m=publish");
    assert_eq!(
        world.rejection(early),
        Some(1409),
        "not silent for long enough"
    );
    world.run(Duration::from_millis(500));
    let stranger = world.call_and_wait("#!::r=live/a,u=bob,m=publish");
    assert_eq!(world.rejection(stranger), Some(1409), "other credentials");
    let second = world.call_and_wait("#!::r=live/a,u=ann,m=publish");
    assert!(world.callers[second].connected);
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::TakenOver, Status::Reconnecting)]
    );
    world.callers[second].to_send = 100;
    world.run(Duration::from_millis(500));
    let snapshots = world.snapshot();
    let stream = snapshots.iter().flat_map(|s| &s.streams).next().unwrap();
    assert_eq!(stream.stats.packets_unique, 200);
    assert_eq!(stream.status, Status::Active);
}

#[test]
fn a_vanished_peer_is_waited_for_and_then_the_memory_is_free_again() {
    let mut world = World::new(config(2));
    let caller = world.call_and_wait("live/a");
    world.callers[caller].to_send = 300;
    world.run(Duration::from_millis(500));
    let used = |w: &mut World| -> u64 {
        w.snapshot()
            .iter()
            .map(|s| s.pool_chunks - s.pool_free)
            .sum()
    };
    assert!(used(&mut world) >= 8);
    world.callers[caller].dead = true;
    world.run(Duration::from_millis(6_500));
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::IdleTimeout, Status::Reconnecting)]
    );
    let status = world
        .snapshot()
        .iter()
        .flat_map(|s| &s.streams)
        .next()
        .unwrap()
        .status;
    assert_eq!(status, Status::Reconnecting);
    world.run(Duration::from_millis(5_000));
    assert_eq!(
        world.ended("live/a")[1..],
        [(EndReason::IdleTimeout, Status::Terminated)]
    );
    assert_eq!(used(&mut world), 0);
    assert_eq!(world.directory.len(), 0);
    let last = world.log.iter().rev().find_map(|e| match e {
        Event::Ended { last, .. } => Some(last.clone()),
        _ => None,
    });
    assert_eq!(
        last.unwrap().stats.packets_unique,
        300,
        "the last snapshot keeps the figures"
    );
}

#[test]
fn a_session_without_media_ends_as_an_error() {
    let mut options = config(1);
    options.stream_timeout = Duration::from_secs(3);
    let mut world = World::new(options);
    let caller = world.call_and_wait("live/mute");
    world.run(Duration::from_millis(3_400));
    assert_eq!(
        world.ended("live/mute"),
        [(EndReason::IdleTimeout, Status::Error)]
    );
    assert_eq!(
        world.callers[caller].closed,
        Some(CloseReason::PeerShutdown)
    );
    assert_eq!(world.directory.len(), 0);
}

#[test]
fn a_broken_invariant_ends_one_session_and_no_other() {
    break_an_invariant(|session| session.poisoned = true);
}

#[test]
fn a_broken_invariant_at_a_datagram_ends_one_session_and_no_other() {
    break_an_invariant(|session| session.poisons_datagrams = true);
}

#[test]
fn a_broken_invariant_at_a_usual_packet_ends_one_session_and_no_other() {
    break_an_invariant(|session| session.poisons_usual = true);
}

fn break_an_invariant(poison: fn(&mut crate::session::Session)) {
    let mut world = World::new(config(1));
    let first = world.call_and_wait("live/a");
    let second = world.call_and_wait("live/b");
    for caller in [first, second] {
        world.callers[caller].to_send = 500;
    }
    world.run(Duration::from_millis(100));
    let core = &mut world.shards[0].core;
    let stream = core.by_id[&StreamId::new("live/a").unwrap()];
    let session = core.streams.get(stream).unwrap().session.unwrap();
    poison(core.sessions.get_mut(session).unwrap());
    world.run(Duration::from_millis(1_000));
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::InternalError, Status::Error)]
    );
    assert!(world.ended("live/b").is_empty());
    let snapshots = world.snapshot();
    assert_eq!(snapshots[0].counters.session_panics, 1);
    assert_eq!(snapshots[0].streams.len(), 1);
    assert_eq!(snapshots[0].streams[0].stats.packets_unique, 500);
}

#[test]
fn the_operator_ends_pauses_and_resumes() {
    let mut world = World::new(config(1));
    let caller = world.call_and_wait("live/a");
    world.callers[caller].to_send = 5_000;
    world.run(Duration::from_millis(300));
    let id = StreamId::new("live/a").unwrap();
    let status = |w: &mut World| w.snapshot()[0].streams[0].status;
    assert_eq!(status(&mut world), Status::Active);
    world
        .mailboxes
        .send(ShardId(0), Command::Pause(id.clone()))
        .unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(status(&mut world), Status::Paused);
    world
        .mailboxes
        .send(ShardId(0), Command::Resume(id.clone()))
        .unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(status(&mut world), Status::Active);
    let order = Command::Terminate {
        stream_id: id,
        reason: EndReason::Operator,
    };
    world.mailboxes.send(ShardId(0), order).unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(
        world.callers[caller].closed,
        Some(CloseReason::PeerShutdown)
    );
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::Operator, Status::Terminated)]
    );
    assert_eq!(world.directory.len(), 0);
}

#[test]
fn latency_is_recorded_for_the_shard_and_for_each_stream() {
    let mut world = World::new(config(1));
    let caller = world.call_and_wait("live/a");
    world.callers[caller].to_send = 100;
    world.run(Duration::from_millis(400));
    for stream_id in [None, Some(StreamId::new("live/a").unwrap())] {
        let (reply, receiver) = crossbeam_channel::bounded(1);
        let command = Command::Latency {
            stream_id,
            reset: true,
            reply,
        };
        world.mailboxes.send(ShardId(0), command).unwrap();
        world.step();
        let set = receiver.try_recv().unwrap().unwrap();
        assert_eq!(set.receive.len(), 100);
        let hold = set.hold.value_at_quantile(0.5);
        assert!((100_000..=130_000).contains(&hold), "{hold} µs");
    }
    let (reply, receiver) = crossbeam_channel::bounded(1);
    let stream_id = Some(StreamId::new("live/none").unwrap());
    world
        .mailboxes
        .send(
            ShardId(0),
            Command::Latency {
                stream_id,
                reset: false,
                reply,
            },
        )
        .unwrap();
    world.step();
    assert!(receiver.try_recv().unwrap().is_none());
}

#[test]
fn a_drain_tells_every_peer_delivers_what_is_held_and_ends() {
    let mut world = World::new(config(2));
    for n in 0..4 {
        let caller = world.call_and_wait(&format!("live/{n}"));
        world.callers[caller].to_send = 100;
    }
    world.run(Duration::from_millis(100));
    let waiting = world.call("live/late");
    for shard in 0..2 {
        let within = Duration::from_secs(3);
        world
            .mailboxes
            .send(ShardId(shard), Command::Drain { within })
            .unwrap();
    }
    world.run(Duration::from_millis(400));
    assert!(world.finished.iter().all(|&f| f));
    for n in 0..4 {
        assert_eq!(
            world.callers[n].closed,
            Some(CloseReason::PeerShutdown),
            "caller {n}"
        );
        assert_eq!(
            world.ended(&format!("live/{n}")),
            [(EndReason::Drain, Status::Terminated)]
        );
    }
    assert!(!world.callers[waiting].connected);
    let stopped = world
        .log
        .iter()
        .filter(|e| matches!(e, Event::Stopped { error: None, .. }))
        .count();
    assert_eq!(stopped, 2);
    assert_eq!(world.directory.len(), 0);
}

#[test]
fn a_stream_that_was_paused_for_longer_than_its_timeout_goes_on() {
    let mut options = config(1);
    options.stream_timeout = Duration::from_millis(500);
    let mut world = World::new(options);
    let caller = world.call_and_wait("live/x");
    world.callers[caller].to_send = 5_000;
    world.run(Duration::from_millis(300));
    let id = StreamId::new("live/x").unwrap();
    let send = |world: &World, command| world.mailboxes.send(ShardId(0), command).unwrap();
    send(&world, Command::Pause(id.clone()));
    world.run(Duration::from_millis(900));
    send(&world, Command::Resume(id.clone()));
    world.run(Duration::from_millis(300));
    assert!(world.callers[caller].closed.is_none());
    assert!(world.ended("live/x").is_empty());
    assert_eq!(world.snapshot()[0].streams[0].status, Status::Active);
}

#[test]
fn a_latency_beyond_the_stream_timeout_is_waited_for() {
    let mut options = config(1);
    options.stream_timeout = Duration::from_secs(1);
    options.srt.as_mut().unwrap().connection.latency = Duration::from_secs(2);
    options.pool_bytes_per_shard = 256 << 20;
    let mut world = World::new(options);
    let caller = world.call_and_wait("live/x");
    world.callers[caller].to_send = 4_000;
    world.run(Duration::from_secs(3));
    assert!(world.callers[caller].closed.is_none());
    assert!(world.ended("live/x").is_empty());
}

#[test]
fn a_spoofed_flood_of_inductions_does_not_keep_out_who_has_a_cookie() {
    let mut options = config(1);
    options.srt.as_mut().unwrap().handshakes_per_second = 10;
    let mut world = World::new(options);
    let caller = world.call("live/x");
    // One step brings its induction in, before the flood does.
    world.step();
    world.step();
    let mut induction = [0_u8; 64];
    induction[0] = 0x80;
    induction[16 + 3] = 4;
    induction[16 + 6] = 0;
    induction[16 + 7] = 2;
    induction[16 + 23] = 1;
    for _ in 0..200 {
        for n in 0..100_u16 {
            let from = std::net::SocketAddr::from(([203, 0, 113, 1], 10_000 + n));
            world.send_to_engine(from, super::world::addr(super::world::SRT), &induction);
        }
        world.step();
    }
    assert!(world.callers[caller].connected);
}
