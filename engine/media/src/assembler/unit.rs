//! The unit in the making: where it began, what is known of it, what the NAL units before its
//! picture told, and how far its source's word on its end is believed.

use mirror_base::{Instant, Position};

use crate::DisplayOrder;
use crate::codec::SliceKind;
use crate::codec::scan::Scan;
use crate::codec::sei::Recovery;

/// How often in a row an early end must have been right before it is believed.
pub(super) const TRUST: u8 = 8;

/// Where something begins, and what was known there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) at: Position,
    pub(super) lead: u8,
    /// Bytes of the stream before it.
    pub(super) total: u64,
    /// The datagram that it begins in.
    pub(super) arrival: Instant,
    /// One past the byte before it, and the arrival of that byte's datagram.
    pub(super) before: Position,
    pub(super) before_arrival: Instant,
}

/// What prefix NAL units have told about the picture that they precede.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefix {
    /// A sequence parameter set, or MPEG-2's sequence or group header.
    pub(super) sequence: bool,
    pub(super) recovery: Option<Recovery>,
    /// The transport's random_access_indicator.
    pub(super) random_access: bool,
    /// MPEG-2: what the group header says.
    pub(super) closed: bool,
    pub(super) broken_link: bool,
    /// How the picture was scanned.
    pub(super) scan: Option<Scan>,
}

/// Whether the slice that begins a unit's picture is the picture's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// For certain.
    First,
    /// Nothing tells.
    Unknown,
    /// It is not.
    Missing,
}

/// The unit in the making.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unit {
    pub(super) first: Mark,
    pub(super) pts: Option<i64>,
    pub(super) dts: Option<i64>,
    pub(super) prefix: Prefix,
    pub(super) damaged: bool,
    /// Bytes that came of NAL units which will be left out.
    pub(super) left_out: u64,
    pub(super) has_picture: bool,
    pub(super) idr: bool,
    pub(super) irap: bool,
    pub(super) largest: Option<SliceKind>,
    /// It is a pair of fields whose first has only intra slices.
    pub(super) intra_field: bool,
    pub(super) discardable: bool,
    /// A field that still lacks its other.
    pub(super) lone_field: bool,
    /// The first prefix NAL unit after a lone field: the boundary, if no second field follows.
    pub(super) boundary: Option<Mark>,
    /// Its place in display order: the earlier one's of two fields.
    pub(super) order: Option<DisplayOrder>,
    pub(super) temporal_id: u8,
    /// A picture that it refers to never came.
    pub(super) references_missing: bool,
    /// HEVC: RASL.
    pub(super) leading: bool,
    /// HEVC: RASL pictures of this one are not decodable (BLA, CRA behind an end of sequence).
    pub(super) afresh: bool,
    /// H.264: `frame_num` and `MaxFrameNum` − 1.
    pub(super) frame_num: (u32, u32),
}

/// How far a source's early end of a unit is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    pub(super) score: u8,
    /// An end was announced since the last NAL unit: whether the unit was closed on it, and the
    /// bytes of the stream before it.
    pub(super) announced: Option<(bool, u64)>,
}

impl Trust {
    /// The next NAL unit, which begins behind `total` bytes, begins a unit as announced, or not.
    /// Whether a unit was closed too early.
    pub(super) fn verdict(&mut self, begins: bool, total: u64) -> bool {
        let Some((closed, at)) = self.announced.filter(|&(_, at)| total >= at) else {
            return false;
        };
        self.announced = None;
        let right = begins && at == total;
        self.score = if right {
            (self.score + 1).min(TRUST)
        } else {
            0
        };
        closed && !right
    }
}
