//! Who takes part in an RTP session (RFC 3550, 6.2.1): every SSRC that was heard, with the
//! timeouts of 6.3.5. Bounded: a crowd beyond it counts as that many.

use core::time::Duration;

use mirror_base::Instant;

use crate::schedule::Population;

/// Members that are told apart.
const MAX_MEMBERS: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Member {
    ssrc: u32,
    heard: Instant,
    /// When it sent RTP last.
    sent: Option<Instant>,
}

/// See the module's page. Ourselves are not in it, but counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    /// By SSRC.
    list: Vec<Member>,
}

impl Members {
    /// `ssrc` was heard, in RTCP or as a contributor.
    pub(crate) fn heard(&mut self, now: Instant, ssrc: u32) {
        self.note(now, ssrc, None);
    }

    /// `ssrc` sent RTP at `at`.
    pub(crate) fn sent(&mut self, at: Instant, ssrc: u32) {
        self.note(at, ssrc, Some(at));
    }

    fn note(&mut self, now: Instant, ssrc: u32, sent: Option<Instant>) {
        match self.list.binary_search_by_key(&ssrc, |m| m.ssrc) {
            Ok(at) => {
                if let Some(member) = self.list.get_mut(at) {
                    member.heard = member.heard.max(now);
                    member.sent = sent.or(member.sent);
                }
            }
            Err(at) if self.list.len() < MAX_MEMBERS => self.list.insert(
                at,
                Member {
                    ssrc,
                    heard: now,
                    sent,
                },
            ),
            Err(_) => {}
        }
    }

    /// `ssrc` left. `false`: it was no member.
    pub(crate) fn left(&mut self, ssrc: u32) -> bool {
        match self.list.binary_search_by_key(&ssrc, |m| m.ssrc) {
            Ok(at) => {
                self.list.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// 6.3.5: forgets who was silent for five `interval`s, and takes who sent no RTP for two
    /// of them as a receiver.
    pub(crate) fn expire(&mut self, now: Instant, interval: Duration) {
        self.list
            .retain(|m| now.saturating_since(m.heard) <= 5 * interval);
        for member in &mut self.list {
            let silent = |at: Instant| now.saturating_since(at) > 2 * interval;
            member.sent = member.sent.filter(|at| !silent(*at));
        }
    }

    /// How many there are, with us.
    pub(crate) fn population(&self) -> Population {
        let senders = self.list.iter().filter(|m| m.sent.is_some()).count();
        Population {
            members: self.list.len() as u32 + 1,
            senders: senders as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(members: &Members) -> (u32, u32) {
        let who = members.population();
        (who.members, who.senders)
    }

    #[test]
    fn members_and_senders_time_out_as_rfc_3550_says() {
        let mut members = Members::default();
        let at = Instant::from_millis;
        members.sent(at(0), 1);
        members.heard(at(0), 2);
        assert_eq!(counts(&members), (3, 1));
        let interval = Duration::from_secs(5);
        members.expire(at(10_000), interval);
        assert_eq!(counts(&members), (3, 1));
        members.expire(at(10_001), interval);
        assert_eq!(counts(&members), (3, 0));
        members.heard(at(20_000), 1);
        members.expire(at(25_001), interval);
        assert_eq!(counts(&members), (2, 0));
        assert!(members.left(1) && !members.left(2));
        assert_eq!(counts(&members), (1, 0));
    }

    #[test]
    fn a_crowd_takes_bounded_room() {
        let mut members = Members::default();
        for i in 0..100_000u32 {
            members.heard(Instant::ZERO, i.wrapping_mul(2_654_435_761));
        }
        assert_eq!(members.list.len(), MAX_MEMBERS);
        assert!(members.list.is_sorted_by_key(|m| m.ssrc));
    }
}
