//! From a captured packet to the UDP datagram in it: Ethernet with VLAN tags (IEEE 802.1Q), the
//! cooked headers of Linux, raw IP; IPv4 (RFC 791), IPv6 with extension headers (RFC 8200); UDP
//! (RFC 768). Fragments are put together by [`super::fragments`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

/// A piece of an IP packet (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Identification: the same in all pieces of a packet.
    pub id: u32,
    /// What the whole begins with: a protocol, or an extension header of IPv6. Of IPv6 only the
    /// first piece's counts.
    pub protocol: u8,
    /// Where the piece lies in the whole, bytes.
    pub offset: usize,
    /// Others are behind it.
    pub more: bool,
    /// The piece.
    pub bytes: &'a [u8],
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A whole UDP datagram.
    Datagram(Datagram<'a>),
    /// A piece of one.
    Fragment(Fragment<'a>),
    /// One that was not captured to its end.
    Cut,
    /// Something else.
    Other,
}

const LINK_NULL: u32 = 0;
const LINK_ETHERNET: u32 = 1;
const LINK_RAW: u32 = 101;
const LINK_LOOP: u32 = 108;
const LINK_COOKED: u32 = 113;
const LINK_IPV4: u32 = 228;
const LINK_IPV6: u32 = 229;
const LINK_COOKED_2: u32 = 276;
/// DLT_RAW as some systems number it.
const LINK_RAW_OTHERS: [u32; 2] = [12, 14];

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
const VLAN: [u16; 3] = [0x8100, 0x88A8, 0x9100];
const MAX_TAGS: usize = 4;
const UDP: u8 = 17;
const MAX_EXTENSIONS: usize = 8;

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The UDP datagram in a packet that was captured on a link of type `link` (LINKTYPE_ value).
pub fn datagram(link: u32, packet: &[u8]) -> Seen<'_> {
    let ip = match link {
        LINK_ETHERNET => ethernet(packet),
        LINK_COOKED => typed(packet, 14, 16),
        LINK_COOKED_2 => typed(packet, 0, 20),
        // The address family's number depends on the system; the IP version is in the next byte.
        LINK_NULL | LINK_LOOP => packet.get(4..),
        LINK_RAW | LINK_IPV4 | LINK_IPV6 => Some(packet),
        other if LINK_RAW_OTHERS.contains(&other) => Some(packet),
        _ => None,
    };
    let Some(ip) = ip else { return Seen::Other };
    match ip.first().map(|b| b >> 4) {
        Some(4) => ipv4(ip).unwrap_or(Seen::Other),
        Some(6) => ipv6(ip).unwrap_or(Seen::Other),
        _ => Seen::Other,
    }
}

/// What is behind a header with an EtherType in it, tags skipped.
fn typed(packet: &[u8], mut type_at: usize, mut header: usize) -> Option<&[u8]> {
    for _ in 0..=MAX_TAGS {
        let kind = short(packet, type_at)?;
        if !VLAN.contains(&kind) {
            return matches!(kind, IPV4 | IPV6).then(|| packet.get(header..))?;
        }
        // Tag and the next type.
        type_at = header + 2;
        header += 4;
    }
    None
}

fn ethernet(packet: &[u8]) -> Option<&[u8]> {
    typed(packet, 12, 14)
}

fn ipv4(ip: &[u8]) -> Option<Seen<'_>> {
    let header = ip.first_chunk::<20>()?;
    let [
        first,
        _,
        l0,
        l1,
        i0,
        i1,
        f0,
        f1,
        _,
        protocol,
        _,
        _,
        rest @ ..,
    ] = *header;
    if protocol != UDP {
        return None;
    }
    let [s0, s1, s2, s3, d0, d1, d2, d3] = rest;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    // What is behind the packet is padding of the link. A total of 0 stands for a packet that
    // the sender's network card was to divide.
    let packet = match total {
        0 => ip,
        _ => ip.get(..total).unwrap_or(ip),
    };
    let content = packet.get(usize::from(first & 15) * 4..)?;
    let from = IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3));
    let to = IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3));
    let place = u16::from_be_bytes([f0, f1]);
    // More fragments, or an offset.
    if place & 0x3FFF == 0 {
        return udp(content, from, to);
    }
    if packet.len() < total {
        return Some(Seen::Cut);
    }
    Some(Seen::Fragment(Fragment {
        from,
        to,
        id: u16::from_be_bytes([i0, i1]).into(),
        protocol,
        offset: usize::from(place & 0x1FFF) * 8,
        more: place & 0x2000 != 0,
        bytes: content,
    }))
}

fn ipv6(ip: &[u8]) -> Option<Seen<'_>> {
    let (header, mut rest) = ip.split_first_chunk::<40>()?;
    let (fixed, addresses) = header.split_first_chunk::<8>()?;
    let (from, to) = addresses.split_first_chunk::<16>()?;
    let [_, _, _, _, l0, l1, next, _] = *fixed;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let is_cut = rest.len() < length;
    rest = rest.get(..length).filter(|_| length > 0).unwrap_or(rest);
    let from = IpAddr::V6(Ipv6Addr::from(*from));
    let to = IpAddr::V6(Ipv6Addr::from(*to.first_chunk()?));
    match content(next, rest, from, to) {
        Some(Seen::Fragment(_)) if is_cut => Some(Seen::Cut),
        seen => seen,
    }
}

/// What a packet carries behind its IP header: extension headers of IPv6, UDP. `next` tells what
/// comes first.
pub(super) fn content(mut next: u8, mut rest: &[u8], from: IpAddr, to: IpAddr) -> Option<Seen<'_>> {
    for _ in 0..MAX_EXTENSIONS {
        let bytes = match next {
            UDP => return udp(rest, from, to),
            // Hop-by-hop, routing, destination options.
            0 | 43 | 60 => 8 + 8 * usize::from(*rest.get(1)?),
            44 => {
                let place = short(rest, 2)?;
                if place & 0xFFF9 != 0 {
                    let (&[protocol, _, _, _, id @ ..], bytes) = rest.split_first_chunk::<8>()?;
                    return Some(Seen::Fragment(Fragment {
                        from,
                        to,
                        id: u32::from_be_bytes(id),
                        protocol,
                        offset: usize::from(place & 0xFFF8),
                        more: place & 1 != 0,
                        bytes,
                    }));
                }
                8
            }
            // Authentication.
            51 => 8 + 4 * usize::from(*rest.get(1)?),
            _ => return None,
        };
        next = *rest.first()?;
        rest = rest.get(bytes..)?;
    }
    None
}

fn udp(udp: &[u8], from: IpAddr, to: IpAddr) -> Option<Seen<'_>> {
    let source = short(udp, 0)?;
    let destination = short(udp, 2)?;
    let length = match short(udp, 4)? {
        0 => udp.len(),
        length => usize::from(length),
    };
    if length < 8 {
        return None;
    }
    Some(match udp.get(8..length) {
        Some(payload) => Seen::Datagram(Datagram {
            from: SocketAddr::new(from, source),
            to: SocketAddr::new(to, destination),
            payload,
        }),
        None => Seen::Cut,
    })
}
