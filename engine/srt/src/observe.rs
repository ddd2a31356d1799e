//! What a datagram says to an onlooker: one who reads a recorded conversation of two others. The
//! same readers as in [`crate::Connection`] and [`crate::Handshaker`], without their state. Called
//! by `inspect`.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

use crate::crypto::KeyMaterial;
use crate::handshake::cif::{CONCLUSION, HandshakeCif, INDUCTION};
use crate::handshake::extensions::{Extensions, HsWords};
use crate::packet::{Control, Header, KK_MASK, MESSAGE_MASK, RETRANSMITTED, take_u32};
use crate::{Cipher, KeyLength, RejectionCode};

/// A datagram's header and what it is.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The sender's clock, µs.
    pub timestamp: u32,
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
    Ack,
    /// NAK.
    Nak,
    /// SHUTDOWN.
    Shutdown,
    /// KEEPALIVE or DROPREQ: of the side that sends data.
    OfSender,
    /// HSREQ or HSRSP in a packet of its own (before SRT 1.3).
    Greeting {
        /// It answers.
        is_response: bool,
        /// What it says.
        words: Greeting,
    },
    /// KMREQ in a packet of its own: a new key.
    KeyRequest(Vec<u8>),
    /// Anything else.
    Other,
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
    /// Handshake version, 4 or 5.
    pub version: u32,
    /// Initial sequence number.
    pub initial_sequence: u32,
    /// The sender's socket ID.
    pub socket_id: u32,
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
            key: ((header.word1 & KK_MASK) >> KK_MASK.trailing_zeros()) as u8,
            retransmitted: header.word1 & RETRANSMITTED != 0,
            is_filter: header.word1 & MESSAGE_MASK == 0,
        }
    };
    Some(Observed {
        timestamp: header.timestamp,
        destination: header.destination,
        kind,
    })
}

fn control(header: &Header, rest: &[u8]) -> Option<ObservedKind> {
    Some(match header.control() {
        Control::Handshake => ObservedKind::Handshake(Box::new(handshake(rest)?)),
        Control::Keepalive | Control::DropRequest => ObservedKind::OfSender,
        Control::Ack => ObservedKind::Ack,
        Control::Nak => ObservedKind::Nak,
        Control::Shutdown => ObservedKind::Shutdown,
        Control::Extension => extension(header.word0 as u16, rest),
        _ => ObservedKind::Other,
    })
}

fn extension(subtype: u16, content: &[u8]) -> ObservedKind {
    match (subtype, HsWords::parse(content)) {
        (1 | 2, Some(words)) => ObservedKind::Greeting {
            is_response: subtype == 2,
            words: words.into(),
        },
        (3, _) => ObservedKind::KeyRequest(content.to_vec()),
        _ => ObservedKind::Other,
    }
}

fn handshake(cif: &[u8]) -> Option<ObservedHandshake> {
    let (fixed, blocks) = HandshakeCif::parse(cif)?;
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
        Stage::Conclusion if fixed.version >= 5 => Extensions::parse(blocks).unwrap_or_default(),
        _ => Extensions::default(),
    };
    Some(ObservedHandshake {
        stage,
        version: fixed.version,
        initial_sequence: fixed.initial_sequence,
        socket_id: fixed.socket_id,
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
