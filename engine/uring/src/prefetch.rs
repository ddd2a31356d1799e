//! Memory on its way into the cache before it is used.

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Lets the processor fetch these bytes while it goes on.
#[inline(always)]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        let (groups, rest) = bytes.as_chunks::<{ 4 * LINE }>();
        groups.iter().for_each(prefetch_all);
        rest.chunks(LINE).for_each(hint);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// [`prefetch`] of a length that the compiler knows: an instruction a line.
#[inline(always)]
pub fn prefetch_all<const N: usize>(bytes: &[u8; N]) {
    #[cfg(target_arch = "x86_64")]
    bytes.chunks(LINE).for_each(hint);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Lets the processor fetch the 21 lines (seven TS packets) that lie in memory behind these bytes,
/// whatever that is.
///
/// In assembly, so that all of it hangs on one register, the pointer that the caller has in hand:
/// the compiler would keep its parts in two more, on a way that has none to spare.
#[inline(always)]
#[cfg_attr(
    target_arch = "x86_64",
    allow(clippy::pointers_in_nomem_asm_block, reason = "a hint reads nothing")
)]
pub fn prefetch_behind<const N: usize>(bytes: &[u8; N]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: SSE is part of x86_64; a hint neither reads nor faults, whatever the address, and
    // changes no register nor flag.
    unsafe {
        core::arch::asm!(
            "prefetcht0 [{0} + {1}]",
            "prefetcht0 [{0} + {1} + 0x040]",
            "prefetcht0 [{0} + {1} + 0x080]",
            "prefetcht0 [{0} + {1} + 0x0c0]",
            "prefetcht0 [{0} + {1} + 0x100]",
            "prefetcht0 [{0} + {1} + 0x140]",
            "prefetcht0 [{0} + {1} + 0x180]",
            "prefetcht0 [{0} + {1} + 0x1c0]",
            "prefetcht0 [{0} + {1} + 0x200]",
            "prefetcht0 [{0} + {1} + 0x240]",
            "prefetcht0 [{0} + {1} + 0x280]",
            "prefetcht0 [{0} + {1} + 0x2c0]",
            "prefetcht0 [{0} + {1} + 0x300]",
            "prefetcht0 [{0} + {1} + 0x340]",
            "prefetcht0 [{0} + {1} + 0x380]",
            "prefetcht0 [{0} + {1} + 0x3c0]",
            "prefetcht0 [{0} + {1} + 0x400]",
            "prefetcht0 [{0} + {1} + 0x440]",
            "prefetcht0 [{0} + {1} + 0x480]",
            "prefetcht0 [{0} + {1} + 0x4c0]",
            "prefetcht0 [{0} + {1} + 0x500]",
            in(reg) bytes.as_ptr(),
            const N,
            options(nomem, nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = bytes;
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn hint(line: &[u8]) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86_64; the hint neither reads nor faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
}
