//! One of our connections in the place of a recorded end: fed with the recorded peer's
//! datagrams at their times, sending what the recorded end sent when it sent it, its timers run
//! in between.
//!
//! Its ACKs are not numbered as the recorded ones were, nor sent at the same moments, and its keys
//! are other ones: so the recorded ACKACKs and KMRSPs are left out and made anew, one recorded
//! round trip behind each ACK and KMREQ.

use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::{Discard, Instant, SlotRing};
use mirror_srt::{Connection, Event, SendError};
use mirror_tests::capture::session::{self, Session};
use mirror_tests::capture::wire::{self, Kind, Packet, block};

/// When the capture's first frame was, on our clock.
const START_US: u64 = 100_000_000;
/// Room for everything that a connection holds at once in any capture.
const CHUNKS: usize = 100;
/// Slot indexes begin here.
pub(crate) const FIRST_INDEX: u64 = 500;
/// How long timers run behind the last frame: longer than any timeout.
const AFTERMATH: Duration = Duration::from_secs(10);

/// The moment of a frame.
pub(crate) fn moment(at_us: u64) -> Instant {
    Instant::from_micros(START_US + at_us)
}

/// What our end put on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at_us: u64,
    pub(crate) packet: Packet,
    pub(crate) datagram: Vec<u8>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) connection: Option<Connection>,
    pub(crate) ring: SlotRing,
    pub(crate) sent: Vec<Sent>,
    pub(crate) delivered: Vec<u8>,
    pub(crate) lost_before: u64,
    pub(crate) late_us: u64,
    pub(crate) events: Vec<(u64, Event)>,
    /// Frames that were not used, by number.
    pub(crate) discards: Vec<(usize, Discard)>,
    pub(crate) refused_sends: Vec<SendError>,
    payloads: VecDeque<Vec<u8>>,
    submitted: usize,
    answers: VecDeque<(Instant, Vec<u8>)>,
    own_id: u32,
    round_trip: Duration,
    /// The peer's clock at its last datagram, and when that came.
    peer_clock: (u32, u64),
    /// The peer is silent afterwards.
    peer_until_us: u64,
    /// Our time only goes forward, whatever is overdue.
    now: Instant,
}

impl Side {
    /// In the place of the caller (`is_caller`) or of the listener; `payloads` in order.
    pub(crate) fn new(
        session: &Session,
        is_caller: bool,
        own_id: u32,
        payloads: Vec<Vec<u8>>,
    ) -> Self {
        let of_peer = |e: &&session::Event| e.from_caller != is_caller;
        let last = session.events.iter().rfind(of_peer);
        Side {
            connection: None,
            ring: SlotRing::with_owned_chunks(CHUNKS),
            sent: Vec::new(),
            delivered: Vec::new(),
            lost_before: 0,
            late_us: 0,
            events: Vec::new(),
            discards: Vec::new(),
            refused_sends: Vec::new(),
            payloads: payloads.into(),
            submitted: 0,
            answers: VecDeque::new(),
            own_id,
            round_trip: round_trip(session, is_caller),
            peer_clock: (0, 0),
            peer_until_us: last.map_or(0, |e| e.frame.at_us),
            now: moment(0),
        }
    }

    /// What the peer answers at once to `packet`, which our end sends.
    fn expect_answer(&mut self, now: Instant, packet: &Packet) {
        let at = now + self.round_trip;
        let (clock, seen_us) = self.peer_clock;
        let at_us = at.as_micros() - START_US;
        let (word0, content): (u32, &[u8]) = match &packet.kind {
            Kind::Ack(words) if words.len() > 1 => (0x8006_0000, &[0; 4]),
            Kind::Extension(block::KMREQ, content) => (0xFFFF_0004, content),
            _ => return,
        };
        if at_us > self.peer_until_us {
            return;
        }
        let timestamp = clock.wrapping_add((at_us - seen_us) as u32);
        let header = [word0, packet.info, timestamp, self.own_id];
        let mut datagram: Vec<u8> = header.iter().flat_map(|w| w.to_be_bytes()).collect();
        datagram.extend(content);
        self.answers.push_back((at, datagram));
    }

    /// Takes out of the connection what is due.
    pub(crate) fn drain(&mut self, now: Instant) {
        let mut out = [0; 1500];
        while let Some(len) = self
            .connection
            .as_mut()
            .and_then(|c| c.poll_transmit(now, &mut out))
        {
            let packet = wire::parse(&out[..len]).expect("we send well-formed packets");
            self.expect_answer(now, &packet);
            self.sent.push(Sent {
                at_us: now.as_micros() - START_US,
                packet,
                datagram: out[..len].to_vec(),
            });
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        while let Some(delivery) = connection.poll_delivery(now, &self.ring) {
            self.late_us = self.late_us.max(now.micros_since(delivery.due));
            self.lost_before += u64::from(delivery.lost_before);
            let slot = self.ring.get(delivery.slot).expect("delivered from a slot");
            self.delivered.extend(slot.payload);
        }
        self.ring.release_before(connection.delivery_index());
        while let Some(event) = connection.poll_event() {
            self.events.push((now.as_micros() - START_US, event));
        }
    }

    /// Runs timers and the peer's answers until `until`.
    pub(crate) fn advance(&mut self, until: Instant) {
        for _ in 0..1_000_000 {
            let Some(connection) = &mut self.connection else {
                return;
            };
            let due = connection.poll_timeout().filter(|due| *due <= until);
            let due = due.map(|due| due.max(self.now));
            let answer = self.answers.front().map(|a| a.0).filter(|at| *at <= until);
            self.now = answer.into_iter().chain(due).min().unwrap_or(until);
            match (answer, due) {
                (Some(at), due) if due.is_none_or(|due| at <= due) => {
                    let (at, datagram) = self.answers.pop_front().expect("it has a front");
                    let _ = connection.handle_datagram(at, at, &datagram, &mut self.ring);
                    self.drain(at);
                }
                (_, Some(due)) => {
                    connection.handle_timeout(due, &mut self.ring);
                    self.drain(due);
                }
                _ => return,
            }
        }
        panic!("timers that make no progress");
    }

    /// A datagram of the recorded peer, as the translation left it.
    pub(crate) fn feed(&mut self, event: &session::Event, datagram: &[u8]) {
        let now = moment(event.frame.at_us);
        self.peer_clock = (event.packet.timestamp, event.frame.at_us);
        if matches!(
            event.packet.kind,
            Kind::AckAck | Kind::Extension(block::KMRSP, _)
        ) {
            return;
        }
        if let Some(connection) = &mut self.connection
            && let Err(reason) = connection.handle_datagram(now, now, datagram, &mut self.ring)
        {
            self.discards.push((event.frame.number, reason));
        }
        self.drain(now);
    }

    /// What the recorded end in whose place we are sent: we submit the same payload, or end.
    pub(crate) fn act(&mut self, event: &session::Event, initial: u32) {
        let now = moment(event.frame.at_us);
        let Some(connection) = &mut self.connection else {
            return;
        };
        match &event.packet.kind {
            Kind::Data(data) if data.message != 0 => {
                // A packet that was lost on its way to the capture was sent before this one.
                let offset = data.sequence.wrapping_sub(initial) & 0x7FFF_FFFF;
                while self.submitted <= offset as usize
                    && let Some(payload) = self.payloads.pop_front()
                {
                    self.submitted += 1;
                    if let Err(refused) = connection.send(now, &payload) {
                        self.refused_sends.push(refused);
                    }
                }
            }
            Kind::Shutdown => connection.close(now),
            _ => {}
        }
        self.drain(now);
    }

    /// Runs timers until everything has ended.
    pub(crate) fn finish(&mut self, last: &session::Event) {
        self.advance(moment(last.frame.at_us) + AFTERMATH);
    }
}

/// The median time between the recorded end's ACKs and their ACKACKs.
fn round_trip(session: &Session, is_caller: bool) -> Duration {
    let mut times = Vec::new();
    for (i, ack) in session.events.iter().enumerate() {
        if ack.from_caller != is_caller || !matches!(ack.packet.kind, Kind::Ack(_)) {
            continue;
        }
        let answer = session.events[i..].iter().find(|e| {
            let is_answer = e.packet.kind == Kind::AckAck && e.from_caller != is_caller;
            is_answer && e.packet.info == ack.packet.info
        });
        times.extend(answer.map(|e| e.frame.at_us - ack.frame.at_us));
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or(200);
    Duration::from_micros(median.max(1))
}
