//! The receiver's estimates of arrival rate and link capacity (spec section 10.5). Feeding them
//! is a store; sorting happens when an ACK is written.
#![allow(
    clippy::indexing_slicing,
    reason = "indexes are constants, or modulo the length"
)]

use mirror_base::Instant;

const ARRIVALS: usize = 16;
const PROBES: usize = 64;
/// New intervals until the capacity is worked out again: it is asked for with each ACK, and three
/// of 64 intervals change it little.
const PROBES_UNTIL_NEWS: usize = 16;
const NANOS: u64 = 1_000_000_000;

/// The arrivals of the last 17 original packets, which bound 16 intervals.
#[derive(Debug)]
pub(crate) struct ArrivalRate {
    at: usize,
    /// Arrival in ns, and bytes with headers: a power of two of them.
    arrivals: [(u64, u32); 2 * ARRIVALS],
}

impl ArrivalRate {
    /// As if a packet without content had come each second before `start`.
    pub(crate) const fn new(start: Instant) -> Self {
        let mut arrivals = [(0, 0); 2 * ARRIVALS];
        let mut ago = 0;
        // The one that comes first is at 0, the one before it at the end.
        while ago < arrivals.len() as u64 {
            let at = arrivals.len() - 1 - ago as usize;
            arrivals[at] = (start.as_nanos().wrapping_sub(ago * NANOS), 0);
            ago += 1;
        }
        ArrivalRate { at: 0, arrivals }
    }

    /// An original packet has arrived.
    #[inline]
    pub(crate) const fn feed(&mut self, arrival: Instant, bytes: u32) {
        self.arrivals[self.at % (2 * ARRIVALS)] = (arrival.as_nanos(), bytes);
        self.at = self.at.wrapping_add(1);
    }

    /// The last 16 intervals in ns (at most 4.29 s), and the bytes of the packet that ended each.
    fn intervals(&self) -> [(u32, u32); ARRIVALS] {
        let at = |ago: usize| self.arrivals[self.at.wrapping_sub(ago + 1) % (2 * ARRIVALS)];
        core::array::from_fn(|ago| {
            let (end, bytes) = at(ago);
            // Wrapping: the packets from before the start may lie before the clock's.
            let nanos = end.wrapping_sub(at(ago + 1).0);
            // Reordered packets are no interval apart.
            let nanos = if nanos > u64::MAX / 2 { 0 } else { nanos };
            (nanos.min(u64::from(u32::MAX)) as u32, bytes)
        })
    }

    /// Packets and bytes a second: the mean of the intervals within ⅛ and 8 times the median,
    /// if more than 8 are.
    pub(crate) fn rates(&self) -> (u32, u32) {
        let intervals = self.intervals();
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
        (
            clamp((count * NANOS).div_ceil(time)),
            clamp((bytes * NANOS).div_ceil(time)),
        )
    }
}

/// The last 64 intervals within probe pairs: packets whose number modulo 16 is 0 and 1 are sent
/// back to back.
#[derive(Debug)]
pub(crate) struct LinkCapacity {
    first: Option<Instant>,
    at: usize,
    intervals: [u32; PROBES],
    pps: u32,
}

impl LinkCapacity {
    pub(crate) const fn new() -> Self {
        LinkCapacity {
            first: None,
            at: 0,
            intervals: [1_000_000; PROBES],
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
        if self.at.is_multiple_of(PROBES_UNTIL_NEWS) {
            self.pps = self.work_out();
        }
    }

    /// Something came between.
    #[inline]
    pub(crate) const fn interrupt(&mut self) {
        self.first = None;
    }

    /// Packets a second.
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
        assert_eq!(ArrivalRate::new(Instant::ZERO).rates().0, 1);
    }

    #[test]
    fn a_steady_flow_is_measured_and_pauses_are_left_out() {
        let mut rate = ArrivalRate::new(Instant::ZERO);
        let mut now = 0;
        for i in 0..40 {
            now += if i == 30 { 500_000 } else { 1_000 };
            rate.feed(Instant::from_micros(now), 1360);
        }
        assert_eq!(rate.rates(), (1000, 1_360_000));
        let mut batches = ArrivalRate::new(Instant::ZERO);
        for i in 0..64 {
            batches.feed(Instant::from_millis(i / 16 * 16), 1360);
        }
        assert_eq!(batches.rates(), (1000, 1_360_000), "sixteen at a time");
        let mut capacity = LinkCapacity::new();
        for i in 0..64 {
            capacity.first(Instant::from_micros(i * 1000));
            capacity.second(Instant::from_micros(i * 1000 + 10));
        }
        assert_eq!(capacity.capacity_pps(), 100_000);
        capacity.first(Instant::ZERO);
        capacity.interrupt();
        capacity.second(Instant::from_millis(9));
        assert_eq!(capacity.capacity_pps(), 100_000);
    }
}
