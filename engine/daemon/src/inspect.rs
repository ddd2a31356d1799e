//! `mirror-ingest inspect`: files through the engine's cores. Reads the files for
//! [`mirror_inspect`], which does no I/O, and prints what it found.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use mirror_inspect::{Options, Report, Source, inspect};
use serde_json::Value;

use crate::Failure;
use crate::cli::InspectOptions;

/// A file that is read piece by piece.
struct OnDisk {
    file: File,
    size: u64,
}

impl OnDisk {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        anyhow::ensure!(metadata.is_file(), "not a regular file");
        let size = metadata.len();
        Ok(OnDisk { file, size })
    }
}

impl Source for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, String> {
        self.file.read_at(out, offset).map_err(|e| e.to_string())
    }
}

fn look_into(path: &Path, options: &Options) -> anyhow::Result<Report> {
    let name = path.display().to_string();
    let source = OnDisk::open(path).with_context(|| name.clone())?;
    inspect(&name, &source, options).map_err(|e| anyhow::anyhow!("{name}: {e}"))
}

/// Looks into each file in turn.
pub(crate) fn run(arguments: &InspectOptions) -> Result<ExitCode, Failure> {
    if let Some(passphrase) = &arguments.passphrase
        && !(10..=79).contains(&passphrase.len())
    {
        let text = "--passphrase: 10 to 79 characters are a passphrase of SRT";
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    let mut options = Options {
        passphrase: arguments.passphrase.clone(),
        ..Options::default()
    };
    if let Some(path) = &arguments.sdp {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| name.to_string());
        let text = text.map_err(Failure::usage)?;
        let read = options.add_sdp(&text);
        read.map_err(|e| Failure::usage(anyhow::anyhow!("{name}: {e}")))?;
    }
    let mut code = ExitCode::SUCCESS;
    let mut out = std::io::stdout().lock();
    for path in &arguments.files {
        match look_into(path, &options) {
            Ok(report) => {
                if !report.errors.is_empty() {
                    code = ExitCode::from(1);
                }
                let text = if arguments.json {
                    report.json().to_string()
                } else {
                    people(&report)
                };
                writeln!(out, "{text}").map_err(Failure::failed)?;
            }
            Err(error) => {
                code = ExitCode::from(1);
                eprintln!("mirror-ingest: {error:#}");
            }
        }
    }
    Ok(code)
}

/// Columns of the table of tracks: heading and key.
const TRACKS: [(&str, &str); 13] = [
    ("PID/SSRC", "id"),
    ("CODEC", "codec"),
    ("PROFILE", "profile"),
    ("SIZE", "size"),
    ("RATE", "rate"),
    ("FORMAT", "format"),
    ("UNITS", "access_units"),
    ("DAMAGED", "damaged"),
    ("KEYS", "keys"),
    ("I/P/B", "types"),
    ("FIRST PTS", "first_pts"),
    ("LAST PTS", "last_pts"),
    ("LANGUAGE", "language"),
];

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell of the table of tracks.
fn track_cell(track: &Value, key: &str) -> String {
    let letters = track["frame_types"].as_str().unwrap_or_default();
    match key {
        "id" if track["pid"].is_u64() => format!("{:#x}", track["pid"].as_u64().unwrap_or(0)),
        "id" if track["ssrc"].is_u64() => format!("{:08x}", track["ssrc"].as_u64().unwrap_or(0)),
        "size" if track["width"].is_u64() => format!("{}x{}", track["width"], track["height"]),
        "size" => "-".to_owned(),
        "rate" if track["sample_rate"].is_u64() => format!("{} Hz", track["sample_rate"]),
        "rate" => plain(&track["frame_rate_fraction"]),
        "format" if track["chroma"].is_string() => {
            let interlaced = track["interlaced"] == true;
            let scan = if interlaced { "i" } else { "p" };
            format!("{} {}b {scan}", plain(&track["chroma"]), track["bit_depth"])
        }
        "format" if track["channels"].is_u64() => format!("{} ch", track["channels"]),
        "keys" => track["key_frames"]
            .as_array()
            .map_or(0, Vec::len)
            .to_string(),
        "types" if !letters.is_empty() => {
            let count = |of: char| letters.chars().filter(|l| *l == of).count();
            format!("{}/{}/{}", count('I'), count('P'), count('B'))
        }
        "id" | "format" | "types" => "-".to_owned(),
        key => plain(&track[key]),
    }
}

fn table(headings: impl Iterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(headings);
    table
}

/// The objects of a list as a table, one column for each of `keys`.
fn list(value: &Value, keys: &[&str], out: &mut Vec<String>) {
    let rows = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return;
    }
    let mut table = table(keys.iter().map(|k| k.replace('_', " ").to_uppercase()));
    for row in rows {
        table.add_row(keys.iter().map(|k| plain(&row[*k])));
    }
    out.push(table.trim_fmt());
}

/// Columns of the table of RTP sources.
const RTP: [&str; 12] = [
    "port",
    "ssrc",
    "payload_type",
    "codec",
    "packets",
    "distinct",
    "lost",
    "duplicates",
    "reordered",
    "jitter_ms",
    "access_units",
    "payload_bytes",
];

/// An SRT connection in a few lines.
fn connection_text(connection: &Value) -> String {
    let text = |key: &str| plain(&connection[key]);
    let mut lines = vec![format!(
        "SRT {} -> {}: {}, version {}, encryption {}, stream ID {}",
        text("caller"),
        text("listener"),
        text("outcome"),
        text("version"),
        text("encryption"),
        text("stream_id"),
    )];
    if connection["rejection_code"].is_u64() {
        let (code, name) = (text("rejection_code"), text("rejection_name"));
        lines.push(format!("  rejection {code} {name}"));
    }
    for (key, name) in [
        ("caller_to_listener", "caller to listener"),
        ("listener_to_caller", "listener to caller"),
    ] {
        let direction = &connection[key];
        if direction["data_packets"] == 0 {
            continue;
        }
        let of = |key: &str| plain(&direction[key]);
        lines.push(format!(
            "  {name}: {} packets, {} bytes, retransmitted {}, lost {}, dropped {}, duplicates {}, \
             FEC {}, ACKs {}, NAKs {}, key refreshes {}, undecryptable {}, latency {} ms",
            of("data_packets"),
            of("payload_bytes"),
            of("retransmitted"),
            of("lost"),
            of("dropped"),
            of("duplicates"),
            of("fec_packets"),
            of("acks"),
            of("naks"),
            of("key_refreshes"),
            of("undecryptable"),
            of("latency_ms"),
        ));
    }
    lines.join("\n")
}

/// What a person wants to see of a report.
fn people(report: &Report) -> String {
    let json = report.json();
    let mut out = vec![format!("{}: {}", report.file, report.kind.name())];
    let tracks = json["tracks"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if !tracks.is_empty() {
        let mut table = table(TRACKS.iter().map(|(heading, _)| (*heading).to_owned()));
        for track in tracks {
            table.add_row(TRACKS.iter().map(|(_, key)| track_cell(track, key)));
        }
        for column in [6, 7, 8, 10, 11] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        out.push(table.trim_fmt());
    }
    list(&json["rtp"], &RTP, &mut out);
    for connection in json["srt"].as_array().into_iter().flatten() {
        out.push(connection_text(connection));
    }
    if report.transport.packets > 0 {
        let t = &report.transport;
        out.push(format!(
            "TS packets {}, null {}, continuity errors {}, sync losses {}",
            t.packets, t.null_packets, t.continuity_errors, t.sync_losses
        ));
    }
    if let Some(measured) = &report.tr101290 {
        let fired = measured.indicators.iter().filter(|i| i.count > 0);
        let fired: Vec<String> = fired
            .map(|i| {
                let pid = i
                    .pid
                    .map(|pid| format!(" (PID {pid:#x})"))
                    .unwrap_or_default();
                format!("{} {} {}{pid}", i.number, i.name, i.count)
            })
            .collect();
        out.push(match fired.is_empty() {
            true => "TR 101 290: no errors".to_owned(),
            false => format!("TR 101 290: {}", fired.join(", ")),
        });
    }
    list(
        &json["scte35"],
        &["pid", "command", "event_id", "pts"],
        &mut out,
    );
    list(&json["klv"], &["id", "units"], &mut out);
    out.extend(report.errors.iter().map(|e| format!("error: {e}")));
    out.push(String::new());
    out.join("\n")
}
