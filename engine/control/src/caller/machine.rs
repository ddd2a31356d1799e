//! When a configured caller calls: its states, waits and circuit breaker. No clock, no thread,
//! no randomness of its own: [`super::Callers`] tells it the time and what happened, and does
//! what it says.
//!
//! ```text
//! idle ──due──▶ claiming ─▶ resolving ─▶ calling ─▶ connected
//!   ▲               └───────────┴───────────┴──failure──┴──▶ backoff, or open ──due──▶ claiming
//!   └── stopped by the operator, until the block on its stream ends
//! ```

use std::time::Duration;

use mirror_base::Instant;

use crate::config::{BackoffConfig, BreakerConfig};

/// A connection that lasted so long was a good one: failures before it are forgotten. Shorter
/// than that, and a peer that accepts and then hangs up would be called in a tight circle.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(10);
/// An attempt that got no answer for so long has failed, whoever it was that did not answer:
/// longer than the parts of it take together (claim 250 ms, names 5 s, handshake 3 s).
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// The same of a rendezvous, whose handshake waits ten times as long for the peer.
pub(crate) const MEETING_TIMEOUT: Duration = Duration::from_secs(42);

/// What a caller is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Nothing: not begun yet, or its stream is blocked by the operator.
    Idle,
    /// The registry is being asked for the stream.
    Claiming,
    /// The peer's name is being looked up.
    Resolving,
    /// Keys are being derived, or the shard has been told to call.
    Calling,
    /// The stream is there.
    Connected,
    /// Waiting after a failure.
    Backoff,
    /// The circuit breaker is open.
    Open,
}

impl Phase {
    /// Every phase.
    pub(crate) const ALL: [Phase; 7] = [
        Phase::Idle,
        Phase::Claiming,
        Phase::Resolving,
        Phase::Calling,
        Phase::Connected,
        Phase::Backoff,
        Phase::Open,
    ];

    /// As API and metrics show it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Claiming => "claiming",
            Phase::Resolving => "resolving",
            Phase::Calling => "calling",
            Phase::Connected => "connected",
            Phase::Backoff => "backoff",
            Phase::Open => "open",
        }
    }

    /// Whether an attempt is under way.
    const fn attempting(self) -> bool {
        matches!(self, Phase::Claiming | Phase::Resolving | Phase::Calling)
    }
}

/// The circuit breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Breaker {
    /// Calls are made.
    Closed,
    /// No call until its time is over.
    Open,
    /// One call decides.
    HalfOpen,
}

impl Breaker {
    /// As the API shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Breaker::Closed => "closed",
            Breaker::Open => "open",
            Breaker::HalfOpen => "half_open",
        }
    }
}

/// Whether a failed attempt speaks against the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blame {
    /// The peer, its name or the way to it: counts for the circuit breaker.
    Peer,
    /// Another instance has the stream, or this engine has no room: only waits.
    Ours,
}

/// One caller.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    backoff: BackoffConfig,
    breaker_config: BreakerConfig,
    /// How long an attempt may take.
    patience: Duration,
    phase: Phase,
    breaker: Breaker,
    /// When the phase is over by itself.
    deadline: Option<Instant>,
    /// When the connection began, until it is known to be stable.
    proving: Option<Instant>,
    /// Failures in a row, for the wait.
    in_a_row: u32,
    /// Failures in a row that speak against the peer, for the breaker.
    against_peer: u32,
    /// Calls so far.
    pub(crate) attempts: u64,
    /// Failures so far.
    pub(crate) failures: u64,
    /// Connections so far.
    pub(crate) connections: u64,
}

impl Machine {
    /// A caller that is due at `now`.
    pub(crate) fn new(
        now: Instant,
        backoff: BackoffConfig,
        breaker: BreakerConfig,
        patience: Duration,
    ) -> Self {
        Machine {
            backoff,
            breaker_config: breaker,
            patience,
            phase: Phase::Idle,
            breaker: Breaker::Closed,
            deadline: Some(now),
            proving: None,
            in_a_row: 0,
            against_peer: 0,
            attempts: 0,
            failures: 0,
            connections: 0,
        }
    }

    pub(crate) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) const fn breaker(&self) -> Breaker {
        self.breaker
    }

    /// Failures since the last good connection.
    pub(crate) const fn failures_in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// When it wants to be looked at.
    pub(crate) fn next(&self) -> Option<Instant> {
        match self.proving {
            Some(since) => Some(since + STABLE_AFTER),
            None => self.deadline,
        }
    }

    /// When the next call is made, while it waits for it.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle | Phase::Backoff | Phase::Open => self.deadline,
            _ => None,
        }
    }

    /// Whether it is time to begin an attempt.
    pub(crate) fn due(&self, now: Instant) -> bool {
        self.next_attempt().is_some_and(|at| at <= now)
    }

    /// Not now, though it would be due.
    pub(crate) fn postpone(&mut self, until: Instant) {
        if self.next_attempt().is_some() {
            self.deadline = Some(until);
        }
    }

    /// Begins an attempt.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.breaker == Breaker::Open {
            self.breaker = Breaker::HalfOpen;
        }
        self.attempts += 1;
        self.phase = Phase::Claiming;
        self.deadline = Some(now + self.patience);
    }

    /// The attempt goes on.
    pub(crate) fn step(&mut self, phase: Phase) {
        if self.phase.attempting() {
            self.phase = phase;
        }
    }

    /// Whether the attempt has had its time.
    pub(crate) fn overdue(&self, now: Instant) -> bool {
        self.phase.attempting() && self.deadline.is_some_and(|at| at <= now)
    }

    /// The stream is there.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.phase = Phase::Connected;
        self.connections += 1;
        self.deadline = None;
        self.proving = Some(now);
    }

    /// Notes that a connection has proved good, when it is time. Returns whether that is news.
    pub(crate) fn prove(&mut self, now: Instant) -> bool {
        let stable = |since: Instant| now.saturating_since(since) >= STABLE_AFTER;
        let proved = self.phase == Phase::Connected && self.proving.is_some_and(stable);
        if proved {
            self.proving = None;
            self.in_a_row = 0;
            self.against_peer = 0;
            self.breaker = Breaker::Closed;
        }
        proved
    }

    /// The connection ended, not by our will. One that had proved good is no failure: it is
    /// called again after the first wait.
    pub(crate) fn ended(&mut self, now: Instant, blame: Blame, chance: u64) {
        self.prove(now);
        if self.proving.take().is_some() {
            return self.failed(now, blame, chance);
        }
        self.phase = Phase::Backoff;
        self.deadline = Some(now + self.jittered(self.backoff.initial, chance));
    }

    /// The attempt came to nothing. `chance`: random bits for the jitter.
    pub(crate) fn failed(&mut self, now: Instant, blame: Blame, chance: u64) {
        self.failures += 1;
        self.proving = None;
        self.in_a_row = self.in_a_row.saturating_add(1);
        if blame == Blame::Peer {
            self.against_peer = self.against_peer.saturating_add(1);
        }
        let opens = blame == Blame::Peer
            && (self.breaker == Breaker::HalfOpen
                || self.against_peer >= self.breaker_config.failures);
        let wait = if opens {
            self.phase = Phase::Open;
            self.breaker = Breaker::Open;
            self.breaker_config.reset_after
        } else {
            self.phase = Phase::Backoff;
            self.wait()
        };
        self.deadline = Some(now + self.jittered(wait, chance));
    }

    /// Stopped by the operator, to be looked at again at `until`.
    pub(crate) fn stop(&mut self, until: Instant) {
        self.phase = Phase::Idle;
        self.breaker = Breaker::Closed;
        self.proving = None;
        self.in_a_row = 0;
        self.against_peer = 0;
        self.deadline = Some(until);
    }

    /// `initial`, doubled with each failure up to `max`.
    fn wait(&self) -> Duration {
        let doublings = self.in_a_row.saturating_sub(1).min(31);
        self.backoff
            .initial
            .saturating_mul(1 << doublings)
            .min(self.backoff.max)
    }

    /// Shortened by up to the part left to chance, so that callers of one dead peer do not call
    /// in step, and no wait is longer than configured.
    fn jittered(&self, wait: Duration, chance: u64) -> Duration {
        let part = (chance >> 11) as f64 / (1_u64 << 53) as f64;
        wait.mul_f64((1.0 - self.backoff.jitter * part).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_JITTER: BackoffConfig = BackoffConfig {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(10),
        jitter: 0.0,
    };
    const BREAKER: BreakerConfig = BreakerConfig {
        failures: 5,
        reset_after: Duration::from_secs(30),
    };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn wait_of(m: &Machine, now: Instant) -> u64 {
        let next = m.next_attempt().unwrap();
        u64::try_from(next.saturating_since(now).as_millis()).unwrap()
    }

    /// Fails each attempt as soon as it is due; the waits in ms.
    fn fail(m: &mut Machine, now: &mut Instant, times: usize, blame: Blame) -> Vec<u64> {
        (0..times)
            .map(|_| {
                assert!(m.due(*now));
                m.begin(*now);
                m.failed(*now, blame, 0);
                let wait = wait_of(m, *now);
                *now += Duration::from_millis(wait);
                wait
            })
            .collect()
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let breaker = BreakerConfig {
            failures: 1000,
            ..BREAKER
        };
        let mut m = Machine::new(at(0), NO_JITTER, breaker, ATTEMPT_TIMEOUT);
        let mut now = at(0);
        let waits = fail(&mut m, &mut now, 40, Blame::Peer);
        assert_eq!(waits[..6], [1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(waits[39], 10_000);
        assert_eq!((m.attempts, m.failures), (40, 40));
    }

    #[test]
    fn jitter_shortens_waits_by_its_part_at_the_most() {
        let backoff = BackoffConfig {
            jitter: 0.25,
            ..NO_JITTER
        };
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..64_u64 {
            let mut m = Machine::new(at(0), backoff, BREAKER, ATTEMPT_TIMEOUT);
            m.begin(at(0));
            m.failed(at(0), Blame::Peer, i << 58);
            let wait = wait_of(&m, at(0));
            assert!((750..=1000).contains(&wait), "{wait}");
            seen.insert(wait);
        }
        assert!(seen.len() > 30, "{seen:?}");
    }

    #[test]
    fn breaker_opens_after_failures_in_a_row_and_one_call_decides() {
        let mut m = Machine::new(at(0), NO_JITTER, BREAKER, ATTEMPT_TIMEOUT);
        let mut now = at(0);
        let waits = fail(&mut m, &mut now, 5, Blame::Peer);
        assert_eq!(waits, [1000, 2000, 4000, 8000, 30_000]);
        assert_eq!((m.phase(), m.breaker()), (Phase::Open, Breaker::Open));
        // The probe fails: open again for as long.
        m.begin(now);
        assert_eq!(m.breaker(), Breaker::HalfOpen);
        m.failed(now, Blame::Peer, 0);
        assert_eq!((m.phase(), wait_of(&m, now)), (Phase::Open, 30_000));
        // The next one brings a connection that lasts.
        now += Duration::from_secs(30);
        m.begin(now);
        m.connected(now);
        assert_eq!(m.breaker(), Breaker::HalfOpen);
        assert!(!m.prove(now + (STABLE_AFTER - Duration::from_millis(1))));
        assert_eq!(m.breaker(), Breaker::HalfOpen);
        assert_eq!(m.next(), Some(now + STABLE_AFTER));
        assert!(m.prove(now + STABLE_AFTER), "to be shown");
        assert!(!m.prove(now + STABLE_AFTER), "once");
        assert_eq!((m.breaker(), m.failures_in_a_row()), (Breaker::Closed, 0));
        assert_eq!(m.next(), None);
        m.ended(now + Duration::from_secs(60), Blame::Peer, 0);
        assert_eq!(
            (m.phase(), wait_of(&m, now + Duration::from_secs(60))),
            (Phase::Backoff, 1000)
        );
    }

    #[test]
    fn connection_that_does_not_last_is_a_failure() {
        let mut m = Machine::new(at(0), NO_JITTER, BREAKER, ATTEMPT_TIMEOUT);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..5 {
            m.begin(now);
            m.step(Phase::Calling);
            m.connected(now);
            now += Duration::from_secs(9);
            m.ended(now, Blame::Peer, 0);
            waits.push(wait_of(&m, now));
            now = m.next_attempt().unwrap();
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 30_000]);
        assert_eq!(m.connections, 5);
    }

    #[test]
    fn what_is_not_the_peers_fault_waits_but_opens_nothing() {
        let mut m = Machine::new(at(0), NO_JITTER, BREAKER, ATTEMPT_TIMEOUT);
        let mut now = at(0);
        let waits = fail(&mut m, &mut now, 8, Blame::Ours);
        assert_eq!(waits[5..], [10_000, 10_000, 10_000]);
        assert_eq!((m.phase(), m.breaker()), (Phase::Backoff, Breaker::Closed));
        // Nor does it in the half-open state.
        let waits = fail(&mut m, &mut now, 5, Blame::Peer);
        assert_eq!(waits[4], 30_000);
        m.begin(now);
        m.failed(now, Blame::Ours, 0);
        assert_eq!(
            (m.phase(), m.breaker()),
            (Phase::Backoff, Breaker::HalfOpen)
        );
    }

    #[test]
    fn attempt_without_an_answer_is_overdue() {
        let mut m = Machine::new(at(5), NO_JITTER, BREAKER, ATTEMPT_TIMEOUT);
        assert!(!m.due(at(4)) && m.due(at(5)));
        m.begin(at(5));
        m.step(Phase::Resolving);
        m.step(Phase::Calling);
        let end = at(5) + ATTEMPT_TIMEOUT;
        assert!(!m.due(end) && m.overdue(end) && m.next() == Some(end));
        m.connected(end);
        assert!(!m.overdue(end + ATTEMPT_TIMEOUT));
        m.step(Phase::Calling);
        assert_eq!(m.phase(), Phase::Connected, "a late word changes nothing");
    }

    #[test]
    fn stopped_caller_begins_anew_when_its_time_has_come() {
        let mut m = Machine::new(at(0), NO_JITTER, BREAKER, ATTEMPT_TIMEOUT);
        let mut now = at(0);
        fail(&mut m, &mut now, 5, Blame::Peer);
        m.stop(now + Duration::from_secs(7));
        assert_eq!((m.phase(), m.breaker()), (Phase::Idle, Breaker::Closed));
        assert_eq!(wait_of(&m, now), 7000);
        now += Duration::from_secs(7);
        assert_eq!(fail(&mut m, &mut now, 1, Blame::Peer), [1000]);
    }
}
