//! Rings of long packets: jumbo frames, datagrams that IP took apart. Nearly all streams have
//! packets of a 1500-byte MTU, so a ring begins with slots for these, and is made wide when a
//! longer one comes, once in a stream's life. Chunks stay what they are, so that rings of both
//! kinds live from one pool.

use super::{CHUNK_SHIFT, Chunk, SLOT_BYTES, SlotRing};

/// Slots may be eight times the usual: four to a chunk.
const MAX_WIDENING: u32 = 3;
/// The longest datagram that a ring can hold: more than any Ethernet frame.
pub const MAX_SLOT_BYTES: usize = SLOT_BYTES << MAX_WIDENING;
/// Released slots that a ring keeps when it is made wide: units being assembled are of them.
const KEPT_SLOTS: u64 = 256;

impl SlotRing {
    /// Whether its slots are longer than [`SLOT_BYTES`].
    #[inline]
    pub(super) const fn is_wide(&self) -> bool {
        self.slot_bytes > SLOT_BYTES
    }

    /// Makes its slots long enough for `bytes`. What is not released stays, and of what is, the
    /// last slots, as far as the chunks suffice that `more` gives beyond those that it has.
    /// `false`: no slot can be so long, or there is no memory to do it; nothing is changed then
    /// but for the chunks.
    #[cold]
    pub fn widen(&mut self, bytes: usize, mut more: impl FnMut() -> Option<Chunk>) -> bool {
        if bytes <= self.slot_bytes {
            return true;
        }
        let Some(slot_bytes) = (1..=MAX_WIDENING)
            .map(|by| SLOT_BYTES << by)
            .find(|slot| bytes <= *slot)
        else {
            return false;
        };
        let mut wide = SlotRing {
            slot_bytes,
            chunk_shift: CHUNK_SHIFT - (slot_bytes / SLOT_BYTES).trailing_zeros(),
            ..SlotRing::new()
        };
        let least = self.floor.min(self.end);
        let end = self.end;
        let chunks_from = |ring: &SlotRing, from: u64| {
            let span = ring.chunk_of(end.max(from)) + 1 - ring.chunk_of(from);
            usize::try_from(span).unwrap_or(usize::MAX)
        };
        let mut from = least
            .saturating_sub(KEPT_SLOTS)
            .max(self.oldest().min(least));
        let mut fresh = core::mem::take(&mut self.spare);
        self.owned -= fresh.len();
        self.count_slots();
        while fresh.len() < chunks_from(&wide, from) {
            let Some(chunk) = more() else { break };
            fresh.push(chunk);
        }
        while fresh.len() < chunks_from(&wide, from) && from < least {
            from += 1;
        }
        let enough = fresh.len() >= chunks_from(&wide, from);
        let target = if enough { &mut wide } else { &mut *self };
        fresh.into_iter().for_each(|chunk| target.add_chunk(chunk));
        if !enough {
            return false;
        }
        wide.first = wide.chunk_of(from);
        wide.end = self.end;
        wide.promised = self.promised;
        for index in from..self.end {
            let (Some(meta), Some(packet)) = (self.meta(index), self.get_datagram(index)) else {
                continue;
            };
            // It was long enough for its slot, and the chunks were counted.
            let copied = wide.insert(index, packet, *meta);
            debug_assert!(copied.is_ok(), "{copied:?}");
        }
        wide.release_before(self.floor);
        self.places
            .take_memory()
            .for_each(|chunk| wide.add_chunk(chunk));
        *self = wide;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CHUNK_BYTES, CHUNK_SLOTS};
    use super::*;
    use crate::{Discard, Instant, SlotMeta};

    fn meta(timestamp: u32) -> SlotMeta {
        SlotMeta::new(Instant::from_millis(1), timestamp, 0)
    }

    fn filled(chunks: usize, indexes: impl IntoIterator<Item = u64>) -> SlotRing {
        let mut ring = SlotRing::with_owned_chunks(chunks);
        for n in indexes {
            let mut meta = meta(n as u32);
            meta.payload_offset = 12;
            ring.insert(n, &[n as u8; 1400], meta).unwrap();
        }
        ring
    }

    #[test]
    fn a_ring_is_made_wide_without_losing_what_is_held_or_was_just_released() {
        let mut ring = filled(8, (0..200).filter(|n| n % 50 != 7));
        ring.release_before(150);
        let mut given = 0;
        let more = || {
            given += 1;
            Some(Chunk::owned())
        };
        assert!(ring.widen(8_900, more));
        assert_eq!((ring.slot_bytes(), ring.chunk_slots()), (12_288, 4));
        assert_eq!((ring.floor(), ring.end(), ring.oldest()), (150, 200, 0));
        for n in 0..200 {
            let slot = ring.get(n);
            assert_eq!(slot.is_some(), n % 50 != 7, "{n}");
            if let Some(slot) = slot {
                assert_eq!(slot.payload, &[n as u8; 1388]);
                assert_eq!(slot.meta.timestamp, n as u32);
            }
        }
        assert_eq!(ring.capacity_bytes(), (8 + given) * CHUNK_BYTES);
        // The hole is filled, and longer packets follow.
        assert_eq!(ring.insert(157, &[1; 8_900], meta(1)), Ok(()));
        assert_eq!(ring.insert(200, &[2; 12_288], meta(2)), Ok(()));
        assert_eq!(
            ring.insert(201, &[2; 12_289], meta(2)),
            Err(Discard::TooLong)
        );
        assert!(ring.append(201, &[3; 100], ()).is_none());
        assert_eq!(ring.get(200).unwrap().payload.len(), 12_288);
        assert_eq!(ring.get(157).unwrap().payload.len(), 8_900);
        assert_eq!(ring.metas_from(198).len(), 2);
    }

    #[test]
    fn a_wide_ring_is_filled_released_and_reused_like_any_other() {
        let mut ring = SlotRing::with_owned_chunks(6);
        assert!(ring.widen(2_316, || None));
        assert_eq!((ring.slot_bytes(), ring.capacity_slots()), (3_072, 96));
        for n in 0..10_000u64 {
            ring.insert(n, &[n as u8; 2_316], meta(n as u32)).unwrap();
            assert_eq!(ring.get(n).unwrap().payload[2_315], n as u8);
            if n >= 40 {
                ring.release_before(n - 40);
            }
        }
        assert!(ring.get(9_930).is_some());
        assert!(ring.oldest() > 9_800 && ring.oldest() < 9_960);
        assert!(ring.widen(4_000, || Some(Chunk::owned())), "and once more");
        assert_eq!(ring.slot_bytes(), 6_144);
        assert!(ring.get(9_999).is_some());
    }

    #[test]
    fn history_goes_where_memory_is_short_and_nothing_where_it_does_not_suffice() {
        let mut ring = filled(8, 0..200);
        ring.release_before(190);
        let mut left = 4;
        let mut more = || {
            left -= i32::from(left > 0);
            (left > 0).then(Chunk::owned)
        };
        // One spare, three given: sixteen slots, of which the first and the last are not needed.
        assert!(ring.widen(8_900, &mut more));
        assert!((189..200).all(|n| ring.get(n).is_some()));
        assert!(ring.get(180).is_none());
        assert_eq!(ring.capacity_slots() % 4, 0);

        let mut ring = filled(8, 0..200);
        assert!(!ring.widen(8_900, || None));
        assert_eq!(
            (ring.slot_bytes(), ring.capacity_slots()),
            (SLOT_BYTES, 8 * CHUNK_SLOTS)
        );
        assert!((0..200).all(|n| ring.get(n).is_some()));
        assert!(ring.insert(200, &[0; 1_400], meta(0)).is_ok());
        assert!(!ring.widen(MAX_SLOT_BYTES + 1, || Some(Chunk::owned())));
        assert!(ring.widen(1_536, || None));
    }
}
