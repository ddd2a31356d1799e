//! The ring and the sockets against the real kernel, over the loopback interface. Each test is
//! bounded by a deadline, not by a sleep.

use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::time::{Duration, Instant as StdInstant};

use mirror_base::Instant;
use mirror_uring::{
    BindError, Datagram, Reactor, ReactorConfig, Sink, SocketOptions, Steering, UdpSocket,
    bind_group,
};

const DEADLINE: Duration = Duration::from_secs(5);

/// A received datagram, kept.
#[derive(Debug, Clone)]
struct Kept {
    socket: usize,
    peer: SocketAddr,
    local: Option<IpAddr>,
    arrival: Instant,
    payload: Vec<u8>,
    truncated: bool,
}

fn small_options() -> SocketOptions {
    SocketOptions {
        receive_buffer: 4 << 20,
        send_buffer: 0,
        ..SocketOptions::default()
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn any_socket(address: &str) -> UdpSocket {
    UdpSocket::bind_any(address.parse().unwrap(), &small_options()).unwrap()
}

fn reactor(sockets: Vec<UdpSocket>) -> Reactor {
    Reactor::new(ReactorConfig::default(), sockets).unwrap()
}

fn collect_until(reactor: &mut Reactor, mut done: impl FnMut(&[Kept]) -> bool) -> Vec<Kept> {
    let mut kept = Vec::new();
    let deadline = StdInstant::now() + DEADLINE;
    while !done(&kept) && StdInstant::now() < deadline {
        reactor.wait(reactor.now() + Duration::from_millis(20));
        reactor.reap(&mut |d| {
            kept.push(Kept {
                socket: d.socket,
                peer: d.origin.peer().addr(),
                local: d.origin.local().ip(),
                arrival: d.arrival,
                payload: d.payload.to_vec(),
                truncated: d.truncated,
            });
        });
    }
    kept
}

fn collect(reactor: &mut Reactor, count: usize) -> Vec<Kept> {
    let kept = collect_until(reactor, |kept| kept.len() >= count);
    assert_eq!(kept.len(), count, "datagrams before the deadline");
    kept
}

#[test]
fn every_datagram_comes_with_peer_local_address_and_arrival() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0"), any_socket("[::]:0")]);
    let (v4, dual) = (
        reactor.sockets()[0].local_addr(),
        reactor.sockets()[1].local_addr().port(),
    );
    let sender4 = StdSocket::bind("127.0.0.1:0").unwrap();
    let sender6 = StdSocket::bind("[::1]:0").unwrap();
    let before = reactor.now();
    for i in 0..300u32 {
        sender4.send_to(&i.to_be_bytes(), v4).unwrap();
        sender4
            .send_to(&i.to_be_bytes(), ("127.0.0.1", dual))
            .unwrap();
        sender6.send_to(&i.to_be_bytes(), ("::1", dual)).unwrap();
    }
    let kept = collect(&mut reactor, 900);
    let after = reactor.now();
    for sender in [&sender4, &sender6] {
        let peer = sender.local_addr().unwrap();
        for socket in 0..2 {
            let of: Vec<_> = kept
                .iter()
                .filter(|d| d.peer == peer && d.socket == socket)
                .collect();
            if of.is_empty() {
                assert!(peer.is_ipv6() && socket == 0, "{peer} on {socket}");
                continue;
            }
            for (i, datagram) in of.iter().enumerate() {
                assert_eq!(datagram.payload, (i as u32).to_be_bytes(), "in order");
                assert_eq!(
                    datagram.local,
                    Some(peer.ip()),
                    "loopback: ours is theirs, unmapped"
                );
                assert!(!datagram.truncated);
                assert!(
                    before.micros_diff(datagram.arrival) < 1_000,
                    "not before it was sent"
                );
                assert!(datagram.arrival <= after);
            }
            // The two clocks are compared anew each turn, to about a microsecond.
            for pair in of.windows(2) {
                assert!(pair[1].arrival.micros_diff(pair[0].arrival) > -1_000);
            }
        }
    }
    let counters = reactor.socket_counters(1);
    assert_eq!(
        (counters.datagrams, counters.bytes, counters.kernel_drops),
        (600, 2400, 0)
    );
    assert_eq!(reactor.counters().enter_errors, 0);
}

#[test]
fn arrival_is_when_it_came_not_when_it_was_read() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    // The kernel begins to stamp a moment after the host's first socket asks for it.
    let stamped = (0..100).any(|_| {
        sender
            .send_to(b"x", reactor.sockets()[0].local_addr())
            .unwrap();
        let sent = reactor.now();
        while reactor.now().micros_since(sent) < 20_000 {
            std::hint::spin_loop();
        }
        collect(&mut reactor, 1)[0].arrival.micros_diff(sent) < 5_000
    });
    assert!(stamped, "stamped by the kernel when it came");
}

#[test]
fn a_burst_beyond_the_buffer_ring_is_received_whole_by_re_arming() {
    let config = ReactorConfig {
        buffers: 4,
        ..ReactorConfig::default()
    };
    let mut reactor = Reactor::new(config, vec![any_socket("127.0.0.1:0")]).unwrap();
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..1000u32 {
        sender
            .send_to(&i.to_be_bytes(), reactor.sockets()[0].local_addr())
            .unwrap();
    }
    let kept = collect(&mut reactor, 1000);
    for (i, datagram) in kept.iter().enumerate() {
        assert_eq!(datagram.payload, (i as u32).to_be_bytes());
    }
    let counters = reactor.counters();
    assert!(
        counters.no_buffers > 0 && counters.rearms >= counters.no_buffers,
        "{counters:?}"
    );
}

#[test]
fn empty_datagrams_end_the_multishot_and_reception_goes_on() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    let to = reactor.sockets()[0].local_addr();
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..200 {
        sender.send_to(b"", to).unwrap();
        sender.send_to(b"after", to).unwrap();
    }
    let kept = collect_until(&mut reactor, |kept| {
        kept.iter().filter(|d| d.payload == b"after").count() >= 200
    });
    assert_eq!(kept.iter().filter(|d| d.payload == b"after").count(), 200);
    assert!(reactor.counters().rearms > 0);
}

#[test]
fn a_datagram_longer_than_the_buffer_says_so() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    sender
        .send_to(&[7; 3000], reactor.sockets()[0].local_addr())
        .unwrap();
    let kept = collect(&mut reactor, 1);
    assert!(kept[0].truncated);
    assert_eq!(kept[0].payload, [7; 2048 - 192]);
    assert_eq!(reactor.socket_counters(0).truncated, 1);
}

#[test]
fn one_reap_is_bounded_and_the_rest_comes_without_blocking() {
    let options = SocketOptions {
        receive_buffer: 32 << 20,
        ..small_options()
    };
    let socket = UdpSocket::bind_any(loopback(), &options).unwrap();
    let granted = socket.granted_receive_buffer();
    let mut reactor = reactor(vec![socket]);
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    // A 1-byte datagram uses 768 bytes of the buffer.
    let count = 5_000.min(granted / 768 / 2);
    for _ in 0..count {
        sender
            .send_to(&[1], reactor.sockets()[0].local_addr())
            .unwrap();
    }
    let started = reactor.now();
    let mut got = 0;
    while got < count {
        reactor.wait(reactor.now() + DEADLINE);
        let reaped = reactor.reap(&mut |_| ());
        assert!(reaped < 2048, "{reaped} in one reap");
        got += reaped;
        assert!(reactor.now().micros_since(started) < 4_000_000);
    }
}

#[test]
fn the_waker_ends_a_wait_and_makes_the_next_one_return_at_once() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    let waker = reactor.waker();
    assert!(!reactor.take_woken());
    waker.wake();
    waker.wake();
    let start = StdInstant::now();
    reactor.wait(reactor.now() + DEADLINE);
    reactor.reap(&mut |_| ());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(reactor.take_woken() && !reactor.take_woken());

    for _ in 0..20 {
        let other = reactor.waker();
        let thread = std::thread::spawn(move || other.wake());
        let start = StdInstant::now();
        while !reactor.take_woken() {
            assert!(start.elapsed() < Duration::from_secs(4));
            reactor.wait(reactor.now() + DEADLINE);
            reactor.reap(&mut |_| ());
        }
        assert!(start.elapsed() < Duration::from_secs(2));
        thread.join().unwrap();
    }
    // The eventfd is never read; that must not make the ring report it over and over.
    let completions = reactor.counters().completions;
    for _ in 0..5 {
        reactor.wait(reactor.now() + Duration::from_millis(2));
        reactor.reap(&mut |_| ());
    }
    assert!(
        reactor.counters().completions <= completions + 1,
        "silence after the last wake"
    );
}

#[test]
fn wait_ends_at_its_time_and_a_past_time_still_delivers() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    for wait_us in [50, 300, 2_000, 10_000] {
        let start = reactor.now();
        reactor.wait(start + Duration::from_micros(wait_us));
        let took = reactor.now().micros_since(start);
        assert!(took + 50 >= wait_us, "{took} of {wait_us} µs");
    }
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    sender
        .send_to(b"x", reactor.sockets()[0].local_addr())
        .unwrap();
    reactor.wait(Instant::ZERO);
    assert_eq!(reactor.reap(&mut |_| ()), 1);
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let options = SocketOptions {
        receive_buffer: 20_000,
        ..small_options()
    };
    let socket = UdpSocket::bind_any(loopback(), &options).unwrap();
    assert!(socket.granted_receive_buffer() < 100_000);
    let mut reactor = reactor(vec![socket]);
    assert!(
        reactor.min_wait() < Duration::from_micros(50),
        "it must not fill meanwhile"
    );
    let to = reactor.sockets()[0].local_addr();
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..500 {
        sender.send_to(&[0; 1332], to).unwrap();
    }
    let kept = collect_until(&mut reactor, |kept| !kept.is_empty());
    // The count travels with the next datagram that is not dropped.
    sender.send_to(b"last", to).unwrap();
    let more = collect_until(&mut reactor, |more| {
        more.iter().any(|d| d.payload == b"last")
    });
    let dropped = 501 - (kept.len() + more.len()) as u64;
    assert!(dropped > 0);
    assert_eq!(reactor.socket_counters(0).kernel_drops, dropped);
    assert_eq!(u64::from(reactor.sockets()[0].kernel_drops()), dropped);
}

/// Counts datagrams by the way they are offered on.
#[derive(Default)]
struct Ways {
    short: usize,
    general: usize,
}

impl Sink for Ways {
    fn take(&mut self, _: Datagram<'_>) {
        self.general += 1;
    }

    fn take_usual(&mut self, _: Datagram<'_>, _: &mut bool) {
        self.short += 1;
    }
}

#[test]
fn datagrams_of_a_socket_that_has_lost_some_take_the_short_way() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let options = SocketOptions {
            receive_buffer: 20_000,
            ..small_options()
        };
        let socket = UdpSocket::bind_any(address.parse().unwrap(), &options).unwrap();
        let mut reactor = reactor(vec![socket]);
        let port = reactor.sockets()[0].local_addr().port();
        let sender = StdSocket::bind("127.0.0.1:0").unwrap();
        let mut ways = Ways::default();
        for (count, expected) in [(500, 1), (8, 9)] {
            for _ in 0..count {
                sender.send_to(&[0; 1332], ("127.0.0.1", port)).unwrap();
            }
            let deadline = StdInstant::now() + DEADLINE;
            while ways.short + ways.general < expected && StdInstant::now() < deadline {
                reactor.reap_into(&mut ways);
            }
            while reactor.reap_into(&mut ways) > 0 {}
        }
        assert!(reactor.socket_counters(0).kernel_drops > 0, "{address}");
        assert!(ways.short >= 9, "{address}: {}", ways.short);
        assert_eq!(
            ways.general, 2,
            "{address}: the first without a count, and with one"
        );
    }
}

#[test]
fn the_greatest_super_packet_fits_into_a_buffer_that_leaves_room_for_its_head() {
    let options = SocketOptions {
        gro: true,
        ..small_options()
    };
    let socket = UdpSocket::bind_any(loopback(), &options).unwrap();
    let config = ReactorConfig {
        buffers: 16,
        buffer_bytes: (1 << 16) + mirror_uring::HEAD_BYTES,
        ..ReactorConfig::default()
    };
    let mut receiver = Reactor::new(config, vec![socket]).unwrap();
    let to = receiver.sockets()[0].local_addr();
    let mut sender = reactor(vec![UdpSocket::connect_to(to, &small_options()).unwrap()]);
    let alone = StdSocket::bind("127.0.0.1:0").unwrap();
    // Nothing greater can be sent: 65,507 bytes.
    for (count, size) in [(49, 1336), (7, 9356), (1, 65_507)] {
        let bytes: Vec<u8> = (0..count).flat_map(|i| vec![i as u8; size]).collect();
        if count > 1 {
            sender.send_segments(0, to, None, &bytes, size);
        } else {
            alone.send_to(&bytes, to).unwrap();
        }
        let kept = collect(&mut receiver, count);
        for (i, datagram) in kept.iter().enumerate() {
            assert!(!datagram.truncated, "{size}");
            assert_eq!(datagram.payload, vec![i as u8; size]);
        }
    }
    assert_eq!(receiver.socket_counters(0).truncated, 0);
}

#[test]
fn gro_super_packets_are_handed_out_segment_by_segment() {
    let options = SocketOptions {
        gro: true,
        ..small_options()
    };
    let socket = UdpSocket::bind_any(loopback(), &options).unwrap();
    let config = ReactorConfig {
        buffers: 16,
        buffer_bytes: 1 << 16,
        ..ReactorConfig::default()
    };
    let mut receiver = Reactor::new(config, vec![socket]).unwrap();
    let to = receiver.sockets()[0].local_addr();
    let mut sender = reactor(vec![UdpSocket::connect_to(to, &small_options()).unwrap()]);
    let from = sender.sockets()[0].local_addr();
    let bytes: Vec<u8> = (0..100u8)
        .flat_map(|i| [i; 1316])
        .chain([200; 500])
        .collect();
    sender.send_segments(0, to, None, &bytes, 1316);
    let kept = collect(&mut receiver, 101);
    for (i, datagram) in kept.iter().enumerate() {
        let expected = if i == 100 {
            vec![200; 500]
        } else {
            vec![i as u8; 1316]
        };
        assert_eq!(datagram.payload, expected);
        assert_eq!(datagram.peer, from);
    }
    assert_eq!(receiver.socket_counters(0).datagrams, 101);
    assert!(
        receiver.counters().completions < 20,
        "they came as super-packets"
    );
    let counters = sender.counters();
    assert_eq!((counters.datagrams_sent, counters.send_errors), (101, 0));
    assert!(counters.send_calls <= 3, "{counters:?}");
}

fn reactors(group: Vec<UdpSocket>) -> Vec<Reactor> {
    group
        .into_iter()
        .map(|socket| reactor(vec![socket]))
        .collect()
}

fn srt_datagram(id: u32, bytes: usize) -> Vec<u8> {
    let mut datagram = vec![0x5a; bytes];
    datagram[12..16].copy_from_slice(&id.to_be_bytes());
    datagram
}

#[test]
fn a_dual_stack_group_steers_every_id_to_its_shard_over_ipv4_and_ipv6() {
    for shards in [2usize, 3, 4] {
        let (group, fell_back) = bind_group(
            "[::]:0".parse().unwrap(),
            shards,
            Steering::Srt,
            &small_options(),
        )
        .unwrap();
        assert!(!fell_back && group.len() == shards);
        let port = group[0].local_addr().port();
        assert!(
            group
                .iter()
                .all(|socket| socket.local_addr().port() == port)
        );
        let v4 = StdSocket::bind("127.0.0.1:0").unwrap();
        let v6 = StdSocket::bind("[::1]:0").unwrap();
        let mut expected = vec![0; shards];
        for i in 1..=200u32 {
            let id = i.wrapping_mul(0x9e37_79b9) & 0x3fff_ffff | 1;
            expected[id as usize % shards] += 2;
            v4.send_to(&srt_datagram(id, 16), ("127.0.0.1", port))
                .unwrap();
            v6.send_to(&srt_datagram(id, 1332), ("::1", port)).unwrap();
        }
        for (shard, reactor) in reactors(group).iter_mut().enumerate() {
            for datagram in collect(reactor, expected[shard]) {
                let id = u32::from_be_bytes(datagram.payload[12..16].try_into().unwrap());
                assert_eq!(id as usize % shards, shard);
            }
        }
    }
}

#[test]
fn handshakes_and_runts_are_spread_by_the_kernels_hash() {
    let (group, _) = bind_group(
        "[::]:0".parse().unwrap(),
        4,
        Steering::Srt,
        &small_options(),
    )
    .unwrap();
    let port = group[0].local_addr().port();
    for i in 0..128usize {
        let sender = StdSocket::bind("127.0.0.1:0").unwrap();
        let datagram = if i % 2 == 0 {
            srt_datagram(0, 64)
        } else {
            vec![0xff; i % 16]
        };
        sender.send_to(&datagram, ("127.0.0.1", port)).unwrap();
    }
    let mut total = 0;
    for reactor in &mut reactors(group) {
        let kept = collect_until(reactor, |kept| kept.len() >= 8);
        assert!(kept.len() >= 8, "{} of 128 on one of four", kept.len());
        total += kept.len() + collect_until_silent(reactor);
    }
    assert_eq!(total, 128);
}

fn collect_until_silent(reactor: &mut Reactor) -> usize {
    let mut count = 0;
    loop {
        reactor.wait(Instant::ZERO);
        match reactor.reap(&mut |_| ()) {
            0 => return count,
            more => count += more,
        }
    }
}

#[test]
fn an_rtp_group_steers_by_ssrc() {
    let (group, _) = bind_group(loopback(), 3, Steering::Rtp, &small_options()).unwrap();
    let to = group[0].local_addr();
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    let mut expected = [0; 3];
    for i in 0..90u32 {
        let ssrc = i.wrapping_mul(0x85eb_ca6b);
        let mut datagram = vec![0x80; 100];
        let at = if i % 3 == 0 {
            datagram[1] = 200;
            4
        } else {
            datagram[1] = 33;
            8
        };
        datagram[at..at + 4].copy_from_slice(&ssrc.to_be_bytes());
        sender.send_to(&datagram, to).unwrap();
        expected[ssrc as usize % 3] += 1;
    }
    for (shard, reactor) in reactors(group).iter_mut().enumerate() {
        collect(reactor, expected[shard]);
    }
}

#[test]
fn a_port_in_use_is_an_error_also_when_a_group_of_ours_holds_it() {
    let held = StdSocket::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let bind = |address, shards| bind_group(address, shards, Steering::Srt, &small_options());
    for shards in [1, 2] {
        assert!(matches!(bind(address, shards), Err(BindError::InUse(a)) if a == address));
    }
    for shards in [1, 2, 4] {
        let (group, _) = bind("[::]:0".parse().unwrap(), shards).unwrap();
        let port = group[0].local_addr().port();
        for listen in ["[::]", "0.0.0.0", "127.0.0.1"] {
            let listen: SocketAddr = format!("{listen}:{port}").parse().unwrap();
            let error = bind(listen, 2).unwrap_err();
            assert!(matches!(error, BindError::InUse(_)), "{error}");
            assert!(error.to_string().contains("ss -ulnp"), "{error}");
        }
    }
    // A foreign group: SO_REUSEPORT, another program.
    let foreign = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    foreign.set_reuse_port(true).unwrap();
    foreign.bind(&loopback().into()).unwrap();
    let address = foreign.local_addr().unwrap().as_socket().unwrap();
    assert!(matches!(bind(address, 2), Err(BindError::InUse(_))));
}

#[test]
fn closing_a_reactor_frees_its_port_at_once() {
    for _ in 0..20 {
        let (group, _) = bind_group(loopback(), 2, Steering::Srt, &small_options()).unwrap();
        let address = group[0].local_addr();
        drop(reactors(group));
        StdSocket::bind(address).expect("the port is free again");
    }
}

#[test]
fn a_reply_leaves_from_the_address_that_was_addressed() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut reactor = reactor(vec![any_socket(listen)]);
        let port = reactor.sockets()[0].local_addr().port();
        for target in ["127.0.0.1", "127.0.0.2"] {
            let peer = StdSocket::bind("127.0.0.1:0").unwrap();
            peer.set_read_timeout(Some(DEADLINE)).unwrap();
            peer.send_to(b"ping", (target, port)).unwrap();
            let kept = collect(&mut reactor, 1);
            assert_eq!(kept[0].local, Some(target.parse().unwrap()));
            reactor.send(0, kept[0].peer, kept[0].local, b"pong");
            reactor.flush();
            let mut buffer = [0; 16];
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..length], from.ip()),
                (&b"pong"[..], target.parse().unwrap())
            );
            reactor.send_segments(0, kept[0].peer, kept[0].local, b"aabbc", 2);
            for part in [&b"aa"[..], b"bb", b"c"] {
                let (length, from) = peer.recv_from(&mut buffer).unwrap();
                assert_eq!(
                    (&buffer[..length], from.ip()),
                    (part, target.parse().unwrap())
                );
            }
        }
    }
}

#[test]
fn many_caller_sockets_share_a_reactor_and_each_hears_its_own_peer() {
    let peers: Vec<_> = (0..200)
        .map(|_| StdSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let to: Vec<_> = peers
        .iter()
        .map(|peer| peer.local_addr().unwrap())
        .collect();
    let options = SocketOptions {
        receive_buffer: 100_000,
        send_buffer: 0,
        ..small_options()
    };
    let sockets = to
        .iter()
        .map(|&peer| UdpSocket::connect_to(peer, &options).unwrap())
        .collect::<Vec<_>>();
    let mut reactor = reactor(sockets);
    for (i, &peer) in to.iter().enumerate() {
        reactor.send(i, peer, None, &(i as u32).to_be_bytes());
    }
    reactor.flush();
    assert_eq!(reactor.counters().datagrams_sent, 200);
    for (i, peer) in peers.iter().enumerate() {
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut buffer = [0; 8];
        let (length, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], (i as u32).to_be_bytes());
        assert_eq!(from, reactor.sockets()[i].local_addr());
        peer.send_to(&buffer[..length], from).unwrap();
    }
    for datagram in collect(&mut reactor, 200) {
        assert_eq!(datagram.payload, (datagram.socket as u32).to_be_bytes());
        assert_eq!(datagram.peer, to[datagram.socket]);
    }
}

#[test]
fn batches_keep_their_order_per_socket_and_errors_are_counted_not_fatal() {
    let peer = StdSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let to = peer.local_addr().unwrap();
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0"), any_socket("127.0.0.1:0")]);
    for i in 0..100u8 {
        reactor.send(usize::from(i % 2), to, None, &[i]);
        if i % 10 == 0 {
            reactor.send(0, "[::1]:9".parse().unwrap(), None, b"no IPv6 here");
            reactor.send(7, to, None, b"no such socket");
            reactor.send(1, "127.0.0.1:0".parse().unwrap(), None, b"no such port");
            reactor.send(0, to, None, &vec![0; 70_000]);
        }
    }
    reactor.flush();
    let counters = reactor.counters();
    assert_eq!((counters.datagrams_sent, counters.send_errors), (100, 40));
    let mut next = [0u8, 1];
    for _ in 0..100 {
        let mut buffer = [0; 8];
        let (_, from) = peer.recv_from(&mut buffer).unwrap();
        let socket = usize::from(from != reactor.sockets()[0].local_addr());
        assert_eq!(buffer[0], next[socket]);
        next[socket] += 2;
    }
}

#[test]
fn a_peer_that_went_away_does_not_stop_a_caller() {
    let gone = StdSocket::bind("127.0.0.1:0").unwrap();
    let to = gone.local_addr().unwrap();
    let mut reactor = reactor(vec![UdpSocket::connect_to(to, &small_options()).unwrap()]);
    drop(gone);
    for _ in 0..50 {
        reactor.send(0, to, None, b"anybody there?");
        reactor.flush();
        reactor.wait(reactor.now() + Duration::from_micros(100));
        reactor.reap(&mut |_| ());
    }
    let back = StdSocket::bind(to).unwrap();
    back.set_read_timeout(Some(DEADLINE)).unwrap();
    reactor.send(0, to, None, b"hello");
    reactor.flush();
    let mut buffer = [0; 32];
    let (length, from) = back.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"hello");
    back.send_to(b"here", from).unwrap();
    assert_eq!(collect(&mut reactor, 1)[0].payload, b"here");
}

#[test]
fn equal_datagrams_to_one_peer_leave_as_one_super_packet_and_arrive_as_they_were() {
    let peers: Vec<StdSocket> = (0..2)
        .map(|_| StdSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let to: Vec<SocketAddr> = peers.iter().map(|p| p.local_addr().unwrap()).collect();
    let mut reactor = reactor(vec![any_socket("[::]:0")]);
    // Runs: 3 × 1332 and its shorter end; a longer one begins anew; the other peer; 2 × 44.
    let sent = [
        (0, 1332),
        (0, 1332),
        (0, 1332),
        (0, 700),
        (0, 800),
        (1, 1332),
        (0, 44),
        (0, 44),
    ];
    let local = Some(IpAddr::from([127, 0, 0, 1]));
    for (number, &(peer, length)) in sent.iter().enumerate() {
        reactor.send(0, to[peer], local, &vec![number as u8; length]);
    }
    reactor.flush();
    for (which, peer) in peers.iter().enumerate() {
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        for (number, &(_, length)) in sent.iter().enumerate().filter(|(_, s)| s.0 == which) {
            let mut buffer = [0; 2048];
            assert_eq!(peer.recv(&mut buffer).unwrap(), length);
            assert!(buffer[..length].iter().all(|&b| usize::from(b) == number));
        }
    }
    let counters = reactor.counters();
    assert_eq!((counters.datagrams_sent, counters.send_errors), (8, 0));
    assert_eq!((counters.send_calls, counters.super_packets), (1, 2));
}

#[test]
fn more_than_a_udp_datagram_holds_leaves_as_several_super_packets() {
    let peer = StdSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let to = peer.local_addr().unwrap();
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    for _ in 0..64 {
        reactor.send(0, to, None, &[7; 2000]);
    }
    reactor.flush();
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        assert_eq!(peer.recv(&mut buffer).unwrap(), 2000);
    }
    let counters = reactor.counters();
    assert_eq!((counters.datagrams_sent, counters.send_errors), (64, 0));
    // 64 × 2000 bytes are more than a UDP datagram holds: at least two messages.
    assert!(counters.super_packets >= 2);
}

#[test]
fn a_socket_that_is_added_later_sends_and_receives() {
    let mut reactor = reactor(vec![any_socket("127.0.0.1:0")]);
    reactor.wait(reactor.now());
    let callers = UdpSocket::bind_callers(&small_options()).unwrap();
    let port = callers.local_addr().port();
    assert_eq!(reactor.add_socket(callers).unwrap(), 1);
    let peer = StdSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    reactor.send(1, peer.local_addr().unwrap(), None, b"hello");
    reactor.flush();
    let mut buffer = [0; 32];
    let (length, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.port()), (&b"hello"[..], port));
    peer.send_to(b"here", from).unwrap();
    let kept = collect(&mut reactor, 1);
    assert_eq!((kept[0].socket, &kept[0].payload[..]), (1, &b"here"[..]));
    // The waker behind it still works.
    reactor.waker().wake();
    reactor.wait(reactor.now() + Duration::from_secs(5));
    reactor.reap(&mut |_| ());
    assert!(reactor.take_woken());
}
