//! Commands of control, draining, and the snapshots that go up once a second.

use mirror_base::{Instant, StreamId};
use mirror_stream::report::{
    Command, EndReason, Event, ShardSnapshot, SocketSnapshot, StreamSnapshot,
};

use crate::arena::Key;
use crate::driver::{Clock, Driver};
use crate::shard::{Core, Draining, Turn};

/// After a drain, events that control is slow to take are tried for so long.
const LAST_EVENTS: core::time::Duration = core::time::Duration::from_secs(1);

impl<C: Clock> Core<C> {
    /// Does what control asks.
    pub(crate) fn command<D: Driver>(&mut self, command: Command, driver: &mut D) {
        match command {
            Command::Authorised { ticket, decision } => self.authorised(ticket, decision, driver),
            Command::Call(request) => self.call(*request, driver),
            Command::CallKeys {
                stream_id,
                ticket,
                number,
                decision,
            } => self.answer_keys(&stream_id, ticket, number, decision),
            Command::Terminate { stream_id, reason } => self.terminate(&stream_id, reason, driver),
            Command::Pause(id) => self.set_paused(&id, true),
            Command::Resume(id) => self.set_paused(&id, false),
            Command::Snapshot { reply } => {
                let snapshot = Box::new(self.snapshot(driver));
                // Whoever asked may have given up; then nobody misses the answer.
                let _ = reply.try_send(snapshot);
            }
            Command::Latency {
                stream_id,
                reset,
                reply,
            } => {
                let _ = reply.try_send(self.latency_set(stream_id.as_ref(), reset));
            }
            Command::OpenSession { plan, reply } => {
                let _ = reply.try_send(self.open_session(*plan, driver));
            }
            Command::Drain { within } => self.start_drain(self.now + within),
        }
    }

    fn terminate<D: Driver>(&mut self, id: &StreamId, reason: EndReason, driver: &mut D) {
        self.cancel_call(id);
        let Some(&stream) = self.by_id.get(id) else {
            return;
        };
        let session = self.streams.get(stream).and_then(|entry| entry.session);
        match session {
            Some(key) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    // Stronger than whatever the session was ending for.
                    session.end = Some(reason);
                }
                self.close_now(key, reason, driver);
            }
            None => self.terminate_waiting(stream, reason),
        }
        // A reason that would leave the stream waiting does not hold for an operator's order.
        if let Some(&stream) = self.by_id.get(id) {
            self.terminate_waiting(stream, reason);
        }
    }

    fn set_paused(&mut self, id: &StreamId, paused: bool) {
        let Some(&key) = self.by_id.get(id) else {
            return;
        };
        let now = self.now;
        if let Some(entry) = self.streams.get_mut(key) {
            entry.stream.set_paused(now, paused);
            if entry.stream.take_changed() && entry.announced {
                self.report_change(key);
            }
        }
    }

    fn latency_set(
        &mut self,
        stream_id: Option<&StreamId>,
        reset: bool,
    ) -> Option<Box<mirror_stream::report::LatencySet>> {
        let now = self.now;
        let Some(id) = stream_id else {
            let latency = &mut self.latency;
            self.streams
                .for_each_mut(|entry| entry.stream.settle_latency(now, latency));
            let set = Box::new(self.latency.to_set());
            if reset {
                self.latency.reset();
            }
            return Some(set);
        };
        let key = *self.by_id.get(id)?;
        let entry = self.streams.get_mut(key)?;
        entry.stream.settle_latency(now, &mut self.latency);
        let set = Box::new(entry.stream.latency().to_set());
        if reset {
            entry.stream.reset_latency();
        }
        Some(set)
    }

    /// Stops accepting and tells every peer; what is held is still delivered.
    fn start_drain(&mut self, deadline: Instant) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(Draining { deadline });
        self.refuse_pending();
        self.cancel_calls();
        let now = self.now;
        for key in self.session_keys() {
            if let Some(session) = self.sessions.get_mut(key) {
                session.end.get_or_insert(EndReason::Drain);
                session.proto.close(now);
                self.touch(key);
            }
        }
    }

    fn session_keys(&self) -> Vec<Key> {
        self.sessions.iter().map(|(key, _)| key).collect()
    }

    /// Whether the drain is complete; ends by force what is left at its deadline.
    pub(crate) fn finish_drain<D: Driver>(&mut self, driver: &mut D) -> Turn {
        let Some(Draining { deadline }) = self.draining else {
            return Turn::Running;
        };
        if self.sessions.len() > 0 {
            if self.now < deadline {
                return Turn::Running;
            }
            for key in self.session_keys() {
                self.close_now(key, EndReason::Drain, driver);
            }
        }
        let waiting: Vec<Key> = self.streams.iter().map(|(key, _)| key).collect();
        for key in waiting {
            self.terminate_waiting(key, EndReason::Drain);
        }
        self.outbox.empty_into(driver);
        driver.flush();
        self.events.retry();
        if self.events.waits() && self.now < deadline + LAST_EVENTS {
            return Turn::Running;
        }
        self.events.must(Event::Stopped {
            shard: self.id,
            error: None,
        });
        self.events.retry();
        Turn::Finished
    }

    /// Sends a snapshot up, as once a second.
    pub(crate) fn send_snapshot<D: Driver>(&mut self, driver: &D) {
        let snapshot = Box::new(self.snapshot(driver));
        self.events.may(Event::Snapshot(snapshot));
    }

    fn snapshot<D: Driver>(&mut self, driver: &D) -> ShardSnapshot {
        let streams = self.stream_snapshots();
        let ring = driver.counters();
        let mut counters = self.counters.clone();
        counters.wakeups = ring.wakeups;
        counters.enters = ring.enters;
        counters.datagrams_sent = ring.datagrams_sent;
        counters.send_errors = ring.send_errors + self.outbox.dropped();
        counters.send_calls = ring.send_calls;
        counters.super_packets = ring.super_packets;
        counters.rearms = ring.rearms;
        counters.cq_overflows = ring.cq_overflows;
        counters.events_dropped = self.events.dropped();
        counters.discards = self.discards.clone();
        let sockets: Vec<SocketSnapshot> = (0..driver.sockets())
            .map(|index| {
                let facts = driver.socket(index);
                counters.datagrams_received += facts.datagrams;
                SocketSnapshot {
                    role: self.roles.get(index).map_or("other", |role| role.name()),
                    local: facts.local,
                    receive_buffer: facts.receive_buffer,
                    datagrams: facts.datagrams,
                    bytes: facts.bytes,
                    kernel_drops: facts.kernel_drops,
                }
            })
            .collect();
        ShardSnapshot {
            shard: self.id,
            core: self.config.shards.get(self.id.index()).and_then(|p| p.core),
            at: self.now,
            cpu_ns: driver.cpu_ns(),
            sessions: self.sessions.len() as u64,
            handshakes_pending: self.pending.len() as u64,
            calls_pending: self.calls.len() as u64,
            pool_chunks: self.pool.chunks() as u64,
            pool_free: self.pool.free() as u64,
            counters,
            sockets,
            streams,
        }
    }

    fn stream_snapshots(&mut self) -> Vec<StreamSnapshot> {
        let now = self.now;
        let Core {
            sessions,
            streams,
            pool,
            latency,
            ..
        } = self;
        let mut snapshots = Vec::with_capacity(streams.len());
        for index in 0..streams.places() as u32 {
            let Some((_, entry)) = streams.at_mut(index) else {
                continue;
            };
            if !entry.announced {
                continue;
            }
            let session = entry.session.and_then(|key| sessions.get(key));
            if let Some(session) = session {
                entry
                    .stream
                    .set_session_statistics(now, session.proto.statistics(now));
            }
            entry.promise(pool);
            entry.stream.settle_latency_in_time(now, latency);
            let mut snapshot = entry.stream.snapshot();
            if let Some(session) = session {
                snapshot.stats.latency_ms = session.proto.latency().as_millis() as u32;
            }
            snapshots.push(snapshot);
        }
        snapshots
    }
}
