//! Peers whose address changes, and strangers who pretend to be such a peer.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, ShardId, StreamId};
use mirror_srt::{
    CallerSecurity, CipherPolicy, KeyLength, ListenerPolicy, Passphrase, RejectionCode, Security,
};
use mirror_stream::report::{
    CallRequest, Command, EndReason, PublishRequest, Status, StreamSnapshot,
};

use super::remote::{Answer, Remote};
use super::world::{SRT, World, addr, config};

const MOVED: &str = "203.0.113.77:61000";

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse battery").unwrap()
}

/// Control's part in encryption.
pub(super) fn keys(request: &PublishRequest) -> Option<Result<Security, u32>> {
    let passphrase = passphrase();
    let policy = ListenerPolicy {
        passphrase: Some(&passphrase),
        require: true,
        cipher: CipherPolicy::Auto,
    };
    let material = request.key_material.as_deref();
    let agreed = Security::negotiate(material, request.peer_version, &policy, [5; 32]);
    Some(agreed.map_err(|code: RejectionCode| code.0))
}

pub(super) fn caller_keys() -> CallerSecurity {
    let length = Some(KeyLength::Aes128);
    CallerSecurity::new(&passphrase(), length, CipherPolicy::Auto, true, [6; 32])
}

fn the_stream(world: &mut World) -> StreamSnapshot {
    let snapshots = world.snapshot();
    let mut streams = snapshots.iter().flat_map(|s| &s.streams);
    streams.next().unwrap().clone()
}

fn socket_id(world: &World) -> u32 {
    let mut sessions = world.shards.iter().flat_map(|s| s.core.sessions.iter());
    sessions.next().unwrap().1.socket_id
}

#[test]
fn a_peer_that_gets_another_address_is_followed_and_nothing_is_lost() {
    for encrypted in [false, true] {
        let mut world = World::new(config(3));
        let security = encrypted.then(|| {
            world.policy = keys;
            caller_keys()
        });
        let caller = world.call_with("live/a", security);
        world.run(Duration::from_millis(50));
        world.callers[caller].to_send = 3_000;
        for step in 0..3 {
            world.run(Duration::from_millis(700));
            // The NAT forgets its mapping; another port the next time.
            world.callers[caller].local = SocketAddr::new(addr(MOVED).ip(), 61_000 + step);
        }
        world.run(Duration::from_millis(1_500));
        assert!(world.callers[caller].closed.is_none());
        let stream = the_stream(&mut world);
        assert_eq!(stream.stats.packets_unique, 3_000, "encrypted: {encrypted}");
        assert_eq!(stream.stats.packets_dropped, 0);
        assert_eq!(stream.stats.peer_moves, 3);
        assert_eq!(stream.peer, world.callers[caller].local);
        assert_eq!(stream.status, Status::Active);
        assert_eq!(stream.encryption == "aes-ctr-128", encrypted);
        let moves: u64 = world.snapshot().iter().map(|s| s.counters.peer_moves).sum();
        assert_eq!(moves, 3);
        assert!(world.callers[caller].connection.is_sent(), "ACKs reach it");
        assert!(world.ended("live/a").is_empty());
        // And it can end the session from where it is now.
        let now = world.now();
        world.callers[caller].connection.close(now);
        world.run(Duration::from_millis(500));
        assert_eq!(
            world.ended("live/a"),
            [(EndReason::PeerClosed, Status::Reconnecting)]
        );
    }
}

/// Control packets and data that name the session, from nowhere near its peer.
fn forgeries(id: u32) -> Vec<Vec<u8>> {
    let control = |kind: u8, cif: &[u32]| {
        let mut bytes = vec![0x80, kind, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        bytes.extend(id.to_be_bytes());
        bytes.extend(cif.iter().flat_map(|w| w.to_be_bytes()));
        bytes
    };
    let mut handshake = control(0, &[0; 12]);
    handshake[16 + 20..16 + 24].copy_from_slice(&1_004_u32.to_be_bytes());
    let mut data = vec![0, 0, 0, 9, 0xC0, 0, 0, 1, 0, 0, 0, 0];
    data.extend(id.to_be_bytes());
    data.resize(16 + 1316, 0x47);
    vec![
        handshake,
        control(1, &[]),
        control(2, &[100_000, 1, 1, 8_192, 0, 0, 0]),
        control(3, &[1, 2, 3]),
        control(5, &[0]),
        control(6, &[]),
        control(7, &[1, 2_000_000]),
        control(8, &[0]),
        data,
    ]
}

#[test]
fn forged_packets_from_elsewhere_do_nothing_and_are_counted() {
    for encrypted in [false, true] {
        let mut world = World::new(config(2));
        let security = encrypted.then(|| {
            world.policy = keys;
            caller_keys()
        });
        let caller = world.call_with("live/a", security);
        world.run(Duration::from_millis(50));
        world.callers[caller].to_send = 1_000;
        let forged = forgeries(socket_id(&world));
        for n in 0..400_usize {
            // Also while the peer is silent for longer than a move needs.
            if n == 200 {
                world.run(Duration::from_millis(900));
            }
            for bytes in &forged {
                world.send_to_engine(addr(MOVED), addr(SRT), bytes);
            }
            world.step();
        }
        world.run(Duration::from_millis(800));
        let stream = the_stream(&mut world);
        assert_eq!(stream.stats.packets_unique, 1_000);
        assert_eq!(
            (stream.stats.packets_dropped, stream.stats.peer_moves),
            (0, 0)
        );
        assert_eq!(
            stream.stats.discards.get(Discard::ForeignSource),
            400 * forged.len() as u64
        );
        assert_eq!(stream.peer, world.callers[caller].local);
        assert!(world.ended("live/a").is_empty());
        assert!(world.callers[caller].closed.is_none());
    }
}

#[test]
fn a_peer_is_not_followed_to_where_it_would_not_have_been_let_in() {
    for allowed in [true, false] {
        let mut world = World::new(config(1));
        let caller = world.call_and_wait("live/a");
        let first = world.callers[caller].local;
        let only = if allowed {
            addr(MOVED).ip()
        } else {
            first.ip()
        };
        *world.directory.confined.lock().unwrap() = Some(only);
        world.callers[caller].to_send = 1_000;
        world.run(Duration::from_millis(300));
        // Another port of its host is always its own.
        world.callers[caller].local.set_port(first.port() + 1);
        world.run(Duration::from_millis(300));
        let stream = the_stream(&mut world);
        assert_eq!(stream.peer, world.callers[caller].local);
        world.callers[caller].local = addr(MOVED);
        world.run(Duration::from_millis(300));
        let stream = the_stream(&mut world);
        let moves = 1 + u64::from(allowed);
        assert_eq!(stream.stats.peer_moves, moves, "allowed: {allowed}");
        let foreign = stream.stats.discards.get(Discard::ForeignSource);
        assert_eq!(foreign > 200, !allowed, "{foreign}");
    }
}

#[test]
fn a_listener_that_was_called_may_move_as_well() {
    let mut world = World::new(config(1));
    let first = addr("198.51.100.7:9000");
    let mut remote = Remote::new(first, Answer::Accept(|_| Ok(Security::clear())));
    remote.to_send = 1_000;
    world.remotes.push(remote);
    let call = CallRequest {
        ticket: 1,
        stream_id: StreamId::new("live/a").unwrap(),
        peer: first,
        srt_stream_id: String::new(),
        latency: None,
        security: None,
        tags: Vec::new(),
        rendezvous: None,
    };
    let command = Command::Call(Box::new(call));
    world.mailboxes.send(ShardId(0), command).unwrap();
    // Rules for publishers are none for those that we call.
    *world.directory.confined.lock().unwrap() = Some(first.ip());
    world.run(Duration::from_millis(500));
    world.remotes[0].address = addr(MOVED);
    world.run(Duration::from_millis(1_200));
    let stream = the_stream(&mut world);
    assert_eq!(stream.stats.packets_unique, 1_000);
    assert_eq!((stream.peer, stream.stats.peer_moves), (addr(MOVED), 1));
}

#[test]
fn without_steering_a_moved_peer_is_lost_and_that_is_counted() {
    let mut world = World::new(config(2));
    let caller = world.call_and_wait("live/a");
    let shard = world.started("live/a")[0].0.index();
    let bytes = &forgeries(socket_id(&world))[8];
    // The kernel's hash takes the new address to the other shard.
    for _ in 0..10 {
        world.send_to_shard(1 - shard, addr(MOVED), addr(SRT), bytes);
    }
    world.callers[caller].dead = true;
    world.run(Duration::from_millis(5_600));
    assert_eq!(world.snapshot()[1 - shard].counters.foreign_datagrams, 10);
    assert_eq!(
        world.ended("live/a"),
        [(EndReason::IdleTimeout, Status::Reconnecting)]
    );
}
