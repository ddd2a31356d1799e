//! Streams whose units have a length of their own: audio frames and KLV units, several in a PES
//! packet, or across PES packets (ISO 13818-1, 2.7.4: the PTS is that of the first unit that
//! *begins* in the PES packet; those behind it follow by their duration). The demultiplexer
//! feeds PES payloads; [`super::heads`] tells where a frame ends.

use mirror_base::{Instant, Position};

use super::heads::{self, Frame, HEAD, Head};
use super::klv::{self, CELL_HEADER};
use super::pes::{Pes, Stage};
use super::place::Place;
use crate::codec::audio::AudioInfo;
use crate::{AccessUnit, Codec};

/// PTS and DTS.
type Times = (Option<i64>, Option<i64>);

/// Where a byte lies.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Position,
    lead: u8,
    arrival: Instant,
}

/// Synchronous KLV: the metadata AU cells around the units.
#[derive(Debug, Default)]
struct Cells {
    header: [u8; CELL_HEADER],
    have: usize,
    first: Mark,
    /// Bytes of the cell still to come.
    left: usize,
    /// The cell holds a whole unit.
    whole: bool,
}

/// An audio or KLV stream.
#[derive(Debug)]
pub(super) struct Framed {
    pub(super) pes: Pes,
    pub(super) track: u16,
    /// What the frames' headers say; the number grows with each change.
    pub(super) info: (u32, AudioInfo),
    /// The number that the track shows.
    pub(super) shown: u32,
    /// Places where frames had to be looked for anew.
    pub(super) malformed: u64,
    codec: Codec,
    max_bytes: usize,
    head: [u8; HEAD],
    marks: [Mark; HEAD],
    have: usize,
    /// Bytes of the frame still to come.
    left: usize,
    frame: Frame,
    unit: AccessUnit,
    open: bool,
    /// A whole frame that the next header decides upon.
    waiting: Option<AccessUnit>,
    /// Frames follow each other as their headers say.
    synced: bool,
    /// The codec is a guess: a header alone is not believed.
    pub(super) cautious: bool,
    /// The times of the next frame to begin, and of the one behind it: a header may straddle
    /// two PES packets.
    next: Option<Times>,
    after: Option<Times>,
    /// Samples of the newest frame that said it.
    usual: u32,
    /// Time of an earlier frame, and the samples since.
    base: Option<i64>,
    samples: u64,
    rate: u32,
    cells: Option<Cells>,
}

/// Whether the codec's units are found here.
pub(super) const fn is_framed(codec: Codec) -> bool {
    matches!(
        codec,
        Codec::Aac
            | Codec::AacLatm
            | Codec::Ac3
            | Codec::Eac3
            | Codec::Opus
            | Codec::MpegAudio
            | Codec::Klv
    )
}

impl Framed {
    /// `in_cells`: the units lie in metadata AU cells.
    pub(super) fn new(codec: Codec, track: u16, max_bytes: usize, in_cells: bool) -> Self {
        Framed {
            pes: Pes::default(),
            track,
            info: (0, AudioInfo::default()),
            shown: 0,
            malformed: 0,
            codec,
            max_bytes,
            head: [0; HEAD],
            marks: [Mark::default(); HEAD],
            have: 0,
            left: 0,
            frame: Frame::default(),
            unit: AccessUnit::default(),
            open: false,
            waiting: None,
            synced: false,
            cautious: false,
            next: None,
            after: None,
            base: None,
            samples: 0,
            usual: 1024,
            rate: 0,
            cells: in_cells.then(Cells::default),
        }
    }

    /// When the unit in the making got its last byte.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match (&self.waiting, self.open) {
            (_, true) => Some(self.unit.last_arrival),
            (Some(unit), false) => Some(unit.last_arrival),
            (None, false) => None,
        }
    }

    /// A PES packet's payload begins with `data`.
    pub(super) fn open_pes(
        &mut self,
        data: &[u8],
        times: Times,
        emit: &mut impl FnMut(AccessUnit),
    ) {
        if times.0.is_some() || self.codec == Codec::Klv {
            let place = if self.have == 0 {
                &mut self.next
            } else {
                &mut self.after
            };
            *place = Some(times);
        }
        // A KLV unit that does not end before the next one begins was cut.
        let cut = self.codec == Codec::Klv && self.open && data.starts_with(&klv::LABEL);
        if cut {
            self.lose(emit);
        }
        // Nearly all multiplexers begin a PES packet with a frame.
        if !self.synced && !self.cautious && self.have == 0 && self.left == 0 {
            self.synced = match heads::head(self.codec, data.get(..HEAD).unwrap_or(data)) {
                Head::Frame(frame) => frame.bytes > 8,
                Head::More | Head::No => false,
            };
        }
    }

    /// Bytes of PES payload, which lie at `lead` of the packet at `place`. `last`: the PES
    /// packet ends with them.
    pub(super) fn feed(
        &mut self,
        data: &[u8],
        last: bool,
        place: &Place,
        lead: usize,
        arrival: Instant,
        emit: &mut impl FnMut(AccessUnit),
    ) {
        let mark = |k: usize| Mark {
            at: place.at(lead + k),
            lead: u8::try_from(lead + k).unwrap_or(u8::MAX),
            arrival,
        };
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|r| !r.is_empty()) {
            if self.cells.is_none() {
                at += self.some(rest, at, &mark, emit);
                continue;
            }
            let (passed, usable) = self.cell_bytes(rest, mark(at), emit);
            at += passed;
            let mut from = at - usable;
            while from < at {
                let part = data.get(from..at).unwrap_or_default();
                from += self.some(part, from, &mark, emit);
            }
        }
        if last && self.have == 0 && self.left == 0 && self.waiting.is_some() {
            // What ends with its PES packet is whole.
            self.settle(true, emit);
            self.synced = true;
            self.cautious = false;
        }
    }

    /// Passes over cell headers: how many bytes of `data` belong to the cell, and how many of
    /// these, the last ones, are its data.
    fn cell_bytes(
        &mut self,
        data: &[u8],
        mark: Mark,
        emit: &mut impl FnMut(AccessUnit),
    ) -> (usize, usize) {
        let Some(cells) = &mut self.cells else {
            return (data.len(), data.len());
        };
        if cells.left > 0 {
            let n = data.len().min(cells.left);
            cells.left -= n;
            return (n, n);
        }
        if cells.have == 0 {
            cells.first = mark;
        }
        let n = data.len().min(CELL_HEADER - cells.have);
        if let (Some(to), Some(from)) = (
            cells.header.get_mut(cells.have..cells.have + n),
            data.get(..n),
        ) {
            to.copy_from_slice(from);
        }
        cells.have += n;
        if cells.have < CELL_HEADER {
            return (n, 0);
        }
        let cell = klv::cell(cells.header);
        cells.have = 0;
        cells.left = cell.bytes;
        cells.whole = cell.whole;
        if cell.first && (self.open || self.have > 0) {
            self.lose(emit);
        }
        (n, 0)
    }

    /// Takes some bytes of `data`, which lies `at` bytes into what `mark` counts from; returns
    /// how many.
    fn some(
        &mut self,
        data: &[u8],
        at: usize,
        mark: &impl Fn(usize) -> Mark,
        emit: &mut impl FnMut(AccessUnit),
    ) -> usize {
        if self.left > 0 {
            let n = data.len().min(self.left);
            self.left -= n;
            self.unit.bytes = self.unit.bytes.saturating_add(n as u32);
            let end = mark(at + n);
            self.unit.end = end.at;
            self.unit.last_arrival = end.arrival;
            if self.left == 0 {
                self.complete(end.arrival, emit);
            }
            return n;
        }
        if !self.synced && self.have == 0 {
            let wanted = heads::first_byte(self.codec);
            let stray = memchr::memchr(wanted, data).unwrap_or(data.len());
            if stray > 0 {
                return stray;
            }
        }
        let Some(&byte) = data.first() else { return 0 };
        if let (Some(to), Some(place)) =
            (self.head.get_mut(self.have), self.marks.get_mut(self.have))
        {
            (*to, *place) = (byte, mark(at));
            self.have += 1;
        }
        self.look(mark(at + 1), emit);
        1
    }

    /// Looks at the head that was gathered; `end` is where the byte behind it lies.
    fn look(&mut self, end: Mark, emit: &mut impl FnMut(AccessUnit)) {
        while self.have > 0 {
            let found = heads::head(self.codec, self.head.get(..self.have).unwrap_or_default());
            match found {
                Head::More if self.have < HEAD => return,
                Head::Frame(frame) if frame.bytes <= self.max_bytes => {
                    return self.begin(frame, end, emit);
                }
                Head::More | Head::No | Head::Frame(_) => self.stray(emit),
            }
        }
    }

    /// No frame begins with the gathered head: its first byte is passed over.
    fn stray(&mut self, emit: &mut impl FnMut(AccessUnit)) {
        if self.synced {
            self.malformed += 1;
            self.base = None;
        }
        self.settle(self.synced, emit);
        self.synced = false;
        self.head.copy_within(1.., 0);
        self.marks.copy_within(1.., 0);
        self.have = self.have.saturating_sub(1);
        if self.have == 0 && self.after.is_some() {
            self.next = self.after.take();
        }
    }

    /// The frame that waits is one, or was none.
    fn settle(&mut self, good: bool, emit: &mut impl FnMut(AccessUnit)) {
        if let Some(unit) = self.waiting.take()
            && good
        {
            emit(unit);
        }
    }

    fn begin(&mut self, frame: Frame, end: Mark, emit: &mut impl FnMut(AccessUnit)) {
        let have = core::mem::take(&mut self.have);
        self.frame = frame;
        self.left = frame.bytes.saturating_sub(have);
        let before = self.waiting.take();
        if before.is_some() {
            self.synced = true;
            self.cautious = false;
        }
        if let Some(unit) = before {
            if frame.continues {
                self.unit = unit;
                self.unit.bytes = self.unit.bytes.saturating_add(have as u32);
                self.open = true;
                self.ends(end, emit);
                return;
            }
            emit(unit);
        }
        let (pts, dts) = self.times();
        let mut first = self.marks.get(frame.skip).copied().unwrap_or_default();
        if let Some(cells) = self.cells.as_ref().filter(|cells| !cells.whole) {
            // Of a unit in several cells the first one's header is kept (see `klv`).
            first = cells.first;
        }
        self.open = true;
        self.unit = AccessUnit {
            track: self.track,
            first: first.at,
            lead: first.lead,
            bytes: u32::try_from(have.saturating_sub(frame.skip)).unwrap_or(0),
            pts,
            dts,
            first_arrival: first.arrival,
            ..AccessUnit::default()
        };
        if let Some(info) = frame.info.filter(|i| !same(i, &self.info.1)) {
            self.info = (self.info.0 + 1, info);
        }
        self.ends(end, emit);
    }

    /// The head's bytes end at `end`, and with it, perhaps, the frame.
    fn ends(&mut self, end: Mark, emit: &mut impl FnMut(AccessUnit)) {
        self.unit.end = end.at;
        self.unit.last_arrival = end.arrival;
        if self.left == 0 {
            self.complete(end.arrival, emit);
        }
    }

    fn times(&mut self) -> Times {
        let mine = self.next.take();
        self.next = self.after.take();
        if let Some((pts, dts)) = mine {
            self.base = pts;
            self.samples = 0;
            return (pts, dts);
        }
        let passed = match self.rate {
            0 => 0,
            rate => (self.samples * 90_000 + u64::from(rate / 2)) / u64::from(rate),
        };
        let pts = self.base.map(|base| base + passed.cast_signed());
        (pts, pts)
    }

    fn complete(&mut self, arrival: Instant, emit: &mut impl FnMut(AccessUnit)) {
        self.open = false;
        self.unit.completed_by = arrival;
        if !self.frame.continues {
            if self.frame.rate > 0 {
                self.rate = self.frame.rate;
            }
            // LOAS: as the configuration said that it refers to.
            if self.frame.samples > 0 {
                self.usual = self.frame.samples;
            }
            let samples = self.usual;
            self.samples += u64::from(samples);
        }
        if self.synced && self.codec != Codec::Eac3 {
            emit(self.unit);
        } else {
            self.waiting = Some(self.unit);
        }
    }

    /// Bytes were lost: the frame in the making is closed as damaged, the next one is looked for.
    pub(super) fn lose(&mut self, emit: &mut impl FnMut(AccessUnit)) {
        self.settle(self.synced, emit);
        if core::mem::take(&mut self.open) && self.unit.bytes > 0 && self.synced {
            self.unit.damaged = true;
            self.unit.completed_by = self.unit.last_arrival;
            emit(self.unit);
        }
        self.left = 0;
        self.have = 0;
        self.synced = false;
        self.base = None;
    }

    /// TS packets were lost.
    pub(super) fn damage(&mut self, emit: &mut impl FnMut(AccessUnit)) {
        self.lose(emit);
        if let Some(cells) = &mut self.cells {
            // Where the next cell begins is known at the next PES packet only.
            *cells = Cells::default();
            self.pes.end();
        } else if self.pes.stage == Stage::Header {
            self.pes.end();
        } else {
            self.pes.lose();
        }
    }

    /// The stream ends here, or nothing came for long: what is whole is handed out, what is not
    /// as damaged.
    pub(super) fn close(&mut self, emit: &mut impl FnMut(AccessUnit)) {
        let alone = !self.open && self.have == 0 && !self.cautious;
        self.settle(self.synced || alone, emit);
        if self.open {
            self.lose(emit);
        }
    }
}

/// Whether a track's facts are the same.
fn same(a: &AudioInfo, b: &AudioInfo) -> bool {
    (a.sample_rate, a.channels, a.profile) == (b.sample_rate, b.channels, b.profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_those_of_pes_packets_are_the_nearest_ticks() {
        let mut framed = Framed::new(Codec::Aac, 0, 8192, false);
        framed.rate = 44_100;
        framed.next = Some((Some(131_110), None));
        assert_eq!(framed.times().0, Some(131_110));
        // 2089.8 and 4179.6 ticks later.
        framed.samples = 1024;
        assert_eq!(framed.times().0, Some(133_200));
        framed.samples = 2048;
        assert_eq!(framed.times().0, Some(135_290));
    }
}
