//! The headers that payload formats put before the media in each packet, as far as they have to
//! be passed over, and the extraction of units whose bytes lie behind such headers.

use memchr::memmem;
use mirror_base::{Position, SlotRing};

use super::parameters::AuHeader;
use super::{aac, mpv, pictures};
use crate::AccessUnit;

/// What stands before the media of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Header {
    /// So many bytes.
    Fixed(u8),
    /// RFC 3640, 3.2: the AU header section and the auxiliary section.
    AuHeaders(AuHeader),
    /// RFC 7741, 4.2.
    Vp8,
    /// RFC 9628, 4.2.
    Vp9,
    /// RFC 2250, 3.4.
    Mpv,
}

impl Header {
    /// The bytes of the header; `None` where it is cut off.
    #[inline]
    pub(crate) fn length(self, payload: &[u8]) -> Option<usize> {
        let length = match self {
            Header::Fixed(n) => usize::from(n),
            Header::AuHeaders(form) => aac::media_offset(form, payload)?,
            Header::Vp8 => pictures::vp8_descriptor(payload)?.bytes,
            Header::Vp9 => pictures::vp9_descriptor(payload)?.bytes,
            Header::Mpv => mpv::header_bytes(payload)?,
        };
        (length <= payload.len()).then_some(length)
    }
}

/// Appends the bytes of `unit` without the packets' headers. `false`, and `out` as it was, when a
/// slot is overwritten.
pub(crate) fn extract(
    header: Header,
    unit: &AccessUnit,
    ring: &SlotRing,
    out: &mut Vec<u8>,
) -> bool {
    let before = out.len();
    let mut payload_type = None;
    // What follows a hole is of no use up to the next start code.
    let mut torn = false;
    for index in unit.first.slot..=unit.end.slot {
        let Some(slot) = ring.get(index) else {
            if !unit.damaged || index < ring.oldest() {
                out.truncate(before);
                return false;
            }
            // Lost.
            torn = matches!(header, Header::Mpv);
            continue;
        };
        let this_type = slot.meta.flags & 0x7F;
        if *payload_type.get_or_insert(this_type) != this_type {
            continue;
        }
        let Some(media) = header.length(slot.payload) else {
            continue;
        };
        let bound = |edge: Position, otherwise| {
            if edge.slot == index {
                usize::from(edge.offset)
            } else {
                otherwise
            }
        };
        let mut from = bound(unit.first, media).max(media);
        let to = bound(unit.end, slot.payload.len());
        if torn {
            let rest = slot.payload.get(from..).unwrap_or_default();
            let Some(code) = memmem::find(rest, &[0, 0, 1]) else {
                continue;
            };
            (from, torn) = (from + code, false);
        }
        out.extend_from_slice(slot.payload.get(from..to).unwrap_or_default());
    }
    true
}
