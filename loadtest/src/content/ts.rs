//! MPEG-TS at a constant bit rate (ISO 13818-1): PAT, PMT, PCR, video PES, optionally an AAC
//! track, null packets. [`TsTemplate`] is one loop of it, made once; [`TsStream`] walks over the
//! template for one sender and patches continuity counters, PCR, PTS, DTS and the stamp.
//!
//! Timing is exact: datagram *n* is due `n × 1316 × 8 / bitrate` after the first, a PCR is the
//! time of its own byte, and loop *L* begins with the first datagram that is due after
//! `L × loop duration`; where the loops' datagrams do not fill the rate, one null datagram does.

use std::sync::Arc;

use super::gop::{Frame, FrameType};
use super::mpegts::{
    Adaptation, NULL_PID, PMT_PID, packet, pat, pcr_bytes, pmt, pts_bytes, ts_header, video_pes,
};
use super::stamp::{STAMP_BYTES, Stamp};
use super::{Noise, VideoShape};

/// Bytes of a TS packet.
pub const TS_PACKET: usize = 188;
/// TS packets in a datagram.
pub const TS_PER_DATAGRAM: usize = 7;
/// Bytes of a datagram's payload.
pub const DATAGRAM: usize = TS_PACKET * TS_PER_DATAGRAM;
const DATAGRAM_BITS: u128 = DATAGRAM as u128 * 8;

/// The video's PID.
pub const VIDEO_PID: u16 = 0x100;
/// The audio's PID.
pub const AUDIO_PID: u16 = 0x101;
/// 90 kHz ticks of an AAC frame of 1024 samples at 48 kHz.
const AAC_TICKS: u64 = 1_920;
/// A silent stereo AAC-LC frame behind its ADTS header (ISO 13818-7, 6.2), 48 kHz.
const AAC_FRAME: [u8; 13] = [
    0xFF, 0xF1, 0x4C, 0x80, 0x01, 0xBF, 0xFC, 0x21, 0x10, 0x04, 0x60, 0x8C, 0x1C,
];
/// PAT and PMT repeat so often, in 90 kHz ticks (TR 101 290 asks for 500 ms).
const PSI_TICKS: u64 = 9_000;
/// PCR repeats so often (ISO 13818-1 asks for 100 ms, TR 101 290 for 40 ms).
const PCR_TICKS: u64 = 2_250;
/// No template takes more memory than this.
const MAX_TEMPLATE_BYTES: u64 = 256 << 20;

/// What a TS stream looks like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TsShape {
    /// The video.
    pub video: VideoShape,
    /// Bits a second of the whole TS.
    pub bitrate_bps: u64,
    /// With a silent AAC track.
    pub audio: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Null,
    Video,
    Audio,
    Pat,
    Pmt,
}

#[derive(Clone, Copy, Debug)]
enum PatchKind {
    Pcr,
    /// Marker nibble ('0010' or '0011') and ticks after the loop's start.
    Pts(u8, u64),
    /// Ticks after the loop's start.
    Dts(u64),
}

#[derive(Clone, Copy, Debug)]
struct Patch {
    datagram: u32,
    offset: u16,
    kind: PatchKind,
}

/// One loop of a stream; see the module's page.
#[derive(Debug)]
pub struct TsTemplate {
    shape: TsShape,
    bytes: Vec<u8>,
    classes: Vec<Class>,
    stamps: Vec<u16>,
    patches: Vec<Patch>,
    /// The datagram that holds the last byte of a video unit, and what that is.
    unit_ends: Vec<(u32, FrameType)>,
    datagrams: u32,
    loop_ticks: u64,
    /// Packets with payload of each class in a loop: how far its continuity counter goes.
    advance: [u64; 5],
}

/// Why a shape cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShapeError {
    /// A frame is no whole number of 90 kHz ticks.
    FrameRate,
    /// The bit rate cannot hold the least that the pictures need.
    RateTooLow,
    /// The loop would take too much memory.
    TooLarge,
}

impl core::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ShapeError::FrameRate => "a frame must last a whole number of 90 kHz ticks (24, 25, 30000/1001, 30, 50, 60 ...)",
            ShapeError::RateTooLow => "the bit rate is too low for pictures of this size",
            ShapeError::TooLarge => "one loop of the content would take more than 256 MiB: shorten the GOP or lower the bit rate",
        })
    }
}

impl core::error::Error for ShapeError {}

impl TsTemplate {
    /// Makes one loop: a GOP, or as many as make the audio come out even.
    pub fn new(shape: TsShape) -> Result<Self, ShapeError> {
        let frame_ticks = shape.video.frame_ticks().ok_or(ShapeError::FrameRate)?;
        let gop_ticks = frame_ticks * u64::from(shape.video.gop);
        let gops = if shape.audio {
            (1..=64)
                .find(|n| (gop_ticks * n).is_multiple_of(AAC_TICKS))
                .ok_or(ShapeError::TooLarge)?
        } else {
            1
        };
        let loop_ticks = gop_ticks * gops;
        let datagrams =
            u128::from(shape.bitrate_bps) * u128::from(loop_ticks) / (90_000 * DATAGRAM_BITS);
        let datagrams = u64::try_from(datagrams).map_err(|_| ShapeError::TooLarge)?;
        if datagrams * DATAGRAM as u64 > MAX_TEMPLATE_BYTES {
            return Err(ShapeError::TooLarge);
        }
        let mut share = 985;
        while share > 500 {
            if let Some(template) = Builder::new(shape, loop_ticks, gops, datagrams).build(share) {
                return Ok(template);
            }
            share -= if share > 900 { 10 } else { 50 };
        }
        Err(ShapeError::RateTooLow)
    }

    /// Its shape.
    pub fn shape(&self) -> &TsShape {
        &self.shape
    }

    /// When datagram `number` is due, in ns after the first.
    pub fn due_ns(&self, number: u64) -> u64 {
        let ns =
            u128::from(number) * DATAGRAM_BITS * 1_000_000_000 / u128::from(self.shape.bitrate_bps);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The first datagram of loop `number`.
    fn loop_start(&self, number: u64) -> u64 {
        let bits =
            u128::from(number) * u128::from(self.loop_ticks) * u128::from(self.shape.bitrate_bps);
        u64::try_from(bits.div_ceil(90_000 * DATAGRAM_BITS)).unwrap_or(u64::MAX)
    }
}

/// Makes a template slot by slot; a slot is one TS packet.
struct Builder {
    shape: TsShape,
    loop_ticks: u64,
    gops: u64,
    slots: u64,
    datagrams: u64,
    bytes: Vec<u8>,
    classes: Vec<Class>,
    stamps: Vec<u16>,
    patches: Vec<Patch>,
    unit_ends: Vec<(u32, FrameType)>,
    counters: [u64; 5],
    /// Slot in which each frame ended.
    frame_ends: Vec<u64>,
    last_pcr: Option<u64>,
}

/// The video's PES packets, and how far they are placed.
struct Video {
    pes: Vec<(Vec<u8>, Frame)>,
    total: u64,
    placed: u64,
    frame: usize,
    offset: usize,
}

impl Builder {
    fn new(shape: TsShape, loop_ticks: u64, gops: u64, datagrams: u64) -> Self {
        Builder {
            shape,
            loop_ticks,
            gops,
            slots: datagrams * TS_PER_DATAGRAM as u64,
            datagrams,
            bytes: Vec::with_capacity(usize::try_from(datagrams).unwrap_or(0) * DATAGRAM),
            classes: Vec::new(),
            stamps: Vec::new(),
            patches: Vec::new(),
            unit_ends: Vec::new(),
            counters: [0; 5],
            frame_ends: Vec::new(),
            last_pcr: None,
        }
    }

    /// `share`: thousandths of the room for video that are filled. `None`: it did not fit.
    fn build(mut self, share: u64) -> Option<TsTemplate> {
        let mut video = self.video(share);
        let (mut psi_at, mut psi_queue) = (0, Vec::new());
        let mut audio_at = AAC_TICKS / 2;
        for slot in 0..self.slots {
            let ticks = self.ticks(slot);
            let first = slot.is_multiple_of(TS_PER_DATAGRAM as u64);
            if ticks >= psi_at {
                psi_queue = vec![Class::Pmt, Class::Pat];
                psi_at += PSI_TICKS;
            }
            if first {
                self.stamps.push(0);
            }
            // The first packet of a datagram has the stamp, which tables and audio cannot hold;
            // and the loop begins with the tables, before any video.
            if !first && let Some(table) = psi_queue.pop() {
                self.put_table(table);
            } else if !first && self.shape.audio && ticks >= audio_at {
                self.put_audio(audio_at);
                audio_at += AAC_TICKS;
            } else if slot > 2 && video.is_due(slot, self.slots) {
                self.put_video(slot, first, &mut video);
            } else {
                self.put_null(first);
            }
        }
        let frames = self.frame_ends.len();
        let audio_done = !self.shape.audio || audio_at > self.loop_ticks;
        if video.frame < video.pes.len() || frames != video.pes.len() || !audio_done {
            return None;
        }
        Some(self.finish())
    }

    /// Media time of a slot, from the loop's start.
    fn ticks(&self, slot: u64) -> u64 {
        slot * self.loop_ticks / self.slots.max(1)
    }

    fn video(&self, share: u64) -> Video {
        let frames = self.gops * u64::from(self.shape.video.gop);
        let psi = self.loop_ticks.div_ceil(PSI_TICKS) * 2;
        let audio = if self.shape.audio {
            self.loop_ticks / AAC_TICKS
        } else {
            0
        };
        let room = self.slots.saturating_sub(psi + audio) * 184;
        // stamps, PCRs, PES headers and the stuffing of each frame's last packet
        let overhead = self.datagrams * (STAMP_BYTES as u64 + 3)
            + self.loop_ticks / PCR_TICKS * 8
            + frames * (19 + 92);
        let es = room.saturating_sub(overhead) * share / 1000;
        let plan = self.shape.video.plan();
        let mut noise = Noise::new(self.shape.bitrate_bps ^ 0x6D69_7272_6F72);
        let mut pes = Vec::new();
        let sizes = plan.sizes(es / self.gops.max(1));
        for _ in 0..self.gops {
            for (frame, size) in plan.frames.iter().zip(&sizes) {
                let target = usize::try_from(*size).unwrap_or(usize::MAX);
                let nals = self.shape.video.access_unit(frame, target, &mut noise);
                pes.push((video_pes(&nals, self.shape.video.b_frames > 0), *frame));
            }
        }
        let total = pes.iter().map(|(p, _)| p.len() as u64).sum();
        Video {
            pes,
            total,
            placed: 0,
            frame: 0,
            offset: 0,
        }
    }

    fn put_video(&mut self, slot: u64, first: bool, video: &mut Video) {
        let Some((pes, frame)) = video.pes.get(video.frame) else {
            return;
        };
        let start = video.offset == 0;
        let rest = pes.get(video.offset..).unwrap_or_default();
        let datagram = u32::try_from(slot / TS_PER_DATAGRAM as u64).unwrap_or(u32::MAX);
        let at = u16::try_from(slot % TS_PER_DATAGRAM as u64 * TS_PACKET as u64).unwrap_or(0);
        let ticks = self.ticks(slot);
        let pcr = self.last_pcr.is_none_or(|last| ticks >= last + PCR_TICKS);
        let key = start && frame.kind == FrameType::Idr;
        let fields = Adaptation {
            pcr,
            random_access: key,
            stamp: first,
        };
        let (packet, taken, payload_at) = packet(
            VIDEO_PID,
            start,
            self.counters[Class::Video as usize],
            fields,
            rest,
        );
        if pcr {
            self.last_pcr = Some(ticks);
            self.patches.push(Patch {
                datagram,
                offset: at + 6,
                kind: PatchKind::Pcr,
            });
        }
        if first && let Some(last) = self.stamps.last_mut() {
            *last = if pcr { 13 } else { 7 };
        }
        if start {
            // the values follow in finish(), when the delay is known
            let marker = if self.shape.video.b_frames > 0 { 3 } else { 2 };
            self.patches.push(Patch {
                datagram,
                offset: at + payload_at + 9,
                kind: PatchKind::Pts(marker, video.frame as u64),
            });
            if self.shape.video.b_frames > 0 {
                self.patches.push(Patch {
                    datagram,
                    offset: at + payload_at + 14,
                    kind: PatchKind::Dts(video.frame as u64),
                });
            }
        }
        video.offset += taken;
        video.placed += taken as u64;
        if video.offset == pes.len() {
            self.frame_ends.push(slot);
            self.unit_ends.push((datagram, frame.kind));
            video.frame += 1;
            video.offset = 0;
        }
        self.put(Class::Video, &packet);
    }

    fn put_audio(&mut self, ticks: u64) {
        let mut pes = vec![0, 0, 1, 0xC0, 0, 0, 0x80, 0x80, 5];
        let length = 3 + 5 + AAC_FRAME.len();
        pes[5] = u8::try_from(length).unwrap_or(0);
        pes.extend_from_slice(&[0; 5]);
        pes.extend_from_slice(&AAC_FRAME);
        let (packet, _, payload_at) = packet(
            AUDIO_PID,
            true,
            self.counters[Class::Audio as usize],
            Adaptation::default(),
            &pes,
        );
        let at = u16::try_from(self.bytes.len() % DATAGRAM).unwrap_or(0);
        let datagram = u32::try_from(self.bytes.len() / DATAGRAM).unwrap_or(u32::MAX);
        // marked as audio by the top bit until finish()
        self.patches.push(Patch {
            datagram,
            offset: at + payload_at + 9,
            kind: PatchKind::Pts(2, ticks | 1 << 63),
        });
        self.put(Class::Audio, &packet);
    }

    fn put_table(&mut self, table: Class) {
        let section = match table {
            Class::Pat => pat(),
            _ => pmt(&self.shape),
        };
        let pid = if table == Class::Pat { 0 } else { PMT_PID };
        let mut packet = [0xFF; TS_PACKET];
        packet[..4].copy_from_slice(&ts_header(pid, true, 1, self.counters[table as usize]));
        packet[4] = 0; // pointer_field
        packet[5..5 + section.len()].copy_from_slice(&section);
        self.put(table, &packet);
    }

    fn put_null(&mut self, first: bool) {
        let mut packet = [0xFF; TS_PACKET];
        packet[..4].copy_from_slice(&ts_header(NULL_PID, false, 1, 0));
        if first && let Some(last) = self.stamps.last_mut() {
            *last = 4;
        }
        self.put(Class::Null, &packet);
    }

    fn put(&mut self, class: Class, packet: &[u8; TS_PACKET]) {
        self.counters[class as usize] += 1;
        self.classes.push(class);
        self.bytes.extend_from_slice(packet);
    }

    /// Sets the time stamps: every frame decodes one `delay` after its place in the plan, the
    /// least for which each has arrived by then.
    fn finish(mut self) -> TsTemplate {
        let shape = self.shape.video;
        let dur = shape.frame_ticks().unwrap_or(3_000);
        let late = self
            .frame_ends
            .iter()
            .enumerate()
            .map(|(k, &slot)| (self.ticks(slot) + 1).saturating_sub(k as u64 * dur));
        let delay = late.max().unwrap_or(0) + dur;
        let plan = shape.plan();
        for patch in &mut self.patches {
            patch.kind = match patch.kind {
                PatchKind::Pcr => PatchKind::Pcr,
                PatchKind::Dts(k) => PatchKind::Dts(k * dur + delay),
                PatchKind::Pts(marker, k) if k >> 63 == 1 => {
                    PatchKind::Pts(marker, (k & ((1 << 63) - 1)) + delay)
                }
                PatchKind::Pts(marker, k) => {
                    let gop = u64::from(shape.gop);
                    let in_gop = usize::try_from(k % gop).unwrap_or(0);
                    let display = plan
                        .frames
                        .get(in_gop)
                        .map_or(0, |f| f.display + plan.reorder);
                    PatchKind::Pts(marker, (k / gop * gop + u64::from(display)) * dur + delay)
                }
            };
        }
        TsTemplate {
            shape: self.shape,
            bytes: self.bytes,
            classes: self.classes,
            stamps: self.stamps,
            patches: self.patches,
            unit_ends: self.unit_ends,
            datagrams: u32::try_from(self.datagrams).unwrap_or(u32::MAX),
            loop_ticks: self.loop_ticks,
            advance: self.counters,
        }
    }
}

impl Video {
    /// Whether slot `slot` of `slots` is video's turn: it is spread evenly over the loop.
    fn is_due(&self, slot: u64, slots: u64) -> bool {
        let by_now = u128::from(self.total) * u128::from(slot + 1) / u128::from(slots);
        self.frame < self.pes.len() && u128::from(self.placed) < by_now
    }
}

/// What a stream has sent so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Units {
    /// Complete video units.
    pub frames: u64,
    /// Key frames among them.
    pub key_frames: u64,
}

/// One sender's walk over a template.
#[derive(Debug)]
pub struct TsStream {
    template: Arc<TsTemplate>,
    /// Datagrams handed out.
    number: u64,
    loops: u64,
    /// The next datagram of the template.
    index: u32,
    next_loop_at: u64,
    patch: usize,
    unit: usize,
    counter_offsets: [u8; 5],
    units: Units,
}

impl TsStream {
    /// From the template's beginning.
    pub fn new(template: Arc<TsTemplate>) -> Self {
        let next_loop_at = template.loop_start(1);
        TsStream {
            template,
            number: 0,
            loops: 0,
            index: 0,
            next_loop_at,
            patch: 0,
            unit: 0,
            counter_offsets: [0; 5],
            units: Units::default(),
        }
    }

    /// When the next datagram is due, in ns after the first.
    pub fn next_due_ns(&self) -> u64 {
        self.template.due_ns(self.number)
    }

    /// The number of the next datagram.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Units whose last byte has been handed out.
    pub fn units(&self) -> Units {
        self.units
    }

    /// Media time of the next datagram in 90 kHz ticks (RFC 2250: RTP timestamp).
    pub fn ticks(&self) -> u64 {
        let ticks = u128::from(self.number) * DATAGRAM_BITS * 90_000
            / u128::from(self.template.shape.bitrate_bps);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Writes the next datagram's payload, [`DATAGRAM`] bytes, to the beginning of `out`.
    pub fn next(&mut self, sent_unix_us: u64, out: &mut [u8; DATAGRAM]) {
        let stamp = Stamp {
            sent_unix_us,
            number: self.number,
        };
        if self.index == self.template.datagrams {
            if self.number < self.next_loop_at {
                null_datagram(stamp, out);
                self.number += 1;
                return;
            }
            self.start_loop();
        }
        let template = Arc::clone(&self.template);
        let index = self.index as usize;
        out.copy_from_slice(&template.bytes[index * DATAGRAM..(index + 1) * DATAGRAM]);
        let classes = &template.classes[index * TS_PER_DATAGRAM..(index + 1) * TS_PER_DATAGRAM];
        for (packet, class) in out.chunks_exact_mut(TS_PACKET).zip(classes) {
            let offset = self.counter_offsets[*class as usize];
            packet[3] = packet[3] & 0xF0 | packet[3].wrapping_add(offset) & 0x0F;
        }
        let at = usize::from(template.stamps[index]);
        out[at..at + STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
        while let Some(patch) = template
            .patches
            .get(self.patch)
            .filter(|p| p.datagram == self.index)
        {
            self.apply(*patch, out);
            self.patch += 1;
        }
        while let Some((_, kind)) = template
            .unit_ends
            .get(self.unit)
            .filter(|u| u.0 == self.index)
        {
            self.units.frames += 1;
            self.units.key_frames += u64::from(*kind == FrameType::Idr);
            self.unit += 1;
        }
        self.index += 1;
        self.number += 1;
    }

    fn start_loop(&mut self) {
        self.loops += 1;
        self.index = 0;
        self.patch = 0;
        self.unit = 0;
        self.next_loop_at = self.template.loop_start(self.loops + 1);
        for (offset, advance) in self
            .counter_offsets
            .iter_mut()
            .zip(self.template.advance)
            .skip(1)
        {
            *offset = offset.wrapping_add((advance % 16) as u8) & 0x0F;
        }
    }

    fn apply(&self, patch: Patch, out: &mut [u8; DATAGRAM]) {
        let at = usize::from(patch.offset);
        let base = self.loops * self.template.loop_ticks;
        match patch.kind {
            PatchKind::Pcr => {
                // 2.4.2.2: the time of the byte that holds the base's last bit
                let byte = u128::from(self.number) * DATAGRAM as u128 + patch.offset as u128 + 4;
                let ticks = byte * 8 * 27_000_000 / u128::from(self.template.shape.bitrate_bps);
                out[at..at + 6].copy_from_slice(&pcr_bytes(ticks));
            }
            PatchKind::Pts(marker, ticks) => {
                out[at..at + 5].copy_from_slice(&pts_bytes(marker, base + ticks))
            }
            PatchKind::Dts(ticks) => out[at..at + 5].copy_from_slice(&pts_bytes(1, base + ticks)),
        }
    }
}

/// A datagram of null packets, stamped.
fn null_datagram(stamp: Stamp, out: &mut [u8; DATAGRAM]) {
    out.fill(0xFF);
    for packet in out.chunks_exact_mut(TS_PACKET) {
        packet[..4].copy_from_slice(&ts_header(NULL_PID, false, 1, 0));
    }
    out[4..4 + STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
}

#[cfg(test)]
#[path = "ts_tests.rs"]
mod tests;
