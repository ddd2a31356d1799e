//! Reference picture sets (7.3.7, 7.3.6.1, 8.3.2): which pictures a picture refers to, and which
//! may be referred to later. A picture that is named and was never there was lost somewhere, though
//! no transport shows it.

use super::slice::Slice;
use crate::DisplayOrder;
use crate::codec::bits::BitReader;

/// Long-term pictures of one set, and short-term ones, at the most (`sps_max_dec_pic_buffering`).
const MAX_PICTURES: usize = 16;

/// A short-term reference picture set: differences of picture order count, negative ones first,
/// nearest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RefPicSet {
    deltas: [i32; MAX_PICTURES],
    count: usize,
    /// Bit i: the present picture refers to picture i; else later ones may.
    used: u16,
}

impl RefPicSet {
    fn push(&mut self, delta: i32, used: bool) -> Option<()> {
        *self.deltas.get_mut(self.count)? = delta;
        self.used |= u16::from(used) << self.count;
        self.count += 1;
        Some(())
    }

    fn pictures(&self) -> impl Iterator<Item = (i32, bool)> + '_ {
        let deltas = self.deltas.iter().take(self.count).enumerate();
        deltas.map(|(i, delta)| (*delta, self.used >> i & 1 == 1))
    }
}

/// What an SPS offers to slices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SetsOfSps {
    pub(super) short: Vec<RefPicSet>,
    /// `long_term_ref_pics_present_flag`.
    pub(super) has_long: bool,
    /// `lt_ref_pic_poc_lsb_sps` and `used_by_curr_pic_lt_sps_flag`.
    pub(super) long: Vec<(u32, bool)>,
}

/// 7.3.7 and 7.4.8: set `index` of `total`, `sets` before it; that number itself is a slice's own.
pub(super) fn ref_pic_set(
    r: &mut BitReader<'_>,
    sets: &[RefPicSet],
    index: u32,
    total: u32,
) -> Option<RefPicSet> {
    let mut set = RefPicSet::default();
    if index > 0 && r.flag()? {
        let back = if index == total { r.ue_max(63)? + 1 } else { 1 };
        let from = sets.get(usize::try_from(index.checked_sub(back)?).ok()?)?;
        let sign = r.flag()?;
        let magnitude = i32::try_from(r.ue_max(0x7FFF)?).ok()? + 1;
        let delta = if sign { -magnitude } else { magnitude };
        let mut kept = [(0, false); MAX_PICTURES + 1];
        for (j, place) in kept.iter_mut().enumerate().take(from.count + 1) {
            let used = r.flag()?;
            if used || r.flag()? {
                let of_other = from.deltas.get(j).filter(|_| j < from.count);
                *place = (of_other.copied().unwrap_or(0) + delta, used);
            }
        }
        kept.sort_unstable();
        for &(value, used) in kept.iter().rev().filter(|k| k.0 < 0) {
            set.push(value, used)?;
        }
        for &(value, used) in kept.iter().filter(|k| k.0 > 0) {
            set.push(value, used)?;
        }
        return Some(set);
    }
    let negative = r.ue_max(16)?;
    let positive = r.ue_max(16)?;
    for (count, step) in [(negative, -1), (positive, 1)] {
        let mut poc = 0;
        for _ in 0..count {
            poc += step * (i32::try_from(r.ue_max(0x7FFF)?).ok()? + 1);
            let used = r.flag()?;
            set.push(poc, used)?;
        }
    }
    Some(set)
}

/// A long-term picture.
#[derive(Clone, Copy, Debug, Default)]
struct Long {
    lsb: u32,
    /// Turns of the LSB before the present picture, where they are told.
    cycles: Option<u32>,
    used: bool,
}

/// What a slice header says of its picture's references.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct References {
    short: RefPicSet,
    long: [Long; MAX_PICTURES],
    longs: usize,
}

/// Bits of a choice among `count`.
const fn bits_for(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

/// The part of a slice header behind `slice_pic_order_cnt_lsb`.
pub(super) fn read(r: &mut BitReader<'_>, sets: &SetsOfSps, lsb_bits: u32) -> Option<References> {
    let mut found = References::default();
    let count = u32::try_from(sets.short.len()).ok()?;
    found.short = if r.flag()? {
        let index = if count > 1 { r.u(bits_for(count))? } else { 0 };
        *sets.short.get(usize::try_from(index).ok()?)?
    } else {
        ref_pic_set(r, &sets.short, count, count)?
    };
    if !sets.has_long {
        return Some(found);
    }
    let offered = u32::try_from(sets.long.len()).ok()?;
    let chosen = if offered > 0 { r.ue_max(32)? } else { 0 };
    let own = r.ue_max(32)?;
    let mut cycles = 0;
    for i in 0..chosen + own {
        let (lsb, used) = if i < chosen {
            let index = if offered > 1 {
                r.u(bits_for(offered))?
            } else {
                0
            };
            *sets.long.get(usize::try_from(index).ok()?)?
        } else {
            (r.u(lsb_bits)?, r.flag()?)
        };
        let told = r.flag()?;
        let step = if told { r.ue_max(1 << 24)? } else { 0 };
        // 7.4.7.1: counted from the one before, but for the first of either kind.
        cycles = if i == 0 || i == chosen {
            step
        } else {
            step.saturating_add(cycles)
        };
        *found.long.get_mut(found.longs)? = Long {
            lsb,
            cycles: told.then_some(cycles),
            used,
        };
        found.longs += 1;
    }
    Some(found)
}

/// Picture order counts of the pictures that may be referred to.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    counts: Vec<i32>,
    /// All of them are known, since decoding began.
    known: bool,
    /// RASL pictures of the last random access point are not decoded.
    rasl_is_skipped: bool,
}

impl Pictures {
    pub(super) fn forget(&mut self) {
        self.counts.clear();
        self.known = false;
    }

    /// The next picture in decoding order: its first slice, place, whether decoding begins
    /// afresh with it, and what it refers to. Whether a picture that it refers to never came.
    pub(super) fn lacks(
        &mut self,
        slice: &Slice,
        order: Option<DisplayOrder>,
        afresh: bool,
        references: Option<&References>,
        lsb_bits: u32,
    ) -> bool {
        let Some(count) = order.map(|order| order.count) else {
            self.forget();
            return false;
        };
        if slice.is_irap() {
            self.rasl_is_skipped = afresh;
        }
        if afresh {
            self.counts.clear();
            self.counts.push(count);
            self.known = true;
            return false;
        }
        if !self.known || (slice.is_rasl() && self.rasl_is_skipped) {
            return false;
        }
        let Some(references) = references else {
            self.forget();
            return false;
        };
        let lacks = self.apply(count, references, lsb_bits);
        // An intra picture refers to nothing, whatever it keeps for others.
        lacks && !slice.is_irap()
    }

    /// Keeps what the set names, and the picture itself.
    fn apply(&mut self, count: i32, references: &References, lsb_bits: u32) -> bool {
        let mut kept = [0; 2 * MAX_PICTURES];
        let mut places = kept.iter_mut();
        let mut lacks = false;
        let counts = &self.counts;
        let mut keep = |found: Option<i32>, used: bool| match found {
            Some(found) => {
                if let Some(place) = places.next() {
                    *place = found;
                }
            }
            None => lacks |= used,
        };
        for (delta, used) in references.short.pictures() {
            let wanted = count.saturating_add(delta);
            keep(counts.iter().copied().find(|c| *c == wanted), used);
        }
        let mask = (1_i32 << lsb_bits) - 1;
        for long in references.long.iter().take(references.longs) {
            let lsb = i32::try_from(long.lsb).unwrap_or(0);
            let found = match long.cycles {
                Some(cycles) => {
                    let back = i64::from(cycles) << lsb_bits;
                    let wanted = i64::from(count & !mask) - back + i64::from(lsb);
                    counts.iter().copied().find(|c| i64::from(*c) == wanted)
                }
                None => counts.iter().copied().find(|c| c & mask == lsb),
            };
            keep(found, long.used);
        }
        let left = places.len();
        self.counts.clear();
        self.counts
            .extend_from_slice(kept.get(..kept.len() - left).unwrap_or_default());
        self.counts.push(count);
        lacks
    }
}
