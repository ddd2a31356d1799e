//! The stamp that each packet carries, so that whoever receives the stream can measure the way
//! end to end: a magic word, the send time and the packet's number. In MPEG-TS it stands in the
//! adaptation field's private data (ISO 13818-1, 2.4.3.4) of the first TS packet of a datagram,
//! or in the payload of a null packet there; in native RTP in a header extension (RFC 3550, 5.3.1).

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 20;
/// What a stamp begins with.
pub const MAGIC: [u8; 4] = *b"MIL1";

/// A packet's stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// When it was handed to the sender: µs since the Unix epoch.
    pub sent_unix_us: u64,
    /// The datagram's number in its stream, from 0.
    pub number: u64,
}

impl Stamp {
    /// As it stands on the wire, big-endian.
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut out = [0; STAMP_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4..12].copy_from_slice(&self.sent_unix_us.to_be_bytes());
        out[12..].copy_from_slice(&self.number.to_be_bytes());
        out
    }

    /// Finds the stamp of a datagram: in the first `188 + 16` bytes, where each form has it.
    pub fn find(datagram: &[u8]) -> Option<Stamp> {
        let head = datagram.get(..datagram.len().min(204))?;
        let at = head.windows(4).position(|w| w == MAGIC)?;
        let body = head.get(at + 4..at + STAMP_BYTES)?;
        let (time, number) = body.split_at(8);
        Some(Stamp {
            sent_unix_us: u64::from_be_bytes(time.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_where_it_was_put() {
        let stamp = Stamp {
            sent_unix_us: 1_700_000_000_000_123,
            number: 42,
        };
        let mut datagram = vec![0x47; 1316];
        datagram[7..7 + STAMP_BYTES].copy_from_slice(&stamp.to_bytes());
        assert_eq!(Stamp::find(&datagram), Some(stamp));
        assert_eq!(Stamp::find(&[0; 1316]), None);
        assert_eq!(Stamp::find(b"MIL1"), None);
    }
}
