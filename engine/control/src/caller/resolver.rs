//! Host names of remote listeners, looked up on threads of their own: the system's resolver may
//! take as long as it likes, control does not wait for it.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::runtime::Work;

use super::RESOLVE_TIMEOUT;

/// Look-ups at the same time. One that hangs keeps its place until the system gives it up.
const MAX_LOOKUPS: usize = 8;
/// Look-ups that wait for a place: at the start all callers ask at once.
const MAX_WAITING: usize = 4096;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// What came of a look-up.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) ticket: u64,
    pub(crate) addresses: Result<Vec<SocketAddr>, String>,
}

/// A name to look up.
#[derive(Debug)]
struct Question {
    ticket: u64,
    name: String,
    port: u16,
    asked: Instant,
}

#[derive(Debug, Default)]
struct Desk {
    running: usize,
    waiting: VecDeque<Question>,
}

/// Looks names up.
#[derive(Debug)]
pub(super) struct Resolver {
    done: Sender<Work>,
    desk: Arc<Mutex<Desk>>,
    lookup: Lookup,
}

impl Resolver {
    pub(super) fn new(done: Sender<Work>) -> Resolver {
        Resolver {
            done,
            desk: Arc::default(),
            lookup: system,
        }
    }

    /// Looks `name` up; the answer comes with `ticket`. One that found no place within the time
    /// that its caller waits for it is not looked up any more.
    pub(super) fn ask(&self, ticket: u64, name: &str, port: u16) -> Result<(), String> {
        let question = Question {
            ticket,
            name: name.to_owned(),
            port,
            asked: Instant::now(),
        };
        {
            let mut desk = lock(&self.desk);
            if desk.running >= MAX_LOOKUPS {
                if desk.waiting.len() >= MAX_WAITING {
                    return Err("too many host names are being looked up".to_owned());
                }
                desk.waiting.push_back(question);
                return Ok(());
            }
            desk.running += 1;
        }
        let mut place = Place(Some(self.desk.clone()));
        let (done, lookup) = (self.done.clone(), self.lookup);
        std::thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || {
                let mut next = Some(question);
                while let Some(question) = next {
                    let ticket = question.ticket;
                    let addresses = answer(lookup, &question);
                    if done
                        .send(Work::Resolved(Resolved { ticket, addresses }))
                        .is_err()
                    {
                        return;
                    }
                    next = place.next();
                }
            })
            .map(drop)
            .map_err(|error| format!("no thread to look the host up: {error}"))
    }
}

fn answer(lookup: Lookup, question: &Question) -> Result<Vec<SocketAddr>, String> {
    let name = &question.name;
    match lookup(name, question.port) {
        Ok(all) if all.is_empty() => Err(format!("{name} has no address")),
        Ok(mut all) => {
            all.truncate(MAX_ADDRESSES);
            Ok(all)
        }
        Err(error) => Err(format!("{name} cannot be looked up: {error}")),
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place among the look-ups, given back when there is nothing more to look up.
struct Place(Option<Arc<Mutex<Desk>>>);

impl Place {
    /// The next question that somebody still waits for.
    fn next(&mut self) -> Option<Question> {
        let shared = self.0.take()?;
        let mut desk = lock(&shared);
        while let Some(question) = desk.waiting.pop_front() {
            if question.asked.elapsed() < RESOLVE_TIMEOUT {
                drop(desk);
                self.0 = Some(shared);
                return Some(question);
            }
        }
        // Under the same lock: whoever asks from now on finds the place free.
        desk.running -= 1;
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            lock(&shared).running -= 1;
        }
    }
}

fn system(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, unbounded};
    use std::sync::Mutex;
    use std::time::Duration;

    fn answered(work: &Receiver<Work>) -> Resolved {
        match work.recv_timeout(Duration::from_secs(10)) {
            Ok(Work::Resolved(resolved)) => resolved,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn name_becomes_addresses_and_a_failure_a_sentence() {
        let (sender, work) = unbounded();
        let mut resolver = Resolver::new(sender);
        resolver.lookup = |name, port| match name {
            "many" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port)); 40]),
            "none" => Ok(Vec::new()),
            _ => Err(io::Error::other("no such host")),
        };
        resolver.ask(1, "many", 9000).unwrap();
        let found = answered(&work);
        assert_eq!(found.ticket, 1);
        assert_eq!(found.addresses.unwrap().len(), MAX_ADDRESSES);
        for (name, expected) in [
            ("none", "none has no address"),
            ("bad", "bad cannot be looked up: no such host"),
        ] {
            resolver.ask(2, name, 1).unwrap();
            assert_eq!(answered(&work).addresses.unwrap_err(), expected);
        }
    }

    #[test]
    fn names_that_hang_leave_a_bounded_number_of_threads() {
        static GATE: Mutex<()> = Mutex::new(());
        let (sender, work) = unbounded();
        let mut resolver = Resolver::new(sender);
        resolver.lookup = |_, port| {
            drop(GATE.lock());
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
        };
        let gate = GATE.lock().unwrap();
        for i in 0..MAX_LOOKUPS {
            resolver.ask(i as u64, "slow", 1).unwrap();
        }
        // More wait for a place, and are looked up when there is one.
        for i in 0..40 {
            resolver.ask(100 + i, "slow", 1).unwrap();
        }
        assert_eq!(lock(&resolver.desk).running, MAX_LOOKUPS);
        drop(gate);
        let mut tickets: Vec<u64> = (0..48).map(|_| answered(&work).ticket).collect();
        tickets.sort_unstable();
        assert!(tickets.into_iter().eq((0..8).chain(100..140)));
        resolver.ask(99, "slow", 1).unwrap();
        assert_eq!(answered(&work).ticket, 99);
    }
}
