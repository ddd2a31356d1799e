//! From a filled buffer to datagrams: what the reactor does with each completion that brought
//! something. It is the first stage of the hot path and knows no kernel, so that the benchmark
//! that counts the shard's instructions (`engine/shard/examples/shard_cost.rs`) can feed it
//! buffers as the kernel fills them.

use std::net::IpAddr;

use crate::address::Local;
use crate::clock::Clock;
use crate::config::{Datagram, Sink, SocketCounters};
use crate::message::{self, HEADER_BYTES, Message};
use crate::origin::Origin;

/// Buffers taken on one reading of the clock.
const CLOCK_EVERY: u32 = 8;
/// The least that a usual datagram has: a header of SRT's, or more than one of RTP's.
const SHORTEST: usize = 16;
/// And the most: a header and a slot of a stream's ring, more than an MTU of 1500 bytes brings.
const LONGEST: usize = 16 + mirror_base::SLOT_BYTES;

#[derive(Clone, Copy, Debug, Default)]
struct SocketState {
    counters: SocketCounters,
    /// Lengths of name and control messages of the usual datagram, once one has come: behind the
    /// same lengths lie the same messages, since a socket's options stay as they are.
    usual: message::Lengths,
    /// The same of one that tells the drop count, or a segment's size, which is as long.
    counted: message::Lengths,
    last_drops: u32,
    /// Where packet info is not needed to know it.
    own_address: Local,
}

impl SocketState {
    /// The kernel told the drop count, which has 32 bits and wraps.
    #[inline]
    fn count_drops(&mut self, drops: u32) {
        self.counters.kernel_drops += u64::from(drops.wrapping_sub(self.last_drops));
        self.last_drops = drops;
    }

    /// Counts all of a message.
    fn count(&mut self, message: &Message<'_>) {
        if let Some(drops) = message.drops {
            self.count_drops(drops);
        }
        self.counters.bytes += message.payload.len() as u64;
        self.counters.truncated += u64::from(message.truncated);
        let segments = match message.segment {
            0 => 1,
            segment => message.payload.len().div_ceil(segment).max(1),
        };
        self.counters.datagrams += segments as u64;
    }
}

/// Takes buffers apart and keeps the sockets' counts.
#[derive(Debug, Default)]
pub struct Intake {
    states: Vec<SocketState>,
    /// Datagrams beyond one for each buffer.
    more: usize,
    /// The datagram at hand is left for the general way: told here, and by no answer of the sink,
    /// so that nothing follows its copy of one that it took.
    left: bool,
    clock: Clock,
    /// With so many buffers more it is read again; 0: never, it is set by hand.
    clock_left: u32,
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
            more: 0,
            left: false,
            clock: Clock::default(),
            clock_left: 0,
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
        self.clock_left = 0;
    }

    /// Reads both clocks: once a turn.
    pub(crate) fn sample_clocks(&mut self) {
        self.clock.sample();
        self.clock_left = CLOCK_EVERY;
    }

    /// Reads the monotonic clock: what is handed over is then as old as it says, but for a few µs,
    /// at an eighth of the price.
    #[inline(never)]
    pub(crate) fn read_clock(&mut self) {
        self.clock.refresh();
        self.clock_left = CLOCK_EVERY;
    }

    /// Hands over what `buffer` holds, segment by segment: what multishot `recvmsg` left in a
    /// provided buffer, `io_uring_recvmsg_out` first.
    #[inline(always)]
    pub fn take(&mut self, socket: usize, buffer: &[u8], sink: &mut impl Sink) {
        self.clock_left = self.clock_left.wrapping_sub(1);
        if self.clock_left == 0 {
            self.read_clock();
        }
        self.take_apart(socket, sink, buffer);
        if self.left {
            self.left = false;
            self.take_unusual(socket, buffer, sink);
        }
    }

    /// A function of its own, whose last step is the sink's copy of a usual datagram: nothing is
    /// kept over that, and what is not usual ([`Intake::left`]) is read once more.
    #[inline(never)]
    fn take_apart(&mut self, socket: usize, sink: &mut impl Sink, buffer: &[u8]) {
        let Some(state) = self.states.get_mut(socket) else {
            return;
        };
        // No question about lengths is behind this one.
        if !(HEADER_BYTES + SHORTEST..=HEADER_BYTES + LONGEST).contains(&buffer.len()) {
            return self.take_counted(socket, sink, buffer);
        }
        let Some((header, payload)) = buffer.split_first_chunk() else {
            return;
        };
        if state.usual != message::lengths(header) || message::is_truncated(header) {
            return self.take_counted(socket, sink, buffer);
        }
        state.counters.datagrams += 1;
        state.counters.bytes += payload.len() as u64;
        let (arrival, age_ns) = self.clock.arrival(message::first_timestamp(header));
        let usual = Datagram {
            socket,
            origin: Origin::new(header, &state.own_address),
            arrival,
            age_ns,
            payload,
            truncated: false,
        };
        sink.take_usual(usual, &mut self.left);
    }

    /// [`Intake::take`] of a datagram that tells the socket's drop count, as all do behind the first
    /// loss: the same steps once more, so that those of a socket without loss stay as few.
    #[inline(never)]
    fn take_counted(&mut self, socket: usize, sink: &mut impl Sink, buffer: &[u8]) {
        let Some(state) = self.states.get_mut(socket) else {
            return;
        };
        if !(HEADER_BYTES + SHORTEST..=HEADER_BYTES + LONGEST).contains(&buffer.len()) {
            return self.take_new(socket, sink, buffer);
        }
        let Some((header, payload)) = buffer.split_first_chunk() else {
            return;
        };
        if state.counted != message::lengths(header) || message::is_truncated(header) {
            return self.take_new(socket, sink, buffer);
        }
        let Some(drops) = message::drops_behind_timestamp(header) else {
            return self.take_new(socket, sink, buffer);
        };
        state.count_drops(drops);
        state.counters.datagrams += 1;
        state.counters.bytes += payload.len() as u64;
        let (arrival, age_ns) = self.clock.arrival(message::first_timestamp(header));
        let usual = Datagram {
            socket,
            origin: Origin::new(header, &state.own_address),
            arrival,
            age_ns,
            payload,
            truncated: false,
        };
        sink.take_usual(usual, &mut self.left);
    }

    /// Any datagram. One that is like those to come, as far as its messages go, makes their lengths
    /// known, and is left for [`Intake::take_unusual`].
    #[inline(never)]
    fn take_new(&mut self, socket: usize, sink: &mut impl Sink, buffer: &[u8]) {
        let Some(state) = self.states.get_mut(socket) else {
            return;
        };
        let Some((header, payload)) = buffer.split_first_chunk() else {
            return;
        };
        if let Some(drops) = message::counted(header) {
            state.counted = message::lengths(header);
            state.count_drops(drops);
        } else if message::is_usual(header) {
            state.usual = message::lengths(header);
        } else {
            let handed = take_other(socket, state, header, payload, &self.clock, sink);
            self.more += handed.saturating_sub(1);
            return;
        }
        state.counters.datagrams += 1;
        state.counters.bytes += payload.len() as u64;
        self.left = true;
    }

    /// What was left, counted already.
    #[inline(never)]
    fn take_unusual(&self, socket: usize, buffer: &[u8], sink: &mut impl Sink) {
        let Some(state) = self.states.get(socket) else {
            return;
        };
        let Some((header, payload)) = buffer.split_first_chunk() else {
            return;
        };
        let (arrival, age_ns) = self.clock.arrival(message::first_timestamp(header));
        sink.take_unusual(Datagram {
            socket,
            origin: Origin::new(header, &state.own_address),
            arrival,
            age_ns,
            payload,
            truncated: false,
        });
    }

    /// Datagrams handed over so far beyond one for each buffer.
    pub(crate) const fn more(&self) -> usize {
        self.more
    }

    /// Figures of socket `index`; zeros for an index that is none.
    pub(crate) fn counters(&self, index: usize) -> SocketCounters {
        self.states
            .get(index)
            .map(|state| state.counters)
            .unwrap_or_default()
    }
}

/// A datagram that brings more or less than the usual: of a GRO super-packet all of its segments,
/// each of which goes its shortest way from here.
#[inline(never)]
fn take_other(
    socket: usize,
    state: &mut SocketState,
    header: &[u8; HEADER_BYTES],
    payload: &[u8],
    clock: &Clock,
    sink: &mut impl Sink,
) -> usize {
    let Some(message) = message::read(header, payload) else {
        return 0;
    };
    state.count(&message);
    let origin = Origin::new(header, &state.own_address);
    let (arrival, age_ns) = clock.arrival_or_now(message.timestamp_ns);
    each_segment(&message, &mut |payload, truncated| {
        sink.take(Datagram {
            socket,
            origin,
            arrival,
            age_ns,
            payload,
            truncated,
        });
    })
}

/// Hands out the segments of a super-packet, or the one datagram that it is; the last one bears
/// the mark that something is missing. Returns how many they were.
fn each_segment(message: &Message<'_>, handle: &mut impl FnMut(&[u8], bool)) -> usize {
    if message.segment == 0 || message.payload.len() <= message.segment {
        handle(message.payload, message.truncated);
        return 1;
    }
    let segments = message.payload.chunks(message.segment);
    let count = segments.len();
    for (at, segment) in segments.enumerate() {
        handle(segment, message.truncated && at + 1 == count);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Peer;
    use crate::message::tests::datagram;

    /// Notes on which of the ways a datagram came.
    #[derive(Default)]
    struct Ways {
        taken: Vec<(&'static str, u64)>,
        leaves: bool,
    }

    impl Sink for Ways {
        fn take(&mut self, datagram: Datagram<'_>) {
            self.taken.push(("general", datagram.arrival.as_nanos()));
        }

        fn take_usual(&mut self, datagram: Datagram<'_>, left: &mut bool) {
            if !self.leaves {
                self.taken.push(("short", datagram.arrival.as_nanos()));
            }
            *left = self.leaves;
        }

        fn take_unusual(&mut self, datagram: Datagram<'_>) {
            self.taken.push(("left", datagram.arrival.as_nanos()));
        }
    }

    #[test]
    fn what_a_socket_brings_after_it_lost_datagrams_takes_the_short_way_and_is_counted() {
        let mut intake = Intake::new([None]);
        intake.set_clocks(1_000, 0);
        let mut ways = Ways::default();
        let payload = [7; 40];
        for (drops, at) in [(0, 10), (0, 15), (2, 20), (2, 30), (5, 40)] {
            intake.take(0, &datagram(at, drops, &payload), &mut ways);
        }
        ways.leaves = true;
        intake.take(0, &datagram(50, 6, &payload), &mut ways);
        // The first of each kind makes it known.
        let first = [("left", 10), ("short", 15), ("left", 20)];
        assert_eq!(ways.taken[..3], first);
        let more = [("short", 30), ("short", 40), ("left", 50)];
        assert_eq!(ways.taken[3..], more);
        let counters = intake.counters(0);
        assert_eq!((counters.datagrams, counters.bytes), (6, 240));
        assert_eq!((counters.kernel_drops, intake.more()), (6, 0));
    }

    #[test]
    fn what_is_cut_off_or_otherwise_addressed_is_not_taken_for_usual() {
        let payload = [7; 40];
        let mut intake = Intake::new([None]);
        intake.set_clocks(1_000, 0);
        let mut ways = Ways::default();
        let usual = datagram(10, 0, &payload);
        let mut cut = datagram(20, 0, &payload);
        cut[12..16].copy_from_slice(&(libc::MSG_TRUNC as u32).to_ne_bytes());
        // Packet info first, as no kernel writes it: the same lengths before there is a usual one.
        let mut other = datagram(30, 0, &payload);
        other[44..44 + 72].rotate_left(32);
        let mut fresh = Intake::new([None]);
        fresh.set_clocks(1_000, 0);
        fresh.take(0, &other, &mut ways);
        for bytes in [&usual, &usual, &cut, &usual] {
            intake.take(0, bytes, &mut ways);
        }
        let (first, short) = (("left", 10), ("short", 10));
        let all = [("general", 30), first, short, ("general", 20), short];
        assert_eq!(ways.taken, all);
        // Another socket has this index now.
        intake.set_socket(0, None);
        intake.take(0, &other, &mut ways);
        assert_eq!(ways.taken[5..], [("general", 30)]);
        assert_eq!(intake.counters(0).datagrams, 1);
    }

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
        state.count(&message);
        let segments = each_segment(&message, &mut |payload, truncated| {
            seen.push((payload.to_vec(), truncated));
        });
        assert_eq!(segments, 3);
        assert_eq!(
            seen,
            [
                (vec![0, 1, 2, 3], false),
                (vec![4, 5, 6, 7], false),
                (vec![8, 9], true)
            ]
        );
        assert_eq!((state.counters.datagrams, state.counters.bytes), (3, 10));
        assert_eq!(
            (state.counters.kernel_drops, state.counters.truncated),
            (5, 1)
        );
    }
}
