//! What a configured RTP session consists of: its media, where each is received, and what
//! repairs it. Made from a session description ([`from_sdp`]) or key by key from
//! `[[rtp.sessions]]`; `control` validates it, the owning shard opens its sockets and runs it.

mod sdp;
#[cfg(test)]
mod tests;

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use mirror_base::{AddressRange, StreamId};
use mirror_media::{Format, FormatParameters, PayloadFormat, PayloadHint};
use mirror_rtp::MediaConfig;
use mirror_rtp::media::Role;

use crate::MAX_LANES;

pub use mirror_rtp::media::{FecLimits, Feedback, PayloadType, RtxType};
pub use mirror_rtp::sdp::{MAX_BYTES as MAX_SDP_BYTES, SdpError};
pub use sdp::from_sdp;

/// Sockets of one session at the most: eight media of one path each with RTP, RTCP and two of
/// FEC, or four of two paths.
pub const MAX_PORTS: usize = 32;
/// Sources of a port, and ranges of a session, at the most.
pub const MAX_SOURCES: usize = 64;

/// A configured RTP session.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionPlan {
    /// The stream that it brings.
    pub stream_id: StreamId,
    /// Tags of the stream.
    pub tags: Vec<String>,
    /// Who may send to it; everybody when empty.
    pub sources: Vec<AddressRange>,
    /// Its media, each a lane of the stream: 1 to [`MAX_LANES`].
    pub media: Vec<MediaPlan>,
}

/// One medium: an `m=` line with its repair and its second path.
#[derive(Clone, PartialEq, Debug)]
pub struct MediaPlan {
    /// What its payload types carry, the usual one first; at least one.
    pub formats: Vec<PayloadPlan>,
    /// How it is received. CNAME and seed are the shard's to fill in.
    pub rtp: MediaConfig,
    /// Where it is received.
    pub ports: Vec<PortPlan>,
}

/// What a payload type carries.
#[derive(Clone, PartialEq, Debug)]
pub struct PayloadPlan {
    /// Its number.
    pub number: u8,
    /// Format and format parameters.
    pub hint: PayloadHint,
    /// Hz.
    pub clock_rate: u32,
}

impl PayloadPlan {
    /// Reads "H264", "L16/48000/2" or "MPEG4-GENERIC/48000/2 mode=AAC-hbr;config=1190": what
    /// stands behind the payload type in `a=rtpmap:` and, after a blank, in `a=fmtp:`.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(number: u8, text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (map, fmtp) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = map.split('/');
        let name = parts.next().unwrap_or("");
        // As HEVC is often called.
        let name = if name.eq_ignore_ascii_case("HEVC") {
            "H265"
        } else {
            name
        };
        let Some(format) = PayloadFormat::from_encoding_name(name) else {
            let known = PayloadFormat::ALL.iter();
            let names: Vec<&str> = known.map(|f| f.encoding_name()).collect();
            return Err(format!("must be one of {}", names.join(", ")));
        };
        let clock_rate = match parts.next() {
            None => format.clock_rate(),
            Some(rate) => rate
                .parse()
                .ok()
                .filter(|rate| *rate > 0)
                .ok_or("the clock rate behind the name must be a number above 0")?,
        };
        let channels: u8 = match parts.next() {
            None => 0,
            Some(channels) => channels
                .parse()
                .map_err(|_| "the channels behind the clock rate must be a number up to 255")?,
        };
        let mut parameters =
            FormatParameters::parse(format, fmtp).map_err(|bad| bad.to_string())?;
        if parameters.channels == 0 && format != PayloadFormat::Opus {
            parameters.channels = channels;
        }
        Ok(PayloadPlan {
            number,
            hint: PayloadHint { format, parameters },
            clock_rate,
        })
    }
}

/// What a socket of a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// Media, retransmissions, and RTCP where it is multiplexed.
    Rtp,
    /// RTCP.
    Rtcp,
    /// Retransmissions in a session of their own (RFC 4588, 5.3).
    Rtx,
    /// SMPTE ST 2022-1 column FEC.
    FecColumn,
    /// SMPTE ST 2022-1 row FEC.
    FecRow,
}

impl Purpose {
    /// As `Media` wants to know it; `None` for RTCP.
    pub const fn role(self) -> Option<Role> {
        match self {
            Purpose::Rtp | Purpose::Rtx => Some(Role::Media),
            Purpose::Rtcp => None,
            Purpose::FecColumn => Some(Role::FecColumn),
            Purpose::FecRow => Some(Role::FecRow),
        }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Rtp => "rtp",
            Purpose::Rtcp => "rtcp",
            Purpose::Rtx => "rtx",
            Purpose::FecColumn => "fec column",
            Purpose::FecRow => "fec row",
        }
    }
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Interface {
    /// "eth1".
    Name(String),
    /// By one of its addresses.
    Address(IpAddr),
}

impl Interface {
    /// Reads a name (as Linux allows them) or an address.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Interface::Address(address));
        }
        let ok = (1..16).contains(&text.len())
            && !matches!(text, "." | "..")
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        ok.then(|| Interface::Name(text.to_owned()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Name(name) => f.write_str(name),
            Interface::Address(address) => address.fmt(f),
        }
    }
}

/// One socket of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPlan {
    /// The path, 0 or 1 (SMPTE ST 2022-7).
    pub leg: u8,
    /// What it is for.
    pub purpose: Purpose,
    /// A group, one of our addresses, or any of them (unspecified), and the port.
    pub address: SocketAddr,
    /// From whom; multicast: the sources that are joined (SSM). Everybody when empty.
    pub sources: Vec<IpAddr>,
    /// Multicast: where the group is joined; else the kernel chooses.
    pub interface: Option<Interface>,
    /// Multicast: how far what we send travels.
    pub ttl: Option<u8>,
}

impl PortPlan {
    /// Whether it listens to a group.
    pub fn is_multicast(&self) -> bool {
        self.address.ip().is_multicast()
    }
}

/// What all media of a session have in common where their description says nothing.
#[derive(Clone, PartialEq, Debug)]
pub struct PlanDefaults {
    /// How long a gap is waited for.
    pub jitter_buffer: Duration,
    /// If this is longer: how long at the most, as the repair in use needs it.
    pub max_jitter_buffer: Duration,
    /// Packets that may wait behind a gap.
    pub reorder_packets: u16,
    /// Silence that ends a source.
    pub session_timeout: Duration,
    /// Whether RTCP is sent.
    pub rtcp: bool,
    /// Interface of each path.
    pub interfaces: [Option<Interface>; 2],
}

impl Default for PlanDefaults {
    fn default() -> Self {
        let media = MediaConfig::default();
        PlanDefaults {
            jitter_buffer: media.jitter_buffer,
            max_jitter_buffer: media.max_jitter_buffer,
            reorder_packets: media.reorder_packets,
            session_timeout: media.session_timeout,
            rtcp: true,
            interfaces: [None, None],
        }
    }
}

impl PlanDefaults {
    /// What is said in them, as `Media` wants to have it.
    pub fn media_config(&self) -> MediaConfig {
        MediaConfig {
            jitter_buffer: self.jitter_buffer,
            max_jitter_buffer: self.max_jitter_buffer,
            reorder_packets: self.reorder_packets,
            session_timeout: self.session_timeout,
            rtcp: self.rtcp.then(mirror_rtp::media::RtcpConfig::default),
            ..MediaConfig::default()
        }
    }
}

/// The address that a socket is bound to for media sent to `address`: the group's, or ours where
/// it is certain to be one of ours. A description may have been written on the far side of a
/// NAT, so an address of no group is no more than a wish.
pub fn bind_address(address: IpAddr, interface: Option<&Interface>) -> IpAddr {
    if address.is_multicast() || address.is_loopback() {
        return address;
    }
    match (address, interface) {
        (IpAddr::V4(_), Some(Interface::Address(own @ IpAddr::V4(_)))) => *own,
        (IpAddr::V6(_), Some(Interface::Address(own @ IpAddr::V6(_)))) => *own,
        (IpAddr::V4(_), _) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), _) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl MediaPlan {
    /// A medium of these formats without any port yet.
    pub fn new(formats: Vec<PayloadPlan>, defaults: &PlanDefaults) -> Self {
        let types = formats.iter().map(|format| PayloadType {
            number: format.number,
            clock_rate: format.clock_rate,
        });
        let rtp = MediaConfig {
            payload_types: types.collect(),
            ..defaults.media_config()
        };
        MediaPlan {
            formats,
            rtp,
            ports: Vec::new(),
        }
    }

    /// The ports of path `leg`: RTP at `at`, RTCP beside it or wherever `rtcp` says (`None`: it
    /// is multiplexed).
    pub fn add_path(
        &mut self,
        leg: u8,
        at: SocketAddr,
        rtcp: Option<u16>,
        sources: &[IpAddr],
        interface: Option<&Interface>,
        ttl: Option<u8>,
    ) {
        let port = |purpose, port| PortPlan {
            leg,
            purpose,
            address: SocketAddr::new(bind_address(at.ip(), interface), port),
            sources: sources.to_vec(),
            interface: interface.cloned(),
            ttl,
        };
        self.ports.push(port(Purpose::Rtp, at.port()));
        if let Some(rtcp) = rtcp {
            self.ports.push(port(Purpose::Rtcp, rtcp));
        }
        if let Some(config) = &mut self.rtp.rtcp {
            config.multicast |= at.ip().is_multicast();
            config.mux = rtcp.is_none();
        }
        self.rtp.legs = self.rtp.legs.max(leg + 1);
    }

    /// One more port of a path that is there already: at the same address, from the same
    /// sources.
    pub fn add_port(&mut self, leg: u8, purpose: Purpose, port: u16) {
        let own = |p: &&PortPlan| p.leg == leg && p.purpose == Purpose::Rtp;
        if let Some(rtp) = self.ports.iter().find(own) {
            let mut more = rtp.clone();
            more.purpose = purpose;
            more.address.set_port(port);
            self.ports.push(more);
        }
        if matches!(purpose, Purpose::FecColumn | Purpose::FecRow) {
            self.rtp.fec.get_or_insert(FecLimits::default());
        }
    }

    /// What its lane carries.
    pub fn format(&self, ssrc: u32) -> Format {
        let usual = self.formats.first();
        Format::Rtp {
            hint: usual.map(|format| format.hint.clone()),
            clock_rate: usual.map_or(0, |format| format.clock_rate),
            ssrc,
        }
    }

    /// The clock rate of payload type `number`, else the usual one's.
    pub fn clock_rate(&self, number: u8) -> u32 {
        let of_number = self.formats.iter().find(|f| f.number == number);
        let format = of_number.or(self.formats.first());
        format.map_or(90_000, |format| format.clock_rate)
    }
}

impl SessionPlan {
    /// Whether a datagram from `ip` may come in at all.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|range| range.contains(ip))
    }

    /// All its sockets.
    pub fn ports(&self) -> impl Iterator<Item = &PortPlan> {
        self.media.iter().flat_map(|media| &media.ports)
    }

    /// What does not fit together in it, for people.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.media.is_empty() {
            faults.push("has no media".to_owned());
        }
        if self.media.len() > MAX_LANES {
            faults.push(format!("has more than {MAX_LANES} media"));
        }
        if self.ports().count() > MAX_PORTS {
            faults.push(format!("needs more than {MAX_PORTS} ports"));
        }
        if self.sources.len() > MAX_SOURCES {
            faults.push(format!("has more than {MAX_SOURCES} sources"));
        }
        let ports: Vec<&PortPlan> = self.ports().collect();
        for (at, port) in ports.iter().enumerate() {
            port.check(&mut faults);
            if ports.iter().take(at).any(|other| other.meets(port)) {
                faults.push(format!(
                    "two of its media (or of their RTCP, FEC and paths) would share {}",
                    port.address
                ));
            }
        }
        faults
    }

    /// Whether a socket of both would get the other's datagrams.
    pub fn meets(&self, other: &SessionPlan) -> Option<SocketAddr> {
        let meeting = |port: &&PortPlan| other.ports().any(|theirs| theirs.meets(port));
        self.ports().find(meeting).map(|port| port.address)
    }
}

impl PortPlan {
    fn check(&self, faults: &mut Vec<String>) {
        let at = self.address;
        if at.port() == 0 {
            let purpose = self.purpose.name();
            faults.push(format!("the {purpose} port must be from 1 to 65535"));
        }
        if self.sources.len() > MAX_SOURCES {
            faults.push(format!("{at} has more than {MAX_SOURCES} sources"));
        }
        for source in &self.sources {
            if source.is_ipv4() != at.is_ipv4() {
                faults.push(format!("{source} and {at} are of different families"));
            }
            if source.is_multicast() || source.is_unspecified() {
                faults.push(format!("{source} can be no source"));
            }
        }
        if let (true, Some(Interface::Address(own))) = (self.is_multicast(), &self.interface)
            && own.is_ipv4() != at.is_ipv4()
        {
            faults.push(format!(
                "the interface {own} and {at} are of different families"
            ));
        }
        if at.ip().is_ipv4() && at.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            faults.push(format!("{at} is a broadcast address"));
        }
    }

    /// Whether both sockets would get the same datagrams, or cannot both be bound.
    fn meets(&self, other: &PortPlan) -> bool {
        if self.address.port() != other.address.port() {
            return false;
        }
        let (a, b) = (self.address.ip(), other.address.ip());
        if a != b {
            // [::] is dual-stack.
            let covers = |any: IpAddr, other: IpAddr| {
                any.is_unspecified() && (any.is_ipv6() || other.is_ipv4())
            };
            return covers(a, b) || covers(b, a);
        }
        if !self.is_multicast() || self.interface != other.interface {
            return !self.is_multicast();
        }
        let shared = |sources: &[IpAddr]| sources.iter().any(|s| other.sources.contains(s));
        self.sources.is_empty() || other.sources.is_empty() || shared(&self.sources)
    }
}

/// An error about the plan of a description.
pub(crate) fn fault(line: usize, message: impl Into<String>) -> SdpError {
    SdpError::new(line, message)
}
