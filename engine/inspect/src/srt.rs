//! SRT conversations in a capture, both directions. What was said is read off the datagrams
//! ([`mirror_srt::observe`]); what a receiver makes of it is shown by a follower for each
//! direction that carries data: one of our connections that is fed with what the sender sent, at
//! its times. The follower is let in by our own listener, from a stand-in for the sender with its
//! first sequence number, clock, latency and keys; what it sends goes nowhere. It keeps no
//! appointments with the recorded receiver, whose ACKs and NAKs are only counted.

mod direction;

use core::net::SocketAddr;
use std::collections::BTreeMap;

use mirror_base::Instant;
use mirror_srt::observe::{
    Block, Greeting, Observed, ObservedHandshake, ObservedKind, Stage, encryption_of,
    is_gcm_since_154, observe,
};
use mirror_srt::{Cipher, RejectionCode, shown_stream_id};

use crate::Options;
use crate::capture::link::Datagram;
use crate::network::{Moment, micros};
use crate::report::listed::Room;
use crate::report::{ExtensionFacts, HandshakeFacts, Outcome, Report, Spoken, SrtFacts};
use direction::{Direction, Sender};

/// Longest stream ID (spec section 4.2).
const MAX_STREAM_ID: usize = 512;
/// Conversations that are followed.
const MAX_CONVERSATIONS: usize = 1024;
/// Handshakes, extensions and goodbyes of a conversation that are kept.
const MAX_SAID: usize = 32;
/// Bytes of blocks behind a handshake that are kept: what a datagram of 1500 bytes has.
const MAX_ATTACHED: usize = 1500;

/// What was said in a conversation, besides data and what answers it.
#[derive(Debug, Default)]
struct Said {
    /// Packets by type, from the caller and from the listener.
    packets: [BTreeMap<&'static str, u64>; 2],
    handshakes: Vec<HandshakeFacts>,
    extensions: Vec<ExtensionFacts>,
    shutdowns: Vec<Spoken>,
}

impl Said {
    fn take(&mut self, seen: &Observed, spoken: Spoken) {
        let side = usize::from(!spoken.from_caller);
        if let Some(counts) = self.packets.get_mut(side) {
            *counts.entry(seen.name()).or_default() += 1;
        }
        match &seen.kind {
            ObservedKind::Handshake(handshake) if self.handshakes.len() < MAX_SAID => {
                let mut handshake = handshake.as_ref().clone();
                handshake.attached.truncate(MAX_ATTACHED);
                self.handshakes.push(HandshakeFacts {
                    spoken,
                    timestamp: seen.timestamp,
                    destination: seen.destination,
                    information: seen.information,
                    handshake,
                });
            }
            ObservedKind::Extension { kind, content } if self.extensions.len() < MAX_SAID => {
                self.extensions.push(ExtensionFacts {
                    spoken,
                    block: Block::parse(*kind, content),
                });
            }
            ObservedKind::Shutdown if self.shutdowns.len() < MAX_SAID => {
                self.shutdowns.push(spoken);
            }
            _ => {}
        }
    }
}

/// One caller's socket at one listener.
struct Conversation {
    caller: SocketAddr,
    listener: SocketAddr,
    caller_id: u32,
    listener_id: Option<u32>,
    is_rendezvous: bool,
    stream_id: Option<Vec<u8>>,
    group_id: Option<u32>,
    request: Option<Greeting>,
    response: Option<Greeting>,
    /// The KMREQ of the conclusion, or the first one in a packet of its own.
    key_request: Option<Vec<u8>>,
    outcome: Outcome,
    said: Said,
    /// Of the caller, and of the listener.
    senders: [Sender; 2],
    directions: [Direction; 2],
}

/// All of them.
pub(crate) struct Conversations<'o> {
    options: &'o Options,
    all: Vec<Conversation>,
    /// Where the last datagram went.
    last: usize,
    refused: u64,
    room: Room,
}

impl Conversation {
    fn new(datagram: &Datagram<'_>, handshake: &ObservedHandshake) -> Self {
        Conversation {
            caller: datagram.from,
            listener: datagram.to,
            caller_id: handshake.socket_id,
            listener_id: None,
            is_rendezvous: handshake.stage == Stage::Rendezvous,
            stream_id: None,
            group_id: None,
            request: None,
            response: None,
            key_request: None,
            outcome: Outcome::Timeout,
            said: Said::default(),
            senders: [Sender::default(); 2],
            directions: [Direction::default(), Direction::default()],
        }
    }

    /// Whether the datagram is of it, and then whether it comes from the caller.
    fn owns(&self, datagram: &Datagram<'_>, seen: &Observed) -> Option<bool> {
        let socket_id = match &seen.kind {
            ObservedKind::Handshake(handshake) => Some(handshake.socket_id),
            _ => None,
        };
        if (datagram.from, datagram.to) == (self.caller, self.listener) {
            let is_ours = match socket_id {
                Some(id) => id == self.caller_id,
                None => self.listener_id.is_none_or(|id| id == seen.destination),
            };
            return is_ours.then_some(true);
        }
        if (datagram.from, datagram.to) != (self.listener, self.caller) {
            return None;
        }
        // A SHUTDOWN in place of a rejection (libsrt before 1.3) has no destination.
        let greets = self.is_rendezvous && socket_id.is_some();
        let is_blunt = matches!(seen.kind, ObservedKind::Shutdown) && self.listener_id.is_none();
        let is_ours =
            seen.destination == self.caller_id || seen.destination == 0 && (greets || is_blunt);
        is_ours.then_some(false)
    }

    fn handshake(
        &mut self,
        now: Instant,
        seen: &Observed,
        handshake: &ObservedHandshake,
        from_caller: bool,
    ) {
        let concluded = match handshake.stage {
            Stage::Conclusion => true,
            Stage::Rendezvous => self.is_rendezvous,
            Stage::Rejected(code) if !from_caller || self.is_rendezvous => {
                self.outcome = Outcome::Rejected(Some(code));
                return;
            }
            _ => return,
        };
        if !from_caller {
            self.listener_id = Some(handshake.socket_id);
            if handshake.stage == Stage::Conclusion && !self.is_rendezvous {
                self.outcome = Outcome::Connected;
            }
        }
        if concluded && let Some(sender) = self.senders.get_mut(usize::from(!from_caller)) {
            sender.initial = Some(handshake.initial_sequence);
            sender.clock = Some((seen.timestamp, now));
        }
        if self.is_rendezvous && handshake.response.is_some() {
            self.outcome = Outcome::Connected;
        }
        self.request = self.request.or(handshake.request);
        self.response = self.response.or(handshake.response);
        self.group_id = self.group_id.or(handshake.group_id);
        if self.stream_id.is_none() {
            self.stream_id.clone_from(&handshake.stream_id);
        }
        if self.key_request.is_none() {
            self.key_request.clone_from(&handshake.key_request);
        }
    }

    /// What the sender of that direction says of itself and its receiver's latency.
    fn sender(&self, from_caller: bool) -> Sender {
        let [caller, listener] = self.senders;
        let mut sender = if from_caller { caller } else { listener };
        let latency = match (self.response, self.request) {
            (Some(answer), _) if from_caller => answer.receive_ms,
            (Some(answer), _) => answer.send_ms,
            (None, Some(asked)) if from_caller => asked.send_ms,
            (None, Some(asked)) => asked.receive_ms,
            (None, None) => 0,
        };
        // Before SRT 1.3 there is one latency, in the lower half.
        let version_4 = self
            .response
            .filter(|r| r.receive_ms == 0)
            .map(|r| r.send_ms);
        sender.latency_ms = Some(latency).filter(|l| *l > 0).or(version_4);
        let versions = [self.request, self.response].into_iter().flatten();
        sender.version = versions.map(|g| g.version).min();
        // A member of a group begins where the group is.
        if self.group_id.is_some() {
            sender.initial = None;
        }
        sender
    }

    fn take(
        &mut self,
        Moment { now, packet }: Moment,
        options: &Options,
        datagram: &Datagram<'_>,
        seen: &Observed,
        from_caller: bool,
        room: &mut Room,
    ) {
        let spoken = Spoken {
            packet,
            at_us: micros(now),
            from_caller,
        };
        self.said.take(seen, spoken);
        match &seen.kind {
            ObservedKind::Handshake(handshake) => {
                self.handshake(now, seen, handshake, from_caller);
            }
            ObservedKind::Extension {
                kind: kind @ (1 | 2),
                content,
            } => {
                let place = match kind {
                    1 => &mut self.request,
                    _ => &mut self.response,
                };
                *place = place.or_else(|| Greeting::parse(content));
            }
            ObservedKind::Shutdown if self.outcome == Outcome::Timeout && !from_caller => {
                self.outcome = Outcome::Rejected(None);
            }
            _ => {}
        }
        let sender = self.sender(from_caller);
        let [forth, back] = &mut self.directions;
        let (own, other) = if from_caller {
            (forth, back)
        } else {
            (back, forth)
        };
        match &seen.kind {
            ObservedKind::Ack(ack) => other.ack(spoken, seen.information, ack, options, room),
            ObservedKind::Nak(nak) => other.nak(spoken, nak, options, room),
            ObservedKind::Data { .. } => {
                self.outcome = Outcome::Connected;
                let keys = self.key_request.as_deref();
                own.data(now, datagram, seen, &sender, keys, options);
            }
            ObservedKind::Extension {
                kind: 3,
                content: request,
            } => match &self.key_request {
                Some(first) if first != request => own.key_request(now, datagram.payload, request),
                Some(_) => {}
                None => self.key_request = Some(request.clone()),
            },
            ObservedKind::Keepalive | ObservedKind::DropRequest | ObservedKind::Shutdown => {
                own.feed(now, datagram.payload);
            }
            _ => {}
        }
    }

    fn facts(&mut self) -> SrtFacts {
        let said = core::mem::take(&mut self.said);
        let least = self.sender(true).version;
        let material = self.key_request.as_deref().and_then(encryption_of);
        let gcm = material.is_some_and(|(cipher, _)| cipher == Cipher::Gcm);
        let encryption = match self.key_request.as_deref().map(encryption_of) {
            None => "none".to_owned(),
            Some(None) => "unknown".to_owned(),
            Some(Some((cipher, length))) => {
                let mode = match cipher {
                    Cipher::Ctr => "ctr",
                    Cipher::Gcm => "gcm",
                };
                format!("aes-{mode}-{}", 8 * length.bytes())
            }
        };
        let [caller, listener] = [true, false].map(|from| self.sender(from).latency_ms);
        let version = |g: Option<Greeting>| g.map(|g| g.version);
        SrtFacts {
            caller: self.caller,
            listener: self.listener,
            is_rendezvous: self.is_rendezvous,
            version: version(self.request),
            listener_version: version(self.response),
            stream_id: self
                .stream_id
                .as_deref()
                .map(|id| shown_stream_id(id, MAX_STREAM_ID)),
            latency_ms: [caller, listener],
            encryption,
            gcm_since_154: least.filter(|_| gcm).map(is_gcm_since_154),
            outcome: self.outcome,
            group_id: self.group_id,
            packets: said.packets,
            handshakes: said.handshakes,
            extensions: said.extensions,
            shutdowns: said.shutdowns,
            directions: self.directions.each_mut().map(Direction::facts),
        }
    }
}

impl<'o> Conversations<'o> {
    pub(crate) const fn new(options: &'o Options) -> Self {
        Conversations {
            options,
            all: Vec::new(),
            last: 0,
            refused: 0,
            room: Room::FULL,
        }
    }

    /// A datagram; `false` if it is of no conversation.
    pub(crate) fn take(&mut self, moment: Moment, datagram: &Datagram<'_>) -> bool {
        let first = datagram.payload.first_chunk::<4>();
        let is_handshake = first == Some(&[0x80, 0, 0, 0]);
        if self.all.is_empty() && !is_handshake {
            return false;
        }
        let Some(seen) = observe(datagram.payload) else {
            return false;
        };
        let of = |c: &Conversation| c.owns(datagram, &seen);
        let likely = self.all.get(self.last).and_then(of);
        let found = match likely {
            Some(from_caller) => Some((self.last, from_caller)),
            None => {
                let mut places = self.all.iter().enumerate();
                places.find_map(|(n, c)| Some((n, of(c)?)))
            }
        };
        let (index, from_caller) = match (found, &seen.kind) {
            (Some(found), _) => found,
            (None, ObservedKind::Handshake(handshake)) => {
                if !matches!(handshake.version, 4 | 5) || matches!(handshake.stage, Stage::Other(_))
                {
                    return false;
                }
                if self.all.len() >= MAX_CONVERSATIONS {
                    self.refused += 1;
                    return true;
                }
                self.all.push(Conversation::new(datagram, handshake));
                (self.all.len() - 1, true)
            }
            (None, _) => return false,
        };
        self.last = index;
        if let Some(conversation) = self.all.get_mut(index) {
            let room = &mut self.room;
            conversation.take(moment, self.options, datagram, &seen, from_caller, room);
        }
        true
    }

    /// Runs the followers' timers.
    pub(crate) fn advance(&mut self, now: Instant) {
        for conversation in &mut self.all {
            for direction in &mut conversation.directions {
                direction.advance(now);
            }
        }
    }

    /// The capture has ended.
    pub(crate) fn finish(&mut self, now: Instant, report: &mut Report) {
        for conversation in &mut self.all {
            for direction in &mut conversation.directions {
                direction.finish(now, report.srt.len(), report);
            }
            let facts = conversation.facts();
            if let Outcome::Rejected(Some(code)) = facts.outcome
                && code == RejectionCode::UNKNOWN
                && facts.directions.iter().any(|d| d.data_packets > 0)
            {
                report.error("data was sent on a connection that was rejected");
            }
            for text in conversation
                .directions
                .iter_mut()
                .filter_map(Direction::complaint)
            {
                report.error(text);
            }
            report.srt.push(facts);
        }
        if self.refused > 0 {
            let more = self.refused;
            report.error(format!(
                "{more} handshakes of more connections than are followed"
            ));
        }
    }
}
