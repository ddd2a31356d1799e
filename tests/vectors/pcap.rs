//! Reads the UDP datagrams of a classic little-endian pcap file of Ethernet frames: for tests,
//! which include it by path.

/// A UDP datagram of a capture.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// Microseconds since the first packet of the file.
    pub(crate) micros: u64,
    /// Destination port.
    pub(crate) port: u16,
    /// UDP payload.
    pub(crate) payload: Vec<u8>,
}

/// The datagrams of `tests/vectors/rtp/<name>.pcap`.
pub(crate) fn datagrams(name: &str) -> Vec<Datagram> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join(format!("tests/vectors/rtp/{name}.pcap")))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no capture {name}"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(0), 0xA1B2_C3D4, "{name}: little-endian, microseconds");
    let (mut at, mut first, mut out) = (24, None, Vec::new());
    while at + 16 <= bytes.len() {
        let micros = u64::from(word(at)) * 1_000_000 + u64::from(word(at + 4));
        let length = word(at + 8) as usize;
        let frame = &bytes[at + 16..at + 16 + length];
        at += 16 + length;
        // Ethernet, IPv4, UDP.
        if frame[12..14] != [8, 0] || frame[23] != 17 {
            continue;
        }
        let udp = &frame[14 + usize::from(frame[14] & 15) * 4..];
        let port = u16::from_be_bytes([udp[2], udp[3]]);
        let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        let micros = micros - *first.get_or_insert(micros);
        out.push(Datagram {
            micros,
            port,
            payload: udp[8..length].to_vec(),
        });
    }
    out
}
