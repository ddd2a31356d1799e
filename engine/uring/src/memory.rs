//! Prefaulted anonymous memory: what the provided buffers and the packet pool are made of
//! (design D2: into freshly mapped pages a copy costs 946 ns instead of 48).

use std::io;
use std::ptr::NonNull;

/// A page.
pub(crate) const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// A mapping that is zeroed, readable, writable and in memory. Unmapped on drop, unless leaked.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Maps and touches `bytes`, rounded up to whole pages.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        Region::map(round_up(bytes.max(1), PAGE), 0)
    }

    /// The same on huge pages: explicit ones if the host has reserved enough of them, else
    /// transparent ones if it grants them, else ordinary ones.
    pub(crate) fn huge(bytes: usize) -> io::Result<Self> {
        let bytes = round_up(bytes.max(1), HUGE_PAGE);
        Region::map(bytes, libc::MAP_HUGETLB).or_else(|_| Region::transparent_huge(bytes))
    }

    /// The same on transparent huge pages, if the host grants them: no reservation is needed, and
    /// what is too large for the TLB with small pages is not with these.
    pub(crate) fn large(bytes: usize) -> io::Result<Self> {
        Region::transparent_huge(round_up(bytes.max(1), HUGE_PAGE))
    }

    #[cfg(not(miri))]
    fn map(bytes: usize, extra: i32) -> io::Result<Self> {
        Region::map_flags(bytes, libc::MAP_POPULATE | extra)
    }

    #[cfg(not(miri))]
    fn transparent_huge(bytes: usize) -> io::Result<Self> {
        let region = Region::map_flags(bytes, 0)?;
        // SAFETY: the range is ours and whole; both advices keep its content. Refusal is no
        // error: the pages are then small, or touched one by one below.
        let populated = unsafe {
            libc::madvise(region.base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
            libc::madvise(
                region.base.as_ptr().cast(),
                bytes,
                libc::MADV_POPULATE_WRITE,
            ) == 0
        };
        if !populated {
            for page in (0..bytes).step_by(PAGE) {
                // SAFETY: `page` is below `bytes`, in a mapping that nobody else knows yet.
                unsafe { region.base.add(page).write_volatile(0) };
            }
        }
        Ok(region)
    }

    #[cfg(not(miri))]
    fn map_flags(bytes: usize, flags: i32) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing
        // that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Region { base, bytes }),
            None => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        }
    }

    #[cfg(miri)]
    fn map(bytes: usize, _extra: i32) -> io::Result<Self> {
        Region::transparent_huge(bytes)
    }

    #[cfg(miri)]
    fn transparent_huge(bytes: usize) -> io::Result<Self> {
        let layout = std::alloc::Layout::from_size_align(bytes, PAGE).expect("a valid layout");
        // SAFETY: the size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Ok(Region {
            base: NonNull::new(base).expect("memory"),
            bytes,
        })
    }

    /// Its first byte.
    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its length in bytes.
    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its memory for the rest of the process.
    pub(crate) fn leak(self) -> &'static mut [u8] {
        let (base, bytes) = (self.base, self.bytes);
        std::mem::forget(self);
        // SAFETY: the mapping is `bytes` long, initialised (zeroed), and as `self` is forgotten
        // nobody else holds or unmaps it.
        unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), bytes) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        #[cfg(not(miri))]
        // SAFETY: base and length are those of our own mapping; whoever lent pointers into it
        // (the buffer ring) has closed the io_uring instance before.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.bytes);
        }
        #[cfg(miri)]
        // SAFETY: allocated with this very layout.
        unsafe {
            std::alloc::dealloc(
                self.base.as_ptr(),
                std::alloc::Layout::from_size_align(self.bytes, PAGE).expect("a valid layout"),
            );
        }
    }
}

const fn round_up(bytes: usize, unit: usize) -> usize {
    bytes.div_ceil(unit) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zeroed_page_aligned_and_rounded_up() {
        let region = Region::new(5000).unwrap();
        assert_eq!(region.bytes(), 8192);
        assert_eq!(region.base().as_ptr().addr() % PAGE, 0);
        // SAFETY: within the region, which nobody else reads or writes.
        let bytes = unsafe { std::slice::from_raw_parts(region.base().as_ptr(), region.bytes()) };
        assert!(bytes.iter().all(|&b| b == 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "2 MiB byte by byte")]
    fn huge_pages_fall_back_to_what_the_host_grants() {
        let region = Region::huge(1).unwrap();
        assert_eq!(region.bytes(), HUGE_PAGE);
    }
}
