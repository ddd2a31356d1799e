//! What a hostile or broken sender may put into payloads: nothing panics, nothing grows without
//! bound, and what follows is used again.

use super::*;

const MALFORMED: Taken = Taken::Discarded(Discard::MalformedPayload);
const ORPHAN: Taken = Taken::Discarded(Discard::OrphanFragment);

fn random(seed: u64) -> impl FnMut(usize) -> usize {
    let mut x = seed;
    move |bound| {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) as usize % bound
    }
}

#[test]
fn fragments_without_a_start_are_orphans_of_each_nal_format() {
    let r = run(
        Some(Codec::H264),
        &packets(
            96,
            &[
                (0, &[0x67, 0x64, 0, 0x28]),
                (0, &[0x7C, 0x05, 1]),
                (0, &[0x7C, 0x45, 2]),
            ],
        ),
    );
    assert_eq!(r.taken, [Taken::Done, ORPHAN, ORPHAN]);
    let r = run(
        Some(Codec::H265),
        &packets(96, &[(0, &[0x40, 1, 0x0C, 1]), (0, &[0x62, 1, 0x13, 1])]),
    );
    assert_eq!(r.taken, [Taken::Done, ORPHAN]);
}

#[test]
fn nested_aggregates_are_malformed() {
    let nested = [0x78, 0, 5, 0x78, 0, 2, 0x67, 0x64];
    let r = run(
        Some(Codec::H264),
        &packets(96, &[(0, &[0x67, 0x64, 0, 0x28]), (0, &nested)]),
    );
    assert_eq!(r.taken[1], MALFORMED);
    let nested = [0x60, 1, 0, 7, 0x60, 1, 0, 3, 0x40, 1, 5];
    let r = run(
        Some(Codec::H265),
        &packets(96, &[(0, &[0x40, 1, 0x0C, 1]), (0, &nested)]),
    );
    assert_eq!(r.taken[1], MALFORMED);
}

#[test]
fn empty_parameter_sets_are_survived() {
    let sets: [&[u8]; 6] = [
        &[0x67],
        &[0x68],
        &[0x67, 0x64],
        &[0x68, 0x80],
        &[0x67, 0, 0, 0],
        &[0x41, 0x9A, 1],
    ];
    let all: Vec<_> = sets.iter().map(|s| (0, *s)).collect();
    assert!(run(Some(Codec::H264), &packets(96, &all)).units.len() <= 6);
    let sets: [&[u8]; 5] = [
        &[0x40, 1],
        &[0x42, 1],
        &[0x44, 1],
        &[0x42, 1, 0],
        &[2, 1, 0xD0, 9],
    ];
    let all: Vec<_> = sets.iter().map(|s| (0, *s)).collect();
    assert!(run(Some(Codec::H265), &packets(96, &all)).units.len() <= 5);
    // From SDP, too.
    let r = run_as(
        PayloadFormat::H264,
        "sprop-parameter-sets=Zw==,aA==,Z2Q=",
        90_000,
        &sent("rtp01_ffmpeg_h264_ipp"),
    );
    assert_eq!(r.units.len(), 50);
}

#[test]
fn a_fragmented_unit_that_never_ends_is_bounded() {
    for (format, fmtp, payload) in [
        (PayloadFormat::H264, "", vec![0x7C, 0x05]),
        (
            PayloadFormat::H264,
            "packetization-mode=2",
            vec![0x7C, 0x05],
        ),
        (PayloadFormat::Mp4aLatm, "", vec![0x80]),
        (PayloadFormat::Smpte336m, "", vec![0x06]),
        (PayloadFormat::Vp8, "", vec![0x00]),
        (
            PayloadFormat::Mpeg4Generic,
            "sizelength=32",
            vec![0, 32, 0xFF, 0xFF, 0xFF, 0],
        ),
    ] {
        let hint = PayloadHint {
            format,
            parameters: FormatParameters::parse(format, fmtp).unwrap(),
        };
        let limits = Limits {
            max_frame_size: 100_000,
            ..Limits::default()
        };
        let mut input = RtpInput::new(Some(hint), 90_000, SSRC, limits);
        let begin: &[u8] = match format {
            PayloadFormat::H264 => &[0x7C, 0x85, 0x88, 0x84],
            PayloadFormat::Vp8 => &[0x10, 0x01],
            _ => &payload,
        };
        let body = [payload.as_slice(), &[0x55; 1200]].concat();
        let mut largest = 0;
        for n in 0..2000u64 {
            input.push(&mut Packet {
                slot: n,
                arrival: Instant::from_millis(n),
                lost_before: 0,
                discontinuity: false,
                timestamp: 7,
                marker: false,
                payload_type: 96,
                payload: if n == 0 { begin } else { &body },
            });
            while let Some(unit) = input.poll_unit() {
                assert!(unit.damaged || format == PayloadFormat::H264, "{format:?}");
                largest = largest.max(unit.bytes);
            }
        }
        assert!(largest < 110_000, "{format:?} {largest}");
    }
}

#[test]
fn timestamps_at_random_neither_panic_nor_keep_units_for_ever() {
    let names = [
        "rtp04_ffmpeg_aac_mpeg4generic",
        "rtp69_syn_aac_interleaved_fragmented",
        "rtp32_gst_aac_latm_mp4a",
        "rtp05_ffmpeg_opus",
        "rtp33_gst_l24_48k_stereo",
        "rtp30_gst_ac3",
        "rtp67_syn_klv",
        "rtp63_syn_h264_stapb_mtap_fub",
        "rtp64_syn_hevc_donl_dond",
    ];
    let mut random = random(11);
    for name in names {
        let original = sent(name);
        let mut r = Run::hinted(None, 0);
        for n in 0..1500u16 {
            let mut p = original[random(original.len())].clone();
            p.sequence = n;
            if random(3) == 0 {
                p.timestamp = random(1 << 31) as u32 * 2;
            }
            r.push(&p);
        }
        while let Some(due) = r.input.poll_timeout() {
            r.input.handle_timeout(due);
            r.drain();
        }
        let r = r.finish();
        let mut out = Vec::new();
        for unit in &r.units {
            r.input.extract(unit, &r.ring, &mut out);
            out.clear();
        }
    }
}

#[test]
fn mutated_payloads_of_each_format_are_survived() {
    let fmtp = "sizelength=13;indexlength=3;indexdeltalength=3;config=1188";
    let sources = [
        (
            "rtp04_ffmpeg_aac_mpeg4generic",
            PayloadFormat::Mpeg4Generic,
            fmtp,
        ),
        (
            "rtp69_syn_aac_interleaved_fragmented",
            PayloadFormat::Mpeg4Generic,
            fmtp,
        ),
        (
            "rtp32_gst_aac_latm_mp4a",
            PayloadFormat::Mp4aLatm,
            "cpresent=0;config=400023103fc0",
        ),
        ("rtp32_gst_aac_latm_mp4a", PayloadFormat::Mp4aLatm, ""),
        ("rtp05_ffmpeg_opus", PayloadFormat::Opus, ""),
        ("rtp06_ffmpeg_l16_48k_stereo", PayloadFormat::L16, ""),
        ("rtp30_gst_ac3", PayloadFormat::Ac3, ""),
        ("rtp30_gst_ac3", PayloadFormat::Eac3, ""),
        ("rtp30_gst_ac3", PayloadFormat::Mpa, ""),
        ("rtp67_syn_klv", PayloadFormat::Smpte336m, ""),
        ("rtp67_syn_klv", PayloadFormat::Smpte291, ""),
        ("rtp01_ffmpeg_h264_ipp", PayloadFormat::Vp8, ""),
        ("rtp01_ffmpeg_h264_ipp", PayloadFormat::Vp9, ""),
        ("rtp01_ffmpeg_h264_ipp", PayloadFormat::Mpv, ""),
        (
            "rtp63_syn_h264_stapb_mtap_fub",
            PayloadFormat::H264,
            "packetization-mode=2",
        ),
        (
            "rtp64_syn_hevc_donl_dond",
            PayloadFormat::H265,
            "sprop-max-don-diff=2",
        ),
    ];
    let mut random = random(3);
    for (name, format, fmtp) in sources {
        let original = sent(name);
        for _ in 0..40 {
            let hint = PayloadHint {
                format,
                parameters: FormatParameters::parse(format, fmtp).unwrap(),
            };
            let mut r = Run::hinted(Some(hint), 0);
            for p in &original {
                let mut p = p.clone();
                match random(8) {
                    0 => p.payload.truncate(random(p.payload.len())),
                    1 | 2 => {
                        let at = random(p.payload.len().min(8));
                        p.payload[at] ^= 1 << random(8);
                    }
                    3 => p.timestamp ^= 1 << random(32),
                    4 => p.marker = !p.marker,
                    5 if random(3) == 0 => continue,
                    _ => {}
                }
                r.push(&p);
            }
            let r = r.finish();
            let mut out = Vec::new();
            for unit in &r.units {
                let before = out.len();
                if r.input.extract(unit, &r.ring, &mut out) {
                    assert!(
                        out.len() - before <= unit.bytes as usize + 8,
                        "{name} {unit:?}"
                    );
                } else {
                    assert_eq!(out.len(), before);
                }
            }
            assert!(r.units.len() < 4000);
        }
    }
}

#[test]
fn a_change_of_payload_type_and_codec_costs_no_whole_unit() {
    let mut packets = sent("rtp01_ffmpeg_h264_ipp");
    let mut next = packets.last().unwrap().sequence;
    for (name, payload_type) in [
        ("rtp22_gst_h265_ap_fu_mtu400", 98),
        ("rtp31_gst_aac_mpeg4generic", 99),
        ("rtp01_ffmpeg_h264_ipp", 100),
    ] {
        for mut p in sent(name) {
            next = next.wrapping_add(1);
            p.sequence = next;
            p.payload_type = payload_type;
            packets.push(p);
        }
    }
    let mut r = Run::hinted(None, 0);
    packets.iter().for_each(|p| r.push(p));
    let r = r.finish();
    let codecs: Vec<_> = r.input.tracks().iter().map(|t| t.codec).collect();
    assert_eq!(codecs, [Codec::H264, Codec::H265, Codec::Aac, Codec::H264]);
    let whole = |track| {
        let of = |u: &&AccessUnit| u.track == track && !u.damaged;
        r.units.iter().filter(of).count()
    };
    assert_eq!((whole(0), whole(1), whole(2), whole(3)), (50, 50, 94, 50));
    for unit in &r.units {
        let mut out = Vec::new();
        assert!(r.input.extract(unit, &r.ring, &mut out));
        assert_eq!(out.len(), unit.bytes as usize);
    }
}

#[test]
fn audio_is_not_taken_for_video_nor_video_for_audio() {
    let right = [
        ("rtp01_ffmpeg_h264_ipp", "H264"),
        ("rtp03_ffmpeg_hevc_b3", "H265"),
        ("rtp04_ffmpeg_aac_mpeg4generic", "AAC"),
        ("rtp05_ffmpeg_opus", "OPUS"),
        ("rtp06_ffmpeg_l16_48k_stereo", "L16"),
        ("rtp08_ffmpeg_mp2t", "mpegts"),
        ("rtp09_ffmpeg_h264_multislice", "H264"),
        ("rtp22_gst_h265_ap_fu_mtu400", "H265"),
        ("rtp30_gst_ac3", "AC3"),
        ("rtp31_gst_aac_mpeg4generic", "AAC"),
        ("rtp32_gst_aac_latm_mp4a", "AAC_LATM"),
        ("rtp33_gst_l24_48k_stereo", "L24"),
        ("rtp34_gst_opus", "OPUS"),
        ("rtp35_gst_mp2t", "mpegts"),
        ("rtp50_av1_svt_1200", "AV1"),
        ("rtp60_syn_jxs_codestream_mode", "JPEGXS"),
        ("rtp63_syn_h264_stapb_mtap_fub", "H264"),
        ("rtp64_syn_hevc_donl_dond", "H265"),
        ("rtp67_syn_klv", "KLV"),
        ("rtp69_syn_aac_interleaved_fragmented", "AAC"),
    ];
    for (name, codec) in right {
        for payload_type in [96, 111] {
            let mut packets = sent(name);
            packets
                .iter_mut()
                .for_each(|p| p.payload_type = payload_type);
            let mut r = Run::hinted(None, 0);
            packets.iter().for_each(|p| r.push(p));
            assert_eq!(r.finish().input.container(), Some(codec), "{name}");
        }
    }
}

#[test]
fn a_wrong_hint_is_overruled_whatever_it_says() {
    for (name, codec) in [
        ("rtp01_ffmpeg_h264_ipp", "H264"),
        ("rtp03_ffmpeg_hevc_b3", "H265"),
        ("rtp35_gst_mp2t", "mpegts"),
        ("rtp31_gst_aac_mpeg4generic", "AAC"),
    ] {
        for &wrong in PayloadFormat::ALL {
            let mut r = Run::hinted(Some(PayloadHint::from(wrong)), 90_000);
            sent(name).iter().for_each(|p| r.push(p));
            assert_eq!(
                r.finish().input.container(),
                Some(codec),
                "{name} {wrong:?}"
            );
        }
    }
}

#[test]
fn ts_of_other_sizes_and_offsets_is_handed_on() {
    let stream: Vec<u8> = sent("rtp35_gst_mp2t")
        .into_iter()
        .flat_map(|p| p.payload)
        .collect();
    let parity: Vec<u8> = stream
        .chunks(188)
        .flat_map(|p| [p, &[0xA5; 16]].concat())
        .collect();
    for (bytes, size) in [
        (&parity, 204 * 6),
        (&parity, 1316),
        (&stream, 1300),
        (&stream, 1000),
    ] {
        for payload_type in [33, 96] {
            let chunks: Vec<_> = bytes.chunks(size).map(|c| (0u32, c)).collect();
            let mut r = Run::hinted(None, 0);
            let sent = packets(payload_type, &chunks);
            sent.iter().for_each(|p| r.push(p));
            assert_eq!(r.input.container(), Some("mpegts"), "{size} {payload_type}");
            let taken = r.taken.iter().filter(|t| **t == Taken::MpegTs).count();
            assert!(taken + 2 >= sent.len(), "{size} {payload_type} {taken}");
        }
    }
}

#[test]
fn ts_of_other_sizes_and_offsets_loses_no_packet() {
    let stream: Vec<u8> = sent("rtp35_gst_mp2t")
        .into_iter()
        .flat_map(|p| p.payload)
        .collect();
    let parity: Vec<u8> = stream
        .chunks(188)
        .flat_map(|p| [p, &[0xA5; 16]].concat())
        .collect();
    let run = |bytes: &[u8], size: usize| {
        let format = crate::Format::Rtp {
            hint: Some(PayloadFormat::Mp2t.into()),
            clock_rate: 90_000,
            ssrc: SSRC,
        };
        let mut pipeline = crate::Pipeline::new(format, Limits::default());
        let mut units = 0;
        for (n, payload) in (0..).zip(bytes.chunks(size)) {
            pipeline.push(Packet {
                slot: n,
                arrival: Instant::from_millis(n),
                lost_before: 0,
                discontinuity: false,
                timestamp: 0,
                marker: false,
                payload_type: 33,
                payload,
            });
            while pipeline.poll_unit().is_some() {
                units += 1;
            }
        }
        pipeline.finish();
        while pipeline.poll_unit().is_some() {
            units += 1;
        }
        (units, pipeline.counters().ts_packets)
    };
    let whole = run(&stream, 1316);
    assert_eq!(whole.1 as usize, stream.len() / 188);
    for (bytes, size) in [
        (&stream, 1000),
        (&stream, 188),
        (&parity, 204 * 6),
        (&parity, 1316),
        (&parity, 204),
    ] {
        assert_eq!(run(bytes, size), whole, "{size}");
    }
}
