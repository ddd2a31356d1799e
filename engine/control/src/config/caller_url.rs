//! The URL of a remote SRT listener, read as libsrt's tools and ffmpeg read it:
//! `srt://host:port?streamid=…&latency=…&passphrase=…&pbkeylen=…`. Values are percent-decoded;
//! `+` and `#` stand for themselves, so that `streamid=#!::r=x,m=request` may be written as it
//! is. Used by the validation of `[[srt.callers]]`.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use mirror_srt::{CipherPolicy, KeyLength, shown_stream_id};
use serde::{Serialize, Serializer};

use super::srt::check_passphrase;
use super::value::parse_duration;
use super::{HIDDEN, Secret};

/// The longest stream ID, bytes (spec section 19).
const MAX_STREAM_ID: usize = 512;

/// Parameters, ffmpeg's names for them included.
const KNOWN: [&str; 11] = [
    "streamid",
    "srt_streamid",
    "latency",
    "rcvlatency",
    "passphrase",
    "pbkeylen",
    "cryptomode",
    "enforcedencryption",
    "enforced_encryption",
    "mode",
    "transtype",
];

/// Whom a caller calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name to look up.
    Name(String),
}

/// A remote SRT listener.
#[derive(Clone, PartialEq, Eq)]
pub struct CallerUrl {
    /// Where it is.
    pub host: Host,
    /// UDP port.
    pub port: u16,
    /// The stream ID to present; may be empty.
    pub stream_id: String,
    /// Receive latency; `None`: `srt.latency`.
    pub latency: Option<Duration>,
    shown: String,
}

impl CallerUrl {
    /// The URL for people: without its passphrase, nor what is secret in its stream ID.
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for CallerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for CallerUrl {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.shown)
    }
}

/// A URL and those of its parameters that are keys of the caller as well.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) url: CallerUrl,
    pub(super) passphrase: Option<Secret>,
    pub(super) key_length: Option<KeyLength>,
    pub(super) cipher: Option<CipherPolicy>,
    pub(super) require: Option<bool>,
}

/// Reads a URL; all that is wrong with it at once, without its secrets.
pub(super) fn parse(text: &str) -> Result<Parsed, Vec<String>> {
    let Some(rest) = text.strip_prefix("srt://") else {
        return Err(vec![
            "must be a URL such as \"srt://host:9000?streamid=cam1\"".to_owned(),
        ]);
    };
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut problems = Vec::new();
    let place = place(authority.strip_suffix('/').unwrap_or(authority));
    let place = place.map_err(|why| problems.push(why)).ok();
    let mut found = Parameters::default();
    let mut shown = Vec::new();
    let mut behind_passphrase = false;
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
        shown.push(match name {
            "passphrase" => "passphrase=***".to_owned(),
            "streamid" | "srt_streamid" => shown_pair(pair, name, raw),
            _ => pair.to_owned(),
        });
        let taken = match decode(raw) {
            Some(value) => found.take(name, value),
            None => Err("malformed percent-encoding, or no UTF-8".to_owned()),
        };
        match taken {
            Ok(()) => {}
            // It may be the rest of the passphrase, which nothing shows.
            Err(_) if behind_passphrase && !KNOWN.contains(&name) => problems.push(
                "an unknown parameter behind the passphrase: a & in it must be written %26"
                    .to_owned(),
            ),
            Err(why) => problems.push(format!("{name}: {why}")),
        }
        behind_passphrase |= name.eq_ignore_ascii_case("passphrase");
    }
    let Some((host, port)) = place.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let mut whole = format!("srt://{authority}");
    if !shown.is_empty() {
        whole = format!("{whole}?{}", shown.join("&"));
    }
    Ok(Parsed {
        url: CallerUrl {
            host,
            port,
            stream_id: found.stream_id.unwrap_or_default(),
            latency: found.latency,
            shown: whole,
        },
        passphrase: found.passphrase,
        key_length: found.key_length,
        cipher: found.cipher,
        require: found.require,
    })
}

/// A stream ID as people may see it: passwords and tokens in it are hidden, as those of publishers
/// are; without any it is as it was written.
fn shown_pair(pair: &str, name: &str, raw: &str) -> String {
    let Some(value) = decode(raw) else {
        return pair.to_owned();
    };
    let shown = shown_stream_id(value.as_bytes(), MAX_STREAM_ID);
    if shown == value || !shown.contains(HIDDEN) {
        return pair.to_owned();
    }
    format!("{name}={}", shown.replace('%', "%25").replace('&', "%26"))
}

/// `host:port`, the host an address, an IPv6 address in brackets, or a name.
fn place(authority: &str) -> Result<(Host, u16), String> {
    let (host, port) = authority
        .rsplit_once(':')
        .filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'))
        .ok_or("the url has no port")?;
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|p| *p > 0)
        .ok_or("the port must be from 1 to 65535")?;
    if host.is_empty() {
        return Err("the url has no host: a caller calls somebody".to_owned());
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let address = inner
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| "between brackets must be an IPv6 address")?;
        return Ok((Host::Address(IpAddr::V6(address)), port));
    }
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return Ok((Host::Address(IpAddr::V4(address)), port));
    }
    let name = host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !name {
        return Err("the host must be a name, an IPv4 address or [an IPv6 address]".to_owned());
    }
    Ok((Host::Name(host.to_owned()), port))
}

#[derive(Default)]
struct Parameters {
    stream_id: Option<String>,
    latency: Option<Duration>,
    passphrase: Option<Secret>,
    key_length: Option<KeyLength>,
    cipher: Option<CipherPolicy>,
    require: Option<bool>,
}

impl Parameters {
    /// Names as libsrt's tools have them, and ffmpeg's where they differ.
    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "streamid" | "srt_streamid" => {
                if value.len() > MAX_STREAM_ID {
                    return Err(format!("must not have more than {MAX_STREAM_ID} bytes"));
                }
                once(&mut self.stream_id, value)
            }
            "latency" | "rcvlatency" => once(&mut self.latency, latency(&value)?),
            "passphrase" => {
                check_passphrase(&value)?;
                once(&mut self.passphrase, Secret::from_elsewhere(value))
            }
            // 0: what the listener advertises, as without it.
            "pbkeylen" if value == "0" => Ok(()),
            "pbkeylen" => {
                let length = value.parse().ok().and_then(KeyLength::from_bytes);
                once(
                    &mut self.key_length,
                    length.ok_or("must be 0, 16, 24 or 32")?,
                )
            }
            "cryptomode" => {
                let cipher = match value.as_str() {
                    "0" | "auto" => CipherPolicy::Auto,
                    "1" | "aes-ctr" => CipherPolicy::Ctr,
                    "2" | "aes-gcm" => CipherPolicy::Gcm,
                    _ => return Err("must be 0 (auto), 1 (AES-CTR) or 2 (AES-GCM)".to_owned()),
                };
                once(&mut self.cipher, cipher)
            }
            "enforcedencryption" | "enforced_encryption" => {
                let require = match value.to_ascii_lowercase().as_str() {
                    "1" | "true" | "yes" | "on" => true,
                    "0" | "false" | "no" | "off" => false,
                    _ => return Err("must be 1 or 0".to_owned()),
                };
                once(&mut self.require, require)
            }
            "mode" if value == "caller" => Ok(()),
            "mode" => Err("must be caller: rendezvous is not available".to_owned()),
            "transtype" if value == "live" => Ok(()),
            "transtype" => Err("must be live".to_owned()),
            _ => Err(
                "unknown parameter; known are streamid, latency, passphrase, pbkeylen, \
                 cryptomode, enforcedencryption, mode, transtype"
                    .to_owned(),
            ),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("is given twice".to_owned()),
    }
}

/// Milliseconds, as libsrt's tools read it (ffmpeg counts in microseconds), or "200ms".
fn latency(text: &str) -> Result<Duration, String> {
    let latency = match text.parse::<u64>() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => parse_duration(text),
    };
    latency
        .filter(|l| (Duration::from_millis(20)..=Duration::from_secs(8)).contains(l))
        .ok_or_else(|| {
            "must be milliseconds from 20 to 8000, or a duration such as 200ms (ffmpeg's figure \
             is in microseconds)"
                .to_owned()
        })
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    crate::api::percent_decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        parse(text).unwrap_err().join("; ")
    }

    #[test]
    fn url_is_read_as_libsrt_and_ffmpeg_read_it() {
        let p = parse(
            "srt://cam.example:9000?streamid=%23!::r=live/cam1,m=request&latency=200&\
             passphrase=correct%20horse%2B&pbkeylen=32&cryptomode=2&mode=caller",
        )
        .unwrap();
        assert_eq!(p.url.host, Host::Name("cam.example".to_owned()));
        assert_eq!(p.url.port, 9000);
        assert_eq!(p.url.stream_id, "#!::r=live/cam1,m=request");
        assert_eq!(p.url.latency, Some(Duration::from_millis(200)));
        assert_eq!(p.passphrase.unwrap().reveal(), "correct horse+");
        assert_eq!(p.key_length, Some(KeyLength::Aes256));
        assert_eq!(p.cipher, Some(CipherPolicy::Gcm));
        let raw = parse("srt://10.0.0.1:1?streamid=#!::r=a+b,m=request").unwrap();
        assert_eq!(raw.url.stream_id, "#!::r=a+b,m=request");
        assert_eq!(raw.url.host, Host::Address("10.0.0.1".parse().unwrap()));
        let six = parse("srt://[2001:db8::1]:9000/").unwrap();
        assert_eq!(six.url.host, Host::Address("2001:db8::1".parse().unwrap()));
        assert!(six.url.stream_id.is_empty() && six.url.latency.is_none());
    }

    #[test]
    fn url_is_shown_without_its_passphrase() {
        let p = parse("srt://h:1?passphrase=0123456789ab&streamid=x").unwrap();
        assert_eq!(p.url.shown(), "srt://h:1?passphrase=***&streamid=x");
        assert!(!format!("{p:?}").contains("0123456789ab"));
    }

    #[test]
    fn url_is_shown_without_what_its_stream_id_holds_of_secrets() {
        for (id, shown) in [
            (
                "%23!::r=a,token=s3cret,m=request",
                "#!::r=a,token=***,m=request",
            ),
            ("read:live/a:bob:s3cret", "read:live/a:bob:***"),
            ("app/s?x=1%26key=s3cret", "app/s?x=1%26key=***"),
            ("%23!::r=live/a", "%23!::r=live/a"),
            ("50%25", "50%25"),
        ] {
            for name in ["streamid", "srt_streamid"] {
                let p = parse(&format!("srt://h:1?{name}={id}&latency=200")).unwrap();
                let expected = format!("srt://h:1?{name}={shown}&latency=200");
                assert_eq!(p.url.shown(), expected);
                assert!(!format!("{p:?}").contains("s3cret"));
                assert_eq!(p.url.stream_id.contains("s3cret"), id.contains("s3cret"));
            }
        }
    }

    #[test]
    fn rest_of_a_passphrase_is_not_told_as_a_parameters_name() {
        let all = problems("srt://h:1?passphrase=0123456789&hunter2&latency=1&colour=1");
        assert!(all.contains("%26") && all.contains("latency"), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
        assert!(problems("srt://h:1?colour=1").contains("colour"));
    }

    #[test]
    fn all_that_is_wrong_with_a_url_is_said_at_once() {
        let all = problems("srt://h:0?latency=200000&pbkeylen=17&colour=1&passphrase=short");
        for part in [
            "port",
            "microseconds",
            "16, 24 or 32",
            "10 to 79 bytes",
            "colour: unknown",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(problems("udp://h:1").contains("srt://"));
        assert!(problems("srt://:9000").contains("no host"));
        assert!(problems("srt://h").contains("no port"));
        assert!(problems("srt://[::1]").contains("no port"));
        assert!(problems("srt://[::x]:1").contains("IPv6"));
        assert!(problems("srt://a b:1").contains("host"));
        assert!(problems("srt://h:1?streamid=%zz").contains("percent"));
        assert!(problems("srt://h:1?mode=listener").contains("caller"));
        assert!(problems("srt://h:1?latency=20&latency=30").contains("twice"));
    }
}
