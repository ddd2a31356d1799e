//! Captures of libsrt replayed: the caller's datagrams, at their times, into our listener.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Instant, SlotRing};

use super::pair::Policy;
use super::*;
use crate::packet::{Control, Header};
use crate::test_support::{Frame, capture, sha256, vectors};
use crate::{HandshakeAction, Handshaker};
use mirror_base::Discard;

const START_US: u64 = 100_000_000;
/// Our socket ID where the capture's listener had none.
const SOCKET_ID: u32 = 0x0102_0304;

#[derive(Default)]
struct Outcome {
    connection: Option<Connection>,
    payload: Vec<u8>,
    lost: u64,
    rejected: Option<u32>,
    events: Vec<(u64, Event)>,
    sent: Vec<(u64, Vec<u8>)>,
    discards: Vec<Discard>,
    lateness_us: u64,
}

struct Replay {
    outcome: Outcome,
    ring: SlotRing,
    handshaker: Handshaker,
    config: Config,
    /// Our socket ID: the listener's of the capture, which AES-GCM authenticates.
    socket_id: u32,
    policy: Policy,
    cookie: u32,
    caller: SocketAddr,
    key: Option<(SocketAddr, u32, PacketSequenceNumber)>,
    /// ACKACKs on their way: ours are numbered otherwise than those of the capture.
    ackacks: std::collections::VecDeque<(Instant, Vec<u8>)>,
    /// The caller's clock at its last datagram, and until when it lives.
    clock: (u32, u64),
    last_us: u64,
}

/// Between our ACK and its ACKACK.
const RTT: Duration = Duration::from_micros(200);

impl Replay {
    fn answer_ack(&mut self, now: Instant, datagram: &[u8]) {
        let at = now + RTT;
        let (ts, seen) = self.clock;
        let elapsed = at.as_micros() - START_US - seen;
        if datagram[..4] != [0x80, 2, 0, 0] || datagram.len() != 44 || at.as_micros() > self.last_us
        {
            return;
        }
        let mut ackack = vec![0x80, 6, 0, 0];
        ackack.extend(&datagram[4..8]);
        ackack.extend(ts.wrapping_add(elapsed as u32).to_be_bytes());
        ackack.extend(self.socket_id.to_be_bytes());
        self.ackacks.push_back((at, ackack));
    }

    fn drain(&mut self, now: Instant) {
        let mut out = [0; 1500];
        while let Some(len) = self
            .outcome
            .connection
            .as_mut()
            .and_then(|c| c.poll_transmit(now, &mut out))
        {
            self.outcome
                .sent
                .push((now.as_micros() - START_US, out[..len].to_vec()));
            self.answer_ack(now, &out[..len]);
        }
        let Some(connection) = &mut self.outcome.connection else {
            return;
        };
        while let Some(delivery) = connection.poll_delivery(now, &self.ring) {
            assert!(delivery.due <= now);
            self.outcome.lateness_us = self.outcome.lateness_us.max(now.micros_since(delivery.due));
            self.outcome.lost += u64::from(delivery.lost_before);
            self.outcome
                .payload
                .extend(self.ring.get(delivery.slot).unwrap().payload);
        }
        self.ring.release_before(connection.delivery_index());
        while let Some(event) = connection.poll_event() {
            self.outcome
                .events
                .push((now.as_micros() - START_US, event));
        }
    }

    /// Runs timers until `until`.
    fn advance(&mut self, until: Instant) {
        while let Some(connection) = &mut self.outcome.connection {
            let due = connection.poll_timeout();
            match self.ackacks.front() {
                Some(&(at, _)) if at <= until && due.is_none_or(|due| at <= due) => {
                    let (at, datagram) = self.ackacks.pop_front().unwrap();
                    let _ = connection.handle_datagram(at, at, &datagram, &mut self.ring);
                    self.drain(at);
                    continue;
                }
                _ => {}
            }
            match due {
                Some(due) if due <= until => {
                    connection.handle_timeout(due, &mut self.ring);
                    self.drain(due);
                }
                _ => break,
            }
        }
    }

    fn feed(&mut self, frame: &Frame) {
        let now = Instant::from_micros(START_US + frame.at_us);
        self.advance(now);
        let mut datagram = frame.datagram.clone();
        let (header, _) = Header::parse(&datagram).unwrap();
        self.clock = (header.timestamp, frame.at_us);
        if header.control() == Control::AckAck && header.is_control() {
            return;
        }
        if crate::destination_socket_id(&datagram) == Some(0) {
            self.handshake(now, &mut datagram);
        } else if let Some(connection) = &mut self.outcome.connection
            && let Err(reason) = connection.handle_datagram(now, now, &datagram, &mut self.ring)
        {
            self.outcome.discards.push(reason);
        }
        self.drain(now);
    }

    fn handshake(&mut self, now: Instant, datagram: &mut [u8]) {
        // Where the caller would echo our cookie.
        let conclusion = datagram[36..40] == [0xFF; 4];
        if conclusion {
            datagram[44..48].copy_from_slice(&self.cookie.to_be_bytes());
        }
        let mut out = [0; 1500];
        match self
            .handshaker
            .handle_datagram(now, self.caller, datagram, &mut out)
            .unwrap()
        {
            HandshakeAction::Reply(_) if conclusion => {
                self.outcome.rejected = Some(u32::from_be_bytes(out[36..40].try_into().unwrap()));
            }
            HandshakeAction::Reply(_) => {
                self.cookie = u32::from_be_bytes(out[44..48].try_into().unwrap());
            }
            HandshakeAction::Conclude(request) if self.key == Some(request.key()) => {
                self.outcome
                    .connection
                    .as_mut()
                    .unwrap()
                    .handle_repeated_conclusion(now);
            }
            HandshakeAction::Conclude(request) => {
                let security = match self.policy.decide(&request) {
                    Ok(security) => security,
                    Err(code) => {
                        self.outcome.rejected = Some(code.wire());
                        return;
                    }
                };
                self.key = Some(request.key());
                let accepted =
                    Connection::accept(now, &request, self.socket_id, &self.config, 500, security);
                self.outcome.connection = Some(accepted.unwrap());
            }
        }
    }
}

fn replay(name: &str, config: Config) -> Outcome {
    let frames = capture(name);
    let caller = frames[0].from;
    let socket_id = frames
        .iter()
        .filter(|f| f.from == caller)
        .filter_map(|f| crate::destination_socket_id(&f.datagram))
        .find(|id| *id != 0)
        .unwrap_or(SOCKET_ID);
    let mut replay = Replay {
        outcome: Outcome::default(),
        ring: SlotRing::with_owned_chunks(200),
        handshaker: Handshaker::new(config.clone(), [3; 16]),
        config,
        socket_id,
        policy: Policy::clear(),
        cookie: 0,
        caller,
        key: None,
        ackacks: std::collections::VecDeque::new(),
        clock: (0, 0),
        last_us: START_US + frames.iter().rfind(|f| f.from == caller).unwrap().at_us,
    };
    for frame in frames.iter().filter(|f| f.from == caller) {
        replay.feed(frame);
    }
    let end = frames.last().unwrap().at_us + START_US + 10_000_000;
    replay.advance(Instant::from_micros(end));
    if let Some(connection) = &replay.outcome.connection {
        let stats = connection.statistics();
        assert_eq!(stats.pkt_rcv_buf, 0);
        assert!(connection.is_drained());
        assert_eq!(
            stats.pkt_recv,
            stats.pkt_recv_unique
                + stats.pkt_rcv_duplicate
                + stats.pkt_rcv_belated
                + stats.pkt_rcv_undecrypt
                + stats.pkt_rcv_refused
        );
        assert_eq!(stats.pkt_recv_unique, stats.pkt_delivered);
        assert_eq!(replay.outcome.lost, stats.pkt_rcv_drop);
    }
    replay.outcome
}

fn with_latency(ms: u64) -> Config {
    Config {
        latency: Duration::from_millis(ms),
        ..Config::default()
    }
}

/// Replays a capture whose caller sends; everything that the caller's packets held is delivered.
fn delivers_all(name: &str, latency_ms: u64) -> (Outcome, Statistics) {
    let facts = &vectors(&format!("srt/{name}.json"));
    let outcome = replay(name, with_latency(latency_ms));
    let flow = facts["flows"].as_object().unwrap().values().next().unwrap();
    assert_eq!(
        outcome.payload.len() as u64,
        flow["payload_bytes"].as_u64().unwrap(),
        "{name}"
    );
    assert_eq!(
        sha256(&outcome.payload),
        flow["payload_sha256"].as_str().unwrap(),
        "{name}"
    );
    let stats = outcome.connection.as_ref().unwrap().statistics();
    assert_eq!(
        stats.pkt_recv_unique,
        flow["distinct"].as_u64().unwrap(),
        "{name}"
    );
    assert_eq!(
        stats.pkt_rcv_retrans,
        flow["retransmitted"].as_u64().unwrap(),
        "{name}"
    );
    let missing = flow["missing_seq_offsets_from_first"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(stats.pkt_rcv_drop, missing as u64, "{name}");
    assert_eq!(outcome.lateness_us, 0, "{name}: released at its time");
    (outcome, stats)
}

fn count(outcome: &Outcome, control: Control) -> usize {
    let of = |d: &[u8]| {
        Header::parse(d)
            .filter(|(h, _)| h.is_control())
            .map(|(h, _)| h.control())
    };
    outcome
        .sent
        .iter()
        .filter(|(_, d)| of(d) == Some(control))
        .count()
}

#[test]
fn clear_streams_of_libsrt_are_delivered_byte_for_byte() {
    let (outcome, stats) = delivers_all("srt01_clear_caller_sends", 120);
    assert_eq!(stats.pkt_rcv_loss, 0);
    assert!(
        (25..=39).contains(&stats.pkt_sent_ack),
        "{}",
        stats.pkt_sent_ack
    );
    assert_eq!(stats.pkt_recv_ackack, stats.pkt_sent_ack);
    assert_eq!((stats.rtt_us, stats.drift_us), (200, 0));
    assert_eq!(outcome.connection.unwrap().latency().as_millis(), 200);
    assert!(matches!(
        outcome.events[..],
        [(_, Event::Closed(CloseReason::PeerShutdown))]
    ));
    delivers_all("srt07_streamid_freeform_utf8", 120);
    delivers_all("srt56_latency_negotiation", 300);
    delivers_all("srt57_small_mss_payload", 120);
}

#[test]
fn losses_are_reported_and_repaired_as_libsrt_does() {
    let (outcome, stats) = delivers_all("srt30_loss_nak_rexmit_rcvleg", 200);
    assert_eq!(stats.pkt_rcv_loss, 11);
    assert_eq!(stats.pkt_rcv_drop, 0);
    assert!(count(&outcome, Control::Nak) >= 4);
    let (_, stats) = delivers_all("srt34_rtt50ms_loss_rcvleg", 250);
    assert_eq!(stats.pkt_rcv_loss, 6);
    let (_, stats) = delivers_all("srt36_periodic_nak_20ms_rcvleg", 700);
    assert_eq!(stats.pkt_rcv_loss, 6);
}

#[test]
fn gaps_that_are_never_repaired_are_skipped_when_too_late() {
    let (outcome, stats) = delivers_all("srt31_loss_tlpktdrop_rcvleg", 120);
    assert_eq!((stats.pkt_rcv_loss, stats.pkt_rcv_drop), (5, 5));
    // Asked for again and again while there was time.
    assert!(count(&outcome, Control::Nak) >= 6);
    let (_, stats) = delivers_all("srt33_nak_lost_periodic_nak_rcvleg", 300);
    assert_eq!((stats.pkt_rcv_loss, stats.pkt_rcv_drop), (3, 3));
}

#[test]
fn reordered_and_doubled_packets_are_delivered_once_and_in_order() {
    let (_, stats) = delivers_all("srt32_reorder_dup_lossmaxttl_rcvleg", 150);
    assert_eq!(stats.pkt_rcv_duplicate + stats.pkt_rcv_belated, 2);
    assert!(stats.pkt_rcv_reordered >= 2);
    assert_eq!(stats.pkt_rcv_drop, 2);
}

#[test]
fn a_repeated_conclusion_gets_the_same_response() {
    let (outcome, _) = delivers_all("srt35_handshake_response_lost_rcvleg", 120);
    let responses: Vec<&Vec<u8>> = outcome
        .sent
        .iter()
        .map(|(_, d)| d)
        .filter(|d| d[..4] == [0x80, 0, 0, 0])
        .collect();
    assert!(responses.len() >= 2);
    assert!(
        responses
            .iter()
            .all(|r| r[..8] == responses[0][..8] && r[12..] == responses[0][12..])
    );
}

#[test]
fn bursts_get_light_acks_each_64_packets() {
    let (_, stats) = delivers_all("srt55_lightack_burst", 150);
    assert!(
        (40..=47).contains(&stats.pkt_sent_light_ack),
        "{}",
        stats.pkt_sent_light_ack
    );
    assert!(
        (5..=12).contains(&stats.pkt_sent_ack),
        "{}",
        stats.pkt_sent_ack
    );
}

#[test]
fn an_idle_connection_is_kept_alive_each_second() {
    let (outcome, _) = delivers_all("srt46_keepalive_idle3s", 120);
    assert_eq!(count(&outcome, Control::Keepalive), 3);
}

#[test]
fn a_vanished_peer_is_given_up_after_the_idle_timeout_and_told_so() {
    let (outcome, _) = delivers_all("srt47_peer_vanish_timeout5s", 120);
    let [(at, Event::Closed(CloseReason::IdleTimeout))] = outcome.events[..] else {
        panic!("{:?}", outcome.events)
    };
    let frames = capture("srt47_peer_vanish_timeout5s");
    let last = frames
        .iter()
        .rfind(|f| f.from == frames[0].from)
        .unwrap()
        .at_us;
    assert_eq!(at, last + 5_000_000);
    assert_eq!(count(&outcome, Control::Shutdown), 1);
}

#[test]
fn callers_that_cannot_be_served_are_rejected_with_libsrts_codes() {
    let reject = |name: &str, config: Config| replay(name, config).rejected;
    let min = Config {
        min_version: 0x0002_0000,
        ..Config::default()
    };
    assert_eq!(reject("srt13_rej_minversion", min), Some(1008));
    assert_eq!(
        reject("srt14_rej_congestion", Config::default()),
        Some(1013)
    );
    assert_eq!(
        reject("srt12_rej_unsecure_listener_nopass", Config::default()),
        Some(1011)
    );
    assert_eq!(reject("srt06_streamid_acl", Config::default()), Some(1011));
    assert_eq!(reject("srt16_rej_filter", Config::default()), Some(1014));
    assert_eq!(reject("srt73_rej_group1015", Config::default()), Some(1015));
    assert_eq!(
        reject("srt80_hsv4_caller123_listener151", Config::default()),
        Some(1008)
    );
    assert_eq!(
        reject("srt83_hsv4_caller_rejected_minversion", Config::default()),
        Some(1008)
    );
    assert_eq!(
        reject("srt54_stream_buffer_mode_file", Config::default()),
        Some(1013)
    );
}
