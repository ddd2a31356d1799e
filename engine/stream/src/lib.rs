//! One stream end to end, still sans-IO: the slot ring that protocol and outputs share, the
//! media pipeline behind it, status and statistics, and the latency that the engine adds.
//!
//! The shard owns a [`Stream`] per stream. It lends [`Stream::ring_mut`] to the session
//! (`srt::Connection`, `rtp::Session`) while datagrams come in, and hands each packet that the
//! session releases to [`Stream::deliver`]. What crosses to control is in [`report`].

pub mod figures;
pub mod latency;
pub mod plan;
pub mod report;

mod frames;
mod gop_cache;
mod lane;
mod payload;
mod rate;
mod rtp;
mod stream;
mod timeline;

pub use gop_cache::{CacheFigures, GopConfig};
pub use lane::{MAX_LANES, lane_of};
pub use latency::LatencyRecorder;
pub use mirror_rtp::media::{HoldCause, HoldFigures, MediaStatistics};
pub use payload::PayloadFigures;
pub use rtp::MediaReport;
pub use stream::{SessionStatistics, Stream, StreamConfig};
