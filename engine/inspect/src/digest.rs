//! SHA-256 (FIPS 180-4) of payloads.

use sha2::{Digest, Sha256};

/// A running hash and how much went into it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hash {
    state: Sha256,
    pub(crate) bytes: u64,
}

impl Hash {
    /// More bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// In lower-case hex; empty when nothing went in.
    pub(crate) fn hex(&self) -> String {
        if self.bytes == 0 {
            return String::new();
        }
        let digest = self.state.clone().finalize();
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}
