//! When RTCP is sent: the interval rules of RFC 3550 (6.2, 6.3, A.7) with reconsideration,
//! reverse reconsideration and BYE back-off, and the early feedback of RFC 4585 (3.5). Sessions
//! ask it when they may speak; what they say is theirs.

use core::time::Duration;

use mirror_base::Instant;

/// RFC 3550, 6.2: the least interval between reports.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// RFC 4585, 3.4: the same before the first report of a session with feedback; later only
/// the bandwidth counts.
const MIN_FEEDBACK_INTERVAL: Duration = Duration::from_secs(1);
/// No interval is longer, however little bandwidth there is.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// Bytes of the IPv4 and UDP headers, which 6.2 counts too.
const LOWER_LAYER_BYTES: u64 = 28;
/// 6.3.7: a group of fewer members may be left without waiting.
const SMALL_GROUP: u32 = 50;

/// splitmix64: spreads what is sent, nothing secret.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly between 0 and 1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 40) as f64 / f64::from(1u32 << 24)
    }
}

/// What a session's RTCP may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// RTCP's share of the session bandwidth, in bytes a second; at least 1.
    pub(crate) bytes_per_s: u64,
    /// How much of it is the senders', in 1/65536 (6.2: a quarter; RFC 3556: RS of RS + RR).
    pub(crate) senders_share: u32,
    /// The least interval after the first report.
    pub(crate) least: Duration,
    /// RFC 4585's timing, and the least interval between regular reports that it is thinned
    /// out to.
    pub(crate) feedback: Option<Duration>,
}

impl Rules {
    /// Those of RFC 3550 for a session of `bandwidth_bps`.
    pub(crate) const fn for_bandwidth(bandwidth_bps: u64) -> Self {
        let bytes = bandwidth_bps / 8 / 20;
        Rules {
            bytes_per_s: if bytes == 0 { 1 } else { bytes },
            senders_share: 1 << 14,
            least: MIN_INTERVAL,
            feedback: None,
        }
    }

    /// 6.2: "reduced minimum interval", 360 s / (session bandwidth in kbit/s), which unicast
    /// sessions may use. We see no use in more than one report a second.
    pub(crate) fn reduced(mut self, bandwidth_bps: u64) -> Self {
        let millis = 360_000_000 / bandwidth_bps.max(1);
        self.least = Duration::from_millis(millis.clamp(1_000, 5_000));
        self
    }
}

/// Who is in the session, ourselves included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Population {
    pub(crate) members: u32,
    pub(crate) senders: u32,
}

/// What is to be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Nothing,
    Report,
    Bye,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    No,
    /// The group is large: what is sent is spread (6.3.7). So many others leave, too.
    Waiting(u32),
    Now,
    Gone,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Schedule {
    rules: Rules,
    random: Random,
    /// When the last report was sent, `tp` in 6.3.
    previous: Instant,
    /// When the next one is looked at, `tn` in 6.3.
    next: Instant,
    /// Members when `next` was set, `pmembers` in 6.3.
    members: u32,
    /// Average size of compounds sent and received.
    average_bytes: u64,
    /// No report was sent yet.
    initial: bool,
    sent_any: bool,
    /// When feedback may be sent again; and when what is wanted is.
    feedback_free: Instant,
    feedback_at: Instant,
    leaving: Leaving,
}

impl Schedule {
    pub(crate) fn new(now: Instant, rules: Rules, first_bytes: u64, seed: u64) -> Self {
        let mut schedule = Schedule {
            rules,
            random: Random::new(seed),
            previous: now,
            next: now,
            members: 1,
            average_bytes: first_bytes + LOWER_LAYER_BYTES,
            initial: true,
            sent_any: false,
            feedback_free: now,
            feedback_at: Instant::FAR_FUTURE,
            leaving: Leaving::No,
        };
        let alone = Population {
            members: 1,
            senders: 0,
        };
        schedule.next = now + schedule.report_interval(alone);
        schedule
    }

    /// When [`Schedule::poll`] has something to look at, or feedback may go.
    pub(crate) fn due(&self) -> Instant {
        match self.leaving {
            Leaving::No => self.next.min(self.feedback_at),
            Leaving::Waiting(_) => self.next,
            Leaving::Now => self.previous,
            Leaving::Gone => Instant::FAR_FUTURE,
        }
    }

    /// 6.3.1: `n · avg / bw`, the interval that the bandwidth allows.
    fn bandwidth_interval(&self, who: Population) -> Duration {
        let (members, senders) = (u64::from(who.members.max(1)), u64::from(who.senders));
        let (mut share, mut n) = (self.rules.bytes_per_s, members);
        let quarter = u64::from(self.rules.senders_share);
        if senders << 16 <= members * quarter {
            // We never send: ours is what the receivers share.
            share = ((share * (65_536 - quarter.min(65_535))) >> 16).max(1);
            n = members - senders.min(members - 1);
        }
        let nanos = n
            .saturating_mul(self.average_bytes)
            .saturating_mul(1_000_000_000)
            / share;
        Duration::from_nanos(nanos).min(MAX_INTERVAL)
    }

    /// 6.3.1: the randomised interval T.
    fn interval(&mut self, who: Population) -> Duration {
        let least = match (self.rules.feedback, self.initial) {
            (None, true) => self.rules.least / 2,
            (None, false) => self.rules.least,
            (Some(_), true) => MIN_FEEDBACK_INTERVAL,
            (Some(_), false) => Duration::ZERO,
        };
        // 1.21828 = e − 3/2 makes up for reconsideration.
        let factor = (0.5 + self.random.uniform()) / 1.21828;
        least.max(self.bandwidth_interval(who)).mul_f64(factor)
    }

    /// T, thinned out to `trr-int` where there is feedback (RFC 4585, 3.5.3).
    fn report_interval(&mut self, who: Population) -> Duration {
        let interval = self.interval(who);
        match self.rules.feedback {
            Some(thinned) if !self.initial => {
                interval.max(thinned.mul_f64(0.5 + self.random.uniform()))
            }
            _ => interval,
        }
    }

    /// 6.3.5: who is silent for longer than five of these is no member any more.
    pub(crate) fn timeout_interval(&self, who: Population) -> Duration {
        MIN_INTERVAL.max(self.bandwidth_interval(who))
    }

    /// A compound of `bytes` came.
    pub(crate) const fn count(&mut self, bytes: usize) {
        // 6.3.3: avg = size / 16 + 15 · avg / 16.
        self.average_bytes = (bytes as u64 + LOWER_LAYER_BYTES + 15 * self.average_bytes) / 16;
    }

    /// Somebody left, `who` are still here: 6.3.4, "reverse reconsideration", or while we wait
    /// to leave ourselves, one more who does.
    pub(crate) fn member_left(&mut self, now: Instant, who: Population) {
        if let Leaving::Waiting(others) = &mut self.leaving {
            *others += 1;
            return;
        }
        if who.members >= self.members || self.members == 0 {
            return;
        }
        let ratio = f64::from(who.members) / f64::from(self.members);
        self.next = now + self.next.saturating_since(now).mul_f64(ratio);
        self.previous = now.saturating_sub(now.saturating_since(self.previous).mul_f64(ratio));
        self.members = who.members;
    }

    /// There is something to tell the sender before the next report: when it may be told.
    pub(crate) fn want_feedback(&mut self, now: Instant, who: Population) {
        if self.feedback_at != Instant::FAR_FUTURE || self.rules.feedback.is_none() {
            return;
        }
        // RFC 4585, 3.5.2: T_dither_max is 0 for two, half an interval in a group.
        let mut at = now;
        if who.members > 2 {
            let dither = self.bandwidth_interval(who) / 2;
            at = now + dither.mul_f64(self.random.uniform());
        }
        self.feedback_at = at.max(self.feedback_free);
    }

    /// Whether feedback that was wanted may be sent.
    pub(crate) fn may_send_feedback(&self, now: Instant) -> bool {
        self.leaving == Leaving::No && now >= self.feedback_at
    }

    /// Whether something is wanted and was not sent yet.
    pub(crate) fn is_feedback_wanted(&self) -> bool {
        self.feedback_at != Instant::FAR_FUTURE
    }

    /// There is nothing to tell after all.
    pub(crate) const fn drop_feedback(&mut self) {
        self.feedback_at = Instant::FAR_FUTURE;
    }

    /// Feedback was sent, in a compound of `bytes`: early feedback again when two intervals of
    /// the bandwidth have passed (RFC 4585, 3.5.2, which moves the next report instead).
    pub(crate) fn sent_feedback(&mut self, now: Instant, bytes: usize, who: Population) {
        self.count(bytes);
        self.sent_any = true;
        self.feedback_at = Instant::FAR_FUTURE;
        self.feedback_free = now + 2 * self.bandwidth_interval(who);
        self.next = self
            .next
            .max(self.previous + 2 * self.bandwidth_interval(who));
    }

    /// Whether the report, or the BYE, that was scheduled is to be sent at `now`. What is sent
    /// is told by [`Schedule::sent_report`].
    pub(crate) fn poll(&mut self, now: Instant, who: Population) -> Due {
        let who = match self.leaving {
            Leaving::No => who,
            Leaving::Now => return Due::Bye,
            Leaving::Gone => return Due::Nothing,
            // 6.3.7: only those who leave count.
            Leaving::Waiting(others) => Population {
                members: 1 + others,
                senders: 0,
            },
        };
        if now < self.next {
            return Due::Nothing;
        }
        // 6.3.6, "reconsideration": the interval is drawn anew before it is acted upon.
        let reconsidered = self.previous + self.report_interval(who);
        self.members = who.members;
        if reconsidered > now {
            self.next = reconsidered;
            return Due::Nothing;
        }
        if self.leaving == Leaving::No {
            Due::Report
        } else {
            Due::Bye
        }
    }

    /// The report that was due is sent, or could not be.
    pub(crate) fn sent_report(&mut self, now: Instant, bytes: usize, who: Population) {
        if bytes > 0 {
            self.count(bytes);
            self.sent_any = true;
            self.initial = false;
        }
        self.previous = now;
        self.next = now + self.report_interval(who);
        self.members = who.members;
    }

    /// We leave: a BYE of `bytes` follows, unless nothing was ever sent (6.3.7).
    pub(crate) fn leave(&mut self, now: Instant, bytes: u64, who: Population) {
        if self.leaving != Leaving::No {
            return;
        }
        if !self.sent_any {
            self.leaving = Leaving::Gone;
        } else if who.members < SMALL_GROUP {
            self.leaving = Leaving::Now;
        } else {
            self.previous = now;
            self.members = 1;
            self.initial = true;
            self.average_bytes = bytes + LOWER_LAYER_BYTES;
            self.leaving = Leaving::Waiting(0);
            let alone = Population {
                members: 1,
                senders: 0,
            };
            self.next = now + self.report_interval(alone);
        }
    }

    /// The BYE is sent.
    pub(crate) const fn left(&mut self) {
        self.leaving = Leaving::Gone;
    }

    /// Whether a BYE is still to be sent.
    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(self.leaving, Leaving::Now | Leaving::Waiting(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Population = Population {
        members: 2,
        senders: 1,
    };

    fn run(schedule: &mut Schedule, who: Population, reports: u32) -> Vec<Instant> {
        let mut sent = Vec::new();
        while sent.len() < reports as usize {
            let now = schedule.due();
            if schedule.poll(now, who) == Due::Report {
                schedule.sent_report(now, 72, who);
                sent.push(now);
            }
        }
        sent
    }

    #[test]
    fn reports_of_a_small_session_are_five_seconds_apart_on_average() {
        let rules = Rules::for_bandwidth(1_000_000);
        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        let sent = run(&mut schedule, PAIR, 400);
        let mut last = Instant::ZERO;
        for (i, at) in sent.iter().enumerate() {
            let least = if i == 0 { 1.25 } else { 2.5 };
            let spacing = at.saturating_since(last).as_secs_f64() * 1.21828;
            assert!(spacing >= least && spacing <= least * 3.01, "{spacing}");
            last = *at;
        }
        let mean = last.as_micros() as f64 / 400e6;
        assert!((4.6..5.4).contains(&mean), "{mean}");
    }

    #[test]
    fn a_large_group_shares_the_bandwidth() {
        let rules = Rules::for_bandwidth(64_000);
        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        let who = Population {
            members: 1000,
            senders: 1,
        };
        let sent = run(&mut schedule, who, 100);
        // 999 receivers, 100 bytes each, of 300 bytes a second.
        let mean = sent[99].saturating_since(sent[0]).as_secs_f64() / 99.0;
        assert!((300.0..370.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_group_that_shrinks_is_reported_to_sooner() {
        let rules = Rules::for_bandwidth(64_000);
        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        let crowd = Population {
            members: 1000,
            senders: 1,
        };
        let sent = run(&mut schedule, crowd, 3);
        let (now, before) = (*sent.last().unwrap(), schedule.due());
        let few = Population {
            members: 100,
            senders: 1,
        };
        schedule.member_left(now, few);
        let (was, is) = (
            before.saturating_since(now).as_secs_f64(),
            schedule.due().saturating_since(now).as_secs_f64(),
        );
        assert!((is - was / 10.0).abs() < 1e-6);
    }

    #[test]
    fn who_never_spoke_leaves_in_silence_and_who_did_says_so() {
        let rules = Rules::for_bandwidth(1_000_000);
        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        schedule.leave(Instant::ZERO, 60, PAIR);
        assert_eq!(schedule.poll(Instant::from_millis(1), PAIR), Due::Nothing);
        assert_eq!(schedule.due(), Instant::FAR_FUTURE);

        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        let now = run(&mut schedule, PAIR, 1)[0];
        schedule.leave(now, 60, PAIR);
        assert!(schedule.due() <= now);
        assert_eq!(schedule.poll(now, PAIR), Due::Bye);
        schedule.left();
        assert_eq!(schedule.poll(now, PAIR), Due::Nothing);
    }

    #[test]
    fn leaving_a_crowd_is_spread_over_those_who_leave() {
        let rules = Rules::for_bandwidth(64_000);
        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        let crowd = Population {
            members: 1000,
            senders: 1,
        };
        let now = *run(&mut schedule, crowd, 1).last().unwrap();
        schedule.leave(now, 60, crowd);
        assert_eq!(schedule.poll(now, crowd), Due::Nothing);
        for _ in 0..500 {
            schedule.member_left(now, crowd);
        }
        let mut at = now;
        while schedule.poll(at, crowd) != Due::Bye {
            at = schedule.due();
        }
        let waited = at.saturating_since(now).as_secs_f64();
        // 501 BYEs of 88 bytes in 300 bytes a second: some 147 s, randomised.
        assert!((60.0..190.0).contains(&waited), "{waited}");
    }

    #[test]
    fn feedback_between_two_goes_at_once_and_then_as_the_bandwidth_allows() {
        let rules = Rules {
            feedback: Some(Duration::from_secs(1)),
            ..Rules::for_bandwidth(80_000)
        };
        let mut schedule = Schedule::new(Instant::ZERO, rules, 72, 3);
        let now = run(&mut schedule, PAIR, 1)[0];
        schedule.want_feedback(now, PAIR);
        assert!(schedule.may_send_feedback(now));
        schedule.sent_feedback(now, 72, PAIR);
        assert!(!schedule.may_send_feedback(now));
        schedule.want_feedback(now, PAIR);
        // Twice 2 · 100 bytes of 500 bytes a second.
        assert!(!schedule.may_send_feedback(now + Duration::from_millis(799)));
        assert!(schedule.may_send_feedback(now + Duration::from_millis(801)));
        // Regular reports are thinned out to one a second, more or less.
        schedule.drop_feedback();
        let sent = run(&mut schedule, PAIR, 101);
        let mean = sent[100].saturating_since(sent[0]).as_secs_f64() / 100.0;
        assert!((0.9..1.4).contains(&mean), "{mean}");
    }
}
