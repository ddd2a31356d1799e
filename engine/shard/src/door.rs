//! How many handshakes a second are looked at, and whose. Beyond `handshakes_per_second` they are
//! discarded; so that one host that floods does not use up what is there for all, those that come
//! often leave half of it to those that do not. Asked for each handshake datagram that is to be
//! answered.

use core::hash::BuildHasher;
use core::net::IpAddr;
use core::time::Duration;

use mirror_base::Instant;

/// Handshakes of one host in a second that count as few: two publishers that repeat theirs each
/// 250 ms (spec section 5.6).
const FEW: u8 = 8;
/// Hosts are told apart by a keyed hash: a flood from some of these places costs as many of the
/// honest hosts, and others the next time the engine runs.
const PLACES: usize = 1024;
const PERIOD: Duration = Duration::from_secs(1);

/// A token bucket: so many a second, a second's worth at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u32,
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Rate {
            per_second,
            tokens: f64::from(per_second),
            at: now,
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_above(now, 0)
    }

    /// Takes a token, if `reserve` are left then.
    fn take_above(&mut self, now: Instant, reserve: u32) -> bool {
        let rate = f64::from(self.per_second);
        let gained = now.saturating_since(self.at).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(rate);
        self.at = now;
        if self.tokens < 1.0 + f64::from(reserve) {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Door {
    rate: Rate,
    hash: foldhash::fast::RandomState,
    /// Handshakes of the hosts of a place since `since`, as far as they are few.
    seen: Box<[u8]>,
    since: Instant,
}

impl Door {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Door {
            rate: Rate::new(per_second, now),
            hash: foldhash::fast::RandomState::default(),
            seen: vec![0; PLACES].into_boxed_slice(),
            since: now,
        }
    }

    /// Whether a handshake of `host` is looked at.
    pub(crate) fn admits(&mut self, now: Instant, host: IpAddr) -> bool {
        if now.saturating_since(self.since) >= PERIOD {
            self.seen.fill(0);
            self.since = now;
        }
        let place = self.hash.hash_one(network(host)) as usize % PLACES;
        let reserve = match self.seen.get_mut(place) {
            Some(count) if *count < FEW => {
                *count += 1;
                0
            }
            _ => self.rate.per_second / 2,
        };
        self.rate.take_above(now, reserve)
    }
}

/// An IPv4 address, or the network of an IPv6 address, of which one host has 2^64.
fn network(host: IpAddr) -> (bool, u64) {
    match host.to_canonical() {
        IpAddr::V4(ip) => (false, u32::from(ip).into()),
        IpAddr::V6(ip) => (true, (u128::from(ip) >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    #[test]
    fn a_rate_allows_a_seconds_worth_at_once_and_then_its_pace() {
        let mut rate = Rate::new(10, Instant::ZERO);
        let burst = (0..50).filter(|_| rate.take(Instant::ZERO)).count();
        assert_eq!(burst, 10);
        let later = (0..50)
            .filter(|_| rate.take(Instant::from_millis(500)))
            .count();
        assert_eq!(later, 5);
    }

    #[test]
    fn who_comes_often_leaves_half_to_the_others_and_has_the_whole_rate_alone() {
        let mut door = Door::new(100, Instant::ZERO);
        let mut admitted = 0;
        for ms in 0..5_000 {
            let now = Instant::from_millis(ms);
            admitted += (0..20).filter(|_| door.admits(now, host(1))).count();
            if ms % 250 == 0 {
                assert!(door.admits(now, host(2)), "{ms}");
            }
        }
        assert!((500..600).contains(&admitted), "{admitted}");
    }

    #[test]
    fn addresses_of_one_network_are_one_host() {
        let mut door = Door::new(100, Instant::ZERO);
        let of = |n: u16| IpAddr::from([0x2001, 0xDB8, 1, 2, 3, 4, 5, n]);
        let admitted = (0..1000).filter(|&n| door.admits(Instant::ZERO, of(n)));
        assert_eq!(admitted.count(), 50);
        let mut door = Door::new(1, Instant::ZERO);
        assert!(door.admits(Instant::ZERO, host(3)));
        assert!(!door.admits(Instant::ZERO, host(3)));
    }
}
