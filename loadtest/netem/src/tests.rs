//! The figures that each impairment promises, in virtual time.

use core::num::NonZeroU32;
use core::time::Duration;

use mirror_base::Instant;

use crate::{BurstLoss, Config, MAX_IN_FLIGHT, Netem, Outage, RateLimit, Statistics};

/// Sends `count` numbered datagrams of `size` bytes, one each millisecond, and returns
/// what arrives and when (in µs).
fn run(config: Config, seed: u64, count: u32, size: usize) -> (Vec<(u64, u32)>, Statistics) {
    let mut net = Netem::new(config, seed);
    for i in 0..count {
        let mut datagram = vec![0; size];
        datagram[..4].copy_from_slice(&i.to_be_bytes());
        net.push(Instant::from_millis(u64::from(i)), datagram);
    }
    let mut out = Vec::new();
    while let Some(at) = net.poll_timeout() {
        assert!(at == Instant::ZERO || net.poll(at.offset_micros(-1)).is_none());
        while let Some(d) = net.poll(at) {
            out.push((at.as_micros(), u32::from_be_bytes([d[0], d[1], d[2], d[3]])));
        }
    }
    (out, net.statistics())
}

#[test]
fn a_path_without_impairment_passes_everything_at_once_and_in_order() {
    let (out, statistics) = run(Config::default(), 1, 100, 100);
    let expected: Vec<_> = (0..100).map(|i| (u64::from(i) * 1000, i)).collect();
    assert_eq!(out, expected);
    assert_eq!(
        statistics,
        Statistics {
            pushed: 100,
            delivered: 100,
            most_in_flight: 100,
            ..Statistics::default()
        }
    );
}

#[test]
fn the_same_seed_gives_the_same_course_and_another_seed_another() {
    let config = Config {
        loss: 0.1,
        burst_loss: Some(BurstLoss {
            enter: 0.01,
            leave: 0.3,
            loss: 0.9,
        }),
        reorder: 0.05,
        reorder_delay: Duration::from_millis(5),
        duplicate: 0.02,
        corrupt: 0.01,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(3),
        rate_limit: Some(RateLimit {
            bits_per_second: 2_000_000,
            queue_bytes: 10_000,
        }),
        ..Config::default()
    };
    assert_eq!(run(config, 7, 5_000, 200), run(config, 7, 5_000, 200));
    assert_ne!(run(config, 7, 5_000, 200).0, run(config, 8, 5_000, 200).0);
}

#[test]
fn loss_has_the_rate_that_was_asked_for() {
    let (out, statistics) = run(
        Config {
            loss: 0.1,
            ..Config::default()
        },
        3,
        100_000,
        4,
    );
    assert_eq!(out.len() as u64 + statistics.lost, 100_000);
    assert!(
        (9_500..10_500).contains(&statistics.lost),
        "{}",
        statistics.lost
    );
}

#[test]
fn bursts_lose_datagrams_in_a_row() {
    let burst_loss = Some(BurstLoss {
        enter: 0.01,
        leave: 0.1,
        loss: 1.0,
    });
    let (out, statistics) = run(
        Config {
            burst_loss,
            ..Config::default()
        },
        3,
        100_000,
        4,
    );
    let bursts = out.windows(2).filter(|w| w[1].1 - w[0].1 > 1).count() as f64;
    let mean = statistics.lost as f64 / bursts;
    assert!(
        (8.5..11.5).contains(&mean),
        "a burst lasts ten datagrams, not {mean}"
    );
}

#[test]
fn jitter_delays_within_its_bound_and_keeps_the_order() {
    let config = Config {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(10),
        ..Config::default()
    };
    let (out, _) = run(config, 5, 10_000, 4);
    assert!(out.windows(2).all(|w| w[0].1 + 1 == w[1].1));
    for (at, i) in out {
        let delay = at - u64::from(i) * 1000;
        assert!((30_000..40_000).contains(&delay), "{delay}");
    }
}

#[test]
fn reordered_datagrams_come_later_than_their_successors() {
    let config = Config {
        reorder: 0.1,
        reorder_delay: Duration::from_micros(2_500),
        ..Config::default()
    };
    let (out, statistics) = run(config, 5, 10_000, 4);
    let late = out.windows(2).filter(|w| w[1].1 < w[0].1).count() as u64;
    assert_eq!(out.len(), 10_000);
    assert!((900..1_100).contains(&statistics.reordered) && late > 800);
}

#[test]
fn duplicates_and_corruption_are_counted_as_they_happen() {
    let config = Config {
        duplicate: 0.2,
        corrupt: 0.2,
        ..Config::default()
    };
    let mut net = Netem::new(config, 9);
    for _ in 0..1_000 {
        net.push(Instant::ZERO, vec![0; 50]);
    }
    net.push(Instant::ZERO, Vec::new());
    let (mut all, mut bits) = (0, 0);
    while let Some(d) = net.poll(Instant::ZERO) {
        all += 1;
        bits += d.iter().map(|b| b.count_ones()).sum::<u32>();
    }
    let s = net.statistics();
    assert_eq!(all, 1_001 + s.duplicated);
    assert!((150..250).contains(&s.duplicated) && (150..250).contains(&s.corrupted));
    assert!(u64::from(bits) >= s.corrupted);
}

#[test]
fn a_bottleneck_spaces_datagrams_and_drops_what_its_queue_cannot_hold() {
    let limit = RateLimit {
        bits_per_second: 8_000_000,
        queue_bytes: 5_000,
    };
    let config = Config {
        rate_limit: Some(limit),
        ..Config::default()
    };
    let mut net = Netem::new(config, 1);
    for _ in 0..10 {
        net.push(Instant::ZERO, vec![0; 1_000]);
    }
    assert_eq!((net.statistics().overflowed, net.in_flight()), (5, 5));
    let mut times = Vec::new();
    while let Some(at) = net.poll_timeout() {
        net.poll(at);
        times.push(at.as_micros());
    }
    assert_eq!(times, [1_000, 2_000, 3_000, 4_000, 5_000]);
}

#[test]
fn every_nth_datagram_is_lost_and_no_other() {
    let config = Config {
        drop_every: NonZeroU32::new(4),
        ..Config::default()
    };
    let (out, statistics) = run(config, 1, 12, 4);
    let arrived: Vec<_> = out.into_iter().map(|(_, i)| i).collect();
    assert_eq!(arrived, [0, 1, 2, 4, 5, 6, 8, 9, 10]);
    assert_eq!(statistics.lost, 3);
}

#[test]
fn a_held_datagram_arrives_right_after_as_many_as_were_asked_for() {
    let config = Config {
        reorder: 0.05,
        reorder_packets: 3,
        delay: Duration::from_millis(2),
        ..Config::default()
    };
    let (out, statistics) = run(config, 4, 10_000, 4);
    assert_eq!(out.len(), 10_000);
    assert!((400..600).contains(&statistics.reordered));
    let mut positions = vec![0; out.len()];
    for (position, (_, i)) in out.iter().enumerate() {
        positions[*i as usize] = position;
    }
    // moved back by three places; more only past others that are held as well
    let moved = |by: usize| (0..out.len()).filter(|&i| positions[i] >= i + by).count();
    assert!(moved(3) as u64 > statistics.reordered * 3 / 4);
    assert!(moved(7) < 5, "{}", moved(7));
}

#[test]
fn a_held_datagram_that_nothing_follows_arrives_at_its_limit() {
    let config = Config {
        reorder: 1.0,
        reorder_packets: 5,
        reorder_delay: Duration::from_millis(30),
        delay: Duration::from_millis(10),
        ..Config::default()
    };
    let mut net = Netem::new(config, 1);
    net.push(Instant::from_millis(5), vec![1]);
    assert_eq!(net.in_flight(), 1);
    assert_eq!(net.poll_timeout(), Some(Instant::from_millis(45)));
    assert_eq!(net.poll(Instant::from_millis(44)), None);
    assert_eq!(net.poll(Instant::from_millis(45)), Some(vec![1]));
    assert_eq!((net.in_flight(), net.poll_timeout()), (0, None));
}

#[test]
fn outages_come_when_they_were_ordered_and_again_at_their_period() {
    let millis = Duration::from_millis;
    let config = Config {
        outage: Some(Outage {
            after: millis(10),
            length: millis(5),
            every: Some(millis(20)),
        }),
        ..Config::default()
    };
    let (out, _) = run(config, 1, 60, 4);
    let arrived: Vec<_> = out.into_iter().map(|(_, i)| i).collect();
    let expected: Vec<_> = (0..60)
        .filter(|i| !(10..15).contains(i) && !(30..35).contains(i) && !(50..55).contains(i))
        .collect();
    assert_eq!(arrived, expected);
    let once = Outage {
        after: millis(10),
        length: millis(5),
        every: None,
    };
    assert!(once.covers(millis(10)) && !once.covers(millis(15)) && !once.covers(millis(30)));
}

#[test]
fn what_is_on_its_way_is_bounded_and_accounted_for() {
    let config = Config {
        delay: Duration::from_secs(3_600),
        duplicate: 0.1,
        reorder: 0.1,
        reorder_packets: 2,
        loss: 0.1,
        ..Config::default()
    };
    let mut net = Netem::new(config, 2);
    for _ in 0..160_000 {
        net.push(Instant::ZERO, vec![0]);
    }
    // one push may be the last that fits and arrive twice
    assert!(net.in_flight() <= MAX_IN_FLIGHT + 1);
    let s = net.statistics();
    assert!(s.overflowed > 0 && s.most_in_flight as usize == net.in_flight());
    while let Some(at) = net.poll_timeout() {
        net.poll(at);
    }
    let s = net.statistics();
    assert_eq!(s.pushed + s.duplicated, s.lost + s.overflowed + s.delivered);
}
