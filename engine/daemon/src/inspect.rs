//! `mirror-ingest inspect`: files through the engine's cores. Reads the files for
//! [`mirror_inspect`], which does no I/O, and prints what it found.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use mirror_inspect::report::TransportFacts;
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
        if path == Path::new("-") {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
            return OnDisk::of(File::from(stdin));
        }
        OnDisk::of(File::open(path)?)
    }

    fn of(mut file: File) -> anyhow::Result<Self> {
        let metadata = file.metadata()?;
        anyhow::ensure!(!metadata.is_dir(), "a directory");
        if !metadata.is_file() {
            // Looked into twice and at any place: what a pipe brings goes to disk first.
            let mut spool = spool()?;
            std::io::copy(&mut file, &mut spool).context("cannot keep what the pipe brings")?;
            file = spool;
        }
        let size = file.metadata()?.len();
        Ok(OnDisk { file, size })
    }
}

/// A file without a name, which goes when it is closed.
fn spool() -> anyhow::Result<File> {
    let folder = std::env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    for attempt in 0..100 {
        let name = format!("mirror-ingest-{}-{attempt}", std::process::id());
        let path = folder.join(name);
        match options.open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        }
    }
    anyhow::bail!("{}: no name is free", folder.display())
}

impl Source for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, String> {
        loop {
            match self.file.read_at(out, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|e| e.to_string()),
            }
        }
    }
}

fn look_into(path: &Path, options: &Options) -> anyhow::Result<Report> {
    let name = match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
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
        units: arguments.units,
        packets: arguments.packets,
        pid_timeout: Some(Duration::from_secs(arguments.pid_timeout)),
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
                match writeln!(out, "{text}") {
                    // Who reads has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(code),
                    result => result.map_err(Failure::failed)?,
                }
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
        ("packets_from_caller", "from the caller"),
        ("packets_from_listener", "from the listener"),
    ] {
        let counts = connection[key].as_object().into_iter().flatten();
        let counts: Vec<String> = counts.map(|(kind, n)| format!("{kind} {n}")).collect();
        if !counts.is_empty() {
            lines.push(format!("  {name}: {}", counts.join(", ")));
        }
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

/// A transport stream in a line for itself and one for each program.
fn transport_text(transport: &TransportFacts) -> String {
    let rate = match transport.bit_rate {
        Some(rate) => format!("{:.3} Mb/s", rate as f64 / 1e6),
        None => "unknown rate".to_owned(),
    };
    let mut lines = vec![format!(
        "Transport stream: {:.3} s, {rate}, {} packets of {} bytes ({} null), continuity errors \
         {}, wrong sync bytes {}, sync losses {}",
        transport.duration.as_secs_f64(),
        transport.packets,
        transport.packet_size,
        transport.null_packets,
        transport.continuity_errors,
        transport.sync_errors.count,
        transport.sync_losses,
    )];
    for program in &transport.programs {
        let clock = match program.pcr_pid {
            Some(pid) => format!("PCR PID {pid:#x}"),
            None => "no PMT yet".to_owned(),
        };
        let (number, pmt) = (program.number, program.pmt_pid);
        lines.push(format!("  program {number}: PMT PID {pmt:#x}, {clock}"));
    }
    lines.join("\n")
}

/// One row for each PID.
fn pid_table(transport: &TransportFacts, tracks: &[Value]) -> String {
    let headings = [
        "PID",
        "WHAT",
        "PACKETS",
        "SHARE",
        "KBIT/S",
        "CONTINUITY",
        "SCRAMBLED",
        "DAMAGED",
        "PCRS",
        "MAX PCR GAP",
    ];
    let mut table = table(headings.into_iter().map(str::to_owned));
    for pid in &transport.pids {
        let seconds = transport.duration.as_secs_f64();
        let bytes = pid.packets as f64 * transport.packet_size as f64;
        let share = 100.0 * pid.packets as f64 / transport.packets.max(1) as f64;
        let rate = (seconds > 0.0).then(|| format!("{:.1}", bytes * 8.0 / seconds / 1e3));
        let gap = pid
            .pcr
            .as_ref()
            .map(|pcr| format!("{:.1} ms", pcr.max_gap_us as f64 / 1e3));
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            format!("{:#x}", pid.pid),
            purpose(pid.pid, transport, tracks),
            pid.packets.to_string(),
            format!("{share:.2} %"),
            or_dash(rate),
            pid.continuity_errors.count.to_string(),
            pid.scrambled.count.to_string(),
            pid.transport_errors.count.to_string(),
            or_dash(pid.pcr.as_ref().map(|pcr| pcr.count.to_string())),
            or_dash(gap),
        ]);
    }
    for column in 2..headings.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// What a PID is for.
fn purpose(pid: u16, transport: &TransportFacts, tracks: &[Value]) -> String {
    let fixed = match pid {
        0x00 => "PAT",
        0x01 => "CAT",
        0x10 => "NIT",
        0x11 => "SDT",
        0x12 => "EIT",
        0x14 => "TDT",
        0x1FFF => "null",
        _ if transport.programs.iter().any(|p| p.pmt_pid == pid) => "PMT",
        _ => "",
    };
    if !fixed.is_empty() {
        return fixed.to_owned();
    }
    let track = tracks.iter().find(|t| t["pid"] == pid);
    if let Some(codec) = track
        .and_then(|t| t["codec"].as_str())
        .filter(|c| *c != "unknown")
    {
        return codec.to_owned();
    }
    let mut streams = transport.programs.iter().flat_map(|p| &p.streams);
    if let Some((_, kind)) = streams.find(|s| s.0 == pid) {
        return format!("stream type {kind:#04x}");
    }
    let is_clock = transport.programs.iter().any(|p| p.pcr_pid == Some(pid));
    let name = if is_clock { "PCR" } else { "in no program" };
    name.to_owned()
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
    for transport in &report.transports {
        out.push(transport_text(transport));
        out.push(pid_table(transport, tracks));
    }
    list(
        &json["scte35"],
        &["pid", "command", "event_id", "pts"],
        &mut out,
    );
    list(&json["klv"], &["id", "units"], &mut out);
    out.extend(report.errors.iter().map(|e| format!("error: {e}")));
    let findings = report.findings();
    if findings.is_empty() && report.errors.is_empty() {
        out.push("Nothing is wrong as far as this shows.".to_owned());
    }
    out.extend(findings.iter().map(|f| format!("! {f}")));
    out.push(String::new());
    out.join("\n")
}
