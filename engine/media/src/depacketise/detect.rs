//! What an RTP payload is, by its bits: MPEG-TS by its sync bytes, H.264 and HEVC by the
//! plausibility of their payload headers over several packets, audio by lengths that add up or
//! by timestamps that go on with the samples, and so on ([`super::fits`]). A hint (payload type,
//! SDP) is where the detector starts; the bits overrule it.
//!
//! The two NAL unit headers hardly overlap: what is a fit first byte pair for one is a
//! reserved or misused type for the other.

use mirror_base::Discard;

use super::PayloadFormat as Kind;
use super::fits::{Before, Look, Vote, competes, fits, may_be};
use Vote::{No as NO, Proof as PROOF, Slight as SLIGHT, Strong as STRONG};

/// Votes that make a kind certain, if most packets gave one.
const CERTAIN: u32 = 3;
/// Contrary votes in a row that overturn a certain kind.
const OVERTURN: u32 = 16;
/// Contrary votes in a row that overturn a hint which the bits cannot confirm.
const OVERTURN_HINT: u32 = 8;
/// Packets without a contrary vote after which only some are looked at: one of so many.
const QUIET: u32 = 64;
const SAMPLED: u32 = 16;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Detector {
    kind: Option<Kind>,
    /// The kind is what the hint says.
    hinted: bool,
    /// The kind is that of the payload type before.
    carried: bool,
    certain: bool,
    seen: u32,
    good: u32,
    contrary: u32,
    /// Packets since the last contrary vote.
    quiet: u32,
    before: Option<Before>,
}

impl Detector {
    pub(crate) const fn new(hint: Option<Kind>) -> Self {
        Detector {
            kind: hint,
            hinted: hint.is_some(),
            carried: false,
            certain: false,
            seen: 0,
            good: 0,
            contrary: 0,
            quiet: 0,
            before: None,
        }
    }

    /// What the payloads are, as far as is known.
    #[inline]
    pub(crate) const fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Whether the bits have confirmed it.
    #[cfg(test)]
    pub(crate) const fn is_certain(&self) -> bool {
        self.certain
    }

    /// Whether units may be handed out: confirmed by the bits, or a hint of a kind that they do
    /// not confirm soon. Video waits for its parameter sets anyway.
    #[inline]
    pub(crate) const fn is_trusted(&self) -> bool {
        let sure_soon = matches!(self.kind, Some(Kind::H264 | Kind::H265));
        self.certain || ((self.hinted || self.carried) && !sure_soon)
    }

    /// Another payload type begins: what was certain of the old one has to show anew.
    pub(crate) fn doubt(&mut self) {
        self.certain = false;
        self.hinted = false;
        self.carried = true;
        self.seen = 0;
        self.good = 0;
        self.contrary = 0;
        self.quiet = 0;
        self.before = None;
    }

    /// Whether a packet of another payload type goes on with what is known, or shows clearly what
    /// it is.
    pub(crate) fn recognises(&self, payload_type: u8, payload: &[u8]) -> bool {
        let look = Look {
            payload_type,
            timestamp: 0,
            payload,
            before: None,
        };
        let goes_on = |kind| fits(kind, &look) > SLIGHT;
        (self.certain && self.kind.is_some_and(goes_on))
            || Kind::ALL.iter().any(|&k| competes(k, &look) >= STRONG)
    }

    /// Looks at one more payload. `true` if the kind is another now.
    #[inline]
    pub(crate) fn observe(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) -> bool {
        if payload.is_empty() {
            return false;
        }
        if self.certain
            && let Some(kind) = self.kind
            && may_be(kind, payload_type, payload)
        {
            self.contrary = 0;
            return false;
        }
        self.observe_closely(payload_type, timestamp, payload)
    }

    #[cold]
    fn observe_closely(&mut self, payload_type: u8, timestamp: u32, payload: &[u8]) -> bool {
        let before = self.before.replace(Before::new(timestamp, payload));
        let look = Look {
            payload_type,
            timestamp,
            payload,
            before,
        };
        self.quiet = self.quiet.saturating_add(1);
        let settled = (self.certain || self.hinted || self.carried) && self.quiet > QUIET;
        if settled && !self.quiet.is_multiple_of(SAMPLED) {
            return false;
        }
        if self.certain && self.kind.is_some_and(|kind| fits(kind, &look) > SLIGHT) {
            self.contrary = 0;
            return false;
        }
        self.weigh(&look)
    }

    fn weigh(&mut self, look: &Look<'_>) -> bool {
        let mut best: Option<(Kind, Vote)> = None;
        let mut tie = false;
        for &kind in Kind::ALL {
            let vote = competes(kind, look);
            let leading = best.map_or(NO, |b| b.1);
            if vote.level() > leading.level() {
                (best, tie) = (Some((kind, vote)), false);
            } else {
                tie |= vote > NO && vote.level() == leading.level();
            }
        }
        let mine = self.kind.map_or(NO, |k| fits(k, look));
        if mine == SLIGHT && best.is_none_or(|b| b.1 < STRONG) {
            if !tie {
                self.contrary = 0;
            }
            return false;
        }
        self.seen = self.seen.saturating_add(1);
        let Some((candidate, vote)) = best.filter(|b| !tie && b.1 > SLIGHT) else {
            if self.kind.is_some_and(says_little) {
                self.contrary = 0;
            }
            return false;
        };
        if self.kind == Some(candidate) {
            self.good = self.good.saturating_add(vote.weight());
            self.contrary = 0;
            self.certain |= vote == PROOF || (self.good >= CERTAIN && self.good * 2 > self.seen);
            return false;
        }
        self.quiet = 0;
        self.contrary += vote.weight();
        if self.contrary <= self.bound(candidate, vote) {
            return false;
        }
        self.follow(candidate, vote);
        true
    }

    /// How many contrary votes in a row the kind withstands.
    fn bound(&self, candidate: Kind, vote: Vote) -> u32 {
        match self.kind {
            None => 0,
            Some(_) if self.certain => OVERTURN,
            Some(kind)
                if self.hinted
                    && says_little(kind)
                    && (vote < STRONG || candidate != Kind::Mp2t) =>
            {
                OVERTURN_HINT
            }
            Some(kind) if self.carried && says_little(kind) && vote < STRONG => OVERTURN_HINT,
            // A hint, or a first guess, that nothing has spoken for.
            Some(_) if self.good == 0 => 0,
            Some(_) => self.good + CERTAIN,
        }
    }

    fn follow(&mut self, candidate: Kind, vote: Vote) {
        // A certain kind was overturned by so many votes; else all packets so far count.
        let seen = if self.certain {
            self.contrary
        } else {
            self.seen
        };
        let good = self.contrary;
        *self = Detector {
            kind: Some(candidate),
            hinted: false,
            carried: false,
            certain: vote == PROOF || (good >= CERTAIN && good * 2 > seen),
            seen,
            good,
            contrary: 0,
            quiet: 0,
            before: self.before,
        };
    }
}

/// Whether few payloads of a kind speak for it.
const fn says_little(kind: Kind) -> bool {
    !matches!(kind, Kind::Mp2t | Kind::H264 | Kind::H265)
}

/// Why a packet of `kind` cannot be used.
pub(crate) const fn refusal(kind: Option<Kind>) -> Discard {
    match kind {
        Some(_) => Discard::UnsupportedPayload,
        None => Discard::UnknownPayloadType,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_hint_is_overruled_by_the_first_parameter_set() {
        let mut d = Detector::new(Some(Kind::H264));
        assert!(d.observe(96, 0, &[0x40, 1, 0x0C, 1]));
        assert_eq!((d.kind(), d.is_certain()), (Some(Kind::H265), true));
        let mut d = Detector::new(Some(Kind::H265));
        assert!(d.observe(97, 0, &[0x67, 0x64, 0, 0x28]));
        assert_eq!((d.kind(), d.is_certain()), (Some(Kind::H264), true));
    }

    #[test]
    fn ts_is_known_by_its_sync_bytes_whatever_the_payload_type() {
        let mut ts = vec![0; 7 * 188];
        ts.iter_mut().step_by(188).for_each(|b| *b = 0x47);
        for hint in [None, Some(Kind::H264), Some(Kind::H265), Some(Kind::Opus)] {
            let mut d = Detector::new(hint);
            for _ in 0..4 {
                d.observe(96, 0, &ts);
            }
            assert_eq!(
                (d.kind(), d.is_certain()),
                (Some(Kind::Mp2t), true),
                "{hint:?}"
            );
        }
        // One TS packet a datagram takes three of them.
        let mut d = Detector::new(None);
        assert!(d.observe(96, 0, &ts[..188]) && !d.is_certain());
        d.observe(96, 0, &ts[..188]);
        d.observe(96, 0, &ts[..188]);
        assert!(d.is_certain());
    }

    #[test]
    fn a_certain_kind_survives_strays_but_not_a_change_of_codec() {
        let mut d = Detector::new(None);
        d.observe(96, 0, &[0x67, 0x64, 0, 0x28]);
        for _ in 0..5 {
            assert!(!d.observe(96, 0, &[0x40, 1, 0x0C, 1]));
            d.observe(96, 0, &[0x41, 0x9A, 1]);
        }
        let changes = (0..20)
            .filter(|_| d.observe(96, 0, &[0x02, 1, 0xD0, 9]))
            .count();
        assert_eq!((changes, d.kind()), (1, Some(Kind::H265)));
    }

    #[test]
    fn opus_is_not_taken_for_parameter_sets() {
        for toc in [0x28, 0x48, 0x68] {
            for hint in [None, Some(Kind::Opus), Some(Kind::H265)] {
                let mut d = Detector::new(hint);
                let before = d.kind();
                for n in 0..200 {
                    assert!(!d.observe(97, 0, &[toc, 0x80 | n, 0x5A, n, 3]));
                }
                assert_eq!((d.kind(), d.is_certain()), (before, false), "{hint:?}");
            }
        }
    }

    #[test]
    fn slices_between_sei_make_a_stream_certain() {
        let mut d = Detector::new(None);
        for _ in 0..3 {
            d.observe(96, 0, &[0x06, 5, 1, 0, 0x80]);
            d.observe(96, 0, &[0x41, 0x9A, 1]);
        }
        assert_eq!((d.kind(), d.is_certain()), (Some(Kind::H264), true));
    }

    #[test]
    fn noise_is_not_taken_for_video() {
        let mut x = 7u64;
        let mut certain = 0;
        for _ in 0..200 {
            let mut d = Detector::new(None);
            for _ in 0..500 {
                let payload: Vec<u8> = (0..160)
                    .map(|_| {
                        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (x >> 56) as u8
                    })
                    .collect();
                d.observe(97, 0, &payload);
            }
            certain += u32::from(d.is_certain());
        }
        assert!(certain <= 2, "{certain} of 200");
    }
}
