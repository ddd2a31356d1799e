//! Replies written while the driver is busy handing datagrams over: handshake answers and
//! rejections. Bounded for each turn; what does not fit is dropped, the peer asks again.

use core::net::{IpAddr, SocketAddr};

use crate::driver::Driver;

const MAX_ENTRIES: usize = 512;

#[derive(Debug)]
struct Entry {
    socket: usize,
    peer: SocketAddr,
    local: Option<IpAddr>,
    start: usize,
    end: usize,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    dropped: u64,
}

impl Outbox {
    /// Queues `bytes` for `peer`.
    pub(crate) fn push(
        &mut self,
        socket: usize,
        peer: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
    ) {
        if self.entries.len() >= MAX_ENTRIES {
            self.dropped += 1;
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry {
            socket,
            peer,
            local,
            start,
            end: self.bytes.len(),
        });
    }

    /// Hands everything to `driver`.
    #[inline]
    pub(crate) fn empty_into<D: Driver>(&mut self, driver: &mut D) {
        if self.entries.is_empty() {
            return;
        }
        for e in &self.entries {
            driver.send(e.socket, e.peer, e.local, &self.bytes[e.start..e.end]);
        }
        self.entries.clear();
        self.bytes.clear();
    }

    /// Replies that did not fit.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }
}
