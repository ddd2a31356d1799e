//! Two established connections and the wires between them, without a network: the target decides
//! what is delivered, forged or lost, and after each step everything that must hold is checked.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use mirror_base::{Instant, PacketSequenceNumber, SlotRing};
use mirror_srt::{
    CallerSecurity, CipherPolicy, Config, Connection, Event, HandshakeAction, Handshaker,
    KeyLength, ListenerPolicy, Passphrase, Security,
};

/// Index of the side that called.
pub(crate) const CALLER: usize = 0;
/// Index of the side that was called.
pub(crate) const LISTENER: usize = 1;

/// Socket IDs by side.
pub(crate) const IDS: [u32; 2] = [0x77, 0x1234];

/// Most datagrams that one step may make a connection write: its whole window, and the control
/// packets.
const MAX_BURST: usize = 4_096;
/// Most datagrams that wait on a wire; older ones are lost.
const MAX_WIRE: usize = 512;

/// One side.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) ring: SlotRing,
    pub(crate) delivered: u64,
    pub(crate) missing: u64,
    events: usize,
    /// All bytes of all payloads are this one; anything else was not sent.
    pub(crate) only: Option<u8>,
    /// What was delivered, if somebody wants to know.
    pub(crate) kept: Option<Vec<Vec<u8>>>,
    /// What it has written and nobody has delivered yet.
    pub(crate) wire: VecDeque<Vec<u8>>,
    /// Where that comes from.
    pub(crate) address: SocketAddr,
}

/// Both sides.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) sides: [Side; 2],
    pub(crate) initial: PacketSequenceNumber,
}

pub(crate) fn address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new("as good as any").expect("a passphrase")
}

/// A configuration whose bounds are soon reached.
pub(crate) fn config() -> Config {
    Config {
        latency: Duration::from_millis(60),
        flow_window: 256,
        send_buffer_packets: 128,
        refresh_packets: 64,
        announce_packets: 16,
        ..Config::default()
    }
}

fn take_word(datagram: &[u8], at: usize) -> u32 {
    datagram
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// The cookie in a handshake packet.
pub(crate) fn cookie(datagram: &[u8]) -> u32 {
    take_word(datagram, 44)
}

/// A packet of these words and bytes.
pub(crate) fn packet(word0: u32, word1: u32, timestamp: u32, to: u32, rest: &[u8]) -> Vec<u8> {
    let words = [word0, word1, timestamp, to];
    let mut datagram: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    datagram.extend_from_slice(rest);
    datagram
}

/// A control packet's first word.
pub(crate) const fn control(kind: u16, subtype: u16) -> u32 {
    1 << 31 | ((kind & 0x7FFF) as u32) << 16 | subtype as u32
}

impl Pair {
    /// Establishes a clear connection whose caller's numbers begin at `initial`.
    pub(crate) fn new(initial: u32) -> Self {
        Self::of(initial, None, |_| Security::clear())
    }

    /// The same with keys.
    pub(crate) fn secured(initial: u32, cipher: CipherPolicy, length: KeyLength) -> Self {
        let passphrase = passphrase();
        let caller = CallerSecurity::new(&passphrase, Some(length), cipher, true, [3; 32]);
        Self::of(initial, Some(caller), |request| {
            let policy = ListenerPolicy {
                passphrase: Some(&passphrase),
                require: true,
                cipher,
            };
            let message = request.key_material.as_deref();
            Security::negotiate(message, request.version, &policy, [4; 32]).expect("keys")
        })
    }

    fn of(
        initial: u32,
        caller_security: Option<CallerSecurity>,
        negotiate: impl FnOnce(&mirror_srt::ConnectRequest) -> Security,
    ) -> Self {
        let now = Instant::from_millis(1_000);
        let config = config();
        let initial = PacketSequenceNumber::new(initial % PacketSequenceNumber::MAX);
        let mut handshaker = Handshaker::new(config.clone(), [7; 16]);
        let mut caller = Connection::connect(
            now,
            address(),
            IDS[CALLER],
            initial,
            "live/fuzz",
            &config,
            0,
            caller_security,
        );
        let (mut out, mut reply) = ([0; 1500], [0; 1500]);
        let mut ring = SlotRing::with_owned_chunks(4);
        let mut negotiate = Some(negotiate);
        let mut listener = None;
        while let Some(len) = caller.poll_transmit(now, &mut out) {
            match handshaker.handle_datagram(now, address(), &out[..len], &mut reply) {
                Ok(HandshakeAction::Reply(len)) => {
                    caller
                        .handle_datagram(now, now, &reply[..len], &mut ring)
                        .expect("an induction response is taken");
                }
                Ok(HandshakeAction::Conclude(request)) => {
                    let security = negotiate.take().expect("one conclusion")(&request);
                    let accepted =
                        Connection::accept(now, &request, IDS[LISTENER], &config, 0, security);
                    let mut accepted = accepted.expect("the caller is served");
                    let len = accepted.poll_transmit(now, &mut reply).expect("a response");
                    caller
                        .handle_datagram(now, now, &reply[..len], &mut ring)
                        .expect("a conclusion response is taken");
                    listener = Some(accepted);
                }
                Err(reason) => panic!("our own handshake is discarded: {reason:?}"),
            }
        }
        let side = |connection, ring| Side {
            connection,
            ring,
            delivered: 0,
            missing: 0,
            events: 0,
            only: None,
            kept: None,
            wire: VecDeque::new(),
            address: address(),
        };
        let listener = listener.expect("the handshake is done");
        let mut pair = Pair {
            now,
            initial,
            sides: [
                side(caller, ring),
                side(listener, SlotRing::with_owned_chunks(4)),
            ],
        };
        pair.settle();
        pair
    }

    /// Lets time pass, and timers fire.
    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        for side in &mut self.sides {
            if side
                .connection
                .poll_timeout()
                .is_some_and(|at| at <= self.now)
            {
                side.connection.handle_timeout(self.now, &mut side.ring);
            }
        }
        self.settle();
    }

    /// `side` gets a datagram from its peer's address.
    pub(crate) fn arrive(&mut self, side: usize, datagram: &[u8]) {
        let from = self.sides[side].connection.peer();
        self.arrive_from(side, from, datagram);
    }

    /// `side` gets a datagram from any address; who is not its peer has to prove that he is.
    pub(crate) fn arrive_from(&mut self, side: usize, from: SocketAddr, datagram: &[u8]) {
        let to = &mut self.sides[side];
        let before = to.connection.peer();
        if before != from {
            let follows = to.connection.try_rebind(self.now, self.now, from, datagram);
            let peer = if follows { from } else { before };
            assert_eq!(to.connection.peer(), peer);
            if !follows {
                return self.settle();
            }
            let kind = take_word(datagram, 0) >> 16;
            assert!(kind < 0x8000 || kind == 0x8001, "data or a keepalive");
        }
        // What is discarded is counted.
        let _ = to
            .connection
            .handle_datagram(self.now, self.now, datagram, &mut to.ring);
        self.settle();
    }

    /// The application of `side` sends.
    pub(crate) fn send(&mut self, side: usize, payload: &[u8]) {
        // A full buffer is no fault.
        let _ = self.sides[side].connection.send(self.now, payload);
        self.settle();
    }

    /// The oldest datagram that `side` has written reaches the other one, which may know it by
    /// another address.
    pub(crate) fn pass(&mut self, from: usize) -> bool {
        let Some(datagram) = self.sides[from].wire.pop_front() else {
            return false;
        };
        let address = self.sides[from].address;
        self.arrive_from(1 - from, address, &datagram);
        true
    }

    /// Ends it: whatever happened, both sides come to rest.
    pub(crate) fn finish(mut self) {
        for side in &mut self.sides {
            side.connection.close(self.now);
        }
        self.settle();
        for _ in 0..100 {
            self.advance(Duration::from_secs(1));
        }
        for side in &self.sides {
            assert!(side.connection.is_drained(), "{:?}", side.connection);
            assert_eq!(side.connection.poll_timeout(), None);
            assert_eq!(side.connection.statistics().pkt_rcv_buf, 0);
        }
    }

    fn settle(&mut self) {
        let now = self.now;
        self.sides.iter_mut().for_each(|side| side.settle(now));
    }
}

impl Side {
    /// Drains the connection and checks what must hold.
    fn settle(&mut self, now: Instant) {
        let mut last = None;
        while let Some(delivery) = self.connection.poll_delivery(now, &self.ring) {
            assert!(last < Some(delivery.slot), "in order, each once");
            assert!(delivery.due <= now);
            let slot = self.ring.get(delivery.slot).expect("it can be read");
            if let Some(only) = self.only {
                assert!(slot.payload.iter().all(|b| *b == only), "nobody sent this");
            }
            if let Some(kept) = &mut self.kept {
                kept.push(slot.payload.to_vec());
            }
            last = Some(delivery.slot);
            self.delivered += 1;
            self.missing += u64::from(delivery.lost_before);
        }
        self.ring.release_before(self.connection.delivery_index());
        while let Some(event) = self.connection.poll_event() {
            self.events += 1;
            assert!(self.events <= 2, "{event:?}");
            assert!(matches!(event, Event::Connected | Event::Closed(_)));
        }
        let mut out = [0; 1500];
        let mut written = 0;
        while let Some(len) = self.connection.poll_transmit(now, &mut out) {
            written += 1;
            assert!(written <= MAX_BURST, "it writes without end");
            assert!((16..=1472).contains(&len));
            if self.wire.len() == MAX_WIRE {
                self.wire.pop_front();
            }
            self.wire.push_back(out[..len].to_vec());
        }
        self.check();
    }

    fn check(&self) {
        let s = self.connection.statistics();
        let taken = s.pkt_recv_unique
            + s.pkt_rcv_duplicate
            + s.pkt_rcv_belated
            + s.pkt_rcv_undecrypt
            + s.pkt_rcv_refused;
        assert_eq!(s.pkt_recv, taken, "all packets are accounted for: {s:?}");
        assert_eq!(s.pkt_recv_unique, s.pkt_delivered + s.pkt_rcv_buf, "{s:?}");
        assert_eq!(s.pkt_delivered, self.delivered);
        assert!(self.missing <= s.pkt_rcv_drop, "{s:?}");
        assert_eq!(s.pkt_sent, s.pkt_sent_unique + s.pkt_retrans, "{s:?}");
        assert!(s.pkt_rcv_buf <= self.ring.capacity_slots() as u64, "{s:?}");
        assert!(
            s.pkt_snd_buf <= 128 && s.pkt_flight_size <= s.pkt_snd_buf,
            "{s:?}"
        );
    }
}
