//! Where a datagram came from and which address of ours it was sent to, as the kernel wrote it
//! down: read when somebody asks, and only as far as that. A packet of a known peer is compared
//! where it lies.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::address::{Local, Peer};
use crate::message::{self, HEADER_BYTES};

/// See the module's page.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    header: &'a [u8; HEADER_BYTES],
    /// Ours, where the header does not tell.
    own: &'a Local,
}

impl<'a> Origin<'a> {
    #[inline]
    pub(crate) const fn new(header: &'a [u8; HEADER_BYTES], own: &'a Local) -> Self {
        Origin { header, own }
    }

    /// Sender.
    #[inline(always)]
    pub fn peer(self) -> Peer {
        // A header without an internet address is not handed over.
        message::parse_name(self.header).unwrap_or(Peer::v4([0; 4], 0))
    }

    /// Whether `peer` is the sender.
    #[inline(always)]
    pub fn is_from(self, peer: Peer) -> bool {
        self.peer().is(peer)
    }

    /// Our address that it was sent to (pktinfo). A multicast group, if it was sent to one.
    pub fn local(self) -> Local {
        message::local(self.header).or(*self.own)
    }
}

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} to {:?}", self.peer(), self.local())
    }
}

/// The origin of a datagram that no kernel brought: virtual networks have these.
#[derive(Clone)]
pub struct Envelope {
    header: [u8; HEADER_BYTES],
    own: Local,
}

impl Envelope {
    /// From `peer` to our address `local`, if that is to be known.
    pub fn new(peer: SocketAddr, local: Option<IpAddr>) -> Self {
        Envelope {
            header: message::header_of(peer),
            own: local.into(),
        }
    }

    /// For a datagram.
    pub const fn origin(&self) -> Origin<'_> {
        Origin::new(&self.header, &self.own)
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_tells_what_was_put_on_it() {
        for text in ["192.0.2.7:9000", "[2001:db8::7]:9000", "[fe80::1%3]:9"] {
            let peer: SocketAddr = text.parse().unwrap();
            for local in [None, Some(peer.ip())] {
                let envelope = Envelope::new(peer, local);
                let origin = envelope.origin();
                assert_eq!((origin.peer().addr(), origin.local().ip()), (peer, local));
                assert!(origin.is_from(peer.into()));
                assert!(!origin.is_from("192.0.2.8:9000".parse::<SocketAddr>().unwrap().into()));
            }
        }
    }
}
