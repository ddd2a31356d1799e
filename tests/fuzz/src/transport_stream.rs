//! MPEG-TS (ISO 13818-1). The first byte chooses limits and how the rest is read: as a stream cut
//! into datagrams, or as operations that write packets, mostly right ones. Each input is read
//! twice: for access units, and for PES packets as they come.

use core::time::Duration;

use mirror_media::{Format, Limits, Units};

use crate::media_harness::{Bench, Reader, Side, limits};
use crate::ts_writer::{PIDS, Writer};

/// Most operations of one input.
const MAX_OPERATIONS: usize = 300;

/// A stream.
pub fn run(data: &[u8]) {
    let [choice, size, rest @ ..] = data else {
        return;
    };
    for units in [Units::AccessUnits, Units::PesPackets] {
        let limits = Limits {
            units,
            ..limits(*choice)
        };
        let mut bench = Bench::new(Format::MpegTs, limits);
        if choice & 0x80 == 0 {
            plain(&mut bench, *size, rest);
        } else {
            structured(&mut bench, *size, rest);
        }
        bench.finish();
    }
}

/// Datagrams of seven packets, or of other sizes.
fn plain(bench: &mut Bench, size: u8, data: &[u8]) {
    let size = match size {
        0 => 1_316,
        1 => 1_344,
        2 => 1_428,
        size => usize::from(size) * 5,
    };
    for chunk in data.chunks(size) {
        bench.push(chunk, Side::default());
        bench.advance(Duration::from_millis(1));
    }
    if let Some(section) = data.get(..data.len().min(4_096)) {
        let _ = mirror_media::ts::splice::parse(section);
    }
}

struct Operator<'a> {
    input: Reader<'a>,
    writer: Writer,
    pts: u64,
    side: Side,
}

fn structured(bench: &mut Bench, size: u8, data: &[u8]) {
    let mut operator = Operator {
        input: Reader(data),
        writer: Writer::default(),
        pts: 90_000 * u64::from(size),
        side: Side::default(),
    };
    let per_datagram = 188 * (1 + usize::from(size % 7));
    for _ in 0..MAX_OPERATIONS {
        if operator.step(bench).is_none() {
            break;
        }
        let bytes = &mut operator.writer.bytes;
        while bytes.len() >= per_datagram {
            let rest = bytes.split_off(per_datagram);
            bench.push(bytes, core::mem::take(&mut operator.side));
            *bytes = rest;
        }
    }
    bench.push(&operator.writer.bytes, operator.side);
}

impl Operator<'_> {
    fn step(&mut self, bench: &mut Bench) -> Option<()> {
        let input = &mut self.input;
        let operation = input.byte()?;
        let pid = PIDS[usize::from(operation >> 4 & 7)];
        match operation & 15 {
            0 => {
                let count = usize::from(input.byte()? % 9);
                self.writer.tables(input.take(count));
            }
            1 => {
                let (place, count) = (input.byte()?, input.byte()?);
                let pid = match place {
                    n @ 0..=0x1F => u16::from(n),
                    0x20..0x80 => 0x1000,
                    _ => pid,
                };
                self.writer.section(pid, input.take(count.into()).to_vec());
            }
            2..=5 => {
                let (id, size) = (input.byte()?, input.u16()?);
                let id = match id {
                    0..64 => 0xE0,
                    64..128 => 0xC0,
                    128..160 => 0xBD,
                    other => other,
                };
                self.pts += 3_003;
                let data = input.take(usize::from(size) % 2_000);
                self.writer.pes(pid, id, self.pts, operation & 1 == 1, data);
            }
            6 => {
                let size = input.byte()?;
                let data = input.take(size.into());
                self.writer.packet(pid, false, &[], data);
            }
            7 => {
                let time = u64::from(input.u16()?) * 300;
                let base = (self.pts + time / 300) << 15 | 0x7E00;
                let bytes = base.to_be_bytes();
                let mut field = vec![if operation & 0x80 == 0 { 0x10 } else { 0x90 }];
                field.extend(&bytes[2..]);
                self.writer.packet(pid, false, &field, &[]);
            }
            8 => {
                let (head, field, size) = (input.take(4), input.byte()?, input.byte()?);
                let mut packet = vec![0x47];
                packet.extend(head.get(1..).unwrap_or_default());
                packet.extend(input.take(usize::from(field) + usize::from(size)));
                packet.resize(188, field);
                self.writer.bytes.extend(packet);
            }
            9 => self.side.lost_before = input.byte()?.into(),
            10 => self.side.discontinuity = true,
            11 => bench.advance(Duration::from_micros(u64::from(input.u16()?) * 40)),
            12 => self.pts = self.pts.wrapping_add(u64::from(input.u16()?) << 18) & ((1 << 33) - 1),
            // Bytes that belong to no packet, or are missing.
            13 => {
                let size = input.byte()?;
                let noise = input.take(size.into());
                self.writer.bytes.extend(noise);
            }
            14 => {
                let length = self.writer.bytes.len();
                let cut = usize::from(input.byte()?).min(length);
                self.writer.bytes.truncate(length - cut);
            }
            _ => {
                let (at, bits) = (usize::from(input.byte()?), input.byte()?);
                let length = self.writer.bytes.len();
                if let Some(byte) = self.writer.bytes.get_mut(length.wrapping_sub(at)) {
                    *byte ^= bits;
                }
            }
        }
        Some(())
    }
}
