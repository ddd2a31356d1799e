//! The handshake (spec sections 3 to 8): the listener's stateless half ([`Handshaker`],
//! [`ConnectRequest`]), the caller's requests, and rendezvous. The shard feeds the first, a
//! connection drives the others.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

pub(crate) mod caller;
pub(crate) mod cif;
pub(crate) mod extensions;
mod listener;
mod negotiation;
pub(crate) mod rendezvous;

pub use listener::{ConnectRequest, HandshakeAction, Handshaker};

/// HSREQ and HSRSP flags (spec section 4.1).
pub(crate) mod flags {
    /// I will send with timestamps for TSBPD.
    pub(crate) const TSBPDSND: u32 = 0x01;
    /// I will receive with TSBPD.
    pub(crate) const TSBPDRCV: u32 = 0x02;
    /// I understand the KK bits.
    pub(crate) const CRYPT: u32 = 0x04;
    /// Too-late packet drop is on.
    pub(crate) const TLPKTDROP: u32 = 0x08;
    /// I send periodic NAK reports.
    pub(crate) const PERIODICNAK: u32 = 0x10;
    /// The R bit is used.
    pub(crate) const REXMITFLG: u32 = 0x20;
    /// Stream (buffer) API.
    pub(crate) const STREAM: u32 = 0x40;
    /// What we announce: live mode without packet filter.
    pub(crate) const OURS: u32 = TSBPDSND | TSBPDRCV | CRYPT | TLPKTDROP | PERIODICNAK | REXMITFLG;
}

#[cfg(test)]
mod tests;
