//! MPEG-1/2 video elementary streams in RTP (RFC 2250, 3): behind a header, pieces of a stream
//! whose start codes drive the assembler. Timestamp and marker tell where pictures end.

use mirror_base::{Discard, Instant, Position};

use super::headers::Header;
use super::{Arrived, Depacketise, Extractor, Gap, Setup, to_90_khz};
use crate::{AccessUnit, Assembler, Codec, Track};

/// Bytes of the video-specific header (3.4): four more with T set, for the MPEG-2 extension.
/// `None` where it is cut off.
pub(crate) fn header_bytes(payload: &[u8]) -> Option<usize> {
    let &[first, ..] = payload.first_chunk::<4>()?;
    let bytes = if first & 0x04 != 0 { 8 } else { 4 };
    (bytes <= payload.len()).then_some(bytes)
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct MpvStream {
    assembler: Assembler,
    clock_rate: u32,
    timestamp: Option<u32>,
    /// Where the bytes end that the assembler has got.
    end: Position,
    /// A start code has come, and nothing was lost since.
    synced: bool,
    /// Zero bytes before `end`, two at the most: a start code may begin with them.
    zeros: usize,
}

impl MpvStream {
    /// `None` where the assembler does not know MPEG video.
    pub(crate) fn new(setup: &Setup<'_>) -> Option<Self> {
        Some(MpvStream {
            assembler: Assembler::new(Codec::Mpeg2Video, setup.track, setup.limits, true)?,
            clock_rate: setup.clock_rate_or_usual(),
            timestamp: None,
            end: Position::default(),
            synced: false,
            zeros: 0,
        })
    }

    pub(crate) const fn assembler(&self) -> &Assembler {
        &self.assembler
    }

    /// Feeds the bytes behind the header, which lie at `at`.
    fn feed(&mut self, arrived: &Arrived<'_>, at: usize) {
        let packet = arrived.packet;
        let media = packet.payload.get(at..).unwrap_or_default();
        let place = |offset: usize| Position {
            slot: packet.slot,
            offset: (at + offset) as u16,
        };
        let mut from = self.straddling_code(media, packet.arrival);
        let rest = media.get(from..).unwrap_or_default();
        let first = from;
        for code in memchr::memmem::find_iter(rest, &[0, 0, 1]).map(|code| first + code) {
            if self.synced {
                let before = media.get(from..code).unwrap_or_default();
                self.assembler.nal_bytes(before, packet.arrival);
                self.assembler.nal_end(place(code), packet.arrival);
            }
            self.assembler
                .start_code(place(code), 0, 0, 3, packet.arrival);
            self.synced = true;
            from = code + 3;
        }
        let rest = media.get(from..).unwrap_or_default();
        if self.synced {
            self.assembler.nal_bytes(rest, packet.arrival);
        }
        self.zeros = rest.iter().rev().take(2).take_while(|b| **b == 0).count();
        self.end = place(media.len());
        self.assembler.oversize_end(self.end);
    }

    /// A start code that is cut over packets: the standard has none (3.1), but GStreamer 1.22
    /// cuts anywhere. Returns how many bytes of `media` belong to it.
    fn straddling_code(&mut self, media: &[u8], arrival: Instant) -> usize {
        let (behind, here) = match (self.zeros, media) {
            (2, [1, ..]) => (2, 1),
            (1.., [0, 1, ..]) => (1, 2),
            _ => return 0,
        };
        let first = Position {
            slot: self.end.slot,
            offset: self.end.offset.saturating_sub(behind),
        };
        self.assembler.nal_end(first, arrival);
        if self.synced {
            self.assembler
                .start_code(first, 0, behind as u8, here as u8, arrival);
        } else {
            self.assembler.start_code(first, 0, 0, 3, arrival);
        }
        self.synced = true;
        here
    }
}

impl Depacketise for MpvStream {
    fn push(&mut self, arrived: &Arrived<'_>) -> Result<(), Discard> {
        let packet = arrived.packet;
        if self.timestamp != Some(packet.timestamp) {
            self.timestamp = Some(packet.timestamp);
            let pts = to_90_khz(arrived.units, self.clock_rate);
            self.assembler.nal_end(self.end, packet.arrival);
            self.assembler.next_timestamp(Some(pts), packet.arrival);
        }
        let Some(at) = header_bytes(packet.payload) else {
            self.assembler.damage();
            self.synced = false;
            self.zeros = 0;
            return Err(Discard::MalformedPayload);
        };
        let was_synced = self.synced;
        self.feed(arrived, at);
        if packet.marker {
            self.assembler.nal_end(self.end, packet.arrival);
            self.assembler.end_of_unit(packet.arrival);
        }
        if was_synced || self.synced {
            Ok(())
        } else {
            Err(Discard::OrphanFragment)
        }
    }

    fn gap(&mut self, gap: Gap, arrival: Instant) {
        self.synced = false;
        self.zeros = 0;
        match gap {
            Gap::Loss => self.assembler.damage(),
            Gap::Restart => {
                self.assembler.restart(arrival);
                self.timestamp = None;
            }
        }
    }

    fn close(&mut self, now: Instant, damaged: bool) {
        self.assembler.nal_end(self.end, now);
        self.assembler.close(now, damaged);
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.assembler.waiting_since()
    }

    fn has_unit(&self) -> bool {
        self.assembler.has_unit()
    }

    fn poll_unit(&mut self) -> Option<AccessUnit> {
        self.assembler.poll_unit()
    }

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
        Extractor::Behind(Header::Mpv)
    }
}
