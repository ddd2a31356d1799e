//! The types at the room's door.

use mirror_base::{Instant, Position};

/// What an elementary stream is coded in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Codec {
    /// Not known (yet).
    #[default]
    Unknown,
    /// ITU-T H.264, ISO 14496-10.
    H264,
    /// ITU-T H.265, ISO 23008-2.
    H265,
    /// AOMedia AV1.
    Av1,
    /// ISO 21122, JPEG XS.
    JpegXs,
    /// ISO 11172-2 or 13818-2.
    Mpeg2Video,
    /// AAC in ADTS or RFC 3640.
    Aac,
    /// AAC in LATM/LOAS.
    AacLatm,
    /// AC-3.
    Ac3,
    /// Enhanced AC-3.
    Eac3,
    /// Opus.
    Opus,
    /// MPEG-1/2 audio.
    MpegAudio,
    /// SCTE 35 splice information.
    Scte35,
    /// SMPTE 336 KLV metadata.
    Klv,
    /// Linear PCM of 16 bits (RFC 3551).
    L16,
    /// Linear PCM of 24 bits (RFC 3190).
    L24,
    /// VP8: recognised and passed on.
    Vp8,
    /// VP9: recognised and passed on.
    Vp9,
    /// SMPTE ST 291 ancillary data: recognised and passed on.
    Ancillary,
    /// DTS, DTS-HD or DTS-UHD: named, and passed on by PES packets, as all that follow.
    Dts,
    /// AC-4 (ETSI TS 103 190).
    Ac4,
    /// PCM and coded audio of AES3 (SMPTE ST 302).
    S302m,
    /// DVB subtitles (ETSI EN 300 743).
    DvbSubtitles,
    /// Teletext (ETSI EN 300 472).
    Teletext,
    /// Data for the vertical blanking interval (ETSI EN 301 775).
    Vbi,
    /// TTML subtitles (ETSI EN 303 560).
    Ttml,
    /// ID3 tags as timed metadata.
    Id3,
    /// DVB's application information table (ETSI TS 102 809).
    Ait,
    /// DSM-CC sections (ISO 13818-6).
    DsmCc,
}

impl Codec {
    /// The name that the API shows.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Unknown => "unknown",
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Av1 => "AV1",
            Codec::JpegXs => "JPEGXS",
            Codec::Mpeg2Video => "MPEG2",
            Codec::Aac => "AAC",
            Codec::AacLatm => "AAC_LATM",
            Codec::Ac3 => "AC3",
            Codec::Eac3 => "EAC3",
            Codec::Opus => "OPUS",
            Codec::MpegAudio => "MPEG_AUDIO",
            Codec::Scte35 => "SCTE35",
            Codec::Klv => "KLV",
            Codec::L16 => "L16",
            Codec::L24 => "L24",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Ancillary => "ANC",
            Codec::Dts => "DTS",
            Codec::Ac4 => "AC4",
            Codec::S302m => "S302M",
            Codec::DvbSubtitles => "DVB_SUBTITLES",
            Codec::Teletext => "TELETEXT",
            Codec::Vbi => "VBI",
            Codec::Ttml => "TTML",
            Codec::Id3 => "ID3",
            Codec::Ait => "AIT",
            Codec::DsmCc => "DSMCC",
        }
    }

    /// Whether it is video.
    pub const fn is_video(self) -> bool {
        matches!(
            self,
            Codec::H264
                | Codec::H265
                | Codec::Av1
                | Codec::JpegXs
                | Codec::Mpeg2Video
                | Codec::Vp8
                | Codec::Vp9
        )
    }

    /// Whether it is audio.
    pub const fn is_audio(self) -> bool {
        matches!(
            self,
            Codec::Aac
                | Codec::AacLatm
                | Codec::Ac3
                | Codec::Eac3
                | Codec::Opus
                | Codec::MpegAudio
                | Codec::L16
                | Codec::L24
                | Codec::Dts
                | Codec::Ac4
                | Codec::S302m
        )
    }
}

/// What an access unit is to its decoder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FrameKind {
    /// Not a video frame, or not known.
    #[default]
    Other,
    /// Instantaneous decoder refresh: H.264 IDR, HEVC IDR_W_RADL or IDR_N_LP.
    Idr,
    /// Another random access point: HEVC CRA or BLA, H.264 recovery point with intra slices.
    Cra,
    /// Only intra slices, but no random access point.
    I,
    /// Predicted.
    P,
    /// Bi-predicted.
    B,
}

impl FrameKind {
    /// Whether decoding can start here.
    pub const fn is_key(self) -> bool {
        matches!(self, FrameKind::Idr | FrameKind::Cra)
    }
}

/// One delivered packet, as the pipeline hands it to [`crate`].
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The slot it lies in.
    pub slot: u64,
    /// When it reached the host.
    pub arrival: Instant,
    /// Packets given up just before it.
    pub lost_before: u32,
    /// The numbering starts afresh here.
    pub discontinuity: bool,
    /// RTP: timestamp. SRT: packet timestamp (unused).
    pub timestamp: u32,
    /// RTP: marker bit.
    pub marker: bool,
    /// RTP: payload type. SRT: 0.
    pub payload_type: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// Colour, in the code points of ITU-T H.273 (2: unspecified).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Colour {
    /// ColourPrimaries (8.1).
    pub primaries: u8,
    /// TransferCharacteristics (8.2): 16 is PQ, 18 is HLG.
    pub transfer: u8,
    /// MatrixCoefficients (8.3).
    pub matrix: u8,
    /// VideoFullRangeFlag.
    pub full_range: bool,
}

impl Default for Colour {
    fn default() -> Self {
        Colour {
            primaries: 2,
            transfer: 2,
            matrix: 2,
            full_range: false,
        }
    }
}

/// Which field of an interlaced frame is shown first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldOrder {
    /// The top one.
    TopFirst,
    /// The bottom one.
    BottomFirst,
}

impl FieldOrder {
    /// The name that the API shows.
    pub const fn name(self) -> &'static str {
        match self {
            FieldOrder::TopFirst => "top_first",
            FieldOrder::BottomFirst => "bottom_first",
        }
    }
}

/// Mastering display colour volume (SMPTE ST 2086; H.264 D.2.29, HEVC D.3.28, AV1 6.7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MasteringDisplay {
    /// x and y of green, blue and red, in units of 0.00002.
    pub primaries: [[u16; 2]; 3],
    /// x and y of the white point, likewise.
    pub white_point: [u16; 2],
    /// In units of 0.0001 cd/m².
    pub max_luminance: u32,
    /// In units of 0.0001 cd/m².
    pub min_luminance: u32,
}

/// Content light level (CTA-861.3; H.264 D.2.31, HEVC D.3.35, AV1 6.7.3), cd/m².
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ContentLight {
    /// MaxCLL.
    pub max: u16,
    /// MaxFALL.
    pub max_average: u16,
}

/// What a video track says besides its pictures (SEI messages, AV1 metadata), once seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SideInformation {
    /// Recovery point SEI.
    pub recovery_point: bool,
    /// Time code of the last key frame: hours, minutes, seconds, frames.
    pub timecode: Option<[u8; 4]>,
    /// CEA-608 bytes in caption data (ATSC A/53).
    pub cea608: bool,
    /// CEA-708 bytes in caption data.
    pub cea708: bool,
    /// Mastering display colour volume.
    pub mastering: Option<MasteringDisplay>,
    /// Content light level.
    pub light: Option<ContentLight>,
    /// Dynamic metadata of SMPTE ST 2094-40 (HDR10+).
    pub hdr10_plus: bool,
}

/// An elementary stream inside a stream, and what its bits have told so far.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Track {
    /// PID (MPEG-TS) or SSRC (RTP).
    pub id: u32,
    /// MPEG-TS program number, 0 where there is none.
    pub program: u16,
    /// MPEG-TS stream type, 0 where there is none.
    pub stream_type: u8,
    /// Codec, by descriptors and bits.
    pub codec: Codec,
    /// Profile's name, as the standard writes it ("High", "Main 10"); empty when unknown.
    pub profile: &'static str,
    /// Level as the standard's `level_idc` (H.264: 40 = 4.0; HEVC: 120 = 4.0), AV1's
    /// `seq_level_idx` (8 = 4.0, 31 = no limits), the high byte of JPEG XS's `Plev`
    /// (0x10 = 2k-1, 0 = no limits).
    pub level: u8,
    /// HEVC: High tier, not Main; AV1: `seq_tier` 1.
    pub high_tier: bool,
    /// Luma samples across after cropping, 0 when unknown.
    pub width: u32,
    /// Luma lines after cropping, 0 when unknown.
    pub height: u32,
    /// Frames a second as a fraction from the bit stream's timing; (0, 0) when it says nothing.
    pub frame_rate: (u32, u32),
    /// Bits per luma sample.
    pub bit_depth: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Whether the video is interlaced: as its pictures say, else whether its sequence header
    /// allows fields.
    pub interlaced: bool,
    /// Which field of a frame is shown first; `None` where there are none or it is not known.
    pub field_order: Option<FieldOrder>,
    /// Colour.
    pub colour: Colour,
    /// SEI and metadata seen.
    pub side: SideInformation,
    /// Pictures that may precede another in decoding order and follow it in display order, as
    /// the bit stream promises; else the most that were seen.
    pub reorder_depth: u8,
    /// Temporal (sub-)layers, at least 1 for video that is known.
    pub temporal_layers: u8,
    /// Spatial or other enhancement layers seen beyond the base layer.
    pub enhancement_layers: u8,
    /// AV1: film grain synthesis is asked for.
    pub film_grain: bool,
    /// AV1: coded with screen-content tools.
    pub screen_content: bool,
    /// Audio: samples a second.
    pub sample_rate: u32,
    /// Audio: channels.
    pub channels: u8,
    /// ISO 639 language of the audio or data, zeros when none.
    pub language: [u8; 3],
    /// Packets of it were scrambled, which are not read, and no whole unit has come since.
    pub scrambled: bool,
    /// No longer in its program; its index may be given to another stream.
    pub gone: bool,
}

/// See [`AccessUnit::order`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DisplayOrder {
    /// Grows with each IDR picture (or memory management operation 5).
    pub epoch: u32,
    /// PicOrderCntVal.
    pub count: i32,
}

/// One access unit: a coded picture with what belongs to it, an audio frame (or the frames of
/// one PES packet), or a metadata unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccessUnit {
    /// Index into the pipeline's tracks.
    pub track: u16,
    /// What it is.
    pub kind: FrameKind,
    /// Some of it was lost or malformed.
    pub damaged: bool,
    /// May be left out without harm to other units (non-reference).
    pub discardable: bool,
    /// Temporal (sub-)layer, 0 for the base.
    pub temporal_id: u8,
    /// Precedes its random access point in display order, and refers to what lies before it
    /// (HEVC RASL, H.264 B pictures behind an open-GOP I): not decodable when decoding began
    /// there.
    pub leading: bool,
    /// Decoding cannot have begun early enough for it: it precedes the first random access
    /// point since the stream was joined, or is leading with respect to it. It came whole for
    /// all that is known, but counts as damaged (and `damaged` is set with it).
    pub undecodable: bool,
    /// Reference pictures that precede it in decoding order never came, by its own word (HEVC
    /// reference picture set, H.264 `frame_num`): lost or left out upstream, or before the
    /// transport could tell. It came whole itself, unless `damaged` is set as well.
    pub references_missing: bool,
    /// Recovery point (H.264 D.1.8, HEVC D.2.8): decoding that begins here shows right pictures
    /// after so many more frames, 0 at once (H.264: of `frame_num`; HEVC: of picture order
    /// count). `None` where the unit carries no such message.
    pub recovery: Option<u16>,
    /// Place in display order among the units of its track, comparable as long as the track
    /// lives: an epoch that grows with each IDR, and the picture order count within it. `None`
    /// where the codec shows in decoding order or it is not known.
    pub order: Option<DisplayOrder>,
    /// Where its first byte lies.
    pub first: Position,
    /// MPEG-TS: how far into its TS packet `first` lies; 0 elsewhere.
    pub lead: u8,
    /// One past its last byte.
    pub end: Position,
    /// Bytes of elementary stream.
    pub bytes: u32,
    /// Presentation time in 90 kHz ticks, unwrapped (RTP: the media clock scaled to 90 kHz).
    pub pts: Option<i64>,
    /// Decoding time likewise; derived from the order of the pictures where the source does
    /// not say (`dts_derived`), and absent while it cannot be.
    pub dts: Option<i64>,
    /// Whether `dts` is ours.
    pub dts_derived: bool,
    /// When its first datagram reached the host.
    pub first_arrival: Instant,
    /// When the datagram that holds its last byte reached the host.
    pub last_arrival: Instant,
    /// When the datagram that *completed* it reached the host: later than `last_arrival` where
    /// only the successor shows the end (D13).
    pub completed_by: Instant,
}

impl Track {
    /// Takes over what the bits tell.
    pub fn set_video(&mut self, info: &crate::codec::VideoInfo) {
        self.profile = info.profile;
        self.level = info.level;
        self.high_tier = info.high_tier;
        self.width = info.width;
        self.height = info.height;
        self.frame_rate = info.frame_rate;
        self.bit_depth = info.bit_depth;
        self.chroma_format = info.chroma_format;
        self.interlaced = info.interlaced;
        self.field_order = info.field_order;
        self.colour = info.colour;
        self.reorder_depth = info.reorder_depth.unwrap_or(0);
        self.temporal_layers = info.temporal_layers;
        self.enhancement_layers = info.enhancement_layers;
        self.film_grain = info.film_grain;
        self.screen_content = info.screen_content;
        self.side = info.side;
    }
}
