//! An engine without shards, for the tests: mailboxes that keep what they get, and a sender of
//! events that speaks for the shards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use hdrhistogram::Histogram;
use mirror_base::ring::SlotRing;
use mirror_base::{PacketSequenceNumber, ShardId, StreamId};
use mirror_media::{Codec, Track};
use mirror_srt::{
    CallerSecurity, CipherPolicy, Connection, HandshakeAction, Handshaker, KeyLength, Passphrase,
};
use mirror_stream::report::{
    CallFailure, CallRequest, Command, EndReason, Event, LatencySet, Mode, PipelineState, Protocol,
    PublishRequest, ShardCounters, ShardSnapshot, SocketSnapshot, Status, StreamDirectory,
    StreamSnapshot, StreamStats,
};

use crate::config::{Secret, Sources};
use crate::{Config, Control, ControlHandle, Directory, Mailboxes, Undeliverable};

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) answer_latency: bool,
    pub(crate) token: Option<&'static str>,
    pub(crate) max_connections: usize,
    pub(crate) max_streams: usize,
    pub(crate) set: Vec<String>,
    pub(crate) file: Option<std::path::PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            answer_latency: false,
            token: None,
            max_connections: 256,
            max_streams: 25,
            set: Vec::new(),
            file: None,
        }
    }
}

/// Keeps commands; answers latency requests if asked to.
#[derive(Debug)]
struct FakeMailboxes {
    answer_latency: bool,
    commands: Sender<Command>,
    /// Replies that are never given: a stuck shard keeps them.
    held: Mutex<Vec<Command>>,
}

impl Mailboxes for FakeMailboxes {
    fn shards(&self) -> usize {
        2
    }

    fn send(&self, shard: ShardId, command: Command) -> Result<(), Undeliverable> {
        match command {
            Command::Latency { ref reply, .. } if self.answer_latency => {
                let set = (shard.0 == 0).then(|| Box::new(latency()));
                reply.send(set).map_err(|_| Undeliverable(shard))
            }
            Command::Latency { .. } => {
                self.held
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(command);
                Ok(())
            }
            other => self.commands.send(other).map_err(|_| Undeliverable(shard)),
        }
    }
}

fn latency() -> LatencySet {
    let of = |values: &[u64]| {
        let mut h = Histogram::new(3).unwrap();
        for v in values {
            h.record(*v).unwrap();
        }
        h
    };
    LatencySet {
        receive: of(&[7]),
        hold: of(&[]),
        assemble: of(&[1]),
        total: of(&[100, 200, 300]),
    }
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) directory: Arc<Directory>,
    events: Sender<Event>,
    commands: Receiver<Command>,
    handle: Option<ControlHandle>,
    tickets: Mutex<u64>,
}

impl Engine {
    pub(crate) fn start(options: Options) -> Engine {
        let mut set = vec![
            "api.listen=127.0.0.1:0".to_owned(),
            "instance=test-1".to_owned(),
        ];
        set.push(format!("max_streams={}", options.max_streams));
        set.push(format!("api.max_connections={}", options.max_connections));
        set.extend(options.set);
        let mut config = Config::load(&Sources {
            set,
            file: options.file,
            ..Sources::default()
        })
        .unwrap();
        config.api.token = options.token.map(|t| Secret::new(t.to_owned()));
        let config = Arc::new(config);
        let directory = Arc::new(Directory::of(&config, 2));
        let (events, receiver) = unbounded();
        let (sender, commands) = unbounded();
        let mailboxes = Arc::new(FakeMailboxes {
            answer_latency: options.answer_latency,
            commands: sender,
            held: Mutex::default(),
        });
        let handle = Control::start(config, mailboxes, receiver, directory.clone()).unwrap();
        Engine {
            directory,
            events,
            commands,
            handle: Some(handle),
            tickets: Mutex::new(0),
        }
    }

    /// Starts with a configuration file of this text.
    pub(crate) fn with_config(text: &str, set: &[&str]) -> Engine {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = scratch("control").join(format!("{number}.toml"));
        std::fs::write(&file, text).unwrap();
        let engine = Engine::start(Options {
            set: set.iter().map(|s| (*s).to_owned()).collect(),
            file: Some(file.clone()),
            ..Options::default()
        });
        let _ = std::fs::remove_file(file);
        engine
    }

    /// The next call that a shard is told to make.
    pub(crate) fn call(&self) -> Box<CallRequest> {
        match self.command(|c| matches!(c, Command::Call(_))) {
            Command::Call(call) => call,
            other => panic!("{other:?}"),
        }
    }

    /// Speaks for the shard that a call failed.
    pub(crate) fn call_failed(&self, call: &CallRequest, failure: CallFailure) {
        self.call_failed_as(call, failure, None);
    }

    /// The same with what the host said.
    pub(crate) fn call_failed_as(
        &self,
        call: &CallRequest,
        failure: CallFailure,
        detail: Option<&str>,
    ) {
        self.send(Event::CallFailed {
            shard: ShardId(0),
            ticket: call.ticket,
            stream_id: call.stream_id.clone(),
            failure,
            detail: detail.map(str::to_owned),
        });
    }

    /// Speaks for the shard that a call was answered.
    pub(crate) fn call_answered(&self, call: &CallRequest, resumed: bool) {
        let mut request = request(call.stream_id.as_str());
        request.mode = Mode::Caller;
        request.peer = call.peer;
        request.tags = call.tags.clone();
        self.directory.confirm(&call.stream_id, ShardId(0));
        self.send(Event::Started {
            shard: ShardId(0),
            stream_id: call.stream_id.clone(),
            request,
            resumed,
        });
    }

    /// Whether no command comes within `time`.
    pub(crate) fn silent(&self, time: Duration) -> bool {
        self.commands.recv_timeout(time).is_err()
    }

    /// A GET that is answered with 200, as JSON.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn delete(&self, path: &str) -> u16 {
        self.request("DELETE", path).0
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.as_ref().unwrap().api_address().unwrap()
    }

    pub(crate) fn handle(&self) -> &ControlHandle {
        self.handle.as_ref().unwrap()
    }

    pub(crate) fn send(&self, event: Event) {
        self.events.send(event).unwrap();
    }

    /// Asks as a shard does, and waits for the answer.
    pub(crate) fn authorise(&self, request: PublishRequest) -> Result<(), u32> {
        let ticket = {
            let mut next = self.tickets.lock().unwrap();
            *next += 1;
            *next
        };
        self.send(Event::Authorise {
            shard: ShardId(0),
            ticket,
            request,
        });
        match self.command(|c| matches!(c, Command::Authorised { ticket: t, .. } if *t == ticket)) {
            Command::Authorised { decision, .. } => decision.map(|_| ()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&self, id: &str) {
        let request = request(id);
        assert_eq!(self.authorise(request.clone()), Ok(()));
        self.send(Event::Started {
            shard: ShardId(0),
            stream_id: request.stream_id.clone(),
            request,
            resumed: false,
        });
    }

    pub(crate) fn end(&self, id: &str, reason: EndReason, status: Status) {
        let last = Box::new(stream(id));
        self.send(Event::Ended {
            shard: ShardId(0),
            stream_id: last.stream_id.clone(),
            reason,
            status,
            last,
        });
    }

    pub(crate) fn snapshot(&self, shard: u16, streams: Vec<StreamSnapshot>) {
        self.send(snapshot_of(shard, streams));
    }

    /// The next command that fits; others are passed over.
    pub(crate) fn command(&self, fits: impl Fn(&Command) -> bool) -> Command {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let command = self.commands.recv_deadline(deadline).expect("a command");
            if fits(&command) {
                return command;
            }
        }
    }

    /// Status and body of a GET.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path)
    }

    /// Status and body of a POST.
    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.exchange("POST", path, body)
    }

    fn request(&self, method: &str, path: &str) -> (u16, String) {
        self.exchange(method, path, "")
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut client = std::net::TcpStream::connect(self.address()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client
            .write_all(
                format!(
                    "{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            )
            .unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        (
            status,
            answer
                .split_once("\r\n\r\n")
                .map_or("", |(_, body)| body)
                .to_owned(),
        )
    }

    /// Waits until `fact` holds.
    pub(crate) fn until(&self, fact: impl Fn() -> bool) {
        until(fact);
    }

    pub(crate) fn stop(mut self) {
        self.handle.take().unwrap().shutdown(Duration::from_secs(1));
    }
}

pub(crate) fn until(fact: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fact() {
        assert!(Instant::now() < deadline, "did not come true within 10 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The KMREQ block of a caller with this passphrase, as its handshake brings it.
pub(crate) fn key_material(passphrase: &str) -> Vec<u8> {
    let now = crate::now();
    let peer = "192.0.2.7:4000".parse().unwrap();
    let passphrase = Passphrase::new(passphrase).unwrap();
    let security = CallerSecurity::new(
        &passphrase,
        Some(KeyLength::Aes256),
        CipherPolicy::Auto,
        true,
        [7; 32],
    );
    let config = mirror_srt::Config::default();
    let first = PacketSequenceNumber::new(1);
    let mut caller = Connection::connect(now, peer, 77, first, "x", &config, 0, Some(security));
    let mut listener = Handshaker::new(config, [1; 16]);
    let mut ring = SlotRing::new();
    let (mut asked, mut answer) = ([0; 1500], [0; 1500]);
    for _ in 0..2 {
        let len = caller.poll_transmit(now, &mut asked).unwrap();
        match listener
            .handle_datagram(now, peer, &asked[..len], &mut answer)
            .unwrap()
        {
            HandshakeAction::Reply(len) => caller
                .handle_datagram(now, now, &answer[..len], &mut ring)
                .unwrap(),
            HandshakeAction::Conclude(request) => return request.key_material.unwrap(),
        }
    }
    panic!("the caller did not conclude");
}

pub(crate) fn request(id: &str) -> PublishRequest {
    PublishRequest {
        stream_id: StreamId::new(id).unwrap(),
        protocol: Protocol::Srt,
        mode: Mode::Listener,
        peer: "192.0.2.7:4000".parse().unwrap(),
        srt_stream_id: format!("#!::r={id}"),
        user: None,
        tags: vec!["studio=1".to_owned()],
        peer_version: 0x0001_0503,
        latency: Duration::from_millis(120),
        key_material: None,
        configured: false,
    }
}

pub(crate) fn stream(id: &str) -> StreamSnapshot {
    let now = crate::now();
    StreamSnapshot {
        stream_id: StreamId::new(id).unwrap(),
        protocol: Protocol::Srt,
        mode: Mode::Listener,
        peer: "[::ffff:192.0.2.7]:4000".parse().unwrap(),
        status: Status::Active,
        state: PipelineState::Streaming,
        previous_state: PipelineState::Buffering,
        transitions: Vec::new(),
        created_at: now,
        started_at: now,
        last_packet_at: Some(now),
        tracks: vec![Track {
            id: 256,
            program: 1,
            stream_type: 0x1b,
            codec: Codec::H264,
            profile: "High",
            level: 31,
            width: 1280,
            height: 720,
            frame_rate: (30, 1),
            bit_depth: 8,
            chroma_format: 1,
            ..Track::default()
        }],
        container: Some("mpegts"),
        figures: Box::default(),
        srt: None,
        rtp: Vec::new(),
        encryption: "none",
        stats: StreamStats {
            packets_received: 1000,
            packets_unique: 1000,
            bytes_received: 1_316_000,
            bitrate_bps: 5_000_000,
            rtt_us: 12_500,
            key_frames: 5,
            frame_rate_milli: 29_970,
            latency_ms: 120,
            sessions: 1,
            ..StreamStats::default()
        },
    }
}

pub(crate) fn snapshot_of(shard: u16, streams: Vec<StreamSnapshot>) -> Event {
    Event::Snapshot(Box::new(ShardSnapshot {
        shard: ShardId(shard),
        core: Some(u32::from(shard)),
        at: crate::now(),
        cpu_ns: 1_000_000,
        sessions: streams.len() as u64,
        handshakes_pending: 0,
        calls_pending: 0,
        pool_chunks: 100,
        pool_free: 90,
        counters: ShardCounters::default(),
        sockets: vec![SocketSnapshot {
            role: "srt",
            local: "[::]:30000".parse().unwrap(),
            receive_buffer: 16 << 20,
            datagrams: 1000,
            bytes: 1_400_000,
            kernel_drops: if shard == 0 { 3 } else { 0 },
        }],
        streams,
    }))
}

/// A directory of the target folder for what is called `name` of the test at hand, empty when it
/// asks first: tests may run in processes of their own at the same time. What a run leaves that is
/// killed is used by the next one, not kept for ever.
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    static FRESH: Mutex<Vec<std::path::PathBuf>> = Mutex::new(Vec::new());
    // The harness names a test's thread after it.
    let test = std::thread::current().name().unwrap_or("any").to_owned();
    // <target>/<profile>/deps/<test binary>
    let target = std::env::current_exe().unwrap();
    let target = target.ancestors().nth(3).unwrap();
    let directory = target.join("tmp/mirror-control");
    let directory = directory.join(test.replace("::", "-")).join(name);
    let mut fresh = FRESH.lock().unwrap_or_else(PoisonError::into_inner);
    if !fresh.contains(&directory) {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        fresh.push(directory.clone());
    }
    directory
}
