//! A program's clock (ISO 13818-1, 2.4.2.2): its newest clock reference, the 33-bit times made
//! continuous, the span that its references have covered, and how exact they are where the
//! stream's rate is constant (TR 101 290, 2.3 and 2.4).

use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::Instant;

use super::pes::Clock33;

/// Ticks of 27 MHz until a PCR wraps.
const WRAP: i64 = (1 << 33) * 300;
/// Ticks of 27 MHz in a second.
const SECOND: i64 = 27_000_000;
/// References further apart than this many ticks are of two time bases.
const JUMP: i64 = SECOND;

/// A program clock reference (2.4.3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pcr {
    /// In 27 MHz ticks, wrapping at 2^33 · 300.
    pub ticks: u64,
    /// When its datagram reached the host.
    pub arrival: Instant,
    /// Grows with each new time base: the difference of two references of different epochs means
    /// nothing.
    pub epoch: u32,
}

/// What a new reference was with respect to the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// Not within 0 ... limit of the one before, and not announced (2.3b).
    pub(super) discontinuity: bool,
    /// More than the limit after the one before (2.3a).
    pub(super) late: bool,
    /// Not where the rate of the stream puts it (2.4).
    pub(super) inexact: bool,
}

/// The clock of one program.
#[derive(Debug)]
pub(super) struct ProgramClock {
    /// Timestamps, unwrapped.
    pub(super) times: Clock33,
    pub(super) last: Option<Pcr>,
    /// Ticks that the references have covered, jumps left out.
    pub(super) ticks: u64,
    /// The wait for the next reference has been counted as too long.
    pub(super) overdue: bool,
    /// When the program's references were first waited for.
    pub(super) since: Instant,
    /// The next reference is on another PID, which may be of another time base.
    moved: bool,
    accuracy: Accuracy,
}

impl ProgramClock {
    pub(super) fn new(now: Instant) -> Self {
        ProgramClock {
            times: Clock33::default(),
            last: None,
            ticks: 0,
            overdue: false,
            since: now,
            moved: false,
            accuracy: Accuracy::default(),
        }
    }

    /// Another source: nothing continues what was.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = ProgramClock::new(now);
    }

    /// TS packets were lost: the number of packets tells no time.
    pub(super) fn lose_position(&mut self) {
        self.accuracy.restart();
    }

    /// The references are on another PID now.
    pub(super) fn moved(&mut self, now: Instant) {
        self.since = now;
        self.overdue = false;
        self.moved = true;
    }

    /// A reference of `ticks` behind so many packets of the stream. `flagged`: the
    /// discontinuity_indicator is set; `limit`: how far references may be apart.
    pub(super) fn reference(
        &mut self,
        ticks: u64,
        arrival: Instant,
        behind: Packets,
        flagged: bool,
        limit: Limit,
    ) -> Step {
        let mut step = Step {
            discontinuity: false,
            late: false,
            inexact: false,
        };
        let mut epoch = self.last.map_or(0, |last| last.epoch);
        let flagged = flagged | core::mem::take(&mut self.moved);
        if let Some(last) = self.last {
            let difference = difference(last.ticks, ticks);
            let passed = arrival.saturating_since(last.arrival);
            let fits = (0..=limit.ticks()).contains(&difference);
            if !flagged && !fits {
                step.discontinuity = true;
                step.late = passed > limit.0 && !self.overdue;
            }
            if flagged || !(0..=JUMP).contains(&difference) {
                epoch = epoch.wrapping_add(1);
                self.accuracy.restart();
                self.ticks += ticks_of(passed);
            } else {
                self.ticks += difference.unsigned_abs();
            }
        }
        self.overdue = false;
        self.last = Some(Pcr {
            ticks,
            arrival,
            epoch,
        });
        if limit.0 > Duration::ZERO {
            step.inexact = self.accuracy.measure(behind, ticks);
        }
        step
    }

    /// The newest reference as a time of 90 kHz, unwrapped as timestamps are.
    pub(super) fn now(&self) -> Option<i64> {
        let last = self.last?;
        Some(self.times.near(last.ticks / 300))
    }
}

/// Packets of a stream so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packets {
    pub(super) all: u64,
    /// Of these, null packets.
    pub(super) null: u64,
}

/// How far references may be apart; zero: nothing is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(pub(super) Duration);

impl Limit {
    fn ticks(self) -> i64 {
        i64::try_from(ticks_of(self.0)).unwrap_or(i64::MAX)
    }
}

/// A span in 27 MHz ticks.
pub(super) fn ticks_of(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().min(1 << 60) * 27 / 1000).unwrap_or(u64::MAX)
}

/// From `old` to `new`, modulo the wrap, as a signed number.
pub(super) fn difference(old: u64, new: u64) -> i64 {
    let d = (new.cast_signed() - old.cast_signed()).rem_euclid(WRAP);
    if d >= WRAP / 2 { d - WRAP } else { d }
}

/// Reference and packet number of each PCR that a line is laid through.
const WINDOW: usize = 32;
/// References until a line is believed.
const ENOUGH: usize = 16;
/// PCR_accuracy: ±500 ns (5.2.2, 2.4).
const EXACT: f64 = 13.5;
/// With larger errors the rate is not constant: 100 µs.
const CONSTANT: f64 = 2_700.0;
/// Inexact references in a row that are taken for another rate.
const OTHER_RATE: u32 = 64;

/// Whether references stand where a constant rate puts them: compared with the line through
/// those before. A stream of variable rate is never measured, for nothing there tells what is
/// exact; and what has no null packets is not of constant rate, however even its frames are.
#[derive(Debug, Default)]
struct Accuracy {
    /// Packet number and ticks, counted from `origin`, and null packets before.
    points: VecDeque<(f64, f64, u64)>,
    origin: Option<(u64, u64)>,
    inexact: u32,
    /// The last reference was far off: an error if the next one is not.
    astray: bool,
}

impl Accuracy {
    fn restart(&mut self) {
        self.points.clear();
        self.origin = None;
        self.inexact = 0;
        self.astray = false;
    }

    /// Whether the reference, or the one before, is an error.
    fn measure(&mut self, behind: Packets, ticks: u64) -> bool {
        let (first, start) = *self.origin.get_or_insert((behind.all, ticks));
        let point = (
            behind.all.wrapping_sub(first) as f64,
            difference(start, ticks) as f64,
            behind.null,
        );
        let Some(expected) = self.line().map(|(slope, level)| level + slope * point.0) else {
            self.add(point);
            return false;
        };
        let error = (point.1 - expected).abs();
        if error > CONSTANT {
            if self.astray {
                // Twice: another rate, or none that is constant.
                self.restart();
                self.measure(behind, ticks);
            } else {
                self.astray = true;
            }
            return false;
        }
        let before = core::mem::take(&mut self.astray);
        if error <= EXACT {
            self.inexact = 0;
            self.add(point);
            return before;
        }
        self.inexact += 1;
        if self.inexact > OTHER_RATE {
            self.restart();
        }
        true
    }

    fn add(&mut self, point: (f64, f64, u64)) {
        if self.points.len() >= WINDOW {
            self.points.pop_front();
        }
        self.points.push_back(point);
        // Numbers stay small enough to be exact.
        if point.0 > 1e9 || point.1.abs() > 1e13 {
            self.restart();
        }
    }

    /// Slope and level of the line through the points, if they lie on one.
    fn line(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.points.front()?, self.points.back()?);
        let stuffed = last.2 - first.2 >= self.points.len() as u64;
        if self.points.len() < ENOUGH || !stuffed {
            return None;
        }
        let n = self.points.len() as f64;
        let (sx, sy) = self
            .points
            .iter()
            .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        let (mx, my) = (sx / n, sy / n);
        let (mut xx, mut xy) = (0.0, 0.0);
        for (x, y, _) in &self.points {
            xx += (x - mx) * (x - mx);
            xy += (x - mx) * (y - my);
        }
        if xx <= 0.0 {
            return None;
        }
        let slope = xy / xx;
        let level = my - slope * mx;
        let off = |p: &(f64, f64, u64)| (p.1 - level - slope * p.0).abs() > CONSTANT;
        (!self.points.iter().any(off)).then_some((slope, level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit(Duration::from_millis(100));

    const fn behind(all: u64) -> Packets {
        Packets { all, null: all / 3 }
    }

    /// References every 12 packets of 67,680 ticks, moved by what `error` says.
    fn errors(count: u64, error: impl Fn(u64) -> i64) -> Vec<u64> {
        let mut clock = ProgramClock::new(Instant::ZERO);
        (0..count)
            .filter(|&n| {
                let ticks = (n * 12 * 67_680).cast_signed() + 5_000_000 + error(n);
                let arrival = Instant::from_micros(n * 30_000);
                clock
                    .reference(ticks.unsigned_abs(), arrival, behind(n * 12), false, LIMIT)
                    .inexact
            })
            .collect()
    }

    #[test]
    fn references_of_a_constant_rate_are_exact_to_500_ns() {
        assert_eq!(errors(500, |_| 0), [0_u64; 0]);
        assert_eq!(errors(500, |n| n as i64 % 3 * 6 - 6), [0_u64; 0]);
        assert_eq!(errors(100, |n| if n >= 60 { 40 } else { 0 }).len(), 40);
        assert_eq!(errors(100, |n| if n == 70 { -30 } else { 0 }), [70]);
        // One that is far off is known to be one when the next is not.
        assert_eq!(errors(100, |n| if n == 70 { 200_000 } else { 0 }), [71]);
    }

    #[test]
    fn where_the_rate_varies_nothing_is_inexact() {
        let wobble = |n: u64| (n * 7919 % 40) as i64 * 3_000;
        assert_eq!(errors(2_000, wobble), [0_u64; 0]);
        // A rate that changes once costs nothing.
        let twice = |n: u64| n.saturating_sub(100) as i64 * 100_000;
        assert_eq!(errors(400, twice), [0_u64; 0]);
    }

    #[test]
    fn even_frames_without_stuffing_are_no_constant_rate() {
        let mut clock = ProgramClock::new(Instant::ZERO);
        for n in 0..500_u64 {
            let all = n * 1350 + n / 3 * 2;
            let arrival = Instant::from_millis(n * 40);
            let behind = Packets { all, null: 0 };
            let step = clock.reference(n * 1_080_000, arrival, behind, false, LIMIT);
            assert!(!step.inexact, "{n}");
        }
    }

    #[test]
    fn a_jump_is_an_error_unless_it_is_announced_and_a_gap_is_late() {
        let mut clock = ProgramClock::new(Instant::ZERO);
        let mut at = |ticks: u64, ms: u64, flagged: bool| {
            let step = clock.reference(ticks, Instant::from_millis(ms), behind(ms), flagged, LIMIT);
            let epoch = clock.last.unwrap().epoch;
            (step.discontinuity, step.late, epoch, clock.ticks / 27_000)
        };
        assert_eq!(at(0, 0, false), (false, false, 0, 0));
        assert_eq!(at(27_000 * 40, 40, false), (false, false, 0, 40));
        // Five seconds on in 40 ms.
        assert_eq!(at(27_000 * 5_040, 80, false), (true, false, 1, 80));
        assert_eq!(at(27_000 * 90_000, 120, true), (false, false, 2, 120));
        // 180 ms of silence.
        assert_eq!(at(27_000 * 90_180, 300, false), (true, true, 2, 300));
        // Back.
        assert_eq!(at(27_000 * 90_179, 301, false), (true, false, 3, 301));
    }

    #[test]
    fn references_go_on_over_their_wrap() {
        let mut clock = ProgramClock::new(Instant::ZERO);
        let wrap = WRAP.unsigned_abs();
        for n in 0..10_u64 {
            let ticks = (wrap - 5 * 810_000 + n * 810_000) % wrap;
            let step =
                clock.reference(ticks, Instant::from_millis(n * 30), behind(n), false, LIMIT);
            assert!(!step.discontinuity);
        }
        assert_eq!(clock.ticks, 9 * 810_000);
        assert_eq!(clock.last.unwrap().epoch, 0);
    }

    #[test]
    fn references_that_run_in_a_circle_are_counted_and_bounded() {
        let mut clock = ProgramClock::new(Instant::ZERO);
        let mut discontinuities = 0;
        for n in 0..100_000_u64 {
            let ticks = n % 3 * 27_000_000 * 3600;
            let step = clock.reference(ticks, Instant::from_micros(n), behind(n), false, LIMIT);
            discontinuities += u64::from(step.discontinuity);
        }
        assert_eq!(discontinuities, 99_999);
        assert!(clock.accuracy.points.len() <= WINDOW);
    }
}
