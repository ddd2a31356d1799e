//! AV1 in files: the low-overhead format (a temporal delimiter before each temporal unit, every
//! OBU with its size: AV1 5.2), the length-delimited one (Annex B), and what the temporal units
//! of either, or of [`super::ivf`], tell.

use crate::codec::VideoInfo;
use crate::codec::av1::{Frame, FrameType, Leb128, Obu, ObuHeader, State, Told, leb128, obu};
use crate::{Codec, FrameKind, Track};

/// How OBUs lie in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// One after another, with their sizes.
    LowOverhead,
    /// Lengths before temporal units, frame units and OBUs.
    AnnexB,
}

/// Where a file breaks its format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Offset in the file.
    pub offset: usize,
}

/// Which framing `data`, the beginning of a file, has: it must begin with a temporal delimiter.
pub fn detect(data: &[u8]) -> Option<Framing> {
    if begins_unit(data) {
        return Some(Framing::LowOverhead);
    }
    let (_, unit) = sized(data)?;
    let (_, frame) = sized(unit.0)?;
    let (_, first) = sized(frame.0)?;
    let delimiter = Obu::read(first.0)?;
    let is_delimiter = delimiter.header.kind == obu::DELIMITER && delimiter.payload.is_empty();
    is_delimiter.then_some(Framing::AnnexB)
}

/// Whether a temporal delimiter with its size begins here.
fn begins_unit(data: &[u8]) -> bool {
    let header = data.first().and_then(|&first| ObuHeader::from_first(first));
    let is_delimiter = header.is_some_and(|h| h.kind == obu::DELIMITER && h.has_size);
    is_delimiter && Obu::read(data).is_some_and(|o| o.payload.is_empty())
}

/// A leb128 length, what it counts (as much as is there) and what follows; `None` if the length
/// cannot be read or is 0. The `usize` is the length of the length.
#[expect(clippy::type_complexity, reason = "three neighbouring slices")]
fn sized(data: &[u8]) -> Option<(usize, (&[u8], &[u8]))> {
    let Leb128::Value(size @ 1.., used) = leb128(data) else {
        return None;
    };
    let rest = data.get(used..)?;
    Some((used, rest.split_at(rest.len().min(size as usize))))
}

/// A temporal unit in a file.
#[derive(Clone, Copy, Debug)]
pub struct TemporalUnit<'a> {
    /// Offset in the file.
    pub offset: usize,
    /// Its bytes (Annex B: without its own length).
    pub bytes: &'a [u8],
    framing: Framing,
}

impl<'a> TemporalUnit<'a> {
    /// A unit that lies alone in `bytes`, as in IVF.
    pub const fn alone(bytes: &'a [u8], offset: usize) -> Self {
        TemporalUnit {
            offset,
            bytes,
            framing: Framing::LowOverhead,
        }
    }

    /// Its OBUs.
    pub const fn obus(&self) -> Obus<'a> {
        Obus {
            rest: self.bytes,
            frame_unit: &[],
            offset: self.offset,
            framing: self.framing,
        }
    }
}

/// The temporal units of a file's bytes, in order; after an error none follow.
#[derive(Clone, Debug)]
pub struct TemporalUnits<'a> {
    rest: &'a [u8],
    offset: usize,
    framing: Framing,
}

impl<'a> TemporalUnits<'a> {
    /// Over a whole file.
    pub const fn new(data: &'a [u8], framing: Framing) -> Self {
        TemporalUnits {
            rest: data,
            offset: 0,
            framing,
        }
    }

    /// Bytes of the unit that begins `rest`; `Err`: where it cannot be followed.
    fn low_overhead(&self) -> Result<usize, usize> {
        let mut at = 0;
        loop {
            let after = self.rest.get(at..).unwrap_or_default();
            if after.is_empty() || (at > 0 && begins_unit(after)) {
                return Ok(at);
            }
            let obu = Obu::read(after).filter(|o| o.header.has_size).ok_or(at)?;
            at += obu.bytes;
        }
    }
}

impl<'a> Iterator for TemporalUnits<'a> {
    type Item = Result<TemporalUnit<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = match self.framing {
            Framing::LowOverhead => self.low_overhead().map(|bytes| (0, bytes)),
            Framing::AnnexB => match leb128(self.rest) {
                Leb128::Value(size, used) if self.rest.len() - used >= size as usize => {
                    Ok((used, size as usize))
                }
                _ => Err(0),
            },
        };
        let (lead, bytes) = match found {
            Ok(found) => found,
            Err(at) => {
                self.rest = &[];
                let offset = self.offset + at;
                return Some(Err(Malformed { offset }));
            }
        };
        let (unit, rest) = self.rest.split_at((lead + bytes).min(self.rest.len()));
        let offset = self.offset + lead;
        self.rest = rest;
        self.offset += unit.len();
        Some(Ok(TemporalUnit {
            offset,
            bytes: unit.get(lead..).unwrap_or_default(),
            framing: self.framing,
        }))
    }
}

/// The OBUs of a temporal unit, in order; after an error none follow.
#[derive(Clone, Debug)]
pub struct Obus<'a> {
    rest: &'a [u8],
    /// Annex B: what is left of the frame unit.
    frame_unit: &'a [u8],
    offset: usize,
    framing: Framing,
}

impl<'a> Obus<'a> {
    fn step(&mut self) -> Option<Obu<'a>> {
        if self.framing == Framing::LowOverhead {
            let obu = Obu::read(self.rest)?;
            self.rest = self.rest.get(obu.bytes..)?;
            self.offset += obu.bytes;
            return Some(obu);
        }
        if self.frame_unit.is_empty() {
            (self.frame_unit, self.rest) = self.length_and(self.rest)?;
        }
        let (obu, after) = self.length_and(self.frame_unit)?;
        self.frame_unit = after;
        self.offset += obu.len();
        Obu::read(obu)
    }

    /// What a length at the head of `data` counts, and what follows.
    fn length_and(&mut self, data: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let Leb128::Value(size, used) = leb128(data) else {
            return None;
        };
        self.offset += used;
        data.get(used..)?.split_at_checked(size as usize)
    }
}

impl<'a> Iterator for Obus<'a> {
    type Item = Result<Obu<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() && self.frame_unit.is_empty() {
            return None;
        }
        let before = self.offset;
        let obu = self.step();
        if obu.is_none() {
            self.rest = &[];
            self.frame_unit = &[];
        }
        Some(obu.ok_or(Malformed { offset: before }))
    }
}

/// What a temporal unit tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnitFacts {
    /// `obu_type` of its OBUs.
    pub obu_types: Vec<u8>,
    /// Bytes of each, header and size included.
    pub obu_bytes: Vec<u32>,
    /// Its frames, coded or shown again, in decoding order.
    pub frames: Vec<Frame>,
    /// A sequence header is in it.
    pub sequence: bool,
    /// As [`crate::AccessUnit::kind`].
    pub kind: FrameKind,
    /// It breaks the syntax, or cannot be read for want of a sequence header.
    pub malformed: bool,
}

impl UnitFacts {
    /// Whether it is a key temporal unit (7.6.2).
    pub const fn is_key(&self) -> bool {
        matches!(self.kind, FrameKind::Idr)
    }

    fn set_kind(&mut self) {
        let coded_key = |shown: bool| {
            let is =
                |f: &Frame| f.kind == FrameType::Key && f.existing.is_none() && f.shown == shown;
            self.sequence && self.frames.iter().any(is)
        };
        self.kind = if coded_key(true) {
            FrameKind::Idr
        } else if coded_key(false) {
            FrameKind::Cra
        } else if self.frames.is_empty() {
            FrameKind::Other
        } else if self.frames.iter().all(|f| f.kind.is_intra()) {
            FrameKind::I
        } else {
            FrameKind::P
        };
    }
}

/// Reads temporal units one after another. What it keeps does not grow with them.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    state: State,
    info: VideoInfo,
}

impl Reader {
    /// The next temporal unit.
    pub fn unit(&mut self, unit: &TemporalUnit<'_>) -> UnitFacts {
        let mut facts = UnitFacts::default();
        for obu in unit.obus() {
            let Ok(obu) = obu else {
                facts.malformed = true;
                break;
            };
            facts.obu_types.push(obu.header.kind);
            facts.obu_bytes.push(obu.bytes as u32);
            match self.state.take(&obu.header, obu.payload) {
                Told::Frame(frame) => facts.frames.push(frame),
                Told::Sequence => facts.sequence = true,
                Told::Malformed => facts.malformed = true,
                Told::Metadata(_) | Told::Nothing => {}
            }
        }
        facts.set_kind();
        if let Some(info) = self.state.info() {
            self.info = info;
        }
        facts
    }

    /// What the OBUs have told.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What they tell of the stream.
    pub fn track(&self) -> Track {
        let mut track = Track {
            codec: Codec::Av1,
            ..Track::default()
        };
        track.set_video(&self.info);
        track
    }
}

#[cfg(test)]
mod tests;
