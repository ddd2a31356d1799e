//! What a finished unit is: its kind, its place among the others, its decoding time; and what
//! the track is by all that was learned.

use mirror_base::Instant;

use super::order::Timed;
use super::start::Entry;
use super::unit::{Mark, Unit};
use super::{Assembler, CodecState, MAX_READY};
use crate::codec::scan::Scan;
use crate::codec::{SliceKind, VideoInfo};
use crate::{AccessUnit, Codec, FieldOrder, FrameKind};

impl Assembler {
    pub(super) fn close_here(&mut self, arrival: Instant) {
        let end = self.end.unwrap_or(self.nal.at);
        let mark = Mark {
            at: end,
            total: self.total,
            before: end,
            before_arrival: self.last_arrival,
            ..Mark::default()
        };
        self.close_at(mark, arrival);
    }

    #[cold]
    pub(super) fn close_oversized(&mut self, arrival: Instant) {
        self.counters.oversized += 1;
        self.damage();
        // The caller has not said yet where these bytes end.
        self.close_here(arrival);
        self.oversized = true;
    }

    /// The unit ends before `next`.
    pub(super) fn close_at(&mut self, next: Mark, completed_by: Instant) {
        self.open = false;
        self.limit = u64::MAX;
        if next.total <= self.unit.first.total {
            return;
        }
        if let CodecState::Mpeg2(state) = &self.codec {
            self.unit.damaged |= self.unit.has_picture && state.lacks_rows();
        }
        let unit = self.unit;
        let kind = self.kind(&unit);
        let leading = self.leads(&unit, kind);
        let recovery = unit.prefix.recovery;
        let undecodable = self.start.is_undecodable(&Entry {
            key: kind.is_key(),
            leading,
            broken_link: unit.afresh
                || unit.prefix.broken_link
                || recovery.is_some_and(|r| r.broken_link),
            damaged: unit.damaged,
            recovery: recovery.map(|r| r.count),
            ..self.refresh_count(&unit)
        });
        if let Some(order) = unit.order.filter(|_| !unit.damaged) {
            self.known.changed |= self.observed.take(order);
        }
        let (dts, dts_derived) = self.decoding_time(&unit, kind);
        let bytes = (next.total - unit.first.total).saturating_sub(unit.left_out);
        if self.ready.len() >= MAX_READY {
            self.ready.pop_front();
            self.counters.dropped += 1;
        }
        self.ready.push_back(AccessUnit {
            track: self.track,
            kind,
            damaged: unit.damaged || undecodable,
            undecodable: undecodable && !unit.damaged,
            references_missing: unit.references_missing && !undecodable,
            discardable: unit.discardable,
            temporal_id: unit.temporal_id,
            leading,
            recovery: recovery.map(|r| r.count),
            order: unit.order,
            first: unit.first.at,
            lead: unit.first.lead,
            end: next.before,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            pts: unit.pts,
            dts,
            dts_derived,
            first_arrival: unit.first.arrival,
            last_arrival: next.before_arrival,
            completed_by,
        });
        if kind.is_key() && self.known.side.timecode.is_some() {
            self.known.show_timecode = true;
            self.known.changed = true;
        }
        self.see_scan(&unit, kind);
        if self.known.changed {
            self.learn();
        }
    }

    /// What the picture says of its scan.
    fn see_scan(&mut self, unit: &Unit, kind: FrameKind) {
        let scan = match unit.prefix.scan {
            Some(Scan::TopField) if kind.is_key() => Scan::TopFirst,
            Some(Scan::BottomField) if kind.is_key() => Scan::BottomFirst,
            None | Some(Scan::TopField | Scan::BottomField) => return,
            Some(scan) => scan,
        };
        if scan.is_news(self.known.scan) && !unit.damaged && !unit.lone_field {
            self.known.scan = Some(scan);
            self.known.changed = true;
        }
    }

    fn kind(&self, unit: &Unit) -> FrameKind {
        match unit.largest {
            _ if unit.idr => FrameKind::Idr,
            _ if unit.irap => FrameKind::Cra,
            // H.264 open GOP: a recovery point of count 0, or what encoders without SEI give.
            largest
                if (unit.intra_field || largest == Some(SliceKind::I))
                    && matches!(self.codec, CodecState::H264(_))
                    && match unit.prefix.recovery {
                        Some(recovery) => recovery.count == 0,
                        None => unit.prefix.sequence || unit.prefix.random_access,
                    } =>
            {
                FrameKind::Cra
            }
            Some(SliceKind::I) => FrameKind::I,
            Some(SliceKind::P) => FrameKind::P,
            Some(SliceKind::B) => FrameKind::B,
            None => FrameKind::Other,
        }
    }

    /// Whether the unit precedes the last random access point in display order, and refers to
    /// what lies before that. HEVC says so; elsewhere a picture that comes behind one and is shown
    /// before it can have no other place.
    fn leads(&mut self, unit: &Unit, kind: FrameKind) -> bool {
        match kind {
            FrameKind::Idr => self.entry = None,
            FrameKind::Cra => self.entry = unit.order,
            _ if self.codec.codec() == Codec::H265 => return unit.leading,
            _ => {
                return matches!((unit.order, self.entry), (Some(order), Some(entry))
                    if order.epoch == entry.epoch && order.count < entry.count);
            }
        }
        false
    }

    fn refresh_count(&self, unit: &Unit) -> Entry {
        let (count, mask) = match self.codec {
            CodecState::H264(_) => unit.frame_num,
            _ => (unit.order.map_or(0, |o| o.count.cast_unsigned()), u32::MAX),
        };
        Entry {
            count,
            mask,
            ..Entry::default()
        }
    }

    fn decoding_time(&mut self, unit: &Unit, kind: FrameKind) -> (Option<i64>, bool) {
        let Some(pts) = unit.pts.filter(|_| unit.dts.is_none() && unit.has_picture) else {
            if unit.dts.is_some() || unit.has_picture {
                self.deriver.restart();
            }
            return (unit.dts, false);
        };
        let (numerator, denominator) = self.known.info.frame_rate;
        let duration = (90_000 * i64::from(denominator)).checked_div(i64::from(numerator));
        let dts = self.deriver.next(Timed {
            pts,
            closed: kind == FrameKind::Idr,
            promised: self.known.promised,
            duration,
        });
        (dts, dts.is_some())
    }

    /// Takes together what the bits have told.
    #[cold]
    pub(super) fn learn(&mut self) {
        let (generation, info) = match &self.codec {
            CodecState::H264(state) => (state.generation(), state.info().copied()),
            CodecState::H265(state) => (state.generation(), state.info()),
            CodecState::Mpeg2(state) => (state.generation(), state.info().copied()),
        };
        let observed = self.observed.depth();
        let known = &mut self.known;
        known.changed = false;
        if known.generation != generation {
            known.scan = None;
        }
        known.generation = generation;
        let Some(of_sets) = info else { return };
        known.promised = of_sets.reorder_depth;
        let mut info = VideoInfo {
            reorder_depth: of_sets.reorder_depth.or(observed),
            temporal_layers: of_sets.temporal_layers.max(known.temporal_layers),
            enhancement_layers: known.layers.count_ones() as u8,
            side: known.side,
            ..of_sets
        };
        (info.interlaced, info.field_order) = match known.scan {
            Some(Scan::Progressive) => (false, None),
            Some(Scan::TopFirst) => (true, Some(FieldOrder::TopFirst)),
            Some(Scan::BottomFirst) => (true, Some(FieldOrder::BottomFirst)),
            Some(Scan::ShownTopFirst) if info.interlaced => (true, Some(FieldOrder::TopFirst)),
            Some(Scan::ShownBottomFirst) if info.interlaced => {
                (true, Some(FieldOrder::BottomFirst))
            }
            _ => (info.interlaced, None),
        };
        info.colour.transfer = known.transfer.unwrap_or(info.colour.transfer);
        // Time codes change with each picture, and are shown anew with each key frame.
        let show_timecode = core::mem::take(&mut known.show_timecode);
        if !show_timecode && known.info.side.timecode.is_some() {
            info.side.timecode = known.info.side.timecode;
        }
        if info != known.info {
            known.version += 1;
            known.info = info;
        }
    }

    /// Puts the parameter sets in force together, if they changed.
    #[inline]
    pub(super) fn activate_sets(&mut self) {
        let active = match &self.codec {
            CodecState::H264(state) => state.active(),
            CodecState::H265(state) => state.active(),
            CodecState::Mpeg2(_) => return,
        };
        self.sets.activate(active);
    }
}
