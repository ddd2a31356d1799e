//! AV1 and JPEG XS in PES packets, whose pictures have sizes of their own.
//!
//! AV1 (AOMedia, "Carriage of AV1 in MPEG-2 TS", draft): OBUs with start codes and emulation
//! prevention, a frame in each PES packet; or as older multiplexers write it, a temporal unit
//! in each, or OBUs as they are, by their sizes. The first byte of a PES packet tells: no OBU
//! header is 0. Zero bytes before a start code are the OBU's as far as its size asks for them. Frames are made into temporal units by the [`ObuAssembler`].
//!
//! JPEG XS (ISO 13818-1, annex S): each PES packet has a box, then the codestream of a picture,
//! or those of its two fields. Where they end is in their picture headers.
//!
//! The demultiplexer drives a [`Coded`] with PES payloads; [`unwrap`] turns the bytes of a unit
//! that were found again into an elementary stream.

use std::collections::VecDeque;

use memchr::{memchr, memmem};
use mirror_base::{Instant, Position};

use super::pes::Pes;
use super::place::Place;
use super::start_codes::without_code;
use super::streams::{Batch, Expected, most_packets, plain_packets};
use super::{DATA, PACKET};
use crate::codec::av1::{DELIMITER_OBU, Obu};
use crate::codec::bits::unescape;
use crate::codec::jpegxs::{self, Boxes, Facts, HEAD, Header, Parsed, VideoSupport};
use crate::obu_assembler::{ObuAssembler, ObuCounters};
use crate::{AccessUnit, Codec, FrameKind, Limits, Track};

/// PTS and DTS.
type Times = (Option<i64>, Option<i64>);

/// A PES packet of so many bytes may be as long as its length can say, and go on in the next.
const LONG: u32 = 65_000;
/// Zero bytes before a start code that are taken for stuffing; what is more is no AV1.
const MAX_ZEROS: u32 = 1 << 16;
/// Units that wait to be taken.
const MAX_READY: usize = 64;

/// An AV1 or JPEG XS stream.
#[derive(Debug)]
pub(super) struct Coded {
    pub(super) pes: Pes,
    pub(super) track: u16,
    /// The version of its facts that the track shows.
    shown: u32,
    seen: ObuCounters,
    /// Bytes of the PES packet so far.
    bytes: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Av1(Av1),
    JpegXs(JpegXs),
}

/// What was wrong since it was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wrong {
    pub(super) malformed: u64,
    pub(super) oversized: u64,
}

impl Coded {
    /// `None` for other codecs. `support`: what the JPEG XS descriptor says.
    pub(super) fn new(
        codec: Codec,
        track: u16,
        limits: &Limits,
        support: Option<VideoSupport>,
    ) -> Option<Self> {
        let kind = match codec {
            Codec::Av1 => Kind::Av1(Av1::new(track, limits)),
            Codec::JpegXs => {
                let support = support.unwrap_or_default();
                Kind::JpegXs(JpegXs::new(track, limits, support))
            }
            _ => return None,
        };
        Some(Coded {
            pes: Pes::default(),
            track,
            shown: 0,
            seen: ObuCounters::default(),
            bytes: 0,
            kind,
        })
    }

    /// The payload of a PES packet begins.
    pub(super) fn open_pes(&mut self, times: Times, arrival: Instant) {
        self.bytes = 0;
        match &mut self.kind {
            Kind::Av1(av1) => av1.open_pes(times, arrival),
            Kind::JpegXs(jxs) => jxs.open_pes(times, arrival),
        }
    }

    /// Bytes of its payload, which lie at `lead` of the packet at `place`. `last`: it ends with
    /// them; `likely_last`: it may.
    pub(super) fn feed(
        &mut self,
        data: &[u8],
        last: bool,
        likely_last: bool,
        place: &Place,
        lead: usize,
        arrival: Instant,
    ) {
        self.bytes = self.bytes.saturating_add(data.len() as u32);
        match &mut self.kind {
            Kind::Av1(av1) => av1.feed(data, place, lead, arrival),
            Kind::JpegXs(jxs) => jxs.feed(data, place, lead, arrival),
        }
        if last {
            self.end_pes(arrival);
        } else if likely_last {
            match &mut self.kind {
                Kind::Av1(av1) => av1.likely_end(arrival),
                Kind::JpegXs(jxs) => jxs.likely_end(arrival),
            }
        }
    }

    /// As [`super::streams::Video::run`]. Never inlined, for that one's sake.
    #[inline(never)]
    pub(super) fn run(&mut self, some: &Batch<'_>, expected: Expected) -> usize {
        let most = most_packets(some.packets.len(), |n| self.pes.goes_on(n) && self.takes(n));
        let packets = some.packets.get(..most).unwrap_or_default();
        let mut run = plain_packets(packets, expected);
        if matches!(&self.kind, Kind::Av1(av1) if av1.framing == Framing::StartCodes) {
            run = without_code(packets.get(..run).unwrap_or_default());
        }
        if run > 0 {
            let (place, arrival) = (some.place(run - 1), some.arrival);
            self.pes.pass(run * DATA);
            self.bytes = self.bytes.saturating_add((run * DATA) as u32);
            match &mut self.kind {
                Kind::Av1(av1) => av1.pass(run * DATA, &place, arrival),
                Kind::JpegXs(jxs) => jxs.pass(run * DATA, &place, arrival),
            }
        }
        run
    }

    #[inline]
    fn takes(&self, n: usize) -> bool {
        match &self.kind {
            Kind::Av1(av1) => av1.zeros == 0 && av1.asm.takes(n),
            Kind::JpegXs(jxs) => jxs.takes(n),
        }
    }

    /// The PES packet ends.
    pub(super) fn end_pes(&mut self, arrival: Instant) {
        let may_go_on = self.bytes >= LONG;
        match &mut self.kind {
            Kind::Av1(av1) => av1.end_pes(may_go_on, arrival),
            Kind::JpegXs(jxs) => jxs.end_pes(may_go_on, arrival),
        }
    }

    /// Bytes were lost.
    pub(super) fn damage(&mut self) {
        match &mut self.kind {
            Kind::Av1(av1) => av1.damage(),
            Kind::JpegXs(jxs) => jxs.damage(),
        }
    }

    /// Closes the unit in the making. `ended`: its PES packet has shown its end, or no end is
    /// asked for; `certain`: it lacks something.
    pub(super) fn close(&mut self, now: Instant, ended: bool, certain: bool) {
        match &mut self.kind {
            Kind::Av1(av1) => {
                let whole = !certain && (ended || av1.is_whole());
                if whole {
                    av1.end_pes(false, now);
                }
                av1.asm.close(now, !whole);
            }
            Kind::JpegXs(jxs) => {
                let endless = jxs.stage == Codestream::Endless;
                if certain || (endless && !ended) {
                    jxs.damage();
                }
                jxs.close(now);
            }
        }
    }

    /// The stream starts afresh.
    pub(super) fn restart(&mut self, now: Instant) {
        match &mut self.kind {
            Kind::Av1(av1) => {
                av1.damage();
                av1.asm.restart(now);
            }
            Kind::JpegXs(jxs) => {
                jxs.damage();
                jxs.close(now);
            }
        }
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Av1(av1) => av1.asm.waiting_since(),
            Kind::JpegXs(jxs) => jxs.open.as_ref().map(|unit| unit.last_arrival),
        }
    }

    pub(super) fn poll_unit(&mut self) -> Option<AccessUnit> {
        match &mut self.kind {
            Kind::Av1(av1) => av1.asm.poll_unit(),
            Kind::JpegXs(jxs) => jxs.ready.pop_front(),
        }
    }

    /// Shows `track` what is new. Whether anything was.
    pub(super) fn describe(&mut self, track: &mut Track) -> bool {
        let version = match &self.kind {
            Kind::Av1(av1) => av1.asm.state().version(),
            Kind::JpegXs(jxs) => jxs.facts.version(),
        };
        if core::mem::replace(&mut self.shown, version) == version {
            return false;
        }
        match &self.kind {
            Kind::Av1(av1) => av1.asm.describe(track),
            Kind::JpegXs(jxs) => jxs.facts.describe(track),
        }
        true
    }

    /// What was wrong since the last call.
    pub(super) fn take_wrong(&mut self) -> Wrong {
        let now = match &self.kind {
            Kind::Av1(av1) => *av1.asm.counters(),
            Kind::JpegXs(jxs) => jxs.counters,
        };
        let before = core::mem::replace(&mut self.seen, now);
        Wrong {
            malformed: now.malformed - before.malformed,
            oversized: now.oversized - before.oversized,
        }
    }

    /// See [`crate::Pipeline::parameter_sets`].
    pub(super) fn parameter_sets(&self) -> &[u8] {
        match &self.kind {
            Kind::Av1(av1) => av1.asm.sequence_header(),
            Kind::JpegXs(_) => &[],
        }
    }
}

/// How OBUs lie in a PES packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// Its first byte tells.
    Unknown,
    StartCodes,
    /// One after another.
    Plain,
    /// One after another, and where the next one begins is not known.
    Lost,
}

#[derive(Debug)]
struct Av1 {
    asm: ObuAssembler,
    framing: Framing,
    /// Zero bytes that came last and have not been given on.
    zeros: u32,
    /// The packet that held the last bytes, where in it they ended, and how many of them there
    /// were, at most 3.
    place: Place,
    end: usize,
    reach: u8,
    /// The PES packet before may go on in this one.
    goes_on: bool,
}

impl Av1 {
    fn new(track: u16, limits: &Limits) -> Self {
        Av1 {
            asm: ObuAssembler::new(track, limits, false),
            framing: Framing::Unknown,
            zeros: 0,
            place: Place::default(),
            end: 0,
            reach: 0,
            goes_on: false,
        }
    }

    fn open_pes(&mut self, times: Times, arrival: Instant) {
        if core::mem::take(&mut self.goes_on) {
            if times.0.is_none() && self.asm.is_in_obu() {
                return;
            }
            self.end_pes(false, arrival);
        }
        self.framing = Framing::Unknown;
        self.zeros = 0;
        self.reach = 0;
        if times.0.is_some() {
            self.asm.time_of_next_frame(times.0, arrival);
            self.asm.set_timestamps(times.0, times.1);
        }
    }

    fn feed(&mut self, data: &[u8], place: &Place, lead: usize, arrival: Instant) {
        let Some(&first) = data.first() else { return };
        if self.framing == Framing::Unknown {
            self.framing = match first {
                0 => Framing::StartCodes,
                _ => Framing::Plain,
            };
        }
        match self.framing {
            Framing::StartCodes => self.feed_start_codes(data, place, lead, arrival),
            Framing::Plain => self.feed_plain(data, place, lead, arrival),
            Framing::Unknown | Framing::Lost => {}
        }
        self.place = *place;
        self.end = lead + data.len();
        self.reach = data.len().min(3) as u8;
    }

    /// Passes over `n` bytes of an OBU's payload, up to the end of the packet at `place`.
    #[inline]
    fn pass(&mut self, n: usize, place: &Place, arrival: Instant) {
        self.asm.take_bytes(n, arrival);
        self.place = *place;
        self.end = PACKET;
        self.reach = 3;
    }

    fn feed_plain(&mut self, mut data: &[u8], place: &Place, mut lead: usize, arrival: Instant) {
        while !data.is_empty() {
            if !self.asm.is_in_obu() {
                let at = place.at(lead);
                self.asm.begin(at, lead as u8, arrival);
            }
            let taken = self.asm.bytes(data, arrival);
            let (_, rest) = data.split_at(taken.min(data.len()));
            lead += taken;
            data = rest;
            if self.asm.is_complete() {
                self.asm.end(place.at(lead), arrival);
            } else if !self.asm.is_in_obu() {
                self.framing = Framing::Lost;
                return;
            }
        }
    }

    /// Takes start codes and emulation prevention out. Zero bytes are held back until what
    /// follows tells whether they belong to a start code.
    fn feed_start_codes(&mut self, data: &[u8], place: &Place, lead: usize, arrival: Instant) {
        let mut from = 0;
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            if self.zeros == 0 && byte != 0 {
                let rest = data.get(at..).unwrap_or_default();
                at = memchr(0, rest).map_or(data.len(), |n| at + n);
                continue;
            }
            match (byte, self.zeros) {
                (0, _) => {
                    self.give(data.get(from..at), arrival);
                    self.zeros += 1;
                    from = at + 1;
                }
                (1, 2..) => {
                    self.start_code(at, place, lead, arrival);
                    from = at + 1;
                }
                (3, 2..) => {
                    self.give_zeros(arrival);
                    from = at + 1;
                }
                _ => self.give_zeros(arrival),
            }
            at += 1;
        }
        self.give(data.get(from..), arrival);
        if self.zeros > MAX_ZEROS {
            self.asm.damage();
            self.zeros = 3;
        }
    }

    fn give(&mut self, bytes: Option<&[u8]>, arrival: Instant) {
        if let Some(bytes) = bytes.filter(|b| !b.is_empty()) {
            // What is more than obu_size says is of no use.
            self.asm.bytes(bytes, arrival);
        }
    }

    fn give_zeros(&mut self, arrival: Instant) {
        const ZEROS: [u8; 64] = [0; 64];
        let mut left = core::mem::take(&mut self.zeros) as usize;
        while left > 0 {
            let n = left.min(ZEROS.len());
            self.give(ZEROS.get(..n), arrival);
            left -= n;
        }
    }

    /// A start code whose last byte is at `at` of the data at `lead` of `place`.
    fn start_code(&mut self, at: usize, place: &Place, lead: usize, arrival: Instant) {
        let zeros = if self.zeros > 2 && self.asm.lacks_bytes() {
            // An OBU may end with zeros, a temporal delimiter with that of its size.
            self.zeros -= 2;
            self.give_zeros(arrival);
            2
        } else {
            core::mem::take(&mut self.zeros).min(3) as usize
        };
        let (position, lead) = if zeros <= at {
            let lead = lead + at - zeros;
            (place.at(lead), lead)
        } else {
            // The code straddles packets.
            let lead = self.end - (zeros - at).min(usize::from(self.reach));
            (self.place.at(lead), lead)
        };
        self.asm.end(position, arrival);
        self.asm.begin(position, lead as u8, arrival);
    }

    /// One past the last byte that came.
    fn position(&self) -> Position {
        self.place.at(self.end)
    }

    /// Whether nothing shows that the unit in the making lacks something.
    fn is_whole(&self) -> bool {
        self.asm.is_complete() || self.asm.is_presentable()
    }

    fn end_pes(&mut self, may_go_on: bool, arrival: Instant) {
        if may_go_on && self.asm.is_in_obu() && !self.asm.is_complete() {
            self.goes_on = true;
            return;
        }
        self.goes_on = false;
        if self.asm.lacks_bytes() {
            self.give_zeros(arrival);
        }
        self.asm.end(self.position(), arrival);
        self.asm.end_of_frame(arrival);
    }

    /// The PES packet's last TS packet seems to have come.
    fn likely_end(&mut self, arrival: Instant) {
        if self.is_whole() {
            self.asm.end(self.position(), arrival);
            self.asm.end_of_frame(arrival);
        }
    }

    fn damage(&mut self) {
        self.asm.damage();
        self.zeros = 0;
        self.goes_on = false;
        if self.framing != Framing::StartCodes {
            self.framing = Framing::Lost;
        }
    }
}

/// How far a codestream of a PES packet has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Codestream {
    /// Its header is awaited.
    Head,
    /// So many bytes of it are still to come.
    Left(u32),
    /// It says no length.
    Endless,
    /// Nothing more is expected, or it cannot be read.
    Done,
}

#[derive(Debug)]
struct JpegXs {
    track: u16,
    max_unit: u32,
    facts: Facts,
    open: Option<AccessUnit>,
    head: Vec<u8>,
    stage: Codestream,
    /// Codestreams of which the header was read.
    codestreams: u8,
    ready: VecDeque<AccessUnit>,
    counters: ObuCounters,
    goes_on: bool,
    times: Times,
    begins: bool,
}

impl JpegXs {
    fn new(track: u16, limits: &Limits, support: VideoSupport) -> Self {
        JpegXs {
            track,
            max_unit: u32::try_from(limits.max_frame_size).unwrap_or(u32::MAX),
            facts: Facts::new(support),
            open: None,
            head: Vec::with_capacity(HEAD),
            stage: Codestream::Done,
            codestreams: 0,
            ready: VecDeque::with_capacity(4),
            counters: ObuCounters::default(),
            goes_on: false,
            times: (None, None),
            begins: false,
        }
    }

    fn open_pes(&mut self, times: Times, arrival: Instant) {
        let goes_on = core::mem::take(&mut self.goes_on);
        if goes_on && times.0.is_none() && self.open.is_some() {
            return;
        }
        self.close(arrival);
        self.times = times;
        self.begins = true;
    }

    fn begin(&mut self, at: Position, lead: usize, arrival: Instant) {
        self.begins = false;
        self.head.clear();
        self.stage = Codestream::Head;
        self.codestreams = 0;
        self.open = Some(AccessUnit {
            track: self.track,
            // Each picture stands alone.
            kind: FrameKind::Idr,
            discardable: true,
            first: at,
            lead: u8::try_from(lead).unwrap_or(u8::MAX),
            end: at,
            pts: self.times.0,
            dts: self.times.1,
            first_arrival: arrival,
            last_arrival: arrival,
            ..AccessUnit::default()
        });
    }

    fn feed(&mut self, data: &[u8], place: &Place, lead: usize, arrival: Instant) {
        if self.begins && !data.is_empty() {
            self.begin(place.at(lead), lead, arrival);
        }
        let Some(unit) = &mut self.open else { return };
        unit.bytes = unit.bytes.saturating_add(data.len() as u32);
        unit.end = place.at(lead + data.len());
        unit.last_arrival = arrival;
        if unit.bytes > self.max_unit {
            unit.damaged = true;
            self.counters.oversized += 1;
            self.close(arrival);
            return;
        }
        let mut data = data;
        while !data.is_empty() {
            data = match self.stage {
                Codestream::Done | Codestream::Endless => return,
                Codestream::Left(left) => {
                    let (mine, rest) = data.split_at(data.len().min(left as usize));
                    let left = left - mine.len() as u32;
                    self.stage = if left > 0 {
                        Codestream::Left(left)
                    } else if self.codestreams < 2 {
                        // The second field's may follow.
                        self.head.clear();
                        Codestream::Head
                    } else {
                        Codestream::Done
                    };
                    rest
                }
                Codestream::Head => self.read_head(data),
            };
        }
    }

    /// Whether `n` bytes more are simply more of the codestream, and not its last.
    #[inline]
    fn takes(&self, n: usize) -> bool {
        let more = matches!(self.stage, Codestream::Left(left) if left as usize > n);
        let bytes = self.open.as_ref().map_or(u32::MAX, |unit| unit.bytes);
        more && u64::from(bytes) + n as u64 <= u64::from(self.max_unit)
    }

    /// Passes over `n` bytes of which that is true, up to the end of the packet at `place`.
    #[inline]
    fn pass(&mut self, n: usize, place: &Place, arrival: Instant) {
        if let Codestream::Left(left) = &mut self.stage {
            *left -= n as u32;
        }
        if let Some(unit) = &mut self.open {
            unit.bytes += n as u32;
            unit.end = place.at(PACKET);
            unit.last_arrival = arrival;
        }
    }

    /// Gathers the head of a codestream; returns what is left of `data`.
    fn read_head<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let before = self.head.len();
        let (mine, _) = data.split_at(data.len().min(HEAD - before));
        self.head.extend_from_slice(mine);
        let found = if self.codestreams == 0 {
            self.facts.take(&self.head)
        } else {
            match Header::parse(&self.head) {
                Parsed::Header(header) => Some((0, header)),
                Parsed::More | Parsed::Bad => None,
            }
        };
        let Some((at, header)) = found else {
            if self.head.len() >= HEAD || self.is_hopeless() {
                self.counters.malformed += 1;
                self.spoil();
            }
            return data.get(mine.len()..).unwrap_or_default();
        };
        self.codestreams += 1;
        if let Some(unit) = &mut self.open {
            unit.bytes = unit.bytes.saturating_sub(at as u32);
        }
        self.stage = match header.codestream_bytes {
            0 => Codestream::Endless,
            bytes => Codestream::Left(bytes),
        };
        // The codestream's bytes that were gathered are passed over with the others; it is at
        // least as long as its header, or lies.
        let gathered = (before.saturating_sub(at)) as u32;
        if let Codestream::Left(bytes) = self.stage {
            match bytes.checked_sub(gathered) {
                Some(left) => self.stage = Codestream::Left(left),
                None => {
                    self.counters.malformed += 1;
                    self.spoil();
                }
            }
        }
        data.get(at.saturating_sub(before)..).unwrap_or_default()
    }

    /// Whether the gathered bytes cannot become a codestream's head.
    fn is_hopeless(&self) -> bool {
        let head = match jpegxs::boxes(&self.head) {
            Boxes::Codestream(at, _) => self.head.get(at..).unwrap_or_default(),
            Boxes::More => return false,
            Boxes::Bad => return true,
        };
        Header::parse(head) == Parsed::Bad
    }

    fn spoil(&mut self) {
        self.stage = Codestream::Done;
        if let Some(unit) = &mut self.open {
            unit.damaged = true;
        }
    }

    /// Whether the codestreams that began have come whole, as far as they tell.
    fn is_whole(&self) -> bool {
        match self.stage {
            // Behind the first field's codestream, or a picture's.
            Codestream::Head => self.codestreams > 0 && self.head.is_empty(),
            Codestream::Left(_) => false,
            Codestream::Endless | Codestream::Done => true,
        }
    }

    fn end_pes(&mut self, may_go_on: bool, arrival: Instant) {
        if may_go_on && !self.is_whole() {
            self.goes_on = true;
        } else {
            self.close(arrival);
        }
    }

    fn likely_end(&mut self, arrival: Instant) {
        let fields = 1 + u8::from(self.facts.support().interlaced);
        if self.codestreams == fields && self.is_whole() && self.stage != Codestream::Endless {
            self.close(arrival);
        }
    }

    fn damage(&mut self) {
        self.goes_on = false;
        self.spoil();
    }

    fn close(&mut self, now: Instant) {
        self.begins = false;
        let whole = self.is_whole();
        self.stage = Codestream::Done;
        let Some(mut unit) = self.open.take().filter(|u| u.bytes > 0) else {
            return;
        };
        unit.damaged |= !whole;
        unit.completed_by = now;
        if self.ready.len() >= MAX_READY {
            self.ready.pop_front();
            self.counters.dropped += 1;
        }
        self.ready.push_back(unit);
    }
}

/// Turns what `out` holds from `from` on, PES payload of a unit, into an elementary stream: OBUs
/// with sizes behind a temporal delimiter, or codestreams without the box before them.
pub(super) fn unwrap(codec: Codec, out: &mut Vec<u8>, from: usize) {
    match codec {
        Codec::Av1 => {
            let raw = out.split_off(from.min(out.len()));
            unwrap_obus(&raw, out);
        }
        Codec::JpegXs => {
            let head = out.get(from..).unwrap_or_default();
            let head = head.get(..head.len().min(HEAD)).unwrap_or_default();
            if let Boxes::Codestream(at, _) = jpegxs::boxes(head) {
                out.drain(from..from + at);
            }
        }
        _ => {}
    }
}

/// What cannot be read as OBUs is left out.
fn unwrap_obus(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&DELIMITER_OBU);
    if !matches!(raw, [0 | 1, ..]) {
        let mut rest = raw;
        while let Some(obu) = Obu::read(rest).filter(|o| o.bytes > 0) {
            obu.write(out);
            rest = rest.get(obu.bytes..).unwrap_or_default();
        }
        return;
    }
    // A unit whose code straddled packets may lack a zero byte of it.
    let start = raw.iter().position(|&b| b != 0).map_or(0, |at| at + 1);
    let mut rest = raw.get(start..).unwrap_or_default();
    let mut plain = Vec::new();
    while !rest.is_empty() {
        let (escaped, after) = match memmem::find(rest, &[0, 0, 1]) {
            Some(at) => (rest.get(..at), rest.get(at + 3..)),
            None => (Some(rest), None),
        };
        let escaped = escaped.unwrap_or_default();
        let sized = escaped.first().is_some_and(|header| header & 2 != 0);
        let zeros = escaped.iter().rev().take_while(|&&b| b == 0).count();
        let stuffing = if sized { 0 } else { zeros };
        let (escaped, _) = escaped.split_at(escaped.len() - stuffing);
        plain.clear();
        unescape(escaped, &mut plain);
        if let Some(obu) = Obu::read(&plain) {
            obu.write(out);
        }
        rest = after.unwrap_or_default();
    }
}
