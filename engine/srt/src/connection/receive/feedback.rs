//! What the receiver tells its peer, and what the peer answers: ACK and ACKACK (spec section 10),
//! NAK (11.3), DROPREQ (11.6). Called by `Connection` for timers and control packets.

use core::time::Duration;

use mirror_base::{Discard, Instant, PacketSequenceNumber, SlotRing};

use super::{ACK_INTERVAL, LIGHT_ACK_EACH, Nak, RATES_INTERVAL, RATES_PACKETS, Receiver};
use crate::connection::loss::Range;
use crate::connection::rtt::{Confirmation, Rtt};
use crate::packet::Header;
use crate::packet::ack::FullAck;
use crate::statistics::Statistics;

impl Receiver {
    /// Everything before it has been received or given up (spec section 10).
    pub(super) fn ack_position(&self) -> u64 {
        self.loss.first().unwrap_or(self.expected)
    }

    /// Timers: decides whether an ACK and a NAK are due.
    #[inline]
    pub(crate) fn handle_timeout(&mut self, now: Instant, rtt: &Rtt, ring: &SlotRing) {
        if now >= self.ack_due {
            self.ack_tick(now, rtt, ring);
        }
        if now >= self.nak_due {
            self.nak_tick(now, rtt);
        }
    }

    /// Spec section 10.2.
    #[inline(never)]
    pub(super) fn ack_tick(&mut self, now: Instant, rtt: &Rtt, ring: &SlotRing) {
        let received = self.received();
        let came = received - self.received_at_tick;
        let progress = came > 0;
        self.received_at_tick = received;
        self.light_at = received + LIGHT_ACK_EACH;
        self.attention = self.light_at.min(self.reorder.attention());
        let position = self.ack_position();
        let repeat_at = self.acked_at + rtt.timeout().max(ACK_INTERVAL);
        let available = self.available(ring);
        let unconfirmed = position > self.confirmed || self.reopened_at.is_some();
        let due = position > self.acked
            || (unconfirmed && now >= repeat_at)
            // A sender that was stopped by a closed window must learn that it is open again.
            || (self.announced_available == 0 && available > 0);
        if due {
            if now >= self.rates_due || came <= RATES_PACKETS {
                self.rates_due = now + RATES_INTERVAL;
                self.capacity
                    .update(ring, self.expected, self.expected_seq());
                self.rate.update(ring, self.expected);
            }
            self.full_ack = Some((self.compose_ack(position, rtt, available), position));
        }
        self.ack_due = if progress || due || self.announced_available == 0 {
            now + ACK_INTERVAL
        } else if unconfirmed {
            repeat_at.max(now + ACK_INTERVAL)
        } else {
            Instant::FAR_FUTURE
        };
        self.renew_plain(now);
    }

    pub(super) fn available(&self, ring: &SlotRing) -> u32 {
        u32::try_from(ring.announced_slots())
            .unwrap_or(u32::MAX)
            .min(self.flow_window)
    }

    pub(super) fn compose_ack(&self, position: u64, rtt: &Rtt, available: u32) -> FullAck {
        let (rate_pps, rate_bytes) = self.rate.latest();
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
    pub(super) fn nak_tick(&mut self, now: Instant, rtt: &Rtt) {
        if self.loss.is_empty() {
            self.nak_due = Instant::FAR_FUTURE;
            return;
        }
        if core::mem::take(&mut self.nak_starts) && self.nak == Nak::None {
            // The gaps found so far may yet be closed by packets that were overtaken: nothing was
            // reported that is to be repeated.
            self.nak_due = now + self.nak_interval(rtt);
            return;
        }
        self.nak = Nak::Whole;
        self.nak_due = now + self.nak_interval(rtt);
    }

    fn nak_interval(&self, rtt: &Rtt) -> Duration {
        rtt.nak_interval(self.nak_floor, self.nak_unmeasured)
    }

    /// A NAK has left. The first one starts the interval of the periodic ones, and only those
    /// continue it: new gaps must not put off the repetition of old ones.
    pub(crate) fn note_nak(&mut self, now: Instant, rtt: &Rtt) {
        if self.nak == Nak::Whole || self.nak_starts {
            self.nak_due = now + self.nak_interval(rtt);
            self.nak_starts = false;
        }
        self.nak = Nak::None;
        self.fresh.clear();
    }

    /// The round-trip time is known better: no repetition waits longer than the interval that
    /// follows from it. Before the first sample that is 150 ms (spec sections 10.4, 11.3), longer
    /// than the usual latency: a repair lost in the first moments would never come.
    fn hasten_nak(&mut self, now: Instant, rtt: &Rtt) {
        if self.nak_due != Instant::FAR_FUTURE {
            self.nak_due = self.nak_due.min(now + self.nak_interval(rtt));
        }
    }

    /// Hands out the ranges to report, until one is not taken. Gaps that were repaired since they
    /// were found are left out. Plain loops: each loss comes by here.
    pub(crate) fn each_nak_range(
        &self,
        mut take: impl FnMut(PacketSequenceNumber, PacketSequenceNumber) -> bool,
    ) {
        let mut take = |range: Range| take(self.seq_of(range.first), self.seq_of(range.last));
        match self.nak {
            Nak::None => {}
            Nak::Whole => {
                let _ = self.loss.iter().all(take);
            }
            Nak::Fresh => {
                for gap in &self.fresh {
                    for range in self.loss.within(gap.first, gap.last) {
                        if !take(range) {
                            return;
                        }
                    }
                }
            }
        }
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
                let sample = i64::from(rtt.sample(arrival, arrival.micros_since(sent)));
                self.hasten_nak(arrival, rtt);
                let excess = (sample - i64::from(rtt.first_us.unwrap_or(0))) / 2;
                if self.time.sample_drift(arrival, header.timestamp, excess) {
                    self.refresh_head(ring);
                }
                Ok(())
            }
        }
    }

    /// A control packet's timestamp, for the turn of the peer's clock.
    pub(crate) fn follow_turn(&mut self, arrival: Instant, timestamp: u32, ring: &SlotRing) {
        if self.time.follow_turn(arrival, timestamp) {
            self.refresh_head(ring);
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
        let from = i64::from(self.expected_seq().distance_to(first));
        let to = i64::from(self.expected_seq().distance_to(last));
        let index = |offset: i64| self.expected.saturating_add_signed(offset);
        let (first, last) = (index(from).max(self.deliver), index(to));
        // Spec section 22: it must lie within the receive buffer, also after many of them.
        let beyond = to >= i64::from(self.flow_window) || last > self.deliver + self.span();
        if beyond || to < from {
            return Err(Discard::Implausible);
        }
        self.loss.remove_range(first, last);
        if from <= 0 && to >= 0 {
            self.expect(last + 1, self.seq_of(last).next());
        }
        self.progress(now);
        self.pass_nothing(stats);
        self.refresh_head(ring);
        Ok(())
    }

    /// The ACK position may have moved without a packet.
    pub(super) fn progress(&mut self, now: Instant) {
        self.ack_due = self.ack_due.min(now + ACK_INTERVAL);
    }

    /// Whether a control packet waits to be written.
    #[inline]
    pub(crate) fn has_to_transmit(&self) -> bool {
        self.light_ack || self.nak != Nak::None || self.full_ack.is_some()
    }
}
