//! Reads the heads of NAL units, and puts slices into the units that they belong to.

use mirror_base::Instant;

use super::classify::Wanted;
use super::sets::Kind;
use super::unit::{Head, Prefix};
use super::{Assembler, CodecState};
use crate::codec::bits::unescape;
use crate::codec::scan::Scan;
use crate::codec::sei::{self, Dialect, Messages};
use crate::codec::{SliceKind, h264, mpeg2};

impl Assembler {
    /// A NAL unit other than a slice, or its head. `ended`: it is all of it, unless it was too
    /// long to keep.
    pub(super) fn read_nal(&mut self, wanted: Wanted, nal: &[u8], ended: bool) {
        match wanted {
            Wanted::Vps | Wanted::Sps | Wanted::Pps => self.read_set(wanted, nal, ended),
            Wanted::Sei => self.read_sei(nal),
            Wanted::Extension => {
                if let Some(&[_, a, b, c]) = nal.first_chunk::<4>() {
                    let layer = h264::extension([a, b, c]).layer;
                    if layer > 0 {
                        self.see_layer(layer);
                    }
                }
            }
            Wanted::Sequence
            | Wanted::Group
            | Wanted::Picture
            | Wanted::MpegExtension
            | Wanted::UserData => self.read_mpeg2(wanted, nal.get(1..).unwrap_or_default()),
            Wanted::Nothing | Wanted::Layer(_) | Wanted::End => {}
        }
    }

    /// A parameter set. One that was read before is not read again.
    pub(super) fn read_set(&mut self, wanted: Wanted, nal: &[u8], whole: bool) {
        let kind = match wanted {
            Wanted::Vps => Kind::Vps,
            Wanted::Sps => Kind::Sps,
            _ => Kind::Pps,
        };
        if kind == Kind::Sps && matches!(self.codec, CodecState::H264(_)) {
            self.prefix.sequence = true;
        }
        if self.sets.knows(kind, nal) {
            return;
        }
        let ids = match &mut self.codec {
            CodecState::H264(state) => {
                let rbsp = nal.get(1..).unwrap_or_default();
                match kind {
                    Kind::Pps => state.add_pps(rbsp),
                    _ => state.add_sps(rbsp).map(|id| (id, 0)),
                }
            }
            CodecState::H265(state) => {
                let rbsp = nal.get(2..).unwrap_or_default();
                match kind {
                    Kind::Vps => state.add_vps(rbsp).map(|id| (id, 0)),
                    Kind::Sps => state.add_sps(rbsp),
                    Kind::Pps => state.add_pps(rbsp),
                }
            }
            CodecState::Mpeg2(_) => return,
        };
        match ids {
            Some((id, refers_to)) if whole => self.sets.keep(kind, id, refers_to, nal),
            Some(_) => {}
            None => self.counters.malformed += 1,
        }
    }

    fn read_sei(&mut self, nal: &[u8]) {
        let mut rbsp = core::mem::take(&mut self.known.rbsp);
        rbsp.clear();
        let found = match &self.codec {
            CodecState::H264(state) => {
                unescape(nal.get(1..).unwrap_or_default(), &mut rbsp);
                sei::read(Dialect::H264, &rbsp, |sps| state.timing_syntax(sps))
            }
            CodecState::H265(state) => {
                unescape(nal.get(2..).unwrap_or_default(), &mut rbsp);
                sei::read(Dialect::H265, &rbsp, |_| state.timing_syntax())
            }
            CodecState::Mpeg2(_) => Messages::default(),
        };
        self.known.rbsp = rbsp;
        self.learn_messages(&found);
    }

    fn learn_messages(&mut self, found: &Messages) {
        self.prefix.scan = found.scan.or(self.prefix.scan);
        let others = Messages {
            scan: None,
            ..*found
        };
        if others == Messages::default() {
            return;
        }
        self.prefix.recovery = self.prefix.recovery.or(found.recovery);
        let known = &mut self.known;
        known.changed = true;
        let side = &mut known.side;
        side.recovery_point |= found.recovery.is_some();
        side.cea608 |= found.cea608;
        side.cea708 |= found.cea708;
        side.hdr10_plus |= found.hdr10_plus;
        side.mastering = found.mastering.or(side.mastering);
        side.light = found.light.or(side.light);
        if let Some(code) = found.timecode {
            side.timecode = Some(code.after(side.timecode));
        }
        known.transfer = found.transfer.or(known.transfer);
    }

    fn read_mpeg2(&mut self, wanted: Wanted, data: &[u8]) {
        let CodecState::Mpeg2(state) = &mut self.codec else {
            return;
        };
        let good = match wanted {
            Wanted::Sequence => {
                self.prefix.sequence = true;
                state.add_sequence(data)
            }
            Wanted::Group => match state.add_group(data) {
                Some(group) => {
                    self.prefix.sequence = true;
                    self.prefix.closed = group.closed;
                    self.prefix.broken_link = group.broken;
                    self.known.side.timecode = Some(group.timecode);
                    self.known.changed = true;
                    true
                }
                None => false,
            },
            Wanted::Picture => state.add_picture(data),
            Wanted::MpegExtension => state.add_extension(data),
            _ => {
                let (cea608, cea708) = sei::captions(data);
                let side = &mut self.known.side;
                self.known.changed |= (cea608 && !side.cea608) || (cea708 && !side.cea708);
                side.cea608 |= cea608;
                side.cea708 |= cea708;
                true
            }
        };
        self.counters.malformed += u64::from(!good);
    }

    pub(super) fn on_slice(&mut self, head: &[u8], arrival: Instant) {
        match self.codec {
            CodecState::H264(_) => self.on_h264_slice(head, arrival),
            CodecState::H265(_) => self.on_h265_slice(head, arrival),
            CodecState::Mpeg2(_) => {}
        }
        self.activate_sets();
        if self.known.changed {
            self.learn();
        }
    }

    fn on_h264_slice(&mut self, head: &[u8], arrival: Instant) {
        let CodecState::H264(state) = &mut self.codec else {
            return;
        };
        let before = state.previous();
        let Some(slice) = state.parse_slice(head) else {
            return self.malformed_slice(arrival);
        };
        let begins = state.begins_picture(slice);
        let completes = before.is_some_and(|first| h264::completes_frame(&first, &slice));
        let second = begins && completes && self.open && self.unit.lone_field;
        let order = if begins {
            state.picture_order(&slice, second)
        } else {
            None
        };
        let lacks = begins && !second && state.lacks_references(&slice);
        let temporal_id = self.known.next_temporal_id.take().unwrap_or(0);
        self.known.changed |= state.generation() != self.known.generation;
        let place = match slice.first_mb {
            0 => Head::First,
            _ if slice.any_order() => Head::Unknown,
            _ => Head::Missing,
        };
        let field = slice.rest.is_some_and(|r| r.field);
        let scan = match slice.rest {
            Some(rest) if rest.field && rest.bottom => Some(Scan::BottomFirst),
            Some(rest) if rest.field => Some(Scan::TopFirst),
            _ => state.frames_are_progressive().then_some(Scan::Progressive),
        };
        if second {
            // A random access point in fields is an I field and mostly a P field that refers to
            // it (H.264 D.2.8: the recovery point is that of the first).
            self.second_field();
            self.unit.damaged |= place == Head::Missing;
            self.unit.order = self.unit.order.min(order);
        } else {
            self.place_slice(begins, place, arrival);
            if begins {
                self.unit.order = order;
                self.unit.lone_field |= field;
                self.unit.references_missing = lacks;
                self.unit.prefix.scan = self.unit.prefix.scan.or(scan);
                self.see_temporal_id(temporal_id);
                if let Some(rest) = slice.rest {
                    self.unit.frame_num = (rest.frame_num, rest.frame_num_mask);
                }
            } else if !slice.any_order()
                && !slice.is_redundant()
                && before.is_some_and(|b| b.first_mb >= slice.first_mb)
            {
                self.unit.damaged = true;
            }
        }
        self.unit.idr |= slice.idr;
        self.unit.discardable = slice.ref_idc == 0;
        self.unit.largest = self.unit.largest.max(slice.kind);
    }

    fn on_h265_slice(&mut self, head: &[u8], arrival: Instant) {
        let CodecState::H265(state) = &mut self.codec else {
            return;
        };
        let before = state.previous();
        let Some(slice) = state.parse_slice(head) else {
            return self.malformed_slice(arrival);
        };
        state.follow(slice);
        let begins = before.is_none_or(|before| slice.is_of_another_picture(&before));
        let (order, afresh) = if begins {
            state.picture_order(&slice)
        } else {
            (None, false)
        };
        let lacks = begins && state.lacks_references(&slice, order, afresh);
        self.known.changed |= state.generation() != self.known.generation;
        let place = if slice.first {
            Head::First
        } else {
            Head::Missing
        };
        self.place_slice(begins, place, arrival);
        if begins {
            self.unit.order = order;
            self.unit.afresh = afresh;
            self.unit.references_missing = lacks;
            self.unit.leading = slice.is_rasl();
            self.see_temporal_id(slice.temporal_id);
        } else {
            self.unit.damaged |= before.is_some_and(|before| slice.is_out_of_order(&before));
        }
        self.unit.idr |= slice.is_idr();
        self.unit.irap |= slice.is_irap();
        self.unit.discardable = slice.is_discardable();
        self.unit.largest = self.unit.largest.max(slice.kind);
    }

    /// MPEG-2: a slice in `row`. Its picture's facts are those of the headers before it.
    pub(super) fn on_row(&mut self, row: u8, arrival: Instant) {
        let CodecState::Mpeg2(state) = &mut self.codec else {
            return;
        };
        if let Some(picture) = state.take_pending() {
            self.on_picture(picture, row, arrival);
        } else if !self.open || !self.unit.has_picture {
            self.place_slice(false, Head::Missing, arrival);
        } else {
            self.unit.boundary = None;
        }
        if let CodecState::Mpeg2(state) = &mut self.codec {
            self.unit.damaged |= state.skips_rows(row);
        }
        if self.known.changed {
            self.learn();
        }
    }

    /// MPEG-2: the first slice of a picture.
    fn on_picture(&mut self, picture: mpeg2::Picture, row: u8, arrival: Instant) {
        let CodecState::Mpeg2(state) = &mut self.codec else {
            return;
        };
        self.known.changed |= state.generation() != self.known.generation;
        let completes = state
            .current()
            .is_some_and(|first| picture.completes(&first));
        if completes && self.open && self.unit.lone_field {
            let lacks = state.lacks_rows();
            state.follow(picture);
            self.second_field();
            self.unit.damaged |= lacks;
            self.unit.largest = self.unit.largest.max(picture.kind);
            return;
        }
        let order = state.picture_order(&picture);
        let place = if row == 1 { Head::First } else { Head::Unknown };
        self.place_slice(true, place, arrival);
        if let CodecState::Mpeg2(state) = &mut self.codec {
            state.follow(picture);
        }
        self.see_temporal_id(0);
        let unit = &mut self.unit;
        unit.order = Some(order);
        unit.lone_field = picture.is_field();
        unit.prefix.scan = picture.scan();
        unit.largest = picture.kind;
        unit.discardable = picture.is_discardable();
        let entry = picture.kind == Some(SliceKind::I) && unit.prefix.sequence;
        unit.idr = entry && unit.prefix.closed;
        unit.irap = entry;
    }

    /// The slice that begins at `self.nal` is of the field that completes the unit's frame.
    fn second_field(&mut self) {
        self.unit.intra_field = self.unit.largest == Some(SliceKind::I);
        self.unit.lone_field = false;
        self.unit.boundary = None;
        // What stood between the fields belongs to this frame.
        self.prefix = Prefix::default();
    }

    fn see_temporal_id(&mut self, id: u8) {
        self.unit.temporal_id = id;
        if id >= self.known.temporal_layers {
            self.known.temporal_layers = id.saturating_add(1);
            self.known.changed = true;
        }
    }

    fn malformed_slice(&mut self, arrival: Instant) {
        self.counters.malformed += 1;
        if !self.open {
            self.place_slice(false, Head::Unknown, arrival);
        }
        self.unit.damaged = true;
        self.unit.has_picture = true;
    }

    /// Puts the slice that begins at `self.nal` into the unit that it belongs to. `head` counts
    /// where its picture begins with it.
    fn place_slice(&mut self, begins: bool, head: Head, arrival: Instant) {
        let boundary = self.unit.boundary.filter(|_| self.open);
        let boundary = boundary.unwrap_or(self.nal);
        let contradicted = self.trust.verdict(begins, boundary.total);
        let lacks_head = head == Head::Missing || (self.lossy && head == Head::Unknown);
        if !self.open {
            self.open_at(self.nal);
            // Nothing but the slice's own word tells that the picture's start is here.
            self.unit.damaged |= contradicted || lacks_head;
        } else if self.unit.has_picture && begins {
            self.close_at(boundary, arrival);
            self.open_at(boundary);
            self.unit.damaged |= lacks_head;
        } else if !self.unit.has_picture {
            self.unit.damaged |= lacks_head;
        } else {
            // What stood between two slices of a picture belongs to it.
            self.unit.boundary = None;
            self.prefix = Prefix::default();
            return;
        }
        self.unit.has_picture = true;
        self.unit.prefix = core::mem::take(&mut self.prefix);
        self.lossy = false;
    }
}
