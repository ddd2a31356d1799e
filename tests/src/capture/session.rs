//! Which datagrams of a capture belong together: one session is one caller's socket at one
//! listener, known by the caller's address and socket ID. Rendezvous has no caller: such
//! datagrams make no session.

use std::net::SocketAddr;

use super::pcap::Frame;
use super::wire::{self, Handshake, Kind, Packet, block, handshake_type};

/// A decoded datagram.
#[derive(Clone, Debug)]
pub struct Event {
    /// The datagram.
    pub frame: Frame,
    /// What it says.
    pub packet: Packet,
    /// From the caller; else from the listener.
    pub from_caller: bool,
}

/// One caller's socket at one listener.
#[derive(Clone, Debug)]
pub struct Session {
    /// The caller's address.
    pub caller: SocketAddr,
    /// The listener's.
    pub listener: SocketAddr,
    /// The caller's socket ID.
    pub caller_id: u32,
    /// The listener's, once it accepted.
    pub listener_id: Option<u32>,
    /// Initial sequence number of both directions.
    pub initial: u32,
    /// Its datagrams, in their order.
    pub events: Vec<Event>,
}

impl Session {
    fn new(frame: &Frame, first: &Handshake) -> Self {
        Session {
            caller: frame.from,
            listener: frame.to,
            caller_id: first.socket_id,
            listener_id: None,
            initial: first.initial,
            events: Vec::new(),
        }
    }

    /// Handshakes of one side, in order.
    pub fn handshakes(&self, from_caller: bool) -> impl Iterator<Item = &Handshake> {
        self.events
            .iter()
            .filter(move |e| e.from_caller == from_caller)
            .filter_map(|e| match &e.packet.kind {
                Kind::Handshake(handshake) => Some(&**handshake),
                _ => None,
            })
    }

    /// The caller's first conclusion.
    pub fn conclusion(&self) -> Option<&Handshake> {
        self.handshakes(true)
            .find(|h| h.kind == handshake_type::CONCLUSION)
    }

    /// The listener's answer to it: acceptance or rejection.
    pub fn answer(&self) -> Option<&Handshake> {
        self.handshakes(false)
            .find(|h| h.kind == handshake_type::CONCLUSION || h.rejection().is_some())
    }

    /// Whether the listener accepted.
    pub fn is_accepted(&self) -> bool {
        self.answer()
            .is_some_and(|h| h.kind == handshake_type::CONCLUSION)
    }

    /// How the facts name the direction.
    pub fn flow(&self, from_caller: bool) -> String {
        if from_caller {
            format!("{}>{}", self.caller, self.listener)
        } else {
            format!("{}>{}", self.listener, self.caller)
        }
    }

    /// Data packets of one direction, those of a packet filter left out.
    pub fn data(&self, from_caller: bool) -> impl Iterator<Item = (&Event, &wire::Data)> {
        self.events
            .iter()
            .filter(move |e| e.from_caller == from_caller)
            .filter_map(|e| match &e.packet.kind {
                Kind::Data(data) if data.message != 0 => Some((e, data)),
                _ => None,
            })
    }

    /// Whether blocks of a conclusion ask for more than a plain connection.
    pub fn asks_for(&self, kind: u16) -> bool {
        self.conclusion().is_some_and(|h| h.block(kind).is_some())
    }

    /// Whether the handshake is version 4 (libsrt before 1.3).
    pub fn is_version_4(&self) -> bool {
        self.conclusion().is_some_and(|h| h.version == 4)
            || self.handshakes(false).any(|h| h.version == 4)
    }

    /// Wrapped keys that the caller sent in its conclusion.
    pub fn key_material(&self) -> Option<&[u8]> {
        self.conclusion()?.block(block::KMREQ)
    }
}

/// The sessions in a capture, in order of their first induction. What belongs to none is left
/// out.
pub fn sessions(frames: &[Frame]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for frame in frames {
        let Some(packet) = wire::parse(&frame.datagram) else {
            continue;
        };
        if let Kind::Handshake(handshake) = &packet.kind
            && handshake.kind == handshake_type::INDUCTION
            && packet.destination == 0
            && !sessions.iter().any(|s| is_of_caller(s, frame, handshake))
        {
            sessions.push(Session::new(frame, handshake));
        }
        let Some((session, from_caller)) = place(&mut sessions, frame, &packet) else {
            continue;
        };
        if let Kind::Handshake(handshake) = &packet.kind
            && handshake.kind == handshake_type::CONCLUSION
            && !from_caller
        {
            session.listener_id = Some(handshake.socket_id);
        }
        session.events.push(Event {
            frame: frame.clone(),
            packet,
            from_caller,
        });
    }
    sessions
}

fn is_of_caller(session: &Session, frame: &Frame, handshake: &Handshake) -> bool {
    session.caller == frame.from && session.caller_id == handshake.socket_id
}

fn place<'a>(
    sessions: &'a mut [Session],
    frame: &Frame,
    packet: &Packet,
) -> Option<(&'a mut Session, bool)> {
    let forth = |s: &Session| {
        let is_theirs = match &packet.kind {
            Kind::Handshake(handshake) => handshake.socket_id == s.caller_id,
            _ => s.listener_id == Some(packet.destination),
        };
        s.caller == frame.from && s.listener == frame.to && is_theirs
    };
    let back = |s: &Session| {
        s.listener == frame.from && s.caller == frame.to && packet.destination == s.caller_id
    };
    let at = sessions.iter().position(|s| forth(s) || back(s))?;
    let from_caller = sessions[at].caller == frame.from;
    Some((&mut sessions[at], from_caller))
}
