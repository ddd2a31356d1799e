//! AV1 (AOMedia AV1 Bitstream & Decoding Process Specification) as far as temporal units need
//! it: OBU headers and sizes, the sequence header, frame headers up to `refresh_frame_flags`,
//! metadata, and what the reference slots hold. Called by [`crate::obu_assembler`], by the RTP
//! and MPEG-TS mappings, and by [`crate::files::obu`].

mod frame;
mod metadata;
mod sequence;

use super::{VideoInfo, other_second};
use crate::SideInformation;

pub use frame::{Frame, FrameType};
pub use metadata::Metadata;
pub use sequence::{OperatingPoint, Sequence};

/// `obu_type` (6.2.2).
pub mod obu {
    /// Sequence header.
    pub const SEQUENCE: u8 = 1;
    /// Temporal delimiter.
    pub const DELIMITER: u8 = 2;
    /// Frame header.
    pub const FRAME_HEADER: u8 = 3;
    /// Tile group.
    pub const TILE_GROUP: u8 = 4;
    /// Metadata.
    pub const METADATA: u8 = 5;
    /// Frame header and tile group.
    pub const FRAME: u8 = 6;
    /// A repeated frame header.
    pub const REDUNDANT_HEADER: u8 = 7;
    /// Tile list (large scale tile decoding).
    pub const TILE_LIST: u8 = 8;
    /// Padding.
    pub const PADDING: u8 = 15;
}

/// A temporal delimiter OBU, with its size.
pub const DELIMITER_OBU: [u8; 2] = [obu::DELIMITER << 3 | HAS_SIZE, 0];

const HAS_SIZE: u8 = 2;
const EXTENSION: u8 = 4;

/// What bytes are as leb128 (4.10.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leb128 {
    /// A value, and the bytes that it takes.
    Value(u32, usize),
    /// It goes on behind them.
    More,
    /// More than 8 bytes, or than 32 bits.
    Bad,
}

/// Reads a leb128 at the head of `bytes`. Forms longer than need be are legal.
pub fn leb128(bytes: &[u8]) -> Leb128 {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_or(Leb128::Bad, |v| Leb128::Value(v, n + 1));
        }
    }
    if bytes.len() < 8 {
        Leb128::More
    } else {
        Leb128::Bad
    }
}

/// Bytes that `value` takes as leb128.
pub const fn leb128_len(value: u32) -> u32 {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        0x20_0000..=0xFFF_FFFF => 4,
        _ => 5,
    }
}

/// Appends `value` as leb128.
pub fn push_leb128(mut value: u32, out: &mut Vec<u8>) {
    while value > 0x7F {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// An OBU's header (5.3.2 and 5.3.3), without its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ObuHeader {
    /// `obu_type`.
    pub kind: u8,
    /// `obu_extension_flag`: it has a second byte.
    pub extension: bool,
    /// `obu_has_size_field`.
    pub has_size: bool,
    /// `temporal_id`.
    pub temporal_id: u8,
    /// `spatial_id`.
    pub spatial_id: u8,
}

impl ObuHeader {
    /// The header's first byte; `None` if the forbidden bit is set.
    pub const fn from_first(byte: u8) -> Option<Self> {
        if byte & 0x80 != 0 {
            return None;
        }
        Some(ObuHeader {
            kind: byte >> 3 & 15,
            extension: byte & EXTENSION != 0,
            has_size: byte & HAS_SIZE != 0,
            temporal_id: 0,
            spatial_id: 0,
        })
    }

    /// Adds the second byte.
    pub const fn extend(&mut self, byte: u8) {
        self.temporal_id = byte >> 5;
        self.spatial_id = byte >> 3 & 3;
    }

    /// Bytes of the header.
    pub const fn bytes(&self) -> usize {
        1 + self.extension as usize
    }

    /// Whether it stays in the elementary stream that is handed out: temporal delimiters are
    /// written anew, tile lists are of another decoding process, type 0 is stuffing.
    pub const fn is_kept(&self) -> bool {
        !matches!(self.kind, 0 | obu::DELIMITER | obu::TILE_LIST)
    }

    /// Appends header and size for a payload of `size` bytes.
    pub fn write(&self, size: u32, out: &mut Vec<u8>) {
        out.push(self.kind << 3 | u8::from(self.extension) << 2 | HAS_SIZE);
        if self.extension {
            out.push(self.temporal_id << 5 | self.spatial_id << 3);
        }
        push_leb128(size, out);
    }
}

/// An OBU in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Obu<'a> {
    /// Its header.
    pub header: ObuHeader,
    /// What follows header and size.
    pub payload: &'a [u8],
    /// Bytes of it in all.
    pub bytes: usize,
}

impl<'a> Obu<'a> {
    /// The OBU at the head of `bytes`; without a size of its own it takes them all. `None` if
    /// it breaks the syntax or runs past them.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let &[first, ref rest @ ..] = bytes else {
            return None;
        };
        let mut header = ObuHeader::from_first(first)?;
        if header.extension {
            header.extend(*rest.first()?);
        }
        let mut at = header.bytes();
        let payload = if header.has_size {
            let Leb128::Value(size, used) = leb128(bytes.get(at..)?) else {
                return None;
            };
            at += used;
            bytes.get(at..)?.get(..size as usize)?
        } else {
            bytes.get(at..)?
        };
        Some(Obu {
            header,
            payload,
            bytes: at + payload.len(),
        })
    }

    /// Appends it with its size; nothing if it is not kept.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.header.is_kept() {
            self.header.write(self.payload.len() as u32, out);
            out.extend_from_slice(self.payload);
        }
    }
}

/// What an OBU told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Nothing that matters here.
    Nothing,
    /// A sequence header is in force.
    Sequence,
    /// A frame begins (or an old one is shown).
    Frame(Frame),
    /// Metadata.
    Metadata(Metadata),
    /// It breaks the syntax, or needs a sequence header that has not come.
    Malformed,
}

/// What a stream's OBUs have told so far.
#[derive(Clone, Debug, Default)]
pub struct State {
    sequence: Option<Box<Sequence>>,
    slots: [Option<FrameType>; 8],
    side: SideInformation,
    temporal_layers: u8,
    spatial_layers: u8,
    screen_content: bool,
    version: u32,
}

impl State {
    /// The sequence header in force.
    pub fn sequence(&self) -> Option<&Sequence> {
        self.sequence.as_deref()
    }

    /// Metadata seen.
    pub const fn side(&self) -> &SideInformation {
        &self.side
    }

    /// Temporal layers, named or seen.
    pub fn temporal_layers(&self) -> u8 {
        self.temporal_layers.max(1)
    }

    /// Spatial layers, named or seen.
    pub fn spatial_layers(&self) -> u8 {
        self.spatial_layers.max(1)
    }

    /// Whether frames use screen-content tools.
    pub const fn screen_content(&self) -> bool {
        self.screen_content
    }

    /// Grows whenever [`State::info`] has something new to tell.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Frames were lost: what the slots hold is not known.
    pub const fn forget_slots(&mut self) {
        self.slots = [None; 8];
    }

    /// Takes an OBU: its payload, or the head of it.
    pub fn take(&mut self, header: &ObuHeader, payload: &[u8]) -> Told {
        match header.kind {
            obu::SEQUENCE => self.take_sequence(payload),
            obu::FRAME_HEADER | obu::FRAME => self.take_frame(header, payload),
            // Of what kind there is none, or of no use: not an error.
            obu::METADATA => match Metadata::parse(payload) {
                Some(metadata) => {
                    self.take_metadata(metadata);
                    Told::Metadata(metadata)
                }
                None => Told::Nothing,
            },
            _ => Told::Nothing,
        }
    }

    fn take_metadata(&mut self, metadata: Metadata) {
        let before = self.side;
        metadata.add_to(&mut self.side);
        let timecode = self.side.timecode;
        if other_second(before.timecode, timecode)
            || (SideInformation { timecode, ..before }) != self.side
        {
            self.version = self.version.wrapping_add(1);
        }
        if let Metadata::Scalability {
            temporal_layers,
            spatial_layers,
        } = metadata
        {
            self.add_layers(temporal_layers, spatial_layers);
        }
    }

    fn add_layers(&mut self, temporal: u8, spatial: u8) {
        if temporal > self.temporal_layers || spatial > self.spatial_layers {
            self.temporal_layers = self.temporal_layers.max(temporal);
            self.spatial_layers = self.spatial_layers.max(spatial);
            self.version = self.version.wrapping_add(1);
        }
    }

    fn take_sequence(&mut self, payload: &[u8]) -> Told {
        let Some(sequence) = Sequence::parse(payload) else {
            return Told::Malformed;
        };
        if self.sequence.as_deref() != Some(&sequence) {
            self.temporal_layers = sequence.temporal_layers();
            self.spatial_layers = sequence.spatial_layers();
            self.screen_content = sequence.screen_content == 1;
            self.slots = [None; 8];
            self.sequence = Some(Box::new(sequence));
            self.version = self.version.wrapping_add(1);
        }
        Told::Sequence
    }

    fn take_frame(&mut self, header: &ObuHeader, payload: &[u8]) -> Told {
        let parsed = self
            .sequence
            .as_deref()
            .and_then(|sequence| frame::parse(header, payload, sequence));
        let Some(mut frame) = parsed else {
            return Told::Malformed;
        };
        if header.extension {
            self.add_layers(header.temporal_id + 1, header.spatial_id + 1);
        }
        if let Some(slot) = frame.existing {
            let kind = self.slots.get(usize::from(slot)).copied().flatten();
            frame.kind = kind.unwrap_or(FrameType::Inter);
            if frame.kind == FrameType::Key {
                // 7.21: it is loaded, and refreshes every slot.
                frame.refresh = 0xFF;
            }
        } else if frame.screen_content && !self.screen_content {
            self.screen_content = true;
            self.version = self.version.wrapping_add(1);
        }
        for (n, slot) in self.slots.iter_mut().enumerate() {
            if frame.refresh >> n & 1 == 1 {
                *slot = Some(frame.kind);
            }
        }
        Told::Frame(frame)
    }

    /// What the bits tell of the video; `None` before the first sequence header.
    pub fn info(&self) -> Option<VideoInfo> {
        self.sequence().map(|sequence| VideoInfo {
            reorder_depth: Some(0),
            temporal_layers: self.temporal_layers(),
            enhancement_layers: self.spatial_layers() - 1,
            screen_content: self.screen_content,
            side: self.side,
            ..sequence.info
        })
    }
}

#[cfg(test)]
mod tests;
