//! IVF files: a header, then frames with their size and time; of AV1, a temporal unit in each.

use super::obu::Malformed;

/// Bytes of the file header, if it does not say more.
const HEADER: usize = 32;
/// Bytes of a frame header.
const FRAME_HEADER: usize = 12;

/// The file header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Codec: "AV01", "VP80", "VP90".
    pub fourcc: [u8; 4],
    /// Samples across.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// Time stamps are in units of `scale / rate` seconds.
    pub rate: u32,
    /// See `rate`.
    pub scale: u32,
    /// Frames, as the header says; often 0 or wrong.
    pub frames: u32,
    /// Where the first frame's header lies.
    pub length: usize,
}

fn le16(data: &[u8], at: usize) -> Option<u16> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn le32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

impl Header {
    /// Reads the header at the head of a file; `None` if it is none.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let length = usize::from(le16(data, 6)?);
        if !data.starts_with(b"DKIF") || le16(data, 4)? != 0 || length < HEADER {
            return None;
        }
        Some(Header {
            fourcc: *data.get(8..)?.first_chunk()?,
            width: le16(data, 12)?,
            height: le16(data, 14)?,
            rate: le32(data, 16)?,
            scale: le32(data, 20)?,
            frames: le32(data, 24)?,
            length,
        })
    }
}

/// A frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Offset of its data in the file.
    pub offset: usize,
    /// Time stamp in the file's units.
    pub pts: u64,
    /// Its data.
    pub data: &'a [u8],
}

/// The frames of a file's bytes, in order; after an error none follow.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    /// Over a whole file with that header.
    pub fn new(data: &'a [u8], header: &Header) -> Self {
        Frames {
            rest: data.get(header.length..).unwrap_or_default(),
            offset: header.length,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        let found = self
            .rest
            .split_at_checked(FRAME_HEADER)
            .and_then(|(head, after)| {
                let (size, time) = head.split_first_chunk::<4>()?;
                let size = u32::from_le_bytes(*size) as usize;
                let pts = u64::from_le_bytes(*time.first_chunk()?);
                let (data, rest) = after.split_at_checked(size)?;
                Some((pts, data, rest))
            });
        let Some((pts, data, rest)) = found else {
            self.rest = &[];
            return Some(Err(Malformed { offset }));
        };
        self.rest = rest;
        self.offset += FRAME_HEADER + data.len();
        Some(Ok(Frame {
            offset: offset + FRAME_HEADER,
            pts,
            data,
        }))
    }
}
