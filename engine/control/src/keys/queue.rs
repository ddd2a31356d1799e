//! Whose key is derived next, and how much time may go into it. A storm of wrong passphrases
//! (or of right ones) costs a bounded share of a core, and whoever has done nothing wrong goes
//! before those whose last passphrase was wrong. No clock and no thread here: [`super::KeyDesk`]
//! brings both.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use mirror_base::Instant;

/// Share of a core that derivations may take, percent. A derivation costs about a millisecond,
/// so that this is some 250 handshakes a second, ten times as many as one core carries streams
/// of 50 Mb/s; and three quarters of the control core remain for API, registry and the rest.
const SHARE_PERCENT: u64 = 25;
/// What may be spent at once after a rest: all encoders of a site come back at the same time.
const BURST: Duration = Duration::from_millis(250);
/// Jobs that wait, all sources together.
const MAX_WAITING: usize = 512;
/// Jobs that wait, of one source: a site behind one address may have many encoders.
const MAX_OF_SOURCE: usize = 64;
/// The same of a source whose last passphrase was wrong.
const MAX_OF_SUSPECT: usize = 4;
/// How long a wrong passphrase is held against its source.
const SUSPECT_FOR: Duration = Duration::from_secs(60);
/// Suspects remembered at the most.
const MAX_SUSPECTS: usize = 4096;
/// One turn in so many belongs to suspects while others wait: an honest encoder may share its
/// address with a wrong one.
const SUSPECTS_TURN: u32 = 4;

/// What counts as one source: an IPv4 address, or the network of an IPv6 address, of which one
/// host has 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Source(u64, bool);

impl Source {
    pub(crate) fn of(ip: IpAddr) -> Source {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Source(u64::from(u32::from(ip)), false),
            IpAddr::V6(ip) => Source((u128::from(ip) >> 64) as u64, true),
        }
    }
}

/// The time that may be spent.
#[derive(Debug)]
pub(super) struct Budget {
    left_ns: i64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Budget {
        Budget {
            left_ns: BURST.as_nanos() as i64,
            at: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_since(self.at).as_nanos();
        self.at = self.at.max(now);
        let gained = i64::try_from(passed * u128::from(SHARE_PERCENT) / 100).unwrap_or(i64::MAX);
        self.left_ns = self
            .left_ns
            .saturating_add(gained)
            .min(BURST.as_nanos() as i64);
    }

    /// How long to wait before anything may be spent again; `None`: now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        let missing = u64::try_from(-self.left_ns).ok().filter(|ns| *ns > 0)?;
        Some(Duration::from_nanos(missing * 100 / SHARE_PERCENT))
    }

    /// Notes what a derivation took.
    pub(super) fn spend(&mut self, time: Duration) {
        let ns = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_sub(ns);
    }
}

#[derive(Debug)]
struct Waiting<T> {
    job: T,
    until: Instant,
}

/// Jobs of publishers, in fair order.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    sources: HashMap<Source, VecDeque<Waiting<T>>>,
    /// Sources with jobs, each once, in one of the two.
    clean: VecDeque<Source>,
    suspected: VecDeque<Source>,
    /// Until when a source is suspect.
    suspects: HashMap<Source, Instant>,
    len: usize,
    turn: u32,
}

/// What the queue gave up for a job of somebody better.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admitted<T> {
    /// There was room.
    Room,
    /// This one had to go.
    InPlaceOf(T),
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue {
            sources: HashMap::new(),
            clean: VecDeque::new(),
            suspected: VecDeque::new(),
            suspects: HashMap::new(),
            len: 0,
            turn: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Jobs that wait.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn suspect(&self, now: Instant, source: Source) -> bool {
        self.suspects.get(&source).is_some_and(|until| *until > now)
    }

    /// A wrong passphrase came from here.
    pub(super) fn blame(&mut self, now: Instant, source: Source) {
        if self.suspects.len() >= MAX_SUSPECTS && !self.suspects.contains_key(&source) {
            self.suspects.retain(|_, until| *until > now);
            if self.suspects.len() >= MAX_SUSPECTS
                && let Some(any) = self.suspects.keys().next().copied()
            {
                self.suspects.remove(&any);
            }
        }
        self.suspects.insert(source, now + SUSPECT_FOR);
    }

    /// Takes a job that is of use until `until`, or gives it back.
    pub(super) fn push(
        &mut self,
        now: Instant,
        source: Source,
        job: T,
        until: Instant,
    ) -> Result<Admitted<T>, T> {
        let suspect = self.suspect(now, source);
        let most = if suspect {
            MAX_OF_SUSPECT
        } else {
            MAX_OF_SOURCE
        };
        let own = self.sources.get(&source).map_or(0, VecDeque::len);
        if own >= most {
            return Err(job);
        }
        let mut admitted = Admitted::Room;
        if self.len >= MAX_WAITING {
            let given_up = if suspect {
                None
            } else {
                self.give_up_suspect().or_else(|| self.give_up_longest(own))
            };
            match given_up {
                Some(other) => admitted = Admitted::InPlaceOf(other),
                None => return Err(job),
            }
        }
        let queue = self.sources.entry(source).or_default();
        if queue.is_empty() {
            if suspect {
                self.suspected.push_back(source);
            } else {
                self.clean.push_back(source);
            }
        }
        queue.push_back(Waiting { job, until });
        self.len += 1;
        Ok(admitted)
    }

    /// The last job of the suspect that came last.
    fn give_up_suspect(&mut self) -> Option<T> {
        let source = *self.suspected.back()?;
        let queue = self.sources.get_mut(&source)?;
        let given_up = queue.pop_back();
        if queue.is_empty() {
            self.sources.remove(&source);
            self.suspected.pop_back();
        }
        self.len -= usize::from(given_up.is_some());
        given_up.map(|w| w.job)
    }

    /// The last job of the source with the most, if that is more than fair to one with `own`.
    fn give_up_longest(&mut self, own: usize) -> Option<T> {
        let longest = self.sources.values_mut().max_by_key(|queue| queue.len())?;
        if longest.len() <= own + 1 {
            return None;
        }
        let given_up = longest.pop_back()?;
        self.len -= 1;
        Some(given_up.job)
    }

    /// The next job, with its source; jobs whose time is over go to `late`.
    pub(super) fn pop(&mut self, now: Instant, late: &mut Vec<T>) -> Option<(Source, T)> {
        loop {
            let source = self.next_source(now)?;
            let queue = self.sources.get_mut(&source)?;
            let waiting = queue.pop_front()?;
            self.len -= 1;
            if queue.is_empty() {
                self.sources.remove(&source);
            } else if self.suspect(now, source) {
                self.suspected.push_back(source);
            } else {
                self.clean.push_back(source);
            }
            if waiting.until > now {
                return Some((source, waiting.job));
            }
            late.push(waiting.job);
        }
    }

    /// Everything that waits.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.clean.clear();
        self.suspected.clear();
        self.len = 0;
        let queues = std::mem::take(&mut self.sources);
        queues.into_values().flatten().map(|w| w.job).collect()
    }

    fn next_source(&mut self, now: Instant) -> Option<Source> {
        // Those that have become suspect since they queued go to the others.
        while let Some(&source) = self.clean.front()
            && self.suspect(now, source)
        {
            self.clean.pop_front();
            self.suspected.push_back(source);
        }
        self.turn = self.turn.wrapping_add(1);
        let theirs = self.clean.is_empty() || self.turn.is_multiple_of(SUSPECTS_TURN);
        if theirs && let Some(source) = self.suspected.pop_front() {
            return Some(source);
        }
        self.clean.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn from(n: u32) -> Source {
        Source::of(IpAddr::V4((0x0a00_0000 + n).into()))
    }

    fn far() -> Instant {
        at(1_000_000)
    }

    fn push(q: &mut FairQueue<u32>, source: u32, job: u32) -> bool {
        q.push(at(0), from(source), job, far()).is_ok()
    }

    fn pop(q: &mut FairQueue<u32>) -> Option<u32> {
        q.pop(at(0), &mut Vec::new()).map(|(_, job)| job)
    }

    #[test]
    fn sources_take_turns_however_much_one_of_them_asks() {
        let mut q = FairQueue::default();
        for i in 0..200 {
            push(&mut q, 1, 1000 + i);
        }
        assert_eq!(q.len(), MAX_OF_SOURCE);
        push(&mut q, 2, 2000);
        push(&mut q, 3, 3000);
        let first: Vec<_> = (0..4).filter_map(|_| pop(&mut q)).collect();
        assert_eq!(first, [1000, 2000, 3000, 1001]);
    }

    #[test]
    fn whoever_gave_a_wrong_passphrase_waits_for_the_others_but_not_for_ever() {
        let mut q = FairQueue::default();
        q.blame(at(0), from(1));
        for i in 0..100 {
            push(&mut q, 1, 1000 + i);
        }
        assert_eq!(q.len(), MAX_OF_SUSPECT);
        for source in 2..14 {
            push(&mut q, source, source);
        }
        let order: Vec<_> = (0..8).filter_map(|_| pop(&mut q)).collect();
        assert_eq!(
            order.iter().filter(|job| **job >= 1000).count(),
            2,
            "{order:?}"
        );
        assert!(order[0] < 1000);
        // It is forgotten after a minute.
        let (before, later) = (SUSPECT_FOR - Duration::from_millis(1), at(0) + SUSPECT_FOR);
        assert!(q.suspect(at(0) + before, from(1)));
        assert!(!q.suspect(later, from(1)));
    }

    #[test]
    fn source_that_becomes_suspect_while_it_waits_goes_behind() {
        let mut q = FairQueue::default();
        push(&mut q, 1, 1000);
        push(&mut q, 2, 2000);
        q.blame(at(0), from(1));
        assert_eq!(
            (pop(&mut q), pop(&mut q), pop(&mut q)),
            (Some(2000), Some(1000), None)
        );
        assert_eq!(q.len(), 0);
    }

    #[test]
    fn full_queue_gives_up_suspects_for_others_and_refuses_the_rest() {
        let mut q = FairQueue::default();
        q.blame(at(0), from(9999));
        assert!(push(&mut q, 9999, 7));
        for i in 0..(MAX_WAITING as u32 - 1) {
            assert!(push(&mut q, i, i));
        }
        assert_eq!(
            q.push(at(0), from(700), 700, far()),
            Ok(Admitted::InPlaceOf(7))
        );
        assert_eq!(q.push(at(0), from(701), 701, far()), Err(701));
        assert_eq!(q.push(at(0), from(9999), 8, far()), Err(8));
        assert_eq!(q.len(), MAX_WAITING);
        assert_eq!(q.drain().len(), MAX_WAITING);
        assert_eq!((q.len(), pop(&mut q)), (0, None));
    }

    #[test]
    fn full_queue_gives_up_the_last_job_of_who_has_the_most() {
        let mut q = FairQueue::default();
        for i in 0..(MAX_WAITING as u32) {
            // Eight sources with 64 jobs each.
            assert!(push(&mut q, i % 8, i));
        }
        let last_of_one = q.push(at(0), from(8), 1000, far());
        assert!(matches!(last_of_one, Ok(Admitted::InPlaceOf(504..=511))));
        for i in 0..200 {
            push(&mut q, 8, 1001 + i);
        }
        let of = |q: &FairQueue<u32>, n| q.sources.get(&from(n)).map_or(0, VecDeque::len);
        assert!((56..=57).contains(&of(&q, 8)), "{}", of(&q, 8));
        assert_eq!(q.len(), MAX_WAITING);
        let mut done = 0;
        while pop(&mut q).is_some() {
            done += 1;
        }
        assert_eq!(done, MAX_WAITING);
    }

    #[test]
    fn jobs_whose_publisher_has_given_up_are_not_done() {
        let mut q = FairQueue::default();
        q.push(at(0), from(1), 1, at(10)).unwrap();
        q.push(at(0), from(1), 2, at(30)).unwrap();
        let mut late = Vec::new();
        assert_eq!(q.pop(at(20), &mut late), Some((from(1), 2)));
        assert_eq!(late, [1]);
    }

    #[test]
    fn suspects_are_bounded() {
        let mut q = FairQueue::<u32>::default();
        for i in 0..(2 * MAX_SUSPECTS as u32) {
            q.blame(at(0), from(i));
        }
        assert_eq!(q.suspects.len(), MAX_SUSPECTS);
        assert!(q.suspect(at(1), from(2 * MAX_SUSPECTS as u32 - 1)));
    }

    #[test]
    fn ipv6_hosts_of_one_network_are_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn time_spent_stays_within_its_share() {
        let mut budget = Budget::new(at(0));
        let cost = Duration::from_millis(1);
        let (mut now, mut done) = (at(0), 0_u64);
        let end = at(10_000);
        while now < end {
            if let Some(wait) = budget.wait(now) {
                now += wait;
                continue;
            }
            budget.spend(cost);
            now += cost;
            done += 1;
        }
        // A quarter of 10 s, and what may be spent at once.
        assert!((2700..=2760).contains(&done), "{done}");
        assert_eq!(budget.wait(at(60_000)), None);
        budget.spend(BURST);
        assert_eq!(budget.wait(at(60_000)), None);
        budget.spend(cost);
        assert_eq!(budget.wait(at(60_000)), Some(Duration::from_millis(4)));
    }
}
