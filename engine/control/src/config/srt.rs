//! `[srt]`, `[srt.encryption]` and `[[srt.callers]]`: types and validation. Used by the daemon
//! for the shards' part, by [`crate::Control`] for authorisation and for the callers it runs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use mirror_base::StreamId;
use mirror_srt::{CipherPolicy, KeyLength, Passphrase};
use serde::{Serialize, Serializer};

use super::caller_url::{self, CallerUrl};
use super::reader::{Section, text};
use super::tree::Node;
use super::value::{Cidr, parse_version, ser_duration, ser_version};
use super::{HIDDEN, Secret};

/// A passphrase's length, bytes (product contract, section 3; libsrt takes up to 79).
const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 10..=79;

/// What an SRT stream ID without `m=` means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultMode {
    /// The caller publishes.
    Publish,
    /// The caller wants to subscribe.
    Request,
}

/// `[srt]`.
#[derive(Clone, Debug, Serialize)]
pub struct SrtConfig {
    /// Whether SRT is served at all.
    pub enabled: bool,
    /// Where.
    pub listen: SocketAddr,
    /// Receive latency before negotiation.
    #[serde(serialize_with = "ser_duration")]
    pub latency: Duration,
    /// Clamp on what a peer may demand.
    #[serde(serialize_with = "ser_duration")]
    pub max_latency: Duration,
    /// Meaning of a stream ID without `m=`.
    pub default_mode: DefaultMode,
    /// Sending: bits a second on the wire; 0 unlimited (MAXBW).
    pub max_bandwidth: u64,
    /// Sending: expected bits a second of the input, from which the limit is made when
    /// `max_bandwidth` is 0; 0 unknown (INPUTBW).
    pub input_bandwidth: u64,
    /// Sending: payload of one packet, bytes.
    pub payload_size: u16,
    /// Announced flow window, packets.
    pub flow_window: u32,
    /// Largest reorder tolerance, packets (LOSSMAXTTL).
    pub loss_max_ttl: u32,
    /// Silence that breaks a connection.
    #[serde(serialize_with = "ser_duration")]
    pub peer_idle_timeout: Duration,
    /// Connections of each shard at the same time.
    pub max_connections: usize,
    /// Least SRT version of a peer, 0x00MMmmpp.
    #[serde(serialize_with = "ser_version")]
    pub min_version: u32,
    /// Handshakes admitted a second and shard.
    pub handshakes_per_second: u32,
    /// `[srt.encryption]`.
    pub encryption: EncryptionConfig,
    /// Streams for publishers without a stream ID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_stream: Vec<DefaultStream>,
    /// Streams that we fetch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerConfig>,
}

/// Overhead that a sender may add to its input for retransmissions, percent (OHEADBW).
const OVERHEAD_PERCENT: u64 = 25;

impl SrtConfig {
    /// Bytes a second that a sender may put on the wire; 0 unlimited.
    pub const fn max_bandwidth_bytes(&self) -> u64 {
        match (self.max_bandwidth, self.input_bandwidth) {
            (0, 0) => 0,
            (0, input) => input / 8 * (100 + OVERHEAD_PERCENT) / 100,
            (max, _) => max / 8,
        }
    }
}

/// `[srt.encryption]`.
#[derive(Clone, Debug, Serialize)]
pub struct EncryptionConfig {
    /// The passphrase of publishers whose rule has none of its own.
    #[serde(skip_serializing_if = "Secret::is_unwritten")]
    pub passphrase: Option<Secret>,
    /// Where it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// Advertised to callers that have chosen none.
    #[serde(serialize_with = "ser_key_length")]
    pub key_length: KeyLength,
    /// Refuse publishers whose encryption does not fit (ENFORCEDENCRYPTION).
    pub require: bool,
    /// Which modes are allowed.
    #[serde(serialize_with = "ser_cipher")]
    pub cipher: CipherPolicy,
    /// Packets encrypted with one key.
    pub refresh_packets: u32,
    /// The next key is announced so many packets before it is used.
    pub announce_packets: u32,
}

/// `[[srt.default_stream]]`.
#[derive(Clone, Debug, Serialize)]
pub struct DefaultStream {
    /// From where; anywhere when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Cidr>,
    /// From which source port; any when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The stream.
    #[serde(serialize_with = "ser_id")]
    pub id: StreamId,
}

impl DefaultStream {
    /// Whether a publisher at this address gets the stream.
    pub fn fits(&self, ip: IpAddr, port: u16) -> bool {
        self.source.is_none_or(|s| s.contains(ip)) && self.port.is_none_or(|p| p == port)
    }
}

/// `[[srt.callers]]`: a stream that we fetch from a remote SRT listener, or by rendezvous.
#[derive(Clone, Debug, Serialize)]
pub struct CallerConfig {
    /// The stream it brings.
    #[serde(serialize_with = "ser_id")]
    pub id: StreamId,
    /// Whom to call; its parameters are taken over into the fields below.
    pub url: CallerUrl,
    /// `None`: clear.
    #[serde(skip_serializing_if = "Secret::is_unwritten")]
    pub passphrase: Option<Secret>,
    /// Where it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// `None`: what the listener advertises, else AES-128.
    #[serde(
        serialize_with = "ser_optional_key_length",
        skip_serializing_if = "Option::is_none"
    )]
    pub key_length: Option<KeyLength>,
    /// Which modes are allowed.
    #[serde(serialize_with = "ser_cipher")]
    pub cipher: CipherPolicy,
    /// No stream without the encryption asked for.
    pub require: bool,
    /// How long it waits before it calls again.
    pub backoff: BackoffConfig,
    /// When it stops trying for a while.
    pub circuit_breaker: BreakerConfig,
    /// Put on the stream's record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Waits between calls: `initial`, doubled with each failure up to `max`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct BackoffConfig {
    /// After the first failure.
    #[serde(serialize_with = "ser_duration")]
    pub initial: Duration,
    /// At the most.
    #[serde(serialize_with = "ser_duration")]
    pub max: Duration,
    /// The part of a wait that is left to chance, 0 to 1.
    pub jitter: f64,
}

/// The circuit breaker of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before one call is tried.
    #[serde(serialize_with = "ser_duration")]
    pub reset_after: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        BackoffConfig {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            jitter: 0.2,
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            failures: 5,
            reset_after: Duration::from_secs(30),
        }
    }
}

pub(super) fn ser_id<S: Serializer>(id: &StreamId, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(id.as_str())
}

fn ser_key_length<S: Serializer>(length: &KeyLength, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u8(length.bytes() as u8)
}

fn ser_optional_key_length<S: Serializer>(
    length: &Option<KeyLength>,
    s: S,
) -> Result<S::Ok, S::Error> {
    match length {
        Some(length) => ser_key_length(length, s),
        None => s.serialize_none(),
    }
}

const CIPHERS: [(&str, CipherPolicy); 3] = [
    ("auto", CipherPolicy::Auto),
    ("ctr", CipherPolicy::Ctr),
    ("gcm", CipherPolicy::Gcm),
];

fn ser_cipher<S: Serializer>(cipher: &CipherPolicy, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(match cipher {
        CipherPolicy::Auto => "auto",
        CipherPolicy::Ctr => "ctr",
        CipherPolicy::Gcm => "gcm",
    })
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn read(s: &mut Section<'_>) -> SrtConfig {
    let max_latency_at = s.peek("max_latency");
    let callers_at = s.peek("callers");
    let latencies = ms(20)..=secs(8);
    let config = SrtConfig {
        enabled: s.boolean("enabled"),
        listen: s.address("listen"),
        latency: s.duration("latency", latencies.clone()),
        max_latency: s.duration("max_latency", latencies),
        default_mode: s
            .choice(
                "default_mode",
                &[
                    ("publish", DefaultMode::Publish),
                    ("request", DefaultMode::Request),
                ],
            )
            .unwrap_or(DefaultMode::Publish),
        max_bandwidth: s.integer("max_bandwidth", 0..=1_000_000_000_000),
        input_bandwidth: s.integer("input_bandwidth", 0..=1_000_000_000_000),
        payload_size: s.integer("payload_size", 188..=1456) as u16,
        flow_window: s.integer("flow_window", 32..=262_144) as u32,
        loss_max_ttl: s.integer("loss_max_ttl", 0..=1000) as u32,
        peer_idle_timeout: s.duration("peer_idle_timeout", secs(1)..=secs(60)),
        max_connections: s.integer("max_connections", 1..=100_000) as usize,
        min_version: s
            .parsed(
                "min_version",
                "must be a version such as \"1.3.0\"",
                parse_version,
            )
            .unwrap_or_default(),
        handshakes_per_second: s.integer("handshakes_per_second", 1..=100_000) as u32,
        encryption: s.section("encryption", encryption),
        default_stream: s.tables("default_stream", default_stream),
        callers: s.tables("callers", caller),
    };
    if let Some(node) = max_latency_at.filter(|_| config.max_latency < config.latency) {
        s.fault("max_latency", &node, "must not be less than srt.latency");
    }
    if let Some(node) = callers_at {
        check_callers(s, &node, &config);
    }
    s.finish(&[]);
    config
}

/// What callers must not have in common, and what one of them must not exceed.
fn check_callers(s: &mut Section<'_>, node: &Node, config: &SrtConfig) {
    let mut seen = std::collections::BTreeSet::new();
    check_ports(s, node, config);
    for caller in &config.callers {
        if !seen.insert(&caller.id) {
            s.fault(
                "callers",
                node,
                format!("two callers have the id {:?}", caller.id.as_str()),
            );
        }
        let too_long = caller.url.latency.filter(|l| *l > config.max_latency);
        if too_long.is_some() {
            s.fault(
                "callers",
                node,
                format!(
                    "{}: the latency in the url is more than srt.max_latency",
                    caller.id
                ),
            );
        }
    }
    if !config.enabled && !config.callers.is_empty() {
        s.fault("callers", node, "need srt.enabled = true");
    }
}

/// A rendezvous has its port to itself.
fn check_ports(s: &mut Section<'_>, node: &Node, config: &SrtConfig) {
    let ends = config.callers.iter().filter_map(|caller| {
        let end = caller.url.rendezvous?;
        Some((&caller.id, end))
    });
    let ends: Vec<_> = ends.collect();
    for (at, (id, end)) in ends.iter().enumerate() {
        let other = ends
            .iter()
            .take(at)
            .find(|(_, other)| end.meets(other.address, other.port));
        if let Some((other, _)) = other {
            let why = format!(
                "{other} and {id} would share port {}: each rendezvous needs one of its own (localport)",
                end.port
            );
            s.fault("callers", node, why);
        }
        if end.meets(Some(config.listen.ip()), config.listen.port()) {
            let why = format!("{id}: port {} is that of srt.listen (localport)", end.port);
            s.fault("callers", node, why);
        }
    }
}

fn encryption(s: &mut Section<'_>) -> EncryptionConfig {
    let announce_at = s.peek("announce_packets");
    let (passphrase, passphrase_file) = passphrase(s);
    let config = EncryptionConfig {
        passphrase,
        passphrase_file,
        key_length: key_length(s).unwrap_or_default(),
        require: s.boolean("require"),
        cipher: s.choice("cipher", &CIPHERS).unwrap_or_default(),
        // Half the sequence space: a key must not meet a packet number twice (spec section 16).
        refresh_packets: s.integer("refresh_packets", 32..=0x3FFF_FFFF) as u32,
        announce_packets: s.integer("announce_packets", 1..=0x1FFF_FFFF) as u32,
    };
    let most = config.refresh_packets.saturating_sub(1) / 2;
    if let Some(node) = announce_at.filter(|_| config.announce_packets > most) {
        s.fault(
            "announce_packets",
            &node,
            format!("must not be more than (refresh_packets - 1) / 2, which is {most}"),
        );
    }
    s.finish(&[]);
    config
}

fn key_length(s: &mut Section<'_>) -> Option<KeyLength> {
    let node = s.take("key_length")?;
    let bytes = match &node.value {
        super::tree::Value::Integer(n) => usize::try_from(*n).ok(),
        super::tree::Value::Untyped(t) => t.trim().parse().ok(),
        _ => None,
    };
    let length = bytes.and_then(KeyLength::from_bytes);
    if length.is_none() {
        s.fault("key_length", &node, "must be 16, 24 or 32");
    }
    length
}

/// `passphrase` or `passphrase_file`.
pub(super) fn passphrase(s: &mut Section<'_>) -> (Option<Secret>, Option<PathBuf>) {
    let inline = s.optional_string("passphrase");
    let file = s.optional_string("passphrase_file");
    match (inline, file) {
        (None, None) => (None, None),
        (Some((text, node)), None) => {
            let secret = match check_passphrase(&text) {
                Ok(()) => Some(Secret::new(text)),
                Err(why) => {
                    s.fault("passphrase", &node, why);
                    None
                }
            };
            (secret, None)
        }
        (None, Some((path, node))) => {
            let path = PathBuf::from(path);
            let read = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot be read: {error}"))
                .and_then(|text| {
                    let line = text.lines().next().unwrap_or("");
                    check_passphrase(line)
                        .map(|()| Secret::from_elsewhere(line.to_owned()))
                        .map_err(|why| format!("the first line of the file {why}"))
                });
            let secret = match read {
                Ok(secret) => Some(secret),
                Err(why) => {
                    s.fault("passphrase_file", &node, why);
                    None
                }
            };
            (secret, Some(path))
        }
        (Some(_), Some((_, node))) => {
            s.fault(
                "passphrase_file",
                &node,
                "passphrase and passphrase_file exclude each other",
            );
            (None, None)
        }
    }
}

/// Says what is wrong with a passphrase, never what it is.
pub(super) fn check_passphrase(text: &str) -> Result<(), String> {
    if text == HIDDEN {
        return Err("must be the passphrase itself: \"***\" is how a secret is shown".to_owned());
    }
    let fits = PASSPHRASE_BYTES.contains(&text.len()) && Passphrase::new(text).is_ok();
    if !fits {
        return Err(format!(
            "must have {} to {} bytes, not {}",
            PASSPHRASE_BYTES.start(),
            PASSPHRASE_BYTES.end(),
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    Ok(())
}

fn default_stream(s: &mut Section<'_>) -> Option<DefaultStream> {
    let source = s.peek("source").and_then(|_| {
        s.parsed(
            "source",
            "must be a range of addresses such as \"192.0.2.0/24\"",
            Cidr::parse,
        )
    });
    let port = s.optional_integer("port", 1..=65_535).map(|p| p as u16);
    let id = stream_id(s);
    s.finish(&[]);
    Some(DefaultStream {
        source,
        port,
        id: id?,
    })
}

fn stream_id(s: &mut Section<'_>) -> Option<StreamId> {
    s.parsed(
        "id",
        "must be a stream id: [A-Za-z0-9][A-Za-z0-9._/-]{0,127}",
        |t| StreamId::new(t).ok(),
    )
}

pub(super) fn tags(s: &mut Section<'_>) -> Vec<String> {
    s.list("tags", "must be a tag of 1 to 64 characters", |v| {
        text(v)
            .filter(|t| (1..=64).contains(&t.len()))
            .map(str::to_owned)
    })
}

fn caller(s: &mut Section<'_>) -> Option<CallerConfig> {
    let id_at = s.peek("id");
    let id = stream_id(s);
    if let Some((id, node)) = id.as_ref().zip(id_at)
        && is_rtp_id(id.as_str())
    {
        s.fault("id", &node, "ids of this form are given to RTP sources");
    }
    let url = caller_url(s);
    let (mut passphrase, passphrase_file) = passphrase(s);
    let key_length_at = s.peek("key_length");
    let mut key_length = key_length(s);
    let cipher = s.choice_or("cipher", &CIPHERS, None);
    let require = s.boolean_or("require", None);
    let backoff = s.section("backoff", backoff);
    let circuit_breaker = s.section("circuit_breaker", breaker);
    let tags = tags(s);
    let (url, url_at) = url.unzip();
    if let Some((url, node)) = url.as_ref().zip(url_at) {
        if url.passphrase.is_some() && (passphrase.is_some() || passphrase_file.is_some()) {
            s.fault("url", &node, "the passphrase is given here and as a key");
        }
        passphrase = passphrase.or_else(|| url.passphrase.clone());
        let other = key_length.filter(|l| url.key_length.is_some_and(|u| u != *l));
        if let (Some(_), Some(node)) = (other, key_length_at) {
            s.fault("key_length", &node, "is not what pbkeylen in the url says");
        }
        key_length = key_length.or(url.key_length);
    }
    s.finish(&[]);
    let parsed = url?;
    Some(CallerConfig {
        id: id?,
        cipher: cipher.or(parsed.cipher).unwrap_or_default(),
        require: require.or(parsed.require).unwrap_or(true),
        url: parsed.url,
        passphrase,
        passphrase_file,
        key_length,
        backoff,
        circuit_breaker,
        tags,
    })
}

/// `rtp_` and eight hex digits: the ids of RTP sources (product contract, section 2).
pub(super) fn is_rtp_id(id: &str) -> bool {
    id.strip_prefix("rtp_")
        .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn caller_url(s: &mut Section<'_>) -> Option<(caller_url::Parsed, Node)> {
    let (text, node) = s.required_string("url")?;
    match caller_url::parse(text.trim()) {
        Ok(parsed) => Some((parsed, node)),
        Err(problems) => {
            for problem in problems {
                s.fault("url", &node, problem);
            }
            None
        }
    }
}

fn backoff(s: &mut Section<'_>) -> BackoffConfig {
    let max_at = s.peek("max");
    let default = BackoffConfig::default();
    let config = BackoffConfig {
        initial: s.duration_or("initial", ms(100)..=secs(600), default.initial),
        max: s.duration_or("max", ms(100)..=secs(3600), default.max),
        jitter: s.fraction_or("jitter", default.jitter),
    };
    if let Some(node) = max_at.filter(|_| config.max < config.initial) {
        s.fault("max", &node, "must not be less than initial");
    }
    s.finish(&[]);
    BackoffConfig {
        max: config.max.max(config.initial),
        ..config
    }
}

fn breaker(s: &mut Section<'_>) -> BreakerConfig {
    let default = BreakerConfig::default();
    let config = BreakerConfig {
        failures: s.integer_or("failures", 1..=1000, u64::from(default.failures)) as u32,
        reset_after: s.duration_or("reset_after", ms(100)..=secs(3600), default.reset_after),
    };
    s.finish(&[]);
    config
}
