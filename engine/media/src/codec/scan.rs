//! How pictures were scanned, and which of their fields is shown first, by what their own headers
//! and SEI messages say: `pic_struct` with `ct_type` (H.264 table D-1 and D-2) or
//! `source_scan_type` (HEVC table D.2), and MPEG-2's picture coding extension. A sequence header
//! only says whether fields are possible: encoders set that for progressive pictures too, because
//! a country's broadcast profile asks for it. Called by [`super::sei`] and [`super::mpeg2`].

use super::bits::BitReader;
use super::sei::TimingSyntax;

/// What one picture says of its scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// All of it is of one moment.
    Progressive,
    /// Two fields, the top one first.
    TopFirst,
    /// Two fields, the bottom one first.
    BottomFirst,
    /// H.264: a frame whose fields are to be shown one after the other, the top one first. Whether
    /// they are of one moment it does not say.
    ShownTopFirst,
    /// The same with the bottom one first.
    ShownBottomFirst,
    /// HEVC: a top field by itself. That of a random access point is its frame's first.
    TopField,
    /// HEVC: a bottom field by itself.
    BottomField,
}

impl Scan {
    /// Whether a picture says this of a stream of which `known` is known: film that is told so is
    /// not made video by frames that are merely shown as fields, and where film and video take
    /// turns it is video.
    pub fn is_news(self, known: Option<Scan>) -> bool {
        let weight = |scan: Scan| match scan {
            Scan::ShownTopFirst | Scan::ShownBottomFirst => 0,
            Scan::Progressive => 1,
            _ => 2,
        };
        known.is_none_or(|known| known != self && weight(known) <= weight(self))
    }
}

/// H.264's `pic_struct`, and the first `ct_type` if there is one. `None`: nothing is known.
pub fn h264(pic_struct: u32, ct_type: Option<u32>, syntax: TimingSyntax) -> Option<Scan> {
    if ct_type == Some(0) {
        return Some(Scan::Progressive);
    }
    // Table D-1 has 3 and 4 for frames that are shown as two fields: interlaced for the display. How
    // they were scanned is ct_type's to say (table D-2). Without it, and without macroblocks in
    // fields, such a frame is of a film (3:2 pulldown), or segmented (25 pictures in 50 fields), or
    // of an encoder that has no tools for fields: what the SPS allows stands, with this order, until
    // another picture says more.
    let interlaced = ct_type == Some(1) || syntax.adaptive;
    match pic_struct {
        // Fields, each with a message; that of the first one counts.
        1 => Some(Scan::TopFirst),
        2 => Some(Scan::BottomFirst),
        3 if interlaced => Some(Scan::TopFirst),
        4 if interlaced => Some(Scan::BottomFirst),
        3 => Some(Scan::ShownTopFirst),
        4 => Some(Scan::ShownBottomFirst),
        // A frame; one whose first field is repeated; one that is shown twice or three times.
        0 | 5..=8 => Some(Scan::Progressive),
        _ => None,
    }
}

/// HEVC's picture timing message (D.2.3), if the SPS says that it tells of fields.
pub fn h265(payload: &[u8], syntax: TimingSyntax) -> Option<Scan> {
    if !syntax.pic_struct {
        return None;
    }
    let mut r = BitReader::raw(payload);
    let (pic_struct, source) = (r.u(4)?, r.u(2)?);
    if source == 1 {
        return Some(Scan::Progressive);
    }
    match pic_struct {
        1 => Some(Scan::TopField),
        2 => Some(Scan::BottomField),
        // A frame of both; fields that say which neighbour they are paired with.
        3 | 10 | 11 => Some(Scan::TopFirst),
        4 | 9 | 12 => Some(Scan::BottomFirst),
        0 | 5..=8 => Some(Scan::Progressive),
        _ => None,
    }
}

/// MPEG-2's picture_structure, top_field_first and progressive_frame (6.3.10).
pub const fn mpeg2(structure: u8, top_first: bool, progressive: bool) -> Option<Scan> {
    match (structure, progressive) {
        (1, _) => Some(Scan::TopFirst),
        (2, _) => Some(Scan::BottomFirst),
        (3, true) => Some(Scan::Progressive),
        (3, false) if top_first => Some(Scan::TopFirst),
        (3, false) => Some(Scan::BottomFirst),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: TimingSyntax = TimingSyntax {
        delay_bits: 0,
        pic_struct: true,
        adaptive: false,
    };
    const ADAPTIVE: TimingSyntax = TimingSyntax {
        adaptive: true,
        ..PLAIN
    };

    #[test]
    fn frames_with_an_order_of_fields_are_interlaced_if_they_can_hold_fields() {
        assert_eq!(h264(3, None, ADAPTIVE), Some(Scan::TopFirst));
        assert_eq!(h264(4, None, ADAPTIVE), Some(Scan::BottomFirst));
        assert_eq!(h264(3, None, PLAIN), Some(Scan::ShownTopFirst));
        assert_eq!(h264(4, Some(2), PLAIN), Some(Scan::ShownBottomFirst));
        assert_eq!(h264(4, Some(1), PLAIN), Some(Scan::BottomFirst));
        assert_eq!(h264(3, Some(0), ADAPTIVE), Some(Scan::Progressive));
        assert_eq!(h264(1, None, PLAIN), Some(Scan::TopFirst));
        for film in [0, 5, 6, 7, 8] {
            assert_eq!(h264(film, None, ADAPTIVE), Some(Scan::Progressive));
        }
        assert_eq!(h264(9, None, ADAPTIVE), None);
    }

    #[test]
    fn what_is_merely_shown_as_fields_gives_way_to_what_says_how_it_was_scanned() {
        use Scan::{BottomFirst, Progressive, ShownBottomFirst, ShownTopFirst, TopFirst};
        for scan in [ShownTopFirst, Progressive, TopFirst] {
            assert!(scan.is_news(None) && !scan.is_news(Some(scan)));
        }
        // 3:2 pulldown: three fields are a film's, whichever came first.
        assert!(Progressive.is_news(Some(ShownTopFirst)));
        assert!(!ShownBottomFirst.is_news(Some(Progressive)));
        assert!(TopFirst.is_news(Some(ShownTopFirst)) && TopFirst.is_news(Some(Progressive)));
        assert!(!Progressive.is_news(Some(TopFirst)) && !ShownTopFirst.is_news(Some(BottomFirst)));
        assert!(BottomFirst.is_news(Some(TopFirst)));
    }

    #[test]
    fn hevc_says_how_its_source_was_scanned() {
        let read = |pic_struct: u8, source: u8| h265(&[pic_struct << 4 | source << 2, 0], PLAIN);
        assert_eq!(read(1, 0), Some(Scan::TopField));
        assert_eq!(read(12, 0), Some(Scan::BottomFirst));
        assert_eq!(read(3, 2), Some(Scan::TopFirst));
        assert_eq!(read(3, 1), Some(Scan::Progressive));
        assert_eq!(read(0, 2), Some(Scan::Progressive));
        assert_eq!(read(15, 2), None);
        assert_eq!(h265(&[], PLAIN), None);
        assert_eq!(h265(&[0x10, 0], TimingSyntax::default()), None);
    }

    #[test]
    fn mpeg2_says_it_of_each_picture() {
        assert_eq!(mpeg2(3, true, false), Some(Scan::TopFirst));
        assert_eq!(mpeg2(3, false, false), Some(Scan::BottomFirst));
        assert_eq!(mpeg2(3, true, true), Some(Scan::Progressive));
        assert_eq!(mpeg2(2, false, false), Some(Scan::BottomFirst));
        assert_eq!(mpeg2(0, false, false), None);
    }
}
