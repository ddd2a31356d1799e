//! Secrets in memory: wiped when dropped, never shown. Held by the key rings and by what is
//! handed over from whoever derived them.

use core::fmt;
use core::hint::black_box;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use zeroize::{Zeroize, Zeroizing};

use super::KeyLength;

/// A key of up to 32 bytes: a stream key (SEK) or the key that wraps them (KEK). Shorter keys
/// are its beginning.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<[u8; 32]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// 32 zeros, to be filled.
    pub(crate) fn empty() -> Self {
        Secret(Zeroizing::new([0; 32]))
    }

    /// A key out of the generator.
    pub(crate) fn draw(random: &mut SecretRandom) -> Self {
        let mut secret = Secret::empty();
        random.fill(secret.0.as_mut_slice());
        secret
    }

    /// From a slice; what is missing at the end is zero, what is too much is left out.
    pub(crate) fn from_slice(bytes: &[u8]) -> Self {
        let mut secret = Secret::empty();
        for (to, from) in secret.0.iter_mut().zip(bytes) {
            *to = *from;
        }
        secret
    }

    /// The key of this length.
    #[inline]
    pub(crate) fn of(&self, length: KeyLength) -> &[u8] {
        self.0.split_at(length.bytes()).0
    }

    /// The whole room.
    pub(crate) fn room(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

/// A generator for keys (ChaCha20), seeded from the OS by whoever made it; its state is
/// overwritten when it is dropped.
pub(crate) struct SecretRandom(ChaCha20Rng);

impl fmt::Debug for SecretRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRandom(..)")
    }
}

impl SecretRandom {
    /// Wipes its copy of the seed.
    pub(crate) fn new(mut seed: [u8; 32]) -> Self {
        let random = SecretRandom(ChaCha20Rng::from_seed(seed));
        seed.zeroize();
        random
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

impl Drop for SecretRandom {
    fn drop(&mut self) {
        // The generator's type has no way to be wiped: overwrite it by one that knows nothing,
        // with its buffer filled, and have the compiler believe that someone looks.
        self.0 = ChaCha20Rng::from_seed([0; 32]);
        black_box(self.0.next_u32());
        black_box(&self.0);
    }
}
