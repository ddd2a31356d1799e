//! The URL of a remote SRT listener, or of a peer to meet, read as libsrt's tools, ffmpeg and
//! GStreamer read it: `srt://host:port?streamid=…&latency=…&passphrase=…&pbkeylen=…`,
//! `srt://host:port?mode=rendezvous&localport=…&adapter=…`. Values are percent-decoded;
//! `+` and `#` stand for themselves, so that `streamid=#!::r=x,m=request` may be written as it
//! is. Used by the validation of `[[srt.callers]]`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mirror_srt::{CipherPolicy, KeyLength, shown_stream_id};
use serde::{Serialize, Serializer};

use super::srt::check_passphrase;
use super::value::parse_duration;
use super::{HIDDEN, Secret};

/// The longest stream ID, bytes (spec section 19).
const MAX_STREAM_ID: usize = 512;

/// Parameters, ffmpeg's and GStreamer's names for them included.
const KNOWN: [&str; 16] = [
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
    "localport",
    "port",
    "adapter",
    "localaddr",
    "localaddress",
];

/// Whom a caller calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name to look up.
    Name(String),
}

/// Where a rendezvous is met from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalEnd {
    /// One of our addresses; `None`: any of the peer's kind.
    pub address: Option<IpAddr>,
    /// UDP port, of its own.
    pub port: u16,
}

impl LocalEnd {
    /// What is bound to meet a peer of this address.
    pub fn towards(&self, peer: IpAddr) -> SocketAddr {
        let any = match peer.to_canonical() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(self.address.unwrap_or(any), self.port)
    }

    /// Whether it can reach a peer of this address.
    pub fn reaches(&self, peer: IpAddr) -> bool {
        self.address
            .is_none_or(|own| own.is_ipv4() == peer.to_canonical().is_ipv4())
    }

    /// Whether both cannot be bound.
    pub fn meets(&self, address: Option<IpAddr>, port: u16) -> bool {
        let any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        self.port == port && (any(self.address) || any(address) || self.address == address)
    }
}

/// A remote SRT listener, or a peer to meet.
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
    /// `mode=rendezvous`: from where; `None`: the peer listens.
    pub rendezvous: Option<LocalEnd>,
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
    let rendezvous = found.local_end(place.as_ref());
    let rendezvous = rendezvous.unwrap_or_else(|why| {
        problems.push(why);
        None
    });
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
            rendezvous,
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
    rendezvous: Option<bool>,
    local_port: Option<u16>,
    local_address: Option<IpAddr>,
}

impl Parameters {
    /// Where a rendezvous is met from: as libsrt's tools have it, from the peer's port unless
    /// another is given.
    fn local_end(&self, place: Option<&(Host, u16)>) -> Result<Option<LocalEnd>, String> {
        if self.rendezvous != Some(true) {
            return if self.local_port.is_some() || self.local_address.is_some() {
                Err("localport and adapter need mode=rendezvous".to_owned())
            } else {
                Ok(None)
            };
        }
        let Some((host, port)) = place else {
            return Ok(None);
        };
        let end = LocalEnd {
            address: self.local_address,
            port: self.local_port.unwrap_or(*port),
        };
        match host {
            Host::Address(peer) if !end.reaches(*peer) => {
                Err("adapter and host must both be IPv4 or both IPv6".to_owned())
            }
            Host::Address(peer) if peer.is_unspecified() || peer.is_multicast() => {
                Err("a rendezvous needs the peer's address".to_owned())
            }
            _ => Ok(Some(end)),
        }
    }

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
            "mode" => {
                let rendezvous = match value.as_str() {
                    "caller" | "client" => false,
                    "rendezvous" => true,
                    _ => return Err("must be caller or rendezvous".to_owned()),
                };
                once(&mut self.rendezvous, rendezvous)
            }
            "localport" | "port" => {
                let port = value.parse::<u16>().ok().filter(|p| *p > 0);
                once(&mut self.local_port, port.ok_or("must be from 1 to 65535")?)
            }
            "adapter" | "localaddr" | "localaddress" => {
                let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
                let address = bare.unwrap_or(&value).parse::<IpAddr>().ok();
                let address = address.filter(|a| !a.is_multicast());
                once(
                    &mut self.local_address,
                    address.ok_or("must be one of this host's addresses")?,
                )
            }
            "transtype" if value == "live" => Ok(()),
            "transtype" => Err("must be live".to_owned()),
            _ => Err(
                "unknown parameter; known are streamid, latency, passphrase, pbkeylen, \
                 cryptomode, enforcedencryption, mode, localport, adapter, transtype"
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
    fn rendezvous_is_met_from_the_peers_port_unless_another_is_given() {
        let end = |text: &str| parse(text).unwrap().url.rendezvous;
        assert_eq!(end("srt://h:9000?mode=caller"), None);
        let same = end("srt://h:9000?mode=rendezvous").unwrap();
        assert_eq!((same.address, same.port), (None, 9000));
        let peer = "192.0.2.1".parse().unwrap();
        assert_eq!(same.towards(peer), "0.0.0.0:9000".parse().unwrap());
        let six = "2001:db8::1".parse().unwrap();
        assert_eq!(same.towards(six), "[::]:9000".parse().unwrap());
        for (name, port) in [("adapter", "localport"), ("localaddress", "port")] {
            let text = format!("srt://h:9000?mode=rendezvous&{name}=10.0.0.7&{port}=9100");
            let own = end(&text).unwrap();
            assert_eq!(own.towards(peer), "10.0.0.7:9100".parse().unwrap());
            assert!(own.reaches(peer) && !own.reaches(six));
        }
        let six = end("srt://[2001:db8::1]:9000?mode=rendezvous&adapter=[2001:db8::2]");
        assert_eq!(six.unwrap().address, "2001:db8::2".parse().ok());
        assert!(same.meets(None, 9000) && !same.meets(None, 9001));
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
        assert!(problems("srt://h:1?mode=listener").contains("caller or rendezvous"));
        assert!(problems("srt://h:1?localport=2").contains("need mode=rendezvous"));
        for (query, part) in [
            ("localport=0", "1 to 65535"),
            ("adapter=eth0", "addresses"),
            ("adapter=::1", "both be IPv4"),
            ("adapter=224.0.0.1", "addresses"),
            ("localport=1&port=2", "twice"),
        ] {
            let all = problems(&format!("srt://10.0.0.1:1?mode=rendezvous&{query}"));
            assert!(all.contains(part), "{query}: {all}");
        }
        assert!(problems("srt://0.0.0.0:1?mode=rendezvous").contains("peer's address"));
        assert!(problems("srt://h:1?latency=20&latency=30").contains("twice"));
    }
}
