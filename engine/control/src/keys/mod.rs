//! Key derivation off the control thread (spec section 16.2; design, D8). PBKDF2 costs about a
//! millisecond: here one thread on the control cores does it, for publishers at the door and
//! for the callers of this engine, in the order and at the pace that [`queue`] says. Control
//! asks by ticket and gets its answers through a channel; it never waits.

mod queue;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use mirror_base::{Instant, ShardId};
use mirror_srt::{
    CallerSecurity, CipherPolicy, KeyLength, ListenerPolicy, Passphrase, RejectionCode, Security,
};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, clock_gettime};

use crate::clock;
use crate::runtime::Work;
use queue::{Admitted, Budget, FairQueue, Source};

/// A publisher whose handshake has waited for so long has given up, or is about to: its shard
/// forgets it after 3 s.
const JOB_LIFETIME: Duration = Duration::from_millis(2500);
/// Longest rest of the worker before it looks whether it is still wanted.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// A publisher that encrypts, and what it has to know.
#[derive(Debug)]
pub(crate) struct PublisherJob {
    pub(crate) ticket: u64,
    /// The KMREQ block of its conclusion.
    pub(crate) key_material: Vec<u8>,
    pub(crate) peer_version: u32,
    pub(crate) passphrase: Passphrase,
    pub(crate) require: bool,
    pub(crate) cipher: CipherPolicy,
}

/// A call that asks for encryption.
#[derive(Debug)]
pub(crate) struct CallerJob {
    pub(crate) ticket: u64,
    pub(crate) passphrase: Passphrase,
    pub(crate) key_length: Option<KeyLength>,
    pub(crate) cipher: CipherPolicy,
    pub(crate) require: bool,
}

/// The peer of a rendezvous that asks for encryption, and what it has to know.
#[derive(Debug)]
pub(crate) struct MeetingJob {
    pub(crate) shard: ShardId,
    pub(crate) ticket: u64,
    /// Which of the call's questions.
    pub(crate) number: u32,
    /// The KMREQ block of its conclusion.
    pub(crate) key_material: Vec<u8>,
    pub(crate) peer_version: u32,
    pub(crate) passphrase: Passphrase,
    pub(crate) require: bool,
    pub(crate) cipher: CipherPolicy,
}

/// What the engine's own calls need.
#[derive(Debug)]
enum OwnJob {
    Caller(CallerJob),
    Meeting(MeetingJob),
}

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A publisher's keys, or the code to refuse it with.
    Publisher {
        ticket: u64,
        outcome: Result<Box<Security>, RejectionCode>,
    },
    /// It waited too long; nobody waits for it any more.
    Late { ticket: u64 },
    /// It had to make room for others.
    GivenUp { ticket: u64 },
    /// A caller's keys; `None`: the system gave no randomness.
    Caller {
        ticket: u64,
        security: Option<Box<CallerSecurity>>,
    },
    /// The keys that the peer of a rendezvous asks for, or why it gets none.
    Meeting {
        shard: ShardId,
        ticket: u64,
        number: u32,
        outcome: Result<Box<Security>, RejectionCode>,
    },
}

/// Counters for the metrics.
#[derive(Debug, Default)]
pub(crate) struct KeyCounters {
    /// Keys derived.
    pub(crate) derived: AtomicU64,
    /// CPU time that took, µs.
    pub(crate) busy_us: AtomicU64,
    /// Jobs refused or given up for lack of room.
    pub(crate) refused: AtomicU64,
    /// Jobs that came too late to be of use.
    pub(crate) late: AtomicU64,
    /// Jobs waiting now.
    pub(crate) waiting: AtomicU64,
}

#[derive(Debug)]
struct Desk {
    publishers: FairQueue<PublisherJob>,
    callers: VecDeque<OwnJob>,
    /// Publishers and callers take turns: neither waits for all of the other.
    publishers_turn: bool,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    filled: Condvar,
    counters: Arc<KeyCounters>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_length(&self, desk: &Desk) {
        let waiting = desk.publishers.len() + desk.callers.len();
        self.counters
            .waiting
            .store(waiting as u64, Ordering::Relaxed);
    }
}

/// The worker as control holds it.
#[derive(Debug)]
pub(crate) struct KeyDesk {
    shared: Arc<Shared>,
    answers: Sender<Work>,
    thread: Option<JoinHandle<()>>,
}

impl KeyDesk {
    /// Starts the worker; it inherits the cores of the thread that calls.
    pub(crate) fn start(answers: Sender<Work>) -> std::io::Result<KeyDesk> {
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk {
                publishers: FairQueue::default(),
                callers: VecDeque::new(),
                publishers_turn: false,
                stop: false,
            }),
            filled: Condvar::new(),
            counters: Arc::default(),
        });
        let worker = Worker {
            shared: shared.clone(),
            answers: answers.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || worker.run())?;
        Ok(KeyDesk {
            shared,
            answers,
            thread: Some(thread),
        })
    }

    pub(crate) fn counters(&self) -> Arc<KeyCounters> {
        self.shared.counters.clone()
    }

    /// Asks for a publisher's keys. `false`: no room.
    pub(crate) fn publisher(&self, now: Instant, source: IpAddr, job: PublisherJob) -> bool {
        let mut desk = self.shared.lock();
        let pushed = desk
            .publishers
            .push(now, Source::of(source), job, now + JOB_LIFETIME);
        self.shared.note_length(&desk);
        drop(desk);
        let refused = &self.shared.counters.refused;
        match pushed {
            Ok(Admitted::Room) => {}
            Ok(Admitted::InPlaceOf(other)) => {
                refused.fetch_add(1, Ordering::Relaxed);
                let ticket = other.ticket;
                let _ = self.answers.send(Work::Keys(Answer::GivenUp { ticket }));
            }
            Err(_) => {
                refused.fetch_add(1, Ordering::Relaxed);
                return false;
            }
        }
        self.shared.filled.notify_one();
        true
    }

    /// Asks for a caller's keys. There is one job a configured caller at the most.
    pub(crate) fn caller(&self, job: CallerJob) {
        self.own(OwnJob::Caller(job));
    }

    /// Asks for the keys of a rendezvous' peer. A call has one open question at the most.
    pub(crate) fn meeting(&self, job: MeetingJob) {
        self.own(OwnJob::Meeting(job));
    }

    fn own(&self, job: OwnJob) {
        let mut desk = self.shared.lock();
        desk.callers.push_back(job);
        self.shared.note_length(&desk);
        drop(desk);
        self.shared.filled.notify_one();
    }
}

impl Drop for KeyDesk {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Job {
    Publisher(Source, PublisherJob),
    Own(OwnJob),
}

struct Worker {
    shared: Arc<Shared>,
    answers: Sender<Work>,
}

impl Worker {
    fn run(self) {
        let mut budget = Budget::new(clock::now());
        while let Some(job) = self.next(&mut budget) {
            let before = cpu_time();
            let (answer, wrong) = match job {
                Job::Publisher(source, job) => {
                    let ticket = job.ticket;
                    let (material, version) = (&job.key_material, job.peer_version);
                    let outcome =
                        negotiate(material, version, &job.passphrase, job.require, job.cipher);
                    let bad = matches!(outcome, Err(RejectionCode::BADSECRET));
                    (Answer::Publisher { ticket, outcome }, bad.then_some(source))
                }
                Job::Own(OwnJob::Caller(job)) => {
                    let security = caller_security(&job);
                    let ticket = job.ticket;
                    (Answer::Caller { ticket, security }, None)
                }
                Job::Own(OwnJob::Meeting(job)) => (meeting_answer(&job), None),
            };
            let took = cpu_time().saturating_sub(before);
            budget.spend(took);
            let counters = &self.shared.counters;
            counters.derived.fetch_add(1, Ordering::Relaxed);
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            counters.busy_us.fetch_add(us, Ordering::Relaxed);
            if let Some(source) = wrong {
                self.shared.lock().publishers.blame(clock::now(), source);
            }
            if self.answers.send(Work::Keys(answer)).is_err() {
                return;
            }
        }
        // Nobody is left to be answered, but keys and passphrases go now.
        let mut desk = self.shared.lock();
        drop(desk.publishers.drain());
        desk.callers.clear();
    }

    /// Waits for the next job and for the time to do it; `None`: the end.
    fn next(&self, budget: &mut Budget) -> Option<Job> {
        let mut desk = self.shared.lock();
        loop {
            if desk.stop {
                return None;
            }
            let now = clock::now();
            let empty = desk.callers.is_empty() && desk.publishers.len() == 0;
            let rest = if empty {
                Some(LOOK_AROUND)
            } else {
                budget.wait(now).map(|wait| wait.min(LOOK_AROUND))
            };
            if let Some(rest) = rest {
                let waited = self.shared.filled.wait_timeout(desk, rest);
                desk = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let wait = std::mem::take(&mut desk.publishers_turn) && desk.publishers.len() > 0;
            if !wait && let Some(job) = desk.callers.pop_front() {
                desk.publishers_turn = true;
                self.shared.note_length(&desk);
                return Some(Job::Own(job));
            }
            let mut late = Vec::new();
            let job = desk.publishers.pop(now, &mut late);
            self.shared.note_length(&desk);
            for job in late {
                self.shared.counters.late.fetch_add(1, Ordering::Relaxed);
                let ticket = job.ticket;
                let _ = self.answers.send(Work::Keys(Answer::Late { ticket }));
            }
            if let Some((source, job)) = job {
                return Some(Job::Publisher(source, job));
            }
        }
    }
}

fn negotiate(
    key_material: &[u8],
    peer_version: u32,
    passphrase: &Passphrase,
    require: bool,
    cipher: CipherPolicy,
) -> Result<Box<Security>, RejectionCode> {
    let policy = ListenerPolicy {
        passphrase: Some(passphrase),
        require,
        cipher,
    };
    negotiated(Some(key_material), peer_version, &policy)
}

fn meeting_answer(job: &MeetingJob) -> Answer {
    let (material, version) = (&job.key_material, job.peer_version);
    Answer::Meeting {
        shard: job.shard,
        ticket: job.ticket,
        number: job.number,
        outcome: negotiate(material, version, &job.passphrase, job.require, job.cipher),
    }
}

/// What the listener's side of the engine answers (spec section 8, "encryption outcomes").
/// Derives a key only when there is key material and a passphrase.
pub(crate) fn negotiated(
    key_material: Option<&[u8]>,
    peer_version: u32,
    policy: &ListenerPolicy<'_>,
) -> Result<Box<Security>, RejectionCode> {
    let seed = seed().ok_or(RejectionCode::SYSTEM)?;
    // An error of ours in there costs one publisher, not the worker.
    let agreed = catch_unwind(AssertUnwindSafe(|| {
        Security::negotiate(key_material, peer_version, policy, seed)
    }));
    agreed.unwrap_or(Err(RejectionCode::IPE)).map(Box::new)
}

fn caller_security(job: &CallerJob) -> Option<Box<CallerSecurity>> {
    let seed = seed()?;
    let made = catch_unwind(AssertUnwindSafe(|| {
        CallerSecurity::new(
            &job.passphrase,
            job.key_length,
            job.cipher,
            job.require,
            seed,
        )
    }));
    made.ok().map(Box::new)
}

/// Randomness of the operating system.
pub(crate) fn seed() -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    match getrandom(&mut seed, GetRandomFlags::empty()) {
        Ok(32) => Some(seed),
        Ok(_) | Err(_) => {
            tracing::error!("the operating system gives no randomness");
            None
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(t.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_and_callers_take_turns() {
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk {
                publishers: FairQueue::default(),
                callers: VecDeque::new(),
                publishers_turn: false,
                stop: false,
            }),
            filled: Condvar::new(),
            counters: Arc::default(),
        });
        let (answers, _work) = crossbeam_channel::unbounded();
        let desk = KeyDesk {
            shared: shared.clone(),
            answers: answers.clone(),
            thread: None,
        };
        let passphrase = Passphrase::new("0123456789").unwrap();
        for ticket in 0..5 {
            desk.caller(CallerJob {
                ticket,
                passphrase: passphrase.clone(),
                key_length: None,
                cipher: CipherPolicy::Auto,
                require: true,
            });
        }
        for ticket in 10..12 {
            let job = PublisherJob {
                ticket,
                key_material: Vec::new(),
                peer_version: 0,
                passphrase: passphrase.clone(),
                require: true,
                cipher: CipherPolicy::Auto,
            };
            assert!(desk.publisher(clock::now(), IpAddr::from([10, 0, 0, 1]), job));
        }
        let worker = Worker { shared, answers };
        let mut budget = Budget::new(clock::now());
        let order: Vec<u64> = (0..7)
            .filter_map(|_| worker.next(&mut budget))
            .map(|job| match job {
                Job::Publisher(_, job) => job.ticket,
                Job::Own(OwnJob::Caller(job)) => job.ticket,
                Job::Own(OwnJob::Meeting(job)) => job.ticket,
            })
            .collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3, 4]);
    }
}
