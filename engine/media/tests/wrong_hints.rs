//! RTP whose payload is of another kind than signalling says.

use mirror_base::ring::SlotMeta;
use mirror_base::{Instant, SlotRing};
use mirror_media::{Codec, Format, Limits, Packet, Pipeline};

#[test]
fn rtp_that_is_no_transport_stream_despite_its_hint_has_tracks_of_its_own() {
    let mut ring = SlotRing::with_owned_chunks(4);
    let format = Format::Rtp {
        hint: Some(mirror_media::PayloadFormat::Mp2t.into()),
        clock_rate: 0,
        ssrc: 7,
    };
    let mut pipeline = Pipeline::new(format, Limits::default());
    // A KLV unit in each packet (SMPTE ST 336: universal key, length, value).
    let mut unit = b"\x06\x0E\x2B\x34\x02\x0B\x01\x01\x0E\x01\x03\x01\x01\x00\x00\x00\x20".to_vec();
    unit.resize(17 + 32, 1);
    let mut units = Vec::new();
    for slot in 0..40 {
        let arrival = Instant::from_millis(slot);
        ring.insert(slot, &unit, SlotMeta::new(arrival, 0, 0))
            .unwrap();
        pipeline.push(Packet {
            slot,
            arrival,
            lost_before: 0,
            discontinuity: false,
            timestamp: slot as u32 * 3_000,
            marker: true,
            payload_type: 96,
            payload: &unit,
        });
        while let Some(unit) = pipeline.poll_unit() {
            assert!(
                usize::from(unit.track) < pipeline.tracks().len(),
                "{unit:?}"
            );
            let mut bytes = Vec::new();
            assert!(pipeline.extract(&unit, &ring, &mut bytes));
            units.push(bytes);
        }
    }
    assert!(
        units.len() > 10 && units.iter().all(|u| *u == unit),
        "{}",
        units.len()
    );
    assert_eq!(pipeline.tracks()[0].codec, Codec::Klv);
    assert_eq!(pipeline.counters().units, units.len() as u64);
}
