//! Encryption (spec section 16): passphrases and the keys derived from them, what a listener
//! and a caller agree on, and the ciphers of a connection.
//!
//! Deriving a key costs about a millisecond (PBKDF2), so it never happens inside a
//! [`Connection`](crate::Connection): whoever authorises a publisher calls
//! [`Security::negotiate`], whoever orders a call makes a [`CallerSecurity`], on a thread of its
//! own, and hands the result in. Randomness comes in as a seed.
//!
//! `message` is the KM message on the wire, `agree` decides what both sides agreed on, `ring`
//! holds the keys of each direction while a connection lives, `packet_key` is one key made ready
//! for packets. The primitives stand in `backend`, which the feature `crypto` brings; without it
//! `absent` takes its place and no encryption can be agreed.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

// DOOR: control and the shard are written against these names.

mod agree;
#[cfg(feature = "crypto")]
mod backend;
#[cfg(not(feature = "crypto"))]
#[path = "absent.rs"]
mod backend;
mod cipher_iv;
mod message;
mod packet_key;
mod ring;
mod secret;

use core::fmt;

use zeroize::Zeroizing;

pub(crate) use agree::{Agreement, Terms};
pub use agree::{CallerSecurity, KeyQuestion, ListenerPolicy, Security};
pub(crate) use cipher_iv::is_current_gcm;
pub use message::KmState;
pub(crate) use message::{KeyMaterial, Message};
pub(crate) use packet_key::Suite;
pub(crate) use ring::{Opened, ReceiveKeys, Refresh, SendKeys};
pub(crate) use secret::Secret;

/// The salt of a connection, as it stands in each KM message.
pub(crate) type Salt = [u8; 16];
/// Bytes that AES-GCM adds to a payload.
pub(crate) const TAG_LEN: usize = 16;

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

    /// The encryption field of a handshake (spec section 3): bytes / 8.
    pub(crate) const fn to_field(self) -> u16 {
        match self {
            KeyLength::Aes128 => 2,
            KeyLength::Aes192 => 3,
            KeyLength::Aes256 => 4,
        }
    }

    /// From the encryption field; `None` for 0 and what has no meaning.
    pub(crate) const fn from_field(field: u16) -> Option<Self> {
        match field {
            2 => Some(KeyLength::Aes128),
            3 => Some(KeyLength::Aes192),
            4 => Some(KeyLength::Aes256),
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

impl CipherPolicy {
    /// Whether a responder takes it.
    pub(crate) const fn allows(self, cipher: Cipher) -> bool {
        matches!(
            (self, cipher),
            (CipherPolicy::Auto, _)
                | (CipherPolicy::Ctr, Cipher::Ctr)
                | (CipherPolicy::Gcm, Cipher::Gcm)
        )
    }

    /// What an initiator asks for.
    pub(crate) const fn asks(self) -> Cipher {
        match self {
            CipherPolicy::Auto | CipherPolicy::Ctr => Cipher::Ctr,
            CipherPolicy::Gcm => Cipher::Gcm,
        }
    }
}

/// A passphrase of 10 to 80 bytes; wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

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
            Ok(Passphrase(Zeroizing::new(text.to_owned())))
        } else {
            Err(PassphraseLength(text.len()))
        }
    }

    /// The KEK of this passphrase for a connection's salt, of which only the last 8 bytes count
    /// (spec section 16.1). PBKDF2's output is made in blocks of 20 bytes, each at the full
    /// price, and a shorter output is the beginning of a longer one: a KEK of 32 bytes serves
    /// all lengths.
    pub(crate) fn derive(&self, salt: &Salt, length: KeyLength) -> Secret {
        let mut kek = Secret::empty();
        let (_, last) = salt.split_at(8);
        let (room, _) = kek.room().split_at_mut(length.bytes());
        backend::derive(self.0.as_bytes(), last, room);
        kek
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(all(test, feature = "crypto"))]
mod tests;

#[cfg(all(test, not(feature = "crypto")))]
#[test]
fn without_ciphers_no_encryption_is_agreed() {
    use crate::reject::RejectionCode;

    let passphrase = Passphrase::new("the right one").expect("long enough");
    let mut caller = CallerSecurity::new(&passphrase, None, CipherPolicy::Auto, false, [1; 32]);
    assert_eq!(caller.ask(2), Err(RejectionCode::CRYPTO));
    let mut policy = ListenerPolicy {
        passphrase: Some(&passphrase),
        require: false,
        cipher: CipherPolicy::Auto,
    };
    let negotiated = Security::negotiate(None, 0x0001_0505, &policy, [1; 32]);
    assert_eq!(negotiated.err(), Some(RejectionCode::CRYPTO));
    policy.passphrase = None;
    assert!(Security::negotiate(None, 0x0001_0505, &policy, [1; 32]).is_ok());
}
