//! Sources that are not taken (yet): on probation (RFC 3550, A.1), or waiting for the present
//! one to fall silent: a sender that restarted with a new SSRC, or on two paths with a new
//! numbering. Their packets are kept within bounds, so that nothing is lost when one takes over.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::Instant;

use super::Origin;
use crate::Header;

/// Sources that are looked at, at the same time.
const MAX_CANDIDATES: usize = 16;
/// Packets kept of a source on probation.
const MAX_UNPROVEN: usize = 4;
/// Packets kept of a source that waits: 100 ms of 50 Mb/s.
pub(super) const MAX_WAITING: usize = 512;
/// A source that is silent for so long does not wait any more.
const FORGET_AFTER: Duration = Duration::from_secs(2);
/// A.1: a greater step is a jump.
const MAX_STEP: u16 = 3000;

/// A packet that may yet be used.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) handled: Instant,
    pub(super) arrival: Instant,
    pub(super) leg: u8,
    pub(super) from: SocketAddr,
    pub(super) datagram: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) ssrc: u32,
    /// The last number on each path.
    last: [Option<u16>; 2],
    /// Two packets came in sequence.
    pub(super) is_proven: bool,
    heard: Instant,
    /// Bit i: it came on path i since the present source did.
    pub(super) legs: u8,
    /// Packets that came since the present source was heard.
    pub(super) undisturbed: usize,
    kept: Vec<Kept>,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
}

impl Candidates {
    /// Whether there are none: nearly always.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The present source was heard on `leg`.
    pub(super) fn present_was_heard(&mut self, leg: u8) {
        for candidate in &mut self.list {
            candidate.legs &= !(1 << (leg & 1));
            candidate.undisturbed = 0;
        }
    }

    pub(super) fn get(&self, ssrc: u32) -> Option<&Candidate> {
        self.list.iter().find(|c| c.ssrc == ssrc)
    }

    /// Keeps a packet. Returns how many older ones are dropped for good.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        origin: &Origin,
        datagram: &[u8],
    ) -> u64 {
        let mut dropped = self.expire(now);
        let at = match self.list.iter().position(|c| c.ssrc == header.ssrc) {
            Some(at) => at,
            None => {
                dropped += self.make_room();
                self.list.push(Candidate {
                    ssrc: header.ssrc,
                    last: [None; 2],
                    is_proven: false,
                    heard: now,
                    legs: 0,
                    undisturbed: 0,
                    kept: Vec::new(),
                });
                self.list.len() - 1
            }
        };
        let all: usize = self.list.iter().map(|c| c.kept.len()).sum();
        let Some(candidate) = self.list.get_mut(at) else {
            return dropped;
        };
        dropped += candidate.follow(origin.leg, header.sequence);
        candidate.heard = now;
        candidate.legs |= 1 << (origin.leg & 1);
        candidate.undisturbed += 1;
        candidate.kept.push(Kept {
            handled: now,
            arrival,
            leg: origin.leg,
            from: origin.from,
            datagram: datagram.into(),
        });
        // One may wait with much; the others share what is left.
        let others = all.saturating_sub(candidate.kept.len());
        let most = match candidate.is_proven {
            true if others <= MAX_CANDIDATES * MAX_UNPROVEN => MAX_WAITING,
            _ => MAX_UNPROVEN,
        };
        let excess = candidate.kept.len().saturating_sub(most);
        candidate.kept.drain(..excess);
        dropped + excess as u64
    }

    /// The packets of `ssrc`, which is taken.
    pub(super) fn take(&mut self, ssrc: u32) -> Vec<Kept> {
        match self.list.iter().position(|c| c.ssrc == ssrc) {
            Some(at) => self.list.swap_remove(at).kept,
            None => Vec::new(),
        }
    }

    /// Forgets who is silent.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut dropped = 0;
        self.list.retain(|c| {
            let stays = now.saturating_since(c.heard) < FORGET_AFTER;
            dropped += if stays { 0 } else { c.kept.len() as u64 };
            stays
        });
        dropped
    }

    /// When [`Candidates::expire`] has something to forget.
    pub(super) fn due(&self) -> Instant {
        let heard = self.list.iter().map(|c| c.heard).min();
        heard.map_or(Instant::FAR_FUTURE, |at| at + FORGET_AFTER)
    }

    /// Forgets the one that was silent longest, of those on probation if there are any.
    fn make_room(&mut self) -> u64 {
        if self.list.len() < MAX_CANDIDATES {
            return 0;
        }
        let places = self.list.iter().enumerate();
        let oldest = places.min_by_key(|(_, c)| (c.is_proven, c.heard));
        let Some((at, _)) = oldest else { return 0 };
        self.list.swap_remove(at).kept.len() as u64
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.list.iter().map(|c| c.kept.len()).sum()
    }
}

impl Candidate {
    /// A.1: the next number in sequence proves it; one from elsewhere begins anew. Returns how
    /// many packets are dropped.
    fn follow(&mut self, leg: u8, sequence: u16) -> u64 {
        let [first, second] = &mut self.last;
        let last = if leg == 0 { first } else { second };
        let Some(before) = last.replace(sequence) else {
            return 0;
        };
        let step = sequence.wrapping_sub(before);
        if step == 1 {
            self.is_proven = true;
        } else if step >= MAX_STEP && step.wrapping_neg() >= MAX_STEP {
            self.is_proven = false;
            self.last = [None; 2];
            return self.kept.drain(..).len() as u64;
        } else if step >= MAX_STEP && self.is_proven {
            // Reordered.
            *last = Some(before);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(c: &mut Candidates, now: Instant, leg: u8, ssrc: u32, sequence: u16) -> u64 {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&ssrc.to_be_bytes());
        let header = Header::parse(&packet).unwrap();
        let origin = Origin {
            leg,
            role: super::super::Role::Media,
            from: "192.0.2.1:5000".parse().unwrap(),
        };
        c.offer(now, now, &header, &origin, &packet)
    }

    #[test]
    fn two_interleaved_paths_prove_a_source_as_one_does() {
        let mut c = Candidates::default();
        for i in 0..2 {
            offer(&mut c, Instant::ZERO, 0, 1, 100 + i);
            offer(&mut c, Instant::ZERO, 1, 1, 95 + i);
        }
        let candidate = c.get(1).unwrap();
        assert!(candidate.is_proven && candidate.legs == 3);
        assert_eq!(c.take(1).len(), 4);
        assert!(c.is_empty());
    }

    #[test]
    fn ten_thousand_sources_a_second_take_bounded_room_and_hide_no_real_one() {
        let mut c = Candidates::default();
        let (mut dropped, mut offered) = (0, 0);
        for i in 0..20_000u32 {
            let now = Instant::from_micros(u64::from(i) * 100);
            dropped += offer(&mut c, now, 0, 1000 + i, i as u16);
            offered += 1;
            if i % 5 == 0 {
                dropped += offer(&mut c, now, 0, 7, (i / 5) as u16);
                offered += 1;
            }
            assert!(c.list.len() <= MAX_CANDIDATES);
            assert!(c.kept() <= MAX_WAITING + MAX_CANDIDATES * MAX_UNPROVEN);
        }
        assert!(c.get(7).unwrap().is_proven);
        assert_eq!(dropped + c.kept() as u64, offered);
    }

    #[test]
    fn who_waits_in_vain_is_forgotten() {
        let mut c = Candidates::default();
        offer(&mut c, Instant::ZERO, 0, 7, 1);
        offer(&mut c, Instant::ZERO, 0, 7, 2);
        assert_eq!(c.expire(Instant::from_millis(1_999)), 0);
        assert_eq!(c.expire(Instant::from_millis(2_000)), 2);
        assert!(c.is_empty());
    }

    #[test]
    fn several_proven_sources_share_the_room_of_one() {
        let mut c = Candidates::default();
        for i in 0..2000u16 {
            for ssrc in 0..20 {
                offer(&mut c, Instant::ZERO, 0, ssrc, i);
            }
        }
        assert!(c.kept() <= MAX_WAITING + MAX_CANDIDATES * MAX_UNPROVEN);
    }
}
