//! Encrypted data packets on their way into the ring (spec sections 16.3, 16.4 and 16.7).
//!
//! On a connection with keys, what cannot be decrypted leaves no trace but a count: it takes no
//! place, is not acknowledged and moves nothing. So a forged packet does not push out the real
//! one, a damaged one is asked for again, and packets that overtook the announcement of their
//! key come back by retransmission once the key is there. (libsrt acknowledges them, and they
//! are lost.) The same holds for packets in the clear: nothing goes back to that.

use mirror_base::{Discard, Instant, SlotRing};

use super::Receiver;
use crate::crypto::{Opened, ReceiveKeys};
use crate::packet::{Header, KK_MASK};

impl Receiver {
    /// The connection is encrypted from here on.
    pub(crate) fn secure(&mut self, keys: ReceiveKeys) {
        self.keys = Some(Box::new(keys));
        self.forbid_plain();
        // No data packet has this: the first one is looked at closely.
        self.usual_kk = KK_MASK;
    }

    pub(crate) fn keys(&self) -> Option<&ReceiveKeys> {
        self.keys.as_deref()
    }

    pub(crate) fn keys_mut(&mut self) -> Option<&mut ReceiveKeys> {
        self.keys.as_deref_mut()
    }

    /// Puts the packet into its slot, decrypted; returns the payload's length.
    #[inline]
    pub(super) fn store_sealed(
        &mut self,
        index: u64,
        arrival: Instant,
        header: &Header,
        payload: &[u8],
        ring: &mut SlotRing,
    ) -> Result<usize, Discard> {
        let meta = self.meta(arrival, header);
        let Some(keys) = self.keys.as_deref_mut() else {
            return Err(Discard::Undecryptable);
        };
        match keys.open(header, payload) {
            Opened::InSlot => {
                ring.insert(index, payload, meta)?;
                if let Some(payload) = ring.payload_mut(index) {
                    keys.apply_ctr(header, payload);
                }
                Ok(payload.len())
            }
            Opened::Plain(plain) => {
                let len = plain.len();
                ring.insert(index, plain, meta).map(|()| len)
            }
            Opened::Not => Err(Discard::Undecryptable),
        }
    }

    /// Whether the packet is the peer's, as far as the keys can tell; without keys none is
    /// doubted.
    pub(super) fn can_read(&mut self, header: &Header, payload: &[u8]) -> bool {
        self.keys
            .as_deref_mut()
            .is_none_or(|keys| keys.open(header, payload) != Opened::Not)
    }

    /// A packet with other key bits than the last one is to be stored.
    ///
    /// # Errors
    /// When its key has not been in use for long: the peer has another one by now, of which we
    /// were not told, and what the old one makes of the payload is noise.
    pub(super) fn change_keys(&mut self, arrival: Instant, header: &Header) -> Result<(), Discard> {
        match self.keys.as_deref_mut() {
            Some(keys) if keys.is_stale(header.word1, arrival) => Err(Discard::Undecryptable),
            _ => Ok(()),
        }
    }

    /// A packet with other key bits than the last one was stored.
    pub(super) fn keys_changed(&mut self, arrival: Instant, header: &Header) {
        let before = core::mem::replace(&mut self.usual_kk, header.word1 & KK_MASK);
        if let Some(keys) = self.keys.as_deref_mut() {
            keys.change(before, header.word1, arrival);
        }
    }
}
