//! Extension blocks of handshakes (spec section 4), one by one and in order, as an onlooker wants
//! to see them; the same content in packets of its own.

use super::{Cipher, Greeting, KeyLength, KeyMaterial, KmState, string, take_u32};

/// Longest string of any block, bytes.
const MAX_TEXT: usize = 512;

/// A block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Block {
    /// HSREQ.
    Request(Greeting),
    /// HSRSP.
    Response(Greeting),
    /// KMREQ.
    KeyRequest(KeyMessage),
    /// KMRSP.
    KeyResponse(KeyMessage),
    /// Stream ID, as received.
    StreamId(Vec<u8>),
    /// Congestion control ("live", "file"), as received.
    Congestion(Vec<u8>),
    /// Packet filter, as received.
    Filter(Vec<u8>),
    /// Group (spec section 4.3).
    Group {
        /// Its ID.
        id: u32,
        /// 1 broadcast, 2 backup.
        kind: u8,
        /// Flags.
        flags: u8,
        /// Weight of the link: a backup group uses the greatest first.
        weight: u16,
    },
    /// Any other, or one whose content cannot be read: type and bytes of content.
    Other(u16, usize),
}

/// What KMREQ and KMRSP carry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyMessage {
    /// Wrapped keys.
    Keys(Keys),
    /// Why there are none: only in answers.
    Status(KmState),
    /// Something else, bytes.
    Malformed(usize),
}

/// Keys on their way (spec section 16.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// Which: 1 the even one, 2 the odd one, 3 both.
    pub kk: u8,
    /// What they are for.
    pub cipher: Cipher,
    /// Length of each.
    pub length: KeyLength,
    /// Salt.
    pub salt: [u8; 16],
    /// The keys, wrapped with one that follows from passphrase and salt (RFC 3394).
    pub wrapped: Vec<u8>,
}

impl KeyMessage {
    fn parse(content: &[u8]) -> Self {
        if let Some(keys) = KeyMaterial::parse(content) {
            return KeyMessage::Keys(Keys {
                kk: keys.kk(),
                cipher: keys.cipher,
                length: keys.length,
                salt: keys.salt,
                wrapped: keys.wrapped().to_vec(),
            });
        }
        match KmState::from_wire(content) {
            Some(state) => KeyMessage::Status(state),
            None => KeyMessage::Malformed(content.len()),
        }
    }
}

impl Block {
    /// Reads the content of a block of type `kind`.
    pub fn parse(kind: u16, content: &[u8]) -> Self {
        let read = match kind {
            1 => Greeting::parse(content).map(Block::Request),
            2 => Greeting::parse(content).map(Block::Response),
            3 => Some(Block::KeyRequest(KeyMessage::parse(content))),
            4 => Some(Block::KeyResponse(KeyMessage::parse(content))),
            5 => string(content, MAX_TEXT).ok().map(Block::StreamId),
            6 => string(content, MAX_TEXT).ok().map(Block::Congestion),
            7 => string(content, MAX_TEXT).ok().map(Block::Filter),
            8 => group(content),
            _ => None,
        };
        read.unwrap_or(Block::Other(kind, content.len()))
    }
}

fn group(mut content: &[u8]) -> Option<Block> {
    let id = take_u32(&mut content)?;
    let [kind, flags, high, low] = take_u32(&mut content)?.to_be_bytes();
    Some(Block::Group {
        id,
        kind,
        flags,
        weight: u16::from_be_bytes([high, low]),
    })
}

/// The blocks behind a handshake's fixed part; none follow one that runs past the end.
pub fn blocks(mut attached: &[u8]) -> impl Iterator<Item = Block> {
    core::iter::from_fn(move || {
        let [k0, k1, l0, l1] = take_u32(&mut attached)?.to_be_bytes();
        let bytes = usize::from(u16::from_be_bytes([l0, l1])) * 4;
        let (content, rest) = attached.split_at_checked(bytes)?;
        attached = rest;
        Some(Block::parse(u16::from_be_bytes([k0, k1]), content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_in_order_and_unknown_ones_named_by_their_number() {
        let mut bytes = vec![0, 1, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xBF, 0, 120, 0, 80];
        bytes.extend([0xBD, 0x01, 0, 1, 1, 2, 3, 4]);
        bytes.extend([0, 5, 0, 2, b'l', b'e', b'm', b'a', 0, 0, 0, b'1']);
        bytes.extend([0, 8, 0, 2, 0x40, 0, 0, 7, 2, 0, 0, 10]);
        bytes.extend([0, 4, 0, 1, 4, 0, 0, 0]);
        // Too short for its type, and one that runs past the end.
        bytes.extend([0, 2, 0, 1, 0, 1, 5, 1]);
        bytes.extend([0, 6, 0, 9, 1]);
        let found: Vec<Block> = blocks(&bytes).collect();
        assert_eq!(
            found,
            [
                Block::Request(Greeting {
                    version: 0x0001_0501,
                    flags: 0xBF,
                    receive_ms: 120,
                    send_ms: 80
                }),
                Block::Other(0xBD01, 4),
                Block::StreamId(b"amel1".to_vec()),
                Block::Group {
                    id: 0x4000_0007,
                    kind: 2,
                    flags: 0,
                    weight: 10
                },
                Block::KeyResponse(KeyMessage::Status(KmState::BadSecret)),
                Block::Other(2, 4),
            ]
        );
    }

    #[test]
    fn a_key_message_is_read_or_told_to_be_none() {
        let mut message = vec![0x12, 0x20, 0x29, 3, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 4, 4];
        message.extend([7; 16]);
        message.extend([9; 40]);
        let Block::KeyRequest(KeyMessage::Keys(keys)) = Block::parse(3, &message) else {
            panic!("keys");
        };
        assert_eq!((keys.kk, keys.cipher), (3, Cipher::Ctr));
        assert_eq!((keys.salt, keys.wrapped.len()), ([7; 16], 40));
        for cut in (0..message.len()).filter(|cut| *cut != 4) {
            let block = Block::parse(3, &message[..cut]);
            assert_eq!(block, Block::KeyRequest(KeyMessage::Malformed(cut)));
        }
    }
}
