//! From an access unit's positions back to its bytes: the slots are read again, and the
//! packets of its PID are unwrapped by the same rules as in [`super::demux`].

use mirror_base::{Position, SlotRing};

use super::framer::Framer;
use super::pes::{Pes, Stage, Step};
use super::place::{MAX_SPLITS, Place};
use super::{DISCONTINUITY, Header, PACKET, coded, klv};
use crate::{AccessUnit, Codec, Track, Units};

/// Slots behind a unit's end that may have to be read until the grid of its last packet is
/// certain.
const LOOK_AHEAD: u64 = 8;

struct Walk<'a> {
    pid: usize,
    first: Position,
    end: Position,
    continuity: Option<u8>,
    /// Sections lie in the packets, not PES.
    sections: bool,
    pes: Pes,
    out: &'a mut Vec<u8>,
    done: bool,
}

impl Walk<'_> {
    fn packet(&mut self, packet: &[u8; PACKET], place: &Place) {
        let header = Header::read(packet);
        if self.done || header.pid() != self.pid || header.is_odd() {
            return;
        }
        let duplicate =
            self.continuity == Some(header.continuity()) && header.flags & DISCONTINUITY == 0;
        self.continuity = Some(header.continuity());
        let Some(data) = packet.get(header.payload..).filter(|_| !duplicate) else {
            return;
        };
        if self.sections {
            // The pointer_field stands before what continues a section, and before the next.
            let lead = header.payload + usize::from(header.starts_unit());
            return self.copy(packet, place, lead, PACKET);
        }
        let mut lead = header.payload;
        let mut data = data;
        if header.starts_unit() {
            self.pes.start();
        }
        if self.pes.stage == Stage::Header {
            let Step::Payload(skip, _) = self.pes.header(data) else {
                return;
            };
            data = data.get(skip..).unwrap_or_default();
            lead += skip;
        }
        if self.pes.stage != Stage::Payload {
            return;
        }
        let (body, last) = self.pes.body(data);
        if last {
            self.pes.end();
        }
        self.copy(packet, place, lead, lead + body.len());
    }

    /// Takes what belongs to the unit of the bytes from `lead` up to `stop`.
    fn copy(&mut self, packet: &[u8; PACKET], place: &Place, lead: usize, stop: usize) {
        // Positions rise with the offset, so only the unit's own ends cut a packet.
        let from = if place.at(lead) >= self.first {
            lead
        } else {
            (lead..stop)
                .find(|&k| place.at(k) >= self.first)
                .unwrap_or(stop)
        };
        let to = if place.at(stop) < self.end {
            stop
        } else {
            self.done = true;
            (from..stop)
                .find(|&k| place.at(k) >= self.end)
                .unwrap_or(stop)
        };
        self.out
            .extend_from_slice(packet.get(from..to).unwrap_or_default());
    }
}

/// The slot and the offset in it at which the packet begins that holds `unit`'s first byte.
fn packet_start(unit: &AccessUnit, ring: &SlotRing) -> Option<(u64, usize)> {
    let offset = usize::from(unit.first.offset);
    let mut slot = unit.first.slot;
    let Some(mut missing) = usize::from(unit.lead).checked_sub(offset) else {
        return Some((slot, offset - usize::from(unit.lead)));
    };
    for _ in 0..MAX_SPLITS {
        if missing == 0 {
            break;
        }
        // The packet's first bytes are the last of the payload before.
        slot = slot.checked_sub(1)?;
        let before = ring.get(slot)?.payload.len();
        match before.checked_sub(missing) {
            Some(start) => return Some((slot, start)),
            None => missing -= before,
        }
    }
    (missing == 0).then_some((slot, 0))
}

/// Appends the bytes of `unit`, a unit of `track`, to `out`; TS packets are `stride` bytes
/// apart, and what the track's units are is `units`. `false` if they are not all there.
pub fn extract(
    track: &Track,
    units: Units,
    stride: usize,
    unit: &AccessUnit,
    ring: &SlotRing,
    out: &mut Vec<u8>,
) -> bool {
    let before = out.len();
    let mut pes = Pes::default();
    // The first packet may be in the midst of a PES packet.
    pes.resume();
    let mut walk = Walk {
        pid: track.id as usize,
        first: unit.first,
        end: unit.end,
        continuity: None,
        sections: track.codec == Codec::Scte35,
        pes,
        out,
        done: false,
    };
    let mut framer = Framer::continuing(stride);
    let Some((mut slot, mut start)) = packet_start(unit, ring) else {
        return false;
    };
    while slot <= unit.end.slot + LOOK_AHEAD && !walk.done {
        match ring.get(slot) {
            Some(content) => {
                framer.push(
                    slot,
                    content.payload,
                    start,
                    content.meta.arrival,
                    |p, place, _| {
                        walk.packet(p, place);
                    },
                );
            }
            None if slot > unit.end.slot => break,
            // Lost packets leave holes; what is overwritten is below the oldest.
            None if slot < ring.oldest() || slot == unit.first.slot => return false,
            None => framer.restart(),
        }
        start = 0;
        slot += 1;
    }
    if !walk.done {
        framer.finish(|p, place, _| walk.packet(p, place));
    }
    match track.codec {
        _ if units == Units::PesPackets => {}
        Codec::Klv => klv::unwrap_cells(out, before),
        codec => coded::unwrap(codec, out, before),
    }
    true
}
