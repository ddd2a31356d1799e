//! Rendezvous: a call from a port of its own, with a peer that calls at the same time.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, PacketSequenceNumber, ShardId, SlotRing, StreamId};
use mirror_srt::{
    CallerSecurity, CipherPolicy, CloseReason, Connection, ListenerPolicy, Passphrase,
    RejectionCode, Security,
};
use mirror_stream::report::{CallFailure, CallRequest, Command, EndReason, Event, Status};

use super::world::{SRT, World, addr, config};

const PEER: &str = "198.51.100.7:9050";
const PORT: u16 = 9050;
const SECRET: &str = "rendezvous-key-1";
const ANOTHER: &str = "rendezvous-key-2";
/// Whatever our cookie is, one of these wins against it and the other loses.
const COOKIES: [u32; 2] = [1, 0x8000_0001];

fn local() -> SocketAddr {
    SocketAddr::new(addr(SRT).ip(), PORT)
}

fn keys(passphrase: &str) -> CallerSecurity {
    let passphrase = Passphrase::new(passphrase).unwrap();
    CallerSecurity::new(&passphrase, None, CipherPolicy::Auto, true, [6; 32])
}

fn negotiated(
    passphrase: Option<&str>,
    material: Option<&[u8]>,
) -> Result<Security, RejectionCode> {
    let passphrase = passphrase.map(|p| Passphrase::new(p).unwrap());
    let policy = ListenerPolicy {
        passphrase: passphrase.as_ref(),
        require: true,
        cipher: CipherPolicy::Auto,
    };
    Security::negotiate(material, 0x0001_0501, &policy, [5; 32])
}

/// The peer: the SRT room's own end of a rendezvous, which sends.
struct Partner {
    connection: Connection,
    ring: SlotRing,
    passphrase: Option<&'static str>,
    connected: bool,
    closed: Option<CloseReason>,
    to_send: u32,
    /// It sends no handshake any more once it is connected.
    keeps_agreement: bool,
}

impl Partner {
    fn new(world: &World, cookie: u32, passphrase: Option<&'static str>) -> Self {
        let connection = Connection::rendezvous(
            world.now(),
            local(),
            cookie | 7,
            PacketSequenceNumber::new(cookie & 0xFFFF),
            cookie,
            "",
            &mirror_srt::Config::default(),
            0,
            passphrase.map(keys),
        );
        Partner {
            connection,
            ring: SlotRing::with_owned_chunks(2),
            passphrase,
            connected: false,
            closed: None,
            to_send: 0,
            keeps_agreement: false,
        }
    }

    fn hear(&mut self, world: &World, bytes: &[u8]) {
        let now = world.now();
        let _ = self
            .connection
            .handle_datagram(now, now, bytes, &mut self.ring);
        while let Some(question) = self.connection.key_question() {
            let decision = negotiated(self.passphrase, question.key_material.as_deref());
            self.connection.answer_keys(now, question.number, decision);
        }
    }

    fn step(&mut self, world: &World) {
        let now = world.now();
        self.connection.handle_timeout(now, &mut self.ring);
        while let Some(event) = self.connection.poll_event() {
            match event {
                mirror_srt::Event::Connected => self.connected = true,
                mirror_srt::Event::Closed(reason) => self.closed = Some(reason),
            }
        }
        if self.connected && self.to_send > 0 {
            let mut payload = [0xFF; 1316];
            payload.chunks_mut(188).for_each(|ts| ts[0] = 0x47);
            if self.connection.send(now, &payload).is_ok() {
                self.to_send -= 1;
            }
        }
        let mut out = [0; 1500];
        while let Some(len) = self.connection.poll_transmit(now, &mut out) {
            let is_handshake = out[..4] == [0x80, 0, 0, 0];
            if !(is_handshake && self.connected && self.keeps_agreement) {
                world.send_to_engine(addr(PEER), local(), &out[..len]);
            }
        }
    }
}

struct Scene {
    world: World,
    partner: Option<Partner>,
    passphrase: Option<&'static str>,
    answered: usize,
}

impl Scene {
    fn new(passphrase: Option<&'static str>) -> Self {
        Scene {
            world: World::new(config(2)),
            partner: None,
            passphrase,
            answered: 0,
        }
    }

    fn order(&self, ticket: u64) {
        let request = CallRequest {
            ticket,
            stream_id: StreamId::new("live/met").unwrap(),
            peer: addr(PEER),
            srt_stream_id: String::new(),
            latency: Some(Duration::from_millis(200)),
            security: self.passphrase.map(keys),
            tags: Vec::new(),
            rendezvous: Some(SocketAddr::from(([0, 0, 0, 0], PORT))),
        };
        let command = Command::Call(Box::new(request));
        self.world.mailboxes.send(ShardId(1), command).unwrap();
    }

    fn run(&mut self, time: u64) {
        for _ in 0..time {
            self.world.step();
            let sent = core::mem::take(&mut self.world.to_others);
            if let Some(partner) = &mut self.partner {
                for (from, to, bytes) in sent {
                    assert_eq!((from, to), (local(), addr(PEER)), "from its own port");
                    partner.hear(&self.world, &bytes);
                }
                partner.step(&self.world);
            }
            self.decide();
        }
    }

    /// Control's part.
    fn decide(&mut self) {
        let questions: Vec<_> = self.world.log[self.answered..]
            .iter()
            .filter_map(|event| match event {
                Event::CallKeys {
                    shard,
                    stream_id,
                    ticket,
                    question,
                } => Some((*shard, stream_id.clone(), *ticket, question.clone())),
                _ => None,
            })
            .collect();
        self.answered = self.world.log.len();
        for (shard, stream_id, ticket, question) in questions {
            let decision = negotiated(self.passphrase, question.key_material.as_deref());
            let command = Command::CallKeys {
                stream_id,
                ticket,
                number: question.number,
                decision: decision.map(Box::new).map_err(|code| code.0),
            };
            self.world.mailboxes.send(shard, command).unwrap();
        }
    }

    fn failures(&self) -> Vec<(CallFailure, Option<String>)> {
        let of = |e: &Event| match e {
            Event::CallFailed {
                failure, detail, ..
            } => Some((*failure, detail.clone())),
            _ => None,
        };
        self.world.log.iter().filter_map(of).collect()
    }

    fn nothing_is_left(&mut self) {
        let sessions: usize = self
            .world
            .shards
            .iter()
            .map(|s| s.core.sessions.len())
            .sum();
        assert_eq!((sessions, self.world.directory.len()), (0, 0));
        assert!(!self.world.is_open(local()), "the port is closed");
        for shard in &self.world.shards {
            assert!(shard.core.calls.meetings.is_empty());
        }
        let snapshots = self.world.snapshot();
        assert!(snapshots.iter().all(|s| s.calls_pending == 0));
        assert!(snapshots.iter().all(|s| s.counters.session_panics == 0));
    }
}

#[test]
fn a_rendezvous_brings_its_stream_whoever_asks_and_whoever_begins() {
    for cookie in COOKIES {
        for (ours, theirs) in [(0, 300), (300, 0), (0, 0)] {
            for passphrase in [None, Some(SECRET)] {
                let mut scene = Scene::new(passphrase);
                if ours < theirs {
                    scene.order(1);
                    scene.run(theirs);
                }
                scene.partner = Some(Partner::new(&scene.world, cookie, passphrase));
                scene.partner.as_mut().unwrap().to_send = 200;
                if ours >= theirs {
                    scene.run(ours);
                    scene.order(1);
                }
                scene.run(1200);
                assert_eq!(scene.failures(), []);
                assert_eq!(scene.world.started("live/met"), [(ShardId(1), false)]);
                let snapshots = scene.world.snapshot();
                let stream = &snapshots[1].streams[0];
                assert_eq!(stream.status, Status::Active);
                assert_eq!(stream.stats.packets_unique, 200);
                assert_eq!(stream.encryption != "none", passphrase.is_some());
                let socket = snapshots[1].sockets.last().unwrap();
                assert_eq!((socket.role, socket.local), ("srt_rendezvous", local()));
                assert!(scene.world.shards[1].core.calls.meetings.is_empty());
            }
        }
    }
}

#[test]
fn data_instead_of_a_lost_agreement_is_the_first_of_the_stream() {
    // Of the two cookies one makes the peer the one that agrees.
    let mut by_data = 0;
    for cookie in COOKIES {
        let mut scene = Scene::new(None);
        let mut partner = Partner::new(&scene.world, cookie, None);
        partner.to_send = 50;
        partner.keeps_agreement = true;
        scene.partner = Some(partner);
        scene.order(1);
        scene.run(1000);
        let snapshots = scene.world.snapshot();
        let stream = &snapshots[1].streams[0];
        assert_eq!(stream.stats.packets_unique, 50);
        let srt = stream.srt.as_ref().unwrap();
        assert_eq!((srt.pkt_rcv_loss, srt.pkt_rcv_retrans), (0, 0));
        by_data += 1;
    }
    assert_eq!(by_data, 2);
}

#[test]
fn another_passphrase_is_named_and_the_port_is_given_back() {
    let mut seen = Vec::new();
    for cookie in COOKIES {
        let mut scene = Scene::new(Some(SECRET));
        scene.partner = Some(Partner::new(&scene.world, cookie, Some(ANOTHER)));
        scene.order(1);
        scene.run(31_000);
        seen.extend(scene.failures());
        scene.nothing_is_left();
    }
    seen.sort_by_key(|(failure, _)| *failure == CallFailure::Unconcluded);
    let bad = CallFailure::Rejected(RejectionCode::BADSECRET.0);
    assert_eq!(seen, [(bad, None), (CallFailure::Unconcluded, None)]);
}

#[test]
fn nobody_there_is_a_timeout_after_thirty_seconds() {
    let mut scene = Scene::new(None);
    scene.order(1);
    scene.run(29_000);
    assert!(scene.failures().is_empty() && scene.world.is_open(local()));
    assert_eq!(scene.world.directory.len(), 1, "its name is held");
    scene.run(1_500);
    assert_eq!(scene.failures(), [(CallFailure::Timeout, None)]);
    scene.nothing_is_left();
}

#[test]
fn a_port_that_cannot_be_had_is_a_failure_with_its_reason() {
    let mut scene = Scene::new(None);
    scene.world.shards[1].driver.no_sockets = true;
    scene.order(1);
    scene.run(10);
    let why = Some("no sockets left".to_owned());
    assert_eq!(scene.failures(), [(CallFailure::NoPort, why)]);
    scene.nothing_is_left();
    scene.world.shards[1].driver.no_sockets = false;
    scene.partner = Some(Partner::new(&scene.world, COOKIES[0], None));
    scene.order(2);
    scene.run(600);
    assert_eq!(scene.world.started("live/met").len(), 1);
}

#[test]
fn a_session_that_ends_gives_its_port_back_for_the_next() {
    let mut scene = Scene::new(None);
    for ticket in 1..=3 {
        scene.partner = Some(Partner::new(&scene.world, COOKIES[0], None));
        scene.partner.as_mut().unwrap().to_send = 20;
        scene.order(ticket);
        scene.run(700);
        assert_eq!(scene.world.started("live/met").len(), ticket as usize);
        assert!(scene.world.is_open(local()));
        if ticket == 2 {
            // Switched off: nothing is said any more.
            scene.partner = None;
            scene.run(5_500);
        } else {
            let now = scene.world.now();
            let partner = scene.partner.as_mut().unwrap();
            partner.connection.close(now);
            scene.run(500);
        }
        assert!(!scene.world.is_open(local()));
        scene.partner = None;
    }
    let ended = scene.world.ended("live/met");
    let reasons: Vec<_> = ended.iter().map(|e| e.0).collect();
    let (closed, idle) = (EndReason::PeerClosed, EndReason::IdleTimeout);
    assert_eq!(reasons, [closed, idle, closed]);
}

#[test]
fn what_comes_from_elsewhere_does_nothing() {
    let mut scene = Scene::new(None);
    scene.order(1);
    scene.run(20);
    // A stranger greets, and asks as a caller would.
    let mut stranger = Partner::new(&scene.world, COOKIES[1], None);
    let mut out = [0; 1500];
    let now = scene.world.now();
    let len = stranger.connection.poll_transmit(now, &mut out).unwrap();
    scene
        .world
        .send_to_engine(addr("203.0.113.9:9050"), local(), &out[..len]);
    scene
        .world
        .send_to_engine(addr("198.51.100.7:9051"), local(), &out[..len]);
    scene.world.send_to_engine(addr(PEER), local(), &[0x80; 15]);
    scene.world.send_to_engine(addr(PEER), local(), &[0; 64]);
    scene.run(20);
    let snapshots = scene.world.snapshot();
    let discards = &snapshots[1].counters.discards;
    assert_eq!(discards.get(Discard::ForeignSource), 2);
    assert_eq!(discards.get(Discard::Runt), 1);
    assert!(scene.failures().is_empty());
    // Nor does a caller reach a rendezvous' port, or a greeting the listener's.
    let mut caller = Connection::connect(
        now,
        local(),
        99,
        PacketSequenceNumber::new(1),
        "live/x",
        &mirror_srt::Config::default(),
        0,
        None,
    );
    let len = caller.poll_transmit(now, &mut out).unwrap();
    scene.world.send_to_engine(addr(PEER), local(), &out[..len]);
    scene.run(20);
    assert!(scene.world.started("live/x").is_empty() && scene.failures().is_empty());
    // And whom it waits for still comes in.
    scene.partner = Some(Partner::new(&scene.world, COOKIES[0], None));
    scene.run(600);
    assert_eq!(scene.world.started("live/met").len(), 1);
}

#[test]
fn cancelled_and_drained_rendezvous_leave_nothing() {
    for drained in [false, true] {
        let mut scene = Scene::new(None);
        scene.order(1);
        scene.run(100);
        let stream_id = StreamId::new("live/met").unwrap();
        let command = if drained {
            Command::Drain {
                within: Duration::from_secs(1),
            }
        } else {
            Command::Terminate {
                stream_id,
                reason: EndReason::Operator,
            }
        };
        scene.world.mailboxes.send(ShardId(1), command).unwrap();
        scene.run(5);
        assert_eq!(scene.failures(), [(CallFailure::Cancelled, None)]);
        assert!(!scene.world.is_open(local()));
    }
}
