//! Options of a connection (spec section 20), and the bounds that protect us from a peer.
//! Read by the handshake and by each connection when it begins.

use core::time::Duration;

use crate::crypto::KeyLength;

/// Options of a connection; libsrt's names and defaults (spec section 20).
#[derive(Clone, Debug)]
pub struct Config {
    /// Our receive latency (RCVLATENCY), before negotiation.
    pub latency: Duration,
    /// The least latency we ask of the peer (PEERLATENCY).
    pub peer_latency: Duration,
    /// Clamps the latency that a peer may demand of us.
    pub max_latency: Duration,
    /// Whole IP packet.
    pub mss: u16,
    /// Flow window we announce, packets (FC).
    pub flow_window: u32,
    /// Payload of one packet when sending.
    pub payload_size: u16,
    /// Connection is broken when nothing is heard for so long; 1.5 s at the least, since peers that
    /// pause send a keepalive each second.
    pub peer_idle_timeout: Duration,
    /// A caller gives up after so long.
    pub connect_timeout: Duration,
    /// Peers below this SRT version are rejected (0x00MMmmpp).
    pub min_version: u32,
    /// Sender: packets held for retransmission.
    pub send_buffer_packets: u32,
    /// Sender: MAXBW in bytes a second; 0: `input_bandwidth` decides.
    pub max_bandwidth: u64,
    /// Sender: what pacing follows where `max_bandwidth` is 0 (INPUTBW).
    pub input_bandwidth: InputBandwidth,
    /// Sender: allowance for retransmissions on top of `input_bandwidth`, 5 to 100 per cent
    /// (OHEADBW).
    pub overhead_percent: u8,
    /// Sender: packets older than the peer's latency and this, at least a second, are dropped
    /// (SNDDROPDELAY); `None`: never.
    pub send_drop_delay: Option<Duration>,
    /// Sender: the oldest packet and the newest are sent again unasked when the ACK of the oldest
    /// is long overdue. libsrt does not.
    pub repeat_overdue: bool,
    /// Packets encrypted with one key (KMREFRESHRATE).
    pub refresh_packets: u32,
    /// The next key is announced so many packets before it is used (KMPREANNOUNCE).
    pub announce_packets: u32,
    /// Listener: key length advertised to callers that have chosen none (PBKEYLEN).
    pub advertised_key_length: Option<KeyLength>,
    /// Largest reorder tolerance, packets (LOSSMAXTTL); 0: a gap is reported at once.
    pub loss_max_ttl: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            latency: Duration::from_millis(120),
            peer_latency: Duration::ZERO,
            max_latency: Duration::from_secs(8),
            mss: 1500,
            flow_window: 25_600,
            payload_size: 1316,
            peer_idle_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            min_version: 0x0001_0000,
            send_buffer_packets: 8192,
            max_bandwidth: 0,
            input_bandwidth: InputBandwidth::Unlimited,
            overhead_percent: 25,
            send_drop_delay: Some(Duration::ZERO),
            repeat_overdue: true,
            refresh_packets: 1 << 24,
            announce_packets: 1 << 16,
            advertised_key_length: None,
            loss_max_ttl: 0,
        }
    }
}

/// What a sender's pacing follows (spec section 15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InputBandwidth {
    /// Nothing is paced.
    #[default]
    Unlimited,
    /// The input's rate in bytes a second, headers included (INPUTBW).
    Fixed(u64),
    /// The rate at which payloads are submitted, as it is measured.
    Measured {
        /// Bytes a second at the least (MININPUTBW).
        least: u64,
    },
}

/// The SRT version we announce, 0x00MMmmpp: peers choose the variant of AES-GCM by it, and from
/// 1.5.4 on it is the current one (spec section 16.4).
pub(crate) const OUR_VERSION: u32 = 0x0001_0505;

/// HSv5 does not exist below SRT 1.3.0 (spec section 4.1).
pub(crate) const HSV5_MIN_VERSION: u32 = 0x0001_0300;

/// Bytes of IP, UDP and SRT headers that libsrt counts with each packet (spec section 20).
pub(crate) const HEADERS_LEN: u64 = 44;

/// No latency beyond this is ever agreed: the wrap of the 32-bit timestamp is decided within
/// 30 s (spec section 12.3), and a held packet must not outlive that.
pub(crate) const LATENCY_LIMIT: Duration = Duration::from_secs(20);

/// Most packets in a window, whatever is configured or announced.
pub(crate) const MAX_WINDOW: u32 = 1 << 20;

impl Config {
    /// The greatest latency that may be agreed.
    pub(crate) fn latency_limit(&self) -> Duration {
        self.max_latency.min(LATENCY_LIMIT)
    }

    /// The window we announce, within bounds (FC is at least 32: spec section 20).
    pub(crate) fn window(&self) -> u32 {
        self.flow_window.clamp(32, MAX_WINDOW)
    }
}

/// Whole milliseconds of a latency, as the 16-bit words of HSREQ carry it.
pub(crate) fn latency_ms(latency: Duration) -> u16 {
    u16::try_from(latency.as_millis()).unwrap_or(u16::MAX)
}
