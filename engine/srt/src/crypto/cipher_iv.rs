//! What each packet's encryption depends on besides the key: counter block, nonce and
//! authenticated header (spec sections 16.3 and 16.4). Used by `packet_key`.

use super::Salt;
use crate::packet::{HEADER_LEN, Header, RETRANSMITTED};

/// Bytes of AES-CTR's first counter block.
pub(crate) const CTR_LEN: usize = 16;
/// Bytes of AES-GCM's nonce.
pub(crate) const GCM_LEN: usize = 12;

/// SRT 1.5.4: from here on peers use [`GcmForm::Current`].
const CURRENT_GCM_VERSION: u32 = 0x0001_0504;

/// The two variants of AES-GCM (spec section 16.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GcmForm {
    /// Peers of SRT 1.5.4 and later.
    Current,
    /// Peers up to SRT 1.5.3: nonce out of the counter block, header words little-endian.
    Before154,
}

impl GcmForm {
    /// The variant for a peer that announced `version` in HSREQ or HSRSP.
    pub(crate) const fn for_peer(version: u32) -> Self {
        if version >= CURRENT_GCM_VERSION {
            GcmForm::Current
        } else {
            GcmForm::Before154
        }
    }
}

/// Whether a peer of `version` uses [`GcmForm::Current`].
pub(crate) const fn is_current_gcm(version: u32) -> bool {
    matches!(GcmForm::for_peer(version), GcmForm::Current)
}

/// The counter block: salt bytes 0 to 13, the sequence number in bytes 10 to 13 XORed in, and a
/// block counter from 0 (spec section 16.3).
#[inline]
pub(crate) fn ctr(salt: &Salt, sequence: u32) -> [u8; CTR_LEN] {
    // Bytes 10 to 13 are bits 47 to 16 of the big-endian number.
    let block = u128::from_be_bytes(*salt) ^ (u128::from(sequence) << 16);
    (block & !0xFFFF).to_be_bytes()
}

/// The nonce of AES-GCM.
#[inline]
pub(crate) fn gcm(form: GcmForm, salt: &Salt, sequence: u32) -> [u8; GCM_LEN] {
    let number = u128::from_be_bytes(*salt);
    let number = match form {
        // Bytes 8 to 11 are bits 63 to 32.
        GcmForm::Current => number ^ (u128::from(sequence) << 32),
        GcmForm::Before154 => number ^ (u128::from(sequence) << 16),
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = number.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// What AES-GCM authenticates besides the payload: the header as it is sent for the first time.
#[inline]
pub(crate) fn aad(form: GcmForm, header: &Header) -> [u8; HEADER_LEN] {
    let words = [
        header.word0,
        header.word1 & !RETRANSMITTED,
        header.timestamp,
        header.destination,
    ];
    let mut aad = [0; HEADER_LEN];
    for (to, word) in aad.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&match form {
            GcmForm::Current => word.to_be_bytes(),
            GcmForm::Before154 => word.to_le_bytes(),
        });
    }
    aad
}
