//! SMPTE ST 2022-1 (derived from RFC 2733): packets rebuilt from column and row FEC. Each FEC
//! packet stands for itself: its base, offset and count name the packets that it protects, so
//! matrices need no alignment and may be sent late. Media packets are read where they lie, in
//! the slot ring; FEC packets are kept only while something that they protect is missing.

use std::collections::VecDeque;

use mirror_base::{Discard, SlotRing};

use crate::media::FecLimits;
use crate::session::Session;

/// RTP's fixed header; what FEC protects begins behind it.
const RTP_BYTES: usize = 12;
/// The FEC header behind it.
const FEC_BYTES: usize = 16;
/// Packets of one FEC packet, at most: bits of [`Stored::missing`].
const MAX_COUNT: u8 = 32;
/// No datagram protects a longer one.
const MAX_PAYLOAD: usize = mirror_base::ring::MAX_SLOT_BYTES - RTP_BYTES;
/// Of so many retransmissions it is known that their padding is not.
const MAX_BARE: usize = 256;
/// The padding bit (RFC 3550, 5.1).
const PADDED: u8 = 0x20;

/// A FEC packet of which something is missing.
#[derive(Debug)]
struct Stored {
    /// Sequence number and slot of the first packet that it protects.
    sequence: u16,
    base: u64,
    /// From one to the next: L in columns, 1 in rows.
    offset: u8,
    /// Packets: D in columns, L in rows.
    count: u8,
    /// Bit i: packet i is missing.
    missing: u32,
    /// XOR of the packets' P, X and CC bits; of marker and payload type; of timestamp, length.
    flags: u8,
    marker_and_type: u8,
    timestamp: u32,
    length: u16,
    /// XOR of what follows the fixed header.
    payload: Vec<u8>,
}

impl Stored {
    const fn slot(&self, i: u8) -> u64 {
        self.base + i as u64 * self.offset as u64
    }

    /// Which of its packets slot `index` holds.
    fn place(&self, index: u64) -> Option<u8> {
        let distance = index.checked_sub(self.base)?;
        let offset = u64::from(self.offset);
        let place = distance / offset;
        (distance % offset == 0 && place < u64::from(self.count)).then_some(place as u8)
    }

    /// The last slot of which something is missing.
    const fn last_missing(&self) -> u64 {
        self.slot(31 - self.missing.leading_zeros() as u8)
    }
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct FecDecoder {
    limits: FecLimits,
    stored: Vec<Stored>,
    /// Memory of packets that were stored before.
    spare: Vec<Vec<u8>>,
    rebuilt: Vec<u8>,
    /// Slots that retransmissions filled, which leave the original's padding out (RFC 4588, 4).
    bare: VecDeque<u64>,
    /// The matrix that was seen.
    columns: u8,
    rows: u8,
}

impl FecDecoder {
    pub(crate) fn new(limits: FecLimits) -> Self {
        FecDecoder {
            limits: FecLimits {
                columns: limits.columns.clamp(1, MAX_COUNT),
                rows: limits.rows.clamp(1, MAX_COUNT),
            },
            stored: Vec::new(),
            spare: Vec::new(),
            rebuilt: Vec::new(),
            bare: VecDeque::new(),
            columns: 0,
            rows: 0,
        }
    }

    /// Slots before the next delivery that may still be needed: two matrices of what was seen.
    pub(crate) fn kept_slots(&self) -> u64 {
        2 * u64::from(self.columns) * u64::from(self.rows.max(1))
    }

    /// FEC packets that wait for something.
    pub(crate) const fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Another numbering begins.
    pub(crate) fn clear(&mut self) {
        while let Some(stored) = self.stored.pop() {
            self.spare.push(stored.payload);
        }
        self.bare.clear();
    }

    /// A retransmission filled slot `index`: if the original was padded, that is not in it.
    #[cold]
    pub(crate) fn repeated(&mut self, index: u64) {
        if self.bare.len() >= MAX_BARE {
            self.bare.pop_front();
        }
        self.bare.push_back(index);
    }

    fn max_stored(&self) -> usize {
        // Column packets may be spread over the following matrix.
        2 * (usize::from(self.limits.columns) + usize::from(self.limits.rows))
    }

    /// A FEC packet. It is kept if something that it protects is missing.
    ///
    /// # Errors
    /// [`Discard::Runt`], [`Discard::RtpVersion`], [`Discard::MalformedPayload`] (a header that
    /// contradicts the standard), [`Discard::LimitExceeded`] (a matrix beyond the limits),
    /// [`Discard::Duplicate`], [`Discard::Belated`] (all that it protects is over),
    /// [`Discard::BeyondWindow`].
    pub(crate) fn store(
        &mut self,
        datagram: &[u8],
        session: &Session,
        ring: &SlotRing,
    ) -> Result<(), Discard> {
        let mut packet = self.parse(datagram, session)?;
        let next = session.delivery_index();
        if packet.slot(packet.count - 1) < next {
            return Err(Discard::Belated);
        }
        let reach = u64::from(session.max_misorder());
        if packet.base > session.end() + reach || packet.base + reach < session.start() {
            return Err(Discard::BeyondWindow);
        }
        for i in 0..packet.count {
            packet.missing |= u32::from(!ring.is_filled(packet.slot(i))) << i;
        }
        if packet.missing == 0 {
            return Ok(());
        }
        let known =
            |s: &Stored| (s.base, s.offset, s.count) == (packet.base, packet.offset, packet.count);
        if self.stored.iter().any(known) {
            return Err(Discard::Duplicate);
        }
        self.drop_useless(next);
        if self.stored.len() >= self.max_stored() {
            let oldest = self.stored.remove(0);
            self.spare.push(oldest.payload);
        }
        let mut payload = self.spare.pop().unwrap_or_default();
        payload.clear();
        payload.extend_from_slice(datagram.get(RTP_BYTES + FEC_BYTES..).unwrap_or_default());
        packet.payload = payload;
        self.stored.push(packet);
        Ok(())
    }

    /// Checks the headers: RTP, and the one of ST 2022-1 behind it.
    fn parse(&mut self, datagram: &[u8], session: &Session) -> Result<Stored, Discard> {
        let (&[b0, b1, ..], rest) = datagram
            .split_first_chunk::<RTP_BYTES>()
            .ok_or(Discard::Runt)?;
        let (fec, payload) = rest.split_first_chunk::<FEC_BYTES>().ok_or(Discard::Runt)?;
        let &[
            n0,
            n1,
            l0,
            l1,
            payload_type,
            m0,
            m1,
            m2,
            t0,
            t1,
            t2,
            t3,
            kind,
            offset,
            count,
            _,
        ] = fec;
        if b0 >> 6 != 2 {
            return Err(Discard::RtpVersion);
        }
        // E is 1, the mask of RFC 2733 unused, X and the type (0: XOR) and index are 0.
        let is_row = kind & 0x40 != 0;
        if payload_type & 0x80 == 0 || [m0, m1, m2] != [0; 3] || kind & 0xBF != 0 {
            return Err(Discard::MalformedPayload);
        }
        if offset == 0 || count == 0 || (is_row && offset != 1) {
            return Err(Discard::MalformedPayload);
        }
        let (columns, rows) = if is_row { (count, 1) } else { (offset, count) };
        if columns > self.limits.columns || rows > self.limits.rows || payload.len() > MAX_PAYLOAD {
            return Err(Discard::LimitExceeded);
        }
        let sequence = u16::from_be_bytes([n0, n1]);
        let base = session.index_of(sequence).ok_or(Discard::Belated)?;
        if base < session.start() {
            return Err(Discard::Belated);
        }
        self.columns = self.columns.max(columns);
        self.rows = self.rows.max(rows);
        Ok(Stored {
            sequence,
            base,
            offset,
            count,
            missing: 0,
            // Of the FEC packet itself they are always 0: these bits are the XOR of others'.
            flags: b0 & 0x3F,
            marker_and_type: b1 & 0x80 | payload_type & 0x7F,
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            length: u16::from_be_bytes([l0, l1]),
            payload: Vec::new(),
        })
    }

    /// Slot `index` is filled now.
    #[inline]
    pub(crate) fn filled(&mut self, index: u64) {
        let mut at = 0;
        while let Some(stored) = self.stored.get_mut(at) {
            if let Some(place) = stored.place(index) {
                stored.missing &= !(1 << place);
                if stored.missing == 0 {
                    let stored = self.stored.remove(at);
                    self.spare.push(stored.payload);
                    continue;
                }
            }
            at += 1;
        }
    }

    /// Drops what protects nothing that could still be delivered.
    fn drop_useless(&mut self, next: u64) {
        let spare = &mut self.spare;
        self.stored.retain_mut(|stored| {
            let useful = stored.missing != 0 && stored.last_missing() >= next;
            if !useful {
                spare.push(core::mem::take(&mut stored.payload));
            }
            useful
        });
    }

    /// Rebuilds the next packet that can be: the only one of a FEC packet that is missing, and
    /// that one of its successors shows to be lost. (FEC has a port of its own and may be read
    /// before the last packets that it protects.) Its FEC packet is used up. The caller puts
    /// what is rebuilt into the ring, and asks again.
    pub(crate) fn rebuild(&mut self, session: &Session, ring: &SlotRing) -> Option<&[u8]> {
        let (ssrc, next, end) = (session.ssrc(), session.delivery_index(), session.end());
        loop {
            let single = |s: &Stored| s.missing.is_power_of_two() && s.last_missing() < end;
            let at = self.stored.iter().position(single)?;
            let stored = self.stored.remove(at);
            let place = stored.missing.trailing_zeros() as u8;
            let whole = stored.slot(place) >= next
                && combine(&stored, place, ssrc, ring, &self.bare, &mut self.rebuilt).is_some();
            self.spare.push(stored.payload);
            if whole {
                return Some(&self.rebuilt);
            }
        }
    }
}

/// XORs `from` onto `to`, which must be as long at least.
fn xor_onto(to: &mut [u8], from: &[u8]) -> Option<()> {
    let to = to.get_mut(..from.len())?;
    to.iter_mut().zip(from).for_each(|(t, f)| *t ^= f);
    Some(())
}

/// What is left of a FEC packet when all but one of those that it protects are taken out. What
/// followed that packet's fixed header lies in a buffer, behind [`RTP_BYTES`].
#[derive(Clone, Copy, Debug)]
struct Remainder {
    flags: u8,
    marker_and_type: u8,
    timestamp: u32,
    length: u16,
}

impl Remainder {
    /// Whether it is a packet: exactly as long as it says, since the rest has cancelled out.
    fn is_whole(&self, out: &[u8]) -> bool {
        let tail = out.get(RTP_BYTES + usize::from(self.length)..);
        tail.is_some_and(|tail| tail.iter().all(|b| *b == 0))
    }

    /// Its bytes before the padding, if it ends with padding as that should be: zeros and a count.
    fn before_padding(&self, out: &[u8]) -> Option<usize> {
        let body = out.get(RTP_BYTES..RTP_BYTES + usize::from(self.length))?;
        let (&count, rest) = body.split_last()?;
        let start = body.len().checked_sub(usize::from(count).max(1))?;
        rest.iter().skip(start).all(|b| *b == 0).then_some(start)
    }

    /// The same, if a packet whose body has `bare` bytes was sent with `padding` bytes of padding,
    /// which this puts into `out`, or takes out again. `None`: none is so long.
    fn padded(self, bare: usize, padding: u8, out: &mut [u8]) -> Option<Self> {
        let whole = bare + usize::from(padding);
        *out.get_mut(RTP_BYTES..)?.get_mut(whole.checked_sub(1)?)? ^= padding;
        Some(Remainder {
            flags: self.flags ^ PADDED,
            length: self.length ^ bare as u16 ^ whole as u16,
            ..self
        })
    }
}

/// Packet `place` of `stored`, into `out`; `bare` are the slots whose padding is not known.
fn combine(
    stored: &Stored,
    place: u8,
    ssrc: u32,
    ring: &SlotRing,
    bare: &VecDeque<u64>,
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut left = take_out(stored, place, ring, out)?;
    let mut unsure = (0..stored.count)
        .filter(|i| *i != place && bare.contains(&stored.slot(*i)))
        .peekable();
    if left.flags & PADDED != 0 && unsure.peek().is_some() {
        left = whose_padding(left, stored, unsure, ring, out)?;
    }
    if !left.is_whole(out) {
        return None;
    }
    write_header(&left, stored, place, ssrc, out)
}

/// XORs all packets of `stored` but `place` onto what it protects.
fn take_out(stored: &Stored, place: u8, ring: &SlotRing, out: &mut Vec<u8>) -> Option<Remainder> {
    out.clear();
    out.resize(RTP_BYTES, 0);
    out.extend_from_slice(&stored.payload);
    let mut left = Remainder {
        flags: stored.flags,
        marker_and_type: stored.marker_and_type,
        timestamp: stored.timestamp,
        length: stored.length,
    };
    for i in (0..stored.count).filter(|i| *i != place) {
        // With its padding, which FEC protects as it does CSRCs and extension.
        let packet = ring.get_datagram(stored.slot(i))?;
        let (&[b0, b1, _, _, t0, t1, t2, t3, ..], protected) =
            packet.split_first_chunk::<RTP_BYTES>()?;
        left.flags ^= b0 & 0x3F;
        left.marker_and_type ^= b1;
        left.timestamp ^= u32::from_be_bytes([t0, t1, t2, t3]);
        left.length ^= protected.len() as u16;
        xor_onto(out.get_mut(RTP_BYTES..)?, protected)?;
    }
    Some(left)
}

/// A packet was padded, and it is not known which: the lost one, or one of `unsure`, which came
/// without their padding. Whichever of all these makes a packet of the remainder is it, if no
/// other does that makes another one.
#[cold]
fn whose_padding(
    left: Remainder,
    stored: &Stored,
    unsure: impl Iterator<Item = u8>,
    ring: &SlotRing,
    out: &mut [u8],
) -> Option<Remainder> {
    let of_lost = left.before_padding(out).filter(|_| left.is_whole(out));
    // What came of it, and what tells it from others: its length, and what was changed within.
    let mut found = of_lost.map(|length| (left, (length, None), None));
    for i in unsure {
        let packet = ring.get_datagram(stored.slot(i))?;
        let bare = packet.len().checked_sub(RTP_BYTES)?;
        for padding in 1..=u8::MAX {
            let Some(guess) = left.padded(bare, padding, out) else {
                break;
            };
            let fits = guess.is_whole(out);
            left.padded(bare, padding, out)?;
            if !fits {
                continue;
            }
            let (length, changed) = (usize::from(guess.length), bare + usize::from(padding));
            let mark = (length, (changed <= length).then_some((changed, padding)));
            match &found {
                Some((_, other, _)) if *other != mark => return None,
                Some(_) => {}
                None => found = Some((guess, mark, Some((bare, padding)))),
            }
        }
    }
    let (guess, _, padded) = found?;
    if let Some((bare, padding)) = padded {
        left.padded(bare, padding, out)?;
    }
    Some(guess)
}

fn write_header(
    left: &Remainder,
    stored: &Stored,
    place: u8,
    ssrc: u32,
    out: &mut Vec<u8>,
) -> Option<()> {
    let step = u16::from(place) * u16::from(stored.offset);
    out.truncate(RTP_BYTES + usize::from(left.length));
    let header = out.get_mut(..RTP_BYTES)?;
    let [q0, q1] = stored.sequence.wrapping_add(step).to_be_bytes();
    let [t0, t1, t2, t3] = left.timestamp.to_be_bytes();
    let [s0, s1, s2, s3] = ssrc.to_be_bytes();
    header.copy_from_slice(&[
        0x80 | left.flags,
        left.marker_and_type,
        q0,
        q1,
        t0,
        t1,
        t2,
        t3,
        s0,
        s1,
        s2,
        s3,
    ]);
    Some(())
}
