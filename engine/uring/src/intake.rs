//! From a filled buffer to datagrams: what the reactor does with each completion that brought
//! something. It is the first stage of the hot path and knows no kernel, so that the benchmark
//! that counts the shard's instructions (`engine/shard/examples/shard_cost.rs`) can feed it
//! buffers as the kernel fills them.

use std::net::IpAddr;

use crate::address::Local;
use crate::clock::Clock;
use crate::config::{Datagram, SocketCounters};
use crate::message::{self, Message};

#[derive(Clone, Copy, Debug, Default)]
struct SocketState {
    counters: SocketCounters,
    last_drops: u32,
    /// Where packet info is not needed to know it.
    own_address: Local,
}

/// Takes buffers apart and keeps the sockets' counts.
#[derive(Debug, Default)]
pub struct Intake {
    states: Vec<SocketState>,
    pub(crate) clock: Clock,
}

impl Intake {
    /// For one socket per entry, each with its own address where packet info is not needed to
    /// know it.
    pub fn new(own_addresses: impl IntoIterator<Item = Option<IpAddr>>) -> Self {
        let state = |own_address: Option<IpAddr>| SocketState {
            own_address: own_address.into(),
            ..SocketState::default()
        };
        Intake {
            states: own_addresses.into_iter().map(state).collect(),
            clock: Clock::default(),
        }
    }

    /// Socket `index` is another now, or one more.
    pub(crate) fn set_socket(&mut self, index: usize, own_address: Option<IpAddr>) {
        let state = SocketState {
            own_address: own_address.into(),
            ..SocketState::default()
        };
        match self.states.get_mut(index) {
            Some(place) => *place = state,
            None => self.states.push(state),
        }
    }

    /// Sets the clocks by hand: the monotonic clock shows `now_ns`, and CLOCK_REALTIME is ahead
    /// of it by `offset_ns`. The reactor reads them instead.
    pub const fn set_clocks(&mut self, now_ns: u64, offset_ns: u64) {
        self.clock = Clock::at(now_ns, offset_ns);
    }

    /// Hands over what `buffer` holds, segment by segment: what multishot `recvmsg` left in a
    /// provided buffer, `io_uring_recvmsg_out` first. Returns the number of datagrams.
    #[inline]
    pub fn take(
        &mut self,
        socket: usize,
        buffer: &[u8],
        handle: &mut impl FnMut(Datagram<'_>),
    ) -> usize {
        let Some(state) = self.states.get_mut(socket) else {
            return 0;
        };
        let Some((header, payload)) = buffer.split_first_chunk() else {
            return 0;
        };
        let Some(usual) = message::parse_usual(header) else {
            return take_other(socket, state, buffer, &self.clock, handle);
        };
        state.counters.datagrams += 1;
        state.counters.bytes += payload.len() as u64;
        handle(Datagram {
            socket,
            peer: usual.peer,
            local: usual.local,
            arrival: self.clock.arrival(usual.timestamp_ns),
            payload,
            truncated: false,
        });
        1
    }

    /// Figures of socket `index`; zeros for an index that is none.
    pub(crate) fn counters(&self, index: usize) -> SocketCounters {
        self.states
            .get(index)
            .map(|state| state.counters)
            .unwrap_or_default()
    }
}

/// A datagram that brings more or less than the usual.
#[inline(never)]
fn take_other(
    socket: usize,
    state: &mut SocketState,
    buffer: &[u8],
    clock: &Clock,
    handle: &mut impl FnMut(Datagram<'_>),
) -> usize {
    message::parse(buffer).map_or(0, |message| deliver(socket, state, &message, clock, handle))
}

/// Counts a message and hands it over, segment by segment.
fn deliver(
    socket: usize,
    state: &mut SocketState,
    message: &Message<'_>,
    clock: &Clock,
    handle: &mut impl FnMut(Datagram<'_>),
) -> usize {
    let local = message.local.or(state.own_address);
    let counters = &mut state.counters;
    if let Some(drops) = message.drops {
        // The kernel counts in 32 bits and wraps.
        counters.kernel_drops += u64::from(drops.wrapping_sub(state.last_drops));
        state.last_drops = drops;
    }
    counters.bytes += message.payload.len() as u64;
    counters.truncated += u64::from(message.truncated);
    let datagram = |payload, truncated| Datagram {
        socket,
        peer: message.peer,
        local,
        arrival: clock.arrival(message.timestamp_ns),
        payload,
        truncated,
    };
    if message.segment == 0 || message.payload.len() <= message.segment {
        counters.datagrams += 1;
        handle(datagram(message.payload, message.truncated));
        return 1;
    }
    let segments = message.payload.chunks(message.segment);
    let count = segments.len();
    counters.datagrams += count as u64;
    for (at, segment) in segments.enumerate() {
        handle(datagram(segment, message.truncated && at + 1 == count));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Peer;

    #[test]
    fn segments_are_handed_out_one_by_one_and_drop_counts_may_wrap() {
        let mut state = SocketState {
            last_drops: u32::MAX - 1,
            ..SocketState::default()
        };
        let payload: Vec<u8> = (0..10).collect();
        let message = Message {
            peer: Peer::v4([10, 0, 0, 1], 1),
            local: Local::UNKNOWN,
            timestamp_ns: 0,
            drops: Some(3),
            segment: 4,
            payload: &payload,
            truncated: true,
        };
        let mut seen = Vec::new();
        let count = deliver(
            5,
            &mut state,
            &message,
            &Clock::default(),
            &mut |datagram| {
                seen.push((
                    datagram.socket,
                    datagram.payload.to_vec(),
                    datagram.truncated,
                ));
            },
        );
        assert_eq!(count, 3);
        assert_eq!(
            seen,
            [
                (5, vec![0, 1, 2, 3], false),
                (5, vec![4, 5, 6, 7], false),
                (5, vec![8, 9], true)
            ]
        );
        assert_eq!((state.counters.datagrams, state.counters.bytes), (3, 10));
        assert_eq!(
            (state.counters.kernel_drops, state.counters.truncated),
            (5, 1)
        );
    }
}
