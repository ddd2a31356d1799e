//! The floor's receiver: a process of its own (this program again, with a hidden subcommand)
//! with one pinned thread that receives, counts, and copies if it is told to. It has one socket
//! with the engine's options, as a shard has. It prints one line of JSON when it is ready, and
//! one for each line on its standard input; it ends when that ends.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use mirror_uring::plain::PlainReceiver;
use mirror_uring::{Reactor, ReactorConfig, SocketOptions, UdpSocket};
use serde::{Deserialize, Serialize};

use crate::process;

/// Which way the floor receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Way {
    /// The engine's reactor.
    Reactor,
    /// `recvmmsg` until nothing is left, then a nap as long as the reactor's `min_wait`.
    Recvmmsg,
}

/// The hidden subcommand's arguments.
#[derive(Clone, Debug, Args)]
pub struct ReceiverArgs {
    /// How to receive
    #[arg(long, value_enum)]
    way: Way,
    /// Arenas to copy into; 0: no copy
    #[arg(long, default_value_t = 0)]
    arenas: usize,
    /// Bytes of an arena
    #[arg(long, default_value_t = 0)]
    arena_bytes: usize,
    /// Core of the receiving thread
    #[arg(long)]
    core: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    port: u16,
    tid: u32,
    receive_buffer: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counts {
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// What happens to each datagram: it is counted, and copied where there are arenas. The sum of
/// their last bytes keeps the copy from being optimised away.
#[derive(Debug, Default)]
struct Sink {
    packets: u64,
    bytes: u64,
    arenas: Vec<Arena>,
}

#[derive(Debug)]
struct Arena {
    bytes: Vec<u8>,
    at: usize,
}

impl Sink {
    fn new(arenas: usize, arena_bytes: usize) -> Self {
        // touched once, as the engine's packet memory is
        let arena = |_| Arena {
            bytes: vec![0xA5; arena_bytes],
            at: 0,
        };
        Sink {
            arenas: (0..arenas).map(arena).collect(),
            ..Sink::default()
        }
    }

    #[inline]
    fn take(&mut self, datagram: &[u8]) {
        self.packets += 1;
        self.bytes += datagram.len() as u64;
        if self.arenas.is_empty() {
            return;
        }
        // bytes 12 to 15 of an SRT data packet: whose it is
        let (Some(id), Some(payload)) = (datagram.get(12..16), datagram.get(16..)) else {
            return;
        };
        let id = u32::from_be_bytes([id[0], id[1], id[2], id[3]]) as usize;
        let count = self.arenas.len();
        let Some(arena) = self.arenas.get_mut(id % count) else {
            return;
        };
        if arena.at + payload.len() > arena.bytes.len() {
            arena.at = 0;
        }
        if let Some(slot) = arena.bytes.get_mut(arena.at..arena.at + payload.len()) {
            slot.copy_from_slice(payload);
            arena.at += payload.len();
        }
    }

    fn publish(&self, shared: &Shared) {
        std::hint::black_box(&self.arenas);
        shared.packets.store(self.packets, Ordering::Relaxed);
        shared.bytes.store(self.bytes, Ordering::Relaxed);
    }
}

/// The child's side: receives until standard input ends.
pub fn receive(args: &ReceiverArgs) -> Result<()> {
    let shared = Arc::new(Shared::default());
    let (ready_tx, ready_rx) = std::sync::mpsc::channel();
    let (for_thread, args) = (Arc::clone(&shared), args.clone());
    std::thread::Builder::new()
        .name("floor".into())
        .spawn(move || {
            if let Err(error) = receive_on_thread(&args, &for_thread, &ready_tx) {
                let _ = ready_tx.send(Err(error));
            }
        })?;
    let ready: Ready = ready_rx.recv()??;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&ready)?)?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let counts = Counts {
            packets: shared.packets.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
        };
        writeln!(out, "{}", serde_json::to_string(&counts)?)?;
        out.flush()?;
    }
    Ok(())
}

fn receive_on_thread(
    args: &ReceiverArgs,
    shared: &Shared,
    ready: &std::sync::mpsc::Sender<Result<Ready>>,
) -> Result<()> {
    process::pin(args.core).with_context(|| format!("cannot pin to core {}", args.core))?;
    let any: SocketAddr = ([0u16; 8], 0).into();
    let socket = UdpSocket::bind_any(any, &SocketOptions::default())?;
    let tid = u32::try_from(rustix::thread::gettid().as_raw_pid())?;
    let facts = Ready {
        port: socket.local_addr().port(),
        tid,
        receive_buffer: socket.granted_receive_buffer(),
    };
    let mut sink = Sink::new(args.arenas, args.arena_bytes);
    match args.way {
        Way::Reactor => {
            let mut reactor = Reactor::new(ReactorConfig::default(), vec![socket])?;
            ready.send(Ok(facts))?;
            loop {
                reactor.reap(&mut |datagram| sink.take(datagram.payload));
                sink.publish(shared);
                let until = reactor.now() + Duration::from_millis(10);
                reactor.wait(until);
            }
        }
        Way::Recvmmsg => {
            let nap = ReactorConfig::default().min_wait;
            let mut plain = PlainReceiver::new(64);
            process::sharpen_timers();
            ready.send(Ok(facts))?;
            loop {
                loop {
                    let count = plain.receive(&socket)?;
                    (0..count).for_each(|i| sink.take(plain.datagram(i)));
                    if count < 64 {
                        break;
                    }
                }
                sink.publish(shared);
                process::sleep_until(process::monotonic() + nap);
            }
        }
    }
}

/// The parent's side.
#[derive(Debug)]
pub struct Floor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    ready: Ready,
}

impl Floor {
    /// Starts the receiver; `arena_bytes` 0: no copy.
    pub fn start(way: Way, arenas: usize, arena_bytes: usize, core: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let name = way
            .to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned());
        let mut child = Command::new(program)
            .args([
                "floor-receiver",
                "--way",
                &name,
                "--core",
                &core.to_string(),
            ])
            .args([
                "--arenas",
                &arenas.to_string(),
                "--arena-bytes",
                &arena_bytes.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the floor's receiver")?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().ok_or_else(|| anyhow!("no output"))?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(ready) => Ok(Floor {
                child,
                input,
                output,
                ready,
            }),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(anyhow!("the floor's receiver did not start"))
            }
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.ready.port
    }

    /// Datagrams received until now.
    pub fn packets(&mut self) -> Result<u64> {
        let input = self.input.as_mut().ok_or_else(|| anyhow!("ended"))?;
        input.write_all(b"\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str::<Counts>(&line)?.packets)
    }

    /// CPU of its receiving thread, and of the whole process, ns.
    pub fn cpu_ns(&self) -> (u64, u64) {
        let pid = self.child.id();
        (
            process::thread_cpu_ns(pid, self.ready.tid),
            process::process_cpu_ns(pid),
        )
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_counted_and_copied_into_their_arena_in_turn() {
        let mut sink = Sink::new(2, 20);
        let mut datagram = vec![0; 24];
        datagram[15] = 3;
        datagram[16..].fill(7);
        for _ in 0..3 {
            sink.take(&datagram);
        }
        sink.take(&[1, 2, 3]);
        assert_eq!((sink.packets, sink.bytes), (4, 75));
        assert_eq!(sink.arenas[0].at, 0);
        // 8 bytes three times into 20: the third begins anew
        assert_eq!(sink.arenas[1].at, 8);
        assert_eq!(sink.arenas[1].bytes[..16], [7; 16]);
        assert_eq!(sink.arenas[1].bytes[16..], [0xA5; 4]);
    }
}
