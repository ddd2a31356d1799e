//! Finds NAL units by their start codes (ISO 14496-10, Annex B) in the payloads of one PID and
//! drives the assembler. The search runs at memchr's speed; a code that straddles two packets
//! is found by the number of zero bytes that the first one ends with.

use core::hint::black_box;

use memchr::memmem::Finder;
use mirror_base::{Instant, Position};

use super::place::Place;
use super::{DATA, PACKET};
use crate::assembler::Assembler;

/// The state between two payloads.
#[derive(Debug)]
pub struct StartCodes {
    finder: Finder<'static>,
    /// Zero bytes that the stream ends with so far, at most 3.
    zeros: u8,
    /// Nothing was fed since the last restart: zero bytes before a code go with it.
    fresh: bool,
    /// The packet that held the last bytes, and where in it they ended.
    place: Place,
    end: usize,
    /// Bytes of that payload, at most 3: no further back does `place` reach.
    reach: u8,
}

impl Default for StartCodes {
    fn default() -> Self {
        StartCodes {
            finder: Finder::new(&[0, 0, 1]),
            zeros: 0,
            fresh: true,
            place: Place::default(),
            end: 0,
            reach: 0,
        }
    }
}

/// Columns that a packet's bytes are put into: twice as many as SSE2, which every x86-64 has, and
/// NEON compare at once. The fewer columns, the more packets have to be looked at again.
const LANES: usize = 32;

/// How many of `packets`, which are payload behind their first four bytes, hold no start code
/// and do not end with what may be the beginning of one. Never inlined, so that the search's
/// cost can be told from that of the demultiplexer.
///
/// Written so that it becomes a load and a minimum for each 16 bytes, and one test for a packet.
/// (The last byte is looked at behind the others: known before, it would be put into its vector
/// by itself. And the compiler is kept from working out the minimum of each column by itself,
/// because the test looks at them in pairs.)
#[inline(never)]
pub(super) fn without_code(packets: &[[u8; PACKET]]) -> usize {
    let is_clear = |packet: &&[u8; PACKET]| {
        packet.last_chunk::<DATA>().is_some_and(|data| {
            (!holds_half(&black_box(least(data))) || !holds_half_exactly(data))
                && data[DATA - 1] != 0
        })
    };
    packets.iter().take_while(is_clear).count()
}

/// The least byte of each column of [`LANES`]. A start code's halves that are in `data` are in
/// it, too; in one packet of sixty of random bytes there is one that is not in `data`.
#[inline]
fn least(data: &[u8; DATA]) -> [u8; LANES] {
    let (rows, _) = data.as_chunks::<LANES>();
    let mut least = data.last_chunk().copied().unwrap_or_default();
    for row in rows {
        for (least, byte) in least.iter_mut().zip(row) {
            *least = (*least).min(*byte);
        }
    }
    least
}

/// Whether at an even offset lies 0, 0 or 0, 1: of the three bytes of a start code, these are
/// the first two or the last two. Emulation prevention makes that rare in coded video.
#[inline]
fn holds_half<const N: usize>(data: &[u8; N]) -> bool {
    let (pairs, _) = data.as_chunks::<2>();
    let is_half = |pair: &[u8; 2]| u16::from_le_bytes(*pair) & 0xFEFF == 0;
    pairs
        .iter()
        .fold(false, |found, pair| found | is_half(pair))
}

#[cold]
#[inline(never)]
fn holds_half_exactly(data: &[u8; DATA]) -> bool {
    holds_half(data)
}

impl StartCodes {
    /// What comes does not continue what was.
    pub const fn restart(&mut self) {
        self.zeros = 0;
        self.fresh = true;
    }

    /// One past the last byte that was fed.
    pub fn position(&self) -> Position {
        self.place.at(self.end)
    }

    /// Whether no start code can have begun in what was fed.
    #[inline]
    pub const fn is_clear(&self) -> bool {
        self.zeros == 0
    }

    /// Passes over payloads as [`without_code`] finds them; the last packet lies at `place`.
    #[inline]
    pub const fn pass(&mut self, place: &Place) {
        self.fresh = false;
        self.place = *place;
        self.end = PACKET;
        self.reach = 3;
    }

    /// `data` lies at offset `lead` of the packet at `place`.
    #[inline]
    pub fn feed(
        &mut self,
        asm: &mut Assembler,
        data: &[u8],
        place: &Place,
        lead: usize,
        arrival: Instant,
    ) {
        let Some(&last) = data.last() else { return };
        let mut from = 0;
        if self.zeros > 0 {
            from = self.straddle(asm, data, arrival);
        }
        while let Some(rest) = data.get(from..)
            && let Some(found) = self.finder.find(rest)
        {
            self.found(asm, data, from, from + found, place, lead, arrival);
            self.fresh = false;
            from += found + 3;
        }
        asm.nal_bytes(data.get(from..).unwrap_or_default(), arrival);
        self.fresh = false;
        self.place = *place;
        self.end = lead + data.len();
        self.reach = if data.len() < 3 { data.len() as u8 } else { 3 };
        if last != 0 {
            self.zeros = 0;
        } else {
            self.count_zeros(data);
        }
    }

    #[cold]
    fn count_zeros(&mut self, data: &[u8]) {
        let run = data.iter().rev().take(3).take_while(|&&b| b == 0).count();
        let before = if run == data.len() { self.zeros } else { 0 };
        self.zeros = (run as u8).saturating_add(before).min(3);
    }

    /// A code whose three bytes begin before `data`; returns how many bytes of it lie in `data`.
    #[cold]
    fn straddle(&mut self, asm: &mut Assembler, data: &[u8], arrival: Instant) -> usize {
        let here = match (self.zeros, data) {
            (2.., [1, ..]) => 1,
            (_, [0, 1, ..]) => 2,
            _ => return 0,
        };
        // The code and one zero_byte before it (B.1.1), as far as there is one.
        let behind = self.zeros.min(4 - here).min(self.reach);
        let lead = self.end - usize::from(behind);
        let at = self.place.at(lead);
        asm.nal_end(at, arrival);
        asm.start_code(at, lead as u8, behind, here, arrival);
        usize::from(here)
    }

    /// A code at `code` of `data`, of which the bytes before `from` are already dealt with.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, on the hot path's edge"
    )]
    fn found(
        &mut self,
        asm: &mut Assembler,
        data: &[u8],
        from: usize,
        code: usize,
        place: &Place,
        lead: usize,
        arrival: Instant,
    ) {
        if code == 0 {
            // The zero_byte before the code (B.1.1) may end the packet before.
            let behind = self.zeros.min(1).min(self.reach);
            if behind > 0 {
                let lead = self.end - 1;
                let at = self.place.at(lead);
                asm.nal_end(at, arrival);
                asm.start_code(at, lead as u8, behind, 3, arrival);
            } else {
                asm.nal_end(self.position(), arrival);
                asm.start_code(place.at(lead), lead as u8, 0, 3, arrival);
            }
            return;
        }
        let mut zero_byte = usize::from(code > from && data.get(code - 1) == Some(&0));
        if self.fresh && data.iter().take(code).all(|&b| b == 0) {
            // B.1.1, leading_zero_8bits.
            zero_byte = code;
        }
        let begin = code - zero_byte;
        asm.nal_bytes(data.get(from..begin).unwrap_or_default(), arrival);
        let at = place.at(lead + begin);
        asm.nal_end(if begin == 0 { self.position() } else { at }, arrival);
        asm.start_code(at, (lead + begin) as u8, 0, 3 + zero_byte as u8, arrival);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_code_is_seen_wherever_it_lies() {
        let whole = |bytes: &[u8], at: usize| {
            let mut packet = [0x55; PACKET];
            packet[4 + at..][..bytes.len()].copy_from_slice(bytes);
            without_code(&[packet]) == 1
        };
        for at in 0..DATA {
            assert_eq!(whole(&[0], at), at < DATA - 1, "a zero byte at {at}");
            if at + 3 <= DATA {
                assert!(!whole(&[0, 0, 1], at), "a code at {at}");
            }
            if at + 2 <= DATA {
                assert!(whole(&[1, 1], at) && whole(&[1, 2], at));
            }
        }
    }

    #[test]
    fn what_only_the_columns_make_a_start_code_is_none() {
        let mut packet = [0x55; PACKET];
        // Columns 0 and 1, in different rows.
        packet[4 + 2 * LANES] = 0;
        packet[4 + 4 * LANES + 1] = 1;
        assert!(holds_half(&least(packet.last_chunk().unwrap())));
        assert_eq!(without_code(&[packet, packet]), 2);
        packet[4 + 2 * LANES + 1] = 0;
        assert_eq!(without_code(&[packet]), 0);
    }

    #[test]
    fn packets_are_clear_as_the_search_byte_by_byte_says() {
        let mut noise = 1_u64;
        for zeros in [4, 16, 64, 256] {
            for _ in 0..2_000 {
                let mut packet = [0; PACKET];
                for byte in &mut packet {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005) + 1;
                    let high = (noise >> 40) as u32;
                    *byte = if high.is_multiple_of(zeros) {
                        0
                    } else {
                        high as u8 % 3
                    };
                }
                let data = &packet[4..];
                let code = data.windows(3).any(|w| w == [0, 0, 1]);
                if code || data[DATA - 1] == 0 {
                    assert_eq!(without_code(&[packet]), 0, "{packet:?}");
                }
            }
        }
    }
}
