//! The engine's monotonic clock beside the calendar: shards stamp with `CLOCK_MONOTONIC`
//! ([`mirror_base::Instant`]); records, events and errors show RFC 3339 in UTC.

use std::sync::atomic::{AtomicI64, Ordering};

use mirror_base::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Now on the engine's clock: `CLOCK_MONOTONIC` in nanoseconds, the shards' own.
pub fn now() -> Instant {
    let t = clock_gettime(ClockId::Monotonic);
    let nanos = i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    Instant::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    monotonic: Instant,
    unix_micros: i64,
}

/// Difference of the clocks in use, µs; `i64::MIN` before the first reading.
static OFFSET: AtomicI64 = AtomicI64::new(i64::MIN);
/// The difference in use stays until the calendar clock has moved so far against it: else one
/// and the same moment would be shown a millisecond earlier or later from look to look.
const OFFSET_TOLERANCE_US: i64 = 50_000;

impl WallClock {
    pub(crate) fn read() -> Self {
        let monotonic = now();
        let t = clock_gettime(ClockId::Realtime);
        let micros = t
            .tv_sec
            .saturating_mul(1_000_000)
            .saturating_add(t.tv_nsec / 1_000);
        let own = i64::try_from(monotonic.as_micros()).unwrap_or(0);
        let offset = settled(OFFSET.load(Ordering::Relaxed), micros.saturating_sub(own));
        OFFSET.store(offset, Ordering::Relaxed);
        WallClock {
            monotonic,
            unix_micros: own.saturating_add(offset),
        }
    }

    /// Microseconds since 1970 of a moment on the engine's clock.
    pub(crate) fn unix_micros(&self, at: Instant) -> i64 {
        self.unix_micros
            .saturating_add(at.micros_diff(self.monotonic))
    }

    /// A moment on the engine's clock as RFC 3339 in UTC, to the millisecond.
    pub(crate) fn rfc3339(&self, at: Instant) -> String {
        rfc3339(self.unix_micros(at))
    }
}

/// The offset to use: the old one while it is about right.
const fn settled(old: i64, read: i64) -> i64 {
    if old != i64::MIN && read.abs_diff(old) < OFFSET_TOLERANCE_US.unsigned_abs() {
        old
    } else {
        read
    }
}

/// Now, as RFC 3339 in UTC.
pub(crate) fn rfc3339_now() -> String {
    let clock = WallClock::read();
    rfc3339(clock.unix_micros)
}

fn rfc3339(unix_micros: i64) -> String {
    let time =
        jiff::Timestamp::from_microsecond(unix_micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_the_same_however_often_it_is_looked_at() {
        assert_eq!(settled(i64::MIN, 7), 7);
        assert_eq!(settled(1_000_000, 1_000_900), 1_000_000);
        assert_eq!(
            settled(1_000_000, 2_000_000),
            2_000_000,
            "the clock was set"
        );
        let at = now();
        let shown: Vec<i64> = (0..1000)
            .map(|_| WallClock::read().unix_micros(at))
            .collect();
        assert!(shown.iter().all(|s| s.abs_diff(shown[0]) <= 1), "{shown:?}");
    }

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123Z");
        let clock = WallClock {
            monotonic: Instant::from_millis(5_000),
            unix_micros: 1_000_000_000_000,
        };
        assert_eq!(
            clock.unix_micros(Instant::from_millis(4_000)),
            999_999_000_000
        );
        assert_eq!(
            clock.unix_micros(Instant::from_millis(6_000)),
            1_000_001_000_000
        );
    }
}
