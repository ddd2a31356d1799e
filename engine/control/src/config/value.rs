//! Values as people write them: durations ("120ms", "5s", "1m 30s"), sizes ("4MiB"), address
//! ranges ("10.0.0.0/8"), and the same on the way out.

use std::net::IpAddr;
use std::time::Duration;

use mirror_base::AddressRange;
use serde::Serializer;

/// "120ms", "5s", "1m 30s", "2h".
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    jiff::fmt::friendly::SpanParser::new()
        .parse_unsigned_duration(text.trim())
        .ok()
}

/// The shortest exact way to write a duration that [`parse_duration`] reads.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, size) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ] {
        if nanos >= size && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    if nanos == 0 {
        "0s".to_owned()
    } else {
        format!("{nanos}ns")
    }
}

/// "4MiB", "512KiB", "1GB", "1000".
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    text.trim()
        .parse::<bytesize::ByteSize>()
        .ok()
        .map(|size| size.as_u64())
}

/// The shortest exact way to write a size that [`parse_size`] reads.
pub fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

pub(super) fn ser_duration<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&show_duration(*d))
}

pub(super) fn ser_size<S: Serializer>(bytes: &u64, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&show_size(*bytes))
}

/// "1.4.2" as SRT's 0x00MMmmpp.
pub(crate) fn parse_version(text: &str) -> Option<u32> {
    let mut parts = text.split('.').map(|p| p.parse::<u8>().ok());
    let version = u32::from_be_bytes([0, parts.next()??, parts.next()??, parts.next()??]);
    parts.next().is_none().then_some(version)
}

pub(super) fn ser_version<S: Serializer>(version: &u32, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&show_version(*version))
}

/// SRT's 0x00MMmmpp as "1.4.2".
pub(crate) fn show_version(version: u32) -> String {
    let [_, major, minor, patch] = version.to_be_bytes();
    format!("{major}.{minor}.{patch}")
}

/// A range of addresses: "10.0.0.0/8", "2001:db8::/32", "192.0.2.7".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr(pub AddressRange);

impl Cidr {
    /// Reads an address, with or without the number of its leading bits that count.
    pub fn parse(text: &str) -> Option<Cidr> {
        AddressRange::parse(text).map(Cidr)
    }

    /// Whether `ip` lies in the range. IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(ip)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for Cidr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A pattern of stream ids: `*` stands for any characters, everything else for itself.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct IdPattern(pub(crate) String);

impl IdPattern {
    /// Reads a pattern; `None` when it has characters that no stream id has.
    pub fn parse(text: &str) -> Option<IdPattern> {
        let ok = !text.is_empty()
            && text.len() <= 256
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._/-*".contains(&b));
        ok.then(|| IdPattern(text.to_owned()))
    }

    /// Whether `id` matches.
    pub fn matches(&self, id: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| id.strip_prefix(first)) else {
            return false;
        };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else {
            return rest.is_empty();
        };
        let mut rest = rest;
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_for_people_and_read_back() {
        for (text, millis) in [
            ("120ms", 120),
            ("5s", 5_000),
            ("1m 30s", 90_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in ["", "5", "-5s", "abc"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for nanos in [0, 1, 500_000, 120_000_000, 5_000_000_000, 90_000_000_000] {
            let d = Duration::from_nanos(nanos);
            assert_eq!(
                parse_duration(&show_duration(d)),
                Some(d),
                "{}",
                show_duration(d)
            );
        }
    }

    #[test]
    fn sizes_are_binary_when_they_say_so() {
        assert_eq!(parse_size("4MiB"), Some(4 << 20));
        assert_eq!(parse_size("1GB"), Some(1_000_000_000));
        assert_eq!(parse_size("1000"), Some(1000));
        assert_eq!(parse_size("many"), None);
        assert_eq!(parse_size(&show_size(400 << 20)), Some(400 << 20));
        assert_eq!(show_size(1500), "1500");
    }

    #[test]
    fn id_patterns_match_whole_ids() {
        for (pattern, id, expected) in [
            ("live/*", "live/cam1", true),
            ("live/*", "vod/cam1", false),
            ("*", "x", true),
            ("a*b*c", "a12b3c", true),
            ("a*b*c", "a12b3", false),
            ("cam1", "cam1", true),
            ("cam1", "cam11", false),
        ] {
            assert_eq!(
                IdPattern::parse(pattern).unwrap().matches(id),
                expected,
                "{pattern} {id}"
            );
        }
    }
}
