//! The timer wheel of a shard (D6): 1 ms ticks, hashed, one lazy entry per token.
//!
//! A token's deadline may move as often as it likes: an entry that fires too early is no harm,
//! the owner looks at its deadlines and arms again. So moving a deadline *later* touches
//! nothing, and only an earlier one costs an insertion. Deadlines beyond the wheel's span fire
//! at its end and are armed again by their owner in the same way.

use mirror_base::Instant;

/// One tick: deadlines are rounded up to it.
const TICK_NANOS: u64 = 1_000_000;
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;
const UNARMED: u64 = u64::MAX;

/// What a timer belongs to: a number that the owner gives a meaning.
pub(crate) type Token = u32;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// First entry of each slot's list.
    slots: Box<[u32; SLOTS]>,
    entries: Vec<Entry>,
    /// First of the entries that are in no list.
    free: u32,
    occupied: [u64; WORDS],
    /// The next tick to be expired.
    tick: u64,
    /// Per token: the tick at which its valid entry fires.
    armed: Vec<u64>,
}

/// One entry of a slot's list. There come to be as many as were ever armed at once: a steady
/// load allocates nothing.
#[derive(Clone, Copy, Debug)]
struct Entry {
    token: Token,
    next: u32,
    tick: u64,
}

/// The end of a list.
const END: u32 = u32::MAX;

impl Wheel {
    /// A wheel that starts at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Wheel {
            slots: Box::new([END; SLOTS]),
            entries: Vec::new(),
            free: END,
            occupied: [0; WORDS],
            tick: now.as_nanos() / TICK_NANOS,
            armed: Vec::new(),
        }
    }

    /// Makes `token` fire at `at`, rounded up to the tick, or earlier if it is armed so already.
    #[inline]
    pub(crate) fn arm(&mut self, token: Token, at: Instant) {
        if at == Instant::FAR_FUTURE {
            return;
        }
        let tick = at.as_nanos().div_ceil(TICK_NANOS).max(self.tick);
        if self
            .armed
            .get(token as usize)
            .is_some_and(|&armed| armed <= tick)
        {
            return;
        }
        self.insert(token, tick);
    }

    #[cold]
    fn grow(&mut self, token: Token) {
        self.armed.resize(token as usize + 1, UNARMED);
    }

    fn insert(&mut self, token: Token, tick: u64) {
        if token as usize >= self.armed.len() {
            self.grow(token);
        }
        let tick = tick.min(self.tick + SLOTS as u64 - 1);
        self.armed[token as usize] = tick;
        let slot = (tick % SLOTS as u64) as usize;
        let entry = Entry {
            token,
            next: self.slots[slot],
            tick,
        };
        self.slots[slot] = match self.entries.get_mut(self.free as usize) {
            Some(unused) => {
                let at = self.free;
                self.free = unused.next;
                *unused = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Forgets `token`: its entry fires no more.
    pub(crate) fn disarm(&mut self, token: Token) {
        if let Some(armed) = self.armed.get_mut(token as usize) {
            *armed = UNARMED;
        }
    }

    /// Appends every token that is due; each is disarmed before.
    pub(crate) fn expire(&mut self, now: Instant, due: &mut Vec<Token>) {
        let target = now.as_nanos() / TICK_NANOS;
        while self.tick <= target {
            let Some(distance) = self.distance_to_next() else {
                self.tick = target + 1;
                return;
            };
            if self.tick + distance > target {
                self.tick = target + 1;
                return;
            }
            self.tick += distance;
            self.take_slot(due);
            self.tick += 1;
        }
    }

    fn take_slot(&mut self, due: &mut Vec<Token>) {
        let slot = (self.tick % SLOTS as u64) as usize;
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        let first = due.len();
        let mut at = core::mem::replace(&mut self.slots[slot], END);
        while let Some(entry) = self.entries.get_mut(at as usize) {
            let Entry { token, next, tick } = *entry;
            entry.next = core::mem::replace(&mut self.free, at);
            at = next;
            // A token armed again for an earlier tick leaves its old entry behind.
            if self.armed[token as usize] == tick {
                self.armed[token as usize] = UNARMED;
                due.push(token);
            }
        }
        // In the order in which they were armed.
        due[first..].reverse();
    }

    /// When `expire` has something to do next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let distance = self.distance_to_next()?;
        Some(Instant::from_nanos((self.tick + distance) * TICK_NANOS))
    }

    /// Ticks from the current one to the next occupied slot.
    fn distance_to_next(&self) -> Option<u64> {
        let start = (self.tick % SLOTS as u64) as usize;
        let (first, bit) = (start / 64, start % 64);
        for step in 0..=WORDS {
            let word = (first + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << bit;
            } else if step == WORDS {
                bits &= !(u64::MAX << bit);
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                return Some(((slot + SLOTS - start) % SLOTS) as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn fired(wheel: &mut Wheel, now: Instant) -> Vec<Token> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due
    }

    #[test]
    fn deadlines_are_rounded_up_to_the_tick() {
        let mut wheel = Wheel::new(at(5));
        wheel.arm(1, Instant::from_micros(7_100));
        assert_eq!(wheel.next(), Some(at(8)));
        assert!(fired(&mut wheel, Instant::from_micros(7_999)).is_empty());
        assert_eq!(fired(&mut wheel, at(8)), [1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_later_deadline_keeps_the_entry_and_an_earlier_one_replaces_it() {
        let mut wheel = Wheel::new(at(0));
        wheel.arm(0, at(10));
        wheel.arm(0, at(20));
        assert_eq!(wheel.next(), Some(at(10)));
        wheel.arm(0, at(4));
        assert_eq!(fired(&mut wheel, at(4)), [0]);
        assert!(
            fired(&mut wheel, at(15)).is_empty(),
            "the replaced entry is dead"
        );
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once_and_a_far_one_at_the_span() {
        let mut wheel = Wheel::new(at(5_000));
        wheel.arm(0, at(100));
        assert_eq!(fired(&mut wheel, at(5_000)), [0]);
        wheel.arm(1, at(60_000));
        assert!(wheel.next().unwrap() <= at(6_025));
        assert!(fired(&mut wheel, at(5_500)).is_empty());
        assert_eq!(fired(&mut wheel, at(6_500)), [1]);
    }

    #[test]
    fn disarmed_tokens_stay_silent_and_long_sleeps_lose_nothing() {
        let mut wheel = Wheel::new(at(0));
        for token in 0..1_000 {
            wheel.arm(token, at(u64::from(token)));
        }
        wheel.disarm(500);
        let due = fired(&mut wheel, at(1_000_000));
        assert_eq!(due.len(), 999);
        assert!(!due.contains(&500));
    }

    #[test]
    fn the_wheel_follows_a_model_under_random_operations() {
        let mut state = 0x1234_5678_9ABC_DEF1_u64;
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let mut wheel = Wheel::new(at(0));
        let mut model = vec![None::<u64>; 50];
        let mut now = 0;
        for _ in 0..50_000 {
            let token = random(50) as usize;
            let deadline = now + random(1_500);
            wheel.arm(token as u32, at(deadline));
            model[token] = Some(model[token].map_or(deadline, |old| old.min(deadline)));
            if random(4) == 0 {
                now += random(40);
                let due = fired(&mut wheel, at(now));
                for (token, deadline) in model.iter_mut().enumerate() {
                    let is_due = deadline.is_some_and(|d| d <= now);
                    let did = due.contains(&(token as u32));
                    assert!(did || !is_due, "{token} was due and did not fire");
                    if did && !is_due {
                        // early: only for deadlines that were beyond the span when armed
                        assert!(deadline.is_some(), "{token} was not armed");
                        wheel.arm(token as u32, at(deadline.unwrap()));
                    } else if did {
                        *deadline = None;
                    }
                }
            }
        }
    }
}
