//! H.264 (ITU-T H.264, ISO 14496-10) as far as access units need it: SPS with VUI ([`sps`]),
//! PPS ([`pps`]), slice headers and the rule for the first slice of a new picture ([`slice`]),
//! picture order count ([`poc`]), and the headers that SVC and MVC put before or instead of a
//! slice. Called by [`crate::assembler`].

pub mod poc;
pub mod pps;
pub mod slice;
pub mod sps;

pub use pps::{Pps, parse_pps};
pub use slice::{Slice, SliceRest, completes_frame};
pub use sps::{Sps, parse_sps};

use super::VideoInfo;
use super::sei::TimingSyntax;
use crate::DisplayOrder;

/// All parameter sets seen, the slice before, and the count of the pictures.
#[derive(Debug)]
pub struct State {
    sps: [Option<Box<Sps>>; 32],
    pps: Vec<Option<Pps>>,
    /// The SPS that the last slice referred to.
    active: Option<u8>,
    /// Grows when that, or what it says, changes.
    generation: u32,
    previous: Option<Slice>,
    poc: poc::Counter,
    /// `frame_num` of the reference picture before (`PrevRefFrameNum`), while it is known.
    reference: Option<u32>,
}

impl Default for State {
    fn default() -> Self {
        State {
            sps: [const { None }; 32],
            pps: vec![None; 256],
            active: None,
            generation: 0,
            previous: None,
            poc: poc::Counter::default(),
            reference: None,
        }
    }
}

impl State {
    /// Stores an SPS and returns its id; `None` if it breaks the syntax. `rbsp` begins behind
    /// the NAL unit's header.
    pub fn add_sps(&mut self, rbsp: &[u8]) -> Option<u8> {
        let sps = parse_sps(rbsp)?;
        let id = sps.id;
        let place = self.sps.get_mut(usize::from(id))?;
        if place.as_deref() != Some(&sps) {
            *place = Some(Box::new(sps));
            self.generation += u32::from(self.active == Some(id));
        }
        Some(id)
    }

    /// Stores a PPS and returns its id and that of its SPS; `None` if it breaks the syntax.
    pub fn add_pps(&mut self, rbsp: &[u8]) -> Option<(u8, u8)> {
        let pps = parse_pps(rbsp)?;
        let ids = (pps.id, pps.sps);
        *self.pps.get_mut(usize::from(pps.id))? = Some(pps);
        Some(ids)
    }

    fn sps_of(&self, id: u8) -> Option<&Sps> {
        self.sps.get(usize::from(id))?.as_deref()
    }

    fn active_sps(&self) -> Option<&Sps> {
        self.sps_of(self.active?)
    }

    /// The number of the SPS in use.
    pub const fn active(&self) -> Option<u8> {
        self.active
    }

    /// What the SPS in use says.
    pub fn info(&self) -> Option<&VideoInfo> {
        self.active_sps().map(|s| &s.info)
    }

    /// Grows with each change of [`State::info`].
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// How picture timing messages are coded: by the SPS of that number, by the one in use, or
    /// by the only one.
    pub fn timing_syntax(&self, id: Option<u32>) -> Option<TimingSyntax> {
        let named = id.and_then(|id| self.sps_of(u8::try_from(id).ok()?));
        let sps = named
            .or_else(|| self.active_sps())
            .or_else(|| self.sps.iter().flatten().next().map(|s| &**s))?;
        Some(sps.timing)
    }

    /// Whether a picture that is coded as a frame has nothing of fields: its macroblocks are of
    /// frames alone, though field pictures are allowed, and no message says how it is shown.
    pub fn frames_are_progressive(&self) -> bool {
        self.active_sps()
            .is_some_and(|s| !s.frame_mbs_only && !s.timing.adaptive && !s.timing.pic_struct)
    }

    /// The slice that [`State::begins_picture`] compares the next one with.
    pub const fn previous(&self) -> Option<Slice> {
        self.previous
    }

    /// The place in display order of the picture (field or frame) that `slice` begins; `second`:
    /// it is the second field of a frame. Once for each, in decoding order.
    pub fn picture_order(&mut self, slice: &Slice, second: bool) -> Option<DisplayOrder> {
        let rest = slice.rest?;
        let sps = self.sps.get(usize::from(self.active?))?.as_deref()?;
        if slice.idr && !second {
            self.poc.restart();
        }
        Some(self.poc.next(sps, slice.ref_idc > 0, &rest))
    }

    /// Whether reference pictures before the frame that `slice` begins never came: `frame_num`
    /// counts them (7.4.3). Once for each frame, in decoding order; not for second fields.
    pub fn lacks_references(&mut self, slice: &Slice) -> bool {
        let Some((rest, sps)) = slice.rest.zip(self.active_sps()) else {
            self.reference = None;
            return false;
        };
        let mask = rest.frame_num_mask;
        let next = |before: u32| before.wrapping_add(1) & mask;
        let lacks = !slice.idr
            && !sps.frame_num_gaps
            && self
                .reference
                .is_some_and(|before| rest.frame_num != before && rest.frame_num != next(before));
        let before = self.reference.filter(|_| !lacks && !slice.idr);
        self.reference = if slice.ref_idc > 0 {
            // 7.4.3: behind operation 5 it is as behind an IDR picture.
            Some(if rest.resets { 0 } else { rest.frame_num })
        } else {
            // One that nothing refers to has the number of the next reference picture.
            before.or(Some(rest.frame_num.wrapping_sub(1) & mask))
        };
        lacks
    }

    /// The stream starts afresh: the slice before is forgotten, and what follows is not shown
    /// before anything that was.
    pub fn restart(&mut self) {
        self.previous = None;
        self.reference = None;
        self.poc.restart();
    }
}

/// What the three bytes behind the header of NAL unit types 14 and 20 tell (H.7.3.1.1,
/// G.7.3.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extension {
    /// SVC: `dependency_id` · 16 + `quality_id`; MVC: `view_id`, at most 127. 0: base layer.
    pub layer: u8,
    /// `temporal_id`.
    pub temporal_id: u8,
}

/// Reads the three bytes.
pub const fn extension(bytes: [u8; 3]) -> Extension {
    let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
    if bits & 0x80_0000 != 0 {
        return Extension {
            layer: (bits >> 8 & 0x7F) as u8,
            temporal_id: (bits >> 5 & 7) as u8,
        };
    }
    let view = bits >> 6 & 0x3FF;
    Extension {
        layer: if view > 127 { 127 } else { view as u8 },
        temporal_id: (bits >> 3 & 7) as u8,
    }
}
