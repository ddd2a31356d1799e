//! Files that lie: cut anywhere, bytes changed, pieces left out. Whatever `inspect` finds in them,
//! it comes to an end, and a file is never worse than an error.

use mirror_inspect::{Options, inspect};

use crate::check::{all_lists, files, folder};

/// Numbers that look random (xorshift), the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn options() -> Options {
    Options {
        passphrase: Some("correct-horse-01".to_owned()),
        ..all_lists()
    }
}

fn look(name: &str, bytes: Vec<u8>) {
    if let Ok(report) = inspect(name, &bytes, &options()) {
        // It can be printed.
        assert!(report.json().is_object());
    }
}

fn torture(group: &str, wanted: impl Fn(&str) -> bool) {
    for name in files(group, wanted) {
        let whole = std::fs::read(folder(group).join(&name)).expect("readable");
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15 ^ whole.len() as u64);
        for round in 0..6 {
            let mut bytes = whole.clone();
            match round % 3 {
                0 => bytes.truncate(numbers.below(whole.len())),
                1 => {
                    for _ in 0..1 + whole.len() / 200 {
                        let at = numbers.below(bytes.len());
                        bytes[at] = numbers.below(256) as u8;
                    }
                }
                _ => {
                    let from = numbers.below(bytes.len());
                    let to = (from + numbers.below(3000)).min(bytes.len());
                    bytes.drain(from..to);
                }
            }
            look(&name, bytes);
        }
    }
}

#[test]
fn damaged_media_files_are_survived() {
    torture("media", |n| !n.ends_with(".json"));
}

#[test]
fn damaged_captures_are_survived() {
    for group in ["rtp", "srt"] {
        torture(group, |n| n.ends_with(".pcap"));
    }
}

#[test]
fn what_is_nothing_is_refused() {
    for bytes in [vec![], vec![0], vec![0; 5000], b"hello world".to_vec()] {
        assert!(inspect("x.bin", &bytes, &options()).is_err());
    }
    // Noise under a name that says more is an error in the report, or found out.
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let report = inspect("noise.ts", &noise, &options()).expect("read");
    assert!(!report.errors.is_empty());
}

#[test]
fn a_capture_of_a_link_that_is_not_read_says_so() {
    let word = |w: u32| w.to_le_bytes();
    // Link type 127: IEEE 802.11 with radiotap.
    let mut file: Vec<u8> = [0xA1B2_C3D4, 0x0004_0002, 0, 0, 65_535, 127]
        .map(word)
        .concat();
    for n in 0..3 {
        file.extend([n, 0, 40, 40].map(word).concat());
        file.extend([0; 40]);
    }
    let report = inspect("radio.pcap", &file, &options()).expect("read");
    let text = "none of 3 packets holds a UDP datagram (link type 127)";
    assert_eq!(report.errors, [text]);
    // What is cut inside a packet says that, with what came before.
    file.truncate(file.len() - 10);
    let report = inspect("radio.pcap", &file, &options()).expect("read");
    assert!(
        report.errors[0].contains("ends inside packet 3"),
        "{:?}",
        report.errors
    );
}

#[test]
fn ten_thousand_ssrcs_are_bounded() {
    let word = |w: u32| w.to_le_bytes();
    let mut file: Vec<u8> = [0xA1B2_C3D4, 0x0004_0002, 0, 0, 65_535, 101]
        .map(word)
        .concat();
    for n in 0..20_000_u32 {
        // Two packets of each source, so that it is a valid one.
        let (ssrc, sequence) = (n / 2, (n % 2) as u8);
        let mut packet = vec![
            0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2,
        ];
        packet.extend([0, 7, 0x13, 0x8C, 0, 40, 0, 0]);
        packet.extend([0x80, 96, 0, sequence, 0, 0, 0, 0]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0; 20]);
        let len = packet.len() as u32;
        for w in [n / 10_000, n % 10_000 * 100, len, len] {
            file.extend(word(w));
        }
        file.extend(packet);
    }
    let report = inspect("churn.pcap", &file, &options()).expect("read");
    assert!(report.rtp.len() <= 256, "{}", report.rtp.len());
    assert!(report.errors.iter().any(|e| e.contains("more sources")));
}
