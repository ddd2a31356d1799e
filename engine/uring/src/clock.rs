//! The shard's clock: `CLOCK_MONOTONIC`, and the distance from `CLOCK_REALTIME` by which kernel
//! receive timestamps are brought onto it (design D7: once a turn).

use mirror_base::Instant;

use crate::sys::clock_nanos;

/// A timestamp further back than this does not belong to the present clock: REALTIME was set
/// between stamping and reading.
const MAX_AGE_NS: u64 = u32::MAX as u64;
/// Three clock readings that took longer than this were interrupted.
const UNDISTURBED_NS: u64 = 2_000;

/// Reads the monotonic clock.
#[inline]
pub(crate) fn monotonic() -> Instant {
    Instant::from_nanos(clock_nanos(libc::CLOCK_MONOTONIC))
}

/// The two clocks, as last read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    now_ns: u64,
    /// REALTIME − MONOTONIC, wrapping.
    offset_ns: u64,
}

impl Clock {
    /// Clocks that show these values.
    pub(crate) const fn at(now_ns: u64, offset_ns: u64) -> Self {
        Clock { now_ns, offset_ns }
    }

    /// Reads both clocks.
    pub(crate) fn sample(&mut self) {
        let mut narrowest = u64::MAX;
        for _ in 0..3 {
            let before = clock_nanos(libc::CLOCK_MONOTONIC);
            let real = clock_nanos(libc::CLOCK_REALTIME);
            let after = clock_nanos(libc::CLOCK_MONOTONIC);
            let width = after.saturating_sub(before);
            if width < narrowest {
                narrowest = width;
                self.offset_ns = real.wrapping_sub(before + width / 2);
            }
            self.now_ns = after;
            if width < UNDISTURBED_NS {
                break;
            }
        }
    }

    /// Reads the monotonic clock only.
    pub(crate) fn refresh(&mut self) {
        self.now_ns = clock_nanos(libc::CLOCK_MONOTONIC);
    }

    /// [`Clock::arrival`], for a timestamp that may be missing (0): then the last reading.
    pub(crate) const fn arrival_or_now(&self, timestamp_ns: u64) -> (Instant, u32) {
        if timestamp_ns == 0 {
            return (Instant::from_nanos(self.now_ns), 0);
        }
        self.arrival(timestamp_ns)
    }

    /// A kernel receive timestamp (REALTIME, nanoseconds) on our clock, and its age in ns. Never
    /// later than the last reading; the last reading itself where the timestamp is senseless.
    #[inline(always)]
    pub(crate) const fn arrival(&self, timestamp_ns: u64) -> (Instant, u32) {
        let arrival = timestamp_ns.wrapping_sub(self.offset_ns);
        let age = self.now_ns.wrapping_sub(arrival);
        if age <= MAX_AGE_NS {
            (Instant::from_nanos(arrival), age as u32)
        } else {
            (Instant::from_nanos(self.now_ns), 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_move_onto_the_monotonic_clock_and_senseless_ones_become_now() {
        let real = 1_700_000_000_000_000_000;
        let clock = Clock {
            now_ns: 50_000_000_000,
            offset_ns: real - 50_000_000_000,
        };
        let before = Instant::from_nanos(50_000_000_000 - 700);
        assert_eq!(clock.arrival(real - 700), (before, 700));
        assert_eq!(
            clock.arrival(real),
            (Instant::from_nanos(50_000_000_000), 0)
        );
        // A host whose CLOCK_REALTIME begins in 1970: nothing is not an early time.
        let early = Clock::at(5_000, 1_000);
        assert_eq!(early.arrival_or_now(0).0, Instant::from_nanos(5_000));
        for senseless in [0, real + 1, real - MAX_AGE_NS - 1, 1, u64::MAX] {
            assert_eq!(
                clock.arrival(senseless),
                (Instant::from_nanos(50_000_000_000), 0),
                "{senseless}"
            );
            assert_eq!(clock.arrival_or_now(senseless), clock.arrival(senseless));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads the host's clocks")]
    fn a_sample_maps_the_present_onto_the_present() {
        let mut clock = Clock::default();
        clock.sample();
        let real = clock_nanos(libc::CLOCK_REALTIME);
        clock.refresh();
        let error = clock.arrival(real).0.micros_diff(monotonic()).abs();
        assert!(error < 100_000, "{error} µs");
    }
}
