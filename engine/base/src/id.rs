//! Identifiers of the product: streams and shards.

use core::fmt;
use std::sync::Arc;

/// A stream's identifier: `[A-Za-z0-9][A-Za-z0-9._/-]{0,127}` (product contract, section 2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(Arc<str>);

/// Why a string is no stream identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidStreamId {
    /// It has no character at all.
    Empty,
    /// It is longer than 128 characters.
    TooLong,
    /// It has a character that is not allowed (at its place).
    Character,
}

impl fmt::Display for InvalidStreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidStreamId::Empty => "stream id is empty",
            InvalidStreamId::TooLong => "stream id is longer than 128 characters",
            InvalidStreamId::Character => "stream id must match [A-Za-z0-9][A-Za-z0-9._/-]{0,127}",
        })
    }
}

impl core::error::Error for InvalidStreamId {}

impl StreamId {
    /// The greatest length in characters.
    pub const MAX_LEN: usize = 128;

    /// Checks `text` and makes it an identifier.
    pub fn new(text: &str) -> Result<Self, InvalidStreamId> {
        if text.is_empty() {
            return Err(InvalidStreamId::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidStreamId::TooLong);
        }
        let ok = text.bytes().enumerate().all(|(i, b)| {
            b.is_ascii_alphanumeric() || (i > 0 && matches!(b, b'.' | b'_' | b'/' | b'-'))
        });
        if ok {
            Ok(StreamId(Arc::from(text)))
        } else {
            Err(InvalidStreamId::Character)
        }
    }

    /// The identifier of an ad hoc RTP stream: `rtp_` and the SSRC in eight hex digits.
    pub fn for_ssrc(ssrc: u32) -> Self {
        StreamId(Arc::from(format!("rtp_{ssrc:08x}").as_str()))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard's number: its bind order in each SO_REUSEPORT group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ShardId(pub u16);

impl ShardId {
    /// As an index into per-shard tables.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_contract() {
        for good in ["a", "live/cam1", "9.a-b_c/d", &"x".repeat(128)] {
            assert!(StreamId::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/live",
            ".a",
            "a b",
            "caméra",
            "a\0",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(StreamId::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(StreamId::for_ssrc(0xab).as_str(), "rtp_000000ab");
    }
}
