//! Our part in a configured session's RTCP: our SSRC, who else is there, where to send, and the
//! compounds: reports with CNAME, NACK, PLI, FIR, BYE (RFC 3550, 6 and 8.2; RFC 4585; RFC 5104;
//! RFC 5506).

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::Instant;

use super::{Feedback, RtcpConfig, Transmit};
use crate::members::Members;
use crate::nack::NackTracker;
use crate::rtcp::ReportBlock;
use crate::rtcp::feedback::{NackPair, write_fir, write_nack, write_pli};
use crate::rtcp::write::{write_bye, write_reference_time, write_report};
use crate::schedule::{Due, Population, Random, Rules, Schedule};

/// Requests for a key frame are this far apart at least.
const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(500);
/// What asks again within this is a repetition, for which a FIR keeps its number.
const KEY_FRAME_REPEAT: Duration = Duration::from_millis(900);
/// Regular reports of a session with feedback, where it does not say.
const DEFAULT_TRR: Duration = Duration::from_secs(1);
/// Addresses that our SSRC came from, and how long they are remembered (8.2: ten intervals).
const MAX_CONFLICTS: usize = 4;
const CONFLICT_TIME: Duration = Duration::from_secs(50);

/// What our SSRC is to whoever just used it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnSsrc {
    /// Somebody chose the same: we have another now.
    Collision,
    /// It came from where it came from before: our own packets come back.
    Loop,
}

/// Requests for a key frame.
#[derive(Clone, Copy, Debug, Default)]
struct KeyFrames {
    is_wanted: bool,
    /// When one was asked for last, and with the present number for the first time.
    asked: Option<Instant>,
    begun: Option<Instant>,
    number: u8,
}

/// What was put into compounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) compounds: u64,
    pub(super) nacks: u64,
    pub(super) packets_nacked: u64,
    pub(super) plis: u64,
    pub(super) firs: u64,
    pub(super) collisions: u64,
    pub(super) loops: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Control {
    config: RtcpConfig,
    feedback: Feedback,
    ssrc: u32,
    random: Random,
    pub(super) schedule: Schedule,
    pub(super) members: Members,
    pub(super) nack: Option<NackTracker>,
    pub(super) sent: Sent,
    /// Where RTCP of our source comes from on each path.
    learned: [Option<SocketAddr>; 2],
    conflicts: Vec<(SocketAddr, Instant)>,
    /// The SSRC that we gave up, and whose BYE is due.
    given_up: Option<u32>,
    key_frames: KeyFrames,
    pairs: Vec<NackPair>,
    compound: Vec<u8>,
    /// Paths that `compound` is still to be sent on.
    paths: u8,
}

impl Control {
    /// `None`: the session lets receivers say nothing.
    pub(super) fn new(
        now: Instant,
        config: &RtcpConfig,
        feedback: Feedback,
        hold: Duration,
        seed: u64,
    ) -> Option<Self> {
        let mut rules = Rules::for_bandwidth(config.bandwidth_bps);
        if !config.multicast {
            rules = rules.reduced(config.bandwidth_bps);
        }
        if let Some((senders, receivers)) = config.shares_bps {
            if receivers == 0 {
                return None;
            }
            let all = senders.saturating_add(receivers);
            rules.bytes_per_s = (all / 8).max(1);
            rules.senders_share = (u128::from(senders) * 65_536 / u128::from(all)) as u32;
        }
        if feedback.is_any() {
            let trr = feedback.trr_int;
            rules.feedback = Some(if trr.is_zero() { DEFAULT_TRR } else { trr });
        }
        let mut random = Random::new(seed);
        let ssrc = random.next() as u32;
        // RR with one block, SDES with CNAME.
        let first_bytes = 44 + config.cname.len().min(255) as u64;
        Some(Control {
            schedule: Schedule::new(now, rules, first_bytes, random.next()),
            config: config.clone(),
            feedback,
            ssrc,
            random,
            members: Members::default(),
            nack: feedback.nack.then(|| NackTracker::new(hold)),
            sent: Sent::default(),
            learned: [None; 2],
            conflicts: Vec::new(),
            given_up: None,
            key_frames: KeyFrames::default(),
            pairs: Vec::new(),
            compound: Vec::new(),
            paths: 0,
        })
    }

    pub(super) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// 8.2: our SSRC came from `from`. Ours changes, unless it is a loop.
    pub(super) fn own_ssrc_from(&mut self, now: Instant, from: SocketAddr) -> OwnSsrc {
        self.conflicts
            .retain(|(_, at)| now.saturating_since(*at) < CONFLICT_TIME);
        if let Some(known) = self.conflicts.iter_mut().find(|(a, _)| *a == from) {
            known.1 = now;
            self.sent.loops += 1;
            return OwnSsrc::Loop;
        }
        if self.conflicts.len() >= MAX_CONFLICTS {
            self.conflicts.remove(0);
        }
        self.conflicts.push((from, now));
        self.sent.collisions += 1;
        self.given_up = self.given_up.or(Some(self.ssrc));
        self.ssrc = self.random.next() as u32;
        OwnSsrc::Collision
    }

    /// RTCP of our source came from `from` on `leg`, whose RTP comes from `rtp`.
    pub(super) fn learn_address(&mut self, leg: u8, from: SocketAddr, rtp: Option<SocketAddr>) {
        // Who can guess an SSRC shall not point our reports anywhere.
        if rtp.is_none_or(|rtp| rtp.ip() == from.ip()) {
            let [first, second] = &mut self.learned;
            *(if leg == 0 { first } else { second }) = Some(from);
        }
    }

    /// Where to send on `leg`.
    fn address(&self, leg: u8, rtp: Option<SocketAddr>) -> Option<SocketAddr> {
        if leg == 0 && self.config.destination.is_some() {
            return self.config.destination;
        }
        let [first, second] = self.learned;
        let guess = rtp.and_then(|mut rtp| {
            if !self.config.mux {
                rtp.set_port(rtp.port().checked_add(1)?);
            }
            Some(rtp)
        });
        (if leg == 0 { first } else { second }).or(guess)
    }

    /// A key frame is missing.
    pub(super) fn want_key_frame(&mut self, now: Instant) -> bool {
        if !self.feedback.pli && !self.feedback.fir {
            return false;
        }
        let asked = self.key_frames.asked;
        if asked.is_none_or(|at| now.saturating_since(at) >= KEY_FRAME_INTERVAL) {
            self.key_frames.is_wanted = true;
        }
        true
    }

    /// Another source is taken: requests were for the last one.
    pub(super) fn source_changed(&mut self) {
        self.key_frames = KeyFrames {
            number: self.key_frames.number,
            ..KeyFrames::default()
        };
        if let Some(nack) = &mut self.nack {
            nack.clear();
        }
    }

    fn nack_due(&self) -> Instant {
        self.nack
            .as_ref()
            .map_or(Instant::FAR_FUTURE, NackTracker::due)
    }

    /// When there may be something to send.
    pub(super) fn due(&self) -> Instant {
        if self.paths != 0 || self.given_up.is_some() {
            return Instant::ZERO;
        }
        let scheduled = self.schedule.due();
        if self.schedule.is_feedback_wanted() {
            return scheduled;
        }
        if self.key_frames.is_wanted {
            return Instant::ZERO;
        }
        scheduled.min(self.nack_due())
    }

    /// Writes what is due at `now` into `out`. `rtp`: where the source's RTP comes from, on
    /// each path that it comes on.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        rtp: [Option<SocketAddr>; 2],
        content: impl FnOnce(&mut [ReportBlock; 2]) -> (Option<u32>, usize, u64),
        out: &mut [u8],
    ) -> Option<Transmit> {
        if self.paths == 0 {
            self.compose(now, rtp, content);
        }
        let leg = self.paths.trailing_zeros() as u8;
        if leg > 1 {
            return None;
        }
        self.paths &= !(1 << leg);
        let [first, second] = rtp;
        let to = self.address(leg, if leg == 0 { first } else { second })?;
        let length = self.compound.len();
        out.get_mut(..length)?.copy_from_slice(&self.compound);
        self.sent.compounds += 1;
        Some(Transmit { leg, to, length })
    }

    /// Paths to send on: each to an address of its own.
    fn reachable(&self, rtp: [Option<SocketAddr>; 2]) -> u8 {
        let [first, second] = rtp;
        let (first, second) = (self.address(0, first), self.address(1, second));
        u8::from(first.is_some()) | u8::from(second.is_some() && second != first) << 1
    }

    fn compose(
        &mut self,
        now: Instant,
        rtp: [Option<SocketAddr>; 2],
        content: impl FnOnce(&mut [ReportBlock; 2]) -> (Option<u32>, usize, u64),
    ) {
        let who = self.members.population();
        let paths = self.reachable(rtp);
        if let Some(old) = self.given_up.take()
            && paths != 0
        {
            self.compound.clear();
            write_report(old, &[], self.config.cname.as_bytes(), &mut self.compound);
            write_bye(old, &mut self.compound);
            self.paths = paths;
            return;
        }
        if self.key_frames.is_wanted || self.nack_due() <= now {
            self.schedule.want_feedback(now, who);
        }
        let due = self.schedule.poll(now, who);
        let early = due == Due::Nothing && self.schedule.may_send_feedback(now);
        if due == Due::Nothing && !early {
            return;
        }
        if paths == 0 {
            self.unreachable(now, due, who);
            return;
        }
        let mut blocks = [ReportBlock::default(); 2];
        let (source, count, next) = content(&mut blocks);
        let blocks = blocks.get(..count).unwrap_or_default();
        self.compound.clear();
        if !(early && self.feedback.reduced_size) {
            let cname = self.config.cname.as_bytes();
            write_report(self.ssrc, blocks, cname, &mut self.compound);
        }
        if self.config.receiver_rtt && !early {
            let ntp = reference_time(now);
            write_reference_time(self.ssrc, ntp, &mut self.compound);
        }
        let without = self.compound.len();
        if let Some(source) = source
            && due != Due::Bye
        {
            self.write_feedback(now, source, next);
        }
        if due == Due::Bye {
            write_bye(self.ssrc, &mut self.compound);
            self.schedule.left();
        }
        if early && self.compound.len() == without {
            // What was wanted has come meanwhile.
            self.schedule.drop_feedback();
            return;
        }
        self.paths = paths;
        let bytes = self.compound.len();
        match due {
            Due::Nothing => self.schedule.sent_feedback(now, bytes, who),
            Due::Report => self.sent_report(now, bytes, who),
            Due::Bye => {}
        }
    }

    fn sent_report(&mut self, now: Instant, bytes: usize, who: Population) {
        // 6.3.5
        let interval = self.schedule.timeout_interval(who);
        self.members.expire(now, interval);
        self.schedule
            .sent_report(now, bytes, self.members.population());
        self.schedule.drop_feedback();
    }

    /// Nobody is there to tell.
    fn unreachable(&mut self, now: Instant, due: Due, who: Population) {
        self.schedule.drop_feedback();
        match due {
            Due::Report => self.schedule.sent_report(now, 0, who),
            Due::Bye => self.schedule.left(),
            Due::Nothing => {}
        }
        self.key_frames.is_wanted = false;
        if let Some(nack) = &mut self.nack {
            nack.clear();
        }
    }

    fn write_feedback(&mut self, now: Instant, source: u32, next: u64) {
        if let Some(nack) = &mut self.nack {
            self.pairs.clear();
            let asked = nack.collect(now, next, &mut self.pairs);
            if !self.pairs.is_empty() {
                write_nack(self.ssrc, source, &self.pairs, &mut self.compound);
                self.sent.nacks += 1;
                self.sent.packets_nacked += asked;
            }
        }
        if core::mem::take(&mut self.key_frames.is_wanted) {
            self.write_key_frame_request(now, source);
        }
    }

    fn write_key_frame_request(&mut self, now: Instant, source: u32) {
        let requests = &mut self.key_frames;
        requests.asked = Some(now);
        if self.feedback.pli {
            write_pli(self.ssrc, source, &mut self.compound);
            self.sent.plis += 1;
            return;
        }
        // RFC 5104, 4.3.1.1: a repetition keeps its number.
        let is_new = requests
            .begun
            .is_none_or(|at| now.saturating_since(at) >= KEY_FRAME_REPEAT);
        if is_new {
            requests.begun = Some(now);
            requests.number = requests.number.wrapping_add(1);
        }
        write_fir(self.ssrc, source, requests.number, &mut self.compound);
        self.sent.firs += 1;
    }

    /// We leave.
    pub(super) fn leave(&mut self, now: Instant) {
        // RR, SDES, BYE.
        let bytes = 8 + 16 + self.config.cname.len() as u64 + 8;
        let who = self.members.population();
        self.schedule.leave(now, bytes, who);
        self.key_frames.is_wanted = false;
        if let Some(nack) = &mut self.nack {
            nack.clear();
        }
    }

    /// Whether nothing is left to send after [`Control::leave`].
    pub(super) const fn has_left(&self) -> bool {
        self.paths == 0 && !self.schedule.is_leaving()
    }

    /// The answer to our reference time (RFC 3611, 4.5) came at `arrival`.
    pub(super) fn reference_time_answered(&mut self, arrival: Instant, last: u32, delay: u32) {
        let now = (reference_time(arrival) >> 16) as u32;
        let spent = crate::rtcp::round_trip(now, last, delay);
        if let (Some(spent), Some(nack)) = (spent, &mut self.nack) {
            nack.learn_rtt(Duration::from_nanos(
                (u64::from(spent) * 1_000_000_000) >> 16,
            ));
        }
    }
}

/// Our clock as an NTP time: of an epoch that nobody needs to know.
fn reference_time(now: Instant) -> u64 {
    let nanos = u128::from(now.as_nanos());
    ((nanos << 32) / 1_000_000_000) as u64
}
