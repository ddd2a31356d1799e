//! Configured sessions over real captures in virtual time: retransmission, FEC, two paths and
//! restarts, held against their known facts byte for byte.

#[path = "../../../tests/vectors/pcap.rs"]
mod pcap;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use mirror_base::{Instant, SlotRing};
use mirror_rtp::media::{
    FecLimits, Feedback, MediaEvent, Origin, PayloadType, Role, RtcpConfig, RtxType,
};
use mirror_rtp::{Media, MediaConfig, is_rtcp};
use pcap::Datagram;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn json(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/vectors/rtp/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).expect("vector")).expect("JSON")
}

fn config(payload_type: u8) -> MediaConfig {
    MediaConfig {
        payload_types: vec![PayloadType {
            number: payload_type,
            clock_rate: 90_000,
        }],
        jitter_buffer: Duration::from_millis(500),
        ..MediaConfig::default()
    }
}

struct Run {
    media: Media,
    /// Whole packets, as delivered.
    packets: Vec<Vec<u8>>,
    lost: u64,
    discontinuities: usize,
    events: Vec<MediaEvent>,
}

impl Run {
    fn drain(&mut self, now: Instant, ring: &mut SlotRing) {
        while let Some(d) = self.media.poll_delivery(now, ring) {
            self.packets
                .push(ring.get_packet(d.slot).expect("there").to_vec());
            self.lost += u64::from(d.lost_before);
            self.discontinuities += usize::from(d.discontinuity);
        }
        ring.release_before(self.media.release_index());
        let mut out = [0; 1500];
        while self.media.poll_transmit(now, &mut out).is_some() {}
        while let Some(event) = self.media.poll_event() {
            self.events.push(event);
        }
    }

    fn sequences(&self) -> Vec<u16> {
        self.packets
            .iter()
            .map(|p| u16::from_be_bytes([p[2], p[3]]))
            .collect()
    }
}

/// Hands in the datagrams for which `place` tells path and role; RTCP goes by itself.
fn replay(
    datagrams: &[Datagram],
    config: MediaConfig,
    mut place: impl FnMut(usize, &Datagram) -> Option<(u8, Role)>,
) -> Run {
    let mut ring = SlotRing::with_owned_chunks(64);
    let mut now = Instant::ZERO;
    let mut run = Run {
        media: Media::new(now, config, 0),
        packets: Vec::new(),
        lost: 0,
        discontinuities: 0,
        events: Vec::new(),
    };
    for (i, datagram) in datagrams.iter().enumerate() {
        now = Instant::from_micros(datagram.micros);
        while let Some(due) = run.media.poll_timeout().filter(|due| *due <= now) {
            run.media.handle_timeout(due);
            run.drain(due, &mut ring);
        }
        let Some((leg, role)) = place(i, datagram) else {
            continue;
        };
        let from = "127.0.0.1:40000".parse().expect("an address");
        let origin = Origin { leg, role, from };
        // What is refused shows in the figures.
        let _ = if is_rtcp(&datagram.payload) {
            run.media
                .handle_rtcp(now, now, leg, from, &datagram.payload)
        } else {
            run.media
                .handle_rtp(now, now, &origin, &datagram.payload, &mut ring)
        };
        run.drain(now, &mut ring);
    }
    now += Duration::from_secs(1);
    run.media.handle_timeout(now);
    run.drain(now, &mut ring);
    run.media.close(now);
    run.drain(now, &mut ring);
    assert!(run.media.is_drained());
    run
}

fn by_sequence(datagrams: &[Datagram], port: u16, payload_type: u8) -> BTreeMap<u16, Vec<u8>> {
    datagrams
        .iter()
        .filter(|d| d.port == port && d.payload[1] & 0x7F == payload_type)
        .map(|d| {
            let sequence = u16::from_be_bytes([d.payload[2], d.payload[3]]);
            (sequence, d.payload.clone())
        })
        .collect()
}

#[test]
fn retransmissions_of_a_real_sender_are_put_where_they_belong() {
    let sender = pcap::datagrams("rtp40_gst_nack_rtx_h264_sndleg");
    let sent = by_sequence(&sender, 10_400, 96);
    let datagrams = pcap::datagrams("rtp40_gst_nack_rtx_h264_rcvleg");
    let facts = json("rtp40_gst_nack_rtx_h264_rcvleg");
    let missing = facts["streams"][0]["missing_seq"]
        .as_array()
        .expect("list")
        .len();
    let repeated = facts["streams"][1]["distinct"].as_u64().expect("number");
    let config = MediaConfig {
        rtx: vec![RtxType {
            number: 97,
            apt: 96,
        }],
        feedback: Feedback {
            nack: true,
            ..Feedback::default()
        },
        rtcp: Some(RtcpConfig::default()),
        ..config(96)
    };
    let run = replay(&datagrams, config, |_, d| {
        (d.port == 10_500 || is_rtcp(&d.payload)).then_some((0, Role::Media))
    });
    let s = run.media.statistics();
    assert_eq!(s.recovered_rtx, repeated);
    assert_eq!(s.rtx_received, repeated);
    assert_eq!(s.source.packets_lost, missing as u64);
    assert_eq!(s.source.packets_dropped, missing as u64 - repeated);
    assert_eq!(run.lost, missing as u64 - repeated);
    for packet in &run.packets {
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        assert_eq!(&sent[&sequence], packet, "{sequence}");
    }
    assert_eq!(run.packets.len() as u64, 106 + repeated);
    // Sender reports: five of the media, or of both streams.
    assert_eq!(s.rtcp.sr, facts["rtcp_counts"]["SR"].as_u64().expect("SR"));
    assert_eq!(
        s.rtcp.rtpfb,
        facts["rtcp_counts"]["NACK"].as_u64().expect("NACK")
    );
    assert!(s.source.sender_reports > 0);
}

fn fec_role(d: &Datagram, port: u16) -> Option<Role> {
    match d.port.checked_sub(port)? {
        0 => Some(Role::Media),
        2 => Some(Role::FecColumn),
        4 => Some(Role::FecRow),
        _ => None,
    }
}

#[test]
fn each_packet_of_a_real_matrix_is_rebuilt_bit_by_bit() {
    for (name, port, columns, rows, has_rows) in [
        ("rtp44_gst_st2022-1_fec_5x4_mp2t", 10_440, 5u16, 4u16, true),
        (
            "rtp45_gst_st2022-1_fec_4x3_columns_only",
            10_450,
            4,
            3,
            false,
        ),
    ] {
        let datagrams = pcap::datagrams(name);
        let sent = by_sequence(&datagrams, port, 33);
        let first = *sent.keys().next().expect("packets");
        let size = columns * rows;
        let whole = sent.len() as u16 / size * size;
        let config = MediaConfig {
            fec: Some(FecLimits::default()),
            ..config(33)
        };
        let untouched = replay(&datagrams, config.clone(), |_, d| {
            Some((0, fec_role(d, port)?))
        });
        let s = untouched.media.statistics();
        assert_eq!((s.recovered_fec, s.source.packets_lost), (0, 0), "{name}");
        assert_eq!((s.fec_refused, untouched.packets.len()), (0, sent.len()));
        // Each alone, and patterns that take several passes.
        let mut patterns: Vec<BTreeSet<u16>> = (2..whole).map(|n| [n].into()).collect();
        patterns.push((3..3 + columns).collect());
        if has_rows {
            // Three corners of a rectangle; a column and a row crossed.
            patterns.push([6, 8, 11].into());
            patterns.push([5, 6, 7, 8, 12].into());
        }
        for pattern in patterns {
            let lost: BTreeSet<u16> = pattern.iter().map(|n| first + n).collect();
            let run = replay(&datagrams, config.clone(), |_, d| {
                let sequence = u16::from_be_bytes([d.payload[2], d.payload[3]]);
                let role = fec_role(d, port)?;
                (role != Role::Media || !lost.contains(&sequence)).then_some((0, role))
            });
            let expected: Vec<&Vec<u8>> = sent.values().collect();
            let got: Vec<&Vec<u8>> = run.packets.iter().collect();
            assert_eq!(got, expected, "{name} {pattern:?}");
            let s = run.media.statistics();
            assert_eq!(s.recovered_fec, lost.len() as u64, "{name} {pattern:?}");
        }
        // Four corners of a rectangle are beyond it.
        let lost: BTreeSet<u16> = [6, 8, 11, 13].map(|n| first + n).into();
        let run = replay(&datagrams, config, |_, d| {
            let sequence = u16::from_be_bytes([d.payload[2], d.payload[3]]);
            let role = fec_role(d, port)?;
            (role != Role::Media || !lost.contains(&sequence)).then_some((0, role))
        });
        if has_rows {
            assert_eq!(run.lost, 4);
            assert_eq!(run.packets.len(), sent.len() - 4);
        }
    }
}

/// Merges both paths of `name`.
fn merged(name: &str, ports: [u16; 2], payload_type: u8) -> (Run, Value) {
    let config = MediaConfig {
        legs: 2,
        ..config(payload_type)
    };
    let run = replay(&pcap::datagrams(name), config, |_, d| {
        let leg = ports.iter().position(|p| *p == d.port)?;
        Some((leg as u8, Role::Media))
    });
    (run, json(name))
}

fn assert_merged(run: &Run, facts: &Value) {
    let merge = &facts["merge_expected"];
    let original = &merge["original_stream"];
    let unrecoverable = merge["unrecoverable_seq"].as_array().expect("list").len() as u64;
    let missing = [0, 1].map(|i| {
        let list = facts["streams"][i]["missing_seq"].as_array();
        list.expect("list").len() as u64
    });
    let s = run.media.statistics();
    assert_eq!(s.legs.map(|leg| leg.packets_lost), missing);
    let received = [0, 1].map(|i| facts["streams"][i]["packets"].as_u64().expect("packets"));
    assert_eq!(s.legs.map(|leg| leg.packets_received), received);
    assert_eq!(
        s.recovered_2022_7,
        missing[0] + missing[1] - 2 * unrecoverable
    );
    assert_eq!(
        (s.source.packets_dropped, run.lost),
        (unrecoverable, unrecoverable)
    );
    let all = original["distinct"].as_u64().expect("distinct");
    assert_eq!(run.packets.len() as u64, all - unrecoverable);
    assert_eq!(s.source.packets_unique, all - unrecoverable);
    let first = original["first_seq"].as_u64().expect("first") as u16;
    let gone: Vec<u64> = merge["unrecoverable_seq"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    let expected: Vec<u16> = (0..all as u16)
        .map(|n| first.wrapping_add(n))
        .filter(|n| !gone.contains(&u64::from(*n)))
        .collect();
    assert_eq!(run.sequences(), expected);
}

#[test]
fn two_real_paths_give_the_original_stream_bit_by_bit() {
    let (run, facts) = merged("rtp46_st2022-7_two_paths_mp2t_rcv", [10_462, 10_463], 33);
    assert_merged(&run, &facts);
    let payload: Vec<u8> = run.packets.iter().flat_map(|p| p[12..].to_vec()).collect();
    let hash: String = Sha256::digest(&payload)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        facts["merge_expected"]["original_stream"]["ts_sha256"],
        hash
    );
    // The second is 12 ms behind, the last packets 35 ms.
    let skew = run.media.statistics().legs[1].skew_us;
    assert!((12_000..17_000).contains(&skew), "{skew}");
}

#[test]
fn what_both_real_paths_lost_is_lost_and_nothing_else() {
    let (run, facts) = merged("rtp47_st2022-7_common_loss_h264_rcv", [10_472, 10_473], 96);
    assert_merged(&run, &facts);
    let skew = run.media.statistics().legs[1].skew_us;
    assert!((28_000..34_000).contains(&skew), "{skew}");
}

#[test]
fn a_real_sender_that_restarts_with_a_new_ssrc_is_followed() {
    let datagrams = pcap::datagrams("rtp48_sender_restart_ssrc_change");
    let run = replay(&datagrams, config(96), |_, _| Some((0, Role::Media)));
    let sent: Vec<&Vec<u8>> = datagrams.iter().map(|d| &d.payload).collect();
    assert_eq!(run.packets.iter().collect::<Vec<_>>(), sent);
    assert_eq!((run.lost, run.discontinuities), (0, 1));
    assert_eq!(
        run.events[..2],
        [
            MediaEvent::SourceValid { ssrc: 111 },
            MediaEvent::SourceChanged { ssrc: 222 }
        ]
    );
    assert_eq!(run.media.statistics().packets_foreign, 0);
}

#[test]
fn the_fec_headers_of_the_vectors_protect_what_they_name() {
    let vectors = json("st2022_1_fec");
    let rows = vectors["fec_packets"].as_array().expect("rows");
    let datagrams = pcap::datagrams("rtp44_gst_st2022-1_fec_5x4_mp2t");
    let sent = by_sequence(&datagrams, 10_440, 33);
    let first = vectors["first_media_seq"].as_u64().expect("number") as u16;
    // Lose one packet of each FEC packet in turn, with nothing but that FEC packet to help.
    for row in rows {
        let number = |key: &str| row[key].as_u64().expect("number") as u16;
        let base = first + number("snbase_offset");
        let lost = base + number("offset") * (number("na") - 1);
        if !sent.contains_key(&lost) || lost < first + 2 || !sent.contains_key(&(lost + 1)) {
            continue;
        }
        let config = MediaConfig {
            fec: Some(FecLimits::default()),
            ..config(33)
        };
        let run = replay(&datagrams, config, |_, d| {
            let sequence = u16::from_be_bytes([d.payload[2], d.payload[3]]);
            match fec_role(d, 10_440)? {
                Role::Media if sequence == lost => None,
                Role::Media => Some((0, Role::Media)),
                role => {
                    let ours = (d.port, sequence) == (number("port"), number("seq"));
                    ours.then_some((0, role))
                }
            }
        });
        let rebuilt = run.packets.iter().find(|p| p[2..4] == lost.to_be_bytes());
        assert_eq!(rebuilt, Some(&sent[&lost]), "{row}");
    }
}
