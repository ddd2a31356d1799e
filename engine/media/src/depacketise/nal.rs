//! NAL units in RTP payloads: H.264 (RFC 6184: single NAL unit, STAP-A, STAP-B, MTAP16, MTAP24,
//! FU-A, FU-B) and HEVC (RFC 7798: single NAL unit, AP, FU, PACI; with or without decoding order
//! numbers). [`pieces`] takes a payload apart; the depacketiser feeds the pieces to the
//! assembler, and [`extract`] finds the same pieces again in the slots.

use memchr::memmem;
use mirror_base::{Discard, Instant, Position, SlotRing};

use crate::{AccessUnit, Assembler, Codec, Packet};

/// What has to be known to take payloads apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    /// H.264 or HEVC.
    pub(crate) codec: Codec,
    /// HEVC: payloads have DONL and DOND fields (`sprop-max-don-diff` above 0). Those of H.264
    /// are known by their types.
    pub(crate) don: bool,
}

impl Form {
    /// Of payloads whose NAL units come in decoding order.
    pub(crate) const fn plain(codec: Codec) -> Self {
        Form { codec, don: false }
    }
}

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
    pub(crate) at: u16,
    /// The bytes that follow the rebuilt header.
    pub(crate) bytes: &'a [u8],
    /// The NAL unit begins here.
    pub(crate) begins: bool,
    /// The NAL unit ends here.
    pub(crate) ends: bool,
    /// Decoding order number, where there is one.
    pub(crate) don: Option<u16>,
    /// What the NAL unit's time is after the packet's (MTAP), clock ticks.
    pub(crate) time_offset: u32,
}

impl<'a> Piece<'a> {
    /// A whole NAL unit that stands in the payload as it is.
    #[inline]
    fn whole(offset: usize, bytes: &'a [u8]) -> Self {
        Piece {
            offset: offset as u16,
            header: [0; 2],
            header_len: 0,
            at: offset as u16,
            bytes,
            begins: true,
            ends: true,
            don: None,
            time_offset: 0,
        }
    }

    /// The rebuilt NAL unit header: empty if `bytes` has it.
    #[inline]
    pub(crate) fn header(&self) -> &[u8] {
        self.header
            .get(..usize::from(self.header_len))
            .unwrap_or_default()
    }

    /// Offset of one past the last byte into the payload.
    #[inline]
    pub(crate) fn end(&self) -> u16 {
        self.at.saturating_add(self.bytes.len() as u16)
    }
}

/// How the units of an aggregate are headed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heads {
    /// `size(16) NAL …`: STAP-A, AP.
    Sizes,
    /// The same; decoding order numbers count up from this one: STAP-B.
    Numbered(u16),
    /// HEVC AP: the first unit's DONL comes next.
    FirstDonl,
    /// HEVC AP: `DOND(8) size(16) NAL`; the number of the unit before.
    Dond(u16),
    /// `size(16) DOND(8) offset(16 or 24) NAL`; DONB, and the bytes of the offset: MTAP.
    Mtap(u16, u8),
}

/// What is left of a payload.
#[derive(Clone, Copy, Debug)]
enum Rest<'a> {
    Nothing,
    One(Piece<'a>),
    Broken(Discard),
    /// Several NAL units, one behind the other.
    Aggregate(Heads, &'a [u8]),
    /// NAL units with start codes between them.
    StartCodes(&'a [u8]),
}

/// The pieces of a payload, in order; after an error none follow.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'a> {
    codec: Codec,
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
            Rest::Aggregate(heads, bytes) => self.next_aggregated(heads, bytes),
            Rest::StartCodes(bytes) => self.next_between_start_codes(bytes),
        }
    }
}

impl<'a> Pieces<'a> {
    /// RFC 6184, 5.7; RFC 7798, 4.4.2.
    fn next_aggregated(
        &mut self,
        heads: Heads,
        bytes: &'a [u8],
    ) -> Option<Result<Piece<'a>, Discard>> {
        if bytes.is_empty() {
            return None;
        }
        let Some((unit, head, after)) =
            split_aggregated(heads, bytes).filter(|(unit, ..)| may_stand_alone(self.codec, unit))
        else {
            self.rest = Rest::Nothing;
            return Some(Err(Discard::MalformedPayload));
        };
        self.rest = Rest::Aggregate(head.next, after);
        Some(Ok(Piece {
            don: head.don,
            time_offset: head.time_offset,
            ..Piece::whole(self.length - after.len() - unit.len(), unit)
        }))
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

/// What stands before a unit of an aggregate.
struct UnitHead {
    don: Option<u16>,
    time_offset: u32,
    next: Heads,
}

/// The first unit of an aggregate, what stands before it, and what follows; `None` where the
/// aggregate is cut off or a unit is empty.
#[inline]
fn split_aggregated(heads: Heads, bytes: &[u8]) -> Option<(&[u8], UnitHead, &[u8])> {
    let mut head = UnitHead {
        don: None,
        time_offset: 0,
        next: heads,
    };
    let mut bytes = bytes;
    match heads {
        Heads::Sizes | Heads::Mtap(..) => {}
        Heads::Numbered(don) => {
            head.don = Some(don);
            head.next = Heads::Numbered(don.wrapping_add(1));
        }
        Heads::FirstDonl => {
            let (donl, after) = bytes.split_first_chunk::<2>()?;
            let don = u16::from_be_bytes(*donl);
            (head.don, head.next, bytes) = (Some(don), Heads::Dond(don), after);
        }
        Heads::Dond(before) => {
            let (&dond, after) = bytes.split_first()?;
            let don = before.wrapping_add(u16::from(dond)).wrapping_add(1);
            (head.don, head.next, bytes) = (Some(don), Heads::Dond(don), after);
        }
    }
    let (size, mut bytes) = bytes.split_first_chunk::<2>()?;
    let size = usize::from(u16::from_be_bytes(*size));
    if let Heads::Mtap(donb, offset_bytes) = heads {
        let (&dond, after) = bytes.split_first()?;
        let (offset, after) = after.split_at_checked(usize::from(offset_bytes))?;
        head.don = Some(donb.wrapping_add(u16::from(dond)));
        head.time_offset = offset.iter().fold(0, |n, &b| n << 8 | u32::from(b));
        bytes = after;
    }
    if size == 0 {
        return None;
    }
    let (unit, after) = bytes.split_at_checked(size)?;
    Some((unit, head, after))
}

/// Whether a unit of an aggregate is a NAL unit, and not another payload structure: aggregates do
/// not nest (RFC 6184, 5.7; RFC 7798, 4.4.2).
#[inline]
fn may_stand_alone(codec: Codec, unit: &[u8]) -> bool {
    match (codec, unit) {
        (Codec::H264, [a, ..]) => matches!(a & 0x1F, 1..=23),
        (_, [a, _, ..]) => a >> 1 & 0x3F < 48,
        _ => false,
    }
}

/// Takes a payload apart.
#[inline]
pub(crate) fn pieces(form: Form, payload: &[u8]) -> Pieces<'_> {
    let rest = match form.codec {
        Codec::H264 => h264(payload),
        Codec::H265 => h265(payload, form.don),
        _ => Rest::Broken(Discard::UnknownPayloadType),
    };
    Pieces {
        codec: form.codec,
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
        24 => Rest::Aggregate(Heads::Sizes, after),
        28 => {
            let Some((&fu, fragment)) = after.split_first() else {
                return Rest::Broken(Discard::MalformedPayload);
            };
            fragment_piece([indicator & 0xE0 | fu & 0x1F, 0], 1, fu, fragment, 2)
        }
        kind @ (25..=27 | 29) => h264_interleaved(kind, indicator, after),
        0 if has_start_code(payload) => Rest::StartCodes(payload),
        _ => Rest::Broken(Discard::MalformedPayload),
    }
}

/// RFC 6184, 5.7.1, 5.7.2 and 5.8: the forms of the interleaved mode, whose first field is a
/// decoding order number.
#[cold]
fn h264_interleaved(kind: u8, indicator: u8, after: &[u8]) -> Rest<'_> {
    if kind == 29 {
        let Some((&[fu, d0, d1], fragment)) = after.split_first_chunk::<3>() else {
            return Rest::Broken(Discard::MalformedPayload);
        };
        let rest = fragment_piece([indicator & 0xE0 | fu & 0x1F, 0], 1, fu, fragment, 4);
        return numbered(rest, u16::from_be_bytes([d0, d1]));
    }
    let Some((don, units)) = after.split_first_chunk::<2>() else {
        return Rest::Broken(Discard::MalformedPayload);
    };
    let don = u16::from_be_bytes(*don);
    let heads = match kind {
        25 => Heads::Numbered(don),
        26 => Heads::Mtap(don, 2),
        _ => Heads::Mtap(don, 3),
    };
    Rest::Aggregate(heads, units)
}

/// The piece with a decoding order number.
fn numbered(rest: Rest<'_>, don: u16) -> Rest<'_> {
    match rest {
        Rest::One(piece) => Rest::One(Piece {
            don: Some(don),
            ..piece
        }),
        rest => rest,
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
        header,
        header_len: if begins { header_len } else { 0 },
        at,
        bytes,
        begins,
        // "Never both" (5.8), but a whole NAL unit so packed is readable all the same.
        ends: fu & 0x40 != 0,
        ..Piece::whole(0, bytes)
    })
}

/// RFC 7798, 4.4.
#[inline]
fn h265(payload: &[u8], don: bool) -> Rest<'_> {
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
        0..=47 if don => h265_single(header, body, true, 2),
        32..=40 if has_start_code(payload) => Rest::StartCodes(payload),
        0..=47 => Rest::One(Piece::whole(0, payload)),
        48 => Rest::Aggregate(h265_heads(don), body),
        49 => h265_fragment(header, body, don, 3),
        50 => paci(header, body, don),
        _ => Rest::Broken(Discard::MalformedPayload),
    }
}

const fn h265_heads(don: bool) -> Heads {
    if don { Heads::FirstDonl } else { Heads::Sizes }
}

/// A whole NAL unit without its header, which `body` follows at `at`: behind its DONL (4.4.1), or
/// inside a PACI packet.
fn h265_single(header: [u8; 2], body: &[u8], don: bool, at: u16) -> Rest<'_> {
    let one = |at, bytes| {
        Rest::One(Piece {
            header,
            header_len: 2,
            at,
            ..Piece::whole(0, bytes)
        })
    };
    if !don {
        return one(at, body);
    }
    match body.split_first_chunk::<2>() {
        Some((donl, bytes)) => numbered(one(at + 2, bytes), u16::from_be_bytes(*donl)),
        None => Rest::Broken(Discard::MalformedPayload),
    }
}

/// RFC 7798, 4.4.3; `body` begins with the FU header, and its fragment lies at `at`, but for a
/// DONL in the first one.
#[inline]
fn h265_fragment(header: [u8; 2], body: &[u8], don: bool, at: u16) -> Rest<'_> {
    let Some((&fu, fragment)) = body.split_first() else {
        return Rest::Broken(Discard::MalformedPayload);
    };
    let header = [header[0] & 0x81 | (fu & 0x3F) << 1, header[1]];
    if !don || fu & 0x80 == 0 {
        return fragment_piece(header, 2, fu, fragment, at);
    }
    match fragment.split_first_chunk::<2>() {
        Some((donl, fragment)) => numbered(
            fragment_piece(header, 2, fu, fragment, at + 2),
            u16::from_be_bytes(*donl),
        ),
        None => Rest::Broken(Discard::MalformedPayload),
    }
}

/// RFC 7798, 4.4.4: `A(1) cType(6) PHSsize(5) F0–F2 Y`, the extension, and a payload that lacks
/// its header. The extension is not needed.
fn paci(header: [u8; 2], body: &[u8], don: bool) -> Rest<'_> {
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
        0..=47 => h265_single(header, inner, don, at),
        48 => Rest::Aggregate(h265_heads(don), inner),
        49 => h265_fragment(header, inner, don, at + 1),
        _ => Rest::Broken(Discard::MalformedPayload),
    }
}

/// Whether an HEVC payload makes sense with decoding order numbers only: senders that announce
/// them in SDP are also met without it.
#[cold]
pub(crate) fn has_don(payload: &[u8]) -> bool {
    let of = |don| Form {
        codec: Codec::H265,
        don,
    };
    match payload {
        // A VPS: reserved ones (ISO 23008-2, 7.3.2.1) two bytes further on.
        [0x40, 0x01, _, _, a, b, c, d, ..] if (*a, *b) != (0xFF, 0xFF) => (*c, *d) == (0xFF, 0xFF),
        [a, ..] if a >> 1 & 0x3F == 48 => {
            let sound = |form| pieces(form, payload).all(|piece| piece.is_ok());
            !sound(of(false)) && sound(of(true))
        }
        _ => false,
    }
}

/// The state between packets: whether a fragmented NAL unit is open.
#[derive(Debug)]
pub(crate) struct NalDepacketiser {
    form: Form,
    fragment_open: bool,
}

impl NalDepacketiser {
    pub(crate) const fn new(form: Form) -> Self {
        NalDepacketiser {
            form,
            fragment_open: false,
        }
    }

    pub(crate) const fn form(&self) -> Form {
        self.form
    }

    /// What was begun will not be continued: what came of a NAL unit in fragments is left out.
    pub(crate) fn interrupt(&mut self, assembler: &mut Assembler) {
        if core::mem::take(&mut self.fragment_open) {
            assembler.abandon();
        }
    }

    /// As [`NalDepacketiser::interrupt`], where the stream ends.
    pub(crate) fn end(&mut self, assembler: &mut Assembler, now: Instant) {
        if core::mem::take(&mut self.fragment_open) {
            assembler.abandon_last(now);
        }
    }

    /// The bytes of a fragment that neither begins nor ends the open NAL unit: nearly every packet
    /// of a stream of high rate.
    #[inline]
    fn middle<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        let (is_fragment, fu, bytes) = match (self.form.codec, payload) {
            (Codec::H264, [a, fu, bytes @ ..]) => (a & 0x1F == 28, fu, bytes),
            (Codec::H265, [a, _, fu, bytes @ ..]) => (a & 0x7E == 49 << 1, fu, bytes),
            _ => return None,
        };
        let inside = self.fragment_open && is_fragment && fu & 0xC0 == 0 && !bytes.is_empty();
        inside.then_some(bytes)
    }

    /// Feeds the NAL units of a packet to `assembler`; `Err` names the first thing wrong in it.
    #[inline]
    pub(crate) fn push(
        &mut self,
        packet: &Packet<'_>,
        assembler: &mut Assembler,
    ) -> Result<(), Discard> {
        if let Some(bytes) = self.middle(packet.payload) {
            assembler.nal_bytes(bytes, packet.arrival);
            return Ok(());
        }
        self.push_pieces(packet, assembler)
    }

    fn push_pieces(
        &mut self,
        packet: &Packet<'_>,
        assembler: &mut Assembler,
    ) -> Result<(), Discard> {
        let mut outcome = Ok(());
        for piece in pieces(self.form, packet.payload) {
            let problem = match piece {
                Ok(piece) => self.feed(packet, &piece, assembler),
                Err(reason) => Err(reason),
            };
            if problem.is_err() {
                self.interrupt(assembler);
                assembler.damage();
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
                self.interrupt(assembler);
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
        for piece in pieces(form, slot.payload).map_while(Result::ok) {
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
#[path = "nal_tests.rs"]
mod tests;
