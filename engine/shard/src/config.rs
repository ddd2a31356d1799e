//! What the daemon tells the shards: validated values, no files and no defaults of the product.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::ShardId;
use mirror_media::PayloadHint;
use mirror_stream::plan::SessionPlan;

/// Where one shard runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardPlacement {
    /// The core it is pinned to; `None`: wherever the scheduler puts it.
    pub core: Option<u32>,
}

/// The SRT listener.
#[derive(Clone, Debug)]
pub struct SrtConfig {
    /// UDP address of the listener, the same for all shards.
    pub listen: SocketAddr,
    /// Options of each connection.
    pub connection: mirror_srt::Config,
    /// Conclusions that one shard looks at in a second; inductions, which cost next to nothing,
    /// are bounded at eight times as many.
    pub handshakes_per_second: u32,
    /// Connections of one shard.
    pub max_connections: u32,
    /// Whether a stream ID without a mode means "publish" (`srt.default_mode`).
    pub default_publish: bool,
}

/// What a dynamic RTP payload type is configured to be: a hint, the bits overrule it.
#[derive(Clone, PartialEq, Debug)]
pub struct PayloadType {
    /// Format and format parameters.
    pub hint: PayloadHint,
    /// Clock rate of its timestamps, Hz.
    pub clock_rate: u32,
}

/// The RTP and RTCP ports for ad hoc sessions.
#[derive(Clone, Debug)]
pub struct RtpConfig {
    /// UDP address of RTP (and of RTCP that is multiplexed with it, RFC 5761).
    pub listen: SocketAddr,
    /// UDP address of RTCP.
    pub rtcp_listen: SocketAddr,
    /// Options of each session.
    pub session: mirror_rtp::Config,
    /// Sessions of one shard.
    pub max_sessions: u32,
    /// Whether sources get receiver reports.
    pub rtcp: bool,
    /// Longer datagrams are refused, bytes; those of configured sessions, too.
    pub max_packet_size: usize,
    /// Payload types by number, 128 of them.
    pub payload_types: Vec<Option<PayloadType>>,
}

/// Everything that [`crate::launch`] needs.
#[derive(Clone, Debug)]
pub struct ShardsConfig {
    /// One entry a shard; its place is its number.
    pub shards: Vec<ShardPlacement>,
    /// The SRT listener, if any.
    pub srt: Option<SrtConfig>,
    /// The RTP ports, if any.
    pub rtp: Option<RtpConfig>,
    /// Configured RTP sessions, of all shards in turn.
    pub rtp_sessions: Vec<SessionPlan>,
    /// What we call ourselves in RTCP (RFC 3550, 6.5.1).
    pub cname: String,
    /// Options of all sockets.
    pub sockets: mirror_uring::SocketOptions,
    /// Options of the rings.
    pub reactor: mirror_uring::ReactorConfig,
    /// Packet memory of one shard, bytes, mapped and touched at the start.
    pub pool_bytes_per_shard: usize,
    /// Packet memory of all shards together, bytes (`memory.total`): what streams may come to
    /// take beyond what was set aside.
    pub pool_bytes_total: usize,
    /// Whether what is set aside is made of huge pages.
    pub huge_pages: bool,
    /// SCHED_FIFO with this priority for the shards' threads; `None`: SCHED_OTHER.
    pub policy: Option<u8>,
    /// What each stream is given.
    pub stream: mirror_stream::StreamConfig,
    /// How long a stream waits for its publisher to return.
    pub reconnect_grace: Duration,
    /// A session that brings no complete frame for so long is ended.
    pub stream_timeout: Duration,
    /// Whether a second publisher takes a live stream over (`stream.on_conflict`).
    pub takeover: bool,
    /// Secret of the SRT cookies: one for the process, so that any shard can check any cookie.
    pub cookie_key: [u8; 16],
    /// Randomness for socket IDs, from the operating system.
    pub seed: u64,
    /// Streams of the whole engine; any shard may come to own all of them.
    pub max_streams: u32,
}

impl ShardsConfig {
    /// The configured RTP sessions that belong to `shard`.
    pub fn sessions_of(&self, shard: ShardId) -> impl Iterator<Item = &SessionPlan> {
        let count = self.shards.len().max(1);
        self.rtp_sessions.iter().skip(shard.index()).step_by(count)
    }
}
