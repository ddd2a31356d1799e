//! Where a datagram came from and which address of ours it was sent to, as the kernel wrote it
//! down: read when somebody asks, and only as far as that. A packet of a known peer is compared
//! where it lies.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::address::{Local, Peer};
use crate::message::{self, HEADER_BYTES, NAME_BYTES};

/// See the module's page.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    header: &'a [u8; HEADER_BYTES],
    /// Ours, where the header does not tell.
    own: &'a Local,
}

/// A sender's address as the kernel writes it down: compared with that of each packet of a peer,
/// and never read.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    bytes: [u8; NAME_BYTES],
    is_v4: bool,
}

impl Name {
    /// Nobody's.
    pub const NOBODY: Name = Name {
        bytes: [0; NAME_BYTES],
        is_v4: false,
    };
}

impl<'a> Origin<'a> {
    #[inline]
    pub(crate) const fn new(header: &'a [u8; HEADER_BYTES], own: &'a Local) -> Self {
        Origin { header, own }
    }

    /// Sender.
    #[inline(always)]
    pub fn peer(self) -> Peer {
        // A socket of ours has no other senders than those of the internet families.
        message::parse_name(self.header).unwrap_or(Peer::v4([0; 4], 0))
    }

    /// Whether `peer` is the sender.
    #[inline(always)]
    pub fn is_from(self, peer: Peer) -> bool {
        self.peer().is(peer)
    }

    /// The sender, for [`Origin::is_named`].
    pub fn name(self) -> Name {
        Name {
            bytes: *message::name(self.header),
            is_v4: message::is_v4(self.header),
        }
    }

    /// Whether the sender is written down as `name` was: then it is the same. If not it may be
    /// the same all the same ([`Origin::is_from`]), an IPv4 address for one as it is or mapped.
    #[inline(always)]
    pub fn is_named(self, name: &Name) -> bool {
        let its = message::name(self.header);
        if name.is_v4 {
            // Something else lies behind a shorter name.
            return its.first_chunk::<8>() == name.bytes.first_chunk::<8>();
        }
        *its == name.bytes
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
                assert!(origin.is_named(&origin.name()) && !origin.is_named(&Name::NOBODY));
            }
        }
    }

    #[test]
    fn senders_that_differ_in_anything_have_different_names() {
        let texts = [
            "192.0.2.7:9000",
            "192.0.2.7:9001",
            "192.0.2.8:9000",
            "[2001:db8::7]:9000",
            "[2001:db9::7]:9000",
            "[fe80::1%3]:9",
            "[fe80::1%4]:9",
        ];
        let envelopes = texts.map(|text| Envelope::new(text.parse().unwrap(), None));
        for (i, a) in envelopes.iter().enumerate() {
            for (j, b) in envelopes.iter().enumerate() {
                assert_eq!(a.origin().is_named(&b.origin().name()), i == j);
            }
        }
    }

    #[test]
    fn what_lies_behind_an_ipv4_name_belongs_to_nobody() {
        let mut plain = Envelope::new("[::]:1".parse().unwrap(), None);
        plain.header[16..24].copy_from_slice(&[2, 0, 0x23, 0x28, 192, 0, 2, 7]);
        let name = plain.origin().name();
        assert_eq!(
            plain.origin().peer().addr(),
            "192.0.2.7:9000".parse().unwrap()
        );
        plain.header[24..44].fill(0xAB);
        assert!(plain.origin().is_named(&name));
        plain.header[23] = 8;
        assert!(!plain.origin().is_named(&name));
    }
}
