//! NAL units that come in another order than they are decoded in: the interleaved mode of H.264
//! (RFC 6184, 7.2.2) and HEVC with decoding order numbers (RFC 7798, 6). Each is put together,
//! waits until those before it have come, and goes to the assembler. Used by
//! [`super::nal_stream`] where numbers are met or announced; hardly anybody does.
//!
//! The units that come of it are scattered over the slots, so where the parts of each NAL unit
//! lie is written down for a while ([`DecodingOrder::extract`]); of its bytes only the head is
//! kept that the assembler may read.

use std::collections::VecDeque;

use mirror_base::seq::Unwrapper;
use mirror_base::{Discard, Instant, Position, SlotRing};
use smallvec::SmallVec;

use super::nal::Piece;
use super::to_90_khz;
use crate::{AccessUnit, Assembler, Codec, Packet};

/// Bytes kept of a NAL unit: as many as the assembler reads of a parameter set, and more.
const HEAD: usize = 4096;
/// VCL NAL units that wait where nobody says how many have to.
const DEFAULT_DEPTH: usize = 32;
/// NAL units that wait at the most.
const MAX_WAITING: usize = 512;
/// Parts of a NAL unit, of all that wait, and of all units that can be extracted.
const MAX_PARTS: usize = 4096;
const MAX_WAITING_PARTS: usize = 16 * 1024;
const MAX_LISTED_PARTS: usize = 64 * 1024;
/// Where decoding order numbers begin: they may run down, turn after turn, and do not get below 0.
const FIRST: u64 = 1 << 62;
/// What is fed to the assembler in the place of bytes that were not kept.
const REST: [u8; 4096] = [0xFF; 4096];

/// Some bytes of a slot's payload.
#[derive(Clone, Copy, Debug)]
struct Part {
    slot: u64,
    at: u16,
    length: u16,
}

/// Where a NAL unit lies.
#[derive(Clone, Debug)]
struct Listed {
    first: Position,
    end: Position,
    header: [u8; 2],
    header_len: u8,
    parts: SmallVec<[Part; 4]>,
    /// Bytes with a four-byte start code.
    bytes: usize,
    first_arrival: Instant,
    last_arrival: Instant,
}

impl Listed {
    fn header(&self) -> &[u8] {
        self.header
            .get(..usize::from(self.header_len))
            .unwrap_or_default()
    }
}

/// A NAL unit that waits for those before it, or for its end.
#[derive(Clone, Debug)]
struct Waiting {
    /// Unwrapped decoding order number.
    don: u64,
    /// Its time, unwrapped clock ticks.
    time: i64,
    is_vcl: bool,
    head: Vec<u8>,
    nal: Listed,
}

/// A unit that was handed out.
#[derive(Debug)]
struct ListedUnit {
    first: Position,
    end: Position,
    pts: Option<i64>,
    nals: Vec<Listed>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct DecodingOrder {
    codec: Codec,
    clock_rate: u32,
    max_bytes: usize,
    /// VCL NAL units that wait before the first one goes, and whether signalling says so.
    depth: usize,
    depth_is_known: bool,
    /// What numbers may differ by among those that wait.
    max_difference: u64,
    unwrapper: Unwrapper<16>,
    last_don: Option<u64>,
    /// The number that follows the one that went last.
    next: Option<u64>,
    time: Option<i64>,
    open: Option<Waiting>,
    /// In order of their numbers.
    waiting: VecDeque<Waiting>,
    waiting_parts: usize,
    /// Fed to the assembler, but of no unit yet.
    fed: VecDeque<Listed>,
    units: VecDeque<ListedUnit>,
    listed_parts: usize,
}

impl DecodingOrder {
    /// `depth`: `sprop-interleaving-depth` or `sprop-depack-buf-nalus`; `max_difference`:
    /// `sprop-max-don-diff`.
    pub(crate) fn new(
        codec: Codec,
        clock_rate: u32,
        max_bytes: usize,
        depth: Option<u16>,
        max_difference: Option<u16>,
    ) -> Self {
        DecodingOrder {
            codec,
            clock_rate,
            max_bytes,
            depth: depth
                .map_or(DEFAULT_DEPTH, usize::from)
                .min(MAX_WAITING / 2),
            depth_is_known: depth.is_some(),
            max_difference: max_difference
                .filter(|&n| n > 0)
                .map_or(u64::MAX, u64::from),
            unwrapper: Unwrapper::new(),
            last_don: None,
            next: None,
            time: None,
            open: None,
            waiting: VecDeque::new(),
            waiting_parts: 0,
            fed: VecDeque::new(),
            units: VecDeque::new(),
            listed_parts: 0,
        }
    }

    /// One piece of a packet whose timestamp is `units`.
    pub(crate) fn push(
        &mut self,
        packet: &Packet<'_>,
        units: i64,
        piece: &Piece<'_>,
        assembler: &mut Assembler,
    ) -> Result<(), Discard> {
        let at = |offset| Position {
            slot: packet.slot,
            offset,
        };
        if piece.begins {
            // One that is open has lost its end.
            let don = match piece.don {
                Some(don) => FIRST.wrapping_add(self.unwrapper.unwrap(u64::from(don))),
                // An FU-A should be announced by an FU-B.
                None => self.last_don.map_or(FIRST, |don| don + 1),
            };
            self.last_don = Some(don);
            let mut head = Vec::with_capacity(64);
            head.extend_from_slice(piece.header());
            let mut header = [0; 2];
            let header_len = piece.header().len().min(2);
            header
                .iter_mut()
                .zip(piece.header())
                .for_each(|(to, from)| *to = *from);
            self.open = Some(Waiting {
                don,
                time: units + i64::from(piece.time_offset),
                is_vcl: is_vcl(self.codec, head.first().or(piece.bytes.first())),
                head,
                nal: Listed {
                    first: at(piece.offset),
                    end: at(piece.end()),
                    header,
                    header_len: header_len as u8,
                    parts: SmallVec::new(),
                    bytes: 4 + header_len,
                    first_arrival: packet.arrival,
                    last_arrival: packet.arrival,
                },
            });
        }
        let Some(open) = &mut self.open else {
            return Err(Discard::OrphanFragment);
        };
        let room = HEAD.saturating_sub(open.head.len());
        let kept = piece.bytes.get(..room).unwrap_or(piece.bytes);
        open.head.extend_from_slice(kept);
        let nal = &mut open.nal;
        nal.bytes += piece.bytes.len();
        nal.end = at(piece.end());
        nal.last_arrival = packet.arrival;
        nal.parts.push(Part {
            slot: packet.slot,
            at: piece.at,
            length: piece.bytes.len() as u16,
        });
        if nal.bytes > self.max_bytes || nal.parts.len() > MAX_PARTS {
            self.open = None;
            return Err(Discard::LimitExceeded);
        }
        if !piece.ends {
            return Ok(());
        }
        match self.open.take() {
            Some(nal) => self.insert(nal, assembler),
            None => Ok(()),
        }
    }

    fn insert(&mut self, nal: Waiting, assembler: &mut Assembler) -> Result<(), Discard> {
        if self.next.is_some_and(|next| nal.don < next) {
            // Those behind it have gone.
            return Err(Discard::Belated);
        }
        self.waiting_parts += nal.nal.parts.len();
        let place = self.waiting.partition_point(|w| w.don <= nal.don);
        self.waiting.insert(place, nal);
        while self.may_go() {
            self.release(assembler);
        }
        Ok(())
    }

    /// Whether the first one need not wait for others.
    fn may_go(&self) -> bool {
        let (Some(first), Some(last)) = (self.waiting.front(), self.waiting.back()) else {
            return false;
        };
        let follows = match self.next {
            Some(next) => first.don == next,
            // The first of all: those before it, if there are any, are missed anyway, unless
            // signalling says how many to wait for.
            None => !self.depth_is_known,
        };
        follows
            || last.don - first.don > self.max_difference
            || self.waiting.len() > MAX_WAITING
            || self.waiting_parts > MAX_WAITING_PARTS
            || self.waiting.iter().filter(|w| w.is_vcl).count() > self.depth
    }

    /// The first one goes to the assembler.
    fn release(&mut self, assembler: &mut Assembler) {
        let Some(Waiting {
            don,
            time,
            head,
            nal,
            ..
        }) = self.waiting.pop_front()
        else {
            return;
        };
        self.waiting_parts -= nal.parts.len();
        let arrival = nal.last_arrival;
        if self.next.is_some_and(|next| don > next) {
            assembler.damage();
        }
        self.next = Some(don + 1);
        if self.time != Some(time) {
            self.time = Some(time);
            assembler.next_timestamp(Some(to_90_khz(time, self.clock_rate)), arrival);
        }
        assembler.nal_begin(nal.first, arrival);
        assembler.nal_bytes(&head, arrival);
        let mut rest = (nal.bytes - 4).saturating_sub(head.len());
        while rest > 0 {
            let some = REST.get(..rest).unwrap_or(&REST);
            assembler.nal_bytes(some, arrival);
            rest -= some.len();
        }
        assembler.nal_end(nal.end, arrival);
        self.listed_parts += nal.parts.len();
        self.fed.push_back(nal);
        while self.listed_parts > MAX_LISTED_PARTS {
            self.forget();
        }
    }

    /// Forgets the oldest that is written down.
    fn forget(&mut self) {
        let parts = |nals: &[Listed]| nals.iter().map(|n| n.parts.len()).sum::<usize>();
        self.listed_parts -= match (self.units.pop_front(), &mut self.fed) {
            (Some(unit), _) => parts(&unit.nals),
            (None, fed) => match fed.pop_front() {
                Some(nal) => nal.parts.len(),
                None => self.listed_parts,
            },
        };
    }

    /// What is incomplete will not be completed.
    pub(crate) fn interrupt(&mut self) {
        self.open = None;
    }

    /// Everything that waits goes, whatever is missing between.
    pub(crate) fn flush(&mut self, assembler: &mut Assembler) {
        self.open = None;
        while !self.waiting.is_empty() {
            self.release(assembler);
        }
    }

    /// The numbers start afresh.
    pub(crate) fn restart(&mut self) {
        self.unwrapper.reset();
        self.last_don = None;
        self.next = None;
        self.time = None;
    }

    /// Since when the oldest one waits.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        let open = self.open.as_ref().map(|w| w.nal.last_arrival);
        let waiting = self.waiting.iter().map(|w| w.nal.last_arrival).min();
        open.into_iter().chain(waiting).min()
    }

    /// Writes down of which NAL units `unit` is made, and gives it the bounds of the slots that
    /// they lie in.
    pub(crate) fn list(&mut self, unit: &mut AccessUnit) {
        let begins = self.fed.iter().position(|nal| nal.first == unit.first);
        let mut nals = Vec::new();
        // One that began before numbers were followed is made of none of these.
        if let Some(begins) = begins {
            for nal in self.fed.drain(..begins) {
                self.listed_parts -= nal.parts.len();
            }
            let mut bytes = 0;
            while bytes < unit.bytes as usize
                && let Some(nal) = self.fed.pop_front()
            {
                bytes += nal.bytes;
                nals.push(nal);
            }
        }
        for nal in &nals {
            unit.first = unit.first.min(nal.first);
            unit.end = unit.end.max(nal.end);
            unit.first_arrival = unit.first_arrival.min(nal.first_arrival);
            unit.last_arrival = unit.last_arrival.max(nal.last_arrival);
        }
        unit.completed_by = unit.completed_by.max(unit.last_arrival);
        self.units.push_back(ListedUnit {
            first: unit.first,
            end: unit.end,
            pts: unit.pts,
            nals,
        });
    }

    /// As [`super::nal::extract`].
    pub(crate) fn extract(&self, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let same = |u: &&ListedUnit| (u.first, u.end, u.pts) == (unit.first, unit.end, unit.pts);
        let Some(listed) = self.units.iter().rev().find(same) else {
            return false;
        };
        for nal in &listed.nals {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(nal.header());
            for part in &nal.parts {
                let range = usize::from(part.at)..usize::from(part.at) + usize::from(part.length);
                let bytes = ring.get(part.slot).and_then(|s| s.payload.get(range));
                let Some(bytes) = bytes else {
                    out.truncate(before);
                    return false;
                };
                out.extend_from_slice(bytes);
            }
        }
        true
    }
}

/// Whether a NAL unit with that first byte is coded video (a slice).
fn is_vcl(codec: Codec, first: Option<&u8>) -> bool {
    first.is_some_and(|first| match codec {
        Codec::H264 => matches!(first & 0x1F, 1..=5),
        _ => first >> 1 & 0x3F < 32,
    })
}
