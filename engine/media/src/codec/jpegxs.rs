//! JPEG XS (ISO/IEC 21122): the codestream's header (part 1, annex A), profile and level names
//! (part 2), and the boxes that a transport puts before it (part 3; RFC 9134, ISO 13818-1
//! annex S). Called by the RTP and MPEG-TS mappings and by [`crate::files::jxs`].
//!
//! Only marker segments before the first slice are read: entropy-coded data may hold any bytes.

use super::bits::BitReader;
use super::{VideoInfo, other_second, rate};
use crate::{Colour, ContentLight, MasteringDisplay, SideInformation, Track};

/// Marker codes (table A.1).
pub mod marker {
    /// Start of codestream.
    pub const SOC: u16 = 0xFF10;
    /// End of codestream.
    pub const EOC: u16 = 0xFF11;
    /// Picture header.
    pub const PIH: u16 = 0xFF12;
    /// Component table.
    pub const CDT: u16 = 0xFF13;
    /// Slice header.
    pub const SLH: u16 = 0xFF20;
}

/// Bytes that hold the boxes, the picture header and the component table of any codestream
/// that keeps to the usual order.
pub const HEAD: usize = 512;
/// Bytes of the marker EOC.
const EOC_BYTES: usize = 2;

/// What a codestream's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// `Lcod`: bytes of the codestream; 0: not said.
    pub codestream_bytes: u32,
    /// `Ppih`.
    pub profile: u16,
    /// `Plev`: level in the high byte, sublevel in the low one.
    pub level: u16,
    /// `Wf`: of a field, if there are fields.
    pub width: u16,
    /// `Hf`, likewise.
    pub height: u16,
    /// `Cw`: width of a precinct in multiples of 8; 0: the whole width.
    pub precinct_width: u16,
    /// `Hsl`: precincts in a slice, from top to bottom.
    pub slice_height: u16,
    /// `Nc`.
    pub components: u8,
    /// `Nly`: vertical decompositions.
    pub vertical_decompositions: u8,
    /// Bits of the first component.
    pub bit_depth: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// `Cpih` is 1: coded with a reversible colour transform, so of RGB.
    pub rgb: bool,
    /// Where the first slice begins; `None` while it lies beyond the bytes given.
    pub first_slice: Option<usize>,
}

/// What the head of a codestream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// Its header.
    Header(Header),
    /// The component table lies beyond the bytes given.
    More,
    /// None.
    Bad,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes)
}

impl Header {
    /// Reads a codestream's head, SOC first.
    pub fn parse(bytes: &[u8]) -> Parsed {
        match be16(bytes, 0) {
            Some(marker::SOC) => {}
            Some(_) => return Parsed::Bad,
            None => return Parsed::More,
        }
        let mut header = Header::default();
        let (mut picture, mut table) = (false, false);
        let mut at = 2;
        while let Some(code) = be16(bytes, at) {
            if code == marker::SLH {
                header.first_slice = Some(at);
                break;
            }
            // Everything else before the first slice has a length, which counts itself.
            let known = matches!(code, 0xFF12..=0xFF19 | 0xFF50);
            let length = be16(bytes, at + 2).map(usize::from);
            if !known || length.is_some_and(|l| l < 2) {
                return Parsed::Bad;
            }
            let body = length.and_then(|l| bytes.get(at + 4..at + 2 + l));
            let Some((length, body)) = length.zip(body) else {
                break;
            };
            at += 2 + length;
            let good = match code {
                marker::PIH if !picture => {
                    picture = true;
                    header.picture(body).is_some()
                }
                marker::CDT if picture && !table => {
                    table = true;
                    header.table(body).is_some()
                }
                marker::PIH | marker::CDT => false,
                _ => true,
            };
            if !good {
                return Parsed::Bad;
            }
        }
        match (table, header.first_slice) {
            (true, _) => Parsed::Header(header),
            (false, Some(_)) => Parsed::Bad,
            (false, None) => Parsed::More,
        }
    }

    /// A.4.3.
    fn picture(&mut self, body: &[u8]) -> Option<()> {
        let mut r = BitReader::raw(body);
        self.codestream_bytes = r.u(32)?;
        self.profile = r.u(16)? as u16;
        self.level = r.u(16)? as u16;
        self.width = r.u(16)? as u16;
        self.height = r.u(16)? as u16;
        self.precinct_width = r.u(16)? as u16;
        self.slice_height = r.u(16)? as u16;
        self.components = r.byte(8)?;
        // Ng, Ss, Bw, Fq, Br, Fslc, Ppoc
        r.skip(8 + 8 + 8 + 4 + 4 + 1 + 3)?;
        self.rgb = r.byte(4)? == 1;
        // NL,x
        r.skip(4)?;
        self.vertical_decompositions = r.byte(4)?;
        // Lh, Rl, Qpih, Fs, Rm
        r.skip(8)?;
        let sound = self.width > 0
            && self.height > 0
            && self.slice_height > 0
            && matches!(self.components, 1..=8)
            && self.vertical_decompositions <= 6;
        sound.then_some(())
    }

    /// A.4.5.
    fn table(&mut self, body: &[u8]) -> Option<()> {
        let (components, _) = body.as_chunks::<2>();
        let components = components.get(..usize::from(self.components))?;
        let &[depth, sampling] = components.first()?;
        if depth == 0 || depth > 16 || sampling != 0x11 {
            return None;
        }
        self.bit_depth = depth;
        // Alpha comes last, and a Bayer pattern's four components are all of one size.
        self.chroma_format = match components.get(1) {
            None => 0,
            Some([_, 0x22]) => 1,
            Some([_, 0x21]) => 2,
            Some([_, 0x11]) => 3,
            Some(_) => return None,
        };
        Some(())
    }

    /// Slices of the picture: `ceil(Hf / (Hsl · 2^NLy))`.
    pub fn slices(&self) -> u32 {
        let lines = u32::from(self.slice_height) << self.vertical_decompositions;
        u32::from(self.height).div_ceil(lines.max(1))
    }

    /// The profile's name (ISO/IEC 21122-2).
    pub const fn profile_name(&self) -> &'static str {
        match self.profile {
            0 => "Unrestricted",
            0x1500 => "Light 422.10",
            0x1A00 => "Light 444.12",
            0x2500 => "Light-Subline 422.10",
            0x3240 => "Main 420.12",
            0x3540 => "Main 422.10",
            0x3A40 => "Main 444.12",
            0x3E40 => "Main 4444.12",
            0x4A40 => "High 444.12",
            0x4E40 => "High 4444.12",
            0x6EC0 => "MLS.12",
            0x9300 => "Light Bayer",
            0xB340 => "Main Bayer",
            0xC340 => "High Bayer",
            _ => "",
        }
    }
}

/// The level's name by the high byte of `Plev`.
pub const fn level_name(level: u8) -> &'static str {
    match level {
        0 => "Unrestricted",
        0x04 => "1k-1",
        0x10 => "2k-1",
        0x20 => "4k-1",
        0x24 => "4k-2",
        0x28 => "4k-3",
        0x30 => "8k-1",
        0x34 => "8k-2",
        0x38 => "8k-3",
        0x40 => "10k-1",
        _ => "",
    }
}

/// Whether `bytes` end with the marker EOC.
pub fn ends_codestream(bytes: &[u8]) -> bool {
    be16(bytes, bytes.len().wrapping_sub(EOC_BYTES)) == Some(marker::EOC)
}

/// What a transport says beside the codestream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VideoSupport {
    /// Frames a second, (0, 0) if not said.
    pub frame_rate: (u32, u32),
    /// Interlaced.
    pub interlaced: bool,
    /// Of the two fields the bottom one comes first.
    pub bottom_first: bool,
    /// Most that the codestreams take, Mbit/s; 0: not said.
    pub bitrate_mbps: u32,
    /// Colour.
    pub colour: Option<Colour>,
    /// Hours, minutes, seconds, frames; `None` where it says nothing (all zero).
    pub timecode: Option<[u8; 4]>,
    /// Mastering display (MPEG-TS descriptor).
    pub mastering: Option<MasteringDisplay>,
    /// Content light level (MPEG-TS descriptor).
    pub light: Option<ContentLight>,
}

impl VideoSupport {
    /// `frat` (ISO/IEC 21122-3, table A.4).
    fn rate(&mut self, frat: u32) {
        self.interlaced = matches!(frat >> 30, 1 | 2);
        self.bottom_first = frat >> 30 == 2;
        let numerator = u64::from(frat & 0xFFFF);
        self.frame_rate = match frat >> 24 & 0x3F {
            1 => rate(numerator, 1),
            2 => rate(numerator * 1000, 1001),
            _ => (0, 0),
        };
    }

    /// Primaries, transfer, matrix in so many bits each, and the full-range flag.
    fn colour(&mut self, r: &mut BitReader<'_>, bits: u32) -> Option<()> {
        let mut code = || Some(u8::try_from(r.u(bits)?).unwrap_or(2));
        let (primaries, transfer, matrix) = (code()?, code()?, code()?);
        self.colour = Some(Colour {
            primaries,
            transfer,
            matrix,
            full_range: r.flag()?,
        });
        r.skip(7)
    }

    /// The JPEG XS descriptor of MPEG-TS, behind its extension tag (ISO 13818-1, 2.6.127). What
    /// is cut off is left out: some writers forget its last byte.
    pub fn from_descriptor(body: &[u8]) -> Option<Self> {
        let mut r = BitReader::raw(body);
        let mut support = VideoSupport::default();
        if r.byte(8)? != 0 {
            return None;
        }
        // Horizontal and vertical size: the codestream tells them.
        r.skip(32)?;
        support.bitrate_mbps = r.u(32)?;
        support.rate(r.u(32)?);
        // schar, Ppih, Plev, max_buffer, buffer_model
        r.skip(16 + 16 + 16 + 32 + 8)?;
        support.colour(&mut r, 8)?;
        // still_mode_flag, mdm_flag
        let _ = r.flag();
        if r.flag() == Some(true) && r.skip(6).is_some() {
            support.mastering(&mut r);
        }
        Some(support)
    }

    /// 28 bytes: SMPTE ST 2086 and CTA-861.3 in the units of the SEI messages.
    fn mastering(&mut self, r: &mut BitReader<'_>) -> Option<()> {
        let mut point = || Some([r.u(16)? as u16, r.u(16)? as u16]);
        let primaries = [point()?, point()?, point()?];
        let white_point = point()?;
        self.mastering = Some(MasteringDisplay {
            primaries,
            white_point,
            max_luminance: r.u(32)?,
            min_luminance: r.u(32)?,
        });
        self.light = Some(ContentLight {
            max: r.u(16)? as u16,
            max_average: r.u(16)? as u16,
        });
        Some(())
    }
}

/// What the head of a picture segment or PES payload is: boxes, then the codestream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boxes {
    /// The codestream begins at that offset.
    Codestream(usize, VideoSupport),
    /// The boxes go on beyond the bytes given.
    More,
    /// Neither a box nor a codestream.
    Bad,
}

/// Walks the boxes before a codestream: `jpvs` and `colr` of RFC 9134 in any order, `jxes` of
/// MPEG-TS, and others by their sizes.
pub fn boxes(bytes: &[u8]) -> Boxes {
    let mut support = VideoSupport::default();
    let mut at = 0;
    loop {
        match be16(bytes, at) {
            Some(marker::SOC) => return Boxes::Codestream(at, support),
            None => return Boxes::More,
            Some(_) => {}
        }
        let (Some(size), Some(kind)) = (be32(bytes, at), be32(bytes, at + 4)) else {
            return Boxes::More;
        };
        let size = size as usize;
        let letters = kind.to_be_bytes();
        if !(8..=HEAD).contains(&size) || !letters.iter().all(u8::is_ascii_graphic) {
            return Boxes::Bad;
        }
        let Some(body) = bytes.get(at + 8..at + size) else {
            return Boxes::More;
        };
        // One that is cut short tells nothing, and is passed over all the same.
        let _ = read_box(&letters, body, &mut support);
        at += size;
    }
}

fn read_box(kind: &[u8; 4], body: &[u8], support: &mut VideoSupport) -> Option<()> {
    let mut r = BitReader::raw(body);
    match kind {
        b"jpvs" => {
            let mut rest = body;
            while let Some(size) = be32(rest, 0).map(|s| s as usize) {
                let inner = rest.get(8..size)?;
                if rest.get(4..8)? == b"jpvi" {
                    let mut r = BitReader::raw(inner);
                    support.bitrate_mbps = r.u(32)?;
                    support.rate(r.u(32)?);
                    // schar
                    r.skip(16)?;
                    support.timecode(r.u(32)?);
                }
                rest = rest.get(size..)?;
            }
            Some(())
        }
        b"colr" => {
            // method 5: code points; prec, approx
            if r.byte(8)? != 5 {
                return None;
            }
            r.skip(16)?;
            support.colour(&mut r, 16)
        }
        b"jxes" => {
            support.bitrate_mbps = r.u(32)?;
            support.rate(r.u(32)?);
            // schar, Ppih, Plev
            r.skip(48)?;
            support.colour(&mut r, 8)?;
            support.timecode(r.u(32)?);
            Some(())
        }
        _ => None,
    }
}

impl VideoSupport {
    fn timecode(&mut self, bits: u32) {
        let [hours, minutes, seconds, frames] = bits.to_be_bytes();
        let sensible = bits != 0 && hours < 24 && minutes < 60 && seconds < 60;
        self.timecode = sensible.then_some([hours, minutes, seconds, frames]);
    }
}

/// What a track of JPEG XS shows, gathered from codestreams and what stands beside them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    header: Option<Header>,
    support: VideoSupport,
    version: u32,
}

impl Facts {
    /// With what a descriptor said.
    pub fn new(support: VideoSupport) -> Self {
        Facts {
            support,
            ..Facts::default()
        }
    }

    /// Takes a picture segment's head; what its boxes do not say stays as it was. `None` if
    /// there is no codestream; else where it begins, and its header.
    pub fn take(&mut self, head: &[u8]) -> Option<(usize, Header)> {
        let Boxes::Codestream(at, support) = boxes(head) else {
            return None;
        };
        let Parsed::Header(header) = Header::parse(head.get(at..)?) else {
            return None;
        };
        let before = (self.header, self.support);
        if support.frame_rate != (0, 0) {
            self.support.frame_rate = support.frame_rate;
            self.support.interlaced = support.interlaced;
            self.support.bottom_first = support.bottom_first;
            self.support.bitrate_mbps = support.bitrate_mbps;
        }
        self.support.colour = support.colour.or(self.support.colour);
        self.support.timecode = support.timecode;
        self.header = Some(Header {
            // Sizes change from picture to picture, and mean nothing to the track.
            codestream_bytes: 0,
            first_slice: None,
            ..header
        });
        let (header_before, mut support_before) = before;
        let other_second = other_second(support_before.timecode, support.timecode);
        support_before.timecode = support.timecode;
        if other_second || (header_before, support_before) != (self.header, self.support) {
            self.version = self.version.wrapping_add(1);
        }
        Some((at, header))
    }

    /// The transport shows fields (RTP: I).
    pub const fn set_interlaced(&mut self) {
        if !self.support.interlaced {
            self.support.interlaced = true;
            self.version = self.version.wrapping_add(1);
        }
    }

    /// Grows whenever [`Facts::describe`] has something new to tell.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The newest picture's header.
    pub const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// What stands beside the codestreams.
    pub const fn support(&self) -> &VideoSupport {
        &self.support
    }

    /// Takes over what the bits tell.
    pub fn describe(&self, track: &mut Track) {
        let Some(header) = &self.header else { return };
        let fields = 1 + u32::from(self.support.interlaced);
        track.set_video(&VideoInfo {
            profile: header.profile_name(),
            level: (header.level >> 8) as u8,
            width: header.width.into(),
            height: u32::from(header.height) * fields,
            frame_rate: self.support.frame_rate,
            bit_depth: header.bit_depth,
            chroma_format: header.chroma_format,
            interlaced: self.support.interlaced,
            colour: self.support.colour.unwrap_or_default(),
            reorder_depth: Some(0),
            temporal_layers: 1,
            side: SideInformation {
                timecode: self.support.timecode,
                mastering: self.support.mastering,
                light: self.support.light,
                ..SideInformation::default()
            },
            ..VideoInfo::default()
        });
    }
}

#[cfg(test)]
mod tests;
