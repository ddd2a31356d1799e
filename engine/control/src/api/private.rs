//! The directory of tiny_http's socket, which only this user can enter. It goes with its owner; what
//! a process left behind that was killed goes with the next start.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// tiny_http's socket in its directory.
const SOCKET: &str = "http";
/// A socket that nobody listens on may be one that somebody is about to listen on, when it is
/// younger than this.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// Entries of a directory that are looked at.
const LOOKS: usize = 65_536;

/// A directory that only this user can enter; removed with the socket in it when dropped.
pub(super) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// A new one, where the service manager wants it, or else where such things lie.
    ///
    /// # Errors
    /// What the last of these places has against it.
    pub(super) fn new() -> io::Result<PrivateDirectory> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut bases: Vec<PathBuf> = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"]
            .iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from)
            .collect();
        bases.push(std::env::temp_dir());
        bases.push(PathBuf::from("/run"));
        bases.push(PathBuf::from("/dev/shm"));
        let mut last = io::Error::other("no directory for the API's inner socket");
        for base in bases {
            // sun_path has 108 bytes.
            if base.as_os_str().len() > 60 {
                continue;
            }
            for _ in 0..16 {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let nanos = crate::clock::now().as_nanos();
                let name = format!("mirror-{}-{number}-{nanos:x}", std::process::id());
                let directory = base.join(name);
                match fs::DirBuilder::new().mode(0o700).create(&directory) {
                    Ok(()) => {
                        if number == 0 {
                            sweep(&base, LEFT_BEHIND);
                        }
                        return Ok(PrivateDirectory(directory));
                    }
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    /// Where the socket is to be.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(directory: &Path) {
    // Not remove_dir_all: it needs a descriptor, and there may be none.
    let _ = fs::remove_file(directory.join(SOCKET));
    let _ = fs::remove_dir(directory);
}

/// Removes what processes left in `base` that had no time for it. Whose socket somebody listens on
/// is not touched, whatever its process is called: it may be another container's.
fn sweep(base: &Path, older: Duration) {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    for entry in entries.take(LOOKS) {
        if is_ours(&entry.file_name().to_string_lossy()) {
            let directory = entry.path();
            if is_left_behind(&directory.join(SOCKET), older) {
                remove(&directory);
            }
        }
    }
}

/// `mirror-<process>-<number>-<time>`.
fn is_ours(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("mirror-") else {
        return false;
    };
    let mut parts = rest.split('-');
    let mut number = |radix| {
        let part = parts.next()?;
        u64::from_str_radix(part, radix).ok()
    };
    let whole = number(10).is_some() && number(10).is_some() && number(16).is_some();
    whole && parts.next().is_none()
}

/// Whether it is a socket that nobody has listened on for so long.
fn is_left_behind(socket: &Path, older: Duration) -> bool {
    let Ok(metadata) = fs::symlink_metadata(socket) else {
        return false;
    };
    let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
    if !metadata.file_type().is_socket() || age.is_none_or(|age| age < older) {
        return false;
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let Ok(probe) = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
        return false;
    };
    let address = SocketAddrUnix::new(socket);
    address.is_ok_and(|address| connect(&probe, &address) == Err(Errno::CONNREFUSED))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::testing::scratch;

    #[test]
    fn only_what_dead_processes_left_behind_is_removed() {
        let folder = scratch("private");
        // A short name of it: a socket's has 107 bytes at the most.
        let open = fs::File::open(&folder).unwrap();
        let base = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let make = |name: &str| {
            let directory = base.join(name);
            fs::create_dir_all(&directory).unwrap();
            UnixListener::bind(directory.join(SOCKET)).unwrap()
        };
        drop(make("mirror-4000000-0-18b6f8b2db5f"));
        drop(make("mirror-4000000-0-18b6f8b2db5f-x"));
        drop(make("mirror-bench-0-18b6f8b2db5f"));
        let alive = make("mirror-4000001-12-18b6f8b2db5f");
        fs::create_dir_all(base.join("mirror-4000002-0-1")).unwrap();
        fs::create_dir_all(base.join("mirror-4000003-0-1")).unwrap();
        fs::write(base.join("mirror-4000003-0-1").join(SOCKET), "a file").unwrap();
        let left = || {
            let names = fs::read_dir(&base).unwrap().flatten();
            let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let before = left();
        assert_eq!(before.len(), 6);
        sweep(&base, LEFT_BEHIND);
        assert_eq!(left(), before, "they are young");
        sweep(&base, Duration::ZERO);
        assert_eq!(left(), before[1..], "the first is a dead process's");
        drop(alive);
        sweep(&base, Duration::ZERO);
        assert_eq!(left().len(), 4);
        let _ = fs::remove_dir_all(folder);
    }
}
