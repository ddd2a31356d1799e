//! Audio headers and configurations: the input as each of them, as a sequence of frames, and as
//! PES payloads of each codec.

use mirror_media::Format;
use mirror_media::codec::audio::{AudioInfo, aac, ac3, adts, find_frame, latm, mpeg_audio, opus};

use crate::media_harness::{Bench, Side, limits};
use crate::ts_writer::{PIDS, Writer};

/// Of [`crate::ts_writer::STREAMS`], those of audio.
const AUDIO: [u8; 8] = [3, 4, 5, 6, 7, 9, 10, 11];

/// Frames, a configuration, a PES payload.
pub fn run(data: &[u8]) {
    type Parser = fn(&[u8]) -> Option<AudioInfo>;
    let parsers: [Parser; 5] = [adts, ac3, mpeg_audio, opus::packet, opus::head];
    for parse in parsers {
        if let Some(info) = parse(data) {
            check(&info);
        }
    }
    for parse in [adts, ac3, mpeg_audio] {
        if let Some((at, info)) = find_frame(data, parse) {
            assert!(at < data.len() && info.frame_bytes > 0);
        }
    }
    let _ = ac3::sync_frame(data);
    if let Some(header) = opus::control_header(data) {
        assert!((3..=data.len()).contains(&header.bytes), "{header:?}");
    }
    if let Some(config) = aac::audio_specific_config(data) {
        check(&config.info());
    }
    let _ = (latm::stream_mux_config(data), latm::element_config(data));
    if let Some(length) = latm::loas(data) {
        assert!((3..=8_194).contains(&length));
    }
    let mut known = None;
    for element in data.chunks(64) {
        for in_band in [true, false] {
            if let Some(found) = latm::audio_mux_element(element, in_band, known.as_ref()) {
                assert!(found.bytes <= element.len());
                check(&found.config.audio.info());
                known = Some(found.config);
            }
        }
    }
    transport(data);
}

fn check(info: &AudioInfo) {
    assert!((4_000..=384_000).contains(&info.sample_rate), "{info:?}");
    assert!(info.channels <= 64 && info.samples <= 1 << 20, "{info:?}");
}

fn transport(data: &[u8]) {
    let [choice, size, rest @ ..] = data else {
        return;
    };
    let mut bench = Bench::new(Format::MpegTs, limits(*choice));
    let mut writer = Writer::default();
    writer.tables(&AUDIO);
    for (n, chunk) in rest.chunks(usize::from(*size).max(1) * 8).enumerate() {
        for (k, pid) in PIDS.iter().enumerate() {
            if choice >> 5 == k as u8 || choice & 1 == 1 {
                let id = if k < 3 { 0xC0 } else { 0xBD };
                writer.pes(*pid, id, 90_000 + n as u64 * 1_920, true, chunk);
            }
        }
    }
    for datagram in writer.bytes.chunks(1_316) {
        bench.push(datagram, Side::default());
    }
    bench.finish();
}
