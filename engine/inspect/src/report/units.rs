//! Every unit of an elementary stream, one by one.

use mirror_media::codec::av1::Frame;
use mirror_media::{AccessUnit, DisplayOrder, FrameKind};
use serde_json::{Map, Value, json};

/// Units of one elementary stream that are kept.
const MAX_UNITS: usize = 200_000;

/// One unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitFacts {
    /// What it is.
    pub kind: FrameKind,
    /// Presentation time, 90 kHz, as it is on the wire (RTP: scaled from the media clock).
    pub pts: Option<i64>,
    /// Decoding time likewise.
    pub dts: Option<i64>,
    /// Whether the decoding time is derived from the order of the pictures.
    pub dts_derived: bool,
    /// Bytes of elementary stream.
    pub bytes: u32,
    /// Something of it is missing.
    pub damaged: bool,
    /// May be left out.
    pub discardable: bool,
    /// Precedes its random access point in display order.
    pub leading: bool,
    /// Temporal (sub-)layer.
    pub temporal_id: u8,
    /// Recovery point SEI.
    pub recovery: Option<u16>,
    /// Place in display order.
    pub order: Option<DisplayOrder>,
    /// Offset of its first byte, in files of NAL units.
    pub offset: Option<u64>,
    /// H.264 and HEVC, in files and in RTP: types of its NAL units (MPEG-2 video: start codes).
    pub nal_types: Vec<u8>,
    /// Of these, such as hold slices.
    pub slices: Option<u32>,
    /// AV1, likewise: types of its OBUs.
    pub obu_types: Vec<u8>,
    /// Bytes of each, header and size included.
    pub obu_bytes: Vec<u32>,
    /// AV1 files: its frames.
    pub frames: Vec<Frame>,
    /// RTP: its time on the media clock, as it is on the wire.
    pub rtp_timestamp: Option<u32>,
}

impl From<&AccessUnit> for UnitFacts {
    fn from(unit: &AccessUnit) -> Self {
        UnitFacts {
            kind: unit.kind,
            pts: unit.pts,
            dts: unit.dts,
            dts_derived: unit.dts_derived,
            bytes: unit.bytes,
            damaged: unit.damaged,
            discardable: unit.discardable,
            leading: unit.leading,
            temporal_id: unit.temporal_id,
            recovery: unit.recovery,
            order: unit.order,
            offset: None,
            nal_types: Vec::new(),
            slices: None,
            obu_types: Vec::new(),
            obu_bytes: Vec::new(),
            frames: Vec::new(),
            rtp_timestamp: None,
        }
    }
}

const fn kind_name(kind: FrameKind) -> Option<&'static str> {
    match kind {
        FrameKind::Idr => Some("IDR"),
        FrameKind::Cra => Some("CRA"),
        FrameKind::I => Some("I"),
        FrameKind::P => Some("P"),
        FrameKind::B => Some("B"),
        FrameKind::Other => None,
    }
}

impl UnitFacts {
    fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("pts", json!(self.pts));
        put("dts", json!(self.dts));
        put("bytes", json!(self.bytes));
        if let Some(name) = kind_name(self.kind) {
            put("type", json!(name));
            put("temporal_id", json!(self.temporal_id));
        }
        if let Some(order) = self.order {
            put("display_order", json!([order.epoch, order.count]));
        }
        for (key, value) in [
            ("damaged", self.damaged),
            ("dts_derived", self.dts_derived),
            ("discardable", self.discardable),
            ("leading", self.leading),
        ] {
            if value {
                put(key, json!(true));
            }
        }
        if let Some(frames) = self.recovery {
            put("recovery", json!(frames));
        }
        if let Some(offset) = self.offset {
            put("offset", json!(offset));
        }
        if !self.nal_types.is_empty() {
            put("nal_units", json!(self.nal_types.len()));
            put("nal_types", json!(self.nal_types));
        }
        if let Some(slices) = self.slices {
            put("slices", json!(slices));
        }
        if let Some(timestamp) = self.rtp_timestamp {
            put("rtp_timestamp", json!(timestamp));
        }
        if !self.frames.is_empty() {
            let names = self.frames.iter().map(Frame::to_string);
            put("frames", names.collect());
        }
        if !self.obu_types.is_empty() {
            put("obu_types", json!(self.obu_types));
            put("obu_bytes", json!(self.obu_bytes));
        }
        Value::Object(map)
    }
}

/// The units of an elementary stream, in decoding order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Units {
    /// The first ones.
    pub list: Vec<UnitFacts>,
    /// Those behind them.
    pub left_out: u64,
}

impl Units {
    pub(crate) fn add(&mut self, unit: UnitFacts) {
        if self.list.len() < MAX_UNITS {
            self.list.push(unit);
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn json(&self) -> Value {
        Value::Array(self.list.iter().map(UnitFacts::json).collect())
    }
}
