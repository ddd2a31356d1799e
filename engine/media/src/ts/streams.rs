//! The elementary streams of the demultiplexer: H.264 and HEVC, whose units the assembler
//! finds, splice information, whose units are sections, and those whose units are their PES
//! packets. (Audio and KLV: [`super::frames`]; AV1 and JPEG XS: [`super::coded`].)

use mirror_base::{Instant, Position};

use super::demux::{Body, Identity, NO_CONTINUITY, PidState};
use super::pes::{Pes, Stage};
use super::place::Place;
use super::psi::Sections;
use super::start_codes::{StartCodes, without_code};
use super::{DATA, PACKET, USUAL};
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
    /// Its last bytes stood behind stuffing: where no length tells the end, that does.
    pub(super) ended: bool,
    /// Bytes that a unit may have.
    max_bytes: usize,
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
        let [high, low] = pid.to_be_bytes();
        let plain = u32::from_le_bytes([0x47, high, low, 0x10]);
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

/// The continuity counter in a packet's first four bytes, and its step, as the bytes lie in
/// memory: the counter's carry falls out at the top.
const COUNTER: u32 = u32::from_le_bytes([0, 0, 0, 0x0F]);
const ONE: u32 = u32::from_le_bytes([0, 0, 0, 1]);
/// What must be as expected: transport_priority means nothing here.
const MEANING: u32 = !u32::from_le_bytes([0, 0x20, 0, 0]);

/// What the first four bytes of packets of a PID are that hold nothing but payload.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    /// Without the counter, as the bytes lie in memory.
    pub(super) plain: u32,
    /// That of the packet before.
    pub(super) continuity: u8,
}

impl Expected {
    /// In which bits `packet` is another than the one that comes `steps` after the last.
    #[inline]
    fn differs(self, packet: &[u8; PACKET], steps: u32) -> u32 {
        let head = packet.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let last = u32::from_le_bytes([0, 0, 0, self.continuity]);
        let counter = last.wrapping_add(steps.wrapping_mul(ONE)) & COUNTER;
        (head ^ self.plain ^ counter) & MEANING
    }
}

/// Packets that follow each other in a payload.
pub(super) struct Batch<'a> {
    pub(super) packets: &'a [[u8; PACKET]],
    /// How many others stand before them.
    pub(super) before: usize,
    pub(super) slot: u64,
    pub(super) arrival: Instant,
}

impl Batch<'_> {
    /// Where the `n`th of them lies.
    #[inline]
    pub(super) const fn place(&self, n: usize) -> Place {
        Place::whole(self.slot, ((self.before + n) * PACKET) as u16)
    }

    /// Where the first `n` of them end.
    #[inline]
    const fn end(&self, n: usize) -> Position {
        Position {
            slot: self.slot,
            offset: ((self.before + n) * PACKET) as u16,
        }
    }
}

/// A payload of the usual number of packets.
pub(super) struct Usual<'a> {
    pub(super) packets: &'a [[u8; PACKET]; USUAL],
    pub(super) slot: u64,
    pub(super) arrival: Instant,
}

impl Usual<'_> {
    /// Where the `n`th of its packets lies.
    #[inline]
    const fn place(&self, n: usize) -> Place {
        Place::whole(self.slot, (n * PACKET) as u16)
    }

    /// Where it ends.
    #[inline]
    const fn end(&self) -> Position {
        Position {
            slot: self.slot,
            offset: (USUAL * PACKET) as u16,
        }
    }
}

/// How many of `packets` are as expected.
#[inline]
pub(super) fn plain_packets(packets: &[[u8; PACKET]], expected: Expected) -> usize {
    let mut steps = 0;
    let fits = |packet: &&[u8; PACKET]| {
        steps += 1;
        expected.differs(packet, steps) == 0
    };
    packets.iter().take_while(fits).count()
}

/// Whether all of them are: one test, and their headers are fetched together.
#[inline]
pub(super) fn all_plain(packets: &[[u8; PACKET]; USUAL], expected: Expected) -> bool {
    let each = packets.iter().zip(1..);
    each.fold(0, |all, (packet, steps)| {
        all | expected.differs(packet, steps)
    }) == 0
}

/// The most packets, at most `count` of them, whose payload `takes` takes, by its bytes.
#[inline(always)]
pub(super) fn most_packets(count: usize, takes: impl Fn(usize) -> bool) -> usize {
    if takes(count * DATA) {
        return count;
    }
    (0..count).rev().find(|n| takes(n * DATA)).unwrap_or(0)
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
    /// many of those at the beginning of `some`.
    #[inline]
    pub(super) fn run(&mut self, some: &Batch<'_>, expected: Expected) -> usize {
        if self.ended || !self.scanner.is_clear() {
            return 0;
        }
        let most = most_packets(some.packets.len(), |n| {
            self.pes.goes_on(n) && self.asm.takes(n)
        });
        let packets = some.packets.get(..most).unwrap_or_default();
        let plain = plain_packets(packets, expected);
        let run = without_code(packets.get(..plain).unwrap_or_default());
        if run > 0 {
            self.pass(run, some.place(run - 1), some.arrival);
        }
        run
    }

    /// As [`Video::run`], for the usual number of packets: 0 if not all of them are plain.
    #[inline(always)]
    pub(super) fn run_usual(&mut self, all: &Usual<'_>, expected: Expected) -> usize {
        const BYTES: usize = USUAL * DATA;
        let ready = !self.ended && self.scanner.is_clear();
        let takes = ready && self.pes.goes_on(BYTES) && self.asm.takes(BYTES);
        if !(takes && all_plain(all.packets, expected)) {
            return 0;
        }
        let run = without_code(all.packets);
        if run > 0 {
            self.pass(run, all.place(run - 1), all.arrival);
        }
        run
    }

    #[inline(always)]
    fn pass(&mut self, run: usize, last: Place, arrival: Instant) {
        self.asm.take_bytes(run * DATA, arrival);
        self.pes.pass(run * DATA);
        self.scanner.pass(&last);
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
    pub(super) fn new(track: u16, max_bytes: usize) -> Self {
        Other {
            pes: Pes::default(),
            track,
            open: false,
            unit: AccessUnit::default(),
            ended: false,
            max_bytes,
        }
    }

    /// As [`Video::run`], without a look at the payload.
    #[inline]
    pub(super) fn run(&mut self, some: &Batch<'_>, expected: Expected) -> usize {
        let most = most_packets(some.packets.len(), |n| self.pes.goes_on(n) && self.takes(n));
        let packets = some.packets.get(..most).unwrap_or_default();
        let run = plain_packets(packets, expected);
        if run > 0 {
            self.pass(run, some.end(run), some.arrival);
        }
        run
    }

    /// As [`Video::run_usual`].
    #[inline(always)]
    pub(super) fn run_usual(&mut self, all: &Usual<'_>, expected: Expected) -> usize {
        const BYTES: usize = USUAL * DATA;
        let takes = self.pes.goes_on(BYTES) && self.takes(BYTES);
        if !(takes && all_plain(all.packets, expected)) {
            return 0;
        }
        self.pass(USUAL, all.end(), all.arrival);
        USUAL
    }

    #[inline(always)]
    fn pass(&mut self, run: usize, end: Position, arrival: Instant) {
        self.pes.pass(run * DATA);
        self.unit.bytes = self.unit.bytes.saturating_add((run * DATA) as u32);
        self.unit.end = end;
        self.unit.last_arrival = arrival;
        self.ended = false;
    }

    /// Whether its PES packet has shown its end: by its length, or by stuffing.
    pub(super) fn is_complete(&self) -> bool {
        if self.pes.is_bounded() {
            !self.pes.is_unfinished()
        } else {
            self.pes.stage != Stage::Header && self.ended
        }
    }

    /// Whether it does not grow too large with `n` bytes more.
    #[inline]
    const fn takes(&self, n: usize) -> bool {
        self.unit.bytes as usize + n <= self.max_bytes
    }

    /// Whether it has grown too large.
    pub(super) const fn is_oversized(&self) -> bool {
        self.unit.bytes as usize > self.max_bytes
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
