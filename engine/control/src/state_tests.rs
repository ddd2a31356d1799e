//! What becomes of streams as events and snapshots come.

use super::*;
use crate::health::UNDECRYPTABLE;
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

#[test]
fn only_what_is_so_now_makes_a_stream_unhealthy() {
    let (mut state, id) = with_stream("a");
    let mut health = |at_ms: u64, change: &dyn Fn(&mut StreamSnapshot)| {
        let mut snapshot = stream("a");
        snapshot.last_packet_at = Some(at(at_ms));
        change(&mut snapshot);
        let entry = state.streams.get_mut(&id).unwrap();
        entry.status = snapshot.status;
        entry.absorb(at(at_ms), Arc::new(snapshot));
        entry.health()
    };
    assert_eq!(health(1_000, &|_| {}).0, Health::Healthy);
    // Units from before the first key frame came whole.
    let late_start = |s: &mut StreamSnapshot| {
        s.stats.frames_damaged = 7;
        s.stats.frames_undecodable = 7;
    };
    assert_eq!(health(2_000, &late_start).0, Health::Healthy);
    let with_errors = |s: &mut StreamSnapshot| {
        late_start(s);
        let mut report = mirror_media::Tr101290::default();
        report.indicators[3].count = 5;
        s.figures.tr101290 = Some(report);
    };
    let (worst, reasons) = health(3_000, &with_errors);
    assert_eq!(worst, Health::Degraded);
    assert_eq!(
        reasons,
        ["TR 101 290 1.4 Continuity_count_error in the last 10 s"]
    );
    assert_eq!(health(12_000, &with_errors).0, Health::Degraded);
    assert_eq!(health(13_000, &with_errors).0, Health::Healthy);
    let (worst, reasons) = health(14_000, &|s| s.figures.gop.key_frame_missing = true);
    assert_eq!(
        (worst, reasons),
        (
            Health::Degraded,
            vec!["no key frame for gop.keyframe_timeout"]
        )
    );
    let short = |s: &mut StreamSnapshot| s.figures.gop.is_short = true;
    assert_eq!(health(14_500, &short).0, Health::Healthy, "nobody asked");
    let (worst, reasons) = health(14_600, &|s| {
        short(s);
        s.figures.gop.keep_is_set = true;
    });
    assert_eq!(worst, Health::Degraded);
    assert!(reasons[0].contains("buffer.ring_size"), "{reasons:?}");
    let (worst, _) = health(15_000, &|s| s.figures.sync.excessive = true);
    assert_eq!(worst, Health::Critical);
    let stalled = |s: &mut StreamSnapshot| s.figures.last_unit_at = Some(at(10_000));
    assert_eq!(health(16_000, &stalled).0, Health::Critical);
    let silent = |s: &mut StreamSnapshot| s.last_packet_at = Some(at(15_000));
    assert_eq!(health(17_000, &silent).0, Health::Degraded);
    assert_eq!(health(21_000, &silent).0, Health::Critical);
}

#[test]
fn a_time_code_that_goes_on_is_no_change_of_the_tracks() {
    let mut old = stream("a").tracks;
    let mut new = old.clone();
    new[0].side.timecode = Some([1, 2, 3, 4]);
    assert!(media_stats::same_tracks(&old, &new));
    old[0].width += 16;
    assert!(!media_stats::same_tracks(&old, &new));
}
