//! The parameter sets of a stream as they came, by their numbers, and those in force together
//! for who joins late. Memory is allocated only when one changes.

/// Bytes of all sets together; what would exceed it is used, but not kept.
const MAX_BYTES: usize = 64 << 10;

/// Which kind of parameter set; a decoder wants them in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Vps,
    Sps,
    Pps,
}

#[derive(Debug)]
struct Set {
    kind: Kind,
    id: u8,
    /// The set that it refers to.
    refers_to: u8,
    /// The NAL unit, header first.
    nal: Box<[u8]>,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct ParameterSets {
    /// In the order of kind and number.
    sets: Vec<Set>,
    bytes: usize,
    /// Annex B: those in force.
    in_force: Vec<u8>,
    /// The SPS that `in_force` is for.
    active: Option<u8>,
    stale: bool,
}

/// Without trailing zero bytes, which belong to no NAL unit (Annex B, trailing_zero_8bits).
fn trimmed(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    nal.get(..end).unwrap_or_default()
}

impl ParameterSets {
    /// Whether exactly this NAL unit is kept.
    pub(super) fn knows(&self, kind: Kind, nal: &[u8]) -> bool {
        let nal = trimmed(nal);
        self.sets.iter().any(|s| s.kind == kind && *s.nal == *nal)
    }

    /// Keeps a set, in place of the one of its kind and number.
    pub(super) fn keep(&mut self, kind: Kind, id: u8, refers_to: u8, nal: &[u8]) {
        let nal = trimmed(nal);
        let place = self
            .sets
            .binary_search_by_key(&(kind, id), |s| (s.kind, s.id));
        let replaced = match place {
            Ok(at) => self.sets.get(at).map_or(0, |s| s.nal.len()),
            Err(_) => 0,
        };
        self.stale = true;
        if self.bytes - replaced + nal.len() > MAX_BYTES {
            if let Ok(at) = place {
                self.sets.remove(at);
                self.bytes -= replaced;
            }
            return;
        }
        self.bytes = self.bytes - replaced + nal.len();
        let set = Set {
            kind,
            id,
            refers_to,
            nal: nal.into(),
        };
        match place {
            Ok(at) => {
                if let Some(old) = self.sets.get_mut(at) {
                    *old = set;
                }
            }
            Err(at) => self.sets.insert(at, set),
        }
    }

    /// The SPS in use is `active` (unknown: all sets count). Cheap when nothing changed.
    #[inline]
    pub(super) fn activate(&mut self, active: Option<u8>) {
        if self.stale || self.active != active {
            self.rebuild(active);
        }
    }

    #[cold]
    fn rebuild(&mut self, active: Option<u8>) {
        self.stale = false;
        self.active = active;
        self.in_force.clear();
        let vps = self
            .sets
            .iter()
            .find(|s| s.kind == Kind::Sps && Some(s.id) == active)
            .map(|s| s.refers_to);
        for set in &self.sets {
            let wanted = match set.kind {
                _ if active.is_none() => true,
                Kind::Vps => Some(set.id) == vps,
                Kind::Sps => Some(set.id) == active,
                Kind::Pps => Some(set.refers_to) == active,
            };
            if wanted {
                self.in_force.extend_from_slice(&[0, 0, 0, 1]);
                self.in_force.extend_from_slice(&set.nal);
            }
        }
    }

    /// Annex B with four-byte start codes: the sets in force.
    pub(super) fn in_force(&self) -> &[u8] {
        &self.in_force
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_in_force_are_those_of_the_sps_in_use() {
        let mut sets = ParameterSets::default();
        sets.keep(Kind::Pps, 0, 0, &[0x68, 1]);
        sets.keep(Kind::Pps, 1, 1, &[0x68, 2]);
        sets.keep(Kind::Sps, 0, 0, &[0x67, 3, 0, 0]);
        sets.keep(Kind::Sps, 1, 0, &[0x67, 4]);
        sets.activate(None);
        assert_eq!(sets.in_force().len(), 4 * 6);
        sets.activate(Some(0));
        assert_eq!(sets.in_force(), [0, 0, 0, 1, 0x67, 3, 0, 0, 0, 1, 0x68, 1]);
        assert!(sets.knows(Kind::Sps, &[0x67, 3]));
        assert!(!sets.knows(Kind::Pps, &[0x68, 3]));
        sets.keep(Kind::Pps, 0, 0, &[0x68, 9]);
        sets.activate(Some(0));
        assert_eq!(sets.in_force(), [0, 0, 0, 1, 0x67, 3, 0, 0, 0, 1, 0x68, 9]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut sets = ParameterSets::default();
        for round in 0..3 {
            for id in 0..=255 {
                sets.keep(Kind::Pps, id, 0, &[round + 1; 4000]);
            }
        }
        assert!(sets.bytes <= MAX_BYTES);
        let sum: usize = sets.sets.iter().map(|s| s.nal.len()).sum();
        assert_eq!(sum, sets.bytes);
        sets.activate(Some(0));
        assert!(sets.in_force().len() <= 2 * MAX_BYTES);
    }
}
