//! What multishot `recvmsg` leaves in a provided buffer, taken apart: the header
//! `io_uring_recvmsg_out`, the sender's address, the control messages, the payload. Runs once for
//! each datagram (hundreds of thousands a second), on memory that a peer partly controls: every
//! read is bounded, nothing allocates. Called by the reactor.

use core::net::SocketAddr;

use crate::address::{Local, Peer};
use crate::sys::UDP_GRO;

/// Room for the sender's address: a `sockaddr_in6`.
pub(crate) const NAME_BYTES: usize = 28;
/// Room for control messages: timestamp 32, packet info 40, drop count 24 and GRO size 24 bytes,
/// and 28 more so that the payload begins on a cache line.
pub(crate) const CONTROL_BYTES: usize = 148;
/// Where the payload begins.
pub(crate) const HEADER_BYTES: usize = OUT_BYTES + NAME_BYTES + CONTROL_BYTES;

const OUT_BYTES: usize = 16;
const CONTROL_START: usize = OUT_BYTES + NAME_BYTES;
const CMSG_BYTES: usize = 16;

/// Head of the control message that every datagram brings first.
const TIMESTAMP_HEAD: [u8; CMSG_BYTES] = head(32, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS);
/// Head of the one that follows it in every datagram of a socket which has lost one.
const DROPS_HEAD: [u8; CMSG_BYTES] = head(20, libc::SOL_SOCKET, libc::SO_RXQ_OVFL);
/// Bytes of control messages of nearly every datagram: the timestamp and, on a socket that is
/// bound to no single address, packet info of one family. Behind a timestamp no others come to one
/// of these sums: packet info takes 32 (IPv4) or 40 bytes, drop count and GRO size 24 each.
const USUAL: u32 = 32;
const USUAL_V4: u32 = USUAL + 32;
const USUAL_V6: u32 = USUAL + 40;
/// The same with a drop count behind the timestamp. A GRO size instead comes to the same sum.
const COUNTED: u32 = USUAL + 24;
const COUNTED_V4: u32 = USUAL_V4 + 24;
const COUNTED_V6: u32 = USUAL_V6 + 24;
const DROPS_START: usize = CONTROL_START + 32;

/// `struct cmsghdr`.
const fn head(length: u64, level: i32, kind: i32) -> [u8; CMSG_BYTES] {
    let [a, b, c, d, e, f, g, h] = length.to_ne_bytes();
    let [i, j, k, l] = level.to_ne_bytes();
    let [m, n, o, p] = kind.to_ne_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

const _: () = assert!(HEADER_BYTES == 192 && HEADER_BYTES.is_multiple_of(64));
const _: () = assert!(
    size_of::<libc::cmsghdr>() == CMSG_BYTES,
    "control messages of 64-bit Linux"
);
const _: () = assert!(
    size_of::<libc::timespec>() == 16,
    "timestamps of 64-bit Linux"
);

/// A received message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Sender.
    pub(crate) peer: Peer,
    /// Our address. A multicast group, if it was sent to one.
    pub(crate) local: Local,
    /// `CLOCK_REALTIME`, nanoseconds; 0: none.
    pub(crate) timestamp_ns: u64,
    /// The socket's drop count, which the kernel attaches once it is not zero.
    pub(crate) drops: Option<u32>,
    /// Bytes of each segment of a GRO super-packet; 0: a single datagram.
    pub(crate) segment: usize,
    /// The payload.
    pub(crate) payload: &'a [u8],
    /// Part of it did not fit.
    pub(crate) truncated: bool,
}

/// Lengths of a message's name and control messages, in one word. 0 is none's: every message has a
/// name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lengths(u64);

/// How long a message's name and its control messages are.
#[inline(always)]
pub(crate) fn lengths(header: &[u8; HEADER_BYTES]) -> Lengths {
    Lengths(u64::from_ne_bytes(bytes(header, 0)))
}

/// Part of it did not fit.
#[inline(always)]
pub(crate) fn is_truncated(header: &[u8; HEADER_BYTES]) -> bool {
    native_u32(header, 12) & libc::MSG_TRUNC as u32 != 0
}

/// Whether this is a whole datagram with the usual control messages, which lie where they always
/// lie, the timestamp first. All other messages of the same socket with these [`lengths`] are like
/// it.
pub(crate) fn is_usual(header: &[u8; HEADER_BYTES]) -> bool {
    !is_truncated(header)
        && matches!(native_u32(header, 4), USUAL | USUAL_V4 | USUAL_V6)
        && bytes::<CMSG_BYTES>(header, CONTROL_START) == TIMESTAMP_HEAD
}

/// The socket's drop count of a whole datagram that brings this beside the usual control messages,
/// behind the timestamp: every one of a socket that has ever lost one.
#[inline]
pub(crate) fn counted(header: &[u8; HEADER_BYTES]) -> Option<u32> {
    if is_truncated(header)
        || !matches!(native_u32(header, 4), COUNTED | COUNTED_V4 | COUNTED_V6)
        || bytes::<CMSG_BYTES>(header, CONTROL_START) != TIMESTAMP_HEAD
    {
        return None;
    }
    drops_behind_timestamp(header)
}

/// The socket's drop count, if it is told behind a timestamp that comes first.
#[inline(always)]
pub(crate) fn drops_behind_timestamp(header: &[u8; HEADER_BYTES]) -> Option<u32> {
    (bytes::<CMSG_BYTES>(header, DROPS_START) == DROPS_HEAD)
        .then(|| native_u32(header, DROPS_START + CMSG_BYTES))
}

/// The timestamp of a header in which it is the first control message.
#[inline]
pub(crate) fn first_timestamp(header: &[u8; HEADER_BYTES]) -> u64 {
    timestamp(header, CONTROL_START + CMSG_BYTES)
}

/// The sender's address as the kernel wrote it down: an IPv4 one takes eight bytes of it, family,
/// port and address, and something else lies behind.
#[inline(always)]
pub(crate) fn name(header: &[u8; HEADER_BYTES]) -> &[u8; NAME_BYTES] {
    const { assert!(OUT_BYTES + NAME_BYTES <= HEADER_BYTES) };
    let (_, rest) = header.split_at(OUT_BYTES);
    rest.first_chunk().unwrap_or(&[0; NAME_BYTES])
}

/// Whether the sender's address is an IPv4 one, not mapped to IPv6.
pub(crate) fn is_v4(header: &[u8; HEADER_BYTES]) -> bool {
    family(header) == libc::AF_INET
}

/// Our address, as the control messages tell it.
pub(crate) fn local(header: &[u8; HEADER_BYTES]) -> Local {
    read(header, &[]).map_or(Local::UNKNOWN, |message| message.local)
}

/// A header that brings a sender's address and nothing else.
pub(crate) fn header_of(peer: SocketAddr) -> [u8; HEADER_BYTES] {
    let (address, scope) = match peer {
        SocketAddr::V4(peer) => (peer.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(peer) => (*peer.ip(), peer.scope_id()),
    };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(NAME_BYTES as u32).to_ne_bytes());
    let name = &mut header[OUT_BYTES..CONTROL_START];
    name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    name[2..4].copy_from_slice(&peer.port().to_be_bytes());
    name[8..24].copy_from_slice(&address.octets());
    name[24..].copy_from_slice(&scope.to_ne_bytes());
    header
}

/// Takes a buffer apart. `None`: shorter than its own header, or as [`read`].
#[cfg(test)]
fn parse(buffer: &[u8]) -> Option<Message<'_>> {
    let (header, payload) = buffer.split_first_chunk::<HEADER_BYTES>()?;
    read(header, payload)
}

/// Reads a header. `None`: from no internet address, which the kernel does not give.
pub(crate) fn read<'a>(header: &[u8; HEADER_BYTES], payload: &'a [u8]) -> Option<Message<'a>> {
    let mut message = Message {
        peer: parse_name(header)?,
        local: Local::UNKNOWN,
        timestamp_ns: 0,
        drops: None,
        segment: 0,
        payload,
        truncated: native_u32(header, 12) & libc::MSG_TRUNC as u32 != 0,
    };
    parse_control(header, &mut message);
    Some(message)
}

#[inline]
fn family(header: &[u8; HEADER_BYTES]) -> i32 {
    i32::from(u16::from_ne_bytes(bytes(header, OUT_BYTES)))
}

/// Who sent it; `None`: no internet address.
#[inline]
pub(crate) fn parse_name(header: &[u8; HEADER_BYTES]) -> Option<Peer> {
    let port = u16::from_be_bytes(bytes(header, OUT_BYTES + 2));
    match family(header) {
        // Nearly always: sockets are dual-stack.
        libc::AF_INET6 => {
            // The kernel gives a scope to link-local addresses only.
            let scope = native_u32(header, OUT_BYTES + 24);
            Some(Peer::v6(bytes(header, OUT_BYTES + 8), port, scope))
        }
        libc::AF_INET => Some(Peer::v4(bytes(header, OUT_BYTES + 4), port)),
        _ => None,
    }
}

/// `struct timespec`.
#[inline]
fn timestamp(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let seconds = u64::from_ne_bytes(bytes(header, at));
    let nanos = u64::from_ne_bytes(bytes(header, at + 8));
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

/// `struct in_pktinfo`: interface, the address to answer from, the address in the header.
#[inline]
fn info_v4(header: &[u8; HEADER_BYTES], at: usize) -> Local {
    let addressed = bytes::<4>(header, at + 8);
    let multicast = addressed[0] & 0xF0 == 0xE0;
    Local::v4(if multicast {
        addressed
    } else {
        bytes(header, at + 4)
    })
}

/// `struct in6_pktinfo`: the address, the interface.
#[inline]
fn info_v6(header: &[u8; HEADER_BYTES], at: usize) -> Local {
    Local::v6(bytes(header, at))
}

fn parse_control(header: &[u8; HEADER_BYTES], message: &mut Message<'_>) {
    let used = (native_u32(header, 4) as usize).min(CONTROL_BYTES);
    let end = CONTROL_START + used;
    let mut at = CONTROL_START;
    while at + CMSG_BYTES <= end {
        let length = u64::from_ne_bytes(bytes(header, at)) as usize;
        if length < CMSG_BYTES || length > end - at {
            break;
        }
        let level = native_u32(header, at + 8).cast_signed();
        let kind = native_u32(header, at + 12).cast_signed();
        let data = at + CMSG_BYTES;
        let room = length - CMSG_BYTES;
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) if room >= 16 => {
                message.timestamp_ns = timestamp(header, data);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) if room >= 4 => {
                message.drops = Some(native_u32(header, data));
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if room >= 12 => {
                message.local = info_v4(header, data);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if room >= 20 => {
                message.local = info_v6(header, data);
            }
            (libc::SOL_UDP, UDP_GRO) if room >= 4 => {
                message.segment = native_u32(header, data) as usize;
            }
            _ => {}
        }
        at += (length + 7) & !7;
    }
}

/// `N` bytes at `at`. Callers stay within the header: the control loop checks each message's
/// length against the end before it reads the data.
#[inline]
fn bytes<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    match header.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(chunk) => *chunk,
        None => [0; N],
    }
}

#[inline]
fn native_u32(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_ne_bytes(bytes(header, at))
}

#[cfg(test)]
pub(crate) mod tests {
    use core::net::Ipv6Addr;

    use super::*;

    fn name_v4(address: [u8; 4], port: u16) -> Vec<u8> {
        let mut name = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        name.extend(port.to_be_bytes());
        name.extend(address);
        name
    }

    fn name_v6(address: Ipv6Addr, port: u16, scope: u32) -> Vec<u8> {
        let mut name = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        name.extend(port.to_be_bytes());
        name.extend(7u32.to_ne_bytes());
        name.extend(address.octets());
        name.extend(scope.to_ne_bytes());
        name
    }

    fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut message = ((CMSG_BYTES + data.len()) as u64).to_ne_bytes().to_vec();
        message.extend(level.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(data);
        message.resize(message.len().next_multiple_of(8), 0);
        message
    }

    fn buffer(name: &[u8], controls: &[u8], flags: u32, payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        for word in [
            name.len() as u32,
            controls.len() as u32,
            payload.len() as u32,
            flags,
        ] {
            buffer.extend(word.to_ne_bytes());
        }
        buffer.extend(name);
        buffer.resize(CONTROL_START, 0);
        buffer.extend(controls);
        buffer.resize(HEADER_BYTES, 0xee);
        buffer.extend(payload);
        buffer
    }

    fn timestamp(seconds: u64, nanos: u64) -> Vec<u8> {
        [seconds.to_ne_bytes(), nanos.to_ne_bytes()].concat()
    }

    /// A datagram as a dual-stack socket brings it: stamped `nanos`, with the socket's drop count
    /// if there is one.
    pub(crate) fn datagram(nanos: u64, drops: u32, payload: &[u8]) -> Vec<u8> {
        let mapped = "::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap();
        let mut controls = control(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &timestamp(0, nanos));
        if drops > 0 {
            let count = drops.to_ne_bytes();
            controls.extend(control(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &count));
        }
        let info = [&mapped.octets()[..], &2_u32.to_ne_bytes()].concat();
        controls.extend(control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info));
        buffer(&name_v6(mapped, 9000, 0), &controls, 0, payload)
    }

    #[test]
    fn everything_a_kernel_attaches_is_found() {
        let controls = [
            control(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &timestamp(3, 5)),
            control(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &9u32.to_ne_bytes()),
            control(libc::SOL_UDP, UDP_GRO, &1332u32.to_ne_bytes()),
            control(
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                &[1, 0, 0, 0, 127, 0, 0, 2, 127, 0, 0, 2],
            ),
        ]
        .concat();
        let buffer = buffer(&name_v4([10, 0, 0, 1], 4242), &controls, 0, b"payload");
        let message = parse(&buffer).unwrap();
        assert_eq!(message.peer.addr(), "10.0.0.1:4242".parse().unwrap());
        assert_eq!(message.local.ip(), Some("127.0.0.2".parse().unwrap()));
        assert_eq!(message.timestamp_ns, 3_000_000_005);
        assert_eq!((message.drops, message.segment), (Some(9), 1332));
        assert_eq!(
            (message.payload, message.truncated),
            (&b"payload"[..], false)
        );
    }

    #[test]
    fn mapped_addresses_are_unmapped_and_others_keep_their_scope() {
        let mapped = "::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap();
        let mut info = mapped.octets().to_vec();
        info.extend(2u32.to_ne_bytes());
        let controls = control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        let bytes = buffer(&name_v6(mapped, 9000, 0), &controls, 0, b"");
        let message = parse(&bytes).unwrap();
        assert_eq!(message.peer.addr(), "192.0.2.7:9000".parse().unwrap());
        assert_eq!(message.local.ip(), Some("192.0.2.7".parse().unwrap()));

        let bytes = buffer(&name_v6("fe80::1".parse().unwrap(), 9, 3), &[], 0, b"");
        assert_eq!(
            parse(&bytes).unwrap().peer.addr(),
            "[fe80::1%3]:9".parse().unwrap()
        );
    }

    #[test]
    fn a_multicast_group_is_reported_and_a_broadcast_answers_from_the_host() {
        for (addressed, local) in [([239, 1, 1, 1], "239.1.1.1"), ([10, 0, 0, 255], "10.0.0.9")] {
            let info = [&[1, 0, 0, 0, 10, 0, 0, 9][..], &addressed].concat();
            let controls = control(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            let bytes = buffer(&name_v4([10, 0, 0, 1], 1), &controls, 0, b"");
            assert_eq!(
                parse(&bytes).unwrap().local.ip(),
                Some(local.parse().unwrap())
            );
        }
    }

    #[test]
    fn control_messages_that_are_not_just_the_usual_ones_are_told_by_their_sum() {
        let time = control(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &timestamp(3, 5));
        let info_v4 = control(libc::IPPROTO_IP, libc::IP_PKTINFO, &[0; 12]);
        let info_v6 = control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[0; 20]);
        let drops = control(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &[1, 0, 0, 0]);
        let segment = control(libc::SOL_UDP, UDP_GRO, &[1, 0, 0, 0]);
        let others = [&info_v4, &info_v6, &drops, &segment];
        let name = name_v4([10, 0, 0, 1], 4242);
        for chosen in 0..1_u32 << others.len() {
            let parts = (0..others.len()).filter(|at| chosen & (1 << at) != 0);
            let rest: Vec<u8> = parts.flat_map(|at| others[at].clone()).collect();
            let bytes = buffer(&name, &[&time[..], &rest].concat(), 0, b"x");
            let usual = is_usual(bytes.first_chunk().unwrap());
            assert_eq!(usual, matches!(chosen, 0..=2), "{chosen:04b}");
            let timeless = buffer(&name, &rest, 0, b"x");
            assert!(!is_usual(timeless.first_chunk().unwrap()));
            // The kernel's order: the drop count comes before packet info.
            let rest: Vec<u8> = [2_usize, 3, 0, 1]
                .into_iter()
                .filter(|at| chosen & (1 << at) != 0)
                .flat_map(|at| others[at].clone())
                .collect();
            let bytes = buffer(&name, &[&time[..], &rest].concat(), 0, b"x");
            let drops = counted(bytes.first_chunk().unwrap());
            let expected = matches!(chosen, 0b100..=0b110).then_some(1);
            assert_eq!(drops, expected, "{chosen:04b}");
        }
    }

    #[test]
    fn what_is_found_without_a_search_is_what_a_search_finds() {
        let time = control(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &timestamp(3, 5));
        let info_v4 = |addressed: [u8; 4]| {
            let info = [&[1, 0, 0, 0, 10, 0, 0, 9][..], &addressed].concat();
            control(libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
        };
        let mut info = [0xFE; 16].to_vec();
        info.extend(2u32.to_ne_bytes());
        let info_v6 = control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        let names = [
            name_v4([10, 0, 0, 1], 4242),
            name_v6(Ipv6Addr::LOCALHOST, 9, 3),
            name_v6("::ffff:192.0.2.7".parse().unwrap(), 9, 0),
        ];
        let infos = [
            Vec::new(),
            info_v4([10, 0, 0, 9]),
            info_v4([239, 1, 1, 1]),
            info_v6,
        ];
        for name in &names {
            for info in &infos {
                let bytes = buffer(name, &[&time[..], info].concat(), 0, b"x");
                let header = bytes.first_chunk().unwrap();
                let found = parse(&bytes).unwrap();
                assert!(is_usual(header));
                assert_eq!(first_timestamp(header), found.timestamp_ns);
                assert_eq!(parse_name(header), Some(found.peer));
                assert_eq!(local(header), found.local);
                assert_eq!((found.drops, found.segment), (None, 0));
                let other_order = buffer(name, &[info, &time[..]].concat(), 0, b"x");
                assert_eq!(
                    is_usual(other_order.first_chunk().unwrap()),
                    info.is_empty()
                );
                let cut = buffer(
                    name,
                    &[&time[..], info].concat(),
                    libc::MSG_TRUNC as u32,
                    b"",
                );
                assert!(!is_usual(cut.first_chunk().unwrap()));

                let drops = control(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &[7, 0, 0, 0]);
                let controls = [&time[..], &drops, info].concat();
                let bytes = buffer(name, &controls, 0, b"x");
                let header = bytes.first_chunk().unwrap();
                let found = parse(&bytes).unwrap();
                assert_eq!((found.drops, found.segment), (Some(7), 0));
                assert_eq!(counted(header), Some(7));
                assert_eq!(first_timestamp(header), found.timestamp_ns);
                assert!(!is_usual(header));
                assert_eq!(local(header), found.local);
                let cut = buffer(name, &controls, libc::MSG_TRUNC as u32, b"");
                assert!(counted(cut.first_chunk().unwrap()).is_none());
            }
        }
    }

    #[test]
    fn an_empty_datagram_and_a_truncated_one_are_told_apart() {
        let empty = buffer(&name_v4([1, 2, 3, 4], 5), &[], 0, b"");
        assert_eq!(parse(&empty).unwrap().payload, b"");
        let cut = buffer(
            &name_v4([1, 2, 3, 4], 5),
            &[],
            libc::MSG_TRUNC as u32,
            b"abc",
        );
        assert!(parse(&cut).unwrap().truncated);
    }

    #[test]
    fn senseless_headers_are_survived() {
        assert!(parse(&[0; HEADER_BYTES - 1]).is_none());
        assert!(parse(&[0; HEADER_BYTES]).is_none(), "no address family");
        for length in [0u64, 15, 17, 200, u64::MAX] {
            let mut controls = control(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &[1, 0, 0, 0]);
            controls[..8].copy_from_slice(&length.to_ne_bytes());
            let mut bytes = buffer(&name_v4([1, 2, 3, 4], 5), &controls, 0, b"x");
            assert_eq!(parse(&bytes).unwrap().drops, None, "length {length}");
            bytes[4..8].fill(0xff);
            parse(&bytes).unwrap();
        }
        // A message of every type whose data does not fit before the end.
        for (level, kind) in [
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
            (libc::IPPROTO_IP, libc::IP_PKTINFO),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO),
            (libc::SOL_UDP, UDP_GRO),
        ] {
            let controls = control(level, kind, &[0xff; 3]);
            let bytes = buffer(&name_v4([1, 2, 3, 4], 5), &controls, 0, b"x");
            let message = parse(&bytes).unwrap();
            assert_eq!(
                (message.local.ip(), message.drops, message.segment),
                (None, None, 0)
            );
        }
    }

    #[test]
    fn random_headers_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        for _ in 0..rounds {
            let mut bytes = vec![0; HEADER_BYTES + 8];
            for byte in &mut bytes {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = if state & 0x300 == 0 {
                    (state >> 32) as u8
                } else {
                    (state & 1) as u8
                };
            }
            bytes[16..18].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            assert!(parse(&bytes).is_some());
        }
    }
}
