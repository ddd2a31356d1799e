//! The two ways to replay a session: we in the place of the recorded listener, and we in the
//! place of the recorded caller. The recorded peer does not know us, so what it got from the
//! other recorded end is translated on the fly: the listener's cookie, and the wrapped keys that
//! a listener echoes. Socket IDs and the initial sequence number we take over.

use core::net::SocketAddr;

use mirror_base::{Discard, Instant, PacketSequenceNumber};
use mirror_srt::{ConnectRequest, Connection, HandshakeAction, Handshaker, RejectionCode};
use mirror_tests::capture::pcap::Frame;
use mirror_tests::capture::session::{self, Session};
use mirror_tests::capture::wire::{self, Handshake, Kind, block, handshake_type};

use crate::setup::Setup;
use crate::side::{FIRST_INDEX, Sent, Side, moment};

/// Our socket ID where the recorded listener had none.
const OWN_ID: u32 = 0x0102_0304;

/// How a session went with us in it.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) side: Side,
    /// As listener: the request as we understood it.
    pub(crate) request: Option<Box<ConnectRequest>>,
    /// As listener: what we rejected it with.
    pub(crate) rejected: Option<RejectionCode>,
    /// As listener: our answers to inductions.
    pub(crate) inductions: Vec<Handshake>,
    /// As listener: handshakes that got no answer.
    pub(crate) unanswered: Vec<Discard>,
}

impl Played {
    pub(crate) fn new(side: Side) -> Self {
        Played {
            side,
            request: None,
            rejected: None,
            inductions: Vec::new(),
            unanswered: Vec::new(),
        }
    }
}

/// Where blocks of the handshake that ask for more than a plain connection are taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocks {
    All,
    Plain,
}

fn is_left_out(kind: &Kind, blocks: Blocks) -> bool {
    matches!(kind, Kind::Data(data) if blocks == Blocks::Plain && data.message == 0)
}

/// The handshake without FILTER and GROUP.
fn plain(datagram: &[u8], handshake: &Handshake) -> Vec<u8> {
    let mut out = datagram[..64].to_vec();
    for (kind, content) in &handshake.blocks {
        if matches!(*kind, block::FILTER | block::GROUP) {
            continue;
        }
        out.extend(kind.to_be_bytes());
        out.extend((content.len() as u16 / 4).to_be_bytes());
        out.extend(content);
    }
    out
}

struct Listener<'a> {
    played: Played,
    handshaker: Handshaker,
    setup: &'a Setup,
    peer: SocketAddr,
    own_id: u32,
    cookie: u32,
}

/// We are the listener.
pub(crate) fn as_listener(
    session: &Session,
    setup: &Setup,
    blocks: Blocks,
    payloads: Vec<Vec<u8>>,
) -> Played {
    let own_id = session.listener_id.unwrap_or(OWN_ID);
    let side = Side::new(session, false, own_id, payloads);
    let mut listener = Listener {
        played: Played::new(side),
        handshaker: Handshaker::new(setup.config.clone(), [3; 16]),
        setup,
        peer: session.caller,
        own_id,
        cookie: 0,
    };
    for event in &session.events {
        let now = moment(event.frame.at_us);
        listener.played.side.advance(now);
        if !event.from_caller {
            listener.played.side.act(event, session.initial);
        } else if let Kind::Handshake(handshake) = &event.packet.kind {
            let datagram = match blocks {
                Blocks::Plain => plain(&event.frame.datagram, handshake),
                Blocks::All => event.frame.datagram.clone(),
            };
            listener.handshake(now, handshake, datagram);
        } else if !is_left_out(&event.packet.kind, blocks) {
            listener.played.side.feed(event, &event.frame.datagram);
        }
    }
    if let Some(last) = session.events.last() {
        listener.played.side.finish(last);
    }
    listener.played
}

impl Listener<'_> {
    fn handshake(&mut self, now: Instant, handshake: &Handshake, mut datagram: Vec<u8>) {
        if handshake.kind == handshake_type::CONCLUSION {
            datagram[44..48].copy_from_slice(&self.cookie.to_be_bytes());
        }
        let mut out = [0; 1500];
        let action = self
            .handshaker
            .handle_datagram(now, self.peer, &datagram, &mut out);
        match action {
            Err(reason) => self.played.unanswered.push(reason),
            Ok(HandshakeAction::Reply(len)) => self.reply(&out[..len]),
            Ok(HandshakeAction::Conclude(request)) => self.conclude(now, request),
        }
        self.played.side.drain(now);
    }

    fn reply(&mut self, datagram: &[u8]) {
        let packet = wire::parse(datagram).expect("we send well-formed packets");
        let Kind::Handshake(handshake) = packet.kind else {
            panic!("a handshake is answered by a handshake")
        };
        if let Some(code) = handshake.rejection() {
            self.played.rejected = Some(RejectionCode(code));
        } else {
            self.cookie = handshake.cookie;
            self.played.inductions.push(*handshake);
        }
    }

    fn conclude(&mut self, now: Instant, request: Box<ConnectRequest>) {
        if let Some(known) = &self.played.request {
            assert_eq!(known.key(), request.key(), "one caller, one request");
            if let Some(connection) = &mut self.played.side.connection {
                connection.handle_repeated_conclusion(now);
            }
            return;
        }
        let decision = self.setup.authorise(&request).and_then(|security| {
            let config = &self.setup.config;
            Connection::accept(now, &request, self.own_id, config, FIRST_INDEX, security)
        });
        match decision {
            Ok(connection) => self.played.side.connection = Some(connection),
            Err(code) => {
                let mut out = [0; 1500];
                let len = request.reject(now, code, &mut out);
                self.reply(&out[..len]);
            }
        }
        self.played.request = Some(request);
    }
}

/// We are the caller.
pub(crate) fn as_caller(
    session: &Session,
    setup: &Setup,
    blocks: Blocks,
    payloads: Vec<Vec<u8>>,
) -> Played {
    let side = Side::new(session, true, session.caller_id, payloads);
    let mut played = Played::new(side);
    let stream_id = session.conclusion().and_then(|h| h.text(block::SID));
    let begin = session.events.first().map_or(0, |e| e.frame.at_us);
    played.side.connection = Some(Connection::connect(
        moment(begin),
        session.listener,
        session.caller_id,
        PacketSequenceNumber::new(session.initial),
        stream_id.as_deref().unwrap_or_default(),
        &setup.config,
        FIRST_INDEX,
        setup.caller_security(),
    ));
    played.side.drain(moment(begin));
    for event in &session.events {
        let now = moment(event.frame.at_us);
        played.side.advance(now);
        if event.from_caller {
            played.side.act(event, session.initial);
        } else if !is_left_out(&event.packet.kind, blocks) {
            let datagram = translate(session, event, &played.side, blocks);
            played.side.feed(event, &datagram);
        }
    }
    if let Some(last) = session.events.last() {
        played.side.finish(last);
    }
    played
}

/// What the recorded listener would have sent to us instead of the recorded caller: our wrapped
/// keys where it echoes the caller's.
fn translate(session: &Session, event: &session::Event, side: &Side, blocks: Blocks) -> Vec<u8> {
    let datagram = match &event.packet.kind {
        Kind::Handshake(h) if blocks == Blocks::Plain => plain(&event.frame.datagram, h),
        _ => event.frame.datagram.clone(),
    };
    let ours = side.sent.iter().rev().find_map(|s| match &s.packet.kind {
        Kind::Handshake(h) => h.block(block::KMREQ),
        _ => None,
    });
    match (session.key_material(), ours) {
        (Some(theirs), Some(ours)) if theirs.len() == ours.len() => {
            replaced(&datagram, theirs, ours)
        }
        _ => datagram,
    }
}

pub(crate) fn replaced(datagram: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = datagram.to_vec();
    if let Some(at) = datagram.windows(from.len()).position(|w| w == from) {
        out[at..at + from.len()].copy_from_slice(to);
    }
    out
}

/// The session that our caller made, as a capture at the listener would have shown it.
pub(crate) fn session_of(session: &Session, played: &Played) -> Session {
    let event = |(index, sent): (usize, &Sent)| session::Event {
        frame: Frame {
            number: index + 1,
            at_us: sent.at_us,
            from: session.caller,
            to: session.listener,
            datagram: sent.datagram.clone(),
        },
        packet: sent.packet.clone(),
        from_caller: true,
    };
    let events = played.side.sent.iter().enumerate().map(event).collect();
    Session {
        events,
        ..session.clone()
    }
}

/// The session with another SRT version in the caller's conclusions.
pub(crate) fn with_version(session: &Session, version: u32) -> Session {
    let mut session = session.clone();
    for event in &mut session.events {
        if let Kind::Handshake(h) = &event.packet.kind
            && let Some(hs) = h.block(block::HSREQ)
        {
            let mut changed = hs.to_vec();
            changed[..4].copy_from_slice(&version.to_be_bytes());
            let datagram = replaced(&event.frame.datagram, hs, &changed);
            event.packet = wire::parse(&datagram).expect("still a handshake");
            event.frame.datagram = datagram;
        }
    }
    session
}

/// The session with all data going the other way: what its listener sent, our listener receives.
/// Both directions use the caller's keys.
pub(crate) fn turned(session: &Session) -> Session {
    let mut session = session.clone();
    for event in &mut session.events {
        event.from_caller ^= !matches!(event.packet.kind, Kind::Handshake(_));
    }
    session
}
