//! User-space instructions for each RTP packet of video, from the delivered packet to access
//! units: for callgrind (`valgrind --tool=callgrind --toggle-collect='*measured*'`). Run by
//! `tests/cost/media.rs`.

use mirror_base::Instant;
use mirror_media::{Format, Limits, Packet, PayloadFormat, Pipeline};

/// A picture of 60 fragments of 1200 bytes.
fn picture(format: PayloadFormat, n: u32) -> Vec<Vec<u8>> {
    (0..60)
        .map(|i| {
            let edge = if i == 0 { 0x80 } else { u8::from(i == 59) << 6 };
            let mut payload = match format {
                PayloadFormat::H264 => vec![0x7C, edge | if n == 0 { 5 } else { 1 }, 0x9A],
                _ => vec![0x62, 1, edge | if n == 0 { 19 } else { 1 }, 0xD0],
            };
            payload.resize(1200, (i as u8) | 1);
            payload
        })
        .collect()
}

#[inline(never)]
fn measured(pipeline: &mut Pipeline, packet: Packet<'_>) -> u64 {
    pipeline.push(packet);
    let mut units = 0;
    while pipeline.poll_unit().is_some() {
        units += 1;
    }
    units
}

fn main() {
    let format = match std::env::args().nth(1).as_deref() {
        Some("h264") => PayloadFormat::H264,
        _ => PayloadFormat::H265,
    };
    let sets: &[&[u8]] = match format {
        PayloadFormat::H264 => &[
            &[
                0x67, 0x64, 0x00, 0x0C, 0xAC, 0xD9, 0x42, 0xC4, 0xEC, 0x04, 0x40, 0x00, 0x00, 0x03,
                0x00, 0x40, 0x00, 0x00, 0x0C, 0x83, 0xC5, 0x0A, 0x65, 0x80,
            ],
            &[0x68, 0xEF, 0xBC, 0xB0],
        ],
        _ => &[&[0x40, 0x01, 0x0C, 0x01]],
    };
    let hint = Some(format.into());
    let mut pipeline = Pipeline::new(
        Format::Rtp {
            hint,
            clock_rate: 90_000,
            ssrc: 1,
        },
        Limits::default(),
    );
    let (mut slot, mut units) = (0, 0);
    for n in 0..200 {
        let mut payloads: Vec<Vec<u8>> = Vec::new();
        if n == 0 {
            payloads.extend(sets.iter().map(|s| s.to_vec()));
        }
        payloads.extend(picture(format, n));
        let last = payloads.len() - 1;
        for (i, payload) in payloads.iter().enumerate() {
            let packet = Packet {
                slot,
                arrival: Instant::from_millis(slot),
                lost_before: 0,
                discontinuity: false,
                timestamp: n * 3600,
                marker: i == last,
                payload_type: 96,
                payload,
            };
            units += measured(&mut pipeline, packet);
            slot += 1;
        }
    }
    println!("packets {slot} units {units}");
}
