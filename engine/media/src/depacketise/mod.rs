//! From RTP payloads to access units: H.264 (RFC 6184), HEVC (RFC 7798) and MPEG-TS
//! (RFC 2250), told apart by their bits. [`crate::Pipeline`] owns an [`RtpInput`] for each RTP
//! stream: it feeds it every delivered packet and hands the payloads that turn out to be
//! MPEG-TS to its demultiplexer.
//!
//! Packets of one timestamp are one access unit. The marker bit ends it at once, so that a
//! unit need not wait for its successor; a change of the timestamp ends it too, in case the
//! marker was lost or is never set (RFC 6184, 5.1). The assembler holds both against the
//! standard's own rules.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

mod detect;
mod nal;

use std::collections::VecDeque;

use mirror_base::seq::Unwrapper;
use mirror_base::{Discard, Instant, SlotRing};

use crate::codec::VideoInfo;
use crate::{AccessUnit, Assembler, Codec, Limits, Packet, Track};
use detect::{Detector, Kind};
use nal::NalDepacketiser;

/// Packets in a row with another payload type until that one is followed.
const FOLLOW_PAYLOAD_TYPE: u32 = 8;
/// Units that wait over a change of codec.
const MAX_READY: usize = 64;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It was used, or kept nothing worth using.
    Done,
    /// Its payload is MPEG-TS: for the demultiplexer.
    MpegTs,
    /// It, or a part of it, could not be used.
    Discarded(Discard),
}

/// A stream of NAL units.
#[derive(Debug)]
struct Video {
    nal: NalDepacketiser,
    assembler: Assembler,
    info_version: u32,
}

/// The payloads of one RTP stream. See the module's page.
#[derive(Debug)]
pub struct RtpInput {
    limits: Limits,
    clock_rate: u32,
    ssrc: u32,
    detector: Detector,
    payload_type: Option<u8>,
    other_type: u32,
    /// Marks of packets that were left out, for the next one that is used.
    lost_before: u32,
    discontinuity: bool,
    video: Option<Video>,
    timestamp: Option<u32>,
    unwrapper: Unwrapper<32>,
    tracks: Vec<Track>,
    tracks_version: u32,
    ready: VecDeque<AccessUnit>,
    last_arrival: Instant,
}

impl RtpInput {
    /// `codec` is a hint. `clock_rate` of 0 stands for 90 kHz.
    pub fn new(codec: Option<Codec>, clock_rate: u32, ssrc: u32, limits: Limits) -> Self {
        let mut input = RtpInput {
            limits,
            clock_rate: if clock_rate == 0 { 90_000 } else { clock_rate },
            ssrc,
            detector: Detector::new(codec),
            payload_type: None,
            other_type: 0,
            lost_before: 0,
            discontinuity: false,
            video: None,
            timestamp: None,
            unwrapper: Unwrapper::new(),
            tracks: Vec::new(),
            tracks_version: 0,
            ready: VecDeque::new(),
            last_arrival: Instant::ZERO,
        };
        input.follow_detector();
        input
    }

    /// One delivered packet. It gets the marks of those that were left out before it, in case
    /// it is to be handed on.
    #[inline]
    pub fn push(&mut self, packet: &mut Packet<'_>) -> Taken {
        if self.payload_type != Some(packet.payload_type) && !self.follow_type(packet) {
            return self.leave_out(packet, Discard::UnknownPayloadType);
        }
        self.other_type = 0;
        self.last_arrival = packet.arrival;
        if self.detector.observe(packet.payload_type, packet.payload) {
            self.follow_detector();
        }
        let kind = self.detector.kind();
        if !matches!(kind, Some(Kind::MpegTs | Kind::Nal(_))) {
            return self.leave_out(packet, detect::refusal(kind));
        }
        packet.lost_before = packet
            .lost_before
            .saturating_add(core::mem::take(&mut self.lost_before));
        packet.discontinuity |= core::mem::take(&mut self.discontinuity);
        if kind == Some(Kind::MpegTs) {
            return Taken::MpegTs;
        }
        self.push_nal(packet)
    }

    /// A packet that is not used: what was lost before it was of the stream all the same.
    #[cold]
    fn leave_out(&mut self, packet: &Packet<'_>, reason: Discard) -> Taken {
        self.lost_before = self.lost_before.saturating_add(packet.lost_before);
        self.discontinuity |= packet.discontinuity;
        Taken::Discarded(reason)
    }

    #[inline]
    fn push_nal(&mut self, packet: &Packet<'_>) -> Taken {
        let Some(video) = &mut self.video else {
            return Taken::Done;
        };
        if packet.discontinuity {
            video.nal.interrupt();
            video.assembler.restart(packet.arrival);
            self.timestamp = None;
        } else if packet.lost_before > 0 {
            video.nal.interrupt();
            video.assembler.damage();
        }
        if self.timestamp != Some(packet.timestamp) {
            self.timestamp = Some(packet.timestamp);
            let units = self.unwrapper.unwrap(u64::from(packet.timestamp));
            let pts = to_90_khz(units, self.clock_rate);
            video.assembler.next_timestamp(Some(pts), packet.arrival);
        }
        let outcome = video.nal.push(packet, &mut video.assembler);
        if packet.marker {
            video.assembler.end_of_unit(packet.arrival);
        }
        if video.assembler.info().0 != video.info_version {
            self.learn();
        }
        outcome.map_or_else(Taken::Discarded, |()| Taken::Done)
    }

    /// Another payload type than before: followed once it proves to be no stray (comfort
    /// noise, retransmission, FEC of the same source).
    #[cold]
    fn follow_type(&mut self, packet: &Packet<'_>) -> bool {
        self.other_type += 1;
        if self.payload_type.is_some() && self.other_type < FOLLOW_PAYLOAD_TYPE {
            return false;
        }
        self.payload_type = Some(packet.payload_type);
        true
    }

    /// The kind of payload is another now: what was made of the old one is closed.
    fn follow_detector(&mut self) {
        if let Some(mut video) = self.video.take() {
            video.assembler.close(self.last_arrival, true);
            while let Some(unit) = video.assembler.poll_unit() {
                if self.tracks.is_empty() || self.ready.len() >= MAX_READY {
                    break;
                }
                self.ready.push_back(unit);
            }
        }
        self.timestamp = None;
        let Some(Kind::Nal(codec)) = self.detector.kind() else {
            return;
        };
        // The number of the track that will be shown for it: a used one is kept as it is.
        let last = self.limits.max_tracks.clamp(1, 64) - 1;
        let track = self.tracks.len().min(last) as u16;
        if let Some(assembler) = Assembler::new(codec, track, &self.limits, true) {
            let nal = NalDepacketiser::new(codec);
            self.video = Some(Video {
                nal,
                assembler,
                info_version: 0,
            });
        }
    }

    /// Shows the track, or what its parameter sets tell anew.
    #[cold]
    fn learn(&mut self) {
        let Some(Kind::Nal(codec)) = self.detector.kind() else {
            return;
        };
        let Some(video) = &mut self.video else { return };
        let (version, info) = video.assembler.info();
        video.info_version = version;
        let track = describe(self.ssrc, codec, info);
        let index = usize::from(video.assembler.track());
        match self.tracks.get_mut(index) {
            Some(place) => *place = track,
            None => self.tracks.push(track),
        }
        self.tracks_version += 1;
    }

    /// Time passed: a unit that waits too long is closed as damaged.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.close(now, true);
        }
    }

    /// When [`RtpInput::handle_timeout`] is due next.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let since = self.video.as_ref()?.assembler.waiting_since()?;
        Some(since + self.limits.assembly_timeout)
    }

    /// The stream has ended: closes the unit that only a successor would delimit.
    pub fn finish(&mut self) {
        self.close(self.last_arrival, false);
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        if let Some(video) = &mut self.video {
            video.nal.interrupt();
            video.assembler.close(now, damaged);
        }
    }

    /// The next complete access unit, in decoding order. None comes before the bits have shown
    /// what the payload is.
    #[inline]
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        if let Some(unit) = self.ready.pop_front() {
            return Some(unit);
        }
        let video = self.video.as_mut()?;
        if !video.assembler.has_unit() || !self.detector.is_certain() {
            return None;
        }
        let index = usize::from(video.assembler.track());
        if self.tracks.get(index).is_none() {
            // Its parameter sets have not come yet.
            self.learn();
        }
        self.video.as_mut()?.assembler.poll_unit()
    }

    /// The elementary streams: one, or one more after each change of codec. Indexes stay valid.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Grows with each change of [`RtpInput::tracks`].
    pub const fn tracks_version(&self) -> u32 {
        self.tracks_version
    }

    /// "mpegts", or the codec's name, once known.
    pub fn container(&self) -> Option<&'static str> {
        match self.detector.kind()? {
            Kind::Nal(codec) => self.detector.is_certain().then(|| codec.name()),
            Kind::MpegTs => self.detector.is_certain().then_some("mpegts"),
            Kind::Other(codec) => Some(codec.name()),
        }
    }

    /// Figures of the assembler.
    pub fn assembler(&self) -> Option<&Assembler> {
        self.video.as_ref().map(|v| &v.assembler)
    }

    /// Appends the unit's bytes to `out`: Annex B with four-byte start codes. `false` when a
    /// slot is already overwritten.
    pub fn extract(&self, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
        let track = self.tracks.get(usize::from(unit.track));
        track.is_some_and(|track| nal::extract(track.codec, unit, ring, out))
    }
}

/// Clock units, unwrapped from one turn up, as 90 kHz ticks.
#[inline]
fn to_90_khz(units: u64, clock_rate: u32) -> i64 {
    let units = units.cast_signed() - (1 << 32);
    if clock_rate == 90_000 {
        return units;
    }
    let ticks = i128::from(units) * 90_000 / i128::from(clock_rate);
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

fn describe(ssrc: u32, codec: Codec, info: &VideoInfo) -> Track {
    let mut track = Track {
        id: ssrc,
        codec,
        ..Track::default()
    };
    track.set_video(info);
    track
}

#[cfg(test)]
mod tests;
