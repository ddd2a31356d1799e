//! Helpers of the tests: packets of captures ([`capture`]); the engine's release binary, senders such as
//! ffmpeg, Redis, and a small HTTP client. Every process is a child of the test that started
//! it and ends with it; every wait has an end.

pub mod capture;
pub mod engine;
pub mod http;
pub mod matrix;
pub mod media;
pub mod probe;
pub mod process;
pub mod redis;
pub mod relay;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's target folder: the one this test was built into.
pub fn target_dir() -> PathBuf {
    // <target>/<profile>/deps/<test binary>
    let by_binary = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().nth(3).map(Path::to_path_buf));
    by_binary
        .filter(|t| t.join("CACHEDIR.TAG").exists())
        .unwrap_or_else(|| root().join("target"))
}

/// A release binary; ends the test with advice when it is not there.
///
/// # Panics
/// If it was not built.
pub fn release_binary(name: &str) -> PathBuf {
    let path = target_dir().join("release").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run scripts/test, or cargo build --release -p mirror-daemon -p mirror-loadtest",
        path.display()
    );
    path
}

/// One process-level test: it has the machine to itself (a lock file makes such tests queue,
/// across threads and processes) and a folder of its own.
#[derive(Debug)]
pub struct Alone {
    folder: PathBuf,
    // Unlocked when dropped.
    _lock: File,
}

impl Alone {
    /// Waits for its turn.
    ///
    /// # Panics
    /// If the lock file cannot be had.
    pub fn begin(test: &str) -> Self {
        let base = target_dir().join("interop");
        let folder = base.join(test);
        fs::create_dir_all(&base).expect("the target folder is writable");
        let lock = File::create(base.join("lock")).expect("the lock file can be made");
        lock.lock().expect("the lock file can be locked");
        // Leftovers of an earlier run would only confuse.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the test's folder can be made");
        Alone {
            folder,
            _lock: lock,
        }
    }

    /// The test's own folder; it stays after the test, with the logs of all processes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file into the test's folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, content).expect("the test's folder is writable");
        path
    }
}

/// Asks `probe` every 100 ms until it gives a value; `None` after `within`.
pub fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until `probe` holds.
///
/// # Panics
/// After `within`, with `what`.
pub fn wait_for(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    assert!(
        poll(within, || probe().then_some(())).is_some(),
        "not within {within:?}: {what}"
    );
}

/// Seconds as a duration.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
