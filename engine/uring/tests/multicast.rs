//! Groups on the loopback interface, and sockets that come and go while a reactor runs.

use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;

use mirror_uring::{NetworkInterface, Reactor, ReactorConfig, SocketOptions, UdpSocket};

const LOOPBACK: NetworkInterface<'_> = NetworkInterface::Name("lo");

fn join(group: &str, port: u16, sources: &[&str]) -> UdpSocket {
    let sources: Vec<IpAddr> = sources.iter().map(|s| s.parse().unwrap()).collect();
    let at = SocketAddr::new(group.parse().unwrap(), port);
    UdpSocket::bind_group_address(at, &sources, Some(LOOPBACK), &SocketOptions::default()).unwrap()
}

/// Sends from `source` to `to` by the loopback interface.
fn send(source: &str, to: (&str, u16), bytes: &[u8]) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let source: std::net::Ipv4Addr = source.parse().unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket
        .set_multicast_if_v4(&std::net::Ipv4Addr::LOCALHOST)
        .unwrap();
    socket.set_multicast_loop_v4(true).unwrap();
    StdSocket::from(socket).send_to(bytes, to).unwrap();
}

/// What came, by socket.
fn received(reactor: &mut Reactor) -> Vec<(usize, Vec<u8>)> {
    let mut all = Vec::new();
    let until = reactor.now() + Duration::from_millis(100);
    while reactor.now() < until {
        reactor.wait(until);
        reactor.reap(&mut |d| all.push((d.socket, d.payload.to_vec())));
    }
    all.sort();
    all
}

#[test]
fn a_group_is_heard_from_its_sources_alone_and_by_who_joined_it() {
    let any = join("239.255.77.1", 0, &[]);
    let port = any.local_addr().port();
    let one = join("239.255.77.2", port, &["127.0.0.2"]);
    // The same group and port again, for another source: a second path on the same wire.
    let other = join("239.255.77.2", port, &["127.0.0.3"]);
    // A wildcard that joined nothing hears no group.
    let wildcard = UdpSocket::bind_any("0.0.0.0:0".parse().unwrap(), &SocketOptions::default());
    let wildcard = wildcard.unwrap();
    let own = wildcard.local_addr().port();
    let mut reactor =
        Reactor::new(ReactorConfig::default(), vec![any, one, other, wildcard]).unwrap();
    send("127.0.0.1", ("239.255.77.1", port), b"any");
    send("127.0.0.2", ("239.255.77.2", port), b"two");
    send("127.0.0.3", ("239.255.77.2", port), b"three");
    send("127.0.0.4", ("239.255.77.2", port), b"four");
    send("127.0.0.1", ("239.255.77.1", own), b"not joined");
    let expected: Vec<(usize, Vec<u8>)> =
        vec![(0, b"any".into()), (1, b"two".into()), (2, b"three".into())];
    assert_eq!(received(&mut reactor), expected);
}

#[test]
fn sockets_come_and_go_and_their_places_are_used_again() {
    let any = "127.0.0.1:0".parse().unwrap();
    let bind = |at: SocketAddr| UdpSocket::bind_any(at, &SocketOptions::default()).unwrap();
    let config = ReactorConfig {
        spare_sockets: 6,
        ..ReactorConfig::default()
    };
    let mut reactor = Reactor::new(config, vec![bind(any)]).unwrap();
    let first = reactor.sockets()[0].local_addr();
    let sender = StdSocket::bind(any).unwrap();
    for round in 0..5 {
        let index = reactor.add_socket(bind(any)).unwrap();
        assert_eq!(index, 1);
        let at = reactor.sockets()[index].local_addr();
        sender.send_to(b"added", at).unwrap();
        sender.send_to(b"first", first).unwrap();
        let got = received(&mut reactor);
        assert_eq!(got.len(), 2, "round {round}: {got:?}");
        // One that was not taken yet must not show up as the next one's.
        sender.send_to(b"late", at).unwrap();
        reactor.close_socket(index);
        // The port is free at once.
        let again = bind(at);
        drop(again);
        assert!(received(&mut reactor).is_empty());
    }
    for _ in 0..6 {
        reactor.add_socket(bind(any)).unwrap();
    }
    assert!(reactor.add_socket(bind(any)).is_err());
    sender.send_to(b"first", first).unwrap();
    assert_eq!(received(&mut reactor).len(), 1);
}
