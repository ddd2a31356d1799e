//! A slab whose keys carry a generation, so that a key kept by a timer, a table or a mail never
//! reaches the successor of what it named. Sessions and streams of a shard live in one each.

/// Names one value for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Names nothing, in any arena.
    pub(crate) const NONE: Key = Key {
        index: u32::MAX,
        generation: 0,
    };

    /// The place in the arena: reused by later values.
    pub(crate) const fn index(self) -> u32 {
        self.index
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity: usize,
    len: usize,
}

impl<T> Arena<T> {
    /// An arena that holds at most `capacity` values.
    pub(crate) const fn new(capacity: usize) -> Self {
        Arena {
            slots: Vec::new(),
            free: Vec::new(),
            capacity,
            len: 0,
        }
    }

    /// Takes `value` in; gives it back when the arena is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.len >= self.capacity {
            return Err(value);
        }
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Ok(Key {
                index,
                generation: slot.generation,
            });
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
        });
        Ok(Key {
            index,
            generation: 0,
        })
    }

    /// The key that the next value will get; `None` when the arena is full.
    pub(crate) fn next_key(&self) -> Option<Key> {
        if self.len >= self.capacity {
            return None;
        }
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self
            .slots
            .get(index as usize)
            .map_or(0, |slot| slot.generation);
        Some(Key { index, generation })
    }

    /// Takes the value of `key` out.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation {
            slot.value.as_ref()
        } else {
            None
        }
    }

    /// The value of `key`.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Whatever lives at `index` now.
    #[inline]
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<(Key, &mut T)> {
        let slot = self.slots.get_mut(index as usize)?;
        let key = Key {
            index,
            generation: slot.generation,
        };
        slot.value.as_mut().map(|value| (key, value))
    }

    /// The same without its key.
    #[inline(always)]
    pub(crate) fn value_at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.slots.get_mut(index as usize) {
            Some(Slot {
                value: Some(value), ..
            }) => Some(value),
            _ => None,
        }
    }

    /// How many values it holds.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Places ever used: an upper bound for indexes.
    pub(crate) const fn places(&self) -> usize {
        self.slots.len()
    }

    /// Does something to everything in it.
    pub(crate) fn for_each_mut(&mut self, visit: impl FnMut(&mut T)) {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.value.as_mut())
            .for_each(visit);
    }

    /// Everything in it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = Key {
                index: index as u32,
                generation: slot.generation,
            };
            slot.value.as_ref().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_does_not_reach_the_successor() {
        let mut arena = Arena::new(2);
        let a = arena.insert("a").unwrap();
        let b = arena.insert("b").unwrap();
        assert_eq!(arena.insert("c"), Err("c"));
        assert_eq!(arena.remove(a), Some("a"));
        assert_eq!(arena.remove(a), None);
        let next = arena.next_key();
        let c = arena.insert("c").unwrap();
        assert_eq!(next, Some(c));
        assert_eq!(arena.next_key(), None);
        assert_eq!(c.index(), a.index());
        assert!(arena.get(a).is_none() && arena.get_mut(a).is_none());
        assert_eq!((arena.get(c), arena.get(b)), (Some(&"c"), Some(&"b")));
        assert_eq!(arena.at_mut(c.index()), Some((c, &mut "c")));
        assert_eq!(arena.len(), 2);
        assert_eq!(arena.iter().count(), 2);
    }
}
