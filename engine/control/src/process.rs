//! What the process itself uses: CPU from its clock, memory from `/proc/self/statm`.

use mirror_base::Instant;
use rustix::time::{ClockId, clock_gettime};

use crate::state::ProcessUsage;

/// Measures CPU between two readings.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    last: Option<(Instant, f64)>,
}

impl Meter {
    pub(crate) fn read(&mut self, now: Instant) -> ProcessUsage {
        let t = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_seconds = t.tv_sec as f64 + t.tv_nsec as f64 / 1e9;
        let cpu_percent = match self.last {
            Some((at, before)) if now > at => {
                (cpu_seconds - before) / now.saturating_since(at).as_secs_f64() * 100.0
            }
            _ => 0.0,
        };
        self.last = Some((now, cpu_seconds));
        ProcessUsage {
            cpu_percent,
            cpu_seconds,
            memory: resident().unwrap_or(0),
        }
    }
}

fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_uses_memory_and_cpu() {
        let mut meter = Meter::default();
        let first = meter.read(Instant::from_millis(0));
        assert!(first.memory > 100_000, "{first:?}");
        let mut x = 0_u64;
        for i in 0..20_000_000_u64 {
            x = x.wrapping_mul(31).wrapping_add(i);
        }
        assert_ne!(x, 1);
        let second = meter.read(Instant::from_millis(1_000));
        assert!(second.cpu_seconds > first.cpu_seconds);
        assert!(second.cpu_percent > 0.0);
    }
}
