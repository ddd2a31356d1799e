//! Keys of an established connection (spec sections 16.5 and 16.6): what the handshake agreed is
//! handed to receiver and sender, KMREQ and KMRSP in control packets are answered and sent, and
//! a datagram of doubtful origin is held against the keys. Called by `Connection`.

use mirror_base::{Discard, Instant};

use super::Connection;
use super::receive::Receiver;
use super::send::Sender;
use crate::crypto::{
    Agreement, Cipher, KeyMaterial, KmState, Message, ReceiveKeys, Refresh, Secret, SendKeys,
    Suite, Terms,
};
use crate::packet::{Control, Header, Writer};
use crate::statistics::Statistics;

/// Subtype of control type 0x7FFF: KMREQ (spec section 1.2).
const KMREQ: u32 = 3;
/// Subtype of control type 0x7FFF: KMRSP.
const KMRSP: u32 = 4;

/// KM messages that may still be repeated.
const REMEMBERED: usize = 4;

/// How well a datagram proves that it is the peer's, wherever it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Not at all.
    None,
    /// A payload of AES-CTR that decrypts to MPEG-TS packets: no one without the key could have
    /// made it, but it may be a copy of an old one.
    Decrypts,
    /// A payload of AES-GCM with the right tag: sealed by the peer with all of its header, but
    /// perhaps a copy of an old one.
    Authentic,
}

/// What a KMREQ is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Echo(Message),
    Status(KmState),
}

/// What it takes to understand the peer's KMREQs.
#[derive(Debug)]
struct Exchange {
    suite: Suite,
    kek: Secret,
    require: bool,
    /// The KM messages whose keys were installed, the last one first. A repetition is answered
    /// without unwrapping, and changes nothing: one that was held up on its way would bring back
    /// a key that another has replaced.
    installed: [Option<Message>; REMEMBERED],
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Keys {
    exchange: Option<Box<Exchange>>,
    /// State of the receiving direction, and of the sending one while there are no keys.
    state: KmState,
    /// Without keys: a KMREQ is answered by the state.
    tells_state: bool,
    reply: Option<Reply>,
    /// When our next key is to be announced (again).
    pub(super) due: Instant,
    /// Times that the peer changed its keys.
    refreshes: u64,
}

impl Keys {
    pub(super) const fn none() -> Self {
        Keys {
            exchange: None,
            state: KmState::Unsecured,
            tells_state: false,
            reply: None,
            due: Instant::FAR_FUTURE,
            refreshes: 0,
        }
    }

    /// Whether a KMREQ or KMRSP waits to be written.
    #[inline]
    pub(super) fn has_to_transmit(&self, now: Instant) -> bool {
        self.reply.is_some() || now >= self.due
    }

    /// Whether an answer waits to be written at once.
    #[inline]
    pub(super) const fn has_reply(&self) -> bool {
        self.reply.is_some()
    }

    /// The handshake agreed: gives each direction its keys.
    pub(super) fn begin(
        terms: Terms,
        refresh: Refresh,
        destination: u32,
        receiver: &mut Receiver,
        sender: &mut Sender,
        mss: u32,
    ) -> Self {
        let mut keys = Keys::none();
        match terms {
            Terms::Clear => {}
            Terms::Unsecured(state) => {
                keys.state = state;
                keys.tells_state = true;
            }
            Terms::Keys(agreement) => {
                keys.state = agreement.state;
                keys.exchange = Some(Box::new(Exchange::new(&agreement)));
                if agreement.state == KmState::Secured {
                    let mut ring = ReceiveKeys::new(agreement.suite);
                    ring.install(&agreement.keys);
                    receiver.secure(ring);
                }
                if let Some(ring) = SendKeys::new(*agreement, refresh, destination) {
                    sender.secure(ring, mss);
                }
            }
        }
        keys
    }

    /// A KMREQ of the peer: new keys for what it sends (spec section 16.6).
    fn request(&mut self, content: &[u8], receiver: &mut Receiver) -> Result<(), Discard> {
        let Some(exchange) = &mut self.exchange else {
            // Sides that do not insist tell why nothing can be agreed.
            if self.tells_state {
                self.reply = Some(Reply::Status(self.state));
            }
            return Err(Discard::Undecryptable);
        };
        let Some(message) = Message::copy(content) else {
            return Err(Discard::MalformedControl);
        };
        if exchange.installed.contains(&Some(message)) {
            self.reply = Some(Reply::Echo(message));
            return Ok(());
        }
        let material = KeyMaterial::parse(content).ok_or(Discard::MalformedControl)?;
        // The KEK is the salt's: another salt would need PBKDF2. Nor does anything else change
        // once it is agreed.
        let suite = exchange.suite;
        let same = material.salt == suite.salt
            && material.length == suite.length
            && material.cipher == suite.cipher;
        let Some(keys) = same.then(|| material.unwrap(&exchange.kek)).flatten() else {
            if !exchange.require {
                self.reply = Some(Reply::Status(KmState::BadSecret));
            }
            return Err(Discard::Undecryptable);
        };
        match receiver.keys_mut() {
            Some(ring) => {
                ring.install(&keys);
                self.refreshes += 1;
            }
            None => {
                let mut ring = ReceiveKeys::new(suite);
                ring.install(&keys);
                receiver.secure(ring);
            }
        }
        exchange.installed.rotate_right(1);
        if let Some(first) = exchange.installed.first_mut() {
            *first = Some(message);
        }
        self.state = KmState::Secured;
        self.reply = Some(Reply::Echo(message));
        Ok(())
    }
}

impl Exchange {
    fn new(agreement: &Agreement) -> Self {
        Exchange {
            suite: agreement.suite,
            kek: agreement.kek.clone(),
            require: agreement.require,
            installed: [
                (agreement.state == KmState::Secured).then_some(agreement.message),
                None,
                None,
                None,
            ],
        }
    }
}

impl Connection {
    /// Control type 0x7FFF. HSREQ and HSRSP belong to HSv4; other subtypes are ignored (spec
    /// section 1.2).
    pub(super) fn handle_extension(&mut self, header: &Header, cif: &[u8]) -> Result<(), Discard> {
        match header.word0 & 0xFFFF {
            KMREQ => self.keys.request(cif, &mut self.receiver),
            KMRSP => {
                let known = self.sender.keys_mut().is_some_and(|keys| keys.confirm(cif));
                self.keys.due = self.announcement_due();
                if known {
                    Ok(())
                } else {
                    Err(Discard::MalformedControl)
                }
            }
            _ => Ok(()),
        }
    }

    fn announcement_due(&mut self) -> Instant {
        self.sender
            .keys_mut()
            .map_or(Instant::FAR_FUTURE, |keys| keys.due())
    }

    /// After a packet was encrypted: the next key may have to be announced or used.
    #[inline]
    pub(super) fn step_keys(&mut self, now: Instant) {
        // The next key takes the place of the last but one. With AES-CTR what was encrypted under
        // that and comes again would decrypt to nonsense, so nothing of it may still be held.
        if !self.sender.keys().is_some_and(SendKeys::step_due) || self.sender.holds_former_key() {
            return;
        }
        if let Some(keys) = self.sender.keys_mut() {
            keys.step(now);
            self.keys.due = keys.due();
        }
    }

    /// Writes a KMRSP or a KMREQ that is due.
    pub(super) fn transmit_keys(
        &mut self,
        now: Instant,
        clock: u32,
        out: &mut [u8],
    ) -> Option<usize> {
        if let Some(reply) = self.keys.reply.take() {
            let header = self.extension(KMRSP, clock);
            return Some(match reply {
                Reply::Echo(message) => with_content(header, message.as_bytes(), out),
                Reply::Status(state) => with_content(header, &state.to_wire(), out),
            });
        }
        if now < self.keys.due {
            return None;
        }
        let header = self.extension(KMREQ, clock);
        let rtt = core::time::Duration::from_micros(self.rtt.smoothed_us.into());
        let keys = self.sender.keys_mut()?;
        let len = keys
            .announcement
            .as_ref()
            .map(|next| with_content(header, next.message.as_bytes(), out));
        keys.note_announced(now, rtt);
        self.keys.due = keys.due();
        len
    }

    fn extension(&self, subtype: u32, clock: u32) -> Header {
        let mut header = self.header(Control::Extension, 0, clock);
        header.word0 |= subtype;
        header
    }

    /// How well a datagram proves to be the peer's although it came from elsewhere: a data
    /// packet that nobody without the session's keys could have made. It may be a repetition of
    /// an old one: its sequence number must be looked at as well. Changes nothing.
    pub fn proves_peer(&self, datagram: &[u8]) -> Proof {
        let Some((header, payload)) = Header::parse(datagram) else {
            return Proof::None;
        };
        if header.is_control() || header.destination != self.socket_id {
            return Proof::None;
        }
        let Some(keys) = self.receiver.keys() else {
            return Proof::None;
        };
        let mut room = [0; 1536];
        match (keys.suite().cipher, keys.peek(&header, payload, &mut room)) {
            (_, None) => Proof::None,
            (Cipher::Gcm, Some(_)) => Proof::Authentic,
            (Cipher::Ctr, Some(plain)) if is_transport_stream(plain) => Proof::Decrypts,
            (Cipher::Ctr, Some(_)) => Proof::None,
        }
    }

    /// `none`, or cipher and key length: `aes-ctr-128` to `aes-gcm-256`. What the peer cannot
    /// read, and sends in the clear, is not called encrypted.
    pub fn encryption(&self) -> &'static str {
        match &self.keys.exchange {
            Some(exchange) if self.keys.state == KmState::Secured => exchange.suite.name(),
            _ => "none",
        }
    }

    pub(super) fn fill_key_figures(&self, stats: &mut Statistics) {
        stats.rcv_km_state = self.keys.state;
        stats.snd_km_state = self.keys.state;
        stats.km_refreshes = self.keys.refreshes;
        if let Some(keys) = self.sender.keys() {
            stats.snd_km_state = keys.state();
            stats.km_refreshes += keys.refreshes;
        }
    }
}

fn with_content(header: Header, content: &[u8], out: &mut [u8]) -> usize {
    let mut writer = Writer::packet(out, header);
    writer.bytes(content);
    writer.finish()
}

/// Bytes from one sync byte of MPEG-TS to the next: bare packets, with a time stamp before each, or
/// with Reed-Solomon bytes behind each.
const GRIDS: [usize; 3] = [188, 192, 204];
/// Sync bytes in a row that make a grid wherever it begins: noise has them, on all grids and at all
/// offsets together, once in 10^9 payloads.
const SYNCS: usize = 5;

/// Whole MPEG-TS packets, each with its sync byte, or a cut of a transport stream with several.
fn is_transport_stream(payload: &[u8]) -> bool {
    let is_sync = |byte: &u8| *byte == 0x47;
    let whole = payload.len() >= 188
        && payload.len().is_multiple_of(188)
        && payload.iter().step_by(188).all(is_sync);
    let cut = |grid: usize, from: usize| {
        let syncs = || payload.iter().skip(from).step_by(grid);
        syncs().all(is_sync) && syncs().len() >= SYNCS
    };
    whole
        || GRIDS
            .iter()
            .any(|&grid| (0..grid).any(|from| cut(grid, from)))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::is_transport_stream;
    use crate::test_support::Random;

    /// `len` bytes of a transport stream, from `from` on.
    fn cut(random: &mut Random, grid: usize, from: usize, len: usize) -> Vec<u8> {
        let mut stream = random.bytes(from + len);
        stream.iter_mut().step_by(grid).for_each(|b| *b = 0x47);
        stream.split_off(from)
    }

    #[test]
    fn cuts_of_a_transport_stream_are_told_from_noise() {
        let mut random = Random(3);
        for packets in 1..=7 {
            assert!(is_transport_stream(&cut(
                &mut random,
                188,
                0,
                packets * 188
            )));
        }
        for grid in [188, 192, 204] {
            for from in 0..grid {
                assert!(is_transport_stream(&cut(&mut random, grid, from, 1316)));
                assert!(!is_transport_stream(&cut(&mut random, grid, from, 700)));
            }
        }
        for len in 0..1456 {
            let noise = random.bytes(len);
            // One sync byte is all that a single packet has.
            assert!(len == 188 || !is_transport_stream(&noise), "{len}");
        }
        let mut broken = cut(&mut random, 188, 20, 1400);
        broken[168 + 188] ^= 1;
        assert!(!is_transport_stream(&broken));
    }
}
