//! The timer wheel of a shard (D6): 1 ms ticks, hashed, one lazy entry per token.
//!
//! A token's deadline may move as often as it likes: an entry that fires too early is no harm,
//! the owner looks at its deadlines and arms again. So moving a deadline *later* touches
//! nothing, and only an earlier one moves the entry. Deadlines beyond the wheel's span fire
//! at its end and are armed again by their owner in the same way.
//!
//! What is due with the next tick needs no slot, and most is: a stream's packets come due a few
//! each tick. Such tokens are only listed.

use mirror_base::Instant;

/// One tick: deadlines are rounded up to it.
const TICK_NANOS: u64 = 1_000_000;
const SLOTS: usize = 1024;
const WORDS: usize = SLOTS / 64;
/// Nothing fires.
const NEVER: u64 = u64::MAX;
/// Before every tick that there is.
const UNARMED: u64 = 0;

/// What a timer belongs to: a number that the owner gives a meaning. Small ones: the wheel keeps
/// a place for each up to the greatest.
pub(crate) type Token = u32;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// First token of each slot's list.
    slots: Box<[u32; SLOTS]>,
    /// Per token: there come to be as many as were ever used, and a steady load allocates
    /// nothing.
    entries: Vec<Entry>,
    occupied: [u64; WORDS],
    /// Which words of `occupied` are not 0.
    words: u16,
    /// The next tick to be expired, and its time.
    tick: u64,
    tick_at: Instant,
    /// What was armed to fire then since it is the next one; no token twice.
    soon: Vec<Token>,
    /// The first tick at which something fires, and its time; `NEVER` and the clock's start:
    /// nothing does.
    soonest: u64,
    soonest_at: Instant,
}

const _: () = assert!(WORDS == u16::BITS as usize);

/// A token's place in its slot's list.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When it fires. Before the next tick to be expired: it is armed no more.
    tick: u64,
    next: u32,
    /// The one before it; of the first in a list it means nothing.
    previous: u32,
}

impl Entry {
    const UNARMED: Entry = Entry {
        tick: UNARMED,
        next: END,
        previous: END,
    };
}

/// The end of a list.
const END: u32 = u32::MAX;

const fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

impl Wheel {
    /// A wheel that starts at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Wheel {
            slots: Box::new([END; SLOTS]),
            entries: Vec::new(),
            occupied: [0; WORDS],
            words: 0,
            tick: 0,
            tick_at: Instant::ZERO,
            soon: Vec::new(),
            soonest: NEVER,
            soonest_at: Instant::ZERO,
        }
        .at((now.as_nanos() / TICK_NANOS).max(UNARMED + 1))
    }

    const fn at(mut self, tick: u64) -> Self {
        self.set_tick(tick);
        self
    }

    const fn set_tick(&mut self, tick: u64) {
        self.tick = tick;
        self.tick_at = Instant::from_nanos(tick * TICK_NANOS);
    }

    /// Makes `token` fire at `at`, rounded up to the tick, or earlier if it is armed so already.
    #[inline(never)]
    pub(crate) fn arm(&mut self, token: Token, at: Instant) {
        self.arm_here(token, at);
    }

    /// [`Wheel::arm`] as a part of what calls it.
    #[inline(always)]
    pub(crate) fn arm_here(&mut self, token: Token, at: Instant) {
        if at > self.tick_at {
            return self.arm_later(token, at);
        }
        match self.entries.get_mut(token as usize) {
            Some(entry) if entry.tick < self.tick => entry.tick = self.tick,
            Some(entry) if entry.tick == self.tick => return,
            Some(_) => return self.hasten(token),
            None => return self.grow(token, at),
        }
        self.list(token);
    }

    /// Fires with the next tick.
    #[inline(always)]
    fn list(&mut self, token: Token) {
        self.soon.push(token);
        if self.soonest > self.tick {
            (self.soonest, self.soonest_at) = (self.tick, self.tick_at);
        }
    }

    /// Moves a token from its slot to the next tick.
    #[cold]
    fn hasten(&mut self, token: Token) {
        self.unlink(token);
        if let Some(entry) = self.entries.get_mut(token as usize) {
            entry.tick = self.tick;
        }
        self.list(token);
    }

    /// Arms for a tick behind the next one.
    #[inline(never)]
    fn arm_later(&mut self, token: Token, at: Instant) {
        if at == Instant::FAR_FUTURE {
            return;
        }
        let tick = at.as_nanos().saturating_add(TICK_NANOS - 1) / TICK_NANOS;
        match self.entries.get(token as usize) {
            Some(entry) if entry.tick < self.tick => {}
            Some(entry) if entry.tick <= tick => return,
            Some(_) => self.unlink(token),
            None => return self.grow(token, at),
        }
        self.link(token, tick);
    }

    /// Makes room for tokens up to `token`, and arms it.
    #[cold]
    fn grow(&mut self, token: Token, at: Instant) {
        self.entries.resize(token as usize + 1, Entry::UNARMED);
        // Nothing is allocated when one is listed.
        self.soon.reserve(self.entries.len() - self.soon.len());
        self.arm(token, at);
    }

    /// Puts an unarmed token at the head of its slot's list.
    #[inline]
    fn link(&mut self, token: Token, tick: u64) {
        let tick = tick.min(self.tick + SLOTS as u64 - 1);
        if tick < self.soonest {
            self.set_soonest(tick);
        }
        let slot = slot_of(tick);
        let next = core::mem::replace(&mut self.slots[slot], token);
        if let Some(entry) = self.entries.get_mut(token as usize) {
            (entry.tick, entry.next) = (tick, next);
        }
        match self.entries.get_mut(next as usize) {
            Some(entry) => entry.previous = token,
            None => {
                self.occupied[slot / 64] |= 1 << (slot % 64);
                self.words |= 1 << (slot / 64);
            }
        }
    }

    /// Takes a token that is armed for a tick behind the next one out of its slot's list.
    fn unlink(&mut self, token: Token) {
        let Some(entry) = self.entries.get_mut(token as usize) else {
            return;
        };
        let Entry {
            tick,
            next,
            previous,
        } = core::mem::replace(entry, Entry::UNARMED);
        let slot = slot_of(tick);
        let is_first = self.slots[slot] == token;
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = previous;
        } else if is_first {
            self.vacate(slot);
        }
        if tick == self.soonest {
            self.set_soonest(self.find_soonest());
        }
        if is_first {
            self.slots[slot] = next;
        } else if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = next;
        }
    }

    /// Slot `slot` is empty now.
    const fn vacate(&mut self, slot: usize) {
        let word = slot / 64;
        self.occupied[word] &= !(1 << (slot % 64));
        if self.occupied[word] == 0 {
            self.words &= !(1 << word);
        }
    }

    /// Forgets `token`: it fires no more.
    pub(crate) fn disarm(&mut self, token: Token) {
        let Some(entry) = self.entries.get_mut(token as usize) else {
            return;
        };
        if entry.tick < self.tick {
            return;
        }
        if let Some(at) = self.soon.iter().position(|listed| *listed == token) {
            entry.tick = UNARMED;
            self.soon.remove(at);
            if self.soonest == self.tick {
                self.set_soonest(self.find_soonest());
            }
        } else {
            self.unlink(token);
        }
    }

    /// Appends every token that is due; each is disarmed before.
    pub(crate) fn expire(&mut self, now: Instant, due: &mut Vec<Token>) {
        let target = now.as_nanos() / TICK_NANOS;
        while self.soonest <= target {
            self.set_tick(self.soonest);
            self.take_slot(due);
            due.append(&mut self.soon);
            self.set_tick(self.tick + 1);
            self.set_soonest(self.find_soonest());
        }
        self.set_tick(self.tick.max(target + 1));
    }

    fn take_slot(&mut self, due: &mut Vec<Token>) {
        let slot = slot_of(self.tick);
        let first = due.len();
        let mut token = core::mem::replace(&mut self.slots[slot], END);
        if token == END {
            return;
        }
        self.vacate(slot);
        while let Some(entry) = self.entries.get_mut(token as usize) {
            due.push(token);
            token = entry.next;
        }
        // In the order in which they were armed.
        due[first..].reverse();
    }

    /// When `expire` has something to do next.
    #[inline]
    pub(crate) fn next(&self) -> Option<Instant> {
        (self.soonest != NEVER).then_some(self.soonest_at)
    }

    /// Whether `expire` is worth calling; it is while nothing is armed, so that the wheel does not
    /// fall behind by more than its span.
    #[inline]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.soonest_at
    }

    /// Something may fire at `tick`, and nothing before; `NEVER`: nothing does.
    #[inline]
    const fn set_soonest(&mut self, tick: u64) {
        self.soonest = tick;
        self.soonest_at = match tick {
            NEVER => Instant::ZERO,
            tick => Instant::from_nanos(tick * TICK_NANOS),
        };
    }

    /// The first tick from the next one on at which something fires.
    fn find_soonest(&self) -> u64 {
        if !self.soon.is_empty() {
            return self.tick;
        }
        let start = slot_of(self.tick);
        let (word, bit) = (start / 64, start % 64);
        let here = self.occupied[word] >> bit;
        if here != 0 {
            return self.tick + u64::from(here.trailing_zeros());
        }
        // From the next word round to this one, whose bits above are 0.
        let next = (word + 1) % WORDS;
        let words = self.words.rotate_right(next as u32);
        if words == 0 {
            return NEVER;
        }
        let word = (next + words.trailing_zeros() as usize) % WORDS;
        let slot = word * 64 + self.occupied[word].trailing_zeros() as usize;
        self.tick + ((slot + SLOTS - start) % SLOTS) as u64
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
    fn what_is_due_with_the_next_tick_may_be_armed_again_moved_there_and_forgotten() {
        let mut wheel = Wheel::new(at(5));
        wheel.arm(7, at(9));
        assert!(fired(&mut wheel, at(8)).is_empty());
        for token in [3, 4, 3, 5, 4] {
            wheel.arm(token, at(9));
        }
        wheel.disarm(4);
        wheel.disarm(4);
        // From its slot to the list.
        wheel.arm(6, at(12));
        wheel.arm(6, Instant::from_micros(8_100));
        assert_eq!(wheel.next(), Some(at(9)));
        assert_eq!(fired(&mut wheel, at(9)), [7, 3, 5, 6]);
        assert_eq!(wheel.next(), None);
        wheel.arm(3, at(10));
        wheel.arm(4, at(11));
        wheel.disarm(3);
        assert_eq!(wheel.next(), Some(at(11)));
        assert_eq!(fired(&mut wheel, at(20)), [4]);
        assert!(fired(&mut wheel, at(3_000)).is_empty());
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
            if random(8) == 0 {
                // Anywhere in its slot's list.
                let token = random(50) as usize;
                wheel.disarm(token as u32);
                model[token] = None;
            }
            if random(4) == 0 {
                // What is due when it is armed fires with the next tick.
                now += 1 + random(40);
                let due = fired(&mut wheel, at(now));
                for (token, deadline) in model.iter_mut().enumerate() {
                    let is_due = deadline.is_some_and(|d| d <= now);
                    let did = due.contains(&(token as u32));
                    assert!(did || !is_due, "{token} was due and did not fire");
                    assert!(!did || deadline.is_some(), "{token} was not armed");
                    if did && !is_due {
                        // early: only for deadlines that were beyond the span when armed
                        wheel.arm(token as u32, at(deadline.unwrap()));
                    } else if did {
                        *deadline = None;
                    }
                }
            }
        }
    }
}
