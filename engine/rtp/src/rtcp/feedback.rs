//! Feedback messages (RFC 4585, RFC 5104): reading what others send, and writing what a
//! receiver asks of a sender: generic NACK, PLI and FIR.

use super::write::{put_header, put_u32};
use super::{PAYLOAD_FEEDBACK, Packet, TRANSPORT_FEEDBACK, take_u32};

/// Transport-layer feedback: generic NACK.
pub const NACK: u8 = 1;
/// Payload-specific feedback: picture loss indication.
pub const PLI: u8 = 1;
/// Payload-specific feedback: full intra request.
pub const FIR: u8 = 4;

/// Lost packets of a generic NACK (RFC 4585, 6.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NackPair {
    /// The first one's sequence number.
    pub packet_id: u16,
    /// Bit i set: `packet_id` + i + 1 is lost too.
    pub following: u16,
}

impl NackPair {
    /// The sequence numbers it names.
    pub fn sequences(self) -> impl Iterator<Item = u16> {
        let following = (0..16u16)
            .filter(move |i| self.following >> i & 1 == 1)
            .map(move |i| self.packet_id.wrapping_add(i + 1));
        core::iter::once(self.packet_id).chain(following)
    }
}

/// Adds `sequence` to `pairs`; numbers come in ascending order. `false`: there are `most`
/// pairs and none has room for it.
pub(crate) fn push_sequence(pairs: &mut Vec<NackPair>, sequence: u16, most: usize) -> bool {
    if let Some(last) = pairs.last_mut() {
        let distance = sequence.wrapping_sub(last.packet_id);
        if distance == 0 {
            return true;
        }
        if distance <= 16 {
            last.following |= 1 << (distance - 1);
            return true;
        }
    }
    if pairs.len() >= most {
        return false;
    }
    pairs.push(NackPair {
        packet_id: sequence,
        following: 0,
    });
    true
}

impl<'a> Packet<'a> {
    /// The media source that a feedback message is about. In a FIR it is 0.
    pub fn feedback_source(&self) -> Option<u32> {
        if !matches!(self.packet_type, TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK) {
            return None;
        }
        let mut body = self.body.get(4..)?;
        take_u32(&mut body)
    }

    /// Feedback control information, if this is feedback of the format `format`.
    fn control_information(&self, packet_type: u8, format: u8) -> Option<&'a [u8]> {
        if self.packet_type == packet_type && self.count == format {
            self.body.get(8..)
        } else {
            None
        }
    }

    /// What a generic NACK asks for.
    pub fn nacks(&self) -> impl Iterator<Item = NackPair> + use<'a> {
        let fci = self.control_information(TRANSPORT_FEEDBACK, NACK);
        let words = fci.unwrap_or_default().as_chunks::<4>().0.iter();
        words.map(|&[p0, p1, b0, b1]| NackPair {
            packet_id: u16::from_be_bytes([p0, p1]),
            following: u16::from_be_bytes([b0, b1]),
        })
    }

    /// Whether this is a picture loss indication.
    pub fn is_picture_loss(&self) -> bool {
        self.control_information(PAYLOAD_FEEDBACK, PLI).is_some()
    }

    /// SSRC and sequence number of each full intra request.
    pub fn full_intra_requests(&self) -> impl Iterator<Item = (u32, u8)> + use<'a> {
        let fci = self.control_information(PAYLOAD_FEEDBACK, FIR);
        let entries = fci.unwrap_or_default().as_chunks::<8>().0.iter();
        entries.map(|&[s0, s1, s2, s3, number, ..]| (u32::from_be_bytes([s0, s1, s2, s3]), number))
    }
}

/// Asks `source` for the packets of `pairs`.
pub(crate) fn write_nack(own_ssrc: u32, source: u32, pairs: &[NackPair], out: &mut Vec<u8>) {
    put_header(NACK, TRANSPORT_FEEDBACK, 2 + pairs.len(), out);
    put_u32(own_ssrc, out);
    put_u32(source, out);
    for pair in pairs {
        out.extend_from_slice(&pair.packet_id.to_be_bytes());
        out.extend_from_slice(&pair.following.to_be_bytes());
    }
}

/// Tells `source` that a picture is lost.
pub(crate) fn write_pli(own_ssrc: u32, source: u32, out: &mut Vec<u8>) {
    put_header(PLI, PAYLOAD_FEEDBACK, 2, out);
    put_u32(own_ssrc, out);
    put_u32(source, out);
}

/// Demands a decoder refresh point of `source`; `number` tells requests from repetitions.
pub(crate) fn write_fir(own_ssrc: u32, source: u32, number: u8, out: &mut Vec<u8>) {
    put_header(FIR, PAYLOAD_FEEDBACK, 4, out);
    put_u32(own_ssrc, out);
    // RFC 5104, 4.3.1.2: the media source is in the entry, and 0 here.
    put_u32(0, out);
    put_u32(source, out);
    out.extend_from_slice(&[number, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp;

    #[test]
    fn what_is_asked_for_reads_back() {
        let lost = [65_530u16, 65_534, 65_535, 0, 10, 11, 40];
        let mut pairs = Vec::new();
        assert!(lost.iter().all(|s| push_sequence(&mut pairs, *s, 3)));
        assert!(!push_sequence(&mut pairs, 100, 3));
        assert_eq!(pairs.len(), 3);
        let mut out = Vec::new();
        write_nack(7, 9, &pairs, &mut out);
        write_pli(7, 9, &mut out);
        write_fir(7, 9, 200, &mut out);
        let packets: Vec<_> = rtcp::parse(&out).unwrap().collect();
        let asked: Vec<u16> = packets[0].nacks().flat_map(NackPair::sequences).collect();
        assert_eq!(asked, lost);
        assert_eq!(packets[0].feedback_source(), Some(9));
        assert_eq!(packets[0].ssrc(), Some(7));
        assert!(packets[1].is_picture_loss() && !packets[2].is_picture_loss());
        assert_eq!(packets[1].nacks().count(), 0);
        assert_eq!(
            packets[2].full_intra_requests().collect::<Vec<_>>(),
            [(9, 200)]
        );
    }

    #[test]
    fn requests_have_the_bytes_that_the_rfcs_lay_out() {
        let mut out = Vec::new();
        write_nack(
            1,
            2,
            &[NackPair {
                packet_id: 0x1234,
                following: 5,
            }],
            &mut out,
        );
        let nack = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0x12, 0x34, 0, 5];
        assert_eq!(out, nack);
        out.clear();
        write_fir(1, 2, 3, &mut out);
        let fir = [
            0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0,
        ];
        assert_eq!(out, fir);
    }
}
