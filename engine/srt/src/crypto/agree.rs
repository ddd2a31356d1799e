//! What both sides agree on (spec section 8, "encryption outcomes"): the listener's decision on
//! a KMREQ, the caller's on its answer. Called by whoever authorises and by the handshakes; a
//! connection takes the [`Terms`].

use core::fmt;

use super::cipher_iv::GcmForm;
use super::message::{KeyMaterial, KeyPair, KmState, Message};
use super::packet_key::Suite;
use super::secret::{Secret, SecretRandom};
use super::{Cipher, CipherPolicy, KeyLength, Passphrase, Salt, backend};
use crate::reject::RejectionCode;

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

/// What a connection begins with.
#[derive(Debug)]
pub(crate) enum Terms {
    /// Clear, and nothing was asked for.
    Clear,
    /// Clear although one side has a passphrase: neither side insists. The state is what the
    /// listener answers.
    Unsecured(KmState),
    /// Keys.
    Keys(Box<Agreement>),
}

/// Keys and what belongs to them.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(crate) suite: Suite,
    pub(crate) kek: Secret,
    pub(crate) keys: KeyPair<Secret>,
    /// The KMREQ as it came or went.
    pub(crate) message: Message,
    /// ENFORCEDENCRYPTION.
    pub(crate) require: bool,
    /// `Secured`, or why the peer cannot read what we encrypt and sends in the clear.
    pub(crate) state: KmState,
    /// For the keys to come of our sending direction.
    pub(crate) random: SecretRandom,
}

/// What a listener agreed with a caller: keys, or none. Opaque; made by [`Security::negotiate`],
/// used by [`Connection::accept`](crate::Connection::accept). Shows no key in `Debug`.
pub struct Security(Terms);

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Security").field(&self.agreed()).finish()
    }
}

impl Security {
    /// No encryption on either side.
    pub const fn clear() -> Self {
        Security(Terms::Clear)
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
        let random = SecretRandom::new(seed);
        // Nothing but the right form is taken, whatever is decided about it (spec section 16.2).
        let asked = match key_material {
            Some(message) => {
                let material = KeyMaterial::parse(message).ok_or(RejectionCode::ROGUE)?;
                let message = Message::copy(message).ok_or(RejectionCode::ROGUE)?;
                Some((material, message))
            }
            None => None,
        };
        if policy.passphrase.is_some() && !backend::AVAILABLE {
            return Err(RejectionCode::CRYPTO);
        }
        let refused = match (asked, policy.passphrase) {
            (None, None) => return Ok(Security(Terms::Clear)),
            (None, Some(_)) => KmState::Unsecured,
            (Some(_), None) => KmState::NoSecret,
            (Some((material, _)), Some(_)) if !policy.cipher.allows(material.cipher) => {
                KmState::BadCryptoMode
            }
            (Some((material, message)), Some(passphrase)) => {
                let kek = passphrase.derive(&material.salt, material.length);
                if let Some(keys) = material.unwrap(&kek) {
                    let suite = Suite {
                        cipher: material.cipher,
                        form: GcmForm::for_peer(peer_version),
                        length: material.length,
                        salt: material.salt,
                    };
                    return Ok(Security(Terms::Keys(Box::new(Agreement {
                        suite,
                        kek,
                        keys,
                        message,
                        require: policy.require,
                        state: KmState::Secured,
                        random,
                    }))));
                }
                KmState::BadSecret
            }
        };
        if policy.require {
            Err(refused.rejection())
        } else {
            Ok(Security(Terms::Unsecured(refused)))
        }
    }

    /// What was agreed, for people: cipher and key length, `None` when clear.
    pub const fn agreed(&self) -> Option<(Cipher, KeyLength)> {
        match &self.0 {
            Terms::Keys(agreement) => Some((agreement.suite.cipher, agreement.suite.length)),
            Terms::Clear | Terms::Unsecured(_) => None,
        }
    }

    pub(crate) fn into_terms(self) -> Terms {
        self.0
    }
}

/// What the responder of a rendezvous has to be told before it can answer: whether the initiator's
/// keys are taken, by [`Security::negotiate`]. Asked by
/// [`Connection::key_question`](crate::Connection::key_question).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyQuestion {
    /// Names the question in the answer.
    pub number: u32,
    /// The KMREQ block, if the initiator wants encryption.
    pub key_material: Option<Vec<u8>>,
    /// SRT version that it announced.
    pub peer_version: u32,
}

/// What a caller needs to ask for encryption. Opaque; shows no key in `Debug`.
pub struct CallerSecurity {
    salt: Salt,
    kek: Secret,
    key: Secret,
    key_length: Option<KeyLength>,
    cipher: Cipher,
    require: bool,
    random: SecretRandom,
    /// The request, once the key length is known; whether that was chosen on either side.
    asked: Option<(KeyLength, Message)>,
    is_chosen: bool,
}

impl fmt::Debug for CallerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerSecurity")
            .field("cipher", &self.cipher)
            .field("key_length", &self.key_length)
            .field("require", &self.require)
            .finish_non_exhaustive()
    }
}

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
        let mut random = SecretRandom::new(seed);
        let mut salt = [0; 16];
        random.fill(&mut salt);
        let key = Secret::draw(&mut random);
        CallerSecurity {
            kek: passphrase.derive(&salt, key_length.unwrap_or(KeyLength::Aes256)),
            salt,
            key,
            key_length,
            cipher: cipher.asks(),
            require,
            random,
            asked: None,
            is_chosen: key_length.is_some(),
        }
    }

    /// The listener's encryption field is known (spec section 5.3): writes the request.
    ///
    /// # Errors
    /// CRYPTO in a build without ciphers.
    pub(crate) fn ask(&mut self, advertised: u16) -> Result<(), RejectionCode> {
        let chosen = self.key_length.or(KeyLength::from_field(advertised));
        self.is_chosen = chosen.is_some();
        let length = chosen.unwrap_or_default();
        let keys = KeyPair {
            even: Some(self.key.clone()),
            odd: None,
        };
        // The variant of AES-GCM does not show in the message.
        let suite = self.suite(length, GcmForm::Current);
        let message = Message::write(&suite, &self.kek, &keys).ok_or(RejectionCode::CRYPTO)?;
        self.asked = Some((length, message));
        Ok(())
    }

    /// The encryption field of a rendezvous greeting: the key length, if it was chosen.
    pub(crate) fn advertised(&self) -> u16 {
        self.key_length.map_or(0, KeyLength::to_field)
    }

    const fn suite(&self, length: KeyLength, form: GcmForm) -> Suite {
        Suite {
            cipher: self.cipher,
            form,
            length,
            salt: self.salt,
        }
    }

    /// The encryption field of the request, which libsrt leaves 0 unless the caller chose the
    /// length or the listener advertised it (spec section 5.4), and the KM message.
    pub(crate) fn request(&self) -> Option<(u16, &[u8])> {
        let (length, message) = self.asked.as_ref()?;
        let field = if self.is_chosen { length.to_field() } else { 0 };
        Some((field, message.as_bytes()))
    }

    /// Decides about the listener's answer (spec sections 8 and 16.5): the KM message itself, a
    /// status, or nothing at all.
    ///
    /// # Errors
    /// Why the caller gives up, when it insists on encryption.
    pub(crate) fn conclude(
        self,
        response: Option<&[u8]>,
        peer_version: u32,
    ) -> Result<Terms, RejectionCode> {
        let Some((length, message)) = self.asked else {
            return Err(RejectionCode::IPE);
        };
        let state = match response {
            Some(content) if content == message.as_bytes() => KmState::Secured,
            None => KmState::NoSecret,
            // A status that is none of the refusals is no agreement either.
            Some(content) => match KmState::from_wire(content) {
                Some(KmState::Secured | KmState::Securing) => KmState::Unsecured,
                Some(state) => state,
                None if self.require => return Err(RejectionCode::ROGUE),
                None => KmState::BadSecret,
            },
        };
        if state != KmState::Secured && self.require {
            return Err(state.rejection());
        }
        let suite = self.suite(length, GcmForm::for_peer(peer_version));
        Ok(Terms::Keys(Box::new(Agreement {
            suite,
            kek: self.kek,
            keys: KeyPair {
                even: Some(self.key),
                odd: None,
            },
            message,
            require: self.require,
            state,
            random: self.random,
        })))
    }
}
