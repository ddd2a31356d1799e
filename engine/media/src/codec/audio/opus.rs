//! Opus packets (RFC 6716, 3), and the control header before each of them in MPEG-TS.

use super::AudioInfo;

/// Samples of 120 ms: the longest packet (RFC 6716, 3.2.5).
const MAX_SAMPLES: u32 = 5760;
/// The longest frame (3.2.1).
const MAX_FRAME: usize = 1275;

/// What a whole packet tells: [`AudioInfo::samples`] at 48 kHz. `None` for a packet that breaks
/// the rules of 3.4.
pub fn packet(data: &[u8]) -> Option<AudioInfo> {
    let (&toc, frames) = data.split_first()?;
    match toc & 3 {
        0 if frames.len() <= MAX_FRAME => {}
        // R3: two of equal length.
        1 if frames.len() % 2 == 0 && frames.len() <= 2 * MAX_FRAME => {}
        2 => {
            let (first, header) = frame_length(frames)?;
            let second = frames.len().checked_sub(first + header)?;
            (second <= MAX_FRAME).then_some(())?;
        }
        3 => several(frames)?,
        _ => return None,
    }
    let info = head(data)?;
    Some(AudioInfo {
        frame_bytes: data.len(),
        ..info
    })
}

/// What a packet's first two bytes tell, the lengths of its frames unseen (3.1).
pub fn head(data: &[u8]) -> Option<AudioInfo> {
    let &toc = data.first()?;
    let config = usize::from(toc >> 3);
    let one = *match config {
        0..12 => [480, 960, 1920, 2880].get(config % 4),
        12..16 => [480, 960].get(config % 2),
        _ => [120, 240, 480, 960].get(config % 4),
    }?;
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(data.get(1)? & 0x3F),
    };
    let samples = one * count;
    (1..=MAX_SAMPLES).contains(&samples).then_some(AudioInfo {
        sample_rate: 48_000,
        channels: if toc & 4 != 0 { 2 } else { 1 },
        profile: "",
        frame_bytes: 0,
        samples,
    })
}

/// 3.2.1: a frame's length, and the bytes that tell it.
fn frame_length(data: &[u8]) -> Option<(usize, usize)> {
    match *data {
        [n @ 0..=251, ..] => Some((usize::from(n), 1)),
        [a, b, ..] => Some((usize::from(b) * 4 + usize::from(a), 2)),
        _ => None,
    }
}

/// 3.2.5: `v(1) p(1) M(6)`, padding, lengths.
fn several(data: &[u8]) -> Option<()> {
    let (&head, mut rest) = data.split_first()?;
    let count = usize::from(head & 0x3F);
    if count == 0 || count > 48 {
        return None;
    }
    if head & 0x40 != 0 {
        let mut padding = 0;
        loop {
            let (&n, after) = rest.split_first()?;
            rest = after;
            padding += usize::from(n.min(254));
            if n != 255 {
                break;
            }
        }
        rest = rest.get(..rest.len().checked_sub(padding)?)?;
    }
    if head & 0x80 == 0 {
        let fits = rest.len() % count == 0 && rest.len() / count <= MAX_FRAME;
        return fits.then_some(());
    }
    let mut bytes = 0;
    for _ in 1..count {
        let (length, header) = frame_length(rest)?;
        rest = rest.get(header..)?;
        bytes += length;
    }
    let last = rest.len().checked_sub(bytes)?;
    (last <= MAX_FRAME).then_some(())
}

/// The control header (Opus in MPEG-TS, 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlHeader {
    /// Its own bytes.
    pub bytes: usize,
    /// Bytes of the packet behind it.
    pub packet_bytes: usize,
    /// Samples to be cut off at the packet's beginning.
    pub start_trim: u16,
    /// Samples to be cut off at its end.
    pub end_trim: u16,
}

/// The control header at the beginning of `data`.
pub fn control_header(data: &[u8]) -> Option<ControlHeader> {
    let &[0x7F, flags, ..] = data else {
        return None;
    };
    if flags & 0xE0 != 0xE0 {
        return None;
    }
    let sizes = data.get(2..)?;
    let full = sizes.iter().take_while(|&&b| b == 0xFF).count();
    let packet_bytes = full * 255 + usize::from(*sizes.get(full)?);
    let mut at = 3 + full;
    let mut trim = |present: bool| {
        if !present {
            return Some(0);
        }
        let field = data.get(at..)?.first_chunk::<2>()?;
        at += 2;
        Some(u16::from_be_bytes(*field) & 0x1FFF)
    };
    let start_trim = trim(flags & 0x10 != 0)?;
    let end_trim = trim(flags & 0x08 != 0)?;
    if flags & 0x04 != 0 {
        at += 1 + usize::from(*data.get(at)?);
    }
    (at <= data.len()).then_some(ControlHeader {
        bytes: at,
        packet_bytes,
        start_trim,
        end_trim,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(data: &[u8]) -> Option<u32> {
        packet(data).map(|i| i.samples)
    }

    #[test]
    fn the_toc_byte_tells_how_long_a_packet_sounds() {
        assert_eq!(samples(&[0xFC, 1, 2]), Some(960));
        assert_eq!(packet(&[0xFC, 1]).unwrap().channels, 2);
        assert_eq!(packet(&[0xF8]).unwrap().channels, 1);
        assert_eq!(samples(&[0x00]), Some(480));
        assert_eq!(samples(&[0x18]), Some(2880));
        assert_eq!(samples(&[0x80]), Some(120));
        assert_eq!(samples(&[0x68, 0]), Some(960));
        assert_eq!(samples(&[0xF9, 1, 2, 3, 4]), Some(1920));
        assert_eq!(samples(&[0xFA, 1, 2, 3]), Some(1920));
        assert_eq!(samples(&[0xFB, 3, 1, 2, 3]), Some(2880));
        // Variable lengths and padding.
        assert_eq!(samples(&[0xFB, 0x83, 1, 1, 9, 9, 9]), Some(2880));
        assert_eq!(samples(&[0xFB, 0x43, 2, 1, 2, 3, 0, 0]), Some(2880));
    }

    #[test]
    fn packets_that_break_the_rules_are_none() {
        assert!(packet(&[]).is_none());
        assert!(packet(&[0xF9, 1, 2, 3]).is_none(), "odd halves");
        assert!(packet(&[0xFA, 5, 2]).is_none(), "first longer than all");
        assert!(packet(&[0xFA]).is_none());
        assert!(packet(&[0xFB]).is_none());
        assert!(packet(&[0xFB, 0]).is_none(), "no frame");
        assert!(packet(&[0x1B, 3, 1, 2, 3]).is_none(), "180 ms");
        assert!(packet(&[0xFB, 0x41, 200, 1]).is_none(), "padding");
        assert!(packet(&[0xFB, 0x41, 255, 255]).is_none(), "endless padding");
        assert!(packet(&[0xFB, 2, 1]).is_none(), "unequal");
        assert!(packet(&[[0xFC].as_slice(), &[0; 1276]].concat()).is_none());
    }

    #[test]
    fn the_control_header_tells_size_and_trim() {
        let plain = control_header(&[0x7F, 0xE0, 0xFF, 45]).unwrap();
        assert_eq!((plain.bytes, plain.packet_bytes), (4, 300));
        let trimmed = control_header(&[0x7F, 0xFC, 10, 0xE1, 0x38, 0, 5, 2, 7, 7]).unwrap();
        assert_eq!((trimmed.bytes, trimmed.packet_bytes), (10, 10));
        assert_eq!((trimmed.start_trim, trimmed.end_trim), (0x138, 5));
        for cut in 0..7 {
            assert!(control_header(&[0x7F, 0xFC, 10, 0xE1, 0x38, 0, 5][..cut]).is_none());
        }
        assert!(control_header(&[0x7F, 0x60, 10]).is_none());
    }

    #[test]
    fn a_control_header_whose_extension_is_longer_than_the_data_is_none() {
        let header = [0x7F, 0xE4, 10, 3, 1, 2, 3];
        assert_eq!(control_header(&header).map(|h| h.bytes), Some(7));
        for cut in 0..7 {
            assert!(control_header(&header[..cut]).is_none(), "{cut}");
        }
    }
}
