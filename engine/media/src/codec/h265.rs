//! HEVC (ITU-T H.265, ISO 23008-2) as far as access units need it: NAL unit types, VPS timing,
//! SPS, PPS and the start of slice segment headers. Called by [`crate::assembler`].

use super::bits::BitReader;
use super::{SliceKind, VideoInfo, rate};

/// A sequence parameter set (7.3.2.2), the fields that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sps {
    /// What the operator is shown.
    pub info: VideoInfo,
    id: u8,
    vps: u8,
    max_sub_layers: u8,
    address_bits: u32,
}

/// A picture parameter set (7.3.2.3), the fields that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pps {
    id: u8,
    sps: u8,
    dependent_slices: bool,
    extra_bits: u32,
}

struct Profile {
    idc: u8,
    level: u8,
    progressive: bool,
    interlaced: bool,
}

/// 7.3.3.
fn profile_tier_level(r: &mut BitReader<'_>, sub_layers: u32) -> Option<Profile> {
    r.skip(3)?;
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
    if chroma == 3 {
        r.skip(1)?;
    }
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
    let first = if r.flag()? { 0 } else { sub_layers };
    for _ in first..=sub_layers {
        r.ue()?;
        r.ue()?;
        r.ue()?;
    }
    let log2_ctb = r.ue_max(3)? + 3 + r.ue_max(3)?;
    let ctbs = |n: u32| u64::from(n.div_ceil(1 << log2_ctb));
    let picture_ctbs = ctbs(width) * ctbs(height);
    let address_bits = u64::BITS - (picture_ctbs - 1).leading_zeros();
    // What lies behind only adds the timing; a set that is cut off keeps what was read.
    let vui = vui_of(&mut r, log2_max_poc_lsb).unwrap_or_default();
    let shown_width = u64::from(width).checked_sub(crop_x).filter(|&w| w > 0)?;
    let shown_height = u64::from(height).checked_sub(crop_y).filter(|&h| h > 0)?;
    Some(Sps {
        info: VideoInfo {
            profile: profile_name(profile.idc, chroma, depth),
            level: profile.level,
            width: u32::try_from(shown_width).ok()?,
            height: u32::try_from(shown_height).ok()?,
            frame_rate: vui.rate,
            bit_depth: u8::try_from(depth).ok()?,
            chroma_format: u8::try_from(chroma).ok()?,
            interlaced: vui.field_seq || (profile.interlaced && !profile.progressive),
            temporal_layers: u8::try_from(sub_layers + 1).ok()?,
            ..VideoInfo::default()
        },
        id,
        vps,
        max_sub_layers: u8::try_from(sub_layers).ok()?,
        address_bits,
    })
}

#[derive(Default)]
struct Vui {
    rate: (u32, u32),
    field_seq: bool,
}

/// From the transform sizes to the VUI's timing.
fn vui_of(r: &mut BitReader<'_>, poc_bits: u32) -> Option<Vui> {
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
    let sets = r.ue_max(64)?;
    let mut previous = RefPicSet::default();
    for i in 0..sets {
        previous = ref_pic_set(r, i, &previous)?;
    }
    if r.flag()? {
        for _ in 0..r.ue_max(32)? {
            r.skip(poc_bits + 1)?;
        }
    }
    r.skip(2)?;
    if !r.flag()? {
        return Some(Vui::default());
    }
    vui_timing(r)
}

/// E.2.1 up to the timing information.
fn vui_timing(r: &mut BitReader<'_>) -> Option<Vui> {
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
    r.skip(1)?;
    let field_seq = r.flag()?;
    r.skip(1)?;
    if r.flag()? {
        for _ in 0..4 {
            r.ue()?;
        }
    }
    let mut rate_of = (0, 0);
    if r.flag()? {
        let tick = r.u(32)?;
        let scale = r.u(32)?;
        rate_of = rate(u64::from(scale), u64::from(tick));
    }
    Some(Vui {
        rate: rate_of,
        field_seq,
    })
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

/// The POC differences of a short-term reference picture set, negative ones first.
#[derive(Clone, Copy, Default)]
struct RefPicSet {
    deltas: [i64; 16],
    count: usize,
}

impl RefPicSet {
    fn push(&mut self, delta: i64) -> Option<()> {
        *self.deltas.get_mut(self.count)? = delta;
        self.count += 1;
        Some(())
    }
}

/// 7.3.7 and 7.4.8; `previous` is the set before.
fn ref_pic_set(r: &mut BitReader<'_>, index: u32, previous: &RefPicSet) -> Option<RefPicSet> {
    let mut set = RefPicSet::default();
    if index > 0 && r.flag()? {
        let sign = r.flag()?;
        let magnitude = i64::from(r.ue_max(0x7FFF)?) + 1;
        let delta = if sign { -magnitude } else { magnitude };
        let mut kept = [0_i64; 17];
        for (j, place) in kept.iter_mut().enumerate().take(previous.count + 1) {
            let used = r.flag()?;
            if used || r.flag()? {
                *place = previous
                    .deltas
                    .get(j)
                    .copied()
                    .filter(|_| j < previous.count)
                    .unwrap_or(0)
                    + delta;
            }
        }
        // Only the number and the values matter to the next set: nearest first on either side.
        kept.sort_unstable();
        for &value in kept.iter().rev().filter(|&&v| v < 0) {
            set.push(value)?;
        }
        for &value in kept.iter().filter(|&&v| v > 0) {
            set.push(value)?;
        }
        return Some(set);
    }
    let negative = r.ue_max(16)?;
    let positive = r.ue_max(16)?;
    for (count, step) in [(negative, -1), (positive, 1)] {
        let mut poc = 0;
        for _ in 0..count {
            poc += step * (i64::from(r.ue_max(0x7FFF)?) + 1);
            r.skip(1)?;
            set.push(poc)?;
        }
    }
    Some(set)
}

/// Parses a PPS's start; `rbsp` begins behind the NAL unit's two header bytes.
pub fn parse_pps(rbsp: &[u8]) -> Option<Pps> {
    let mut r = BitReader::new(rbsp);
    let id = u8::try_from(r.ue_max(63)?).ok()?;
    let sps = u8::try_from(r.ue_max(15)?).ok()?;
    let dependent_slices = r.flag()?;
    r.skip(1)?;
    Some(Pps {
        id,
        sps,
        dependent_slices,
        extra_bits: r.u(3)?,
    })
}

/// The frame rate in a VPS (7.3.2.1), for streams whose SPS has none.
pub fn parse_vps(rbsp: &[u8]) -> Option<(u8, (u32, u32))> {
    let mut r = BitReader::new(rbsp);
    let id = r.byte(4)?;
    r.skip(8)?;
    let sub_layers = r.u(3)?;
    if sub_layers > 6 {
        return None;
    }
    r.skip(17)?;
    profile_tier_level(&mut r, sub_layers)?;
    let first = if r.flag()? { 0 } else { sub_layers };
    for _ in first..=sub_layers {
        r.ue()?;
        r.ue()?;
        r.ue()?;
    }
    let max_layer = r.u(6)?;
    for _ in 0..r.ue_max(1023)? {
        r.skip(max_layer + 1)?;
    }
    if !r.flag()? {
        return Some((id, (0, 0)));
    }
    let tick = r.u(32)?;
    let scale = r.u(32)?;
    Some((id, rate(u64::from(scale), u64::from(tick))))
}

/// The head of a slice segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// `nal_unit_type`.
    pub nal_type: u8,
    /// `nuh_temporal_id_plus1` − 1.
    pub temporal_id: u8,
    /// `first_slice_segment_in_pic_flag`: begins a picture.
    pub first: bool,
    /// `None` for a dependent segment, or while the parameter sets are unknown.
    pub kind: Option<SliceKind>,
    /// Of the highest sub-layer that the SPS announces.
    pub highest_layer: bool,
}

impl Slice {
    /// IDR_W_RADL or IDR_N_LP.
    pub const fn is_idr(&self) -> bool {
        matches!(self.nal_type, 19 | 20)
    }

    /// Any intra random access point.
    pub const fn is_irap(&self) -> bool {
        matches!(self.nal_type, 16..=23)
    }

    /// No other picture refers to it: a sub-layer non-reference picture of the highest sub-layer.
    pub const fn is_discardable(&self) -> bool {
        self.nal_type <= 14 && self.nal_type.is_multiple_of(2) && self.highest_layer
    }
}

/// All parameter sets seen.
#[derive(Debug)]
pub struct State {
    vps_rate: [(u32, u32); 16],
    sps: [Option<Sps>; 16],
    pps: [Option<Pps>; 64],
    active: Option<VideoInfo>,
}

impl Default for State {
    fn default() -> Self {
        State {
            vps_rate: [(0, 0); 16],
            sps: [None; 16],
            pps: [None; 64],
            active: None,
        }
    }
}

impl State {
    /// Stores a VPS's timing. `false` if it breaks the syntax.
    pub fn add_vps(&mut self, rbsp: &[u8]) -> bool {
        let Some((id, rate)) = parse_vps(rbsp) else {
            return false;
        };
        if let Some(place) = self.vps_rate.get_mut(usize::from(id)) {
            *place = rate;
        }
        true
    }

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

    /// What the last slice's SPS (and VPS) say.
    pub const fn info(&self) -> Option<&VideoInfo> {
        self.active.as_ref()
    }

    /// Parses the head of a slice segment (7.3.6.1), `nal` with its two header bytes.
    pub fn parse_slice(&mut self, nal: &[u8]) -> Option<Slice> {
        let (&[a, b], rbsp) = nal.split_first_chunk::<2>()?;
        let mut slice = Slice {
            nal_type: a >> 1 & 0x3F,
            temporal_id: (b & 7).saturating_sub(1),
            ..Slice::default()
        };
        let mut r = BitReader::new(rbsp);
        slice.first = r.flag()?;
        if slice.is_irap() {
            r.skip(1)?;
        }
        self.parse_rest(&mut r, &mut slice);
        Some(slice)
    }

    fn parse_rest(&mut self, r: &mut BitReader<'_>, slice: &mut Slice) -> Option<()> {
        let pps = (*self.pps.get(usize::try_from(r.ue_max(63)?).ok()?)?)?;
        let sps = (*self.sps.get(usize::from(pps.sps))?)?;
        let mut info = sps.info;
        if info.frame_rate == (0, 0) {
            info.frame_rate = self
                .vps_rate
                .get(usize::from(sps.vps))
                .copied()
                .unwrap_or_default();
        }
        self.active = Some(info);
        slice.highest_layer = slice.temporal_id >= sps.max_sub_layers;
        if !slice.first {
            let dependent = pps.dependent_slices && r.flag()?;
            r.skip(sps.address_bits)?;
            if dependent {
                return None;
            }
        }
        r.skip(pps.extra_bits)?;
        slice.kind = match r.ue_max(2)? {
            0 => Some(SliceKind::B),
            1 => Some(SliceKind::P),
            _ => Some(SliceKind::I),
        };
        Some(())
    }
}
