//! The pieces of memory that rings are made of. A pool gives them to rings; tests have them from the
//! heap.

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::{CHUNK_SLOTS, SLOT_BYTES};

/// The bytes of a chunk, slot by slot: a slot's place in it needs no look at its length.
pub type ChunkMemory = [[u8; SLOT_BYTES]; CHUNK_SLOTS];

/// A piece of packet memory, [`CHUNK_BYTES`] long.
pub enum Chunk {
    /// From a pool that is never unmapped.
    Pooled(&'static mut ChunkMemory),
    /// From the heap: tests and simulations.
    Owned(Box<ChunkMemory>),
}

impl Chunk {
    /// A chunk from the heap.
    pub fn owned() -> Self {
        Chunk::Owned(Box::new([[0; SLOT_BYTES]; CHUNK_SLOTS]))
    }

    /// All chunks that there are in `memory`; what is left at its end belongs to none.
    pub fn pooled(memory: &'static mut [u8]) -> impl Iterator<Item = Chunk> {
        let (slots, _) = memory.as_chunks_mut();
        let (chunks, _) = slots.as_chunks_mut();
        chunks.iter_mut().map(Chunk::Pooled)
    }

    #[inline]
    pub(super) const fn slots(&self) -> &ChunkMemory {
        match self {
            Chunk::Pooled(slots) => slots,
            Chunk::Owned(slots) => slots,
        }
    }

    #[inline(always)]
    pub(super) const fn slots_mut(&mut self) -> &mut ChunkMemory {
        match self {
            Chunk::Pooled(slots) => slots,
            Chunk::Owned(slots) => slots,
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.slots().as_flattened()
    }
}

impl DerefMut for Chunk {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.slots_mut().as_flattened_mut()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}
