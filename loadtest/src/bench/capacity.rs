//! `mirror-loadtest bench --capacity`: how many streams one shard takes in without losing a
//! packet, in the clear and up to the stream's ring, with and without UDP_GRO; and what kept it
//! from more. Streams are added in steps until packets are lost or a core is full.

use anyhow::{Result, bail};

use super::contender::{self, Contender};
use super::{Sample, Settings, Templates, measure};

/// Steps at the most.
const STEPS: usize = 64;
/// A core that is busier than this is full.
const FULL_PERCENT: f64 = 97.0;
/// A generator that sends less than this part of what it should is late.
const IN_TIME: f64 = 0.97;
/// Payload of an SRT packet of seven TS packets.
const PAYLOAD_BITS: f64 = 1316.0 * 8.0;

/// Measures and prints; `Ok(true)`: at least one step was carried each time.
///
/// # Errors
/// No engine, or no traffic.
pub fn run(settings: &Settings) -> Result<bool> {
    let Some(engine) = contender::engine_binary(settings.engine.clone()) else {
        bail!("no mirror-ingest beside this program: build it, or name it with --engine");
    };
    let templates = Templates::new(settings)?;
    let mut carried_all = true;
    let mut results = Vec::new();
    for gro in [false, true] {
        let mut carried = None;
        let mut stopped = "the last step".to_owned();
        for step in 1..=STEPS {
            let settings = Settings {
                streams: settings.streams * step,
                gro,
                ..settings.clone()
            };
            let sample = match measure(Contender::SrtRecv, &settings, Some(&engine), &templates) {
                Ok(sample) => sample,
                Err(error) => {
                    stopped = format!("{error:#}");
                    break;
                }
            };
            let found = Step::new(&settings, &sample);
            eprintln!(
                "gro {gro}: {} streams, {:.2} Gb/s, shard {:.0} %, generator {:.0} %, {} lost",
                settings.streams, found.gbps, found.shard, sample.generator_cpu, sample.lost
            );
            if let Some(reason) = &found.bound {
                stopped.clone_from(reason);
                if sample.lost == 0 {
                    carried = Some((settings.streams, found));
                }
                break;
            }
            carried = Some((settings.streams, found));
        }
        carried_all &= carried.is_some();
        let (streams, gbps) = carried.map_or((0, 0.0), |(streams, step)| (streams, step.gbps));
        println!(
            "{}: {streams} streams, {gbps:.2} Gb/s without loss; stopped by {stopped}",
            if gro {
                "with UDP_GRO"
            } else {
                "without UDP_GRO"
            }
        );
        results.push(serde_json::json!({
            "gro": gro, "streams": streams, "gbps": gbps, "stopped_by": stopped,
        }));
    }
    if let Some(path) = &settings.json {
        let text = serde_json::to_string_pretty(&serde_json::json!({ "capacity": results }))?;
        std::fs::write(path, text + "\n")?;
    }
    Ok(carried_all)
}

/// What one step came to.
#[derive(Debug)]
struct Step {
    gbps: f64,
    /// Percent of the shard's core.
    shard: f64,
    /// Why there is no point in a further step.
    bound: Option<String>,
}

impl Step {
    fn new(settings: &Settings, sample: &Sample) -> Self {
        let seconds = settings.seconds as f64;
        let gbps = sample.bytes * 8.0 / seconds / 1e9;
        let shard = sample.cpu_ns / (seconds * 1e9) * 100.0;
        let wanted = settings.streams as f64 * settings.bitrate_bps as f64 * seconds / PAYLOAD_BITS;
        let late = sample.packets < wanted * IN_TIME;
        let bound = if sample.generator_cpu > FULL_PERCENT || (late && sample.lost == 0) {
            Some("the generator's core".to_owned())
        } else if shard > FULL_PERCENT {
            Some("the shard's core".to_owned())
        } else if sample.lost > 0 {
            Some(format!("{} lost packets with cores to spare", sample.lost))
        } else {
            None
        };
        Step { gbps, shard, bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_a_step_is_named() {
        let settings = Settings {
            rounds: 1,
            seconds: 1,
            streams: 10,
            bitrate_bps: 50_000_000,
            only: Vec::new(),
            engine: None,
            shard_core: 1,
            generator_core: 0,
            burst: std::time::Duration::from_millis(1),
            gro: false,
            json: None,
        };
        let packets = 500e6 / PAYLOAD_BITS;
        let good = Sample {
            cpu_ns: 0.3e9,
            packets,
            bytes: packets * 1316.0,
            generator_cpu: 50.0,
            ..Sample::default()
        };
        let bound = |sample: Sample| Step::new(&settings, &sample).bound;
        assert_eq!(bound(good), None);
        assert!((Step::new(&settings, &good).gbps - 0.5).abs() < 1e-9);
        let full = Sample {
            cpu_ns: 0.99e9,
            ..good
        };
        assert_eq!(bound(full).as_deref(), Some("the shard's core"));
        let late = Sample {
            packets: packets * 0.9,
            ..good
        };
        assert_eq!(bound(late).as_deref(), Some("the generator's core"));
        let lossy = Sample { lost: 3, ..good };
        assert_eq!(
            bound(lossy).as_deref(),
            Some("3 lost packets with cores to spare")
        );
    }
}
