//! What a datagram says to an onlooker: one who reads a recorded conversation of two others. The
//! same readers as in [`crate::Connection`] and [`crate::Handshaker`], without their state. Called
//! by `inspect`.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mirror_base::PacketSequenceNumber;

use crate::crypto::{KeyMaterial, is_current_gcm};
use crate::handshake::cif::{CONCLUSION, HandshakeCif, INDUCTION};
use crate::handshake::extensions::{Extensions, HsWords, string};
use crate::packet::ack::AckCif;
use crate::packet::loss::LossRanges;
use crate::packet::{
    Control, Header, KK_MASK, MESSAGE_MASK, POSITION_SOLO, RETRANSMITTED, take_u32,
};
use crate::{Cipher, KeyLength, KmState, RejectionCode};

mod blocks;
pub use blocks::{Block, KeyMessage, Keys, blocks};

/// A datagram's header and what it is.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The sender's clock, µs.
    pub timestamp: u32,
    /// Control packets: the type-specific information (word 1), as the number of an ACK.
    pub information: u32,
    /// Destination socket ID.
    pub destination: u32,
    /// What it is.
    pub kind: ObservedKind,
}

/// Kinds of packets.
#[derive(Clone, Debug)]
pub enum ObservedKind {
    /// A data packet.
    Data {
        /// Sequence number.
        sequence: u32,
        /// Message number.
        message: u32,
        /// PP: place in its message: 3 alone, 2 first, 1 last, 0 between.
        position: u8,
        /// KK: 0 clear, 1 even key, 2 odd key.
        key: u8,
        /// R: sent again.
        retransmitted: bool,
        /// Message number 0: of the packet filter, if there is one.
        is_filter: bool,
    },
    /// A handshake.
    Handshake(Box<ObservedHandshake>),
    /// ACK, of any form.
    Ack(ObservedAck),
    /// NAK.
    Nak(ObservedNak),
    /// SHUTDOWN.
    Shutdown,
    /// KEEPALIVE, of the side that sends data.
    Keepalive,
    /// DROPREQ, likewise.
    DropRequest,
    /// ACKACK.
    AckAck,
    /// What is otherwise said in the handshake, in a packet of its own: HSREQ and HSRSP (before
    /// SRT 1.3), KMREQ and KMRSP (a new key), others by their number.
    Extension {
        /// Type of the block: 1 HSREQ, 2 HSRSP, 3 KMREQ, 4 KMRSP.
        kind: u16,
        /// Its content.
        content: Vec<u8>,
    },
    /// Anything else: its control type.
    Other(u16),
}

impl Observed {
    /// What the specification calls the packet; data packets that are sent again, those of the
    /// packet filter and the three forms of ACK are told apart.
    pub const fn name(&self) -> &'static str {
        match &self.kind {
            ObservedKind::Data {
                is_filter: true, ..
            } => "DATA-FEC",
            ObservedKind::Data {
                retransmitted: true,
                ..
            } => "DATA-REXMIT",
            ObservedKind::Data { .. } => "DATA",
            ObservedKind::Handshake(_) => "HANDSHAKE",
            ObservedKind::Ack(ack) => match ack.form {
                AckForm::Light => "ACK-light",
                AckForm::Small => "ACK-small",
                AckForm::Full => "ACK-full",
            },
            ObservedKind::Nak(_) => "NAK",
            ObservedKind::Shutdown => "SHUTDOWN",
            ObservedKind::Keepalive => "KEEPALIVE",
            ObservedKind::DropRequest => "DROPREQ",
            ObservedKind::AckAck => "ACKACK",
            ObservedKind::Extension { kind, .. } => match *kind {
                1 => "EXT-HSREQ",
                2 => "EXT-HSRSP",
                3 => "EXT-KMREQ",
                4 => "EXT-KMRSP",
                _ => "EXT-other",
            },
            ObservedKind::Other(4) => "CGWARNING",
            ObservedKind::Other(8) => "PEERERROR",
            ObservedKind::Other(_) => "other",
        }
    }
}

/// The three forms of an ACK (spec section 10.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckForm {
    /// The sequence number alone.
    Light,
    /// Without rates.
    Small,
    /// All of it: asks for an ACKACK.
    Full,
}

/// An ACK; what its form lacks is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObservedAck {
    /// Its form.
    pub form: AckForm,
    /// First sequence number not yet received in order.
    pub sequence: u32,
    /// Round-trip time, µs.
    pub rtt_us: Option<u32>,
    /// Its variance, µs.
    pub rtt_var_us: Option<u32>,
    /// Free packets in the receiver's buffer.
    pub available: Option<u32>,
    /// Packets received a second.
    pub rate_pps: Option<u32>,
    /// Estimated capacity of the link, packets a second.
    pub capacity_pps: Option<u32>,
    /// Bytes received a second.
    pub rate_bytes: Option<u32>,
}

/// Where the word of an ACK is that tells bytes a second.
const RATE_BYTES_AT: usize = 24;

impl ObservedAck {
    fn parse(cif: &[u8]) -> Option<Self> {
        let ack = AckCif::parse(cif)?;
        let mut behind = cif.get(RATE_BYTES_AT..).unwrap_or_default();
        let form = match (ack.light, ack.rates_pps) {
            (true, _) => AckForm::Light,
            (false, None) => AckForm::Small,
            (false, Some(_)) => AckForm::Full,
        };
        Some(ObservedAck {
            form,
            sequence: ack.sequence.get(),
            rtt_us: ack.rtt_us.map(|rtt| rtt.0),
            rtt_var_us: ack.rtt_us.map(|rtt| rtt.1),
            available: ack.available,
            rate_pps: ack.rates_pps.map(|rates| rates.0),
            capacity_pps: ack.rates_pps.map(|rates| rates.1),
            rate_bytes: take_u32(&mut behind),
        })
    }
}

/// A NAK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedNak {
    /// What is missing: first and last sequence number of each stretch.
    pub ranges: Vec<(u32, u32)>,
    /// The list breaks its form behind them.
    pub is_malformed: bool,
}

impl ObservedNak {
    fn parse(cif: &[u8]) -> Self {
        let number = PacketSequenceNumber::get;
        let all = LossRanges::new(cif);
        let mut nak = ObservedNak {
            ranges: Vec::new(),
            is_malformed: false,
        };
        for range in all {
            match range {
                Ok((first, last)) => nak.ranges.push((number(first), number(last))),
                Err(_) => nak.is_malformed = true,
            }
        }
        nak
    }
}

/// HSREQ or HSRSP (spec section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// SRT version, 0x00MMmmpp.
    pub version: u32,
    /// Flags.
    pub flags: u32,
    /// Latency as receiver, ms.
    pub receive_ms: u16,
    /// Least latency of the other side as receiver, ms.
    pub send_ms: u16,
}

impl Greeting {
    /// Reads the content of a block or packet.
    pub fn parse(content: &[u8]) -> Option<Self> {
        HsWords::parse(content).map(Greeting::from)
    }
}

/// Steps of the handshake (spec section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// INDUCTION.
    Induction,
    /// CONCLUSION.
    Conclusion,
    /// WAVEAHAND and AGREEMENT: rendezvous.
    Rendezvous,
    /// A rejection.
    Rejected(RejectionCode),
    /// No known type.
    Other(u32),
}

/// A handshake.
#[derive(Clone, Debug)]
pub struct ObservedHandshake {
    /// Step.
    pub stage: Stage,
    /// Handshake type, as it is on the wire.
    pub handshake_type: u32,
    /// Handshake version, 4 or 5.
    pub version: u32,
    /// Encryption field: key length by 8, 0: not said.
    pub encryption: u16,
    /// Extension field.
    pub extension: u16,
    /// Initial sequence number.
    pub initial_sequence: u32,
    /// Largest packet, bytes with IP and UDP headers.
    pub mss: u32,
    /// Packets that may be under way.
    pub flow_window: u32,
    /// The sender's socket ID.
    pub socket_id: u32,
    /// Cookie.
    pub cookie: u32,
    /// The other side's address as the sender sees it.
    pub peer_ip: IpAddr,
    /// Bytes of the handshake, blocks included.
    pub bytes: usize,
    /// The blocks behind it, in order, as they are on the wire: see [`blocks`].
    pub attached: Vec<u8>,
    /// HSREQ.
    pub request: Option<Greeting>,
    /// HSRSP.
    pub response: Option<Greeting>,
    /// KMREQ.
    pub key_request: Option<Vec<u8>>,
    /// Stream ID as received.
    pub stream_id: Option<Vec<u8>>,
    /// Group ID.
    pub group_id: Option<u32>,
}

const WAVEAHAND: u32 = 0;
const AGREEMENT: u32 = 0xFFFF_FFFE;

impl ObservedHandshake {
    /// What the specification calls its type; of rejections and unknown types the number tells.
    pub const fn type_name(&self) -> &'static str {
        match (self.stage, self.handshake_type) {
            (_, INDUCTION) => "INDUCTION",
            (_, CONCLUSION) => "CONCLUSION",
            (_, WAVEAHAND) => "WAVEAHAND",
            (_, AGREEMENT) => "AGREEMENT",
            (Stage::Rejected(_), _) => "rejection",
            _ => "other",
        }
    }
}

/// The address in the field of 16 bytes: each group of four reversed, IPv4 in the first one.
fn peer_ip(field: [u8; 16]) -> IpAddr {
    let mut bytes = field;
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    match bytes {
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(bytes).into(),
    }
}

impl From<HsWords> for Greeting {
    fn from(words: HsWords) -> Self {
        Greeting {
            version: words.version,
            flags: words.flags,
            receive_ms: words.receive_ms,
            send_ms: words.send_ms,
        }
    }
}

/// Reads a datagram; `None` when it is too short for what it claims to be.
pub fn observe(datagram: &[u8]) -> Option<Observed> {
    let (header, rest) = Header::parse(datagram)?;
    let kind = if header.is_control() {
        control(&header, rest)?
    } else {
        ObservedKind::Data {
            sequence: header.word0,
            message: header.word1 & MESSAGE_MASK,
            position: (header.word1 >> POSITION_SOLO.trailing_zeros()) as u8,
            key: ((header.word1 & KK_MASK) >> KK_MASK.trailing_zeros()) as u8,
            retransmitted: header.word1 & RETRANSMITTED != 0,
            is_filter: header.word1 & MESSAGE_MASK == 0,
        }
    };
    Some(Observed {
        timestamp: header.timestamp,
        information: header.word1,
        destination: header.destination,
        kind,
    })
}

fn control(header: &Header, rest: &[u8]) -> Option<ObservedKind> {
    Some(match header.control() {
        Control::Handshake => ObservedKind::Handshake(Box::new(handshake(rest)?)),
        Control::Keepalive => ObservedKind::Keepalive,
        Control::DropRequest => ObservedKind::DropRequest,
        Control::Ack => ObservedKind::Ack(ObservedAck::parse(rest)?),
        Control::AckAck => ObservedKind::AckAck,
        Control::Nak => ObservedKind::Nak(ObservedNak::parse(rest)),
        Control::Shutdown => ObservedKind::Shutdown,
        Control::Extension => ObservedKind::Extension {
            kind: header.word0 as u16,
            content: rest.to_vec(),
        },
        _ => ObservedKind::Other((header.word0 >> 16) as u16 & 0x7FFF),
    })
}

fn handshake(cif: &[u8]) -> Option<ObservedHandshake> {
    let (fixed, attached) = HandshakeCif::parse(cif)?;
    let stage = match fixed.handshake_type {
        INDUCTION => Stage::Induction,
        CONCLUSION => Stage::Conclusion,
        WAVEAHAND | AGREEMENT => Stage::Rendezvous,
        other => match RejectionCode::from_wire(other) {
            Some(code) => Stage::Rejected(code),
            None => Stage::Other(other),
        },
    };
    // Behind other handshakes there is nothing to read; of malformed blocks nothing is believed.
    let blocks = match stage {
        Stage::Conclusion if fixed.version >= 5 => Extensions::parse(attached).unwrap_or_default(),
        _ => Extensions::default(),
    };
    Some(ObservedHandshake {
        stage,
        handshake_type: fixed.handshake_type,
        version: fixed.version,
        encryption: fixed.encryption,
        extension: fixed.extension,
        initial_sequence: fixed.initial_sequence,
        mss: fixed.mss,
        flow_window: fixed.flow_window,
        socket_id: fixed.socket_id,
        cookie: fixed.cookie,
        peer_ip: peer_ip(fixed.peer_ip),
        bytes: cif.len(),
        attached: attached.to_vec(),
        request: blocks.hs_request.map(Greeting::from),
        response: blocks.hs_response.map(Greeting::from),
        key_request: blocks.km_request,
        stream_id: blocks.srt_stream_id.filter(|id| !id.is_empty()),
        group_id: blocks.group.map(|group| group.group_id),
    })
}

/// Cipher and key length of a KMREQ's content; `None` if it is none.
pub fn encryption_of(key_request: &[u8]) -> Option<(Cipher, KeyLength)> {
    let material = KeyMaterial::parse(key_request)?;
    Some((material.cipher, material.length))
}

/// Which of the two variants of AES-GCM a sender uses whose peer announced `version` (spec
/// section 16.4): that of SRT 1.5.4 and later, not the one before.
pub fn is_gcm_since_154(version: u32) -> bool {
    is_current_gcm(version)
}

/// A caller of our own making, for a follower of a recorded conversation.
#[derive(Clone, Copy, Debug)]
pub struct StandIn<'a> {
    /// Its socket ID.
    pub socket_id: u32,
    /// The number of its first packet.
    pub initial_sequence: u32,
    /// Its clock when it concluded.
    pub timestamp: u32,
    /// What it asks for.
    pub greeting: Greeting,
    /// KMREQ.
    pub key_request: Option<&'a [u8]>,
}

impl StandIn<'_> {
    /// Its first datagram, the induction.
    pub fn induction(&self) -> Vec<u8> {
        let words = [
            4,
            2,
            self.initial_sequence,
            1500,
            8192,
            INDUCTION,
            self.socket_id,
            0,
        ];
        self.datagram(&words, &[])
    }

    /// Its conclusion, in answer to `reply`: the induction response that our listener wrote.
    pub fn conclusion(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let (_, cif) = Header::parse(reply)?;
        let cookie = HandshakeCif::parse(cif)?.0.cookie;
        let kinds = 1 | u32::from(self.key_request.is_some()) << 1;
        let g = &self.greeting;
        let latency = u32::from(g.receive_ms) << 16 | u32::from(g.send_ms);
        let mut blocks = vec![1 << 16 | 3, g.version, g.flags, latency];
        if let Some(request) = self.key_request {
            let mut request = request;
            blocks.push(3 << 16 | (request.len() as u32 / 4));
            while let Some(word) = take_u32(&mut request) {
                blocks.push(word);
            }
        }
        let fixed = [
            5,
            kinds,
            self.initial_sequence,
            1500,
            8192,
            CONCLUSION,
            self.socket_id,
        ];
        let mut words = fixed.to_vec();
        words.push(cookie);
        Some(self.datagram(&words, &blocks))
    }

    fn datagram(&self, words: &[u32], blocks: &[u32]) -> Vec<u8> {
        let header = [1 << 31, 0, self.timestamp, 0];
        let peer_ip = [0; 4];
        let all = header.iter().chain(words).chain(&peer_ip).chain(blocks);
        all.flat_map(|word| word.to_be_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, HandshakeAction, Handshaker};
    use mirror_base::Instant;

    #[test]
    fn a_stand_in_is_let_in_with_what_it_asks_for() {
        let key = [0x12; 40];
        let stand_in = StandIn {
            socket_id: 77,
            initial_sequence: 4711,
            timestamp: 123,
            greeting: Greeting {
                version: 0x0001_0501,
                flags: 0x3F,
                receive_ms: 80,
                send_ms: 200,
            },
            key_request: Some(&key),
        };
        let peer = "192.0.2.1:9".parse().unwrap();
        let now = Instant::from_millis(5);
        let mut listener = Handshaker::new(Config::default(), [3; 16]);
        let mut out = [0; 1500];
        let first = stand_in.induction();
        let Ok(HandshakeAction::Reply(len)) = listener.handle_datagram(now, peer, &first, &mut out)
        else {
            panic!("no answer to an induction");
        };
        let conclusion = stand_in.conclusion(&out[..len]).unwrap();
        let Ok(HandshakeAction::Conclude(request)) =
            listener.handle_datagram(now, peer, &conclusion, &mut out)
        else {
            panic!("no request");
        };
        assert_eq!(request.peer_socket_id, 77);
        assert_eq!(request.initial_sequence.get(), 4711);
        assert_eq!((request.version, request.flags), (0x0001_0501, 0x3F));
        assert_eq!(request.key_material.as_deref(), Some(&key[..]));
        // And an onlooker reads the same.
        let seen = observe(&conclusion).unwrap();
        let ObservedKind::Handshake(handshake) = seen.kind else {
            panic!("a handshake");
        };
        assert_eq!(handshake.stage, Stage::Conclusion);
        assert_eq!(handshake.request, Some(stand_in.greeting));
        assert_eq!(seen.timestamp, 123);
    }

    fn control(kind: u16, information: u32, words: &[u32]) -> Observed {
        let header = [1 << 31 | u32::from(kind) << 16, information, 5, 6];
        let all = header.iter().chain(words);
        let bytes: Vec<u8> = all.flat_map(|word| word.to_be_bytes()).collect();
        observe(&bytes).unwrap()
    }

    #[test]
    fn every_form_of_ack_and_nak_is_read() {
        let words = [9, 100_000, 50_000, 8192, 10, 1000, 13_000];
        for (count, name) in [(1, "ACK-light"), (4, "ACK-small"), (7, "ACK-full")] {
            let seen = control(2, 3, &words[..count]);
            assert_eq!((seen.name(), seen.information), (name, 3));
            let ObservedKind::Ack(ack) = seen.kind else {
                panic!("an ACK");
            };
            assert_eq!(ack.sequence, 9);
            assert_eq!(ack.rtt_us, (count > 1).then_some(100_000));
            assert_eq!(ack.available, (count > 1).then_some(8192));
            assert_eq!(ack.rate_bytes, (count == 7).then_some(13_000));
        }
        let ObservedKind::Nak(nak) = control(3, 0, &[5, 1 << 31 | 7, 9, 1 << 31]).kind else {
            panic!("a NAK");
        };
        assert_eq!((nak.ranges, nak.is_malformed), (vec![(5, 5), (7, 9)], true));
        assert_eq!(control(6, 0, &[]).name(), "ACKACK");
        assert_eq!(control(0x7FFF, 0, &[1]).name(), "EXT-other");
        assert_eq!(control(9, 0, &[]).name(), "other");
    }

    #[test]
    fn the_peers_address_is_read_in_its_own_order() {
        let mut field = [0; 16];
        field[..4].copy_from_slice(&[4, 3, 2, 1]);
        assert_eq!(peer_ip(field), "1.2.3.4".parse::<IpAddr>().unwrap());
        field[8] = 9;
        let v6 = "102:304::9:0:0".parse::<IpAddr>().unwrap();
        assert_eq!(peer_ip(field), v6);
    }

    #[test]
    fn runts_say_nothing() {
        for len in 0..64 {
            assert!(observe(&[0x80; 64][..len]).is_none() || len >= 16);
        }
        let mut handshake = [0; 63];
        handshake[0] = 0x80;
        assert!(observe(&handshake).is_none());
    }
}
