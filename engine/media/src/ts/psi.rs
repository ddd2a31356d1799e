//! Program specific information (ISO 13818-1, 2.4.4): sections gathered from packets, their
//! CRC, the PAT and the PMT, and the codec that stream type and descriptors name.

use crate::Codec;
use crate::codec::jpegxs::VideoSupport;

/// Longest section of a PAT or PMT: 3 bytes and a length of at most 1021.
pub const MAX_PSI: usize = 1024;
/// Longest private section (2.4.4.11), splice information and service information among them.
pub const MAX_PRIVATE: usize = 4096;

/// Annex A: the CRC of MPEG-2 sections. Over a whole section, its CRC included, it is 0.
pub fn crc32(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let table = |n: usize, byte: u32| -> u32 {
        let place = (byte & 0xFF) as usize;
        CRC_TABLES
            .get(n)
            .and_then(|t| t.get(place))
            .copied()
            .unwrap_or(0)
    };
    let crc = words.iter().fold(u32::MAX, |crc, word| {
        let x = crc ^ u32::from_be_bytes(*word);
        table(3, x >> 24) ^ table(2, x >> 16) ^ table(1, x >> 8) ^ table(0, x)
    });
    rest.iter()
        .fold(crc, |crc, &b| crc << 8 ^ table(0, crc >> 24 ^ u32::from(b)))
}

/// The effect of a byte with 0 to 3 bytes behind it.
static CRC_TABLES: [[u32; 256]; 4] = crc_tables();

#[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn crc_tables() -> [[u32; 256]; 4] {
    let mut tables = [[0_u32; 256]; 4];
    let mut i = 0;
    while i < 256 {
        let mut value = (i as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 0x8000_0000 != 0 {
                value << 1 ^ 0x04C1_1DB7
            } else {
                value << 1
            };
            bit += 1;
        }
        tables[0][i] = value;
        i += 1;
    }
    let mut n = 1;
    while n < 4 {
        let mut i = 0;
        while i < 256 {
            let before = tables[n - 1][i];
            tables[n][i] = before << 8 ^ tables[0][(before >> 24) as usize];
            i += 1;
        }
        n += 1;
    }
    tables
}

/// Where a section lies in the payload that completed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Its first byte; `None` if that lay in a payload before.
    pub begin: Option<usize>,
    /// One past its last byte.
    pub end: usize,
}

/// Gathers the sections of one PID.
#[derive(Debug)]
pub struct Sections {
    buffer: Vec<u8>,
    /// Whether the bytes that come continue a section.
    active: bool,
    /// Where in the last payload the section in the making began.
    begin: Option<usize>,
    /// Longest section.
    most: usize,
    /// Shortest one: those of tables with a CRC have 12 bytes at least.
    least: usize,
}

impl Default for Sections {
    fn default() -> Self {
        Sections {
            buffer: Vec::new(),
            active: false,
            begin: None,
            most: MAX_PSI,
            least: 12,
        }
    }
}

impl Sections {
    /// For tables that may be longer than PAT and PMT, or shorter.
    pub fn private() -> Self {
        Sections {
            most: MAX_PRIVATE,
            least: 3,
            ..Sections::default()
        }
    }

    /// Bytes of the section in the making.
    #[cfg(test)]
    pub(super) const fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Packets were lost: the section in the making is given up.
    pub fn restart(&mut self) {
        self.buffer.clear();
        self.active = false;
    }

    /// Where in the last payload the section begins that it left unfinished; `None` if there is
    /// none, or it began in a payload before.
    pub const fn unfinished_from(&self) -> Option<usize> {
        if self.buffer.is_empty() {
            return None;
        }
        self.begin
    }

    /// A packet's payload; `each` gets whole sections, CRC not yet checked, and where they lie.
    /// Returns `false` if something broke the format.
    pub fn push(
        &mut self,
        payload: &[u8],
        unit_start: bool,
        mut each: impl FnMut(&[u8], Span),
    ) -> bool {
        self.begin = None;
        if !unit_start {
            return !self.active || self.gather(payload, 0, &mut each);
        }
        let Some((&pointer, rest)) = payload.split_first() else {
            return false;
        };
        let Some((before, after)) = rest.split_at_checked(usize::from(pointer)) else {
            self.restart();
            return false;
        };
        let mut good = !self.active || self.gather(before, 1, &mut each);
        // A section that does not end before the next one starts was cut.
        good &= self.buffer.is_empty();
        self.restart();
        self.active = true;
        good & self.gather(after, 1 + before.len(), &mut each)
    }

    fn gather(
        &mut self,
        mut bytes: &[u8],
        mut at: usize,
        each: &mut impl FnMut(&[u8], Span),
    ) -> bool {
        let mut good = true;
        while !bytes.is_empty() {
            if self.buffer.is_empty() && bytes.first() == Some(&0xFF) {
                self.active = false;
                return good;
            }
            let goal = match self.buffer.as_slice() {
                [_, b, c, ..] => 3 + (usize::from(b & 0x0F) << 8 | usize::from(*c)),
                _ => 3,
            };
            if goal > self.most {
                self.restart();
                return false;
            }
            if self.buffer.is_empty() {
                self.begin = Some(at);
            }
            let missing = goal - self.buffer.len();
            let (now, rest) = bytes.split_at(bytes.len().min(missing));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            at += now.len();
            if let [_, b, c, ..] = self.buffer.as_slice() {
                let goal = 3 + (usize::from(b & 0x0F) << 8 | usize::from(*c));
                if self.buffer.len() == goal {
                    if goal >= self.least {
                        let span = Span {
                            begin: self.begin,
                            end: at,
                        };
                        each(&self.buffer, span);
                    } else {
                        good = false;
                    }
                    self.buffer.clear();
                }
            }
        }
        good
    }
}

/// What is wrong with a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// Its CRC (TR 101 290, 2.2).
    Crc,
    /// It is not of the long form, which ends with a CRC.
    Syntax,
}

/// The header of a long section (2.4.4.11), CRC checked.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// `table_id`.
    pub table: u8,
    /// `table_id_extension`: transport stream id or program number.
    pub extension: u16,
    /// `current_next_indicator`.
    pub current: bool,
    /// `section_number`.
    pub number: u8,
    /// `last_section_number`.
    pub last: u8,
    /// What lies between header and CRC.
    pub body: &'a [u8],
    /// The CRC: tells one content from another, even where a restarted encoder begins with the
    /// same version number again.
    pub crc: u32,
}

impl<'a> Section<'a> {
    /// Checks syntax and CRC.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Broken> {
        let Some((&[table, flags, _, e0, e1, version, number, last], rest)) =
            bytes.split_first_chunk::<8>()
        else {
            return Err(Broken::Syntax);
        };
        if flags & 0x80 == 0 {
            return Err(Broken::Syntax);
        }
        let (body, &crc) = rest.split_last_chunk::<4>().ok_or(Broken::Syntax)?;
        if crc32(bytes) != 0 {
            return Err(Broken::Crc);
        }
        Ok(Section {
            table,
            extension: u16::from_be_bytes([e0, e1]),
            current: version & 1 != 0,
            number,
            last,
            body,
            crc: u32::from_be_bytes(crc),
        })
    }

    /// The programs of a PAT section: number and PMT PID. Program 0 is the network PID.
    pub fn programs(&self) -> impl Iterator<Item = (u16, u16)> + 'a {
        let (entries, _) = self.body.as_chunks::<4>();
        entries
            .iter()
            .map(|&[a, b, c, d]| {
                (
                    u16::from_be_bytes([a, b]),
                    u16::from_be_bytes([c, d]) & 0x1FFF,
                )
            })
            .filter(|&(number, _)| number != 0)
    }

    /// PCR PID and the streams of a PMT section.
    pub fn program_map(&self) -> Option<(u16, Streams<'a>)> {
        let (&[p0, p1, l0, l1], rest) = self.body.split_first_chunk::<4>()?;
        let info = usize::from(u16::from_be_bytes([l0, l1]) & 0x0FFF);
        let (program, streams) = rest.split_at_checked(info)?;
        let streams = Streams {
            rest: streams,
            blu_ray: registration(program) == Some(*b"HDMV"),
        };
        Some((u16::from_be_bytes([p0, p1]) & 0x1FFF, streams))
    }
}

/// The second loop of a PMT.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a> {
    rest: &'a [u8],
    /// The program is registered as Blu-ray, which has stream types of its own.
    blu_ray: bool,
}

/// An elementary stream's entry in a PMT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Where it is carried.
    pub pid: u16,
    /// `stream_type`.
    pub stream_type: u8,
    /// What type and descriptors name.
    pub codec: Codec,
    /// ISO 639 language, zeros if none.
    pub language: [u8; 3],
    /// Channels, where a descriptor tells them.
    pub channels: u8,
    /// What the JPEG XS descriptor tells.
    pub jpeg_xs: Option<VideoSupport>,
}

impl Iterator for Streams<'_> {
    type Item = StreamEntry;

    fn next(&mut self) -> Option<StreamEntry> {
        let (&[stream_type, p0, p1, l0, l1], rest) = self.rest.split_first_chunk::<5>()?;
        let info = usize::from(u16::from_be_bytes([l0, l1]) & 0x0FFF);
        let Some((info, rest)) = rest.split_at_checked(info) else {
            self.rest = &[];
            return None;
        };
        self.rest = rest;
        let blu_ray = self.blu_ray || registration(info) == Some(*b"HDMV");
        let mut entry = StreamEntry {
            pid: u16::from_be_bytes([p0, p1]) & 0x1FFF,
            stream_type,
            codec: codec_of(stream_type, blu_ray),
            language: [0; 3],
            channels: 0,
            jpeg_xs: None,
        };
        read_descriptors(info, &mut entry);
        Some(entry)
    }
}

/// Table 2-34 and its registered extensions.
const fn codec_of(stream_type: u8, blu_ray: bool) -> Codec {
    match stream_type {
        0x01 | 0x02 => Codec::Mpeg2Video,
        0x03 | 0x04 => Codec::MpegAudio,
        0x0A..=0x0D => Codec::DsmCc,
        0x0F => Codec::Aac,
        0x11 => Codec::AacLatm,
        0x14 => Codec::DsmCc,
        0x1B => Codec::H264,
        0x24 => Codec::H265,
        0x32 => Codec::JpegXs,
        0x81 => Codec::Ac3,
        0x82 | 0x8A => Codec::Dts,
        // DTS-HD High Resolution and Master Audio.
        0x85 | 0x86 if blu_ray => Codec::Dts,
        0x86 => Codec::Scte35,
        0x84 | 0xA1 if blu_ray => Codec::Eac3,
        0x87 => Codec::Eac3,
        _ => Codec::Unknown,
    }
}

/// Descriptors: tag and content.
fn descriptors(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
        let (data, rest) = rest.split_at_checked(usize::from(length))?;
        bytes = rest;
        Some((tag, data))
    })
}

/// The first registration descriptor's format (2.6.8).
fn registration(bytes: &[u8]) -> Option<[u8; 4]> {
    descriptors(bytes)
        .find(|&(tag, _)| tag == 0x05)
        .and_then(|(_, data)| data.first_chunk().copied())
}

fn read_descriptors(bytes: &[u8], entry: &mut StreamEntry) {
    for (tag, data) in descriptors(bytes) {
        match (tag, data) {
            // ISO 639 language; teletext, VBI teletext and subtitling begin with one as well.
            (0x0A | 0x46 | 0x56 | 0x59, [a, b, c, ..]) if entry.language == [0; 3] => {
                entry.language = [*a, *b, *c];
            }
            (0x3F, [0x14, body @ ..]) if matches!(entry.codec, Codec::Unknown | Codec::JpegXs) => {
                entry.jpeg_xs = VideoSupport::from_descriptor(body);
            }
            // Opus: extension descriptor 0x80, channel_config_code.
            (0x7F, [0x80, config, ..]) if entry.codec == Codec::Opus => {
                entry.channels = match config {
                    0 => 2,
                    1..=8 => *config,
                    _ => 0,
                };
            }
            _ => {}
        }
        if let Some(codec) = codec_named_by(tag, data, entry) {
            entry.codec = codec;
        }
    }
}

/// What a descriptor makes of a stream that is `entry` so far.
fn codec_named_by(tag: u8, data: &[u8], entry: &StreamEntry) -> Option<Codec> {
    let known = entry.codec != Codec::Unknown;
    // PES private data and metadata leave the codec to descriptors, whatever stood before.
    let private = matches!(entry.stream_type, 0x06 | 0x15);
    match (tag, data) {
        (0x05, format) if !known => registered(format),
        // AVC, HEVC and (as an extension) JPEG XS video descriptors.
        (0x28, _) if !known => Some(Codec::H264),
        (0x38, _) if !known => Some(Codec::H265),
        (0x3F, [0x14, ..]) if !known || entry.codec == Codec::JpegXs => Some(Codec::JpegXs),
        // DVB (ETSI EN 300 468, table 12): AC-3, enhanced AC-3, DTS, AAC.
        (0x6A, _) if private => Some(Codec::Ac3),
        (0x7A, _) if private => Some(Codec::Eac3),
        (0x7B, _) if private && !known => Some(Codec::Dts),
        (0x7C, _) if private && !known => Some(Codec::AacLatm),
        // VBI data, VBI teletext, teletext, subtitles. One PID may carry VBI data and teletext.
        (0x45, _) if private && !known => Some(Codec::Vbi),
        (0x46 | 0x56, _) if private && (!known || entry.codec == Codec::Vbi) => {
            Some(Codec::Teletext)
        }
        (0x59, _) if private && !known => Some(Codec::DvbSubtitles),
        // Extensions (table 109): DTS-HD, DTS Neural, AC-4, TTML, DTS-UHD.
        (0x7F, [0x0E | 0x0F | 0x21, ..]) if private && !known => Some(Codec::Dts),
        (0x7F, [0x15, ..]) if private && !known => Some(Codec::Ac4),
        (0x7F, [0x20, ..]) if private && !known => Some(Codec::Ttml),
        // Private sections: application signalling.
        (0x6F, _) if entry.stream_type == 0x05 => Some(Codec::Ait),
        (0x26, metadata) => match metadata_format(metadata)? {
            b"KLVA" => Some(Codec::Klv),
            b"ID3 " => Some(Codec::Id3),
            _ => None,
        },
        _ => None,
    }
}

/// metadata_descriptor (2.6.60): the four characters of a format 0xFF, behind those of an
/// application format 0xFFFF.
fn metadata_format(data: &[u8]) -> Option<&[u8; 4]> {
    let (application, rest) = data.split_first_chunk::<2>()?;
    let rest = match application {
        [0xFF, 0xFF] => rest.get(4..)?,
        _ => rest,
    };
    let (&format, rest) = rest.split_first()?;
    rest.first_chunk().filter(|_| format == 0xFF)
}

/// Formats that are registered (2.6.8).
fn registered(format: &[u8]) -> Option<Codec> {
    Some(match format.get(..4)? {
        b"AC-3" => Codec::Ac3,
        b"EAC3" => Codec::Eac3,
        b"AC-4" => Codec::Ac4,
        b"DTS1" | b"DTS2" | b"DTS3" => Codec::Dts,
        b"BSSD" => Codec::S302m,
        b"Opus" => Codec::Opus,
        b"AV01" => Codec::Av1,
        b"HEVC" => Codec::H265,
        b"KLVA" => Codec::Klv,
        b"ID3 " => Codec::Id3,
        b"VANC" => Codec::Ancillary,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_follows_the_vectors() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!(
            "../../../../tests/vectors/ts_and_bitstream.json"
        ))
        .unwrap();
        for v in vectors["crc32_mpeg"].as_array().unwrap() {
            let bytes = crate::tests::hex(v["hex"].as_str().unwrap());
            let crc = u32::from_str_radix(v["crc"].as_str().unwrap(), 16).unwrap();
            assert_eq!(crc32(&bytes), crc);
        }
    }

    #[test]
    fn sections_span_packets_and_follow_each_other() {
        let section = crate::tests::hex("00b00d0001c100000001f0002ab104b2");
        let mut twice = vec![0];
        twice.extend_from_slice(&section);
        twice.extend_from_slice(&section[..5]);
        let mut sections = Sections::default();
        let mut seen = Vec::new();
        assert!(sections.push(&twice, true, |s, _| seen.push(s.to_vec())));
        let mut rest = section[5..].to_vec();
        rest.extend([0xFF; 20]);
        assert!(sections.push(&rest, false, |s, _| seen.push(s.to_vec())));
        assert_eq!(seen, [section.clone(), section.clone()]);
        let mut broken = section.clone();
        broken[9] ^= 1;
        assert_eq!(Section::parse(&broken).unwrap_err(), Broken::Crc);
        let parsed = Section::parse(&section).unwrap();
        assert_eq!(parsed.programs().collect::<Vec<_>>(), [(1, 0x1000)]);
    }

    #[test]
    fn descriptors_tell_what_private_data_is() {
        let entry = |kind: u8, info: &[u8]| {
            let mut body = vec![0xE1, 0, 0xF0, 0, kind, 0xE1, 0x01, 0xF0, info.len() as u8];
            body.extend(info);
            let section = Section {
                table: 2,
                extension: 1,
                current: true,
                number: 0,
                last: 0,
                body: &body,
                crc: 0,
            };
            let entry = section.program_map().unwrap().1.next().unwrap();
            (entry.codec, entry.channels)
        };
        for (kind, info, codec, channels) in [
            (0x06, &b"\x05\x04AC-3"[..], Codec::Ac3, 0),
            (0x06, b"\x05\x04EAC3", Codec::Eac3, 0),
            (0x06, b"\x05\x04Opus\x7F\x02\x80\x06", Codec::Opus, 6),
            (0x06, b"\x05\x04AV01\x80\x04\x81\0\0\0", Codec::Av1, 0),
            (0x06, b"\x05\x04KLVA", Codec::Klv, 0),
            (0x06, b"\x6A\x01\0", Codec::Ac3, 0),
            (0x06, b"\x7A\x01\0", Codec::Eac3, 0),
            (0x06, b"\x7C\x02\x51\0", Codec::AacLatm, 0),
            (0x06, b"\x3F\x01\x14", Codec::JpegXs, 0),
            (0x15, b"\x26\x09\x01\0\xFFKLVA\0\x0F", Codec::Klv, 0),
            (0x86, b"\x8A\x01\x01", Codec::Scte35, 0),
            (0x86, b"\x05\x04HDMV", Codec::Dts, 0),
            (0x06, b"\x7B\x05\0\0\0\0\0", Codec::Dts, 0),
            (0x06, b"\x05\x04DTS1", Codec::Dts, 0),
            (0x06, b"\x7F\x01\x21", Codec::Dts, 0),
            (0x06, b"\x7F\x03\x15\0\0", Codec::Ac4, 0),
            (0x06, b"\x05\x06BSSD\0\0", Codec::S302m, 0),
            (0x06, b"\x05\x04VANC", Codec::Ancillary, 0),
            (0x06, b"\x7F\x01\x20", Codec::Ttml, 0),
            (0x06, b"\x45\x03\x01\x01\xE7", Codec::Vbi, 0),
            (0x06, b"\x56\x05deu\x09\0\x45\x01\x01", Codec::Teletext, 0),
            (0x06, b"\x45\x01\x01\x46\x05deu\x09\0", Codec::Teletext, 0),
            (0x06, b"\x59\x08eng\x10\0\0\0\0", Codec::DvbSubtitles, 0),
            // What says how the programme is meant names no codec.
            (0x06, b"\x7F\x02\x06\x80", Codec::Unknown, 0),
            (0x06, b"\x52\x01\x20", Codec::Unknown, 0),
            (0x05, b"\x6F\x03\0\x10\xE0", Codec::Ait, 0),
            (0x05, b"", Codec::Unknown, 0),
            (0x0B, b"\x52\x01\x0B", Codec::DsmCc, 0),
            (0x15, b"\x26\x0D\xFF\xFFID3 \xFFID3 \0\x0F", Codec::Id3, 0),
            (0x15, b"\x26\x09\x01\0\xFFID3 \0\x0F", Codec::Id3, 0),
            // Of MPEG video it stays one, whatever a descriptor of private data says.
            (0x1B, b"\x59\x08eng\x10\0\0\0\0", Codec::H264, 0),
        ] {
            assert_eq!(entry(kind, info), (codec, channels), "{kind:#x} {info:?}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [[0xB0, 0], [0xBF, 0xFF], [0xB0, 5]] {
            let mut sections = Sections::default();
            let mut payload = vec![0, 0x02, length[0], length[1]];
            payload.extend([0; 180]);
            assert!(!sections.push(&payload, true, |_, _| panic!("no section")));
            assert!(sections.buffer.len() <= MAX_PSI);
        }
        assert!(!Sections::default().push(&[200, 1, 2], true, |_, _| panic!("no section")));
        assert!(!Sections::default().push(&[], true, |_, _| panic!("no section")));
    }
}
