//! From NAL units to access units (H.264 7.4.1.2.3 and 7.4.1.2.4, HEVC 7.4.2.4.4; MPEG-2 video
//! 6.1.1, whose start codes stand for NAL units).
//!
//! The MPEG-TS demultiplexer and the reader of Annex B files, which find NAL units by their start
//! codes, and the RTP depacketisers, which know them from the payload format, drive an
//! [`Assembler`]:
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
//!
//! Here are its doors and the gathering of heads. [`classify`] knows what a NAL unit is by its
//! header, [`pictures`] reads heads and puts slices into units, [`close`] tells what a finished
//! unit is, with [`order`] (reordering, decoding times) and [`start`] (where decoding can begin);
//! [`sets`] keeps the parameter sets for who joins late.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

mod classify;
mod close;
mod order;
mod pictures;
mod sets;
mod start;
mod unit;

use std::collections::VecDeque;

use mirror_base::{Instant, Position};

use crate::codec::scan::Scan;
use crate::codec::{VideoInfo, h264, h265, mpeg2};
use crate::{AccessUnit, Codec, DisplayOrder, Limits, SideInformation};
use classify::{Class, Wanted, classify};
use unit::{Mark, Prefix, TRUST, Trust, Unit};

/// Bytes kept of a slice: its header up to the reference picture marking.
const SLICE_HEAD: usize = 96;
/// Bytes kept of a parameter set or an SEI NAL unit.
const SET_HEAD: usize = 4096;
/// Units that wait for `poll_unit`; a caller that never polls loses the oldest.
const MAX_READY: usize = 256;

#[derive(Debug)]
enum CodecState {
    H264(Box<h264::State>),
    H265(Box<h265::State>),
    Mpeg2(Box<mpeg2::State>),
}

impl CodecState {
    const fn codec(&self) -> Codec {
        match self {
            CodecState::H264(_) => Codec::H264,
            CodecState::H265(_) => Codec::H265,
            CodecState::Mpeg2(_) => Codec::Mpeg2Video,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No NAL unit, or its head has been dealt with.
    Idle,
    /// The header's one or two bytes are awaited.
    Header,
    /// The head of that class is awaited.
    Head(Class),
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
    known: Known,
    start: start::Start,
    /// Where the last open random access point stands in display order.
    entry: Option<DisplayOrder>,
    observed: order::Observed,
    deriver: order::Deriver,
    sets: sets::ParameterSets,
    counters: AssemblerCounters,
}

/// What the bits have told of the stream.
#[derive(Debug, Default)]
struct Known {
    info: VideoInfo,
    version: u32,
    /// The parameter sets' generation that `info` is of.
    generation: u32,
    /// Something else was learned since.
    changed: bool,
    side: SideInformation,
    /// A key frame has come, with which the time code is shown anew.
    show_timecode: bool,
    /// The reorder depth that the parameter sets promise.
    promised: Option<u8>,
    /// Alternative transfer characteristics.
    transfer: Option<u8>,
    /// How pictures were scanned since the parameter sets changed: interlaced if one was.
    scan: Option<Scan>,
    /// Temporal layers seen.
    temporal_layers: u8,
    /// Layers beyond the base layer that were seen, a bit for each.
    layers: u128,
    /// What the prefix NAL unit (H.264 type 14) before the next slice says.
    next_temporal_id: Option<u8>,
    /// SEI without emulation prevention.
    rbsp: Vec<u8>,
}

impl Assembler {
    /// For a track of H.264, HEVC or MPEG-2 video; `None` for any other codec. `believe_ends`: whether
    /// [`Assembler::end_of_unit`] closes units from the first one (RTP markers) or only after
    /// it was right several times (PES boundaries).
    pub fn new(codec: Codec, track: u16, limits: &Limits, believe_ends: bool) -> Option<Self> {
        let codec = match codec {
            Codec::H264 => CodecState::H264(Box::default()),
            Codec::H265 => CodecState::H265(Box::default()),
            Codec::Mpeg2Video => CodecState::Mpeg2(Box::default()),
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
            known: Known::default(),
            start: start::Start::default(),
            entry: None,
            observed: order::Observed::default(),
            deriver: order::Deriver::default(),
            sets: sets::ParameterSets::default(),
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
        self.finish_head(arrival, true);
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
            CodecState::H264(_) | CodecState::Mpeg2(_) => 1,
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
            self.exceed(arrival);
        }
    }

    /// How many bytes may come before it matters where they are cut: a unit that grows too large
    /// is closed with the bytes that [`Assembler::nal_bytes`] was given then. At least 1.
    pub(crate) fn room(&self) -> usize {
        if self.is_undecided() {
            return self.want;
        }
        let bytes = self.limit.saturating_sub(self.total).saturating_add(1);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Whether the bytes of the NAL unit in the making may turn out to be the next unit's.
    const fn is_undecided(&self) -> bool {
        self.want > 0 && matches!(self.stage, Stage::Header | Stage::Head(Class::Slice))
    }

    /// More bytes came than a unit may have.
    #[cold]
    fn exceed(&mut self, arrival: Instant) {
        if !self.is_undecided() {
            self.close_oversized(arrival);
        }
    }

    /// Whether `n` bytes more are of no interest: the NAL unit's head is complete, and the unit
    /// stays within its limit. Then [`Assembler::take_bytes`] does for [`Assembler::nal_bytes`].
    #[inline]
    pub const fn takes(&self, n: usize) -> bool {
        self.want == 0 && self.total + n as u64 <= self.limit
    }

    /// `n` bytes more, of which [`Assembler::takes`] is true.
    #[inline]
    pub const fn take_bytes(&mut self, n: usize, arrival: Instant) {
        self.total += n as u64;
        self.last_arrival = arrival;
    }

    /// The current NAL unit is complete; `end` is one past its last byte.
    pub fn nal_end(&mut self, end: Position, arrival: Instant) {
        self.finish_head(arrival, true);
        self.end = Some(end);
        if self.total > self.limit {
            self.exceed(arrival);
        }
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

    /// The NAL unit in the making will be left out of the unit: what came of it does not count.
    /// For sources that hand out whole NAL units only; [`Assembler::damage`] or
    /// [`Assembler::close`] goes with it.
    pub fn abandon(&mut self) {
        if self.open {
            // It may have begun in a unit that was closed meanwhile, because it was too large.
            let from = self.nal.total.max(self.unit.first.total);
            self.unit.left_out += self.total.saturating_sub(from);
        }
    }

    /// As [`Assembler::abandon`], where nothing follows: what its head tells still counts.
    pub fn abandon_last(&mut self, now: Instant) {
        self.finish_head(now, false);
        self.abandon();
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
        self.finish_head(arrival, true);
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
        self.finish_head(now, false);
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
        self.start = start::Start::default();
        self.entry = None;
        self.deriver.restart();
        match &mut self.codec {
            CodecState::H264(state) => state.restart(),
            CodecState::H265(state) => state.restart(),
            CodecState::Mpeg2(state) => state.restart(),
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
    /// The time code is that of the last key frame.
    pub const fn info(&self) -> (u32, &VideoInfo) {
        (self.known.version, &self.known.info)
    }

    /// Feeds a parameter set that came outside the stream (SDP `sprop-…`, a decoder
    /// configuration record), with its header.
    pub fn add_parameter_set(&mut self, nal: &[u8]) {
        if let Class::Prefix(wanted @ (Wanted::Vps | Wanted::Sps | Wanted::Pps)) =
            classify(self.codec.codec(), nal)
        {
            self.read_set(wanted, nal, true);
            self.activate_sets();
        }
    }

    /// The parameter sets in force, Annex B with four-byte start codes. Empty until they came,
    /// and for MPEG-2 video, which repeats its headers.
    pub fn parameter_sets(&self) -> &[u8] {
        self.sets.in_force()
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
                Stage::Head(_) => self.finish_head(arrival, false),
                Stage::Idle => {}
            }
        }
    }

    /// The NAL unit's type is known.
    fn on_header(&mut self, arrival: Instant) {
        let class = classify(self.codec.codec(), &self.head);
        self.stage = Stage::Head(class);
        match class {
            Class::Slice => self.want = SLICE_HEAD,
            Class::Row(row) => {
                self.stage = Stage::Idle;
                self.on_row(row, arrival);
            }
            Class::Prefix(wanted) => {
                self.want = wanted.bytes(SET_HEAD).saturating_sub(self.head.len());
                self.on_prefix(false, arrival);
            }
            Class::SlicePrefix => {
                self.want = Wanted::Extension.bytes(SET_HEAD) - 1;
                self.on_prefix(true, arrival);
            }
            Class::Stays(Wanted::Layer(layer)) => self.see_layer(layer),
            Class::Stays(Wanted::End) => {
                if let CodecState::H265(state) = &mut self.codec {
                    state.end_of_sequence();
                }
            }
            Class::Stays(wanted) => {
                self.want = wanted.bytes(SET_HEAD).saturating_sub(self.head.len());
            }
        }
        if self.want == 0 {
            self.stage = Stage::Idle;
        }
    }

    fn see_layer(&mut self, layer: u8) {
        let seen = self.known.layers | 1 << (layer & 127);
        self.known.changed |= seen != self.known.layers;
        self.known.layers = seen;
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

    /// The head of the NAL unit is as complete as it gets. `ended`: the NAL unit has ended too.
    fn finish_head(&mut self, arrival: Instant, ended: bool) {
        let stage = core::mem::replace(&mut self.stage, Stage::Idle);
        self.want = 0;
        let Stage::Head(class) = stage else { return };
        let mut head = core::mem::take(&mut self.head);
        if matches!(self.codec, CodecState::Mpeg2(_)) {
            // A zero byte before a start code counts with the code, but may be the header's.
            head.extend_from_slice(&[0; 4]);
        }
        match class {
            Class::Slice => self.on_slice(&head, arrival),
            Class::Prefix(wanted) | Class::Stays(wanted) => self.read_nal(wanted, &head, ended),
            Class::SlicePrefix => {
                if let Some(&[_, a, b, c]) = head.first_chunk::<4>() {
                    let extension = h264::extension([a, b, c]);
                    self.known.next_temporal_id = Some(extension.temporal_id);
                }
            }
            Class::Row(_) => {}
        }
        self.head = head;
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
}
