//! The wire format: packet headers (spec section 1), acknowledgements (10.1) and loss lists
//! (11.1). Called by the handshake and by connections; knows no state.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

pub(crate) mod ack;
pub(crate) mod loss;

use mirror_base::Instant;

/// Bytes of the SRT header.
pub(crate) const HEADER_LEN: usize = 16;
/// The smallest `out` that every packet we write fits in.
pub(crate) const MAX_DATAGRAM: usize = 1500;

/// Bit 31 of word 0: control packet.
pub(crate) const CONTROL_BIT: u32 = 1 << 31;
/// Word 1 of a data packet: position in the message, `11`: only packet.
pub(crate) const POSITION_SOLO: u32 = 0b11 << 30;
/// Word 1 of a data packet: encryption key flags.
pub(crate) const KK_MASK: u32 = 0b11 << 27;
/// Word 1 of a data packet: retransmitted.
pub(crate) const RETRANSMITTED: u32 = 1 << 26;
/// Word 1 of a data packet: message number; 0 marks a packet of the packet filter, if there is one.
pub(crate) const MESSAGE_MASK: u32 = (1 << 26) - 1;

/// The four words before each payload (spec section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Sequence number, or control type and subtype.
    pub(crate) word0: u32,
    /// Message number and flags, or type-specific information.
    pub(crate) word1: u32,
    /// µs since the sender's start.
    pub(crate) timestamp: u32,
    /// Whom it is for.
    pub(crate) destination: u32,
}

impl Header {
    /// Splits a datagram into header and the rest.
    #[inline]
    pub(crate) fn parse(datagram: &[u8]) -> Option<(Header, &[u8])> {
        let (head, rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [
            a0,
            a1,
            a2,
            a3,
            b0,
            b1,
            b2,
            b3,
            c0,
            c1,
            c2,
            c3,
            d0,
            d1,
            d2,
            d3,
        ] = *head;
        let header = Header {
            word0: u32::from_be_bytes([a0, a1, a2, a3]),
            word1: u32::from_be_bytes([b0, b1, b2, b3]),
            timestamp: u32::from_be_bytes([c0, c1, c2, c3]),
            destination: u32::from_be_bytes([d0, d1, d2, d3]),
        };
        Some((header, rest))
    }

    /// Whether this is a control packet.
    #[inline]
    pub(crate) const fn is_control(&self) -> bool {
        self.word0 & CONTROL_BIT != 0
    }

    /// The control type of a control packet.
    pub(crate) const fn control(&self) -> Control {
        match (self.word0 >> 16) & 0x7FFF {
            0 => Control::Handshake,
            1 => Control::Keepalive,
            2 => Control::Ack,
            3 => Control::Nak,
            4 => Control::CongestionWarning,
            5 => Control::Shutdown,
            6 => Control::AckAck,
            7 => Control::DropRequest,
            8 => Control::PeerError,
            0x7FFF => Control::Extension,
            _ => Control::Unknown,
        }
    }
}

/// Control types (spec section 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Handshake = 0,
    Keepalive = 1,
    Ack = 2,
    Nak = 3,
    CongestionWarning = 4,
    Shutdown = 5,
    AckAck = 6,
    DropRequest = 7,
    PeerError = 8,
    Extension = 0x7FFF,
    Unknown = 0x7FFE,
}

impl Control {
    /// Word 0 of a packet of this type, subtype 0.
    pub(crate) const fn word0(self) -> u32 {
        CONTROL_BIT | ((self as u32) << 16)
    }
}

/// The destination socket ID of a datagram (word 3), 0 for handshake requests; `None` for a runt.
#[inline]
pub fn destination_socket_id(datagram: &[u8]) -> Option<u32> {
    Header::parse(datagram).map(|(header, _)| header.destination)
}

/// The 32-bit timestamp of `now` for a side that began at `start` (spec section 1.1).
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "timestamps are modulo 2^32"
)]
pub(crate) const fn timestamp(now: Instant, start: Instant) -> u32 {
    now.micros_since(start) as u32
}

/// Takes the next big-endian word off `bytes`.
pub(crate) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*word))
}

/// Appends words to a caller's buffer. What does not fit is left out: callers give
/// [`MAX_DATAGRAM`] bytes, into which everything written here fits.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A packet that begins with `header`.
    #[inline]
    pub(crate) fn packet(out: &'a mut [u8], header: Header) -> Self {
        let mut writer = Writer { out, len: 0 };
        writer.u32(header.word0);
        writer.u32(header.word1);
        writer.u32(header.timestamp);
        writer.u32(header.destination);
        writer
    }

    /// A bare run of words.
    #[cfg(test)]
    pub(crate) fn bare(out: &'a mut [u8]) -> Self {
        Writer { out, len: 0 }
    }

    /// Appends one word, big-endian.
    #[inline]
    pub(crate) fn u32(&mut self, word: u32) {
        self.bytes(&word.to_be_bytes());
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if let Some(to) = self.out.get_mut(self.len..self.len + bytes.len()) {
            to.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// Words that still fit into `limit` bytes in all.
    pub(crate) fn words_left(&self, limit: usize) -> usize {
        limit.min(self.out.len()).saturating_sub(self.len) / 4
    }

    /// The length written.
    #[inline]
    pub(crate) const fn finish(self) -> usize {
        self.len
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
