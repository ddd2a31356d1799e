//! AV1: OBUs, sequence and frame headers, files in both framings and IVF, and MPEG-TS.

use mirror_media::Format;
use mirror_media::codec::av1::{Leb128, Obu, ObuHeader, State, leb128};
use mirror_media::files::ivf;
use mirror_media::files::obu::{Framing, Reader, TemporalUnit, TemporalUnits, detect};

use crate::media_harness::{Bench, Side, limits};
use crate::ts_writer::{PIDS, Writer};

/// A file, a sequence of OBUs, a PES payload.
pub fn run(data: &[u8]) {
    if let Leb128::Value(_, used) = leb128(data) {
        assert!((1..=8).contains(&used) && used <= data.len());
    }
    obus(data);
    for framing in [Framing::LowOverhead, Framing::AnnexB] {
        let mut reader = Reader::default();
        for unit in TemporalUnits::new(data, framing).flatten() {
            assert!(unit.offset + unit.bytes.len() <= data.len());
            let facts = reader.unit(&unit);
            assert!(facts.frames.len() <= unit.bytes.len());
        }
        let _ = reader.track();
    }
    let _ = detect(data);
    if let Some(header) = ivf::Header::parse(data) {
        let mut reader = Reader::default();
        for frame in ivf::Frames::new(data, &header).flatten() {
            assert!(frame.offset + frame.data.len() <= data.len());
            let _ = reader.unit(&TemporalUnit::alone(frame.data, frame.offset));
        }
    }
    transport(data);
}

/// One OBU after another, and what is not one as the payload of each type.
fn obus(data: &[u8]) {
    let mut state = State::default();
    for unit in TemporalUnits::new(data, Framing::LowOverhead).flatten() {
        for obu in unit.obus().flatten() {
            let _ = state.take(&obu.header, obu.payload);
            let mut written = Vec::new();
            obu.write(&mut written);
            assert!(
                written.is_empty() || Obu::read(&written).is_some_and(|o| o.payload == obu.payload)
            );
        }
    }
    for kind in 0..16_u8 {
        if let Some(header) = ObuHeader::from_first(kind << 3) {
            let _ = state.take(&header, data);
        }
    }
    assert!((1..=8).contains(&state.temporal_layers()) && state.spatial_layers() <= 4);
    let _ = (state.info(), state.sequence());
}

fn transport(data: &[u8]) {
    let [choice, size, rest @ ..] = data else {
        return;
    };
    let mut bench = Bench::new(Format::MpegTs, limits(*choice));
    let mut writer = Writer::default();
    writer.tables(&[8]);
    for (n, chunk) in rest.chunks(usize::from(*size).max(1) * 8).enumerate() {
        let pts = 90_000 + n as u64 * 3_003;
        writer.pes(PIDS[0], 0xBD, pts, n % 2 == 0, chunk);
    }
    for datagram in writer.bytes.chunks(1_316) {
        bench.push(datagram, Side::default());
    }
    bench.finish();
}
