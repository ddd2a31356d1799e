//! The hosts' clocks. The world has one true time; each host reads it by a clock of its own that
//! began elsewhere and runs a little too fast or too slow.

use mirror_base::Instant;

/// A host's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it shows at the world's beginning, nanoseconds.
    pub(crate) offset: u64,
    /// Parts per million that it runs fast.
    pub(crate) drift_ppm: i64,
}

impl Clock {
    /// What it shows at `time`.
    pub(crate) fn show(&self, time: Instant) -> Instant {
        let t = i128::from(time.as_nanos());
        let shown = i128::from(self.offset) + t + t * i128::from(self.drift_ppm) / 1_000_000;
        Instant::from_nanos(u64::try_from(shown).expect("the world does not last that long"))
    }

    /// The first time at which it shows `shown` or more.
    pub(crate) fn when(&self, shown: Instant) -> Instant {
        let since = i128::from(shown.as_nanos()) - i128::from(self.offset);
        let near = since * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm)) - 2;
        let mut time = Instant::from_nanos(u64::try_from(near).unwrap_or(0));
        while self.show(time) < shown {
            time = Instant::from_nanos(time.as_nanos() + 1);
        }
        time
    }
}

#[test]
fn a_clock_is_read_and_read_back() {
    for drift_ppm in [-200, -1, 0, 7, 200] {
        let clock = Clock {
            offset: 77_000_000_123,
            drift_ppm,
        };
        for nanos in [0, 1, 999_999_999, 123_456_789_012_345] {
            let time = Instant::from_nanos(nanos);
            assert!(clock.when(clock.show(time)) <= time);
            assert_eq!(clock.show(clock.when(clock.show(time))), clock.show(time));
        }
    }
}
