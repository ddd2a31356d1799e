//! A configured session's m-line: one flow of RTP packets that fills one slot ring, with all
//! that repairs it and all that is said about it. RFC 3550 (sources, RTCP), RFC 4585 and 5104
//! (feedback), RFC 4588 (retransmission), SMPTE ST 2022-1 (FEC), SMPTE ST 2022-7 (two paths).
//!
//! The shard hands in every datagram of the m-line's ports, and after each call drains
//! [`Media::poll_delivery`], [`Media::poll_transmit`] and [`Media::poll_event`], and asks
//! [`Media::poll_timeout`]. It releases the ring below [`Media::release_index`].

mod config;
mod statistics;

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Delivery, Discard, Instant, SlotRing};

pub use config::{FecLimits, Feedback, MediaConfig, PayloadType, RtcpConfig, RtxType};
pub use statistics::{LegStatistics, MediaStatistics, RtcpCounts};

use crate::clock::{ClockMap, SenderClock};
use crate::{CloseReason, Config, Event, Header, Session};

/// A path on which nothing came for so long, while the other brings packets, is down.
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

/// See the module's page.
#[derive(Debug)]
pub struct Media {
    config: MediaConfig,
    session: Option<Session>,
    next_index: u64,
    clock: SenderClock,
    statistics: MediaStatistics,
    events: std::collections::VecDeque<MediaEvent>,
    closed: bool,
}

impl Media {
    /// Slot indexes begin at `next_index`.
    pub fn new(_now: Instant, config: MediaConfig, next_index: u64) -> Self {
        let clock_rate = config
            .payload_types
            .first()
            .map_or(90_000, |p| p.clock_rate);
        Media {
            config,
            session: None,
            next_index,
            clock: SenderClock::new(clock_rate),
            statistics: MediaStatistics::default(),
            events: std::collections::VecDeque::new(),
            closed: false,
        }
    }

    /// A datagram of an RTP or FEC port (RTCP on the same port goes to
    /// [`Media::handle_rtcp`]).
    ///
    /// # Errors
    /// Those of [`Header::parse`], [`Session::handle_rtp`], [`Discard::UnknownPayloadType`],
    /// [`Discard::ForeignSource`] and, for FEC and RTX, [`Discard::MalformedControl`].
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        arrival: Instant,
        origin: &Origin,
        datagram: &[u8],
        ring: &mut SlotRing,
    ) -> Result<(), Discard> {
        if self.closed {
            return Err(Discard::Closed);
        }
        if origin.role != Role::Media {
            return Err(Discard::UnsupportedPayload);
        }
        let header = Header::parse(datagram)?;
        let next_index = self.next_index.max(ring.next_index());
        let session = self.session.get_or_insert_with(|| {
            let options = Config {
                reorder_packets: self.config.reorder_packets,
                jitter_buffer: self.config.jitter_buffer,
                session_timeout: self.config.session_timeout,
                clock_rate: 90_000,
            };
            Session::new(now, header.ssrc, &options, next_index)
        });
        session.handle_rtp(now, arrival, &header, datagram, ring)
    }

    /// A compound RTCP datagram.
    ///
    /// # Errors
    /// [`Discard::Runt`], [`Discard::MalformedRtcp`], [`Discard::UnknownSession`] when it is
    /// about nothing of ours, [`Discard::Closed`].
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        arrival: Instant,
        _leg: u8,
        _from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Discard> {
        let session = self.session.as_mut().ok_or(Discard::UnknownSession)?;
        session.handle_rtcp(now, arrival, datagram)?;
        if let Some(report) = session.sender_report() {
            self.clock.update(report.arrival, &report.info);
        }
        Ok(())
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
        }
    }

    /// Writes the RTCP datagram that is due at `now`, if one is. 1500 bytes hold any.
    pub fn poll_transmit(&mut self, _now: Instant, _out: &mut [u8]) -> Option<Transmit> {
        None
    }

    /// The next packet in order, or after its gap was given up.
    #[inline]
    pub fn poll_delivery(&mut self, now: Instant, ring: &SlotRing) -> Option<Delivery> {
        self.session.as_mut()?.poll_delivery(now, ring)
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        while let Some(event) = self.session.as_mut().and_then(Session::poll_event) {
            let ssrc = self.ssrc().unwrap_or(0);
            self.events.push_back(match event {
                Event::Validated => MediaEvent::SourceValid { ssrc },
                Event::Restarted => MediaEvent::SourceRestarted,
                Event::Closed(reason) => MediaEvent::SourceEnded(reason),
            });
        }
        self.events.pop_front()
    }

    /// When `handle_timeout`, a transmission or a delivery is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.session.as_ref()?.poll_timeout()
    }

    /// Everything before it is delivered or given up.
    pub fn delivery_index(&self) -> u64 {
        let session = self.session.as_ref();
        session.map_or(self.next_index, Session::delivery_index)
    }

    /// Everything before it may leave the ring: it lies below [`Media::delivery_index`] while
    /// FEC may still need delivered packets.
    pub fn release_index(&self) -> u64 {
        self.delivery_index()
    }

    /// A key frame is missing: asks the sender for one, if it takes such requests (PLI, else
    /// FIR), at most once in a while. `false`: it cannot be asked.
    pub fn request_key_frame(&mut self, _now: Instant) -> bool {
        false
    }

    /// The sender's clock, once it has reported it.
    pub fn clock(&self) -> Option<ClockMap> {
        self.clock.map()
    }

    /// The sender's CNAME, once it has told it.
    pub fn cname(&self) -> Option<&[u8]> {
        self.session.as_ref().and_then(Session::cname)
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
        self.session.as_ref().map(Session::ssrc)
    }

    /// The clock rate, once the payload says another than the configuration.
    pub fn set_clock_rate(&mut self, hz: u32) {
        self.clock.set_clock_rate(hz);
        if let Some(session) = &mut self.session {
            session.set_clock_rate(hz);
        }
    }

    /// Ends it: a BYE follows, if anything was ever sent.
    pub fn close(&mut self, now: Instant) {
        self.closed = true;
        if let Some(session) = &mut self.session {
            session.close(now);
        }
    }

    /// Closed and nothing left to deliver or send.
    pub fn is_drained(&self) -> bool {
        self.closed && self.session.as_ref().is_none_or(Session::is_drained)
    }

    /// Figures.
    pub fn statistics(&self) -> MediaStatistics {
        let source = self.session.as_ref().map(Session::statistics);
        MediaStatistics {
            source: source.unwrap_or_default(),
            ..self.statistics
        }
    }
}
