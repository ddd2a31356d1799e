//! The 48 bytes of a handshake packet (spec section 3).

use core::net::{IpAddr, SocketAddr};
use mirror_base::PacketSequenceNumber;

use crate::packet::{Control, Header, Writer, take_u32};

/// Handshake type INDUCTION.
pub(crate) const INDUCTION: u32 = 1;
/// Handshake type WAVEAHAND: rendezvous, the first message.
pub(crate) const WAVEAHAND: u32 = 0;
/// Handshake type AGREEMENT: rendezvous, the last message.
pub(crate) const AGREEMENT: u32 = 0xFFFF_FFFE;
/// Handshake type CONCLUSION.
pub(crate) const CONCLUSION: u32 = 0xFFFF_FFFF;
/// Extension field of a listener's induction response: it speaks HSv5.
pub(crate) const MAGIC: u16 = 0x4A17;
/// Extension field of a caller's induction request: UDT's datagram socket.
pub(crate) const UDT_DGRAM: u16 = 2;

/// Extension field of a conclusion: HSREQ or HSRSP is attached.
pub(crate) const EXT_HSREQ: u16 = 1;
/// Extension field of a conclusion: KMREQ or KMRSP is attached.
pub(crate) const EXT_KMREQ: u16 = 2;
/// Extension field of a conclusion: other blocks are attached.
pub(crate) const EXT_CONFIG: u16 = 4;

/// Smallest MSS (spec section 20).
const MIN_MSS: u32 = 76;

/// The handshake's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandshakeCif {
    pub(crate) version: u32,
    pub(crate) encryption: u16,
    pub(crate) extension: u16,
    pub(crate) initial_sequence: u32,
    pub(crate) mss: u32,
    pub(crate) flow_window: u32,
    pub(crate) handshake_type: u32,
    pub(crate) socket_id: u32,
    pub(crate) cookie: u32,
    pub(crate) peer_ip: [u8; 16],
}

impl HandshakeCif {
    /// Reads the fixed part; the rest are extension blocks. `None` when it is shorter than 48
    /// bytes.
    pub(crate) fn parse(mut cif: &[u8]) -> Option<(Self, &[u8])> {
        let version = take_u32(&mut cif)?;
        let fields = take_u32(&mut cif)?;
        let initial_sequence = take_u32(&mut cif)?;
        let mss = take_u32(&mut cif)?;
        let flow_window = take_u32(&mut cif)?;
        let handshake_type = take_u32(&mut cif)?;
        let socket_id = take_u32(&mut cif)?;
        let cookie = take_u32(&mut cif)?;
        let (peer_ip, rest) = cif.split_first_chunk::<16>()?;
        let handshake = HandshakeCif {
            version,
            encryption: high(fields),
            extension: low(fields),
            initial_sequence,
            mss,
            flow_window,
            handshake_type,
            socket_id,
            cookie,
            peer_ip: *peer_ip,
        };
        Some((handshake, rest))
    }

    /// libsrt's plausibility check (spec section 3).
    pub(crate) const fn is_plausible(&self) -> bool {
        self.version >= 4
            && self.initial_sequence < PacketSequenceNumber::MAX
            && self.mss >= 32
            && self.flow_window >= 2
    }

    /// Whether packets of the MSS hold more than their headers (spec section 20).
    pub(crate) const fn has_room(&self) -> bool {
        self.mss >= MIN_MSS
    }

    /// Begins the packet; extension blocks may follow.
    pub(crate) fn begin<'a>(
        &self,
        out: &'a mut [u8],
        timestamp: u32,
        destination: u32,
    ) -> Writer<'a> {
        let word0 = Control::Handshake.word0();
        let mut writer = Writer::packet(
            out,
            Header {
                word0,
                word1: 0,
                timestamp,
                destination,
            },
        );
        writer.u32(self.version);
        writer.u32(u32::from(self.encryption) << 16 | u32::from(self.extension));
        writer.u32(self.initial_sequence);
        writer.u32(self.mss);
        writer.u32(self.flow_window);
        writer.u32(self.handshake_type);
        writer.u32(self.socket_id);
        writer.u32(self.cookie);
        writer.bytes(&self.peer_ip);
        writer
    }
}

pub(crate) const fn high(word: u32) -> u16 {
    let [a, b, _, _] = word.to_be_bytes();
    u16::from_be_bytes([a, b])
}

pub(crate) const fn low(word: u32) -> u16 {
    let [_, _, c, d] = word.to_be_bytes();
    u16::from_be_bytes([c, d])
}

/// The peer IP field: each group of four bytes reversed (spec section 3).
pub(crate) fn peer_ip_field(peer: SocketAddr) -> [u8; 16] {
    let mut field = [0; 16];
    match peer.ip().to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            for (to, from) in field.iter_mut().zip([d, c, b, a]) {
                *to = from;
            }
        }
        IpAddr::V6(v6) => {
            field = v6.octets();
            for group in field.chunks_exact_mut(4) {
                group.reverse();
            }
        }
    }
    field
}
