//! MPEG audio headers (ISO 11172-3, 2.4.2.3; ISO 13818-3, 2.4.2.3; and MPEG-2.5).

use super::AudioInfo;

const LAYER1: [u32; 14] = [
    32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448,
];
const LAYER2: [u32; 14] = [
    32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384,
];
const LAYER3: [u32; 14] = [
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
];
const LOW1: [u32; 14] = [
    32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256,
];
const LOW: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

/// An MPEG-1/2 audio header at the beginning of `data`. Free format, whose frames have no
/// length, is not read.
pub fn mpeg_audio(data: &[u8]) -> Option<AudioInfo> {
    let &[s0, s1, b2, b3] = data.first_chunk::<4>()?;
    if s0 != 0xFF || s1 & 0xE0 != 0xE0 {
        return None;
    }
    let version = s1 >> 3 & 3;
    let layer = 4 - (s1 >> 1 & 3);
    if version == 1 || layer == 4 {
        return None;
    }
    let base = match b2 >> 2 & 3 {
        0 => 44100,
        1 => 48000,
        2 => 32000,
        _ => return None,
    };
    let mpeg1 = version == 3;
    let sample_rate = match version {
        3 => base,
        2 => base / 2,
        _ => base / 4,
    };
    let table = match (mpeg1, layer) {
        (true, 1) => &LAYER1,
        (true, 2) => &LAYER2,
        (true, _) => &LAYER3,
        (false, 1) => &LOW1,
        (false, _) => &LOW,
    };
    let kbps = *table.get(usize::from(b2 >> 4).checked_sub(1)?)?;
    let padding = u32::from(b2 >> 1 & 1);
    let (samples, frame_bytes) = match (mpeg1, layer) {
        (_, 1) => (384, 4 * (12_000 * kbps / sample_rate + padding)),
        (false, 3) => (576, 72_000 * kbps / sample_rate + padding),
        _ => (1152, 144_000 * kbps / sample_rate + padding),
    };
    let profile = match layer {
        1 => "Layer I",
        2 => "Layer II",
        _ => "Layer III",
    };
    Some(AudioInfo {
        sample_rate,
        channels: if b3 >> 6 == 3 { 1 } else { 2 },
        profile,
        frame_bytes: usize::try_from(frame_bytes).ok()?,
        samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_samples_follow_version_and_layer() {
        let of = |b: [u8; 4]| mpeg_audio(&b).map(|i| (i.frame_bytes, i.samples, i.sample_rate));
        // Layer II, 64 kb/s, 48 kHz, mono.
        assert_eq!(of([0xFF, 0xFD, 0x44, 0xC4]), Some((192, 1152, 48_000)));
        // Layer III, 128 kb/s, 44.1 kHz, padded.
        assert_eq!(of([0xFF, 0xFB, 0x92, 0x00]), Some((418, 1152, 44_100)));
        // MPEG-2 layer III, 64 kb/s, 24 kHz.
        assert_eq!(of([0xFF, 0xF3, 0x84, 0x00]), Some((192, 576, 24_000)));
        // Layer I, 384 kb/s, 48 kHz.
        assert_eq!(of([0xFF, 0xFF, 0xC4, 0x00]), Some((384, 384, 48_000)));
        // Reserved rate, version, layer; free format.
        assert_eq!(of([0xFF, 0xFD, 0x4C, 0xC4]), None);
        assert_eq!(of([0xFF, 0xED, 0x44, 0xC4]), None);
        assert_eq!(of([0xFF, 0xF9, 0x44, 0xC4]), None);
        assert_eq!(of([0xFF, 0xFD, 0x04, 0xC4]), None);
    }
}
