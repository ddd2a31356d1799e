//! RTP sources in a capture: each one, by destination and SSRC, runs through a session of our own
//! (RFC 3550: validation, order, loss, jitter), and what that releases through the depacketisers.
//! RTCP is counted for the source that it speaks of.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use mirror_base::ring::{CHUNK_SLOTS, Chunk};
use mirror_base::{Discard, Instant, SlotRing};
use mirror_media::files::annexb;
use mirror_media::{Codec, Format, Packet, PayloadFormat, PayloadHint, Pipeline};
use mirror_rtp::{Config, Header, Session, Statistics, is_rtcp, rtcp};

use crate::Options;
use crate::capture::link::Datagram;
use crate::digest::Hash;
use crate::recovery::{Links, Suspect};
use crate::report::{Carrier, Recovered, Report, RtpFacts};
use crate::tracks::Gatherer;

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
    pub(crate) hash: Hash,
    /// Bytes of a unit, again and again.
    unit: Vec<u8>,
    /// Units whose bytes were gone from the ring.
    pub(crate) overwritten: u64,
    pub(crate) payload_bytes: u64,
    slots_kept: u64,
    /// NAL units by type.
    nal_types: BTreeMap<u8, u64>,
}

impl Depacketiser {
    pub(crate) fn new(ssrc: u32, payload_type: u8, options: &Options) -> Self {
        let (hint, clock_rate) = hint(payload_type, options);
        let format = Format::Rtp {
            hint,
            clock_rate,
            ssrc,
        };
        Depacketiser {
            ring: SlotRing::new(),
            pipeline: Pipeline::new(format, crate::limits(options)),
            gatherer: Gatherer::new(options),
            hash: Hash::default(),
            unit: Vec::new(),
            overwritten: 0,
            payload_bytes: 0,
            slots_kept: 0,
            nal_types: BTreeMap::new(),
        }
    }

    /// A packet that was released from the ring.
    pub(crate) fn push(&mut self, delivery: &mirror_base::Delivery) {
        let Some(slot) = self.ring.get(delivery.slot) else {
            return;
        };
        self.payload_bytes += slot.payload.len() as u64;
        self.pipeline.push(Packet {
            slot: delivery.slot,
            arrival: delivery.arrival,
            lost_before: delivery.lost_before,
            discontinuity: delivery.discontinuity,
            timestamp: slot.meta.timestamp,
            marker: slot.meta.flags & 0x80 != 0,
            payload_type: slot.meta.flags & 0x7F,
            payload: slot.payload,
        });
        if self.pipeline.container() == Some("mpegts") {
            self.hash.add(slot.payload);
            let gap = delivery.lost_before > 0 || delivery.discontinuity;
            self.gatherer.payload(delivery.arrival, slot.payload, gap);
        }
        self.units();
    }

    /// Takes the units that are ready.
    pub(crate) fn units(&mut self) {
        let (ring, hash, unit_bytes) = (&self.ring, &mut self.hash, &mut self.unit);
        let (overwritten, nal_types) = (&mut self.overwritten, &mut self.nal_types);
        self.gatherer.drain(&mut self.pipeline, |pipeline, unit| {
            if pipeline.container() == Some("mpegts") {
                return;
            }
            unit_bytes.clear();
            if pipeline.extract(unit, ring, unit_bytes) {
                hash.add(unit_bytes);
                let track = pipeline.tracks().get(usize::from(unit.track));
                for kind in nal_types_of(track.map(|t| t.codec), unit_bytes) {
                    *nal_types.entry(kind).or_default() += 1;
                }
            } else {
                *overwritten += 1;
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

/// Types of the NAL units in `bytes`, in order; nothing for other codecs.
fn nal_types_of(codec: Option<Codec>, bytes: &[u8]) -> impl Iterator<Item = u8> {
    let of = move |nal: &[u8]| match (codec, nal.first()) {
        (Some(Codec::H264), Some(first)) => Some(first & 0x1F),
        (Some(Codec::H265), Some(first)) => Some(first >> 1 & 0x3F),
        _ => None,
    };
    annexb::nal_units(bytes).filter_map(of)
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
    last_sequence: u16,
    suspect: Suspect,
    rtcp: Counts,
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

/// What the standards call a packet.
fn type_name(packet: &rtcp::Packet<'_>) -> &'static str {
    match packet.packet_type {
        200 => "SR",
        201 => "RR",
        202 => "SDES",
        203 => "BYE",
        204 => "APP",
        205 if packet.nacks().next().is_some() => "NACK",
        206 if packet.is_picture_loss() => "PLI",
        206 if packet.full_intra_requests().next().is_some() => "FIR",
        207 => "XR",
        _ => "other",
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
            last_sequence: header.sequence,
            suspect: Suspect::default(),
            rtcp: Counts::new(),
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(delivery) = self.session.poll_delivery(now, &self.depacketiser.ring) {
            if let Some(packet) = self.depacketiser.ring.get_packet(delivery.slot)
                && let Some(&[_, _, high, low]) = packet.first_chunk::<4>()
            {
                self.last_sequence = u16::from_be_bytes([high, low]);
            }
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
        let before = report.tracks.len();
        let carrier = Carrier::Rtp(to.port(), ssrc);
        depacketiser
            .gatherer
            .finish(&depacketiser.pipeline, carrier, report);
        if let Some(track) = report.tracks.get_mut(before) {
            track.unit_types = depacketiser.nal_types;
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
            first_sequence: self.origin.first_sequence,
            last_sequence: self.last_sequence,
            jitter_us: stats.jitter_us,
            rtcp: self.rtcp,
            access_units: units,
            payload_bytes: depacketiser.payload_bytes,
            elementary_bytes: depacketiser.hash.bytes,
            payload_sha256: depacketiser.hash.hex(),
            merged: None,
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
        }
    }

    /// A datagram; `false` if it is neither RTP nor RTCP.
    pub(crate) fn take(&mut self, now: Instant, datagram: &Datagram<'_>) -> bool {
        if datagram.payload.first().is_none_or(|b| b >> 6 != 2) {
            return false;
        }
        if is_rtcp(datagram.payload) {
            return self.rtcp(now, datagram);
        }
        match Header::parse(datagram.payload) {
            Ok(header) => self.rtp(now, datagram, &header),
            Err(_) => self.malformed += 1,
        }
        true
    }

    fn rtp(&mut self, now: Instant, datagram: &Datagram<'_>, header: &Header) {
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

    fn rtcp(&mut self, now: Instant, datagram: &Datagram<'_>) -> bool {
        let Ok(packets) = rtcp::parse(datagram.payload) else {
            self.malformed += 1;
            return true;
        };
        let mut named = Vec::new();
        let mut counts = Counts::new();
        for packet in packets {
            *counts.entry(type_name(&packet)).or_default() += 1;
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
