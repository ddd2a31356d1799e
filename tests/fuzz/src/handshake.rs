//! The handshake and its extension blocks (spec sections 3 to 8). The first byte of the input
//! says who gets the rest: the listener as it is, the listener with a good cookie in it, or a
//! caller, with a passphrase or without, that waits for its induction or conclusion response.

use mirror_base::{Instant, PacketSequenceNumber, SlotRing};
use mirror_srt::{
    CallerSecurity, CipherPolicy, Config, ConnectRequest, Connection, HandshakeAction, Handshaker,
    ListenerPolicy, RejectionCode, Security,
};

use crate::harness::{CALLER, IDS, LISTENER, address, control, cookie, packet, passphrase};

/// One handshake datagram.
pub fn run(data: &[u8]) {
    let Some((&role, datagram)) = data.split_first() else {
        return;
    };
    match role % 8 {
        0 => listen(datagram),
        2 => call(datagram, 0, false),
        3 => call(datagram, 1, false),
        4 => call(datagram, 0, true),
        5 => call(datagram, 1, true),
        _ => listen(&with_cookie(datagram)),
    }
}

fn now() -> Instant {
    Instant::from_millis(100_000)
}

fn handshaker() -> Handshaker {
    Handshaker::new(Config::default(), [7; 16])
}

/// The datagram with the cookie that its sender would have been given.
fn with_cookie(datagram: &[u8]) -> Vec<u8> {
    let words = [4, 2, 1, 1_500, 8_192, 1, 77, 0, 0, 0, 0, 0_u32];
    let cif: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    let induction = packet(control(0, 0), 0, 0, 0, &cif);
    let mut reply = [0; 1500];
    let answer = handshaker().handle_datagram(now(), address(), &induction, &mut reply);
    assert!(matches!(answer, Ok(HandshakeAction::Reply(64))));
    let mut datagram = datagram.to_vec();
    if let Some(field) = datagram.get_mut(44..48) {
        field.copy_from_slice(&cookie(&reply).to_be_bytes());
    }
    datagram
}

fn listen(datagram: &[u8]) {
    let mut out = [0; 1500];
    match handshaker().handle_datagram(now(), address(), datagram, &mut out) {
        Ok(HandshakeAction::Reply(len)) => {
            assert!(
                len <= datagram.len().max(64),
                "never a longer answer than question"
            );
        }
        Ok(HandshakeAction::Conclude(request)) => conclude(&request),
        Err(_) => {}
    }
}

fn conclude(request: &ConnectRequest) {
    let config = Config::default();
    if let Some(text) = &request.srt_stream_id {
        assert!(text.len() <= 512);
        crate::stream_id::run(text);
    }
    assert!(request.negotiated_latency(&config) <= config.max_latency);
    let mut out = [0; 1500];
    assert_eq!(request.reject(now(), RejectionCode::VERSION, &mut out), 64);
    let passphrase = passphrase();
    for passphrase in [None, Some(&passphrase)] {
        let policy = ListenerPolicy {
            passphrase,
            require: false,
            cipher: CipherPolicy::Auto,
        };
        let message = request.key_material.as_deref();
        if let Ok(security) = Security::negotiate(message, request.version, &policy, [2; 32]) {
            accept(request, &config, security);
        }
    }
}

fn accept(request: &ConnectRequest, config: &Config, security: Security) {
    let mut out = [0; 1500];
    let accepted = Connection::accept(now(), request, IDS[LISTENER], config, 0, security);
    let Ok(mut connection) = accepted else { return };
    connection.handle_repeated_conclusion(now());
    let len = connection
        .poll_transmit(now(), &mut out)
        .expect("a response");
    assert!(len <= 1472);
    assert_eq!(
        connection.poll_transmit(now(), &mut out),
        None,
        "one response"
    );
    assert!(connection.latency() <= config.max_latency);
    // Whatever was agreed, it can send, and it ends.
    let _ = connection.send(now(), &[1; 64]);
    while let Some(len) = connection.poll_transmit(now(), &mut out) {
        assert!(len <= 1472);
    }
    connection.close(now());
    connection.poll_transmit(now(), &mut out);
    assert!(connection.is_drained());
}

/// A caller that has seen `answers` good answers gets the datagram.
fn call(datagram: &[u8], answers: u32, secured: bool) {
    let config = Config::default();
    let initial = PacketSequenceNumber::new(7);
    let id = IDS[CALLER];
    let security = secured
        .then(|| CallerSecurity::new(&passphrase(), None, CipherPolicy::Auto, false, [3; 32]));
    let mut caller = Connection::connect(now(), address(), id, initial, "a", &config, 0, security);
    let mut ring = SlotRing::new();
    let (mut out, mut reply) = ([0; 1500], [0; 1500]);
    let len = caller.poll_transmit(now(), &mut out).expect("an induction");
    if answers > 0 {
        let mut handshaker = handshaker();
        let answer = handshaker.handle_datagram(now(), address(), &out[..len], &mut reply);
        let Ok(HandshakeAction::Reply(len)) = answer else {
            panic!("an induction is answered")
        };
        let taken = caller.handle_datagram(now(), now(), &reply[..len], &mut ring);
        assert_eq!(taken, Ok(()));
        caller.poll_transmit(now(), &mut out).expect("a conclusion");
    }
    for _ in 0..2 {
        let _ = caller.handle_datagram(now(), now(), datagram, &mut ring);
        while caller.poll_event().is_some() {}
        let mut written = 0;
        while caller.poll_transmit(now(), &mut out).is_some() {
            written += 1;
            assert!(written < 10, "a datagram does not start a flood");
        }
    }
    caller.close(now());
    caller.poll_transmit(now(), &mut out);
    assert!(caller.is_drained());
}
