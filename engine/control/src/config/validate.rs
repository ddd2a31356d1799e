//! From the tree to [`Config`]: one function per section, ranges beside the keys, and the
//! checks of combinations at the end. Keys of the contract that this version does not have yet
//! are refused by name, so that none is accepted and then does nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ErrorList;
use super::reader::{Section, text};
use super::tree::{Origin, Table};
use super::value::{Cidr, IdPattern};
use super::{
    ApiConfig, Backend, BufferConfig, Config, DEFAULTS_NAME, DamagedUnits, DiagnosticsConfig,
    FrameConfig, FrameUnits, GopConfig, LogConfig, LogFormat, LogLevel, MemoryConfig, OnConflict,
    PublisherRule, RedisConfig, RegistryConfig, Secret, StreamConfig, SyncConfig, rtp, srt,
};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const HOUR: u64 = 3600;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(super) fn config(root: Table, warnings: Vec<String>, errors: &mut ErrorList) -> Config {
    let mut s = Section::root(root, Origin::File("configs/default.toml".into(), 1), errors);
    let instance = instance(&mut s);
    let mut config = Config {
        instance,
        shutdown_timeout: s.duration("shutdown_timeout", secs(0)..=secs(600)),
        max_streams: s.integer("max_streams", 1..=100_000) as usize,
        srt: s.section("srt", srt::read),
        rtp: s.section("rtp", rtp::read),
        stream: s.section("stream", stream),
        buffer: s.section("buffer", buffer),
        memory: s.section("memory", memory),
        frame: s.section("frame", frame),
        gop: s.section("gop", gop),
        sync: s.section("sync", sync),
        registry: s.section("registry", registry),
        api: s.section("api", api),
        log: s.section("log", log),
        diagnostics: s.section("diagnostics", diagnostics),
        publishers: s.tables("publishers", publisher),
        warnings,
    };
    s.finish(&["backpressure", "outputs"]);
    if !config.srt.enabled && !config.rtp.enabled {
        config
            .warnings
            .push("neither srt nor rtp is enabled: there is nothing to receive".to_owned());
    }
    if config.any_passphrase() && !config.srt.encryption.require {
        config.warnings.push(
            "srt.encryption.require = false: publishers are let in whose stream is not encrypted, \
             or cannot be decrypted"
                .to_owned(),
        );
    }
    if config.srt.callers.len() > config.max_streams {
        config.warnings.push(format!(
            "{} callers are configured, max_streams is {}: not all can have their streams",
            config.srt.callers.len(),
            config.max_streams
        ));
    }
    config
}

fn instance(s: &mut Section<'_>) -> String {
    let Some((name, node)) = s.optional_string("instance") else {
        return host_name();
    };
    let ok = !name.is_empty()
        && name.len() <= 128
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !ok {
        s.fault(
            "instance",
            &node,
            "must be 1 to 128 letters, digits, '.', '_' or '-'",
        );
    }
    name
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(128)
        .collect();
    if name.is_empty() {
        "mirror".to_owned()
    } else {
        name
    }
}

fn stream(s: &mut Section<'_>) -> StreamConfig {
    let config = StreamConfig {
        media: s.boolean("media"),
        tr101290: s.boolean("tr101290"),
        timeout: s.duration("timeout", secs(1)..=secs(HOUR)),
        reconnect_grace: s.duration("reconnect_grace", secs(0)..=secs(600)),
        on_conflict: s
            .choice(
                "on_conflict",
                &[
                    ("refuse", OnConflict::Refuse),
                    ("takeover", OnConflict::Takeover),
                ],
            )
            .unwrap_or(OnConflict::Refuse),
        block_for: s.duration("block_for", secs(0)..=secs(24 * HOUR)),
    };
    s.finish(&["circuit_breaker"]);
    config
}

fn buffer(s: &mut Section<'_>) -> BufferConfig {
    let config = BufferConfig {
        ring_size: s.size("ring_size", 64 * KIB..=GIB),
        pool_streams: s.integer("pool_streams", 1..=10_000) as usize,
        max_bitrate_hint: s.integer("max_bitrate_hint", 1_000_000..=10_000_000_000),
    };
    s.finish(&[]);
    config
}

fn memory(s: &mut Section<'_>) -> MemoryConfig {
    let per_stream_at = s.peek("per_stream");
    let config = MemoryConfig {
        total: s.size("total", 16 * MIB..=16 << 40),
        per_stream: s.size("per_stream", MIB..=16 << 40),
    };
    if let Some(node) = per_stream_at.filter(|_| config.per_stream > config.total) {
        s.fault("per_stream", &node, "must not be more than memory.total");
    }
    s.finish(&[]);
    config
}

fn diagnostics(s: &mut Section<'_>) -> DiagnosticsConfig {
    let config = DiagnosticsConfig {
        payload_hash: s.boolean("payload_hash"),
    };
    s.finish(&[]);
    config
}

fn frame(s: &mut Section<'_>) -> FrameConfig {
    let config = FrameConfig {
        assembly_timeout: s.duration("assembly_timeout", ms(10)..=secs(10)),
        max_frame_size: s.size("max_frame_size", 64 * KIB..=256 * MIB),
        damaged: s
            .choice(
                "damaged",
                &[
                    ("deliver", DamagedUnits::Deliver),
                    ("drop", DamagedUnits::Drop),
                ],
            )
            .unwrap_or(DamagedUnits::Deliver),
        units: s
            .choice(
                "units",
                &[("access", FrameUnits::Access), ("pes", FrameUnits::Pes)],
            )
            .unwrap_or(FrameUnits::Access),
    };
    s.finish(&[]);
    config
}

fn gop(s: &mut Section<'_>) -> GopConfig {
    let default =
        |origin: &Origin| matches!(origin, Origin::File(name, _) if **name == *DEFAULTS_NAME);
    let keep_is_set = s.peek("keep").is_some_and(|node| !default(&node.origin));
    let config = GopConfig {
        keep_is_set,
        keep: s.integer("keep", 1..=100) as usize,
        max_frames: s.integer("max_frames", 1..=100_000) as usize,
        max_bytes: s.size("max_bytes", MIB..=4 * GIB),
        max_age: s.duration("max_age", ms(100)..=secs(600)),
        keyframe_timeout: s.duration("keyframe_timeout", ms(100)..=secs(HOUR)),
    };
    s.finish(&[]);
    config
}

fn sync(s: &mut Section<'_>) -> SyncConfig {
    let drift_at = s.peek("max_drift");
    let config = SyncConfig {
        enabled: s.boolean("enabled"),
        threshold: s.duration("threshold", ms(1)..=secs(10)),
        correction_rate: s.fraction_or("correction_rate", 0.1),
        max_step: s.duration("max_step", ms(1)..=secs(1)),
        max_drift: s.duration("max_drift", ms(10)..=secs(60)),
    };
    if let Some(node) = drift_at.filter(|_| config.max_drift <= config.threshold) {
        s.fault("max_drift", &node, "must be more than sync.threshold");
    }
    s.finish(&[]);
    config
}

fn registry(s: &mut Section<'_>) -> RegistryConfig {
    let timeout_at = s.peek("heartbeat_timeout");
    let ttl_at = s.peek("ttl");
    let config = RegistryConfig {
        backend: s
            .choice(
                "backend",
                &[("embedded", Backend::Embedded), ("redis", Backend::Redis)],
            )
            .unwrap_or(Backend::Embedded),
        heartbeat_interval: s.duration("heartbeat_interval", ms(100)..=secs(600)),
        heartbeat_timeout: s.duration("heartbeat_timeout", ms(200)..=secs(HOUR)),
        ttl: s.duration("ttl", ms(200)..=secs(24 * HOUR)),
        terminated_ttl: s.duration("terminated_ttl", secs(0)..=secs(24 * HOUR)),
        max_streams_per_source: s.integer("max_streams_per_source", 0..=100_000) as usize,
        redis: s.section("redis", redis),
    };
    let beat = config.heartbeat_interval;
    if let Some(node) = timeout_at.filter(|_| config.heartbeat_timeout <= beat) {
        s.fault(
            "heartbeat_timeout",
            &node,
            "must be more than registry.heartbeat_interval",
        );
    }
    if let Some(node) = ttl_at.filter(|_| config.ttl < beat) {
        s.fault(
            "ttl",
            &node,
            "must not be less than registry.heartbeat_interval",
        );
    }
    s.finish(&[
        "cleanup_interval",
        "event_buffer",
        "event_retention",
        "leader_lease",
        "query_timeout",
        "batch_size",
    ]);
    config
}

fn redis(s: &mut Section<'_>) -> RedisConfig {
    let url_at = s.peek("url");
    let url = s.string("url");
    if let Some(node) = url_at {
        if url.starts_with("rediss://") {
            s.fault(
                "url",
                &node,
                "rediss:// (TLS) is not available yet in this version",
            );
        } else if redis::parse_redis_url(&url).is_none_or(|u| u.scheme() != "redis") {
            s.fault(
                "url",
                &node,
                "must be a URL such as \"redis://127.0.0.1:6379\"",
            );
        }
    }
    let (password_file, password) = secret_file(s, "password_file");
    let limits = ms(10)..=secs(60);
    let config = RedisConfig {
        url,
        password_file,
        password,
        db: s.optional_integer("db", 0..=15).map(|n| n as u8),
        prefix: s
            .parsed(
                "prefix",
                "must be 1 to 64 printable characters without spaces",
                |t| {
                    let ok = (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
                    ok.then(|| t.to_owned())
                },
            )
            .unwrap_or_default(),
        connect_timeout: s.duration("connect_timeout", limits.clone()),
        read_timeout: s.duration("read_timeout", limits.clone()),
        write_timeout: s.duration("write_timeout", limits),
    };
    s.finish(&[]);
    config
}

/// A file whose first line is a secret.
fn secret_file(s: &mut Section<'_>, key: &'static str) -> (Option<PathBuf>, Option<Secret>) {
    let Some((path, node)) = s.optional_string(key) else {
        return (None, None);
    };
    let path = PathBuf::from(path);
    let secret = match std::fs::read_to_string(&path) {
        Ok(text) => {
            let line = text.lines().next().unwrap_or("").trim().to_owned();
            if line.is_empty() || !line.bytes().all(|b| b.is_ascii_graphic()) {
                s.fault(
                    key,
                    &node,
                    "the first line of the file must be the secret, in printable ASCII",
                );
                None
            } else {
                Some(Secret::from_elsewhere(line))
            }
        }
        Err(error) => {
            s.fault(key, &node, format!("cannot be read: {error}"));
            None
        }
    };
    (Some(path), secret)
}

fn api(s: &mut Section<'_>) -> ApiConfig {
    let listen_at = s.peek("listen");
    let listen = s.address("listen");
    let (token_file, token) = secret_file(s, "token_file");
    let config = ApiConfig {
        listen,
        cors: s.list(
            "cors",
            "must be an origin such as \"https://ops.example\", or \"*\"",
            |v| {
                let t = text(v)?;
                let ok = t == "*"
                    || ((t.starts_with("http://") || t.starts_with("https://"))
                        && t.bytes().all(|b| b.is_ascii_graphic()));
                ok.then(|| t.to_owned())
            },
        ),
        max_connections: s.integer("max_connections", 8..=4096) as usize,
        token_file,
        token,
    };
    if let Some(node) = listen_at.filter(|_| exposed(listen) && config.token_file.is_none()) {
        s.fault(
            "listen",
            &node,
            "an address that is not loopback needs api.token_file",
        );
    }
    s.finish(&[]);
    config
}

/// Whether others than this host can reach the address.
fn exposed(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn log(s: &mut Section<'_>) -> LogConfig {
    let config = LogConfig {
        level: s
            .choice(
                "level",
                &[
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ],
            )
            .unwrap_or(LogLevel::Info),
        format: s
            .choice(
                "format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )
            .unwrap_or(LogFormat::Text),
    };
    s.finish(&[]);
    config
}

fn publisher(s: &mut Section<'_>) -> Option<PublisherRule> {
    let id = s.parsed(
        "id",
        "must be a pattern of stream ids such as \"live/*\"",
        IdPattern::parse,
    );
    let sources = s.list(
        "sources",
        "must be a range of addresses such as \"10.0.0.0/8\"",
        |v| Cidr::parse(text(v)?),
    );
    let (passphrase, passphrase_file) = srt::passphrase(s);
    let tags = srt::tags(s);
    s.finish(&["user", "token", "max_bitrate"]);
    Some(PublisherRule {
        id: id?,
        sources,
        passphrase,
        passphrase_file,
        tags,
    })
}
