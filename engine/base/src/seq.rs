//! Sequence arithmetic: SRT's 31-bit packet numbers (draft-sharabayko-srt-01, 3.1)
//! and the unwrapping of narrow counters into 64 bits.

use core::fmt;

/// SRT packet sequence number: 31 bits, wraps from `0x7FFF_FFFF` to 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PacketSequenceNumber(u32);

impl PacketSequenceNumber {
    /// The largest number.
    pub const MAX: u32 = 0x7FFF_FFFF;
    const HALF: u32 = 0x3FFF_FFFF;

    /// Takes the low 31 bits of `value`.
    pub const fn new(value: u32) -> Self {
        PacketSequenceNumber(value & Self::MAX)
    }

    /// The number as it stands on the wire (bit 31 clear).
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number after this one.
    pub const fn next(self) -> Self {
        Self::new(self.0.wrapping_add(1))
    }

    /// The number before this one.
    pub const fn prev(self) -> Self {
        Self::new(self.0.wrapping_sub(1))
    }

    /// `self + n`, modulo 2^31.
    pub const fn plus(self, n: u32) -> Self {
        Self::new(self.0.wrapping_add(n))
    }

    /// Signed distance from `self` to `to`: positive when `to` is later.
    ///
    /// libsrt's `CSeqNo::seqoff`: the shorter way around the ring.
    pub const fn distance_to(self, to: Self) -> i32 {
        let (a, b) = (self.0.cast_signed(), to.0.cast_signed());
        if a.abs_diff(b) < Self::HALF {
            b - a
        } else if a < b {
            // b − a − 2^31, without leaving 32 bits
            b.wrapping_sub(a).wrapping_sub(i32::MAX).wrapping_sub(1)
        } else {
            b.wrapping_sub(a).wrapping_add(i32::MAX).wrapping_add(1)
        }
    }

    /// Whether `self` comes before `other` on the shorter way around the ring.
    pub const fn is_before(self, other: Self) -> bool {
        self.distance_to(other) > 0
    }
}

impl fmt::Debug for PacketSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Extends a counter of `BITS` bits to 64 bits by taking the candidate nearest to the last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper<const BITS: u32> {
    last: Option<u64>,
}

impl<const BITS: u32> Unwrapper<BITS> {
    /// A counter that has seen nothing yet.
    pub const fn new() -> Self {
        Unwrapper { last: None }
    }

    /// The 64-bit value of `raw`: the one nearest to the last value. The first value
    /// starts one full turn up, so that a slightly older one does not go below zero.
    pub const fn unwrap(&mut self, raw: u64) -> u64 {
        let modulus = 1u64 << BITS;
        let raw = raw & (modulus - 1);
        let value = match self.last {
            None => modulus + raw,
            Some(last) => {
                let delta = raw.wrapping_sub(last) & (modulus - 1);
                if delta < modulus / 2 {
                    last.wrapping_add(delta)
                } else {
                    last.wrapping_add(delta).wrapping_sub(modulus)
                }
            }
        };
        self.last = Some(value);
        value
    }

    /// Forgets what it has seen.
    pub const fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_takes_the_shorter_way_round() {
        let s = PacketSequenceNumber::new;
        assert_eq!(s(5).distance_to(s(8)), 3);
        assert_eq!(s(8).distance_to(s(5)), -3);
        assert_eq!(s(0x7FFF_FFFF).distance_to(s(0)), 1);
        assert_eq!(s(0).distance_to(s(0x7FFF_FFFF)), -1);
        assert_eq!(s(0x7FFF_FFF0).distance_to(s(0x10)), 0x20);
        assert_eq!(s(0x7FFF_FFFF).next(), s(0));
        assert_eq!(s(0).prev(), s(0x7FFF_FFFF));
        assert!(s(0x7FFF_FFFF).is_before(s(3)));
    }

    #[test]
    fn unwrapping_survives_wraps_in_both_directions() {
        let mut u = Unwrapper::<16>::new();
        let a = u.unwrap(65_534);
        assert_eq!(u.unwrap(2), a + 4);
        assert_eq!(u.unwrap(65_535), a + 1);
        assert_eq!(u.unwrap(10), a + 12);
    }
}
