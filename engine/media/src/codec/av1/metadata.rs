//! Metadata OBUs (AV1 5.8): HDR, captions in ITU-T T.35, time codes, scalability.

use super::super::bits::BitReader;
use super::super::sei;
use super::{Leb128, leb128};
use crate::{ContentLight, MasteringDisplay, SideInformation};

/// What a metadata OBU tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metadata {
    /// `METADATA_TYPE_HDR_CLL`.
    Light(ContentLight),
    /// `METADATA_TYPE_HDR_MDCV`.
    Mastering(MasteringDisplay),
    /// `METADATA_TYPE_SCALABILITY`: temporal and spatial layers.
    Scalability {
        /// At least 1.
        temporal_layers: u8,
        /// At least 1.
        spatial_layers: u8,
    },
    /// `METADATA_TYPE_ITUT_T35` with ATSC A/53 caption data.
    Captions {
        /// Valid CEA-608 pairs in it.
        cea608: bool,
        /// Valid CEA-708 data in it.
        cea708: bool,
    },
    /// `METADATA_TYPE_TIMECODE`: hours, minutes, seconds, frames.
    Timecode([u8; 4]),
}

impl Metadata {
    /// The payload of a metadata OBU; `None` if it is of no use here, or breaks the syntax.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let Leb128::Value(kind, used) = leb128(payload) else {
            return None;
        };
        let body = payload.get(used..)?;
        let mut r = BitReader::raw(body);
        match kind {
            1 => Some(Metadata::Light(ContentLight {
                max: r.u(16)? as u16,
                max_average: r.u(16)? as u16,
            })),
            2 => mastering(&mut r),
            3 => scalability(&mut r),
            4 => captions(body),
            5 => timecode(&mut r),
            _ => None,
        }
    }

    /// Adds it to what is known of a track. Layers are the sequence's.
    pub(super) const fn add_to(self, side: &mut SideInformation) {
        match self {
            Metadata::Light(light) => side.light = Some(light),
            Metadata::Mastering(mastering) => side.mastering = Some(mastering),
            Metadata::Captions { cea608, cea708 } => {
                side.cea608 |= cea608;
                side.cea708 |= cea708;
            }
            Metadata::Timecode(timecode) => side.timecode = Some(timecode),
            Metadata::Scalability { .. } => {}
        }
    }
}

/// `value · numerator / denominator`, rounded.
fn scaled(value: u32, numerator: u64, denominator: u64) -> u32 {
    let scaled = (u64::from(value) * numerator + denominator / 2) / denominator;
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

/// 6.7.4: chromaticities in 0.16 fixed point, red first; luminances in 24.8 and 18.14.
fn mastering(r: &mut BitReader<'_>) -> Option<Metadata> {
    let mut point = || -> Option<[u16; 2]> {
        let mut axis = || Some(scaled(r.u(16)?, 50_000, 1 << 16) as u16);
        Some([axis()?, axis()?])
    };
    let (red, green, blue, white_point) = (point()?, point()?, point()?, point()?);
    Some(Metadata::Mastering(MasteringDisplay {
        primaries: [green, blue, red],
        white_point,
        max_luminance: scaled(r.u(32)?, 10_000, 1 << 8),
        min_luminance: scaled(r.u(32)?, 10_000, 1 << 14),
    }))
}

/// 6.7.5.
fn scalability(r: &mut BitReader<'_>) -> Option<Metadata> {
    let (temporal_layers, spatial_layers) = match r.byte(8)? {
        0 => (2, 1),
        1 => (3, 1),
        2 | 5 | 8 | 11 => (1, 2),
        3 | 6 | 9 | 12 => (2, 2),
        4 | 7 | 10 | 13 => (3, 2),
        14 => return structure(r),
        15 | 18 => (1, 3),
        16 | 19 | 21 | 25 => (2, 3),
        17 | 20 | 22 | 26 => (3, 3),
        23 | 27 => (5, 4),
        24 | 28 => (7, 4),
        _ => return None,
    };
    Some(Metadata::Scalability {
        temporal_layers,
        spatial_layers,
    })
}

/// `scalability_structure` (5.8.6).
fn structure(r: &mut BitReader<'_>) -> Option<Metadata> {
    let spatial_layers = r.byte(2)? + 1;
    let (dimensions, description, group) = (r.flag()?, r.flag()?, r.flag()?);
    r.skip(3)?;
    if dimensions {
        r.skip(32 * u32::from(spatial_layers))?;
    }
    if description {
        r.skip(8 * u32::from(spatial_layers))?;
    }
    let mut temporal_layers = 1;
    if group {
        for _ in 0..r.u(8)? {
            temporal_layers = temporal_layers.max(r.byte(3)? + 1);
            // Both switching-up points.
            r.skip(2)?;
            let references = r.u(3)?;
            r.skip(8 * references)?;
        }
    }
    Some(Metadata::Scalability {
        temporal_layers,
        spatial_layers,
    })
}

/// ITU-T T.35 of the United States, ATSC.
fn captions(t35: &[u8]) -> Option<Metadata> {
    let user_data = t35.strip_prefix(&[0xB5, 0, 0x31])?;
    let (cea608, cea708) = sei::captions(user_data);
    (cea608 || cea708).then_some(Metadata::Captions { cea608, cea708 })
}

/// 5.8.7. What is left out of a time code is 0 here.
fn timecode(r: &mut BitReader<'_>) -> Option<Metadata> {
    // counting_type
    r.skip(5)?;
    let full = r.flag()?;
    // discontinuity_flag, cnt_dropped_flag
    r.skip(2)?;
    let frames = r.u(9)?;
    let (mut seconds, mut minutes, mut hours) = (0, 0, 0);
    if full || r.flag()? {
        seconds = r.byte(6)?;
        if full || r.flag()? {
            minutes = r.byte(6)?;
            if full || r.flag()? {
                hours = r.byte(5)?;
            }
        }
    }
    let sensible = seconds < 60 && minutes < 60 && hours < 24;
    let frames = u8::try_from(frames).unwrap_or(u8::MAX);
    sensible.then_some(Metadata::Timecode([hours, minutes, seconds, frames]))
}
