//! How a stream does, and why: what its last snapshots say about loss, damage, silence, key
//! frames, audio against video and TR 101 290. Only what is so now, or was within the last ten
//! seconds: history makes nothing unhealthy.

use std::time::Duration;

use mirror_base::{Discard, Instant};
use mirror_media::av_sync::SyncStatus;
use mirror_stream::HoldFigures;
use mirror_stream::report::{PipelineState, Status, StreamSnapshot};

use crate::state::Entry;

/// Loss or damage within so long makes a stream degraded.
const WINDOW: Duration = Duration::from_secs(10);
/// Silence that makes a stream degraded, and one that makes it critical.
const SILENT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Packets that bring no complete frame for so long.
const STALLED: Duration = Duration::from_secs(5);

/// How a stream does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Health {
    Healthy,
    Degraded,
    Critical,
    #[default]
    Unknown,
}

impl Health {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Critical => "critical",
            Health::Unknown => "unknown",
        }
    }
}

/// The publisher's key is not ours, or was damaged on the way.
pub(crate) const UNDECRYPTABLE: &str = "undecryptable packets in the last 10 s";
/// Packets that the configuration keeps out.
pub(crate) const OVERSIZE: &str =
    "packets longer than rtp.max_packet_size in the last 10 s: raise it";
/// Errors of the first priority of TR 101 290, 5.2.1, as it orders them.
const TS_ERRORS: [&str; 6] = [
    "TR 101 290 1.1 TS_sync_loss in the last 10 s",
    "TR 101 290 1.2 Sync_byte_error in the last 10 s",
    "TR 101 290 1.3 PAT_error in the last 10 s",
    "TR 101 290 1.4 Continuity_count_error in the last 10 s",
    "TR 101 290 1.5 PMT_error in the last 10 s",
    "TR 101 290 1.6 PID_error in the last 10 s",
];

/// When things happened last that make a stream unhealthy for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Incidents {
    /// Repair failed or media was damaged.
    hurt: Option<Instant>,
    /// Packets came that cannot be decrypted.
    undecryptable: Option<Instant>,
    /// Pictures refer to ones that never came.
    references: Option<Instant>,
    /// Datagrams came that are longer than what is taken.
    oversize: Option<Instant>,
    /// Errors of the first priority of TR 101 290.
    ts: [Option<Instant>; 6],
}

impl Incidents {
    /// Takes in what `new` shows that `old` did not.
    pub(crate) fn note(&mut self, now: Instant, old: &StreamSnapshot, new: &StreamSnapshot) {
        // Units that came whole but before decoding could begin are no damage.
        let damage = |s: &StreamSnapshot| {
            s.stats
                .frames_damaged
                .saturating_sub(s.stats.frames_undecodable)
        };
        if new.stats.packets_dropped > old.stats.packets_dropped || damage(new) > damage(old) {
            self.hurt = Some(now);
        }
        if new.stats.packets_undecryptable > old.stats.packets_undecryptable {
            self.undecryptable = Some(now);
        }
        let lacking = |s: &StreamSnapshot| s.stats.frames_references_missing;
        if lacking(new) > lacking(old) {
            self.references = Some(now);
        }
        let oversize = |s: &StreamSnapshot| s.stats.discards.get(Discard::OverMaxPacketSize);
        if oversize(new) > oversize(old) {
            self.oversize = Some(now);
        }
        let counts = |s: &StreamSnapshot, at: usize| {
            let report = s.figures.tr101290.as_ref();
            report.map_or(0, |r| r.indicators.get(at).map_or(0, |i| i.count))
        };
        for (at, last) in self.ts.iter_mut().enumerate() {
            if counts(new, at) > counts(old, at) {
                *last = Some(now);
            }
        }
    }
}

/// Health and its reasons.
pub(crate) fn of(entry: &Entry) -> (Health, Vec<&'static str>) {
    let snapshot = &*entry.snapshot;
    if entry.is_over() {
        return (Health::Unknown, vec!["ended"]);
    }
    let since = |at: Instant| entry.seen_at.saturating_since(at);
    let recent = |at: Option<Instant>| at.is_some_and(|at| since(at) < WINDOW);
    let silent = |at: Instant| since(at) > Duration::from_secs(1);
    let undecryptable = recent(entry.incidents.undecryptable);
    match entry.status {
        Status::Error => return (Health::Critical, vec!["error"]),
        // Connected, but with another key than ours: nothing at all comes out of it.
        Status::Active | Status::Connecting
            if undecryptable && snapshot.last_packet_at.is_none_or(silent) =>
        {
            return (Health::Critical, vec![UNDECRYPTABLE]);
        }
        Status::Active => {}
        Status::Reconnecting => return (Health::Degraded, vec!["waiting for its publisher"]),
        _ => return (Health::Unknown, vec!["not active"]),
    }
    let mut found = Vec::new();
    if undecryptable {
        found.push((Health::Degraded, UNDECRYPTABLE));
    }
    if recent(entry.incidents.oversize) {
        found.push((Health::Degraded, OVERSIZE));
    }
    let silence = snapshot.last_packet_at.map(since).unwrap_or_default();
    let [some, long] = SILENT;
    if silence > long {
        found.push((Health::Critical, "no packet for more than five seconds"));
    } else if silence > some {
        found.push((Health::Degraded, "no packet for more than a second"));
    } else if snapshot.figures.last_unit_at.map(since) > Some(STALLED) {
        found.push((
            Health::Critical,
            "packets, but no complete frame for more than five seconds",
        ));
    }
    if snapshot.state == PipelineState::Recovering {
        found.push((Health::Degraded, "waiting for a key frame after damage"));
    }
    if recent(entry.incidents.hurt) {
        let reason = "unrepaired loss or damage in the last 10 s";
        found.push((Health::Degraded, reason));
    }
    if recent(entry.incidents.references) {
        let reason = "pictures refer to ones that never came, in the last 10 s";
        found.push((Health::Degraded, reason));
    }
    media(entry, &mut found);
    let ts = entry.incidents.ts.iter().zip(TS_ERRORS);
    let ts = ts.filter(|(at, _)| recent(**at));
    found.extend(ts.map(|(_, reason)| (Health::Degraded, reason)));
    let worst = found.iter().map(|(health, _)| *health).max();
    match worst {
        Some(worst) => (worst, found.into_iter().map(|(_, why)| why).collect()),
        None if snapshot.stats.packets_received == 0 => {
            (Health::Unknown, vec!["nothing received yet"])
        }
        None => (Health::Healthy, Vec::new()),
    }
}

fn media(entry: &Entry, found: &mut Vec<(Health, &'static str)>) {
    let figures = &entry.snapshot.figures;
    let holds = entry.snapshot.rtp.iter().map(|r| r.statistics.hold);
    let mut short = holds.filter(HoldFigures::is_too_short);
    if let Some(hold) = short.next() {
        let reason = if hold.follows {
            "repair takes longer than rtp.max_jitter_buffer"
        } else {
            "jitter_buffer is too short for the repair in use"
        };
        found.push((Health::Degraded, reason));
    }
    if figures.gop.keep_is_set && figures.gop.is_short {
        let reason = "buffer.ring_size holds less than one group of pictures, of gop.keep";
        found.push((Health::Degraded, reason));
    }
    if figures.gop.key_frame_missing {
        found.push((Health::Degraded, "no key frame for gop.keyframe_timeout"));
    }
    if figures.sync.excessive {
        let reason = "audio and video are more than sync.max_drift apart";
        found.push((Health::Critical, reason));
    } else if figures.sync.status == SyncStatus::Drifting {
        found.push((Health::Degraded, "audio and video drift apart"));
    }
}
