//! H.264 and HEVC in RTP: the pieces of [`super::nal`] drive the assembler, and the RTP
//! timestamp and marker tell it where units end. NAL units with decoding order numbers take the
//! way through [`super::decoding_order`]; the marker means nothing there.

use mirror_base::{Discard, Instant, SlotRing};

use super::decoding_order::DecodingOrder;
use super::nal::{self, Form, NalDepacketiser};
use super::{Arrived, Depacketise, Extractor, Gap, PayloadFormat, Setup, to_90_khz};
use crate::{AccessUnit, Assembler, Codec, Track};

/// See the module's page.
#[derive(Debug)]
pub(crate) struct NalStream {
    nal: NalDepacketiser,
    assembler: Assembler,
    order: Option<Box<DecodingOrder>>,
    /// Grows when the way through the payloads becomes another.
    ways: u32,
    clock_rate: u32,
    max_bytes: usize,
    /// From the hint, for `order`.
    depth: Option<u16>,
    max_difference: Option<u16>,
    timestamp: Option<u32>,
}

impl NalStream {
    /// `None` for a format without NAL units.
    pub(crate) fn new(setup: &Setup<'_>) -> Option<Self> {
        let codec = setup.format.codec();
        let p = setup.parameters;
        let mut assembler = Assembler::new(codec, setup.track, setup.limits, true)?;
        for set in &p.parameter_sets {
            assembler.add_parameter_set(set);
        }
        let is_hevc = setup.format == PayloadFormat::H265;
        let mut stream = NalStream {
            nal: NalDepacketiser::new(Form::plain(codec)),
            assembler,
            order: None,
            ways: 0,
            clock_rate: setup.clock_rate_or_usual(),
            max_bytes: setup.limits.max_frame_size,
            depth: if is_hevc {
                p.depack_buf_nalus
            } else {
                p.interleaving_depth
            },
            max_difference: p.max_don_diff,
            timestamp: None,
        };
        // RFC 6184, 8.1; RFC 7798, 4.4 and 7.1.
        let numbered = match setup.format {
            PayloadFormat::H265 => p.max_don_diff.is_some_and(|n| n > 0),
            _ => p.packetization_mode == 2,
        };
        if numbered {
            stream.follow_numbers();
        }
        Some(stream)
    }

    pub(crate) const fn assembler(&self) -> &Assembler {
        &self.assembler
    }

    /// From here on NAL units have decoding order numbers.
    #[cold]
    fn follow_numbers(&mut self) {
        let codec = self.nal.form().codec;
        self.nal = NalDepacketiser::new(Form {
            codec,
            don: codec == Codec::H265,
        });
        self.ways += 1;
        self.order = Some(Box::new(DecodingOrder::new(
            codec,
            self.clock_rate,
            self.max_bytes,
            self.depth,
            self.max_difference,
        )));
    }

    /// Whether a payload shows that there are decoding order numbers, although nothing has said
    /// so.
    #[inline]
    fn shows_numbers(&self, payload: &[u8]) -> bool {
        match (self.nal.form().codec, payload.first()) {
            (Codec::H264, Some(first)) => matches!(first & 0x1F, 25..=27 | 29),
            // A VPS or an aggregate, before anything of the stream made sense.
            (Codec::H265, Some(first)) => {
                matches!(first >> 1 & 0x3F, 32 | 48)
                    && self.assembler.info().0 == 0
                    && nal::has_don(payload)
            }
            _ => false,
        }
    }

    #[inline]
    fn push_plain(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        if self.timestamp != Some(packet.timestamp) {
            self.timestamp = Some(packet.timestamp);
            let pts = to_90_khz(arrived.units, self.clock_rate);
            self.assembler.next_timestamp(Some(pts), packet.arrival);
        }
        let outcome = self.nal.push(packet, &mut self.assembler);
        if packet.marker {
            self.assembler.end_of_unit(packet.arrival);
        }
        outcome
    }

    #[cold]
    fn push_numbered(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let Some(order) = &mut self.order else {
            return Ok(());
        };
        let packet = arrived.packet;
        let mut outcome = Ok(());
        for piece in nal::pieces(self.nal.form(), packet.payload) {
            let result = match piece {
                Ok(piece) => order.push(packet, arrived.units, &piece, &mut self.assembler),
                Err(reason) => Err(reason),
            };
            if result.is_err() {
                order.interrupt();
                outcome = outcome.and(result);
            }
        }
        outcome
    }

    /// [`Extractor::Listed`].
    pub(crate) fn extract_listed(
        &self,
        unit: &AccessUnit,
        ring: &SlotRing,
        out: &mut Vec<u8>,
    ) -> bool {
        let order = self.order.as_ref();
        order.is_some_and(|order| order.extract(unit, ring, out))
    }
}

impl Depacketise for NalStream {
    #[inline]
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        if self.order.is_none() && self.shows_numbers(arrived.packet.payload) {
            self.follow_numbers();
        }
        if self.order.is_some() {
            self.push_numbered(arrived)
        } else {
            self.push_plain(arrived)
        }
    }

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        self.nal.interrupt(&mut self.assembler);
        if let Some(order) = &mut self.order {
            // What was lost shows as a gap in the numbers.
            order.interrupt();
            if gap == Gap::Restart {
                order.flush(&mut self.assembler);
                order.restart();
                self.assembler.restart(arrival);
            }
            return;
        }
        match gap {
            Gap::Loss => self.assembler.damage(),
            Gap::Restart => {
                self.assembler.restart(arrival);
                self.timestamp = None;
            }
        }
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        self.nal.end(&mut self.assembler, now);
        if let Some(order) = &mut self.order {
            order.flush(&mut self.assembler);
        }
        self.assembler.close(now, damaged);
    }

    #[inline]
    fn waiting_since(&self) -> Option<Instant> {
        let since = self.assembler.waiting_since();
        match &self.order {
            None => since,
            Some(order) => order.waiting_since().into_iter().chain(since).min(),
        }
    }

    #[inline]
    fn has_unit(&self) -> bool {
        self.assembler.has_unit()
    }

    #[inline]
    fn poll_unit(&mut self) -> Option<AccessUnit> {
        let mut unit = self.assembler.poll_unit()?;
        if let Some(order) = &mut self.order {
            order.list(&mut unit);
        }
        Some(unit)
    }

    #[inline]
    fn version(&self) -> u32 {
        self.assembler.info().0 + self.ways
    }

    fn describe(&self, track: &mut Track) {
        track.set_video(self.assembler.info().1);
    }

    fn parameter_sets(&self) -> &[u8] {
        self.assembler.parameter_sets()
    }

    fn extractor(&self) -> Extractor {
        match self.order {
            Some(_) => Extractor::Listed,
            None => Extractor::Nal(self.nal.form()),
        }
    }
}
