//! What becomes of streams as events and snapshots come.

use super::*;
use crate::testing::{request, stream};

const HERE: ShardId = ShardId(0);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn with_stream(id: &str) -> (State, StreamId) {
    let context = Context {
        instance: "test-1".to_owned(),
        ttl_seconds: 3.0,
    };
    let mut state = State::new(2, context);
    let request = request(id);
    assert!(state.started(at(0), HERE, &request, Vec::new()));
    (state, request.stream_id)
}

fn end(state: &mut State, shard: ShardId, id: &str) -> bool {
    let last = Box::new(stream(id));
    state.ended(
        at(1),
        shard,
        EndReason::PeerClosed,
        Status::Terminated,
        last,
    )
}

#[test]
fn an_ended_stream_is_not_brought_back_by_a_late_order() {
    let (mut state, id) = with_stream("a");
    assert!(end(&mut state, HERE, "a"));
    assert_eq!(state.changed(at(2), &id, Status::Terminating), None);
    assert!(!state.is_live(&id));
}

#[test]
fn only_the_shard_that_has_a_stream_ends_it() {
    let (mut state, id) = with_stream("a");
    assert!(!end(&mut state, ShardId(1), "a"));
    assert!(state.is_live(&id));
    assert!(state.lives_elsewhere(&id, ShardId(1)) && !state.lives_elsewhere(&id, HERE));
    assert!(end(&mut state, HERE, "a"));
}
#[test]
fn packets_that_cannot_be_decrypted_show_in_the_streams_health() {
    let (mut state, id) = with_stream("a");
    let mut health = |at_ms: u64, undecryptable: u64, heard_ms: Option<u64>| {
        let mut snapshot = stream("a");
        snapshot.status = Status::Connecting;
        if heard_ms.is_some() {
            snapshot.status = Status::Active;
        }
        snapshot.last_packet_at = heard_ms.map(at);
        snapshot.stats.packets_received = 100 + undecryptable;
        snapshot.stats.packets_undecryptable = undecryptable;
        let entry = state.streams.get_mut(&id).unwrap();
        entry.status = snapshot.status;
        entry.absorb(at(at_ms), Arc::new(snapshot));
        entry.health()
    };
    assert_eq!(health(1_000, 0, None).0, Health::Unknown);
    let nothing_readable = (Health::Critical, vec![UNDECRYPTABLE]);
    assert_eq!(health(2_000, 500, None), nothing_readable);
    let some_readable = (Health::Degraded, vec![UNDECRYPTABLE]);
    assert_eq!(health(3_000, 501, Some(2_990)), some_readable);
    let (worst, reasons) = health(5_000, 600, Some(2_990));
    assert_eq!((worst, reasons[0]), (Health::Critical, UNDECRYPTABLE));
    assert_eq!(health(20_000, 600, Some(19_990)).0, Health::Healthy);
}
