//! Wire-format vectors.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::ack::AckCif;
use super::loss::{LossRanges, write_range};
use super::*;
use crate::test_support::{hex, vectors};
use mirror_base::PacketSequenceNumber;

fn number(value: &serde_json::Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn sequence_arithmetic_follows_the_vectors() {
    let v = vectors("srt_sequence_arithmetic.json");
    let s = PacketSequenceNumber::new;
    for row in v["offset_from_a_to_b"].as_array().unwrap() {
        let off = i64::from(s(number(&row["a"])).distance_to(s(number(&row["b"]))));
        assert_eq!(off, row["off"].as_i64().unwrap(), "{row}");
    }
    for row in v["compare"].as_array().unwrap() {
        let sign = -i64::from(s(number(&row["a"])).distance_to(s(number(&row["b"])))).signum();
        assert_eq!(sign, row["sign"].as_i64().unwrap(), "{row}");
    }
    for row in v["inc"].as_array().unwrap() {
        assert_eq!(
            s(number(&row["a"])).plus(number(&row["n"])).get(),
            number(&row["r"])
        );
    }
    for row in v["dec"].as_array().unwrap() {
        let n = number(&row["n"]).wrapping_neg();
        assert_eq!(s(number(&row["a"])).plus(n).get(), number(&row["r"]));
    }
    let messages = &v["message_number"];
    assert_eq!(MESSAGE_MASK, number(&messages["last"]));
    for row in v["length_inclusive"].as_array().unwrap() {
        let distance = s(number(&row["first"])).distance_to(s(number(&row["last"])));
        assert_eq!(distance + 1, row["n"].as_i64().unwrap() as i32);
    }
}

#[test]
fn loss_lists_follow_the_vectors_in_both_directions() {
    let v = vectors("srt_loss_lists.json");
    for row in v["synthetic"].as_array().unwrap() {
        let cif = hex(row["cif"].as_str().unwrap());
        let expected: Vec<(u32, u32)> = row["ranges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (number(&r[0]), number(&r[1])))
            .collect();
        let ranges: Vec<(u32, u32)> = LossRanges::new(&cif)
            .map(|r| r.unwrap())
            .map(|(a, b)| (a.get(), b.get()))
            .collect();
        assert_eq!(ranges, expected);
        let mut out = [0; 64];
        let mut writer = Writer::bare(&mut out);
        for (a, b) in LossRanges::new(&cif).map(|r| r.unwrap()) {
            assert!(write_range(&mut writer, 64, a, b));
        }
        let len = writer.finish();
        assert_eq!(&out[..len], &cif[..]);
    }
    for row in v["malformed"].as_array().unwrap() {
        let cif = hex(row["cif"].as_str().unwrap());
        assert!(LossRanges::new(&cif).any(|r| r.is_err()), "{row}");
    }
    for row in v["from_captures"].as_array().unwrap() {
        let datagram = hex(row["datagram"].as_str().unwrap());
        let (header, cif) = Header::parse(&datagram).unwrap();
        if row["type"] == "NAK" {
            assert_eq!(header.control(), Control::Nak);
            assert!(LossRanges::new(cif).all(|r| r.is_ok()), "{row}");
            let words: Vec<u64> = cif
                .chunks(4)
                .map(|c| u64::from(u32::from_be_bytes(c.try_into().unwrap())))
                .collect();
            let expected: Vec<u64> = row["words"]
                .as_array()
                .unwrap()
                .iter()
                .map(|w| w.as_u64().unwrap())
                .collect();
            assert_eq!(words, expected);
        } else {
            assert_eq!(header.control(), Control::DropRequest);
        }
    }
}

#[test]
fn a_loss_list_never_grows_beyond_its_packet() {
    let mut out = [0; 1500];
    let s = PacketSequenceNumber::new;
    let mut writer = Writer::packet(
        &mut out,
        Header {
            word0: Control::Nak.word0(),
            word1: 0,
            timestamp: 0,
            destination: 1,
        },
    );
    let written = (0..1000)
        .take_while(|i| write_range(&mut writer, 1472, s(i * 4), s(i * 4 + 1)))
        .count();
    assert_eq!(written, (1472 - 16) / 8);
    assert!(writer.finish() <= 1472);
}

#[test]
fn ack_forms_follow_the_vectors() {
    let v = vectors("srt_ack.json");
    for row in v["from_captures"].as_array().unwrap() {
        let datagram = hex(row["datagram"].as_str().unwrap());
        let (header, cif) = Header::parse(&datagram).unwrap();
        if row["kind"] == "ackack" {
            assert_eq!(header.control(), Control::AckAck);
            assert_eq!(header.word1, number(&row["ack_number"]));
            continue;
        }
        assert_eq!(header.control(), Control::Ack);
        let ack = AckCif::parse(cif).unwrap();
        assert_eq!(ack.sequence.get(), number(&row["last_ack_seq"]));
        assert_eq!(ack.light, row["kind"] == "light");
        assert_eq!(header.word1, number(&row["ack_number"]));
        if row["kind"] == "small" {
            let rtt = (number(&row["rtt_us"]), number(&row["rttvar_us"]));
            assert_eq!(ack.rtt_us, Some(rtt));
            assert_eq!(ack.available, Some(number(&row["avail_buffer_pkts"])));
            assert_eq!(ack.rates_pps, None);
        }
        if row["kind"] == "full" {
            assert_eq!(
                ack.rtt_us,
                Some((number(&row["rtt_us"]), number(&row["rttvar_us"])))
            );
            assert_eq!(ack.available, Some(number(&row["avail_buffer_pkts"])));
            assert_eq!(
                ack.rates_pps,
                Some((
                    number(&row["recv_rate_pps"]),
                    number(&row["link_capacity_pps"])
                ))
            );
            let full = super::ack::FullAck {
                sequence: ack.sequence,
                rtt_us: number(&row["rtt_us"]),
                rtt_var_us: number(&row["rttvar_us"]),
                available: number(&row["avail_buffer_pkts"]),
                rate_pps: number(&row["recv_rate_pps"]),
                capacity_pps: number(&row["link_capacity_pps"]),
                rate_bytes: number(&row["recv_rate_Bps"]),
            };
            let mut out = [0; 64];
            let mut writer = Writer::packet(&mut out, header);
            full.write(&mut writer);
            let len = writer.finish();
            assert_eq!(&out[..len], &datagram[..]);
        }
    }
}

#[test]
fn other_control_packets_are_recognised() {
    let v = vectors("srt_other_control.json");
    for row in v.as_array().unwrap() {
        let datagram = hex(row["datagram"].as_str().unwrap());
        let (header, _) = Header::parse(&datagram).unwrap();
        let expected = match row["type"].as_str().unwrap() {
            "EXT" => Control::Extension,
            "KEEPALIVE" => Control::Keepalive,
            "SHUTDOWN" => Control::Shutdown,
            other => panic!("{other}"),
        };
        assert_eq!(header.control(), expected);
        assert_eq!(header.word0 & 0xFFFF, number(&row["subtype"]));
        assert_eq!(header.word1, number(&row["info"]));
    }
}
