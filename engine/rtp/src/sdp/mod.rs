//! Session descriptions (RFC 8866, SDP) as senders hand them out: read into what they say, line
//! by line, with bounds on everything. What a receiver makes of them (which `m=` line is media,
//! which its repair or its second path) is decided in `stream::plan`; `control` reads the text
//! when the configuration is validated, never a shard.
//!
//! Taken: RFC 3551 and 4585 (profiles, `rtcp-fb`), 3605 (`rtcp`), 4570 (`source-filter`), 5506
//! (`rtcp-rsize`), 5576 (`ssrc`, `ssrc-group`), 5761 (`rtcp-mux`), 5888 (`mid`, `group`), 7197
//! (`duplication-delay`), 3556 and 3890 (`b=`). Other attributes are passed over.

mod parse;
#[cfg(test)]
mod tests;

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

pub use parse::parse;

/// Bytes of a description at the most.
pub const MAX_BYTES: usize = 64 << 10;
/// Lines of a description at the most.
pub const MAX_LINES: usize = 2_000;
/// Bytes of one line at the most: parameter sets in base 64 can be long.
pub const MAX_LINE_BYTES: usize = 16 << 10;
/// `m=` lines at the most.
pub const MAX_MEDIA: usize = 32;
/// Payload types of an `m=` line at the most.
pub const MAX_PAYLOAD_TYPES: usize = 32;
/// Entries of any other list (groups, filters, SSRCs, feedback) at the most.
pub const MAX_ENTRIES: usize = 64;

/// What is wrong in a description, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SdpError {
    /// Line, counted from 1; 0: the description as a whole.
    pub line: usize,
    /// What, for people.
    pub message: String,
}

impl SdpError {
    /// An error in `line`.
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        SdpError {
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {} of the SDP: ", self.line)?;
        } else {
            f.write_str("the SDP: ")?;
        }
        f.write_str(&self.message)
    }
}

impl core::error::Error for SdpError {}

/// `c=`: where the media is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Our address, or a group's.
    pub address: IpAddr,
    /// IPv4 multicast: how far it travels.
    pub ttl: Option<u8>,
    /// Consecutive groups.
    pub count: u16,
}

/// `b=`, in bits a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bandwidth {
    /// `AS` or `TIAS`.
    pub session_bps: Option<u64>,
    /// `RS`: RTCP of senders.
    pub rtcp_senders_bps: Option<u64>,
    /// `RR`: RTCP of receivers.
    pub rtcp_receivers_bps: Option<u64>,
}

/// `a=group:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its semantics: "DUP", "FID", "FEC-FR" ..., in capitals.
    pub semantics: String,
    /// `mid`s.
    pub members: Vec<String>,
    /// Where it stands.
    pub line: usize,
}

/// `a=source-filter:` of the mode `incl`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFilter {
    /// The destination that it is about; `None`: every one.
    pub destination: Option<IpAddr>,
    /// From whom.
    pub sources: Vec<IpAddr>,
}

/// `a=rtpmap:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtpMap {
    /// The payload type.
    pub payload_type: u8,
    /// Encoding name.
    pub encoding: String,
    /// Hz.
    pub clock_rate: u32,
    /// Audio channels; 0 where nothing is said.
    pub channels: u8,
    /// Where it stands.
    pub line: usize,
}

/// `a=fmtp:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatParameters {
    /// The payload type.
    pub payload_type: u8,
    /// `name=value` pairs with semicolons between.
    pub text: String,
    /// Where they stand.
    pub line: usize,
}

impl FormatParameters {
    /// The value of parameter `name`, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.text.split(';').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// `a=rtcp-fb:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RtcpFeedback {
    /// For which payload type; `None`: every one.
    pub payload_type: Option<u8>,
    /// "nack", "nack pli", "ccm fir", "trr-int 100" ..., in small letters.
    pub what: String,
}

/// `a=ssrc-group:`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SsrcGroup {
    /// Its semantics: "FID", "DUP", "FEC-FR" ..., in capitals.
    pub semantics: String,
    /// SSRCs.
    pub members: Vec<u32>,
    /// Where it stands.
    pub line: usize,
}

/// `a=sendrecv` and the like; `Active` stands for all but `inactive`: descriptions are written
/// from either side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// Media flows.
    #[default]
    Active,
    /// It does not.
    Inactive,
}

/// One `m=` line with what follows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MediaDescription {
    /// Where it stands.
    pub line: usize,
    /// "video", "audio", "application".
    pub kind: String,
    /// RTP port; 0: switched off.
    pub port: u16,
    /// Consecutive port pairs.
    pub port_count: u16,
    /// "RTP/AVP", "RTP/AVPF" ...
    pub protocol: String,
    /// Payload types.
    pub payload_types: Vec<u8>,
    /// `c=` lines; the session's where it has none.
    pub connections: Vec<Connection>,
    /// `b=` lines.
    pub bandwidth: Bandwidth,
    /// `a=rtpmap:`.
    pub rtpmap: Vec<RtpMap>,
    /// `a=fmtp:`.
    pub fmtp: Vec<FormatParameters>,
    /// `a=rtcp:`: port, and address if one is given.
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize`.
    pub rtcp_reduced_size: bool,
    /// `a=rtcp-fb:`.
    pub feedback: Vec<RtcpFeedback>,
    /// `a=source-filter:`.
    pub filters: Vec<SourceFilter>,
    /// `a=mid:`.
    pub mid: Option<String>,
    /// `a=ssrc:`: each once.
    pub ssrcs: Vec<u32>,
    /// `a=ssrc-group:`.
    pub ssrc_groups: Vec<SsrcGroup>,
    /// `a=duplication-delay:`.
    pub duplication_delay: Duration,
    /// `a=inactive` and the like; the session's where it has none.
    pub direction: Direction,
}

/// A session description.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// `s=`.
    pub name: String,
    /// `c=`.
    pub connection: Option<Connection>,
    /// `b=`.
    pub bandwidth: Bandwidth,
    /// `a=group:`.
    pub groups: Vec<Group>,
    /// `a=source-filter:`.
    pub filters: Vec<SourceFilter>,
    /// `a=inactive` and the like.
    pub direction: Direction,
    /// `m=` lines.
    pub media: Vec<MediaDescription>,
}

impl MediaDescription {
    /// The map of payload type `number`.
    pub fn map(&self, number: u8) -> Option<&RtpMap> {
        self.rtpmap.iter().find(|map| map.payload_type == number)
    }

    /// The format parameters of payload type `number`.
    pub fn parameters(&self, number: u8) -> Option<&FormatParameters> {
        self.fmtp.iter().find(|fmtp| fmtp.payload_type == number)
    }
}
