//! Prometheus metrics (product contract, section 6). Shards count in plain integers and send
//! them once a second; a scrape publishes the last of these through the `metrics` crate into a
//! recorder of its own and renders it. So an unscraped engine does no work, and the series of a
//! stream are gone with the stream. Called by the HTTP side for `/metrics`.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::api::{Service, ask_latency};
use crate::caller::{Breaker, Phase};
use crate::clock;
use crate::registry;
use crate::state::{Entry, ShardEntry, State, lock};
use crate::{media_stats, rtp_stats, srt_stats};

/// A rendering is given out again for so long: scrapers cannot make work.
const CACHE: Duration = Duration::from_millis(500);
/// Shards have so long to give their latency; who does not is left out.
const LATENCY_WAIT: Duration = Duration::from_millis(250);
/// Streams whose own series are shown; more are still in the sums.
const MAX_STREAM_SERIES: usize = 5000;

/// The text of `/metrics`.
pub(crate) fn render(service: &Service) -> String {
    // Whoever comes while another renders waits for that rendering.
    let mut rendered = service
        .rendered
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let now = clock::now();
    if let Some((at, text)) = rendered.as_ref()
        && now.saturating_since(*at) < CACHE
    {
        return text.clone();
    }
    let text = render_now(service);
    *rendered = Some((clock::now(), text.clone()));
    text
}

fn render_now(service: &Service) -> String {
    let latency = ask_latency(&*service.mailboxes, false, LATENCY_WAIT);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        describe();
        // Copies (of shared snapshots) under the lock, work without it.
        let (shards, mut shown) = {
            let state = lock(&service.state);
            publish_engine(&state, service);
            publish_callers(&state);
            let shown: Vec<Entry> = state.present().map(|(_, e)| e.clone()).collect();
            (state.shards.clone(), shown)
        };
        for (i, shard) in shards.iter().enumerate() {
            if let Some(shard) = shard {
                publish_shard(&i.to_string(), shard);
            }
        }
        shown.sort_by(|a, b| a.snapshot.stream_id.cmp(&b.snapshot.stream_id));
        for entry in shown.iter().take(MAX_STREAM_SERIES) {
            publish_stream(entry);
            media_stats::publish(entry);
        }
        for entry in shown.iter().take(srt_stats::MAX_SERIES) {
            srt_stats::publish(entry);
            rtp_stats::publish(entry);
        }
        publish_registry(&service.registry.health());
        publish_api(service);
        publish_keys(service);
        for (shard, set) in &latency {
            let Some(set) = set else { continue };
            for stage in crate::api::LATENCY_STAGES {
                if let Some(histogram) = crate::api::latency_stage(set, stage) {
                    publish_latency(&shard.to_string(), stage, histogram);
                }
            }
        }
    });
    count_seconds(handle.render())
}

/// Counters of seconds. The `metrics` crate counts in whole numbers, so that they are published
/// as gauges; what a scraper is told is what they are.
const SECONDS_COUNTERS: [&str; 5] = [
    "keys_cpu_seconds_total",
    "shard_cpu_seconds_total",
    "process_cpu_seconds_total",
    "registry_operation_seconds_total",
    "api_request_seconds_total",
];

fn count_seconds(mut text: String) -> String {
    for name in SECONDS_COUNTERS {
        // A whole line: label values cannot hold one, their line ends are escaped.
        text = text.replace(
            &format!("# TYPE {name} gauge\n"),
            &format!("# TYPE {name} counter\n"),
        );
    }
    text
}

fn describe() {
    describe_counter!(
        "ingest_info",
        "1; names the instance and version in its labels"
    );
    srt_stats::describe();
    rtp_stats::describe();
    media_stats::describe();
    for (name, text) in COUNTERS {
        describe_counter!(*name, *text);
    }
    for (name, text) in GAUGES {
        describe_gauge!(*name, *text);
    }
}

const COUNTERS: &[(&str, &str)] = &[
    (
        "stream_ingestion_bytes_total",
        "Payload received, first copies only, in bytes",
    ),
    (
        "stream_ingestion_packets_total",
        "Data packets received, retransmissions included, in packets",
    ),
    (
        "stream_ingestion_errors_total",
        "Datagrams or parts of one that were discarded, by reason, in pieces",
    ),
    (
        "connection_reconnects_total",
        "Sessions of the stream after its first, in sessions",
    ),
    (
        "buffer_drops_total",
        "Frames dropped by policy or limits, in frames",
    ),
    (
        "rtp_packets_received_total",
        "RTP packets received, in packets",
    ),
    (
        "rtp_packets_lost_total",
        "RTP losses seen before repair, in packets",
    ),
    (
        "rtp_packets_dropped_total",
        "RTP packets that never came in time, in packets",
    ),
    (
        "rtp_packets_reordered_total",
        "RTP packets that came behind a later one, in packets",
    ),
    (
        "rtp_packets_duplicate_total",
        "RTP packets received twice, in packets",
    ),
    ("frames_total", "Access units assembled, by type, in frames"),
    (
        "frames_damaged_total",
        "Access units marked damaged, in frames",
    ),
    ("gop_total", "Groups of pictures begun, in GOPs"),
    ("ts_packets_total", "MPEG-TS packets seen, in packets"),
    (
        "ts_continuity_errors_total",
        "MPEG-TS continuity errors, in errors",
    ),
    (
        "ingest_packets_total",
        "Data packets of all streams since start, in packets",
    ),
    (
        "ingest_bytes_total",
        "Payload of all streams since start, in bytes",
    ),
    (
        "ingest_packets_lost_total",
        "Losses of all streams before repair since start, in packets",
    ),
    (
        "ingest_packets_dropped_total",
        "Losses of all streams never repaired since start, in packets",
    ),
    (
        "publishers_refused_total",
        "Publishers refused, by reason, in handshakes",
    ),
    (
        "srt_caller_attempts_total",
        "Calls begun for a configured caller, in calls",
    ),
    (
        "srt_caller_failures_total",
        "Calls that failed or did not last, in calls",
    ),
    (
        "srt_caller_connections_total",
        "Calls that brought a stream, in connections",
    ),
    (
        "keys_derived_total",
        "Keys derived from passphrases (PBKDF2), in keys",
    ),
    (
        "keys_refused_total",
        "Handshakes whose keys were not derived, by reason, in handshakes",
    ),
    (
        "shard_wakeups_total",
        "Times the shard slept and woke, in wakeups",
    ),
    ("shard_ring_enters_total", "io_uring_enter calls, in calls"),
    (
        "shard_ring_overflows_total",
        "Completion queue overflows, in events",
    ),
    (
        "shard_ring_rearms_total",
        "Multishot receives armed again, in events",
    ),
    (
        "shard_datagrams_received_total",
        "Datagrams received on all sockets, in datagrams",
    ),
    ("shard_datagrams_sent_total", "Datagrams sent, in datagrams"),
    (
        "shard_send_errors_total",
        "Datagrams that could not be sent, in datagrams",
    ),
    (
        "shard_kernel_drops_total",
        "Datagrams the kernel dropped for lack of socket buffer, in datagrams",
    ),
    (
        "shard_handshakes_forwarded_total",
        "Handshakes handed to the owning shard, in handshakes",
    ),
    (
        "shard_super_packets_total",
        "Segmented sends of two or more datagrams, in sends",
    ),
    ("shard_calls_total", "Calls to listeners begun, in calls"),
    (
        "shard_calls_failed_total",
        "Calls to listeners that came to nothing, in calls",
    ),
    (
        "shard_peer_moves_total",
        "Peers that went on from another address and were followed, in moves",
    ),
    (
        "shard_foreign_datagrams_total",
        "Datagrams of sessions of other shards, in datagrams",
    ),
    (
        "shard_connections_accepted_total",
        "Handshakes accepted, in handshakes",
    ),
    (
        "shard_connections_rejected_total",
        "Handshakes rejected, in handshakes",
    ),
    (
        "shard_session_panics_total",
        "Sessions that died of a broken invariant, in sessions",
    ),
    (
        "shard_events_dropped_total",
        "Events that control did not take in time, in events",
    ),
    (
        "shard_discards_total",
        "Datagrams of no stream that were discarded, by reason, in datagrams",
    ),
    (
        "registry_operations_total",
        "Operations of the registry backend, in operations",
    ),
    (
        "registry_errors_total",
        "Operations that failed, in operations",
    ),
    (
        "registry_events_published_total",
        "Events published, in events",
    ),
    (
        "registry_events_dropped_total",
        "Events lost while the backend was away, in events",
    ),
    (
        "registry_reconnects_total",
        "Connections made to the backend, in connections",
    ),
    (
        "api_requests_total",
        "Requests answered, by class of status, in requests",
    ),
    (
        "api_connections_total",
        "Client connections accepted, in connections",
    ),
    (
        "api_connections_refused_total",
        "Client connections refused for lack of room, in connections",
    ),
    ("api_accept_errors_total", "Errors of accept, in errors"),
    (
        "api_bad_requests_total",
        "Request heads refused by the acceptor, in requests",
    ),
    (
        "api_timeouts_total",
        "Client connections that ran into a timeout, in connections",
    ),
    (
        "api_server_restarts_total",
        "Times the HTTP server was started anew, in restarts",
    ),
];

const GAUGES: &[(&str, &str)] = &[
    (
        "srt_caller_state",
        "1 for the state that a configured caller is in, else 0",
    ),
    (
        "srt_caller_breaker_open",
        "1 while the circuit breaker of a caller is open or half open, else 0",
    ),
    (
        "keys_waiting",
        "Handshakes and calls that wait for their keys, in keys",
    ),
    (
        "keys_cpu_seconds_total",
        "CPU time spent on deriving keys, in seconds",
    ),
    (
        "stream_ingestion_active_total",
        "Active streams, in streams",
    ),
    (
        "stream_ingestion_bitrate",
        "Payload rate of about the last second, in bits per second",
    ),
    (
        "buffer_usage_bytes",
        "Part of the stream's ring in use, in bytes",
    ),
    ("buffer_capacity_bytes", "The stream's ring, in bytes"),
    (
        "connection_duration_seconds",
        "Age of the stream's session, in seconds",
    ),
    ("rtp_jitter_seconds", "RTP interarrival jitter, in seconds"),
    (
        "frame_rate",
        "Measured video frame rate, in frames per second",
    ),
    (
        "shard_cpu_seconds_total",
        "CPU time of the shard's thread, in seconds",
    ),
    (
        "shard_cpu_percent",
        "CPU of the shard's thread over the last second, in percent of one core",
    ),
    (
        "shard_packets_per_wakeup",
        "Datagrams received per wakeup since start, in datagrams",
    ),
    (
        "shard_memory_bytes",
        "Packet memory of the shard, by state, in bytes",
    ),
    (
        "shard_sessions",
        "SRT connections and RTP sources now, in sessions",
    ),
    (
        "shard_handshakes_pending",
        "Half-open handshakes, in handshakes",
    ),
    (
        "shard_socket_receive_buffer_bytes",
        "Receive buffer the kernel granted, in bytes",
    ),
    (
        "process_cpu_seconds_total",
        "User and system CPU time of the process, in seconds",
    ),
    (
        "process_cpu_percent",
        "CPU of the process over the last second, in percent of one core",
    ),
    ("process_resident_memory_bytes", "Resident memory, in bytes"),
    ("process_uptime_seconds", "Time since start, in seconds"),
    (
        "registry_up",
        "1 when the registry backend is usable, else 0",
    ),
    (
        "registry_pending_writes",
        "Streams whose last state is not written yet, in streams",
    ),
    (
        "registry_operation_seconds_total",
        "Time spent in operations of the backend, in seconds",
    ),
    (
        "registry_index_size",
        "Streams in the local registry, by status, in streams",
    ),
    (
        "ingest_latency_seconds",
        "Latency by stage and quantile since start or reset, in seconds",
    ),
    (
        "ingest_latency_count",
        "Values behind ingest_latency_seconds, in values",
    ),
    (
        "api_open_connections",
        "Client connections now, in connections",
    ),
    (
        "api_request_seconds_total",
        "Time spent answering requests, in seconds",
    ),
];

fn publish_engine(state: &State, service: &Service) {
    let config = &service.config;
    counter!("ingest_info", "instance" => config.instance.clone(), "version" => env!("CARGO_PKG_VERSION")).absolute(1);
    for protocol in ["srt", "rtp"] {
        let active = state.streams.values().filter(|e| {
            e.status == mirror_stream::report::Status::Active
                && e.snapshot.protocol.name() == protocol
        });
        gauge!("stream_ingestion_active_total", "protocol" => protocol).set(active.count() as f64);
    }
    for status in mirror_stream::report::Status::ALL {
        let count = state
            .streams
            .values()
            .filter(|e| e.status == status)
            .count();
        gauge!("registry_index_size", "status" => status.name()).set(count as f64);
    }
    let totals = state.totals();
    counter!("ingest_packets_total").absolute(totals.packets_received);
    counter!("ingest_bytes_total").absolute(totals.bytes_received);
    counter!("ingest_packets_lost_total").absolute(totals.packets_lost);
    counter!("ingest_packets_dropped_total").absolute(totals.packets_dropped);
    let refusals = state.refusals;
    for (reason, n) in [
        ("conflict", refusals.conflict),
        ("overload", refusals.overload),
        ("forbidden", refusals.forbidden),
        ("draining", refusals.down),
        ("bad_secret", refusals.bad_secret),
        ("unsecure", refusals.unsecure),
        ("crypto", refusals.crypto),
        ("malformed_keys", refusals.malformed),
        ("internal", refusals.internal),
    ] {
        counter!("publishers_refused_total", "reason" => reason).absolute(n);
    }
    gauge!("process_cpu_seconds_total").set(state.process.cpu_seconds);
    gauge!("process_cpu_percent").set(state.process.cpu_percent);
    gauge!("process_resident_memory_bytes").set(state.process.memory as f64);
    gauge!("process_uptime_seconds")
        .set(clock::now().saturating_since(service.started).as_secs_f64());
}

fn publish_stream(entry: &Entry) {
    let (snapshot, s) = (&entry.snapshot, &entry.snapshot.stats);
    let id = || snapshot.stream_id.as_str().to_owned();
    let protocol = snapshot.protocol.name();
    counter!("stream_ingestion_bytes_total", "stream_id" => id(), "protocol" => protocol)
        .absolute(s.bytes_received);
    counter!("stream_ingestion_packets_total", "stream_id" => id(), "protocol" => protocol)
        .absolute(s.packets_received);
    gauge!("stream_ingestion_bitrate", "stream_id" => id()).set(s.bitrate_bps as f64);
    for (reason, n) in s.discards.nonzero() {
        counter!("stream_ingestion_errors_total", "stream_id" => id(), "error_type" => reason.label()).absolute(n);
    }
    let age = entry
        .seen_at
        .saturating_since(snapshot.started_at)
        .as_secs_f64();
    gauge!("connection_duration_seconds", "stream_id" => id(), "protocol" => protocol).set(age);
    let reconnects = u64::from(s.sessions.saturating_sub(1));
    counter!("connection_reconnects_total", "stream_id" => id()).absolute(reconnects);
    gauge!("buffer_usage_bytes", "stream_id" => id()).set(s.ring_used_bytes as f64);
    gauge!("buffer_capacity_bytes", "stream_id" => id()).set(s.ring_capacity_bytes as f64);
    counter!("buffer_drops_total", "stream_id" => id()).absolute(s.frames_dropped);
    for (kind, n) in [
        ("key", s.key_frames),
        ("p", s.p_frames),
        ("b", s.b_frames),
        ("audio", s.audio_frames),
    ] {
        counter!("frames_total", "stream_id" => id(), "type" => kind).absolute(n);
    }
    counter!("frames_damaged_total", "stream_id" => id()).absolute(s.frames_damaged);
    counter!("gop_total", "stream_id" => id()).absolute(s.gops);
    counter!("ts_packets_total", "stream_id" => id()).absolute(s.ts_packets);
    counter!("ts_continuity_errors_total", "stream_id" => id()).absolute(s.continuity_errors);
    gauge!("frame_rate", "stream_id" => id()).set(f64::from(s.frame_rate_milli) / 1000.0);
    match snapshot.protocol {
        mirror_stream::report::Protocol::Srt => {}
        mirror_stream::report::Protocol::Rtp => {
            counter!("rtp_packets_received_total", "stream_id" => id())
                .absolute(s.packets_received);
            counter!("rtp_packets_lost_total", "stream_id" => id()).absolute(s.packets_lost);
            counter!("rtp_packets_dropped_total", "stream_id" => id()).absolute(s.packets_dropped);
            counter!("rtp_packets_reordered_total", "stream_id" => id())
                .absolute(s.packets_reordered);
            counter!("rtp_packets_duplicate_total", "stream_id" => id())
                .absolute(s.packets_duplicate);
            gauge!("rtp_jitter_seconds", "stream_id" => id()).set(f64::from(s.jitter_us) / 1e6);
        }
    }
}

fn publish_shard(shard: &str, entry: &ShardEntry) {
    let (snapshot, c) = (&entry.snapshot, &entry.snapshot.counters);
    let name = || shard.to_owned();
    for (metric, n) in [
        ("shard_wakeups_total", c.wakeups),
        ("shard_ring_enters_total", c.enters),
        ("shard_ring_overflows_total", c.cq_overflows),
        ("shard_ring_rearms_total", c.rearms),
        ("shard_datagrams_received_total", c.datagrams_received),
        ("shard_datagrams_sent_total", c.datagrams_sent),
        ("shard_send_errors_total", c.send_errors),
        ("shard_handshakes_forwarded_total", c.handshakes_forwarded),
        ("shard_super_packets_total", c.super_packets),
        ("shard_calls_total", c.calls),
        ("shard_calls_failed_total", c.calls_failed),
        ("shard_peer_moves_total", c.peer_moves),
        ("shard_foreign_datagrams_total", c.foreign_datagrams),
        ("shard_connections_accepted_total", c.accepted),
        ("shard_connections_rejected_total", c.rejected),
        ("shard_session_panics_total", c.session_panics),
        ("shard_events_dropped_total", c.events_dropped),
    ] {
        counter!(metric, "shard" => name()).absolute(n);
    }
    for socket in &snapshot.sockets {
        let local = socket.local.to_string();
        counter!("shard_kernel_drops_total", "shard" => name(), "socket" => socket.role, "local" => local.clone())
            .absolute(socket.kernel_drops);
        gauge!("shard_socket_receive_buffer_bytes", "shard" => name(), "socket" => socket.role, "local" => local)
            .set(socket.receive_buffer as f64);
    }
    for (reason, n) in c.discards.nonzero() {
        counter!("shard_discards_total", "shard" => name(), "error_type" => reason.label())
            .absolute(n);
    }
    gauge!("shard_cpu_seconds_total", "shard" => name()).set(snapshot.cpu_ns as f64 / 1e9);
    gauge!("shard_cpu_percent", "shard" => name()).set(entry.cpu_percent);
    gauge!("shard_sessions", "shard" => name()).set(snapshot.sessions as f64);
    gauge!("shard_handshakes_pending", "shard" => name()).set(snapshot.handshakes_pending as f64);
    if c.wakeups > 0 {
        let per_wakeup = c.datagrams_received as f64 / c.wakeups as f64;
        gauge!("shard_packets_per_wakeup", "shard" => name()).set(per_wakeup);
    }
    let chunk = mirror_base::ring::CHUNK_BYTES as f64;
    let used = snapshot.pool_chunks.saturating_sub(snapshot.pool_free) as f64;
    gauge!("shard_memory_bytes", "shard" => name(), "state" => "used").set(used * chunk);
    gauge!("shard_memory_bytes", "shard" => name(), "state" => "free")
        .set(snapshot.pool_free as f64 * chunk);
}

fn publish_latency(shard: &str, stage: &'static str, histogram: &hdrhistogram::Histogram<u32>) {
    let name = || shard.to_owned();
    gauge!("ingest_latency_count", "shard" => name(), "stage" => stage).set(histogram.len() as f64);
    if histogram.is_empty() {
        return;
    }
    for (label, quantile) in [
        ("0.5", 0.5),
        ("0.9", 0.9),
        ("0.99", 0.99),
        ("0.999", 0.999),
        ("1", 1.0),
    ] {
        let seconds = histogram.value_at_quantile(quantile) as f64 / 1e6;
        gauge!("ingest_latency_seconds", "shard" => name(), "stage" => stage, "quantile" => label)
            .set(seconds);
    }
}

fn publish_registry(health: &registry::Health) {
    gauge!("registry_up", "backend" => health.backend).set(f64::from(u8::from(health.usable)));
    gauge!("registry_pending_writes").set(health.pending as f64);
    gauge!("registry_operation_seconds_total").set(health.busy_us as f64 / 1e6);
    counter!("registry_operations_total").absolute(health.operations);
    counter!("registry_errors_total").absolute(health.errors);
    counter!("registry_events_published_total").absolute(health.events_published);
    counter!("registry_events_dropped_total").absolute(health.events_dropped);
    counter!("registry_reconnects_total").absolute(health.reconnects);
}

fn publish_callers(state: &State) {
    for (id, caller) in state.callers.iter().take(MAX_STREAM_SERIES) {
        let id = || id.as_str().to_owned();
        counter!("srt_caller_attempts_total", "stream_id" => id()).absolute(caller.attempts);
        counter!("srt_caller_failures_total", "stream_id" => id()).absolute(caller.failures);
        counter!("srt_caller_connections_total", "stream_id" => id()).absolute(caller.connections);
        for phase in Phase::ALL {
            let now = f64::from(u8::from(caller.phase == phase));
            gauge!("srt_caller_state", "stream_id" => id(), "state" => phase.name()).set(now);
        }
        let open = caller.breaker != Breaker::Closed;
        gauge!("srt_caller_breaker_open", "stream_id" => id()).set(f64::from(u8::from(open)));
    }
}

fn publish_keys(service: &Service) {
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let keys = &service.keys;
    counter!("keys_derived_total").absolute(read(&keys.derived));
    counter!("keys_refused_total", "reason" => "no_room").absolute(read(&keys.refused));
    counter!("keys_refused_total", "reason" => "late").absolute(read(&keys.late));
    gauge!("keys_waiting").set(read(&keys.waiting) as f64);
    gauge!("keys_cpu_seconds_total").set(read(&keys.busy_us) as f64 / 1e6);
}

fn publish_api(service: &Service) {
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (api, cage) = (&service.counters, &service.counters.cage);
    for (class, n) in [
        ("2xx", &api.ok),
        ("4xx", &api.client_errors),
        ("5xx", &api.server_errors),
    ] {
        counter!("api_requests_total", "class" => class).absolute(read(n));
    }
    for (metric, n) in [
        ("api_connections_total", &cage.accepted),
        ("api_connections_refused_total", &cage.refused),
        ("api_accept_errors_total", &cage.accept_errors),
        ("api_bad_requests_total", &cage.bad_requests),
        ("api_timeouts_total", &cage.timeouts),
        ("api_server_restarts_total", &cage.server_restarts),
    ] {
        counter!(metric).absolute(read(n));
    }
    gauge!("api_open_connections").set(read(&cage.open) as f64);
    gauge!("api_request_seconds_total").set(read(&api.busy_us) as f64 / 1e6);
}
