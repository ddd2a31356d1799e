//! An SRT implementation that shares no code with libsrt or with ours, srt-tokio in Rust, calling
//! the engine and called by it: what it sends is delivered byte for byte, clear and under keys
//! of every length.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::SinkExt;
use mirror_tests::engine::Engine;
use mirror_tests::matrix::material::sha256;
use mirror_tests::{Alone, seconds};
use serde_json::Value;
use srt_tokio::SrtSocket;
use srt_tokio::options::SocketAddress;
use tokio::runtime::Runtime;

const PASSPHRASE: &str = "as good as any other";
/// Live payloads: seven packets of MPEG-TS.
const PAYLOAD: usize = 7 * 188;
const PACKETS: u64 = 1_500;
/// 5 Mb/s.
const SPACING: Duration = Duration::from_millis(2);
const CONFIGURATION: &str = "max_streams = 16\n[diagnostics]\npayload_hash = true\n";

/// Key lengths in bytes; 0 is clear.
const KEYS: [u16; 4] = [0, 16, 24, 32];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Packets of MPEG-TS without meaning; no two streams have the same.
fn material(stream: u16) -> Vec<u8> {
    let mut state = u64::from(stream) + 1;
    let mut bytes: Vec<u8> = (0..PACKETS * PAYLOAD as u64 / 8 + 1)
        .flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()
        })
        .take(PACKETS as usize * PAYLOAD)
        .collect();
    for packet in bytes.chunks_mut(188) {
        packet[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
    }
    bytes
}

fn builder(key_bytes: u16) -> srt_tokio::SrtSocketBuilder {
    let builder = SrtSocket::builder().latency(Duration::from_millis(200));
    match key_bytes {
        0 => builder,
        bytes => builder.encryption(bytes, PASSPHRASE),
    }
}

/// Sends everything at its pace, and hangs up when the peer has had time to acknowledge it.
async fn send(mut socket: SrtSocket, bytes: &[u8]) {
    for payload in bytes.chunks(PAYLOAD) {
        let message = (Instant::now(), payload.to_vec().into());
        socket.send(message).await.expect("the peer is there");
        tokio::time::sleep(SPACING).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    socket.close().await.expect("the connection ends");
}

/// The engine has delivered exactly `bytes` on `id`.
fn assert_delivered(engine: &Engine, id: &str, key_bytes: u16, bytes: &[u8]) {
    let payload = |s: &Value, key: &str| s["stats"]["payload"][key].clone();
    let record = engine.wait_stream(id, "everything has come", seconds(10), |s| {
        payload(s, "bytes") == bytes.len() as u64
    });
    assert_eq!(payload(&record, "missing"), 0, "{record:#}");
    assert_eq!(payload(&record, "packets"), PACKETS, "{record:#}");
    assert_eq!(payload(&record, "sha256"), sha256(bytes), "{record:#}");
    let expected = match key_bytes {
        0 => "none".to_owned(),
        bytes => format!("aes-ctr-{}", u32::from(bytes) * 8),
    };
    assert_eq!(record["encryption"], expected, "{record:#}");
}

fn id(key_bytes: u16) -> String {
    format!("independent/{key_bytes}")
}

#[test]
fn what_srt_tokio_sends_as_caller_is_delivered_byte_for_byte() {
    let test = Alone::begin("independent-caller");
    let mut text = CONFIGURATION.to_owned();
    for bytes in KEYS {
        text += &format!("[[publishers]]\nid = \"{}\"\n", id(bytes));
        if bytes > 0 {
            text += &format!("passphrase = \"{PASSPHRASE}\"\n");
        }
    }
    let file = test.write("engine.toml", &text).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &file]);
    let to = SocketAddr::from(([127, 0, 0, 1], engine.ports.srt));
    let runtime = runtime();
    let callers = KEYS.map(|bytes| {
        runtime.spawn(async move {
            let socket = builder(bytes).call(to, Some(&id(bytes))).await;
            send(socket.expect("the engine takes the call"), &material(bytes)).await;
        })
    });
    for caller in callers {
        runtime.block_on(caller).expect("the caller ends well");
    }
    for bytes in KEYS {
        assert_delivered(&engine, &id(bytes), bytes, &material(bytes));
    }
}

#[test]
fn a_wrong_passphrase_of_srt_tokio_is_refused() {
    let test = Alone::begin("independent-refused");
    let text = format!(
        "{CONFIGURATION}[[publishers]]\nid = \"{}\"\npassphrase = \"not the one it has\"\n",
        id(16)
    );
    let file = test.write("engine.toml", &text).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &file]);
    let to = SocketAddr::from(([127, 0, 0, 1], engine.ports.srt));
    let called = runtime().block_on(async {
        let name = id(16);
        let call = builder(16).call(to, Some(&name));
        tokio::time::timeout(seconds(10), call).await
    });
    assert!(
        !matches!(called, Ok(Ok(_))),
        "the engine does not let it in"
    );
    assert!(engine.streams().is_empty(), "{:?}", engine.streams());
}

#[test]
fn what_srt_tokio_sends_as_listener_is_delivered_byte_for_byte() {
    let test = Alone::begin("independent-listener");
    let runtime = runtime();
    let mut text = CONFIGURATION.to_owned();
    let listeners = KEYS.map(|bytes| {
        let port = mirror_tests::engine::Ports::free().srt;
        text += &format!(
            "[[srt.callers]]\nid = \"{}\"\nurl = \"srt://127.0.0.1:{port}?latency=200\"\n\
             backoff = {{ initial = \"200ms\", max = \"1s\" }}\n",
            id(bytes)
        );
        if bytes > 0 {
            text += &format!("passphrase = \"{PASSPHRASE}\"\nkey_length = {bytes}\n");
        }
        runtime.spawn(async move {
            let local = SocketAddress::from(SocketAddr::from(([127, 0, 0, 1], port)));
            let socket = builder(bytes).listen_on(local).await;
            send(socket.expect("the engine calls"), &material(bytes)).await;
        })
    });
    let file = test.write("engine.toml", &text).display().to_string();
    let engine = Engine::start_with(&test, &[], &["--config", &file]);
    for listener in listeners {
        runtime.block_on(listener).expect("the listener ends well");
    }
    for bytes in KEYS {
        assert_delivered(&engine, &id(bytes), bytes, &material(bytes));
    }
}
