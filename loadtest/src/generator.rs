//! The generator's thread: it drives all senders by the [`Pacer`]'s turns, from the first
//! handshake to the last SHUTDOWN, and publishes its figures several times a second.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mirror_base::Instant;

use crate::pacer::Pacer;
use crate::process;
use crate::sender::{Phase, Sender, SenderStats};

/// What the thread is to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[repr(u8)]
enum Order {
    /// Handshakes and keepalives only.
    Connect = 0,
    /// Media.
    Send = 1,
    /// No more media; acknowledgements and retransmissions go on.
    Hold = 2,
    /// Say goodbye and end.
    Stop = 3,
}

/// What the thread has done.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// One entry a sender.
    pub senders: Vec<SenderStats>,
    /// CPU time of the thread so far, ns.
    pub cpu_ns: u64,
    /// The longest that a turn came late since media began, ns.
    pub latest_turn_ns: u64,
}

impl Progress {
    /// Media packets of all senders.
    pub fn packets(&self) -> u64 {
        self.senders.iter().map(|s| s.packets).sum()
    }

    /// Payload bytes of all senders.
    pub fn payload_bytes(&self) -> u64 {
        self.senders.iter().map(|s| s.payload_bytes).sum()
    }
}

#[derive(Debug)]
struct Shared {
    order: AtomicU8,
    /// Media packets so far, exact at each turn's end.
    packets: AtomicU64,
    progress: Mutex<Progress>,
}

/// A running generator.
#[derive(Debug)]
pub struct Generator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// Starts the thread. `make` opens the senders there; `core`: where to pin it.
    pub fn start<F>(make: F, burst: Duration, core: Option<usize>) -> std::io::Result<Self>
    where
        F: FnOnce(Instant) -> std::io::Result<Vec<Sender>> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            order: AtomicU8::new(Order::Connect as u8),
            packets: AtomicU64::new(0),
            progress: Mutex::default(),
        });
        let (ready_tx, ready_rx) = std::sync::mpsc::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("generator".into())
            .spawn(move || {
                let prepared = core
                    .map_or(Ok(()), process::pin)
                    .and_then(|()| make(process::monotonic()));
                match prepared {
                    Ok(senders) => {
                        let _ = ready_tx.send(Ok(()));
                        process::sharpen_timers();
                        run(senders, burst, &for_thread);
                    }
                    Err(error) => {
                        let _ = ready_tx.send(Err(error));
                    }
                }
            })?;
        let generator = Generator {
            shared,
            thread: Some(thread),
        };
        ready_rx
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the generator's thread ended")))?;
        Ok(generator)
    }

    /// Begins with the media.
    pub fn send(&self) {
        self.order(Order::Send);
    }

    /// Ends the media; sessions stay open.
    pub fn hold(&self) {
        self.order(Order::Hold);
    }

    /// Closes all sessions and ends the thread; returns the last figures.
    pub fn stop(mut self) -> Progress {
        self.join();
        self.progress()
    }

    /// Media packets of all senders until now.
    pub fn packets(&self) -> u64 {
        self.shared.packets.load(Ordering::Relaxed)
    }

    /// The figures of some moments ago.
    pub fn progress(&self) -> Progress {
        self.shared
            .progress
            .lock()
            .map(|p| p.clone())
            .unwrap_or_default()
    }

    fn order(&self, order: Order) {
        self.shared.order.store(order as u8, Ordering::Release);
    }

    fn join(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.join();
    }
}

/// How often figures are published, ns.
const PUBLISH_NS: u64 = 100_000_000;

fn run(mut senders: Vec<Sender>, burst: Duration, shared: &Shared) {
    let pacer = Pacer::new(burst, senders.len());
    let groups = pacer.groups();
    let start = process::monotonic();
    let mut media_start: Option<u64> = None;
    // how far each group's content was sent
    let mut sent_ns = vec![0; groups];
    let (mut n, mut packets, mut published, mut latest_turn_ns) = (0, 0, None::<u64>, 0);
    loop {
        let turn = pacer.turn(n);
        process::sleep_until(start + Duration::from_nanos(turn.at_ns));
        let now = process::monotonic();
        let elapsed = now.saturating_since(start).as_nanos() as u64;
        let order = shared.order.load(Ordering::Acquire);
        if order == Order::Stop as u8 {
            break;
        }
        if order == Order::Send as u8 {
            // media begins with the first group, so that each starts at its own turn
            if media_start.is_none() && turn.group == 0 {
                media_start = Some(turn.at_ns);
            }
            if media_start.is_some() {
                latest_turn_ns = latest_turn_ns.max(elapsed.saturating_sub(turn.at_ns));
            }
        }
        // what is due by this turn's time, not by the time it came late
        let media = media_start.filter(|_| order == Order::Send as u8);
        let media_ns = media
            .and_then(|at| turn.at_ns.checked_sub(at + pacer.phase_ns(turn.group)))
            .zip(sent_ns.get_mut(turn.group))
            .map(|(due, sent)| {
                *sent = pacer.catch_up(*sent, due);
                *sent
            });
        let unix_us = process::unix_us();
        for sender in senders.iter_mut().skip(turn.group).step_by(groups) {
            packets += sender.drive(now, unix_us, media_ns);
        }
        shared.packets.store(packets, Ordering::Relaxed);
        if published.is_none_or(|at| elapsed >= at + PUBLISH_NS) {
            publish(&senders, latest_turn_ns, shared);
            published = Some(elapsed);
        }
        n += 1;
        // more than four periods late: skip turns rather than run after them
        let behind = elapsed.saturating_sub(pacer.turn(n).at_ns);
        if behind > 4 * burst.as_nanos() as u64 {
            n = pacer.first_turn_at(elapsed);
        }
    }
    let now = process::monotonic();
    for sender in &mut senders {
        sender.close(now);
    }
    if let Ok(mut progress) = shared.progress.lock() {
        fill(&mut progress, &senders, latest_turn_ns);
    }
}

fn publish(senders: &[Sender], latest_turn_ns: u64, shared: &Shared) {
    // try: a reader must not hold up a turn; the next publication comes soon enough
    if let Ok(mut progress) = shared.progress.try_lock() {
        fill(&mut progress, senders, latest_turn_ns);
    }
}

fn fill(progress: &mut Progress, senders: &[Sender], latest_turn_ns: u64) {
    progress.senders.clear();
    progress.senders.extend(senders.iter().map(Sender::stats));
    progress.cpu_ns = process::own_cpu_ns();
    progress.latest_turn_ns = latest_turn_ns;
}

/// Waits until no sender is connecting; the figures then, or `None` after `limit`.
pub fn await_connected(generator: &Generator, limit: Duration) -> Option<Progress> {
    let end = std::time::Instant::now() + limit;
    loop {
        let progress = generator.progress();
        if !progress.senders.is_empty()
            && progress
                .senders
                .iter()
                .all(|s| s.phase != Phase::Connecting)
        {
            return Some(progress);
        }
        if std::time::Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
