//! The packet pool of a shard (design D2): memory that is mapped and touched once at start-up,
//! handed to the streams' slot rings chunk by chunk, and never unmapped (unmapping 64 MiB stalls
//! a core for 3.3 ms).

use std::fmt;
use std::io;

use mirror_base::Chunk;
use mirror_base::ring::CHUNK_BYTES;

use crate::memory::Region;

/// Prefaulted packet memory, never unmapped (D2).
pub struct ChunkPool {
    free: Vec<Chunk>,
    chunks: usize,
}

impl ChunkPool {
    /// Maps and touches `bytes`, rounded down to whole chunks.
    ///
    /// With `huge_pages`: explicit huge pages if the host has reserved enough, else transparent
    /// ones, else ordinary pages.
    ///
    /// # Errors
    /// What the kernel says when it cannot give the memory.
    pub fn new(bytes: usize, huge_pages: bool) -> Result<Self, io::Error> {
        let chunks = bytes / CHUNK_BYTES;
        let mut free = Vec::with_capacity(chunks);
        if chunks > 0 {
            let bytes = chunks * CHUNK_BYTES;
            let region = if huge_pages {
                Region::huge(bytes)?
            } else {
                Region::new(bytes)?
            };
            // What huge pages add beyond `bytes` stays unused: `chunks` is what was asked for.
            free.extend(
                region
                    .leak()
                    .chunks_exact_mut(CHUNK_BYTES)
                    .take(chunks)
                    .map(Chunk::Pooled),
            );
            // Low addresses first.
            free.reverse();
        }
        Ok(ChunkPool { free, chunks })
    }

    /// One chunk, if any is left: the one given back last, which is likeliest in the cache.
    /// It holds whatever it held.
    pub fn take(&mut self) -> Option<Chunk> {
        self.free.pop()
    }

    /// Gives one back. A chunk from the heap goes back to the heap.
    pub fn put(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Pooled(_) => self.free.push(chunk),
            Chunk::Owned(_) => drop(chunk),
        }
    }

    /// Chunks in all.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Chunks free.
    pub fn free(&self) -> usize {
        self.free.len()
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("chunks", &self.chunks)
            .field("free", &self.free.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // The pool is never unmapped by design; miri would call that a leak.
    #[cfg_attr(miri, ignore = "leaks on purpose")]
    fn chunks_are_disjoint_counted_and_come_back() {
        let mut pool = ChunkPool::new(4 * CHUNK_BYTES + 100, false).unwrap();
        assert_eq!((pool.chunks(), pool.free()), (4, 4));
        let mut taken: Vec<Chunk> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((taken.len(), pool.free()), (4, 0));
        for (i, chunk) in taken.iter_mut().enumerate() {
            assert_eq!(chunk.len(), CHUNK_BYTES);
            chunk.fill(i as u8 + 1);
        }
        for (i, chunk) in taken.iter().enumerate() {
            assert!(chunk.iter().all(|&b| b == i as u8 + 1));
        }
        taken.into_iter().for_each(|chunk| pool.put(chunk));
        pool.put(Chunk::owned());
        assert_eq!(pool.free(), 4, "a heap chunk does not enlarge the pool");
    }

    #[test]
    #[cfg_attr(miri, ignore = "leaks on purpose")]
    fn a_huge_page_pool_has_the_chunks_that_were_asked_for() {
        let pool = ChunkPool::new(3 * CHUNK_BYTES, true).unwrap();
        assert_eq!((pool.chunks(), pool.free()), (3, 3));
    }

    #[test]
    fn less_than_a_chunk_is_an_empty_pool() {
        let mut pool = ChunkPool::new(CHUNK_BYTES - 1, false).unwrap();
        assert!(pool.take().is_none());
    }
}
