//! Audio frame headers as far as a track's facts need them: ADTS (ISO 13818-7, 6.2), MPEG audio
//! (ISO 11172-3, 2.4.2.3), AC-3 and E-AC-3 (ETSI TS 102 366, 4.3 and E.1.2). Called by the
//! MPEG-TS demultiplexer on the first bytes of PES packets.

/// What a frame header tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AudioInfo {
    /// Samples a second.
    pub sample_rate: u32,
    /// Channels, the LFE channel included; 0 when the header does not say.
    pub channels: u8,
    /// Profile's name, where there is one.
    pub profile: &'static str,
    /// Bytes of the frame, header included.
    pub frame_bytes: usize,
}

const ADTS_RATES: [u32; 13] = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
];

/// An ADTS header at the beginning of `data`.
pub fn adts(data: &[u8]) -> Option<AudioInfo> {
    let &[s0, s1, b2, b3, b4, b5, _] = data.first_chunk::<7>()?;
    if s0 != 0xFF || s1 & 0xF6 != 0xF0 {
        return None;
    }
    let sample_rate = *ADTS_RATES.get(usize::from(b2 >> 2 & 0xF))?;
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
    (frame_bytes > 7).then_some(AudioInfo {
        sample_rate,
        channels,
        profile,
        frame_bytes,
    })
}

/// An MPEG-1/2 audio header at the beginning of `data`.
pub fn mpeg_audio(data: &[u8]) -> Option<AudioInfo> {
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
    let frame_bytes = match (mpeg1, layer) {
        (_, 1) => 4 * (12_000 * kbps / sample_rate + padding),
        (false, 3) => 72_000 * kbps / sample_rate + padding,
        _ => 144_000 * kbps / sample_rate + padding,
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
    })
}

const AC3_CHANNELS: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];

/// An AC-3 or E-AC-3 sync frame at the beginning of `data`.
pub fn ac3(data: &[u8]) -> Option<AudioInfo> {
    let &[0x0B, 0x77, b2, b3, b4, b5, b6, b7] = data.first_chunk::<8>()? else {
        return None;
    };
    let bsid = b5 >> 3;
    if bsid > 16 {
        return None;
    }
    if bsid > 10 {
        let frame_bytes = 2 * ((usize::from(b2 & 7) << 8 | usize::from(b3)) + 1);
        let sample_rate = match (b4 >> 6, b4 >> 4 & 3) {
            (0, _) => 48000,
            (1, _) => 44100,
            (2, _) => 32000,
            (_, 0) => 24000,
            (_, 1) => 22050,
            (_, 2) => 16000,
            _ => return None,
        };
        let channels = AC3_CHANNELS.get(usize::from(b4 >> 1 & 7)).copied()? + (b4 & 1);
        return Some(AudioInfo {
            sample_rate,
            channels,
            profile: "",
            frame_bytes,
        });
    }
    const KBPS: [usize; 19] = [
        32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
    ];
    let kbps = *KBPS.get(usize::from(b4 & 0x3F) >> 1)?;
    let (base, frame_bytes) = match b4 >> 6 {
        0 => (48000, 4 * kbps),
        1 => (44100, 2 * (320 * kbps / 147 + usize::from(b4 & 1))),
        2 => (32000, 6 * kbps),
        _ => return None,
    };
    // bsid 9 and 10 halve and quarter the rate (annex of ATSC A/52).
    let sample_rate = base >> bsid.saturating_sub(8);
    let acmod = b6 >> 5;
    let mut skip = 3;
    skip += if acmod & 1 != 0 && acmod != 1 { 2 } else { 0 };
    skip += if acmod & 4 != 0 { 2 } else { 0 };
    skip += if acmod == 2 { 2 } else { 0 };
    let lfe = (u16::from_be_bytes([b6, b7]) >> (15 - skip) & 1) as u8;
    let channels = AC3_CHANNELS.get(usize::from(acmod)).copied()? + lfe;
    Some(AudioInfo {
        sample_rate,
        channels,
        profile: "",
        frame_bytes,
    })
}
