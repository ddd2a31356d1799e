//! Sending (design D5): datagrams wait in preallocated memory and leave by one `sendmmsg` per
//! socket and flush. Successive ones to one peer that are equally long (the last may be shorter)
//! are one message of it, a `UDP_SEGMENT` super-packet: one walk through the kernel's stack for
//! all of them. Never blocks: what the kernel does not take at once is lost and counted, as on
//! any network. Owned by the reactor.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use crate::socket::UdpSocket;
use crate::sys::UDP_SEGMENT;

/// Longest datagram that is queued; longer ones are sent at once.
pub(crate) const SLOT_BYTES: usize = 2048;
/// Segments of one super-packet (`UDP_MAX_SEGMENTS` before Linux 6.9).
const MAX_SEGMENTS: usize = 64;
/// Longest UDP payload that both IPv4 and IPv6 carry.
const MAX_PAYLOAD: usize = 65_487;
/// What a segment size takes of a control: header, two bytes, padding.
const SEGMENT_CONTROL_BYTES: usize = 24;

/// What sending did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendCounters {
    pub(crate) calls: u64,
    pub(crate) datagrams: u64,
    pub(crate) errors: u64,
    /// Super-packets of more than one datagram.
    pub(crate) super_packets: u64,
}

/// A socket address as the kernel wants it.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    bytes: [u8; 28],
    length: u32,
}

/// Control messages as the kernel wants them: packet info (40) and segment size (24).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    bytes: [u8; 64],
    length: usize,
}

impl Name {
    const NONE: Name = Name {
        bytes: [0; 28],
        length: 0,
    };

    /// `None`: an IPv6 peer on an IPv4 socket.
    fn encode(peer: SocketAddr, v6: bool) -> Option<Self> {
        let mut name = Name::NONE;
        let port = peer.port().to_be_bytes();
        if v6 {
            let (address, scope) = match peer {
                SocketAddr::V4(peer) => (peer.ip().to_ipv6_mapped(), 0),
                SocketAddr::V6(peer) => (*peer.ip(), peer.scope_id()),
            };
            name.bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name.bytes[2..4].copy_from_slice(&port);
            name.bytes[8..24].copy_from_slice(&address.octets());
            name.bytes[24..28].copy_from_slice(&scope.to_ne_bytes());
            name.length = 28;
        } else {
            let IpAddr::V4(address) = peer.ip().to_canonical() else {
                return None;
            };
            name.bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name.bytes[2..4].copy_from_slice(&port);
            name.bytes[4..8].copy_from_slice(&address.octets());
            name.length = 16;
        }
        Some(name)
    }
}

impl Control {
    const NONE: Control = Control {
        bytes: [0; 64],
        length: 0,
    };

    /// Packet info for the source address (none for `None` and for groups, which cannot be
    /// sources), segment size for super-packets (0: none).
    fn encode(local: Option<IpAddr>, v6: bool, segment: u16) -> Self {
        let mut control = Control::NONE;
        match local.map(|address| address.to_canonical()) {
            Some(address) if address.is_multicast() || address.is_unspecified() => {}
            Some(IpAddr::V4(address)) if !v6 => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&address.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(_)) if !v6 => {}
            Some(address) => {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                let mut info = [0; 20];
                info[..16].copy_from_slice(&address.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if segment > 0 {
            control.add_segment(segment);
        }
        control
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let at = self.length;
        let length = 16 + data.len();
        self.bytes[at..at + 8].copy_from_slice(&(length as u64).to_ne_bytes());
        self.bytes[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + 16..at + length].copy_from_slice(data);
        self.length = at + length.next_multiple_of(8);
    }

    /// Makes it the control of a super-packet. It had no segment size before.
    fn add_segment(&mut self, segment: u16) {
        self.push(libc::SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
    }

    /// The control of a super-packet, for one of its datagrams alone.
    fn without_segment(&self) -> Self {
        let mut control = *self;
        control.length = control.length.saturating_sub(SEGMENT_CONTROL_BYTES);
        control
    }
}

/// Address and control of one message to `peer` on `socket`. `None`: not reachable from it.
fn envelope(
    socket: &UdpSocket,
    peer: SocketAddr,
    local: Option<IpAddr>,
    segment: u16,
) -> Option<(Name, Control)> {
    let v6 = socket.is_v6();
    let name = if socket.peer_addr() == Some(peer) {
        Name::NONE
    } else {
        Name::encode(peer, v6)?
    };
    let local = if socket.is_wildcard() { local } else { None };
    Some((name, Control::encode(local, v6, segment)))
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    socket: u32,
    bytes: u32,
    /// It goes with the entry before it, as one more segment.
    joins: bool,
}

/// The datagrams queued last, as far as they can leave together.
#[derive(Clone, Copy, Debug)]
struct Run {
    socket: usize,
    peer: SocketAddr,
    local: Option<IpAddr>,
    /// The entry that it began with.
    head: usize,
    segment: usize,
    count: usize,
    bytes: usize,
    /// Its last datagram was as long as the first: another may follow.
    open: bool,
}

impl Run {
    /// Whether a datagram of `bytes` can be its next segment.
    fn takes(&self, socket: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: usize) -> bool {
        self.open
            && (1..=self.segment).contains(&bytes)
            && self.count < MAX_SEGMENTS
            && self.bytes + bytes <= MAX_PAYLOAD
            && self.socket == socket
            && self.peer == peer
            && self.local == local
    }
}

/// Datagrams that wait for a flush.
pub(crate) struct SendQueue {
    memory: Vec<u8>,
    entries: Vec<Entry>,
    names: Vec<Name>,
    controls: Vec<Control>,
    capacity: usize,
    sent: Vec<bool>,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    /// For each message, its first entry.
    heads: Vec<u32>,
    run: Option<Run>,
    segments_refused: bool,
    pub(crate) counters: SendCounters,
}

impl SendQueue {
    /// For `capacity` datagrams. `segments`: the kernel knows UDP_SEGMENT.
    pub(crate) fn new(capacity: usize, segments: bool) -> Self {
        let capacity = capacity.clamp(1, 1024);
        SendQueue {
            memory: vec![0; capacity * SLOT_BYTES],
            entries: Vec::with_capacity(capacity),
            names: vec![Name::NONE; capacity],
            controls: vec![Control::NONE; capacity],
            capacity,
            sent: Vec::with_capacity(capacity),
            vectors: Vec::with_capacity(capacity),
            messages: Vec::with_capacity(capacity),
            heads: Vec::with_capacity(capacity),
            run: None,
            segments_refused: !segments,
            counters: SendCounters::default(),
        }
    }

    /// Queues one datagram; sends all when that fills the queue.
    pub(crate) fn push(
        &mut self,
        sockets: &[UdpSocket],
        socket: usize,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) {
        let at = self.entries.len();
        let joins = self.join(socket, peer, local, bytes.len());
        if !joins {
            let Some((name, control)) = sockets
                .get(socket)
                .and_then(|socket| envelope(socket, peer, local, 0))
            else {
                self.counters.errors += 1;
                return;
            };
            if bytes.len() > SLOT_BYTES {
                self.flush(sockets);
                if let Some(socket) = sockets.get(socket) {
                    let result = send_one(socket, &name, &control, bytes);
                    self.count(1, &result);
                }
                return;
            }
            self.names[at] = name;
            self.controls[at] = control;
            self.run = Some(Run {
                socket,
                peer,
                local,
                head: at,
                segment: bytes.len(),
                count: 1,
                bytes: bytes.len(),
                open: !self.segments_refused,
            });
        }
        self.memory[at * SLOT_BYTES..at * SLOT_BYTES + bytes.len()].copy_from_slice(bytes);
        self.entries.push(Entry {
            socket: socket as u32,
            bytes: bytes.len() as u32,
            joins,
        });
        if self.entries.len() >= self.capacity {
            self.flush(sockets);
        }
    }

    /// Whether a datagram goes with those before it; then it is counted among them.
    fn join(
        &mut self,
        socket: usize,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: usize,
    ) -> bool {
        let Some(run) = self.run.as_mut() else {
            return false;
        };
        if !run.takes(socket, peer, local, bytes) {
            return false;
        }
        if run.count == 1 {
            self.controls[run.head].add_segment(run.segment as u16);
        }
        run.count += 1;
        run.bytes += bytes;
        // Only the last segment may be shorter.
        run.open = bytes == run.segment;
        true
    }

    /// Sends what is queued: one `sendmmsg` for each socket, in the order of queueing.
    pub(crate) fn flush(&mut self, sockets: &[UdpSocket]) {
        self.sent.clear();
        self.sent.resize(self.entries.len(), false);
        for first in 0..self.entries.len() {
            if self.sent[first] {
                continue;
            }
            let socket = self.entries[first].socket;
            self.gather(first, socket);
            if let Some(socket) = sockets.get(socket as usize) {
                self.transmit(socket);
            }
        }
        self.entries.clear();
        self.run = None;
    }

    /// Collects all messages of one socket.
    fn gather(&mut self, first: usize, socket: u32) {
        self.vectors.clear();
        self.messages.clear();
        self.heads.clear();
        let (memory, names) = (self.memory.as_mut_ptr(), self.names.as_mut_ptr());
        let (controls, vectors) = (self.controls.as_mut_ptr(), self.vectors.as_mut_ptr());
        for at in first..self.entries.len() {
            let entry = self.entries[at];
            if entry.socket != socket {
                continue;
            }
            self.sent[at] = true;
            // SAFETY: `at` < capacity, so the slot lies in `memory`.
            let iov_base = unsafe { memory.add(at * SLOT_BYTES) }.cast();
            self.vectors.push(libc::iovec {
                iov_base,
                iov_len: entry.bytes as usize,
            });
            // The entry before it is the last of its run and of the same socket: its vector is
            // the one before this.
            if entry.joins
                && let Some(message) = self.messages.last_mut()
            {
                message.msg_hdr.msg_iovlen += 1;
                continue;
            }
            // SAFETY: `at` < capacity, the length of `names` and `controls`. `vectors` has the
            // same capacity, takes one entry for each `at` at the most, so it never moves and
            // the place of the vector just pushed is its own.
            let header = unsafe {
                let vector = vectors.add(self.vectors.len() - 1);
                message(names.add(at), controls.add(at), vector)
            };
            self.heads.push(at as u32);
            self.messages.push(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
    }

    /// Sends the gathered messages.
    fn transmit(&mut self, socket: &UdpSocket) {
        let mut at = 0;
        let mut refused_at = usize::MAX;
        while at < self.messages.len() {
            self.counters.calls += 1;
            let rest = &mut self.messages[at..];
            // SAFETY: each message points to a name, a control and a vector that live in `self`
            // and are not touched during the call; the vector to bytes of `memory`.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if let Ok(sent @ 1..) = usize::try_from(result) {
                for message in rest.iter().take(sent) {
                    let datagrams = message.msg_hdr.msg_iovlen as u64;
                    self.counters.datagrams += datagrams;
                    self.counters.super_packets += u64::from(datagrams > 1);
                }
                at += sent;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                // The socket buffer is full: it will not be emptier a microsecond later.
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                    let left = rest.iter().map(|m| m.msg_hdr.msg_iovlen as u64);
                    self.counters.errors += left.sum::<u64>();
                    return;
                }
                // An ICMP error of an earlier datagram, reported once: this one was not tried.
                Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH)
                    if refused_at != at =>
                {
                    refused_at = at;
                }
                // This one cannot go (EPERM by a firewall, no route, too long): the next may.
                Some(errno) if rest[0].msg_hdr.msg_iovlen > 1 => {
                    self.transmit_apart(socket, at, errno);
                    at += 1;
                }
                _ => {
                    self.counters.errors += 1;
                    at += 1;
                }
            }
        }
    }

    /// The kernel refused message `number`, a super-packet: its datagrams leave one by one, if
    /// that was the reason.
    #[cold]
    fn transmit_apart(&mut self, socket: &UdpSocket, number: usize, errno: i32) {
        let head = self.heads[number] as usize;
        let count = self.messages[number].msg_hdr.msg_iovlen;
        match errno {
            // The device cannot checksum, or nothing on this path can segment.
            libc::EIO | libc::EOPNOTSUPP => self.segments_refused = true,
            // The segment exceeds this path's MTU: alone it is fragmented.
            libc::EINVAL | libc::EMSGSIZE => {}
            _ => {
                self.counters.errors += count as u64;
                return;
            }
        }
        let (name, control) = (self.names[head], self.controls[head].without_segment());
        for at in head..head + count {
            let start = at * SLOT_BYTES;
            let bytes = &self.memory[start..start + self.entries[at].bytes as usize];
            let result = send_one(socket, &name, &control, bytes);
            self.count(1, &result);
        }
    }

    /// Sends `bytes` as datagrams of `segment_size` (the last may be shorter), in as few
    /// system calls as the kernel allows.
    pub(crate) fn send_segments(
        &mut self,
        sockets: &[UdpSocket],
        socket: usize,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        segment_size: usize,
    ) {
        // What was queued before leaves before.
        self.flush(sockets);
        let segment = segment_size.clamp(1, MAX_PAYLOAD);
        let count = bytes.len().div_ceil(segment) as u64;
        let Some((name, control, single, socket)) = sockets.get(socket).and_then(|socket| {
            let (name, control) = envelope(socket, peer, local, segment as u16)?;
            let (_, single) = envelope(socket, peer, local, 0)?;
            Some((name, control, single, socket))
        }) else {
            self.counters.errors += count;
            return;
        };
        let batch = segment * MAX_SEGMENTS.min(MAX_PAYLOAD / segment).max(1);
        for part in bytes.chunks(batch) {
            let segments = part.len().div_ceil(segment) as u64;
            if segments > 1 && !self.segments_refused {
                let result = send_one(socket, &name, &control, part);
                match result.as_ref().err().and_then(io::Error::raw_os_error) {
                    // The device cannot checksum (EIO), or the segment exceeds its MTU.
                    Some(libc::EIO) => self.segments_refused = true,
                    Some(libc::EINVAL | libc::EMSGSIZE) => {}
                    _ => {
                        self.count(segments, &result);
                        self.counters.super_packets += u64::from(result.is_ok());
                        continue;
                    }
                }
                self.counters.calls += 1;
            }
            for datagram in part.chunks(segment) {
                let result = send_one(socket, &name, &single, datagram);
                self.count(1, &result);
            }
        }
    }

    fn count(&mut self, datagrams: u64, result: &io::Result<()>) {
        self.counters.calls += 1;
        match result {
            Ok(()) => self.counters.datagrams += datagrams,
            Err(_) => self.counters.errors += datagrams,
        }
    }
}

/// # Safety
/// `name` and `control` point to living values.
unsafe fn message(
    name: *mut Name,
    control: *mut Control,
    vector: *mut libc::iovec,
) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is an empty message; the pointers are good, as promised.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        if (*name).length > 0 {
            header.msg_name = (&raw mut (*name).bytes).cast();
            header.msg_namelen = (*name).length;
        }
        if (*control).length > 0 {
            header.msg_control = (&raw mut (*control).bytes).cast();
            header.msg_controllen = (*control).length;
        }
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header
    }
}

/// One message, at once. A leftover ICMP error is passed over once.
fn send_one(socket: &UdpSocket, name: &Name, control: &Control, bytes: &[u8]) -> io::Result<()> {
    let (mut name, mut control) = (*name, *control);
    // The kernel only reads what the vector points to.
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: name and control are locals of this function.
    let header = unsafe { message(&raw mut name, &raw mut control, &raw mut vector) };
    let mut refused = false;
    loop {
        // SAFETY: the header points to locals that outlive the call and to `bytes`.
        let result = unsafe {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            libc::sendmsg(socket.as_raw_fd(), &raw const header, flags)
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECONNREFUSED) if !refused => refused = true,
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_sockets_family() {
        let v4 = "192.0.2.7:258".parse().unwrap();
        let v6 = "[2001:db8::1]:258".parse().unwrap();
        let plain = Name::encode(v4, false).unwrap();
        assert_eq!(plain.length, 16);
        assert_eq!(plain.bytes[2..8], [1, 2, 192, 0, 2, 7]);
        let mapped = Name::encode(v4, true).unwrap();
        assert_eq!(mapped.length, 28);
        assert_eq!(mapped.bytes[18..24], [0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(
            Name::encode(v6, true).unwrap().bytes[8..12],
            [0x20, 0x01, 0x0d, 0xb8]
        );
        assert!(
            Name::encode(v6, false).is_none(),
            "not reachable from an IPv4 socket"
        );
        let mapped_peer = "[::ffff:192.0.2.7]:258".parse().unwrap();
        assert_eq!(Name::encode(mapped_peer, false).unwrap().bytes, plain.bytes);
    }

    #[test]
    fn a_super_packets_control_becomes_that_of_a_single_datagram_again() {
        let local: IpAddr = "2001:db8::1".parse().unwrap();
        let plain = Control::encode(Some(local), true, 0);
        let mut control = plain;
        control.add_segment(1332);
        assert_eq!(
            control.bytes,
            Control::encode(Some(local), true, 1332).bytes
        );
        assert_eq!(control.without_segment().length, plain.length);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn a_super_packet_that_the_path_refuses_leaves_datagram_by_datagram() {
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let options = crate::SocketOptions::default();
        let sockets = [UdpSocket::bind_any("127.0.0.1:0".parse().unwrap(), &options).unwrap()];
        let to = peer.local_addr().unwrap();
        for (errno, refused) in [(libc::EMSGSIZE, false), (libc::EIO, true)] {
            let mut queue = SendQueue::new(8, true);
            for number in 0..3u8 {
                queue.push(&sockets, 0, to, None, &[number; 100]);
            }
            queue.sent.resize(3, false);
            queue.gather(0, 0);
            assert_eq!(queue.messages.len(), 1);
            queue.transmit_apart(&sockets[0], 0, errno);
            for number in 0..3u8 {
                let mut buffer = [0; 200];
                assert_eq!(peer.recv(&mut buffer).unwrap(), 100);
                assert_eq!(buffer[0], number);
            }
            let counters = queue.counters;
            assert_eq!((counters.datagrams, counters.errors), (3, 0));
            assert_eq!(queue.segments_refused, refused);
        }
        let mut queue = SendQueue::new(8, false);
        queue.push(&sockets, 0, to, None, b"one");
        queue.push(&sockets, 0, to, None, b"two");
        queue.flush(&sockets);
        let counters = queue.counters;
        assert_eq!((counters.datagrams, counters.super_packets), (2, 0));
    }

    #[test]
    fn runs_are_of_one_peer_and_length_and_end_with_a_shorter_datagram() {
        let peer: SocketAddr = "192.0.2.7:258".parse().unwrap();
        let other: SocketAddr = "192.0.2.7:259".parse().unwrap();
        let run = Run {
            socket: 0,
            peer,
            local: None,
            head: 0,
            segment: 1332,
            count: 1,
            bytes: 1332,
            open: true,
        };
        assert!(run.takes(0, peer, None, 1332) && run.takes(0, peer, None, 1));
        assert!(!run.takes(0, peer, None, 1333) && !run.takes(0, peer, None, 0));
        assert!(!run.takes(1, peer, None, 1332) && !run.takes(0, other, None, 1332));
        assert!(!run.takes(0, peer, Some(peer.ip()), 1332));
        assert!(!Run { open: false, ..run }.takes(0, peer, None, 1332));
        assert!(!Run { count: 64, ..run }.takes(0, peer, None, 1332));
        let bytes = MAX_PAYLOAD - 1331;
        assert!(!Run { bytes, ..run }.takes(0, peer, None, 1332));
    }

    #[test]
    fn controls_name_the_source_and_the_segment_size() {
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let control = Control::encode(Some(v4), false, 0);
        assert_eq!(control.length, 32);
        assert_eq!(control.bytes[..8], 28u64.to_ne_bytes());
        assert_eq!(
            control.bytes[16..28],
            [0, 0, 0, 0, 192, 0, 2, 7, 0, 0, 0, 0]
        );
        let control = Control::encode(Some(v4), true, 1332);
        assert_eq!(control.length, 64);
        assert_eq!(control.bytes[26..32], [0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(control.bytes[40..48], 18u64.to_ne_bytes());
        assert_eq!(control.bytes[56..58], 1332u16.to_ne_bytes());
        for never_a_source in ["239.1.1.1", "ff02::1", "0.0.0.0", "::"] {
            let address = Some(never_a_source.parse().unwrap());
            assert_eq!(
                Control::encode(address, true, 0).length,
                0,
                "{never_a_source}"
            );
        }
    }
}
