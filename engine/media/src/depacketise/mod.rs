//! From RTP payloads to access units. [`crate::Pipeline`] owns an [`RtpInput`] for each RTP
//! stream: it feeds it every delivered packet and hands the payloads that turn out to be
//! MPEG-TS to its demultiplexer. What the payloads are is told by a hint ([`parameters`]) and by
//! their bits ([`detect`]).
//!
//! Each payload format is a [`Depacketise`] and a variant of [`Depacketiser`]:
//!
//! ```text
//! nal_stream   H.264 (RFC 6184), HEVC (RFC 7798), with or without decoding order numbers
//! av1          AV1 (AOMedia)
//! jpegxs       JPEG XS (RFC 9134)
//! mpv          MPEG video (RFC 2250)
//! aac, latm    AAC (RFC 3640, RFC 6416)
//! sound        Opus (RFC 7587), L16 and L24 (RFC 3551, RFC 3190), AC-3 (RFC 4184), E-AC-3
//!              (RFC 4598), MPEG audio (RFC 2250)
//! stamped      VP8 (RFC 7741), VP9 (RFC 9628), KLV (RFC 6597), ancillary data (RFC 8331)
//! ```
//!
//! No media byte is kept: a unit names the places of its ends in the slots, and an [`Extractor`]
//! finds its bytes there again.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

mod aac;
mod av1;
mod decoding_order;
mod detect;
mod fits;
mod headers;
mod jpegxs;
mod latm;
mod mpv;
mod nal;
mod nal_stream;
pub mod parameters;
mod pictures;
mod sound;
mod stamped;
mod units;

use std::collections::VecDeque;

use mirror_base::seq::Unwrapper;
use mirror_base::{Discard, Instant, SlotRing};

use crate::codec::audio::AudioInfo;
use crate::{AccessUnit, Assembler, Limits, Packet, Track};
use aac::AacStream;
use av1::Av1Depacketiser;
use detect::Detector;
use headers::Header;
use jpegxs::JxsDepacketiser;
use latm::LatmStream;
use mpv::MpvStream;
use nal_stream::NalStream;
pub use parameters::{FormatParameters, PayloadFormat, PayloadHint};
use sound::SoundStream;
use stamped::StampedStream;

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

/// What a depacketiser is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) format: PayloadFormat,
    /// Those of the hint if it is of this format, else the defaults.
    pub(crate) parameters: &'a FormatParameters,
    /// Hz; 0 when nobody says it.
    pub(crate) clock_rate: u32,
    pub(crate) limits: &'a Limits,
    /// The number of its track, for its units.
    pub(crate) track: u16,
}

impl Setup<'_> {
    /// The clock rate, or what is usual for the format.
    pub(crate) const fn clock_rate_or_usual(&self) -> u32 {
        match self.clock_rate {
            0 => self.format.clock_rate(),
            rate => rate,
        }
    }
}

/// A packet for a depacketiser.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) packet: &'a Packet<'a>,
    /// Its RTP timestamp unwrapped, in clock ticks.
    pub(crate) units: i64,
}

/// What lies between a packet and the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gap {
    /// Packets are missing.
    Loss,
    /// The stream starts afresh.
    Restart,
}

/// What every payload format does. Not used as a trait object: [`Depacketiser`] lists them all.
pub(crate) trait Depacketise {
    /// One packet. `Err` names the first thing wrong in it; the rest may have been used.
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard>;

    /// Called before `push` when the packet does not follow its predecessor.
    fn gap(&mut self, gap: Gap, arrival: Instant);

    /// Closes the unit in the making and hands out what is held back.
    fn close(&mut self, now: Instant, damaged: bool);

    /// When the unit in the making (or the oldest one that is held back) got its last byte.
    fn waiting_since(&self) -> Option<Instant>;

    /// Whether [`Depacketise::poll_unit`] has something.
    fn has_unit(&self) -> bool;

    /// The next complete unit in decoding order.
    fn poll_unit(&mut self) -> Option<AccessUnit>;

    /// Grows with each change of what [`Depacketise::describe`] tells.
    fn version(&self) -> u32;

    /// Writes what the bits (and the parameters) tell of the track.
    fn describe(&self, track: &mut Track);

    /// How the bytes of its units are found again.
    fn extractor(&self) -> Extractor;

    /// See [`crate::Pipeline::parameter_sets`].
    fn parameter_sets(&self) -> &[u8] {
        &[]
    }
}

/// The payload formats that are taken apart.
#[derive(Debug)]
pub(crate) enum Depacketiser {
    Nal(Box<NalStream>),
    Av1(Box<Av1Depacketiser>),
    JpegXs(Box<JxsDepacketiser>),
    Mpv(Box<MpvStream>),
    Aac(Box<AacStream>),
    Latm(Box<LatmStream>),
    Sound(Box<SoundStream>),
    Stamped(Box<StampedStream>),
}

/// Does the same with whatever depacketiser it is.
macro_rules! each {
    ($depacketiser:expr, $d:ident => $what:expr) => {
        match $depacketiser {
            Depacketiser::Nal($d) => $what,
            Depacketiser::Av1($d) => $what,
            Depacketiser::JpegXs($d) => $what,
            Depacketiser::Mpv($d) => $what,
            Depacketiser::Aac($d) => $what,
            Depacketiser::Latm($d) => $what,
            Depacketiser::Sound($d) => $what,
            Depacketiser::Stamped($d) => $what,
        }
    };
}

impl Depacketiser {
    /// `None` for MPEG-TS.
    fn new(setup: &Setup<'_>) -> Option<Self> {
        Some(match setup.format {
            PayloadFormat::H264 | PayloadFormat::H265 => {
                Depacketiser::Nal(Box::new(NalStream::new(setup)?))
            }
            PayloadFormat::Av1 => Depacketiser::Av1(Box::new(Av1Depacketiser::new(setup))),
            PayloadFormat::Jxsv => Depacketiser::JpegXs(Box::new(JxsDepacketiser::new(setup))),
            PayloadFormat::Mpv => Depacketiser::Mpv(Box::new(MpvStream::new(setup)?)),
            PayloadFormat::Mpeg4Generic => Depacketiser::Aac(Box::new(AacStream::new(setup))),
            PayloadFormat::Mp4aLatm => Depacketiser::Latm(Box::new(LatmStream::new(setup))),
            PayloadFormat::Opus
            | PayloadFormat::Ac3
            | PayloadFormat::Eac3
            | PayloadFormat::Mpa
            | PayloadFormat::L16
            | PayloadFormat::L24 => Depacketiser::Sound(Box::new(SoundStream::new(setup))),
            PayloadFormat::Vp8
            | PayloadFormat::Vp9
            | PayloadFormat::Smpte336m
            | PayloadFormat::Smpte291 => Depacketiser::Stamped(Box::new(StampedStream::new(setup))),
            // The demultiplexer's.
            PayloadFormat::Mp2t => return None,
        })
    }
}

/// How the bytes of a track's units are found again in the slots.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extractor {
    /// NAL units, in the order of their packets.
    Nal(nal::Form),
    /// OBUs, in the order of their packets.
    Av1,
    /// Codestreams, in the order of their packets' counters.
    JpegXs,
    /// Bytes behind a header, in the order of their packets.
    Behind(Header),
    /// NAL units in decoding order: the depacketiser has written down where they lie.
    Listed,
}

/// The payloads of one RTP stream. See the module's page.
#[derive(Debug)]
pub struct RtpInput {
    limits: Limits,
    hint: Option<PayloadHint>,
    clock_rate: u32,
    ssrc: u32,
    detector: Detector,
    payload_type: Option<u8>,
    other_type: u32,
    /// Marks of packets that were left out, for the next one that is used.
    lost_before: u32,
    discontinuity: bool,
    depacketiser: Option<Depacketiser>,
    /// Of what the depacketiser tells, shown in `tracks`.
    shown_version: u32,
    unwrapper: Unwrapper<32>,
    tracks: Vec<Track>,
    /// One for each track.
    extractors: Vec<Extractor>,
    /// The track of the depacketiser's units.
    track: u16,
    tracks_version: u32,
    ready: VecDeque<AccessUnit>,
    last_arrival: Instant,
}

impl RtpInput {
    /// `clock_rate` of 0: what is usual for the format.
    pub fn new(hint: Option<PayloadHint>, clock_rate: u32, ssrc: u32, limits: Limits) -> Self {
        let mut input = RtpInput {
            limits,
            clock_rate,
            ssrc,
            detector: Detector::new(hint.as_ref().map(|h| h.format)),
            hint,
            payload_type: None,
            other_type: 0,
            lost_before: 0,
            discontinuity: false,
            depacketiser: None,
            shown_version: 0,
            unwrapper: Unwrapper::new(),
            tracks: Vec::new(),
            extractors: Vec::new(),
            track: 0,
            tracks_version: 0,
            ready: VecDeque::new(),
            last_arrival: Instant::ZERO,
        };
        input.follow_detector();
        input
    }

    /// The source is `ssrc` now: its tracks are named by it.
    #[inline]
    pub fn set_ssrc(&mut self, ssrc: u32) {
        if self.ssrc == ssrc {
            return;
        }
        self.ssrc = ssrc;
        for track in &mut self.tracks {
            track.id = ssrc;
        }
        self.tracks_version += u32::from(!self.tracks.is_empty());
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
        if self
            .detector
            .observe(packet.payload_type, packet.timestamp, packet.payload)
        {
            self.follow_detector();
        }
        let is_ts = self.detector.kind() == Some(PayloadFormat::Mp2t);
        if !is_ts && self.depacketiser.is_none() {
            return self.leave_out(packet, detect::refusal(self.detector.kind()));
        }
        packet.lost_before = packet
            .lost_before
            .saturating_add(core::mem::take(&mut self.lost_before));
        packet.discontinuity |= core::mem::take(&mut self.discontinuity);
        if is_ts {
            return Taken::MpegTs;
        }
        self.push_media(packet)
    }

    /// A packet that is not used: what was lost before it was of the stream all the same.
    #[cold]
    fn leave_out(&mut self, packet: &Packet<'_>, reason: Discard) -> Taken {
        self.lost_before = self.lost_before.saturating_add(packet.lost_before);
        self.discontinuity |= packet.discontinuity;
        Taken::Discarded(reason)
    }

    #[inline]
    fn push_media(&mut self, packet: &Packet<'_>) -> Taken {
        let Some(depacketiser) = &mut self.depacketiser else {
            return Taken::Done;
        };
        if packet.discontinuity {
            each!(depacketiser, d => d.gap(Gap::Restart, packet.arrival));
        } else if packet.lost_before > 0 {
            each!(depacketiser, d => d.gap(Gap::Loss, packet.arrival));
        }
        // One turn up is where the unwrapper begins.
        let units = self.unwrapper.unwrap(u64::from(packet.timestamp));
        let units = units.cast_signed() - (1 << 32);
        let outcome = each!(depacketiser, d => d.push(&Arrived { packet, units }));
        if each!(depacketiser, d => d.version()) != self.shown_version {
            self.learn();
        }
        outcome.map_or_else(Taken::Discarded, |()| Taken::Done)
    }

    /// Another payload type than before: followed when its packets go on with what there is, or
    /// show what they are, else once it proves to be no stray (comfort noise, retransmission, FEC
    /// of the same source). Static types below 96 may well be comfort noise.
    #[cold]
    fn follow_type(&mut self, packet: &Packet<'_>) -> bool {
        let number = packet.payload_type;
        if self.payload_type.is_some() {
            self.other_type += 1;
            let is_clear = number >= 96 && self.detector.recognises(number, packet.payload);
            if !is_clear && self.other_type < FOLLOW_PAYLOAD_TYPE {
                return false;
            }
            self.detector.doubt();
        } else if self.hint.is_none()
            && let Some((format, clock_rate, channels)) = PayloadFormat::from_static_type(number)
        {
            let mut hint = PayloadHint::from(format);
            hint.parameters.channels = channels;
            self.hint = Some(hint);
            if self.clock_rate == 0 {
                self.clock_rate = clock_rate;
            }
            self.detector = Detector::new(Some(format));
            self.follow_detector();
        }
        self.payload_type = Some(number);
        true
    }

    /// The kind of payload is another now: what was made of the old one is closed.
    fn follow_detector(&mut self) {
        self.close(self.last_arrival, true);
        if let Some(mut old) = self.depacketiser.take() {
            while let Some(unit) = each!(&mut old, d => d.poll_unit()) {
                // Of a track that was never shown nothing was believed.
                let is_shown = usize::from(unit.track) < self.tracks.len();
                if !is_shown || self.ready.len() >= MAX_READY {
                    break;
                }
                self.ready.push_back(unit);
            }
        }
        self.shown_version = 0;
        // The number of the track that will be shown for it: a used one is kept as it is.
        let last = self.limits.max_tracks.clamp(1, 64) - 1;
        self.track = self.tracks.len().min(last) as u16;
        let Some(format) = self.detector.kind() else {
            return;
        };
        let absent = FormatParameters::default();
        let hint = self.hint.as_ref().filter(|h| h.format == format);
        self.depacketiser = Depacketiser::new(&Setup {
            format,
            parameters: hint.map_or(&absent, |h| &h.parameters),
            clock_rate: self.clock_rate,
            limits: &self.limits,
            track: self.track,
        });
    }

    /// Shows the track, or what its bits tell anew.
    #[cold]
    fn learn(&mut self) {
        let (Some(format), Some(depacketiser)) = (self.detector.kind(), &self.depacketiser) else {
            return;
        };
        let mut track = Track {
            id: self.ssrc,
            codec: format.codec(),
            ..Track::default()
        };
        each!(depacketiser, d => d.describe(&mut track));
        let extractor = each!(depacketiser, d => d.extractor());
        self.shown_version = each!(depacketiser, d => d.version());
        let index = usize::from(self.track);
        match (self.tracks.get_mut(index), self.extractors.get_mut(index)) {
            (Some(place), Some(how)) => (*place, *how) = (track, extractor),
            _ => {
                self.tracks.push(track);
                self.extractors.push(extractor);
            }
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
        let since = each!(self.depacketiser.as_ref()?, d => d.waiting_since())?;
        Some(since + self.limits.assembly_timeout)
    }

    /// The stream has ended: closes the unit that only a successor would delimit.
    pub fn finish(&mut self) {
        self.close(self.last_arrival, false);
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        if let Some(depacketiser) = &mut self.depacketiser {
            each!(depacketiser, d => d.close(now, damaged));
        }
    }

    /// The next complete access unit, in decoding order. None comes before it is clear what the
    /// payload is.
    #[inline]
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        if let Some(unit) = self.ready.pop_front() {
            return Some(unit);
        }
        let depacketiser = self.depacketiser.as_mut()?;
        if !each!(depacketiser, d => d.has_unit()) || !self.detector.is_trusted() {
            return None;
        }
        if self.tracks.len() <= usize::from(self.track) {
            // Its bits have told nothing yet.
            self.learn();
        }
        each!(self.depacketiser.as_mut()?, d => d.poll_unit())
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
        let format = self
            .detector
            .kind()
            .filter(|_| self.detector.is_trusted())?;
        Some(match format {
            PayloadFormat::Mp2t => "mpegts",
            format => format.codec().name(),
        })
    }

    /// See [`crate::Pipeline::parameter_sets`].
    pub fn parameter_sets(&self, index: u16) -> &[u8] {
        match &self.depacketiser {
            Some(depacketiser) if index == self.track => {
                each!(depacketiser, d => d.parameter_sets())
            }
            _ => &[],
        }
    }

    /// Figures of the assembler, for formats that have one.
    pub fn assembler(&self) -> Option<&Assembler> {
        match self.depacketiser.as_ref()? {
            Depacketiser::Nal(nal) => Some(nal.assembler()),
            Depacketiser::Mpv(mpv) => Some(mpv.assembler()),
            _ => None,
        }
    }

    /// Appends the unit's bytes to `out`: for H.264 and HEVC Annex B with four-byte start codes,
    /// for AV1 OBUs with sizes behind a temporal delimiter, for JPEG XS codestreams, for AAC
    /// raw frames, for LATM AudioMuxElements, else what follows the payload format's header.
    /// `false` when a slot is already overwritten.
    pub fn extract(&self, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
        match self.extractors.get(usize::from(unit.track)) {
            Some(&Extractor::Nal(form)) => nal::extract(form, unit, ring, out),
            Some(Extractor::Av1) => av1::extract(unit, ring, out),
            Some(Extractor::JpegXs) => jpegxs::extract(unit, ring, out),
            Some(&Extractor::Behind(header)) => headers::extract(header, unit, ring, out),
            Some(Extractor::Listed) => match &self.depacketiser {
                Some(Depacketiser::Nal(nal)) if unit.track == self.track => {
                    nal.extract_listed(unit, ring, out)
                }
                _ => false,
            },
            None => false,
        }
    }
}

/// Clock ticks as 90 kHz ticks.
#[inline]
pub(crate) fn to_90_khz(units: i64, clock_rate: u32) -> i64 {
    match clock_rate {
        0 | 90_000 => units,
        rate => {
            let ticks = i128::from(units) * 90_000 / i128::from(rate);
            i64::try_from(ticks).unwrap_or(i64::MAX)
        }
    }
}

/// Writes what an audio frame's header tells.
pub(crate) const fn set_audio(track: &mut Track, info: &AudioInfo) {
    track.sample_rate = info.sample_rate;
    track.channels = info.channels;
    track.profile = info.profile;
}

#[cfg(test)]
mod tests;
