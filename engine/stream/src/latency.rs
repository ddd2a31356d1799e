//! Latency recorders (design D12, D13): log-linear bucket counters that cost a few instructions
//! per record, turned into HdrHistograms when someone asks.
//!
//! Values are microseconds. `SUB_BITS` = 8 gives two significant digits (a stream's recorder),
//! 11 gives three (a shard's): the bucket layout is HdrHistogram's, so turning one into the
//! other loses nothing.

use hdrhistogram::Histogram;

use crate::report::LatencySet;

/// Values above this many µs are recorded as this.
pub const MAX_VALUE_US: u64 = (1 << 26) - 1;
const MAX_BITS: u32 = 26;

/// A histogram of microseconds with `2^SUB_BITS` linear buckets and then half as many for each
/// further octave.
#[derive(Clone, Debug)]
pub struct Recorder<const SUB_BITS: u32> {
    counts: Box<[u64]>,
}

impl<const SUB_BITS: u32> Default for Recorder<SUB_BITS> {
    fn default() -> Self {
        let half = 1usize << (SUB_BITS - 1);
        let octaves = (MAX_BITS - SUB_BITS) as usize;
        Recorder {
            counts: vec![0; (octaves + 2) * half].into_boxed_slice(),
        }
    }
}

impl<const SUB_BITS: u32> Recorder<SUB_BITS> {
    const HALF: usize = 1 << (SUB_BITS - 1);

    /// Counts `micros`, cut at [`MAX_VALUE_US`].
    #[inline]
    pub fn record(&mut self, micros: u64) {
        let value = cut(micros);
        self.count_value(value, top_bit(value));
    }

    /// Counts `value`, whose highest bit is `top`.
    #[inline]
    fn count_value(&mut self, value: u32, top: u32) {
        // The octave above the linear range; 0 inside it.
        let octave = top.saturating_sub(SUB_BITS - 1);
        let index = octave as usize * Self::HALF + (value >> octave) as usize;
        if let Some(count) = self.counts.get_mut(index) {
            // 64 bits do not overflow, and need no look at that.
            *count = count.wrapping_add(1);
        }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a = a.wrapping_add(*b);
        }
    }

    /// Starts afresh.
    pub fn reset(&mut self) {
        self.counts.fill(0);
    }

    /// Number of records.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The same counts as an HdrHistogram with this recorder's number of significant digits.
    pub fn to_histogram(&self) -> Histogram<u32> {
        let digits = if SUB_BITS >= 11 { 3 } else { 2 };
        // The bounds are constants that HdrHistogram accepts.
        let mut histogram = Histogram::new_with_bounds(1, MAX_VALUE_US, digits)
            .unwrap_or_else(|_| unreachable_bounds());
        for (index, &count) in self.counts.iter().enumerate() {
            if count > 0 {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                histogram.saturating_record_n(Self::lowest(index), count);
            }
        }
        histogram
    }

    /// The lowest value of bucket `index`.
    fn lowest(index: usize) -> u64 {
        let octave = (index / Self::HALF).saturating_sub(1);
        ((index - octave * Self::HALF) as u64) << octave
    }
}

#[inline]
const fn cut(micros: u64) -> u32 {
    if micros > MAX_VALUE_US {
        MAX_VALUE_US as u32
    } else {
        micros as u32
    }
}

#[inline]
const fn top_bit(value: u32) -> u32 {
    (value | 1).ilog2()
}

/// Records `micros` in both recorders, for the price of little more than one.
#[inline]
pub(crate) fn record<const A: u32, const B: u32>(
    a: &mut Recorder<A>,
    b: &mut Recorder<B>,
    micros: u64,
) {
    let value = cut(micros);
    let top = top_bit(value);
    a.count_value(value, top);
    b.count_value(value, top);
}

#[cold]
fn unreachable_bounds() -> Histogram<u32> {
    panic!("HdrHistogram refused constant bounds")
}

/// The stages of D13.
#[derive(Clone, Debug, Default)]
pub struct LatencyRecorder<const SUB_BITS: u32> {
    /// Kernel receive timestamp → handled by the protocol.
    pub receive: Recorder<SUB_BITS>,
    /// Handled → due by TSBPD.
    pub hold: Recorder<SUB_BITS>,
    /// Completing datagram released → access unit complete.
    pub assemble: Recorder<SUB_BITS>,
    /// Receive + release lateness + assemble.
    pub total: Recorder<SUB_BITS>,
}

impl<const SUB_BITS: u32> LatencyRecorder<SUB_BITS> {
    /// Starts afresh.
    pub fn reset(&mut self) {
        self.receive.reset();
        self.hold.reset();
        self.assemble.reset();
        self.total.reset();
    }

    /// As HdrHistograms.
    pub fn to_set(&self) -> LatencySet {
        LatencySet {
            receive: self.receive.to_histogram(),
            hold: self.hold.to_histogram(),
            assemble: self.assemble.to_histogram(),
            total: self.total.to_histogram(),
        }
    }
}

/// A stream's recorder: two significant digits.
pub type StreamLatency = LatencyRecorder<8>;
/// A shard's recorder: three significant digits.
pub type ShardLatency = LatencyRecorder<11>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_land_within_the_promised_precision() {
        let mut two = Recorder::<8>::default();
        let mut three = Recorder::<11>::default();
        for value in [0, 1, 255, 256, 257, 1_000, 123_456, 59_999_999] {
            two.reset();
            three.reset();
            two.record(value);
            three.record(value);
            for (histogram, tolerance) in
                [(two.to_histogram(), 0.01), (three.to_histogram(), 0.001)]
            {
                let got = histogram.max() as f64;
                let error = (got - value as f64).abs();
                assert!(
                    error <= 1.0 + value as f64 * tolerance,
                    "{value} became {got}"
                );
                assert_eq!(histogram.len(), 1);
            }
        }
    }

    #[test]
    fn values_beyond_the_range_are_cut_and_counted() {
        let mut r = Recorder::<8>::default();
        r.record(u64::MAX);
        assert_eq!(r.count(), 1);
        assert!(r.to_histogram().max() >= MAX_VALUE_US / 2);
    }

    #[test]
    fn every_bucket_maps_back_to_a_value_that_maps_to_it() {
        let mut r = Recorder::<8>::default();
        for index in 0..r.counts.len() {
            let low = Recorder::<8>::lowest(index);
            if low > MAX_VALUE_US {
                break;
            }
            r.reset();
            r.record(low);
            assert_eq!(r.counts[index], 1, "bucket {index} lowest {low}");
        }
    }
}
