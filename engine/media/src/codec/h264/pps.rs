//! Picture parameter sets (7.3.2.2).

use crate::codec::bits::BitReader;

/// A picture parameter set, the fields that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pps {
    /// `pic_parameter_set_id`.
    pub id: u8,
    /// `seq_parameter_set_id`.
    pub sps: u8,
    /// Slice groups: slices need not rise.
    pub(super) slice_groups: bool,
    pub(super) bottom_field_poc: bool,
    pub(super) redundant_pic_cnt: bool,
    /// `num_ref_idx_l0_default_active_minus1` + 1 and the same of list 1.
    pub(super) references: [u32; 2],
    pub(super) weighted_pred: bool,
    pub(super) weighted_bipred: u32,
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
    let references = [r.ue_max(31)? + 1, r.ue_max(31)? + 1];
    let weighted_pred = r.flag()?;
    let weighted_bipred = r.u(2)?;
    r.se()?;
    r.se()?;
    r.se()?;
    r.skip(2)?;
    let redundant_pic_cnt = r.flag()?;
    Some(Pps {
        id,
        sps,
        slice_groups: groups > 0,
        bottom_field_poc,
        redundant_pic_cnt,
        references,
        weighted_pred,
        weighted_bipred,
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
            // ⌈log2(groups + 1)⌉ bits each; a count beyond the data ends with the data.
            let bits = u32::BITS - groups.leading_zeros();
            (0..=r.ue()?).try_for_each(|_| r.u(bits).map(drop))
        }
        _ => Some(()),
    }
}
