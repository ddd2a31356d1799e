//! What an RTP payload is, by its bits: MPEG-TS by its sync bytes, H.264 and HEVC by the
//! plausibility of their payload headers over several packets. A hint (payload type, SDP) is
//! where the detector starts; the bits overrule it.
//!
//! The two NAL unit headers hardly overlap: what is a fit first byte pair for one is a
//! reserved or misused type for the other.

use mirror_base::Discard;

use super::PayloadFormat as Kind;
use super::{av1, jpegxs, nal};
use crate::Codec;

/// How well a payload fits a kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Vote {
    No,
    /// It may be of the kind, and so may many other things: an Opus TOC byte of 0x28, 0x48 or
    /// 0x68 is a PPS header, too. Speaks neither for the kind nor against another.
    Slight,
    Weak,
    /// As good as so many weak ones as its weight says.
    Strong,
    /// Enough alone, however much before it could have been anything.
    Proof,
}
use Vote::{No as NO, Proof as PROOF, Slight as SLIGHT, Strong as STRONG, Weak as WEAK};

impl Vote {
    /// A slight fit is enough to make a weak one of another kind doubtful.
    const fn level(self) -> u8 {
        match self {
            NO => 0,
            SLIGHT | WEAK => 1,
            STRONG => 2,
            PROOF => 3,
        }
    }

    const fn weight(self) -> u32 {
        match self {
            NO | SLIGHT => 0,
            WEAK => 1,
            STRONG | PROOF => 3,
        }
    }
}

/// Votes that make a kind certain, if most packets gave one.
const CERTAIN: u32 = 3;
/// Contrary votes in a row that overturn a certain kind.
const OVERTURN: u32 = 16;
/// Contrary votes in a row that overturn a hint which the bits cannot confirm.
const OVERTURN_HINT: u32 = 8;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Detector {
    kind: Option<Kind>,
    /// The kind is what the hint says.
    hinted: bool,
    certain: bool,
    seen: u32,
    good: u32,
    contrary: u32,
}

impl Detector {
    pub(crate) const fn new(hint: Option<Kind>) -> Self {
        Detector {
            kind: hint,
            hinted: hint.is_some(),
            certain: false,
            seen: 0,
            good: 0,
            contrary: 0,
        }
    }

    /// What the payloads are, as far as is known.
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
    pub(crate) const fn is_trusted(&self) -> bool {
        let sure_soon = matches!(self.kind, Some(Kind::H264 | Kind::H265));
        self.certain || (self.hinted && !sure_soon)
    }

    /// Looks at one more payload. `true` if the kind is another now.
    #[inline]
    pub(crate) fn observe(&mut self, payload_type: u8, payload: &[u8]) -> bool {
        if payload.is_empty() {
            return false;
        }
        if self.certain
            && self
                .kind
                .is_some_and(|kind| fits(kind, payload_type, payload) > NO)
        {
            self.contrary = 0;
            return false;
        }
        self.weigh(payload_type, payload)
    }

    #[cold]
    fn weigh(&mut self, payload_type: u8, payload: &[u8]) -> bool {
        let mut best: Option<(Kind, Vote)> = None;
        let mut tie = false;
        for kind in [Kind::Mp2t, Kind::H264, Kind::H265, Kind::Av1, Kind::Jxsv] {
            let vote = match (kind, fits(kind, payload_type, payload)) {
                // Nearly anything may be of these.
                (Kind::Av1 | Kind::Jxsv, vote) if vote < PROOF => NO,
                (_, vote) => vote,
            };
            let leading = best.map_or(NO, |b| b.1);
            tie = vote > NO && (vote.level() == leading.level() || (tie && vote < leading));
            if vote.level() > leading.level() {
                best = Some((kind, vote));
            }
        }
        let mine = self.kind.map_or(NO, |k| fits(k, payload_type, payload));
        if mine == SLIGHT && best.is_none_or(|b| b.1 < STRONG) {
            if !tie {
                self.contrary = 0;
            }
            return false;
        }
        self.seen = self.seen.saturating_add(1);
        let Some((candidate, vote)) = best.filter(|b| !tie && b.1 > SLIGHT) else {
            if self.kind.is_some_and(is_mute) {
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
        self.contrary += vote.weight();
        let bound = match self.kind {
            None => 0,
            Some(_) if self.certain => OVERTURN,
            Some(kind) if says_little(kind) && (vote < STRONG || candidate != Kind::Mp2t) => {
                OVERTURN_HINT
            }
            // A hint, or a first guess, that nothing has spoken for.
            Some(_) if self.good == 0 => 0,
            Some(_) => self.good + CERTAIN,
        };
        if self.contrary <= bound {
            return false;
        }
        // A certain kind was overturned by so many votes; else all packets so far count.
        let seen = if self.certain {
            self.contrary
        } else {
            self.seen
        };
        let good = self.contrary;
        let certain = vote == PROOF || (good >= CERTAIN && good * 2 > seen);
        *self = Detector {
            kind: Some(candidate),
            hinted: false,
            certain,
            seen,
            good,
            contrary: 0,
        };
        true
    }
}

fn fits(kind: Kind, payload_type: u8, payload: &[u8]) -> Vote {
    match kind {
        Kind::Mp2t => fits_ts(payload_type, payload),
        Kind::H264 => fits_h264(payload),
        Kind::H265 => fits_h265(payload),
        Kind::Av1 => match av1::begins_sequence(payload) {
            true => PROOF,
            false if av1::is_plausible(payload) => SLIGHT,
            false => NO,
        },
        Kind::Jxsv => match jpegxs::begins_picture(payload) {
            true => PROOF,
            false if jpegxs::is_plausible(payload) => SLIGHT,
            false => NO,
        },
        _ => NO,
    }
}

/// Whether the bits of a kind never speak for it.
const fn is_mute(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Mp2t | Kind::H264 | Kind::H265 | Kind::Av1 | Kind::Jxsv
    )
}

/// Whether few payloads of a kind speak for it.
const fn says_little(kind: Kind) -> bool {
    is_mute(kind) || matches!(kind, Kind::Av1 | Kind::Jxsv)
}

/// RFC 2250: a whole number of 188-byte packets. Static type 33 says so, too.
fn fits_ts(payload_type: u8, payload: &[u8]) -> Vote {
    let (packets, rest) = payload.as_chunks::<188>();
    if packets.is_empty() || !packets.iter().all(|p| p[0] == 0x47) {
        return NO;
    }
    if payload_type == 33 || packets.len() > 1 {
        STRONG
    } else if rest.is_empty() {
        WEAK
    } else {
        NO
    }
}

/// Whether every unit of an aggregate fits `unit`.
fn aggregate_fits(codec: Codec, payload: &[u8], unit: fn(&[u8]) -> Vote) -> Vote {
    let mut units = 0;
    for piece in nal::pieces(codec, payload) {
        match piece {
            Ok(piece) if unit(piece.bytes) > NO => units += 1,
            _ => return NO,
        }
    }
    if units > 0 { STRONG } else { NO }
}

fn fits_h264(payload: &[u8]) -> Vote {
    match payload {
        [a, ..] if a & 0x80 != 0 => NO,
        [a, ..] if a & 0x1F == 24 => aggregate_fits(Codec::H264, payload, h264_unit),
        // RFC 6184, 5.8: the reserved bit is 0, start and end are never both set.
        [a, fu, _, ..] if a & 0x1F == 28 => {
            let fit = fu & 0x20 == 0 && fu & 0xC0 != 0xC0 && matches!(fu & 0x1F, 1..=8);
            if fit { WEAK } else { NO }
        }
        _ => h264_unit(payload),
    }
}

/// 7.4.1: nal_ref_idc is 0 for SEI and delimiters, and not 0 for IDR slices and parameter sets.
fn h264_unit(nal: &[u8]) -> Vote {
    let &[a, b, ..] = nal else { return NO };
    let referenced = a & 0x60 != 0;
    match a & 0x9F {
        1 => WEAK,
        5 if referenced => WEAK,
        8 if referenced => SLIGHT,
        6 if !referenced => SLIGHT,
        7 if referenced && is_h264_profile(b) => STRONG,
        9 if !referenced && b & 0x1F == 0x10 => STRONG,
        _ => NO,
    }
}

const fn is_h264_profile(idc: u8) -> bool {
    matches!(
        idc,
        66 | 77 | 88 | 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128
    )
}

fn fits_h265(payload: &[u8]) -> Vote {
    match payload {
        // Forbidden bit, base layer, temporal id.
        [a, b, ..] if a & 0x81 != 0 || b & 0xF8 != 0 || b & 7 == 0 => NO,
        [a, ..] if a >> 1 == 48 => aggregate_fits(Codec::H265, payload, h265_unit),
        [a, _, fu, _, ..] if a >> 1 == 49 => {
            let fit = fu & 0xC0 != 0xC0 && matches!(fu & 0x3F, 0..=9 | 16..=21 | 32..=40);
            if fit { WEAK } else { NO }
        }
        [a, _, _, ..] if a >> 1 == 50 => WEAK,
        _ => h265_unit(payload),
    }
}

fn h265_unit(nal: &[u8]) -> Vote {
    let &[a, b, ..] = nal else { return NO };
    if a & 0x81 != 0 || b & 0xF8 != 0 || b & 7 == 0 {
        return NO;
    }
    match a >> 1 {
        0..=9 | 16..=21 => WEAK,
        36..=40 => SLIGHT,
        32..=34 if b == 1 => STRONG,
        35 if nal.len() == 3 => STRONG,
        _ => NO,
    }
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
        assert!(d.observe(96, &[0x40, 1, 0x0C, 1]));
        assert_eq!((d.kind(), d.is_certain()), (Some(Kind::H265), true));
        let mut d = Detector::new(Some(Kind::H265));
        assert!(d.observe(97, &[0x67, 0x64, 0, 0x28]));
        assert_eq!((d.kind(), d.is_certain()), (Some(Kind::H264), true));
    }

    #[test]
    fn ts_is_known_by_its_sync_bytes_whatever_the_payload_type() {
        let mut ts = vec![0; 7 * 188];
        ts.iter_mut().step_by(188).for_each(|b| *b = 0x47);
        for hint in [None, Some(Kind::H264), Some(Kind::H265), Some(Kind::Opus)] {
            let mut d = Detector::new(hint);
            for _ in 0..4 {
                d.observe(96, &ts);
            }
            assert_eq!(
                (d.kind(), d.is_certain()),
                (Some(Kind::Mp2t), true),
                "{hint:?}"
            );
        }
        // One TS packet a datagram takes three of them.
        let mut d = Detector::new(None);
        assert!(d.observe(96, &ts[..188]) && !d.is_certain());
        d.observe(96, &ts[..188]);
        d.observe(96, &ts[..188]);
        assert!(d.is_certain());
    }

    #[test]
    fn a_certain_kind_survives_strays_but_not_a_change_of_codec() {
        let mut d = Detector::new(None);
        d.observe(96, &[0x67, 0x64, 0, 0x28]);
        for _ in 0..5 {
            assert!(!d.observe(96, &[0x40, 1, 0x0C, 1]));
            d.observe(96, &[0x41, 0x9A, 1]);
        }
        let changes = (0..20)
            .filter(|_| d.observe(96, &[0x02, 1, 0xD0, 9]))
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
                    assert!(!d.observe(97, &[toc, 0x80 | n, 0x5A, n, 3]));
                }
                assert_eq!((d.kind(), d.is_certain()), (before, false), "{hint:?}");
            }
        }
    }

    #[test]
    fn slices_between_sei_make_a_stream_certain() {
        let mut d = Detector::new(None);
        for _ in 0..3 {
            d.observe(96, &[0x06, 5, 1, 0, 0x80]);
            d.observe(96, &[0x41, 0x9A, 1]);
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
                d.observe(97, &payload);
            }
            certain += u32::from(d.is_certain());
        }
        assert!(certain <= 2, "{certain} of 200");
    }
}
