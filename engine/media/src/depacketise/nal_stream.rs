//! H.264 and HEVC in RTP: the pieces of [`super::nal`] drive the assembler, and the RTP
//! timestamp and marker tell it where units end.

use mirror_base::{Discard, Instant};

use super::nal::{self, NalDepacketiser};
use super::{Arrived, Depacketise, Extractor, Gap, Setup, to_90_khz};
use crate::{AccessUnit, Assembler, Track};

/// See the module's page.
#[derive(Debug)]
pub(crate) struct NalStream {
    nal: NalDepacketiser,
    assembler: Assembler,
    clock_rate: u32,
    timestamp: Option<u32>,
}

impl NalStream {
    /// `None` for a format without NAL units.
    pub(crate) fn new(setup: &Setup<'_>) -> Option<Self> {
        let codec = setup.format.codec();
        let mut assembler = Assembler::new(codec, setup.track, setup.limits, true)?;
        for set in &setup.parameters.parameter_sets {
            assembler.add_parameter_set(set);
        }
        Some(NalStream {
            nal: NalDepacketiser::new(codec),
            assembler,
            clock_rate: setup.clock_rate_or_usual(),
            timestamp: None,
        })
    }

    pub(crate) const fn assembler(&self) -> &Assembler {
        &self.assembler
    }
}

impl Depacketise for NalStream {
    #[inline]
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
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

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        self.nal.interrupt();
        match gap {
            Gap::Loss => self.assembler.damage(),
            Gap::Restart => {
                self.assembler.restart(arrival);
                self.timestamp = None;
            }
        }
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        self.nal.interrupt();
        self.assembler.close(now, damaged);
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.assembler.waiting_since()
    }

    #[inline]
    fn has_unit(&self) -> bool {
        self.assembler.has_unit()
    }

    #[inline]
    fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.assembler.poll_unit()
    }

    #[inline]
    fn version(&self) -> u32 {
        self.assembler.info().0
    }

    fn describe(&self, track: &mut Track) {
        track.set_video(self.assembler.info().1);
    }

    fn parameter_sets(&self) -> &[u8] {
        self.assembler.parameter_sets()
    }

    fn extractor(&self) -> Extractor {
        Extractor::Nal(nal::Form {
            codec: self.nal.codec(),
        })
    }
}
