//! Feeds one connection packets in order, as the shard does, and nothing else: run it under a
//! counter of instructions (`valgrind --tool=callgrind`, `perf stat -e instructions:u`) with two
//! packet counts; the difference divided by the packets is the cost of one.
//!
//! `cargo run --release -p mirror-srt --example receive_cost -- 100000 [queue] [ctr]`: with `ctr`
//! the packets are encrypted with AES-CTR-128.

use core::time::Duration;

use mirror_base::{Instant, PacketSequenceNumber, SlotRing};
use mirror_srt::{
    CallerSecurity, CipherPolicy, Config, Connection, HandshakeAction, Handshaker, ListenerPolicy,
    Passphrase, Security,
};

const CALLER: u32 = 1;
const LISTENER: u32 = 2;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let packets: u64 = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    // Datagrams handled before the connection is drained: what one wake of the shard brings.
    let queue: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut now = Instant::from_millis(1_000_000);
    let passphrase = (arguments.next().as_deref() == Some("ctr"))
        .then(|| Passphrase::new("for the counter").expect("a passphrase"));
    // The even key; whatever the payload is, AES-CTR decrypts it to something.
    let key_bits = if passphrase.is_some() { 1 << 27 } else { 0 };
    let mut connection = connected(now, passphrase.as_ref());
    let mut ring = SlotRing::with_owned_chunks(64);
    let mut out = [0; 1500];
    let mut datagram = [0x47; 1332];
    let mut delivered = 0u64;
    for i in 0..packets {
        // 4750 packets a second: one stream of 50 Mb/s.
        now += Duration::from_nanos(210_526);
        let sequence = PacketSequenceNumber::new(1000).plus(i as u32).get();
        let timestamp = (i * 210_526 / 1000) as u32;
        datagram[..4].copy_from_slice(&sequence.to_be_bytes());
        let word1 = 0xC000_0000 | key_bits | (1 + i as u32 % 0x03FF_FFFF);
        datagram[4..8].copy_from_slice(&word1.to_be_bytes());
        datagram[8..12].copy_from_slice(&timestamp.to_be_bytes());
        datagram[12..16].copy_from_slice(&LISTENER.to_be_bytes());
        connection
            .handle_datagram(now, now, &datagram, &mut ring)
            .expect("in order");
        if i % queue != 0 {
            continue;
        }
        if connection.poll_timeout().is_some_and(|due| due <= now) {
            connection.handle_timeout(now, &mut ring);
        }
        while let Some(len) = connection.poll_transmit(now, &mut out) {
            std::hint::black_box(&out[..len]);
        }
        while let Some(delivery) = connection.poll_delivery(now, &ring) {
            delivered += 1;
            std::hint::black_box(delivery);
        }
        ring.release_before(connection.delivery_index());
    }
    println!("{delivered} delivered of {packets}");
}

fn connected(now: Instant, passphrase: Option<&Passphrase>) -> Connection {
    let peer = "127.0.0.1:4000".parse().expect("address");
    let config = Config::default();
    let mut handshaker = Handshaker::new(config.clone(), [0; 16]);
    let initial = PacketSequenceNumber::new(1000);
    let security =
        passphrase.map(|p| CallerSecurity::new(p, None, CipherPolicy::Auto, true, [1; 32]));
    let mut caller =
        Connection::connect(now, peer, CALLER, initial, "live/a", &config, 0, security);
    let (mut out, mut reply, mut none) = ([0; 1500], [0; 1500], SlotRing::new());
    loop {
        let len = caller.poll_transmit(now, &mut out).expect("a request");
        match handshaker.handle_datagram(now, peer, &out[..len], &mut reply) {
            Ok(HandshakeAction::Reply(len)) => {
                caller
                    .handle_datagram(now, now, &reply[..len], &mut none)
                    .expect("induction");
            }
            Ok(HandshakeAction::Conclude(request)) => {
                let policy = ListenerPolicy {
                    passphrase,
                    require: true,
                    cipher: CipherPolicy::Auto,
                };
                let material = request.key_material.as_deref();
                let security = Security::negotiate(material, request.version, &policy, [2; 32])
                    .expect("agreed");
                return Connection::accept(now, &request, LISTENER, &config, 0, security)
                    .expect("accepted");
            }
            Err(reason) => panic!("{reason:?}"),
        }
    }
}
