//! The frame header (AV1 5.9.2) up to `refresh_frame_flags`.

use super::super::bits::BitReader;
use super::ObuHeader;
use super::sequence::{SELECT, Sequence};

/// `frame_type` (6.8.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FrameType {
    /// Needs no other frame; shown, it refreshes every slot.
    #[default]
    Key,
    /// Predicted.
    Inter,
    /// Intra blocks only, but no beginning.
    IntraOnly,
    /// Predicted, where streams of several sizes may be switched.
    Switch,
}

impl FrameType {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => FrameType::Key,
            1 => FrameType::Inter,
            2 => FrameType::IntraOnly,
            _ => FrameType::Switch,
        }
    }

    /// The standard's name.
    pub const fn name(self) -> &'static str {
        match self {
            FrameType::Key => "KEY",
            FrameType::Inter => "INTER",
            FrameType::IntraOnly => "INTRA_ONLY",
            FrameType::Switch => "SWITCH",
        }
    }

    /// `FrameIsIntra`.
    pub const fn is_intra(self) -> bool {
        matches!(self, FrameType::Key | FrameType::IntraOnly)
    }
}

/// What a frame header tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Its type; of `show_existing_frame`: that of the frame shown, as far as it was seen.
    pub kind: FrameType,
    /// It is shown: `show_frame`, or `show_existing_frame`.
    pub shown: bool,
    /// `show_existing_frame`: nothing is coded, the frame of this slot is shown.
    pub existing: Option<u8>,
    /// A hidden frame that may be shown later.
    pub showable: bool,
    /// `error_resilient_mode`.
    pub error_resilient: bool,
    /// `refresh_frame_flags`: the slots that it is kept in; 0: no other frame refers to it.
    pub refresh: u8,
    /// `order_hint`: display order modulo 2^`order_hint_bits`.
    pub order_hint: u32,
    /// `allow_screen_content_tools`.
    pub screen_content: bool,
    /// `temporal_id` of its OBU.
    pub temporal_id: u8,
    /// `spatial_id` of its OBU.
    pub spatial_id: u8,
}

impl core::fmt::Display for Frame {
    /// "KEY", "INTER(hidden)", "show_existing:6".
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.existing {
            Some(slot) => write!(f, "show_existing:{slot}"),
            None if self.shown => f.write_str(self.kind.name()),
            None => write!(f, "{}(hidden)", self.kind.name()),
        }
    }
}

/// The payload of a frame header or frame OBU; `None` if it breaks the syntax.
pub(super) fn parse(obu: &ObuHeader, payload: &[u8], sequence: &Sequence) -> Option<Frame> {
    let mut frame = Frame {
        temporal_id: obu.temporal_id,
        spatial_id: obu.spatial_id,
        ..Frame::default()
    };
    let mut r = BitReader::raw(payload);
    let r = &mut r;
    let allow_screen_content = |r: &mut BitReader<'_>, frame: &mut Frame| {
        frame.screen_content = match sequence.screen_content {
            SELECT => r.flag()?,
            forced => forced == 1,
        };
        if frame.screen_content && sequence.integer_mv == SELECT {
            r.skip(1)?;
        }
        Some(())
    };
    if sequence.reduced_still {
        frame.shown = true;
        frame.error_resilient = true;
        frame.refresh = 0xFF;
        // disable_cdf_update
        r.skip(1)?;
        allow_screen_content(r, &mut frame)?;
        return Some(frame);
    }
    let time_bits = match sequence.decoder_model {
        Some(model) if !sequence.equal_picture_interval => model.presentation_bits,
        _ => 0,
    };
    if r.flag()? {
        frame.existing = Some(r.byte(3)?);
        frame.shown = true;
        r.skip(time_bits + sequence.frame_id_bits)?;
        return Some(frame);
    }
    frame.kind = FrameType::from_bits(r.byte(2)?);
    frame.shown = r.flag()?;
    if frame.shown {
        r.skip(time_bits)?;
        frame.showable = frame.kind != FrameType::Key;
    } else {
        frame.showable = r.flag()?;
    }
    let resets = frame.kind == FrameType::Switch || (frame.kind == FrameType::Key && frame.shown);
    frame.error_resilient = resets || r.flag()?;
    // disable_cdf_update
    r.skip(1)?;
    allow_screen_content(r, &mut frame)?;
    r.skip(sequence.frame_id_bits)?;
    if frame.kind != FrameType::Switch {
        // frame_size_override_flag
        r.skip(1)?;
    }
    frame.order_hint = r.u(sequence.order_hint_bits)?;
    if !frame.kind.is_intra() && !frame.error_resilient {
        // primary_ref_frame
        r.skip(3)?;
    }
    if let Some(model) = sequence.decoder_model
        && r.flag()?
    {
        for point in sequence.operating_points() {
            let mine = point.idc == 0
                || (point.idc >> obu.temporal_id & 1 == 1
                    && point.idc >> (obu.spatial_id + 8) & 1 == 1);
            if point.decoder_model && mine {
                r.skip(model.removal_bits)?;
            }
        }
    }
    frame.refresh = if resets { 0xFF } else { r.byte(8)? };
    // 6.8.2: an intra-only frame shall not refresh every slot.
    (frame.kind != FrameType::IntraOnly || frame.refresh != 0xFF).then_some(frame)
}
