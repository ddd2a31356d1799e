//! Rendezvous (spec section 6), which this engine does not offer: two ends that greet each other
//! get no answer of us and cost nothing, whichever of them we are taken for.

use mirror_base::{Discard, PacketSequenceNumber, SlotRing};
use mirror_srt::{CloseReason, Config, Connection, Event, Handshaker};
use mirror_tests::capture::wire::{self, Kind};

use crate::files::read;
use crate::side::{FIRST_INDEX, moment};

const CAPTURES: [&str; 3] = [
    "srt50_rendezvous_clear",
    "srt51_rendezvous_aes128",
    "srt52_rendezvous_badsecret",
];

#[test]
fn our_listener_does_not_answer_rendezvous() {
    for name in CAPTURES {
        let mut handshaker = Handshaker::new(Config::default(), [3; 16]);
        let mut greetings = 0;
        for frame in read(name).frames {
            let now = moment(frame.at_us);
            let mut out = [0; 1500];
            let packet = wire::parse(&frame.datagram).expect("SRT");
            if packet.destination != 0 || !matches!(packet.kind, Kind::Handshake(_)) {
                continue;
            }
            greetings += 1;
            let answer = handshaker.handle_datagram(now, frame.from, &frame.datagram, &mut out);
            assert_eq!(answer.unwrap_err(), Discard::MalformedHandshake, "{name}");
        }
        assert!(greetings >= 2, "{name}");
    }
}

#[test]
fn our_caller_takes_no_rendezvous_peer_for_a_listener() {
    for name in CAPTURES {
        let frames = read(name).frames;
        let own = frames[0].from;
        let Kind::Handshake(first) = wire::parse(&frames[0].datagram).expect("SRT").kind else {
            panic!("{name} begins with a handshake")
        };
        let begin = moment(0);
        let initial = PacketSequenceNumber::new(first.initial);
        let config = Config::default();
        let mut ring = SlotRing::with_owned_chunks(8);
        let mut caller = Connection::connect(
            begin,
            frames[0].to,
            first.socket_id,
            initial,
            "",
            &config,
            FIRST_INDEX,
            None,
        );
        for frame in frames.iter().filter(|f| f.to == own) {
            let now = moment(frame.at_us);
            // Whatever it is, it makes no connection.
            let _ = caller.handle_datagram(now, now, &frame.datagram, &mut ring);
            let event = caller.poll_event();
            assert!(
                matches!(event, None | Some(Event::Closed(CloseReason::PeerShutdown))),
                "{name}: {event:?}"
            );
        }
        caller.handle_timeout(begin + config.connect_timeout, &mut ring);
        let end = Some(Event::Closed(CloseReason::ConnectTimeout));
        assert_eq!(caller.poll_event(), end, "{name}");
    }
}
