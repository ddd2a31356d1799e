//! A running digest of what a session delivered (`diagnostics.payload_hash`): with it an operator,
//! or a test, can hold the engine's side of a line against the sender's file, byte for byte.
//! [`crate::Stream`] feeds it at the point of delivery: after ARQ, decryption and reordering,
//! before anything looks into the payload. Costs nothing when it is off.

use sha2::{Digest, Sha256};

/// What a session has delivered so far, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PayloadFigures {
    /// Payload bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that are missing between these.
    pub missing: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

/// The digest while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct PayloadDigest {
    hash: Sha256,
    bytes: u64,
    packets: u64,
    missing: u64,
}

impl PayloadDigest {
    /// The next packet's payload; `missing` are lost before it.
    pub(crate) fn update(&mut self, payload: &[u8], missing: u32) {
        self.hash.update(payload);
        self.bytes += payload.len() as u64;
        self.packets += 1;
        self.missing += u64::from(missing);
    }

    /// The figures now; the digest goes on.
    pub(crate) fn figures(&self) -> PayloadFigures {
        PayloadFigures {
            bytes: self.bytes,
            packets: self.packets,
            missing: self.missing,
            sha256: self.hash.clone().finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_all_bytes_in_order_however_they_were_cut() {
        // FIPS 180-2, appendix B.1
        let expected = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61,
            0xf2, 0x00, 0x15, 0xad,
        ];
        let mut digest = PayloadDigest::default();
        digest.update(b"a", 0);
        let _ = digest.figures();
        digest.update(b"bc", 2);
        let figures = digest.figures();
        assert_eq!(figures.sha256, expected);
        assert_eq!((figures.bytes, figures.packets, figures.missing), (3, 2, 2));
    }
}
