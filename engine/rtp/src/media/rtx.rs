//! Retransmissions (RFC 4588): which SSRC repeats which, and the original packet put together
//! again. What the stream of retransmissions itself lost is counted for its report block.

use mirror_base::Instant;

use crate::Header;
use crate::report::{Figures, LastReport};
use crate::rtcp::{ReportBlock, SenderInfo};
use crate::session::SenderReport;

/// The stream of retransmissions, where it has an SSRC of its own.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    highest: u32,
    base: u32,
    received: u32,
    heard: bool,
    sender_report: Option<SenderReport>,
    last: LastReport,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Rtx {
    stream: Option<Stream>,
    rebuilt: Vec<u8>,
}

impl Rtx {
    /// Another source is taken: what repeated the last one repeats nothing now.
    pub(super) fn forget(&mut self) {
        self.stream = None;
    }

    /// Whether `ssrc` is known to repeat our source.
    pub(super) fn is_known(&self, ssrc: u32) -> bool {
        self.stream.as_ref().is_some_and(|s| s.ssrc == ssrc)
    }

    /// Whether it is not known who repeats our source.
    pub(super) const fn is_open(&self) -> bool {
        self.stream.is_none()
    }

    /// A packet of the stream that repeats our source came.
    pub(super) fn note(&mut self, header: &Header) {
        let stream = self.stream.get_or_insert_with(|| Stream {
            ssrc: header.ssrc,
            highest: u32::from(header.sequence),
            base: u32::from(header.sequence),
            received: 0,
            heard: false,
            sender_report: None,
            last: LastReport::default(),
        });
        let step = header.sequence.wrapping_sub(stream.highest as u16);
        if step < 0x8000 {
            stream.highest = stream.highest.wrapping_add(u32::from(step));
        }
        stream.received = stream.received.wrapping_add(1);
        stream.heard = true;
    }

    /// A sender report of `info.ssrc`.
    pub(super) fn sender_report(&mut self, arrival: Instant, info: SenderInfo) {
        if let Some(stream) = self.stream.as_mut().filter(|s| s.ssrc == info.ssrc) {
            stream.sender_report = Some(SenderReport { info, arrival });
        }
    }

    /// The report block that is due, if something came since the last one.
    pub(super) fn block(&mut self, now: Instant) -> Option<ReportBlock> {
        let stream = self.stream.as_mut()?;
        if !core::mem::take(&mut stream.heard) {
            return None;
        }
        let figures = Figures {
            ssrc: stream.ssrc,
            extended_highest_sequence: stream.highest,
            base_sequence: stream.base,
            received: stream.received,
            // The time of a repetition says nothing of the network's.
            jitter: 0,
            sender_report: stream.sender_report,
        };
        Some(stream.last.block(now, &figures))
    }

    /// The original of the retransmission `datagram`: payload type `apt`, SSRC `ssrc`, and the
    /// sequence number that its payload begins with. `None`: it has none, as probes that are
    /// all padding.
    pub(super) fn rebuild(
        &mut self,
        header: &Header,
        datagram: &[u8],
        apt: u8,
        ssrc: u32,
    ) -> Option<(u16, &[u8])> {
        let (head, _) = datagram.split_at_checked(usize::from(header.payload_offset))?;
        let payload =
            datagram.get(usize::from(header.payload_offset)..usize::from(header.payload_end))?;
        let (&original, payload) = payload.split_first_chunk::<2>()?;
        self.rebuilt.clear();
        self.rebuilt.extend_from_slice(head);
        self.rebuilt.extend_from_slice(payload);
        let fixed = self.rebuilt.first_chunk_mut::<12>()?;
        let [b0, b1, q0, q1, _, _, _, _, s0, s1, s2, s3] = fixed;
        // The padding was the retransmission's own.
        *b0 &= !0x20;
        *b1 = *b1 & 0x80 | apt & 0x7F;
        [*q0, *q1] = original;
        [*s0, *s1, *s2, *s3] = ssrc.to_be_bytes();
        Some((u16::from_be_bytes(original), &self.rebuilt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_put_together_with_csrc_and_extension_and_without_padding() {
        let mut datagram = vec![0xB1, 0xE1, 0, 9, 0, 0, 0, 5, 0, 0, 0, 22];
        datagram.extend_from_slice(&[0, 0, 0, 33]);
        datagram.extend_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, 1, 0, 0]);
        datagram.extend_from_slice(&[0x12, 0x34, b'a', b'b', 0, 0, 3]);
        let header = Header::parse(&datagram).unwrap();
        let mut rtx = Rtx::default();
        let (original, rebuilt) = rtx.rebuild(&header, &datagram, 96, 11).unwrap();
        assert_eq!(original, 0x1234);
        let header = Header::parse(rebuilt).unwrap();
        assert_eq!(
            (header.sequence, header.ssrc, header.payload_type),
            (0x1234, 11, 96)
        );
        assert!(header.marker && header.timestamp == 5);
        assert_eq!(&rebuilt[usize::from(header.payload_offset)..], b"ab");
        assert_eq!(rebuilt[12..16], [0, 0, 0, 33]);
    }

    #[test]
    fn a_probe_without_an_original_is_none() {
        for payload in [&[][..], &[1], &[0, 0, 3]] {
            let mut datagram = vec![0x80, 97, 0, 9, 0, 0, 0, 5, 0, 0, 0, 22];
            datagram.extend_from_slice(payload);
            if payload.len() == 3 {
                datagram[0] |= 0x20;
            }
            let header = Header::parse(&datagram).unwrap();
            assert!(Rtx::default().rebuild(&header, &datagram, 96, 1).is_none());
        }
    }

    #[test]
    fn the_stream_of_retransmissions_is_reported_on_when_it_was_heard() {
        let mut rtx = Rtx::default();
        for sequence in [65_534u16, 65_535, 2] {
            let mut datagram = vec![0x80, 97];
            datagram.extend_from_slice(&sequence.to_be_bytes());
            datagram.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 5]);
            rtx.note(&Header::parse(&datagram).unwrap());
        }
        let block = rtx.block(Instant::ZERO).unwrap();
        assert_eq!((block.ssrc, block.extended_highest_sequence), (5, 0x1_0002));
        assert_eq!((block.cumulative_lost, block.fraction_lost), (2, 102));
        assert_eq!(rtx.block(Instant::ZERO), None);
    }
}
