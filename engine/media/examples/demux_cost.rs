//! Feeds a pipeline with a synthetic 50 Mb/s H.264 transport stream (25 frames a second, four
//! slices each, in payloads of seven packets), for counting instructions:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*Pipeline*push*' demux_cost 1
//! ```
//!
//! Divide the instructions by the packets that it prints. `scan` as second argument runs only
//! the start-code search over the same payloads.

use mirror_base::Instant;
use mirror_media::{Format, Limits, Packet, Pipeline};

const PID: u16 = 0x100;

fn section(pid: u16, text: &str, out: &mut Vec<u8>) {
    let mut packet = vec![0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10, 0];
    packet.extend(
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap_or(0)),
    );
    packet.resize(188, 0xFF);
    out.extend(packet);
}

fn frame(n: u32, noise: &mut u64) -> Vec<u8> {
    let mut es = vec![0, 0, 0, 1, 0x09, 0xF0];
    if n == 0 {
        // 176 × 144, High, 25 frames a second, and its PPS.
        es.extend([0, 0, 0, 1, 0x67, 0x42, 0xC0, 0x0C, 0xDA, 0x0B, 0x13, 0x90]);
        es.extend([0, 0, 0, 1, 0x68, 0xCE, 0x3C, 0x80]);
    }
    for _ in 0..4 {
        es.extend([
            0,
            0,
            1,
            if n == 0 { 0x65 } else { 0x41 },
            0x9A,
            0x10 + n as u8,
        ]);
        for _ in 0..62_000 {
            *noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // As a coder writes it: no two zero bytes in a row.
            let byte = (*noise >> 56) as u8;
            es.push(if byte == 0 && es.last() == Some(&0) {
                0x80
            } else {
                byte
            });
        }
    }
    es
}

fn stream(frames: u32) -> Vec<u8> {
    let mut out = Vec::new();
    section(0, "00b00d0001c100000001f0002ab104b2", &mut out);
    section(
        0x1000,
        "02b0120001c10000e100f0001be100f00015bd4d56",
        &mut out,
    );
    let (mut noise, mut counter) = (1, 0_u8);
    for n in 0..frames {
        let mut pes = vec![0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1];
        pes.extend(frame(n, &mut noise));
        for (k, chunk) in pes.chunks(184).enumerate() {
            let stuffing = 184 - chunk.len();
            out.extend([0x47, u8::from(k == 0) << 6 | (PID >> 8) as u8, PID as u8]);
            out.push(if stuffing > 0 { 0x30 } else { 0x10 } | counter);
            counter = (counter + 1) & 15;
            if stuffing > 0 {
                out.push((stuffing - 1) as u8);
                out.extend((1..stuffing).map(|i| if i == 1 { 0 } else { 0xFF }));
            }
            out.extend(chunk);
        }
    }
    out
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let loops: u32 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1);
    let bytes = stream(10);
    if arguments.next().as_deref() == Some("scan") {
        return scan(&bytes, loops);
    }
    let mut pipeline = Pipeline::new(Format::MpegTs, Limits::default());
    let (mut units, mut packets) = (0, 0);
    for slot in 0..u64::from(loops) {
        for (n, payload) in bytes.chunks(1316).enumerate() {
            packets += payload.len() / 188;
            measured_push(
                &mut pipeline,
                Packet {
                    slot: slot << 32 | n as u64,
                    arrival: Instant::from_micros(n as u64 * 200),
                    lost_before: 0,
                    discontinuity: false,
                    timestamp: 0,
                    marker: false,
                    payload_type: 0,
                    payload,
                },
            );
            units += core::iter::from_fn(|| pipeline.poll_unit()).count();
        }
    }
    println!(
        "{packets} packets, {units} units, {} tracks",
        pipeline.tracks().len()
    );
}

/// What callgrind counts.
#[inline(never)]
fn measured_push(pipeline: &mut Pipeline, packet: Packet<'_>) {
    pipeline.push(packet);
}

#[inline(never)]
fn scan(bytes: &[u8], loops: u32) {
    let finder = memchr::memmem::Finder::new(&[0, 0, 1]);
    let mut found = 0;
    for _ in 0..loops {
        for packet in bytes.chunks_exact(188) {
            let mut data = &packet[4..];
            while let Some(at) = finder.find(data) {
                found += 1;
                data = &data[at + 3..];
            }
        }
    }
    println!("{found} start codes");
}
