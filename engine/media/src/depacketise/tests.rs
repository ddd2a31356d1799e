//! RTP captures and published payloads through the depacketisers, held against their facts.

use std::fmt::Write as _;

use mirror_base::SlotMeta;
use serde_json::Value;

use super::*;
use crate::{Codec, FrameKind};

mod audio;
mod av1;
mod data;
mod hostile;
mod jpegxs;
mod numbered;
#[path = "../../../../tests/vectors/pcap.rs"]
mod pcap;
mod sha256;

const SSRC: u32 = 7;

fn json(name: &str) -> Value {
    let path = format!(
        "{}/../../tests/vectors/rtp/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A packet as a session delivers it.
#[derive(Clone, Debug)]
struct Sent {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload_type: u8,
    payload: Vec<u8>,
}

/// The first source's packets in order of their numbers, each once.
fn sent(name: &str) -> Vec<Sent> {
    let mut out: Vec<Sent> = Vec::new();
    let mut source = None;
    for datagram in pcap::datagrams(name) {
        let p = datagram.payload;
        if (192..=223).contains(&p[1]) || *source.get_or_insert(p[8..12].to_vec()) != p[8..12] {
            continue;
        }
        assert_eq!(p[0] & 0x3F, 0, "plain headers only");
        out.push(Sent {
            sequence: u16::from_be_bytes([p[2], p[3]]),
            timestamp: u32::from_be_bytes(p[4..8].try_into().unwrap()),
            marker: p[1] & 0x80 != 0,
            payload_type: p[1] & 0x7F,
            payload: p[12..].to_vec(),
        });
    }
    let first = out[0].sequence;
    out.sort_by_key(|p| p.sequence.wrapping_sub(first));
    out.dedup_by_key(|p| p.sequence);
    out
}

struct Run {
    input: RtpInput,
    ring: SlotRing,
    units: Vec<AccessUnit>,
    taken: Vec<Taken>,
    last: Option<u16>,
    slot: u64,
    /// Slot of the packet that a unit came out with.
    completed_at: Vec<u64>,
}

impl Run {
    fn new(hint: Option<Codec>) -> Self {
        let format = hint.and_then(PayloadFormat::of_codec);
        Run::hinted(format.map(PayloadHint::from), 90_000)
    }

    fn hinted(hint: Option<PayloadHint>, clock_rate: u32) -> Self {
        Run {
            input: RtpInput::new(hint, clock_rate, SSRC, Limits::default()),
            ring: SlotRing::with_owned_chunks(16),
            units: Vec::new(),
            taken: Vec::new(),
            last: None,
            slot: 0,
            completed_at: Vec::new(),
        }
    }

    fn push(&mut self, p: &Sent) {
        let lost = self
            .last
            .map_or(0, |last| p.sequence.wrapping_sub(last).wrapping_sub(1));
        self.last = Some(p.sequence);
        self.slot += u64::from(lost);
        let arrival = Instant::from_millis(self.slot);
        let flags = u8::from(p.marker) << 7 | p.payload_type;
        let meta = SlotMeta::new(arrival, p.timestamp, flags);
        let kept = self.ring.capacity_slots() as u64 / 2;
        self.ring.release_before(self.slot.saturating_sub(kept));
        self.ring.insert(self.slot, &p.payload, meta).unwrap();
        let taken = self.input.push(&mut Packet {
            slot: self.slot,
            arrival,
            lost_before: u32::from(lost),
            discontinuity: false,
            timestamp: p.timestamp,
            marker: p.marker,
            payload_type: p.payload_type,
            payload: &p.payload,
        });
        self.taken.push(taken);
        self.drain();
        self.slot += 1;
    }

    fn drain(&mut self) {
        while let Some(unit) = self.input.poll_unit() {
            self.units.push(unit);
            self.completed_at.push(self.slot);
        }
    }

    fn finish(mut self) -> Self {
        self.input.finish();
        self.drain();
        self
    }

    fn extract_all(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for unit in &self.units {
            assert!(self.input.extract(unit, &self.ring, &mut out));
        }
        out
    }
}

fn run(hint: Option<Codec>, packets: &[Sent]) -> Run {
    let mut run = Run::new(hint);
    packets.iter().for_each(|p| run.push(p));
    run.finish()
}

/// With format parameters.
fn run_as(format: PayloadFormat, fmtp: &str, clock_rate: u32, packets: &[Sent]) -> Run {
    let hint = PayloadHint {
        format,
        parameters: FormatParameters::parse(format, fmtp).unwrap(),
    };
    let mut run = Run::hinted(Some(hint), clock_rate);
    packets.iter().for_each(|p| run.push(p));
    run.finish()
}

/// Packets of these payloads, numbered from 0, with a marker each.
fn packets(payload_type: u8, payloads: &[(u32, &[u8])]) -> Vec<Sent> {
    let packet = |(n, (timestamp, payload)): (usize, &(u32, &[u8]))| Sent {
        sequence: n as u16,
        timestamp: *timestamp,
        marker: true,
        payload_type,
        payload: payload.to_vec(),
    };
    payloads.iter().enumerate().map(packet).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn is_key(codec: Codec, types: &[u64]) -> bool {
    match codec {
        Codec::H264 => types.contains(&5),
        _ => types.iter().any(|t| (16..=21).contains(t)),
    }
}

/// Access units, their times, sizes, key frames and bytes agree with the capture's facts.
fn assert_facts(name: &str, codec: Codec) -> Run {
    assert_facts_of(name, codec, run(None, &sent(name)))
}

fn assert_facts_of(name: &str, codec: Codec, r: Run) -> Run {
    let facts = json(name);
    let facts = &facts["streams"][0];
    let units = facts["au"].as_array().unwrap();
    assert_eq!(r.units.len(), units.len(), "{name}");
    for (i, (unit, fact)) in r.units.iter().zip(units).enumerate() {
        let types: Vec<u64> = fact[1]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_u64().unwrap())
            .collect();
        assert_eq!(
            unit.pts.unwrap() & 0xFFFF_FFFF,
            fact[0].as_i64().unwrap(),
            "{name} {i}"
        );
        if !unit.damaged {
            let bytes = fact[2].as_u64().unwrap() + 4 * types.len() as u64;
            assert_eq!(u64::from(unit.bytes), bytes, "{name} {i}");
        }
        if unit.kind == FrameKind::Idr || is_key(codec, &types) {
            assert!(
                unit.kind.is_key() && is_key(codec, &types),
                "{name} {i} {unit:?} {types:?}"
            );
        }
    }
    let bytes = r.extract_all();
    assert_eq!(
        bytes.len() as u64,
        facts["annexb_bytes"].as_u64().unwrap(),
        "{name}"
    );
    let digest = hex(&sha256::digest(&bytes));
    assert_eq!(
        facts["annexb_4byte_startcode_sha256"],
        digest.as_str(),
        "{name}"
    );
    let track = &r.input.tracks()[0];
    assert_eq!(
        (track.codec, track.id, r.input.tracks().len()),
        (codec, SSRC, 1),
        "{name}"
    );
    assert!(track.width > 0 && track.height > 0, "{name}");
    assert_eq!(r.input.container(), Some(codec.name()));
    r
}

#[test]
fn units_of_real_senders_agree_with_their_facts() {
    for (name, codec) in [
        ("rtp01_ffmpeg_h264_ipp", Codec::H264),
        ("rtp02_ffmpeg_h264_bframes", Codec::H264),
        ("rtp03_ffmpeg_hevc_b3", Codec::H265),
        ("rtp09_ffmpeg_h264_multislice", Codec::H264),
        ("rtp20_gst_h264_stapa_fua_mtu500", Codec::H264),
        ("rtp21_gst_h264_zerolatency_agg_rtcp", Codec::H264),
        ("rtp22_gst_h265_ap_fu_mtu400", Codec::H265),
        ("rtp23_gst_h264_seq_ts_wrap", Codec::H264),
        ("rtp48_sender_restart_ssrc_change", Codec::H264),
    ] {
        let r = assert_facts(name, codec);
        assert!(r.units.iter().all(|u| !u.damaged), "{name}");
        assert!(r.taken.iter().all(|t| *t == Taken::Done), "{name}");
        // The marker completes a unit: none waits for its successor.
        assert!(
            r.units.iter().all(|u| u.completed_by == u.last_arrival),
            "{name}"
        );
    }
}

#[test]
fn paci_packets_carry_the_units_that_their_facts_say() {
    // One of its packets is larger than a slot, so it is taken apart without a ring.
    let name = "rtp65_syn_hevc_paci";
    let mut bytes = Vec::new();
    for p in sent(name) {
        for piece in nal::pieces(nal::Form::plain(Codec::H265), &p.payload).map(Result::unwrap) {
            if piece.begins {
                bytes.extend_from_slice(&[0, 0, 0, 1]);
            }
            bytes.extend_from_slice(piece.header());
            bytes.extend_from_slice(piece.bytes);
        }
    }
    let digest = hex(&sha256::digest(&bytes));
    assert_eq!(
        json(name)["streams"][0]["annexb_4byte_startcode_sha256"],
        digest.as_str()
    );
}

#[test]
fn timestamps_go_on_over_their_wrap() {
    let r = assert_facts("rtp23_gst_h264_seq_ts_wrap", Codec::H264);
    assert!(
        r.units
            .windows(2)
            .all(|w| w[1].pts.unwrap() - w[0].pts.unwrap() == 3600)
    );
}

/// The pictures of a capture, in fragments and without access unit delimiters.
fn one_nal_unit_each() -> Vec<Sent> {
    let mut sequence = 0;
    let mut out = Vec::new();
    let whole = run(Some(Codec::H264), &sent("rtp20_gst_h264_stapa_fua_mtu500"));
    for unit in &whole.units {
        let mut bytes = Vec::new();
        assert!(whole.input.extract(unit, &whole.ring, &mut bytes));
        for nal in crate::files::annexb::nal_units(&bytes).filter(|nal| nal[0] & 0x1F != 9) {
            let (head, pieces) = (nal[0], nal[1..].chunks(100).enumerate());
            let last = nal[1..].chunks(100).count() - 1;
            for (n, piece) in pieces {
                let marks = u8::from(n == 0) << 7 | u8::from(n == last) << 6;
                let mut payload = vec![head & 0xE0 | 28, head & 0x1F | marks];
                payload.extend(piece);
                out.push(Sent {
                    sequence,
                    timestamp: unit.pts.unwrap() as u32,
                    marker: false,
                    payload_type: 96,
                    payload,
                });
                sequence += 1;
            }
        }
        out.last_mut().unwrap().marker = true;
    }
    out
}

/// Loses every packet in turn, and the one after the next: each unit's bytes are those that it
/// hands out, and what came of a picture is told, even where nothing of it can be handed out.
fn assert_bytes(name: &str, all: &[Sent], run: impl Fn(&[Sent]) -> Run) {
    let count = run(all).units.len();
    for at in (0..all.len()).step_by(1 + all.len() / 300) {
        let kept = all
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != at && *n != at + 2);
        let kept: Vec<Sent> = kept.map(|(_, p)| p.clone()).collect();
        let r = run(&kept);
        let mut out = Vec::new();
        for (n, unit) in r.units.iter().enumerate() {
            out.clear();
            assert!(r.input.extract(unit, &r.ring, &mut out));
            assert_eq!(unit.bytes as usize, out.len(), "{name} {at}: unit {n}");
        }
        assert!(r.units.len() + 2 >= count, "{name} {at}: {}", r.units.len());
    }
}

#[test]
fn a_unit_counts_the_bytes_that_it_hands_out_whatever_was_lost_of_it() {
    let interleaved = "packetization-mode=2;sprop-interleaving-depth=4";
    for (name, format, fmtp) in [
        ("rtp20_gst_h264_stapa_fua_mtu500", PayloadFormat::H264, ""),
        ("rtp22_gst_h265_ap_fu_mtu400", PayloadFormat::H265, ""),
        ("rtp41_gst_pli_h264_rcvleg", PayloadFormat::H264, ""),
        ("rtp50_av1_svt_1200", PayloadFormat::Av1, ""),
        ("rtp51_av1_aom_altref_mtu300", PayloadFormat::Av1, ""),
        ("rtp52_av1_aom_rt_tiles_mtu250", PayloadFormat::Av1, ""),
        ("rtp67_syn_klv", PayloadFormat::Smpte336m, ""),
        ("rtp82_ffmpeg_mpeg2video", PayloadFormat::Mpv, ""),
        ("rtp88_gst_mpeg2video", PayloadFormat::Mpv, ""),
    ] {
        assert_bytes(name, &sent(name), |sent| run_as(format, fmtp, 90_000, sent));
    }
    // Without delimiters: a unit may be one NAL unit, and all of it be left out.
    let name = "without delimiters";
    assert_bytes(name, &one_nal_unit_each(), |sent| {
        run(Some(Codec::H264), sent)
    });
    // In decoding order a lost packet may take a unit with others that wait for it.
    let name = "rtp63_syn_h264_stapb_mtap_fub";
    let r = run_as(PayloadFormat::H264, interleaved, 90_000, &sent(name));
    assert_eq!(
        r.units.iter().map(|u| u.bytes as usize).sum::<usize>(),
        r.extract_all().len()
    );
}

#[test]
fn loss_damages_the_units_it_hits_and_no_others() {
    let name = "rtp24_gst_h264_loss_reorder_dup_rcvleg";
    let r = assert_facts(name, Codec::H264);
    // 9529 is a delimiter of one unit, 9542 to 9544 are in the next ones.
    let damaged: Vec<_> = r.units.iter().filter(|u| u.damaged).collect();
    assert!(damaged.len() <= 4, "{damaged:?}");
}

#[test]
fn a_change_of_timestamp_ends_a_unit_when_no_marker_is_ever_set() {
    for (name, codec) in [
        ("rtp02_ffmpeg_h264_bframes", Codec::H264),
        ("rtp22_gst_h265_ap_fu_mtu400", Codec::H265),
    ] {
        let mut packets = sent(name);
        packets.iter_mut().for_each(|p| p.marker = false);
        let r = run(Some(codec), &packets);
        let facts = json(name);
        assert_eq!(
            r.units.len(),
            facts["streams"][0]["au"].as_array().unwrap().len()
        );
        assert!(r.units.iter().all(|u| !u.damaged));
        // With the first packet of the next unit, not later.
        for (unit, at) in r.units.iter().zip(&r.completed_at).skip(3) {
            assert!(*at <= unit.end.slot + 1, "{unit:?} {at}");
        }
    }
}

#[test]
fn a_marker_on_every_packet_does_not_split_units() {
    let name = "rtp22_gst_h265_ap_fu_mtu400";
    let mut packets = sent(name);
    packets.iter_mut().for_each(|p| p.marker = true);
    let r = run(Some(Codec::H265), &packets);
    let units = json(name)["streams"][0]["au"].as_array().unwrap().len();
    // The first false end may cost a unit its wholeness, until markers are disbelieved.
    assert!(
        r.units.len() >= units && r.units.len() <= units + 2,
        "{}",
        r.units.len()
    );
    assert!(r.units.iter().filter(|u| u.damaged).count() <= 2);
}

#[test]
fn a_wrong_hint_costs_no_unit() {
    for (name, wrong) in [
        ("rtp01_ffmpeg_h264_ipp", Codec::H265),
        ("rtp03_ffmpeg_hevc_b3", Codec::H264),
        ("rtp22_gst_h265_ap_fu_mtu400", Codec::H264),
        ("rtp20_gst_h264_stapa_fua_mtu500", Codec::H265),
    ] {
        let r = run(Some(wrong), &sent(name));
        assert_eq!(r.units.len(), 50, "{name}");
        assert!(r.units[0].kind.is_key(), "{name}");
    }
}

#[test]
fn mpeg_ts_is_handed_on_from_its_first_packet() {
    for name in ["rtp08_ffmpeg_mp2t", "rtp35_gst_mp2t"] {
        for hint in [None, Some(Codec::H264)] {
            for payload_type in [33, 96] {
                let mut packets = sent(name);
                packets
                    .iter_mut()
                    .for_each(|p| p.payload_type = payload_type);
                let r = run(hint, &packets);
                assert!(
                    r.taken.iter().all(|t| *t == Taken::MpegTs),
                    "{name} {hint:?}"
                );
                assert_eq!(r.input.container(), Some("mpegts"));
            }
        }
    }
}

#[test]
fn a_unit_that_waits_too_long_is_closed_as_damaged() {
    let mut r = Run::new(Some(Codec::H264));
    let packets = sent("rtp20_gst_h264_stapa_fua_mtu500");
    packets[..6].iter().for_each(|p| r.push(p));
    let due = r.input.poll_timeout().unwrap();
    r.input.handle_timeout(due.offset_micros(-1));
    r.drain();
    assert!(r.units.is_empty());
    r.input.handle_timeout(due);
    r.drain();
    assert!(r.units[0].damaged && r.input.poll_timeout().is_none());
    // The fragments that come all the same have lost their start.
    packets[6..8].iter().for_each(|p| r.push(p));
}

#[test]
fn a_stray_payload_type_is_left_out_and_a_lasting_one_followed() {
    let mut packets = sent("rtp01_ffmpeg_h264_ipp");
    packets[20].payload_type = 13;
    let r = run(None, &packets);
    assert_eq!(r.taken[20], Taken::Discarded(Discard::UnknownPayloadType));
    // A dynamic type that goes on with the same payloads costs nothing, a static one some.
    for (payload_type, left_out) in [(98, 0), (13, 7)] {
        packets
            .iter_mut()
            .skip(20)
            .for_each(|p| p.payload_type = payload_type);
        let r = run(None, &packets);
        let others = r.taken.iter().filter(|t| **t != Taken::Done).count();
        assert_eq!(others, left_out, "{payload_type}");
    }
}

#[test]
fn a_loss_before_a_packet_that_is_left_out_damages_its_unit() {
    let mut packets = sent("rtp01_ffmpeg_h264_ipp");
    let middle = |p: &Sent| p.payload[0] & 0x1F == 28 && p.payload[1] & 0xC0 == 0;
    let lost = packets.iter().position(middle).unwrap();
    // That fragment is lost, and FEC comes next.
    let mut fec = packets[lost].clone();
    fec.payload_type = 13;
    packets.insert(lost + 1, fec);
    packets[lost + 1..]
        .iter_mut()
        .for_each(|p| p.sequence = p.sequence.wrapping_add(1));
    assert!(run(None, &packets).units.iter().all(|u| !u.damaged));
    packets.remove(lost);
    let r = run(None, &packets);
    assert_eq!(r.units.iter().filter(|u| u.damaged).count(), 1);
}

#[test]
fn marks_of_packets_that_are_left_out_reach_the_next_one() {
    let mut ts = vec![0; 7 * 188];
    ts.iter_mut().step_by(188).for_each(|b| *b = 0x47);
    let mut input = RtpInput::new(None, 90_000, SSRC, Limits::default());
    let packet = |payload_type, lost_before, discontinuity| Packet {
        slot: 0,
        arrival: Instant::ZERO,
        lost_before,
        discontinuity,
        timestamp: 0,
        marker: false,
        payload_type,
        payload: &ts,
    };
    let mut push = |mut packet| {
        let taken = input.push(&mut packet);
        (taken, packet.lost_before, packet.discontinuity)
    };
    assert_eq!(push(packet(33, 0, false)), (Taken::MpegTs, 0, false));
    push(packet(13, 2, true));
    push(packet(13, 3, false));
    assert_eq!(push(packet(33, 1, false)), (Taken::MpegTs, 6, true));
    assert_eq!(push(packet(33, 0, false)), (Taken::MpegTs, 0, false));
}

#[test]
fn another_codec_in_mid_stream_becomes_another_track() {
    let mut packets = sent("rtp01_ffmpeg_h264_ipp");
    let next = packets.last().unwrap().sequence;
    for (i, mut p) in sent("rtp22_gst_h265_ap_fu_mtu400").into_iter().enumerate() {
        p.sequence = next.wrapping_add(1 + i as u16);
        packets.push(p);
    }
    let r = run(None, &packets);
    let codecs: Vec<_> = r.input.tracks().iter().map(|t| t.codec).collect();
    assert_eq!(codecs, [Codec::H264, Codec::H265]);
    assert!(r.units.iter().filter(|u| u.track == 1).count() > 40);
    assert!(r.units.iter().filter(|u| u.track == 0).count() >= 50);
}

#[test]
fn published_payloads_are_of_the_kind_they_are_said_to_be() {
    let vectors = json("rtp_payloads");
    let (mut nal, mut numbered, mut aac) = (0, 0, 0);
    for row in vectors["packets"].as_array().unwrap() {
        let text = row["payload"].as_str().unwrap();
        if text.contains('.') {
            // Shortened.
            continue;
        }
        let payload = crate::tests::hex(text);
        let capture = row["capture"].as_str().unwrap();
        let kind = row["kind"].as_str().unwrap();
        let codec = match capture {
            c if c.contains("h264") => Codec::H264,
            c if c.contains("h265") || c.contains("hevc") => Codec::H265,
            c if c.contains("aac") => {
                let form = parameters::AuHeader::default();
                let at = aac::media_offset(form, &payload).unwrap();
                let sizes = aac::entries(form, &payload).unwrap();
                let sum: usize = sizes.iter().map(|e| e.size.unwrap()).sum();
                // Fragments have the size of the whole.
                assert!(sum == payload.len() - at || sizes.len() == 1, "{capture}");
                aac += 1;
                continue;
            }
            _ => continue,
        };
        let don = capture.contains("donl");
        let pieces: Vec<_> = nal::pieces(nal::Form { codec, don }, &payload)
            .collect::<Result<_, _>>()
            .unwrap();
        let has_number = don || kind.starts_with('t');
        if has_number && pieces[0].begins {
            assert!(pieces.iter().all(|p| p.don.is_some()), "{capture} {kind}");
            numbered += 1;
        }
        match kind.split_once(':') {
            Some(("FU-A" | "FU", edge)) => {
                assert_eq!(
                    (pieces[0].begins, pieces[0].ends),
                    (edge == "S", edge == "E"),
                    "{kind}"
                );
            }
            // FU-B.
            _ if kind == "t29" => assert!(pieces[0].begins && !pieces[0].ends),
            _ => assert!(
                pieces.iter().all(|p| p.begins == p.ends),
                "{capture} {kind}"
            ),
        }
        nal += 1;
    }
    assert!(
        nal > 10 && numbered > 5 && aac > 4,
        "{nal} {numbered} {aac}"
    );
}

#[test]
fn mutated_streams_neither_panic_nor_grow() {
    let mut x = 3u64;
    let mut random = move |bound: usize| {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) as usize % bound
    };
    for (name, rounds) in [
        ("rtp20_gst_h264_stapa_fua_mtu500", 60),
        ("rtp22_gst_h265_ap_fu_mtu400", 60),
    ] {
        let original = sent(name);
        for _ in 0..rounds {
            let mut r = Run::new(None);
            for p in &original {
                let mut p = p.clone();
                match random(8) {
                    0 => p.payload.truncate(random(p.payload.len())),
                    1 => {
                        let at = random(p.payload.len().min(6));
                        p.payload[at] ^= 1 << random(8);
                    }
                    2 => p.timestamp ^= 1 << random(32),
                    3 => p.marker = !p.marker,
                    4 => continue,
                    _ => {}
                }
                r.push(&p);
            }
            let r = r.finish();
            let mut out = Vec::new();
            for unit in &r.units {
                r.input.extract(unit, &r.ring, &mut out);
            }
            assert!(r.units.len() <= original.len() * 8 && out.len() < 1 << 20);
        }
    }
}
