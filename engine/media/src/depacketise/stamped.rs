//! Formats in which all packets of one timestamp are a unit, and the marker ends it: VP8
//! (RFC 7741), VP9 (RFC 9628), KLV (RFC 6597), ancillary data (RFC 8331).

use mirror_base::{Discard, Instant, Position};

use super::headers::Header;
use super::pictures::{self, Descriptor, Picture, PictureInfo};
use super::units::Units;
use super::{Arrived, Depacketise, Extractor, Gap, PayloadFormat, Setup, to_90_khz};
use crate::{AccessUnit, FrameKind, Track};

/// SMPTE 336: the first bytes of a universal label.
pub(crate) const KLV_LABEL: [u8; 4] = [0x06, 0x0E, 0x2B, 0x34];

/// See the module's page.
#[derive(Debug)]
pub(crate) struct StampedStream {
    format: PayloadFormat,
    header: Header,
    clock_rate: u32,
    units: Units,
    timestamp: Option<i64>,
    /// Something was lost, and no unit has begun since.
    lossy: bool,
    /// KLV: bytes that the open unit's first item takes.
    wanted: usize,
    info: PictureInfo,
    temporal_layers: u8,
    spatial_layers: u8,
    version: u32,
}

impl StampedStream {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        StampedStream {
            format: setup.format,
            header: match setup.format {
                PayloadFormat::Vp8 => Header::Vp8,
                PayloadFormat::Vp9 => Header::Vp9,
                // RFC 8331, 2.1.
                PayloadFormat::Smpte291 => Header::Fixed(8),
                _ => Header::Fixed(0),
            },
            clock_rate: setup.clock_rate_or_usual(),
            units: Units::new(setup.track, setup.limits),
            timestamp: None,
            lossy: false,
            wanted: 0,
            info: PictureInfo {
                width: setup.parameters.width,
                height: setup.parameters.height,
                ..PictureInfo::default()
            },
            temporal_layers: u8::from(setup.format.codec().is_video()),
            spatial_layers: 1,
            version: 1,
        }
    }

    /// The unit in the making ends.
    fn end(&mut self, now: Instant, damaged: bool) {
        let bytes = self.units.open_mut().map_or(0, |u| u.bytes as usize);
        self.units.close(now, damaged || bytes < self.wanted);
        self.wanted = 0;
    }

    /// What the packet says of its unit. Whether the unit can begin with it.
    fn inspect(&mut self, payload: &[u8], media: &[u8]) -> bool {
        match self.format {
            PayloadFormat::Vp8 => {
                let d = pictures::vp8_descriptor(payload).unwrap_or_default();
                if d.begins {
                    self.picture(d, pictures::vp8_picture(media));
                }
                d.begins
            }
            PayloadFormat::Vp9 => {
                let d = pictures::vp9_descriptor(payload).unwrap_or_default();
                if d.begins {
                    self.picture(d, pictures::vp9_picture(media));
                }
                d.begins && d.spatial_id == 0
            }
            PayloadFormat::Smpte336m => {
                let begins = media.starts_with(&KLV_LABEL);
                if begins && self.wanted == 0 {
                    self.wanted = klv_bytes(media).unwrap_or(0);
                }
                begins
            }
            _ => true,
        }
    }

    fn picture(&mut self, d: Descriptor, picture: Option<Picture>) {
        let info = picture.and_then(|p| p.1);
        self.learn(info, d.temporal_id, d.spatial_id);
        let Some(unit) = self.units.open_mut() else {
            return;
        };
        unit.temporal_id = d.temporal_id;
        unit.discardable |= d.discardable;
        if d.spatial_id == 0 {
            match picture {
                Some((kind, _)) => unit.kind = kind,
                // What begins a picture is no picture.
                None => unit.damaged = true,
            }
        }
    }

    /// Takes over what a key picture tells, of the largest layer.
    fn learn(&mut self, info: Option<PictureInfo>, temporal_id: u8, spatial_id: u8) {
        let before = (self.info, self.temporal_layers, self.spatial_layers);
        if let Some(info) = info {
            self.info = info;
        }
        self.temporal_layers = self.temporal_layers.max(temporal_id + 1);
        self.spatial_layers = self.spatial_layers.max(spatial_id + 1);
        let now = (self.info, self.temporal_layers, self.spatial_layers);
        self.version += u32::from(before != now);
    }
}

/// Bytes of the KLV item at the beginning of `data`: label, BER length, value.
pub(crate) fn klv_bytes(data: &[u8]) -> Option<usize> {
    let length = data.get(16..)?;
    let (&first, more) = length.split_first()?;
    if first & 0x80 == 0 {
        return Some(17 + usize::from(first));
    }
    let count = usize::from(first & 0x7F);
    let value = more.get(..count).filter(|v| (1..=4).contains(&v.len()))?;
    let value = value.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
    value.checked_add(17 + count)
}

impl Depacketise for StampedStream {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        let payload = packet.payload;
        if self.timestamp != Some(arrived.units) {
            self.end(packet.arrival, false);
            self.timestamp = Some(arrived.units);
        }
        let at = self.header.length(payload).filter(|&at| {
            // Keep-alives of ancillary data have no packets.
            at < payload.len() || self.format == PayloadFormat::Smpte291
        });
        let Some(at) = at else {
            self.units.damage();
            return Err(Discard::MalformedPayload);
        };
        let place = |offset: usize| Position {
            slot: packet.slot,
            offset: offset as u16,
        };
        let is_new = !self.units.is_open();
        if is_new {
            let pts = to_90_khz(arrived.units, self.clock_rate);
            self.units.begin(place(at), pts, packet.arrival);
        }
        let media = payload.get(at..).unwrap_or_default();
        let may_begin = self.inspect(payload, media);
        if is_new {
            if core::mem::take(&mut self.lossy) && !may_begin {
                self.units.damage();
            }
            if let Some(unit) = self.units.open_mut()
                && unit.kind == FrameKind::Other
                && matches!(self.format, PayloadFormat::Vp8 | PayloadFormat::Vp9)
                && !may_begin
            {
                unit.damaged = true;
            }
        }
        let outcome = self
            .units
            .extend(media.len(), place(payload.len()), packet.arrival);
        if packet.marker {
            self.end(packet.arrival, false);
        }
        outcome
    }

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        self.lossy = true;
        // A KLV item says how long it is.
        let bytes = self.units.open_mut().map_or(0, |u| u.bytes as usize);
        if self.wanted > 0 && bytes == self.wanted {
            self.end(arrival, false);
        }
        self.units.damage();
        if gap == Gap::Restart {
            self.end(arrival, true);
            self.timestamp = None;
        }
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        self.end(now, damaged);
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
        let i = &self.info;
        (track.width, track.height) = (i.width, i.height);
        (track.bit_depth, track.chroma_format) = (i.bit_depth, i.chroma_format);
        track.profile = i.profile;
        track.temporal_layers = self.temporal_layers;
        track.enhancement_layers = self.spatial_layers - 1;
    }

    fn extractor(&self) -> Extractor {
        Extractor::Behind(self.header)
    }
}
