//! The receiver's estimates of arrival rate and link capacity (spec section 10.5). Feeding them
//! is a store; sorting happens when an ACK is written.
#![allow(
    clippy::indexing_slicing,
    reason = "indexes are constants, or modulo the length"
)]

use mirror_base::Instant;

const ARRIVALS: usize = 16;
const PLACES: usize = 2 * ARRIVALS;
const PROBES: usize = 64;
/// New intervals until the capacity is worked out again, with the next ACK: three of 64 change it
/// little.
const PROBES_UNTIL_NEWS: usize = 16;
const NANOS: u64 = 1_000_000_000;

/// The arrivals of the last 17 original packets, which bound 16 intervals. The packet that comes
/// next in order has its place by its index.
#[derive(Debug)]
pub(crate) struct ArrivalRate {
    /// The index expected next is so far beyond the number of packets fed.
    from: u64,
    /// Arrival in ns, and bytes with headers: a power of two of them.
    arrivals: [u64; PLACES],
    bytes: [u32; PLACES],
}

impl ArrivalRate {
    /// As if a packet without content had come each second before `start`.
    /// `next_index` is expected first.
    pub(crate) const fn new(start: Instant, next_index: u64) -> Self {
        let mut arrivals = [0; PLACES];
        let mut ago = 0;
        // The one that comes first is at 0, the one before it at the end.
        while ago < arrivals.len() as u64 {
            let at = arrivals.len() - 1 - ago as usize;
            arrivals[at] = start.as_nanos().wrapping_sub(ago * NANOS);
            ago += 1;
        }
        ArrivalRate {
            from: next_index,
            arrivals,
            bytes: [0; PLACES],
        }
    }

    /// An original packet with the index expected next has arrived; the one behind it is expected
    /// from now on.
    #[inline]
    pub(crate) const fn feed_next(&mut self, index: u64, arrival: Instant, bytes: u32) {
        let at = index.wrapping_sub(self.from) as usize % PLACES;
        self.arrivals[at] = arrival.as_nanos();
        self.bytes[at] = bytes;
    }

    /// The index expected next has moved by so much, without a packet.
    pub(crate) const fn skip(&mut self, by: u64) {
        self.from = self.from.wrapping_add(by);
    }

    /// Another original packet has arrived, and `expected` is expected still.
    pub(crate) const fn feed(&mut self, expected: u64, arrival: Instant, bytes: u32) {
        self.feed_next(expected, arrival, bytes);
        self.from = self.from.wrapping_sub(1);
    }

    /// The last 16 intervals in ns (at most 4.29 s), and the bytes of the packet that ended each.
    fn intervals(&self, expected: u64) -> [(u32, u32); ARRIVALS] {
        let fed = expected.wrapping_sub(self.from) as usize;
        let at = |ago: usize| fed.wrapping_sub(ago + 1) % PLACES;
        core::array::from_fn(|ago| {
            let (end, bytes) = (self.arrivals[at(ago)], self.bytes[at(ago)]);
            // Wrapping: the packets from before the start may lie before the clock's.
            let nanos = end.wrapping_sub(self.arrivals[at(ago + 1)]);
            // Reordered packets are no interval apart.
            let nanos = if nanos > u64::MAX / 2 { 0 } else { nanos };
            (nanos.min(u64::from(u32::MAX)) as u32, bytes)
        })
    }

    /// Time and bytes of the last 16 intervals, if all lie within ⅛ and 8 times their median,
    /// whichever that is: of a steady flow it need not be looked for.
    fn steady(&self, expected: u64) -> Option<(u64, u64)> {
        let fed = expected.wrapping_sub(self.from) as usize;
        let mut at = fed.wrapping_sub(1) % PLACES;
        let newest = self.arrivals[at];
        let (mut end, mut bytes) = (newest, 0);
        let (mut least, mut most) = (u64::MAX, 0);
        for _ in 0..ARRIVALS {
            bytes += u64::from(self.bytes[at]);
            at = at.wrapping_sub(1) % PLACES;
            let start = self.arrivals[at];
            let nanos = end.wrapping_sub(start);
            least = least.min(nanos);
            most = most.max(nanos);
            end = start;
        }
        let is_steady = least > most / 8 && most <= u64::from(u32::MAX);
        is_steady.then(|| (newest.wrapping_sub(end), bytes))
    }

    /// Packets and bytes a second: the mean of the intervals within ⅛ and 8 times the median,
    /// if more than 8 are.
    pub(crate) fn rates(&self, expected: u64) -> (u32, u32) {
        match self.steady(expected) {
            Some((time, bytes)) => rates_of(ARRIVALS as u64, time, bytes),
            None => self.rates_of_unsteady(expected),
        }
    }

    #[inline(never)]
    fn rates_of_unsteady(&self, expected: u64) -> (u32, u32) {
        let intervals = self.intervals(expected);
        let mut sorted = intervals.map(|(nanos, _)| nanos);
        sorted.sort_unstable();
        let median = u64::from(sorted[ARRIVALS / 2]);
        let (mut count, mut time, mut bytes) = (0, 0, 0);
        for &(nanos, size) in &intervals {
            let nanos = u64::from(nanos);
            // Packets that the kernel stamped together (receive offload) have no interval: then
            // the plain mean is all there is.
            if median == 0 || (nanos > median / 8 && nanos < median * 8) {
                count += 1;
                time += nanos;
                bytes += u64::from(size);
            }
        }
        if count <= 8 || time == 0 {
            return (0, 0);
        }
        rates_of(count, time, bytes)
    }
}

fn rates_of(count: u64, time: u64, bytes: u64) -> (u32, u32) {
    (
        clamp((count * NANOS).div_ceil(time)),
        clamp((bytes * NANOS).div_ceil(time)),
    )
}

/// The last 64 intervals within probe pairs: packets whose number modulo 16 is 0 and 1 are sent
/// back to back.
#[derive(Debug)]
pub(crate) struct LinkCapacity {
    first: Option<Instant>,
    at: usize,
    intervals: [u32; PROBES],
    /// Enough of them are new.
    news: bool,
    pps: u32,
}

impl LinkCapacity {
    pub(crate) const fn new() -> Self {
        LinkCapacity {
            first: None,
            at: 0,
            intervals: [1_000_000; PROBES],
            news: false,
            pps: 1000,
        }
    }

    /// The first packet of a pair has arrived in order.
    #[inline]
    pub(crate) const fn first(&mut self, arrival: Instant) {
        self.first = Some(arrival);
    }

    /// The second one has, right behind it.
    #[inline]
    pub(crate) fn second(&mut self, arrival: Instant) {
        let Some(first) = self.first.take() else {
            return;
        };
        let nanos = arrival.as_nanos().saturating_sub(first.as_nanos());
        self.intervals[self.at % PROBES] = nanos.min(u64::from(u32::MAX)) as u32;
        self.at = (self.at + 1) % PROBES;
        self.news |= self.at.is_multiple_of(PROBES_UNTIL_NEWS);
    }

    /// Works the capacity out again if there is news: before an ACK tells it. Not where a packet
    /// is taken, which costs the least if nothing there can panic, as sorting might.
    #[inline]
    pub(crate) fn update(&mut self) {
        if core::mem::take(&mut self.news) {
            self.pps = self.work_out();
        }
    }

    /// Something came between.
    #[inline]
    pub(crate) const fn interrupt(&mut self) {
        self.first = None;
    }

    /// Packets a second, as of the last [`LinkCapacity::update`].
    pub(crate) const fn capacity_pps(&self) -> u32 {
        self.pps
    }

    /// The median counts as one more sample, as in libsrt.
    #[cold]
    fn work_out(&self) -> u32 {
        let mut sorted = self.intervals;
        sorted.sort_unstable();
        let median = u64::from(sorted[PROBES / 2]);
        let (mut count, mut time) = (1, median);
        for &nanos in &self.intervals {
            let nanos = u64::from(nanos);
            if nanos > median / 8 && nanos < median * 8 {
                count += 1;
                time += nanos;
            }
        }
        if time == 0 {
            0
        } else {
            clamp((count * NANOS).div_ceil(time))
        }
    }
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_link_shows_capacity_1000_and_rate_1() {
        assert_eq!(LinkCapacity::new().capacity_pps(), 1000);
        assert_eq!(ArrivalRate::new(Instant::ZERO, 9).rates(9).0, 1);
    }

    #[test]
    fn of_a_steady_flow_no_median_need_be_known() {
        let mut random = crate::test_support::Random(5);
        let mut steady = 0;
        for _ in 0..2_000 {
            let (base, spread) = (1 + random.below(2_000), 1 + random.below(9));
            let mut rate = ArrivalRate::new(Instant::ZERO, 0);
            let mut now = 0;
            let mut nanos = Vec::new();
            for i in 0..17 {
                let interval = base * (1 + random.below(spread)) + random.below(2);
                now += interval;
                nanos.push(interval);
                rate.feed_next(i, Instant::from_nanos(now), 1000);
            }
            nanos.remove(0);
            let mut sorted = nanos.clone();
            sorted.sort_unstable();
            steady += u32::from(sorted[0] * 8 > sorted[15]);
            nanos.retain(|&n| n > sorted[8] / 8 && n < sorted[8] * 8);
            let time: u64 = nanos.iter().sum();
            let count = nanos.len() as u64;
            let pps = if count > 8 {
                (count * NANOS).div_ceil(time)
            } else {
                0
            };
            assert_eq!(u64::from(rate.rates(17).0), pps, "{sorted:?}");
            assert_eq!(rate.rates(17), rate.rates_of_unsteady(17), "{sorted:?}");
        }
        assert!((500..1_990).contains(&steady), "{steady}");
    }

    #[test]
    fn a_steady_flow_is_measured_and_pauses_are_left_out() {
        let mut rate = ArrivalRate::new(Instant::ZERO, 5);
        let mut now = 0;
        for i in 0..40 {
            now += if i == 30 { 500_000 } else { 1_000 };
            // Each way of feeding, and gaps between.
            let expected = 5 + i * 2;
            if i % 3 == 0 {
                rate.feed(expected, Instant::from_micros(now), 1360);
                rate.skip(2);
            } else {
                rate.feed_next(expected, Instant::from_micros(now), 1360);
                rate.skip(1);
            }
        }
        assert_eq!(rate.rates(5 + 80), (1000, 1_360_000));
        let mut batches = ArrivalRate::new(Instant::ZERO, 0);
        for i in 0..64 {
            batches.feed_next(i, Instant::from_millis(i / 16 * 16), 1360);
        }
        assert_eq!(batches.rates(64), (1000, 1_360_000), "sixteen at a time");
        let mut capacity = LinkCapacity::new();
        for i in 0..64 {
            capacity.first(Instant::from_micros(i * 1000));
            capacity.second(Instant::from_micros(i * 1000 + 10));
        }
        capacity.update();
        assert_eq!(capacity.capacity_pps(), 100_000);
        capacity.first(Instant::ZERO);
        capacity.interrupt();
        capacity.second(Instant::from_millis(9));
        capacity.update();
        assert_eq!(capacity.capacity_pps(), 100_000);
    }
}
