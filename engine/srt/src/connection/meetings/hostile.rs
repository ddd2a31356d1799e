//! One of ours, and datagrams as somebody else would make them.

use mirror_base::Discard;

use super::*;
use crate::handshake::cif::INDUCTION;

/// One of ours, alone.
struct Lone {
    connection: Connection,
    now: Instant,
}

fn message(kind: u32, cookie: u32, socket_id: u32) -> HandshakeCif {
    HandshakeCif {
        version: 5,
        encryption: 0,
        extension: 0,
        initial_sequence: 77,
        mss: 1500,
        flow_window: 8192,
        handshake_type: kind,
        socket_id,
        cookie,
        peer_ip: [0; 16],
    }
}

fn written(cif: &HandshakeCif, destination: u32, blocks: &[u8]) -> Vec<u8> {
    let mut out = [0; 1500];
    let mut writer = cif.begin(&mut out, 5, destination);
    writer.bytes(blocks);
    let len = writer.finish();
    out[..len].to_vec()
}

/// HSREQ (1) or HSRSP (2).
fn hs(kind: u8) -> Vec<u8> {
    let mut block = vec![0, kind, 0, 3];
    for word in [0x0001_0501u32, 0xBF, 120 << 16 | 120] {
        block.extend(word.to_be_bytes());
    }
    block
}

impl Lone {
    fn new(setup: &Setup) -> Self {
        Lone {
            connection: make(setup, 0, START),
            now: START,
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Discard> {
        self.connection
            .handle_datagram(self.now, self.now, bytes, &mut SlotRing::new())
    }

    /// What it sends by then, its handshakes.
    fn run(&mut self, time: Duration) -> Vec<(Header, HandshakeCif, Extensions)> {
        let mut all = Vec::new();
        let mut out = [0; 1500];
        for _ in 0..=time.as_millis() {
            self.connection
                .handle_timeout(self.now, &mut SlotRing::new());
            while let Some(len) = self.connection.poll_transmit(self.now, &mut out) {
                all.extend(handshake_of(&out[..len]));
            }
            self.now += TICK;
        }
        all
    }
}

const PEER: u32 = 0x1234;

#[test]
fn version_4_is_refused_and_forgotten_when_a_better_greeting_comes() {
    let old = HandshakeCif {
        version: 4,
        ..message(WAVEAHAND, LOSES, PEER)
    };
    let mut lone = Lone::new(&setup(WINS));
    assert_eq!(lone.feed(&written(&old, 0, &[])), Ok(()));
    let sent = lone.run(ms(31_000));
    assert!(sent.iter().all(|h| h.1.handshake_type == WAVEAHAND));
    let version = CloseReason::Rejected(RejectionCode::VERSION);
    assert_eq!(lone.connection.poll_event(), Some(Event::Closed(version)));
    let mut lone = Lone::new(&setup(WINS));
    lone.feed(&written(&old, 0, &[])).unwrap();
    lone.feed(&written(&message(WAVEAHAND, LOSES, PEER), 0, &[]))
        .unwrap();
    let answer = CONCLUSION;
    assert_eq!(lone.run(ms(10))[0].1.handshake_type, answer);
    // Once somebody has answered, a version 4 from anywhere is nothing.
    lone.feed(&written(&old, 0, &[])).unwrap();
    let response = HandshakeCif {
        extension: 1,
        ..message(CONCLUSION, LOSES, PEER)
    };
    lone.feed(&written(&response, IDS[0], &hs(2))).unwrap();
    assert_eq!(lone.connection.poll_event(), Some(Event::Connected));
}

#[test]
fn what_is_no_message_of_a_rendezvous_does_nothing() {
    let greeting = message(WAVEAHAND, LOSES, PEER);
    let concluded = |kind| HandshakeCif {
        extension: 1,
        ..message(kind, LOSES, PEER)
    };
    let bad = [
        // Only a greeting may go to nobody.
        written(&concluded(CONCLUSION), 0, &hs(2)),
        written(&message(AGREEMENT, LOSES, PEER), 0, &[]),
        written(&message(1010, LOSES, PEER), 0, &[]),
        // Nor to somebody else.
        written(&greeting, 99, &[]),
        written(&message(INDUCTION, LOSES, PEER), 0, &[]),
        written(&message(0xFFFF_FFFD, LOSES, PEER), IDS[0], &[]),
        written(
            &HandshakeCif {
                cookie: 0,
                ..greeting
            },
            0,
            &[],
        ),
        written(
            &HandshakeCif {
                socket_id: 0,
                ..greeting
            },
            0,
            &[],
        ),
        written(
            &HandshakeCif {
                version: 3,
                ..greeting
            },
            0,
            &[],
        ),
        written(
            &HandshakeCif {
                mss: 20,
                ..greeting
            },
            0,
            &[],
        ),
        written(
            &HandshakeCif {
                flow_window: 1,
                ..greeting
            },
            0,
            &[],
        ),
        written(
            &HandshakeCif {
                initial_sequence: 0x7FFF_FFFF,
                ..greeting
            },
            0,
            &[],
        ),
        // Agreed to nothing.
        written(&message(AGREEMENT, LOSES, PEER), IDS[0], &[]),
    ];
    let mut lone = Lone::new(&setup(WINS));
    for bytes in &bad {
        assert!(lone.feed(bytes).is_err(), "{bytes:02x?}");
    }
    let whole = written(&greeting, 0, &[]);
    for len in 0..whole.len() {
        assert!(lone.feed(&whole[..len]).is_err(), "{len} bytes");
    }
    assert!(
        lone.run(ms(1000))
            .iter()
            .all(|h| h.1.handshake_type == WAVEAHAND)
    );
    assert_eq!(lone.connection.poll_event(), None);
}

#[test]
fn peer_that_hears_us_is_not_displaced_by_a_forged_greeting() {
    let mut lone = Lone::new(&setup(LOSES));
    lone.feed(&written(&message(WAVEAHAND, WINS, PEER), 0, &[]))
        .unwrap();
    lone.feed(&written(&message(CONCLUSION, WINS, PEER), IDS[0], &[]))
        .unwrap();
    for n in 0..1000 {
        let forged = message(WAVEAHAND, WINS + 1 + n, 0x4000 + n);
        assert_eq!(
            lone.feed(&written(&forged, 0, &[])),
            Err(Discard::HandshakePending)
        );
    }
    let sent = lone.run(ms(600));
    assert!(sent.iter().all(|h| h.0.destination == PEER), "{sent:?}");
    // One that was started anew greets with other numbers: after a silence it is let in.
    lone.run(ms(3000));
    let again = message(WAVEAHAND, WINS + 5, 0x5555);
    lone.feed(&written(&again, 0, &[])).unwrap();
    assert!(lone.run(ms(10)).iter().all(|h| h.0.destination == 0x5555));
    let request = HandshakeCif {
        extension: 1,
        ..message(CONCLUSION, WINS + 5, 0x5555)
    };
    lone.feed(&written(&request, IDS[0], &hs(1))).unwrap();
    lone.feed(&written(&message(AGREEMENT, WINS + 5, 0x5555), IDS[0], &[]))
        .unwrap();
    assert_eq!(lone.connection.poll_event(), Some(Event::Connected));
    assert_eq!(lone.connection.peer_socket_id(), 0x5555);
}

#[test]
fn flood_of_greetings_is_answered_a_few_times_a_second() {
    for proven in [false, true] {
        let mut lone = Lone::new(&setup(LOSES));
        let mut answers = 0;
        for n in 0..1000 {
            for k in 0..20 {
                let forged = message(
                    WAVEAHAND,
                    1 + n * 20 + k,
                    0x4000 + if proven { 0 } else { k },
                );
                let _ = lone.feed(&written(&forged, 0, &[]));
            }
            answers += lone.run(ms(0)).len();
        }
        // Four in 100 ms, and the repetitions.
        assert!(answers <= 50, "{answers}");
    }
}

#[test]
fn rejection_ends_it_when_it_is_addressed_to_us() {
    let mut lone = Lone::new(&setup(LOSES));
    let rejection = message(RejectionCode::BADSECRET.wire(), WINS, PEER);
    assert!(lone.feed(&written(&rejection, 0, &[])).is_err());
    assert_eq!(lone.connection.poll_event(), None);
    lone.feed(&written(&rejection, IDS[0], &[])).unwrap();
    let reason = CloseReason::Rejected(RejectionCode::BADSECRET);
    assert_eq!(lone.connection.poll_event(), Some(Event::Closed(reason)));
}

#[test]
fn peer_that_hangs_up_before_anything_is_agreed_has_concluded_nothing() {
    // As srt-live-transmit does when the passphrases differ.
    let mut shutdown = [0; 20];
    shutdown[..2].copy_from_slice(&[0x80, 5]);
    let mut lone = Lone::new(&setup(WINS));
    let greeting = message(WAVEAHAND, LOSES, PEER);
    lone.feed(&written(&greeting, 0, &[])).unwrap();
    assert!(lone.feed(&shutdown).is_err(), "it must be addressed to us");
    shutdown[12..16].copy_from_slice(&IDS[0].to_be_bytes());
    lone.feed(&shutdown).unwrap();
    let end = Event::Closed(CloseReason::Unconcluded);
    assert_eq!(lone.connection.poll_event(), Some(end));
}

#[test]
fn requests_that_cannot_be_served_are_not_answered_and_named() {
    let filter = [0, 7, 0, 1, b'c', b'e', b'f', 0];
    let group = [0, 8, 0, 2, 0x40, 0, 0, 1, 1, 0, 0, 0];
    let congestion = [0, 6, 0, 1, b'e', b'l', b'i', b'f'];
    let mut old = hs(1);
    old[5] = 0;
    old[6] = 0;
    let mut stream = hs(1);
    stream[11] = 0xFF;
    let with = |block: &[u8]| [hs(1), block.to_vec()].concat();
    for (blocks, code) in [
        (with(&filter), RejectionCode::FILTER),
        (with(&group), RejectionCode::GROUP),
        (with(&congestion), RejectionCode::CONGESTION),
        (old, RejectionCode::VERSION),
        (stream, RejectionCode::MESSAGEAPI),
    ] {
        let mut lone = Lone::new(&setup(LOSES));
        let request = HandshakeCif {
            extension: 5,
            ..message(CONCLUSION, WINS, PEER)
        };
        lone.feed(&written(&request, IDS[0], &blocks)).unwrap();
        let sent = lone.run(ms(3100));
        assert!(sent.iter().all(|h| h.2.hs_response.is_none()));
        let reason = CloseReason::Rejected(code);
        assert_eq!(lone.connection.poll_event(), Some(Event::Closed(reason)));
    }
}

#[test]
fn questions_about_keys_are_few_and_old_answers_count_for_nothing() {
    let mut lone = Lone::new(&setup(LOSES));
    let ask = |fill: u8| {
        let request = HandshakeCif {
            extension: 3,
            ..message(CONCLUSION, WINS, PEER)
        };
        let keys = [&[0, 3, 0, 2][..], &[fill; 8]].concat();
        written(&request, IDS[0], &[hs(1), keys].concat())
    };
    let mut questions = Vec::new();
    for n in 0..1000u32 {
        lone.feed(&ask(n as u8)).unwrap();
        questions.extend(lone.connection.key_question());
        if let Some(question) = questions.last()
            && n % 2 == 1
        {
            let number = question.number;
            let now = lone.now;
            lone.connection
                .answer_keys(now, number, Err(RejectionCode::BADSECRET));
        }
        lone.run(ms(0));
    }
    assert!((2..=5).contains(&questions.len()), "{}", questions.len());
    let now = lone.now;
    lone.connection.answer_keys(now, 1, Ok(Security::clear()));
    lone.connection.answer_keys(now, 99, Ok(Security::clear()));
    let sent = lone.run(ms(300));
    assert!(sent.iter().all(|h| h.2.hs_response.is_none()));
}

#[test]
fn bare_agreement_to_a_clear_request_is_one() {
    // libsrt's state machine knows it (spec section 6: ATTENTION, AGREEMENT, initiator).
    let mut lone = Lone::new(&setup(WINS));
    lone.feed(&written(&message(WAVEAHAND, LOSES, PEER), 0, &[]))
        .unwrap();
    lone.run(ms(10));
    lone.feed(&written(&message(AGREEMENT, LOSES, PEER), IDS[0], &[]))
        .unwrap();
    assert_eq!(lone.connection.poll_event(), Some(Event::Connected));
    assert_eq!(lone.connection.latency(), ms(120));
    if cfg!(feature = "crypto") {
        let mut lone = Lone::new(&with_passphrase(WINS, "rendezvous-key-1"));
        lone.feed(&written(&message(WAVEAHAND, LOSES, PEER), 0, &[]))
            .unwrap();
        lone.feed(&written(&message(AGREEMENT, LOSES, PEER), IDS[0], &[]))
            .unwrap();
        assert_eq!(lone.connection.poll_event(), None, "keys are not agreed");
    }
}

#[test]
fn no_bytes_break_a_rendezvous() {
    let mut random = Random(11);
    let good = [
        written(&message(WAVEAHAND, LOSES, PEER), 0, &[]),
        written(&message(CONCLUSION, LOSES, PEER), IDS[0], &[]),
        written(
            &HandshakeCif {
                extension: 1,
                ..message(CONCLUSION, LOSES, PEER)
            },
            IDS[0],
            &hs(1),
        ),
    ];
    for _ in 0..300 {
        let cookie = [WINS, LOSES - 1][random.below(2) as usize];
        let mut lone = Lone::new(&setup(cookie));
        for _ in 0..60 {
            let mut bytes = good[random.below(3) as usize].clone();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.below(256) as u8;
            }
            bytes.truncate(random.below(bytes.len() as u64 * 3) as usize);
            let _ = lone.feed(&bytes);
            if let Some(question) = lone.connection.key_question() {
                let now = lone.now;
                lone.connection
                    .answer_keys(now, question.number, Ok(Security::clear()));
            }
            lone.run(ms(random.below(300)));
        }
    }
}
