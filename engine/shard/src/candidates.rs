//! SSRCs that sent one plausible RTP packet: not yet sessions. Random datagrams on the RTP port
//! look like a new SSRC each, so a source costs nothing but a place in this fixed table until a
//! second packet of it continues the first (RFC 3550, A.1, asks for no less). The table is
//! set-associative: churn overwrites the oldest use of a set, work and memory are bounded.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use mirror_base::Instant;
use mirror_rtp::Header;

/// Places: many sources begin at once when a studio is switched on, and each must keep its first
/// packet until its second one.
const SETS: usize = 128;
const WAYS: usize = 8;
/// A second packet may be so far ahead of the first: reordering and a little loss.
const MAX_AHEAD: u16 = 64;
/// A candidate's first packet counts for so long.
const LIFETIME: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Candidate {
    ssrc: u32,
    peer: SocketAddr,
    sequence: u16,
    arrival: Instant,
    /// Refused by the directory: left alone until then.
    refused_until: Instant,
    datagram: Vec<u8>,
}

/// The first packet of a source that has proved itself with a second one.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) arrival: Instant,
    pub(crate) datagram: Vec<u8>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Candidates {
    places: Vec<Option<Candidate>>,
}

/// By source and address: a stranger who sends the same SSRC has a place of its own.
fn set(ssrc: u32, peer: SocketAddr) -> usize {
    let host = match peer.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            (bits ^ (bits >> 32) ^ (bits >> 64) ^ (bits >> 96)) as u32
        }
    };
    let mixed = ssrc ^ host.rotate_left(16) ^ u32::from(peer.port()).rotate_left(8);
    (mixed.wrapping_mul(0x9E37_79B1) >> 16) as usize % SETS
}

impl Candidates {
    pub(crate) fn new() -> Self {
        Candidates {
            places: (0..SETS * WAYS).map(|_| None).collect(),
        }
    }

    /// The place of `ssrc` from `peer`: its own, else a free one, else the one used longest ago.
    fn entry(&mut self, ssrc: u32, peer: SocketAddr) -> &mut Option<Candidate> {
        let start = set(ssrc, peer) * WAYS;
        let ways = &mut self.places[start..start + WAYS];
        let is_its_own =
            |c: &Option<Candidate>| c.as_ref().is_some_and(|c| c.ssrc == ssrc && c.peer == peer);
        let way = ways.iter().position(is_its_own).unwrap_or_else(|| {
            let used = |c: &Option<Candidate>| c.as_ref().map(|c| c.arrival.max(c.refused_until));
            let oldest = (0..WAYS).min_by_key(|&way| used(&ways[way]));
            oldest.unwrap_or(0)
        });
        &mut ways[way]
    }

    /// A packet of an unknown source. `Some` when it continues the one that was kept.
    pub(crate) fn offer(
        &mut self,
        arrival: Instant,
        peer: SocketAddr,
        header: &Header,
        datagram: &[u8],
    ) -> Option<First> {
        let entry = self.entry(header.ssrc, peer);
        let Some(known) = entry else {
            *entry = Some(Candidate {
                ssrc: header.ssrc,
                peer,
                sequence: header.sequence,
                arrival,
                refused_until: Instant::ZERO,
                datagram: datagram.to_vec(),
            });
            return None;
        };
        let same = known.ssrc == header.ssrc && known.peer == peer;
        if same && arrival < known.refused_until {
            return None;
        }
        let ahead = header.sequence.wrapping_sub(known.sequence);
        let fresh = arrival.saturating_since(known.arrival) < LIFETIME;
        if same && fresh && (1..=MAX_AHEAD).contains(&ahead) {
            known.sequence = header.sequence;
            let first = First {
                arrival: known.arrival,
                datagram: core::mem::take(&mut known.datagram),
            };
            known.arrival = arrival;
            known.datagram.extend_from_slice(datagram);
            return Some(first);
        }
        // Somebody else's place is taken over, its buffer with it.
        known.ssrc = header.ssrc;
        known.peer = peer;
        known.sequence = header.sequence;
        known.arrival = arrival;
        known.refused_until = Instant::ZERO;
        known.datagram.clear();
        known.datagram.extend_from_slice(datagram);
        None
    }

    /// `ssrc` became a session.
    pub(crate) fn forget(&mut self, ssrc: u32, peer: SocketAddr) {
        let entry = self.entry(ssrc, peer);
        if entry.as_ref().is_some_and(|c| c.ssrc == ssrc) {
            *entry = None;
        }
    }

    /// `ssrc` of `peer` may not become a session before `until`.
    pub(crate) fn refuse(&mut self, ssrc: u32, peer: SocketAddr, until: Instant) {
        let entry = self.entry(ssrc, peer);
        let mut datagram = entry.take().map(|c| c.datagram).unwrap_or_default();
        datagram.clear();
        *entry = Some(Candidate {
            ssrc,
            peer,
            sequence: 0,
            arrival: Instant::ZERO,
            refused_until: until,
            datagram,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(ssrc: u32, sequence: u16) -> Header {
        Header {
            marker: false,
            payload_type: 96,
            sequence,
            timestamp: 0,
            ssrc,
            payload_offset: 12,
            payload_end: 20,
        }
    }

    fn peer() -> SocketAddr {
        "192.0.2.1:5000".parse().unwrap()
    }

    #[test]
    fn a_second_packet_that_continues_brings_back_the_first() {
        let mut c = Candidates::new();
        let at = Instant::from_millis(10);
        assert!(c.offer(at, peer(), &header(7, 65_535), b"one").is_none());
        let first = c.offer(at, peer(), &header(7, 0), b"two").unwrap();
        assert_eq!(first.datagram, b"one");
    }

    #[test]
    fn two_hundred_sources_that_begin_at_once_keep_their_first_packets() {
        let mut c = Candidates::new();
        let ssrc = |n: u32| n.wrapping_mul(0x9E37_79B9).rotate_left(7);
        let peer = |n: u32| SocketAddr::from(([192, 0, 2, 1], 20_000 + n as u16));
        let at = Instant::from_millis(10);
        for n in 0..200 {
            assert!(c.offer(at, peer(n), &header(ssrc(n), 1), b"one").is_none());
        }
        let kept = (0..200)
            .filter(|&n| c.offer(at, peer(n), &header(ssrc(n), 2), b"two").is_some())
            .count();
        assert_eq!(kept, 200);
    }

    #[test]
    fn unrelated_sequences_other_peers_and_old_packets_prove_nothing() {
        let mut c = Candidates::new();
        let at = Instant::from_millis(10);
        let other: SocketAddr = "192.0.2.2:5000".parse().unwrap();
        assert!(c.offer(at, peer(), &header(7, 1), b"x").is_none());
        assert!(
            c.offer(at, peer(), &header(7, 1), b"x").is_none(),
            "a duplicate"
        );
        assert!(
            c.offer(at, peer(), &header(7, 900), b"x").is_none(),
            "a jump"
        );
        assert!(
            c.offer(at, other, &header(7, 901), b"x").is_none(),
            "another peer"
        );
        assert!(
            c.offer(Instant::from_millis(5_000), other, &header(7, 902), b"x")
                .is_none(),
            "too old"
        );
        assert!(
            c.offer(Instant::from_millis(5_001), other, &header(7, 903), b"x")
                .is_some()
        );
        c.refuse(7, other, Instant::from_millis(6_000));
        assert!(
            c.offer(Instant::from_millis(5_002), other, &header(7, 904), b"x")
                .is_none(),
            "refused"
        );
    }
}
