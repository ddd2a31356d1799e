//! What becomes of an RTP or FEC datagram of a configured session: which source it is of, what
//! it repeats or protects, and whether another path brought it already.

use core::time::Duration;

use mirror_base::{Discard, Instant, SlotRing};

use super::sources::{Kept, MAX_WAITING};
use super::{
    Active, Config, Header, Kind, LastReport, Media, MediaEvent, Origin, OwnSsrc, Role, Session,
};

/// A source is silent, so that another may take over, when nothing came for three times its
/// usual spacing, but within these.
const MIN_SILENCE: Duration = Duration::from_millis(100);
const MAX_SILENCE: Duration = Duration::from_secs(1);
/// The same SSRC from another address is refused while the first one was heard within this.
const ADDRESS_TIME: Duration = Duration::from_millis(500);
/// A burst ends with a pause of this.
const PAUSE: Duration = Duration::from_millis(1);
/// Packets that both paths must have brought of a new numbering, together.
const MIN_AGREED: usize = 4;
/// On two paths, numbers so far behind are the slower path's, while the source goes on.
const MAX_BEHIND: i32 = 16_384;
/// What comes of a source after its BYE within this belongs to what it ended.
const DEPARTED_TIME: Duration = Duration::from_secs(1);
/// RFC 3550, A.1: a greater step forward is a jump.
const MAX_DROPOUT: i32 = 3000;

impl Media {
    /// A datagram of an RTP or FEC port (RTCP on the same port goes to
    /// [`Media::handle_rtcp`]).
    ///
    /// A packet of a source that is not taken is kept within bounds, as it may take over.
    ///
    /// # Errors
    /// Those of [`Header::parse`] and [`Session::handle_rtp`];
    /// [`Discard::UnknownPayloadType`]; [`Discard::ForeignSource`] (an SSRC or address that is
    /// not ours, a packet that differs from what the other path brought, our own SSRC);
    /// [`Discard::Duplicate`] or [`Discard::Belated`] for a retransmission or FEC packet that
    /// is of no use; [`Discard::MalformedPayload`] and [`Discard::LimitExceeded`] for FEC.
    #[inline]
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        arrival: Instant,
        origin: &Origin,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        if self.is_closed {
            return Err(Discard::Closed);
        }
        if origin.role != Role::Media {
            return self.handle_fec(now, arrival, datagram, ring);
        }
        let mut header = Header::parse(datagram)?;
        let mut origin = *origin;
        let duplicates = &self.config.duplicate_ssrcs;
        if let Some(pair) = duplicates.iter().find(|pair| pair.1 == header.ssrc) {
            header.ssrc = pair.0;
            origin.leg = 1;
        }
        let clock_rate = match self.kinds.get(usize::from(header.payload_type)) {
            Some(Kind::Media(clock_rate)) => *clock_rate,
            Some(Kind::Rtx(apt)) => {
                return self.handle_rtx(now, arrival, &header, *apt, datagram, ring);
            }
            Some(Kind::Fec) => return self.handle_fec(now, arrival, datagram, ring),
            Some(Kind::Unknown) | None => return Err(Discard::UnknownPayloadType),
        };
        match &mut self.active {
            Some(active) if active.session.ssrc() == header.ssrc => {
                if active.clock_rate != clock_rate {
                    active.set_clock_rate(clock_rate);
                }
            }
            _ => return self.handle_stranger(now, arrival, &header, &origin, datagram, ring),
        }
        if self.legs.get_mut(origin.leg).from != Some(origin.from)
            && !self.is_known_address(now, &origin)
        {
            self.statistics.packets_foreign += 1;
            return Err(Discard::ForeignSource);
        }
        self.handle_ours(now, arrival, &header, &origin, datagram, ring)
    }

    /// A packet of the source that is taken.
    #[inline]
    fn handle_ours(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        origin: &Origin,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let Some(active) = &mut self.active else {
            return Err(Discard::Closed);
        };
        if self.legs.is_two() && active.is_elsewhere(now, header) {
            return self.handle_stranger(now, arrival, header, origin, datagram, ring);
        }
        active.heard(now);
        self.legs.get_mut(origin.leg).heard = now;
        if self.legs.is_changed(origin.leg) {
            self.path_changes(origin.leg);
        }
        if !self.candidates.is_empty() {
            self.candidates.present_was_heard(origin.leg);
        }
        if datagram.first().is_some_and(|b| b & 0x0F != 0) {
            self.note_contributors(now, datagram);
        }
        if self.legs.is_two() {
            return self.handle_copy(now, arrival, header, origin, datagram, ring);
        }
        self.legs.get_mut(origin.leg).statistics.packets_received += 1;
        let Some(active) = &mut self.active else {
            return Err(Discard::Closed);
        };
        let end = active.session.end();
        let taken = active.session.take(now, arrival, header, datagram, ring);
        if taken.is_ok() {
            self.legs.get_mut(origin.leg).statistics.packets_used += 1;
        }
        self.look_behind(
            now,
            arrival,
            end,
            taken.is_ok().then_some(header.sequence),
            ring,
        );
        taken
    }

    /// A packet was handed to the source, whose slots ended before `end` then: asks for what is
    /// missing now, and rebuilds what `kept`, its number if it was kept, allows to.
    #[inline]
    fn look_behind(
        &mut self,
        now: Instant,
        arrival: Instant,
        end: u64,
        kept: Option<u16>,
        ring: &mut SlotRing,
    ) {
        let Some(active) = &mut self.active else {
            return;
        };
        let session = &active.session;
        let index = kept.and_then(|sequence| session.index_of(sequence));
        let is_renumbered = session.start() >= end;
        if let Some(nack) = self.control.as_mut().and_then(|c| c.nack.as_mut()) {
            if is_renumbered {
                nack.clear();
            }
            let newest = session.end().saturating_sub(1);
            if newest > end {
                let sequence = session.max_sequence();
                nack.gap(arrival, end, newest, sequence, |i| ring.is_filled(i));
            } else if newest < end
                && let Some(index) = index
            {
                self.statistics.recovered_rtx += u64::from(nack.filled(now, index));
            }
        }
        if let Some(fec) = self.fec.as_mut().filter(|fec| !fec.is_empty()) {
            if is_renumbered {
                fec.clear();
            }
            if let Some(index) = index {
                fec.filled(index);
            }
            self.rebuild(now, arrival, ring);
        }
    }

    /// Puts into the ring what FEC gives back, until it gives no more.
    fn rebuild(&mut self, now: Instant, arrival: Instant, ring: &mut SlotRing) {
        let (Some(active), Some(fec)) = (&mut self.active, &mut self.fec) else {
            return;
        };
        let session = &mut active.session;
        while let Some(packet) = fec.rebuild(session, ring) {
            let Ok(header) = Header::parse(packet) else {
                continue;
            };
            let kind = self.kinds.get(usize::from(header.payload_type));
            if !matches!(kind, Some(Kind::Media(_))) {
                continue;
            }
            let Ok(index) = session.repair(now, arrival, &header, packet, ring) else {
                continue;
            };
            self.statistics.recovered_fec += 1;
            fec.filled(index);
            if let Some(nack) = self.control.as_mut().and_then(|c| c.nack.as_mut()) {
                nack.forget(index);
            }
        }
    }

    /// A packet of ST 2022-1.
    fn handle_fec(
        &mut self,
        now: Instant,
        arrival: Instant,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let Some(fec) = &mut self.fec else {
            return Err(Discard::UnsupportedPayload);
        };
        self.statistics.fec_received += 1;
        let Some(active) = &self.active else {
            return Err(Discard::RtpProbation);
        };
        let stored = fec.store(datagram, &active.session, ring);
        match stored {
            Ok(()) => self.rebuild(now, arrival, ring),
            Err(Discard::Duplicate | Discard::Belated) => {}
            Err(_) => self.statistics.fec_refused += 1,
        }
        stored
    }

    /// A retransmission.
    #[cold]
    fn handle_rtx(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        apt: u8,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        self.statistics.rtx_received += 1;
        let repaired = self.repair(now, arrival, header, apt, datagram, ring);
        if repaired.is_err() {
            self.statistics.rtx_useless += 1;
        }
        repaired
    }

    fn repair(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        apt: u8,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let Some(active) = &mut self.active else {
            return Err(Discard::UnknownSession);
        };
        let ssrc = active.session.ssrc();
        let session = &mut active.session;
        let pairs = &self.config.rtx_ssrcs;
        let is_ours = header.ssrc == ssrc
            || self.rtx.is_known(header.ssrc)
            || pairs.contains(&(ssrc, header.ssrc));
        let is_others = pairs.iter().any(|(m, r)| *r == header.ssrc && *m != ssrc);
        if !is_ours && (is_others || !self.rtx.is_open()) {
            return Err(Discard::ForeignSource);
        }
        let own_stream = header.ssrc != ssrc;
        if is_ours && own_stream {
            self.rtx.note(header);
        }
        let rebuilt = self.rtx.rebuild(header, datagram, apt, ssrc);
        let (original, packet) = rebuilt.ok_or(Discard::Duplicate)?;
        let rebuilt = Header::parse(packet)?;
        debug_assert_eq!(rebuilt.sequence, original);
        // It may be ahead: others ask, too, or its successors are lost as well.
        let end = session.end();
        let index = session.repair(now, arrival, &rebuilt, packet, ring)?;
        if !is_ours {
            // RFC 4588, 5.3: it answers what is missing here, so it repeats our source.
            self.rtx.note(header);
        }
        self.statistics.recovered_rtx += 1;
        if let Some(control) = &mut self.control {
            control.members.sent(now, header.ssrc);
            if let Some(nack) = &mut control.nack {
                if index > end {
                    nack.gap(arrival, end, index, original, |i| ring.is_filled(i));
                }
                nack.filled(now, index);
            }
        }
        if let Some(fec) = &mut self.fec {
            fec.repeated(index);
            if !fec.is_empty() {
                fec.filled(index);
                self.rebuild(now, arrival, ring);
            }
        }
        Ok(())
    }

    /// A packet where there are two paths: the first copy is used.
    fn handle_copy(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        origin: &Origin,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        let Some(active) = &mut self.active else {
            return Err(Discard::Closed);
        };
        let session = &mut active.session;
        let index = session.index_of(header.sequence);
        let Some(index) = index.filter(|i| *i >= session.start()) else {
            self.legs.get_mut(origin.leg).statistics.packets_late += 1;
            return Err(Discard::Belated);
        };
        let first = ring.meta(index).filter(|_| index < session.end()).copied();
        if let Some(first) = first {
            let length = first.payload_end - first.payload_offset;
            let same = (first.timestamp, first.flags, length)
                == (header.timestamp, header.flags(), header.payload_len());
            if !same {
                self.legs.get_mut(origin.leg).statistics.packets_foreign += 1;
                self.statistics.packets_foreign += 1;
                return Err(Discard::ForeignSource);
            }
        }
        let end = session.end();
        let noted = self.legs.note(origin.leg, index);
        if !noted.is_new {
            session.note_duplicate();
            return Err(Discard::Duplicate);
        }
        if let Some(first) = first {
            if noted.other_has {
                self.legs.note_skew(origin.leg, arrival, first.arrival);
                self.expect_skew();
            }
            return Ok(());
        }
        if index < session.delivery_index() {
            if noted.other_has {
                return Ok(());
            }
            self.legs.get_mut(origin.leg).statistics.packets_late += 1;
            return session.take(now, arrival, header, datagram, ring);
        }
        let taken = if noted.other_passed && index < end {
            session.note_received();
            let repaired = session.repair(now, arrival, header, datagram, ring);
            repaired.map(|_| ())
        } else {
            session.take(now, arrival, header, datagram, ring)
        };
        if taken.is_ok() {
            self.legs.get_mut(origin.leg).statistics.packets_used += 1;
        }
        self.look_behind(
            now,
            arrival,
            end,
            taken.is_ok().then_some(header.sequence),
            ring,
        );
        taken
    }

    /// What the slower path will bring needs not be asked for.
    fn expect_skew(&mut self) {
        let skew = self.legs.get_mut(0).statistics.skew_us.unsigned_abs();
        if let Some(nack) = self.control.as_mut().and_then(|c| c.nack.as_mut()) {
            nack.set_least_delay(Duration::from_micros(skew * 5 / 4));
        }
    }

    /// `leg` was heard: it is up, or the other one has been silent for too long meanwhile.
    #[cold]
    fn path_changes(&mut self, leg: u8) {
        let is_up = &mut self.legs.get_mut(leg).statistics.is_up;
        if !core::mem::replace(is_up, true) {
            self.tell(MediaEvent::LegUp(leg));
        } else {
            let other = u8::from(leg == 0);
            self.legs.get_mut(other).statistics.is_up = false;
            self.tell(MediaEvent::LegDown(other));
        }
    }

    /// RFC 3550, 8.2: two addresses that use one SSRC. The first is believed until it is
    /// silent.
    #[cold]
    fn is_known_address(&mut self, now: Instant, origin: &Origin) -> bool {
        let leg = self.legs.get_mut(origin.leg);
        if leg.from.is_some() && now.saturating_since(leg.heard) < ADDRESS_TIME {
            return false;
        }
        leg.from = Some(origin.from);
        true
    }

    /// Who is mixed into the packet is a member, too (RFC 3550, 6.2.1).
    #[cold]
    fn note_contributors(&mut self, now: Instant, datagram: &[u8]) {
        if let Some(control) = &mut self.control {
            for ssrc in crate::header::contributors(datagram) {
                control.members.heard(now, ssrc);
            }
        }
    }

    /// A packet of a source that is not taken, or of the source's next numbering.
    #[cold]
    fn handle_stranger(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        origin: &Origin,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        if datagram.len() > ring.slot_bytes() {
            return Err(Discard::TooLong);
        }
        let ssrcs = &self.config.ssrcs;
        if !ssrcs.is_empty() && !ssrcs.contains(&header.ssrc) {
            self.statistics.packets_foreign += 1;
            return Err(Discard::ForeignSource);
        }
        if let Some(control) = &mut self.control
            && control.ssrc() == header.ssrc
            && control.own_ssrc_from(now, origin.from) == OwnSsrc::Loop
        {
            return Err(Discard::ForeignSource);
        }
        if self.has_departed(now, header) {
            return Err(Discard::Belated);
        }
        let dropped = self
            .candidates
            .offer(now, arrival, header, origin, datagram);
        self.statistics.packets_foreign += dropped;
        if self.may_take_over(now, header.ssrc) {
            self.take_over(now, header.ssrc, ring);
        }
        if dropped > 0 {
            Err(Discard::RtpProbation)
        } else {
            Ok(())
        }
    }

    /// Whether it belongs to what its source ended by BYE.
    fn has_departed(&mut self, now: Instant, header: &Header) -> bool {
        let Some((ssrc, last, at)) = self.departed else {
            return false;
        };
        if now.saturating_since(at) >= DEPARTED_TIME {
            self.departed = None;
            return false;
        }
        ssrc == header.ssrc && last.wrapping_sub(header.sequence) < 100
    }

    /// Whether the candidate `ssrc` is proven, and the present source is over: it said so, is
    /// silent, or both paths have left it.
    fn may_take_over(&self, now: Instant, ssrc: u32) -> bool {
        let Some(candidate) = self.candidates.get(ssrc) else {
            return false;
        };
        if !candidate.is_proven || self.draining.is_some() {
            return false;
        }
        let Some(active) = &self.active else {
            return true;
        };
        let silence = (3 * active.spacing).clamp(MIN_SILENCE, MAX_SILENCE);
        let [first, second] = &self.legs.legs;
        let both_up = first.statistics.is_up && second.statistics.is_up;
        let agreed = self.legs.is_two()
            && both_up
            && candidate.legs == 3
            && candidate.undisturbed >= MIN_AGREED;
        agreed
            || active.session.is_leaving()
            || now.saturating_since(active.session.last_heard()) >= silence
            || candidate.undisturbed >= MAX_WAITING
    }

    /// The candidate `ssrc` is the source from now on, with all that was kept of it.
    fn take_over(&mut self, now: Instant, ssrc: u32, ring: &mut SlotRing) {
        let kept = self.candidates.take(ssrc);
        let Some(header) = kept.first().and_then(|k| Header::parse(&k.datagram).ok()) else {
            return;
        };
        let before = self.ssrc();
        if let Some(active) = &mut self.active {
            active.session.close(now);
        }
        self.set_aside();
        let event = match before {
            None => MediaEvent::SourceValid { ssrc },
            Some(before) if before == ssrc => {
                self.past.restarts += 1;
                MediaEvent::SourceRestarted
            }
            Some(_) => {
                self.statistics.source_changes += 1;
                MediaEvent::SourceChanged { ssrc }
            }
        };
        self.tell(event);
        let clock_rate = match self.kinds.get(usize::from(header.payload_type)) {
            Some(Kind::Media(clock_rate)) => *clock_rate,
            _ => 90_000,
        };
        let options = Config {
            reorder_packets: self.config.reorder_packets,
            jitter_buffer: self.jitter_buffer(),
            session_timeout: self.config.session_timeout,
            clock_rate,
        };
        let next_index = self.next_index.max(ring.next_index());
        let first = first_number(&kept, header.sequence, options.reorder_packets);
        let session = Session::proven(now, ssrc, &options, next_index, first);
        self.active = Some(Active::new(session, clock_rate));
        self.legs.restart(now);
        self.departed = None;
        for leg in [0, 1] {
            let first = kept.iter().find(|k| k.leg == leg);
            self.legs.get_mut(leg).from = first.map(|k| k.from);
        }
        for packet in kept {
            let Ok(header) = Header::parse(&packet.datagram) else {
                continue;
            };
            let header = Header { ssrc, ..header };
            let (at, arrival) = (packet.handled, packet.arrival);
            let origin = Origin {
                leg: packet.leg,
                role: Role::Media,
                from: packet.from,
            };
            // What cannot be used is counted there.
            let _ = self.handle_ours(at, arrival, &header, &origin, &packet.datagram, ring);
        }
        if let Some(active) = &mut self.active {
            // Releasable since the packet that proved the source.
            active.session.release_from(now);
            active.spacing = Duration::ZERO;
        }
        self.handle_early(now, ssrc);
    }

    /// What the source said by RTCP before it was taken.
    fn handle_early(&mut self, now: Instant, ssrc: u32) {
        let Some(at) = self.early_reports.iter().position(|r| r.ssrc == ssrc) else {
            return;
        };
        let report = self.early_reports.swap_remove(at);
        let rtp = self.legs.get_mut(report.leg).from;
        let Some(active) = &mut self.active else {
            return;
        };
        // A BYE in it was of a life before.
        let leaves = crate::rtcp::parse(&report.datagram)
            .is_ok_and(|mut packets| packets.any(|p| p.leaving().any(|s| s == ssrc)));
        if leaves {
            return;
        }
        let _ = active
            .session
            .handle_rtcp(now, report.arrival, &report.datagram);
        if let Some(control) = &mut self.control {
            control.learn_address(report.leg, report.from, rtp);
        }
    }

    /// The source has ended by itself.
    pub(super) fn end_source(&mut self, now: Instant) {
        let Some(active) = &mut self.active else {
            return;
        };
        let mut reason = crate::CloseReason::Local;
        while let Some(event) = active.session.poll_event() {
            match event {
                crate::Event::Closed(why) => reason = why,
                crate::Event::Restarted => self.events.push_back(MediaEvent::SourceRestarted),
                crate::Event::Validated => {}
            }
        }
        if reason == crate::CloseReason::Bye {
            let session = &active.session;
            self.departed = Some((session.ssrc(), session.max_sequence(), now));
        }
        self.set_aside();
        self.tell(MediaEvent::SourceEnded(reason));
    }

    /// The present source is over: what is left of it is delivered before all else.
    fn set_aside(&mut self) {
        if let Some(active) = self.active.take() {
            self.next_index = self.next_index.max(active.session.end());
            if let Some(before) = self.draining.replace(active.session) {
                self.past.add(&before.statistics());
            }
        }
        self.legs.finish();
        self.rtx.forget();
        if let Some(fec) = &mut self.fec {
            fec.clear();
        }
        if let Some(control) = &mut self.control {
            control.source_changed();
        }
    }
}

impl Active {
    fn new(session: Session, clock_rate: u32) -> Self {
        Active {
            session,
            clock_rate,
            spacing: Duration::ZERO,
            last_report: LastReport::default(),
            was_heard: false,
        }
    }

    #[cold]
    fn set_clock_rate(&mut self, hz: u32) {
        self.clock_rate = hz;
        self.session.set_clock_rate(hz);
    }

    /// A packet of it came.
    #[inline]
    fn heard(&mut self, now: Instant) {
        self.was_heard = true;
        let pause = now.saturating_since(self.session.last_heard());
        if pause > PAUSE {
            // The longest of late: it fades by a sixteenth each burst.
            self.spacing = pause.max(self.spacing - self.spacing / 16);
        }
    }

    /// Whether a number is neither of the present window nor of what a slower path may bring.
    fn is_elsewhere(&self, now: Instant, header: &Header) -> bool {
        let step = header.sequence.wrapping_sub(self.session.max_sequence());
        let step = i32::from(step.cast_signed());
        let goes_on = now.saturating_since(self.session.last_heard()) < MIN_SILENCE;
        let behind = if goes_on {
            MAX_BEHIND
        } else {
            i32::from(self.session.max_misorder())
        };
        step >= MAX_DROPOUT || step <= -behind
    }
}

/// The lowest of the numbers that were kept, within `reach` of `near`.
fn first_number(kept: &[Kept], near: u16, reach: u16) -> u16 {
    let numbers = kept
        .iter()
        .filter_map(|k| Header::parse(&k.datagram).ok())
        .map(|h| h.sequence);
    let distance = |n: u16| n.wrapping_sub(near).cast_signed();
    let near_enough = numbers.filter(|n| i32::from(distance(*n)) > -i32::from(reach));
    near_enough.min_by_key(|n| distance(*n)).unwrap_or(near)
}
