//! An SRT sender that is called, encrypts, and has a bad line: against a caller made of the
//! engine's SRT room, over loopback sockets and in virtual time.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use mirror_base::{Instant, PacketSequenceNumber, SlotRing};
use mirror_loadtest::content::stamp::Stamp;
use mirror_loadtest::content::ts::{TsShape, TsStream, TsTemplate};
use mirror_loadtest::content::{VideoCodec, VideoShape};
use mirror_loadtest::impairment::Impairment;
use mirror_loadtest::sender::{Phase, Sender, SrtSecurity};
use mirror_srt::{
    CallerSecurity, CipherPolicy, CloseReason, Config, Connection, Event, KeyLength, Passphrase,
    RejectionCode,
};

fn config() -> Config {
    Config {
        latency: Duration::from_millis(500),
        ..Config::default()
    }
}

fn sender(passphrase: &str) -> Sender {
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
        bitrate_bps: 5_000_000,
        audio: false,
    };
    let content = TsStream::new(Arc::new(TsTemplate::new(shape).unwrap()));
    let security = SrtSecurity {
        passphrase: Passphrase::new(passphrase).unwrap(),
        key_length: Some(KeyLength::Aes256),
        cipher: CipherPolicy::Auto,
    };
    let any = "127.0.0.1:0".parse().unwrap();
    Sender::listening(any, content, 0x55, &config(), Some(&security)).unwrap()
}

struct Caller {
    socket: UdpSocket,
    connection: Connection,
    ring: SlotRing,
    delivered: Vec<u64>,
    events: Vec<Event>,
}

impl Caller {
    fn call(now: Instant, sender: &Sender, passphrase: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = ("127.0.0.1", sender.local_addr().port());
        socket.connect(to).unwrap();
        socket.set_nonblocking(true).unwrap();
        let passphrase = Passphrase::new(passphrase).unwrap();
        let security = CallerSecurity::new(&passphrase, None, CipherPolicy::Auto, true, [9; 32]);
        Caller {
            connection: Connection::connect(
                now,
                socket.peer_addr().unwrap(),
                0x77,
                PacketSequenceNumber::new(5),
                "live/x",
                &config(),
                0,
                Some(security),
            ),
            socket,
            ring: SlotRing::with_owned_chunks(64),
            delivered: Vec::new(),
            events: Vec::new(),
        }
    }

    fn drive(&mut self, now: Instant) {
        let mut buffer = [0; 2_048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let datagram = &buffer[..length];
            let _ = self
                .connection
                .handle_datagram(now, now, datagram, &mut self.ring);
        }
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now, &mut self.ring);
        }
        while let Some(length) = self.connection.poll_transmit(now, &mut buffer) {
            self.socket.send(&buffer[..length]).unwrap();
        }
        while let Some(delivery) = self.connection.poll_delivery(now, &self.ring) {
            let slot = self.ring.get(delivery.slot).unwrap();
            self.delivered
                .push(Stamp::find(slot.payload).unwrap().number);
        }
        self.ring.release_before(self.connection.delivery_index());
        while let Some(event) = self.connection.poll_event() {
            self.events.push(event);
        }
    }
}

#[test]
fn a_called_sender_encrypts_and_loses_nothing_over_a_bad_line() {
    let start = Instant::from_millis(1_000);
    let mut sender = sender("the-right-passphrase");
    let bad = mirror_netem::Config {
        loss: 0.02,
        duplicate: 0.01,
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(2),
        ..Default::default()
    };
    sender.impair(&Impairment {
        forward: bad,
        backward: bad,
        seed: 3,
    });
    let mut caller = Caller::call(start, &sender, "the-right-passphrase");
    let mut media_from = None;
    for ms in 0..4_000u64 {
        let now = start + Duration::from_millis(ms);
        if sender.phase() == Phase::Ready && media_from.is_none() && ms > 300 {
            media_from = Some(ms);
        }
        let media = media_from.filter(|from| ms < from + 2_500);
        sender.drive(
            now,
            now.as_micros(),
            media.map(|from| (ms - from) * 1_000_000),
        );
        caller.drive(now);
    }
    assert_eq!(caller.events.first(), Some(&Event::Connected));
    let stats = sender.stats();
    assert!(stats.retransmitted > 5, "{stats:?}");
    assert!(stats.packets > 1_100, "{stats:?}");
    assert_eq!(caller.delivered, (0..stats.packets).collect::<Vec<u64>>());
}

#[test]
fn a_caller_with_another_passphrase_is_refused_and_the_sender_waits_on() {
    let start = Instant::from_millis(1_000);
    let mut sender = sender("the-right-passphrase");
    let mut caller = Caller::call(start, &sender, "another-passphrase");
    for ms in 0..500 {
        let now = start + Duration::from_millis(ms);
        sender.drive(now, now.as_micros(), None);
        caller.drive(now);
    }
    let refused = CloseReason::Rejected(RejectionCode::BADSECRET);
    assert_eq!(caller.events, [Event::Closed(refused)]);
    assert_eq!(sender.phase(), Phase::Connecting);
}
