//! The peer's address may change while it sends: a NAT on the way forgets its mapping, a modem
//! gets a new address. libsrt loses such a connection; we follow the peer when it proves itself
//! (spec section 22). Called by the shard for datagrams that name our socket ID and come from
//! another address than the peer's.
//!
//! What proves a peer is data that continues its stream: our socket ID, a sequence number that is
//! missing or comes next within the window, a timestamp that is the peer's present time, and a
//! payload that the session's keys decrypt to a transport stream, if it has any. A retransmission
//! of what is missing proves as much as a new packet; a copy of what was received proves nothing.
//! Whoever cannot see the stream would have to guess some 60 bits. Whoever can see it is kept off
//! while the peer still sends: one such packet counts only after a silence of the old address,
//! several in a row, without one from the old address between them, after a shorter one.
//!
//! A peer whose source has paused may send a few retransmissions while the silence is still too
//! short, and then nothing but keepalives. So an address that has proven itself is remembered as
//! long as the old one is not heard, and its next keepalive or data packet moves when the silence
//! is long enough. By themselves control packets prove nothing, so a forged SHUTDOWN, ACK, NAK,
//! keepalive or handshake from elsewhere does nothing.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::Instant;

use super::{Connection, Phase, Proof};
use crate::packet::{Control, Header};

/// The old address has been silent so long that one proof is enough.
const LONG_SILENCE: Duration = Duration::from_millis(100);
/// The old address has been silent so long that a row of proofs is enough.
const SHORT_SILENCE: Duration = Duration::from_millis(20);
/// Proofs in a row.
const PROOFS: u8 = 3;

/// Another address that claims to be the peer's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    from: SocketAddr,
    /// When the old address was last heard before the first proof.
    heard: Instant,
    /// Those of the proofs so far, which a repetition of one of them is not.
    sequences: [u32; PROOFS as usize],
    proofs: u8,
}

impl Candidate {
    /// The sequence numbers of its proofs.
    fn known(&self) -> &[u32] {
        self.sequences.get(..self.proofs.into()).unwrap_or(&[])
    }
}

impl Connection {
    /// A datagram for our socket ID came from `from`, which is not the peer's address. True: it
    /// is from now on; the datagram is still to be given to [`Connection::handle_datagram`], and
    /// what is sent goes to `from`. False: the datagram is to be discarded.
    #[cold]
    pub fn try_rebind(
        &mut self,
        now: Instant,
        arrival: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> bool {
        // As it was on the wire: what the old address sent may wait in the queue behind this
        // datagram when we were held up.
        let silence = arrival.min(now).saturating_since(self.last_heard);
        if !matches!(self.phase, Phase::Established) {
            return false;
        }
        let Some((header, _)) = Header::parse(datagram) else {
            return false;
        };
        let may_follow = !header.is_control() || header.control() == Control::Keepalive;
        if header.destination != self.socket_id || !may_follow {
            return false;
        }
        let proofs = if self.proves(silence, arrival, &header, datagram) {
            self.count_proof(from, header.word0)
        } else {
            self.proofs_of(from)
        };
        let needed = if silence >= LONG_SILENCE { 1 } else { PROOFS };
        if silence < SHORT_SILENCE || proofs < needed {
            return false;
        }
        self.candidate = None;
        self.peer = from;
        self.stats.peer_moves += 1;
        true
    }

    /// Whether it is data that only the peer sends. While the old address is all but alive, only
    /// what is missing is worth the look: there is little of it.
    fn proves(
        &self,
        silence: Duration,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
    ) -> bool {
        !header.is_control()
            && (silence >= SHORT_SILENCE || self.receiver.misses(header))
            && self.receiver.continues(arrival, header)
            && self.proves_key(header, datagram)
    }

    /// The proofs of `from` since the old address was last heard.
    fn proofs_of(&self, from: SocketAddr) -> u8 {
        let heard = self.last_heard;
        self.candidate
            .filter(|c| c.from == from && c.heard == heard)
            .map_or(0, |c| c.proofs)
    }

    /// Proofs in a row, this one included: from one address, of different packets, none from the
    /// old address between them. A copy of another address's proof is none.
    fn count_proof(&mut self, from: SocketAddr, sequence: u32) -> u8 {
        let heard = self.last_heard;
        let mut candidate = match self.candidate {
            Some(c) if c.heard == heard && c.from == from => c,
            Some(c) if c.heard == heard && c.known().contains(&sequence) => return 0,
            _ => Candidate {
                from,
                heard,
                sequences: [0; PROOFS as usize],
                proofs: 0,
            },
        };
        let is_new = !candidate.known().contains(&sequence);
        if is_new && let Some(next) = candidate.sequences.get_mut(usize::from(candidate.proofs)) {
            *next = sequence;
            candidate.proofs += 1;
        }
        self.candidate = Some(candidate);
        candidate.proofs
    }

    /// Whether the packet is encrypted as was agreed: it decrypts to what the peer would send.
    fn proves_key(&self, header: &Header, datagram: &[u8]) -> bool {
        if self.receiver.keys().is_none() {
            return header.word1 & crate::packet::KK_MASK == 0;
        }
        match self.proves_peer(datagram) {
            Proof::Decrypts | Proof::Authentic => true,
            Proof::None => false,
        }
    }
}
