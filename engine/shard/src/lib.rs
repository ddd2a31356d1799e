//! The shards: one pinned thread each, with its own ring, sockets, sessions and streams; what
//! the design calls the data path (sections 1 to 3, D1, D6, D13, D15).
//!
//! [`launch()`] binds the sockets, starts the threads and returns [`Shards`], through which the
//! control side sends commands; snapshots and events come back through the channel that it was
//! given. [`Shard`] is the loop itself over a [`Driver`]: the io_uring reactor in production, a
//! virtual network in the tests of this room.

pub mod config;
pub mod driver;
pub mod launch;

mod arena;
mod assemble;
mod call;
mod candidates;
mod command;
mod configured;
mod door;
mod handshake;
mod ids;
mod mailbox;
mod meet;
mod outbox;
mod oversize;
mod route;
mod rtp;
mod session;
mod shard;
mod streams;
mod timers;
mod wheel;

#[cfg(test)]
mod tests;

pub use assemble::assemble;
pub use config::{PayloadType, RtpConfig, ShardPlacement, ShardsConfig, SrtConfig};
pub use driver::{Clock, Driver, MonotonicClock, SocketFacts};
pub use launch::{BoundSocket, LaunchError, Shards, launch};
pub use mailbox::{Busy, Mailboxes};
pub use shard::{Shard, ShardParts, Turn};
