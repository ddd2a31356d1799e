//! AAC in RTP by RFC 3640 (`mpeg4-generic`): AU headers, then access units back to back; units
//! that are cut over packets, and interleaved ones, which are put in order of their times.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant, Position};
use smallvec::SmallVec;

use super::headers::Header;
use super::parameters::AuHeader;
use super::units::Units;
use super::{Arrived, Depacketise, Extractor, Gap, Setup, set_audio, to_90_khz};
use crate::codec::audio::aac::{AudioConfig, audio_specific_config};
use crate::codec::audio::bits::Bits;
use crate::{AccessUnit, Track};

/// Access units of a packet.
const MAX_UNITS: usize = 512;
/// Interleaved units that wait for those before them.
const MAX_WAITING: usize = 256;
/// Samples of a frame where nothing says them (AAC's usual frame).
const USUAL_FRAME: i64 = 1024;

/// A unit as the AU header section says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// AU-size; `None` where the form has none: all that follows.
    pub(crate) size: Option<usize>,
    /// Units between the packet's first one and this one, in order of time.
    index: u32,
    /// CTS-delta.
    cts_delta: i64,
}

/// Where the media begin, behind the AU header section (3.2.1) and the auxiliary section (3.2.2).
pub(crate) fn media_offset(form: AuHeader, payload: &[u8]) -> Option<usize> {
    let has_headers = header_bits(form) > 0;
    let mut at = 0;
    if has_headers {
        let bits = u16::from_be_bytes(*payload.first_chunk::<2>()?);
        at = 2 + usize::from(bits).div_ceil(8);
    }
    if form.auxiliary_size_length > 0 {
        let mut bits = Bits::new(payload.get(at..)?);
        let size = bits.u(u32::from(form.auxiliary_size_length))? as usize;
        at += (usize::from(form.auxiliary_size_length) + size).div_ceil(8);
    }
    (at <= payload.len()).then_some(at)
}

/// The fewest bits that an AU header has; 0: there is no AU header section.
fn header_bits(form: AuHeader) -> u32 {
    u32::from(form.size_length)
        + u32::from(form.index_length.max(form.index_delta_length))
        + u32::from(form.cts_delta_length > 0)
        + u32::from(form.dts_delta_length > 0)
        + u32::from(form.random_access)
        + u32::from(form.stream_state_length)
}

/// The AU headers of a payload (3.2.1.1). `None` where they break the form.
pub(crate) fn entries(form: AuHeader, payload: &[u8]) -> Option<SmallVec<[Entry; 16]>> {
    let mut out = SmallVec::new();
    if header_bits(form) == 0 {
        let media = payload.len() - media_offset(form, payload)?;
        let size = form.constant_size as usize;
        let count = if size > 0 { media.div_ceil(size) } else { 1 };
        if count == 0 || count > MAX_UNITS {
            return None;
        }
        out.extend((0..count as u32).map(|index| Entry {
            size: (size > 0).then_some(size),
            index,
            cts_delta: 0,
        }));
        return Some(out);
    }
    let (length, rest) = payload.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let mut bits = Bits::new(rest.get(..length.div_ceil(8))?);
    let mut index = 0;
    while bits.position() < length {
        let first = out.is_empty();
        let size = match form.size_length {
            0 => (form.constant_size > 0).then_some(form.constant_size as usize),
            n => Some(bits.u(u32::from(n))? as usize),
        };
        if first {
            // AU-Index: of the first unit it is 0 but for other than AAC (3.2.1.1).
            bits.u(u32::from(form.index_length))?;
        } else {
            let delta = bits.u(u32::from(form.index_delta_length))?;
            index = u32::checked_add(index, delta.checked_add(1)?)?;
        }
        let mut cts_delta = 0;
        if form.cts_delta_length > 0 && bits.flag()? {
            cts_delta = signed(&mut bits, form.cts_delta_length)?;
        }
        if form.dts_delta_length > 0 && bits.flag()? {
            signed(&mut bits, form.dts_delta_length)?;
        }
        bits.u(u32::from(form.random_access))?;
        bits.u(u32::from(form.stream_state_length))?;
        if bits.position() > length || out.len() == MAX_UNITS {
            return None;
        }
        out.push(Entry {
            size,
            index,
            cts_delta,
        });
    }
    (!out.is_empty()).then_some(out)
}

/// Two's complement of so many bits.
fn signed(bits: &mut Bits<'_>, length: u8) -> Option<i64> {
    let value = i64::from(bits.u(u32::from(length))?);
    let sign = 1_i64 << (length - 1);
    Some(if value & sign != 0 {
        value - 2 * sign
    } else {
        value
    })
}

/// A unit that is cut over packets.
#[derive(Clone, Copy, Debug)]
struct Fragmented {
    timestamp: i64,
    size: Option<usize>,
    have: usize,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct AacStream {
    form: AuHeader,
    config: Option<AudioConfig>,
    config_bytes: Vec<u8>,
    channels: u8,
    clock_rate: u32,
    /// Whether signalling says the clock rate.
    rate_is_known: bool,
    units: Units,
    fragment: Option<Fragmented>,
    /// Interleaved units, in order of their times.
    waiting: VecDeque<(i64, AccessUnit)>,
    /// The time behind the unit that went last.
    next: Option<i64>,
}

impl AacStream {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let p = setup.parameters;
        let config = audio_specific_config(&p.config);
        // RFC 3640, 3.3.1: the clock should be the sample rate.
        let rate = match (setup.clock_rate, &config) {
            (0, Some(config)) => config.sample_rate,
            _ => setup.clock_rate_or_usual(),
        };
        AacStream {
            form: p.au_header,
            config,
            config_bytes: p.config.clone(),
            channels: p.channels,
            clock_rate: rate,
            rate_is_known: setup.clock_rate != 0,
            units: Units::new(setup.track, setup.limits),
            fragment: None,
            waiting: VecDeque::new(),
            next: None,
        }
    }

    /// Clock ticks of a unit.
    fn duration(&self) -> i64 {
        if self.form.constant_duration > 0 {
            return i64::from(self.form.constant_duration);
        }
        match &self.config {
            Some(c) if c.sample_rate > 0 => {
                i64::from(c.samples) * i64::from(self.clock_rate) / i64::from(c.sample_rate)
            }
            _ => USUAL_FRAME,
        }
    }

    fn pts(&self, units: i64) -> i64 {
        to_90_khz(units, self.clock_rate)
    }

    /// A unit that is whole goes, or waits for those before it.
    fn take(&mut self, time: i64, unit: AccessUnit) {
        if self.waiting.is_empty() && self.next.is_none_or(|next| time <= next + self.slack()) {
            self.hand_out(time, unit);
            return;
        }
        let place = self.waiting.partition_point(|w| w.0 <= time);
        self.waiting.insert(place, (time, unit));
        if self.waiting.len() > MAX_WAITING
            && let Some((time, unit)) = self.waiting.pop_front()
        {
            self.hand_out(time, unit);
        }
    }

    /// What clocks that do not count samples exactly are off by (GStreamer 1.22: a tick a frame).
    fn slack(&self) -> i64 {
        self.duration() / 4
    }

    fn hand_out(&mut self, time: i64, unit: AccessUnit) {
        self.next = Some(time + self.duration());
        self.units.push(unit);
    }

    /// A packet's first unit is of time `first`: no unit before it is to come any more (RFC 3640,
    /// 3.2.3.1: packets are sent in order of their timestamps).
    fn release(&mut self, first: i64) {
        while let Some(&(time, unit)) = self.waiting.front() {
            let follows = self.next.is_some_and(|next| time <= next + self.slack());
            if !follows && time > first {
                return;
            }
            self.waiting.pop_front();
            self.hand_out(time, unit);
        }
    }

    fn push_fragment(
        &mut self,
        arrived: &Arrived<'_>,
        at: usize,
        entry: Entry,
    ) -> Result<(), Discard> {
        let packet = arrived.packet;
        let place = |offset: usize| Position {
            slot: packet.slot,
            offset: offset as u16,
        };
        let bytes = packet.payload.len() - at;
        let continues = |f: &Fragmented| f.timestamp == arrived.units && f.size == entry.size;
        let mut fragment = match self.fragment.take().filter(continues) {
            Some(fragment) => fragment,
            None => {
                self.close_fragment(packet.arrival, true);
                self.units
                    .begin(place(at), self.pts(arrived.units), packet.arrival);
                Fragmented {
                    timestamp: arrived.units,
                    size: entry.size,
                    have: 0,
                }
            }
        };
        self.units
            .extend(bytes, place(packet.payload.len()), packet.arrival)?;
        fragment.have += bytes;
        let complete = fragment.size.is_some_and(|size| fragment.have >= size);
        if !complete && !packet.marker {
            self.fragment = Some(fragment);
            return Ok(());
        }
        let right = fragment.size.is_none_or(|size| fragment.have == size);
        self.fragment = None;
        let unit = self.units.close_into(packet.arrival, !right);
        if let Some(unit) = unit {
            self.take(arrived.units, unit);
            self.release(arrived.units);
        }
        if right {
            Ok(())
        } else {
            Err(Discard::MalformedPayload)
        }
    }

    fn close_fragment(&mut self, now: Instant, damaged: bool) {
        if let Some(fragment) = self.fragment.take()
            && let Some(unit) = self.units.close_into(now, damaged)
        {
            self.take(fragment.timestamp, unit);
        }
    }

    fn push_whole(
        &mut self,
        arrived: &Arrived<'_>,
        mut at: usize,
        entries: &[Entry],
    ) -> Result<(), Discard> {
        let packet = arrived.packet;
        let length = packet.payload.len();
        let place = |offset: usize| Position {
            slot: packet.slot,
            offset: offset as u16,
        };
        let duration = self.duration();
        for entry in entries {
            let end = at + entry.size.unwrap_or(length - at);
            if end > length {
                return Err(Discard::MalformedPayload);
            }
            if end == at {
                continue;
            }
            let time = arrived.units + duration * i64::from(entry.index) + entry.cts_delta;
            let pts = self.pts(time);
            self.units.begin(place(at), pts, packet.arrival);
            self.units.extend(end - at, place(end), packet.arrival)?;
            if let Some(unit) = self.units.close_into(packet.arrival, false) {
                self.take(time, unit);
            }
            at = end;
        }
        self.release(arrived.units);
        if at == length {
            Ok(())
        } else {
            // More than the headers tell of.
            Err(Discard::MalformedPayload)
        }
    }
}

impl Depacketise for AacStream {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let payload = arrived.packet.payload;
        let at = media_offset(self.form, payload);
        let (Some(at), Some(entries)) = (at, entries(self.form, payload)) else {
            self.close_fragment(arrived.packet.arrival, true);
            return Err(Discard::MalformedPayload);
        };
        // 3.2.3: a fragment comes alone, and its size is that of the whole.
        if let [entry] = entries.as_slice() {
            let left = payload.len() - at;
            let cut = match entry.size {
                Some(size) => size > left,
                None => !arrived.packet.marker || self.fragment.is_some(),
            };
            if cut && left > 0 {
                return self.push_fragment(arrived, at, *entry);
            }
        }
        self.close_fragment(arrived.packet.arrival, true);
        self.push_whole(arrived, at, &entries)
    }

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        self.close_fragment(arrival, true);
        if gap == Gap::Restart {
            self.release(i64::MAX);
            self.next = None;
        }
    }

    fn close(&mut self, now: Instant, _: bool) {
        // A fragment without its end lacks something in any case.
        self.close_fragment(now, true);
        self.release(i64::MAX);
    }

    fn waiting_since(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|w| w.1.last_arrival).min();
        self.units.waiting_since().into_iter().chain(waiting).min()
    }

    fn has_unit(&self) -> bool {
        self.units.has_unit()
    }

    fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.units.poll()
    }

    fn version(&self) -> u32 {
        1
    }

    fn describe(&self, track: &mut Track) {
        if let Some(config) = &self.config {
            set_audio(track, &config.info());
        } else if self.rate_is_known {
            track.sample_rate = self.clock_rate;
        }
        if track.channels == 0 {
            track.channels = self.channels;
        }
    }

    fn extractor(&self) -> Extractor {
        Extractor::Behind(Header::AuHeaders(self.form))
    }

    fn parameter_sets(&self) -> &[u8] {
        &self.config_bytes
    }
}
