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

/// Lets the processor fetch the first lines of what lies in memory behind these bytes, whatever
/// that is.
#[inline(always)]
pub fn prefetch_behind<const N: usize, const LINES: usize>(bytes: &[u8; N]) {
    #[cfg(target_arch = "x86_64")]
    {
        let behind = bytes.as_ptr().wrapping_add(N);
        // A loop, and no iterator: it has to become one instruction a line here.
        let mut line = 0;
        while line < LINES {
            hint_at(behind.wrapping_add(line * LINE));
            line += 1;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn hint(line: &[u8]) {
    hint_at(line.as_ptr());
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn hint_at(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86_64; the hint neither reads nor faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}
