//! The caller's handshake (spec sections 5.1 to 5.6): induction, conclusion, both repeated until
//! answered. Driven by a connection that is not yet established.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, Instant, PacketSequenceNumber};

use super::cif::{
    CONCLUSION, EXT_CONFIG, EXT_HSREQ, EXT_KMREQ, HandshakeCif, INDUCTION, MAGIC, UDT_DGRAM,
    peer_ip_field,
};
use super::extensions::{Extensions, write_key_request, write_stream_id};
use super::negotiation::{Latencies, refusal, request_words};
use crate::config::Config;
use crate::crypto::{CallerSecurity, Terms};
use crate::packet::Header;
use crate::reject::RejectionCode;

/// Spec section 5.6.
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// What a handshake agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) peer_socket_id: u32,
    /// SRT version that the peer announced.
    pub(crate) peer_version: u32,
    pub(crate) mss: u32,
    pub(crate) flow_window: u32,
    pub(crate) flags: u32,
    /// Our receive latency.
    pub(crate) receive_latency: Duration,
    /// The peer's receive latency.
    pub(crate) peer_latency: Duration,
    /// The number that the peer's first packet has.
    pub(crate) initial_sequence: PacketSequenceNumber,
    /// The response's timestamp: anchors the peer's clock.
    pub(crate) timestamp: u32,
}

/// What a handshake datagram led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing new, or the conclusion is to be sent.
    Continue,
    /// The connection is made; [`Caller::take_terms`] has its keys.
    Connected(Agreed),
    /// It will not be.
    Rejected(RejectionCode),
    /// The listener has made it, but without the encryption that we insist on (spec section 8),
    /// or otherwise than we can: its socket is to be told by SHUTDOWN.
    Declined(RejectionCode, u32),
}

/// A connection being asked for.
#[derive(Debug)]
pub(crate) struct Caller {
    peer: SocketAddr,
    socket_id: u32,
    initial_sequence: PacketSequenceNumber,
    srt_stream_id: Vec<u8>,
    /// The listener's cookie, once the induction is answered.
    cookie: Option<u32>,
    next_request: Instant,
    give_up: Instant,
    /// Until the listener has answered.
    security: Option<CallerSecurity>,
    /// From then on.
    terms: Terms,
}

impl Caller {
    pub(crate) fn new(
        now: Instant,
        peer: SocketAddr,
        socket_id: u32,
        initial_sequence: PacketSequenceNumber,
        srt_stream_id: &str,
        config: &Config,
        security: Option<CallerSecurity>,
    ) -> Self {
        Caller {
            peer,
            socket_id,
            initial_sequence,
            srt_stream_id: srt_stream_id.as_bytes().to_vec(),
            cookie: None,
            next_request: now,
            give_up: now + config.connect_timeout,
            security,
            terms: Terms::Clear,
        }
    }

    /// What was agreed about encryption, for the connection that is made now.
    pub(crate) fn take_terms(&mut self) -> Terms {
        core::mem::replace(&mut self.terms, Terms::Clear)
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Instant {
        self.next_request.min(self.give_up)
    }

    /// Whether the connection timeout has come.
    pub(crate) fn has_given_up(&self, now: Instant) -> bool {
        now >= self.give_up
    }

    /// Writes the present request, if its time has come.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        timestamp: u32,
        config: &Config,
        out: &mut [u8],
    ) -> Option<usize> {
        if now < self.next_request {
            return None;
        }
        self.next_request = now + RETRY;
        let mut request = HandshakeCif {
            version: 4,
            encryption: 0,
            extension: UDT_DGRAM,
            initial_sequence: self.initial_sequence.get(),
            mss: u32::from(config.mss),
            flow_window: config.window(),
            handshake_type: INDUCTION,
            socket_id: self.socket_id,
            cookie: 0,
            peer_ip: peer_ip_field(self.peer),
        };
        let Some(cookie) = self.cookie else {
            return Some(request.begin(out, timestamp, 0).finish());
        };
        request.version = 5;
        request.extension = EXT_HSREQ;
        if !self.srt_stream_id.is_empty() {
            request.extension |= EXT_CONFIG;
        }
        let keys = self.security.as_ref().and_then(CallerSecurity::request);
        if let Some((advertised, _)) = keys {
            request.extension |= EXT_KMREQ;
            request.encryption = advertised;
        }
        request.handshake_type = CONCLUSION;
        request.cookie = cookie;
        // Spec section 5.4: the destination of a conclusion request stays 0.
        let mut writer = request.begin(out, timestamp, 0);
        request_words(config).write_request(&mut writer);
        write_stream_id(&self.srt_stream_id, &mut writer);
        if let Some((_, message)) = keys {
            write_key_request(message, &mut writer);
        }
        Some(writer.finish())
    }

    /// A handshake packet addressed to us.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        header: &Header,
        cif: &[u8],
        config: &Config,
    ) -> Result<Outcome, Discard> {
        let (handshake, blocks) = HandshakeCif::parse(cif).ok_or(Discard::MalformedHandshake)?;
        if let Some(code) = RejectionCode::from_wire(handshake.handshake_type) {
            return Ok(Outcome::Rejected(code));
        }
        if !handshake.is_plausible() {
            return Err(Discard::MalformedHandshake);
        }
        match (handshake.handshake_type, self.cookie) {
            (INDUCTION, None) => Ok(self.inducted(now, &handshake)),
            // A repeat of the induction response, or a conclusion we did not ask for.
            (INDUCTION, Some(_)) => Ok(Outcome::Continue),
            (CONCLUSION, Some(_)) => self.concluded(header, &handshake, blocks, config),
            _ => Err(Discard::MalformedHandshake),
        }
    }

    /// Spec section 5.3.
    fn inducted(&mut self, now: Instant, response: &HandshakeCif) -> Outcome {
        match (response.version, response.extension) {
            (5, MAGIC) => {
                if let Some(security) = &mut self.security
                    && let Err(code) = security.ask(response.encryption)
                {
                    return Outcome::Rejected(code);
                }
                self.cookie = Some(response.cookie);
                self.next_request = now;
                Outcome::Continue
            }
            (5, _) => Outcome::Rejected(RejectionCode::ROGUE),
            // An HSv4 listener: refused by policy (spec section 7).
            _ => Outcome::Rejected(RejectionCode::VERSION),
        }
    }

    fn concluded(
        &mut self,
        header: &Header,
        response: &HandshakeCif,
        blocks: &[u8],
        config: &Config,
    ) -> Result<Outcome, Discard> {
        // Spec section 5.5, step 7: both directions start at the caller's number.
        if response.version != 5
            || response.socket_id == 0
            || response.initial_sequence != self.initial_sequence.get()
        {
            return Err(Discard::MalformedHandshake);
        }
        let blocks = Extensions::parse(blocks).map_err(|_| Discard::MalformedHandshake)?;
        let Some(hs) = blocks.hs_response else {
            return Err(Discard::MalformedHandshake);
        };
        if let Some(code) = refusal(response, &blocks, &hs, config) {
            return Ok(Outcome::Declined(code, response.socket_id));
        }
        let latencies = Latencies::by_response(&hs, config);
        if let Some(security) = self.security.take() {
            match security.conclude(blocks.km_response.as_deref(), hs.version) {
                Ok(terms) => self.terms = terms,
                Err(code) => return Ok(Outcome::Declined(code, response.socket_id)),
            }
        }
        Ok(Outcome::Connected(Agreed {
            peer_socket_id: response.socket_id,
            peer_version: hs.version,
            mss: response.mss,
            flow_window: response.flow_window,
            flags: hs.flags,
            receive_latency: latencies.receive,
            peer_latency: latencies.peer,
            initial_sequence: self.initial_sequence,
            timestamp: header.timestamp,
        }))
    }
}
