//! The start of slice segment headers (7.3.6.1) and picture order count (8.3.1).

use super::{State, references};
use crate::DisplayOrder;
use crate::codec::SliceKind;
use crate::codec::bits::BitReader;

/// The head of a slice segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// `nal_unit_type`.
    pub nal_type: u8,
    /// `nuh_temporal_id_plus1` − 1.
    pub temporal_id: u8,
    /// `first_slice_segment_in_pic_flag`: begins a picture.
    pub first: bool,
    /// `None` for a dependent segment, or while the parameter sets are unknown.
    pub kind: Option<SliceKind>,
    /// Of the highest sub-layer that the SPS announces.
    pub highest_layer: bool,
    /// `slice_segment_address`, while it is known.
    pub address: Option<u32>,
    /// `slice_pic_order_cnt_lsb`, 0 for an IDR picture; `None` as `kind`.
    pub poc_lsb: Option<u32>,
}

impl Slice {
    /// IDR_W_RADL or IDR_N_LP.
    pub const fn is_idr(&self) -> bool {
        matches!(self.nal_type, 19 | 20)
    }

    /// BLA_W_LP, BLA_W_RADL or BLA_N_LP.
    pub const fn is_bla(&self) -> bool {
        matches!(self.nal_type, 16..=18)
    }

    /// Any intra random access point.
    pub const fn is_irap(&self) -> bool {
        matches!(self.nal_type, 16..=23)
    }

    /// RASL_N or RASL_R: leading, and refers to what lies before its random access point.
    pub const fn is_rasl(&self) -> bool {
        matches!(self.nal_type, 8 | 9)
    }

    /// No other picture refers to it: a sub-layer non-reference picture of the highest sub-layer.
    pub const fn is_discardable(&self) -> bool {
        self.is_sub_layer_non_reference() && self.highest_layer
    }

    const fn is_sub_layer_non_reference(&self) -> bool {
        self.nal_type <= 14 && self.nal_type.is_multiple_of(2)
    }

    /// Whether it is of another picture than `previous`, by what all slices of a picture share
    /// (7.4.2.2, 7.4.7.1): the first segment of its picture is missing then.
    pub fn is_of_another_picture(&self, previous: &Slice) -> bool {
        self.first
            || self.nal_type != previous.nal_type
            || self.temporal_id != previous.temporal_id
            || matches!((self.poc_lsb, previous.poc_lsb), (Some(a), Some(b)) if a != b)
    }

    /// Whether it cannot directly follow `previous` in the same picture: addresses rise.
    pub fn is_out_of_order(&self, previous: &Slice) -> bool {
        matches!((self.address, previous.address), (Some(a), Some(b)) if a <= b)
    }
}

impl State {
    /// Parses the head of a slice segment, `nal` with its two header bytes.
    pub fn parse_slice(&mut self, nal: &[u8]) -> Option<Slice> {
        let (&[a, b], rbsp) = nal.split_first_chunk::<2>()?;
        let mut slice = Slice {
            nal_type: a >> 1 & 0x3F,
            temporal_id: (b & 7).saturating_sub(1),
            ..Slice::default()
        };
        let mut r = BitReader::new(rbsp);
        self.references = None;
        slice.first = r.flag()?;
        if slice.is_irap() {
            r.skip(1)?;
        }
        let _ = self.parse_rest(&mut r, &mut slice);
        Some(slice)
    }

    fn parse_rest(&mut self, r: &mut BitReader<'_>, slice: &mut Slice) -> Option<()> {
        let pps = self
            .pps
            .get(usize::try_from(r.ue_max(63)?).ok()?)?
            .as_ref()?;
        let sps = self.sps.get(usize::from(pps.sps))?.as_deref()?;
        if self.active != Some(pps.sps) {
            self.active = Some(pps.sps);
            self.generation += 1;
        }
        slice.highest_layer = slice.temporal_id >= sps.max_sub_layers;
        if slice.first {
            slice.address = Some(0);
        } else {
            let dependent = pps.dependent_slices && r.flag()?;
            slice.address = Some(r.u(sps.address_bits)?);
            if dependent {
                return None;
            }
        }
        r.skip(pps.extra_bits)?;
        slice.kind = match r.ue_max(2)? {
            0 => Some(SliceKind::B),
            1 => Some(SliceKind::P),
            _ => Some(SliceKind::I),
        };
        if pps.output_flag {
            r.skip(1)?;
        }
        if sps.separate_colour_plane {
            r.skip(2)?;
        }
        slice.poc_lsb = if slice.is_idr() {
            Some(0)
        } else {
            Some(r.u(sps.log2_max_poc_lsb)?)
        };
        if !slice.is_idr()
            && let Some(sets) = sps.references.as_deref()
        {
            self.references = references::read(r, sets, sps.log2_max_poc_lsb);
        }
        Some(())
    }
}

/// What the count of the next picture is worked out from (8.3.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter {
    epoch: u32,
    previous_msb: i64,
    previous_lsb: i64,
    /// The next picture is the first, of the stream or behind an end of sequence.
    first: bool,
}

impl Default for Counter {
    fn default() -> Self {
        Counter {
            epoch: 0,
            previous_msb: 0,
            previous_lsb: 0,
            first: true,
        }
    }
}

impl Counter {
    pub(super) const fn end_of_sequence(&mut self) {
        self.first = true;
    }

    pub(super) const fn restart(&mut self) {
        *self = Counter {
            epoch: self.epoch.wrapping_add(1),
            previous_msb: 0,
            previous_lsb: 0,
            first: true,
        };
    }

    pub(super) fn next(&mut self, bits: u32, slice: &Slice) -> (Option<DisplayOrder>, bool) {
        // NoRaslOutputFlag (8.1.3).
        let afresh = slice.is_irap() && (slice.is_idr() || slice.is_bla() || self.first);
        if slice.is_irap() {
            self.first = false;
        }
        if afresh {
            self.epoch = self.epoch.wrapping_add(1);
        }
        let Some(lsb) = slice.poc_lsb.map(i64::from) else {
            return (None, afresh);
        };
        let max = 1_i64 << bits;
        let (msb, previous) = (self.previous_msb, self.previous_lsb);
        let msb = if afresh {
            0
        } else if lsb < previous && previous - lsb >= max / 2 {
            msb + max
        } else if lsb > previous && lsb - previous > max / 2 {
            msb - max
        } else {
            msb
        };
        let leading = matches!(slice.nal_type, 6..=9);
        if slice.temporal_id == 0 && !leading && !slice.is_sub_layer_non_reference() {
            self.previous_msb = msb;
            self.previous_lsb = lsb;
        }
        let count = (msb + lsb).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let order = DisplayOrder {
            epoch: self.epoch,
            count: count as i32,
        };
        (Some(order), afresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pictures: &[(u8, u8, u32)]) -> Vec<(u32, i32, bool)> {
        let mut counter = Counter::default();
        pictures
            .iter()
            .map(|&(nal_type, temporal_id, lsb)| {
                let slice = Slice {
                    nal_type,
                    temporal_id,
                    poc_lsb: Some(lsb),
                    ..Slice::default()
                };
                let (order, afresh) = counter.next(4, &slice);
                let order = order.unwrap();
                (order.epoch, order.count, afresh)
            })
            .collect()
    }

    #[test]
    fn counts_go_on_over_the_turns_of_their_bits_and_over_a_cra() {
        let orders = run(&[
            (20, 0, 0),
            (1, 0, 8),
            (0, 0, 4),
            (21, 0, 0),
            (9, 0, 12),
            (8, 1, 14),
            (1, 0, 7),
        ]);
        let counts: Vec<i32> = orders.iter().map(|o| o.1).collect();
        assert_eq!(counts, [0, 8, 4, 16, 12, 14, 23]);
        assert!(orders.iter().all(|o| o.0 == 1), "one epoch");
        assert!(!orders[3].2);
    }

    #[test]
    fn the_first_cra_and_each_bla_begin_afresh() {
        let orders = run(&[(21, 0, 9), (9, 0, 5), (1, 0, 12), (16, 0, 3), (1, 0, 6)]);
        let counts: Vec<(u32, i32)> = orders.iter().map(|o| (o.0, o.1)).collect();
        assert_eq!(counts, [(1, 9), (1, 5), (1, 12), (2, 3), (2, 6)]);
        assert!(orders[0].2 && orders[3].2);
    }

    #[test]
    fn a_cra_behind_an_end_of_sequence_begins_afresh() {
        let mut counter = Counter::default();
        let cra = Slice {
            nal_type: 21,
            poc_lsb: Some(7),
            ..Slice::default()
        };
        assert!(counter.next(4, &cra).1);
        assert!(!counter.next(4, &cra).1);
        counter.end_of_sequence();
        assert!(counter.next(4, &cra).1);
    }
}
