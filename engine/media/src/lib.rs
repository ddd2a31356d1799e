//! From payloads to access units: MPEG-TS (ISO 13818-1), RTP payload formats, and the
//! elementary streams' own syntax. Sans-IO; called by `stream` for every delivered packet.

pub mod assembler;
pub mod av_sync;
pub mod clock;
pub mod codec;
pub mod depacketise;
pub mod files;
pub mod gop;
pub mod obu_assembler;
mod pipeline;
pub mod ts;
pub mod types;
pub use assembler::Assembler;
pub use depacketise::{FormatParameters, PayloadFormat, PayloadHint};
pub use pipeline::Pipeline;
pub use ts::splice::{Segmentation, Splice, SpliceCommand};
pub use ts::tr101290::{Check, Indicator, Tr101290, Tr101290Limits};
pub use types::{
    AccessUnit, Codec, Colour, ContentLight, DisplayOrder, FieldOrder, FrameKind, MasteringDisplay,
    Packet, SideInformation, Track,
};

// DOOR: signatures other rooms are written against.

/// Bounds of everything that a peer can make grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Elementary streams.
    pub max_tracks: usize,
    /// Bytes of an access unit.
    pub max_frame_size: usize,
    /// A unit that got no datagram for so long is closed as damaged.
    pub assembly_timeout: core::time::Duration,
    /// What becomes of damaged units.
    pub damaged: Damaged,
    /// What the units of MPEG-TS are.
    pub units: Units,
    /// Whether MPEG-TS is measured by TR 101 290.
    pub tr101290: bool,
    /// What counts as too long there.
    pub tr101290_limits: Tr101290Limits,
}

/// What becomes of access units that lack something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Damaged {
    /// They are handed out, marked.
    #[default]
    Deliver,
    /// They are counted and left out.
    Drop,
}

/// What the units of MPEG-TS are. (Those of RTP payload formats are access units.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Units {
    /// Access units of video, frames of audio, KLV units: what the streams' own bits say.
    #[default]
    AccessUnits,
    /// PES packets, as they came: nothing of what they hold is read. Such a unit has the PES
    /// packet's times and length and tells whether bytes of it were lost, but is of no kind and
    /// no place in display order, and its track is what the PMT says. It is handed out at the
    /// end that its length shows, else when the next one begins. (Sections, as those of SCTE
    /// 35, are units of their own here, too.)
    PesPackets,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_tracks: 32,
            max_frame_size: 10 << 20,
            assembly_timeout: core::time::Duration::from_millis(200),
            damaged: Damaged::Deliver,
            units: Units::AccessUnits,
            tr101290: true,
            tr101290_limits: Tr101290Limits::default(),
        }
    }
}

/// What a pipeline is fed with.
#[derive(Clone, PartialEq, Debug)]
pub enum Format {
    /// SRT: MPEG-TS, found by its sync bytes.
    MpegTs,
    /// RTP: what signalling or the payload-type map say, a hint; the bits overrule it.
    /// `None`: detect. MP2T is detected by static type 33 or by sync bytes.
    Rtp {
        /// The hint.
        hint: Option<PayloadHint>,
        /// RTP clock rate, Hz; 0: what is usual for the payload format.
        clock_rate: u32,
        /// SSRC, the track's id.
        ssrc: u32,
    },
}

/// Counters of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// MPEG-TS packets, null packets included.
    pub ts_packets: u64,
    /// Continuity counters that were not the next one (TR 101 290, 1.4).
    pub continuity_errors: u64,
    /// Losses of the grid of TS packets (TR 101 290, 1.1).
    pub sync_losses: u64,
    /// Packets of PID 0x1FFF.
    pub null_packets: u64,
    /// Access units that were handed out.
    pub units: u64,
    /// Of these, damaged ones.
    pub units_damaged: u64,
    /// Units that nobody polled in time.
    pub units_dropped: u64,
    /// Damaged units that were left out ([`Damaged::Drop`]).
    pub units_left_out: u64,
    /// Of the damaged ones, handed out or left out, those that are only undecodable
    /// ([`AccessUnit::undecodable`]).
    pub units_undecodable: u64,
    /// Units handed out that refer to pictures which never came
    /// ([`AccessUnit::references_missing`]).
    pub units_references_missing: u64,
    /// What could not be used, by reason.
    pub discards: mirror_base::discard::DiscardCounts,
}

#[cfg(test)]
mod tests {
    /// The bytes that `text` spells.
    pub(crate) fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }

    /// Bits from a text of numbers and widths: "3:0" is three bits of value 0.
    pub(crate) fn bits(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        for word in text.split_whitespace() {
            let (width, value) = word.split_once(':').unwrap();
            let (width, value): (u32, u64) = (width.parse().unwrap(), value.parse().unwrap());
            for bit in (0..width).rev() {
                if at % 8 == 0 {
                    out.push(0);
                }
                *out.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (7 - at % 8);
                at += 1;
            }
        }
        out
    }
}
