//! What a packet costs a session in user space, for callgrind:
//!
//! ```text
//! cargo build --release -p mirror-rtp --example session_cost
//! valgrind --tool=callgrind --toggle-collect='*measured*' target/release/examples/session_cost session
//! ```
//!
//! The arguments: `session` (an ad hoc source), `media` (a configured session), `full` (the same
//! with RTCP, NACK and FEC), `paths` (two paths). Packets come in order, 16 a turn.

use core::hint::black_box;
use core::time::Duration;

use mirror_base::{Instant, SlotRing};
use mirror_rtp::media::{FecLimits, Feedback, Origin, Role, RtcpConfig};
use mirror_rtp::{Config, Header, Media, MediaConfig, Session};

const TURNS: u64 = 2_000;
const PACKETS: u64 = 16;

fn packet(n: u64) -> Vec<u8> {
    let mut p = vec![0x80, 33];
    p.extend_from_slice(&(n as u16).to_be_bytes());
    p.extend_from_slice(&(n as u32 * 20).to_be_bytes());
    p.extend_from_slice(&7u32.to_be_bytes());
    p.resize(12 + 1316, 0x47);
    p
}

#[inline(never)]
fn measured_session(now: Instant, session: &mut Session, ring: &mut SlotRing, turn: &[Vec<u8>]) {
    for datagram in turn {
        let header = Header::parse(datagram).expect("valid");
        let _ = black_box(session.handle_rtp(now, now, &header, datagram, ring));
    }
    while let Some(delivery) = session.poll_delivery(now, ring) {
        black_box(delivery);
    }
    ring.release_before(session.delivery_index());
    black_box(session.poll_timeout());
}

#[inline(never)]
fn measured_media(
    now: Instant,
    media: &mut Media,
    ring: &mut SlotRing,
    turn: &[Vec<u8>],
    legs: u8,
) {
    let from = core::net::SocketAddr::from(([192, 0, 2, 1], 5004));
    for datagram in turn {
        for leg in 0..legs {
            let role = Role::Media;
            let origin = Origin { leg, role, from };
            let _ = black_box(media.handle_rtp(now, now, &origin, datagram, ring));
        }
    }
    while let Some(delivery) = media.poll_delivery(now, ring) {
        black_box(delivery);
    }
    ring.release_before(media.release_index());
    let mut out = [0; 1500];
    while let Some(transmit) = media.poll_transmit(now, &mut out) {
        black_box(transmit);
    }
    black_box(media.poll_timeout());
}

fn config(kind: &str) -> MediaConfig {
    let plain = MediaConfig::default();
    match kind {
        "full" => MediaConfig {
            fec: Some(FecLimits::default()),
            feedback: Feedback {
                nack: true,
                pli: true,
                ..Feedback::default()
            },
            rtcp: Some(RtcpConfig::default()),
            ..plain
        },
        "paths" => MediaConfig { legs: 2, ..plain },
        _ => plain,
    }
}

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_else(|| "session".into());
    let mut now = Instant::from_millis(1);
    let mut ring = SlotRing::with_owned_chunks(16);
    let mut session = Session::new(now, 7, &Config::default(), 0);
    let mut media = Media::new(now, config(&kind), 0);
    let mut turn: Vec<Vec<u8>> = Vec::new();
    for i in 0..TURNS {
        turn.clear();
        turn.extend((0..PACKETS).map(|n| packet(i * PACKETS + n)));
        now += Duration::from_millis(1);
        match kind.as_str() {
            "session" => measured_session(now, &mut session, &mut ring, &turn),
            _ => {
                let legs = if kind == "paths" { 2 } else { 1 };
                measured_media(now, &mut media, &mut ring, &turn, legs);
                if media.poll_timeout().is_some_and(|due| due <= now) {
                    media.handle_timeout(now);
                }
            }
        }
    }
    println!("packets {}", TURNS * PACKETS);
}
