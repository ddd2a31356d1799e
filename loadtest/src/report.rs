//! What a run found: what was sent against what the engine says it received, its CPU by three
//! accounts, and whether the scenario's expectations hold. As a table, as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::api;
use crate::scenario::Expect;
use crate::sender::{Phase, SenderStats};
use crate::units::show_bitrate;

/// One stream, both sides.
#[derive(Clone, Debug, Serialize)]
pub struct StreamReport {
    /// Its id at the engine.
    pub id: String,
    /// "srt" or "rtp".
    pub protocol: &'static str,
    /// What went wrong with the sender, if anything.
    pub error: Option<String>,
    /// What was sent.
    pub sent: Sent,
    /// What the engine says; `None`: it does not know the stream, or was not asked.
    pub received: Option<Received>,
}

/// A sender's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sent {
    /// Media packets, each once.
    pub packets: u64,
    /// Their payload.
    pub bytes: u64,
    /// Sent again.
    pub retransmitted: u64,
    /// Given up or refused by the kernel.
    pub dropped: u64,
    /// Complete video units.
    pub frames: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Payload bits a second.
    pub bitrate: f64,
    /// Round-trip time, ms.
    pub rtt_ms: f64,
}

/// The engine's figures of a stream, under the contract's names.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Received {
    /// First copies.
    pub packets: u64,
    /// Their payload.
    pub bytes: u64,
    /// Lost before repair.
    pub packets_lost: u64,
    /// Never repaired.
    pub packets_dropped: u64,
    /// Came again.
    pub packets_retransmitted: u64,
    /// Video units assembled.
    pub frames: u64,
    /// Damaged ones among all units.
    pub frames_damaged: u64,
    /// Key frames.
    pub key_frames: u64,
    /// Bits a second towards the end of the run.
    pub bitrate: f64,
}

impl Received {
    /// From the answer of `/streams/{id}/stats` (or a record).
    pub fn from_json(value: &Value, bitrate: Option<f64>) -> Self {
        let count = |key| api::count(value, key).unwrap_or(0);
        let retransmitted = count("packets_retransmitted");
        let unique = api::count(value, "packets_unique");
        Received {
            packets: unique
                .unwrap_or_else(|| count("packets_received").saturating_sub(retransmitted)),
            bytes: count("bytes_received"),
            packets_lost: count("packets_lost"),
            packets_dropped: count("packets_dropped"),
            packets_retransmitted: retransmitted,
            frames: api::count(value, "video_frames").unwrap_or_else(|| count("frames_assembled")),
            frames_damaged: count("frames_damaged"),
            key_frames: count("key_frames"),
            bitrate: bitrate
                .or_else(|| api::number(value, "bitrate"))
                .unwrap_or(0.0),
        }
    }
}

impl Sent {
    /// From a sender's last figures; `seconds`: how long media was sent.
    pub fn from_stats(stats: &SenderStats, seconds: f64) -> Self {
        Sent {
            packets: stats.packets,
            bytes: stats.payload_bytes,
            retransmitted: stats.retransmitted,
            dropped: stats.dropped,
            frames: stats.units.frames,
            key_frames: stats.units.key_frames,
            bitrate: stats.payload_bytes as f64 * 8.0 / seconds.max(1e-9),
            rtt_ms: f64::from(stats.rtt_us) / 1e3,
        }
    }
}

/// What a sender's phase says went wrong.
pub fn sender_error(phase: Phase) -> Option<String> {
    match phase {
        Phase::Failed(failure) => Some(failure.to_string()),
        Phase::Connecting => Some("still connecting".to_owned()),
        Phase::Ready | Phase::Closed => None,
    }
}

/// The engine as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EngineReport {
    /// Kernel drops during the run.
    pub kernel_drops: u64,
    /// Mean of the engine's own `cpu_usage` while media was sent, percent of one core.
    pub cpu_reported: Option<f64>,
    /// The same from its shards' CPU figures.
    pub cpu_shards_reported: Option<f64>,
    /// From `/proc/<pid>/task/*/schedstat`: the whole process.
    pub cpu_proc: Option<f64>,
    /// The same, of its pinned threads only (the shards).
    pub cpu_proc_shards: Option<f64>,
    /// CPU time for each media packet received, ns, of the whole process.
    pub cpu_ns_per_packet: Option<f64>,
    /// Resident memory at the end, bytes.
    pub memory_bytes: Option<u64>,
}

/// The generator itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct GeneratorReport {
    /// Its thread's CPU while media was sent, percent of one core.
    pub cpu: f64,
    /// The longest a turn came late, ms.
    pub latest_turn_ms: f64,
}

/// Everything of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub name: String,
    /// How long media was sent.
    pub seconds: f64,
    /// Each stream.
    pub streams: Vec<StreamReport>,
    /// The engine.
    pub engine: EngineReport,
    /// The generator.
    pub generator: GeneratorReport,
    /// Whether all expectations hold.
    pub ok: bool,
    /// What does not.
    pub failures: Vec<String>,
}

impl Report {
    /// Holds the figures against the expectations, and fills `ok` and `failures`. `compared`:
    /// whether the engine was asked at all.
    pub fn judge(&mut self, expect: &Expect, compared: bool) {
        let mut failures = Vec::new();
        for stream in &self.streams {
            judge_stream(stream, expect, compared, &mut failures);
        }
        let above = |limit: Option<u64>, value: u64| limit.is_some_and(|l| value > l);
        let total = |f: fn(&Received) -> u64| {
            self.streams
                .iter()
                .filter_map(|s| s.received.as_ref())
                .map(f)
                .sum::<u64>()
        };
        let (lost, dropped) = (total(|r| r.packets_lost), total(|r| r.packets_dropped));
        if above(expect.lost, lost) {
            failures.push(format!(
                "{lost} packets lost before repair, at most {} expected",
                expect.lost.unwrap_or(0)
            ));
        }
        let given_up: u64 = self.streams.iter().map(|s| s.sent.dropped).sum();
        if above(expect.dropped, dropped.max(given_up)) {
            failures.push(format!("{dropped} packets dropped by the engine and {given_up} by the senders, at most {} expected", expect.dropped.unwrap_or(0)));
        }
        if above(expect.kernel_drops, self.engine.kernel_drops) {
            failures.push(format!(
                "{} datagrams dropped by the kernel, at most {} expected",
                self.engine.kernel_drops,
                expect.kernel_drops.unwrap_or(0)
            ));
        }
        if let (Some(limit), true) = (expect.max_cpu, compared) {
            match self.engine.cpu_proc.or(self.engine.cpu_reported) {
                Some(cpu) if cpu > limit => failures.push(format!(
                    "engine used {cpu:.1} % of a core, at most {limit} % expected"
                )),
                Some(_) => {}
                None => failures
                    .push("engine's CPU is not known, but limited by the scenario".to_owned()),
            }
        }
        self.ok = failures.is_empty();
        self.failures = failures;
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "stream", "", "packets", "bytes", "lost", "dropped", "again", "frames", "key",
            "bit rate",
        ]);
        for stream in &self.streams {
            let s = &stream.sent;
            table.add_row([
                stream.id.clone(),
                "sent".to_owned(),
                s.packets.to_string(),
                s.bytes.to_string(),
                String::new(),
                s.dropped.to_string(),
                s.retransmitted.to_string(),
                s.frames.to_string(),
                s.key_frames.to_string(),
                show_bitrate(s.bitrate),
            ]);
            match &stream.received {
                Some(r) => table.add_row([
                    stream.error.clone().unwrap_or_default(),
                    "received".to_owned(),
                    r.packets.to_string(),
                    r.bytes.to_string(),
                    r.packets_lost.to_string(),
                    r.packets_dropped.to_string(),
                    r.packets_retransmitted.to_string(),
                    r.frames.to_string(),
                    r.key_frames.to_string(),
                    show_bitrate(r.bitrate),
                ]),
                None => table.add_row([
                    stream.error.clone().unwrap_or_default(),
                    "received".to_owned(),
                    "–".to_owned(),
                ]),
            };
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{table}\n{}", self.summary())
    }

    fn summary(&self) -> String {
        let percent =
            |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.1} %"));
        let sent: u64 = self.streams.iter().map(|s| s.sent.packets).sum();
        let received: u64 = self
            .streams
            .iter()
            .filter_map(|s| s.received.as_ref())
            .map(|r| r.packets)
            .sum();
        let e = &self.engine;
        let mut out = format!(
            "{}: {} streams, {:.1} s; packets sent {sent}, received {received}; kernel drops {}\n",
            self.name,
            self.streams.len(),
            self.seconds,
            e.kernel_drops
        );
        out += &format!(
            "engine CPU (of one core): reports {}, its shards {}; /proc says {}, pinned threads {}{}\n",
            percent(e.cpu_reported),
            percent(e.cpu_shards_reported),
            percent(e.cpu_proc),
            percent(e.cpu_proc_shards),
            e.cpu_ns_per_packet
                .map_or_else(String::new, |n| format!("; {n:.0} ns a packet")),
        );
        out += &format!(
            "generator: {:.1} % of a core, latest turn {:.2} ms late\n",
            self.generator.cpu, self.generator.latest_turn_ms
        );
        for failure in &self.failures {
            out += &format!("FAILED: {failure}\n");
        }
        out += if self.ok {
            "OK: every expectation holds"
        } else {
            "NOT OK"
        };
        out
    }
}

fn judge_stream(
    stream: &StreamReport,
    expect: &Expect,
    compared: bool,
    failures: &mut Vec<String>,
) {
    let id = &stream.id;
    if let Some(error) = &stream.error {
        failures.push(format!("{id}: {error}"));
    }
    let Some(received) = &stream.received else {
        if compared {
            failures.push(format!("{id}: the engine does not know this stream"));
        }
        return;
    };
    let (sent, got) = (stream.sent.packets, received.packets);
    if expect
        .missing
        .is_some_and(|limit| sent.saturating_sub(got) > limit)
    {
        failures.push(format!("{id}: {sent} packets sent, {got} received"));
    }
    if got > sent {
        failures.push(format!(
            "{id}: {got} packets received, but only {sent} sent"
        ));
    }
    if got == sent && received.bytes != stream.sent.bytes {
        failures.push(format!(
            "{id}: {} payload bytes sent, {} received in as many packets",
            stream.sent.bytes, received.bytes
        ));
    }
    let (frames, complete) = (
        stream.sent.frames,
        received.frames.saturating_sub(received.frames_damaged),
    );
    if expect
        .missing_frames
        .is_some_and(|limit| frames.saturating_sub(complete) > limit)
    {
        failures.push(format!(
            "{id}: {frames} frames sent, {complete} complete ones assembled ({} damaged)",
            received.frames_damaged
        ));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn report(lost: u64) -> Report {
        let stats = json!({
            "packets_received": 110, "packets_retransmitted": 10, "packets_lost": 10, "packets_dropped": lost,
            "bytes_received": 131_600, "video_frames": 9, "key_frames": 1, "bitrate": 1000
        });
        let sent = Sent {
            packets: 100 + lost,
            bytes: 131_600,
            frames: 10,
            key_frames: 1,
            bitrate: 1000.0,
            ..Sent::default()
        };
        let stream = StreamReport {
            id: "a<b".to_owned(),
            protocol: "srt",
            error: None,
            sent,
            received: Some(Received::from_json(&stats, None)),
        };
        Report {
            name: "test".to_owned(),
            seconds: 1.0,
            streams: vec![stream],
            engine: EngineReport {
                cpu_proc: Some(20.0),
                ..EngineReport::default()
            },
            generator: GeneratorReport::default(),
            ok: false,
            failures: Vec::new(),
        }
    }

    fn strict() -> Expect {
        Expect {
            lost: None,
            dropped: Some(0),
            kernel_drops: Some(0),
            missing: Some(0),
            missing_frames: Some(1),
            max_cpu: Some(50.0),
        }
    }

    #[test]
    fn repaired_losses_pass_and_unrepaired_ones_fail() {
        let mut good = report(0);
        good.judge(&strict(), true);
        assert!(good.ok, "{:?}", good.failures);
        let mut bad = report(3);
        bad.judge(&strict(), true);
        assert_eq!(bad.failures.len(), 2, "{:?}", bad.failures);
        assert!(bad.table().contains("NOT OK"));
    }

    #[test]
    fn an_engine_that_counts_headers_as_payload_fails() {
        let mut r = report(0);
        r.streams[0].received.as_mut().unwrap().bytes += 100 * 44;
        r.judge(&strict(), true);
        assert_eq!(r.failures.len(), 1, "{:?}", r.failures);
    }

    #[test]
    fn each_expectation_can_fail() {
        let mut r = report(0);
        r.engine.kernel_drops = 1;
        r.engine.cpu_proc = Some(80.0);
        r.streams[0].received.as_mut().unwrap().frames = 2;
        r.judge(
            &Expect {
                lost: Some(5),
                ..strict()
            },
            true,
        );
        let all = r.failures.join("\n");
        for part in [
            "lost before repair",
            "by the kernel",
            "of a core",
            "frames sent",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }

    #[test]
    fn a_stream_that_the_engine_does_not_know_fails() {
        let mut r = report(0);
        r.streams[0].received = None;
        r.judge(&Expect::default(), true);
        assert!(!r.ok);
        r.judge(&Expect::default(), false);
        assert!(r.ok);
    }
}
