//! How long a reactor sleeps (design D1): wakes are coalesced by `min_wait`, but never beyond the
//! caller's deadline nor until a receive buffer could overflow. Pure arithmetic.

use std::time::Duration;

use crate::socket::UdpSocket;

/// Completions that one wait asks for; in effect the wait ends by time.
const WANT: u32 = 256;
/// What a 1332-byte datagram uses of a receive buffer (design D7).
const TRUESIZE: usize = 2304;
/// The rate at which a socket's buffer must survive `min_wait` half full: above what one core
/// can receive.
const FILL_RATE: u64 = 1_000_000;

/// How to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) want: u32,
    pub(crate) timeout_ns: u64,
    pub(crate) min_wait_us: u32,
}

/// How long datagrams may wait together, µs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Dial {
    /// Where each of them may be waited for.
    pub(crate) usual_us: u32,
    /// Where nothing that comes is handed on before the wait ends.
    pub(crate) held_us: u32,
}

impl Dial {
    /// The dial at `min_wait`, for these sockets. A wait that nothing is handed on before may
    /// last twice as long: it then ends with the deadline, where it would have been divided in
    /// two that are shorter than the dial.
    pub(crate) fn new(min_wait: Duration, sockets: &[UdpSocket]) -> Self {
        Dial {
            usual_us: capped_min_wait_us(min_wait, sockets),
            held_us: capped_min_wait_us(min_wait.saturating_mul(2), sockets),
        }
    }

    /// The dial for a wait that ends in `left_ns`, ns.
    fn turned_ns(self, left_ns: u64, held: bool) -> u64 {
        let held_ns = u64::from(self.held_us) * 1_000;
        if held && left_ns <= held_ns {
            left_ns
        } else {
            u64::from(self.usual_us) * 1_000
        }
    }
}

/// What is known when a wait begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// The kernel knows `min_wait`.
    pub(crate) coalesces_in_kernel: bool,
    /// The last reap found datagrams.
    pub(crate) busy: bool,
    /// Nothing that comes is handed on before the wait ends.
    pub(crate) held: bool,
}

/// How to wait `left_ns`.
pub(crate) fn plan(left_ns: u64, dial: Dial, waiting: Waiting) -> Plan {
    let dial_ns = dial.turned_ns(left_ns, waiting.held);
    if dial.usual_us == 0 || left_ns < 1_000 {
        Plan {
            want: 1,
            timeout_ns: left_ns,
            min_wait_us: 0,
        }
    } else if waiting.coalesces_in_kernel {
        // min_wait beats the timeout, so it must not be the longer one (design D1).
        let min_wait_us = (dial_ns.min(left_ns) / 1_000) as u32;
        Plan {
            want: WANT,
            timeout_ns: left_ns,
            min_wait_us,
        }
    } else if waiting.busy {
        Plan {
            want: WANT,
            timeout_ns: left_ns.min(dial_ns),
            min_wait_us: 0,
        }
    } else {
        Plan {
            want: 1,
            timeout_ns: left_ns,
            min_wait_us: 0,
        }
    }
}

/// `min_wait` capped so that no socket's receive buffer gets more than half full meanwhile, at a
/// rate that one core cannot receive anyway.
fn capped_min_wait_us(min_wait: Duration, sockets: &[UdpSocket]) -> u32 {
    let smallest = sockets.iter().map(UdpSocket::granted_receive_buffer).min();
    cap_min_wait_us(min_wait, smallest.unwrap_or(usize::MAX))
}

fn cap_min_wait_us(min_wait: Duration, receive_buffer: usize) -> u32 {
    let datagrams = (receive_buffer / TRUESIZE / 2) as u64;
    let cap_us = datagrams.saturating_mul(1_000_000) / FILL_RATE;
    let asked_us = u64::try_from(min_wait.as_micros()).unwrap_or(u64::MAX);
    // No more than a second: longer would only be a mistake.
    asked_us.min(cap_us).min(1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_wait_is_capped_by_what_the_receive_buffer_can_take() {
        let dial = Duration::from_micros(500);
        assert_eq!(cap_min_wait_us(dial, 32 << 20), 500);
        assert_eq!(
            cap_min_wait_us(dial, 212_992),
            46,
            "92 datagrams: half of them at 1 Mpps"
        );
        assert_eq!(cap_min_wait_us(dial, 4608), 1);
        assert_eq!(cap_min_wait_us(dial, 2304), 0);
        assert_eq!(cap_min_wait_us(Duration::MAX, usize::MAX), 1_000_000);
    }

    const DIAL: Dial = Dial {
        usual_us: 500,
        held_us: 1_000,
    };

    fn by(want: u32, timeout_ns: u64, min_wait_us: u32) -> Plan {
        Plan {
            want,
            timeout_ns,
            min_wait_us,
        }
    }

    fn waiting(coalesces_in_kernel: bool, busy: bool) -> Waiting {
        Waiting {
            coalesces_in_kernel,
            busy,
            held: false,
        }
    }

    #[test]
    fn waits_are_coalesced_but_never_beyond_their_end() {
        let left = 2_000_000;
        for busy in [false, true] {
            let now = waiting(true, busy);
            assert_eq!(plan(left, DIAL, now), by(WANT, left, 500));
            assert_eq!(plan(300_000, DIAL, now), by(WANT, 300_000, 300));
            assert_eq!(plan(900, DIAL, now), by(1, 900, 0), "no time to coalesce");
            let off = Dial::default();
            assert_eq!(plan(left, off, now), by(1, left, 0), "the dial is at zero");
        }
        // Linux before 6.12: by timeout while datagrams come, else by the first one.
        let (busy, quiet) = (waiting(false, true), waiting(false, false));
        assert_eq!(plan(left, DIAL, busy), by(WANT, 500_000, 0));
        assert_eq!(plan(300_000, DIAL, busy), by(WANT, 300_000, 0));
        assert_eq!(plan(left, DIAL, quiet), by(1, left, 0));
    }

    #[test]
    fn a_wait_that_nothing_is_handed_on_before_is_not_divided() {
        let held = |coalesces_in_kernel| Waiting {
            held: true,
            ..waiting(coalesces_in_kernel, true)
        };
        let left = 830_000;
        assert_eq!(plan(left, DIAL, held(true)), by(WANT, left, 830));
        assert_eq!(plan(left, DIAL, held(false)), by(WANT, left, 0));
        assert_eq!(plan(left, DIAL, waiting(true, true)), by(WANT, left, 500));
        // Beyond twice the dial it is an ordinary one, and at zero each datagram wakes.
        let long = 1_000_001;
        assert_eq!(plan(long, DIAL, held(true)), by(WANT, long, 500));
        assert_eq!(plan(long, DIAL, held(false)), by(WANT, 500_000, 0));
        let off = Dial::default();
        assert_eq!(plan(left, off, held(true)), by(1, left, 0));
        // What the receive buffer can take is a bound for it, too.
        let small = Dial {
            usual_us: 46,
            held_us: 46,
        };
        assert_eq!(plan(left, small, held(true)), by(WANT, left, 46));
        assert_eq!(plan(40_000, small, held(true)), by(WANT, 40_000, 40));
    }
}
