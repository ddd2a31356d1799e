//! Facts of transport streams.

use core::time::Duration;

use mirror_media::Tr101290;
use serde_json::{Map, Value, json};

use super::Carrier;

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
    pub(crate) fn add(&mut self, packet: u64) {
        self.count += 1;
        if self.packets.len() < MAX_MARKS {
            self.packets.push(packet);
        }
    }

    fn json(&self) -> Value {
        json!({"count": self.count, "packets": self.packets})
    }
}

/// Clock references of a PID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
}

/// Heads of PES packets of a PID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
}

/// One PID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PidFacts {
    /// Its number.
    pub pid: u16,
    /// Packets.
    pub packets: u64,
    /// Of these, scrambled ones.
    pub scrambled: u64,
    /// Packets that were damaged on the way here (transport_error_indicator).
    pub transport_errors: Marks,
    /// Packets whose continuity counter is not the next one.
    pub continuity_errors: Marks,
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
            scrambled: 0,
            transport_errors: Marks::default(),
            continuity_errors: Marks::default(),
            discontinuities: Marks::default(),
            random_access: Marks::default(),
            pcr: None,
            pes: None,
        }
    }

    fn json(&self) -> Value {
        let pcr = self.pcr.map(|pcr| {
            json!({
                "count": pcr.count,
                "first": [pcr.first.0, pcr.first.1],
                "last": [pcr.last.0, pcr.last.1],
                "max_gap_packets": pcr.max_gap_packets,
                "max_gap_ms": pcr.max_gap_us as f64 / 1000.0,
            })
        });
        let pes = self.pes.map(|pes| {
            json!({
                "stream_id": pes.stream_id,
                "count": pes.count,
                "with_pts": pes.with_pts,
                "with_dts": pes.with_dts,
                "unbounded": pes.unbounded,
            })
        });
        json!({
            "pid": self.pid,
            "packets": self.packets,
            "scrambled": self.scrambled,
            "transport_errors": self.transport_errors.json(),
            "continuity_errors": self.continuity_errors.json(),
            "discontinuities": self.discontinuities.json(),
            "random_access": self.random_access.json(),
            "pcr": pcr,
            "pes": pes,
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
}

impl TableFacts {
    pub(crate) fn new(pid: u16, table_id: u8) -> Self {
        TableFacts {
            pid,
            table_id,
            sections: 0,
            crc_errors: Marks::default(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "pid": self.pid,
            "table_id": self.table_id,
            "sections": self.sections,
            "crc_errors": self.crc_errors.json(),
        })
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
    pub sync_errors: u64,
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
        put("sync_errors", json!(self.sync_errors));
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
