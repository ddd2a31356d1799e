//! Interarrival jitter (RFC 3550, 6.4.1 and A.8), fed with every packet that a session keeps.

use core::time::Duration;

use mirror_base::Instant;

/// The estimator of RFC 3550, A.8, in its scaled integer form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jitter {
    clock_rate: u32,
    /// Relative transit time of the last packet, in clock units modulo 2^32.
    last_transit: Option<u32>,
    /// The estimate times 16. 64 bits: a hostile timestamp moves it by up to 2^31.
    scaled: u64,
}

impl Jitter {
    pub(crate) const fn new(clock_rate: u32) -> Self {
        Jitter {
            clock_rate,
            last_transit: None,
            scaled: 0,
        }
    }

    /// A packet with RTP timestamp `timestamp` reached the host at `arrival`.
    #[inline]
    pub(crate) fn update(&mut self, arrival: Instant, timestamp: u32) {
        self.update_units(self.clock_units(arrival.as_nanos()) as u32, timestamp);
    }

    #[inline]
    fn clock_units(&self, nanos: u64) -> u64 {
        let rate = u64::from(self.clock_rate);
        let whole = (nanos / 1_000_000_000).wrapping_mul(rate);
        whole.wrapping_add((nanos % 1_000_000_000) * rate / 1_000_000_000)
    }

    /// Whether the timestamps have gone on with time, within half of it, to `timestamp` at
    /// `arrival`, `elapsed` after the last packet: the sender's clock is still the same.
    pub(crate) fn goes_on(&self, elapsed: Duration, arrival: Instant, timestamp: u32) -> bool {
        let elapsed = u64::try_from(elapsed.as_nanos()).map(|n| self.clock_units(n));
        let now = self.clock_units(arrival.as_nanos()) as u32;
        let (Some(last), Ok(elapsed)) = (self.last_transit, elapsed) else {
            return false;
        };
        let distance = now.wrapping_sub(timestamp).wrapping_sub(last);
        2 * u64::from(distance.cast_signed().unsigned_abs()) < elapsed
    }

    #[inline]
    fn update_units(&mut self, arrival_units: u32, timestamp: u32) {
        let transit = arrival_units.wrapping_sub(timestamp);
        if let Some(last) = self.last_transit {
            let distance = transit.wrapping_sub(last).cast_signed().unsigned_abs();
            self.scaled = self.scaled + u64::from(distance) - ((self.scaled + 8) >> 4);
        }
        self.last_transit = Some(transit);
    }

    /// The sender's timestamps start afresh: the next packet has no predecessor.
    pub(crate) const fn forget_transit(&mut self) {
        self.last_transit = None;
    }

    pub(crate) const fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// The clock rate is now known to be `hz`: what was gathered with another one is void.
    pub(crate) const fn set_clock_rate(&mut self, hz: u32) {
        if hz != self.clock_rate && hz != 0 {
            *self = Jitter::new(hz);
        }
    }

    /// In clock units, as receiver reports carry it.
    pub(crate) fn units(&self) -> u32 {
        u32::try_from(self.scaled >> 4).unwrap_or(u32::MAX)
    }

    /// In microseconds.
    pub(crate) fn micros(&self) -> u32 {
        let micros = (self.scaled >> 4) * 1_000_000 / u64::from(self.clock_rate.max(1));
        u32::try_from(micros).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_follows_the_published_rows() {
        // vectors/rtp_rtcp.json "jitter": arrival, timestamp, accumulator, reported.
        let rows = [
            (1000, 500, 0, 0),
            (1160, 660, 0, 0),
            (1330, 820, 10, 0),
            (1470, 980, 29, 1),
            (1700, 1140, 97, 6),
            (1790, 1300, 161, 10),
            (1950, 1460, 151, 9),
        ];
        let mut jitter = Jitter::new(8000);
        for (arrival, timestamp, scaled, reported) in rows {
            jitter.update_units(arrival, timestamp);
            assert_eq!((jitter.scaled, jitter.units()), (scaled, reported));
        }
    }

    #[test]
    fn hostile_timestamps_overflow_nothing() {
        let mut jitter = Jitter::new(u32::MAX);
        for i in 0..1000u32 {
            jitter.update(
                Instant::FAR_FUTURE,
                if i % 2 == 0 { 0 } else { 0x8000_0000 },
            );
        }
        assert!(jitter.units() > 0 && jitter.micros() > 0);
    }

    #[test]
    fn even_pacing_has_no_jitter_across_the_timestamp_wrap() {
        let mut jitter = Jitter::new(90_000);
        for i in 0..100u32 {
            let arrival = Instant::from_millis(u64::from(i) * 40);
            jitter.update(arrival, 0xFFFF_F000u32.wrapping_add(i * 3600));
        }
        assert_eq!(jitter.units(), 0);
    }
}
