//! Whether this host can run a shard's ring, and what to do if not (design D1). `daemon` asks
//! before it binds anything; the reactor's constructor gives the same errors.

use std::ffi::CStr;
use std::io;

use crate::config::ReactorConfig;
use crate::reactor::Reactor;
use crate::socket::{SocketOptions, UdpSocket};

/// RLIMIT_MEMLOCK that is needed in any case: glommio refuses to start with less.
pub const MIN_MEMLOCK_BYTES: u64 = 512 * 1024;
/// What glommio's three rings of one executor are charged, rounded up.
const GLOMMIO_RINGS_BYTES: u64 = 128 * 1024;
/// Bit of `CAP_IPC_LOCK` (linux/capability.h): who has it is not charged for rings.
const CAP_IPC_LOCK: u32 = 14;

/// The host cannot run a ring as we need it. Each names the feature, the kernel that has it and
/// the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The operator's switch is off.
    #[error(
        "io_uring (Linux 5.1) is disabled: kernel.io_uring_disabled = {value}; enable it with \
         `sysctl -w kernel.io_uring_disabled=0`{}",
        if *.value == 1 {
            ", or run as a member of the group in kernel.io_uring_group, or with CAP_SYS_ADMIN"
        } else { "" }
    )]
    Disabled {
        /// Of the sysctl: 1 = for the unprivileged, 2 = for all.
        value: u8,
    },
    /// No such system call.
    #[error(
        "this kernel ({running}) has no io_uring: run Linux 6.1 or newer built with \
         CONFIG_IO_URING=y (see `zgrep IO_URING /proc/config.gz`)"
    )]
    Missing {
        /// `uname -r`.
        running: String,
    },
    /// A filter forbids the system call.
    #[error(
        "io_uring (Linux 5.1) is forbidden here, most likely by a container's seccomp filter: \
         start the container with `--security-opt seccomp=unconfined`, or with a profile that \
         allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden,
    /// The kernel lacks something.
    #[error(
        "{feature} needs Linux {since} and this is {running}: install a newer kernel, \
         best 6.12 or later (`apt install linux-image-generic` or your distribution's like)"
    )]
    KernelTooOld {
        /// What is missing.
        feature: &'static str,
        /// The first version that has it.
        since: &'static str,
        /// `uname -r`.
        running: String,
    },
    /// RLIMIT_MEMLOCK is too small.
    #[error(
        "locked memory (RLIMIT_MEMLOCK) is limited to {have} bytes, and the shards' rings need \
         {need}: `ulimit -l {}`, or `LimitMEMLOCK=infinity` in the systemd unit, or \
         `--ulimit memlock=-1` for a container",
        .need / 1024
    )]
    MemlockTooSmall {
        /// The soft limit.
        have: u64,
        /// What is needed.
        need: u64,
    },
    /// The kernel refuses to lock or allocate memory for the ring.
    #[error(
        "the kernel gives no memory for the ring while it must {action}: raise the limit of \
         locked memory (`ulimit -l unlimited`) or the container's memory limit"
    )]
    NoMemory {
        /// What was tried.
        action: &'static str,
    },
    /// Too few descriptors.
    #[error(
        "{needed} open files are needed to {action}, more than the limit: `ulimit -n 65536`, or \
         `LimitNOFILE=65536` in the systemd unit"
    )]
    TooManyFiles {
        /// What was tried.
        action: &'static str,
        /// How many descriptors.
        needed: usize,
    },
    /// The configuration makes no ring.
    #[error("a ring cannot have {name} = {value}: {allowed}")]
    Config {
        /// Which option.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Anything else.
    #[error("cannot {action}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SetupError {
    /// What a failed step means. `since` is the kernel that first has what the step asked for.
    pub(crate) fn step(
        action: &'static str,
        feature: &'static str,
        since: &'static str,
        source: io::Error,
    ) -> Self {
        match source.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => SetupError::KernelTooOld {
                feature,
                since,
                running: kernel_release(),
            },
            Some(libc::ENOSYS) => SetupError::Missing {
                running: kernel_release(),
            },
            Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
                Some(value) => SetupError::Disabled { value },
                None => SetupError::Forbidden,
            },
            Some(libc::ENOMEM) => SetupError::NoMemory { action },
            Some(libc::EMFILE | libc::ENFILE) => SetupError::TooManyFiles { action, needed: 1 },
            _ => SetupError::Os { action, source },
        }
    }
}

/// Looks at the host: io_uring enabled, kernel features, RLIMIT_MEMLOCK. `Ok` = can run one shard
/// with the default configuration; see [`probe_for`].
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<(), SetupError> {
    probe_for(1, &ReactorConfig::default())
}

/// Looks at the host: io_uring enabled, kernel features, RLIMIT_MEMLOCK. `Ok` = can run `shards`
/// shards with rings of `config`.
///
/// Makes a ring with a socket on the loopback address, so that what the errors say was
/// tried, not guessed from a version. `min_wait` (Linux 6.12) is not required: see
/// [`Reactor::wait`].
///
/// # Errors
/// The first thing that is missing.
pub fn probe_for(shards: usize, config: &ReactorConfig) -> Result<(), SetupError> {
    let need = memlock_need(shards, config, locks_freely());
    check_memlock(memlock_limit(), need)?;
    let options = SocketOptions {
        receive_buffer: 0,
        send_buffer: 0,
        ..SocketOptions::default()
    };
    let socket = UdpSocket::bind_any(([127, 0, 0, 1], 0).into(), &options).map_err(|error| {
        let source = match error {
            crate::BindError::Os { source, .. } => source,
            other => io::Error::other(other),
        };
        SetupError::Os {
            action: "open a UDP socket on 127.0.0.1",
            source,
        }
    })?;
    let mut reactor = Reactor::new(config.clone(), vec![socket])?;
    reactor.reap(&mut |_| ());
    match reactor.refused() {
        Some(source) => Err(SetupError::step(
            "receive by multishot recvmsg",
            "multishot recvmsg of io_uring",
            "6.0",
            source,
        )),
        None => Ok(()),
    }
}

/// RLIMIT_MEMLOCK for so many shards. glommio looks at the limit whatever our privileges; the
/// kernel charges rings, for all processes of a user together, to those without CAP_IPC_LOCK.
fn memlock_need(shards: usize, config: &ReactorConfig, locks_freely: bool) -> u64 {
    if locks_freely {
        return MIN_MEMLOCK_BYTES;
    }
    let shard = config.memlock_bytes() + GLOMMIO_RINGS_BYTES;
    shard.saturating_mul(shards as u64).max(MIN_MEMLOCK_BYTES)
}

fn check_memlock(have: u64, need: u64) -> Result<(), SetupError> {
    if have < need {
        return Err(SetupError::MemlockTooSmall { have, need });
    }
    Ok(())
}

/// Whether we have CAP_IPC_LOCK.
fn locks_freely() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_IPC_LOCK) != 0)
}

fn memlock_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a writable rlimit. The resource exists, so the call does not fail.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_cur
}

fn disabled_by_sysctl() -> Option<u8> {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    value.trim().parse().ok().filter(|&value| value > 0)
}

/// `uname -r`.
fn kernel_release() -> String {
    // SAFETY: a utsname is arrays of bytes: zeros are one.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is writable; the kernel terminates each string.
    let release = unsafe {
        libc::uname(&mut name);
        CStr::from_ptr(name.release.as_ptr())
    };
    release.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(errno: i32) -> SetupError {
        let source = io::Error::from_raw_os_error(errno);
        SetupError::step("set up a ring", "IORING_SETUP_DEFER_TASKRUN", "6.1", source)
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel for its name")]
    fn every_error_names_feature_kernel_and_remedy() {
        for (error, parts) in [
            (
                step(libc::EINVAL),
                &["IORING_SETUP_DEFER_TASKRUN", "6.1", "install"][..],
            ),
            (step(libc::ENOSYS), &["io_uring", "6.1", "CONFIG_IO_URING"]),
            (step(libc::ENOMEM), &["set up a ring", "ulimit -l"]),
            (step(libc::EMFILE), &["set up a ring", "ulimit -n"]),
            (
                SetupError::Forbidden,
                &["io_uring", "5.1", "--security-opt"],
            ),
            (
                SetupError::Disabled { value: 1 },
                &["5.1", "sysctl -w", "io_uring_group"],
            ),
            (
                SetupError::Disabled { value: 2 },
                &["5.1", "sysctl -w kernel.io_uring_disabled=0"],
            ),
        ] {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_small_memlock_limit_is_refused_with_the_command() {
        assert!(check_memlock(MIN_MEMLOCK_BYTES, MIN_MEMLOCK_BYTES).is_ok());
        let error = check_memlock(65_536, MIN_MEMLOCK_BYTES).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("65536") && text.contains("ulimit -l 512"),
            "{text}"
        );
    }

    #[test]
    fn the_unprivileged_need_locked_memory_for_every_shards_rings() {
        let config = ReactorConfig::default();
        assert_eq!(memlock_need(64, &config, true), MIN_MEMLOCK_BYTES);
        assert_eq!(memlock_need(1, &config, false), MIN_MEMLOCK_BYTES);
        // Measured on Linux 6.18: a ring of the default configuration starts with 152 KiB.
        assert_eq!(config.memlock_bytes(), 156 * 1024);
        assert_eq!(memlock_need(16, &config, false), 16 * (156 + 128) * 1024);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn this_host_passes_or_says_why_not() {
        if let Err(error) = probe() {
            assert!(error.to_string().contains('`'), "no command in {error}");
        }
    }
}
