//! What a configured session is told of one m-line (RFC 4566 "media description"): filled from
//! an SDP or from `[[rtp.sessions]]`, read by [`super::Media`].

use core::net::SocketAddr;
use core::time::Duration;

/// A payload type that carries media (`a=rtpmap`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PayloadType {
    /// Its number, 0–127.
    pub number: u8,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
}

/// A payload type that carries retransmissions (RFC 4588, `a=fmtp:… apt=…`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RtxType {
    /// Its number, 0–127.
    pub number: u8,
    /// The payload type that it repeats.
    pub apt: u8,
}

/// Feedback that the sender takes (`a=rtcp-fb`, RFC 4585, RFC 5104): nothing else is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Feedback {
    /// Generic NACK.
    pub nack: bool,
    /// Picture loss indication.
    pub pli: bool,
    /// Full intra request.
    pub fir: bool,
    /// Feedback may travel without a report before it (RFC 5506, `a=rtcp-rsize`).
    pub reduced_size: bool,
    /// Least time between regular reports (`trr-int`, RFC 4585, 3.4); zero: our own choice of
    /// one second.
    pub trr_int: Duration,
}

impl Feedback {
    /// Whether any may be sent: then RTCP follows RFC 4585's timing, not RFC 3550's.
    pub const fn is_any(&self) -> bool {
        self.nack || self.pli || self.fir
    }
}

/// SMPTE ST 2022-1: the greatest matrix that is taken, at most 32 by 32. (The standard has 20
/// by 20, and L · D at most 100.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FecLimits {
    /// L, at most.
    pub columns: u8,
    /// D, at most.
    pub rows: u8,
}

impl Default for FecLimits {
    fn default() -> Self {
        FecLimits {
            columns: 20,
            rows: 20,
        }
    }
}

/// Our part in the session's RTCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtcpConfig {
    /// Our CNAME, at most 255 bytes.
    pub cname: String,
    /// Session bandwidth in bits a second (`b=AS`, `b=TIAS`); RTCP takes 5 % of it.
    pub bandwidth_bps: u64,
    /// `b=RS` and `b=RR` in bits a second, instead of the 5 %. An RR of 0: we send nothing.
    pub shares_bps: Option<(u64, u64)>,
    /// Where to send to. `None`: the address that the sender's RTCP comes from and, before it
    /// has sent any, that of its RTP, one port further unless `mux`.
    pub destination: Option<SocketAddr>,
    /// RTP and RTCP share a port (RFC 5761).
    pub mux: bool,
    /// There may be other receivers: the group's rules for the least interval apply.
    pub multicast: bool,
    /// The sender answers our reference time (`a=rtcp-xr:rcvr-rtt`, RFC 3611, 4.4), which
    /// tells the round-trip time.
    pub receiver_rtt: bool,
}

impl Default for RtcpConfig {
    fn default() -> Self {
        RtcpConfig {
            cname: String::new(),
            bandwidth_bps: 10_000_000,
            shares_bps: None,
            destination: None,
            mux: false,
            multicast: false,
            receiver_rtt: false,
        }
    }
}

/// One m-line of a configured session: one flow of packets with one numbering, which fills one
/// slot ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaConfig {
    /// Payload types that are taken; empty: any that is not in `rtx`, at 90 kHz.
    pub payload_types: Vec<PayloadType>,
    /// Payload types of retransmissions. They may come on the media port with an SSRC of
    /// their own, or on another port with the same SSRC (both RFC 4588): the caller hands in
    /// both alike.
    pub rtx: Vec<RtxType>,
    /// `a=ssrc-group:FID`: (media, RTX) pairs that are known beforehand; others are learned.
    pub rtx_ssrcs: Vec<(u32, u32)>,
    /// What the sender can be asked for.
    pub feedback: Feedback,
    /// SMPTE ST 2022-1; `None`: FEC packets are refused.
    pub fec: Option<FecLimits>,
    /// Payload types of FEC that comes on the media port (RFC 6015); on ports of its own any
    /// is taken.
    pub fec_payload_types: Vec<u8>,
    /// Paths that bring the same packets (SMPTE ST 2022-7): 1 or 2.
    pub legs: u8,
    /// `a=ssrc-group:DUP` (RFC 7198): pairs of SSRCs that bring the same packets: the second
    /// one's are taken for the first one's on the second path (`legs` is 2).
    pub duplicate_ssrcs: Vec<(u32, u32)>,
    /// SSRCs that are taken; empty: any, one at a time.
    pub ssrcs: Vec<u32>,
    /// How long a gap is waited for: reordering, retransmission, FEC and the second path must
    /// come within.
    pub jitter_buffer: Duration,
    /// If this is longer, a gap is waited for as long as the repair takes that is used, at least
    /// `jitter_buffer` and at most so long.
    pub max_jitter_buffer: Duration,
    /// Packets that may wait behind a gap, at most 2999. Two paths raise it to that, `fec` to
    /// two matrices.
    pub reorder_packets: u16,
    /// The source has ended when nothing is heard for so long.
    pub session_timeout: Duration,
    /// Our RTCP; `None`: none is sent.
    pub rtcp: Option<RtcpConfig>,
    /// Seeds our SSRC and the randomisation of intervals: from the OS.
    pub seed: u64,
}

impl Default for MediaConfig {
    fn default() -> Self {
        MediaConfig {
            payload_types: Vec::new(),
            rtx: Vec::new(),
            rtx_ssrcs: Vec::new(),
            feedback: Feedback::default(),
            fec: None,
            fec_payload_types: Vec::new(),
            legs: 1,
            duplicate_ssrcs: Vec::new(),
            ssrcs: Vec::new(),
            jitter_buffer: Duration::from_millis(50),
            max_jitter_buffer: Duration::ZERO,
            reorder_packets: 1024,
            session_timeout: Duration::from_secs(10),
            rtcp: None,
            seed: 0,
        }
    }
}
