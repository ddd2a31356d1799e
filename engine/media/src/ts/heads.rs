//! Where a frame of audio or a KLV unit begins and how long it is, from its first bytes, and how
//! long it sounds. Called by [`super::frames`], which cuts PES payloads into frames.

use super::klv;
use crate::Codec;
use crate::codec::audio::{self, AudioInfo, latm, opus};

/// Bytes that are enough to know any frame.
pub(super) const HEAD: usize = 32;

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
        Codec::Aac => of(bytes, 7, audio::adts),
        Codec::MpegAudio => of(bytes, 4, audio::mpeg_audio),
        Codec::Ac3 | Codec::Eac3 => ac3(bytes),
        Codec::AacLatm => latm(bytes),
        Codec::Opus => opus(bytes),
        Codec::Klv => match klv::unit_bytes(bytes) {
            Ok(None) => Head::More,
            Ok(Some(bytes)) => Head::Frame(Frame {
                bytes,
                ..Frame::default()
            }),
            Err(klv::NotKlv) => Head::No,
        },
        _ => Head::No,
    }
}

fn of(bytes: &[u8], least: usize, parse: fn(&[u8]) -> Option<AudioInfo>) -> Head {
    if bytes.len() < least {
        return Head::More;
    }
    match parse(bytes).filter(|info| info.frame_bytes >= least) {
        Some(info) => Head::Frame(Frame {
            bytes: info.frame_bytes,
            samples: info.samples,
            rate: info.sample_rate,
            info: Some(info),
            ..Frame::default()
        }),
        None => Head::No,
    }
}

fn ac3(bytes: &[u8]) -> Head {
    let mut head = of(bytes, 8, audio::ac3);
    if let Head::Frame(frame) = &mut head {
        frame.continues = audio::ac3::sync_frame(bytes).is_some_and(|f| f.continues);
    }
    head
}

/// AudioSyncStream (ISO 14496-3, 1.7.2).
fn latm(bytes: &[u8]) -> Head {
    if bytes.get(1).is_some_and(|second| second & 0xE0 != 0xE0) {
        return Head::No;
    }
    let Some((_, body)) = bytes.split_first_chunk::<3>() else {
        return Head::More;
    };
    let Some(length) = latm::loas(bytes) else {
        return Head::No;
    };
    if bytes.len() < length.min(HEAD) {
        return Head::More;
    }
    // A frame may use the configuration of the one before.
    let config = latm::element_config(body);
    Head::Frame(Frame {
        bytes: length,
        samples: config.map_or(0, |c| c.samples()),
        rate: config.map_or(0, |c| c.audio.sample_rate),
        info: config.map(|c| c.audio.info()),
        ..Frame::default()
    })
}

/// The control header before each packet (Opus in MPEG-TS, 4.3), and the packet's first bytes.
fn opus(bytes: &[u8]) -> Head {
    // Reserved bits are 0, which tells it from DTS (7F FE 80 01).
    if bytes.get(1).is_some_and(|flags| flags & 0xE3 != 0xE0) {
        return Head::No;
    }
    let Some(header) = opus::control_header(bytes) else {
        return if bytes.len() < HEAD {
            Head::More
        } else {
            Head::No
        };
    };
    let size = header.packet_bytes;
    if size == 0 || header.bytes + 2 > HEAD {
        return Head::No;
    }
    let packet = bytes.get(header.bytes..).unwrap_or_default();
    if packet.len() < size.min(2) {
        return Head::More;
    }
    match opus::head(packet) {
        Some(info) => Head::Frame(Frame {
            skip: header.bytes,
            bytes: header.bytes + size,
            samples: info.samples,
            rate: info.sample_rate,
            continues: false,
            info: Some(info),
        }),
        None => Head::No,
    }
}

/// What the beginning of a PES packet's payload shows of its codec, and whether that is certain.
pub(super) fn codec_of(data: &[u8]) -> Option<(Codec, bool)> {
    let certain = |codec| Some((codec, true));
    match data {
        // A temporal delimiter and a sequence header, with start codes and without.
        [0, 0, 1, 0x12, 0, 0, 0, 1, 0x0A, ..] | [0x12, 0, 0x0A, ..] => certain(Codec::Av1),
        [0, 0, 1, a, b, ..] | [0, 0, 0, 1, a, b, ..] => nal_codec(*a, *b).and_then(certain),
        [0x06, 0x0E, 0x2B, 0x34, ..] => certain(Codec::Klv),
        [_, _, _, _, b'j', b'x', b'e', b's', ..] => certain(Codec::JpegXs),
        [0x0B, 0x77, _, _, _, b5, ..] => {
            audio::ac3(data)?;
            certain(if b5 >> 3 > 10 {
                Codec::Eac3
            } else {
                Codec::Ac3
            })
        }
        [0x56 | 0x7F | 0xFF, ..] => {
            let kinds = [Codec::AacLatm, Codec::Opus, Codec::Aac, Codec::MpegAudio];
            kinds
                .into_iter()
                .find_map(|codec| Some((codec, frames(codec, data)?)))
        }
        _ => None,
    }
}

/// Whether a frame begins `data`: `None` if not, `true` if another one follows it there.
fn frames(codec: Codec, data: &[u8]) -> Option<bool> {
    let at = |from: usize| match data.get(from..).unwrap_or_default() {
        [] => Head::More,
        rest => head(codec, rest.get(..HEAD).unwrap_or(rest)),
    };
    let Head::Frame(frame) = at(0) else {
        return None;
    };
    match at(frame.bytes) {
        Head::Frame(_) => Some(true),
        Head::More => (frame.bytes > 8).then_some(false),
        Head::No => None,
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
        let mut loas = vec![0x56, 0xE0, 0x50, 0x20, 0x00, 0x11, 0x88];
        loas.resize(HEAD, 0);
        let loas = frame(Codec::AacLatm, &loas);
        assert_eq!((loas.bytes, loas.rate, loas.samples), (83, 48_000, 1024));
    }

    #[test]
    fn the_first_bytes_tell_codecs_apart() {
        let of = |hex: &str| codec_of(&crate::tests::hex(hex)).map(|found| found.0);
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
        // DTS is not Opus.
        assert_eq!(of("7ffe80010000000000000000"), None);
        assert_eq!(of("ffffffffffffffff"), None);
        assert_eq!(of(""), None);
    }
}
