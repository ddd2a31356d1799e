//! Where a frame of audio or a KLV unit begins and how long it is, from its first bytes, and how
//! long it sounds. Called by [`super::frames`], which cuts PES payloads into frames.

use super::klv;
use crate::Codec;
use crate::codec::audio::{self, AudioInfo};

/// Bytes that are enough to know any frame.
pub(super) const HEAD: usize = 32;
/// Bytes of a LOAS frame in which its configuration is looked for.
const LATM_HEAD: usize = 14;

/// A frame, by its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Frame {
    /// Bytes before what a decoder wants (Opus control header).
    pub(super) skip: usize,
    /// All its bytes.
    pub(super) bytes: usize,
    /// Samples that it sounds for, at `rate` a second; 0: as the one before, or no audio.
    pub(super) samples: u32,
    pub(super) rate: u32,
    /// It belongs to the frame before (dependent substreams of E-AC-3).
    pub(super) continues: bool,
    /// For the track.
    pub(super) info: Option<AudioInfo>,
}

/// What some bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Too few to tell.
    More,
    /// No frame begins with them.
    No,
    Frame(Frame),
}

/// The byte that a frame begins with.
pub(super) const fn first_byte(codec: Codec) -> u8 {
    match codec {
        Codec::AacLatm => 0x56,
        Codec::Ac3 | Codec::Eac3 => 0x0B,
        Codec::Opus => 0x7F,
        Codec::Klv => 0x06,
        _ => 0xFF,
    }
}

/// What `bytes`, at most [`HEAD`] of them, begin with.
pub(super) fn head(codec: Codec, bytes: &[u8]) -> Head {
    if bytes.first().is_some_and(|&b| b != first_byte(codec)) {
        return Head::No;
    }
    match codec {
        Codec::Aac => of(bytes, 7, audio::adts, |b, _| {
            1024 * (1 + u32::from(b.get(6).unwrap_or(&0) & 3))
        }),
        Codec::MpegAudio => of(bytes, 4, audio::mpeg_audio, mpeg_samples),
        Codec::Ac3 | Codec::Eac3 => ac3(bytes),
        Codec::AacLatm => latm(bytes),
        Codec::Opus => opus(bytes),
        Codec::Klv => match klv::unit_bytes(bytes) {
            Ok(None) => Head::More,
            Ok(Some(bytes)) => Head::Frame(Frame {
                bytes,
                ..Frame::default()
            }),
            Err(()) => Head::No,
        },
        _ => Head::No,
    }
}

fn of(
    bytes: &[u8],
    least: usize,
    parse: fn(&[u8]) -> Option<AudioInfo>,
    samples: fn(&[u8], &AudioInfo) -> u32,
) -> Head {
    if bytes.len() < least {
        return Head::More;
    }
    match parse(bytes).filter(|info| info.frame_bytes >= least) {
        Some(info) => Head::Frame(Frame {
            bytes: info.frame_bytes,
            samples: samples(bytes, &info),
            rate: info.sample_rate,
            info: Some(info),
            ..Frame::default()
        }),
        None => Head::No,
    }
}

/// ISO 11172-3, 2.4.2.1; ISO 13818-3, 2.4.2.1.
fn mpeg_samples(bytes: &[u8], _: &AudioInfo) -> u32 {
    let second = bytes.get(1).copied().unwrap_or(0);
    match (second >> 3 & 3, second >> 1 & 3) {
        (_, 3) => 384,
        (0 | 2, 1) => 576,
        _ => 1152,
    }
}

/// ETSI TS 102 366, 4.4 and E.1.3.1.
fn ac3(bytes: &[u8]) -> Head {
    let samples = |b: &[u8], _: &AudioInfo| match b {
        [_, _, _, _, b4, b5, ..] if b5 >> 3 > 10 && b4 >> 6 != 3 => {
            256 * [1, 2, 3, 6]
                .get(usize::from(b4 >> 4 & 3))
                .copied()
                .unwrap_or(6)
        }
        _ => 1536,
    };
    let mut head = of(bytes, 8, audio::ac3, samples);
    if let (Head::Frame(frame), [_, _, b2, _, _, b5, ..]) = (&mut head, bytes)
        && b5 >> 3 > 10
    {
        // strmtyp 1: dependent; an independent substream other than 0 is another programme's
        // part of the same frame.
        frame.continues = b2 >> 6 == 1 || b2 >> 3 & 7 != 0;
    }
    head
}

/// AudioSyncStream (ISO 14496-3, 1.7.2).
fn latm(bytes: &[u8]) -> Head {
    let [_, second, rest @ ..] = bytes else {
        return Head::More;
    };
    if second & 0xE0 != 0xE0 {
        return Head::No;
    }
    let Some((&third, body)) = rest.split_first() else {
        return Head::More;
    };
    let length = 3 + (usize::from(second & 0x1F) << 8 | usize::from(third));
    if bytes.len() < length.min(LATM_HEAD) {
        return Head::More;
    }
    let info = latm_config(body);
    let config = info.unwrap_or_default();
    Head::Frame(Frame {
        bytes: length,
        samples: config.samples,
        rate: config.info.sample_rate,
        info: info.map(|c| c.info),
        ..Frame::default()
    })
}

#[derive(Clone, Copy, Default)]
struct LatmConfig {
    info: AudioInfo,
    samples: u32,
}

/// The first bits of something, most significant first.
struct Bits {
    value: u64,
    left: u32,
}

impl Bits {
    fn take(&mut self, n: u32) -> u32 {
        self.left = self.left.saturating_sub(n);
        (self.value >> self.left & ((1 << n) - 1)) as u32
    }
}

/// StreamMuxConfig with one program and one layer (1.7.3), as far as the audio's format;
/// `None` where the frame uses the one before.
fn latm_config(body: &[u8]) -> Option<LatmConfig> {
    const RATES: [u32; 13] = [
        96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
    ];
    let mut bits = Bits {
        value: u64::from_be_bytes(*body.first_chunk()?),
        left: 64,
    };
    // useSameStreamMux, audioMuxVersion: nothing here, or another layout.
    if bits.take(2) != 0 {
        return None;
    }
    let _all_same = bits.take(1);
    let sub_frames = bits.take(6);
    let _programs_and_layers = bits.take(7);
    let kind = bits.take(5);
    let sample_rate = match bits.take(4) {
        15 => bits.take(24),
        index => *RATES.get(index as usize)?,
    };
    let channels = match bits.take(4) {
        7 => 8,
        n => n as u8,
    };
    let short = matches!(kind, 1..=4) && bits.take(1) != 0;
    Some(LatmConfig {
        info: AudioInfo {
            sample_rate,
            channels,
            profile: match kind {
                1 => "Main",
                2 => "LC",
                3 => "SSR",
                4 => "LTP",
                5 => "HE-AAC",
                29 => "HE-AACv2",
                _ => "",
            },
            frame_bytes: 0,
        },
        samples: if short { 960 } else { 1024 } * (sub_frames + 1),
    })
}

/// The control header before each packet (Opus in MPEG-TS, 4.3) and the packet's TOC byte
/// (RFC 6716, 3.1).
fn opus(bytes: &[u8]) -> Head {
    let [_, flags, sizes @ ..] = bytes else {
        return Head::More;
    };
    if flags & 0xE0 != 0xE0 {
        return Head::No;
    }
    let full = sizes.iter().take_while(|&&b| b == 0xFF).count();
    let Some(&last) = sizes.get(full) else {
        return if bytes.len() < HEAD {
            Head::More
        } else {
            Head::No
        };
    };
    let size = full * 255 + usize::from(last);
    let mut skip = 3 + full;
    skip += 2 * usize::from(flags & 0x10 != 0) + 2 * usize::from(flags & 0x08 != 0);
    if flags & 0x04 != 0 {
        match bytes.get(skip) {
            Some(&extension) => skip += 1 + usize::from(extension),
            None => return Head::More,
        }
    }
    if size == 0 || skip + 2 > HEAD {
        return Head::No;
    }
    let Some(packet) = bytes.get(skip..).filter(|p| p.len() >= size.min(2)) else {
        return Head::More;
    };
    let toc = packet.first().copied().unwrap_or(0);
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).copied().unwrap_or(1) & 0x3F),
    };
    let place = usize::from(toc >> 3);
    let one = match place {
        0..12 => [480, 960, 1920, 2880].get(place % 4),
        12..16 => [480, 960].get(place % 2),
        _ => [120, 240, 480, 960].get(place % 4),
    };
    Head::Frame(Frame {
        skip,
        bytes: skip + size,
        samples: one.copied().unwrap_or(960) * count,
        rate: 48_000,
        continues: false,
        info: Some(AudioInfo {
            sample_rate: 48_000,
            channels: if toc & 4 != 0 { 2 } else { 1 },
            profile: "",
            frame_bytes: size,
        }),
    })
}

/// What the beginning of a PES packet's payload shows of its codec, where that is certain.
pub(super) fn codec_of(data: &[u8]) -> Option<Codec> {
    match data {
        // A temporal delimiter and a sequence header, with start codes and without.
        [0, 0, 1, 0x12, 0, 0, 0, 1, 0x0A, ..] | [0x12, 0, 0x0A, ..] => Some(Codec::Av1),
        [0, 0, 1, a, b, ..] | [0, 0, 0, 1, a, b, ..] => nal_codec(*a, *b),
        [0x06, 0x0E, 0x2B, 0x34, ..] => Some(Codec::Klv),
        [_, _, _, _, b'j', b'x', b'e', b's', ..] => Some(Codec::JpegXs),
        [0x0B, 0x77, _, _, _, b5, ..] => {
            audio::ac3(data)?;
            Some(if b5 >> 3 > 10 {
                Codec::Eac3
            } else {
                Codec::Ac3
            })
        }
        [0x56 | 0x7F | 0xFF, ..] => {
            let kinds = [Codec::AacLatm, Codec::Opus, Codec::Aac, Codec::MpegAudio];
            kinds.into_iter().find(|&codec| repeats(codec, data))
        }
        _ => None,
    }
}

/// Whether a frame begins `data`, and another one follows it there.
fn repeats(codec: Codec, data: &[u8]) -> bool {
    let at = |from: usize| match data.get(from..).unwrap_or_default() {
        [] => Head::More,
        rest => head(codec, rest.get(..HEAD).unwrap_or(rest)),
    };
    let Head::Frame(frame) = at(0) else {
        return false;
    };
    match at(frame.bytes) {
        Head::Frame(_) => true,
        Head::More => frame.bytes > 8,
        Head::No => false,
    }
}

/// First and second byte of a NAL unit (or of what follows a start code in MPEG-2 video) that
/// only one codec has: delimiters and parameter sets.
const fn nal_codec(a: u8, b: u8) -> Option<Codec> {
    match (a, b) {
        (0xB3, _) => Some(Codec::Mpeg2Video),
        // 7.4.1: delimiters are unreferenced, parameter sets are not.
        (0x09, _) if b & 0x1F == 0x10 => Some(Codec::H264),
        (0x67 | 0x27 | 0x47, 66 | 77 | 88 | 100 | 110 | 122 | 244 | 44) => Some(Codec::H264),
        // VPS, SPS, delimiter of the base layer, temporal id 0.
        (0x40 | 0x42 | 0x46, 0x01) => Some(Codec::H265),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(codec: Codec, bytes: &[u8]) -> Frame {
        for n in 0..bytes.len() {
            if let Head::Frame(found) = head(codec, &bytes[..n]) {
                return found;
            }
        }
        match head(codec, bytes) {
            Head::Frame(found) => found,
            other => panic!("{codec:?}: {other:?}"),
        }
    }

    #[test]
    fn frames_are_as_long_as_their_headers_say() {
        // ADTS, LC, 48 kHz, mono, 162 bytes.
        let aac = frame(Codec::Aac, &[0xFF, 0xF1, 0x4C, 0x40, 0x14, 0x5F, 0xFC]);
        assert_eq!((aac.bytes, aac.samples, aac.rate), (162, 1024, 48_000));
        // Layer II, 64 kb/s, 48 kHz.
        let mp2 = frame(Codec::MpegAudio, &[0xFF, 0xFD, 0x44, 0xC4]);
        assert_eq!((mp2.bytes, mp2.samples), (192, 1152));
        // AC-3, 64 kb/s, 48 kHz.
        let ac3 = frame(Codec::Ac3, &[0x0B, 0x77, 0, 0, 0x08, 0x40, 0x43, 0xE1]);
        assert_eq!((ac3.bytes, ac3.samples, ac3.continues), (256, 1536, false));
        // E-AC-3, a dependent substream.
        let eac3 = frame(Codec::Eac3, &[0x0B, 0x77, 0x40, 0x7F, 0x34, 0x87, 0, 0]);
        assert_eq!(
            (eac3.bytes, eac3.samples, eac3.continues),
            (256, 1536, true)
        );
        // Opus: 300 bytes, CELT 20 ms, start trim.
        let opus = frame(Codec::Opus, &[0x7F, 0xF0, 0xFF, 45, 0, 1, 0xFC, 0]);
        assert_eq!((opus.skip, opus.bytes, opus.samples), (6, 306, 960));
        let loas = frame(
            Codec::AacLatm,
            &[
                0x56, 0xE0, 0x50, 0x20, 0x00, 0x11, 0x88, 0, 0, 0, 0, 0, 0, 0,
            ],
        );
        assert_eq!((loas.bytes, loas.rate, loas.samples), (83, 48_000, 1024));
    }

    #[test]
    fn the_first_bytes_tell_codecs_apart() {
        let of = |hex: &str| codec_of(&crate::tests::hex(hex));
        assert_eq!(of("0000000109f0"), Some(Codec::H264));
        assert_eq!(of("000000014601"), Some(Codec::H265));
        assert_eq!(of("0000014001"), Some(Codec::H265));
        assert_eq!(of("000001676400"), Some(Codec::H264));
        assert_eq!(of("000001b30b00"), Some(Codec::Mpeg2Video));
        // Slices are of either.
        assert_eq!(of("0000014101"), None);
        assert_eq!(of("0000001e6a786573"), Some(Codec::JpegXs));
        assert_eq!(of("060e2b34020b0101"), Some(Codec::Klv));
        assert_eq!(
            of("0b77000008404 3e1".replace(' ', "").as_str()),
            Some(Codec::Ac3)
        );
        assert_eq!(of("fff14c40145ffc00"), Some(Codec::Aac));
        assert_eq!(of("ffffffffffffffff"), None);
        assert_eq!(of(""), None);
    }
}
