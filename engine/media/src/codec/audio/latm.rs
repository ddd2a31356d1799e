//! LATM and LOAS (ISO 14496-3, 1.7): StreamMuxConfig, AudioMuxElement, AudioSyncStream. One
//! program of one layer is read whole, which is all that senders use; of others the first
//! layer's configuration.

use super::aac::{self, AudioConfig};
use super::bits::Bits;

/// What a StreamMuxConfig tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamMuxConfig {
    /// Of the first layer.
    pub audio: AudioConfig,
    /// Payloads in each AudioMuxElement.
    pub sub_frames: u8,
    /// Bits of each payload; `None`: each says its own bytes (frameLengthType 0).
    fixed_bits: Option<usize>,
    /// otherDataLenBits.
    other_bits: usize,
    /// One program, one layer, a frameLengthType of 0 or 1: elements can be told apart.
    simple: bool,
}

impl StreamMuxConfig {
    /// Samples of an AudioMuxElement.
    pub fn samples(&self) -> u32 {
        self.audio.samples * u32::from(self.sub_frames)
    }
}

/// A StreamMuxConfig that stands for itself (SDP `config`, RFC 6416, 7.3).
pub fn stream_mux_config(data: &[u8]) -> Option<StreamMuxConfig> {
    read_config(&mut Bits::new(data))
}

/// LatmGetValue().
fn value(bits: &mut Bits<'_>) -> Option<usize> {
    let bytes = bits.u(2)? + 1;
    usize::try_from(bits.u(8 * bytes)?).ok()
}

/// 1.7.3.1.
fn read_config(bits: &mut Bits<'_>) -> Option<StreamMuxConfig> {
    let version = bits.flag()?;
    if version {
        if bits.flag()? {
            // audioMuxVersionA: for the future.
            return None;
        }
        value(bits)?;
    }
    let same_framing = bits.flag()?;
    let sub_frames = bits.byte(6)? + 1;
    let programs = bits.byte(4)?;
    let layers = bits.byte(3)?;
    let audio = if version {
        let length = value(bits)?;
        let from = bits.position();
        let audio = aac::read(bits)?;
        let used = bits.position() - from;
        bits.skip(length.checked_sub(used)?)?;
        audio
    } else {
        aac::read(bits)?
    };
    let mut config = StreamMuxConfig {
        audio,
        sub_frames,
        fixed_bits: None,
        other_bits: 0,
        simple: programs == 0 && layers == 0 && same_framing,
    };
    if !config.simple {
        return Some(config);
    }
    match bits.byte(3)? {
        0 => bits.skip(8)?,
        1 => config.fixed_bits = Some(8 * (bits.u(9)? as usize + 20)),
        // CELP and HVXC.
        _ => config.simple = false,
    }
    if bits.flag()? {
        config.other_bits = if version {
            value(bits)?
        } else {
            let mut n = 0usize;
            loop {
                let more = bits.flag()?;
                n = n.checked_mul(256)? + usize::from(bits.byte(8)?);
                if !more {
                    break;
                }
            }
            n
        };
    }
    if bits.flag()? {
        bits.skip(8)?;
    }
    Some(config)
}

/// An AudioMuxElement's extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MuxElement {
    /// All its bytes.
    pub bytes: usize,
    /// The configuration that it is of.
    pub config: StreamMuxConfig,
}

/// The AudioMuxElement at the beginning of `data`. `in_band`: it says whether it brings a
/// configuration; else, and where it says that the last one stays, `known` is used. `None` where
/// it is cut off, breaks the syntax, or its configuration is not known.
pub fn audio_mux_element(
    data: &[u8],
    in_band: bool,
    known: Option<&StreamMuxConfig>,
) -> Option<MuxElement> {
    let mut bits = Bits::new(data);
    let config = if in_band && !bits.flag()? {
        read_config(&mut bits)?
    } else {
        *known?
    };
    if !config.simple {
        return None;
    }
    for _ in 0..config.sub_frames {
        let length = match config.fixed_bits {
            Some(length) => length,
            None => payload_length(&mut bits)?.checked_mul(8)?,
        };
        bits.skip(length)?;
    }
    bits.skip(config.other_bits)?;
    bits.align();
    Some(MuxElement {
        bytes: bits.position() / 8,
        config,
    })
}

/// PayloadLengthInfo, frameLengthType 0.
fn payload_length(bits: &mut Bits<'_>) -> Option<usize> {
    let mut length = 0;
    loop {
        let n = bits.byte(8)?;
        length += usize::from(n);
        if n != 255 {
            return Some(length);
        }
    }
}

/// The configuration that an AudioMuxElement with in-band configuration brings, if it brings one;
/// its payload need not be there.
pub fn element_config(data: &[u8]) -> Option<StreamMuxConfig> {
    let mut bits = Bits::new(data);
    if bits.flag()? {
        return None;
    }
    read_config(&mut bits)
}

/// Bytes of the LOAS frame (AudioSyncStream, 1.7.2) that `data` begins with, header included.
pub fn loas(data: &[u8]) -> Option<usize> {
    let &[0x56, b1, b2] = data.first_chunk::<3>()? else {
        return None;
    };
    let length = usize::from(b1 & 0x1F) << 8 | usize::from(b2);
    (b1 & 0xE0 == 0xE0 && length > 0).then_some(3 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;

    #[test]
    fn the_usual_configuration_is_read() {
        let config = stream_mux_config(&hex("400023103fc0")).unwrap();
        assert_eq!(
            (config.audio.sample_rate, config.audio.channels),
            (48_000, 1)
        );
        assert_eq!((config.sub_frames, config.samples()), (1, 1024));
        assert!(config.simple && config.fixed_bits.is_none());
    }

    #[test]
    fn elements_without_configuration_are_as_long_as_they_say() {
        let config = stream_mux_config(&hex("400023103fc0")).unwrap();
        let mut data = vec![255, 45];
        data.extend([7; 300]);
        data.extend([2, 8, 8]);
        let first = audio_mux_element(&data, false, Some(&config)).unwrap();
        assert_eq!(first.bytes, 302);
        let second = audio_mux_element(&data[302..], false, Some(&config)).unwrap();
        assert_eq!(second.bytes, 3);
        assert!(audio_mux_element(&data[302..304], false, Some(&config)).is_none());
        assert!(audio_mux_element(&data, false, None).is_none());
    }

    #[test]
    fn elements_with_configuration_end_on_a_byte() {
        // useSameStreamMux 0, the configuration above (44 bits), length 2, two bytes.
        let config: String = hex("400023103fc0")
            .iter()
            .map(|b| format!("{b:08b}"))
            .collect();
        let bits = format!("0{}{:08b}{:08b}{:08b}", &config[..44], 2, 0xAA, 0xBB);
        let bits = format!("{bits:0<width$}", width = bits.len().div_ceil(8) * 8);
        let data: Vec<u8> = (0..bits.len() / 8)
            .map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap())
            .collect();
        let element = audio_mux_element(&data, true, None).unwrap();
        assert_eq!(element.config.audio.sample_rate, 48_000);
        assert_eq!(element.bytes, data.len());
        // The same configuration: one bit, the length, the bytes.
        let same = format!("1{:08b}{:08b}0000000", 1, 0xAA);
        let same: Vec<u8> = (0..same.len() / 8)
            .map(|i| u8::from_str_radix(&same[8 * i..8 * i + 8], 2).unwrap())
            .collect();
        let again = audio_mux_element(&same, true, Some(&element.config)).unwrap();
        assert_eq!(again.bytes, 3);
        assert!(element_config(&same).is_none());
    }

    #[test]
    fn hostile_configurations_are_refused_or_harmless() {
        let mut x = 1u64;
        for _ in 0..200_000 {
            let data: Vec<u8> = (0..24)
                .map(|_| {
                    x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (x >> 56) as u8
                })
                .collect();
            if let Some(config) = stream_mux_config(&data) {
                assert!(super::super::RATES.contains(&config.audio.core_rate));
                if let Some(e) = audio_mux_element(&data, false, Some(&config)) {
                    assert!(e.bytes <= data.len());
                }
            }
            if let Some(e) = audio_mux_element(&data, true, None) {
                assert!(e.bytes <= data.len());
            }
        }
        assert!(stream_mux_config(&[]).is_none());
        assert!(stream_mux_config(&[0xFF; 40]).is_none());
    }

    #[test]
    fn loas_frames_have_a_length() {
        assert_eq!(loas(&[0x56, 0xE0, 0x50]), Some(83));
        assert_eq!(loas(&[0x56, 0xE0, 0]), None);
        assert_eq!(loas(&[0x56, 0xC0, 0x50]), None);
    }
}
