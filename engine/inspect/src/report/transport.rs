//! Facts of transport streams.

use core::time::Duration;

use mirror_media::Tr101290;
use serde_json::{Map, Value, json};

use super::Carrier;
use super::listed::{Listed, hex};

/// Places of something that are kept; more are only counted.
const MAX_MARKS: usize = 100;

/// Where in a transport stream something is: numbers of packets, from 0 on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// How often.
    pub count: u64,
    /// The first ones.
    pub packets: Vec<u64>,
}

impl Marks {
    /// One more; whether its place is kept.
    pub(crate) fn add(&mut self, packet: u64) -> bool {
        self.count += 1;
        let is_kept = self.packets.len() < MAX_MARKS;
        if is_kept {
            self.packets.push(packet);
        }
        is_kept
    }

    fn json(&self) -> Value {
        json!({"count": self.count, "packets": self.packets})
    }
}

/// Clock references of a PID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PcrFacts {
    /// How many.
    pub count: u64,
    /// Packet and 27 MHz ticks of the first one.
    pub first: (u64, u64),
    /// Of the last one.
    pub last: (u64, u64),
    /// Packets from one to the next, at most.
    pub max_gap_packets: u64,
    /// By their own values, within one time base, µs.
    pub max_gap_us: u64,
    /// Packets whose reference is not within 100 ms of the one before, without
    /// discontinuity_indicator (TR 101 290, 2.3).
    pub jumps: Marks,
}

/// Heads of PES packets of a PID.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PesFacts {
    /// Of the last one.
    pub stream_id: u8,
    /// How many.
    pub count: u64,
    /// Of these, with presentation time.
    pub with_pts: u64,
    /// And with decoding time.
    pub with_dts: u64,
    /// Whose length is not told.
    pub unbounded: u64,
    /// Presentation and decoding times of each, 90 kHz as they are on the wire, if that was asked
    /// for. Heads that go on in another TS packet are left out.
    pub times: Option<Listed<[Option<u64>; 2]>>,
}

/// One PID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PidFacts {
    /// Its number.
    pub pid: u16,
    /// Packets.
    pub packets: u64,
    /// Of these, scrambled ones.
    pub scrambled: Marks,
    /// Packets that were damaged on the way here (transport_error_indicator).
    pub transport_errors: Marks,
    /// Packets whose continuity counter is not the next one.
    pub continuity_errors: Marks,
    /// Of the first ones: the counter before, and the one that came.
    pub continuity_counters: Vec<(u8, u8)>,
    /// Packets that are the same as the one before, which is allowed once (2.4.3.3).
    pub duplicates: Marks,
    /// Packets with discontinuity_indicator.
    pub discontinuities: Marks,
    /// Packets with random_access_indicator.
    pub random_access: Marks,
    /// Clock references.
    pub pcr: Option<PcrFacts>,
    /// PES packets.
    pub pes: Option<PesFacts>,
}

impl PidFacts {
    pub(crate) fn new(pid: u16) -> Self {
        PidFacts {
            pid,
            packets: 0,
            scrambled: Marks::default(),
            transport_errors: Marks::default(),
            continuity_errors: Marks::default(),
            continuity_counters: Vec::new(),
            duplicates: Marks::default(),
            discontinuities: Marks::default(),
            random_access: Marks::default(),
            pcr: None,
            pes: None,
        }
    }

    fn json(&self) -> Value {
        let pcr = self.pcr.as_ref().map(|pcr| {
            json!({
                "count": pcr.count,
                "first": [pcr.first.0, pcr.first.1],
                "last": [pcr.last.0, pcr.last.1],
                "max_gap_packets": pcr.max_gap_packets,
                "max_gap_ms": pcr.max_gap_us as f64 / 1000.0,
                "jumps": pcr.jumps.json(),
            })
        });
        let pes = self.pes.as_ref().map(|pes| {
            let mut map = Map::new();
            let mut put = |key: &str, value: Value| {
                map.insert(key.to_owned(), value);
            };
            put("stream_id", json!(pes.stream_id));
            put("count", json!(pes.count));
            put("with_pts", json!(pes.with_pts));
            put("with_dts", json!(pes.with_dts));
            put("unbounded", json!(pes.unbounded));
            if let Some(times) = &pes.times {
                times.put("times", |[pts, dts]| json!([pts, dts]), &mut put);
            }
            Value::Object(map)
        });
        json!({
            "pid": self.pid,
            "packets": self.packets,
            "scrambled": self.scrambled.json(),
            "transport_errors": self.transport_errors.json(),
            "continuity_errors": {
                "count": self.continuity_errors.count,
                "packets": self.continuity_errors.packets,
                "counters": self.continuity_counters,
            },
            "duplicates": self.duplicates.json(),
            "discontinuities": self.discontinuities.json(),
            "random_access": self.random_access.json(),
            "pcr": pcr,
            "pes": pes,
        })
    }
}

/// What sections of a table hold: those that are alike, byte for byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SectionFacts {
    /// The section, CRC included.
    pub bytes: Vec<u8>,
    /// Its CRC is right, or it has none.
    pub crc_ok: bool,
    /// How often it came.
    pub count: u64,
    /// The packet that it was first complete with.
    pub first_packet: u64,
}

impl SectionFacts {
    fn json(&self) -> Value {
        json!({
            "hex": hex(&self.bytes),
            "crc_ok": self.crc_ok,
            "count": self.count,
            "first_packet": self.first_packet,
        })
    }
}

/// Sections of one table on one PID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableFacts {
    /// PID.
    pub pid: u16,
    /// table_id: 0 PAT, 2 PMT, 0x42 SDT, ...
    pub table_id: u8,
    /// How many.
    pub sections: u64,
    /// Of these, with a wrong CRC, and in which packets they end.
    pub crc_errors: Marks,
    /// Different ones, if that was asked for.
    pub contents: Option<Listed<SectionFacts>>,
}

impl TableFacts {
    pub(crate) fn new(pid: u16, table_id: u8) -> Self {
        TableFacts {
            pid,
            table_id,
            sections: 0,
            crc_errors: Marks::default(),
            contents: None,
        }
    }

    fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("pid", json!(self.pid));
        put("table_id", json!(self.table_id));
        put("sections", json!(self.sections));
        put("crc_errors", self.crc_errors.json());
        if let Some(contents) = &self.contents {
            contents.put("contents", SectionFacts::json, &mut put);
        }
        Value::Object(map)
    }
}

/// A program, as the last PAT and PMT name it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProgramFacts {
    /// program_number.
    pub number: u16,
    /// Where its map is.
    pub pmt_pid: u16,
    /// Where its clock is; `None` while no map has come.
    pub pcr_pid: Option<u16>,
    /// Streams that the map names: PID and stream_type.
    pub streams: Vec<(u16, u8)>,
}

impl ProgramFacts {
    fn json(&self) -> Value {
        let streams = self.streams.iter();
        let streams: Vec<Value> = streams
            .map(|(pid, kind)| json!({"pid": pid, "stream_type": kind}))
            .collect();
        json!({
            "number": self.number,
            "pmt_pid": self.pmt_pid,
            "pcr_pid": self.pcr_pid,
            "streams": streams,
        })
    }
}

/// A transport stream.
#[derive(Clone, Debug)]
pub struct TransportFacts {
    /// What it lies in.
    pub carrier: Carrier,
    /// Bytes from one packet to the next: 188, 192 or 204.
    pub packet_size: usize,
    /// All that were read.
    pub packets: u64,
    /// Places in the grid with a wrong sync byte: packets that were not read.
    pub sync_errors: Marks,
    /// Of PID 0x1FFF.
    pub null_packets: u64,
    /// Continuity counters that were not the next one.
    pub continuity_errors: u64,
    /// Losses of the grid of packets.
    pub sync_losses: u64,
    /// From the first payload to the last: by its own clock in a file, else as it came.
    pub duration: Duration,
    /// Bits a second in that time.
    pub bit_rate: Option<u64>,
    /// What TR 101 290 counts.
    pub tr101290: Tr101290,
    /// Programs.
    pub programs: Vec<ProgramFacts>,
    /// Tables.
    pub tables: Vec<TableFacts>,
    /// PIDs.
    pub pids: Vec<PidFacts>,
}

impl TransportFacts {
    pub(super) fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        let list = |values: &mut dyn Iterator<Item = Value>| Value::Array(values.collect());
        self.carrier.put(None, &mut put);
        put("packet_size", json!(self.packet_size));
        put("packets", json!(self.packets));
        put("null_packets", json!(self.null_packets));
        put("continuity_errors", json!(self.continuity_errors));
        put("sync_errors", json!(self.sync_errors.count));
        put("sync_error_packets", json!(self.sync_errors.packets));
        put("sync_losses", json!(self.sync_losses));
        put("duration_s", json!(self.duration.as_secs_f64()));
        put("bit_rate", json!(self.bit_rate));
        put("tr101290", indicators(Some(&self.tr101290)));
        put(
            "programs",
            list(&mut self.programs.iter().map(ProgramFacts::json)),
        );
        put(
            "tables",
            list(&mut self.tables.iter().map(TableFacts::json)),
        );
        put("pids", list(&mut self.pids.iter().map(PidFacts::json)));
        Value::Object(map)
    }
}

/// Counts under the standard's numbers.
pub(super) fn indicators(measured: Option<&Tr101290>) -> Value {
    let Some(measured) = measured else {
        return json!({});
    };
    let each = measured.indicators.iter().map(|indicator| {
        let mut facts = Map::new();
        let mut put = |key: &str, value: Value| facts.insert(key.to_owned(), value);
        put("count", json!(indicator.count));
        if let Some(pid) = indicator.pid.filter(|_| indicator.count > 0) {
            put("pid", json!(pid));
        }
        if indicator.number == "2.3" && indicator.count > 0 {
            put("repetition", json!(measured.pcr_repetition));
            put("discontinuity", json!(measured.pcr_discontinuity));
        }
        (indicator.number.to_owned(), Value::Object(facts))
    });
    Value::Object(each.collect())
}
