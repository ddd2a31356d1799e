//! Audio in transport streams: each frame is a unit, wherever PES packets begin.

mod common;

use common::{Bench, elementary_stream, facts, modulo, pid_of, vector};
use mirror_media::codec::audio::opus::control_header;
use serde_json::Value;

#[test]
fn audio_units_are_frames_and_the_first_of_a_pes_packet_has_its_time() {
    for (name, pid, profile) in [
        ("ts_h264_aac_cbr600k.ts", "0x101", "LC"),
        ("ts_h264_interlaced_mp2.ts", "0x101", "Layer II"),
        ("ts_h264b2_ac3.ts", "0x101", ""),
        ("ts_h264_2997_eac3.ts", "0x101", ""),
        ("ts_hevc_opengop_opus.ts", "0x101", ""),
        ("ts_aac_latm_only.ts", "0x100", "LC"),
    ] {
        let bench = Bench::run(&vector(name), 1316);
        let facts = facts(name);
        let number = pid_of(&Value::from(pid));
        let units = bench.units_of(number);
        let streams = facts["ffprobe_streams"].as_array().unwrap();
        let stream = streams.iter().find(|s| s["id"] == pid).unwrap();
        let frames = stream["nb_read_packets"].as_str().unwrap();
        assert_eq!(units.len().to_string(), frames, "{name}");
        assert!(units.iter().all(|u| !u.damaged), "{name}");
        let times: Vec<u64> = units.iter().map(|u| modulo(u.pts).unwrap()).collect();
        for pts in facts["pes"][pid]["pts"].as_array().unwrap() {
            assert!(times.contains(&pts.as_u64().unwrap()), "{name}: {pts}");
        }
        let steps: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(
            steps.iter().all(|s| s.abs_diff(steps[0]) <= 1),
            "{name}: {steps:?}"
        );
        let track = &bench.pipeline.tracks()[bench.track(number)];
        assert_eq!(track.profile, profile, "{name}");
    }
}

#[test]
fn audio_frames_may_straddle_pes_packets() {
    let name = "ts_aac_frames_straddle_pes.ts";
    for payload in [1316, 188, 1000, 60] {
        let bench = Bench::run(&vector(name), payload);
        let units = bench.units_of(0x101);
        assert_eq!(units.len(), 95);
        for (n, unit) in units.iter().enumerate() {
            assert_eq!(unit.pts, Some(90_000 + n as i64 * 1920), "frame {n}");
            assert!(!unit.damaged && bench.bytes_of(unit).len() == unit.bytes as usize);
            assert!(bench.bytes_of(unit).starts_with(&[0xFF, 0xF1]), "frame {n}");
        }
        let whole: Vec<u8> = units.iter().flat_map(|u| bench.bytes_of(u)).collect();
        assert!(whole == elementary_stream(&vector(name), 0x101));
    }
}

#[test]
fn opus_units_are_packets_without_their_control_headers() {
    let name = "ts_hevc_opengop_opus.ts";
    let bench = Bench::run(&vector(name), 1316);
    let carried = elementary_stream(&vector(name), 0x101);
    let mut rest = carried.as_slice();
    for unit in bench.units_of(0x101) {
        let header = control_header(rest).expect("a control header");
        let (packet, behind) = rest[header.bytes..].split_at(header.packet_bytes);
        assert!(bench.bytes_of(&unit) == packet);
        assert_eq!(packet.len(), unit.bytes as usize);
        rest = behind;
    }
    assert!(rest.is_empty());
}
