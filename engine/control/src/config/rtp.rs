//! `[rtp]` and `[[rtp.sessions]]`: types and validation. What a configured session comes to is a
//! [`SessionPlan`], which the daemon hands to the shards.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mirror_base::StreamId;
use mirror_base::ring::{MAX_SLOT_BYTES, SLOT_BYTES};
use mirror_stream::plan::{
    FecLimits, Interface, MAX_SDP_BYTES, MediaPlan, PayloadPlan, PlanDefaults, Purpose, RtxType,
    SessionPlan, from_sdp,
};
use serde::{Serialize, Serializer};

use super::reader::{Section, text};
use super::srt::{self, ser_id};
use super::tree::{Node, Value};
use super::value::{Cidr, ser_duration};

/// Sessions at the most: each has sockets of its own.
const MAX_SESSIONS: usize = 1_000;

/// What `rtp.max_packet_size` may be, bytes: from a slot of a ring to the longest one.
const PACKET_SIZES: RangeInclusive<u64> = SLOT_BYTES as u64..=MAX_SLOT_BYTES as u64;

/// What a payload type carries: "H264", "L16/48000/2", "H264/90000 packetization-mode=1".
#[derive(Clone, PartialEq, Debug)]
pub struct RtpPayload {
    /// As it was written.
    text: String,
    /// What it comes to.
    pub plan: PayloadPlan,
}

impl Serialize for RtpPayload {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

/// `[rtp]`.
#[derive(Clone, Debug, Serialize)]
pub struct RtpConfig {
    /// Whether RTP is served at all.
    pub enabled: bool,
    /// RTP port.
    pub listen: SocketAddr,
    /// RTCP port.
    pub rtcp_listen: SocketAddr,
    /// Sources of each shard at the same time.
    pub max_sessions: usize,
    /// Silence that ends a source.
    #[serde(serialize_with = "ser_duration")]
    pub session_timeout: Duration,
    /// Reorder window, packets.
    pub reorder_packets: u16,
    /// How long a gap is waited for.
    #[serde(serialize_with = "ser_duration")]
    pub jitter_buffer: Duration,
    /// How long a gap is waited for at the most, where that follows from the repair in use.
    #[serde(serialize_with = "ser_duration")]
    pub max_jitter_buffer: Duration,
    /// Longer datagrams are refused, bytes.
    pub max_packet_size: usize,
    /// Whether sources that nobody described get receiver reports.
    pub rtcp: bool,
    /// Hints for dynamic payload types.
    pub payload_types: BTreeMap<u8, RtpPayload>,
    /// Configured sessions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<RtpSession>,
}

/// `[[rtp.sessions]]`.
#[derive(Clone, Debug, Serialize)]
pub struct RtpSession {
    /// The stream it brings.
    #[serde(serialize_with = "ser_id")]
    pub id: StreamId,
    /// Put on the stream's record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A description: its text, or the file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<String>,
    /// Who may send to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Cidr>,
    /// How long a gap is waited for; as long as its repair takes when absent, at least
    /// `rtp.jitter_buffer` and at most `rtp.max_jitter_buffer`.
    #[serde(
        serialize_with = "ser_optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub jitter_buffer: Option<Duration>,
    /// Silence that ends a source; `rtp.session_timeout` when absent.
    #[serde(
        serialize_with = "ser_optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub session_timeout: Option<Duration>,
    /// Whether RTCP is sent.
    pub rtcp: bool,
    /// With `sdp`: where its groups are joined, or which of our addresses is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// With `sdp`: the same for its second path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_interface: Option<String>,
    /// Its media, where there is no `sdp`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<RtpMedia>,
    /// What all that comes to.
    #[serde(skip)]
    pub plan: SessionPlan,
}

/// `[[rtp.sessions.media]]`, or the keys of a session with one medium.
#[derive(Clone, Debug, Serialize)]
pub struct RtpMedia {
    /// By payload type.
    pub payload_types: BTreeMap<u8, RtpPayload>,
    /// Payload types of retransmissions: of which payload type each is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rtx: BTreeMap<u8, u8>,
    /// What the sender can be asked for: "nack", "pli", "fir"; "rsize": feedback alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<&'static str>,
    /// Bits a second of the media, of which RTCP gets 5 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u64>,
    /// Where RTCP is sent to; absent: where the sender's comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp_to: Option<SocketAddr>,
    /// Where it is received.
    #[serde(flatten)]
    pub path: RtpPath,
    /// The second path of SMPTE ST 2022-7. (Tables come last in TOML.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_leg: Option<RtpPath>,
}

/// Where a medium is received.
#[derive(Clone, Debug, Serialize)]
pub struct RtpPath {
    /// RTP port.
    pub port: u16,
    /// RTCP port; absent: the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp_port: Option<u16>,
    /// RTCP comes on the RTP port.
    #[serde(skip_serializing_if = "is_false")]
    pub rtcp_mux: bool,
    /// The address to be bound; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Multicast group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// Multicast: sources to be joined (SSM); else, who may send.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<IpAddr>,
    /// Multicast: where the group is joined, by name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Column FEC (SMPTE ST 2022-1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fec_column_port: Option<u16>,
    /// Row FEC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fec_row_port: Option<u16>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

fn ser_optional_duration<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        Some(duration) => ser_duration(duration, s),
        None => s.serialize_none(),
    }
}

pub(super) fn read(s: &mut Section<'_>) -> RtpConfig {
    let rtcp_at = s.peek("rtcp_listen");
    let sessions_at = s.peek("sessions");
    let mut config = RtpConfig {
        enabled: s.boolean("enabled"),
        listen: s.address("listen"),
        rtcp_listen: s.address("rtcp_listen"),
        max_sessions: s.integer("max_sessions", 1..=100_000) as usize,
        session_timeout: s.duration("session_timeout", secs(1)..=secs(600)),
        reorder_packets: s.integer("reorder_packets", 1..=10_000) as u16,
        jitter_buffer: s.duration("jitter_buffer", secs(0)..=secs(5)),
        max_jitter_buffer: s.duration("max_jitter_buffer", secs(0)..=secs(5)),
        max_packet_size: s.integer("max_packet_size", PACKET_SIZES) as usize,
        rtcp: s.boolean("rtcp"),
        payload_types: s.section("payload_types", payload_types),
        sessions: Vec::new(),
    };
    let defaults = config.defaults();
    config.sessions = s.tables("sessions", |s| session(s, &defaults));
    let same = config.listen == config.rtcp_listen && config.listen.port() != 0;
    if let Some(node) = rtcp_at.filter(|_| same && config.enabled) {
        s.fault("rtcp_listen", &node, "must not be the same as rtp.listen");
    }
    if let Some(node) = sessions_at {
        check_sessions(s, &node, &config);
    }
    s.finish(&["receive_buffer"]);
    config
}

impl RtpConfig {
    /// What sessions have that do not say otherwise.
    pub(crate) fn defaults(&self) -> PlanDefaults {
        PlanDefaults {
            jitter_buffer: self.jitter_buffer,
            max_jitter_buffer: self.max_jitter_buffer,
            session_timeout: self.session_timeout,
            ..PlanDefaults::default()
        }
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn payload_types(s: &mut Section<'_>) -> BTreeMap<u8, RtpPayload> {
    let mut types = BTreeMap::new();
    for (key, node) in s.drain() {
        let Some(number) = payload_number(s, &key, &node) else {
            continue;
        };
        let Some(text) = text(&node.value) else {
            s.fault(&key, &node, "must be a name such as \"H264\"");
            continue;
        };
        match PayloadPlan::parse(number, text) {
            Ok(plan) => {
                let text = text.trim().to_owned();
                types.insert(number, RtpPayload { text, plan });
            }
            Err(why) => s.fault(&key, &node, why),
        }
    }
    types
}

fn payload_number(s: &mut Section<'_>, key: &str, node: &Node) -> Option<u8> {
    let number = key.parse::<u8>().ok().filter(|n| *n < 128);
    if number.is_none() {
        s.fault(key, node, "the key must be a payload type from 0 to 127");
    }
    number
}

/// What sessions must not have in common.
fn check_sessions(s: &mut Section<'_>, node: &Node, config: &RtpConfig) {
    let mut faults = Vec::new();
    if config.sessions.len() > MAX_SESSIONS {
        faults.push(format!("there are more than {MAX_SESSIONS}"));
    }
    if !config.enabled && !config.sessions.is_empty() {
        faults.push("need rtp.enabled = true".to_owned());
    }
    for (at, session) in config.sessions.iter().enumerate().take(MAX_SESSIONS) {
        for other in config.sessions.iter().take(at) {
            if other.id == session.id {
                faults.push(format!(
                    "two sessions have the id {:?}",
                    session.id.as_str()
                ));
            } else if let Some(port) = session.plan.meets(&other.plan) {
                faults.push(format!(
                    "{} and {} would share {port}",
                    other.id, session.id
                ));
            }
        }
        for (name, listen) in [
            ("listen", config.listen),
            ("rtcp_listen", config.rtcp_listen),
        ] {
            let taken = |port: &&mirror_stream::plan::PortPlan| {
                let both_bound = listen.ip().is_unspecified()
                    || port.address.ip().is_unspecified()
                    || port.address.ip() == listen.ip();
                port.address.port() == listen.port() && both_bound
            };
            if let Some(port) = session.plan.ports().find(taken) {
                let purpose = port.purpose.name();
                let (id, number) = (&session.id, port.address.port());
                faults.push(format!(
                    "{id}: its {purpose} port {number} is that of rtp.{name}"
                ));
            }
        }
    }
    for fault in faults {
        s.fault_here("sessions", node, fault);
    }
}

/// One of `[[rtp.sessions]]`.
pub(super) fn session(s: &mut Section<'_>, defaults: &PlanDefaults) -> Option<RtpSession> {
    let id_at = s.peek("id");
    let id = s.parsed("id", "must be a stream id such as \"studio/cam1\"", |t| {
        StreamId::new(t).ok()
    });
    if let (Some(id), Some(node)) = (&id, id_at)
        && srt::is_rtp_id(id.as_str())
    {
        s.fault("id", &node, "ids of this form are given to RTP sources");
    }
    let tags = srt::tags(s);
    let sources = s.list(
        "sources",
        "must be an address or a range of addresses such as \"10.0.0.0/8\"",
        |v| Cidr::parse(text(v)?),
    );
    let jitter_buffer = optional_duration(s, "jitter_buffer", secs(0)..=secs(5));
    let session_timeout = optional_duration(s, "session_timeout", secs(1)..=secs(600));
    let rtcp = s.boolean_or("rtcp", Some(true)).unwrap_or(true);
    let mut defaults = PlanDefaults {
        jitter_buffer: jitter_buffer.unwrap_or(defaults.jitter_buffer),
        // What is set stays.
        max_jitter_buffer: jitter_buffer.map_or(defaults.max_jitter_buffer, |_| Duration::ZERO),
        session_timeout: session_timeout.unwrap_or(defaults.session_timeout),
        rtcp,
        ..defaults.clone()
    };
    let mut result = RtpSession {
        id: id.clone().unwrap_or_else(|| StreamId::for_ssrc(0)),
        tags: tags.clone(),
        sdp: None,
        sources: sources.clone(),
        jitter_buffer,
        session_timeout,
        rtcp,
        interface: None,
        second_interface: None,
        media: Vec::new(),
        plan: SessionPlan {
            stream_id: id.clone().unwrap_or_else(|| StreamId::for_ssrc(0)),
            tags,
            sources: sources.iter().map(|cidr| cidr.0).collect(),
            media: Vec::new(),
        },
    };
    let ok = match s.optional_string("sdp") {
        Some((sdp, node)) => described(s, &mut result, &mut defaults, sdp, &node),
        None => listed(s, &mut result, &defaults),
    };
    s.finish(&[]);
    (ok && id.is_some()).then_some(result)
}

fn optional_duration(
    s: &mut Section<'_>,
    key: &'static str,
    allowed: std::ops::RangeInclusive<Duration>,
) -> Option<Duration> {
    let given = s.peek(key).is_some();
    let duration = s.duration_or(key, allowed, Duration::ZERO);
    given.then_some(duration)
}

/// A session with a description.
fn described(
    s: &mut Section<'_>,
    session: &mut RtpSession,
    defaults: &mut PlanDefaults,
    sdp: String,
    node: &Node,
) -> bool {
    session.interface = interface(s, "interface");
    session.second_interface = interface(s, "second_interface");
    let names = [&session.interface, &session.second_interface];
    defaults.interfaces = names.map(|name| Interface::parse(name.as_deref()?));
    let (text, file) = match read_sdp(&sdp) {
        Ok(read) => read,
        Err(why) => {
            s.fault("sdp", node, why);
            return false;
        }
    };
    session.sdp = Some(sdp);
    match from_sdp(&text, defaults) {
        Ok(media) => {
            session.plan.media = media;
            check_plan(s, "sdp", node, &session.plan)
        }
        Err(errors) => {
            let file = file.map_or(String::new(), |file| format!("{}: ", file.display()));
            for error in errors {
                s.fault_here("sdp", node, format!("{file}{error}"));
            }
            false
        }
    }
}

/// The text of a description, and the file that it came from.
fn read_sdp(sdp: &str) -> Result<(String, Option<PathBuf>), String> {
    if sdp.trim_start().starts_with("v=0") {
        return Ok((sdp.trim_start().to_owned(), None));
    }
    if sdp.contains('\n') {
        return Err("must begin with v=0, or be the name of a file".to_owned());
    }
    let path = Path::new(sdp);
    let read = |path: &Path| -> std::io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        // One more than allowed: the reader says what is wrong with that.
        file.take(MAX_SDP_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((text, Some(path.to_owned())))
}

/// A session whose media are listed: as `[[rtp.sessions.media]]`, or one among its own keys.
fn listed(s: &mut Section<'_>, session: &mut RtpSession, defaults: &PlanDefaults) -> bool {
    let several = s.peek("media");
    let before = s.faults();
    let media = match several {
        Some(_) => s.tables("media", |s| {
            let media = medium(s);
            s.finish(&[]);
            media
        }),
        None => medium(s).into_iter().collect(),
    };
    if media.is_empty() {
        return false;
    }
    session.plan.media = media.iter().map(|media| media.plan(defaults)).collect();
    session.media = media;
    let node = several.unwrap_or_else(|| s.whole());
    s.faults() == before && check_plan(s, "media", &node, &session.plan)
}

fn check_plan(s: &mut Section<'_>, key: &'static str, node: &Node, plan: &SessionPlan) -> bool {
    let faults = plan.faults();
    for fault in &faults {
        s.fault_here(key, node, fault);
    }
    faults.is_empty()
}

fn interface(s: &mut Section<'_>, key: &'static str) -> Option<String> {
    let (name, node) = s.optional_string(key)?;
    if Interface::parse(&name).is_none() {
        s.fault(
            key,
            &node,
            "must be the name of an interface or an address of it",
        );
        return None;
    }
    Some(name)
}

fn medium(s: &mut Section<'_>) -> Option<RtpMedia> {
    let types_at = s.peek("payload_types").unwrap_or_else(|| s.whole());
    let payload_types = s.section("payload_types", payload_types);
    if payload_types.is_empty() {
        s.fault_here(
            "payload_types",
            &types_at,
            "must say what payload types carry, such as { 96 = \"H264\" }",
        );
    }
    let rtx = s.section("rtx", |s| rtx(s, &payload_types));
    let words = [
        ("nack", "nack"),
        ("pli", "pli"),
        ("fir", "fir"),
        ("rsize", "rsize"),
    ];
    let feedback = s.list(
        "feedback",
        "must be \"nack\", \"pli\", \"fir\" or \"rsize\"",
        |v| {
            let text = text(v)?;
            words.iter().find(|(word, _)| *word == text).map(|w| w.1)
        },
    );
    let bandwidth = s.optional_integer("bandwidth", 1_000..=100_000_000_000);
    let rtcp_to = s.peek("rtcp_to").and_then(|_| {
        s.parsed(
            "rtcp_to",
            "must be the address and port that the sender receives RTCP on",
            |t| t.parse().ok().filter(|to: &SocketAddr| to.port() != 0),
        )
    });
    let fec = s.boolean_or("fec", Some(false)).unwrap_or(false);
    let path = path(s, fec);
    let second = s.peek("second_leg").is_some();
    let second_leg = second.then(|| {
        s.section("second_leg", |s| {
            let path = self::path(s, fec);
            s.finish(&[]);
            path
        })
    });
    Some(RtpMedia {
        payload_types,
        rtx,
        feedback,
        bandwidth,
        rtcp_to,
        path: path?,
        second_leg: second_leg.flatten(),
    })
}

fn rtx(s: &mut Section<'_>, types: &BTreeMap<u8, RtpPayload>) -> BTreeMap<u8, u8> {
    let mut map = BTreeMap::new();
    for (key, node) in s.drain() {
        let Some(number) = payload_number(s, &key, &node) else {
            continue;
        };
        let Some(of) = s.as_integer(&key, &node, &(0..=127)) else {
            continue;
        };
        let of = of as u8;
        if types.contains_key(&number) {
            s.fault(&key, &node, "is a payload type of the media already");
        } else if types.contains_key(&of) {
            map.insert(number, of);
        } else {
            s.fault(&key, &node, "must be one of payload_types");
        }
    }
    map
}

fn path(s: &mut Section<'_>, fec: bool) -> Option<RtpPath> {
    let port_at = s.peek("port").unwrap_or_else(|| s.whole());
    let port = s.integer("port", 1..=65_535) as u16;
    let rtcp_at = s.peek("rtcp_port");
    let rtcp_port = s
        .optional_integer("rtcp_port", 1..=65_535)
        .map(|n| n as u16);
    let rtcp_mux = s.boolean_or("rtcp_mux", Some(false)).unwrap_or(false);
    if let Some(node) = rtcp_at.filter(|_| rtcp_mux) {
        s.fault(
            "rtcp_port",
            &node,
            "rtcp_port and rtcp_mux exclude each other",
        );
    }
    if rtcp_port.is_none() && !rtcp_mux && port == 65_535 {
        let why = "leaves no port for RTCP: give rtcp_port or rtcp_mux";
        s.fault_here("port", &port_at, why);
    }
    let address = optional_address(s, "address", "must be one of our addresses", |ip| {
        !ip.is_multicast()
    });
    let group = optional_address(s, "group", "must be a multicast group", |ip| {
        ip.is_multicast()
    });
    let address_at = s.peek("address");
    if let Some(node) = address_at.filter(|_| group.is_some()) {
        s.fault("address", &node, "address and group exclude each other");
    }
    let source = sources(s);
    let interface = interface(s, "interface");
    let fec_port = |s: &mut Section<'_>, key: &'static str, beyond: u16| {
        let at = s.peek(key);
        let given = s.optional_integer(key, 1..=65_535).map(|n| n as u16);
        match given {
            None if fec && at.is_none() => port.checked_add(beyond),
            given => given,
        }
    };
    // SMPTE ST 2022-1: P + 2 and P + 4.
    let fec_column_port = fec_port(s, "fec_column_port", 2);
    let fec_row_port = fec_port(s, "fec_row_port", 4);
    Some(RtpPath {
        port,
        rtcp_port,
        rtcp_mux,
        address,
        group,
        source,
        interface,
        fec_column_port,
        fec_row_port,
    })
}

fn optional_address(
    s: &mut Section<'_>,
    key: &'static str,
    allowed: &str,
    fits: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    s.peek(key)?;
    s.parsed(key, allowed, |t| {
        t.parse().ok().filter(|address| fits(*address))
    })
}

/// One address or a list of them.
fn sources(s: &mut Section<'_>) -> Vec<IpAddr> {
    const ALLOWED: &str = "must be the address of a source";
    if let Some(Node {
        value: Value::String(_),
        ..
    }) = s.peek("source")
    {
        let one = s.parsed("source", ALLOWED, |t| t.parse().ok());
        return one.into_iter().collect();
    }
    s.list("source", ALLOWED, |v| text(v)?.trim().parse().ok())
}

impl RtpMedia {
    fn plan(&self, defaults: &PlanDefaults) -> MediaPlan {
        let formats = self.payload_types.values().map(|p| p.plan.clone());
        let mut plan = MediaPlan::new(formats.collect(), defaults);
        for (&number, &apt) in &self.rtx {
            plan.rtp.rtx.push(RtxType { number, apt });
        }
        for word in &self.feedback {
            let feedback = &mut plan.rtp.feedback;
            match *word {
                "nack" => feedback.nack = true,
                "pli" => feedback.pli = true,
                "fir" => feedback.fir = true,
                _ => feedback.reduced_size = true,
            }
        }
        if let Some(rtcp) = &mut plan.rtp.rtcp {
            rtcp.bandwidth_bps = self.bandwidth.unwrap_or(rtcp.bandwidth_bps);
            rtcp.destination = self.rtcp_to;
        }
        self.path.add_to(&mut plan, 0);
        if let Some(second) = &self.second_leg {
            second.add_to(&mut plan, 1);
        }
        plan
    }
}

impl RtpPath {
    fn add_to(&self, plan: &mut MediaPlan, leg: u8) {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let address = self.group.or(self.address).unwrap_or(any);
        let interface = self.interface.as_deref().and_then(Interface::parse);
        let rtcp = match self.rtcp_port {
            Some(port) => Some(port),
            None if self.rtcp_mux => None,
            None => self.port.checked_add(1),
        };
        let at = SocketAddr::new(address, self.port);
        plan.add_path(leg, at, rtcp, &self.source, interface.as_ref(), None);
        // An address that is given is ours: bound as it is.
        if self.address.is_some() {
            for port in plan.ports.iter_mut().filter(|port| port.leg == leg) {
                port.address.set_ip(address);
            }
        }
        if let Some(port) = self.fec_column_port {
            plan.add_port(leg, Purpose::FecColumn, port);
        }
        if let Some(port) = self.fec_row_port {
            plan.add_port(leg, Purpose::FecRow, port);
        }
        if self.fec_column_port.or(self.fec_row_port).is_some() {
            plan.rtp.fec.get_or_insert(FecLimits::default());
        }
    }
}
