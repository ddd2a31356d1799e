//! Host names of remote listeners, looked up on threads of their own: the system's resolver may
//! take as long as it likes, control does not wait for it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Sender;

use crate::runtime::Work;

/// Look-ups at the same time. One that hangs keeps its place until the system gives it up.
const MAX_LOOKUPS: usize = 8;
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// What came of a look-up.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) ticket: u64,
    pub(crate) addresses: Result<Vec<SocketAddr>, String>,
}

/// Looks names up.
#[derive(Debug)]
pub(super) struct Resolver {
    done: Sender<Work>,
    running: Arc<AtomicUsize>,
    lookup: Lookup,
}

impl Resolver {
    pub(super) fn new(done: Sender<Work>) -> Resolver {
        Resolver {
            done,
            running: Arc::default(),
            lookup: system,
        }
    }

    /// Looks `name` up; the answer comes with `ticket`.
    pub(super) fn ask(&self, ticket: u64, name: &str, port: u16) -> Result<(), String> {
        let running = self.running.clone();
        if running.fetch_add(1, Ordering::AcqRel) >= MAX_LOOKUPS {
            running.fetch_sub(1, Ordering::AcqRel);
            return Err("too many host names are being looked up".to_owned());
        }
        let (done, lookup, name) = (self.done.clone(), self.lookup, name.to_owned());
        let place = Place(running);
        std::thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || {
                let found = lookup(&name, port);
                let addresses = match found {
                    Ok(mut all) => {
                        all.truncate(MAX_ADDRESSES);
                        Ok(all).and_then(|all| {
                            if all.is_empty() {
                                Err(format!("{name} has no address"))
                            } else {
                                Ok(all)
                            }
                        })
                    }
                    Err(error) => Err(format!("{name} cannot be looked up: {error}")),
                };
                drop(place);
                let _ = done.send(Work::Resolved(Resolved { ticket, addresses }));
            })
            .map(drop)
            .map_err(|error| format!("no thread to look the host up: {error}"))
    }
}

/// A place among the look-ups, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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

    fn answer(work: &Receiver<Work>) -> Resolved {
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
        let found = answer(&work);
        assert_eq!(found.ticket, 1);
        assert_eq!(found.addresses.unwrap().len(), MAX_ADDRESSES);
        for (name, expected) in [
            ("none", "none has no address"),
            ("bad", "bad cannot be looked up: no such host"),
        ] {
            resolver.ask(2, name, 1).unwrap();
            assert_eq!(answer(&work).addresses.unwrap_err(), expected);
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
        assert!(resolver.ask(99, "slow", 1).is_err());
        drop(gate);
        for _ in 0..MAX_LOOKUPS {
            answer(&work);
        }
        resolver.ask(99, "slow", 1).unwrap();
        assert_eq!(answer(&work).ticket, 99);
    }
}
