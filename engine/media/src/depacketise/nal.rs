//! NAL units in RTP payloads: H.264 (RFC 6184: single NAL unit, STAP-A, FU-A) and HEVC
//! (RFC 7798: single NAL unit, AP, FU, PACI; without DONL). The interleaved forms of RFC 6184
//! are refused. [`pieces`] takes a payload apart; the depacketiser feeds the pieces to the
//! assembler, and [`extract`] finds the same pieces again in the slots.

use memchr::memmem;
use mirror_base::{Discard, Position, SlotRing};

use crate::{AccessUnit, Assembler, Codec, Packet};

/// A NAL unit or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece<'a> {
    /// Offset into the payload of what makes the piece: of the fragment's payload header, or
    /// of the NAL unit's own first byte.
    pub(crate) offset: u16,
    /// The NAL unit header, where it had to be rebuilt.
    header: [u8; 2],
    header_len: u8,
    /// Offset of `bytes` into the payload.
    at: u16,
    /// The bytes that follow the rebuilt header.
    pub(crate) bytes: &'a [u8],
    /// The NAL unit begins here.
    pub(crate) begins: bool,
    /// The NAL unit ends here.
    pub(crate) ends: bool,
}

impl<'a> Piece<'a> {
    /// A whole NAL unit that stands in the payload as it is.
    fn whole(offset: usize, bytes: &'a [u8]) -> Self {
        Piece {
            offset: offset as u16,
            header: [0; 2],
            header_len: 0,
            at: offset as u16,
            bytes,
            begins: true,
            ends: true,
        }
    }

    /// The rebuilt NAL unit header: empty if `bytes` has it.
    pub(crate) fn header(&self) -> &[u8] {
        self.header
            .get(..usize::from(self.header_len))
            .unwrap_or_default()
    }

    /// Offset of one past the last byte into the payload.
    fn end(&self) -> u16 {
        self.at.saturating_add(self.bytes.len() as u16)
    }
}

/// What is left of a payload.
#[derive(Clone, Copy, Debug)]
enum Rest<'a> {
    Nothing,
    One(Piece<'a>),
    Broken(Discard),
    /// `size(16) NAL …`
    Aggregate(&'a [u8]),
    /// NAL units with start codes between them.
    StartCodes(&'a [u8]),
}

/// The pieces of a payload, in order; after an error none follow.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'a> {
    rest: Rest<'a>,
    length: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, Discard>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.rest {
            Rest::Nothing => None,
            Rest::One(piece) => {
                self.rest = Rest::Nothing;
                Some(Ok(piece))
            }
            Rest::Broken(reason) => {
                self.rest = Rest::Nothing;
                Some(Err(reason))
            }
            Rest::Aggregate(bytes) => self.next_aggregated(bytes),
            Rest::StartCodes(bytes) => self.next_between_start_codes(bytes),
        }
    }
}

impl<'a> Pieces<'a> {
    /// RFC 6184, 5.7.1; RFC 7798, 4.4.2.
    fn next_aggregated(&mut self, bytes: &'a [u8]) -> Option<Result<Piece<'a>, Discard>> {
        if bytes.is_empty() {
            return None;
        }
        let unit = bytes.split_first_chunk::<2>().and_then(|(size, after)| {
            let size = usize::from(u16::from_be_bytes(*size));
            if size == 0 {
                None
            } else {
                after.split_at_checked(size)
            }
        });
        let Some((unit, after)) = unit else {
            self.rest = Rest::Nothing;
            return Some(Err(Discard::MalformedPayload));
        };
        self.rest = Rest::Aggregate(after);
        Some(Ok(Piece::whole(
            self.length - after.len() - unit.len(),
            unit,
        )))
    }

    #[cold]
    fn next_between_start_codes(&mut self, bytes: &'a [u8]) -> Option<Result<Piece<'a>, Discard>> {
        let mut bytes = bytes;
        loop {
            if bytes.is_empty() {
                self.rest = Rest::Nothing;
                return None;
            }
            let (unit, after) = match memmem::find(bytes, &[0, 0, 1]) {
                Some(at) => (bytes.get(..at)?, bytes.get(at + 3..)?),
                None => (bytes, &[][..]),
            };
            let offset = self.length - bytes.len();
            bytes = after;
            let trailing = unit.iter().rev().take_while(|b| **b == 0).count();
            let unit = unit.get(..unit.len() - trailing)?;
            if !unit.is_empty() {
                self.rest = Rest::StartCodes(bytes);
                return Some(Ok(Piece::whole(offset, unit)));
            }
        }
    }
}

/// Takes a payload of `codec` apart.
#[inline]
pub(crate) fn pieces(codec: Codec, payload: &[u8]) -> Pieces<'_> {
    let rest = match codec {
        Codec::H264 => h264(payload),
        Codec::H265 => h265(payload),
        _ => Rest::Broken(Discard::UnknownPayloadType),
    };
    Pieces {
        rest,
        length: payload.len(),
    }
}

/// Whether a payload holds start codes where there should be none: some cameras put Annex B
/// into "single NAL unit packets".
#[cold]
fn has_start_code(payload: &[u8]) -> bool {
    memmem::find(payload, &[0, 0, 1]).is_some()
}

/// RFC 6184, 5.2.
#[inline]
fn h264(payload: &[u8]) -> Rest<'_> {
    let Some((&indicator, after)) = payload.split_first() else {
        return Rest::Nothing;
    };
    match indicator & 0x1F {
        // Parameter sets, SEI and delimiters are short: worth a look.
        6..=9 if has_start_code(payload) => Rest::StartCodes(payload),
        1..=23 => Rest::One(Piece::whole(0, payload)),
        24 => Rest::Aggregate(after),
        28 => {
            let Some((&fu, fragment)) = after.split_first() else {
                return Rest::Broken(Discard::MalformedPayload);
            };
            fragment_piece([indicator & 0xE0 | fu & 0x1F, 0], 1, fu, fragment, 2)
        }
        // STAP-B, MTAP16, MTAP24, FU-B: interleaved mode.
        25..=27 | 29 => Rest::Broken(Discard::UnsupportedPayload),
        0 if has_start_code(payload) => Rest::StartCodes(payload),
        _ => Rest::Broken(Discard::MalformedPayload),
    }
}

/// A fragment whose header byte is `fu`: S(1) E(1) …
#[inline]
fn fragment_piece(header: [u8; 2], header_len: u8, fu: u8, bytes: &[u8], at: u16) -> Rest<'_> {
    if bytes.is_empty() {
        return Rest::Broken(Discard::MalformedPayload);
    }
    let begins = fu & 0x80 != 0;
    Rest::One(Piece {
        offset: 0,
        header,
        header_len: if begins { header_len } else { 0 },
        at,
        bytes,
        begins,
        // "Never both" (5.8), but a whole NAL unit so packed is readable all the same.
        ends: fu & 0x40 != 0,
    })
}

/// RFC 7798, 4.4.
#[inline]
fn h265(payload: &[u8]) -> Rest<'_> {
    let Some((&header, body)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Rest::Nothing
        } else {
            Rest::Broken(Discard::MalformedPayload)
        };
    };
    match header[0] >> 1 & 0x3F {
        // nuh_temporal_id_plus1 is never 0: a start code.
        _ if header == [0, 0] && has_start_code(payload) => Rest::StartCodes(payload),
        32..=40 if has_start_code(payload) => Rest::StartCodes(payload),
        0..=47 => Rest::One(Piece::whole(0, payload)),
        48 => Rest::Aggregate(body),
        49 => h265_fragment(header, body, 3),
        50 => paci(header, body),
        _ => Rest::Broken(Discard::MalformedPayload),
    }
}

/// RFC 7798, 4.4.3; `body` begins with the FU header, and its fragment lies at `at`.
#[inline]
fn h265_fragment(header: [u8; 2], body: &[u8], at: u16) -> Rest<'_> {
    let Some((&fu, fragment)) = body.split_first() else {
        return Rest::Broken(Discard::MalformedPayload);
    };
    fragment_piece(
        [header[0] & 0x81 | (fu & 0x3F) << 1, header[1]],
        2,
        fu,
        fragment,
        at,
    )
}

/// RFC 7798, 4.4.4: `A(1) cType(6) PHSsize(5) F0–F2 Y`, the extension, and a payload that lacks
/// its header. The extension is not needed.
fn paci(header: [u8; 2], body: &[u8]) -> Rest<'_> {
    let inner = body.split_first_chunk::<2>().and_then(|(fields, after)| {
        let fields = u16::from_be_bytes(*fields);
        let extension = usize::from(fields >> 4 & 0x1F);
        Some((fields, extension, after.get(extension..)?))
    });
    let Some((fields, extension, inner)) = inner else {
        return Rest::Broken(Discard::MalformedPayload);
    };
    let at = 4 + extension as u16;
    let kind = (fields >> 9 & 0x3F) as u8;
    let header = [
        (fields >> 8) as u8 & 0x80 | kind << 1 | header[0] & 1,
        header[1],
    ];
    match kind {
        0..=47 => Rest::One(Piece {
            offset: 0,
            header,
            header_len: 2,
            at,
            bytes: inner,
            begins: true,
            ends: true,
        }),
        48 => Rest::Aggregate(inner),
        49 => h265_fragment(header, inner, at + 1),
        _ => Rest::Broken(Discard::MalformedPayload),
    }
}

/// What has to be known to take payloads apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    /// H.264 or HEVC.
    pub(crate) codec: Codec,
}

/// The state between packets: whether a fragmented NAL unit is open.
#[derive(Debug)]
pub(crate) struct NalDepacketiser {
    codec: Codec,
    fragment_open: bool,
}

impl NalDepacketiser {
    pub(crate) const fn new(codec: Codec) -> Self {
        NalDepacketiser {
            codec,
            fragment_open: false,
        }
    }

    pub(crate) const fn codec(&self) -> Codec {
        self.codec
    }

    /// What was begun will not be continued.
    pub(crate) const fn interrupt(&mut self) {
        self.fragment_open = false;
    }

    /// Feeds the NAL units of a packet to `assembler`; `Err` names the first thing wrong in it.
    #[inline]
    pub(crate) fn push(
        &mut self,
        packet: &Packet<'_>,
        assembler: &mut Assembler,
    ) -> Result<(), Discard> {
        let mut outcome = Ok(());
        for piece in pieces(self.codec, packet.payload) {
            let problem = match piece {
                Ok(piece) => self.feed(packet, &piece, assembler),
                Err(reason) => Err(reason),
            };
            if problem.is_err() {
                assembler.damage();
                self.fragment_open = false;
                outcome = outcome.and(problem);
            }
        }
        outcome
    }

    #[inline]
    fn feed(
        &mut self,
        packet: &Packet<'_>,
        piece: &Piece<'_>,
        assembler: &mut Assembler,
    ) -> Result<(), Discard> {
        let place = |offset| Position {
            slot: packet.slot,
            offset,
        };
        if piece.begins {
            if self.fragment_open {
                // Its end is missing although no packet is.
                assembler.damage();
            }
            assembler.nal_begin(place(piece.offset), packet.arrival);
            assembler.nal_bytes(piece.header(), packet.arrival);
        } else if !self.fragment_open {
            return Err(Discard::OrphanFragment);
        }
        assembler.nal_bytes(piece.bytes, packet.arrival);
        if piece.ends {
            assembler.nal_end(place(piece.end()), packet.arrival);
        }
        self.fragment_open = !piece.ends;
        Ok(())
    }
}

/// Appends the NAL units of `unit` in Annex B with four-byte start codes; those with a lost
/// fragment are left out. `false`, and `out` as it was, when a slot is overwritten.
pub(crate) fn extract(form: Form, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    // Where in `out` the NAL unit in the making begins.
    let mut open: Option<usize> = None;
    let mut payload_type = None;
    for index in unit.first.slot..=unit.end.slot {
        let Some(slot) = ring.get(index) else {
            if !unit.damaged || index < ring.oldest() {
                out.truncate(before);
                return false;
            }
            // Lost.
            out.truncate(open.take().unwrap_or(out.len()));
            continue;
        };
        let this_type = slot.meta.flags & 0x7F;
        if *payload_type.get_or_insert(this_type) != this_type {
            continue;
        }
        for piece in pieces(form.codec, slot.payload).map_while(Result::ok) {
            let at = Position {
                slot: index,
                offset: piece.offset,
            };
            if at < unit.first || at >= unit.end {
                continue;
            }
            if piece.begins {
                out.truncate(open.take().unwrap_or(out.len()));
                open = Some(out.len());
                out.extend_from_slice(&[0, 0, 0, 1]);
                out.extend_from_slice(piece.header());
            }
            if open.is_some() {
                out.extend_from_slice(piece.bytes);
            }
            if piece.ends {
                open = None;
            }
        }
    }
    out.truncate(open.take().unwrap_or(out.len()));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes with the rebuilt header, begins, ends.
    type Taken = Result<(Vec<u8>, bool, bool), Discard>;

    fn all(codec: Codec, payload: &[u8]) -> Vec<Taken> {
        pieces(codec, payload)
            .map(|p| p.map(|p| ([p.header(), p.bytes].concat(), p.begins, p.ends)))
            .collect()
    }

    fn whole(bytes: &[u8]) -> Taken {
        Ok((bytes.to_vec(), true, true))
    }

    #[test]
    fn h264_aggregates_are_taken_apart_and_overruns_refused() {
        let stap = [0x78, 0, 2, 0x67, 1, 0, 3, 0x68, 2, 3];
        assert_eq!(
            all(Codec::H264, &stap),
            [whole(&[0x67, 1]), whole(&[0x68, 2, 3])]
        );
        let offsets: Vec<_> = pieces(Codec::H264, &stap)
            .map(|p| p.map(|p| (p.offset, p.end())).unwrap())
            .collect();
        assert_eq!(offsets, [(3, 5), (7, 10)]);
        let overrun = [0x78, 0, 2, 0x67, 1, 0, 4, 0x68, 2, 3];
        assert_eq!(
            all(Codec::H264, &overrun)[1],
            Err(Discard::MalformedPayload)
        );
        assert_eq!(
            all(Codec::H264, &[0x78, 0, 0])[0],
            Err(Discard::MalformedPayload)
        );
        assert_eq!(
            all(Codec::H264, &[0x78, 0])[0],
            Err(Discard::MalformedPayload)
        );
        assert!(all(Codec::H264, &[0x78]).is_empty());
    }

    #[test]
    fn h264_fragments_carry_the_rebuilt_header_on_the_first_only() {
        assert_eq!(
            all(Codec::H264, &[0x7C, 0x85, 9]),
            [Ok((vec![0x65, 9], true, false))]
        );
        assert_eq!(
            all(Codec::H264, &[0x7C, 0x05, 8]),
            [Ok((vec![8], false, false))]
        );
        assert_eq!(
            all(Codec::H264, &[0x7C, 0x45, 7]),
            [Ok((vec![7], false, true))]
        );
        assert_eq!(
            all(Codec::H264, &[0x7C, 0x85]),
            [Err(Discard::MalformedPayload)]
        );
        assert_eq!(all(Codec::H264, &[0x7C]), [Err(Discard::MalformedPayload)]);
    }

    #[test]
    fn h264_interleaved_types_are_refused_and_reserved_ones_malformed() {
        for kind in [25, 26, 27, 29] {
            let refused = [Err(Discard::UnsupportedPayload)];
            assert_eq!(all(Codec::H264, &[0x60 | kind, 1, 2, 3]), refused);
        }
        for kind in [0, 30, 31] {
            assert_eq!(
                all(Codec::H264, &[kind, 1, 2]),
                [Err(Discard::MalformedPayload)]
            );
        }
    }

    #[test]
    fn start_codes_inside_a_payload_split_it() {
        let camera = [0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 4];
        let units = [whole(&[0x67, 1, 2]), whole(&[0x68, 3]), whole(&[0x65, 4])];
        assert_eq!(all(Codec::H264, &camera), units);
        assert_eq!(
            all(Codec::H264, &[0, 0, 0, 1, 0x65, 4]),
            [whole(&[0x65, 4])]
        );
        assert_eq!(
            all(Codec::H265, &[0, 0, 0, 1, 0x26, 1, 4]),
            [whole(&[0x26, 1, 4])]
        );
    }

    #[test]
    fn h265_aggregates_fragments_and_paci_are_taken_apart() {
        let ap = [0x60, 1, 0, 3, 0x40, 1, 5, 0, 2, 0x42, 1];
        assert_eq!(
            all(Codec::H265, &ap),
            [whole(&[0x40, 1, 5]), whole(&[0x42, 1])]
        );
        let start = [0x62, 1, 0x93, 7];
        assert_eq!(
            all(Codec::H265, &start),
            [Ok((vec![0x26, 1, 7], true, false))]
        );
        assert_eq!(
            all(Codec::H265, &[0x62, 1, 0x53, 7]),
            [Ok((vec![7], false, true))]
        );
        // PACI: cType 19, PHSsize 3, then the contained payload without its header.
        let paci = [0x64, 1, 19 << 1, 3 << 4, 0xA, 0xB, 0xC, 7, 8];
        assert_eq!(all(Codec::H265, &paci), [whole(&[0x26, 1, 7, 8])]);
        let truncated = [0x64, 1, 19 << 1, 3 << 4, 0xA];
        assert_eq!(
            all(Codec::H265, &truncated),
            [Err(Discard::MalformedPayload)]
        );
        let nested = [0x64, 1, 50 << 1, 0, 1];
        assert_eq!(all(Codec::H265, &nested), [Err(Discard::MalformedPayload)]);
        assert_eq!(all(Codec::H265, &[0x62]), [Err(Discard::MalformedPayload)]);
        assert!(all(Codec::H265, &[]).is_empty());
    }

    #[test]
    fn every_short_payload_is_survived() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for tail in [&[][..], &[0], &[0, 0, 1], &[0, 1, 0, 9], &[0xFF; 5]] {
                    let payload = [&[a, b], tail].concat();
                    for codec in [Codec::H264, Codec::H265] {
                        for piece in pieces(codec, &payload).flatten() {
                            assert!(usize::from(piece.end()) <= payload.len());
                        }
                    }
                }
            }
        }
    }
}
