//! What must hold in every world.
//!
//! - Payloads arrive unchanged and in order, each once, and what is missing is said.
//! - Each is released within a tick of its TSBPD time, never before; and that time is its
//!   sending time + the path's delay + the agreed latency, whatever the clocks do.
//! - What was received is what was delivered, discarded or is still held; what was sent is what
//!   was delivered or given up.
//! - In fair weather, where the latency is long enough for repair, nothing is lost at all.
//! - Everything ends: both sides close for a reason that fits, nothing is held, no timer runs.

use core::time::Duration;

use mirror_netem::Config as Path;
use mirror_srt::{CloseReason, Event, RejectionCode};

use crate::play::Outcome;
use crate::scenario::{End, Weather};
use crate::world::{CALLER, LISTENER, Received, TICK};

pub(crate) fn check(outcome: &Outcome) {
    let seed = outcome.scenario.seed;
    check_end(outcome);
    for to in [CALLER, LISTENER] {
        check_figures(outcome, to);
        check_release(outcome, to);
        match outcome.scenario.weather {
            Weather::Corrupting => check_tainted(outcome, to),
            Weather::Fair | Weather::Foul => check_payloads(outcome, to),
        }
    }
    assert!(
        !(outcome.connected && outcome.is_refused()),
        "seed {seed}: let in"
    );
    if outcome.scenario.weather == Weather::Fair {
        assert!(outcome.connected, "seed {seed}: {:?}", outcome.events);
        assert_eq!(outcome.held_up, [0, 0], "seed {seed}: there was room");
        assert!(outcome.all_sent, "seed {seed}: everything was sent in time");
        // Two moves may be one to the listener.
        assert_eq!(
            outcome.statistics[LISTENER].peer_moves > 0,
            !outcome.scenario.moves.is_empty(),
            "seed {seed}: the listener followed"
        );
    }
}

fn check_figures(outcome: &Outcome, to: usize) {
    let seed = outcome.scenario.seed;
    let figures = outcome.statistics[to];
    assert_eq!(
        figures.pkt_delivered,
        outcome.received[to].len() as u64,
        "seed {seed}: {figures:?}"
    );
    assert_eq!(figures.pkt_rcv_buf, 0, "seed {seed}: {figures:?}");
    let sent = outcome.sent[1 - to].len() as u64;
    let sender = outcome.statistics[1 - to];
    assert!(sender.pkt_sent_unique <= sent, "seed {seed}: {sender:?}");
    if let Some(latency) = outcome.latency[to]
        && outcome.scenario.weather != Weather::Corrupting
    {
        assert_eq!(
            latency,
            outcome.scenario.latency(to),
            "seed {seed}: agreed latency"
        );
    }
}

fn check_release(outcome: &Outcome, to: usize) {
    let seed = outcome.scenario.seed;
    for pair in outcome.received[to].windows(2) {
        assert!(
            pair[0].delivery.slot < pair[1].delivery.slot,
            "seed {seed}: out of order"
        );
    }
    // What the handshake's datagram waited on its way, the first step takes back.
    let path = &outcome.scenario.paths[1 - to];
    let step = Duration::from_millis(10)
        + path.jitter
        + path.reorder_delay
        + queues(&outcome.scenario.paths);
    let (mut late_ones, mut release) = (0, mirror_base::Instant::ZERO);
    for Received { at, delivery, .. } in &outcome.received[to] {
        // In order: a packet with a later time (a changed timestamp) holds up those behind it.
        release = release.max(delivery.due);
        assert!(
            *at >= delivery.due,
            "seed {seed}: released {:?} before its time",
            delivery.due.saturating_since(*at)
        );
        // A repaired packet may come after its time; then it is released as it comes.
        let late = at.saturating_since(release.max(delivery.arrival));
        assert!(
            late <= TICK + step,
            "seed {seed}: released {late:?} after its time"
        );
        late_ones += u64::from(late > TICK);
    }
    // Only a step of the drift tracer, each 1000 ACKACKs, moves the due time of what is held.
    let steps = outcome.statistics[to].pkt_recv_ackack / 1_000;
    let at_each = outcome.scenario.streams[1 - to].map_or(0, |s| {
        (s.burst * (2 * step.as_micros() as u64 / s.interval.as_micros() as u64 + 1)).max(1)
    });
    assert!(
        late_ones <= steps * at_each,
        "seed {seed}: {late_ones} released late"
    );
}

/// Payloads are what was sent, in order, and gaps are announced.
fn check_payloads(outcome: &Outcome, to: usize) {
    let seed = outcome.scenario.seed;
    let from = 1 - to;
    let sent = outcome.sent[from].len() as u64;
    let Some(stream) = outcome.scenario.streams[from] else {
        assert!(
            outcome.received[to].is_empty(),
            "seed {seed}: nobody sent this"
        );
        return;
    };
    let (mut expected, mut gaps) = (0, 0);
    for received in &outcome.received[to] {
        let number = stream.number(&received.payload).expect("a number");
        assert!(number < sent, "seed {seed}: {number} was never sent");
        assert_eq!(
            received.payload,
            stream.payload(from, number),
            "seed {seed}: payload {number} is changed"
        );
        let skipped = number.checked_sub(expected);
        assert_eq!(
            skipped,
            Some(u64::from(received.delivery.lost_before)),
            "seed {seed}: gap before {number}"
        );
        gaps += u64::from(received.delivery.lost_before);
        expected = number + 1;
        check_due(outcome, to, number, received);
    }
    // Behind the last delivery the receiver knows of a loss only if it is told.
    let given_up = outcome.statistics[to].pkt_rcv_drop;
    let tail = sent - expected;
    assert!(
        (gaps..=gaps + tail).contains(&given_up),
        "seed {seed}: {gaps} missing between, {tail} behind, {:?}",
        outcome.statistics[to]
    );
    if outcome.scenario.weather == Weather::Fair {
        assert_eq!(
            gaps, 0,
            "seed {seed}: not repaired: {:?}",
            outcome.statistics[to]
        );
        assert!(tail <= 40, "seed {seed}: {tail} of {sent} at the end");
    }
}

/// The longest that datagrams wait before bottlenecks.
fn queues(paths: &[Path; 2]) -> Duration {
    let limits = paths.iter().filter_map(|p| p.rate_limit);
    limits
        .map(|l| Duration::from_micros(l.queue_bytes * 8_000_000 / l.bits_per_second))
        .sum()
}

/// TSBPD: sending time + the one-way delay of the handshake + latency, give or take jitter,
/// queues and what the drift tracer has yet to follow.
fn check_due(outcome: &Outcome, to: usize, number: u64, received: &Received) {
    let scenario = &outcome.scenario;
    let path = &scenario.paths[1 - to];
    let sent = outcome.sent[1 - to][number as usize];
    let due = scenario.clocks[to].when(received.delivery.due);
    let hold = due.saturating_since(sent);
    let queues = queues(&scenario.paths);
    let apart = (scenario.clocks[0].drift_ppm - scenario.clocks[1].drift_ppm).unsigned_abs();
    let passed = sent.saturating_since(outcome.sent[1 - to][0]) + Duration::from_secs(4);
    let drifted = passed * apart as u32 / 1_000_000;
    // Twelve seconds of it are averaged and then corrected.
    let uncorrected = drifted.min(Duration::from_secs(60) * apart as u32 / 1_000_000);
    let slack = path.jitter + path.reorder_delay + queues + uncorrected + Duration::from_millis(6);
    let expected = scenario.latency(to) + path.delay;
    assert!(
        expected.saturating_sub(slack) <= hold && hold <= expected + slack,
        "seed {}: packet {number} is due {hold:?} after it was sent, not {expected:?}: {path:?}",
        scenario.seed
    );
}

/// Where bits flip: what is delivered was sent, or was changed on the way.
fn check_tainted(outcome: &Outcome, to: usize) {
    let scenario = &outcome.scenario;
    let gcm = scenario.encryption.as_ref().map(|e| e.gcm);
    let Some(stream) = scenario.streams[1 - to] else {
        // A flipped bit turns control packets into data.
        assert!(gcm != Some(true) || outcome.received[to].is_empty());
        return;
    };
    if gcm == Some(false) {
        return;
    }
    let mut last = None;
    for received in &outcome.received[to] {
        let number = stream.number(&received.payload);
        let is_sent = number.is_some_and(|n| received.payload == stream.payload(1 - to, n));
        let is_tainted = gcm.is_none() && outcome.tainted.contains(&received.payload);
        assert!(
            is_sent || is_tainted,
            "seed {}: {number:?} was never sent",
            scenario.seed
        );
        if gcm == Some(true) {
            assert!(number > last, "seed {}: out of order", scenario.seed);
            last = number;
        }
    }
}

fn check_end(outcome: &Outcome) {
    let seed = outcome.scenario.seed;
    assert!(
        outcome.at_rest,
        "seed {seed}: timers still run after the end"
    );
    assert_eq!(outcome.drained, [true, true], "seed {seed}: not drained");
    for side in [CALLER, LISTENER] {
        let events = &outcome.events[side];
        let reasons: Vec<CloseReason> = events
            .iter()
            .filter_map(|e| match e {
                Event::Closed(reason) => Some(*reason),
                Event::Connected => None,
            })
            .collect();
        let has_connection = side == CALLER || !events.is_empty() || outcome.connected;
        assert_eq!(
            reasons.len(),
            usize::from(has_connection),
            "seed {seed}: {events:?}"
        );
        let Some(reason) = reasons.first() else {
            continue;
        };
        let fits = match (outcome.scenario.weather, outcome.scenario.end) {
            (Weather::Corrupting, _) => true,
            // Only the listener's side came to be, or not even that.
            _ if outcome.is_refused() && side == CALLER => matches!(
                reason,
                CloseReason::Rejected(RejectionCode::BADSECRET)
                    | CloseReason::ConnectTimeout
                    | CloseReason::Unconcluded
            ),
            _ if !outcome.connected => true,
            (_, End::Cut) => *reason == CloseReason::IdleTimeout,
            (_, End::Close(closer)) if closer == side => *reason == CloseReason::Local,
            // The one SHUTDOWN may get lost; then silence ends it.
            (_, End::Close(_)) => {
                matches!(reason, CloseReason::PeerShutdown | CloseReason::IdleTimeout)
            }
        };
        assert!(fits, "seed {seed}: {side} ended by {reason:?}");
    }
}
