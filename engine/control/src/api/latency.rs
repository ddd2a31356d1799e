//! Latency histograms on request (D13): shards are asked through their mailboxes and have a
//! second to answer; what comes is merged and shown as JSON or in HdrHistogram's own text and
//! compressed forms.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crossbeam_channel::bounded;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializeError, V2DeflateSerializer};
use mirror_base::{ShardId, StreamId};
use mirror_stream::report::{Command, LatencySet};
use serde_json::{Map, Value, json};

use crate::Mailboxes;

/// Stages, in the order in which a datagram meets them.
pub(crate) const STAGES: [&str; 4] = ["receive", "hold", "assemble", "total"];

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoLatency {
    /// The shard does not have the stream.
    Unknown,
    /// The shard did not answer in time, or is gone.
    Silent,
}

pub(crate) fn stage<'a>(set: &'a LatencySet, name: &str) -> Option<&'a Histogram<u32>> {
    Some(match name {
        "receive" => &set.receive,
        "hold" => &set.hold,
        "assemble" => &set.assemble,
        "total" => &set.total,
        _ => return None,
    })
}

/// One stream's histograms.
pub(crate) fn ask_stream(
    mailboxes: &dyn Mailboxes,
    shard: ShardId,
    id: &StreamId,
    reset: bool,
    within: Duration,
) -> Result<Box<LatencySet>, NoLatency> {
    let (reply, answer) = bounded(1);
    let command = Command::Latency {
        stream_id: Some(id.clone()),
        reset,
        reply,
    };
    mailboxes
        .send(shard, command)
        .map_err(|_| NoLatency::Silent)?;
    match answer.recv_timeout(within) {
        Ok(Some(set)) => Ok(set),
        Ok(None) => Err(NoLatency::Unknown),
        Err(_) => Err(NoLatency::Silent),
    }
}

/// Every shard's histograms; `None` for a shard that did not answer `within` the time.
pub(crate) fn ask_all(
    mailboxes: &dyn Mailboxes,
    reset: bool,
    within: Duration,
) -> Vec<(ShardId, Option<Box<LatencySet>>)> {
    let deadline = Instant::now() + within;
    let asked: Vec<_> = (0..mailboxes.shards())
        .map(|shard| {
            let shard = ShardId(u16::try_from(shard).unwrap_or(u16::MAX));
            let (reply, answer) = bounded(1);
            let sent = mailboxes.send(
                shard,
                Command::Latency {
                    stream_id: None,
                    reset,
                    reply,
                },
            );
            (shard, sent.is_ok().then_some(answer))
        })
        .collect();
    asked
        .into_iter()
        .map(|(shard, answer)| {
            (
                shard,
                answer
                    .and_then(|a| a.recv_deadline(deadline).ok())
                    .flatten(),
            )
        })
        .collect()
}

/// All sets as one; `None` when there is none.
pub(crate) fn merge<'a>(sets: impl IntoIterator<Item = &'a LatencySet>) -> Option<LatencySet> {
    let mut sets = sets.into_iter();
    let mut merged = sets.next()?.clone();
    for set in sets {
        for (into, from) in [
            (&mut merged.receive, &set.receive),
            (&mut merged.hold, &set.hold),
            (&mut merged.assemble, &set.assemble),
            (&mut merged.total, &set.total),
        ] {
            into.auto(true);
            // Cannot fail: the histogram grows as it must.
            let _ = into.add(from);
        }
    }
    Some(merged)
}

/// `{"receive":{count,min,mean,p50,…},…}` in µs; `null` where nothing was measured.
pub(crate) fn to_json(set: &LatencySet) -> Map<String, Value> {
    STAGES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), summary(stage(set, name)?))))
        .collect()
}

fn summary(h: &Histogram<u32>) -> Value {
    let count = h.len();
    let known = |value: u64| (count > 0).then_some(value);
    json!({
        "count": count,
        "min": known(h.min()),
        "mean": (count > 0).then(|| (h.mean() * 10.0).round() / 10.0),
        "p50": known(h.value_at_quantile(0.5)),
        "p90": known(h.value_at_quantile(0.9)),
        "p99": known(h.value_at_quantile(0.99)),
        "p999": known(h.value_at_quantile(0.999)),
        "p9999": known(h.value_at_quantile(0.9999)),
        "max": known(h.max()),
    })
}

/// HdrHistogram's V2 form, deflated, in base64: what its log readers and plotters take.
pub(crate) fn to_v2(h: &Histogram<u32>) -> Result<String, V2DeflateSerializeError> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(h, &mut bytes)?;
    Ok(BASE64_STANDARD.encode(bytes))
}

/// HdrHistogram's percentile distribution, as its plotters read it. Values in µs.
pub(crate) fn to_hgrm(h: &Histogram<u32>) -> String {
    use std::fmt::Write;
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in h.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let _ = write!(
            out,
            "{:>12.3} {quantile:>14.12} {total:>10}",
            step.value_iterated_to() as f64
        );
        if quantile < 1.0 {
            let _ = write!(out, " {:>14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        h.mean(),
        h.stdev()
    );
    let _ = writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        h.max() as f64,
        h.len()
    );
    let _ = writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        h.buckets(),
        h.distinct_values()
    );
    out
}
