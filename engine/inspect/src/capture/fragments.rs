//! IP packets that came in fragments, put together again (RFC 791, 3.2; RFC 8200, 4.5): UDP
//! datagrams that are longer than the path allows. Memory is bounded, and so is the time that
//! pieces wait for others, by the capture's clock. Pieces that overlap belong to no packet that a
//! sender made: such a packet is given up whole, for IPv4 as for IPv6 (RFC 5722).

use core::net::IpAddr;
use std::collections::VecDeque;

use super::Record;
use super::link::{self, Fragment, Seen};

/// The longest packet behind its IP header.
const MAX_BYTES: usize = 65_535;
/// Packets in the making, and bytes of all of them.
const MAX_PACKETS: usize = 1024;
const MAX_HELD: usize = 4 << 20;
/// How long pieces wait for the others: what Linux gives IPv4, and RFC 8200 asks for.
const WAIT_V4_NS: u64 = 30_000_000_000;
const WAIT_V6_NS: u64 = 60_000_000_000;

/// What became of fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentCounts {
    /// Fragments of UDP datagrams.
    pub fragments: u64,
    /// Packets that were put together of them.
    pub assembled: u64,
    /// Packets of which pieces never came, or came too late.
    pub incomplete: u64,
    /// Packets that were given up because their pieces overlap or do not fit together.
    pub malformed: u64,
}

/// What is the same in all pieces of a packet; the protocol of IPv4 only.
type Key = (IpAddr, IpAddr, u32, Option<u8>);

/// A packet in the making.
#[derive(Debug)]
struct Partial {
    key: Key,
    began_ns: u64,
    bytes: Vec<u8>,
    /// Stretches of it that came, apart from each other and in order: from, to.
    held: Vec<(usize, usize)>,
    /// Its length, once the last piece is there.
    length: Option<usize>,
    /// What it begins with, once the first piece is there.
    protocol: Option<u8>,
    /// Given up: what still comes of it is passed over.
    is_bad: bool,
}

/// Puts fragments together; see the module's page.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// In the order of their first pieces.
    partial: VecDeque<Partial>,
    /// Bytes of all of them.
    held: usize,
    whole: Vec<u8>,
    counts: FragmentCounts,
}

impl Reassembly {
    /// What a record holds; a whole datagram as well when it brings the last piece of one.
    pub fn datagram<'a>(&'a mut self, record: &Record<'a>) -> Seen<'a> {
        match link::datagram(record.link, record.bytes) {
            Seen::Fragment(fragment) => self.add(record.at_ns, &fragment),
            seen => seen,
        }
    }

    /// So far. Packets that still lack pieces count as incomplete.
    pub fn counts(&self) -> FragmentCounts {
        let waiting = self.partial.iter().filter(|p| !p.is_bad).count() as u64;
        FragmentCounts {
            incomplete: self.counts.incomplete + waiting,
            ..self.counts
        }
    }

    fn add<'a>(&'a mut self, at_ns: u64, fragment: &Fragment<'a>) -> Seen<'a> {
        self.counts.fragments += 1;
        let is_v4 = fragment.from.is_ipv4();
        let protocol = is_v4.then_some(fragment.protocol);
        let key = (fragment.from, fragment.to, fragment.id, protocol);
        self.forget_old(at_ns);
        let at = self.partial.iter().rposition(|p| p.key == key);
        let at = at.unwrap_or_else(|| {
            self.partial.push_back(Partial::new(key, at_ns));
            self.partial.len() - 1
        });
        let Some(partial) = self.partial.get_mut(at) else {
            return Seen::Fragment(*fragment);
        };
        let before = partial.bytes.len();
        if !partial.is_bad && !partial.add(fragment) {
            partial.give_up();
            self.counts.malformed += 1;
        }
        self.held = (self.held + partial.bytes.len()).saturating_sub(before);
        if !partial.is_whole() {
            self.make_room();
            return Seen::Fragment(*fragment);
        }
        let Some(whole) = self.partial.remove(at) else {
            return Seen::Fragment(*fragment);
        };
        self.held = self.held.saturating_sub(whole.bytes.len());
        self.counts.assembled += 1;
        self.whole = whole.bytes;
        let first = whole.protocol.unwrap_or(fragment.protocol);
        link::content(first, &self.whole, fragment.from, fragment.to).unwrap_or(Seen::Other)
    }

    /// Packets whose time is over.
    fn forget_old(&mut self, now_ns: u64) {
        // In the order of their beginning, but for the two times that they may take.
        while let Some(oldest) = self.partial.front() {
            let wait = match oldest.key.0 {
                IpAddr::V4(_) => WAIT_V4_NS,
                IpAddr::V6(_) => WAIT_V6_NS,
            };
            if now_ns.saturating_sub(oldest.began_ns) < wait {
                break;
            }
            self.forget_oldest();
        }
    }

    fn make_room(&mut self) {
        while self.held > MAX_HELD || self.partial.len() > MAX_PACKETS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.partial.pop_front() {
            self.held = self.held.saturating_sub(oldest.bytes.len());
            self.counts.incomplete += u64::from(!oldest.is_bad);
        }
    }
}

impl Partial {
    const fn new(key: Key, began_ns: u64) -> Self {
        Partial {
            key,
            began_ns,
            bytes: Vec::new(),
            held: Vec::new(),
            length: None,
            protocol: None,
            is_bad: false,
        }
    }

    fn give_up(&mut self) {
        self.is_bad = true;
        self.bytes = Vec::new();
        self.held = Vec::new();
    }

    fn is_whole(&self) -> bool {
        let length = self.length.filter(|_| !self.is_bad);
        length.is_some_and(|length| self.held == [(0, length)])
    }

    /// One more piece; `false` if it does not fit with the others.
    fn add(&mut self, fragment: &Fragment<'_>) -> bool {
        let (from, to) = (fragment.offset, fragment.offset + fragment.bytes.len());
        let is_odd = fragment.more && !fragment.bytes.len().is_multiple_of(8);
        if to > MAX_BYTES || from == to || is_odd {
            return false;
        }
        let at = self.held.partition_point(|held| held.1 <= from);
        if self.held.get(at).is_some_and(|held| held.0 < to) {
            // The same piece once more, as a capture of two interfaces has it.
            return self.bytes.get(from..to) == Some(fragment.bytes)
                && self.held.get(at).is_some_and(|held| held.1 >= to)
                && (fragment.more || self.length == Some(to));
        }
        let end = self.held.last().map_or(0, |held| held.1);
        match (fragment.more, self.length) {
            (false, Some(_)) => return false,
            (false, None) if end > to => return false,
            (false, None) => self.length = Some(to),
            (true, Some(length)) if to > length => return false,
            (true, _) => {}
        }
        if from == 0 {
            self.protocol = Some(fragment.protocol);
        }
        self.put(from, to, fragment.bytes);
        self.join(at, from, to);
        true
    }

    fn put(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        for (place, byte) in self.bytes.iter_mut().skip(from).zip(bytes) {
            *place = *byte;
        }
    }

    /// A stretch that overlaps none, before the one at `at`.
    fn join(&mut self, at: usize, from: usize, to: usize) {
        let joins_before = at
            .checked_sub(1)
            .and_then(|n| self.held.get(n))
            .is_some_and(|held| held.1 == from);
        let joins_behind = self.held.get(at).is_some_and(|held| held.0 == to);
        match (joins_before, joins_behind) {
            (true, true) => {
                let end = self.held.remove(at).1;
                if let Some(held) = self.held.get_mut(at - 1) {
                    held.1 = end;
                }
            }
            (true, false) => {
                if let Some(held) = self.held.get_mut(at - 1) {
                    held.1 = to;
                }
            }
            (false, true) => {
                if let Some(held) = self.held.get_mut(at) {
                    held.0 = from;
                }
            }
            (false, false) => self.held.insert(at, (from, to)),
        }
    }
}

#[cfg(test)]
mod tests;
