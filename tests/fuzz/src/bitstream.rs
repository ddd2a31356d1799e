//! Elementary streams with start codes: H.264, HEVC and MPEG-2 video. The first bytes choose the
//! limits and the sizes of the pieces in which the stream comes; it goes through the reader of
//! files, as a whole and in pieces, and through PES packets.

use mirror_media::codec::{h264, h265, records, sei};
use mirror_media::files::annexb::{self, AnnexB, FileUnit};
use mirror_media::{Codec, Format, Limits, Track};

use crate::media_harness::{Bench, Side, limits};
use crate::ts_writer::{PIDS, Writer};

/// H.264.
pub fn h264(data: &[u8]) {
    stream(Codec::H264, 0, data);
    for nal in annexb::nal_units(data).take(200) {
        let rbsp = nal.get(1..).unwrap_or_default();
        let _ = (h264::parse_sps(rbsp), h264::parse_pps(rbsp));
        let _ = sei::read(sei::Dialect::H264, rbsp, |_| None);
    }
    let _ = records::record(Codec::H264, data);
}

/// HEVC.
pub fn h265(data: &[u8]) {
    stream(Codec::H265, 1, data);
    for nal in annexb::nal_units(data).take(200) {
        let rbsp = nal.get(2..).unwrap_or_default();
        let _ = (h265::parse_sps(rbsp), h265::parse_pps(rbsp));
        let _ = h265::parse_vps(rbsp);
        let _ = sei::read(sei::Dialect::H265, rbsp, |_| None);
    }
    let _ = records::record(Codec::H265, data);
}

/// MPEG-2 video.
pub fn mpeg2(data: &[u8]) {
    stream(Codec::Mpeg2Video, 2, data);
}

fn stream(codec: Codec, kind: u8, data: &[u8]) {
    let [choice, piece, rest @ ..] = data else {
        return;
    };
    let limits = limits(*choice);
    let whole = read(codec, &limits, rest, rest.len());
    let pieces = read(codec, &limits, rest, usize::from(*piece));
    assert_eq!(whole, pieces, "in pieces of {piece} bytes");
    let mut bench = Bench::new(Format::MpegTs, limits);
    let mut writer = Writer::default();
    writer.tables(&[kind]);
    for (n, chunk) in rest.chunks(usize::from(*piece).max(1) * 16).enumerate() {
        let bounded = choice & 0x40 == 0;
        writer.pes(PIDS[0], 0xE0, 90_000 + n as u64 * 3_003, bounded, chunk);
    }
    for datagram in writer.bytes.chunks(1_316) {
        bench.push(datagram, Side::default());
    }
    bench.finish();
}

/// What a reader tells of a file: its units, the track, the parameter sets, what it counted.
type Told = (Vec<FileUnit>, Track, Vec<u8>, [u64; 256], [u64; 3]);

/// A file that is read in pieces of `size` bytes: its units come in order and lie in it.
fn read(codec: Codec, limits: &Limits, data: &[u8], size: usize) -> Told {
    let mut reader = AnnexB::new(codec, limits).expect("a codec with start codes");
    let mut units = Vec::new();
    for piece in data.chunks(size.max(1)) {
        reader.push(piece);
        while let Some(unit) = reader.poll_unit() {
            units.push(unit);
        }
    }
    reader.finish();
    units.extend(core::iter::from_fn(|| reader.poll_unit()));
    let mut last = 0;
    for FileUnit { unit, offset, .. } in &units {
        assert!(*offset >= last, "in order");
        last = *offset;
        let end = annexb::offset_of(unit.end);
        assert!(*offset <= end && end <= data.len() as u64, "{unit:?}");
    }
    let sets = reader.parameter_sets().to_vec();
    assert!(sets.len() <= 256 << 10);
    let c = reader.assembler().counters();
    let counters = [c.malformed, c.oversized, c.dropped];
    (units, reader.track(), sets, *reader.nal_types(), counters)
}
