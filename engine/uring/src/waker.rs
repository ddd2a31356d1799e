//! Waking a reactor from another thread: a flag that says so, and an eventfd that the reactor's
//! ring polls (design D1). While the flag is up further wakes cost no system call.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::check;

struct Shared {
    raised: AtomicBool,
    event: OwnedFd,
}

/// Wakes a reactor from another thread (eventfd).
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new and nobody else's.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Waker {
            shared: Arc::new(Shared {
                raised: AtomicBool::new(false),
                event,
            }),
        })
    }

    /// Wakes it, or makes its next wait return at once.
    ///
    /// What the caller wrote before (a message in the shard's mailbox) is visible to the reactor's
    /// thread once [`Reactor::take_woken`](crate::Reactor::take_woken) has said `true`.
    pub fn wake(&self) {
        if !self.shared.raised.swap(true, Ordering::AcqRel) {
            let one = 1u64;
            // SAFETY: eight readable bytes. The counter cannot overflow: one a wake that was
            // taken, and 2⁶⁴ of those are not to be had; the ring's poll is edge-triggered, so
            // nobody needs to read it.
            unsafe { libc::write(self.event_fd(), std::ptr::from_ref(&one).cast(), 8) };
        }
    }

    /// Whether it was woken since the last call.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        // The plain load keeps the cache line shared in the turns (most) without a wake.
        self.is_raised() && self.shared.raised.swap(false, Ordering::AcqRel)
    }

    /// Whether there is a wake that was not taken.
    #[inline]
    pub(crate) fn is_raised(&self) -> bool {
        self.shared.raised.load(Ordering::Acquire)
    }

    /// The eventfd.
    pub(crate) fn event_fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("raised", &self.is_raised())
            .finish()
    }
}
