//! A storm of wrong passphrases from many addresses, while a stream runs and another publisher
//! comes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mirror_base::PacketSequenceNumber;
use mirror_base::ring::SlotRing;
use mirror_srt::{CallerSecurity, CipherPolicy, Config, Connection, KeyLength, Passphrase};
use mirror_tests::engine::{Engine, number};
use mirror_tests::media;
use mirror_tests::{Alone, seconds, wait_for};

const SECRET: &str = "common-horse-battery";
/// Each thread of the storm has so many addresses of its own.
const ADDRESSES: u8 = 16;
const THREADS: u8 = 3;

/// A whole handshake with a wrong passphrase; the answer to it is not waited for.
fn attempt(socket: &UdpSocket, server: SocketAddr, id: u32, passphrase: &Passphrase) -> bool {
    let now = mirror_base::Instant::from_millis(1);
    let length = Some(KeyLength::Aes128);
    let seed = [id.to_le_bytes()[0]; 32];
    let security = CallerSecurity::new(passphrase, length, CipherPolicy::Auto, true, seed);
    let first = PacketSequenceNumber::new(id);
    let stream = format!("storm/{id}");
    let config = Config::default();
    let mut caller =
        Connection::connect(now, server, id, first, &stream, &config, 0, Some(security));
    let mut ring = SlotRing::new();
    let mut buffer = [0; 1500];
    let send = |caller: &mut Connection, buffer: &mut [u8]| {
        let len = caller.poll_transmit(now, buffer)?;
        socket.send_to(buffer.get(..len)?, server).ok()
    };
    let answered = send(&mut caller, &mut buffer)
        .and_then(|_| socket.recv(&mut buffer).ok())
        .and_then(|len| buffer.get(..len))
        .is_some_and(|reply| caller.handle_datagram(now, now, reply, &mut ring).is_ok());
    answered && send(&mut caller, &mut buffer).is_some()
}

/// Attempts from `ADDRESSES` addresses until told to stop; returns how many came through.
fn storm(thread: u8, server: SocketAddr, stop: &AtomicBool) -> u32 {
    let passphrase = Passphrase::new("wrong-horse-battery").unwrap();
    let sockets: Vec<UdpSocket> = (1..=ADDRESSES)
        .map(|n| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 9, thread, n), 0)).unwrap();
            socket.set_read_timeout(Some(seconds(1) / 50)).unwrap();
            socket
        })
        .collect();
    let (mut id, mut done) = (u32::from(thread) << 24 | 1, 0);
    for socket in sockets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        id += 1;
        done += u32::from(attempt(socket, server, id, &passphrase));
        // Answers of earlier attempts are none of this one's.
        socket.set_nonblocking(true).unwrap();
        while socket.recv(&mut [0; 1500]).is_ok() {}
        socket.set_nonblocking(false).unwrap();
    }
    done
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn metric(engine: &Engine, name: &str) -> f64 {
    let text = engine.request("GET", "/metrics").map(|r| r.body);
    let text = text.unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or(0.0)
}

#[test]
fn wrong_passphrases_cost_a_bounded_share_and_honest_publishers_come_in() {
    let test = Alone::begin("passphrase-storm");
    let config = format!("[srt.encryption]\npassphrase = \"{SECRET}\"\n");
    let config = test.write("storm.toml", &config);
    let arguments = ["--config", config.to_str().unwrap()];
    let settings = ["srt.handshakes_per_second=100000"];
    let engine = Engine::start_with(&test, &settings, &arguments);
    let file = media::clip_h264(&test);
    let url = |id: &str| format!("{}&passphrase={SECRET}", engine.srt_url(id));
    let _first = media::loop_file(&test, "first", &file, "mpegts", &url("first"));
    engine.wait_status("first", "active", seconds(10));
    let server = SocketAddr::from(([127, 0, 0, 1], engine.ports.srt));
    let stop = AtomicBool::new(false);
    let spent_before = metric(&engine, "keys_cpu_seconds_total");
    let began = Instant::now();
    let attempts: u32 = std::thread::scope(|scope| {
        // Also when something below fails: the scope waits for its threads.
        let _stop = StopAtEnd(&stop);
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn({
                    let stop = &stop;
                    move || storm(n, server, stop)
                })
            })
            .collect();
        let refused = "publishers_refused_total{reason=\"bad_secret\"}";
        wait_for("the storm is there", seconds(10), || {
            metric(&engine, refused) >= 100.0
        });
        let _second = media::loop_file(&test, "second", &file, "mpegts", &url("second"));
        engine.wait_status("second", "active", seconds(10));
        std::thread::sleep(seconds(2));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let spent = metric(&engine, "keys_cpu_seconds_total") - spent_before;
    let allowed = 0.25 + 0.25 * began.elapsed().as_secs_f64() + 0.1;
    eprintln!(
        "{attempts} wrong handshakes in {:?}: {spent:.3} s for keys of {allowed:.3} s",
        began.elapsed()
    );
    assert!(spent <= allowed, "{spent} s of {allowed} s");
    let stats = engine.stats("first");
    assert_eq!(number(&stats, "packets_dropped"), 0.0, "{stats:#}");
    assert!(
        engine
            .streams()
            .iter()
            .all(|s| !s["id"].as_str().unwrap().starts_with("storm"))
    );
}
