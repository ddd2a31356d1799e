//! What is behind each path: authorization, routing, and the handlers that look at the shared
//! state (product contract, section 4).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mirror_base::ring::CHUNK_BYTES;
use mirror_base::{Instant, StreamId};
use mirror_stream::report::{Command, EndReason, Status};
use serde_json::{Map, Value, json};

use super::ApiCounters;
use super::latency::{self, NoLatency};
use super::list;
use super::response::{Response, parse_query, percent_decode};
use crate::Mailboxes;
use crate::clock::{self, WallClock, rfc3339_now};
use crate::config::Config;
use crate::directory::Directory;
use crate::keys::KeyCounters;
use crate::metrics;
use crate::record;
use crate::registry::Registry;
use crate::state::{Entry, SHARD_STALE, ShardEntry, SharedState, lock};
use crate::{media_stats, rtp_stats, srt_stats};

/// Time that shards have to answer.
pub(crate) const SHARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests that may wait for shards at the same time: workers for the others remain.
const MAX_ASKING: usize = super::WORKERS - 2;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: Arc<Config>,
    pub(crate) state: SharedState,
    pub(crate) directory: Arc<Directory>,
    pub(crate) mailboxes: Arc<dyn Mailboxes>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) started: Instant,
    pub(crate) counters: ApiCounters,
    pub(crate) keys: Arc<KeyCounters>,
    pub(crate) asking: AtomicUsize,
    pub(crate) rendered: Mutex<Option<(Instant, String)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    Health,
    Ready,
    Metrics,
    Streams,
    Stream,
    StreamStats,
    StreamLatency,
    StreamSync,
    StreamBuffer,
    StreamRecovery,
    VideoStats,
    Latency,
    Stats,
    Shards,
    Callers,
    Config,
}

impl Route {
    const fn allow(self) -> &'static str {
        match self {
            Route::Stream => "GET, HEAD, DELETE, OPTIONS",
            Route::Streams => "GET, HEAD, POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

const ROUTES: [(&str, Route); 16] = [
    ("/healthz", Route::Health),
    ("/readyz", Route::Ready),
    ("/metrics", Route::Metrics),
    ("/api/v1/streams", Route::Streams),
    ("/api/v1/streams/{id}", Route::Stream),
    ("/api/v1/streams/{id}/stats", Route::StreamStats),
    ("/api/v1/streams/{id}/latency", Route::StreamLatency),
    ("/api/v1/streams/{id}/sync", Route::StreamSync),
    ("/api/v1/streams/{id}/buffer", Route::StreamBuffer),
    ("/api/v1/streams/{id}/recovery", Route::StreamRecovery),
    ("/api/v1/streams/stats/video", Route::VideoStats),
    ("/api/v1/latency", Route::Latency),
    ("/api/v1/stats", Route::Stats),
    ("/api/v1/shards", Route::Shards),
    ("/api/v1/callers", Route::Callers),
    ("/api/v1/config", Route::Config),
];

fn router() -> &'static matchit::Router<Route> {
    static ROUTER: std::sync::OnceLock<matchit::Router<Route>> = std::sync::OnceLock::new();
    ROUTER.get_or_init(|| {
        let mut router = matchit::Router::new();
        for (path, route) in ROUTES {
            // The table is ours and a test reads every line of it.
            if let Err(error) = router.insert(path, route) {
                tracing::error!(path, %error, "route left out");
            }
        }
        router
    })
}

type Query = Vec<(String, String)>;

impl Service {
    /// Answers one request.
    pub(crate) fn handle(
        &self,
        method: &str,
        url: &str,
        authorization: Option<&str>,
        origin: Option<&str>,
        body: &[u8],
    ) -> Response {
        let response = self.route(method, url, authorization, body);
        self.cors(response, origin)
    }

    fn route(&self, method: &str, url: &str, authorization: Option<&str>, body: &[u8]) -> Response {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let path = if path.len() > 1 {
            path.strip_suffix('/').unwrap_or(path)
        } else {
            path
        };
        let matched = router().at(path).ok();
        let open = matched
            .as_ref()
            .is_some_and(|m| matches!(*m.value, Route::Health | Route::Ready));
        if method != "OPTIONS" && !open && !self.authorized(authorization) {
            return Response::error(401, "a valid bearer token is needed")
                .with_header("WWW-Authenticate", "Bearer");
        }
        let Some(matched) = matched else {
            return Response::error(404, &format!("no such path: {path}"));
        };
        let route = *matched.value;
        let id = matched.params.get("id").map(str::to_owned);
        let Some(query) = parse_query(query) else {
            return Response::error(400, "malformed query string");
        };
        match (method, route) {
            ("OPTIONS", _) => Response::text("text/plain", String::new())
                .with_status(204)
                .with_header("Allow", route.allow()),
            // tiny_http leaves the body of an answer to HEAD out.
            ("GET" | "HEAD", _) => self.get(route, id.as_deref(), &query),
            ("POST", Route::Streams) => self.create(body),
            ("DELETE", Route::Stream) => self.with_id(id.as_deref(), |id| self.delete(id)),
            _ => Response::error(405, &format!("{path} allows {}", route.allow()))
                .with_header("Allow", route.allow()),
        }
    }

    fn authorized(&self, authorization: Option<&str>) -> bool {
        let Some(token) = &self.config.api.token else {
            return true;
        };
        let given = authorization
            .and_then(|a| a.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, given)| same(given.trim().as_bytes(), token.reveal().as_bytes()))
    }

    fn cors(&self, response: Response, origin: Option<&str>) -> Response {
        let allowed = &self.config.api.cors;
        let Some(origin) = origin.filter(|o| allowed.iter().any(|a| a == "*" || a == o)) else {
            return response;
        };
        response
            .with_header("Access-Control-Allow-Origin", origin)
            .with_header(
                "Access-Control-Allow-Methods",
                "GET, HEAD, POST, DELETE, OPTIONS",
            )
            .with_header(
                "Access-Control-Allow-Headers",
                "Authorization, Content-Type",
            )
            .with_header("Vary", "Origin")
    }

    fn get(&self, route: Route, id: Option<&str>, query: &Query) -> Response {
        match route {
            Route::Health => Response::json(&json!({ "status": "ok", "time": rfc3339_now() })),
            Route::Ready => self.ready(),
            Route::Metrics => Response::text(
                "text/plain; version=0.0.4; charset=utf-8",
                metrics::render(self),
            ),
            Route::Streams => list::list(&self.state, query),
            Route::Stream => self.with_id(id, |id| self.stream(id)),
            Route::StreamStats => self.with_id(id, |id| self.stream_stats(id)),
            Route::StreamLatency => self.with_id(id, |id| self.stream_latency(id, query)),
            Route::StreamSync => self.with_id(id, |id| self.about(id, media_stats::sync)),
            Route::StreamBuffer => self.with_id(id, |id| {
                let gop = &self.config.gop;
                self.about(id, |entry, clock| media_stats::buffer(entry, gop, clock))
            }),
            Route::StreamRecovery => self.with_id(id, |id| self.about(id, media_stats::recovery)),
            Route::VideoStats => self.video_stats(),
            Route::Latency => self.latency(query),
            Route::Stats => self.stats(query),
            Route::Shards => self.shards(),
            Route::Callers => self.callers(),
            Route::Config => Response::json(&self.config.to_json()),
        }
    }

    fn with_id(&self, raw: Option<&str>, handle: impl FnOnce(&StreamId) -> Response) -> Response {
        let decoded = raw.and_then(percent_decode);
        match decoded.as_deref().map(StreamId::new) {
            Some(Ok(id)) => handle(&id),
            Some(Err(error)) => Response::error(400, &error.to_string()),
            None => Response::error(400, "malformed percent-encoding in the stream id"),
        }
    }

    fn stream(&self, id: &StreamId) -> Response {
        let record = lock(&self.state).record(id, &WallClock::read());
        match record {
            Some(record) => Response::json(&record.to_json()),
            None => not_found(id),
        }
    }

    fn stream_stats(&self, id: &StreamId) -> Response {
        let entry = lock(&self.state).streams.get(id).cloned();
        let Some(entry) = entry else {
            return not_found(id);
        };
        let mut map = Map::new();
        map.insert("id".to_owned(), json!(id.as_str()));
        map.insert("status".to_owned(), json!(entry.status.name()));
        map.insert("time".to_owned(), json!(rfc3339_now()));
        if let Value::Object(stats) = record::stats(&entry) {
            map.extend(stats);
        }
        map.insert(
            "encryption".to_owned(),
            json!(record::encryption(&entry.snapshot)),
        );
        let clock = WallClock::read();
        map.insert("gop".to_owned(), media_stats::gop(&entry, &clock));
        if let Some(report) = media_stats::tr101290(&entry, &clock) {
            map.insert("tr101290".to_owned(), report);
        }
        let splices = media_stats::splices(&entry, &clock);
        map.insert("splices".to_owned(), json!(splices));
        if let Some(srt) = srt_stats::to_json(&entry) {
            map.insert("srt".to_owned(), srt);
        }
        if let Some(rtp) = rtp_stats::to_json(&entry) {
            map.insert("rtp".to_owned(), rtp);
        }
        Response::json(&Value::Object(map))
    }

    /// What `tell` says of a stream.
    fn about(
        &self,
        id: &StreamId,
        tell: impl FnOnce(&Entry, &WallClock) -> Map<String, Value>,
    ) -> Response {
        let entry = lock(&self.state).streams.get(id).cloned();
        let Some(entry) = entry else {
            return not_found(id);
        };
        let mut map = Map::new();
        map.insert("id".to_owned(), json!(id.as_str()));
        map.insert("time".to_owned(), json!(rfc3339_now()));
        map.extend(tell(&entry, &WallClock::read()));
        Response::json(&Value::Object(map))
    }

    fn video_stats(&self) -> Response {
        let mut entries: Vec<Entry> = {
            let state = lock(&self.state);
            let live = state.live().map(|(_, entry)| entry);
            live.filter(|e| e.snapshot.video().is_some())
                .cloned()
                .collect()
        };
        entries.sort_by(|a, b| a.snapshot.stream_id.cmp(&b.snapshot.stream_id));
        let streams: Vec<Value> = entries.iter().map(media_stats::video).collect();
        Response::json(&json!({
            "streams": streams,
            "count": streams.len(),
            "time": rfc3339_now(),
        }))
    }

    fn stream_latency(&self, id: &StreamId, query: &Query) -> Response {
        let options = match LatencyOptions::parse(query) {
            Ok(options) => options,
            Err(message) => return Response::error(400, &message),
        };
        let shard = lock(&self.state)
            .streams
            .get(id)
            .filter(|e| !e.is_over())
            .and_then(|e| e.shard);
        let Some(shard) = shard else {
            return not_found(id);
        };
        let answer = self.asking(|| {
            latency::ask_stream(&*self.mailboxes, shard, id, options.reset, SHARD_TIMEOUT)
        });
        match answer {
            Some(Ok(set)) if options.format != LatencyFormat::Json => options.histogram_of(&set),
            Some(Ok(set)) => {
                let mut map = latency::to_json(&set);
                map.insert("id".to_owned(), json!(id.as_str()));
                map.insert("shard".to_owned(), json!(shard.0));
                map.insert("unit".to_owned(), json!("us"));
                map.insert("time".to_owned(), json!(rfc3339_now()));
                Response::json(&Value::Object(map))
            }
            Some(Err(NoLatency::Unknown)) => not_found(id),
            Some(Err(NoLatency::Silent)) => {
                Response::error(503, &format!("shard {shard} did not answer within 1 s"))
            }
            None => busy(),
        }
    }

    fn latency(&self, query: &Query) -> Response {
        let options = match LatencyOptions::parse(query) {
            Ok(options) => options,
            Err(message) => return Response::error(400, &message),
        };
        let Some(answers) =
            self.asking(|| latency::ask_all(&*self.mailboxes, options.reset, SHARD_TIMEOUT))
        else {
            return busy();
        };
        let silent: Vec<u16> = answers
            .iter()
            .filter(|(_, set)| set.is_none())
            .map(|(shard, _)| shard.0)
            .collect();
        let Some(merged) = latency::merge(answers.iter().filter_map(|(_, set)| set.as_deref()))
        else {
            return Response::error(503, "no shard answered within 1 s");
        };
        if options.format != LatencyFormat::Json {
            return options.histogram_of(&merged);
        }
        let shards: Vec<Value> = answers
            .iter()
            .filter_map(|(shard, set)| {
                let mut map = latency::to_json(set.as_deref()?);
                map.insert("shard".to_owned(), json!(shard.0));
                Some(Value::Object(map))
            })
            .collect();
        Response::json(&json!({
            "time": rfc3339_now(),
            "unit": "us",
            "merged": latency::to_json(&merged),
            "shards": shards,
            "silent_shards": silent,
        }))
    }

    /// Runs `ask` unless too many requests wait for shards already.
    pub(super) fn asking<T>(&self, ask: impl FnOnce() -> T) -> Option<T> {
        if self.asking.fetch_add(1, Ordering::AcqRel) >= MAX_ASKING {
            self.asking.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let answer = ask();
        self.asking.fetch_sub(1, Ordering::AcqRel);
        Some(answer)
    }

    fn delete(&self, id: &StreamId) -> Response {
        let shard = lock(&self.state)
            .streams
            .get(id)
            .filter(|e| !e.is_over())
            .map(|e| e.shard);
        let Some(shard) = shard else {
            return not_found(id);
        };
        let now = clock::now();
        self.directory.block(id, now + self.config.stream.block_for);
        let command = Command::Terminate {
            stream_id: id.clone(),
            reason: EndReason::Operator,
        };
        // A caller between two calls is on no shard: control sees that its stream is blocked.
        if let Some(shard) = shard
            && self.mailboxes.send(shard, command).is_err()
        {
            return Response::error(503, &format!("shard {shard} takes no commands"));
        }
        lock(&self.state).changed(now, id, Status::Terminating);
        tracing::info!(stream = %id, "stream terminated by the operator");
        Response::json(&json!({
            "id": id.as_str(),
            "status": Status::Terminating.name(),
            "blocked_for": crate::config::show_duration(self.config.stream.block_for),
            "time": rfc3339_now(),
        }))
        .with_status(202)
    }

    fn ready(&self) -> Response {
        let now = clock::now();
        let registry = self.registry.health();
        let mut problems = Vec::new();
        {
            let state = lock(&self.state);
            if state.draining {
                problems.push("draining".to_owned());
            }
            for (shard, entry) in state.shards.iter().enumerate() {
                if let Some(problem) = shard_problem(entry.as_ref(), now) {
                    problems.push(format!("shard {shard} {problem}"));
                }
            }
        }
        if !registry.usable {
            let why = registry.last_error.as_deref().unwrap_or("unknown");
            problems.push(format!(
                "registry ({}) is not usable: {why}",
                registry.backend
            ));
        }
        let ready = problems.is_empty();
        Response::json(&json!({
            "ready": ready,
            "problems": problems,
            "registry": {
                "backend": registry.backend,
                "usable": registry.usable,
                "pending_writes": registry.pending,
                "last_error": registry.last_error,
            },
            "time": rfc3339_now(),
        }))
        .with_status(if ready { 200 } else { 503 })
    }

    fn stats(&self, query: &Query) -> Response {
        for (key, value) in query {
            if key != "scope" || value != "local" {
                return Response::error(
                    400,
                    &format!("{key}={value}: only scope=local is available in this version"),
                );
            }
        }
        let now = clock::now();
        let state = lock(&self.state);
        let mut by_status: Map<String, Value> = Map::new();
        let mut by_type: Map<String, Value> = Map::new();
        let (mut active, mut bitrate) = (0_u64, 0_u64);
        let count = |map: &mut Map<String, Value>, key: &str| {
            let n = map.get(key).and_then(Value::as_u64).unwrap_or(0);
            map.insert(key.to_owned(), json!(n + 1));
        };
        for entry in state.streams.values() {
            count(&mut by_status, entry.status.name());
            count(&mut by_type, entry.snapshot.protocol.name());
            if entry.status == Status::Active {
                active += 1;
                bitrate += entry.snapshot.stats.bitrate_bps;
            }
        }
        let totals = state.totals();
        let pool = |f: fn(&ShardEntry) -> u64| state.shards.iter().flatten().map(f).sum::<u64>();
        let shards: Vec<Value> = state
            .shards
            .iter()
            .enumerate()
            .map(|(i, s)| shard_brief(i, s.as_ref(), now))
            .collect();
        Response::json(&json!({
            "total_streams": state.streams.len(),
            "active_streams": active,
            "streams_by_status": by_status,
            "streams_by_type": by_type,
            "total_bitrate": bitrate,
            "packets_received": totals.packets_received,
            "bytes_received": totals.bytes_received,
            "packets_lost": totals.packets_lost,
            "packets_retransmitted": totals.packets_retransmitted,
            "packets_dropped": totals.packets_dropped,
            "kernel_drops": state.kernel_drops(),
            "cpu_usage": (state.process.cpu_percent * 100.0).round() / 100.0,
            "cpu_seconds": state.process.cpu_seconds,
            "memory_usage": state.process.memory,
            "uptime": now.saturating_since(self.started).as_secs(),
            "buffer_pool": {
                "chunks": pool(|s| s.snapshot.pool_chunks),
                "free": pool(|s| s.snapshot.pool_free),
                "chunk_bytes": CHUNK_BYTES,
            },
            "shards": shards,
            "instance": self.config.instance,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "time": rfc3339_now(),
        }))
    }

    fn callers(&self) -> Response {
        let clock = WallClock::read();
        let callers: Vec<Value> = lock(&self.state)
            .callers
            .iter()
            .map(|(id, caller)| caller.to_json(id, &clock))
            .collect();
        Response::json(
            &json!({ "callers": callers, "count": callers.len(), "time": rfc3339_now() }),
        )
    }

    fn shards(&self) -> Response {
        let now = clock::now();
        let state = lock(&self.state);
        let shards: Vec<Value> = state
            .shards
            .iter()
            .enumerate()
            .map(|(i, entry)| {
                let mut brief = shard_brief(i, entry.as_ref(), now);
                let here = |e: &Entry| e.shard.is_some_and(|s| s.index() == i);
                let live = state.present().filter(|(_, e)| here(e)).count();
                if let Some(map) = brief.as_object_mut() {
                    map.insert("streams".to_owned(), json!(live));
                    if let Some(entry) = entry {
                        map.extend(shard_details(entry));
                    }
                }
                brief
            })
            .collect();
        Response::json(&json!({ "shards": shards, "count": shards.len(), "time": rfc3339_now() }))
    }
}

fn not_found(id: &StreamId) -> Response {
    Response::error(404, &format!("stream not found: {id}"))
}

fn busy() -> Response {
    Response::error(503, "too many requests wait for shards").with_header("Retry-After", "1")
}

fn same(a: &[u8], b: &[u8]) -> bool {
    // In time that does not depend on where they differ.
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

fn shard_problem(entry: Option<&ShardEntry>, now: Instant) -> Option<&'static str> {
    match entry {
        None => Some("has not reported yet"),
        Some(entry) if entry.stopped => Some("has stopped"),
        Some(entry) if now.saturating_since(entry.received_at) > SHARD_STALE => {
            Some("does not report")
        }
        Some(_) => None,
    }
}

fn shard_brief(index: usize, entry: Option<&ShardEntry>, now: Instant) -> Value {
    let problem = shard_problem(entry, now);
    let Some(entry) = entry else {
        return json!({ "shard": index, "core": null, "responsive": false, "problem": problem });
    };
    let drops: u64 = entry.snapshot.sockets.iter().map(|s| s.kernel_drops).sum();
    json!({
        "shard": index,
        "core": entry.snapshot.core,
        "responsive": problem.is_none(),
        "problem": problem,
        "load": (entry.cpu_percent * 100.0).round() / 100.0,
        "cpu_seconds": entry.snapshot.cpu_ns as f64 / 1e9,
        "datagrams_received": entry.snapshot.counters.datagrams_received,
        "kernel_drops": drops,
    })
}

fn shard_details(entry: &ShardEntry) -> Map<String, Value> {
    let (snapshot, c) = (&entry.snapshot, &entry.snapshot.counters);
    let sockets: Vec<Value> = snapshot
        .sockets
        .iter()
        .map(|s| {
            json!({
                "role": s.role,
                "local": s.local.to_string(),
                "receive_buffer": s.receive_buffer,
                "datagrams": s.datagrams,
                "bytes": s.bytes,
                "kernel_drops": s.kernel_drops,
            })
        })
        .collect();
    let discards: Map<String, Value> = c
        .discards
        .nonzero()
        .map(|(reason, n)| (reason.label().to_owned(), json!(n)))
        .collect();
    let per_wakeup = if c.wakeups > 0 {
        c.datagrams_received as f64 / c.wakeups as f64
    } else {
        0.0
    };
    let value = json!({
        "sessions": snapshot.sessions,
        "handshakes_pending": snapshot.handshakes_pending,
        "calls_pending": snapshot.calls_pending,
        "pool_chunks": snapshot.pool_chunks,
        "pool_free": snapshot.pool_free,
        "wakeups": c.wakeups,
        "datagrams_per_wakeup": (per_wakeup * 100.0).round() / 100.0,
        "enters": c.enters,
        "rearms": c.rearms,
        "cq_overflows": c.cq_overflows,
        "datagrams_sent": c.datagrams_sent,
        "send_errors": c.send_errors,
        "send_calls": c.send_calls,
        "super_packets": c.super_packets,
        "calls": c.calls,
        "calls_failed": c.calls_failed,
        "peer_moves": c.peer_moves,
        "handshakes_forwarded": c.handshakes_forwarded,
        "foreign_datagrams": c.foreign_datagrams,
        "inductions": c.inductions,
        "accepted": c.accepted,
        "rejected": c.rejected,
        "session_panics": c.session_panics,
        "events_dropped": c.events_dropped,
        "discards": discards,
        "sockets": sockets,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// In which form latencies are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LatencyFormat {
    Json,
    /// HdrHistogram's percentile text.
    Hgrm,
    /// HdrHistogram's V2 compressed form in base64, as in its interval logs.
    V2,
}

#[derive(Debug)]
struct LatencyOptions {
    format: LatencyFormat,
    reset: bool,
    stage: String,
}

impl LatencyOptions {
    fn parse(query: &Query) -> Result<Self, String> {
        let mut options = LatencyOptions {
            format: LatencyFormat::Json,
            reset: false,
            stage: "total".to_owned(),
        };
        for (key, value) in query {
            match (key.as_str(), value.as_str()) {
                ("format", "json") => options.format = LatencyFormat::Json,
                ("format", "hgrm") => options.format = LatencyFormat::Hgrm,
                ("format", "v2") => options.format = LatencyFormat::V2,
                ("format", _) => return Err(format!("format={value}: must be json, hgrm or v2")),
                ("reset", "true" | "1" | "") => options.reset = true,
                ("reset", "false" | "0") => options.reset = false,
                ("stage", stage) if latency::STAGES.contains(&stage) => {
                    options.stage = stage.to_owned()
                }
                ("stage", _) => {
                    return Err(format!(
                        "stage={value}: must be one of {}",
                        latency::STAGES.join(", ")
                    ));
                }
                _ => return Err(format!("{key}={value}: unknown parameter or value")),
            }
        }
        Ok(options)
    }

    /// One stage's histogram in a form of HdrHistogram's own.
    fn histogram_of(&self, set: &mirror_stream::report::LatencySet) -> Response {
        let histogram = latency::stage(set, &self.stage).unwrap_or(&set.total);
        let text = match self.format {
            LatencyFormat::V2 => match latency::to_v2(histogram) {
                Ok(text) => text,
                Err(error) => return Response::error(500, &format!("histogram: {error}")),
            },
            LatencyFormat::Hgrm | LatencyFormat::Json => latency::to_hgrm(histogram),
        };
        Response::text("text/plain; charset=utf-8", text)
    }
}
