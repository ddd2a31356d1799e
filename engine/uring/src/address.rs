//! Addresses as datagrams bring them: copied from the kernel's structures and compared as bytes,
//! made readable only when somebody asks. A packet of a known peer never needs more.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// 16 bytes of an IPv6 address, network order; IPv4 ones are mapped (`::ffff:a.b.c.d`).
type Raw = [u64; 2];

#[inline]
const fn raw_v6(octets: [u8; 16]) -> Raw {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

#[inline]
const fn raw_v4([a, b, c, d]: [u8; 4]) -> Raw {
    [0, u64::from_ne_bytes([0, 0, 0xFF, 0xFF, a, b, c, d])]
}

const fn raw(ip: IpAddr) -> Raw {
    match ip {
        IpAddr::V4(ip) => raw_v4(ip.octets()),
        IpAddr::V6(ip) => raw_v6(ip.octets()),
    }
}

fn readable([high, low]: Raw) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = high.to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_ne_bytes();
    let octets = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}

/// Where a datagram came from. The same peer is equal whether its IPv4 address was mapped or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    ip: Raw,
    /// As on the wire.
    port: u16,
    scope: u32,
}

impl Peer {
    #[inline]
    pub(crate) const fn v4(octets: [u8; 4], port: u16) -> Self {
        Peer {
            ip: raw_v4(octets),
            port: port.to_be(),
            scope: 0,
        }
    }

    #[inline]
    pub(crate) const fn v6(octets: [u8; 16], port: u16, scope: u32) -> Self {
        Peer {
            ip: raw_v6(octets),
            port: port.to_be(),
            scope,
        }
    }

    /// Whether it is `other`: equality without a branch.
    #[inline(always)]
    pub(crate) const fn is(self, other: Peer) -> bool {
        let ([a, b], [c, d]) = (self.ip, other.ip);
        let rest = (self.port ^ other.port) as u64 | (self.scope ^ other.scope) as u64;
        (a ^ c) | (b ^ d) | rest == 0
    }

    /// For people, tables and sends; `::ffff:` unmapped.
    pub fn addr(self) -> SocketAddr {
        let port = u16::from_be(self.port);
        match self.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope).into(),
        }
    }

    /// Its host; `::ffff:` unmapped.
    pub fn ip(self) -> IpAddr {
        readable(self.ip)
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => v6.scope_id(),
            _ => 0,
        };
        Peer {
            ip: raw(address.ip()),
            port: address.port().to_be(),
            scope,
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
    }
}

/// Our address that a datagram was sent to, where it is known.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Local(Raw);

impl Local {
    /// Not known.
    pub const UNKNOWN: Local = Local([0, 0]);

    #[inline]
    pub(crate) const fn v4(octets: [u8; 4]) -> Self {
        Local(raw_v4(octets))
    }

    #[inline]
    pub(crate) const fn v6(octets: [u8; 16]) -> Self {
        Local(raw_v6(octets))
    }

    /// This one, or `other` if this one is not known.
    #[inline]
    pub(crate) fn or(self, other: Local) -> Local {
        if self == Local::UNKNOWN { other } else { self }
    }

    /// For people and sends; `::ffff:` unmapped.
    pub fn ip(self) -> Option<IpAddr> {
        (self != Local::UNKNOWN).then(|| readable(self.0))
    }
}

impl From<Option<IpAddr>> for Local {
    fn from(ip: Option<IpAddr>) -> Self {
        ip.map_or(Local::UNKNOWN, |ip| Local(raw(ip)))
    }
}

impl From<Ipv4Addr> for Local {
    fn from(ip: Ipv4Addr) -> Self {
        Local::v4(ip.octets())
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_in_and_come_out_and_mapped_ones_are_unmapped() {
        for text in [
            "10.0.0.1:4242",
            "255.255.255.255:65535",
            "[2001:db8::7]:9000",
            "[fe80::1%3]:9",
            "[::1]:1",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Peer::from(address).addr(), address);
            assert_eq!(Peer::from(address).ip(), address.ip());
            assert_eq!(Local::from(Some(address.ip())).ip(), Some(address.ip()));
        }
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:4242".parse().unwrap();
        assert_eq!(Peer::from(mapped), Peer::v4([10, 0, 0, 1], 4242));
        assert_eq!(Local::UNKNOWN.ip(), None);
        assert_eq!(
            Local::UNKNOWN.or(Local::v4([1, 2, 3, 4])).ip(),
            Some("1.2.3.4".parse().unwrap())
        );
    }

    #[test]
    fn peers_that_differ_in_anything_differ() {
        let peers = [
            Peer::v4([10, 0, 0, 1], 1),
            Peer::v4([10, 0, 0, 1], 2),
            Peer::v4([10, 0, 0, 2], 1),
            Peer::from("[fe80::1%3]:1".parse::<SocketAddr>().unwrap()),
            Peer::from("[fe80::1%4]:1".parse::<SocketAddr>().unwrap()),
        ];
        for (i, a) in peers.iter().enumerate() {
            for (j, b) in peers.iter().enumerate() {
                assert_eq!(a == b, i == j);
                assert_eq!(a.is(*b), i == j);
            }
        }
    }
}
