//! One stream key (SEK) made ready for packets: cipher, key schedule, and how counter block,
//! nonce and authenticated header come about (spec sections 16.3 and 16.4). Used by the key
//! rings of both directions; nothing here allocates per packet.

use super::backend::{CtrKey, GcmKey};
use super::cipher_iv::{self, GcmForm};
use super::{Cipher, KeyLength, Salt, Secret, TAG_LEN};
use crate::packet::Header;

/// What all keys of a connection have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Suite {
    pub(crate) cipher: Cipher,
    /// The variant that the peer speaks; of no meaning with AES-CTR.
    pub(crate) form: GcmForm,
    pub(crate) length: KeyLength,
    /// Not secret: it stands in the clear in each KM message.
    pub(crate) salt: Salt,
}

impl Suite {
    /// Bytes that encryption adds to a payload.
    pub(crate) const fn overhead(&self) -> usize {
        match self.cipher {
            Cipher::Ctr => 0,
            Cipher::Gcm => TAG_LEN,
        }
    }

    /// For people.
    pub(crate) const fn name(&self) -> &'static str {
        match (self.cipher, self.length) {
            (Cipher::Ctr, KeyLength::Aes128) => "aes-ctr-128",
            (Cipher::Ctr, KeyLength::Aes192) => "aes-ctr-192",
            (Cipher::Ctr, KeyLength::Aes256) => "aes-ctr-256",
            (Cipher::Gcm, KeyLength::Aes128) => "aes-gcm-128",
            (Cipher::Gcm, KeyLength::Aes192) => "aes-gcm-192",
            (Cipher::Gcm, KeyLength::Aes256) => "aes-gcm-256",
        }
    }
}

/// A key ready for packets.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful in each boxed ring: a pointer less to follow for each packet"
)]
pub(crate) enum PacketKey {
    Ctr(CtrKey),
    Gcm(GcmKey),
}

impl PacketKey {
    /// `None` in a build without ciphers.
    pub(crate) fn new(suite: &Suite, key: &Secret) -> Option<Self> {
        let key = key.of(suite.length);
        match suite.cipher {
            Cipher::Ctr => CtrKey::new(key).map(PacketKey::Ctr),
            Cipher::Gcm => GcmKey::new(key).map(PacketKey::Gcm),
        }
    }

    /// Encrypts the first `len` bytes of `buffer` in place and puts the tag, if the cipher has
    /// one, behind them; returns how long it is now.
    #[inline]
    pub(crate) fn seal(
        &self,
        suite: &Suite,
        header: &Header,
        buffer: &mut [u8],
        len: usize,
    ) -> Option<usize> {
        let (data, behind) = buffer.split_at_mut_checked(len)?;
        match self {
            PacketKey::Ctr(key) => {
                key.apply(cipher_iv::ctr(&suite.salt, header.word0), data);
                Some(len)
            }
            PacketKey::Gcm(key) => {
                let iv = cipher_iv::gcm(suite.form, &suite.salt, header.word0);
                let room = behind.get_mut(..TAG_LEN)?;
                let tag = key.seal(iv, &cipher_iv::aad(suite.form, header), data)?;
                room.copy_from_slice(&tag);
                Some(len + TAG_LEN)
            }
        }
    }

    /// Decrypts `data` in place with AES-CTR; `false` if that is not the cipher.
    #[inline]
    pub(crate) fn apply_ctr(&self, suite: &Suite, sequence: u32, data: &mut [u8]) -> bool {
        let PacketKey::Ctr(key) = self else {
            return false;
        };
        key.apply(cipher_iv::ctr(&suite.salt, sequence), data);
        true
    }

    /// Checks and decrypts a payload of AES-GCM into `out`; `None` if it is not the peer's.
    #[inline]
    pub(crate) fn open_gcm<'a>(
        &self,
        suite: &Suite,
        header: &Header,
        payload: &[u8],
        out: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let PacketKey::Gcm(key) = self else {
            return None;
        };
        let (sealed, tag) = payload.split_last_chunk::<TAG_LEN>()?;
        let out = out.get_mut(..sealed.len())?;
        let iv = cipher_iv::gcm(suite.form, &suite.salt, header.word0);
        let aad = cipher_iv::aad(suite.form, header);
        key.open(iv, &aad, sealed, tag, out).then_some(&*out)
    }
}
