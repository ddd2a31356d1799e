//! The listener's side before a connection exists (spec section 5): inductions are answered
//! without keeping anything, conclusions are checked and become [`ConnectRequest`]s.

use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use mirror_base::{Discard, Instant, PacketSequenceNumber};
use siphasher::sip::SipHasher13;

use super::cif::{CONCLUSION, EXT_HSREQ, EXT_KMREQ, HandshakeCif, INDUCTION, MAGIC, peer_ip_field};
use super::extensions::{Extensions, HsWords};
use super::flags;
use super::negotiation::{Latencies, has_key_answer, write_key_answer};
use crate::config::{Config, HSV5_MIN_VERSION};
use crate::crypto::{KeyLength, Terms};
use crate::packet::{Control, Header, MAX_DATAGRAM, Writer, timestamp};
use crate::reject::RejectionCode;

/// The stateless half of a listener: inductions, cookies, parsing of conclusions.
/// All shards of a process share the cookie key, so that any can check any cookie.
#[derive(Debug)]
pub struct Handshaker {
    config: Config,
    cookie_key: [u8; 16],
    /// The caller's socket ID to which a SHUTDOWN goes behind the reply.
    shutdown: Option<u32>,
}

/// What to do after a handshake datagram to socket ID 0.
#[derive(Debug)]
pub enum HandshakeAction {
    /// Send `out[..len]` back to where it came from (induction answered, or rejected).
    Reply(usize),
    /// A conclusion with a good cookie: find its owner, authorise it, then accept or reject.
    Conclude(Box<ConnectRequest>),
}

impl Handshaker {
    /// `cookie_key`: the process's secret.
    pub fn new(config: Config, cookie_key: [u8; 16]) -> Self {
        Handshaker {
            config,
            cookie_key,
            shutdown: None,
        }
    }

    /// A second datagram to the peer of the last [`HandshakeAction::Reply`], if there is one:
    /// writes it to `out`, returns its length. Callers of SRT before 1.3 (HSv4) do not know the
    /// rejection and take it for an acceptance; a SHUTDOWN they know (spec section 7).
    pub fn further_reply(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let header = Header {
            word0: Control::Shutdown.word0(),
            word1: 0,
            timestamp: timestamp(now, Instant::ZERO),
            destination: self.shutdown.take()?,
        };
        let mut writer = Writer::packet(out, header);
        writer.u32(0);
        Some(writer.finish())
    }

    /// A datagram with destination socket ID 0. `out` has at least 1500 bytes. The request's
    /// `arrival` is `now`: set it to the kernel's receive time where that is known.
    ///
    /// # Errors
    /// Why there is no answer: nothing was spent on the datagram but this look at it.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<HandshakeAction, Discard> {
        let (header, cif) = Header::parse(datagram).ok_or(Discard::Runt)?;
        // Spec section 22: one packet bounds what is parsed.
        if datagram.len() > MAX_DATAGRAM {
            return Err(Discard::TooLong);
        }
        if !header.is_control() || header.control() != Control::Handshake {
            // Only handshakes may go to socket ID 0 (spec section 1.1).
            return Err(Discard::UnknownSession);
        }
        self.shutdown = None;
        let (handshake, blocks) = HandshakeCif::parse(cif).ok_or(Discard::MalformedHandshake)?;
        if handshake.socket_id == 0 {
            return Err(Discard::MalformedHandshake);
        }
        match handshake.handshake_type {
            INDUCTION if !handshake.is_plausible() => Err(Discard::MalformedHandshake),
            INDUCTION => Ok(HandshakeAction::Reply(
                self.induct(now, peer, &handshake, out),
            )),
            CONCLUSION => self.conclude(now, peer, &header, &handshake, blocks, out),
            _ => Err(Discard::MalformedHandshake),
        }
    }

    /// Spec section 5.2: the request echoed with our version, the magic and the cookie; the
    /// socket ID stays the caller's, as libsrt has it.
    fn induct(
        &self,
        now: Instant,
        peer: SocketAddr,
        request: &HandshakeCif,
        out: &mut [u8],
    ) -> usize {
        let response = HandshakeCif {
            version: 5,
            encryption: self
                .config
                .advertised_key_length
                .map_or(0, KeyLength::to_field),
            extension: MAGIC,
            cookie: self.cookie(peer, minute(now)),
            peer_ip: peer_ip_field(peer),
            ..*request
        };
        response
            .begin(out, timestamp(now, Instant::ZERO), request.socket_id)
            .finish()
    }

    /// Spec section 5.5, steps 1, 2 and 6.
    fn conclude(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        header: &Header,
        handshake: &HandshakeCif,
        blocks: &[u8],
        out: &mut [u8],
    ) -> Result<HandshakeAction, Discard> {
        let minute = minute(now);
        let good = [minute, minute.wrapping_sub(1)]
            .into_iter()
            .any(|m| self.cookie(peer, m) == handshake.cookie);
        if !good {
            return Err(Discard::BadCookie);
        }
        let parsed = if handshake.version != 5 {
            // HSv4 is refused by policy (spec section 7).
            self.shutdown = (handshake.version == 4).then_some(handshake.socket_id);
            Err(RejectionCode::VERSION)
        } else if !handshake.is_plausible()
            || !handshake.has_room()
            || handshake.extension & EXT_HSREQ == 0
        {
            Err(RejectionCode::ROGUE)
        } else {
            Extensions::parse(blocks)
        };
        let request = parsed
            .and_then(|blocks| ConnectRequest::new(now, peer, header, handshake, blocks))
            .and_then(|request| request.check(&self.config).map(|()| request));
        match request {
            Ok(request) => Ok(HandshakeAction::Conclude(Box::new(request))),
            Err(code) => {
                let ts = timestamp(now, Instant::ZERO);
                Ok(HandshakeAction::Reply(rejection(
                    peer, handshake, ts, code, out,
                )))
            }
        }
    }

    /// Keyed hash of peer address, port and minute (spec section 5.2). Never 0, which in a
    /// request means "no cookie yet".
    fn cookie(&self, peer: SocketAddr, minute: u64) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.cookie_key);
        hash_address(peer, &mut hasher);
        hasher.write(&minute.to_be_bytes());
        cookie_of(&hasher)
    }

    /// The cookie of a rendezvous for [`Connection::rendezvous`](crate::Connection::rendezvous):
    /// nobody's guess, and the same in each attempt of this process to meet `peer` from `local`
    /// for `name`.
    pub fn rendezvous_cookie(&self, local: SocketAddr, peer: SocketAddr, name: &str) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.cookie_key);
        hasher.write(b"rendezvous");
        hash_address(local, &mut hasher);
        hash_address(peer, &mut hasher);
        hasher.write(name.as_bytes());
        cookie_of(&hasher)
    }
}

fn hash_address(address: SocketAddr, hasher: &mut SipHasher13) {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
    hasher.write(&address.port().to_be_bytes());
}

fn cookie_of(hasher: &SipHasher13) -> u32 {
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d]).max(1)
}

const fn minute(now: Instant) -> u64 {
    now.as_micros() / 60_000_000
}

/// Spec section 8: a handshake whose type is the code; the request's words are echoed, no
/// blocks follow.
fn rejection(
    peer: SocketAddr,
    request: &HandshakeCif,
    timestamp: u32,
    code: RejectionCode,
    out: &mut [u8],
) -> usize {
    let response = HandshakeCif {
        version: 5,
        handshake_type: code.wire(),
        peer_ip: peer_ip_field(peer),
        ..*request
    };
    response.begin(out, timestamp, request.socket_id).finish()
}

/// A parsed, plausible conclusion. Owned data only: it may cross to the owning shard.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Where it came from.
    pub peer: SocketAddr,
    /// When it reached the host: the peer's clock is anchored to it (12.1).
    pub arrival: Instant,
    /// The caller's socket ID.
    pub peer_socket_id: u32,
    /// Its initial sequence number.
    pub initial_sequence: PacketSequenceNumber,
    /// SRT version it announced.
    pub version: u32,
    /// HSREQ flags.
    pub flags: u32,
    /// The stream ID string as received (after un-reversing), not yet validated; `None` if absent.
    pub srt_stream_id: Option<Vec<u8>>,
    /// The KMREQ block's content (spec section 16.2), if the caller wants encryption.
    pub key_material: Option<Vec<u8>>,
    /// Whole IP packet that the caller offers.
    pub mss: u32,
    /// Flow window that the caller announced, packets.
    pub flow_window: u32,
    pub(crate) timestamp: u32,
    receive_ms: u16,
    send_ms: u16,
    congestion: Option<Vec<u8>>,
    filter: Option<Vec<u8>>,
    group_id: Option<u32>,
    handshake: HandshakeCif,
}

impl ConnectRequest {
    fn new(
        now: Instant,
        peer: SocketAddr,
        header: &Header,
        handshake: &HandshakeCif,
        blocks: Extensions,
    ) -> Result<Self, RejectionCode> {
        // Spec section 3: without extensions a version-5 conclusion is malformed; other blocks
        // are only valid with HSREQ.
        let hs = blocks.hs_request.ok_or(RejectionCode::ROGUE)?;
        Ok(ConnectRequest {
            peer,
            arrival: now,
            peer_socket_id: handshake.socket_id,
            initial_sequence: PacketSequenceNumber::new(handshake.initial_sequence),
            version: hs.version,
            flags: hs.flags,
            srt_stream_id: blocks.srt_stream_id.filter(|id| !id.is_empty()),
            key_material: blocks.km_request,
            mss: handshake.mss,
            flow_window: handshake.flow_window,
            timestamp: header.timestamp,
            receive_ms: hs.receive_ms,
            send_ms: hs.send_ms,
            congestion: blocks.congestion,
            filter: blocks.filter,
            group_id: blocks.group.map(|g| g.group_id),
            handshake: *handshake,
        })
    }

    /// Spec section 5.5, step 6: what a connection with `config` cannot serve, whoever asks.
    ///
    /// # Errors
    /// The code to reject with.
    pub fn check(&self, config: &Config) -> Result<(), RejectionCode> {
        if self.version < config.min_version {
            return Err(RejectionCode::VERSION);
        }
        if self.version < HSV5_MIN_VERSION || self.flags & flags::REXMITFLG == 0 {
            return Err(RejectionCode::ROGUE);
        }
        if self
            .congestion
            .as_ref()
            .is_some_and(|c| !c.is_empty() && c != b"live")
        {
            return Err(RejectionCode::CONGESTION);
        }
        if self.flags & flags::STREAM != 0 {
            return Err(RejectionCode::MESSAGEAPI);
        }
        // A responder without packet filters cannot agree to one (spec section 17).
        if self.filter.as_ref().is_some_and(|f| !f.is_empty()) {
            return Err(RejectionCode::FILTER);
        }
        if self.group_id.is_some() {
            return Err(RejectionCode::GROUP);
        }
        Ok(())
    }

    /// Identifies repeats of the same conclusion (5.5, step 3).
    pub fn key(&self) -> (SocketAddr, u32, PacketSequenceNumber) {
        (self.peer, self.peer_socket_id, self.initial_sequence)
    }

    /// Writes the rejection; returns its length.
    pub fn reject(&self, now: Instant, code: RejectionCode, out: &mut [u8]) -> usize {
        rejection(
            self.peer,
            &self.handshake,
            timestamp(now, Instant::ZERO),
            code,
            out,
        )
    }

    /// Receive latency that would be negotiated with `config`.
    pub fn negotiated_latency(&self, config: &Config) -> Duration {
        self.latencies(config).receive
    }

    /// Spec section 4.1, latency negotiation at the responder.
    pub(crate) fn latencies(&self, config: &Config) -> Latencies {
        let asked = HsWords {
            version: self.version,
            flags: self.flags,
            receive_ms: self.receive_ms,
            send_ms: self.send_ms,
        };
        Latencies::for_request(&asked, config)
    }

    /// Writes the conclusion response (spec section 5.5, step 7), its timestamp 0.
    pub(crate) fn write_response(
        &self,
        socket_id: u32,
        latencies: Latencies,
        config: &Config,
        terms: &Terms,
        out: &mut [u8],
    ) -> usize {
        let response = HandshakeCif {
            version: 5,
            // As libsrt has it: what was advertised; the key length stands in the KM message.
            encryption: config.advertised_key_length.map_or(0, KeyLength::to_field),
            extension: if has_key_answer(terms) {
                EXT_HSREQ | EXT_KMREQ
            } else {
                EXT_HSREQ
            },
            initial_sequence: self.initial_sequence.get(),
            mss: self.mss.min(u32::from(config.mss)),
            flow_window: config.window(),
            handshake_type: CONCLUSION,
            socket_id,
            cookie: self.handshake.cookie,
            peer_ip: peer_ip_field(self.peer),
        };
        let mut writer = response.begin(out, 0, self.peer_socket_id);
        latencies.response().write_response(&mut writer);
        write_key_answer(terms, &mut writer);
        writer.finish()
    }
}
