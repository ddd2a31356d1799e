//! Encrypted sessions on a shard: keys from control, refreshes, publishers with another
//! passphrase or none, calls to encrypting listeners.

use core::time::Duration;

use mirror_base::{Discard, ShardId, StreamId};
use mirror_srt::{
    CallerSecurity, CipherPolicy, KeyLength, ListenerPolicy, Passphrase, RejectionCode, Security,
};
use mirror_stream::report::{
    CallFailure, CallRequest, Command, Event, Mode, PublishRequest, Status, StreamSnapshot,
};

use super::remote::{Answer, Remote};
use super::world::{World, addr, config};

const REMOTE: &str = "198.51.100.7:9000";
const OURS: &str = "correct horse battery";
const ANOTHER: &str = "incorrect horse battery";

fn negotiate(
    material: Option<&[u8]>,
    version: u32,
    require: bool,
) -> Result<Security, RejectionCode> {
    let passphrase = Passphrase::new(OURS).unwrap();
    let policy = ListenerPolicy {
        passphrase: Some(&passphrase),
        require,
        cipher: CipherPolicy::Auto,
    };
    Security::negotiate(material, version, &policy, [5; 32])
}

/// Control's part, where encryption is demanded.
pub(super) fn required(request: &PublishRequest) -> Option<Result<Security, u32>> {
    let material = request.key_material.as_deref();
    let agreed = negotiate(material, request.peer_version, true);
    Some(agreed.map_err(|code| code.0))
}

/// And where it is only offered.
fn offered(request: &PublishRequest) -> Option<Result<Security, u32>> {
    let material = request.key_material.as_deref();
    let agreed = negotiate(material, request.peer_version, false);
    Some(agreed.map_err(|code| code.0))
}

pub(super) fn caller_keys(passphrase: &str, cipher: CipherPolicy) -> CallerSecurity {
    let passphrase = Passphrase::new(passphrase).unwrap();
    CallerSecurity::new(&passphrase, Some(KeyLength::Aes256), cipher, true, [6; 32])
}

/// A caller that goes on without encryption when the listener cannot follow.
fn lenient_keys(passphrase: &str) -> CallerSecurity {
    let passphrase = Passphrase::new(passphrase).unwrap();
    CallerSecurity::new(&passphrase, None, CipherPolicy::Auto, false, [7; 32])
}

fn the_stream(world: &mut World) -> StreamSnapshot {
    let snapshots = world.snapshot();
    let mut streams = snapshots.iter().flat_map(|s| &s.streams);
    streams.next().unwrap().clone()
}

fn hashed(shards: usize) -> crate::ShardsConfig {
    let mut options = config(shards);
    options.stream.payload_hash = true;
    options
}

#[test]
fn an_encrypted_publisher_brings_the_same_payload_as_one_in_the_clear() {
    let mut clear = World::new(hashed(1));
    let caller = clear.call_and_wait("live/a");
    clear.callers[caller].to_send = 1_000;
    clear.run(Duration::from_millis(1_300));
    let expected = the_stream(&mut clear).stats.payload.unwrap();
    assert_eq!(expected.packets, 1_000);
    for (cipher, name) in [
        (CipherPolicy::Auto, "aes-ctr-256"),
        (CipherPolicy::Gcm, "aes-gcm-256"),
    ] {
        let mut world = World::new(hashed(2));
        world.policy = required;
        // Twenty keys, one after the other.
        world.caller_config.refresh_packets = 50;
        world.caller_config.announce_packets = 20;
        let caller = world.call_with("live/a", Some(caller_keys(OURS, cipher)));
        world.callers[caller].to_send = 1_000;
        world.run(Duration::from_millis(1_300));
        let stream = the_stream(&mut world);
        assert_eq!(stream.encryption, name);
        assert_eq!(stream.stats.payload.unwrap(), expected, "{name}");
        assert_eq!(stream.stats.packets_undecryptable, 0);
        let srt = stream.srt.unwrap();
        assert!(
            (15..=21).contains(&srt.km_refreshes),
            "{}",
            srt.km_refreshes
        );
    }
}

#[test]
fn a_stream_that_has_ended_keeps_the_figures_of_its_last_session() {
    let mut world = World::new(config(1));
    world.policy = required;
    let caller = world.call_with("live/a", Some(caller_keys(OURS, CipherPolicy::Auto)));
    world.callers[caller].to_send = 200;
    world.run(Duration::from_millis(500));
    let now = world.now();
    world.callers[caller].connection.close(now);
    world.run(Duration::from_millis(6_000));
    let mut ends = world.log.iter().filter_map(|e| match e {
        Event::Ended { last, status, .. } => Some((last, *status)),
        _ => None,
    });
    for status in [Status::Reconnecting, Status::Terminated] {
        let (last, seen) = ends.next().unwrap();
        assert_eq!(seen, status);
        assert_eq!(last.encryption, "aes-ctr-256");
        assert_eq!(last.srt.as_ref().unwrap().pkt_recv_unique, 200);
    }
}

#[test]
fn other_passphrases_and_none_are_refused_where_encryption_is_required() {
    let mut world = World::new(config(2));
    world.policy = required;
    let another = world.call_with("live/a", Some(caller_keys(ANOTHER, CipherPolicy::Auto)));
    let none = world.call("live/b");
    world.run(Duration::from_millis(100));
    let code = |world: &World, n| world.rejection(n).map(RejectionCode);
    assert_eq!(code(&world, another), Some(RejectionCode::BADSECRET));
    assert_eq!(code(&world, none), Some(RejectionCode::UNSECURE));
    assert_eq!(world.directory.len(), 0);
    let sessions: usize = world.shards.iter().map(|s| s.core.sessions.len()).sum();
    assert_eq!(sessions, 0);
}

#[test]
fn another_passphrase_where_it_is_only_offered_is_accepted_and_nothing_is_readable() {
    let mut options = config(1);
    options.stream_timeout = Duration::from_secs(2);
    let mut world = World::new(options);
    world.policy = offered;
    let caller = world.call_with("live/a", Some(lenient_keys(ANOTHER)));
    world.run(Duration::from_millis(50));
    assert!(world.callers[caller].connected);
    world.callers[caller].to_send = 5_000;
    world.run(Duration::from_millis(1_000));
    let stream = the_stream(&mut world);
    assert!(stream.stats.packets_undecryptable > 800);
    assert_eq!(
        (stream.status, stream.encryption),
        (Status::Connecting, "none")
    );
    assert!(stream.stats.discards.get(Discard::Undecryptable) > 800);
    // It is not kept for ever.
    world.run(Duration::from_millis(2_000));
    assert_eq!(world.ended("live/a").len(), 1);
    assert_eq!(world.directory.len(), 0);
}

#[test]
fn two_conclusions_of_one_peer_with_different_keys_are_one_handshake() {
    let mut world = World::new(config(1));
    world.policy = |_| None;
    let first = world.call_with("live/a", Some(caller_keys(OURS, CipherPolicy::Auto)));
    world.run(Duration::from_millis(30));
    // The same peer, socket ID and sequence number, and a key message of its own.
    world.callers[first].dead = true;
    let passphrase = Passphrase::new(OURS).unwrap();
    let length = Some(KeyLength::Aes256);
    let keys = CallerSecurity::new(&passphrase, length, CipherPolicy::Auto, true, [99; 32]);
    let second = world.call_as(first, "live/a", Some(keys));
    world.run(Duration::from_millis(300));
    let asked: Vec<_> = world
        .log
        .iter()
        .filter_map(|e| match e {
            Event::Authorise {
                shard,
                ticket,
                request,
            } => Some((*shard, *ticket, request.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 1, "control is asked once, for the first keys");
    let (shard, ticket, request) = &asked[0];
    assert!(request.key_material.as_ref().unwrap().len() <= 104);
    let decision = required(request).unwrap().map(Box::new);
    let command = Command::Authorised {
        ticket: *ticket,
        decision,
    };
    world.mailboxes.send(*shard, command).unwrap();
    world.callers[second].to_send = 300;
    world.run(Duration::from_millis(600));
    // Nothing that the second set of keys encrypted is taken for payload.
    assert_eq!(world.started("live/a").len(), 1);
    let snapshots = world.snapshot();
    let delivered: u64 = snapshots
        .iter()
        .flat_map(|s| &s.streams)
        .map(|s| s.stats.packets_unique)
        .sum();
    assert_eq!(delivered, 0);
    assert_eq!(snapshots[0].counters.session_panics, 0);
    let started = world.log.iter().find_map(|e| match e {
        Event::Started { request, .. } => Some(request.clone()),
        _ => None,
    });
    assert_eq!(started.unwrap().key_material, None, "not kept");
}

fn call(world: &World, security: Option<CallerSecurity>) {
    let request = CallRequest {
        ticket: 1,
        stream_id: StreamId::new("live/a").unwrap(),
        peer: addr(REMOTE),
        srt_stream_id: "studio".to_owned(),
        latency: None,
        security,
        tags: Vec::new(),
        rendezvous: None,
    };
    let command = Command::Call(Box::new(request));
    world.mailboxes.send(ShardId(0), command).unwrap();
}

fn failure(world: &World) -> Option<CallFailure> {
    world.log.iter().find_map(|e| match e {
        Event::CallFailed { failure, .. } => Some(*failure),
        _ => None,
    })
}

#[test]
fn an_encrypted_call_brings_the_listeners_stream() {
    let mut world = World::new(config(1));
    let answer = Answer::Accept(|r| negotiate(r.key_material.as_deref(), r.version, true));
    let mut remote = Remote::new(addr(REMOTE), answer);
    remote.to_send = 500;
    world.remotes.push(remote);
    call(&world, Some(caller_keys(OURS, CipherPolicy::Auto)));
    world.run(Duration::from_millis(900));
    assert_eq!(failure(&world), None);
    let stream = the_stream(&mut world);
    assert_eq!(
        (stream.mode, stream.encryption),
        (Mode::Caller, "aes-ctr-256")
    );
    assert_eq!(stream.stats.packets_unique, 500);
    assert_eq!(stream.stats.packets_undecryptable, 0);
}

#[test]
fn a_call_with_another_passphrase_or_none_says_why_it_failed() {
    let cases: [(Option<CallerSecurity>, RejectionCode); 2] = [
        (
            Some(caller_keys(ANOTHER, CipherPolicy::Auto)),
            RejectionCode::BADSECRET,
        ),
        (None, RejectionCode::UNSECURE),
    ];
    for (security, code) in cases {
        let mut world = World::new(config(1));
        let answer = Answer::Accept(|r| negotiate(r.key_material.as_deref(), r.version, true));
        world.remotes.push(Remote::new(addr(REMOTE), answer));
        call(&world, security);
        world.run(Duration::from_millis(100));
        assert_eq!(failure(&world), Some(CallFailure::Rejected(code.0)));
    }
}

#[test]
fn a_call_that_insists_on_encryption_ends_what_a_clear_listener_began() {
    let mut world = World::new(config(1));
    let answer = Answer::Accept(|_| Ok(Security::clear()));
    world.remotes.push(Remote::new(addr(REMOTE), answer));
    call(&world, Some(caller_keys(OURS, CipherPolicy::Auto)));
    world.run(Duration::from_millis(100));
    let Some(CallFailure::Rejected(code)) = failure(&world) else {
        panic!("{:?}", failure(&world));
    };
    assert_eq!(RejectionCode(code), RejectionCode::UNSECURE);
    let sessions: usize = world.shards.iter().map(|s| s.core.sessions.len()).sum();
    assert_eq!((sessions, world.directory.len()), (0, 0));
}
