//! How long a gap is waited for, where that was not set: as long as the repair takes that the
//! session uses. FEC of ST 2022-1 comes up to two matrices late, the slower path of ST 2022-7 by
//! what it lags behind, an answer to a NACK after a round trip. Nothing is held while nothing is
//! missing, so that a long wait costs only those who would lose the packet otherwise.

use core::time::Duration;

use mirror_base::Instant;

use super::MediaConfig;

/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// What repair may take longer than was measured.
const MARGIN: Duration = Duration::from_millis(20);
/// An answer to a NACK is waited for so long while no round-trip time is known.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(200);
/// A request, and two repetitions after 1.5 round trips each: the last answer comes after so many.
const ROUND_TRIPS: u32 = 4;

/// What a session's wait for a gap follows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HoldCause {
    /// It was set, or nothing that is used needs more.
    #[default]
    Configured,
    /// FEC (SMPTE ST 2022-1): two matrices at the packet rate seen.
    Fec,
    /// Two paths (SMPTE ST 2022-7): what one lags behind the other.
    Paths,
    /// Retransmission: round trips of requests and answers.
    Retransmission,
}

impl HoldCause {
    /// For people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            HoldCause::Configured => "configured",
            HoldCause::Fec => "fec",
            HoldCause::Paths => "2022-7",
            HoldCause::Retransmission => "rtx",
        }
    }
}

/// How long a gap is waited for, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HoldFigures {
    /// What is in force.
    pub jitter_buffer: Duration,
    /// What repair by all that is used takes; zero: nothing, or not known yet.
    pub needed: Duration,
    /// What of it takes longest. With `follows`: what `jitter_buffer` comes from.
    pub cause: HoldCause,
    /// It follows from what is used. Else it was set, and stays.
    pub follows: bool,
}

impl HoldFigures {
    /// Whether repair is given up before it can come.
    pub fn is_too_short(&self) -> bool {
        self.needed > self.jitter_buffer
    }
}

/// What is used, as it was seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// One past the newest slot of the present numbering.
    pub(super) end: u64,
    /// Packets within which FEC comes; 0: none was seen.
    pub(super) fec_packets: u64,
    /// What one path lags behind the other.
    pub(super) skew: Duration,
    /// The sender takes NACKs: how long a gap is left alone first, and the round-trip time.
    pub(super) nack: Option<(Duration, Option<Duration>)>,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Hold {
    figures: HoldFigures,
    least: Duration,
    most: Duration,
    /// When it is looked at next.
    look_at: Instant,
    /// When it was looked at last, and where the slots ended then.
    seen: Option<(Instant, u64)>,
    /// Time from one packet to the next, smoothed, in ns; 0: not known.
    spacing_ns: u64,
}

impl Hold {
    pub(super) fn new(config: &MediaConfig) -> Self {
        let follows = config.max_jitter_buffer > config.jitter_buffer;
        Hold {
            figures: HoldFigures {
                jitter_buffer: config.jitter_buffer,
                follows,
                ..HoldFigures::default()
            },
            least: config.jitter_buffer,
            most: config.max_jitter_buffer,
            look_at: Instant::ZERO,
            seen: None,
            spacing_ns: 0,
        }
    }

    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.look_at
    }

    pub(super) const fn figures(&self) -> HoldFigures {
        self.figures
    }

    fn note_rate(&mut self, now: Instant, end: u64) {
        let before = self.seen.replace((now, end));
        let Some((then, from)) = before else { return };
        let nanos = now.saturating_since(then).as_nanos();
        let Some(packets) = end.checked_sub(from).filter(|n| *n > 0) else {
            return;
        };
        // A pause is no rate, and a numbering that began anew none either.
        if nanos > PERIOD.as_nanos() * 4 {
            return;
        }
        let spacing = u64::try_from(nanos / u128::from(packets)).unwrap_or(u64::MAX / 8);
        self.spacing_ns = match self.spacing_ns {
            0 => spacing,
            old => (old * 3).saturating_add(spacing) / 4,
        };
    }

    /// Looks at what is used. `Some`: how long gaps are waited for from now on.
    pub(super) fn look(&mut self, now: Instant, used: &Used) -> Option<Duration> {
        self.look_at = now + PERIOD;
        self.note_rate(now, used.end);
        let fec = Duration::from_nanos(self.spacing_ns.saturating_mul(used.fec_packets));
        let paths = used.skew * 5 / 4;
        let answers = used.nack.map(|(delay, round_trip)| match round_trip {
            Some(rtt) => delay + rtt * ROUND_TRIPS,
            None => UNKNOWN_ROUND_TRIP,
        });
        let all = [
            (fec, HoldCause::Fec),
            (paths, HoldCause::Paths),
            (answers.unwrap_or_default(), HoldCause::Retransmission),
        ];
        let (longest, cause) = all.into_iter().max_by_key(|(time, _)| *time)?;
        let needed = if longest.is_zero() {
            Duration::ZERO
        } else {
            longest + MARGIN
        };
        let before = self.figures.jitter_buffer;
        let figures = &mut self.figures;
        figures.needed = needed;
        figures.cause = cause;
        if !figures.follows {
            return None;
        }
        let wanted = needed.clamp(self.least, self.most);
        if needed <= self.least {
            figures.cause = HoldCause::Configured;
        }
        // It grows at once, and shrinks slowly: what was needed once may be needed again.
        figures.jitter_buffer = if wanted >= before {
            wanted
        } else if wanted * 4 / 3 < before {
            before - (before - wanted) / 16
        } else {
            before
        };
        (figures.jitter_buffer != before).then_some(figures.jitter_buffer)
    }
}
