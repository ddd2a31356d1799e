//! The ground that every room stands on: time, sequence arithmetic, identifiers,
//! the slot ring that holds received datagrams, and the reasons for discarding one.
//!
//! Nothing here knows a socket, a clock, a thread or the operating system's randomness:
//! time comes in as [`time::Instant`], memory as [`ring::Chunk`]s.

pub mod discard;
pub mod id;
pub mod net;
pub mod ring;
pub mod seq;
pub mod time;

pub use discard::Discard;
pub use id::{ShardId, StreamId};
pub use net::AddressRange;
pub use ring::{Ahead, Chunk, Delivery, Position, SLOT_BYTES, SlotMeta, SlotRing};
pub use seq::PacketSequenceNumber;
pub use time::Instant;
