//! An SRT sender against a listener made of the engine's SRT room, over loopback sockets and in
//! virtual time: the sockets deliver at once, the clock is counted up by the test.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use mirror_base::{Instant, SlotRing};
use mirror_loadtest::content::stamp::Stamp;
use mirror_loadtest::content::ts::{DATAGRAM, TsShape, TsStream, TsTemplate};
use mirror_loadtest::content::{VideoCodec, VideoShape};
use mirror_loadtest::sender::{Failure, Phase, Sender, SrtCall};
use mirror_srt::{Config, Connection, HandshakeAction, Handshaker, RejectionCode};

struct Listener {
    socket: UdpSocket,
    handshaker: Handshaker,
    connection: Option<Connection>,
    ring: SlotRing,
    reject: Option<RejectionCode>,
    stream_id: Option<Vec<u8>>,
    /// Each n-th data packet is ignored.
    lose_each: Option<u64>,
    seen: u64,
    delivered: Vec<u64>,
}

impl Listener {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Listener {
            socket,
            handshaker: Handshaker::new(Config::default(), [7; 16]),
            connection: None,
            ring: SlotRing::with_owned_chunks(64),
            reject: None,
            stream_id: None,
            lose_each: None,
            seen: 0,
            delivered: Vec::new(),
        }
    }

    fn drive(&mut self, now: Instant) {
        let (mut buffer, mut out) = ([0; 2_048], [0; 2_048]);
        while let Ok((length, peer)) = self.socket.recv_from(&mut buffer) {
            let datagram = &buffer[..length];
            if datagram[12..16] == [0; 4] {
                match self
                    .handshaker
                    .handle_datagram(now, peer, datagram, &mut out)
                {
                    Ok(HandshakeAction::Reply(n)) => drop(self.socket.send_to(&out[..n], peer)),
                    Ok(HandshakeAction::Conclude(request)) => {
                        self.stream_id.clone_from(&request.srt_stream_id);
                        if let Some(code) = self.reject {
                            let n = request.reject(now, code, &mut out);
                            drop(self.socket.send_to(&out[..n], peer));
                        } else if self.connection.is_none() {
                            let config = Config::default();
                            self.connection = Connection::accept(
                                now,
                                &request,
                                0x77,
                                &config,
                                0,
                                mirror_srt::Security::clear(),
                            )
                            .ok();
                        }
                    }
                    Err(discard) => panic!("handshake discarded: {discard:?}"),
                }
                continue;
            }
            if datagram[0] & 0x80 == 0 {
                self.seen += 1;
                if self.lose_each.is_some_and(|n| self.seen.is_multiple_of(n)) {
                    continue;
                }
            }
            let connection = self.connection.as_mut().unwrap();
            let _ = connection.handle_datagram(now, now, datagram, &mut self.ring);
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now, &mut self.ring);
        }
        while let Some(n) = connection.poll_transmit(now, &mut out) {
            self.socket.send_to(&out[..n], connection.peer()).unwrap();
        }
        while let Some(delivery) = connection.poll_delivery(now, &self.ring) {
            let slot = self.ring.get(delivery.slot).unwrap();
            assert_eq!(slot.payload.len(), DATAGRAM);
            self.delivered
                .push(Stamp::find(slot.payload).unwrap().number);
        }
        self.ring.release_before(connection.delivery_index());
    }
}

fn sender(listener: &Listener, now: Instant) -> Sender {
    let video = VideoShape {
        codec: VideoCodec::H264,
        width: 640,
        height: 360,
        fps_num: 30,
        fps_den: 1,
        gop: 30,
        b_frames: 2,
    };
    let shape = TsShape {
        video,
        bitrate_bps: 10_000_000,
        audio: false,
    };
    let content = TsStream::new(Arc::new(TsTemplate::new(shape).unwrap()));
    let config = Config::default();
    let call = SrtCall {
        socket_id: 0x55,
        initial_sequence: 0x7FFF_FFF0,
        stream_id: "live/cam1",
        config: &config,
        security: None,
    };
    Sender::srt(now, listener.socket.local_addr().unwrap(), content, &call).unwrap()
}

/// Drives both for `millis` ms of virtual time, the media from its beginning if `media`.
fn together(
    sender: &mut Sender,
    listener: &mut Listener,
    from: Instant,
    millis: u64,
    media: bool,
) -> Instant {
    for ms in 0..millis {
        let now = from + Duration::from_millis(ms);
        sender.drive(now, now.as_micros(), media.then_some(ms * 1_000_000));
        listener.drive(now);
    }
    from + Duration::from_millis(millis)
}

#[test]
fn what_an_srt_sender_sends_is_delivered_whole_and_in_order() {
    let (mut listener, start) = (Listener::new(), Instant::from_millis(1_000));
    let mut sender = sender(&listener, start);
    let connected = together(&mut sender, &mut listener, start, 100, false);
    assert_eq!(sender.phase(), Phase::Ready);
    assert_eq!(listener.stream_id.as_deref(), Some(&b"live/cam1"[..]));
    let sent = together(&mut sender, &mut listener, connected, 2_000, true);
    together(&mut sender, &mut listener, sent, 500, false);
    let stats = sender.stats();
    // 2 s at 10 Mb/s: a datagram each 1052.8 µs
    assert_eq!(stats.packets, 1_899);
    assert_eq!(
        (stats.dropped, stats.retransmitted, stats.unacknowledged),
        (0, 0, 0)
    );
    assert_eq!(listener.delivered, (0..1_899).collect::<Vec<u64>>());
    sender.close(sent);
    assert_eq!(sender.phase(), Phase::Closed);
}

#[test]
fn lost_packets_are_sent_again() {
    let (mut listener, start) = (Listener::new(), Instant::from_millis(1_000));
    listener.lose_each = Some(50);
    let mut sender = sender(&listener, start);
    let connected = together(&mut sender, &mut listener, start, 100, false);
    let sent = together(&mut sender, &mut listener, connected, 1_000, true);
    together(&mut sender, &mut listener, sent, 500, false);
    assert!(sender.stats().retransmitted >= 18);
    assert_eq!(
        listener.delivered,
        (0..sender.stats().packets).collect::<Vec<u64>>()
    );
}

#[test]
fn a_rejection_fails_the_sender_with_its_code() {
    let (mut listener, start) = (Listener::new(), Instant::from_millis(1_000));
    listener.reject = Some(RejectionCode::CONFLICT);
    let mut sender = sender(&listener, start);
    together(&mut sender, &mut listener, start, 100, false);
    assert_eq!(
        sender.phase(),
        Phase::Failed(Failure::Rejected(RejectionCode::CONFLICT.0))
    );
}

#[test]
fn no_answer_fails_the_sender() {
    let (listener, start) = (Listener::new(), Instant::from_millis(1_000));
    let mut sender = sender(&listener, start);
    for ms in 0..4_000 {
        sender.drive(start + Duration::from_millis(ms), 0, None);
    }
    assert_eq!(sender.phase(), Phase::Failed(Failure::NoAnswer));
}
