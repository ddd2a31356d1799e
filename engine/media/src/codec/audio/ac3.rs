//! AC-3 and E-AC-3 sync frames (ETSI TS 102 366, 4.3 and E.1.2; ATSC A/52).

use super::AudioInfo;

const CHANNELS: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];
const KBPS: [usize; 19] = [
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
];

/// A sync frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncFrame {
    /// What it tells of the sound.
    pub info: AudioInfo,
    /// It is E-AC-3.
    pub enhanced: bool,
    /// E-AC-3: a dependent substream, or an independent one other than 0: it belongs to the
    /// access unit that began before it (E.1.3.1.1).
    pub continues: bool,
}

/// An AC-3 or E-AC-3 sync frame at the beginning of `data`.
pub fn ac3(data: &[u8]) -> Option<AudioInfo> {
    sync_frame(data).map(|f| f.info)
}

/// The same with what tells access units apart.
pub fn sync_frame(data: &[u8]) -> Option<SyncFrame> {
    let &[0x0B, 0x77, b2, b3, b4, b5, b6, b7] = data.first_chunk::<8>()? else {
        return None;
    };
    match b5 >> 3 {
        0..=10 => plain([b4, b5, b6, b7]),
        11..=16 => enhanced([b2, b3, b4]),
        _ => None,
    }
}

fn plain([b4, b5, b6, b7]: [u8; 4]) -> Option<SyncFrame> {
    let kbps = *KBPS.get(usize::from(b4 & 0x3F) >> 1)?;
    let (base, frame_bytes) = match b4 >> 6 {
        0 => (48000, 4 * kbps),
        1 => (44100, 2 * (320 * kbps / 147 + usize::from(b4 & 1))),
        2 => (32000, 6 * kbps),
        _ => return None,
    };
    // bsid 9 and 10 halve and quarter the rate (annex of ATSC A/52).
    let sample_rate = base >> (b5 >> 3).saturating_sub(8);
    let acmod = b6 >> 5;
    let mut skip = 3;
    skip += if acmod & 1 != 0 && acmod != 1 { 2 } else { 0 };
    skip += if acmod & 4 != 0 { 2 } else { 0 };
    skip += if acmod == 2 { 2 } else { 0 };
    let lfe = (u16::from_be_bytes([b6, b7]) >> (15 - skip) & 1) as u8;
    let channels = CHANNELS.get(usize::from(acmod)).copied()? + lfe;
    Some(SyncFrame {
        info: AudioInfo {
            sample_rate,
            channels,
            profile: "",
            frame_bytes,
            samples: 1536,
        },
        enhanced: false,
        continues: false,
    })
}

fn enhanced([b2, b3, b4]: [u8; 3]) -> Option<SyncFrame> {
    let frame_bytes = 2 * ((usize::from(b2 & 7) << 8 | usize::from(b3)) + 1);
    let blocks = [1, 2, 3, 6].get(usize::from(b4 >> 4 & 3)).copied()?;
    let (sample_rate, blocks) = match (b4 >> 6, b4 >> 4 & 3) {
        (0, _) => (48000, blocks),
        (1, _) => (44100, blocks),
        (2, _) => (32000, blocks),
        (_, 0) => (24000, 6),
        (_, 1) => (22050, 6),
        (_, 2) => (16000, 6),
        _ => return None,
    };
    // E.1.3.1.1: strmtyp 3 is reserved.
    let kind = b2 >> 6;
    if kind == 3 {
        return None;
    }
    Some(SyncFrame {
        info: AudioInfo {
            sample_rate,
            channels: CHANNELS.get(usize::from(b4 >> 1 & 7)).copied()? + (b4 & 1),
            profile: "",
            frame_bytes,
            samples: 256 * blocks,
        },
        enhanced: true,
        continues: kind == 1 || b2 >> 3 & 7 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ac3_lengths_follow_the_rate_and_channels_the_mode() {
        let of = |b4: u8, b5, b6| {
            let f = sync_frame(&[0x0B, 0x77, 0, 0, b4, b5, b6, 0]).unwrap();
            (f.info.frame_bytes, f.info.sample_rate, f.info.channels)
        };
        assert_eq!(of(0x08, 0x40, 0x43), (256, 48_000, 2));
        assert_eq!(of(0x48, 0x40, 0x20), (278, 44_100, 1));
        assert_eq!(of(0x49, 0x40, 0x20), (280, 44_100, 1));
        assert_eq!(of(0x88, 0x40, 0x20), (384, 32_000, 1));
        // 3/2 with LFE: acmod 7 and the bit behind two levels.
        assert_eq!(of(0x1C, 0x40, 0xE1), (1536, 48_000, 6));
        assert_eq!(of(0x08, 0x48, 0x43).1, 24_000);
        assert!(sync_frame(&[0x0B, 0x77, 0, 0, 0xC8, 0x40, 0, 0]).is_none());
        assert!(sync_frame(&[0x0B, 0x77, 0, 0, 0x3F, 0x40, 0, 0]).is_none());
        assert!(sync_frame(&[0x0B, 0x77, 0, 0, 0x08, 0x88, 0, 0]).is_none());
    }

    #[test]
    fn eac3_says_which_frames_belong_together() {
        let of = |b2: u8, b4| {
            let f = sync_frame(&[0x0B, 0x77, b2, 0x7F, b4, 0x87, 0, 0])?;
            Some((f.info.frame_bytes, f.info.samples, f.continues))
        };
        assert_eq!(of(0x00, 0x34), Some((256, 1536, false)));
        assert_eq!(of(0x40, 0x34), Some((256, 1536, true)));
        assert_eq!(of(0x08, 0x34), Some((256, 1536, true)));
        assert_eq!(of(0x01, 0x04), Some((768, 256, false)));
        assert_eq!(of(0x00, 0xC4), Some((256, 1536, false)));
        assert_eq!(of(0x00, 0xF4), None);
        assert_eq!(of(0xC0, 0x34), None);
    }
}
