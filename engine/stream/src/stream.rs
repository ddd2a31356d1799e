//! The stream itself: ring, pipeline, status, figures.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::discard::DiscardCounts;
use mirror_base::{Delivery, Discard, Instant, SlotRing, StreamId};
use mirror_media::av_sync::AvSyncConfig;
use mirror_media::{AccessUnit, Format, Limits, Packet, Pipeline, Track};

use crate::figures::RecoveryReport;
use crate::frames::Frames;
use crate::gop_cache::GopConfig;
use crate::lane::{Lane, Lanes, lane_of};
use crate::latency::{FreshTimes, ShardLatency, StreamLatency};
use crate::payload::PayloadDigest;
use crate::rate::RateMeter;
use crate::report::{
    EndReason, Mode, PipelineState, Protocol, Status, StreamSnapshot, StreamStats, Transition,
};
use crate::rtp::{self, MediaReport};
use crate::timeline::Timeline;

/// Transitions kept for the operator (product contract, section 2).
const TRANSITIONS_KEPT: usize = 32;

/// What a stream is given to live on.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Whether payload is demultiplexed and assembled. `false`: received up to the ring only.
    pub media: bool,
    /// Bounds of the media pipeline.
    pub limits: Limits,
    /// Bytes of ring beyond what the protocol holds.
    pub ring_bytes: usize,
    /// Bytes of ring at the most.
    pub per_stream_bytes: usize,
    /// What is kept of the last groups of pictures.
    pub gop: GopConfig,
    /// How audio is held together with video.
    pub sync: AvSyncConfig,
    /// Keep a digest of the delivered payload (`diagnostics.payload_hash`).
    pub payload_hash: bool,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig {
            media: true,
            limits: Limits::default(),
            ring_bytes: 4 << 20,
            per_stream_bytes: 400 << 20,
            gop: GopConfig::default(),
            sync: AvSyncConfig::default(),
            payload_hash: false,
        }
    }
}

/// A session's own figures, handed in by the shard whenever a snapshot is due and at its end.
#[derive(Clone, Debug)]
pub enum SessionStatistics {
    /// Of an SRT connection.
    Srt(Box<mirror_srt::Statistics>),
    /// Of an RTP source.
    Rtp(Box<MediaReport>),
    /// Of a configured RTP session: these grow as long as the stream lives, over all its
    /// sources.
    Media(Vec<MediaReport>),
}

/// How the session's packets are timed between release and unit, for one completed unit.
#[derive(Clone, Copy, Debug)]
struct PendingUnit {
    receive_us: u64,
    late_us: u64,
}

/// When the protocol took it.
#[inline]
fn handled(delivery: &Delivery) -> Instant {
    Instant::from_nanos(delivery.arrival.as_nanos() + u64::from(delivery.handled_after_ns))
}

#[inline(always)]
fn count_times(times: &mut FreshTimes, delivery: &Delivery) {
    times.record(
        delivery.handled_after_ns,
        (handled(delivery).as_nanos(), delivery.due.as_nanos()),
    );
}

/// No count of fresh times overflows before they are settled: that takes a million packets a
/// second.
const TIMES_SETTLE_AFTER: Duration = Duration::from_secs(3_600);

/// See the module's page.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    protocol: Protocol,
    mode: Mode,
    peer: SocketAddr,
    config: StreamConfig,
    lanes: Lanes,
    frames: Frames,
    timeline: Timeline,
    recovery: RecoveryReport,
    key_frame_missing: bool,
    /// As of when figures are shown.
    figures_at: Instant,
    status: Status,
    state: PipelineState,
    previous_state: PipelineState,
    transitions: VecDeque<Transition>,
    created_at: Instant,
    started_at: Instant,
    last_packet_at: Option<Instant>,
    last_unit_at: Option<Instant>,
    /// Silence counts from here at the earliest: begin of the session, or of the stream's return
    /// from a pause.
    heard_from: Instant,
    /// Ended sessions added up, and what the pipeline counted.
    stats: StreamStats,
    /// The present session.
    session: StreamStats,
    discards: DiscardCounts,
    rate: RateMeter,
    latency: StreamLatency,
    /// Not in `latency` yet, nor in the shard's, since then.
    times: FreshTimes,
    times_settled: Instant,
    /// Of the present (or last) session.
    payload: Option<Box<PayloadDigest>>,
    pending: Vec<PendingUnit>,
    paused: bool,
    changed: bool,
    /// The present or last SRT session's own figures, in libsrt's names.
    srt: Option<Box<mirror_srt::Statistics>>,
    /// The present or last RTP session's figures, medium by medium.
    rtp: Vec<MediaReport>,
    encryption: &'static str,
}

impl Stream {
    /// A stream whose first session is about to begin.
    pub fn new(
        now: Instant,
        id: StreamId,
        protocol: Protocol,
        mode: Mode,
        peer: SocketAddr,
        config: StreamConfig,
    ) -> Self {
        let timeline = Timeline::new(config.gop, config.sync);
        let mut stream = Stream {
            id,
            protocol,
            mode,
            peer,
            config,
            lanes: Lanes::new(),
            frames: Frames::new(),
            timeline,
            recovery: RecoveryReport::default(),
            key_frame_missing: false,
            figures_at: now,
            status: Status::Connecting,
            state: PipelineState::Initializing,
            previous_state: PipelineState::Initializing,
            transitions: VecDeque::with_capacity(TRANSITIONS_KEPT),
            created_at: now,
            started_at: now,
            last_packet_at: None,
            last_unit_at: None,
            heard_from: now,
            stats: StreamStats::default(),
            session: StreamStats::default(),
            discards: DiscardCounts::default(),
            rate: RateMeter::default(),
            latency: StreamLatency::default(),
            times: FreshTimes::default(),
            times_settled: now,
            payload: None,
            pending: Vec::with_capacity(64),
            paused: false,
            changed: false,
            srt: None,
            rtp: Vec::new(),
            encryption: "none",
        };
        stream.transition(now, PipelineState::Connecting, "session accepted");
        stream
    }

    /// Begins a session: the first one, or that of a returning publisher, whose packets follow
    /// in the ring on what was there. Returns the slot index at which it begins.
    pub fn begin_session(&mut self, now: Instant, peer: SocketAddr, format: Format) -> u64 {
        self.begin_lanes(now, peer, &[format]);
        self.lanes.first.ring.next_index()
    }

    /// The same for a session of several media, each with a numbering of its own: lane by lane
    /// what they carry, at most [`MAX_LANES`](crate::MAX_LANES). The ring of each says where its
    /// packets begin.
    pub fn begin_lanes(&mut self, now: Instant, peer: SocketAddr, formats: &[Format]) {
        self.lanes.set_count(formats.len());
        for lane in self.lanes.iter_mut() {
            // Whatever the last session left undelivered will never be.
            lane.ring.release_before(lane.ring.next_index());
        }
        self.begin_source(now, peer, formats);
    }

    /// The same for a configured session, whose rings may hold the first packets of its sources
    /// already.
    pub fn begin_source(&mut self, now: Instant, peer: SocketAddr, formats: &[Format]) {
        self.peer = peer;
        self.started_at = now;
        self.heard_from = now;
        self.stats.sessions += 1;
        let returns = self.stats.sessions > 1;
        if returns {
            self.transition(now, PipelineState::Connecting, "publisher returned");
        }
        self.status = Status::Connecting;
        self.lanes.set_count(formats.len());
        let limits = &self.config.limits;
        for (lane, format) in self.lanes.iter_mut().zip(formats) {
            lane.begin(
                self.config.media.then_some((format.clone(), limits)),
                returns,
            );
        }
        self.payload = self.config.payload_hash.then(Box::default);
        self.srt = None;
        self.rate.reset();
        self.rate.sample(now, self.stats.bytes_received);
    }

    /// Who called whom in the session that begins, and the name of its encryption ("none",
    /// "aes-ctr-128" ...).
    pub const fn describe_session(&mut self, mode: Mode, encryption: &'static str) {
        self.mode = mode;
        self.encryption = encryption;
    }

    /// The peer goes on from another address (NAT rebinding).
    pub const fn move_peer(&mut self, peer: SocketAddr) {
        self.peer = peer;
        self.stats.peer_moves += 1;
    }

    /// Lane `lane` delivers in order as soon as it can, and a gap holds it up for `patience` at
    /// the most (the jitter buffer of RTP): so much longer its units are waited for.
    pub fn set_patience(&mut self, lane: usize, patience: Duration) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.patience = patience;
        }
    }

    /// The source of lane `lane` is `ssrc`.
    pub fn set_source(&mut self, lane: usize, ssrc: u32) {
        let lane = self.lanes.get_mut(lane);
        if let Some(pipeline) = lane.and_then(|lane| lane.pipeline.as_mut()) {
            pipeline.set_ssrc(ssrc);
        }
    }

    /// The sender of lane `lane` has told its clock (RTCP SR): `ntp` in 32.32 bits when its
    /// media clock of `clock_rate` Hz stood at `timestamp`. Lanes of one CNAME share that clock.
    pub fn set_sender_clock(&mut self, lane: usize, ntp: u64, timestamp: u32, clock_rate: u32) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.set_sender_clock(ntp, timestamp, clock_rate);
        }
    }

    /// 90 kHz ticks to be added to the presentation times of track `track` to have them on the
    /// clock of its sender; `None` until the sender has told it.
    pub fn clock_offset(&self, track: u16) -> Option<i64> {
        self.lanes.clock_offset(track)
    }

    /// Takes one packet that the session released at `now`. Returns how many access units it
    /// completed: when that is not 0, the caller reads its clock and calls
    /// [`Stream::units_completed`].
    #[inline(always)]
    pub fn deliver(&mut self, now: Instant, delivery: &Delivery) -> usize {
        if matches!(self.status, Status::Connecting | Status::Pending) {
            self.first_packet(now);
        }
        count_times(&mut self.times, delivery);
        self.delivered(now);
        if self.lanes.first.pipeline.is_none() && self.payload.is_none() && !self.paused {
            return 0;
        }
        self.deliver_payload(now, *delivery)
    }

    /// Whether a packet needs nothing but to be counted ([`Stream::counting`]), and
    /// [`Stream::delivered`] after the last: nobody looks at payload, and it is not the first.
    #[inline]
    pub fn only_counts(&self) -> bool {
        let begun = !matches!(self.status, Status::Connecting | Status::Pending);
        begun && self.lanes.first.pipeline.is_none() && self.payload.is_none() && !self.paused
    }

    /// The memory, and what counts the times of a packet that the session released while it is
    /// read.
    #[inline]
    pub fn counting(&mut self) -> (&SlotRing, impl FnMut(&Delivery)) {
        let times = &mut self.times;
        (&self.lanes.first.ring, |delivery: &Delivery| {
            count_times(times, delivery);
        })
    }

    /// Packets were released at `now`.
    #[inline]
    pub const fn delivered(&mut self, now: Instant) {
        self.last_packet_at = Some(now);
    }

    #[inline(never)]
    fn deliver_payload(&mut self, now: Instant, delivery: Delivery) -> usize {
        let Some(lane) = self.lanes.of_mut(delivery.slot) else {
            return 0;
        };
        let Some(slot) = lane.ring.get(delivery.slot) else {
            return 0;
        };
        if let Some(digest) = self.payload.as_mut() {
            digest.update(slot.payload, delivery.lost_before);
        }
        if self.paused {
            self.discards.count(Discard::Paused);
            return 0;
        }
        let Some(pipeline) = lane.pipeline.as_mut() else {
            return 0;
        };
        let meta = *slot.meta;
        lane.held = now.saturating_since(meta.arrival);
        let broken = core::mem::take(&mut lane.broken);
        let discontinuity = delivery.discontinuity || broken;
        pipeline.push(Packet {
            slot: delivery.slot,
            arrival: meta.arrival,
            lost_before: delivery.lost_before,
            discontinuity,
            timestamp: meta.timestamp,
            marker: meta.flags & 0x80 != 0,
            payload_type: meta.flags & 0x7F,
            payload: slot.payload,
        });
        let broken_at = discontinuity.then_some(delivery.slot);
        let ready = handled(&delivery).max(delivery.due);
        self.drain_units(
            now,
            lane_of(delivery.slot),
            PendingUnit {
                receive_us: u64::from(delivery.handled_after_ns / 1_000),
                late_us: now.micros_since(ready),
            },
            broken_at,
        )
    }

    /// Access units of the last deliveries are complete at `now` (a fresh reading of the
    /// clock): records what the engine added to each (D13).
    pub fn units_completed(&mut self, released: Instant, now: Instant, shard: &mut ShardLatency) {
        let assemble_us = now.micros_since(released);
        for unit in self.pending.drain(..) {
            let total_us = unit.receive_us + unit.late_us + assemble_us;
            self.latency.assemble.record(assemble_us);
            self.latency.total.record(total_us);
            shard.assemble.record(assemble_us);
            shard.total.record(total_us);
        }
    }

    fn first_packet(&mut self, now: Instant) {
        self.status = if self.paused {
            Status::Paused
        } else {
            Status::Active
        };
        self.changed = true;
        self.transition(now, PipelineState::Buffering, "first packet received");
    }

    /// Time passed: closes access units that wait too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        for lane in self.lanes.iter_mut() {
            let delay = lane.delay();
            if let Some(pipeline) = lane.pipeline.as_mut() {
                // A unit must not be given up because TSBPD held its packets for longer than
                // the assembly timeout, or while a gap in it may still be filled.
                pipeline.handle_timeout(now.saturating_sub(delay));
            }
        }
        self.drain_untimed(now);
    }

    /// When [`Stream::handle_timeout`] is due next.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = self.lanes.first.poll_timeout();
        if self.lanes.others.is_empty() {
            return first;
        }
        let others = self.lanes.others.iter().filter_map(Lane::poll_timeout);
        others.chain(first).min()
    }

    /// The session's present figures.
    pub fn set_session_statistics(&mut self, now: Instant, statistics: SessionStatistics) {
        match statistics {
            SessionStatistics::Srt(s) => {
                fill_srt(&mut self.session, &s);
                self.srt = Some(s);
            }
            SessionStatistics::Rtp(report) => self.set_rtp(vec![*report]),
            SessionStatistics::Media(reports) => self.set_rtp(reports),
        }
        self.rate
            .sample(now, self.stats.bytes_received + self.session.bytes_received);
        self.figures_at = now;
        self.key_frame_missing = !self.paused && self.timeline.key_frame_missing(now);
    }

    fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    fn set_rtp(&mut self, reports: Vec<MediaReport>) {
        self.session = StreamStats::default();
        for report in &reports {
            rtp::fill(&mut self.session, &report.statistics);
        }
        self.rtp = reports;
    }

    /// The session ended. `status` is what the stream is from now on.
    pub fn end_session(&mut self, now: Instant, reason: EndReason, status: Status) {
        self.end_source(now, reason, status);
        let session = core::mem::take(&mut self.session);
        add_session(&mut self.stats, &session);
    }

    /// The sources of a configured session are gone: the same, but for its figures, which are
    /// not those of one source.
    pub fn end_source(&mut self, now: Instant, reason: EndReason, status: Status) {
        for lane in self.lanes.iter_mut() {
            if let Some(pipeline) = lane.pipeline.as_mut() {
                pipeline.finish();
            }
        }
        self.drain_untimed(now);
        self.rate.reset();
        self.timeline.silence();
        self.figures_at = now;
        self.status = status;
        self.changed = true;
        let state = match status {
            Status::Reconnecting => PipelineState::Draining,
            _ => PipelineState::Stopping,
        };
        self.transition(now, state, reason.name());
    }

    /// Sets the status: pausing, termination after the grace period, errors.
    pub fn set_status(&mut self, now: Instant, status: Status, why: &'static str) {
        if self.status != status {
            self.status = status;
            self.changed = true;
        }
        if matches!(status, Status::Terminated | Status::Error) {
            self.transition(now, PipelineState::Stopping, why);
        }
    }

    /// Drops payload from now on, or goes on.
    pub fn set_paused(&mut self, now: Instant, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        for lane in self.lanes.iter_mut() {
            lane.broken = true;
        }
        if !paused {
            // What was dropped on purpose does not count as silence.
            self.heard_from = self.heard_from.max(now);
        }
        let active = matches!(self.status, Status::Active | Status::Paused);
        if active {
            let status = if paused {
                Status::Paused
            } else {
                Status::Active
            };
            self.set_status(now, status, "operator");
        }
        if !paused && self.state == PipelineState::Streaming {
            self.transition(now, PipelineState::Recovering, "resumed by operator");
        }
    }

    /// Counts a datagram of this stream's session that was not used.
    pub const fn count_discard(&mut self, reason: Discard) {
        self.discards.count(reason);
    }

    /// Whether [`Stream::take_changed`] would say so.
    #[inline]
    pub fn has_changed(&self) -> bool {
        self.changed || self.lanes.has_changed()
    }

    /// Whether the status changed since [`Stream::take_changed`] was called last.
    #[inline]
    pub const fn status_has_changed(&self) -> bool {
        self.changed
    }

    /// Whether status or tracks changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        self.changed |= self.lanes.take_changed();
        core::mem::take(&mut self.changed)
    }

    fn transition(&mut self, now: Instant, to: PipelineState, reason: &'static str) {
        if self.state == to {
            return;
        }
        if self.transitions.len() == TRANSITIONS_KEPT {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition {
            at: now,
            from: self.state,
            to,
            reason,
        });
        self.previous_state = self.state;
        self.state = to;
        self.changed = true;
    }

    /// Its identifier.
    pub const fn id(&self) -> &StreamId {
        &self.id
    }

    /// Its status.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// Where its present or last session comes from.
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When the last packet was delivered.
    pub const fn last_packet_at(&self) -> Option<Instant> {
        self.last_packet_at
    }

    /// Whether the session has brought no complete access unit for `timeout` (product
    /// contract, `stream.timeout`). Without a pipeline, packets count instead.
    pub fn is_stalled(&self, now: Instant, timeout: Duration) -> bool {
        let heard = if self.config.media {
            self.last_unit_at
        } else {
            self.last_packet_at
        };
        let since = heard.map_or(self.heard_from, |at| at.max(self.heard_from));
        !self.paused && now.saturating_since(since) > timeout
    }

    /// Elementary streams, of all lanes.
    pub fn tracks(&self) -> &[Track] {
        self.lanes.tracks()
    }

    /// Appends the unit's elementary-stream bytes to `out` (Annex B for H.264 and HEVC);
    /// `false` when some of them are overwritten already.
    pub fn extract(&self, unit: &AccessUnit, out: &mut Vec<u8>) -> bool {
        self.lanes.extract(unit, out)
    }

    /// The parameter sets in force of track `track`, for who joins late
    /// ([`Pipeline::parameter_sets`]).
    pub fn parameter_sets(&self, track: u16) -> &[u8] {
        self.lanes.parameter_sets(track)
    }

    /// The media pipelines, lane by lane.
    pub fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.lanes.iter().filter_map(|lane| lane.pipeline.as_ref())
    }

    /// Latency of this stream, as of when it was last settled ([`Stream::settle_latency`]).
    pub const fn latency(&self) -> &StreamLatency {
        &self.latency
    }

    /// Brings the latency of this stream, and its part in its shard's, up to date: before either
    /// is read or reset, and before the stream goes.
    pub fn settle_latency(&mut self, now: Instant, shard: &mut ShardLatency) {
        self.times_settled = now;
        self.times.settle(&mut self.latency, shard);
    }

    /// The same, once an hour: to be called every second.
    pub fn settle_latency_in_time(&mut self, now: Instant, shard: &mut ShardLatency) {
        if now.saturating_since(self.times_settled) >= TIMES_SETTLE_AFTER {
            self.settle_latency(now, shard);
        }
    }

    /// Latency of this stream starts afresh.
    pub fn reset_latency(&mut self) {
        self.latency.reset();
    }

    /// Counters and gauges now; the session's own as of the last
    /// [`Stream::set_session_statistics`].
    pub fn stats(&self) -> StreamStats {
        let mut stats = self.stats.clone();
        add_session(&mut stats, &self.session);
        copy_gauges(&mut stats, &self.session);
        stats.bitrate_bps = self.rate.per_second().saturating_mul(8);
        stats.gops = self.timeline.gops();
        stats.frame_rate_milli = self.frames.measured_rate_milli();
        stats.ring_capacity_slots = self.lanes.capacity_slots() as u64;
        stats.ring_used_slots = self.lanes.used_slots();
        stats.ring_capacity_bytes = self.lanes.capacity_bytes() as u64;
        stats.ring_used_bytes = self.lanes.used_bytes();
        stats.ring_slot_bytes = self.lanes.slot_bytes() as u64;
        stats.payload = self.payload.as_ref().map(|digest| digest.figures());
        stats.discards.add(&self.discards);
        for pipeline in self.pipelines() {
            let counters = pipeline.counters();
            stats.ts_packets += counters.ts_packets;
            stats.continuity_errors += counters.continuity_errors;
            stats.sync_losses += counters.sync_losses;
            stats.frames_dropped += counters.units_dropped + counters.units_left_out;
            stats.discards.add(&counters.discards);
        }
        stats
    }

    /// The stream as control sees it.
    pub fn snapshot(&self) -> StreamSnapshot {
        StreamSnapshot {
            stream_id: self.id.clone(),
            protocol: self.protocol,
            mode: self.mode,
            peer: self.peer,
            status: self.status,
            state: self.state,
            previous_state: self.previous_state,
            transitions: self.transitions.iter().copied().collect(),
            created_at: self.created_at,
            started_at: self.started_at,
            last_packet_at: self.last_packet_at,
            tracks: self.tracks().to_vec(),
            container: self.pipelines().find_map(Pipeline::container),
            stats: self.stats(),
            figures: Box::new(self.figures()),
            srt: self.srt.clone(),
            rtp: self.rtp.clone(),
            encryption: self.encryption,
        }
    }
}

fn fill_srt(to: &mut StreamStats, s: &mirror_srt::Statistics) {
    to.packets_received = s.pkt_recv;
    to.packets_unique = s.pkt_recv_unique;
    to.bytes_received = s.payload_bytes_received();
    to.packets_lost = s.pkt_rcv_loss;
    to.packets_retransmitted = s.pkt_rcv_retrans;
    to.packets_dropped = s.pkt_rcv_drop;
    to.packets_belated = s.pkt_rcv_belated;
    to.packets_duplicate = s.pkt_rcv_duplicate;
    to.packets_undecryptable = s.pkt_rcv_undecrypt;
    to.packets_reordered = s.pkt_rcv_reordered;
    to.rtt_us = s.rtt_us;
    to.rtt_variance_us = s.rtt_var_us;
    to.acks_sent = s.pkt_sent_ack;
    to.naks_sent = s.pkt_sent_nak;
    to.ackacks_received = s.pkt_recv_ackack;
    to.link_capacity_pps = s.link_capacity_pps;
    to.packets_held = s.pkt_rcv_buf;
    to.drift_us = s.drift_us;
}

fn add_session(to: &mut StreamStats, s: &StreamStats) {
    to.packets_received += s.packets_received;
    to.packets_unique += s.packets_unique;
    to.bytes_received += s.bytes_received;
    to.packets_lost += s.packets_lost;
    to.packets_retransmitted += s.packets_retransmitted;
    to.packets_dropped += s.packets_dropped;
    to.packets_belated += s.packets_belated;
    to.packets_duplicate += s.packets_duplicate;
    to.packets_undecryptable += s.packets_undecryptable;
    to.packets_reordered += s.packets_reordered;
    to.acks_sent += s.acks_sent;
    to.naks_sent += s.naks_sent;
    to.ackacks_received += s.ackacks_received;
}

const fn copy_gauges(to: &mut StreamStats, s: &StreamStats) {
    to.rtt_us = s.rtt_us;
    to.rtt_variance_us = s.rtt_variance_us;
    to.jitter_us = s.jitter_us;
    to.link_capacity_pps = s.link_capacity_pps;
    to.packets_held = s.packets_held;
    to.latency_ms = s.latency_ms;
    to.drift_us = s.drift_us;
}

mod memory;
#[cfg(test)]
mod tests;
mod units;
