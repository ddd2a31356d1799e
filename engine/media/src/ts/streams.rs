//! The elementary streams of the demultiplexer: H.264 and HEVC, whose units the assembler
//! finds, splice information, whose units are sections, and those whose units are their PES
//! packets. (Audio and KLV: [`super::frames`]; AV1 and JPEG XS: [`super::coded`].)

use mirror_base::{Instant, Position};

use super::PACKET;
use super::demux::{Body, Identity, NO_CONTINUITY, PidState};
use super::pes::{Pes, Stage};
use super::place::Place;
use super::psi::Sections;
use super::start_codes::{StartCodes, without_code};
use crate::assembler::{Assembler, AssemblerCounters};
use crate::codec::audio::AudioInfo;
use crate::{AccessUnit, Codec, Track};

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
    pub(super) track: u16,
    pub(super) open: bool,
    pub(super) unit: AccessUnit,
}

/// Splice information: sections, each of them a unit.
#[derive(Debug)]
pub(super) struct SpliceStream {
    pub(super) sections: Sections,
    pub(super) track: u16,
    /// Where the section in the making began: position, offset in its TS packet, arrival.
    pub(super) begin: (Position, u8, Instant),
    /// CRCs of the last commands: what is repeated is one command (9.6.1).
    recent: [u32; 8],
    turn: usize,
}

impl SpliceStream {
    pub(super) fn new(track: u16) -> Self {
        SpliceStream {
            sections: Sections::private(),
            track,
            begin: (Position::default(), 0, Instant::ZERO),
            recent: [0; 8],
            turn: 0,
        }
    }

    pub(super) fn restart(&mut self) {
        self.sections.restart();
        self.recent = [0; 8];
    }

    /// Whether a section of that CRC is new.
    pub(super) fn is_new(&mut self, crc: u32) -> bool {
        let known = self.recent.contains(&crc);
        if !known {
            self.turn = (self.turn + 1) % self.recent.len();
            if let Some(place) = self.recent.get_mut(self.turn) {
                *place = crc;
            }
        }
        !known
    }
}

impl PidState {
    pub(super) fn new(pid: u16, program: u8, declared: Codec, body: Body) -> Self {
        let plain = 0x4700_0010 | u32::from(pid) << 8;
        PidState {
            pid,
            continuity: NO_CONTINUITY,
            program,
            plain,
            tail: 0,
            identity: Identity {
                declared,
                ..Identity::default()
            },
            body,
        }
    }

    /// Bytes of it were lost. What is closed by that goes to `emit`.
    pub(super) fn damage(&mut self, emit: &mut impl FnMut(AccessUnit)) {
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
            Body::Framed(framed) => framed.damage(emit),
            Body::Coded(coded) => {
                coded.damage();
                if coded.pes.stage == Stage::Header || coded.pes.is_bounded() {
                    coded.pes.lose();
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
            Body::Psi(sections) | Body::Si(sections) => sections.restart(),
            Body::Splice(splice) => splice.sections.restart(),
            Body::Unused => {}
        }
    }

    pub(super) fn track(&self) -> Option<u16> {
        match &self.body {
            Body::Video(video) => Some(video.track),
            Body::Framed(framed) => Some(framed.track),
            Body::Coded(coded) => Some(coded.track),
            Body::Other(other) => Some(other.track),
            Body::Splice(splice) => Some(splice.track),
            Body::Psi(_) | Body::Si(_) | Body::Unused => None,
        }
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match &self.body {
            Body::Video(video) => video.asm.waiting_since(),
            Body::Framed(framed) => framed.waiting_since(),
            Body::Coded(coded) => coded.waiting_since(),
            Body::Other(other) => other.open.then_some(other.unit.last_arrival),
            Body::Psi(_) | Body::Si(_) | Body::Splice(_) | Body::Unused => None,
        }
    }
}

/// How many of `packets` begin with `plain` and the next counter each.
#[inline]
pub(super) fn plain_packets(packets: &[[u8; PACKET]], plain: u32, continuity: u8) -> usize {
    // As the bytes lie in memory: the counter's carry falls out at the top.
    const COUNTER: u32 = u32::from_le_bytes([0, 0, 0, 0x0F]);
    const ONE: u32 = u32::from_le_bytes([0, 0, 0, 1]);
    // transport_priority means nothing here.
    const MEANING: u32 = !u32::from_le_bytes([0, 0x20, 0, 0]);
    let plain = plain.swap_bytes();
    let mut counter = u32::from_le_bytes([0, 0, 0, continuity]);
    let fits = |packet: &&[u8; PACKET]| {
        counter = counter.wrapping_add(ONE) & COUNTER;
        let head = packet.first_chunk().copied().map_or(0, u32::from_le_bytes);
        head & MEANING == plain | counter
    };
    packets.iter().take_while(fits).count()
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

    /// Packets of payload alone, in order, in the midst of a PES packet and of a NAL unit: how
    /// many of `packets`, which stand behind `before` others in the payload of `slot`. `plain`
    /// is what their first four bytes have to be, the counter, which follows `continuity`, left
    /// out.
    #[inline]
    pub(super) fn run(
        &mut self,
        packets: &[[u8; PACKET]],
        plain: u32,
        continuity: u8,
        slot: u64,
        before: usize,
        arrival: Instant,
    ) -> usize {
        const DATA: usize = PACKET - 4;
        if self.ended || !self.scanner.is_clear() {
            return 0;
        }
        let mut most = packets.len();
        while !(self.pes.goes_on(most * DATA) && self.asm.takes(most * DATA)) {
            most = match most.checked_sub(1) {
                None | Some(0) => return 0,
                Some(fewer) => fewer,
            };
        }
        let packets = packets.get(..most).unwrap_or_default();
        let plain = plain_packets(packets, plain, continuity);
        let run = without_code(packets.get(..plain).unwrap_or_default());
        if run > 0 {
            let last = (before + run - 1) * PACKET;
            self.asm.take_bytes(run * DATA, arrival);
            self.pes.pass(run * DATA);
            self.scanner.pass(&Place::whole(slot, last as u16));
        }
        run
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
    pub(super) fn new(track: u16) -> Self {
        Other {
            pes: Pes::default(),
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
        self.unit = AccessUnit {
            track: self.track,
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
    /// What the headers of its frames tell of an audio stream.
    pub(super) fn set_audio(&mut self, info: &AudioInfo) {
        self.sample_rate = info.sample_rate;
        // The descriptor of Opus knows of all channels, a packet of one or two.
        if self.codec != Codec::Opus || self.channels == 0 {
            self.channels = info.channels;
        }
        self.profile = info.profile;
    }
}
