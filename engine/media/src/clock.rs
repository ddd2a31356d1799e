//! Clocks of a stream (rtp-media-spec, section 29). [`TrackClock`] follows the times of one
//! track and tells wraps of the wire's counter (33 bits in MPEG-TS, 32 in RTP) from jumps;
//! [`StreamClock`] maps all tracks to one clock that goes on through jumps; [`DriftMeter`]
//! measures how fast the source's clock runs against ours. All times are in 90 kHz ticks as
//! access units carry them, unwrapped. Called by `stream` for each unit.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use mirror_base::Instant;

use crate::AccessUnit;

/// After how many ticks PTS, DTS and PCR of MPEG-TS wrap.
pub const WRAP_TS: i64 = 1 << 33;
/// Time that may be missing or too much between two units, in ticks: 2 s.
const TOLERANCE: i64 = 180_000;
/// How far the time of a unit may lie before that of the one before: units without decoding
/// times come in decoding order, 16 pictures of 24 Hz out of order at the most.
const BACKWARD: i64 = 90_000;

/// After how many ticks RTP timestamps of a clock of `clock_rate` Hz wrap.
pub const fn wrap_rtp(clock_rate: u32) -> i64 {
    if clock_rate == 0 {
        return 1 << 32;
    }
    ((1i128 << 32) * 90_000 / clock_rate as i128) as i64
}

/// Ticks of 90 kHz that pass between two moments of our clock.
fn ticks_between(from: Instant, to: Instant) -> i64 {
    let micros = i64::try_from(to.micros_since(from)).unwrap_or(i64::MAX);
    micros.saturating_mul(9) / 100
}

/// What the time of a unit is to the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is the first, or has no time.
    None,
    /// It continues.
    Steady,
    /// It continues, and the wire's counter began anew.
    Wrapped,
    /// It is so many ticks away from where it was expected: another time base, or a cut.
    Jumped(i64),
}

/// The times of one track.
#[derive(Clone, Copy, Debug)]
pub struct TrackClock {
    wrap: i64,
    last: Option<(i64, Instant)>,
    /// The greatest time since the last jump: reordering around a wrap is no second one.
    turn: i64,
    /// Presentation time of the last unit that has one.
    pub last_pts: Option<i64>,
    /// Decoding time likewise.
    pub last_dts: Option<i64>,
    /// Times the wire's counter began anew.
    pub wraps: u64,
    /// Jumps.
    pub jumps: u64,
    /// Units whose times cannot be: presented before they are decoded, or decoded before or
    /// with the unit before.
    pub errors: u64,
}

impl TrackClock {
    /// A clock whose counter on the wire wraps after `wrap` ticks.
    pub const fn new(wrap: i64) -> Self {
        TrackClock {
            wrap,
            last: None,
            turn: 0,
            last_pts: None,
            last_dts: None,
            wraps: 0,
            jumps: 0,
            errors: 0,
        }
    }

    /// The period of its counter is another now.
    pub const fn set_wrap(&mut self, wrap: i64) {
        self.wrap = wrap;
    }

    /// What comes next need not continue what was.
    pub const fn restart(&mut self) {
        self.last = None;
        self.last_dts = None;
    }

    /// Takes a unit's times in, in decoding order.
    pub fn take(&mut self, unit: &AccessUnit) -> Step {
        let Some(time) = unit.dts.or(unit.pts) else {
            return Step::None;
        };
        if unit.dts.zip(unit.pts).is_some_and(|(dts, pts)| dts > pts) {
            self.errors += 1;
        }
        let step = self.step(time, unit.first_arrival);
        let steady = matches!(step, Step::Steady | Step::Wrapped);
        if steady && !unit.dts_derived && self.last_dts.is_some_and(|last| unit.dts <= Some(last)) {
            self.errors += u64::from(unit.dts.is_some());
        }
        self.last_pts = unit.pts.or(self.last_pts);
        self.last_dts = unit.dts.or(self.last_dts);
        step
    }

    fn step(&mut self, time: i64, arrival: Instant) -> Step {
        let turn = time.div_euclid(self.wrap.max(1));
        let Some((last, last_arrival)) = self.last.replace((time, arrival)) else {
            self.turn = turn;
            return Step::None;
        };
        let step = time.saturating_sub(last);
        let passed = ticks_between(last_arrival, arrival);
        // A source may be slow, or be caught up with: what counts is what nothing explains.
        if step < -BACKWARD || step > passed.saturating_add(TOLERANCE) {
            self.jumps += 1;
            self.turn = turn;
            return Step::Jumped(step.saturating_sub(passed));
        }
        if turn > self.turn {
            self.wraps += 1;
            self.turn = turn;
            return Step::Wrapped;
        }
        Step::Steady
    }
}

/// Clock domains of a stream at the most: programs, and media with clocks of their own.
const MAX_DOMAINS: usize = 64;

/// Tracks whose times are of one clock: those of a program, or the one of an RTP source.
#[derive(Clone, Copy, Debug)]
struct Domain {
    key: u64,
    /// Grows with each jump.
    epoch: u32,
    /// From its times to the stream's clock.
    offset: i64,
    /// From its times to the sender's clock, where the sender has told (RTCP SR).
    sender: Option<i64>,
    /// Its source began anew: the next time says where it is.
    is_anew: bool,
}

/// How one track's times become the stream's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mapped {
    domain: Option<usize>,
    epoch: u32,
    offset: i64,
}

/// One clock for all tracks of a stream: that of the domain that came first, continued over its
/// jumps by our own clock.
#[derive(Clone, Debug, Default)]
pub struct StreamClock {
    domains: Vec<Domain>,
    tracks: Vec<Mapped>,
    /// The stream's time, and when it was that.
    last: Option<(i64, Instant)>,
    /// From the sender's clock to the stream's.
    sender_base: Option<i64>,
}

impl StreamClock {
    /// One that has seen nothing.
    pub fn new() -> Self {
        StreamClock::default()
    }

    /// Takes in that a unit of track `track`, of the clock domain `key`, has the decoding time
    /// `time` and that this was `step` to the one before. `sender`: ticks from the domain's
    /// times to the sender's clock, where known. Returns the time on the stream's clock.
    pub fn take(
        &mut self,
        (track, key): (usize, u64),
        time: i64,
        step: Step,
        sender: Option<i64>,
        arrival: Instant,
    ) -> i64 {
        let expected = match self.last {
            Some((last, at)) => last + ticks_between(at, arrival),
            None => time,
        };
        let Some(domain) = self.domain(key, expected - time) else {
            return time;
        };
        self.anchor(domain, expected - time);
        if sender.is_some() {
            self.align(domain, sender);
        }
        let offset = self.map(track, domain, time, step, expected);
        let now = time.saturating_add(offset);
        if self.last.is_none_or(|(last, _)| now > last) || matches!(step, Step::Jumped(_)) {
            self.last = Some((now, arrival));
        }
        now
    }

    fn domain(&mut self, key: u64, offset: i64) -> Option<usize> {
        if let Some(at) = self.domains.iter().position(|d| d.key == key) {
            return Some(at);
        }
        if self.domains.len() >= MAX_DOMAINS {
            return None;
        }
        self.domains.push(Domain {
            key,
            epoch: 0,
            offset,
            sender: None,
            is_anew: false,
        });
        Some(self.domains.len() - 1)
    }

    fn anchor(&mut self, at: usize, offset: i64) {
        if let Some(domain) = self.domains.get_mut(at).filter(|d| d.is_anew) {
            domain.is_anew = false;
            domain.offset = offset;
            domain.epoch = domain.epoch.wrapping_add(1);
        }
    }

    /// The sender says how the domain's times are to be read: domains of one sender keep the
    /// distance that it gives them.
    fn align(&mut self, at: usize, sender: Option<i64>) {
        let Some(domain) = self.domains.get_mut(at) else {
            return;
        };
        if domain.sender == sender {
            return;
        }
        domain.sender = sender;
        let Some(sender) = sender else { return };
        // The first to be told sets where the sender's clock lies; the stream's goes on.
        let base = *self.sender_base.get_or_insert(domain.offset - sender);
        domain.offset = sender + base;
        domain.epoch = domain.epoch.wrapping_add(1);
    }

    /// The track's offset, after what `step` says.
    fn map(&mut self, track: usize, at: usize, time: i64, step: Step, expected: i64) -> i64 {
        const NONE: Mapped = Mapped {
            domain: None,
            epoch: 0,
            offset: 0,
        };
        if track >= self.tracks.len() {
            self.tracks.resize(track + 1, NONE);
        }
        let (Some(domain), Some(mapped)) = (self.domains.get_mut(at), self.tracks.get_mut(track))
        else {
            return 0;
        };
        let follows = mapped.domain == Some(at);
        if follows && mapped.epoch == domain.epoch && !matches!(step, Step::Jumped(_)) {
            return mapped.offset;
        }
        let fits = |offset: i64| (time + offset - expected).abs() <= TOLERANCE;
        if matches!(step, Step::Jumped(_)) && !fits(domain.offset) {
            // The first track of the domain that jumps takes the others with it.
            domain.offset = expected - time;
            domain.epoch = domain.epoch.wrapping_add(1);
        } else if follows && matches!(step, Step::Steady | Step::Wrapped) && !fits(domain.offset) {
            // Another track has jumped; this one still brings what is of the old time base.
            return mapped.offset;
        }
        *mapped = Mapped {
            domain: Some(at),
            epoch: domain.epoch,
            offset: domain.offset,
        };
        domain.offset
    }

    /// Ticks to be added to the times of `track` to have them on the stream's clock; `None`
    /// before its first unit.
    pub fn offset(&self, track: usize) -> Option<i64> {
        let mapped = self.tracks.get(track)?;
        mapped.domain.map(|_| mapped.offset)
    }

    /// The source of those domains for which `of` says so began anew: what comes continues the
    /// stream's clock, and nothing else.
    pub fn restart(&mut self, of: impl Fn(u64) -> bool) {
        for domain in self.domains.iter_mut().filter(|d| of(d.key)) {
            domain.is_anew = true;
            domain.sender = None;
        }
        if self.domains.iter().all(|d| d.sender.is_none()) {
            self.sender_base = None;
        }
    }
}

/// Least delays of so long make one point: the jitter of the network is mostly above them.
const POINT_US: u64 = 5_000_000;
/// Points that a line is laid through: ten minutes.
const POINTS: usize = 120;
/// Points until a line is believed: 30 s.
const ENOUGH: usize = 6;
/// Delays that step so far are no drift: the clock was set, or the path is another.
const STEP_US: i64 = 500_000;
/// No oscillator is so wrong: such a line is not believed.
const MAX_PPM: f64 = 5_000.0;

/// How fast a source's clock runs against ours: the slope of the line through the least delays
/// (arrival minus source time) of every five seconds.
#[derive(Clone, Debug)]
pub struct DriftMeter {
    origin: Option<(i64, Instant)>,
    /// Seconds since the origin, and least delay in µs.
    points: [(f64, i64); POINTS],
    len: usize,
    least: Option<i64>,
    point_ends_us: u64,
}

impl Default for DriftMeter {
    fn default() -> Self {
        DriftMeter {
            origin: None,
            points: [(0.0, 0); POINTS],
            len: 0,
            least: None,
            point_ends_us: POINT_US,
        }
    }
}

impl DriftMeter {
    /// The source's clock showed `source_us` (µs of any epoch) in a datagram that came at
    /// `arrival`.
    pub fn sample(&mut self, source_us: i64, arrival: Instant) {
        let (origin_us, origin) = *self.origin.get_or_insert((source_us, arrival));
        let passed = arrival.micros_since(origin);
        let delay = i64::try_from(passed).unwrap_or(i64::MAX) - source_us.saturating_sub(origin_us);
        if passed >= self.point_ends_us
            && let Some(least) = self.least.take()
        {
            self.point(least);
            // From the middle of the span that it stands for; the grid stays.
            self.point_ends_us += (passed - self.point_ends_us) / POINT_US * POINT_US + POINT_US;
        }
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
    }

    fn point(&mut self, delay: i64) {
        let last = self.len.checked_sub(1).and_then(|at| self.points.get(at));
        if last.is_some_and(|(_, before)| (delay - before).abs() > STEP_US) {
            self.len = 0;
        }
        if self.len == POINTS {
            self.points.rotate_left(1);
            self.len -= 1;
        }
        if let Some(point) = self.points.get_mut(self.len) {
            *point = ((self.point_ends_us - POINT_US / 2) as f64 / 1e6, delay);
            self.len += 1;
        }
    }

    /// Nothing continues what was.
    pub fn restart(&mut self) {
        *self = DriftMeter::default();
    }

    /// How much faster the source's clock runs than ours, in parts per million; `None` until
    /// half a minute has been seen.
    pub fn ppm(&self) -> Option<f64> {
        let points = self.points.get(..self.len).filter(|p| p.len() >= ENOUGH)?;
        let n = points.len() as f64;
        let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
        let mean_y = points.iter().map(|p| p.1 as f64).sum::<f64>() / n;
        let (mut xy, mut xx) = (0.0, 0.0);
        for &(x, y) in points {
            xy += (x - mean_x) * (y as f64 - mean_y);
            xx += (x - mean_x) * (x - mean_x);
        }
        // µs of delay lost in each second are parts per million.
        let ppm = -xy / xx;
        (ppm.abs() <= MAX_PPM).then_some(ppm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(pts: i64, dts: Option<i64>, at_ms: u64) -> AccessUnit {
        AccessUnit {
            pts: Some(pts),
            dts,
            first_arrival: Instant::from_millis(at_ms),
            ..AccessUnit::default()
        }
    }

    #[test]
    fn the_33_bit_wrap_after_26_5_hours_is_a_wrap_and_no_jump() {
        let mut clock = TrackClock::new(WRAP_TS);
        // 25 Hz with B pictures for 27 hours, a few seconds before the wrap to begin with; then
        // through the next one in steps of a second.
        let start = WRAP_TS - 90_000 * 3;
        let mut at_ms = 0;
        for n in 0..250i64 {
            let dts = start + n * 3600;
            // Reordered presentation times go to and fro over the wrap.
            let pts = dts + [3600, 10_800, 0][n as usize % 3];
            clock.take(&unit(pts, Some(dts), at_ms));
            at_ms += 40;
        }
        assert_eq!((clock.wraps, clock.jumps, clock.errors), (1, 0, 0));
        for second in 1..=27 * 3600 {
            let dts = start + 250 * 3600 + second * 90_000;
            clock.take(&unit(dts, Some(dts), at_ms));
            at_ms += 1000;
        }
        assert_eq!((clock.wraps, clock.jumps, clock.errors), (2, 0, 0));
    }

    #[test]
    fn times_without_decoding_times_wrap_once_however_they_are_reordered() {
        let wrap = wrap_rtp(90_000);
        assert_eq!(wrap, 1 << 32);
        assert_eq!(wrap_rtp(48_000), (1 << 32) * 15 / 8);
        let mut clock = TrackClock::new(wrap);
        for n in 0..60i64 {
            let shuffled = n + [3, -1, -1, -1][n as usize % 4];
            clock.take(&unit(
                wrap - 30 * 3600 + shuffled * 3600,
                None,
                n as u64 * 40,
            ));
        }
        assert_eq!((clock.wraps, clock.jumps, clock.errors), (1, 0, 0));
    }

    #[test]
    fn jumps_are_told_from_silence_and_from_catching_up() {
        let mut clock = TrackClock::new(WRAP_TS);
        let mut take = |dts: i64, at_ms: u64| clock.take(&unit(dts, Some(dts), at_ms));
        assert_eq!(take(0, 0), Step::None);
        assert_eq!(take(3600, 40), Step::Steady);
        // Silence of a minute, its times went on.
        assert_eq!(take(60 * 90_000, 60_000), Step::Steady);
        // 5 s late, then all at once.
        assert_eq!(take(60 * 90_000 + 3600, 65_040), Step::Steady);
        assert_eq!(take(61 * 90_000, 65_041), Step::Steady);
        // An hour on in a moment, and back.
        let hour = 3600 * 90_000;
        assert!(matches!(take(61 * 90_000 + hour, 65_080), Step::Jumped(j) if j > hour - 9000));
        assert!(matches!(take(62 * 90_000, 65_120), Step::Jumped(j) if j < 90_000 - hour));
        // The encoder began anew just where a wrap would have been.
        assert!(matches!(take(WRAP_TS - 3600, 65_160), Step::Jumped(_)));
        assert!(matches!(take(0, 65_200), Step::Jumped(_)));
        assert_eq!((clock.wraps, clock.jumps), (0, 4));
    }

    #[test]
    fn times_that_cannot_be_are_counted() {
        let mut clock = TrackClock::new(WRAP_TS);
        clock.take(&unit(100, Some(100), 0));
        clock.take(&unit(3600, Some(7200), 40));
        clock.take(&unit(10_800, Some(7200), 80));
        assert_eq!((clock.errors, clock.jumps), (2, 0));
    }

    #[test]
    fn the_streams_clock_goes_on_through_a_jump_and_tracks_keep_their_distance() {
        let mut stream = StreamClock::new();
        let mut clocks = [TrackClock::new(WRAP_TS), TrackClock::new(WRAP_TS)];
        let mut last = [0; 2];
        let mut worst = 0;
        for n in 0..1000i64 {
            // After 20 s the encoder begins anew; audio's old times come a little longer.
            for track in 0..2usize {
                let behind = track as i64 * 9000;
                let restarted = n >= 500 + track as i64 * 5;
                let base = if restarted { -500 * 3600 } else { 80_000_000 };
                let dts = base + n * 3600 - behind;
                let unit = unit(dts, Some(dts), n as u64 * 40);
                let step = clocks[track].take(&unit);
                let now = stream.take((track, 1), dts, step, None, unit.first_arrival);
                if n > 0 {
                    worst = worst.max((now - last[track] - 3600).abs());
                }
                last[track] = now;
            }
        }
        assert_eq!([clocks[0].jumps, clocks[1].jumps], [1, 1]);
        // Audio is still 100 ms behind, to the tick.
        assert_eq!(last[0] - last[1], 9000);
        assert!(worst <= 90, "{worst}");
        assert_eq!(stream.offset(0), stream.offset(1));
        assert_eq!(stream.offset(2), None);
    }

    #[test]
    fn senders_reports_put_media_of_several_clocks_on_one() {
        let mut stream = StreamClock::new();
        let at = Instant::from_millis;
        // Two RTP media whose timestamps begin anywhere; the second one arrives 30 ms later.
        let video = stream.take((0, 0), 5_000_000, Step::None, None, at(0));
        let audio = stream.take((1, 1), 77_000_000, Step::None, None, at(30));
        assert_eq!((video, audio - video), (5_000_000, 2700));
        // The sender: they are of the same moment.
        let video = stream.take((0, 0), 5_090_000, Step::Steady, Some(900), at(1000));
        let audio = stream.take(
            (1, 1),
            77_090_000,
            Step::Steady,
            Some(-71_999_100),
            at(1030),
        );
        assert_eq!((video, audio), (5_090_000, 5_090_000));
        // A later report that moves a little moves the mapping.
        let audio = stream.take(
            (1, 1),
            77_180_000,
            Step::Steady,
            Some(-71_999_000),
            at(2030),
        );
        assert_eq!(audio, 5_180_100);
    }

    #[test]
    fn a_source_that_begins_anew_continues_the_streams_clock() {
        let mut stream = StreamClock::new();
        stream.take((0, 0), 1_000, Step::None, None, Instant::from_millis(0));
        stream.restart(|key| key == 0);
        let now = stream.take(
            (0, 0),
            7 << 30,
            Step::None,
            None,
            Instant::from_millis(2000),
        );
        assert_eq!(now, 1_000 + 180_000);
    }

    #[test]
    fn a_source_80_ppm_fast_for_an_hour_is_measured_through_jitter() {
        let mut meter = DriftMeter::default();
        let mut random = 7u64;
        for n in 0..90_000u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Every 40 ms; late by up to 30 ms.
            let sent = n * 40_000;
            let source = sent as i64 + (sent as f64 * 80e-6) as i64;
            meter.sample(source, Instant::from_micros(sent + (random >> 33) % 30_000));
            if n == 200 {
                assert_eq!(meter.ppm(), None);
            }
        }
        let ppm = meter.ppm().unwrap();
        assert!((ppm - 80.0).abs() < 3.0, "{ppm}");
        // The source's clock is set: the rate is measured afresh.
        for n in 90_000..100_000u64 {
            let sent = n * 40_000;
            meter.sample(sent as i64 + 90_000_000, Instant::from_micros(sent));
        }
        let ppm = meter.ppm().unwrap();
        assert!(ppm.abs() < 1.0, "{ppm}");
    }
}
