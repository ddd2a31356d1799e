//! The receiving half of a connection (spec sections 9 to 13). Called by `Connection`. Here:
//! data packets into the ring, and what is missing among them; `feedback` tells the peer,
//! `delivery` releases in time; `plain` is the short way of the usual packet.
//!
//! Packets are named by their slot's index in the ring; the index of a sequence number follows
//! from its distance to the next expected one. What the ring refuses is not acknowledged.
//!
//! Live mode knows only messages of one packet. The position bits are not looked at: parts of a
//! longer message are delivered as they come, in order, since the parts of a transport stream that
//! arrived are worth more than none.

mod delivery;
mod feedback;
mod plain;
mod reorder;
mod sealed;

pub use plain::{is_plain, may_be_usual};

use core::time::Duration;

use mirror_base::{Discard, Instant, PacketSequenceNumber, SlotMeta, SlotRing};

use super::loss::{LossList, Range};
use super::rates::{ArrivalRate, LinkCapacity};
use super::rtt::AckWindow;
use super::tsbpd::TimeBase;
use crate::config::HEADERS_LEN;
use crate::crypto::ReceiveKeys;
use crate::packet::ack::FullAck;
use crate::packet::{Header, KK_MASK, RETRANSMITTED};
use crate::statistics::Statistics;
use reorder::Reorder;

/// Spec section 10.2: SYN interval.
const ACK_INTERVAL: Duration = Duration::from_millis(10);
/// Spec section 11.3: periodic NAKs come at intervals of at least 20 ms. Where the latency is so
/// short that few of them would fit into it they may come closer: on a short path there is time
/// for more repairs, and the sender itself keeps from answering twice within a round trip.
const NAK_FLOOR: Duration = Duration::from_millis(20);
const NAK_FLOOR_LEAST: Duration = Duration::from_millis(2);
const NAKS_IN_LATENCY: u32 = 5;
/// Nothing is acknowledged, and so no round trip measured, while the very first packet is missing:
/// its repair is then asked for so often within the latency, which is meant to be four round
/// trips long.
const TRIES_UNMEASURED: u32 = 4;
/// Where more than so many packets come between two ACKs, which is as many as a rate is the mean of,
/// rates are worked out no more often than this: then they change little meanwhile.
const RATES_PACKETS: u64 = 16;
const RATES_INTERVAL: Duration = Duration::from_millis(100);
/// Spec section 10.2: packets per light ACK.
const LIGHT_ACK_EACH: u64 = 64;
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

const fn base(seq: PacketSequenceNumber, index: u64) -> u32 {
    seq.get().wrapping_sub(index as u32)
}

/// Whether a packet is here and was sent but once.
#[inline]
pub(crate) const fn is_original(meta: &SlotMeta) -> bool {
    meta.is_filled() && meta.flags & (RETRANSMITTED >> 24) as u8 == 0
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// When the datagram at hand was taken: set before each call of [`Receiver::data`].
    pub(crate) now: Instant,
    /// The index behind the highest one received.
    expected: u64,
    /// What an index's last bits and this add up to is its number's.
    seq_base: u32,
    /// Lowest index held, and when it may be released; `NOTHING` and never, when none is.
    head: u64,
    head_due: Instant,
    /// Of the slot at `head`.
    head_arrival: Instant,
    head_handled_after_ns: u32,
    /// A deadline may have come nearer, or something is to be transmitted, since the owner last
    /// looked: see [`Connection::needs_look`](crate::Connection::needs_look).
    pub(crate) moved: bool,
    /// Everything below is delivered or given up.
    deliver: u64,
    pending_lost: u32,
    discontinuity: bool,
    mode: DeliveryMode,
    finished: bool,
    pub(crate) time: TimeBase,
    rate: ArrivalRate,
    capacity: LinkCapacity,
    /// When an ACK tells new ones.
    rates_due: Instant,

    /// Next look at whether an ACK is due.
    pub(crate) ack_due: Instant,
    /// Packets that found their place are counted by what lies between this and `expected`
    /// ([`Receiver::received`]): the next one in order costs no counting. `attention` is the
    /// count that makes something due: a light ACK, or a gap that has waited long enough.
    received_from: u64,
    attention: u64,
    /// Of those, how many took no slot.
    unplaced: u64,
    /// Of those that did, without headers.
    payload_bytes: u64,
    /// Up to these indexes the next packet in order makes nothing due ([`Receiver::take_plain`],
    /// [`Receiver::take_sealed`]).
    plain_until: u64,
    sealed_until: u64,
    /// Everything goes the long way.
    #[cfg(test)]
    pub(crate) never_plain: bool,
    light_at: u64,
    /// The count at the last look at whether an ACK is due.
    received_at_tick: u64,
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
    reorder: Reorder,
    pub(crate) nak_due: Instant,
    /// The shortest interval of periodic NAKs.
    nak_floor: Duration,
    nak_unmeasured: Duration,
    pub(crate) nak: Nak,
    nak_starts: bool,

    flow_window: u32,
    /// The index that would continue a run of packets beyond the window.
    jump: Option<u64>,

    /// The connection is encrypted.
    keys: Option<Box<ReceiveKeys>>,
    /// The key bits of the last packet; 0 without keys.
    usual_kk: u32,
}

impl Receiver {
    pub(crate) fn new(
        now: Instant,
        initial: PacketSequenceNumber,
        next_index: u64,
        time: TimeBase,
        mode: DeliveryMode,
        flow_window: u32,
        loss_max_ttl: u32,
    ) -> Self {
        let reorder = Reorder::new(loss_max_ttl.min(flow_window));
        let time_to_repair = time.delay();
        let nak_floor = (time_to_repair / NAKS_IN_LATENCY).clamp(NAK_FLOOR_LEAST, NAK_FLOOR);
        Receiver {
            now,
            expected: next_index,
            seq_base: base(initial, next_index),
            head: NOTHING,
            head_due: Instant::FAR_FUTURE,
            head_arrival: Instant::ZERO,
            head_handled_after_ns: 0,
            moved: true,
            deliver: next_index,
            pending_lost: 0,
            discontinuity: true,
            mode,
            finished: false,
            time,
            rate: ArrivalRate::new(now, next_index),
            capacity: LinkCapacity::new(next_index),
            rates_due: now,
            ack_due: Instant::FAR_FUTURE,
            received_from: next_index,
            unplaced: 0,
            payload_bytes: 0,
            plain_until: 0,
            sealed_until: 0,
            #[cfg(test)]
            never_plain: false,
            attention: LIGHT_ACK_EACH.min(reorder.attention()),
            light_at: LIGHT_ACK_EACH,
            received_at_tick: 0,
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
            reorder,
            nak_due: Instant::FAR_FUTURE,
            nak_floor,
            nak_unmeasured: match time_to_repair / TRIES_UNMEASURED {
                Duration::ZERO => Duration::MAX,
                interval => interval,
            },
            nak: Nak::None,
            nak_starts: false,
            flow_window,
            jump: None,
            keys: None,
            usual_kk: 0,
        }
    }

    /// Packets that found their place.
    pub(super) const fn received(&self) -> u64 {
        self.expected.wrapping_sub(self.received_from)
    }

    /// The next number that is expected is another, though no packet is counted.
    fn expect(&mut self, index: u64, seq: PacketSequenceNumber) {
        let by = index.wrapping_sub(self.expected);
        self.received_from = self.received_from.wrapping_add(by);
        self.expected = index;
        self.seq_base = base(seq, index);
        self.forbid_plain();
    }

    /// The figures that are counted by indexes.
    pub(crate) fn fill_counts(&self, stats: &mut Statistics) {
        stats.pkt_recv_unique = self.received() - self.unplaced;
        stats.byte_recv_unique = self.payload_bytes + stats.pkt_recv_unique * HEADERS_LEN;
    }

    /// Whether nothing has been received yet.
    pub(crate) const fn is_unused(&self) -> bool {
        self.received() == self.unplaced
    }

    /// A data packet.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(crate) fn data(
        &mut self,
        arrival: Instant,
        header: &Header,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        let outcome = self.any_data(arrival, header, payload, ring, stats);
        self.renew_plain(arrival);
        outcome
    }

    #[inline(always)]
    fn any_data(
        &mut self,
        arrival: Instant,
        header: &Header,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        let seq = PacketSequenceNumber::new(header.word0);
        let kk = header.word1 & KK_MASK;
        if seq != self.expected_seq() || kk != self.usual_kk {
            let offset = self.expected_seq().distance_to(seq);
            return self.irregular(arrival, *header, offset, payload, ring, stats);
        }
        let index = self.expected;
        let stored = if kk == 0 {
            let meta = self.meta(arrival, header);
            ring.insert(index, payload, meta).map(|()| payload.len())
        } else {
            self.store_sealed(index, arrival, header, payload, ring)
        };
        let len = match stored {
            Ok(len) => len,
            Err(reason) => return Err(self.refused(index, reason, *header, payload.len(), stats)),
        };
        self.expect(index + 1, seq.next());
        self.accepted(index, arrival, header, len, stats);
        Ok(())
    }

    #[inline]
    fn meta(&self, arrival: Instant, header: &Header) -> SlotMeta {
        SlotMeta::new(arrival, header.timestamp, (header.word1 >> 24) as u8).handled_at(self.now)
    }

    /// What every packet that found its place leaves behind.
    #[inline(always)]
    fn accepted(
        &mut self,
        index: u64,
        arrival: Instant,
        header: &Header,
        len: usize,
        stats: &mut Statistics,
    ) {
        self.payload_bytes += len as u64;
        self.note_retransmission(header, stats);
        self.time.observe(header.timestamp, arrival);
        if index < self.head {
            let meta = SlotMeta::new(arrival, header.timestamp, 0).handled_at(self.now);
            self.set_head(index, &meta);
        }
        self.count_for_ack(arrival);
    }

    #[inline]
    fn count_for_ack(&mut self, arrival: Instant) {
        self.received_from = self.received_from.wrapping_sub(1);
        if self.received() >= self.attention {
            self.attend(arrival);
        }
        // Not due at all, or only for the repetition of an ACK that was not confirmed.
        if self.ack_due > arrival + ACK_INTERVAL {
            self.moved = true;
            self.ack_due = arrival + ACK_INTERVAL;
        }
    }

    /// Counting packets has made something due.
    #[cold]
    fn attend(&mut self, now: Instant) {
        self.moved = true;
        let received = self.received();
        if received >= self.light_at {
            self.light_ack = true;
            self.light_at += LIGHT_ACK_EACH;
        }
        self.reorder.settle(received);
        while let Some(gap) = self.reorder.next_due(received) {
            if self.loss.within(gap.first, gap.last).next().is_some() {
                self.report(now, gap);
            }
        }
        self.attention = self.light_at.min(self.reorder.attention());
    }

    /// Everything but the next clear packet in order.
    #[cold]
    fn irregular(
        &mut self,
        arrival: Instant,
        header: Header,
        offset: i32,
        payload: &[u8],
        ring: &mut SlotRing,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        // A repair brings no deadline nearer, but that of its own release, which says so.
        self.moved |= offset >= 0 || header.word1 & KK_MASK != self.usual_kk;
        // KK = 11 never stands in data (spec section 1.1). Message number 0 is a packet filter's
        // mark where one was agreed, which never happens here: srt-tokio 0.4 counts from it.
        if header.word1 & KK_MASK == KK_MASK {
            stats.pkt_rcv_refused += 1;
            stats.byte_rcv_refused += payload.len() as u64 + HEADERS_LEN;
            return Err(Discard::MalformedData);
        }
        if offset >= 0 {
            self.ahead(
                arrival,
                &header,
                offset.unsigned_abs(),
                payload,
                ring,
                stats,
            )
        } else {
            self.behind(
                arrival,
                &header,
                offset.unsigned_abs(),
                payload,
                ring,
                stats,
            )
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
        if placed == Err(Discard::BeyondWindow)
            && self.may_jump(index)
            && self.can_read(header, payload)
        {
            self.jump_to(index, seq, ring, stats);
            index = self.expected;
            placed = self.place(index, arrival, header, payload, ring);
        }
        let stored = match placed {
            Ok(stored) => stored,
            Err(reason) => return Err(self.refused(index, reason, *header, payload.len(), stats)),
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
        }
        self.expect(index + 1, seq.next());
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
                self.note_belated(arrival, header, payload.len(), stats);
                return Err(Discard::Belated);
            }
        };
        let stored = match self.place(index, arrival, header, payload, ring) {
            Ok(stored) => stored,
            Err(reason) => return Err(self.refused(index, reason, *header, payload.len(), stats)),
        };
        let original = header.word1 & RETRANSMITTED == 0;
        // Counted as the next packet, as it will be.
        let count = self.received() + 1;
        // The highest number received lies one before the expected one.
        self.reorder.filled(index, offset - 1, original, count);
        self.attention = self.light_at.min(self.reorder.attention());
        if self.loss.remove(index) && original {
            stats.pkt_rcv_reordered += 1;
        }
        self.finish_irregular(stored, index, arrival, header, payload.len(), stats)
    }

    /// Puts the packet into its slot, decrypted; returns the payload's length, or `None` when it
    /// stays outside because there are no keys at all: its place counts as received, and is
    /// skipped at delivery (spec section 16.7).
    fn place(
        &mut self,
        index: u64,
        arrival: Instant,
        header: &Header,
        payload: &[u8],
        ring: &mut SlotRing,
    ) -> Result<Option<usize>, Discard> {
        if self.keys.is_some() {
            let changes = header.word1 & KK_MASK != self.usual_kk;
            if changes {
                self.change_keys(arrival, header)?;
            }
            let len = self.store_sealed(index, arrival, header, payload, ring)?;
            if changes {
                self.keys_changed(arrival, header);
            }
            return Ok(Some(len));
        }
        if header.word1 & KK_MASK != 0 {
            // No key was agreed on this connection. The ring does not bound what takes no slot.
            if index - self.deliver >= self.span() {
                return Err(Discard::BeyondWindow);
            }
            return if ring.is_filled(index) {
                Err(Discard::Duplicate)
            } else {
                Ok(None)
            };
        }
        let meta = self.meta(arrival, header);
        ring.insert(index, payload, meta)
            .map(|()| Some(payload.len()))
    }

    fn finish_irregular(
        &mut self,
        stored: Option<usize>,
        index: u64,
        arrival: Instant,
        header: &Header,
        len: usize,
        stats: &mut Statistics,
    ) -> Result<(), Discard> {
        if let Some(len) = stored {
            self.accepted(index, arrival, header, len, stats);
            return Ok(());
        }
        self.moved = true;
        self.note_retransmission(header, stats);
        self.unplaced += 1;
        stats.pkt_rcv_undecrypt += 1;
        stats.byte_rcv_undecrypt += len as u64;
        self.time.observe(header.timestamp, arrival);
        self.count_for_ack(arrival);
        self.pass_nothing(stats);
        Err(Discard::Undecryptable)
    }

    fn note_retransmission(&self, header: &Header, stats: &mut Statistics) {
        stats.pkt_rcv_retrans += u64::from(header.word1 & RETRANSMITTED != 0);
    }

    /// A packet came after its place was delivered or skipped.
    fn note_belated(&self, arrival: Instant, header: &Header, len: usize, stats: &mut Statistics) {
        self.note_retransmission(header, stats);
        stats.pkt_rcv_belated += 1;
        stats.byte_rcv_belated += len as u64 + HEADERS_LEN;
        let late = arrival.micros_since(self.time.due(header.timestamp, arrival));
        // libsrt's smoothing; the first one counts in full.
        stats.rcv_belated_us = if stats.pkt_rcv_belated == 1 {
            late
        } else {
            (4 * stats.rcv_belated_us + late.min(u64::MAX / 8)) / 5
        };
    }

    #[cold]
    fn refused(
        &mut self,
        index: u64,
        reason: Discard,
        header: Header,
        len: usize,
        stats: &mut Statistics,
    ) -> Discard {
        let bytes = len as u64 + HEADERS_LEN;
        self.note_retransmission(&header, stats);
        let (packets, sum) = match reason {
            Discard::Duplicate => (&mut stats.pkt_rcv_duplicate, &mut stats.byte_rcv_duplicate),
            Discard::Belated => (&mut stats.pkt_rcv_belated, &mut stats.byte_rcv_belated),
            Discard::Undecryptable => {
                stats.pkt_rcv_undecrypt += 1;
                stats.byte_rcv_undecrypt += len as u64;
                return reason;
            }
            _ => (&mut stats.pkt_rcv_refused, &mut stats.byte_rcv_refused),
        };
        *packets += 1;
        *sum += bytes;
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
        self.fill_counts(stats);
        stats.pkt_rcv_loss += index - self.expected;
        stats.byte_rcv_loss += (index - self.expected) * stats.mean_packet();
        self.give_up_before(index, stats);
        self.expect(index, seq);
        ring.release_before(index);
    }

    /// Spec section 11.2: numbers between are lost; a NAK for exactly them goes out at once, or
    /// when as many packets more as are tolerated have not filled the gap.
    fn lost(&mut self, now: Instant, gap: Range, stats: &mut Statistics) {
        let count = gap.last - gap.first + 1;
        self.fill_counts(stats);
        stats.pkt_rcv_loss += count;
        stats.byte_rcv_loss += count * stats.mean_packet();
        self.loss.insert(gap.first, gap.last);
        if self.reorder.found(gap, self.received() + 1) {
            self.attention = self.light_at.min(self.reorder.attention());
            self.start_nak_timer(now);
        } else {
            self.report(now, gap);
        }
    }

    /// A NAK for the gap leaves as soon as something may.
    fn report(&mut self, now: Instant, gap: Range) {
        if self.fresh.len() < MAX_FRESH {
            self.fresh.push(gap);
        }
        if self.nak == Nak::None {
            self.nak = Nak::Fresh;
        }
        self.start_nak_timer(now);
    }

    fn start_nak_timer(&mut self, now: Instant) {
        if self.nak_due == Instant::FAR_FUTURE {
            // Set to the interval of section 11.3 when the first NAK leaves.
            self.nak_due = now + NAK_FLOOR;
            self.nak_starts = true;
        }
    }

    /// The index's number: both run side by side, one wraps.
    #[inline(always)]
    pub(crate) const fn seq_of(&self, index: u64) -> PacketSequenceNumber {
        // 2^32 is a multiple of 2^31: the last bits are enough.
        PacketSequenceNumber::new(self.seq_base.wrapping_add(index as u32))
    }

    /// The number behind the highest one received.
    #[inline(always)]
    const fn expected_seq(&self) -> PacketSequenceNumber {
        self.seq_of(self.expected)
    }

    /// The most that may lie between the packet to be delivered next and the highest one.
    fn span(&self) -> u64 {
        2 * u64::from(self.flow_window)
    }

    /// As if the peer had not agreed to too-late drop.
    #[cfg(test)]
    pub(crate) const fn never_drops(&mut self) {
        self.mode.drop_too_late = false;
    }

    /// No packet comes any more: nothing is acknowledged or asked for, gaps wait for nothing.
    pub(crate) fn stop(&mut self) {
        self.finished = true;
        self.loss.clear();
        self.fresh.clear();
        self.reorder.clear();
        self.nak = Nak::None;
        self.full_ack = None;
        self.light_ack = false;
        self.ack_due = Instant::FAR_FUTURE;
        self.nak_due = Instant::FAR_FUTURE;
        self.forbid_plain();
        if self.head != NOTHING && self.head_due == Instant::FAR_FUTURE {
            // It waited for a gap to be filled. Its own time is looked up when it is delivered.
            self.head_due = Instant::ZERO;
        }
    }

    /// When an ACK or a NAK is due.
    #[inline]
    pub(crate) fn feedback_due(&self) -> Instant {
        self.ack_due.min(self.nak_due)
    }

    /// Whether a data packet continues what was received: it is missing or comes next, within
    /// the window, and its timestamp is about the peer's present time. A peer that drops nothing
    /// may repeat what is of any age.
    pub(crate) fn continues(&self, arrival: Instant, header: &Header) -> bool {
        if header.word1 & KK_MASK == KK_MASK {
            return false;
        }
        let seq = PacketSequenceNumber::new(header.word0);
        let offset = i64::from(self.expected_seq().distance_to(seq));
        let comes_next = (0..i64::from(self.flow_window)).contains(&offset);
        let keeps_all = !self.mode.drop_too_late;
        (comes_next || self.misses(header))
            && self.time.is_present(header.timestamp, arrival, keeps_all)
    }

    /// Whether a data packet has been received, is not older than the packet `since`, and bears
    /// about the peer's present time.
    pub(crate) fn repeats(&self, arrival: Instant, header: &Header, since: u32) -> bool {
        let seq = PacketSequenceNumber::new(header.word0);
        let since = PacketSequenceNumber::new(since);
        since.distance_to(seq) >= 0
            && self.expected_seq().distance_to(seq) < 0
            && !self.misses(header)
            && self.time.is_present(header.timestamp, arrival, false)
    }

    /// The number expected next.
    pub(crate) const fn next_sequence(&self) -> u32 {
        self.expected_seq().get()
    }

    /// Whether a data packet is on the list of those that are missing.
    pub(crate) fn misses(&self, header: &Header) -> bool {
        let seq = PacketSequenceNumber::new(header.word0);
        let offset = i64::from(self.expected_seq().distance_to(seq));
        let index = self.expected.saturating_add_signed(offset);
        offset < 0 && index >= self.deliver && self.loss.within(index, index).next().is_some()
    }

    /// Figures of the moment. The newest packet held came when something was last heard, the
    /// oldest one `latency` before it is due.
    pub(crate) fn fill(&self, heard: Instant, latency: Duration, stats: &mut Statistics) {
        if self.head != NOTHING && self.head_due != Instant::FAR_FUTURE {
            stats.rcv_buf_us = (heard + latency).micros_since(self.head_due);
        }
        stats.pkt_reorder_distance = self.reorder.distance();
        stats.pkt_reorder_tolerance = self.reorder.tolerance();
        stats.pkt_rcv_available = if self.announced_available == u32::MAX {
            self.flow_window
        } else {
            self.announced_available
        };
        stats.drift_us = self.time.drift_us();
        (stats.recv_rate_pps, stats.recv_rate_bytes) = self.rate.latest();
        if !self.is_unused() {
            stats.link_capacity_pps = self.capacity.capacity_pps();
        }
    }
}
