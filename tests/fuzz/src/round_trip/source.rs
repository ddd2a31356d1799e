//! Media to be sent: the pictures of real streams, their slices cut and stretched to the sizes
//! that the input chooses. What a parser reads of a slice, its header, stays as it was.

use std::sync::OnceLock;

use mirror_media::files::annexb::{self, AnnexB};
use mirror_media::{AccessUnit, Codec, Limits};

use super::Choices;

/// Bytes of a slice that stay: as many as are read of it, and more.
const HEAD: usize = 128;

/// A picture: NAL units without start codes, and what a reader of files said of it.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) nals: Vec<Vec<u8>>,
    pub(super) unit: AccessUnit,
}

impl Picture {
    /// Annex B with start codes of four bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for nal in &self.nals {
            out.extend([0, 0, 0, 1]);
            out.extend(nal);
        }
        out
    }
}

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../../vectors/media/", $name)).as_slice()
    };
}

pub(super) const AV1: [&[u8]; 3] = [
    vector!("av1_svt.obu"),
    vector!("av1_aom_altref.obu"),
    vector!("av1_aom_rt_tiles.obu"),
];

pub(super) const JPEG_XS: [&[u8]; 2] = [vector!("jxs_422_8b.jxs"), vector!("jxs_422_10b.jxs")];

const H264: [&[u8]; 5] = [
    vector!("h264_multislice4.h264"),
    vector!("h264_b3pyr_opengop.h264"),
    vector!("h264_interlaced_mbaff.h264"),
    vector!("h264_ipp_aud.h264"),
    vector!("h264_intra_refresh.h264"),
];

const H265: [&[u8]; 4] = [
    vector!("hevc_slices3.h265"),
    vector!("hevc_b3_opengop_cra.h265"),
    vector!("hevc_temporal_layers.h265"),
    vector!("hevc_hrd.h265"),
];

type Streams = Vec<Vec<Picture>>;

/// The streams of `codec`, H.264 or HEVC, taken apart once.
fn streams(codec: Codec) -> &'static Streams {
    static STREAMS: OnceLock<[Streams; 2]> = OnceLock::new();
    let all = STREAMS.get_or_init(|| {
        let read = |codec, files: &[&[u8]]| files.iter().map(|f| pictures(codec, f)).collect();
        [read(Codec::H264, &H264), read(Codec::H265, &H265)]
    });
    &all[usize::from(codec == Codec::H265)]
}

fn pictures(codec: Codec, file: &[u8]) -> Vec<Picture> {
    let mut reader = AnnexB::new(codec, &Limits::default()).expect("it has start codes");
    reader.push(file);
    reader.finish();
    let units = core::iter::from_fn(|| reader.poll_unit());
    let picture = |read: annexb::FileUnit| {
        let end = annexb::offset_of(read.unit.end) as usize;
        let nals = annexb::nal_units(&file[read.offset as usize..end]);
        Picture {
            nals: nals.map(<[u8]>::to_vec).collect(),
            unit: read.unit,
        }
    };
    let all: Vec<Picture> = units.map(picture).collect();
    assert!(all.len() > 20 && all.iter().all(|p| !p.unit.damaged));
    all
}

pub(super) fn is_slice(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(nal[0] & 0x1F, 1 | 5),
        _ => nal[0] >> 1 & 0x3F < 32,
    }
}

/// The first pictures of one of the streams, with slices of other sizes.
pub(super) fn choose(codec: Codec, choices: &mut Choices<'_>) -> Vec<Picture> {
    let stream = choices.pick(streams(codec));
    let count = choices.between(1, 14).min(stream.len());
    let mut chosen = stream[..count].to_vec();
    for nal in chosen.iter_mut().flat_map(|p| &mut p.nals) {
        if !is_slice(codec, nal) || choices.once_in(3) {
            continue;
        }
        let longest = *choices.pick(&[200, 1_000, 1_500, 12_000]);
        let size = choices.between(HEAD, longest);
        if size < nal.len() {
            nal.truncate(size);
            nal.extend([0x80]);
        } else {
            let more = size - nal.len();
            choices.filling(nal, more);
        }
    }
    chosen
}

/// The time of each picture by its place in display order, 90 kHz, from 0.
pub(super) fn display_times(pictures: &[Picture]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..pictures.len()).collect();
    order.sort_by_key(|&n| pictures[n].unit.order);
    let mut times = vec![0; pictures.len()];
    for (place, n) in (0..).zip(order) {
        times[n] = place * 3_000;
    }
    times
}
