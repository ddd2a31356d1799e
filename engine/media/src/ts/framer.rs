//! Finds the grid of TS packets in a stream of payloads (ISO 13818-1, 2.4.3.2; TR 101 290,
//! 5.2.1, indicators 1.1 and 1.2): 188 bytes from sync byte to sync byte, 204 with the parity
//! of an outer code behind each packet, 192 with an arrival time before each (Blu-ray, "M2TS").
//!
//! Payloads are nearly always whole packets: [`Framer::push`] then looks at their sync bytes
//! alone. Any other payload is gathered with what is undecided before it, so that packets may
//! lie across payloads in any way, up to five of them: one that lies in more, which takes payloads
//! of less than 47 bytes, is given up and counted. Synchronisation has the hysteresis of TR 101 290: two wrong
//! sync bytes in a row lose it, five right ones (or a payload that begins with two) gain it.

use mirror_base::Instant;
use smallvec::SmallVec;

use super::place::{MAX_SPLITS, Place};

/// Bytes of a TS packet.
pub const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// From one sync byte to the next: plain, with 16 bytes of parity, with 4 of arrival time.
const STRIDES: [usize; 3] = [PACKET, 204, 192];
/// Bytes of arrival time before the packets of a stride of 192.
const STAMP: usize = 4;
/// Right sync bytes in a row that make a grid.
const LOCK: usize = 5;
/// Right sync bytes that make a grid where a payload begins with the first.
const LOCK_AT_START: usize = 2;

/// What [`Framer::push`] could not use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Payloads in which no grid was found.
    pub payloads: u64,
    /// Packets whose sync byte was wrong, and pieces given up.
    pub packets: u64,
    /// Packets whose sync byte alone was wrong: the grid went on (TR 101 290, 1.2).
    pub sync_errors: u64,
    /// Losses of the grid (TR 101 290, 1.1).
    pub sync_losses: u64,
}

impl Lost {
    /// Whether there is something.
    pub fn is_some(&self) -> bool {
        *self != Lost::default()
    }
}

/// When a packet came.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Its last byte's datagram reached the host.
    pub arrival: Instant,
    /// Packets with wrong sync bytes that the same call has passed over before it.
    pub skipped: u64,
}

/// Bytes of one payload among those that are held.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where in the buffer they begin, and where in their payload.
    from: usize,
    slot: u64,
    offset: usize,
    arrival: Instant,
    /// They are the payload's first.
    begins: bool,
}

/// See the module's page.
#[derive(Debug)]
pub struct Framer {
    stride: usize,
    locked: bool,
    /// Locked on packets of 188 bytes, and nothing is held.
    express: bool,
    /// Bytes of the payloads to come that lie between two packets.
    skip: usize,
    /// What is undecided: the beginning of a packet, or everything while there is no grid.
    held: Vec<u8>,
    runs: SmallVec<[Run; 8]>,
    /// Bytes given up since the grid was lost.
    astray: Option<u64>,
}

impl Default for Framer {
    fn default() -> Self {
        Framer {
            stride: PACKET,
            locked: false,
            express: false,
            skip: 0,
            held: Vec::new(),
            runs: SmallVec::new(),
            astray: None,
        }
    }
}

/// Where a grid begins.
#[derive(Clone, Copy)]
struct Grid {
    at: usize,
    stride: usize,
}

/// Sync bytes in a row, at most [`LOCK`] of them.
struct Hits {
    count: usize,
    /// All that there are bytes for, but fewer than [`LOCK`].
    to_the_end: bool,
}

/// Whether `payload` is whole packets, sync byte to sync byte, from its first byte on.
#[inline]
fn is_whole(payload: &[u8], stride: usize) -> bool {
    !payload.is_empty()
        && payload.len().is_multiple_of(stride)
        && payload.iter().step_by(stride).all(|&b| b == SYNC)
}

/// The bytes from sync byte to sync byte, if `payload` shows whole packets of any kind: what
/// tells MPEG-TS from other payloads. At least two packets are asked for.
pub fn packet_size(payload: &[u8]) -> Option<usize> {
    let shows = |&stride: &usize| {
        let from = if stride == 192 { STAMP } else { 0 };
        let mut syncs = payload.iter().skip(from).step_by(stride);
        payload.len() >= 2 * stride && syncs.all(|&b| b == SYNC)
    };
    STRIDES.into_iter().find(shows)
}

impl Framer {
    /// One that continues a grid of `stride`: what comes first is a sync byte.
    pub fn continuing(stride: usize) -> Self {
        Framer {
            stride,
            locked: true,
            ..Framer::default()
        }
    }

    /// Bytes from one sync byte to the next: 188, 192 or 204.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// What comes is no continuation (packets were lost): the piece of a packet is forgotten.
    pub fn restart(&mut self) {
        self.clear();
        self.locked = false;
        self.express = false;
        self.skip = 0;
        self.astray = None;
    }

    fn clear(&mut self) {
        self.held.clear();
        self.runs.clear();
    }

    /// Whether payloads of packets of 188 bytes may be taken as they are, up to the first wrong
    /// sync byte.
    #[inline]
    pub const fn is_express(&self) -> bool {
        self.express
    }

    /// Whether `packets`, a whole payload, may be taken as they are up to the first wrong sync
    /// byte: nothing is held, and the grid goes on, or all of them show one.
    #[inline]
    pub fn takes_plain(&mut self, packets: &[[u8; PACKET]]) -> bool {
        self.express || self.finds_plain(packets)
    }

    #[cold]
    fn finds_plain(&mut self, packets: &[[u8; PACKET]]) -> bool {
        let fresh = self.held.is_empty() && self.skip == 0 && self.stride == PACKET;
        if !fresh || self.astray.is_some() || packets.is_empty() {
            return false;
        }
        self.locked |= packets.iter().all(|p| p[0] == SYNC);
        self.express = self.locked;
        self.express
    }

    /// Takes the payload of `slot` apart, from `start` on.
    pub fn push(
        &mut self,
        slot: u64,
        payload: &[u8],
        start: usize,
        arrival: Instant,
        mut each: impl FnMut(&[u8; PACKET], &Place, When),
    ) -> Lost {
        let mut lost = Lost::default();
        self.express = false;
        let Some(bytes) = payload.get(start..).filter(|b| !b.is_empty()) else {
            return lost;
        };
        if self.runs.last().is_some_and(|run| run.slot + 1 != slot) {
            lost.packets += 1;
            self.restart();
        }
        if self.held.is_empty()
            && self.skip == 0
            && let Some(stride) = self.whole_stride(bytes)
        {
            if !self.locked {
                self.lock(0, Grid { at: 0, stride }, &mut lost);
            }
            for (n, packet) in bytes.chunks(stride).enumerate() {
                if let Some(packet) = packet.first_chunk::<PACKET>() {
                    let offset = u16::try_from(start + n * stride).unwrap_or(u16::MAX);
                    let when = When {
                        arrival,
                        skipped: lost.sync_errors,
                    };
                    each(packet, &Place::whole(slot, offset), when);
                }
            }
            return lost;
        }
        self.runs.push(Run {
            from: self.held.len(),
            slot,
            offset: start,
            arrival,
            begins: start == 0,
        });
        self.held.extend_from_slice(bytes);
        self.process(false, &mut lost, &mut each);
        lost
    }

    /// The stream has ended: what is held is taken for packets as far as it looks like that.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8; PACKET], &Place, When)) -> Lost {
        let mut lost = Lost::default();
        self.process(true, &mut lost, &mut each);
        lost.packets += u64::from(!self.held.is_empty());
        self.restart();
        lost
    }

    /// The distance of the packets, if `bytes` is whole packets that can be taken as they are.
    fn whole_stride(&self, bytes: &[u8]) -> Option<usize> {
        if self.locked {
            return is_whole(bytes, self.stride).then_some(self.stride);
        }
        let alone = bytes.len() == PACKET && self.astray.is_none();
        let mut strides = [PACKET, 204].into_iter();
        strides.find(|&s| (alone || bytes.len() >= 2 * s) && is_whole(bytes, s))
    }

    fn process(
        &mut self,
        ended: bool,
        lost: &mut Lost,
        each: &mut impl FnMut(&[u8; PACKET], &Place, When),
    ) {
        let passed = self.skip.min(self.held.len());
        self.skip -= passed;
        let mut at = passed;
        while at < self.held.len() {
            if !self.locked {
                match self.search(at, ended) {
                    Ok(grid) => at = self.lock(at, grid, lost),
                    Err(keep) => {
                        self.give_up(keep - at, lost);
                        at = keep;
                        break;
                    }
                }
                continue;
            }
            let next = self.held.get(at + self.stride).copied();
            if next.is_some_and(|b| b != SYNC)
                && let Some(begin) = self.grid_of_a_later_payload(at)
            {
                // A piece of a packet at a payload's end, whose rest did not come.
                lost.packets += 1;
                at = begin;
                continue;
            }
            let rest = self.held.get(at..).unwrap_or_default();
            if rest.first() == Some(&SYNC) {
                let Some(packet) = rest.first_chunk::<PACKET>() else {
                    break;
                };
                match self.place(at) {
                    Some((place, arrival)) => {
                        let skipped = lost.sync_errors;
                        each(packet, &place, When { arrival, skipped });
                    }
                    None => lost.packets += 1,
                }
                at += self.stride;
            } else if next == Some(SYNC) || (ended && next.is_none()) {
                lost.packets += 1;
                lost.sync_errors += 1;
                at += self.stride;
            } else if next.is_some() {
                lost.sync_losses += 1;
                self.locked = false;
                self.astray = Some(0);
            } else {
                break;
            }
        }
        self.skip += at.saturating_sub(self.held.len());
        self.forget(at.min(self.held.len()));
    }

    /// No grid in `bytes` bytes.
    fn give_up(&mut self, bytes: usize, lost: &mut Lost) {
        // The time stamp before the first packet may be all.
        lost.payloads += u64::from(bytes > STAMP);
        if let Some(astray) = &mut self.astray {
            *astray += bytes as u64;
        }
    }

    /// The grid is known (again); returns where it begins.
    fn lock(&mut self, at: usize, grid: Grid, lost: &mut Lost) -> usize {
        let stray = (grid.at - at) as u64;
        let all = self.astray.take().map(|before| before + stray);
        let stride = self.stride as u64;
        if let Some(all) = all
            && all.is_multiple_of(stride)
            && grid.stride == self.stride
        {
            // The same grid as before: these were packets with wrong sync bytes.
            lost.sync_errors += all / stride;
            lost.packets += stray / stride;
        } else if !(grid.stride == 192 && stray == STAMP as u64) {
            lost.packets += stray.div_ceil(stride);
        }
        self.locked = true;
        self.stride = grid.stride;
        grid.at
    }

    /// A grid from `from` on; else up to where there is none for certain.
    fn search(&self, from: usize, ended: bool) -> Result<Grid, usize> {
        // Where a grid may begin for all that is held.
        let mut open: SmallVec<[Grid; 8]> = SmallVec::new();
        let mut at = from;
        while let Some(found) = memchr::memchr(SYNC, self.held.get(at..).unwrap_or_default()) {
            at += found;
            let mut best = (0, self.stride);
            let others = STRIDES.into_iter().filter(|&s| s != self.stride);
            for stride in core::iter::once(self.stride).chain(others) {
                let hits = self.hits(at, stride);
                let last = ended && (hits.count > 1 || self.is_last(at, stride));
                if hits.count >= LOCK || (hits.to_the_end && last) {
                    return Ok(Self::earliest(&open, Grid { at, stride }));
                }
                if hits.to_the_end && open.len() < open.inline_size() {
                    open.push(Grid { at, stride });
                }
                if self.begins(at, stride) && hits.count > best.0 {
                    best = (hits.count, stride);
                }
            }
            if best.0 >= LOCK_AT_START {
                let grid = Grid { at, stride: best.1 };
                return Ok(Self::earliest(&open, grid));
            }
            at += 1;
        }
        Err(open.first().map_or(self.held.len(), |grid| grid.at))
    }

    /// `grid`, or a place before it at which the same one may have begun.
    fn earliest(open: &[Grid], grid: Grid) -> Grid {
        let same = |g: &&Grid| g.stride == grid.stride && (grid.at - g.at).is_multiple_of(g.stride);
        open.iter().find(same).copied().unwrap_or(grid)
    }

    /// Whether a payload begins where a packet at `at` would have to.
    fn begins(&self, at: usize, stride: usize) -> bool {
        let stamp = if stride == 192 { STAMP } else { 0 };
        let mut runs = self.runs.iter();
        runs.any(|run| run.begins && run.from + stamp == at)
    }

    fn is_last(&self, at: usize, stride: usize) -> bool {
        self.held.len() - at == stride || self.held.len() - at == PACKET
    }

    /// How many packets begin at `at` and behind it in a row.
    fn hits(&self, at: usize, stride: usize) -> Hits {
        for count in 0..LOCK {
            let packet = self.held.get(at + count * stride..).unwrap_or_default();
            let to_the_end = match packet {
                [] => true,
                // A plausible header: no adaptation_field_control of 00 (2.4.3.3).
                [SYNC, _, _, flags, ..] if flags & 0x30 == 0 => false,
                [SYNC, ..] => continue,
                _ => false,
            };
            return Hits { count, to_the_end };
        }
        Hits {
            count: LOCK,
            to_the_end: false,
        }
    }

    /// The beginning of a payload inside the packet at `at`, if it begins a grid of its own.
    fn grid_of_a_later_payload(&self, at: usize) -> Option<usize> {
        let inside = |run: &&Run| run.begins && run.from > at && run.from < at + PACKET;
        let begins = |run: &&Run| self.hits(run.from, self.stride).count >= LOCK_AT_START;
        let run = self.runs.iter().find(|run| inside(run) && begins(run))?;
        Some(run.from)
    }

    /// Where the packet at `at` of the held bytes lies; `None` if it has too many pieces.
    fn place(&self, at: usize) -> Option<(Place, Instant)> {
        let first = self.runs.iter().rposition(|run| run.from <= at)?;
        let mut splits = [0; MAX_SPLITS];
        let mut pieces = 0;
        let runs = self.runs.get(first..)?;
        let carried = runs.first()?;
        let mut last = carried;
        for run in runs.iter().skip(1) {
            if run.from >= at + PACKET {
                break;
            }
            *splits.get_mut(pieces)? = u8::try_from(run.from - at).ok()?;
            pieces += 1;
            last = run;
        }
        let offset = u16::try_from(carried.offset + (at - carried.from)).ok()?;
        let place = if pieces == 0 {
            Place::whole(carried.slot, offset)
        } else {
            Place::carried(offset, splits, last.slot)
        };
        Some((place, last.arrival))
    }

    /// Forgets the first `n` held bytes.
    fn forget(&mut self, n: usize) {
        if n >= self.held.len() {
            return self.clear();
        }
        self.held.drain(..n);
        let first = self.runs.iter().rposition(|run| run.from <= n).unwrap_or(0);
        self.runs.drain(..first);
        for run in &mut self.runs {
            if run.from < n {
                run.offset += n - run.from;
                run.begins = false;
            }
            run.from = run.from.saturating_sub(n);
        }
    }
}

#[cfg(test)]
#[path = "framer_tests.rs"]
mod tests;
