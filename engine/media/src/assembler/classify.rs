//! What a NAL unit is to the boundary rules, by its header (H.264 7.4.1.2.3, HEVC 7.4.2.4.4,
//! MPEG-2 video 6.1.1).

use crate::Codec;
use crate::codec::mpeg2::code;

/// What a NAL unit is to the boundary rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// Begins a new access unit when the current one has a picture.
    Prefix(Wanted),
    /// Stands before a slice, and belongs to the access unit that the slice belongs to.
    SlicePrefix,
    /// A slice whose head is read.
    Slice,
    /// MPEG-2: a slice in that row.
    Row(u8),
    /// Stays in the current access unit, and is read for that.
    Stays(Wanted),
}

/// What a NAL unit other than a slice is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Nothing,
    Vps,
    Sps,
    Pps,
    Sei,
    /// H.264 type 20: which layer or view it is of.
    Extension,
    /// HEVC: of that layer, and not read.
    Layer(u8),
    /// HEVC: a sequence ends.
    End,
    /// MPEG-2.
    Sequence,
    Group,
    Picture,
    MpegExtension,
    UserData,
}

impl Wanted {
    /// Bytes to be read of it, header included, at most `most`.
    pub(super) fn bytes(self, most: usize) -> usize {
        match self {
            Wanted::Nothing | Wanted::Layer(_) | Wanted::End => 0,
            Wanted::Extension => 4,
            Wanted::Group | Wanted::Picture => 8,
            Wanted::MpegExtension => 16,
            Wanted::Sequence => 12,
            _ => most,
        }
    }
}

/// The class of the NAL unit that begins with `nal`.
pub(super) fn classify(codec: Codec, nal: &[u8]) -> Class {
    match (codec, nal) {
        (Codec::H264, [header, ..]) => h264(header & 0x1F),
        // F(1) type(6) layer_id(6) temporal_id_plus1(3).
        (Codec::H265, &[a, b, ..]) => {
            let layer = (a & 1) << 5 | b >> 3;
            if layer > 0 {
                return Class::Stays(Wanted::Layer(layer));
            }
            h265(a >> 1 & 0x3F)
        }
        (_, [start, ..]) => mpeg2(*start),
        _ => Class::Stays(Wanted::Nothing),
    }
}

const fn h264(kind: u8) -> Class {
    match kind {
        // 2 is a data partition with the slice header.
        1 | 2 | 5 => Class::Slice,
        7 => Class::Prefix(Wanted::Sps),
        8 => Class::Prefix(Wanted::Pps),
        6 => Class::Prefix(Wanted::Sei),
        // 7.4.1.2.3 counts it among those that begin a unit, but after the last slice only: SVC
        // and MVC put one before each slice of the base layer.
        14 => Class::SlicePrefix,
        9 | 15..=18 => Class::Prefix(Wanted::Nothing),
        20 => Class::Stays(Wanted::Extension),
        _ => Class::Stays(Wanted::Nothing),
    }
}

const fn h265(kind: u8) -> Class {
    match kind {
        0..=9 | 16..=23 => Class::Slice,
        32 => Class::Prefix(Wanted::Vps),
        33 => Class::Prefix(Wanted::Sps),
        34 => Class::Prefix(Wanted::Pps),
        39 => Class::Prefix(Wanted::Sei),
        35 | 41..=44 | 48..=55 => Class::Prefix(Wanted::Nothing),
        36 | 37 => Class::Stays(Wanted::End),
        _ => Class::Stays(Wanted::Nothing),
    }
}

fn mpeg2(start: u8) -> Class {
    match start {
        row if code::SLICES.contains(&row) => Class::Row(row),
        code::PICTURE => Class::Prefix(Wanted::Picture),
        code::SEQUENCE => Class::Prefix(Wanted::Sequence),
        code::GROUP => Class::Prefix(Wanted::Group),
        code::EXTENSION => Class::Stays(Wanted::MpegExtension),
        code::USER_DATA => Class::Stays(Wanted::UserData),
        _ => Class::Stays(Wanted::Nothing),
    }
}
