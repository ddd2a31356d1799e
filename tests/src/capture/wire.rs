//! What an SRT datagram says (draft-sharabayko-srt-01, section 3), decoded once more than in the
//! engine: a second reading that the engine's is compared with.

use super::hex;

/// A datagram's header and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's clock, µs.
    pub timestamp: u32,
    /// Destination socket ID.
    pub destination: u32,
    /// Second word of a control packet: ACK number and the like.
    pub info: u32,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A data packet.
    Data(Data),
    /// A handshake.
    Handshake(Box<Handshake>),
    /// KEEPALIVE.
    Keepalive,
    /// ACK with its words: 1 light, 4 small, 7 full.
    Ack(Vec<u32>),
    /// NAK with its words.
    Nak(Vec<u32>),
    /// SHUTDOWN.
    Shutdown,
    /// ACKACK.
    AckAck,
    /// DROPREQ: first and last number.
    DropRequest(u32, u32),
    /// An extension in flight: subtype and content.
    Extension(u16, Vec<u8>),
    /// Another control type.
    Other(u16),
}

/// A data packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Sequence number.
    pub sequence: u32,
    /// PP: 3 is a whole message.
    pub position: u8,
    /// KK: 0 clear, 1 even, 2 odd key.
    pub key: u8,
    /// R.
    pub retransmitted: bool,
    /// Message number; 0 on packets of the packet filter.
    pub message: u32,
    /// Payload as on the wire.
    pub payload: Vec<u8>,
}

/// A handshake's control information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Bytes of the control information.
    pub len: usize,
    /// Version.
    pub version: u32,
    /// Encryption field.
    pub encryption: u16,
    /// Extension field.
    pub extension: u16,
    /// Initial sequence number.
    pub initial: u32,
    /// MSS.
    pub mss: u32,
    /// Flow window.
    pub window: u32,
    /// Handshake type.
    pub kind: u32,
    /// Socket ID.
    pub socket_id: u32,
    /// Cookie.
    pub cookie: u32,
    /// Peer IP.
    pub peer_ip: [u8; 16],
    /// Extension blocks: type and content.
    pub blocks: Vec<(u16, Vec<u8>)>,
}

/// Handshake types.
pub mod handshake_type {
    /// INDUCTION.
    pub const INDUCTION: u32 = 1;
    /// CONCLUSION.
    pub const CONCLUSION: u32 = 0xFFFF_FFFF;
    /// AGREEMENT.
    pub const AGREEMENT: u32 = 0xFFFF_FFFE;
    /// WAVEAHAND.
    pub const WAVEAHAND: u32 = 0;
}

/// Types of extension blocks; KMREQ and KMRSP also in flight.
pub mod block {
    /// HSREQ.
    pub const HSREQ: u16 = 1;
    /// HSRSP.
    pub const HSRSP: u16 = 2;
    /// KMREQ.
    pub const KMREQ: u16 = 3;
    /// KMRSP.
    pub const KMRSP: u16 = 4;
    /// SID.
    pub const SID: u16 = 5;
    /// CONGESTION.
    pub const CONGESTION: u16 = 6;
    /// FILTER.
    pub const FILTER: u16 = 7;
    /// GROUP.
    pub const GROUP: u16 = 8;
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let four = bytes.get(4 * index..4 * index + 4)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

fn words(bytes: &[u8]) -> Vec<u32> {
    (0..).map_while(|i| word(bytes, i)).collect()
}

/// Reads a datagram; `None` when it is too short for what it claims to be.
pub fn parse(datagram: &[u8]) -> Option<Packet> {
    let first = word(datagram, 0)?;
    let info = word(datagram, 1)?;
    let content = datagram.get(16..)?;
    let kind = if first & 0x8000_0000 == 0 {
        Kind::Data(Data {
            sequence: first,
            position: (info >> 30) as u8,
            key: (info >> 27 & 3) as u8,
            retransmitted: info >> 26 & 1 == 1,
            message: info & 0x03FF_FFFF,
            payload: content.to_vec(),
        })
    } else {
        control((first >> 16 & 0x7FFF) as u16, first as u16, content)?
    };
    Some(Packet {
        timestamp: word(datagram, 2)?,
        destination: word(datagram, 3)?,
        info,
        kind,
    })
}

fn control(kind: u16, subtype: u16, content: &[u8]) -> Option<Kind> {
    Some(match kind {
        0 => Kind::Handshake(Box::new(Handshake::parse(content)?)),
        1 => Kind::Keepalive,
        2 => Kind::Ack(words(content)),
        3 => Kind::Nak(words(content)),
        5 => Kind::Shutdown,
        6 => Kind::AckAck,
        7 => Kind::DropRequest(word(content, 0)?, word(content, 1)?),
        0x7FFF => Kind::Extension(subtype, content.to_vec()),
        _ => Kind::Other(kind),
    })
}

impl Handshake {
    fn parse(content: &[u8]) -> Option<Self> {
        let fixed = words(content.get(..48)?);
        let mut blocks = Vec::new();
        let mut rest = &content[48..];
        // What is behind the fixed part of an induction or a rejection is not ours to read.
        while let Some(head) = word(rest, 0) {
            let len = 4 * (head & 0xFFFF) as usize;
            blocks.push(((head >> 16) as u16, rest.get(4..4 + len)?.to_vec()));
            rest = &rest[4 + len..];
        }
        Some(Handshake {
            len: content.len(),
            version: fixed[0],
            encryption: (fixed[1] >> 16) as u16,
            extension: fixed[1] as u16,
            initial: fixed[2],
            mss: fixed[3],
            window: fixed[4],
            kind: fixed[5],
            socket_id: fixed[6],
            cookie: fixed[7],
            peer_ip: content[32..48].try_into().ok()?,
            blocks,
        })
    }

    /// The content of the first block of a type.
    pub fn block(&self, kind: u16) -> Option<&[u8]> {
        let (_, content) = self.blocks.iter().find(|(k, _)| *k == kind)?;
        Some(content)
    }

    /// SRT version, flags, receiver's and sender's latency in ms of an HSREQ or HSRSP.
    pub fn hs(&self, kind: u16) -> Option<(u32, u32, u16, u16)> {
        let w = words(self.block(kind)?);
        Some((
            *w.first()?,
            *w.get(1)?,
            (w.get(2)? >> 16) as u16,
            *w.get(2)? as u16,
        ))
    }

    /// A string block's text.
    pub fn text(&self, kind: u16) -> Option<String> {
        let text: Vec<u8> = self
            .block(kind)?
            .chunks(4)
            .flat_map(|group| group.iter().rev().copied())
            .collect();
        let text = String::from_utf8_lossy(&text);
        Some(text.trim_end_matches('\0').to_owned())
    }

    /// The rejection code, if it is one.
    pub fn rejection(&self) -> Option<u32> {
        (1000..0x8000_0000)
            .contains(&self.kind)
            .then(|| self.kind - 1000)
    }

    /// The blocks as text, one each.
    pub fn describe_blocks(&self) -> Vec<String> {
        let describe = |(kind, content): &(u16, Vec<u8>)| {
            let hs = |name| {
                let (version, flags, receive, send) = self.hs(*kind).unwrap_or_default();
                format!("{name}(ver=0x{version:06x},flags=0x{flags:02x},rcv={receive},snd={send})")
            };
            let text = |name| format!("{name}(\"{}\")", self.text(*kind).unwrap_or_default());
            match *kind {
                block::HSREQ => hs("HSREQ"),
                block::HSRSP => hs("HSRSP"),
                block::KMREQ => format!("KMREQ({})", hex(content)),
                block::KMRSP => format!("KMRSP({})", hex(content)),
                block::SID => text("SID"),
                block::CONGESTION => text("CONGESTION"),
                block::FILTER => text("FILTER"),
                block::GROUP => {
                    let w = words(content);
                    let (id, rest) = (w.first().unwrap_or(&0), w.get(1).unwrap_or(&0));
                    let (kind, flags) = (rest >> 24, rest >> 16 & 0xFF);
                    let weight = rest & 0xFFFF;
                    format!("GROUP(id={id:08x},type={kind},flags={flags},weight={weight})")
                }
                other => format!("{other}({})", hex(content)),
            }
        };
        self.blocks.iter().map(describe).collect()
    }
}

/// The numbers that a NAK's words name.
pub fn nak_numbers(words: &[u32]) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut at = 0;
    while let Some(&first) = words.get(at) {
        if first & 0x8000_0000 == 0 {
            numbers.push(first);
            at += 1;
        } else {
            let first = first & 0x7FFF_FFFF;
            let last = words.get(at + 1).copied().unwrap_or(first);
            let len = last.wrapping_sub(first) & 0x7FFF_FFFF;
            numbers.extend((0..=len).map(|i| first.wrapping_add(i) & 0x7FFF_FFFF));
            at += 2;
        }
    }
    numbers
}
