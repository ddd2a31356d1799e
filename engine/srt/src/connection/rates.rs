//! The receiver's estimates of arrival rate and link capacity (spec section 10.5). When packets came
//! stands in the ring's metadata: taking a packet costs nothing here, and who writes an ACK looks at
//! the last ones.
#![allow(
    clippy::indexing_slicing,
    reason = "indexes are constants, or modulo the length"
)]

use mirror_base::{Instant, PacketSequenceNumber, SlotMeta, SlotRing};

use super::receive::is_original;
use crate::config::HEADERS_LEN;

const INTERVALS: usize = 16;
const ARRIVALS: usize = INTERVALS + 1;
/// Among so many packets the last 17 originals are looked for.
const LOOKED_AT: u64 = 64;
const PROBES: usize = 64;
/// Two packets in so many are a probe pair.
const PROBE_EACH: u64 = 16;
const NANOS: u64 = 1_000_000_000;

/// When a packet arrived, in ns, and its bytes with headers.
type Arrival = (u64, u64);

/// Packets and bytes a second, by the last 16 intervals between original packets.
#[derive(Debug)]
pub(crate) struct ArrivalRate {
    start: Instant,
    /// Indexes below are of no packets of this connection.
    from: u64,
    latest: (u32, u32),
}

impl ArrivalRate {
    /// As if a packet without content had come each second until `start`. `next_index` is expected
    /// first.
    pub(crate) const fn new(start: Instant, next_index: u64) -> Self {
        ArrivalRate {
            start,
            from: next_index,
            latest: (1, 0),
        }
    }

    /// Works the rates out again: before an ACK tells them. `expected` lies behind all that came.
    pub(crate) fn update(&mut self, ring: &SlotRing, expected: u64) {
        let mut arrivals = [(0, 0); ARRIVALS];
        let found = self.last_arrivals(ring, expected, &mut arrivals);
        self.latest = rates(&mut arrivals[..found.min(ARRIVALS)]);
    }

    /// As of the last update.
    pub(crate) const fn latest(&self) -> (u32, u32) {
        self.latest
    }

    /// The last originals, the latest index first; how many they are.
    #[inline]
    fn last_arrivals(&self, ring: &SlotRing, expected: u64, to: &mut [Arrival; ARRIVALS]) -> usize {
        let mut end = expected.min(ring.end());
        let from = self.from.max(end.saturating_sub(LOOKED_AT));
        let mut found = 0;
        while found < ARRIVALS && end > from {
            let metas = ring.metas_before(end);
            let of_session = usize::try_from(end - from).unwrap_or(usize::MAX);
            let metas = &metas[metas.len().saturating_sub(of_session)..];
            // Its memory serves others by now.
            if metas.is_empty() {
                return found;
            }
            end -= metas.len() as u64;
            for meta in metas.iter().rev().filter(|meta| is_original(meta)) {
                let Some(place) = to.get_mut(found) else {
                    return found;
                };
                *place = (meta.arrival.as_nanos(), bytes(meta));
                found += 1;
            }
        }
        if from == self.from {
            // Wrapping: these may lie before the clock's start.
            let before = (0..).map(|ago: u64| self.start.as_nanos().wrapping_sub(ago * NANOS));
            for (place, at) in to[found..].iter_mut().zip(before) {
                *place = (at, 0);
            }
            return ARRIVALS;
        }
        found
    }
}

fn bytes(meta: &SlotMeta) -> u64 {
    u64::from(meta.payload_end.wrapping_sub(meta.payload_offset)) + HEADERS_LEN
}

/// Packets and bytes a second: the mean of the intervals within ⅛ and 8 times the median, if more
/// than 8 are. Of a steady flow all are, whichever that is, and it need not be looked for.
fn rates(arrivals: &mut [Arrival]) -> (u32, u32) {
    let (mut time, mut sum) = (0_u64, 0);
    let (mut least, mut most) = (u64::MAX, 0);
    for pair in arrivals.array_windows::<2>() {
        let [(end, bytes), (start, _)] = *pair;
        let nanos = end.wrapping_sub(start);
        time = time.wrapping_add(nanos);
        sum += bytes;
        least = least.min(nanos);
        most = most.max(nanos);
    }
    let intervals = arrivals.len().saturating_sub(1);
    // Packets that overtook others show as an endless interval.
    let is_steady = least > most / 8 && most <= u64::from(u32::MAX) && intervals > INTERVALS / 2;
    if is_steady {
        rates_of(intervals as u64, time, sum)
    } else {
        rates_of_unsteady(arrivals)
    }
}

#[inline(never)]
fn rates_of_unsteady(arrivals: &mut [Arrival]) -> (u32, u32) {
    // In the order in which they came: as differences, since those before the start may lie before
    // the clock's.
    let latest = arrivals.first().map_or(0, |first| first.0);
    arrivals.sort_unstable_by_key(|&(at, _)| latest.wrapping_sub(at).cast_signed());
    let mut intervals = [(0, 0); INTERVALS];
    let pairs = arrivals.array_windows::<2>();
    let count = pairs.len().min(INTERVALS);
    for (place, [(end, bytes), (start, _)]) in intervals.iter_mut().zip(pairs) {
        let nanos = end.wrapping_sub(*start);
        *place = (nanos.min(u64::from(u32::MAX)), *bytes);
    }
    let intervals = &intervals[..count];
    let mut sorted = [0; INTERVALS];
    for (place, &(nanos, _)) in sorted.iter_mut().zip(intervals) {
        *place = nanos;
    }
    let sorted = &mut sorted[..count];
    sorted.sort_unstable();
    let median = sorted.get(count / 2).copied().unwrap_or(0);
    let (mut count, mut time, mut sum) = (0, 0, 0);
    for &(nanos, bytes) in intervals {
        // Packets that the kernel stamped together (receive offload) have no interval: then
        // the plain mean is all there is.
        if median == 0 || (nanos > median / 8 && nanos < median * 8) {
            count += 1;
            time += nanos;
            sum += bytes;
        }
    }
    if count <= INTERVALS as u64 / 2 || time == 0 {
        return (0, 0);
    }
    rates_of(count, time, sum)
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
    /// Pairs below this index were looked at.
    from: u64,
    at: usize,
    intervals: [u32; PROBES],
    /// All of them are new: a few change the capacity little, and it is not worked out for them.
    news: bool,
    pps: u32,
}

impl LinkCapacity {
    /// `next_index` is expected first.
    pub(crate) const fn new(next_index: u64) -> Self {
        LinkCapacity {
            from: next_index,
            at: 0,
            intervals: [1_000_000; PROBES],
            news: false,
            pps: 1000,
        }
    }

    /// Takes in what pairs have come, of which both were originals and the first came first, and
    /// works the capacity out again if there is news: before an ACK tells it. `expected` and its
    /// number lie behind all that came.
    pub(crate) fn update(&mut self, ring: &SlotRing, expected: u64, seq: PacketSequenceNumber) {
        // No more than there are places for.
        let oldest = expected.saturating_sub(PROBE_EACH * PROBES as u64);
        let from = self.from.max(oldest);
        // 2^31 is a multiple of 16: wraps change nothing.
        let residue = u64::from(seq.get()).wrapping_sub(expected.wrapping_sub(from)) % PROBE_EACH;
        let mut first = from + (PROBE_EACH - residue) % PROBE_EACH;
        while first + 1 < expected {
            if let Some((a, b)) = pair(ring, first)
                && is_original(a)
                && is_original(b)
                && a.arrival <= b.arrival
            {
                self.interval(b.arrival.as_nanos() - a.arrival.as_nanos());
            }
            first += PROBE_EACH;
        }
        self.from = first;
        if core::mem::take(&mut self.news) {
            self.pps = self.work_out();
        }
    }

    fn interval(&mut self, nanos: u64) {
        self.intervals[self.at % PROBES] = u32::try_from(nanos).unwrap_or(u32::MAX);
        self.at = (self.at + 1) % PROBES;
        self.news |= self.at == 0;
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

/// What is known of a packet and of the next one.
#[inline]
fn pair(ring: &SlotRing, first: u64) -> Option<(&SlotMeta, &SlotMeta)> {
    // Nearly always they share a chunk.
    match ring.metas_from(first) {
        [a, b, ..] => Some((a, b)),
        [a] => Some((a, ring.metas_from(first + 1).first()?)),
        [] => None,
    }
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
