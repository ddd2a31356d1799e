//! What ffprobe finds in a file: streams, packets in decoding order, frames in display order.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::process::run;
use crate::{Alone, seconds};

/// One elementary stream.
#[derive(Clone, Debug)]
pub struct Probed {
    /// `-show_streams`.
    pub facts: Value,
    /// `-show_packets`, in decoding order.
    pub packets: Vec<Value>,
    /// `-show_frames`, in display order.
    pub frames: Vec<Value>,
}

impl Probed {
    /// The text called `key`, empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().unwrap_or_default()
    }

    /// Whether it is video.
    pub fn is_video(&self) -> bool {
        self.facts["codec_type"] == "video"
    }

    /// Which packets ffprobe calls key frames.
    pub fn key_packets(&self) -> Vec<usize> {
        let is_key = |p: &Value| p["flags"].as_str().is_some_and(|f| f.contains('K'));
        let keys = self.packets.iter().enumerate().filter(|(_, p)| is_key(p));
        keys.map(|(n, _)| n).collect()
    }

    /// Picture types in decoding order: a frame is that of the packet with its presentation time.
    /// `-` where the decoder gave no frame.
    pub fn types(&self) -> String {
        let of = |packet: &Value| {
            let frame = self.frames.iter().find(|f| f["pts"] == packet["pts"]);
            frame.and_then(|f| f["pict_type"].as_str()?.chars().next())
        };
        let letters = self.packets.iter().map(|p| of(p).unwrap_or('-'));
        letters.collect()
    }
}

/// Everything that ffprobe finds in `file`, stream by stream.
///
/// # Panics
/// If ffprobe fails.
pub fn ffprobe(test: &Alone, file: &Path) -> Vec<Probed> {
    let out = file.with_extension("ffprobe.json");
    let (file, name) = (file.display().to_string(), out.display().to_string());
    let args: Vec<&str> =
        "-v error -threads 1 -show_streams -show_packets -show_frames -of json -o"
            .split_whitespace()
            .chain([name.as_str(), file.as_str()])
            .collect();
    let (code, output) = run(test.folder(), "ffprobe", "ffprobe", &args, seconds(60));
    assert_eq!(code, Some(0), "ffprobe {file}: {output}");
    let text = fs::read(&out).unwrap_or_else(|e| panic!("{name}: {e}"));
    let all: Value = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let both = all["packets_and_frames"].as_array().cloned();
    let both = both.unwrap_or_default();
    let streams = all["streams"].as_array().cloned().unwrap_or_default();
    streams
        .into_iter()
        .map(|facts| {
            let of = |kind: &str| -> Vec<Value> {
                both.iter()
                    .filter(|v| v["type"] == kind && v["stream_index"] == facts["index"])
                    .cloned()
                    .collect()
            };
            let (packets, frames) = (of("packet"), of("frame"));
            Probed {
                facts,
                packets,
                frames,
            }
        })
        .collect()
}
