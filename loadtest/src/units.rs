//! Quantities as people write them: "50Mb" (bits a second), "120ms", "4MiB".

use std::time::Duration;

/// Splits "50Mb" into 50.0 and "Mb".
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

fn whole(value: f64) -> Option<u64> {
    (value.is_finite() && (0.0..1e18).contains(&value)).then_some(value.round() as u64)
}

/// Bits a second: "50Mb", "50Mbps", "2.5Mb/s", "800kb", "1Gb", "123456".
pub fn bitrate(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = unit
        .strip_suffix("/s")
        .or_else(|| unit.strip_suffix("ps"))
        .unwrap_or(unit);
    let factor = match unit {
        "" | "b" | "bit" => 1.0,
        "k" | "kb" | "kbit" => 1e3,
        "M" | "Mb" | "Mbit" => 1e6,
        "G" | "Gb" | "Gbit" => 1e9,
        _ => return None,
    };
    whole(number * factor)
}

/// A duration: "500us", "120ms", "10s", "2m".
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let nanos = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    whole(number * nanos).map(Duration::from_nanos)
}

/// Bits a second for people.
pub fn show_bitrate(bps: f64) -> String {
    match bps {
        b if b >= 1e9 => format!("{:.3} Gb/s", b / 1e9),
        b if b >= 1e6 => format!("{:.2} Mb/s", b / 1e6),
        b if b >= 1e3 => format!("{:.1} kb/s", b / 1e3),
        b => format!("{b:.0} b/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_durations_are_read_as_written() {
        assert_eq!(bitrate("50Mb"), Some(50_000_000));
        assert_eq!(bitrate("2.5Mb/s"), Some(2_500_000));
        assert_eq!(bitrate("800kbps"), Some(800_000));
        assert_eq!(bitrate("123456"), Some(123_456));
        assert_eq!(bitrate("50MB"), None);
        assert_eq!(bitrate("-1Mb"), None);
        assert_eq!(duration("120ms"), Some(Duration::from_millis(120)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("10"), None);
        assert_eq!(duration(""), None);
    }
}
