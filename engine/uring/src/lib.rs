//! Rings, provided buffers, sockets and batched sends: the room that talks to the kernel.

// DOOR: signatures other rooms are written against.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use mirror_base::{Chunk, Instant};

/// What a SO_REUSEPORT group steers by (design section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steering {
    /// Bytes 12–15 mod shards; destination 0 and runts: the kernel's hash.
    Srt,
    /// RTP: SSRC in bytes 8–11; RTCP on the same port (byte 1 in 192–223): bytes 4–7.
    Rtp,
    /// RTCP: sender's SSRC in bytes 4–7.
    Rtcp,
}

/// Socket options.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_RCVBUF(FORCE) to ask for.
    pub receive_buffer: usize,
    /// SO_SNDBUF(FORCE) to ask for.
    pub send_buffer: usize,
    /// SO_TIMESTAMPNS.
    pub timestamps: bool,
    /// UDP_GRO.
    pub gro: bool,
    /// Attach the steering program (else the kernel's hash decides).
    pub steering: bool,
}

/// A bound, non-blocking UDP socket of ours.
#[derive(Debug)]
pub struct UdpSocket { _p: () }

impl UdpSocket {
    /// Where it is bound.
    pub fn local_addr(&self) -> SocketAddr { todo!() }
    /// SO_RCVBUF that the kernel granted (as it reports it: twice the asked size counts).
    pub fn granted_receive_buffer(&self) -> usize { todo!() }
}

/// Why sockets could not be bound: says address, option and the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is in use (also by another engine's group).
    #[error("{0} is in use by another process")]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot {action} on {address}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// For which address.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Binds one socket a shard to `listen`, in bind order = shard order, steered. A probe without
/// SO_REUSEPORT comes first. `[::]` is dual-stack; a host without IPv6 gets 0.0.0.0 (and a
/// tracing-free `true` in the second value: "fell back to IPv4").
pub fn bind_group(listen: SocketAddr, shards: usize, steering: Steering, options: &SocketOptions) -> Result<(Vec<UdpSocket>, bool), BindError> { let _ = (listen, shards, steering, options); todo!() }

/// A received datagram, valid until the callback returns.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Index of the socket in the reactor.
    pub socket: usize,
    /// Sender; `::ffff:` unmapped.
    pub peer: SocketAddr,
    /// Our address that it was sent to (pktinfo), where known; unmapped.
    pub local: Option<IpAddr>,
    /// Kernel receive timestamp on the monotonic clock; time of reaping where there is none.
    pub arrival: Instant,
    /// The UDP payload (one segment of a GRO super-packet).
    pub payload: &'a [u8],
    /// The buffer was too small (MSG_TRUNC): the rest is lost.
    pub truncated: bool,
}

/// Options of a reactor.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Provided buffers (power of two).
    pub buffers: u16,
    /// Bytes of each.
    pub buffer_bytes: usize,
    /// CQ entries.
    pub cq_entries: u32,
    /// Wake coalescing.
    pub min_wait: Duration,
    /// Datagrams queued for sending before a flush is forced.
    pub send_batch: usize,
}

impl Default for ReactorConfig {
    fn default() -> Self {
        ReactorConfig { buffers: 256, buffer_bytes: 2048, cq_entries: 8192, min_wait: Duration::from_micros(500), send_batch: 64 }
    }
}

/// Figures of a reactor.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorCounters {
    pub enters: u64,
    pub wakeups: u64,
    pub completions: u64,
    pub rearms: u64,
    pub cq_overflows: u64,
    pub send_calls: u64,
    pub datagrams_sent: u64,
    pub send_errors: u64,
}

/// The ring of one shard: the `Driver` of production. Not Send; made on the shard's thread.
#[derive(Debug)]
pub struct Reactor { _p: () }

/// Wakes a reactor from another thread (eventfd).
#[derive(Clone, Debug)]
pub struct Waker { _p: () }

impl Waker {
    /// Wakes it, or makes its next wait return at once.
    pub fn wake(&self) { todo!() }
}

impl Reactor {
    /// Sets up the ring, registers the sockets and arms their receives.
    pub fn new(config: ReactorConfig, sockets: Vec<UdpSocket>) -> Result<Self, SetupError> { let _ = (config, sockets); todo!() }
    /// Wakes this reactor.
    pub fn waker(&self) -> Waker { todo!() }
    /// Reads the clock.
    pub fn now(&self) -> Instant { todo!() }
    /// Hands over everything that has arrived; returns the number of datagrams. Also refreshes
    /// the REALTIME→monotonic offset once a call.
    pub fn reap(&mut self, handle: &mut impl FnMut(Datagram<'_>)) -> usize { let _ = handle; todo!() }
    /// Whether the waker fired since the last call.
    pub fn take_woken(&mut self) -> bool { todo!() }
    /// Queues one datagram (copied); flushes by itself when the batch is full.
    pub fn send(&mut self, socket: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) { let _ = (socket, peer, local, bytes); todo!() }
    /// Sends what is queued (sendmmsg).
    pub fn flush(&mut self) { todo!() }
    /// Blocks until something arrives, the waker fires, or `until`. Honour D1: min_wait is
    /// capped by the time to `until`, and by what the receive buffer can take.
    pub fn wait(&mut self, until: Instant) { let _ = until; todo!() }
    /// Kernel drops of socket `index` (SO_RXQ_OVFL), datagrams and bytes received on it.
    pub fn socket_counters(&self, index: usize) -> SocketCounters { let _ = index; todo!() }
    /// Its sockets.
    pub fn sockets(&self) -> &[UdpSocket] { todo!() }
    /// Figures.
    pub fn counters(&self) -> ReactorCounters { todo!() }
}

/// Figures of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketCounters { pub datagrams: u64, pub bytes: u64, pub kernel_drops: u64, pub truncated: u64 }

/// The host cannot run a ring as we need it. Each names the feature, the kernel that has it and
/// the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// placeholder; the owner writes the real ones
    #[error("{0}")]
    Unsupported(String),
}

/// Looks at the host: io_uring enabled, kernel features, RLIMIT_MEMLOCK. `Ok` = can run.
pub fn probe() -> Result<(), SetupError> { todo!() }

/// Prefaulted packet memory, never unmapped (D2).
#[derive(Debug)]
pub struct ChunkPool { _p: () }

impl ChunkPool {
    /// Maps and touches `bytes`, rounded down to whole chunks.
    pub fn new(bytes: usize, huge_pages: bool) -> Result<Self, std::io::Error> { let _ = (bytes, huge_pages); todo!() }
    /// One chunk, if any is left.
    pub fn take(&mut self) -> Option<Chunk> { todo!() }
    /// Gives one back.
    pub fn put(&mut self, chunk: Chunk) { let _ = chunk; todo!() }
    /// Chunks in all.
    pub fn chunks(&self) -> usize { todo!() }
    /// Chunks free.
    pub fn free(&self) -> usize { todo!() }
}
