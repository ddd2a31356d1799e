//! Native RTP: H.264 (RFC 6184) and HEVC (RFC 7798) access units as single NAL units, an
//! aggregation packet for the parameter sets and fragmentation units for the slices. As with
//! [`super::ts`], a loop is made once and patched per sender: sequence number, timestamp, SSRC
//! and the stamp, which stands in a two-byte header extension (RFC 8285, 4.3). Filler data makes
//! the payload of a loop exactly `bitrate × duration`.

use std::sync::Arc;

use super::gop::FrameType;
use super::stamp::{STAMP_BYTES, Stamp};
use super::ts::{ShapeError, Units};
use super::{Noise, VideoCodec, VideoShape, h264, h265};

/// Payload of an RTP packet at the most.
pub const MAX_PAYLOAD: usize = 1316;
/// Fixed header, extension header, stamp element and padding.
pub const HEADER: usize = 12 + 4 + 24;
const STAMP_AT: usize = 12 + 4 + 2;
/// Dynamic payload types that the engine's defaults name: 96 = H264, 97 = H265.
const PAYLOAD_TYPE_H264: u8 = 96;
const PAYLOAD_TYPE_H265: u8 = 97;
const MAX_TEMPLATE_BYTES: u64 = 256 << 20;

/// What a native RTP stream looks like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RtpShape {
    /// The video.
    pub video: VideoShape,
    /// Bits a second of RTP payload.
    pub bitrate_bps: u64,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    start: usize,
    length: u16,
    /// RTP timestamp after the loop's start.
    ticks: u64,
    /// ns after the loop's start.
    due_ns: u64,
    /// It ends a unit.
    ends: Option<FrameType>,
}

/// One GOP as RTP packets.
#[derive(Debug)]
pub struct RtpTemplate {
    bytes: Vec<u8>,
    packets: Vec<Packet>,
    loop_ticks: u64,
}

impl RtpTemplate {
    /// Makes one GOP.
    pub fn new(shape: RtpShape) -> Result<Self, ShapeError> {
        let frame_ticks = shape.video.frame_ticks().ok_or(ShapeError::FrameRate)?;
        let loop_ticks = frame_ticks * u64::from(shape.video.gop);
        let total = u128::from(shape.bitrate_bps) * u128::from(loop_ticks) / (8 * 90_000);
        let total = u64::try_from(total)
            .ok()
            .filter(|t| *t <= MAX_TEMPLATE_BYTES)
            .ok_or(ShapeError::TooLarge)?;
        let plan = shape.video.plan();
        let mut noise = Noise::new(shape.bitrate_bps ^ 0x6D69_7272_6F72);
        let mut build = Builder {
            codec: shape.video.codec,
            bytes: Vec::new(),
            packets: Vec::new(),
            ticks: 0,
            payload: 0,
        };
        let mut budget = 0;
        for (frame, size) in plan.frames.iter().zip(plan.sizes(total)) {
            budget += size;
            build.ticks = u64::from(frame.display + plan.reorder) * frame_ticks;
            let left = budget.saturating_sub(build.payload);
            let target = usize::try_from(left * 995 / 1000)
                .unwrap_or(0)
                .saturating_sub(64);
            let mut nals = shape.video.access_unit(frame, target, &mut noise);
            nals.remove(0); // no delimiter: the marker bit delimits
            build.unit(&nals);
            build.fill(budget);
            build.end_unit(frame.kind);
        }
        if build.payload > total {
            return Err(ShapeError::RateTooLow);
        }
        Ok(build.finish(loop_ticks))
    }
}

struct Builder {
    codec: VideoCodec,
    bytes: Vec<u8>,
    packets: Vec<Packet>,
    ticks: u64,
    /// Payload bytes so far.
    payload: u64,
}

impl Builder {
    fn packet(&mut self, payload: &[&[u8]]) {
        let start = self.bytes.len();
        let payload_type = match self.codec {
            VideoCodec::H264 => PAYLOAD_TYPE_H264,
            VideoCodec::H265 => PAYLOAD_TYPE_H265,
        };
        self.bytes
            .extend_from_slice(&[0x90, payload_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // RFC 8285, 4.3: two-byte elements, appbits 0; 6 words: id 1, length, stamp, padding
        self.bytes
            .extend_from_slice(&[0x10, 0, 0, 6, 1, STAMP_BYTES as u8]);
        self.bytes.resize(start + HEADER, 0);
        for part in payload {
            self.bytes.extend_from_slice(part);
        }
        let length = self.bytes.len() - start;
        self.payload += (length - HEADER) as u64;
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.packets.push(Packet {
            start,
            length,
            ticks: self.ticks,
            due_ns: 0,
            ends: None,
        });
    }

    fn unit(&mut self, nals: &[Vec<u8>]) {
        // the parameter sets, all but the slices, go into one aggregation packet
        let codec = self.codec;
        let is_set = move |nal: &Vec<u8>| match codec {
            VideoCodec::H264 => matches!(nal.first().map(|b| b & 0x1F), Some(7 | 8)),
            VideoCodec::H265 => matches!(nal.first().map(|b| b >> 1), Some(32..=34)),
        };
        let sets: Vec<&Vec<u8>> = nals.iter().filter(|n| is_set(n)).collect();
        if !sets.is_empty() {
            let mut body = match self.codec {
                VideoCodec::H264 => vec![0x60 | 24],  // RFC 6184, 5.7.1: STAP-A
                VideoCodec::H265 => vec![48 << 1, 1], // RFC 7798, 4.4.2: AP
            };
            for set in sets {
                body.extend_from_slice(&u16::try_from(set.len()).unwrap_or(0).to_be_bytes());
                body.extend_from_slice(set);
            }
            self.packet(&[&body]);
        }
        for nal in nals.iter().filter(|n| !is_set(n)) {
            self.nal(nal);
        }
    }

    /// A single NAL unit packet, or fragmentation units (RFC 6184, 5.8; RFC 7798, 4.4.3).
    fn nal(&mut self, nal: &[u8]) {
        if nal.len() <= MAX_PAYLOAD {
            self.packet(&[nal]);
            return;
        }
        let (indicator, header, skip): ([u8; 2], u8, usize) = match self.codec {
            VideoCodec::H264 => ([nal[0] & 0xE0 | 28, 0], nal[0] & 0x1F, 1),
            VideoCodec::H265 => ([nal[0] & 0x81 | 49 << 1, nal[1]], nal[0] >> 1 & 0x3F, 2),
        };
        let indicator = &indicator[..skip];
        let room = MAX_PAYLOAD - skip - 1;
        let mut pieces = nal[skip..].chunks(room).enumerate().peekable();
        while let Some((i, piece)) = pieces.next() {
            let start = u8::from(i == 0) << 7;
            let end = u8::from(pieces.peek().is_none()) << 6;
            self.packet(&[indicator, &[start | end | header], piece]);
        }
    }

    /// Filler data NAL units up to `budget` payload bytes in all.
    fn fill(&mut self, budget: u64) {
        loop {
            let left = usize::try_from(budget.saturating_sub(self.payload)).unwrap_or(0);
            if left < 3 {
                return;
            }
            // leave no rest that is too small for a NAL unit of its own
            let size = if left <= MAX_PAYLOAD {
                left
            } else {
                MAX_PAYLOAD.min(left - 3)
            };
            let filler = match self.codec {
                VideoCodec::H264 => h264::filler(size),
                VideoCodec::H265 => h265::filler(size),
            };
            self.packet(&[&filler]);
        }
    }

    fn end_unit(&mut self, kind: FrameType) {
        if let Some(last) = self.packets.last_mut() {
            last.ends = Some(kind);
            self.bytes[last.start + 1] |= 0x80;
        }
    }

    fn finish(mut self, loop_ticks: u64) -> RtpTemplate {
        let loop_ns = u128::from(loop_ticks) * 1_000_000_000 / 90_000;
        let mut before = 0;
        for packet in &mut self.packets {
            let due = loop_ns * u128::from(before) / u128::from(self.payload.max(1));
            packet.due_ns = u64::try_from(due).unwrap_or(u64::MAX);
            before += u64::from(packet.length) - HEADER as u64;
        }
        RtpTemplate {
            bytes: self.bytes,
            packets: self.packets,
            loop_ticks,
        }
    }
}

/// One sender's walk over a template.
#[derive(Debug)]
pub struct RtpStream {
    template: Arc<RtpTemplate>,
    ssrc: u32,
    first_sequence: u16,
    first_timestamp: u32,
    number: u64,
    loops: u64,
    index: usize,
    units: Units,
}

impl RtpStream {
    /// From the template's beginning; numbering starts where the sender says.
    pub fn new(
        template: Arc<RtpTemplate>,
        ssrc: u32,
        first_sequence: u16,
        first_timestamp: u32,
    ) -> Self {
        RtpStream {
            template,
            ssrc,
            first_sequence,
            first_timestamp,
            number: 0,
            loops: 0,
            index: 0,
            units: Units::default(),
        }
    }

    /// When the next packet is due, in ns after the first.
    pub fn next_due_ns(&self) -> u64 {
        let loop_ns =
            u128::from(self.loops) * u128::from(self.template.loop_ticks) * 1_000_000_000 / 90_000;
        let within = self
            .template
            .packets
            .get(self.index)
            .map_or(0, |p| p.due_ns);
        u64::try_from(loop_ns)
            .unwrap_or(u64::MAX)
            .saturating_add(within)
    }

    /// Units whose last packet has been handed out.
    pub fn units(&self) -> Units {
        self.units
    }

    /// Writes the next RTP packet to the beginning of `out` and returns its length and that of
    /// its payload.
    pub fn next(&mut self, sent_unix_us: u64, out: &mut [u8]) -> (usize, usize) {
        let packet = self.template.packets[self.index];
        let length = usize::from(packet.length);
        let out = &mut out[..length];
        out.copy_from_slice(&self.template.bytes[packet.start..packet.start + length]);
        let sequence = self.first_sequence.wrapping_add(self.number as u16);
        let ticks = self.loops * self.template.loop_ticks + packet.ticks;
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(
            &self
                .first_timestamp
                .wrapping_add(ticks as u32)
                .to_be_bytes(),
        );
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let stamp = Stamp {
            sent_unix_us,
            number: self.number,
        };
        out[STAMP_AT..STAMP_AT + STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
        if let Some(kind) = packet.ends {
            self.units.frames += 1;
            self.units.key_frames += u64::from(kind == FrameType::Idr);
        }
        self.number += 1;
        self.index += 1;
        if self.index == self.template.packets.len() {
            self.index = 0;
            self.loops += 1;
        }
        (length, length - HEADER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(codec: VideoCodec) -> RtpShape {
        let video = VideoShape {
            codec,
            width: 640,
            height: 360,
            fps_num: 30,
            fps_den: 1,
            gop: 30,
            b_frames: 2,
        };
        RtpShape {
            video,
            bitrate_bps: 4_000_000,
        }
    }

    #[test]
    fn payload_of_a_loop_is_the_bit_rate_to_the_byte_and_evenly_paced() {
        for codec in [VideoCodec::H264, VideoCodec::H265] {
            let template = Arc::new(RtpTemplate::new(shape(codec)).unwrap());
            let packets = template.packets.len();
            let mut stream = RtpStream::new(Arc::clone(&template), 7, 65_530, 0);
            let (mut out, mut payload, mut last_due) = ([0; 1500], 0, 0);
            for _ in 0..packets {
                let due = stream.next_due_ns();
                // at 4 Mb/s 1316 bytes last 2.632 ms
                assert!(due >= last_due && due - last_due <= 2_632_001);
                last_due = due;
                payload += stream.next(1, &mut out).1;
            }
            assert_eq!(payload, 500_000);
            assert_eq!(stream.next_due_ns(), 1_000_000_000);
            assert_eq!(
                stream.units(),
                Units {
                    frames: 30,
                    key_frames: 1
                }
            );
        }
    }

    #[test]
    fn sequence_numbers_wrap_and_timestamps_go_on_over_the_loop() {
        let template = Arc::new(RtpTemplate::new(shape(VideoCodec::H264)).unwrap());
        let mut stream = RtpStream::new(template, 0xABCD, 65_535, u32::MAX);
        let mut out = [0; 1500];
        stream.next(5, &mut out);
        assert_eq!(out[2..4], [0xFF, 0xFF]);
        assert_eq!(
            Stamp::find(&out),
            Some(Stamp {
                sent_unix_us: 5,
                number: 0
            })
        );
        stream.next(6, &mut out);
        assert_eq!(out[2..4], [0, 0]);
        assert_eq!(out[8..12], [0, 0, 0xAB, 0xCD]);
        // the first frame is displayed one frame after its decoding: 3000 ticks, less one
        assert_eq!(u32::from_be_bytes(out[4..8].try_into().unwrap()), 2_999);
    }

    #[test]
    fn markers_end_access_units() {
        let template = Arc::new(RtpTemplate::new(shape(VideoCodec::H265)).unwrap());
        let count = template.packets.len();
        let mut stream = RtpStream::new(template, 1, 0, 0);
        let (mut out, mut markers) = ([0; 1500], 0);
        for _ in 0..count {
            stream.next(0, &mut out);
            markers += u64::from(out[1] >> 7);
            assert_eq!(stream.units().frames, markers);
        }
        assert_eq!(markers, 30);
    }
}
