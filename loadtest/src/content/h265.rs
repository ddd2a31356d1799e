//! HEVC access units (ITU-T H.265): Main profile, progressive 4:2:0. Parameter sets and slice
//! segment headers are complete and true to the plan (order counts, reference sets); the CABAC
//! payload of a slice is noise without start codes: right for everything short of a decoder.

use super::bits::{BitWriter, nal_unit};
use super::gop::{Frame, FrameType};
use super::{Noise, VideoShape};

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const AUD: u8 = 35;
const FILLER: u8 = 38;
const IDR_W_RADL: u8 = 19;
const TRAIL_R: u8 = 1;
const TRAIL_N: u8 = 0;

const fn header(nal_type: u8) -> [u8; 2] {
    [nal_type << 1, 1]
}

/// One access unit: delimiter, (VPS, SPS, PPS), one slice segment.
pub fn access_unit(
    shape: &VideoShape,
    frame: &Frame,
    target: usize,
    noise: &mut Noise,
) -> Vec<Vec<u8>> {
    let mut aud = header(AUD).to_vec();
    // 7.4.3.5: pic_type 0 = I, 1 = P and I, 2 = B, P and I; then the trailing bit
    aud.push(match frame.kind {
        FrameType::Idr => 0x10,
        FrameType::P => 0x30,
        FrameType::B => 0x50,
    });
    let mut nals = vec![aud];
    if frame.kind == FrameType::Idr {
        nals.push(video_parameter_set(shape));
        nals.push(sequence_parameter_set(shape));
        nals.push(picture_parameter_set());
    }
    let used: usize = nals.iter().map(|n| n.len() + 4).sum();
    let mut w = slice_segment_header(frame);
    w.trailing(); // byte_alignment()
    noise.append_nonzero(w.bytes_mut(), target.saturating_sub(used + 32).max(16));
    w.trailing();
    let nal_type = match frame.kind {
        FrameType::Idr => IDR_W_RADL,
        FrameType::P => TRAIL_R,
        FrameType::B => TRAIL_N,
    };
    nals.push(nal_unit(&header(nal_type), &w.into_bytes()));
    nals
}

/// Filler data (7.3.2.8) of exactly `bytes` bytes with its NAL header; at least 3.
pub fn filler(bytes: usize) -> Vec<u8> {
    let mut nal = header(FILLER).to_vec();
    nal.resize(bytes.max(3) - 1, 0xFF);
    nal.push(0x80);
    nal
}

/// profile_tier_level(1, 0) (7.3.3): Main, Main tier.
fn profile_tier_level(w: &mut BitWriter, shape: &VideoShape) {
    w.bits(0, 2).flag(false).bits(1, 5).bits(0x6000_0000, 32);
    w.flag(true).flag(false).flag(false).flag(true); // progressive, frames only
    w.bits(0, 44);
    let level = if shape.width * shape.height <= 2_228_224 {
        123
    } else {
        153
    }; // A.4.1
    w.bits(level, 8);
}

/// Decoded picture buffer, reordering, latency: of the only sub-layer.
fn sub_layer_ordering(w: &mut BitWriter, shape: &VideoShape) {
    w.flag(true).ue(3).ue(u32::from(shape.b_frames > 0)).ue(0);
}

fn video_parameter_set(shape: &VideoShape) -> Vec<u8> {
    let mut w = BitWriter::new();
    w.bits(0, 4)
        .flag(true)
        .flag(true)
        .bits(0, 6)
        .bits(0, 3)
        .flag(true)
        .bits(0xFFFF, 16);
    profile_tier_level(&mut w, shape);
    sub_layer_ordering(&mut w, shape);
    w.bits(0, 6).ue(0); // vps_max_layer_id, one layer set
    w.flag(true)
        .bits(shape.fps_den.into(), 32)
        .bits(shape.fps_num.into(), 32)
        .flag(false)
        .ue(0);
    w.flag(false).trailing();
    nal_unit(&header(VPS), &w.into_bytes())
}

fn sequence_parameter_set(shape: &VideoShape) -> Vec<u8> {
    let (coded_width, coded_height) = (
        shape.width.next_multiple_of(8),
        shape.height.next_multiple_of(8),
    );
    let mut w = BitWriter::new();
    w.bits(0, 4).bits(0, 3).flag(true);
    profile_tier_level(&mut w, shape);
    w.ue(0).ue(1).ue(coded_width).ue(coded_height);
    let (right, bottom) = (coded_width - shape.width, coded_height - shape.height);
    w.flag(right + bottom > 0);
    if right + bottom > 0 {
        w.ue(0).ue(right / 2).ue(0).ue(bottom / 2);
    }
    w.ue(0).ue(0).ue(12); // 8 bits, order counts of 16 bits
    sub_layer_ordering(&mut w, shape);
    w.ue(0).ue(3).ue(0).ue(3).ue(0).ue(0); // coding blocks 8 to 64, transforms 4 to 32
    w.flag(false).flag(false).flag(false).flag(false); // scaling lists, AMP, SAO, PCM
    w.ue(0).flag(false).flag(false).flag(false); // reference sets stand in the slices
    w.flag(true); // vui_parameters (E.2.1)
    w.flag(false).flag(false).flag(false).flag(false); // aspect, overscan, signal, chroma
    w.flag(false).flag(false).flag(false).flag(false); // neutral, fields, frame info, window
    w.flag(true)
        .bits(shape.fps_den.into(), 32)
        .bits(shape.fps_num.into(), 32);
    w.flag(false).flag(false).flag(false); // poc proportional, HRD, restriction
    w.flag(false).trailing();
    nal_unit(&header(SPS), &w.into_bytes())
}

fn picture_parameter_set() -> Vec<u8> {
    let mut w = BitWriter::new();
    w.ue(0)
        .ue(0)
        .flag(false)
        .flag(false)
        .bits(0, 3)
        .flag(false)
        .flag(false);
    w.ue(0).ue(0).se(0); // one reference in each list, QP 26
    w.flag(false).flag(false).flag(false).se(0).se(0); // intra, transform skip, QP deltas
    w.flag(false).flag(false).flag(false).flag(false); // chroma QP, weights, bypass
    w.flag(false).flag(false).flag(false); // tiles, wavefronts, filter across slices
    w.flag(true).flag(false).flag(true); // deblocking off
    w.flag(false).flag(false).ue(0).flag(false).flag(false);
    w.trailing();
    nal_unit(&header(PPS), &w.into_bytes())
}

/// slice_segment_header() (7.3.6.1) for the parameter sets above.
fn slice_segment_header(frame: &Frame) -> BitWriter {
    let mut w = BitWriter::new();
    w.flag(true);
    if frame.kind == FrameType::Idr {
        w.flag(false); // no_output_of_prior_pics_flag
    }
    w.ue(0);
    w.ue(match frame.kind {
        FrameType::B => 0,
        FrameType::P => 1,
        FrameType::Idr => 2,
    });
    if frame.kind != FrameType::Idr {
        w.bits(frame.display.into(), 16).flag(false); // order count; reference set is explicit
        // st_ref_pic_set (7.3.7): delta_poc minus 1, used
        let future = frame.kind == FrameType::B;
        w.ue(1).ue(u32::from(future));
        w.ue(frame.display - frame.past - 1).flag(true);
        if future {
            w.ue(frame.future - frame.display - 1).flag(true);
        }
        w.flag(false); // num_ref_idx_active_override_flag
        if future {
            w.flag(false); // mvd_l1_zero_flag
        }
        w.ue(4); // five_minus_max_num_merge_cand
    }
    w.se(0);
    w
}
