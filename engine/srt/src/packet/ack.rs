//! ACK packets: full, small and light (spec section 10.1).

use mirror_base::PacketSequenceNumber;

use super::{Writer, take_u32};

/// What an ACK says. Words that a form lacks are `None`: the light one has the first word only,
/// the small one four, peers before SRT 1.0.3 sent six, 1.0.2 eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AckCif {
    /// First sequence number not yet received in order.
    pub(crate) sequence: PacketSequenceNumber,
    /// Whether the CIF had exactly one word.
    pub(crate) light: bool,
    /// Round-trip time and variance, µs.
    pub(crate) rtt_us: Option<(u32, u32)>,
    /// Free packets in the receiver's buffer.
    pub(crate) available: Option<u32>,
    /// Packets received a second, and link capacity in packets a second.
    pub(crate) rates_pps: Option<(u32, u32)>,
}

impl AckCif {
    /// Reads any form; `None` when there is not even one word.
    pub(crate) fn parse(mut cif: &[u8]) -> Option<Self> {
        let light = cif.len() == 4;
        let sequence = PacketSequenceNumber::new(take_u32(&mut cif)?);
        let rtt = take_u32(&mut cif);
        let variance = take_u32(&mut cif);
        let available = take_u32(&mut cif);
        let rate = take_u32(&mut cif);
        let capacity = take_u32(&mut cif);
        Some(AckCif {
            sequence,
            light,
            rtt_us: rtt.zip(variance),
            available,
            rates_pps: rate.zip(capacity),
        })
    }
}

/// The seven words of a full ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FullAck {
    pub(crate) sequence: PacketSequenceNumber,
    pub(crate) rtt_us: u32,
    pub(crate) rtt_var_us: u32,
    pub(crate) available: u32,
    pub(crate) rate_pps: u32,
    pub(crate) capacity_pps: u32,
    pub(crate) rate_bytes: u32,
}

impl FullAck {
    /// Appends the CIF.
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.sequence.get());
        writer.u32(self.rtt_us);
        writer.u32(self.rtt_var_us);
        writer.u32(self.available);
        writer.u32(self.rate_pps);
        writer.u32(self.capacity_pps);
        writer.u32(self.rate_bytes);
    }
}
