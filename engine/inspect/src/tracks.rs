//! Facts of elementary streams, gathered unit by unit. Fed by every reader of the room.

use std::collections::BTreeMap;

use mirror_base::Instant;
use mirror_media::codec::jpegxs::Header;
use mirror_media::gop::{Gop, GopTracker};
use mirror_media::{AccessUnit, Codec, FrameKind, Pipeline, Track};

use crate::Options;
use crate::census::Census;
use crate::elementary::slices;
use crate::report::{
    Carrier, GopFacts, Report, SpliceFacts, TrackFacts, TransportFacts, UnitFacts, Units,
};

/// Modulus of MPEG-TS times.
const PTS_WRAP: i64 = 1 << 33;

/// What a reader knows of a unit besides the unit itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnitDetail {
    /// Types of its NAL units or OBUs.
    pub(crate) types: Vec<u8>,
    /// And their bytes.
    pub(crate) sizes: Vec<u32>,
    /// RTP: its time on the media clock.
    pub(crate) rtp_timestamp: Option<u32>,
}

/// Gathers the facts of one track.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// PID or SSRC, to tell when the index was given to another stream.
    id: u32,
    track: Track,
    units: u64,
    damaged: u64,
    references_missing: u64,
    bytes: u64,
    letters: String,
    key_frames: Vec<u64>,
    tracker: GopTracker,
    gops: GopFacts,
    first_pts: Option<i64>,
    last_pts: Option<i64>,
    /// The greatest time so far.
    highest_pts: Option<i64>,
    pub(crate) unit_types: BTreeMap<u8, u64>,
    pub(crate) av1_frames: Option<[u64; 3]>,
    pub(crate) jpegxs: Option<Header>,
    /// Kept if they are wanted.
    list: Option<Units>,
}

/// Letters, key frames and groups of one track that are kept.
const MAX_LETTERS: usize = 1 << 24;
const MAX_GROUPS: usize = 1 << 20;

impl Gathered {
    pub(crate) fn new(track: &Track, options: &Options) -> Self {
        Gathered {
            id: track.id,
            track: track.clone(),
            units: 0,
            damaged: 0,
            references_missing: 0,
            bytes: 0,
            letters: String::new(),
            key_frames: Vec::new(),
            tracker: GopTracker::new(),
            gops: GopFacts::default(),
            first_pts: None,
            last_pts: None,
            highest_pts: None,
            unit_types: BTreeMap::new(),
            av1_frames: None,
            jpegxs: None,
            list: options.units.then(Units::default),
        }
    }

    /// One more unit.
    pub(crate) fn unit(&mut self, unit: &AccessUnit) {
        self.unit_with(unit, |_| {});
    }

    /// One more unit; `more` tells what else is known of it, if units are kept.
    pub(crate) fn unit_with(&mut self, unit: &AccessUnit, more: impl FnOnce(&mut UnitFacts)) {
        if let Some(list) = &mut self.list {
            let mut facts = UnitFacts::from(unit);
            more(&mut facts);
            list.add(facts);
        }
        if self.track.codec.is_video() {
            self.picture(unit);
        }
        self.units += 1;
        self.damaged += u64::from(unit.damaged);
        self.references_missing += u64::from(unit.references_missing);
        self.bytes += u64::from(unit.bytes);
        self.first_pts = self.first_pts.or(unit.pts);
        self.last_pts = unit.pts.or(self.last_pts);
        self.highest_pts = self.highest_pts.max(unit.pts);
    }

    fn picture(&mut self, unit: &AccessUnit) {
        let letter = match unit.kind {
            FrameKind::Idr | FrameKind::Cra | FrameKind::I => 'I',
            FrameKind::P => 'P',
            FrameKind::B => 'B',
            FrameKind::Other => '?',
        };
        if self.letters.len() < MAX_LETTERS {
            self.letters.push(letter);
        }
        if unit.kind.is_key() && self.key_frames.len() < MAX_GROUPS {
            self.key_frames.push(self.units);
        }
        if let Some(gop) = self.tracker.take(unit) {
            self.group(&gop);
        }
    }

    fn group(&mut self, gop: &Gop) {
        self.gops.count += 1;
        if self.gops.sizes.len() < MAX_GROUPS {
            self.gops.sizes.push(gop.frames);
        }
        self.gops.open += u64::from(gop.open);
    }

    /// What its bits tell by now.
    pub(crate) fn describe(&mut self, track: &Track) {
        if track.codec != Codec::Unknown || self.track.codec == Codec::Unknown {
            self.track = track.clone();
        }
    }

    pub(crate) fn facts(mut self, carrier: Carrier) -> TrackFacts {
        if let Some(gop) = self.tracker.current().copied() {
            self.group(&gop);
        }
        let transport = !matches!(carrier, Carrier::File | Carrier::Rtp(..));
        let wire = |pts: i64| match transport {
            true => pts.rem_euclid(PTS_WRAP),
            false => pts,
        };
        if let Some(units) = &mut self.list {
            for unit in &mut units.list {
                (unit.pts, unit.dts) = (unit.pts.map(wire), unit.dts.map(wire));
            }
        }
        let epoch = |pts: Option<i64>| pts.map_or(0, |p| p.div_euclid(PTS_WRAP));
        let wraps = epoch(self.highest_pts) - epoch(self.first_pts);
        TrackFacts {
            carrier,
            access_units: self.units,
            damaged: self.damaged,
            references_missing: self.references_missing,
            frame_types: self.letters,
            key_frames: self.key_frames,
            gops: self.gops,
            reorder_depth: self.track.reorder_depth,
            first_pts: self.first_pts.map(wire),
            last_pts: self.last_pts.map(wire),
            pts_wraps: u64::try_from(wraps).unwrap_or(0),
            bytes: self.bytes,
            unit_types: self.unit_types,
            av1_frames: self.av1_frames,
            jpegxs: self.jpegxs,
            units: self.list,
            track: self.track,
        }
    }
}

/// Gathers the facts of everything that a pipeline finds.
#[derive(Debug)]
pub(crate) struct Gatherer {
    /// What is asked for.
    options: Options,
    /// Of a transport stream.
    census: Option<Box<Census>>,
    /// By the pipeline's index.
    tracks: Vec<Gathered>,
    /// Of indexes that were given to other streams.
    past: Vec<Gathered>,
    splices: Vec<SpliceFacts>,
    version: u32,
}

/// Tracks of the past that are kept.
const MAX_PAST: usize = 4096;

impl Gatherer {
    pub(crate) fn new(options: &Options) -> Self {
        Gatherer {
            options: Options {
                units: options.units,
                packets: options.packets,
                ..Options::default()
            },
            census: None,
            tracks: Vec::new(),
            past: Vec::new(),
            splices: Vec::new(),
            version: 0,
        }
    }

    /// A payload of a transport stream, which the pipeline gets as well; packets were lost before
    /// it if there is a `gap`.
    pub(crate) fn payload(&mut self, arrival: Instant, payload: &[u8], gap: bool) {
        let options = &self.options;
        let fresh = || Box::new(Census::new(options));
        let census = self.census.get_or_insert_with(fresh);
        if gap {
            census.gap();
        }
        census.payload(arrival, payload);
    }

    /// Takes all that the pipeline has ready; `each` sees every unit first, and tells more of it.
    pub(crate) fn drain(
        &mut self,
        pipeline: &mut Pipeline,
        mut each: impl FnMut(&Pipeline, &AccessUnit) -> UnitDetail,
    ) {
        while let Some(unit) = pipeline.poll_unit() {
            let detail = each(pipeline, &unit);
            self.learn(pipeline);
            if let Some(track) = self.tracks.get_mut(usize::from(unit.track)) {
                let codec = track.track.codec;
                track.unit_with(&unit, |facts| {
                    facts.rtp_timestamp = detail.rtp_timestamp;
                    match codec {
                        Codec::Av1 => {
                            facts.obu_types = detail.types;
                            facts.obu_bytes = detail.sizes;
                        }
                        _ if detail.types.is_empty() => {}
                        _ => {
                            facts.slices = slices(codec, &detail.types);
                            facts.nal_types = detail.types;
                        }
                    }
                });
            }
        }
        while let Some(splice) = pipeline.poll_splice() {
            self.learn(pipeline);
            let track = self.tracks.get(usize::from(splice.track));
            self.splices.push(SpliceFacts {
                pid: track.map_or(0, |t| t.id),
                command: splice.command,
                pts: splice.pts.map(|pts| pts.rem_euclid(PTS_WRAP)),
                segmentation: splice.segmentation,
            });
        }
    }

    /// What the pipeline tells of its tracks, if it has changed.
    fn learn(&mut self, pipeline: &Pipeline) {
        let version = pipeline.tracks_version();
        if version == self.version && !self.tracks.is_empty() {
            return;
        }
        self.version = version;
        for (index, track) in pipeline.tracks().iter().enumerate() {
            match self.tracks.get_mut(index) {
                None => self.tracks.push(Gathered::new(track, &self.options)),
                Some(known) if known.id == track.id => {
                    if !track.gone {
                        known.describe(track);
                    }
                }
                Some(known) => {
                    let fresh = Gathered::new(track, &self.options);
                    let before = core::mem::replace(known, fresh);
                    if self.past.len() < MAX_PAST {
                        self.past.push(before);
                    }
                }
            }
        }
    }

    /// The end: all goes into the report.
    pub(crate) fn finish(mut self, pipeline: &Pipeline, carrier: Carrier, report: &mut Report) {
        self.version = self.version.wrapping_sub(1);
        self.learn(pipeline);
        let carrier = match carrier {
            Carrier::Rtp(port, ssrc) if pipeline.container() == Some("mpegts") => {
                Carrier::RtpTransport(port, ssrc)
            }
            other => other,
        };
        for track in self.past.into_iter().chain(self.tracks) {
            let facts = track.facts(carrier);
            if facts.track.codec == Codec::Klv {
                report.klv.push((facts.track.id, facts.access_units));
            }
            report.tracks.push(facts);
        }
        report.scte35.append(&mut self.splices);
        let counters = pipeline.counters();
        let census = self.census.filter(|_| counters.ts_packets > 0);
        if let Some(counted) = census.map(|census| census.finish()) {
            report.transports.push(TransportFacts {
                carrier,
                packet_size: counted.packet_size,
                packets: counters.ts_packets,
                null_packets: counters.null_packets,
                continuity_errors: counters.continuity_errors,
                sync_errors: counted.sync_errors,
                sync_losses: counters.sync_losses,
                duration: counted.duration,
                bit_rate: counted.bit_rate,
                tr101290: pipeline.tr101290().cloned().unwrap_or_default(),
                programs: counted.programs,
                tables: counted.tables,
                pids: counted.pids,
            });
        }
    }
}
