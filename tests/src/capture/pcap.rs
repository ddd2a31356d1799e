//! The UDP datagrams of a capture, as a whole in memory. Called by whatever replays or prints a
//! capture.

use std::net::SocketAddr;
use std::path::Path;

use mirror_inspect::capture::Reader;
use mirror_inspect::capture::link::{Seen, datagram};

/// One UDP datagram of a capture.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its place in the file, from 1 on, as capture tools count.
    pub number: usize,
    /// µs since the file's first frame.
    pub at_us: u64,
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// UDP payload.
    pub datagram: Vec<u8>,
}

/// What a file held.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// All frames, UDP or not.
    pub packets: usize,
    /// µs from the first frame to the last.
    pub duration_us: u64,
    /// The UDP datagrams.
    pub frames: Vec<Frame>,
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, is no such file or ends inside a frame.
pub fn read(path: &Path) -> anyhow::Result<Capture> {
    let bytes = std::fs::read(path)?;
    parse(&bytes).map_err(|e| e.context(path.display().to_string()))
}

/// Reads the bytes of a file.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8]) -> anyhow::Result<Capture> {
    let mut reader = Reader::new(&bytes).map_err(anyhow::Error::msg)?;
    let mut capture = Capture::default();
    while let Some(record) = reader.read().map_err(anyhow::Error::msg)? {
        capture.packets += 1;
        capture.duration_us = record.at_ns / 1000;
        if let Seen::Datagram(datagram) = datagram(record.link, record.bytes) {
            capture.frames.push(Frame {
                number: capture.packets,
                at_us: capture.duration_us,
                from: datagram.from,
                to: datagram.to,
                datagram: datagram.payload.to_vec(),
            });
        }
    }
    Ok(capture)
}
