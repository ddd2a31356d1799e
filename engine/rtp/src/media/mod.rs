//! A configured session's m-line: one flow of RTP packets that fills one slot ring, with all
//! that repairs it and all that is said about it. RFC 3550 (sources, RTCP), RFC 4585 and 5104
//! (feedback), RFC 4588 (retransmission), SMPTE ST 2022-1 (FEC), SMPTE ST 2022-7 (two paths).
//!
//! The shard hands in every datagram of the m-line's ports, and after each call drains
//! [`Media::poll_delivery`], [`Media::poll_transmit`] and [`Media::poll_event`], and asks
//! [`Media::poll_timeout`]. It releases the ring below [`Media::release_index`].

mod config;
mod control;
mod hold;
mod intake;
mod legs;
mod rtx;
mod sources;
mod statistics;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::{Delivery, Discard, Instant, SlotRing};

use control::{Control, OwnSsrc};
use hold::{Hold, Used};
use legs::Legs;
use rtx::Rtx;
use sources::Candidates;

pub use config::{FecLimits, Feedback, MediaConfig, PayloadType, RtcpConfig, RtxType};
pub use hold::{HoldCause, HoldFigures};
pub use statistics::{LegStatistics, MediaStatistics, RtcpCounts};

use crate::clock::ClockMap;
use crate::fec::FecDecoder;
use crate::report::LastReport;
use crate::rtcp::{self, ReportBlock};
use crate::{CloseReason, Config, Event, Header, Session, Statistics};

/// A path is down when the other has brought packets for so long since it did.
pub const LEG_TIMEOUT: Duration = Duration::from_secs(1);

/// What a port of the m-line is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Media and retransmissions, told apart by payload type.
    Media,
    /// SMPTE ST 2022-1 column FEC (port P + 2).
    FecColumn,
    /// SMPTE ST 2022-1 row FEC (port P + 4).
    FecRow,
}

/// Where a datagram came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The path, 0 or 1.
    pub leg: u8,
    /// The port's role.
    pub role: Role,
    /// The sender's address.
    pub from: SocketAddr,
}

/// An RTCP datagram to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The path whose RTCP socket sends it.
    pub leg: u8,
    /// Where to.
    pub to: SocketAddr,
    /// Its bytes, in the buffer that was given.
    pub length: usize,
}

/// What happened in a configured session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaEvent {
    /// A source passed its probation and is taken.
    SourceValid {
        /// Its SSRC.
        ssrc: u32,
    },
    /// Another source took over from the one before: a restart with a new SSRC.
    SourceChanged {
        /// Its SSRC.
        ssrc: u32,
    },
    /// The source restarted its numbering.
    SourceRestarted,
    /// The source is gone; the next one is waited for, unless [`Media::close`] ended it.
    SourceEnded(CloseReason),
    /// A path brings nothing any more, while the other one does.
    LegDown(u8),
    /// It does again.
    LegUp(u8),
}

/// A reorder window must hold two matrices of FEC, and with two paths what one lags behind.
const MAX_REORDER: u16 = 2999;
/// RTCP of sources that are not taken yet.
const MAX_EARLY_REPORTS: usize = 4;
const MAX_EARLY_BYTES: usize = 1500;
/// Events that wait to be asked for.
const MAX_EVENTS: usize = 64;

/// What a payload type is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unknown,
    /// Media, with its clock rate.
    Media(u32),
    /// Retransmissions of this payload type.
    Rtx(u8),
    /// FEC.
    Fec,
}

/// The source that is taken.
#[derive(Debug)]
struct Active {
    session: Session,
    clock_rate: u32,
    /// How long it is silent between bursts of packets.
    spacing: Duration,
    last_report: LastReport,
    /// RTP came since the last report block.
    was_heard: bool,
}

/// RTCP of a source before it was taken.
#[derive(Debug)]
struct EarlyReport {
    ssrc: u32,
    arrival: Instant,
    leg: u8,
    from: SocketAddr,
    datagram: Box<[u8]>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Media {
    config: MediaConfig,
    kinds: Box<[Kind; 128]>,
    active: Option<Active>,
    /// The source before, until the rest of it is delivered.
    draining: Option<Session>,
    candidates: Candidates,
    legs: Legs,
    hold: Hold,
    fec: Option<FecDecoder>,
    rtx: Rtx,
    control: Option<Control>,
    early_reports: Vec<EarlyReport>,
    /// A source that said BYE: its SSRC, last number, and when.
    departed: Option<(u32, u16, Instant)>,
    next_index: u64,
    /// Figures of sources that are gone.
    past: Statistics,
    statistics: MediaStatistics,
    events: VecDeque<MediaEvent>,
    is_closed: bool,
}

impl Media {
    /// Slot indexes begin at `next_index`.
    pub fn new(now: Instant, mut config: MediaConfig, next_index: u64) -> Self {
        let mut kinds = Box::new([Kind::Unknown; 128]);
        if config.payload_types.is_empty() {
            kinds.fill(Kind::Media(90_000));
        }
        for payload_type in &config.payload_types {
            if let Some(kind) = kinds.get_mut(usize::from(payload_type.number)) {
                *kind = Kind::Media(payload_type.clock_rate.max(1));
            }
        }
        for rtx in &config.rtx {
            if let Some(kind) = kinds.get_mut(usize::from(rtx.number)) {
                *kind = Kind::Rtx(rtx.apt);
            }
        }
        for number in &config.fec_payload_types {
            if let Some(kind) = kinds.get_mut(usize::from(*number)) {
                *kind = Kind::Fec;
            }
        }
        let fec = config.fec.map(FecDecoder::new);
        if let Some(limits) = config.fec {
            let matrices = 2 * u16::from(limits.columns) * u16::from(limits.rows);
            config.reorder_packets = config.reorder_packets.max(matrices);
        }
        if config.legs > 1 {
            config.reorder_packets = MAX_REORDER;
        }
        config.reorder_packets = config.reorder_packets.min(MAX_REORDER);
        let control = config.rtcp.as_ref().and_then(|rtcp| {
            let (feedback, hold) = (config.feedback, config.jitter_buffer);
            Control::new(now, rtcp, feedback, hold, config.seed)
        });
        Media {
            legs: Legs::new(now, config.legs),
            hold: Hold::new(&config),
            config,
            kinds,
            active: None,
            draining: None,
            candidates: Candidates::default(),
            fec,
            rtx: Rtx::default(),
            control,
            early_reports: Vec::new(),
            departed: None,
            next_index,
            past: Statistics::default(),
            statistics: MediaStatistics::default(),
            events: VecDeque::new(),
            is_closed: false,
        }
    }

    /// A compound RTCP datagram that came on `leg`.
    ///
    /// # Errors
    /// [`Discard::Runt`], [`Discard::MalformedRtcp`], [`Discard::ForeignSource`] (it is our
    /// own), [`Discard::Closed`].
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        arrival: Instant,
        leg: u8,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Discard> {
        let packets = rtcp::parse(datagram)?;
        if self.is_closed {
            return Err(Discard::Closed);
        }
        let sender = rtcp::sender_ssrc(datagram);
        if let Some(control) = &mut self.control {
            if sender == Some(control.ssrc()) {
                control.own_ssrc_from(now, from);
                return Err(Discard::ForeignSource);
            }
            control.schedule.count(datagram.len());
        }
        self.statistics.rtcp_received += 1;
        for packet in packets {
            self.statistics.rtcp.count(packet.packet_type);
            self.handle_packet(now, arrival, &packet);
        }
        let Some(active) = &mut self.active else {
            self.keep_early(arrival, leg, from, sender, datagram);
            return Ok(());
        };
        if active.session.handle_rtcp(now, arrival, datagram).is_err() {
            self.keep_early(arrival, leg, from, sender, datagram);
            return Ok(());
        }
        if sender == Some(active.session.ssrc()) {
            let rtp = self.legs.get_mut(leg).from;
            if let Some(control) = &mut self.control {
                control.learn_address(leg, from, rtp);
            }
        }
        Ok(())
    }

    /// One packet of a compound, whoever it is of.
    fn handle_packet(&mut self, now: Instant, arrival: Instant, packet: &rtcp::Packet<'_>) {
        if let Some(info) = packet.sender_info() {
            self.rtx.sender_report(arrival, info);
        }
        let Some(control) = &mut self.control else {
            return;
        };
        if let Some(ssrc) = packet.ssrc() {
            control.members.heard(now, ssrc);
        }
        for ssrc in packet.described() {
            control.members.heard(now, ssrc);
        }
        for ssrc in packet.leaving() {
            if control.members.left(ssrc) {
                let who = control.members.population();
                control.schedule.member_left(now, who);
            }
        }
        if let Some((last, delay)) = packet.receiver_delay(control.ssrc()) {
            control.reference_time_answered(arrival, last, delay);
        }
    }

    /// A source's RTCP may come before it is taken: its clock and name would be missing.
    fn keep_early(
        &mut self,
        arrival: Instant,
        leg: u8,
        from: SocketAddr,
        sender: Option<u32>,
        datagram: &[u8],
    ) {
        let is_report = datagram.get(1) == Some(&rtcp::SENDER_REPORT);
        let Some(ssrc) = sender.filter(|_| is_report && datagram.len() <= MAX_EARLY_BYTES) else {
            return;
        };
        self.early_reports.retain(|r| r.ssrc != ssrc);
        if self.early_reports.len() >= MAX_EARLY_REPORTS {
            self.early_reports.remove(0);
        }
        self.early_reports.push(EarlyReport {
            ssrc,
            arrival,
            leg,
            from,
            datagram: datagram.into(),
        });
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(active) = &mut self.active {
            active.session.handle_timeout(now);
            if active.session.is_closed() {
                self.end_source(now);
            }
        }
        self.statistics.packets_foreign += self.candidates.expire(now);
    }

    fn tell(&mut self, event: MediaEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    /// Writes the RTCP datagram that is due at `now`, if one is. 1500 bytes hold any.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let control = self.control.as_mut()?;
        if control.due() > now {
            return None;
        }
        let mut active = self.active.as_mut();
        if let Some(active) = &active {
            let session = &active.session;
            control.members.sent(session.last_heard(), session.ssrc());
        }
        let rtx = &mut self.rtx;
        let [first, second] = &self.legs.legs;
        let next = active.as_ref().map_or(0, |a| a.session.delivery_index());
        control.poll(
            now,
            [first.from, second.from],
            |blocks: &mut [ReportBlock; 2]| {
                let mut count = 0;
                let mut slots = blocks.iter_mut();
                let source = active.as_mut().and_then(|active| active.block(now));
                for block in source.into_iter().chain(rtx.block(now)) {
                    if let Some(slot) = slots.next() {
                        *slot = block;
                        count += 1;
                    }
                }
                (active.as_ref().map(|a| a.session.ssrc()), count, next)
            },
            out,
        )
    }

    /// The next packet in order, or after its gap was given up.
    #[inline]
    pub fn poll_delivery(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> {
        if self.hold.is_due(now) {
            self.look_at_hold(now);
        }
        if self.draining.is_some()
            && let Some(delivery) = self.drain(now, ring)
        {
            return Some(delivery);
        }
        self.active.as_mut()?.session.poll_delivery(now, ring)
    }

    /// Gaps are waited for as long as repair takes, where that was not set.
    #[cold]
    fn look_at_hold(&mut self, now: Instant) {
        let Some(active) = &mut self.active else {
            return;
        };
        let nack = self.control.as_mut().and_then(|c| c.nack.as_mut());
        let skew = self.legs.get_mut(0).statistics.skew_us.unsigned_abs();
        let used = Used {
            end: active.session.end(),
            fec_packets: self.fec.as_ref().map_or(0, FecDecoder::kept_slots),
            skew: Duration::from_micros(if self.legs.is_two() { skew } else { 0 }),
            nack: nack.as_ref().map(|nack| (nack.delay(), nack.rtt())),
        };
        if let Some(jitter_buffer) = self.hold.look(now, &used) {
            active.session.set_jitter_buffer(jitter_buffer);
            if let Some(nack) = nack {
                nack.set_hold(jitter_buffer);
            }
        }
    }

    /// How long a gap is waited for now.
    #[inline]
    pub fn jitter_buffer(&self) -> Duration {
        self.hold.figures().jitter_buffer
    }

    #[cold]
    fn drain(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> {
        let session = self.draining.as_mut()?;
        let delivery = session.poll_delivery(now, ring);
        if delivery.is_none() {
            self.past.add(&session.statistics());
            self.draining = None;
        }
        delivery
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        while let Some(event) = self.active.as_mut().and_then(|a| a.session.poll_event()) {
            if event == Event::Restarted {
                self.tell(MediaEvent::SourceRestarted);
            }
        }
        self.events.pop_front()
    }

    /// When `handle_timeout`, a transmission or a delivery is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut due = self
            .control
            .as_ref()
            .map_or(Instant::FAR_FUTURE, Control::due)
            .min(self.candidates.due());
        if let Some(active) = &self.active {
            due = due.min(active.session.poll_timeout().unwrap_or(Instant::FAR_FUTURE));
        }
        (due != Instant::FAR_FUTURE).then_some(due)
    }

    /// Everything before it is delivered or given up.
    pub fn delivery_index(&self) -> u64 {
        match (&self.draining, &self.active) {
            (Some(session), _) => session.delivery_index(),
            (None, Some(active)) => active.session.delivery_index(),
            (None, None) => self.next_index,
        }
    }

    /// Everything before it may leave the ring: it lies below [`Media::delivery_index`] while
    /// FEC may still need delivered packets.
    pub fn release_index(&self) -> u64 {
        let kept = self.fec.as_ref().map_or(0, FecDecoder::kept_slots);
        self.delivery_index().saturating_sub(kept)
    }

    /// A key frame is missing: asks the sender for one, if it takes such requests (PLI, else
    /// FIR), at most twice a second. `false`: it cannot be asked.
    pub fn request_key_frame(&mut self, now: Instant) -> bool {
        self.active.is_some()
            && self
                .control
                .as_mut()
                .is_some_and(|control| control.want_key_frame(now))
    }

    /// The sender's clock, once it has reported it.
    pub fn clock(&self) -> Option<ClockMap> {
        self.active.as_ref()?.session.clock()
    }

    /// The sender's CNAME, once it has told it.
    pub fn cname(&self) -> Option<&[u8]> {
        self.active.as_ref()?.session.cname()
    }

    /// Whether the two come from one sender, so that their clocks can be compared
    /// ([`ClockMap::nanos_after`]; RFC 3550, 6.5.1).
    pub fn shares_clock_with(&self, other: &Media) -> bool {
        self.clock().is_some()
            && other.clock().is_some()
            && self.cname().is_some()
            && self.cname() == other.cname()
    }

    /// The SSRC of the source that is taken.
    pub fn ssrc(&self) -> Option<u32> {
        self.active.as_ref().map(|a| a.session.ssrc())
    }

    /// The clock rate of payload type `number`, once the payload says another than the
    /// configuration.
    pub fn set_clock_rate(&mut self, number: u8, hz: u32) {
        if let Some(kind @ Kind::Media(_)) = self.kinds.get_mut(usize::from(number)) {
            *kind = Kind::Media(hz.max(1));
        }
    }

    /// Ends it: a BYE follows, if anything was ever sent.
    pub fn close(&mut self, now: Instant) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        if let Some(active) = &mut self.active {
            active.session.close(now);
            self.end_source(now);
        }
        if let Some(control) = &mut self.control {
            control.leave(now);
        }
    }

    /// Closed and nothing left to deliver or send.
    pub fn is_drained(&self) -> bool {
        self.is_closed
            && self.draining.as_ref().is_none_or(Session::is_drained)
            && self.control.as_ref().is_none_or(Control::has_left)
    }

    /// Figures.
    pub fn statistics(&self) -> MediaStatistics {
        let mut figures = self.statistics;
        figures.source = self.past;
        if let Some(session) = &self.draining {
            figures.source.add(&session.statistics());
        }
        if let Some(active) = &self.active {
            figures.source.add(&active.session.statistics());
        }
        figures.recovered_2022_7 = self.legs.recovered();
        figures.hold = self.hold.figures();
        figures.legs = self.legs.legs.each_ref().map(|leg| leg.statistics);
        if !self.legs.is_two() {
            let [leg, _] = &mut figures.legs;
            let repaired = figures.recovered_rtx + figures.recovered_fec;
            leg.packets_lost = figures.source.packets_dropped + repaired;
            leg.packets_late = figures.source.packets_late;
            leg.is_up = self.active.is_some();
        }
        if let Some(control) = &self.control {
            let (sent, who) = (control.sent, control.members.population());
            figures.nacks_sent = sent.nacks;
            figures.packets_nacked = sent.packets_nacked;
            figures.plis_sent = sent.plis;
            figures.firs_sent = sent.firs;
            figures.rtcp_sent = sent.compounds;
            figures.collisions = sent.collisions;
            figures.loops = sent.loops;
            figures.members = who.members;
            let rtt = control.nack.as_ref().and_then(|nack| nack.rtt());
            let rtt = rtt.map_or(0, |rtt| rtt.as_micros());
            figures.rtt_us = u32::try_from(rtt).unwrap_or(u32::MAX);
        }
        figures
    }
}

impl Active {
    /// The report block that is due, if RTP came since the last one.
    fn block(&mut self, now: Instant) -> Option<ReportBlock> {
        if !core::mem::take(&mut self.was_heard) {
            return None;
        }
        let figures = self.session.figures()?;
        Some(self.last_report.block(now, &figures))
    }
}

#[cfg(test)]
mod tests;
