//! What a stream's units tell, as it goes up to control once a second: tracks with their clocks
//! and rates, groups of pictures, audio against video, TR 101 290, splices.

use mirror_base::Instant;
use mirror_media::av_sync::{SyncFigures, SyncStatus};
use mirror_media::gop::{Gop, GopStatistics};
use mirror_media::{Splice, Tr101290};

use crate::gop_cache::CacheFigures;

/// Splices kept.
pub const LAST_SPLICES: usize = 16;

/// What was measured of one track. In the order of the stream's tracks.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct TrackFigures {
    /// Access units.
    pub units: u64,
    /// Of these, damaged ones, those left out that are only not decodable after a late start.
    pub damaged: u64,
    /// Bytes of elementary stream.
    pub bytes: u64,
    /// Bits a second of elementary stream over the last seconds.
    pub bitrate_bps: u64,
    /// Units a second over the last seconds, times 1000.
    pub rate_milli: u64,
    /// Presentation time of the last unit, unwrapped 90 kHz ticks.
    pub last_pts: Option<i64>,
    /// Decoding time likewise.
    pub last_dts: Option<i64>,
    /// Times that the wire's counter began anew.
    pub wraps: u64,
    /// Jumps of its times.
    pub jumps: u64,
    /// Times that cannot be.
    pub errors: u64,
    /// Ticks to be added to its times to have them on the stream's clock.
    pub clock_offset: Option<i64>,
}

/// Audio against video, and the source's clock against ours.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SyncReport {
    /// Together or apart.
    pub status: SyncStatus,
    /// What was measured.
    pub figures: SyncFigures,
    /// The drift is more than `sync.max_drift`.
    pub excessive: bool,
    /// Track that stands for video.
    pub video: Option<u16>,
    /// Track that stands for audio.
    pub audio: Option<u16>,
    /// How much faster the source's clock runs than ours, parts per million.
    pub source_drift_ppm: Option<f64>,
}

/// Groups of pictures.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GopReport {
    /// Statistics of complete groups.
    pub statistics: GopStatistics,
    /// The group at hand.
    pub current: Option<Gop>,
    /// The last complete one.
    pub last: Option<Gop>,
    /// Structure of the last complete one, display order.
    pub structure: String,
    /// No picture at which decoding could begin for `gop.keyframe_timeout`.
    pub key_frame_missing: bool,
    /// When the last one of these came.
    pub last_access_point: Option<Instant>,
    /// What is kept.
    pub cache: CacheFigures,
    /// Bytes of ring that all groups to be kept would take.
    pub ring_bytes: u64,
    /// Bytes of ring that one group takes, the longest of the last ones.
    pub group_bytes: u64,
    /// Bytes of ring that hold what was delivered: history.
    pub history_bytes: u64,
    /// The history is shorter than one group.
    pub is_short: bool,
    /// The operator has set how many groups are to be kept.
    pub keep_is_set: bool,
}

/// A splice command as it was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpliceRecord {
    /// Counted from 1.
    pub number: u64,
    /// When it came first.
    pub at: Instant,
    /// How often the same was said again.
    pub repeats: u32,
    /// What it says.
    pub splice: Splice,
}

/// What the stream went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Times that a key frame ended what damage had begun.
    pub recoveries: u64,
    /// When it did last.
    pub recovered_at: Option<Instant>,
    /// Times that damage began.
    pub damages: u64,
    /// Times that the source's timeline or framing was found anew: discontinuities of the
    /// session, losses of TS synchronisation, jumps of the main track's times.
    pub resyncs: u64,
}

/// All of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Figures {
    /// Track by track.
    pub tracks: Vec<TrackFigures>,
    /// Audio against video.
    pub sync: SyncReport,
    /// Groups of pictures.
    pub gop: GopReport,
    /// Damage and recovery.
    pub recovery: RecoveryReport,
    /// The last splice commands, oldest first; splice_null is left out.
    pub splices: Vec<SpliceRecord>,
    /// Splice commands so far, repetitions left out.
    pub splices_total: u64,
    /// When the last access unit was complete.
    pub last_unit_at: Option<Instant>,
    /// KLV units.
    pub klv_units: u64,
    /// Measurements of TR 101 290, of all transport streams together; `None` for other than
    /// MPEG-TS, or when switched off.
    pub tr101290: Option<Tr101290>,
    /// The same of each transport stream, by the number of its lane (counted from 0), where there
    /// are several lanes.
    pub tr101290_of: Vec<(usize, Tr101290)>,
}
