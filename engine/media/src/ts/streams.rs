//! The elementary streams of the demultiplexer: H.264 and HEVC, whose units the assembler
//! finds, and all others, whose units are their PES packets.

use mirror_base::{Instant, Position};

use super::PACKET;
use super::demux::{Body, NO_CONTINUITY, PidState};
use super::pes::{Pes, Stage};
use super::place::Place;
use super::start_codes::StartCodes;
use crate::assembler::{Assembler, AssemblerCounters};
use crate::codec::audio;
use crate::{AccessUnit, Codec, FrameKind, Track};

/// An H.264 or HEVC stream.
#[derive(Debug)]
pub(super) struct Video {
    pub(super) pes: Pes,
    /// The PES packet's last TS packet was seen, by its stuffing.
    pub(super) ended: bool,
    pub(super) scanner: StartCodes,
    pub(super) asm: Assembler,
    pub(super) track: u16,
    pub(super) info_version: u32,
    pub(super) seen: AssemblerCounters,
}

/// Any other stream: one unit per PES packet.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) pes: Pes,
    pub(super) codec: Codec,
    pub(super) track: u16,
    pub(super) open: bool,
    pub(super) unit: AccessUnit,
}

impl PidState {
    pub(super) fn new(pid: u16, program: u8, body: Body) -> Self {
        let plain = 0x4700_0010 | u32::from(pid) << 8;
        PidState {
            pid,
            continuity: NO_CONTINUITY,
            plain,
            program,
            body,
        }
    }

    /// Bytes of it were lost.
    pub(super) fn damage(&mut self) {
        match &mut self.body {
            Body::Video(video) => {
                video.scanner.restart();
                video.asm.damage();
                video.ended = false;
                // A length that counts bytes which never came says nothing.
                if video.pes.stage == Stage::Header || video.pes.is_bounded() {
                    video.pes.lose();
                }
            }
            Body::Other(other) => {
                other.unit.damaged = true;
                if other.pes.stage == Stage::Header {
                    other.pes.end();
                } else {
                    other.pes.lose();
                }
            }
            Body::Psi(sections) => sections.restart(),
            Body::Unused => {}
        }
    }

    pub(super) fn track(&self) -> Option<u16> {
        match &self.body {
            Body::Video(video) => Some(video.track),
            Body::Other(other) => Some(other.track),
            Body::Psi(_) | Body::Unused => None,
        }
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match &self.body {
            Body::Video(video) => video.asm.waiting_since(),
            Body::Other(other) => other.open.then_some(other.unit.last_arrival),
            Body::Psi(_) | Body::Unused => None,
        }
    }
}

impl Video {
    pub(super) fn new(asm: Assembler, track: u16) -> Self {
        Video {
            pes: Pes::default(),
            ended: false,
            scanner: StartCodes::default(),
            asm,
            track,
            info_version: 0,
            seen: AssemblerCounters::default(),
        }
    }

    /// Whether its PES packet has shown its end: by its length, or by stuffing. (One that an
    /// error ended has damaged the unit already.)
    pub(super) fn is_complete(&self) -> bool {
        self.pes.stage == Stage::Outside || self.ended
    }

    /// A PES packet's payload begins with `data`.
    pub(super) fn open_pes(&mut self, data: &[u8], arrival: Instant) {
        // What begins with a start code continues nothing; else the NAL unit spans PES packets.
        if matches!(data, [0, 0, 0 | 1, ..]) {
            self.asm.nal_end(self.scanner.position(), arrival);
            self.scanner.restart();
        }
    }

    /// A packet of payload alone, in the midst of a PES packet and of a NAL unit. `false` if it
    /// may be more than that; nothing is touched then.
    #[inline]
    pub(super) fn plain(&mut self, packet: &[u8; PACKET], place: &Place, arrival: Instant) -> bool {
        let [_, _, _, _, data @ ..] = packet;
        if self.ended || !self.pes.goes_on(data.len()) || !self.scanner.holds_no_code(data) {
            return false;
        }
        if !self.asm.more_bytes(data.len(), arrival) {
            return false;
        }
        self.pes.pass(data.len());
        self.scanner.pass(place);
        true
    }

    #[inline]
    pub(super) fn payload(&mut self, data: &[u8], place: &Place, lead: usize, arrival: Instant) {
        let (body, last) = self.pes.body(data);
        self.scanner.feed(&mut self.asm, body, place, lead, arrival);
        if last {
            self.pes.end();
            self.asm
                .likely_end_of_unit(self.scanner.position(), arrival);
        }
    }
}

impl Other {
    pub(super) fn new(codec: Codec, track: u16) -> Self {
        Other {
            pes: Pes::default(),
            codec,
            track,
            open: false,
            unit: AccessUnit::default(),
        }
    }

    pub(super) fn open(
        &mut self,
        at: Position,
        lead: usize,
        pts: Option<i64>,
        dts: Option<i64>,
        arrival: Instant,
    ) {
        self.open = true;
        // Each JPEG XS frame stands alone.
        let kind = if self.codec == Codec::JpegXs {
            FrameKind::Idr
        } else {
            FrameKind::Other
        };
        self.unit = AccessUnit {
            track: self.track,
            kind,
            first: at,
            lead: u8::try_from(lead).unwrap_or(u8::MAX),
            end: at,
            pts,
            dts,
            first_arrival: arrival,
            last_arrival: arrival,
            ..AccessUnit::default()
        };
    }

    pub(super) fn take(&mut self, body: &[u8], end: Position, arrival: Instant) {
        if !body.is_empty() {
            self.unit.bytes = self.unit.bytes.saturating_add(body.len() as u32);
            self.unit.end = end;
            self.unit.last_arrival = arrival;
        }
    }

    pub(super) fn close(&mut self, completed_by: Instant, damaged: bool) -> Option<AccessUnit> {
        self.pes.end();
        if !core::mem::take(&mut self.open) || self.unit.bytes == 0 {
            return None;
        }
        self.unit.damaged |= damaged;
        self.unit.completed_by = completed_by;
        Some(self.unit)
    }
}

impl Track {
    /// What the first bytes of a PES packet tell of an audio stream. Whether that is new.
    pub(super) fn set_audio(&mut self, data: &[u8]) -> bool {
        let found = match self.codec {
            Codec::Aac => find_audio(data, self.sample_rate > 0, audio::adts),
            Codec::MpegAudio => find_audio(data, self.sample_rate > 0, audio::mpeg_audio),
            Codec::Ac3 | Codec::Eac3 => find_audio(data, self.sample_rate > 0, audio::ac3),
            _ => None,
        };
        let Some(info) = found else { return false };
        let new = (info.sample_rate, info.channels, info.profile);
        let changed = new != (self.sample_rate, self.channels, self.profile);
        (self.sample_rate, self.channels, self.profile) = new;
        changed
    }
}

/// A frame header in `data`: at its beginning, or, while nothing is known, anywhere, if the
/// next frame is where it says or outside `data`.
fn find_audio(
    data: &[u8],
    known: bool,
    parse: fn(&[u8]) -> Option<audio::AudioInfo>,
) -> Option<audio::AudioInfo> {
    let range = if known { 1 } else { data.len() };
    (0..range).find_map(|at| {
        let info = parse(data.get(at..)?)?;
        let next = data.get(at + info.frame_bytes..).unwrap_or_default();
        (next.len() < 8 || parse(next).is_some()).then_some(info)
    })
}
