//! A UDP relay inside the test: one direction with losses that the test decides, packet by
//! packet, and a way back that may end elsewhere than the datagrams came from. GStreamer needs
//! that: it sends RTCP from one socket and hears it on another.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// RFC 3550 and 4585: types of RTCP packets that a receiver sends.
const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// What went through; of RTCP on its way back, what was in it.
#[derive(Debug, Default)]
pub struct Passed {
    /// Datagrams towards the engine.
    pub forward: AtomicU64,
    /// Datagrams that were left out.
    pub lost: AtomicU64,
    /// Receiver reports on the way back.
    pub reports: AtomicU64,
    /// Generic NACKs on the way back.
    pub nacks: AtomicU64,
    /// PLI and FIR on the way back.
    pub key_frame_requests: AtomicU64,
}

impl Passed {
    /// Reads a counter.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Counts what an RTCP compound holds.
    fn count_rtcp(&self, mut rest: &[u8]) {
        while let [_, kind, high, low, ..] = *rest {
            let counter = match kind {
                RECEIVER_REPORT => Some(&self.reports),
                TRANSPORT_FEEDBACK => Some(&self.nacks),
                PAYLOAD_FEEDBACK => Some(&self.key_frame_requests),
                _ => None,
            };
            if let Some(counter) = counter {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// One relayed port; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    passed: Arc<Passed>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// From a free port to loopback port `to`. `keep` is asked for each datagram (its number,
    /// from 0, and its bytes). What comes back goes to loopback port `back`, or to where the
    /// last datagram came from.
    ///
    /// # Panics
    /// If no socket can be had.
    pub fn start(
        to: u16,
        back: Option<u16>,
        mut keep: impl FnMut(u64, &[u8]) -> bool + Send + 'static,
    ) -> Self {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP port is free");
            let timeout = Some(Duration::from_millis(50));
            socket.set_read_timeout(timeout).expect("it is a timeout");
            Arc::new(socket)
        };
        let (front, rear) = (socket(), socket());
        let port = front.local_addr().map_or(0, |a| a.port());
        let passed = Arc::new(Passed::default());
        let stop = Arc::new(AtomicBool::new(false));
        let client = Arc::new(AtomicU64::new(back.unwrap_or(0).into()));
        let forward = {
            let (front, rear, client) = (front.clone(), rear.clone(), client.clone());
            let (passed, stop) = (passed.clone(), stop.clone());
            thread::spawn(move || {
                pump(&front, &stop, |bytes, from| {
                    if back.is_none() {
                        client.store(from.port().into(), Ordering::Relaxed);
                    }
                    let number = passed.forward.fetch_add(1, Ordering::Relaxed);
                    if keep(number, bytes) {
                        let _ = rear.send_to(bytes, ("127.0.0.1", to));
                    } else {
                        passed.lost.fetch_add(1, Ordering::Relaxed);
                    }
                });
            })
        };
        let backward = {
            let (passed, stop) = (passed.clone(), stop.clone());
            thread::spawn(move || {
                pump(&rear, &stop, |bytes, _| {
                    passed.count_rtcp(bytes);
                    let port = client.load(Ordering::Relaxed) as u16;
                    if port != 0 {
                        let _ = front.send_to(bytes, ("127.0.0.1", port));
                    }
                });
            })
        };
        Relay {
            port,
            passed,
            stop,
            threads: vec![forward, backward],
        }
    }

    /// Where to send to.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What went through.
    pub fn passed(&self) -> &Passed {
        &self.passed
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pump(from: &UdpSocket, stop: &AtomicBool, mut datagram: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        // A timeout, or what ICMP said of an earlier datagram.
        if let Ok((length, source)) = from.recv_from(&mut buffer) {
            datagram(&buffer[..length], source);
        }
    }
}

/// `count` free loopback UDP ports, each even with the next `neighbours` free too.
///
/// # Panics
/// If they cannot be found.
pub fn free_ports(count: usize, neighbours: u16) -> Vec<u16> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..1000 {
        if ports.len() == count {
            return ports;
        }
        let Ok(first) = UdpSocket::bind("127.0.0.1:0") else {
            continue;
        };
        let port = first.local_addr().map_or(0, |a| a.port());
        let next: Vec<UdpSocket> = (1..=neighbours)
            .filter_map(|n| UdpSocket::bind(("127.0.0.1", port.checked_add(n)?)).ok())
            .collect();
        if port % 2 == 0 && next.len() == usize::from(neighbours) {
            ports.push(port);
        }
        // Held until all are found: none is given twice.
        held.push(first);
        held.extend(next);
    }
    panic!("no {count} free UDP ports");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_leaves_out_what_it_is_told_and_answers_elsewhere() {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket
        };
        let (target, ear, client) = (socket(), socket(), socket());
        let port = |s: &UdpSocket| s.local_addr().unwrap().port();
        let relay = Relay::start(port(&target), Some(port(&ear)), |n, _| n != 1);
        let mut buffer = [0; 64];
        for n in 0..3u8 {
            client.send_to(&[n], ("127.0.0.1", relay.port())).unwrap();
        }
        let (_, from) = target.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[0], 0);
        target.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[0], 2);
        let report = [0x80, RECEIVER_REPORT, 0, 1, 0, 0, 0, 9];
        target.send_to(&report, from).unwrap();
        let (length, _) = ear.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..length], report);
        assert_eq!(Passed::get(&relay.passed().lost), 1);
        assert_eq!(Passed::get(&relay.passed().reports), 1);
    }

    #[test]
    fn free_ports_are_even_and_different() {
        let ports = free_ports(4, 1);
        assert!(ports.iter().all(|p| p % 2 == 0));
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 4);
    }
}
