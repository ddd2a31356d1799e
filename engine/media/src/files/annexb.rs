//! Byte streams of NAL units with start codes (ISO 14496-10 and 23008-2, Annex B), and MPEG-2
//! video, whose start codes are the same. Finds the codes, counts the units by type and hands
//! their bytes to the assembler.

use std::collections::VecDeque;

use mirror_base::{Instant, Position};

use crate::codec::{h264, h265, mpeg2};
use crate::{AccessUnit, Assembler, Codec, Limits, Track};

/// Positions are absolute offsets, the low 15 bits as the offset into a "slot".
const SLOT_BITS: u32 = 15;

/// Zero bytes that may belong to a code: its own, and the zero_byte (B.1.1).
const HELD: usize = 3;

/// An access unit of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileUnit {
    /// What it is. Its positions are the file's, see [`offset_of`].
    pub unit: AccessUnit,
    /// Offset of its first byte.
    pub offset: u64,
    /// Types of the NAL units in it (MPEG-2 video: start codes), in order.
    pub nal_types: Vec<u8>,
}

/// The offset in the file that `position` stands for.
pub const fn offset_of(position: Position) -> u64 {
    position.slot << SLOT_BITS | position.offset as u64
}

fn position_of(offset: u64) -> Position {
    Position {
        slot: offset >> SLOT_BITS,
        offset: (offset & ((1 << SLOT_BITS) - 1)) as u16,
    }
}

/// Reads one elementary stream. Feed it with [`AnnexB::push`], end with [`AnnexB::finish`], and
/// poll units in between.
#[derive(Debug)]
pub struct AnnexB {
    codec: Codec,
    assembler: Assembler,
    finder: memchr::memmem::Finder<'static>,
    /// Bytes taken so far.
    taken: u64,
    /// Zero bytes behind them that are held back until the next byte tells whether they belong
    /// to a code: at most [`HELD`].
    zeros: u8,
    /// Nothing but zero bytes came so far: they go with the first code.
    fresh: bool,
    /// The next byte is the first of a NAL unit.
    at_header: bool,
    /// Offsets and types of NAL units that belong to units in the making.
    begun: VecDeque<(u64, u8)>,
    ready: VecDeque<FileUnit>,
    nal_types: Box<[u64; 256]>,
}

impl AnnexB {
    /// For H.264, HEVC or MPEG-2 video; `None` for any other codec.
    pub fn new(codec: Codec, limits: &Limits) -> Option<Self> {
        Some(AnnexB {
            codec,
            assembler: Assembler::new(codec, 0, limits, false)?,
            finder: memchr::memmem::Finder::new(&[0, 0, 1]),
            taken: 0,
            zeros: 0,
            fresh: true,
            at_header: false,
            begun: VecDeque::new(),
            ready: VecDeque::new(),
            nal_types: Box::new([0; 256]),
        })
    }

    /// The next bytes. Their units wait to be polled, however many: whoever pushes bounds them.
    /// Where the file is cut into pieces changes nothing.
    pub fn push(&mut self, data: &[u8]) {
        let mut from = self.go_on(data);
        while let Some(rest) = data.get(from..)
            && let Some(found) = self.finder.find(rest)
        {
            let (before, _) = rest.split_at(found);
            // The zero_byte before the code goes with it (B.1.1).
            let zero = usize::from(before.last() == Some(&0));
            self.feed(before.get(..found - zero).unwrap_or_default());
            self.code(3 + zero as u8);
            from += found + 3;
        }
        let rest = data.get(from..).unwrap_or_default();
        let held = rest.iter().rev().take(HELD).take_while(|&&b| b == 0);
        let (rest, held) = rest.split_at(rest.len() - held.count());
        self.feed(rest);
        self.zeros += held.len() as u8;
    }

    /// The beginning of `data`, which tells what the zero bytes are that were held back: of a
    /// code, or a NAL unit's. Returns how many bytes of it have been dealt with.
    fn go_on(&mut self, data: &[u8]) -> usize {
        if self.zeros == 0 {
            return 0;
        }
        let lead = data.iter().take_while(|&&b| b == 0).count();
        let run = usize::from(self.zeros) + lead;
        let of_nal = match data.get(lead) {
            Some(1) if run >= 2 => run.saturating_sub(HELD),
            Some(_) => run,
            None => run.saturating_sub(HELD),
        };
        let held = of_nal.min(self.zeros.into());
        self.feed([0; HELD].get(..held).unwrap_or_default());
        self.feed(data.get(..of_nal - held).unwrap_or_default());
        // At most three are left.
        self.zeros = (run - of_nal) as u8;
        match data.get(lead) {
            Some(1) if self.zeros >= 2 => {
                let zeros = core::mem::take(&mut self.zeros);
                self.code(zeros + 1);
                lead + 1
            }
            _ => lead,
        }
    }

    /// A code of so many bytes comes now.
    fn code(&mut self, bytes: u8) {
        // Zero bytes that begin the file go with its first code.
        let behind = if self.fresh { self.taken as u8 } else { 0 };
        let start = self.taken - u64::from(behind);
        let at = position_of(start);
        self.assembler.nal_end(at, Instant::ZERO);
        self.assembler
            .start_code(at, 0, behind, bytes, Instant::ZERO);
        self.begun.push_back((start, 0));
        if self.begun.len() > MAX_BEGUN {
            self.begun.pop_front();
        }
        self.collect();
        self.taken += u64::from(bytes);
        self.at_header = true;
        self.fresh = false;
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        if let (true, Some(&first)) = (self.at_header, bytes.first()) {
            self.at_header = false;
            let kind = match self.codec {
                Codec::H264 => first & 0x1F,
                Codec::H265 => first >> 1 & 0x3F,
                _ => first,
            };
            if let Some(count) = self.nal_types.get_mut(usize::from(kind)) {
                *count += 1;
            }
            if let Some(begun) = self.begun.back_mut() {
                begun.1 = kind;
            }
        }
        self.fresh &= bytes.iter().all(|&b| b == 0) && self.taken + (bytes.len() as u64) < 200;
        while !bytes.is_empty() {
            let (now, after) = bytes.split_at(bytes.len().min(self.assembler.room()));
            self.assembler.nal_bytes(now, Instant::ZERO);
            self.taken += now.len() as u64;
            self.assembler.oversize_end(position_of(self.taken));
            bytes = after;
        }
    }

    /// The stream has ended: its last unit is complete.
    pub fn finish(&mut self) {
        let zeros = core::mem::take(&mut self.zeros).into();
        self.feed([0; HELD].get(..zeros).unwrap_or_default());
        self.assembler
            .nal_end(position_of(self.taken), Instant::ZERO);
        self.assembler.close(Instant::ZERO, false);
        self.collect();
    }

    /// Takes what the assembler has completed.
    fn collect(&mut self) {
        while let Some(unit) = self.assembler.poll_unit() {
            let end = offset_of(unit.end);
            let mut nal_types = Vec::new();
            while let Some((_, kind)) = self.begun.pop_front_if(|begun| begun.0 < end) {
                nal_types.push(kind);
            }
            self.ready.push_back(FileUnit {
                unit,
                offset: offset_of(unit.first),
                nal_types,
            });
        }
    }

    /// The next complete unit, in decoding order.
    pub fn poll_unit(&mut self) -> Option<FileUnit> {
        self.ready.pop_front()
    }

    /// What the bits have told of the stream.
    pub fn track(&self) -> Track {
        let mut track = Track {
            codec: self.codec,
            ..Track::default()
        };
        track.set_video(self.assembler.info().1);
        track
    }

    /// The parameter sets in force, see [`crate::Pipeline::parameter_sets`].
    pub fn parameter_sets(&self) -> &[u8] {
        self.assembler.parameter_sets()
    }

    /// NAL units by type (MPEG-2 video: by start code).
    pub const fn nal_types(&self) -> &[u64; 256] {
        &self.nal_types
    }

    /// The assembler, for its figures.
    pub const fn assembler(&self) -> &Assembler {
        &self.assembler
    }
}

/// NAL units of an access unit that are counted.
const MAX_BEGUN: usize = 1 << 16;

/// The NAL units of `data`, without start codes, trailing zero bytes and what precedes the first
/// code.
pub fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut codes = memchr::memmem::find_iter(data, &[0, 0, 1]).peekable();
    core::iter::from_fn(move || {
        let begin = codes.next()? + 3;
        let end = codes.peek().copied().unwrap_or(data.len());
        let nal = data.get(begin..end).unwrap_or_default();
        let size = nal.iter().rposition(|&b| b != 0).map_or(0, |n| n + 1);
        Some(nal.get(..size).unwrap_or_default())
    })
}

/// Which codec `data`, the beginning of a file, is of: that whose parameter sets (or sequence
/// header) can be read.
pub fn detect(data: &[u8]) -> Option<Codec> {
    let (mut avc, mut hevc, mut mpeg) = (0_u32, 0_u32, 0_u32);
    let mut sequence = mpeg2::State::default();
    for nal in nal_units(data).take(512) {
        match nal {
            [0xB3, rest @ ..] => mpeg += u32::from(sequence.add_sequence(rest)) * 2,
            [0xB5, rest @ ..] if mpeg > 0 => mpeg += u32::from(sequence.add_extension(rest)),
            [head, rest @ ..] if head & 0x80 == 0 => {
                avc += match head & 0x1F {
                    7 if head & 0x60 != 0 => u32::from(h264::parse_sps(rest).is_some()) * 3,
                    8 if head & 0x60 != 0 => u32::from(h264::parse_pps(rest).is_some()),
                    _ => 0,
                };
                // layer 0, temporal_id_plus1 1.
                if let [1, rest @ ..] = rest
                    && head & 1 == 0
                {
                    hevc += match head >> 1 {
                        32 => u32::from(h265::parse_vps(rest).is_some()) * 2,
                        33 => u32::from(h265::parse_sps(rest).is_some()) * 3,
                        34 => u32::from(h265::parse_pps(rest).is_some()),
                        _ => 0,
                    };
                }
            }
            _ => {}
        }
    }
    let best = avc.max(hevc).max(mpeg);
    match best {
        0 | 1 => None,
        _ if hevc == best => Some(Codec::H265),
        _ if avc == best => Some(Codec::H264),
        _ => Some(Codec::Mpeg2Video),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stand_for_offsets() {
        for offset in [0, 1, 32_767, 32_768, 1 << 40] {
            assert_eq!(offset_of(position_of(offset)), offset);
        }
    }

    #[test]
    fn nal_units_are_found_without_codes_and_zero_bytes() {
        let data = [9, 0, 0, 0, 1, 0x67, 1, 0, 0, 0, 0, 1, 0x68, 0, 0, 1];
        let units: Vec<&[u8]> = nal_units(&data).collect();
        assert_eq!(units, [&[0x67, 1][..], &[0x68], &[]]);
    }

    #[test]
    fn noise_is_of_no_codec() {
        assert_eq!(detect(&[]), None);
        assert_eq!(detect(&[0; 1000]), None);
        let noise: Vec<u8> = (0..100_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        assert_eq!(detect(&noise), None);
    }
}
