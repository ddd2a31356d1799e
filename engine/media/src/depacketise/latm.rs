//! AAC in RTP by RFC 6416 (`MP4A-LATM`): AudioMuxElements, whole, several in a packet, or cut
//! over packets. A unit is an AudioMuxElement as it was sent: its frames seldom begin on a byte.

use mirror_base::{Discard, Instant, Position};

use super::headers::Header;
use super::units::Units;
use super::{Arrived, Depacketise, Extractor, Gap, Setup, set_audio, to_90_khz};
use crate::codec::audio::latm::{
    StreamMuxConfig, audio_mux_element, element_config, stream_mux_config,
};
use crate::{AccessUnit, Track};

/// See the module's page.
#[derive(Debug)]
pub(crate) struct LatmStream {
    /// `cpresent`.
    in_band: bool,
    /// Nobody has said whether the configuration is in-band.
    in_band_is_open: bool,
    config: Option<StreamMuxConfig>,
    config_bytes: Vec<u8>,
    channels: u8,
    /// From signalling, 0 when it does not say.
    clock_rate: u32,
    units: Units,
    /// The time of the element that is cut over packets.
    open: Option<i64>,
    /// The open element lacks something.
    lossy: bool,
    version: u32,
}

impl LatmStream {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let p = setup.parameters;
        LatmStream {
            in_band: p.config_in_band,
            in_band_is_open: p.config_in_band && p.config.is_empty(),
            config: stream_mux_config(&p.config),
            config_bytes: p.config.clone(),
            channels: p.channels,
            clock_rate: setup.clock_rate,
            units: Units::new(setup.track, setup.limits),
            open: None,
            lossy: false,
            version: 1,
        }
    }

    /// RFC 6416, 7.3: the clock rate is the sample rate where nothing else is said.
    fn clock_rate(&self) -> u32 {
        match (self.clock_rate, &self.config) {
            (0, Some(config)) => config.audio.sample_rate,
            (0, None) => super::PayloadFormat::Mp4aLatm.clock_rate(),
            (rate, _) => rate,
        }
    }

    fn learn(&mut self, config: StreamMuxConfig) {
        if self.config != Some(config) {
            self.config = Some(config);
            self.version += 1;
        }
    }

    /// Looks at the beginning of an element for a configuration, and for whether there are any.
    fn look(&mut self, payload: &[u8]) {
        if !self.in_band {
            return;
        }
        match element_config(payload) {
            Some(config) => {
                self.in_band_is_open = false;
                self.learn(config);
            }
            // Nothing was said, and what is said by default makes no sense.
            None if self.in_band_is_open && is_length_prefixed(payload) => self.in_band = false,
            None => {}
        }
    }

    /// The elements of a packet that holds whole ones.
    fn push_whole(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        let (payload, slot) = (packet.payload, packet.slot);
        let rate = self.clock_rate();
        let mut at = 0;
        let mut time = arrived.units;
        while let Some(rest) = payload.get(at..).filter(|r| !r.is_empty()) {
            let element = audio_mux_element(rest, self.in_band, self.config.as_ref());
            if let Some(element) = element
                && self.in_band
            {
                self.learn(element.config);
            }
            // One that is not understood takes the rest.
            let bytes = element.map_or(rest.len(), |e| e.bytes).max(1);
            let pts = to_90_khz(time, rate);
            self.units
                .whole(slot, at..at + bytes, pts, packet.arrival)?;
            at += bytes;
            if let Some(config) = &self.config {
                let samples = i64::from(config.samples());
                time += samples * i64::from(rate) / i64::from(config.audio.sample_rate.max(1));
            }
        }
        Ok(())
    }
}

/// Whether a payload is as long as the PayloadLengthInfo at its beginning says.
pub(crate) fn is_length_prefixed(payload: &[u8]) -> bool {
    let full = payload.iter().take_while(|&&b| b == 255).count();
    let Some(&last) = payload.get(full) else {
        return false;
    };
    let length = full * 255 + usize::from(last);
    length > 0 && payload.len() == full + 1 + length
}

impl Depacketise for LatmStream {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        if packet.payload.is_empty() {
            return Err(Discard::MalformedPayload);
        }
        if self.open.is_some_and(|time| time != arrived.units) {
            // The packet with its end is missing.
            self.units.close(packet.arrival, true);
            self.open = None;
        }
        if self.open.is_none() {
            self.look(packet.payload);
            if packet.marker {
                self.lossy = false;
                return self.push_whole(arrived);
            }
            let first = Position {
                slot: packet.slot,
                offset: 0,
            };
            let pts = to_90_khz(arrived.units, self.clock_rate());
            self.units.begin(first, pts, packet.arrival);
            if self.lossy {
                self.units.damage();
            }
            self.open = Some(arrived.units);
        }
        self.lossy = false;
        let end = Position {
            slot: packet.slot,
            offset: packet.payload.len() as u16,
        };
        let fits = self.units.extend(packet.payload.len(), end, packet.arrival);
        if packet.marker || fits.is_err() {
            self.units.close(packet.arrival, false);
            self.open = None;
        }
        fits
    }

    fn gap(&mut self, _: Gap, arrival: Instant) {
        self.units.close(arrival, true);
        self.open = None;
        // What follows may be the rest of an element.
        self.lossy = true;
    }

    fn close(&mut self, now: Instant, _: bool) {
        self.units.close(now, true);
        self.open = None;
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
        match &self.config {
            Some(config) => set_audio(track, &config.audio.info()),
            None => track.sample_rate = self.clock_rate,
        }
        if track.channels == 0 {
            track.channels = self.channels;
        }
    }

    fn extractor(&self) -> Extractor {
        Extractor::Behind(Header::Fixed(0))
    }

    fn parameter_sets(&self) -> &[u8] {
        &self.config_bytes
    }
}
