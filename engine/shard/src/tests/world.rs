//! A virtual network around real shards: time in steps of a millisecond, the kernel's steering
//! by arithmetic, callers made of the SRT room's own sender, a control side that says yes.

use core::cell::{Cell, RefCell};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Receiver;
use mirror_base::{Instant, PacketSequenceNumber, ShardId, SlotRing, StreamId};
use mirror_srt::{CallerSecurity, CloseReason, Connection, Security};
use mirror_stream::StreamConfig;
use mirror_stream::plan::PortPlan;
use mirror_stream::report::{
    Command, Event, PublishRequest, Reservation, ShardSnapshot, StreamDirectory,
};
use mirror_uring::{
    ChunkPool, Datagram, Envelope, ReactorConfig, ReactorCounters, Sink, SocketOptions,
};

use crate::config::{RtpConfig, ShardPlacement, ShardsConfig, SrtConfig};
use crate::driver::{Clock, Driver, SocketFacts};
use crate::mailbox::Mailboxes;
use crate::shard::{Role, Shard, ShardParts, Turn};

use super::remote::Remote;

pub(crate) const SRT: &str = "10.0.0.1:30000";
pub(crate) const RTP: &str = "10.0.0.1:5004";
pub(crate) const RTCP: &str = "10.0.0.1:5005";
/// One way.
const DELAY: Duration = Duration::from_millis(2);

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Ports of the sockets that calls leave from begin here.
const CALLERS_PORT: u16 = 40_000;

/// Where the calls of a shard come from.
fn callers_address(shard: usize) -> SocketAddr {
    SocketAddr::new(addr(SRT).ip(), CALLERS_PORT + shard as u16)
}

#[derive(Clone)]
pub(crate) struct VirtualClock(Rc<Cell<Instant>>);

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.0.get()
    }
}

struct InFlight {
    at: Instant,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Net {
    to_shards: Vec<VecDeque<(usize, InFlight)>>,
    to_peers: VecDeque<InFlight>,
    /// Sockets of configured sessions: shard and index there.
    ports: HashMap<SocketAddr, (usize, usize)>,
}

pub(crate) struct VirtualDriver {
    clock: VirtualClock,
    net: Rc<RefCell<Net>>,
    shard: usize,
    woken: Arc<AtomicBool>,
    facts: Vec<SocketFacts>,
    callers: Option<usize>,
    /// The host has no sockets left.
    pub(crate) no_sockets: bool,
    /// What a receive buffer takes of a datagram.
    pub(crate) buffer: usize,
    /// So long the thread gets no core, when it has read what there is.
    pub(crate) stall: Duration,
    counters: ReactorCounters,
    /// What the loop last asked to sleep until.
    pub(crate) slept_until: Instant,
    pub(crate) slept_held: bool,
}

impl Driver for VirtualDriver {
    type Clock = VirtualClock;

    fn clock(&self) -> VirtualClock {
        self.clock.clone()
    }

    fn reap(&mut self, sink: &mut impl Sink) -> usize {
        let now = self.clock.now();
        let mut count = 0;
        loop {
            let mut net = self.net.borrow_mut();
            let queue = &mut net.to_shards[self.shard];
            if queue.front().is_none_or(|(_, p)| p.at > now) {
                self.clock.0.set(now + std::mem::take(&mut self.stall));
                return count;
            }
            let (socket, packet) = queue.pop_front().unwrap();
            drop(net);
            count += 1;
            self.facts[socket].datagrams += 1;
            self.facts[socket].bytes += packet.bytes.len() as u64;
            let envelope = Envelope::new(packet.from, Some(packet.to.ip()));
            sink.take(Datagram {
                socket,
                origin: envelope.origin(),
                arrival: packet.at,
                age_ns: now.saturating_since(packet.at).as_nanos() as u32,
                payload: packet.bytes.get(..self.buffer).unwrap_or(&packet.bytes),
                truncated: packet.bytes.len() > self.buffer,
            });
        }
    }

    fn take_woken(&mut self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    fn send(&mut self, socket: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        let session = self
            .net
            .borrow()
            .ports
            .values()
            .any(|p| *p == (self.shard, socket));
        if Some(socket) != self.callers && !session {
            assert_eq!(
                local,
                Some(addr(SRT).ip()),
                "replies leave from the address that was called"
            );
        }
        self.counters.datagrams_sent += 1;
        let packet = InFlight {
            at: self.clock.now() + DELAY,
            from: self.facts[socket].local,
            to: peer,
            bytes: bytes.to_vec(),
        };
        self.net.borrow_mut().to_peers.push_back(packet);
    }

    fn open_callers(&mut self, _: &SocketOptions) -> Result<usize, String> {
        assert!(self.callers.is_none(), "opened once");
        if self.no_sockets {
            return Err("no sockets left".to_owned());
        }
        self.callers = Some(self.facts.len());
        self.facts.push(SocketFacts {
            local: callers_address(self.shard),
            receive_buffer: 0,
            datagrams: 0,
            bytes: 0,
            kernel_drops: 0,
        });
        Ok(self.facts.len() - 1)
    }

    fn open_port(&mut self, port: &PortPlan, options: &SocketOptions) -> Result<usize, String> {
        self.open_at(port.address, options)
    }

    fn open_at(&mut self, mut local: SocketAddr, _: &SocketOptions) -> Result<usize, String> {
        if local.ip().is_unspecified() {
            local.set_ip(addr(SRT).ip());
        }
        if self.no_sockets {
            return Err("no sockets left".to_owned());
        }
        let facts = SocketFacts {
            local,
            receive_buffer: 0,
            datagrams: 0,
            bytes: 0,
            kernel_drops: 0,
        };
        let place = (self.shard, self.facts.len());
        self.facts.push(facts);
        self.net.borrow_mut().ports.insert(local, place);
        Ok(place.1)
    }

    fn close_socket(&mut self, index: usize) {
        self.net.borrow_mut().ports.remove(&self.facts[index].local);
    }

    fn flush(&mut self) {}

    fn wait(&mut self, until: Instant, held: bool) {
        self.slept_until = until;
        self.slept_held = held;
    }

    fn counters(&self) -> ReactorCounters {
        self.counters
    }

    fn sockets(&self) -> usize {
        self.facts.len()
    }

    fn socket(&self, index: usize) -> SocketFacts {
        self.facts[index]
    }

    fn cpu_ns(&self) -> u64 {
        0
    }
}

/// Stream → shard: the least-loaded one, reservations for 3 s.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    shards: usize,
    entries: Mutex<HashMap<StreamId, (ShardId, Option<Instant>)>>,
    pub(crate) blocked: Mutex<Vec<StreamId>>,
    pub(crate) default: Mutex<Option<StreamId>>,
    pub(crate) limit: Mutex<Option<usize>>,
    /// Publishers may go on from here, or from where they are.
    pub(crate) confined: Mutex<Option<IpAddr>>,
}

impl Directory {
    pub(crate) fn owner(&self, id: &str) -> Option<ShardId> {
        let id = StreamId::new(id).unwrap();
        self.entries
            .lock()
            .unwrap()
            .get(&id)
            .map(|&(shard, _)| shard)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }
}

impl Directory {
    fn reserve_at(&self, now: Instant, id: &StreamId, here: Option<ShardId>) -> Reservation {
        if self.blocked.lock().unwrap().contains(id) {
            return Reservation::Blocked;
        }
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
        if let Some(&(shard, _)) = entries.get(id) {
            return Reservation::Owner(shard);
        }
        if self
            .limit
            .lock()
            .unwrap()
            .is_some_and(|limit| entries.len() >= limit)
        {
            return Reservation::Full;
        }
        let load = |shard: usize| entries.values().filter(|(s, _)| s.index() == shard).count();
        let least = (0..self.shards).min_by_key(|&s| load(s)).unwrap_or(0);
        let shard = here.unwrap_or(ShardId(least as u16));
        entries.insert(id.clone(), (shard, Some(now + Duration::from_secs(3))));
        Reservation::Owner(shard)
    }
}

impl StreamDirectory for Directory {
    fn reserve(&self, now: Instant, id: &StreamId, _: ShardId) -> Reservation {
        self.reserve_at(now, id, None)
    }

    fn reserve_here(&self, now: Instant, id: &StreamId, local: ShardId) -> Reservation {
        self.reserve_at(now, id, Some(local))
    }

    fn confirm(&self, id: &StreamId, shard: ShardId) {
        self.entries
            .lock()
            .unwrap()
            .insert(id.clone(), (shard, None));
    }

    fn release(&self, id: &StreamId, shard: ShardId) {
        let mut entries = self.entries.lock().unwrap();
        if entries.get(id).is_some_and(|&(owner, _)| owner == shard) {
            entries.remove(id);
        }
    }

    fn default_stream(&self, _: IpAddr, _: u16) -> Option<StreamId> {
        self.default.lock().unwrap().clone()
    }

    fn may_move(&self, _: &StreamId, from: IpAddr, to: IpAddr) -> bool {
        let confined = *self.confined.lock().unwrap();
        from == to || confined.is_none_or(|only| only == to)
    }
}

/// A publisher.
pub(crate) struct Caller {
    pub(crate) connection: Connection,
    ring: SlotRing,
    pub(crate) local: SocketAddr,
    pub(crate) connected: bool,
    pub(crate) closed: Option<CloseReason>,
    /// Packets to send, one a step.
    pub(crate) to_send: u32,
    /// The machine was switched off.
    pub(crate) dead: bool,
}

/// What control does with a publisher.
pub(crate) type Policy = fn(&PublishRequest) -> Option<Result<Security, u32>>;

pub(crate) struct World {
    pub(crate) now: Rc<Cell<Instant>>,
    net: Rc<RefCell<Net>>,
    pub(crate) shards: Vec<Shard<VirtualDriver>>,
    pub(crate) finished: Vec<bool>,
    pub(crate) mailboxes: Mailboxes,
    events: Receiver<Event>,
    pub(crate) log: Vec<Event>,
    pub(crate) snapshots: HashMap<ShardId, Box<ShardSnapshot>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) caller_config: mirror_srt::Config,
    pub(crate) remotes: Vec<Remote>,
    pub(crate) policy: Policy,
    to_peers_dropped: u64,
    /// What was sent to nobody of ours: from, to, bytes.
    pub(crate) to_others: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    roles: Vec<Role>,
}

fn local_of(role: Role) -> SocketAddr {
    addr(match role {
        Role::Srt => SRT,
        Role::Rtp => RTP,
        Role::Rtcp => RTCP,
        Role::Call | Role::Rendezvous | Role::Session | Role::Closed => {
            unreachable!("opened later")
        }
    })
}

pub(crate) fn config(shards: usize) -> ShardsConfig {
    ShardsConfig {
        shards: vec![ShardPlacement { core: None }; shards],
        srt: Some(SrtConfig {
            listen: addr(SRT),
            connection: mirror_srt::Config::default(),
            handshakes_per_second: 2_000,
            max_connections: 500,
            default_publish: true,
        }),
        rtp: Some(RtpConfig {
            max_packet_size: mirror_base::ring::SLOT_BYTES,
            listen: addr(RTP),
            rtcp_listen: addr(RTCP),
            session: mirror_rtp::Config::default(),
            max_sessions: 64,
            rtcp: true,
            payload_types: vec![None; 128],
        }),
        rtp_sessions: Vec::new(),
        cname: "engine@test".to_owned(),
        sockets: SocketOptions {
            receive_buffer: 0,
            send_buffer: 0,
            timestamps: true,
            gro: false,
            steering: true,
        },
        reactor: ReactorConfig::default(),
        pool_bytes_per_shard: 16 << 20,
        pool_bytes_total: 1 << 30,
        policy: None,
        huge_pages: false,
        stream: StreamConfig {
            media: false,
            ring_bytes: 128 << 10,
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
    pub(crate) fn new(config: ShardsConfig) -> Self {
        let count = config.shards.len();
        let now = Rc::new(Cell::new(Instant::from_millis(100_000)));
        let net = Rc::new(RefCell::new(Net::default()));
        net.borrow_mut().to_shards.resize_with(count, VecDeque::new);
        let directory = Arc::new(Directory {
            shards: count,
            ..Directory::default()
        });
        let (mailboxes, mails) = Mailboxes::new(count);
        let (sender, events) = crossbeam_channel::bounded(10_000);
        let config = Arc::new(config);
        let roles = Role::of(&config);
        let shards = mails
            .into_iter()
            .enumerate()
            .map(|(index, mail)| {
                let id = ShardId(index as u16);
                let woken = Arc::new(AtomicBool::new(false));
                let flag = woken.clone();
                mailboxes.set_wake(id, Box::new(move || flag.store(true, Ordering::Release)));
                let facts = roles.iter().map(|role| SocketFacts {
                    local: local_of(*role),
                    receive_buffer: 0,
                    datagrams: 0,
                    bytes: 0,
                    kernel_drops: 0,
                });
                let driver = VirtualDriver {
                    clock: VirtualClock(now.clone()),
                    net: net.clone(),
                    shard: index,
                    woken,
                    facts: facts.collect(),
                    callers: None,
                    no_sockets: false,
                    buffer: usize::MAX,
                    stall: Duration::ZERO,
                    counters: ReactorCounters::default(),
                    slept_until: Instant::ZERO,
                    slept_held: false,
                };
                let parts = ShardParts {
                    id,
                    config: config.clone(),
                    directory: directory.clone(),
                    mailboxes: mailboxes.clone(),
                    mail,
                    events: sender.clone(),
                    pool: ChunkPool::new(config.pool_bytes_per_shard, false).unwrap(),
                };
                let mut shard = Shard::new(driver, parts);
                shard.open_sessions().unwrap();
                shard
            })
            .collect();
        World {
            now,
            net,
            shards,
            finished: vec![false; count],
            mailboxes,
            events,
            log: Vec::new(),
            snapshots: HashMap::new(),
            directory,
            callers: Vec::new(),
            caller_config: mirror_srt::Config::default(),
            remotes: Vec::new(),
            policy: |_| Some(Ok(Security::clear())),
            roles,
            to_peers_dropped: 0,
            to_others: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Whether a socket is open there, of those that come and go.
    pub(crate) fn is_open(&self, local: SocketAddr) -> bool {
        self.net.borrow().ports.contains_key(&local)
    }

    /// A new publisher, calling from an address of its own.
    pub(crate) fn call(&mut self, stream_id: &str) -> usize {
        self.call_with(stream_id, None)
    }

    /// The same, with encryption.
    pub(crate) fn call_with(&mut self, stream_id: &str, security: Option<CallerSecurity>) -> usize {
        self.call_as(self.callers.len(), stream_id, security)
    }

    /// The same from the address, with the socket ID and the initial sequence number that caller
    /// `n` has or had.
    pub(crate) fn call_as(
        &mut self,
        n: usize,
        stream_id: &str,
        security: Option<CallerSecurity>,
    ) -> usize {
        let n = n as u32;
        let local = SocketAddr::from(([192, 0, 2, (n % 250) as u8], 20_000 + n as u16));
        let connection = Connection::connect(
            self.now(),
            addr(SRT),
            n + 1,
            PacketSequenceNumber::new(n.wrapping_mul(7_919)),
            stream_id,
            &self.caller_config,
            0,
            security,
        );
        self.callers.push(Caller {
            connection,
            ring: SlotRing::with_owned_chunks(2),
            local,
            connected: false,
            closed: None,
            to_send: 0,
            dead: false,
        });
        self.callers.len() - 1
    }

    /// Calls, and lets time pass until the call is answered one way or the other.
    pub(crate) fn call_and_wait(&mut self, stream_id: &str) -> usize {
        let caller = self.call(stream_id);
        for _ in 0..4_000 {
            self.step();
            if self.callers[caller].connected || self.callers[caller].closed.is_some() {
                break;
            }
        }
        caller
    }

    /// The kernel: which shard gets a datagram.
    pub(crate) fn send_to_engine(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let shards = self.shards.len();
        let word = |at: usize| {
            let bytes = bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().unwrap()) as usize)
        };
        let calls = CALLERS_PORT..CALLERS_PORT + shards as u16;
        if calls.contains(&to.port()) {
            let packet = InFlight {
                at: self.now() + DELAY,
                from,
                to,
                bytes: bytes.to_vec(),
            };
            let shard = usize::from(to.port() - CALLERS_PORT);
            self.net.borrow_mut().to_shards[shard].push_back((self.roles.len(), packet));
            return;
        }
        let port = self.net.borrow().ports.get(&to).copied();
        if let Some((shard, socket)) = port {
            let packet = InFlight {
                at: self.now() + DELAY,
                from,
                to,
                bytes: bytes.to_vec(),
            };
            self.net.borrow_mut().to_shards[shard].push_back((socket, packet));
            return;
        }
        let hash = usize::from(from.port()).wrapping_mul(31) ^ bytes.len();
        let Some(socket) = self.roles.iter().position(|&role| local_of(role) == to) else {
            return;
        };
        let steer = match self.roles[socket] {
            Role::Srt => word(12).filter(|&id| id != 0),
            Role::Rtp => word(8),
            Role::Rtcp => word(4),
            Role::Call | Role::Rendezvous | Role::Session | Role::Closed => None,
        };
        self.send_to_shard(steer.unwrap_or(hash) % shards, from, to, bytes);
    }

    /// The kernel, when it does not steer.
    pub(crate) fn send_to_shard(
        &self,
        shard: usize,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let Some(socket) = self.roles.iter().position(|&role| local_of(role) == to) else {
            return;
        };
        let packet = InFlight {
            at: self.now() + DELAY,
            from,
            to,
            bytes: bytes.to_vec(),
        };
        self.net.borrow_mut().to_shards[shard].push_back((socket, packet));
    }

    fn step_callers(&mut self) {
        let now = self.now();
        let by_address: HashMap<SocketAddr, usize> = self
            .callers
            .iter()
            .enumerate()
            .map(|(n, c)| (c.local, n))
            .collect();
        loop {
            let mut net = self.net.borrow_mut();
            if net.to_peers.front().is_none_or(|p| p.at > now) {
                break;
            }
            let packet = net.to_peers.pop_front().unwrap();
            drop(net);
            match by_address.get(&packet.to) {
                Some(&n) if !self.callers[n].dead => {
                    let Caller {
                        connection, ring, ..
                    } = &mut self.callers[n];
                    let _ = connection.handle_datagram(now, packet.at, &packet.bytes, ring);
                }
                _ => match self.remotes.iter_mut().find(|r| r.address == packet.to) {
                    Some(remote) => remote.handle(now, packet.from, &packet.bytes),
                    None => {
                        self.to_peers_dropped += 1;
                        self.to_others.push((packet.from, packet.to, packet.bytes));
                    }
                },
            }
        }
        for n in 0..self.remotes.len() {
            for (to, bytes) in self.remotes[n].step(now) {
                self.send_to_engine(self.remotes[n].address, to, &bytes);
            }
        }
        let mut out = [0; 1500];
        for n in 0..self.callers.len() {
            if self.callers[n].dead {
                continue;
            }
            let caller = &mut self.callers[n];
            if caller.connection.poll_timeout().is_some_and(|at| at <= now) {
                caller.connection.handle_timeout(now, &mut caller.ring);
            }
            while let Some(event) = caller.connection.poll_event() {
                match event {
                    mirror_srt::Event::Connected => caller.connected = true,
                    mirror_srt::Event::Closed(reason) => caller.closed = Some(reason),
                    #[allow(unreachable_patterns)]
                    _ => {}
                }
            }
            if caller.connected && caller.closed.is_none() && caller.to_send > 0 {
                let mut payload = [0xFF; 1316];
                payload.chunks_mut(188).for_each(|ts| ts[0] = 0x47);
                if caller.connection.send(now, &payload).is_ok() {
                    caller.to_send -= 1;
                }
            }
            let local = caller.local;
            while let Some(len) = self.callers[n].connection.poll_transmit(now, &mut out) {
                self.send_to_engine(local, addr(SRT), &out[..len]);
            }
        }
    }

    fn step_control(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Authorise {
                    shard,
                    ticket,
                    ref request,
                } => {
                    if let Some(decision) = (self.policy)(request) {
                        let decision = decision.map(Box::new);
                        let command = Command::Authorised { ticket, decision };
                        self.mailboxes.send(shard, command).unwrap();
                    }
                    self.log.push(event);
                }
                Event::Snapshot(snapshot) => {
                    self.snapshots.insert(snapshot.shard, snapshot);
                }
                event => self.log.push(event),
            }
        }
    }

    /// One millisecond.
    pub(crate) fn step(&mut self) {
        self.now.set(self.now() + Duration::from_millis(1));
        self.step_callers();
        for (shard, finished) in self.shards.iter_mut().zip(&mut self.finished) {
            if !*finished {
                let now = self.now.get();
                *finished = shard.turn(now + Duration::from_secs(10)) == Turn::Finished;
            }
        }
        self.step_control();
    }

    /// Everything that is on its way to the peers gets lost.
    pub(crate) fn lose_replies(&mut self) {
        self.net.borrow_mut().to_peers.clear();
    }

    pub(crate) fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.step();
        }
    }

    /// Fresh snapshots of all shards.
    pub(crate) fn snapshot(&mut self) -> Vec<ShardSnapshot> {
        let receivers: Vec<_> = (0..self.shards.len())
            .map(|shard| {
                let (reply, receiver) = crossbeam_channel::bounded(1);
                let command = Command::Snapshot { reply };
                self.mailboxes.send(ShardId(shard as u16), command).unwrap();
                receiver
            })
            .collect();
        self.step();
        receivers.iter().map(|r| *r.try_recv().unwrap()).collect()
    }

    pub(crate) fn started(&self, id: &str) -> Vec<(ShardId, bool)> {
        let of = |e: &Event| match e {
            Event::Started {
                shard,
                stream_id,
                resumed,
                ..
            } if stream_id.as_str() == id => Some((*shard, *resumed)),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    pub(crate) fn ended(
        &self,
        id: &str,
    ) -> Vec<(
        mirror_stream::report::EndReason,
        mirror_stream::report::Status,
    )> {
        let of = |e: &Event| match e {
            Event::Ended {
                stream_id,
                reason,
                status,
                ..
            } if stream_id.as_str() == id => Some((*reason, *status)),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    /// The caller was rejected with this code.
    pub(crate) fn rejection(&self, caller: usize) -> Option<u32> {
        match self.callers[caller].closed {
            Some(CloseReason::Rejected(code)) => Some(code.0),
            _ => None,
        }
    }
}
