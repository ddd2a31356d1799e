//! Access units of formats whose packets say where a unit begins and ends: kept as the
//! positions of their ends, as the assembler keeps those of NAL units. Used by every
//! depacketiser that has no assembler.

use std::collections::VecDeque;

use mirror_base::{Discard, Instant, Position};

use crate::{AccessUnit, Limits};

/// Units that wait for `poll`; a caller that never polls loses the oldest.
const MAX_READY: usize = 256;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Units {
    track: u16,
    max_bytes: usize,
    open: Option<AccessUnit>,
    ready: VecDeque<AccessUnit>,
}

impl Units {
    pub(crate) fn new(track: u16, limits: &Limits) -> Self {
        Units {
            track,
            max_bytes: limits.max_frame_size,
            open: None,
            ready: VecDeque::with_capacity(8),
        }
    }

    /// A unit whose first byte lies at `first` begins; one that is open is closed as damaged.
    pub(crate) fn begin(&mut self, first: Position, pts: i64, arrival: Instant) {
        self.close(arrival, true);
        self.open = Some(AccessUnit {
            track: self.track,
            first,
            end: first,
            pts: Some(pts),
            first_arrival: arrival,
            last_arrival: arrival,
            ..AccessUnit::default()
        });
    }

    /// `bytes` more of the open unit, which end before `end`. Beyond the limit the unit is closed
    /// as damaged.
    pub(crate) fn extend(
        &mut self,
        bytes: usize,
        end: Position,
        arrival: Instant,
    ) -> Result<(), Discard> {
        let Some(unit) = &mut self.open else {
            return Err(Discard::OrphanFragment);
        };
        unit.bytes = unit
            .bytes
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        unit.end = end;
        unit.last_arrival = arrival;
        if unit.bytes as usize > self.max_bytes {
            self.close(arrival, true);
            return Err(Discard::LimitExceeded);
        }
        Ok(())
    }

    /// A unit that lies in one packet whole.
    pub(crate) fn whole(
        &mut self,
        slot: u64,
        range: core::ops::Range<usize>,
        pts: i64,
        arrival: Instant,
    ) -> Result<(), Discard> {
        let at = |offset| Position {
            slot,
            offset: u16::try_from(offset).unwrap_or(u16::MAX),
        };
        self.begin(at(range.start), pts, arrival);
        self.extend(range.len(), at(range.end), arrival)?;
        self.close(arrival, false);
        Ok(())
    }

    /// The open unit.
    pub(crate) const fn open_mut(&mut self) -> Option<&mut AccessUnit> {
        self.open.as_mut()
    }

    /// Whether one is open.
    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Something of the open unit was lost.
    pub(crate) const fn damage(&mut self) {
        if let Some(unit) = &mut self.open {
            unit.damaged = true;
        }
    }

    /// The open unit ends here; an empty one is forgotten.
    pub(crate) fn close(&mut self, completed_by: Instant, damaged: bool) {
        if let Some(unit) = self.close_into(completed_by, damaged) {
            self.push(unit);
        }
    }

    /// The open unit ends here, and is the caller's to hand out.
    pub(crate) fn close_into(
        &mut self,
        completed_by: Instant,
        damaged: bool,
    ) -> Option<AccessUnit> {
        let mut unit = self.open.take().filter(|u| u.bytes > 0)?;
        unit.damaged |= damaged;
        unit.completed_by = completed_by;
        Some(unit)
    }

    /// A unit that was put together elsewhere.
    pub(crate) fn push(&mut self, unit: AccessUnit) {
        if self.ready.len() >= MAX_READY {
            self.ready.pop_front();
        }
        self.ready.push_back(unit);
    }

    /// The next complete unit.
    pub(crate) fn poll(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    pub(crate) fn has_unit(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the open unit got its last byte.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.open.as_ref().map(|u| u.last_arrival)
    }
}
