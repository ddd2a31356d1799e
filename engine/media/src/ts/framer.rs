//! Finds the 188-byte grid of TS packets in a stream of payloads (ISO 13818-1, 2.4.3.2;
//! TR 101 290, 5.2.1). Payloads are nearly always whole packets; others are reframed, the
//! grid's phase being carried from one payload to the next, and found again after garbage.

use mirror_base::Position;

use super::place::Place;

/// Bytes of a TS packet.
pub const PACKET: usize = 188;
const SYNC: u8 = 0x47;

/// What [`Framer::push`] could not use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Payloads in which no grid was found.
    pub payloads: u32,
    /// Packets whose sync byte was wrong while the grid went on, and pieces given up.
    pub packets: u32,
}

/// See the module's page.
#[derive(Debug)]
pub struct Framer {
    carry: [u8; PACKET],
    carry_len: usize,
    carry_at: Position,
}

impl Default for Framer {
    fn default() -> Self {
        Framer {
            carry: [0; PACKET],
            carry_len: 0,
            carry_at: Position::default(),
        }
    }
}

/// Whether `payload` has a sync byte at `at` and at each further packet; with `least` of them.
fn grid_at(payload: &[u8], at: usize, least: usize) -> bool {
    let mut hits = 0;
    for byte in payload.iter().skip(at).step_by(PACKET) {
        if *byte != SYNC {
            return false;
        }
        hits += 1;
    }
    hits >= least
}

/// The first offset from `from` on at which a grid begins.
fn find_grid(payload: &[u8], from: usize) -> Option<usize> {
    // One sync byte proves nothing, unless the rest is exactly one packet.
    let last = (from + PACKET).min(payload.len());
    (from..last).find(|&at| {
        grid_at(
            payload,
            at,
            if at + PACKET == payload.len() { 1 } else { 2 },
        )
    })
}

impl Framer {
    /// Forgets the piece of a packet: what comes is no continuation.
    pub const fn restart(&mut self) {
        self.carry_len = 0;
    }

    /// Whether no piece of a packet is carried.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.carry_len == 0
    }

    /// Takes the payload of `slot` apart, from `start` on, where a packet is known to begin
    /// unless a piece is carried.
    pub fn push(
        &mut self,
        slot: u64,
        payload: &[u8],
        start: usize,
        mut each: impl FnMut(&[u8; PACKET], &Place),
    ) -> Lost {
        let mut lost = Lost::default();
        let mut at = start;
        if self.carry_len > 0 {
            at = self.finish_carry(slot, payload, &mut lost, &mut each);
        }
        while let Some(rest) = payload.get(at..).filter(|r| !r.is_empty()) {
            if rest.first() != Some(&SYNC) {
                // One wrong sync byte in a grid that goes on costs one packet.
                if grid_at(payload, at + PACKET, 1) {
                    lost.packets += 1;
                    at += PACKET;
                    continue;
                }
                let Some(found) = find_grid(payload, at) else {
                    lost.payloads += 1;
                    return lost;
                };
                lost.packets += 1;
                at = found;
                continue;
            }
            let Some(packet) = rest.first_chunk::<PACKET>() else {
                self.keep(slot, at, rest);
                return lost;
            };
            each(
                packet,
                &Place::whole(slot, u16::try_from(at).unwrap_or(u16::MAX)),
            );
            at += PACKET;
        }
        lost
    }

    fn keep(&mut self, slot: u64, at: usize, rest: &[u8]) {
        if let Some(place) = self.carry.get_mut(..rest.len()) {
            place.copy_from_slice(rest);
            self.carry_len = rest.len();
            self.carry_at = Position {
                slot,
                offset: u16::try_from(at).unwrap_or(u16::MAX),
            };
        }
    }

    /// Completes the carried packet; returns where the next one begins.
    fn finish_carry(
        &mut self,
        slot: u64,
        payload: &[u8],
        lost: &mut Lost,
        each: &mut impl FnMut(&[u8; PACKET], &Place),
    ) -> usize {
        let have = core::mem::take(&mut self.carry_len);
        let need = PACKET - have;
        let follows = self.carry_at.slot + 1 == slot
            && payload.len() >= need
            && payload.get(need).is_none_or(|&b| b == SYNC);
        let (Some(tail), Some(head)) = (self.carry.get_mut(have..), payload.get(..need)) else {
            lost.packets += 1;
            return 0;
        };
        if !follows {
            lost.packets += 1;
            return 0;
        }
        tail.copy_from_slice(head);
        let split = u16::try_from(have).unwrap_or(0);
        each(
            &self.carry,
            &Place::carried(self.carry_at.offset, split, slot),
        );
        need
    }

    /// Starts with the packet whose first bytes are the last `piece` bytes of `payload`.
    pub fn carry_tail(&mut self, slot: u64, payload: &[u8], piece: usize) -> bool {
        let Some(at) = payload.len().checked_sub(piece).filter(|_| piece < PACKET) else {
            return false;
        };
        self.keep(slot, at, payload.get(at..).unwrap_or_default());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(packets: usize) -> Vec<u8> {
        (0..packets)
            .flat_map(|n| {
                let mut p = [n as u8; PACKET];
                p[0] = SYNC;
                p
            })
            .collect()
    }

    fn frame(payloads: &[&[u8]]) -> (Vec<u8>, Lost) {
        let mut framer = Framer::default();
        let mut seen = Vec::new();
        let mut all = Lost::default();
        for (slot, payload) in payloads.iter().enumerate() {
            let lost = framer.push(slot as u64, payload, 0, |p, place| {
                for (k, &byte) in p.iter().enumerate() {
                    let at = place.at(k);
                    assert_eq!(payloads[at.slot as usize][at.offset as usize], byte);
                }
                seen.push(p[1]);
            });
            all.payloads += lost.payloads;
            all.packets += lost.packets;
        }
        (seen, all)
    }

    #[test]
    fn payloads_of_any_size_are_reframed() {
        let bytes = stream(40);
        for size in [188, 376, 1316, 900, 189, 187 * 2, 1000, 1456] {
            let payloads: Vec<&[u8]> = bytes.chunks(size).collect();
            let (seen, lost) = frame(&payloads);
            assert_eq!(seen, (0..40).collect::<Vec<u8>>(), "payloads of {size}");
            assert_eq!(lost, Lost::default());
        }
    }

    #[test]
    fn the_grid_is_found_again_after_garbage() {
        let mut bytes = stream(7);
        bytes.splice(376..376, [0xAA; 50]);
        let (seen, lost) = frame(&[&bytes[..1316], &bytes[1316..]]);
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(lost.packets, 1);
    }

    #[test]
    fn one_wrong_sync_byte_costs_one_packet() {
        let mut bytes = stream(7);
        bytes[188 * 3] = 0;
        let (seen, lost) = frame(&[&bytes]);
        assert_eq!(seen, [0, 1, 2, 4, 5, 6]);
        assert_eq!((lost.packets, lost.payloads), (1, 0));
        assert_eq!(frame(&[&[0x47; 3][..], &[0; 1400]]).0, [0_u8; 0]);
    }
}
