//! Scenario files: what is sent where, for how long, and what must hold. TOML; every error is
//! reported at once, each with file, line, key, value and what is allowed.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use mirror_base::StreamId;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::content::rtp::{RtpShape, RtpTemplate};
use crate::content::ts::{TsShape, TsTemplate};
use crate::content::{VideoCodec, VideoShape};
use crate::impairment::Impairment;
use crate::sender::SrtSecurity;
use crate::units;

mod line;

/// A validated scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// How long media is sent.
    pub duration: Duration,
    /// Host that the streams go to; `None`: that of the API.
    pub host: Option<String>,
    /// The engine's SRT port.
    pub srt_port: u16,
    /// The engine's RTP port.
    pub rtp_port: u16,
    /// Period of a sender's turns.
    pub burst: Duration,
    /// Core of the generator's thread.
    pub core: Option<usize>,
    /// What the line between each sender and the engine does.
    pub impairment: Impairment,
    /// The senders, in groups of equals.
    pub senders: Vec<SenderGroup>,
    /// What must hold.
    pub expect: Expect,
}

/// By which protocol a group sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// SRT caller, MPEG-TS.
    Srt,
    /// RTP with MPEG-TS (payload type 33).
    RtpMpegTs,
    /// RTP with the elementary stream.
    RtpNative,
}

/// Equal senders.
#[derive(Clone, Debug)]
pub struct SenderGroup {
    /// How they send.
    pub protocol: Protocol,
    /// How many.
    pub count: usize,
    /// Bits a second of each (TS bytes; native RTP: RTP payload bytes).
    pub bitrate_bps: u64,
    /// Stream ID; `{n}` is the sender's number.
    pub id: String,
    /// The video.
    pub video: VideoShape,
    /// With an audio track (MPEG-TS).
    pub audio: bool,
    /// SRT latency.
    pub latency: Duration,
    /// SRT: listens here and waits to be called, each sender on the next port; `None`: calls.
    pub listen: Option<SocketAddr>,
    /// SRT: encryption.
    pub security: Option<SrtSecurity>,
}

/// What must hold; `None`: not checked.
#[derive(Clone, Copy, Default, Debug)]
pub struct Expect {
    /// Packets lost before repair, at most.
    pub lost: Option<u64>,
    /// Packets never repaired, at most; also what the senders dropped.
    pub dropped: Option<u64>,
    /// Datagrams dropped by the kernel, at most.
    pub kernel_drops: Option<u64>,
    /// Packets sent and not received, at most.
    pub missing: Option<u64>,
    /// Video frames sent and not assembled, at most, of each stream. The last one may wait for
    /// its successor, so 1 is the least that can be asked of MPEG-TS.
    pub missing_frames: Option<u64>,
    /// Engine's CPU, percent of one core, at most.
    pub max_cpu: Option<f64>,
}

/// All errors of a file, one a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<String>);

impl core::fmt::Display for Errors {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl core::error::Error for Errors {}

impl Scenario {
    /// Reads `text`, which came from `file`.
    pub fn parse(file: &str, text: &str) -> Result<Scenario, Errors> {
        let table = DeTable::parse(text).map_err(|e| {
            let line = e.span().map_or(1, |s| line_of(text, s.start));
            Errors(vec![format!("{file}:{line}: {}", e.message())])
        })?;
        let mut errors = Errors::default();
        let root = Section {
            file,
            text,
            path: String::new(),
            line: 1,
            table: table.get_ref(),
        };
        let scenario = read(&root, &mut errors);
        if errors.0.is_empty() {
            Ok(scenario)
        } else {
            Err(errors)
        }
    }

    /// Senders in all.
    pub fn sender_count(&self) -> usize {
        self.senders.iter().map(|g| g.count).sum()
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(at)
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// A table of the file, with what is needed to say where in it an error is.
struct Section<'a> {
    file: &'a str,
    text: &'a str,
    path: String,
    line: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table
            .iter()
            .find(|(k, _)| k.get_ref() == key)
            .map(|(_, v)| v)
    }

    fn fault(&self, errors: &mut Errors, key: &str, value: &Spanned<DeValue<'_>>, allowed: &str) {
        let line = line_of(self.text, value.span().start);
        let shown = self
            .text
            .get(value.span())
            .unwrap_or("")
            .lines()
            .next()
            .unwrap_or("");
        errors.0.push(format!(
            "{}:{line}: {}{key} = {shown}: {allowed}",
            self.file, self.path
        ));
    }

    /// Complains of keys that are not in `known`.
    fn only(&self, errors: &mut Errors, known: &[&str]) {
        for (key, _) in self.table {
            if !known.contains(&key.get_ref().as_ref()) {
                let line = line_of(self.text, key.span().start);
                errors.0.push(format!(
                    "{}:{line}: {}{}: unknown key; known: {}",
                    self.file,
                    self.path,
                    key.get_ref(),
                    known.join(", ")
                ));
            }
        }
    }

    fn read<T>(
        &self,
        errors: &mut Errors,
        key: &str,
        allowed: &str,
        convert: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let read = convert(value.get_ref());
        if read.is_none() {
            self.fault(errors, key, value, allowed);
        }
        read
    }

    fn string(&self, errors: &mut Errors, key: &str) -> Option<String> {
        self.read(errors, key, "must be a string", |v| {
            v.as_str().map(str::to_owned)
        })
    }

    fn integer(
        &self,
        errors: &mut Errors,
        key: &str,
        range: core::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let allowed = format!(
            "must be a whole number from {} to {}",
            range.start(),
            range.end()
        );
        self.read(errors, key, &allowed, |v| {
            integer(v).filter(|n| range.contains(n))
        })
    }

    fn boolean(&self, errors: &mut Errors, key: &str) -> Option<bool> {
        self.read(errors, key, "must be true or false", |v| v.as_bool())
    }

    fn duration(
        &self,
        errors: &mut Errors,
        key: &str,
        range: core::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let allowed = format!(
            "must be a duration like \"500us\" or \"10s\", from {:?} to {:?}",
            range.start(),
            range.end()
        );
        self.read(errors, key, &allowed, |v| {
            units::duration(v.as_str()?).filter(|d| range.contains(d))
        })
    }

    fn choice<T: Copy>(&self, errors: &mut Errors, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(n, _)| format!("\"{n}\"")).collect();
        let allowed = format!("must be one of {}", names.join(", "));
        self.read(errors, key, &allowed, |v| {
            let name = v.as_str()?;
            choices.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
        })
    }

    fn section(&self, errors: &mut Errors, key: &str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.fault(errors, key, value, "must be a table");
            return None;
        };
        let line = line_of(self.text, value.span().start);
        Some(Section {
            file: self.file,
            text: self.text,
            path: format!("{}{key}.", self.path),
            line,
            table,
        })
    }

    fn missing(&self, errors: &mut Errors, key: &str, allowed: &str) {
        errors.0.push(format!(
            "{}:{}: {}{key} is missing: {allowed}",
            self.file, self.line, self.path
        ));
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(f) => f.as_str().parse().ok(),
        other => integer(other).map(|n| n as f64),
    }
}

const MAX_COUNT: u64 = 1_000_000_000;

fn read(root: &Section<'_>, errors: &mut Errors) -> Scenario {
    root.only(
        errors,
        &[
            "name",
            "duration",
            "target",
            "pacing",
            "impairment",
            "senders",
            "expect",
        ],
    );
    let stem = std::path::Path::new(root.file)
        .file_stem()
        .map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    let name = root.string(errors, "name").unwrap_or(stem);
    let seconds = |n| Duration::from_secs(n);
    if root.get("duration").is_none() {
        root.missing(errors, "duration", "a duration like \"10s\"");
    }
    let duration = root
        .duration(errors, "duration", seconds(1)..=seconds(7 * 86_400))
        .unwrap_or(seconds(1));
    let (mut host, mut srt_port, mut rtp_port) = (None, 30_000, 5_004);
    if let Some(target) = root.section(errors, "target") {
        target.only(errors, &["host", "srt_port", "rtp_port"]);
        host = target.string(errors, "host");
        let port =
            |n: Option<u64>, default| n.and_then(|n| u16::try_from(n).ok()).unwrap_or(default);
        srt_port = port(target.integer(errors, "srt_port", 1..=65_535), srt_port);
        rtp_port = port(target.integer(errors, "rtp_port", 1..=65_535), rtp_port);
    }
    let (mut burst, mut core) = (Duration::from_millis(1), None);
    if let Some(pacing) = root.section(errors, "pacing") {
        pacing.only(errors, &["burst", "core"]);
        let range = Duration::from_micros(100)..=Duration::from_millis(20);
        burst = pacing.duration(errors, "burst", range).unwrap_or(burst);
        core = pacing
            .integer(errors, "core", 0..=1023)
            .and_then(|n| usize::try_from(n).ok());
    }
    let impairment = root
        .section(errors, "impairment")
        .map(|s| line::impairment(&s, errors))
        .unwrap_or_default();
    let senders = senders(root, errors);
    let expect = root
        .section(errors, "expect")
        .map(|s| expect(&s, errors))
        .unwrap_or_default();
    Scenario {
        name,
        duration,
        host,
        srt_port,
        rtp_port,
        burst,
        core,
        impairment,
        senders,
        expect,
    }
}

fn expect(section: &Section<'_>, errors: &mut Errors) -> Expect {
    section.only(
        errors,
        &[
            "lost",
            "dropped",
            "kernel_drops",
            "missing",
            "missing_frames",
            "max_cpu",
        ],
    );
    let percent = |v: &DeValue<'_>| number(v).filter(|n| (0.0..=100_000.0).contains(n));
    Expect {
        lost: section.integer(errors, "lost", 0..=MAX_COUNT),
        dropped: section.integer(errors, "dropped", 0..=MAX_COUNT),
        kernel_drops: section.integer(errors, "kernel_drops", 0..=MAX_COUNT),
        missing: section.integer(errors, "missing", 0..=MAX_COUNT),
        missing_frames: section.integer(errors, "missing_frames", 0..=MAX_COUNT),
        max_cpu: section.read(
            errors,
            "max_cpu",
            "must be a percentage of one core",
            percent,
        ),
    }
}

fn senders(root: &Section<'_>, errors: &mut Errors) -> Vec<SenderGroup> {
    let Some(value) = root.get("senders") else {
        root.missing(errors, "[[senders]]", "at least one group of senders");
        return Vec::new();
    };
    let Some(array) = value.get_ref().as_array().filter(|a| !a.is_empty()) else {
        root.fault(
            errors,
            "senders",
            value,
            "must be one or more tables [[senders]]",
        );
        return Vec::new();
    };
    let mut out = Vec::new();
    let mut ids = HashSet::new();
    for (i, item) in array.iter().enumerate() {
        let line = line_of(root.text, item.span().start);
        let Some(table) = item.get_ref().as_table() else {
            root.fault(errors, "senders", item, "must be a table");
            continue;
        };
        let path = format!("senders[{i}].");
        let section = Section {
            file: root.file,
            text: root.text,
            path,
            line,
            table,
        };
        let before = errors.0.len();
        let group = sender_group(&section, errors);
        if group.protocol == Protocol::Srt && errors.0.len() == before {
            check_ids(&section, &group, &mut ids, errors);
        }
        out.push(group);
    }
    let total: usize = out.iter().map(|g| g.count).sum();
    if total > 10_000 {
        root.fault(errors, "senders", value, "10000 senders in all at the most");
    }
    out
}

fn check_ids(
    section: &Section<'_>,
    group: &SenderGroup,
    ids: &mut HashSet<String>,
    errors: &mut Errors,
) {
    for n in 1..=group.count {
        let id = group.id.replace("{n}", &n.to_string());
        let fault = match StreamId::new(&id) {
            Err(error) => error.to_string(),
            Ok(_) if !ids.insert(id.clone()) => {
                format!("stream \"{id}\" occurs twice; use {{n}} for the sender's number")
            }
            Ok(_) => continue,
        };
        match section.get("id") {
            Some(value) => section.fault(errors, "id", value, &fault),
            None => section.missing(errors, "id", &fault),
        }
        return;
    }
}

fn sender_group(s: &Section<'_>, errors: &mut Errors) -> SenderGroup {
    let known = [
        "protocol",
        "payload",
        "count",
        "bitrate",
        "id",
        "codec",
        "resolution",
        "frame_rate",
        "gop",
        "b_frames",
        "audio",
        "latency",
        "mode",
        "listen",
        "passphrase",
        "key_length",
        "cipher",
    ];
    s.only(errors, &known);
    let before = errors.0.len();
    let rtp = s.choice(errors, "protocol", &[("srt", false), ("rtp", true)]);
    if s.get("protocol").is_none() {
        s.missing(errors, "protocol", "\"srt\" or \"rtp\"");
    }
    let native = s
        .choice(errors, "payload", &[("mpegts", false), ("native", true)])
        .unwrap_or(false);
    let protocol = match (rtp.unwrap_or(false), native) {
        (false, _) => Protocol::Srt,
        (true, false) => Protocol::RtpMpegTs,
        (true, true) => Protocol::RtpNative,
    };
    if let (Some(false), true, Some(value)) = (rtp, native, s.get("payload")) {
        s.fault(errors, "payload", value, "SRT carries \"mpegts\" only");
    }
    if s.get("bitrate").is_none() {
        s.missing(errors, "bitrate", "bits a second, like \"50Mb\"");
    }
    let bitrate = |v: &DeValue<'_>| {
        let rate = v.as_str().map_or_else(|| integer(v), units::bitrate)?;
        (100_000..=2_000_000_000).contains(&rate).then_some(rate)
    };
    let bitrate_bps = s
        .read(
            errors,
            "bitrate",
            "must be bits a second like \"50Mb\", from 100kb to 2Gb",
            bitrate,
        )
        .unwrap_or(1_000_000);
    let count = s
        .integer(errors, "count", 1..=10_000)
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(1);
    let id = s
        .string(errors, "id")
        .unwrap_or_else(|| "load/{n}".to_owned());
    let video = video(s, errors);
    let audio = s.boolean(errors, "audio").unwrap_or(false);
    if let (true, Protocol::RtpNative, Some(value)) = (audio, protocol, s.get("audio")) {
        s.fault(errors, "audio", value, "native RTP carries video only");
    }
    let millis = |n| Duration::from_millis(n);
    let latency = s
        .duration(errors, "latency", millis(20)..=millis(8_000))
        .unwrap_or(millis(120));
    let group = SenderGroup {
        protocol,
        count,
        bitrate_bps,
        id,
        video,
        audio,
        latency,
        listen: line::listen(s, errors, protocol, count),
        security: line::security(s, errors, protocol),
    };
    if errors.0.len() == before {
        check_content(s, &group, errors);
    }
    group
}

/// What only making the content shows: it is made here once more than needed, which costs
/// milliseconds.
fn check_content(s: &Section<'_>, group: &SenderGroup, errors: &mut Errors) {
    let made = match group.protocol {
        Protocol::RtpNative => RtpTemplate::new(RtpShape {
            video: group.video,
            bitrate_bps: group.bitrate_bps,
        })
        .map(drop),
        _ => TsTemplate::new(TsShape {
            video: group.video,
            bitrate_bps: group.bitrate_bps,
            audio: group.audio,
        })
        .map(drop),
    };
    if let (Err(error), Some(value)) = (made, s.get("bitrate")) {
        s.fault(errors, "bitrate", value, &error.to_string());
    }
}

fn video(s: &Section<'_>, errors: &mut Errors) -> VideoShape {
    let codec = s
        .choice(
            errors,
            "codec",
            &[("h264", VideoCodec::H264), ("h265", VideoCodec::H265)],
        )
        .unwrap_or(VideoCodec::H264);
    let size = |v: &DeValue<'_>| {
        let (w, h) = v.as_str()?.split_once('x')?;
        let (w, h): (u32, u32) = (w.parse().ok()?, h.parse().ok()?);
        let good = |n| (64..=4096).contains(&n) && n % 2 == 0;
        (good(w) && good(h)).then_some((w, h))
    };
    let (width, height) = s
        .read(
            errors,
            "resolution",
            "must be like \"1920x1080\", even numbers from 64 to 4096",
            size,
        )
        .unwrap_or((1920, 1080));
    let rate = |v: &DeValue<'_>| {
        let (num, den) = match v.as_str() {
            Some(text) => {
                let (n, d) = text.split_once('/').unwrap_or((text, "1"));
                (n.parse().ok()?, d.parse().ok()?)
            }
            None => (u32::try_from(integer(v)?).ok()?, 1),
        };
        (den > 0
            && num >= den
            && num <= 300 * den
            && (90_000 * u64::from(den)).is_multiple_of(u64::from(num)))
        .then_some((num, den))
    };
    let allowed = "must be a frame rate whose frames last whole 90 kHz ticks: 24, 25, 30, 50, 60, \"30000/1001\", \"60000/1001\" ...";
    let (fps_num, fps_den) = s
        .read(errors, "frame_rate", allowed, rate)
        .unwrap_or((30, 1));
    let gop = s.integer(errors, "gop", 1..=1_000).unwrap_or(60) as u32;
    let b_frames = s.integer(errors, "b_frames", 0..=7).unwrap_or(2) as u32;
    VideoShape {
        codec,
        width,
        height,
        fps_num,
        fps_den,
        gop,
        b_frames,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
duration = "10s"
[[senders]]
protocol = "srt"
count = 4
bitrate = "10Mb"
id = "load/{n}"
[expect]
lost = 0
max_cpu = 60
"#;

    #[test]
    fn a_good_scenario_is_read_with_its_defaults() {
        let s = Scenario::parse("configs/x.toml", GOOD).unwrap();
        assert_eq!(
            (s.name.as_str(), s.duration),
            ("x", Duration::from_secs(10))
        );
        assert_eq!(
            (s.srt_port, s.rtp_port, s.sender_count()),
            (30_000, 5_004, 4)
        );
        assert_eq!(s.senders[0].video.codec, VideoCodec::H264);
        assert_eq!(
            (s.expect.lost, s.expect.dropped, s.expect.max_cpu),
            (Some(0), None, Some(60.0))
        );
    }

    #[test]
    fn all_errors_are_reported_at_once_each_with_its_line() {
        let text = r#"
duraton = "10s"
[pacing]
burst = "1s"
[[senders]]
protocol = "rist"
bitrate = "50MB"
gop = 0
[[senders]]
protocol = "srt"
payload = "native"
bitrate = "5Mb"
frame_rate = "24000/1001"
[expect]
lost = -1
"#;
        let errors = Scenario::parse("bad.toml", text).unwrap_err().0;
        let wanted = [
            "bad.toml:2: duraton: unknown key",
            "bad.toml:1: duration is missing",
            "bad.toml:4: pacing.burst = \"1s\": must be a duration",
            "bad.toml:6: senders[0].protocol = \"rist\": must be one of \"srt\", \"rtp\"",
            "bad.toml:7: senders[0].bitrate = \"50MB\"",
            "bad.toml:8: senders[0].gop = 0: must be a whole number from 1",
            "bad.toml:11: senders[1].payload = \"native\": SRT carries",
            "bad.toml:13: senders[1].frame_rate",
            "bad.toml:15: expect.lost = -1",
        ];
        assert_eq!(errors.len(), wanted.len(), "{errors:#?}");
        for want in wanted {
            assert!(
                errors.iter().any(|e| e.starts_with(want)),
                "{want} in {errors:#?}"
            );
        }
    }

    #[test]
    fn ids_must_differ_and_be_valid() {
        for id in ["\"same\"", "\"/load{n}\""] {
            let text = GOOD.replace("\"load/{n}\"", id);
            let errors = Scenario::parse("f.toml", &text).unwrap_err().0;
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].contains("senders[0].id"), "{errors:?}");
        }
    }

    #[test]
    fn a_rate_too_low_for_the_picture_is_an_error_of_the_file() {
        let text = GOOD.replace("10Mb", "100kb");
        let errors = Scenario::parse("f.toml", &text).unwrap_err().0;
        assert!(errors[0].contains("too low"), "{errors:?}");
    }

    #[test]
    fn broken_toml_names_its_line() {
        let errors = Scenario::parse("f.toml", "duration = \"1s\"\n[pacing\n")
            .unwrap_err()
            .0;
        assert!(errors[0].starts_with("f.toml:2:"), "{errors:?}");
    }

    #[test]
    fn the_shipped_scenarios_are_valid() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/loadtest");
        let mut seen = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let scenario =
                Scenario::parse(&path.to_string_lossy(), &text).unwrap_or_else(|e| panic!("{e}"));
            assert!(scenario.sender_count() > 0);
            seen += 1;
        }
        assert!(seen >= 3);
    }
}
