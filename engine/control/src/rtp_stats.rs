//! RTP figures for `GET /streams/{id}/stats` and the metrics: of each medium, of each of its
//! paths, what repair gave back, RTCP by type, the sender's clock. They only grow: those of a
//! configured session as long as its stream lives, those of an ad hoc source with its session.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use mirror_stream::{MediaReport, MediaStatistics};
use serde_json::{Map, Value, json};

use crate::state::Entry;

const COUNTERS: [(&str, &str); 8] = [
    (
        "rtp_recovered_total",
        "Packets given back, by retransmission, FEC or the second path, in packets",
    ),
    (
        "rtp_leg_packets_received_total",
        "Packets that came on a path (SMPTE ST 2022-7), in packets",
    ),
    (
        "rtp_leg_packets_lost_total",
        "Packets that never came on a path in time, in packets",
    ),
    (
        "rtp_leg_packets_late_total",
        "Packets that came on a path after their place was given up, in packets",
    ),
    (
        "rtp_rtcp_received_total",
        "RTCP packets received, by type, in packets",
    ),
    ("rtp_rtcp_sent_total", "RTCP compounds sent, in datagrams"),
    (
        "rtp_feedback_sent_total",
        "Requests to the sender (NACK, PLI, FIR), in messages",
    ),
    (
        "rtp_source_changes_total",
        "Times that another source took over, in changes",
    ),
];
const GAUGES: [(&str, &str); 3] = [
    (
        "rtp_jitter_buffer_seconds",
        "How long a gap is waited for, the longest of the stream's media, in seconds",
    ),
    (
        "rtp_rtt_seconds",
        "Round-trip time to the sender, in seconds",
    ),
    (
        "rtp_leg_up",
        "Whether a path brings packets (1) or is down (0)",
    ),
];

/// The figures of each medium; `None` for a stream that is not RTP, or had no source yet.
pub(crate) fn to_json(entry: &Entry) -> Option<Value> {
    let reports = &entry.snapshot.rtp;
    if reports.is_empty() {
        return None;
    }
    let media: Vec<Value> = reports.iter().map(medium).collect();
    Some(json!({ "media": media }))
}

fn medium(report: &MediaReport) -> Value {
    let s = &report.statistics;
    let source = &s.source;
    let millis = |us: u32| f64::from(us) / 1e3;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("ssrc", json!(report.ssrc));
    put("cname", json!(report.cname));
    put("packets_received", json!(source.packets_received));
    put("packets_unique", json!(source.packets_unique));
    put("bytes_received", json!(source.payload_bytes));
    put("packets_lost", json!(source.packets_lost));
    put("packets_dropped", json!(source.packets_dropped));
    put("packets_duplicate", json!(source.packets_duplicate));
    put("packets_reordered", json!(source.packets_reordered));
    put("packets_late", json!(source.packets_late));
    put("packets_held", json!(source.packets_held));
    put("packets_rejected", json!(source.packets_rejected));
    put("packets_foreign", json!(s.packets_foreign));
    put("restarts", json!(source.restarts));
    put("source_changes", json!(s.source_changes));
    put("jitter_ms", json!(millis(source.jitter_us)));
    put("rtt_ms", json!(millis(s.rtt_us)));
    put(
        "recovered",
        json!({ "rtx": s.recovered_rtx, "fec": s.recovered_fec, "2022-7": s.recovered_2022_7 }),
    );
    put(
        "rtx",
        json!({ "received": s.rtx_received, "useless": s.rtx_useless }),
    );
    put(
        "fec",
        json!({ "received": s.fec_received, "refused": s.fec_refused }),
    );
    put("feedback", feedback(s));
    put("rtcp", rtcp(s));
    put(
        "jitter_buffer_ms",
        json!(s.hold.jitter_buffer.as_secs_f64() * 1e3),
    );
    put("jitter_buffer", hold(report));
    put("legs", legs(report));
    put("clock", clock(report));
    Value::Object(map)
}

fn feedback(s: &MediaStatistics) -> Value {
    json!({
        "nacks_sent": s.nacks_sent,
        "packets_nacked": s.packets_nacked,
        "plis_sent": s.plis_sent,
        "firs_sent": s.firs_sent,
    })
}

/// RTCP packets received, by type.
const fn types(s: &MediaStatistics) -> [(&'static str, u64); 9] {
    let rtcp = &s.rtcp;
    [
        ("sr", rtcp.sr),
        ("rr", rtcp.rr),
        ("sdes", rtcp.sdes),
        ("bye", rtcp.bye),
        ("app", rtcp.app),
        ("rtpfb", rtcp.rtpfb),
        ("psfb", rtcp.psfb),
        ("xr", rtcp.xr),
        ("other", rtcp.other),
    ]
}

fn rtcp(s: &MediaStatistics) -> Value {
    let mut map: Map<String, Value> = types(s)
        .into_iter()
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect();
    map.insert("received".to_owned(), json!(s.rtcp_received));
    map.insert("sent".to_owned(), json!(s.rtcp_sent));
    map.insert("members".to_owned(), json!(s.members));
    map.insert("collisions".to_owned(), json!(s.collisions));
    map.insert("loops".to_owned(), json!(s.loops));
    Value::Object(map)
}

/// How long a gap is waited for, and why.
fn hold(report: &MediaReport) -> Value {
    let hold = &report.statistics.hold;
    let millis = |time: Duration| time.as_micros() as f64 / 1e3;
    json!({
        "effective_ms": millis(hold.jitter_buffer),
        "needed_ms": millis(hold.needed),
        "follows": hold.follows,
        "cause": hold.cause.name(),
        "too_short": hold.is_too_short(),
    })
}

fn legs(report: &MediaReport) -> Value {
    let legs = report.statistics.legs.iter();
    let legs: Vec<Value> = legs
        .take(report.legs.into())
        .map(|leg| {
            json!({
                "up": leg.is_up,
                "packets_received": leg.packets_received,
                "packets_used": leg.packets_used,
                "packets_lost": leg.packets_lost,
                "packets_late": leg.packets_late,
                "packets_foreign": leg.packets_foreign,
                "skew_ms": leg.skew_us as f64 / 1e3,
            })
        })
        .collect();
    Value::Array(legs)
}

/// What the sender says of its clock: NTP in seconds since 1900, and how fast it runs.
fn clock(report: &MediaReport) -> Value {
    let Some(map) = report.clock else {
        return Value::Null;
    };
    json!({
        "ntp": map.ntp as f64 / f64::from(u32::MAX),
        "rtp_timestamp": map.rtp_timestamp,
        "clock_rate": map.clock_rate,
        "drift_ppm": map.drift_ppm,
        "media_ppm": map.media_ppm,
    })
}

/// Says what each metric is.
pub(crate) fn describe() {
    for (name, text) in COUNTERS {
        describe_counter!(name, text);
    }
    for (name, text) in GAUGES {
        describe_gauge!(name, text);
    }
}

/// The figures of one stream as metrics, all its media together.
pub(crate) fn publish(entry: &Entry) {
    let reports = &entry.snapshot.rtp;
    if reports.is_empty() {
        return;
    }
    let id = || entry.snapshot.stream_id.as_str().to_owned();
    let sum = |of: fn(&MediaStatistics) -> u64| -> u64 {
        reports.iter().map(|report| of(&report.statistics)).sum()
    };
    for (method, count) in [
        ("rtx", sum(|s| s.recovered_rtx)),
        ("fec", sum(|s| s.recovered_fec)),
        ("2022-7", sum(|s| s.recovered_2022_7)),
    ] {
        counter!("rtp_recovered_total", "stream_id" => id(), "method" => method).absolute(count);
    }
    for (kind, count) in [
        ("nack", sum(|s| s.nacks_sent)),
        ("pli", sum(|s| s.plis_sent)),
        ("fir", sum(|s| s.firs_sent)),
    ] {
        counter!("rtp_feedback_sent_total", "stream_id" => id(), "type" => kind).absolute(count);
    }
    for at in 0..types(&MediaStatistics::default()).len() {
        let of = |report: &MediaReport| types(&report.statistics).get(at).copied();
        let counts = reports.iter().filter_map(of);
        let (name, count) = counts.fold(("other", 0), |(_, sum), (name, n)| (name, sum + n));
        counter!("rtp_rtcp_received_total", "stream_id" => id(), "type" => name).absolute(count);
    }
    counter!("rtp_rtcp_sent_total", "stream_id" => id()).absolute(sum(|s| s.rtcp_sent));
    counter!("rtp_source_changes_total", "stream_id" => id()).absolute(sum(|s| s.source_changes));
    let holds = reports.iter().map(|r| r.statistics.hold.jitter_buffer);
    let longest = holds.max().unwrap_or_default();
    gauge!("rtp_jitter_buffer_seconds", "stream_id" => id()).set(longest.as_secs_f64());
    let rtt = reports.iter().map(|report| report.statistics.rtt_us).max();
    gauge!("rtp_rtt_seconds", "stream_id" => id()).set(f64::from(rtt.unwrap_or(0)) / 1e6);
    publish_legs(entry);
}

fn publish_legs(entry: &Entry) {
    let id = || entry.snapshot.stream_id.as_str().to_owned();
    let reports = &entry.snapshot.rtp;
    let paths = reports.iter().map(|report| report.legs).max().unwrap_or(0);
    for (at, name) in ["1", "2"].into_iter().enumerate().take(paths.into()) {
        let legs = || {
            let of_path = reports.iter().filter(move |report| at < report.legs.into());
            of_path.filter_map(move |report| report.statistics.legs.get(at))
        };
        let received = legs().map(|leg| leg.packets_received).sum();
        let lost = legs().map(|leg| leg.packets_lost).sum();
        let late = legs().map(|leg| leg.packets_late).sum();
        let up = legs().all(|leg| leg.is_up);
        counter!("rtp_leg_packets_received_total", "stream_id" => id(), "leg" => name)
            .absolute(received);
        counter!("rtp_leg_packets_lost_total", "stream_id" => id(), "leg" => name).absolute(lost);
        counter!("rtp_leg_packets_late_total", "stream_id" => id(), "leg" => name).absolute(late);
        gauge!("rtp_leg_up", "stream_id" => id(), "leg" => name).set(f64::from(u8::from(up)));
    }
}

#[cfg(test)]
mod tests {
    use mirror_stream::report::Protocol;
    use std::time::Duration;

    use mirror_stream::{HoldCause, HoldFigures, MediaReport, MediaStatistics};

    use crate::testing::{Engine, Options, stream};

    #[test]
    fn figures_of_media_paths_and_repair_are_shown() {
        let engine = Engine::start(Options::default());
        let mut seen = stream("studio/a");
        seen.protocol = Protocol::Rtp;
        let mut statistics = MediaStatistics {
            recovered_rtx: 3,
            recovered_2022_7: 40,
            nacks_sent: 2,
            rtcp_sent: 9,
            rtt_us: 1_500,
            hold: HoldFigures {
                jitter_buffer: Duration::from_millis(50),
                needed: Duration::from_millis(420),
                cause: HoldCause::Fec,
                follows: false,
            },
            ..MediaStatistics::default()
        };
        statistics.rtcp.sr = 7;
        statistics.legs[1].packets_lost = 40;
        statistics.legs[1].is_up = true;
        let report = MediaReport {
            ssrc: Some(7),
            legs: 2,
            cname: Some("camera".to_owned()),
            clock: None,
            statistics,
        };
        seen.rtp = vec![report.clone(), report];
        engine.snapshot(0, vec![seen]);
        engine.until(|| engine.get("/api/v1/streams/studio%2Fa/stats").0 == 200);
        let stats = || engine.json("/api/v1/streams/studio%2Fa/stats")["rtp"].clone();
        engine.until(|| stats()["media"].is_array());
        let first = stats()["media"][0].clone();
        assert_eq!(
            (&first["ssrc"], &first["cname"]),
            (&7.into(), &"camera".into())
        );
        assert_eq!(first["recovered"]["2022-7"], 40);
        assert_eq!(first["legs"][1]["packets_lost"], 40);
        assert_eq!(first["legs"][0]["up"], false);
        assert_eq!(
            (&first["rtcp"]["sr"], &first["rtt_ms"]),
            (&7.into(), &1.5.into())
        );
        assert!(first["clock"].is_null());
        assert_eq!(first["jitter_buffer_ms"], 50.0);
        let hold = &first["jitter_buffer"];
        assert_eq!(
            (&hold["cause"], &hold["needed_ms"]),
            (&"fec".into(), &420.0.into())
        );
        let record = engine.json("/api/v1/streams/studio%2Fa");
        let reasons = record["state"]["health_reasons"].to_string();
        assert!(reasons.contains("jitter_buffer is too short"), "{reasons}");
        let text = engine.get("/metrics").1;
        for line in [
            "rtp_recovered_total{stream_id=\"studio/a\",method=\"rtx\"} 6",
            "rtp_leg_packets_lost_total{stream_id=\"studio/a\",leg=\"2\"} 80",
            "rtp_rtcp_received_total{stream_id=\"studio/a\",type=\"sr\"} 14",
            "rtp_feedback_sent_total{stream_id=\"studio/a\",type=\"nack\"} 4",
            "rtp_leg_up{stream_id=\"studio/a\",leg=\"1\"} 0",
            "rtp_jitter_buffer_seconds{stream_id=\"studio/a\"} 0.05",
            "rtp_rtt_seconds{stream_id=\"studio/a\"} 0.0015",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        engine.stop();
    }
}
