//! From a session description to a [`SessionPlan`]'s media: which `m=` line is media, which its
//! retransmissions (RFC 4588), its FEC (RFC 6015) or its second path (SMPTE ST 2022-7).

use core::net::SocketAddr;
use core::time::Duration;

use mirror_media::{FormatParameters, PayloadFormat, PayloadHint};
use mirror_rtp::media::{FecLimits, Feedback, RtxType};
use mirror_rtp::sdp::{
    Connection, Description, Direction, MediaDescription, RtpMap, SdpError, parse,
};

use super::{MediaPlan, PayloadPlan, PlanDefaults, PortPlan, Purpose, bind_address, fault};

/// What must be left between the second copy of a packet and its place being given up.
const AFTER_DUPLICATE: Duration = Duration::from_millis(50);
/// Formats that repair or accompany media in ways that are not used: passed over.
const PASSED_OVER: [&str; 8] = [
    "parityfec",
    "ulpfec",
    "flexfec",
    "flexfec-03",
    "red",
    "telephone-event",
    "cn",
    "raptorfec",
];

/// What an `m=` line brings.
enum Line {
    /// Media, with retransmissions among them or not.
    Media(Box<MediaPlan>),
    /// Retransmissions for media elsewhere.
    Rtx(Vec<RtxType>),
    /// SMPTE ST 2022-1 FEC; `true`: rows.
    Fec { row: bool, limits: FecLimits },
    /// Nothing for us.
    Nothing,
}

/// The media of the description `text`.
///
/// # Errors
/// Everything that is wrong with it, or that it asks for and cannot be had.
pub fn from_sdp(text: &str, defaults: &PlanDefaults) -> Result<Vec<MediaPlan>, Vec<SdpError>> {
    let description = parse(text)?;
    let mut errors = Vec::new();
    let mut lines: Vec<Line> = description
        .media
        .iter()
        .map(|media| line(media, defaults, &mut errors))
        .collect();
    tie(&description, &mut lines, defaults, &mut errors);
    let media: Vec<MediaPlan> = lines
        .into_iter()
        .filter_map(|line| match line {
            Line::Media(media) => Some(*media),
            _ => None,
        })
        .collect();
    if media.is_empty() && errors.is_empty() {
        errors.push(fault(0, "describes no media that flows"));
    }
    if errors.is_empty() {
        Ok(media)
    } else {
        errors.sort_by_key(|error| error.line);
        Err(errors)
    }
}

fn line(media: &MediaDescription, defaults: &PlanDefaults, errors: &mut Vec<SdpError>) -> Line {
    if media.port == 0 || media.direction == Direction::Inactive {
        return Line::Nothing;
    }
    if let Some(why) = refused_protocol(&media.protocol) {
        errors.push(fault(media.line, why));
        return Line::Nothing;
    }
    if media.port_count != 1 {
        let why = "several ports (layers) for one medium are not received";
        errors.push(fault(media.line, why));
    }
    let before = errors.len();
    let mut formats = Vec::new();
    let mut rtx = Vec::new();
    let mut fec = None;
    let mut fec_types = Vec::new();
    let mut others = Vec::new();
    for &number in &media.payload_types {
        match classify(media, number, errors) {
            Kind::Format(format) => formats.push(format),
            Kind::Rtx(repair) => rtx.push(repair),
            Kind::Fec(line) => {
                fec_types.push(number);
                fec = Some(line);
            }
            Kind::Other(name) => others.push(name),
            Kind::PassedOver => {}
        }
    }
    if !formats.is_empty() {
        let mut plan = medium(media, formats, rtx, defaults, errors);
        // RFC 6015 lets it come among the media.
        if let Some(Line::Fec { limits, .. }) = fec {
            plan.rtp.fec = Some(limits);
            plan.rtp.fec_payload_types = fec_types;
        }
        return Line::Media(Box::new(plan));
    }
    if !rtx.is_empty() {
        return Line::Rtx(rtx);
    }
    if let Some(fec) = fec {
        return fec;
    }
    if !others.is_empty() && errors.len() == before {
        let names = others.join(", ");
        errors.push(fault(media.line, format!("{names} cannot be received")));
    }
    Line::Nothing
}

fn refused_protocol(protocol: &str) -> Option<String> {
    match protocol {
        "RTP/AVP" | "RTP/AVPF" => None,
        _ if protocol.contains("SAVP") => {
            Some(format!("{protocol}: encrypted RTP (SRTP) is not received"))
        }
        _ => Some(format!(
            "{protocol} is not received: RTP/AVP and RTP/AVPF are"
        )),
    }
}

/// What a payload type is.
enum Kind {
    Format(PayloadPlan),
    Rtx(RtxType),
    Fec(Line),
    Other(String),
    PassedOver,
}

fn classify(media: &MediaDescription, number: u8, errors: &mut Vec<SdpError>) -> Kind {
    let parameters = media.parameters(number);
    let get = |name: &str| parameters.and_then(|p| p.get(name));
    let parameters_line = parameters.map_or(media.line, |p| p.line);
    let Some(map) = media.map(number) else {
        return match PayloadFormat::from_static_type(number) {
            Some((format, clock_rate, channels)) => {
                let map = RtpMap {
                    payload_type: number,
                    encoding: format.encoding_name().to_owned(),
                    clock_rate,
                    channels,
                    line: media.line,
                };
                known(media, format, &map, errors)
            }
            None if number >= 96 => {
                let why = format!("payload type {number} has no a=rtpmap line");
                errors.push(fault(media.line, why));
                Kind::PassedOver
            }
            None => Kind::Other(format!("payload type {number}")),
        };
    };
    let name = map.encoding.to_ascii_lowercase();
    match name.as_str() {
        "rtx" => match get("apt")
            .and_then(|apt| apt.parse().ok())
            .filter(|apt| *apt < 128)
        {
            Some(apt) => Kind::Rtx(RtxType { number, apt }),
            None => {
                let why = format!("payload type {number} (rtx) needs a=fmtp:{number} apt=<type>");
                errors.push(fault(parameters_line, why));
                Kind::PassedOver
            }
        },
        "1d-interleaved-parityfec" => {
            // RFC 6015, 4.2: L columns and D rows; a row code has D of 0 or none.
            let size = |name: &str| get(name).and_then(|n| n.parse::<u8>().ok());
            let limits = FecLimits {
                columns: size("l").filter(|n| *n > 0).unwrap_or(20),
                rows: size("d").filter(|n| *n > 1).unwrap_or(20),
            };
            let row = size("d").is_some_and(|d| d <= 1);
            Kind::Fec(Line::Fec { row, limits })
        }
        name if PASSED_OVER.contains(&name) => Kind::PassedOver,
        _ => match PayloadFormat::from_encoding_name(&map.encoding) {
            Some(format) => known(media, format, map, errors),
            None => Kind::Other(format!("{}/{}", map.encoding, map.clock_rate)),
        },
    }
}

fn known(
    media: &MediaDescription,
    format: PayloadFormat,
    map: &RtpMap,
    errors: &mut Vec<SdpError>,
) -> Kind {
    let fmtp = media.parameters(map.payload_type);
    let mut parameters = match FormatParameters::parse(format, fmtp.map_or("", |f| &f.text)) {
        Ok(parameters) => parameters,
        Err(bad) => {
            errors.push(fault(fmtp.map_or(map.line, |f| f.line), bad.to_string()));
            return Kind::PassedOver;
        }
    };
    // RFC 7587, 7: the map of Opus says 2 whatever is sent.
    if parameters.channels == 0 && format != PayloadFormat::Opus {
        parameters.channels = map.channels;
    }
    Kind::Format(PayloadPlan {
        number: map.payload_type,
        hint: PayloadHint { format, parameters },
        clock_rate: map.clock_rate,
    })
}

/// The plan of a line that brings media.
fn medium(
    media: &MediaDescription,
    formats: Vec<PayloadPlan>,
    rtx: Vec<RtxType>,
    defaults: &PlanDefaults,
    errors: &mut Vec<SdpError>,
) -> MediaPlan {
    for repair in &rtx {
        if formats.iter().all(|format| format.number != repair.apt) {
            let why = format!(
                "rtx of payload type {}, which is not media here",
                repair.apt
            );
            errors.push(fault(media.line, why));
        }
    }
    let feedback = feedback(media, &formats, errors);
    let mut plan = MediaPlan::new(formats, defaults);
    let rtp = &mut plan.rtp;
    rtp.rtx = rtx;
    rtp.feedback = feedback;
    for group in &media.ssrc_groups {
        match (group.semantics.as_str(), group.members.as_slice()) {
            ("FID", &[original, repair]) => rtp.rtx_ssrcs.push((original, repair)),
            ("FID", _) => {
                let why = "a=ssrc-group:FID must name the media's SSRC and that of its rtx";
                errors.push(fault(group.line, why));
            }
            // RFC 7198: both on the same ports, told by their SSRCs.
            ("DUP", &[first, second]) => {
                rtp.duplicate_ssrcs.push((first, second));
                rtp.legs = 2;
            }
            ("DUP", _) => {
                let why = "a=ssrc-group:DUP must name two SSRCs";
                errors.push(fault(group.line, why));
            }
            _ => {}
        }
    }
    if !media.duplication_delay.is_zero() {
        let least = media.duplication_delay + AFTER_DUPLICATE;
        rtp.jitter_buffer = rtp.jitter_buffer.max(least);
    }
    if let Some(rtcp) = &mut rtp.rtcp {
        let bandwidth = media.bandwidth;
        rtcp.bandwidth_bps = bandwidth.session_bps.unwrap_or(rtcp.bandwidth_bps);
        let shares = (bandwidth.rtcp_senders_bps, bandwidth.rtcp_receivers_bps);
        if let (senders, Some(receivers)) = shares {
            rtcp.shares_bps = Some((senders.unwrap_or(receivers / 3), receivers));
        }
    }
    add_path(&mut plan, 0, media, defaults, errors);
    plan
}

/// What may be asked of the sender.
fn feedback(
    media: &MediaDescription,
    formats: &[PayloadPlan],
    errors: &mut Vec<SdpError>,
) -> Feedback {
    let mut feedback = Feedback {
        reduced_size: media.rtcp_reduced_size,
        ..Feedback::default()
    };
    for line in &media.feedback {
        let ours = line
            .payload_type
            .is_none_or(|number| formats.iter().any(|format| format.number == number));
        match line.what.as_str() {
            _ if !ours => {}
            "nack" => feedback.nack = true,
            "nack pli" => feedback.pli = true,
            "ccm fir" => feedback.fir = true,
            what => {
                let Some(ms) = what.strip_prefix("trr-int ") else {
                    continue;
                };
                match ms.parse::<u32>() {
                    Ok(ms) => feedback.trr_int = Duration::from_millis(ms.into()),
                    Err(_) => errors.push(fault(media.line, "trr-int must be in milliseconds")),
                }
            }
        }
    }
    feedback
}

/// Where a line is sent to, if that can be received.
fn destination(media: &MediaDescription, errors: &mut Vec<SdpError>) -> Option<Connection> {
    let Some(&first) = media.connections.first() else {
        errors.push(fault(media.line, "has no c= line, nor has the session"));
        return None;
    };
    if first.count != 1 || media.connections.iter().any(|other| *other != first) {
        let why = "several addresses (layers) for one medium are not received";
        errors.push(fault(media.line, why));
        return None;
    }
    Some(first)
}

/// The ports of `media`, as path `leg` of `plan`.
fn add_path(
    plan: &mut MediaPlan,
    leg: u8,
    media: &MediaDescription,
    defaults: &PlanDefaults,
    errors: &mut Vec<SdpError>,
) {
    let Some(to) = destination(media, errors) else {
        return;
    };
    let interface = interface_of(defaults, leg);
    let sources = sources_of(media, to);
    let rtcp = match media.rtcp {
        _ if media.rtcp_mux => None,
        Some((port, _)) if port == media.port => None,
        Some((port, _)) => Some(port),
        None => match media.port.checked_add(1) {
            Some(port) => Some(port),
            None => {
                let why = "65535 leaves no port for RTCP: say a=rtcp:<port> or a=rtcp-mux";
                errors.push(fault(media.line, why));
                return;
            }
        },
    };
    let at = SocketAddr::new(to.address, media.port);
    plan.add_path(leg, at, rtcp, &sources, interface, to.ttl);
}

fn interface_of(defaults: &PlanDefaults, leg: u8) -> Option<&super::Interface> {
    let [first, second] = &defaults.interfaces;
    match leg {
        0 => first.as_ref(),
        _ => second.as_ref().or(first.as_ref()),
    }
}

fn sources_of(media: &MediaDescription, to: Connection) -> Vec<core::net::IpAddr> {
    let about = |d: Option<core::net::IpAddr>| d.is_none_or(|d| d == to.address);
    let filters = media.filters.iter().filter(|f| about(f.destination));
    let mut sources: Vec<_> = filters.flat_map(|f| f.sources.iter().copied()).collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// Ties repair and second paths to their media, as the groups say.
fn tie(
    description: &Description,
    lines: &mut [Line],
    defaults: &PlanDefaults,
    errors: &mut Vec<SdpError>,
) {
    // Second paths first: FEC may belong to one.
    let mut legs: Vec<Option<(usize, u8)>> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| matches!(line, Line::Media(_)).then_some((at, 0)))
        .collect();
    let index = |mid: &String| {
        description
            .media
            .iter()
            .position(|m| m.mid.as_ref() == Some(mid))
    };
    for group in description.groups.iter().filter(|g| g.semantics == "DUP") {
        let members: Vec<usize> = group.members.iter().filter_map(index).collect();
        match members.as_slice() {
            &[first, second] if first != second => {
                let outcome = merge(description, lines, first, second, defaults, errors);
                match outcome {
                    Ok(()) => {
                        if let Some(leg) = legs.get_mut(second) {
                            *leg = Some((first, 1));
                        }
                    }
                    Err(why) => errors.push(fault(group.line, why)),
                }
            }
            _ => {
                let why = "a=group:DUP must name the a=mid of two m= lines";
                errors.push(fault(group.line, why));
            }
        }
    }
    for at in 0..lines.len() {
        let Some(media) = description.media.get(at) else {
            continue;
        };
        let repair = match lines.get(at) {
            Some(Line::Rtx(_) | Line::Fec { .. }) => at,
            _ => continue,
        };
        let semantics = match lines.get(repair) {
            Some(Line::Rtx(_)) => &["FID"][..],
            _ => &["FEC-FR", "FEC"][..],
        };
        let partner = description
            .groups
            .iter()
            .filter(|group| semantics.contains(&group.semantics.as_str()))
            .filter(|group| {
                group
                    .members
                    .iter()
                    .any(|mid| media.mid.as_ref() == Some(mid))
            })
            .flat_map(|group| group.members.iter().filter_map(index))
            .find_map(|member| legs.get(member).copied().flatten());
        // Where there is but one medium it can be meant for no other.
        let mut all = legs.iter().flatten().filter(|(_, leg)| *leg == 0);
        let only = all.next().filter(|_| all.next().is_none()).copied();
        let Some((target, leg)) = partner.or(only) else {
            let why = format!(
                "repairs no other m= line: an a=group:{} is missing",
                semantics[0]
            );
            errors.push(fault(media.line, why));
            continue;
        };
        attach(description, lines, repair, (target, leg), defaults, errors);
    }
}

/// Makes the media of line `second` the second path of that of line `first`.
fn merge(
    description: &Description,
    lines: &mut [Line],
    first: usize,
    second: usize,
    defaults: &PlanDefaults,
    errors: &mut Vec<SdpError>,
) -> Result<(), String> {
    const NOT_MEDIA: &str = "a=group:DUP names an m= line that brings no media";
    let Some(Line::Media(other)) = lines.get(second) else {
        return Err(NOT_MEDIA.to_owned());
    };
    let (formats, jitter_buffer) = (other.formats.clone(), other.rtp.jitter_buffer);
    let Some(Line::Media(plan)) = lines.get_mut(first) else {
        return Err(NOT_MEDIA.to_owned());
    };
    if plan.ports.iter().any(|port| port.leg > 0) || plan.rtp.legs > 1 {
        return Err("more than two paths are not merged".to_owned());
    }
    let types = |formats: &[PayloadPlan]| -> Vec<(u8, PayloadFormat, u32)> {
        let of = |f: &PayloadPlan| (f.number, f.hint.format, f.clock_rate);
        formats.iter().map(of).collect()
    };
    if types(&plan.formats) != types(&formats) {
        return Err("both paths must have the same payload types".to_owned());
    }
    plan.rtp.jitter_buffer = plan.rtp.jitter_buffer.max(jitter_buffer);
    if let Some(media) = description.media.get(second) {
        add_path(plan, 1, media, defaults, errors);
    }
    if let Some(line) = lines.get_mut(second) {
        *line = Line::Nothing;
    }
    Ok(())
}

/// Gives the ports of a repairing line to the media of line `target`.
fn attach(
    description: &Description,
    lines: &mut [Line],
    repair: usize,
    (target, leg): (usize, u8),
    defaults: &PlanDefaults,
    errors: &mut Vec<SdpError>,
) {
    let Some(media) = description.media.get(repair) else {
        return;
    };
    let Some(to) = destination(media, errors) else {
        return;
    };
    let (sources, interface) = (sources_of(media, to), interface_of(defaults, leg));
    let Some(line) = lines.get_mut(repair) else {
        return;
    };
    let line = core::mem::replace(line, Line::Nothing);
    let Some(Line::Media(plan)) = lines.get_mut(target) else {
        return;
    };
    let mut purpose = match line {
        Line::Rtx(types) => {
            plan.rtp.rtx.extend(types);
            Purpose::Rtx
        }
        Line::Fec { row, limits } => {
            let known = plan.rtp.fec.get_or_insert(limits);
            known.columns = known.columns.max(limits.columns);
            known.rows = known.rows.max(limits.rows);
            if row {
                Purpose::FecRow
            } else {
                Purpose::FecColumn
            }
        }
        Line::Media(_) | Line::Nothing => return,
    };
    let taken = |purpose| {
        let mut ports = plan.ports.iter();
        ports.any(|port| port.leg == leg && port.purpose == purpose)
    };
    // The usual order where the parameters do not tell: columns first.
    if purpose == Purpose::FecColumn && taken(purpose) {
        purpose = Purpose::FecRow;
    }
    if taken(purpose) {
        let why = format!("its media has {} already", purpose.name());
        errors.push(fault(media.line, why));
        return;
    }
    plan.ports.push(PortPlan {
        leg,
        purpose,
        address: SocketAddr::new(bind_address(to.address, interface), media.port),
        sources,
        interface: interface.cloned(),
        ttl: to.ttl,
    });
}
