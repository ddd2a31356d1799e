//! One direction of a conversation, and its follower.

use core::time::Duration;

use mirror_base::ring::{CHUNK_SLOTS, Chunk};
use mirror_base::seq::Unwrapper;
use mirror_base::{Instant, SlotRing};
use mirror_media::{Format, Packet, Pipeline};
use mirror_srt::observe::{
    AckForm, Greeting, Observed, ObservedAck, ObservedKind, ObservedNak, StandIn,
};
use mirror_srt::{
    Config, Connection, HandshakeAction, Handshaker, ListenerPolicy, Passphrase, Security,
};

use crate::Options;
use crate::capture::link::Datagram;
use crate::digest::Hash;
use crate::gaps::{Gaps, Place};
use crate::report::listed::Room;
use crate::report::{
    AckFacts, Carrier, DirectionFacts, Listed, NakFacts, Report, Spoken, WireFacts,
};
use crate::tracks::{Gatherer, UnitDetail};

/// Packets that a follower may hold: those of the longest latency and the fastest stream met.
const MAX_CHUNKS: usize = 512;
/// The ring grows before it has less room.
const LOW_SLOTS: usize = 4 * CHUNK_SLOTS;
/// Nothing that a sender does or leaves out ends a follower.
const PATIENCE: Duration = Duration::from_secs(100 * 24 * 3600);
/// HSv5 does not exist below (spec section 4.1).
const LEAST_VERSION: u32 = 0x0001_0300;
/// TSBPD both ways, encryption, too-late drop, periodic NAK, retransmission flag.
const FLAGS: u32 = 0x3F;
const DEFAULT_LATENCY_MS: u16 = 120;
const AFTERMATH: Duration = Duration::from_secs(30);
/// Timers that are run at once, at most.
const MAX_TIMERS: usize = 1 << 20;
/// Where word 1 of a data packet has its key flags.
const KEY_FLAGS_AT: usize = 4;
const KEY_FLAGS: u8 = 0b11 << 3;

/// What a sender has said of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sender {
    /// Its first sequence number.
    pub(super) initial: Option<u32>,
    /// Its clock, and when that was.
    pub(super) clock: Option<(u32, Instant)>,
    /// Its receiver's latency.
    pub(super) latency_ms: Option<u16>,
    /// The older one of both ends' versions.
    pub(super) version: Option<u32>,
}

struct Follower {
    connection: Connection,
    ring: SlotRing,
    due: Instant,
    now: Instant,
    latency: Duration,
    pipeline: Pipeline,
    gatherer: Gatherer,
    hash: Hash,
    /// Whether it has the keys; else encrypted payloads are taken as they are.
    has_keys: bool,
    /// Whether the passphrase opened the key, where there are both.
    opened: Option<bool>,
}

/// See the module's page.
#[derive(Default)]
pub(super) struct Direction {
    follower: Option<Box<Follower>>,
    wire: Wire,
    acks: u64,
    naks: u64,
    first_ack: Option<AckFacts>,
    last_ack: Option<AckFacts>,
    ack_list: Option<Listed<AckFacts>>,
    nak_list: Option<Listed<NakFacts>>,
    encrypted: u64,
    retransmitted: u64,
    filter_packets: u64,
    refreshes: u64,
    last_key: Vec<u8>,
    complaint: Option<String>,
    /// Data packets with their retransmissions.
    packets: u64,
    /// Encrypted packets that came before any key (before SRT 1.3 that is a packet of its own).
    held: Vec<(Instant, Vec<u8>)>,
}

/// Packets that wait for a key.
const MAX_HELD: usize = 256;
/// Stretches of missing numbers that are told.
const MAX_RANGES: usize = 100;

/// Data packets as they are on the wire.
#[derive(Debug, Default)]
struct Wire {
    facts: WireFacts,
    packets: u64,
    numbers: Unwrapper<31>,
    gaps: Gaps,
}

impl Wire {
    /// One more packet: sequence number, message number, place in it, key.
    fn data(&mut self, seen: &Observed) {
        let ObservedKind::Data {
            sequence,
            message,
            position,
            key,
            is_filter,
            ..
        } = seen.kind
        else {
            return;
        };
        let facts = &mut self.facts;
        if let Some(count) = facts.keys.get_mut(usize::from(key)) {
            *count += 1;
        }
        if is_filter {
            return;
        }
        self.packets += 1;
        if let Some(count) = facts.positions.get_mut(usize::from(position)) {
            *count += 1;
        }
        facts.messages.1 = message;
        let place = self.gaps.see(self.numbers.unwrap(sequence.into()));
        if place == Place::Only {
            facts.messages.0 = message;
        }
        if matches!(place, Place::Only | Place::Lowest) {
            (facts.sequences.0, facts.timestamps.0) = (sequence, seen.timestamp);
        }
        if matches!(place, Place::Only | Place::Highest) {
            (facts.sequences.1, facts.timestamps.1) = (sequence, seen.timestamp);
        }
    }

    fn facts(&self) -> Option<WireFacts> {
        const NUMBER: u64 = 0x7FFF_FFFF;
        let number = |n: u64| (n & NUMBER) as u32;
        let stretches = self.gaps.stretches().take(MAX_RANGES);
        (self.packets > 0).then(|| WireFacts {
            missing: self.gaps.count(),
            missing_ranges: stretches.map(|(a, b)| (number(a), number(b))).collect(),
            ..self.facts.clone()
        })
    }
}

impl Direction {
    /// Its receiver's ACK.
    pub(super) fn ack(
        &mut self,
        spoken: Spoken,
        number: u32,
        ack: &ObservedAck,
        options: &Options,
        room: &mut Room,
    ) {
        self.acks += 1;
        let facts = AckFacts {
            spoken,
            number,
            ack: *ack,
        };
        if ack.form == AckForm::Full {
            self.first_ack = self.first_ack.or(Some(facts));
            self.last_ack = Some(facts);
        }
        if options.packets {
            self.ack_list.get_or_insert_default().add(facts, room);
        }
    }

    /// Its receiver's NAK.
    pub(super) fn nak(
        &mut self,
        spoken: Spoken,
        nak: &ObservedNak,
        options: &Options,
        room: &mut Room,
    ) {
        self.naks += 1;
        if options.packets {
            let bytes = 8 * nak.ranges.len();
            let nak = nak.clone();
            let list = self.nak_list.get_or_insert_default();
            list.add_sized(NakFacts { spoken, nak }, bytes, room);
        }
    }

    pub(super) fn data(
        &mut self,
        now: Instant,
        datagram: &Datagram<'_>,
        seen: &Observed,
        sender: &Sender,
        keys: Option<&[u8]>,
        options: &Options,
    ) {
        let ObservedKind::Data {
            sequence,
            key,
            retransmitted,
            is_filter,
            ..
        } = seen.kind
        else {
            return;
        };
        self.wire.data(seen);
        if is_filter {
            self.filter_packets += 1;
            return;
        }
        self.packets += 1;
        self.retransmitted += u64::from(retransmitted);
        self.encrypted += u64::from(key != 0);
        if self.follower.is_some() {
            return self.feed(now, datagram.payload);
        }
        let begin = Sender {
            initial: sender.initial.or(Some(sequence)),
            clock: sender.clock.or(Some((seen.timestamp, now))),
            ..*sender
        };
        let may_come = key != 0 && keys.is_none() && options.passphrase.is_some();
        if may_come && self.held.len() < MAX_HELD {
            self.held.push((now, datagram.payload.to_vec()));
            return;
        }
        match Follower::new(datagram, seen.destination, &begin, keys, options) {
            Ok(follower) => self.follower = Some(Box::new(follower)),
            Err(text) => self.complaint = Some(text),
        }
        for (at, held) in core::mem::take(&mut self.held) {
            self.feed(at, &held);
        }
        self.feed(now, datagram.payload);
    }

    /// A new key is announced.
    pub(super) fn key_request(&mut self, now: Instant, datagram: &[u8], request: &[u8]) {
        // It is repeated until it is answered.
        if self.last_key != request {
            self.last_key = request.to_vec();
            self.refreshes += 1;
        }
        if self.follower.as_ref().is_some_and(|f| f.has_keys) {
            self.feed(now, datagram);
        }
    }

    /// Anything that the sender says to its receiver.
    pub(super) fn feed(&mut self, now: Instant, datagram: &[u8]) {
        if let Some(follower) = &mut self.follower {
            follower.feed(now, datagram);
        }
    }

    pub(super) fn advance(&mut self, now: Instant) {
        if let Some(follower) = &mut self.follower
            && follower.due <= now
        {
            follower.advance(now);
        }
    }

    /// The capture has ended: what is still held comes out at its time.
    pub(super) fn finish(&mut self, now: Instant, index: usize, report: &mut Report) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        follower.advance(now + AFTERMATH);
        follower.pipeline.finish();
        follower.drain_units();
        let empty = Gatherer::new(&Options::default());
        let gatherer = core::mem::replace(&mut follower.gatherer, empty);
        gatherer.finish(&follower.pipeline, Carrier::Srt(index), report);
    }

    pub(super) fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    pub(super) fn facts(&mut self) -> DirectionFacts {
        let mut facts = DirectionFacts {
            wire: self.wire.facts(),
            first_ack: self.first_ack,
            last_ack: self.last_ack,
            ack_list: self.ack_list.take(),
            nak_list: self.nak_list.take(),
            retransmitted: self.retransmitted,
            fec_packets: self.filter_packets,
            acks: self.acks,
            naks: self.naks,
            key_refreshes: self.refreshes,
            ..DirectionFacts::default()
        };
        if let Some(follower) = &self.follower {
            let stats = follower.connection.statistics();
            // What came too late is either one that was given up, or one more of another.
            let belated = stats.pkt_rcv_belated.min(stats.pkt_rcv_drop);
            facts.data_packets = stats.pkt_recv_unique + belated;
            facts.lost = stats.pkt_rcv_loss;
            facts.dropped = stats.pkt_rcv_drop;
            facts.belated = belated;
            facts.duplicates = self.packets.saturating_sub(facts.data_packets);
            facts.undecryptable = match follower.has_keys {
                true => stats.pkt_rcv_undecrypt,
                false => self.encrypted,
            };
            facts.key_opened = follower.opened;
            facts.payload_bytes = follower.hash.bytes;
            facts.payload_sha256 = follower.hash.hex();
        }
        facts
    }
}

/// The keys of the conversation, if the passphrase opens them.
fn security(keys: Option<&[u8]>, version: u32, options: &Options) -> Option<Security> {
    let passphrase = Passphrase::new(options.passphrase.as_deref()?).ok()?;
    let policy = ListenerPolicy {
        passphrase: Some(&passphrase),
        require: true,
        cipher: mirror_srt::CipherPolicy::Auto,
    };
    // The follower sends nothing: the seed of its own keys does not matter.
    Security::negotiate(Some(keys?), version, &policy, [0; 32]).ok()
}

impl Follower {
    fn new(
        datagram: &Datagram<'_>,
        own_id: u32,
        sender: &Sender,
        keys: Option<&[u8]>,
        options: &Options,
    ) -> Result<Self, String> {
        let version = sender.version.unwrap_or(LEAST_VERSION).max(LEAST_VERSION);
        let latency_ms = sender.latency_ms.unwrap_or(DEFAULT_LATENCY_MS);
        let (timestamp, arrival) = sender.clock.unwrap_or_default();
        let security = security(keys, version, options);
        let has_keys = security.is_some();
        let opened = (keys.is_some() && options.passphrase.is_some()).then_some(has_keys);
        let stand_in = StandIn {
            // It is told apart by nothing.
            socket_id: 1,
            initial_sequence: sender.initial.unwrap_or(0),
            timestamp,
            greeting: Greeting {
                version,
                flags: FLAGS,
                receive_ms: latency_ms,
                send_ms: latency_ms,
            },
            key_request: keys.filter(|_| has_keys),
        };
        let config = Config {
            latency: Duration::from_millis(latency_ms.into()),
            max_latency: Duration::from_secs(20),
            peer_idle_timeout: PATIENCE,
            flow_window: (MAX_CHUNKS * CHUNK_SLOTS) as u32,
            ..Config::default()
        };
        let refused = |why: &str| format!("an SRT connection cannot be followed: {why}");
        let mut listener = Handshaker::new(config.clone(), [0; 16]);
        let mut out = [0; 1500];
        let induction = stand_in.induction();
        let reply = listener.handle_datagram(arrival, datagram.from, &induction, &mut out);
        let Ok(HandshakeAction::Reply(len)) = reply else {
            return Err(refused("no answer to its induction"));
        };
        let answer = out.get(..len).unwrap_or_default();
        let conclusion = stand_in.conclusion(answer).unwrap_or_default();
        let reply = listener.handle_datagram(arrival, datagram.from, &conclusion, &mut out);
        let Ok(HandshakeAction::Conclude(request)) = reply else {
            return Err(refused("its conclusion is not taken"));
        };
        let security = security.unwrap_or(Security::clear());
        let connection = Connection::accept(arrival, &request, own_id, &config, 0, security);
        let connection = connection.map_err(|code| refused(code.name().unwrap_or("rejected")))?;
        Ok(Follower {
            connection,
            ring: SlotRing::new(),
            due: arrival,
            now: arrival,
            latency: Duration::from_millis(latency_ms.into()),
            pipeline: Pipeline::new(Format::MpegTs, crate::limits(options)),
            gatherer: Gatherer::new(options),
            hash: Hash::default(),
            has_keys,
            opened,
        })
    }

    fn grow(&mut self) {
        while self.ring.available_slots() < LOW_SLOTS
            && self.ring.capacity_slots() < MAX_CHUNKS * CHUNK_SLOTS
        {
            self.ring.add_chunk(Chunk::owned());
        }
    }

    fn feed(&mut self, now: Instant, datagram: &[u8]) {
        self.advance(now);
        self.grow();
        let is_data = datagram.first().is_some_and(|b| b & 0x80 == 0);
        let mut bare = Vec::new();
        let mut fed = datagram;
        if is_data
            && !self.has_keys
            && datagram
                .get(KEY_FLAGS_AT)
                .is_some_and(|b| b & KEY_FLAGS != 0)
        {
            // Its payload is taken as it is.
            bare.extend_from_slice(datagram);
            if let Some(flags) = bare.get_mut(KEY_FLAGS_AT) {
                *flags &= !KEY_FLAGS;
            }
            fed = &bare;
        }
        // What is refused shows in the figures.
        let _ = self
            .connection
            .handle_datagram(now, now, fed, &mut self.ring);
        self.drain(now);
    }

    /// Runs timers until `until`.
    fn advance(&mut self, until: Instant) {
        for _ in 0..MAX_TIMERS {
            let due = self.connection.poll_timeout().filter(|due| *due <= until);
            let Some(due) = due else { break };
            self.now = due.max(self.now);
            self.connection.handle_timeout(self.now, &mut self.ring);
            self.drain(self.now);
            // What TSBPD held back is no unit that waits.
            let now = self.now.saturating_sub(self.latency);
            if self.pipeline.poll_timeout().is_some_and(|at| at <= now) {
                self.pipeline.handle_timeout(now);
            }
        }
        self.now = until.max(self.now);
        self.due = self
            .connection
            .poll_timeout()
            .unwrap_or(Instant::FAR_FUTURE);
    }

    fn drain(&mut self, now: Instant) {
        let mut out = [0; 1500];
        while self.connection.poll_transmit(now, &mut out).is_some() {}
        while self.connection.poll_event().is_some() {}
        while let Some(delivery) = self.connection.poll_delivery(now, &self.ring) {
            let Some(slot) = self.ring.get(delivery.slot) else {
                continue;
            };
            self.hash.add(slot.payload);
            self.pipeline.push(Packet {
                slot: delivery.slot,
                arrival: delivery.arrival,
                lost_before: delivery.lost_before,
                discontinuity: delivery.discontinuity,
                timestamp: slot.meta.timestamp,
                marker: false,
                payload_type: 0,
                payload: slot.payload,
            });
            let gap = delivery.lost_before > 0 || delivery.discontinuity;
            self.gatherer.payload(delivery.arrival, slot.payload, gap);
            self.gatherer
                .drain(&mut self.pipeline, |_, _| UnitDetail::default());
        }
        self.ring.release_before(self.connection.delivery_index());
        self.due = self
            .connection
            .poll_timeout()
            .unwrap_or(Instant::FAR_FUTURE);
    }

    fn drain_units(&mut self) {
        self.gatherer
            .drain(&mut self.pipeline, |_, _| UnitDetail::default());
    }
}
