//! From NAL units to access units (H.264 7.4.1.2.3 and 7.4.1.2.4, HEVC 7.4.2.4.4).
//!
//! The MPEG-TS demultiplexer, which finds NAL units by their start codes, and the RTP
//! depacketisers, which know them from the payload format, both drive an [`Assembler`]:
//!
//! ```text
//! set_timestamps(pts, dts)       the times of the next unit that begins
//! nal_begin(at, arrival)         a NAL unit begins at `at`
//! nal_bytes(bytes, arrival)      its bytes, header first, in as many pieces as they come
//! nal_end(end, arrival)          it is complete; `end` is one past its last byte
//! damage()                       something was lost here
//! end_of_unit(arrival)           the source says that the access unit ends (RTP marker)
//! next_timestamp(pts, arrival)   the source's time changes (RTP timestamp)
//! poll_unit()                    the next complete access unit
//! ```
//!
//! No media byte is kept: of each NAL unit only the head that its type asks for is gathered
//! into one scratch buffer, and a unit is named by the positions of its ends. The rules of the
//! standard decide where a unit ends; `end_of_unit` only makes it known earlier, and is
//! disbelieved for a while when the slices that follow prove it wrong.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use std::collections::VecDeque;

use mirror_base::{Instant, Position};

use crate::codec::{SliceKind, VideoInfo, h264, h265};
use crate::{AccessUnit, Codec, FrameKind, Limits};

/// Bytes kept of a slice: its header up to what the boundary rules compare.
const SLICE_HEAD: usize = 64;
/// Bytes kept of a parameter set or an SEI NAL unit.
const SET_HEAD: usize = 2048;
/// Units that wait for `poll_unit`; a caller that never polls loses the oldest.
const MAX_READY: usize = 256;
/// How often in a row an early end must have been right before it is believed.
const TRUST: u8 = 8;

/// Where something begins, and what was known there.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Position,
    lead: u8,
    /// Bytes of the stream before it.
    total: u64,
    /// The datagram that it begins in.
    arrival: Instant,
    /// One past the byte before it, and the arrival of that byte's datagram.
    before: Position,
    before_arrival: Instant,
}

/// What a NAL unit is to the boundary rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NalClass {
    /// Begins a new access unit when the current one has a picture.
    Prefix(Wanted),
    /// Stands before a slice, and belongs to the access unit that the slice belongs to.
    SlicePrefix,
    /// A slice.
    Slice,
    /// Stays in the current access unit, unread.
    Stays,
}

/// What a prefix NAL unit is read for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Nothing,
    Vps,
    Sps,
    Pps,
    Sei,
}

#[derive(Debug)]
enum CodecState {
    H264(Box<h264::State>),
    H265(Box<h265::State>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No NAL unit, or its head has been dealt with.
    Idle,
    /// The header's one or two bytes are awaited.
    Header,
    /// The head of that class is awaited.
    Head(NalClass),
}

/// What prefix NAL units have told about the picture that they precede.
#[derive(Clone, Copy, Debug, Default)]
struct Prefix {
    sps: bool,
    recovery: Option<u32>,
    random_access: bool,
}

/// The unit in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    first: Mark,
    pts: Option<i64>,
    dts: Option<i64>,
    prefix: Prefix,
    damaged: bool,
    has_picture: bool,
    idr: bool,
    irap: bool,
    largest: Option<SliceKind>,
    /// It is a pair of fields whose first has only intra slices.
    intra_field: bool,
    discardable: bool,
    /// A field that still lacks its other.
    lone_field: bool,
    /// The first prefix NAL unit after a lone field: the boundary, if no second field follows.
    boundary: Option<Mark>,
}

/// How far a source's early end of a unit is believed.
#[derive(Clone, Copy, Debug)]
struct Trust {
    score: u8,
    /// An end was announced since the last NAL unit: whether the unit was closed on it, and the
    /// bytes of the stream before it.
    announced: Option<(bool, u64)>,
}

impl Trust {
    /// The next NAL unit, which begins behind `total` bytes, begins a unit as announced, or not.
    /// Whether a unit was closed too early.
    fn verdict(&mut self, begins: bool, total: u64) -> bool {
        let Some((closed, at)) = self.announced.filter(|&(_, at)| total >= at) else {
            return false;
        };
        self.announced = None;
        let right = begins && at == total;
        self.score = if right {
            (self.score + 1).min(TRUST)
        } else {
            0
        };
        closed && !right
    }
}

/// Counters of an assembler.
#[derive(Clone, Copy, Debug, Default)]
pub struct AssemblerCounters {
    /// Parameter sets and slices that break the syntax.
    pub malformed: u64,
    /// Units larger than the limit.
    pub oversized: u64,
    /// Units that nobody polled in time.
    pub dropped: u64,
}

/// See the module's page.
#[derive(Debug)]
pub struct Assembler {
    codec: CodecState,
    track: u16,
    max_unit: u64,
    total: u64,
    /// What `total` may reach before the unit in the making is too large.
    limit: u64,
    /// Bytes of the head still to be gathered; 0 almost always.
    want: usize,
    stage: Stage,
    head: Vec<u8>,
    nal: Mark,
    open: bool,
    unit: Unit,
    /// The next NAL unit's predecessor ended here.
    end: Option<Position>,
    last_arrival: Instant,
    prefix: Prefix,
    next_pts: Option<i64>,
    next_dts: Option<i64>,
    /// Something was lost since the last unit began.
    lossy: bool,
    /// The newest ready unit was too large and lacks its end.
    oversized: bool,
    /// The source says where units end; parameter sets between slices do not (GStreamer's
    /// `config-interval=-1` repeats them before each IDR slice).
    source_delimits: bool,
    trust: Trust,
    ready: VecDeque<AccessUnit>,
    info: VideoInfo,
    info_version: u32,
    counters: AssemblerCounters,
}

impl Assembler {
    /// For a track of H.264 or HEVC; `None` for any other codec. `believe_ends`: whether
    /// [`Assembler::end_of_unit`] closes units from the first one (RTP markers) or only after
    /// it was right several times (PES boundaries).
    pub fn new(codec: Codec, track: u16, limits: &Limits, believe_ends: bool) -> Option<Self> {
        let codec = match codec {
            Codec::H264 => CodecState::H264(Box::default()),
            Codec::H265 => CodecState::H265(Box::default()),
            _ => return None,
        };
        Some(Assembler {
            codec,
            track,
            max_unit: limits.max_frame_size as u64,
            total: 0,
            limit: u64::MAX,
            want: 0,
            stage: Stage::Idle,
            head: Vec::with_capacity(SET_HEAD),
            nal: Mark::default(),
            open: false,
            unit: Unit::default(),
            end: None,
            last_arrival: Instant::ZERO,
            prefix: Prefix::default(),
            next_pts: None,
            next_dts: None,
            lossy: true,
            oversized: false,
            source_delimits: believe_ends,
            trust: Trust {
                score: if believe_ends { TRUST } else { 0 },
                announced: None,
            },
            ready: VecDeque::with_capacity(8),
            info: VideoInfo::default(),
            info_version: 0,
            counters: AssemblerCounters::default(),
        })
    }

    /// The times, in unwrapped 90 kHz ticks, of the next unit that begins; later ones have none
    /// until this is called again.
    pub const fn set_timestamps(&mut self, pts: Option<i64>, dts: Option<i64>) {
        self.next_pts = pts;
        self.next_dts = dts;
    }

    /// The transport says that the picture which follows is a random access point (the
    /// adaptation field's random_access_indicator): makes an I picture a key frame.
    pub const fn random_access(&mut self) {
        self.prefix.random_access = true;
    }

    /// A NAL unit without a start code of its own begins: four bytes are counted for the start
    /// code that `extract` writes before it. `at` is where its first byte (for RTP: of its
    /// packet's payload) lies.
    pub fn nal_begin(&mut self, at: Position, arrival: Instant) {
        self.begin(at, 0, arrival, 0);
        self.total += 4;
    }

    /// A start code was found. `at` is its first byte's place, `lead` that byte's offset into
    /// its TS packet; `behind` bytes of the code were given to [`Assembler::nal_bytes`] already
    /// (it straddles packets), `here` bytes of it were not.
    pub fn start_code(&mut self, at: Position, lead: u8, behind: u8, here: u8, arrival: Instant) {
        self.begin(at, lead, arrival, behind);
        self.total += u64::from(here);
    }

    fn begin(&mut self, at: Position, lead: u8, arrival: Instant, behind: u8) {
        self.finish_head(arrival);
        self.nal = Mark {
            at,
            lead,
            total: self.total.saturating_sub(u64::from(behind)),
            arrival,
            before: self.end.take().unwrap_or(at),
            before_arrival: self.last_arrival,
        };
        self.head.clear();
        self.stage = Stage::Header;
        self.want = match self.codec {
            CodecState::H264(_) => 1,
            CodecState::H265(_) => 2,
        };
    }

    /// Bytes of the current NAL unit, which came with the datagram of `arrival`.
    #[inline]
    pub fn nal_bytes(&mut self, bytes: &[u8], arrival: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.total += bytes.len() as u64;
        self.last_arrival = arrival;
        if self.want > 0 {
            self.gather(bytes, arrival);
        }
        if self.total > self.limit {
            self.close_oversized(arrival);
        }
    }

    /// `n` bytes more of a NAL unit whose head is complete, of a unit that stays within its limit.
    /// `false`, and nothing done, if [`Assembler::nal_bytes`] has to see them.
    #[inline]
    pub fn more_bytes(&mut self, n: usize, arrival: Instant) -> bool {
        let total = self.total + n as u64;
        if self.want > 0 || total > self.limit {
            return false;
        }
        self.total = total;
        self.last_arrival = arrival;
        true
    }

    /// The current NAL unit is complete; `end` is one past its last byte.
    pub fn nal_end(&mut self, end: Position, arrival: Instant) {
        self.finish_head(arrival);
        self.end = Some(end);
        self.oversize_end(end);
    }

    /// Tells where the bytes end that made a unit too large; nothing otherwise.
    pub fn oversize_end(&mut self, end: Position) {
        if core::mem::take(&mut self.oversized)
            && let Some(unit) = self.ready.back_mut()
        {
            unit.end = end;
        }
    }

    /// Something was lost at this place: the unit in the making is damaged, the NAL unit in the
    /// making is not read further, and a unit that begins without its head will be damaged too.
    pub fn damage(&mut self) {
        self.want = 0;
        self.stage = Stage::Idle;
        self.trust.announced = None;
        self.lossy = true;
        if self.open {
            self.unit.damaged = true;
            // A boundary before the loss would put the loss into a unit that looks whole.
            self.unit.boundary = None;
        }
    }

    /// The source says that the access unit ends here. Call [`Assembler::nal_end`] before it.
    pub fn end_of_unit(&mut self, arrival: Instant) {
        self.finish_head(arrival);
        if !self.open || !self.unit.has_picture || self.unit.lone_field {
            return;
        }
        let believed = self.trust.score >= TRUST;
        self.trust.announced = Some((believed, self.total));
        if believed {
            self.close_here(arrival);
        }
    }

    /// As [`Assembler::end_of_unit`] for an end that is a likelihood (a PES packet's): nothing
    /// is touched before it has been right several times in a row. `end` is one past the last byte.
    pub fn likely_end_of_unit(&mut self, end: Position, arrival: Instant) {
        if self.trust.score >= TRUST {
            self.nal_end(end, arrival);
            self.end_of_unit(arrival);
        } else {
            self.trust.announced = Some((false, self.total));
        }
    }

    /// The source goes on to another time, which ends a unit as [`Assembler::end_of_unit`] does.
    /// What came without a picture goes with the next one, unless something of it was lost.
    pub fn next_timestamp(&mut self, pts: Option<i64>, arrival: Instant) {
        self.end_of_unit(arrival);
        if self.open && !self.unit.has_picture {
            if self.unit.damaged {
                self.close(arrival, true);
            } else {
                self.unit.pts = pts;
            }
        }
        self.set_timestamps(pts, None);
    }

    /// Bytes came where [`Assembler::end_of_unit`] said that there would be none.
    pub fn not_the_end(&mut self) {
        if let Some((closed, _)) = self.trust.announced.take() {
            self.trust.score = 0;
            self.lossy |= closed;
        }
    }

    /// Closes the unit in the making whatever it lacks: end of the stream, a time limit, a
    /// change of the program. `now` becomes its `completed_by`.
    pub fn close(&mut self, now: Instant, damaged: bool) {
        self.finish_head(now);
        // A time limit at the very place where an end was announced leaves it to what follows
        // to tell whether that was right: slow streams have no other way to gain trust.
        let total = self.total;
        self.trust.announced = self.trust.announced.and_then(|(closed, at)| {
            let closes = self.open && self.unit.has_picture;
            (at == total).then_some((closed || closes, at))
        });
        if self.open {
            self.unit.damaged |= damaged || !self.unit.has_picture;
            self.close_here(now);
            // What still comes of it begins without its head.
            self.lossy = true;
        }
    }

    /// Forgets everything but the parameter sets: the stream starts afresh.
    pub fn restart(&mut self, now: Instant) {
        self.close(now, true);
        self.damage();
        self.prefix = Prefix::default();
        if let CodecState::H264(state) = &mut self.codec {
            state.forget_previous();
        }
    }

    /// The next complete access unit, in decoding order.
    #[inline]
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    /// Whether [`Assembler::poll_unit`] has something.
    #[inline]
    pub fn has_unit(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the unit in the making got its last byte; `None` while there is none.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.open.then_some(self.last_arrival)
    }

    /// What the parameter sets in use say; the number grows with each change.
    pub const fn info(&self) -> (u32, &VideoInfo) {
        (self.info_version, &self.info)
    }

    /// Feeds a parameter set that came outside the stream (SDP `sprop-…`), with its header.
    pub fn add_parameter_set(&mut self, nal: &[u8]) {
        if let NalClass::Prefix(wanted) = self.classify(nal) {
            self.read_prefix(wanted, nal);
        }
    }

    /// The track's number.
    pub const fn track(&self) -> u16 {
        self.track
    }

    /// Figures.
    pub const fn counters(&self) -> &AssemblerCounters {
        &self.counters
    }

    #[cold]
    fn gather(&mut self, mut bytes: &[u8], arrival: Instant) {
        while self.want > 0 {
            let (now, rest) = bytes.split_at(bytes.len().min(self.want));
            self.head.extend_from_slice(now);
            self.want -= now.len();
            bytes = rest;
            if self.want > 0 {
                return;
            }
            match self.stage {
                Stage::Header => self.on_header(arrival),
                Stage::Head(_) => self.finish_head(arrival),
                Stage::Idle => {}
            }
        }
    }

    /// The NAL unit's type is known.
    fn on_header(&mut self, arrival: Instant) {
        let class = self.classify(&self.head);
        self.stage = Stage::Head(class);
        match class {
            NalClass::Prefix(wanted) => {
                self.want = if wanted == Wanted::Nothing {
                    0
                } else {
                    SET_HEAD - self.head.len()
                };
                self.on_prefix(false, arrival);
            }
            NalClass::SlicePrefix => {
                self.on_prefix(true, arrival);
                self.stage = Stage::Idle;
            }
            NalClass::Slice => self.want = SLICE_HEAD,
            NalClass::Stays => self.stage = Stage::Idle,
        }
    }

    fn classify(&self, nal: &[u8]) -> NalClass {
        match (&self.codec, nal) {
            // 7.4.1.2.3; 2 is a data partition with the slice header.
            (CodecState::H264(_), [header, ..]) => match header & 0x1F {
                1 | 2 | 5 => NalClass::Slice,
                7 => NalClass::Prefix(Wanted::Sps),
                8 => NalClass::Prefix(Wanted::Pps),
                6 => NalClass::Prefix(Wanted::Sei),
                // 7.4.1.2.3 counts it among those that begin a unit, but after the last slice
                // only: SVC and MVC put one before each slice of the base layer.
                14 => NalClass::SlicePrefix,
                9 | 15..=18 => NalClass::Prefix(Wanted::Nothing),
                _ => NalClass::Stays,
            },
            // 7.4.2.4.4; enhancement layers stay unread.
            (CodecState::H265(_), &[a, b, ..]) if a & 1 == 0 && b & 0xF8 == 0 => {
                match a >> 1 & 0x3F {
                    0..=9 | 16..=23 => NalClass::Slice,
                    32 => NalClass::Prefix(Wanted::Vps),
                    33 => NalClass::Prefix(Wanted::Sps),
                    34 => NalClass::Prefix(Wanted::Pps),
                    39 => NalClass::Prefix(Wanted::Sei),
                    35 | 41..=44 | 48..=55 => NalClass::Prefix(Wanted::Nothing),
                    _ => NalClass::Stays,
                }
            }
            _ => NalClass::Stays,
        }
    }

    /// `undecided`: the slice behind it tells whether it begins a unit.
    fn on_prefix(&mut self, undecided: bool, arrival: Instant) {
        if !self.open {
            self.trust.verdict(true, self.nal.total);
            self.open_at(self.nal);
        } else if self.unit.has_picture {
            // An access unit delimiter may stand between the two fields of a frame.
            if undecided || self.unit.lone_field || self.source_delimits {
                self.unit.boundary.get_or_insert(self.nal);
            } else {
                let boundary = self.unit.boundary.unwrap_or(self.nal);
                self.trust.verdict(true, boundary.total);
                self.close_at(boundary, arrival);
                self.open_at(boundary);
            }
        }
    }

    /// The head of the NAL unit is as complete as it gets.
    fn finish_head(&mut self, arrival: Instant) {
        let Stage::Head(class) = self.stage else {
            self.stage = Stage::Idle;
            self.want = 0;
            return;
        };
        self.stage = Stage::Idle;
        self.want = 0;
        let head = core::mem::take(&mut self.head);
        match class {
            NalClass::Prefix(wanted) => self.read_prefix(wanted, &head),
            NalClass::Slice => self.on_slice(&head, arrival),
            NalClass::SlicePrefix | NalClass::Stays => {}
        }
        self.head = head;
    }

    fn read_prefix(&mut self, wanted: Wanted, nal: &[u8]) {
        let good = match (&mut self.codec, wanted) {
            (_, Wanted::Nothing) => true,
            (CodecState::H264(state), _) => {
                let rbsp = nal.get(1..).unwrap_or_default();
                match wanted {
                    Wanted::Sps => {
                        self.prefix.sps = true;
                        state.add_sps(rbsp)
                    }
                    Wanted::Pps => state.add_pps(rbsp),
                    _ => {
                        self.prefix.recovery = self.prefix.recovery.or(h264::recovery_point(rbsp));
                        true
                    }
                }
            }
            (CodecState::H265(state), _) => {
                let rbsp = nal.get(2..).unwrap_or_default();
                match wanted {
                    Wanted::Vps => state.add_vps(rbsp),
                    Wanted::Sps => state.add_sps(rbsp),
                    Wanted::Pps => state.add_pps(rbsp),
                    _ => true,
                }
            }
        };
        if !good {
            self.counters.malformed += 1;
        }
    }

    fn on_slice(&mut self, head: &[u8], arrival: Instant) {
        match &mut self.codec {
            CodecState::H264(state) => {
                let before = state.previous();
                let Some(slice) = state.parse_slice(head) else {
                    return self.malformed_slice(arrival);
                };
                let begins = state.begins_picture(slice);
                let field = slice.rest.is_some_and(|r| r.field);
                let second = self.open
                    && self.unit.lone_field
                    && before.is_some_and(|first| h264::completes_frame(&first, &slice));
                let info = state.info().copied();
                if second && begins {
                    // A random access point in fields is an I field and mostly a P field that
                    // refers to it (H.264 D.2.8: the recovery point is that of the first).
                    self.unit.intra_field = self.unit.largest == Some(SliceKind::I);
                    self.unit.lone_field = false;
                    self.unit.boundary = None;
                    // What stood between the fields belongs to this frame.
                    self.prefix = Prefix::default();
                } else {
                    self.place_slice(begins, slice.first_mb == 0, arrival);
                    self.unit.lone_field |= field && begins;
                }
                self.unit.idr |= slice.idr;
                self.unit.discardable = slice.ref_idc == 0;
                self.unit.largest = self.unit.largest.max(slice.kind);
                self.learn(info);
            }
            CodecState::H265(state) => {
                let Some(slice) = state.parse_slice(head) else {
                    return self.malformed_slice(arrival);
                };
                let info = state.info().copied();
                self.place_slice(slice.first, slice.first, arrival);
                self.unit.idr |= slice.is_idr();
                self.unit.irap |= slice.is_irap();
                self.unit.discardable = slice.is_discardable();
                self.unit.largest = self.unit.largest.max(slice.kind);
                self.learn(info);
            }
        }
    }

    fn malformed_slice(&mut self, arrival: Instant) {
        self.counters.malformed += 1;
        if !self.open {
            self.place_slice(false, false, arrival);
        }
        self.unit.damaged = true;
        self.unit.has_picture = true;
    }

    fn learn(&mut self, info: Option<VideoInfo>) {
        if let Some(info) = info.filter(|i| *i != self.info) {
            self.info = info;
            self.info_version += 1;
        }
    }

    /// Puts the slice that begins at `self.nal` into the unit that it belongs to.
    /// `whole_head`: it is the first slice of its picture for certain.
    fn place_slice(&mut self, begins: bool, whole_head: bool, arrival: Instant) {
        let boundary = self.unit.boundary.filter(|_| self.open);
        let boundary = boundary.unwrap_or(self.nal);
        let contradicted = self.trust.verdict(begins, boundary.total);
        if !self.open {
            self.open_at(self.nal);
            // Nothing but the slice's own word tells that the picture's start is here.
            self.unit.damaged |= contradicted || (self.lossy && !whole_head);
        } else if self.unit.has_picture && begins {
            self.close_at(boundary, arrival);
            self.open_at(boundary);
            self.unit.damaged |= self.lossy && !whole_head;
        } else if !self.unit.has_picture {
            self.unit.damaged |= self.lossy && !whole_head;
        } else {
            // What stood between two slices of a picture belongs to it.
            self.unit.boundary = None;
            self.prefix = Prefix::default();
            return;
        }
        self.unit.has_picture = true;
        self.unit.prefix = core::mem::take(&mut self.prefix);
        self.lossy = false;
    }

    fn open_at(&mut self, first: Mark) {
        self.open = true;
        self.limit = first.total + self.max_unit;
        let (pts, dts) = (self.next_pts, self.next_dts);
        self.unit = Unit {
            first,
            pts,
            dts,
            ..Unit::default()
        };
        if !self.source_delimits {
            // A PES packet's times are those of the first unit that begins in it (2.7.4); an
            // RTP timestamp is that of all that carries it.
            self.set_timestamps(None, None);
        }
    }

    fn close_here(&mut self, arrival: Instant) {
        let end = self.end.unwrap_or(self.nal.at);
        let mark = Mark {
            at: end,
            total: self.total,
            before: end,
            before_arrival: self.last_arrival,
            ..Mark::default()
        };
        self.close_at(mark, arrival);
    }

    /// The unit ends before `next`.
    fn close_at(&mut self, next: Mark, completed_by: Instant) {
        let unit = &self.unit;
        self.open = false;
        self.limit = u64::MAX;
        if next.total <= unit.first.total {
            return;
        }
        let kind = match unit.largest {
            _ if unit.idr => FrameKind::Idr,
            _ if unit.irap => FrameKind::Cra,
            // H.264 open GOP: a recovery point of count 0, or what encoders without SEI give.
            largest
                if (unit.intra_field || largest == Some(SliceKind::I))
                    && matches!(self.codec, CodecState::H264(_))
                    && match unit.prefix.recovery {
                        Some(count) => count == 0,
                        None => unit.prefix.sps || unit.prefix.random_access,
                    } =>
            {
                FrameKind::Cra
            }
            Some(SliceKind::I) => FrameKind::I,
            Some(SliceKind::P) => FrameKind::P,
            Some(SliceKind::B) => FrameKind::B,
            None => FrameKind::Other,
        };
        if self.ready.len() >= MAX_READY {
            self.ready.pop_front();
            self.counters.dropped += 1;
        }
        self.ready.push_back(AccessUnit {
            track: self.track,
            kind,
            damaged: unit.damaged,
            discardable: unit.discardable,
            first: unit.first.at,
            lead: unit.first.lead,
            end: next.before,
            bytes: u32::try_from(next.total - unit.first.total).unwrap_or(u32::MAX),
            pts: unit.pts,
            dts: unit.dts,
            first_arrival: unit.first.arrival,
            last_arrival: next.before_arrival,
            completed_by,
            ..AccessUnit::default()
        });
    }

    #[cold]
    fn close_oversized(&mut self, arrival: Instant) {
        self.counters.oversized += 1;
        self.damage();
        // The caller has not said yet where these bytes end.
        self.close_here(arrival);
        self.oversized = true;
    }
}
