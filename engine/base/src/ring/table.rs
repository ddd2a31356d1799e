//! Where a ring's chunks lie. The one that is written to is at hand, since most packets go where the
//! last one went.

use super::{CHUNK_SLOTS, Chunk, EMPTY_CHUNK, NO_CHUNK, SlotMeta};

/// Where a chunk lies, and what is known of its slots.
pub(super) struct Place {
    /// Which chunk is here; `NO_CHUNK`: none.
    pub(super) number: u64,
    /// Its bytes; none, when no chunk is here.
    pub(super) memory: Option<Chunk>,
    pub(super) meta: [SlotMeta; CHUNK_SLOTS],
}

impl Place {
    const fn empty() -> Self {
        Place {
            number: NO_CHUNK,
            memory: None,
            meta: EMPTY_CHUNK,
        }
    }
}

/// A power of two of places.
pub(super) struct Table {
    #[allow(
        clippy::vec_box,
        reason = "a place is opened by exchanging two pointers"
    )]
    places: Vec<Box<Place>>,
    /// The place that is open, in exchange for which an empty one lies among the others; an empty
    /// one, when none is.
    hand: Box<Place>,
    /// Whose place it is; of none when none is open.
    at: usize,
}

const NOWHERE: usize = usize::MAX;

impl Table {
    pub(super) fn new(size: usize) -> Self {
        Table {
            places: (0..size).map(|_| Box::new(Place::empty())).collect(),
            hand: Box::new(Place::empty()),
            at: NOWHERE,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.places.len()
    }

    /// The place of chunk `number`, whatever is there.
    #[inline]
    pub(super) const fn of(&self, number: u64) -> usize {
        (number as usize) & (self.places.len() - 1)
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&Place> {
        if at == self.at {
            return Some(&self.hand);
        }
        self.places.get(at).map(|place| &**place)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Place> {
        if at == self.at {
            return Some(&mut self.hand);
        }
        self.places.get_mut(at).map(|place| &mut **place)
    }

    /// The place that is open: one without memory, when none is.
    #[inline(always)]
    pub(super) const fn open(&self) -> &Place {
        &self.hand
    }

    /// The place that is open: one without memory, when none is.
    #[inline(always)]
    pub(super) const fn open_mut(&mut self) -> &mut Place {
        &mut self.hand
    }

    /// Opens the place at `at`.
    pub(super) fn take_in_hand(&mut self, at: usize) {
        self.lay_down();
        if let Some(place) = self.places.get_mut(at) {
            core::mem::swap(place, &mut self.hand);
            self.at = at;
        }
    }

    /// Nothing is open any more.
    pub(super) fn lay_down(&mut self) {
        let at = core::mem::replace(&mut self.at, NOWHERE);
        if let Some(place) = self.places.get_mut(at) {
            core::mem::swap(place, &mut self.hand);
        }
    }

    /// Makes it twice as large. Nothing is open then.
    pub(super) fn grow(&mut self) {
        self.lay_down();
        let size = self.places.len() * 2;
        let old = core::mem::take(&mut self.places);
        self.places
            .extend((0..size).map(|_| Box::new(Place::empty())));
        for place in old {
            if place.number != NO_CHUNK {
                let at = self.of(place.number);
                self.places[at] = place;
            }
        }
    }

    /// Takes the memory of all chunks out.
    pub(super) fn take_memory(&mut self) -> impl Iterator<Item = Chunk> {
        self.lay_down();
        self.places.iter_mut().filter_map(|place| {
            place.number = NO_CHUNK;
            place.memory.take()
        })
    }
}
