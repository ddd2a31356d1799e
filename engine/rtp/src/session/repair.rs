//! What a configured session ([`crate::Media`]) does to its source besides handing in what
//! came: packets that a retransmission, FEC or a second path gave back, and the figures that
//! reports are made of.

use mirror_base::{Discard, Instant, SlotMeta, SlotRing};

use super::{Phase, Session};
use crate::report::Figures;
use crate::{Config, Header};

/// Slots that are looked at for when a gap was first seen.
const MAX_EVIDENCE: u64 = 64;

impl Session {
    /// A source that has proven itself already; `first` is its first sequence number.
    pub(crate) fn proven(
        now: Instant,
        ssrc: u32,
        config: &Config,
        next_index: u64,
        first: u16,
    ) -> Self {
        let mut session = Session::new(now, ssrc, config, next_index);
        session.phase = Phase::Valid;
        session.begin_numbering(first);
        session
    }

    /// The slot of `sequence`, by its distance to the highest number seen: also of one that is
    /// still to come. `None` for one before the first slot.
    pub(crate) fn index_of(&self, sequence: u16) -> Option<u64> {
        let distance = sequence.wrapping_sub(self.max_sequence).cast_signed();
        self.end.checked_add_signed(i64::from(distance) - 1)
    }

    /// One past the slot of the highest number.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// First slot of the present numbering.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// When a packet of it was handled last.
    pub(crate) const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// The highest sequence number.
    pub(crate) const fn max_sequence(&self) -> u16 {
        self.max_sequence
    }

    /// A step further forward takes no slots.
    pub(crate) const fn max_misorder(&self) -> u16 {
        self.max_misorder
    }

    /// What is held is releasable since `at`, not before.
    pub(crate) fn release_from(&mut self, at: Instant) {
        self.released_at = self.released_at.max(at);
    }

    /// The sender said BYE, and only what it overtook is waited for; or it is over.
    pub(crate) fn is_leaving(&self) -> bool {
        self.phase == Phase::Closed || self.closing_at != Instant::FAR_FUTURE
    }

    /// It is over.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// [`Session::handle_rtp`], called from several places.
    #[inline(never)]
    pub(crate) fn take(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        self.handle_rtp(now, arrival, header, datagram, ring)
    }

    /// A second path brought what the first one lacks (before [`Session::repair`]).
    pub(crate) const fn note_received(&mut self) {
        self.statistics.packets_received += 1;
    }

    /// A path brought a packet twice.
    pub(crate) const fn note_duplicate(&mut self) {
        self.statistics.packets_received += 1;
        self.statistics.packets_duplicate += 1;
    }

    /// A packet that was given back: it fills its slot, and is neither received (RFC 3550,
    /// A.3, counts what came under the source's own numbers) nor timed. One that is ahead of
    /// all that came was lost, too.
    ///
    /// # Errors
    /// [`Discard::Duplicate`], [`Discard::Belated`], [`Discard::BeyondWindow`],
    /// [`Discard::Closed`], and those of [`SlotRing::insert`].
    pub(crate) fn repair(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<u64, Discard> {
        if self.phase != Phase::Valid {
            return Err(Discard::Closed);
        }
        let index = self.index_of(header.sequence).ok_or(Discard::Belated)?;
        if index < self.next.max(self.start) {
            return Err(Discard::Belated);
        }
        if ring.is_filled(index) {
            return Err(Discard::Duplicate);
        }
        let step = (index + 1).saturating_sub(self.end);
        if step > u64::from(self.max_misorder) {
            return Err(Discard::BeyondWindow);
        }
        let mut meta = SlotMeta::new(arrival, header.timestamp, header.flags()).handled_at(now);
        meta.payload_offset = header.payload_offset;
        meta.payload_end = header.payload_end;
        ring.insert(index, datagram, meta)?;
        if step > 0 {
            self.statistics.packets_lost += step;
            self.advance(step as u16, header.sequence);
        }
        self.statistics.packets_unique += 1;
        self.statistics.payload_bytes += u64::from(header.payload_len());
        self.statistics.packets_held += 1;
        self.repaired_end = self.repaired_end.max(index + 1);
        if index == self.next {
            self.released_at = self.released_at.max(arrival);
        } else if index < self.gap_end {
            self.gap_end = index;
        }
        Ok(index)
    }

    /// When the gap before `gap_end` was first seen. The packet behind it may have been given
    /// back long after its successors came; `seen` is when.
    pub(super) fn first_evidence(&self, seen: Instant, ring: &SlotRing) -> Instant {
        let end = self.end.min(self.gap_end.saturating_add(MAX_EVIDENCE));
        let arrivals = (self.gap_end..end).filter_map(|i| ring.meta(i).map(|m| m.arrival));
        arrivals.fold(seen, Instant::min)
    }

    /// What a report block on it is made of, once something came of it.
    pub(crate) fn figures(&self) -> Option<Figures> {
        (self.statistics.packets_unique > 0).then(|| Figures {
            ssrc: self.ssrc,
            extended_highest_sequence: (self.cycles << 16) | u32::from(self.max_sequence),
            base_sequence: self.base_sequence,
            received: (self.statistics.packets_received - self.base_received) as u32,
            jitter: self.jitter.units(),
            sender_report: self.sender_report,
        })
    }
}
