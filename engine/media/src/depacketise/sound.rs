//! Audio formats whose packets hold whole frames or say where fragments go: Opus (RFC 7587),
//! L16 and L24 (RFC 3551, RFC 3190), AC-3 (RFC 4184), E-AC-3 (RFC 4598) and MPEG audio
//! (RFC 2250, 3.5). A unit is a frame; of Opus and PCM a packet.

use mirror_base::{Discard, Instant, Position};

use super::headers::Header;
use super::units::Units;
use super::{Arrived, Depacketise, Extractor, Gap, PayloadFormat, Setup, set_audio, to_90_khz};
use crate::codec::audio::{self, AudioInfo, opus};
use crate::{AccessUnit, Track};

/// A frame that is cut over packets.
#[derive(Clone, Copy, Debug)]
struct Fragmented {
    timestamp: i64,
    bytes: usize,
    have: usize,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct SoundStream {
    format: PayloadFormat,
    units: Units,
    /// Those of signalling: 0 when it does not say.
    clock_rate: u32,
    channels: u8,
    info: AudioInfo,
    version: u32,
    fragment: Option<Fragmented>,
    /// PCM: time and bytes of the packet before, to tell the channels.
    before: Option<(i64, usize)>,
}

impl SoundStream {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let is_pcm = matches!(setup.format, PayloadFormat::L16 | PayloadFormat::L24);
        SoundStream {
            format: setup.format,
            units: Units::new(setup.track, setup.limits),
            clock_rate: setup.clock_rate,
            channels: setup.parameters.channels,
            info: AudioInfo {
                sample_rate: if is_pcm {
                    setup.clock_rate_or_usual()
                } else {
                    0
                },
                channels: setup.parameters.channels,
                ..AudioInfo::default()
            },
            version: 1,
            fragment: None,
            before: None,
        }
    }

    /// RFC 7587, 4.1: 48 kHz; RFC 2250, 2: 90 kHz; else the sample rate (RFC 4184, 4.1.1).
    fn clock_rate(&self) -> u32 {
        match (self.clock_rate, self.format) {
            (0, PayloadFormat::Ac3 | PayloadFormat::Eac3) if self.info.sample_rate > 0 => {
                self.info.sample_rate
            }
            (0, format) => format.clock_rate(),
            (rate, _) => rate,
        }
    }

    fn learn(&mut self, info: AudioInfo) {
        let facts = |i: &AudioInfo| (i.sample_rate, i.channels, i.profile);
        if facts(&info) != facts(&self.info) {
            self.version += 1;
        }
        self.info = info;
    }

    fn push_opus(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        let mut info = opus::packet(packet.payload).ok_or(Discard::MalformedPayload)?;
        // Encoders go to mono and back within a stereo stream.
        info.channels = info.channels.max(self.info.channels).max(self.channels);
        self.learn(info);
        let pts = to_90_khz(arrived.units, self.clock_rate());
        let all = 0..packet.payload.len();
        self.units.whole(packet.slot, all, pts, packet.arrival)
    }

    fn push_pcm(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        let length = packet.payload.len();
        let sample = if self.format == PayloadFormat::L16 {
            2
        } else {
            3
        };
        if self.channels == 0 {
            self.count_channels(arrived.units, length, sample);
        }
        let frame = sample * usize::from(self.info.channels.max(1));
        let usable = length - length % frame;
        if usable > 0 {
            let pts = to_90_khz(arrived.units, self.clock_rate());
            self.units
                .whole(packet.slot, 0..usable, pts, packet.arrival)?;
        }
        if usable == length && length > 0 {
            Ok(())
        } else {
            Err(Discard::MalformedPayload)
        }
    }

    /// Signalling says no channels: they are what the packet before had bytes for a tick.
    fn count_channels(&mut self, time: i64, length: usize, sample: usize) {
        let before = self.before.replace((time, length));
        let Some((since, bytes)) = before.filter(|_| self.info.channels == 0) else {
            return;
        };
        let ticks = usize::try_from(time - since).unwrap_or(0);
        let frame = ticks * sample;
        if frame > 0 && bytes % frame == 0 && (1..=64).contains(&(bytes / frame)) {
            let info = AudioInfo {
                channels: (bytes / frame) as u8,
                ..self.info
            };
            self.learn(info);
        }
    }

    fn push_framed(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        let Some((at, place)) = fragmentation(self.format, packet.payload) else {
            self.close_fragment(packet.arrival);
            return Err(Discard::MalformedPayload);
        };
        match place {
            FrameStart::Here => {
                self.close_fragment(packet.arrival);
                self.push_frames(arrived, at)
            }
            FrameStart::Before(offset) => self.push_fragment(arrived, at, offset),
        }
    }

    /// Frames from `at` on; the last one may be the first part of a fragmented one.
    fn push_frames(&mut self, arrived: &Arrived<'_>, at: usize) -> Result<(), Discard> {
        let packet = arrived.packet;
        let media = packet.payload.get(at..).unwrap_or_default();
        let place = |offset: usize| Position {
            slot: packet.slot,
            offset: (at + offset) as u16,
        };
        let mut samples = 0i64;
        let mut outcome = if media.is_empty() {
            Err(Discard::MalformedPayload)
        } else {
            Ok(())
        };
        let parse = header_of(self.format);
        for frame in audio::frames(media, parse) {
            let (range, info, whole) = match frame {
                Ok((range, info)) => (range, info, true),
                Err((from, Some(info))) => (from..media.len(), info, false),
                Err((_, None)) => {
                    outcome = Err(Discard::MalformedPayload);
                    continue;
                }
            };
            let rest = media.get(range.start..).unwrap_or_default();
            let continues = self.format == PayloadFormat::Eac3
                && samples > 0
                && audio::ac3::sync_frame(rest).is_some_and(|f| f.continues);
            if !continues {
                self.units.close(packet.arrival, false);
                self.learn(info);
                let pts = to_90_khz(arrived.units, self.clock_rate());
                let passed = samples * 90_000 / i64::from(info.sample_rate.max(1));
                self.units
                    .begin(place(range.start), pts + passed, packet.arrival);
                samples += i64::from(info.samples);
            }
            self.units
                .extend(range.len(), place(range.end), packet.arrival)?;
            if !whole {
                self.fragment = Some(Fragmented {
                    timestamp: arrived.units,
                    bytes: info.frame_bytes,
                    have: range.len(),
                });
                return outcome;
            }
        }
        self.units.close(packet.arrival, false);
        outcome
    }

    /// Another part of the open frame; `offset` is where it belongs, if the format says so.
    fn push_fragment(
        &mut self,
        arrived: &Arrived<'_>,
        at: usize,
        offset: Option<usize>,
    ) -> Result<(), Discard> {
        let packet = arrived.packet;
        let bytes = packet.payload.len() - at;
        let fits = |f: &Fragmented| {
            f.timestamp == arrived.units
                && offset.is_none_or(|o| o == f.have)
                && f.have + bytes <= f.bytes
        };
        let Some(mut fragment) = self.fragment.take().filter(fits) else {
            self.units.close(packet.arrival, true);
            return Err(Discard::OrphanFragment);
        };
        let end = Position {
            slot: packet.slot,
            offset: packet.payload.len() as u16,
        };
        self.units.extend(bytes, end, packet.arrival)?;
        fragment.have += bytes;
        if fragment.have < fragment.bytes {
            self.fragment = Some(fragment);
        } else {
            self.units.close(packet.arrival, false);
        }
        Ok(())
    }

    fn close_fragment(&mut self, now: Instant) {
        if self.fragment.take().is_some() {
            self.units.close(now, true);
        }
    }
}

/// The frame header of a format that has one.
pub(crate) const fn header_of(format: PayloadFormat) -> fn(&[u8]) -> Option<AudioInfo> {
    match format {
        PayloadFormat::Mpa => audio::mpeg_audio,
        _ => audio::ac3,
    }
}

/// Where the frame of a packet's first byte begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FrameStart {
    Here,
    /// In a packet before, and so many bytes ahead, where the format says it.
    Before(Option<usize>),
}

/// Of a payload of AC-3, E-AC-3 or MPEG audio: where the media begin, and their first frame.
/// `None` when cut off.
fn fragmentation(format: PayloadFormat, payload: &[u8]) -> Option<(usize, FrameStart)> {
    if format == PayloadFormat::Mpa {
        // RFC 2250, 3.5: MBZ(16) frag_offset(16).
        let &[_, _, a, b] = payload.first_chunk::<4>()?;
        let start = match usize::from(u16::from_be_bytes([a, b])) {
            0 => FrameStart::Here,
            offset => FrameStart::Before(Some(offset)),
        };
        return Some((4, start));
    }
    // RFC 4184, 4.1: MBZ(6) FT(2) NF(8); RFC 4598, 4.1: MBZ(7) F(1) NF(8). A first fragment begins
    // with a sync word; the fields alone are not trusted.
    let (&[flags, _], media) = payload.split_first_chunk::<2>()?;
    let is_fragment = flags & 3 != 0;
    let start = if is_fragment && audio::ac3(media).is_none() {
        FrameStart::Before(None)
    } else {
        FrameStart::Here
    };
    Some((2, start))
}

impl Depacketise for SoundStream {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        match self.format {
            PayloadFormat::Opus => self.push_opus(arrived),
            PayloadFormat::L16 | PayloadFormat::L24 => self.push_pcm(arrived),
            _ => self.push_framed(arrived),
        }
    }

    fn gap(&mut self, _: Gap, arrival: Instant) {
        self.close_fragment(arrival);
        self.before = None;
    }

    fn close(&mut self, now: Instant, _: bool) {
        self.close_fragment(now);
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.units.waiting_since()
    }

    fn has_unit(&self) -> bool {
        self.units.has_unit()
    }

    fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.units.poll()
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn describe(&self, track: &mut Track) {
        set_audio(track, &self.info);
        if track.channels == 0 {
            track.channels = self.channels;
        }
    }

    fn extractor(&self) -> Extractor {
        Extractor::Behind(Header::Fixed(match self.format {
            PayloadFormat::Ac3 | PayloadFormat::Eac3 => 2,
            PayloadFormat::Mpa => 4,
            _ => 0,
        }))
    }
}
