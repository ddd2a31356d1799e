//! The receiving half of a connection: data packets into the ring, losses, acknowledgements and
//! timed delivery (spec sections 9 to 13). Called by `Connection` for data packets, their
//! control packets and timers.
//!
//! Packets are named by their slot's index in the ring; the index of a sequence number follows
//! from its distance to the next expected one. What the ring refuses is not acknowledged.

use core::time::Duration;

use mirror_base::{Delivery, Discard, Instant, PacketSequenceNumber, SlotMeta, SlotRing};

use super::loss::{LossList, Range};
use super::rates::{ArrivalRate, LinkCapacity};
use super::rtt::{AckWindow, Confirmation, Rtt};
use super::tsbpd::TimeBase;
use crate::config::HEADERS_LEN;
use crate::packet::ack::FullAck;
use crate::packet::{Header, KK_MASK, MESSAGE_MASK, RETRANSMITTED};
use crate::statistics::Statistics;

/// Spec section 10.2: SYN interval.
const ACK_INTERVAL: Duration = Duration::from_millis(10);
/// Spec section 10.2: packets per light ACK, as a mask.
const LIGHT_ACK_MASK: u32 = 63;
/// Gaps whose first NAK is not written yet; more than these wait for the periodic NAK.
const MAX_FRESH: usize = 64;
const NOTHING: u64 = u64::MAX;

/// How packets are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryMode {
    /// Both sides agreed on TSBPD: else packets are released as soon as they are in order.
    pub(crate) timed: bool,
    /// Gaps are passed when the packet behind them is due (spec section 13).
    pub(crate) drop_too_late: bool,
}

/// Which NAK is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nak {
    None,
    /// The gaps just found.
    Fresh,
    /// The whole list.
    Whole,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The next number behind the highest one received, and its index.
    expected_seq: PacketSequenceNumber,
    expected: u64,
    /// Lowest index held, and when it may be released; `NOTHING` and never, when none is.
    head: u64,
    head_due: Instant,
    /// Everything below is delivered or given up.
    deliver: u64,
    held: u64,
    pending_lost: u32,
    discontinuity: bool,
    mode: DeliveryMode,
    finished: bool,
    pub(crate) time: TimeBase,
    rate: ArrivalRate,
    capacity: LinkCapacity,

    /// Next look at whether an ACK is due.
    pub(crate) ack_due: Instant,
    since_tick: u32,
    acked: u64,
    acked_at: Instant,
    confirmed: u64,
    announced_available: u32,
    /// When the ACK left that opened a closed window again, until it is confirmed.
    reopened_at: Option<Instant>,
    window: AckWindow,
    pub(crate) full_ack: Option<(FullAck, u64)>,
    pub(crate) light_ack: bool,

    loss: LossList,
    fresh: Vec<Range>,
    pub(crate) nak_due: Instant,
    pub(crate) nak: Nak,
    nak_starts: bool,

    flow_window: u32,
    /// The index that would continue a run of packets beyond the window.
    jump: Option<u64>,
}

impl Receiver {
    pub(crate) fn new(
        now: Instant,
        initial: PacketSequenceNumber,
        next_index: u64,
        time: TimeBase,
        mode: DeliveryMode,
        flow_window: u32,
    ) -> Self {
        Receiver {
            expected_seq: initial,
            expected: next_index,
            head: NOTHING,
            head_due: Instant::FAR_FUTURE,
            deliver: next_index,
            held: 0,
            pending_lost: 0,
            discontinuity: true,
            mode,
            finished: false,
            time,
            rate: ArrivalRate::new(now),
            capacity: LinkCapacity::new(),
            ack_due: Instant::FAR_FUTURE,
            since_tick: 0,
            acked: next_index,
            acked_at: now,
            confirmed: next_index,
            announced_available: u32::MAX,
            reopened_at: None,
            window: AckWindow::new(),
            full_ack: None,
            light_ack: false,
            loss: LossList::new(),
            fresh: Vec::with_capacity(MAX_FRESH),
            nak_due: Instant::FAR_FUTURE,
            nak: Nak::None,
            nak_starts: false,
            flow_window,
            jump: None,
        }
    }

    /// A data packet. In order it costs the ring's copy and a few stores.
    ///
    /// # Errors
    /// Why it was not taken.
    #[inline]
    pub(crate) fn data(
        &mut self,
        arrival: Instant,
        header: &Header,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        stats.pkt_recv += 1;
        let seq = PacketSequenceNumber::new(header.word0);
        let offset = self.expected_seq.distance_to(seq);
        if offset != 0 || header.word1 & KK_MASK != 0 || header.word1 & MESSAGE_MASK == 0 {
            return self.irregular(arrival, header, offset, payload, ring, stats);
        }
        let index = self.expected;
        let meta = SlotMeta::new(arrival, header.timestamp, (header.word1 >> 24) as u8);
        if let Err(reason) = ring.insert(index, payload, meta) {
            return Err(self.refused(index, reason, header, stats));
        }
        self.expected = index + 1;
        self.expected_seq = seq.next();
        self.probe(seq, arrival);
        self.accepted(index, arrival, header, payload.len(), stats);
        Ok(())
    }

    /// What every packet that found its place leaves behind.
    #[inline]
    fn accepted(
        &mut self,
        index: u64,
        arrival: Instant,
        header: &Header,
        len: usize,
        stats: &mut Statistics,
    ) {
        self.held += 1;
        stats.pkt_recv_unique += 1;
        let bytes = len as u64 + HEADERS_LEN;
        stats.byte_recv_unique += bytes;
        if header.word1 & RETRANSMITTED == 0 {
            self.rate.feed(arrival, bytes as u32);
        } else {
            stats.pkt_rcv_retrans += 1;
        }
        self.time.observe(header.timestamp, arrival);
        if index < self.head {
            self.set_head(index, header.timestamp, arrival);
        }
        self.count_for_ack(arrival);
    }

    #[inline]
    fn count_for_ack(&mut self, arrival: Instant) {
        self.since_tick += 1;
        if self.since_tick & LIGHT_ACK_MASK == 0 {
            self.light_ack = true;
        }
        if self.ack_due == Instant::FAR_FUTURE {
            self.ack_due = arrival + ACK_INTERVAL;
        }
    }

    /// Spec section 10.5: pairs of packets whose number modulo 16 is 0 and 1.
    #[inline]
    fn probe(&mut self, seq: PacketSequenceNumber, arrival: Instant) {
        match seq.get() & 15 {
            0 => self.capacity.first(arrival),
            1 => self.capacity.second(arrival),
            _ => {}
        }
    }

    /// Everything but the next clear packet in order.
    #[cold]
    fn irregular(
        &mut self,
        arrival: Instant,
        header: &Header,
        offset: i32,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        // Message number 0 marks a packet of the packet filter, which was not agreed; KK = 11
        // never stands in data (spec section 1.1).
        if header.word1 & MESSAGE_MASK == 0 || header.word1 & KK_MASK == KK_MASK {
            stats.pkt_rcv_refused += 1;
            return Err(Discard::MalformedData);
        }
        if offset >= 0 {
            self.ahead(arrival, header, offset.unsigned_abs(), payload, ring, stats)
        } else {
            self.behind(arrival, header, offset.unsigned_abs(), payload, ring, stats)
        }
    }

    /// A packet `offset` numbers beyond the expected one.
    fn ahead(
        &mut self,
        arrival: Instant,
        header: &Header,
        offset: u32,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        let seq = PacketSequenceNumber::new(header.word0);
        let mut index = self.expected + u64::from(offset);
        // Spec section 22: a gap must lie within the receive buffer.
        let mut placed = if offset >= self.flow_window || (offset > 0 && self.loss.is_full()) {
            Err(Discard::BeyondWindow)
        } else {
            self.place(index, arrival, header, payload, ring)
        };
        if placed == Err(Discard::BeyondWindow) && self.may_jump(index) {
            self.jump_to(index, seq, ring, stats);
            index = self.expected;
            placed = self.place(index, arrival, header, payload, ring);
        }
        let stored = match placed {
            Ok(stored) => stored,
            Err(reason) => return Err(self.refused(index, reason, header, stats)),
        };
        self.jump = None;
        if index > self.expected {
            self.lost(
                arrival,
                Range {
                    first: self.expected,
                    last: index - 1,
                },
                stats,
            );
            self.capacity.interrupt();
        }
        self.expected = index + 1;
        self.expected_seq = seq.next();
        if self.expected_seq.get() & 15 == 1 {
            self.capacity.first(arrival);
        }
        self.finish_irregular(stored, index, arrival, header, payload.len(), stats)
    }

    /// A packet `offset` numbers before the expected one: it fills a gap, or is a repetition.
    fn behind(
        &mut self,
        arrival: Instant,
        header: &Header,
        offset: u32,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        let index = match self.expected.checked_sub(u64::from(offset)) {
            Some(index) if index >= self.deliver => index,
            _ => {
                stats.pkt_rcv_belated += 1;
                self.note_retransmission(header, stats);
                return Err(Discard::Belated);
            }
        };
        let stored = match self.place(index, arrival, header, payload, ring) {
            Ok(stored) => stored,
            Err(reason) => return Err(self.refused(index, reason, header, stats)),
        };
        let was_missing = self.loss.remove(index);
        if was_missing && header.word1 & RETRANSMITTED == 0 {
            stats.pkt_rcv_reordered += 1;
        }
        self.finish_irregular(stored, index, arrival, header, payload.len(), stats)
    }

    /// Puts the packet into its slot; `false` when it stays outside because it cannot be
    /// decrypted: its place counts as received, and is skipped at delivery.
    fn place(
        &mut self,
        index: u64,
        arrival: Instant,
        header: &Header,
        payload: &[u8],
        ring: &mut SlotRing,
    ) -> Result<bool, Discard> {
        if header.word1 & KK_MASK != 0 {
            // No key was agreed on this connection. The ring does not bound what takes no slot.
            if index - self.deliver >= self.span() {
                return Err(Discard::BeyondWindow);
            }
            return if ring.is_filled(index) {
                Err(Discard::Duplicate)
            } else {
                Ok(false)
            };
        }
        let meta = SlotMeta::new(arrival, header.timestamp, (header.word1 >> 24) as u8);
        ring.insert(index, payload, meta).map(|()| true)
    }

    fn finish_irregular(
        &mut self,
        stored: bool,
        index: u64,
        arrival: Instant,
        header: &Header,
        len: usize,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        if stored {
            self.accepted(index, arrival, header, len, stats);
            return Ok(());
        }
        self.note_retransmission(header, stats);
        stats.pkt_rcv_undecrypt += 1;
        self.time.observe(header.timestamp, arrival);
        self.count_for_ack(arrival);
        self.pass_nothing(stats);
        Err(Discard::Undecryptable)
    }

    fn note_retransmission(&self, header: &Header, stats: &mut Statistics) {
        stats.pkt_rcv_retrans += u64::from(header.word1 & RETRANSMITTED != 0);
    }

    #[cold]
    fn refused(
        &mut self,
        index: u64,
        reason: Discard,
        header: &Header,
        stats: &mut Statistics,
    ) -> Discard {
        self.note_retransmission(header, stats);
        match reason {
            Discard::Duplicate => stats.pkt_rcv_duplicate += 1,
            Discard::Belated => stats.pkt_rcv_belated += 1,
            _ => stats.pkt_rcv_refused += 1,
        }
        if reason == Discard::BeyondWindow {
            self.jump = Some(index + 1);
        }
        reason
    }

    /// Whether the receiver follows a jump beyond its window: nothing is held, and this is the
    /// second packet in a row there. libsrt breaks the connection (spec section 9); a sender
    /// that was cut off for longer than a window needs no new one here, and one forged packet
    /// moves nothing.
    fn may_jump(&self, index: u64) -> bool {
        self.head == NOTHING && self.mode.drop_too_late && self.jump == Some(index)
    }

    fn jump_to(
        &mut self,
        index: u64,
        seq: PacketSequenceNumber,
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) {
        stats.pkt_rcv_loss += index - self.expected;
        self.give_up_before(index, stats);
        self.expected = index;
        self.expected_seq = seq;
        ring.release_before(index);
    }

    /// Spec section 11.2: numbers between are lost; a NAK for exactly them goes out at once.
    fn lost(&mut self, now: Instant, gap: Range, stats: &mut Statistics) {
        stats.pkt_rcv_loss += gap.last - gap.first + 1;
        self.loss.insert(gap.first, gap.last);
        if self.fresh.len() < MAX_FRESH {
            self.fresh.push(gap);
        }
        if self.nak == Nak::None {
            self.nak = Nak::Fresh;
        }
        if self.nak_due == Instant::FAR_FUTURE {
            // Set to the interval of section 11.3 when the first NAK leaves.
            self.nak_due = now + Duration::from_millis(20);
            self.nak_starts = true;
        }
    }

    /// The index's number: both run side by side, one wraps.
    #[inline]
    pub(crate) fn seq_of(&self, index: u64) -> PacketSequenceNumber {
        // 2^32 is a multiple of 2^31: the truncated distance is enough.
        self.expected_seq
            .plus(index.wrapping_sub(self.expected) as u32)
    }

    /// Everything before it has been received or given up (spec section 10).
    fn ack_position(&self) -> u64 {
        self.loss.first().unwrap_or(self.expected)
    }

    /// Timers: decides whether an ACK and a NAK are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, rtt: &Rtt, ring: &SlotRing) {
        if now >= self.ack_due {
            self.ack_tick(now, rtt, ring);
        }
        if now >= self.nak_due {
            self.nak_tick(now, rtt);
        }
    }

    /// Spec section 10.2.
    fn ack_tick(&mut self, now: Instant, rtt: &Rtt, ring: &SlotRing) {
        let progress = self.since_tick > 0;
        self.since_tick = 0;
        let position = self.ack_position();
        let repeat_at = self.acked_at + rtt.timeout().max(ACK_INTERVAL);
        let available = self.available(ring);
        let unconfirmed = position > self.confirmed || self.reopened_at.is_some();
        let due = position > self.acked
            || (unconfirmed && now >= repeat_at)
            // A sender that was stopped by a closed window must learn that it is open again.
            || (self.announced_available == 0 && available > 0);
        if due {
            self.full_ack = Some((self.compose_ack(position, rtt, available), position));
        }
        self.ack_due = if progress || due || self.announced_available == 0 {
            now + ACK_INTERVAL
        } else if unconfirmed {
            repeat_at.max(now + ACK_INTERVAL)
        } else {
            Instant::FAR_FUTURE
        };
    }

    fn available(&self, ring: &SlotRing) -> u32 {
        u32::try_from(ring.available_slots())
            .unwrap_or(u32::MAX)
            .min(self.flow_window)
    }

    fn compose_ack(&self, position: u64, rtt: &Rtt, available: u32) -> FullAck {
        let (rate_pps, rate_bytes) = self.rate.rates();
        FullAck {
            sequence: self.seq_of(position),
            rtt_us: rtt.smoothed_us,
            rtt_var_us: rtt.variance_us,
            available,
            rate_pps,
            capacity_pps: self.capacity.capacity_pps(),
            rate_bytes,
        }
    }

    /// The full ACK leaves now: returns its number.
    pub(crate) fn note_full_ack(&mut self, now: Instant, ack: &FullAck, position: u64) -> u32 {
        self.acked = position;
        self.acked_at = now;
        if self.announced_available == 0 && ack.available > 0 {
            self.reopened_at = Some(now);
        }
        self.announced_available = ack.available;
        self.window.record(position, now)
    }

    /// The sequence number of a light ACK.
    pub(crate) fn light_ack_sequence(&self) -> PacketSequenceNumber {
        self.seq_of(self.ack_position())
    }

    /// Spec section 11.3.
    fn nak_tick(&mut self, now: Instant, rtt: &Rtt) {
        if self.loss.is_empty() {
            self.nak_due = Instant::FAR_FUTURE;
            return;
        }
        self.nak = Nak::Whole;
        self.nak_due = now + rtt.nak_interval();
    }

    /// A NAK has left. The first one starts the interval of the periodic ones, and only those
    /// continue it: new gaps must not put off the repetition of old ones.
    pub(crate) fn note_nak(&mut self, now: Instant, rtt: &Rtt) {
        if self.nak == Nak::Whole || self.nak_starts {
            self.nak_due = now + rtt.nak_interval();
            self.nak_starts = false;
        }
        self.nak = Nak::None;
        self.fresh.clear();
    }

    /// The ranges to report. Gaps that were repaired since they were found are left out.
    pub(crate) fn nak_ranges(
        &self,
    ) -> impl Iterator<Item = (PacketSequenceNumber, PacketSequenceNumber)> + '_ {
        let whole = (self.nak == Nak::Whole).then(|| self.loss.iter());
        let fresh = (self.nak == Nak::Fresh).then(|| {
            self.fresh
                .iter()
                .flat_map(|gap| self.loss.within(gap.first, gap.last))
        });
        whole
            .into_iter()
            .flatten()
            .chain(fresh.into_iter().flatten())
            .map(|range| (self.seq_of(range.first), self.seq_of(range.last)))
    }

    /// An ACKACK (spec section 10.4): a sample of the RTT and of the drift.
    pub(crate) fn ackack(
        &mut self,
        arrival: Instant,
        header: &Header,
        rtt: &mut Rtt,
        ring: &SlotRing,
    ) -> Result<(), Discard> {
        match self.window.confirm(header.word1) {
            Confirmation::Unknown => Err(Discard::Implausible),
            Confirmation::Forgotten => Ok(()),
            Confirmation::Found(sent, position) => {
                self.confirmed = self.confirmed.max(position);
                self.reopened_at = self.reopened_at.filter(|&at| at > sent);
                let sample = i64::from(rtt.sample(arrival.micros_since(sent)));
                let excess = (sample - i64::from(rtt.first_us.unwrap_or(0))) / 2;
                if self.time.sample_drift(arrival, header.timestamp, excess) {
                    self.refresh_head(ring);
                }
                Ok(())
            }
        }
    }

    /// DROPREQ (spec section 11.6): the sender no longer has `first..=last`.
    pub(crate) fn drop_request(
        &mut self,
        now: Instant,
        first: PacketSequenceNumber,
        last: PacketSequenceNumber,
        ring: &SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        if last.is_before(first) {
            return Err(Discard::MalformedControl);
        }
        let from = i64::from(self.expected_seq.distance_to(first));
        let to = i64::from(self.expected_seq.distance_to(last));
        let index = |offset: i64| self.expected.saturating_add_signed(offset);
        let (first, last) = (index(from).max(self.deliver), index(to));
        // Spec section 22: it must lie within the receive buffer, also after many of them.
        let beyond = to >= i64::from(self.flow_window) || last > self.deliver + self.span();
        if beyond || to < from {
            return Err(Discard::Implausible);
        }
        self.loss.remove_range(first, last);
        if from <= 0 && to >= 0 {
            self.expected_seq = self.seq_of(last).next();
            self.expected = last + 1;
            self.capacity.interrupt();
        }
        self.progress(now);
        self.pass_nothing(stats);
        self.refresh_head(ring);
        Ok(())
    }

    /// The most that may lie between the packet to be delivered next and the highest one.
    fn span(&self) -> u64 {
        2 * u64::from(self.flow_window)
    }

    /// The ACK position may have moved without a packet.
    fn progress(&mut self, now: Instant) {
        self.ack_due = self.ack_due.min(now + ACK_INTERVAL);
    }

    /// When nothing is held and nothing is awaited, what was given up needs no packet behind it
    /// to be passed.
    fn pass_nothing(&mut self, stats: &mut Statistics) {
        if self.head == NOTHING && self.loss.is_empty() {
            self.give_up_before(self.expected, stats);
        }
    }

    /// Everything below `index` that was not delivered is given up.
    fn give_up_before(&mut self, index: u64, stats: &mut Statistics) {
        let count = index.saturating_sub(self.deliver);
        if count == 0 {
            return;
        }
        stats.pkt_rcv_drop += count;
        self.pending_lost = self
            .pending_lost
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.deliver = index;
        self.loss.remove_before(index);
    }

    /// No packet comes any more: nothing is acknowledged or asked for, gaps wait for nothing.
    pub(crate) fn stop(&mut self) {
        self.finished = true;
        self.loss.clear();
        self.fresh.clear();
        self.nak = Nak::None;
        self.full_ack = None;
        self.light_ack = false;
        self.ack_due = Instant::FAR_FUTURE;
        self.nak_due = Instant::FAR_FUTURE;
        if self.head != NOTHING && self.head_due == Instant::FAR_FUTURE {
            // It waited for a gap to be filled. Its own time is looked up when it is delivered.
            self.head_due = Instant::ZERO;
        }
    }

    /// Whether a control packet waits to be written.
    #[inline]
    pub(crate) fn has_to_transmit(&self) -> bool {
        self.light_ack || self.nak != Nak::None || self.full_ack.is_some()
    }

    /// When a timer or a delivery is due.
    #[inline]
    pub(crate) fn deadline(&self) -> Instant {
        self.head_due.min(self.ack_due).min(self.nak_due)
    }

    #[inline]
    fn set_head(&mut self, index: u64, timestamp: u32, arrival: Instant) {
        self.head = index;
        self.head_due = if index > self.deliver && !self.may_skip_to(index) {
            Instant::FAR_FUTURE
        } else if self.mode.timed {
            self.time.due(timestamp, arrival)
        } else {
            arrival
        };
    }

    fn may_skip_to(&self, index: u64) -> bool {
        (self.mode.timed && self.mode.drop_too_late)
            || self.finished
            || self.loss.first().is_none_or(|first| first > index)
    }

    /// Finds the lowest held index from `from` on. Each slot is looked at once: behind the
    /// found one nothing is searched until it is delivered.
    fn find_head(&mut self, from: u64, ring: &SlotRing) {
        self.head = NOTHING;
        self.head_due = Instant::FAR_FUTURE;
        // Nothing is held from the ring's end on, however far a drop request moved us.
        for index in from..self.expected.min(ring.end()) {
            if let Some(meta) = ring.meta(index) {
                self.set_head(index, meta.timestamp, meta.arrival);
                return;
            }
        }
    }

    fn refresh_head(&mut self, ring: &SlotRing) {
        if let Some(meta) = ring.meta(self.head) {
            self.set_head(self.head, meta.timestamp, meta.arrival);
        }
    }

    /// The next packet in order whose time has come.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        stats: &mut Statistics,
    ) -> Option<Delivery> {
        if now < self.head_due {
            return None;
        }
        self.deliver_head(now, ring, stats)
    }

    fn deliver_head(
        &mut self,
        now: Instant,
        ring: &SlotRing,
        stats: &mut Statistics,
    ) -> Option<Delivery> {
        while self.head != NOTHING && now >= self.head_due {
            let slot = self.head;
            self.held = self.held.saturating_sub(1);
            let Some(meta) = ring.meta(slot) else {
                // Someone emptied the slot: it is passed like a lost one.
                self.find_head(slot + 1, ring);
                continue;
            };
            if self.head_due == Instant::ZERO {
                // The time was not known when the connection ended.
                self.set_head(slot, meta.timestamp, meta.arrival);
                self.head_due = self.head_due.max(Instant::from_nanos(1));
                self.held += 1;
                continue;
            }
            if slot > self.deliver {
                // Spec section 13: the gap is skipped; the next ACK moves past it.
                self.give_up_before(slot, stats);
                self.progress(now);
            }
            let delivery = Delivery {
                slot,
                arrival: meta.arrival,
                due: self.head_due,
                lost_before: core::mem::take(&mut self.pending_lost),
                discontinuity: core::mem::take(&mut self.discontinuity),
            };
            self.deliver = slot + 1;
            stats.pkt_delivered += 1;
            self.find_head(slot + 1, ring);
            return Some(delivery);
        }
        None
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

    /// Figures of the moment.
    pub(crate) fn fill(&self, stats: &mut Statistics) {
        stats.pkt_rcv_buf = self.held;
        stats.drift_us = self.time.drift_us();
        let (pps, bytes) = self.rate.rates();
        stats.recv_rate_pps = pps;
        stats.recv_rate_bytes = bytes;
        if stats.pkt_recv_unique > 0 {
            stats.link_capacity_pps = self.capacity.capacity_pps();
        }
    }
}
