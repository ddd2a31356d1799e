//! The keys of a living connection, each direction with its own (spec sections 16.1 and 16.6):
//! [`ReceiveKeys`] belongs to the receiver, [`SendKeys`] to the sender, which counts its packets
//! and takes the next key in time. The KM messages themselves go through `connection::keys`.

use core::fmt;
use core::time::Duration;

use mirror_base::Instant;

use super::agree::Agreement;
use super::message::{KeyMaterial, KeyPair, KmState, Message, Parity};
use super::packet_key::{PacketKey, Suite};
use super::secret::{Secret, SecretRandom};
use crate::config::Config;
use crate::packet::{Header, KK_MASK};

/// KK of packets under the even key, in word 1 (spec section 1.1).
const KK_EVEN: u32 = 1 << 27;
/// KK of packets under the odd key.
const KK_ODD: u32 = 1 << 28;
/// Payloads are decrypted into a room of this size where that is not done in their slot.
const SCRATCH: usize = 1536;
/// Spec section 16.6: tries of an announcement at the pace of the round-trip time.
const QUICK_TRIES: u32 = 10;
/// The pace of announcements that nobody answered so often.
const SLOW_RETRY: Duration = Duration::from_secs(1);
/// The shortest pace of announcements.
const LEAST_RETRY: Duration = Duration::from_millis(10);
/// Packets under the last key but one may come late for so long: longer than any latency.
const KEY_GRACE: Duration = Duration::from_secs(30);
/// No key encrypts more packets, confirmed by the peer or not: sequence numbers, on which the
/// key stream depends, come again after 2^31.
const MOST_PACKETS: u64 = 1 << 30;

impl Parity {
    /// The key that a data packet names.
    #[inline]
    pub(crate) const fn of_packet(word1: u32) -> Option<Self> {
        match word1 & KK_MASK {
            KK_EVEN => Some(Parity::Even),
            KK_ODD => Some(Parity::Odd),
            _ => None,
        }
    }

    /// The bits in word 1.
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Parity::Even => KK_EVEN,
            Parity::Odd => KK_ODD,
        }
    }
}

/// What became of a payload that was to be decrypted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    /// Decrypt it in its slot by [`ReceiveKeys::apply_ctr`].
    InSlot,
    /// This is it.
    Plain(&'a [u8]),
    /// There is no such key, or the peer has not sealed this.
    Not,
}

/// The keys for what the peer sends.
pub(crate) struct ReceiveKeys {
    suite: Suite,
    keys: KeyPair<PacketKey>,
    /// Since when a key is no longer in use, if it was not named by a KM message since.
    left: KeyPair<Instant>,
    scratch: Box<[u8]>,
}

impl fmt::Debug for ReceiveKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveKeys")
            .field("suite", &self.suite)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl ReceiveKeys {
    pub(crate) fn new(suite: Suite) -> Self {
        ReceiveKeys {
            suite,
            keys: KeyPair::NONE,
            left: KeyPair::NONE,
            scratch: match suite.overhead() {
                0 => Box::default(),
                _ => vec![0; SCRATCH].into_boxed_slice(),
            },
        }
    }

    /// Takes what a KM message brought; a key that it does not name stays.
    pub(crate) fn install(&mut self, keys: &KeyPair<Secret>) {
        for parity in [Parity::Even, Parity::Odd] {
            if let Some(key) = keys
                .get(parity)
                .and_then(|k| PacketKey::new(&self.suite, k))
            {
                self.keys.set(parity, Some(key));
                self.left.set(parity, None);
            }
        }
    }

    /// A packet names the key of `to` behind one that named the key of `from`. When that is a
    /// key that was left, this is a late packet, or the one before was forged: neither key has
    /// been left for good.
    pub(crate) fn change(&mut self, from: u32, to: u32, now: Instant) {
        let Some(to) = Parity::of_packet(to) else {
            return;
        };
        if self.left.get(to).is_some() {
            self.left.set(to, None);
        } else if let Some(from) = Parity::of_packet(from) {
            self.left.set(from, Some(now));
        }
    }

    /// Whether the key of a packet was left longer ago than packets come late.
    pub(crate) fn is_stale(&self, word1: u32, now: Instant) -> bool {
        Parity::of_packet(word1)
            .and_then(|parity| self.left.get(parity))
            .is_some_and(|&left| now.saturating_since(left) > KEY_GRACE)
    }

    /// AES-GCM is checked and decrypted at once, outside of the slot: nothing unproven takes a
    /// place. AES-CTR proves nothing and is decrypted where the payload will stay.
    #[inline]
    pub(crate) fn open(&mut self, header: &Header, payload: &[u8]) -> Opened<'_> {
        let key = Parity::of_packet(header.word1).and_then(|parity| self.keys.get(parity));
        match key {
            Some(PacketKey::Ctr(_)) => Opened::InSlot,
            Some(key) => match key.open_gcm(&self.suite, header, payload, &mut self.scratch) {
                Some(plain) => Opened::Plain(plain),
                None => Opened::Not,
            },
            None => Opened::Not,
        }
    }

    /// Decrypts a payload of AES-CTR in its slot.
    #[inline]
    pub(crate) fn apply_ctr(&self, header: &Header, payload: &mut [u8]) {
        if let Some(key) = Parity::of_packet(header.word1).and_then(|p| self.keys.get(p)) {
            key.apply_ctr(&self.suite, header.word0, payload);
        }
    }

    /// The plain payload in `out`, leaving the connection as it is: to judge a datagram whose
    /// origin is in doubt.
    pub(crate) fn peek<'a>(
        &self,
        header: &Header,
        payload: &[u8],
        out: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let key = self.keys.get(Parity::of_packet(header.word1)?)?;
        if matches!(key, PacketKey::Gcm(_)) {
            return key.open_gcm(&self.suite, header, payload, out);
        }
        let out = out.get_mut(..payload.len())?;
        out.copy_from_slice(payload);
        key.apply_ctr(&self.suite, header.word0, out)
            .then_some(&*out)
    }

    pub(crate) const fn suite(&self) -> &Suite {
        &self.suite
    }
}

/// The next key on its way to the peer.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) message: Message,
    tries: u32,
    pub(crate) due: Instant,
    confirmed: bool,
    secret: Secret,
    key: PacketKey,
}

/// When keys are renewed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refresh {
    /// Packets under one key.
    period: u64,
    /// The next key is announced so many packets before.
    announce: u64,
}

impl Refresh {
    /// Spec section 16.6: P ≤ (R−1)/2.
    pub(crate) fn new(config: &Config) -> Self {
        let period = u64::from(config.refresh_packets).clamp(4, MOST_PACKETS / 2);
        Refresh {
            period,
            announce: u64::from(config.announce_packets).clamp(1, (period - 1) / 2),
        }
    }
}

/// The keys for what we send.
#[derive(Debug)]
pub(crate) struct SendKeys {
    suite: Suite,
    kek: Secret,
    parity: Parity,
    secret: Secret,
    key: PacketKey,
    /// Packets under the present key.
    count: u64,
    /// The count at which something is to be done.
    next_step: u64,
    refresh: Refresh,
    pub(crate) announcement: Option<Box<Announcement>>,
    random: SecretRandom,
    /// The peer's socket ID, which AES-GCM authenticates.
    destination: u32,
    state: KmState,
    /// Keys that took the place of another.
    pub(crate) refreshes: u64,
}

impl SendKeys {
    /// Begins with the keys of the handshake; `None` in a build without ciphers.
    pub(crate) fn new(agreement: Agreement, refresh: Refresh, destination: u32) -> Option<Self> {
        let KeyPair { even, odd } = agreement.keys;
        // The first key is the even one (spec section 16.1), unless a peer had only the other.
        let (parity, secret) = match (even, odd) {
            (Some(even), _) => (Parity::Even, even),
            (None, odd) => (Parity::Odd, odd?),
        };
        Some(SendKeys {
            key: PacketKey::new(&agreement.suite, &secret)?,
            suite: agreement.suite,
            kek: agreement.kek,
            parity,
            secret,
            count: 0,
            next_step: refresh.period - refresh.announce,
            refresh,
            announcement: None,
            random: agreement.random,
            destination,
            state: agreement.state,
            refreshes: 0,
        })
    }

    /// Encrypts the first `len` bytes of `buffer`, the payload of the packet with these words;
    /// returns its length and the KK bits for word 1. Once for each packet: a retransmission is
    /// the same ciphertext again (spec section 11.5).
    #[inline]
    pub(crate) fn seal(
        &mut self,
        sequence: u32,
        word1: u32,
        timestamp: u32,
        buffer: &mut [u8],
        len: usize,
    ) -> Option<(usize, u32)> {
        let kk = self.parity.bits();
        let header = Header {
            word0: sequence,
            word1: word1 | kk,
            timestamp,
            destination: self.destination,
        };
        let len = self.key.seal(&self.suite, &header, buffer, len)?;
        self.count += 1;
        Some((len, kk))
    }

    /// The KK bits of packets under the present key.
    pub(crate) const fn kk(&self) -> u32 {
        self.parity.bits()
    }

    /// Whether [`SendKeys::step`] has something to do.
    #[inline]
    pub(crate) const fn step_due(&self) -> bool {
        self.count >= self.next_step
    }

    /// The count has reached a step: the next key is to be announced, or to be used.
    pub(crate) fn step(&mut self, now: Instant) {
        match &self.announcement {
            None => self.announce(now),
            Some(next) if next.confirmed || self.count >= MOST_PACKETS => self.switch(),
            // A key that the peer may not have is not used: what it cannot decrypt is lost.
            // libsrt changes over all the same.
            Some(_) => self.next_step = MOST_PACKETS,
        }
    }

    fn announce(&mut self, now: Instant) {
        self.next_step = self.refresh.period;
        let secret = Secret::draw(&mut self.random);
        let mut keys = KeyPair::NONE;
        keys.set(self.parity, Some(self.secret.clone()));
        keys.set(self.parity.other(), Some(secret.clone()));
        let message = Message::write(&self.suite, &self.kek, &keys);
        let key = PacketKey::new(&self.suite, &secret);
        if let (Some(message), Some(key)) = (message, key) {
            self.announcement = Some(Box::new(Announcement {
                message,
                tries: 0,
                due: now,
                confirmed: false,
                secret,
                key,
            }));
        }
    }

    fn switch(&mut self) {
        if let Some(next) = self.announcement.take() {
            // The old key is wiped here: what was encrypted with it is not encrypted again.
            let Announcement { secret, key, .. } = *next;
            self.secret = secret;
            self.key = key;
            self.parity = self.parity.other();
            self.refreshes += 1;
        }
        self.count = 0;
        self.next_step = self.refresh.period - self.refresh.announce;
    }

    /// A KMRSP: the message as it was announced, or a status. `false` when it answers nothing.
    pub(crate) fn confirm(&mut self, content: &[u8]) -> bool {
        if let Some(state) = KmState::from_wire(content) {
            // A peer that refuses the next key still has the present one.
            if self.announcement.is_none() {
                return false;
            }
            self.state = match state {
                KmState::Secured | KmState::Securing => self.state,
                refused => refused,
            };
            return true;
        }
        let Some(next) = &mut self.announcement else {
            // Answers to repeated announcements come late.
            return KeyMaterial::parse(content).is_some();
        };
        if next.message.as_bytes() != content {
            return false;
        }
        next.confirmed = true;
        next.due = Instant::FAR_FUTURE;
        self.state = KmState::Secured;
        if self.count >= self.refresh.period {
            self.switch();
        }
        true
    }

    /// When the announcement is to be sent (again).
    pub(crate) fn due(&self) -> Instant {
        self.announcement
            .as_ref()
            .map_or(Instant::FAR_FUTURE, |next| next.due)
    }

    /// The announcement leaves now.
    pub(crate) fn note_announced(&mut self, now: Instant, smoothed_rtt: Duration) {
        if let Some(next) = &mut self.announcement {
            next.tries = next.tries.saturating_add(1);
            next.due = now
                + if next.tries < QUICK_TRIES {
                    (smoothed_rtt * 3 / 2).max(LEAST_RETRY)
                } else {
                    SLOW_RETRY
                };
        }
    }

    pub(crate) const fn state(&self) -> KmState {
        self.state
    }

    /// As though so many packets had been encrypted with the present key.
    #[cfg(test)]
    pub(crate) const fn count_packets(&mut self, count: u64) {
        self.count = count;
    }

    pub(crate) const fn suite(&self) -> &Suite {
        &self.suite
    }
}
