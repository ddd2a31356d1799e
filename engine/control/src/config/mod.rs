//! Configuration (product contract, section 3): `configs/default.toml`, overlaid by the
//! operator's file, by `MIRROR_…` environment variables and by `--set key=value`, then
//! validated into the types of this module. Every fault is told at once, each with file, line,
//! key, value and what is allowed. The daemon calls [`Config::load`] and hands the parts to the
//! shards and to [`crate::Control`].

mod caller_url;
mod error;
mod pinning;
mod reader;
mod request;
mod rtp;
#[cfg(test)]
mod rtp_tests;
mod srt;
#[cfg(test)]
mod srt_tests;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
mod value;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mirror_base::StreamId;
use serde::Serialize;

pub use caller_url::{CallerUrl, Host, LocalEnd};
pub use error::{ConfigError, ConfigErrors};
pub use pinning::{
    Pinning, PinningSource, Policy, RingPinning, ShardPin, SocketPinning, online_cores,
};
pub(crate) use request::rtp_session;
pub use rtp::{RtpConfig, RtpMedia, RtpPath, RtpPayload, RtpSession};
pub use srt::{
    BackoffConfig, BreakerConfig, CallerConfig, DefaultMode, DefaultStream, EncryptionConfig,
    SrtConfig,
};
pub(crate) use value::show_version as value_show_version;
pub use value::{Cidr, IdPattern, show_duration, show_size};

use error::ErrorList;
use tree::{Origin, Table};
use value::{ser_duration, ser_size};

/// The documented defaults, as shipped in `configs/default.toml`.
pub const DEFAULTS: &str = include_str!("../../../../configs/default.toml");
/// What errors call it.
pub(crate) const DEFAULTS_NAME: &str = "configs/default.toml";

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables: those that begin with `MIRROR_` are looked at.
    pub environment: Vec<(String, String)>,
    /// `--set key=value`, in order.
    pub set: Vec<String>,
}

impl Sources {
    /// `file` and `set` from the command line, and this process's environment.
    pub fn from_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| k.starts_with("MIRROR_"))
            .collect();
        Sources {
            file,
            environment,
            set,
        }
    }
}

/// A text that must not be shown: a passphrase, a token or a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// It was read from a file or a URL, which is shown instead.
    elsewhere: bool,
}

impl Secret {
    /// Wraps `text`.
    pub fn new(text: String) -> Self {
        Secret {
            text,
            elsewhere: false,
        }
    }

    /// A secret that is no value of the configuration by itself: read from a file, or a URL's.
    pub(crate) fn from_elsewhere(text: String) -> Self {
        Secret {
            text,
            elsewhere: true,
        }
    }

    /// The text, for its use.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Whether the printed configuration has no line for it.
    fn is_unwritten(secret: &Option<Secret>) -> bool {
        secret.as_ref().is_none_or(|s| s.elsewhere)
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(HIDDEN)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// What is shown in the place of a secret.
const HIDDEN: &str = "***";

/// The effective configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// This engine's name.
    pub instance: String,
    /// How long draining may take.
    #[serde(serialize_with = "ser_duration")]
    pub shutdown_timeout: Duration,
    /// Streams at the same time.
    pub max_streams: usize,
    /// `[srt]`.
    pub srt: SrtConfig,
    /// `[rtp]`.
    pub rtp: RtpConfig,
    /// `[stream]`.
    pub stream: StreamConfig,
    /// `[buffer]`.
    pub buffer: BufferConfig,
    /// `[memory]`.
    pub memory: MemoryConfig,
    /// `[frame]`.
    pub frame: FrameConfig,
    /// `[gop]`.
    pub gop: GopConfig,
    /// `[sync]`.
    pub sync: SyncConfig,
    /// `[registry]`.
    pub registry: RegistryConfig,
    /// `[api]`.
    pub api: ApiConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[diagnostics]`.
    pub diagnostics: DiagnosticsConfig,
    /// `[[publishers]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publishers: Vec<PublisherRule>,
    /// Things that are allowed but look like a mistake; for the log.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// What becomes of a second publisher of a live id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Refused with SRT rejection 1409.
    Refuse,
    /// Supersedes the first.
    Takeover,
}

/// `[stream]`.
#[derive(Clone, Debug, Serialize)]
pub struct StreamConfig {
    /// Parse the media; false: receive only.
    pub media: bool,
    /// Measure MPEG-TS by TR 101 290.
    pub tr101290: bool,
    /// No complete frame for so long: status "error".
    #[serde(serialize_with = "ser_duration")]
    pub timeout: Duration,
    /// Wait for a publisher that went.
    #[serde(serialize_with = "ser_duration")]
    pub reconnect_grace: Duration,
    /// Second publisher of a live id.
    pub on_conflict: OnConflict,
    /// No re-admission after DELETE.
    #[serde(serialize_with = "ser_duration")]
    pub block_for: Duration,
}

/// `[buffer]`.
#[derive(Clone, Debug, Serialize)]
pub struct BufferConfig {
    /// Ring of each stream, bytes.
    #[serde(serialize_with = "ser_size")]
    pub ring_size: u64,
    /// Streams whose memory is set aside at start-up.
    pub pool_streams: usize,
    /// Expected bits a second of one stream.
    pub max_bitrate_hint: u64,
}

/// `[memory]`.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryConfig {
    /// All packet memory, bytes.
    #[serde(serialize_with = "ser_size")]
    pub total: u64,
    /// Packet memory of one stream, bytes.
    #[serde(serialize_with = "ser_size")]
    pub per_stream: u64,
}

/// `[diagnostics]`.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosticsConfig {
    /// Keep a SHA-256 of what each session delivered.
    pub payload_hash: bool,
}

/// `[frame]`.
#[derive(Clone, Debug, Serialize)]
pub struct FrameConfig {
    /// A unit that got no datagram for so long is closed.
    #[serde(serialize_with = "ser_duration")]
    pub assembly_timeout: Duration,
    /// Largest access unit, bytes.
    #[serde(serialize_with = "ser_size")]
    pub max_frame_size: u64,
    /// What becomes of units that lack something.
    pub damaged: DamagedUnits,
    /// What the units of MPEG-TS are.
    pub units: FrameUnits,
}

/// What the units of MPEG-TS are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameUnits {
    /// Access units, audio frames, KLV units.
    Access,
    /// PES packets as they come.
    Pes,
}

/// What becomes of access units that lack something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DamagedUnits {
    /// Handed on, marked.
    Deliver,
    /// Left out, counted.
    Drop,
}

/// `[gop]`.
#[derive(Clone, Debug, Serialize)]
pub struct GopConfig {
    /// Groups of pictures kept, the one at hand included.
    pub keep: usize,
    /// Whether the operator has said so.
    #[serde(skip)]
    pub keep_is_set: bool,
    /// Pictures kept.
    pub max_frames: usize,
    /// Bytes kept.
    #[serde(serialize_with = "ser_size")]
    pub max_bytes: u64,
    /// Age of what is kept.
    #[serde(serialize_with = "ser_duration")]
    pub max_age: Duration,
    /// So long without a key frame is too long.
    #[serde(serialize_with = "ser_duration")]
    pub keyframe_timeout: Duration,
}

/// `[sync]`.
#[derive(Clone, Debug, Serialize)]
pub struct SyncConfig {
    /// Whether drift between audio and video is corrected.
    pub enabled: bool,
    /// Less is no drift.
    #[serde(serialize_with = "ser_duration")]
    pub threshold: Duration,
    /// Part of the drift that one correction takes away.
    pub correction_rate: f64,
    /// A correction at the most.
    #[serde(serialize_with = "ser_duration")]
    pub max_step: Duration,
    /// More is not corrected.
    #[serde(serialize_with = "ser_duration")]
    pub max_drift: Duration,
}

/// Which registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// This process only.
    Embedded,
    /// Redis.
    Redis,
}

/// `[registry]`.
#[derive(Clone, Debug, Serialize)]
pub struct RegistryConfig {
    /// Which backend.
    pub backend: Backend,
    /// How often records are refreshed.
    #[serde(serialize_with = "ser_duration")]
    pub heartbeat_interval: Duration,
    /// A claim lives so long without being refreshed.
    #[serde(serialize_with = "ser_duration")]
    pub heartbeat_timeout: Duration,
    /// A record lives so long without being refreshed.
    #[serde(serialize_with = "ser_duration")]
    pub ttl: Duration,
    /// Ended streams stay visible for so long.
    #[serde(serialize_with = "ser_duration")]
    pub terminated_ttl: Duration,
    /// Live streams from one source address; 0 = no limit.
    pub max_streams_per_source: usize,
    /// `[registry.redis]`.
    pub redis: RedisConfig,
}

/// `[registry.redis]`.
#[derive(Clone, Debug, Serialize)]
pub struct RedisConfig {
    /// Where; shown without its password.
    #[serde(serialize_with = "ser_url")]
    pub url: String,
    /// Where the password was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The password from the file.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// Database number; that of the URL when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<u8>,
    /// Before every key and channel.
    pub prefix: String,
    /// Connecting, handshake included.
    #[serde(serialize_with = "ser_duration")]
    pub connect_timeout: Duration,
    /// Waiting for an answer.
    #[serde(serialize_with = "ser_duration")]
    pub read_timeout: Duration,
    /// Sending a command.
    #[serde(serialize_with = "ser_duration")]
    pub write_timeout: Duration,
}

fn ser_url<S: serde::Serializer>(url: &str, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&redacted_url(url))
}

/// The URL without the password in it.
pub(crate) fn redacted_url(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            let (head, tail) = (url.get(..scheme + 3), url.get(at..));
            let user = url.get(scheme + 3..at).and_then(|u| u.split(':').next());
            let (head, tail, user) = (head.unwrap_or(""), tail.unwrap_or(""), user.unwrap_or(""));
            format!("{head}{user}:***{tail}")
        }
        _ => url.to_owned(),
    }
}

/// `[api]`.
#[derive(Clone, Debug, Serialize)]
pub struct ApiConfig {
    /// Where.
    pub listen: SocketAddr,
    /// Where the token was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The bearer token.
    #[serde(skip)]
    pub token: Option<Secret>,
    /// Origins that browsers may call from.
    pub cors: Vec<String>,
    /// Client connections at the same time.
    pub max_connections: usize,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator wants to know.
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As `tracing` filters it.
    pub const fn filter(self) -> tracing::level_filters::LevelFilter {
        use tracing::level_filters::LevelFilter;
        match self {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Serialize)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// `[[publishers]]`: who may publish what.
#[derive(Clone, Debug, Serialize)]
pub struct PublisherRule {
    /// Which ids.
    pub id: IdPattern,
    /// From where; from anywhere when empty.
    pub sources: Vec<Cidr>,
    /// What they encrypt with; `None`: that of `[srt.encryption]`, if any.
    #[serde(skip_serializing_if = "Secret::is_unwritten")]
    pub passphrase: Option<Secret>,
    /// Where it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// Put on the stream's record.
    pub tags: Vec<String>,
}

impl PublisherRule {
    /// Whether the rule lets this publisher in.
    pub fn admits(&self, id: &StreamId, ip: IpAddr) -> bool {
        self.id.matches(id.as_str())
            && (self.sources.is_empty() || self.sources.iter().any(|s| s.contains(ip)))
    }
}

impl Config {
    /// Reads, overlays and validates.
    pub fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
        let mut errors = ErrorList::default();
        let mut warnings = Vec::new();
        let mut root = tree::parse(DEFAULTS_NAME, DEFAULTS, &mut errors);
        let sections: Vec<String> = root.keys().cloned().collect();
        if let Some(path) = &sources.file {
            let upper = read_file(path, &mut errors);
            tree::overlay(&mut root, upper);
        }
        for (name, text) in &sources.environment {
            let Some(key) = environment_key(name) else {
                continue;
            };
            let head = key.split('.').next().unwrap_or("");
            // An orchestrator injects variables of its own (MIRROR_INGEST_SERVICE_HOST).
            if !sections.iter().any(|s| s == head) && head != "instance" && head != "publishers" {
                warnings.push(format!(
                    "environment variable {name} is no key of ours: ignored"
                ));
                continue;
            }
            set(
                &mut root,
                &key,
                text,
                Origin::Environment(Arc::from(name.as_str())),
                &mut errors,
            );
        }
        for pair in &sources.set {
            match pair.split_once('=') {
                Some((key, text)) => {
                    set(
                        &mut root,
                        key.trim(),
                        text,
                        Origin::CommandLine,
                        &mut errors,
                    );
                }
                None => errors.push(ConfigError {
                    origin: Origin::CommandLine,
                    key: error::without_secret(pair),
                    value: None,
                    message: "must have the form key=value".to_owned(),
                }),
            }
        }
        let config = validate::config(root, warnings, &mut errors);
        errors.finish(config)
    }

    /// Whether all secrets are those of `other`: they are not to be seen in what is printed.
    pub fn same_secrets(&self, other: &Config) -> bool {
        let of = |config: &Config| -> Vec<Option<Secret>> {
            let publishers = config.publishers.iter().map(|p| p.passphrase.clone());
            let callers = config.srt.callers.iter().map(|c| c.passphrase.clone());
            let single = [
                config.srt.encryption.passphrase.clone(),
                config.api.token.clone(),
                config.registry.redis.password.clone(),
                Some(Secret::new(config.registry.redis.url.clone())),
            ];
            single
                .into_iter()
                .chain(publishers)
                .chain(callers)
                .collect()
        };
        of(self) == of(other)
    }

    /// The SRT passphrase of a publisher: that of the rule that admits it, else the common one.
    pub fn passphrase_of(&self, id: &StreamId, ip: IpAddr) -> Option<&Secret> {
        let rule = self.publishers.iter().find(|rule| rule.admits(id, ip));
        rule.and_then(|rule| rule.passphrase.as_ref())
            .or(self.srt.encryption.passphrase.as_ref())
    }

    /// Whether who was let in as the publisher of `id` from `from` would be from `to` as well, with
    /// the same passphrase.
    pub fn may_move(&self, id: &StreamId, from: IpAddr, to: IpAddr) -> bool {
        let admitted =
            self.publishers.is_empty() || self.publishers.iter().any(|rule| rule.admits(id, to));
        let passphrase = |ip| self.passphrase_of(id, ip).map(Secret::reveal);
        admitted && passphrase(from) == passphrase(to)
    }

    /// Whether any publisher has to encrypt.
    pub fn any_passphrase(&self) -> bool {
        self.srt.encryption.passphrase.is_some()
            || self.publishers.iter().any(|p| p.passphrase.is_some())
    }

    /// The effective configuration as TOML, secrets left out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|e| format!("# cannot be written: {e}\n"))
    }

    /// The effective configuration as JSON, secrets left out.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or(serde_json::Value::Null)
    }
}

fn read_file(path: &Path, errors: &mut ErrorList) -> Table {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => tree::parse(&name, &text, errors),
        Err(error) => {
            errors.push(ConfigError {
                origin: Origin::File(Arc::from(name.as_str()), 1),
                key: String::new(),
                value: None,
                message: format!("cannot be read: {error}"),
            });
            Table::new()
        }
    }
}

fn set(root: &mut Table, key: &str, text: &str, origin: Origin, errors: &mut ErrorList) {
    if let Err(message) = tree::set_path(root, key, text, origin.clone()) {
        errors.push(ConfigError {
            origin,
            key: key.to_owned(),
            value: Some(text.to_owned()),
            message,
        });
    }
}

/// `MIRROR_SRT__LATENCY` → `srt.latency`.
fn environment_key(name: &str) -> Option<String> {
    let rest = name.strip_prefix("MIRROR_")?;
    (!rest.is_empty()).then(|| rest.to_ascii_lowercase().replace("__", "."))
}
