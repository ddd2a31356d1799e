//! The elementary streams' own syntax: bit reader, H.264, HEVC, MPEG-2 video and audio headers,
//! SEI messages and decoder configuration records (reference: ISO 14496-10, ISO 23008-2,
//! ISO 13818-2). Everything here reads bounded heads of untrusted data and
//! returns `None` where they break the syntax. Called by [`crate::assembler`] and the
//! MPEG-TS demultiplexer.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

pub mod audio;
pub mod av1;
pub mod bits;
pub mod h264;
pub mod h265;
pub mod jpegxs;
pub mod mpeg2;
pub mod records;
pub mod scan;
pub mod sei;

/// What a sequence parameter set tells of the video.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VideoInfo {
    /// Profile's name as the standard writes it.
    pub profile: &'static str,
    /// `level_idc` (`general_level_idc` for HEVC).
    pub level: u8,
    /// High tier.
    pub high_tier: bool,
    /// Luma samples across, after cropping.
    pub width: u32,
    /// Luma lines, after cropping.
    pub height: u32,
    /// Frames a second as a reduced fraction; (0, 0) when the stream does not say.
    pub frame_rate: (u32, u32),
    /// Bits per luma sample.
    pub bit_depth: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Fields, or frames that may be coded as fields and do not say that they are progressive.
    pub interlaced: bool,
    /// Which field of a frame is shown first; `None` where there are none or it is not known.
    pub field_order: Option<crate::FieldOrder>,
    /// Colour.
    pub colour: crate::Colour,
    /// See [`crate::Track::reorder_depth`]; `None`: nothing is promised (and nothing seen).
    pub reorder_depth: Option<u8>,
    /// Temporal layers, 1 where there is no scalability.
    pub temporal_layers: u8,
    /// Layers beyond the base layer.
    pub enhancement_layers: u8,
    /// AV1: film grain synthesis is asked for.
    pub film_grain: bool,
    /// AV1: coded with screen-content tools.
    pub screen_content: bool,
    /// SEI messages and metadata seen.
    pub side: crate::SideInformation,
}

/// The coding type of a slice, or the largest of a picture's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SliceKind {
    /// Intra only.
    I,
    /// Predicted from one list.
    P,
    /// Predicted from two lists.
    B,
}

/// The VUI's video signal type from `video_full_range_flag` on (H.264 E.1.1, HEVC E.2.1).
fn read_colour(r: &mut bits::BitReader<'_>) -> Option<crate::Colour> {
    let mut colour = crate::Colour {
        full_range: r.flag()?,
        ..crate::Colour::default()
    };
    if r.flag()? {
        colour.primaries = r.byte(8)?;
        colour.transfer = r.byte(8)?;
        colour.matrix = r.byte(8)?;
    }
    Some(colour)
}

/// Whether a time code is worth showing anew: once a second is enough.
pub(crate) fn other_second(before: Option<[u8; 4]>, now: Option<[u8; 4]>) -> bool {
    let seconds = |code: Option<[u8; 4]>| code.map(|[h, m, s, _]| (h, m, s));
    seconds(before) != seconds(now)
}

/// A rate as a reduced fraction, (0, 0) if it makes no sense.
pub(crate) fn rate(numerator: u64, denominator: u64) -> (u32, u32) {
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    if a == 0 || numerator == 0 || denominator == 0 {
        return (0, 0);
    }
    match (u32::try_from(numerator / a), u32::try_from(denominator / a)) {
        (Ok(n), Ok(d)) => (n, d),
        _ => (0, 0),
    }
}
