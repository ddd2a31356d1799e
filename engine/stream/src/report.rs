//! What crosses between shards and control: commands down, events and snapshots up, and the
//! stream directory that shards ask during a handshake. No packet, ever.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use mirror_base::discard::DiscardCounts;
use mirror_base::{Instant, ShardId, StreamId};
use mirror_media::{Codec, Track};
use mirror_srt::{CallerSecurity, KeyQuestion, Security};

use crate::figures::Figures;
use crate::payload::PayloadFigures;
use crate::plan::SessionPlan;
use crate::rtp::MediaReport;

/// Which protocol brings a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// Secure Reliable Transport.
    Srt,
    /// Real-time Transport Protocol.
    Rtp,
}

impl Protocol {
    /// "srt" or "rtp", as the API and the metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Srt => "srt",
            Protocol::Rtp => "rtp",
        }
    }
}

/// Who began the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// The source came to us.
    Listener,
    /// We called the source.
    Caller,
}

/// The stream's life as the registry knows it (product contract, section 2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Status {
    /// Known, no session yet.
    #[default]
    Pending,
    /// A session is being set up.
    Connecting,
    /// Media arrives.
    Active,
    /// Paused by the operator.
    Paused,
    /// The session ended; the grace period runs.
    Reconnecting,
    /// Being taken down.
    Terminating,
    /// Gone; the record stays visible for a while.
    Terminated,
    /// Failed.
    Error,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 8] = [
        Status::Pending,
        Status::Connecting,
        Status::Active,
        Status::Paused,
        Status::Reconnecting,
        Status::Terminating,
        Status::Terminated,
        Status::Error,
    ];

    /// The name that the API and Redis show.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Connecting => "connecting",
            Status::Active => "active",
            Status::Paused => "paused",
            Status::Reconnecting => "reconnecting",
            Status::Terminating => "terminating",
            Status::Terminated => "terminated",
            Status::Error => "error",
        }
    }
}

/// What the pipeline does (product contract, section 2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum PipelineState {
    /// Set up, nothing received.
    #[default]
    Initializing,
    /// Waiting for the session.
    Connecting,
    /// Packets arrive, no frame yet.
    Buffering,
    /// Frames come out.
    Streaming,
    /// Media was damaged; waiting for a key frame.
    Recovering,
    /// The session ended; what is held is still delivered.
    Draining,
    /// Being taken down.
    Stopping,
}

impl PipelineState {
    /// The name that the API shows.
    pub const fn name(self) -> &'static str {
        match self {
            PipelineState::Initializing => "initializing",
            PipelineState::Connecting => "connecting",
            PipelineState::Buffering => "buffering",
            PipelineState::Streaming => "streaming",
            PipelineState::Recovering => "recovering",
            PipelineState::Draining => "draining",
            PipelineState::Stopping => "stopping",
        }
    }
}

/// One change of [`PipelineState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// From which state.
    pub from: PipelineState,
    /// To which state.
    pub to: PipelineState,
    /// Why, for people.
    pub reason: &'static str,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EndReason {
    /// SRT SHUTDOWN or RTCP BYE.
    PeerClosed,
    /// Nothing heard for the idle timeout.
    IdleTimeout,
    /// The operator (DELETE).
    Operator,
    /// The engine is draining.
    Drain,
    /// Another session took the stream over.
    TakenOver,
    /// The peer broke the protocol.
    PeerError,
    /// A broken invariant of ours: caught at the session boundary.
    InternalError,
    /// The handshake or the authorisation failed.
    Refused,
}

impl EndReason {
    /// The name that events, metrics and logs show.
    pub const fn name(self) -> &'static str {
        match self {
            EndReason::PeerClosed => "peer_closed",
            EndReason::IdleTimeout => "idle_timeout",
            EndReason::Operator => "operator",
            EndReason::Drain => "drain",
            EndReason::TakenOver => "taken_over",
            EndReason::PeerError => "peer_error",
            EndReason::InternalError => "internal_error",
            EndReason::Refused => "refused",
        }
    }
}

/// Control → shard. Sent through the shard's mailbox; each wakes the shard.
#[derive(Debug)]
pub enum Command {
    /// The answer to [`Event::Authorise`].
    Authorised {
        /// The ticket of the request.
        ticket: u64,
        /// Accept with these keys, or refuse with an SRT rejection code (wire value minus 1000).
        decision: Result<Box<Security>, u32>,
    },
    /// The answer to [`Event::CallKeys`].
    CallKeys {
        /// The stream that the call is to bring.
        stream_id: StreamId,
        /// The call's ticket.
        ticket: u64,
        /// Which question.
        number: u32,
        /// These keys, or why there are none: an SRT rejection code.
        decision: Result<Box<Security>, u32>,
    },
    /// Call an SRT listener, or meet a peer, and take its stream. Answered by [`Event::Started`] (mode caller,
    /// the stream's life begins or goes on) or by [`Event::CallFailed`]. `Terminate` for the
    /// same stream cancels it.
    Call(Box<CallRequest>),
    /// End a stream's session: the peer is told; not re-admitted for `block_for`.
    Terminate {
        /// Which stream.
        stream_id: StreamId,
        /// Why.
        reason: EndReason,
    },
    /// Keep the session and its ARQ alive, drop payload.
    Pause(StreamId),
    /// Go on at the next key frame.
    Resume(StreamId),
    /// Send a snapshot of everything now.
    Snapshot {
        /// Where it goes.
        reply: crossbeam_channel::Sender<Box<ShardSnapshot>>,
    },
    /// Send latency histograms: of one stream, or of the whole shard.
    Latency {
        /// A stream, or the shard.
        stream_id: Option<StreamId>,
        /// Start afresh after reading.
        reset: bool,
        /// Where they go; `None` when the shard does not have that stream.
        reply: crossbeam_channel::Sender<Option<Box<LatencySet>>>,
    },
    /// Open a configured RTP session. Answered by [`Event::Waiting`] too.
    OpenSession {
        /// What it consists of.
        plan: Box<SessionPlan>,
        /// Where the outcome goes: why it cannot be, for people.
        reply: crossbeam_channel::Sender<Result<(), String>>,
    },
    /// Stop accepting, tell every peer, end when all is flushed or at the deadline.
    Drain {
        /// How long it may take.
        within: Duration,
    },
}

/// Shard → control.
#[derive(Debug)]
pub enum Event {
    /// A publisher wants in; the handshake waits for [`Command::Authorised`].
    Authorise {
        /// Which shard asks.
        shard: ShardId,
        /// Names the request in the answer.
        ticket: u64,
        /// Everything known of the publisher.
        request: PublishRequest,
    },
    /// A rendezvous whose peer asks for encryption, or for none, waits for
    /// [`Command::CallKeys`].
    CallKeys {
        /// Which shard asks.
        shard: ShardId,
        /// The stream that the call is to bring.
        stream_id: StreamId,
        /// The call's ticket.
        ticket: u64,
        /// What is to be decided.
        question: KeyQuestion,
    },
    /// A call came to nothing: no stream began.
    CallFailed {
        /// Which shard.
        shard: ShardId,
        /// The call's ticket.
        ticket: u64,
        /// Which stream it was to bring.
        stream_id: StreamId,
        /// Why.
        failure: CallFailure,
        /// What the host said, where it is its fault.
        detail: Option<String>,
    },
    /// A configured RTP session waits for its media: its stream exists, and is pending.
    Waiting {
        /// Which shard.
        shard: ShardId,
        /// As if it asked to be let in; its peer is nobody yet.
        request: PublishRequest,
    },
    /// A session was accepted, or a call answered, and its stream exists.
    Started {
        /// Which shard.
        shard: ShardId,
        /// Which stream.
        stream_id: StreamId,
        /// Everything known of the publisher.
        request: PublishRequest,
        /// Whether an earlier session of the stream was still in its grace period.
        resumed: bool,
    },
    /// Tracks, status or pipeline state changed: the next snapshot has the details.
    Changed {
        /// Which shard.
        shard: ShardId,
        /// Which stream.
        stream_id: StreamId,
        /// Status after the change.
        status: Status,
    },
    /// The session ended. The stream waits for its publisher until `status` says otherwise.
    Ended {
        /// Which shard.
        shard: ShardId,
        /// Which stream.
        stream_id: StreamId,
        /// Why.
        reason: EndReason,
        /// Status after it: reconnecting, terminated or error.
        status: Status,
        /// The last state of the stream, so that its record keeps true figures.
        last: Box<StreamSnapshot>,
    },
    /// Once a second.
    Snapshot(Box<ShardSnapshot>),
    /// The shard has drained and ends, or has failed.
    Stopped {
        /// Which shard.
        shard: ShardId,
        /// What went wrong, if anything.
        error: Option<String>,
    },
}

/// An SRT listener to call, or a peer to meet.
#[derive(Debug)]
pub struct CallRequest {
    /// Names the call in the answer.
    pub ticket: u64,
    /// The stream that it brings.
    pub stream_id: StreamId,
    /// Whom to call.
    pub peer: SocketAddr,
    /// The SRT stream ID to present; may be empty.
    pub srt_stream_id: String,
    /// Receive latency; `None`: the configured one.
    pub latency: Option<Duration>,
    /// Encryption; `None`: clear.
    pub security: Option<CallerSecurity>,
    /// Tags of the stream.
    pub tags: Vec<String>,
    /// Rendezvous, from this address of ours and this port; `None`: an ordinary call.
    pub rendezvous: Option<SocketAddr>,
}

/// Why a call brought no stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallFailure {
    /// No answer within the connection timeout.
    Timeout,
    /// The listener refused; SRT rejection code (wire value minus 1000). Also what our own side
    /// found wrong with its answer (BADSECRET, UNSECURE, VERSION ...).
    Rejected(u32),
    /// Rendezvous: the peer greeted, but concluded nothing. It tells no reason; most often the
    /// passphrases differ.
    Unconcluded,
    /// Rendezvous: the local port cannot be had.
    NoPort,
    /// The stream is live here, or being called already.
    Conflict,
    /// No room for another session.
    NoRoom,
    /// Cancelled by control, or the shard is draining.
    Cancelled,
}

/// A publisher at the door.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// The stream it wants to publish.
    pub stream_id: StreamId,
    /// By which protocol.
    pub protocol: Protocol,
    /// Who called whom.
    pub mode: Mode,
    /// Its address.
    pub peer: SocketAddr,
    /// SRT: the string it sent, made printable and cut at 512 bytes; empty for RTP.
    pub srt_stream_id: String,
    /// SRT access-control `u`.
    pub user: Option<String>,
    /// Keys of the stream ID that have no meaning of their own: shown as tags `key=value`.
    pub tags: Vec<String>,
    /// SRT version the peer announced, 0 for RTP.
    pub peer_version: u32,
    /// Negotiated receive latency; zero for RTP.
    pub latency: Duration,
    /// The KMREQ block of an SRT conclusion, for [`Security::negotiate`]; `None` if the caller
    /// wants no encryption.
    pub key_material: Option<Vec<u8>>,
    /// A configured RTP session: nobody has to be asked.
    pub configured: bool,
}

/// Counters and gauges of one stream's session and pipeline. Counters only grow over the
/// stream's life, sessions added up. libsrt's meanings where libsrt has the figure.
#[derive(Clone, Debug, Default)]
pub struct StreamStats {
    /// Data packets received, retransmissions and duplicates included.
    pub packets_received: u64,
    /// First copies.
    pub packets_unique: u64,
    /// Payload bytes of first copies.
    pub bytes_received: u64,
    /// Losses seen before any repair (pktRcvLoss).
    pub packets_lost: u64,
    /// Packets that came again by ARQ or RTX.
    pub packets_retransmitted: u64,
    /// Never repaired: skipped as too late (pktRcvDrop).
    pub packets_dropped: u64,
    /// Arrived after their place was passed.
    pub packets_belated: u64,
    /// Already had.
    pub packets_duplicate: u64,
    /// Could not be decrypted.
    pub packets_undecryptable: u64,
    /// Arrived behind a later one (RTP, or SRT first copies).
    pub packets_reordered: u64,
    /// Payload bit rate of about the last second.
    pub bitrate_bps: u64,
    /// Smoothed round-trip time.
    pub rtt_us: u32,
    /// Its variance.
    pub rtt_variance_us: u32,
    /// Interarrival jitter (RFC 3550, A.8; SRT: of TSBPD time against arrival).
    pub jitter_us: u32,
    /// ACKs sent (full).
    pub acks_sent: u64,
    /// NAKs sent.
    pub naks_sent: u64,
    /// ACKACKs received.
    pub ackacks_received: u64,
    /// Link capacity estimate, packets a second.
    pub link_capacity_pps: u32,
    /// Packets held for TSBPD or reordering.
    pub packets_held: u64,
    /// Negotiated latency.
    pub latency_ms: u32,
    /// TSBPD drift, µs.
    pub drift_us: i64,
    /// Access units assembled, damaged ones included.
    pub frames_assembled: u64,
    /// Access units marked damaged.
    pub frames_damaged: u64,
    /// Of the damaged ones, those that came whole but cannot be decoded, since decoding began
    /// too late for them.
    pub frames_undecodable: u64,
    /// Units that came whole or not, and refer to pictures that never came: lost or left out
    /// where no transport shows it.
    pub frames_references_missing: u64,
    /// Access units dropped by policy or limits.
    pub frames_dropped: u64,
    /// Video access units.
    pub video_frames: u64,
    /// Key frames.
    pub key_frames: u64,
    /// P frames (and I frames that are no key frames).
    pub p_frames: u64,
    /// B frames.
    pub b_frames: u64,
    /// Audio access units.
    pub audio_frames: u64,
    /// GOPs of the main video track begun.
    pub gops: u64,
    /// Measured video frame rate, frames a second × 1000; 0 until known.
    pub frame_rate_milli: u32,
    /// MPEG-TS packets seen.
    pub ts_packets: u64,
    /// MPEG-TS continuity errors.
    pub continuity_errors: u64,
    /// Losses of the grid of MPEG-TS packets.
    pub sync_losses: u64,
    /// Ring: slots that its memory holds.
    pub ring_capacity_slots: u64,
    /// Ring: slots in use and not released.
    pub ring_used_slots: u64,
    /// Ring: bytes of its memory.
    pub ring_capacity_bytes: u64,
    /// Ring: bytes of the slots in use.
    pub ring_used_bytes: u64,
    /// Ring: bytes of one slot; more than the usual where datagrams are longer than a path of
    /// 1500 bytes takes.
    pub ring_slot_bytes: u64,
    /// Sessions of this stream so far.
    pub sessions: u32,
    /// What the present (or last) session delivered; `None` unless `diagnostics.payload_hash`.
    pub payload: Option<PayloadFigures>,
    /// Times that its peer went on from another address (NAT rebinding).
    pub peer_moves: u64,
    /// Reasons for discarded datagrams of this stream.
    pub discards: DiscardCounts,
}

/// A stream as its shard sees it now.
#[derive(Clone, Debug)]
pub struct StreamSnapshot {
    /// Which stream.
    pub stream_id: StreamId,
    /// Protocol.
    pub protocol: Protocol,
    /// Who called whom.
    pub mode: Mode,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Status.
    pub status: Status,
    /// Pipeline state.
    pub state: PipelineState,
    /// The state before.
    pub previous_state: PipelineState,
    /// The last transitions, oldest first, at most 32.
    pub transitions: Vec<Transition>,
    /// When the stream came into being.
    pub created_at: Instant,
    /// When its present session began.
    pub started_at: Instant,
    /// When the last packet came.
    pub last_packet_at: Option<Instant>,
    /// Elementary streams.
    pub tracks: Vec<Track>,
    /// "mpegts" or the RTP payload's codec.
    pub container: Option<&'static str>,
    /// Figures.
    pub stats: StreamStats,
    /// What its access units tell.
    pub figures: Box<Figures>,
    /// Figures of the present (or last) SRT session alone, under libsrt's names.
    pub srt: Option<Box<mirror_srt::Statistics>>,
    /// Figures of RTP, one entry for each medium; empty for SRT.
    pub rtp: Vec<MediaReport>,
    /// Encryption of the present (or last) SRT session: "aes-ctr-128" ... "aes-gcm-256";
    /// "none".
    pub encryption: &'static str,
}

impl StreamSnapshot {
    /// The first video track whose codec is known.
    pub fn video(&self) -> Option<&Track> {
        self.tracks.iter().find(|t| t.codec.is_video())
    }

    /// The first audio track whose codec is known.
    pub fn audio(&self) -> Option<&Track> {
        self.tracks.iter().find(|t| t.codec.is_audio())
    }

    /// The codec that stands for the stream: video's, else audio's.
    pub fn codec(&self) -> Codec {
        self.video()
            .or_else(|| self.audio())
            .map_or(Codec::Unknown, |t| t.codec)
    }
}

/// One UDP socket of a shard.
#[derive(Clone, Debug)]
pub struct SocketSnapshot {
    /// "srt", "rtp" or "rtcp".
    pub role: &'static str,
    /// Bound to.
    pub local: SocketAddr,
    /// Receive buffer that the kernel granted, bytes.
    pub receive_buffer: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Datagrams that the kernel dropped for lack of buffer (SO_RXQ_OVFL).
    pub kernel_drops: u64,
}

/// Counters of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardCounters {
    /// Times the thread slept and woke.
    pub wakeups: u64,
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Datagrams received on all sockets.
    pub datagrams_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams that could not be sent (socket buffer full, unreachable).
    pub send_errors: u64,
    /// `sendmmsg`/`sendmsg` calls.
    pub send_calls: u64,
    /// `UDP_SEGMENT` super-packets among what was sent, each of two or more datagrams.
    pub super_packets: u64,
    /// Multishot receives re-armed after ENOBUFS or an error.
    pub rearms: u64,
    /// Completion queue overflows.
    pub cq_overflows: u64,
    /// Handshakes handed over to the owning shard.
    pub handshakes_forwarded: u64,
    /// Datagrams of sessions of other shards.
    pub foreign_datagrams: u64,
    /// Inductions answered.
    pub inductions: u64,
    /// Conclusions accepted.
    pub accepted: u64,
    /// Conclusions refused, whatever the code.
    pub rejected: u64,
    /// Calls begun.
    pub calls: u64,
    /// Calls that came to nothing.
    pub calls_failed: u64,
    /// SRT peers that went on from another address (NAT rebinding) and were followed.
    pub peer_moves: u64,
    /// Sessions that died of a broken invariant (caught panic).
    pub session_panics: u64,
    /// Mailbox messages lost because control does not read (events) – never commands.
    pub events_dropped: u64,
    /// Discarded datagrams that belong to no stream.
    pub discards: DiscardCounts,
}

/// A shard as it sees itself now.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    /// Which shard.
    pub shard: ShardId,
    /// The core it is pinned to, if it is.
    pub core: Option<u32>,
    /// When this was taken.
    pub at: Instant,
    /// CPU time of the shard's thread so far, ns.
    pub cpu_ns: u64,
    /// Sessions now: SRT connections and RTP sources. A stream in its grace period has none.
    pub sessions: u64,
    /// Half-open handshakes waiting for an answer.
    pub handshakes_pending: u64,
    /// Calls waiting for an answer; they are among the sessions.
    pub calls_pending: u64,
    /// Chunk pool: chunks of 48 KiB in all.
    pub pool_chunks: u64,
    /// Chunk pool: free ones.
    pub pool_free: u64,
    /// Counters.
    pub counters: ShardCounters,
    /// Sockets.
    pub sockets: Vec<SocketSnapshot>,
    /// Streams.
    pub streams: Vec<StreamSnapshot>,
}

/// Latency histograms, µs (D13).
#[derive(Clone, Debug)]
pub struct LatencySet {
    /// Kernel receive timestamp → handled by the protocol.
    pub receive: hdrhistogram::Histogram<u32>,
    /// Handled → TSBPD due time: the protocol's hold, not ours.
    pub hold: hdrhistogram::Histogram<u32>,
    /// The datagram that completes an access unit released → unit complete.
    pub assemble: hdrhistogram::Histogram<u32>,
    /// Receive + release lateness + assemble: what the engine adds.
    pub total: hdrhistogram::Histogram<u32>,
}

/// What the directory says of a publisher's wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reservation {
    /// The stream belongs (from now on) to this shard.
    Owner(ShardId),
    /// The engine takes no more streams.
    Full,
    /// The stream is blocked for now (terminated by the operator).
    Blocked,
}

/// Stream ID → shard. Asked only during handshakes; a short lock is allowed there.
///
/// A reservation only pins a stream to a shard; who may publish is decided afterwards. It
/// counts as load at once and expires after 3 s unless it is confirmed.
pub trait StreamDirectory: Send + Sync + core::fmt::Debug {
    /// The shard of `stream_id`: that of the existing stream or reservation, else `local` or
    /// the least-loaded one, which is reserved.
    fn reserve(&self, now: Instant, stream_id: &StreamId, local: ShardId) -> Reservation;
    /// The same, but never another shard than `local` for a new stream: its packets come there.
    fn reserve_here(&self, now: Instant, stream_id: &StreamId, local: ShardId) -> Reservation;
    /// A publisher was let in: whether one more stream may come to be. If so its reservation
    /// has become a place of its own, which only `release` gives back.
    fn admit(&self, stream_id: &StreamId, shard: ShardId) -> bool {
        self.confirm(stream_id, shard);
        true
    }
    /// The stream now exists on `shard`.
    fn confirm(&self, stream_id: &StreamId, shard: ShardId);
    /// The stream (or its reservation) is gone.
    fn release(&self, stream_id: &StreamId, shard: ShardId);
    /// The stream that a publisher without a stream ID gets, if any (`srt.default_stream`).
    fn default_stream(&self, peer_ip: IpAddr, peer_port: u16) -> Option<StreamId>;
    /// Whether the publisher of `stream_id`, who was let in from `from`, might as well have come
    /// from `to` (`[[publishers]]`): its address may have changed.
    fn may_move(&self, stream_id: &StreamId, from: IpAddr, to: IpAddr) -> bool {
        let _ = (stream_id, from, to);
        true
    }
}

/// The directory as shards hold it.
pub type SharedDirectory = Arc<dyn StreamDirectory>;
