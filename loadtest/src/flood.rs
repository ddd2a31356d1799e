//! Bad input at a steady rate: random bytes, valid packets cut short, valid packets with some
//! bits changed. Seeded, so that what breaks an engine can be sent again. Only for the engine on
//! one's own host, unless one insists.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use clap::ValueEnum;

use crate::content::Noise;
use crate::process;

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// 0 to 1500 random bytes.
    Random,
    /// Valid SRT and RTP packets, cut short.
    Truncated,
    /// Valid SRT and RTP packets, handshakes among them, with 1 to 8 bytes changed.
    Mutated,
}

/// Reads `udp://host:port`; other hosts than this one only if `anywhere`.
pub fn target(url: &str, anywhere: bool) -> Result<SocketAddr, String> {
    let authority = url
        .strip_prefix("udp://")
        .ok_or_else(|| format!("--target {url}: must be udp://host:port"))?;
    let mut addresses = authority
        .to_socket_addrs()
        .map_err(|e| format!("--target {url}: {e}"))?;
    let address = addresses
        .next()
        .ok_or_else(|| format!("--target {url}: no address"))?;
    if !address.ip().is_loopback() && !anywhere {
        return Err(format!(
            "--target {url}: {} is not a loopback address; --i-know-what-i-do floods it nevertheless",
            address.ip()
        ));
    }
    Ok(address)
}

/// Makes the datagrams.
#[derive(Debug)]
pub struct Maker {
    kind: Kind,
    noise: Noise,
    valid: Vec<Vec<u8>>,
}

impl Maker {
    /// The same seed gives the same datagrams.
    pub fn new(kind: Kind, seed: u64) -> Self {
        Maker {
            kind,
            noise: Noise::new(seed),
            valid: valid_packets(),
        }
    }

    /// Writes the next datagram over `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        out.clear();
        if self.kind == Kind::Random {
            let length = self.noise.below(1501) as usize;
            while out.len() < length {
                out.extend_from_slice(&self.noise.next_u64().to_le_bytes());
            }
            out.truncate(length);
            return;
        }
        let choice = self.noise.below(self.valid.len() as u64) as usize;
        out.extend_from_slice(&self.valid[choice]);
        if self.kind == Kind::Truncated {
            out.truncate(self.noise.below(out.len() as u64) as usize);
            return;
        }
        for _ in 0..=self.noise.below(8) {
            // the headers are where it may hurt: half of the changes go there
            let range = if self.noise.below(2) == 0 {
                out.len().min(64)
            } else {
                out.len()
            };
            let at = self.noise.below(range as u64) as usize;
            out[at] = match self.noise.below(4) {
                0 => 0,
                1 => 0xFF,
                2 => out[at] ^ 1 << self.noise.below(8),
                _ => self.noise.next_u64() as u8,
            };
        }
    }
}

fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// An SRT handshake (draft-sharabayko-srt-01, 3.2.1) to socket ID 0.
fn handshake(version: u32, extension: u32, kind: u32, cookie: u32, extensions: &[u32]) -> Vec<u8> {
    let mut list = vec![
        0x8000_0000,
        0,
        1_000,
        0,
        version,
        extension,
        12_345,
        1_500,
        8_192,
        kind,
        0x0102_0304,
        cookie,
    ];
    list.extend_from_slice(&[0x0100_007F, 0, 0, 0]);
    list.extend_from_slice(extensions);
    words(&list)
}

/// One of each kind of packet that an engine's ports know.
fn valid_packets() -> Vec<Vec<u8>> {
    // HSREQ 1.5.1 with usual flags and 120 ms; stream ID "live/cam1", each word reversed (3.2.1.3)
    let stream_id = [0x0005_0003, 0x6576_696C, 0x6D61_632F, 0x0000_0031];
    let mut extensions = vec![0x0001_0003, 0x0001_0501, 0x0000_00BF, 0x0078_0078];
    extensions.extend_from_slice(&stream_id);
    let id = 0x1234_5678;
    let control = |kind: u32, info: u32, body: &[u32]| {
        let mut list = vec![0x8000_0000 | kind << 16, info, 5_000, id];
        list.extend_from_slice(body);
        words(&list)
    };
    let mut data = words(&[12_345, 0xE000_0001, 6_000, id]);
    data.resize(16 + 1_316, 0x47);
    let rtp = |payload_type: u8, payload: &[u8]| {
        let mut packet = vec![
            0x80,
            payload_type,
            0,
            7,
            0,
            0,
            0x10,
            0,
            0xCA,
            0xFE,
            0xBA,
            0xBE,
        ];
        packet.extend_from_slice(payload);
        packet
    };
    let mut fragment = vec![0x7C, 0x85];
    fragment.resize(1_300, 0xA5);
    let mut aggregate = vec![0x78, 0, 4, 0x67, 100, 0, 40, 0, 4];
    aggregate.extend_from_slice(&[0x68, 0xEE, 0x3C, 0x80]);
    let mut hevc = vec![49 << 1, 1, 0x80 | 19];
    hevc.resize(1_300, 0x5A);
    let mut ts = vec![0x47; 1_316];
    ts.iter_mut().skip(1).step_by(188).for_each(|b| *b = 0x1F);
    vec![
        handshake(4, 2, 1, 0, &[]),
        handshake(5, 0x0005, 0xFFFF_FFFF, 0xDEAD_BEEF, &extensions),
        data,
        control(1, 0, &[]),
        control(
            2,
            1,
            &[12_346, 50_000, 5_000, 8_000, 4_700, 90_000, 6_200_000],
        ),
        control(3, 0, &[0x8000_3039, 0x0000_3040, 0x0000_3050]),
        control(5, 0, &[0]),
        control(6, 1, &[]),
        control(7, 1, &[12_000, 12_003]),
        control(0x7FFF, 3, &[0x0000_0001; 8]),
        rtp(33, &ts),
        rtp(96, &fragment),
        rtp(0x80 | 96, &aggregate),
        rtp(97, &hevc),
        vec![
            0x80, 200, 0, 6, 0xCA, 0xFE, 0xBA, 0xBE, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0,
            4, 0, 0, 0, 5,
        ],
        vec![0x81, 203, 0, 1, 0xCA, 0xFE, 0xBA, 0xBE],
    ]
}

/// Sends `count` datagrams at `rate` a second; returns what was sent, as JSON.
pub fn run(
    target: SocketAddr,
    kind: Kind,
    rate: u64,
    count: u64,
    seed: u64,
) -> io::Result<serde_json::Value> {
    let any: SocketAddr = if target.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    // several senders, as the engine's tables of peers shall have something to do
    let sockets = (0..16)
        .map(|_| UdpSocket::bind(any))
        .collect::<io::Result<Vec<_>>>()?;
    let mut maker = Maker::new(kind, seed);
    let mut datagram = Vec::with_capacity(2_048);
    process::sharpen_timers();
    let start = process::monotonic();
    let (mut sent, mut bytes, mut refused) = (0u64, 0u64, 0u64);
    while sent < count {
        let elapsed = process::monotonic().saturating_since(start).as_nanos();
        let due = u64::try_from(elapsed * u128::from(rate) / 1_000_000_000)
            .unwrap_or(u64::MAX)
            .min(count);
        while sent < due {
            maker.next(&mut datagram);
            let socket = &sockets[(sent / 7) as usize % sockets.len()];
            // a refusal (nobody listens, no buffer) is counted and does not end the flood
            match socket.send_to(&datagram, target) {
                Ok(n) => bytes += n as u64,
                Err(_) => refused += 1,
            }
            sent += 1;
        }
        process::sleep_until(process::monotonic() + Duration::from_micros(500));
    }
    let seconds = process::monotonic().saturating_since(start).as_secs_f64();
    Ok(
        serde_json::json!({ "datagrams": sent, "bytes": bytes, "refused": refused, "seconds": seconds, "rate": sent as f64 / seconds }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_flooded_unless_one_insists() {
        assert!(target("udp://127.0.0.1:30000", false).is_ok());
        assert!(target("udp://[::1]:30000", false).is_ok());
        assert!(
            target("udp://192.0.2.1:30000", false)
                .unwrap_err()
                .contains("not a loopback")
        );
        assert!(target("udp://192.0.2.1:30000", true).is_ok());
        assert!(target("127.0.0.1:30000", false).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_datagrams() {
        for kind in [Kind::Random, Kind::Truncated, Kind::Mutated] {
            let (mut a, mut b) = (Maker::new(kind, 7), Maker::new(kind, 7));
            let (mut x, mut y, mut different) = (Vec::new(), Vec::new(), false);
            let mut other = Maker::new(kind, 8);
            let mut z = Vec::new();
            for _ in 0..1_000 {
                a.next(&mut x);
                b.next(&mut y);
                other.next(&mut z);
                assert_eq!(x, y);
                assert!(x.len() <= 1_500);
                different |= x != z;
            }
            assert!(different);
        }
    }

    #[test]
    fn a_small_flood_arrives() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = run(
            receiver.local_addr().unwrap(),
            Kind::Mutated,
            100_000,
            200,
            1,
        )
        .unwrap();
        assert_eq!(sent["datagrams"], 200);
        assert_eq!(sent["refused"], 0);
    }
}
