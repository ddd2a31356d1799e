//! One sender: its content, its protocol (SRT caller or listener, RTP, or SRT-shaped datagrams without ARQ
//! for the floor) and its socket. Driven by [`crate::generator`]; never blocks.

use std::io;
use std::net::SocketAddr;

use mirror_base::{Instant, PacketSequenceNumber, SlotRing};
use mirror_srt::{
    CallerSecurity, CipherPolicy, CloseReason, Connection, Event, KeyLength, Passphrase,
    RejectionCode, SendError, destination_socket_id,
};

use crate::content::rtp::RtpStream;
use crate::content::ts::{DATAGRAM, TsStream, Units};
use crate::impairment::Impairment;
use crate::listen::Listening;
use crate::wire::Wire;

/// Bytes of an SRT data packet's header (draft-sharabayko-srt-01, 3.1).
const SRT_HEADER: usize = 16;
/// RTP static payload type of MPEG-TS (RFC 3551).
const PAYLOAD_TYPE_MP2T: u8 = 33;

/// Where a sender stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// The handshake is going on.
    #[default]
    Connecting,
    /// It sends, or may.
    Ready,
    /// The connection ended before its time.
    Failed(Failure),
    /// Closed by us.
    Closed,
}

/// Why a sender failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No answer to the handshake.
    NoAnswer,
    /// Rejected with this code (SRT specification's section on rejections).
    Rejected(u32),
    /// The peer closed, went silent or broke the protocol.
    Lost,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Failure::NoAnswer => f.write_str("no answer to the handshake"),
            Failure::Rejected(code) => write!(f, "rejected: {}", RejectionCode(*code)),
            Failure::Lost => f.write_str("the connection was lost"),
        }
    }
}

/// What a sender has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct SenderStats {
    /// Where it stands.
    pub phase: Phase,
    /// Media packets handed to the protocol, each once.
    pub packets: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Packets that the protocol gave up (too late, buffer full), or the kernel refused.
    pub dropped: u64,
    /// Round-trip time, µs (SRT).
    pub rtt_us: u32,
    /// Packets not yet acknowledged (SRT).
    pub unacknowledged: u64,
    /// Complete video units sent.
    pub units: Units,
    /// Datagrams that left, of every kind.
    pub datagrams: u64,
    /// System calls for them.
    pub send_calls: u64,
}

/// What is sent.
#[derive(Debug)]
pub enum Content {
    /// MPEG-TS in SRT, RTP or plain.
    Ts(TsStream),
    /// RTP with an elementary stream.
    Rtp(RtpStream),
}

impl Content {
    fn next_due_ns(&self) -> u64 {
        match self {
            Content::Ts(ts) => ts.next_due_ns(),
            Content::Rtp(rtp) => rtp.next_due_ns(),
        }
    }

    fn units(&self) -> Units {
        match self {
            Content::Ts(ts) => ts.units(),
            Content::Rtp(rtp) => rtp.units(),
        }
    }
}

/// How it is sent.
#[derive(Debug)]
pub enum Transport {
    /// An SRT listener that nobody has called yet.
    Listening(Box<Listening>),
    /// An SRT connection.
    Srt {
        /// The connection.
        connection: Box<Connection>,
        /// Receives nothing; the connection's interface wants one.
        ring: Box<SlotRing>,
    },
    /// RTP with this SSRC and first sequence number (MP2T; native content has its own).
    Rtp {
        /// SSRC.
        ssrc: u32,
        /// First sequence number.
        first_sequence: u16,
    },
    /// Datagrams that look like SRT data packets to socket ID `id`.
    Shaped {
        /// Destination socket ID.
        id: u32,
    },
}

/// One sender.
#[derive(Debug)]
pub struct Sender {
    content: Content,
    transport: Transport,
    wire: Wire,
    stats: SenderStats,
    losses: Losses,
}

/// Data packets that an SRT sender loses on purpose, before they reach the wire: which ones
/// follows from the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    permille: u64,
    random: u64,
}

impl Losses {
    /// So many of a thousand.
    pub fn new(permille: u64, seed: u64) -> Self {
        // splitmix64's increment keeps seeds of 0 and neighbours apart
        let random = (seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Losses { permille, random }
    }

    fn hits(&mut self, datagram: &[u8]) -> bool {
        // SRT, 3: the first bit is clear in data packets
        if datagram.first().is_none_or(|byte| byte & 0x80 != 0) {
            return false;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < self.permille
    }
}

/// What an SRT sender needs to be told.
#[derive(Clone, Debug)]
pub struct SrtCall<'a> {
    /// Our socket ID.
    pub socket_id: u32,
    /// The first sequence number.
    pub initial_sequence: u32,
    /// The stream ID.
    pub stream_id: &'a str,
    /// The options.
    pub config: &'a mirror_srt::Config,
    /// Encryption; `None`: clear.
    pub security: Option<&'a SrtSecurity>,
}

/// How an SRT sender encrypts.
#[derive(Clone, Debug)]
pub struct SrtSecurity {
    /// The passphrase.
    pub passphrase: Passphrase,
    /// `None`: what the listener advertises, else 16 bytes.
    pub key_length: Option<KeyLength>,
    /// AES-CTR or AES-GCM.
    pub cipher: CipherPolicy,
}

/// Randomness for keys.
pub(crate) fn random_seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut seed, flags)? {
        32 => Ok(seed),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Sender {
    /// Opens the socket; an SRT caller also queues its first handshake datagram.
    pub fn srt(
        now: Instant,
        target: SocketAddr,
        content: TsStream,
        call: &SrtCall<'_>,
    ) -> io::Result<Self> {
        let wire = Wire::connect(target)?;
        let sequence = PacketSequenceNumber::new(call.initial_sequence);
        let security = match call.security {
            None => None,
            Some(s) => {
                let seed = random_seed()?;
                let caller = CallerSecurity::new(&s.passphrase, s.key_length, s.cipher, true, seed);
                Some(caller)
            }
        };
        let connection = Connection::connect(
            now,
            target,
            call.socket_id,
            sequence,
            call.stream_id,
            call.config,
            0,
            security,
        );
        let transport = Transport::Srt {
            connection: Box::new(connection),
            ring: Box::new(SlotRing::new()),
        };
        Ok(Sender {
            content: Content::Ts(content),
            transport,
            wire,
            stats: SenderStats::default(),
            losses: Losses::default(),
        })
    }

    /// An SRT listener on `local`; it sends to the first that calls.
    pub fn listening(
        local: SocketAddr,
        content: TsStream,
        socket_id: u32,
        config: &mirror_srt::Config,
        security: Option<&SrtSecurity>,
    ) -> io::Result<Self> {
        let listening = Listening::new(socket_id, config, security)?;
        Ok(Sender {
            content: Content::Ts(content),
            transport: Transport::Listening(Box::new(listening)),
            wire: Wire::bind(local)?,
            stats: SenderStats::default(),
            losses: Losses::default(),
        })
    }

    /// What passes is impaired from now on (of a listener: once it was called).
    pub fn impair(&mut self, impairment: &Impairment) {
        self.wire.impair(impairment);
    }

    /// From now on it loses packets on purpose.
    pub fn lose(&mut self, losses: Losses) {
        self.losses = losses;
    }

    /// A sender without a handshake.
    pub fn plain(target: SocketAddr, content: Content, transport: Transport) -> io::Result<Self> {
        let stats = SenderStats {
            phase: Phase::Ready,
            ..SenderStats::default()
        };
        Ok(Sender {
            content,
            transport,
            wire: Wire::connect(target)?,
            stats,
            losses: Losses::default(),
        })
    }

    /// Its socket's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.wire.local_addr()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.stats.phase
    }

    /// Figures.
    pub fn stats(&self) -> SenderStats {
        let mut stats = self.stats;
        let wire = self.wire.counters();
        stats.units = self.content.units();
        stats.datagrams = wire.datagrams;
        stats.send_calls = wire.calls;
        stats.dropped += wire.errors;
        if let Transport::Srt { connection, .. } = &self.transport {
            let srt = connection.statistics();
            stats.retransmitted = srt.pkt_retrans;
            stats.dropped += srt.pkt_snd_drop;
            stats.rtt_us = srt.rtt_us;
            stats.unacknowledged = u64::from(srt.pkt_snd_buf.max(srt.pkt_flight_size));
        }
        stats
    }

    /// Takes what arrived, sends what is due until `media_ns` (ns of media time; `None`: no
    /// media), and keeps the protocol's timers. Returns the number of media packets sent.
    pub fn drive(&mut self, now: Instant, unix_us: u64, media_ns: Option<u64>) -> u64 {
        let before = self.stats.packets;
        self.wire.set_now(now);
        self.accept(now);
        self.receive(now);
        if let (Phase::Ready, Some(until)) = (self.stats.phase, media_ns) {
            while self.content.next_due_ns() <= until {
                self.send_next(now, unix_us);
            }
        }
        self.transmit(now);
        self.wire.flush();
        self.stats.packets - before
    }

    /// Ends the session: SRT's SHUTDOWN, RTP's BYE.
    pub fn close(&mut self, now: Instant) {
        // a goodbye that is lost or late would look like a fault of the engine's
        self.wire.impair(&Impairment::default());
        match &mut self.transport {
            Transport::Srt { connection, .. } => {
                connection.close(now);
                self.transmit(now);
            }
            Transport::Rtp { ssrc, .. } => {
                // RFC 3550, 6.4.2 and 6.6: an empty receiver report, then BYE
                let room = self.wire.room();
                room[..4].copy_from_slice(&[0x80, 201, 0, 1]);
                room[4..8].copy_from_slice(&ssrc.to_be_bytes());
                room[8..12].copy_from_slice(&[0x81, 203, 0, 1]);
                room[12..16].copy_from_slice(&ssrc.to_be_bytes());
                self.wire.commit(16);
            }
            Transport::Shaped { .. } | Transport::Listening(_) => {}
        }
        self.wire.flush();
        if !matches!(self.stats.phase, Phase::Failed(_)) {
            self.stats.phase = Phase::Closed;
        }
    }

    /// A listener: has somebody called?
    fn accept(&mut self, now: Instant) {
        if let Transport::Listening(listening) = &mut self.transport
            && let Some(connection) = listening.accept(now, &mut self.wire)
        {
            self.transport = Transport::Srt {
                connection: Box::new(connection),
                ring: Box::new(SlotRing::new()),
            };
            self.stats.phase = Phase::Ready;
        }
    }

    fn receive(&mut self, now: Instant) {
        let Transport::Srt { connection, ring } = &mut self.transport else {
            return;
        };
        let mut buffer = [0; 2048];
        while let Some(datagram) = self.wire.receive(&mut buffer) {
            if destination_socket_id(datagram) == Some(0) {
                // our answer to its conclusion was lost
                connection.handle_repeated_conclusion(now);
                continue;
            }
            // what cannot be understood is the engine's fault and shows in the comparison
            let _ = connection.handle_datagram(now, now, datagram, ring);
        }
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now, ring);
        }
        while let Some(event) = connection.poll_event() {
            self.stats.phase = match (event, self.stats.phase) {
                (Event::Connected, _) => Phase::Ready,
                (Event::Closed(_), Phase::Closed) => Phase::Closed,
                (Event::Closed(CloseReason::Rejected(code)), _) => {
                    Phase::Failed(Failure::Rejected(code.0))
                }
                (Event::Closed(CloseReason::ConnectTimeout), _) => Phase::Failed(Failure::NoAnswer),
                (Event::Closed(_), _) => Phase::Failed(Failure::Lost),
            };
        }
    }

    fn transmit(&mut self, now: Instant) {
        if let Transport::Srt { connection, .. } = &mut self.transport {
            while self.losses.permille > 0 {
                let room = self.wire.room();
                let Some(len) = connection.poll_transmit(now, room) else {
                    return;
                };
                if !self.losses.hits(room) {
                    self.wire.commit(len);
                }
            }
            loop {
                let segments = self.wire.segments_left();
                let room = self.wire.room();
                let Some(batch) = connection.poll_transmit_batch(now, room, segments) else {
                    break;
                };
                self.wire.commit_run(batch.len, batch.segment_size);
            }
        }
    }

    fn send_next(&mut self, now: Instant, unix_us: u64) {
        let payload_bytes = match (&mut self.content, &mut self.transport) {
            (Content::Rtp(rtp), _) => {
                let (length, payload) = rtp.next(unix_us, self.wire.room());
                self.wire.commit(length);
                payload
            }
            // not ready: it is not asked to
            (Content::Ts(_), Transport::Listening(_)) => return,
            (Content::Ts(ts), Transport::Srt { connection, .. }) => {
                let mut payload = [0; DATAGRAM];
                ts.next(unix_us, &mut payload);
                match connection.send(now, &payload) {
                    Ok(()) => {}
                    // counted as a gap in the stream: the engine is not told of it by SRT
                    Err(SendError::BufferFull | SendError::NotConnected | SendError::TooLong) => {
                        self.stats.dropped += 1
                    }
                }
                DATAGRAM
            }
            (
                Content::Ts(ts),
                Transport::Rtp {
                    ssrc,
                    first_sequence,
                },
            ) => {
                let sequence = first_sequence.wrapping_add(ts.number() as u16);
                let ticks = ts.ticks() as u32;
                let room = self.wire.room();
                room[..2].copy_from_slice(&[0x80, PAYLOAD_TYPE_MP2T]);
                room[2..4].copy_from_slice(&sequence.to_be_bytes());
                room[4..8].copy_from_slice(&ticks.to_be_bytes());
                room[8..12].copy_from_slice(&ssrc.to_be_bytes());
                put_ts(ts, unix_us, room, 12);
                self.wire.commit(12 + DATAGRAM);
                DATAGRAM
            }
            (Content::Ts(ts), Transport::Shaped { id }) => {
                let sequence = ts.number() as u32 & PacketSequenceNumber::MAX;
                let room = self.wire.room();
                room[..4].copy_from_slice(&sequence.to_be_bytes());
                room[4..8].copy_from_slice(&(0xC000_0000 | sequence & 0x03FF_FFFF).to_be_bytes());
                room[8..12].copy_from_slice(&((now.as_micros()) as u32).to_be_bytes());
                room[12..16].copy_from_slice(&id.to_be_bytes());
                put_ts(ts, unix_us, room, SRT_HEADER);
                self.wire.commit(SRT_HEADER + DATAGRAM);
                DATAGRAM
            }
        };
        self.stats.packets += 1;
        self.stats.payload_bytes += payload_bytes as u64;
    }
}

fn put_ts(ts: &mut TsStream, unix_us: u64, room: &mut [u8], at: usize) {
    if let Some(payload) = room
        .get_mut(at..)
        .and_then(|r| r.first_chunk_mut::<DATAGRAM>())
    {
        ts.next(unix_us, payload);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::content::stamp::Stamp;
    use crate::content::ts::{TsShape, TsTemplate};
    use crate::content::{VideoCodec, VideoShape};

    fn content() -> TsStream {
        let video = VideoShape {
            codec: VideoCodec::H264,
            width: 640,
            height: 360,
            fps_num: 30,
            fps_den: 1,
            gop: 30,
            b_frames: 0,
        };
        TsStream::new(Arc::new(
            TsTemplate::new(TsShape {
                video,
                bitrate_bps: 2_000_000,
                audio: false,
            })
            .unwrap(),
        ))
    }

    #[test]
    fn rtp_mp2t_packets_are_numbered_timed_and_stamped() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let transport = Transport::Rtp {
            ssrc: 0x1234_5678,
            first_sequence: 65_535,
        };
        let mut sender = Sender::plain(
            receiver.local_addr().unwrap(),
            Content::Ts(content()),
            transport,
        )
        .unwrap();
        // a datagram each 5.264 ms: at 11 ms three are due
        sender.drive(Instant::from_millis(11), 77, Some(11_000_000));
        sender.close(Instant::from_millis(12));
        let mut buffer = [0; 2048];
        for (i, sequence) in [65_535u16, 0, 1].into_iter().enumerate() {
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 12 + DATAGRAM);
            assert_eq!(buffer[..2], [0x80, 33]);
            assert_eq!(buffer[2..4], sequence.to_be_bytes());
            assert_eq!(
                u32::from_be_bytes(buffer[4..8].try_into().unwrap()),
                (i as u32 * 5_264 * 9) / 100
            );
            assert_eq!(Stamp::find(&buffer[12..]).unwrap().number, i as u64);
        }
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 16);
        assert_eq!(buffer[9], 203);
        assert_eq!(sender.stats().packets, 3);
    }
}
