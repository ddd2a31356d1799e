//! Requests and answers as the handlers see them, apart from tiny_http; and the one shape that
//! errors have (product contract, section 4).

use serde_json::{Value, json};

use crate::clock;

/// What a handler gives back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) const JSON: &str = "application/json";

impl Response {
    pub(crate) fn json(value: &Value) -> Self {
        Response {
            status: 200,
            content_type: JSON,
            body: value.to_string().into_bytes(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn text(content_type: &'static str, body: String) -> Self {
        Response {
            status: 200,
            content_type,
            body: body.into_bytes(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn error(status: u16, message: &str) -> Self {
        let body = error_body(status, message).into_bytes();
        Response {
            status,
            content_type: JSON,
            body,
            headers: Vec::new(),
        }
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// `{"error":"Not Found","message":…,"time":…}`.
pub(crate) fn error_body(status: u16, message: &str) -> String {
    json!({ "error": reason(status), "message": message, "time": clock::rfc3339_now() }).to_string()
}

/// The reason phrase of a status that we use.
pub(crate) const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

/// Undoes percent-encoding; `None` when it is malformed or no UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

/// The parameters of a query string, in order; `None` when it is malformed.
pub(crate) fn parse_query(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((
                percent_decode(&key.replace('+', " "))?,
                percent_decode(&value.replace('+', " "))?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(percent_decode("live%2Fcam1").as_deref(), Some("live/cam1"));
        assert_eq!(percent_decode("a%2fb").as_deref(), Some("a/b"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
        let query = parse_query("status=active&tag=a+b&tag=c%26d&x").unwrap();
        assert_eq!(query[1], ("tag".into(), "a b".into()));
        assert_eq!(query[2].1, "c&d");
        assert_eq!(query[3], ("x".into(), String::new()));
    }

    #[test]
    fn errors_have_the_contracts_shape() {
        let value: Value = serde_json::from_str(&error_body(404, "stream not found: x")).unwrap();
        assert_eq!(value["error"], "Not Found");
        assert_eq!(value["message"], "stream not found: x");
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
    }
}
