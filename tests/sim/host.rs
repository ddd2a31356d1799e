//! Two hosts and the path between them in virtual time: an SRT caller that sends numbered
//! payloads, a listener that receives them, and a `Netem` for each direction. Drives both the
//! way a shard does: datagrams when they arrive, timers on a tick of one millisecond, and after
//! each mutation everything is drained.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Delivery, Instant, PacketSequenceNumber, SlotRing};
use mirror_netem::Netem;
use mirror_srt::{Config, ConnectRequest, Connection, Event, HandshakeAction, Handshaker};

/// The shard's timer wheel has this resolution.
pub(crate) const TICK: Duration = Duration::from_millis(1);

const SENDER: &str = "192.0.2.1:40000";
const RECEIVER: &str = "192.0.2.2:30000";
const RECEIVER_ID: u32 = 0x1234;

/// A packet as the receiving application got it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) delivery: Delivery,
    pub(crate) payload: Vec<u8>,
}

/// Everything that happens is folded into it: two runs are the same if their traces are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trace(u64);

impl Trace {
    fn fold(&mut self, at: Instant, bytes: &[u8]) {
        // FNV-1a
        for &b in at.as_nanos().to_be_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// The simulated world.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) sender: Connection,
    pub(crate) receiver: Option<Connection>,
    pub(crate) forward: Netem,
    pub(crate) back: Netem,
    pub(crate) received: Vec<Received>,
    pub(crate) sender_events: Vec<Event>,
    pub(crate) receiver_events: Vec<Event>,
    pub(crate) trace: Trace,
    handshaker: Handshaker,
    config: Config,
    request: Option<ConnectRequest>,
    sender_ring: SlotRing,
    receiver_ring: SlotRing,
    steps: u64,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    pub(crate) fn new(
        config: Config,
        initial: PacketSequenceNumber,
        forward: Netem,
        back: Netem,
    ) -> Self {
        let now = Instant::from_millis(1_000);
        // Enough for the whole window: memory is not what is tested here.
        let window = config.latency.as_millis() as usize * 8;
        World {
            now,
            sender: Connection::connect(
                now,
                address(RECEIVER),
                0x77,
                initial,
                "live/sim",
                &config,
                0,
                None,
            ),
            receiver: None,
            forward,
            back,
            received: Vec::new(),
            sender_events: Vec::new(),
            receiver_events: Vec::new(),
            trace: Trace(0xcbf2_9ce4_8422_2325),
            handshaker: Handshaker::new(config.clone(), [7; 16]),
            config,
            request: None,
            sender_ring: SlotRing::with_owned_chunks(2),
            receiver_ring: SlotRing::with_owned_chunks(window / mirror_base::ring::CHUNK_SLOTS + 8),
            steps: 0,
        }
    }

    /// Lets time pass until `until`.
    pub(crate) fn run_until(&mut self, until: Instant) {
        self.drain();
        while let Some(at) = self.next_event().filter(|&at| at <= until) {
            self.steps += 1;
            assert!(
                self.steps < 20_000_000,
                "the simulation does not come to rest at {:?}",
                self.now
            );
            self.now = self.now.max(at);
            self.deliver_datagrams();
            self.fire_timers();
            self.drain();
        }
        self.now = self.now.max(until);
    }

    /// Lets time pass until nothing is left to do, at most until `limit`. Whether it came to rest.
    pub(crate) fn run_to_rest(&mut self, limit: Instant) -> bool {
        self.run_until(limit);
        self.next_event().is_none()
    }

    fn next_event(&self) -> Option<Instant> {
        let timers = [
            self.sender.poll_timeout(),
            self.receiver.as_ref().and_then(Connection::poll_timeout),
        ];
        let timers = timers.into_iter().flatten().map(|at| self.on_tick(at));
        let arrivals = [self.forward.poll_timeout(), self.back.poll_timeout()]
            .into_iter()
            .flatten();
        timers.chain(arrivals).min()
    }

    /// The tick at which a wheel would fire for `at`: not before it, and never twice at once.
    fn on_tick(&self, at: Instant) -> Instant {
        let tick = TICK.as_nanos() as u64;
        let rounded = at.as_nanos().div_ceil(tick) * tick;
        let next = (self.now.as_nanos() / tick + 1) * tick;
        Instant::from_nanos(rounded.max(next))
    }

    fn deliver_datagrams(&mut self) {
        while let Some(datagram) = self.forward.poll(self.now) {
            self.trace.fold(self.now, &datagram);
            self.at_receiver(&datagram);
        }
        while let Some(datagram) = self.back.poll(self.now) {
            self.trace.fold(self.now, &datagram);
            // What is discarded is counted by the connection.
            let _ =
                self.sender
                    .handle_datagram(self.now, self.now, &datagram, &mut self.sender_ring);
        }
    }

    fn at_receiver(&mut self, datagram: &[u8]) {
        let Some(id) = datagram
            .get(12..16)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_be_bytes)
        else {
            return;
        };
        if id == 0 {
            self.handshake(datagram);
        } else if let Some(receiver) = self.receiver.as_mut().filter(|r| r.socket_id() == id) {
            let _ = receiver.handle_datagram(self.now, self.now, datagram, &mut self.receiver_ring);
        }
    }

    fn handshake(&mut self, datagram: &[u8]) {
        let mut out = [0; 1500];
        match self
            .handshaker
            .handle_datagram(self.now, address(SENDER), datagram, &mut out)
        {
            Ok(HandshakeAction::Reply(len)) => self.back.push(self.now, out[..len].to_vec()),
            Ok(HandshakeAction::Conclude(request)) => self.conclude(*request),
            Err(_) => {}
        }
    }

    fn conclude(&mut self, request: ConnectRequest) {
        match (&mut self.receiver, &self.request) {
            (Some(receiver), Some(known)) if known.key() == request.key() => {
                receiver.handle_repeated_conclusion(self.now);
            }
            (None, _) => {
                let accepted = Connection::accept(
                    self.now,
                    &request,
                    RECEIVER_ID,
                    &self.config,
                    0,
                    mirror_srt::Security::clear(),
                );
                self.receiver = Some(accepted.expect("a plain caller is accepted"));
                self.request = Some(request);
            }
            _ => {}
        }
    }

    fn fire_timers(&mut self) {
        if self.sender.poll_timeout().is_some_and(|at| at <= self.now) {
            self.sender.handle_timeout(self.now, &mut self.sender_ring);
        }
        if let Some(receiver) = &mut self.receiver
            && receiver.poll_timeout().is_some_and(|at| at <= self.now)
        {
            receiver.handle_timeout(self.now, &mut self.receiver_ring);
        }
    }

    fn drain(&mut self) {
        let mut out = [0; 1500];
        while let Some(len) = self.sender.poll_transmit(self.now, &mut out) {
            self.forward.push(self.now, out[..len].to_vec());
        }
        while let Some(event) = self.sender.poll_event() {
            self.sender_events.push(event);
        }
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        while let Some(delivery) = receiver.poll_delivery(self.now, &self.receiver_ring) {
            let slot = self
                .receiver_ring
                .get(delivery.slot)
                .expect("a delivered slot can be read");
            self.trace.fold(self.now, slot.payload);
            self.received.push(Received {
                at: self.now,
                delivery,
                payload: slot.payload.to_vec(),
            });
        }
        self.receiver_ring.release_before(receiver.delivery_index());
        while let Some(len) = receiver.poll_transmit(self.now, &mut out) {
            self.back.push(self.now, out[..len].to_vec());
        }
        while let Some(event) = receiver.poll_event() {
            self.receiver_events.push(event);
        }
    }
}
