//! The usual packet, which most are: an original, the next in order, under the key of the last one
//! (or none), for the slot at the ring's end, while others wait to be released and the ACK timer
//! runs. It costs its copy and a few stores, and makes nothing due. Whatever else comes is left to
//! [`Receiver::data`], which takes such packets as well and comes to the same.

use mirror_base::{Ahead, Instant, SlotMeta, SlotRing};

use super::{ACK_INTERVAL, NOTHING, Receiver};
use crate::crypto::Opened;
use crate::packet::{HEADER_LEN, Header, KK_MASK, RETRANSMITTED};

/// Of the first byte of a header's second word: key bits and retransmission flag.
const UNUSUAL_FLAGS: u8 = ((KK_MASK | RETRANSMITTED) >> 24) as u8;

/// Whether a datagram that is a data packet is an original in the clear: what
/// [`Connection::take_plain`](crate::Connection::take_plain) may take.
#[inline(always)]
pub fn is_plain(datagram: &[u8]) -> bool {
    datagram
        .get(4)
        .is_some_and(|flags| flags & UNUSUAL_FLAGS == 0)
}

/// Whether a datagram may be one that [`Connection::take_plain`](crate::Connection::take_plain) or
/// [`Connection::take_sealed`](crate::Connection::take_sealed) takes: a data packet (spec section
/// 1.1) that is no retransmission.
#[inline]
pub fn may_be_usual(datagram: &[u8]) -> bool {
    matches!(datagram, [first, _, _, _, flags, ..]
        if *first < 0x80 && flags & (RETRANSMITTED >> 24) as u8 == 0)
}

impl Receiver {
    /// A packet in the clear. `false`: it is another one, and nothing happened.
    #[inline(always)]
    pub(crate) fn take_plain(
        &mut self,
        arrival: Instant,
        age_ns: u32,
        datagram: &[u8],
        ring: &mut SlotRing,
        last_heard: &mut Instant,
        ahead: impl Ahead,
    ) -> bool {
        let Some((head, payload)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return false;
        };
        // Word by word, and again where it is needed: a word read early is one register less for
        // everything between.
        let &[w0, w1, w2, w3, flags, _, _, _, t0, t1, t2, t3, ..] = head;
        let timestamp = u32::from_be_bytes([t0, t1, t2, t3]);
        // A control packet's first word is no sequence number.
        if flags & UNUSUAL_FLAGS != 0
            || u32::from_be_bytes([w0, w1, w2, w3]) != self.expected_seq().get()
            || self.expected >= self.plain_until
            || self.time.has_to_observe(timestamp)
        {
            return false;
        }
        let Some(slot) = ring.append(self.expected, payload, ahead) else {
            return false;
        };
        let mut meta = SlotMeta::new(arrival, timestamp, flags);
        meta.handled_after_ns = age_ns;
        let noted = slot.note(meta);
        // Nothing of this is needed behind the copy, which is a call.
        *last_heard = arrival;
        self.count_plain(payload.len());
        noted.copy();
        true
    }

    /// A packet under the key of the last one. `false`: it is another one, and nothing happened.
    #[inline]
    pub(crate) fn take_sealed(
        &mut self,
        arrival: Instant,
        age_ns: u32,
        datagram: &[u8],
        ring: &mut SlotRing,
        last_heard: &mut Instant,
    ) -> bool {
        let Some((header, payload)) = Header::parse(datagram) else {
            return false;
        };
        if header.word1 & (KK_MASK | RETRANSMITTED) != self.usual_kk
            || !self.is_usual(&header, self.sealed_until)
        {
            return false;
        }
        let Some(keys) = self.keys.as_deref_mut() else {
            return false;
        };
        let meta = meta(arrival, age_ns, &header);
        let len = match keys.open(&header, payload) {
            Opened::InSlot => {
                let Some(slot) = ring.append(self.expected, payload, ()) else {
                    return false;
                };
                keys.apply_ctr(&header, slot.fill(meta));
                payload.len()
            }
            Opened::Plain(plain) => {
                let Some(slot) = ring.append(self.expected, plain, ()) else {
                    return false;
                };
                slot.fill(meta).len()
            }
            Opened::Not => return false,
        };
        *last_heard = arrival;
        self.count_plain(len);
        true
    }

    #[inline(always)]
    fn is_usual(&self, header: &Header, until: u64) -> bool {
        // A control packet's first word is no sequence number.
        header.word0 == self.expected_seq().get()
            && self.expected < until
            && !self.time.has_to_observe(header.timestamp)
    }

    /// The packet expected next takes its place.
    #[inline(always)]
    const fn count_plain(&mut self, len: usize) {
        self.payload_bytes += len as u64;
        self.expected += 1;
    }

    /// Everything goes the long way.
    pub(super) const fn forbid_plain(&mut self) {
        self.plain_until = 0;
        self.sealed_until = 0;
    }

    /// Sets how far the short way may go, after all else that may change that.
    pub(super) fn renew_plain(&mut self, now: Instant) {
        // Else the ACK timer does not run at all, or only for the repetition of an ACK that was
        // not confirmed.
        let steady = self.head != NOTHING && self.ack_due <= now + ACK_INTERVAL;
        #[cfg(test)]
        let steady = steady && !self.never_plain;
        let left = self.attention.saturating_sub(self.received() + 1);
        self.forbid_plain();
        if steady {
            // What comes in the clear on an encrypted connection is not the peer's.
            let until = match self.keys {
                None => &mut self.plain_until,
                Some(_) => &mut self.sealed_until,
            };
            *until = self.expected + left;
        }
    }
}

#[inline(always)]
fn meta(arrival: Instant, age_ns: u32, header: &Header) -> SlotMeta {
    let mut meta = SlotMeta::new(arrival, header.timestamp, (header.word1 >> 24) as u8);
    meta.handled_after_ns = age_ns;
    meta
}
