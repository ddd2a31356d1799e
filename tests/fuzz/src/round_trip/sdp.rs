//! Session descriptions (RFC 8866): what is written is what is read.

use core::fmt::Write as _;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use mirror_rtp::sdp::{
    self, Bandwidth, Connection, Description, Direction, FormatParameters, Group, MediaDescription,
    RtcpFeedback, RtpMap, SourceFilter, SsrcGroup,
};

use super::Choices;

/// A description with up to four media.
pub(super) fn description(choices: &mut Choices<'_>) {
    let mut text = Text::default();
    let mut wanted = Description {
        name: word(choices),
        ..Description::default()
    };
    text.line("v=0");
    text.line("o=- 1 1 IN IP4 192.0.2.1");
    text.line(&format!("s={}", wanted.name));
    let media = choices.between(1, 4);
    if choices.flip() {
        let connection = connection(choices);
        text.connection(&connection);
        wanted.connection = Some(connection);
    }
    text.line("t=0 0");
    if choices.once_in(3) {
        let members: Vec<String> = (0..media).map(|n| format!("m{n}")).collect();
        let line = text.line(&format!("a=group:dup {}", members.join(" ")));
        let semantics = "DUP".to_owned();
        wanted.groups.push(Group {
            semantics,
            members,
            line,
        });
    }
    for n in 0..media {
        let mut one = medium(n, &mut text, choices);
        if one.connections.is_empty() {
            one.connections.extend(wanted.connection);
        }
        wanted.media.push(one);
    }
    let read = sdp::parse(&text.0).unwrap_or_else(|e| panic!("{e:?} of {}", text.0));
    assert_eq!(read, wanted, "{}", text.0);
}

/// Lines, which are counted.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Returns its number.
    fn line(&mut self, line: &str) -> usize {
        self.0.push_str(line);
        self.0.push_str("\r\n");
        self.0.lines().count()
    }

    fn connection(&mut self, c: &Connection) {
        let mut line = format!("c=IN {}", address(&c.address));
        if let Some(ttl) = c.ttl {
            write!(line, "/{ttl}").expect("a string");
        }
        if c.count > 1 {
            write!(line, "/{}", c.count).expect("a string");
        }
        self.line(&line);
    }
}

fn address(ip: &IpAddr) -> String {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!("{family} {ip}")
}

fn word(choices: &mut Choices<'_>) -> String {
    let mut bytes = Vec::new();
    let length = choices.between(1, 30);
    choices.filling(&mut bytes, length);
    let letter = |b: &u8| char::from(b'a' + b % 26);
    bytes.iter().map(letter).collect()
}

fn ip(choices: &mut Choices<'_>) -> IpAddr {
    if choices.flip() {
        Ipv4Addr::from(choices.u32()).into()
    } else {
        let high = u128::from(choices.u32()) << 96;
        Ipv6Addr::from(high | u128::from(choices.u32())).into()
    }
}

fn connection(choices: &mut Choices<'_>) -> Connection {
    let address = ip(choices);
    let ttl = (address.is_ipv4() && choices.flip()).then(|| choices.byte());
    let several = (ttl.is_some() || address.is_ipv6()) && choices.flip();
    Connection {
        address,
        ttl,
        count: if several { choices.u16().max(2) } else { 1 },
    }
}

fn medium(n: usize, text: &mut Text, choices: &mut Choices<'_>) -> MediaDescription {
    let first = 96 + choices.below(24) as u8;
    let payload_types: Vec<u8> = (first..first + 1 + choices.below(4) as u8).collect();
    let mut m = MediaDescription {
        kind: (*choices.pick(&["video", "audio", "application"])).to_owned(),
        port: choices.u16(),
        port_count: 1 + u16::from(choices.once_in(4)),
        protocol: (*choices.pick(&["RTP/AVP", "RTP/AVPF", "RTP/SAVPF"])).to_owned(),
        payload_types,
        ..MediaDescription::default()
    };
    let mut port = m.port.to_string();
    if m.port_count > 1 {
        port += "/2";
    }
    let types: Vec<String> = m.payload_types.iter().map(u8::to_string).collect();
    let line = format!("m={} {port} {} {}", m.kind, m.protocol, types.join(" "));
    m.line = text.line(&line);
    for _ in 0..choices.below(3) {
        let connection = connection(choices);
        text.connection(&connection);
        m.connections.push(connection);
    }
    m.bandwidth = bandwidth(text, choices);
    formats(&mut m, text, choices);
    control(&mut m, text, choices);
    sources(&mut m, text, choices);
    if choices.flip() {
        text.line(&format!("a=mid:m{n}"));
        m.mid = Some(format!("m{n}"));
    }
    if choices.once_in(4) {
        text.line("a=inactive");
        m.direction = Direction::Inactive;
    } else if choices.flip() {
        let direction = *choices.pick(&["recvonly", "sendonly", "sendrecv"]);
        text.line(&format!("a={direction}"));
    }
    if choices.once_in(3) {
        let delay = choices.u16();
        text.line(&format!("a=duplication-delay:{delay}"));
        m.duplication_delay = Duration::from_millis(delay.into());
    }
    m
}

fn bandwidth(text: &mut Text, choices: &mut Choices<'_>) -> Bandwidth {
    let mut b = Bandwidth::default();
    if choices.flip() {
        let kbps = choices.u32();
        text.line(&format!("b=AS:{kbps}"));
        b.session_bps = Some(u64::from(kbps) * 1_000);
    }
    if choices.once_in(3) {
        let bps = choices.u32();
        text.line(&format!("b=TIAS:{bps}"));
        b.session_bps = Some(bps.into());
    }
    if choices.once_in(3) {
        let (senders, receivers) = (choices.u32(), choices.u32());
        text.line(&format!("b=RS:{senders}"));
        text.line(&format!("b=RR:{receivers}"));
        b.rtcp_senders_bps = Some(senders.into());
        b.rtcp_receivers_bps = Some(receivers.into());
    }
    b
}

fn formats(m: &mut MediaDescription, text: &mut Text, choices: &mut Choices<'_>) {
    for payload_type in m.payload_types.clone() {
        if choices.once_in(4) {
            continue;
        }
        let mut map = RtpMap {
            payload_type,
            encoding: word(choices),
            clock_rate: choices.u32().max(1),
            channels: choices.below(9) as u8,
            line: 0,
        };
        let channels = match map.channels {
            0 => String::new(),
            n => format!("/{n}"),
        };
        let (name, rate) = (&map.encoding, map.clock_rate);
        map.line = text.line(&format!("a=rtpmap:{payload_type} {name}/{rate}{channels}"));
        m.rtpmap.push(map);
        if choices.flip() {
            let (key, value) = (word(choices), word(choices));
            let fmtp = format!("{key}={value}; sprop={value}==");
            let line = text.line(&format!("a=fmtp:{payload_type} {fmtp}"));
            m.fmtp.push(FormatParameters {
                payload_type,
                text: fmtp,
                line,
            });
        }
    }
}

fn control(m: &mut MediaDescription, text: &mut Text, choices: &mut Choices<'_>) {
    if choices.flip() {
        text.line("a=rtcp-mux");
        m.rtcp_mux = true;
    }
    if choices.flip() {
        text.line("a=rtcp-rsize");
        m.rtcp_reduced_size = true;
    }
    if choices.once_in(3) {
        let port = choices.u16().max(1);
        let to = choices.flip().then(|| ip(choices));
        let place = to.map_or(String::new(), |ip| format!(" IN {}", address(&ip)));
        text.line(&format!("a=rtcp:{port}{place}"));
        m.rtcp = Some((port, to));
    }
    for _ in 0..choices.below(4) {
        let payload_type = choices.flip().then(|| choices.below(128) as u8);
        let what = *choices.pick(&["nack", "nack pli", "ccm fir", "trr-int 100"]);
        let number = payload_type.map_or("*".to_owned(), |n| n.to_string());
        text.line(&format!("a=rtcp-fb:{number} {what}"));
        m.feedback.push(RtcpFeedback {
            payload_type,
            what: what.to_owned(),
        });
    }
}

fn sources(m: &mut MediaDescription, text: &mut Text, choices: &mut Choices<'_>) {
    for _ in 0..choices.below(3) {
        let destination = choices.flip().then(|| ip(choices));
        let source = ip(choices);
        // One family for all.
        let destination = destination.filter(|d| d.is_ipv4() == source.is_ipv4());
        let family = if source.is_ipv4() { "IP4" } else { "IP6" };
        let to = destination.map_or("*".to_owned(), |d| d.to_string());
        text.line(&format!("a=source-filter: incl IN {family} {to} {source}"));
        m.filters.push(SourceFilter {
            destination,
            sources: vec![source],
        });
    }
    let first = choices.u32();
    let ssrcs: Vec<u32> = (0..choices.below(3) as u32)
        .map(|n| first.wrapping_add(n))
        .collect();
    if ssrcs.len() == 2 {
        let line = text.line(&format!("a=ssrc-group:FID {} {}", ssrcs[0], ssrcs[1]));
        m.ssrc_groups.push(SsrcGroup {
            semantics: "FID".to_owned(),
            members: ssrcs.clone(),
            line,
        });
    }
    for ssrc in &ssrcs {
        text.line(&format!("a=ssrc:{ssrc} cname:a@b"));
        text.line(&format!("a=ssrc:{ssrc} msid:x y"));
    }
    m.ssrcs = ssrcs;
}
