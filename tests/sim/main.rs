//! Seeded simulation in virtual time: an SRT caller and a listener over an impaired path, each
//! sending to the other or not. A seed is a whole world; a failure names its seed, and the same
//! seed fails again.
//!
//! What must hold in every world is said in `oracle`. Seeds that once failed are kept in
//! `seeds.txt` and always played. `MIRROR_SIM_SEEDS=1000..6000` plays as many more as wanted.

mod clock;
mod oracle;
mod play;
mod random;
mod rtp;
mod scenario;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::catch_unwind;

use mirror_srt::{CloseReason, Event};

use crate::play::{Outcome, play, play_met};
use crate::scenario::{End, Weather};
use crate::world::{CALLER, LISTENER};

/// Plays and checks the seeds; says at the end which ones failed.
fn all_hold(seeds: impl Iterator<Item = u64>) {
    hold(seeds, play);
}

fn hold(seeds: impl Iterator<Item = u64>, play: fn(u64) -> Outcome) {
    let failed: Vec<u64> = seeds
        .filter(|&seed| {
            let holds = catch_unwind(|| oracle::check(&play(seed)));
            if holds.is_err() {
                eprintln!("seed {seed} failed: {:#?}", scenario::Scenario::of(seed));
            }
            holds.is_err()
        })
        .collect();
    assert!(
        failed.is_empty(),
        "seeds that failed (to be added to tests/sim/seeds.txt): {failed:?}"
    );
}

fn kept_seeds() -> impl Iterator<Item = u64> {
    include_str!("seeds.txt")
        .lines()
        .filter_map(|line| line.split('#').next())
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().expect("seeds.txt has a number in each line"))
}

#[test]
fn what_must_hold_holds_in_worlds_0_to_124() {
    all_hold(0..125);
}

#[test]
fn what_must_hold_holds_in_worlds_125_to_249() {
    all_hold(125..250);
}

#[test]
fn what_must_hold_holds_in_worlds_250_to_374() {
    all_hold(250..375);
}

#[test]
fn what_must_hold_holds_in_worlds_375_to_499() {
    all_hold(375..500);
}

#[test]
fn what_must_hold_holds_in_worlds_0_to_199_when_both_sides_meet() {
    hold(0..200, play_met);
}

#[test]
fn whoever_asks_in_a_rendezvous_both_directions_flow() {
    let mut asked = [0, 0];
    let mut refused = 0;
    for outcome in (0..60).map(play_met) {
        let cookies = outcome.scenario.meeting.expect("they meet").cookies;
        let wins = cookies[CALLER]
            .wrapping_sub(cookies[LISTENER])
            .cast_signed()
            > 0;
        refused += usize::from(outcome.is_refused());
        let flows = [CALLER, LISTENER].map(|side| !outcome.received[side].is_empty());
        asked[usize::from(wins)] += usize::from(flows.contains(&true));
    }
    assert!(asked.iter().all(|&n| n > 20), "{asked:?} {refused}");
}

#[test]
fn what_must_hold_holds_in_worlds_where_it_once_did_not() {
    all_hold(kept_seeds());
}

#[test]
fn what_must_hold_holds_in_as_many_more_worlds_as_are_asked_for() {
    let Ok(wanted) = std::env::var("MIRROR_SIM_SEEDS") else {
        return;
    };
    let range: Option<Range<u64>> = wanted
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    all_hold(range.expect("MIRROR_SIM_SEEDS is from..to"));
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in (0..500).step_by(23) {
        assert_eq!(play(seed).trace, play(seed).trace, "seed {seed}");
    }
    assert_ne!(play(3).trace, play(4).trace);
    assert_eq!(play_met(3).trace, play_met(3).trace);
    assert_ne!(play_met(3).trace, play(3).trace);
}

fn outcomes(weather: Weather) -> impl Iterator<Item = Outcome> {
    (0..200)
        .filter(move |&seed| scenario::Scenario::of(seed).weather == weather)
        .map(play)
}

#[test]
fn arq_repairs_thousands_of_packets_in_fair_weather_and_many_in_foul() {
    for (weather, least) in [(Weather::Fair, 2_000), (Weather::Foul, 2_000)] {
        let repaired: u64 = outcomes(weather)
            .flat_map(|o| o.statistics)
            .map(|s| s.pkt_rcv_loss.saturating_sub(s.pkt_rcv_drop))
            .sum();
        assert!(repaired > least, "{weather:?}: {repaired}");
    }
}

#[test]
fn keys_are_refreshed_many_times_in_both_modes() {
    for gcm in [false, true] {
        let refreshes: u64 = outcomes(Weather::Foul)
            .filter(|o| o.scenario.encryption.is_some_and(|e| e.gcm == gcm))
            .flat_map(|o| o.statistics)
            .map(|s| s.km_refreshes)
            .sum();
        assert!(refreshes > 50, "GCM {gcm}: {refreshes}");
    }
}

#[test]
fn both_ends_learn_why_it_ended() {
    let mut reasons = BTreeMap::new();
    for outcome in outcomes(Weather::Fair) {
        let closer = match outcome.scenario.end {
            End::Close(side) => side,
            End::Cut => CALLER,
        };
        let ends = |side: usize| {
            outcome.events[side].iter().find_map(|e| match e {
                Event::Closed(reason) => Some(*reason),
                Event::Connected => None,
            })
        };
        *reasons
            .entry(format!("{:?}", ends(1 - closer)))
            .or_insert(0) += 1;
        let own = ends(closer).expect("it ended");
        match outcome.scenario.end {
            // The one SHUTDOWN may get lost; then silence ends it.
            End::Close(_) => assert_eq!(own, CloseReason::Local, "seed {}", outcome.scenario.seed),
            End::Cut => {
                assert_eq!(
                    own,
                    CloseReason::IdleTimeout,
                    "seed {}",
                    outcome.scenario.seed
                );
                assert_eq!(ends(LISTENER), Some(CloseReason::IdleTimeout));
            }
        }
    }
    let expected = ["Some(IdleTimeout)", "Some(PeerShutdown)"];
    assert!(reasons.keys().eq(expected.iter()), "{reasons:?}");
    assert!(reasons.values().all(|&times| times > 5), "{reasons:?}");
}
