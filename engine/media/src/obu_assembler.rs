//! From OBUs to temporal units (AV1 7.5): an access unit is what is shown at one time, with the
//! hidden frames before it, whatever the transport cuts it into.
//!
//! The MPEG-TS mapping and the RTP depacketiser drive an [`ObuAssembler`]:
//!
//! ```text
//! set_timestamps(pts, dts)       the times of what comes next
//! begin(at, lead, arrival)       an OBU begins at `at`
//! bytes(bytes, arrival)          its bytes, header first, in as many pieces as they come
//! end(end, arrival)              it is complete; `end` is one past its last byte
//! damage()                       something was lost here
//! end_of_unit(arrival)           the source says that the temporal unit ends here
//! end_of_frame(arrival)          ... that a frame, or more, ends here
//! poll_unit()                    the next complete unit
//! ```
//!
//! No media byte is kept: of each OBU only the head that its type asks for is gathered. A unit
//! ends where the source or a temporal delimiter says so, and before a frame that cannot belong
//! to it: one that follows a shown frame of the same or a higher spatial layer. What comes
//! before the first key frame is undecodable.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use std::collections::VecDeque;

use mirror_base::{Instant, Position};

use crate::codec::av1::{
    DELIMITER_OBU, Frame, FrameType, Leb128, ObuHeader, State, Told, leb128, leb128_len, obu,
};
use crate::{AccessUnit, FrameKind, Limits, Track};

/// Bytes kept of a sequence header or a metadata OBU.
const SET_HEAD: usize = 1024;
/// Bytes kept of a frame header: 32 operating points with 32 bits each, and what precedes them.
const FRAME_HEAD: usize = 160;
/// Bytes of the longest OBU header with its size.
const MAX_HEADER: u64 = 7;
/// Units that wait for `poll_unit`; a caller that never polls loses the oldest.
const MAX_READY: usize = 256;

/// Where something begins.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Position,
    lead: u8,
    arrival: Instant,
    /// One past the last byte before it, and the arrival of that byte's datagram.
    before: Position,
    before_arrival: Instant,
}

/// How far an OBU has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// None is open, or the rest of it is of no use.
    #[default]
    Idle,
    First,
    Extension,
    Size,
    Payload,
}

/// The OBU in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    stage: Stage,
    mark: Mark,
    header: ObuHeader,
    /// Its `obu_size`, where it has one.
    size: Option<u32>,
    /// Bytes of payload so far.
    payload: u32,
    /// Bytes of `head` still wanted.
    want: usize,
}

/// Where the next unit may have begun: the first OBU after the last shown frame which is no
/// part of it.
#[derive(Clone, Copy, Debug, Default)]
struct Boundary {
    mark: Mark,
    /// Bytes of the unit before it.
    bytes: u32,
    /// A sequence header has come since.
    sequence: bool,
}

/// The unit in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    first: Mark,
    pts: Option<i64>,
    dts: Option<i64>,
    bytes: u32,
    damaged: bool,
    /// It opened after a loss, and nothing has shown yet that its beginning is here.
    suspect: bool,
    sequence: bool,
    frames: u16,
    /// A key frame was shown.
    key: bool,
    /// A key frame was coded to be shown later.
    hidden_key: bool,
    /// Such a one was shown.
    recovers: bool,
    predicted: bool,
    /// A frame header could not be read.
    unknown: bool,
    referenced: bool,
    /// The spatial layer of the last frame shown.
    shown: Option<u8>,
    temporal_id: u8,
    boundary: Option<Boundary>,
}

/// Whether decoding can have begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// No key frame has come.
    Awaited,
    /// At a hidden key frame: what is shown before it refers to what never came.
    Delayed,
    /// All is decodable.
    Begun,
}

/// Counters of an assembler.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObuCounters {
    /// OBUs that break the syntax.
    pub malformed: u64,
    /// Units larger than the limit.
    pub oversized: u64,
    /// Units that nobody polled in time.
    pub dropped: u64,
}

/// See the module's page.
#[derive(Debug)]
pub struct ObuAssembler {
    track: u16,
    max_unit: u32,
    state: State,
    head: Vec<u8>,
    obu: Open,
    open: bool,
    unit: Unit,
    end: Option<Position>,
    last_arrival: Instant,
    times: (Option<i64>, Option<i64>),
    /// No unit has taken `times` yet.
    times_are_new: bool,
    /// The source says where units end and what their time is (RTP).
    source_delimits: bool,
    lossy: bool,
    /// A unit of several frames was seen: one may lack frames without showing it.
    several_frames: bool,
    delimiters: bool,
    start: Start,
    /// Between a hidden key frame that decoding may begin at and the unit that shows it.
    leading: bool,
    ready: VecDeque<AccessUnit>,
    sequence_obu: Vec<u8>,
    counters: ObuCounters,
}

impl ObuAssembler {
    /// `source_delimits`: the transport says where units end and what their time is (RTP), so
    /// temporal delimiters say nothing.
    pub fn new(track: u16, limits: &Limits, source_delimits: bool) -> Self {
        ObuAssembler {
            track,
            max_unit: u32::try_from(limits.max_frame_size).unwrap_or(u32::MAX),
            state: State::default(),
            head: Vec::with_capacity(SET_HEAD),
            obu: Open::default(),
            open: false,
            unit: Unit::default(),
            end: None,
            last_arrival: Instant::ZERO,
            times: (None, None),
            times_are_new: false,
            source_delimits,
            lossy: true,
            several_frames: false,
            delimiters: false,
            start: Start::Awaited,
            leading: false,
            ready: VecDeque::with_capacity(8),
            sequence_obu: Vec::new(),
            counters: ObuCounters::default(),
        }
    }

    /// The times, in unwrapped 90 kHz ticks, of what comes next: a unit has the decoding time
    /// of its first byte and the presentation time of its shown frame.
    pub const fn set_timestamps(&mut self, pts: Option<i64>, dts: Option<i64>) {
        self.times = (pts, dts);
        self.times_are_new = true;
    }

    /// No loss before this place can have touched what comes: the unit that begins is whole.
    pub const fn presume_whole(&mut self) {
        self.lossy = false;
    }

    /// An OBU begins. `at` is its first byte's place (or that of the start code before it),
    /// `lead` that byte's offset into its TS packet.
    pub fn begin(&mut self, at: Position, lead: u8, arrival: Instant) {
        self.head.clear();
        self.obu = Open {
            stage: Stage::First,
            mark: Mark {
                at,
                lead,
                arrival,
                before: self.end.unwrap_or(at),
                before_arrival: self.last_arrival,
            },
            ..Open::default()
        };
    }

    /// Whether an OBU is open which may still take bytes.
    pub fn is_in_obu(&self) -> bool {
        self.obu.stage != Stage::Idle
    }

    /// Whether the open OBU has a size, and lacks bytes of it (or of the size).
    pub fn lacks_bytes(&self) -> bool {
        match self.obu.stage {
            Stage::Idle | Stage::First => false,
            Stage::Payload => self.obu.size.is_some() && !self.is_complete(),
            Stage::Extension | Stage::Size => self.obu.header.has_size,
        }
    }

    /// Whether the open OBU has all the bytes that its `obu_size` announced.
    pub fn is_complete(&self) -> bool {
        self.obu.stage == Stage::Payload && self.obu.size == Some(self.obu.payload)
    }

    /// Whether `n` bytes more are simply more of the open OBU's payload, and not its last.
    #[inline]
    pub fn takes(&self, n: usize) -> bool {
        let payload = u64::from(self.obu.payload) + n as u64;
        self.obu.stage == Stage::Payload
            && self.obu.want == 0
            && self.obu.size.is_none_or(|size| u64::from(size) > payload)
            && u64::from(self.unit.bytes) + payload + MAX_HEADER <= u64::from(self.max_unit)
    }

    /// Takes `n` bytes of which [`ObuAssembler::takes`] is true.
    #[inline]
    pub const fn take_bytes(&mut self, n: usize, arrival: Instant) {
        self.obu.payload = self.obu.payload.saturating_add(n as u32);
        self.last_arrival = arrival;
    }

    /// Bytes of the open OBU, which came with the datagram of `arrival`. How many belong to
    /// it: fewer than all, if it ends before by its `obu_size`, or breaks the syntax.
    pub fn bytes(&mut self, bytes: &[u8], arrival: Instant) -> usize {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.obu.stage {
                Stage::Idle => break,
                Stage::Payload => {
                    let taken = self.payload_bytes(rest);
                    self.last_arrival = if taken > 0 {
                        arrival
                    } else {
                        self.last_arrival
                    };
                    return bytes.len() - rest.len() + taken;
                }
                _ => self.header_byte(byte),
            }
            self.last_arrival = arrival;
            rest = after;
        }
        bytes.len() - rest.len()
    }

    fn header_byte(&mut self, byte: u8) {
        match self.obu.stage {
            Stage::First => {
                let Some(header) = ObuHeader::from_first(byte) else {
                    return self.malformed();
                };
                self.obu.header = header;
                self.obu.want = match header.kind {
                    obu::SEQUENCE | obu::METADATA => SET_HEAD,
                    obu::FRAME | obu::FRAME_HEADER => FRAME_HEAD,
                    _ => 0,
                };
            }
            Stage::Extension => self.obu.header.extend(byte),
            _ => {
                self.head.push(byte);
                match leb128(&self.head) {
                    Leb128::More => return,
                    Leb128::Bad => return self.malformed(),
                    Leb128::Value(size, _) => self.obu.size = Some(size),
                }
                self.head.clear();
            }
        }
        self.obu.stage = match (self.obu.stage, &self.obu.header) {
            (Stage::First, header) if header.extension => Stage::Extension,
            (Stage::First | Stage::Extension, header) if header.has_size => Stage::Size,
            _ => Stage::Payload,
        };
    }

    fn payload_bytes(&mut self, bytes: &[u8]) -> usize {
        let left = self.obu.size.map_or(usize::MAX, |size| {
            size.saturating_sub(self.obu.payload) as usize
        });
        let (mine, _) = bytes.split_at(bytes.len().min(left));
        if self.obu.want > 0 {
            let (head, _) = mine.split_at(mine.len().min(self.obu.want));
            self.head.extend_from_slice(head);
            self.obu.want -= head.len();
        }
        self.obu.payload = self.obu.payload.saturating_add(mine.len() as u32);
        if self.unit.bytes.saturating_add(self.obu_bytes()) > self.max_unit {
            self.counters.oversized += 1;
            self.damage();
            self.close_here(self.last_arrival);
        }
        mine.len()
    }

    /// The open OBU is complete; `end` is one past its last byte.
    pub fn end(&mut self, end: Position, arrival: Instant) {
        let sized = |size| size == self.obu.payload;
        if self.obu.stage == Stage::Payload && self.obu.size.is_none_or(sized) {
            self.obu.stage = Stage::Idle;
            self.take(arrival);
        } else if self.obu.stage != Stage::Idle {
            self.malformed();
        }
        self.end = Some(end);
    }

    /// The open OBU cannot be used.
    #[cold]
    fn malformed(&mut self) {
        self.counters.malformed += 1;
        self.damage();
    }

    /// Something was lost at this place: the OBU and the unit in the making are damaged, and
    /// so may be what comes next.
    pub fn damage(&mut self) {
        if self.obu.stage == Stage::Payload && !self.open && self.obu.header.is_kept() {
            // A unit of which no OBU came whole is one all the same.
            self.open_at(self.obu.mark);
            // RTP's extractor leaves it out.
            if !self.source_delimits {
                self.unit.bytes = self.unit.bytes.saturating_add(self.obu.payload);
            }
        }
        self.obu.stage = Stage::Idle;
        self.state.forget_slots();
        self.lossy = true;
        self.unit.damaged |= self.open;
    }

    /// As [`ObuAssembler::damage`], where what cannot be used, at `at`, is of the present
    /// time's unit for certain, even if none is open yet.
    pub fn damage_unit(&mut self, at: Position, arrival: Instant) {
        self.damage();
        if !self.open {
            self.last_arrival = arrival;
            self.open_at(Mark {
                at,
                arrival,
                ..Mark::default()
            });
        }
        self.unit.damaged = true;
        self.lossy = true;
    }

    /// Takes a complete OBU.
    fn take(&mut self, arrival: Instant) {
        let header = self.obu.header;
        if header.kind == obu::DELIMITER && !self.source_delimits {
            self.delimiters = true;
            self.close_before(self.obu.mark, arrival);
            self.open_at(self.obu.mark);
            self.unit.suspect = false;
            self.lossy = false;
        }
        if !header.is_kept() {
            return;
        }
        let told = self.state.take(&header, &self.head);
        match told {
            Told::Frame(frame) => self.on_frame(&frame, arrival),
            Told::Sequence | Told::Metadata(_) => self.on_prefix(),
            Told::Nothing if header.kind == obu::METADATA => self.on_prefix(),
            Told::Nothing | Told::Malformed => {
                if !self.open {
                    self.open_at(self.obu.mark);
                }
                // Tiles without their frame header.
                let orphan = header.kind == obu::TILE_GROUP && self.unit.frames == 0;
                self.unit.damaged |= orphan;
                if told == Told::Malformed {
                    self.on_unreadable();
                }
            }
        }
        self.unit.bytes = self.unit.bytes.saturating_add(self.obu_bytes());
    }

    /// Bytes of the open OBU as it is handed out, with its size.
    const fn obu_bytes(&self) -> u32 {
        let size = self.obu.payload;
        size.saturating_add(self.obu.header.bytes() as u32 + leb128_len(size))
    }

    /// An OBU that precedes a frame: of this unit, or of the next.
    fn on_prefix(&mut self) {
        if !self.open {
            self.open_at(self.obu.mark);
        }
        let unit = &mut self.unit;
        if unit.shown.is_some() {
            unit.boundary.get_or_insert(Boundary {
                mark: self.obu.mark,
                bytes: unit.bytes,
                sequence: false,
            });
        }
        if self.obu.header.kind == obu::SEQUENCE {
            match &mut unit.boundary {
                Some(boundary) => boundary.sequence = true,
                None => {
                    unit.sequence = true;
                    // Nothing of the unit comes before it but the delimiter.
                    unit.suspect &= unit.frames > 0;
                }
            }
            self.sequence_obu.clear();
            let payload = &self.head;
            if payload.len() == self.obu.payload as usize {
                let size = self.obu.payload;
                self.obu.header.write(size, &mut self.sequence_obu);
                self.sequence_obu.extend_from_slice(payload);
            }
        }
    }

    fn on_frame(&mut self, frame: &Frame, arrival: Instant) {
        let shown = self.unit.shown.filter(|_| self.open);
        if shown.is_some_and(|shown| frame.spatial_id <= shown) {
            self.close_at_boundary(arrival);
        }
        self.unit.boundary = None;
        if !self.open {
            self.open_at(self.obu.mark);
        }
        let unit = &mut self.unit;
        if core::mem::take(&mut unit.suspect) {
            // A unit of one frame can lack nothing else, but a key frame its sequence header.
            let alone = !self.several_frames && frame.kind != FrameType::Key;
            unit.damaged |= !alone || self.delimiters;
        }
        self.lossy = false;
        unit.frames = unit.frames.saturating_add(1);
        unit.temporal_id = unit.temporal_id.max(frame.temporal_id);
        unit.referenced |= frame.refresh != 0;
        unit.predicted |= !frame.kind.is_intra();
        if frame.kind == FrameType::Key {
            unit.recovers |= frame.existing.is_some();
            unit.key |= frame.existing.is_none() && frame.shown;
            unit.hidden_key |= !frame.shown;
        }
        if frame.shown {
            unit.shown = Some(frame.spatial_id);
            if core::mem::take(&mut self.times_are_new) {
                unit.pts = self.times.0;
            }
        }
        self.several_frames |= unit.frames > 1 || !frame.shown;
    }

    /// A sequence header or frame header that cannot be read: for frames before the first
    /// sequence header, that is no error.
    #[cold]
    fn on_unreadable(&mut self) {
        if self.state.sequence().is_some() || self.obu.header.kind == obu::SEQUENCE {
            self.counters.malformed += 1;
            self.unit.damaged = true;
        }
        if self.obu.header.kind != obu::SEQUENCE {
            self.unit.frames = self.unit.frames.saturating_add(1);
            self.unit.unknown = true;
        }
    }

    fn open_at(&mut self, first: Mark) {
        self.open = true;
        let new = core::mem::take(&mut self.times_are_new) || self.source_delimits;
        let (pts, dts) = if new { self.times } else { (None, None) };
        self.unit = Unit {
            first,
            pts,
            dts,
            bytes: DELIMITER_OBU.len() as u32,
            suspect: self.lossy,
            ..Unit::default()
        };
        self.lossy = false;
    }

    /// The source says that the temporal unit ends here.
    pub fn end_of_unit(&mut self, arrival: Instant) {
        if self.open && (self.unit.frames > 0 || self.unit.damaged) {
            self.close_here(arrival);
        }
    }

    /// The source says that a frame, or more, ends here: the unit does, if the frame is shown
    /// and of the highest layer.
    pub fn end_of_frame(&mut self, arrival: Instant) {
        let top = self.state.spatial_layers();
        let shown = self.unit.shown.is_some_and(|shown| shown + 1 >= top);
        if self.open && (shown || self.unit.unknown) {
            self.close_here(arrival);
        }
    }

    /// What comes is of another time, `pts`, if the unit in the making has a shown frame.
    pub fn time_of_next_frame(&mut self, pts: Option<i64>, arrival: Instant) {
        if self.open && self.unit.shown.is_some() && pts.is_some() && pts != self.unit.pts {
            self.close_here(arrival);
        }
    }

    /// The source goes on to another time, which ends a unit as [`ObuAssembler::end_of_unit`]
    /// does. What came without a frame goes with the next one, unless something of it was lost.
    pub fn next_timestamp(&mut self, pts: Option<i64>, arrival: Instant) {
        self.end_of_unit(arrival);
        if self.open {
            (self.unit.pts, self.unit.dts) = (pts, pts);
        }
        self.set_timestamps(pts, pts);
    }

    /// Closes the unit in the making whatever it lacks: end of the stream, a time limit, a
    /// change of the program.
    pub fn close(&mut self, now: Instant, damaged: bool) {
        if self.obu.stage != Stage::Idle {
            self.damage();
        }
        if self.open {
            self.unit.damaged |= damaged;
            self.close_here(now);
            // What still comes of it begins without its head.
            self.lossy |= damaged;
        }
    }

    /// Forgets everything but the sequence header: the stream starts afresh.
    pub fn restart(&mut self, now: Instant) {
        self.close(now, true);
        self.damage();
        self.start = Start::Awaited;
        self.leading = false;
        self.times = (None, None);
    }

    fn close_here(&mut self, completed_by: Instant) {
        let end = self.end.unwrap_or(self.unit.first.at);
        let next = Mark {
            before: end,
            before_arrival: self.last_arrival,
            ..Mark::default()
        };
        self.close_before(next, completed_by);
    }

    /// A frame has shown that the unit ended before it, and before what precedes it.
    fn close_at_boundary(&mut self, completed_by: Instant) {
        let Some(boundary) = self.unit.boundary else {
            return self.close_before(self.obu.mark, completed_by);
        };
        let after = self.unit.bytes.saturating_sub(boundary.bytes);
        self.unit.bytes = boundary.bytes;
        self.close_before(boundary.mark, completed_by);
        self.open_at(boundary.mark);
        self.unit.bytes = self.unit.bytes.saturating_add(after);
        self.unit.sequence = boundary.sequence;
    }

    /// The unit ends before `next`.
    fn close_before(&mut self, next: Mark, completed_by: Instant) {
        if !core::mem::take(&mut self.open) {
            return;
        }
        let unit = core::mem::take(&mut self.unit);
        if unit.frames == 0 && !unit.damaged {
            return;
        }
        let kind = match unit {
            Unit {
                sequence: true,
                key: true,
                ..
            } => FrameKind::Idr,
            // 7.6.2, delayed random access point.
            Unit {
                sequence: true,
                hidden_key: true,
                ..
            } => FrameKind::Cra,
            Unit { frames: 0, .. } | Unit { unknown: true, .. } => FrameKind::Other,
            Unit {
                predicted: true, ..
            } => FrameKind::P,
            _ => FrameKind::I,
        };
        let damaged = unit.damaged || unit.suspect;
        self.leading &= kind != FrameKind::Idr && !unit.recovers;
        let leading = self.leading && kind != FrameKind::Cra;
        self.leading |= kind == FrameKind::Cra;
        self.start = match (self.start, kind) {
            (_, FrameKind::Idr) if !damaged => Start::Begun,
            (Start::Awaited, FrameKind::Cra) if !damaged => Start::Delayed,
            (Start::Delayed, _) if unit.recovers => Start::Begun,
            (start, _) => start,
        };
        let undecodable = !damaged
            && match self.start {
                Start::Awaited => true,
                Start::Delayed => leading,
                Start::Begun => false,
            };
        if self.ready.len() >= MAX_READY {
            self.ready.pop_front();
            self.counters.dropped += 1;
        }
        self.ready.push_back(AccessUnit {
            track: self.track,
            kind,
            damaged: damaged || undecodable,
            undecodable,
            discardable: unit.frames > 0 && !unit.referenced,
            temporal_id: unit.temporal_id,
            leading,
            first: unit.first.at,
            lead: unit.first.lead,
            end: next.before.max(unit.first.at),
            bytes: unit.bytes,
            pts: unit.pts,
            dts: unit.dts,
            dts_derived: self.source_delimits && unit.dts.is_some(),
            first_arrival: unit.first.arrival,
            last_arrival: next.before_arrival.max(unit.first.arrival),
            completed_by,
            ..AccessUnit::default()
        });
    }

    /// The next complete temporal unit.
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    /// Whether [`ObuAssembler::poll_unit`] has something.
    pub fn has_unit(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the unit in the making got its last byte; `None` while there is none.
    pub fn waiting_since(&self) -> Option<Instant> {
        (self.open || self.is_in_obu()).then_some(self.last_arrival)
    }

    /// Whether the unit in the making has a shown frame, and no OBU is open.
    pub fn is_presentable(&self) -> bool {
        !self.is_in_obu() && self.open && self.unit.shown.is_some()
    }

    /// What the OBUs have told. Its version grows with what a track shows.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Takes over what the bits tell.
    pub fn describe(&self, track: &mut Track) {
        if let Some(info) = self.state.info() {
            track.set_video(&info);
        }
    }

    /// The sequence header in force as an OBU with its size, for who joins late; empty before
    /// the first.
    pub fn sequence_header(&self) -> &[u8] {
        &self.sequence_obu
    }

    /// The track's number.
    pub const fn track(&self) -> u16 {
        self.track
    }

    /// Figures.
    pub const fn counters(&self) -> &ObuCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
