//! What is sent in the matrix, and the digests that what arrived is held against.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Peer;
use super::feed::CHUNK;
use crate::media::{QUIET, clip};
use crate::process::run;
use crate::{Alone, seconds};

/// Rate at which the file is fed, its own.
pub const BITS_PER_SECOND: u64 = 3_000_000;

/// The file, and what each kind of sender makes of it.
#[derive(Clone, Debug)]
pub struct Material {
    /// MPEG-TS of constant bit rate, eight seconds.
    pub file: PathBuf,
    /// Its bytes, as long as they are fed; whole chunks.
    pub fed: Arc<Vec<u8>>,
    /// What `ffmpeg -c copy -f mpegts` makes of the file: it packs anew, the same each time.
    pub remuxed: Arc<Vec<u8>>,
}

impl Material {
    /// Makes the file where it is not there yet; about `fed_seconds` of it will be fed.
    ///
    /// # Panics
    /// If ffmpeg cannot make it.
    pub fn prepare(test: &Alone, fed_seconds: usize) -> Self {
        let make = "-f lavfi -i testsrc2=size=640x360:rate=30:duration=8 \
                    -f lavfi -i sine=duration=8 -c:v libx264 -preset veryfast -bf 2 -g 30 \
                    -b:v 2500k -minrate 2500k -maxrate 2500k -bufsize 500k \
                    -x264-params nal-hrd=cbr:force-cfr=1 -c:a aac -muxrate 3000000 -f mpegts";
        let make: Vec<&str> = make.split_whitespace().collect();
        let file = clip(test, "matrix-8s.ts", &make);
        let again = test.folder().join("remuxed.ts");
        let (from, to) = (file.display().to_string(), again.display().to_string());
        let mut args = QUIET.to_vec();
        args.extend(["-y", "-i", &from]);
        args.extend(REMUX);
        args.push(&to);
        let (code, output) = run(test.folder(), "remux", "ffmpeg", &args, seconds(30));
        assert_eq!(code, Some(0), "ffmpeg cannot copy {from}: {output}");
        let read = |path: &PathBuf| std::fs::read(path).expect("a file just made can be read");
        let mut fed = read(&file);
        let most = fed_seconds * BITS_PER_SECOND as usize / 8;
        fed.truncate(most.min(fed.len()) / CHUNK * CHUNK);
        Material {
            fed: Arc::new(fed),
            remuxed: Arc::new(read(&again)),
            file,
        }
    }
}

impl Material {
    /// The bytes that a sender sends: as they are fed, or as ffmpeg packs them anew.
    pub fn sent(&self, remuxed: bool) -> &[u8] {
        if remuxed { &self.remuxed } else { &self.fed }
    }

    /// Whether `payload`, as the engine's statistics show it, is the beginning of what `peer`
    /// sends, without a gap.
    pub fn begins_with(&self, peer: Peer, payload: &Value) -> bool {
        let bytes = payload["bytes"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok());
        let first = bytes.and_then(|n| self.sent(peer == Peer::Ffmpeg).get(..n));
        payload["missing"] == 0 && first.is_some_and(|f| payload["sha256"] == *sha256(f))
    }
}

/// How ffmpeg copies the file, to a file as over SRT.
pub const REMUX: &[&str] = &["-c", "copy", "-f", "mpegts"];

/// SHA-256 as the engine shows it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
