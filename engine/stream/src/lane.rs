//! Lanes of a stream: what comes with a sequence numbering of its own, with its slot ring and its
//! pipeline. An SRT stream and an RTP source have one; a configured RTP session has one for each
//! `m=` line of its description (audio beside video).
//!
//! The lane's number stands in the upper bits of its slot indexes, so that a place in memory, and
//! with it an access unit, is unique in the stream without a word more. The first lane's number
//! is 0: its indexes are what they were before there were others.

use core::time::Duration;

use mirror_base::{Instant, SlotRing};
use mirror_media::{AccessUnit, Format, Limits, Pipeline, Splice, Track};

use crate::timeline::Origin;

/// Lanes of a stream at the most.
pub const MAX_LANES: usize = 8;
/// Slot indexes of lane `n` begin at `n << LANE_SHIFT`: no numbering ever comes so far.
const LANE_SHIFT: u32 = 56;
/// Where the second lane's indexes begin.
pub(crate) const SECOND_LANE: u64 = 1 << LANE_SHIFT;
/// Groups of pictures whose sizes in memory are remembered.
const SPANS: usize = 4;
/// Tracks of a stream with several lanes.
const MAX_TRACKS: usize = 256;

/// The lane of a slot.
#[inline]
pub const fn lane_of(slot: u64) -> usize {
    (slot >> LANE_SHIFT) as usize
}

/// One lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) ring: SlotRing,
    pub(crate) pipeline: Option<Pipeline>,
    /// The next packet does not continue what the pipeline saw (pause, new session).
    pub(crate) broken: bool,
    /// How long the last packet was held between arrival and delivery. The pipeline's clock is
    /// that of arrivals: it runs late by this much.
    pub(crate) held: Duration,
    /// How long a gap may hold up delivery, in wait for its repair: units in assembly wait, too.
    pub(crate) patience: Duration,
    /// The version of the pipeline's tracks that was last shown.
    pub(crate) tracks_version: u32,
    /// By the pipeline's track: its number in the stream. Empty in a stream of one lane, where
    /// they are the same.
    numbers: Vec<u16>,
    /// Presentation time of its last unit, for what the sender's reports say.
    last_pts: Option<i64>,
    /// 90 kHz ticks from its presentation times to the sender's clock, once a report has told.
    clock_offset: Option<i64>,
    /// RTP: Hz of its media clock, 0 where nothing says it.
    clock_rate: u32,
    /// Where its slots ended when the last group of pictures began.
    gop_mark: u64,
    /// Slots that the last groups took.
    gop_spans: [u64; SPANS],
    /// Bytes of ring that the groups to be kept take.
    pub(crate) gop_bytes: usize,
    /// Bytes of ring that one group takes.
    pub(crate) group_bytes: usize,
}

impl Lane {
    pub(crate) fn new(number: usize) -> Self {
        let mut ring = SlotRing::new();
        ring.release_before((number as u64) << LANE_SHIFT);
        Lane {
            ring,
            pipeline: None,
            broken: false,
            held: Duration::ZERO,
            patience: Duration::ZERO,
            tracks_version: 0,
            numbers: Vec::new(),
            last_pts: None,
            clock_offset: None,
            clock_rate: 0,
            gop_mark: 0,
            gop_spans: [0; SPANS],
            gop_bytes: 0,
            group_bytes: 0,
        }
    }

    /// A session begins: its pipeline, if there is to be one. That of MPEG-TS goes on where there
    /// is one, and its tracks keep their identity.
    pub(crate) fn begin(&mut self, format: Option<(Format, &Limits)>, returns: bool) {
        self.broken |= returns;
        self.clock_offset = None;
        self.last_pts = None;
        self.gop_mark = 0;
        self.clock_rate = match &format {
            Some((Format::Rtp { clock_rate, .. }, _)) => *clock_rate,
            _ => 0,
        };
        match (&self.pipeline, format) {
            (_, None) | (Some(_), Some((Format::MpegTs, _))) => {}
            (_, Some((format, limits))) => {
                self.pipeline = Some(Pipeline::new(format, limits.clone()));
            }
        }
    }

    /// How late the pipeline's clock runs.
    #[inline]
    pub(crate) fn delay(&self) -> Duration {
        self.held.max(self.patience)
    }

    #[inline]
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let at = self.pipeline.as_ref().and_then(Pipeline::poll_timeout)?;
        Some(at + self.delay())
    }

    /// Whether its tracks have changed since [`Lane::take_changed`] was called last.
    #[inline]
    fn has_changed(&self) -> bool {
        let version = self.pipeline.as_ref().map(Pipeline::tracks_version);
        version.is_some_and(|version| version != self.tracks_version)
    }

    /// Whether its tracks have changed since the last call.
    #[inline]
    fn take_changed(&mut self) -> bool {
        let version = self.pipeline.as_ref().map(Pipeline::tracks_version);
        version
            .is_some_and(|version| core::mem::replace(&mut self.tracks_version, version) != version)
    }

    pub(crate) fn tracks(&self) -> &[Track] {
        self.pipeline.as_ref().map_or(&[], |p| p.tracks())
    }

    /// Where a unit of it comes from.
    #[inline]
    pub(crate) const fn origin(&self, number: usize) -> Origin {
        Origin {
            lane: number,
            clock_rate: self.clock_rate,
            sender: self.clock_offset,
        }
    }

    /// A group of pictures begins about here.
    fn begin_gop(&mut self) {
        let end = self.ring.end();
        if self.gop_mark > 0 {
            self.gop_spans.rotate_left(1);
            if let Some(last) = self.gop_spans.last_mut() {
                *last = end.saturating_sub(self.gop_mark);
            }
        }
        self.gop_mark = end.max(1);
    }

    /// Takes in how many groups are to be kept, and how many bytes at the most; `going_on`: the
    /// one at hand may still be kept whole.
    fn want_gops(&mut self, keep: usize, most: usize, going_on: bool) {
        let mut span = self.gop_spans.iter().copied().max().unwrap_or(0);
        if going_on && self.gop_mark > 0 {
            span = span.max(self.ring.end().saturating_sub(self.gop_mark));
        }
        let group = usize::try_from(span).unwrap_or(usize::MAX);
        self.group_bytes = group.saturating_mul(self.ring.slot_bytes());
        let slots = span.saturating_mul(keep as u64);
        // An eighth more: no two groups are alike.
        let slots = usize::try_from(slots + slots / 8).unwrap_or(usize::MAX);
        self.gop_bytes = slots.saturating_mul(self.ring.slot_bytes()).min(most);
    }

    /// Bytes of ring that hold what was delivered, or may come to: it is grown for `least`.
    pub(crate) fn history_bytes(&self, least: usize) -> usize {
        let held = self.ring.end().saturating_sub(self.ring.floor());
        let held = usize::try_from(held).unwrap_or(usize::MAX);
        let held = held.saturating_mul(self.ring.slot_bytes());
        self.ring.capacity_bytes().saturating_sub(held).max(least)
    }

    /// What the sender says of its clock: it showed `ntp` (RFC 3550, 4: seconds in 32.32 bits)
    /// when its media clock of `clock_rate` Hz stood at `timestamp`.
    pub(crate) fn set_sender_clock(&mut self, ntp: u64, timestamp: u32, clock_rate: u32) {
        let (Some(last), 1..) = (self.last_pts, clock_rate) else {
            return;
        };
        let rate = i128::from(clock_rate);
        // The report is about a moment near the last unit: not half a turn of the media clock.
        let last = i128::from(last) * rate / 90_000;
        let step = timestamp.wrapping_sub(last as u32).cast_signed();
        let reported = (last + i128::from(step)) * 90_000 / rate;
        let sender = (u128::from(ntp) * 90_000) >> 32;
        self.clock_offset = i64::try_from(sender.cast_signed() - reported).ok();
    }
}

/// The lanes of one stream, and the tracks of all of them.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) first: Lane,
    pub(crate) others: Vec<Lane>,
    /// Tracks of all lanes, in the order in which they were seen; empty in a stream of one lane.
    tracks: Vec<Track>,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Lanes {
            first: Lane::new(0),
            others: Vec::new(),
            tracks: Vec::new(),
        }
    }

    /// From now on there are `count` lanes; those that there were keep their memory.
    pub(crate) fn set_count(&mut self, count: usize) {
        for number in self.others.len() + 1..count.clamp(1, MAX_LANES) {
            self.others.push(Lane::new(number));
        }
    }

    pub(crate) const fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// The lane of `slot`.
    #[inline(always)]
    pub(crate) fn of_mut(&mut self, slot: u64) -> Option<&mut Lane> {
        if slot < SECOND_LANE {
            return Some(&mut self.first);
        }
        self.others.get_mut(lane_of(slot).wrapping_sub(1))
    }

    pub(crate) fn get(&self, lane: usize) -> Option<&Lane> {
        match lane.checked_sub(1) {
            None => Some(&self.first),
            Some(other) => self.others.get(other),
        }
    }

    pub(crate) fn get_mut(&mut self, lane: usize) -> Option<&mut Lane> {
        match lane.checked_sub(1) {
            None => Some(&mut self.first),
            Some(other) => self.others.get_mut(other),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        core::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        core::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// Elementary streams of all lanes.
    pub(crate) fn tracks(&self) -> &[Track] {
        if self.others.is_empty() {
            self.first.tracks()
        } else {
            &self.tracks
        }
    }

    /// Whether any lane's tracks have changed since [`Lanes::take_changed`] was called last.
    #[inline]
    pub(crate) fn has_changed(&self) -> bool {
        self.first.has_changed() || self.others.iter().any(Lane::has_changed)
    }

    /// Whether any lane's tracks have changed since the last call; then they are shown anew.
    #[inline]
    pub(crate) fn take_changed(&mut self) -> bool {
        let changed = self.first.take_changed();
        if self.others.is_empty() {
            return changed;
        }
        self.any_changed(changed)
    }

    #[inline(never)]
    fn any_changed(&mut self, first: bool) -> bool {
        let others = self.others.iter_mut();
        let changed = others.fold(first, |changed, lane| lane.take_changed() | changed);
        if changed {
            self.number_tracks();
        }
        changed
    }

    /// Gives every track of every lane its number in the stream, which it keeps.
    #[cold]
    fn number_tracks(&mut self) {
        let Lanes {
            first,
            others,
            tracks: all,
        } = self;
        for lane in core::iter::once(first).chain(others) {
            let Lane {
                pipeline: Some(pipeline),
                numbers,
                ..
            } = lane
            else {
                continue;
            };
            // A pipeline that was made anew may have fewer than the one before.
            for number in numbers.iter().skip(pipeline.tracks().len()) {
                if let Some(track) = all.get_mut(usize::from(*number)) {
                    track.gone = true;
                }
            }
            for (at, track) in pipeline.tracks().iter().enumerate() {
                if let Some(place) = numbers.get(at).and_then(|n| all.get_mut(usize::from(*n))) {
                    place.clone_from(track);
                } else if at == numbers.len() && all.len() < MAX_TRACKS {
                    numbers.push(all.len() as u16);
                    all.push(track.clone());
                }
            }
        }
    }

    /// The lane's next complete access unit, its track numbered as the stream numbers them.
    #[inline]
    pub(crate) fn poll_unit(&mut self, lane: usize) -> Option<AccessUnit> {
        let alone = self.others.is_empty();
        let from = self.get_mut(lane)?;
        let mut unit = from.pipeline.as_mut()?.poll_unit()?;
        from.last_pts = unit.pts.or(from.last_pts);
        if !alone {
            let known = from.numbers.get(usize::from(unit.track)).copied();
            unit.track = match known {
                Some(number) => number,
                None => {
                    // Its track has come with it.
                    self.number_tracks();
                    let number = |l: &Lane| l.numbers.get(usize::from(unit.track)).copied();
                    self.get(lane).and_then(number).unwrap_or(u16::MAX)
                }
            };
        }
        Some(unit)
    }

    /// The lane's next splice command, its track numbered as the stream numbers them.
    pub(crate) fn poll_splice(&mut self, lane: usize) -> Option<Splice> {
        let alone = self.others.is_empty();
        let from = self.get_mut(lane)?;
        let mut splice = from.pipeline.as_mut()?.poll_splice()?;
        if !alone {
            let number = from.numbers.get(usize::from(splice.track)).copied();
            splice.track = number.unwrap_or(u16::MAX);
        }
        Some(splice)
    }

    /// The lane of `slot`.
    #[inline]
    pub(crate) fn of(&self, slot: u64) -> Option<&Lane> {
        self.get(lane_of(slot))
    }

    /// A group of pictures begins now.
    pub(crate) fn begin_gop(&mut self) {
        self.iter_mut().for_each(Lane::begin_gop);
    }

    /// See [`Lane::want_gops`].
    pub(crate) fn want_gops(&mut self, keep: usize, most: usize, going_on: bool) {
        for lane in self.iter_mut() {
            lane.want_gops(keep, most, going_on);
        }
    }

    /// The pipeline that made `unit`, and the unit as that pipeline knows it.
    fn source_of(&self, unit: &AccessUnit) -> Option<(&Lane, AccessUnit)> {
        let lane = self.get(lane_of(unit.first.slot))?;
        let mut own = *unit;
        if !self.others.is_empty() {
            let number = lane.numbers.iter().position(|n| *n == unit.track)?;
            own.track = number as u16;
        }
        Some((lane, own))
    }

    /// Appends the unit's elementary-stream bytes to `out`; `false` when they are gone.
    pub(crate) fn extract(&self, unit: &AccessUnit, out: &mut Vec<u8>) -> bool {
        self.source_of(unit).is_some_and(|(lane, own)| {
            lane.pipeline
                .as_ref()
                .is_some_and(|p| p.extract(&own, &lane.ring, out))
        })
    }

    /// The parameter sets in force of the stream's track `number`.
    pub(crate) fn parameter_sets(&self, number: u16) -> &[u8] {
        if self.others.is_empty() {
            let pipeline = self.first.pipeline.as_ref();
            return pipeline.map_or(&[], |p| p.parameter_sets(number));
        }
        for lane in self.iter() {
            let own = lane.numbers.iter().position(|n| *n == number);
            if let (Some(own), Some(pipeline)) = (own, &lane.pipeline) {
                return pipeline.parameter_sets(own as u16);
            }
        }
        &[]
    }

    /// 90 kHz ticks from the presentation times of the stream's track `number` to the clock of
    /// its sender, once it has told.
    pub(crate) fn clock_offset(&self, number: u16) -> Option<i64> {
        let of_track = |lane: &&Lane| self.others.is_empty() || lane.numbers.contains(&number);
        self.iter().find(of_track)?.clock_offset
    }

    /// Slots in use and not released.
    pub(crate) fn used_slots(&self) -> u64 {
        let used = |ring: &SlotRing| ring.end().saturating_sub(ring.floor());
        self.iter().map(|lane| used(&lane.ring)).sum()
    }

    /// Slots that the memory of all lanes holds.
    pub(crate) fn capacity_slots(&self) -> usize {
        self.iter().map(|lane| lane.ring.capacity_slots()).sum()
    }

    /// Bytes of slots in use and not released.
    pub(crate) fn used_bytes(&self) -> u64 {
        let used = |ring: &SlotRing| ring.end().saturating_sub(ring.floor());
        let bytes = |ring: &SlotRing| used(ring).saturating_mul(ring.slot_bytes() as u64);
        self.iter().map(|lane| bytes(&lane.ring)).sum()
    }

    /// Bytes that the memory of all lanes has.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.iter().map(|lane| lane.ring.capacity_bytes()).sum()
    }

    /// Bytes of one slot, in the lane where it is longest.
    pub(crate) fn slot_bytes(&self) -> usize {
        let bytes = self.iter().map(|lane| lane.ring.slot_bytes());
        bytes.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use mirror_base::{Chunk, Delivery, SlotMeta, StreamId};

    use super::*;
    use crate::report::{Mode, Protocol};
    use crate::{Stream, StreamConfig};

    const CLIP: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/media/ts_h264_aac_cbr600k.ts"
    );

    /// A stream whose `lanes` lanes all bring the clip, packet by packet in turn.
    fn play(lanes: usize) -> Stream {
        let id = StreamId::new("live/lanes").unwrap();
        let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
        let mut now = Instant::from_millis(1_000);
        let config = StreamConfig {
            gop: crate::GopConfig {
                max_frames: 10_000,
                ..crate::GopConfig::default()
            },
            ..StreamConfig::default()
        };
        let mut stream = Stream::new(now, id, Protocol::Rtp, Mode::Listener, peer, config);
        stream.begin_lanes(now, peer, &vec![Format::MpegTs; lanes]);
        let clip = std::fs::read(CLIP).unwrap();
        let payloads: Vec<_> = clip.chunks(1316).collect();
        for lane in 0..lanes {
            let ring = stream.lane_ring_mut(lane).unwrap();
            for _ in 0..payloads.len().div_ceil(32) + 1 {
                ring.add_chunk(Chunk::owned());
            }
        }
        for payload in payloads {
            now = now.offset_micros(2_000);
            for lane in 0..lanes {
                let ring = stream.lane_ring_mut(lane).unwrap();
                let slot = ring.next_index();
                ring.insert(slot, payload, SlotMeta::new(now, 0, 0))
                    .unwrap();
                assert_eq!(lane_of(slot), lane);
                let delivery = Delivery {
                    slot,
                    arrival: now,
                    handled_after_ns: 0,
                    due: now,
                    lost_before: 0,
                    discontinuity: false,
                };
                stream.deliver(now, &delivery);
            }
        }
        stream
    }

    #[test]
    fn tracks_and_units_of_all_lanes_keep_apart() {
        let alone = play(1);
        let mut three = play(3);
        let tracks = alone.tracks().len();
        assert!(three.take_changed());
        assert_eq!(three.tracks().len(), 3 * tracks);
        assert_eq!(three.units().count(), 3 * alone.units().count());
        for track in 0..tracks as u16 {
            let codec = alone.tracks()[usize::from(track)].codec;
            let units = |stream: &Stream, track: u16| -> Vec<Vec<u8>> {
                let of_track = stream.units().filter(|unit| unit.track == track);
                of_track
                    .map(|unit| {
                        let mut bytes = Vec::new();
                        assert!(stream.extract(unit, &mut bytes));
                        bytes
                    })
                    .collect()
            };
            let expected = units(&alone, track);
            let same: Vec<u16> = (0..3 * tracks as u16)
                .filter(|n| three.tracks()[usize::from(*n)].codec == codec)
                .collect();
            assert_eq!(same.len(), 3);
            for number in same {
                assert_eq!(units(&three, number), expected, "track {number}");
            }
        }
    }

    #[test]
    fn what_a_group_takes_is_held_against_what_the_ring_keeps() {
        let mut lane = Lane::new(0);
        lane.ring.add_chunk(Chunk::owned());
        lane.ring.add_chunk(Chunk::owned());
        lane.begin_gop();
        for n in 0..101 {
            let meta = SlotMeta::new(Instant::ZERO, 0, 0);
            lane.ring.insert(n, &[0; 1316], meta).unwrap();
            lane.ring.release_before(n.saturating_sub(3));
            if n == 0 {
                lane.begin_gop();
            }
        }
        lane.begin_gop();
        lane.want_gops(3, usize::MAX, false);
        assert_eq!(lane.group_bytes, 100 * 1536);
        assert_eq!(lane.gop_bytes, (300 + 37) * 1536);
        assert_eq!(lane.history_bytes(0), (64 - 4) * 1536);
        assert_eq!(lane.history_bytes(1 << 20), 1 << 20);
    }

    #[test]
    fn transport_streams_of_all_lanes_are_measured_and_shown() {
        let mut stream = play(3);
        // What is no transport stream, in the last lane alone.
        let now = Instant::from_millis(60_000);
        for n in 0..20 {
            let ring = stream.lane_ring_mut(2).unwrap();
            let slot = ring.next_index();
            let meta = SlotMeta::new(now, 0, 0);
            ring.insert(slot, &[0x11; 1316], meta).unwrap();
            let delivery = Delivery {
                slot,
                arrival: now.offset_micros(n),
                handled_after_ns: 0,
                due: now,
                lost_before: 0,
                discontinuity: false,
            };
            stream.deliver(now, &delivery);
        }
        let figures = stream.snapshot().figures;
        let counts: Vec<_> = figures
            .tr101290_of
            .iter()
            .map(|(lane, report)| (*lane, report.first_priority()))
            .collect();
        let [(0, 0), (1, 0), (2, errors @ 1..)] = counts[..] else {
            panic!("{counts:?}")
        };
        assert_eq!(figures.tr101290.unwrap().first_priority(), errors);
        assert!(play(1).snapshot().figures.tr101290_of.is_empty());
    }

    #[test]
    fn sender_reports_put_lanes_on_one_clock() {
        let mut stream = play(2);
        let last = stream.lanes_mut().first.last_pts.unwrap();
        // Both lanes show the same pictures: the second one's media clock of 48 kHz is 7 s ahead.
        let other = stream.lanes_mut().get_mut(1).unwrap();
        other.last_pts = Some(last + 630_000);
        let ntp = 3_900_000_000u64 << 32;
        stream.set_sender_clock(0, ntp, (last as u64 & 0xFFFF_FFFF) as u32, 90_000);
        let timestamp = (last + 630_000 + 90_000) * 48_000 / 90_000;
        stream.set_sender_clock(1, ntp + (1 << 32), timestamp as u32, 48_000);
        let lanes = stream.lanes_mut();
        let (first, second) = (lanes.first.clock_offset, lanes.get(1).unwrap().clock_offset);
        assert_eq!(first.unwrap(), 3_900_000_000 * 90_000 - last);
        assert_eq!(second.unwrap() - first.unwrap(), -630_000);
        // A report from just before the turn of the media clock.
        let lane = stream.lanes_mut().get_mut(1).unwrap();
        lane.last_pts = Some((1 << 32) + 90_000);
        lane.set_sender_clock(ntp, u32::MAX, 90_000);
        let offset = lane.clock_offset.unwrap();
        assert_eq!(offset, 3_900_000_000 * 90_000 - ((1 << 32) - 1));
    }
}
