//! What goes into a reactor and comes out of it: options, datagrams, figures.

use std::time::Duration;

use mirror_base::Instant;

use crate::message::HEADER_BYTES;
use crate::origin::Origin;
use crate::probe::SetupError;

/// Sockets of one reactor.
pub const MAX_SOCKETS: usize = 1024;
/// Most sockets that may be added to one.
const MAX_SPARE: usize = 32_768;
/// Submission queue entries: enough for the re-arms of a turn.
pub(crate) const SQ_ENTRIES: u32 = 256;
/// Of each provided buffer, what goes to addresses and control messages.
pub const HEAD_BYTES: usize = HEADER_BYTES;
/// The smallest provided buffer.
pub const MIN_BUFFER_BYTES: usize = 512;

const _: () = assert!(HEADER_BYTES < MIN_BUFFER_BYTES);

/// A received datagram, valid until the callback returns.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Index of the socket in the reactor.
    pub socket: usize,
    /// Sender, and our address that it was sent to.
    pub origin: Origin<'a>,
    /// Kernel receive timestamp on the monotonic clock; time of reaping where there is none.
    pub arrival: Instant,
    /// How long ago that was when the clock was read last, ns.
    pub age_ns: u32,
    /// The UDP payload (one segment of a GRO super-packet).
    pub payload: &'a [u8],
    /// The buffer was too small (MSG_TRUNC): the rest is lost.
    pub truncated: bool,
}

/// Takes datagrams, one by one. A trait and not a closure, because the one that takes hundreds of
/// thousands a second has to become part of the loop that hands them over.
pub trait Sink {
    /// One datagram.
    fn take(&mut self, datagram: Datagram<'_>);

    /// Takes the datagram if that is soon done, or says that it left it, and
    /// [`Sink::take_unusual`] comes next. [`Sink::take`] in two steps: what calls them keeps
    /// nothing in hand for the second while it does the first, nor waits for an answer.
    #[inline(always)]
    fn take_usual(&mut self, datagram: Datagram<'_>, left: &mut bool) {
        let _ = datagram;
        *left = true;
    }

    /// Takes what [`Sink::take_usual`] left.
    #[inline(always)]
    fn take_unusual(&mut self, datagram: Datagram<'_>) {
        self.take(datagram);
    }
}

/// A closure that takes datagrams.
#[derive(Debug)]
pub(crate) struct Calling<F>(pub(crate) F);

impl<F: FnMut(Datagram<'_>)> Sink for Calling<F> {
    #[inline]
    fn take(&mut self, datagram: Datagram<'_>) {
        (self.0)(datagram);
    }
}

/// Options of a reactor.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Provided buffers (power of two, 2 to 32768).
    pub buffers: u16,
    /// Bytes of each; [`HEAD_BYTES`] of them go to addresses and control messages. With GRO: as
    /// much more as the greatest super-packet has, 65,507.
    pub buffer_bytes: usize,
    /// CQ entries.
    pub cq_entries: u32,
    /// Wake coalescing. Zero: woken for each datagram.
    pub min_wait: Duration,
    /// Datagrams queued for sending before a flush is forced (1 to 1024).
    pub send_batch: usize,
    /// The kernel polls the sockets' NIC queues for so long before a wait sleeps
    /// (IORING_REGISTER_NAPI, Linux 6.9), whole microseconds. Zero: never.
    pub busy_poll: Duration,
    /// Sockets that may be added later.
    pub spare_sockets: usize,
}

impl Default for ReactorConfig {
    fn default() -> Self {
        ReactorConfig {
            buffers: 256,
            buffer_bytes: 2048,
            cq_entries: 8192,
            min_wait: Duration::from_micros(500),
            send_batch: 64,
            busy_poll: Duration::ZERO,
            spare_sockets: 256,
        }
    }
}

impl ReactorConfig {
    /// What the kernel charges a ring of this configuration against RLIMIT_MEMLOCK, for users
    /// without CAP_IPC_LOCK: completion and submission queues and the buffer ring's entries, in
    /// whole pages. The buffers themselves are not charged.
    pub fn memlock_bytes(&self) -> u64 {
        let pages = |bytes: u64| bytes.div_ceil(4096) * 4096;
        let completions = u64::from(self.cq_entries.next_power_of_two());
        let submissions = u64::from(SQ_ENTRIES.min(self.cq_entries.next_power_of_two()));
        // A page for both queues' heads, tails and flags, and one for the ring's own structures.
        pages(completions * 16)
            + pages(submissions * 4 + 1024)
            + pages(submissions * 64)
            + pages(u64::from(self.buffers) * 16)
            + 4096
    }
}

/// Figures of a reactor, all since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorCounters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Waits that blocked and came back with something.
    pub wakeups: u64,
    /// Completions taken, those of the waker included.
    pub completions: u64,
    /// Multishot receives that ended (no buffer, an error, an empty datagram) and were armed again.
    pub rearms: u64,
    /// Re-arms for want of a buffer.
    pub no_buffers: u64,
    /// Times that the completion queue was found to have overflowed. Nothing is lost by that.
    pub cq_overflows: u64,
    /// Errors that the kernel reported for a receive.
    pub receive_errors: u64,
    /// Errors of `io_uring_enter` other than interruptions and timeouts.
    pub enter_errors: u64,
    /// Calls of `sendmmsg` and `sendmsg`.
    pub send_calls: u64,
    /// Datagrams that the kernel took.
    pub datagrams_sent: u64,
    /// `UDP_SEGMENT` super-packets among what it took, each of two or more datagrams.
    pub super_packets: u64,
    /// Datagrams that it did not: buffer full, no route, refused.
    pub send_errors: u64,
}

/// Figures of one socket, since the reactor was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketCounters {
    /// Datagrams received (segments of super-packets counted one by one).
    pub datagrams: u64,
    /// Datagrams that the kernel dropped for want of receive buffer, as told by the latest
    /// datagram that was not. With GRO it counts super-packets.
    pub kernel_drops: u64,
    /// Bytes of UDP payload received. (Not beside `datagrams`: two neighbours that grow together
    /// are put into one register first, which takes more than it saves.)
    pub bytes: u64,
    /// Datagrams that were longer than the provided buffer.
    pub truncated: u64,
}

/// Refuses what makes no ring.
pub(crate) fn check_config(config: &ReactorConfig, sockets: usize) -> Result<(), SetupError> {
    let refuse = |name, value, allowed| {
        Err(SetupError::Config {
            name,
            value,
            allowed,
        })
    };
    if !config.buffers.is_power_of_two() || !(2..=32_768).contains(&config.buffers) {
        return refuse(
            "buffers",
            config.buffers.into(),
            "a power of two from 2 to 32768",
        );
    }
    if !(MIN_BUFFER_BYTES..=1 << 20).contains(&config.buffer_bytes) {
        return refuse("buffer_bytes", config.buffer_bytes, "512 to 1048576");
    }
    if !(2..=65_536).contains(&config.cq_entries) {
        return refuse("cq_entries", config.cq_entries as usize, "2 to 65536");
    }
    if !(1..=1024).contains(&config.send_batch) {
        return refuse("send_batch", config.send_batch, "1 to 1024");
    }
    if sockets > MAX_SOCKETS {
        return refuse("sockets", sockets, "at most 1024");
    }
    if config.spare_sockets > MAX_SPARE {
        return refuse("spare_sockets", config.spare_sockets, "at most 32768");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_makes_no_ring_is_refused_with_its_bounds() {
        let good = ReactorConfig::default;
        assert!(check_config(&good(), MAX_SOCKETS).is_ok());
        for (config, sockets) in [
            (
                ReactorConfig {
                    buffers: 100,
                    ..good()
                },
                1,
            ),
            (
                ReactorConfig {
                    buffers: 1,
                    ..good()
                },
                1,
            ),
            (
                ReactorConfig {
                    buffer_bytes: 128,
                    ..good()
                },
                1,
            ),
            (
                ReactorConfig {
                    cq_entries: 0,
                    ..good()
                },
                1,
            ),
            (
                ReactorConfig {
                    send_batch: 0,
                    ..good()
                },
                1,
            ),
            (good(), MAX_SOCKETS + 1),
        ] {
            assert!(matches!(
                check_config(&config, sockets),
                Err(SetupError::Config { .. })
            ));
        }
    }
}
