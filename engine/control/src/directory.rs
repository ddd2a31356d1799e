//! Stream ID → shard (design, section 3). Shards ask during handshakes, under a short lock;
//! a reservation counts as load at once and expires after 3 s unless it is confirmed, so that
//! repeats, twins and bursts agree. Reservations of handshakes do not count as streams: whoever
//! has not proved anything yet must not keep others out. Control blocks ids that the operator terminated.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mirror_base::{Instant, ShardId, StreamId};
use mirror_stream::report::{Reservation, StreamDirectory};

use crate::config::{Config, DefaultStream};

/// How long an unconfirmed reservation holds.
pub const RESERVATION_TTL: Duration = Duration::from_secs(3);

/// All reservations are looked at for expired ones so often at the most, however many come.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// Reservations of handshakes at the most.
const MAX_RESERVED: usize = 8192;

/// Blocked ids kept at the most; beyond it the one that ends first goes.
const MAX_BLOCKED: usize = 4096;

/// The stream directory of the process.
#[derive(Debug)]
pub struct Directory {
    shards: usize,
    max_streams: usize,
    default_streams: Vec<DefaultStream>,
    /// Whose `[[publishers]]` say where a publisher may go on; without, anywhere.
    config: Option<Arc<Config>>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    places: HashMap<StreamId, Place>,
    blocked: HashMap<StreamId, Instant>,
    load: Vec<usize>,
    /// Places that count as streams.
    counted: usize,
    /// No reservation expires before this.
    next_expiry: Option<Instant>,
}

#[derive(Debug)]
struct Place {
    shard: ShardId,
    /// `None` once confirmed.
    expires: Option<Instant>,
    /// Counts as a stream: it is one, or it needs nobody's leave to become one.
    counted: bool,
}

impl Directory {
    /// A directory for `shards` shards that admits `max_streams` streams.
    pub fn new(shards: usize, max_streams: usize, default_streams: Vec<DefaultStream>) -> Self {
        assert!(shards > 0, "an engine has at least one shard");
        let inner = Inner {
            load: vec![0; shards],
            ..Inner::default()
        };
        Directory {
            shards,
            max_streams,
            default_streams,
            config: None,
            inner: Mutex::new(inner),
        }
    }

    /// The directory of an engine with `shards` shards and this configuration.
    pub fn of(config: &Arc<Config>, shards: usize) -> Self {
        let default_streams = config.srt.default_stream.clone();
        Directory {
            config: Some(config.clone()),
            ..Directory::new(shards, config.max_streams, default_streams)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses `stream_id` until `until`.
    pub fn block(&self, stream_id: &StreamId, until: Instant) {
        let mut inner = self.lock();
        if inner.blocked.len() >= MAX_BLOCKED && !inner.blocked.contains_key(stream_id) {
            let first = inner
                .blocked
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(id, _)| id.clone());
            if let Some(first) = first {
                inner.blocked.remove(&first);
            }
        }
        inner.blocked.insert(stream_id.clone(), until);
    }

    /// Whether `stream_id` is blocked at `now`.
    pub fn is_blocked(&self, now: Instant, stream_id: &StreamId) -> bool {
        self.lock().is_blocked(now, stream_id)
    }

    /// Until when `stream_id` is blocked, if it is at `now`.
    pub fn blocked_until(&self, now: Instant, stream_id: &StreamId) -> Option<Instant> {
        let until = self.lock().blocked.get(stream_id).copied();
        until.filter(|until| *until > now)
    }

    /// The shard for a stream that the engine fetches itself: it counts from its call on.
    pub fn reserve_call(&self, now: Instant, stream_id: &StreamId) -> Reservation {
        self.reserve_at(now, stream_id, true, |inner| inner.least_loaded(ShardId(0)))
    }

    /// The shard of a stream or reservation.
    pub fn shard_of(&self, stream_id: &StreamId) -> Option<ShardId> {
        self.lock().places.get(stream_id).map(|place| place.shard)
    }

    /// Streams and reservations, all shards together.
    pub fn len(&self) -> usize {
        self.lock().places.len()
    }

    /// Whether there is no stream and no reservation.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn is_blocked(&mut self, now: Instant, stream_id: &StreamId) -> bool {
        match self.blocked.get(stream_id) {
            Some(until) if *until > now => true,
            Some(_) => {
                self.blocked.remove(stream_id);
                false
            }
            None => false,
        }
    }

    fn forget(&mut self, stream_id: &StreamId) {
        let Some(place) = self.places.remove(stream_id) else {
            return;
        };
        self.counted -= usize::from(place.counted);
        if let Some(load) = self.load.get_mut(place.shard.index()) {
            *load = load.saturating_sub(1);
        }
    }

    /// The stream lives on `shard` from now on.
    fn settle(&mut self, stream_id: &StreamId, shard: ShardId) {
        self.forget(stream_id);
        self.insert(stream_id, shard, None, true);
    }

    fn insert(
        &mut self,
        stream_id: &StreamId,
        shard: ShardId,
        expires: Option<Instant>,
        counted: bool,
    ) {
        let place = Place {
            shard,
            expires,
            counted,
        };
        self.places.insert(stream_id.clone(), place);
        self.counted += usize::from(counted);
        if let Some(load) = self.load.get_mut(shard.index()) {
            *load += 1;
        }
    }

    /// Drops expired reservations; looks only when one can have expired.
    fn expire(&mut self, now: Instant) {
        if self.next_expiry.is_none_or(|at| now < at) {
            return;
        }
        let expired: Vec<StreamId> = self
            .places
            .iter()
            .filter(|(_, place)| place.expires.is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &expired {
            self.forget(id);
        }
        let next = self.places.values().filter_map(|place| place.expires).min();
        self.next_expiry = next.map(|at| at.max(now + EXPIRE_EVERY));
    }

    /// The least-loaded shard; `local` if no other has less.
    fn least_loaded(&self, local: ShardId) -> ShardId {
        let local_load = self.load.get(local.index()).copied();
        let least = self
            .load
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|&(_, load)| load);
        match (least, local_load) {
            (Some((_, load)), Some(here)) if here <= load => local,
            (Some((shard, _)), _) => ShardId(shard as u16),
            (None, _) => local,
        }
    }
}

impl Directory {
    fn reserve_at(
        &self,
        now: Instant,
        stream_id: &StreamId,
        counted: bool,
        choose: impl FnOnce(&Inner) -> ShardId,
    ) -> Reservation {
        let mut inner = self.lock();
        if inner.is_blocked(now, stream_id) {
            return Reservation::Blocked;
        }
        inner.expire(now);
        let expires = now + RESERVATION_TTL;
        if let Some(place) = inner.places.get_mut(stream_id) {
            // A repeat keeps its reservation alive.
            if place.expires.is_some() {
                place.expires = Some(expires);
            }
            return Reservation::Owner(place.shard);
        }
        let reserved = inner.places.len() - inner.counted;
        if inner.counted >= self.max_streams || (!counted && reserved >= MAX_RESERVED) {
            return Reservation::Full;
        }
        let shard = choose(&inner);
        inner.insert(stream_id, shard, Some(expires), counted);
        inner.next_expiry = Some(inner.next_expiry.map_or(expires, |at| at.min(expires)));
        Reservation::Owner(shard)
    }
}

impl StreamDirectory for Directory {
    fn reserve(&self, now: Instant, stream_id: &StreamId, local: ShardId) -> Reservation {
        self.reserve_at(now, stream_id, false, |inner| inner.least_loaded(local))
    }

    fn reserve_here(&self, now: Instant, stream_id: &StreamId, local: ShardId) -> Reservation {
        self.reserve_at(now, stream_id, true, |_| local)
    }

    fn admit(&self, stream_id: &StreamId, shard: ShardId) -> bool {
        let mut inner = self.lock();
        let counts = inner.places.get(stream_id).is_some_and(|p| p.counted);
        if !counts && inner.counted >= self.max_streams {
            return false;
        }
        inner.settle(stream_id, shard);
        true
    }

    fn confirm(&self, stream_id: &StreamId, shard: ShardId) {
        debug_assert!(shard.index() < self.shards);
        // Its reservation may have expired meanwhile: the stream exists all the same.
        self.lock().settle(stream_id, shard);
    }

    fn release(&self, stream_id: &StreamId, shard: ShardId) {
        let mut inner = self.lock();
        if inner
            .places
            .get(stream_id)
            .is_some_and(|place| place.shard == shard)
        {
            inner.forget(stream_id);
        }
    }

    fn default_stream(&self, peer_ip: IpAddr, peer_port: u16) -> Option<StreamId> {
        self.default_streams
            .iter()
            .find(|rule| rule.fits(peer_ip, peer_port))
            .map(|rule| rule.id.clone())
    }

    fn may_move(&self, stream_id: &StreamId, from: IpAddr, to: IpAddr) -> bool {
        let (from, to) = (from.to_canonical(), to.to_canonical());
        let config = self.config.as_ref();
        from == to || config.is_none_or(|config| config.may_move(stream_id, from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cidr;

    fn id(text: &str) -> StreamId {
        StreamId::new(text).unwrap()
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn an_id_stays_with_its_shard_and_new_ones_go_to_the_least_loaded() {
        let d = Directory::new(3, 100, Vec::new());
        assert_eq!(
            d.reserve(at(0), &id("a"), ShardId(1)),
            Reservation::Owner(ShardId(1))
        );
        assert_eq!(
            d.reserve(at(0), &id("a"), ShardId(2)),
            Reservation::Owner(ShardId(1))
        );
        let mut loads = [0_i32; 3];
        for i in 0..30 {
            if let Reservation::Owner(s) = d.reserve(at(0), &id(&format!("s{i}")), ShardId(1)) {
                loads[s.index()] += 1;
            }
        }
        loads[1] += 1; // "a"
        assert!(
            loads.iter().all(|n| (10..=11).contains(n)),
            "31 streams: {loads:?}"
        );
    }

    #[test]
    fn a_flood_of_reservations_is_not_looked_through_for_each_handshake() {
        let d = Directory::new(2, 100, Vec::new());
        let mut looks = 0;
        let mut next = None;
        // A thousand a second: one expires with each that comes.
        for ms in 0..8_000 {
            d.reserve(at(ms), &id(&format!("s{ms}")), ShardId(0));
            let now = d.lock().next_expiry;
            looks += u64::from(next.is_some() && now != next);
            next = now;
            assert!(d.len() <= 3_101);
        }
        assert!((40..=51).contains(&looks), "{looks} in 5 s");
    }

    #[test]
    fn reservation_expires_after_3_s_unless_confirmed() {
        let d = Directory::new(2, 2, Vec::new());
        d.reserve(at(0), &id("a"), ShardId(0));
        d.reserve(at(0), &id("b"), ShardId(0));
        d.confirm(&id("a"), ShardId(0));
        assert_eq!(d.shard_of(&id("b")), Some(ShardId(1)));
        assert_eq!(d.len(), 2);
        assert!(matches!(
            d.reserve(at(3_000), &id("c"), ShardId(0)),
            Reservation::Owner(_)
        ));
        assert_eq!(d.shard_of(&id("b")), None);
        assert_eq!(d.shard_of(&id("a")), Some(ShardId(0)));
        d.release(&id("a"), ShardId(1));
        assert_eq!(d.len(), 2, "only its own shard releases a stream");
        d.release(&id("a"), ShardId(0));
        assert_eq!(d.len(), 1);
    }

    #[test]
    fn repeated_handshake_renews_the_reservation() {
        let d = Directory::new(1, 1, Vec::new());
        d.reserve(at(0), &id("a"), ShardId(0));
        d.reserve(at(2_000), &id("a"), ShardId(0));
        d.reserve(at(4_000), &id("b"), ShardId(0));
        assert_eq!(d.shard_of(&id("a")), Some(ShardId(0)));
        d.reserve(at(5_000), &id("b"), ShardId(0));
        assert_eq!(d.shard_of(&id("a")), None);
    }

    #[test]
    fn handshakes_that_have_proved_nothing_keep_nobody_out() {
        let d = Directory::new(1, 2, Vec::new());
        for n in 0..MAX_RESERVED {
            let stream = id(&format!("storm/{n}"));
            assert_eq!(
                d.reserve(at(0), &stream, ShardId(0)),
                Reservation::Owner(ShardId(0))
            );
        }
        assert_eq!(d.reserve(at(0), &id("more"), ShardId(0)), Reservation::Full);
        d.release(&id("storm/0"), ShardId(0));
        assert_eq!(
            d.reserve(at(0), &id("good"), ShardId(0)),
            Reservation::Owner(ShardId(0))
        );
        assert!(d.admit(&id("good"), ShardId(0)));
        assert!(d.admit(&id("storm/1"), ShardId(0)));
        assert!(!d.admit(&id("storm/2"), ShardId(0)), "two streams are all");
        assert!(d.admit(&id("good"), ShardId(0)), "it has its place");
        assert_eq!(d.reserve(at(0), &id("late"), ShardId(0)), Reservation::Full);
        d.release(&id("storm/1"), ShardId(0));
        assert!(d.admit(&id("storm/2"), ShardId(0)));
    }

    #[test]
    fn blocked_id_is_refused_until_its_time() {
        let d = Directory::new(1, 10, Vec::new());
        d.block(&id("a"), at(1_000));
        assert_eq!(
            d.reserve(at(999), &id("a"), ShardId(0)),
            Reservation::Blocked
        );
        assert!(matches!(
            d.reserve(at(999), &id("b"), ShardId(0)),
            Reservation::Owner(_)
        ));
        assert!(matches!(
            d.reserve(at(1_000), &id("a"), ShardId(0)),
            Reservation::Owner(_)
        ));
        for i in 0..(MAX_BLOCKED as u64 + 10) {
            d.block(&id(&format!("x{i}")), at(10_000 + i));
        }
        assert!(!d.is_blocked(at(2_000), &id("x0")), "the list is bounded");
        assert!(d.is_blocked(at(2_000), &id(&format!("x{}", MAX_BLOCKED + 9))));
    }

    #[test]
    fn late_confirmation_still_makes_the_stream_known() {
        let d = Directory::new(2, 10, Vec::new());
        d.confirm(&id("a"), ShardId(1));
        assert_eq!(
            d.reserve(at(0), &id("a"), ShardId(0)),
            Reservation::Owner(ShardId(1))
        );
        d.confirm(&id("a"), ShardId(0));
        assert_eq!(d.shard_of(&id("a")), Some(ShardId(0)));
        assert_eq!(
            d.reserve(at(0), &id("b"), ShardId(1)),
            Reservation::Owner(ShardId(1))
        );
    }

    #[test]
    fn default_stream_goes_by_address_and_port() {
        let rules = vec![
            DefaultStream {
                source: Cidr::parse("10.0.0.0/8"),
                port: Some(7),
                id: id("both"),
            },
            DefaultStream {
                source: Cidr::parse("10.0.0.0/8"),
                port: None,
                id: id("net"),
            },
        ];
        let d = Directory::new(1, 10, rules);
        let ip = "10.1.1.1".parse().unwrap();
        assert_eq!(d.default_stream(ip, 7), Some(id("both")));
        assert_eq!(d.default_stream(ip, 8), Some(id("net")));
        assert_eq!(d.default_stream("11.1.1.1".parse().unwrap(), 7), None);
    }
}
