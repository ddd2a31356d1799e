//! The stream record as the API and Redis show it (product contract, section 2): field names
//! are the contract's, times RFC 3339 in UTC, rates bits per second, what is not known `null`.

use mirror_media::{Codec, Track};
use mirror_stream::PayloadFigures;
use mirror_stream::report::{StreamSnapshot, StreamStats};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::clock::WallClock;
use crate::media_stats;
use crate::state::{Entry, Presence};

/// A stream's record.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) codec: Option<&'static str>,
    pub(crate) video_codec: Option<&'static str>,
    pub(crate) audio_codec: Option<&'static str>,
    pub(crate) container: Option<&'static str>,
    pub(crate) encryption: Option<&'static str>,
    pub(crate) resolution: Option<String>,
    pub(crate) frame_rate: Option<f64>,
    pub(crate) bitrate: u64,
    pub(crate) source_addr: Option<String>,
    pub(crate) source_port: Option<u16>,
    pub(crate) status: &'static str,
    pub(crate) state: Value,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    pub(crate) last_heartbeat: Option<String>,
    pub(crate) instance: String,
    pub(crate) shard: Option<u16>,
    pub(crate) core: Option<u32>,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) config: Map<String, Value>,
    /// Seconds.
    pub(crate) ttl: f64,
    pub(crate) tracks: Vec<Value>,
    pub(crate) stats: Value,
}

/// What is the same for every record of this engine.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) instance: String,
    pub(crate) ttl_seconds: f64,
}

impl Record {
    pub(crate) fn of(entry: &Entry, context: &Context, clock: &WallClock) -> Record {
        let snapshot = &*entry.snapshot;
        let video = snapshot.video();
        let (video_codec, audio_codec) = (video.and_then(codec), snapshot.audio().and_then(codec));
        // A caller's peer is not known before it has been looked up.
        let known = snapshot.peer.port() != 0;
        let mut config = entry.config.clone();
        if snapshot.stats.latency_ms > 0 {
            config.insert("latency_ms".to_owned(), json!(snapshot.stats.latency_ms));
        }
        Record {
            id: snapshot.stream_id.as_str().to_owned(),
            name: snapshot.stream_id.as_str().to_owned(),
            kind: snapshot.protocol.name(),
            protocol: snapshot.protocol.name(),
            mode: match snapshot.mode {
                mirror_stream::report::Mode::Listener => "listener",
                mirror_stream::report::Mode::Caller => "caller",
            },
            codec: video_codec.or(audio_codec),
            video_codec,
            audio_codec,
            container: snapshot.container,
            encryption: encryption(snapshot),
            resolution: video
                .filter(|t| t.width > 0 && t.height > 0)
                .map(|t| format!("{}x{}", t.width, t.height)),
            frame_rate: video.and_then(|t| frame_rate(t, &snapshot.stats)),
            bitrate: if entry.is_over() {
                0
            } else {
                snapshot.stats.bitrate_bps
            },
            source_addr: known.then(|| source(snapshot).to_string()),
            source_port: known.then(|| snapshot.peer.port()),
            status: entry.status.name(),
            state: state(entry, clock),
            created_at: clock.rfc3339(snapshot.created_at),
            updated_at: clock.rfc3339(entry.updated_at),
            started_at: (entry.presence == Presence::Shard)
                .then(|| clock.rfc3339(snapshot.started_at)),
            ended_at: entry.ended_at.map(|at| clock.rfc3339(at)),
            last_heartbeat: entry.last_heartbeat.map(|at| clock.rfc3339(at)),
            instance: context.instance.clone(),
            shard: entry.shard.map(|shard| shard.0),
            core: entry.core,
            tags: entry.tags.clone(),
            metadata: entry.metadata.clone(),
            config,
            ttl: context.ttl_seconds,
            tracks: tracks(snapshot),
            stats: stats(entry),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// The peer, with IPv4 addresses mapped into IPv6 unmapped.
pub(crate) fn source(snapshot: &StreamSnapshot) -> std::net::SocketAddr {
    std::net::SocketAddr::new(snapshot.peer.ip().to_canonical(), snapshot.peer.port())
}

/// The session's encryption, once it is known.
pub(crate) fn encryption(snapshot: &StreamSnapshot) -> Option<&'static str> {
    Some(snapshot.encryption).filter(|name| !name.is_empty())
}

fn codec(track: &Track) -> Option<&'static str> {
    (track.codec != Codec::Unknown).then(|| track.codec.name())
}

/// Frames a second. The bit stream's own figure is exact where it agrees with what is measured
/// (within 5 %); where it does not, what is measured is the truth.
fn frame_rate(track: &Track, stats: &StreamStats) -> Option<f64> {
    let measured = (stats.frame_rate_milli > 0).then(|| f64::from(stats.frame_rate_milli) / 1000.0);
    let (num, den) = track.frame_rate;
    let declared = (num > 0 && den > 0).then(|| f64::from(num) / f64::from(den));
    let rate = match (measured, declared) {
        (Some(m), Some(d)) if (m - d).abs() <= d * 0.05 => d,
        (Some(m), _) => m,
        (None, declared) => declared?,
    };
    Some((rate * 1000.0).round() / 1000.0)
}

fn state(entry: &Entry, clock: &WallClock) -> Value {
    let snapshot = &entry.snapshot;
    let (health, reasons) = entry.health();
    let transitions: Vec<Value> = snapshot
        .transitions
        .iter()
        .map(|t| {
            json!({
                "time": clock.rfc3339(t.at),
                "from": t.from.name(),
                "to": t.to.name(),
                "reason": t.reason,
            })
        })
        .collect();
    let since = snapshot.transitions.last().map(|t| clock.rfc3339(t.at));
    json!({
        "current": if entry.is_over() { "stopping" } else { snapshot.state.name() },
        "previous": snapshot.previous_state.name(),
        "since": since,
        "transitions": transitions,
        "last_error": entry.last_error,
        "error_count": entry.error_count,
        "health": health.name(),
        "health_reasons": reasons,
        "end_reason": entry.end_reason.map(|r| r.name()),
    })
}

fn tracks(snapshot: &StreamSnapshot) -> Vec<Value> {
    let tracks = snapshot.tracks.iter().enumerate();
    tracks
        .map(|(at, track)| media_stats::track(track, snapshot.figures.tracks.get(at)))
        .collect()
}

fn millis(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

/// What `diagnostics.payload_hash` shows.
fn payload_figures(payload: &PayloadFigures) -> Value {
    let hex: String = payload.sha256.iter().map(|b| format!("{b:02x}")).collect();
    json!({
        "bytes": payload.bytes,
        "packets": payload.packets,
        "missing": payload.missing,
        "sha256": hex,
    })
}

/// All statistics of a stream.
pub(crate) fn stats(entry: &Entry) -> Value {
    let s = &entry.snapshot.stats;
    let discards: Map<String, Value> = s
        .discards
        .nonzero()
        .map(|(reason, n)| (reason.label().to_owned(), json!(n)))
        .collect();
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    put("packets_received", json!(s.packets_received));
    put("packets_unique", json!(s.packets_unique));
    put("bytes_received", json!(s.bytes_received));
    put("packets_lost", json!(s.packets_lost));
    put("packets_retransmitted", json!(s.packets_retransmitted));
    put("packets_dropped", json!(s.packets_dropped));
    put("packets_belated", json!(s.packets_belated));
    put("packets_duplicate", json!(s.packets_duplicate));
    put("packets_reordered", json!(s.packets_reordered));
    put("packets_undecryptable", json!(s.packets_undecryptable));
    put("packets_held", json!(s.packets_held));
    put(
        "bitrate",
        json!(if entry.is_over() { 0 } else { s.bitrate_bps }),
    );
    put("rtt_ms", json!(millis(s.rtt_us)));
    put("rtt_variance_ms", json!(millis(s.rtt_variance_us)));
    put("jitter_ms", json!(millis(s.jitter_us)));
    put("latency_ms", json!(s.latency_ms));
    put("drift_us", json!(s.drift_us));
    put("link_capacity_pps", json!(s.link_capacity_pps));
    put("acks_sent", json!(s.acks_sent));
    put("naks_sent", json!(s.naks_sent));
    put("ackacks_received", json!(s.ackacks_received));
    put("frames_assembled", json!(s.frames_assembled));
    put("frames_damaged", json!(s.frames_damaged));
    put("frames_undecodable", json!(s.frames_undecodable));
    put(
        "frames_references_missing",
        json!(s.frames_references_missing),
    );
    put("frames_dropped", json!(s.frames_dropped));
    put("video_frames", json!(s.video_frames));
    put("key_frames", json!(s.key_frames));
    put("p_frames", json!(s.p_frames));
    put("b_frames", json!(s.b_frames));
    put("audio_frames", json!(s.audio_frames));
    put("gops", json!(s.gops));
    put(
        "measured_frame_rate",
        json!(f64::from(s.frame_rate_milli) / 1000.0),
    );
    put("ts_packets", json!(s.ts_packets));
    put("continuity_errors", json!(s.continuity_errors));
    put("sync_losses", json!(s.sync_losses));
    put("klv_units", json!(entry.snapshot.figures.klv_units));
    put("splices_total", json!(entry.snapshot.figures.splices_total));
    put("ring_capacity_slots", json!(s.ring_capacity_slots));
    put("ring_used_slots", json!(s.ring_used_slots));
    put("sessions", json!(s.sessions));
    put("peer_moves", json!(s.peer_moves));
    if let Some(srt) = &entry.snapshot.srt {
        put("key_state", json!(srt.rcv_km_state.name()));
        put("key_refreshes", json!(srt.km_refreshes));
    }
    if let Some(payload) = &s.payload {
        put("payload", payload_figures(payload));
    }
    put("discards", Value::Object(discards));
    Value::Object(map)
}
