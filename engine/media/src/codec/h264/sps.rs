//! Sequence parameter sets (7.3.2.1.1) with their video usability information (E.1.1).

use crate::Colour;
use crate::codec::bits::BitReader;
use crate::codec::sei::TimingSyntax;
use crate::codec::{VideoInfo, rate, read_colour};

/// A sequence parameter set, the fields that matter here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sps {
    /// What the operator is shown.
    pub info: VideoInfo,
    /// `seq_parameter_set_id`.
    pub id: u8,
    /// Slices may come in any order (A.2.1, A.2.3: Baseline and Extended profile).
    pub any_slice_order: bool,
    /// How its picture timing messages are coded.
    pub timing: TimingSyntax,
    pub(super) separate_colour_plane: bool,
    /// `ChromaArrayType` is not 0.
    pub(super) has_chroma: bool,
    pub(super) log2_max_frame_num: u32,
    pub(super) frame_mbs_only: bool,
    pub(super) poc: PocType,
    /// `gaps_in_frame_num_value_allowed_flag`: sub-layers may be left out.
    pub(super) frame_num_gaps: bool,
}

/// What the picture order count is worked out from (8.2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PocType {
    /// From bits of itself in each slice.
    Lsb {
        /// `log2_max_pic_order_cnt_lsb_minus4` + 4.
        bits: u32,
    },
    /// From `frame_num` and a cycle of offsets.
    Cycle {
        always_zero: bool,
        non_ref: i64,
        top_to_bottom: i64,
        offsets: Box<[i64]>,
    },
    /// Output order is decoding order.
    Decoding,
}

const fn has_chroma_fields(profile: u8) -> bool {
    matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    )
}

/// Annex A: `flags` is the byte of constraint_set flags, set 0 on top.
fn profile_name(profile: u8, flags: u8) -> &'static str {
    let set = |n: u8| flags & (0x80 >> n) != 0;
    match profile {
        66 if set(1) => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 if set(4) && set(5) => "Constrained High",
        100 if set(4) => "Progressive High",
        100 => "High",
        110 if set(3) => "High 10 Intra",
        110 => "High 10",
        122 if set(3) => "High 4:2:2 Intra",
        122 => "High 4:2:2",
        244 if set(3) => "High 4:4:4 Intra",
        244 => "High 4:4:4 Predictive",
        44 => "CAVLC 4:4:4 Intra",
        83 => "Scalable Baseline",
        86 => "Scalable High",
        118 => "Multiview High",
        128 => "Stereo High",
        _ => "",
    }
}

fn skip_scaling_lists(r: &mut BitReader<'_>, lists: u32) -> Option<()> {
    for list in 0..lists {
        if !r.flag()? {
            continue;
        }
        let size = if list < 6 { 16 } else { 64 };
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..size {
            if next != 0 {
                next = (last + r.se()?).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Some(())
}

struct Format {
    chroma: u32,
    separate: bool,
    depth: u32,
}

fn format(r: &mut BitReader<'_>, profile: u8) -> Option<Format> {
    let mut format = Format {
        chroma: 1,
        separate: false,
        depth: 8,
    };
    if has_chroma_fields(profile) {
        format.chroma = r.ue_max(3)?;
        format.separate = format.chroma == 3 && r.flag()?;
        format.depth = 8 + r.ue_max(6)?;
        r.ue_max(6)?;
        r.skip(1)?;
        if r.flag()? {
            skip_scaling_lists(r, if format.chroma == 3 { 12 } else { 8 })?;
        }
    }
    Some(format)
}

fn poc_type(r: &mut BitReader<'_>) -> Option<PocType> {
    Some(match r.ue_max(2)? {
        0 => PocType::Lsb {
            bits: r.ue_max(12)? + 4,
        },
        1 => {
            let always_zero = r.flag()?;
            let non_ref = r.se()?;
            let top_to_bottom = r.se()?;
            let count = r.ue_max(255)?;
            let offsets = (0..count).map(|_| r.se()).collect::<Option<Vec<i64>>>()?;
            PocType::Cycle {
                always_zero,
                non_ref,
                top_to_bottom,
                offsets: offsets.into_boxed_slice(),
            }
        }
        _ => PocType::Decoding,
    })
}

/// Parses an SPS; `rbsp` begins behind the NAL unit's header.
pub fn parse_sps(rbsp: &[u8]) -> Option<Sps> {
    let mut r = BitReader::new(rbsp);
    let profile = r.byte(8)?;
    let flags = r.byte(8)?;
    let level = r.byte(8)?;
    let id = u8::try_from(r.ue_max(31)?).ok()?;
    let Format {
        chroma,
        separate,
        depth,
    } = format(&mut r, profile)?;
    let log2_max_frame_num = r.ue_max(12)? + 4;
    let poc = poc_type(&mut r)?;
    r.ue()?;
    let frame_num_gaps = r.flag()?;
    // Level 6.2 allows no more than 139,264 macroblocks and sqrt(8 × that) = 1055 on a side;
    // a few times that is the bound.
    let width_mbs = r.ue_max(4095)? + 1;
    let map_units = r.ue_max(4095)? + 1;
    let frame_mbs_only = r.flag()?;
    let adaptive = !frame_mbs_only && r.flag()?;
    r.skip(1)?;
    let (mut crop_x, mut crop_y) = (0_u64, 0_u64);
    let field = if frame_mbs_only { 1_u32 } else { 2 };
    if r.flag()? {
        let [left, right, top, bottom] = [r.ue()?, r.ue()?, r.ue()?, r.ue()?].map(u64::from);
        // 7.4.2.1.1, CropUnitX and CropUnitY; ChromaArrayType is 0 with separate planes.
        let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma == 1 { 2 } else { 1 };
        crop_x = unit_x * (left + right);
        crop_y = unit_y * u64::from(field) * (top + bottom);
    }
    let width = (u64::from(width_mbs) * 16)
        .checked_sub(crop_x)
        .filter(|&w| w > 0)?;
    let height = (u64::from(map_units) * 16 * u64::from(field))
        .checked_sub(crop_y)
        .filter(|&h| h > 0)?;
    let mut vui = Vui::default();
    // A VUI that is cut off keeps what was read of it.
    if r.flag().unwrap_or(false) {
        let _ = read_vui(&mut r, &mut vui);
    }
    // Annex A: constraint_set3 of these profiles allows only intra pictures.
    let intra_only = flags & 0x10 != 0 && matches!(profile, 44 | 86 | 100 | 110 | 122 | 244);
    let in_order = intra_only || poc == PocType::Decoding;
    Some(Sps {
        info: VideoInfo {
            profile: profile_name(profile, flags),
            level,
            width: u32::try_from(width).ok()?,
            height: u32::try_from(height).ok()?,
            frame_rate: vui.rate,
            bit_depth: u8::try_from(depth).ok()?,
            chroma_format: u8::try_from(chroma).ok()?,
            interlaced: !frame_mbs_only,
            colour: vui.colour,
            reorder_depth: if in_order { Some(0) } else { vui.reorder },
            temporal_layers: 1,
            ..VideoInfo::default()
        },
        id,
        any_slice_order: matches!(profile, 66 | 88),
        timing: TimingSyntax {
            adaptive,
            ..vui.timing
        },
        separate_colour_plane: separate,
        has_chroma: chroma != 0 && !separate,
        log2_max_frame_num,
        frame_mbs_only,
        poc,
        frame_num_gaps,
    })
}

#[derive(Default)]
struct Vui {
    rate: (u32, u32),
    colour: Colour,
    timing: TimingSyntax,
    /// `max_num_reorder_frames`.
    reorder: Option<u8>,
}

/// E.1.1.
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
    if r.flag()? {
        let tick = r.u(32)?;
        let scale = r.u(32)?;
        // A tick is a field's duration, whether or not the stream is interlaced (E.2.1).
        vui.rate = rate(u64::from(scale), u64::from(tick) * 2);
        r.skip(1)?;
    }
    let mut delay_bits = 0;
    let mut has_hrd = false;
    for _nal_then_vcl in 0..2 {
        if r.flag()? {
            has_hrd = true;
            delay_bits = hrd(r)?;
        }
    }
    if has_hrd {
        r.skip(1)?;
    }
    let pic_struct = r.flag()?;
    vui.timing = TimingSyntax {
        delay_bits,
        pic_struct,
        adaptive: false,
    };
    if r.flag()? {
        r.skip(1)?;
        for _ in 0..4 {
            r.ue()?;
        }
        vui.reorder = Some(u8::try_from(r.ue_max(16)?).ok()?);
    }
    Some(())
}

/// E.1.2; the bits of the two delays of a picture timing message, together.
fn hrd(r: &mut BitReader<'_>) -> Option<u32> {
    let count = r.ue_max(31)? + 1;
    r.skip(8)?;
    for _ in 0..count {
        r.ue()?;
        r.ue()?;
        r.skip(1)?;
    }
    r.skip(5)?;
    let removal = r.u(5)? + 1;
    let output = r.u(5)? + 1;
    r.skip(5)?;
    Some(removal + output)
}
