//! A pipeline that is fed as `stream` feeds it, from a slot ring in virtual time. After each step
//! what must hold is checked: bounds of everything, units that make sense, timers that go on.

use core::time::Duration;

use mirror_base::ring::SlotMeta;
use mirror_base::{Instant, SlotRing};
use mirror_media::{AccessUnit, Damaged, Format, Limits, Packet, Pipeline};

/// Slots that stay readable behind the newest.
const KEPT: u64 = 400;
/// Most units that may come out at once: what the longest of the queues holds, and its inputs.
const MAX_BURST: usize = 4_096;
/// Bounds of parameter sets, with their start codes.
const MAX_PARAMETER_SETS: usize = 256 << 10;
/// Bytes that a datagram may carry.
pub(crate) const MAX_PAYLOAD: usize = 1_472;

/// What accompanies a packet.
#[derive(Clone, Copy, Default)]
pub(crate) struct Side {
    pub(crate) lost_before: u32,
    pub(crate) discontinuity: bool,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
}

pub(crate) struct Bench {
    pub(crate) pipeline: Pipeline,
    pub(crate) now: Instant,
    pub(crate) units: u64,
    limits: Limits,
    ring: SlotRing,
    next: u64,
    bytes: Vec<u8>,
    finished: bool,
}

/// Limits, some of which are soon reached.
pub(crate) fn limits(choice: u8) -> Limits {
    Limits {
        max_tracks: [32, 32, 1, 3][usize::from(choice & 3)],
        max_frame_size: [10 << 20, 20_000, 300, 10 << 20][usize::from(choice >> 2 & 3)],
        damaged: [Damaged::Deliver, Damaged::Drop][usize::from(choice >> 4 & 1)],
        tr101290: choice >> 5 & 1 == 0,
        ..Limits::default()
    }
}

impl Bench {
    pub(crate) fn new(format: Format, limits: Limits) -> Self {
        Bench {
            pipeline: Pipeline::new(format, limits.clone()),
            now: Instant::from_millis(1_000),
            units: 0,
            limits,
            ring: SlotRing::with_owned_chunks(16),
            next: 0,
            bytes: Vec::new(),
            finished: false,
        }
    }

    /// A datagram is delivered, a tenth of a millisecond after the last.
    pub(crate) fn push(&mut self, payload: &[u8], side: Side) {
        let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
        self.now += Duration::from_micros(100);
        self.next += u64::from(side.lost_before.min(64));
        let slot = self.next;
        self.next += 1;
        self.ring.release_before(slot.saturating_sub(KEPT));
        self.ring
            .insert(slot, payload, SlotMeta::new(self.now, side.timestamp, 0))
            .expect("the ring has room");
        let slot_now = self.ring.get(slot).expect("it was filled");
        self.pipeline.push(Packet {
            slot,
            arrival: self.now,
            lost_before: side.lost_before,
            discontinuity: side.discontinuity,
            timestamp: side.timestamp,
            marker: side.marker,
            payload_type: side.payload_type,
            payload: slot_now.payload,
        });
        self.drain();
    }

    /// Time passes, and timers fire.
    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.drain();
        for _ in 0..1_000 {
            let Some(due) = self.pipeline.poll_timeout().filter(|at| *at <= self.now) else {
                return;
            };
            self.pipeline.handle_timeout(self.now);
            self.drain();
            assert_ne!(self.pipeline.poll_timeout(), Some(due), "no progress");
        }
        panic!("timers fire without end");
    }

    /// The stream ends.
    pub(crate) fn finish(&mut self) {
        self.advance(Duration::from_millis(50));
        self.pipeline.finish();
        self.finished = true;
        self.drain();
        self.advance(Duration::from_secs(5));
        let waits = self.pipeline.poll_timeout();
        assert!(waits.is_none_or(|at| at > self.now), "{waits:?}");
    }

    fn drain(&mut self) {
        let mut burst = 0;
        while let Some(unit) = self.pipeline.poll_unit() {
            burst += 1;
            assert!(burst <= MAX_BURST, "units without end");
            self.check_unit(&unit);
        }
        self.units += burst as u64;
        let mut splices = 0;
        while self.pipeline.poll_splice().is_some() {
            splices += 1;
            assert!(splices <= 64, "splices without end");
        }
        self.check();
    }

    fn check_unit(&mut self, unit: &AccessUnit) {
        assert!(
            usize::from(unit.track) < self.pipeline.tracks().len(),
            "{unit:?} of no track"
        );
        assert!(unit.first <= unit.end, "{unit:?}");
        assert!(
            unit.end.slot < self.next,
            "{unit:?} ends in what has not come"
        );
        assert!(unit.first_arrival <= unit.last_arrival, "{unit:?}");
        assert!(unit.last_arrival <= unit.completed_by, "{unit:?}");
        assert!(unit.completed_by <= self.now, "{unit:?}");
        assert!(
            !(unit.damaged && self.limits.damaged == Damaged::Drop),
            "{unit:?}"
        );
        assert!(!unit.undecodable || unit.damaged, "{unit:?}");
        // One more datagram may be taken before it is noticed.
        let bound = self.limits.max_frame_size.max(1_000) + 2 * MAX_PAYLOAD;
        assert!(unit.bytes as usize <= bound, "{unit:?} is too large");
        self.bytes.clear();
        if self.pipeline.extract(unit, &self.ring, &mut self.bytes) {
            assert!(self.bytes.len() <= KEPT as usize * 2 * 1_536, "{unit:?}");
        }
    }

    fn check(&self) {
        let tracks = self.pipeline.tracks();
        assert!(tracks.len() <= self.limits.max_tracks.max(1));
        for (index, track) in tracks.iter().enumerate() {
            assert!(track.reorder_depth <= 16, "{track:?}");
            let sets = self.pipeline.parameter_sets(index as u16);
            assert!(sets.len() <= MAX_PARAMETER_SETS, "{} bytes", sets.len());
        }
        let c = self.pipeline.counters();
        assert!(c.units_damaged <= c.units, "{c:?}");
        assert_eq!(c.units, self.units, "{c:?}");
        let _ = (self.pipeline.tr101290(), self.pipeline.container());
        let _ = (
            self.pipeline.clocks().count(),
            self.pipeline.tracks_version(),
        );
    }
}

/// Reads an input byte by byte.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// As many of `length` bytes as are left.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
