//! See `rates.rs`.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use super::*;

const RETRANSMITTED: u8 = 4;
const START: Instant = Instant::from_millis(1);

struct Line {
    ring: SlotRing,
    first: u64,
    end: u64,
}

impl Line {
    fn new(first: u64) -> Line {
        Line {
            ring: SlotRing::with_owned_chunks(40),
            first,
            end: first,
        }
    }

    /// A packet of 1316 bytes, `nanos` after the start.
    fn came(&mut self, index: u64, nanos: u64, flags: u8) {
        let at = Instant::from_nanos(START.as_nanos() + nanos);
        let meta = SlotMeta::new(at, 0, flags);
        self.ring.insert(index, &[0; 1316], meta).unwrap();
        self.end = self.end.max(index + 1);
    }

    fn rates(&self) -> (u32, u32) {
        let mut rate = ArrivalRate::new(START, self.first);
        rate.update(&self.ring, self.end);
        rate.latest()
    }

    fn capacity(&self, capacity: &mut LinkCapacity) -> u32 {
        let seq = PacketSequenceNumber::new(self.end as u32 & 0x7FFF_FFFF);
        capacity.update(&self.ring, self.end, seq);
        capacity.capacity_pps()
    }
}

#[test]
fn an_idle_link_shows_capacity_1000_and_rate_1() {
    assert_eq!(LinkCapacity::new(9).capacity_pps(), 1000);
    assert_eq!(ArrivalRate::new(Instant::ZERO, 9).latest().0, 1);
    assert_eq!(Line::new(9).rates(), (1, 0));
}

#[test]
fn of_a_steady_flow_no_median_need_be_known() {
    let mut random = crate::test_support::Random(5);
    let mut steady = 0;
    for _ in 0..2_000 {
        let (base, spread) = (1 + random.below(2_000), 1 + random.below(9));
        let (mut line, mut now, mut nanos) = (Line::new(40), 0, Vec::new());
        for i in 0..17 {
            let interval = base * (1 + random.below(spread)) + random.below(2);
            now += interval;
            nanos.push(interval);
            line.came(40 + i, now, 0);
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
        assert_eq!(u64::from(line.rates().0), pps, "{sorted:?}");
        let mut arrivals = [(0, 0); ARRIVALS];
        let rate = ArrivalRate::new(START, 40);
        assert_eq!(rate.last_arrivals(&line.ring, 57, &mut arrivals), 17);
        assert_eq!(line.rates(), rates_of_unsteady(&mut arrivals));
    }
    assert!((500..1_990).contains(&steady), "{steady}");
}

#[test]
fn a_steady_flow_is_measured_and_pauses_are_left_out() {
    let (mut line, mut now) = (Line::new(5), 0);
    for i in 0..40 {
        now += if i == 30 { 500_000_000 } else { 1_000_000 };
        // Each second one is lost.
        line.came(5 + i * 2, now, 0);
    }
    assert_eq!(line.rates(), (1000, 1_360_000));
    let mut batches = Line::new(0);
    for i in 0..64 {
        batches.came(i, i / 16 * 16_000_000, 0);
    }
    assert_eq!(batches.rates(), (1000, 1_360_000), "sixteen at a time");
}

#[test]
fn retransmissions_are_no_arrivals_and_who_overtakes_changes_no_rate() {
    let mut line = Line::new(0);
    for i in 0..60 {
        let place = match i % 4 {
            1 => i + 1,
            2 => i - 1,
            _ => i,
        };
        line.came(i, place * 1_000_000, 0);
    }
    assert_eq!(line.rates(), (1000, 1_360_000));
    for i in 60..100 {
        let (flags, late) = if i % 10 == 7 {
            (RETRANSMITTED, 40)
        } else {
            (0, 0)
        };
        line.came(i, (i + late) * 1_000_000, flags);
    }
    // An interval in nine is twice as long.
    let (pps, _) = line.rates();
    assert!((880..=920).contains(&pps), "{pps}");
}

#[test]
fn what_came_before_the_connection_is_not_counted() {
    let mut line = Line::new(0);
    for i in 0..40 {
        line.came(i, i * 1_000, 0);
    }
    line.first = 40;
    assert_eq!(line.rates(), (1, 0));
    line.first = 0;
    // Nothing of what was given up behind it came.
    line.end = 2_000;
    assert_eq!(line.rates().0, 1_000_000);
    line.ring.release_before(40);
    while line.ring.take_chunk().is_some() {}
    assert_eq!(line.rates(), (0, 0), "its memory is gone");
    assert_eq!(line.capacity(&mut LinkCapacity::new(0)), 1000);
}

#[test]
fn pairs_tell_the_capacity_if_both_came_as_sent() {
    let mut line = Line::new(3);
    let mut capacity = LinkCapacity::new(3);
    for i in 3..1_042 {
        let nanos = match i % 16 {
            1 => 10_000,
            n => n * 60_000,
        };
        line.came(i, i / 16 * 1_000_000 + nanos, 0);
        // With ACKs at any time, within pairs as well.
        if i % 7 == 0 {
            line.capacity(&mut capacity);
        }
    }
    assert_eq!(line.capacity(&mut capacity), 100_000);
    assert_eq!(capacity.at, 1, "65 pairs");
    // A repaired one, one that overtook, one whose second is missing.
    for (index, nanos, flags) in [
        (1_056, 0, RETRANSMITTED),
        (1_057, 9_000_000, 0),
        (1_072, 9_000_000, 0),
        (1_073, 0, 0),
        (1_088, 0, 0),
        (1_090, 9_000_000, 0),
    ] {
        line.came(index, 2_000_000_000 + nanos, flags);
    }
    line.capacity(&mut capacity);
    assert_eq!(capacity.at, 1);
}
