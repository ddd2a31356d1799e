//! RTP sources in a capture: each one, by destination and SSRC, runs through a session of our own
//! (RFC 3550: validation, order, loss, jitter), and what that releases through the depacketisers.
//! RTCP is counted for the source that it speaks of.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use memchr::memmem;
use mirror_base::ring::{CHUNK_SLOTS, Chunk};
use mirror_base::{Discard, Instant, SlotRing};
use mirror_media::codec::av1::obu::DELIMITER;
use mirror_media::files::obu::TemporalUnit;
use mirror_media::{AccessUnit, Codec, Format, Packet, PayloadFormat, PayloadHint, Pipeline};
use mirror_rtp::{Config, Header, Session, Statistics, is_rtcp, rtcp};

use crate::Options;
use crate::capture::link::Datagram;
use crate::digest::Hash;
use crate::network::{Moment, micros};
use crate::recovery::{Links, Suspect};
use crate::report::listed::Room;
use crate::report::{
    Carrier, Listed, Recovered, Report, RtcpFacts, RtpFacts, RtpPacketFacts, ShapeFacts, rtcp_name,
};
use crate::tracks::{Gatherer, UnitDetail};

/// Sources that are followed.
const MAX_SOURCES: usize = 256;
/// Chunks of all rings together: 400 MB.
const MAX_CHUNKS: usize = 8192;
const LOW_SLOTS: usize = 4 * CHUNK_SLOTS;
/// Delivered packets that are kept, for units that are still in the making.
const KEPT: u64 = 8192;
/// A source that is silent for so long is another one afterwards.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3600);
/// Reports of sources that are not known which are kept apart.
const MAX_REPORTS: usize = 4096;

type Counts = BTreeMap<&'static str, u64>;

/// What releases packets in order, and what they become.
pub(crate) struct Depacketiser {
    pub(crate) ring: SlotRing,
    pub(crate) pipeline: Pipeline,
    pub(crate) gatherer: Gatherer,
    pub(crate) payload_bytes: u64,
    slots_kept: u64,
    pub(crate) shape: Shape,
    content: Content,
}

/// What units hold.
struct Content {
    /// Bytes of a unit, again and again.
    unit: Vec<u8>,
    hash: Hash,
    /// On request: without what is repeated at will, parameter sets and temporal delimiters.
    bare: Option<Hash>,
    /// Units whose bytes were gone from the ring.
    overwritten: u64,
    /// NAL units or OBUs by type.
    types: BTreeMap<u8, u64>,
    /// Media clock, Hz.
    clock_rate: u32,
}

impl Content {
    /// One unit, whose bytes are there.
    fn take(&mut self, codec: Option<Codec>, unit: &AccessUnit) -> UnitDetail {
        self.hash.add(&self.unit);
        let mut types = Vec::new();
        let bare = &mut self.bare;
        let mut sizes = Vec::new();
        parts(codec, &self.unit, |kind, is_bare, part| {
            types.push(kind);
            sizes.push(part.len() as u32);
            if let Some(bare) = bare.as_mut().filter(|_| is_bare) {
                bare.add(part);
            }
        });
        for kind in &types {
            *self.types.entry(*kind).or_default() += 1;
        }
        UnitDetail {
            types,
            sizes,
            rtp_timestamp: unit.pts.and_then(|pts| self.media_clock(pts)),
        }
    }

    /// A time as the media clock has it; `None` where 90 kHz do not tell it.
    fn media_clock(&self, pts: i64) -> Option<u32> {
        let rate = i128::from(self.clock_rate);
        let ticks = (i128::from(pts) * rate + i128::from(CLOCK / 2)).div_euclid(CLOCK.into());
        // Modulo 2^32, as on the wire.
        (rate <= CLOCK.into()).then_some(ticks as u32)
    }
}

/// Ticks of the clock that units use.
const CLOCK: i64 = 90_000;

/// The NAL units of `bytes` with their start codes (four bytes each, as they are made here), or
/// its OBUs: type, whether it is neither a parameter set nor a delimiter, and bytes.
fn parts(codec: Option<Codec>, bytes: &[u8], mut each: impl FnMut(u8, bool, &[u8])) {
    const CODE: [u8; 4] = [0, 0, 0, 1];
    if codec == Some(Codec::Av1) {
        let mut at = 0;
        for obu in TemporalUnit::alone(bytes, 0).obus().map_while(Result::ok) {
            let part = bytes.get(at..at + obu.bytes).unwrap_or_default();
            at += obu.bytes;
            each(obu.header.kind, obu.header.kind != DELIMITER, part);
        }
        return;
    }
    let kind = |nal: &[u8]| match (codec, nal.first()) {
        (Some(Codec::H264), Some(first)) => Some((first & 0x1F, !matches!(first & 0x1F, 7 | 8))),
        (Some(Codec::H265), Some(first)) => {
            let kind = first >> 1 & 0x3F;
            Some((kind, !matches!(kind, 32..=34)))
        }
        _ => None,
    };
    let mut codes = memmem::find_iter(bytes, &CODE).peekable();
    while let Some(at) = codes.next() {
        let end = codes.peek().copied().unwrap_or(bytes.len());
        let part = bytes.get(at..end).unwrap_or_default();
        // No NAL unit ends with a zero byte (H.264 and HEVC, 7.4): some senders leave one of the
        // next start code behind it.
        let size = part.iter().rposition(|&b| b != 0).map_or(0, |n| n + 1);
        let part = part.get(..size).unwrap_or_default();
        let nal = part.get(CODE.len()..).unwrap_or_default();
        if let Some((kind, is_bare)) = kind(nal) {
            each(kind, is_bare, part);
        }
    }
}

/// Packets as they were released, each once and in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// First and last: sequence number and timestamp.
    ends: Option<[(u16, u32); 2]>,
    markers: u64,
    timestamps: u64,
    /// Timestamps of late.
    recent: VecDeque<u32>,
    /// The first sequence numbers that were not released.
    missing: Vec<u16>,
}

/// Timestamps that are remembered: as many frames are hardly ever interleaved.
const RECENT: usize = 256;
/// Sequence numbers of missing packets that are told.
const MAX_MISSING: usize = 1000;

impl Shape {
    fn take(&mut self, sequence: u16, timestamp: u32, marker: bool, lost_before: u64) {
        let [first, _] = self.ends.unwrap_or([(sequence, timestamp); 2]);
        self.ends = Some([first, (sequence, timestamp)]);
        self.markers += u64::from(marker);
        if self.recent.back() != Some(&timestamp) {
            if !self.recent.contains(&timestamp) {
                self.timestamps += 1;
            }
            self.recent.push_back(timestamp);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        let room = MAX_MISSING - self.missing.len();
        let lost = u16::try_from(lost_before).unwrap_or(u16::MAX);
        let numbers = (1..=lost).rev().map(|n| sequence.wrapping_sub(n));
        self.missing.extend(numbers.take(room));
    }

    pub(crate) fn facts(&self) -> ShapeFacts {
        let ends = self.ends.unwrap_or_default();
        ShapeFacts {
            first_sequence: ends[0].0,
            last_sequence: ends[1].0,
            first_timestamp: ends[0].1,
            last_timestamp: ends[1].1,
            markers: self.markers,
            distinct_timestamps: self.timestamps,
            missing: self.missing.clone(),
        }
    }
}

impl Depacketiser {
    pub(crate) fn new(ssrc: u32, payload_type: u8, options: &Options) -> Self {
        let (hint, clock_rate) = hint(payload_type, options);
        let format = Format::Rtp {
            hint: hint.clone(),
            clock_rate,
            ssrc,
        };
        let usual = hint.map_or(CLOCK as u32, |hint| hint.format.clock_rate());
        let clock_rate = if clock_rate > 0 { clock_rate } else { usual };
        Depacketiser {
            ring: SlotRing::new(),
            pipeline: Pipeline::new(format, crate::limits(options)),
            gatherer: Gatherer::new(options),
            payload_bytes: 0,
            slots_kept: 0,
            shape: Shape::default(),
            content: Content {
                unit: Vec::new(),
                hash: Hash::default(),
                bare: options.packets.then(Hash::default),
                overwritten: 0,
                types: BTreeMap::new(),
                clock_rate,
            },
        }
    }

    /// Bytes of elementary stream (or of MPEG-TS) and their hash; on request also without what
    /// is repeated at will.
    pub(crate) fn elementary(&self) -> (u64, String, Option<String>) {
        let content = &self.content;
        let bare = content.bare.as_ref().map(Hash::hex);
        let bare = bare.filter(|_| !content.types.is_empty());
        (content.hash.bytes, content.hash.hex(), bare)
    }

    /// NAL units or OBUs by type.
    pub(crate) fn types(&self) -> BTreeMap<u8, u64> {
        self.content.types.clone()
    }

    /// A packet that was released from the ring.
    pub(crate) fn push(&mut self, delivery: &mirror_base::Delivery) {
        let Some(slot) = self.ring.get(delivery.slot) else {
            return;
        };
        self.payload_bytes += slot.payload.len() as u64;
        let marker = slot.meta.flags & 0x80 != 0;
        let packet = self.ring.get_packet(delivery.slot).unwrap_or_default();
        if let Some(&[_, _, high, low]) = packet.first_chunk::<4>() {
            let sequence = u16::from_be_bytes([high, low]);
            let lost = delivery.lost_before.into();
            self.shape.take(sequence, slot.meta.timestamp, marker, lost);
        }
        self.pipeline.push(Packet {
            slot: delivery.slot,
            arrival: delivery.arrival,
            lost_before: delivery.lost_before,
            discontinuity: delivery.discontinuity,
            timestamp: slot.meta.timestamp,
            marker,
            payload_type: slot.meta.flags & 0x7F,
            payload: slot.payload,
        });
        if self.pipeline.container() == Some("mpegts") {
            self.content.hash.add(slot.payload);
            let gap = delivery.lost_before > 0 || delivery.discontinuity;
            self.gatherer.payload(delivery.arrival, slot.payload, gap);
        }
        self.units();
    }

    /// Takes the units that are ready.
    pub(crate) fn units(&mut self) {
        let (ring, content) = (&self.ring, &mut self.content);
        self.gatherer.drain(&mut self.pipeline, |pipeline, unit| {
            if pipeline.container() == Some("mpegts") {
                return UnitDetail::default();
            }
            content.unit.clear();
            if pipeline.extract(unit, ring, &mut content.unit) {
                let track = pipeline.tracks().get(usize::from(unit.track));
                content.take(track.map(|t| t.codec), unit)
            } else {
                content.overwritten += 1;
                UnitDetail::default()
            }
        });
    }

    /// Makes room for what comes; `budget` is what all rings together may still take.
    pub(crate) fn grow(&mut self, budget: &mut usize) {
        while self.ring.available_slots() < LOW_SLOTS && *budget > 0 {
            self.ring.add_chunk(Chunk::owned());
            *budget -= 1;
        }
        let half = self.ring.capacity_slots() as u64 / 2;
        self.slots_kept = if *budget > 0 { KEPT } else { half.min(KEPT) };
    }

    /// Makes room for a datagram of `bytes`, as far as slots can be long.
    pub(crate) fn fit(&mut self, bytes: usize, budget: &mut usize) {
        if bytes > self.ring.slot_bytes() {
            self.ring.widen(bytes, || {
                *budget = budget.checked_sub(1)?;
                Some(Chunk::owned())
            });
        }
        self.grow(budget);
    }

    /// What was delivered before `index` may go, a while later.
    pub(crate) fn release(&mut self, index: u64) {
        self.ring
            .release_before(index.saturating_sub(self.slots_kept));
    }

    pub(crate) fn finish(&mut self) {
        self.pipeline.finish();
        self.units();
    }
}

/// What is known of a payload type, and its clock rate (0: the format's own).
pub(crate) fn hint(payload_type: u8, options: &Options) -> (Option<PayloadHint>, u32) {
    let named = options.payload_types.iter().find(|t| t.0 == payload_type);
    if let Some((_, hint, clock_rate)) = named {
        return (Some(hint.clone()), *clock_rate);
    }
    match PayloadFormat::from_static_type(payload_type) {
        Some((format, clock_rate, channels)) => {
            let mut hint = PayloadHint::from(format);
            hint.parameters.channels = channels;
            (Some(hint), clock_rate)
        }
        None => (None, 0),
    }
}

struct Origin {
    to: SocketAddr,
    ssrc: u32,
    payload_type: u8,
    first_sequence: u16,
    first_at: u64,
}

struct Stream {
    origin: Origin,
    session: Session,
    /// Figures of sessions that ended with a BYE.
    past: Figures,
    depacketiser: Depacketiser,
    due: Instant,
    jitter_buffer: Duration,
    /// Packets too long for a slot.
    too_long: u64,
    suspect: Suspect,
    rtcp: Counts,
    /// Its packets, on request.
    list: Option<Listed<RtpPacketFacts>>,
}

/// Figures of a session that are printed.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    packets: u64,
    distinct: u64,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    rejected: u64,
}

impl Figures {
    const fn and(self, stats: &Statistics) -> Self {
        Figures {
            packets: self.packets + stats.packets_received,
            distinct: self.distinct + stats.packets_unique,
            lost: self.lost + stats.packets_dropped,
            duplicates: self.duplicates + stats.packets_duplicate,
            reordered: self.reordered + stats.packets_reordered,
            rejected: self.rejected + stats.packets_rejected,
        }
    }
}

/// All sources.
pub(crate) struct Sources<'o> {
    options: &'o Options,
    streams: BTreeMap<(SocketAddr, u32), Stream>,
    budget: usize,
    refused: u64,
    malformed: u64,
    /// RTCP: the SSRCs that a compound names, and how often each type came.
    reports: BTreeMap<Vec<u32>, Counts>,
    order: u64,
    /// RTCP packets, on request, and the room for them and for RTP packets.
    listed: Option<Listed<RtcpFacts>>,
    room: Room,
}

fn config(options: &Options, payload_type: u8) -> Config {
    let (hint, rate) = hint(payload_type, options);
    let usual = hint.map_or(90_000, |hint| hint.format.clock_rate());
    Config {
        session_timeout: SESSION_TIMEOUT,
        clock_rate: if rate > 0 { rate } else { usual },
        ..Config::default()
    }
}

impl Stream {
    fn new(now: Instant, to: SocketAddr, header: &Header, order: u64, options: &Options) -> Self {
        let config = config(options, header.payload_type);
        Stream {
            origin: Origin {
                to,
                ssrc: header.ssrc,
                payload_type: header.payload_type,
                first_sequence: header.sequence,
                first_at: order,
            },
            session: Session::new(now, header.ssrc, &config, 0),
            past: Figures::default(),
            depacketiser: Depacketiser::new(header.ssrc, header.payload_type, options),
            due: Instant::FAR_FUTURE,
            jitter_buffer: config.jitter_buffer,
            too_long: 0,
            suspect: Suspect::default(),
            rtcp: Counts::new(),
            list: options.packets.then(Listed::default),
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(delivery) = self.session.poll_delivery(now, &self.depacketiser.ring) {
            self.depacketiser.push(&delivery);
        }
        self.depacketiser.release(self.session.delivery_index());
        while self.session.poll_event().is_some() {}
        self.due = self.session.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
    }

    fn advance(&mut self, until: Instant) {
        while self.due <= until {
            let due = self.due;
            self.session.handle_timeout(due);
            self.drain(due);
            if self.due <= due {
                break;
            }
        }
        // What the jitter buffer held back is no unit that waits.
        let until = until.saturating_sub(self.jitter_buffer);
        let pipeline = &mut self.depacketiser.pipeline;
        if pipeline.poll_timeout().is_some_and(|at| at <= until) {
            pipeline.handle_timeout(until);
            self.depacketiser.units();
        }
    }

    /// The session ended, and its source goes on.
    fn renew(&mut self, now: Instant, options: &Options) {
        self.past = self.past.and(&self.session.statistics());
        let next = self
            .depacketiser
            .ring
            .next_index()
            .max(self.session.delivery_index());
        self.depacketiser.ring.continue_at(next);
        let config = config(options, self.origin.payload_type);
        self.session = Session::new(now, self.origin.ssrc, &config, next);
    }

    fn is_real(&self) -> bool {
        self.session.is_valid()
            || self.session.statistics().packets_received > 0
            || self.past.packets > 0
    }

    fn facts(self, report: &mut Report) -> RtpFacts {
        let stats = self.session.statistics();
        let figures = self.past.and(&stats);
        let Origin { to, ssrc, .. } = self.origin;
        let depacketiser = self.depacketiser;
        if self.too_long > 0 {
            let (count, slot) = (self.too_long, mirror_base::ring::MAX_SLOT_BYTES);
            report.error(format!(
                "SSRC {ssrc:08x}: {count} packets are longer than {slot} bytes"
            ));
        }
        let container = depacketiser.pipeline.container();
        let tracks = depacketiser.pipeline.tracks();
        let codec = match container {
            Some("mpegts") => "MP2T",
            _ => tracks.first().map_or("unknown", |t| t.codec.name()),
        };
        let (elementary_bytes, payload_sha256, bare_sha256) = depacketiser.elementary();
        let before = report.tracks.len();
        let carrier = Carrier::Rtp(to.port(), ssrc);
        depacketiser
            .gatherer
            .finish(&depacketiser.pipeline, carrier, report);
        if let Some(track) = report.tracks.get_mut(before) {
            track.unit_types = depacketiser.content.types.clone();
        }
        let units = report
            .tracks
            .iter()
            .skip(before)
            .map(|t| t.access_units)
            .sum();
        RtpFacts {
            to,
            ssrc,
            payload_type: self.origin.payload_type,
            codec,
            packets: figures.packets,
            distinct: figures.distinct,
            lost: figures.lost,
            duplicates: figures.duplicates,
            reordered: figures.reordered,
            rejected: figures.rejected,
            recovered: Recovered::default(),
            shape: ShapeFacts {
                first_sequence: self.origin.first_sequence,
                ..depacketiser.shape.facts()
            },
            jitter_us: stats.jitter_us,
            rtcp: self.rtcp,
            access_units: units,
            payload_bytes: depacketiser.payload_bytes,
            elementary_bytes,
            payload_sha256,
            bare_sha256,
            merged: None,
            packets_listed: self.list,
        }
    }
}

impl<'o> Sources<'o> {
    pub(crate) const fn new(options: &'o Options) -> Self {
        Sources {
            options,
            streams: BTreeMap::new(),
            budget: MAX_CHUNKS,
            refused: 0,
            malformed: 0,
            reports: BTreeMap::new(),
            order: 0,
            listed: if options.packets {
                Some(Listed::new())
            } else {
                None
            },
            room: Room::FULL,
        }
    }

    /// A datagram; `false` if it is neither RTP nor RTCP.
    pub(crate) fn take(&mut self, moment: Moment, datagram: &Datagram<'_>) -> bool {
        if datagram.payload.first().is_none_or(|b| b >> 6 != 2) {
            return false;
        }
        if is_rtcp(datagram.payload) {
            return self.rtcp(moment, datagram);
        }
        match Header::parse(datagram.payload) {
            Ok(header) => self.rtp(moment, datagram, &header),
            Err(_) => self.malformed += 1,
        }
        true
    }

    fn rtp(&mut self, moment: Moment, datagram: &Datagram<'_>, header: &Header) {
        let now = moment.now;
        let key = (datagram.to, header.ssrc);
        if !self.streams.contains_key(&key) {
            if self.streams.len() >= MAX_SOURCES {
                self.make_room();
            }
            if self.streams.len() >= MAX_SOURCES {
                self.refused += 1;
                return;
            }
        }
        self.order += 1;
        let (order, options) = (self.order, self.options);
        let fresh = || Stream::new(now, datagram.to, header, order, options);
        let stream = self.streams.entry(key).or_insert_with(fresh);
        if stream.session.is_drained() {
            stream.renew(now, options);
        }
        stream.suspect.look(header, datagram.payload);
        if let Some(list) = &mut stream.list {
            let packet = RtpPacketFacts::new(moment.packet, micros(now), header, datagram.payload);
            let bytes = packet.bytes();
            list.add_sized(packet, bytes, &mut self.room);
        }
        stream
            .depacketiser
            .fit(datagram.payload.len(), &mut self.budget);
        let ring = &mut stream.depacketiser.ring;
        let result = stream
            .session
            .handle_rtp(now, now, header, datagram.payload, ring);
        stream.too_long += u64::from(result == Err(Discard::TooLong));
        stream.drain(now);
    }

    /// Sources that never proved to be some are forgotten.
    fn make_room(&mut self) {
        self.streams
            .retain(|_, stream| stream.session.is_valid() || stream.past.packets > 0);
    }

    fn rtcp(&mut self, moment: Moment, datagram: &Datagram<'_>) -> bool {
        let now = moment.now;
        let Ok(packets) = rtcp::parse(datagram.payload) else {
            self.malformed += 1;
            return true;
        };
        let mut named = Vec::new();
        let mut counts = Counts::new();
        for packet in packets {
            *counts.entry(rtcp_name(&packet)).or_default() += 1;
            if let Some(list) = &mut self.listed {
                let facts = RtcpFacts {
                    packet: moment.packet,
                    at_us: micros(now),
                    from: datagram.from,
                    to: datagram.to,
                    count: packet.count,
                    packet_type: packet.packet_type,
                    body: packet.body.to_vec(),
                };
                list.add_sized(facts, packet.body.len(), &mut self.room);
            }
            named.extend(packet.ssrc());
            named.extend(packet.report_blocks().map(|block| block.ssrc));
            named.extend(packet.leaving());
        }
        let sender = rtcp::sender_ssrc(datagram.payload);
        for ((_, ssrc), stream) in &mut self.streams {
            if sender == Some(*ssrc) && !stream.session.is_drained() {
                // What is refused shows nowhere: it is counted below.
                let _ = stream.session.handle_rtcp(now, now, datagram.payload);
                stream.drain(now);
            }
        }
        named.truncate(64);
        named.dedup();
        if self.reports.len() < MAX_REPORTS || self.reports.contains_key(&named) {
            let all = self.reports.entry(named).or_default();
            for (name, count) in counts {
                *all.entry(name).or_default() += count;
            }
        }
        true
    }

    /// Runs the sessions' timers.
    pub(crate) fn advance(&mut self, now: Instant) {
        for stream in self.streams.values_mut() {
            stream.advance(now);
        }
    }

    /// The capture has ended. Tells which sources seem to repair others.
    pub(crate) fn finish(mut self, now: Instant, report: &mut Report) -> Links {
        let end = now + Duration::from_secs(2);
        for stream in self.streams.values_mut() {
            stream.advance(end);
            stream.session.close(end);
            stream.drain(end);
            stream.depacketiser.finish();
        }
        for (named, counts) in core::mem::take(&mut self.reports) {
            let found = named.iter().find_map(|ssrc| {
                let mut keys = self.streams.keys();
                keys.find(|key| key.1 == *ssrc).copied()
            });
            let rtcp = match found.and_then(|key| self.streams.get_mut(&key)) {
                Some(stream) => &mut stream.rtcp,
                None => &mut report.rtcp,
            };
            for (name, count) in counts {
                *rtcp.entry(name).or_default() += count;
            }
        }
        report.rtcp_packets = self.listed.take();
        let mut streams: Vec<Stream> = self.streams.into_values().collect();
        streams.sort_by_key(|stream| stream.origin.first_at);
        let mut links = Links::default();
        for stream in streams {
            if !stream.is_real() {
                report.unproven_packets += stream.session.statistics().packets_rejected.max(1);
                continue;
            }
            let Origin {
                to,
                ssrc,
                payload_type,
                ..
            } = stream.origin;
            links.add(to, ssrc, payload_type, stream.suspect);
            let facts = stream.facts(report);
            report.rtp.push(facts);
        }
        report.malformed_rtp = self.malformed;
        if self.refused > 0 {
            let more = self.refused;
            report.error(format!(
                "{more} RTP packets of more sources than are followed"
            ));
        }
        links
    }
}
