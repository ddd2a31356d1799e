//! Decoding times that a source does not give: those derived from presentation times alone are
//! the ones that transport streams say, and RTP streams get such.

mod common;
#[path = "../../../tests/vectors/pcap.rs"]
mod pcap;

use common::vector;
use mirror_base::Instant;
use mirror_media::{AccessUnit, Format, Limits, Packet, Pipeline};

fn units_of(name: &str) -> (Vec<AccessUnit>, Pipeline) {
    let mut pipeline = Pipeline::new(
        Format::Rtp {
            hint: None,
            clock_rate: 90_000,
            ssrc: 1,
        },
        Limits::default(),
    );
    let mut units = Vec::new();
    let mut slot = 0;
    for datagram in pcap::datagrams(name) {
        let p = datagram.payload;
        if (192..=223).contains(&p[1]) {
            continue;
        }
        slot += 1;
        pipeline.push(Packet {
            slot,
            arrival: Instant::from_micros(datagram.micros + 1),
            lost_before: 0,
            discontinuity: false,
            timestamp: u32::from_be_bytes([p[4], p[5], p[6], p[7]]),
            marker: p[1] & 0x80 != 0,
            payload_type: p[1] & 0x7F,
            payload: &p[12..],
        });
        units.extend(core::iter::from_fn(|| pipeline.poll_unit()));
    }
    pipeline.finish();
    units.extend(core::iter::from_fn(|| pipeline.poll_unit()));
    (units, pipeline)
}

#[test]
fn rtp_units_get_decoding_times_in_steps_of_a_frame() {
    for (name, depth) in [
        ("rtp01_ffmpeg_h264_ipp", 0),
        ("rtp02_ffmpeg_h264_bframes", 1),
        ("rtp03_ffmpeg_hevc_b3", 2),
    ] {
        let (units, pipeline) = units_of(name);
        let track = &pipeline.tracks()[0];
        assert_eq!(track.reorder_depth, depth, "{name}");
        assert!(units.len() > 20, "{name}");
        let frame = 90_000 * i64::from(track.frame_rate.1) / i64::from(track.frame_rate.0);
        let mut times: Vec<i64> = units.iter().map(|u| u.pts.unwrap()).collect();
        times.sort_unstable();
        for (n, unit) in units.iter().enumerate() {
            assert!(unit.dts_derived, "{name}: {n}");
            let expected = match n.checked_sub(usize::from(depth)) {
                Some(place) => times[place],
                None => times[0] - (i64::from(depth) - n as i64) * frame,
            };
            assert_eq!(unit.dts, Some(expected), "{name}: {n}");
        }
        assert!(times.len() == units.len() && units[0].kind.is_key());
    }
}

#[test]
fn transport_streams_that_say_decoding_times_keep_them() {
    let bench = common::Bench::run(&vector("ts_h264b3_opengop_aac.ts"), 1316);
    let units = bench.units_of(common::VIDEO_PID);
    assert!(units.iter().all(|u| u.dts.is_some() && !u.dts_derived));
}
