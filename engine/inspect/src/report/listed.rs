//! Lists that are made on request, and what bounds them.

use serde_json::Value;

/// Entries that lists of one kind have all together.
const MAX_LISTED: usize = 200_000;
/// An entry that holds more than so many bytes takes the room of several.
const ENTRY: usize = 128;

/// Entries that all lists of one kind may still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room(usize);

impl Room {
    /// All of it.
    pub(crate) const FULL: Self = Room(MAX_LISTED);

    /// Room for `entries`.
    pub(crate) const fn of(entries: usize) -> Self {
        Room(entries)
    }
}

/// A list of something, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed<T> {
    /// The first ones.
    pub list: Vec<T>,
    /// Those that there was no room for.
    pub left_out: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Listed::new()
    }
}

impl<T> Listed<T> {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Listed {
            list: Vec::new(),
            left_out: 0,
        }
    }

    /// One more, if there is room.
    pub(crate) fn add(&mut self, entry: T, room: &mut Room) {
        self.add_sized(entry, 0, room);
    }

    /// One more that holds `bytes` bytes beside its fields.
    pub(crate) fn add_sized(&mut self, entry: T, bytes: usize, room: &mut Room) {
        match room.0.checked_sub(1 + bytes / ENTRY) {
            Some(left) => {
                room.0 = left;
                self.list.push(entry);
            }
            None => self.left_out += 1,
        }
    }

    /// Puts the list under `key`, and how many are not in it, if any.
    pub(super) fn put(
        &self,
        key: &str,
        each: impl FnMut(&T) -> Value,
        put: &mut impl FnMut(&str, Value),
    ) {
        put(key, self.list.iter().map(each).collect());
        if self.left_out > 0 {
            put(&format!("{key}_left_out"), self.left_out.into());
        }
    }
}

/// Microseconds of the capture's clock, in seconds.
pub(super) fn seconds(at_us: u64) -> f64 {
    at_us as f64 / 1e6
}

/// Bytes in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_share_their_room_and_long_entries_take_more_of_it() {
        let mut room = Room::of(6);
        let (mut first, mut second) = (Listed::new(), Listed::new());
        first.add('a', &mut room);
        second.add_sized('b', 3 * ENTRY, &mut room);
        first.add_sized('c', ENTRY, &mut room);
        first.add('d', &mut room);
        second.add('e', &mut room);
        assert_eq!((first.list, first.left_out), (vec!['a', 'd'], 1));
        assert_eq!((second.list, second.left_out), (vec!['b'], 1));
    }
}
