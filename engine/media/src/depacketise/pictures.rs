//! What stands before the media of VP8 (RFC 7741, 4.2) and VP9 (RFC 9628, 4.2) packets, and what
//! the first bytes of their pictures tell. Called by [`super::stamped`].

use crate::FrameKind;
use crate::codec::audio::bits::Bits;

/// A VP8 or VP9 payload descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Descriptor {
    /// Its own bytes.
    pub(crate) bytes: usize,
    /// A picture's (VP9: a layer frame's) data begin behind it.
    pub(crate) begins: bool,
    /// VP8: no other picture refers to this one.
    pub(crate) discardable: bool,
    /// VP9: inter-picture predicted.
    pub(crate) predicted: bool,
    /// Temporal layer.
    pub(crate) temporal_id: u8,
    /// VP9: spatial layer.
    pub(crate) spatial_id: u8,
}

/// What a key picture's header tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PictureInfo {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) bit_depth: u8,
    /// 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub(crate) chroma_format: u8,
    pub(crate) profile: &'static str,
}

/// A picture's kind, and what its header tells if it is a key picture.
pub(crate) type Picture = (FrameKind, Option<PictureInfo>);

/// Reads one byte after the other.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.at)?;
        self.at += 1;
        Some(byte)
    }
}

/// RFC 7741, 4.2.
pub(crate) fn vp8_descriptor(payload: &[u8]) -> Option<Descriptor> {
    let mut r = Reader {
        data: payload,
        at: 0,
    };
    let first = r.byte()?;
    let mut d = Descriptor {
        begins: first & 0x10 != 0 && first & 0x07 == 0,
        discardable: first & 0x20 != 0,
        ..Descriptor::default()
    };
    if first & 0x80 != 0 {
        let extension = r.byte()?;
        if extension & 0x80 != 0 && r.byte()? & 0x80 != 0 {
            r.byte()?;
        }
        if extension & 0x40 != 0 {
            r.byte()?;
        }
        if extension & 0x30 != 0 {
            let layers = r.byte()?;
            if extension & 0x20 != 0 {
                d.temporal_id = layers >> 6;
            }
        }
    }
    d.bytes = r.at;
    Some(d)
}

/// RFC 9628, 4.2.
pub(crate) fn vp9_descriptor(payload: &[u8]) -> Option<Descriptor> {
    let mut r = Reader {
        data: payload,
        at: 0,
    };
    let first = r.byte()?;
    let flexible = first & 0x10 != 0;
    let mut d = Descriptor {
        begins: first & 0x08 != 0,
        predicted: first & 0x40 != 0,
        ..Descriptor::default()
    };
    if first & 0x80 != 0 && r.byte()? & 0x80 != 0 {
        r.byte()?;
    }
    if first & 0x20 != 0 {
        let layers = r.byte()?;
        d.temporal_id = layers >> 5;
        d.spatial_id = layers >> 1 & 7;
        if !flexible {
            r.byte()?;
        }
    }
    if flexible && d.predicted {
        // 4.2: at most three reference indexes.
        let mut references = 1;
        while r.byte()? & 1 != 0 {
            references += 1;
            if references > 3 {
                return None;
            }
        }
    }
    if first & 0x02 != 0 {
        scalability_structure(&mut r)?;
    }
    d.bytes = r.at;
    Some(d)
}

/// RFC 9628, 4.2.1.
fn scalability_structure(r: &mut Reader<'_>) -> Option<()> {
    let head = r.byte()?;
    if head & 0x10 != 0 {
        r.at += 4 * (usize::from(head >> 5) + 1);
    }
    if head & 0x08 != 0 {
        for _ in 0..r.byte()? {
            let picture = r.byte()?;
            r.at += usize::from(picture >> 2 & 3);
        }
    }
    Some(())
}

/// RFC 6386, 9.1: the kind of a picture whose data begin here.
pub(crate) fn vp8_picture(data: &[u8]) -> Option<Picture> {
    let &[tag, ..] = data else { return None };
    if tag & 1 != 0 {
        return Some((FrameKind::P, None));
    }
    let &[_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1] = data.first_chunk::<10>()? else {
        return None;
    };
    let info = PictureInfo {
        width: u32::from(u16::from_le_bytes([w0, w1]) & 0x3FFF),
        height: u32::from(u16::from_le_bytes([h0, h1]) & 0x3FFF),
        bit_depth: 8,
        chroma_format: 1,
        profile: profile(tag >> 1 & 7),
    };
    Some((FrameKind::Idr, Some(info)))
}

const fn profile(number: u8) -> &'static str {
    match number {
        0 => "Profile 0",
        1 => "Profile 1",
        2 => "Profile 2",
        3 => "Profile 3",
        _ => "",
    }
}

/// VP9 bitstream specification, 6.2 (uncompressed_header).
pub(crate) fn vp9_picture(data: &[u8]) -> Option<Picture> {
    let mut bits = Bits::new(data);
    if bits.u(2)? != 2 {
        return None;
    }
    let number = bits.byte(1)? | bits.byte(1)? << 1;
    if number == 3 {
        bits.u(1)?;
    }
    let show_existing = bits.flag()?;
    if show_existing || bits.flag()? {
        return Some((FrameKind::P, None));
    }
    bits.u(2)?;
    if bits.u(24)? != 0x49_8342 {
        return None;
    }
    let bit_depth = match number {
        0 | 1 => 8,
        _ if bits.flag()? => 12,
        _ => 10,
    };
    let chroma_format = if bits.u(3)? == 7 {
        // CS_RGB: 4:4:4, in profiles 1 and 3 only.
        bits.u(u32::from(number & 1))?;
        3
    } else {
        bits.u(1)?;
        match number & 1 {
            0 => 1,
            _ => match bits.u(3)? >> 1 {
                0 => 3,
                2 => 2,
                _ => 1,
            },
        }
    };
    let info = PictureInfo {
        width: bits.u(16)? + 1,
        height: bits.u(16)? + 1,
        bit_depth,
        chroma_format,
        profile: profile(number),
    };
    Some((FrameKind::Idr, Some(info)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_descriptors_are_passed_over_whatever_they_hold() {
        let of = |p: &[u8]| vp8_descriptor(p).map(|d| (d.bytes, d.begins, d.temporal_id));
        assert_eq!(of(&[0x10, 0]), Some((1, true, 0)));
        assert_eq!(of(&[0x00, 0]), Some((1, false, 0)));
        assert_eq!(of(&[0x11, 0]), Some((1, false, 0)), "second partition");
        assert_eq!(of(&[0x90, 0x80, 5, 0]), Some((3, true, 0)));
        assert_eq!(of(&[0x90, 0x80, 0x85, 1, 0]), Some((4, true, 0)));
        assert_eq!(of(&[0x90, 0xF0, 0x85, 1, 2, 0x80, 0]), Some((6, true, 2)));
        assert_eq!(of(&[0x90]), None);
        assert_eq!(of(&[0x90, 0x80, 0x85]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn vp8_key_pictures_tell_their_size() {
        let key = [0x50, 0, 0, 0x9D, 1, 0x2A, 0x80, 0x02, 0x68, 0x41];
        let (kind, info) = vp8_picture(&key).unwrap();
        let info = info.unwrap();
        assert_eq!((kind, info.width, info.height), (FrameKind::Idr, 640, 360));
        assert_eq!(vp8_picture(&[0x51, 0]).unwrap().0, FrameKind::P);
        assert!(vp8_picture(&key[..9]).is_none());
    }

    #[test]
    fn vp9_descriptors_are_passed_over_whatever_they_hold() {
        let of = |p: &[u8]| vp9_descriptor(p).map(|d| d.bytes);
        assert_eq!(of(&[0x0C, 0]), Some(1));
        assert_eq!(of(&[0x8C, 0x81, 2, 0]), Some(3));
        // Layers, non-flexible: TL0PICIDX.
        assert_eq!(of(&[0xA8, 1, 0x20, 7, 0]), Some(4));
        // Flexible: three references at the most.
        assert_eq!(of(&[0xD0, 1, 3, 3, 2, 0]), Some(5));
        assert_eq!(of(&[0xD0, 1, 3, 3, 3, 2]), None);
        // Scalability structure: two layers with sizes, one picture with two references.
        let ss = [0x0A, 0x38, 0, 1, 0, 1, 0, 2, 0, 2, 1, 0x08, 1, 2, 9];
        assert_eq!(of(&ss), Some(14));
        assert_eq!(of(&[0x8C]), None);
    }

    #[test]
    fn vp9_key_pictures_tell_their_size() {
        // marker 2, profile 0, key frame, sync code, color_space 1, 1279 × 719.
        let bits = format!(
            "10000010{:024b}0010{:016b}{:016b}00000",
            0x49_8342, 1279, 719
        );
        let data: Vec<u8> = (0..bits.len() / 8)
            .map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap())
            .collect();
        let (kind, info) = vp9_picture(&data).unwrap();
        let info = info.unwrap();
        assert_eq!((kind, info.width, info.height), (FrameKind::Idr, 1280, 720));
        assert_eq!((info.bit_depth, info.chroma_format), (8, 1));
        assert_eq!(vp9_picture(&[0b1000_0100]).unwrap().0, FrameKind::P);
        assert!(vp9_picture(&[0x49, 0x83]).is_none());
    }
}
