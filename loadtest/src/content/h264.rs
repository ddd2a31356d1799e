//! H.264 access units that a decoder accepts (ITU-T H.264): High profile, CAVLC, progressive
//! 4:2:0. The bulk of each picture is I_PCM macroblocks of noise, so that a picture can have any
//! size and its bytes look like coded video; the rest is skipped (P, B) or flat grey (IDR).

use super::bits::{BitWriter, nal_unit};
use super::gop::{Frame, FrameType};
use super::{Noise, VideoShape};

/// Bytes of an I_PCM macroblock: 256 luma and 128 chroma samples (7.3.5.3).
const PCM_SAMPLES: usize = 384;
/// The same with its mb_type (and mb_skip_run), which end in its first two bytes.
const PCM_BYTES: usize = PCM_SAMPLES + 2;

/// One access unit: delimiter, (SPS, PPS), slices.
pub fn access_unit(
    shape: &VideoShape,
    frame: &Frame,
    target: usize,
    noise: &mut Noise,
) -> Vec<Vec<u8>> {
    // 7.4.2.4: primary_pic_type 0 = I, 1 = I and P, 2 = I, P and B
    let primary_pic_type = match frame.kind {
        FrameType::Idr => 0,
        FrameType::P => 1,
        FrameType::B => 2,
    };
    let mut nals = vec![vec![0x09, primary_pic_type << 5 | 0x10]];
    if frame.kind == FrameType::Idr {
        nals.push(sequence_parameter_set(shape));
        nals.push(picture_parameter_set());
    }
    let macroblocks = shape.width.div_ceil(16) * shape.height.div_ceil(16);
    let used: usize = nals.iter().map(|n| n.len() + 4).sum();
    // an IDR's grey macroblocks take a byte each, in a slice of their own
    let rest = if frame.kind == FrameType::Idr {
        macroblocks as usize + 24
    } else {
        16
    };
    let budget = target.saturating_sub(used + rest + 24);
    let pcm = u32::try_from(budget / PCM_BYTES)
        .unwrap_or(u32::MAX)
        .min(macroblocks);
    if frame.kind == FrameType::Idr {
        if pcm > 0 {
            nals.push(slice(frame, 0, pcm, 0, noise));
        }
        if pcm < macroblocks {
            nals.push(slice(frame, pcm, 0, macroblocks - pcm, noise));
        }
    } else {
        nals.push(slice(frame, 0, pcm, macroblocks - pcm, noise));
    }
    nals
}

/// Filler data (7.3.2.7) of exactly `bytes` bytes with its NAL header; at least 2.
pub fn filler(bytes: usize) -> Vec<u8> {
    let mut nal = vec![0xFF; bytes.max(2)];
    if let Some(first) = nal.first_mut() {
        *first = 0x0C;
    }
    if let Some(last) = nal.last_mut() {
        *last = 0x80;
    }
    nal
}

fn sequence_parameter_set(shape: &VideoShape) -> Vec<u8> {
    let (mbs_wide, mbs_high) = (shape.width.div_ceil(16), shape.height.div_ceil(16));
    let mut w = BitWriter::new();
    w.bits(100, 8).bits(0, 8); // profile_idc High, no constraints
    let level = if mbs_wide * mbs_high <= 8_192 { 41 } else { 51 };
    w.bits(level, 8).ue(0); // level_idc, seq_parameter_set_id
    w.ue(1).ue(0).ue(0).flag(false).flag(false); // 4:2:0, 8 bits, no bypass, no scaling
    w.ue(12); // log2_max_frame_num_minus4: 16 bits
    w.ue(0).ue(12); // pic_order_cnt_type 0, 16 bits
    w.ue(2).flag(false); // max_num_ref_frames, no gaps
    w.ue(mbs_wide - 1).ue(mbs_high - 1);
    w.flag(true).flag(true); // frame_mbs_only, direct_8x8_inference
    let (crop_right, crop_bottom) = (mbs_wide * 16 - shape.width, mbs_high * 16 - shape.height);
    let cropped = crop_right + crop_bottom > 0;
    w.flag(cropped);
    if cropped {
        w.ue(0).ue(crop_right / 2).ue(0).ue(crop_bottom / 2);
    }
    w.flag(true); // vui_parameters_present (E.1.1)
    w.flag(false).flag(false).flag(false).flag(false); // aspect, overscan, video signal, chroma
    w.flag(true); // timing_info: a tick is half a frame
    w.bits(shape.fps_den.into(), 32)
        .bits(u64::from(shape.fps_num) * 2, 32)
        .flag(true);
    w.flag(false).flag(false).flag(false); // no HRDs, no pic_struct
    w.flag(true).flag(true).ue(0).ue(0).ue(16).ue(16); // bitstream_restriction
    w.ue(u32::from(shape.b_frames > 0)).ue(2); // max_num_reorder_frames, max_dec_frame_buffering
    w.trailing();
    nal_unit(&[0x67], &w.into_bytes())
}

fn picture_parameter_set() -> Vec<u8> {
    let mut w = BitWriter::new();
    w.ue(0).ue(0).flag(false).flag(false); // ids, CAVLC, no pic order in slices
    w.ue(0).ue(0).ue(0); // one slice group, one reference in each list
    w.flag(false).bits(0, 2); // no weighted prediction
    w.se(0).se(0).se(0); // QP 26, chroma offset 0
    w.flag(true).flag(false).flag(false); // deblocking control, no constrained intra
    w.trailing();
    nal_unit(&[0x68], &w.into_bytes())
}

/// A slice from macroblock `first`: `pcm` of noise, then `rest` skipped or grey ones.
fn slice(frame: &Frame, first: u32, pcm: u32, rest: u32, noise: &mut Noise) -> Vec<u8> {
    let mut w = slice_header(frame, first);
    // table 7-11 and following: I_PCM is mb_type 25, after 5 P types or 23 B types
    let mb_type = match frame.kind {
        FrameType::Idr => 25,
        FrameType::P => 5 + 25,
        FrameType::B => 23 + 25,
    };
    for _ in 0..pcm {
        if frame.kind != FrameType::Idr {
            w.ue(0); // mb_skip_run
        }
        w.ue(mb_type).align_zero(); // pcm_alignment_zero_bit
        noise.append_nonzero(w.bytes_mut(), PCM_SAMPLES);
    }
    if frame.kind != FrameType::Idr {
        if rest > 0 {
            w.ue(rest);
        }
    } else {
        for _ in 0..rest {
            // I_16x16_2_0_0 (DC), chroma DC, mb_qp_delta 0, coeff_token "1": no coefficients
            w.ue(3).ue(0).se(0).flag(true);
        }
    }
    w.trailing();
    let header = match frame.kind {
        FrameType::Idr => 0x65,
        FrameType::P => 0x41,
        FrameType::B => 0x01,
    };
    nal_unit(&[header], &w.into_bytes())
}

/// slice_header() (7.3.3) for the parameter sets above.
fn slice_header(frame: &Frame, first: u32) -> BitWriter {
    let mut w = BitWriter::new();
    w.ue(first);
    w.ue(match frame.kind {
        FrameType::Idr => 7,
        FrameType::P => 5,
        FrameType::B => 6,
    });
    w.ue(0).bits(frame.references_before.into(), 16);
    if frame.kind == FrameType::Idr {
        w.ue(0); // idr_pic_id
    }
    w.bits(u64::from(frame.display) * 2, 16); // pic_order_cnt_lsb
    match frame.kind {
        FrameType::Idr => {}
        FrameType::P => {
            w.flag(false).flag(false); // no override, no list modification
        }
        FrameType::B => {
            w.flag(true).flag(false).flag(false).flag(false); // spatial direct
        }
    }
    match frame.kind {
        FrameType::Idr => {
            w.flag(false).flag(false); // dec_ref_pic_marking
        }
        FrameType::P => {
            w.flag(false); // sliding window
        }
        FrameType::B => {}
    }
    w.se(0).ue(1); // slice_qp_delta, deblocking off
    w
}
