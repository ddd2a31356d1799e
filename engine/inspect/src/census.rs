//! A transport stream packet by packet, PID by PID: what an engineer looks for first when a feed is
//! bad, and what the engine itself has no use for. Runs beside the pipeline over the same payloads;
//! its own grid of packets, its own reading of their headers (ISO 13818-1, 2.4.3).

use core::time::Duration;
use std::collections::BTreeMap;

use mirror_base::Instant;
use mirror_media::ts::framer::When;
use mirror_media::ts::place::Place;
use mirror_media::ts::psi::{Broken, Section, Sections};
use mirror_media::ts::{Framer, PACKET};

use crate::Options;
use crate::report::listed::Room;
use crate::report::{Marks, PcrFacts, PesFacts, PidFacts, ProgramFacts, SectionFacts, TableFacts};

const PIDS: usize = 8192;
const NULL_PID: u16 = 0x1FFF;
/// PIDs that carry tables whatever the PAT says: PAT, CAT, NIT, SDT, EIT, TDT.
const TABLE_PIDS: [u16; 6] = [0x00, 0x01, 0x10, 0x11, 0x12, 0x14];
/// Stream types that are carried in sections: private ones, splice information.
const SECTION_TYPES: [u8; 2] = [0x05, 0x86];
/// PIDs and tables that are followed as such.
const MAX_TABLE_PIDS: usize = 256;
const MAX_TABLES: usize = 1024;
const MAX_PROGRAMS: usize = 256;
/// 2^33 ticks of 90 kHz, in 27 MHz: where references begin afresh (2.4.2.1).
const PCR_WRAP: u64 = (1 << 33) * 300;
/// TR 101 290, 2.3: 100 ms.
const MAX_PCR_STEP: u64 = 2_700_000;
/// Different sections that are kept, of all tables and of one.
const MAX_CONTENTS: usize = 4096;
const MAX_CONTENTS_OF_TABLE: usize = 256;

/// What is known of one PID.
#[derive(Debug)]
struct Seen {
    facts: PidFacts,
    /// Counter of the last packet with payload, and whether that came twice.
    continuity: Option<u8>,
    duplicated: bool,
    tail: [u8; 8],
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Census {
    framer: Framer,
    slot: u64,
    first: Option<Instant>,
    last: Instant,
    /// Bytes behind the first payload.
    bytes: u64,
    found: Found,
}

/// All but what finds the packets.
#[derive(Debug)]
struct Found {
    packets: u64,
    /// Packets with wrong sync bytes.
    wrong: Marks,
    /// Different sections are kept, and how many still may be.
    contents: Option<Room>,
    /// The same of times of PES packets.
    times: Option<Room>,
    pids: Vec<Option<Box<Seen>>>,
    sections: BTreeMap<u16, Sections>,
    tables: BTreeMap<(u16, u8), TableFacts>,
    programs: BTreeMap<u16, ProgramFacts>,
}

/// The answers.
pub(crate) struct Counted {
    pub(crate) packet_size: usize,
    pub(crate) sync_errors: Marks,
    pub(crate) duration: Duration,
    pub(crate) bit_rate: Option<u64>,
    pub(crate) programs: Vec<ProgramFacts>,
    pub(crate) tables: Vec<TableFacts>,
    pub(crate) pids: Vec<PidFacts>,
}

impl Census {
    pub(crate) fn new(options: &Options) -> Self {
        let mut pids = Vec::new();
        pids.resize_with(PIDS, || None);
        let tables = TABLE_PIDS.map(|pid| (pid, Sections::private()));
        Census {
            framer: Framer::default(),
            slot: 0,
            first: None,
            last: Instant::ZERO,
            bytes: 0,
            found: Found {
                packets: 0,
                wrong: Marks::default(),
                contents: options.packets.then_some(Room::of(MAX_CONTENTS)),
                times: options.packets.then_some(Room::FULL),
                pids,
                sections: tables.into_iter().collect(),
                tables: BTreeMap::new(),
                programs: BTreeMap::new(),
            },
        }
    }

    /// The next payload of the stream.
    pub(crate) fn payload(&mut self, arrival: Instant, payload: &[u8]) {
        if self.first.is_none() {
            self.first = Some(arrival);
        } else {
            self.bytes += payload.len() as u64;
        }
        self.last = self.last.max(arrival);
        let found = &mut self.found;
        // Of the wrong ones of this payload, those that lie before a right one.
        let mut passed = 0;
        let each = |packet: &[u8; PACKET], _: &Place, when: When| {
            found.skip(when.skipped - passed);
            passed = when.skipped;
            found.packet(packet);
        };
        let lost = self.framer.push(self.slot, payload, 0, arrival, each);
        self.slot += 1;
        found.skip(lost.sync_errors - passed);
    }

    /// Packets were lost: nothing continues across.
    pub(crate) fn gap(&mut self) {
        for sections in self.found.sections.values_mut() {
            sections.restart();
        }
    }

    /// The stream has ended.
    pub(crate) fn finish(mut self) -> Counted {
        let found = &mut self.found;
        let mut passed = 0;
        self.framer.finish(|packet, _, when| {
            found.skip(when.skipped - passed);
            passed = when.skipped;
            found.packet(packet);
        });
        let duration = self.last.saturating_since(self.first.unwrap_or(self.last));
        let micros = duration.as_micros();
        let bit_rate = u128::from(self.bytes) * 8_000_000;
        Counted {
            packet_size: self.framer.stride(),
            sync_errors: self.found.wrong,
            duration,
            bit_rate: bit_rate
                .checked_div(micros)
                .and_then(|rate| u64::try_from(rate).ok()),
            programs: self.found.programs.into_values().collect(),
            tables: self.found.tables.into_values().collect(),
            pids: (self.found.pids.into_iter().flatten())
                .map(|seen| seen.facts)
                .collect(),
        }
    }
}

impl Found {
    /// So many places of the grid have a wrong sync byte.
    fn skip(&mut self, count: u64) {
        for _ in 0..count {
            self.wrong.add(self.packets + self.wrong.count);
        }
    }

    fn packet(&mut self, packet: &[u8; PACKET]) {
        let number = self.packets + self.wrong.count;
        self.packets += 1;
        let [_, b1, b2, b3, length, flags, ..] = *packet;
        let pid = u16::from_be_bytes([b1, b2]) & 0x1FFF;
        let Some(seen) = self.pids.get_mut(usize::from(pid)) else {
            return;
        };
        let seen = seen.get_or_insert_with(|| Box::new(Seen::new(pid)));
        let facts = &mut seen.facts;
        facts.packets += 1;
        if b1 & 0x80 != 0 {
            // Nothing in it can be believed.
            facts.transport_errors.add(number);
            seen.continuity = None;
            return;
        }
        if b3 & 0xC0 != 0 {
            facts.scrambled.add(number);
        }
        let has_field = b3 & 0x20 != 0;
        let flags = if has_field && length > 0 { flags } else { 0 };
        if flags & 0x80 != 0 {
            facts.discontinuities.add(number);
            seen.continuity = None;
        }
        if flags & 0x40 != 0 {
            facts.random_access.add(number);
        }
        if flags & 0x10 != 0 && length >= 7 {
            seen.reference(number, packet, flags & 0x80 != 0);
        }
        if b3 & 0x10 == 0 || pid == NULL_PID {
            return;
        }
        if !seen.continues(number, b3 & 0x0F, packet) {
            return;
        }
        let start = if has_field {
            5 + usize::from(length)
        } else {
            4
        };
        let payload = packet.get(start..).unwrap_or_default();
        if b3 & 0xC0 != 0 {
            return;
        }
        let is_start = b1 & 0x40 != 0;
        if let Some(sections) = self.sections.get_mut(&pid) {
            let (tables, programs) = (&mut self.tables, &mut self.programs);
            let contents = &mut self.contents;
            let mut named = Vec::new();
            sections.push(payload, is_start, |bytes, _| {
                let facts = section(pid, number, bytes, tables, programs, &mut named);
                if let (Some(room), Some((facts, crc_ok))) = (contents.as_mut(), facts) {
                    facts.keep(bytes, crc_ok, number, room);
                }
            });
            for pid in named {
                if self.sections.len() < MAX_TABLE_PIDS {
                    self.sections.entry(pid).or_insert_with(Sections::private);
                }
            }
        } else if is_start {
            seen.pes(payload, &mut self.times);
        }
    }
}

/// A section of a table; `named` gets the PIDs of other tables that it names. Returns the table,
/// and whether the section's CRC is right.
fn section<'t>(
    pid: u16,
    number: u64,
    bytes: &[u8],
    tables: &'t mut BTreeMap<(u16, u8), TableFacts>,
    programs: &mut BTreeMap<u16, ProgramFacts>,
    named: &mut Vec<u16>,
) -> Option<(&'t mut TableFacts, bool)> {
    let table_id = bytes.first().copied().unwrap_or(0xFF);
    if tables.len() >= MAX_TABLES && !tables.contains_key(&(pid, table_id)) {
        return None;
    }
    let facts = tables
        .entry((pid, table_id))
        .or_insert_with(|| TableFacts::new(pid, table_id));
    facts.sections += 1;
    let section = match Section::parse(bytes) {
        Ok(section) => section,
        Err(Broken::Crc) => {
            facts.crc_errors.add(number);
            return Some((facts, false));
        }
        Err(Broken::Syntax) => return Some((facts, true)),
    };
    if section.current {
        learn(pid, table_id, &section, programs, named);
    }
    Some((facts, true))
}

/// What a PAT or a PMT says.
fn learn(
    pid: u16,
    table_id: u8,
    section: &Section<'_>,
    programs: &mut BTreeMap<u16, ProgramFacts>,
    named: &mut Vec<u16>,
) {
    match (pid, table_id) {
        (0, 0) => {
            for (number, pmt_pid) in section.programs() {
                if programs.len() < MAX_PROGRAMS || programs.contains_key(&number) {
                    let program = programs.entry(number).or_default();
                    (program.number, program.pmt_pid) = (number, pmt_pid);
                    named.push(pmt_pid);
                }
            }
        }
        (_, 2) => {
            if let Some(program) = programs.get_mut(&section.extension)
                && program.pmt_pid == pid
                && let Some((pcr_pid, streams)) = section.program_map()
            {
                program.pcr_pid = Some(pcr_pid);
                program.streams = streams.map(|s| (s.pid, s.stream_type)).collect();
                let in_sections = |s: &&(u16, u8)| SECTION_TYPES.contains(&s.1);
                named.extend(program.streams.iter().filter(in_sections).map(|s| s.0));
            }
        }
        _ => {}
    }
}

impl TableFacts {
    /// Keeps a section's content, once for all that are alike.
    fn keep(&mut self, bytes: &[u8], crc_ok: bool, first_packet: u64, room: &mut Room) {
        let contents = self.contents.get_or_insert_default();
        let is_full = contents.list.len() >= MAX_CONTENTS_OF_TABLE;
        let mut known = contents.list.iter_mut();
        match known.find(|section| section.bytes == bytes) {
            Some(section) => section.count += 1,
            None if !is_full => {
                let section = SectionFacts {
                    bytes: bytes.to_vec(),
                    crc_ok,
                    count: 1,
                    first_packet,
                };
                contents.add(section, room);
            }
            None => contents.left_out += 1,
        }
    }
}

/// A time in the head of a PES packet (2.4.3.7): 33 bits with markers between them.
fn pes_time(bytes: &[u8]) -> Option<u64> {
    let [a, b, c, d, e] = bytes.first_chunk::<5>()?.map(u64::from);
    Some((a & 0x0E) << 29 | b << 22 | (c & 0xFE) << 14 | d << 7 | e >> 1)
}

impl Seen {
    fn new(pid: u16) -> Self {
        Seen {
            facts: PidFacts::new(pid),
            continuity: None,
            duplicated: false,
            tail: [0; 8],
        }
    }

    /// The packet's continuity counter (2.4.3.3); whether its payload is new.
    fn continues(&mut self, number: u64, continuity: u8, packet: &[u8; PACKET]) -> bool {
        let tail = packet.last_chunk().copied().unwrap_or_default();
        let before = self.continuity.replace(continuity);
        let same = before == Some(continuity) && tail == self.tail;
        self.tail = tail;
        let twice = core::mem::replace(&mut self.duplicated, same);
        let expected = before.is_none_or(|c| c.wrapping_add(1) & 0x0F == continuity);
        let is_legal = expected || same && !twice;
        if is_legal && !expected {
            self.facts.duplicates.add(number);
        }
        if !is_legal && self.facts.continuity_errors.add(number) {
            let counters = (before.unwrap_or(continuity), continuity);
            self.facts.continuity_counters.push(counters);
        }
        !same
    }

    /// A clock reference (2.4.3.5).
    fn reference(&mut self, number: u64, packet: &[u8; PACKET], flagged: bool) {
        let [_, _, _, _, _, _, b0, b1, b2, b3, b4, b5, ..] = *packet;
        let base = u64::from(u32::from_be_bytes([b0, b1, b2, b3])) << 1 | u64::from(b4 >> 7);
        let ticks = base * 300 + (u64::from(b4 & 1) << 8 | u64::from(b5));
        let pcr = self.facts.pcr.get_or_insert(PcrFacts {
            count: 0,
            first: (number, ticks),
            last: (number, ticks),
            max_gap_packets: 0,
            max_gap_us: 0,
            jumps: Marks::default(),
        });
        if pcr.count > 0 {
            pcr.max_gap_packets = pcr.max_gap_packets.max(number - pcr.last.0);
            let step = (ticks + PCR_WRAP - pcr.last.1) % PCR_WRAP;
            // Further apart they are of two time bases.
            if !flagged && step < 10 * 27_000_000 {
                pcr.max_gap_us = pcr.max_gap_us.max(step / 27);
            }
            if !flagged && step > MAX_PCR_STEP {
                pcr.jumps.add(number);
            }
        }
        pcr.count += 1;
        pcr.last = (number, ticks);
    }

    /// The head of a PES packet (2.4.3.6), as far as it lies in this TS packet.
    fn pes(&mut self, payload: &[u8], room: &mut Option<Room>) {
        let Some((&[0, 0, 1, stream_id, l0, l1, _, flags, _], behind)) =
            payload.split_first_chunk::<9>()
        else {
            return;
        };
        let pes = self.facts.pes.get_or_insert_with(PesFacts::default);
        pes.stream_id = stream_id;
        pes.count += 1;
        pes.unbounded += u64::from(l0 == 0 && l1 == 0);
        // Padding, private_stream_2, ECM, EMM, DSM-CC and their like have no such flags.
        if !matches!(stream_id, 0xBC | 0xBE | 0xBF | 0xF0..=0xF2 | 0xF8 | 0xFF) {
            pes.with_pts += u64::from(flags & 0x80 != 0);
            pes.with_dts += u64::from(flags & 0xC0 == 0xC0);
            if let Some(room) = room {
                let pts = pes_time(behind).filter(|_| flags & 0x80 != 0);
                let dts = behind.get(5..).and_then(pes_time);
                let dts = dts.filter(|_| flags & 0xC0 == 0xC0);
                pes.times.get_or_insert_default().add([pts, dts], room);
            }
        }
    }
}
