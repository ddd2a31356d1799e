//! The provided-buffer ring (design D2): few buffers, so that they stay in the cache. The kernel
//! takes them from the head, the reactor gives them back at the tail, in batches.

use std::io;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::memory::Region;

/// `struct io_uring_buf`. In entry 0 the last field is the ring's tail.
#[repr(C)]
struct Entry {
    address: u64,
    bytes: u32,
    id: u16,
    tail: u16,
}

const _: () = assert!(size_of::<Entry>() == 16 && offset_of!(Entry, tail) == 14);

/// Buffers shared with the kernel.
#[derive(Debug)]
pub(crate) struct BufferRing {
    entries: Region,
    memory: Region,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl BufferRing {
    /// `count` (a power of two, at most 32768) buffers of `buffer_bytes`, all published.
    pub(crate) fn new(count: u16, buffer_bytes: usize) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let mut ring = BufferRing {
            entries: Region::new(usize::from(count) * size_of::<Entry>())?,
            memory: Region::new(usize::from(count) * buffer_bytes)?,
            count,
            buffer_bytes,
            tail: 0,
        };
        for id in 0..count {
            ring.give_back(id);
        }
        ring.publish();
        Ok(ring)
    }

    /// Address of the entries, for registration.
    pub(crate) fn address(&self) -> u64 {
        self.entries.base().as_ptr().expose_provenance() as u64
    }

    /// Queues buffer `id` for the kernel. The caller owns it: the kernel handed it out with a
    /// completion and it was not given back since.
    #[inline]
    pub(crate) fn give_back(&mut self, id: u16) {
        let Some(buffer) = self.buffer_base(id) else {
            return;
        };
        let at = usize::from(self.tail & (self.count - 1));
        let entry = self.entries.base().cast::<Entry>();
        // SAFETY: `at` < count, so the entry is within the region, page-aligned. The kernel
        // reads entries below the published tail only, and this one is beyond: it has no more
        // buffers than places. The tail in entry 0 is not touched.
        unsafe {
            let entry = entry.add(at).as_ptr();
            (&raw mut (*entry).address).write(buffer.as_ptr().expose_provenance() as u64);
            (&raw mut (*entry).bytes).write(self.buffer_bytes as u32);
            (&raw mut (*entry).id).write(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    #[inline]
    pub(crate) fn publish(&mut self) {
        // SAFETY: entry 0 lies within the region; its tail is aligned to 2 and is, after
        // registration, accessed atomically by the kernel and by this line alone.
        unsafe {
            let tail = &raw mut (*self.entries.base().cast::<Entry>().as_ptr()).tail;
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// The first `length` bytes of buffer `id`.
    ///
    /// # Safety
    /// The kernel handed the buffer out, and [`BufferRing::publish`] does not show it the buffer
    /// again while the slice lives.
    #[inline]
    pub(crate) unsafe fn buffer(&self, id: u16, length: usize) -> &[u8] {
        match self.buffer_base(id) {
            // SAFETY: `id` < count, so the buffer's bytes lie within the region, which is
            // initialised; nobody writes to them, as the caller promises.
            Some(base) => unsafe {
                std::slice::from_raw_parts(base.as_ptr(), length.min(self.buffer_bytes))
            },
            None => &[],
        }
    }

    #[inline]
    fn buffer_base(&self, id: u16) -> Option<NonNull<u8>> {
        if id >= self.count {
            return None;
        }
        // SAFETY: id < count, so the offset is within the region.
        Some(unsafe { self.memory.base().add(usize::from(id) * self.buffer_bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's side.
    struct Kernel {
        head: u16,
    }

    impl Kernel {
        fn tail(ring: &BufferRing) -> u16 {
            // SAFETY: as in publish().
            unsafe {
                let tail = &raw mut (*ring.entries.base().cast::<Entry>().as_ptr()).tail;
                AtomicU16::from_ptr(tail).load(Ordering::Acquire)
            }
        }

        fn take(&mut self, ring: &BufferRing, content: u8) -> Option<u16> {
            if self.head == Kernel::tail(ring) {
                return None;
            }
            let at = usize::from(self.head & (ring.count - 1));
            self.head = self.head.wrapping_add(1);
            // SAFETY: below the tail: ours to read; the address is that of a whole buffer.
            unsafe {
                let entry = ring.entries.base().cast::<Entry>().add(at).as_ptr();
                let (address, bytes) = ((*entry).address, (*entry).bytes);
                let buffer = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
                buffer.write_bytes(content, bytes as usize);
                Some((*entry).id)
            }
        }
    }

    #[test]
    fn buffers_go_round_past_the_wrap_of_the_tail_and_keep_apart() {
        let mut ring = BufferRing::new(4, 256).unwrap();
        let mut kernel = Kernel { head: 0 };
        let rounds = if cfg!(miri) { 300 } else { 40_000 };
        if cfg!(miri) {
            // Near the wrap.
            for _ in 0..4 {
                kernel.take(&ring, 0).unwrap();
            }
            (ring.tail, kernel.head) = (65_400, 65_400);
            (0..4).for_each(|id| ring.give_back(id));
            ring.publish();
        }
        for round in 0..rounds {
            let a = kernel.take(&ring, round as u8).unwrap();
            let b = kernel.take(&ring, !(round as u8)).unwrap();
            assert_ne!(a, b);
            // SAFETY: both were handed out and are given back below.
            unsafe {
                assert!(ring.buffer(a, 256).iter().all(|&x| x == round as u8));
                assert!(ring.buffer(b, 300).iter().all(|&x| x == !(round as u8)));
                assert_eq!(ring.buffer(b, 300).len(), 256);
            }
            ring.give_back(b);
            ring.give_back(a);
            ring.publish();
        }
    }

    #[test]
    fn the_kernel_sees_nothing_before_it_is_published() {
        let mut ring = BufferRing::new(2, 64).unwrap();
        let mut kernel = Kernel { head: 0 };
        let ids = [
            kernel.take(&ring, 1).unwrap(),
            kernel.take(&ring, 2).unwrap(),
        ];
        assert!(kernel.take(&ring, 3).is_none(), "out of buffers");
        ids.into_iter().for_each(|id| ring.give_back(id));
        assert!(kernel.take(&ring, 3).is_none());
        ring.publish();
        assert!(kernel.take(&ring, 3).is_some());
    }

    #[test]
    fn an_unknown_buffer_id_is_no_buffer() {
        let mut ring = BufferRing::new(2, 64).unwrap();
        let tail = ring.tail;
        ring.give_back(2);
        assert_eq!(ring.tail, tail);
        // SAFETY: there is no such buffer to alias.
        assert!(unsafe { ring.buffer(9, 64) }.is_empty());
    }
}
