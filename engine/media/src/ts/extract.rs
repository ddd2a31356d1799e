//! From an access unit's positions back to its bytes: the slots are read again, and the
//! packets of its PID are unwrapped by the same rules as in [`super::demux`].

use mirror_base::{Position, SlotRing};

use super::framer::Framer;
use super::pes::{Pes, Stage, Step};
use super::place::Place;
use super::{DISCONTINUITY, Header, PACKET};
use crate::AccessUnit;

struct Walk<'a> {
    pid: usize,
    first: Position,
    end: Position,
    continuity: Option<u8>,
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
        let Some(mut data) = packet.get(header.payload..).filter(|_| !duplicate) else {
            return;
        };
        let mut lead = header.payload;
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
        let stop = lead + body.len();
        // Positions rise with the offset, so only the unit's own ends cut a packet.
        let from = if place.at(lead) >= self.first {
            lead
        } else {
            (lead..stop)
                .find(|&k| place.at(k) >= self.first)
                .unwrap_or(stop)
        };
        let to = if place.at(stop) <= self.end {
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

/// Appends the bytes of `unit`, a unit of `pid`, to `out`. `false` if they are not all there.
pub fn extract(pid: u32, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
    let mut pes = Pes::default();
    // The first packet may be in the midst of a PES packet.
    pes.resume();
    let mut walk = Walk {
        pid: pid as usize,
        first: unit.first,
        end: unit.end,
        continuity: None,
        pes,
        out,
        done: false,
    };
    let mut framer = Framer::default();
    let mut start = usize::from(unit.first.offset);
    match start.checked_sub(usize::from(unit.lead)) {
        Some(packet_start) => start = packet_start,
        None => {
            // The packet's first bytes are the last of the payload before.
            let piece = usize::from(unit.lead) - start;
            let before = unit.first.slot.checked_sub(1);
            let tail = before.and_then(|slot| Some((slot, ring.get(slot)?)));
            let Some((slot, tail)) = tail else {
                return false;
            };
            if !framer.carry_tail(slot, tail.payload, piece) {
                return false;
            }
            start = 0;
        }
    }
    let mut slot = unit.first.slot;
    while slot <= unit.end.slot && !walk.done {
        match ring.get(slot) {
            Some(content) => {
                framer.push(slot, content.payload, start, |packet, place| {
                    walk.packet(packet, place)
                });
            }
            // Lost packets leave holes; what is overwritten is below the oldest.
            None if slot < ring.oldest() || slot == unit.first.slot => return false,
            None => framer.restart(),
        }
        start = 0;
        slot += 1;
    }
    true
}
