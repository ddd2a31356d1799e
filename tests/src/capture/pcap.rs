//! Classic pcap files of Ethernet frames, micro- or nanoseconds, either byte order: the UDP
//! datagrams over IPv4 in them. Called by whatever replays or prints a capture.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

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

const MICROS: u32 = 0xA1B2_C3D4;
const NANOS: u32 = 0xA1B2_3C4D;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: u32 = 1;

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
    let magic = word(bytes, 0, false);
    let swapped = matches!(magic.map(u32::swap_bytes), Some(MICROS | NANOS));
    let unit = match word(bytes, 0, swapped) {
        Some(MICROS) => 1,
        Some(NANOS) => 1000,
        _ => anyhow::bail!("no pcap file"),
    };
    anyhow::ensure!(
        word(bytes, 20, swapped) == Some(ETHERNET),
        "not Ethernet frames"
    );
    let mut capture = Capture::default();
    let (mut at, mut start) = (FILE_HEADER, None);
    while at < bytes.len() {
        let field = |i: usize| word(bytes, at + 4 * i, swapped);
        let (Some(seconds), Some(fraction), Some(len)) = (field(0), field(1), field(2)) else {
            anyhow::bail!("ends inside a record's header");
        };
        let time = u64::from(seconds) * 1_000_000 + u64::from(fraction) / unit;
        let begin = at + RECORD_HEADER;
        let Some(frame) = bytes.get(begin..begin + len as usize) else {
            anyhow::bail!("ends inside a frame");
        };
        at = begin + len as usize;
        capture.packets += 1;
        capture.duration_us = time - *start.get_or_insert(time);
        if let Some((from, to, datagram)) = udp(frame) {
            capture.frames.push(Frame {
                number: capture.packets,
                at_us: capture.duration_us,
                from,
                to,
                datagram: datagram.to_vec(),
            });
        }
    }
    Ok(capture)
}

fn word(bytes: &[u8], at: usize, swapped: bool) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(if swapped {
        u32::from_be_bytes(four)
    } else {
        u32::from_le_bytes(four)
    })
}

/// Source, destination and payload of an Ethernet frame with UDP over IPv4 in it.
fn udp(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let ip = frame.get(14..)?;
    if frame[12..14] != [8, 0] || ip.len() < 20 || ip[9] != 17 {
        return None;
    }
    let udp = ip.get(usize::from(ip[0] & 15) * 4..)?;
    let short = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let payload = udp.get(8..usize::from(short(4)?))?;
    let from = (address(12), short(0)?).into();
    Some((from, (address(16), short(2)?).into(), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(magic: u32, fraction: u32) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([127, 0, 0, 1, 127, 0, 0, 2, 0, 7, 0, 9, 0, 10, 0, 0]);
        frame.extend([0xAA, 0xBB]);
        let mut bytes: Vec<u8> = [magic, 0x0004_0002, 0, 0, 65535, 1]
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        for seconds in [5u32, 6] {
            for w in [seconds, fraction, frame.len() as u32, frame.len() as u32] {
                bytes.extend(w.to_le_bytes());
            }
            bytes.extend(&frame);
        }
        bytes
    }

    #[test]
    fn datagrams_come_with_their_time_and_addresses() {
        for (magic, fraction) in [(MICROS, 250), (NANOS, 250_000)] {
            let capture = parse(&file(magic, fraction)).expect("a pcap file");
            assert_eq!((capture.packets, capture.duration_us), (2, 1_000_000));
            let last = &capture.frames[1];
            assert_eq!((last.number, last.at_us), (2, 1_000_000));
            assert_eq!(last.from.to_string(), "127.0.0.1:7");
            assert_eq!(last.to.to_string(), "127.0.0.2:9");
            assert_eq!(last.datagram, [0xAA, 0xBB]);
        }
    }

    #[test]
    fn cut_and_foreign_files_are_refused() {
        let whole = file(MICROS, 0);
        assert!(parse(&whole[..whole.len() - 1]).is_err());
        assert!(parse(&whole[..30]).is_err());
        assert!(parse(b"RIFF").is_err());
        assert!(parse(&[]).is_err());
    }
}
