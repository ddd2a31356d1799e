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

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use mirror_base::Instant;

use super::{Connection, Phase, Proof};
use crate::packet::{Control, Header};

/// The old address has been silent so long that one proof is enough.
const LONG_SILENCE: Duration = Duration::from_millis(100);
/// The old address has been silent so long that a row of proofs is enough.
const SHORT_SILENCE: Duration = Duration::from_millis(20);
/// How long it has been silent before a host is followed that only repeated what it sent.
const DISTRUST: Duration = Duration::from_secs(1);
/// Proofs in a row.
const PROOFS: u8 = 3;

/// Sequence numbers of packets that prove something, each once.
#[derive(Clone, Copy, Debug, Default)]
struct Proofs {
    sequences: [u32; PROOFS as usize],
    count: u8,
}

impl Proofs {
    fn known(&self) -> &[u32] {
        self.sequences.get(..self.count.into()).unwrap_or(&[])
    }

    fn add(&mut self, sequence: u32) {
        if !self.known().contains(&sequence)
            && let Some(next) = self.sequences.get_mut(usize::from(self.count))
        {
            *next = sequence;
            self.count += 1;
        }
    }
}

/// Another address that claims to be the peer's.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    from: SocketAddr,
    /// When the old address was last heard before the first proof.
    heard: Instant,
    proofs: Proofs,
}

/// The last change of address.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The address before.
    from: SocketAddr,
    /// The first packet from the new one.
    sequence: u32,
    /// What has come from the old one although it had come from the new one.
    repeated: Proofs,
}

/// What is known of other addresses than the peer's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elsewhere {
    candidate: Option<Candidate>,
    change: Option<Change>,
    /// A host that repeated what the peer sent.
    echo: Option<IpAddr>,
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
        if self.leads_back(arrival, from, &header, datagram) {
            // Behind one address there may be nobody but the peer and a NAT that wavers.
            let (host, other) = (from.ip().to_canonical(), self.peer.ip().to_canonical());
            if other != host {
                self.elsewhere.echo = Some(other);
            }
            self.move_to(from, None);
            return true;
        }
        let proofs = if self.proves(silence, arrival, &header, datagram) {
            self.count_proof(from, header.word0)
        } else {
            self.proofs_of(from)
        };
        let needed = if silence >= LONG_SILENCE { 1 } else { PROOFS };
        let is_echo = self.elsewhere.echo == Some(from.ip().to_canonical());
        let least = if is_echo { DISTRUST } else { SHORT_SILENCE };
        if silence < least || proofs < needed {
            return false;
        }
        let change = Change {
            from: self.peer,
            sequence: self.receiver.next_sequence(),
            repeated: Proofs::default(),
        };
        self.move_to(from, Some(change));
        true
    }

    fn move_to(&mut self, to: SocketAddr, change: Option<Change>) {
        self.elsewhere.candidate = None;
        self.elsewhere.change = change;
        self.peer = to;
        self.stats.peer_moves += 1;
    }

    /// Whether the address that was left goes on to send what has come from the present one.
    fn leads_back(
        &mut self,
        arrival: Instant,
        from: SocketAddr,
        header: &Header,
        datagram: &[u8],
    ) -> bool {
        let Some(mut change) = self.elsewhere.change.filter(|c| c.from == from) else {
            return false;
        };
        if header.is_control()
            || !self.receiver.repeats(arrival, header, change.sequence)
            || !self.proves_key(header, datagram)
        {
            return false;
        }
        change.repeated.add(header.word0);
        self.elsewhere.change = Some(change);
        change.repeated.count >= PROOFS
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
        let candidate = self.elsewhere.candidate;
        candidate
            .filter(|c| c.from == from && c.heard == heard)
            .map_or(0, |c| c.proofs.count)
    }

    /// Proofs in a row, this one included: from one address, of different packets, none from the
    /// old address between them. A copy of another address's proof is none.
    fn count_proof(&mut self, from: SocketAddr, sequence: u32) -> u8 {
        let heard = self.last_heard;
        let mut candidate = match self.elsewhere.candidate {
            Some(c) if c.heard == heard && c.from == from => c,
            Some(c) if c.heard == heard && c.proofs.known().contains(&sequence) => return 0,
            _ => Candidate {
                from,
                heard,
                proofs: Proofs::default(),
            },
        };
        candidate.proofs.add(sequence);
        self.elsewhere.candidate = Some(candidate);
        candidate.proofs.count
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
