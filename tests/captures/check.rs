//! What a replay led to, held against what was recorded, fact by fact.

use core::fmt::Debug;
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use mirror_base::Discard;
use mirror_srt::{CloseReason, Event, KmState, Statistics};
use mirror_tests::capture::facts::distance;
use mirror_tests::capture::session::{self, Session};
use mirror_tests::capture::sha256;
use mirror_tests::capture::wire::{Data, Handshake, Kind, block, handshake_type, nak_numbers};
use serde_json::Value;

use crate::replay::Played;
use crate::side::Side;

/// Facts in which we and the recording differ: name, recorded, ours.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) differences: Vec<(String, String, String)>,
}

impl Report {
    pub(crate) fn compare<T: Debug + PartialEq>(&mut self, fact: &str, recorded: T, ours: T) {
        if recorded != ours {
            self.differences.push((
                fact.to_owned(),
                format!("{recorded:?}"),
                format!("{ours:?}"),
            ));
        }
    }
}

/// The facts of one direction of a session.
pub(crate) struct Flow<'a> {
    pub(crate) facts: &'a Value,
    pub(crate) acks: &'a Value,
    pub(crate) from_caller: bool,
    /// The capture was taken at the receiver, or is the only one: its loss reports are answers
    /// to what it shows.
    pub(crate) at_receiver: bool,
    /// The same for the sender and its retransmissions.
    pub(crate) at_sender: bool,
}

impl Flow<'_> {
    fn number(&self, key: &str) -> u64 {
        self.facts[key].as_u64().expect("a number")
    }

    fn text(&self, key: &str) -> &str {
        self.facts[key].as_str().expect("a text")
    }

    /// Whether the payload was encrypted on the wire.
    pub(crate) fn is_encrypted(&self) -> bool {
        let keys = self.facts["kk"].as_object().expect("a tally");
        keys.keys().any(|key| key != "0")
    }

    /// Packets that the capture has not.
    pub(crate) fn missing(&self) -> u64 {
        let missing = self.facts["missing_seq_offsets_from_first"].as_array();
        missing.map_or(0, Vec::len) as u64
    }

    fn last_full_ack(&self) -> Option<Vec<u32>> {
        let fields = self.acks["last"]["fields"].as_array()?;
        fields.iter().map(|w| Some(w.as_u64()? as u32)).collect()
    }
}

/// How many there are of each value.
fn tally(values: impl IntoIterator<Item = u8>) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

fn controls<'a, T>(side: &'a Side, of: impl Fn(&'a Kind) -> Option<T> + 'a) -> Vec<T> {
    side.sent
        .iter()
        .filter_map(|s| of(&s.packet.kind))
        .collect()
}

/// Numbers as places behind the first one: what differs is then readable.
fn places(session: &Session, numbers: impl IntoIterator<Item = u32>) -> Vec<i32> {
    let place = |n: u32| distance(session.initial, n);
    let mut places: Vec<i32> = numbers.into_iter().map(place).collect();
    places.sort_unstable();
    places
}

/// Sequence numbers that were jumped over at the receiver, as the capture shows them.
fn gaps(session: &Session, from_caller: bool) -> BTreeSet<u32> {
    let mut gaps = BTreeSet::new();
    let mut next = session.initial;
    let mut established = false;
    for event in &session.events {
        match &event.packet.kind {
            Kind::Handshake(h) if !event.from_caller => {
                established |= h.kind == handshake_type::CONCLUSION;
            }
            Kind::Data(data)
                if established && event.from_caller == from_caller && data.message != 0 =>
            {
                while distance(next, data.sequence) > 0 {
                    gaps.insert(next);
                    next = next.wrapping_add(1) & 0x7FFF_FFFF;
                }
                if next == data.sequence {
                    next = next.wrapping_add(1) & 0x7FFF_FFFF;
                }
            }
            _ => {}
        }
    }
    gaps
}

fn reported(session: &Session, by_caller: bool) -> BTreeSet<u32> {
    let of_receiver = session.events.iter().filter(|e| e.from_caller == by_caller);
    let naks = of_receiver.filter_map(|e| match &e.packet.kind {
        Kind::Nak(words) => Some(nak_numbers(words)),
        _ => None,
    });
    naks.flatten().collect()
}

/// Our end received.
pub(crate) fn received(report: &mut Report, session: &Session, flow: &Flow<'_>, played: &Played) {
    let side = &played.side;
    let Some(connection) = &side.connection else {
        return report.compare("connection", "one", "none");
    };
    let stats = connection.statistics();
    if flow.is_encrypted() && is_refused_keys(session) {
        return undecryptable(report, session, flow, side, &stats);
    }
    report.compare("distinct", flow.number("distinct"), stats.pkt_recv_unique);
    let repeated = flow.number("data_packets") - flow.number("distinct");
    let doubles = stats.pkt_rcv_duplicate + stats.pkt_rcv_belated;
    let early = discards(side, Discard::HandshakePending);
    report.compare("duplicates", repeated, doubles + early);
    let discarded = discards(side, Discard::Duplicate) + discards(side, Discard::Belated);
    report.compare("duplicates, discarded", doubles, discarded);
    let early_retransmissions = session
        .data(flow.from_caller)
        .filter(|(e, d)| d.retransmitted && is_early(side, e.frame.number))
        .count() as u64;
    report.compare(
        "retransmitted",
        flow.number("retransmitted") - early_retransmissions,
        stats.pkt_rcv_retrans,
    );
    report.compare("dropped", flow.missing(), stats.pkt_rcv_drop);
    report.compare(
        "dropped, as delivered",
        stats.pkt_rcv_drop,
        side.lost_before,
    );
    let gaps = gaps(session, flow.from_caller);
    report.compare("lost", gaps.len() as u64, stats.pkt_rcv_loss);
    report.compare("undecryptable", 0, stats.pkt_rcv_undecrypt);
    loss_reports(report, session, flow, side, &gaps);
    last_acknowledged(report, session, flow, side);
    acks_sent(report, session, flow, side);
    figures(report, session, flow, &stats);
    report.compare("released late by", 0, side.late_us);
    report.compare("other discards", Vec::new(), other_discards(side));
    invariants(report, &stats);
    report.compare("drained", true, connection.is_drained());
}

/// Whether the listener accepted the connection but not the caller's keys.
pub(crate) fn is_refused_keys(session: &Session) -> bool {
    let response = session.answer().and_then(|h| h.block(block::KMRSP));
    response.is_some_and(|content| content.len() == 4)
}

/// Data without keys for it: acknowledged, counted and dropped (spec section 16.7), while the
/// recorded end still delivered the bytes as they came.
fn undecryptable(
    report: &mut Report,
    session: &Session,
    flow: &Flow<'_>,
    side: &Side,
    stats: &Statistics,
) {
    let all = flow.number("data_packets");
    report.compare("undecryptable", all, stats.pkt_rcv_undecrypt);
    let discarded = discards(side, Discard::Undecryptable);
    report.compare("undecryptable, discarded", all, discarded);
    report.compare("dropped", flow.number("distinct"), stats.pkt_rcv_drop);
    report.compare("payload bytes", 0, side.delivered.len());
    last_acknowledged(report, session, flow, side);
    report.compare("other discards", Vec::new(), other_discards(side));
    invariants(report, stats);
}

fn last_acknowledged(report: &mut Report, session: &Session, flow: &Flow<'_>, side: &Side) {
    let last_ack = |words: &Vec<u32>| distance(session.initial, words[0]);
    report.compare(
        "last acknowledged",
        flow.last_full_ack().as_ref().map(last_ack),
        controls(side, full_ack).last().copied().map(last_ack),
    );
}

/// Bytes that are counted with each packet: IPv4, UDP and SRT headers.
const HEADERS: u64 = 44;

/// What the statistics say of a direction besides packets.
fn figures(report: &mut Report, session: &Session, flow: &Flow<'_>, stats: &Statistics) {
    let bytes = flow.number("payload_bytes") + HEADERS * flow.number("distinct");
    report.compare("bytes", bytes, stats.byte_recv_unique);
    let of_sender = session.events.iter();
    let of_sender = of_sender.filter(|e| e.from_caller == flow.from_caller);
    let is_announcement =
        |e: &&session::Event| matches!(e.packet.kind, Kind::Extension(block::KMREQ, _));
    let announced = of_sender.filter(is_announcement).count() as u64;
    report.compare("keys renewed", announced, stats.km_refreshes);
    let (mut highest, mut behind) = (None, 0);
    for (_, data) in session.data(flow.from_caller) {
        let is_behind = highest.is_some_and(|h| distance(h, data.sequence) < 0);
        behind += u64::from(is_behind && !data.retransmitted);
        if !is_behind {
            highest = Some(data.sequence);
        }
    }
    report.compare("reordered", behind, stats.pkt_rcv_reordered);
}

/// Whether the connection is encrypted, as both ends see it: the KMRSP's status, or that it
/// echoes keys.
pub(crate) fn key_state(report: &mut Report, session: &Session, played: &Played) {
    let (Some(connection), Some(answer)) = (&played.side.connection, session.answer()) else {
        return;
    };
    let state = match answer.block(block::KMRSP) {
        None => KmState::Unsecured,
        // Its byte order is the little-endian one (spec section 16.5).
        Some([0, ..]) => KmState::Unsecured,
        Some([3, ..]) => KmState::NoSecret,
        Some([4, ..]) => KmState::BadSecret,
        Some(_) => KmState::Secured,
    };
    let stats = connection.statistics();
    let ours = (stats.snd_km_state, stats.rcv_km_state);
    report.compare("key state", (state, state), ours);
}

/// libsrt 1.5.5 counts the rate in bytes without headers.
const RATE_WITHOUT_HEADERS: u32 = 0x0001_0505;
/// Fewer packets leave a rate to chance.
const ENOUGH_PACKETS: u64 = 30;

/// Our ACKs beside the recorded ones, where nothing is missing: no fewer, and with the same
/// arrival rate in the last one. Between both the timers of two programs have their say, and the
/// time from the capture to the recorded end.
fn acks_sent(report: &mut Report, session: &Session, flow: &Flow<'_>, side: &Side) {
    if !flow.at_receiver || flow.missing() > 0 || session.asks_for(block::FILTER) {
        return;
    }
    let of_receiver = session.events.iter();
    let of_receiver = of_receiver.filter(|e| e.from_caller != flow.from_caller);
    let recorded: Vec<&Vec<u32>> = of_receiver
        .filter_map(|e| full_ack(&e.packet.kind))
        .collect();
    let ours = controls(side, full_ack);
    let enough = ours.len() * 10 >= recorded.len() * 9;
    report.compare("enough acks", true, enough);
    let version = if flow.from_caller {
        session.answer().and_then(|h| h.hs(block::HSRSP))
    } else {
        session.conclusion().and_then(|h| h.hs(block::HSREQ))
    };
    let (Some(recorded), Some(ours)) = (recorded.last(), ours.last()) else {
        return;
    };
    let is_steady = flow.number("distinct") >= ENOUGH_PACKETS
        && flow.number("retransmitted") == 0
        && (1..1000).contains(&recorded[4])
        && version.is_some_and(|hs| hs.0 < RATE_WITHOUT_HEADERS);
    if is_steady {
        let is_near = |i: usize| recorded[i].abs_diff(ours[i]) * 50 <= recorded[i] + 50;
        report.compare("arrival rate", true, is_near(4) && is_near(6));
    }
}

/// Data that overtook the handshake is discarded; the recorded caller did the same.
fn is_early(side: &Side, frame: usize) -> bool {
    side.discards.contains(&(frame, Discard::HandshakePending))
}

fn discards(side: &Side, reason: Discard) -> u64 {
    side.discards.iter().filter(|(_, r)| *r == reason).count() as u64
}

fn other_discards(side: &Side) -> Vec<(usize, Discard)> {
    let counted = [
        Discard::Duplicate,
        Discard::Belated,
        Discard::HandshakePending,
        Discard::Undecryptable,
    ];
    let ended = side.events.iter().any(|e| matches!(e.1, Event::Closed(_)));
    let is_other =
        |d: &&(usize, Discard)| !(counted.contains(&d.1) || ended && d.1 == Discard::Closed);
    side.discards.iter().filter(is_other).copied().collect()
}

fn full_ack(kind: &Kind) -> Option<&Vec<u32>> {
    match kind {
        Kind::Ack(words) if words.len() == 7 => Some(words),
        _ => None,
    }
}

/// The payload of one direction, all of it.
pub(crate) fn payload(report: &mut Report, flow: &Flow<'_>, payload: &[u8]) {
    let len = payload.len() as u64;
    report.compare("payload bytes", flow.number("payload_bytes"), len);
    let hash = sha256(payload);
    report.compare("payload sha256", flow.text("payload_sha256"), &hash);
}

fn loss_reports(
    report: &mut Report,
    session: &Session,
    flow: &Flow<'_>,
    side: &Side,
    gaps: &BTreeSet<u32>,
) {
    let naks = controls(side, |kind| match kind {
        Kind::Nak(words) => Some(nak_numbers(words)),
        _ => None,
    });
    let ours: BTreeSet<u32> = naks.into_iter().flatten().collect();
    let ours = places(session, ours);
    report.compare(
        "reported lost",
        &places(session, gaps.iter().copied()),
        &ours,
    );
    // With a packet filter it depends on the filter what is asked for.
    if flow.at_receiver && !session.asks_for(block::FILTER) {
        let recorded = places(session, reported(session, !flow.from_caller));
        report.compare("reported lost, by the recorded end", recorded, ours);
    }
}

fn invariants(report: &mut Report, stats: &Statistics) {
    let accounted = stats.pkt_recv_unique
        + stats.pkt_rcv_duplicate
        + stats.pkt_rcv_belated
        + stats.pkt_rcv_undecrypt
        + stats.pkt_rcv_refused;
    report.compare("received = accounted for", stats.pkt_recv, accounted);
    report.compare(
        "unique = delivered",
        stats.pkt_recv_unique,
        stats.pkt_delivered,
    );
    report.compare("held at the end", 0, stats.pkt_rcv_buf);
}

/// Our end sent.
pub(crate) fn sent(report: &mut Report, session: &Session, flow: &Flow<'_>, played: &Played) {
    let side = &played.side;
    let Some(connection) = &side.connection else {
        return report.compare("connection", "one", "none");
    };
    let stats = connection.statistics();
    let data = controls(side, |kind| match kind {
        Kind::Data(data) => Some(data),
        _ => None,
    });
    let (again, originals): (Vec<&Data>, Vec<&Data>) =
        data.into_iter().partition(|d| d.retransmitted);
    let of_flow = |key: &str| flow.number(key) as u32;
    let span = u64::from(of_flow("last_seq").wrapping_sub(of_flow("first_seq")) & 0x7FFF_FFFF) + 1;
    report.compare("sent", span, stats.pkt_sent_unique);
    report.compare("sent, on the wire", span, originals.len() as u64);
    let (first, last) = (originals.first(), originals.last());
    let number = |key: &str| Some(of_flow(key));
    report.compare(
        "first number",
        number("first_seq"),
        first.map(|d| d.sequence),
    );
    report.compare("last number", number("last_seq"), last.map(|d| d.sequence));
    report.compare(
        "first message",
        number("first_msgno"),
        first.map(|d| d.message),
    );
    report.compare("solo", true, originals.iter().all(|d| d.position == 3));
    if !flow.is_encrypted() && flow.missing() == 0 {
        let bytes: Vec<u8> = originals.iter().flat_map(|d| d.payload.clone()).collect();
        payload(report, flow, &bytes);
    }
    if flow.at_sender && flow.missing() == 0 {
        let recorded = session.data(flow.from_caller).map(|(_, d)| d);
        let recorded: Vec<&Data> = recorded.filter(|d| !d.retransmitted).collect();
        let keys = |of: &[&Data]| tally(of.iter().map(|d| d.key));
        report.compare("packets of each key", keys(&recorded), keys(&originals));
        let len = |d: &&Data| d.payload.len() as u64 + HEADERS;
        let bytes: u64 = recorded.iter().map(len).sum();
        report.compare("bytes sent", bytes, stats.byte_sent_unique);
    }
    retransmissions(report, session, flow, &stats, &again);
    acknowledgements(report, session, flow, side, &stats);
    report.compare("refused sends", Vec::new(), side.refused_sends.clone());
    report.compare("other discards", Vec::new(), other_discards(side));
}

fn retransmissions(
    report: &mut Report,
    session: &Session,
    flow: &Flow<'_>,
    stats: &Statistics,
    again: &[&Data],
) {
    report.compare(
        "retransmitted, on the wire",
        stats.pkt_retrans,
        again.len() as u64,
    );
    let recorded = session.data(flow.from_caller);
    let recorded = recorded.filter(|(_, d)| d.retransmitted);
    let recorded = places(session, recorded.map(|(_, d)| d.sequence));
    let ours = places(session, again.iter().map(|d| d.sequence));
    if flow.at_sender {
        report.compare("retransmitted", recorded, ours);
    } else {
        // What was retransmitted may have been lost before this capture.
        let mut ours = ours;
        ours.dedup();
        let asked = places(session, reported(session, !flow.from_caller));
        report.compare("retransmitted of what was asked for", asked, ours);
    }
}

fn acknowledgements(
    report: &mut Report,
    session: &Session,
    flow: &Flow<'_>,
    side: &Side,
    stats: &Statistics,
) {
    let of_peer = || {
        session
            .events
            .iter()
            .filter(|e| e.from_caller != flow.from_caller)
    };
    let acks = of_peer().filter_map(|e| match &e.packet.kind {
        Kind::Ack(words) => Some((e.packet.info, words)),
        _ => None,
    });
    let acks: Vec<(u32, &Vec<u32>)> = acks.collect();
    report.compare("acks", acks.len() as u64, stats.pkt_recv_ack);
    let naks = of_peer().filter(|e| matches!(e.packet.kind, Kind::Nak(_)));
    report.compare("naks", naks.count() as u64, stats.pkt_recv_nak);
    let numbered: Vec<u32> = acks.iter().map(|a| a.0).filter(|n| *n != 0).collect();
    let ackacks = side.sent.iter().filter(|s| s.packet.kind == Kind::AckAck);
    let ackacks: Vec<u32> = ackacks.map(|s| s.packet.info).collect();
    report.compare("ackacks", numbered, ackacks);
    if let Some(words) = flow.last_full_ack() {
        report.compare(
            "rtt",
            (words[1], words[2]),
            (stats.rtt_us, stats.rtt_var_us),
        );
    }
    let highest = acks
        .iter()
        .map(|a| a.1[0])
        .max_by(|a, b| distance(*b, *a).cmp(&0));
    let open = highest.map(|a| distance(a, flow.number("last_seq") as u32) + 1);
    report.compare(
        "in flight at the end",
        open.unwrap_or(0),
        stats.pkt_flight_size as i32,
    );
    report.compare("dropped before sending", 0, stats.pkt_snd_drop);
}

/// Idle timeout of either end.
const IDLE_US: u64 = 5_000_000;

/// Keepalives of our end, while it lasted.
pub(crate) fn keepalives(report: &mut Report, session: &Session, is_caller: bool, played: &Played) {
    let own = session.events.iter().filter(|e| e.from_caller == is_caller);
    let recorded = own.filter(|e| e.packet.kind == Kind::Keepalive).count();
    let ours = controls(&played.side, |kind| {
        (*kind == Kind::Keepalive).then_some(())
    });
    report.compare("keepalives", recorded, ours.len());
}

/// How it ended: the recorded peer shut down, or our end was told to, or the peer fell silent.
pub(crate) fn end(report: &mut Report, session: &Session, is_caller: bool, played: &Played) {
    let side = &played.side;
    let first_shutdown = session
        .events
        .iter()
        .find(|e| e.packet.kind == Kind::Shutdown);
    let of_peer = |e: &&session::Event| e.from_caller != is_caller;
    let heard_us = session
        .events
        .iter()
        .rfind(of_peer)
        .map_or(0, |e| e.frame.at_us);
    let reason = match first_shutdown {
        // Said into the silence of a peer that vanished.
        Some(e) if e.from_caller == is_caller && e.frame.at_us > heard_us + IDLE_US => {
            CloseReason::IdleTimeout
        }
        Some(e) if e.from_caller == is_caller => CloseReason::Local,
        Some(_) => CloseReason::PeerShutdown,
        None => CloseReason::IdleTimeout,
    };
    let ours = side.events.iter().map(|e| e.1);
    let ours: Vec<Event> = ours.filter(|e| *e != Event::Connected).collect();
    report.compare("end", vec![Event::Closed(reason)], ours);
}

fn comparable(handshake: &Handshake) -> Vec<(&'static str, u64)> {
    vec![
        ("version", handshake.version.into()),
        ("encryption", handshake.encryption.into()),
        ("initial", handshake.initial.into()),
        ("mss", handshake.mss.into()),
        ("window", handshake.window.into()),
        ("type", handshake.kind.into()),
        ("socket id", handshake.socket_id.into()),
    ]
}

/// One of our handshakes beside the recorded one. Cookies and keys are each end's own, and so
/// is the SRT version.
pub(crate) fn handshake(report: &mut Report, what: &str, recorded: &Handshake, ours: &Handshake) {
    if recorded.block(block::FILTER).is_none() && recorded.block(block::GROUP).is_none() {
        let fact = format!("{what}: extension field");
        report.compare(&fact, recorded.extension, ours.extension);
    }
    for ((name, recorded), (_, ours)) in comparable(recorded).into_iter().zip(comparable(ours)) {
        report.compare(&format!("{what}: {name}"), recorded, ours);
    }
    for kind in [block::HSREQ, block::HSRSP] {
        hs(report, what, recorded.hs(kind), ours.hs(kind));
    }
    for (name, kind) in [("stream id", block::SID), ("congestion", block::CONGESTION)] {
        let fact = format!("{what}: {name}");
        report.compare(&fact, recorded.text(kind), ours.text(kind));
    }
}

/// PACKET_FILTER: this engine has none.
const FILTER_FLAG: u32 = 0x80;

fn hs(
    report: &mut Report,
    what: &str,
    recorded: Option<(u32, u32, u16, u16)>,
    ours: Option<(u32, u32, u16, u16)>,
) {
    let latencies = |hs: (u32, u32, u16, u16)| (hs.2, hs.3);
    report.compare(
        &format!("{what}: latencies"),
        recorded.map(latencies),
        ours.map(latencies),
    );
    let flags = |hs: (u32, u32, u16, u16)| hs.1 & !FILTER_FLAG;
    report.compare(
        &format!("{what}: flags"),
        recorded.map(flags),
        ours.map(flags),
    );
}

/// The request as our listener understood it.
pub(crate) fn request(report: &mut Report, session: &Session, played: &Played) {
    let (Some(request), Some(asked)) = (&played.request, session.conclusion()) else {
        return report.compare("request", "understood", "not understood");
    };
    let (version, flags, ..) = asked.hs(block::HSREQ).unwrap_or_default();
    report.compare("request: SRT version", version, request.version);
    report.compare("request: flags", flags, request.flags);
    report.compare("request: mss", asked.mss, request.mss);
    report.compare("request: window", asked.window, request.flow_window);
    report.compare(
        "request: initial",
        asked.initial,
        request.initial_sequence.get(),
    );
    report.compare(
        "request: socket id",
        asked.socket_id,
        request.peer_socket_id,
    );
    report.compare("request: peer", session.caller, request.peer);
    let text = request
        .srt_stream_id
        .as_deref()
        .map(String::from_utf8_lossy);
    let asked_text = asked.text(block::SID);
    report.compare("request: stream id", asked_text.as_deref(), text.as_deref());
    report.compare(
        "request: key material",
        asked.block(block::KMREQ),
        request.key_material.as_deref(),
    );
}

/// Our answers to the caller, and what was agreed.
pub(crate) fn answers(report: &mut Report, session: &Session, played: &Played) {
    let recorded = session
        .handshakes(false)
        .find(|h| h.kind == handshake_type::INDUCTION);
    if let (Some(recorded), Some(ours)) = (recorded, played.inductions.first()) {
        handshake(report, "induction response", recorded, ours);
    }
    let ours = controls(&played.side, |kind| match kind {
        Kind::Handshake(h) => Some(&**h),
        _ => None,
    });
    if let (Some(recorded), Some(ours)) = (session.answer(), ours.first()) {
        handshake(report, "response", recorded, ours);
        let IpAddr::V4(caller) = session.caller.ip() else {
            panic!("captures are of IPv4")
        };
        // Each of its words is in the order of a little-endian host.
        let mut reversed = caller.octets();
        reversed.reverse();
        report.compare("response: peer ip", &reversed[..], &ours.peer_ip[..4]);
        report.compare(
            "response: KMRSP",
            recorded.block(block::KMRSP),
            ours.block(block::KMRSP),
        );
    }
    let conclusions = session
        .handshakes(true)
        .filter(|h| h.kind == handshake_type::CONCLUSION);
    report.compare("responses", conclusions.count(), ours.len());
    agreed(report, session, played, false);
    key_messages(report, session, false, played);
}

/// Our requests as caller.
pub(crate) fn requests(report: &mut Report, session: &Session, played: &Played) {
    let ours = controls(&played.side, |kind| match kind {
        Kind::Handshake(h) => Some(&**h),
        _ => None,
    });
    let of = |kind: u32| ours.iter().copied().find(move |h| h.kind == kind);
    for (what, kind) in [
        ("induction", handshake_type::INDUCTION),
        ("conclusion", handshake_type::CONCLUSION),
    ] {
        let recorded = session.handshakes(true).find(|h| h.kind == kind);
        match (recorded, of(kind)) {
            (Some(recorded), Some(ours)) => {
                handshake(report, what, recorded, ours);
                report.compare(&format!("{what}: cookie"), recorded.cookie, ours.cookie);
                let shape = |h: &Handshake| {
                    let km = h.block(block::KMREQ)?;
                    Some((km[..16].to_vec(), km.len()))
                };
                report.compare(&format!("{what}: KMREQ"), shape(recorded), shape(ours));
            }
            (recorded, ours) => {
                report.compare(what, recorded.is_some(), ours.is_some());
            }
        }
    }
}

/// Latencies on both sides.
pub(crate) fn agreed(report: &mut Report, session: &Session, played: &Played, is_caller: bool) {
    let Some(connection) = &played.side.connection else {
        return;
    };
    let Some((_, _, listeners, callers)) = session.answer().and_then(|h| h.hs(block::HSRSP)) else {
        return;
    };
    let (own, peer) = if is_caller {
        (callers, listeners)
    } else {
        (listeners, callers)
    };
    let ms = |ms: u16| Duration::from_millis(ms.into());
    report.compare("latency", ms(own), connection.latency());
    report.compare("peer's latency", ms(peer), connection.peer_latency());
}

/// Key messages in flight: those that our end sent, beside those of the recorded end. Answers
/// echo the peer's bytes; requests hold our own keys, so only their shape is compared.
pub(crate) fn key_messages(
    report: &mut Report,
    session: &Session,
    is_caller: bool,
    played: &Played,
) {
    let shape = |subtype: u16, content: &[u8]| {
        let shown = if subtype == block::KMREQ {
            &content[..16]
        } else {
            content
        };
        (subtype, shown.to_vec(), content.len())
    };
    let recorded = session.events.iter().filter(|e| e.from_caller == is_caller);
    let recorded: Vec<_> = recorded
        .filter_map(|e| match &e.packet.kind {
            Kind::Extension(subtype, content) => Some(shape(*subtype, content)),
            _ => None,
        })
        .collect();
    let ours = controls(&played.side, |kind| match kind {
        Kind::Extension(subtype, content) => Some(shape(*subtype, content)),
        _ => None,
    });
    report.compare("key messages", recorded, ours);
}
