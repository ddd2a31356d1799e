//! What is wrong with a feed, in sentences: the figures of a report, read as an engineer reads them
//! who was woken by an alarm. Each sentence names the stream, what is wrong, how much of it, and,
//! where the figures tell it, the likely cause.

use mirror_media::Codec;

use crate::report::{
    Carrier, DirectionFacts, Outcome, Report, RtpFacts, SrtFacts, TrackFacts, TransportFacts,
};

/// Sentences that are kept.
const MAX_FINDINGS: usize = 100;
/// Pictures of a group beyond which it takes long to tune in: 10 s at 25 frames a second.
const LONG_GROUP: u32 = 250;

/// All that is wrong, the gravest of each stream first; nothing where all is well.
pub(crate) fn findings(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    for connection in &report.srt {
        of_connection(connection, &mut found);
    }
    for source in &report.rtp {
        of_source(source, &mut found);
    }
    for transport in &report.transports {
        of_transport(transport, report, &mut found);
    }
    for track in &report.tracks {
        of_track(track, &mut found);
    }
    if report.malformed_rtp > 0 {
        let count = report.malformed_rtp;
        found.push(format!("{count} RTP or RTCP packets are malformed"));
    }
    found.truncate(MAX_FINDINGS);
    found
}

fn percent(part: u64, of: u64) -> String {
    let share = 100.0 * part as f64 / of.max(1) as f64;
    match share {
        _ if share >= 10.0 => format!("{share:.0} %"),
        _ if share >= 0.01 => format!("{share:.2} %"),
        _ => "less than 0.01 %".to_owned(),
    }
}

fn place(carrier: Carrier) -> String {
    match carrier {
        Carrier::File | Carrier::Transport => String::new(),
        Carrier::Udp(port) => format!("port {port}: "),
        Carrier::Srt(index) => format!("SRT connection {index}: "),
        Carrier::Rtp(port, ssrc) | Carrier::RtpTransport(port, ssrc) => {
            format!("port {port}, SSRC {ssrc:08x}: ")
        }
    }
}

fn of_connection(connection: &SrtFacts, found: &mut Vec<String>) {
    let name = format!("SRT {} -> {}", connection.caller, connection.listener);
    match connection.outcome {
        Outcome::Timeout => found.push(format!(
            "{name}: the handshake was never answered to its end (wrong address, firewall, or \
             nobody listens)"
        )),
        Outcome::Rejected(Some(code)) => {
            let why = code.name().unwrap_or("code of the application");
            found.push(format!("{name}: rejected, {} ({why})", code.0));
        }
        Outcome::Rejected(None) => found.push(format!("{name}: rejected without a reason")),
        Outcome::Connected => {}
    }
    let ways = ["caller to listener", "listener to caller"];
    for ((direction, way), latency) in
        (connection.directions.iter().zip(ways)).zip(connection.latency_ms)
    {
        of_direction(direction, &format!("{name}, {way}"), latency, found);
    }
}

fn of_direction(
    direction: &DirectionFacts,
    name: &str,
    latency: Option<u16>,
    found: &mut Vec<String>,
) {
    let packets = direction.data_packets;
    if direction.undecryptable > 0 {
        let why = match direction.key_opened {
            Some(true) => "no key fits them, though the passphrase opened one",
            Some(false) => "the passphrase does not open their key",
            None => "give the passphrase with --passphrase",
        };
        let count = direction.undecryptable;
        found.push(format!("{name}: {count} packets are encrypted: {why}"));
    }
    if direction.dropped > 0 {
        let (dropped, share) = (direction.dropped, percent(direction.dropped, packets));
        let latency = latency.map_or(String::new(), |ms| {
            format!(" within the latency of {ms} ms")
        });
        let cause = match (direction.naks, direction.retransmitted) {
            (0, _) => "the receiver never asked for them again",
            (_, 0) => "the sender never repeated them",
            _ => "the latency is too short for this path, or the path is overloaded",
        };
        found.push(format!(
            "{name}: {dropped} packets ({share}) did not come{latency}: {cause}"
        ));
    } else if direction.lost * 100 > packets {
        let (lost, share) = (direction.lost, percent(direction.lost, packets));
        found.push(format!(
            "{name}: {lost} packets ({share}) were lost, and all repaired"
        ));
    }
}

fn of_source(source: &RtpFacts, found: &mut Vec<String>) {
    let name = format!("RTP port {}, SSRC {:08x}", source.to.port(), source.ssrc);
    if source.lost > 0 {
        let left = source
            .merged
            .as_ref()
            .map_or(source.lost, |merged| merged.lost);
        let share = percent(source.lost, source.distinct + source.lost);
        let repaired = match left {
            _ if source.merged.is_none() => "",
            0 => ", and all given back by its repair",
            _ => ", and not all given back by its repair",
        };
        let lost = source.lost;
        found.push(format!(
            "{name}: {lost} packets ({share}) are missing{repaired}"
        ));
    }
    if source.reordered * 1000 > source.packets {
        let share = percent(source.reordered, source.packets);
        let count = source.reordered;
        found.push(format!(
            "{name}: {count} packets ({share}) came out of order"
        ));
    }
    if source.rejected > 0 {
        let count = source.rejected;
        found.push(format!(
            "{name}: {count} packets are far from its numbering: a restart, or a second sender \
             with the same SSRC"
        ));
    }
    if source.codec == "unknown" {
        let number = source.payload_type;
        found.push(format!(
            "{name}: payload type {number} does not show what it is: give the session's \
             description with --sdp"
        ));
    }
}

fn of_transport(transport: &TransportFacts, report: &Report, found: &mut Vec<String>) {
    let name = place(transport.carrier);
    for indicator in &transport.tr101290.indicators {
        if indicator.count == 0 {
            continue;
        }
        let pid = indicator.pid.map(|pid| format!(" (PID {pid:#x})"));
        let (pid, count) = (pid.unwrap_or_default(), indicator.count);
        let (number, title) = (indicator.number, indicator.name);
        found.push(format!("{name}TR 101 290 {number} {title}: {count}{pid}"));
    }
    if transport.programs.is_empty() {
        found.push(format!("{name}no PAT was read: nothing can be tuned to"));
    }
    let seen = |pid: u16| transport.pids.iter().find(|p| p.pid == pid);
    for program in &transport.programs {
        let number = program.number;
        let Some(pcr_pid) = program.pcr_pid else {
            let pid = program.pmt_pid;
            found.push(format!(
                "{name}program {number}: no PMT was read on PID {pid:#x}"
            ));
            continue;
        };
        if pcr_pid != 0x1FFF && seen(pcr_pid).is_none_or(|p| p.pcr.is_none()) {
            found.push(format!(
                "{name}program {number}: no clock references on PID {pcr_pid:#x}"
            ));
        }
        for (pid, kind) in &program.streams {
            if seen(*pid).is_none() {
                found.push(format!(
                    "{name}program {number}: PID {pid:#x} (stream type {kind:#04x}) is announced \
                     and never comes"
                ));
            }
        }
    }
    let known = |pid: u16| {
        let of_program = |p: &crate::report::ProgramFacts| {
            p.pmt_pid == pid || p.pcr_pid == Some(pid) || p.streams.iter().any(|s| s.0 == pid)
        };
        pid < 0x20 || pid == 0x1FFF || transport.programs.iter().any(of_program)
    };
    for pid in transport.pids.iter().filter(|p| !known(p.pid)) {
        // Earlier maps may have named it.
        let of_track =
            |t: &&TrackFacts| t.carrier == transport.carrier && t.track.id == u32::from(pid.pid);
        if !report.tracks.iter().any(|t| of_track(&t)) {
            let (number, count) = (pid.pid, pid.packets);
            found.push(format!(
                "{name}PID {number:#x}: {count} packets that no program names"
            ));
        }
    }
}

fn of_track(track: &TrackFacts, found: &mut Vec<String>) {
    let codec = track.track.codec;
    let id = match track.carrier {
        Carrier::File | Carrier::Rtp(..) => String::new(),
        _ => format!("PID {:#x} ", track.track.id),
    };
    let name = format!("{}{id}{}", place(track.carrier), codec.name());
    if track.track.scrambled {
        found.push(format!("{name}: scrambled"));
    }
    if track.access_units == 0 {
        if codec.is_video() || codec.is_audio() {
            found.push(format!("{name}: not one unit came"));
        }
        return;
    }
    if track.damaged > 0 {
        let share = percent(track.damaged, track.access_units);
        let (damaged, all) = (track.damaged, track.access_units);
        found.push(format!(
            "{name}: {damaged} of {all} units are damaged ({share})"
        ));
    }
    let is_inter = codec.is_video() && codec != Codec::JpegXs;
    if is_inter && track.key_frames.is_empty() {
        found.push(format!("{name}: no key frame: decoding cannot start"));
    } else if is_inter
        && let Some(&longest) = track.gops.sizes.iter().max()
        && longest > LONG_GROUP
    {
        found.push(format!(
            "{name}: up to {longest} pictures from key frame to key frame"
        ));
    }
    if codec.is_video() && track.track.width == 0 {
        found.push(format!(
            "{name}: no parameter sets: the size of its pictures is not known"
        ));
    }
}
