//! Figures of an RTP stream as they go up to control: one entry for each medium, and what they
//! come to in the figures that all protocols have.

use mirror_rtp::media::MediaStatistics;
use mirror_rtp::{ClockMap, Session};

use crate::report::StreamStats;

/// One medium of an RTP stream.
#[derive(Clone, Debug, Default)]
pub struct MediaReport {
    /// Its source, while there is one.
    pub ssrc: Option<u32>,
    /// Paths that bring it.
    pub legs: u8,
    /// The sender's CNAME, once it has told it.
    pub cname: Option<String>,
    /// The sender's clock, once it has told it.
    pub clock: Option<ClockMap>,
    /// Figures.
    pub statistics: MediaStatistics,
}

impl MediaReport {
    /// Of a source that sends to the shared port.
    pub fn of(session: &Session) -> Self {
        let source = session.statistics();
        let cname = session.cname();
        MediaReport {
            ssrc: Some(session.ssrc()),
            legs: 1,
            cname: cname.map(|name| String::from_utf8_lossy(name).into_owned()),
            clock: session.clock(),
            statistics: MediaStatistics {
                rtcp_received: source.rtcp_received,
                rtcp_sent: source.rtcp_sent,
                source,
                ..MediaStatistics::default()
            },
        }
    }
}

/// Adds a medium to the stream's figures.
pub(crate) fn fill(to: &mut StreamStats, statistics: &MediaStatistics) {
    let s = &statistics.source;
    to.packets_received += s.packets_received;
    to.packets_unique += s.packets_unique;
    to.bytes_received += s.payload_bytes;
    to.packets_lost += s.packets_lost;
    to.packets_retransmitted += statistics.rtx_received;
    to.packets_dropped += s.packets_dropped;
    to.packets_belated += s.packets_late;
    to.packets_duplicate += s.packets_duplicate;
    to.packets_reordered += s.packets_reordered;
    to.packets_held += s.packets_held;
    to.jitter_us = to.jitter_us.max(s.jitter_us);
    to.rtt_us = to.rtt_us.max(statistics.rtt_us);
}
