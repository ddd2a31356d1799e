//! Program specific information (ISO 13818-1, 2.4.4): sections gathered from packets, their
//! CRC, the PAT and the PMT, and the codec that stream type and descriptors name.

use crate::Codec;

/// Longest section of a PAT or PMT: 3 bytes and a length of at most 1021.
const MAX_SECTION: usize = 1024;

/// Annex A: the CRC of MPEG-2 sections. Over a whole section, its CRC included, it is 0.
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &b| {
        let index = (crc >> 24) as u8 ^ b;
        crc << 8 ^ CRC_TABLE.get(usize::from(index)).copied().unwrap_or(0)
    })
}

static CRC_TABLE: [u32; 256] = crc_table();

#[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
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
        table[i] = value;
        i += 1;
    }
    table
}

/// Gathers the sections of one PID.
#[derive(Debug, Default)]
pub struct Sections {
    buffer: Vec<u8>,
    /// Whether the bytes that come continue a section.
    active: bool,
}

impl Sections {
    /// Packets were lost: the section in the making is given up.
    pub fn restart(&mut self) {
        self.buffer.clear();
        self.active = false;
    }

    /// A packet's payload; `each` gets whole sections, CRC not yet checked. Returns `false` if
    /// something broke the format.
    pub fn push(&mut self, payload: &[u8], unit_start: bool, mut each: impl FnMut(&[u8])) -> bool {
        if !unit_start {
            return !self.active || self.gather(payload, &mut each);
        }
        let Some((&pointer, rest)) = payload.split_first() else {
            return false;
        };
        let Some((before, after)) = rest.split_at_checked(usize::from(pointer)) else {
            self.restart();
            return false;
        };
        let mut good = !self.active || self.gather(before, &mut each);
        // A section that does not end before the next one starts was cut.
        good &= self.buffer.is_empty();
        self.restart();
        self.active = true;
        good & self.gather(after, &mut each)
    }

    fn gather(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> bool {
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
            if goal > MAX_SECTION {
                self.restart();
                return false;
            }
            let missing = goal - self.buffer.len();
            let (now, rest) = bytes.split_at(bytes.len().min(missing));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if let [_, b, c, ..] = self.buffer.as_slice() {
                let goal = 3 + (usize::from(b & 0x0F) << 8 | usize::from(*c));
                if self.buffer.len() == goal {
                    // The shortest section with a CRC has 12 bytes.
                    if goal >= 12 {
                        each(&self.buffer);
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
    /// `None` if the CRC is wrong or the syntax indicator is not set.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if crc32(bytes) != 0 {
            return None;
        }
        let (&[table, flags, _, e0, e1, version, number, last], rest) =
            bytes.split_first_chunk::<8>()?;
        let (body, &crc) = rest.split_last_chunk::<4>()?;
        (flags & 0x80 != 0).then_some(Section {
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
        let (_, streams) = rest.split_at_checked(info)?;
        Some((u16::from_be_bytes([p0, p1]) & 0x1FFF, Streams(streams)))
    }
}

/// The second loop of a PMT.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a>(&'a [u8]);

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
}

impl Iterator for Streams<'_> {
    type Item = StreamEntry;

    fn next(&mut self) -> Option<StreamEntry> {
        let (&[stream_type, p0, p1, l0, l1], rest) = self.0.split_first_chunk::<5>()?;
        let info = usize::from(u16::from_be_bytes([l0, l1]) & 0x0FFF);
        let Some((descriptors, rest)) = rest.split_at_checked(info) else {
            self.0 = &[];
            return None;
        };
        self.0 = rest;
        let mut entry = StreamEntry {
            pid: u16::from_be_bytes([p0, p1]) & 0x1FFF,
            stream_type,
            codec: codec_of(stream_type),
            language: [0; 3],
            channels: 0,
        };
        read_descriptors(descriptors, &mut entry);
        Some(entry)
    }
}

/// Table 2-34 and its registered extensions.
const fn codec_of(stream_type: u8) -> Codec {
    match stream_type {
        0x01 | 0x02 => Codec::Mpeg2Video,
        0x03 | 0x04 => Codec::MpegAudio,
        0x0F => Codec::Aac,
        0x11 => Codec::AacLatm,
        0x1B => Codec::H264,
        0x24 => Codec::H265,
        0x32 => Codec::JpegXs,
        0x81 => Codec::Ac3,
        0x87 => Codec::Eac3,
        0x86 => Codec::Scte35,
        _ => Codec::Unknown,
    }
}

fn read_descriptors(mut bytes: &[u8], entry: &mut StreamEntry) {
    // Stream types that leave the codec to descriptors: PES private data and metadata.
    let private = matches!(entry.stream_type, 0x06 | 0x15);
    while let Some((&[tag, length], rest)) = bytes.split_first_chunk::<2>() {
        let Some((data, rest)) = rest.split_at_checked(usize::from(length)) else {
            return;
        };
        bytes = rest;
        let known = entry.codec != Codec::Unknown;
        match (tag, data) {
            (0x0A, [a, b, c, ..]) => entry.language = [*a, *b, *c],
            (0x05, [b'H', b'D', b'M', b'V', ..]) if entry.stream_type == 0x86 => {
                entry.codec = Codec::Unknown
            }
            (0x05, format) if private && !known => {
                entry.codec = match format.get(..4) {
                    Some(b"AC-3") => Codec::Ac3,
                    Some(b"EAC3") => Codec::Eac3,
                    Some(b"Opus") => Codec::Opus,
                    Some(b"AV01") => Codec::Av1,
                    Some(b"KLVA") => Codec::Klv,
                    Some(b"HEVC") => Codec::H265,
                    _ => Codec::Unknown,
                };
            }
            (0x6A, _) if private => entry.codec = Codec::Ac3,
            (0x7A, _) if private => entry.codec = Codec::Eac3,
            (0x7C, _) if private && !known => entry.codec = Codec::AacLatm,
            // metadata_descriptor with format 0xFF: four characters name it.
            (0x26, [_, _, 0xFF, b'K', b'L', b'V', b'A', ..]) => entry.codec = Codec::Klv,
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
    }
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
        assert!(sections.push(&twice, true, |s| seen.push(s.to_vec())));
        let mut rest = section[5..].to_vec();
        rest.extend([0xFF; 20]);
        assert!(sections.push(&rest, false, |s| seen.push(s.to_vec())));
        assert_eq!(seen, [section.clone(), section.clone()]);
        let parsed = Section::parse(&section).unwrap();
        assert_eq!(parsed.programs().collect::<Vec<_>>(), [(1, 0x1000)]);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [[0xB0, 0], [0xBF, 0xFF], [0xB0, 5]] {
            let mut sections = Sections::default();
            let mut payload = vec![0, 0x02, length[0], length[1]];
            payload.extend([0; 180]);
            assert!(!sections.push(&payload, true, |_| panic!("no section")));
            assert!(sections.buffer.len() <= MAX_SECTION);
        }
        assert!(!Sections::default().push(&[200, 1, 2], true, |_| panic!("no section")));
        assert!(!Sections::default().push(&[], true, |_| panic!("no section")));
    }
}
