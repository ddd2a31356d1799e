//! A live source: writes a file's bytes at a constant rate into the standard input of a program.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a payload of live SRT: seven packets of MPEG-TS.
pub const CHUNK: usize = 1316;

/// A feeding thread. It ends with the bytes, or when the reader is gone.
#[derive(Debug)]
pub struct Feed {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

impl Feed {
    /// Writes `bytes` at `bits_per_second`, chunk by chunk. Afterwards the pipe is closed, or
    /// with `keep_open` stays open until the feed is dropped.
    pub fn start(
        mut into: ChildStdin,
        bytes: Arc<Vec<u8>>,
        bits_per_second: u64,
        keep_open: bool,
    ) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stopped, finished) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let begin = Instant::now();
            for (n, chunk) in bytes.chunks(CHUNK).enumerate() {
                let bits = (n * CHUNK * 8) as u64;
                let due = begin + Duration::from_micros(bits * 1_000_000 / bits_per_second);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // an error: the reader is gone, and the test will say so
                if stopped.load(Ordering::Relaxed) || into.write_all(chunk).is_err() {
                    return;
                }
            }
            finished.store(true, Ordering::Relaxed);
            while keep_open && !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Feed {
            thread: Some(thread),
            stop,
            done,
        }
    }

    /// Whether everything was written.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends it early. A write that blocks ends with its reader: end that first.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // it does not panic; and if it did, the test's own checks fail
            let _ = thread.join();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // not joined: the reader that a write may wait for is dropped by somebody else
        self.stop.store(true, Ordering::Relaxed);
    }
}
