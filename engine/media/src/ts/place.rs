//! Where a TS packet lies in the slot ring.

use mirror_base::Position;

/// Pieces before the last that a packet may have: payloads of less than 47 bytes are not
/// reframed.
pub const MAX_SPLITS: usize = 4;

/// Maps an offset in a TS packet to its position in the ring. A packet lies in one payload, or
/// its pieces lie in payloads that follow each other: the first at the end of its payload, the
/// middle ones being whole payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The slot of the last piece.
    slot: u64,
    /// Offset of the packet's byte 0 in `slot`'s payload; negative for a packet that began in
    /// a payload before.
    base: i16,
    /// Where in its slot the first piece began.
    carried: u16,
    /// Where the pieces before the last end, rising; 0: no such piece.
    splits: [u8; MAX_SPLITS],
}

impl Place {
    /// A packet that begins at `offset` of `slot`'s payload.
    #[inline]
    pub const fn whole(slot: u64, offset: u16) -> Self {
        Place {
            slot,
            base: offset as i16,
            carried: 0,
            splits: [0; MAX_SPLITS],
        }
    }

    /// A packet whose last piece begins `slot`'s payload; `splits` tells where the pieces before
    /// it end, and the first of them lies at `carried` of its slot.
    pub fn carried(carried: u16, splits: [u8; MAX_SPLITS], slot: u64) -> Self {
        Place {
            slot,
            base: -i16::from(splits.into_iter().max().unwrap_or(0)),
            carried,
            splits,
        }
    }

    /// Whole packets that lie before it in its payload.
    pub fn number(&self) -> u64 {
        u64::try_from(self.base).unwrap_or(0) / 188
    }

    /// The position of byte `k` of the packet (188 for its end).
    #[inline]
    pub fn at(&self, k: usize) -> Position {
        if self.splits[0] > 0
            && let Some(position) = self.in_earlier_slot(k)
        {
            return position;
        }
        let offset = i32::from(self.base) + i32::try_from(k).unwrap_or(i32::MAX);
        Position {
            slot: self.slot,
            offset: u16::try_from(offset).unwrap_or(0),
        }
    }

    #[cold]
    fn in_earlier_slot(&self, k: usize) -> Option<Position> {
        let pieces = self.splits.iter().take_while(|&&end| end > 0).count();
        let mut begin = 0;
        for (n, end) in self.splits.iter().take(pieces).enumerate() {
            let end = usize::from(*end);
            if k < end {
                let into = u16::try_from(k - begin).unwrap_or(0);
                return Some(Position {
                    slot: self.slot.saturating_sub((pieces - n) as u64),
                    offset: if n == 0 { self.carried } else { 0 }.saturating_add(into),
                });
            }
            begin = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_in_four_pieces_is_found_byte_by_byte() {
        // 30 bytes at 70 of slot 6, whole payloads of 60 and 50 bytes, the rest in slot 9.
        let place = Place::carried(70, [30, 90, 140, 0], 9);
        for (k, slot, offset) in [
            (0, 6, 70),
            (29, 6, 99),
            (30, 7, 0),
            (89, 7, 59),
            (90, 8, 0),
            (139, 8, 49),
            (140, 9, 0),
            (188, 9, 48),
        ] {
            assert_eq!(place.at(k), Position { slot, offset }, "byte {k}");
        }
        let whole = Place::whole(3, 376);
        assert_eq!(
            whole.at(188),
            Position {
                slot: 3,
                offset: 564
            }
        );
    }
}
