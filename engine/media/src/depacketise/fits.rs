//! How well one RTP payload fits each payload format: what [`super::detect`] adds up over
//! packets.

use super::PayloadFormat as Kind;
use super::parameters::AuHeader;
use super::stamped::{KLV_LABEL, klv_bytes};
use super::{aac, av1, jpegxs, latm, nal, pictures, sound};
use crate::Codec;
use crate::codec::audio::{self, opus};

/// How well a payload fits a kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Vote {
    No,
    /// It may be of the kind, and so may many other things: an Opus TOC byte of 0x28, 0x48 or
    /// 0x68 is a PPS header, too. Speaks neither for the kind nor against another.
    Slight,
    Weak,
    /// As good as so many weak ones as its weight says.
    Strong,
    /// Enough alone, however much before it could have been anything.
    Proof,
}
use Vote::{No as NO, Proof as PROOF, Slight as SLIGHT, Strong as STRONG, Weak as WEAK};

impl Vote {
    /// A slight fit is enough to make a weak one of another kind doubtful.
    pub(super) const fn level(self) -> u8 {
        match self {
            NO => 0,
            SLIGHT | WEAK => 1,
            STRONG => 2,
            PROOF => 3,
        }
    }

    pub(super) const fn weight(self) -> u32 {
        match self {
            NO | SLIGHT => 0,
            WEAK => 1,
            STRONG | PROOF => 3,
        }
    }

    const fn strong_if(fit: bool) -> Vote {
        if fit { STRONG } else { NO }
    }
}

/// The packet before, for formats that show in their timestamps only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) timestamp: u32,
    /// Bytes of its payload.
    pub(super) length: usize,
    /// Samples of 48 kHz, if it may be Opus; 0 if not.
    pub(super) samples: u32,
}

impl Before {
    pub(super) fn new(timestamp: u32, payload: &[u8]) -> Self {
        Before {
            timestamp,
            length: payload.len(),
            samples: opus::packet(payload).map_or(0, |p| p.samples),
        }
    }
}

/// A packet to be judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) payload_type: u8,
    pub(super) timestamp: u32,
    pub(super) payload: &'a [u8],
    /// `None` after a gap.
    pub(super) before: Option<Before>,
}

impl Look<'_> {
    /// Clock ticks since the packet before.
    fn ticks(&self) -> Option<(u32, Before)> {
        let before = self.before?;
        let ticks = self.timestamp.wrapping_sub(before.timestamp);
        (1..1 << 16).contains(&ticks).then_some((ticks, before))
    }
}

/// Whether a packet may be of a kind that is certain, for the kinds of high rate; `false` for
/// others.
#[inline]
pub(super) fn may_be(kind: Kind, payload_type: u8, payload: &[u8]) -> bool {
    match kind {
        Kind::Mp2t => fits_ts(payload_type, payload) > NO,
        // Inside of a fragmented unit.
        Kind::H264 if matches!(payload, [a, fu, _, ..] if a & 0x9F == 28 && fu & 0xE0 == 0) => true,
        Kind::H264 => fits_h264(payload) > NO,
        Kind::H265 if matches!(payload, [98, 1..=7, fu, _, ..] if fu & 0xC0 == 0) => true,
        Kind::H265 => fits_h265(payload) > NO,
        _ => false,
    }
}

/// How well a packet fits `kind`.
pub(super) fn fits(kind: Kind, look: &Look<'_>) -> Vote {
    let payload = look.payload;
    match kind {
        Kind::Mp2t => fits_ts(look.payload_type, payload),
        Kind::H264 => fits_h264(payload),
        Kind::H265 => fits_h265(payload),
        Kind::Av1 => match av1::begins_sequence(payload) {
            true => PROOF,
            false if av1::is_plausible(payload) => SLIGHT,
            false => NO,
        },
        Kind::Jxsv => match jpegxs::begins_picture(payload) {
            true => PROOF,
            false if jpegxs::is_plausible(payload) => SLIGHT,
            false => NO,
        },
        Kind::Vp8 => fits_picture(payload, pictures::vp8_descriptor, pictures::vp8_picture),
        Kind::Vp9 => fits_picture(payload, pictures::vp9_descriptor, pictures::vp9_picture),
        Kind::Mpv => fits_mpv(payload),
        Kind::Mpeg4Generic => fits_aac(payload),
        Kind::Mp4aLatm if latm::is_length_prefixed(payload) => WEAK,
        Kind::Mp4aLatm => SLIGHT,
        Kind::Opus => fits_opus(look),
        Kind::Ac3 | Kind::Eac3 => fits_ac3(kind, payload),
        Kind::Mpa => fits_mpa(payload),
        Kind::L16 | Kind::L24 => fits_pcm(kind, look),
        Kind::Smpte336m => fits_klv(payload),
        Kind::Smpte291 => fits_ancillary(payload),
    }
}

/// The same against other kinds: of most, only what other payloads hardly look like.
pub(super) fn competes(kind: Kind, look: &Look<'_>) -> Vote {
    let least = match kind {
        Kind::Mp2t | Kind::H264 | Kind::H265 => SLIGHT,
        Kind::Av1 | Kind::Jxsv | Kind::Vp8 | Kind::Vp9 => PROOF,
        _ => WEAK,
    };
    let vote = fits(kind, look);
    if vote < least { NO } else { vote }
}

/// RFC 2250: a whole number of 188-byte packets; also of 192 or 204, or cut anywhere. Static type
/// 33 says so, too.
fn fits_ts(payload_type: u8, payload: &[u8]) -> Vote {
    let (packets, rest) = payload.as_chunks::<188>();
    if !packets.is_empty() && packets.iter().all(|p| p[0] == 0x47) {
        if payload_type == 33 || packets.len() > 1 {
            return STRONG;
        }
        if rest.is_empty() {
            return WEAK;
        }
    }
    fits_unaligned_ts(payload_type, payload)
}

/// Packet headers at the distance of some packet size, wherever the first one is.
#[cold]
fn fits_unaligned_ts(payload_type: u8, payload: &[u8]) -> Vote {
    // ISO 13818-1, 2.4.3.2: sync_byte; adaptation_field_control is never 0.
    let begins = |packet: &[u8]| match packet {
        [0x47, _, _, b3, ..] => b3 & 0x30 != 0,
        [sync, ..] => *sync == 0x47,
        [] => false,
    };
    for size in [188, 204, 192] {
        for at in memchr::memchr_iter(0x47, payload.get(..size).unwrap_or_default()) {
            let mut packets = payload.get(at..).unwrap_or_default().chunks(size);
            let count = packets.len();
            if count >= 2 && packets.all(begins) {
                return match count {
                    _ if payload_type == 33 => STRONG,
                    3.. => WEAK,
                    _ => SLIGHT,
                };
            }
        }
    }
    NO
}

fn fits_picture(
    payload: &[u8],
    descriptor: fn(&[u8]) -> Option<pictures::Descriptor>,
    picture: fn(&[u8]) -> Option<pictures::Picture>,
) -> Vote {
    let Some(d) = descriptor(payload) else {
        return NO;
    };
    let media = payload.get(d.bytes..).unwrap_or_default();
    match picture(media) {
        Some((_, Some(info))) if d.begins && info.width > 0 && info.height > 0 => PROOF,
        _ if media.is_empty() => NO,
        _ => SLIGHT,
    }
}

/// RFC 2250, 3.4: a start code behind the header.
fn fits_mpv(payload: &[u8]) -> Vote {
    let Some((&[first, _, _, _], media)) = payload.split_first_chunk::<4>() else {
        return NO;
    };
    if first & 0xF8 != 0 {
        return NO;
    }
    match media {
        // Sequence header, group of pictures, picture.
        [0, 0, 1, 0xB3 | 0xB8 | 0x00, ..] => STRONG,
        [0, 0, 1, 0x01..=0xAF, ..] => WEAK,
        _ => SLIGHT,
    }
}

/// RFC 3640 in the form of AAC-hbr: sizes that add up to the payload's.
fn fits_aac(payload: &[u8]) -> Vote {
    let form = AuHeader::default();
    let (Some(at), Some(entries)) = (
        aac::media_offset(form, payload),
        aac::entries(form, payload),
    ) else {
        return NO;
    };
    let sum: usize = entries.iter().filter_map(|e| e.size).sum();
    match (payload.len() - at, entries.len()) {
        (left, _) if sum == left && left > 0 => STRONG,
        // A fragment.
        (left, 1) if sum > left && left > 0 => SLIGHT,
        _ => NO,
    }
}

/// RFC 7587: a packet follows its predecessor after as many ticks as that one sounds.
fn fits_opus(look: &Look<'_>) -> Vote {
    if opus::packet(look.payload).is_none() {
        return NO;
    }
    match look.ticks() {
        Some((ticks, before)) if ticks == before.samples => WEAK,
        _ => SLIGHT,
    }
}

/// PCM: as many ticks passed as the packet before had samples.
fn fits_pcm(kind: Kind, look: &Look<'_>) -> Vote {
    let Some((ticks, before)) = look.ticks() else {
        return SLIGHT;
    };
    let ticks = ticks as usize;
    let bytes = if before.length % ticks == 0 {
        before.length / ticks
    } else {
        0
    };
    match (kind, bytes) {
        (Kind::L16, 2 | 4 | 12 | 16) | (Kind::L24, 3 | 6 | 24) => WEAK,
        _ => SLIGHT,
    }
}

/// RFC 4184 and RFC 4598: sync frames behind two bytes.
fn fits_ac3(kind: Kind, payload: &[u8]) -> Vote {
    let Some((&[flags, _], media)) = payload.split_first_chunk::<2>() else {
        return NO;
    };
    if flags & 0xFC != 0 {
        return NO;
    }
    match audio::ac3::sync_frame(media) {
        // The sync word is enough even where the frame is cut off.
        Some(frame) if frame.enhanced == (kind == Kind::Eac3) => STRONG,
        Some(_) => NO,
        None if flags & 3 != 0 => SLIGHT,
        None => NO,
    }
}

/// RFC 2250, 3.5: a frame header behind four bytes that are mostly 0.
fn fits_mpa(payload: &[u8]) -> Vote {
    match payload.split_first_chunk::<4>() {
        Some((&[0, 0, 0, 0], media)) => {
            let parse = sound::header_of(Kind::Mpa);
            Vote::strong_if(audio::frames(media, parse).all(|f| !matches!(f, Err((_, None)))))
        }
        Some((&[0, 0, _, _], _)) => SLIGHT,
        _ => NO,
    }
}

/// RFC 6597: a unit begins with a universal label.
fn fits_klv(payload: &[u8]) -> Vote {
    if payload.starts_with(&KLV_LABEL) {
        Vote::strong_if(klv_bytes(payload).is_some())
    } else {
        SLIGHT
    }
}

/// RFC 8331, 2.1: a length that is right, and zeros where they are reserved.
fn fits_ancillary(payload: &[u8]) -> Vote {
    let Some((&[_, _, l0, l1, count, f, r0, r1], data)) = payload.split_first_chunk::<8>() else {
        return NO;
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let sound = f & 0x3F == 0 && f != 0x40 && r0 == 0 && r1 == 0 && length == data.len();
    match (sound, count) {
        (true, 1..) if !data.is_empty() => STRONG,
        (true, _) => SLIGHT,
        _ => NO,
    }
}

/// Whether every unit of an aggregate fits `unit`.
fn aggregate_fits(form: nal::Form, payload: &[u8], unit: fn(&[u8]) -> Vote) -> Vote {
    let mut units = 0;
    for piece in nal::pieces(form, payload) {
        match piece {
            Ok(piece) if unit(piece.bytes) > NO => units += 1,
            _ => return NO,
        }
    }
    if units > 0 { STRONG } else { NO }
}

fn fits_h264(payload: &[u8]) -> Vote {
    match payload {
        [a, ..] if a & 0x80 != 0 => NO,
        [a, ..] if matches!(a & 0x1F, 24..=27) => {
            aggregate_fits(nal::Form::plain(Codec::H264), payload, h264_unit)
        }
        // RFC 6184, 5.8: the reserved bit is 0, start and end are never both set.
        [a, fu, _, ..] if matches!(a & 0x1F, 28 | 29) => {
            let fit = fu & 0x20 == 0 && fu & 0xC0 != 0xC0 && matches!(fu & 0x1F, 1..=8);
            if fit { WEAK } else { NO }
        }
        _ => h264_unit(payload),
    }
}

/// 7.4.1: nal_ref_idc is 0 for SEI and delimiters, and not 0 for IDR slices and parameter sets.
fn h264_unit(nal: &[u8]) -> Vote {
    let &[a, b, ..] = nal else { return NO };
    let referenced = a & 0x60 != 0;
    match a & 0x9F {
        1 => WEAK,
        5 if referenced => WEAK,
        8 if referenced => SLIGHT,
        6 if !referenced => SLIGHT,
        7 if referenced && is_h264_profile(b) => STRONG,
        9 if !referenced && b & 0x1F == 0x10 => STRONG,
        _ => NO,
    }
}

const fn is_h264_profile(idc: u8) -> bool {
    matches!(
        idc,
        66 | 77 | 88 | 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128
    )
}

fn fits_h265(payload: &[u8]) -> Vote {
    match payload {
        // Forbidden bit, base layer, temporal id.
        [a, b, ..] if a & 0x81 != 0 || b & 0xF8 != 0 || b & 7 == 0 => NO,
        [a, ..] if a >> 1 == 48 => {
            let of = |don| {
                let codec = Codec::H265;
                aggregate_fits(nal::Form { codec, don }, payload, h265_unit)
            };
            of(false).max(of(true))
        }
        [a, _, fu, _, ..] if a >> 1 == 49 => {
            let fit = fu & 0xC0 != 0xC0 && matches!(fu & 0x3F, 0..=9 | 16..=21 | 32..=40);
            if fit { WEAK } else { NO }
        }
        [a, _, _, ..] if a >> 1 == 50 => WEAK,
        _ => h265_unit(payload),
    }
}

fn h265_unit(nal: &[u8]) -> Vote {
    let &[a, b, ..] = nal else { return NO };
    if a & 0x81 != 0 || b & 0xF8 != 0 || b & 7 == 0 {
        return NO;
    }
    match a >> 1 {
        0..=9 | 16..=21 => WEAK,
        36..=40 => SLIGHT,
        32..=34 if b == 1 => STRONG,
        35 if nal.len() == 3 => STRONG,
        _ => NO,
    }
}
