//! Captured SRT traffic: the datagrams of a pcap file, what they say on the wire, and which
//! sessions they make up. Reads SRT on its own, without the engine, so that the engine can be
//! held against it; the replay tests and whatever prints facts of a capture use it.

pub mod facts;
pub mod pcap;
pub mod session;
pub mod wire;

use std::path::PathBuf;

/// The folder of the SRT captures and their facts.
pub fn srt_folder() -> PathBuf {
    crate::root().join("tests/vectors/srt")
}

/// The facts kept beside the SRT capture `name`.
///
/// # Panics
/// If there are none.
pub fn expected(name: &str) -> serde_json::Value {
    let path = srt_folder().join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// SHA-256, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
