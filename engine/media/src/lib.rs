//! From payloads to access units: MPEG-TS (ISO 13818-1), RTP payload formats, and the
//! elementary streams' own syntax. Sans-IO; called by `stream` for every delivered packet.

pub mod assembler;
pub mod codec;
pub mod depacketise;
pub mod types;
pub use assembler::Assembler;
pub use types::{AccessUnit, Codec, FrameKind, Packet, Track};

// DOOR: signatures other rooms are written against.

use mirror_base::{Instant, SlotRing};

/// Bounds of everything that a peer can make grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Elementary streams.
    pub max_tracks: usize,
    /// Bytes of an access unit.
    pub max_frame_size: usize,
    /// A unit that got no datagram for so long is closed as damaged.
    pub assembly_timeout: core::time::Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_tracks: 32,
            max_frame_size: 10 << 20,
            assembly_timeout: core::time::Duration::from_millis(200),
        }
    }
}

/// What a pipeline is fed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// SRT: MPEG-TS, found by its sync bytes.
    MpegTs,
    /// RTP: the payload type's configured codec, a hint; the bits overrule it.
    /// `None`: detect. MP2T is detected by static type 33 or by sync bytes.
    Rtp {
        /// The hint.
        codec: Option<Codec>,
        /// RTP clock rate.
        clock_rate: u32,
        /// SSRC, the track's id.
        ssrc: u32,
    },
}

/// Counters of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub ts_packets: u64,
    pub continuity_errors: u64,
    pub null_packets: u64,
    pub units: u64,
    pub units_damaged: u64,
    pub units_dropped: u64,
    pub discards: mirror_base::discard::DiscardCounts,
}

/// From delivered packets to access units.
#[derive(Debug)]
pub struct Pipeline {
    _p: (),
}

impl Pipeline {
    /// A fresh one.
    pub fn new(format: Format, limits: Limits) -> Self {
        let _ = (format, limits);
        todo!()
    }
    /// One delivered packet.
    pub fn push(&mut self, packet: Packet<'_>) {
        let _ = packet;
        todo!()
    }
    /// Time passed: units that wait too long are closed as damaged.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }
    /// The stream has ended: closes units that only a successor would delimit.
    pub fn finish(&mut self) {
        todo!()
    }
    /// The next complete access unit, in decoding order of its track.
    pub fn poll_unit(&mut self) -> Option<AccessUnit> {
        todo!()
    }
    /// The elementary streams; indexes stay valid. `tracks_version` grows with each change.
    pub fn tracks(&self) -> &[Track] {
        todo!()
    }
    /// Grows with each change of `tracks`.
    pub fn tracks_version(&self) -> u32 {
        todo!()
    }
    /// "mpegts", "H264", ... once known.
    pub fn container(&self) -> Option<&'static str> {
        todo!()
    }
    /// When `handle_timeout` is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Figures.
    pub fn counters(&self) -> &Counters {
        todo!()
    }
    /// Appends the unit's elementary-stream bytes to `out` (Annex B for H.264/HEVC), re-reading
    /// the slots. `false` when a slot is already overwritten.
    pub fn extract(&self, unit: &AccessUnit, ring: &SlotRing, out: &mut Vec<u8>) -> bool {
        let _ = (unit, ring, out);
        todo!()
    }
}

#[cfg(test)]
mod tests {
    /// The bytes that `text` spells.
    pub(crate) fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }
}
