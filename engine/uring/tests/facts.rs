//! Facts about the hot path that do not wobble (design D16): system calls and allocations for
//! each datagram. One test only, as it counts what its own thread allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::UdpSocket as StdSocket;
use std::time::Duration;

use mirror_uring::{Reactor, ReactorConfig, SocketOptions, UdpSocket};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes every call on to the system's allocator; the counter is a const-initialised
// thread-local without destructor, so touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_datagram_costs_no_allocation_and_a_small_share_of_a_system_call() {
    const ROUNDS: u64 = 50;
    const BURST: u64 = 60; // what 500 µs bring at 25 × 50 Mb/s
    let options = SocketOptions {
        receive_buffer: 4 << 20,
        ..SocketOptions::default()
    };
    let socket = UdpSocket::bind_any("[::]:0".parse().unwrap(), &options).unwrap();
    let port = socket.local_addr().port();
    let mut reactor = Reactor::new(ReactorConfig::default(), vec![socket]).unwrap();
    let sender = StdSocket::bind("127.0.0.1:0").unwrap();
    let peer = sender.local_addr().unwrap();
    sender.connect(("127.0.0.1", port)).unwrap();
    let datagram = [0x5a; 1332];
    let allocations = ALLOCATIONS.get();
    let (mut received, mut bytes) = (0, 0);
    for _ in 0..ROUNDS {
        for _ in 0..BURST {
            sender.send(&datagram).unwrap();
        }
        let until = reactor.now() + Duration::from_secs(1);
        reactor.wait(until);
        received += reactor.reap(&mut |d| bytes += d.payload.len());
        for _ in 0..4 {
            reactor.send(0, peer, None, &[0; 44]);
        }
        reactor.flush();
    }
    while received < (ROUNDS * BURST) as usize {
        reactor.wait(reactor.now() + Duration::from_millis(100));
        received += reactor.reap(&mut |d| bytes += d.payload.len());
    }
    assert_eq!(ALLOCATIONS.get() - allocations, 0, "allocations");
    assert_eq!(bytes as u64, ROUNDS * BURST * 1332);
    let counters = reactor.counters();
    // The wait, and a pass for each 32 datagrams beyond its first.
    assert!(counters.enters <= ROUNDS * 4, "{counters:?}");
    assert_eq!(
        (counters.send_calls, counters.datagrams_sent),
        (ROUNDS, ROUNDS * 4)
    );
    // Four equal datagrams to one peer are one message of that call.
    assert_eq!(counters.super_packets, ROUNDS);
    assert_eq!(
        (counters.no_buffers, counters.rearms, counters.cq_overflows),
        (0, 0, 0)
    );
    println!(
        "{:.3} enters, {:.3} sends, 0 allocations a datagram",
        counters.enters as f64 / received as f64,
        counters.send_calls as f64 / received as f64
    );
}
