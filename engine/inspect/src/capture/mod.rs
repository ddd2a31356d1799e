//! Captures of network traffic: pcap (micro- and nanoseconds, either byte order) and pcapng files,
//! record by record. [`link`] finds the UDP datagrams in the records, [`fragments`] puts together
//! those that came in pieces. Called by the room itself and by tests that replay captures.

pub mod fragments;
pub mod link;

use crate::source::{Source, Window};

const PCAP_MICROS: u32 = 0xA1B2_C3D4;
const PCAP_NANOS: u32 = 0xA1B2_3C4D;
/// Section header block; the same in either byte order.
const SECTION: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// No record or block is longer.
const MAX_RECORD: usize = 16 << 20;
/// Interfaces of a section.
const MAX_INTERFACES: usize = 4096;

/// A captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the file, from 1 on, as capture tools count.
    pub number: u64,
    /// Nanoseconds since the file's first record; never less than the record's before.
    pub at_ns: u64,
    /// Link type (LINKTYPE_ value).
    pub link: u32,
    /// The packet, as much as was captured.
    pub bytes: &'a [u8],
}

/// An interface of a pcapng section.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u32,
    /// Units of its time stamps in a second.
    ticks: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// With the link type, and time stamps in units of so many nanoseconds.
    Pcap {
        link: u32,
        unit: u64,
    },
    PcapNg,
}

/// Reads a capture.
pub struct Reader<'s> {
    window: Window<'s>,
    format: Format,
    swapped: bool,
    interfaces: Vec<Interface>,
    number: u64,
    first_ns: Option<u64>,
    at_ns: u64,
    /// Bytes of the record that was handed out last.
    behind: usize,
}

impl core::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader")
            .field("format", &self.format)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

fn word(bytes: &[u8], at: usize, swapped: bool) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(if swapped {
        u32::from_be_bytes(*four)
    } else {
        u32::from_le_bytes(*four)
    })
}

fn short(bytes: &[u8], at: usize, swapped: bool) -> Option<u16> {
    let two = bytes.get(at..)?.first_chunk::<2>()?;
    Some(if swapped {
        u16::from_be_bytes(*two)
    } else {
        u16::from_le_bytes(*two)
    })
}

/// Whether a file that begins so is a capture.
pub fn is_capture(head: &[u8]) -> bool {
    [false, true].into_iter().any(|swapped| {
        let first = word(head, 0, swapped);
        matches!(first, Some(PCAP_MICROS | PCAP_NANOS))
            || first == Some(SECTION) && word(head, 8, swapped) == Some(BYTE_ORDER)
    })
}

impl<'s> Reader<'s> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// When it is no capture, or cannot be read.
    pub fn new(source: &'s dyn Source) -> Result<Self, String> {
        let mut window = Window::new(source);
        let head = window.peek(FILE_HEADER)?;
        if !is_capture(head) {
            return Err("no pcap or pcapng file".to_owned());
        }
        let mut reader = Reader {
            format: Format::PcapNg,
            swapped: false,
            interfaces: Vec::new(),
            number: 0,
            first_ns: None,
            at_ns: 0,
            behind: 0,
            window: Window::new(source),
        };
        if word(head, 0, false) != Some(SECTION) {
            reader.swapped = matches!(word(head, 0, true), Some(PCAP_MICROS | PCAP_NANOS));
            let link = word(head, 20, reader.swapped).ok_or("ends inside its header")?;
            let unit = match word(head, 0, reader.swapped) {
                Some(PCAP_NANOS) => 1,
                _ => 1_000,
            };
            // The upper four bits tell of frame check sequences.
            let link = link & 0x0FFF_FFFF;
            reader.format = Format::Pcap { link, unit };
            window.skip(FILE_HEADER);
        }
        reader.window = window;
        Ok(reader)
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// When the file breaks its format or ends inside a record: nothing follows.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, String> {
        self.window.skip(core::mem::take(&mut self.behind));
        let found = match self.format {
            Format::Pcap { link, unit } => self.pcap_record(link, unit)?,
            Format::PcapNg => self.pcapng_record()?,
        };
        let Some(found) = found else { return Ok(None) };
        self.number += 1;
        if let Some(time) = found.time_ns {
            let first = *self.first_ns.get_or_insert(time);
            self.at_ns = self.at_ns.max(time.saturating_sub(first));
        }
        self.behind = found.total;
        let bytes = self.window.peek(found.total)?;
        let bytes = bytes.get(found.from..found.from + found.bytes);
        Ok(Some(Record {
            number: self.number,
            at_ns: self.at_ns,
            link: found.link,
            bytes: bytes.unwrap_or_default(),
        }))
    }

    fn cut<T>(&self) -> Result<T, String> {
        Err(format!("the file ends inside packet {}", self.number + 1))
    }

    fn malformed<T>(&self) -> Result<T, String> {
        let at = self.window.offset();
        Err(format!("the file breaks its format at byte {at}"))
    }

    fn pcap_record(&mut self, link: u32, unit: u64) -> Result<Option<Found>, String> {
        let swapped = self.swapped;
        let head = self.window.peek(RECORD_HEADER)?;
        if head.is_empty() {
            return Ok(None);
        }
        let field = |at: usize| word(head, at, swapped);
        let (Some(seconds), Some(fraction), Some(bytes), Some(_)) =
            (field(0), field(4), field(8), field(12))
        else {
            return self.cut();
        };
        let bytes = bytes as usize;
        if bytes > MAX_RECORD {
            return self.malformed();
        }
        let total = RECORD_HEADER + bytes;
        if self.window.peek(total)?.len() < total {
            return self.cut();
        }
        Ok(Some(Found {
            time_ns: Some(u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit),
            link,
            from: RECORD_HEADER,
            bytes,
            total,
        }))
    }

    /// Blocks up to the next packet.
    fn pcapng_record(&mut self) -> Result<Option<Found>, String> {
        loop {
            let head = self.window.peek(12)?;
            if head.is_empty() {
                return Ok(None);
            }
            if word(head, 0, false) == Some(SECTION) {
                self.swapped = word(head, 8, true) == Some(BYTE_ORDER);
                self.interfaces.clear();
            }
            let swapped = self.swapped;
            let (Some(kind), Some(total)) = (word(head, 0, swapped), word(head, 4, swapped)) else {
                return self.cut();
            };
            let total = total as usize;
            if !(12..=MAX_RECORD).contains(&total) || !total.is_multiple_of(4) {
                return self.malformed();
            }
            let block = self.window.peek(total)?;
            if block.len() < total {
                return self.cut();
            }
            let body = block.get(8..total - 4).unwrap_or_default();
            let packet = match kind {
                INTERFACE => {
                    if self.interfaces.len() < MAX_INTERFACES {
                        self.interfaces.push(Interface::read(body, swapped));
                    }
                    None
                }
                ENHANCED_PACKET | OBSOLETE_PACKET | SIMPLE_PACKET => {
                    Found::read(kind, body, total, swapped, &self.interfaces)
                }
                _ => None,
            };
            if packet.is_some() {
                return Ok(packet);
            }
            self.window.skip(total);
        }
    }
}

/// Where a record lies in the window.
struct Found {
    time_ns: Option<u64>,
    link: u32,
    from: usize,
    bytes: usize,
    total: usize,
}

impl Found {
    /// A packet block of pcapng (sections 4.3, 4.4 and A.1 of its specification). `body` begins 8
    /// bytes into the block.
    fn read(
        kind: u32,
        body: &[u8],
        total: usize,
        swapped: bool,
        interfaces: &[Interface],
    ) -> Option<Self> {
        let field = |at: usize| word(body, at, swapped);
        if kind == SIMPLE_PACKET {
            let bytes = (field(0)? as usize).min(body.len().checked_sub(4)?);
            let link = interfaces.first()?.link;
            return Some(Found {
                time_ns: None,
                link,
                from: 12,
                bytes,
                total,
            });
        }
        let index = match kind {
            ENHANCED_PACKET => field(0)? as usize,
            _ => usize::from(short(body, 0, swapped)?),
        };
        let interface = interfaces.get(index)?;
        let time = u64::from(field(4)?) << 32 | u64::from(field(8)?);
        let nanos = u128::from(time) * 1_000_000_000 / u128::from(interface.ticks);
        Some(Found {
            time_ns: Some(u64::try_from(nanos).unwrap_or(u64::MAX)),
            link: interface.link,
            from: 28,
            bytes: (field(12)? as usize).min(body.len().checked_sub(20)?),
            total,
        })
    }
}

impl Interface {
    /// An interface description block (4.2) with its option if_tsresol.
    fn read(body: &[u8], swapped: bool) -> Self {
        let mut interface = Interface {
            link: short(body, 0, swapped).unwrap_or_default().into(),
            ticks: 1_000_000,
        };
        let mut at = 8;
        while let (Some(code), Some(bytes)) =
            (short(body, at, swapped), short(body, at + 2, swapped))
        {
            match (code, body.get(at + 4)) {
                (0, _) => break,
                (9, Some(&resolution)) => {
                    let power = u32::from(resolution & 0x7F);
                    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
                    interface.ticks = base.checked_pow(power).unwrap_or(1_000_000);
                }
                _ => {}
            }
            at += 4 + usize::from(bytes).next_multiple_of(4);
        }
        interface
    }
}

#[cfg(test)]
mod tests;
