//! Stands in for `backend` in builds without the feature `crypto`: nothing can be wrapped,
//! unwrapped or encrypted, no key can exist, and so no encryption is ever agreed.

use super::{TAG_LEN, cipher_iv};

/// Whether this build can encrypt.
pub(crate) const AVAILABLE: bool = false;

pub(crate) fn derive(_passphrase: &[u8], _salt: &[u8], _out: &mut [u8]) {}

pub(crate) fn wrap(_kek: &[u8], _keys: &[u8], _out: &mut [u8]) -> bool {
    false
}

pub(crate) fn unwrap(_kek: &[u8], _wrapped: &[u8], _out: &mut [u8]) -> bool {
    false
}

/// No such key can be made.
#[derive(Debug)]
pub(crate) enum CtrKey {}

impl CtrKey {
    pub(crate) fn new(_key: &[u8]) -> Option<Self> {
        None
    }

    pub(crate) fn apply(&self, _iv: [u8; cipher_iv::CTR_LEN], _data: &mut [u8]) {
        match *self {}
    }
}

/// No such key can be made.
#[derive(Debug)]
pub(crate) enum GcmKey {}

impl GcmKey {
    pub(crate) fn new(_key: &[u8]) -> Option<Self> {
        None
    }

    pub(crate) fn seal(
        &self,
        _iv: [u8; cipher_iv::GCM_LEN],
        _aad: &[u8],
        _data: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        match *self {}
    }

    pub(crate) fn open(
        &self,
        _iv: [u8; cipher_iv::GCM_LEN],
        _aad: &[u8],
        _sealed: &[u8],
        _tag: &[u8; TAG_LEN],
        _out: &mut [u8],
    ) -> bool {
        match *self {}
    }
}
