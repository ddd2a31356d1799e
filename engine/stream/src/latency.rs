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
        self.count_value(value, top_bit(value), 1);
    }

    /// Counts `value`, whose highest bit is `top`, so many times.
    #[inline]
    fn count_value(&mut self, value: u32, top: u32, times: u64) {
        // The octave above the linear range; 0 inside it.
        let octave = top.saturating_sub(SUB_BITS - 1);
        let index = octave as usize * Self::HALF + (value >> octave) as usize;
        if let Some(count) = self.counts.get_mut(index) {
            // 64 bits do not overflow, and need no look at that.
            *count = count.wrapping_add(times);
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

/// Buckets of a page of a [`Fresh`] recorder: as many as keep a shard's digits in an octave.
const PAGE: usize = 1 << 11;
/// Nanoseconds of page 0 as a power of two: its buckets are 1.024 µs wide. One octave each after
/// that.
const LINEAR_BITS: u32 = 21;
/// The longest time that is counted.
const MAX_NANOS: u64 = MAX_VALUE_US * 1_000;
const PAGES: usize = (MAX_NANOS.ilog2() - LINEAR_BITS + 2) as usize;

/// What was recorded since it was last settled: counts in buckets as fine as those of the finest
/// recorder, of which those of any other are made ([`Fresh::settle`]), so that a record is one
/// count and not one for each recorder. A stream's times lie close together: the page of the last
/// one is at hand, and a time in it costs a subtraction, a shift and a comparison. A page of
/// buckets comes with the first time in it: there are 16 at the most.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    /// The buckets of page `page`, which has none in `pages` meanwhile.
    hand: Box<[u32; PAGE]>,
    page: usize,
    /// The first time of the page at hand, in ns.
    lowest: u64,
    /// A bucket of it is two to the power of this many ns wide.
    shift: u32,
    pages: [Option<Box<[u32; PAGE]>>; PAGES],
}

impl Default for Fresh {
    fn default() -> Self {
        let (lowest, shift) = Self::span(0);
        Fresh {
            hand: Box::new([0; PAGE]),
            page: 0,
            lowest,
            shift,
            pages: Default::default(),
        }
    }
}

impl Fresh {
    /// The count of `nanos`, if its bucket is in the page at hand. A time below 0 that wrapped is in
    /// none.
    #[inline(always)]
    fn at_hand(&mut self, nanos: u64) -> Option<&mut u32> {
        let at = nanos.wrapping_sub(self.lowest) >> (self.shift % u64::BITS);
        self.hand.get_mut(at as usize)
    }

    /// Counts `nanos`, cut at [`MAX_VALUE_US`].
    fn record(&mut self, nanos: u64) {
        match self.at_hand(nanos) {
            Some(count) => *count = count.wrapping_add(1),
            None => self.record_elsewhere(nanos),
        }
    }

    /// First time and width (as a power of two) of a page's buckets, in ns.
    const fn span(page: usize) -> (u64, u32) {
        if page == 0 {
            return (0, LINEAR_BITS - PAGE.ilog2());
        }
        let octave = LINEAR_BITS + page as u32 - 1;
        (1 << octave, octave - PAGE.ilog2())
    }

    /// A time that is not in the page at hand, which changes.
    fn record_elsewhere(&mut self, nanos: u64) {
        let nanos = nanos.min(MAX_NANOS);
        let page = match nanos.checked_ilog2() {
            Some(octave) if octave >= LINEAR_BITS => (octave - LINEAR_BITS + 1) as usize % PAGES,
            _ => 0,
        };
        let fresh = self.pages[page].take();
        let fresh = fresh.unwrap_or_else(|| Box::new([0; PAGE]));
        self.pages[self.page] = Some(core::mem::replace(&mut self.hand, fresh));
        self.page = page;
        (self.lowest, self.shift) = Self::span(page);
        let at = (nanos - self.lowest) >> self.shift;
        let count = &mut self.hand[at as usize % PAGE];
        *count = count.wrapping_add(1);
    }

    /// Adds the counts to both recorders, and starts afresh.
    fn settle<const A: u32, const B: u32>(&mut self, a: &mut Recorder<A>, b: &mut Recorder<B>) {
        let at_hand = self.page;
        let pages = self.pages.iter_mut().enumerate();
        let pages = pages.filter_map(|(page, counts)| Some((page, counts.as_mut()?)));
        for (page, counts) in pages.chain([(at_hand, &mut self.hand)]) {
            settle_page(page, counts, a, b);
        }
    }
}

fn settle_page<const A: u32, const B: u32>(
    page: usize,
    counts: &mut [u32; PAGE],
    a: &mut Recorder<A>,
    b: &mut Recorder<B>,
) {
    let (lowest, shift) = Fresh::span(page);
    for (at, count) in counts.iter_mut().enumerate() {
        let times = u64::from(core::mem::take(count));
        if times > 0 {
            // The middle of the bucket.
            let nanos = lowest + ((at as u64) << shift) + (1 << shift >> 1);
            let value = cut(nanos / 1_000);
            a.count_value(value, top_bit(value), times);
            b.count_value(value, top_bit(value), times);
        }
    }
}

/// The times that every packet has, fresh.
#[derive(Clone, Debug)]
pub(crate) struct FreshTimes {
    /// Page 0 of the times until packets were taken: nearly all are of this one.
    near: Box<[u32; PAGE]>,
    receive: Fresh,
    hold: Fresh,
}

impl Default for FreshTimes {
    fn default() -> Self {
        FreshTimes {
            near: Box::new([0; PAGE]),
            receive: Fresh::default(),
            hold: Fresh::default(),
        }
    }
}

impl FreshTimes {
    /// Counts both times of a packet, in ns, the hold as the difference of two times.
    #[inline(always)]
    pub(crate) fn record(&mut self, receive: u32, (handled, due): (u64, u64)) {
        let hold = due.wrapping_sub(handled);
        let near = self.near.get_mut((receive >> Fresh::span(0).1) as usize);
        match (near, self.hold.at_hand(hold)) {
            (Some(receive), Some(hold)) => {
                *receive = receive.wrapping_add(1);
                *hold = hold.wrapping_add(1);
            }
            _ => self.record_elsewhere(receive, due.saturating_sub(handled)),
        }
    }

    #[inline(never)]
    fn record_elsewhere(&mut self, receive: u32, hold: u64) {
        self.receive.record(receive.into());
        self.hold.record(hold);
    }

    /// Adds them to the recorders of the stream and of its shard, and starts afresh.
    pub(crate) fn settle(&mut self, stream: &mut StreamLatency, shard: &mut ShardLatency) {
        settle_page(0, &mut self.near, &mut stream.receive, &mut shard.receive);
        self.receive.settle(&mut stream.receive, &mut shard.receive);
        self.hold.settle(&mut stream.hold, &mut shard.hold);
    }
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
    fn what_is_settled_is_what_was_recorded_to_the_precision_of_three_digits() {
        let values = (0..5_000_u64).chain((0..27).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + 1, power * 3 / 2, u64::MAX >> bit]
        }));
        // To and fro between pages, too.
        let near = values.clone().map(|value| value / 3);
        let mut fresh = Fresh::default();
        let (mut two, mut three) = (Recorder::<8>::default(), Recorder::<11>::default());
        let mut all = 0;
        for (number, value) in values.zip(near).flat_map(|(a, b)| [a, b]).enumerate() {
            fresh.record(value.saturating_mul(1_000).saturating_add(999));
            all += 1;
            if number % 3 == 2 {
                continue;
            }
            fresh.settle(&mut two, &mut three);
            assert_eq!((two.count(), three.count()), (all, all));
            if all == 1 {
                let value = value.min(MAX_VALUE_US) as f64 + 0.999;
                for (digits, got) in [(2, two.to_histogram()), (3, three.to_histogram())] {
                    let error = (got.max() as f64 - value).abs();
                    let allowed = 1.5 + value / 10_f64.powi(digits);
                    assert!(error <= allowed, "{value} became {} ({digits})", got.max());
                }
            }
            two.reset();
            three.reset();
            all = 0;
        }
    }

    #[test]
    fn a_time_is_counted_in_the_middle_of_what_is_left_of_it() {
        let (mut two, mut three) = (Recorder::<8>::default(), Recorder::<11>::default());
        let mut fresh = Fresh::default();
        for nanos in [0, 1_024 * 700, 118_000_000, 118_000_000, 700_000] {
            fresh.record(nanos);
        }
        fresh.settle(&mut two, &mut three);
        fresh.settle(&mut two, &mut three);
        let histogram = three.to_histogram();
        assert_eq!(histogram.len(), 5);
        assert_eq!(histogram.min(), 0);
        assert!((700..=718).contains(&histogram.value_at_quantile(0.5)));
        let worst = histogram.max();
        assert!((117_950..=118_050).contains(&worst), "{worst}");
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
