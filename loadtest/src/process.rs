//! What Linux says of threads: CPU time, pinning, clocks, sleeping until a moment.

use std::fs;
use std::num::NonZeroU64;
use std::path::PathBuf;

use mirror_base::Instant;
use rustix::thread::{ClockId, CpuSet};

/// CPU time of one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadCpu {
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// The cores it may run on, as the kernel writes them ("1", "0-1").
    pub allowed: String,
    /// Time on a CPU so far, ns.
    pub cpu_ns: u64,
}

/// CPU time of every thread of process `pid` (`/proc/<pid>/task/*/schedstat`, first field).
pub fn threads(pid: u32) -> Vec<ThreadCpu> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut out: Vec<ThreadCpu> = tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let tid = path.file_name()?.to_str()?.parse().ok()?;
            let cpu_ns = cpu_of(&path)?;
            let name = fs::read_to_string(path.join("comm"))
                .ok()?
                .trim()
                .to_owned();
            let status = fs::read_to_string(path.join("status")).ok()?;
            let allowed = status
                .lines()
                .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?
                .trim()
                .to_owned();
            Some(ThreadCpu {
                tid,
                name,
                allowed,
                cpu_ns,
            })
        })
        .collect();
    out.sort_by_key(|t| t.tid);
    out
}

fn cpu_of(task: &std::path::Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat"))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// CPU time of a whole process, ns, threads that have ended not counted.
pub fn process_cpu_ns(pid: u32) -> u64 {
    threads(pid).iter().map(|t| t.cpu_ns).sum()
}

/// CPU time of one thread of a process, ns.
pub fn thread_cpu_ns(pid: u32, tid: u32) -> u64 {
    cpu_of(&PathBuf::from(format!("/proc/{pid}/task/{tid}"))).unwrap_or(0)
}

/// The one running process of that name, if there is exactly one.
pub fn find_process(name: &str) -> Option<u32> {
    let mut found = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim() == name).then_some(pid)
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Memory of a process in RAM, bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Pins the calling thread to `core`.
pub fn pin(core: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets the calling thread's sleeps end within a microsecond of their time (default: 50 µs).
pub fn sharpen_timers() {
    // refused only by kernels that do not know it; sleeps are then less exact
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
}

/// CLOCK_MONOTONIC.
pub fn monotonic() -> Instant {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Instant::from_nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// µs since the Unix epoch.
pub fn unix_us() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1_000
}

/// CPU time of the calling thread, ns.
pub fn own_cpu_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Sleeps until `at` on CLOCK_MONOTONIC.
pub fn sleep_until(at: Instant) {
    let nanos = at.as_nanos();
    let request = rustix::thread::Timespec {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as i64,
    };
    while rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &request)
        == Err(rustix::io::Errno::INTR)
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_threads_are_listed_with_their_cpu_time() {
        let mut x = 1u64;
        while own_cpu_ns() < 3_000_000 {
            x = x.wrapping_mul(3).rotate_left(5);
        }
        assert_ne!(x, 0);
        let threads = threads(std::process::id());
        assert!(!threads.is_empty());
        assert!(threads.iter().all(|t| !t.allowed.is_empty()));
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }
}
