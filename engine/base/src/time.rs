//! Time as the sans-IO rooms see it: a monotonic count of nanoseconds that someone else read.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment on the engine's monotonic clock, in nanoseconds since an arbitrary start.
///
/// The shard converts `CLOCK_MONOTONIC` (and, once a turn, kernel `CLOCK_REALTIME` receive
/// timestamps) into this type; simulations count it up themselves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The start of the clock.
    pub const ZERO: Instant = Instant(0);
    /// Later than every moment that is ever reached.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The moment `nanos` nanoseconds after the start of the clock.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// The moment `micros` microseconds after the start of the clock.
    pub const fn from_micros(micros: u64) -> Self {
        Instant(micros.saturating_mul(1_000))
    }

    /// The moment `millis` milliseconds after the start of the clock.
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the start of the clock.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Microseconds since the start of the clock, rounded down.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Time from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Microseconds from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn micros_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }

    /// Signed microseconds from `other` to `self`.
    pub const fn micros_diff(self, other: Instant) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed() / 1_000
    }

    /// `self` moved by a signed number of microseconds; stops at the clock's ends.
    pub const fn offset_micros(self, micros: i64) -> Instant {
        let nanos = micros.unsigned_abs().saturating_mul(1_000);
        if micros < 0 {
            Instant(self.0.saturating_sub(nanos))
        } else {
            Instant(self.0.saturating_add(nanos))
        }
    }

    /// `self − duration`, or the start of the clock.
    pub fn saturating_sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos_of(duration)))
    }
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos_of(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    /// Saturates at zero.
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:06}s",
            self.0 / 1_000_000_000,
            self.0 / 1_000 % 1_000_000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_signed_and_saturate() {
        let a = Instant::from_micros(1_000);
        let b = Instant::from_micros(1_500);
        assert_eq!(b.micros_diff(a), 500);
        assert_eq!(a.micros_diff(b), -500);
        assert_eq!(a - b, Duration::ZERO);
        assert_eq!(a.offset_micros(-2_000), Instant::ZERO);
        assert_eq!(
            Instant::FAR_FUTURE + Duration::from_secs(1),
            Instant::FAR_FUTURE
        );
    }
}
