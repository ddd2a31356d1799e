//! Rings, provided buffers, sockets and batched sends: the room that talks to the kernel, and
//! (with a crypto kernel in `srt`) the only one with `unsafe`.
//!
//! - [`Reactor`]: the ring of one shard. Multishot `recvmsg` into a small ring of hot buffers,
//!   coalesced wakes, `sendmmsg` batches (design D1, D2, D5).
//! - [`bind_group`] and [`UdpSocket`]: sockets with receive timestamps, packet info, drop
//!   counting, and the classic-BPF program that steers a datagram to its shard (design 3, D4, D7).
//! - [`probe`]: whether this host can run all that, said in words an operator can act on.
//! - [`ChunkPool`]: prefaulted packet memory.
//!
//! `shard` drives it in production, `loadtest` on the sender's side, `daemon` calls the probe.

// DOOR: signatures other rooms are written against.

mod address;
mod buffers;
mod clock;
mod config;
mod intake;
mod memory;
mod message;
mod multicast;
mod origin;
pub mod plain;
mod pool;
mod prefetch;
mod probe;
mod reactor;
mod send;
mod socket;
mod steering;
mod sys;
mod wait;
mod waker;

pub use address::{Local, Peer};
pub use config::{
    Datagram, HEAD_BYTES, MAX_SOCKETS, MIN_BUFFER_BYTES, ReactorConfig, ReactorCounters, Sink,
    SocketCounters,
};
pub use intake::Intake;
pub use multicast::NetworkInterface;
pub use origin::{Envelope, Name, Origin};
pub use pool::{ChunkPool, Headroom};
pub use prefetch::{prefetch, prefetch_all, prefetch_behind};
pub use probe::{MIN_MEMLOCK_BYTES, SetupError, probe, probe_for};
pub use reactor::Reactor;
pub use socket::{BindError, SocketOptions, UdpSocket, bind_group};
pub use steering::Steering;
pub use sys::run_as_fifo;
pub use waker::Waker;
