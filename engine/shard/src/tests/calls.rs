//! Calls: from control's order to a stream, and every way that they come to nothing.

use core::time::Duration;

use mirror_base::{ShardId, StreamId};
use mirror_srt::{CloseReason, RejectionCode, Security};
use mirror_stream::report::{
    CallFailure, CallRequest, Command, EndReason, Event, Mode, Status, StreamSnapshot,
};

use super::remote::{Answer, Remote};
use super::world::{World, addr, config};

const REMOTE: &str = "198.51.100.7:9000";

fn order(world: &World, shard: u16, ticket: u64, id: &str) {
    let request = CallRequest {
        ticket,
        stream_id: StreamId::new(id).unwrap(),
        peer: addr(REMOTE),
        srt_stream_id: "#!::r=studio/1".to_owned(),
        latency: Some(Duration::from_millis(200)),
        security: None,
        tags: vec!["site=north".to_owned()],
        rendezvous: None,
    };
    let command = Command::Call(Box::new(request));
    world.mailboxes.send(ShardId(shard), command).unwrap();
}

fn terminate(world: &World, shard: u16, id: &str) {
    let command = Command::Terminate {
        stream_id: StreamId::new(id).unwrap(),
        reason: EndReason::Operator,
    };
    world.mailboxes.send(ShardId(shard), command).unwrap();
}

fn accepting() -> Remote {
    Remote::new(addr(REMOTE), Answer::Accept(|_| Ok(Security::clear())))
}

fn failures(world: &World) -> Vec<(u64, CallFailure)> {
    let of = |e: &Event| match e {
        Event::CallFailed {
            ticket, failure, ..
        } => Some((*ticket, *failure)),
        _ => None,
    };
    world.log.iter().filter_map(of).collect()
}

fn stream(world: &mut World, id: &str) -> StreamSnapshot {
    let snapshots = world.snapshot();
    let mut streams = snapshots.iter().flat_map(|s| &s.streams);
    streams
        .find(|s| s.stream_id.as_str() == id)
        .unwrap()
        .clone()
}

fn sessions(world: &World) -> usize {
    world.shards.iter().map(|s| s.core.sessions.len()).sum()
}

#[test]
fn a_call_that_is_answered_becomes_a_stream_whose_first_packets_are_there() {
    let mut world = World::new(config(2));
    let mut remote = accepting();
    // It sends from the moment it accepts: media comes right behind the response.
    remote.to_send = 500;
    world.remotes.push(remote);
    order(&world, 1, 77, "live/fetched");
    world.run(Duration::from_millis(900));
    assert_eq!(world.started("live/fetched"), [(ShardId(1), false)]);
    let request = world.log.iter().find_map(|e| match e {
        Event::Started { request, .. } => Some(request.clone()),
        _ => None,
    });
    let request = request.unwrap();
    assert_eq!((request.mode, request.peer), (Mode::Caller, addr(REMOTE)));
    assert_eq!(request.latency, Duration::from_millis(200));
    assert_eq!(request.srt_stream_id, "#!::r=studio/1");
    assert_eq!(request.tags, ["site=north"]);
    assert!(request.peer_version >= 0x0001_0300);
    assert_eq!(
        world.remotes[0].requests,
        [Some(b"#!::r=studio/1".to_vec())]
    );
    let snapshot = stream(&mut world, "live/fetched");
    assert_eq!(
        (snapshot.mode, snapshot.status),
        (Mode::Caller, Status::Active)
    );
    assert_eq!(snapshot.stats.packets_unique, 500);
    assert_eq!(snapshot.stats.packets_dropped, 0);
    assert_eq!(snapshot.srt.unwrap().pkt_recv_unique, 500);
    let snapshots = world.snapshot();
    assert_eq!(snapshots[1].counters.calls, 1);
    assert_eq!(snapshots[1].counters.accepted, 1);
    assert_eq!(snapshots[1].sockets.last().unwrap().role, "srt_call");
    assert_eq!(world.directory.owner("live/fetched"), Some(ShardId(1)));
}

#[test]
fn a_call_that_nobody_answers_times_out_and_leaves_nothing() {
    let mut world = World::new(config(1));
    order(&world, 0, 5, "live/a");
    world.run(Duration::from_millis(1_500));
    assert_eq!(world.snapshot()[0].calls_pending, 1);
    assert_eq!(world.directory.len(), 1, "its name is held");
    world.run(Duration::from_millis(1_700));
    assert_eq!(failures(&world), [(5, CallFailure::Timeout)]);
    assert_eq!((sessions(&world), world.directory.len()), (0, 0));
    let snapshot = &world.snapshot()[0];
    assert_eq!(snapshot.calls_pending, 0);
    assert_eq!(snapshot.counters.calls_failed, 1);
    assert_eq!(snapshot.pool_chunks, snapshot.pool_free);
    // About one request each 250 ms, no storm.
    assert!(snapshot.counters.datagrams_sent <= 14);
}

#[test]
fn a_refused_call_says_why() {
    let mut world = World::new(config(1));
    let answer = Answer::Reject(RejectionCode::NOTFOUND);
    world.remotes.push(Remote::new(addr(REMOTE), answer));
    order(&world, 0, 6, "live/a");
    world.run(Duration::from_millis(50));
    assert_eq!(failures(&world), [(6, CallFailure::Rejected(1404))]);
    assert_eq!((sessions(&world), world.directory.len()), (0, 0));
}

#[test]
fn a_second_call_for_a_stream_and_one_for_a_live_stream_are_conflicts() {
    let mut world = World::new(config(1));
    world
        .remotes
        .push(Remote::new(addr(REMOTE), Answer::Silence));
    order(&world, 0, 1, "live/a");
    order(&world, 0, 2, "live/a");
    world.run(Duration::from_millis(10));
    assert_eq!(failures(&world), [(2, CallFailure::Conflict)]);
    let publisher = world.call_and_wait("live/b");
    world.callers[publisher].to_send = 1_000;
    world.run(Duration::from_millis(50));
    order(&world, 0, 3, "live/b");
    world.run(Duration::from_millis(10));
    assert_eq!(failures(&world)[1..], [(3, CallFailure::Conflict)]);
    assert_eq!(world.snapshot()[0].calls_pending, 1);
    assert!(world.directory.owner("live/b").is_some());
}

#[test]
fn the_operator_cancels_a_call() {
    let mut world = World::new(config(1));
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(100));
    terminate(&world, 0, "live/a");
    world.run(Duration::from_millis(10));
    assert_eq!(failures(&world), [(1, CallFailure::Cancelled)]);
    assert_eq!((sessions(&world), world.directory.len()), (0, 0));
}

#[test]
fn a_drain_cancels_calls_and_ends_called_streams() {
    let mut world = World::new(config(1));
    let mut remote = accepting();
    remote.to_send = 10_000;
    world.remotes.push(remote);
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(100));
    world.remotes[0].answer = Answer::Silence;
    order(&world, 0, 2, "live/b");
    world.run(Duration::from_millis(50));
    let within = Duration::from_secs(2);
    world
        .mailboxes
        .send(ShardId(0), Command::Drain { within })
        .unwrap();
    world.run(Duration::from_millis(500));
    assert!(world.finished[0]);
    assert_eq!(failures(&world), [(2, CallFailure::Cancelled)]);
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::Drain, Status::Terminated)]
    );
    assert_eq!(world.remotes[0].closed, Some(CloseReason::PeerShutdown));
    assert_eq!(world.directory.len(), 0);
}

#[test]
fn a_publisher_that_comes_first_keeps_the_stream_and_the_listener_is_told() {
    let mut world = World::new(config(1));
    world
        .remotes
        .push(Remote::new(addr(REMOTE), Answer::Silence));
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(100));
    let publisher = world.call_and_wait("live/a");
    assert!(world.callers[publisher].connected);
    world.callers[publisher].to_send = 3_000;
    world.remotes[0].answer = Answer::Accept(|_| Ok(Security::clear()));
    world.remotes[0].to_send = 100;
    world.run(Duration::from_millis(600));
    assert_eq!(failures(&world), [(1, CallFailure::Conflict)]);
    assert_eq!(world.remotes[0].closed, Some(CloseReason::PeerShutdown));
    assert!(world.callers[publisher].closed.is_none());
    assert!(world.directory.owner("live/a").is_some());
    assert_eq!(sessions(&world), 1);
}

#[test]
fn a_call_takes_a_stream_over_where_that_is_configured() {
    for grace in [Duration::from_secs(5), Duration::ZERO] {
        let mut options = config(1);
        options.takeover = true;
        options.reconnect_grace = grace;
        let mut world = World::new(options);
        let publisher = world.call_and_wait("live/a");
        world.callers[publisher].to_send = 300;
        world.run(Duration::from_millis(200));
        let mut remote = accepting();
        remote.to_send = 100;
        world.remotes.push(remote);
        order(&world, 0, 1, "live/a");
        world.run(Duration::from_millis(500));
        assert!(failures(&world).is_empty());
        assert_eq!(
            world.callers[publisher].closed,
            Some(CloseReason::PeerShutdown)
        );
        let resumed = !grace.is_zero();
        assert_eq!(
            world.started("live/a")[1],
            (ShardId(0), resumed),
            "{grace:?}"
        );
        let snapshot = stream(&mut world, "live/a");
        assert_eq!(snapshot.srt.unwrap().pkt_recv_unique, 100);
        assert_eq!(
            (snapshot.mode, snapshot.status),
            (Mode::Caller, Status::Active)
        );
        assert_eq!(sessions(&world), 1);
    }
}

#[test]
fn a_listener_that_restarts_is_waited_for_and_called_again_within_the_grace() {
    let mut world = World::new(config(1));
    let mut remote = accepting();
    remote.to_send = 10_000;
    world.remotes.push(remote);
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(300));
    world.remotes[0].restart();
    world.run(Duration::from_millis(5_500));
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::IdleTimeout, Status::Reconnecting)]
    );
    let before = stream(&mut world, "live/a").stats.packets_unique;
    world.remotes[0].to_send = 50;
    order(&world, 0, 2, "live/a");
    world.run(Duration::from_millis(400));
    assert!(failures(&world).is_empty());
    assert_eq!(world.started("live/a")[1], (ShardId(0), true));
    let snapshot = stream(&mut world, "live/a");
    assert_eq!(snapshot.stats.packets_unique, before + 50);
    assert_eq!(
        (snapshot.stats.sessions, snapshot.status),
        (2, Status::Active)
    );
}

#[test]
fn calls_count_among_the_connections_and_are_bounded() {
    let mut options = config(1);
    options.srt.as_mut().unwrap().max_connections = 3;
    let mut world = World::new(options);
    for ticket in 0..5 {
        order(&world, 0, ticket, &format!("live/{ticket}"));
    }
    world.run(Duration::from_millis(10));
    assert_eq!(
        failures(&world),
        [(3, CallFailure::NoRoom), (4, CallFailure::NoRoom)]
    );
    let publisher = world.call_and_wait("live/x");
    assert_eq!(world.rejection(publisher), Some(1402));
    *world.directory.limit.lock().unwrap() = Some(3);
    terminate(&world, 0, "live/0");
    world.run(Duration::from_millis(5));
    order(&world, 0, 7, "live/7");
    order(&world, 0, 8, "live/8");
    world.run(Duration::from_millis(5));
    assert_eq!(failures(&world)[3..], [(8, CallFailure::NoRoom)]);
}

#[test]
fn a_shard_without_sockets_left_says_there_is_no_room_and_tries_again() {
    let mut world = World::new(config(1));
    world.shards[0].driver.no_sockets = true;
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(5));
    assert_eq!(failures(&world), [(1, CallFailure::NoRoom)]);
    world.shards[0].driver.no_sockets = false;
    world.remotes.push(accepting());
    order(&world, 0, 2, "live/a");
    world.run(Duration::from_millis(50));
    assert_eq!(world.started("live/a").len(), 1);
}

#[test]
fn nobody_but_the_listener_can_answer_refuse_or_end_a_call() {
    let mut world = World::new(config(1));
    world
        .remotes
        .push(Remote::new(addr(REMOTE), Answer::Silence));
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(20));
    let (_, session) = world.shards[0].core.sessions.iter().next().unwrap();
    let id = session.socket_id;
    let mut shutdown = vec![0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    shutdown.extend(id.to_be_bytes());
    shutdown.extend([0; 4]);
    let mut rejection = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rejection.extend(id.to_be_bytes());
    rejection.extend([0; 48]);
    rejection[16 + 20..16 + 24].copy_from_slice(&1010_u32.to_be_bytes());
    let to = addr("10.0.0.1:40000");
    for bytes in [&shutdown, &rejection] {
        world.send_to_engine(addr("203.0.113.9:9000"), to, bytes);
        // From the listener's address, but to the listening socket.
        world.send_to_engine(addr(REMOTE), addr(super::world::SRT), bytes);
    }
    // A handshake of a stranger: nobody listens there.
    rejection[12..16].fill(0);
    world.send_to_engine(addr("203.0.113.9:9000"), to, &rejection);
    world.run(Duration::from_millis(50));
    assert!(failures(&world).is_empty());
    let counters = &world.snapshot()[0].counters;
    assert_eq!(
        counters.discards.get(mirror_base::Discard::ForeignSource),
        4
    );
    world.remotes[0].answer = Answer::Accept(|_| Ok(Security::clear()));
    world.run(Duration::from_millis(600));
    assert_eq!(world.started("live/a").len(), 1);
}

#[test]
fn a_call_that_was_lost_while_it_was_answered_is_made_again() {
    let mut world = World::new(config(1));
    order(&world, 0, 1, "live/a");
    world.run(Duration::from_millis(300));
    // As an error of ours leaves it: the call is taken out of its session, and no stream is made.
    let core = &mut world.shards[0].core;
    let key = core.sessions.iter().map(|(key, _)| key).next().unwrap();
    core.sessions.get_mut(key).unwrap().call = None;
    world.run(Duration::from_secs(4));
    assert_eq!(sessions(&world), 0);
    world.remotes.push(accepting());
    order(&world, 0, 2, "live/a");
    world.run(Duration::from_millis(900));
    assert_eq!(world.started("live/a"), [(ShardId(0), false)]);
}
