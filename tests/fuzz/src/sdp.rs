//! Session descriptions (RFC 8866) and the format parameters in them.

use mirror_media::{FormatParameters, PayloadFormat};
use mirror_rtp::sdp;

/// A description.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count();
    let first = sdp::parse(&text);
    match &first {
        Ok(description) => {
            assert!(description.media.len() <= lines);
            for media in &description.media {
                check(media, lines);
            }
        }
        Err(errors) => {
            assert!(
                !errors.is_empty() && errors.len() <= lines + 16,
                "{errors:?}"
            );
            for error in errors {
                assert!(error.line <= lines + 1, "{error:?}");
                // It is shown to people and logged.
                assert!(error.message.len() < 2_000, "{error:?}");
            }
        }
    }
    // Lines may end either way.
    if !text.contains('\r') {
        let other = sdp::parse(&text.replace('\n', "\r\n"));
        assert_eq!(first.is_ok(), other.is_ok(), "{first:?}, {other:?}");
    }
}

fn check(media: &sdp::MediaDescription, lines: usize) {
    assert!(media.line <= lines);
    for map in &media.rtpmap {
        assert!(map.payload_type < 128, "{map:?}");
        let parameters = media.parameters(map.payload_type);
        if let (Some(format), Some(parameters)) =
            (PayloadFormat::from_encoding_name(&map.encoding), parameters)
            && let Ok(read) = FormatParameters::parse(format, &parameters.text)
        {
            assert!(read.parameter_sets.len() <= 64 && read.config.len() <= 4_096);
        }
    }
    for number in 0..128 {
        let _ = media.map(number);
    }
}
