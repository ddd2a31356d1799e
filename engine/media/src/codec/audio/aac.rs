//! AudioSpecificConfig (ISO 14496-3, 1.6.2.1), from SDP or inside a LATM StreamMuxConfig.

use super::bits::Bits;
use super::{AudioInfo, RATES};

/// samplingFrequencyIndex (1.6.3.4).
pub(crate) const SAMPLE_RATES: [u32; 13] = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
];

/// audioObjectType of the table in 1.5.1.1.
mod object {
    pub(super) const SBR: u8 = 5;
    pub(super) const SCALABLE: u8 = 6;
    pub(super) const ER_SCALABLE: u8 = 20;
    pub(super) const ER_BSAC: u8 = 22;
    pub(super) const LD: u8 = 23;
    pub(super) const PS: u8 = 29;
    pub(super) const ELD: u8 = 39;
    pub(super) const USAC: u8 = 42;
}

/// What an AudioSpecificConfig tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AudioConfig {
    /// audioObjectType of the core coder: 2 is LC.
    pub object_type: u8,
    /// Samples a second of the core coder.
    pub core_rate: u32,
    /// Samples a second as they are heard: with SBR mostly twice the core's.
    pub sample_rate: u32,
    /// Channels as they are coded; 0 when not said.
    pub channels: u8,
    /// Samples of an access unit, at `sample_rate`.
    pub samples: u32,
    /// Spectral band replication is signalled.
    pub sbr: bool,
    /// Parametric stereo is signalled: one channel is heard as two.
    pub ps: bool,
}

impl AudioConfig {
    /// As a frame header would tell it.
    pub const fn info(&self) -> AudioInfo {
        AudioInfo {
            sample_rate: self.sample_rate,
            channels: if self.ps && self.channels == 1 {
                2
            } else {
                self.channels
            },
            profile: self.profile(),
            frame_bytes: 0,
            samples: self.samples,
        }
    }

    const fn profile(&self) -> &'static str {
        match (self.object_type, self.sbr, self.ps) {
            (_, _, true) => "HE-AACv2",
            (1..=4, true, _) => "HE-AAC",
            (1, ..) => "Main",
            (2, ..) => "LC",
            (3, ..) => "SSR",
            (4, ..) => "LTP",
            (object::LD, ..) => "LD",
            (object::ELD, ..) => "ELD",
            (object::USAC, ..) => "USAC",
            _ => "",
        }
    }
}

/// Reads a whole AudioSpecificConfig; `None` where it breaks the syntax, or names a rate at which
/// nothing is heard.
pub fn audio_specific_config(data: &[u8]) -> Option<AudioConfig> {
    let mut bits = Bits::new(data);
    let mut config = read(&mut bits)?;
    backward_compatible(&mut bits, &mut config);
    Some(config)
}

/// Reads one from `bits`, without what may follow it backward-compatibly.
pub(super) fn read(bits: &mut Bits<'_>) -> Option<AudioConfig> {
    let mut object_type = object_type(bits)?;
    let core_rate = frequency(bits)?;
    let channel_configuration = bits.byte(4)?;
    let mut c = AudioConfig {
        object_type,
        core_rate,
        sample_rate: core_rate,
        channels: channels(channel_configuration)?,
        ..AudioConfig::default()
    };
    if matches!(object_type, object::SBR | object::PS) {
        c.sbr = true;
        c.ps = object_type == object::PS;
        c.sample_rate = frequency(bits)?;
        object_type = self::object_type(bits)?;
        c.object_type = object_type;
        if object_type == object::ER_BSAC {
            bits.skip(4)?;
        }
    }
    let core_samples = match object_type {
        1..=4 | 6 | 7 | 17 | 19..=23 => general_audio(bits, &mut c, channel_configuration)?,
        object::ELD => enhanced_low_delay(bits, &mut c)?,
        object::USAC => usac(bits, &mut c)?,
        _ => 1024,
    };
    c.samples = if c.sbr && c.sample_rate == 2 * c.core_rate {
        2 * core_samples
    } else {
        core_samples
    };
    Some(c)
}

fn object_type(bits: &mut Bits<'_>) -> Option<u8> {
    let kind = match bits.byte(5)? {
        31 => 32 + bits.byte(6)?,
        n => n,
    };
    (kind != 0).then_some(kind)
}

fn frequency(bits: &mut Bits<'_>) -> Option<u32> {
    let rate = match bits.byte(4)? {
        15 => bits.u(24)?,
        index => *SAMPLE_RATES.get(usize::from(index))?,
    };
    RATES.contains(&rate).then_some(rate)
}

/// channelConfiguration (1.6.3.5); 0: a program_config_element says it.
const fn channels(configuration: u8) -> Option<u8> {
    match configuration {
        n @ 0..=6 => Some(n),
        7 | 12 | 14 => Some(8),
        11 => Some(7),
        13 => Some(24),
        _ => None,
    }
}

/// GASpecificConfig (4.4.1). Returns the samples of a frame of the core coder.
fn general_audio(bits: &mut Bits<'_>, c: &mut AudioConfig, configuration: u8) -> Option<u32> {
    let short = bits.flag()?;
    let samples = match (c.object_type, short) {
        (object::LD, true) => 480,
        (object::LD, false) => 512,
        (_, true) => 960,
        (_, false) => 1024,
    };
    if bits.flag()? {
        // dependsOnCoreCoder.
        bits.skip(14)?;
    }
    let extension = bits.flag()?;
    if configuration == 0 {
        c.channels = program_config_element(bits)?;
    }
    if matches!(c.object_type, object::SCALABLE | object::ER_SCALABLE) {
        bits.skip(3)?;
    }
    if extension {
        match c.object_type {
            object::ER_BSAC => bits.skip(16)?,
            17 | 19 | 20 | 23 => bits.skip(3)?,
            _ => {}
        }
        bits.skip(1)?;
    }
    // ER objects: epConfig; 2 and 3 have more, which senders do not use.
    if matches!(c.object_type, 17 | 19..=23) {
        bits.skip(2)?;
    }
    Some(samples)
}

/// program_config_element (4.4.1.1): its channels. `None` if it has more elements of a kind than
/// there are tags to tell them apart (element_instance_tag, 4 bits).
fn program_config_element(bits: &mut Bits<'_>) -> Option<u8> {
    bits.skip(10)?;
    let [front, side, back] = [bits.byte(4)?, bits.byte(4)?, bits.byte(4)?];
    let lfe = bits.byte(2)?;
    let associated = usize::from(bits.byte(3)?);
    let coupling = usize::from(bits.byte(4)?);
    for mixdown in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(mixdown)?;
        }
    }
    let elements = front + side + back;
    let mut pairs = 0;
    for _ in 0..elements {
        pairs += u8::from(bits.flag()?);
        bits.skip(4)?;
    }
    if pairs > 16 || elements - pairs > 16 {
        return None;
    }
    let channels = elements + pairs + lfe;
    bits.skip(4 * usize::from(lfe) + 4 * associated + 5 * coupling)?;
    bits.align();
    let comment = usize::from(bits.byte(8)?);
    bits.skip(8 * comment)?;
    Some(channels)
}

/// ELDSpecificConfig (4.6.20), its beginning.
fn enhanced_low_delay(bits: &mut Bits<'_>, c: &mut AudioConfig) -> Option<u32> {
    let short = bits.flag()?;
    bits.skip(3)?;
    if bits.flag()? {
        c.sbr = true;
        if bits.flag()? {
            c.sample_rate = c.core_rate.checked_mul(2)?;
        }
    }
    Some(if short { 480 } else { 512 })
}

/// UsacConfig (ISO 23003-3, 5.2), its beginning: there the rate is the one that is heard.
fn usac(bits: &mut Bits<'_>, c: &mut AudioConfig) -> Option<u32> {
    if bits.byte(5)? == 31 {
        bits.skip(24)?;
    }
    [768, 1024, 2048, 2048, 4096]
        .get(usize::from(bits.byte(3)?))
        .copied()
        .inspect(|_| c.sbr = false)
}

/// 1.6.5: SBR and PS that older decoders pass over, behind the configuration proper.
fn backward_compatible(bits: &mut Bits<'_>, c: &mut AudioConfig) {
    if c.sbr || !matches!(c.object_type, 1..=4) || bits.u(11) != Some(0x2B7) {
        return;
    }
    let mut read = || {
        if object_type(bits)? != object::SBR || !bits.flag()? {
            return None;
        }
        let rate = frequency(bits)?;
        let ps = bits.u(11) == Some(0x548) && bits.flag() == Some(true);
        Some((rate, ps))
    };
    if let Some((rate, ps)) = read() {
        c.sbr = true;
        c.ps = ps;
        c.sample_rate = rate;
        if rate == 2 * c.core_rate {
            c.samples *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;

    fn facts(text: &str) -> Option<(u32, u8, u32, &'static str)> {
        let info = audio_specific_config(&hex(text))?.info();
        Some((info.sample_rate, info.channels, info.samples, info.profile))
    }

    #[test]
    fn plain_configurations_tell_rate_channels_and_frame() {
        assert_eq!(facts("1188"), Some((48_000, 1, 1024, "LC")));
        assert_eq!(facts("1190"), Some((48_000, 2, 1024, "LC")));
        assert_eq!(facts("1210"), Some((44_100, 2, 1024, "LC")));
        assert_eq!(facts("11b0"), Some((48_000, 6, 1024, "LC")));
        assert_eq!(facts("11b8"), Some((48_000, 8, 1024, "LC")));
        // frameLengthFlag.
        assert_eq!(facts("1194"), Some((48_000, 2, 960, "LC")));
    }

    #[test]
    fn sbr_and_ps_are_told_in_either_way() {
        // Explicit: object type 5, 24 kHz core, 48 kHz heard, LC.
        assert_eq!(facts("2b118800"), Some((48_000, 2, 2048, "HE-AAC")));
        // Object type 29.
        assert_eq!(facts("eb098800"), Some((48_000, 2, 2048, "HE-AACv2")));
        // Backward-compatible: LC at 24 kHz, then sync extension.
        assert_eq!(facts("131056e598"), Some((48_000, 2, 2048, "HE-AAC")));
        assert_eq!(facts("130856e59d4880"), Some((48_000, 2, 2048, "HE-AACv2")));
        assert_eq!(facts("131056e500"), Some((24_000, 2, 1024, "LC")));
    }

    /// LC, 48 kHz, configuration 0, and a program_config_element that goes on with `element`.
    fn with_element(element: &str) -> Option<AudioConfig> {
        let mut bits = String::from("0001000110000000") + "0000010011" + element;
        while !bits.len().is_multiple_of(8) {
            bits.push('0');
        }
        bits += "00000000";
        let bytes: Vec<u8> = (0..bits.len() / 8)
            .map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap())
            .collect();
        audio_specific_config(&bytes)
    }

    #[test]
    fn a_program_config_element_is_counted() {
        // Two front elements (1 + 2), one back pair, one LFE.
        let element = "001000000001010000000";
        let config = with_element(&(element.to_owned() + "000" + "00000100001000000000")).unwrap();
        assert_eq!((config.channels, config.sample_rate), (6, 48_000));
    }

    #[test]
    fn more_elements_than_there_are_tags_for_are_refused() {
        // Of front, side and back, each 15 at the most; no LFE; singles or pairs.
        let of = |[front, side, back]: [usize; 3], singles: usize| {
            let counts = format!("{front:04b}{side:04b}{back:04b}") + "000000000" + "000";
            let all = front + side + back;
            let pairs = "10000".repeat(all - singles);
            with_element(&(counts + &"00000".repeat(singles) + &pairs)).map(|c| c.channels)
        };
        assert_eq!(of([15, 15, 2], 16), Some(16 + 32));
        assert_eq!(of([15, 2, 0], 17), None, "singles");
        assert_eq!(of([15, 15, 15], 0), None, "pairs: 90 channels");
    }

    #[test]
    fn absurd_configurations_are_refused() {
        // Frequency index 15 with a rate of 0, of 1 and of 16 MHz; reserved indexes; type 0.
        assert_eq!(facts("178000000880"), None);
        assert_eq!(facts("17ffffff8880"), None);
        assert_eq!(facts("1688"), None);
        assert_eq!(facts("0188"), None);
        assert_eq!(facts("11c8"), None, "channel configuration 9");
        for cut in ["", "11", "2b11", "1180"] {
            assert_eq!(facts(cut), None, "{cut}");
        }
    }
}
