//! Picture order count (8.2.1), all three types, fields and memory management operation 5.

use super::slice::SliceRest;
use super::sps::{PocType, Sps};
use crate::DisplayOrder;

/// What the count of the next picture is worked out from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counter {
    epoch: u32,
    /// Type 0, of the reference picture before.
    previous_msb: i64,
    previous_lsb: i64,
    /// Types 1 and 2, of the picture before.
    frame_num: u32,
    offset: i64,
}

impl Counter {
    /// What follows is counted afresh, and shown after all that was.
    pub(super) fn restart(&mut self) {
        *self = Counter {
            epoch: self.epoch.wrapping_add(1),
            ..Counter::default()
        };
    }

    /// The next picture in decoding order. An IDR picture comes after [`Counter::restart`].
    pub(super) fn next(&mut self, sps: &Sps, reference: bool, rest: &SliceRest) -> DisplayOrder {
        let mut msb = 0;
        let (top, bottom) = match &sps.poc {
            PocType::Lsb { bits } => {
                let lsb = i64::from(rest.poc_lsb);
                msb = self.msb(lsb, 1 << bits);
                let top = msb + lsb;
                (top, top + rest.delta[0])
            }
            PocType::Cycle {
                non_ref,
                top_to_bottom,
                offsets,
                ..
            } => {
                let absolute = self.absolute_frame_num(rest);
                let expected = expected(offsets, *non_ref, absolute, reference);
                let top = expected + rest.delta[0];
                if rest.field {
                    (top, top + top_to_bottom)
                } else {
                    (top, top + top_to_bottom + rest.delta[1])
                }
            }
            PocType::Decoding => {
                let absolute = self.absolute_frame_num(rest);
                let count = 2 * absolute - i64::from(!reference);
                (count, count)
            }
        };
        let count = match (rest.field, rest.bottom) {
            (false, _) => top.min(bottom),
            (true, false) => top,
            // A bottom field of type 0 has no delta: its count is its own lsb's.
            (true, true) => bottom,
        };
        self.frame_num = rest.frame_num;
        if reference {
            self.previous_msb = msb;
            self.previous_lsb = i64::from(rest.poc_lsb);
        }
        if rest.resets {
            self.restart();
            // 8.2.1: as if the picture had been an IDR picture, with what is left of its top.
            self.previous_lsb = if rest.field { 0 } else { top - count };
            return self.order(0);
        }
        self.order(count)
    }

    fn order(&self, count: i64) -> DisplayOrder {
        let count = count.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        DisplayOrder {
            epoch: self.epoch,
            count: count as i32,
        }
    }

    /// 8.2.1.1.
    fn msb(&self, lsb: i64, max: i64) -> i64 {
        let (msb, previous) = (self.previous_msb, self.previous_lsb);
        if lsb < previous && previous - lsb >= max / 2 {
            msb + max
        } else if lsb > previous && lsb - previous > max / 2 {
            msb - max
        } else {
            msb
        }
    }

    /// `FrameNumOffset` + `frame_num` (8.2.1.2, 8.2.1.3).
    fn absolute_frame_num(&mut self, rest: &SliceRest) -> i64 {
        if rest.frame_num < self.frame_num {
            self.offset += i64::from(rest.frame_num_mask) + 1;
        }
        self.offset + i64::from(rest.frame_num)
    }
}

/// 8.2.1.2, `expectedPicOrderCnt`.
fn expected(offsets: &[i64], non_ref: i64, absolute: i64, reference: bool) -> i64 {
    let extra = if reference { 0 } else { non_ref };
    let length = offsets.len() as i64;
    if length == 0 {
        return extra;
    }
    let place = absolute - i64::from(!reference && absolute > 0);
    if place <= 0 {
        return extra;
    }
    let total: i64 = offsets.iter().sum();
    let (cycles, within) = ((place - 1) / length, (place - 1) % length);
    let part: i64 = offsets.iter().take(within as usize + 1).sum();
    // Far beyond what counts may be, and far from an overflow.
    let sum = cycles.saturating_mul(total).saturating_add(part);
    sum.clamp(-(1 << 40), 1 << 40) + extra
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::VideoInfo;
    use crate::codec::sei::TimingSyntax;

    fn sps(poc: PocType) -> Sps {
        Sps {
            frame_num_gaps: false,
            info: VideoInfo::default(),
            id: 0,
            any_slice_order: false,
            timing: TimingSyntax::default(),
            separate_colour_plane: false,
            has_chroma: true,
            log2_max_frame_num: 4,
            frame_mbs_only: false,
            poc,
        }
    }

    struct Picture {
        idr: bool,
        reference: bool,
        frame_num: u32,
        lsb: u32,
        delta: [i64; 2],
        resets: bool,
        field: Option<bool>,
    }

    const FRAME: Picture = Picture {
        idr: false,
        reference: true,
        frame_num: 0,
        lsb: 0,
        delta: [0; 2],
        resets: false,
        field: None,
    };

    fn run(poc: PocType, pictures: &[Picture]) -> Vec<(u32, i32)> {
        let sps = sps(poc);
        let mut counter = Counter::default();
        pictures
            .iter()
            .map(|p| {
                if p.idr {
                    counter.restart();
                }
                let rest = SliceRest {
                    frame_num: p.frame_num,
                    frame_num_mask: 15,
                    poc_lsb: p.lsb,
                    delta: p.delta,
                    resets: p.resets,
                    field: p.field.is_some(),
                    bottom: p.field == Some(true),
                    ..SliceRest::default()
                };
                let order = counter.next(&sps, p.reference, &rest);
                (order.epoch, order.count)
            })
            .collect()
    }

    #[test]
    fn type_0_goes_on_over_the_turns_of_its_bits() {
        let lsb = |lsb, reference, idr| Picture {
            lsb,
            reference,
            idr,
            ..FRAME
        };
        let orders = run(
            PocType::Lsb { bits: 4 },
            &[
                lsb(0, true, true),
                lsb(6, true, false),
                lsb(2, false, false),
                lsb(12, true, false),
                lsb(2, true, false),
                lsb(14, false, false),
                lsb(8, true, false),
                lsb(0, true, true),
            ],
        );
        let counts: Vec<i32> = orders.iter().map(|o| o.1).collect();
        assert_eq!(counts, [0, 6, 2, 12, 18, 14, 24, 0]);
        assert_eq!(orders[7].0, orders[6].0 + 1);
    }

    #[test]
    fn type_1_follows_its_cycle_of_offsets() {
        let at = |frame_num, reference| Picture {
            frame_num,
            reference,
            idr: frame_num == 0,
            ..FRAME
        };
        // I P b P b: one reference frame in two, four counts apart.
        let cycle = PocType::Cycle {
            always_zero: true,
            non_ref: -2,
            top_to_bottom: 1,
            offsets: Box::new([4]),
        };
        let orders = run(
            cycle,
            &[
                at(0, true),
                at(1, true),
                at(2, false),
                at(2, true),
                at(3, false),
            ],
        );
        let counts: Vec<i32> = orders.iter().map(|o| o.1).collect();
        assert_eq!(counts, [0, 4, 2, 8, 6]);
    }

    #[test]
    fn type_2_is_decoding_order_over_the_turn_of_frame_num() {
        let pictures: Vec<Picture> = (0..40)
            .map(|n| Picture {
                idr: n == 0,
                frame_num: n % 16,
                ..FRAME
            })
            .collect();
        let orders = run(PocType::Decoding, &pictures);
        assert!(orders.iter().zip(0..).all(|(o, n)| o.1 == 2 * n));
    }

    #[test]
    fn operation_5_begins_the_counts_afresh() {
        let lsb = |lsb, resets| Picture {
            lsb,
            resets,
            ..FRAME
        };
        let orders = run(
            PocType::Lsb { bits: 8 },
            &[
                lsb(0, false),
                lsb(100, false),
                lsb(140, true),
                lsb(2, false),
            ],
        );
        assert_eq!(orders[2], (orders[1].0 + 1, 0));
        assert_eq!(orders[3], (orders[1].0 + 1, 2));
    }

    #[test]
    fn fields_count_by_their_own_parity() {
        let field = |lsb, bottom| Picture {
            lsb,
            field: Some(bottom),
            idr: lsb == 0,
            ..FRAME
        };
        let orders = run(
            PocType::Lsb { bits: 8 },
            &[
                field(0, false),
                field(1, true),
                field(4, false),
                field(5, true),
            ],
        );
        let counts: Vec<i32> = orders.iter().map(|o| o.1).collect();
        assert_eq!(counts, [0, 1, 4, 5]);
    }
}
