//! A small client of the engine's HTTP API (product contract, section 4): GET and nothing else.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of the engine's is longer.
const MAX_ANSWER: u64 = 64 << 20;

/// Where the API is.
#[derive(Clone, Debug)]
pub struct Api {
    host: String,
    port: u16,
    token: Option<String>,
}

impl Api {
    /// From `http://host:port`; a reverse proxy's TLS is not spoken.
    pub fn new(url: &str, token: Option<String>) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| anyhow!("{url}: must begin with http://"))?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (
                host,
                port.parse()
                    .with_context(|| format!("{url}: port {port}"))?,
            ),
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            bail!("{url}: no host");
        }
        Ok(Api {
            host: host.to_owned(),
            port,
            token,
        })
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// GET `path`, parsed. Statuses other than 200 are errors.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.request(path)
            .with_context(|| format!("GET http://{}:{}{path}", self.host, self.port))
    }

    fn request(&self, path: &str) -> Result<Value> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        let address = addresses.next().ok_or_else(|| anyhow!("no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n",
            self.host, self.port
        );
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        let (status, body) = parse(&answer)?;
        if status != 200 {
            bail!("status {status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

/// Status and body of an HTTP/1.1 answer that was read to its end.
fn parse(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let split = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(|| anyhow!("no complete HTTP head"))?;
    let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
    let mut body = &answer[split + 4..];
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| anyhow!("no HTTP status"))?;
    let header = |name: &str| {
        head.lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        return Ok((status, dechunk(body)?));
    }
    if let Some(length) = header("content-length").and_then(|v| v.parse::<usize>().ok()) {
        body = body
            .get(..length)
            .ok_or_else(|| anyhow!("answer was cut short"))?;
    }
    Ok((status, body.to_vec()))
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|w| w == b"\r\n")
            .ok_or_else(|| anyhow!("chunk without size"))?;
        let text = String::from_utf8_lossy(&rest[..line]);
        let size = usize::from_str_radix(text.split(';').next().unwrap_or("").trim(), 16)?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(out);
        }
        out.extend_from_slice(
            rest.get(..size)
                .ok_or_else(|| anyhow!("chunk was cut short"))?,
        );
        rest = rest
            .get(size + 2..)
            .ok_or_else(|| anyhow!("chunk was cut short"))?;
    }
}

/// `id` as one path segment.
pub fn encode(id: &str) -> String {
    id.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// The number under `key`, at the top or in an object `stats` there.
pub fn number(value: &Value, key: &str) -> Option<f64> {
    let direct = value.get(key).and_then(Value::as_f64);
    direct.or_else(|| value.get("stats")?.get(key)?.as_f64())
}

/// The same as a counter.
pub fn count(value: &Value, key: &str) -> Option<u64> {
    number(value, key).map(|n| n as u64)
}

/// The sum of all numbers under `key`, at any depth.
pub fn sum(value: &Value, key: &str) -> f64 {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| {
                if k == key {
                    v.as_f64().unwrap_or(0.0)
                } else {
                    sum(v, key)
                }
            })
            .sum(),
        Value::Array(list) => list.iter().map(|v| sum(v, key)).sum(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_length_and_in_chunks() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(plain).unwrap(), (200, b"{}".to_vec()));
        let chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), (404, b"{\"a\":1}".to_vec()));
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").is_err());
        assert!(parse(b"nonsense").is_err());
    }

    #[test]
    fn urls_and_ids_are_taken_apart_and_encoded() {
        let api = Api::new("http://[::1]:8080/x", None).unwrap();
        assert_eq!((api.host(), api.port), ("::1", 8080));
        assert_eq!(Api::new("http://host", None).unwrap().port, 80);
        assert!(Api::new("https://host", None).is_err());
        assert_eq!(encode("live/cam 1"), "live%2Fcam%201");
    }

    #[test]
    fn numbers_are_found_where_the_contract_has_them() {
        let v = serde_json::json!({"stats": {"packets_lost": 3}, "shards": [{"kernel_drops": 1}, {"sockets": [{"kernel_drops": 2}]}]});
        assert_eq!(count(&v, "packets_lost"), Some(3));
        assert_eq!(sum(&v, "kernel_drops"), 3.0);
        assert_eq!(number(&v, "absent"), None);
    }
}
