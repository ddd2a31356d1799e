//! Datagrams from the peer: data to the receiver, handshakes to whoever asks, control packets
//! (spec section 1.2) to whom they concern. Called by the shard for each datagram.

use mirror_base::{Ahead, Discard, Instant, PacketSequenceNumber, SlotRing};

use super::{CloseReason, Connection, MAX_ACKACKS, Phase, is_plain};
use crate::handshake::caller::Outcome;
use crate::packet::ack::AckCif;
use crate::packet::{Control, Header, take_u32};

impl Connection {
    /// A datagram for our socket ID from the peer's address (the caller of this checks both).
    ///
    /// # Errors
    /// Why it was not used.
    #[inline(always)]
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        arrival: Instant,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        // A clock that was read before the packet came, or seconds after, takes the long way.
        let age = now.as_nanos().wrapping_sub(arrival.as_nanos());
        if let Ok(age_ns) = u32::try_from(age)
            && (self.take_plain(arrival, age_ns, datagram, ring, ())
                || (!is_plain(datagram) && self.take_sealed(arrival, age_ns, datagram, ring)))
        {
            return Ok(());
        }
        self.handle_any(now, arrival, datagram, ring)
    }

    /// The usual datagram: a data packet in the clear, the next one in order, that makes nothing
    /// due and for which the ring has its place open. `false`: it is another one, and nothing
    /// happened; [`Connection::handle_datagram`] takes that, and these as well. `age_ns`: how long
    /// ago it arrived. `ahead` as for [`SlotRing::append`].
    #[inline(always)]
    pub fn take_plain(
        &mut self,
        arrival: Instant,
        age_ns: u32,
        datagram: &[u8],
        ring: &mut SlotRing,
        ahead: impl Ahead,
    ) -> bool {
        let last_heard = &mut self.last_heard;
        self.receiver
            .take_plain(arrival, age_ns, datagram, ring, last_heard, ahead)
    }

    /// As [`Connection::take_plain`], for a packet under the key of the last one.
    #[inline(never)]
    pub fn take_sealed(
        &mut self,
        arrival: Instant,
        age_ns: u32,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> bool {
        let last_heard = &mut self.last_heard;
        self.receiver
            .take_sealed(arrival, age_ns, datagram, ring, last_heard)
    }

    /// [`Connection::handle_datagram`] of one that [`Connection::take_plain`] and
    /// [`Connection::take_sealed`] did not take.
    ///
    /// # Errors
    /// Why it was not used.
    #[inline(never)]
    pub fn handle_any(
        &mut self,
        now: Instant,
        arrival: Instant,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let (header, rest) = Header::parse(datagram).ok_or(Discard::Runt)?;
        if !header.is_control() && matches!(self.phase, Phase::Established) {
            self.last_heard = arrival;
            self.receiver.now = now;
            return self
                .receiver
                .data(arrival, &header, rest, ring, &mut self.stats);
        }
        self.handle_other(now, arrival, header, rest, ring)
    }

    #[cold]
    #[inline(never)]
    fn handle_other(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: Header,
        rest: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        self.receiver.moved = true;
        match self.phase {
            Phase::Closed => Err(Discard::Closed),
            Phase::Calling(_) => self.handle_while_calling(now, arrival, &header, rest),
            Phase::Meeting(_) => self.handle_while_meeting(now, arrival, &header, rest, ring),
            Phase::Established => {
                self.last_heard = now;
                self.handle_control(now, arrival, &header, rest, ring)
            }
        }
    }

    fn handle_while_calling(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        cif: &[u8],
    ) -> Result<(), Discard> {
        let Phase::Calling(caller) = &mut self.phase else {
            return Err(Discard::Closed);
        };
        if !header.is_control() {
            // Data may overtake the conclusion response; it will be asked for again.
            return Err(Discard::HandshakePending);
        }
        match header.control() {
            Control::Handshake => {}
            Control::Shutdown => {
                // libsrt closes a caller so that it cannot tell more (spec section 7).
                self.end(CloseReason::PeerShutdown);
                return Ok(());
            }
            _ => return Err(Discard::HandshakePending),
        }
        match caller.handle(now, header, cif, &self.config)? {
            Outcome::Continue => {}
            Outcome::Connected(agreed) => {
                let terms = caller.take_terms();
                self.last_heard = now;
                self.establish(now, arrival, &agreed, terms);
                self.connected_event = true;
            }
            Outcome::Rejected(code) => self.end(CloseReason::Rejected(code)),
            Outcome::Declined(code, peer_socket_id) => {
                self.peer_socket_id = peer_socket_id;
                self.pending.shutdown = true;
                self.end(CloseReason::Rejected(code));
            }
        }
        Ok(())
    }

    /// Control packets (spec section 1.2) of an established connection.
    pub(super) fn handle_control(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        cif: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        match header.control() {
            Control::Ack => self.handle_ack(now, header, cif),
            Control::AckAck => {
                self.stats.pkt_recv_ackack += 1;
                self.receiver.ackack(arrival, header, &mut self.rtt, ring)
            }
            Control::Nak => {
                self.stats.pkt_recv_nak += 1;
                self.sender.nak(cif, &mut self.stats)
            }
            Control::DropRequest => {
                let mut words = cif;
                let first = take_u32(&mut words).ok_or(Discard::MalformedControl)?;
                let last = take_u32(&mut words).ok_or(Discard::MalformedControl)?;
                let seq = PacketSequenceNumber::new;
                self.receiver
                    .drop_request(now, seq(first), seq(last), ring, &mut self.stats)
            }
            Control::Shutdown => {
                self.end(CloseReason::PeerShutdown);
                Ok(())
            }
            Control::CongestionWarning => {
                self.sender.slow_down();
                Ok(())
            }
            Control::Keepalive => {
                self.receiver.follow_turn(arrival, header.timestamp, ring);
                Ok(())
            }
            // A caller's repeated conclusion response, or rendezvous.
            Control::Handshake => {
                self.handle_late_handshake(cif);
                Ok(())
            }
            // It means file mode.
            Control::PeerError => Ok(()),
            Control::Extension => self.handle_extension(header, cif),
            Control::Unknown => Err(Discard::UnknownControl),
        }
    }

    fn handle_ack(&mut self, now: Instant, header: &Header, cif: &[u8]) -> Result<(), Discard> {
        let ack = AckCif::parse(cif).ok_or(Discard::MalformedControl)?;
        self.stats.pkt_recv_ack += 1;
        let only_sending = self.receiver.is_unused();
        self.sender.ack(now, &ack, only_sending, &mut self.rtt)?;
        // Spec section 10.3: a light ACK, and number 0, is not confirmed.
        if !ack.light && header.word1 != 0 {
            let at = self.pending.ackack_count.min(MAX_ACKACKS - 1);
            if let Some(number) = self.pending.ackacks.get_mut(at) {
                *number = header.word1;
                self.pending.ackack_count = at + 1;
            }
        }
        Ok(())
    }

    /// Listener side: the same conclusion came again; queues the same response.
    pub fn handle_repeated_conclusion(&mut self, now: Instant) {
        let _ = now;
        if matches!(self.phase, Phase::Established) && !self.response.is_empty() {
            self.pending.response = true;
        }
    }
}
