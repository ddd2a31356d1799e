//! JPEG XS in files: codestreams back to back, or in boxes (ISO/IEC 21122-3). Where one ends is
//! in its picture header; of one that does not say, where another begins behind an EOC marker.

use memchr::memmem;

use super::obu::Malformed;
use crate::Track;
use crate::codec::jpegxs::{Boxes, Facts, HEAD, Header, Parsed, boxes, ends_codestream};

/// EOC, SOC and CAP: one codestream behind another.
const SEAM: [u8; 6] = [0xFF, 0x11, 0xFF, 0x10, 0xFF, 0x50];
/// SOC and CAP.
const START: [u8; 4] = [0xFF, 0x10, 0xFF, 0x50];
/// How far into a file its first codestream may lie.
const MAX_BOXES: usize = 64;

/// A picture, or a field of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picture<'a> {
    /// Offset of its codestream in the file.
    pub offset: usize,
    /// The codestream.
    pub bytes: &'a [u8],
    /// Its header.
    pub header: Header,
    /// It ends with the marker EOC.
    pub ended: bool,
}

/// Whether `data`, the beginning of a file, is of JPEG XS.
pub fn detect(data: &[u8]) -> bool {
    let at = first_codestream(data);
    data.get(at..).is_some_and(|rest| rest.starts_with(&START))
}

/// Passes over boxes up to the one that holds codestreams; the offset of the first.
fn first_codestream(data: &[u8]) -> usize {
    let mut at = 0_usize;
    for _ in 0..MAX_BOXES {
        let rest = data.get(at..).unwrap_or_default();
        if rest.starts_with(&START) {
            return at;
        }
        let Some((&[a, b, c, d, kind @ ..], body)) = rest.split_first_chunk::<8>() else {
            break;
        };
        if !kind.iter().all(|k| k.is_ascii_graphic() || *k == b' ') {
            break;
        }
        // A size of 1 is followed by one of 64 bits, 0 goes to the end.
        let (size, lead) = match (u32::from_be_bytes([a, b, c, d]), body.first_chunk::<8>()) {
            (1, Some(long)) => (u64::from_be_bytes(*long), 16),
            (size, _) => (u64::from(size), 8),
        };
        if rest.get(lead..).is_some_and(|b| b.starts_with(&START)) {
            return at + lead;
        }
        match usize::try_from(size).ok().and_then(|s| at.checked_add(s)) {
            Some(next) if size >= lead as u64 && next < data.len() => at = next,
            _ => break,
        }
    }
    0
}

/// The pictures of a file's bytes, in order; after an error none follow.
#[derive(Clone, Debug)]
pub struct Pictures<'a> {
    rest: &'a [u8],
    offset: usize,
    facts: Facts,
}

impl<'a> Pictures<'a> {
    /// Over a whole file.
    pub fn new(data: &'a [u8]) -> Self {
        let offset = first_codestream(data);
        Pictures {
            rest: data.get(offset..).unwrap_or_default(),
            offset,
            facts: Facts::default(),
        }
    }

    /// What the pictures so far tell of the stream.
    pub fn track(&self) -> Track {
        let mut track = Track {
            codec: crate::Codec::JpegXs,
            ..Track::default()
        };
        self.facts.describe(&mut track);
        track
    }

    fn step(&mut self) -> Option<Picture<'a>> {
        // Each may have boxes before it, as in a transport.
        let head = self.rest.get(..self.rest.len().min(HEAD))?;
        let Boxes::Codestream(lead, _) = boxes(head) else {
            return None;
        };
        let stream = self.rest.get(lead..)?;
        let Parsed::Header(header) = Header::parse(stream) else {
            return None;
        };
        self.facts.take(head);
        let first = header.first_slice?;
        let size = match header.codestream_bytes as usize {
            0 => {
                memmem::find(stream.get(first..)?, &SEAM).map_or(stream.len(), |at| first + at + 2)
            }
            size => size,
        };
        // Its headers are part of it.
        let bytes = stream.get(..size).filter(|_| size > first)?;
        let offset = self.offset + lead;
        self.rest = stream.get(size..)?;
        self.offset = offset + size;
        Some(Picture {
            offset,
            bytes,
            header,
            ended: ends_codestream(bytes),
        })
    }
}

impl<'a> Iterator for Pictures<'a> {
    type Item = Result<Picture<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        let picture = self.step();
        if picture.is_none() {
            self.rest = &[];
        }
        Some(picture.ok_or(Malformed { offset }))
    }
}
