//! What a payload or a file is, by its bits: packets without a hint, and the beginnings of files.

use mirror_media::codec::audio;
use mirror_media::files::{annexb, ivf, jxs, obu};
use mirror_media::ts;

use crate::depacketise;

/// Packets as in [`crate::depacketise`], and a file's beginning.
pub fn run(data: &[u8]) {
    depacketise::without_hint(data);
    let _ = (annexb::detect(data), jxs::detect(data), obu::detect(data));
    if let Some(header) = ivf::Header::parse(data) {
        assert!(header.length >= 32);
    }
    assert!(ts::packet_size(data).is_none_or(|n| [188, 192, 204].contains(&n)));
    for parse in [audio::adts, audio::ac3, audio::mpeg_audio] {
        let _ = audio::find_frame(data, parse);
    }
    let player = ts::file::FilePlayer::new(data);
    let _ = format!("{player:?}").len();
}
