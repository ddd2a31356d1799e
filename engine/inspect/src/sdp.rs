//! Payload types that a session description names (`a=rtpmap`, `a=fmtp`), for captures whose
//! payloads cannot be told by their bits.

use mirror_media::{FormatParameters, PayloadFormat, PayloadHint};
use mirror_rtp::sdp::parse;

/// Number, what it stands for, and clock rate in Hz.
pub(crate) fn payload_types(text: &str) -> Result<Vec<(u8, PayloadHint, u32)>, String> {
    let description = parse(text).map_err(|errors| {
        let lines = errors
            .iter()
            .map(|e| format!("line {}: {}", e.line, e.message));
        lines.collect::<Vec<_>>().join("; ")
    })?;
    let mut found = Vec::new();
    for media in &description.media {
        for map in &media.rtpmap {
            // RTX, FEC and what is not known here carry nothing that is taken apart.
            let Some(format) = PayloadFormat::from_encoding_name(&map.encoding) else {
                continue;
            };
            let fmtp = media.parameters(map.payload_type);
            let text = fmtp.map_or("", |fmtp| fmtp.text.as_str());
            let line = fmtp.map_or(map.line, |fmtp| fmtp.line);
            let mut parameters = FormatParameters::parse(format, text)
                .map_err(|bad| format!("line {line}: {bad}"))?;
            // RFC 7587, 7: the map of Opus says 2 whatever is sent.
            if parameters.channels == 0 && format != PayloadFormat::Opus {
                parameters.channels = map.channels;
            }
            let hint = PayloadHint { format, parameters };
            found.push((map.payload_type, hint, map.clock_rate));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_parameters_become_hints() {
        let text = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=audio 5004 RTP/AVP 97 98\r\na=rtpmap:97 L16/48000/2\r\n\
            a=rtpmap:98 rtx/48000\r\na=fmtp:98 apt=97\r\n";
        let found = payload_types(text).unwrap();
        let [(number, hint, rate)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(
            (*number, hint.format, *rate),
            (97, PayloadFormat::L16, 48_000)
        );
        assert_eq!(hint.parameters.channels, 2);
        assert!(payload_types("m=nonsense").is_err());
    }
}
