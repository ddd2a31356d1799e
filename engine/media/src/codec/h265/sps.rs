//! Sequence parameter sets (7.3.2.2) with profile, tier and level (7.3.3), scaling lists,
//! reference picture sets (7.3.7), and video usability information (E.2.1).

use super::references::{SetsOfSps, ref_pic_set};
use crate::Colour;
use crate::codec::bits::BitReader;
use crate::codec::{VideoInfo, rate, read_colour};

/// A sequence parameter set, the fields that matter here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sps {
    /// What the operator is shown.
    pub info: VideoInfo,
    /// `sps_seq_parameter_set_id`.
    pub id: u8,
    /// `sps_video_parameter_set_id`.
    pub vps: u8,
    /// `sps_max_sub_layers_minus1`.
    pub(super) max_sub_layers: u8,
    /// Bits of `slice_segment_address`.
    pub(super) address_bits: u32,
    pub(super) separate_colour_plane: bool,
    pub(super) log2_max_poc_lsb: u32,
    /// What slices choose their reference pictures from; `None`: the set was cut off before.
    pub(super) references: Option<Box<SetsOfSps>>,
    /// `frame_field_info_present_flag`.
    pub(super) field_info: bool,
}

pub(super) struct Profile {
    idc: u8,
    level: u8,
    high_tier: bool,
    progressive: bool,
    interlaced: bool,
}

/// 7.3.3.
pub(super) fn profile_tier_level(r: &mut BitReader<'_>, sub_layers: u32) -> Option<Profile> {
    r.skip(2)?;
    let high_tier = r.flag()?;
    let mut idc = r.byte(5)?;
    let compatibility = r.u(32)?;
    if idc == 0 {
        // The lowest profile that it is compatible with.
        idc = (1..32)
            .find(|j| compatibility & (1 << (31 - j)) != 0)
            .unwrap_or(0);
    }
    let progressive = r.flag()?;
    let interlaced = r.flag()?;
    r.skip(46)?;
    let level = r.byte(8)?;
    let mut bits = 0;
    for _ in 0..sub_layers {
        let profile = r.flag()?;
        let level = r.flag()?;
        bits += u32::from(profile) * 88 + u32::from(level) * 8;
    }
    if sub_layers > 0 {
        r.skip(2 * (8 - sub_layers))?;
    }
    r.skip(bits)?;
    Some(Profile {
        idc,
        level,
        high_tier,
        progressive,
        interlaced,
    })
}

const fn profile_name(idc: u8, chroma: u32, depth: u32) -> &'static str {
    match idc {
        1 => "Main",
        2 => "Main 10",
        3 => "Main Still Picture",
        // A.3.5: the format range extensions are named by their format.
        4 => match (chroma, depth) {
            (0, ..=8) => "Monochrome",
            (0, _) => "Monochrome 12",
            (1, _) => "Main 12",
            (2, ..=10) => "Main 4:2:2 10",
            (2, _) => "Main 4:2:2 12",
            (_, ..=8) => "Main 4:4:4",
            (_, ..=10) => "Main 4:4:4 10",
            _ => "Main 4:4:4 12",
        },
        5 => "High Throughput",
        6 => "Multiview Main",
        7 => "Scalable Main",
        9 => "Screen-Extended",
        _ => "",
    }
}

/// Parses an SPS; `rbsp` begins behind the NAL unit's two header bytes.
pub fn parse_sps(rbsp: &[u8]) -> Option<Sps> {
    let mut r = BitReader::new(rbsp);
    let vps = r.byte(4)?;
    let sub_layers = r.u(3)?;
    if sub_layers > 6 {
        return None;
    }
    r.skip(1)?;
    let profile = profile_tier_level(&mut r, sub_layers)?;
    let id = u8::try_from(r.ue_max(15)?).ok()?;
    let chroma = r.ue_max(3)?;
    let separate_colour_plane = chroma == 3 && r.flag()?;
    let width = r.ue_max(1 << 16).filter(|&w| w > 0)?;
    let height = r.ue_max(1 << 16).filter(|&h| h > 0)?;
    let (mut crop_x, mut crop_y) = (0_u64, 0_u64);
    if r.flag()? {
        let [left, right, top, bottom] = [r.ue()?, r.ue()?, r.ue()?, r.ue()?].map(u64::from);
        crop_x = (left + right) * if matches!(chroma, 1 | 2) { 2 } else { 1 };
        crop_y = (top + bottom) * if chroma == 1 { 2 } else { 1 };
    }
    let depth = 8 + r.ue_max(8)?;
    r.ue_max(8)?;
    let log2_max_poc_lsb = r.ue_max(12)? + 4;
    // The last is that of the highest sub-layer.
    let first = if r.flag()? { 0 } else { sub_layers };
    let mut reorder = 0;
    for _ in first..=sub_layers {
        r.ue()?;
        reorder = r.ue_max(16)?;
        r.ue()?;
    }
    let log2_ctb = r.ue_max(3)? + 3 + r.ue_max(3)?;
    let ctbs = |n: u32| u64::from(n.div_ceil(1 << log2_ctb));
    let picture_ctbs = ctbs(width) * ctbs(height);
    let address_bits = u64::BITS - (picture_ctbs - 1).leading_zeros();
    // What lies behind only adds timing and colour; a set that is cut off keeps what was read.
    let mut vui = Vui::default();
    let mut references = None;
    let _ = tools_and_vui(&mut r, log2_max_poc_lsb, &mut references, &mut vui);
    let shown_width = u64::from(width).checked_sub(crop_x).filter(|&w| w > 0)?;
    let shown_height = u64::from(height).checked_sub(crop_y).filter(|&h| h > 0)?;
    Some(Sps {
        info: VideoInfo {
            profile: profile_name(profile.idc, chroma, depth),
            level: profile.level,
            high_tier: profile.high_tier,
            width: u32::try_from(shown_width).ok()?,
            height: u32::try_from(shown_height).ok()?,
            frame_rate: vui.rate,
            bit_depth: u8::try_from(depth).ok()?,
            chroma_format: u8::try_from(chroma).ok()?,
            interlaced: vui.field_seq || (profile.interlaced && !profile.progressive),
            colour: vui.colour,
            reorder_depth: u8::try_from(reorder).ok(),
            temporal_layers: u8::try_from(sub_layers + 1).ok()?,
            ..VideoInfo::default()
        },
        id,
        vps,
        max_sub_layers: u8::try_from(sub_layers).ok()?,
        address_bits,
        separate_colour_plane,
        log2_max_poc_lsb,
        references,
        field_info: vui.field_info,
    })
}

#[derive(Default)]
struct Vui {
    rate: (u32, u32),
    field_seq: bool,
    field_info: bool,
    colour: Colour,
}

/// From the transform sizes to the VUI's timing.
fn tools_and_vui(
    r: &mut BitReader<'_>,
    poc_bits: u32,
    references: &mut Option<Box<SetsOfSps>>,
    vui: &mut Vui,
) -> Option<()> {
    for _ in 0..4 {
        r.ue()?;
    }
    if r.flag()? && r.flag()? {
        skip_scaling_lists(r)?;
    }
    r.skip(2)?;
    if r.flag()? {
        r.skip(8)?;
        r.ue()?;
        r.ue()?;
        r.skip(1)?;
    }
    let count = r.ue_max(64)?;
    let mut sets = Box::new(SetsOfSps::default());
    for i in 0..count {
        let set = ref_pic_set(r, &sets.short, i, count)?;
        sets.short.push(set);
    }
    sets.has_long = r.flag()?;
    if sets.has_long {
        for _ in 0..r.ue_max(32)? {
            let lsb = r.u(poc_bits)?;
            sets.long.push((lsb, r.flag()?));
        }
    }
    *references = Some(sets);
    r.skip(2)?;
    if r.flag()? {
        read_vui(r, vui)?;
    }
    Some(())
}

/// E.2.1 up to the timing information.
fn read_vui(r: &mut BitReader<'_>, vui: &mut Vui) -> Option<()> {
    if r.flag()? && r.u(8)? == 255 {
        r.skip(32)?;
    }
    if r.flag()? {
        r.skip(1)?;
    }
    if r.flag()? {
        r.skip(3)?;
        vui.colour = read_colour(r)?;
    }
    if r.flag()? {
        r.ue()?;
        r.ue()?;
    }
    r.skip(1)?;
    vui.field_seq = r.flag()?;
    vui.field_info = r.flag()?;
    if r.flag()? {
        for _ in 0..4 {
            r.ue()?;
        }
    }
    if r.flag()? {
        let tick = r.u(32)?;
        let scale = r.u(32)?;
        vui.rate = rate(u64::from(scale), u64::from(tick));
    }
    Some(())
}

/// 7.3.4.
fn skip_scaling_lists(r: &mut BitReader<'_>) -> Option<()> {
    for size in 0..4_u32 {
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !r.flag()? {
                r.ue()?;
                continue;
            }
            if size > 1 {
                r.se()?;
            }
            for _ in 0..64.min(16 << (2 * size)) {
                r.se()?;
            }
        }
    }
    Some(())
}
