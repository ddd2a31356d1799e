//! What signalling says of an RTP payload: its format by encoding name or static payload type,
//! and the format parameters of an SDP `a=fmtp` line. [`PayloadHint`] is where
//! [`super::RtpInput`] starts; the bits overrule it. Filled by who reads SDP (RFC 8866) or the
//! payload-type map.

use core::fmt;

use crate::Codec;

/// NAL units in `sprop-…` parameters.
const MAX_PARAMETER_SETS: usize = 64;
/// Bytes of one of them, and of an audio configuration.
const MAX_CONFIG: usize = 4096;

/// A payload format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PayloadFormat {
    /// RFC 2250, 2: MPEG-TS.
    Mp2t,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// RTP payload format for AV1 (AOM).
    Av1,
    /// RFC 9134.
    Jxsv,
    /// RFC 2250, 3: MPEG-1/2 video elementary streams.
    Mpv,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 3640: AAC.
    Mpeg4Generic,
    /// RFC 6416: AAC in LATM.
    Mp4aLatm,
    /// RFC 7587.
    Opus,
    /// RFC 4184.
    Ac3,
    /// RFC 4598.
    Eac3,
    /// RFC 2250, 3: MPEG-1/2 audio elementary streams.
    Mpa,
    /// RFC 3551, 4.5.11.
    L16,
    /// RFC 3190, 4.
    L24,
    /// RFC 6597: KLV.
    Smpte336m,
    /// RFC 8331: SMPTE ST 291 ancillary data.
    Smpte291,
}

impl PayloadFormat {
    /// All of them.
    pub const ALL: &'static [PayloadFormat] = &[
        PayloadFormat::Mp2t,
        PayloadFormat::H264,
        PayloadFormat::H265,
        PayloadFormat::Av1,
        PayloadFormat::Jxsv,
        PayloadFormat::Mpv,
        PayloadFormat::Vp8,
        PayloadFormat::Vp9,
        PayloadFormat::Mpeg4Generic,
        PayloadFormat::Mp4aLatm,
        PayloadFormat::Opus,
        PayloadFormat::Ac3,
        PayloadFormat::Eac3,
        PayloadFormat::Mpa,
        PayloadFormat::L16,
        PayloadFormat::L24,
        PayloadFormat::Smpte336m,
        PayloadFormat::Smpte291,
    ];

    /// The encoding name of `a=rtpmap`, as registered.
    pub const fn encoding_name(self) -> &'static str {
        match self {
            PayloadFormat::Mp2t => "MP2T",
            PayloadFormat::H264 => "H264",
            PayloadFormat::H265 => "H265",
            PayloadFormat::Av1 => "AV1",
            PayloadFormat::Jxsv => "jxsv",
            PayloadFormat::Mpv => "MPV",
            PayloadFormat::Vp8 => "VP8",
            PayloadFormat::Vp9 => "VP9",
            PayloadFormat::Mpeg4Generic => "MPEG4-GENERIC",
            PayloadFormat::Mp4aLatm => "MP4A-LATM",
            PayloadFormat::Opus => "opus",
            PayloadFormat::Ac3 => "ac3",
            PayloadFormat::Eac3 => "eac3",
            PayloadFormat::Mpa => "MPA",
            PayloadFormat::L16 => "L16",
            PayloadFormat::L24 => "L24",
            PayloadFormat::Smpte336m => "smpte336m",
            PayloadFormat::Smpte291 => "smpte291",
        }
    }

    /// The format of an encoding name, whatever its case (RFC 4855, 3).
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        let known = |f: &&PayloadFormat| f.encoding_name().eq_ignore_ascii_case(name);
        Self::ALL.iter().find(known).copied()
    }

    /// What a static payload type (RFC 3551, 6) means: format, clock rate, channels (0: not
    /// said).
    pub const fn from_static_type(payload_type: u8) -> Option<(Self, u32, u8)> {
        match payload_type {
            10 => Some((PayloadFormat::L16, 44_100, 2)),
            11 => Some((PayloadFormat::L16, 44_100, 1)),
            14 => Some((PayloadFormat::Mpa, 90_000, 0)),
            32 => Some((PayloadFormat::Mpv, 90_000, 0)),
            33 => Some((PayloadFormat::Mp2t, 90_000, 0)),
            _ => None,
        }
    }

    /// The codec of its elementary stream; [`Codec::Unknown`] for MPEG-TS, which has several.
    pub const fn codec(self) -> Codec {
        match self {
            PayloadFormat::Mp2t => Codec::Unknown,
            PayloadFormat::H264 => Codec::H264,
            PayloadFormat::H265 => Codec::H265,
            PayloadFormat::Av1 => Codec::Av1,
            PayloadFormat::Jxsv => Codec::JpegXs,
            PayloadFormat::Mpv => Codec::Mpeg2Video,
            PayloadFormat::Vp8 => Codec::Vp8,
            PayloadFormat::Vp9 => Codec::Vp9,
            PayloadFormat::Mpeg4Generic => Codec::Aac,
            PayloadFormat::Mp4aLatm => Codec::AacLatm,
            PayloadFormat::Opus => Codec::Opus,
            PayloadFormat::Ac3 => Codec::Ac3,
            PayloadFormat::Eac3 => Codec::Eac3,
            PayloadFormat::Mpa => Codec::MpegAudio,
            PayloadFormat::L16 => Codec::L16,
            PayloadFormat::L24 => Codec::L24,
            PayloadFormat::Smpte336m => Codec::Klv,
            PayloadFormat::Smpte291 => Codec::Ancillary,
        }
    }

    /// The format that carries `codec` on its own, if one does.
    pub fn of_codec(codec: Codec) -> Option<Self> {
        let fits = |f: &&PayloadFormat| f.codec() == codec && codec != Codec::Unknown;
        Self::ALL.iter().find(fits).copied()
    }

    /// The clock rate where nobody says one: the format's only one, else the usual one.
    pub const fn clock_rate(self) -> u32 {
        match self {
            PayloadFormat::Mpeg4Generic
            | PayloadFormat::Mp4aLatm
            | PayloadFormat::Opus
            | PayloadFormat::Ac3
            | PayloadFormat::Eac3
            | PayloadFormat::L16
            | PayloadFormat::L24 => 48_000,
            _ => 90_000,
        }
    }
}

/// What is known of a payload before its first packet.
#[derive(Clone, PartialEq, Debug)]
pub struct PayloadHint {
    /// Its format.
    pub format: PayloadFormat,
    /// The format's parameters.
    pub parameters: FormatParameters,
}

impl From<PayloadFormat> for PayloadHint {
    fn from(format: PayloadFormat) -> Self {
        PayloadHint {
            format,
            parameters: FormatParameters::default(),
        }
    }
}

/// The parameters of `a=fmtp` that depacketising and describing need. The default is what their
/// standards say for absent ones.
#[derive(Clone, PartialEq, Debug)]
pub struct FormatParameters {
    /// H.264: `packetization-mode`, 0 to 2 (2: interleaved).
    pub packetization_mode: u8,
    /// H.264 and HEVC: NAL units of `sprop-vps`, `sprop-sps`, `sprop-pps` (HEVC) and
    /// `sprop-parameter-sets` (H.264), in decoding order, without start codes.
    pub parameter_sets: Vec<Vec<u8>>,
    /// H.264: `sprop-interleaving-depth`, VCL NAL units.
    pub interleaving_depth: Option<u16>,
    /// H.264 and HEVC: `sprop-max-don-diff`. HEVC: payloads have DON fields if it is above 0.
    pub max_don_diff: Option<u16>,
    /// HEVC: `sprop-depack-buf-nalus`.
    pub depack_buf_nalus: Option<u16>,
    /// `mpeg4-generic`: lengths and switches of the AU headers.
    pub au_header: AuHeader,
    /// `mpeg4-generic`: AudioSpecificConfig. `MP4A-LATM`: StreamMuxConfig. From `config`.
    pub config: Vec<u8>,
    /// `MP4A-LATM`: `cpresent`; whether the payload carries the StreamMuxConfig.
    pub config_in_band: bool,
    /// Channels, from `a=rtpmap`, the static payload type, or `sprop-stereo`; 0 when unknown.
    pub channels: u8,
    /// jxsv: `packetmode`; `Some(true)` for slices, `Some(false)` for the codestream.
    pub slice_mode: Option<bool>,
    /// jxsv: `transmode`; whether packets come in order.
    pub sequential: bool,
    /// Samples across, from `width`; 0 when unknown.
    pub width: u32,
    /// Lines of a frame, from `height`; 0 when unknown.
    pub height: u32,
    /// Bits per sample, from `depth`; 0 when unknown.
    pub depth: u8,
    /// Chroma format (0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4), from `sampling`.
    pub chroma_format: Option<u8>,
    /// Frames a second, from `exactframerate`; (0, 0) when unknown.
    pub frame_rate: (u32, u32),
    /// `interlace` is given.
    pub interlaced: bool,
    /// AV1: `profile`, `level-idx` and `tier`.
    pub av1: Option<(u8, u8, u8)>,
}

impl Default for FormatParameters {
    fn default() -> Self {
        FormatParameters {
            packetization_mode: 0,
            parameter_sets: Vec::new(),
            interleaving_depth: None,
            max_don_diff: None,
            depack_buf_nalus: None,
            au_header: AuHeader::default(),
            config: Vec::new(),
            config_in_band: true,
            channels: 0,
            slice_mode: None,
            sequential: true,
            width: 0,
            height: 0,
            depth: 0,
            chroma_format: None,
            frame_rate: (0, 0),
            interlaced: false,
            av1: None,
        }
    }
}

/// RFC 3640, 4.1: the form of the AU headers, in bits. The default is that of AAC-hbr (3.3.6),
/// which all senders met use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuHeader {
    /// `sizeLength`.
    pub size_length: u8,
    /// `indexLength`.
    pub index_length: u8,
    /// `indexDeltaLength`.
    pub index_delta_length: u8,
    /// `CTSDeltaLength`.
    pub cts_delta_length: u8,
    /// `DTSDeltaLength`.
    pub dts_delta_length: u8,
    /// `randomAccessIndication`.
    pub random_access: bool,
    /// `streamStateIndication`.
    pub stream_state_length: u8,
    /// `auxiliaryDataSizeLength`.
    pub auxiliary_size_length: u8,
    /// `constantSize`: bytes of every access unit, 0 when they differ.
    pub constant_size: u32,
    /// `constantDuration`: clock ticks of every access unit, 0 when not said.
    pub constant_duration: u32,
}

impl Default for AuHeader {
    fn default() -> Self {
        AuHeader {
            size_length: 13,
            index_length: 3,
            index_delta_length: 3,
            ..AuHeader::GENERIC
        }
    }
}

impl AuHeader {
    /// 4.1: absent lengths are 0.
    const GENERIC: AuHeader = AuHeader {
        size_length: 0,
        index_length: 0,
        index_delta_length: 0,
        cts_delta_length: 0,
        dts_delta_length: 0,
        random_access: false,
        stream_state_length: 0,
        auxiliary_size_length: 0,
        constant_size: 0,
        constant_duration: 0,
    };
}

/// A known parameter with a value that its standard does not allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadParameter {
    /// Its name, in lower case.
    pub name: String,
}

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the value of format parameter {} is not valid",
            self.name
        )
    }
}

impl core::error::Error for BadParameter {}

impl FormatParameters {
    /// Reads the part of `a=fmtp` that follows the payload type. Names are of any case, blanks
    /// may surround them, and unknown ones are passed over.
    ///
    /// # Errors
    /// The first known parameter whose value is malformed or out of range.
    pub fn parse(format: PayloadFormat, fmtp: &str) -> Result<Self, BadParameter> {
        let mut p = FormatParameters::default();
        // HEVC sends its sets in any order; they are wanted in decoding order.
        let mut sets: [Vec<Vec<u8>>; 3] = Default::default();
        let pairs = || {
            fmtp.split(';').filter_map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let name = name.trim().to_ascii_lowercase();
                (!name.is_empty()).then_some((name, value.trim()))
            })
        };
        if format == PayloadFormat::Mpeg4Generic && pairs().any(|(n, _)| n.ends_with("length")) {
            p.au_header = AuHeader::GENERIC;
        }
        for (name, value) in pairs() {
            let good = match format {
                PayloadFormat::H264 => p.set_h264(&name, value),
                PayloadFormat::H265 => p.set_h265(&name, value, &mut sets),
                PayloadFormat::Mpeg4Generic => p.set_mpeg4_generic(&name, value),
                PayloadFormat::Mp4aLatm => p.set_latm(&name, value),
                PayloadFormat::Jxsv => p.set_jxsv(&name, value),
                PayloadFormat::Av1 => p.set_av1(&name, value),
                PayloadFormat::Opus if name == "sprop-stereo" => {
                    number(value, 0, 1).map(|n: u8| p.channels = n + 1)
                }
                _ => Some(()),
            };
            if good.is_none() {
                return Err(BadParameter { name });
            }
        }
        p.parameter_sets.extend(sets.into_iter().flatten());
        p.parameter_sets.truncate(MAX_PARAMETER_SETS);
        Ok(p)
    }

    /// RFC 6184, 8.1.
    fn set_h264(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "packetization-mode" => self.packetization_mode = number(value, 0, 2)?,
            "sprop-parameter-sets" => self.parameter_sets = nal_units(value)?,
            "sprop-interleaving-depth" => {
                self.interleaving_depth = Some(number(value, 0, 32_767)?);
            }
            "sprop-max-don-diff" => self.max_don_diff = Some(number(value, 0, 32_767)?),
            _ => {}
        }
        Some(())
    }

    /// RFC 7798, 7.1.
    fn set_h265(&mut self, name: &str, value: &str, sets: &mut [Vec<Vec<u8>>; 3]) -> Option<()> {
        let [vps, sps, pps] = sets;
        match name {
            "sprop-vps" => *vps = nal_units(value)?,
            "sprop-sps" => *sps = nal_units(value)?,
            "sprop-pps" => *pps = nal_units(value)?,
            "sprop-max-don-diff" => self.max_don_diff = Some(number(value, 0, 32_767)?),
            "sprop-depack-buf-nalus" => self.depack_buf_nalus = Some(number(value, 0, 32_767)?),
            _ => {}
        }
        Some(())
    }

    /// RFC 3640, 4.1.
    fn set_mpeg4_generic(&mut self, name: &str, value: &str) -> Option<()> {
        let h = &mut self.au_header;
        match name {
            "sizelength" => h.size_length = number(value, 0, 32)?,
            "indexlength" => h.index_length = number(value, 0, 32)?,
            "indexdeltalength" => h.index_delta_length = number(value, 0, 32)?,
            "ctsdeltalength" => h.cts_delta_length = number(value, 0, 32)?,
            "dtsdeltalength" => h.dts_delta_length = number(value, 0, 32)?,
            "randomaccessindication" => h.random_access = number::<u8>(value, 0, 1)? == 1,
            "streamstateindication" => h.stream_state_length = number(value, 0, 32)?,
            "auxiliarydatasizelength" => h.auxiliary_size_length = number(value, 0, 32)?,
            "constantsize" => h.constant_size = number(value, 0, 65_535)?,
            "constantduration" => h.constant_duration = number(value, 0, 1 << 24)?,
            "config" => self.config = hexadecimal(value)?,
            _ => {}
        }
        Some(())
    }

    /// RFC 6416, 7.3.
    fn set_latm(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "cpresent" => self.config_in_band = number::<u8>(value, 0, 1)? == 1,
            "config" => self.config = hexadecimal(value)?,
            _ => {}
        }
        Some(())
    }

    /// RFC 9134, 7.1.
    fn set_jxsv(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "packetmode" => self.slice_mode = Some(number::<u8>(value, 0, 1)? == 1),
            "transmode" => self.sequential = number::<u8>(value, 0, 1)? == 1,
            "width" => self.width = number(value, 1, 32_767)?,
            "height" => self.height = number(value, 1, 32_767)?,
            // "16f" is floating point.
            "depth" => self.depth = number(value.trim_end_matches('f'), 1, 16)?,
            "sampling" => self.chroma_format = chroma_format(value),
            "exactframerate" => {
                let (n, d) = value.split_once('/').unwrap_or((value, "1"));
                self.frame_rate = (number(n, 1, u32::MAX)?, number(d, 1, u32::MAX)?);
            }
            "interlace" => self.interlaced = true,
            _ => {}
        }
        Some(())
    }

    fn set_av1(&mut self, name: &str, value: &str) -> Option<()> {
        let (profile, level, tier) = self.av1.get_or_insert((0, 5, 0));
        match name {
            "profile" => *profile = number(value, 0, 7)?,
            "level-idx" => *level = number(value, 0, 31)?,
            "tier" => *tier = number(value, 0, 1)?,
            _ => {}
        }
        Some(())
    }
}

/// `sampling` of RFC 9134, 7.1.
fn chroma_format(value: &str) -> Option<u8> {
    let (_, family) = value.split_once('-').unwrap_or(("", value));
    match family {
        "4:4:4" => Some(3),
        "4:2:2" => Some(2),
        "4:2:0" => Some(1),
        "" => None,
        _ if value.starts_with("RGB") || value == "XYZ" => Some(3),
        _ => None,
    }
}

/// A decimal number within bounds.
fn number<T: core::str::FromStr + PartialOrd>(value: &str, low: T, high: T) -> Option<T> {
    let n = value.parse().ok()?;
    (low <= n && n <= high).then_some(n)
}

/// RFC 4648, 8.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_matches('"').as_bytes();
    if text.len() > 2 * MAX_CONFIG {
        return None;
    }
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    // RFC 6416 lets a StreamMuxConfig end on a half byte.
    text.chunks(2)
        .map(|pair| match *pair {
            [a, b] => Some(digit(a)? << 4 | digit(b)?),
            [a] => Some(digit(a)? << 4),
            _ => None,
        })
        .collect()
}

/// NAL units in base 64, with commas between them.
fn nal_units(list: &str) -> Option<Vec<Vec<u8>>> {
    let mut units = Vec::new();
    for text in list.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        if units.len() == MAX_PARAMETER_SETS {
            return None;
        }
        let nal = base64(text)?;
        if nal.is_empty() {
            return None;
        }
        units.push(nal);
    }
    Some(units)
}

/// RFC 4648, 4; padding may lack.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() > MAX_CONFIG * 4 / 3 || text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for &c in text {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(format: PayloadFormat, fmtp: &str) -> FormatParameters {
        FormatParameters::parse(format, fmtp).unwrap()
    }

    #[test]
    fn names_and_static_types_lead_to_formats() {
        for &format in PayloadFormat::ALL {
            let name = format.encoding_name();
            for name in [
                name.to_owned(),
                name.to_ascii_lowercase(),
                name.to_ascii_uppercase(),
            ] {
                assert_eq!(PayloadFormat::from_encoding_name(&name), Some(format));
            }
            if format != PayloadFormat::Mp2t {
                assert_eq!(PayloadFormat::of_codec(format.codec()), Some(format));
            }
        }
        assert_eq!(PayloadFormat::from_encoding_name("rtx"), None);
        assert_eq!(PayloadFormat::of_codec(Codec::Unknown), None);
        assert_eq!(
            PayloadFormat::from_static_type(11),
            Some((PayloadFormat::L16, 44_100, 1))
        );
    }

    #[test]
    fn h264_parameters_are_read_whatever_their_case_and_blanks() {
        let p = parse(
            PayloadFormat::H264,
            "Packetization-Mode=2; profile-level-id=64000C;\
             sprop-parameter-sets=Z2QADKzZQsTsBEAAAAMAQAAADIPFCmWA,aO+8sA==; \
             sprop-interleaving-depth=3;sprop-max-don-diff=7;",
        );
        assert_eq!((p.packetization_mode, p.interleaving_depth), (2, Some(3)));
        assert_eq!(p.max_don_diff, Some(7));
        assert_eq!(p.parameter_sets.len(), 2);
        assert_eq!(p.parameter_sets[0][..4], [0x67, 0x64, 0, 0x0C]);
        assert_eq!(p.parameter_sets[1], [0x68, 0xEF, 0xBC, 0xB0]);
    }

    #[test]
    fn h265_parameter_sets_are_put_in_decoding_order() {
        let p = parse(
            PayloadFormat::H265,
            "sprop-pps=RAE=; sprop-sps=QgE; sprop-vps=QAE=,QAI=; sprop-max-don-diff=2",
        );
        let heads: Vec<_> = p.parameter_sets.iter().map(|n| n[0]).collect();
        assert_eq!(heads, [0x40, 0x40, 0x42, 0x44]);
        assert_eq!(p.max_don_diff, Some(2));
    }

    #[test]
    fn audio_headers_default_to_aac_hbr_only_where_nothing_is_said() {
        let p = parse(
            PayloadFormat::Mpeg4Generic,
            "streamtype=5; mode=AAC-lbr; config=1188; SizeLength=6; IndexLength=2; \
             IndexDeltaLength=2; constantDuration=1024",
        );
        let h = p.au_header;
        assert_eq!(
            (h.size_length, h.index_length, h.index_delta_length),
            (6, 2, 2)
        );
        assert_eq!((h.constant_duration, p.config), (1024, vec![0x11, 0x88]));
        let p = parse(PayloadFormat::Mpeg4Generic, "mode=AAC-hbr");
        assert_eq!(p.au_header, AuHeader::default());
        let p = parse(PayloadFormat::Mp4aLatm, "cpresent=0;config=400023103fc0");
        assert!(!p.config_in_band && p.config == [0x40, 0, 0x23, 0x10, 0x3F, 0xC0]);
    }

    #[test]
    fn jpeg_xs_parameters_describe_the_picture() {
        let p = parse(
            PayloadFormat::Jxsv,
            "packetmode=1;transmode=0;width=1920;height=1080;depth=10;sampling=YCbCr-4:2:2;\
             exactframerate=30000/1001;interlace;colorimetry=BT709",
        );
        assert_eq!((p.slice_mode, p.sequential), (Some(true), false));
        assert_eq!((p.width, p.height, p.depth), (1920, 1080, 10));
        assert_eq!((p.chroma_format, p.interlaced), (Some(2), true));
        assert_eq!(p.frame_rate, (30_000, 1_001));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (format, fmtp, name) in [
            (
                PayloadFormat::H264,
                "packetization-mode=3",
                "packetization-mode",
            ),
            (
                PayloadFormat::H264,
                "Sprop-Parameter-Sets=A$",
                "sprop-parameter-sets",
            ),
            (PayloadFormat::Mpeg4Generic, "sizelength=33", "sizelength"),
            (PayloadFormat::Mpeg4Generic, "config=1g", "config"),
            (PayloadFormat::Jxsv, "width=0", "width"),
            (PayloadFormat::Jxsv, "exactframerate=25/0", "exactframerate"),
        ] {
            let bad = FormatParameters::parse(format, fmtp).unwrap_err();
            assert_eq!(bad.name, name);
        }
        // A bomb of parameter sets.
        let many = "QAE=,".repeat(1000);
        assert!(
            FormatParameters::parse(PayloadFormat::H265, &format!("sprop-vps={many}")).is_err()
        );
        let long = "A".repeat(1 << 20);
        assert!(
            FormatParameters::parse(PayloadFormat::H265, &format!("sprop-vps={long}")).is_err()
        );
        assert!(
            FormatParameters::parse(PayloadFormat::Mpeg4Generic, &format!("config={long}"))
                .is_err()
        );
    }

    #[test]
    fn unknown_parameters_and_stray_separators_are_passed_over() {
        let p = parse(PayloadFormat::Opus, ";; stereo=1;sprop-stereo=1;=3;x");
        assert_eq!(p.channels, 2);
    }
}
