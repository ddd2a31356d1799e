//! The stream ID's content (spec section 19): access-control syntax, the dialects met in the
//! field, or a plain name. Called when a conclusion is authorised.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::borrow::Cow;

/// `raw` as people may see it, in a log, an API or a page: what is no UTF-8, control characters
/// (ESC, newline), marks that turn the direction of text and invisible ones become U+FFFD. At
/// most `limit` bytes.
pub fn printable(raw: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut shown = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        let c = if is_safe(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        };
        if shown.len() + c.len_utf8() > limit {
            break;
        }
        shown.push(c);
    }
    shown
}

/// Neither a control character nor one that hides or rearranges what stands beside it: Unicode's
/// format characters, line and paragraph separators, fillers, tags, private use, noncharacters.
const fn is_safe(c: char) -> bool {
    !matches!(c,
        '\0'..='\x1F' | '\x7F'..='\u{9F}'
        | '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}'
        | '\u{890}' | '\u{891}' | '\u{8E2}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{E000}'..='\u{F8FF}'
        | '\u{FDD0}'..='\u{FDEF}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}' | '\u{FFFE}' | '\u{FFFF}'
        | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1345F}' | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{10FFFF}')
}

/// Parsed `#!::` / plain / `publish:` stream ID (spec section 19).
///
/// Every text in it is safe to show ([`printable`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamIdFields {
    /// `r`, or the whole plain string.
    pub resource: String,
    /// `m`: "request", "publish", "bidirectional"; `None` when not said.
    pub mode: Option<String>,
    /// `u`.
    pub user: Option<String>,
    /// `s`.
    pub session: Option<String>,
    /// `h`.
    pub host: Option<String>,
    /// `t`: "stream", "file", "auth"; `None` when not said.
    pub kind: Option<String>,
    /// Other keys, in order.
    pub others: Vec<(String, String)>,
}

/// The block holds at most 512 bytes (spec section 4.2).
const MAX_LEN: usize = 512;

impl StreamIdFields {
    /// Lenient decoding in the order of spec section 19; never fails, never panics.
    ///
    /// A whole `srt://…` URL is reduced to its path, one leading `/` of the resource and a
    /// trailing `#feedbackplay` are taken off. Of the `publish:path:user:pass:query` form the
    /// password and the query are kept among the others, as `pass` and `query`.
    ///
    /// Percent-encoding is undone where it is one: in a string without any unescaped character
    /// that encoding hides, in one that begins with an encoded `#!::`, and in such values of the
    /// standard keys. The values of other keys stay as they came.
    pub fn parse(raw: &[u8]) -> Self {
        let raw = raw.get(..MAX_LEN).unwrap_or(raw);
        let text = String::from_utf8_lossy(raw);
        let decoded = decoded(&text);
        let text = trim(&decoded);
        let text = text.strip_suffix("#feedbackplay").map_or(text, trim);
        let mut fields = if let Some(list) = text.strip_prefix("#!::") {
            Self::structured(list)
        } else if let Some((mode, rest)) = colon_form(text) {
            Self::colons(mode, rest)
        } else {
            Self {
                resource: url_path(text).to_owned(),
                ..Self::default()
            }
        };
        if let Some(rest) = fields.resource.strip_prefix('/') {
            fields.resource = rest.to_owned();
        }
        fields.show_safely();
        fields
    }

    /// None of it may reach a log or an API raw.
    fn show_safely(&mut self) {
        let safe = |text: &mut String| {
            if !text.chars().all(is_safe) {
                *text = printable(text.as_bytes(), usize::MAX);
            }
        };
        safe(&mut self.resource);
        let optional = [
            &mut self.mode,
            &mut self.user,
            &mut self.session,
            &mut self.host,
            &mut self.kind,
        ];
        optional.into_iter().flatten().for_each(safe);
        for (key, value) in &mut self.others {
            safe(key);
            safe(value);
        }
    }

    fn structured(list: &str) -> Self {
        let mut fields = Self::default();
        for pair in list.split(',') {
            // Values may contain `=`: split at the first one.
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (key.trim(), value.trim());
            let decoded;
            let value = if matches!(key, "r" | "m" | "u" | "s" | "h" | "t") && looks_encoded(value)
            {
                decoded = percent_decode(value);
                &decoded
            } else {
                value
            };
            match key {
                "r" => fields.resource = value.to_owned(),
                "m" => fields.mode = Some(value.to_owned()),
                "u" => fields.user = Some(value.to_owned()),
                "s" => fields.session = Some(value.to_owned()),
                "h" => fields.host = Some(value.to_owned()),
                "t" => fields.kind = Some(value.to_owned()),
                "" => {}
                other => fields.others.push((other.to_owned(), value.to_owned())),
            }
        }
        if fields.resource.is_empty() {
            fields.resource_from_host();
        }
        fields
    }

    /// Older SRS: `h=[host/]app/stream?query` and no `r`.
    fn resource_from_host(&mut self) {
        let Some(host) = self.host.clone().filter(|h| h.contains('/')) else {
            return;
        };
        let (path, query) = host.split_once('?').unwrap_or((&host, ""));
        if !query.is_empty() {
            self.others.push(("query".to_owned(), query.to_owned()));
        }
        let mut parts = path.splitn(2, '/');
        let (first, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        // With a host before it there are still two parts behind the first slash.
        if rest.contains('/') {
            self.host = Some(first.to_owned());
            self.resource = rest.to_owned();
        } else {
            self.host = None;
            self.resource = path.to_owned();
        }
    }

    /// MediaMTX: `publish:path[:user:pass][:query]`.
    fn colons(mode: &str, rest: &str) -> Self {
        let mut fields = Self {
            mode: Some(mode.to_owned()),
            ..Self::default()
        };
        let mut parts = rest.split(':');
        fields.resource = parts.next().unwrap_or("").to_owned();
        let more: Vec<&str> = parts.collect();
        let (login, query) = match *more.as_slice() {
            [] => (None, None),
            [query] => (None, Some(query.to_owned())),
            [user, pass] => (Some((user, pass)), None),
            [user, pass, ref query @ ..] => (Some((user, pass)), Some(query.join(":"))),
        };
        if let Some((user, pass)) = login {
            fields.user = Some(user.to_owned());
            fields.others.push(("pass".to_owned(), pass.to_owned()));
        }
        if let Some(query) = query.filter(|q| !q.is_empty()) {
            fields.others.push(("query".to_owned(), query));
        }
        fields
    }
}

/// The whole ID without percent-encoding, where it has one, and without blanks around it.
pub(crate) fn decoded(text: &str) -> Cow<'_, str> {
    let text = trim(text);
    if looks_encoded(text) || begins_encoded(text) {
        Cow::Owned(percent_decode(text))
    } else {
        Cow::Borrowed(text)
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
}

fn colon_form(text: &str) -> Option<(&'static str, &str)> {
    text.strip_prefix("publish:")
        .map(|rest| ("publish", rest))
        .or_else(|| text.strip_prefix("read:").map(|rest| ("request", rest)))
        .or_else(|| text.strip_prefix("request:").map(|rest| ("request", rest)))
}

/// Path of a whole URL given as value: OvenMediaEngine.
fn url_path(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("srt://") else {
        return text;
    };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// A value that was percent-encoded as a whole has none of the characters that encoding hides.
fn looks_encoded(text: &str) -> bool {
    let hidden = |c: char| matches!(c, '#' | '!' | ':' | '/' | '=' | ',' | ' ');
    text.contains('%') && !text.contains(hidden)
}

/// Encoders that take the ID out of a URL keep the `#` encoded there, and leave the rest.
fn begins_encoded(text: &str) -> bool {
    let mut at = 0;
    for expected in [b'#', b'!', b':', b':'] {
        at += match text.as_bytes().get(at..) {
            Some([c, ..]) if *c == expected => 1,
            Some([b'%', high, low, ..])
                if hex(*high).zip(hex(*low)) == Some((expected >> 4, expected & 15)) =>
            {
                3
            }
            _ => return false,
        };
    }
    at > 4
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digits = (byte == b'%').then(|| Some((hex(ahead.next()?)?, hex(ahead.next()?)?)));
        if let Some(Some((high, low))) = digits {
            out.push(high << 4 | low);
            bytes = ahead;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::{StreamIdFields as F, printable};

    fn parsed(text: &str) -> F {
        F::parse(text.as_bytes())
    }

    #[test]
    fn plain_names_are_the_resource() {
        assert_eq!(parsed("live/cam1").resource, "live/cam1");
        assert_eq!(parsed("/live/cam1 \0\0").resource, "live/cam1");
        assert_eq!(parsed("caméra-7/Ω").resource, "caméra-7/Ω");
        assert_eq!(parsed("app/stream#feedbackplay").resource, "app/stream");
        assert_eq!(parsed("").resource, "");
    }

    #[test]
    fn structured_ids_are_split_at_commas_and_first_equals_sign() {
        let f = parsed("#!::u=alice,r=live/stream1,m=publish,t=stream,token=a=b");
        assert_eq!(f.resource, "live/stream1");
        assert_eq!(f.mode.as_deref(), Some("publish"));
        assert_eq!(f.user.as_deref(), Some("alice"));
        assert_eq!(f.kind.as_deref(), Some("stream"));
        assert_eq!(f.others, [("token".to_string(), "a=b".to_string())]);
        let f = parsed("#!::Z=1,s=42,a=2,h=example.org,r=x,B=3");
        assert_eq!(
            (f.session.as_deref(), f.host.as_deref()),
            (Some("42"), Some("example.org"))
        );
        let keys: Vec<&str> = f.others.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["Z", "a", "B"], "unknown keys in their order");
        assert_eq!(parsed("#!::").resource, "");
        assert_eq!(parsed("#!::,,=,m").mode.as_deref(), Some(""));
    }

    #[test]
    fn dialects_of_the_field_are_understood() {
        let f = parsed("publish:live/a:bob:pw:x=1");
        assert_eq!(
            (f.resource.as_str(), f.user.as_deref()),
            ("live/a", Some("bob"))
        );
        assert_eq!(f.mode.as_deref(), Some("publish"));
        assert_eq!(f.others.len(), 2);
        assert_eq!(parsed("read:live/a").mode.as_deref(), Some("request"));
        assert_eq!(
            parsed("srt://host:9000/app/stream?x=1").resource,
            "app/stream"
        );
        assert_eq!(parsed("srt%3A%2F%2Fh%3A1%2Fapp%2Fs").resource, "app/s");
        assert_eq!(parsed("%23!::r=a%2Fb,m=publish").resource, "a/b");
        assert_eq!(parsed("#!::r=a%2Fb,token=x%2Fy").resource, "a/b");
        assert_eq!(parsed("#!::r=a,token=x%2Fy").others[0].1, "x%2Fy");
        assert_eq!(
            parsed("a/100%25").resource,
            "a/100%25",
            "a plain name stays"
        );
        assert_eq!(parsed("%23%21%3A%3Ar%3Da").resource, "a");
        let f = parsed("#!::h=host.example/live/s?k=v,m=publish");
        assert_eq!(
            (f.resource.as_str(), f.host.as_deref()),
            ("live/s", Some("host.example"))
        );
        assert_eq!(parsed("#!::h=live/s,m=publish").resource, "live/s");
        assert_eq!(parsed("#!:{u=a,r=b}").resource, "#!:{u=a,r=b}");
    }

    #[test]
    fn nothing_that_harms_a_log_or_a_page_comes_out() {
        let hostile = "#!::r=a\u{202E}b\x1b[31m\n,u=x\u{200B}y,k\u{FEFF}=v\r\u{85},m=%0Apub";
        let f = parsed(hostile);
        assert_eq!(f.resource, "a\u{FFFD}b\u{FFFD}[31m");
        assert_eq!(f.user.as_deref(), Some("x\u{FFFD}y"));
        assert_eq!(f.mode.as_deref(), Some("\u{FFFD}pub"));
        assert_eq!(f.others, [("k\u{FFFD}".to_string(), "v".to_string())]);
        let f = F::parse(b"cam\xFF\xC0\xAF%00");
        assert!(f.resource.chars().all(super::is_safe));
        assert_eq!(printable(b"live/cam1", 512), "live/cam1");
        assert_eq!(
            printable("caf\u{E9} \u{4E2D}\u{1F3A5}".as_bytes(), 512),
            "caf\u{E9} \u{4E2D}\u{1F3A5}"
        );
        assert_eq!(printable(b"a\nb\x1b[31m", 512), "a\u{FFFD}b\u{FFFD}[31m");
        assert!(printable(&[b'x'; 2000], 512).len() == 512);
        assert!(printable(&[0xFF; 2000], 512).len() <= 512);
    }

    #[test]
    fn any_bytes_are_decoded_without_panic() {
        let mut state = 1u32;
        for len in 0..600 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let _ = F::parse(&bytes);
            let mut text = b"#!::".to_vec();
            text.extend(&bytes);
            let _ = F::parse(&text);
        }
        assert_eq!(parsed("%").resource, "%");
        assert_eq!(parsed("%4").resource, "%4");
    }
}
