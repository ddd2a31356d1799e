//! What the tests of this room share: vectors, captures, SHA-256.

use core::net::{Ipv4Addr, SocketAddr};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/");

/// A vector file.
pub(crate) fn vectors(name: &str) -> serde_json::Value {
    let path = format!("{VECTORS}{name}");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_slice(&text).unwrap()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// One UDP datagram of a capture.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// µs since the capture's first frame.
    pub(crate) at_us: u64,
    pub(crate) from: SocketAddr,
    pub(crate) datagram: Vec<u8>,
}

/// The UDP over IPv4 over Ethernet frames of a classic pcap file.
pub(crate) fn capture(name: &str) -> Vec<Frame> {
    let path = format!("{VECTORS}srt/{name}.pcap");
    let file = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let nanos = match u32_at(0) {
        0xA1B2_C3D4 => false,
        0xA1B2_3C4D => true,
        magic => panic!("{magic:08x}"),
    };
    let (mut at, mut frames, mut start) = (24, Vec::new(), None);
    while at + 16 <= file.len() {
        let fraction = u64::from(u32_at(at + 4)) / if nanos { 1000 } else { 1 };
        let time = u64::from(u32_at(at)) * 1_000_000 + fraction;
        let len = u32_at(at + 8) as usize;
        let frame = &file[at + 16..at + 16 + len];
        at += 16 + len;
        let ip = &frame[14..];
        assert_eq!((ip[0] >> 4, ip[9]), (4, 17), "UDP over IPv4");
        let udp = &ip[usize::from(ip[0] & 15) * 4..];
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let len = usize::from(port(4));
        frames.push(Frame {
            at_us: time - *start.get_or_insert(time),
            from: (address(12), port(0)).into(),

            datagram: udp[8..len].to_vec(),
        });
    }
    frames
}

/// A small generator: no dependency, the same sequence each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn per_mille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// SHA-256 in hex (FIPS 180-4), to compare payloads with the facts of captures.
pub(crate) fn sha256(data: &[u8]) -> String {
    let primes = (2u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    let fraction = |root: f64| (root.fract() * 4_294_967_296.0) as u32;
    let first: Vec<f64> = primes.take(64).map(|p| p as f64).collect();
    let k: Vec<u32> = first.iter().map(|p| fraction(p.cbrt())).collect();
    let mut h: Vec<u32> = first[..8].iter().map(|p| fraction(p.sqrt())).collect();
    let mut message = data.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((data.len() as u64 * 8).to_be_bytes());
    for block in message.chunks(64) {
        let mut w: Vec<u32> = block
            .chunks(4)
            .map(|c| u32::from_be_bytes(c.try_into().unwrap()))
            .collect();
        for i in 16..64 {
            let a = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let b = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w.push(
                w[i - 16]
                    .wrapping_add(a)
                    .wrapping_add(w[i - 7])
                    .wrapping_add(b),
            );
        }
        let mut v = h.clone();
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let sum = [s1, choice, k[i], w[i]]
                .iter()
                .fold(v[7], |a, b| a.wrapping_add(*b));
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(sum);
            v[0] = sum.wrapping_add(s0).wrapping_add(majority);
        }
        for (a, b) in h.iter_mut().zip(v) {
            *a = a.wrapping_add(b);
        }
    }
    h.iter().map(|word| format!("{word:08x}")).collect()
}

#[test]
fn sha256_of_abc() {
    assert!(sha256(b"abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
}
