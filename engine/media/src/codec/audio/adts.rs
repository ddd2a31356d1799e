//! ADTS headers (ISO 13818-7, 6.2; ISO 14496-3, 1.A.2.2).

use super::{AudioInfo, aac};

/// An ADTS header at the beginning of `data`.
pub fn adts(data: &[u8]) -> Option<AudioInfo> {
    let &[s0, s1, b2, b3, b4, b5, b6] = data.first_chunk::<7>()?;
    if s0 != 0xFF || s1 & 0xF6 != 0xF0 {
        return None;
    }
    let sample_rate = *aac::SAMPLE_RATES.get(usize::from(b2 >> 2 & 0xF))?;
    let channels = match (b2 & 1) << 2 | b3 >> 6 {
        7 => 8,
        n => n,
    };
    let frame_bytes = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
    let profile = match b2 >> 6 {
        0 => "Main",
        1 => "LC",
        2 => "SSR",
        _ => "LTP",
    };
    let header_bytes = if s1 & 1 == 0 { 9 } else { 7 };
    (frame_bytes > header_bytes).then_some(AudioInfo {
        sample_rate,
        channels,
        profile,
        frame_bytes,
        samples: 1024 * (1 + u32::from(b6 & 3)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_length_rate_channels_and_blocks() {
        let info = adts(&[0xFF, 0xF1, 0x4C, 0x40, 0x14, 0x5F, 0xFD]).unwrap();
        assert_eq!((info.frame_bytes, info.sample_rate), (162, 48_000));
        assert_eq!((info.channels, info.samples, info.profile), (1, 2048, "LC"));
        // Layer bits, reserved frequencies, and frames shorter than their header are no ADTS.
        assert!(adts(&[0xFF, 0xFB, 0x4C, 0x40, 0x14, 0x5F, 0xFC]).is_none());
        assert!(adts(&[0xFF, 0xF1, 0x74, 0x40, 0x14, 0x5F, 0xFC]).is_none());
        assert!(adts(&[0xFF, 0xF0, 0x4C, 0x40, 0x01, 0x1F, 0xFC]).is_none());
        assert!(adts(&[0xFF, 0xF1, 0x4C, 0x40, 0x14, 0x5F]).is_none());
    }
}
