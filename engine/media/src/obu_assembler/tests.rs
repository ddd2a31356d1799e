//! Units of hand-made OBUs: what the captures do not have.

use core::time::Duration;

use super::*;
use crate::tests::bits;

/// 1920 × 1080, order hints of 7 bits, 4:2:0 of 8 bits.
const REST: &str = "4:10 4:10 11:1919 11:1079 1:0 3:0 4:0 1:1 2:3 1:1 1:1 3:6 3:0 \
    1:0 1:0 1:0 1:0 2:0 1:0 1:0 1:1";
const PLAIN: &str = "3:0 1:0 1:0 1:0 1:0 5:0 12:0 5:8 1:0";
/// Two spatial and two temporal layers.
const LAYERED: &str = "3:0 1:0 1:0 1:0 1:0 5:1 12:771 5:8 1:0 12:257 5:8 1:0";
const KEY: &str = "1:0 2:0 1:1 1:0 1:0 1:0 7:0 32:1";
const HIDDEN_KEY: &str = "1:0 2:0 1:0 1:1 1:0 1:0 1:0 1:0 7:9 8:4 32:1";
const SHOW_SLOT_2: &str = "1:1 3:2 4:8";
const INTER: &str = "1:0 2:1 1:1 1:0 1:0 1:0 1:0 7:9 3:0 8:8 32:1";
const UNREFERENCED: &str = "1:0 2:1 1:1 1:0 1:0 1:0 1:0 7:9 3:0 8:0 32:1";
const HIDDEN: &str = "1:0 2:1 1:0 1:1 1:0 1:0 1:0 1:0 7:9 3:0 8:16 32:1";
const INTRA: &str = "1:0 2:2 1:1 1:0 1:0 1:0 1:0 7:9 8:2 32:1";
const SWITCH: &str = "1:0 2:3 1:1 1:0 1:0 7:9 32:1";

fn obu(kind: u8, layer: Option<(u8, u8)>, payload: &[u8]) -> Vec<u8> {
    let (temporal_id, spatial_id) = layer.unwrap_or_default();
    let header = ObuHeader {
        kind,
        extension: layer.is_some(),
        has_size: true,
        temporal_id,
        spatial_id,
    };
    let mut out = Vec::new();
    header.write(payload.len() as u32, &mut out);
    out.extend_from_slice(payload);
    out
}

fn sequence(points: &str) -> Vec<u8> {
    obu(obu::SEQUENCE, None, &bits(&format!("{points} {REST}")))
}

fn frame(text: &str) -> Vec<u8> {
    obu(obu::FRAME, None, &bits(text))
}

fn layer(temporal_id: u8, spatial_id: u8, text: &str) -> Vec<u8> {
    obu(obu::FRAME, Some((temporal_id, spatial_id)), &bits(text))
}

fn delimiter() -> Vec<u8> {
    DELIMITER_OBU.to_vec()
}

fn light() -> Vec<u8> {
    obu(obu::METADATA, None, &[1, 3, 232, 0, 100])
}

struct Feed {
    asm: ObuAssembler,
    at: u64,
    now: Instant,
    units: Vec<AccessUnit>,
}

impl Feed {
    fn new(source_delimits: bool) -> Self {
        Feed {
            asm: ObuAssembler::new(3, &Limits::default(), source_delimits),
            at: 0,
            now: Instant::from_millis(1),
            units: Vec::new(),
        }
    }

    fn place(&self) -> Position {
        Position {
            slot: self.at,
            offset: 0,
        }
    }

    /// An OBU, byte by byte, in a slot of its own.
    fn obu(&mut self, bytes: &[u8]) -> &mut Self {
        self.now += Duration::from_millis(1);
        self.asm.begin(self.place(), 0, self.now);
        for byte in bytes {
            let taken = self.asm.bytes(&[*byte], self.now);
            assert!(taken == 1 || self.asm.counters().oversized > 0);
        }
        self.at += 1;
        self.asm.end(self.place(), self.now);
        self.drain();
        self
    }

    fn drain(&mut self) {
        while let Some(unit) = self.asm.poll_unit() {
            assert!(unit.first <= unit.end && unit.track == 3);
            assert!(unit.first_arrival <= unit.last_arrival);
            assert!(unit.last_arrival <= unit.completed_by);
            self.units.push(unit);
        }
    }

    fn end_of_frame(&mut self) -> usize {
        self.asm.end_of_frame(self.now);
        self.drain();
        self.units.len()
    }

    fn finish(&mut self) -> &[AccessUnit] {
        self.asm.close(self.now, false);
        self.drain();
        &self.units
    }

    fn kinds(&self) -> Vec<FrameKind> {
        self.units.iter().map(|u| u.kind).collect()
    }
}

#[test]
fn a_unit_without_delimiters_ends_before_what_precedes_the_next_frame() {
    let mut feed = Feed::new(false);
    feed.obu(&sequence(PLAIN)).obu(&frame(KEY));
    // Hidden and shown, their metadata before them.
    feed.obu(&light()).obu(&frame(HIDDEN)).obu(&frame(INTER));
    feed.obu(&frame(INTRA))
        .obu(&frame(UNREFERENCED))
        .obu(&frame(SWITCH));
    let sizes: Vec<usize> = [
        vec![sequence(PLAIN), frame(KEY)],
        vec![light(), frame(HIDDEN), frame(INTER)],
        vec![frame(INTRA)],
        vec![frame(UNREFERENCED)],
        vec![frame(SWITCH)],
    ]
    .iter()
    .map(|unit| 2 + unit.iter().map(Vec::len).sum::<usize>())
    .collect();
    let units = feed.finish().to_vec();
    let bytes: Vec<usize> = units.iter().map(|u| u.bytes as usize).collect();
    assert_eq!(bytes, sizes);
    let slots: Vec<(u64, u64)> = units.iter().map(|u| (u.first.slot, u.end.slot)).collect();
    assert_eq!(slots, [(0, 2), (2, 5), (5, 6), (6, 7), (7, 8)]);
    let kinds = [
        FrameKind::Idr,
        FrameKind::P,
        FrameKind::I,
        FrameKind::P,
        FrameKind::P,
    ];
    assert_eq!(feed.kinds(), kinds);
    let discardable: Vec<bool> = units.iter().map(|u| u.discardable).collect();
    assert_eq!(discardable, [false, false, false, true, false]);
    assert!(units.iter().all(|u| !u.damaged));
    let mut track = Track::default();
    feed.asm.describe(&mut track);
    assert_eq!(track.side.light.unwrap().max, 1000);
    assert_eq!(feed.asm.sequence_header(), sequence(PLAIN));
}

#[test]
fn a_sequence_header_behind_a_shown_frame_belongs_to_the_next_unit() {
    let mut feed = Feed::new(false);
    for _ in 0..3 {
        feed.obu(&sequence(PLAIN))
            .obu(&frame(KEY))
            .obu(&frame(INTER));
    }
    feed.finish();
    let two = [FrameKind::Idr, FrameKind::P];
    assert_eq!(feed.kinds(), [two, two, two].concat());
}

#[test]
fn frames_of_several_spatial_layers_are_one_unit() {
    let mut feed = Feed::new(false);
    feed.obu(&sequence(LAYERED)).obu(&layer(0, 0, KEY));
    assert_eq!(feed.end_of_frame(), 0, "the upper layer is to come");
    feed.obu(&layer(0, 1, INTER));
    assert_eq!(feed.end_of_frame(), 1);
    // A unit whose upper layer was left out ends with the time of the next.
    feed.asm.set_timestamps(Some(3600), Some(3600));
    feed.obu(&layer(1, 0, INTER));
    assert_eq!(feed.end_of_frame(), 1);
    feed.asm.time_of_next_frame(Some(3600), feed.now);
    feed.drain();
    assert_eq!(feed.units.len(), 1, "the same time");
    feed.asm.time_of_next_frame(Some(7200), feed.now);
    feed.asm.set_timestamps(Some(7200), Some(7200));
    feed.drain();
    assert_eq!(feed.units.len(), 2);
    feed.obu(&layer(0, 0, INTER))
        .obu(&layer(0, 1, UNREFERENCED));
    assert_eq!(feed.end_of_frame(), 3);
    let ids: Vec<u8> = feed.units.iter().map(|u| u.temporal_id).collect();
    assert_eq!(ids, [0, 1, 0]);
    assert_eq!(feed.kinds(), [FrameKind::Idr, FrameKind::P, FrameKind::P]);
    assert_eq!(feed.units[2].pts, Some(7200));
    assert!(feed.units.iter().all(|u| !u.damaged));
    let mut track = Track::default();
    feed.asm.describe(&mut track);
    assert_eq!((track.temporal_layers, track.enhancement_layers), (2, 1));
}

#[test]
fn units_before_a_forward_key_frame_is_shown_are_leading() {
    let open_gop = |feed: &mut Feed| {
        feed.obu(&delimiter())
            .obu(&sequence(PLAIN))
            .obu(&frame(HIDDEN_KEY));
        feed.obu(&frame(INTER));
        feed.obu(&delimiter()).obu(&frame(INTER));
        feed.obu(&delimiter())
            .obu(&obu(obu::FRAME_HEADER, None, &bits(SHOW_SLOT_2)));
        feed.obu(&delimiter()).obu(&frame(INTER));
    };
    // Joined there, what refers to the frames before is undecodable.
    let mut joined = Feed::new(false);
    open_gop(&mut joined);
    joined.finish();
    let kinds = [FrameKind::Cra, FrameKind::P, FrameKind::I, FrameKind::P];
    assert_eq!(joined.kinds(), kinds);
    let flags = |feed: &Feed| -> Vec<(bool, bool)> {
        feed.units
            .iter()
            .map(|u| (u.leading, u.undecodable))
            .collect()
    };
    let (fine, lost) = ((false, false), (true, true));
    assert_eq!(flags(&joined), [fine, lost, fine, fine]);
    // Not where decoding had begun before.
    let mut whole = Feed::new(false);
    whole
        .obu(&delimiter())
        .obu(&sequence(PLAIN))
        .obu(&frame(KEY));
    open_gop(&mut whole);
    whole.finish();
    assert_eq!(flags(&whole), [fine, fine, (true, false), fine, fine]);
    assert!(whole.units.iter().all(|u| !u.damaged));
}

#[test]
fn a_loss_damages_the_unit_it_hits_and_what_may_have_lost_its_beginning() {
    let mut feed = Feed::new(false);
    feed.obu(&delimiter())
        .obu(&sequence(PLAIN))
        .obu(&frame(KEY));
    feed.obu(&delimiter())
        .obu(&frame(HIDDEN))
        .obu(&frame(INTER));
    feed.obu(&delimiter()).obu(&frame(INTER));
    feed.asm.damage();
    // Its delimiter is gone, and perhaps more.
    feed.obu(&frame(INTER));
    feed.obu(&delimiter()).obu(&frame(INTER));
    // In the midst of an OBU.
    feed.obu(&delimiter());
    feed.asm.begin(feed.place(), 0, feed.now);
    feed.asm.bytes(&frame(INTER)[..5], feed.now);
    feed.asm.damage();
    feed.at += 1;
    feed.obu(&delimiter()).obu(&frame(INTER));
    feed.finish();
    let damaged: Vec<bool> = feed.units.iter().map(|u| u.damaged).collect();
    assert_eq!(damaged, [false, false, true, true, false, true, false]);
    assert!(feed.units.iter().all(|u| !u.undecodable));
}

#[test]
fn a_stream_that_starts_afresh_waits_for_its_key_frame() {
    let mut feed = Feed::new(true);
    feed.asm.next_timestamp(Some(0), feed.now);
    feed.obu(&sequence(PLAIN)).obu(&frame(KEY));
    feed.asm.end_of_unit(feed.now);
    feed.asm.restart(feed.now);
    for pts in [3600, 7200] {
        feed.asm.next_timestamp(Some(pts), feed.now);
        feed.asm.presume_whole();
        feed.obu(&frame(INTER));
    }
    feed.asm.next_timestamp(Some(10_800), feed.now);
    feed.obu(&sequence(PLAIN)).obu(&frame(KEY));
    feed.finish();
    let undecodable: Vec<bool> = feed.units.iter().map(|u| u.undecodable).collect();
    assert_eq!(undecodable, [false, true, true, false]);
    let times: Vec<Option<i64>> = feed.units.iter().map(|u| u.pts).collect();
    assert_eq!(times, [Some(0), Some(3600), Some(7200), Some(10_800)]);
    assert!(feed.units.iter().all(|u| u.dts == u.pts && u.dts_derived));
}

#[test]
fn what_a_time_limit_closes_is_damaged_and_so_is_its_rest() {
    let mut feed = Feed::new(true);
    feed.asm.next_timestamp(Some(0), feed.now);
    feed.obu(&sequence(PLAIN));
    assert!(feed.asm.waiting_since().is_some());
    feed.obu(&frame(KEY));
    feed.asm.close(feed.now, true);
    feed.drain();
    assert_eq!(feed.asm.waiting_since(), None);
    feed.obu(&obu(obu::TILE_GROUP, None, &[1, 2, 3]));
    feed.asm.end_of_unit(feed.now);
    feed.drain();
    let damaged: Vec<(bool, FrameKind)> = feed.units.iter().map(|u| (u.damaged, u.kind)).collect();
    assert_eq!(damaged, [(true, FrameKind::Idr), (true, FrameKind::Other)]);
}

#[test]
fn stuffing_repeated_headers_and_unknown_types_change_nothing() {
    let mut feed = Feed::new(false);
    for kind in [obu::PADDING, 9, 14] {
        feed.obu(&delimiter())
            .obu(&sequence(PLAIN))
            .obu(&frame(KEY));
        feed.obu(&obu(obu::REDUNDANT_HEADER, None, &bits(KEY)));
        feed.obu(&obu(kind, None, &[1, 2, 3]));
        // Not kept.
        feed.obu(&obu(obu::TILE_LIST, None, &[1, 2, 3]));
        feed.obu(&obu(0, None, &[]));
    }
    feed.finish();
    assert_eq!(feed.kinds(), [FrameKind::Idr; 3]);
    let extra = 2 + bits(KEY).len() + 5;
    let bytes = 2 + sequence(PLAIN).len() + frame(KEY).len() + extra;
    assert!(
        feed.units
            .iter()
            .all(|u| !u.damaged && u.bytes as usize == bytes)
    );
}

#[test]
fn hostile_units_of_hidden_frames_without_end_are_bounded() {
    let mut feed = Feed::new(false);
    feed.asm = ObuAssembler::new(
        3,
        &Limits {
            max_frame_size: 500,
            ..Limits::default()
        },
        false,
    );
    feed.obu(&sequence(PLAIN)).obu(&frame(KEY));
    for _ in 0..400 {
        feed.obu(&frame(HIDDEN));
    }
    let oversized = feed.asm.counters().oversized;
    assert!(oversized >= 4, "{oversized}");
    assert!(
        feed.finish()
            .iter()
            .skip(1)
            .all(|u| u.damaged && u.bytes <= 500)
    );
}
