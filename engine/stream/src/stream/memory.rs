//! A stream's memory: the rings of its lanes, and what they are given to grow.

use mirror_base::ring::CHUNK_BYTES;
use mirror_base::{Chunk, SlotRing};

use super::Stream;
use crate::lane::{Lane, Lanes};

impl Stream {
    /// The memory that the session fills.
    pub const fn ring_mut(&mut self) -> &mut SlotRing {
        &mut self.lanes.first.ring
    }

    /// The memory that the session fills and outputs read.
    pub const fn ring(&self) -> &SlotRing {
        &self.lanes.first.ring
    }

    #[cfg(test)]
    pub(crate) const fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// From now on it has at least `count` lanes, whose rings can be given memory.
    pub fn set_lanes(&mut self, count: usize) {
        self.lanes.set_count(count);
    }

    /// How many lanes it has.
    pub const fn lanes(&self) -> usize {
        self.lanes.count()
    }

    /// The memory of lane `lane`, counted from 0.
    pub fn lane_ring(&self, lane: usize) -> Option<&SlotRing> {
        self.lanes.get(lane).map(|lane| &lane.ring)
    }

    /// The memory that the session fills with lane `lane`.
    pub fn lane_ring_mut(&mut self, lane: usize) -> Option<&mut SlotRing> {
        self.lanes.get_mut(lane).map(|lane| &mut lane.ring)
    }

    /// Everything of its lane below `index` was delivered or skipped: memory may be reused.
    #[inline]
    pub fn release_before(&mut self, index: u64) {
        if let Some(lane) = self.lanes.of_mut(index) {
            lane.ring.release_before(index);
        }
    }

    /// Chunks that the ring should get now: it grows until it holds what the session holds
    /// back, half as much again, and `ring_bytes` of history, within `per_stream_bytes`.
    #[inline]
    pub fn chunks_wanted(&self) -> usize {
        self.lane_chunks_wanted(0)
    }

    /// The same for the ring of lane `lane`. Lanes share what the stream may have.
    #[inline]
    pub fn lane_chunks_wanted(&self, lane: usize) -> usize {
        let Some(Lane { ring, .. }) = self.lanes.get(lane) else {
            return 0;
        };
        // The groups of pictures to be kept live within it: a ring grown to hold all of them is
        // cold memory to each packet (two and a half times the floor instead of one and a half).
        let history = self.config.ring_bytes;
        let capacity = ring.capacity_slots();
        if capacity > 0 && ring.available_slots() > capacity / 4 {
            // Room for a burst; the history may still be short.
            if ring.capacity_bytes() >= history {
                return 0;
            }
        }
        self.chunks_wanted_slow(ring, history)
    }

    fn chunks_wanted_slow(&self, ring: &SlotRing, history: usize) -> usize {
        let owned = ring.capacity_bytes() / CHUNK_BYTES;
        let held = usize::try_from(ring.end().saturating_sub(ring.floor())).unwrap_or(0);
        let held = (held + held / 2).div_ceil(ring.chunk_slots());
        let target = history.div_ceil(CHUNK_BYTES) + held + 2;
        let target = target.min(self.most_chunks());
        // Grown in steps, so that a stream that is never fast never takes much.
        target.saturating_sub(owned).min(owned.max(8))
    }

    /// Chunks that the ring of one lane may have.
    fn most_chunks(&self) -> usize {
        (self.config.per_stream_bytes / CHUNK_BYTES / self.lanes.count()).max(1)
    }

    /// There is memory for `chunks` more chunks: the rings may count on them, as far as their
    /// own limit goes.
    pub fn promise_chunks(&mut self, chunks: usize) {
        let limit = self.most_chunks();
        for Lane { ring, .. } in self.lanes.iter_mut() {
            let left = limit.saturating_sub(ring.capacity_bytes() / CHUNK_BYTES);
            ring.promise_slots(left.min(chunks) * ring.chunk_slots());
        }
    }

    /// Makes the slots of lane `lane` long enough for a datagram of `bytes`, with what `more`
    /// gives of memory, within what the stream may have. `false`: it cannot be.
    #[cold]
    pub fn widen_lane(
        &mut self,
        lane: usize,
        bytes: usize,
        mut more: impl FnMut() -> Option<Chunk>,
    ) -> bool {
        let limit = self.most_chunks();
        let Some(Lane { ring, .. }) = self.lanes.get_mut(lane) else {
            return false;
        };
        let mut left = limit.saturating_sub(ring.capacity_bytes() / CHUNK_BYTES);
        ring.widen(bytes, || {
            left = left.checked_sub(1)?;
            more()
        })
    }

    /// Gives the ring a chunk.
    pub fn add_chunk(&mut self, chunk: Chunk) {
        self.lanes.first.ring.add_chunk(chunk);
    }

    /// Takes the memory back: the stream is gone.
    pub fn into_chunks(self) -> impl Iterator<Item = Chunk> {
        let Lanes { first, others, .. } = self.lanes;
        let lanes = core::iter::once(first).chain(others);
        lanes.flat_map(|lane| lane.ring.into_chunks())
    }
}
