//! The RTP header (RFC 3550, 5.1) and the checks that a datagram must pass before anything
//! else looks at it (A.1 "validity", RFC 5761 for RTCP on the same port). The shard calls it
//! for every datagram of an RTP socket.

use mirror_base::Discard;

/// Bytes of the fixed header.
const FIXED_BYTES: usize = 12;

/// A validated RTP header (RFC 3550, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The marker bit; for video, the last packet of an access unit.
    pub marker: bool,
    /// Payload type, 0–127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the payload's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Offset of the payload.
    pub payload_offset: u16,
    /// End of the payload (padding cut).
    pub payload_end: u16,
}

impl Header {
    /// Checks and parses. An empty payload, and one that is all padding, is legal.
    ///
    /// # Errors
    /// [`Discard::Runt`], [`Discard::TooLong`], [`Discard::RtpVersion`] or
    /// [`Discard::RtpOverrun`] (CSRC list, extension or padding run past the datagram).
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Header, Discard> {
        let Some((fixed, rest)) = datagram.split_first_chunk::<FIXED_BYTES>() else {
            return Err(Discard::Runt);
        };
        let &[b0, b1, q0, q1, t0, t1, t2, t3, s0, s1, s2, s3] = fixed;
        if b0 >> 6 != 2 {
            return Err(Discard::RtpVersion);
        }
        let Ok(length) = u16::try_from(datagram.len()) else {
            return Err(Discard::TooLong);
        };
        let (mut payload_offset, mut payload_end) = (FIXED_BYTES as u16, length);
        // No padding, no extension, no CSRC: nearly every packet there is.
        if b0 != 0x80 {
            (payload_offset, payload_end) = Self::payload_bounds(b0, rest, length)?;
        }
        Ok(Header {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7F,
            sequence: u16::from_be_bytes([q0, q1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            payload_offset,
            payload_end,
        })
    }

    /// Where the payload lies when there are CSRCs, an extension or padding.
    fn payload_bounds(b0: u8, rest: &[u8], length: u16) -> Result<(u16, u16), Discard> {
        let csrc_bytes = usize::from(b0 & 0x0F) * 4;
        let mut rest = rest.get(csrc_bytes..).ok_or(Discard::RtpOverrun)?;
        if b0 & 0x10 != 0 {
            // RFC 3550, 5.3.1: profile(16), length(16) in words without these four bytes.
            let Some((&[_, _, l0, l1], body)) = rest.split_first_chunk::<4>() else {
                return Err(Discard::RtpOverrun);
            };
            let bytes = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            rest = body.get(bytes..).ok_or(Discard::RtpOverrun)?;
        }
        let remaining = u16::try_from(rest.len()).map_err(|_| Discard::TooLong)?;
        let offset = length - remaining;
        if b0 & 0x20 == 0 {
            return Ok((offset, length));
        }
        // 5.1: the last byte counts the padding, itself included.
        let padding = u16::from(*rest.last().ok_or(Discard::RtpOverrun)?);
        if padding == 0 || padding > remaining {
            return Err(Discard::RtpOverrun);
        }
        Ok((offset, length - padding))
    }

    /// Byte 1 of the header: marker and payload type, as slots keep it in their flags.
    #[inline]
    pub const fn flags(&self) -> u8 {
        (self.marker as u8) << 7 | self.payload_type
    }

    /// Bytes of payload.
    #[inline]
    pub const fn payload_len(&self) -> u16 {
        self.payload_end - self.payload_offset
    }
}

/// Whether a datagram on an RTP port is RTCP (RFC 5761: second byte 192–223).
#[inline]
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|b| (192..=223).contains(b))
}

/// The contributing sources (CSRC) of a datagram that passed [`Header::parse`].
pub fn contributors(datagram: &[u8]) -> impl Iterator<Item = u32> {
    let count = datagram.first().map_or(0, |b| usize::from(b & 0x0F));
    let list = datagram.get(FIXED_BYTES..).unwrap_or_default();
    let words = list.as_chunks::<4>().0.iter().take(count);
    words.map(|word| u32::from_be_bytes(*word))
}

/// An element of a header extension (RFC 8285). What its ID means the session's `a=extmap`
/// says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extension<'a> {
    /// 1–14 in the one-byte form, 1–255 in the two-byte form.
    pub id: u8,
    /// Its data.
    pub data: &'a [u8],
}

/// The elements of a datagram's header extension.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    is_two_byte: bool,
}

/// The header extension of a datagram that passed [`Header::parse`]: its profile, and its bytes.
pub fn header_extension(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let b0 = datagram.first().filter(|b| *b & 0x10 != 0)?;
    let after = FIXED_BYTES + 4 * usize::from(b0 & 0x0F);
    let (&[p0, p1, l0, l1], body) = datagram.get(after..)?.split_first_chunk::<4>()?;
    let bytes = body.get(..usize::from(u16::from_be_bytes([l0, l1])) * 4)?;
    Some((u16::from_be_bytes([p0, p1]), bytes))
}

/// The elements of the header extension of a datagram that passed [`Header::parse`]; none, if
/// it has no extension or one of another profile than RFC 8285's two.
pub fn extensions(datagram: &[u8]) -> Extensions<'_> {
    let find = || {
        let (profile, rest) = header_extension(datagram)?;
        let is_two_byte = match profile {
            0xBEDE => false,
            0x1000..=0x100F => true,
            _ => return None,
        };
        Some(Extensions { rest, is_two_byte })
    };
    find().unwrap_or(Extensions {
        rest: &[],
        is_two_byte: false,
    })
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            self.rest = rest;
            if first == 0 {
                // A padding byte.
                continue;
            }
            let (id, length) = if self.is_two_byte {
                let (&length, rest) = self.rest.split_first()?;
                self.rest = rest;
                (first, usize::from(length))
            } else {
                (first >> 4, usize::from(first & 0x0F) + 1)
            };
            // 4.2: ID 15 ends the one-byte form. ID 0 with a length is reserved: skipped.
            let known = self.is_two_byte || id != 15;
            let Some((data, rest)) = self.rest.split_at_checked(length).filter(|_| known) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            if id != 0 {
                return Some(Extension { id, data });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(b0: u8, after: &[u8]) -> Vec<u8> {
        let mut p = vec![b0, 0xE1, 0x12, 0x34, 0, 0, 0, 9, 1, 2, 3, 4];
        p.extend_from_slice(after);
        p
    }

    #[test]
    fn fixed_fields_are_read_as_rfc_3550_lays_them_out() {
        let h = Header::parse(&packet(0x80, b"payload")).unwrap();
        assert!(h.marker);
        assert_eq!((h.payload_type, h.sequence, h.timestamp), (0x61, 0x1234, 9));
        assert_eq!(
            (h.ssrc, h.payload_offset, h.payload_end),
            (0x0102_0304, 12, 19)
        );
        assert_eq!(h.flags(), 0xE1);
    }

    #[test]
    fn a_datagram_shorter_than_the_fixed_header_is_a_runt() {
        for n in 0..12 {
            assert_eq!(Header::parse(&packet(0x80, &[])[..n]), Err(Discard::Runt));
        }
        assert!(Header::parse(&packet(0x80, &[])).is_ok());
    }

    #[test]
    fn versions_other_than_two_are_refused() {
        for v in [0u8, 1, 3] {
            assert_eq!(
                Header::parse(&packet(v << 6, b"x")),
                Err(Discard::RtpVersion)
            );
        }
    }

    #[test]
    fn padding_longer_than_the_payload_is_an_overrun() {
        assert_eq!(
            Header::parse(&packet(0xA0, &[1, 2, 3, 5])),
            Err(Discard::RtpOverrun)
        );
        assert_eq!(
            Header::parse(&packet(0xA0, &[1, 2, 3, 0])),
            Err(Discard::RtpOverrun)
        );
        assert_eq!(Header::parse(&packet(0xA0, &[])), Err(Discard::RtpOverrun));
        // Padding may not reach into the CSRC list either.
        assert_eq!(
            Header::parse(&packet(0xA1, &[0, 0, 0, 1, 2])),
            Err(Discard::RtpOverrun)
        );
    }

    #[test]
    fn a_payload_that_is_all_padding_is_legal_and_empty() {
        let h = Header::parse(&packet(0xA0, &[0, 0, 0, 4])).unwrap();
        assert_eq!(
            (h.payload_offset, h.payload_end, h.payload_len()),
            (12, 12, 0)
        );
    }

    #[test]
    fn a_csrc_list_past_the_end_is_an_overrun() {
        assert_eq!(
            Header::parse(&packet(0x8F, &[0; 59])),
            Err(Discard::RtpOverrun)
        );
        assert_eq!(
            Header::parse(&packet(0x8F, &[0; 60]))
                .unwrap()
                .payload_offset,
            72
        );
    }

    #[test]
    fn an_extension_past_the_end_is_an_overrun() {
        assert_eq!(
            Header::parse(&packet(0x90, &[0xBE, 0xDE, 0])),
            Err(Discard::RtpOverrun)
        );
        let overrun = packet(0x90, &[0xBE, 0xDE, 0, 1, 0, 0]);
        assert_eq!(Header::parse(&overrun), Err(Discard::RtpOverrun));
        let huge = packet(0x90, &[0xBE, 0xDE, 0xFF, 0xFF, 0, 0]);
        assert_eq!(Header::parse(&huge), Err(Discard::RtpOverrun));
        let fits = packet(0x90, &[0xBE, 0xDE, 0, 1, 0, 0, 0, 0, 7]);
        let h = Header::parse(&fits).unwrap();
        assert_eq!((h.payload_offset, h.payload_end), (20, 21));
    }

    #[test]
    fn contributors_and_extension_elements_of_both_forms_are_read() {
        let p = packet(0x82, &[0, 0, 0, 1, 0, 0, 0, 2, 9]);
        assert_eq!(contributors(&p).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(extensions(&p).count(), 0);
        let one = packet(
            0x90,
            &[
                0xBE, 0xDE, 0, 3, 0x10, 0xAA, 0, 0x21, 1, 2, 0, 0, 0xF0, 0x31, 3, 4,
            ],
        );
        let one: Vec<_> = extensions(&one).map(|e| (e.id, e.data)).collect();
        assert_eq!(one, [(1, &[0xAA][..]), (2, &[1, 2])]);
        let two = packet(
            0x91,
            &[0, 0, 0, 7, 0x10, 0x05, 0, 2, 7, 0, 0, 8, 3, 1, 2, 3],
        );
        let two: Vec<_> = extensions(&two).map(|e| (e.id, e.data)).collect();
        assert_eq!(two, [(7, &[][..]), (8, &[1, 2, 3])]);
        let other = packet(0x90, &[0xAB, 0xCD, 0, 1, 0x10, 1, 2, 3]);
        assert_eq!(extensions(&other).count(), 0);
    }

    #[test]
    fn extension_elements_that_overrun_end_the_list() {
        for element in [[0x1F, 1, 2, 3], [0x10, 1, 0x23, 3]] {
            let p = packet(0x90, &[&[0xBE, 0xDE, 0, 1][..], &element].concat());
            assert!(extensions(&p).count() <= 1);
        }
        let p = packet(0x90, &[0x10, 0, 0, 1, 1, 200, 0, 0]);
        assert_eq!(extensions(&p).count(), 0);
        for length in 0..30 {
            let p = packet(0x9F, &vec![0xFF; length]);
            assert!(extensions(&p).count() + contributors(&p).count() < 30);
        }
    }

    #[test]
    fn a_datagram_longer_than_u16_is_refused_without_overflow() {
        assert_eq!(
            Header::parse(&packet(0x80, &vec![0; 70_000])),
            Err(Discard::TooLong)
        );
        assert_eq!(
            Header::parse(&packet(0xB0, &vec![0; 70_000])),
            Err(Discard::TooLong)
        );
    }

    #[test]
    fn rtcp_is_known_by_its_second_byte() {
        assert!(is_rtcp(&[0x80, 200]) && is_rtcp(&[0x80, 223]) && is_rtcp(&[0x80, 192]));
        assert!(!is_rtcp(&[0x80, 191]) && !is_rtcp(&[0x80, 224]) && !is_rtcp(&[0x80]));
    }
}
