//! Splice information (SCTE 35): what an encoder says about breaks. The demultiplexer hands the
//! sections of a splice PID over; [`crate::Pipeline::poll_splice`] gives the commands on, and
//! each section is an access unit of its track as well.

use super::psi::crc32;

/// table_id of a splice information section (9.6).
pub const TABLE: u8 = 0xFC;

/// A splice command with its time (SCTE 35, 9.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splice {
    /// Index of its track.
    pub track: u16,
    /// What is asked for.
    pub command: SpliceCommand,
    /// When, in 90 kHz ticks of the program's clock, `pts_adjustment` added, unwrapped; `None`:
    /// at once.
    pub pts: Option<i64>,
    /// The program's clock when the section came, in 90 kHz ticks, unwrapped.
    pub received: Option<i64>,
    /// The first segmentation_descriptor (10.3.3).
    pub segmentation: Option<Segmentation>,
}

/// Splice commands (SCTE 35, 9.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpliceCommand {
    /// splice_null.
    Null,
    /// splice_insert.
    Insert {
        /// splice_event_id.
        event: u32,
        /// out_of_network_indicator: the break begins (else it ends).
        out: bool,
        /// splice_event_cancel_indicator.
        cancel: bool,
        /// break_duration in 90 kHz ticks.
        duration: Option<u64>,
    },
    /// time_signal.
    TimeSignal,
    /// Any other command, by its type.
    Other(u8),
}

/// What a segmentation_descriptor tells (SCTE 35, 10.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segmentation {
    /// segmentation_event_id.
    pub event: u32,
    /// segmentation_event_cancel_indicator; what follows is 0 then.
    pub cancel: bool,
    /// segmentation_type_id (table 23): 0x30 provider advertisement start ...
    pub kind: u8,
    /// segmentation_duration in 90 kHz ticks.
    pub duration: Option<u64>,
    /// segmentation_upid_type (table 22).
    pub upid_type: u8,
    /// segment_num and segments_expected.
    pub segment: (u8, u8),
}

/// What a section says, its times not unwrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpliceSection {
    /// The command.
    pub command: SpliceCommand,
    /// Raw 33-bit time, `pts_adjustment` added.
    pub pts: Option<u64>,
    /// The first segmentation_descriptor.
    pub segmentation: Option<Segmentation>,
}

/// Why a section tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// CRC or syntax.
    Malformed,
    /// encrypted_packet.
    Encrypted,
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (&head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// 33 bits behind 7 others, which come first.
    fn time(&mut self) -> Option<(u8, u64)> {
        let [a, b, c, d, e] = self.take()?;
        let low = u32::from_be_bytes([b, c, d, e]);
        Some((a, u64::from(a & 1) << 32 | u64::from(low)))
    }

    /// splice_time (9.7.3.1): `Some(None)` when it is not specified.
    fn splice_time(&mut self) -> Option<Option<u64>> {
        if self.0.first()? & 0x80 == 0 {
            self.byte()?;
            return Some(None);
        }
        Some(Some(self.time()?.1))
    }
}

/// Reads a splice_info_section (9.6), from its table_id to its CRC.
pub fn parse(section: &[u8]) -> Result<SpliceSection, Refusal> {
    if crc32(section) != 0 {
        return Err(Refusal::Malformed);
    }
    read(section).unwrap_or(Err(Refusal::Malformed))
}

fn read(section: &[u8]) -> Option<Result<SpliceSection, Refusal>> {
    let (bytes, _crc) = section.split_last_chunk::<4>()?;
    let mut r = Reader(bytes);
    let [TABLE, flags, _, protocol] = r.take::<4>()? else {
        return None;
    };
    // section_syntax_indicator is 0; another protocol_version has another layout.
    if flags & 0x80 != 0 || protocol != 0 {
        return None;
    }
    let (head, adjustment) = r.time()?;
    if head & 0x80 != 0 {
        return Some(Err(Refusal::Encrypted));
    }
    let [_cw_index, _tier, lengths, length, kind] = r.take::<5>()?;
    let length = usize::from(lengths & 0x0F) << 8 | usize::from(length);
    let (command, time, rest) = if length == 0xFFF {
        // Not said: the command itself tells.
        let (command, time) = command(kind, &mut r)?;
        (command, time, r.0)
    } else {
        let (body, rest) = r.0.split_at_checked(length)?;
        let (command, time) = command(kind, &mut Reader(body))?;
        (command, time, rest)
    };
    let mut r = Reader(rest);
    let loop_length = usize::from(u16::from_be_bytes(r.take()?));
    let segmentation = r.0.get(..loop_length).and_then(segmentation);
    Some(Ok(SpliceSection {
        command,
        pts: time.map(|t| t.wrapping_add(adjustment) & ((1 << 33) - 1)),
        segmentation,
    }))
}

/// The command and its time.
fn command(kind: u8, r: &mut Reader<'_>) -> Option<(SpliceCommand, Option<u64>)> {
    Some(match kind {
        0x00 => (SpliceCommand::Null, None),
        0x05 => insert(r)?,
        0x06 => (SpliceCommand::TimeSignal, r.splice_time()?),
        other => (SpliceCommand::Other(other), None),
    })
}

/// splice_insert (9.7.3).
fn insert(r: &mut Reader<'_>) -> Option<(SpliceCommand, Option<u64>)> {
    let event = r.u32()?;
    if r.byte()? & 0x80 != 0 {
        let command = SpliceCommand::Insert {
            event,
            out: false,
            cancel: true,
            duration: None,
        };
        return Some((command, None));
    }
    let flags = r.byte()?;
    let (out, program, immediate) = (flags & 0x80 != 0, flags & 0x40 != 0, flags & 0x10 != 0);
    let mut time = None;
    if program {
        if !immediate {
            time = r.splice_time()?;
        }
    } else {
        // Components: the first one's time stands for all.
        for n in 0..r.byte()? {
            r.byte()?;
            if !immediate {
                let of_component = r.splice_time()?;
                time = if n == 0 { of_component } else { time };
            }
        }
    }
    let duration = match flags & 0x20 {
        0 => None,
        _ => Some(r.time()?.1),
    };
    let command = SpliceCommand::Insert {
        event,
        out,
        cancel: false,
        duration,
    };
    Some((command, time))
}

/// The first segmentation_descriptor of the loop.
fn segmentation(mut descriptors: &[u8]) -> Option<Segmentation> {
    while let Some((&[tag, length], rest)) = descriptors.split_first_chunk::<2>() {
        let (data, rest) = rest.split_at_checked(usize::from(length))?;
        descriptors = rest;
        if tag == 0x02
            && let Some(body) = data.strip_prefix(b"CUEI")
        {
            return read_segmentation(&mut Reader(body));
        }
    }
    None
}

fn read_segmentation(r: &mut Reader<'_>) -> Option<Segmentation> {
    let event = r.u32()?;
    if r.byte()? & 0x80 != 0 {
        return Some(Segmentation {
            event,
            cancel: true,
            ..Segmentation::default()
        });
    }
    let flags = r.byte()?;
    if flags & 0x80 == 0 {
        // Components: a tag and a PTS offset each.
        for _ in 0..r.byte()? {
            r.take::<6>()?;
        }
    }
    let duration = match flags & 0x40 {
        0 => None,
        _ => {
            let [a, b, c, d, e] = r.take()?;
            Some(u64::from(a) << 32 | u64::from(u32::from_be_bytes([b, c, d, e])))
        }
    };
    let [upid_type, upid_length] = r.take()?;
    r.0 = r.0.get(usize::from(upid_length)..)?;
    let [kind, number, expected] = r.take()?;
    Some(Segmentation {
        event,
        cancel: false,
        kind,
        duration,
        upid_type,
        segment: (number, expected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hex;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!(
            "../../../../tests/vectors/ts_and_bitstream.json"
        ))
        .unwrap()
    }

    fn check(v: &Value) {
        let text = v["hex"].as_str().unwrap();
        let section = parse(&hex(text)).unwrap();
        let adjustment = v["pts_adjustment"].as_u64().unwrap();
        let time = v["pts_time"].as_u64().map(|t| (t + adjustment) % (1 << 33));
        assert_eq!(section.pts, time, "{text}");
        let flag = |name: &str| v[name].as_u64() == Some(1);
        let command = match v["command_type"].as_u64().unwrap() {
            0 => SpliceCommand::Null,
            5 => SpliceCommand::Insert {
                event: u32::from_str_radix(v["event_id"].as_str().unwrap(), 16).unwrap(),
                out: flag("out_of_network"),
                cancel: flag("cancel"),
                duration: v["break_duration"].as_u64(),
            },
            6 => SpliceCommand::TimeSignal,
            other => SpliceCommand::Other(other as u8),
        };
        assert_eq!(section.command, command, "{text}");
        let has_segmentation = v["descriptor_loop"].as_str().unwrap().starts_with("02");
        assert_eq!(section.segmentation.is_some(), has_segmentation, "{text}");
    }

    #[test]
    fn sections_say_what_the_vectors_say() {
        let vectors = vectors();
        let own = vectors["scte35_sections"].as_array().unwrap();
        own.iter()
            .chain([&vectors["scte35_public_example"]])
            .for_each(check);
        assert_eq!(own.len(), 8);
    }

    #[test]
    fn the_published_example_is_a_placement_opportunity() {
        let text = vectors()["scte35_public_example"]["hex"].clone();
        let section = parse(&hex(text.as_str().unwrap())).unwrap();
        let segmentation = section.segmentation.unwrap();
        assert_eq!(segmentation.event, 0x4800_008E);
        assert_eq!(segmentation.kind, 0x34);
        assert_eq!(segmentation.duration, Some(27_630_000));
        assert_eq!((segmentation.upid_type, segmentation.segment), (8, (2, 0)));
    }

    /// With a right CRC behind `bytes`.
    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let crc = crc32(bytes).to_be_bytes();
        [bytes, &crc].concat()
    }

    #[test]
    fn cut_and_encrypted_sections_are_refused() {
        let vectors = vectors();
        for v in vectors["scte35_sections"].as_array().unwrap() {
            let good = hex(v["hex"].as_str().unwrap());
            assert_eq!(parse(&good[1..]), Err(Refusal::Malformed));
            for cut in 0..good.len() - 4 {
                // Whatever is cut, nothing but a refusal or a command comes of it.
                let _ = parse(&sealed(&good[..cut]));
            }
            let mut encrypted = good[..good.len() - 4].to_vec();
            encrypted[4] |= 0x80;
            assert_eq!(parse(&sealed(&encrypted)), Err(Refusal::Encrypted));
        }
    }
}
