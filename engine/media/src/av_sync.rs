//! How far audio and video drift apart. Timestamps alone cannot tell: each track's are right by
//! its own clock. What tells is how the two clocks advance while both arrive over one path: the
//! *lead* of a unit is its time on the stream's clock minus its arrival. The network's jitter,
//! and how the encoder fills its buffer, move single leads; over a few seconds the means of both
//! tracks keep their distance, unless one clock runs away from the other. The distance at the
//! beginning is how the encoder interleaves, and is taken for right.
//!
//! A drift beyond `threshold` is corrected gradually, by an offset to the audio's times.
//! Positive: audio's times run ahead of video's. Called by `stream` for each unit.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use core::time::Duration;

use mirror_base::Instant;

/// Seconds over which leads are averaged: two GOPs of usual length.
const WINDOW: usize = 4;
const SECOND_US: u64 = 1_000_000;

/// `[sync]` of the configuration.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AvSyncConfig {
    /// Whether drift is corrected; it is measured in any case.
    pub enabled: bool,
    /// Less is no drift.
    pub threshold: Duration,
    /// Part of the drift that one correction takes away, once a second.
    pub correction_rate: f64,
    /// A correction at the most.
    pub max_step: Duration,
    /// More is no drift that could be corrected gradually.
    pub max_drift: Duration,
}

impl Default for AvSyncConfig {
    fn default() -> Self {
        AvSyncConfig {
            enabled: true,
            threshold: Duration::from_millis(40),
            correction_rate: 0.1,
            max_step: Duration::from_millis(5),
            max_drift: Duration::from_secs(1),
        }
    }
}

/// What is to be said of audio against video.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncStatus {
    /// Not measured: one of them is missing, or it is too early.
    #[default]
    Unknown,
    /// Together, as corrected.
    Synced,
    /// Apart by more than the threshold.
    Drifting,
}

impl SyncStatus {
    /// As the API shows it.
    pub const fn name(self) -> &'static str {
        match self {
            SyncStatus::Unknown => "unknown",
            SyncStatus::Synced => "synced",
            SyncStatus::Drifting => "drifting",
        }
    }
}

/// What was measured, µs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SyncFigures {
    /// Drift now, before correction.
    pub current_us: i64,
    /// The greatest since the time base began.
    pub max_us: i64,
    /// The least.
    pub min_us: i64,
    /// Sum of all samples.
    pub sum_us: i64,
    /// Samples, one a second.
    pub samples: u64,
    /// What is added to the audio's times.
    pub correction_us: i64,
    /// When that was changed last.
    pub corrected_at: Option<Instant>,
    /// How far audio's times ran ahead of video's in the multiplex when measuring began.
    pub interleave_us: i64,
}

impl SyncFigures {
    /// The mean of all samples.
    pub fn mean_us(&self) -> i64 {
        let samples = i64::try_from(self.samples.max(1)).unwrap_or(i64::MAX);
        self.sum_us / samples
    }

    /// What is left of the drift after correction.
    pub const fn residual_us(&self) -> i64 {
        self.current_us + self.correction_us
    }
}

/// Leads of one track over the last seconds, from an anchor that both tracks share.
#[derive(Clone, Copy, Debug, Default)]
struct Leads {
    sums: [i64; WINDOW],
    counts: [u32; WINDOW],
}

impl Leads {
    fn add(&mut self, lead: i64) {
        if let (Some(sum), Some(count)) = (self.sums.last_mut(), self.counts.last_mut()) {
            *sum = sum.saturating_add(lead);
            *count = count.saturating_add(1);
        }
    }

    fn next_second(&mut self) {
        self.sums.rotate_left(1);
        self.counts.rotate_left(1);
        if let (Some(sum), Some(count)) = (self.sums.last_mut(), self.counts.last_mut()) {
            *sum = 0;
            *count = 0;
        }
    }

    /// The mean, if every second has something (the first and the last do if all do that comes
    /// steadily).
    fn mean(&self) -> Option<i64> {
        let first = self.counts.first()?;
        let last = self.counts.last()?;
        let count: i64 = self.counts.iter().map(|&n| i64::from(n)).sum();
        (*first > 0 && *last > 0).then(|| self.sums.iter().sum::<i64>() / count)
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct AvSync {
    config: AvSyncConfig,
    audio: Leads,
    video: Leads,
    /// Leads are counted from here.
    anchor: Option<i64>,
    second_ends: Option<Instant>,
    /// Seconds that have been filled since the time base began.
    filled: usize,
    baseline: Option<i64>,
    correcting: bool,
    figures: SyncFigures,
}

impl AvSync {
    /// One that has seen nothing.
    pub fn new(config: AvSyncConfig) -> Self {
        AvSync {
            config,
            audio: Leads::default(),
            video: Leads::default(),
            anchor: None,
            second_ends: None,
            filled: 0,
            baseline: None,
            correcting: false,
            figures: SyncFigures::default(),
        }
    }

    /// A unit of the audio (else of the video) track: its time on the stream's clock in 90 kHz
    /// ticks, and when it began to arrive.
    #[inline]
    pub fn take(&mut self, is_audio: bool, ticks: i64, arrival: Instant) {
        let arrival_us = i64::try_from(arrival.as_micros()).unwrap_or(i64::MAX);
        let lead = (i128::from(ticks) * 100 / 9) as i64 - arrival_us;
        let anchor = *self.anchor.get_or_insert(lead);
        let ends = *self
            .second_ends
            .get_or_insert_with(|| arrival.offset_micros(SECOND_US as i64));
        if arrival >= ends {
            self.seconds_over(arrival, ends);
        }
        let leads = if is_audio {
            &mut self.audio
        } else {
            &mut self.video
        };
        leads.add(lead.wrapping_sub(anchor));
    }

    #[cold]
    fn seconds_over(&mut self, now: Instant, ends: Instant) {
        self.filled += 1;
        if self.filled >= WINDOW
            && let (Some(audio), Some(video)) = (self.audio.mean(), self.video.mean())
        {
            self.sample(now, audio - video);
        }
        let late = now.micros_since(ends) / SECOND_US;
        for _ in 0..=late.min(WINDOW as u64) {
            self.audio.next_second();
            self.video.next_second();
        }
        self.second_ends = Some(ends + Duration::from_secs(late + 1));
    }

    fn sample(&mut self, now: Instant, distance: i64) {
        let Some(baseline) = self.baseline else {
            self.baseline = Some(distance);
            self.figures.interleave_us = distance;
            return;
        };
        let drift = distance - baseline;
        let figures = &mut self.figures;
        figures.current_us = drift;
        if figures.samples == 0 {
            (figures.min_us, figures.max_us) = (drift, drift);
        }
        figures.min_us = figures.min_us.min(drift);
        figures.max_us = figures.max_us.max(drift);
        figures.sum_us = figures.sum_us.saturating_add(drift);
        figures.samples += 1;
        self.correct(now);
    }

    /// Corrects what is beyond the threshold, down to half of it.
    fn correct(&mut self, now: Instant) {
        let residual = self.figures.residual_us();
        let size = Duration::from_micros(residual.unsigned_abs());
        self.correcting = if self.correcting {
            size > self.config.threshold / 2
        } else {
            size > self.config.threshold
        };
        if !self.correcting || !self.config.enabled || self.is_excessive() {
            return;
        }
        let most = self.config.max_step.as_micros() as f64;
        let step = (residual as f64 * self.config.correction_rate).clamp(-most, most);
        self.figures.correction_us -= step as i64;
        self.figures.corrected_at = Some(now);
    }

    /// A new time base, or other tracks: what was measured says nothing about what follows.
    pub fn restart(&mut self) {
        *self = AvSync::new(self.config);
    }

    /// What was measured.
    pub const fn figures(&self) -> &SyncFigures {
        &self.figures
    }

    /// Ticks of 90 kHz to be added to the audio's times.
    pub const fn correction(&self) -> i64 {
        self.figures.correction_us * 9 / 100
    }

    /// Whether the drift is more than `max_drift`.
    pub fn is_excessive(&self) -> bool {
        Duration::from_micros(self.figures.current_us.unsigned_abs()) > self.config.max_drift
    }

    /// Together or apart.
    pub fn status(&self) -> SyncStatus {
        let residual = Duration::from_micros(self.figures.residual_us().unsigned_abs());
        if self.figures.samples == 0 {
            SyncStatus::Unknown
        } else if residual > self.config.threshold {
            SyncStatus::Drifting
        } else {
            SyncStatus::Synced
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays from second `from` to `to`: video at 25 Hz, audio in frames of 1024 samples at
    /// 48 kHz; `drift` is how far audio's times are ahead, in µs, at a time in µs.
    fn play(sync: &mut AvSync, from: u64, to: u64, drift: impl Fn(u64) -> i64) {
        let mut jitter = 1u64;
        let mut late = || {
            jitter = jitter.wrapping_mul(6_364_136_223_846_793_005) >> 1 | 1;
            jitter % 15_000
        };
        let (mut video, mut audio) = (from * 1_000_000, from * 1_000_000);
        while video.min(audio) < to * 1_000_000 {
            let is_audio = audio < video;
            let at = if is_audio { &mut audio } else { &mut video };
            // Video's decoding times are 700 ms ahead in the multiplex.
            let ahead = if is_audio { drift(*at) } else { 700_000 };
            let ticks = (*at as i64 + ahead) * 9 / 100;
            sync.take(is_audio, ticks, Instant::from_micros(*at + late()));
            *at += if is_audio { 21_333 } else { 40_000 };
        }
    }

    #[test]
    fn what_keeps_its_distance_is_synced_however_it_is_interleaved() {
        let mut sync = AvSync::new(AvSyncConfig::default());
        assert_eq!(sync.status(), SyncStatus::Unknown);
        play(&mut sync, 0, 60, |_| 0);
        let figures = sync.figures();
        assert_eq!(sync.status(), SyncStatus::Synced);
        assert!(figures.max_us.abs() < 5_000 && figures.min_us.abs() < 5_000);
        assert!((figures.interleave_us + 700_000).abs() < 30_000);
        assert_eq!((figures.correction_us, figures.corrected_at), (0, None));
        assert!(figures.samples > 50);
    }

    #[test]
    fn audio_that_drifts_by_120_ms_is_brought_back_in_small_steps() {
        let mut sync = AvSync::new(AvSyncConfig::default());
        // 2 ms a second from the 20th second on, for a minute.
        let drift = |us: u64| (us.saturating_sub(20_000_000) / 500).min(120_000) as i64;
        let mut worst = 0;
        for second in 0..140 {
            let before = sync.figures().correction_us;
            play(&mut sync, second, second + 1, drift);
            let step = sync.figures().correction_us - before;
            assert!(step.abs() <= 5_000, "{step}");
            worst = worst.max(sync.figures().residual_us().abs());
        }
        let figures = sync.figures();
        assert!((figures.current_us - 120_000).abs() < 6_000);
        assert!((figures.max_us - 120_000).abs() < 8_000);
        assert!(worst < 60_000, "{worst}");
        assert!(figures.correction_us < -80_000);
        assert!(figures.corrected_at.is_some());
        assert_eq!(sync.status(), SyncStatus::Synced);
        assert_eq!(sync.correction(), figures.correction_us * 9 / 100);
    }

    #[test]
    fn switched_off_it_measures_and_corrects_nothing() {
        let mut sync = AvSync::new(AvSyncConfig {
            enabled: false,
            ..AvSyncConfig::default()
        });
        play(
            &mut sync,
            0,
            30,
            |us| if us > 10_000_000 { -120_000 } else { 0 },
        );
        assert_eq!(sync.status(), SyncStatus::Drifting);
        assert!((sync.figures().current_us + 120_000).abs() < 6_000);
        assert_eq!(sync.correction(), 0);
    }

    #[test]
    fn more_than_the_greatest_drift_is_not_corrected() {
        let mut sync = AvSync::new(AvSyncConfig::default());
        play(&mut sync, 0, 30, |us| {
            if us > 10_000_000 { 3_000_000 } else { 0 }
        });
        assert!(sync.is_excessive());
        assert_eq!(sync.status(), SyncStatus::Drifting);
        // What was corrected on the way, while the mean was rising, is little.
        assert!(sync.figures().correction_us.abs() <= 20_000);
        sync.restart();
        assert_eq!(sync.status(), SyncStatus::Unknown);
    }

    #[test]
    fn a_pause_of_one_track_is_no_drift() {
        let mut sync = AvSync::new(AvSyncConfig::default());
        play(&mut sync, 0, 20, |_| 0);
        for n in 0..250u64 {
            let at = 20_000_000 + n * 40_000;
            sync.take(
                false,
                (at + 700_000) as i64 * 9 / 100,
                Instant::from_micros(at),
            );
        }
        play(&mut sync, 30, 50, |_| 0);
        assert!(sync.figures().max_us.abs() < 8_000, "{:?}", sync.figures());
        assert_eq!(sync.status(), SyncStatus::Synced);
    }
}
