//! Slice headers (7.3.3) up to what the boundary rules and the picture order count need, and
//! the rule for the first slice of a new picture (7.4.1.2.4).

use super::State;
use super::pps::Pps;
use super::sps::{PocType, Sps};
use crate::codec::SliceKind;
use crate::codec::bits::BitReader;

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
    pub(super) pps: u8,
    /// `frame_num`.
    pub frame_num: u32,
    /// `MaxFrameNum` − 1.
    pub frame_num_mask: u32,
    /// `field_pic_flag`.
    pub field: bool,
    /// `bottom_field_flag`.
    pub bottom: bool,
    /// Slices need not rise: their profile, slice groups, or colour planes of their own.
    pub any_order: bool,
    pub(super) idr_pic_id: u32,
    pub(super) poc_lsb: u32,
    pub(super) delta: [i64; 2],
    pub(super) redundant: bool,
    /// Memory management operation 5: counts begin afresh.
    pub(super) resets: bool,
}

impl Slice {
    /// Whether its picture may begin with it: the standard has slices rise from macroblock 0.
    pub fn is_first_of_picture(&self) -> bool {
        self.first_mb == 0
    }

    /// Whether slices of its picture may come in any order.
    pub fn any_order(&self) -> bool {
        self.rest.is_some_and(|r| r.any_order)
    }

    /// Whether it repeats what another slice has (`redundant_pic_cnt` > 0).
    pub fn is_redundant(&self) -> bool {
        self.rest.is_some_and(|r| r.redundant)
    }
}

impl State {
    /// Parses the head of a slice, `nal` with its header byte.
    pub fn parse_slice(&mut self, nal: &[u8]) -> Option<Slice> {
        let (&header, rbsp) = nal.split_first()?;
        let mut r = BitReader::new(rbsp);
        let first_mb = r.ue()?;
        let kind = match r.ue_max(9)? % 5 {
            0 | 3 => SliceKind::P,
            1 => SliceKind::B,
            _ => SliceKind::I,
        };
        let mut slice = Slice {
            idr: header & 0x1F == 5,
            ref_idc: header >> 5 & 3,
            first_mb,
            kind: Some(kind),
            rest: None,
        };
        slice.rest = self.parse_rest(&mut r, &slice, kind);
        Some(slice)
    }

    fn parse_rest(
        &mut self,
        r: &mut BitReader<'_>,
        slice: &Slice,
        kind: SliceKind,
    ) -> Option<SliceRest> {
        let id = r.ue_max(255)?;
        let pps = self.pps.get(usize::try_from(id).ok()?)?.as_ref()?;
        let sps = self.sps.get(usize::from(pps.sps))?.as_deref()?;
        let mut s = SliceRest {
            pps: pps.id,
            any_order: sps.any_slice_order || sps.separate_colour_plane || pps.slice_groups,
            frame_num_mask: (1 << sps.log2_max_frame_num) - 1,
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
        if slice.idr {
            s.idr_pic_id = r.ue()?;
        }
        match sps.poc {
            PocType::Lsb { bits } => {
                s.poc_lsb = r.u(bits)?;
                if pps.bottom_field_poc && !s.field {
                    s.delta[0] = r.se()?;
                }
            }
            PocType::Cycle { always_zero, .. } if !always_zero => {
                s.delta[0] = r.se()?;
                if pps.bottom_field_poc && !s.field {
                    s.delta[1] = r.se()?;
                }
            }
            PocType::Cycle { .. } | PocType::Decoding => {}
        }
        if pps.redundant_pic_cnt {
            s.redundant = r.ue()? > 0;
        }
        // All slices of a picture mark alike: the first is enough.
        if slice.ref_idc > 0 && !slice.idr && slice.first_mb == 0 {
            s.resets = resets(r, sps, pps, kind).unwrap_or(false);
        }
        if self.active != Some(pps.sps) {
            self.active = Some(pps.sps);
            self.generation += 1;
        }
        Some(s)
    }

    /// Whether `slice` is the first of a new primary coded picture; it then is what the next
    /// one is compared with.
    pub fn begins_picture(&mut self, slice: Slice) -> bool {
        let Some(previous) = self.previous else {
            self.previous = Some(slice);
            return true;
        };
        if slice.is_redundant() {
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
            // Encoders of intra pictures alone repeat even idr_pic_id.
            || (slice.first_mb == 0 && !b.any_order)
    }
}

/// Passes over the rest of a slice header up to the reference picture marking (7.3.3.3): whether
/// it has operation 5.
fn resets(r: &mut BitReader<'_>, sps: &Sps, pps: &Pps, kind: SliceKind) -> Option<bool> {
    let lists = match kind {
        SliceKind::I => 0,
        SliceKind::P => 1,
        SliceKind::B => 2,
    };
    if lists == 2 {
        r.skip(1)?;
    }
    let mut references = pps.references;
    if lists > 0 && r.flag()? {
        for count in references.iter_mut().take(lists) {
            *count = r.ue_max(31)? + 1;
        }
    }
    for _ in 0..lists {
        if r.flag()? {
            while r.ue_max(5)? != 3 {
                r.ue()?;
            }
        }
    }
    let weighted = match kind {
        SliceKind::I => false,
        SliceKind::P => pps.weighted_pred,
        SliceKind::B => pps.weighted_bipred == 1,
    };
    if weighted {
        skip_weights(r, references.get(..lists)?, sps.has_chroma)?;
    }
    if !r.flag()? {
        return Some(false);
    }
    loop {
        match r.ue_max(6)? {
            0 => return Some(false),
            5 => return Some(true),
            3 => {
                r.ue()?;
                r.ue()?;
            }
            _ => {
                r.ue()?;
            }
        }
    }
}

/// 7.3.3.2.
fn skip_weights(r: &mut BitReader<'_>, references: &[u32], has_chroma: bool) -> Option<()> {
    r.ue()?;
    if has_chroma {
        r.ue()?;
    }
    for &count in references {
        for _ in 0..count {
            if r.flag()? {
                r.se()?;
                r.se()?;
            }
            if has_chroma && r.flag()? {
                for _ in 0..4 {
                    r.se()?;
                }
            }
        }
    }
    Some(())
}

/// Whether the field picture `second`, which follows `first` directly, completes its frame
/// (3.30 and 7.4.1.2.4: opposite parity, same `frame_num`, both reference or both not; the
/// second field of an IDR picture is a non-IDR reference field, but there are encoders that
/// give both the type of an IDR picture).
pub fn completes_frame(first: &Slice, second: &Slice) -> bool {
    let (Some(a), Some(b)) = (first.rest, second.rest) else {
        return false;
    };
    a.field
        && b.field
        && a.bottom != b.bottom
        && a.frame_num == b.frame_num
        && (!second.idr || (first.idr && a.idr_pic_id == b.idr_pic_id))
        && (first.ref_idc == 0) == (second.ref_idc == 0)
}
