//! Rendezvous (spec section 6): each recorded end replayed with us in its place, with its socket ID,
//! its cookie and its numbers, so that the recorded peer's datagrams are meant for us. Only keys
//! are ours where we ask: their echo is translated. To listeners and callers a rendezvous is
//! nothing, and they to it.

use core::net::SocketAddr;

use mirror_base::{Discard, PacketSequenceNumber, SlotRing};
use mirror_srt::{CloseReason, Config, Connection, Event, Handshaker, RejectionCode};
use mirror_tests::capture::expected;
use mirror_tests::capture::session::{self, Session};
use mirror_tests::capture::wire::{self, Handshake, Kind, block, handshake_type};
use serde_json::Value;

use crate::check::{self, Flow, Report};
use crate::files::read;
use crate::outcomes::payloads;
use crate::replay::{Played, replaced};
use crate::setup::Setup;
use crate::side::{FIRST_INDEX, Side, moment};

const CLEAR: &str = "srt50_rendezvous_clear";
const ENCRYPTED: &str = "srt51_rendezvous_aes128";
const BAD_SECRET: &str = "srt52_rendezvous_badsecret";
const CAPTURES: [&str; 3] = [CLEAR, ENCRYPTED, BAD_SECRET];

/// A capture as a session: its "caller" is the end that speaks first. In each of these it is the
/// one that sends data, too.
fn session_of(name: &str) -> Session {
    let frames = read(name).frames;
    let (first, second) = (frames[0].from, frames[0].to);
    let events: Vec<session::Event> = frames
        .into_iter()
        .map(|frame| session::Event {
            packet: wire::parse(&frame.datagram).expect("SRT"),
            from_caller: frame.from == first,
            frame,
        })
        .collect();
    let greeting = |is_first: bool| {
        let greeting = events.iter().find(|e| e.from_caller == is_first);
        match &greeting.expect("both speak").packet.kind {
            Kind::Handshake(h) => (**h).clone(),
            other => panic!("{name} begins with {other:?}"),
        }
    };
    Session {
        caller: first,
        listener: second,
        caller_id: greeting(true).socket_id,
        listener_id: Some(greeting(false).socket_id),
        initial: greeting(true).initial,
        events,
    }
}

fn handshakes(session: &Session, from_caller: bool) -> Vec<Handshake> {
    merged(session.handshakes(from_caller).cloned().collect())
}

/// Without the repetitions, whose pace is each end's own.
fn merged(mut all: Vec<Handshake>) -> Vec<Handshake> {
    all.dedup_by_key(|h| (h.kind, h.extension));
    all
}

/// We are one of the ends.
fn play(name: &str, session: &Session, is_first: bool) -> Played {
    let facts = expected(name);
    let own = &handshakes(session, is_first)[0];
    let (address, peer) = if is_first {
        (session.caller, session.listener)
    } else {
        (session.listener, session.caller)
    };
    let setup = Setup::of_end(&facts, address.ip());
    let payloads = if is_first {
        payloads(&facts, session, true)
    } else {
        Vec::new()
    };
    let begins = session.events.iter().find(|e| e.from_caller == is_first);
    let begins = moment(begins.expect("both speak").frame.at_us);
    let mut side = Side::new(session, is_first, own.socket_id, payloads);
    side.connection = Some(Connection::rendezvous(
        begins,
        peer,
        own.socket_id,
        PacketSequenceNumber::new(own.initial),
        own.cookie,
        "",
        &setup.config,
        FIRST_INDEX,
        setup.caller_security(),
    ));
    side.drain(begins);
    for event in &session.events {
        let now = moment(event.frame.at_us);
        if now < begins {
            continue;
        }
        side.advance(now);
        if event.from_caller == is_first {
            side.act(event, session.initial);
            continue;
        }
        let datagram = translated(session, event, &side);
        side.feed(event, &datagram);
        if let Some(connection) = &mut side.connection
            && let Some(question) = connection.key_question()
        {
            connection.answer_keys(now, question.number, setup.decide(&question));
            side.drain(now);
        }
    }
    side.finish(session.events.last().expect("not empty"));
    Played::new(side)
}

/// The recorded peer echoes the recorded keys: here, ours.
fn translated(session: &Session, event: &session::Event, side: &Side) -> Vec<u8> {
    let ours = side.sent.iter().rev().find_map(|s| match &s.packet.kind {
        Kind::Handshake(h) => h.block(block::KMREQ),
        _ => None,
    });
    let recorded = session
        .handshakes(!event.from_caller)
        .find_map(|h| h.block(block::KMREQ));
    match (recorded, ours) {
        (Some(theirs), Some(ours)) if theirs.len() == ours.len() => {
            replaced(&event.frame.datagram, theirs, ours)
        }
        _ => event.frame.datagram.clone(),
    }
}

fn own_handshakes(played: &Played) -> Vec<Handshake> {
    let of = |s: &crate::side::Sent| match &s.packet.kind {
        Kind::Handshake(h) => Some((**h).clone()),
        _ => None,
    };
    merged(played.side.sent.iter().filter_map(of).collect())
}

/// What we said in the handshake beside what was recorded, and to whom.
fn compare_handshakes(report: &mut Report, session: &Session, is_first: bool, played: &Played) {
    let recorded = handshakes(session, is_first);
    let ours = own_handshakes(played);
    let kinds = |all: &[Handshake]| -> Vec<(u32, u16)> {
        all.iter().map(|h| (h.kind, h.extension)).collect()
    };
    report.compare("messages", kinds(&recorded), kinds(&ours));
    for (recorded, ours) in recorded.iter().zip(&ours) {
        let what = format!("type {:08x}, extension {}", ours.kind, ours.extension);
        check::handshake(report, &what, recorded, ours);
        report.compare(&format!("{what}: cookie"), recorded.cookie, ours.cookie);
        report.compare(&format!("{what}: peer ip"), recorded.peer_ip, ours.peer_ip);
        let shape = |h: &Handshake| {
            h.block(block::KMREQ)
                .map(|km| (km[..16].to_vec(), km.len()))
        };
        report.compare(&format!("{what}: KMREQ"), shape(recorded), shape(ours));
        let answer = |h: &Handshake| h.block(block::KMRSP).map(<[u8]>::to_vec);
        report.compare(&format!("{what}: KMRSP"), answer(recorded), answer(ours));
    }
    for sent in &played.side.sent {
        if let Kind::Handshake(h) = &sent.packet.kind {
            let other = if is_first {
                session.listener_id
            } else {
                Some(session.caller_id)
            };
            let greets = h.kind == handshake_type::WAVEAHAND;
            let to = if greets { Some(0) } else { other };
            report.compare("destination", to, Some(sent.packet.destination));
        }
    }
}

fn flow<'a>(facts: &'a Value, session: &Session) -> Flow<'a> {
    Flow {
        facts: &facts["flows"][session.flow(true)],
        acks: &facts["acks"][session.flow(false)],
        from_caller: true,
        // libsrt's drops the data that come before its own handshake is done, and asks for them again:
        // ours takes them.
        at_receiver: false,
        at_sender: true,
    }
}

#[test]
fn each_end_of_a_rendezvous_comes_to_its_recorded_outcome() {
    for name in [CLEAR, ENCRYPTED] {
        let (facts, session) = (expected(name), session_of(name));
        for is_first in [true, false] {
            let played = play(name, &session, is_first);
            let mut report = Report::default();
            compare_handshakes(&mut report, &session, is_first, &played);
            let first = played.side.events.first().map(|e| e.1);
            report.compare("connected", Some(Event::Connected), first);
            let connection = played.side.connection.as_ref().expect("made");
            let ms = |ms: u64| core::time::Duration::from_millis(ms);
            report.compare("latency", ms(120), connection.latency());
            report.compare("peer's latency", ms(120), connection.peer_latency());
            let encryption = if name == CLEAR { "none" } else { "aes-ctr-128" };
            report.compare("encryption", encryption, connection.encryption());
            let flow = flow(&facts, &session);
            if is_first {
                check::sent(&mut report, &session, &flow, &played);
            } else {
                check::received(&mut report, &session, &flow, &played);
            }
            if !is_first && !flow.is_encrypted() {
                check::payload(&mut report, &flow, &played.side.delivered);
            }
            check::keepalives(&mut report, &session, is_first, &played);
            check::end(&mut report, &session, is_first, &played);
            let wrong = &report.differences;
            assert!(wrong.is_empty(), "{name}, first {is_first}: {wrong:#?}");
        }
    }
}

#[test]
fn responder_encrypts_as_the_recorded_one_did_and_reads_what_was_encrypted() {
    let (facts, session) = (expected(ENCRYPTED), session_of(ENCRYPTED));
    // The first end is the responder: it takes the recorded initiator's keys, and the same keys
    // make the same bytes.
    let played = play(ENCRYPTED, &session, true);
    let of = |kind: &Kind| match kind {
        Kind::Data(d) if !d.retransmitted => Some((d.sequence, d.key, d.payload.clone())),
        _ => None,
    };
    let ours: Vec<_> = played
        .side
        .sent
        .iter()
        .filter_map(|s| of(&s.packet.kind))
        .collect();
    let recorded: Vec<_> = session
        .data(true)
        .filter_map(|(e, _)| of(&e.packet.kind))
        .collect();
    assert_eq!(ours.len(), 40);
    assert!(ours == recorded, "the bytes on the wire");
    // The same data coming from the initiator, whose first number is theirs then.
    let mut turned = session.clone();
    for event in &mut turned.events {
        match &event.packet.kind {
            Kind::Handshake(_) if !event.from_caller => {
                event.frame.datagram[24..28].copy_from_slice(&session.initial.to_be_bytes());
                event.packet = wire::parse(&event.frame.datagram).expect("still a handshake");
            }
            Kind::Handshake(_) => {}
            _ => event.from_caller ^= true,
        }
    }
    let played = play(ENCRYPTED, &turned, true);
    let mut report = Report::default();
    check::payload(&mut report, &flow(&facts, &session), &played.side.delivered);
    assert!(report.differences.is_empty(), "{:#?}", report.differences);
}

#[test]
fn different_passphrases_end_as_recorded_in_silence() {
    let session = session_of(BAD_SECRET);
    let bad = CloseReason::Rejected(RejectionCode::BADSECRET);
    for (is_first, reason) in [(true, CloseReason::Unconcluded), (false, bad)] {
        let played = play(BAD_SECRET, &session, is_first);
        let mut report = Report::default();
        compare_handshakes(&mut report, &session, is_first, &played);
        assert!(report.differences.is_empty(), "{:#?}", report.differences);
        let only = |s: &crate::side::Sent| matches!(s.packet.kind, Kind::Handshake(_));
        assert!(played.side.sent.iter().all(only), "nothing but handshakes");
        let (at_us, event) = played.side.events[0];
        assert_eq!(event, Event::Closed(reason), "first {is_first}");
        assert_eq!(played.side.events.len(), 1);
        // Ten times the 400 ms that both were given; the reason that is known needs no longer.
        let begun = if is_first { 0 } else { 395_095 };
        let took = at_us - begun;
        let expected = if is_first {
            4_000_000
        } else {
            10_732 + 400_000
        };
        assert!(took.abs_diff(expected) < 1_000, "{took}");
    }
}

#[test]
fn our_listener_does_not_answer_rendezvous() {
    for name in CAPTURES {
        let mut handshaker = Handshaker::new(Config::default(), [3; 16]);
        let mut greetings = 0;
        for frame in read(name).frames {
            let now = moment(frame.at_us);
            let mut out = [0; 1500];
            let packet = wire::parse(&frame.datagram).expect("SRT");
            if packet.destination != 0 || !matches!(packet.kind, Kind::Handshake(_)) {
                continue;
            }
            greetings += 1;
            let answer = handshaker.handle_datagram(now, frame.from, &frame.datagram, &mut out);
            assert_eq!(answer.unwrap_err(), Discard::MalformedHandshake, "{name}");
        }
        assert!(greetings >= 2, "{name}");
    }
}

#[test]
fn our_caller_takes_no_rendezvous_peer_for_a_listener() {
    for name in CAPTURES {
        let session = session_of(name);
        let begin = moment(0);
        let config = Config::default();
        let mut ring = SlotRing::with_owned_chunks(8);
        let peer: SocketAddr = session.listener;
        let mut caller = Connection::connect(
            begin,
            peer,
            session.caller_id,
            PacketSequenceNumber::new(session.initial),
            "",
            &config,
            FIRST_INDEX,
            None,
        );
        for event in session.events.iter().filter(|e| !e.from_caller) {
            let now = moment(event.frame.at_us);
            // Whatever it is, it makes no connection.
            let _ = caller.handle_datagram(now, now, &event.frame.datagram, &mut ring);
            let event = caller.poll_event();
            assert!(
                matches!(event, None | Some(Event::Closed(CloseReason::PeerShutdown))),
                "{name}: {event:?}"
            );
        }
        caller.handle_timeout(begin + config.connect_timeout, &mut ring);
        let end = Some(Event::Closed(CloseReason::ConnectTimeout));
        assert_eq!(caller.poll_event(), end, "{name}");
    }
}
