//! The few system calls that neither `io-uring` nor `socket2` offer in the form we need: socket
//! options by number, clocks, `io_uring_enter` on a registered ring. Called from every module of
//! this room; nothing here decides anything.

use std::io;
use std::mem::size_of;
use std::os::fd::RawFd;

/// `UDP_SEGMENT` (linux/udp.h); glibc's part of `libc` lacks it.
pub(crate) const UDP_SEGMENT: i32 = 103;
/// `UDP_GRO` (linux/udp.h).
pub(crate) const UDP_GRO: i32 = 104;
/// `IP_MULTICAST_ALL` (linux/in.h).
pub(crate) const IP_MULTICAST_ALL: i32 = 49;
/// `IPV6_MULTICAST_ALL` (linux/in6.h).
pub(crate) const IPV6_MULTICAST_ALL: i32 = 29;
/// `SO_ATTACH_REUSEPORT_CBPF` (asm-generic/socket.h).
pub(crate) const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
/// `SO_MEMINFO` (asm-generic/socket.h).
pub(crate) const SO_MEMINFO: i32 = 55;
/// Index of the drop counter in what `SO_MEMINFO` gives (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;

/// `IORING_ENTER_GETEVENTS`.
pub(crate) const ENTER_GETEVENTS: u32 = 1;
/// `IORING_ENTER_EXT_ARG`.
pub(crate) const ENTER_EXT_ARG: u32 = 8;
/// `IORING_ENTER_REGISTERED_RING`.
pub(crate) const ENTER_REGISTERED_RING: u32 = 16;
/// `IORING_ENTER_NO_IOWAIT` (6.15): a shard waiting for packets is idle, not waiting for a disk.
pub(crate) const ENTER_NO_IOWAIT: u32 = 128;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;
const REGISTER_NAPI: u32 = 27;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct EnterArgs {
    pub(crate) sigmask: u64,
    pub(crate) sigmask_bytes: u32,
    pub(crate) min_wait_us: u32,
    pub(crate) timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct KernelTimespec {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Turns a −1 into the error of this thread.
pub(crate) fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Sets a socket option from a plain C value.
pub(crate) fn set_option<T: Copy>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` points to `size_of::<T>()` readable bytes for the length of the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Reads an `int` socket option.
pub(crate) fn int_option(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` and `length` are writable and of the sizes that `length` tells.
    check(unsafe {
        libc::getsockopt(
            fd,
            level,
            name,
            std::ptr::from_mut(&mut value).cast(),
            &mut length,
        )
    })?;
    Ok(value)
}

/// Datagrams the kernel dropped at this socket since it was made.
pub(crate) fn socket_drops(fd: RawFd) -> io::Result<u32> {
    let mut info = [0u32; 16];
    let mut length = size_of::<[u32; 16]>() as libc::socklen_t;
    // SAFETY: `info` is writable for the `length` bytes that the call is told of.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    })?;
    Ok(info[SK_MEMINFO_DROPS])
}

/// Nanoseconds of a clock.
pub(crate) fn clock_nanos(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a writable timespec. The clocks asked for exist on every Linux, so the
    // call cannot fail; if it did, `time` would still be initialised.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec
        .cast_unsigned()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec.cast_unsigned())
}

/// Sleeps; only where the ring itself fails and spinning would be worse.
pub(crate) fn pause_1_ms() {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    // SAFETY: `time` is readable and the remainder is not asked for.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
}

/// `io_uring_enter`. `fd` is a descriptor, or an index if `flags` has `ENTER_REGISTERED_RING`.
///
/// # Safety
/// The submission queue's entries must satisfy their operations' contracts, and a timeout in
/// `args` must point to a living [`KernelTimespec`].
pub(crate) unsafe fn ring_enter(
    fd: i32,
    submit: u32,
    want: u32,
    flags: u32,
    args: Option<&EnterArgs>,
) -> io::Result<u32> {
    let (pointer, size) = match args {
        Some(args) => (std::ptr::from_ref(args), size_of::<EnterArgs>()),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: the pointer is null or points to a living EnterArgs of the size given; the rest is
    // the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            submit,
            want,
            flags,
            pointer,
            size,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as u32)
    }
}

/// Registers a ring's descriptor for this thread; gives its index.
pub(crate) fn register_ring(fd: RawFd) -> io::Result<u32> {
    let mut update = ResourceUpdate {
        offset: u32::MAX,
        reserved: 0,
        data: fd as u64,
    };
    ring_register(fd, REGISTER_RING_FDS, &mut update)?;
    Ok(update.offset)
}

/// Takes that back. While an index is registered the ring outlives its descriptor.
pub(crate) fn unregister_ring(fd: RawFd, index: u32) -> io::Result<()> {
    let mut update = ResourceUpdate {
        offset: index,
        reserved: 0,
        data: 0,
    };
    ring_register(fd, UNREGISTER_RING_FDS, &mut update)
}

/// `io_uring_napi` of linux/io_uring.h.
#[repr(C)]
struct Napi {
    busy_poll_micros: u32,
    prefer_busy_poll: u8,
    padding: [u8; 3],
    reserved: u64,
}

/// What [`ring_register`] may be given.
trait Argument {}
impl Argument for ResourceUpdate {}
impl Argument for Napi {}

/// Waits of the ring poll the NIC queues of its sockets for so long before they sleep.
pub(crate) fn register_napi(fd: RawFd, micros: u32) -> io::Result<()> {
    let mut napi = Napi {
        busy_poll_micros: micros,
        prefer_busy_poll: 1,
        padding: [0; 3],
        reserved: 0,
    };
    ring_register(fd, REGISTER_NAPI, &mut napi)
}

/// `T` is what `operation` takes one of.
fn ring_register<T: Argument>(fd: RawFd, operation: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: `argument` is an array of one, of the layout that the operation reads and writes:
    // the callers pair them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            operation,
            std::ptr::from_mut(argument),
            1,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs the calling thread under SCHED_FIFO with `priority` (1 to 99): `[scheduling] policy`.
///
/// # Errors
/// What the kernel says: without CAP_SYS_NICE or RLIMIT_RTPRIO it refuses.
pub fn run_as_fifo(priority: u8) -> io::Result<()> {
    // SAFETY: a sched_param of zeros is one; its one documented field is set below.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = i32::from(priority);
    // SAFETY: 0 is this thread, and the parameters are readable.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
