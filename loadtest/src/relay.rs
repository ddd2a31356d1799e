//! `mirror-loadtest relay`: a UDP relay that impairs what passes, between any two programs. One
//! thread; each client has a socket of its own towards the target, as a NAT would give it one,
//! and may be given another one in mid-stream (`--rebind`). The impairments are
//! [`mirror_netem`]'s, and follow from the seed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirror_base::Instant;
use mirror_netem::{Netem, Statistics};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::impairment::Impairment;
use crate::process::{monotonic, sharpen_timers};

/// Clients at the same time; who comes later is not served.
const MAX_CLIENTS: usize = 64;
/// Datagrams taken from one socket before the others have their turn.
const BATCH: usize = 64;
/// How often the thread looks whether it is to end, at the least.
const LOOK: Duration = Duration::from_millis(100);
/// Longest datagram.
const MAX_BYTES: usize = 65_536;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients send to; port 0: any.
    pub listen: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// What happens on the way.
    pub impairment: Impairment,
    /// A client's outgoing port changes so long after its first datagram.
    pub rebind: Option<Duration>,
    /// And again each time so much later.
    pub rebind_every: Option<Duration>,
    /// End after so long.
    pub run_for: Option<Duration>,
}

/// What it did.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where clients sent to.
    pub listen: SocketAddr,
    /// Where it went.
    pub to: SocketAddr,
    /// Seed of the impairments.
    pub seed: u64,
    /// How long it ran.
    pub seconds: f64,
    /// Clients served.
    pub clients: usize,
    /// Datagrams of clients that were too many.
    pub refused: u64,
    /// Outgoing ports changed.
    pub rebinds: u64,
    /// Datagrams that the kernel did not take.
    pub send_errors: u64,
    /// From the clients to the target.
    pub forward: Direction,
    /// Back.
    pub backward: Direction,
}

/// One direction's figures, all clients together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Direction {
    /// Datagrams that came.
    pub received: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Lost as a queue was full.
    pub overflowed: u64,
    /// Held back so that others overtook them.
    pub reordered: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Changed.
    pub corrupted: u64,
    /// Sent on, duplicates included.
    pub delivered: u64,
    /// On their way when the relay ended.
    pub left: u64,
}

impl Direction {
    fn add(&mut self, s: &Statistics, left: usize) {
        self.received += s.pushed;
        self.lost += s.lost;
        self.overflowed += s.overflowed;
        self.reordered += s.reordered;
        self.duplicated += s.duplicated;
        self.corrupted += s.corrupted;
        self.delivered += s.delivered;
        self.left += left as u64;
    }
}

#[derive(Debug)]
struct Client {
    address: SocketAddr,
    upstream: UdpSocket,
    forward: Netem,
    backward: Netem,
    rebind_at: Option<Instant>,
}

/// A relay whose listening socket is open.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    socket: UdpSocket,
    listen: SocketAddr,
    clients: Vec<Client>,
    refused: u64,
    rebinds: u64,
    send_errors: u64,
}

impl Relay {
    /// Opens the listening socket.
    pub fn open(settings: Settings) -> io::Result<Self> {
        let socket = open(settings.listen)?;
        let listen = socket.local_addr()?;
        Ok(Relay {
            settings,
            socket,
            listen,
            clients: Vec::new(),
            refused: 0,
            rebinds: 0,
            send_errors: 0,
        })
    }

    /// Where clients send to.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Relays until `stop`, or until its time is over.
    pub fn run(mut self, stop: &Arc<AtomicBool>) -> io::Result<Report> {
        sharpen_timers();
        let begin = monotonic();
        let end = self.settings.run_for.map(|d| begin + d);
        let mut buffer = vec![0; MAX_BYTES];
        loop {
            let now = monotonic();
            if stop.load(Ordering::Relaxed) || end.is_some_and(|end| now >= end) {
                break;
            }
            self.receive(now, &mut buffer)?;
            self.rebind(now)?;
            self.send(monotonic());
            self.wait(end)?;
        }
        Ok(self.report(monotonic().saturating_since(begin)))
    }

    /// Takes what has arrived, from all sides.
    fn receive(&mut self, now: Instant, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            // an error is a refusal of an earlier datagram (ICMP): nothing to be done about it
            let Ok((length, from)) = self.socket.recv_from(buffer) else {
                break;
            };
            let datagram = buffer.get(..length).unwrap_or_default().to_vec();
            match self.client(now, from)? {
                Some(client) => client.forward.push(now, datagram),
                None => self.refused += 1,
            }
        }
        for client in &mut self.clients {
            for _ in 0..BATCH {
                let Ok(length) = client.upstream.recv(buffer) else {
                    break;
                };
                let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                client.backward.push(now, datagram);
            }
        }
        Ok(())
    }

    fn client(&mut self, now: Instant, address: SocketAddr) -> io::Result<Option<&mut Client>> {
        if let Some(i) = self.clients.iter().position(|c| c.address == address) {
            return Ok(self.clients.get_mut(i));
        }
        if self.clients.len() >= MAX_CLIENTS {
            return Ok(None);
        }
        let Impairment {
            forward,
            backward,
            seed,
        } = self.settings.impairment;
        // each client and direction its own course, all from one seed
        let seed = seed
            .wrapping_add(self.clients.len() as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.clients.push(Client {
            address,
            upstream: connect(self.settings.to)?,
            forward: Netem::new(forward, seed),
            backward: Netem::new(backward, !seed),
            rebind_at: self.settings.rebind.map(|after| now + after),
        });
        Ok(self.clients.last_mut())
    }

    /// A NAT forgets a port and takes another: what still comes to the old one is lost.
    fn rebind(&mut self, now: Instant) -> io::Result<()> {
        for client in &mut self.clients {
            if client.rebind_at.is_some_and(|at| at <= now) {
                client.upstream = connect(self.settings.to)?;
                client.rebind_at = self.settings.rebind_every.map(|every| now + every);
                self.rebinds += 1;
            }
        }
        Ok(())
    }

    fn send(&mut self, now: Instant) {
        for client in &mut self.clients {
            while let Some(datagram) = client.forward.poll(now) {
                self.send_errors += u64::from(client.upstream.send(&datagram).is_err());
            }
            while let Some(datagram) = client.backward.poll(now) {
                let sent = self.socket.send_to(&datagram, client.address);
                self.send_errors += u64::from(sent.is_err());
            }
        }
    }

    /// Sleeps until something comes or is due.
    fn wait(&self, end: Option<Instant>) -> io::Result<()> {
        let now = monotonic();
        let next = self
            .clients
            .iter()
            .flat_map(|c| {
                [
                    c.forward.poll_timeout(),
                    c.backward.poll_timeout(),
                    c.rebind_at,
                ]
            })
            .flatten()
            .chain(end)
            .min();
        let sleep = next.map_or(LOOK, |at| at.saturating_since(now).min(LOOK));
        let timeout = Timespec {
            tv_sec: sleep.as_secs() as i64,
            tv_nsec: i64::from(sleep.subsec_nanos()),
        };
        let mut fds: Vec<PollFd<'_>> = core::iter::once(&self.socket)
            .chain(self.clients.iter().map(|c| &c.upstream))
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn report(&self, ran: Duration) -> Report {
        let (mut forward, mut backward) = (Direction::default(), Direction::default());
        for client in &self.clients {
            forward.add(&client.forward.statistics(), client.forward.in_flight());
            backward.add(&client.backward.statistics(), client.backward.in_flight());
        }
        Report {
            listen: self.listen,
            to: self.settings.to,
            seed: self.settings.impairment.seed,
            seconds: ran.as_secs_f64(),
            clients: self.clients.len(),
            refused: self.refused,
            rebinds: self.rebinds,
            send_errors: self.send_errors,
            forward,
            backward,
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = open(any)?;
    socket.connect(to)?;
    Ok(socket)
}

fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    // what the kernel does not grant is no error: the default does for small rates
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.bind(&local.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use mirror_netem::Config;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind(ANY).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    }

    /// Runs a relay to `to` while `test` sends to it; returns what it reports.
    fn with(settings: Settings, test: impl FnOnce(SocketAddr)) -> Report {
        let relay = Relay::open(settings).unwrap();
        let (listen, stop) = (relay.listen(), Arc::new(AtomicBool::new(false)));
        let for_thread = Arc::clone(&stop);
        let thread = thread::spawn(move || relay.run(&for_thread).unwrap());
        test(listen);
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap()
    }

    fn settings(to: SocketAddr) -> Settings {
        Settings {
            listen: ANY,
            to,
            impairment: Impairment::default(),
            rebind: None,
            rebind_every: None,
            run_for: Some(Duration::from_secs(20)),
        }
    }

    #[test]
    fn datagrams_pass_both_ways_and_each_client_has_its_own_port() {
        let target = socket();
        let report = with(settings(target.local_addr().unwrap()), |relay| {
            let mut buffer = [0; 64];
            let mut ports = Vec::new();
            for name in [b'a', b'b'] {
                let client = socket();
                client.send_to(&[name, 1], relay).unwrap();
                let (length, from) = target.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..length], [name, 1]);
                target.send_to(&[name, 2], from).unwrap();
                let (length, from_relay) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from_relay), (&[name, 2][..], relay));
                ports.push(from.port());
            }
            assert_ne!(ports[0], ports[1]);
        });
        assert_eq!((report.clients, report.forward.delivered), (2, 2));
        assert_eq!((report.backward.delivered, report.rebinds), (2, 0));
    }

    #[test]
    fn the_outgoing_port_changes_and_the_client_does_not_notice() {
        let target = socket();
        let mut settings = settings(target.local_addr().unwrap());
        settings.rebind = Some(Duration::from_millis(20));
        let report = with(settings, |relay| {
            let client = socket();
            let mut buffer = [0; 64];
            let mut ports = Vec::new();
            for _ in 0..2 {
                client.send_to(b"x", relay).unwrap();
                let (_, from) = target.recv_from(&mut buffer).unwrap();
                ports.push(from.port());
                target.send_to(b"y", from).unwrap();
                assert_eq!(client.recv_from(&mut buffer).unwrap().1, relay);
                thread::sleep(Duration::from_millis(150));
            }
            assert_ne!(ports[0], ports[1]);
        });
        assert_eq!((report.clients, report.rebinds), (1, 1));
    }

    #[test]
    fn impairments_differ_by_direction_and_are_counted() {
        let target = socket();
        let mut settings = settings(target.local_addr().unwrap());
        settings.impairment.forward = Config {
            drop_every: core::num::NonZeroU32::new(2),
            ..Config::default()
        };
        settings.impairment.backward = Config {
            duplicate: 1.0,
            delay: Duration::from_millis(30),
            ..Config::default()
        };
        let report = with(settings, |relay| {
            let client = socket();
            let mut buffer = [0; 64];
            for n in 0..4 {
                client.send_to(&[n], relay).unwrap();
            }
            for expected in [0, 2] {
                let (_, from) = target.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[0], expected);
                target.send_to(&[expected], from).unwrap();
            }
            let begin = monotonic();
            for expected in [0, 0, 2, 2] {
                client.recv(&mut buffer).unwrap();
                assert_eq!(buffer[0], expected);
            }
            assert!(monotonic().saturating_since(begin) > Duration::from_millis(20));
        });
        assert_eq!((report.forward.received, report.forward.lost), (4, 2));
        assert_eq!(
            (report.backward.received, report.backward.duplicated),
            (2, 2)
        );
    }
}
