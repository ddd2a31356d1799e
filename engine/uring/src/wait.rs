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

/// How to wait `left_ns` with the dial at `dial_us`. `busy`: the last reap found datagrams.
pub(crate) fn plan(left_ns: u64, dial_us: u32, coalesces_in_kernel: bool, busy: bool) -> Plan {
    let dial_ns = u64::from(dial_us) * 1_000;
    if dial_us == 0 || left_ns < 1_000 {
        Plan {
            want: 1,
            timeout_ns: left_ns,
            min_wait_us: 0,
        }
    } else if coalesces_in_kernel {
        // min_wait beats the timeout, so it must not be the longer one (design D1).
        let min_wait_us = (dial_ns.min(left_ns) / 1_000) as u32;
        Plan {
            want: WANT,
            timeout_ns: left_ns,
            min_wait_us,
        }
    } else if busy {
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
pub(crate) fn capped_min_wait_us(min_wait: Duration, sockets: &[UdpSocket]) -> u32 {
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

    #[test]
    fn waits_are_coalesced_but_never_beyond_their_end() {
        let left = 2_000_000;
        let by = |want, timeout_ns, min_wait_us| Plan {
            want,
            timeout_ns,
            min_wait_us,
        };
        for busy in [false, true] {
            assert_eq!(plan(left, 500, true, busy), by(WANT, left, 500));
            assert_eq!(plan(300_000, 500, true, busy), by(WANT, 300_000, 300));
            assert_eq!(
                plan(900, 500, true, busy),
                by(1, 900, 0),
                "no time left to coalesce"
            );
            assert_eq!(
                plan(left, 0, true, busy),
                by(1, left, 0),
                "the dial is at zero"
            );
        }
        // Linux before 6.12: by timeout while datagrams come, else by the first one.
        assert_eq!(plan(left, 500, false, true), by(WANT, 500_000, 0));
        assert_eq!(plan(300_000, 500, false, true), by(WANT, 300_000, 0));
        assert_eq!(plan(left, 500, false, false), by(1, left, 0));
    }
}
