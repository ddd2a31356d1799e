//! Two connections over a virtual network, in virtual time.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::packet::{Control, Header, Writer};
use crate::test_support::Random;
use crate::{HandshakeAction, Handshaker};
use mirror_base::Discard;

pub(super) const CALLER: u32 = 0x1111;
pub(super) const LISTENER: u32 = 0x2222;
pub(super) const TICK: Duration = Duration::from_micros(500);

pub(super) fn address() -> SocketAddr {
    "198.51.100.1:5000".parse().unwrap()
}

/// What the path does to datagrams.
#[derive(Clone, Copy)]
pub(super) struct Path {
    pub(super) delay_us: u64,
    pub(super) jitter_us: u64,
    pub(super) loss_per_mille: u64,
    pub(super) duplicates_per_mille: u64,
}

pub(super) const CLEAN: Path = Path {
    delay_us: 5_000,
    jitter_us: 0,
    loss_per_mille: 0,
    duplicates_per_mille: 0,
};

/// A caller that sends to a listener.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) random: Random,
    pub(super) path: Path,
    /// Datagrams under way: to the listener's side or the caller's.
    pub(super) wire: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    pub(super) count: u64,
    pub(super) handshaker: Handshaker,
    pub(super) caller: Connection,
    pub(super) listener: Option<Connection>,
    pub(super) config: Config,
    pub(super) ring: SlotRing,
    pub(super) none: SlotRing,
    pub(super) got: Vec<Vec<u8>>,
    /// How they were released.
    pub(super) deliveries: Vec<Delivery>,
    /// They are taken all at once, not one by one.
    pub(super) takes_runs: bool,
    pub(super) lost: u64,
    pub(super) events: Vec<Event>,
    pub(super) slots: u64,
    /// Where the caller's datagrams come from, behind a NAT that may change its mind.
    pub(super) caller_address: SocketAddr,
    /// What someone sees who stands beside the caller, if there is one.
    pub(super) tapped: Option<Vec<Vec<u8>>>,
    /// What the listener demands.
    pub(super) policy: Policy,
    /// How it rejected the caller.
    pub(super) rejected: Option<crate::RejectionCode>,
}

/// A listener's demands, as [`crate::ListenerPolicy`] has them.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) passphrase: Option<crate::Passphrase>,
    pub(super) require: bool,
    pub(super) cipher: crate::CipherPolicy,
}

impl Policy {
    pub(super) const fn clear() -> Self {
        Policy {
            passphrase: None,
            require: true,
            cipher: crate::CipherPolicy::Auto,
        }
    }

    pub(super) fn decide(
        &self,
        request: &ConnectRequest,
    ) -> Result<crate::Security, RejectionCode> {
        let terms = crate::ListenerPolicy {
            passphrase: self.passphrase.as_ref(),
            require: self.require,
            cipher: self.cipher,
        };
        let material = request.key_material.as_deref();
        crate::Security::negotiate(material, request.version, &terms, [9; 32])
    }
}

impl Pair {
    pub(super) fn new(seed: u64, path: Path, initial: u32, config: Config) -> Self {
        Self::with_security(seed, path, initial, config, None, Policy::clear())
    }

    pub(super) fn with_security(
        seed: u64,
        path: Path,
        initial: u32,
        config: Config,
        security: Option<CallerSecurity>,
        policy: Policy,
    ) -> Self {
        let now = Instant::from_millis(1_000_000);
        let initial = PacketSequenceNumber::new(initial);
        Pair {
            now,
            random: Random(seed),
            path,
            wire: BTreeMap::new(),
            count: 0,
            handshaker: Handshaker::new(config.clone(), [1; 16]),
            caller: Connection::connect(
                now,
                address(),
                CALLER,
                initial,
                "live/a",
                &config,
                0,
                security,
            ),
            listener: None,
            config,
            ring: SlotRing::with_owned_chunks(150),
            none: SlotRing::new(),
            got: Vec::new(),
            deliveries: Vec::new(),
            takes_runs: false,
            lost: 0,
            events: Vec::new(),
            slots: 0,
            caller_address: address(),
            tapped: None,
            policy,
            rejected: None,
        }
    }

    pub(super) fn put(&mut self, to_listener: bool, datagram: &[u8]) {
        if let Some(tapped) = self.tapped.as_mut().filter(|_| to_listener) {
            tapped.push(datagram.to_vec());
        }
        if self.random.per_mille(self.path.loss_per_mille) {
            return;
        }
        let copies = 1 + u64::from(self.random.per_mille(self.path.duplicates_per_mille));
        for _ in 0..copies {
            let jitter = if self.path.jitter_us == 0 {
                0
            } else {
                self.random.below(self.path.jitter_us)
            };
            let at = self.now + Duration::from_micros(self.path.delay_us + jitter);
            self.count += 1;
            self.wire
                .insert((at, self.count), (to_listener, datagram.to_vec()));
        }
    }

    pub(super) fn drain(&mut self) {
        let mut out = [0; 1500];
        while let Some(len) = self.caller.poll_transmit(self.now, &mut out) {
            assert!(len >= 16);
            self.put(true, &out[..len]);
        }
        while let Some(len) = self
            .listener
            .as_mut()
            .and_then(|l| l.poll_transmit(self.now, &mut out))
        {
            let to = self.listener.as_ref().map(Connection::peer);
            if to == Some(self.caller_address) {
                self.put(false, &out[..len]);
            }
        }
        while let Some(event) = self.caller.poll_event() {
            self.events.push(event);
        }
        let Some(listener) = &mut self.listener else {
            return;
        };
        let mut released = Vec::new();
        if self.takes_runs {
            while listener.deliver_each(self.now, &self.ring, 7, |d| released.push(*d)) >= 7 {}
        } else {
            released.extend(core::iter::from_fn(|| {
                listener.poll_delivery(self.now, &self.ring)
            }));
        }
        for delivery in released {
            self.deliveries.push(delivery);
            assert!(delivery.slot >= self.slots, "in order");
            assert_eq!(delivery.discontinuity, self.got.is_empty());
            self.slots = delivery.slot + 1;
            self.lost += u64::from(delivery.lost_before);
            self.got
                .push(self.ring.get(delivery.slot).unwrap().payload.to_vec());
        }
        self.ring.release_before(listener.delivery_index());
        while let Some(event) = listener.poll_event() {
            self.events.push(event);
        }
    }

    pub(super) fn arrive(&mut self, to_listener: bool, datagram: &[u8], at: Instant) {
        if !to_listener {
            let _ = self
                .caller
                .handle_datagram(self.now, at, datagram, &mut self.none);
        } else if crate::destination_socket_id(datagram) == Some(0) {
            self.handshake(datagram);
        } else if let Some(listener) = &mut self.listener {
            let from = self.caller_address;
            if listener.peer() == from || listener.try_rebind(self.now, at, from, datagram) {
                let _ = listener.handle_datagram(self.now, at, datagram, &mut self.ring);
            }
        }
    }

    pub(super) fn handshake(&mut self, datagram: &[u8]) {
        let mut out = [0; 1500];
        match self
            .handshaker
            .handle_datagram(self.now, address(), datagram, &mut out)
            .unwrap()
        {
            HandshakeAction::Reply(len) => {
                let reply = out[..len].to_vec();
                self.put(false, &reply);
            }
            HandshakeAction::Conclude(request) => {
                if let Some(listener) = &mut self.listener {
                    listener.handle_repeated_conclusion(self.now);
                    return;
                }
                let security = match self.policy.decide(&request) {
                    Ok(security) => security,
                    Err(code) => {
                        self.rejected = Some(code);
                        let len = request.reject(self.now, code, &mut out);
                        self.put(false, &out[..len]);
                        return;
                    }
                };
                let accepted =
                    Connection::accept(self.now, &request, LISTENER, &self.config, 0, security);
                self.listener = Some(accepted.unwrap());
            }
        }
    }

    pub(super) fn tick(&mut self) {
        self.now += TICK;
        while let Some(entry) = self.wire.first_entry() {
            let at = entry.key().0;
            if at > self.now {
                break;
            }
            let (to_listener, datagram) = entry.remove();
            self.arrive(to_listener, &datagram, at);
            self.drain();
        }
        if self
            .caller
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.caller.handle_timeout(self.now, &mut self.none);
        }
        if let Some(listener) = &mut self.listener
            && listener.poll_timeout().is_some_and(|due| due <= self.now)
        {
            listener.handle_timeout(self.now, &mut self.ring);
        }
        self.drain();
        self.rest();
    }

    /// Whoever did all that was due has nothing due now, or has once more: else its owner's loop
    /// would spin.
    fn rest(&mut self) {
        // What the caller has received is not taken from it here.
        let caller_is_due =
            |pair: &Pair| pair.caller.receiver.is_empty() && pair.is_due(&pair.caller);
        if caller_is_due(self) {
            self.caller.handle_timeout(self.now, &mut self.none);
            self.drain();
            assert!(!caller_is_due(self), "{:?}", self.caller);
        }
        let listener_is_due = |pair: &Pair| pair.listener.as_ref().is_some_and(|l| pair.is_due(l));
        if listener_is_due(self) {
            let listener = self.listener.as_mut().unwrap();
            listener.handle_timeout(self.now, &mut self.ring);
            self.drain();
            assert!(!listener_is_due(self), "{:?}", self.listener);
        }
    }

    fn is_due(&self, side: &Connection) -> bool {
        side.poll_timeout().is_some_and(|due| due <= self.now)
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
        }
    }

    pub(super) fn connect(&mut self) {
        for _ in 0..6000 {
            if self.events.first() == Some(&Event::Connected) {
                return;
            }
            self.tick();
        }
        panic!("no connection: {:?}", self.events);
    }

    /// Sends `count` numbered payloads, one each tick.
    pub(super) fn send(&mut self, count: u32) -> Vec<Vec<u8>> {
        (0..count)
            .map(|i| {
                let mut payload = i.to_be_bytes().to_vec();
                payload.resize(100 + i as usize % 1200, i as u8);
                self.caller.send(self.now, &payload).unwrap();
                self.tick();
                payload
            })
            .collect()
    }

    pub(super) fn received(&self) -> Statistics {
        self.listener.as_ref().unwrap().statistics()
    }

    pub(super) fn add_up(&self) {
        let stats = self.received();
        assert_eq!(
            stats.pkt_recv,
            stats.pkt_recv_unique
                + stats.pkt_rcv_duplicate
                + stats.pkt_rcv_belated
                + stats.pkt_rcv_undecrypt
                + stats.pkt_rcv_refused
        );
        assert_eq!(
            stats.pkt_recv_unique,
            stats.pkt_delivered + stats.pkt_rcv_buf
        );
        assert_eq!(stats.pkt_delivered, self.got.len() as u64);
    }

    /// One datagram straight into the listener's side.
    pub(super) fn inject(&mut self, datagram: &[u8]) -> Result<(), Discard> {
        let listener = self.listener.as_mut().unwrap();
        listener.handle_datagram(self.now, self.now, datagram, &mut self.ring)
    }

    pub(super) fn clock(&self) -> u32 {
        timestamp(self.now, self.caller.start)
    }

    pub(super) fn data(&self, sequence: u32, flags: u32) -> Vec<u8> {
        let header = Header {
            word0: sequence,
            word1: POSITION | flags,
            timestamp: self.clock(),
            destination: LISTENER,
        };
        let mut out = [0; 64];
        let mut writer = Writer::packet(&mut out, header);
        writer.bytes(b"payload");
        let len = writer.finish();
        out[..len].to_vec()
    }

    pub(super) fn control(&self, control: Control, word1: u32, words: &[u32]) -> Vec<u8> {
        let header = Header {
            word0: control.word0(),
            word1,
            timestamp: self.clock(),
            destination: LISTENER,
        };
        let mut out = [0; 1500];
        let mut writer = Writer::packet(&mut out, header);
        words.iter().for_each(|word| writer.u32(*word));
        let len = writer.finish();
        out[..len].to_vec()
    }
}

pub(super) const POSITION: u32 = 0b11 << 30 | 1;

/// A pair over a clean path, connected; numbers begin at 1000.
pub(super) fn connected(config: Config) -> Pair {
    let mut pair = Pair::new(1, CLEAN, 1000, config);
    pair.connect();
    pair
}
