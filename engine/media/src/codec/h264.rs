//! H.264 (ITU-T H.264, ISO 14496-10) as far as access units need it: NAL unit types, SPS, PPS,
//! slice headers up to `redundant_pic_cnt`, the recovery point SEI message, and the rule for
//! the first slice of a new picture (7.4.1.2.4). Called by [`crate::assembler`].

use super::bits::BitReader;
use super::{SliceKind, VideoInfo, rate};

/// A sequence parameter set (7.3.2.1.1), the fields that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sps {
    /// What the operator is shown.
    pub info: VideoInfo,
    /// `seq_parameter_set_id`.
    pub id: u8,
    separate_colour_plane: bool,
    log2_max_frame_num: u32,
    poc_type: u8,
    log2_max_poc_lsb: u32,
    delta_pic_order_always_zero: bool,
    frame_mbs_only: bool,
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

/// Parses an SPS; `rbsp` begins behind the NAL unit's header.
pub fn parse_sps(rbsp: &[u8]) -> Option<Sps> {
    let mut r = BitReader::new(rbsp);
    let profile = r.byte(8)?;
    let flags = r.byte(8)?;
    let level = r.byte(8)?;
    let id = u8::try_from(r.ue_max(31)?).ok()?;
    let (mut chroma, mut separate, mut depth) = (1, false, 8);
    if has_chroma_fields(profile) {
        chroma = r.ue_max(3)?;
        separate = chroma == 3 && r.flag()?;
        depth = 8 + r.ue_max(6)?;
        r.ue_max(6)?;
        r.skip(1)?;
        if r.flag()? {
            skip_scaling_lists(&mut r, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    let log2_max_frame_num = r.ue_max(12)? + 4;
    let poc_type = r.ue_max(2)?;
    let (mut log2_max_poc_lsb, mut always_zero) = (4, false);
    if poc_type == 0 {
        log2_max_poc_lsb = r.ue_max(12)? + 4;
    } else if poc_type == 1 {
        always_zero = r.flag()?;
        r.se()?;
        r.se()?;
        for _ in 0..r.ue_max(255)? {
            r.se()?;
        }
    }
    r.ue()?;
    r.skip(1)?;
    // Level 6.2 allows no more than 139,264 macroblocks and sqrt(8 × that) = 1055 on a side;
    // a few times that is the bound.
    let width_mbs = r.ue_max(4095)? + 1;
    let map_units = r.ue_max(4095)? + 1;
    let frame_mbs_only = r.flag()?;
    if !frame_mbs_only {
        r.skip(1)?;
    }
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
    // A VUI that is cut off costs only the frame rate.
    let frame_rate = if r.flag()? {
        vui_rate(&mut r).unwrap_or((0, 0))
    } else {
        (0, 0)
    };
    Some(Sps {
        info: VideoInfo {
            profile: profile_name(profile, flags),
            level,
            width: u32::try_from(width).ok()?,
            height: u32::try_from(height).ok()?,
            frame_rate,
            bit_depth: u8::try_from(depth).ok()?,
            chroma_format: u8::try_from(chroma).ok()?,
            interlaced: !frame_mbs_only,
            temporal_layers: 1,
            ..VideoInfo::default()
        },
        id,
        separate_colour_plane: separate,
        log2_max_frame_num,
        poc_type: u8::try_from(poc_type).ok()?,
        log2_max_poc_lsb,
        delta_pic_order_always_zero: always_zero,
        frame_mbs_only,
    })
}

/// E.1.1 up to the timing information.
fn vui_rate(r: &mut BitReader<'_>) -> Option<(u32, u32)> {
    if r.flag()? && r.u(8)? == 255 {
        r.skip(32)?;
    }
    if r.flag()? {
        r.skip(1)?;
    }
    if r.flag()? {
        r.skip(4)?;
        if r.flag()? {
            r.skip(24)?;
        }
    }
    if r.flag()? {
        r.ue()?;
        r.ue()?;
    }
    if !r.flag()? {
        return Some((0, 0));
    }
    let tick = r.u(32)?;
    let scale = r.u(32)?;
    // A tick is a field's duration, whether or not the stream is interlaced (E.2.1).
    Some(rate(u64::from(scale), u64::from(tick) * 2))
}

/// A picture parameter set (7.3.2.2), the fields that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pps {
    id: u8,
    sps: u8,
    bottom_field_poc: bool,
    redundant_pic_cnt: bool,
}

/// Parses a PPS; `rbsp` begins behind the NAL unit's header.
pub fn parse_pps(rbsp: &[u8]) -> Option<Pps> {
    let mut r = BitReader::new(rbsp);
    let id = u8::try_from(r.ue_max(255)?).ok()?;
    let sps = u8::try_from(r.ue_max(31)?).ok()?;
    r.skip(1)?;
    let bottom_field_poc = r.flag()?;
    let groups = r.ue_max(7)?;
    if groups > 0 {
        skip_slice_groups(&mut r, groups)?;
    }
    r.ue()?;
    r.ue()?;
    r.skip(3)?;
    r.se()?;
    r.se()?;
    r.se()?;
    r.skip(2)?;
    let redundant_pic_cnt = r.flag()?;
    Some(Pps {
        id,
        sps,
        bottom_field_poc,
        redundant_pic_cnt,
    })
}

fn skip_slice_groups(r: &mut BitReader<'_>, groups: u32) -> Option<()> {
    match r.ue_max(6)? {
        0 => (0..=groups).try_for_each(|_| r.ue().map(drop)),
        2 => (0..groups * 2).try_for_each(|_| r.ue().map(drop)),
        3..=5 => {
            r.skip(1)?;
            r.ue().map(drop)
        }
        6 => {
            let bits = u32::BITS - groups.leading_zeros();
            (0..=r.ue()?).try_for_each(|_| r.u(bits).map(drop))
        }
        _ => Some(()),
    }
}

/// A slice header as far as 7.4.1.2.4 compares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// `nal_unit_type` 5.
    pub idr: bool,
    /// `nal_ref_idc`.
    pub ref_idc: u8,
    /// `first_mb_in_slice`.
    pub first_mb: u32,
    /// `None` for a value the standard does not know.
    pub kind: Option<SliceKind>,
    /// Everything after `pic_parameter_set_id`; `None` while the parameter sets are unknown.
    pub rest: Option<SliceRest>,
}

/// The part of a slice header which needs the parameter sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SliceRest {
    pps: u8,
    frame_num: u32,
    /// `field_pic_flag`.
    pub field: bool,
    bottom: bool,
    idr_pic_id: u32,
    poc_type: u8,
    poc_lsb: u32,
    delta: [i64; 2],
    redundant: bool,
}

/// All parameter sets seen, and the slice before.
#[derive(Debug)]
pub struct State {
    sps: [Option<Sps>; 32],
    pps: Vec<Option<Pps>>,
    active: Option<Sps>,
    previous: Option<Slice>,
}

impl Default for State {
    fn default() -> Self {
        State {
            sps: [None; 32],
            pps: vec![None; 256],
            active: None,
            previous: None,
        }
    }
}

impl State {
    /// Stores an SPS. `false` if it breaks the syntax.
    pub fn add_sps(&mut self, rbsp: &[u8]) -> bool {
        let Some(sps) = parse_sps(rbsp) else {
            return false;
        };
        if let Some(place) = self.sps.get_mut(usize::from(sps.id)) {
            *place = Some(sps);
        }
        true
    }

    /// Stores a PPS. `false` if it breaks the syntax.
    pub fn add_pps(&mut self, rbsp: &[u8]) -> bool {
        let Some(pps) = parse_pps(rbsp) else {
            return false;
        };
        if let Some(place) = self.pps.get_mut(usize::from(pps.id)) {
            *place = Some(pps);
        }
        true
    }

    /// The SPS that the last slice referred to.
    pub fn info(&self) -> Option<&VideoInfo> {
        self.active.as_ref().map(|s| &s.info)
    }

    /// Parses the head of a slice (7.3.3), `nal` with its header byte.
    pub fn parse_slice(&mut self, nal: &[u8]) -> Option<Slice> {
        let (&header, rbsp) = nal.split_first()?;
        let mut r = BitReader::new(rbsp);
        let first_mb = r.ue()?;
        let kind = match r.ue_max(9)? % 5 {
            0 | 3 => SliceKind::P,
            1 => SliceKind::B,
            _ => SliceKind::I,
        };
        let idr = header & 0x1F == 5;
        let rest = self.parse_rest(&mut r, idr);
        Some(Slice {
            idr,
            ref_idc: header >> 5 & 3,
            first_mb,
            kind: Some(kind),
            rest,
        })
    }

    fn parse_rest(&mut self, r: &mut BitReader<'_>, idr: bool) -> Option<SliceRest> {
        let id = r.ue_max(255)?;
        let pps = (*self.pps.get(usize::try_from(id).ok()?)?)?;
        let sps = (*self.sps.get(usize::from(pps.sps))?)?;
        self.active = Some(sps);
        let mut s = SliceRest {
            pps: pps.id,
            poc_type: sps.poc_type,
            ..SliceRest::default()
        };
        if sps.separate_colour_plane {
            r.skip(2)?;
        }
        s.frame_num = r.u(sps.log2_max_frame_num)?;
        if !sps.frame_mbs_only {
            s.field = r.flag()?;
            s.bottom = s.field && r.flag()?;
        }
        if idr {
            s.idr_pic_id = r.ue()?;
        }
        if sps.poc_type == 0 {
            s.poc_lsb = r.u(sps.log2_max_poc_lsb)?;
            if pps.bottom_field_poc && !s.field {
                s.delta[0] = r.se()?;
            }
        } else if sps.poc_type == 1 && !sps.delta_pic_order_always_zero {
            s.delta[0] = r.se()?;
            if pps.bottom_field_poc && !s.field {
                s.delta[1] = r.se()?;
            }
        }
        if pps.redundant_pic_cnt {
            s.redundant = r.ue()? > 0;
        }
        Some(s)
    }

    /// Whether `slice` is the first of a new primary coded picture (7.4.1.2.4); it then is what
    /// the next one is compared with.
    pub fn begins_picture(&mut self, slice: Slice) -> bool {
        let Some(previous) = self.previous else {
            self.previous = Some(slice);
            return true;
        };
        if slice.rest.is_some_and(|r| r.redundant) {
            return false;
        }
        self.previous = Some(slice);
        let (Some(a), Some(b)) = (previous.rest, slice.rest) else {
            // Without parameter sets only the shortcut is left.
            return slice.first_mb == 0;
        };
        a.frame_num != b.frame_num
            || a.pps != b.pps
            || a.field != b.field
            || a.bottom != b.bottom
            || (previous.ref_idc != slice.ref_idc && (previous.ref_idc == 0 || slice.ref_idc == 0))
            || previous.idr != slice.idr
            || (slice.idr && a.idr_pic_id != b.idr_pic_id)
            || a.poc_lsb != b.poc_lsb
            || a.delta != b.delta
    }

    /// The slice that [`State::begins_picture`] compares the next one with.
    pub const fn previous(&self) -> Option<Slice> {
        self.previous
    }

    /// Forgets the slice before: the stream starts afresh.
    pub const fn forget_previous(&mut self) {
        self.previous = None;
    }
}

/// Whether the field picture `second`, which follows `first` directly, completes its frame
/// (3.30 and 7.4.1.2.4: opposite parity, same `frame_num`, both reference or both not; the
/// second field of an IDR picture is a non-IDR reference field).
pub fn completes_frame(first: &Slice, second: &Slice) -> bool {
    let (Some(a), Some(b)) = (first.rest, second.rest) else {
        return false;
    };
    a.field
        && b.field
        && a.bottom != b.bottom
        && a.frame_num == b.frame_num
        && !second.idr
        && (first.ref_idc == 0) == (second.ref_idc == 0)
}

/// `recovery_frame_cnt` of the recovery point message (D.1.8), if the SEI holds one; `rbsp`
/// begins behind the NAL unit's header and may be cut off.
pub fn recovery_point(rbsp: &[u8]) -> Option<u32> {
    let mut r = BitReader::new(rbsp);
    loop {
        let kind = sei_number(&mut r)?;
        let size = sei_number(&mut r)?;
        if kind == 6 {
            return r.ue();
        }
        r.skip(size.checked_mul(8)?)?;
    }
}

/// 7.3.2.3.1: a number as a sum of bytes, 0xFF continues.
pub(crate) fn sei_number(r: &mut BitReader<'_>) -> Option<u32> {
    let mut sum = 0_u32;
    loop {
        let byte = r.u(8)?;
        sum = sum.checked_add(byte)?;
        if byte != 255 {
            return Some(sum);
        }
    }
}
