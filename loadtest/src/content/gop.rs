//! The plan of a closed GOP: which frame is what, in decoding order, with display positions,
//! reference numbering and the relative sizes that an encoder would give them.

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameType {
    /// Instantaneous decoder refresh, the GOP's first.
    Idr,
    /// Predicted, referenced by others.
    P,
    /// Bi-predicted, not referenced.
    B,
}

/// One frame of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its type.
    pub kind: FrameType,
    /// Position in display order, from 0.
    pub display: u32,
    /// Reference frames before it in the GOP, in decoding order (H.264: `frame_num`).
    pub references_before: u32,
    /// Display position of the anchor before it (0 for the IDR).
    pub past: u32,
    /// B: display position of the anchor after it.
    pub future: u32,
}

/// One closed GOP in decoding order.
#[derive(Clone, Debug)]
pub struct GopPlan {
    /// The frames.
    pub frames: Vec<Frame>,
    /// Frames by which display lags decoding: 1 where there are B frames.
    pub reorder: u32,
}

impl GopPlan {
    /// `gop` frames (at least 1) with `b_frames` B frames between anchors.
    pub fn new(gop: u32, b_frames: u32) -> Self {
        let gop = gop.max(1);
        let mut frames = Vec::with_capacity(gop as usize);
        frames.push(Frame {
            kind: FrameType::Idr,
            display: 0,
            references_before: 0,
            past: 0,
            future: 0,
        });
        let (mut past, mut references) = (0, 1);
        while past + 1 < gop {
            let anchor = (past + b_frames + 1).min(gop - 1);
            frames.push(Frame {
                kind: FrameType::P,
                display: anchor,
                references_before: references,
                past,
                future: 0,
            });
            references += 1;
            for display in past + 1..anchor {
                frames.push(Frame {
                    kind: FrameType::B,
                    display,
                    references_before: references,
                    past,
                    future: anchor,
                });
            }
            past = anchor;
        }
        GopPlan {
            frames,
            reorder: u32::from(b_frames > 0),
        }
    }

    /// How `total` bytes are shared among the frames, as an encoder would: IDR 5, P 1.3, B 0.8.
    pub fn sizes(&self, total: u64) -> Vec<u64> {
        let weight = |f: &Frame| match f.kind {
            FrameType::Idr => 50,
            FrameType::P => 13,
            FrameType::B => 8,
        };
        let all: u64 = self.frames.iter().map(weight).sum();
        let (mut before, mut given) = (0, 0);
        self.frames
            .iter()
            .map(|f| {
                before += weight(f);
                let until = u64::try_from(u128::from(total) * u128::from(before) / u128::from(all))
                    .unwrap_or(u64::MAX);
                let size = until - given;
                given = until;
                size
            })
            .collect()
    }

    /// Frames of each type: IDR, P, B.
    pub fn count(&self) -> (u64, u64, u64) {
        self.frames
            .iter()
            .fold((0, 0, 0), |(i, p, b), f| match f.kind {
                FrameType::Idr => (i + 1, p, b),
                FrameType::P => (i, p + 1, b),
                FrameType::B => (i, p, b + 1),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_display_position_occurs_once_and_b_frames_follow_their_anchors() {
        for (gop, b) in [(60, 2), (60, 0), (1, 2), (2, 3), (50, 3)] {
            let plan = GopPlan::new(gop, b);
            let mut seen: Vec<u32> = plan.frames.iter().map(|f| f.display).collect();
            for (i, f) in plan.frames.iter().enumerate() {
                if f.kind == FrameType::B {
                    assert!(plan.frames[..i].iter().any(|a| a.display == f.future));
                    assert!(f.past < f.display && f.display < f.future);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..gop).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_frame_is_displayed_before_it_is_decoded() {
        let plan = GopPlan::new(60, 2);
        for (decode, f) in plan.frames.iter().enumerate() {
            assert!(f.display + plan.reorder >= u32::try_from(decode).unwrap());
        }
    }

    #[test]
    fn sizes_share_out_every_byte() {
        let plan = GopPlan::new(60, 2);
        let sizes = plan.sizes(12_345_678);
        assert_eq!(sizes.iter().sum::<u64>(), 12_345_678);
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2]);
    }
}
