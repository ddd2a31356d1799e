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

use crate::report::{PcrFacts, PesFacts, PidFacts, ProgramFacts, TableFacts};

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
    wrong: u64,
    pids: Vec<Option<Box<Seen>>>,
    sections: BTreeMap<u16, Sections>,
    tables: BTreeMap<(u16, u8), TableFacts>,
    programs: BTreeMap<u16, ProgramFacts>,
}

/// The answers.
pub(crate) struct Counted {
    pub(crate) packet_size: usize,
    pub(crate) sync_errors: u64,
    pub(crate) duration: Duration,
    pub(crate) bit_rate: Option<u64>,
    pub(crate) programs: Vec<ProgramFacts>,
    pub(crate) tables: Vec<TableFacts>,
    pub(crate) pids: Vec<PidFacts>,
}

impl Default for Census {
    fn default() -> Self {
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
                wrong: 0,
                pids,
                sections: tables.into_iter().collect(),
                tables: BTreeMap::new(),
                programs: BTreeMap::new(),
            },
        }
    }
}

impl Census {
    /// The next payload of the stream.
    pub(crate) fn payload(&mut self, arrival: Instant, payload: &[u8]) {
        if self.first.is_none() {
            self.first = Some(arrival);
        } else {
            self.bytes += payload.len() as u64;
        }
        self.last = self.last.max(arrival);
        let found = &mut self.found;
        let each = |packet: &[u8; PACKET], _: &Place, when: When| found.packet(packet, when);
        let lost = self.framer.push(self.slot, payload, 0, arrival, each);
        self.slot += 1;
        self.found.wrong += lost.sync_errors;
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
        self.framer
            .finish(|packet, _, when| found.packet(packet, when));
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
    fn packet(&mut self, packet: &[u8; PACKET], when: When) {
        let number = self.packets + self.wrong + when.skipped;
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
        facts.scrambled += u64::from(b3 & 0xC0 != 0);
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
            let mut named = Vec::new();
            sections.push(payload, is_start, |bytes, _| {
                section(pid, number, bytes, tables, programs, &mut named);
            });
            for pid in named {
                if self.sections.len() < MAX_TABLE_PIDS {
                    self.sections.entry(pid).or_insert_with(Sections::private);
                }
            }
        } else if is_start {
            seen.pes(payload);
        }
    }
}

/// A section of a table; `named` gets the PIDs of other tables that it names.
fn section(
    pid: u16,
    number: u64,
    bytes: &[u8],
    tables: &mut BTreeMap<(u16, u8), TableFacts>,
    programs: &mut BTreeMap<u16, ProgramFacts>,
    named: &mut Vec<u16>,
) {
    let table_id = bytes.first().copied().unwrap_or(0xFF);
    if tables.len() >= MAX_TABLES && !tables.contains_key(&(pid, table_id)) {
        return;
    }
    let facts = tables
        .entry((pid, table_id))
        .or_insert_with(|| TableFacts::new(pid, table_id));
    facts.sections += 1;
    let section = match Section::parse(bytes) {
        Ok(section) => section,
        Err(Broken::Crc) => return facts.crc_errors.add(number),
        Err(Broken::Syntax) => return,
    };
    if !section.current {
        return;
    }
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
        if !is_legal {
            self.facts.continuity_errors.add(number);
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
        });
        if pcr.count > 0 {
            pcr.max_gap_packets = pcr.max_gap_packets.max(number - pcr.last.0);
            let step = (ticks + PCR_WRAP - pcr.last.1) % PCR_WRAP;
            // Further apart they are of two time bases.
            if !flagged && step < 10 * 27_000_000 {
                pcr.max_gap_us = pcr.max_gap_us.max(step / 27);
            }
        }
        pcr.count += 1;
        pcr.last = (number, ticks);
    }

    /// The head of a PES packet (2.4.3.6), as far as it lies in this TS packet.
    fn pes(&mut self, payload: &[u8]) {
        let Some(&[0, 0, 1, stream_id, l0, l1, _, flags, _]) = payload.first_chunk::<9>() else {
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
        }
    }
}
