//! A line's impairments as people write them: options of `mirror-loadtest relay`, and the table
//! `[impairment]` of a scenario. Both use the same words, listed in [`WORDS`].

use core::num::NonZeroU32;
use std::time::Duration;

use mirror_netem::{BurstLoss, Config, Outage, RateLimit};

use crate::units;

/// What happens to datagrams in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// From the caller to the listener; of a sender: what it sends.
    pub forward: Config,
    /// Back.
    pub backward: Config,
    /// The same seed gives the same course.
    pub seed: u64,
}

impl Impairment {
    /// Whether nothing happens.
    pub fn is_clean(&self) -> bool {
        self.forward.is_clean() && self.backward.is_clean()
    }
}

/// Every word, in the order in which they are to be applied, with what it takes.
pub const WORDS: &[(&str, &str)] = &[
    ("loss", "must be a share like \"5%\" or 0.05"),
    (
        "burst",
        "must be shares \"ENTER,LEAVE\" or \"ENTER,LEAVE,LOSS\", like \"0.5%,20%\": bursts of 1/LEAVE datagrams",
    ),
    ("drop_every", "must be a whole number from 1"),
    (
        "outage",
        "must be \"AFTER+LENGTH\" or \"AFTER+LENGTH/EVERY\", like \"2s+300ms/10s\"",
    ),
    ("reorder", "must be a share like \"2%\""),
    ("reorder_packets", "must be a whole number from 0 to 10000"),
    (
        "reorder_delay",
        "must be a duration like \"10ms\", at most 60s",
    ),
    ("duplicate", "must be a share like \"1%\""),
    ("corrupt", "must be a share like \"0.1%\""),
    ("delay", "must be a duration like \"50ms\", at most 60s"),
    ("jitter", "must be a duration like \"10ms\", at most 60s"),
    ("rate", "must be bits a second like \"10Mb\""),
    ("queue", "must be bytes like \"64KiB\", beside a rate"),
];

/// The queue of a bottleneck for which none was named.
const DEFAULT_QUEUE: u64 = 256 << 10;

/// Longest delay: what is on its way takes memory.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Sets one word.
///
/// # Errors
/// What the word takes, or that it is unknown.
pub fn set(config: &mut Config, word: &str, value: &str) -> Result<(), String> {
    let word = word.replace('-', "_");
    let Some((_, allowed)) = WORDS.iter().find(|(known, _)| *known == word) else {
        let known: Vec<_> = WORDS.iter().map(|(w, _)| *w).collect();
        return Err(format!("unknown; known: {}", known.join(", ")));
    };
    try_set(config, &word, value.trim()).ok_or_else(|| (*allowed).to_owned())
}

fn try_set(config: &mut Config, word: &str, value: &str) -> Option<()> {
    match word {
        "loss" => config.loss = share(value)?,
        "burst" => config.burst_loss = Some(burst(value)?),
        "drop_every" => config.drop_every = Some(value.parse::<NonZeroU32>().ok()?),
        "outage" => config.outage = Some(outage(value)?),
        "reorder" => config.reorder = share(value)?,
        "reorder_packets" => {
            config.reorder_packets = value.parse().ok().filter(|n| *n <= 10_000)?;
        }
        "reorder_delay" => config.reorder_delay = delay(value)?,
        "duplicate" => config.duplicate = share(value)?,
        "corrupt" => config.corrupt = share(value)?,
        "delay" => config.delay = delay(value)?,
        "jitter" => config.jitter = delay(value)?,
        "rate" => {
            config.rate_limit = Some(RateLimit {
                bits_per_second: units::bitrate(value).filter(|r| *r > 0)?,
                queue_bytes: config.rate_limit.map_or(DEFAULT_QUEUE, |l| l.queue_bytes),
            });
        }
        "queue" => config.rate_limit.as_mut()?.queue_bytes = bytes(value)?,
        _ => return None,
    }
    Some(())
}

/// "5%" or "0.05".
fn share(text: &str) -> Option<f64> {
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse().ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

fn delay(text: &str) -> Option<Duration> {
    units::duration(text).filter(|d| *d <= MAX_DELAY)
}

fn burst(text: &str) -> Option<BurstLoss> {
    let shares: Vec<f64> = text.split(',').map(share).collect::<Option<_>>()?;
    let (enter, leave, loss) = match shares[..] {
        [enter, leave] => (enter, leave, 1.0),
        [enter, leave, loss] => (enter, leave, loss),
        _ => return None,
    };
    (leave > 0.0).then_some(BurstLoss { enter, leave, loss })
}

fn outage(text: &str) -> Option<Outage> {
    let (after, rest) = text.split_once('+')?;
    let (length, every) = match rest.split_once('/') {
        Some((length, every)) => (length, Some(units::duration(every)?)),
        None => (rest, None),
    };
    let length = units::duration(length)?;
    let fits = every.is_none_or(|every| every > length);
    fits.then_some(Outage {
        after: units::duration(after)?,
        length,
        every,
    })
}

/// "64KiB", "1MiB", "1500".
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        for (word, value) in words {
            set(&mut config, word, value).unwrap_or_else(|e| panic!("{word} = {value}: {e}"));
        }
        config
    }

    #[test]
    fn every_word_is_read_as_written() {
        let millis = Duration::from_millis;
        let config = of(&[
            ("loss", "5%"),
            ("burst", "0.5%, 20%"),
            ("drop-every", "100"),
            ("outage", "2s+300ms/10s"),
            ("reorder", "0.02"),
            ("reorder_packets", "3"),
            ("reorder-delay", "10ms"),
            ("duplicate", "1%"),
            ("corrupt", "0.1%"),
            ("delay", "50ms"),
            ("jitter", "5ms"),
            ("rate", "10Mb"),
            ("queue", "64KiB"),
        ]);
        let expected = Config {
            loss: 0.05,
            burst_loss: Some(BurstLoss {
                enter: 0.005,
                leave: 0.2,
                loss: 1.0,
            }),
            drop_every: NonZeroU32::new(100),
            outage: Some(Outage {
                after: millis(2_000),
                length: millis(300),
                every: Some(millis(10_000)),
            }),
            reorder: 0.02,
            reorder_packets: 3,
            reorder_delay: millis(10),
            duplicate: 0.01,
            corrupt: 0.001,
            delay: millis(50),
            jitter: millis(5),
            rate_limit: Some(RateLimit {
                bits_per_second: 10_000_000,
                queue_bytes: 65_536,
            }),
        };
        assert_eq!(config, expected);
        assert!(of(&[]).is_clean());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_allowed() {
        for (word, value) in [
            ("loss", "101%"),
            ("loss", "-1%"),
            ("loss", "NaN"),
            ("burst", "1%"),
            ("burst", "1%,0%"),
            ("drop_every", "0"),
            ("outage", "2s"),
            ("outage", "0s+2s/1s"),
            ("delay", "2m"),
            ("rate", "0"),
            ("queue", "64KiB"),
        ] {
            let error = set(&mut Config::default(), word, value).unwrap_err();
            assert!(error.starts_with("must be"), "{word}: {error}");
        }
        let error = set(&mut Config::default(), "lost", "1%").unwrap_err();
        assert!(error.contains("known: loss, burst"), "{error}");
    }
}
