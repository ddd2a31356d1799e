//! RTP payload formats: a hint with `a=fmtp` parameters, or none, then packets, some of them
//! lost. The input is read so:
//!
//! ```text
//! u8 limits, u8 format (of PayloadFormat::ALL; another: none), u8 channels
//! u8 length of the parameters, the parameters
//! packets: u8 flags (1 marker, 2 timestamp, 4 loss, 8 more, 16 time passes), u16 length,
//!     [i16 ticks since the last] [u8 packets lost before it] [u8 what], payload
//! ```

use core::time::Duration;

use mirror_media::{Format, FormatParameters, PayloadFormat, PayloadHint};

use crate::media_harness::{Bench, MAX_PAYLOAD, Reader, Side, limits};

/// Most packets of one input.
const MAX_PACKETS: usize = 400;

/// A hint and packets.
pub fn run(data: &[u8]) {
    let mut input = Reader(data);
    let _ = feed(&mut input);
}

/// The same without a hint.
pub fn without_hint(data: &[u8]) {
    let mut head = data.to_vec();
    if let Some(format) = head.get_mut(1) {
        *format = 0xFF;
    }
    run(&head);
}

fn feed(input: &mut Reader<'_>) -> Option<()> {
    let (choice, format, channels) = (input.byte()?, input.byte()?, input.byte()?);
    let length = input.byte()?;
    let fmtp = String::from_utf8_lossy(input.take(length.into()));
    let hint = PayloadFormat::ALL.get(usize::from(format)).map(|format| {
        let parameters = FormatParameters::parse(*format, &fmtp).unwrap_or_default();
        assert!(parameters.parameter_sets.len() <= 64);
        PayloadHint {
            format: *format,
            parameters: FormatParameters {
                channels: parameters.channels.max(channels & 0x0F),
                ..parameters
            },
        }
    });
    let clock_rate = match channels >> 4 {
        0 => 0,
        1 => 48_000,
        2 => 90_000,
        3 => 44_100,
        4 => 1,
        5 => u32::MAX,
        rate => u32::from(rate) * 1_000,
    };
    let format = Format::Rtp {
        hint,
        clock_rate,
        ssrc: 0x1234,
    };
    let mut bench = Bench::new(format, limits(choice));
    packets(&mut bench, input);
    bench.finish();
    Some(())
}

fn packets(bench: &mut Bench, input: &mut Reader<'_>) -> Option<()> {
    let mut side = Side {
        timestamp: 0xFFFF_0000,
        payload_type: 96,
        ..Side::default()
    };
    for _ in 0..MAX_PACKETS {
        let (flags, length) = (input.byte()?, input.u16()?);
        side.marker = flags & 1 != 0;
        if flags & 2 != 0 {
            let ticks = i32::from(input.u16()?.cast_signed());
            side.timestamp = side.timestamp.wrapping_add_signed(ticks);
        }
        side.lost_before = 0;
        if flags & 4 != 0 {
            side.lost_before = input.byte()?.into();
        }
        side.discontinuity = false;
        if flags & 8 != 0 {
            match input.byte()? {
                0 => side.discontinuity = true,
                n @ 1..=127 => side.payload_type = n,
                n => {
                    bench.pipeline.set_ssrc(n.into());
                    side.timestamp = side.timestamp.wrapping_add(u32::from(n) << 24);
                }
            }
        }
        if flags & 16 != 0 {
            bench.advance(Duration::from_millis(u64::from(flags)));
        }
        bench.push(input.take(usize::from(length) % (MAX_PAYLOAD + 1)), side);
    }
    None
}
