//! MPEG-2 video (ISO 13818-2) and MPEG-1 video (ISO 11172-2), as far as access units need them:
//! sequence header and its extensions, group of pictures header, picture header and picture
//! coding extension, captions in user data. There is no emulation prevention, and the byte
//! behind a start code takes the place of a NAL unit's header. Called by [`crate::assembler`].

use super::bits::BitReader;
use super::scan::{self, Scan};
use super::{SliceKind, VideoInfo, rate};
use crate::{Colour, DisplayOrder};

/// Start codes (table 6-1).
pub mod code {
    /// picture_start_code.
    pub const PICTURE: u8 = 0x00;
    /// slice_start_code, the first and the last.
    pub const SLICES: core::ops::RangeInclusive<u8> = 0x01..=0xAF;
    /// user_data_start_code.
    pub const USER_DATA: u8 = 0xB2;
    /// sequence_header_code.
    pub const SEQUENCE: u8 = 0xB3;
    /// extension_start_code.
    pub const EXTENSION: u8 = 0xB5;
    /// group_start_code.
    pub const GROUP: u8 = 0xB8;
}

/// picture_structure 3: a frame.
const FRAME: u8 = 3;

/// A picture header with its coding extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picture {
    temporal_reference: u32,
    /// picture_coding_type.
    pub kind: Option<SliceKind>,
    structure: u8,
    scan: Option<Scan>,
}

impl Picture {
    /// Whether it is one field.
    pub const fn is_field(&self) -> bool {
        self.structure != FRAME
    }

    /// How it was scanned, if its coding extension told.
    pub const fn scan(&self) -> Option<Scan> {
        self.scan
    }

    /// Whether it is the other field of `first`'s frame (6.1.1.4.1).
    pub const fn completes(&self, first: &Picture) -> bool {
        self.is_field()
            && first.is_field()
            && self.structure != first.structure
            && self.temporal_reference == first.temporal_reference
    }

    /// Whether nothing refers to it.
    pub fn is_discardable(&self) -> bool {
        self.kind == Some(SliceKind::B)
    }
}

/// A group of pictures header (6.2.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Hours, minutes, seconds, pictures.
    pub timecode: [u8; 4],
    /// closed_gop.
    pub closed: bool,
    /// broken_link.
    pub broken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sequence {
    info: VideoInfo,
    /// frame_rate_code's fraction.
    base_rate: (u64, u64),
    /// It has the extension: MPEG-2.
    extended: bool,
    /// Rows of macroblocks of a frame.
    rows: u32,
}

/// What the headers said.
#[derive(Debug, Default)]
pub struct State {
    sequence: Option<Sequence>,
    generation: u32,
    /// The picture whose header was read and whose slices are awaited.
    pending: Option<Picture>,
    /// The one whose slices were seen last.
    current: Option<Picture>,
    /// Row of the last slice.
    row: u8,
    epoch: u32,
    last_reference: u32,
    count: i32,
}

const RATES: [(u64, u64); 8] = [
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
];

/// Tables 8-2 to 8-5.
const fn profile_and_level(byte: u8) -> (&'static str, u8) {
    let profile = match byte >> 4 {
        1 => "High",
        2 => "Spatially Scalable",
        3 => "SNR Scalable",
        4 => "Main",
        5 => "Simple",
        // The escape bit.
        8 => match byte & 0xF {
            2 | 3 | 5 => "4:2:2",
            10 | 11 | 13 | 14 => "Multi-view",
            _ => "",
        },
        _ => "",
    };
    (profile, byte & 0xF)
}

impl State {
    /// Grows with each change of [`State::info`].
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// What the sequence header and its extensions say.
    pub fn info(&self) -> Option<&VideoInfo> {
        self.sequence.as_ref().map(|s| &s.info)
    }

    fn set(&mut self, sequence: Sequence) {
        if self.sequence != Some(sequence) {
            self.sequence = Some(sequence);
            self.generation += 1;
        }
    }

    /// Reads a sequence header (6.2.2.1); `data` begins behind its start code, as for the others.
    /// `false` if it breaks the syntax.
    pub fn add_sequence(&mut self, data: &[u8]) -> bool {
        let Some(mut sequence) = sequence_header(data) else {
            return false;
        };
        // The extension that follows says the rest; until then what it said before is kept.
        if let Some(old) = self.sequence.filter(|old| {
            old.extended
                && (old.info.width, old.info.height) == (sequence.info.width, sequence.info.height)
        }) {
            let base_rate = sequence.base_rate;
            sequence = old;
            sequence.base_rate = base_rate;
        }
        self.set(sequence);
        true
    }

    /// Reads an extension (6.2.2.2). `false` if it breaks the syntax.
    pub fn add_extension(&mut self, data: &[u8]) -> bool {
        let mut r = BitReader::raw(data);
        match r.u(4) {
            Some(1) => self.sequence_extension(&mut r).is_some(),
            Some(2) => self.display_extension(&mut r).is_some(),
            Some(8) => self.coding_extension(&mut r).is_some(),
            other => other.is_some(),
        }
    }

    /// 6.2.2.3.
    fn sequence_extension(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        let mut sequence = self.sequence?;
        let (profile, level) = profile_and_level(r.byte(8)?);
        let progressive = r.flag()?;
        let chroma = r.byte(2)?;
        let width = r.u(2)? << 12 | (sequence.info.width & 0xFFF);
        let height = r.u(2)? << 12 | (sequence.info.height & 0xFFF);
        r.skip(12 + 1 + 8)?;
        let low_delay = r.flag()?;
        let (n, d) = (u64::from(r.u(2)?) + 1, u64::from(r.u(5)?) + 1);
        sequence.extended = true;
        let (numerator, denominator) = sequence.base_rate;
        let info = &mut sequence.info;
        info.frame_rate = rate(numerator * n, denominator * d);
        info.profile = profile;
        info.level = level;
        info.interlaced = !progressive;
        info.chroma_format = chroma;
        info.width = width;
        info.height = height;
        info.reorder_depth = Some(u8::from(!low_delay));
        // 6.3.3, mb_height.
        sequence.rows = if progressive {
            height.div_ceil(16)
        } else {
            2 * height.div_ceil(32)
        };
        self.set(sequence);
        Some(())
    }

    /// 6.2.2.4.
    fn display_extension(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        let mut sequence = self.sequence?;
        r.skip(3)?;
        if r.flag()? {
            sequence.info.colour = Colour {
                primaries: r.byte(8)?,
                transfer: r.byte(8)?,
                matrix: r.byte(8)?,
                full_range: false,
            };
            self.set(sequence);
        }
        Some(())
    }

    /// 6.2.3.1.
    fn coding_extension(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        r.skip(16 + 2)?;
        let structure = r.byte(2)?;
        let top_first = r.flag().unwrap_or(false);
        let progressive = r.skip(7).and_then(|()| r.flag());
        if let Some(picture) = &mut self.pending
            && structure > 0
        {
            picture.structure = structure;
            picture.scan = progressive.and_then(|p| scan::mpeg2(structure, top_first, p));
        }
        Some(())
    }

    /// Reads a group of pictures header. What follows is counted afresh.
    pub fn add_group(&mut self, data: &[u8]) -> Option<Group> {
        let mut r = BitReader::raw(data);
        r.skip(1)?;
        let hours = r.byte(5)?;
        let minutes = r.byte(6)?;
        r.skip(1)?;
        let group = Group {
            timecode: [hours, minutes, r.byte(6)?, r.byte(6)?],
            closed: r.flag()?,
            broken: r.flag()?,
        };
        self.restart();
        Some(group)
    }

    /// Reads a picture header (6.2.3). `false` if it breaks the syntax.
    pub fn add_picture(&mut self, data: &[u8]) -> bool {
        let mut r = BitReader::raw(data);
        let (Some(temporal_reference), Some(kind)) = (r.u(10), r.u(3)) else {
            self.pending = None;
            return false;
        };
        let kind = match kind {
            // 4 is MPEG-1's D picture: of DC coefficients only.
            1 | 4 => Some(SliceKind::I),
            2 => Some(SliceKind::P),
            3 => Some(SliceKind::B),
            _ => None,
        };
        self.pending = Some(Picture {
            temporal_reference,
            kind,
            structure: FRAME,
            scan: None,
        });
        kind.is_some()
    }

    /// The picture whose header came, if a slice that comes now is its first.
    pub const fn take_pending(&mut self) -> Option<Picture> {
        self.pending.take()
    }

    /// The picture whose slices were seen last.
    pub const fn current(&self) -> Option<Picture> {
        self.current
    }

    /// `picture`'s slices follow.
    pub const fn follow(&mut self, picture: Picture) {
        self.current = Some(picture);
        self.row = 0;
    }

    /// A slice of the current picture, whose start code ends in `row`. Whether slices are
    /// missing before it: each row of macroblocks has one (6.1.2.2; not so in MPEG-1).
    pub fn skips_rows(&mut self, row: u8) -> bool {
        let last = core::mem::replace(&mut self.row, row);
        // Above 2800 lines slices say more of their row elsewhere.
        self.sequence
            .is_some_and(|s| s.extended && s.info.height <= 2800)
            && (row > last.saturating_add(1) || row < last)
    }

    /// Whether slices are missing behind the last one of the current picture.
    pub fn lacks_rows(&self) -> bool {
        let (Some(sequence), Some(picture)) = (&self.sequence, &self.current) else {
            return false;
        };
        let rows = if picture.is_field() {
            sequence.rows / 2
        } else {
            sequence.rows
        };
        sequence.extended && sequence.info.height <= 2800 && u32::from(self.row) < rows
    }

    /// The place of `picture` in display order. Once for each frame, in decoding order.
    pub fn picture_order(&mut self, picture: &Picture) -> DisplayOrder {
        // temporal_reference counts modulo 1024 where no group header sets it back.
        let step = picture
            .temporal_reference
            .wrapping_sub(self.last_reference)
            .wrapping_add(512)
            & 1023;
        self.last_reference = picture.temporal_reference;
        self.count = self.count.wrapping_add(step.cast_signed() - 512);
        DisplayOrder {
            epoch: self.epoch,
            count: self.count,
        }
    }

    /// What follows is counted afresh, and shown after all that was.
    pub const fn restart(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.last_reference = 0;
        self.count = 0;
    }
}

fn sequence_header(data: &[u8]) -> Option<Sequence> {
    let mut r = BitReader::raw(data);
    let width = r.u(12)?;
    let height = r.u(12)?;
    r.skip(4)?;
    let code = r.u(4)?;
    let base_rate = *RATES.get(usize::try_from(code).ok()?.checked_sub(1)?)?;
    if width == 0 || height == 0 {
        return None;
    }
    Some(Sequence {
        info: VideoInfo {
            profile: "",
            width,
            height,
            frame_rate: rate(base_rate.0, base_rate.1),
            bit_depth: 8,
            chroma_format: 1,
            reorder_depth: Some(1),
            temporal_layers: 1,
            ..VideoInfo::default()
        },
        base_rate,
        extended: false,
        rows: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;

    #[test]
    fn headers_tell_size_rate_profile_and_interlacing() {
        let mut state = State::default();
        // 1920 × 1080, 16:9, 29.97.
        assert!(state.add_sequence(&hex("78043834ffffe018")));
        let info = *state.info().unwrap();
        assert_eq!((info.width, info.height), (1920, 1080));
        assert_eq!(info.frame_rate, (30_000, 1001));
        assert!(!info.interlaced, "MPEG-1 until the extension");
        // Main at High, interlaced, 4:2:0.
        assert!(state.add_extension(&hex("144200010000")));
        let info = *state.info().unwrap();
        assert_eq!((info.profile, info.level), ("Main", 4));
        assert!(info.interlaced);
        assert_eq!((info.chroma_format, info.reorder_depth), (1, Some(1)));
        let version = state.generation();
        assert!(state.add_sequence(&hex("78043834ffffe018")));
        assert!(state.add_extension(&hex("144200010000")));
        assert_eq!(state.generation(), version, "said again");
    }

    #[test]
    fn temporal_references_count_within_their_group_and_over_1023() {
        let mut state = State::default();
        let picture = |reference: u32| Picture {
            temporal_reference: reference & 1023,
            kind: Some(SliceKind::P),
            structure: FRAME,
            scan: None,
        };
        let first = state.picture_order(&picture(2));
        assert_eq!(first.count, 2);
        assert_eq!(state.picture_order(&picture(0)).count, 0);
        assert_eq!(
            state.add_group(&hex("00080040")).map(|g| g.closed),
            Some(true)
        );
        let next = state.picture_order(&picture(0));
        assert!(next > first);
        for n in 1..3000 {
            assert_eq!(state.picture_order(&picture(n)).count, n.cast_signed());
        }
    }

    #[test]
    fn cut_headers_are_refused() {
        let mut state = State::default();
        for cut in 0..4 {
            let mut state = State::default();
            assert!(!state.add_sequence(&hex("78043834")[..cut]));
            assert!(!state.add_extension(&[]));
        }
        assert!(!state.add_sequence(&hex("78043830ffff")), "frame rate 0");
        assert!(!state.add_sequence(&hex("00000034ffff")), "no size");
        assert!(!state.add_extension(&hex("1442")), "without a sequence");
        assert!(!state.add_picture(&[0]));
        assert_eq!(state.add_group(&[0, 0]), None);
    }
}
