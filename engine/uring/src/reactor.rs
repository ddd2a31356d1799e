//! The ring of one shard (design D1, D2): multishot `recvmsg` on every socket into one small
//! buffer ring, wakes coalesced by `min_wait`, sends batched. `shard`'s loop is its only caller
//! in production: `wait`, `reap`, handle, `send`, `flush`; `loadtest` runs its senders on it.
//!
//! What the kernel side needs to know: with `DEFER_TASKRUN` nothing is received unless this
//! thread enters with GETEVENTS; one enter receives at most 32 datagrams of a socket; `want`
//! does not count datagrams of one multishot, so it is always paired with a time.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, types};
use mirror_base::Instant;

use crate::buffers::BufferRing;
use crate::clock;
use crate::config::{
    Calling, Datagram, ReactorConfig, ReactorCounters, SQ_ENTRIES, Sink, SocketCounters,
    check_config,
};
use crate::intake::Intake;
use crate::message::{CONTROL_BYTES, NAME_BYTES};
use crate::probe::SetupError;
use crate::send::SendQueue;
use crate::socket::UdpSocket;
use crate::sys::{self, EnterArgs, KernelTimespec};
use crate::wait::{Dial, Plan, Waiting, plan};
use crate::waker::Waker;

const BUFFER_GROUP: u16 = 0;
const WAKER: u64 = u64::MAX;
/// A drain of fewer completions than this cannot have left work behind in the kernel, which
/// handles at least 20 ready sockets, or 32 datagrams of one, an enter.
const MAY_BE_MORE: usize = 20;
/// One reap hands out no more than about this, and enters no more often than that, so that
/// timers and outputs get their turn under any flood. The rest stays in the sockets' buffers.
const REAP_DATAGRAMS: usize = 1024;
const REAP_ENTERS: usize = 64;
/// Added to a socket's token when its place is given up.
const GENERATION: u64 = 1 << 32;
/// Milliseconds that setting up a ring waits for memory.
const NO_MEMORY_RETRIES: usize = 300;
/// Buffers are shown to the kernel in batches of this size.
const PUBLISH_BATCH: usize = 32;

/// The ring of one shard: the `Driver` of production. Not Send; made on the shard's thread.
pub struct Reactor {
    // Dropped first: the kernel must let go of the buffers before they are unmapped.
    ring: IoUring,
    registered_ring: Option<u32>,
    buffers: BufferRing,
    header: Box<libc::msghdr>,
    sockets: Vec<UdpSocket>,
    /// What the receive of each socket is known by to the kernel: its number, and above it how
    /// often its place was given to another, so that a late completion of a closed one is told.
    tokens: Vec<u64>,
    intake: Intake,
    /// Sockets whose receive ended; as large as all of them.
    rearm: Vec<u32>,
    waker: Waker,
    /// The waker's place among the registered files, behind all sockets.
    waker_file: u32,
    waker_ended: bool,
    queue: SendQueue,
    counters: ReactorCounters,
    min_wait: Duration,
    dial: Dial,
    coalesces_in_kernel: bool,
    enter_flags: u32,
    /// The kernel was entered since the last reap.
    entered: bool,
    /// The last reap stopped before it had all.
    behind: bool,
    /// The last reap found datagrams.
    busy: bool,
    refused: Option<i32>,
    _this_thread_only: PhantomData<*const ()>,
}

impl Reactor {
    /// Sets up the ring, registers the sockets and arms their receives.
    ///
    /// # Errors
    /// [`SetupError`]: what the host lacks, or what in `config` makes no ring.
    pub fn new(config: ReactorConfig, sockets: Vec<UdpSocket>) -> Result<Self, SetupError> {
        check_config(&config, sockets.len())?;
        let waker = Waker::new()
            .map_err(|source| SetupError::step("make an eventfd", "eventfd", "2.6.27", source))?;
        let ring = build_ring(config.cq_entries)?;
        let buffers = BufferRing::new(config.buffers, config.buffer_bytes).map_err(|source| {
            SetupError::step("map the receive buffers", "MAP_POPULATE", "2.6.23", source)
        })?;
        register(&ring, &buffers, &config, &sockets, &waker)?;
        if !config.busy_poll.is_zero() {
            let micros = u32::try_from(config.busy_poll.as_micros()).unwrap_or(u32::MAX);
            sys::register_napi(ring.as_raw_fd(), micros).map_err(|source| {
                SetupError::step(
                    "poll NIC queues (busy_poll)",
                    "IORING_REGISTER_NAPI",
                    "6.9",
                    source,
                )
            })?;
        }
        let registered_ring = sys::register_ring(ring.as_raw_fd()).ok();
        // SAFETY: a msghdr of zeros is an empty message.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_namelen = NAME_BYTES as libc::socklen_t;
        header.msg_controllen = CONTROL_BYTES;
        let no_iowait = if ring.params().is_feature_no_iowait() {
            sys::ENTER_NO_IOWAIT
        } else {
            0
        };
        let mut reactor = Reactor {
            registered_ring,
            buffers,
            header,
            intake: Intake::new(sockets.iter().map(UdpSocket::own_address)),
            rearm: (0..sockets.len() as u32).collect(),
            tokens: (0..sockets.len() as u64).collect(),
            dial: Dial::new(config.min_wait, &sockets),
            waker_file: (sockets.len() + config.spare_sockets) as u32,
            queue: SendQueue::new(config.send_batch, sockets.iter().all(UdpSocket::segments)),
            min_wait: config.min_wait,
            sockets,
            waker,
            waker_ended: true,
            counters: ReactorCounters::default(),
            coalesces_in_kernel: ring.params().is_feature_min_timeout(),
            enter_flags: no_iowait,
            ring,
            entered: false,
            behind: false,
            busy: false,
            refused: None,
            _this_thread_only: PhantomData,
        };
        reactor.arm();
        reactor.enter(0, None).map_err(|source| {
            SetupError::step("enter the ring", "IORING_ENTER_EXT_ARG", "5.11", source)
        })?;
        reactor.counters = ReactorCounters::default();
        Ok(reactor)
    }

    /// Wakes this reactor.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Reads the clock.
    #[inline]
    pub fn now(&self) -> Instant {
        clock::monotonic()
    }

    /// Takes one more socket in and arms its receive; returns its index. There is room for
    /// [`ReactorConfig::spare_sockets`]; the place of a closed one is taken first.
    ///
    /// # Errors
    /// [`SetupError`]: no room is left, or what the kernel refused.
    pub fn add_socket(&mut self, socket: UdpSocket) -> Result<usize, SetupError> {
        let closed = self.sockets.iter().position(UdpSocket::is_closed);
        let index = closed.unwrap_or(self.sockets.len());
        if index as u32 >= self.waker_file {
            return Err(SetupError::Config {
                name: "sockets",
                value: index + 1,
                allowed: "as many as at the start and `spare_sockets`",
            });
        }
        self.register_file(index, socket.as_raw_fd())?;
        self.intake.set_socket(index, socket.own_address());
        match self.sockets.get_mut(index) {
            Some(place) => *place = socket,
            None => {
                self.sockets.push(socket);
                self.tokens.push(index as u64);
            }
        }
        self.dial = Dial::new(self.min_wait, &self.sockets);
        self.rearm.push(index as u32);
        self.arm();
        Ok(index)
    }

    /// Closes socket `index`: what is queued for sending leaves first, what has arrived and was
    /// not handed over is lost. Its counters stay until its place is taken.
    pub fn close_socket(&mut self, index: usize) {
        self.flush();
        let (Some(socket), Some(token)) = (self.sockets.get_mut(index), self.tokens.get_mut(index))
        else {
            return;
        };
        if socket.is_closed() {
            return;
        }
        self.rearm.retain(|waiting| *waiting as usize != index);
        let receive = types::CancelBuilder::user_data(*token).all();
        *token += GENERATION;
        socket.close();
        let limit = types::Timespec::new().sec(1);
        let submitter = self.ring.submitter();
        let _ = submitter.register_sync_cancel(Some(limit), receive);
        // The table holds the file, and with it the port, for as long as it stands there.
        let _ = self.register_file(index, -1);
        // Task work that is still due lets go of the file: then the port is free.
        let _ = self.enter(0, None);
        self.dial = Dial::new(self.min_wait, &self.sockets);
    }

    fn register_file(&self, index: usize, fd: i32) -> Result<(), SetupError> {
        let submitter = self.ring.submitter();
        let outcome = submitter.register_files_update(index as u32, &[fd]);
        outcome.map(drop).map_err(|source| {
            let feature = "IORING_REGISTER_FILES_UPDATE";
            SetupError::step("register one more socket", feature, "5.5", source)
        })
    }

    /// Its sockets.
    pub fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// Kernel drops of socket `index` (SO_RXQ_OVFL), datagrams and bytes received on it. Zeros
    /// for an index that is none.
    pub fn socket_counters(&self, index: usize) -> SocketCounters {
        self.intake.counters(index)
    }

    /// Figures.
    pub fn counters(&self) -> ReactorCounters {
        let sent = self.queue.counters;
        ReactorCounters {
            send_calls: sent.calls,
            datagrams_sent: sent.datagrams,
            super_packets: sent.super_packets,
            send_errors: sent.errors,
            ..self.counters
        }
    }

    /// The wake coalescing that is in force: what was configured, capped by what the smallest
    /// receive buffer can take meanwhile.
    pub fn min_wait(&self) -> Duration {
        Duration::from_micros(self.dial.usual_us.into())
    }

    /// Whether the kernel coalesces wakes itself (`min_wait`, Linux 6.12); see [`Reactor::wait`]
    /// for what happens where it does not.
    pub fn coalesces_in_kernel(&self) -> bool {
        self.coalesces_in_kernel
    }

    /// Whether the waker fired since the last call.
    #[inline]
    pub fn take_woken(&mut self) -> bool {
        self.waker.take()
    }

    /// Queues one datagram (copied); flushes by itself when the batch is full. `local` is the
    /// source address to use on a wildcard-bound socket. Never blocks, never fails: what the
    /// kernel refuses is counted.
    #[inline]
    pub fn send(&mut self, socket: usize, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
        self.queue.push(&self.sockets, socket, peer, local, bytes);
    }

    /// Sends `bytes` at once as datagrams of `segment_size` bytes (the last may be shorter), by
    /// `UDP_SEGMENT` where the path allows it. What was queued leaves first.
    pub fn send_segments(
        &mut self,
        socket: usize,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        segment_size: usize,
    ) {
        self.queue
            .send_segments(&self.sockets, socket, peer, local, bytes, segment_size);
    }

    /// Sends what is queued (sendmmsg).
    #[inline]
    pub fn flush(&mut self) {
        self.queue.flush(&self.sockets);
    }

    /// Hands over what has arrived; returns the number of datagrams. Also refreshes the
    /// REALTIME→monotonic offset once a call.
    ///
    /// Under a flood it stops after about a thousand, and the next [`Reactor::wait`] does not
    /// block. A panic of `handle` passes through: the datagram at hand is gone, the others come
    /// with the next call.
    #[inline]
    pub fn reap(&mut self, handle: &mut impl FnMut(Datagram<'_>)) -> usize {
        self.reap_into(&mut Calling(handle))
    }

    /// [`Reactor::reap`] for a sink.
    pub fn reap_into(&mut self, sink: &mut impl Sink) -> usize {
        if !self.entered {
            // Called without a wait: let the kernel deliver first.
            self.arm();
            let _ = self.enter(0, None);
        }
        self.entered = false;
        self.behind = false;
        self.intake.sample_clocks();
        let mut datagrams = 0;
        let mut enters = 0;
        loop {
            let drained = self.drain(sink);
            datagrams += drained.datagrams;
            let overflowed = self.ring.submission().cq_overflow();
            self.counters.cq_overflows += u64::from(overflowed);
            // The kernel's own hint, IORING_SQ_TASKRUN, stays up after work that queued itself
            // again was done in the same enter: it would keep us entering for nothing.
            if !(overflowed || drained.again || drained.completions >= MAY_BE_MORE) {
                break;
            }
            if datagrams >= REAP_DATAGRAMS || enters >= REAP_ENTERS {
                self.behind = true;
                break;
            }
            enters += 1;
            self.arm();
            let _ = self.enter(0, None);
            self.intake.read_clock();
        }
        self.busy = datagrams > 0;
        datagrams
    }

    /// Blocks until something arrives, the waker fires, or `until`; if `until` is past it only
    /// lets the kernel deliver. Honours D1: `min_wait` is capped by the time to `until`, and by
    /// what the receive buffer can take.
    ///
    /// Before Linux 6.12 there is no `min_wait`; then a wait that follows datagrams ends after
    /// `min_wait` by timeout, and a wait that follows silence ends with the first datagram.
    pub fn wait(&mut self, until: Instant) {
        self.wait_for(until, false);
    }

    /// [`wait`](Self::wait) where nothing that may come is handed on before `until`: a wait of up
    /// to twice `min_wait` is not divided then. A wake costs as much as dozens of datagrams.
    pub fn wait_held(&mut self, until: Instant) {
        self.wait_for(until, true);
    }

    fn wait_for(&mut self, until: Instant, held: bool) {
        self.arm();
        let ready = self.behind
            || self.waker.is_raised()
            || !self.ring.completion().is_empty()
            || self.ring.submission().cq_overflow();
        self.entered = true;
        let left = if ready {
            0
        } else {
            until.saturating_since(self.now()).as_nanos()
        };
        // A day is as good as for ever, and fits every type below.
        let left_ns = u64::try_from(left)
            .unwrap_or(u64::MAX)
            .min(86_400_000_000_000);
        let result = if left_ns == 0 {
            self.enter(0, None)
        } else {
            let waiting = Waiting {
                coalesces_in_kernel: self.coalesces_in_kernel,
                busy: self.busy,
                held,
            };
            let plan = plan(left_ns, self.dial, waiting);
            let result = self.enter(plan.want, Some(plan));
            if !self.ring.completion().is_empty() {
                self.counters.wakeups += 1;
            }
            result
        };
        if result.is_err() && left_ns > 0 {
            // A ring that fails must not become a spinning core.
            sys::pause_1_ms();
        }
    }

    /// Takes everything that is in the completion queue.
    fn drain(&mut self, sink: &mut impl Sink) -> Drained {
        let mut drained = Drained::default();
        let (mut unpublished, mut strays) = (0, 0);
        let more_before = self.intake.more();
        for completion in self.ring.completion() {
            drained.completions += 1;
            let (result, flags) = (completion.result(), completion.flags());
            if completion.user_data() == WAKER {
                self.waker_ended |= !cqueue::more(flags);
                continue;
            }
            let token = completion.user_data();
            let socket = token as u32 as usize;
            if self.tokens.get(socket) != Some(&token) {
                // Of a socket that is closed: its buffer is free, and nothing else is left of it.
                if let Some(id) = cqueue::buffer_select(flags) {
                    self.buffers.give_back(id);
                    unpublished += 1;
                    strays += 1;
                }
                continue;
            }
            if !cqueue::more(flags) {
                self.rearm.push(socket as u32);
                self.counters.rearms += 1;
                match -result {
                    libc::ENOBUFS => {
                        self.counters.no_buffers += 1;
                        drained.again = true;
                    }
                    // Left for the next enter that comes anyway: an error that stays (a dead
                    // socket) must not keep us here.
                    errno @ 1.. => {
                        self.counters.receive_errors += 1;
                        self.refused = Some(errno);
                    }
                    // The kernel ends a multishot with an empty datagram.
                    _ => drained.again = true,
                }
            }
            if let Some(id) = cqueue::buffer_select(flags) {
                let length = usize::try_from(result).unwrap_or(0);
                // Queued before it is read, so that a panic of `handle` loses no buffer; the
                // kernel is shown it later.
                self.buffers.give_back(id);
                // SAFETY: the kernel handed buffer `id` out with this completion, and learns
                // that it is free by publish(), after the last use of `buffer`.
                let buffer = unsafe { self.buffers.buffer(id, length) };
                self.intake.take(socket, buffer, sink);
                unpublished += 1;
                if unpublished == PUBLISH_BATCH {
                    self.buffers.publish();
                    drained.datagrams += unpublished;
                    unpublished = 0;
                }
            }
        }
        if unpublished > 0 {
            self.buffers.publish();
            drained.datagrams += unpublished;
        }
        self.counters.completions += drained.completions as u64;
        drained.datagrams = drained.datagrams - strays + self.intake.more() - more_before;
        drained
    }

    /// Queues a receive for each socket that has none, and the waker's poll.
    #[inline]
    fn arm(&mut self) {
        if self.rearm.is_empty() && !self.waker_ended {
            return;
        }
        self.arm_some();
    }

    #[cold]
    fn arm_some(&mut self) {
        while let Some(&socket) = self.rearm.last() {
            let entry = opcode::RecvMsgMulti::new(
                types::Fixed(socket),
                &raw const *self.header,
                BUFFER_GROUP,
            )
            .build()
            .user_data(self.tokens[socket as usize]);
            // SAFETY: the header lives as long as the ring (and is only read at submission), the
            // buffer group is registered, and completions' buffers are handled by drain().
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.rearm.pop();
            } else if self.enter(0, None).is_err() || self.ring.submission().is_full() {
                // What is left waits for the next turn: the kernel may want its completions
                // taken before it accepts more.
                return;
            }
        }
        if self.waker_ended {
            let file = types::Fixed(self.waker_file);
            let entry = opcode::PollAdd::new(file, libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(WAKER);
            // SAFETY: a poll touches no memory of ours.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.waker_ended = false;
            }
        }
    }

    /// Submits what is queued, lets the kernel run its task work, and waits for `want`
    /// completions, if any, by `wait`.
    fn enter(&mut self, want: u32, wait: Option<Plan>) -> io::Result<()> {
        self.counters.enters += 1;
        let submit = self.ring.submission().len() as u32;
        let (fd, registered) = match self.registered_ring {
            Some(index) => (index.cast_signed(), sys::ENTER_REGISTERED_RING),
            None => (self.ring.as_raw_fd(), 0),
        };
        let flags = sys::ENTER_GETEVENTS | self.enter_flags | registered;
        let result = match wait {
            // SAFETY: the queue's entries were checked when they were pushed.
            None => unsafe { sys::ring_enter(fd, submit, want, flags, None) },
            Some(Plan {
                timeout_ns,
                min_wait_us,
                ..
            }) => {
                let timeout = KernelTimespec {
                    seconds: (timeout_ns / 1_000_000_000).cast_signed(),
                    nanoseconds: (timeout_ns % 1_000_000_000).cast_signed(),
                };
                let args = EnterArgs {
                    min_wait_us,
                    timeout: (&raw const timeout).expose_provenance() as u64,
                    ..EnterArgs::default()
                };
                // SAFETY: as above, and `timeout` outlives the call.
                unsafe {
                    sys::ring_enter(fd, submit, want, flags | sys::ENTER_EXT_ARG, Some(&args))
                }
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Timeouts and interruptions; EBUSY and EAGAIN: completions must be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => {
                    self.counters.enter_errors += 1;
                    Err(error)
                }
            },
        }
    }

    /// The error with which the kernel last ended a receive.
    pub(crate) fn refused(&self) -> Option<io::Error> {
        self.refused.map(io::Error::from_raw_os_error)
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("sockets", &self.sockets)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // Closing the ring alone would let its receives, and with them the ports, linger in the
        // kernel until a worker has cancelled them; a registered index would keep the whole ring
        // alive as long as this thread.
        let limit = types::Timespec::new().sec(1);
        let all = types::CancelBuilder::any();
        let _ = self.ring.submitter().register_sync_cancel(Some(limit), all);
        let _ = self.enter(0, None);
        let _ = self.ring.submitter().unregister_files();
        if let Some(index) = self.registered_ring.take() {
            let _ = sys::unregister_ring(self.ring.as_raw_fd(), index);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Drained {
    completions: usize,
    datagrams: usize,
    /// A receive ended that must be armed at once.
    again: bool,
}

/// Sets up a ring. The memory of one that was just closed, by a process before us of the same
/// user, is given back by a kernel worker a moment later: so a lack of it is waited out shortly.
fn build_ring(cq_entries: u32) -> Result<IoUring, SetupError> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_cqsize(cq_entries)
        .setup_clamp()
        .setup_coop_taskrun()
        .setup_single_issuer()
        .setup_defer_taskrun();
    for _ in 0..NO_MEMORY_RETRIES {
        match builder.build(SQ_ENTRIES.min(cq_entries)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => sys::pause_1_ms(),
            result => return result.map_err(setup_failed),
        }
    }
    builder
        .build(SQ_ENTRIES.min(cq_entries))
        .map_err(setup_failed)
}

fn setup_failed(source: io::Error) -> SetupError {
    let feature = "IORING_SETUP_DEFER_TASKRUN of io_uring";
    SetupError::step("set up a ring", feature, "6.1", source)
}

fn register(
    ring: &IoUring,
    buffers: &BufferRing,
    config: &ReactorConfig,
    sockets: &[UdpSocket],
    waker: &Waker,
) -> Result<(), SetupError> {
    let mut files: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    // Free places: -1 registers no file (Linux 5.5).
    files.resize(sockets.len() + config.spare_sockets, -1);
    files.push(waker.event_fd());
    ring.submitter()
        .register_files(&files)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EMFILE) => SetupError::TooManyFiles {
                action: "register the sockets with the ring",
                needed: files.len(),
            },
            _ => SetupError::step(
                "register the sockets",
                "IORING_REGISTER_FILES",
                "5.1",
                source,
            ),
        })?;
    // SAFETY: the entries live in `buffers`, which the reactor drops after the ring.
    unsafe {
        ring.submitter().register_buf_ring_with_flags(
            buffers.address(),
            config.buffers,
            BUFFER_GROUP,
            0,
        )
    }
    .map_err(|source| {
        SetupError::step(
            "register the receive buffers",
            "provided-buffer rings of io_uring",
            "5.19",
            source,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "needs a kernel")]
    fn without_min_wait_wakes_are_coalesced_by_timeout_while_datagrams_come() {
        let address = "127.0.0.1:0".parse().unwrap();
        let socket = UdpSocket::bind_any(address, &crate::SocketOptions::default()).unwrap();
        let to = socket.local_addr();
        let mut reactor = Reactor::new(ReactorConfig::default(), vec![socket]).unwrap();
        reactor.coalesces_in_kernel = false;
        reactor.dial.usual_us = 2_000;
        let sender = std::net::UdpSocket::bind(address).unwrap();
        sender.send_to(b"first", to).unwrap();
        let start = reactor.now();
        reactor.wait(start + std::time::Duration::from_secs(5));
        assert_eq!(reactor.reap(&mut |_| ()), 1);
        assert!(
            reactor.now().micros_since(start) < 4_000_000,
            "the first ends the wait"
        );

        sender.send_to(b"second", to).unwrap();
        let start = reactor.now();
        reactor.wait(start + std::time::Duration::from_secs(5));
        let waited = reactor.now().micros_since(start);
        assert!(
            (1_900..4_000_000).contains(&waited),
            "{waited} µs for a dial of 2 ms"
        );
        assert_eq!(reactor.reap(&mut |_| ()), 1);
    }
}
