//! Plays a scenario from the first handshake to the end: the applications on both sides, the
//! outages, the end.

use core::time::Duration;

use mirror_base::Instant;
use mirror_netem::Config as Path;
use mirror_srt::{Event, SendError, Statistics};

use crate::scenario::{End, Scenario, Stream};
use crate::world::{CALLER, LISTENER, Received, TICK, Trace, World};

/// What a world came to; arrays by side.
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    pub(crate) connected: bool,
    pub(crate) received: [Vec<Received>; 2],
    /// When the application gave packet n to its connection: the world's time.
    pub(crate) sent: [Vec<Instant>; 2],
    /// Times that the connection had no room for a packet.
    pub(crate) held_up: [u64; 2],
    pub(crate) latency: [Option<Duration>; 2],
    pub(crate) statistics: [Statistics; 2],
    pub(crate) drained: [bool; 2],
    /// Everything was acknowledged or dropped before the end.
    pub(crate) all_sent: bool,
    pub(crate) events: [Vec<Event>; 2],
    pub(crate) tainted: std::collections::BTreeSet<Vec<u8>>,
    pub(crate) at_rest: bool,
    pub(crate) trace: Trace,
}

impl Outcome {
    /// Whether the listener has to refuse the caller.
    pub(crate) fn is_refused(&self) -> bool {
        self.scenario.encryption.is_some_and(|e| e.wrong)
    }
}

/// What one application has done and will do.
struct Application {
    stream: Option<Stream>,
    next: Instant,
    sent: Vec<Instant>,
    held_up: u64,
}

impl Application {
    fn due(&self) -> Option<Instant> {
        self.stream
            .filter(|s| (self.sent.len() as u64) < s.packets)
            .map(|_| self.next)
    }

    fn act(&mut self, world: &mut World, side: usize) {
        let Some(stream) = self.stream else { return };
        self.next += stream.interval;
        for _ in 0..stream.burst {
            let payload = stream.payload(side, self.sent.len() as u64);
            match world.send(side, &payload) {
                Ok(()) => self.sent.push(world.now),
                Err(SendError::BufferFull) => self.held_up += 1,
                Err(SendError::NotConnected) => self.stream = None,
                Err(SendError::TooLong) => panic!("{} bytes are not too long", payload.len()),
            }
        }
        // A sender that never finds room again ends.
        if self.held_up > 2 * stream.packets {
            self.stream = None;
        }
    }
}

/// Plays the world of `seed`.
pub(crate) fn play(seed: u64) -> Outcome {
    play_out(Scenario::of(seed))
}

/// Plays the world of `seed` with both sides meeting.
pub(crate) fn play_met(seed: u64) -> Outcome {
    play_out(Scenario::met(seed))
}

fn play_out(scenario: Scenario) -> Outcome {
    let mut world = World::new(&scenario);
    let connected_by = world.now + scenario.patience() + TICK;
    // Of the others the listener is there with its answer.
    let ask = [CALLER, LISTENER];
    let ask = if scenario.meeting.is_some() {
        &ask[..]
    } else {
        &ask[..1]
    };
    let first = |world: &World, side: &usize| world.hosts[*side].events.first().copied();
    while ask.iter().any(|side| first(&world, side).is_none()) && world.now < connected_by {
        let next = world.now + TICK;
        world.run_until(next);
    }
    let is_connected = |side| first(&world, side) == Some(Event::Connected);
    let connected = ask.iter().all(is_connected);
    let latency = [CALLER, LISTENER].map(|side| {
        let host = &world.hosts[side];
        host.connection
            .as_ref()
            .filter(|_| host.is_connected())
            .map(|c| c.latency())
    });
    let mut applications = [CALLER, LISTENER].map(|side| Application {
        stream: scenario.streams[side].filter(|_| connected),
        next: world.now + Duration::from_micros(137 * side as u64),
        sent: Vec::new(),
        held_up: 0,
    });
    perform(&mut world, &scenario, &mut applications);
    let all_sent = finish(&mut world, &scenario);
    let limit = world.now + Duration::from_secs(40);
    let at_rest = world.run_to_rest(limit);
    let [caller, listener] = world.hosts;
    let [of_caller, of_listener] = applications;
    let connection = |f: fn(&mirror_srt::Connection) -> bool| {
        [&caller, &listener].map(|h| h.connection.as_ref().is_none_or(f))
    };
    Outcome {
        connected,
        latency,
        statistics: [&caller, &listener].map(|h| {
            h.connection
                .as_ref()
                .map(|c| c.statistics())
                .unwrap_or_default()
        }),
        drained: connection(mirror_srt::Connection::is_drained),
        all_sent,
        received: [caller.received, listener.received],
        sent: [of_caller.sent, of_listener.sent],
        held_up: [of_caller.held_up, of_listener.held_up],
        events: [caller.events, listener.events],
        tainted: world.tainted,
        at_rest,
        trace: world.trace,
        scenario,
    }
}

/// Both applications send, while links fail and come back.
fn perform(world: &mut World, scenario: &Scenario, applications: &mut [Application; 2]) {
    let begun = world.now;
    let mut changes: Vec<Instant> = scenario
        .outages
        .iter()
        .flat_map(|o| [begun + o.from, begun + o.from + o.length])
        .chain(scenario.moves.iter().map(|&at| begun + at))
        .collect();
    changes.sort_unstable();
    changes.reverse();
    loop {
        let due = applications.iter().filter_map(Application::due).min();
        let Some(next) = due else { break };
        if let Some(&change) = changes.last().filter(|&&at| at <= next) {
            changes.pop();
            world.run_until(change);
            set_links(world, scenario, begun);
            let moves = scenario.moves.iter().filter(|&&at| begun + at <= world.now);
            world.moves = moves.count() as u8;
            continue;
        }
        world.run_until(next);
        for (side, application) in applications.iter_mut().enumerate() {
            if application.due().is_some_and(|at| at <= world.now) {
                application.act(world, side);
            }
        }
    }
    for (link, path) in world.links.iter_mut().zip(scenario.paths) {
        link.set_config(path);
    }
}

fn dead(path: Path) -> Path {
    Path { loss: 1.0, ..path }
}

fn set_links(world: &mut World, scenario: &Scenario, begun: Instant) {
    let passed = world.now - begun;
    for (side, link) in world.links.iter_mut().enumerate() {
        let is_dead = scenario
            .outages
            .iter()
            .any(|o| o.links[side] && o.from <= passed && passed < o.from + o.length);
        let path = scenario.paths[side];
        link.set_config(if is_dead { dead(path) } else { path });
    }
}

/// Ends it as the scenario says. Whether everything was sent then.
fn finish(world: &mut World, scenario: &Scenario) -> bool {
    let is_sent = |world: &World| {
        world
            .hosts
            .iter()
            .all(|h| h.connection.as_ref().is_none_or(|c| c.is_sent()))
    };
    let limit = world.now + Duration::from_secs(25);
    while !is_sent(world) && !world.hosts.iter().any(|h| h.is_closed()) && world.now < limit {
        let next = world.now + TICK * 20;
        world.run_until(next);
    }
    let all_sent = is_sent(world);
    match scenario.end {
        End::Close(side) => world.close(side),
        End::Cut => {
            for (link, path) in world.links.iter_mut().zip(scenario.paths) {
                link.set_config(dead(path));
            }
        }
    }
    all_sent
}
