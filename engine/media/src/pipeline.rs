//! A stream's pipeline: MPEG-TS goes to the demultiplexer, RTP payload formats to their
//! depacketiser, and an RTP stream whose bits turn out to be MPEG-TS to both. Called by
//! `stream`, once for each delivered packet.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use mirror_base::{Discard, Instant, SlotRing};

use crate::depacketise::{RtpInput, Taken};
use crate::ts::framer::When;
use crate::ts::{Demux, Framer, PACKET, USUAL, extract, place::Place};
use crate::{AccessUnit, Counters, Damaged, Format, Limits, Packet, Track};

/// Lost packets that continuity counters of 4 bits are sure to show: two datagrams hold at
/// most 14 TS packets.
const COVERED_BY_CONTINUITY: u32 = 2;

/// From delivered packets to access units.
#[derive(Debug)]
pub struct Pipeline {
    rtp: Option<Box<RtpInput>>,
    ts: Option<Box<Ts>>,
    limits: Limits,
    /// Figures of the RTP side; those of MPEG-TS are the demultiplexer's.
    counters: Counters,
    /// Versions of the tracks of a demultiplexer that is gone.
    past_version: u32,
}

#[derive(Debug)]
struct Ts {
    framer: Framer,
    demux: Demux,
}

/// `payload` as the packets that it is, if it is the usual number of them.
#[inline]
fn usual(payload: &[u8]) -> Option<&[[u8; PACKET]; USUAL]> {
    let payload = <&[u8; USUAL * PACKET]>::try_from(payload).ok()?;
    payload.as_chunks().0.try_into().ok()
}

impl Ts {
    fn new(limits: Limits) -> Box<Self> {
        Box::new(Ts {
            framer: Framer::default(),
            demux: Demux::new(limits),
        })
    }

    #[inline(never)]
    fn push(&mut self, packet: &Packet<'_>) {
        if packet.discontinuity || packet.lost_before > 0 {
            self.gap(packet);
        }
        let mut taken = 0;
        if let Some(packets) = usual(packet.payload)
            && self.framer.is_express()
        {
            taken = self.demux.usual(packets, packet.slot, packet.arrival);
            if taken == USUAL {
                return;
            }
        }
        self.push_any(packet, taken);
    }

    /// Any payload, the first `taken` packets of which are dealt with.
    #[inline(never)]
    fn push_any(&mut self, packet: &Packet<'_>, taken: usize) {
        let (packets, rest) = packet.payload.as_chunks::<PACKET>();
        if rest.is_empty() && self.framer.takes_plain(packets) {
            let (slot, arrival) = (packet.slot, packet.arrival);
            let taken = self.demux.payload(packets, taken, slot, arrival);
            if taken < packets.len() {
                // A wrong sync byte.
                self.push_unaligned(packet, taken * PACKET);
            }
            return;
        }
        self.push_unaligned(packet, 0);
    }

    /// A payload that is not whole packets of 188 bytes from `start` on, or comes behind such a
    /// one.
    #[cold]
    fn push_unaligned(&mut self, packet: &Packet<'_>, start: usize) {
        let Ts { framer, demux } = self;
        let mut single = |ts_packet: &[u8; PACKET], place: &Place, when: When| {
            demux.single(ts_packet, place, when.arrival, when.skipped);
        };
        let Packet {
            slot,
            payload,
            arrival,
            ..
        } = *packet;
        let lost = framer.push(slot, payload, start, arrival, &mut single);
        if lost.is_some() {
            demux.framing(lost, packet.arrival);
        }
    }

    /// The stream has ended: what the framer still holds, and the units in the making.
    fn finish(&mut self) {
        let Ts { framer, demux } = self;
        let mut last = Instant::ZERO;
        let lost = framer.finish(|ts_packet, place, when| {
            last = when.arrival;
            demux.single(ts_packet, place, when.arrival, when.skipped);
        });
        if lost.is_some() {
            demux.framing(lost, last);
        }
        demux.finish();
    }

    #[cold]
    fn gap(&mut self, packet: &Packet<'_>) {
        self.framer.restart();
        if packet.discontinuity {
            self.demux.restart(packet.arrival);
        } else if packet.lost_before > COVERED_BY_CONTINUITY {
            self.demux.lost();
        } else {
            self.demux.lost_some();
        }
    }
}

impl Pipeline {
    /// A fresh one.
    pub fn new(format: Format, limits: Limits) -> Self {
        let (rtp, ts) = match format {
            Format::MpegTs => (None, Some(Ts::new(limits.clone()))),
            Format::Rtp {
                hint,
                clock_rate,
                ssrc,
            } => (
                Some(Box::new(RtpInput::new(
                    hint,
                    clock_rate,
                    ssrc,
                    limits.clone(),
                ))),
                None,
            ),
        };
        Pipeline {
            rtp,
            ts,
            limits,
            counters: Counters::default(),
            past_version: 0,
        }
    }

    /// One delivered packet.
    #[inline]
    pub fn push(&mut self, mut packet: Packet<'_>) {
        match (&mut self.rtp, &mut self.ts) {
            (None, Some(ts)) => ts.push(&packet),
            _ => self.push_rtp(&mut packet),
        }
    }

    #[inline(never)]
    fn push_rtp(&mut self, packet: &mut Packet<'_>) {
        if let Some(rtp) = &mut self.rtp {
            match rtp.push(packet) {
                Taken::MpegTs => {}
                Taken::Done => {
                    if self.ts.is_some() {
                        self.leave_ts();
                    }
                    return;
                }
                Taken::Discarded(reason) => return self.discard(reason),
            }
        }
        if self.ts.is_none() {
            self.enter_ts();
        }
        if let Some(ts) = &mut self.ts {
            ts.push(packet);
        }
    }

    /// The payload is MPEG-TS, as it seems. Its tracks take the place of those there were, and
    /// units of these that nobody has polled have none any more.
    #[cold]
    fn enter_ts(&mut self) {
        let mut ts = Ts::new(self.limits.clone());
        let mut counters = core::mem::take(&mut self.counters);
        while self.rtp.as_mut().is_some_and(|r| r.poll_unit().is_some()) {
            counters.units_dropped += 1;
        }
        *ts.demux.counters_mut() = counters;
        self.ts = Some(ts);
    }

    /// The payload is not MPEG-TS, though it seemed so.
    #[cold]
    fn leave_ts(&mut self) {
        if let Some(mut ts) = self.ts.take() {
            self.past_version = self
                .past_version
                .wrapping_add(ts.demux.tracks_version())
                .wrapping_add(1);
            self.counters = core::mem::take(ts.demux.counters_mut());
        }
    }

    fn discard(&mut self, reason: Discard) {
        let counters = match &mut self.ts {
            Some(ts) => ts.demux.counters_mut(),
            None => &mut self.counters,
        };
        counters.discards.count(reason);
    }

    /// RTP: the source is `ssrc` now.
    #[inline]
    pub fn set_ssrc(&mut self, ssrc: u32) {
        if let Some(rtp) = &mut self.rtp {
            rtp.set_ssrc(ssrc);
        }
    }

    /// Time passed: units that wait too long are closed as damaged, unless their source has
    /// shown that they are whole.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(rtp) = &mut self.rtp {
            rtp.handle_timeout(now);
        }
        if let Some(ts) = &mut self.ts {
            ts.demux.handle_timeout(now);
        }
    }

    /// The stream has ended: closes units that only a successor would delimit.
    pub fn finish(&mut self) {
        if let Some(rtp) = &mut self.rtp {
            rtp.finish();
        }
        if let Some(ts) = &mut self.ts {
            ts.finish();
        }
    }

    /// The next complete access unit, in decoding order of its track.
    #[inline]
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        loop {
            let unit = match (&mut self.ts, &mut self.rtp) {
                (Some(ts), _) => ts.demux.poll_unit(),
                (None, Some(rtp)) => rtp.poll_unit(),
                (None, None) => None,
            }?;
            if self.count_unit(&unit) {
                return Some(unit);
            }
        }
    }

    /// Counts a unit. Whether it is handed out.
    #[inline]
    fn count_unit(&mut self, unit: &AccessUnit) -> bool {
        let left_out = unit.damaged && self.limits.damaged == Damaged::Drop;
        let counters = match &mut self.ts {
            Some(ts) => ts.demux.counters_mut(),
            None => &mut self.counters,
        };
        counters.units_undecodable += u64::from(unit.undecodable);
        if left_out {
            counters.units_left_out += 1;
        } else {
            counters.units += 1;
            counters.units_damaged += u64::from(unit.damaged);
            counters.units_references_missing += u64::from(unit.references_missing);
        }
        !left_out
    }

    /// The next splice command (SCTE 35).
    pub fn poll_splice(&mut self) -> Option<crate::Splice> {
        self.ts.as_mut()?.demux.poll_splice()
    }

    /// What TR 101 290 measures; `None` for other than MPEG-TS, or when it is switched off.
    pub fn tr101290(&self) -> Option<&crate::Tr101290> {
        self.ts.as_ref()?.demux.tr101290()
    }

    /// The parameter sets in force of the track at `index`, for who joins late: Annex B VPS,
    /// SPS and PPS with 4-byte start codes, an AV1 sequence header OBU, or from SDP an
    /// AudioSpecificConfig (AAC) or StreamMuxConfig (LATM). Empty where there are none.
    pub fn parameter_sets(&self, index: u16) -> &[u8] {
        match (&self.ts, &self.rtp) {
            (Some(ts), _) => ts.demux.parameter_sets(index),
            (None, Some(rtp)) => rtp.parameter_sets(index),
            (None, None) => &[],
        }
    }

    /// The elementary streams; indexes stay valid. `tracks_version` grows with each change.
    pub fn tracks(&self) -> &[Track] {
        match (&self.ts, &self.rtp) {
            (Some(ts), _) => ts.demux.tracks(),
            (None, Some(rtp)) => rtp.tracks(),
            (None, None) => &[],
        }
    }

    /// Grows with each change of `tracks`.
    pub fn tracks_version(&self) -> u32 {
        let rtp = self.rtp.as_ref().map_or(0, |r| r.tracks_version());
        let ts = self.ts.as_ref().map_or(0, |t| t.demux.tracks_version());
        self.past_version.wrapping_add(rtp).wrapping_add(ts)
    }

    /// "mpegts", "H264", ... once known.
    pub fn container(&self) -> Option<&'static str> {
        match (&self.rtp, &self.ts) {
            (Some(rtp), _) => rtp.container(),
            (None, Some(ts)) => (ts.demux.counters().ts_packets > 0).then_some("mpegts"),
            (None, None) => None,
        }
    }

    /// When `handle_timeout` is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rtp = self.rtp.as_ref().and_then(|r| r.poll_timeout());
        let ts = self.ts.as_ref().and_then(|t| t.demux.poll_timeout());
        rtp.into_iter().chain(ts).min()
    }

    /// Figures.
    pub fn counters(&self) -> &Counters {
        self.ts
            .as_ref()
            .map_or(&self.counters, |ts| ts.demux.counters())
    }

    /// The newest clock reference of each MPEG-TS program: program number and PCR.
    pub fn clocks(&self) -> impl Iterator<Item = (u16, crate::ts::Pcr)> + '_ {
        self.ts.iter().flat_map(|ts| ts.demux.clocks())
    }

    /// Appends the unit's elementary-stream bytes to `out` (Annex B for H.264/HEVC; the payload
    /// of PES packets as it is where these are the units), re-reading the slots. `false` when a slot is already overwritten.
    pub fn extract(&self, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
        match (&self.ts, &self.rtp) {
            (Some(ts), _) => {
                let track = ts.demux.tracks().get(usize::from(unit.track));
                let stride = ts.framer.stride();
                let units = self.limits.units;
                track.is_some_and(|track| extract::extract(track, units, stride, unit, ring, out))
            }
            (None, Some(rtp)) => rtp.extract(unit, ring, out),
            (None, None) => false,
        }
    }
}
