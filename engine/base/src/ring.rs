//! The slot ring: the memory in which a stream's datagrams live from reception until every
//! output has read them (architecture: "the arena is the stream's ring").
//!
//! A slot has an absolute index that only ever grows: the protocol maps its sequence numbers
//! onto indexes, fills slots as datagrams come (gaps repaired later), decrypts in place and
//! delivers in order; readers name slots by index and learn when one was overwritten. Memory
//! comes in chunks of [`CHUNK_SLOTS`] slots from a pool that the caller owns; a ring grows by
//! [`SlotRing::add_chunk`] and otherwise reuses its oldest released chunk. Nothing here
//! allocates per packet. A ring whose packets are longer than a slot is made wide once
//! ([`SlotRing::widen`]): chunks stay as they are, and hold fewer slots.

mod chunk;
mod table;
mod wide;

use core::fmt;

use crate::{Discard, Instant};

pub use chunk::{Chunk, ChunkMemory};
pub use wide::MAX_SLOT_BYTES;

use table::{Place, Table};

/// Bytes of one slot, unless a ring was made wide. Holds an SRT payload (at most 1456) or an RTP
/// packet of a 1500-byte MTU.
pub const SLOT_BYTES: usize = 1536;
/// Slots in one chunk, unless a ring was made wide.
pub const CHUNK_SLOTS: usize = 32;
/// Bytes of one chunk.
pub const CHUNK_BYTES: usize = SLOT_BYTES * CHUNK_SLOTS;

const CHUNK_SHIFT: u32 = CHUNK_SLOTS.trailing_zeros();
const MIN_TABLE: usize = 4;
/// A ring that has fewer slots to fill is low.
const LOW_SLOTS: usize = 32;
const NO_CHUNK: u64 = u64::MAX;
const EMPTY_CHUNK: [SlotMeta; CHUNK_SLOTS] = [SlotMeta::new(Instant::ZERO, 0, 0); CHUNK_SLOTS];

/// What is known of a slot's content.
///
/// In this order what is the same for all usual packets lies together, and is one store.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SlotMeta {
    /// When the datagram reached the host (kernel receive timestamp where there is one).
    pub arrival: Instant,
    /// The protocol's timestamp: SRT's 32-bit µs, RTP's 32-bit media clock.
    pub timestamp: u32,
    /// How long after `arrival` the protocol took it, in ns, saturating (4.29 s): what the
    /// engine's receive path added.
    pub handled_after_ns: u32,
    /// Where the payload begins in the slot.
    pub payload_offset: u16,
    /// Bytes behind the payload (RTP's padding), at most 255.
    padding: u8,
    filled: bool,
    /// Where the payload ends in the slot.
    pub payload_end: u16,
    /// Protocol flags of the packet: meaning is the protocol's (`srt` keeps word 1's top byte,
    /// `rtp` the marker bit and payload type).
    pub flags: u8,
}

impl SlotMeta {
    /// Metadata for a slot whose payload is everything that is inserted.
    pub const fn new(arrival: Instant, timestamp: u32, flags: u8) -> Self {
        SlotMeta {
            arrival,
            timestamp,
            flags,
            handled_after_ns: 0,
            payload_offset: 0,
            payload_end: 0,
            padding: 0,
            filled: false,
        }
    }

    /// Whether the slot has content.
    #[inline]
    pub const fn is_filled(&self) -> bool {
        self.filled
    }

    /// Notes that the protocol takes it at `now`.
    #[inline(always)]
    #[must_use]
    pub const fn handled_at(mut self, now: Instant) -> Self {
        let nanos = now.as_nanos().saturating_sub(self.arrival.as_nanos());
        self.handled_after_ns = if nanos > u32::MAX as u64 {
            u32::MAX
        } else {
            nanos as u32
        };
        self
    }
}

/// A filled slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// Its metadata.
    pub meta: &'a SlotMeta,
}

/// Is shown the slot that is filled next. The one behind it in memory comes after that, unless it
/// is of another chunk: it was last touched a ring ago and is in no cache any more, and the time
/// to fetch it is while a packet is copied. A trait and not a closure, because it has to become
/// part of what calls it.
pub trait Ahead {
    /// The slot.
    fn behind(self, slot: &[u8; SLOT_BYTES]);
}

/// Nobody who looks ahead.
impl Ahead for () {
    #[inline(always)]
    fn behind(self, _: &[u8; SLOT_BYTES]) {}
}

/// A slot that waits for its content ([`SlotRing::append`]).
#[derive(Debug)]
pub struct Append<'a> {
    payload: &'a [u8],
    /// As long as the payload.
    to: &'a mut [u8],
    meta: &'a mut SlotMeta,
    end: &'a mut u64,
}

impl<'a> Append<'a> {
    /// Fills it: all of the payload is content, and may be changed in place (decryption).
    #[inline(always)]
    pub fn fill(self, meta: SlotMeta) -> &'a mut [u8] {
        let (payload, to) = (self.payload, self.note(meta).to);
        to.copy_from_slice(payload);
        to
    }

    /// Notes what the content will be, which [`Noted::copy`] has to bring at once: what is done
    /// between has more registers to itself than before, or behind the copy.
    #[inline(always)]
    pub fn note(self, meta: SlotMeta) -> Noted<'a> {
        *self.meta = SlotMeta {
            payload_offset: 0,
            payload_end: self.payload.len() as u16,
            filled: true,
            ..meta
        };
        *self.end += 1;
        Noted {
            payload: self.payload,
            to: self.to,
        }
    }
}

/// A slot whose content is still to be copied ([`Append::note`]).
#[derive(Debug)]
#[must_use]
pub struct Noted<'a> {
    payload: &'a [u8],
    to: &'a mut [u8],
}

impl Noted<'_> {
    /// Copies the content.
    #[inline(always)]
    pub fn copy(self) {
        self.to.copy_from_slice(self.payload);
    }
}

/// A byte in the ring: a slot's index and an offset into its payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Position {
    /// Absolute slot index.
    pub slot: u64,
    /// Offset into the slot's payload.
    pub offset: u16,
}

/// A packet released in order by a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The slot that holds it.
    pub slot: u64,
    /// When it reached the host.
    pub arrival: Instant,
    /// How long after `arrival` the protocol took it, in ns ([`SlotMeta::handled_after_ns`]).
    pub handled_after_ns: u32,
    /// When the protocol meant it to be released (TSBPD due time; the arrival of the packet
    /// that made it releasable, where there is no hold).
    pub due: Instant,
    /// Packets that were given up between the previous delivery and this one.
    pub lost_before: u32,
    /// The stream's numbering starts afresh here: no continuity with what came before.
    pub discontinuity: bool,
}

/// See the module's page.
pub struct SlotRing {
    /// Bytes of one slot: [`SLOT_BYTES`] times a power of two.
    slot_bytes: usize,
    /// A chunk has two to the power of this many slots.
    chunk_shift: u32,
    places: Table,
    /// The chunk that was written to last: most packets go where the last went.
    open: u64,
    /// Its end, while nothing beyond [`SlotRing::end`] is released; 0 when no chunk is open.
    append_until: u64,
    spare: Vec<Chunk>,
    owned: usize,
    /// Slots of all of them.
    capacity: usize,
    /// With so many slots left it is low; one chunk may be split by the floor.
    low_slots: u64,
    first: u64,
    floor: u64,
    end: u64,
    promised: usize,
}

impl fmt::Debug for SlotRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotRing")
            .field("chunks", &self.owned)
            .field("floor", &self.floor)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Default for SlotRing {
    fn default() -> Self {
        Self::new()
    }
}

impl SlotRing {
    /// A ring without memory. Indexes start at 0.
    pub fn new() -> Self {
        SlotRing {
            slot_bytes: SLOT_BYTES,
            chunk_shift: CHUNK_SHIFT,
            places: Table::new(MIN_TABLE),
            open: NO_CHUNK,
            append_until: 0,
            spare: Vec::new(),
            owned: 0,
            capacity: 0,
            low_slots: (LOW_SLOTS + CHUNK_SLOTS) as u64,
            first: 0,
            floor: 0,
            end: 0,
            promised: 0,
        }
    }

    /// A ring with `chunks` chunks from the heap: tests and simulations.
    pub fn with_owned_chunks(chunks: usize) -> Self {
        let mut ring = SlotRing::new();
        for _ in 0..chunks {
            ring.add_chunk(Chunk::owned());
        }
        ring
    }

    /// Gives the ring one more chunk.
    pub fn add_chunk(&mut self, chunk: Chunk) {
        self.owned += 1;
        self.count_slots();
        self.spare.push(chunk);
        // Twice the memory's span, so that a window with holes still has places.
        if self.owned * 2 > self.places.len() {
            self.grow_table();
        }
    }

    /// Takes one chunk out of the ring for the pool: a spare one, or the oldest released one.
    pub fn take_chunk(&mut self) -> Option<Chunk> {
        if self.spare.is_empty() {
            self.recycle_oldest();
        }
        let chunk = self.spare.pop()?;
        self.owned -= 1;
        self.count_slots();
        Some(chunk)
    }

    /// Takes the ring apart.
    pub fn into_chunks(mut self) -> impl Iterator<Item = Chunk> {
        self.spare.extend(self.places.take_memory());
        self.spare.into_iter()
    }

    /// Bytes of one slot: no longer datagram finds room.
    #[inline(always)]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Slots of one chunk.
    #[inline]
    pub const fn chunk_slots(&self) -> usize {
        1 << self.chunk_shift
    }

    /// Bytes that its memory has.
    pub const fn capacity_bytes(&self) -> usize {
        self.owned * CHUNK_BYTES
    }

    /// Slots that its memory can hold.
    #[inline]
    pub const fn capacity_slots(&self) -> usize {
        self.capacity
    }

    #[inline(always)]
    const fn slot_of(&self, index: u64) -> usize {
        index as usize & (self.chunk_slots() - 1)
    }

    #[inline(always)]
    const fn chunk_of(&self, index: u64) -> u64 {
        index >> self.chunk_shift
    }

    /// Slots that can still be filled before something unreleased would have to go.
    #[inline]
    pub fn available_slots(&self) -> usize {
        // One chunk may be split by the floor. Neither sum can overflow: indexes are counted up
        // from 0, and capacity is memory.
        let limit = self.floor + self.capacity_slots() as u64;
        usize::try_from(limit.saturating_sub(self.end.max(self.floor) + self.chunk_slots() as u64))
            .unwrap_or(usize::MAX)
    }

    /// The number of its chunks has changed, or what they hold.
    fn count_slots(&mut self) {
        self.capacity = self.owned << self.chunk_shift;
        self.low_slots = (LOW_SLOTS + self.chunk_slots()) as u64;
    }

    /// Whether it is about to run full: fewer than 32 slots are available.
    #[inline]
    pub const fn is_low(&self) -> bool {
        let limit = self.floor + self.capacity as u64;
        self.end + self.low_slots > limit || limit <= self.low_slots
    }

    /// The owner can add memory for `slots` more, and will before the ring is full.
    pub fn promise_slots(&mut self, slots: usize) {
        self.promised = slots;
    }

    /// Slots that can come to be filled: [`SlotRing::available_slots`], and what the owner
    /// promised. What a sender may be told: it is not held up by a ring that has yet to grow.
    pub fn announced_slots(&self) -> usize {
        self.available_slots().saturating_add(self.promised)
    }

    /// One past the highest index ever filled.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Where a new session begins: behind everything filled, given up or released.
    pub const fn next_index(&self) -> u64 {
        if self.end > self.floor {
            self.end
        } else {
            self.floor
        }
    }

    /// The lowest index that is not released.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// The lowest index that may still be readable.
    pub const fn oldest(&self) -> u64 {
        self.first << self.chunk_shift
    }

    /// Releases everything below `index`: it stays readable until its memory is needed.
    pub fn release_before(&mut self, index: u64) {
        self.floor = self.floor.max(index);
        if self.floor > self.end {
            self.append_until = 0;
        }
    }

    /// Continues at `index`, which must not be below [`SlotRing::end`]; what lies before stays
    /// readable until overwritten. A new session of the same stream starts so.
    pub fn continue_at(&mut self, index: u64) {
        debug_assert!(index >= self.end);
        self.end = self.end.max(index);
    }

    /// Copies `bytes` into slot `index`. The payload is `bytes` from `meta.payload_offset` to
    /// `meta.payload_end` (0: to the end).
    ///
    /// # Errors
    /// [`Discard::TooLong`], [`Discard::Duplicate`], [`Discard::Belated`] (released already),
    /// [`Discard::BeyondWindow`] or [`Discard::NoBuffer`].
    #[inline(always)]
    pub fn insert(&mut self, index: u64, bytes: &[u8], mut meta: SlotMeta) -> Result<(), Discard> {
        let len = bytes.len();
        if len > self.slot_bytes
            || usize::from(meta.payload_offset) > len
            || usize::from(meta.payload_end) > len
        {
            return Err(Discard::TooLong);
        }
        if index < self.floor {
            return Err(Discard::Belated);
        }
        if self.chunk_of(index) != self.open {
            self.open(self.chunk_of(index))?;
        }
        let (slot, slot_bytes) = (self.slot_of(index), self.slot_bytes);
        let place = self.places.open_mut();
        let entry = &mut place.meta[slot];
        if entry.filled {
            return Err(Discard::Duplicate);
        }
        let start = slot * slot_bytes;
        let memory = place.memory.as_deref_mut();
        let Some(to) = memory.and_then(|bytes| bytes.get_mut(start..start + len)) else {
            return Err(Discard::NoBuffer);
        };
        to.copy_from_slice(bytes);
        meta.filled = true;
        if meta.payload_end == 0 {
            meta.payload_end = len as u16;
        }
        meta.padding = (len - usize::from(meta.payload_end)).min(0xFF) as u8;
        *entry = meta;
        self.end = self.end.max(index + 1);
        Ok(())
    }

    /// Slot `index` for `payload`, if it is the one behind all that were ever filled, in the chunk
    /// that was written to last: most packets go there, and need no other question answered.
    /// `None`: [`SlotRing::insert`] tells what can be done, and takes all packets of a wide ring.
    ///
    /// `ahead` is shown the slot.
    #[inline(always)]
    pub fn append<'a>(
        &'a mut self,
        index: u64,
        payload: &'a [u8],
        ahead: impl Ahead,
    ) -> Option<Append<'a>> {
        // Its length first: it is no question behind the others then.
        if payload.len() > SLOT_BYTES || index != self.end || index >= self.append_until {
            return None;
        }
        // No chunk of a wide ring is open for this.
        let slot = index as usize & (CHUNK_SLOTS - 1);
        let place = self.places.open_mut();
        let slots = place.memory.as_mut()?.slots_mut();
        ahead.behind(&slots[slot]);
        Some(Append {
            payload,
            to: slots[slot].get_mut(..payload.len())?,
            meta: &mut place.meta[slot],
            end: &mut self.end,
        })
    }

    /// The slot of the packet after the next one, if it goes on behind all others in the chunk
    /// that is open. It was last touched a ring ago and is in no cache any more: time to fetch it.
    #[inline(always)]
    pub fn behind_next(&self) -> Option<&[u8; SLOT_BYTES]> {
        let index = self.end + 1;
        if index >= self.append_until {
            return None;
        }
        let place = self.places.open();
        let slots = place.memory.as_ref()?.slots();
        Some(&slots[index as usize & (CHUNK_SLOTS - 1)])
    }

    /// Opens the chunk behind the one that is open, when that is full: [`SlotRing::append`] goes
    /// on there. `false`: there is no need to, or no memory.
    pub fn open_next(&mut self) -> bool {
        self.open_is_full() && self.open(self.chunk_of(self.end)).is_ok()
    }

    /// Whether the chunk that is open is full, and no other one was opened yet.
    #[inline]
    pub const fn open_is_full(&self) -> bool {
        self.append_until != 0 && self.end == self.append_until
    }

    /// Makes chunk `number` the one that is written to.
    #[inline(never)]
    fn open(&mut self, number: u64) -> Result<(), Discard> {
        let at = self.places.of(number);
        if self
            .places
            .get(at)
            .is_none_or(|place| place.number != number)
        {
            self.claim(number)?;
        }
        self.places.take_in_hand(at);
        self.open = number;
        self.append_until = if self.is_wide() {
            0
        } else {
            (number + 1) << CHUNK_SHIFT
        };
        Ok(())
    }

    /// The content of slot `index`, unless it was never filled or is overwritten.
    #[inline]
    pub fn get(&self, index: u64) -> Option<Slot<'_>> {
        let (place, slot) = self.locate(index)?;
        let meta = &place.meta[slot];
        if !meta.filled {
            return None;
        }
        let start = slot * self.slot_bytes;
        let payload = place
            .memory
            .as_deref()?
            .get(start + usize::from(meta.payload_offset)..start + usize::from(meta.payload_end))?;
        Some(Slot { payload, meta })
    }

    /// The whole inserted content of slot `index` up to its payload's end, header included.
    pub fn get_packet(&self, index: u64) -> Option<&[u8]> {
        let (place, slot) = self.locate(index)?;
        let meta = &place.meta[slot];
        if !meta.filled {
            return None;
        }
        let start = slot * self.slot_bytes;
        place
            .memory
            .as_deref()?
            .get(start..start + usize::from(meta.payload_end))
    }

    /// The whole inserted content of slot `index`, header and padding included.
    pub fn get_datagram(&self, index: u64) -> Option<&[u8]> {
        let (place, slot) = self.locate(index)?;
        let meta = &place.meta[slot];
        if !meta.filled {
            return None;
        }
        let start = slot * self.slot_bytes;
        let len = usize::from(meta.payload_end) + usize::from(meta.padding);
        place.memory.as_deref()?.get(start..start + len)
    }

    /// The payload of slot `index`, to be changed in place (decryption).
    pub fn payload_mut(&mut self, index: u64) -> Option<&mut [u8]> {
        let (number, slot, slot_bytes) =
            (self.chunk_of(index), self.slot_of(index), self.slot_bytes);
        let at = self.places.of(number);
        let place = self.places.get_mut(at)?;
        let meta = place.meta[slot];
        if place.number != number || !meta.filled {
            return None;
        }
        let start = slot * slot_bytes;
        place.memory.as_deref_mut()?.get_mut(
            start + usize::from(meta.payload_offset)..start + usize::from(meta.payload_end),
        )
    }

    /// Metadata of slot `index`, if it is filled.
    #[inline]
    pub fn meta(&self, index: u64) -> Option<&SlotMeta> {
        let (place, slot) = self.locate(index)?;
        let meta = &place.meta[slot];
        meta.filled.then_some(meta)
    }

    /// Metadata of slot `index` and of those behind it in the same chunk, filled or not
    /// ([`SlotMeta::is_filled`]).
    #[inline]
    pub fn metas_from(&self, index: u64) -> &[SlotMeta] {
        if !self.is_wide() {
            // The same, with a number of slots that the compiler knows.
            let (number, slot) = (index >> CHUNK_SHIFT, index as usize & (CHUNK_SLOTS - 1));
            return match self.places.get(self.places.of(number)) {
                Some(place) if place.number == number => &place.meta[slot..],
                _ => &[],
            };
        }
        let found = self.locate(index);
        found
            .and_then(|(place, slot)| place.meta.get(slot..self.chunk_slots()))
            .unwrap_or(&[])
    }

    /// Metadata of the slots before slot `end` in the same chunk, filled or not.
    pub fn metas_before(&self, end: u64) -> &[SlotMeta] {
        let found = end.checked_sub(1).and_then(|last| self.locate(last));
        found
            .and_then(|(place, slot)| place.meta.get(..=slot))
            .unwrap_or(&[])
    }

    /// Whether slot `index` is filled.
    #[inline]
    pub fn is_filled(&self, index: u64) -> bool {
        self.meta(index).is_some()
    }

    /// Empties slot `index`: an undecryptable packet, a payload the operator paused.
    pub fn clear(&mut self, index: u64) {
        let (number, slot) = (self.chunk_of(index), self.slot_of(index));
        let at = self.places.of(number);
        if let Some(place) = self.places.get_mut(at)
            && place.number == number
        {
            place.meta[slot] = SlotMeta::default();
        }
    }

    #[inline]
    fn locate(&self, index: u64) -> Option<(&Place, usize)> {
        let number = self.chunk_of(index);
        let place = self.places.get(self.places.of(number))?;
        (place.number == number).then_some((place, self.slot_of(index)))
    }

    #[cold]
    fn claim(&mut self, number: u64) -> Result<(), Discard> {
        let span = self.places.len() as u64;
        if self.owned == self.spare.len() {
            // No chunk is in use: the window may start anywhere.
            self.first = self.first.max(self.chunk_of(self.floor));
        }
        if number < self.first {
            return Err(Discard::Belated);
        }
        while number - self.first >= span {
            if !self.first_is_released() {
                return Err(Discard::BeyondWindow);
            }
            self.free_first();
        }
        if self.spare.is_empty() {
            self.recycle_oldest();
        }
        if number < self.first {
            return Err(Discard::Belated);
        }
        let Some(chunk) = self.spare.pop() else {
            return Err(Discard::NoBuffer);
        };
        let Some(place) = self.places.get_mut(self.places.of(number)) else {
            return Err(Discard::NoBuffer);
        };
        debug_assert_eq!(place.number, NO_CHUNK);
        place.memory = Some(chunk);
        place.number = number;
        place.meta = EMPTY_CHUNK;
        Ok(())
    }

    const fn first_is_released(&self) -> bool {
        (self.first + 1) << self.chunk_shift <= self.floor
    }

    /// Moves `first` on by one; its chunk, if it has one, becomes spare.
    fn free_first(&mut self) {
        let place = self.places.get_mut(self.places.of(self.first));
        if let Some(place) = place.filter(|place| place.number == self.first) {
            place.number = NO_CHUNK;
            self.spare.extend(place.memory.take());
            if self.open == self.first {
                self.close();
            }
            self.first += 1;
        } else if self.owned == self.spare.len() {
            // Nothing in use: no need to walk chunk by chunk over a large jump.
            self.first = self.chunk_of(self.floor).max(self.first + 1);
        } else {
            self.first += 1;
        }
    }

    fn recycle_oldest(&mut self) {
        while self.spare.is_empty() && self.owned > 0 && self.first_is_released() {
            self.free_first();
        }
    }

    fn grow_table(&mut self) {
        self.close();
        self.places.grow();
        // `spare` may later have to take every chunk.
        self.spare.reserve(self.places.len());
    }

    /// No chunk is written to.
    fn close(&mut self) {
        self.places.lay_down();
        self.open = NO_CHUNK;
        self.append_until = 0;
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
