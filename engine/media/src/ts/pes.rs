//! PES packet headers (ISO 13818-1, 2.4.3.6 and 2.4.3.7), gathered over packets where they
//! must be, and the 33-bit timestamps in them.

/// Bytes of the header that are read: up to and including the DTS.
const HEAD: usize = 19;
const FIXED: usize = 9;
/// `left` of a PES packet that says no length.
const UNBOUNDED: u32 = u32::MAX;

/// Where in a PES packet a PID is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// Before the first start, after the end, or after an error.
    #[default]
    Outside,
    /// In the header.
    Header,
    /// In the payload.
    Payload,
}

/// A PES header's facts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PesHeader {
    /// Raw 33-bit presentation time.
    pub pts: Option<u64>,
    /// Raw 33-bit decoding time.
    pub dts: Option<u64>,
    /// `PES_scrambling_control` is not 0.
    pub scrambled: bool,
}

/// Progress through the PES packets of one PID.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pes {
    /// Where it is.
    pub stage: Stage,
    head: [u8; HEAD],
    have: usize,
    /// Payload bytes still to come.
    left: u32,
}

/// What [`Pes::header`] made of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The header goes on in the next packet.
    More,
    /// It breaks the format, or is of a stream without payload for us.
    Bad,
    /// It is complete; the payload begins at that offset.
    Payload(usize, PesHeader),
}

/// 2.4.3.7: stream_ids whose packets have no optional header.
const fn is_plain(stream_id: u8) -> bool {
    matches!(stream_id, 0xBC | 0xBF | 0xF0 | 0xF1 | 0xF2 | 0xF8 | 0xFF)
}

impl Pes {
    /// A PES packet starts (payload_unit_start_indicator).
    pub const fn start(&mut self) {
        self.stage = Stage::Header;
        self.have = 0;
        self.left = UNBOUNDED;
    }

    /// What comes is payload of a PES packet whose header is not known.
    pub const fn resume(&mut self) {
        self.stage = Stage::Payload;
        self.left = UNBOUNDED;
    }

    /// Nothing more is expected of this PES packet.
    pub const fn end(&mut self) {
        self.stage = Stage::Outside;
    }

    /// Bytes were lost: the length no longer tells the end.
    pub fn lose(&mut self) {
        match self.stage {
            Stage::Header => self.stage = Stage::Outside,
            _ => self.left = UNBOUNDED,
        }
    }

    /// Whether it says a length.
    pub const fn is_bounded(&self) -> bool {
        self.left != UNBOUNDED
    }

    /// Whether bytes are known to be missing still.
    pub fn is_unfinished(&self) -> bool {
        self.stage == Stage::Header
            || (self.stage == Stage::Payload && self.is_bounded() && self.left > 0)
    }

    /// Whether it is in the payload of a PES packet that does not end with the next `n` bytes.
    #[inline]
    pub const fn goes_on(&self, n: usize) -> bool {
        matches!(self.stage, Stage::Payload) && self.left as usize > n
    }

    /// Passes over `n` bytes of which [`Pes::goes_on`] is true.
    #[inline]
    pub const fn pass(&mut self, n: usize) {
        if self.left != UNBOUNDED {
            self.left -= n as u32;
        }
    }

    /// The part of `data` that belongs to the payload, and whether the PES packet ends with it.
    #[inline]
    pub fn body<'a>(&mut self, data: &'a [u8]) -> (&'a [u8], bool) {
        if self.left == UNBOUNDED {
            return (data, false);
        }
        let (body, _) = data.split_at(data.len().min(self.left as usize));
        self.left -= u32::try_from(body.len()).unwrap_or(self.left);
        (body, self.left == 0)
    }

    /// Takes header bytes.
    pub fn header(&mut self, data: &[u8]) -> Step {
        let before = self.have;
        let free = HEAD.saturating_sub(before);
        if let (Some(place), Some(bytes)) = (
            self.head.get_mut(before..before + free.min(data.len())),
            data.get(..free.min(data.len())),
        ) {
            place.copy_from_slice(bytes);
        }
        self.have = before + data.len();
        let Some(size) = self.size() else {
            if self.have >= FIXED {
                self.stage = Stage::Outside;
                return Step::Bad;
            }
            return Step::More;
        };
        if self.have < size {
            return Step::More;
        }
        let [.., l0, l1, _, _, _] = self.head[..FIXED] else {
            return Step::Bad;
        };
        let length = u32::from(u16::from_be_bytes([l0, l1]));
        if length > 0 {
            let Some(left) = (length + 6).checked_sub(u32::try_from(size).unwrap_or(u32::MAX))
            else {
                self.stage = Stage::Outside;
                return Step::Bad;
            };
            self.left = left;
        }
        self.stage = Stage::Payload;
        Step::Payload(size - before, self.facts(size))
    }

    /// Bytes of the whole header; `None` while unknown or if it is no PES header.
    fn size(&self) -> Option<usize> {
        let [0, 0, 1, id, _, _, flags, _, length] = self.head[..FIXED] else {
            return None;
        };
        if is_plain(id) {
            return (self.have >= 6).then_some(6);
        }
        // padding_stream carries nothing; '10' marks the optional header.
        if id == 0xBE || self.have < FIXED || flags >> 6 != 2 {
            return None;
        }
        Some(FIXED + usize::from(length))
    }

    fn facts(&self, size: usize) -> PesHeader {
        if size == 6 {
            return PesHeader::default();
        }
        let [
            ..,
            flags,
            which,
            length,
            p0,
            p1,
            p2,
            p3,
            p4,
            d0,
            d1,
            d2,
            d3,
            d4,
        ] = self.head;
        let pts = which & 0x80 != 0 && length >= 5;
        let dts = which & 0xC0 == 0xC0 && length >= 10;
        PesHeader {
            pts: pts.then(|| timestamp([p0, p1, p2, p3, p4])).flatten(),
            dts: dts.then(|| timestamp([d0, d1, d2, d3, d4])).flatten(),
            scrambled: flags & 0x30 != 0,
        }
    }
}

/// 2.4.3.6: 33 bits in three parts; `None` if a marker bit is missing.
pub fn timestamp(bytes: [u8; 5]) -> Option<u64> {
    let [a, b, c, d, e] = bytes.map(u64::from);
    if a & c & e & 1 == 0 {
        return None;
    }
    Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

/// `new` near `old`, modulo 2^33.
pub fn unwrap33(old: i64, new: u64) -> i64 {
    const WRAP: i64 = 1 << 33;
    let difference = (new.cast_signed() - old).rem_euclid(WRAP);
    old + if difference >= WRAP / 2 {
        difference - WRAP
    } else {
        difference
    }
}

/// Ticks that times may step and still be on one time base: ten minutes. What steps further has
/// jumped: an encoder that begins anew is not one that wrapped.
const JUMP: i64 = 10 * 60 * 90_000;

/// `new` behind `old`: continued over the wrap, or, after a jump, as it stands, with the wraps
/// counted so far. So `time.div_euclid(1 << 33)` is the number of wraps.
pub fn follow33(old: i64, new: u64) -> i64 {
    let near = unwrap33(old, new);
    if (near - old).abs() <= JUMP {
        return near;
    }
    (old & !((1 << 33) - 1)) + new.cast_signed()
}

/// The timestamps of one program, made continuous over the 33-bit wrap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock33 {
    last: Option<i64>,
}

impl Clock33 {
    /// PTS and DTS of a PES header, unwrapped. Without DTS, DTS = PTS (2.4.3.7).
    pub fn unwrap(&mut self, header: &PesHeader) -> (Option<i64>, Option<i64>) {
        let Some(pts) = header.pts else {
            return (None, None);
        };
        let dts = self.near(header.dts.unwrap_or(pts));
        self.last = Some(dts);
        (Some(unwrap33(dts, pts)), Some(dts))
    }

    /// A raw time of the same program, unwrapped.
    pub fn near(&self, raw: u64) -> i64 {
        self.last
            .map_or(raw.cast_signed(), |last| follow33(last, raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;

    #[test]
    fn timestamps_follow_the_vectors() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!(
            "../../../../tests/vectors/ts_and_bitstream.json"
        ))
        .unwrap();
        for v in vectors["pts_dts"].as_array().unwrap() {
            for form in ["pts_only_prefix2", "pts_of_pair_prefix3", "dts_prefix1"] {
                let bytes = hex(v[form].as_str().unwrap());
                assert_eq!(timestamp(bytes.try_into().unwrap()), v["value"].as_u64());
            }
        }
        for v in vectors["wrap33"].as_array().unwrap() {
            let old = v["earlier"].as_i64().unwrap();
            let new = unwrap33(old, v["later"].as_u64().unwrap());
            assert_eq!(Some(new - old), v["diff"].as_i64());
        }
    }

    #[test]
    fn wraps_are_told_from_jumps() {
        const WRAP: i64 = 1 << 33;
        // A wrap, also after minutes of silence.
        assert_eq!(follow33(WRAP - 100, 500), WRAP + 500);
        assert_eq!(follow33(WRAP - 90_000 * 300, 500), WRAP + 500);
        assert_eq!(follow33(WRAP + 500, 8_589_934_000), WRAP - 592);
        // An encoder that begins anew, and another time base.
        assert_eq!(follow33(5_000_000_000, 90_000), 90_000);
        assert_eq!(follow33(90_000, 5_000_000_000), 5_000_000_000);
        assert_eq!(
            follow33(3 * WRAP + 5_000_000_000, 90_000),
            3 * WRAP + 90_000
        );
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        let bytes = hex("000001e0001a8080052100010001aabb");
        let mut pes = Pes::default();
        pes.start();
        for byte in &bytes[..13] {
            assert_eq!(pes.header(&[*byte]), Step::More);
        }
        let Step::Payload(1, header) = pes.header(&bytes[13..]) else {
            panic!("complete")
        };
        assert_eq!(header.pts, Some(0));
        assert!(pes.is_bounded());
        assert_eq!(pes.body(&[0; 30]).0.len(), 18);
    }

    #[test]
    fn broken_headers_are_refused() {
        for text in [
            "000002e0000080800521000100ff",
            "000001e000000000000000000000",
            "000001e0000380800521000100ff",
        ] {
            let mut pes = Pes::default();
            pes.start();
            assert_eq!(pes.header(&hex(text)), Step::Bad, "{text}");
        }
    }
}
