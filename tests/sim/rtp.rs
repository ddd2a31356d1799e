//! Seeded worlds for RTP: a captured H.264 stream over an impaired path, through a session and
//! the depacketiser, in virtual time.
//!
//! What must hold in every world: packets are released in order and each once, what is missing
//! is said, every unit that is not called damaged has the bytes it was sent with, and the same
//! seed takes the same course.

#[path = "../vectors/pcap.rs"]
mod pcap;

use core::time::Duration;
use std::collections::BTreeMap;

use mirror_base::{Instant, SlotRing};
use mirror_media::depacketise::RtpInput;
use mirror_media::{Limits, Packet};
use mirror_netem::{BurstLoss, Config as Path, Netem};
use mirror_rtp::{Config, Event, Header, Session, Statistics};

const STREAM: &str = "rtp20_gst_h264_stapa_fua_mtu500";
/// Between two datagrams.
const SPACING: Duration = Duration::from_millis(2);

#[derive(Debug, PartialEq)]
struct Outcome {
    /// Sequence numbers as released.
    released: Vec<u16>,
    /// What deliveries said was missing.
    missing: u64,
    /// Units by presentation time: whether damaged, and the bytes.
    units: BTreeMap<i64, (bool, Vec<u8>)>,
    events: Vec<Event>,
}

struct World {
    net: Netem,
    session: Option<Session>,
    ring: SlotRing,
    input: RtpInput,
    outcome: Outcome,
}

impl World {
    fn new(path: Path, seed: u64) -> Self {
        World {
            net: Netem::new(path, seed),
            session: None,
            ring: SlotRing::with_owned_chunks(32),
            input: RtpInput::new(None, 90_000, 1, Limits::default()),
            outcome: Outcome {
                released: Vec::new(),
                missing: 0,
                units: BTreeMap::new(),
                events: Vec::new(),
            },
        }
    }

    /// Everything that happens up to `until`, in order of time.
    fn run_until(&mut self, until: Instant) {
        loop {
            let timer = self.session.as_ref().and_then(Session::poll_timeout);
            let next = self.net.poll_timeout().into_iter().chain(timer).min();
            let Some(now) = next.filter(|next| *next <= until) else {
                return;
            };
            while let Some(datagram) = self.net.poll(now) {
                if let Ok(header) = Header::parse(&datagram) {
                    let session = self.session.get_or_insert_with(|| {
                        Session::new(now, header.ssrc, &Config::default(), 0)
                    });
                    // What is wrong with it is counted; that is checked by the figures.
                    let _ = session.handle_rtp(now, now, &header, &datagram, &mut self.ring);
                }
                self.drain(now);
            }
            if let Some(session) = &mut self.session {
                session.handle_timeout(now);
            }
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        while let Some(delivery) = session.poll_delivery(now, &self.ring) {
            let packet = self.ring.get_packet(delivery.slot).expect("in the ring");
            self.outcome
                .released
                .push(u16::from_be_bytes([packet[2], packet[3]]));
            self.outcome.missing += u64::from(delivery.lost_before);
            let slot = self.ring.get(delivery.slot).expect("in the ring");
            self.input.push(&mut Packet {
                slot: delivery.slot,
                arrival: delivery.arrival,
                lost_before: delivery.lost_before,
                discontinuity: delivery.discontinuity,
                timestamp: slot.meta.timestamp,
                marker: slot.meta.flags & 0x80 != 0,
                payload_type: slot.meta.flags & 0x7F,
                payload: slot.payload,
            });
        }
        self.ring.release_before(session.delivery_index());
        self.outcome
            .events
            .extend(core::iter::from_fn(|| session.poll_event()));
        while let Some(unit) = self.input.poll_unit() {
            let mut bytes = Vec::new();
            // A whole unit spans no lost packet.
            assert!(self.input.extract(&unit, &self.ring, &mut bytes));
            let pts = unit.pts.expect("RTP units have a time");
            self.outcome.units.insert(pts, (unit.damaged, bytes));
        }
    }
}

/// Sends the stream over `path` and lets the session end by silence.
fn play(path: Path, seed: u64) -> (Outcome, Statistics) {
    let mut world = World::new(path, seed);
    let mut now = Instant::from_millis(1);
    for datagram in pcap::datagrams(STREAM) {
        if (192..=223).contains(&datagram.payload[1]) {
            continue;
        }
        world.net.push(now, datagram.payload);
        now += SPACING;
        world.run_until(now);
    }
    world.run_until(now + Duration::from_secs(60));
    world.input.finish();
    let session = world.session.expect("something arrived");
    assert!(session.is_drained());
    (world.outcome, session.statistics())
}

fn assert_in_order(outcome: &Outcome, statistics: &Statistics) {
    let steps = outcome.released.windows(2).map(|w| w[1].wrapping_sub(w[0]));
    let gaps: u64 = steps
        .inspect(|s| assert!(*s > 0 && *s < 0x8000))
        .map(|s| u64::from(s) - 1)
        .sum();
    assert_eq!(gaps, outcome.missing);
    assert_eq!(statistics.packets_dropped, outcome.missing);
    assert_eq!(statistics.packets_unique, outcome.released.len() as u64);
    assert_eq!(statistics.packets_held, 0);
}

#[test]
fn rtp_reordering_jitter_and_duplicates_inside_the_buffer_change_nothing() {
    let (clean, _) = play(Path::default(), 0);
    assert!(clean.units.len() >= 49 && clean.units.values().all(|u| !u.0));
    for seed in 0..200 {
        let path = Path {
            reorder: 0.1,
            reorder_delay: Duration::from_millis(25),
            duplicate: 0.1,
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(20),
            ..Path::default()
        };
        let (outcome, statistics) = play(path, seed);
        assert_in_order(&outcome, &statistics);
        // Only packets before the first released one may have been overtaken for good.
        let skipped = clean.released.len() - outcome.released.len();
        assert!(
            skipped <= 2 && outcome.missing == 0,
            "seed {seed}: {skipped}"
        );
        if skipped == 0 {
            assert_eq!(outcome.units, clean.units, "seed {seed}");
        }
    }
}

#[test]
fn rtp_loss_damages_only_what_it_hits_and_every_whole_unit_is_as_it_was_sent() {
    let (clean, _) = play(Path::default(), 0);
    for seed in 0..300 {
        let path = Path {
            loss: 0.02,
            burst_loss: Some(BurstLoss {
                enter: 0.01,
                leave: 0.3,
                loss: 0.8,
            }),
            reorder: 0.05,
            reorder_delay: Duration::from_millis(5),
            duplicate: 0.02,
            jitter: Duration::from_millis(5),
            ..Path::default()
        };
        let (outcome, statistics) = play(path, seed);
        assert_in_order(&outcome, &statistics);
        for (pts, (damaged, bytes)) in &outcome.units {
            let sent = &clean.units[pts].1;
            // A lost prefix (delimiter, parameter sets) leaves the picture whole.
            assert!(
                *damaged || sent.ends_with(bytes),
                "seed {seed}, unit at {pts}"
            );
        }
        assert_eq!((outcome, statistics.jitter), {
            let (again, figures) = play(path, seed);
            (again, figures.jitter)
        });
    }
}

#[test]
fn rtp_corruption_is_survived_by_every_world() {
    for seed in 0..1_000 {
        let path = Path {
            corrupt: 0.5,
            loss: 0.05,
            duplicate: 0.05,
            ..Path::default()
        };
        let mut world = World::new(path, seed);
        let mut now = Instant::from_millis(1);
        for datagram in pcap::datagrams(STREAM) {
            world.net.push(now, datagram.payload);
            now += SPACING;
            world.run_until(now);
        }
        world.run_until(now + Duration::from_secs(60));
    }
}
