//! Byte streams of NAL units with start codes (ISO 14496-10 and 23008-2, Annex B), and MPEG-2
//! video, whose start codes are the same. Finds the codes, counts the units by type and hands
//! their bytes to the assembler.

use std::collections::VecDeque;

use mirror_base::{Instant, Position};

use crate::codec::{h264, h265, mpeg2};
use crate::{AccessUnit, Assembler, Codec, Limits, Track};

/// Positions are absolute offsets, the low 15 bits as the offset into a "slot".
const SLOT_BITS: u32 = 15;

/// An access unit of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileUnit {
    /// What it is. Its positions are the file's, see [`offset_of`].
    pub unit: AccessUnit,
    /// Offset of its first byte.
    pub offset: u64,
    /// NAL units in it.
    pub nal_units: u32,
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
    /// Bytes taken so far, and with how many zero bytes they end (at most 3).
    taken: u64,
    zeros: u8,
    /// Nothing but zero bytes came so far: they go with the first code.
    fresh: bool,
    /// The next byte is the first of a NAL unit.
    at_header: bool,
    /// Offsets of NAL units that belong to units in the making.
    begun: VecDeque<u64>,
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
    pub fn push(&mut self, data: &[u8]) {
        let Some(&last) = data.last() else { return };
        let mut from = match (self.zeros, data) {
            (2.., [1, ..]) => self.code(self.zeros, 1),
            (1.., [0, 1, ..]) => self.code(self.zeros, 2),
            _ => 0,
        };
        while let Some(rest) = data.get(from..)
            && let Some(found) = self.finder.find(rest)
        {
            let (before, _) = rest.split_at(found);
            // The zero_byte before the code goes with it (B.1.1); it may have been fed already.
            let zero = usize::from(before.last() == Some(&0));
            let behind = if found == 0 && from == 0 {
                self.zeros
            } else {
                0
            };
            self.feed(before.get(..found - zero).unwrap_or_default());
            self.code(behind, 3 + zero as u8);
            from += found + 3;
        }
        self.feed(data.get(from..).unwrap_or_default());
        let run = data.iter().rev().take(3).take_while(|&&b| b == 0).count();
        let before = if run == data.len() { self.zeros } else { 0 };
        self.zeros = if last == 0 {
            (run as u8 + before).min(3)
        } else {
            0
        };
    }

    /// A code, of which `behind` zero bytes were fed as bytes and `here` bytes come now.
    /// Returns how many those are.
    fn code(&mut self, behind: u8, here: u8) -> usize {
        // No more than the code itself and one zero_byte, but all that begins the file.
        let behind = if self.fresh {
            self.taken as u8
        } else {
            behind.min(4_u8.saturating_sub(here))
        };
        let start = self.taken - u64::from(behind);
        let at = position_of(start);
        self.assembler.nal_end(at, Instant::ZERO);
        self.assembler
            .start_code(at, 0, behind, here, Instant::ZERO);
        self.begun.push_back(start);
        if self.begun.len() > MAX_BEGUN {
            self.begun.pop_front();
        }
        self.collect();
        self.taken += u64::from(here);
        self.at_header = true;
        self.fresh = false;
        usize::from(here)
    }

    fn feed(&mut self, bytes: &[u8]) {
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
        }
        self.fresh &= bytes.iter().all(|&b| b == 0) && self.taken + (bytes.len() as u64) < 200;
        self.assembler.nal_bytes(bytes, Instant::ZERO);
        self.taken += bytes.len() as u64;
    }

    /// The stream has ended: its last unit is complete.
    pub fn finish(&mut self) {
        self.assembler
            .nal_end(position_of(self.taken), Instant::ZERO);
        self.assembler.close(Instant::ZERO, false);
        self.collect();
    }

    /// Takes what the assembler has completed.
    fn collect(&mut self) {
        while let Some(unit) = self.assembler.poll_unit() {
            let end = offset_of(unit.end);
            let mut nal_units = 0;
            while self.begun.front().is_some_and(|&at| at < end) {
                self.begun.pop_front();
                nal_units += 1;
            }
            self.ready.push_back(FileUnit {
                unit,
                offset: offset_of(unit.first),
                nal_units,
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
