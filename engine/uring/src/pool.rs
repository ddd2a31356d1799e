//! The packet pool of a shard (design D2): memory that is mapped and touched once at start-up,
//! handed to the streams' slot rings chunk by chunk, and never unmapped (unmapping 64 MiB stalls
//! a core for 3.3 ms).

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mirror_base::Chunk;
use mirror_base::ring::CHUNK_BYTES;

use crate::memory::Region;

/// Bytes that the pools of all shards may take beyond what each has set aside
/// (`memory.total`); a clone is a handle on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Headroom(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that may still be taken.
    left: AtomicUsize,
    /// Memory that was taken and given back: part of `left`.
    returned: Mutex<Vec<Chunk>>,
}

impl Headroom {
    /// `bytes` to be taken.
    pub fn new(bytes: usize) -> Self {
        Headroom(Arc::new(Shared {
            left: AtomicUsize::new(bytes),
            returned: Mutex::default(),
        }))
    }

    /// One chunk, if there is room for one more.
    fn take(&self) -> Option<Chunk> {
        let take = |left: usize| left.checked_sub(CHUNK_BYTES);
        self.0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        let returned = self.0.returned.lock().ok().and_then(|mut r| r.pop());
        returned.or_else(|| {
            let region = Region::new(CHUNK_BYTES);
            if region.is_err() {
                self.0.left.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
            }
            let memory = region.ok()?.leak();
            Chunk::pooled(memory).next()
        })
    }

    /// Takes a chunk back, for any shard.
    fn put(&self, chunk: Chunk) {
        if let Ok(mut returned) = self.0.returned.lock() {
            returned.push(chunk);
            self.0.left.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
        }
    }

    fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }
}

/// Prefaulted packet memory, never unmapped (D2).
///
/// What was set aside is handed out first; when it is used up the pool grows chunk by chunk from
/// its [`Headroom`], each chunk mapped and touched as it is taken (some 15 µs), and keeps what it
/// got until it is full again; what it gets back beyond that goes to the headroom for all shards.
pub struct ChunkPool {
    free: Vec<Chunk>,
    set_aside: usize,
    chunks: usize,
    headroom: Headroom,
}

impl ChunkPool {
    /// Maps and touches `bytes`, rounded down to whole chunks.
    ///
    /// On transparent huge pages where the host grants them; with `huge_pages` on explicit ones
    /// if it has reserved enough.
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
                Region::large(bytes)?
            };
            // What huge pages add beyond `bytes` stays unused: `chunks` is what was asked for.
            free.extend(Chunk::pooled(region.leak()).take(chunks));
            // Low addresses first.
            free.reverse();
        }
        Ok(ChunkPool {
            free,
            set_aside: chunks,
            chunks,
            headroom: Headroom::default(),
        })
    }

    /// From now on it grows from `headroom` when it is empty.
    pub fn grow_from(&mut self, headroom: Headroom) {
        self.headroom = headroom;
    }

    /// One chunk, if any is left: the one given back last, which is likeliest in the cache.
    /// It holds whatever it held.
    pub fn take(&mut self) -> Option<Chunk> {
        self.free.pop().or_else(|| self.grow())
    }

    #[cold]
    fn grow(&mut self) -> Option<Chunk> {
        let chunk = self.headroom.take()?;
        self.chunks += 1;
        Some(chunk)
    }

    /// Gives one back. A chunk from the heap goes back to the heap.
    pub fn put(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Pooled(_) if self.free.len() < self.set_aside => self.free.push(chunk),
            Chunk::Pooled(_) => {
                self.chunks -= 1;
                self.headroom.put(chunk);
            }
            Chunk::Owned(_) => drop(chunk),
        }
    }

    /// Chunks in all.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Chunks that could be taken, those included that it would have to grow by.
    pub fn obtainable(&self) -> usize {
        self.free.len() + self.headroom.left() / CHUNK_BYTES
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
    fn an_empty_pool_grows_as_far_as_the_headroom_that_it_shares() {
        let headroom = Headroom::new(3 * CHUNK_BYTES - 1);
        let mut first = ChunkPool::new(CHUNK_BYTES, false).unwrap();
        let mut second = ChunkPool::new(0, false).unwrap();
        first.grow_from(headroom.clone());
        second.grow_from(headroom);
        let of_first: Vec<Chunk> = (0..2).filter_map(|_| first.take()).collect();
        let of_second: Vec<Chunk> = std::iter::from_fn(|| second.take()).collect();
        assert_eq!((of_first.len(), of_second.len()), (2, 1));
        assert!(first.take().is_none());
        of_second.into_iter().for_each(|chunk| second.put(chunk));
        assert_eq!((second.chunks(), second.free()), (0, 0));
        assert_eq!(
            first.obtainable(),
            1,
            "what one shard gives back, another gets"
        );
        assert!(first.take().is_some());
        of_first.into_iter().for_each(|chunk| first.put(chunk));
        assert_eq!((first.chunks(), first.free()), (2, 1));
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
