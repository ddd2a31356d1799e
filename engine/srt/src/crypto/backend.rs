//! The primitives behind the feature `crypto`: AES-CTR, AES-GCM and PBKDF2 of AWS-LC, RFC 3394
//! key wrap of RustCrypto (it knows 192-bit keys). Called by the rest of `crypto` only. A key
//! object keeps its schedule, wipes it when dropped, and works without allocating.

use core::fmt;
use core::num::NonZeroU32;

use aes_kw::{KeyInit, KwAes128, KwAes192, KwAes256};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1};

use super::{TAG_LEN, cipher_iv};

/// Whether this build can encrypt.
pub(crate) const AVAILABLE: bool = true;

/// Spec section 16.1.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2048).unwrap();

/// PBKDF2-HMAC-SHA1 with 2048 iterations (spec section 16.1).
pub(crate) fn derive(passphrase: &[u8], salt: &[u8], out: &mut [u8]) {
    pbkdf2::derive(PBKDF2_HMAC_SHA1, ITERATIONS, salt, passphrase, out);
}

/// RFC 3394 wrap of `keys` into `out`, which is 8 bytes longer. `false` when a length is wrong.
pub(crate) fn wrap(kek: &[u8], keys: &[u8], out: &mut [u8]) -> bool {
    let wrapped = match kek.len() {
        16 => KwAes128::new_from_slice(kek).map(|kw| kw.wrap_key(keys, out).is_ok()),
        24 => KwAes192::new_from_slice(kek).map(|kw| kw.wrap_key(keys, out).is_ok()),
        32 => KwAes256::new_from_slice(kek).map(|kw| kw.wrap_key(keys, out).is_ok()),
        _ => return false,
    };
    wrapped.unwrap_or(false)
}

/// RFC 3394 unwrap into `out`, which is 8 bytes shorter. `false` when the KEK is another or a
/// length is wrong; `out` is then of no use.
pub(crate) fn unwrap(kek: &[u8], wrapped: &[u8], out: &mut [u8]) -> bool {
    let unwrapped = match kek.len() {
        16 => KwAes128::new_from_slice(kek).map(|kw| kw.unwrap_key(wrapped, out).is_ok()),
        24 => KwAes192::new_from_slice(kek).map(|kw| kw.unwrap_key(wrapped, out).is_ok()),
        32 => KwAes256::new_from_slice(kek).map(|kw| kw.unwrap_key(wrapped, out).is_ok()),
        _ => return false,
    };
    unwrapped.unwrap_or(false)
}

/// An AES-CTR key.
pub(crate) struct CtrKey(EncryptingKey);

impl fmt::Debug for CtrKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CtrKey(..)")
    }
}

impl CtrKey {
    /// `None` unless `key` has 16, 24 or 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let algorithm = match key.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            32 => &cipher::AES_256,
            _ => return None,
        };
        let key = UnboundCipherKey::new(algorithm, key).ok()?;
        EncryptingKey::ctr(key).ok().map(CtrKey)
    }

    /// Encrypts or decrypts: counter mode does not tell them apart.
    #[inline]
    pub(crate) fn apply(&self, iv: [u8; cipher_iv::CTR_LEN], data: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        let done = self.0.less_safe_encrypt(data, context);
        debug_assert!(done.is_ok(), "a 128-bit counter block fits AES-CTR");
    }
}

/// An AES-GCM key.
pub(crate) struct GcmKey(LessSafeKey);

impl fmt::Debug for GcmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GcmKey(..)")
    }
}

impl GcmKey {
    /// `None` unless `key` has 16, 24 or 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let algorithm = match key.len() {
            16 => &aead::AES_128_GCM,
            24 => &aead::AES_192_GCM,
            32 => &aead::AES_256_GCM,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        Some(GcmKey(LessSafeKey::new(key)))
    }

    /// Encrypts `data` in place and returns the tag.
    #[inline]
    pub(crate) fn seal(
        &self,
        iv: [u8; cipher_iv::GCM_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), data)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts `sealed` into `out`, which is as long, if the tag is right.
    #[inline]
    pub(crate) fn open(
        &self,
        iv: [u8; cipher_iv::GCM_LEN],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(iv);
        self.0
            .open_separate_gather(nonce, Aad::from(aad), sealed, tag, out)
            .is_ok()
    }
}
