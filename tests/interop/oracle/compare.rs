//! Holds what `inspect --json --units` finds in a file against what ffprobe finds.

use std::collections::BTreeSet;
use std::path::Path;

use mirror_tests::engine::Engine;
use mirror_tests::probe::{Probed, ffprobe};
use mirror_tests::process::run;
use mirror_tests::{Alone, seconds};
use serde_json::Value;

use super::names;

/// Where ffprobe says something else and we stay with ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Allow {
    /// It calls all range extensions of HEVC "Rext"; the constraint flags say which one it is.
    RangeExtension,
    /// Its parser calls a picture with a recovery point a key frame even if the pictures are
    /// right only some frames later (H.264 D.2.8, `recovery_frame_cnt` above 0).
    GradualRefresh,
    /// Its HEVC parser leaves the zero byte of the next start code with the unit before; the
    /// sum is the same.
    ZeroByte,
    /// It has no name for the layers of MPEG audio.
    AudioLayer,
    /// It adds up the frames' durations in whole ticks; we count samples since the last PES time.
    RoundedDuration,
    /// The file has no clock: 25 frames a second are ffprobe's guess.
    GuessedRate,
    /// The bit stream says no rate; ffprobe takes the IVF header's, which counts ticks.
    ContainerRate,
}

/// The differences between the two in one file.
pub(super) struct Check<'a> {
    file: &'a str,
    allow: &'a [Allow],
    used: BTreeSet<Allow>,
    wrong: Vec<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(file: &'a str, allow: &'a [Allow]) -> Self {
        Check {
            file,
            allow,
            used: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    pub(super) fn fact(&mut self, what: &str, ours: impl Into<Value>, theirs: impl Into<Value>) {
        let (ours, theirs) = (ours.into(), theirs.into());
        if ours != theirs {
            self.wrong.push(format!(
                "{}: {what}: {ours}, ffprobe says {theirs}",
                self.file
            ));
        }
    }

    /// A fact that may differ for that reason.
    fn fact_but(
        &mut self,
        allow: Allow,
        what: &str,
        ours: impl Into<Value>,
        theirs: impl Into<Value>,
    ) {
        let (ours, theirs) = (ours.into(), theirs.into());
        if ours == theirs || self.excuse(allow) {
            return;
        }
        self.fact(what, ours, theirs);
    }

    fn excuse(&mut self, allow: Allow) -> bool {
        let is_allowed = self.allow.contains(&allow);
        if is_allowed {
            self.used.insert(allow);
        }
        is_allowed
    }

    /// Lists of the same length, item by item; the first few that differ are shown.
    fn list(&mut self, what: &str, ours: &[Option<i64>], theirs: &[Option<i64>]) {
        self.fact(&format!("number of {what}"), ours.len(), theirs.len());
        let pairs = ours.iter().zip(theirs).enumerate();
        let differing: Vec<String> = pairs
            .filter(|(_, (a, b))| a != b)
            .map(|(n, (a, b))| format!("{n}: {a:?} {b:?}"))
            .collect();
        if let Some(first) = differing.get(..differing.len().min(5))
            && !first.is_empty()
        {
            let count = differing.len();
            self.wrong
                .push(format!("{}: {what}: {count} differ: {first:?}", self.file));
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        for allow in self.allow {
            if !self.used.contains(allow) {
                self.wrong
                    .push(format!("{}: {allow:?} is needed no more", self.file));
            }
        }
        self.wrong
    }
}

/// What the release binary finds.
pub(super) fn inspect(test: &Alone, file: &Path) -> Value {
    let name = file.display().to_string();
    let args = ["inspect", "--json", "--units", &name];
    let (code, output) = run(
        test.folder(),
        "inspect",
        Engine::binary(),
        &args,
        seconds(30),
    );
    assert_eq!(code, Some(0), "{output}");
    serde_json::from_str(&output).unwrap_or_else(|e| panic!("{name}: {e}: {output}"))
}

/// Everything that both know of a file. Returns what differs.
pub(super) fn compare(test: &Alone, file: &Path, allow: &[Allow]) -> Vec<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (ours, theirs) = (inspect(test, file), ffprobe(test, file));
    let mut check = Check::new(&name, allow);
    check.fact("errors", ours["errors"].clone(), serde_json::json!([]));
    let indicators = ours["tr101290"].as_object().into_iter().flatten();
    for (number, indicator) in indicators {
        check.fact(
            &format!("TR 101 290 {number}"),
            indicator["count"].clone(),
            0,
        );
    }
    let tracks = ours["tracks"].as_array().cloned().unwrap_or_default();
    check.fact("tracks", tracks.len(), theirs.len());
    for stream in &theirs {
        let pid = stream.text("id").strip_prefix("0x");
        let pid = pid.and_then(|id| u64::from_str_radix(id, 16).ok());
        let track = tracks.iter().find(|t| t["pid"].as_u64() == pid);
        match track {
            Some(track) => units(&mut check, &ours["kind"], track, stream),
            None => check.fact(stream.text("id"), Value::Null, stream.text("codec_name")),
        }
    }
    check.finish()
}

/// Ticks of 90 kHz of the times called `key`.
fn ticks(stream: &Probed, key: &str) -> Vec<Option<i64>> {
    let base = stream.text("time_base").split_once('/');
    let number = |t: &str| t.parse::<i64>().expect("a time base");
    let (over, under) = base.map_or((1, 90_000), |(a, b)| (number(a), number(b)));
    let each = stream.packets.iter();
    each.map(|p| Some(p[key].as_i64()? * 90_000 * over / under))
        .collect()
}

/// The units of a track and its facts.
fn units(check: &mut Check<'_>, kind: &Value, track: &Value, stream: &Probed) {
    let what = |fact: &str| format!("{} {fact}", stream.text("codec_name"));
    let codec = names::codec(stream.text("codec_name"));
    check.fact(&what("codec"), track["codec"].clone(), codec);
    check.fact(&what("damaged"), track["damaged"].clone(), 0);
    let list = track["units"].as_array().cloned().unwrap_or_default();
    let of = |key: &str| -> Vec<Option<i64>> { list.iter().map(|u| u[key].as_i64()).collect() };
    let sizes = stream
        .packets
        .iter()
        .map(|p| p["size"].as_str()?.parse().ok());
    let (our_sizes, their_sizes) = (of("bytes"), sizes.collect::<Vec<Option<i64>>>());
    let sum = |of: &[Option<i64>]| of.iter().flatten().sum::<i64>();
    check.fact(&what("bytes"), sum(&our_sizes), sum(&their_sizes));
    let by_one = our_sizes.iter().zip(&their_sizes);
    let by_one = codec == "H265"
        && our_sizes != their_sizes
        && by_one
            .into_iter()
            .all(|(a, b)| a.zip(*b).is_some_and(|(a, b)| a.abs_diff(b) <= 1));
    if !(by_one && check.excuse(Allow::ZeroByte)) {
        check.list(&what("sizes"), &our_sizes, &their_sizes);
    }
    if kind == "mpegts" {
        times(check, track, stream, &of("pts"), &of("dts"));
    } else if check.file.ends_with(".ivf") {
        check.list(&what("PTS"), &of("pts"), &ticks(stream, "pts"));
    }
    if stream.is_video() {
        facts(check, track, stream);
        pictures(check, track, stream);
    } else {
        sound(check, track, stream);
    }
}

fn times(
    check: &mut Check<'_>,
    track: &Value,
    stream: &Probed,
    pts: &[Option<i64>],
    dts: &[Option<i64>],
) {
    let what = |fact: &str| format!("{} {fact}", stream.text("codec_name"));
    let theirs = ticks(stream, "pts");
    let close = pts.len() == theirs.len()
        && pts
            .iter()
            .zip(&theirs)
            .all(|(a, b)| a.zip(*b).is_some_and(|(a, b)| a.abs_diff(b) <= 2));
    let rounded = pts != theirs && close && track["sample_rate"] == 44_100;
    if !(rounded && check.excuse(Allow::RoundedDuration)) {
        check.list(&what("PTS"), pts, &theirs);
    }
    if stream.is_video() {
        check.list(&what("DTS"), dts, &ticks(stream, "dts"));
    }
}

/// What the headers say of the video, and SEI messages of HDR; also of a live track.
pub(super) fn facts(check: &mut Check<'_>, track: &Value, stream: &Probed) {
    let what = |fact: &str| format!("{} {fact}", stream.text("codec_name"));
    let profile = stream.text("profile");
    check.fact_but(
        Allow::RangeExtension,
        &what("profile"),
        track["profile"].clone(),
        profile,
    );
    for key in ["level", "width", "height"] {
        check.fact(&what(key), track[key].clone(), stream.facts[key].clone());
    }
    let (chroma, depth) = names::pixels(stream.text("pix_fmt"));
    check.fact(&what("chroma"), track["chroma"].clone(), chroma);
    check.fact(&what("bit depth"), track["bit_depth"].clone(), depth);
    let (interlaced, order) = names::scan(stream);
    check.fact(&what("interlaced"), track["interlaced"].clone(), interlaced);
    check.fact(&what("field order"), track["field_order"].clone(), order);
    check.fact(
        &what("colour"),
        track["colour"].clone(),
        names::colour(stream),
    );
    check.fact(
        &what("reorder depth"),
        track["reorder_depth"].clone(),
        stream.facts["has_b_frames"].clone(),
    );
    let (mastering, light) = names::light(stream);
    // The API has them under "hdr".
    let of = |key: &str| match &track["hdr"] {
        Value::Object(hdr) => hdr.get(key).cloned().unwrap_or_default(),
        _ => track[key].clone(),
    };
    check.fact(
        &what("mastering display"),
        of("mastering_display"),
        mastering,
    );
    check.fact(&what("content light"), of("content_light"), light);
}

fn pictures(check: &mut Check<'_>, track: &Value, stream: &Probed) {
    let what = |fact: &str| format!("{} {fact}", stream.text("codec_name"));
    let guess = match check.file.ends_with(".obu") {
        true => Allow::GuessedRate,
        false => Allow::ContainerRate,
    };
    check.fact_but(
        guess,
        &what("rate"),
        track["frame_rate_fraction"].clone(),
        stream.text("r_frame_rate"),
    );
    check.fact_but(
        Allow::GradualRefresh,
        &what("key frames"),
        track["key_frames"].clone(),
        stream.key_packets(),
    );
    check.fact(
        &what("picture types"),
        track["frame_types"].clone(),
        stream.types(),
    );
}

/// What is said of audio; also of a live track.
pub(super) fn sound(check: &mut Check<'_>, track: &Value, stream: &Probed) {
    let what = |fact: &str| format!("{} {fact}", stream.text("codec_name"));
    let rate = stream.text("sample_rate").parse::<u64>().ok();
    check.fact(&what("sample rate"), track["sample_rate"].clone(), rate);
    check.fact(
        &what("channels"),
        track["channels"].clone(),
        stream.facts["channels"].clone(),
    );
    check.fact(
        &what("language"),
        track["language"].clone(),
        stream.facts["tags"]["language"].clone(),
    );
    check.fact_but(
        Allow::AudioLayer,
        &what("profile"),
        track["profile"].clone(),
        stream.facts["profile"].clone(),
    );
}
