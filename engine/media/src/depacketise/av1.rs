//! AV1 in RTP payloads (AOMedia, "RTP Payload Format For AV1", section 4): an aggregation header
//! `Z Y W N`, then OBU elements, which are OBUs or fragments of them. [`elements`] takes a
//! payload apart; the depacketiser feeds the elements to the [`ObuAssembler`], and [`extract`]
//! finds them again in the slots and writes temporal units of the low-overhead format.

use mirror_base::{Discard, Instant, Position, SlotRing};

use super::{Arrived, Depacketise, Extractor, Gap, Setup, to_90_khz};
use crate::codec::av1::{DELIMITER_OBU, Leb128, Obu, Sequence, leb128, obu};
use crate::obu_assembler::ObuAssembler;
use crate::{AccessUnit, Packet, Track};

/// An OBU or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Element<'a> {
    /// Offset of `bytes` into the payload.
    pub(crate) offset: u16,
    pub(crate) bytes: &'a [u8],
    /// The OBU begins here.
    pub(crate) begins: bool,
    /// The OBU ends here.
    pub(crate) ends: bool,
}

/// The elements of a payload, in order; after an error none follow.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
    length: usize,
    /// Elements still to come by W; `None`: as many as there are (W = 0).
    left: Option<u8>,
    first: bool,
    continues: bool,
    continued: bool,
    broken: bool,
}

/// Takes a payload apart.
pub(crate) fn elements(payload: &[u8]) -> Elements<'_> {
    let (header, rest) = payload.split_first().unwrap_or((&0, &[]));
    let count = header >> 4 & 3;
    Elements {
        rest,
        length: payload.len(),
        left: (count > 0).then_some(count),
        first: true,
        continues: header & 0x80 != 0,
        continued: header & 0x40 != 0,
        // An aggregation header with nothing behind it.
        broken: payload.len() == 1,
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Discard>;

    fn next(&mut self) -> Option<Self::Item> {
        let done = self.left.map_or(self.rest.is_empty(), |left| left == 0);
        if core::mem::take(&mut self.broken) {
            self.rest = &[];
            self.left = None;
            return Some(Err(Discard::MalformedPayload));
        }
        if done {
            return None;
        }
        let Some((bytes, after)) = self.split() else {
            self.rest = &[];
            self.left = None;
            return Some(Err(Discard::MalformedPayload));
        };
        let offset = self.length - after.len() - bytes.len();
        self.rest = after;
        self.left = self.left.map(|left| left - 1);
        let last = self.left.map_or(after.is_empty(), |left| left == 0);
        let element = Element {
            offset: offset as u16,
            bytes,
            begins: !(self.continues && core::mem::take(&mut self.first)),
            ends: !(self.continued && last),
        };
        self.first = false;
        Some(Ok(element))
    }
}

impl<'a> Elements<'a> {
    /// The next element's bytes, and what follows it.
    fn split(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (bytes, after) = if self.left == Some(1) {
            (self.rest, &[][..])
        } else {
            let Leb128::Value(size, used) = leb128(self.rest) else {
                return None;
            };
            self.rest.get(used..)?.split_at_checked(size as usize)?
        };
        (!bytes.is_empty()).then_some((bytes, after))
    }
}

/// Whether a payload can be nothing else: it begins a coded video sequence (N), and its first
/// OBU is a sequence header that can be read.
pub(crate) fn begins_sequence(payload: &[u8]) -> bool {
    if !matches!(payload, [header, ..] if header & 0x8F == 0x08) {
        return false;
    }
    let Some(Ok(element)) = elements(payload).next() else {
        return false;
    };
    Obu::read(element.bytes)
        .filter(|o| o.header.kind == obu::SEQUENCE && element.ends)
        .is_some_and(|o| Sequence::parse_exact(o.payload).is_some())
}

/// Whether a payload may be AV1 at all: its elements are where its header says, and what begins
/// in it has the header of an OBU that is sent in RTP.
pub(crate) fn is_plausible(payload: &[u8]) -> bool {
    let sound = |element: &Element<'_>| {
        let first = element.bytes.first().copied().unwrap_or(0xFF);
        let kind = first >> 3 & 15;
        !element.begins || (first & 0x81 == 0 && matches!(kind, 1..=8 | 15))
    };
    let reserved = matches!(payload, [header, ..] if header & 7 != 0);
    !reserved && elements(payload).all(|e| e.is_ok_and(|e| sound(&e)))
}

/// From packets to temporal units.
#[derive(Debug)]
pub(crate) struct Av1Depacketiser {
    assembler: ObuAssembler,
    clock_rate: u32,
    fragment_open: bool,
    timestamp: Option<u32>,
    /// What the timestamp mostly grows by from unit to unit.
    step: u32,
    /// The unit before ended with its marker, and whether any has done so.
    marked: bool,
    marks: bool,
    /// Markers stand where units go on.
    marks_lie: bool,
}

impl Av1Depacketiser {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        Av1Depacketiser {
            assembler: ObuAssembler::new(setup.track, setup.limits, true),
            clock_rate: setup.clock_rate_or_usual(),
            fragment_open: false,
            timestamp: None,
            step: 0,
            marked: false,
            marks: false,
            marks_lie: false,
        }
    }

    /// Another timestamp: another temporal unit.
    #[cold]
    fn begin_unit(&mut self, packet: &Packet<'_>, pts: i64) {
        let step = self
            .timestamp
            .map_or(0, |before| packet.timestamp.wrapping_sub(before));
        if core::mem::take(&mut self.fragment_open) {
            // Its end is missing although no packet is.
            self.assembler.damage();
        }
        self.assembler.next_timestamp(Some(pts), packet.arrival);
        let begins = packet.payload.first().is_some_and(|h| h & 0x80 == 0);
        let whole = match packet.lost_before {
            0 => self.timestamp.is_some(),
            // It was the end of the unit before.
            1 if self.marks && !self.marked => true,
            // A whole unit is missing between the two; likely nothing else is.
            _ => self.marked && self.step > 0 && step / 2 >= self.step && step < 1 << 31,
        };
        if whole && begins {
            self.assembler.presume_whole();
        }
        if packet.lost_before == 0 && step < 1 << 31 {
            self.step = step;
        }
        self.timestamp = Some(packet.timestamp);
    }

    fn feed(&mut self, packet: &Packet<'_>, element: &Element<'_>) -> Result<(), Discard> {
        let place = |offset| Position {
            slot: packet.slot,
            offset,
        };
        let before = *self.assembler.counters();
        if element.begins {
            if self.fragment_open {
                // Its end is missing although no packet is.
                self.assembler.damage();
            }
            self.assembler
                .begin(place(element.offset), 0, packet.arrival);
        } else if !self.fragment_open {
            return Err(Discard::OrphanFragment);
        }
        // What an element holds beyond its obu_size is of no use.
        self.assembler.bytes(element.bytes, packet.arrival);
        if element.ends {
            let end = element.offset.saturating_add(element.bytes.len() as u16);
            self.assembler.end(place(end), packet.arrival);
        }
        self.fragment_open = !element.ends;
        let after = self.assembler.counters();
        if after.oversized != before.oversized {
            Err(Discard::LimitExceeded)
        } else if after.malformed != before.malformed {
            Err(Discard::MalformedBitstream)
        } else {
            Ok(())
        }
    }
}

impl Depacketise for Av1Depacketiser {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        if self.timestamp != Some(packet.timestamp) {
            self.begin_unit(packet, to_90_khz(arrived.units, self.clock_rate));
        } else if self.marked {
            // The unit goes on behind its marker.
            self.marks_lie = true;
            self.assembler.damage();
        }
        let mut outcome = Ok(());
        for element in elements(packet.payload) {
            let problem = element.and_then(|element| self.feed(packet, &element));
            if problem.is_err() {
                let at = Position {
                    slot: packet.slot,
                    offset: 0,
                };
                self.assembler.damage_unit(at, packet.arrival);
                self.fragment_open = false;
                outcome = outcome.and(problem);
            }
        }
        // A packet whose last element goes on is not the last of its unit.
        let marked = packet.marker && !self.fragment_open && !self.marks_lie;
        if marked {
            self.assembler.end_of_unit(packet.arrival);
        }
        self.marked = marked;
        self.marks |= marked;
        outcome
    }

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        self.fragment_open = false;
        match gap {
            Gap::Loss => self.assembler.damage(),
            Gap::Restart => {
                self.assembler.restart(arrival);
                self.timestamp = None;
                self.marked = false;
                self.marks_lie = false;
            }
        }
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        self.fragment_open = false;
        self.assembler.close(now, damaged);
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.assembler.waiting_since()
    }

    fn has_unit(&self) -> bool {
        self.assembler.has_unit()
    }

    fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.assembler.poll_unit()
    }

    fn version(&self) -> u32 {
        self.assembler.state().version()
    }

    fn describe(&self, track: &mut Track) {
        self.assembler.describe(track);
    }

    fn parameter_sets(&self) -> &[u8] {
        self.assembler.sequence_header()
    }

    fn extractor(&self) -> Extractor {
        Extractor::Av1
    }
}

/// Appends the OBUs of `unit` with their sizes, behind a temporal delimiter; those with a lost
/// fragment are left out. `false`, and `out` as it was, when a slot is overwritten.
pub(crate) fn extract(unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    out.extend_from_slice(&DELIMITER_OBU);
    // The OBU in the making.
    let mut gathered: Vec<u8> = Vec::new();
    let mut open = false;
    let mut payload_type = None;
    for index in unit.first.slot..=unit.end.slot {
        let Some(slot) = ring.get(index) else {
            if !unit.damaged || index < ring.oldest() {
                out.truncate(before);
                return false;
            }
            // Lost.
            open = false;
            continue;
        };
        let this_type = slot.meta.flags & 0x7F;
        if *payload_type.get_or_insert(this_type) != this_type {
            continue;
        }
        for element in elements(slot.payload).map_while(Result::ok) {
            let at = Position {
                slot: index,
                offset: element.offset,
            };
            if at < unit.first || at >= unit.end {
                continue;
            }
            if element.begins {
                gathered.clear();
                open = true;
            }
            if open {
                gathered.extend_from_slice(element.bytes);
            }
            if element.ends
                && core::mem::take(&mut open)
                && let Some(obu) = Obu::read(&gathered)
            {
                obu.write(out);
            }
        }
    }
    true
}
