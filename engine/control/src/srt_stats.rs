//! SRT figures under libsrt's names (spec section 23), for `GET /streams/{id}/stats` and the
//! metrics. They are those of the present (or last) session: cumulative ones end in `_total`;
//! the same names without it are the interval's, between the last two of the snapshots that
//! shards send once a second, whoever reads them and how often.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use mirror_srt::{Field, FieldKind, Statistics, Unit, Value as Figure};
use serde_json::{Map, Value, json};

use crate::state::Entry;

/// Streams whose figures are published one by one: there are some sixty of each.
pub(crate) const MAX_SERIES: usize = 1000;

/// The figures of a session now. libsrt's rates are the interval's bytes by its time; those of
/// the room are what congestion control goes by.
fn fields(entry: &Entry) -> Option<[Field; Statistics::FIELDS]> {
    let now = entry.snapshot.srt.as_deref()?;
    let before = entry.srt_before.as_deref();
    let millis = now.time_ms.saturating_sub(before.map_or(0, |b| b.time_ms));
    let rate = |bytes: fn(&Statistics) -> u64| {
        let passed = bytes(now).saturating_sub(before.map_or(0, bytes));
        let kilobits = (passed * 8) as f64 / (millis as f64).max(1.0);
        Figure::Real(kilobits / 1e3)
    };
    let mut fields = now.fields();
    for field in &mut fields {
        match field.name {
            "mbps_recv_rate" => field.value = rate(|s| s.byte_recv),
            "mbps_send_rate" => field.value = rate(|s| s.byte_sent),
            _ => {}
        }
    }
    Some(fields)
}

/// The figures of a stream's session; `None` when it is not SRT or has none yet.
pub(crate) fn to_json(entry: &Entry) -> Option<Value> {
    let now = entry.snapshot.srt.as_deref()?;
    let before = entry.srt_before.as_deref();
    let mut map = Map::new();
    let fields = fields(entry)?;
    let earlier = before.map(Statistics::fields);
    for (i, field) in fields.iter().enumerate() {
        map.insert(field.name.to_owned(), number(field.value));
        if field.kind == FieldKind::Counter {
            let old = earlier.as_ref().and_then(|e| e.get(i)).map(|f| f.value);
            let name = field.interval_name().to_owned();
            map.insert(name, number(difference(field.value, old)));
        }
    }
    let interval = now.time_ms.saturating_sub(before.map_or(0, |b| b.time_ms));
    map.insert("ms_interval".to_owned(), json!(interval));
    Some(Value::Object(map))
}

fn number(figure: Figure) -> Value {
    match figure {
        Figure::Whole(n) => json!(n),
        Figure::Real(x) => json!((x * 1000.0).round() / 1000.0),
    }
}

fn difference(now: Figure, before: Option<Figure>) -> Figure {
    match (now, before) {
        (Figure::Whole(now), Some(Figure::Whole(before))) => Figure::Whole(now - before),
        (Figure::Real(now), Some(Figure::Real(before))) => Figure::Real(now - before),
        (now, _) => now,
    }
}

fn metric(field: &Field) -> String {
    format!("srt_{}", field.name)
}

/// `HELP` of every figure.
pub(crate) fn describe() {
    for field in Statistics::default().fields() {
        let unit = match field.unit {
            Unit::Packets => "packets",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "milliseconds",
            Unit::Microseconds => "microseconds",
            Unit::MegabitsPerSecond => "megabits per second",
            Unit::Count => "pieces",
        };
        let text = format!("SRT, present session: {}, in {unit}", field.help);
        match field.kind {
            FieldKind::Counter => describe_counter!(metric(&field), text),
            FieldKind::Gauge => describe_gauge!(metric(&field), text),
        }
    }
}

/// The figures of one stream as metrics.
pub(crate) fn publish(entry: &Entry) {
    let id = || entry.snapshot.stream_id.as_str().to_owned();
    for field in fields(entry).into_iter().flatten() {
        match (field.kind, field.value) {
            (FieldKind::Counter, Figure::Whole(n)) => {
                let n = u64::try_from(n).unwrap_or(0);
                counter!(metric(&field), "stream_id" => id()).absolute(n);
            }
            (_, value) => gauge!(metric(&field), "stream_id" => id()).set(value.as_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Engine, Options, stream};
    use mirror_srt::Statistics;

    #[test]
    fn figures_are_cumulative_and_of_the_last_interval() {
        let engine = Engine::start(Options::default());
        engine.publish("live/cam1");
        let mut seen = stream("live/cam1");
        let mut srt = Statistics {
            pkt_recv: 1000,
            byte_recv: 1_000_000,
            pkt_rcv_loss: 7,
            rtt_us: 12_500,
            rtt_min_us: 9_000,
            time_ms: 1000,
            rcv_km_state: mirror_srt::KmState::Secured,
            km_refreshes: 3,
            ..Statistics::default()
        };
        seen.srt = Some(Box::new(srt));
        engine.snapshot(0, vec![seen.clone()]);
        let stats = || engine.json("/api/v1/streams/live%2Fcam1/stats")["srt"].clone();
        engine.until(|| stats()["pkt_recv"] == 1000);
        srt.pkt_recv = 1450;
        srt.byte_recv += 1_001_000;
        srt.time_ms = 2001;
        seen.srt = Some(Box::new(srt));
        engine.snapshot(0, vec![seen.clone()]);
        engine.until(|| stats()["pkt_recv_total"] == 1450);
        let now = stats();
        assert_eq!(now["pkt_recv"], 450);
        assert_eq!(now["pkt_rcv_loss_total"], 7);
        assert_eq!(now["pkt_rcv_loss"], 0);
        assert_eq!(now["ms_interval"], 1001);
        assert_eq!(now["mbps_recv_rate"], 8.0);
        assert_eq!(now["ms_rtt"], 12.5);
        assert_eq!(now["ms_rtt_min"], 9.0);
        let whole = engine.json("/api/v1/streams/live%2Fcam1/stats");
        assert_eq!(whole["key_state"], "secured");
        assert_eq!(whole["key_refreshes"], 3);
        let text = engine.get("/metrics").1;
        for line in [
            "srt_pkt_recv_total{stream_id=\"live/cam1\"} 1450",
            "# TYPE srt_pkt_recv_total counter",
            "# TYPE srt_ms_rtt gauge",
            "srt_ms_rtt{stream_id=\"live/cam1\"} 12.5",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        // A new session counts from the beginning.
        let later = seen.started_at + std::time::Duration::from_secs(5);
        seen.started_at = later;
        srt.pkt_recv = 30;
        srt.time_ms = 90;
        seen.srt = Some(Box::new(srt));
        engine.snapshot(0, vec![seen]);
        engine.until(|| stats()["pkt_recv_total"] == 30);
        assert_eq!(
            (&stats()["pkt_recv"], &stats()["ms_interval"]),
            (&30.into(), &90.into())
        );
        engine.stop();
    }
}
