//! A connection that begins by rendezvous (spec section 6): who greets, what the responder has to
//! ask its owner, and how the handshake becomes the usual connection. Called by `Connection`.

use mirror_base::{Discard, Instant, PacketSequenceNumber, SlotRing};

use super::{CloseReason, Connection, Phase};
use crate::config::Config;
use crate::crypto::{CallerSecurity, KeyQuestion, Security};
use crate::handshake::cif::{CONCLUSION, HandshakeCif};
use crate::handshake::rendezvous::{Rendezvous, Step, Union};
use crate::packet::{Control, Header};
use crate::reject::RejectionCode;

impl Connection {
    /// Rendezvous: greets the peer until it does the same. `socket_id` and `initial_sequence` as
    /// for [`Connection::connect`]; `cookie` random, the same for each attempt to meet this peer:
    /// libsrt remembers who won for as long as it tries. `security`: the keys to ask with if this
    /// end asks, and that there has to be encryption if it is asked. Given up after ten
    /// `connect_timeout`s.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is what only the owner of this knows"
    )]
    pub fn rendezvous(
        now: Instant,
        peer: core::net::SocketAddr,
        socket_id: u32,
        initial_sequence: PacketSequenceNumber,
        cookie: u32,
        srt_stream_id: &str,
        config: &Config,
        next_index: u64,
        security: Option<CallerSecurity>,
    ) -> Self {
        let initial = allowed(initial_sequence);
        let mut connection = Self::new(now, peer, socket_id, initial, config, next_index);
        let rendezvous = Rendezvous::new(
            now,
            peer,
            socket_id,
            initial,
            cookie,
            srt_stream_id,
            config,
            security,
        );
        connection.phase = Phase::Meeting(Box::new(rendezvous));
        connection
    }

    /// Rendezvous: the peer asks for encryption, or for none where we have keys. What it asks is
    /// to be decided by [`Security::negotiate`], which takes time, and told to
    /// [`Connection::answer_keys`]. At most one is open at a time.
    pub fn key_question(&mut self) -> Option<KeyQuestion> {
        match &mut self.phase {
            Phase::Meeting(rendezvous) => rendezvous.take_question(),
            _ => None,
        }
    }

    /// The decision on question `number`. Without effect when it is asked no more. A refusal is
    /// not told to the peer (spec section 6, failure notes).
    pub fn answer_keys(
        &mut self,
        now: Instant,
        number: u32,
        decision: Result<Security, RejectionCode>,
    ) {
        if let Phase::Meeting(rendezvous) = &mut self.phase {
            rendezvous.decide(now, number, decision, &self.config);
        }
    }

    /// A datagram from the peer's address while there is no connection.
    pub(super) fn handle_while_meeting(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        rest: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let Phase::Meeting(rendezvous) = &mut self.phase else {
            return Err(Discard::Closed);
        };
        let control = header.is_control().then(|| header.control());
        // Spec section 6: only a greeting may go to socket ID 0.
        if control != Some(Control::Handshake) && header.destination != self.socket_id {
            return Err(Discard::UnknownSession);
        }
        match control {
            Some(Control::Handshake) => {
                let step = rendezvous.handle(now, arrival, header, rest, &self.config)?;
                self.step(now, step);
                Ok(())
            }
            // libsrt's tools hang up so when they do not like the keys, and say no more.
            Some(Control::Shutdown) => {
                let reason = if rendezvous.has_answered() {
                    CloseReason::PeerShutdown
                } else {
                    CloseReason::Unconcluded
                };
                self.end(reason);
                Ok(())
            }
            // The peer is connected: its AGREEMENT was lost (spec section 6).
            None | Some(Control::Keepalive | Control::Extension) => {
                let step = rendezvous.confirmed().ok_or(Discard::HandshakePending)?;
                self.step(now, step);
                match control {
                    // Its owner has no ring for it yet: it is handed in again.
                    None => Ok(()),
                    Some(_) => self.handle_control(now, arrival, header, rest, ring),
                }
            }
            Some(_) => Err(Discard::HandshakePending),
        }
    }

    fn step(&mut self, now: Instant, step: Step) {
        match step {
            Step::Continue => {}
            Step::Connected(union) => self.unite(now, *union),
            Step::Rejected(code) => self.end(CloseReason::Rejected(code)),
            Step::Declined(code, peer_socket_id) => {
                self.peer_socket_id = peer_socket_id;
                self.pending.shutdown = true;
                self.end(CloseReason::Rejected(code));
            }
        }
    }

    fn unite(&mut self, now: Instant, union: Union) {
        self.last_heard = now;
        self.establish(now, union.arrival, &union.agreed, union.terms);
        if let Some(agreement) = union.agreement {
            self.response = agreement;
            self.pending.response = true;
            self.pending.repeats_agreement = true;
        }
        self.connected_event = true;
    }

    /// A handshake of a connected peer: a conclusion that comes again says that our AGREEMENT was
    /// lost (spec section 6).
    pub(super) fn handle_late_handshake(&mut self, cif: &[u8]) {
        if !self.pending.repeats_agreement {
            return;
        }
        let concludes = HandshakeCif::parse(cif).is_some_and(|(handshake, _)| {
            handshake.handshake_type == CONCLUSION && handshake.socket_id == self.peer_socket_id
        });
        self.pending.response |= concludes;
    }
}

/// Spec section 3: the highest number is not allowed as initial one.
pub(super) fn allowed(initial: PacketSequenceNumber) -> PacketSequenceNumber {
    if initial.get() == PacketSequenceNumber::MAX {
        PacketSequenceNumber::new(0)
    } else {
        initial
    }
}
