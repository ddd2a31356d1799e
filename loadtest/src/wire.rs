//! A sender's socket: connected UDP, and a batch of datagrams that leaves in as few system calls
//! as it can: a run of equally long ones (the last may be shorter) goes to the kernel in one
//! `sendmsg` with UDP_SEGMENT, which cuts it up again (D5). What a line does to datagrams
//! ([`Wire::impair`]) happens between the batch and the socket.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mirror_base::Instant;
use mirror_netem::Netem;
use socket2::{Domain, MsgHdr, Protocol, Socket, Type};

use crate::impairment::Impairment;

/// UDP_MAX_SEGMENTS of older kernels.
const MAX_SEGMENTS: usize = 64;
/// A UDP payload's greatest length, with room for IPv6.
const MAX_BYTES: usize = 65_000;
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
/// Room that the next datagram of a batch must have.
const ROOM: usize = 2_048;

/// Figures of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireCounters {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// System calls.
    pub calls: u64,
    /// Datagrams that it refused.
    pub errors: u64,
}

/// A connected UDP socket with its batch.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    local: SocketAddr,
    segmented: bool,
    buffer: Vec<u8>,
    filled: usize,
    lengths: Vec<u16>,
    counters: WireCounters,
    line: Option<Box<Line>>,
}

/// A line that does something to what passes.
#[derive(Debug)]
struct Line {
    now: Instant,
    outgoing: Netem,
    incoming: Netem,
}

/// Datagrams that are taken from an impaired line's socket at once.
const INTAKE: usize = 256;

impl Wire {
    /// A socket that sends to `target` only, and hears from it only.
    pub fn connect(target: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if target.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let wire = Wire::bind(SocketAddr::new(any, 0))?;
        wire.answer(target)?;
        Ok(wire)
    }

    /// A socket on `local` that hears from anybody, until [`Wire::answer`] says to whom it is to
    /// send.
    pub fn bind(local: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        // what the kernel does not grant is no error: the default does for small rates
        let _ = socket.set_send_buffer_size(4 << 20);
        let _ = socket.set_recv_buffer_size(1 << 20);
        socket.bind(&local.into())?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(Wire {
            socket,
            local,
            segmented: true,
            buffer: vec![0; MAX_BYTES + ROOM],
            filled: 0,
            lengths: Vec::with_capacity(MAX_SEGMENTS),
            counters: WireCounters::default(),
            line: None,
        })
    }

    /// From now on it sends to `peer` only, and hears from it only.
    pub fn answer(&self, peer: SocketAddr) -> io::Result<()> {
        self.socket.connect(&peer.into())
    }

    /// What passes is impaired from now on.
    pub fn impair(&mut self, impairment: &Impairment) {
        self.line = (!impairment.is_clean()).then(|| {
            Box::new(Line {
                now: Instant::ZERO,
                outgoing: Netem::new(impairment.forward, impairment.seed),
                incoming: Netem::new(impairment.backward, !impairment.seed),
            })
        });
    }

    /// It is `now`: said before anything is sent or received in a turn.
    pub fn set_now(&mut self, now: Instant) {
        if let Some(line) = &mut self.line {
            line.now = now;
        }
    }

    /// Our address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Figures.
    pub fn counters(&self) -> WireCounters {
        self.counters
    }

    /// Room for the next datagram, at least 2048 bytes; [`Wire::commit`] then says its length.
    pub fn room(&mut self) -> &mut [u8] {
        if self.filled + ROOM > self.buffer.len() || self.lengths.len() >= MAX_SEGMENTS {
            self.send_batch();
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// The first `length` bytes of [`Wire::room`] are a datagram.
    pub fn commit(&mut self, length: usize) {
        let length = length.min(self.buffer.len() - self.filled);
        if let Some(line) = &mut self.line {
            let datagram = self.buffer.get(self.filled..self.filled + length);
            line.outgoing
                .push(line.now, datagram.unwrap_or_default().to_vec());
            return;
        }
        self.add(length);
    }

    fn add(&mut self, length: usize) {
        self.filled += length;
        self.lengths.push(u16::try_from(length).unwrap_or(u16::MAX));
    }

    /// Datagrams that [`Wire::room`] may be filled with before the batch is full, at least one.
    pub fn segments_left(&self) -> usize {
        match MAX_SEGMENTS.saturating_sub(self.lengths.len()) {
            // the next call of `room` sends the batch
            0 => MAX_SEGMENTS,
            left => left,
        }
    }

    /// The first `bytes` of [`Wire::room`] are datagrams of `segment` bytes each, the last of
    /// what is left.
    pub fn commit_run(&mut self, bytes: usize, segment: usize) {
        if let Some(line) = &mut self.line {
            let run = self.buffer.get(self.filled..self.filled + bytes);
            for datagram in run.unwrap_or_default().chunks(segment.max(1)) {
                line.outgoing.push(line.now, datagram.to_vec());
            }
            return;
        }
        let mut left = bytes;
        while left > 0 {
            let length = segment.clamp(1, left);
            self.commit(length);
            left -= length;
        }
    }

    /// Sends the batch; over an impaired line: what is due by now.
    pub fn flush(&mut self) {
        while let Some(line) = &mut self.line
            && let Some(datagram) = line.outgoing.poll(line.now)
        {
            let room = self.room();
            let length = datagram.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..length), datagram.get(..length)) {
                to.copy_from_slice(from);
            }
            self.add(length);
        }
        self.send_batch();
    }

    fn send_batch(&mut self) {
        let (mut start, mut i) = (0, 0);
        while i < self.lengths.len() {
            let (count, bytes) = self.run(i);
            let segment = usize::from(self.lengths[i]);
            self.send_run(start, bytes, segment, count);
            start += bytes;
            i += count;
        }
        self.filled = 0;
        self.lengths.clear();
    }

    /// How many datagrams from `i` on can leave together, and their bytes: equal ones, and one
    /// shorter at the end.
    fn run(&self, i: usize) -> (usize, usize) {
        let first = self.lengths[i];
        let (mut count, mut bytes) = (1, usize::from(first));
        if !self.segmented || first == 0 {
            return (count, bytes);
        }
        for &length in &self.lengths[i + 1..] {
            if length > first
                || length == 0
                || count == MAX_SEGMENTS
                || bytes + usize::from(length) > MAX_BYTES
            {
                break;
            }
            count += 1;
            bytes += usize::from(length);
            if length < first {
                break;
            }
        }
        (count, bytes)
    }

    fn send_run(&mut self, start: usize, bytes: usize, segment: usize, count: usize) {
        let data = &self.buffer[start..start + bytes];
        let result = if count == 1 {
            self.socket.send(data).map(|_| ())
        } else {
            send_segmented(&self.socket, data, segment)
        };
        self.counters.calls += 1;
        match result {
            Ok(()) => {
                self.counters.datagrams += count as u64;
                self.counters.bytes += bytes as u64;
            }
            // EINVAL, EIO, EOPNOTSUPP: no segmentation on this path; one by one from now on
            Err(error) if count > 1 && matches!(error.raw_os_error(), Some(22 | 5 | 95)) => {
                self.segmented = false;
                for piece in 0..count {
                    let from = start + piece * segment;
                    self.send_run(from, segment.min(start + bytes - from), segment, 1);
                }
            }
            Err(_) => self.counters.errors += count as u64,
        }
    }

    /// The next datagram that has arrived, without waiting.
    pub fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let Some(line) = &mut self.line else {
            let (length, _) = receive(&self.socket, buffer)?;
            return buffer.get(..length);
        };
        for _ in 0..INTAKE {
            let Some((length, _)) = receive(&self.socket, buffer) else {
                break;
            };
            let datagram = buffer.get(..length).unwrap_or_default().to_vec();
            line.incoming.push(line.now, datagram);
        }
        let datagram = line.incoming.poll(line.now)?;
        let into = buffer.get_mut(..datagram.len())?;
        into.copy_from_slice(&datagram);
        Some(into)
    }

    /// The same while it hears from anybody, and from whom. Nothing impairs it.
    pub fn receive_from<'a>(&self, buffer: &'a mut [u8]) -> Option<(&'a [u8], SocketAddr)> {
        let (length, from) = receive(&self.socket, buffer)?;
        Some((buffer.get(..length)?, from?))
    }

    /// Sends one datagram at once, to anybody.
    pub fn send_to(&mut self, datagram: &[u8], to: SocketAddr) {
        self.counters.calls += 1;
        match self.socket.send_to(datagram, &to.into()) {
            Ok(_) => {
                self.counters.datagrams += 1;
                self.counters.bytes += datagram.len() as u64;
            }
            Err(_) => self.counters.errors += 1,
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> Option<(usize, Option<SocketAddr>)> {
    let flags = rustix::net::RecvFlags::DONTWAIT;
    // an error here is a refusal that the peer's host reported (ICMP); the next send tells
    let (_, length, from) = rustix::net::recvfrom(socket, &mut *buffer, flags).ok()?;
    Some((length, from.and_then(|a| SocketAddr::try_from(a).ok())))
}

/// One `sendmsg` with a UDP_SEGMENT control message (udp(7)), built by hand: cmsghdr with length,
/// level and type in the host's order, a u16, padding.
fn send_segmented(socket: &Socket, data: &[u8], segment: usize) -> io::Result<()> {
    let mut control = [0; 24];
    control[..8].copy_from_slice(&18usize.to_ne_bytes());
    control[8..12].copy_from_slice(&SOL_UDP.to_ne_bytes());
    control[12..16].copy_from_slice(&UDP_SEGMENT.to_ne_bytes());
    control[16..18].copy_from_slice(&(segment as u16).to_ne_bytes());
    let buffers = [IoSlice::new(data)];
    let message = MsgHdr::new().with_buffers(&buffers).with_control(&control);
    socket.sendmsg(&message, 0).map(|_| ())
}

const _: () = assert!(
    size_of::<usize>() == 8,
    "the control message is laid out for 64-bit hosts"
);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_batch_arrives_as_the_datagrams_it_was_made_of() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut wire = Wire::connect(receiver.local_addr().unwrap()).unwrap();
        let lengths = [1332, 1332, 1332, 700, 44, 1332, 1332, 16, 16];
        for (i, length) in lengths.iter().enumerate() {
            let room = wire.room();
            room[..*length].fill(i as u8);
            wire.commit(*length);
        }
        wire.flush();
        let mut buffer = [0; 2048];
        for (i, length) in lengths.iter().enumerate() {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), *length);
            assert!(buffer[..*length].iter().all(|b| *b == i as u8));
        }
        let counters = wire.counters();
        assert_eq!((counters.datagrams, counters.errors), (9, 0));
        assert!(counters.calls <= 9);
    }

    #[test]
    fn a_run_written_at_once_is_as_many_datagrams_and_one_call() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut wire = Wire::connect(receiver.local_addr().unwrap()).unwrap();
        assert_eq!(wire.segments_left(), MAX_SEGMENTS);
        wire.room()[..3 * 1332 + 700].fill(7);
        wire.commit_run(3 * 1332 + 700, 1332);
        assert_eq!(wire.segments_left(), MAX_SEGMENTS - 4);
        wire.flush();
        let mut buffer = [0; 2048];
        for length in [1332, 1332, 1332, 700] {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), length);
        }
        assert_eq!(wire.counters().datagrams, 4);
    }

    #[test]
    fn an_impaired_line_delays_and_loses_both_ways() {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut wire = Wire::connect(peer.local_addr().unwrap()).unwrap();
        let config = mirror_netem::Config {
            drop_every: core::num::NonZeroU32::new(2),
            delay: Duration::from_millis(10),
            ..Default::default()
        };
        wire.impair(&Impairment {
            forward: config,
            backward: config,
            seed: 1,
        });
        let mut buffer = [0; 2048];
        wire.set_now(Instant::from_millis(100));
        for n in 0..2 {
            wire.room()[0] = n;
            wire.commit(1);
        }
        wire.room()[..2].copy_from_slice(&[2, 3]);
        wire.commit_run(2, 1);
        wire.flush();
        assert_eq!(wire.counters().datagrams, 0);
        wire.set_now(Instant::from_millis(110));
        wire.flush();
        for expected in [0, 2] {
            assert_eq!(peer.recv(&mut buffer).unwrap(), 1);
            assert_eq!(buffer[0], expected);
        }
        let to = ("127.0.0.1", wire.local_addr().port());
        for n in 0..3 {
            peer.send_to(&[n], to).unwrap();
        }
        // loopback: what was sent has arrived
        assert_eq!(wire.receive(&mut buffer), None);
        wire.set_now(Instant::from_millis(120));
        assert_eq!(wire.receive(&mut buffer), Some(&[0][..]));
        assert_eq!(wire.receive(&mut buffer), Some(&[2][..]));
        assert_eq!(wire.receive(&mut buffer), None);
    }
}
