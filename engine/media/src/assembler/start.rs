//! Where decoding can begin: what comes before is not decodable, however whole it is.

/// Pictures after which a stream that names no place to begin is taken as it is.
const PATIENCE: u32 = 300;

/// What a unit says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// An IDR or other random access point.
    pub(super) key: bool,
    /// Precedes its key frame in display order and refers to what lies before it.
    pub(super) leading: bool,
    /// What its leading pictures refer to is not there, by its own word.
    pub(super) broken_link: bool,
    /// Something of it is missing.
    pub(super) damaged: bool,
    /// A recovery point: frames until pictures are right.
    pub(super) recovery: Option<u16>,
    /// What `recovery` is counted in: `frame_num`, or picture order count, and the mask that it
    /// wraps with.
    pub(super) count: u32,
    pub(super) mask: u32,
}

/// How far decoding that began with the first unit has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    state: State,
    /// The leading pictures of the last key frame are not decodable.
    leading_lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing to begin with yet, after so many units.
    Waiting(u32),
    /// From a recovery point on: right after so many frames.
    Refreshing { from: u32, frames: u32, units: u32 },
    /// It has begun.
    Begun,
}

impl Default for Start {
    fn default() -> Self {
        Start {
            state: State::Waiting(0),
            leading_lost: true,
        }
    }
}

impl Start {
    /// Whether `entry`, the next unit in decoding order, is not decodable.
    #[inline]
    pub(super) fn is_undecodable(&mut self, entry: &Entry) -> bool {
        if entry.key && !entry.damaged {
            self.leading_lost = entry.broken_link || self.state != State::Begun;
            self.state = State::Begun;
            return false;
        }
        match self.state {
            State::Begun => {
                if entry.key {
                    self.leading_lost = entry.broken_link;
                }
                entry.leading && self.leading_lost
            }
            _ => self.wait(entry),
        }
    }

    #[cold]
    fn wait(&mut self, entry: &Entry) -> bool {
        if let State::Waiting(units) = self.state
            && let Some(frames) = entry.recovery
            && !entry.damaged
        {
            self.state = State::Refreshing {
                from: entry.count,
                frames: u32::from(frames),
                units,
            };
        }
        let waited = match self.state {
            State::Refreshing {
                from,
                frames,
                units,
            } => {
                let gone = entry.count.wrapping_sub(from) & entry.mask;
                // frame_num only grows; of an order count half the range is the past.
                let past = entry.mask == u32::MAX && gone > u32::MAX / 2;
                if gone >= frames && !past {
                    self.state = State::Begun;
                    return false;
                }
                self.state = State::Refreshing {
                    from,
                    frames,
                    units: units + 1,
                };
                units
            }
            State::Waiting(units) => {
                self.state = State::Waiting(units + 1);
                units
            }
            State::Begun => return false,
        };
        if waited >= PATIENCE {
            self.state = State::Begun;
        }
        waited < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Entry = Entry {
        key: false,
        leading: false,
        broken_link: false,
        damaged: false,
        recovery: None,
        count: 0,
        mask: 15,
    };
    const KEY: Entry = Entry { key: true, ..PLAIN };
    const LEADING: Entry = Entry {
        leading: true,
        ..PLAIN
    };

    fn run(entries: &[Entry]) -> Vec<bool> {
        let mut start = Start::default();
        entries.iter().map(|e| start.is_undecodable(e)).collect()
    }

    #[test]
    fn nothing_is_decodable_before_the_first_whole_key_frame() {
        let damaged = Entry {
            damaged: true,
            ..KEY
        };
        assert_eq!(
            run(&[PLAIN, damaged, PLAIN, KEY, PLAIN]),
            [true, true, true, false, false]
        );
    }

    #[test]
    fn leading_pictures_need_what_lies_before_their_key_frame() {
        assert_eq!(
            run(&[KEY, LEADING, PLAIN, KEY, LEADING, PLAIN]),
            [false, true, false, false, false, false]
        );
        let broken = Entry {
            broken_link: true,
            ..KEY
        };
        assert_eq!(
            run(&[KEY, PLAIN, broken, LEADING]),
            [false, false, false, true]
        );
    }

    #[test]
    fn a_gradual_refresh_takes_its_frames_over_the_turn_of_the_count() {
        let entries: Vec<Entry> = (0..30_u32)
            .map(|n| Entry {
                recovery: (n == 12).then_some(9),
                count: n % 16,
                ..PLAIN
            })
            .collect();
        let undecodable = run(&entries);
        let first = undecodable.iter().position(|&u| !u);
        assert_eq!(first, Some(21));
        assert!(undecodable[21..].iter().all(|&u| !u));
    }

    #[test]
    fn a_stream_without_any_key_frame_is_taken_as_it_is_at_last() {
        let undecodable = run(&[PLAIN; 400]);
        assert!(undecodable[..PATIENCE as usize].iter().all(|&u| u));
        assert!(undecodable[PATIENCE as usize..].iter().all(|&u| !u));
    }
}
