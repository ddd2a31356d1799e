//! JPEG XS in RTP payloads (RFC 9134): four bytes `T K L I F SEP P`, then a piece of a
//! packetisation unit: of the whole picture segment (codestream mode), of its header or of one
//! slice (slice mode). An access unit is a picture, or the two fields of one.
//!
//! Whether a picture is whole follows from the counters alone: each unit's packets are numbered
//! from 0 to the one with L, so that slices sent out of order (T = 0) need no keeping. What
//! order they belong in is for [`extract`], which reads the slots again and leaves out the boxes
//! before the codestream.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant, Position, SlotRing};

use super::{Arrived, Depacketise, Extractor, Gap, Setup, to_90_khz};
use crate::codec::jpegxs::{self, Boxes, Facts, HEAD, Header, VideoSupport};
use crate::{AccessUnit, FrameKind, Packet, Track};

/// Bytes of the payload header.
const PREFIX: usize = 4;
/// SEP of the header segment in slice mode.
const HEADER_SEGMENT: u16 = 0x7FF;
/// Units that wait for `poll_unit`; a caller that never polls loses the oldest.
const MAX_READY: usize = 256;

/// The payload header (RFC 9134, 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    /// T: slices come in their order.
    sequential: bool,
    /// K: slice mode.
    slices: bool,
    /// L: last packet of its unit.
    last: bool,
    /// I: `None` progressive, else whether it is of the second field.
    second_field: Option<bool>,
    /// F.
    frame: u8,
    /// SEP.
    unit: u16,
    /// P.
    packet: u16,
}

impl Prefix {
    /// The header and what follows it; `None` if the payload breaks the format.
    pub(crate) fn read(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, body) = payload.split_first_chunk::<PREFIX>()?;
        let bits = u32::from_be_bytes(*bytes);
        let prefix = Prefix {
            sequential: bits >> 31 == 1,
            slices: bits >> 30 & 1 == 1,
            last: bits >> 29 & 1 == 1,
            second_field: match bits >> 27 & 3 {
                0 => None,
                2 => Some(false),
                3 => Some(true),
                _ => return None,
            },
            frame: (bits >> 22 & 31) as u8,
            unit: (bits >> 11 & 0x7FF) as u16,
            packet: (bits & 0x7FF) as u16,
        };
        (!body.is_empty()).then_some((prefix, body))
    }

    const fn field(&self) -> usize {
        matches!(self.second_field, Some(true)) as usize
    }

    /// Which unit of its field, in the order of the codestream.
    const fn place(&self) -> usize {
        match (self.slices, self.unit) {
            (false, _) | (true, HEADER_SEGMENT) => 0,
            (true, slice) => slice as usize + 1,
        }
    }

    /// Which packet of its unit: in codestream mode P carries into SEP.
    const fn index(&self) -> u32 {
        if self.slices {
            self.packet as u32
        } else {
            (self.unit as u32) << 11 | self.packet as u32
        }
    }
}

/// Whether a payload can be nothing else: a first packet, whose boxes or codestream are there.
pub(crate) fn begins_picture(payload: &[u8]) -> bool {
    let Some((prefix, body)) = Prefix::read(payload) else {
        return false;
    };
    if prefix.place() != 0 || prefix.index() != 0 {
        return false;
    }
    match jpegxs::boxes(body) {
        Boxes::Codestream(at, _) => matches!(
            Header::parse(body.get(at..).unwrap_or_default()),
            jpegxs::Parsed::Header(_)
        ),
        Boxes::More | Boxes::Bad => false,
    }
}

/// Whether a payload may be JPEG XS at all.
pub(crate) fn is_plausible(payload: &[u8]) -> bool {
    Prefix::read(payload).is_some()
}

/// What came of one packetisation unit.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    packets: u32,
    /// Of their numbers.
    sum: u64,
    /// The number of the packet with L.
    last: Option<u32>,
}

impl Came {
    /// `false`: it contradicts what came before.
    fn add(&mut self, index: u32, last: bool) -> bool {
        let beyond = self.last.is_some_and(|l| index >= l);
        self.packets += 1;
        self.sum += u64::from(index);
        if last && !beyond {
            self.last = Some(index);
        }
        !beyond
    }

    fn is_whole(&self) -> bool {
        let all = |last: u32| {
            let last = u64::from(last);
            u64::from(self.packets) == last + 1 && self.sum == last * (last + 1) / 2
        };
        self.last.is_some_and(all)
    }
}

/// A field, or a progressive picture, in the making.
#[derive(Debug, Default)]
struct Field {
    /// Units by [`Prefix::place`], as far as any came.
    units: Vec<Came>,
    /// The beginning of its bytes, until it can be read.
    head: Vec<u8>,
    /// The next packet that `head` wants.
    wanted: u32,
    /// Where its codestream begins, and the header.
    read: Option<(usize, Header)>,
    bytes: u32,
    /// Place and number of the newest packet, and its last byte.
    tail: (usize, u32, u8),
    ended: bool,
}

impl Field {
    /// The packet of that place and number, the last of the field's last unit so far, ends with
    /// EOC, which may begin in the packet before.
    fn ends(&self, (place, index): (usize, u32), body: &[u8]) -> bool {
        match *body {
            [only] => {
                let (at, before, byte) = self.tail;
                (at, before.wrapping_add(1)) == (place, index)
                    && jpegxs::ends_codestream(&[byte, only])
            }
            _ => jpegxs::ends_codestream(body),
        }
    }

    fn clear(&mut self) {
        self.units.clear();
        self.head.clear();
        self.wanted = 0;
        self.read = None;
        self.bytes = 0;
        self.tail = (0, 0, 0);
        self.ended = false;
    }

    /// Whether all of it came, slices included, and is as long as its header says.
    fn is_whole(&self, slices: bool) -> bool {
        let Some((at, header)) = &self.read else {
            return false;
        };
        let units = if slices { header.slices() + 1 } else { 1 };
        let bytes = self.bytes.saturating_sub(*at as u32);
        self.ended
            && self.units.len() == units as usize
            && self.units.iter().all(Came::is_whole)
            && (header.codestream_bytes == 0 || header.codestream_bytes == bytes)
    }
}

/// The unit in the making.
#[derive(Clone, Copy, Debug)]
struct Unit {
    first: Position,
    end: Position,
    pts: i64,
    /// The first packet's.
    prefix: Prefix,
    /// The newest packet's field, unit and number.
    newest: (usize, usize, u32),
    damaged: bool,
    first_arrival: Instant,
    last_arrival: Instant,
}

/// From packets to pictures.
#[derive(Debug)]
pub(crate) struct JxsDepacketiser {
    track: u16,
    clock_rate: u32,
    max_unit: u32,
    facts: Facts,
    unit: Option<Unit>,
    fields: [Field; 2],
    timestamp: Option<u32>,
    /// What still comes of this timestamp is of no use.
    spoilt: bool,
    ready: VecDeque<AccessUnit>,
}

impl JxsDepacketiser {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let parameters = setup.parameters;
        let support = VideoSupport {
            frame_rate: parameters.frame_rate,
            interlaced: parameters.interlaced,
            ..VideoSupport::default()
        };
        let limit = setup.limits.max_frame_size;
        JxsDepacketiser {
            track: setup.track,
            clock_rate: setup.clock_rate_or_usual(),
            max_unit: u32::try_from(limit).unwrap_or(u32::MAX),
            facts: Facts::new(support),
            unit: None,
            fields: Default::default(),
            timestamp: None,
            spoilt: false,
            ready: VecDeque::with_capacity(8),
        }
    }

    fn take(
        &mut self,
        packet: &Packet<'_>,
        prefix: &Prefix,
        body: &[u8],
        pts: i64,
    ) -> Result<(), Discard> {
        let at = |offset: usize| Position {
            slot: packet.slot,
            offset: offset as u16,
        };
        let newest = (prefix.field(), prefix.place(), prefix.index());
        let mut in_order = true;
        if let Some(unit) = &self.unit {
            let first = unit.prefix;
            let same = prefix.frame == first.frame
                && prefix.slices == first.slices
                && prefix.second_field.is_some() == first.second_field.is_some();
            if !same {
                return Err(Discard::MalformedPayload);
            }
            in_order = !prefix.sequential || newest > unit.newest;
        }
        let unit = self.unit.get_or_insert(Unit {
            first: at(PREFIX),
            end: at(PREFIX),
            pts,
            prefix: *prefix,
            newest,
            damaged: false,
            first_arrival: packet.arrival,
            last_arrival: packet.arrival,
        });
        unit.end = at(packet.payload.len());
        unit.last_arrival = packet.arrival;
        unit.newest = newest;
        let Some(field) = self.fields.get_mut(prefix.field()) else {
            return Err(Discard::MalformedPayload);
        };
        field.bytes = field.bytes.saturating_add(body.len() as u32);
        if field.units.len() <= newest.1 {
            // At most 2048: SEP has 11 bits.
            field.units.resize(newest.1 + 1, Came::default());
        }
        let came = field.units.get_mut(newest.1);
        let agrees = came.is_some_and(|came| came.add(newest.2, prefix.last));
        if !(in_order && agrees) {
            return Err(Discard::MalformedPayload);
        }
        if prefix.last && (!prefix.slices || newest.1 + 1 == field.units.len()) {
            field.ended = field.ends((newest.1, newest.2), body);
        }
        field.tail = (newest.1, newest.2, body.last().copied().unwrap_or(0));
        let good = newest.1 > 0 || field.read.is_some() || self.read_head(prefix, body);
        if self.fields.iter().map(|f| u64::from(f.bytes)).sum::<u64>() > self.max_unit.into() {
            unit_is_damaged(&mut self.unit);
            self.close_unit(packet.arrival);
            self.spoilt = true;
            return Err(Discard::LimitExceeded);
        }
        if good {
            Ok(())
        } else {
            Err(Discard::MalformedBitstream)
        }
    }

    /// Gathers a field's beginning until its header can be read. `false`: it has none.
    fn read_head(&mut self, prefix: &Prefix, body: &[u8]) -> bool {
        let Some(field) = self.fields.get_mut(prefix.field()) else {
            return false;
        };
        if prefix.index() != field.wanted || field.head.len() >= HEAD {
            // Lost, or sent in another order; the picture will not be whole.
            return true;
        }
        field.wanted += 1;
        let free = HEAD - field.head.len();
        field.head.extend(body.iter().take(free));
        field.read = self.facts.take(&field.head);
        if field.read.is_some() && prefix.second_field.is_some() {
            self.facts.set_interlaced();
        }
        let full = field.head.len() >= HEAD || (prefix.last && prefix.slices);
        field.read.is_some() || !full
    }

    /// Closes the unit in the making, which is damaged unless its counters show that it is
    /// whole: end of the stream, a time limit, another timestamp.
    fn close_unit(&mut self, now: Instant) {
        let Some(unit) = self.unit.take() else { return };
        let slices = unit.prefix.slices;
        let fields = 1 + usize::from(unit.prefix.second_field.is_some());
        let whole = self
            .fields
            .iter()
            .take(fields)
            .all(|field| field.is_whole(slices));
        let boxes = |f: &Field| f.read.map_or(0, |(at, _)| at as u32);
        let bytes = self
            .fields
            .iter()
            .map(|f| f.bytes.saturating_sub(boxes(f)))
            .fold(0, u32::saturating_add);
        self.fields.iter_mut().for_each(Field::clear);
        let damaged = unit.damaged || !whole;

        if self.ready.len() >= MAX_READY {
            self.ready.pop_front();
        }
        self.ready.push_back(AccessUnit {
            track: self.track,
            kind: FrameKind::Idr,
            damaged,
            discardable: true,
            first: unit.first,
            end: unit.end,
            bytes,
            pts: Some(unit.pts),
            dts: Some(unit.pts),
            dts_derived: true,
            first_arrival: unit.first_arrival,
            last_arrival: unit.last_arrival,
            completed_by: now,
            ..AccessUnit::default()
        });
    }
}

impl Depacketise for JxsDepacketiser {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        if self.timestamp != Some(packet.timestamp) {
            self.close_unit(packet.arrival);
            self.timestamp = Some(packet.timestamp);
            self.spoilt = false;
        }
        let pts = to_90_khz(arrived.units, self.clock_rate);
        let outcome = if self.spoilt {
            Err(Discard::LimitExceeded)
        } else if let Some((prefix, body)) = Prefix::read(packet.payload) {
            self.take(packet, &prefix, body, pts)
        } else {
            Err(Discard::MalformedPayload)
        };
        if outcome.is_err() {
            unit_is_damaged(&mut self.unit);
        }
        // Not behind the first of two fields, or in the midst of a packetisation unit.
        let ends = Prefix::read(packet.payload)
            .is_none_or(|(p, _)| p.last && p.second_field != Some(false));
        if packet.marker && ends {
            self.close_unit(packet.arrival);
        }
        outcome
    }

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        // What a loss took is missing in the counters.
        if gap == Gap::Restart {
            self.close_unit(arrival);
            self.timestamp = None;
            self.spoilt = false;
        }
    }

    fn close(&mut self, now: Instant, _damaged: bool) {
        self.close_unit(now);
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.unit.map(|unit| unit.last_arrival)
    }

    fn has_unit(&self) -> bool {
        !self.ready.is_empty()
    }

    fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    fn version(&self) -> u32 {
        self.facts.version()
    }

    fn describe(&self, track: &mut Track) {
        self.facts.describe(track);
    }

    fn extractor(&self) -> Extractor {
        Extractor::JpegXs
    }
}

fn unit_is_damaged(unit: &mut Option<Unit>) {
    if let Some(unit) = unit {
        unit.damaged = true;
    }
}

/// A packet's place in its picture, and the slot that holds it.
type Entry = (usize, usize, u32, u64);

/// Appends the codestreams of `unit` (two, if it has fields) in the order of their bytes,
/// without the boxes before them. What cannot follow without a hole is left out: in codestream
/// mode the rest of the field, in slice mode the slice. `false`, and `out` as it was, when a slot
/// is overwritten.
pub(crate) fn extract(unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
    let mut entries: Vec<Entry> = Vec::new();
    let mut first = None;
    for index in unit.first.slot..=unit.end.slot {
        let Some(slot) = ring.get(index) else {
            if !unit.damaged || index < ring.oldest() {
                return false;
            }
            continue;
        };
        let of = (slot.meta.flags & 0x7F, slot.meta.timestamp);
        if *first.get_or_insert(of) != of {
            continue;
        }
        if let Some((p, _)) = Prefix::read(slot.payload) {
            entries.push((p.field(), p.place(), p.index(), index));
        }
    }
    if !entries.is_sorted() {
        entries.sort_unstable();
    }
    entries.dedup_by_key(|e| (e.0, e.1, e.2));
    for field in entries.chunk_by(|a, b| a.0 == b.0) {
        extract_field(field, ring, out);
    }
    true
}

/// Bytes of the boxes before a field's codestream; `None` if it has no codestream.
fn boxes_before(field: &[Entry], ring: &SlotRing) -> Option<usize> {
    let mut head = Vec::with_capacity(HEAD);
    for (expected, &(_, place, index, slot)) in (0..).zip(field) {
        if (place, index) != (0, expected) || head.len() >= HEAD {
            break;
        }
        let (_, body) = Prefix::read(ring.get(slot)?.payload)?;
        head.extend(body.iter().take(HEAD - head.len()));
        if let Boxes::Codestream(at, _) = jpegxs::boxes(&head) {
            return Some(at);
        }
    }
    None
}

fn extract_field(field: &[Entry], ring: &SlotRing, out: &mut Vec<u8>) {
    let Some(mut skip) = boxes_before(field, ring) else {
        return;
    };
    for unit in field.chunk_by(|a, b| a.1 == b.1) {
        let before = out.len();
        let (mut slices, mut ended) = (false, false);
        for (expected, &(.., index, slot)) in (0..).zip(unit) {
            let taken = ring.get(slot);
            let piece = taken.as_ref().and_then(|s| Prefix::read(s.payload));
            let Some((prefix, body)) = piece.filter(|_| index == expected) else {
                ended = false;
                break;
            };
            (slices, ended) = (prefix.slices, prefix.last);
            let (boxes, codestream) = body.split_at(skip.min(body.len()));
            skip -= boxes.len();
            out.extend_from_slice(codestream);
        }
        if slices && !ended {
            out.truncate(before);
        }
    }
}
