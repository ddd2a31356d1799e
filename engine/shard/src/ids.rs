//! SRT socket IDs that say where they belong (design, section 3): `id % shards` is the shard, the
//! high bits are the session's place in its arena, and the low bits, as far as the shard leaves
//! them free, a random salt, so that finding a session is a shift and a stale ID is told from a
//! live one. Bits 0–29 are used; bit 30 marks groups, bit 31 is always clear.

use mirror_base::{PacketSequenceNumber, ShardId};

const ID_BITS: u32 = 30;
const ID_SPACE: u32 = 1 << ID_BITS;

/// A small generator for salts (SplitMix64, seeded from the operating system): unpredictable
/// enough for a number whose guessing wins nothing without the peer's address.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Issues and reads the IDs of one shard.
#[derive(Clone, Debug)]
pub(crate) struct SocketIds {
    shard: u32,
    shards: u32,
    /// Bits below those of the place.
    low_bits: u32,
    /// Multiplied by this and shifted by 32 is shifted by `low_bits`: with a shift that is the
    /// same for all the processor needs no register for it.
    scale: u64,
    /// IDs of this shard at one place.
    salts: u32,
    random: Random,
}

impl SocketIds {
    /// For a shard with at most `sessions` sessions.
    pub(crate) fn new(shard: ShardId, shards: usize, sessions: usize, seed: u64) -> Self {
        let shards = shards.max(1) as u32;
        let low_bits = ID_BITS - sessions.max(2).next_power_of_two().trailing_zeros();
        let salts = (1 << low_bits) / shards;
        assert!(
            salts >= 2,
            "too many sessions and shards for 30-bit socket IDs"
        );
        let random = Random::new(seed ^ u64::from(shard.0).wrapping_mul(0xA24B_AED4_963E_E407));
        SocketIds {
            shard: u32::from(shard.0),
            shards,
            low_bits,
            scale: 1 << (u32::BITS - low_bits),
            salts,
            random,
        }
    }

    /// A random initial sequence number.
    pub(crate) const fn sequence(&mut self) -> PacketSequenceNumber {
        // The highest number is not allowed as initial one (spec section 3).
        let number = self.random.next() % PacketSequenceNumber::MAX as u64;
        PacketSequenceNumber::new(number as u32)
    }

    /// Whether steering by `number` (an SSRC) leads to another shard.
    pub(crate) const fn is_steered_elsewhere(&self, number: u32) -> bool {
        number % self.shards != self.shard
    }

    /// A new ID for the session at `index`.
    pub(crate) const fn issue(&mut self, index: u32) -> u32 {
        let base = index << self.low_bits;
        // The lowest of this place that is this shard's. A salt of 0 is not used: an ID is never 0.
        let first = (self.shard + self.shards - base % self.shards) % self.shards;
        let salt = 1 + (self.random.next() % (self.salts as u64 - 1)) as u32;
        base + first + self.shards * salt
    }

    /// The place of the session that `id` names if it is one of ours, and any place or none if
    /// not: for a comparison with the ID of whoever lives there.
    #[inline(always)]
    pub(crate) const fn place(&self, id: u32) -> u32 {
        ((id as u64).wrapping_mul(self.scale) >> u32::BITS) as u32
    }

    /// The place of the session that `id` may name; `None` when it is another shard's.
    pub(crate) const fn locate(&self, id: u32) -> Option<u32> {
        if id % self.shards != self.shard || id >= ID_SPACE {
            return None;
        }
        Some(self.place(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_shard_and_place() {
        for shards in [1, 2, 3, 7, 64] {
            for shard in 0..shards {
                let mut ids = SocketIds::new(ShardId(shard), usize::from(shards), 4_096, 7);
                for index in [0, 1, 999, 4_095] {
                    let id = ids.issue(index);
                    assert!(id != 0 && id < 1 << 30);
                    assert_eq!(id % u32::from(shards), u32::from(shard));
                    assert_eq!(ids.locate(id), Some(index));
                    assert_eq!(ids.place(id), index);
                    assert!(shards == 1 || ids.locate(id + 1).is_none());
                }
            }
        }
    }

    #[test]
    fn every_id_that_is_issued_is_found_in_its_place() {
        for shards in 1..=300 {
            let shard = ShardId(shards - 1);
            let mut ids = SocketIds::new(shard, usize::from(shards), 1_000, 7);
            for index in [0, 1, 511, 1_022, 1_023] {
                for _ in 0..50 {
                    let id = ids.issue(index);
                    assert!(id != 0 && id < ID_SPACE);
                    assert_eq!(id % u32::from(shards), u32::from(shard.0));
                    assert_eq!((ids.locate(id), ids.place(id)), (Some(index), index));
                }
            }
            assert!(ids.place(u32::MAX) > 1_023, "nobody lives there");
        }
    }

    #[test]
    fn successive_ids_of_one_place_differ() {
        let mut ids = SocketIds::new(ShardId(0), 2, 100, 42);
        let issued: std::collections::BTreeSet<_> = (0..100).map(|_| ids.issue(3)).collect();
        assert!(issued.len() > 98);
    }
}
