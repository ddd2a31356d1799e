//! Finds NAL units by their start codes (ISO 14496-10, Annex B) in the payloads of one PID and
//! drives the assembler. The search runs at memchr's speed; a code that straddles two packets
//! is found by the number of zero bytes that the first one ends with.

use memchr::memmem::Finder;
use mirror_base::{Instant, Position};

use super::PACKET;
use super::place::Place;
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

/// Keeps the least of what two bytes have in either; 0 where both are 0.
#[inline]
fn keep_least(least: &mut [u8; 16], a: &[u8; 16], b: &[u8; 16]) {
    for ((least, a), b) in least.iter_mut().zip(a).zip(b) {
        *least = (*least).min(a | b);
    }
}

/// How many of `packets`, which are payload behind their first four bytes, hold no start code
/// and do not end with what may be the beginning of one. Never inlined, so that the search's
/// cost can be told from that of the demultiplexer.
#[inline(never)]
pub(super) fn without_code(packets: &[[u8; PACKET]]) -> usize {
    let clear = |packet: &&[u8; PACKET]| {
        let data = packet.last_chunk();
        packet[PACKET - 1] != 0 && data.is_some_and(|data| !holds_zero_pair(data))
    };
    packets.iter().take_while(clear).count()
}

/// Whether two bytes in a row are zero, without which no start code lies in a packet's payload:
/// emulation prevention makes that rare in coded video. Written so that it becomes a few vector
/// operations for each 16 bytes.
#[inline]
fn holds_zero_pair(data: &[u8; PACKET - 4]) -> bool {
    let mut least = [0xFF_u8; 16];
    // Pairs 0..176, then 167..183.
    let (first, _) = data.as_chunks::<16>();
    let (second, _) = data.split_at(1).1.as_chunks::<16>();
    for (a, b) in first.iter().zip(second) {
        keep_least(&mut least, a, b);
    }
    if let Some([a @ .., _]) = data.last_chunk::<17>()
        && let Some(b) = data.last_chunk::<16>()
    {
        keep_least(&mut least, a, b);
    }
    least.iter().fold(0xFF, |m, &b| m.min(b)) == 0
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
    fn two_zero_bytes_in_a_row_are_seen_wherever_they_lie() {
        let mut data = [1; PACKET - 4];
        assert!(!holds_zero_pair(&data));
        let last = data.len() - 1;
        for at in 0..=last {
            data[at] = 0;
            assert!(!holds_zero_pair(&data), "one alone at {at}");
            if at < last {
                data[at + 1] = 0;
                assert!(holds_zero_pair(&data), "two at {at}");
                data[at + 1] = 1;
            }
            data[at] = 1;
        }
    }
}
