//! Where a TS packet lies in the slot ring.

use mirror_base::Position;

/// Maps an offset in a TS packet to its position in the ring. A packet lies in one payload, or
/// its first bytes lie at the end of the payload before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    slot: u64,
    /// Offset of the packet's byte 0 in `slot`'s payload; negative for a packet that began in
    /// the payload before.
    base: i32,
    /// Where in the slot before the packet began, and how many bytes of it lie there.
    carried: u16,
    split: u16,
}

impl Place {
    /// A packet that begins at `offset` of `slot`'s payload.
    #[inline]
    pub const fn whole(slot: u64, offset: u16) -> Self {
        Place {
            slot,
            base: offset as i32,
            carried: 0,
            split: 0,
        }
    }

    /// A packet whose first `split` bytes lie at `carried` of the slot before `slot`, the others
    /// at the start of `slot`.
    pub const fn carried(carried: u16, split: u16, slot: u64) -> Self {
        Place {
            slot,
            base: -(split as i32),
            carried,
            split,
        }
    }

    /// The position of byte `k` of the packet (188 for its end).
    #[inline]
    pub fn at(&self, k: usize) -> Position {
        let k = u16::try_from(k).unwrap_or(u16::MAX);
        if k < self.split {
            let slot = self.slot.saturating_sub(1);
            return Position {
                slot,
                offset: self.carried.saturating_add(k),
            };
        }
        let offset = u16::try_from(self.base + i32::from(k)).unwrap_or(0);
        Position {
            slot: self.slot,
            offset,
        }
    }
}
