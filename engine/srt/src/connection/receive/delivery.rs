//! Timed release in order, and the too-late rule that passes gaps (spec sections 12 and 13).
//! Called by `Connection` when the shard asks for deliveries; costs one comparison while nothing
//! is due.

use mirror_base::{Delivery, Instant, SlotMeta, SlotRing};

use super::{NOTHING, Receiver};
use crate::statistics::Statistics;

/// Not copied to where it is rarely called.
fn dynamic(each: &mut impl FnMut(&Delivery)) -> &mut dyn FnMut(&Delivery) {
    each
}

impl Receiver {
    /// When nothing is held and nothing is awaited, what was given up needs no packet behind it
    /// to be passed.
    pub(super) fn pass_nothing(&mut self, stats: &mut Statistics) {
        if self.head == NOTHING && self.loss.is_empty() {
            self.give_up_before(self.expected, stats);
        }
    }

    /// Everything below `index` that was not delivered is given up.
    pub(super) fn give_up_before(&mut self, index: u64, stats: &mut Statistics) {
        let count = index.saturating_sub(self.deliver);
        if count == 0 {
            return;
        }
        self.fill_counts(stats);
        stats.pkt_rcv_drop += count;
        stats.byte_rcv_drop += count * stats.mean_packet();
        self.pending_lost = self
            .pending_lost
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.deliver = index;
        self.loss.remove_before(index);
    }

    #[inline]
    pub(super) fn set_head(&mut self, index: u64, meta: &SlotMeta) {
        let (timestamp, arrival) = (meta.timestamp, meta.arrival);
        let due = if index > self.deliver && !self.may_skip_to(index) {
            Instant::FAR_FUTURE
        } else if self.mode.timed {
            self.time.due(timestamp, arrival)
        } else {
            arrival
        };
        self.note_head(index, meta, due);
    }

    #[inline]
    fn note_head(&mut self, index: u64, meta: &SlotMeta, due: Instant) {
        self.head = index;
        self.head_due = due;
        self.head_arrival = meta.arrival;
        self.head_handled_after_ns = meta.handled_after_ns;
        self.moved = true;
    }

    pub(super) fn may_skip_to(&self, index: u64) -> bool {
        (self.mode.timed && self.mode.drop_too_late)
            || self.finished
            || self.loss.first().is_none_or(|first| first > index)
    }

    /// Finds the lowest held index from `from` on. Each slot is looked at once: behind the
    /// found one nothing is searched until it is delivered.
    #[inline]
    pub(super) fn find_head(&mut self, from: u64, ring: &SlotRing) {
        if from < self.expected
            && let Some(meta) = ring.meta(from)
        {
            return self.set_head(from, meta);
        }
        self.search_head(from, ring);
    }

    #[inline(never)]
    fn search_head(&mut self, from: u64, ring: &SlotRing) {
        self.head = NOTHING;
        self.head_due = Instant::FAR_FUTURE;
        self.forbid_plain();
        // Nothing is held from the ring's end on, however far a drop request moved us.
        for index in from..self.expected.min(ring.end()) {
            if let Some(meta) = ring.meta(index) {
                self.set_head(index, meta);
                return;
            }
        }
    }

    pub(super) fn refresh_head(&mut self, ring: &SlotRing) {
        if let Some(meta) = ring.meta(self.head) {
            self.set_head(self.head, meta);
        }
    }

    /// The next packet in order whose time has come.
    #[inline(always)]
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        stats: &mut Statistics,
    ) -> Option<Delivery> {
        if now < self.head_due {
            return None;
        }
        // A gap before it, the connection's end, or nothing at all.
        if (self.head != self.deliver || self.head_due == Instant::ZERO)
            && !self.settle_head(now, ring, stats)
        {
            return None;
        }
        let delivery = self.take_head(self.head, stats);
        self.find_head(delivery.slot + 1, ring);
        Some(delivery)
    }

    /// All packets in order whose time has come, or `enough` of them and at most a chunk more;
    /// returns how many.
    #[inline(always)]
    pub(crate) fn deliver_each(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        stats: &mut Statistics,
        enough: usize,
        mut each: impl FnMut(&Delivery),
    ) -> usize {
        let mut delivered = 0;
        while now >= self.head_due && delivered < enough {
            let taken = self.deliver_run(now, ring, &mut each);
            stats.pkt_delivered += taken as u64;
            delivered += taken;
            // What is no run goes one by one.
            if taken == 0 {
                match self.deliver_one(now, ring, stats) {
                    Some(delivery) => dynamic(&mut each)(&delivery),
                    None => break,
                }
                delivered += 1;
            }
        }
        delivered
    }

    #[inline(never)]
    fn deliver_one(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        stats: &mut Statistics,
    ) -> Option<Delivery> {
        self.deliver(now, ring, stats)
    }

    /// A run of packets that follow each other in one chunk, nothing being missing before them.
    #[inline(always)]
    fn deliver_run(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        each: &mut impl FnMut(&Delivery),
    ) -> usize {
        let is_run = self.head == self.deliver
            && self.pending_lost == 0
            && !self.discontinuity
            && self.mode.timed;
        let Some(time) = self.time.straight().filter(|_| is_run) else {
            return 0;
        };
        let metas = ring.metas_from(self.head);
        let mut slot = self.head;
        for meta in metas {
            let due = time.due(meta.timestamp, meta.arrival);
            if !meta.is_filled() {
                break;
            }
            if now < due {
                let taken = slot - self.deliver;
                if taken > 0 {
                    self.deliver = slot;
                    self.note_head(slot, meta, due);
                }
                return taken as usize;
            }
            each(&Delivery {
                slot,
                arrival: meta.arrival,
                handled_after_ns: meta.handled_after_ns,
                due,
                lost_before: 0,
                discontinuity: false,
            });
            slot += 1;
        }
        let taken = slot - self.deliver;
        if taken > 0 {
            self.deliver = slot;
            self.find_head(slot, ring);
        }
        taken as usize
    }

    /// The head is delivered.
    #[inline]
    fn take_head(&mut self, slot: u64, stats: &mut Statistics) -> Delivery {
        self.deliver = slot + 1;
        stats.pkt_delivered += 1;
        Delivery {
            slot,
            arrival: self.head_arrival,
            handled_after_ns: self.head_handled_after_ns,
            due: self.head_due,
            lost_before: core::mem::take(&mut self.pending_lost),
            discontinuity: core::mem::take(&mut self.discontinuity),
        }
    }

    /// Passes what keeps the head from being the next one, if it may be passed. True when a
    /// packet can be delivered now.
    #[inline(never)]
    fn settle_head(&mut self, now: Instant, ring: &SlotRing, stats: &mut Statistics) -> bool {
        while self.head != NOTHING && now >= self.head_due {
            let slot = self.head;
            let Some(meta) = ring.meta(slot) else {
                // Someone emptied the slot: it is passed like a lost one.
                stats.pkt_rcv_emptied += 1;
                self.find_head(slot + 1, ring);
                continue;
            };
            if self.head_due == Instant::ZERO {
                // The time was not known when the connection ended.
                self.set_head(slot, meta);
                self.head_due = self.head_due.max(Instant::from_nanos(1));
                continue;
            }
            if slot > self.deliver {
                // Spec section 13: the gap is skipped; the next ACK moves past it.
                self.give_up_before(slot, stats);
                self.progress(now);
            }
            return true;
        }
        false
    }

    /// When the next packet may be released.
    #[inline]
    pub(crate) const fn delivery_due(&self) -> Instant {
        self.head_due
    }

    /// Everything before it is delivered or given up.
    #[inline]
    pub(crate) const fn delivery_index(&self) -> u64 {
        self.deliver
    }

    /// Packets given up since the last delivery.
    #[cfg(test)]
    pub(crate) const fn pending(&self) -> u32 {
        self.pending_lost
    }

    /// Whether no packet is held.
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == NOTHING
    }
}
