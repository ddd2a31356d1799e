//! The sending half of a connection: buffer, pacing, retransmission, too-late drop (spec
//! sections 10.3, 11.4, 11.5, 13 and 15). Called by `Connection` for `send`, for the ACKs and
//! NAKs of the peer, and when something may be transmitted.
//!
//! Packets are named by index from 0, which is the initial sequence number. The buffer is made
//! at the first `send`, and its slots are used last in, first out, so that a sender with few
//! packets in flight stays in the cache.

mod pacing;

use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::{Discard, Instant, PacketSequenceNumber};

use super::loss::LossList;
use super::rtt::Rtt;
use crate::config::{Config, HEADERS_LEN, MAX_WINDOW};
use crate::crypto::SendKeys;
use crate::packet::ack::AckCif;
use crate::packet::loss::LossRanges;
use crate::packet::{
    CONTROL_BIT, Control, HEADER_LEN, Header, KK_MASK, MESSAGE_MASK, POSITION_SOLO, RETRANSMITTED,
    Writer,
};
use crate::statistics::Statistics;
use pacing::Pacer;

/// Spec section 13: max(peer latency, 1 s) + 20 ms.
const DROP_FLOOR: Duration = Duration::from_secs(1);
const DROP_MARGIN: Duration = Duration::from_millis(20);
/// An ACK comes a round trip and 10 to 30 ms after its packet (spec section 10.2). When the oldest
/// packet has not been acknowledged for so long beyond SRTT + 4·RTTVar, it was lost, and so was
/// its NAK or its retransmission; or it was the last one, which nothing behind it can show to be
/// missing.
const OVERDUE: Duration = Duration::from_millis(40);
/// Drop requests waiting to be written; a peer that asks for more asks again.
const MAX_DROP_REQUESTS: usize = 32;

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    slot: u32,
    len: u16,
    /// Message number, and the key it was encrypted with, as they stand in word 1.
    message: u32,
    timestamp: u32,
    submitted: Instant,
    sent: Instant,
}

/// Datagrams of one size in one run of bytes, for one `UDP_SEGMENT` send: each but the last has
/// `segment_size` bytes, the last as many or fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Bytes in all.
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment_size: usize,
}

impl Batch {
    /// Number of datagrams.
    pub const fn segments(&self) -> usize {
        self.len.div_ceil(if self.segment_size == 0 {
            1
        } else {
            self.segment_size
        })
    }
}

/// What a packet needs to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Departure {
    pub(crate) now: Instant,
    /// The timestamp of a drop request: data has its own.
    pub(crate) clock: u32,
    /// The peer's socket ID.
    pub(crate) destination: u32,
}

/// A data packet whose time has come.
#[derive(Clone, Copy, Debug)]
struct Due {
    index: u64,
    retransmission: bool,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Sender {
    initial: PacketSequenceNumber,
    capacity: usize,
    payload_size: usize,
    /// Bytes of a slot of `memory`: a payload, and what encryption adds.
    stride: usize,
    keys: Option<Box<SendKeys>>,
    memory: Vec<u8>,
    free: Vec<u32>,
    held: Vec<Held>,

    /// Oldest packet in the buffer.
    first: u64,
    /// Next packet to be put on the wire for the first time.
    sent: u64,
    /// Next packet to be submitted.
    next: u64,
    /// The peer has acknowledged everything before it.
    acked: u64,
    message: u32,
    /// Packets the peer has room for behind `acked`.
    window: u32,
    /// When it was last heard that there is none.
    closed_at: Instant,
    loss: LossList,
    drop_requests: VecDeque<(u64, u64)>,

    pacer: Pacer,
    /// The packet sent last was the first of a probe pair.
    probing: bool,

    /// Payload bytes in the buffer, and since when there have been any.
    held_bytes: u64,
    busy_since: Instant,
    busy: Duration,
    repeat_overdue: bool,
    /// When packets were last sent again unasked.
    unasked_at: Instant,
    /// SNDDROPDELAY; `None`: nothing is ever dropped.
    drop_delay: Option<Duration>,
    /// Too-late drop: both sides agreed.
    drop_after: Option<Duration>,
    /// The peer repeats its NAKs: retransmission algorithm 1 may skip, no blind repeats.
    peer_repeats_naks: bool,
    last_progress: Instant,
    blind_repeats: u32,
    peer_rate: (u32, u32),
}

/// What the handshake agreed for our sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendTerms {
    pub(crate) mss: u32,
    pub(crate) peer_window: u32,
    pub(crate) peer_latency: Duration,
    pub(crate) drop_too_late: bool,
    pub(crate) peer_repeats_naks: bool,
}

impl Sender {
    pub(crate) fn new(initial: PacketSequenceNumber, config: &Config) -> Self {
        let payload_size = u64::from(config.payload_size).min(1456);
        Sender {
            initial,
            capacity: config
                .send_buffer_packets
                .clamp(32, MAX_WINDOW)
                .next_power_of_two() as usize,
            payload_size: payload_size as usize,
            stride: payload_size as usize,
            keys: None,
            memory: Vec::new(),
            free: Vec::new(),
            held: Vec::new(),
            first: 0,
            sent: 0,
            next: 0,
            acked: 0,
            message: 1,
            window: 0,
            closed_at: Instant::ZERO,
            loss: LossList::new(),
            drop_requests: VecDeque::new(),
            pacer: Pacer::new(config, payload_size),
            probing: false,
            held_bytes: 0,
            busy_since: Instant::ZERO,
            busy: Duration::ZERO,
            repeat_overdue: config.repeat_overdue,
            unasked_at: Instant::ZERO,
            drop_delay: config.send_drop_delay,
            drop_after: None,
            peer_repeats_naks: true,
            last_progress: Instant::ZERO,
            blind_repeats: 0,
            peer_rate: (0, 0),
        }
    }

    /// The handshake is done.
    pub(crate) fn agree(&mut self, now: Instant, terms: &SendTerms) {
        let largest = (terms.mss.min(1500) as usize).saturating_sub(HEADERS_LEN as usize);
        self.payload_size = self.payload_size.min(largest);
        self.stride = self.payload_size;
        self.window = terms.peer_window.min(MAX_WINDOW);
        self.drop_after = self
            .drop_delay
            .filter(|_| terms.drop_too_late)
            .map(|delay| (terms.peer_latency + delay).max(DROP_FLOOR) + DROP_MARGIN);
        self.peer_repeats_naks = terms.peer_repeats_naks;
        self.last_progress = now;
    }

    /// Whether the peer repeats its NAKs, whatever was agreed.
    #[cfg(test)]
    pub(crate) const fn repeats_naks(&mut self, repeats: bool) {
        self.peer_repeats_naks = repeats;
    }

    /// The next message has this number.
    #[cfg(test)]
    pub(crate) const fn skip_messages(&mut self, message: u32) {
        self.message = message;
    }

    /// What is submitted from here on is encrypted; nothing was before. AES-GCM makes the
    /// largest payload shorter (spec section 16.4).
    pub(crate) fn secure(&mut self, keys: SendKeys, mss: u32) {
        let overhead = keys.suite().overhead();
        let largest = (mss.min(1500) as usize).saturating_sub(HEADERS_LEN as usize + overhead);
        self.payload_size = self.payload_size.min(largest);
        self.stride = self.payload_size + overhead;
        self.keys = Some(Box::new(keys));
    }

    pub(crate) fn keys(&self) -> Option<&SendKeys> {
        self.keys.as_deref()
    }

    pub(crate) fn keys_mut(&mut self) -> Option<&mut SendKeys> {
        self.keys.as_deref_mut()
    }

    /// Whether a packet is held that was encrypted under the key before the present one, while no
    /// next one is announced.
    pub(crate) fn holds_former_key(&self) -> bool {
        let Some(keys) = self.keys.as_deref().filter(|k| k.announcement.is_none()) else {
            return false;
        };
        let oldest = self.held.get(self.first as usize & (self.capacity - 1));
        self.first < self.next && oldest.is_some_and(|held| held.message & KK_MASK != keys.kk())
    }

    /// Largest payload that `push` takes.
    pub(crate) const fn payload_size(&self) -> usize {
        self.payload_size
    }

    fn allocate(&mut self) {
        self.memory = vec![0; self.capacity * self.stride];
        self.held = vec![Held::default(); self.capacity];
        self.free = (0..self.capacity as u32).rev().collect();
    }

    /// Takes one payload of at most `payload_size` bytes; `false` when the buffer is full.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        timestamp: u32,
        payload: &[u8],
        stats: &mut Statistics,
    ) -> bool {
        if self.held.is_empty() {
            self.allocate();
        }
        if self.free.is_empty() {
            self.drop_too_late(now, stats);
        }
        let Some(slot) = self.free.pop() else {
            return false;
        };
        let at = slot as usize * self.stride;
        let place = self.next as usize & (self.capacity - 1);
        let sequence = self.seq_of(self.next).get();
        let (Some(room), Some(held)) = (
            self.memory.get_mut(at..at + self.stride),
            self.held.get_mut(place),
        ) else {
            return false;
        };
        let Some(to) = room.get_mut(..payload.len()) else {
            return false;
        };
        to.copy_from_slice(payload);
        let sealed = match &mut self.keys {
            None => Some((payload.len(), 0)),
            Some(keys) => {
                let word1 = POSITION_SOLO | self.message;
                keys.seal(sequence, word1, timestamp, room, payload.len())
            }
        };
        let Some((len, kk)) = sealed else {
            self.free.push(slot);
            return false;
        };
        *held = Held {
            slot,
            len: len as u16,
            message: self.message | kk,
            timestamp,
            submitted: now,
            sent: now,
        };
        self.message = if self.message == MESSAGE_MASK {
            1
        } else {
            self.message + 1
        };
        if self.first == self.next {
            self.last_progress = now;
            self.busy_since = now;
        }
        self.next += 1;
        self.held_bytes += len as u64;
        self.pacer.submitted(now, payload.len());
        true
    }

    fn seq_of(&self, index: u64) -> PacketSequenceNumber {
        // 2^32 is a multiple of 2^31: the truncated index is enough.
        self.initial.plus(index as u32)
    }

    /// The index of `seq` near the packet to be sent next; `None` before the first one.
    fn index_of(&self, seq: PacketSequenceNumber) -> Option<u64> {
        self.sent
            .checked_add_signed(i64::from(self.seq_of(self.sent).distance_to(seq)))
    }

    fn entry(&mut self, index: u64) -> Option<&mut Held> {
        self.held.get_mut(index as usize & (self.capacity - 1))
    }

    /// Lets everything below `index` go; returns the payload bytes that were in it.
    fn free_before(&mut self, now: Instant, index: u64) -> u64 {
        let mut bytes = 0;
        let had_some = self.first < self.next;
        while self.first < index {
            if let Some(held) = self.held.get(self.first as usize & (self.capacity - 1)) {
                self.free.push(held.slot);
                bytes += u64::from(held.len);
            }
            self.first += 1;
        }
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        if had_some && self.first == self.next {
            self.busy += now.saturating_since(self.busy_since);
        }
        bytes
    }

    /// An ACK (spec section 10.3).
    pub(crate) fn ack(
        &mut self,
        now: Instant,
        ack: &AckCif,
        only_sending: bool,
        rtt: &mut Rtt,
    ) -> Result<(), Discard> {
        let index = self.index_of(ack.sequence).ok_or(Discard::Implausible)?;
        if index > self.sent {
            return Err(Discard::Implausible);
        }
        if index < self.acked {
            // From the past.
            return Ok(());
        }
        let advance = u32::try_from(index - self.acked).unwrap_or(u32::MAX);
        self.acked = index;
        self.free_before(now, index);
        self.loss.remove_before(index);
        self.pacer.acknowledged();
        if advance > 0 {
            self.last_progress = now;
            self.blind_repeats = 0;
        }
        let window = match (ack.light, ack.available) {
            (true, _) => self.window.saturating_sub(advance),
            (false, available) => available.map_or(self.window, |n| n.min(MAX_WINDOW)),
        };
        if window == 0 && (self.window > 0 || advance > 0) {
            self.closed_at = now;
        }
        self.window = window;
        if ack.light {
            return Ok(());
        }
        if let Some((smoothed, variance)) = ack.rtt_us {
            rtt.learn(now, smoothed, variance, only_sending);
        }
        if let Some((rate, capacity)) = ack.rates_pps {
            self.peer_rate = (
                smooth(self.peer_rate.0, rate),
                smooth(self.peer_rate.1, capacity),
            );
        }
        Ok(())
    }

    /// A NAK (spec section 11.4). A malformed or implausible list changes nothing.
    pub(crate) fn nak(&mut self, cif: &[u8], stats: &mut Statistics) -> Result<(), Discard> {
        if cif.is_empty() || LossRanges::new(cif).any(|range| range.is_err()) {
            return Err(Discard::MalformedControl);
        }
        let beyond = |range: (PacketSequenceNumber, PacketSequenceNumber)| {
            self.index_of(range.1).is_none_or(|last| last >= self.sent)
        };
        if LossRanges::new(cif).flatten().any(beyond) {
            return Err(Discard::Implausible);
        }
        for (first, last) in LossRanges::new(cif).flatten() {
            let Some(last) = self.index_of(last) else {
                continue;
            };
            let first = self.index_of(first).unwrap_or(0);
            if first < self.first {
                self.request_drop(first, last.min(self.first - 1));
            }
            stats.pkt_snd_loss += self.loss.insert(first.max(self.first), last);
        }
        Ok(())
    }

    fn request_drop(&mut self, first: u64, last: u64) {
        let request = (first, last);
        if self.drop_requests.len() < MAX_DROP_REQUESTS && !self.drop_requests.contains(&request) {
            self.drop_requests.push_back(request);
        }
    }

    /// Congestion warning (spec section 1.2).
    pub(crate) fn slow_down(&mut self) {
        self.pacer.slow_down();
    }

    /// Spec section 13, sender.
    fn drop_too_late(&mut self, now: Instant, stats: &mut Statistics) {
        let Some(after) = self.drop_after else { return };
        let mut index = self.first;
        while index < self.next
            && self
                .entry(index)
                .is_some_and(|held| held.submitted + after <= now)
        {
            index += 1;
        }
        if index > self.first {
            let packets = index - self.first;
            stats.pkt_snd_drop += packets;
            stats.byte_snd_drop += self.free_before(now, index) + packets * HEADERS_LEN;
            self.loss.remove_before(index);
            self.sent = self.sent.max(index);
        }
    }

    /// Timers: too-late drop, and blind retransmission towards peers without periodic NAKs.
    #[inline]
    pub(crate) fn handle_timeout(&mut self, now: Instant, rtt: &Rtt, stats: &mut Statistics) {
        if self.first != self.next {
            self.handle_held(now, rtt, stats);
        }
    }

    fn handle_held(&mut self, now: Instant, rtt: &Rtt, stats: &mut Statistics) {
        self.drop_too_late(now, stats);
        if now >= self.blind_repeat_due(rtt) && self.first < self.sent {
            stats.pkt_snd_loss += self.loss.insert(self.first, self.sent - 1);
            self.blind_repeats += 1;
            self.last_progress = now;
        }
        if now >= self.window_asked(rtt) {
            // One packet asks whether the window is open by now.
            self.window = 1;
        }
        if now >= self.overdue(rtt) {
            // The oldest one, which may be all that is missing, and the newest one, which shows the
            // peer what is: what it did not hear of it will ask for.
            self.unasked_at = now;
            stats.pkt_snd_loss += self.loss.insert(self.first, self.first);
            stats.pkt_snd_loss += self.loss.insert(self.sent - 1, self.sent - 1);
        }
    }

    /// When packets are sent again unasked; two at the most each time, so that this neither
    /// floods a path that is down nor a peer whose window is closed. libsrt waits for the NAK.
    fn overdue(&self, rtt: &Rtt) -> Instant {
        let waits = self.repeat_overdue && self.peer_repeats_naks && self.first < self.sent;
        if !waits || !self.loss.is_empty() {
            return Instant::FAR_FUTURE;
        }
        let oldest = self.held.get(self.first as usize & (self.capacity - 1));
        oldest.map_or(Instant::FAR_FUTURE, |held| {
            held.sent.max(self.unasked_at) + rtt.timeout() + OVERDUE
        })
    }

    /// When a closed window is asked after. The peer says once that it is open again, and nothing
    /// more while it receives nothing: were that lost, both would wait for ever.
    fn window_asked(&self, rtt: &Rtt) -> Instant {
        if self.window > 0 || self.sent >= self.next || self.in_flight() > 0 {
            return Instant::FAR_FUTURE;
        }
        self.closed_at + rtt.timeout() + OVERDUE
    }

    /// Spec section 11.5, fast retransmit: RTO = count·(SRTT + 4·RTTVar + 20 ms) + 10 ms.
    fn blind_repeat_due(&self, rtt: &Rtt) -> Instant {
        if self.peer_repeats_naks || self.first >= self.sent {
            return Instant::FAR_FUTURE;
        }
        let one = rtt.timeout() + Duration::from_millis(20);
        self.last_progress + one * (self.blind_repeats.min(16) + 1) + Duration::from_millis(10)
    }

    /// When `handle_timeout` or a paced transmission is due.
    #[inline]
    pub(crate) fn deadline(&self, rtt: &Rtt) -> Instant {
        if self.first == self.next && self.drop_requests.is_empty() {
            Instant::FAR_FUTURE
        } else {
            self.deadline_of_held(rtt)
        }
    }

    #[inline(never)]
    fn deadline_of_held(&self, rtt: &Rtt) -> Instant {
        let oldest = self.held.get(self.first as usize & (self.capacity - 1));
        let drop = match (self.drop_after, oldest) {
            (Some(after), Some(held)) if self.first < self.next => held.submitted + after,
            _ => Instant::FAR_FUTURE,
        };
        let paced = if self.can_send() {
            self.pacer.next_send()
        } else {
            Instant::FAR_FUTURE
        };
        drop.min(paced)
            .min(self.blind_repeat_due(rtt))
            .min(self.overdue(rtt))
            .min(self.window_asked(rtt))
    }

    fn in_flight(&self) -> u64 {
        self.sent - self.acked.max(self.first)
    }

    fn has_new(&self) -> bool {
        self.sent < self.next && self.in_flight() < u64::from(self.window)
    }

    #[inline]
    pub(crate) fn can_send(&self) -> bool {
        !self.loss.is_empty() || self.has_new() || !self.drop_requests.is_empty()
    }

    /// Whether everything submitted was acknowledged or dropped.
    pub(crate) const fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// Writes one due packet.
    pub(crate) fn poll_transmit(
        &mut self,
        departure: &Departure,
        rtt: &Rtt,
        stats: &mut Statistics,
        out: &mut [u8],
    ) -> Option<usize> {
        if let Some((first, last)) = self.drop_requests.pop_front() {
            return Some(self.write_drop_request(first, last, departure, out));
        }
        let due = self.due(departure.now, rtt)?;
        Some(self.emit(due, departure, stats, out))
    }

    /// Writes due packets one behind the other while they have the size of the first one; a
    /// shorter one ends the run. At most `max_segments`, and what `out` holds.
    pub(crate) fn poll_batch(
        &mut self,
        departure: &Departure,
        rtt: &Rtt,
        stats: &mut Statistics,
        out: &mut [u8],
        max_segments: usize,
    ) -> Option<Batch> {
        let single = !self.drop_requests.is_empty();
        let segment_size = self.poll_transmit(departure, rtt, stats, out)?;
        let mut len = segment_size;
        let mut segments = 1;
        while !single && segments < max_segments {
            let Some(due) = self.due(departure.now, rtt) else {
                break;
            };
            let next = self.wire_len(due.index);
            let Some(room) = out.get_mut(len..) else {
                break;
            };
            if next > segment_size || next > room.len() {
                break;
            }
            len += self.emit(due, departure, stats, room);
            segments += 1;
            if next < segment_size {
                break;
            }
        }
        Some(Batch { len, segment_size })
    }

    /// The data packet that is to leave next, if its time has come.
    fn due(&mut self, now: Instant, rtt: &Rtt) -> Option<Due> {
        // Without a packet to follow, a probe pair holds up nothing that is lost.
        self.probing &= self.has_new();
        if !self.probing {
            if !self.pacer.may_send(now) {
                return None;
            }
            if let Some(index) = self.next_lost(now, rtt) {
                return Some(Due {
                    index,
                    retransmission: true,
                });
            }
        }
        if !self.has_new() {
            return None;
        }
        Some(Due {
            index: self.sent,
            retransmission: false,
        })
    }

    /// The first packet to retransmit (spec section 11.5, algorithm 1). Those that are not take
    /// leave of the list.
    fn next_lost(&mut self, now: Instant, rtt: &Rtt) -> Option<u64> {
        while let Some(index) = self.loss.first() {
            let guard = if self.peer_repeats_naks {
                rtt.resend_guard()
            } else {
                Duration::ZERO
            };
            let recently = self
                .entry(index)
                .is_some_and(|held| now < held.sent + guard);
            if index >= self.first && !recently {
                return Some(index);
            }
            self.loss.remove_before(index + 1);
        }
        None
    }

    /// Bytes of the datagram that carries `index`.
    fn wire_len(&self, index: u64) -> usize {
        let held = self.held.get(index as usize & (self.capacity - 1));
        HEADER_LEN + held.map_or(0, |held| usize::from(held.len))
    }

    /// Writes what `due` found.
    fn emit(
        &mut self,
        due: Due,
        departure: &Departure,
        stats: &mut Statistics,
        out: &mut [u8],
    ) -> usize {
        let index = due.index;
        if due.retransmission {
            self.loss.remove_before(index + 1);
            let len = self.write(index, RETRANSMITTED, departure, out);
            stats.pkt_retrans += 1;
            stats.byte_retrans += (len - HEADER_LEN) as u64 + HEADERS_LEN;
            return len;
        }
        self.sent = index + 1;
        // Spec section 15: the packet behind number ≡ 0 (mod 16) follows at once.
        self.probing = self.seq_of(index).get() & 15 == 0;
        let len = self.write(index, 0, departure, out);
        stats.pkt_sent_unique += 1;
        stats.byte_sent_unique += (len - HEADER_LEN) as u64 + HEADERS_LEN;
        len
    }

    fn write(&mut self, index: u64, flags: u32, departure: &Departure, out: &mut [u8]) -> usize {
        let word0 = self.seq_of(index).get();
        let size = self.stride;
        let Some(held) = self.entry(index) else {
            return HEADER_LEN;
        };
        held.sent = departure.now;
        let (at, len) = (held.slot as usize * size, usize::from(held.len));
        let header = Header {
            word0,
            word1: POSITION_SOLO | flags | held.message,
            timestamp: held.timestamp,
            destination: departure.destination,
        };
        let mut writer = Writer::packet(out, header);
        if let Some(payload) = self.memory.get(at..at + len) {
            writer.bytes(payload);
        }
        self.pacer.sent(departure.now, len as u64);
        writer.finish()
    }

    fn write_drop_request(
        &self,
        first: u64,
        last: u64,
        departure: &Departure,
        out: &mut [u8],
    ) -> usize {
        let header = Header {
            word0: Control::DropRequest.word0(),
            word1: 0,
            timestamp: departure.clock,
            destination: departure.destination,
        };
        let mut writer = Writer::packet(out, header);
        writer.u32(self.seq_of(first).get() & !CONTROL_BIT);
        writer.u32(self.seq_of(last).get() & !CONTROL_BIT);
        writer.finish()
    }

    /// Figures of the moment.
    pub(crate) fn fill(&self, now: Instant, stats: &mut Statistics) {
        let count = |packets: u64| u32::try_from(packets).unwrap_or(u32::MAX);
        stats.pkt_flight_size = count(self.in_flight());
        stats.pkt_flow_window = self.window;
        stats.pkt_snd_buf = count(self.next - self.first);
        stats.byte_snd_buf = self.held_bytes;
        stats.pkt_snd_available =
            count((self.capacity as u64).saturating_sub(self.next - self.first));
        stats.snd_period_ns = u64::try_from(self.pacer.interval().as_nanos()).unwrap_or(u64::MAX);
        stats.max_bandwidth = self.pacer.bandwidth();
        stats.snd_input_rate = self.pacer.input_rate();
        let mut busy = self.busy;
        if self.first < self.next {
            busy += now.saturating_since(self.busy_since);
            let at = |index: u64| self.held.get(index as usize & (self.capacity - 1));
            if let (Some(oldest), Some(newest)) = (at(self.first), at(self.next - 1)) {
                stats.snd_buf_us = newest.submitted.micros_since(oldest.submitted);
            }
        }
        stats.snd_duration_us = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        if self.peer_rate.1 > 0 && stats.pkt_recv_unique == 0 {
            stats.link_capacity_pps = self.peer_rate.1;
        }
    }
}

fn smooth(old: u32, new: u32) -> u32 {
    if old == 0 {
        new
    } else {
        ((u64::from(old) * 7 + u64::from(new)) / 8) as u32
    }
}
