//! MPEG transport streams (ISO 13818-1): packets, program specific information, PES and the
//! demultiplexer that turns them into access units. Called by [`crate::Pipeline`].
//!
//! A payload goes through [`framer`] (the grid of packets), [`demux`] (PIDs, continuity, PSI,
//! PES) and, for H.264 and HEVC, [`start_codes`] and the assembler, for audio and KLV `frames`,
//! for splice information [`splice`]. Beside it `monitor` measures what [`tr101290`] asks for.
//! [`extract`] goes the same way back: from a unit's positions to its bytes. [`file`] plays a
//! file in its own time.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

mod coded;
pub mod demux;
mod elementary;
pub mod extract;
pub mod file;
pub mod framer;
mod frames;
mod heads;
#[cfg(test)]
mod hostile_tests;
pub mod klv;
mod monitor;
mod pcr;
pub mod pes;
pub mod place;
mod programs;
pub mod psi;
pub mod splice;
pub mod start_codes;
mod streams;
pub mod tr101290;
mod unusual;

pub use demux::Demux;
pub use framer::{Framer, PACKET, packet_size};
pub use pcr::Pcr;

/// Bytes of payload in a packet without an adaptation field.
pub(crate) const DATA: usize = PACKET - 4;
/// Packets in a payload, nearly always: as many as a datagram of 1500 bytes takes.
pub(crate) const USUAL: usize = 7;

/// A TS packet's first four bytes and adaptation field, as far as every packet needs them
/// (2.4.3.2 and 2.4.3.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    bits: u32,
    /// Where the payload begins; 188 or more: there is none, or the adaptation field is broken.
    pub(crate) payload: usize,
    /// The adaptation field's flags, 0 without one.
    pub(crate) flags: u8,
}

/// Adaptation field flags.
pub(crate) const DISCONTINUITY: u8 = 0x80;
pub(crate) const RANDOM_ACCESS: u8 = 0x40;
pub(crate) const PCR: u8 = 0x10;

impl Header {
    #[inline]
    pub(crate) fn read(packet: &[u8; PACKET]) -> Self {
        let bits = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
        let (mut payload, mut flags) = (4, 0);
        if bits & 0x20 != 0 {
            payload = 5 + usize::from(packet[4]);
            flags = if packet[4] > 0 { packet[5] } else { 0 };
        }
        Header {
            bits,
            payload,
            flags,
        }
    }

    #[inline]
    pub(crate) const fn pid(self) -> usize {
        (self.bits >> 8 & 0x1FFF) as usize
    }

    /// Transport error, scrambled, or without payload.
    #[inline]
    pub(crate) const fn is_odd(self) -> bool {
        self.bits & 0x0080_00D0 != 0x10
    }

    pub(crate) const fn has_error(self) -> bool {
        self.bits & 0x0080_0000 != 0
    }

    pub(crate) const fn is_scrambled(self) -> bool {
        self.bits & 0xC0 != 0
    }

    pub(crate) const fn has_payload(self) -> bool {
        self.bits & 0x10 != 0
    }

    #[inline]
    pub(crate) const fn starts_unit(self) -> bool {
        self.bits & 0x0040_0000 != 0
    }

    #[inline]
    pub(crate) const fn continuity(self) -> u8 {
        (self.bits & 0xF) as u8
    }

    /// Whether the adaptation field holds stuffing: in most streams the sign of a PES packet's
    /// last TS packet.
    #[inline]
    pub(crate) const fn is_stuffed(self) -> bool {
        if self.bits & 0x20 == 0 {
            return false;
        }
        // Splice countdown, private data and extension are not measured: not called stuffed.
        let used = 6
            + (if self.flags & 0x10 != 0 { 6 } else { 0 })
            + (if self.flags & 0x08 != 0 { 6 } else { 0 });
        self.flags & 0x07 == 0 && self.payload > if self.payload == 5 { 4 } else { used }
    }
}
