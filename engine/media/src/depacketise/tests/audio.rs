//! Audio captures held against their facts, with and without signalling.

use super::*;

fn digest(bytes: &[u8]) -> String {
    hex(&sha256::digest(bytes))
}

fn facts(name: &str) -> Value {
    json(name)["streams"][0].clone()
}

/// The payloads in order, from `skip` on, without `cut` bytes each.
fn payloads(packets: &[Sent], cut: usize) -> Vec<u8> {
    packets
        .iter()
        .flat_map(|p| p.payload[cut..].to_vec())
        .collect()
}

fn assert_aac(name: &str, r: &Run, clock_rate: i64) {
    let facts = facts(name);
    let all = |key: &str| -> Vec<i64> {
        let all = facts[key].as_array().unwrap();
        all.iter().map(|s| s.as_i64().unwrap()).collect()
    };
    // They are listed in the order of transmission.
    let mut expected: Vec<_> = all("au_rtp_ts").into_iter().zip(all("au_sizes")).collect();
    expected.sort_unstable();
    assert_eq!(r.units.len(), expected.len(), "{name}");
    for (unit, (time, size)) in r.units.iter().zip(expected) {
        let time = time * 90_000 / clock_rate;
        let found = (unit.pts, i64::from(unit.bytes), unit.damaged);
        assert_eq!(found, (Some(time), size, false), "{name}");
    }
    assert_eq!(
        facts["raw_aac_sha256_in_ts_order"],
        digest(&r.extract_all()).as_str(),
        "{name}"
    );
    assert!(r.taken.iter().all(|t| *t == Taken::Done), "{name}");
    assert_eq!(r.input.container(), Some("AAC"));
}

#[test]
fn aac_units_agree_with_their_facts() {
    let fmtp = "streamtype=5;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;\
                config=1188";
    for name in [
        "rtp04_ffmpeg_aac_mpeg4generic",
        "rtp31_gst_aac_mpeg4generic",
        "rtp69_syn_aac_interleaved_fragmented",
    ] {
        let packets = sent(name);
        let r = run_as(PayloadFormat::Mpeg4Generic, fmtp, 48_000, &packets);
        assert_aac(name, &r, 48_000);
        let track = &r.input.tracks()[0];
        assert_eq!(
            (
                track.codec,
                track.sample_rate,
                track.channels,
                track.profile
            ),
            (Codec::Aac, 48_000, 1, "LC")
        );
        assert_eq!(r.input.parameter_sets(0), [0x11, 0x88]);
        // By the bits alone, at the usual clock rate.
        let mut r = Run::hinted(None, 0);
        packets.iter().for_each(|p| r.push(p));
        assert_aac(name, &r.finish(), 48_000);
    }
}

#[test]
fn a_lost_fragment_damages_its_aac_unit_and_no_other() {
    let packets = sent("rtp69_syn_aac_interleaved_fragmented");
    for lost in [2, 3] {
        let mut fewer = packets.clone();
        fewer.remove(lost);
        let r = run_as(PayloadFormat::Mpeg4Generic, "config=1188", 48_000, &fewer);
        let damaged: Vec<_> = r.units.iter().filter(|u| u.damaged).collect();
        assert_eq!((r.units.len(), damaged.len()), (21, 1), "{lost}");
        assert_eq!(damaged[0].pts, Some(8192 * 90_000 / 48_000));
    }
}

#[test]
fn interleaved_aac_goes_on_behind_a_lost_packet() {
    let packets = sent("rtp69_syn_aac_interleaved_fragmented");
    for lost in 4..packets.len() {
        let mut fewer = packets.clone();
        fewer.remove(lost);
        let r = run_as(PayloadFormat::Mpeg4Generic, "config=1188", 48_000, &fewer);
        let times: Vec<_> = r.units.iter().map(|u| u.pts.unwrap()).collect();
        assert!(times.is_sorted(), "{lost}: {times:?}");
        assert!(r.units.len() >= 17, "{lost}");
    }
}

#[test]
fn au_headers_of_other_forms_are_read() {
    // AAC-lbr: sizes of 6 bits, deltas of 2.
    let lbr = "sizelength=6;indexlength=2;indexdeltalength=2";
    let payload = [0, 16, 3 << 2, 2 << 2, 1, 2, 3, 4, 5];
    let r = run_as(
        PayloadFormat::Mpeg4Generic,
        lbr,
        48_000,
        &packets(97, &[(0, &payload)]),
    );
    assert_eq!(r.units.iter().map(|u| u.bytes).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(r.extract_all(), [1, 2, 3, 4, 5]);
    assert_eq!(r.units[1].pts, Some(1920));
    // No AU header section, units of a constant size and duration.
    let constant = "constantsize=4;constantduration=480;x=1;sizelength=0";
    let r = run_as(
        PayloadFormat::Mpeg4Generic,
        constant,
        48_000,
        &packets(97, &[(0, &[1, 2, 3, 4, 5, 6, 7, 8])]),
    );
    assert_eq!(r.units.iter().map(|u| u.bytes).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(r.units[1].pts, Some(900));
    // Time deltas, random access flag, an auxiliary section of 3 bytes.
    let all = "sizelength=8;indexlength=0;indexdeltalength=0;ctsdeltalength=7;\
               dtsdeltalength=7;randomaccessindication=1;auxiliarydatasizelength=8";
    // size 2, no CTS, no DTS, RAP; then size 1, CTS −1, no DTS, no RAP.
    let bits = "00000010 0 0 1 00000001 1 1111111 0 0 00".replace(' ', "");
    let headers: Vec<u8> = (0..bits.len() / 8)
        .map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap())
        .collect();
    let mut payload = vec![0, 29];
    payload.extend(&headers);
    payload.extend([bits_left(&bits)].into_iter().flatten());
    payload.extend([24, 0xA, 0xB, 0xC, 1, 2, 3]);
    let r = run_as(
        PayloadFormat::Mpeg4Generic,
        all,
        48_000,
        &packets(97, &[(0, &payload)]),
    );
    assert_eq!(r.extract_all(), [1, 2, 3]);
    assert_eq!(r.units[1].pts, Some(1023 * 90_000 / 48_000));
}

/// The byte that a number of bits that is no multiple of eight ends in.
fn bits_left(bits: &str) -> Option<u8> {
    let rest = &bits[bits.len() / 8 * 8..];
    (!rest.is_empty()).then(|| u8::from_str_radix(&format!("{rest:0<8}"), 2).unwrap())
}

#[test]
fn latm_elements_agree_with_their_facts() {
    let name = "rtp32_gst_aac_latm_mp4a";
    let packets = sent(name);
    let hinted = |fmtp| run_as(PayloadFormat::Mp4aLatm, fmtp, 48_000, &packets);
    let mut bare = Run::hinted(None, 0);
    packets.iter().for_each(|p| bare.push(p));
    for (r, known) in [
        (hinted("cpresent=0;config=400023103fc0"), true),
        (hinted(""), false),
        (bare.finish(), false),
    ] {
        let facts = facts(name);
        assert_eq!(r.units.len() as u64, facts["packets"].as_u64().unwrap());
        assert_eq!(facts["payload_sha256"], digest(&r.extract_all()).as_str());
        assert_eq!(r.input.container(), Some("AAC_LATM"));
        assert!(r.units.iter().all(|u| !u.damaged));
        let track = &r.input.tracks()[0];
        let channels = if known { 1 } else { 0 };
        assert_eq!((track.codec, track.channels), (Codec::AacLatm, channels));
        if known {
            assert_eq!((track.sample_rate, track.profile), (48_000, "LC"));
        }
    }
}

#[test]
fn latm_elements_with_configuration_are_told_apart() {
    // useSameStreamMux 0, LC 48 kHz mono, four bytes; then the same configuration, two bytes.
    let config: String = crate::tests::hex("400023103fc0")
        .iter()
        .map(|b| format!("{b:08b}"))
        .collect();
    let element = |head: &str, media: &[u8]| -> Vec<u8> {
        let mut bits = format!("{head}{:08b}", media.len());
        media.iter().for_each(|b| {
            let _ = write!(bits, "{b:08b}");
        });
        while bits.len() % 8 != 0 {
            bits.push('0');
        }
        let byte = |i: usize| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap();
        (0..bits.len() / 8).map(byte).collect()
    };
    let first = element(&format!("0{}", &config[..44]), &[1, 2, 3, 4]);
    let second = element("1", &[9, 8]);
    let both = [first.as_slice(), second.as_slice()].concat();
    let mut sent = packets(
        97,
        &[
            (0, &both),
            (2048, &first),
            (3072, &first[..5]),
            (3072, &first[5..]),
        ],
    );
    sent[2].marker = false;
    let r = run_as(PayloadFormat::Mp4aLatm, "", 0, &sent);
    let sizes: Vec<_> = r.units.iter().map(|u| u.bytes as usize).collect();
    let n = first.len();
    assert_eq!(sizes, [n, second.len(), n, n]);
    let times: Vec<_> = r.units.iter().map(|u| u.pts.unwrap()).collect();
    assert_eq!(times, [0, 1920, 3840, 5760]);
    let track = &r.input.tracks()[0];
    assert_eq!((track.sample_rate, track.channels), (48_000, 1));
    // A lost end damages the element, and the packet behind it is no part of it.
    let mut cut = sent.clone();
    cut.remove(3);
    cut.push(Sent {
        sequence: 4,
        timestamp: 4096,
        ..sent[1].clone()
    });
    let r = run_as(PayloadFormat::Mp4aLatm, "", 0, &cut);
    let damaged: Vec<_> = r.units.iter().map(|u| u.damaged).collect();
    assert_eq!(damaged, [false, false, false, true, false]);
}

#[test]
fn opus_packets_are_units_with_and_without_signalling() {
    for (name, channels) in [("rtp05_ffmpeg_opus", 2), ("rtp34_gst_opus", 1)] {
        let packets = sent(name);
        let facts = facts(name);
        let r = run_as(PayloadFormat::Opus, "", 48_000, &packets);
        let sizes: Vec<u64> = r.units.iter().map(|u| u64::from(u.bytes)).collect();
        for (size, fact) in sizes.iter().zip(facts["packet_sizes"].as_array().unwrap()) {
            assert_eq!(*size, fact.as_u64().unwrap());
        }
        assert_eq!(r.units.len(), packets.len());
        assert_eq!(r.extract_all(), payloads(&packets, 0));
        let track = &r.input.tracks()[0];
        assert_eq!(
            (track.codec, track.sample_rate, track.channels),
            (Codec::Opus, 48_000, channels)
        );
        let first = i64::from(packets[0].timestamp) * 90_000 / 48_000;
        assert_eq!(r.units[0].pts, Some(first));
        // By timestamps that go on with the samples: the first ones are not enough.
        let mut r = Run::hinted(None, 0);
        packets.iter().for_each(|p| r.push(p));
        let r = r.finish();
        assert_eq!(r.input.container(), Some("OPUS"), "{name}");
        assert!(
            r.units.len() + 4 >= packets.len(),
            "{name} {}",
            r.units.len()
        );
    }
}

#[test]
fn pcm_is_handed_out_as_it_comes() {
    for (name, format, frame) in [
        ("rtp06_ffmpeg_l16_48k_stereo", PayloadFormat::L16, 4),
        ("rtp33_gst_l24_48k_stereo", PayloadFormat::L24, 6),
    ] {
        let packets = sent(name);
        let facts = facts(name);
        let mut stereo = PayloadHint::from(format);
        stereo.parameters.channels = 2;
        for hint in [stereo, PayloadHint::from(format)] {
            let mut r = Run::hinted(Some(hint), 48_000);
            packets.iter().for_each(|p| r.push(p));
            let r = r.finish();
            assert_eq!(facts["pcm_be_sha256"], digest(&r.extract_all()).as_str());
            assert!(r.units.iter().all(|u| u.bytes % frame == 0 && !u.damaged));
            let track = &r.input.tracks()[0];
            assert_eq!((track.sample_rate, track.channels), (48_000, 2), "{name}");
        }
        let mut r = Run::hinted(None, 0);
        packets.iter().for_each(|p| r.push(p));
        let r = r.finish();
        assert_eq!(r.input.container(), Some(format.codec().name()), "{name}");
        assert!(
            r.units.len() + 2 >= packets.len(),
            "{name} {}",
            r.units.len()
        );
        assert_eq!(r.input.tracks()[0].channels, 2);
    }
}

#[test]
fn static_types_say_format_rate_and_channels() {
    let one = [0u8; 147 * 4];
    let sent = packets(10, &[(0, &one), (147, &one), (294, &one)]);
    let mut r = Run::hinted(None, 0);
    sent.iter().for_each(|p| r.push(p));
    let r = r.finish();
    let track = &r.input.tracks()[0];
    assert_eq!(
        (track.codec, track.sample_rate, track.channels),
        (Codec::L16, 44_100, 2)
    );
    assert_eq!(r.units[2].pts, Some(600));
}

#[test]
fn broken_pcm_frames_are_cut_off_and_counted() {
    let mut hint = PayloadHint::from(PayloadFormat::L24);
    hint.parameters.channels = 2;
    let mut r = Run::hinted(Some(hint), 48_000);
    packets(97, &[(0, &[1; 20]), (3, &[1; 5]), (4, &[1; 12])])
        .iter()
        .for_each(|p| r.push(p));
    let bytes: Vec<_> = r.units.iter().map(|u| u.bytes).collect();
    assert_eq!(bytes, [18, 12]);
    let malformed = Taken::Discarded(Discard::MalformedPayload);
    assert_eq!(r.taken, [malformed, malformed, Taken::Done]);
}

#[test]
fn ac3_frames_are_units() {
    let name = "rtp30_gst_ac3";
    let packets = sent(name);
    let facts = facts(name);
    assert_eq!(
        facts["payload_sha256"],
        digest(&payloads(&packets, 0)).as_str()
    );
    let mut bare = Run::hinted(None, 0);
    packets.iter().for_each(|p| bare.push(p));
    for r in [
        run_as(PayloadFormat::Ac3, "", 48_000, &packets),
        bare.finish(),
    ] {
        let frames: usize = packets.iter().map(|p| usize::from(p.payload[1])).sum();
        assert_eq!(r.units.len(), frames);
        assert_eq!(r.extract_all(), payloads(&packets, 2));
        assert!(r.units.iter().all(|u| u.bytes == 256 && !u.damaged));
        // 32 ms a frame.
        let inside = r.units.windows(2).take(4);
        assert!(
            inside
                .map(|w| w[1].pts.unwrap() - w[0].pts.unwrap())
                .all(|d| d == 2880)
        );
        let track = &r.input.tracks()[0];
        assert_eq!((track.codec, track.sample_rate), (Codec::Ac3, 48_000));
        assert!(track.channels > 0);
    }
}

/// A frame of AC-3, 64 kb/s at 48 kHz.
fn ac3_frame() -> Vec<u8> {
    let mut frame = vec![0x55; 256];
    frame[..8].copy_from_slice(&[0x0B, 0x77, 0, 0, 0x08, 0x40, 0x43, 0xE1]);
    frame
}

#[test]
fn ac3_fragments_are_joined_and_orphans_left_out() {
    let frame = ac3_frame();
    let parts: Vec<Vec<u8>> = [(1u8, 0..160), (3, 160..200), (3, 200..256)]
        .into_iter()
        .map(|(kind, range)| [&[kind, 3], &frame[range]].concat())
        .collect();
    let mut sent = packets(97, &[(0, &parts[0]), (0, &parts[1]), (0, &parts[2])]);
    sent[0].marker = false;
    sent[1].marker = false;
    let r = run_as(PayloadFormat::Ac3, "", 48_000, &sent);
    assert_eq!(r.extract_all(), frame);
    assert_eq!((r.units.len(), r.units[0].damaged), (1, false));
    // Without its start nothing of it is used; without its middle it is damaged.
    let r = run_as(PayloadFormat::Ac3, "", 48_000, &sent[1..]);
    assert!(r.units.is_empty());
    let orphan = Taken::Discarded(Discard::OrphanFragment);
    assert_eq!(r.taken, [orphan, orphan]);
    let mut fewer = sent.clone();
    fewer.remove(1);
    let r = run_as(PayloadFormat::Ac3, "", 48_000, &fewer);
    assert_eq!((r.units.len(), r.units[0].damaged), (1, true));
}

#[test]
fn eac3_substreams_belong_to_their_frame() {
    let mut first = vec![0; 256];
    first[..8].copy_from_slice(&[0x0B, 0x77, 0x00, 0x7F, 0x34, 0x87, 0, 0]);
    let mut dependent = first.clone();
    dependent[2] = 0x40;
    let payload = [&[0, 4][..], &first, &dependent, &first, &dependent].concat();
    let r = run_as(
        PayloadFormat::Eac3,
        "",
        48_000,
        &packets(97, &[(0, &payload)]),
    );
    assert_eq!(r.units.len(), 2);
    assert!(r.units.iter().all(|u| u.bytes == 512));
    assert_eq!(r.units[1].pts, Some(2880));
    assert_eq!(r.extract_all(), payload[2..]);
    let mut bare = Run::hinted(None, 0);
    bare.push(&packets(97, &[(0, &payload)])[0]);
    assert_eq!(bare.finish().input.container(), Some("EAC3"));
}

#[test]
fn mpeg_audio_frames_are_units_whole_or_cut() {
    // Layer II, 64 kb/s, 48 kHz, mono: 192 bytes.
    let mut frame = vec![0x11; 192];
    frame[..4].copy_from_slice(&[0xFF, 0xFD, 0x44, 0xC4]);
    let two = [&[0, 0, 0, 0][..], &frame, &frame].concat();
    let head = [&[0, 0, 0, 0][..], &frame[..100]].concat();
    let tail = [&[0, 0, 0, 100][..], &frame[100..]].concat();
    let wrong = [&[0, 0, 0, 99][..], &frame[99..]].concat();
    let sent = packets(14, &[(0, &two), (4320, &head), (4320, &tail), (6480, &two)]);
    let mut r = Run::hinted(None, 0);
    sent.iter().for_each(|p| r.push(p));
    let r = r.finish();
    assert_eq!(r.units.len(), 5);
    assert!(r.units.iter().all(|u| u.bytes == 192 && !u.damaged));
    assert_eq!(r.extract_all(), frame.repeat(5));
    let times: Vec<_> = r.units.iter().map(|u| u.pts.unwrap()).collect();
    assert_eq!(times, [0, 2160, 4320, 6480, 8640]);
    let track = &r.input.tracks()[0];
    assert_eq!(
        (
            track.codec,
            track.sample_rate,
            track.channels,
            track.profile
        ),
        (Codec::MpegAudio, 48_000, 1, "Layer II")
    );
    let sent = packets(
        14,
        &[(0, &two), (4320, &head), (4320, &wrong), (6480, &two)],
    );
    let r = run_as(PayloadFormat::Mpa, "", 90_000, &sent);
    let damaged: Vec<_> = r.units.iter().map(|u| u.damaged).collect();
    assert_eq!(damaged, [false, false, true, false, false]);
}
