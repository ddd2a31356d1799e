//! One RTP source: source validation (RFC 3550, A.1), the reorder window in front of the slot
//! ring, release in order, figures, and what its RTCP says. The shard calls it for each
//! datagram of its SSRC and once a deadline is reached.
//!
//! Sequence numbers are mapped onto slot indexes: `end − 1` is the slot of the highest number
//! seen, and a packet's slot follows from its distance to that one. A gap is waited for at
//! most [`Config::jitter_buffer`] from the arrival of the packet behind it, and not at all
//! once [`Config::reorder_packets`] are waiting.

mod repair;

use mirror_base::{Delivery, Discard, Instant, SlotMeta, SlotRing};

use crate::clock::{ClockMap, SenderClock};
use crate::jitter::Jitter;
use crate::report::{ReportTimer, Reporting};
use crate::rtcp::{self, SenderInfo};
use crate::{CloseReason, Config, Event, Header, Statistics};

/// RFC 3550, A.1: packets that must come in sequence before a source is valid.
const MIN_SEQUENTIAL: u8 = 2;
/// RFC 3550, A.1: a greater step forward is a jump, not a gap.
const MAX_DROPOUT: u16 = 3000;
/// RFC 3550, A.1: a greater step back is a jump, not reordering.
const MAX_MISORDER: u16 = 100;
/// Packets kept while the source is on probation.
const MAX_HELD: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// So many packets are still wanted in sequence.
    Probation(u8),
    Valid,
    Closed,
}

/// A packet that waits until its source, or the jump it made, turns out to be real.
#[derive(Debug)]
struct Held {
    header: Header,
    arrival: Instant,
    handled: Instant,
    datagram: Box<[u8]>,
}

/// What a delivery tells that its slot's index does not show.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    discontinuity: bool,
    lost: u32,
}

/// A sender report and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// What it says.
    pub info: SenderInfo,
    /// When it reached the host.
    pub arrival: Instant,
}

/// One RTP source (SSRC).
#[derive(Debug)]
pub struct Session {
    ssrc: u32,
    phase: Phase,
    max_sequence: u16,
    max_misorder: u16,
    reorder_packets: u16,
    cycles: u32,
    /// A.1: the sequence number that would confirm a jump.
    bad_sequence: Option<u16>,
    /// Slot to be delivered next; everything before is delivered or given up.
    next: u64,
    /// One past the slot of the highest sequence number.
    end: u64,
    /// First slot of the present numbering.
    start: u64,
    last_heard: Instant,
    last_arrival: Instant,
    /// When the gap at `next` is given up; `FAR_FUTURE` while none is known.
    gap_deadline: Instant,
    /// First filled slot behind the gap at `next`, while `gap_deadline` is set.
    gap_end: u64,
    /// Gaps below are given up at once.
    flush_before: u64,
    /// One past the last slot that was filled by a repair.
    repaired_end: u64,
    /// What made the packets at `next` releasable, if later than their arrival.
    released_at: Instant,
    /// The first delivery from this slot on carries `mark`.
    mark_at: u64,
    mark: Mark,
    lost_before: u32,
    jitter: Jitter,
    statistics: Statistics,
    /// Extended sequence number of the first packet of this numbering, and the packets
    /// received before it: what receiver reports count from.
    base_sequence: u32,
    base_received: u64,
    closing_at: Instant,
    close_reason: CloseReason,
    jitter_buffer: core::time::Duration,
    session_timeout: core::time::Duration,
    held: Vec<Held>,
    validated_event: bool,
    restarted_event: bool,
    closed_event: bool,
    sender_report: Option<SenderReport>,
    clock: Option<Box<SenderClock>>,
    cname: Option<Box<[u8]>>,
    reports: Option<Box<ReportTimer>>,
}

impl Session {
    /// Slot indexes begin at `next_index`.
    pub fn new(now: Instant, ssrc: u32, config: &Config, next_index: u64) -> Self {
        Session {
            ssrc,
            phase: Phase::Probation(MIN_SEQUENTIAL),
            max_sequence: 0,
            max_misorder: config.reorder_packets.clamp(MAX_MISORDER, MAX_DROPOUT - 1),
            reorder_packets: config.reorder_packets,
            cycles: 0,
            bad_sequence: None,
            next: next_index,
            end: next_index,
            start: next_index,
            last_heard: now,
            last_arrival: now,
            gap_deadline: Instant::FAR_FUTURE,
            gap_end: next_index,
            flush_before: 0,
            repaired_end: 0,
            released_at: Instant::ZERO,
            // What stands in the ring already is another session's.
            mark_at: next_index,
            mark: Mark {
                discontinuity: next_index > 0,
                lost: 0,
            },
            lost_before: 0,
            jitter: Jitter::new(config.clock_rate),
            statistics: Statistics::default(),
            base_sequence: 0,
            base_received: 0,
            closing_at: Instant::FAR_FUTURE,
            close_reason: CloseReason::Local,
            jitter_buffer: config.jitter_buffer,
            session_timeout: config.session_timeout,
            held: Vec::new(),
            validated_event: false,
            restarted_event: false,
            closed_event: false,
            sender_report: None,
            clock: None,
            cname: None,
            reports: None,
        }
    }

    /// An RTP datagram whose header is `header`. The whole datagram goes into a slot: meta
    /// `timestamp` = RTP timestamp, `flags` = byte 1 (marker and payload type).
    ///
    /// While the source is on probation its packets are kept here, and go into the ring when
    /// it turns valid; so do the two that confirm a restart.
    ///
    /// # Errors
    /// [`Discard::Duplicate`], [`Discard::Belated`], [`Discard::RtpProbation`] (a packet, this
    /// one or an older one that was kept, is not of this source's numbering),
    /// [`Discard::Closed`], [`Discard::UnknownSession`] (another SSRC), and those of
    /// [`SlotRing::insert`].
    // Always: configured sessions call it, too, and a call costs a tenth of what it does.
    #[inline(always)]
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        if self.phase != Phase::Valid || header.ssrc != self.ssrc {
            return self.handle_unproven(now, arrival, header, datagram, ring);
        }
        self.last_heard = now;
        let step = header.sequence.wrapping_sub(self.max_sequence);
        if step == 0 || step > self.max_misorder {
            return self.handle_out_of_order(now, arrival, header, datagram, ring);
        }
        // A.1: in order, with permissible gap.
        self.statistics.packets_received += 1;
        self.statistics.packets_lost += u64::from(step) - 1;
        self.advance(step, header.sequence);
        self.keep(self.end - 1, now, arrival, header, datagram, ring)
    }

    #[inline]
    fn advance(&mut self, step: u16, sequence: u16) {
        self.cycles = self
            .cycles
            .wrapping_add(u32::from(sequence < self.max_sequence));
        self.max_sequence = sequence;
        self.end += u64::from(step);
    }

    /// Copies a packet into its slot.
    #[inline]
    fn keep(
        &mut self,
        index: u64,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let mut meta = SlotMeta::new(arrival, header.timestamp, header.flags()).handled_at(now);
        meta.payload_offset = header.payload_offset;
        meta.payload_end = header.payload_end;
        ring.insert(index, datagram, meta)?;
        self.statistics.packets_unique += 1;
        self.statistics.payload_bytes += u64::from(header.payload_len());
        self.statistics.packets_held += 1;
        self.last_arrival = arrival;
        self.jitter.update(arrival, header.timestamp);
        Ok(())
    }

    /// A.1: a duplicate, a reordered packet, a wide gap or a jump.
    #[cold]
    fn handle_out_of_order(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let step = header.sequence.wrapping_sub(self.max_sequence);
        if step != 0 && step < MAX_DROPOUT {
            return self.handle_wide_gap(step, now, arrival, header, datagram, ring);
        }
        let back = self.max_sequence.wrapping_sub(header.sequence);
        if back >= self.max_misorder {
            return self.handle_jump(now, arrival, header, datagram, ring);
        }
        self.statistics.packets_received += 1;
        let index = (self.end - 1)
            .checked_sub(u64::from(back))
            .filter(|i| *i >= self.start);
        let Some(index) = index else {
            // From before the first packet of this numbering.
            self.statistics.packets_late += 1;
            return Err(Discard::Belated);
        };
        if ring.is_filled(index) {
            self.statistics.packets_duplicate += 1;
            return Err(Discard::Duplicate);
        }
        if index < self.next {
            self.statistics.packets_late += 1;
            return Err(Discard::Belated);
        }
        self.keep(index, now, arrival, header, datagram, ring)?;
        self.statistics.packets_reordered += 1;
        if index == self.next {
            self.released_at = arrival;
        } else if index < self.gap_end {
            self.gap_end = index;
        }
        Ok(())
    }

    /// A gap that is wider than any reordering that would be repaired. It takes no slots, so
    /// that a ring need not span it, and nothing of it is waited for.
    fn handle_wide_gap(
        &mut self,
        step: u16,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let lost = u32::from(step) - 1;
        self.statistics.packets_received += 1;
        self.statistics.packets_lost += u64::from(lost);
        self.statistics.packets_dropped += u64::from(lost);
        self.flush_before = self.end;
        self.start = self.end;
        self.set_mark(Mark {
            discontinuity: false,
            lost,
        });
        self.advance(1, header.sequence);
        self.keep(self.end - 1, now, arrival, header, datagram, ring)
    }

    /// The next slot that is taken carries `mark`, together with one that is still there.
    fn set_mark(&mut self, mark: Mark) {
        self.mark_at = self.end.min(self.mark_at);
        self.mark.discontinuity |= mark.discontinuity;
        self.mark.lost = self.mark.lost.saturating_add(mark.lost);
    }

    /// A.1: two packets in sequence after a jump are a restart of the sender's numbering, or
    /// all that it sent for a while is lost: then its timestamps have gone on with time.
    fn handle_jump(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        if self.bad_sequence == Some(header.sequence) {
            if self.is_outage() {
                self.hold(now, arrival, header, datagram);
                return self.resume(ring);
            }
            // Nothing more of the old numbering is waited for.
            self.flush_before = self.end;
            self.set_mark(Mark {
                discontinuity: true,
                lost: 0,
            });
            self.jitter.forget_transit();
            self.statistics.restarts += 1;
            self.restarted_event = true;
            self.hold(now, arrival, header, datagram);
            return self.release_held(ring);
        }
        let stray = !self.held.is_empty();
        self.held.clear();
        self.bad_sequence = Some(header.sequence.wrapping_add(1));
        self.hold(now, arrival, header, datagram);
        self.reject(u64::from(stray))
    }

    /// Whether the first packet after a jump is of the same timeline as the last before it.
    fn is_outage(&self) -> bool {
        self.held.first().is_some_and(|first| {
            let elapsed = first.arrival.saturating_since(self.last_arrival);
            self.jitter
                .goes_on(elapsed, first.arrival, first.header.timestamp)
        })
    }

    /// Goes on behind an outage with the two packets that were held: what is missing before
    /// them is lost. (More than 65 535 packets show as fewer.)
    fn resume(&mut self, ring: &mut SlotRing) -> Result<(), Discard> {
        self.bad_sequence = None;
        let mut outcome = Ok(());
        for held in core::mem::take(&mut self.held) {
            let (now, arrival, header) = (held.handled, held.arrival, &held.header);
            let step = header.sequence.wrapping_sub(self.max_sequence);
            let kept = if step == 1 {
                self.statistics.packets_received += 1;
                self.advance(1, header.sequence);
                self.keep(self.end - 1, now, arrival, header, &held.datagram, ring)
            } else {
                self.handle_wide_gap(step, now, arrival, header, &held.datagram, ring)
            };
            outcome = outcome.and(kept);
            // Releasable since the packet that proved the outage.
            self.released_at = self.released_at.max(arrival);
        }
        outcome
    }

    fn hold(&mut self, now: Instant, arrival: Instant, header: &Header, datagram: &[u8]) {
        self.held.push(Held {
            header: *header,
            arrival,
            handled: now,
            datagram: datagram.into(),
        });
    }

    /// Counts packets that turned out to belong to nothing.
    fn reject(&mut self, packets: u64) -> Result<(), Discard> {
        self.statistics.packets_rejected += packets;
        if packets > 0 {
            Err(Discard::RtpProbation)
        } else {
            Ok(())
        }
    }

    /// The source is not valid yet, or no more, or not this one.
    #[cold]
    fn handle_unproven(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        if header.ssrc != self.ssrc {
            return Err(Discard::UnknownSession);
        }
        let Phase::Probation(wanted) = self.phase else {
            return Err(Discard::Closed);
        };
        if self
            .held
            .iter()
            .any(|h| h.header.sequence == header.sequence)
        {
            self.statistics.packets_duplicate += 1;
            return Err(Discard::Duplicate);
        }
        self.last_heard = now;
        // A.1: a packet that does not follow the last one starts the count again.
        let follows = !self.held.is_empty() && header.sequence == self.max_sequence.wrapping_add(1);
        let wanted = if follows {
            wanted - 1
        } else {
            MIN_SEQUENTIAL - 1
        };
        self.max_sequence = header.sequence;
        self.hold(now, arrival, header, datagram);
        if wanted == 0 {
            self.phase = Phase::Valid;
            self.validated_event = true;
            return self.release_held(ring);
        }
        self.phase = Phase::Probation(wanted);
        let excess = self.held.len().saturating_sub(MAX_HELD);
        self.held.drain(..excess);
        self.reject(excess as u64)
    }

    /// Starts a numbering with the packets that were held: those within the misorder window
    /// before the newest one, which must be the last of them.
    fn release_held(&mut self, ring: &mut SlotRing) -> Result<(), Discard> {
        let mut held = core::mem::take(&mut self.held);
        let Some(newest) = held.last().map(|h| h.header.sequence) else {
            return Ok(());
        };
        let all = held.len();
        held.retain(|h| newest.wrapping_sub(h.header.sequence) < self.max_misorder);
        let strays = all - held.len();
        held.sort_by_key(|h| core::cmp::Reverse(newest.wrapping_sub(h.header.sequence)));
        let first = held.first().map_or(newest, |h| h.header.sequence);
        self.begin_numbering(first);
        let mut outcome = Ok(());
        for packet in &held {
            let header = &packet.header;
            let step = header.sequence.wrapping_sub(self.max_sequence);
            self.statistics.packets_received += 1;
            self.statistics.packets_lost += u64::from(step).saturating_sub(1);
            self.advance(step, header.sequence);
            let Held {
                arrival, handled, ..
            } = *packet;
            let kept = self.keep(
                self.end - 1,
                handled,
                arrival,
                header,
                &packet.datagram,
                ring,
            );
            outcome = outcome.and(kept);
            // Releasable since the packet that proved the source.
            self.released_at = self.released_at.max(arrival);
        }
        outcome.and(self.reject(strays as u64))
    }

    /// The next slot is that of the number `first`, which a new numbering begins with.
    fn begin_numbering(&mut self, first: u16) {
        self.bad_sequence = None;
        // advance() counts a wrap where the first number is 0 and its predecessor 65535.
        self.cycles = if first == 0 { u32::MAX } else { 0 };
        self.max_sequence = first.wrapping_sub(1);
        self.base_sequence = u32::from(first);
        self.base_received = self.statistics.packets_received;
        self.start = self.end;
    }

    /// A compound RTCP datagram that names this source.
    ///
    /// # Errors
    /// [`Discard::Runt`], [`Discard::MalformedRtcp`], or [`Discard::UnknownSession`] when
    /// nothing in it is of this source.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        arrival: Instant,
        datagram: &[u8],
    ) -> Result<(), Discard> {
        let packets = rtcp::parse(datagram)?;
        if self.phase == Phase::Closed {
            return Err(Discard::Closed);
        }
        let mut ours = rtcp::sender_ssrc(datagram) == Some(self.ssrc);
        for packet in packets {
            if let Some(info) = packet.sender_info().filter(|info| info.ssrc == self.ssrc) {
                self.sender_report = Some(SenderReport { info, arrival });
                self.statistics.sender_reports += 1;
                let rate = self.jitter.clock_rate();
                let clock = self
                    .clock
                    .get_or_insert_with(|| SenderClock::new(rate).into());
                clock.update(arrival, &info);
            }
            if let Some(cname) = packet.cname(self.ssrc) {
                ours = true;
                if self.cname.as_deref() != Some(cname) {
                    self.cname = Some(cname.into());
                }
            }
            if packet.leaving().any(|ssrc| ssrc == self.ssrc) {
                ours = true;
                self.handle_bye(now);
            }
        }
        if !ours {
            return Err(Discard::UnknownSession);
        }
        self.last_heard = now;
        self.statistics.rtcp_received += 1;
        if let Some(reports) = &mut self.reports {
            reports.count_received(datagram.len());
        }
        Ok(())
    }

    /// RTCP often overtakes the last RTP packets, as it comes by another socket: so these
    /// are waited for as long as for any gap.
    fn handle_bye(&mut self, now: Instant) {
        if self.closing_at == Instant::FAR_FUTURE {
            self.closing_at = now + self.jitter_buffer;
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase == Phase::Closed {
            return;
        }
        if now >= self.closing_at {
            self.end_with(now, CloseReason::Bye);
        } else if now >= self.last_heard + self.session_timeout {
            self.end_with(now, CloseReason::Timeout);
        }
    }

    fn end_with(&mut self, now: Instant, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.close_reason = reason;
        self.closed_event = true;
        self.flush_before = u64::MAX;
        self.statistics.packets_rejected += self.held.len() as u64;
        self.held = Vec::new();
        if let Some(reports) = &mut self.reports {
            reports.leave(now);
        }
    }

    /// The next packet in order, or after its gap was given up.
    #[inline]
    pub fn poll_delivery(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> {
        while self.next < self.end {
            if let Some(meta) = ring.meta(self.next) {
                return Some(self.deliver(meta.arrival, meta.handled_after_ns));
            }
            if !self.give_up_gap(now, ring) {
                return None;
            }
        }
        None
    }

    #[inline]
    fn deliver(&mut self, arrival: Instant, handled_after_ns: u32) -> Delivery {
        let slot = self.next;
        let mut discontinuity = false;
        if slot >= self.mark_at {
            self.mark_at = u64::MAX;
            let mark = core::mem::take(&mut self.mark);
            discontinuity = mark.discontinuity;
            self.lost_before = self.lost_before.saturating_add(mark.lost);
        }
        self.next += 1;
        self.gap_deadline = Instant::FAR_FUTURE;
        self.statistics.packets_held = self.statistics.packets_held.saturating_sub(1);
        Delivery {
            slot,
            arrival,
            handled_after_ns,
            due: arrival.max(self.released_at),
            lost_before: core::mem::take(&mut self.lost_before),
            discontinuity,
        }
    }

    /// Slot `next` is empty: whether it, and what else is missing behind it, is given up.
    #[cold]
    fn give_up_gap(&mut self, now: Instant, ring: &SlotRing) -> bool {
        if self.gap_deadline == Instant::FAR_FUTURE {
            // At most `reorder_packets` slots, or a wider gap once, as it is not waited for.
            self.gap_end = (self.next + 1..self.end)
                .find(|i| ring.is_filled(*i))
                .unwrap_or(self.end);
            let mut seen = ring.meta(self.gap_end).map_or(now, |meta| meta.arrival);
            if self.gap_end < self.repaired_end {
                seen = self.first_evidence(seen, ring);
            }
            self.gap_deadline = seen + self.jitter_buffer;
        }
        // Nothing behind it: packets for which the ring had no room.
        let empty = self.gap_end >= self.end;
        let overflow = self.end - self.next > u64::from(self.reorder_packets);
        if !(empty || overflow || self.next < self.flush_before || now >= self.gap_deadline) {
            return false;
        }
        let released = if overflow {
            self.last_arrival
        } else {
            self.gap_deadline.min(now)
        };
        self.released_at = self.released_at.max(released);
        let lost = self.gap_end - self.next;
        self.statistics.packets_dropped += lost;
        self.lost_before = self
            .lost_before
            .saturating_add(u32::try_from(lost).unwrap_or(u32::MAX));
        self.next = self.gap_end;
        self.gap_deadline = Instant::FAR_FUTURE;
        true
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.validated_event) {
            Some(Event::Validated)
        } else if core::mem::take(&mut self.restarted_event) {
            Some(Event::Restarted)
        } else if core::mem::take(&mut self.closed_event) {
            Some(Event::Closed(self.close_reason))
        } else {
            None
        }
    }

    /// When `handle_timeout` or a delivery is due next.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Closed {
            // A BYE may be left to send.
            let reports = self.reports.as_ref().filter(|r| r.is_leaving());
            return reports.map(|r| r.due());
        }
        let idle = self.last_heard + self.session_timeout;
        let mut due = idle.min(self.closing_at).min(self.gap_deadline);
        if let Some(reports) = &self.reports {
            due = due.min(reports.due());
        }
        Some(due)
    }

    /// Ends it.
    pub fn close(&mut self, now: Instant) {
        if self.phase != Phase::Closed {
            self.end_with(now, CloseReason::Local);
        }
    }

    /// Closed and nothing left to deliver.
    pub fn is_drained(&self) -> bool {
        self.phase == Phase::Closed && self.next >= self.end
    }

    /// Whether the source has passed its probation and is not closed.
    pub fn is_valid(&self) -> bool {
        self.phase == Phase::Valid
    }

    /// Everything before it is delivered or given up.
    pub fn delivery_index(&self) -> u64 {
        self.next
    }

    /// The SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// From now on gaps are waited for so long; one that is waited for already, as long as before.
    pub fn set_jitter_buffer(&mut self, jitter_buffer: core::time::Duration) {
        self.jitter_buffer = jitter_buffer;
    }

    /// The clock rate, once the payload is known.
    pub fn set_clock_rate(&mut self, hz: u32) {
        self.jitter.set_clock_rate(hz);
        if let Some(clock) = &mut self.clock {
            clock.set_clock_rate(hz);
        }
    }

    /// The sender's last report: its mapping of RTP timestamps to wall clock.
    pub fn sender_report(&self) -> Option<SenderReport> {
        self.sender_report
    }

    /// The sender's clock, once it has reported it.
    pub fn clock(&self) -> Option<ClockMap> {
        self.clock.as_ref()?.map()
    }

    /// The sender's CNAME, once a source description has told it. Streams of one sender
    /// carry the same (RFC 3550, 6.5.1).
    pub fn cname(&self) -> Option<&[u8]> {
        self.cname.as_deref()
    }

    /// Figures.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            jitter: self.jitter.units(),
            jitter_us: self.jitter.micros(),
            ..self.statistics
        }
    }

    /// From now on receiver reports about this source are due ([`Self::poll_transmit_rtcp`]).
    pub fn enable_reports(&mut self, now: Instant, mut reporting: Reporting) {
        if reporting.ssrc == self.ssrc {
            reporting.ssrc ^= 0x5555_5555;
        }
        self.reports = Some(Box::new(ReportTimer::new(now, reporting)));
    }

    /// Writes the compound RTCP packet that is due at `now`, if one is, and returns its
    /// length: a receiver report with CNAME, after [`Self::close`] with a BYE. `None` too when
    /// `out` is too small; 512 bytes hold any.
    pub fn poll_transmit_rtcp(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        self.reports.as_ref()?;
        let figures = self.figures();
        let mut compound = Vec::new();
        let length = self
            .reports
            .as_mut()?
            .poll(now, figures.as_ref(), &mut compound)?;
        out.get_mut(..length)?.copy_from_slice(&compound);
        self.statistics.rtcp_sent += 1;
        Some(length)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
