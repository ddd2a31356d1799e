//! Handshake vectors, negotiation and hostile input.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, Instant, PacketSequenceNumber};

use super::cif::{CONCLUSION, HandshakeCif, INDUCTION, MAGIC, peer_ip_field};
use super::extensions::{Extensions, string, write_stream_id};
use super::{ConnectRequest, HandshakeAction, Handshaker};
use crate::packet::{Header, Writer};
use crate::test_support::{Random, hex, vectors};
use crate::{Config, Connection, RejectionCode};

const NOW: Instant = Instant::from_millis(600_000);

fn peer() -> SocketAddr {
    "192.0.2.7:4001".parse().unwrap()
}

fn listener(config: Config) -> Handshaker {
    Handshaker::new(config, [7; 16])
}

/// The words of a conclusion, to be varied.
struct Conclusion {
    version: u32,
    extension: u16,
    cookie: Option<u32>,
    socket_id: u32,
    initial: u32,
    mss: u32,
    window: u32,
    blocks: Vec<u8>,
}

impl Default for Conclusion {
    fn default() -> Self {
        Conclusion {
            version: 5,
            extension: 1,
            cookie: None,
            socket_id: 77,
            initial: 1000,
            mss: 1500,
            window: 8192,
            blocks: hs(0x0001_0501, 0xBF, 120, 0),
        }
    }
}

fn hs(version: u32, flags: u32, receive: u16, send: u16) -> Vec<u8> {
    let latency = u32::from(receive) << 16 | u32::from(send);
    block(1, &[version, flags, latency])
}

fn block(kind: u16, words: &[u32]) -> Vec<u8> {
    let mut bytes = (u32::from(kind) << 16 | words.len() as u32)
        .to_be_bytes()
        .to_vec();
    words.iter().for_each(|w| bytes.extend(w.to_be_bytes()));
    bytes
}

fn text_block(kind: u16, text: &str) -> Vec<u8> {
    let mut out = [0; 600];
    let mut writer = Writer::bare(&mut out);
    write_stream_id(text.as_bytes(), &mut writer);
    let len = writer.finish();
    out[1] = kind as u8;
    out[..len].to_vec()
}

fn cookie(listener: &mut Handshaker, now: Instant, peer: SocketAddr) -> u32 {
    let request = HandshakeCif {
        version: 4,
        encryption: 0,
        extension: 2,
        initial_sequence: 1000,
        mss: 1500,
        flow_window: 8192,
        handshake_type: INDUCTION,
        socket_id: 77,
        cookie: 0,
        peer_ip: [0; 16],
    };
    let mut out = [0; 1500];
    let len = request.begin(&mut out, 5, 0).finish();
    let induction = out[..len].to_vec();
    let Ok(HandshakeAction::Reply(len)) = listener.handle_datagram(now, peer, &induction, &mut out)
    else {
        panic!("induction is answered")
    };
    let (header, cif) = Header::parse(&out[..len]).unwrap();
    assert_eq!(header.destination, 77);
    let (response, rest) = HandshakeCif::parse(cif).unwrap();
    assert!(rest.is_empty());
    assert_eq!(
        response,
        HandshakeCif {
            version: 5,
            extension: MAGIC,
            cookie: response.cookie,
            peer_ip: peer_ip_field(peer),
            ..request
        }
    );
    response.cookie
}

fn conclude(
    listener: &mut Handshaker,
    conclusion: &Conclusion,
    out: &mut [u8],
) -> Result<HandshakeAction, Discard> {
    let good = cookie(listener, NOW, peer());
    let request = HandshakeCif {
        version: conclusion.version,
        encryption: 0,
        extension: conclusion.extension,
        initial_sequence: conclusion.initial,
        mss: conclusion.mss,
        flow_window: conclusion.window,
        handshake_type: CONCLUSION,
        socket_id: conclusion.socket_id,
        cookie: conclusion.cookie.unwrap_or(good),
        peer_ip: [0; 16],
    };
    let mut packet = [0; 1500];
    let mut writer = request.begin(&mut packet, 99, 0);
    writer.bytes(&conclusion.blocks);
    let len = writer.finish();
    listener.handle_datagram(NOW, peer(), &packet[..len], out)
}

fn accepted(conclusion: &Conclusion, config: Config) -> Box<ConnectRequest> {
    match conclude(&mut listener(config), conclusion, &mut [0; 1500]) {
        Ok(HandshakeAction::Conclude(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn rejected(conclusion: &Conclusion) -> u32 {
    let mut out = [0; 1500];
    match conclude(&mut listener(Config::default()), conclusion, &mut out) {
        Ok(HandshakeAction::Reply(len)) => {
            let (header, cif) = Header::parse(&out[..len]).unwrap();
            assert_eq!((len, header.destination), (64, conclusion.socket_id));
            HandshakeCif::parse(cif).unwrap().0.handshake_type
        }
        other => panic!("{other:?}"),
    }
}

fn with(blocks: &[Vec<u8>]) -> Conclusion {
    Conclusion {
        blocks: blocks.concat(),
        ..Conclusion::default()
    }
}

#[test]
fn handshake_datagrams_follow_the_vectors() {
    let v = vectors("srt_handshake_datagrams.json");
    for row in v["datagrams"].as_array().unwrap() {
        let datagram = hex(row["datagram"].as_str().unwrap());
        let decoded = &row["decoded"];
        let word = |key: &str| u32::from_str_radix(decoded[key].as_str().unwrap(), 16).unwrap();
        let number = |key: &str| decoded[key].as_u64().unwrap() as u32;
        let (header, cif) = Header::parse(&datagram).unwrap();
        assert_eq!(
            (header.timestamp, header.destination),
            (number("ts"), word("dst"))
        );
        let (handshake, blocks) = HandshakeCif::parse(cif).unwrap();
        assert_eq!(cif.len(), number("ciflen") as usize);
        assert_eq!(handshake.version, number("ver"));
        assert_eq!(u32::from(handshake.encryption), number("enc"));
        let extension = decoded["ext"].as_str().unwrap().trim_start_matches("0x");
        assert_eq!(
            handshake.extension,
            u16::from_str_radix(extension, 16).unwrap()
        );
        assert_eq!(handshake.initial_sequence, number("isn"));
        assert_eq!(
            (handshake.mss, handshake.flow_window),
            (number("mss"), number("flow"))
        );
        assert_eq!(
            (handshake.socket_id, handshake.cookie),
            (word("sid"), word("cookie"))
        );
        assert_eq!(
            handshake.peer_ip.to_vec(),
            hex(decoded["peerip"].as_str().unwrap())
        );
        assert!(handshake.is_plausible());
        check_blocks(
            &Extensions::parse(blocks).unwrap(),
            decoded["exts"].as_array().unwrap(),
        );
        // Written again it is the same.
        let mut out = [0; 1500];
        let mut writer = handshake.begin(&mut out, header.timestamp, header.destination);
        writer.bytes(blocks);
        let len = writer.finish();
        assert_eq!(&out[..len], &datagram[..]);
    }
}

fn quoted(name: &str, text: &Option<Vec<u8>>) -> String {
    let text = String::from_utf8(text.clone().unwrap()).unwrap();
    format!("{name}(\"{text}\")")
}

fn in_hex(name: &str, content: &Option<Vec<u8>>) -> String {
    let digits: String = content
        .as_ref()
        .unwrap()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("{name}({digits})")
}

fn check_blocks(blocks: &Extensions, expected: &[serde_json::Value]) {
    for text in expected.iter().map(|e| e.as_str().unwrap()) {
        if let Some(hs) = text
            .strip_prefix("HSREQ")
            .or_else(|| text.strip_prefix("HSRSP"))
        {
            let ours = blocks.hs_request.or(blocks.hs_response).unwrap();
            let written = format!(
                "(ver=0x{:06x},flags=0x{:02x},rcv={},snd={})",
                ours.version, ours.flags, ours.receive_ms, ours.send_ms
            );
            assert_eq!(written, hs);
        } else if text.starts_with("SID") {
            assert_eq!(text, quoted("SID", &blocks.srt_stream_id));
        } else if text.starts_with("KMREQ") {
            assert_eq!(text, in_hex("KMREQ", &blocks.km_request));
        } else if text.starts_with("KMRSP") {
            assert_eq!(text, in_hex("KMRSP", &blocks.km_response));
        } else if text.starts_with("FILTER") {
            assert_eq!(text, quoted("FILTER", &blocks.filter));
        } else if text.starts_with("GROUP") {
            let id = blocks.group.unwrap().group_id;
            assert!(text.starts_with(&format!("GROUP(id={id:08x},")), "{text}");
        } else if text.starts_with("CONGESTION") {
            assert_eq!(text, quoted("CONGESTION", &blocks.congestion));
        } else {
            panic!("{text}");
        }
    }
}

#[test]
fn string_blocks_and_peer_addresses_follow_the_vectors() {
    let v = vectors("srt_handshake_datagrams.json");
    for row in v["string_extension_encoding"].as_array().unwrap() {
        // The longest one is described, not written out.
        let (text, wire) = match row["wire_hex"].as_str() {
            Some(wire) => (row["text"].as_str().unwrap().to_owned(), hex(wire)),
            None => ("x".repeat(512), vec![b'x'; 512]),
        };
        assert_eq!(string(&wire, 512).unwrap(), text.as_bytes());
        let mut out = [0; 600];
        let mut writer = Writer::bare(&mut out);
        write_stream_id(text.as_bytes(), &mut writer);
        let len = writer.finish();
        assert_eq!(&out[4..len], &wire[..]);
        assert_eq!(
            u64::from(out[3]),
            row["block_length_words"].as_u64().unwrap()
        );
    }
    for row in v["peer_ip_field"].as_array().unwrap() {
        let ip: core::net::IpAddr = row["address"].as_str().unwrap().parse().unwrap();
        let field = peer_ip_field(SocketAddr::new(ip, 1));
        assert_eq!(field.to_vec(), hex(row["field"].as_str().unwrap()));
    }
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:1".parse().unwrap();
    assert_eq!(peer_ip_field(mapped)[..4], [1, 0, 0, 127]);
}

#[test]
fn a_cookie_serves_its_peer_for_this_minute_and_the_next() {
    let mut listener = listener(Config::default());
    let minute = |n: u64| Instant::from_millis(60_000 * n + 59_000);
    let now = cookie(&mut listener, minute(9), peer());
    assert_ne!(now, cookie(&mut listener, minute(10), peer()));
    assert_ne!(
        now,
        cookie(&mut listener, minute(9), "192.0.2.7:4002".parse().unwrap())
    );
    assert_ne!(
        now,
        cookie(&mut listener, minute(9), "192.0.2.8:4001".parse().unwrap())
    );
    let mapped = "[::ffff:192.0.2.7]:4001".parse().unwrap();
    assert_eq!(now, cookie(&mut listener, minute(9), mapped));
    // NOW is in minute 10.
    let earlier = |n: u64, listener: &mut Handshaker| Conclusion {
        cookie: Some(cookie(listener, minute(n), peer())),
        ..Conclusion::default()
    };
    for (n, good) in [(10, true), (9, true), (8, false), (11, false)] {
        let conclusion = earlier(n, &mut listener);
        let answer = conclude(&mut listener, &conclusion, &mut [0; 1500]);
        assert_eq!(answer.is_ok(), good, "minute {n}");
        assert!(good || matches!(answer, Err(Discard::BadCookie)));
    }
}

#[test]
fn blocks_come_in_any_order_and_unknown_ones_are_skipped() {
    let hs = hs(0x0001_0501, 0xBF, 80, 200);
    let name = text_block(5, "live/cam1");
    let unknown = block(99, &[1, 2, 3]);
    for blocks in [
        vec![hs.clone(), name.clone(), unknown.clone()],
        vec![unknown.clone(), name.clone(), hs.clone()],
        vec![name, block(4711, &[]), hs, unknown],
    ] {
        let request = accepted(&with(&blocks), Config::default());
        assert_eq!(request.srt_stream_id.as_deref(), Some(&b"live/cam1"[..]));
        assert_eq!(request.version, 0x0001_0501);
        assert_eq!(request.key(), (peer(), 77, PacketSequenceNumber::new(1000)));
    }
    assert_eq!(
        accepted(&Conclusion::default(), Config::default()).srt_stream_id,
        None
    );
}

#[test]
fn each_fault_of_a_conclusion_has_its_rejection_code() {
    let hs_ok = || hs(0x0001_0501, 0xBF, 120, 0);
    let cases: Vec<(Conclusion, RejectionCode)> = vec![
        (
            Conclusion {
                version: 4,
                blocks: vec![],
                extension: 2,
                ..Default::default()
            },
            RejectionCode::VERSION,
        ),
        (
            Conclusion {
                version: 6,
                ..Default::default()
            },
            RejectionCode::VERSION,
        ),
        (
            Conclusion {
                version: 3,
                ..Default::default()
            },
            RejectionCode::VERSION,
        ),
        (
            Conclusion {
                initial: 0x7FFF_FFFF,
                ..Default::default()
            },
            RejectionCode::ROGUE,
        ),
        (
            Conclusion {
                mss: 75,
                ..Default::default()
            },
            RejectionCode::ROGUE,
        ),
        (
            Conclusion {
                window: 1,
                ..Default::default()
            },
            RejectionCode::ROGUE,
        ),
        (
            Conclusion {
                extension: 4,
                ..Default::default()
            },
            RejectionCode::ROGUE,
        ),
        (with(&[hs_ok(), hs_ok()]), RejectionCode::ROGUE),
        (
            with(&[text_block(5, "a"), hs_ok(), text_block(5, "b")]),
            RejectionCode::ROGUE,
        ),
        (with(&[]), RejectionCode::ROGUE),
        (with(&[text_block(5, "a")]), RejectionCode::ROGUE),
        (
            with(&[block(1, &[0x0001_0501, 0xBF])]),
            RejectionCode::ROGUE,
        ),
        (with(&[hs(0x0001_0200, 0xBF, 120, 0)]), RejectionCode::ROGUE),
        (
            with(&[hs(0x0000_0900, 0xBF, 120, 0)]),
            RejectionCode::VERSION,
        ),
        (with(&[hs(0x0001_0501, 0x9F, 120, 0)]), RejectionCode::ROGUE),
        (
            with(&[hs(0x0001_0501, 0xFF, 120, 0)]),
            RejectionCode::MESSAGEAPI,
        ),
        (
            with(&[hs_ok(), vec![0, 5, 0, 9, 1, 2, 3, 4]]),
            RejectionCode::ROGUE,
        ),
        (
            with(&[hs_ok(), block(5, &[0x6161_6161; 129])]),
            RejectionCode::ROGUE,
        ),
        (
            with(&[hs_ok(), text_block(6, "file")]),
            RejectionCode::CONGESTION,
        ),
        (
            with(&[hs_ok(), text_block(7, "fec,cols:10")]),
            RejectionCode::FILTER,
        ),
        (
            with(&[hs_ok(), block(8, &[0x4000_0001, 0x0100_0000])]),
            RejectionCode::GROUP,
        ),
        (
            with(&[hs_ok(), block(8, &[1, 0x0100_0000])]),
            RejectionCode::ROGUE,
        ),
    ];
    for (i, (conclusion, code)) in cases.iter().enumerate() {
        assert_eq!(rejected(conclusion), code.wire(), "case {i}: {code}");
    }
    // "live" said aloud is no fault, nor is one word too many in HSREQ.
    accepted(&with(&[hs_ok(), text_block(6, "live")]), Config::default());
    accepted(
        &with(&[block(1, &[0x0001_0501, 0xBF, 0, 9])]),
        Config::default(),
    );
}

#[test]
fn a_stream_id_has_up_to_512_bytes() {
    let hs_ok = hs(0x0001_0501, 0xBF, 120, 0);
    let id = |len: usize| block_of(5, "x".repeat(len).as_bytes());
    let request = accepted(&with(&[hs_ok.clone(), id(512)]), Config::default());
    assert_eq!(request.srt_stream_id.map(|id| id.len()), Some(512));
    // Zeros behind the text are padding, however many.
    let padded = [id(512).split_off(4), vec![0; 8]].concat();
    let padded = [vec![0, 5, 0, 130], padded].concat();
    accepted(&with(&[hs_ok.clone(), padded]), Config::default());
    assert_eq!(
        rejected(&with(&[hs_ok, id(513)])),
        RejectionCode::ROGUE.wire()
    );
}

/// A string block of any length.
fn block_of(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut out = vec![0, kind, 0, text.len().div_ceil(4) as u8];
    for group in text.chunks(4) {
        let mut word = [0; 4];
        word[..group.len()].copy_from_slice(group);
        out.extend(word.iter().rev());
    }
    out
}

#[test]
fn what_bounds_a_connection_is_the_smaller_mss_and_the_callers_window() {
    let small = Conclusion {
        mss: 76,
        window: 2,
        ..Default::default()
    };
    let request = accepted(&small, Config::default());
    assert_eq!((request.mss, request.flow_window), (76, 2));
    let jumbo = Conclusion {
        mss: 9000,
        window: u32::MAX,
        ..Default::default()
    };
    let config = Config::default();
    let request = accepted(&jumbo, config.clone());
    let mut connection =
        Connection::accept(NOW, &request, 5, &config, 0, crate::Security::clear()).unwrap();
    let mut out = [0; 1500];
    let len = connection.poll_transmit(NOW, &mut out).unwrap();
    let (_, cif) = Header::parse(&out[..len]).unwrap();
    let (response, _) = HandshakeCif::parse(cif).unwrap();
    assert_eq!((response.mss, response.flow_window), (1500, 25_600));
    assert_eq!(connection.statistics().pkt_flow_window, 1 << 20);
}

#[test]
fn blackmagics_unknown_block_is_skipped() {
    let hs_ok = hs(0x0001_0501, 0xBF, 120, 0);
    for blocks in [
        vec![
            block(48_385, &[1, 2, 3]),
            hs_ok.clone(),
            text_block(5, "cam"),
        ],
        vec![
            hs_ok,
            text_block(5, "cam"),
            block(48_385, &[]),
            block(48_385, &[9]),
        ],
    ] {
        let request = accepted(&with(&blocks), Config::default());
        assert_eq!(request.srt_stream_id.as_deref(), Some(&b"cam"[..]));
    }
}

#[test]
fn a_caller_of_the_old_handshake_is_told_by_a_shutdown_too() {
    let mut listener = listener(Config::default());
    let old = Conclusion {
        version: 4,
        extension: 2,
        blocks: vec![],
        ..Conclusion::default()
    };
    let mut out = [0; 1500];
    let answer = conclude(&mut listener, &old, &mut out);
    assert!(matches!(answer, Ok(HandshakeAction::Reply(64))));
    assert_eq!(u32::from_be_bytes(out[36..40].try_into().unwrap()), 1008);
    let len = listener.further_reply(NOW, &mut out).unwrap();
    let (header, cif) = Header::parse(&out[..len]).unwrap();
    assert_eq!(header.word0, 0x8005_0000);
    assert_eq!((header.destination, cif), (77, &[0; 4][..]));
    assert_eq!(listener.further_reply(NOW, &mut out), None, "once");
    // Nobody else is.
    let newer = Conclusion {
        version: 6,
        ..Conclusion::default()
    };
    conclude(&mut listener, &newer, &mut out).unwrap();
    assert_eq!(listener.further_reply(NOW, &mut out), None);
}

#[test]
fn handshakes_of_nobody_are_not_answered() {
    let mut out = [0; 1500];
    let nobody = Conclusion {
        socket_id: 0,
        ..Conclusion::default()
    };
    let answer = conclude(&mut listener(Config::default()), &nobody, &mut out);
    assert!(matches!(answer, Err(Discard::MalformedHandshake)));
}

#[test]
fn peers_below_the_minimum_version_are_rejected() {
    let config = Config {
        min_version: 0x0002_0000,
        ..Config::default()
    };
    let mut out = [0; 1500];
    let answer = conclude(&mut listener(config), &Conclusion::default(), &mut out);
    assert!(matches!(answer, Ok(HandshakeAction::Reply(64))));
    assert_eq!(u32::from_be_bytes(out[36..40].try_into().unwrap()), 1008);
}

#[test]
fn an_application_rejects_with_its_own_code() {
    let request = accepted(&Conclusion::default(), Config::default());
    let mut out = [0; 1500];
    assert_eq!(request.reject(NOW, RejectionCode::CONFLICT, &mut out), 64);
    assert_eq!(u32::from_be_bytes(out[36..40].try_into().unwrap()), 2409);
}

#[test]
fn latency_is_the_greater_wish_and_is_clamped() {
    let config = Config {
        latency: Duration::from_millis(300),
        peer_latency: Duration::from_millis(500),
        ..Config::default()
    };
    let conclusion = with(&[hs(0x0001_0501, 0xBF, 550, 250)]);
    let request = accepted(&conclusion, config.clone());
    assert_eq!(request.negotiated_latency(&config).as_millis(), 300);
    let mut connection =
        Connection::accept(NOW, &request, 5, &config, 0, crate::Security::clear()).unwrap();
    let mut out = [0; 1500];
    let len = connection.poll_transmit(NOW, &mut out).unwrap();
    let (_, cif) = Header::parse(&out[..len]).unwrap();
    let (response, blocks) = HandshakeCif::parse(cif).unwrap();
    let hsrsp = Extensions::parse(blocks).unwrap().hs_response.unwrap();
    assert_eq!((hsrsp.receive_ms, hsrsp.send_ms), (300, 550));
    assert_eq!(
        (response.initial_sequence, response.socket_id, response.mss),
        (1000, 5, 1500)
    );

    let greedy = accepted(&with(&[hs(0x0001_0501, 0xBF, 120, 60_000)]), config.clone());
    assert_eq!(greedy.negotiated_latency(&config).as_secs(), 8);
    // Without TSBPDSND the word does not count.
    let silent = accepted(&with(&[hs(0x0001_0501, 0xBE, 120, 1000)]), config.clone());
    assert_eq!(silent.negotiated_latency(&config).as_millis(), 300);
}

#[test]
fn random_and_mutated_handshakes_never_panic() {
    let mut listener = listener(Config::default());
    let v = vectors("srt_handshake_datagrams.json");
    let samples: Vec<Vec<u8>> = v["datagrams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| hex(row["datagram"].as_str().unwrap()))
        .collect();
    let mut random = Random(99);
    let mut out = [0; 1500];
    let good = cookie(&mut listener, NOW, peer());
    for round in 0..100_000 {
        let mut datagram = if round % 10 == 0 {
            let len = random.below(200) as usize;
            random.bytes(len)
        } else {
            let mut sample = samples[random.below(samples.len() as u64) as usize].clone();
            if sample.len() >= 48 {
                sample[44..48].copy_from_slice(&good.to_be_bytes());
            }
            for _ in 0..random.below(4) {
                let at = random.below(sample.len() as u64) as usize;
                sample[at] = random.next() as u8;
            }
            sample
        };
        if random.per_mille(200) {
            datagram.truncate(random.below(datagram.len() as u64 + 1) as usize);
        }
        if let Ok(HandshakeAction::Conclude(request)) =
            listener.handle_datagram(NOW, peer(), &datagram, &mut out)
        {
            let _ = Connection::accept(
                NOW,
                &request,
                9,
                &Config::default(),
                0,
                crate::Security::clear(),
            );
        }
    }
}

#[test]
fn only_handshakes_may_go_to_socket_id_0() {
    let mut listener = listener(Config::default());
    let mut out = [0; 1500];
    let mut answer = |bytes: &[u8]| listener.handle_datagram(NOW, peer(), bytes, &mut out).err();
    assert_eq!(answer(&[0; 15]), Some(Discard::Runt));
    assert_eq!(answer(&[0; 16]), Some(Discard::UnknownSession));
    assert_eq!(
        answer(&hex("80010000000000000010d2420000000000000000")),
        Some(Discard::UnknownSession)
    );
    assert_eq!(
        answer(&hex("80000000000000000010d24200000000")),
        Some(Discard::MalformedHandshake)
    );
}

/// What our caller does with a listener's conclusion response of these blocks.
fn answered(mss: u32, blocks: &[u8]) -> (Option<crate::Event>, Option<Vec<u8>>) {
    let initial = PacketSequenceNumber::new(1000);
    let config = Config::default();
    let mut caller = Connection::connect(NOW, peer(), 77, initial, "a", &config, 0, None);
    let mut ring = mirror_base::SlotRing::new();
    let mut out = [0; 1500];
    let mut answer = HandshakeCif {
        version: 5,
        encryption: 0,
        extension: MAGIC,
        initial_sequence: 1000,
        mss: 1500,
        flow_window: 8192,
        handshake_type: INDUCTION,
        socket_id: 77,
        cookie: 4711,
        peer_ip: [0; 16],
    };
    caller.poll_transmit(NOW, &mut out).unwrap();
    let len = answer.begin(&mut out, 5, 77).finish();
    let induction = out[..len].to_vec();
    caller
        .handle_datagram(NOW, NOW, &induction, &mut ring)
        .unwrap();
    caller.poll_transmit(NOW, &mut out).unwrap();
    answer.extension = 1;
    answer.handshake_type = CONCLUSION;
    answer.socket_id = 99;
    answer.mss = mss;
    let mut writer = answer.begin(&mut out, 9, 77);
    writer.bytes(blocks);
    let len = writer.finish();
    let conclusion = out[..len].to_vec();
    let _ = caller.handle_datagram(NOW, NOW, &conclusion, &mut ring);
    let event = caller.poll_event();
    let next = (event != Some(crate::Event::Connected))
        .then(|| caller.poll_transmit(NOW, &mut out))
        .flatten();
    (event, next.map(|len| out[..len].to_vec()))
}

#[test]
fn a_caller_declines_what_it_cannot_do_and_tells_the_listeners_socket() {
    let mut rsp = hs(0x0001_0501, 0xBF, 120, 120);
    rsp[1] = 2;
    let changed = |version: u32, flags: u32| {
        let mut block = hs(version, flags, 120, 120);
        block[1] = 2;
        block
    };
    assert_eq!(answered(1500, &rsp).0, Some(crate::Event::Connected));
    let with = |block: Vec<u8>| [rsp.clone(), block].concat();
    for (mss, blocks, code) in [
        (75, rsp.clone(), RejectionCode::ROGUE),
        (1500, changed(0x0001_0200, 0xBF), RejectionCode::ROGUE),
        (1500, changed(0x0000_0900, 0xBF), RejectionCode::VERSION),
        (1500, changed(0x0001_0501, 0x9F), RejectionCode::ROGUE),
        (1500, changed(0x0001_0501, 0xFF), RejectionCode::MESSAGEAPI),
        (1500, with(text_block(6, "file")), RejectionCode::CONGESTION),
        (
            1500,
            with(text_block(7, "fec,cols:10")),
            RejectionCode::FILTER,
        ),
        (
            1500,
            with(block(8, &[1 << 30, 1 << 24])),
            RejectionCode::GROUP,
        ),
    ] {
        let (event, sent) = answered(mss, &blocks);
        let reason = crate::CloseReason::Rejected(code);
        assert_eq!(event, Some(crate::Event::Closed(reason)));
        let sent = sent.unwrap();
        assert_eq!(sent[..4], [0x80, 5, 0, 0], "SHUTDOWN");
        assert_eq!(sent[12..16], [0, 0, 0, 99]);
    }
    // A response without HSRSP is none: the request is repeated.
    assert_eq!(answered(1500, &[]), (None, None));
}
