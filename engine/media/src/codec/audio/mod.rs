//! Audio: frame headers and configurations as far as a track's facts and the frames' limits need
//! them. Called by the MPEG-TS demultiplexer on PES payloads and by the RTP depacketisers.
//!
//! ```text
//! adts   ADTS headers (ISO 13818-7, 6.2)
//! aac    AudioSpecificConfig (ISO 14496-3, 1.6)
//! latm   StreamMuxConfig, AudioMuxElement and LOAS (ISO 14496-3, 1.7)
//! ac3    AC-3 and E-AC-3 sync frames (ETSI TS 102 366, 4.3 and E.1.2)
//! mpeg   MPEG-1/2/2.5 audio headers (ISO 11172-3, 2.4.2.3; ISO 13818-3)
//! opus   packets (RFC 6716, 3) and their control header in MPEG-TS
//! ```

pub mod aac;
pub mod ac3;
pub mod adts;
pub(crate) mod bits;
pub mod latm;
pub mod mpeg;
pub mod opus;

pub use ac3::ac3;
pub use adts::adts;
pub use mpeg::mpeg_audio;

/// What a frame header tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AudioInfo {
    /// Samples a second, as they are heard.
    pub sample_rate: u32,
    /// Channels, the LFE channel included; 0 when the header does not say.
    pub channels: u8,
    /// Profile's name, where there is one.
    pub profile: &'static str,
    /// Bytes of the frame, header included.
    pub frame_bytes: usize,
    /// Samples of each channel that it sounds for, at `sample_rate`.
    pub samples: u32,
}

/// Sample rates outside of this are no audio, but a broken or hostile configuration.
pub(crate) const RATES: core::ops::RangeInclusive<u32> = 4_000..=384_000;

/// Where in `data` the first frame begins, and what its header says: at its beginning, or behind
/// garbage where another frame (or the end of `data`) follows it as the header says.
pub fn find_frame(
    data: &[u8],
    parse: fn(&[u8]) -> Option<AudioInfo>,
) -> Option<(usize, AudioInfo)> {
    (0..data.len()).find_map(|at| {
        let info = parse(data.get(at..)?)?;
        let next = data.get(at + info.frame_bytes..).unwrap_or_default();
        // A header takes eight bytes at the most; fewer cannot contradict.
        (next.len() < 8 || parse(next).is_some()).then_some((at, info))
    })
}

/// The frames that `data` consists of: the range and the header of each; `Err` with the offset at
/// which no frame begins, or at which one is cut off, with its header. After it none follow.
pub(crate) fn frames(
    data: &[u8],
    parse: fn(&[u8]) -> Option<AudioInfo>,
) -> impl Iterator<Item = Result<(core::ops::Range<usize>, AudioInfo), (usize, Option<AudioInfo>)>>
{
    let mut at = 0;
    core::iter::from_fn(move || {
        let rest = data.get(at..).filter(|r| !r.is_empty())?;
        let from = at;
        at = data.len();
        Some(match parse(rest) {
            Some(info) if info.frame_bytes > rest.len() => Err((from, Some(info))),
            Some(info) if info.frame_bytes > 0 => {
                at = from + info.frame_bytes;
                Ok((from..at, info))
            }
            _ => Err((from, None)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adts_frame(bytes: usize, fill: u8) -> Vec<u8> {
        let mut frame = vec![fill; bytes];
        let n = bytes as u16;
        frame[..7].copy_from_slice(&[
            0xFF,
            0xF1,
            0x4C,
            0x40 | (n >> 11) as u8,
            (n >> 3) as u8,
            (n << 5) as u8 | 0x1F,
            0xFC,
        ]);
        frame
    }

    #[test]
    fn a_frame_is_found_behind_garbage_that_looks_like_one() {
        // A sync word whose length leads nowhere, then two frames.
        let mut data = vec![9, 0xFF, 0xF1, 0x4C, 0x40, 0x02, 0x9F, 0xFC];
        data.extend(adts_frame(40, 1));
        data.extend(adts_frame(50, 2));
        let (at, info) = find_frame(&data, adts).unwrap();
        assert_eq!((at, info.frame_bytes), (8, 40));
        assert!(find_frame(&[0xFF; 64], adts).is_none());
    }

    #[test]
    fn frames_tile_their_data_until_one_is_cut_off_or_none_begins() {
        let mut data = adts_frame(40, 1);
        data.extend(adts_frame(50, 2));
        let ranges: Vec<_> = frames(&data, adts).map(|f| f.unwrap().0).collect();
        assert_eq!(ranges, [0..40, 40..90]);
        let cut: Vec<_> = frames(&data[..80], adts).collect();
        assert!(matches!(cut[1], Err((40, Some(_)))), "{cut:?}");
        data[40] = 0;
        let broken: Vec<_> = frames(&data, adts).collect();
        assert_eq!((broken.len(), &broken[1]), (2, &Err((40, None))));
    }
}
