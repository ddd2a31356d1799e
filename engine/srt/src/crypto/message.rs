//! The KM message (spec section 16.2) and the status words that may answer it (16.5). Read and
//! written in the handshake and, for refreshed keys, in control packets.

use super::packet_key::Suite;
use super::{Cipher, KeyLength, Salt, Secret, backend};
use crate::reject::RejectionCode;

/// Bytes before the wrapped keys.
const HEAD_LEN: usize = 32;
/// What RFC 3394 adds.
const WRAP_LEN: usize = 8;
/// The longest message: two keys of 32 bytes.
pub(crate) const MAX_LEN: usize = HEAD_LEN + WRAP_LEN + 64;

/// Version 1, packet type 2 (KM message).
const VERSION_AND_TYPE: u8 = 0x12;
/// The HaiVision signature.
const SIGN: [u8; 2] = [0x20, 0x29];
/// Stream encapsulation: MPEG-TS over SRT.
const ENCAPSULATION: u8 = 2;
const CIPHER_CTR: u8 = 2;
const CIPHER_GCM: u8 = 4;
const AUTH_GCM: u8 = 1;

/// State of the key exchange in one direction, libsrt's numbers (spec section 16.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KmState {
    /// Nothing is encrypted.
    #[default]
    Unsecured = 0,
    /// Keys are being agreed.
    Securing = 1,
    /// Keys are agreed.
    Secured = 2,
    /// The side that answers has no passphrase.
    NoSecret = 3,
    /// The keys could not be unwrapped: the passphrases differ.
    BadSecret = 4,
    /// The mode of operation is not allowed.
    BadCryptoMode = 5,
}

impl KmState {
    /// libsrt's name of it, without its prefix.
    pub const fn name(self) -> &'static str {
        match self {
            KmState::Unsecured => "unsecured",
            KmState::Securing => "securing",
            KmState::Secured => "secured",
            KmState::NoSecret => "nosecret",
            KmState::BadSecret => "badsecret",
            KmState::BadCryptoMode => "badcryptomode",
        }
    }

    /// As libsrt writes it: little-endian.
    pub(crate) const fn to_wire(self) -> [u8; 4] {
        (self as u32).to_le_bytes()
    }

    /// Accepts either byte order (spec section 16.5).
    pub(crate) fn from_wire(content: &[u8]) -> Option<Self> {
        let word: [u8; 4] = content.try_into().ok()?;
        let number = u32::from_le_bytes(word);
        match number.min(number.swap_bytes()) {
            0 => Some(KmState::Unsecured),
            1 => Some(KmState::Securing),
            2 => Some(KmState::Secured),
            3 => Some(KmState::NoSecret),
            4 => Some(KmState::BadSecret),
            5 => Some(KmState::BadCryptoMode),
            _ => None,
        }
    }

    /// Why a side that insists on encryption gives up (spec section 8).
    pub(crate) const fn rejection(self) -> RejectionCode {
        match self {
            KmState::BadSecret => RejectionCode::BADSECRET,
            KmState::BadCryptoMode => RejectionCode::CRYPTO,
            _ => RejectionCode::UNSECURE,
        }
    }
}

/// A key of a pair: KK in a packet's word 1 and in the KM message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parity {
    Even,
    Odd,
}

impl Parity {
    pub(crate) const fn other(self) -> Self {
        match self {
            Parity::Even => Parity::Odd,
            Parity::Odd => Parity::Even,
        }
    }
}

/// The two keys that may exist at a time.
#[derive(Clone, Debug)]
pub(crate) struct KeyPair<T> {
    pub(crate) even: Option<T>,
    pub(crate) odd: Option<T>,
}

impl<T> KeyPair<T> {
    pub(crate) const NONE: Self = KeyPair {
        even: None,
        odd: None,
    };

    #[inline]
    pub(crate) const fn get(&self, parity: Parity) -> Option<&T> {
        match parity {
            Parity::Even => self.even.as_ref(),
            Parity::Odd => self.odd.as_ref(),
        }
    }

    pub(crate) fn set(&mut self, parity: Parity, key: Option<T>) {
        match parity {
            Parity::Even => self.even = key,
            Parity::Odd => self.odd = key,
        }
    }

    /// The KK field of a message that carries them.
    fn kk(&self) -> u8 {
        u8::from(self.even.is_some()) | u8::from(self.odd.is_some()) << 1
    }
}

/// A parsed KM message: every field is as it should be, the keys are still wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyMaterial<'a> {
    kk: u8,
    pub(crate) cipher: Cipher,
    pub(crate) length: KeyLength,
    pub(crate) salt: Salt,
    wrapped: &'a [u8],
}

impl<'a> KeyMaterial<'a> {
    /// `None` when any field is not what section 16.2 says.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let (head, rest) = message.split_first_chunk::<16>()?;
        let [
            version_and_type,
            sign0,
            sign1,
            kk,
            keki @ ..,
            cipher,
            auth,
            encapsulation,
            reserved0,
            reserved1,
            reserved2,
            salt_words,
            key_words,
        ] = *head;
        let fixed = version_and_type == VERSION_AND_TYPE
            && [sign0, sign1] == SIGN
            && keki == [0; 4]
            && encapsulation == ENCAPSULATION
            && [reserved0, reserved1, reserved2] == [0; 3]
            && salt_words == 4;
        if !fixed || !(1..=3).contains(&kk) {
            return None;
        }
        let cipher = match (cipher, auth) {
            (CIPHER_CTR, 0) => Cipher::Ctr,
            (CIPHER_GCM, AUTH_GCM) => Cipher::Gcm,
            _ => return None,
        };
        let length = KeyLength::from_bytes(usize::from(key_words) * 4)?;
        let (salt, wrapped) = rest.split_first_chunk::<16>()?;
        let keys = kk.count_ones() as usize;
        (wrapped.len() == WRAP_LEN + keys * length.bytes()).then_some(KeyMaterial {
            kk,
            cipher,
            length,
            salt: *salt,
            wrapped,
        })
    }

    /// The KK field: 1 even, 2 odd, 3 both keys.
    pub(crate) const fn kk(&self) -> u8 {
        self.kk
    }

    /// The keys as they are on the wire.
    pub(crate) const fn wrapped(&self) -> &'a [u8] {
        self.wrapped
    }

    /// The keys; `None` when the KEK is another.
    pub(crate) fn unwrap(&self, kek: &Secret) -> Option<KeyPair<Secret>> {
        let len = self.wrapped.len() - WRAP_LEN;
        let mut keys = zeroize::Zeroizing::new([0; 64]);
        let room = keys.get_mut(..len)?;
        if !backend::unwrap(kek.of(self.length), self.wrapped, room) {
            return None;
        }
        let (first, second) = room.split_at_checked(self.length.bytes())?;
        let first = Some(Secret::from_slice(first));
        Some(match self.kk {
            1 => KeyPair {
                even: first,
                odd: None,
            },
            2 => KeyPair {
                even: None,
                odd: first,
            },
            _ => KeyPair {
                even: first,
                odd: Some(Secret::from_slice(second)),
            },
        })
    }
}

/// A KM message as bytes: nothing in it is secret without the passphrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Message {
    /// A copy; `None` when it is too long to be one.
    pub(crate) fn copy(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_LEN];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Message {
            bytes,
            len: from.len(),
        })
    }

    /// Wraps `keys`; `None` without keys, and in a build without ciphers.
    pub(crate) fn write(suite: &Suite, kek: &Secret, keys: &KeyPair<Secret>) -> Option<Self> {
        let (cipher, auth) = match suite.cipher {
            Cipher::Ctr => (CIPHER_CTR, 0),
            Cipher::Gcm => (CIPHER_GCM, AUTH_GCM),
        };
        let key_words = u8::try_from(suite.length.bytes() / 4).ok()?;
        let [s0, s1] = SIGN;
        let head = [
            VERSION_AND_TYPE,
            s0,
            s1,
            keys.kk(),
            0,
            0,
            0,
            0,
            cipher,
            auth,
            ENCAPSULATION,
            0,
            0,
            0,
            4,
            key_words,
        ];
        let mut plain = zeroize::Zeroizing::new([0; 64]);
        let mut plain_len = 0;
        for key in [&keys.even, &keys.odd].into_iter().flatten() {
            let key = key.of(suite.length);
            plain
                .get_mut(plain_len..plain_len + key.len())?
                .copy_from_slice(key);
            plain_len += key.len();
        }
        if plain_len == 0 {
            return None;
        }
        let mut bytes = [0; MAX_LEN];
        let (to_head, rest) = bytes.split_first_chunk_mut::<16>()?;
        *to_head = head;
        let (to_salt, wrapped) = rest.split_first_chunk_mut::<16>()?;
        *to_salt = suite.salt;
        let wrapped = wrapped.get_mut(..plain_len + WRAP_LEN)?;
        backend::wrap(kek.of(suite.length), plain.get(..plain_len)?, wrapped).then_some(Message {
            bytes,
            len: HEAD_LEN + WRAP_LEN + plain_len,
        })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}
