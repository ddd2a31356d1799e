//! Calls, publishers, restarts, moves, orders and lost replies in random order: every call has
//! one outcome, every session that began ends, and nothing is left behind.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use mirror_base::{ShardId, StreamId};
use mirror_srt::{CipherPolicy, RejectionCode, Security};
use mirror_stream::report::{
    CallFailure, CallRequest, Command, EndReason, Event, Mode, PublishRequest, Reservation, Status,
    StreamDirectory,
};

use super::encryption::caller_keys;
use super::remote::{Answer, Remote};
use super::world::{World, addr, config};

const SHARDS: usize = 2;
const STREAMS: u64 = 5;
const REMOTES: u16 = 4;

fn generator(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |n| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    }
}

fn remote_address(n: u16) -> SocketAddr {
    addr(&format!("198.51.100.7:{}", 9_000 + n))
}

fn answer(random: &mut impl FnMut(u64) -> u64) -> Answer {
    match random(6) {
        0 => Answer::Silence,
        1 => Answer::Reject(RejectionCode::NOTFOUND),
        _ => Answer::Accept(|_| Ok(Security::clear())),
    }
}

/// Control is slow with some, and refuses others.
fn policy(request: &PublishRequest) -> Option<Result<Security, u32>> {
    match request.peer.port() % 7 {
        0 => None,
        1 => Some(Err(1401)),
        _ => Some(Ok(Security::clear())),
    }
}

fn order_call(world: &World, ticket: u64, id: &StreamId, random: &mut impl FnMut(u64) -> u64) {
    // As control does: where the directory has it, or on any shard.
    let here = ShardId(random(SHARDS as u64) as u16);
    let Reservation::Owner(shard) = world.directory.reserve_here(world.now(), id, here) else {
        panic!("the directory has room");
    };
    let insists = random(4) == 0;
    let call = CallRequest {
        ticket,
        stream_id: id.clone(),
        peer: remote_address(random(u64::from(REMOTES)) as u16),
        srt_stream_id: "studio".to_owned(),
        latency: None,
        security: insists.then(|| caller_keys("correct horse battery", CipherPolicy::Auto)),
        tags: Vec::new(),
        rendezvous: None,
    };
    let command = Command::Call(Box::new(call));
    world.mailboxes.send(shard, command).unwrap();
}

fn act(world: &mut World, ticket: u64, random: &mut impl FnMut(u64) -> u64) -> bool {
    let id = StreamId::new(&format!("live/{}", random(STREAMS))).unwrap();
    match random(12) {
        0..=3 => {
            order_call(world, ticket, &id, random);
            return true;
        }
        4 => {
            for shard in 0..SHARDS {
                let command = Command::Terminate {
                    stream_id: id.clone(),
                    reason: EndReason::Operator,
                };
                world
                    .mailboxes
                    .send(ShardId(shard as u16), command)
                    .unwrap();
            }
        }
        5 | 6 => {
            let caller = world.call(id.as_str());
            world.callers[caller].to_send = 200;
        }
        7 => {
            let remote = &mut world.remotes[random(u64::from(REMOTES)) as usize];
            remote.restart();
            remote.answer = answer(random);
            remote.to_send = random(300) as u32;
        }
        8 => world.lose_replies(),
        9 => {
            // Somebody vanishes, and somebody moves.
            let n = world.callers.len() as u64;
            if n > 0 {
                world.callers[random(n) as usize].dead = true;
                let mover = random(n) as usize;
                let port = 30_000 + random(10_000) as u16;
                world.callers[mover].local.set_port(port);
            }
        }
        10 => world.run(Duration::from_millis(random(1_500))),
        _ => {
            let n = world.callers.len() as u64;
            let now = world.now();
            if n > 0 {
                let at = random(n) as usize;
                world.callers[at].connection.close(now);
            }
        }
    }
    false
}

/// What happened how often, over all seeds: a check that checks something.
#[derive(Debug, Default)]
struct Seen {
    timeouts: u64,
    rejections: u64,
    conflicts: u64,
    cancelled: u64,
    answered: u64,
    moves: u64,
}

fn check_outcomes(world: &World, seed: u64, calls: u64, seen: &mut Seen) {
    let mut failed: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut called, mut live) = (0, BTreeMap::new());
    for event in &world.log {
        match event {
            Event::CallFailed {
                ticket, failure, ..
            } => {
                *failed.entry(*ticket).or_default() += 1;
                match failure {
                    CallFailure::Timeout => seen.timeouts += 1,
                    CallFailure::Rejected(_) => seen.rejections += 1,
                    CallFailure::Conflict => seen.conflicts += 1,
                    CallFailure::Cancelled => seen.cancelled += 1,
                    CallFailure::NoRoom | CallFailure::NoPort => {
                        panic!("seed {seed}: there is room")
                    }
                    CallFailure::Unconcluded => panic!("seed {seed}: nobody is met"),
                }
            }
            Event::Started {
                stream_id, request, ..
            } => {
                called += u64::from(request.mode == Mode::Caller);
                let twice = live.insert(stream_id.clone(), ());
                assert!(twice.is_none(), "seed {seed}: {stream_id} began twice");
            }
            // A stream in its grace ends a second time, without a session.
            Event::Ended {
                stream_id, status, ..
            } => {
                let was_live = live.remove(stream_id).is_some();
                assert!(was_live || *status != Status::Reconnecting, "seed {seed}");
            }
            _ => {}
        }
    }
    assert!(failed.values().all(|&n| n == 1), "seed {seed}: {failed:?}");
    assert_eq!(failed.len() as u64 + called, calls, "seed {seed}");
    assert!(live.is_empty(), "seed {seed}: {live:?}");
    seen.answered += called;
}

#[test]
fn whatever_happens_every_call_has_one_outcome_and_nothing_is_left_behind() {
    let mut seen = Seen::default();
    for seed in 0..40 {
        let mut random = generator(seed);
        let mut options = config(SHARDS);
        options.seed = seed;
        options.takeover = seed % 4 == 0;
        options.reconnect_grace = Duration::from_millis(1_000 * (seed % 3));
        let mut world = World::new(options);
        world.policy = policy;
        for n in 0..REMOTES {
            let remote = Remote::new(remote_address(n), answer(&mut random));
            world.remotes.push(remote);
        }
        let mut calls = 0;
        for _ in 0..120 {
            calls += u64::from(act(&mut world, calls, &mut random));
            world.run(Duration::from_millis(random(40)));
        }
        // Everybody falls silent, and all that waits comes to its end.
        for caller in &mut world.callers {
            caller.dead = true;
        }
        for remote in &mut world.remotes {
            remote.restart();
            remote.answer = Answer::Silence;
        }
        world.run(Duration::from_secs(9));
        check_outcomes(&world, seed, calls, &mut seen);
        let snapshots = world.snapshot();
        for snapshot in &snapshots {
            assert_eq!(snapshot.sessions, 0, "seed {seed}");
            assert_eq!(snapshot.handshakes_pending, 0, "seed {seed}");
            assert_eq!(snapshot.calls_pending, 0, "seed {seed}");
            assert_eq!(snapshot.pool_chunks, snapshot.pool_free, "seed {seed}");
            assert_eq!(snapshot.counters.session_panics, 0, "seed {seed}");
            assert!(snapshot.streams.is_empty(), "seed {seed}");
            seen.moves += snapshot.counters.peer_moves;
        }
        assert_eq!(world.directory.len(), 0, "seed {seed}");
        assert!(calls > 5, "seed {seed}");
    }
    let Seen {
        timeouts,
        rejections,
        conflicts,
        cancelled,
        answered,
        moves,
    } = seen;
    for kind in [timeouts, rejections, conflicts, cancelled, answered, moves] {
        assert!(kind >= 10, "{seen:?}");
    }
}
