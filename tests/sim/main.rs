//! Seeded simulation in virtual time: an SRT sender and an SRT receiver over an impaired path.
//! A seed is a whole world; a failure names its seed, and the same seed fails again.
//!
//! What must hold in every world: payloads arrive unchanged, in order, and what is missing is
//! said; each is released within a tick of its TSBPD time; what was received is what was
//! delivered, discarded or is still held; everything ends; the same seed takes the same course.

mod host;
mod rtp;
mod scenario;

use core::time::Duration;

use host::{Received, TICK, Trace, World};
use mirror_base::Instant;
use mirror_netem::Netem;
use mirror_srt::{CloseReason, Event, Statistics};
use scenario::{End, Scenario, Weather};

struct Outcome {
    scenario: Scenario,
    received: Vec<Received>,
    /// When the application gave packet n to the sender.
    sent: Vec<Instant>,
    sender: Statistics,
    receiver: Statistics,
    receiver_is_drained: bool,
    sender_events: Vec<Event>,
    receiver_events: Vec<Event>,
    at_rest: bool,
    trace: Trace,
}

/// Plays the world of `seed` from the first handshake to the end.
fn play(seed: u64, weather: Weather) -> Outcome {
    let scenario = Scenario::of(seed, weather);
    let forward = Netem::new(scenario.path, seed.wrapping_mul(2));
    let back = Netem::new(scenario.path, seed.wrapping_mul(2) + 1);
    let mut world = World::new(scenario.config.clone(), scenario.initial, forward, back);
    let connected_by = world.now + scenario.config.connect_timeout;
    while world.sender_events.is_empty() && world.now < connected_by {
        let next = world.now + TICK;
        world.run_until(next);
    }
    let mut sent = Vec::new();
    let connected = world.sender_events.first() == Some(&Event::Connected);
    for number in 0..if connected { scenario.packets } else { 0 } {
        black_out(&mut world, &scenario, number);
        let next = world.now + scenario.interval;
        world.run_until(next);
        if world
            .sender
            .send(world.now, &scenario.payload(number))
            .is_err()
        {
            break;
        }
        sent.push(world.now);
    }
    finish(&mut world, &scenario);
    let limit = world.now
        + scenario.config.peer_idle_timeout
        + scenario.config.latency
        + Duration::from_secs(10);
    let at_rest = world.run_to_rest(limit);
    let receiver = world.receiver.as_ref();
    Outcome {
        sender: world.sender.statistics(),
        receiver: receiver.map(|r| r.statistics()).unwrap_or_default(),
        receiver_is_drained: receiver.is_none_or(|r| r.is_drained()),
        scenario,
        received: world.received,
        sent,
        sender_events: world.sender_events,
        receiver_events: world.receiver_events,
        at_rest,
        trace: world.trace,
    }
}

fn black_out(world: &mut World, scenario: &Scenario, number: u64) {
    let Some((from, to)) = scenario.blackout else {
        return;
    };
    if number == from {
        let nothing = mirror_netem::Config {
            loss: 1.0,
            ..scenario.path
        };
        world.forward.set_config(nothing);
        world.back.set_config(nothing);
    } else if number == to {
        world.forward.set_config(scenario.path);
        world.back.set_config(scenario.path);
    }
}

fn finish(world: &mut World, scenario: &Scenario) {
    match scenario.end {
        End::Close => {
            let limit = world.now + Duration::from_secs(5);
            while !world.sender.is_sent() && world.now < limit {
                let next = world.now + TICK;
                world.run_until(next);
            }
            world.sender.close(world.now);
        }
        End::Cut => {
            // What is on its way still arrives; after that nothing does.
            let next = world.now + scenario.config.latency + Duration::from_millis(300);
            world.run_until(next);
            let nothing = mirror_netem::Config {
                loss: 1.0,
                ..scenario.path
            };
            world.forward.set_config(nothing);
            world.back.set_config(nothing);
        }
    }
}

/// What holds in every world.
fn check(seed: u64, outcome: &Outcome) {
    let figures = outcome.receiver;
    let accounted = figures.pkt_recv_unique
        + figures.pkt_rcv_duplicate
        + figures.pkt_rcv_belated
        + figures.pkt_rcv_undecrypt
        + figures.pkt_rcv_refused;
    assert_eq!(
        figures.pkt_recv, accounted,
        "seed {seed}: every received packet is accounted for: {figures:?}"
    );
    assert_eq!(
        figures.pkt_recv_unique,
        figures.pkt_delivered + figures.pkt_rcv_buf,
        "seed {seed}: {figures:?}"
    );
    assert_eq!(
        figures.pkt_delivered,
        outcome.received.len() as u64,
        "seed {seed}"
    );
    let sender = outcome.sender;
    assert_eq!(
        sender.pkt_sent,
        sender.pkt_sent_unique + sender.pkt_retrans,
        "seed {seed}: {sender:?}"
    );
    assert!(
        sender.pkt_sent_unique <= outcome.sent.len() as u64,
        "seed {seed}: {sender:?}"
    );
    assert!(
        outcome.at_rest,
        "seed {seed}: timers still run after the end"
    );
    assert!(
        outcome.receiver_is_drained,
        "seed {seed}: the receiver is not drained"
    );
    let closed = |events: &[Event]| {
        events
            .iter()
            .filter(|e| matches!(e, Event::Closed(_)))
            .count()
    };
    assert_eq!(
        closed(&outcome.sender_events),
        1,
        "seed {seed}: {:?}",
        outcome.sender_events
    );
    assert!(
        closed(&outcome.receiver_events) <= 1,
        "seed {seed}: {:?}",
        outcome.receiver_events
    );
    check_release_times(seed, outcome);
}

fn check_release_times(seed: u64, outcome: &Outcome) {
    for pair in outcome.received.windows(2) {
        assert!(
            pair[0].delivery.slot < pair[1].delivery.slot,
            "seed {seed}: out of order"
        );
        assert!(
            pair[0].delivery.due <= pair[1].delivery.due.max(pair[1].at),
            "seed {seed}"
        );
    }
    for received in &outcome.received {
        let Received { at, delivery, .. } = received;
        assert!(
            *at >= delivery.due,
            "seed {seed}: released {:?} before its time",
            delivery.due.saturating_since(*at)
        );
        // A repaired packet may come after its time; then it is released as it comes.
        let late = at.saturating_since(delivery.due.max(delivery.arrival));
        assert!(
            late <= TICK,
            "seed {seed}: released {late:?} after its time"
        );
    }
}

/// Payloads are what was sent, in order, and gaps are announced. Not where bits flip.
fn check_payloads(seed: u64, outcome: &Outcome) {
    let mut expected = 0;
    for received in &outcome.received {
        let number = u64::from_be_bytes(
            received.payload[..8]
                .try_into()
                .expect("payloads begin with a number"),
        );
        assert_eq!(
            received.payload,
            outcome.scenario.payload(number),
            "seed {seed}: payload {number} is changed"
        );
        let skipped = number.checked_sub(expected);
        assert_eq!(
            skipped,
            Some(u64::from(received.delivery.lost_before)),
            "seed {seed}: gap before {number}"
        );
        expected = number + 1;
        check_due(seed, outcome, number, received);
    }
    let missing = outcome.sent.len() as u64 - outcome.received.len() as u64;
    let said = outcome.receiver.pkt_rcv_drop + (outcome.sent.len() as u64 - expected);
    assert_eq!(
        missing, said,
        "seed {seed}: what is missing is counted as dropped: {:?}",
        outcome.receiver
    );
}

/// TSBPD: sending time + the one-way delay of the handshake + latency, give or take jitter and
/// the drift that jitter pretends.
fn check_due(seed: u64, outcome: &Outcome, number: u64, received: &Received) {
    let hold = received
        .delivery
        .due
        .saturating_since(outcome.sent[number as usize]);
    let path = &outcome.scenario.path;
    let latency = outcome.scenario.config.latency;
    let slack = path.jitter + path.reorder_delay + Duration::from_millis(6);
    let most = latency + path.delay + slack;
    let least = (latency + path.delay).saturating_sub(slack);
    assert!(
        least <= hold && hold <= most,
        "seed {seed}: packet {number} is due {hold:?} after it was sent, latency {latency:?}, {path:?}"
    );
}

#[test]
fn in_fair_weather_everything_arrives_unchanged_in_order_and_in_time() {
    let (mut sent, mut arrived) = (0, 0);
    for seed in 0..100 {
        let outcome = play(seed, Weather::Fair);
        check(seed, &outcome);
        check_payloads(seed, &outcome);
        assert_eq!(
            outcome.sent.len() as u64,
            outcome.scenario.packets,
            "seed {seed}: {:?}",
            outcome.sender_events
        );
        sent += outcome.sent.len();
        arrived += outcome.received.len();
        let lost = outcome.sent.len() - outcome.received.len();
        assert!(
            lost <= 2,
            "seed {seed}: {lost} packets were not repaired: {:?}",
            outcome.receiver
        );
    }
    assert!(sent - arrived <= sent / 10_000, "{arrived} of {sent}");
}

#[test]
fn in_foul_weather_what_arrives_is_right_and_what_does_not_is_counted() {
    let mut repaired = 0;
    for seed in 1_000..1_100 {
        let outcome = play(seed, Weather::Foul);
        check(seed, &outcome);
        check_payloads(seed, &outcome);
        repaired += outcome
            .receiver
            .pkt_rcv_loss
            .saturating_sub(outcome.receiver.pkt_rcv_drop);
    }
    assert!(repaired > 1_000, "ARQ works also here: {repaired}");
}

#[test]
fn flipped_bits_break_no_invariant() {
    for seed in 2_000..2_040 {
        let outcome = play(seed, Weather::Corrupting);
        assert!(outcome.at_rest, "seed {seed}");
        assert!(outcome.receiver_is_drained, "seed {seed}");
        assert_eq!(
            outcome.receiver.pkt_delivered,
            outcome.received.len() as u64,
            "seed {seed}"
        );
    }
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for (seed, weather) in [
        (3, Weather::Fair),
        (1_003, Weather::Foul),
        (2_003, Weather::Corrupting),
    ] {
        assert_eq!(
            play(seed, weather).trace,
            play(seed, weather).trace,
            "seed {seed}"
        );
    }
    assert_ne!(play(3, Weather::Fair).trace, play(4, Weather::Fair).trace);
}

#[test]
fn both_ends_learn_why_it_ended() {
    let (mut by_shutdown, mut by_silence) = (0, 0);
    for seed in 0..30 {
        let outcome = play(seed, Weather::Fair);
        let ends = outcome.receiver_events.iter().rev().find_map(|e| match e {
            Event::Closed(reason) => Some(*reason),
            Event::Connected => None,
        });
        match outcome.scenario.end {
            // The one SHUTDOWN may get lost; then silence ends it.
            End::Close if ends == Some(CloseReason::PeerShutdown) => by_shutdown += 1,
            End::Close | End::Cut => {
                assert_eq!(ends, Some(CloseReason::IdleTimeout), "seed {seed}");
                by_silence += 1;
            }
        }
    }
    assert!(
        by_shutdown > 5 && by_silence > 5,
        "{by_shutdown} by shutdown, {by_silence} by silence"
    );
}
