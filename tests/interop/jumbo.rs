//! Datagrams longer than a path of 1500 bytes takes, through the release binary: jumbo frames, with
//! and without UDP_GRO, and what becomes of them where nobody has allowed them.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use mirror_tests::engine::{Engine, number};
use mirror_tests::media::clip_h264;
use mirror_tests::{Alone, seconds, wait_for};
use serde_json::Value;

const TS_BYTES: usize = 188;

/// The clip as RTP of `ssrc`, each datagram `bytes` long: as many TS packets as go into it, and an
/// extension that fills it up.
fn datagrams(clip: &[u8], ssrc: u32, bytes: usize) -> Vec<Vec<u8>> {
    let packets = (bytes - 16) / TS_BYTES;
    let words = (bytes - 16 - packets * TS_BYTES) / 4;
    let payloads = clip.chunks_exact(packets * TS_BYTES);
    payloads
        .enumerate()
        .map(|(n, payload)| {
            let mut datagram = vec![0x90, 33];
            datagram.extend((n as u16).to_be_bytes());
            datagram.extend((n as u32 * 900).to_be_bytes());
            datagram.extend(ssrc.to_be_bytes());
            datagram.extend([0xBE, 0xDE]);
            datagram.extend((words as u16).to_be_bytes());
            datagram.resize(16 + words * 4, 0);
            datagram.extend(payload);
            assert_eq!(datagram.len(), bytes);
            datagram
        })
        .collect()
}

/// Sends them at about 10 MB/s.
fn send(socket: &UdpSocket, port: u16, datagrams: &[Vec<u8>]) {
    let mut left = 0;
    for datagram in datagrams {
        left += datagram.len();
        socket
            .send_to(datagram, ("127.0.0.1", port))
            .expect("loopback takes it");
        if left > 20_000 {
            left = 0;
            sleep(Duration::from_millis(2));
        }
    }
}

fn clip(test: &Alone) -> Vec<u8> {
    std::fs::read(clip_h264(test)).expect("the clip")
}

fn reasons(record: &Value) -> String {
    record["state"]["health_reasons"].to_string()
}

fn plays_whole(engine: &Engine, clip: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for (ssrc, bytes) in [(1, 1_328), (2, 2_316), (3, 8_900)] {
        let all = datagrams(clip, ssrc, bytes);
        send(&socket, engine.ports.rtp, &all);
        let id = format!("rtp_{ssrc:08x}");
        wait_for("every datagram is taken", seconds(10), || {
            engine.stream(&id).is_some()
                && number(&engine.stats(&id), "packets_unique") == all.len() as f64
        });
        wait_for("the frames of five seconds", seconds(10), || {
            number(&engine.stats(&id), "frames_assembled") >= 145.0
        });
        let stats = engine.stats(&id);
        for key in ["packets_lost", "packets_dropped"] {
            assert!(number(&stats, key) == 0.0, "{bytes}: {key}: {stats:#}");
        }
        // The end of the clip fills no datagram.
        assert!(
            number(&stats, "frames_damaged") <= 1.0,
            "{bytes}: {stats:#}"
        );
        let buffer = engine.get(&format!("/api/v1/streams/{id}/buffer"));
        let slot = number(&buffer, "slot_bytes");
        assert!(
            slot >= bytes as f64 && slot < 2.0 * bytes as f64 + 512.0,
            "{buffer:#}"
        );
        let record = engine.stream(&id).expect("its record");
        assert!(!reasons(&record).contains("max_packet_size"), "{record:#}");
    }
}

#[test]
fn datagrams_of_2316_and_8900_bytes_bring_every_frame() {
    let test = Alone::begin("jumbo");
    let engine = Engine::start(&test, &["rtp.max_packet_size=9000"]);
    plays_whole(&engine, &clip(&test));
}

#[test]
fn datagrams_of_2316_and_8900_bytes_bring_every_frame_with_gro() {
    let test = Alone::begin("jumbo-gro");
    let map: PathBuf = test.write("pinning.toml", "[ring]\ngro = true\n");
    let map = map.display().to_string();
    let settings = ["rtp.max_packet_size=9000"];
    let engine = Engine::start_with(&test, &settings, &["--pinning", &map]);
    plays_whole(&engine, &clip(&test));
}

#[test]
fn what_is_longer_than_allowed_is_counted_and_the_stream_says_which_setting_to_raise() {
    let test = Alone::begin("jumbo-refused");
    let engine = Engine::start(&test, &[]);
    let clip = clip(&test);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    send(&socket, engine.ports.rtp, &datagrams(&clip, 7, 1_328)[..50]);
    let id = "rtp_00000007";
    engine.wait_status(id, "active", seconds(10));
    // One that a receive buffer holds and no slot does, and one that is cut off.
    for bytes in [1_700, 8_900] {
        send(&socket, engine.ports.rtp, &datagrams(&clip, 7, bytes)[..10]);
    }
    wait_for("each is counted", seconds(10), || {
        engine.stats(id)["discards"]["over_max_packet_size"] == 20
    });
    let record = engine.wait_stream(id, "it says why", seconds(5), |s| {
        reasons(s).contains("rtp.max_packet_size")
    });
    assert_eq!(record["state"]["health"], "degraded", "{record:#}");
    let metrics = engine.request("GET", "/metrics").expect("metrics").body;
    let sample = "error_type=\"over_max_packet_size\"";
    assert!(
        metrics
            .lines()
            .any(|l| l.contains(sample) && l.ends_with(" 20")),
        "{metrics}"
    );
}
