//! Real and synthetic RTP traffic replayed in virtual time, held against its known facts.

#[path = "../../../tests/vectors/pcap.rs"]
mod pcap;

use std::collections::BTreeMap;

use mirror_base::discard::DiscardCounts;
use mirror_base::{Chunk, Discard, Instant, SlotRing};
use mirror_rtp::{Config, Event, Header, Session, Statistics, is_rtcp, rtcp};
use serde_json::Value;

fn json(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/vectors/rtp/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).expect("vector")).expect("JSON")
}

struct Source {
    session: Session,
    ring: SlotRing,
    events: Vec<Event>,
    delivered: Vec<u16>,
    discontinuities: usize,
    lost: u64,
}

impl Source {
    fn drain(&mut self, now: Instant) {
        while let Some(d) = self.session.poll_delivery(now, &self.ring) {
            let packet = self.ring.get_packet(d.slot).expect("in the ring");
            self.delivered
                .push(u16::from_be_bytes([packet[2], packet[3]]));
            assert!(d.due >= d.arrival && d.due <= now);
            self.lost += u64::from(d.lost_before);
            self.discontinuities += usize::from(d.discontinuity);
        }
        self.ring.release_before(self.session.delivery_index());
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    fn statistics(&self) -> Statistics {
        self.session.statistics()
    }
}

struct Replay {
    /// By destination port and SSRC.
    sources: BTreeMap<(u16, u32), Source>,
    discards: DiscardCounts,
    /// RTCP packets by the names that the facts give them.
    rtcp: BTreeMap<&'static str, u64>,
}

impl Replay {
    /// The only source of `ssrc`.
    fn source(&self, ssrc: u32) -> &Source {
        let mut found = self.sources.iter().filter(|(key, _)| key.1 == ssrc);
        found.next().expect("a source").1
    }
}

/// What the facts call a packet.
fn type_name(packet: &rtcp::Packet<'_>) -> &'static str {
    match packet.packet_type {
        200 => "SR",
        201 => "RR",
        202 => "SDES",
        203 => "BYE",
        _ if packet.nacks().count() > 0 => "NACK",
        _ if packet.is_picture_loss() => "PLI",
        _ if packet.full_intra_requests().count() > 0 => "FIR",
        _ => "other",
    }
}

fn replay(name: &str) -> Replay {
    let mut r = Replay {
        sources: BTreeMap::new(),
        discards: DiscardCounts::default(),
        rtcp: BTreeMap::new(),
    };
    let mut now = Instant::ZERO;
    for datagram in pcap::datagrams(name) {
        now = Instant::from_micros(datagram.micros);
        let bytes = &datagram.payload;
        for source in r.sources.values_mut() {
            while let Some(due) = source.session.poll_timeout().filter(|due| *due <= now) {
                source.session.handle_timeout(due);
                source.drain(due);
            }
        }
        let result = if is_rtcp(bytes) {
            for packet in rtcp::parse(bytes).expect("valid RTCP") {
                *r.rtcp.entry(type_name(&packet)).or_default() += 1;
            }
            let ssrc = rtcp::sender_ssrc(bytes).expect("an SSRC");
            match r.sources.iter_mut().find(|(key, _)| key.1 == ssrc) {
                Some((_, source)) => source.session.handle_rtcp(now, now, bytes),
                None => Err(Discard::UnknownSession),
            }
        } else {
            Header::parse(bytes).and_then(|header| {
                let key = (datagram.port, header.ssrc);
                let source = r.sources.entry(key).or_insert_with(|| Source {
                    session: Session::new(now, header.ssrc, &Config::default(), 0),
                    ring: SlotRing::with_owned_chunks(16),
                    events: Vec::new(),
                    delivered: Vec::new(),
                    discontinuities: 0,
                    lost: 0,
                });
                // One packet of rtp65 is longer than a path of 1500 bytes takes.
                let more = || Some(Chunk::owned());
                assert!(source.ring.widen(bytes.len(), more));
                source
                    .session
                    .handle_rtp(now, now, &header, bytes, &mut source.ring)
            })
        };
        if let Err(reason) = result {
            r.discards.count(reason);
        }
        r.sources.values_mut().for_each(|source| source.drain(now));
    }
    for source in r.sources.values_mut() {
        source.session.close(now);
        source.drain(now);
        assert!(source.session.is_drained());
    }
    r
}

/// Packets, distinct, duplicates, missing numbers and payload bytes of each source.
fn assert_facts(name: &str) -> Replay {
    let facts = json(name);
    let r = replay(name);
    let streams = facts["streams"].as_array().expect("streams");
    assert_eq!(r.sources.len(), streams.len(), "{name}");
    for stream in streams {
        let ssrc = stream["ssrc"].as_u64().expect("ssrc") as u32;
        let port = stream["dst_port"].as_u64().expect("port") as u16;
        let source = &r.sources[&(port, ssrc)];
        let s = source.statistics();
        let missing = stream["missing_seq"].as_array().map_or(0, Vec::len) as u64;
        let number = |key: &str| stream[key].as_u64().unwrap_or(0);
        assert_eq!(s.packets_received, number("packets"), "{name}");
        assert_eq!(s.packets_unique, number("distinct"), "{name}");
        assert_eq!(s.packets_duplicate, number("duplicates"), "{name}");
        assert_eq!(s.packets_dropped, missing, "{name}");
        assert_eq!(source.lost, missing, "{name}");
        // The facts count the bytes of duplicates too.
        if number("duplicates") == 0 {
            assert_eq!(s.payload_bytes, number("payload_bytes"), "{name}");
        }
        let delivered = &source.delivered;
        assert_eq!(delivered.len() as u64, number("distinct"), "{name}");
        assert_eq!(
            delivered.first().map(|s| u64::from(*s)),
            stream["first_seq"].as_u64()
        );
        assert_eq!(
            delivered.last().map(|s| u64::from(*s)),
            stream["last_seq"].as_u64()
        );
        assert!(
            delivered
                .windows(2)
                .all(|w| w[1].wrapping_sub(w[0]) < 0x8000),
            "{name}"
        );
    }
    let counts: BTreeMap<&str, u64> = facts["rtcp_counts"]
        .as_object()
        .expect("counts")
        .iter()
        .map(|(name, count)| (name.as_str(), count.as_u64().expect("a number")))
        .collect();
    assert_eq!(r.rtcp, counts, "{name}");
    r
}

/// Every capture, but for the two whose facts are those of each packet alone, and those from
/// rtp80 on, whose facts are of access units (`engine/media/tests` compares them).
fn captures() -> Vec<String> {
    let folder = format!("{}/../../tests/vectors/rtp", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("vectors")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".pcap").map(str::to_owned))
        .filter(|name| {
            let apart = ["rtp66", "rtp68", "rtp8", "rtp9"];
            !apart.iter().any(|start| name.starts_with(start))
        })
        .collect();
    names.sort();
    assert!(names.len() >= 44, "{names:?}");
    names
}

#[test]
fn every_capture_has_the_packets_losses_and_rtcp_that_its_facts_tell() {
    for name in captures() {
        assert_facts(&name);
    }
}

#[test]
fn counts_of_real_senders_agree_with_their_facts() {
    for name in [
        "rtp01_ffmpeg_h264_ipp",
        "rtp02_ffmpeg_h264_bframes",
        "rtp03_ffmpeg_hevc_b3",
        "rtp08_ffmpeg_mp2t",
        "rtp09_ffmpeg_h264_multislice",
        "rtp20_gst_h264_stapa_fua_mtu500",
        "rtp21_gst_h264_zerolatency_agg_rtcp",
        "rtp22_gst_h265_ap_fu_mtu400",
        "rtp35_gst_mp2t",
    ] {
        let r = assert_facts(name);
        for source in r.sources.values() {
            assert_eq!(source.events.first(), Some(&Event::Validated), "{name}");
            assert_eq!(source.statistics().packets_lost, 0, "{name}");
        }
    }
}

#[test]
fn sequence_and_timestamp_wraps_are_no_events() {
    let r = assert_facts("rtp23_gst_h264_seq_ts_wrap");
    let source = r.sources.values().next().expect("a source");
    assert_eq!(source.statistics().packets_lost, 0);
    assert_eq!(source.discontinuities, 0);
    assert_eq!(source.statistics().restarts, 0);
}

#[test]
fn loss_reordering_and_duplicates_of_a_relay_are_told_apart() {
    let r = assert_facts("rtp24_gst_h264_loss_reorder_dup_rcvleg");
    let s = r.sources.values().next().expect("a source").statistics();
    // One of the five gaps was closed by its late packet.
    assert_eq!(
        (s.packets_lost, s.packets_dropped, s.packets_reordered),
        (5, 4, 1)
    );
    assert_eq!(r.discards.get(Discard::Duplicate), 1);
    // The receiver's own report goes to the sender's port and names no source of ours.
    assert_eq!(
        (s.sender_reports, r.discards.get(Discard::UnknownSession)),
        (1, 1)
    );
}

#[test]
fn a_sender_that_comes_back_with_another_ssrc_is_another_source() {
    let r = assert_facts("rtp48_sender_restart_ssrc_change");
    assert_eq!(r.sources.len(), 2);
}

#[test]
fn broken_headers_are_refused_and_odd_ones_accepted() {
    let r = replay("rtp66_syn_rtp_header_shapes");
    let source = r.source(0xCAFE_0001);
    assert_eq!(source.delivered, [10, 11, 12, 13, 14, 15, 16, 17, 18, 25]);
    let s = source.statistics();
    // Seven carry twelve bytes; one is empty, one is all padding; one more ends the series.
    assert_eq!((s.payload_bytes, s.sender_reports), (8 * 12, 1));
    let reasons: Vec<_> = r.discards.nonzero().collect();
    assert_eq!(
        reasons,
        [
            (Discard::Runt, 1),
            (Discard::RtpVersion, 2),
            (Discard::RtpOverrun, 3)
        ]
    );
}

#[test]
fn the_series_of_rfc_3550_a1_is_judged_as_it_says() {
    // 65530…65533 65535 65534 0 1 1 2 5000 3 4 20000 20001 20002 19990 20003 65000 20004
    let r = replay("rtp68_syn_rfc3550_a1_sequences");
    let source = r.sources.values().next().expect("a source");
    assert_eq!(
        source.delivered,
        [
            65530, 65531, 65532, 65533, 65534, 65535, 0, 1, 2, 3, 4, 20000, 20001, 20002, 20003,
            20004
        ]
    );
    let s = source.statistics();
    assert_eq!(
        (s.packets_duplicate, s.packets_reordered, s.restarts),
        (1, 1, 1)
    );
    assert_eq!(
        (s.packets_late, s.packets_dropped, source.discontinuities),
        (1, 0, 1)
    );
    assert!(source.events.contains(&Event::Restarted));
}

#[test]
fn published_rtcp_datagrams_decode_as_published() {
    let vectors = json("rtp_rtcp");
    for row in vectors["from_captures"].as_array().expect("rows") {
        let hex = row["datagram"].as_str().expect("hex").as_bytes();
        let bytes: Vec<u8> = hex
            .chunks(2)
            .map(|h| u8::from_str_radix(std::str::from_utf8(h).unwrap(), 16).unwrap())
            .collect();
        let packets: Vec<_> = rtcp::parse(&bytes).expect("a valid compound").collect();
        let decoded = row["decoded"].as_array().expect("decoded");
        assert_eq!(packets.len(), decoded.len());
        for (packet, fact) in packets.iter().zip(decoded) {
            assert_decodes(packet, fact);
        }
    }
}

fn assert_decodes(packet: &rtcp::Packet<'_>, fact: &Value) {
    match fact["type"].as_str().expect("type") {
        "SR" | "RR" => {
            if let Some(info) = packet.sender_info() {
                let ntp = format!("{:08x}.{:08x}", info.ntp >> 32, info.ntp as u32);
                assert_eq!(fact["ntp"], ntp);
                assert_eq!(fact["ssrc"], info.ssrc);
                assert_eq!(fact["rtp"], info.rtp_timestamp);
                assert_eq!(fact["pkts"], info.packets);
                assert_eq!(fact["octets"], info.octets);
            } else {
                assert_eq!(fact["type"], "RR");
            }
            let blocks: Vec<_> = packet.report_blocks().collect();
            let facts = fact["rb"].as_array().expect("rb");
            assert_eq!(blocks.len(), facts.len());
            for (block, fact) in blocks.iter().zip(facts) {
                assert_eq!(fact["ssrc"], block.ssrc);
                assert_eq!(fact["frac"], block.fraction_lost);
                assert_eq!(fact["lost"], block.cumulative_lost);
                assert_eq!(fact["ehsn"], block.extended_highest_sequence);
                assert_eq!(fact["jit"], block.jitter);
                assert_eq!(fact["lsr"], block.last_sr);
                assert_eq!(fact["dlsr"], block.delay_since_last_sr);
            }
        }
        "SDES" => {
            for chunk in fact["chunks"].as_array().expect("chunks") {
                let cname = packet.cname(chunk[0].as_u64().expect("ssrc") as u32);
                assert_eq!(cname, chunk[1][0][1].as_str().map(str::as_bytes));
            }
        }
        "BYE" => {
            let ssrcs: Vec<_> = packet.leaving().collect();
            assert_eq!(fact["ssrcs"], serde_json::json!(ssrcs));
        }
        _ => assert!(packet.packet_type >= 204),
    }
}
