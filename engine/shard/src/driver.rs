//! The seam below the loop (D1): what a shard needs of the thing that moves datagrams. The
//! io_uring reactor implements it in production, a virtual network in the tests; nothing above
//! it knows which.

use core::net::{IpAddr, SocketAddr};
use mirror_base::Instant;
use mirror_stream::plan::{Interface, PortPlan};
use mirror_uring::{
    BindError, NetworkInterface, Reactor, ReactorCounters, Sink, SocketOptions, UdpSocket,
};

/// A clock that can be read while the driver is busy handing datagrams over.
pub trait Clock {
    /// The engine's monotonic time.
    fn now(&self) -> Instant;
}

/// What is known of one socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketFacts {
    /// Bound to.
    pub local: SocketAddr,
    /// Receive buffer granted, bytes.
    pub receive_buffer: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Datagrams that the kernel dropped for lack of buffer.
    pub kernel_drops: u64,
}

/// Moves datagrams between the sockets of one shard and its loop.
pub trait Driver {
    /// Its clock.
    type Clock: Clock;
    /// A handle on its clock.
    fn clock(&self) -> Self::Clock;
    /// Hands over everything that has arrived; returns the number of datagrams. A panic of
    /// `sink` passes through: what was handed over does not come again, the rest comes with
    /// the next call.
    fn reap(&mut self, sink: &mut impl Sink) -> usize;
    /// Whether somebody woke this shard since the last call.
    fn take_woken(&mut self) -> bool;
    /// Queues one datagram, to leave from `local` where that is known.
    fn send(&mut self, socket: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]);
    /// Sends what is queued.
    fn flush(&mut self);
    /// Blocks until something arrives, somebody wakes the shard, or `until`. `held`: nothing that
    /// may come is handed on before `until`, so that there is no hurry to take it.
    fn wait(&mut self, until: Instant, held: bool);
    /// Opens the socket that calls leave from: a free port of its own, outside every group, so
    /// that answers come to this shard whatever steers the others. Returns its index. Called
    /// once at the most.
    ///
    /// # Errors
    /// What the host refused, for people.
    fn open_callers(&mut self, options: &SocketOptions) -> Result<usize, String>;
    /// Opens a socket of a configured RTP session, outside every group. Returns its index.
    ///
    /// # Errors
    /// What the host refused, for people.
    fn open_port(&mut self, port: &PortPlan, options: &SocketOptions) -> Result<usize, String>;
    /// Opens a socket of a rendezvous on `address`, outside every group. Returns its index.
    ///
    /// # Errors
    /// What the host refused, for people.
    fn open_at(&mut self, address: SocketAddr, options: &SocketOptions) -> Result<usize, String>;
    /// Closes a socket that was opened so; its index may be given to another.
    fn close_socket(&mut self, index: usize);
    /// Figures.
    fn counters(&self) -> ReactorCounters;
    /// Number of its sockets.
    fn sockets(&self) -> usize;
    /// Facts of socket `index`.
    fn socket(&self, index: usize) -> SocketFacts;
    /// CPU time of the shard's thread so far, ns.
    fn cpu_ns(&self) -> u64;
}

/// `CLOCK_MONOTONIC`, as the reactor reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Instant {
        nanos_of(rustix::time::ClockId::Monotonic)
    }
}

fn nanos_of(clock: rustix::time::ClockId) -> Instant {
    let time = rustix::time::clock_gettime(clock);
    Instant::from_nanos(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

fn bind_port(port: &PortPlan, options: &SocketOptions) -> Result<UdpSocket, BindError> {
    if !port.is_multicast() {
        return UdpSocket::bind_alone(port.address, options);
    }
    let interface = port.interface.as_ref().map(|interface| match interface {
        Interface::Name(name) => NetworkInterface::Name(name),
        Interface::Address(address) => NetworkInterface::Address(*address),
    });
    UdpSocket::bind_group_address(port.address, &port.sources, interface, options)
}

impl Driver for Reactor {
    type Clock = MonotonicClock;

    fn clock(&self) -> MonotonicClock {
        MonotonicClock
    }

    #[inline]
    fn reap(&mut self, sink: &mut impl Sink) -> usize {
        self.reap_into(sink)
    }

    fn take_woken(&mut self) -> bool {
        Reactor::take_woken(self)
    }

    #[inline]
    fn send(&mut self, socket: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        Reactor::send(self, socket, peer, local, bytes);
    }

    #[inline]
    fn flush(&mut self) {
        Reactor::flush(self);
    }

    fn wait(&mut self, until: Instant, held: bool) {
        if held {
            self.wait_held(until);
        } else {
            Reactor::wait(self, until);
        }
    }

    fn open_callers(&mut self, options: &SocketOptions) -> Result<usize, String> {
        let socket = UdpSocket::bind_callers(options).map_err(|e| e.to_string())?;
        self.add_socket(socket).map_err(|e| e.to_string())
    }

    fn open_port(&mut self, port: &PortPlan, options: &SocketOptions) -> Result<usize, String> {
        let socket = bind_port(port, options).map_err(|e| e.to_string())?;
        self.add_socket(socket).map_err(|e| e.to_string())
    }

    fn open_at(&mut self, address: SocketAddr, options: &SocketOptions) -> Result<usize, String> {
        let socket = UdpSocket::bind_alone(address, options).map_err(|e| e.to_string())?;
        self.add_socket(socket).map_err(|e| e.to_string())
    }

    fn close_socket(&mut self, index: usize) {
        Reactor::close_socket(self, index);
    }

    fn counters(&self) -> ReactorCounters {
        Reactor::counters(self)
    }

    fn sockets(&self) -> usize {
        Reactor::sockets(self).len()
    }

    fn socket(&self, index: usize) -> SocketFacts {
        let socket = &Reactor::sockets(self)[index];
        let counters = self.socket_counters(index);
        SocketFacts {
            local: socket.local_addr(),
            receive_buffer: socket.granted_receive_buffer() as u64,
            datagrams: counters.datagrams,
            bytes: counters.bytes,
            kernel_drops: counters.kernel_drops,
        }
    }

    fn cpu_ns(&self) -> u64 {
        nanos_of(rustix::time::ClockId::ThreadCPUTime).as_nanos()
    }
}
