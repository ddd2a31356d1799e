//! Captures whose datagrams came in IP fragments hold what the same captures hold without.

use mirror_inspect::{Options, inspect};
use serde_json::Value;

use crate::check::{all_lists, folder};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Bytes of a fragment, a multiple of eight.
const PIECE: usize = 520;

/// The packet of a record in pieces of IPv4 or of IPv6, last one first.
fn divided(packet: &[u8], id: u16, as_v6: bool) -> Vec<Vec<u8>> {
    let (ethernet, ip) = packet.split_at(ETHERNET);
    let (head, content) = ip.split_at(IPV4);
    let count = content.chunks(PIECE).count();
    let piece = |(n, piece): (usize, &[u8])| {
        let more = u16::from(n + 1 < count);
        let place = (n * PIECE) as u16;
        if as_v6 {
            let mut v6 = [&ethernet[..12], &[0x86, 0xDD, 0x60, 0, 0, 0]].concat();
            v6.extend((8 + piece.len() as u16).to_be_bytes());
            v6.extend([44, 64]);
            for address in [&head[12..16], &head[16..20]] {
                v6.extend([0xFD; 12]);
                v6.extend(address);
            }
            v6.extend([17, 0]);
            v6.extend((place | more).to_be_bytes());
            v6.extend(u32::from(id).to_be_bytes());
            v6.extend(piece);
            return v6;
        }
        let mut head = head.to_vec();
        head[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
        head[4..6].copy_from_slice(&id.to_be_bytes());
        head[6..8].copy_from_slice(&((place / 8) | (more << 13)).to_be_bytes());
        [ethernet, &head, piece].concat()
    };
    content.chunks(PIECE).enumerate().map(piece).rev().collect()
}

/// The capture with every datagram divided.
fn divided_capture(bytes: &[u8], as_v6: bool) -> Vec<u8> {
    let (header, mut rest) = bytes.split_at(FILE_HEADER);
    let mut out = header.to_vec();
    let mut id = 0;
    while !rest.is_empty() {
        let (record, after) = rest.split_at(RECORD_HEADER);
        let length = u32::from_le_bytes(record[8..12].try_into().expect("four bytes"));
        let (packet, after) = after.split_at(length as usize);
        rest = after;
        id += 1;
        for piece in divided(packet, id, as_v6) {
            let length = (piece.len() as u32).to_le_bytes();
            out.extend(&record[..8]);
            out.extend([length, length].concat());
            out.extend(piece);
        }
    }
    out
}

/// Empties what must differ: addresses, and numbers of packets.
fn forget(value: &mut Value) {
    let addresses = ["caller", "listener", "address", "packet", "from", "to"];
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if addresses.contains(&key.as_str()) {
                    *value = Value::Null;
                }
                forget(value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(forget),
        _ => {}
    }
}

fn facts(name: &str, bytes: &[u8], passphrase: &str) -> Value {
    let options = Options {
        passphrase: Some(passphrase.to_owned()),
        ..all_lists()
    };
    let report = inspect(name, &bytes, &options).expect("a capture");
    let mut facts = report.json();
    let capture = facts["capture"].take();
    let whole = capture["datagrams"] == capture["packets"];
    assert_eq!(whole, capture["ip_fragments"] == 0, "{capture}");
    assert_eq!(capture["incomplete"], 0);
    // Sentences with addresses in them.
    facts["findings"] = Value::Null;
    forget(&mut facts);
    facts
}

#[test]
fn what_came_in_ip_fragments_is_what_came_whole() {
    for (group, name) in [
        ("srt", "srt03_aes128.pcap"),
        ("srt", "srt30_loss_nak_rexmit_rcvleg.pcap"),
        ("rtp", "rtp35_gst_mp2t.pcap"),
        ("rtp", "rtp46_st2022-7_two_paths_mp2t_rcv.pcap"),
    ] {
        let bytes = std::fs::read(folder(group).join(name)).expect("readable");
        let whole = facts(name, &bytes, "correct-horse-01");
        for as_v6 in [false, true] {
            let pieces = divided_capture(&bytes, as_v6);
            assert!(pieces.len() > bytes.len());
            let found = facts(name, &pieces, "correct-horse-01");
            assert_eq!(found["errors"], whole["errors"], "{name}");
            assert_eq!(found, whole, "{name} {as_v6}");
        }
    }
}

#[test]
fn datagrams_of_which_pieces_are_missing_are_told() {
    let name = "rtp35_gst_mp2t.pcap";
    let bytes = std::fs::read(folder("rtp").join(name)).expect("readable");
    // Without every third piece.
    let whole = divided_capture(&bytes, false);
    let (header, mut rest) = whole.split_at(FILE_HEADER);
    let mut out = header.to_vec();
    let mut n = 0;
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes"));
        let (record, after) = rest.split_at(RECORD_HEADER + length as usize);
        n += 1;
        if n % 3 != 0 {
            out.extend(record);
        }
        rest = after;
    }
    let report = inspect(name, &out, &Options::default()).expect("a capture");
    let text = "datagrams came in IP fragments of which some are missing";
    assert!(
        report.errors.iter().any(|e| e.ends_with(text)),
        "{:?}",
        report.errors
    );
}
