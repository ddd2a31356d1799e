//! SRT socket IDs that say where they belong (design, section 3): `id % shards` is the shard,
//! and inside the rest the low bits are the session's place in its arena, the high bits a
//! random salt, so that finding a session is arithmetic and a stale ID is told from a live one.
//! Bits 0–29 are used; bit 30 marks groups, bit 31 is always clear.

use mirror_base::{PacketSequenceNumber, ShardId};

const ID_SPACE: u32 = 1 << 30;

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
    index_bits: u32,
    salts: u32,
    /// Multiplied by this and shifted by that is divided by `shards`.
    reciprocal: u64,
    shift: u32,
    /// Of the bits of an index.
    mask: u32,
    random: Random,
}

impl SocketIds {
    /// For a shard with at most `sessions` sessions.
    pub(crate) fn new(shard: ShardId, shards: usize, sessions: usize, seed: u64) -> Self {
        let shards = shards.max(1) as u32;
        let index_bits = sessions.max(2).next_power_of_two().trailing_zeros();
        let salts = (ID_SPACE / shards) >> index_bits;
        assert!(
            salts >= 2,
            "too many sessions and shards for 30-bit socket IDs"
        );
        let random = Random::new(seed ^ u64::from(shard.0).wrapping_mul(0xA24B_AED4_963E_E407));
        // Exact for what is below 2^30: it is too great by less than 1, which adds less than
        // 2^30 / 2^shift < 1 / shards to the quotient.
        let shift = 34 + shards.ilog2();
        SocketIds {
            shard: u32::from(shard.0),
            shards,
            index_bits,
            salts,
            reciprocal: (1_u64 << shift).div_ceil(u64::from(shards)),
            shift,
            mask: (1 << index_bits) - 1,
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
        // A salt of 0 is not used: an ID is never 0.
        let salt = 1 + (self.random.next() % (self.salts as u64 - 1)) as u32;
        self.shard + self.shards * ((salt << self.index_bits) | index)
    }

    /// The place of the session that `id` names if it is one of ours, and any place if not: for
    /// a comparison with the ID of whoever lives there.
    #[inline]
    pub(crate) const fn place(&self, id: u32) -> u32 {
        let number = (id as u64).wrapping_mul(self.reciprocal) >> self.shift;
        number as u32 & self.mask
    }

    /// The place of the session that `id` may name; `None` when it is another shard's.
    pub(crate) const fn locate(&self, id: u32) -> Option<u32> {
        // One division for both questions.
        let number = id / self.shards;
        if id - number * self.shards != self.shard || id >= ID_SPACE {
            return None;
        }
        Some(number & self.mask)
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
    fn every_id_of_a_shard_is_found_in_its_place() {
        for shards in 1..=300 {
            let shard = ShardId(shards - 1);
            let ids = SocketIds::new(shard, usize::from(shards), 1_000, 7);
            // Quotients just before and at each step, all over the space.
            let step = ID_SPACE / 5_000;
            for number in (0..ID_SPACE / u32::from(shards)).step_by(step as usize / 16 + 1) {
                let id = u32::from(shard.0) + u32::from(shards) * number;
                if id < ID_SPACE {
                    assert_eq!(Some(ids.place(id)), ids.locate(id), "{id} of {shards}");
                }
            }
            let last = (ID_SPACE - 1) / u32::from(shards) * u32::from(shards) - 1;
            assert_eq!(
                Some(ids.place(last)),
                ids.locate(last),
                "{last} of {shards}"
            );
            ids.place(u32::MAX);
        }
    }

    #[test]
    fn successive_ids_of_one_place_differ() {
        let mut ids = SocketIds::new(ShardId(0), 2, 100, 42);
        let issued: std::collections::BTreeSet<_> = (0..100).map(|_| ids.issue(3)).collect();
        assert!(issued.len() > 98);
    }
}
