//! Bit rate over the last seconds, sampled from a growing byte count.

use mirror_base::Instant;

const SAMPLES: usize = 5;
const INTERVAL_US: u64 = 900_000;

/// Keeps about one sample a second of a growing counter; the rate is that of the last
/// four seconds (two GOPs of usual length, so that key frames do not make it swing).
#[derive(Clone, Debug, Default)]
pub(crate) struct RateMeter {
    samples: [(Instant, u64); SAMPLES],
    len: usize,
}

impl RateMeter {
    /// Notes that the counter stands at `total`.
    pub(crate) fn sample(&mut self, now: Instant, total: u64) {
        if let Some(&(last, _)) = self.len.checked_sub(1).and_then(|i| self.samples.get(i))
            && now.micros_since(last) < INTERVAL_US
        {
            return;
        }
        if self.len == SAMPLES {
            self.samples.rotate_left(1);
            self.len -= 1;
        }
        self.samples[self.len] = (now, total);
        self.len += 1;
    }

    /// Units a second over the kept samples; 0 until two are there.
    pub(crate) fn per_second(&self) -> u64 {
        if self.len < 2 {
            return 0;
        }
        let (first_at, first) = self.samples[0];
        let (last_at, last) = self.samples[self.len - 1];
        let micros = last_at.micros_since(first_at).max(1);
        let units = u128::from(last.saturating_sub(first));
        u64::try_from(units * 1_000_000 / u128::from(micros)).unwrap_or(u64::MAX)
    }

    pub(crate) fn reset(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_that_of_the_last_four_seconds() {
        let mut meter = RateMeter::default();
        for second in 0..20u64 {
            let total = if second < 10 {
                second * 100
            } else {
                900 + (second - 9) * 1_000
            };
            meter.sample(Instant::from_millis(second * 1_000), total);
            meter.sample(Instant::from_millis(second * 1_000 + 10), total + 50);
        }
        assert_eq!(meter.per_second(), 1_000);
    }
}
