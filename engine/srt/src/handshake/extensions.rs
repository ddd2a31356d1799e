//! Extension blocks behind a conclusion's fixed part (spec section 4): in any order, unknown
//! ones skipped by their length.

use super::cif::{high, low};
use crate::packet::{Writer, take_u32};
use crate::reject::RejectionCode;

const HSREQ: u16 = 1;
const HSRSP: u16 = 2;
const KMREQ: u16 = 3;
const KMRSP: u16 = 4;
const SID: u16 = 5;
const CONGESTION: u16 = 6;
const FILTER: u16 = 7;
const GROUP: u16 = 8;

/// Longest strings of blocks (spec section 4.2).
const SID_MAX: usize = 512;
const CONGESTION_MAX: usize = 16;
const FILTER_MAX: usize = 64;

/// HSREQ or HSRSP (spec section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HsWords {
    /// SRT version, 0x00MMmmpp.
    pub(crate) version: u32,
    pub(crate) flags: u32,
    /// Receiver TSBPD delay, ms.
    pub(crate) receive_ms: u16,
    /// Sender TSBPD delay, ms.
    pub(crate) send_ms: u16,
}

impl HsWords {
    pub(crate) fn parse(mut content: &[u8]) -> Option<Self> {
        let version = take_u32(&mut content)?;
        let flags = take_u32(&mut content)?;
        let latency = take_u32(&mut content)?;
        Some(HsWords {
            version,
            flags,
            receive_ms: high(latency),
            send_ms: low(latency),
        })
    }

    fn write(&self, kind: u16, writer: &mut Writer<'_>) {
        writer.u32(u32::from(kind) << 16 | 3);
        writer.u32(self.version);
        writer.u32(self.flags);
        writer.u32(u32::from(self.receive_ms) << 16 | u32::from(self.send_ms));
    }

    pub(crate) fn write_request(&self, writer: &mut Writer<'_>) {
        self.write(HSREQ, writer);
    }

    pub(crate) fn write_response(&self, writer: &mut Writer<'_>) {
        self.write(HSRSP, writer);
    }
}

/// GROUP block (spec section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupWords {
    pub(crate) group_id: u32,
}

/// What the blocks of one conclusion said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) hs_request: Option<HsWords>,
    pub(crate) hs_response: Option<HsWords>,
    pub(crate) km_request: Option<Vec<u8>>,
    pub(crate) km_response: Option<Vec<u8>>,
    pub(crate) srt_stream_id: Option<Vec<u8>>,
    pub(crate) congestion: Option<Vec<u8>>,
    pub(crate) filter: Option<Vec<u8>>,
    pub(crate) group: Option<GroupWords>,
}

impl Extensions {
    /// Reads all blocks. One packet bounds their number and size.
    ///
    /// # Errors
    /// ROGUE when a block runs past the end, is too short for its type or too long, or comes
    /// twice: who decides by one of the two must not be told the other.
    pub(crate) fn parse(mut blocks: &[u8]) -> Result<Self, RejectionCode> {
        let mut all = Extensions::default();
        let mut seen = 0_u16;
        // Fewer than four bytes behind the last block are no block: padding.
        while let Some(head) = take_u32(&mut blocks) {
            let len = usize::from(low(head)) * 4;
            let Some((content, rest)) = blocks.split_at_checked(len) else {
                return Err(RejectionCode::ROGUE);
            };
            blocks = rest;
            let kind = high(head);
            if (HSREQ..=GROUP).contains(&kind) {
                if seen & 1 << kind != 0 {
                    return Err(RejectionCode::ROGUE);
                }
                seen |= 1 << kind;
                all.take(kind, content)?;
            }
        }
        Ok(all)
    }

    fn take(&mut self, kind: u16, content: &[u8]) -> Result<(), RejectionCode> {
        let rogue = RejectionCode::ROGUE;
        match kind {
            HSREQ => self.hs_request = Some(HsWords::parse(content).ok_or(rogue)?),
            HSRSP => self.hs_response = Some(HsWords::parse(content).ok_or(rogue)?),
            KMREQ => self.km_request = Some(content.to_vec()),
            KMRSP => self.km_response = Some(content.to_vec()),
            SID => self.srt_stream_id = Some(string(content, SID_MAX)?),
            CONGESTION => self.congestion = Some(string(content, CONGESTION_MAX)?),
            FILTER => self.filter = Some(string(content, FILTER_MAX)?),
            GROUP => {
                let mut words = content;
                let group_id = take_u32(&mut words).ok_or(rogue)?;
                take_u32(&mut words).ok_or(rogue)?;
                // Spec section 18.1: a group's ID has bit 30 set.
                if group_id & 1 << 30 == 0 {
                    return Err(rogue);
                }
                self.group = Some(GroupWords { group_id });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Decodes a string block: groups of four bytes reversed, zeros stripped at the end.
pub(crate) fn string(content: &[u8], max: usize) -> Result<Vec<u8>, RejectionCode> {
    let mut text: Vec<u8> = content
        .chunks(4)
        .flat_map(|g| g.iter().rev())
        .copied()
        .collect();
    while text.last() == Some(&0) {
        text.pop();
    }
    if text.len() > max {
        Err(RejectionCode::ROGUE)
    } else {
        Ok(text)
    }
}

/// Appends the stream ID's block; nothing for an empty one.
pub(crate) fn write_stream_id(text: &[u8], writer: &mut Writer<'_>) {
    let text = text.get(..SID_MAX).unwrap_or(text);
    if text.is_empty() {
        return;
    }
    let words = text.len().div_ceil(4);
    writer.u32(u32::from(SID) << 16 | u32::try_from(words).unwrap_or(0));
    for group in text.chunks(4) {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(group) {
            *to = *from;
        }
        word.reverse();
        writer.bytes(&word);
    }
}

/// Appends the caller's KM message.
pub(crate) fn write_key_request(content: &[u8], writer: &mut Writer<'_>) {
    write_words(KMREQ, content, writer);
}

/// Appends the listener's answer: the KM message, or a status word.
pub(crate) fn write_key_response(content: &[u8], writer: &mut Writer<'_>) {
    write_words(KMRSP, content, writer);
}

/// Appends a block whose content is whole words.
fn write_words(kind: u16, content: &[u8], writer: &mut Writer<'_>) {
    let words = u32::try_from(content.len() / 4).unwrap_or(0);
    writer.u32(u32::from(kind) << 16 | words);
    writer.bytes(content);
}
