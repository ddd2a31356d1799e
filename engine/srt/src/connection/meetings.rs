//! Rendezvous (spec section 6): two of ours over a virtual network, in virtual time; in `hostile` one
//! of ours against datagrams that nobody should send.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod hostile;

use std::collections::BTreeMap;

use super::*;
use crate::handshake::cif::{AGREEMENT, CONCLUSION, HandshakeCif, WAVEAHAND};
use crate::handshake::extensions::Extensions;
use crate::handshake::rendezvous::{Role, contest};
use crate::packet::{Control, Header};
use crate::test_support::Random;
use crate::{CipherPolicy, KeyLength, ListenerPolicy, Passphrase};

const IDS: [u32; 2] = [0x0549_0D0B, 0x1EC2_1301];
const START: Instant = Instant::from_millis(1_000_000);
const TICK: Duration = Duration::from_millis(1);

fn address(end: usize) -> SocketAddr {
    ["198.51.100.1:9050", "198.51.100.2:9050"][end]
        .parse()
        .unwrap()
}

/// What the path does to datagrams.
#[derive(Clone, Copy)]
struct Path {
    delay_us: u64,
    jitter_us: u64,
    loss_per_mille: u64,
    duplicates_per_mille: u64,
}

const CLEAN: Path = Path {
    delay_us: 5_000,
    jitter_us: 0,
    loss_per_mille: 0,
    duplicates_per_mille: 0,
};

/// How an end is set up.
#[derive(Clone)]
struct Setup {
    config: Config,
    cookie: u32,
    initial: u32,
    passphrase: Option<&'static str>,
    key_length: Option<KeyLength>,
    require: bool,
    /// It begins so long after the other could.
    after: Duration,
    stream_id: &'static str,
}

fn setup(cookie: u32) -> Setup {
    Setup {
        config: Config::default(),
        cookie,
        initial: cookie & 0xFFFF,
        passphrase: None,
        key_length: None,
        require: true,
        after: Duration::ZERO,
        stream_id: "",
    }
}

fn with_passphrase(cookie: u32, passphrase: &'static str) -> Setup {
    Setup {
        passphrase: Some(passphrase),
        ..setup(cookie)
    }
}

/// A greater cookie and a smaller one: initiator and responder.
const WINS: u32 = 0xA456_E64D;
const LOSES: u32 = 0x467F_25D3;

fn make(setup: &Setup, end: usize, now: Instant) -> Connection {
    let security = setup.passphrase.map(|text| {
        let passphrase = Passphrase::new(text).unwrap();
        let seed = [end as u8 + 1; 32];
        CallerSecurity::new(
            &passphrase,
            setup.key_length,
            CipherPolicy::Auto,
            setup.require,
            seed,
        )
    });
    Connection::rendezvous(
        now,
        address(1 - end),
        IDS[end],
        PacketSequenceNumber::new(setup.initial),
        setup.cookie,
        setup.stream_id,
        &setup.config,
        0,
        security,
    )
}

struct End {
    setup: Setup,
    connection: Option<Connection>,
    ring: SlotRing,
    sent: Vec<(Instant, Vec<u8>)>,
    got: Vec<Vec<u8>>,
    events: Vec<(Instant, Event)>,
    questions: usize,
    /// Submitted so far, of so many.
    submitted: u32,
    to_send: u32,
}

impl End {
    fn is_connected(&self) -> bool {
        self.events.iter().any(|(_, e)| *e == Event::Connected)
    }

    fn reason(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Closed(reason) => Some(*reason),
            Event::Connected => None,
        })
    }

    fn handshakes(&self) -> Vec<(Header, HandshakeCif, Extensions)> {
        let handshake = |(_, bytes): &(Instant, Vec<u8>)| handshake_of(bytes);
        self.sent.iter().filter_map(handshake).collect()
    }

    fn kinds(&self) -> Vec<u32> {
        self.handshakes()
            .iter()
            .map(|h| h.1.handshake_type)
            .collect()
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().unwrap()
    }
}

fn handshake_of(bytes: &[u8]) -> Option<(Header, HandshakeCif, Extensions)> {
    let (header, rest) = Header::parse(bytes)?;
    if !header.is_control() || header.control() != Control::Handshake {
        return None;
    }
    let (cif, blocks) = HandshakeCif::parse(rest)?;
    Some((header, cif, Extensions::parse(blocks).unwrap()))
}

struct Meeting {
    now: Instant,
    random: Random,
    path: Path,
    /// Datagrams under way: to which end.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    count: u64,
    ends: [End; 2],
    /// Which datagrams get lost besides: end that sent it, its number among those of that end.
    lost: Vec<(usize, usize)>,
}

impl Meeting {
    fn new(seed: u64, path: Path, setups: [Setup; 2]) -> Self {
        let end = |setup: Setup| End {
            setup,
            connection: None,
            ring: SlotRing::with_owned_chunks(60),
            sent: Vec::new(),
            got: Vec::new(),
            events: Vec::new(),
            questions: 0,
            submitted: 0,
            to_send: 0,
        };
        let [a, b] = setups;
        Meeting {
            now: START,
            random: Random(seed),
            path,
            wire: BTreeMap::new(),
            count: 0,
            ends: [end(a), end(b)],
            lost: Vec::new(),
        }
    }

    fn clean(a: Setup, b: Setup) -> Self {
        Self::new(1, CLEAN, [a, b])
    }

    fn carry(&mut self, from: usize, bytes: &[u8]) {
        let number = self.ends[from].sent.len();
        self.ends[from].sent.push((self.now, bytes.to_vec()));
        if self.lost.contains(&(from, number)) || self.random.below(1000) < self.path.loss_per_mille
        {
            return;
        }
        let copies = 1 + u64::from(self.random.below(1000) < self.path.duplicates_per_mille);
        for _ in 0..copies {
            let jitter = self.random.below(self.path.jitter_us + 1);
            let at = self.now + Duration::from_micros(self.path.delay_us + jitter);
            self.count += 1;
            self.wire
                .insert((at, self.count), (1 - from, bytes.to_vec()));
        }
    }

    fn step(&mut self) {
        self.now += TICK;
        while let Some((&(at, count), _)) = self.wire.first_key_value() {
            if at > self.now {
                break;
            }
            let (to, bytes) = self.wire.remove(&(at, count)).unwrap();
            self.feed(to, at, &bytes);
        }
        for end in 0..2 {
            self.serve(end);
        }
    }

    fn feed(&mut self, to: usize, at: Instant, bytes: &[u8]) {
        let End {
            connection, ring, ..
        } = &mut self.ends[to];
        // Nothing is there before it begins: the datagram is lost.
        let Some(connection) = connection else { return };
        let before = connection.peer_socket_id();
        let _ = connection.handle_datagram(at, at, bytes, ring);
        // Data that completes the handshake is handed in again, as the shard does.
        if before == 0 && connection.peer_socket_id() != 0 && bytes[0] & 0x80 == 0 {
            let _ = connection.handle_datagram(at, at, bytes, ring);
        }
        self.answer(to);
    }

    fn answer(&mut self, to: usize) {
        let now = self.now;
        let end = &mut self.ends[to];
        let Some(connection) = &mut end.connection else {
            return;
        };
        while let Some(question) = connection.key_question() {
            end.questions += 1;
            let passphrase = end.setup.passphrase.map(|p| Passphrase::new(p).unwrap());
            let policy = ListenerPolicy {
                passphrase: passphrase.as_ref(),
                require: end.setup.require,
                cipher: CipherPolicy::Auto,
            };
            let material = question.key_material.as_deref();
            let decision = Security::negotiate(material, question.peer_version, &policy, [9; 32]);
            connection.answer_keys(now, question.number, decision);
        }
    }

    fn serve(&mut self, which: usize) {
        let now = self.now;
        let end = &mut self.ends[which];
        if end.connection.is_none() {
            if now < START + end.setup.after {
                return;
            }
            end.connection = Some(make(&end.setup, which, now));
        }
        let Some(connection) = &mut end.connection else {
            return;
        };
        connection.handle_timeout(now, &mut end.ring);
        while let Some(event) = connection.poll_event() {
            end.events.push((now, event));
        }
        if end
            .events
            .first()
            .is_some_and(|(_, e)| *e == Event::Connected)
            && end.submitted < end.to_send
            && connection.send(now, &payload(which, end.submitted)).is_ok()
        {
            end.submitted += 1;
        }
        while let Some(delivery) = connection.poll_delivery(now, &end.ring) {
            let slot = end.ring.get(delivery.slot).unwrap();
            end.got.push(slot.payload.to_vec());
        }
        end.ring.release_before(connection.delivery_index());
        let mut out = [0; 1500];
        let mut sent = Vec::new();
        while let Some(len) = connection.poll_transmit(now, &mut out) {
            sent.push(out[..len].to_vec());
        }
        for bytes in sent {
            self.carry(which, &bytes);
        }
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.step();
        }
    }

    /// Until both are connected; how long it took since both were there.
    fn unite(&mut self, within: Duration) -> Option<Duration> {
        for _ in 0..within.as_millis() {
            if self.ends.iter().all(End::is_connected) {
                let begun = self.ends.iter().map(|e| e.setup.after).max().unwrap();
                return Some(self.now - (START + begun));
            }
            self.step();
        }
        None
    }

    /// Both send, and each gets what the other sent.
    fn exchange(&mut self, packets: u32) {
        for end in &mut self.ends {
            end.to_send = packets;
        }
        self.run(Duration::from_millis(u64::from(packets) + 1500));
        for which in 0..2 {
            let expected: Vec<_> = (0..packets).map(|n| payload(1 - which, n)).collect();
            assert_eq!(self.ends[which].got.len(), expected.len(), "end {which}");
            assert!(self.ends[which].got == expected, "end {which}");
        }
    }
}

fn payload(end: usize, number: u32) -> Vec<u8> {
    let mut payload = vec![end as u8; 188];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn cookies_are_contested_as_libsrt_does() {
    // Captures 50, 51 and 52.
    assert_eq!(contest(0xA456_E64D, 0x467F_25D3), Some(Role::Initiator));
    assert_eq!(contest(0x675F_D07A, 0x7B46_A8C9), Some(Role::Responder));
    assert_eq!(contest(0xE029_F7FE, 0xC026_9EC6), Some(Role::Initiator));
    assert_eq!(contest(7, 7), None);
    // The one difference that says nothing: signed numbers decide.
    assert_eq!(contest(0x0000_0001, 0x8000_0001), Some(Role::Initiator));
    assert_eq!(contest(0x8000_0001, 0x0000_0001), Some(Role::Responder));
    let mut random = Random(5);
    for _ in 0..10_000 {
        let (a, b) = (random.below(1 << 32) as u32, random.below(1 << 32) as u32);
        assert!(a == b || contest(a, b) != contest(b, a), "{a:08x} {b:08x}");
    }
}

#[test]
fn serial_flow_takes_five_datagrams_when_the_first_to_wave_asks() {
    let late = Setup {
        after: ms(384),
        ..setup(LOSES)
    };
    let mut meeting = Meeting::clean(setup(WINS), late);
    assert!(meeting.unite(ms(2000)).unwrap() <= ms(30));
    let [first, second] = &meeting.ends;
    // Two greetings reach nobody.
    assert_eq!(first.kinds(), [WAVEAHAND, WAVEAHAND, CONCLUSION, AGREEMENT]);
    assert_eq!(second.kinds(), [WAVEAHAND, CONCLUSION]);
    let (greeting, request, agreed) = {
        let all = first.handshakes();
        (all[0].clone(), all[2].clone(), all[3].clone())
    };
    assert_eq!((greeting.0.destination, greeting.1.version), (0, 5));
    assert_eq!((greeting.1.extension, greeting.1.encryption), (0, 0));
    assert_eq!(request.0.destination, IDS[1]);
    assert_eq!(request.1.extension, 1);
    assert!(request.2.hs_request.is_some() && request.2.hs_response.is_none());
    assert_eq!((agreed.0.destination, agreed.1.extension), (IDS[1], 0));
    let response = second.handshakes()[1].clone();
    assert_eq!(response.0.destination, IDS[0]);
    assert!(response.2.hs_response.is_some());
    // Each direction begins at its own number.
    assert_ne!(response.1.initial_sequence, request.1.initial_sequence);
    for all in [first.handshakes(), second.handshakes()] {
        assert!(all.iter().all(|h| h.1.cookie == all[0].1.cookie));
    }
    meeting.exchange(300);
}

#[test]
fn serial_flow_with_the_first_to_wave_as_responder_takes_an_empty_conclusion() {
    let late = Setup {
        after: ms(100),
        ..setup(WINS)
    };
    let mut meeting = Meeting::clean(setup(LOSES), late);
    assert!(meeting.unite(ms(2000)).unwrap() <= ms(40));
    let [first, second] = &meeting.ends;
    assert_eq!(first.kinds(), [WAVEAHAND, CONCLUSION, CONCLUSION]);
    assert_eq!(second.kinds(), [WAVEAHAND, CONCLUSION, AGREEMENT]);
    let all = first.handshakes();
    assert_eq!(
        (all[1].1.extension, all[1].2.clone()),
        (0, Extensions::default())
    );
    assert!(all[2].2.hs_response.is_some());
    meeting.exchange(300);
}

#[test]
fn parallel_flow_concludes_at_once() {
    let mut meeting = Meeting::clean(setup(WINS), setup(LOSES));
    assert!(meeting.unite(ms(1000)).unwrap() <= ms(40));
    let [asks, answers] = &meeting.ends;
    let kinds = asks.kinds();
    assert_eq!(kinds[..2], [WAVEAHAND, CONCLUSION], "{kinds:x?}");
    assert_eq!(kinds.last(), Some(&AGREEMENT));
    assert_eq!(answers.kinds()[..3], [WAVEAHAND, CONCLUSION, CONCLUSION]);
    meeting.exchange(300);
}

#[test]
fn latency_is_negotiated_as_between_caller_and_listener() {
    // Spec section 4.1, capture 56.
    let end = |cookie, receive, peer| {
        let mut setup = setup(cookie);
        setup.config.latency = ms(receive);
        setup.config.peer_latency = ms(peer);
        setup
    };
    let mut meeting = Meeting::clean(end(WINS, 550, 250), end(LOSES, 300, 500));
    meeting.unite(ms(1000)).unwrap();
    let [initiator, responder] = &meeting.ends;
    assert_eq!(initiator.connection().latency(), ms(550));
    assert_eq!(initiator.connection().peer_latency(), ms(300));
    assert_eq!(responder.connection().latency(), ms(300));
    assert_eq!(responder.connection().peer_latency(), ms(550));
}

#[test]
fn initiator_presents_its_stream_id() {
    let asks = Setup {
        stream_id: "#!::r=cam1",
        ..setup(WINS)
    };
    let mut meeting = Meeting::clean(asks, setup(LOSES));
    meeting.unite(ms(1000)).unwrap();
    let all = meeting.ends[0].handshakes();
    let conclusion = all.iter().find(|h| h.1.handshake_type == CONCLUSION);
    let (_, cif, blocks) = conclusion.unwrap();
    assert_eq!(cif.extension, 1 | 4);
    assert_eq!(blocks.srt_stream_id.as_deref(), Some(&b"#!::r=cam1"[..]));
}

#[test]
fn each_message_may_be_lost_and_both_still_meet() {
    for (a, b) in [(WINS, LOSES), (LOSES, WINS)] {
        for after in [0, 100] {
            // The first eight datagrams of either end: of some all but the repetitions.
            for lost in 0..256u32 {
                let which = |n: usize| lost >> n & 1 == 1;
                let late = Setup {
                    after: ms(after),
                    ..setup(b)
                };
                let mut meeting = Meeting::clean(setup(a), late);
                meeting.lost = (0..8)
                    .filter(|n| which(*n))
                    .map(|n| (n / 4, n % 4))
                    .collect();
                let took = meeting.unite(ms(8000));
                assert!(took.is_some(), "{a:x} {after} {lost:08b}");
            }
        }
    }
}

#[test]
fn lost_agreement_is_made_good_by_data_by_keepalives_and_by_its_repetition() {
    for (sends, repeats) in [(true, false), (false, false), (false, true)] {
        let mut meeting = Meeting::clean(setup(WINS), setup(LOSES));
        // Nothing of the responder is heard after its answer: no conclusion asks again.
        meeting.ends[0].to_send = if sends { 100 } else { 0 };
        for _ in 0..3000 {
            meeting.step();
            let agreement = meeting.ends[0].sent.iter().position(|(_, bytes)| {
                handshake_of(bytes).is_some_and(|h| h.1.handshake_type == AGREEMENT)
            });
            if let Some(at) = agreement
                && meeting.lost.is_empty()
            {
                meeting.lost = vec![(0, at)];
                meeting.wire.retain(|_, (to, bytes)| {
                    *to != 1 || handshake_of(bytes).is_none_or(|h| h.1.handshake_type != AGREEMENT)
                });
            }
            if !repeats && !meeting.lost.is_empty() {
                meeting.wire.retain(|_, (to, _)| *to != 0);
            }
        }
        assert!(meeting.ends[1].is_connected(), "{sends} {repeats}");
        let agreements = meeting.ends[0].kinds();
        let agreements = agreements.iter().filter(|k| **k == AGREEMENT).count();
        assert_eq!(agreements > 1, repeats, "{sends}");
        if sends {
            assert_eq!(meeting.ends[1].got.len(), 100);
        }
    }
}

#[test]
fn bad_lines_and_any_offset_keep_nobody_apart() {
    let encrypted = cfg!(feature = "crypto");
    for seed in 0..300 {
        let mut random = Random(seed * 7919 + 3);
        let cookies = [
            1 + random.below(u64::from(u32::MAX)) as u32,
            random.below(1 << 32) as u32 | 1,
        ];
        let path = Path {
            delay_us: 500 + random.below(60_000),
            jitter_us: random.below(40_000),
            loss_per_mille: random.below(200),
            duplicates_per_mille: random.below(100),
        };
        let secret = encrypted && random.below(2) == 1;
        let mut ends = cookies.map(setup);
        for end in &mut ends {
            end.config.latency = ms(900);
            end.initial = random.below(0x7FFF_FFFF) as u32;
            if secret {
                end.passphrase = Some("rendezvous-key-1");
                end.key_length = [None, Some(KeyLength::Aes256)][random.below(2) as usize];
            }
        }
        ends[0].after = ms(random.below(3000));
        ends[1].after = ms(random.below(3000));
        if cookies[0] == cookies[1] {
            continue;
        }
        let mut meeting = Meeting::new(seed + 1, path, ends);
        let took = meeting.unite(ms(15_000));
        assert!(took.is_some(), "seed {seed}");
        for end in &mut meeting.ends {
            end.to_send = 200;
        }
        meeting.run(ms(2500));
        for which in 0..2 {
            let end = &meeting.ends[which];
            assert_eq!(end.reason(), None, "seed {seed}");
            assert_eq!(
                end.connection().encryption() != "none",
                secret,
                "seed {seed}"
            );
            // In order, and what is missing could not be repaired in time at such a loss.
            assert!(end.got.len() >= 190, "seed {seed}: {}", end.got.len());
            let mut expected = (0..200).map(|n| payload(1 - which, n));
            assert!(
                end.got.iter().all(|p| expected.any(|e| e == *p)),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn forged_greetings_and_those_of_earlier_attempts_keep_nobody_apart() {
    for (a, b) in [(WINS, LOSES), (LOSES, WINS)] {
        for after in [0, 700] {
            let late = Setup {
                after: ms(after),
                ..setup(b)
            };
            let mut meeting = Meeting::clean(setup(a), late);
            // What an earlier attempt said, with the socket IDs and cookies of then.
            let mut earlier = Meeting::clean(setup(a ^ 0x55), setup(b ^ 0x33));
            earlier.unite(ms(1000)).unwrap();
            let said: Vec<(usize, Vec<u8>)> = (0..2)
                .flat_map(|from| {
                    let sent = earlier.ends[from].sent.iter();
                    sent.map(move |(_, bytes)| (1 - from, bytes.clone()))
                })
                .map(|(to, mut bytes)| {
                    // The IDs were others, too: of the sender, and of whom it was meant for.
                    bytes[43] ^= 0xFF;
                    if bytes[12..16] != [0; 4] {
                        bytes[15] ^= 0xFF;
                    }
                    (to, bytes)
                })
                .collect();
            let mut united = None;
            for step in 0..5000u32 {
                meeting.step();
                let at = meeting.now;
                let (to, bytes) = said[step as usize % said.len()].clone();
                // The shard knows its sessions by their IDs.
                if bytes[12..16] == [0; 4] {
                    meeting.feed(to, at, &bytes);
                }
                if united.is_none() && meeting.ends.iter().all(End::is_connected) {
                    united = Some(step);
                }
            }
            let took = united.unwrap_or_else(|| panic!("{a:x} {after}"));
            assert!(u64::from(took) < after + 1500, "{a:x} {after}: {took}");
            let ids = [0, 1].map(|n| meeting.ends[n].connection().peer_socket_id());
            assert_eq!(ids, [IDS[1], IDS[0]]);
            meeting.exchange(100);
        }
    }
}

#[test]
fn both_directions_are_encrypted_with_the_initiators_keys() {
    if !cfg!(feature = "crypto") {
        return;
    }
    for (a, b) in [(WINS, LOSES), (LOSES, WINS)] {
        let long = Setup {
            key_length: Some(KeyLength::Aes256),
            ..with_passphrase(a, "rendezvous-key-1")
        };
        let mut meeting = Meeting::clean(long, with_passphrase(b, "rendezvous-key-1"));
        meeting.unite(ms(1000)).unwrap();
        // The one that asks without a length of its own takes the one that the other advertises.
        for end in &meeting.ends {
            assert_eq!(end.connection().encryption(), "aes-ctr-256");
        }
        meeting.exchange(300);
        let questions = meeting.ends.iter().map(|e| e.questions).sum::<usize>();
        assert_eq!(questions, 1, "the responder's, once");
        let clear = payload(0, 5);
        let seen = |end: &End| {
            let holds = |(_, b): &(Instant, Vec<u8>)| b.ends_with(&clear);
            end.sent.iter().any(holds)
        };
        assert!(!seen(&meeting.ends[0]));
    }
}

#[test]
fn passphrases_that_differ_end_in_silence_and_our_side_is_told_why() {
    if !cfg!(feature = "crypto") {
        return;
    }
    let mine = || with_passphrase(WINS, "rendezvous-key-1");
    let cases = [
        (
            mine(),
            with_passphrase(LOSES, "rendezvous-key-2"),
            RejectionCode::BADSECRET,
        ),
        (mine(), setup(LOSES), RejectionCode::UNSECURE),
        (
            setup(WINS),
            with_passphrase(LOSES, "rendezvous-key-2"),
            RejectionCode::UNSECURE,
        ),
    ];
    for (a, b, code) in cases {
        let mut meeting = Meeting::clean(a, b);
        meeting.run(ms(31_000));
        let [initiator, responder] = &meeting.ends;
        assert_eq!(responder.reason(), Some(CloseReason::Rejected(code)));
        assert_eq!(initiator.reason(), Some(CloseReason::Unconcluded));
        for end in &meeting.ends {
            assert!(!end.is_connected());
            let quiet = |kind: &u32| matches!(*kind, WAVEAHAND | CONCLUSION);
            assert!(end.kinds().iter().all(quiet), "{:x?}", end.kinds());
            assert_eq!(end.sent.len(), end.kinds().len(), "no SHUTDOWN either");
            let answered = end.handshakes().iter().any(|h| h.2.hs_response.is_some());
            assert!(!answered);
        }
        assert_eq!(responder.questions, 1, "the same keys are not tried again");
        let at = responder.events[0].0;
        assert!(
            at - START < ms(3200),
            "no need to wait for the other to give up"
        );
    }
}

#[test]
fn sides_that_do_not_insist_meet_without_common_keys() {
    if !cfg!(feature = "crypto") {
        return;
    }
    let lenient = |setup: Setup| Setup {
        require: false,
        ..setup
    };
    let a = lenient(with_passphrase(WINS, "rendezvous-key-1"));
    let b = lenient(with_passphrase(LOSES, "rendezvous-key-2"));
    let mut meeting = Meeting::clean(a.clone(), b);
    meeting.unite(ms(1000)).unwrap();
    for end in &meeting.ends {
        assert_eq!(end.connection().encryption(), "none");
    }
    // One that insists ends what the other made of it, and says so.
    let strict = Setup { require: true, ..a };
    let b = lenient(with_passphrase(LOSES, "rendezvous-key-2"));
    let mut meeting = Meeting::clean(strict, b);
    meeting.run(ms(1000));
    let reason = CloseReason::Rejected(RejectionCode::BADSECRET);
    assert_eq!(meeting.ends[0].reason(), Some(reason));
    assert_eq!(meeting.ends[1].reason(), Some(CloseReason::PeerShutdown));
}

#[test]
fn nobody_there_is_a_timeout_ten_times_as_long_as_a_callers() {
    let never = Setup {
        after: ms(100_000),
        ..setup(LOSES)
    };
    let mut meeting = Meeting::clean(setup(WINS), never);
    meeting.run(ms(29_000));
    assert!(meeting.ends[0].events.is_empty());
    meeting.run(ms(1_100));
    assert_eq!(meeting.ends[0].reason(), Some(CloseReason::ConnectTimeout));
    let sent = &meeting.ends[0].sent;
    assert!(
        (118..=122).contains(&sent.len()),
        "each 250 ms: {}",
        sent.len()
    );
}

#[test]
fn equal_cookies_are_a_draw() {
    let mut meeting = Meeting::clean(setup(WINS), setup(WINS));
    meeting.run(ms(100));
    let reason = Some(CloseReason::Rejected(RejectionCode::RDVCOOKIE));
    assert_eq!(meeting.ends[0].reason(), reason);
    // Whoever meets itself, too.
    let mut alone = make(&setup(WINS), 0, START);
    let mut out = [0; 1500];
    let len = alone.poll_transmit(START, &mut out).unwrap();
    alone
        .handle_datagram(START, START, &out[..len], &mut SlotRing::new())
        .unwrap();
    assert_eq!(alone.poll_event(), reason.map(Event::Closed));
}
