//! Stream IDs carry passwords and tokens in the dialects of the field (spec section 19). Here
//! they are taken out of what people see: logs, the API, tags, Redis. Called by whoever shows a
//! stream ID; the access decision reads [`crate::StreamIdFields`].
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::stream_id::{decoded, printable};

/// What stands in a credential's place.
const HIDDEN: &str = "***";

/// Keys whose values are nobody's business.
const CREDENTIALS: [&str; 16] = [
    "pass",
    "passwd",
    "password",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "key",
    "apikey",
    "api_key",
    "streamkey",
    "auth",
    "authorization",
    "signature",
    "sig",
    "jwt",
];

/// A stream ID as people may see it: [`printable`], at most `limit` bytes, and `***` in the place
/// of passwords and tokens: values of such keys in the structured form and in queries, and the
/// password of `publish:path:user:pass`.
pub fn shown_stream_id(raw: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(raw);
    let plain = decoded(&text);
    let hidden = without_credentials(&plain);
    if hidden == *plain {
        // Nothing to hide: as it came, encoded or not.
        printable(raw, limit)
    } else {
        printable(hidden.as_bytes(), limit)
    }
}

/// A key of the stream ID with its value, as a tag shows it.
pub fn shown_field(key: &str, value: &str) -> String {
    if is_credential(key) {
        format!("{key}={HIDDEN}")
    } else {
        format!("{key}={}", hide_values(value))
    }
}

fn is_credential(key: &str) -> bool {
    let key = key.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    CREDENTIALS.iter().any(|c| key.eq_ignore_ascii_case(c))
}

fn without_credentials(text: &str) -> String {
    let Some(mode) = ["publish:", "read:", "request:"]
        .into_iter()
        .find(|mode| text.starts_with(mode))
    else {
        return hide_values(text);
    };
    let rest = text.strip_prefix(mode).unwrap_or("");
    let mut parts: Vec<String> = rest.split(':').map(hide_values).collect();
    if let Some(password) = parts.get_mut(2) {
        HIDDEN.clone_into(password);
    }
    format!("{mode}{}", parts.join(":"))
}

/// `key=value` between the separators of lists and queries.
fn hide_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive([',', '&', '?', ';']) {
        let (pair, separator) = match piece.char_indices().next_back() {
            Some((at, ',' | '&' | '?' | ';')) => piece.split_at(at),
            _ => (piece, ""),
        };
        match pair.split_once('=') {
            Some((key, _)) if is_credential(key) => {
                out.push_str(key);
                out.push('=');
                out.push_str(HIDDEN);
            }
            _ => out.push_str(pair),
        }
        out.push_str(separator);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{shown_field, shown_stream_id};

    fn shown(text: &str) -> String {
        shown_stream_id(text.as_bytes(), 512)
    }

    #[test]
    fn passwords_and_tokens_are_not_shown() {
        for (raw, expected) in [
            ("live/cam1", "live/cam1"),
            (
                "#!::r=live/a,m=publish,u=bob",
                "#!::r=live/a,m=publish,u=bob",
            ),
            (
                "#!::r=live/a,token=s3cret=x,m=publish",
                "#!::r=live/a,token=***,m=publish",
            ),
            ("#!::Password=s3cret", "#!::Password=***"),
            ("#!:{u=a,pass=s3cret}", "#!:{u=a,pass=***"),
            ("#!:{pass=s3cret}", "#!:{pass=***"),
            ("publish:live/a:bob:s3cret", "publish:live/a:bob:***"),
            (
                "publish:live/a:bob:s3cret:token=s3cret&x=1",
                "publish:live/a:bob:***:token=***&x=1",
            ),
            ("publish:live/a:token=s3cret", "publish:live/a:token=***"),
            (
                "srt://h:1/app/s?x=1&key=s3cret",
                "srt://h:1/app/s?x=1&key=***",
            ),
            (
                "#!::h=host/live/s?sig=s3cret,m=publish",
                "#!::h=host/live/s?sig=***,m=publish",
            ),
            ("%23%21%3A%3Ar%3Da%2Cpass%3Ds3cret", "#!::r=a,pass=***"),
            ("%23!::r=a,pass=s3cret", "#!::r=a,pass=***"),
            ("%23!::r=a", "%23!::r=a"),
        ] {
            assert_eq!(shown(raw), expected, "{raw}");
        }
    }

    #[test]
    fn fields_are_shown_without_their_secrets() {
        assert_eq!(shown_field("studio", "1"), "studio=1");
        assert_eq!(shown_field("pass", "s3cret"), "pass=***");
        assert_eq!(
            shown_field("query", "a=1&token=s3cret"),
            "query=a=1&token=***"
        );
    }

    #[test]
    fn any_bytes_are_shown_within_the_limit() {
        let mut state = 7u32;
        for len in 0..600 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            assert!(shown_stream_id(&bytes, 100).len() <= 100);
        }
    }
}
