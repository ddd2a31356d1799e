//! JPEG XS: picture headers, boxes, files, and MPEG-TS.

use mirror_media::Format;
use mirror_media::codec::jpegxs::{
    Boxes, Facts, Header, Parsed, VideoSupport, boxes, ends_codestream,
};
use mirror_media::files::jxs::{Pictures, detect};

use crate::media_harness::{Bench, Side, limits};
use crate::ts_writer::{PIDS, Writer};

/// A codestream, a file, a PES payload.
pub fn run(data: &[u8]) {
    if let Parsed::Header(header) = Header::parse(data) {
        let _ = (header.slices(), header.profile_name());
        assert!(header.first_slice.is_none_or(|at| at <= data.len()));
    }
    if let Boxes::Codestream(at, _) = boxes(data) {
        assert!(at <= data.len());
    }
    let _ = (ends_codestream(data), detect(data));
    let _ = VideoSupport::from_descriptor(data);
    if let Some((at, _)) = Facts::default().take(data) {
        assert!(at <= data.len());
    }
    let mut pictures = Pictures::new(data);
    let mut end = 0;
    for picture in pictures.by_ref().flatten() {
        assert!(picture.offset >= end && !picture.bytes.is_empty());
        end = picture.offset + picture.bytes.len();
        assert!(end <= data.len());
    }
    let _ = pictures.track();
    transport(data);
}

fn transport(data: &[u8]) {
    let [choice, size, rest @ ..] = data else {
        return;
    };
    let mut bench = Bench::new(Format::MpegTs, limits(*choice));
    let mut writer = Writer::default();
    writer.tables(&[15]);
    for (n, chunk) in rest.chunks(usize::from(*size).max(1) * 32).enumerate() {
        let pts = 90_000 + n as u64 * 3_003;
        writer.pes(PIDS[0], 0xBD, pts, n % 2 == 0, chunk);
    }
    for datagram in writer.bytes.chunks(1_316) {
        bench.push(datagram, Side::default());
    }
    bench.finish();
}
