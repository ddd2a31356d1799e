//! A whole shard over a driver that hands it buffers as the kernel fills them: run it under
//! `valgrind --tool=callgrind --toggle-collect='*measured_turn*'`, which then counts what the
//! shard does and nothing of the publishers. `tests/cost` does so and asserts the figures.
//!
//! `shard_cost PATTERN [streams=25] [ms=900] [shards=1] [loss=PERMILLE] [cipher=clear|ctr|gcm]
//! [media=0] [drops=0]`, where PATTERN says how packets come:
//! - `wakes`: every stream evenly spaced at 50 Mb/s, a turn each tick, as the ring wakes;
//! - `even`: the same, a turn for each packet;
//! - `bursts`: each stream sends 32 packets at once, a turn for each burst.
//!
//! The measured time begins behind a snapshot of the shards: up to 900 ms hold none. The last
//! line tells what came of it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use mirror_base::{Instant, PacketSequenceNumber, ShardId, SlotRing, StreamId};
use mirror_shard::{
    Clock, Driver, Mailboxes, Shard, ShardPlacement, ShardsConfig, SocketFacts, SrtConfig, Turn,
    assemble,
};
use mirror_srt::{
    CallerSecurity, CipherPolicy, Config, Connection, KeyLength, ListenerPolicy, Passphrase,
    Security,
};
use mirror_stream::StreamConfig;
use mirror_stream::plan::PortPlan;
use mirror_stream::report::{Command, Event, Reservation, SharedDirectory, StreamDirectory};
use mirror_uring::{Intake, ReactorConfig, ReactorCounters, Sink, SocketOptions};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 30_000;
/// One way.
const DELAY: Duration = Duration::from_millis(2);
/// Between two packets of a stream: 50 Mb/s.
const SPACING_NS: u64 = 210_560;
/// CLOCK_REALTIME is so far ahead of CLOCK_MONOTONIC.
const REALTIME_NS: u64 = 1_700_000_000_000_000_000;
const NAME_AT: usize = 16;
const CONTROL_AT: usize = 44;
const PAYLOAD_AT: usize = 192;

/// Virtual time.
#[derive(Clone)]
struct VirtualClock(Rc<Cell<Instant>>);

impl Clock for VirtualClock {
    #[inline]
    fn now(&self) -> Instant {
        self.0.get()
    }
}

/// Filled buffers waiting for one shard, reused for ever.
#[derive(Default)]
struct Queue {
    buffers: Vec<Vec<u8>>,
    filled: usize,
}

impl Queue {
    /// Fills a buffer as multishot `recvmsg` on a dual-stack socket does.
    fn push(&mut self, from: SocketAddr, arrival: Instant, payload: &[u8], drops: u32) {
        if self.filled == self.buffers.len() {
            self.buffers.push(Vec::with_capacity(2048));
        }
        let Some(buffer) = self.buffers.get_mut(self.filled) else {
            return;
        };
        self.filled += 1;
        buffer.resize(PAYLOAD_AT + payload.len(), 0);
        buffer[NAME_AT..CONTROL_AT].copy_from_slice(&name(from));
        let time = REALTIME_NS + arrival.as_nanos();
        let mut control = Vec::with_capacity(96);
        control.extend_from_slice(&head(32, 1, 35));
        control.extend_from_slice(&(time / 1_000_000_000).to_ne_bytes());
        control.extend_from_slice(&(time % 1_000_000_000).to_ne_bytes());
        if drops > 0 {
            control.extend_from_slice(&head(20, 1, 40));
            control.extend_from_slice(&u64::from(drops).to_ne_bytes());
        }
        control.extend_from_slice(&head(36, 41, 50));
        control.extend_from_slice(&HOST.to_ipv6_mapped().octets());
        control.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        buffer[CONTROL_AT..CONTROL_AT + control.len()].copy_from_slice(&control);
        let lengths = [28, control.len() as u32, payload.len() as u32, 0];
        buffer[..NAME_AT].copy_from_slice(lengths.map(u32::to_ne_bytes).as_flattened());
        buffer[PAYLOAD_AT..].copy_from_slice(payload);
    }
}

/// `struct sockaddr_in6` of an IPv4 peer.
fn name(from: SocketAddr) -> [u8; 28] {
    let mut name = [0; 28];
    name[..2].copy_from_slice(&10_u16.to_ne_bytes());
    name[2..4].copy_from_slice(&from.port().to_be_bytes());
    let ip = match from.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    name[8..24].copy_from_slice(&Ipv6Addr::octets(&ip));
    name
}

/// `struct cmsghdr`.
fn head(length: u64, level: i32, kind: i32) -> [u8; 16] {
    let mut head = [0; 16];
    head[..8].copy_from_slice(&length.to_ne_bytes());
    head[8..12].copy_from_slice(&level.to_ne_bytes());
    head[12..].copy_from_slice(&kind.to_ne_bytes());
    head
}

/// What a shard sent.
#[derive(Default)]
struct Outgoing {
    peers: Vec<SocketAddr>,
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

struct CostDriver {
    clock: VirtualClock,
    queue: Rc<RefCell<Queue>>,
    outgoing: Rc<RefCell<Outgoing>>,
    intake: Intake,
    woken: Rc<Cell<bool>>,
    facts: SocketFacts,
}

impl Driver for CostDriver {
    type Clock = VirtualClock;

    fn clock(&self) -> VirtualClock {
        self.clock.clone()
    }

    fn reap(&mut self, sink: &mut impl Sink) -> usize {
        let mut queue = self.queue.borrow_mut();
        let filled = core::mem::take(&mut queue.filled);
        self.intake
            .set_clocks(self.clock.now().as_nanos(), REALTIME_NS);
        for buffer in queue.buffers.get(..filled).unwrap_or_default() {
            self.intake.take(0, buffer, sink);
        }
        filled
    }

    fn take_woken(&mut self) -> bool {
        self.woken.take()
    }

    fn send(&mut self, _: usize, peer: SocketAddr, _: Option<IpAddr>, bytes: &[u8]) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.peers.push(peer);
        outgoing.bytes.extend_from_slice(bytes);
        let end = outgoing.bytes.len();
        outgoing.ends.push(end);
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _: Instant, _: bool) {}

    fn open_callers(&mut self, _: &SocketOptions) -> Result<usize, String> {
        Err("nobody calls here".to_owned())
    }

    fn open_port(&mut self, _: &PortPlan, _: &SocketOptions) -> Result<usize, String> {
        Err("no session is configured here".to_owned())
    }

    fn open_at(&mut self, _: SocketAddr, _: &SocketOptions) -> Result<usize, String> {
        Err("nobody is met here".to_owned())
    }

    fn close_socket(&mut self, _: usize) {}

    fn counters(&self) -> ReactorCounters {
        ReactorCounters::default()
    }

    fn sockets(&self) -> usize {
        1
    }

    fn socket(&self, _: usize) -> SocketFacts {
        self.facts
    }

    fn cpu_ns(&self) -> u64 {
        0
    }
}

/// Streams in turn.
#[derive(Debug)]
struct RoundRobin {
    shards: usize,
}

impl StreamDirectory for RoundRobin {
    fn reserve(&self, _: Instant, id: &StreamId, _: ShardId) -> Reservation {
        let number = id.as_str().rsplit('/').next().and_then(|n| n.parse().ok());
        Reservation::Owner(ShardId((number.unwrap_or(0) % self.shards) as u16))
    }

    fn reserve_here(&self, _: Instant, _: &StreamId, local: ShardId) -> Reservation {
        Reservation::Owner(local)
    }

    fn confirm(&self, _: &StreamId, _: ShardId) {}

    fn release(&self, _: &StreamId, _: ShardId) {}

    fn default_stream(&self, _: IpAddr, _: u16) -> Option<StreamId> {
        None
    }
}

struct Publisher {
    connection: Connection,
    ring: SlotRing,
    address: SocketAddr,
    connected: bool,
}

struct Options {
    pattern: String,
    streams: usize,
    ms: u64,
    shards: usize,
    loss: u64,
    cipher: String,
    media: bool,
    /// Datagrams that the socket has lost, told with each one.
    drops: u32,
}

impl Options {
    fn parse() -> Options {
        let mut options = Options {
            pattern: "wakes".to_owned(),
            streams: 25,
            ms: 900,
            shards: 1,
            loss: 0,
            cipher: "clear".to_owned(),
            media: false,
            drops: 0,
        };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=') {
                None => options.pattern = argument,
                Some((key, value)) => options.set(key, value),
            }
        }
        options
    }

    fn cipher(&self) -> Option<CipherPolicy> {
        match self.cipher.as_str() {
            "clear" => None,
            "ctr" => Some(CipherPolicy::Ctr),
            "gcm" => Some(CipherPolicy::Gcm),
            other => panic!("unknown cipher {other}"),
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let number = || value.parse::<u64>().expect("a number");
        match key {
            "streams" => self.streams = number() as usize,
            "ms" => self.ms = number(),
            "shards" => self.shards = number() as usize,
            "loss" => self.loss = number(),
            "cipher" => self.cipher = value.to_owned(),
            "media" => self.media = number() != 0,
            "drops" => self.drops = number() as u32,
            _ => panic!("unknown option {key}"),
        }
    }
}

fn passphrase() -> Passphrase {
    Passphrase::new("the cost of a packet").expect("long enough")
}

/// The only function whose cost is looked at.
#[inline(never)]
fn measured_turn(shard: &mut Shard<CostDriver>, limit: Instant) -> Turn {
    shard.turn(limit)
}

struct World {
    options: Options,
    now: Rc<Cell<Instant>>,
    shards: Vec<Shard<CostDriver>>,
    queues: Vec<Rc<RefCell<Queue>>>,
    outgoing: Vec<Rc<RefCell<Outgoing>>>,
    woken: Vec<Rc<Cell<bool>>>,
    mailboxes: Mailboxes,
    events: Receiver<Event>,
    publishers: Vec<Publisher>,
    measuring: bool,
    turns: u64,
    data: u64,
    lost: u64,
    again: u64,
    random: u64,
    /// Sent by all shards.
    snapshots: u64,
    /// Per publisher: datagrams for it that are on their way.
    replies: Vec<Vec<(Instant, Vec<u8>)>>,
}

fn config(options: &Options) -> ShardsConfig {
    ShardsConfig {
        shards: vec![ShardPlacement { core: None }; options.shards],
        srt: Some(SrtConfig {
            listen: SocketAddr::from((HOST, PORT)),
            connection: Config::default(),
            handshakes_per_second: 10_000,
            max_connections: 500,
            default_publish: true,
        }),
        rtp: None,
        rtp_sessions: Vec::new(),
        cname: String::new(),
        sockets: SocketOptions::default(),
        reactor: ReactorConfig::default(),
        pool_bytes_per_shard: (options.streams * 8) << 20,
        pool_bytes_total: 1 << 30,
        policy: None,
        huge_pages: false,
        stream: StreamConfig {
            media: options.media,
            ..StreamConfig::default()
        },
        reconnect_grace: Duration::from_secs(5),
        stream_timeout: Duration::from_secs(30),
        takeover: false,
        cookie_key: [7; 16],
        seed: 42,
        max_streams: 1_000,
    }
}

impl World {
    fn new(options: Options) -> World {
        let now = Rc::new(Cell::new(Instant::from_millis(1_000_000)));
        let (sender, events) = crossbeam_channel::unbounded();
        let directory: SharedDirectory = Arc::new(RoundRobin {
            shards: options.shards,
        });
        let each = 0..options.shards;
        let queues: Vec<Rc<RefCell<Queue>>> = each.clone().map(|_| Rc::default()).collect();
        let outgoing: Vec<Rc<RefCell<Outgoing>>> = each.clone().map(|_| Rc::default()).collect();
        let woken: Vec<Rc<Cell<bool>>> = each.clone().map(|_| Rc::default()).collect();
        let drivers = each.map(|shard| CostDriver {
            clock: VirtualClock(now.clone()),
            queue: queues[shard].clone(),
            outgoing: outgoing[shard].clone(),
            intake: Intake::new([None]),
            woken: woken[shard].clone(),
            facts: SocketFacts {
                local: SocketAddr::from((HOST, PORT)),
                receive_buffer: 0,
                datagrams: 0,
                bytes: 0,
                kernel_drops: 0,
            },
        });
        let (shards, mailboxes) =
            assemble(drivers.collect(), config(&options), &directory, &sender).expect("memory");
        let mut world = World {
            now,
            shards,
            queues,
            outgoing,
            woken,
            mailboxes,
            events,
            publishers: Vec::new(),
            measuring: false,
            turns: 0,
            data: 0,
            lost: 0,
            again: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            snapshots: 0,
            replies: vec![Vec::new(); options.streams],
            options,
        };
        for number in 0..world.options.streams {
            world.call(number);
        }
        world
    }

    fn call(&mut self, number: usize) {
        let address = SocketAddr::from(([192, 0, 2, 1], 20_000 + number as u16));
        let connection = Connection::connect(
            self.now.get(),
            SocketAddr::from((HOST, PORT)),
            number as u32 + 1,
            PacketSequenceNumber::new(number as u32 * 7_919),
            &format!("cost/{number}"),
            &Config::default(),
            0,
            self.options.cipher().map(|cipher| {
                let key_length = Some(KeyLength::Aes128);
                CallerSecurity::new(&passphrase(), key_length, cipher, true, [number as u8; 32])
            }),
        );
        self.publishers.push(Publisher {
            connection,
            ring: SlotRing::with_owned_chunks(2),
            address,
            connected: false,
        });
    }

    fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn advance(&mut self, by: Duration) {
        self.now.set(self.now.get() + by);
    }

    /// A publisher sends a packet of TS, and whatever else it has to say.
    fn publish(&mut self, number: usize) {
        let mut payload = [0xFF; 1316];
        payload
            .chunks_mut(188)
            .for_each(|ts| ts[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]));
        let now = self.now.get();
        self.publishers[number]
            .connection
            .send(now, &payload)
            .expect("room in the send buffer");
        self.flush(number);
    }

    fn flush(&mut self, number: usize) {
        let now = self.now.get();
        let mut out = [0; 1500];
        let publisher = &mut self.publishers[number];
        if publisher
            .connection
            .poll_timeout()
            .is_some_and(|t| t <= now)
        {
            publisher
                .connection
                .handle_timeout(now, &mut publisher.ring);
        }
        while publisher.connection.poll_event().is_some() {
            publisher.connected = true;
        }
        while let Some(len) = self.publishers[number]
            .connection
            .poll_transmit(now, &mut out)
        {
            let word =
                |at: usize| u32::from_be_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]);
            let is_data = word(0) & 1 << 31 == 0;
            if is_data && self.options.loss > 0 && self.random(1000) < self.options.loss {
                self.lost += u64::from(self.measuring);
                continue;
            }
            let is_again = is_data && word(4) & 1 << 26 != 0;
            self.data += u64::from(is_data && self.measuring);
            self.again += u64::from(is_again && self.measuring);
            let shard = word(12) as usize % self.options.shards;
            let from = self.publishers[number].address;
            let drops = self.options.drops;
            let mut queue = self.queues[shard].borrow_mut();
            queue.push(from, now, &out[..len], drops);
        }
    }

    /// Publishers hear what was sent to them [`DELAY`] ago.
    fn hear(&mut self) {
        let now = self.now.get();
        for number in 0..self.publishers.len() {
            if self.replies[number].first().is_none_or(|(at, _)| *at > now) {
                continue;
            }
            let due = self.replies[number].partition_point(|(at, _)| *at <= now);
            for (_, bytes) in self.replies[number].drain(..due) {
                let publisher = &mut self.publishers[number];
                let _ = publisher
                    .connection
                    .handle_datagram(now, now, &bytes, &mut publisher.ring);
            }
            self.flush(number);
        }
    }

    /// A turn of every shard, and of control.
    fn turn(&mut self) {
        let limit = self.now.get() + Duration::from_secs(10);
        for shard in &mut self.shards {
            if self.measuring {
                self.turns += 1;
                measured_turn(shard, limit);
            } else {
                shard.turn(limit);
            }
        }
        let at = self.now.get() + DELAY;
        for outgoing in &self.outgoing {
            let mut outgoing = outgoing.borrow_mut();
            let mut start = 0;
            let Outgoing { peers, ends, bytes } = &mut *outgoing;
            for (peer, end) in peers.drain(..).zip(ends.drain(..)) {
                let number = usize::from(peer.port()) - 20_000;
                self.replies[number].push((at, bytes[start..end].to_vec()));
                start = end;
            }
            bytes.clear();
        }
        while let Ok(event) = self.events.try_recv() {
            self.snapshots += u64::from(matches!(event, Event::Snapshot(_)));
            if let Event::Authorise {
                shard,
                ticket,
                request,
            } = event
            {
                let passphrase = passphrase();
                let policy = ListenerPolicy {
                    passphrase: self.options.cipher().map(|_| &passphrase),
                    require: true,
                    cipher: CipherPolicy::Auto,
                };
                let material = request.key_material.as_deref();
                let security =
                    Security::negotiate(material, request.peer_version, &policy, [7; 32]);
                let decision = Ok(Box::new(security.expect("the passphrase fits")));
                let command = Command::Authorised { ticket, decision };
                self.mailboxes.send(shard, command).expect("room");
                self.woken[shard.index()].set(true);
            }
        }
    }

    fn connect(&mut self) {
        for _ in 0..1_000 {
            self.advance(Duration::from_millis(1));
            self.hear();
            for number in 0..self.publishers.len() {
                self.flush(number);
            }
            // Conclusions go from shard to shard by mail.
            self.woken.iter().for_each(|woken| woken.set(true));
            self.turn();
            if self.publishers.iter().all(|p| p.connected) {
                return;
            }
        }
        panic!("not everyone could connect");
    }

    /// Traffic for `time`.
    fn run(&mut self, time: Duration) {
        let end = self.now.get() + time;
        match self.options.pattern.as_str() {
            "wakes" => self.run_evenly(end, 1_000_000),
            "even" => self.run_evenly(end, 0),
            "bursts" => self.run_bursts(end),
            other => panic!("unknown pattern {other}"),
        }
    }

    /// Packets of all streams evenly spaced, a turn when `wake_ns` have passed since the last.
    fn run_evenly(&mut self, end: Instant, wake_ns: u64) {
        let step = Duration::from_nanos(SPACING_NS / self.options.streams as u64);
        let mut turned = self.now.get();
        while self.now.get() < end {
            for number in 0..self.options.streams {
                self.advance(step);
                self.hear();
                self.publish(number);
                if (self.now.get() - turned).as_nanos() >= u128::from(wake_ns) {
                    turned = self.now.get();
                    self.turn();
                }
            }
        }
    }

    fn run_bursts(&mut self, end: Instant) {
        let step = Duration::from_nanos(32 * SPACING_NS / self.options.streams as u64);
        while self.now.get() < end {
            for number in 0..self.options.streams {
                self.advance(step);
                self.hear();
                for _ in 0..32 {
                    self.publish(number);
                }
                self.turn();
            }
        }
    }
}

fn main() {
    let options = Options::parse();
    let time = Duration::from_millis(options.ms);
    let mut world = World::new(options);
    world.connect();
    // Rings grow, tables settle.
    world.run(Duration::from_millis(1_500));
    let so_far = world.snapshots;
    while world.snapshots < so_far + world.options.shards as u64 {
        world.run(Duration::from_millis(10));
    }
    world.measuring = true;
    world.run(time);
    println!(
        "packets {} again {} lost {} turns {}",
        world.data, world.again, world.lost, world.turns
    );
}
