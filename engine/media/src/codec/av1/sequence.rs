//! The sequence header OBU (AV1 5.5), read to its last bit.

use super::super::bits::BitReader;
use super::super::{VideoInfo, rate};

/// `SELECT_SCREEN_CONTENT_TOOLS` and `SELECT_INTEGER_MV`: each frame says.
pub(super) const SELECT: u8 = 2;
/// `operating_points_cnt_minus_1` has five bits.
const MAX_POINTS: usize = 32;

/// An operating point (5.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OperatingPoint {
    /// `operating_point_idc`: temporal layers in bits 0–7, spatial layers in bits 8–11; 0: all.
    pub idc: u16,
    /// `seq_level_idx`: level 2 + (idx >> 2) "." (idx & 3); 31: no limits.
    pub level: u8,
    /// `seq_tier`: the High tier.
    pub high_tier: bool,
    pub(super) decoder_model: bool,
}

/// What later OBUs need of `decoder_model_info` (5.5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DecoderModel {
    pub(super) removal_bits: u32,
    pub(super) presentation_bits: u32,
}

/// A sequence header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sequence {
    /// Profile, level and tier of the first operating point, largest dimensions, rate, depth,
    /// sampling, colour, film grain.
    pub info: VideoInfo,
    /// `still_picture`.
    pub still_picture: bool,
    /// `reduced_still_picture_header`.
    pub reduced_still: bool,
    /// `seq_force_screen_content_tools`: 0 never, 1 always, 2 each frame says.
    pub screen_content: u8,
    /// Bits of `order_hint`, 0 without.
    pub order_hint_bits: u32,
    points: [OperatingPoint; MAX_POINTS],
    point_count: u8,
    pub(super) integer_mv: u8,
    pub(super) equal_picture_interval: bool,
    pub(super) decoder_model: Option<DecoderModel>,
    /// Bits of frame ids, 0 without.
    pub(super) frame_id_bits: u32,
}

impl Sequence {
    /// The operating points, at least one.
    pub fn operating_points(&self) -> &[OperatingPoint] {
        self.points
            .get(..usize::from(self.point_count))
            .unwrap_or_default()
    }

    /// Temporal layers that the operating points name, at least 1.
    pub fn temporal_layers(&self) -> u8 {
        self.layers(|idc| idc & 0xFF)
    }

    /// Spatial layers that the operating points name, at least 1.
    pub fn spatial_layers(&self) -> u8 {
        self.layers(|idc| idc >> 8 & 0xF)
    }

    fn layers(&self, of: fn(u16) -> u16) -> u8 {
        let all = self.operating_points().iter().fold(0, |m, p| m | of(p.idc));
        (16 - all.leading_zeros() as u8).max(1)
    }

    /// The payload of a sequence header OBU; `None` if it breaks the syntax.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        Self::read(&mut BitReader::raw(payload))
    }

    /// As [`Sequence::parse`], and the payload must end where the syntax says (5.3.4).
    pub fn parse_exact(payload: &[u8]) -> Option<Self> {
        let mut r = BitReader::raw(payload);
        let sequence = Self::read(&mut r)?;
        // A one, then zeros to the end of its byte.
        let mut ends = r.flag()?;
        let mut zeros = 0;
        while let Some(bit) = r.flag() {
            zeros += 1;
            ends &= !bit && zeros < 8;
        }
        ends.then_some(sequence)
    }

    fn read(r: &mut BitReader<'_>) -> Option<Self> {
        let profile = r.byte(3)?;
        let mut s = Sequence {
            info: VideoInfo::default(),
            still_picture: r.flag()?,
            reduced_still: r.flag()?,
            screen_content: SELECT,
            order_hint_bits: 0,
            points: [OperatingPoint::default(); MAX_POINTS],
            point_count: 1,
            integer_mv: SELECT,
            equal_picture_interval: false,
            decoder_model: None,
            frame_id_bits: 0,
        };
        if s.reduced_still {
            // 6.4.1: only for still pictures.
            if !s.still_picture {
                return None;
            }
            s.points[0].level = r.byte(5)?;
        } else {
            let delay_bits = s.timing(r)?;
            s.operating(r, delay_bits)?;
        }
        s.info.level = s.points[0].level;
        s.info.high_tier = s.points[0].high_tier;
        s.info.profile = match profile {
            0 => "Main",
            1 => "High",
            2 => "Professional",
            _ => return None,
        };
        s.dimensions(r)?;
        s.tools(r)?;
        // enable_superres, enable_cdef, enable_restoration
        r.skip(3)?;
        s.colour_config(r, profile)?;
        s.info.film_grain = r.flag()?;
        Some(s)
    }

    /// 5.5.3 and 5.5.4; returns the bits of buffer delays.
    fn timing(&mut self, r: &mut BitReader<'_>) -> Option<u32> {
        if !r.flag()? {
            return Some(0);
        }
        let units = r.u(32)?;
        let scale = r.u(32)?;
        self.equal_picture_interval = r.flag()?;
        if self.equal_picture_interval {
            let ticks = u64::from(uvlc(r)?) + 1;
            self.info.frame_rate = u64::from(units)
                .checked_mul(ticks)
                .map_or((0, 0), |d| rate(scale.into(), d));
        }
        if !r.flag()? {
            return Some(0);
        }
        let delay_bits = r.u(5)? + 1;
        r.skip(32)?;
        self.decoder_model = Some(DecoderModel {
            removal_bits: r.u(5)? + 1,
            presentation_bits: r.u(5)? + 1,
        });
        Some(delay_bits)
    }

    fn operating(&mut self, r: &mut BitReader<'_>, delay_bits: u32) -> Option<()> {
        let display_delay = r.flag()?;
        self.point_count = r.byte(5)? + 1;
        let model = self.decoder_model.is_some();
        for point in self.points.get_mut(..usize::from(self.point_count))? {
            point.idc = r.u(12)? as u16;
            point.level = r.byte(5)?;
            if point.level > 7 {
                point.high_tier = r.flag()?;
            }
            if model && r.flag()? {
                point.decoder_model = true;
                // Both buffer delays, low_delay_mode_flag.
                r.skip(2 * delay_bits + 1)?;
            }
            if display_delay && r.flag()? {
                r.skip(4)?;
            }
        }
        Some(())
    }

    fn dimensions(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        let (width_bits, height_bits) = (r.u(4)? + 1, r.u(4)? + 1);
        self.info.width = r.u(width_bits)? + 1;
        self.info.height = r.u(height_bits)? + 1;
        if !self.reduced_still && r.flag()? {
            let delta_bits = r.u(4)? + 2;
            self.frame_id_bits = r.u(3)? + delta_bits + 1;
            // 6.4.1: "shall not exceed 16".
            if self.frame_id_bits > 16 {
                return None;
            }
        }
        Some(())
    }

    fn tools(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        r.skip(3)?;
        if self.reduced_still {
            return Some(());
        }
        // interintra, masked, warped, dual filter
        r.skip(4)?;
        let order_hint = r.flag()?;
        if order_hint {
            // enable_jnt_comp, enable_ref_frame_mvs
            r.skip(2)?;
        }
        if !r.flag()? {
            self.screen_content = r.byte(1)?;
        }
        if self.screen_content > 0 && !r.flag()? {
            self.integer_mv = r.byte(1)?;
        }
        if order_hint {
            self.order_hint_bits = r.u(3)? + 1;
        }
        Some(())
    }

    /// 5.5.2.
    fn colour_config(&mut self, r: &mut BitReader<'_>, profile: u8) -> Option<()> {
        let high = r.flag()?;
        let twelve = profile == 2 && high && r.flag()?;
        self.info.bit_depth = match (high, twelve) {
            (_, true) => 12,
            (true, _) => 10,
            _ => 8,
        };
        let mono = profile != 1 && r.flag()?;
        let colour = &mut self.info.colour;
        if r.flag()? {
            colour.primaries = r.byte(8)?;
            colour.transfer = r.byte(8)?;
            colour.matrix = r.byte(8)?;
        }
        if mono {
            colour.full_range = r.flag()?;
            return Some(());
        }
        if (colour.primaries, colour.transfer, colour.matrix) == (1, 13, 0) {
            colour.full_range = true;
            self.info.chroma_format = 3;
        } else {
            colour.full_range = r.flag()?;
            let (x, y) = match profile {
                0 => (true, true),
                1 => (false, false),
                _ if twelve => {
                    let x = r.flag()?;
                    (x, x && r.flag()?)
                }
                _ => (true, false),
            };
            self.info.chroma_format = match (x, y) {
                (true, true) => 1,
                (true, false) => 2,
                _ => 3,
            };
            if x && y {
                // chroma_sample_position
                r.skip(2)?;
            }
        }
        // separate_uv_delta_q
        r.skip(1)
    }
}

/// 4.10.3: Exp-Golomb, 2^32 − 1 for 32 or more leading zeros.
fn uvlc(r: &mut BitReader<'_>) -> Option<u32> {
    let mut zeros = 0;
    while !r.flag()? {
        zeros += 1;
    }
    if zeros >= 32 {
        return Some(u32::MAX);
    }
    let rest = r.u(zeros)?;
    Some(((1_u64 << zeros) - 1 + u64::from(rest)) as u32)
}
