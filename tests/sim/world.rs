//! Two hosts and the path between them in virtual time: an SRT caller and a listener, each with
//! its own clock, memory and socket, and a `Netem` for each direction. Drives both the way a
//! shard does: datagrams when they arrive, timers on a tick of one millisecond, service when a
//! connection asks for it, and after each mutation everything is drained.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use mirror_base::{Delivery, Instant, SlotRing};
use mirror_netem::Netem;
use mirror_srt::{
    CallerSecurity, ConnectRequest, Connection, Event, HandshakeAction, Handshaker, KeyQuestion,
    ListenerPolicy, RejectionCode, Security, SendError, destination_socket_id,
};

use crate::clock::Clock;
use crate::random::Random;
use crate::scenario::{Disguise, Scenario};

/// The shard's timer wheel has this resolution.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Index of the side that calls.
pub(crate) const CALLER: usize = 0;
/// Index of the side that is called.
pub(crate) const LISTENER: usize = 1;

const IDS: [u32; 2] = [0x77, 0x1234];
/// More steps than any scenario needs: a world that spins is found out.
const MAX_STEPS: u64 = 20_000_000;

/// A packet as the receiving application got it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// By the receiving host's clock, as the times in `delivery`.
    pub(crate) at: Instant,
    pub(crate) delivery: Delivery,
    pub(crate) payload: Vec<u8>,
}

/// Everything that happens is folded into it: two runs are the same if their traces are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trace(u64);

impl Trace {
    fn fold(&mut self, at: Instant, bytes: &[u8]) {
        // FNV-1a
        for &b in at.as_nanos().to_be_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// One host: its connection once there is one, and what came of it.
pub(crate) struct Host {
    pub(crate) connection: Option<Connection>,
    pub(crate) ring: SlotRing,
    pub(crate) clock: Clock,
    pub(crate) received: Vec<Received>,
    pub(crate) events: Vec<Event>,
    disguise: Disguise,
    send_buffer: u32,
    /// Datagrams that leave in one system call.
    batch: usize,
}

impl Host {
    fn new(scenario: &Scenario, side: usize) -> Self {
        Host {
            connection: None,
            ring: SlotRing::with_owned_chunks(scenario.chunks[side]),
            clock: scenario.clocks[side],
            received: Vec::new(),
            events: Vec::new(),
            disguise: scenario.disguises[side],
            send_buffer: scenario.configs[side].send_buffer_packets,
            batch: scenario.batches[side],
        }
    }

    /// Calls the other side, or greets it.
    fn call(&mut self, scenario: &Scenario, side: usize, now: Instant) {
        let now = self.clock.show(now);
        let security = scenario.encryption.as_ref().map(|e| {
            let seed = [5 + side as u8; 32];
            CallerSecurity::new(&e.passphrase(side), Some(e.length), e.policy(), true, seed)
        });
        let (initial, config) = (scenario.initial, &scenario.configs[side]);
        let to = [listener_address(), caller_address(0)][side];
        let id = IDS[side];
        self.connection = Some(match scenario.meeting {
            None => Connection::connect(now, to, id, initial, "live/sim", config, 0, security),
            Some(meeting) => {
                let initial = [initial, meeting.initial][side];
                let cookie = meeting.cookies[side];
                Connection::rendezvous(
                    now, to, id, initial, cookie, "live/sim", config, 0, security,
                )
            }
        });
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|c| c.peer_socket_id() != 0)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Closed(_)))
    }

    /// When its wheel fires next: on a tick of its own clock, not before the deadline, and never
    /// twice at once.
    fn wakes(&self, now: Instant) -> Option<Instant> {
        let due = self.connection.as_ref()?.poll_timeout()?;
        let tick = TICK.as_nanos() as u64;
        let rounded = due.as_nanos().div_ceil(tick) * tick;
        let next = (self.clock.show(now).as_nanos() / tick + 1) * tick;
        Some(self.clock.when(Instant::from_nanos(rounded.max(next))))
    }

    /// What holds at every moment.
    fn check(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        let s = connection.statistics();
        assert_eq!(
            s.pkt_recv,
            s.pkt_recv_unique
                + s.pkt_rcv_duplicate
                + s.pkt_rcv_belated
                + s.pkt_rcv_undecrypt
                + s.pkt_rcv_refused,
            "every received packet is accounted for: {s:?}"
        );
        assert_eq!(s.pkt_recv_unique, s.pkt_delivered + s.pkt_rcv_buf, "{s:?}");
        assert_eq!(s.pkt_sent, s.pkt_sent_unique + s.pkt_retrans, "{s:?}");
        assert!(s.pkt_rcv_buf <= self.ring.capacity_slots() as u64, "{s:?}");
        assert!(
            s.pkt_snd_buf <= self.send_buffer.next_power_of_two(),
            "{s:?}"
        );
        assert!(s.pkt_flight_size <= s.pkt_snd_buf, "{s:?}");
        assert!(self.events.len() <= 2, "{:?}", self.events);
    }
}

/// The simulated world.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    /// By the side that sends into them.
    pub(crate) links: [Netem; 2],
    pub(crate) trace: Trace,
    /// Payloads of datagrams in which a bit was flipped on the way.
    pub(crate) tainted: BTreeSet<Vec<u8>>,
    corrupt_per_mille: u64,
    random: Random,
    handshaker: Handshaker,
    scenario: Scenario,
    /// How often the caller's address has changed: it is part of it.
    pub(crate) moves: u8,
    /// Waits for its authorisation until then.
    waiting: Option<(Instant, Box<ConnectRequest>)>,
    known: Option<Box<ConnectRequest>>,
    /// Rendezvous: which side is not there yet, and when it comes.
    late: Option<(Instant, usize)>,
    /// What a side of a rendezvous wants to know, and when it gets to know it.
    questions: Vec<(Instant, usize, KeyQuestion)>,
    steps: u64,
}

/// The caller's address after so many moves.
fn caller_address(moves: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 40_000 + u16::from(moves)).into()
}

/// How often the caller had moved when it had this address.
fn moves_of(address: SocketAddr) -> u8 {
    (address.port() - 40_000) as u8
}

fn listener_address() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 2), 30_000).into()
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let now = Instant::from_millis(1_000);
        let mut hosts = [Host::new(scenario, CALLER), Host::new(scenario, LISTENER)];
        let late = scenario.meeting.map(|m| (now + m.late.1, m.late.0));
        if late.is_none_or(|(_, side)| side != CALLER) {
            hosts[CALLER].call(scenario, CALLER, now);
        }
        if late.is_some_and(|(_, side)| side != LISTENER) {
            hosts[LISTENER].call(scenario, LISTENER, now);
        }
        let link = |side: usize| Netem::new(scenario.paths[side], scenario.seed * 2 + side as u64);
        World {
            now,
            hosts,
            links: [link(CALLER), link(LISTENER)],
            trace: Trace(0xcbf2_9ce4_8422_2325),
            tainted: BTreeSet::new(),
            corrupt_per_mille: scenario.corrupt_per_mille,
            random: Random(!scenario.seed),
            handshaker: Handshaker::new(scenario.configs[LISTENER].clone(), [7; 16]),
            scenario: scenario.clone(),
            moves: 0,
            waiting: None,
            known: None,
            late,
            questions: Vec::new(),
            steps: 0,
        }
    }

    /// Lets time pass until `until`.
    pub(crate) fn run_until(&mut self, until: Instant) {
        self.serve();
        while let Some(at) = self.next_event().filter(|&at| at <= until) {
            self.steps += 1;
            assert!(
                self.steps < MAX_STEPS,
                "the world does not come to rest at {:?}",
                self.now
            );
            self.now = self.now.max(at);
            self.come_late();
            self.deliver_datagrams();
            self.authorise();
            self.answer_questions();
            self.fire_timers();
            self.serve();
            if self.steps.is_multiple_of(256) {
                self.check();
            }
        }
        self.now = self.now.max(until);
    }

    /// Lets time pass until nothing is left to do, at most until `limit`. Whether it came to rest.
    pub(crate) fn run_to_rest(&mut self, limit: Instant) -> bool {
        self.run_until(limit);
        self.check();
        self.next_event().is_none()
    }

    /// The application of `side` sends.
    pub(crate) fn send(&mut self, side: usize, payload: &[u8]) -> Result<(), SendError> {
        let host = &mut self.hosts[side];
        let now = host.clock.show(self.now);
        match &mut host.connection {
            Some(connection) => connection.send(now, payload),
            None => Err(SendError::NotConnected),
        }
    }

    /// The application of `side` hangs up.
    pub(crate) fn close(&mut self, side: usize) {
        let host = &mut self.hosts[side];
        if let Some(connection) = &mut host.connection {
            connection.close(host.clock.show(self.now));
        }
    }

    fn check(&self) {
        self.hosts.iter().for_each(Host::check);
    }

    fn next_event(&self) -> Option<Instant> {
        let wakes = self.hosts.iter().filter_map(|h| h.wakes(self.now));
        let arrivals = self.links.iter().filter_map(Netem::poll_timeout);
        let authorised = self.waiting.as_ref().map(|(at, _)| *at);
        let late = self.late.map(|(at, _)| at);
        let answers = self.questions.iter().map(|(at, ..)| *at);
        let others = authorised.into_iter().chain(late).chain(answers);
        wakes.chain(arrivals).chain(others).min()
    }

    fn deliver_datagrams(&mut self) {
        for from in [CALLER, LISTENER] {
            while let Some(mut datagram) = self.links[from].poll(self.now) {
                let moves = datagram.pop().expect("what put() added");
                self.flip_a_bit(&mut datagram);
                self.trace.fold(self.now, &datagram);
                match from {
                    CALLER => self.arrive_at_listener(moves, &datagram),
                    // The NAT has forgotten the old address.
                    _ if moves == self.moves => self.take(CALLER, &datagram),
                    _ => {}
                }
            }
        }
    }

    fn flip_a_bit(&mut self, datagram: &mut [u8]) {
        if self.corrupt_per_mille == 0 || self.random.below(1000) >= self.corrupt_per_mille {
            return;
        }
        // Headers are short: half of the flips go there.
        let bytes = if self.random.below(2) == 0 {
            16
        } else {
            datagram.len()
        };
        let bit = self.random.below(bytes as u64 * 8);
        datagram[(bit / 8) as usize] ^= 1 << (bit % 8);
        self.tainted
            .insert(datagram[16.min(datagram.len())..].to_vec());
    }

    /// A shard's routing: socket ID 0 is for handshakes, else it must be the connection's, and
    /// come from its peer or from where the peer has moved.
    fn arrive_at_listener(&mut self, moves: u8, datagram: &[u8]) {
        let from = caller_address(moves);
        if destination_socket_id(datagram) == Some(0) && self.scenario.meeting.is_none() {
            self.handshake(from, datagram);
            return self.serve_host(LISTENER);
        }
        let now = self.hosts[LISTENER].clock.show(self.now);
        let is_peer = self.is_for(LISTENER, datagram)
            && self.hosts[LISTENER]
                .connection
                .as_mut()
                .is_some_and(|c| c.peer() == from || c.try_rebind(now, now, from, datagram));
        if is_peer {
            self.take(LISTENER, datagram);
        }
    }

    /// Whether a datagram is meant for the connection of that side: a rendezvous is greeted
    /// without its socket ID.
    fn is_for(&self, at: usize, datagram: &[u8]) -> bool {
        let id = destination_socket_id(datagram);
        id == Some(IDS[at]) || (id == Some(0) && self.scenario.meeting.is_some())
    }

    fn take(&mut self, at: usize, datagram: &[u8]) {
        let is_for = self.is_for(at, datagram);
        let host = &mut self.hosts[at];
        let now = host.clock.show(self.now);
        if let Some(connection) = &mut host.connection
            && is_for
        {
            let was_met = connection.peer_socket_id() != 0;
            // What is discarded is counted by the connection.
            let _ = connection.handle_datagram(now, now, datagram, &mut host.ring);
            let is_data = datagram.first().is_some_and(|first| first & 0x80 == 0);
            if !was_met && is_data && connection.peer_socket_id() != 0 {
                // Data that completed a rendezvous are handed in again.
                let _ = connection.handle_datagram(now, now, datagram, &mut host.ring);
            }
            if let Some(question) = connection.key_question() {
                let at_time = self.now + self.scenario.authorisation;
                self.questions.push((at_time, at, question));
            }
        }
        self.serve_host(at);
    }

    /// The side that is not there yet comes.
    fn come_late(&mut self) {
        let now = self.now;
        if let Some((_, side)) = self.late.take_if(|(at, _)| *at <= now) {
            self.hosts[side].call(&self.scenario, side, now);
        }
    }

    /// Decides what sides of a rendezvous wanted to know.
    fn answer_questions(&mut self) {
        let now = self.now;
        let due = |(at, ..): &mut (Instant, usize, KeyQuestion)| *at <= now;
        let answered: Vec<_> = self.questions.extract_if(.., due).collect();
        for (_, side, question) in answered {
            let material = question.key_material.as_deref();
            let decision = self.judge(side, material, question.peer_version);
            let host = &mut self.hosts[side];
            let shown = host.clock.show(now);
            if let Some(connection) = &mut host.connection {
                connection.answer_keys(shown, question.number, decision);
            }
            self.serve_host(side);
        }
    }

    /// What that side demands of the other.
    fn judge(
        &self,
        side: usize,
        key_material: Option<&[u8]>,
        version: u32,
    ) -> Result<Security, RejectionCode> {
        let encryption = self.scenario.encryption.as_ref();
        let passphrase = encryption.map(|e| e.passphrase(side));
        let policy = ListenerPolicy {
            passphrase: passphrase.as_ref(),
            require: true,
            cipher: encryption.map(|e| e.policy()).unwrap_or_default(),
        };
        Security::negotiate(key_material, version, &policy, [9; 32])
    }

    fn handshake(&mut self, from: SocketAddr, datagram: &[u8]) {
        let mut out = [0; 1500];
        let now = self.hosts[LISTENER].clock.show(self.now);
        let answer = self
            .handshaker
            .handle_datagram(now, from, datagram, &mut out);
        match answer {
            Ok(HandshakeAction::Reply(len)) => self.put(LISTENER, moves_of(from), &out[..len]),
            Ok(HandshakeAction::Conclude(request)) => self.conclude(request),
            Err(_) => {}
        }
    }

    /// A conclusion waits for its authorisation, and repetitions of it do not start another.
    fn conclude(&mut self, request: Box<ConnectRequest>) {
        let host = &mut self.hosts[LISTENER];
        match (&mut host.connection, &self.known) {
            (Some(connection), Some(known)) if known.key() == request.key() => {
                connection.handle_repeated_conclusion(host.clock.show(self.now));
            }
            (None, None) => {
                self.known = Some(request.clone());
                self.waiting = Some((self.now + self.scenario.authorisation, request));
            }
            _ => {}
        }
    }

    fn authorise(&mut self) {
        let now = self.now;
        let Some((_, request)) = self.waiting.take_if(|(at, _)| *at <= now) else {
            return;
        };
        let material = request.key_material.as_deref();
        let judged = self.judge(LISTENER, material, request.version);
        let host = &mut self.hosts[LISTENER];
        let shown = host.clock.show(now);
        let accepted = judged.and_then(|security| {
            let config = &self.scenario.configs[LISTENER];
            Connection::accept(shown, &request, IDS[LISTENER], config, 0, security)
        });
        match accepted {
            Ok(connection) => host.connection = Some(connection),
            Err(code) => {
                let mut out = [0; 1500];
                let len = request.reject(shown, code, &mut out);
                self.put(LISTENER, moves_of(request.peer), &out[..len]);
                // A repeated conclusion is judged anew.
                self.known = None;
            }
        }
        self.serve_host(LISTENER);
    }

    fn fire_timers(&mut self) {
        for host in &mut self.hosts {
            let now = host.clock.show(self.now);
            if let Some(connection) = &mut host.connection
                && connection.poll_timeout().is_some_and(|at| at <= now)
            {
                connection.handle_timeout(now, &mut host.ring);
            }
        }
    }

    fn serve(&mut self) {
        for side in [CALLER, LISTENER] {
            self.serve_host(side);
        }
    }

    /// Drains the host's connection if it asks for that.
    fn serve_host(&mut self, side: usize) {
        let host = &mut self.hosts[side];
        let now = host.clock.show(self.now);
        let Some(connection) = &mut host.connection else {
            return;
        };
        let is_due = connection.poll_timeout().is_some_and(|at| at <= now);
        if !is_due && !connection.is_pressing(now) {
            return;
        }
        while let Some(delivery) = connection.poll_delivery(now, &host.ring) {
            let slot = host
                .ring
                .get(delivery.slot)
                .expect("a delivered slot can be read");
            self.trace.fold(self.now, slot.payload);
            host.received.push(Received {
                at: now,
                delivery,
                payload: slot.payload.to_vec(),
            });
        }
        host.ring.release_before(connection.delivery_index());
        while let Some(event) = connection.poll_event() {
            host.events.push(event);
        }
        self.transmit(side, now);
    }

    fn transmit(&mut self, side: usize, now: Instant) {
        let mut out = [0; 1500 * 8];
        loop {
            let host = &mut self.hosts[side];
            let Some(connection) = &mut host.connection else {
                return;
            };
            let moves = if side == CALLER {
                self.moves
            } else {
                moves_of(connection.peer())
            };
            let disguise = host.disguise;
            let Some(batch) = connection.poll_transmit_batch(now, &mut out, host.batch) else {
                return;
            };
            for datagram in out[..batch.len].chunks_mut(batch.segment_size) {
                let len = datagram.len();
                assert!((16..=1472).contains(&len), "a datagram of {len} bytes");
                disguise.put_on(datagram);
                self.put(side, moves, datagram);
            }
        }
    }

    /// Into the link, with the caller's address as its last byte.
    fn put(&mut self, from: usize, moves: u8, datagram: &[u8]) {
        self.links[from].push(self.now, [datagram, &[moves]].concat());
    }
}
