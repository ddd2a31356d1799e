//! From measurements to rows.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::contender::Contender;
use super::{Sample, Settings, median};

/// One row of the result.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    /// CPU of the receiving threads for each packet.
    cpu_ns_per_packet: f64,
    /// The same for 10⁹ payload bytes.
    cpu_s_per_gb: f64,
    ratio_to_floor: Option<f64>,
    ratio_to_raw: Option<f64>,
    /// Over all rounds.
    lost: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    /// CPU of the whole process for each packet, for the terminal.
    #[serde(skip)]
    whole_ns_per_packet: f64,
    #[serde(skip)]
    how: Option<&'static str>,
}

fn ns(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(Sample::ns_per_packet).collect()
}

/// The floor of a kind is the cheaper of its two ways.
fn cheaper(
    results: &[(Contender, Vec<Sample>)],
    ways: [Contender; 2],
) -> Option<&(Contender, Vec<Sample>)> {
    let measured = results
        .iter()
        .filter(|(c, s)| ways.contains(c) && !s.is_empty());
    measured.min_by(|a, b| median(ns(&a.1)).total_cmp(&median(ns(&b.1))))
}

pub(super) fn rows(results: &[(Contender, Vec<Sample>)]) -> Vec<Row> {
    let raw = cheaper(results, Contender::RAW_FLOORS);
    let copy = cheaper(results, Contender::COPY_FLOORS);
    let mut out = Vec::new();
    for (name, floor) in [("floor-raw", raw), ("floor-copy", copy)] {
        if let Some((contender, samples)) = floor {
            out.push(row(name, samples, raw, copy, Some(contender.name())));
        }
    }
    for (contender, samples) in results
        .iter()
        .filter(|(c, s)| !c.is_floor() && !s.is_empty())
    {
        out.push(row(contender.name(), samples, raw, copy, None));
    }
    out
}

type Floor<'a> = Option<&'a (Contender, Vec<Sample>)>;

fn row(
    name: &'static str,
    samples: &[Sample],
    raw: Floor<'_>,
    copy: Floor<'_>,
    how: Option<&'static str>,
) -> Row {
    let of = |f: fn(&Sample) -> f64| median(samples.iter().map(f).collect());
    // within a round the machine is the same: ratios are taken there
    let ratio = |floor: Floor<'_>| {
        let floor = ns(&floor?.1);
        let paired = ns(samples)
            .iter()
            .zip(&floor)
            .map(|(a, b)| a / b)
            .collect::<Vec<_>>();
        (!paired.is_empty()).then(|| round(median(paired), 3))
    };
    let latency = |pick: fn((f64, f64)) -> f64| {
        let values: Vec<f64> = samples
            .iter()
            .filter_map(|s| s.latency_us)
            .map(pick)
            .collect();
        (!values.is_empty()).then(|| median(values))
    };
    Row {
        name,
        cpu_ns_per_packet: round(of(Sample::ns_per_packet), 1),
        cpu_s_per_gb: round(of(|s| s.cpu_ns / s.bytes.max(1.0)), 4),
        ratio_to_floor: ratio(copy),
        ratio_to_raw: ratio(raw),
        lost: samples.iter().map(|s| s.lost).sum(),
        p50_us: latency(|l| l.0),
        p99_us: latency(|l| l.1),
        whole_ns_per_packet: of(|s| s.whole_cpu_ns / s.packets.max(1.0)),
        how,
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

pub(super) fn terminal(rows: &[Row], settings: &Settings) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "row",
        "ns/packet",
        "whole process",
        "CPU-s/GB",
        "to floor-copy",
        "to floor-raw",
        "lost",
        "p50 µs",
        "p99 µs",
    ]);
    let optional = |v: Option<f64>, digits: usize| {
        v.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"))
    };
    for row in rows {
        let name = row.how.map_or_else(
            || row.name.to_owned(),
            |how| format!("{} ({how})", row.name),
        );
        table.add_row([
            name,
            format!("{:.0}", row.cpu_ns_per_packet),
            format!("{:.0}", row.whole_ns_per_packet),
            format!("{:.3}", row.cpu_s_per_gb),
            optional(row.ratio_to_floor, 2),
            optional(row.ratio_to_raw, 2),
            row.lost.to_string(),
            optional(row.p50_us, 0),
            optional(row.p99_us, 0),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let head = format!(
        "{} streams of {}, {} rounds of {} s, receivers on core {}, generator on core {}",
        settings.streams,
        crate::units::show_bitrate(settings.bitrate_bps as f64),
        settings.rounds,
        settings.seconds,
        settings.shard_core,
        settings.generator_core
    );
    format!("{head}\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(list: &[f64]) -> Vec<Sample> {
        list.iter()
            .map(|ns| Sample {
                cpu_ns: ns * 1e6,
                packets: 1e6,
                bytes: 1.316e9,
                ..Sample::default()
            })
            .collect()
    }

    #[test]
    fn rows_have_medians_and_ratios_to_the_cheaper_floor() {
        let mut engine = samples(&[1500.0, 1600.0, 9000.0]);
        engine[0].latency_us = Some((10.0, 90.0));
        engine[1].lost = 2;
        let results = vec![
            (Contender::RAW_FLOORS[0], samples(&[1000.0, 1000.0, 1000.0])),
            (Contender::RAW_FLOORS[1], samples(&[900.0, 800.0, 3000.0])),
            (
                Contender::COPY_FLOORS[0],
                samples(&[1200.0, 1600.0, 1500.0]),
            ),
            (
                Contender::COPY_FLOORS[1],
                samples(&[2000.0, 2000.0, 2000.0]),
            ),
            (Contender::SrtFrames, engine),
        ];
        let rows = rows(&results);
        let value = serde_json::to_value(&rows).unwrap();
        assert_eq!(value[0]["name"], "floor-raw");
        assert_eq!(value[0]["cpu_ns_per_packet"], 900.0);
        assert_eq!(value[1]["cpu_ns_per_packet"], 1500.0);
        assert_eq!(value[1]["ratio_to_floor"], 1.0);
        let row = &value[2];
        assert_eq!(
            (&row["name"], &row["cpu_ns_per_packet"]),
            (&"srt-clear-frames".into(), &1600.0.into())
        );
        // paired: 1500/1200, 1600/1600, 9000/1500
        assert_eq!(row["ratio_to_floor"], 1.25);
        assert_eq!(row["ratio_to_raw"], 2.0);
        assert_eq!(
            (&row["lost"], &row["p50_us"], &row["p99_us"]),
            (&2.into(), &10.0.into(), &90.0.into())
        );
        let keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 8, "{keys:?}");
    }

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
