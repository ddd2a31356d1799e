//! Reads the lines of a session description.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;
use core::time::Duration;

use super::{
    Bandwidth, Connection, Description, Direction, FormatParameters, Group, MAX_BYTES, MAX_ENTRIES,
    MAX_LINE_BYTES, MAX_LINES, MAX_MEDIA, MAX_PAYLOAD_TYPES, MediaDescription, RtcpFeedback,
    RtpMap, SdpError, SourceFilter, SsrcGroup,
};

/// Errors that are told at the most: a bomb need not be listed whole.
const MAX_ERRORS: usize = 32;

type Line = Result<(), String>;

/// Reads a description.
///
/// # Errors
/// Everything that is wrong in it, at most 32 faults, in the order of lines.
pub fn parse(text: &str) -> Result<Description, Vec<SdpError>> {
    if text.len() > MAX_BYTES {
        let message = format!("has {} bytes, the most is {MAX_BYTES}", text.len());
        return Err(vec![SdpError::new(0, message)]);
    }
    let mut reader = Reader::default();
    let mut errors = Vec::new();
    let mut begun = false;
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        if number > MAX_LINES {
            let message = format!("has more than {MAX_LINES} lines");
            errors.push(SdpError::new(0, message));
            break;
        }
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let outcome = if begun || line == "v=0" {
            begun = true;
            reader.line(number, line)
        } else {
            Err("the first line must be v=0".to_owned())
        };
        if let Err(message) = outcome {
            errors.push(SdpError::new(number, message));
        }
        if errors.len() >= MAX_ERRORS || !begun {
            break;
        }
    }
    if errors.is_empty() && reader.description.media.is_empty() {
        errors.push(SdpError::new(0, "has no m= line"));
    }
    if errors.is_empty() {
        Ok(reader.finish())
    } else {
        Err(errors)
    }
}

#[derive(Default)]
struct Reader {
    description: Description,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Line {
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("has more than {MAX_LINE_BYTES} bytes"));
        }
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return Err("must have the form x=value".to_owned());
        };
        let value = value.trim();
        match kind {
            "s" => cut(value).clone_into(&mut self.description.name),
            "m" => return self.media(number, value),
            "c" => return self.connection(value),
            "b" => return self.bandwidth(value),
            "a" => return self.attribute(number, value),
            // v, o, i, u, e, p, t, r, z, k say nothing to a receiver that was told to listen.
            _ => {}
        }
        Ok(())
    }

    fn media(&mut self, number: usize, value: &str) -> Line {
        if self.description.media.len() >= MAX_MEDIA {
            return Err(format!("more than {MAX_MEDIA} m= lines"));
        }
        let mut words = value.split_ascii_whitespace();
        let (Some(kind), Some(port), Some(protocol)) = (words.next(), words.next(), words.next())
        else {
            return Err("must be m=<media> <port> <protocol> <payload types>".to_owned());
        };
        let (port, count) = match port.split_once('/') {
            Some((port, count)) => (port, count),
            None => (port, "1"),
        };
        let mut media = MediaDescription {
            line: number,
            kind: cut(kind).to_ascii_lowercase(),
            port: number_of(port, "a port from 0 to 65535")?,
            port_count: number_of(count, "a number of ports")?,
            protocol: cut(protocol).to_ascii_uppercase(),
            direction: self.description.direction,
            ..MediaDescription::default()
        };
        // Refused later if it is of a protocol whose formats are no numbers.
        if media.protocol.starts_with("RTP/") {
            for word in words {
                let payload_type = payload_type(word)?;
                bounded(&media.payload_types, MAX_PAYLOAD_TYPES, "payload types")?;
                if !media.payload_types.contains(&payload_type) {
                    media.payload_types.push(payload_type);
                }
            }
        }
        self.description.media.push(media);
        Ok(())
    }

    /// RFC 8866, 5.7.
    fn connection(&mut self, value: &str) -> Line {
        let mut words = value.split_ascii_whitespace();
        let (Some("IN"), Some(family), Some(address)) = (words.next(), words.next(), words.next())
        else {
            return Err("must be c=IN IP4 <address> or c=IN IP6 <address>".to_owned());
        };
        let mut parts = address.split('/');
        let ip = address_of(family, parts.next().unwrap_or(""))?;
        let numbers: Vec<u16> = parts
            .take(3)
            .map(|part| number_of(part, "a number behind the address's /"))
            .collect::<Result<_, _>>()?;
        let (ttl, count) = match (ip, numbers.as_slice()) {
            (_, []) => (None, 1),
            (IpAddr::V4(_), [ttl]) => (Some(*ttl), 1),
            (IpAddr::V4(_), [ttl, count]) => (Some(*ttl), *count),
            (IpAddr::V6(_), [count]) => (None, *count),
            _ => return Err("too many numbers behind the address".to_owned()),
        };
        let ttl = ttl.map(u8::try_from).transpose();
        let connection = Connection {
            address: ip,
            ttl: ttl.map_err(|_| "the time to live must be from 0 to 255".to_owned())?,
            count,
        };
        match self.description.media.last_mut() {
            Some(media) => {
                bounded(&media.connections, MAX_ENTRIES, "c= lines")?;
                media.connections.push(connection);
            }
            None => self.description.connection = Some(connection),
        }
        Ok(())
    }

    fn bandwidth(&mut self, value: &str) -> Line {
        let Some((kind, amount)) = value.split_once(':') else {
            return Err("must be b=<type>:<bandwidth>".to_owned());
        };
        let kind = kind.to_ascii_uppercase();
        if !matches!(kind.as_str(), "AS" | "TIAS" | "RS" | "RR") {
            return Ok(());
        }
        let amount: u64 = number_of(amount.trim(), "a bandwidth")?;
        let bandwidth: &mut Bandwidth = match self.description.media.last_mut() {
            Some(media) => &mut media.bandwidth,
            None => &mut self.description.bandwidth,
        };
        match kind.as_str() {
            // kb/s; TIAS, which is finer, wins whatever their order.
            "AS" => {
                let bps = amount.saturating_mul(1000);
                bandwidth.session_bps.get_or_insert(bps);
            }
            "TIAS" => bandwidth.session_bps = Some(amount),
            "RS" => bandwidth.rtcp_senders_bps = Some(amount),
            _ => bandwidth.rtcp_receivers_bps = Some(amount),
        }
        Ok(())
    }

    fn attribute(&mut self, number: usize, value: &str) -> Line {
        let (name, value) = value.split_once(':').unwrap_or((value, ""));
        let value = value.trim();
        match name {
            "source-filter" => return self.source_filter(value),
            "inactive" | "sendrecv" | "sendonly" | "recvonly" => {
                let direction = if name == "inactive" {
                    Direction::Inactive
                } else {
                    Direction::Active
                };
                match self.description.media.last_mut() {
                    Some(media) => media.direction = direction,
                    None => self.description.direction = direction,
                }
                return Ok(());
            }
            _ => {}
        }
        match self.description.media.last_mut() {
            Some(media) => media_attribute(media, number, name, value),
            None if name == "group" => self.group(number, value),
            None => Ok(()),
        }
    }

    /// RFC 5888, 5.
    fn group(&mut self, number: usize, value: &str) -> Line {
        let mut words = value.split_ascii_whitespace();
        let Some(semantics) = words.next() else {
            return Err("must be a=group:<semantics> <mid>...".to_owned());
        };
        bounded(&self.description.groups, MAX_ENTRIES, "groups")?;
        self.description.groups.push(Group {
            semantics: cut(semantics).to_ascii_uppercase(),
            members: words.take(MAX_MEDIA).map(|mid| cut(mid).into()).collect(),
            line: number,
        });
        Ok(())
    }

    /// RFC 4570, 3.
    fn source_filter(&mut self, value: &str) -> Line {
        let mut words = value.split_ascii_whitespace();
        let (Some(mode), Some("IN"), Some(family), Some(destination)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(
                "must be a=source-filter: incl IN IP4 <destination> <source>...".to_owned(),
            );
        };
        if mode != "incl" {
            return Err("only source filters of the mode incl can be honoured".to_owned());
        }
        let mut filter = SourceFilter {
            destination: None,
            sources: Vec::new(),
        };
        if destination != "*" {
            filter.destination = Some(address_of(family, destination)?);
        }
        for word in words {
            bounded(&filter.sources, MAX_ENTRIES, "sources")?;
            filter.sources.push(address_of(family, word)?);
        }
        if filter.sources.is_empty() {
            return Err("the source filter names no source".to_owned());
        }
        let filters = match self.description.media.last_mut() {
            Some(media) => &mut media.filters,
            None => &mut self.description.filters,
        };
        bounded(filters, MAX_ENTRIES, "source filters")?;
        filters.push(filter);
        Ok(())
    }

    /// What the session says counts for the media that say nothing of their own.
    fn finish(self) -> Description {
        let mut description = self.description;
        for media in &mut description.media {
            if media.connections.is_empty() {
                media.connections.extend(description.connection);
            }
            let (own, session) = (&mut media.bandwidth, description.bandwidth);
            own.session_bps = own.session_bps.or(session.session_bps);
            own.rtcp_senders_bps = own.rtcp_senders_bps.or(session.rtcp_senders_bps);
            own.rtcp_receivers_bps = own.rtcp_receivers_bps.or(session.rtcp_receivers_bps);
            if media.filters.is_empty() {
                media.filters.clone_from(&description.filters);
            }
        }
        description
    }
}

fn media_attribute(media: &mut MediaDescription, number: usize, name: &str, value: &str) -> Line {
    match name {
        "rtpmap" => rtpmap(media, number, value),
        "fmtp" => fmtp(media, number, value),
        "rtcp" => rtcp(media, value),
        "rtcp-mux" => {
            media.rtcp_mux = true;
            Ok(())
        }
        "rtcp-rsize" => {
            media.rtcp_reduced_size = true;
            Ok(())
        }
        "rtcp-fb" => feedback(media, value),
        "mid" => {
            media.mid = Some(cut(value).to_owned());
            Ok(())
        }
        "ssrc" => ssrc(media, value),
        "ssrc-group" => ssrc_group(media, number, value),
        "duplication-delay" => {
            // RFC 7197, 3.2: one delay for each further copy, in milliseconds.
            let mut delays = value.split_ascii_whitespace();
            let last: u32 = number_of(delays.next_back().unwrap_or(""), "milliseconds")?;
            media.duplication_delay = Duration::from_millis(last.into());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn rtpmap(media: &mut MediaDescription, line: usize, value: &str) -> Line {
    const FORM: &str = "must be a=rtpmap:<payload type> <name>/<clock rate>[/<channels>]";
    let (number, map) = value.split_once(' ').ok_or(FORM)?;
    let mut parts = map.trim().split('/');
    let (Some(encoding), Some(clock_rate)) = (parts.next(), parts.next()) else {
        return Err(FORM.to_owned());
    };
    let clock_rate: u32 = number_of(clock_rate, "a clock rate")?;
    if clock_rate == 0 || encoding.is_empty() {
        return Err("the encoding must have a name and a clock rate above 0".to_owned());
    }
    let payload_type = payload_type(number)?;
    if media.map(payload_type).is_some() {
        return Err(format!("payload type {payload_type} is mapped twice"));
    }
    bounded(&media.rtpmap, MAX_PAYLOAD_TYPES, "a=rtpmap lines")?;
    let channels = parts
        .next()
        .map(|c| number_of(c.trim(), "a number of channels"));
    media.rtpmap.push(RtpMap {
        payload_type,
        encoding: cut(encoding).to_owned(),
        clock_rate,
        channels: channels.transpose()?.unwrap_or(0),
        line,
    });
    Ok(())
}

fn fmtp(media: &mut MediaDescription, line: usize, value: &str) -> Line {
    let (number, text) = value.split_once(' ').unwrap_or((value, ""));
    let payload_type = payload_type(number)?;
    if media.parameters(payload_type).is_some() {
        return Err(format!("payload type {payload_type} has parameters twice"));
    }
    bounded(&media.fmtp, MAX_PAYLOAD_TYPES, "a=fmtp lines")?;
    media.fmtp.push(FormatParameters {
        payload_type,
        text: text.trim().to_owned(),
        line,
    });
    Ok(())
}

/// RFC 3605, 2.1.
fn rtcp(media: &mut MediaDescription, value: &str) -> Line {
    let mut words = value.split_ascii_whitespace();
    let port: u16 = number_of(words.next().unwrap_or(""), "a port from 1 to 65535")?;
    let address = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("IN"), Some(family), Some(address)) => Some(address_of(family, address)?),
        _ => return Err("must be a=rtcp:<port> [IN IP4 <address>]".to_owned()),
    };
    if port == 0 {
        return Err("the RTCP port must be from 1 to 65535".to_owned());
    }
    media.rtcp = Some((port, address));
    Ok(())
}

/// RFC 4585, 4.2.
fn feedback(media: &mut MediaDescription, value: &str) -> Line {
    let (number, what) = value
        .split_once(' ')
        .ok_or("must be a=rtcp-fb:<payload type or *> <feedback>")?;
    let for_type = match number {
        "*" => None,
        number => Some(payload_type(number)?),
    };
    bounded(&media.feedback, MAX_ENTRIES, "a=rtcp-fb lines")?;
    let words: Vec<&str> = what.split_ascii_whitespace().take(4).collect();
    media.feedback.push(RtcpFeedback {
        payload_type: for_type,
        what: cut(&words.join(" ")).to_ascii_lowercase(),
    });
    Ok(())
}

/// RFC 5576, 4.1.
fn ssrc(media: &mut MediaDescription, value: &str) -> Line {
    let number = value.split_ascii_whitespace().next().unwrap_or("");
    let ssrc: u32 = number_of(number, "an SSRC")?;
    if !media.ssrcs.contains(&ssrc) {
        bounded(&media.ssrcs, MAX_ENTRIES, "SSRCs")?;
        media.ssrcs.push(ssrc);
    }
    Ok(())
}

/// RFC 5576, 4.2.
fn ssrc_group(media: &mut MediaDescription, line: usize, value: &str) -> Line {
    let mut words = value.split_ascii_whitespace();
    let semantics = words
        .next()
        .ok_or("must be a=ssrc-group:<semantics> <ssrc>...")?;
    bounded(&media.ssrc_groups, MAX_ENTRIES, "SSRC groups")?;
    let mut members = Vec::new();
    for word in words {
        bounded(&members, MAX_ENTRIES, "SSRCs")?;
        members.push(number_of(word, "an SSRC")?);
    }
    media.ssrc_groups.push(SsrcGroup {
        semantics: cut(semantics).to_ascii_uppercase(),
        members,
        line,
    });
    Ok(())
}

fn payload_type(text: &str) -> Result<u8, String> {
    let number = text.trim().parse().ok().filter(|n| *n < 128);
    number.ok_or_else(|| format!("{:?} is no payload type from 0 to 127", cut(text)))
}

fn number_of<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{:?} is not {what}", cut(text)))
}

fn address_of(family: &str, text: &str) -> Result<IpAddr, String> {
    let address = match family {
        "IP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "IP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(format!("{:?} is neither IP4 nor IP6", cut(family))),
    };
    // Names would have to be looked up, and look-ups may change.
    address.ok_or_else(|| {
        format!(
            "{:?} is no {family} address (names are not taken)",
            cut(text)
        )
    })
}

fn bounded<T>(list: &[T], most: usize, what: &str) -> Line {
    if list.len() < most {
        return Ok(());
    }
    Err(format!("more than {most} {what}"))
}

/// As much of a word as is worth keeping.
fn cut(word: &str) -> &str {
    const MOST: usize = 256;
    match word.char_indices().nth(MOST) {
        Some((at, _)) => word.get(..at).unwrap_or(""),
        None => word,
    }
}
